"""H07: units respond to motion of the centre only if the background moves differently.

A linear unit coarser than the grating sees neither part of it, but the edge between parts whose
phases differ: alone it may have a high index. Over units and directions it is uneven.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from pcsim.hypothesis import Control, Hypothesis, Means, Reference, Requirement
from pcsim.model import Model, lesion
from pcsim.protocols import by_scale, first_level, preferences, respond, signal_role, visual_field
from pcsim.responses import select
from pcsim.stimuli import jittered_gratings, white_noise

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["HYPOTHESIS"]

DIRECTIONS = np.arange(8) * np.pi / 4
PHASES = np.arange(4) * np.pi / 2
MOTIONS = ("global", "differential")
FRAME = 0.016
N_FRAMES = {"quick": 150, "full": 600}
SETTLED = 0.3
"""Seconds left out after the onset of the gratings."""
CENTRAL = 0.16
"""Degrees: units within this distance of the field's centre, on both axes, are measured."""
BLOCK, N_IMAGES, SPAN = 2, 500, 32
"""Noise that maps receptive fields: side of its squares, number, and pixels it covers at most."""
SHOWN = 0.2
MOST_CV, LEAST_CV = 10.0, 0.01
"""Variations beyond these are set to them, the smaller one in the panel only."""
PRESENT, UNEVEN = 0.2, 0.2
"""Index from which units count as sensitive; variation over directions up to which as blind."""


def width(model: Model, level: int, role: str, *, seed: int) -> float:
    """Return the median sigma of central receptive fields, degrees.

    Least squares of the mean response over 0.2 s, so that transient units show theirs, on noise in
    the middle of the field. The spread of a Gaussian field's energy is its sigma over root 2.
    """
    (ny, nx), px_per_deg = visual_field(model)
    inner = [min(side, SPAN) // BLOCK * BLOCK for side in (ny, nx)]
    noise = white_noise(
        (inner[0], inner[1]), n_trials=N_IMAGES, kind="binary", block=BLOCK, contrast=0.5,
        frame_duration=SHOWN, px_per_deg=px_per_deg, seed=seed,
    )  # fmt: skip
    values = np.full((N_IMAGES, 1, ny, nx), 0.5)
    top, left = (ny - inner[0]) // 2, (nx - inner[1]) // 2
    values[:, :, top : top + inner[0], left : left + inner[1]] = noise.to_numpy()
    # Without the coordinates of the smaller field.
    shown = xr.DataArray(
        values, dims=noise.dims, name="stimulus",
        coords={n: c.variable for n, c in noise.coords.items() if n not in ("x", "y")},
    )  # fmt: skip
    responses = central(respond(model, shown, level=level, role=role, every=0.02, seed=seed))
    rate = responses["rate"].mean("time").transpose("trial", "unit").to_numpy()
    squares = noise.to_numpy()[:, 0, ::BLOCK, ::BLOCK]
    regressors = squares.reshape(N_IMAGES, -1) - 0.5
    weights = np.linalg.lstsq(regressors, rate - rate.mean(axis=0), rcond=None)[0].T
    fields = xr.DataArray(weights.reshape(-1, *squares.shape[1:]), dims=("unit", "y", "x"))
    sigma = preferences(fields, px_per_deg=px_per_deg / BLOCK)["sigma"]
    return float(np.sqrt(2.0) * sigma.median())


def central(responses: xr.Dataset) -> xr.Dataset:
    """Keep the units in the middle of the field; all if none lies there."""
    near = np.maximum(np.abs(responses["x"].values), np.abs(responses["y"].values)) <= CENTRAL
    return responses.isel(unit=near) if near.any() else responses


def observe(model: Model, *, seed: int, scale: str) -> xr.Dataset:
    """Show jittering gratings and average the size of the response for each direction."""
    level = first_level(model)
    assert level is not None
    role = signal_role(model, level)
    assert role is not None
    field, px_per_deg = visual_field(model)
    sigma = width(model, level, role, seed=seed)
    side = min(field) / px_per_deg
    diameter = min(6.0 * sigma, 0.5 * side)
    frequency = min(0.5 / sigma, 0.25 * px_per_deg)
    grid = [(motion, phase, walk) for motion in MOTIONS for walk, phase in enumerate(PHASES)]
    motion, phase, walk = (list(column) for column in zip(*grid, strict=True))
    table = []
    for direction in DIRECTIONS:
        stimulus = jittered_gratings(
            field, motion=motion, phase=phase, walk=walk, direction=direction,
            spatial_frequency=frequency, center_diameter=diameter, step=0.05 / frequency,
            n_frames=N_FRAMES[scale], frame_duration=FRAME, px_per_deg=px_per_deg, seed=seed,
        )  # fmt: skip
        responses = respond(model, stimulus, level=level, role=role, every=FRAME, seed=seed)
        late = central(select(responses, time=slice(SETTLED, None)))["rate"]
        by_trial = np.abs(late.transpose("time", "trial", "unit").to_numpy()).mean(axis=0)
        table.append(by_trial.reshape(len(MOTIONS), len(PHASES), -1).mean(axis=1))
    rate = np.stack(table, axis=1)
    return xr.Dataset(
        evidence(rate),
        coords={"motion": list(MOTIONS), "direction": DIRECTIONS},
        attrs={"sigma": sigma, "field_in_sigma": side / sigma},
    )


def evidence(rate: Any) -> dict[str, Any]:
    """Turn mean responses (motion, direction, unit) into index, variation and inclusion."""
    together, apart = rate
    total = together + apart
    by_direction = (apart - together) / np.where(total > 0, total, 1.0)
    both = total.sum(axis=0)
    index = (apart - together).sum(axis=0) / np.where(both > 0, both, 1.0)
    mean = np.maximum(np.abs(by_direction.mean(axis=0)), np.finfo(float).tiny ** 0.5)
    variation = np.minimum(by_direction.std(axis=0) / mean, MOST_CV)
    floor = 0.05 * np.percentile(both, 95)
    return {
        "omsi": ("unit", index),
        "cv": ("unit", variation),
        "rate": (("motion", "direction", "unit"), rate),
        "included": ("unit", (both > floor) & (both > 0)),
    }


def linear(model: Any, seed: int) -> Any:
    """Return the model with linear subunits."""
    return lesion(model, rectified=False)


def object_motion(means: Means) -> Any:
    """Return the mean index."""
    return means["omsi"]


def unevenness(means: Means) -> Any:
    """Return the mean coefficient of variation over directions."""
    return means["cv"]


def panel(evidence: Mapping[str, Sequence[xr.Dataset]], ax: Axes) -> None:
    """Draw every unit's index against its variation over directions; grey is where it must lie."""
    from pcsim.plots import colour

    looks = {
        "OMS": ("rectified subunits", colour("error"), "o"),
        "OMS/linear": ("linear subunits", colour("control"), "s"),
        "LN": ("LN", colour("data"), "^"),
        "RB": ("RB", colour("prediction"), "v"),
    }
    for label, (name, shade, mark) in looks.items():
        kept = [one.isel(unit=one["included"].values) for one in evidence.get(label, ())]
        if sum(one.sizes["unit"] for one in kept):
            cv, omsi = (np.concatenate([one[v].values for one in kept]) for v in ("cv", "omsi"))
            cv = np.clip(cv, LEAST_CV, MOST_CV)
            ax.plot(cv, omsi, mark, color=shade, ms=2.5, alpha=0.6, mew=0, label=name)
    ax.fill_between([LEAST_CV, UNEVEN], PRESENT, 1.0, color="0.9", lw=0, zorder=0)
    ax.axhline(0.0, lw=0.6, color="0.5", zorder=0)
    ax.set_xscale("log")
    ax.set_xlim(0.9 * LEAST_CV, 1.1 * MOST_CV)
    ax.set_xlabel("Variation over directions (CV)")
    ax.set_ylabel("Object-motion sensitivity")
    ax.set_ylim(-0.6, 1.05)
    ax.legend(frameon=False, loc="lower left", bbox_to_anchor=(0.0, 1.0), ncols=2)


HYPOTHESIS = Hypothesis(
    id="H07",
    version=2,
    name="Object-motion sensitivity",
    claim=(
        "Units respond to motion in their receptive field's centre only if the background moves "
        "differently, whatever the direction (Olveczky, Baccus & Meister 2003, Nature 423:401; "
        "Baccus et al. 2008, J. Neurosci. 28:6807)."
    ),
    family="retina",
    protocol=(
        "A grating of period 2 sigma in a disc of 6 sigma (sigma of the central receptive fields, "
        "mapped with noise) and in the rest of the field, 20 sigma wide in the retinal circuit and "
        "as wide as the field allows in others. Every 16 ms both step by a twentieth of a "
        "period along one line: a random walk, the same in both (global) or one each "
        f"(differential); 8 directions, 4 phases, {by_scale(N_FRAMES, 'steps')}."
    ),
    statistic=(
        "OMSI = (R_diff - R_glob) / (R_diff + R_glob), R the mean size of the response after "
        "0.3 s over directions and phases; mean over units. CV = standard deviation over mean of "
        "the OMSI of each direction."
    ),
    signal="error units of the lowest level that has them (output or latent units without)",
    falsified_if=(
        "OMSI below 0.2, a linear centre-surround shows it too, or a CV over directions above 0.2."
    ),
    units="index",
    missing=lambda model: "" if first_level(model) is not None else "it sees no images",
    observe=observe,
    variables=("omsi", "cv"),
    combine=object_motion,
    null=PRESENT,
    direction=1,
    reference=Reference(
        interval=(0.5, 1.0),
        status="read",
        source=(
            "Olveczky, Baccus & Meister 2003 and Baccus et al. 2008: strong suppression by global "
            "motion, selectivity independent of direction (abstracts). That strong means an index "
            "above 0.5 is the battery's reading; no number is printed there."
        ),
    ),
    requirements=(
        Requirement(
            name="direction",
            statement="The index varies by less than 20 % of its mean over directions.",
            combine=unevenness,
            null=UNEVEN,
            direction=-1,
        ),
    ),
    controls=(
        Control(
            name="linear",
            statement="The same centre and surround with subunits that are not rectified.",
            transform=linear,
        ),
    ),
    departures=(
        "Only the retinal circuit has a background of 20 sigma; others get what their field "
        "allows.",
        "0.2 as the limit of both numbers is the battery's.",
    ),
    remembered=("Sizes of disc and background, and the step of the jitter.",),
    panel=panel,
)
