"""H29d: responses to shapes grow with their distance from the mean shape."""

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
from pcsim.protocols import deepest_estimate, departure, respond, responsive, visual_field
from pcsim.stimulus import stimulus_array

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["HYPOTHESIS"]

DISTANCES = (0.0, 0.25, 0.5, 0.75, 1.0)
N_SHAPES = {"quick": 8, "full": 32}
FREQUENCIES = (2, 3, 4, 5)
"""Cycles a turn by which the radius departs from that of the mean shape."""
LARGEST = 0.25
"""Root mean square departure at distance 1, in radii of the mean shape."""
CONTRAST = 0.1
"""Root mean square of every image, in units of the range of luminance."""
DURATION, STEP = 0.3, 0.05


def contours(model: Model, coefficients: Any, *, turn: Any) -> Any:
    """Draw closed contours of equal contrast, (n, y, x).

    The radius is that of the mean shape, a circle, times 1 + sum of the coefficients (n, 8) times
    cosine and sine of 2 to 5 cycles a turn; `turn` (n,) rotates the shape.
    """
    (ny, nx), _ = visual_field(model)
    radius, width = 0.28 * min(ny, nx), 0.06 * min(ny, nx)
    y, x = np.meshgrid((ny - 1) / 2 - np.arange(ny), np.arange(nx) - (nx - 1) / 2, indexing="ij")
    angle = np.arctan2(y, x)[None] - np.asarray(turn)[:, None, None]
    waves = np.stack([f(k * angle) for k in FREQUENCIES for f in (np.cos, np.sin)], axis=1)
    outline = radius * (1.0 + np.einsum("nk,nkyx->nyx", coefficients, waves))
    ink = np.exp(-((np.hypot(x, y) - outline) ** 2) / (2 * width**2))
    ink = ink - ink.mean(axis=(1, 2), keepdims=True)
    return np.clip(0.5 + CONTRAST * ink / ink.std(axis=(1, 2), keepdims=True), 0.0, 1.0)


def shapes(model: Model, *, n: int, seed: int) -> xr.DataArray:
    """Return shapes at five distances from the mean, and from a shape that is not the mean."""
    _, px_per_deg = visual_field(model)
    rng = np.random.default_rng([seed, 29])
    way = rng.standard_normal((n, 2 * len(FREQUENCIES)))
    way *= np.sqrt(2.0) * LARGEST / np.linalg.norm(way, axis=1, keepdims=True)
    turn = rng.uniform(0.0, 2.0 * np.pi, n)
    images, condition, distance = [np.full((1, *visual_field(model)[0]), 0.5)], ["grey"], [0.0]
    # Each shape starts from its neighbour in the list when it does not start from the mean.
    for name, start in (("mean", np.zeros_like(way)), ("other", np.roll(way, 1, axis=0))):
        for one in DISTANCES:
            images.append(contours(model, start + one * way, turn=turn))
            condition += n * [name]
            distance += n * [one]
    return stimulus_array(
        np.concatenate(images)[:, None], frame_duration=DURATION, px_per_deg=px_per_deg,
        condition=condition, distance=np.array(distance),
    )  # fmt: skip


def observe(model: Model, *, seed: int, scale: str) -> tuple[xr.Dataset, xr.Dataset]:
    """Show the shapes and read the deepest estimates."""
    signal = deepest_estimate(model)
    assert signal is not None
    stimulus = shapes(model, n=N_SHAPES[scale], seed=seed)
    level, role = signal
    responses = respond(model, stimulus, level=level, role=role, every=STEP, seed=seed)
    size = departure(responses).mean(axis=1)
    labels = responses["condition"].values, responses["distance"].values
    curves = {
        name: np.stack([size[(labels[0] == name) & (labels[1] == d)].mean(0) for d in DISTANCES])
        for name in ("mean", "other")
    }
    included = responsive(size)
    kept = included if included.any() else np.ones_like(included)
    evidence = xr.Dataset(
        {
            "slope": ("unit", slope(curves["mean"])),
            "slope_other": ("unit", slope(curves["other"])),
            "included": ("unit", included),
            "curve": ("distance", curves["mean"][:, kept].mean(axis=1)),
            "curve_other": ("distance", curves["other"][:, kept].mean(axis=1)),
        },
        coords={"distance": list(DISTANCES)},
    )
    return evidence, responses.isel(trial=[0, 1])


def slope(curve: Any) -> Any:
    """Return the least-squares slope of responses (distance, unit), in units of their mean."""
    centred = np.array(DISTANCES) - np.mean(DISTANCES)
    mean = curve.mean(axis=0)
    rise = centred @ curve / (centred @ centred)
    return np.where(mean > 0, rise / np.where(mean > 0, mean, 1.0), 0.0)


def growth(means: Means) -> Any:
    """Return the slope with distance from the mean shape."""
    return means["slope"]


def about_the_mean(means: Means) -> Any:
    """Return by how much it exceeds the slope with distance from another shape."""
    return means["slope"] - means["slope_other"]


def missing(model: Model) -> str:
    """Return why a model cannot be asked."""
    if model.field_shape is None:
        return "it sees no images"
    return "" if deepest_estimate(model) else "it has no latent, output or error units"


def panel(evidence: Mapping[str, Sequence[xr.Dataset]], ax: Axes) -> None:
    """Draw the response against distance from the mean shape, and from another shape."""
    from pcsim.plots import OKABE_ITO

    shown = {"PREDNET-s": "vermillion", "RB": "blue", "ADAPT": "green", "LN": "black"}
    for label, shade in shown.items():
        found = evidence.get(label, ())
        for name, line in (("curve", "-"), ("curve_other", ":")) if found else ():
            scale = np.mean([float(one["curve"][0]) for one in found])
            mean = xr.concat([one[name] for one in found], "replica").mean("replica") / scale
            text = label if name == "curve" else None
            ax.plot(DISTANCES, mean, line, color=OKABE_ITO[shade], label=text)
    ax.set_xlabel("Distance (dotted: from another shape)")
    ax.set_ylabel("Response (mean shape = 1)")
    ax.legend(loc="lower left", bbox_to_anchor=(0.0, 1.0), ncols=4, fontsize=6)


HYPOTHESIS = Hypothesis(
    id="H29d",
    name="Norm-based coding of shape",
    claim=(
        "Responses grow with the distance of a shape from the mean shape, as those of IT do with "
        "the distance of a face from the mean face; PredNet shows it (Lotter et al. 2020, Nat. "
        "Mach. Intell. 2:210). Shapes here, and a network that was not raised on them."
    ),
    family="V1",
    protocol=(
        "Closed contours whose radius departs from a circle by 2 to 5 cycles a turn, 8 directions "
        "(full: 32) at distances 0, 0.25, 0.5, 0.75 and 1 (25 % of the radius) from the circle, "
        "and as far along the same directions from another shape at distance 1; equal contrast, "
        "0.3 s. Mean |rate less that of grey|. Units are included if it exceeds 5 % of the "
        "population's 95th percentile."
    ),
    statistic=(
        "Slope of the response with distance over the mean response, mean of units. Also: that "
        "slope less the slope with distance from another shape."
    ),
    signal="latent units of the deepest level (output or error units of models without them)",
    falsified_if="The slope is not above 0, or not above that about another shape.",
    units="mean responses a unit of distance",
    missing=missing,
    observe=observe,
    variables=("slope", "slope_other"),
    combine=growth,
    null=0.0,
    direction=1,
    rope=(-0.01, 0.01),
    reference=Reference(
        status="remembered",
        source="Leopold et al. 2006, Nature 442:572 (faces, macaque IT): sign, from memory.",
    ),
    requirements=(
        Requirement(
            name="about the mean",
            statement="Distance from a shape that is not the mean matters less.",
            combine=about_the_mean,
        ),
    ),
    controls=(
        Control(
            name="static",
            statement="Filters answer to local contours and know no mean shape.",
            variant="LN",
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
        "Closed contours stand for faces, and no population of shapes was learned whose mean the "
        "circle could be.",
        "Distance from the circle is confounded with place: ink moves towards other fields.",
        "Static-frame training was added as a control after verdicts had been seen.",
    ),
    version=2,
    expectations={
        "PATH": "?", "COLUMN": "?", "JB": "?", "PREDNET-noE": "?",
        "PREDNET-untr": "?", "PREDNET-static": "?",
    },
    panel=panel,
)  # fmt: skip
