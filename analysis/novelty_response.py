"""H25: a novel image in a familiar sequence evokes more; adaptation is expected to do that too."""

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
    contrast_index,
    equal_patches,
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
SIZES = (3, 6, 12, 24)
N_CYCLES = 5
"""Times that each image of a set is shown before the last one, in sets of any size."""
N_DRAWS = {"quick": 2, "full": 6}
FRAME, STEP = 0.3, 0.05
"""Seconds of an image, and between recorded times."""
CONTRAST = 0.2
"""Root mean square of every image, in units of the range of luminance."""


def sequences(model: Model, *, n_draws: int, seed: int) -> dict[int, xr.DataArray]:
    """Return cycles of sets of images, by size, that end with the next image or with a novel one.

    Of every draw two sets change places: what ends the one as novel ends the other as familiar.
    Every image is seen equally often before the end, so that large sets make long sequences.
    """
    _, px_per_deg = visual_field(model)
    shown: dict[int, list[Any]] = {size: [] for size in SIZES}
    novel = []
    for draw in range(n_draws):
        both = equal_patches(
            model, 2 * max(SIZES), contrast=CONTRAST, seed=seed + 20_000 + 100 * draw
        )
        both = both.reshape(2, max(SIZES), *both.shape[1:])
        for own, ending in ((0, 0), (0, 1), (1, 1), (1, 0)):
            novel.append(own != ending)
            for size in SIZES:
                cycles = both[own, np.arange(N_CYCLES * size) % size]
                shown[size].append(np.concatenate([cycles, both[ending, :1]]))
    return {
        size: stimulus_array(
            np.array(images), frame_duration=FRAME, px_per_deg=px_per_deg,
            condition=np.where(novel, "novel", "familiar"),
        )
        for size, images in shown.items()
    }  # fmt: skip


def observe(model: Model, *, seed: int, scale: str) -> tuple[xr.Dataset, xr.Dataset]:
    """Show the sequences and compare the last images."""
    role = signal_role(model, LEVEL)
    assert role is not None
    responses = {
        size: respond(model, stimulus, level=LEVEL, role=role, every=STEP, seed=seed)
        for size, stimulus in sequences(model, n_draws=N_DRAWS[scale], seed=seed).items()
    }
    return measure(responses), responses[SIZES[0]].isel(trial=[0, 1])


def measure(responses: Mapping[int, xr.Dataset]) -> xr.Dataset:
    """Return the excess for novel images, and the fall of responses with repetition.

    Parameters
    ----------
    responses
        Size of the set -> the responses to its sequences.
    """
    found, seen = {}, []
    for size, one in responses.items():
        images, novel = by_image(one), one["condition"].values == "novel"
        last = images[:, -1]
        found[f"excess_{size}"] = contrast_index(last[novel].mean(0), last[~novel].mean(0))
        seen.append(images.mean(axis=1))
    small = by_image(responses[SIZES[0]])[:, :-1].mean(axis=0)
    cycles = small.reshape(N_CYCLES, SIZES[0], -1).mean(axis=1)
    included = responsive(np.stack(seen))
    kept = included if included.any() else np.ones_like(included)
    course = cycles[:, kept].mean(axis=1)
    excess_by_size = [float(found[f"excess_{size}"][kept].mean()) for size in SIZES]
    time = SIZES[0] * FRAME * np.arange(N_CYCLES)
    return xr.Dataset(
        {
            **{name: ("unit", value) for name, value in found.items()},
            "familiarised": ("unit", contrast_index(cycles[0], cycles[-1])),
            "included": ("unit", included),
            "course": ("cycle", course / max(float(course[0]), 1e-30)),
            "half_size": half_amplitude(excess_by_size),
            "time_constant": decay_time(time, course),
        },
        coords={"cycle": time},
    )


def by_image(responses: xr.Dataset) -> Any:
    """Return the mean |rate| during each image, (trial, image, unit)."""
    rate = np.abs(responses["rate"].transpose("trial", "time", "unit").to_numpy())
    number = np.ceil(responses["time"].values / FRAME - 1e-6).astype(int) - 1
    return np.stack([rate[:, number == i].mean(axis=1) for i in range(number.max() + 1)], axis=1)


def half_amplitude(excesses: Sequence[float]) -> float:
    """Return the set size at which the excess is half of the first one, NaN if none.

    Between the sizes it is linear in the logarithm of the size.
    """
    share = np.asarray(excesses) - 0.5 * excesses[0]
    below = np.flatnonzero(share <= 0.0)
    if excesses[0] <= 0.0 or not below.size:
        return float("nan")
    after = int(below[0])
    part = share[after - 1] / (share[after - 1] - share[after])
    ratio = SIZES[after] / SIZES[after - 1]
    return float(SIZES[after - 1] * ratio**part)


def decay_time(time: Any, course: Any) -> float:
    """Return the time constant of an exponential fall to a plateau, seconds, NaN if it does not.

    The best of constants from a third of a cycle to the whole time, the rest by least squares.
    """
    constants = np.geomspace(time[1] / 3.0, time[-1], 200)
    misfits, heights = [], []
    for one in constants:
        basis = np.stack([np.exp(-time / one), np.ones_like(time)], axis=1)
        weights = np.linalg.lstsq(basis, course, rcond=None)[0]
        misfits.append(float(((basis @ weights - course) ** 2).sum()))
        heights.append(float(weights[0]))
    best = int(np.argmin(misfits))
    within = 0 < best < len(constants) - 1 and heights[best] > 0.0
    return float(constants[best]) if within else float("nan")


def excess(means: Means) -> Any:
    """Return the excess for novel images in sequences of the smallest set."""
    return means["excess_3"]


def capacity(means: Means) -> Any:
    """Return by how much the excess is smaller in sequences of the largest set."""
    return means["excess_3"] - means["excess_24"]


def familiarisation(means: Means) -> Any:
    """Return the fall of the response from the first cycle to the last."""
    return means["familiarised"]


def panel(evidence: Mapping[str, Sequence[xr.Dataset]], ax: Axes) -> None:
    """Draw the excess against the size of the set for each column."""
    from pcsim.plots import OKABE_ITO

    shown = {"PREDNET-s": "vermillion", "PATH": "blue", "RB": "sky blue", "ADAPT": "green"}
    shown["LN"] = "black"
    for label, shade in shown.items():
        for replica, one in enumerate(evidence.get(label, ())):
            kept = one.isel(unit=one["included"].values)
            values = [float(kept[f"excess_{size}"].mean()) for size in SIZES]
            ax.plot(
                SIZES, values, marker="o", markersize=3, linewidth=0.8,
                color=OKABE_ITO.get(shade, "0.3"), label=None if replica else label,
            )  # fmt: skip
    ax.axhline(0.0, color="0.7", linewidth=0.6, zorder=0)
    ax.set_xscale("log")
    ax.set_xticks(SIZES, [str(size) for size in SIZES])
    ax.minorticks_off()
    ax.set_xlabel("Images in the familiar set")
    ax.set_ylabel("Novelty excess")
    ax.legend(loc="lower left", bbox_to_anchor=(0.0, 1.0), ncols=3, fontsize=6)


HYPOTHESIS = Hypothesis(
    id="H25",
    name="Novel images evoke more than familiar ones",
    claim=(
        "In a repeated sequence of images a novel one evokes excess activity, the less the more "
        "images the sequence has (Homann et al. 2022, PNAS 119:e2108882119). The authors explain "
        "it by adaptation: a model that passes shows nothing about prediction."
    ),
    family="temporal",
    protocol=(
        "Sets of 3, 6, 12 or 24 natural patches of equal contrast, 0.3 s each without gaps, in "
        f"{N_CYCLES} cycles, so that each image has been seen as often in sets of any size; then "
        f"the set's next image, or one never shown; {N_DRAWS['quick']} draws (full: "
        f"{N_DRAWS['full']}) of two sets whose images change parts. Response: mean "
        "|rate| over the 0.3 s of an image. Units are included if their mean response exceeds 5 % "
        "of the population's 95th percentile."
    ),
    statistic=(
        "Excess = (novel - familiar) / (novel + familiar), sets of 3. Also: excess in sets of 3 "
        "less in sets of 24; (first - last) / (first + last) cycle of a set of 3. Beside it, "
        "not judged: the size at half of the excess of sets of 3 (log-linear between sizes), and "
        "the time constant of an exponential fall to a plateau over the cycles of a set of 3."
    ),
    signal="error units of level 1 (output or latent units of models without them)",
    falsified_if="The excess is not above 0, or it does not fall with the size of the set.",
    units="index",
    missing=lambda model: lacks(model, LEVEL),
    observe=observe,
    variables=("excess_3", "excess_6", "excess_12", "excess_24", "familiarised"),
    combine=excess,
    null=0.0,
    direction=1,
    rope=(-0.01, 0.01),
    reference=Reference(
        status="read",
        source=(
            "Homann et al. 2022 (abstract): excess in the majority of L2/3 neurons of mouse V1; it "
            "emerges with 2.6 +- 0.9 s, new sets become familiar with 1.4 +- 0.4 s, some 15 images "
            "are held; an adaptive subunit model explains it. No index is given there."
        ),
    ),
    requirements=(
        Requirement(
            name="capacity", statement="Large sets leave less excess.", combine=capacity
        ),
        Requirement(
            name="familiarisation",
            statement="Responses to a small set fall as it is repeated.",
            combine=familiarisation,
        ),
    ),
    controls=(
        Control(
            name="static",
            statement="Static filters do not know what came before.",
            variant="LN",
        ),
        Control(
            name="adaptation",
            statement="Adapting subunits show it without predicting: the adversary.",
            variant="ADAPT",
        ),
    ),
    departures=(
        "One image is probed at the end of a sequence; the battery has rare novel ones within it.",
        "How the excess emerges with the number of cycles (2.6 s) is not measured: every sequence "
        f"has {N_CYCLES}.",
        "With equal repeats the time since an image was last seen grows with the set, as in the "
        "source: a fall of the excess tells nothing of what holds the images, and adaptation "
        "shows it.",
    ),
    remembered=("0.3 s an image.", "Sets of 3 to 24 images, of the battery's 3 to 25."),
    version=2,
    expectations={
        "PATH": "?", "COLUMN": "?", "JB": "?", "PREDNET-noE": "?",
    },
    panel=panel,
)  # fmt: skip
