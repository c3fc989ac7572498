"""H24: expected deviants, unexpected repetitions and omitted tones tell local from global rules."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from pcsim.hypothesis import Control, Hypothesis, Means, Reference, Requirement
from pcsim.model import Model
from pcsim.protocols import Listening, cannot_hear, listen
from pcsim.stimuli import local_global_sequence

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["HYPOTHESIS"]

N_CHUNKS = {"quick": 48, "full": 160}
HABITUATION = 12
N_CHANNELS = 10
TONES = ((2, 6), (6, 2))
"""x and Y, two octaves apart; each tone plays both parts."""
RULES = ("xxxxY", "xxxxx")
WINDOW = (0.0, 0.15)
QUIET = (0.5, 0.7)
"""After the last place of a chunk, before the next: the baseline."""


def observe(model: Model, *, seed: int, scale: str) -> tuple[xr.Dataset, xr.Dataset]:
    """Play both blocks with both tones; one unit is a channel, at the lowest and highest level."""
    blocks = [(rule, tones) for tones in TONES for rule in RULES]
    sequences = [
        local_global_sequence(
            N_CHUNKS[scale], rule=rule, tones=tones, habituation=HABITUATION, seed=seed + 100 * i
        )
        for i, (rule, tones) in enumerate(blocks)
    ]
    heard, responses = listen(model, sequences, seed=seed)
    low, high = (responses_of(heard[level]) for level in (min(heard), max(heard)))

    def mean(part: Any, what: str, rule: str) -> Any:
        """Average over the two parts that each tone plays."""
        return np.mean(
            [one[what] for one, (r, _) in zip(part, blocks, strict=True) if r == rule], 0
        )

    def surprise(part: Any) -> Any:
        """Return what a fifth x adds to the fourth, where Y is expected less where x is."""
        return mean(part, "fifth x", "xxxxY") - mean(part, "fifth x", "xxxxx")

    size = np.stack([mean(part, "size", rule) for part in (low, high) for rule in RULES]).max(0)
    evidence = xr.Dataset(
        {
            "local": ("unit", mean(low, "Y", "xxxxx") - mean(low, "Y", "xxxxY")),
            "global": ("unit", surprise(high)),
            "global_low": ("unit", surprise(low)),
            "omission_Y": ("unit", mean(low, "omission", "xxxxY")),
            "omission_x": ("unit", mean(low, "omission", "xxxxx")),
            "included": ("unit", size > 0.05 * np.percentile(size, 95)),
        }
    )
    return evidence, responses


def responses_of(heard: Listening) -> list[dict[str, Any]]:
    """Return for each block the mean responses of each channel, first tones of a chunk being 1."""
    found = []
    evoked, quiet = heard.response(WINDOW), heard.response(QUIET)
    for one, silent, events in zip(evoked, quiet, heard.events, strict=True):
        chunks = heard.by_channel(one, N_CHANNELS).reshape(-1, 5, N_CHANNELS)[HABITUATION:]
        after = heard.by_channel(silent, N_CHANNELS).reshape(-1, 5, N_CHANNELS)[HABITUATION:]
        last = events.tone.reshape(-1, 5)[HABITUATION:]
        x = last[:, 0]
        kinds = {"x": last[:, 4] == x, "omission": last[:, 4] < 0}
        kinds["Y"] = ~kinds["x"] & ~kinds["omission"]
        first = abs(chunks[:, 0].sum(axis=-1).mean())
        scale = first if first > 0 else 1.0
        fifth = chunks[:, 4] / scale
        gain = fifth - chunks[:, 3] / scale
        omitted = fifth - after[:, 4] / scale
        found.append(
            {
                "Y": fifth[kinds["Y"]].mean(0),
                "fifth x": gain[kinds["x"]].mean(0),
                "omission": omitted[kinds["omission"]].mean(0),
                "size": np.abs(chunks).mean(axis=0).max(axis=0) / scale,
            }
        )
    return found


def omission(means: Means) -> Any:
    """Return the response to omitted tones, averaged over the two blocks."""
    return 0.5 * (means["omission_Y"] + means["omission_x"])


def local(means: Means) -> Any:
    """Return by how much expecting Y lowers the response to it."""
    return means["local"]


def higher(means: Means) -> Any:
    """Return the response of the highest level to a repetition where Y is expected."""
    return means["global"]


def deviant_omitted(means: Means) -> Any:
    """Return by how much more an omitted Y evokes than an omitted x."""
    return means["omission_Y"] - means["omission_x"]


def score(means: Means) -> Any:
    """Return how many of the three consequences hold, 0 to 3."""
    held = (local(means) > 0, higher(means) > 0, deviant_omitted(means) > 0)
    return np.sum(np.asarray(held, dtype=float), axis=0)


def panel(evidence: Mapping[str, Sequence[xr.Dataset]], ax: Axes) -> None:
    """Draw the three contrasts and the response to omissions for each column."""
    from pcsim.plots import colour

    drawn = (
        ("AUD", "three levels", "error", "o"),
        ("AUD-one", "one level", "latent", "D"),
        ("AUD-adapt", "adapting only", "control", "^"),
    )
    measures = (local, higher, deviant_omitted, omission)
    for shift, (label, name, role, marker) in zip((-0.18, 0.0, 0.18), drawn, strict=True):
        for replica, one in enumerate(evidence.get(label, ())):
            kept = one.isel(unit=one["included"].values)
            means = {str(key): np.asarray(kept[key].mean()) for key in kept.data_vars}
            values = [float(measure(means)) for measure in measures]
            ax.plot(
                np.arange(len(measures)) + shift, values, linestyle="none", marker=marker,
                markersize=3.5, color=colour(role), label=None if replica else name,
            )  # fmt: skip
    ax.axhline(0.0, color="0.7", linewidth=0.6, zorder=0)
    names = ("Y unexpected\n- expected", "x unexpected\n- expected", "no Y - no x", "omission")
    ax.set_xticks(range(len(measures)), names, fontsize=6)
    ax.set_ylabel("Response (first tone = 1)")
    ax.legend(loc="lower left", bbox_to_anchor=(0.0, 1.0), ncols=3, fontsize=6)


HYPOTHESIS = Hypothesis(
    id="H24",
    name="Local and global rules, and the response to silence",
    claim=(
        "A hierarchy of predictions answers less to an expected deviant, at its top to an "
        "unexpected repetition, and to an omitted tone, the more so where a deviant was expected "
        "(Wacongne et al. 2011, PNAS 108:20754)."
    ),
    family="temporal",
    protocol=(
        "Chunks of five tones of 50 ms every 150 ms, one chunk in 1.4 s; blocks of 48 (full: 160) "
        "in which xxxxY or xxxxx is frequent (75 %, the other 15 %, xxxx and silence 10 %) after "
        "12 frequent ones; x and Y two octaves apart, in both parts. Response: mean rate of both "
        "signs of error units in 0-150 ms from the onset of a place, summed over the units of a "
        "channel, in units of the response to first tones."
    ),
    statistic=(
        "Response to omissions less that to late silence, mean of both blocks, lowest level. "
        "(1) Y in xxxxx blocks less Y in xxxxY blocks, lowest level; (2) fifth x less fourth x in "
        "xxxxY blocks less the same in xxxxx blocks, highest level: what repetition and local "
        "statistics do at both places cancels; (3) omission in xxxxY less in xxxxx blocks. Score: "
        "how many of the three are above 0."
    ),
    signal="error units of the lowest (1, 3) and highest (2) level, signed halves added",
    falsified_if=(
        "The response to omissions is not above 0.",
        "One of the three consequences has the opposite sign, or (2) is no larger than in one "
        "level of the same circuit.",
    ),
    units="responses to a first tone",
    missing=lambda model: cannot_hear(model, n_tones=N_CHANNELS),
    observe=observe,
    variables=("local", "global", "global_low", "omission_Y", "omission_x"),
    combine=omission,
    null=0.0,
    direction=1,
    reference=Reference(
        status="read",
        source=(
            "Wacongne et al. 2011 (abstract): all three consequences in human EEG and MEG, no "
            "number here. SOA and shares of the trial types are from memory. A subset of rodent "
            "auditory neurons answers to omissions (Lao-Rodriguez et al. 2023)."
        ),
    ),
    requirements=(
        Requirement(name="(1) local", statement="Expecting Y lowers mismatch.", combine=local),
        Requirement(
            name="(2) global", statement="Unexpected repetition reaches the top.", combine=higher
        ),
        Requirement(
            name="(3) omission", statement="No Y is more than no x.", combine=deviant_omitted
        ),
        Requirement(name="score", statement="At least one of three holds.", combine=score),
        Requirement(
            name="(2) beyond one level",
            statement="One level knows no chunks.",
            combine=higher,
            against="one level",
        ),
    ),
    controls=(
        Control(
            name="adaptation",
            statement="Depressing synapses alone do not answer to silence.",
            variant="AUD-adapt",
        ),
        Control(
            name="one level",
            statement="Transitions alone cannot tell the fifth place from the fourth.",
            variant="AUD-one",
            for_effect=False,
        ),
    ),
    departures=(
        "The response to omissions is judged; the battery's score of 0 to 3 is a requirement "
        "beside it.",
        "Omissions are read at the lowest level and compared with late silence, which is our own "
        "baseline.",
    ),
    remembered=(
        "Tones of 50 ms every 150 ms, a chunk in 1.4 s, shares of 75, 15 and 10 %, 12 chunks of "
        "habituation.",
    ),
    expectations={"AUD": "?", "AUD-adapt": "-", "AUD-one": "-", "AUD-cut": "?"},
    panel=panel,
)
