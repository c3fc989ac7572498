"""H08: small groups of cells carry nearly all that their information about the past allows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from pcsim.catalog import load
from pcsim.circuit import Circuit
from pcsim.hypothesis import Control, Hypothesis, Means, Reference
from pcsim.measures import (
    canonical_correlations,
    entropy,
    gaussian_bottleneck,
    mutual_information,
)
from pcsim.model import Model
from pcsim.protocols import (
    OUTPUTS,
    StandIn,
    by_scale,
    first_level,
    recording,
    respond,
    signal_role,
    visual_field,
)
from pcsim.stimuli import damped_motion, damped_motion_covariance, moving_bars

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["HYPOTHESIS"]

FRAME = 1.0 / 60.0
"""Seconds: a frame, and the bin of a word."""
N_TRIALS, N_FRAMES = {"quick": 16, "full": 80}, 315
N_SKIP = 15
"""Frames after onset that are left out."""
SPREAD = 0.125
"""Standard deviation of the bar's position, in widths of the field."""
GROUP, N_GROUPS = 5, 24
"""Cells a group, and groups drawn at random."""
ACTIVITY = 0.1
"""Mean number of spikes a bin of every cell: 6 spikes/s."""
N_PLACES, N_STEPS = 10, 4
"""Quantiles of the bar's next position, and of its step after that."""
N_SHUFFLES = 8
FLOOR = 0.02
"""Nats about the past from which on a group is measured."""
LATENCY = 6
"""Frames by which the control lags: 100 ms."""
SHOWN = ("LN", "ADAPT", "RB", "RETINA", "LGN", "HOSOYA")


@dataclass(frozen=True)
class Late(StandIn):
    """A model whose rates come late by some frames, or in random order (-1)."""

    delay: int
    seed: int = 0
    record_dt: float | None = None
    """Seconds between recorded times; None leaves it to the model."""

    def run(
        self, stimulus: xr.DataArray, *, seed: int = 0, record: Sequence[str] | None = None
    ) -> xr.Dataset:
        """Run the model and move its rates in time; what is not known yet is the first rate."""
        model = self.model
        if record is None and isinstance(model, Circuit):
            record = [p.name for p in model.populations if p.population in OUTPUTS]
        responses = recording(model, self.record_dt).run(stimulus, seed=seed, record=record)
        n = responses.sizes["time"]
        rng = np.random.default_rng([self.seed, 8])
        at = rng.permutation(n) if self.delay < 0 else np.maximum(np.arange(n) - self.delay, 0)
        rate = responses["rate"]
        moved = rate.isel(time=at).assign_coords(time=rate["time"])
        late: xr.Dataset = responses.assign(rate=moved)
        return late


def cells(rate: Any) -> tuple[Any, Any]:
    """Return spike probabilities (sample, cell) of every cell that responds, and how many may.

    A unit with signed rates stands for two cells, one for either sign.
    """
    halves = [np.maximum(rate, 0.0), np.maximum(-rate, 0.0)]
    both = np.concatenate(halves if halves[1].any() else halves[:1], axis=-1)
    flat = both.reshape(-1, both.shape[-1])
    mean = flat.mean(axis=0)
    scale = float(np.percentile(mean, 95))
    responds = mean > 0.05 * scale if scale > 1e-12 else np.zeros(mean.size, dtype=bool)
    return -np.expm1(-ACTIVITY * flat[:, responds] / mean[responds]), mean.size


def words(p: Any) -> Any:
    """Return the probability of each word of independent cells, (sample, 2 to the cells)."""
    out = np.ones((len(p), 1))
    for one in p.T:
        out = np.concatenate([out * (1.0 - one[:, None]), out * one[:, None]], axis=1)
    return out


def futures(position: Any) -> Any:
    """Return the number of the bin of each frame's future: next position, and step after that."""
    near, step = position[:, 1:-1], np.diff(position, axis=1)[:, 1:]
    # What the next position says of the step after it is in the position's bin already.
    step = step - near * (near * step).sum() / (near**2).sum()
    place, move = (
        np.searchsorted(np.quantile(values, np.linspace(0, 1, n + 1)[1:-1]), values)
        for values, n in ((near, N_PLACES), (step, N_STEPS))
    )
    return place * N_STEPS + move


def informations(p: Any, future: Any, rng: np.random.Generator) -> tuple[float, float]:
    r"""Return what words say of all of the past and of the future, nats.

    Cells are independent given the stimulus, so that the first is exact but for the average over
    the stimulus: :math:`H(\langle p(w)\rangle) - \langle H(w|s)\rangle`. The second is the plug-in
    estimate less that with the futures of other trials.
    """
    chance = words(p)
    noise = np.stack([p, 1.0 - p], axis=-1)
    past = float(entropy(chance.mean(axis=0)) - entropy(noise).sum(axis=-1).mean())
    table = np.eye(N_PLACES * N_STEPS)[future.ravel()]
    found = float(mutual_information(table.T @ chance))
    n = len(future)
    shuffled = []
    for _ in range(N_SHUFFLES):
        other = (np.arange(n) + rng.integers(1, n)) % n
        table = np.eye(N_PLACES * N_STEPS)[future[other].ravel()]
        shuffled.append(float(mutual_information(table.T @ chance)))
    return past, found - float(np.mean(shuffled))


def correlations() -> Any:
    """Return the canonical correlations of the last two positions with the next two."""
    lags = damped_motion_covariance(4, frame_duration=FRAME)
    at = np.arange(4)
    return canonical_correlations(lags[np.abs(at[:, None] - at)], 2)


def observe(model: Model, *, seed: int, scale: str) -> xr.Dataset:
    """Measure past and future information of random groups of five cells, and the bound."""
    field, px_per_deg = visual_field(model)
    level = first_level(model)
    assert level is not None
    role = signal_role(model, level)
    assert role is not None
    rng = np.random.default_rng([seed, 2015])
    position = damped_motion(
        N_TRIALS[scale], N_FRAMES + 2, sigma=SPREAD * field[1] / px_per_deg, frame_duration=FRAME,
        rng=rng,
    )  # fmt: skip
    shown = moving_bars(
        field, position=position[:, :N_FRAMES], frame_duration=FRAME, px_per_deg=px_per_deg
    )
    responses = respond(model, shown, level=level, role=role, every=FRAME, seed=seed)
    rate = responses["rate"].sortby("trial").transpose("trial", "time", "unit").to_numpy()
    p, n_cells = cells(rate[:, N_SKIP:])
    future = futures(position)[:, N_SKIP:N_FRAMES]
    rows = np.zeros((N_GROUPS, 2))
    enough = p.shape[1] >= GROUP
    for row in rows if enough else ():
        group = rng.choice(p.shape[1], GROUP, replace=False)
        row[:] = informations(p[:, group], future, rng)
    rho = correlations()
    grid = np.linspace(0.0, 0.6, 25)
    return xr.Dataset(
        {
            "past": ("unit", rows[:, 0]),
            "future": ("unit", rows[:, 1]),
            "bound": ("unit", gaussian_bottleneck(rho, rows[:, 0].clip(0.0))),
            "curve": ("information", gaussian_bottleneck(rho, grid)),
            "included": ("unit", rows[:, 0] > FLOOR),
            "n_cells": n_cells,
            "n_responding": p.shape[1],
        },
        coords={"information": grid},
    )


def share(means: Means) -> Any:
    """Return the information about the future over the most there could be."""
    return means["future"] / means["bound"]


def missing(model: Model) -> str:
    """Say why a model cannot be asked, "" if it can."""
    return "" if first_level(model) is not None else "it sees no images"


def shuffled(model: Any, seed: int) -> Any:
    """Return the model with its rates in random order."""
    return Late(model, -1, seed)


def delayed(model: Any, seed: int) -> Any:
    """Return static linear-nonlinear units that answer late, whatever the model."""
    return Late(load("circuits", "linear_nonlinear").untrained(seed=seed), LATENCY, seed)


def panel(evidence: Mapping[str, Sequence[xr.Dataset]], ax: Axes) -> None:
    """Draw what groups say of the future against the past, below the bound."""
    from pcsim.plots import OKABE_ITO

    names = ("black", "green", "vermillion", "blue", "sky", "purple")
    shades = dict(zip(SHOWN, names, strict=True))
    columns = {label: evidence[label] for label in SHOWN if evidence.get(label)}
    late = next((e for name, e in evidence.items() if name.endswith("/delayed")), ())
    reach = 0.05
    for label, found in {**columns, "LN, 100 ms late": late}.items():
        kept = [one.isel(unit=one["included"].values) for one in found]
        if kept:
            x, y = (np.concatenate([one[n].values for one in kept]) for n in ("past", "future"))
            reach = max(reach, float(x.max(initial=0.0)))
            shade = OKABE_ITO.get(shades.get(label, ""), "0.6")
            ax.plot(x, y, ".", ms=2.5, color=shade, alpha=0.7, label=label)
    first = next((found[0] for found in evidence.values() if len(found)), None)
    if first is not None:
        ax.plot(first["information"], first["curve"], "-", lw=1.2, color="0.2", label="bound")
        ax.plot(first["information"], 0.5 * first["curve"], ":", lw=0.8, color="0.5", label="half")
    ax.set_xlim(0.0, 1.05 * reach)
    ax.set_ylim(0.0, 1.05 * reach)
    ax.set_xlabel("About the past (nats)")
    ax.set_ylabel("About the future (nats)")
    ax.legend(fontsize=5, frameon=False, loc="upper left", markerscale=2)


HYPOTHESIS = Hypothesis(
    id="H08",
    name="Predictive information near the bound",
    claim=(
        "Small groups of cells carry nearly as much information about the future of their input as "
        "is possible with their information about its past (Palmer et al. 2015, PNAS 112:6908)."
    ),
    family="retina",
    protocol=(
        "A dark upright bar of 0.125 degrees in damped stochastic motion (20 per second, 1.5 Hz, "
        "standard deviation an eighth of the field; the motion is remembered) at 60 frames a "
        "second. Words of 5 cells drawn at random, spiking independently in bins of a frame with "
        "the rates of the model, every cell with 0.1 spikes a bin in the mean; signed units are "
        "two cells. Past: all frames up to the word. Future: all frames after it. "
        f"{by_scale(N_TRIALS, 'trials')} of {N_FRAMES / 60:g} s, the first {N_SKIP / 60:g} s left "
        f"out; {N_GROUPS} groups."
    ),
    statistic=(
        "Mean over groups of I(word; future), over the mean of the bound at their I(word; past). "
        "The first in 40 bins of what matters of the future (the next position, the step after "
        "it), less shuffled trials, so it is a lower estimate; the second exact given the rates; "
        "the bound is the Gaussian information bottleneck of the motion."
    ),
    signal="error units of the lowest level that has them (output or latent units without)",
    falsified_if="The share of the bound is below 0.5.",
    units="share of the bound",
    missing=missing,
    observe=observe,
    variables=("future", "bound"),
    combine=share,
    null=0.5,
    direction=1,
    reference=Reference(
        status="read",
        source=(
            "Palmer, Marre, Berry & Bialek 2015, abstract: nearly every cell takes part in a group "
            "close to the physical limit. No number."
        ),
    ),
    controls=(
        Control(
            name="shuffled",
            statement="The same words in random order, which say nothing of the future.",
            transform=shuffled,
        ),
        Control(
            name="delayed",
            statement="Static linear-nonlinear units that answer 100 ms late.",
            transform=delayed,
        ),
    ),
    departures=(
        "Groups have 5 cells (battery: 4 to 7) and are drawn at random, not chosen for what they "
        "say: the source counts cells that take part in some good group.",
        "No spikes are recorded: the chance of every word is computed from the model's rates, with "
        "cells independent given the stimulus.",
        "All cells have the same mean rate, 6 spikes/s, whatever their own; it is not measured.",
        "The share is taken at each group's own information about the past, not at a fixed one.",
        "The future is the next position and the step after it in 40 bins, so that its information "
        "is a lower estimate.",
        "The delayed control is one static model for all columns.",
    ),
    remembered=("Damping, frequency and spread of the bar's motion.",),
    expectations={
        **dict.fromkeys(("RETINA", "LGN", "HOSOYA", "PATH", "JB"), "?"),
    },
    panel=panel,
)
