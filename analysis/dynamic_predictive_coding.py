"""H06: sensitivity adapts within seconds to the pattern of correlations, not to contrast alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from pcsim.hypothesis import Control, Hypothesis, Reference
from pcsim.model import Model, lesion
from pcsim.protocols import by_scale, first_level, respond, signal_role, visual_field
from pcsim.responses import select
from pcsim.stimuli import PATTERNS, pattern_amplitudes, pattern_flicker

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["HYPOTHESIS"]

ENVIRONMENTS = ("uniform", "checkerboard")
FRAME = 0.03
N_ADAPT, N_PROBE = 400, 50
"""Frames: 12 s of an environment, 1.5 s of probe."""
N_SEQUENCES = {"quick": 6, "full": 24}
CONTRAST, CHECK = 0.3, 0.25
N_LAGS = 4
"""Frames before the response over which the linear filter reaches."""
NONE = 0.02
"""Index up to which adaptation is practically blind to pattern."""


def sequences(model: Model, environment: str, *, seed: int, scale: str) -> xr.DataArray:
    """Return an environment followed by white flicker of all patterns, the same after each."""
    field, px_per_deg = visual_field(model)
    shared: dict[str, Any] = {
        "n_trials": N_SEQUENCES[scale], "contrast": CONTRAST, "check": CHECK,
        "frame_duration": FRAME, "px_per_deg": px_per_deg,
    }  # fmt: skip
    shown = pattern_flicker(field, pattern=environment, n_frames=N_ADAPT, seed=seed, **shared)
    probe = pattern_flicker(
        field, pattern="white", n_frames=N_PROBE, seed=seed + 10_000, **shared
    ).assign_coords(condition=shown["condition"], seed=shown["seed"])
    probe = probe.assign_coords(time=probe["time"] + N_ADAPT * FRAME)
    return xr.concat([shown, probe], "time")


def sensitivity(responses: xr.Dataset, stimulus: xr.DataArray) -> Any:
    """Return the norm of each unit's linear filter for each pattern, (pattern, unit).

    Least squares of the rate at the end of each frame of the probe on the amplitudes of the four
    patterns in that frame and the three before.
    """
    after = responses["time"].values > N_ADAPT * FRAME + (N_LAGS - 1) * FRAME + 1e-9
    rate = responses["rate"].transpose("trial", "time", "unit").to_numpy()[:, after]
    amplitudes = pattern_amplitudes(stimulus, check=CHECK)
    n = rate.shape[1]
    last = amplitudes.shape[1]
    lagged = [amplitudes[:, last - n - lag : last - lag] for lag in range(N_LAGS)]
    regressors = np.concatenate([*lagged, np.ones((*rate.shape[:2], 1))], axis=-1)
    flat = regressors.reshape(-1, regressors.shape[-1])
    weights = np.linalg.lstsq(flat, rate.reshape(len(flat), -1), rcond=None)[0][:-1]
    return np.linalg.norm(weights.reshape(N_LAGS, len(PATTERNS), -1), axis=0)


def observe(model: Model, *, seed: int, scale: str) -> xr.Dataset:
    """Measure sensitivity to both patterns after both environments."""
    level = first_level(model)
    assert level is not None
    role = signal_role(model, level)
    assert role is not None
    found = []
    for environment in ENVIRONMENTS:
        stimulus = sequences(model, environment, seed=seed, scale=scale)
        responses = respond(model, stimulus, level=level, role=role, every=FRAME, seed=seed)
        responses = select(responses, time=slice(N_ADAPT * FRAME, None))
        found.append(sensitivity(responses, stimulus))
    which = [PATTERNS.index(name) for name in ENVIRONMENTS]
    s = np.stack(found)[:, which]
    familiar = s[[0, 1], [0, 1]]
    novel = s[[1, 0], [0, 1]]
    total = novel + familiar
    floor = 0.05 * np.percentile(total, 95, axis=1, keepdims=True)
    index = (novel - familiar) / np.where(total > 0, total, 1.0)
    channel = responses["channel"].values if role == "error" and "channel" in responses else 0.0
    channel = np.where(np.isin(channel, [-1.0, 1.0]), channel, 0.0)
    return xr.Dataset(
        {
            "novelty": ("unit", index.mean(axis=0)),
            "sensitivity": (("environment", "pattern", "unit"), s),
            "channel": ("unit", np.broadcast_to(channel, s.shape[-1:])),
            "included": ("unit", ((total > floor) & (total > 0)).all(axis=0)),
        },
        coords={"environment": list(ENVIRONMENTS), "pattern": list(ENVIRONMENTS)},
    )


def fixed(model: Any, seed: int) -> Any:
    """Return the model with its fast weights held at 0."""
    return lesion(model, plasticity=0.0)


def gain_only(model: Any, seed: int) -> Any:
    """Return the model with adaptation of its gain to contrast in place of the pattern's."""
    return lesion(model, adaptation="contrast")


def panel(evidence: Mapping[str, Sequence[xr.Dataset]], ax: Axes) -> None:
    """Draw the novelty index of every unit and its mean: ON and OFF apart where cells have a type.

    Keys are the columns; the two controls stand beside the first of them.
    """
    from pcsim.plots import colour

    rows: list[tuple[str, Any]] = []
    for label in ("HOSOYA", "HOSOYA/fixed", "HOSOYA/gain", "ADAPT", "LN", "RB"):
        kept = [one.isel(unit=one["included"].values) for one in evidence.get(label, ())]
        kept = [one for one in kept if one.sizes["unit"]]
        if not kept:
            continue
        name = {"HOSOYA/fixed": "fixed weights", "HOSOYA/gain": "gain only"}.get(label, label)
        values = np.concatenate([one["novelty"].values for one in kept])
        channel = np.concatenate([one["channel"].values for one in kept])
        if set(channel.tolist()) == {-1.0, 1.0}:
            rows += [(f"{name} ON", values[channel > 0]), (f"{name} OFF", values[channel < 0])]
        else:
            rows.append((name, values))
    for place, (name, values) in enumerate(rows):
        shade = colour("error") if name.startswith("HOSOYA") else colour("data")
        jitter = np.linspace(-0.25, 0.25, len(values))
        ax.plot(place + jitter, np.sort(values), ".", ms=2.5, color=shade, alpha=0.5)
        ax.plot([place - 0.32, place + 0.32], [values.mean()] * 2, "-", lw=1.5, color=shade)
    ax.axhline(0.0, lw=0.6, color="0.5", zorder=0)
    ax.set_xticks(range(len(rows)), [name for name, _ in rows], rotation=45, ha="right")
    ax.set_ylabel("Novelty index")
    ax.set_ylim(-0.15, 0.4)


HYPOTHESIS = Hypothesis(
    id="H06",
    version=2,
    name="Dynamic predictive coding",
    claim=(
        "Within seconds sensitivity adapts to the pattern of correlations in the environment, so "
        "that familiar structure is suppressed (Hosoya, Baccus & Meister 2005, Nature 436:71)."
    ),
    family="retina",
    protocol=(
        "12 s of full-field or of checkerboard flicker (checks of 0.25 degrees, new Gaussian "
        "amplitude every 30 ms, equal mean and equal variance of 30 % contrast at each pixel), "
        "then 1.5 s of white flicker of the four patterns that repeat every two checks; the same "
        f"probes after both. {by_scale(N_SEQUENCES, 'sequences')} each."
    ),
    statistic=(
        "N = (novel - familiar) / (novel + familiar), with sensitivities (norm of the linear "
        "filter in the probe) to one pattern after the other and after the same environment, "
        "averaged over the two patterns, so that a change of gain alone cancels; mean over units."
    ),
    signal="error units of the lowest level that has them (output or latent units without)",
    falsified_if=(
        "The index is practically 0 (within 0.02), or the gain-only control reaches half of it."
    ),
    units="index",
    missing=lambda model: "" if first_level(model) is not None else "it sees no images",
    observe=observe,
    variables=("novelty",),
    null=0.0,
    direction=1,
    rope=(-NONE, NONE),
    reference=Reference(
        status="remembered",
        source=(
            "Sign only: Hosoya, Baccus & Meister 2005, most ganglion cells of salamander and "
            "rabbit. ON and OFF cells differ in mouse (Nirenberg et al. 2010)."
        ),
    ),
    controls=(
        Control(
            name="fixed",
            statement="The same circuit with its fast weights held at 0.",
            transform=fixed,
        ),
        Control(
            name="gain",
            statement="Adaptation of each cell's gain to its own contrast, blind to pattern.",
            transform=gain_only,
        ),
    ),
    departures=(
        "Errors of both signs are judged together; ON and OFF are kept apart in the evidence only.",
        "0.02 as practically none is our own.",
    ),
    remembered=("12 s of adaptation, 1.5 s of probe and 30 ms a frame.",),
    panel=panel,
)
