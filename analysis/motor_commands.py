"""H41: a higher area has to send only brief updates; the lower circuit makes the trajectories."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr
from scipy.stats import kurtosis

from pcsim.hypothesis import Control, Hypothesis, Means, Reference, Requirement
from pcsim.model import Model, lesion
from pcsim.responses import select
from pcsim.stimuli import rhythms

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["HYPOTHESIS"]

N_MOVEMENTS = {"quick": 16, "full": 64}
DURATION, FRAME = 30.0, 0.04
CHANGES = (7.0, 14.0, 21.0)
"""Seconds at which the desired movement jumps in its cycle, give or take one."""
SKIPPED, AFTER = 1.0, 0.4
"""Seconds left out at the start, and counted as after a jump."""
DRAWN = ("ARF-policy", "IID-policy")


def movements(model: Model, *, n: int, seed: int, law: str) -> tuple[xr.DataArray, Any]:
    """Return desired movements that jump, and the seconds of the jumps (trial, change)."""
    rng = np.random.default_rng([seed, 4100])
    times = np.array(CHANGES) + rng.uniform(-1.0, 1.0, (n, len(CHANGES)))
    tonic = rng.uniform(0.3, 0.7, n)
    desired = rhythms(
        tonic, duration=DURATION, frame_duration=FRAME, law=law, changes=times, seed=seed + 4100
    )
    return desired, times


def observe(model: Model, *, seed: int, scale: str) -> tuple[xr.Dataset, xr.Dataset]:
    """Have a movement made that jumps now and then; compare what is sent with what is done."""
    law = str(getattr(model, "law", "phase"))
    desired, times = movements(model, n=N_MOVEMENTS[scale], seed=seed, law=law)
    shown = lesion(model, follows=True).run(desired, seed=seed)
    found: dict[str, Any] = {}
    for name, population in (("command", "error"), ("output", "output")):
        part = select(shown, population=population)["rate"]
        rate, time = part.transpose("trial", "time", "unit").to_numpy(), part["time"].values
        late = time > SKIPPED
        since = time - times[..., None]  # (trial, change, time)
        after = ((since > 0.0) & (since <= AFTER)).any(axis=1)
        found[f"kurtosis_{name}"] = ("unit", excess(rate[:, late]))
        found[f"burst_{name}"] = ("unit", concentration(rate[:, late], after[:, late]))
        found[f"example_{name}"] = ("time", rate[0, :, 0])
    found["included"] = ("unit", np.ones(rate.shape[-1], dtype=bool))
    return xr.Dataset(found, coords={"time": time, "jump": times[0]}), shown


def excess(rate: Any) -> Any:
    """Return the excess kurtosis of each channel, 0 for a Gaussian, mean over trials.

    Parameters
    ----------
    rate : (trial, time, channel)
    """
    varies = rate.std(axis=1) > 1e-12
    return np.where(varies, kurtosis(np.where(varies[:, None], rate, 0.0), axis=1), 0.0).mean(0)


def concentration(rate: Any, after: Any) -> Any:
    """Return ln of the power of each channel after jumps over that elsewhere, 0 if it is silent.

    Parameters
    ----------
    rate : (trial, time, channel)
    after : (trial, time)
        Whether a time counts as after a jump.
    """
    power = (rate - rate.mean(axis=(0, 1))) ** 2
    inside, outside = (power[chosen].mean(axis=0) for chosen in (after, ~after))
    alive = (inside > 1e-24) & (outside > 1e-24)
    return np.where(alive, np.log(np.where(alive, inside, 1.0) / np.where(alive, outside, 1.0)), 0)


def sparser(means: Means) -> Any:
    """Return by how much the kurtosis of commands exceeds that of outputs."""
    return means["kurtosis_command"] - means["kurtosis_output"]


def briefer(means: Means) -> Any:
    """Return by how much the power of commands gathers after jumps, beyond that of outputs."""
    return means["burst_command"] - means["burst_output"]


def missing(model: Model) -> str:
    """Return why a model cannot be tested."""
    if getattr(model, "senses", "images") != "tonic":
        return "it moves nothing under a tonic input"
    return "" if getattr(model, "follows", None) is not None else "nothing above it sends commands"


def panel(evidence: Mapping[str, Sequence[xr.Dataset]], ax: Axes) -> None:
    """Draw the command of one channel with a history and without, and the movement itself."""
    from pcsim.plots import colour

    label = next((label for label in DRAWN if evidence.get(label)), None)
    if label is None:
        return
    first = evidence[label][0]
    rows = [("movement", first["example_output"], colour("data"))]
    names = (("command, history", "error"), ("command, no history", "control"))
    for column, (name, paint) in zip(DRAWN, names, strict=True):
        if evidence.get(column):
            rows.append((name, evidence[column][0]["example_command"], colour(paint)))
    for place, (name, course, paint) in enumerate(rows):
        time, values = course["time"].values, course.to_numpy()
        scaled = (values - values.mean()) / np.abs(values - values.mean()).max()
        ax.plot(time, -2.6 * place + scaled, color=paint, linewidth=0.6, linestyle="-")
        ax.annotate(name, (0.3, -2.6 * place + 1.02), va="bottom", fontsize=6, color=paint)
    for jump in first["jump"].values:
        ax.axvline(jump, color="0.7", linestyle=":", linewidth=0.6, zorder=0)
    ax.set_xlim(0.0, DURATION)
    ax.set_ylim(-2.6 * len(rows) + 1.3, 1.6)
    ax.set_yticks([])
    ax.set_xlabel("Time (s), dotted: the movement jumps")
    ax.set_ylabel("One channel, each to its own scale")


HYPOTHESIS = Hypothesis(
    id="H41",
    name="Brief commands from above, trajectories from below",
    claim=(
        "A circuit that predicts the movement from its recent past needs only brief updates from a "
        "higher area, when the movement does what it could not predict (Shalit et al. 2012)."
    ),
    family="motor",
    protocol=(
        f"{N_MOVEMENTS['quick']} (full: {N_MOVEMENTS['full']}) rhythmic "
        "movements of 30 s that jump three times by a quarter to three quarters of a "
        "cycle, with noise as in the demonstrations. The command is the z with which the policy "
        "makes exactly that movement: its prediction error in units of its expected size."
    ),
    statistic=(
        "Excess kurtosis of commands minus that of outputs, mean over channels; ln power within "
        "0.4 s after a jump over that elsewhere, commands minus outputs."
    ),
    signal="error units of level 1 (z) against output units of level 0",
    falsified_if=(
        "Commands are not of higher kurtosis than outputs.",
        "Commands do not gather after jumps more than outputs do.",
    ),
    units="excess kurtosis",
    missing=missing,
    observe=observe,
    variables=("kurtosis_command", "kurtosis_output", "burst_command", "burst_output"),
    combine=sparser,
    null=0.0,
    direction=1,
    rope=(-0.5, 0.5),
    reference=Reference(
        status="remembered",
        source="Shalit, Zinger, Joshua & Prut (2012, Cereb. Cortex 22:1904), from memory.",
    ),
    requirements=(
        Requirement(
            name="after jumps",
            statement="The power of commands gathers after jumps, beyond that of outputs.",
            combine=briefer,
        ),
    ),
    controls=(
        Control(
            name="independent draws",
            statement="Without a history the command is the movement itself, scaled.",
            variant="IID-policy",
        ),
    ),
    departures=(
        "The battery names kurtosis or transience and gives no protocol: movements, jumps and "
        "windows are our own.",
        "The command is computed from the movement; no higher area learns to send it.",
    ),
    remembered=("All of it: the battery has this entry from memory.",),
    expectations={
        **dict.fromkeys(("ARF-policy", "ARF-narrow", "ARF-chain"), "+"),
        "IID-policy": "-",
        "CHAIN": ".",
    },
    panel=panel,
)
