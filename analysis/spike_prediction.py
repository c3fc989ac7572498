"""H43: the error signal of a model predicts the spikes of real cells better than their stimulus."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from pcsim.hypothesis import Control, Hypothesis, Reference
from pcsim.measures import cross_validated_bits, lagged
from pcsim.model import Model
from pcsim.neural import (
    bin_spikes,
    fly_h1_deruyter,
    lgn_kara_2000,
    locust_receptor_rokem_2006,
    recording_folder,
)
from pcsim.protocols import (
    StandIn,
    by_scale,
    first_level,
    recording,
    respond,
    signal_role,
    visual_field,
)
from pcsim.stimuli import natural_patches
from pcsim.stimulus import stimulus_array

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["HYPOTHESIS"]

RECORDINGS = ("lgn_cat_kara2000", "fly_h1_deruyter", "grasshopper_rokem2006")
CELLS = ("cat LGN", "fly H1", "locust receptor")
SHARE: Mapping[str, Mapping[str, float]] = {
    "quick": {"cat LGN": 0.25, "fly H1": 0.03, "locust receptor": 1.0},
    "full": {"cat LGN": 1.0, "fly H1": 0.2, "locust receptor": 1.0},
}
"""Of each recording, from its start."""
USED = {k: ", ".join(f"{100 * one:g} %" for one in some.values()) for k, some in SHARE.items()}
MEMORY: Mapping[str, tuple[int, int]] = {
    "cat LGN": (7, 7), "fly H1": (25, 13), "locust receptor": (20, 20),
}  # fmt: skip
"""Bins of the past that a spike may depend on, and raised cosines over them: 0.11, 0.1, 0.02 s."""
PENALTIES = (1.0, 30.0, 1000.0)
SIDE = 3
"""Checks a side around the receptive field: 9 channels of the raw stimulus of the cat's cell."""
COMPONENTS = 4
"""Channels of a model's signal for a stimulus of one number."""
CONTRAST = 0.25
SEGMENT, WARM_UP = 8.0, 2.0
"""Seconds; segments are shown side by side, each after what came before it."""
N_FOLDS = 5
SHOWN = ("LN", "ADAPT", "RETINA", "LGN", "HOSOYA", "RB", "PATH")


@dataclass(frozen=True)
class Cell:
    """A recording in bins: one count and one frame of the stimulus a bin."""

    count: Any
    """(bin,)"""
    frames: Any
    """(bin, y, x) contrast of checks, -1 or 1, its receptive field in the middle; or (bin,)."""
    width: float
    """Of a bin, seconds."""
    recorded: tuple[int, int] = (0, 0)
    """Bins and spikes of the whole recording."""


@cache
def cell(name: str, scale: str) -> Cell:
    """Load a recording; the stimulus of one number in units of its standard deviation."""
    folder = recording_folder(RECORDINGS[CELLS.index(name)])
    if name == "cat LGN":
        responses, stimulus = lgn_kara_2000(folder)
        count, frames = counts(responses), 2.0 * stimulus.values[0] - 1.0
        located, whole = len(count) // 10, (len(count), int(count.sum()))
        place = receptive_field(count[:located], frames[:located])
        centred = np.roll(frames.astype(np.float32), (8 - place[0], 8 - place[1]), axis=(1, 2))[
            located:
        ]
        one = Cell(count[located:], centred, float(responses["bin_width"]), whole)
        return part(name, scale, one)
    if name == "fly H1":
        responses, stimulus = fly_h1_deruyter(folder)
        count, values = paired(counts(responses)), paired(stimulus.values.ravel()) / 2.0
        whole = len(count), int(counts(responses).sum())
        width = 2.0 * float(responses["bin_width"])
        return part(name, scale, Cell(count, values / values.std(), width, whole))
    spikes, stimulus = locust_receptor_rokem_2006(folder)
    count = counts(bin_spikes(spikes, 0.001))
    envelope = stimulus.values.ravel().reshape(len(count), -1).mean(axis=1)
    frames = (envelope - envelope.mean()) / envelope.std()
    return part(name, scale, Cell(count, frames, 0.001, (len(count), spikes.sizes["spike"])))


def counts(responses: xr.Dataset) -> Any:
    """Return the spikes of the one unit in the one trial, bin by bin."""
    return responses["spike_count"].values.ravel().astype(np.float64)


def paired(values: Any) -> Any:
    """Return the sums of every two values."""
    return values[: values.size // 2 * 2].reshape(-1, 2).sum(axis=1, dtype=np.float64)


def part(name: str, scale: str, one: Cell) -> Cell:
    """Keep the share of a recording that the scale uses."""
    n = int(SHARE[scale][name] * len(one.count))
    return replace(one, count=one.count[:n], frames=one.frames[:n])


def receptive_field(count: Any, frames: Any) -> tuple[int, int]:
    """Return row and column of the largest spike-triggered average over the last five frames."""
    averages = [np.tensordot(count[lag:], frames[: len(frames) - lag], 1) for lag in range(1, 6)]
    best = np.abs(averages).max(axis=0)
    row, column = np.unravel_index(int(best.argmax()), best.shape)
    return int(row), int(column)


@dataclass(frozen=True)
class Shifted(StandIn):
    """A model that sees every trial turned round by half its length."""

    record_dt: float | None = None
    """Seconds between recorded times; as the model does if None."""

    def run(
        self, stimulus: xr.DataArray, *, seed: int = 0, record: Sequence[str] | None = None
    ) -> xr.Dataset:
        """Return the responses of the model to the turned stimulus."""
        turned = np.roll(stimulus.values, stimulus.sizes["time"] // 2, axis=1)
        model = recording(self.model, self.record_dt)
        shown: xr.Dataset = model.run(stimulus.copy(data=turned), seed=seed, record=record)
        return shown


def middle(images: Any) -> Any:
    """Return the 9 pixels around the middle of (..., y, x) as (..., 9)."""
    top, left = (n // 2 - SIDE // 2 for n in images.shape[-2:])
    cut = images[..., top : top + SIDE, left : left + SIDE]
    return cut.reshape(*cut.shape[:-2], -1)


def movie(model: Model, one: Cell) -> Any:
    """Return the frames (bin, y, x) that stand for a stimulus in a model's field, luminance.

    A check is a pixel, grey around them. A number is the contrast, of either sign, of one natural
    patch.
    """
    field, px_per_deg = visual_field(model)
    if one.frames.ndim == 1:
        patch = natural_patches(field, n=1, px_per_deg=px_per_deg, seed=43).to_numpy()[0, 0]
        pattern = (patch - patch.mean()) / np.abs(patch - patch.mean()).max()
        swing = (0.5 * CONTRAST * pattern).astype(np.float32)
        contrast = one.frames[:, None, None].astype(np.float32)
        return np.clip(np.float32(0.5) + contrast * swing, 0.0, 1.0)
    n = one.frames.shape[-1]
    padded = np.pad(CONTRAST * one.frames, ((0, 0), *[(side, side) for side in field]))
    top, left = (side + n // 2 - side // 2 for side in field)
    return 0.5 + padded[:, top : top + field[0], left : left + field[1]]


def signal(model: Model, one: Cell, seed: int) -> Any:
    """Return the error signal of a model (bin, unit) from the end of the warm-up on, and places.

    Errors of the lowest level that sends anything on; of models without errors their outputs.
    """
    level = first_level(model)
    role = None if level is None else signal_role(model, level)
    assert level is not None
    assert role is not None
    before, first, length = segments(one)
    frames = movie(model, one)
    trials = np.stack([frames[start - before : start + length] for start in first])
    stimulus = stimulus_array(
        trials, frame_duration=one.width, px_per_deg=visual_field(model)[1], condition="recorded"
    )
    shown = respond(model, stimulus, level=level, role=role, every=one.width, seed=seed)
    rate = shown["rate"].transpose("trial", "time", "unit").to_numpy()[:, before:]
    return rate.reshape(-1, rate.shape[-1]), shown


def segments(one: Cell) -> tuple[int, Any, int]:
    """Return the bins of the warm-up, the first bin of each segment and the bins of a segment."""
    n = len(one.count)
    before = min(round(WARM_UP / one.width), n // 10)
    number = max(round((n - before) * one.width / SEGMENT), 1)
    length = (n - before) // number
    return before, before + length * np.arange(number), length


def channels(rate: Any, shown: xr.Dataset, one: Cell) -> Any:
    """Return the channels that stand for a model: 9 units at the middle, or 4 components."""
    if one.frames.ndim == 1:
        centred = rate - rate.mean(axis=0)
        _, axes = np.linalg.eigh(centred.T @ centred)
        return centred @ axes[:, ::-1][:, :COMPONENTS]
    if {"x", "y"} <= set(shown.coords):
        distance = np.hypot(shown["x"].values, shown["y"].values)
        return rate[:, np.argsort(distance, kind="stable")[: SIDE**2]]
    return rate[:, : SIDE**2]


def spikes(one: Cell) -> Any:
    """Return the counts in the segments."""
    _, first, length = segments(one)
    return one.count[first[0] : first[-1] + length]


@cache
def left_out(scale: str) -> dict[str, int]:
    """Count the bins and spikes of the three recordings that are not scored, of all there are."""
    cells = [cell(name, scale) for name in CELLS]
    bins, fired = (sum(one.recorded[k] for one in cells) for k in range(2))
    scored = [spikes(one) for one in cells]
    return {
        "dropped_bins": bins - sum(count.size for count in scored),
        "total_bins": bins,
        "dropped_spikes": fired - int(sum(count.sum() for count in scored)),
        "total_spikes": fired,
    }


@cache
def raw_bits(name: str, scale: str) -> Any:
    """Return the bits a spike on each fold of a model on the stimulus itself."""
    one = cell(name, scale)
    _, first, length = segments(one)
    frames = one.frames if one.frames.ndim == 1 else middle(one.frames)
    whole = lagged(frames.reshape(len(frames), -1), *MEMORY[name])
    return cross_validated_bits(
        whole[first[0] : first[-1] + length], spikes(one), n_folds=N_FOLDS, penalties=PENALTIES
    )


def observe(model: Model, *, seed: int, scale: str) -> xr.Dataset:
    """Predict each cell's spikes from the model's signal and from the stimulus."""
    bits, raw, alive = [], [], []
    for name in CELLS:
        one = cell(name, scale)
        rate, shown = signal(model, one, seed)
        features = lagged(channels(rate, shown, one), *MEMORY[name])
        bits.append(
            cross_validated_bits(features, spikes(one), n_folds=N_FOLDS, penalties=PENALTIES)
        )
        raw.append(raw_bits(name, scale))
        alive.append(bool((np.ptp(rate, axis=0) > 1e-9).any()))
    return xr.Dataset(
        {
            "gain": (("unit", "stimulus"), np.array(bits) - np.array(raw)),
            "bits": (("unit", "stimulus"), np.array(bits)),
            "bits_raw": (("unit", "stimulus"), np.array(raw)),
            "included": ("unit", np.array(alive)),
            **left_out(scale),
        },
        coords={"cell": ("unit", list(CELLS))},
    )


def missing(model: Model) -> str:
    """Return why a model cannot be tested."""
    if model.field_shape is None:
        return "it sees no images"
    return "" if first_level(model) is not None else "it sends nothing on"


def panel(evidence: Mapping[str, Sequence[xr.Dataset]], ax: Axes) -> None:
    """Draw what the signal of each column adds to the prediction of each cell."""
    from pcsim.plots import OKABE_ITO

    shown = [label for label in SHOWN if evidence.get(label)]
    paints = dict(zip(CELLS, (("blue", "o"), ("vermillion", "s"), ("green", "^")), strict=True))
    for number, (name, (paint, marker)) in enumerate(paints.items()):
        for place, label in enumerate(shown):
            values = [float(one["gain"].isel(unit=number).mean()) for one in evidence[label]]
            ax.plot(
                np.full(len(values), place + 0.2 * (number - 1)), values, marker=marker,
                linestyle="-", linewidth=0.6, color=OKABE_ITO[paint],
                label=None if place else name,
            )  # fmt: skip
    ax.axhline(0.0, color="black", linewidth=0.6)
    ax.set_xticks(range(len(shown)), shown, rotation=30, ha="right")
    ax.set_xlim(-0.5, len(shown) - 0.5)
    ax.set_ylabel("Gain over the stimulus (bits a spike)")
    ax.legend(loc="lower left", bbox_to_anchor=(0.0, 1.0), ncols=3, columnspacing=1.0)


HYPOTHESIS = Hypothesis(
    id="H43",
    version=3,
    name="Errors predict spikes of real cells",
    claim=(
        "A linear-nonlinear model on the error signal of a predictive model predicts the spikes of "
        "real sensory cells better than one on their stimulus."
    ),
    family="geometry",
    protocol=(
        "A cell of cat LGN under a binary m-sequence (15.6 ms a frame), fly H1 under random "
        "velocity (4 ms bins), a locust receptor under a random envelope (1 ms bins). A check is "
        "a pixel of the model's field, its contrast 0.25, the cell's receptive field in the middle "
        "(found in the first tenth of the recording, which is not scored). A stimulus of one "
        "number sets the contrast of a natural patch, as the models have neither ears nor wings. "
        "Poisson regression on the past 0.11, 0.1 and 0.02 s of 9 units around the middle, or of "
        "the 4 leading components of all units; on 9 checks or on the number itself for the "
        "stimulus. Five contiguous folds, penalty chosen within the training data. Of the three "
        f"recordings the first {by_scale(USED)} are used."
    ),
    statistic=(
        "Cross-validated bits a spike from the model's signal minus those from the stimulus, mean "
        "over folds and cells. Bins and spikes of the recordings that are not scored, as the scale "
        "does not use them or they locate the field or warm the model up, are counted as left out."
    ),
    signal="error units of the lowest level (output or latent units of models without them)",
    falsified_if="The interval of the gain includes 0.",
    units="bits a spike",
    missing=missing,
    recordings=RECORDINGS,
    observe=observe,
    shared=("unit", "stimulus"),
    variables=("gain",),
    null=0.0,
    direction=1,
    rope=(-0.01, 0.01),
    reference=Reference(
        status="computed",
        source=(
            "The spikes themselves: cat LGN, 0.667 a bin, Fano factor 1.49 (Kara et al. 2000); fly "
            "H1, 44.7 Hz, kernel peak 28 ms before the spike (de Ruyter van Steveninck); locust, "
            "929 spikes in 10 s (Rokem et al. 2006). No gain is published: its sign is judged."
        ),
    ),
    controls=(
        Control(
            name="equal parameters",
            statement="As many channels of static rectified filters predict nothing.",
            variant="LN",
        ),
        Control(
            name="time shift",
            statement="The same signal for a stimulus turned round by half a segment is of no use.",
            transform=lambda model, seed: Shifted(model),
        ),
    ),
    # The battery's table writes 0 for LN: no gain.
    expectations={
        "LN": "-",
        **dict.fromkeys(("RETINA", "LGN", "HOSOYA", "PATH", "RB-untr"), "?"),
    },
    departures=(
        "Fly and locust saw no images: their stimulus sets the contrast of a patch in the model's "
        "field. The size of the cat's checks is not in its file: a check is a pixel.",
        "The signal gives 9, 4 and 4 channels to the regression and the stimulus 9, 1 and 1. The "
        "number of parameters is equal in the control of filters only.",
        "The control of time turns each segment of about 8 s, not the recording.",
        "Of the locust's two recordings only that at 200 Hz (929 spikes) is used.",
        "Pairs of the fly's bins of 2 ms are one bin.",
    ),
    panel=panel,
)
