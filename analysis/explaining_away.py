"""H28: a shape that higher areas can explain lowers errors of V1 and raises their estimates."""

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
from pcsim.model import Model, lesion
from pcsim.protocols import (
    contrast_index,
    lacks,
    respond,
    responsive,
    roles_at,
    signal_role,
    visual_field,
)
from pcsim.stimuli import bars
from pcsim.stimulus import stimulus_array

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["HYPOTHESIS"]

LEVEL, ABOVE = 1, 2
N_SEGMENTS = 8
N_SHAPES = {"quick": 24, "full": 96}
DURATION, STEP = 0.5, 0.05
STEADY = 0.2
"""Seconds from which the response counts."""
WIDTH = 2.0
"""Pixels across a segment."""


def shapes(model: Model, *, n: int, seed: int) -> xr.DataArray:
    """Return closed contours of line segments, and the same segments each turned on its place.

    Contours are circles of random radius and phase about a random place near the middle, half of
    them dark. Turning draws an angle between 45 and 135 degrees for every segment, so that places,
    lengths and luminance are the same and only their agreement is lost.
    """
    field, px_per_deg = visual_field(model)
    rng = np.random.default_rng([seed, 28])
    side = min(field) / px_per_deg
    radius = rng.uniform(0.24, 0.32, n)[:, None] * side
    around = 2 * np.pi * (np.arange(N_SEGMENTS) / N_SEGMENTS + rng.uniform(0, 1, (n, 1)))
    shift = rng.uniform(-0.08, 0.08, (2, n, 1)) * side
    x, y = radius * np.cos(around) + shift[0], radius * np.sin(around) + shift[1]
    along = around + np.pi / 2
    turned = along + rng.uniform(np.pi / 4, 3 * np.pi / 4, along.shape)
    length = np.broadcast_to(0.6 * 2 * np.pi * radius / N_SEGMENTS, x.shape)
    images = []
    for angle in (along, turned):
        drawn = bars(
            field, length=length.ravel(), width=WIDTH / px_per_deg, orientation=angle.ravel(),
            x=x.ravel(), y=y.ravel(), contrast=0.8, px_per_deg=px_per_deg,
        )  # fmt: skip
        ink = (drawn.to_numpy()[:, 0] - 0.5).reshape(n, N_SEGMENTS, *field).sum(axis=1)
        images.append(ink * np.where(np.arange(n) % 2, -1.0, 1.0)[:, None, None])
    values = np.clip(0.5 + np.concatenate(images), 0.0, 1.0)[:, None]
    return stimulus_array(
        values, frame_duration=DURATION, px_per_deg=px_per_deg,
        condition=np.repeat(["shape", "scrambled"], n),
    )  # fmt: skip


def observe(model: Model, *, seed: int, scale: str) -> tuple[xr.Dataset, xr.Dataset]:
    """Show shapes and scrambled ones; read errors of V1 and estimates of the level above."""
    role = signal_role(model, LEVEL)
    assert role is not None
    n = N_SHAPES[scale]
    stimulus = shapes(model, n=n, seed=seed)
    responses = respond(model, stimulus, level=LEVEL, role=role, every=STEP, seed=seed)
    size = steady(responses)
    estimate = 0.0
    if "latent" in roles_at(model, ABOVE):
        higher = respond(model, stimulus, level=ABOVE, role="latent", every=STEP, seed=seed)
        above = steady(higher)
        change = contrast_index(above[:n].mean(0), above[n:].mean(0))
        kept = responsive(above)
        estimate = float(change[kept].mean()) if kept.any() else 0.0
    evidence = xr.Dataset(
        {
            "fall": ("unit", contrast_index(size[n:].mean(0), size[:n].mean(0))),
            # One number a replica; 0 in a model without a level above.
            "estimate": ("unit", np.full(size.shape[1], estimate)),
            "included": ("unit", responsive(size)),
        }
    )
    return evidence, responses.isel(trial=[0, n])


def steady(responses: xr.Dataset) -> Any:
    """Return the mean |rate| from 0.2 s on, (trial, unit)."""
    rate = responses["rate"].sel(time=slice(STEADY, None)).transpose("trial", "time", "unit")
    return np.abs(rate.to_numpy()).mean(axis=1)


def less_error(means: Means) -> Any:
    """Return by how much a shape lowers errors."""
    return means["fall"]


def more_estimate(means: Means) -> Any:
    """Return by how much a shape raises the estimates of the level above."""
    return means["estimate"]


def panel(evidence: Mapping[str, Sequence[xr.Dataset]], ax: Axes) -> None:
    """Draw the change of errors and of the estimates above for each column."""
    from pcsim.plots import colour

    shown = [label for label in ("PREDNET-s", "PATH", "RB", "COLUMN", "LN") if evidence.get(label)]
    for place, label in enumerate(shown):
        for replica, one in enumerate(evidence[label]):
            kept = one.isel(unit=one["included"].values)
            drawn = (("error", -kept["fall"].mean(), "o"), ("latent", kept["estimate"].mean(), "s"))
            for shift, (role, value, marker) in zip((-0.1, 0.1), drawn, strict=True):
                name = "errors, V1" if role == "error" else "estimates, V2"
                ax.plot(
                    place + shift, float(value), marker, markersize=3.5, color=colour(role),
                    label=None if place or replica else name,
                )  # fmt: skip
    ax.axhline(0.0, color="0.7", linewidth=0.6, zorder=0)
    ax.set_xticks(range(len(shown)), shown, fontsize=6)
    ax.set_xlim(-0.5, max(len(shown), 1) - 0.5)
    ax.set_ylabel("(shape - scrambled) / sum")
    ax.legend(loc="lower left", bbox_to_anchor=(0.0, 1.0), ncols=2, fontsize=6)


HYPOTHESIS = Hypothesis(
    id="H28",
    name="Shapes are explained away in V1",
    claim=(
        "Segments that form a shape lower the activity of V1 and raise that of a higher area, as "
        "if the higher area explained them away (Murray et al. 2002, PNAS 99:15164)."
    ),
    family="V1",
    protocol=(
        "Eight segments on a circle, 24 of them (full: 96) of radius 0.24 to 0.32 of the field's "
        "shorter side near its middle, half dark, 0.5 s on grey; and the same segments turned on "
        "their places by 45 to 135 degrees. Mean |rate| from 0.2 s on. Units are included if their "
        "response exceeds 5 % of the population's 95th percentile."
    ),
    statistic=(
        "(scrambled - shape) / (scrambled + shape) of errors; beside it (shape - scrambled) / sum "
        "of the latents of level 2, one number a replica."
    ),
    signal="error units of level 1 (output or latent units of models without them), latents above",
    falsified_if=("Errors of level 1 do not fall.", "Estimates of level 2 fall."),
    units="index",
    missing=lambda model: lacks(model, LEVEL),
    observe=observe,
    variables=("fall", "estimate"),
    combine=less_error,
    null=0.0,
    direction=1,
    rope=(-0.005, 0.005),
    reference=Reference(
        status="remembered",
        source=(
            "Sign only, from memory. Murray et al. 2002: V1 falls and the lateral occipital "
            "complex rises when elements form shapes (fMRI). Contested: image statistics may do it "
            "(Dumoulin & Hess 2006, J. Neurophysiol. 95:3654), and shapes raise and lower V1 at "
            "different places (Kok & de Lange 2014, Curr. Biol. 24:1531)."
        ),
    ),
    requirements=(
        Requirement(
            name="estimates above",
            statement="Latents of the level above respond more; 0 where there are none.",
            combine=more_estimate,
        ),
    ),
    controls=(
        Control(
            name="static",
            statement="Rectified filters without feedback see the same segments.",
            variant="LN",
        ),
        Control(
            name="feedback cut",
            statement="Without predictions from above nothing is explained away.",
            transform=lambda model, seed: lesion(model, feedback_gain=0.0),
        ),
    ),
    departures=(
        "No apparent motion in and out of time, as the battery asks: shapes only.",
        "Estimates above are one number a replica; their units are not resampled.",
    ),
    remembered=(
        "The battery has this entry from memory, and no reading is on record.",
        "Eight segments, radius, 0.5 s and 0.2 s are our own, not those of Murray et al.",
    ),
    version=2,
    expectations={
        "PATH": "?", "PATH-cut": "-", "COLUMN": "?",
        "COLUMN-cut": "-", "JB": "?", "PREDNET-noE": "?",
    },
    panel=panel,
)  # fmt: skip
