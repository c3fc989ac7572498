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
    expectation_table,
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
N_SHOWN = 48
"""Images before the last one, in whole cycles of every set."""
N_DRAWS = {"quick": 2, "full": 6}
FRAME, STEP = 0.3, 0.05
"""Seconds of an image, and between recorded times."""
CONTRAST = 0.2
"""Root mean square of every image, in units of the range of luminance."""


def sequences(model: Model, *, n_draws: int, seed: int) -> xr.DataArray:
    """Return cycles of a set of images that end with its next image or with a novel one.

    Of every draw two sets change places: what ends the one as novel ends the other as familiar.
    """
    _, px_per_deg = visual_field(model)
    shown, sizes, novel = [], [], []
    for draw in range(n_draws):
        both = equal_patches(
            model, 2 * max(SIZES), contrast=CONTRAST, seed=seed + 20_000 + 100 * draw
        )
        both = both.reshape(2, max(SIZES), *both.shape[1:])
        for size in SIZES:
            for own, ending in ((0, 0), (0, 1), (1, 1), (1, 0)):
                cycle = both[own, np.arange(N_SHOWN) % size]
                shown.append(np.concatenate([cycle, both[ending, :1]]))
                sizes.append(size)
                novel.append(own != ending)
    return stimulus_array(
        np.array(shown), frame_duration=FRAME, px_per_deg=px_per_deg,
        condition=np.where(novel, "novel", "familiar"), set_size=np.array(sizes),
    )  # fmt: skip


def observe(model: Model, *, seed: int, scale: str) -> tuple[xr.Dataset, xr.Dataset]:
    """Show the sequences and compare the last images."""
    role = signal_role(model, LEVEL)
    assert role is not None
    stimulus = sequences(model, n_draws=N_DRAWS[scale], seed=seed)
    responses = respond(model, stimulus, level=LEVEL, role=role, every=STEP, seed=seed)
    return measure(responses), responses.isel(trial=[0, 1])


def measure(responses: xr.Dataset) -> xr.Dataset:
    """Return the excess for novel images, and the fall of responses with repetition."""
    rate = np.abs(responses["rate"].transpose("trial", "time", "unit").to_numpy())
    number = np.ceil(responses["time"].values / FRAME - 1e-6).astype(int) - 1
    by_image = np.stack([rate[:, number == i].mean(axis=1) for i in range(N_SHOWN + 1)], axis=1)
    size, novel = responses["set_size"].values, responses["condition"].values == "novel"
    last = by_image[:, -1]
    found = {
        f"excess_{one}": contrast_index(
            last[(size == one) & novel].mean(0), last[(size == one) & ~novel].mean(0)
        )
        for one in SIZES
    }
    small = by_image[size == SIZES[0], :N_SHOWN].mean(axis=0)
    cycles = small.reshape(-1, SIZES[0], small.shape[-1]).mean(axis=1)
    included = responsive(by_image)
    heard = cycles[:, included] if included.any() else cycles
    course = heard.mean(axis=1)
    return xr.Dataset(
        {
            **{name: ("unit", value) for name, value in found.items()},
            "familiarised": ("unit", contrast_index(cycles[0], cycles[-1])),
            "included": ("unit", included),
            "course": ("cycle", course / max(float(course[0]), 1e-30)),
        },
        coords={"cycle": SIZES[0] * FRAME * np.arange(len(cycles))},
    )


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
        "Sets of 3, 6, 12 or 24 natural patches of equal contrast, 0.3 s each without gaps (0.3 s "
        "is remembered), in cycles until 48 images have been shown; then the set's next image, or "
        "one never shown; 2 draws (full: 6) of two sets whose images change parts. Response: mean "
        "|rate| over the 0.3 s of an image. Units are included if their mean response exceeds 5 % "
        "of the population's 95th percentile."
    ),
    statistic=(
        "Excess = (novel - familiar) / (novel + familiar), sets of 3. Also: excess in sets of 3 "
        "less in sets of 24; (first - last) / (first + last) cycle of a set of 3. The time course "
        "of that fall is kept beside it."
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
    expectations={
        **expectation_table()["H25"], "PATH": "?", "COLUMN": "?", "JB": "?", "PREDNET-noE": "?",
    },
    panel=panel,
)  # fmt: skip
