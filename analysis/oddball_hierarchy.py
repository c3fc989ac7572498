"""H23: prediction errors to oddballs, apart from adaptation, grow from midbrain to cortex."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from pcsim.hypothesis import Control, Hypothesis, Means, Reference, Requirement
from pcsim.model import Model
from pcsim.protocols import cannot_hear, listen
from pcsim.stats import jonckheere
from pcsim.stimuli import cascade_sequence, many_standards_sequence, oddball_sequence, tone_events

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["HYPOTHESIS"]

N_TONES = {"quick": 200, "full": 400}
N_CHANNELS = 10
PAIRS = ((3, 4), (4, 3), (5, 6), (6, 5))
"""Standard and deviant, half an octave apart; every tone is heard in both roles."""
AROUND = (-1, 0, 1)
"""Channels read, from that of the tone."""
WINDOW = (0.0, 0.18)
LEARNING = 0.25
"""Share of each sequence that is left out."""
LEVELS = 3
INDICES = ("iPE", "iRS", "iMM", "iPE_many")
PUBLISHED = {"iMM": (0.14, 0.34, 0.50), "iRS": (0.22, 0.46, 0.39), "iPE": (-0.08, -0.12, 0.11)}
"""Lemniscal IC, MGB and AC of the rat, medians (Parras et al. 2017, Table 1)."""
PUBLISHED_NONLEMNISCAL = {
    "iMM": (0.49, 0.52, 0.60), "iRS": (0.46, 0.46, 0.33), "iPE": (0.03, 0.06, 0.27)
}  # fmt: skip


def observe(model: Model, *, seed: int, scale: str) -> tuple[xr.Dataset, xr.Dataset]:
    """Play oddball sequences and their controls; one unit is a channel with a tone it hears."""
    n = N_TONES[scale]
    sequences = [
        oddball_sequence(n, standard=standard, deviant=deviant, seed=seed + 100 * number)
        for number, (standard, deviant) in enumerate(PAIRS)
    ]
    controls = [cascade_sequence(n, direction=1), cascade_sequence(n, direction=-1)]
    controls.append(many_standards_sequence(n, seed=seed))
    heard, responses = listen(model, [*sequences, *controls], seed=seed)
    indices = []
    for level in sorted(heard)[:LEVELS]:
        response = [
            heard[level].by_channel(one, N_CHANNELS) for one in heard[level].response(WINDOW)
        ]
        indices.append(decompose(response, [tone_events(one) for one in [*sequences, *controls]]))
    variables: dict[str, Any] = {
        f"{name}_{place}": ("unit", one[name])
        for place, one in enumerate(indices, start=1)
        for name in one
        if name != "size"
    }
    size = np.stack([one["size"] for one in indices])
    trend = jonckheere([one["iPE"] for one in indices]).effect
    evidence = xr.Dataset(
        variables
        | {
            "trend": ("unit", np.full(size.shape[1], trend)),
            "included": (
                "unit", (size > 0.05 * np.percentile(size, 95, axis=1, keepdims=True)).all(axis=0)
            ),
        }
    )  # fmt: skip
    return evidence, responses


def decompose(response: Sequence[Any], events: Sequence[Any]) -> dict[str, Any]:
    """Return the indices of each unit from its normalised responses as deviant, standard, control.

    `response` holds (event, channel) for the oddball sequences, the rising and the falling cascade
    and the many standards. The control tone is approached from the side of the standard.
    """
    found = []
    for number, (standard, deviant) in enumerate(PAIRS):
        cascade = len(PAIRS) if deviant > standard else len(PAIRS) + 1
        swapped = PAIRS.index((deviant, standard))
        channels = deviant + np.array(AROUND)
        # The same tone as deviant, as the last standard before deviants, and as control.
        rows = [
            late(events[number].role == "deviant"),
            late(np.roll(events[swapped].role == "deviant", -1)),
            late(events[cascade].tone == deviant),
            late(events[-1].tone == deviant),
        ]
        sources = (number, swapped, cascade, len(PAIRS) + 2)
        found.append(
            [response[s][row][:, channels].mean(0) for s, row in zip(sources, rows, strict=True)]
        )
    dev, std, ctr, many = np.concatenate(found, axis=1)
    size = np.sqrt(dev**2 + std**2 + ctr**2)
    safe = np.where(size > 0, size, 1.0)
    with_many = np.sqrt(dev**2 + std**2 + many**2)
    many_safe = np.where(with_many > 0, with_many, 1.0)
    return {
        "iPE": (dev - ctr) / safe,
        "iRS": (ctr - std) / safe,
        "iMM": (dev - std) / safe,
        "iPE_many": (dev - many) / many_safe,
        "size": size,
    }


def late(chosen: Any) -> Any:
    """Return which of the chosen tones come after the part of the sequence that is left out."""
    return chosen & (np.arange(chosen.size) >= LEARNING * chosen.size)


def slope(means: Means) -> Any:
    """Return the growth of iPE per station, by least squares over three."""
    return 0.5 * (means["iPE_3"] - means["iPE_1"])


def trend(means: Means) -> Any:
    """Return the Jonckheere trend of iPE over stations, -1 to 1."""
    return means["trend"]


def in_cortex(means: Means) -> Any:
    """Return iPE at the highest station."""
    return means["iPE_3"]


def panel(evidence: Mapping[str, Sequence[xr.Dataset]], ax: Axes) -> None:
    """Draw iPE over stations for each column, and as published."""
    from pcsim.plots import colour

    stations = np.arange(1, LEVELS + 1)
    drawn = (
        ("AUD", "predicting", "error", "o"),
        ("AUD-cut", "no feedback", "prediction", "s"),
        ("AUD-adapt", "adapting only", "control", "^"),
    )
    for label, name, role, marker in drawn:
        for place, one in enumerate(evidence.get(label, ())):
            kept = one.isel(unit=one["included"].values)
            values = [float(kept[f"iPE_{level}"].mean()) for level in stations]
            ax.plot(
                stations, values, color=colour(role), marker=marker, linestyle="-", linewidth=0.8,
                markersize=3,
                label=None if place else name,
            )  # fmt: skip
    for published, line, name in (
        (PUBLISHED["iPE"], "--", "rat, lemniscal"),
        (PUBLISHED_NONLEMNISCAL["iPE"], ":", "rat, non-lemniscal"),
    ):
        ax.plot(stations, published, color="black", linestyle=line, linewidth=0.8, label=name)
    ax.axhline(0.0, color="0.7", linewidth=0.6, zorder=0)
    ax.set_xticks(stations, ["IC", "MGB", "AC"])
    ax.set_xlabel("Station")
    ax.set_ylabel("Prediction error index iPE")
    ax.legend(loc="lower left", bbox_to_anchor=(0.0, 1.0), ncols=2, fontsize=6)


HYPOTHESIS = Hypothesis(
    id="H23",
    name="Prediction error grows up the auditory hierarchy",
    claim=(
        "Responses to oddballs exceed those to the same tone in a regular sequence, beyond "
        "adaptation, and the more so the higher the station (Parras et al. 2017, Nat. Commun. "
        "8:2148)."
    ),
    family="temporal",
    protocol=(
        "Tones of 75 ms at 4 Hz; oddball sequences of 90:10, half an octave apart, four pairs in "
        "both roles; cascades of ten tones up and down; many standards; 200 tones (full: 400), the "
        "first quarter left out. Response: mean rate of both signs of error units in 0-180 ms, in "
        "the tone's channel and its neighbours; standards are those before deviants."
    ),
    statistic=(
        "DEV, STD and CTR (cascade) of the same tone and unit divided by their Euclidean norm; "
        "iPE = DEV - CTR, iRS = CTR - STD, iMM = iPE + iRS; slope of iPE over three stations."
    ),
    signal="error units of levels 1 to 3 (IC, MGB, AC), signed halves added",
    falsified_if=(
        "The slope of iPE is not above 0, or iPE falls by the Jonckheere trend, or is not positive "
        "in cortex.",
        "The same circuit with adaptation alone has iPE above 0.05: then the control sequence is "
        "wrong.",
    ),
    units="index per station",
    missing=lambda model: cannot_hear(model, n_levels=LEVELS, n_tones=N_CHANNELS),
    observe=observe,
    variables=(*(f"{i}_{k}" for i in INDICES for k in (1, 2, 3)), "trend"),
    combine=slope,
    null=0.0,
    direction=1,
    rope=(-0.02, 0.02),
    reference=Reference(
        value=0.108,
        interval=(0.095, 0.12),
        status="read",
        source=(
            "Parras et al. 2017, Table 1, medians with the cascade control, rat: iPE -0.08, -0.12, "
            "0.11 (lemniscal IC, MGB, AC: slope 0.095) and 0.03, 0.06, 0.27 (non-lemniscal: "
            "0.12). iRS 0.22, 0.46, 0.39 and 0.46, 0.46, 0.33 does not grow."
        ),
    ),
    requirements=(
        Requirement(name="trend", statement="iPE rises by its ranks.", combine=trend),
        Requirement(
            name="cortex", statement="Cortex answers to deviance itself.", combine=in_cortex
        ),
    ),
    controls=(
        Control(
            name="adaptation",
            statement="Depressing synapses alone predict nothing: iPE is at most 0 everywhere.",
            variant="AUD-adapt",
        ),
    ),
    departures=(
        "Units are channels of tones; stations are levels of a model, held against the lemniscal "
        "and the non-lemniscal pathway at once.",
        "The interval spans the slopes of the two pathways' medians, without the error of either.",
        "The sequence of many standards is measured and not judged.",
    ),
    expectations={"AUD": "+", "AUD-adapt": "-", "AUD-one": ".", "AUD-cut": "?"},
    panel=panel,
)
