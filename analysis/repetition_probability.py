"""H21: repetition suppression is larger where repetitions are probable (contested)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from pcsim.hypothesis import Control, Hypothesis, Means, Reference
from pcsim.model import Model
from pcsim.protocols import cannot_hear, listen
from pcsim.stimuli import pair_sequence

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["HYPOTHESIS"]

N_PAIRS = {"quick": 32, "full": 96}
N_ORDERS = {"quick": 3, "full": 8}
N_CHANNELS = 10
PROBABILITIES = (0.75, 0.25)
TONES = (1, 3, 5, 7)
AROUND = (-1, 0, 1)
"""Channels read, from that of the tone."""
WINDOW = (0.0, 0.25)
LEARNING = 0.25
"""Share of the pairs of each block that is left out."""


def observe(model: Model, *, seed: int, scale: str) -> tuple[xr.Dataset, xr.Dataset]:
    """Play blocks of pairs; one unit is a channel with a tone it hears, at the highest level."""
    orders = [
        (probability, seed + 100 * number)
        for probability in PROBABILITIES
        for number in range(N_ORDERS[scale])
    ]
    sequences = [
        pair_sequence(N_PAIRS[scale], repetition_probability=share, tones=TONES, seed=one)
        for share, one in orders
    ]
    heard, responses = listen(model, sequences, seed=seed)
    top = heard[max(heard)]
    evoked = [top.by_channel(one, N_CHANNELS) for one in top.response(WINDOW)]
    means = {
        (share, role): np.concatenate(
            [
                gather(evoked, top.events, [s == share for s, _ in orders], role, tone)
                for tone in TONES
            ]
        )
        for share in PROBABILITIES
        for role in ("repetition", "alternation")
    }
    suppressed = {}
    for share in PROBABILITIES:
        again, other = means[share, "repetition"], means[share, "alternation"]
        total = np.abs(again) + np.abs(other)
        suppressed[share] = (other - again) / np.where(total > 0, total, 1.0)
    largest = np.stack(list(means.values())).max(axis=0)
    evidence = xr.Dataset(
        {
            "likely": ("unit", suppressed[0.75]),
            "unlikely": ("unit", suppressed[0.25]),
            "included": ("unit", largest > 0.05 * np.percentile(largest, 95)),
        }
    )
    return evidence, responses


def gather(
    evoked: Sequence[Any], events: Sequence[Any], blocks: Sequence[bool], role: str, tone: int
) -> Any:
    """Return the mean response of the channels around a tone to it in a role, over these blocks."""
    rows = []
    for response, one, wanted in zip(evoked, events, blocks, strict=True):
        if wanted:
            late = np.arange(one.role.size) >= LEARNING * one.role.size
            rows.append(response[late & (one.role == role) & (one.tone == tone)])
    return np.concatenate(rows)[:, tone + np.array(AROUND)].mean(axis=0)


def interaction(means: Means) -> Any:
    """Return by how much more repetition suppresses where it is probable."""
    return means["likely"] - means["unlikely"]


def panel(evidence: Mapping[str, Sequence[xr.Dataset]], ax: Axes) -> None:
    """Draw repetition suppression in both blocks for each column."""
    from pcsim.plots import colour

    drawn = (
        ("AUD", "predicting", "error", "o"),
        ("AUD-cut", "no feedback", "prediction", "s"),
        ("AUD-adapt", "adapting only", "control", "^"),
    )
    for label, name, role, marker in drawn:
        for replica, one in enumerate(evidence.get(label, ())):
            kept = one.isel(unit=one["included"].values)
            values = [float(kept[key].mean()) for key in ("unlikely", "likely")]
            ax.plot(
                PROBABILITIES[::-1], values, color=colour(role), marker=marker, markersize=3.5,
                linestyle="-", linewidth=0.8, label=None if replica else name,
            )  # fmt: skip
    ax.axhline(0.0, color="0.7", linewidth=0.6, zorder=0)
    ax.set_xlim(0.15, 0.85)
    ax.set_xticks(PROBABILITIES[::-1])
    ax.set_xlabel("Probability of a repetition")
    ax.set_ylabel("Repetition suppression")
    ax.legend(loc="lower left", bbox_to_anchor=(0.0, 1.0), ncols=2, fontsize=6)


HYPOTHESIS = Hypothesis(
    id="H21",
    name="Repetition suppression scales with the probability of repetition",
    claim=(
        "Repetition lowers responses more in blocks in which repetitions are frequent (Summerfield "
        "et al. 2008, Nat. Neurosci. 11:1004). Contested: see the reference."
    ),
    family="temporal",
    protocol=(
        "Pairs of tones, 250 ms each with a gap of 500 ms, every 1.75 s; four tones an octave "
        "apart; blocks with repetitions in 75 or 25 % of 32 pairs (full: 96), in 3 orders (full: "
        "8), the first quarter left out. Response to the second tone: mean rate of both signs of "
        "error units in 0-250 ms, in its channel and the neighbours."
    ),
    statistic=(
        "RS = (alternation - repetition) / (alternation + repetition) of the same second tone; "
        "I = RS in blocks of 75 % less RS in blocks of 25 %."
    ),
    signal="error units of the highest level, signed halves added",
    falsified_if="I is not above 0.",
    units="index",
    missing=lambda model: cannot_hear(model, n_tones=N_CHANNELS),
    observe=observe,
    variables=("likely", "unlikely"),
    combine=interaction,
    null=0.0,
    direction=1,
    rope=(-0.01, 0.01),
    reference=Reference(
        status="read",
        source=(
            "Sign only, contested. For: human FFA (Summerfield et al. 2008), late EEG (Summerfield "
            "et al. 2011). Against: single cells of macaque IT do not show it; repetition and "
            "expectation are separable (Tang et al. 2018, eLife 7:e33123). Faces there, tones here."
        ),
    ),
    controls=(
        Control(
            name="adaptation",
            statement="Depressing synapses suppress repetitions, whatever their probability.",
            variant="AUD-adapt",
        ),
    ),
    departures=(
        "Tones stand for faces, and the prior is learned within the run from the blocks "
        "themselves.",
        "Blocks hold no cue of their kind; how long they are is our own choice.",
    ),
    expectations={"AUD": "?", "AUD-adapt": "-", "AUD-one": "-", "AUD-cut": "?"},
    panel=panel,
)
