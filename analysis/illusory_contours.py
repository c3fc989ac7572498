"""H29e: units answer to an illusory contour between inducers, later than to a real one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from pcsim.hypothesis import (
    Control,
    Hypothesis,
    Means,
    Reference,
    Requirement,
)
from pcsim.model import Model
from pcsim.protocols import (
    ESTIMATES,
    contrast_index,
    departure,
    lacks,
    respond,
    responsive,
    signal_role,
    visual_field,
)
from pcsim.stimulus import stimulus_array

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["HYPOTHESIS"]

LEVEL = 1
FIELD = (24, 32)
"""Rows and columns that the figure needs; it grows with larger fields."""
HEIGHT, BREADTH, RADIUS = 14.0, 10.0, 4.0
"""Of the rectangle and of the inducing discs, pixels of that field."""
OFFSETS = (-1.0, 0.0, 1.0)
"""Pixels between the contour and the middle of the field."""
FINE = 4
"""Points a pixel and axis by which edges are drawn."""
CENTRAL = 0.16
"""Degrees: units within this distance of the field's centre, on both axes."""
DURATION, STEP = 0.4, 0.01


def figures(model: Model) -> xr.DataArray:
    """Return grey, illusory, rotated and real figures: dark and light, to both sides, shifted."""
    field, px_per_deg = visual_field(model)
    scale = min(np.divide(field, FIELD))
    images, condition = [np.full(field, 0.5)], ["grey"]
    for name in ("illusory", "rotated", "real"):
        for side in (-1.0, 1.0):
            for offset in OFFSETS:
                ink = covered(field, name, scale, side, offset)
                images += [0.5 + 0.4 * sign * ink for sign in (-1.0, 1.0)]
                condition += 2 * [name]
    return stimulus_array(
        np.array(images)[:, None], frame_duration=DURATION, px_per_deg=px_per_deg,
        condition=condition,
    )  # fmt: skip


def covered(field: tuple[int, int], name: str, scale: float, side: float, offset: float) -> Any:
    """Return how much of each pixel is ink, (y, x), of a figure whose near side is the contour.

    Discs lack the quadrant that the rectangle covers ("illusory") or the opposite one ("rotated");
    "real" is the rectangle.
    """
    rows, columns = (
        (np.arange(n * FINE) + 0.5) / FINE - n / 2 for n in field
    )  # pixels from the middle
    x, y = np.meshgrid(side * columns - side * offset, rows)
    height, breadth, radius = scale * HEIGHT, scale * BREADTH, scale * RADIUS
    inside = (np.abs(y) < height / 2) & (x > 0) & (x < breadth)
    if name == "real":
        ink = inside.astype(float)
    else:
        ink = np.zeros_like(x)
        for corner_x in (0.0, breadth):
            for corner_y in (-height / 2, height / 2):
                right, down = x - corner_x, y - corner_y
                disc = np.hypot(right, down) < radius
                inward = (right * (breadth / 2 - corner_x) > 0) & (down * -corner_y > 0)
                outward = (right * (breadth / 2 - corner_x) < 0) & (down * -corner_y < 0)
                ink[disc & ~(inward if name == "illusory" else outward)] = 1.0
    ny, nx = field
    return ink.reshape(ny, FINE, nx, FINE).mean(axis=(1, 3))


def observe(model: Model, *, seed: int, scale: str) -> tuple[xr.Dataset, xr.Dataset]:
    """Show the figures; read the units at the middle of the contour."""
    role = signal_role(model, LEVEL, ESTIMATES)
    assert role is not None
    responses = respond(model, figures(model), level=LEVEL, role=role, every=STEP, seed=seed)
    near = np.maximum(np.abs(responses["x"].values), np.abs(responses["y"].values)) <= CENTRAL
    responses = responses.isel(unit=near)
    size, condition = departure(responses), responses["condition"].values
    course = {
        name: size[condition == name].mean(axis=0) for name in ("illusory", "rotated", "real")
    }
    mean = {name: one.mean(axis=0) for name, one in course.items()}
    time = responses["time"].values
    gain = course["illusory"] - course["rotated"]
    evidence = xr.Dataset(
        {
            "index": ("unit", contrast_index(mean["illusory"], mean["rotated"])),
            "latency": ("unit", half_time(np.abs(gain), time)),
            "latency_real": ("unit", half_time(course["real"], time)),
            "included": ("unit", responsive(mean["real"])),
        }
    )
    return evidence, responses.isel(trial=[0, 1])


def half_time(course: Any, time: Any) -> Any:
    """Return when each unit (time, unit) first reaches half of its largest value, seconds."""
    return time[np.argmax(course >= 0.5 * course.max(axis=0), axis=0)]


def strength(means: Means) -> Any:
    """Return the index of the illusory contour."""
    return means["index"]


def later(means: Means) -> Any:
    """Return by how much the illusory contour comes later than a real one, seconds."""
    return means["latency"] - means["latency_real"]


def missing(model: Model) -> str:
    """Return why a model cannot be asked."""
    reason = lacks(model, LEVEL, ESTIMATES)
    if reason:
        return reason
    (rows, columns), _ = visual_field(model)
    if rows < FIELD[0] or columns < FIELD[1]:
        return f"its field of {rows} by {columns} px has no room for inducers and a gap"
    return ""


def panel(evidence: Mapping[str, Sequence[xr.Dataset]], ax: Axes) -> None:
    """Draw the index of every unit of each column, and its mean."""
    from pcsim.plots import colour

    names = ("PREDNET-s", "PREDNET-noE", "PREDNET-untr", "RB", "LCA", "LN")
    shown = [label for label in names if evidence.get(label)]
    for place, label in enumerate(shown):
        for replica, one in enumerate(evidence[label]):
            values = one["index"].values[one["included"].values]
            x = place + 0.2 * (replica - (len(evidence[label]) - 1) / 2)
            ax.plot(np.full(values.size, x), values, ".", markersize=2, color=colour("latent"))
            if values.size:
                ax.plot([x - 0.08, x + 0.08], 2 * [values.mean()], color="black", linewidth=1.0)
    ax.axhline(0.0, color="0.7", linewidth=0.6, zorder=0)
    ax.set_xticks(range(len(shown)), shown, fontsize=6)
    ax.set_xlim(-0.5, max(len(shown), 1) - 0.5)
    ax.set_ylabel("(illusory - rotated) / sum")


HYPOTHESIS = Hypothesis(
    id="H29e",
    name="Illusory contours",
    claim=(
        "Units whose field lies between the inducers of a Kanizsa figure respond more than when "
        "the inducers are turned, and later than to a real contour (V1 and V2, Lee & Nguyen 2001; "
        "PredNet, Lotter et al. 2020)."
    ),
    family="V1",
    protocol=(
        "Four discs at the corners of a rectangle of 14 by 10 px (in a field of 24 by 32; larger "
        "in larger fields), one side of which runs through the middle of the field, each without "
        "the quadrant that faces inward or outward; the rectangle itself; dark and light, to both "
        "sides, shifted by up to 1 px, 0.4 s on grey. Response: mean |rate less that of grey|, "
        "units within 0.16 degrees of the middle, included if the rectangle drives them by more "
        "than 5 % of the population's 95th percentile. The same at full scale."
    ),
    statistic=(
        "ICI = (illusory - rotated) / (illusory + rotated). Also: half-rise of |illusory - "
        "rotated| less half-rise of the response to the rectangle."
    ),
    signal="latent units of level 1 (output or error units of models without them)",
    falsified_if="ICI is not above 0, or the response is not later than to a real contour.",
    units="index",
    missing=missing,
    observe=observe,
    variables=("index", "latency", "latency_real"),
    combine=strength,
    null=0.0,
    direction=1,
    rope=(-0.01, 0.01),
    reference=Reference(
        status="remembered",
        source="Lee & Nguyen 2001, PNAS 98:1907: sign and order in time, from memory.",
    ),
    requirements=(
        Requirement(name="later", statement="It comes after a real contour.", combine=later),
    ),
    controls=(
        Control(
            name="static",
            statement="Filters see the inducers alone, whatever lies between them.",
            variant="LN",
        ),
        Control(
            name="untrained",
            statement="A network that has learned nothing completes nothing.",
            variant="PREDNET-untr",
        ),
        Control(
            name="no error loss",
            statement="The same network without a loss on its errors (Ext. Data Fig. 9).",
            variant="PREDNET-noE",
        ),
        Control(
            name="static frames",
            statement="The same network raised on frames that stand still has seen no motion.",
            variant="PREDNET-static",
        ),
    ),
    departures=(
        "The figure is a rectangle of one size in pixels; those of the source are not known here.",
        "Latents of level 1 in place of recorded spikes: the half-rise is limited by frames of 50 "
        "ms in PREDNET.",
        "Static-frame training was added as a control after verdicts had been seen.",
    ),
    version=2,
    expectations={
        "COLUMN": "?", "JB": "?", "PREDNET-noE": "?",
        "PREDNET-untr": "-", "PREDNET-static": "?",
    },
    panel=panel,
)  # fmt: skip
