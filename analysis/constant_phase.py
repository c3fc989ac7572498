"""H40: a feed-forward autoregressive policy makes a rhythm whose phases do not change with its
period."""

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
from pcsim.measures import burst_latencies, burst_onsets, log_slope, spectral_peak
from pcsim.model import Model
from pcsim.responses import select
from pcsim.stimulus import stimulus_array

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["HYPOTHESIS"]

TONIC = np.linspace(0.0, 1.0, 12)
DURATION: Mapping[str, float] = {"quick": 60.0, "full": 180.0}
FRAME = 0.04
SKIPPED = 3.0
"""Seconds at the start that are left out."""
SMOOTHING = 0.06
"""Seconds; noise from step to step would count as onsets."""
SEGMENT, BAND = 12.0, (0.15, 6.0)
RHYTHMIC = 10.0
"""A peak this far above the median of the spectrum is a rhythm; that of white noise is about 3."""
FEWEST_CYCLES, FEWEST_INPUTS = 8, 6
TOLERANCE = 0.05
"""Cycles per e-fold of period by which a phase may move."""
RANGE = 4.0
"""Longest over shortest period that must be reached."""
PUSH_AT, PUSH_FOR, N_PUSHED = 12.0, 0.12, 24
SHOWN = {"ARF-policy": "o", "ARF-narrow": "^", "ARF-chain": "v", "CHAIN": "s"}


def tonic_input(model: Model, tonic: Any, duration: float, *, push: bool = False) -> xr.DataArray:
    """Return constant input, one trial a level; with a push of channel 0 by 1, for 0.12 s."""
    n, n_frames = len(tonic), round(duration / FRAME)
    values = np.zeros((n, n_frames, int(getattr(model, "n_features", 1))))
    values[:, :, 0] = np.asarray(tonic)[:, None]
    if push:
        first = round(PUSH_AT / FRAME)
        values[:, first : first + round(PUSH_FOR / FRAME), 1] = 1.0
    return stimulus_array(values, frame_duration=FRAME, condition="tonic", tonic=np.asarray(tonic))


def outputs(model: Model, stimulus: xr.DataArray, seed: int) -> Any:
    """Return the output channels (trial, time, channel), and the seconds between times."""
    shown = select(model.run(stimulus, seed=seed), population="output")
    time = shown["time"].values
    rate = shown["rate"].transpose("trial", "time", "unit").to_numpy()
    return rate, float(time[1] - time[0])


def cycles(rate: Any, step: float) -> tuple[float, float, Any]:
    """Return the peak of the spectrum, the median period, and each channel's median latency.

    The latencies are NaN where there are too few cycles, or no rhythm at all.

    Parameters
    ----------
    rate : (time, channel)
    """
    late = rate[round(SKIPPED / step) :]
    _, ratio = spectral_peak(late, step, segment=SEGMENT, band=BAND)
    latency = np.full(rate.shape[1] - 1, np.nan)
    onsets = [burst_onsets(channel, step, smoothing=SMOOTHING) for channel in late.T]
    if ratio < RHYTHMIC or onsets[0].size <= FEWEST_CYCLES:
        return ratio, np.nan, latency
    for channel, follower in enumerate(onsets[1:]):
        _, found = burst_latencies(onsets[0], follower)
        if found.size >= FEWEST_CYCLES:
            latency[channel] = np.median(found)
    return ratio, float(np.median(np.diff(onsets[0]))), latency


def observe(model: Model, *, seed: int, scale: str) -> tuple[xr.Dataset, xr.Dataset]:
    """Drive a model by constant inputs; relate latencies and phases of its bursts to the period."""
    stimulus = tonic_input(model, TONIC, DURATION[scale])
    shown = select(model.run(stimulus, seed=seed), population="output")
    rate, step = outputs(model, stimulus, seed)
    rows = [cycles(trial, step) for trial in rate]
    ratio, period = (np.array([row[k] for row in rows]) for k in (0, 1))
    latency = np.stack([row[2] for row in rows])  # (tonic, channel)
    numbers = [slopes(period, one) for one in latency.T]
    seen = np.isfinite(period)
    span = np.log(period[seen].max() / period[seen].min()) if seen.any() else 0.0
    # The falsifier speaks of any phase: one number a replica, that of the worst channel.
    worst = max(one[1] for one in numbers)
    old, shift = reset_curve(model, seed)
    evidence = xr.Dataset(
        {
            "elasticity": ("unit", [one[0] for one in numbers]),
            "drift": ("unit", [one[1] for one in numbers]),
            "worst_drift": ("unit", np.full(len(numbers), worst)),
            "r_squared": ("unit", [one[2] for one in numbers]),
            "rhythm": ("unit", np.full(len(numbers), np.log10(max(np.median(ratio), 1e-6)))),
            "span": ("unit", np.full(len(numbers), span)),
            "period": ("tonic", period),
            "phase": (("unit", "tonic"), (latency / period[:, None]).T),
            "old_phase": ("push", old),
            "phase_shift": ("push", shift),
            "included": ("unit", np.ones(len(numbers), dtype=bool)),
        },
        coords={"tonic": TONIC},
    )
    return evidence, shown


def slopes(period: Any, latency: Any) -> tuple[float, float, float]:
    """Return d ln latency / d ln period, |d phase / d ln period|, and R2 of latency on period.

    0, 1 and 0, a failure of all, where fewer than half of the inputs make a rhythm with this
    channel.
    """
    heard = np.isfinite(period) & np.isfinite(latency) & (np.nan_to_num(latency) > 0.0)
    if heard.sum() < FEWEST_INPUTS or np.ptp(period[heard]) <= 0.0:
        return 0.0, 1.0, 0.0
    period, latency = period[heard], latency[heard]
    elasticity = log_slope(period, np.log(latency))
    varies = np.ptp(latency) > 0.0
    r_squared = float(np.corrcoef(period, latency)[0, 1] ** 2) if varies else 0.0
    return elasticity, abs(log_slope(period, latency / period)), r_squared


def reset_curve(model: Model, seed: int) -> tuple[Any, Any]:
    """Return the phase at which a push came, and by how much later bursts were early, in cycles.

    Both runs have the same noise; NaN where either has no rhythm.
    """
    tonic = np.full(N_PUSHED, 0.5)
    runs = []
    for push in (False, True):
        rate, step = outputs(model, tonic_input(model, tonic, 20.0, push=push), seed + 1)
        rhythm = [spectral_peak(one, step, segment=SEGMENT, band=BAND)[1] for one in rate]
        onsets = [burst_onsets(one[:, 0], step, smoothing=SMOOTHING) for one in rate]
        none = np.empty(0)
        runs.append([o if r >= RHYTHMIC else none for o, r in zip(onsets, rhythm, strict=True)])
    old, shift = np.full(N_PUSHED, np.nan), np.full(N_PUSHED, np.nan)
    for trial, (free, pushed) in enumerate(zip(*runs, strict=True)):
        before, later = free[free < PUSH_AT], pushed[pushed > PUSH_AT + 2.0]
        if before.size < 3 or later.size < 2 or free[-1] < later[0]:
            continue
        period = float(np.median(np.diff(free)))
        old[trial] = ((PUSH_AT - before[-1]) / period) % 1.0
        nearest = free[np.abs(free - later[0]).argmin()]
        shift[trial] = ((nearest - later[0]) / period + 0.5) % 1.0 - 0.5
    return old, shift


def proportional(means: Means) -> Any:
    """Return how latencies grow with the period: 1 in proportion, 0 not at all."""
    return means["elasticity"]


def held(means: Means) -> Any:
    """Return by how much the drift of the phase that drifts most stays below what is allowed."""
    return TOLERANCE - means["worst_drift"]


def rhythmic(means: Means) -> Any:
    """Return by how many decades the spectral peak exceeds what counts as a rhythm."""
    return means["rhythm"] - np.log10(RHYTHMIC)


def wide(means: Means) -> Any:
    """Return by how much the range of periods exceeds a factor of 4, in e-folds."""
    return means["span"] - np.log(RANGE)


def missing(model: Model) -> str:
    """Return why a model cannot be tested."""
    senses = getattr(model, "senses", "images")
    return "" if senses == "tonic" else "it moves nothing under a tonic input"


def panel(evidence: Mapping[str, Sequence[xr.Dataset]], ax: Axes) -> None:
    """Draw the phase of each burst against the period."""
    from pcsim.plots import OKABE_ITO

    paints = dict(zip(SHOWN, ("blue", "green", "orange", "black"), strict=True))
    for label, marker in SHOWN.items():
        for number, one in enumerate(evidence.get(label, ())):
            period = one["period"].to_numpy()
            for unit, phase in enumerate(one["phase"].to_numpy()):
                order = np.argsort(period)
                ax.plot(
                    period[order], phase[order], marker=marker, markersize=2.0, linewidth=0.5,
                    linestyle="-", color=OKABE_ITO[paints[label]],
                    label=label if not (number or unit) else None,
                )  # fmt: skip
    ax.set_xscale("log")
    ax.set_xticks([0.6, 1.0, 2.0, 3.0], ["0.6", "1", "2", "3"])
    ax.minorticks_off()
    ax.set_ylim(0.0, 1.0)
    ax.set_xlabel("Period (s)")
    ax.set_ylabel("Phase of burst onset (cycles)")
    ax.legend(loc="lower left", bbox_to_anchor=(0.0, 1.0), ncols=2, columnspacing=1.0)


HYPOTHESIS = Hypothesis(
    id="H40",
    name="Rhythm with constant phase from a feed-forward policy",
    claim=(
        "A policy that predicts its next command from its last ones makes a rhythm without a "
        "rhythmic input, and the phases of its bursts do not depend on the period, as in the "
        "pyloric network (Bucher, Prinz & Marder 2005, J. Neurosci. 25:1611)."
    ),
    family="motor",
    protocol=(
        f"{len(TONIC)} levels of tonic input, {DURATION['quick']:g} s (full: "
        f"{DURATION['full']:g} s) each. A rhythm: the peak of the spectrum is ten times its "
        "median. Bursts begin where a channel, smoothed by 60 ms, passes the middle of its range. "
        "Then 24 trials of 20 s at a middle input, with and without a push of channel 0."
    ),
    statistic=(
        "Slope of ln latency after channel 0 over ln period, mean of the other channels: 1 at "
        "constant phase, 0 at constant latency or without a rhythm. Drift: |slope of phase over ln "
        "period| of the channel where it is largest, 1 without a rhythm. Beside them, not judged: "
        "drift and R2 of latency on period, a channel; the reset curve."
    ),
    signal="output units",
    falsified_if=(
        "A phase drifts by more than 0.05 cycles per e-fold of period.",
        "There is no rhythm, or its period does not vary by a factor of 4.",
    ),
    units="d ln latency / d ln period",
    missing=missing,
    observe=observe,
    variables=("elasticity", "drift", "worst_drift", "r_squared", "rhythm", "span"),
    combine=proportional,
    null=0.0,
    direction=1,
    rope=(-0.1, 0.1),
    reference=Reference(
        value=1.0,
        status="read",
        source=(
            "Lobster pyloric rhythm, 99 adults and 12 juveniles: phases independent of period "
            "(Bucher, Prinz & Marder 2005, abstract). Crab: latencies grow in proportion to the "
            "period (PMC9319424, fig. 1). Crab ventilation: eight events at constant phase over "
            "an eightfold range (DiCaprio 1997). No interval is published: the sign is judged."
        ),
    ),
    requirements=(
        Requirement(
            name="constant phase",
            statement="No phase drifts by 0.05 cycles per e-fold of period.",
            combine=held,
        ),
        Requirement(
            name="rhythm",
            statement="The peak of the spectrum is more than ten times its median.",
            combine=rhythmic,
        ),
        Requirement(
            name="range",
            statement="The longest period is more than four times the shortest.",
            combine=wide,
        ),
    ),
    controls=(
        Control(
            name="independent draws",
            statement="A policy without a history has no limit cycle.",
            variant="IID-policy",
        ),
        Control(
            name="fixed delays",
            statement="A chain of delays is rhythmic, but its phases fall as the period grows.",
            variant="CHAIN",
        ),
    ),
    departures=(
        "The networks are taught rhythms of constant phase: what is tested is that they make them "
        "without a rhythmic input, over a range of periods and with noise.",
        "The battery's falsifier asks that the interval of a slope exclude 0 by more than 0.05; "
        "here the interval of the largest |slope| has to lie below 0.05, which is stricter.",
        "The push and the R2 of the latencies are measured and not judged.",
        "What counts as a rhythm or as a burst is our own choice.",
    ),
    version=2,
    # The battery's table has the policy as ARF.
    expectations={
        "ARF-policy": "+", "ARF-narrow": "?", "ARF-chain": "-", "IID-policy": "-", "CHAIN": "-",
    },
    panel=panel,
)  # fmt: skip
