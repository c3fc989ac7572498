"""Tone sequences with rules: local and global ones, pairs with repetitions, Markov chains.

As in `pcsim.stimuli.oddball`, a tone is one feature that is 1 while it sounds and a sequence is one
trial. On `time` lie, frame by frame, `slot` (number of the place for a tone), `tone` (-1 where none
sounds) and `role`. `tone_events` turns them into a table.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from pcsim.messages import (
    check_array,
    check_choice,
    check_integer,
    check_number,
    refusal,
)
from pcsim.stimuli.oddball import ToneScale
from pcsim.stimulus import stimulus_array

__all__ = [
    "CHUNK_SCALE",
    "PAIR_SCALE",
    "ToneEvents",
    "local_global_sequence",
    "markov_sequence",
    "pair_sequence",
    "tone_events",
]

Floats = NDArray[np.floating[Any]]
Index = NDArray[np.integer[Any]]

CHUNK_SCALE = ToneScale(tone_duration=0.05, interval=0.15)
"""Tones of 50 ms every 150 ms."""
PAIR_SCALE = ToneScale(tone_duration=0.25, interval=0.75)
"""Tones of 250 ms with gaps of 500 ms."""
LENGTH = 5
"""Tones in a chunk."""


class ToneEvents(NamedTuple):
    """The places for tones in a sequence, in order."""

    onset: Floats
    """Seconds."""
    tone: Index
    """Number on the scale, -1 where none is played."""
    role: NDArray[np.str_]


def tone_events(sequence: xr.DataArray) -> ToneEvents:
    """Return when which tone begins in which role.

    Parameters
    ----------
    sequence
        Of this module or of `pcsim.stimuli.oddball`: coordinates `tone`, `role` and `slot` (or
        `position`) on `time`.

    Raises
    ------
    ValueError
        If the sequence has no such coordinates.

    Examples
    --------
    >>> events = tone_events(pair_sequence(2, tones=(1, 3), repetition_probability=1.0, seed=3))
    >>> events.onset.tolist(), events.role.tolist()
    ([0.0, 0.75, 1.75, 2.5], ['first', 'repetition', 'first', 'repetition'])
    """
    name = "slot" if "slot" in sequence.coords else "position"
    absent = [one for one in (name, "tone", "role") if one not in sequence.coords]
    if absent:
        found = f"a stimulus without {', '.join(absent)} on time"
        raise ValueError(refusal("tone_events", found, "a sequence of tones"))
    slots, first = np.unique(sequence[name].values, return_index=True)
    first = first[slots >= 0]
    return ToneEvents(
        np.asarray(sequence["time"].values[first]),
        np.asarray(sequence["tone"].values[first]),
        np.asarray(sequence["role"].values[first]),
    )


def local_global_sequence(
    n: int = 48,
    *,
    rule: str = "xxxxY",
    tones: tuple[int, int] = (3, 6),
    shares: tuple[float, float] = (0.15, 0.1),
    habituation: int = 12,
    period: float = 1.4,
    seed: int = 0,
    scale: ToneScale = CHUNK_SCALE,
) -> xr.DataArray:
    """Play chunks of five tones of which one kind is frequent, and the others break its rule.

    Frequent is four times x and then Y, or five times x; rare are the other of the two, and four
    times x and then nothing. The first chunks are frequent ones.

    Parameters
    ----------
    n
        Chunks.
    rule
        "xxxxY" or "xxxxx", the frequent one.
    tones
        x and Y, numbers on the scale.
    shares
        Of the chunks with the other ending and of those with none, among all after habituation.
    habituation
        Frequent chunks at the beginning.
    period
        From the onset of a chunk to the next, seconds.
    seed
        Of the order.
    scale
        Tones of a chunk; by default 50 ms every 150 ms.

    Returns
    -------
    stimulus : (1, time, feature)
        `role` is "first" to "fourth", then "frequent", "rare" or "omission"; `ending` on `time` is
        "x", "Y" or "nothing" for the whole chunk.

    Raises
    ------
    ValueError
        If x is Y, a tone is not on the scale, or the chunks do not fit the period.

    References
    ----------
    Bekinschtein et al. (2009), https://doi.org/10.1073/pnas.0809667106; Wacongne et al. (2011),
    https://doi.org/10.1073/pnas.1117807108

    Examples
    --------
    >>> events = tone_events(local_global_sequence(14, tones=(1, 4), seed=1, shares=(0.5, 0.5)))
    >>> events.tone.reshape(14, 5)[-2:].tolist()
    [[1, 1, 1, 1, 1], [1, 1, 1, 1, -1]]
    """
    where = "local_global_sequence"
    n, habituation = (
        check_integer(where, name, value, low=0)
        for name, value in (("n", n), ("habituation", habituation))
    )
    check_choice(where, "rule", rule, ("xxxxY", "xxxxx"))
    x, y = (_on_scale(where, one, scale) for one in tones)
    rest = n - habituation
    counts = [int(share * rest + 0.5) for share in shares]
    if x == y or rest < 1 or sum(counts) > rest or min(counts) < 0:
        found = f"tones {tones}, {n} chunks, {habituation} of habituation, shares {shares}"
        expected = "two tones, and rare chunks that fit behind the habituation"
        raise ValueError(refusal(where, found, expected, "Change one of them."))
    rng = np.random.default_rng([check_integer(where, "seed", seed), 20754])
    kinds = np.repeat(["rare", "omission", "frequent"], [*counts, rest - sum(counts)])
    kind = np.append(np.full(habituation, "frequent"), rng.permutation(kinds))
    expected_last, other = (y, x) if rule == "xxxxY" else (x, y)
    last = np.select([kind == "frequent", kind == "rare"], [expected_last, other], -1)
    tone = np.column_stack([np.full((n, LENGTH - 1), x), last])
    names = np.array(["first", "second", "third", "fourth"])
    role = np.column_stack([np.tile(names, (n, 1)), kind])
    stimulus = _play(where, tone, role, period=period, scale=scale, condition=rule, seed=seed)
    per_chunk = stimulus.sizes["time"] // n
    ending = np.select([last == y, last == x], ["Y", "x"], "nothing")
    return stimulus.assign_coords(
        ending=("time", np.repeat(ending, per_chunk)),
        chunk=("time", np.repeat(np.arange(n), per_chunk)),
    )


def pair_sequence(
    n: int = 32,
    *,
    repetition_probability: float = 0.5,
    tones: tuple[int, ...] = (1, 3, 5, 7),
    period: float = 1.75,
    seed: int = 0,
    scale: ToneScale = PAIR_SCALE,
) -> xr.DataArray:
    """Play pairs of tones of which the second repeats the first, or is another one.

    All tones come first equally often, and each is repeated in the same share of its pairs, as far
    as n allows.

    Parameters
    ----------
    n
        Pairs.
    repetition_probability
        Share of the pairs with a repetition.
    tones
        The tones used, numbers on the scale.
    period
        From the onset of a pair to the next, seconds.
    seed
        Of the order.
    scale
        Duration of the tones, and the interval within a pair.

    Returns
    -------
    stimulus : (1, time, feature)
        `role` is "first", then "repetition" or "alternation".

    Raises
    ------
    ValueError
        If there are fewer than two tones, or they do not fit.

    References
    ----------
    Summerfield et al. (2008), https://doi.org/10.1038/nn.2163

    Examples
    --------
    >>> events = tone_events(pair_sequence(32, repetition_probability=0.75, seed=2))
    >>> int((events.role == "repetition").sum())
    24
    """
    where = "pair_sequence"
    n = check_integer(where, "n", n, low=1)
    share = check_number(where, "repetition_probability", repetition_probability, low=0.0, high=1.0)
    known = [_on_scale(where, tone, scale) for tone in tones]
    if len(set(known)) < 2 or len(set(known)) < len(known):
        raise ValueError(refusal(where, f"tones {tones}", "at least two different ones"))
    rng = np.random.default_rng([check_integer(where, "seed", seed), 2163])
    first, second = np.empty(n, dtype=np.int64), np.empty(n, dtype=np.int64)
    of_tone = np.arange(n) % len(known)
    for number, here in enumerate(known):
        mine = np.flatnonzero(of_tone == number)
        others = [one for one in known if one != here]
        repeated = rng.permutation(mine.size) < round(share * mine.size)
        first[mine] = here
        second[mine] = np.where(repeated, here, rng.choice(others, mine.size))
    order = rng.permutation(n)
    tone = np.column_stack([first, second])[order]
    again = np.where(tone[:, 0] == tone[:, 1], "repetition", "alternation")
    role = np.column_stack([np.full(n, "first"), again])
    return _play(
        where, tone, role, period=period, scale=scale, condition=f"P(rep) = {share:g}",
        repetition_probability=share, seed=seed,
    )  # fmt: skip


def markov_sequence(
    transitions: Any, n: int = 400, *, seed: int = 0, scale: ToneScale | None = None
) -> xr.DataArray:
    """Play a Markov chain of tones.

    Parameters
    ----------
    transitions : (n_tones, n_tones)
        Row i holds the probabilities of what follows tone i.
    n
        Tones in the sequence.
    seed
        Of the chain.
    scale
        By default half octaves from 1000 Hz, as many as there are rows.

    Raises
    ------
    ValueError
        If rows are no probabilities.

    Examples
    --------
    >>> tone_events(markov_sequence([[0.0, 1.0], [1.0, 0.0]], 4, seed=1)).tone
    array([1, 0, 1, 0])
    """
    where = "markov_sequence"
    chain = check_array(where, "transitions", transitions, shape=(None, None))
    n = check_integer(where, "n", n, low=1)
    scale = ToneScale(n_tones=len(chain)) if scale is None else scale
    lawful = chain.shape == (scale.n_tones,) * 2 and (chain >= 0).all()
    if not lawful or np.abs(chain.sum(axis=1) - 1.0).max() > 1e-9:
        found = f"rows that sum to {chain.sum(axis=-1)}"
        expected = f"{scale.n_tones} rows of as many probabilities"
        raise ValueError(refusal(where, found, expected))
    rng = np.random.default_rng([check_integer(where, "seed", seed), 1906])
    played = np.empty(n, dtype=np.int64)
    played[0] = rng.integers(scale.n_tones)
    edges = np.cumsum(chain, axis=1)
    for i, draw in enumerate(rng.random(n - 1)):
        here = np.searchsorted(edges[played[i]], draw, side="right")
        played[i + 1] = min(int(here), scale.n_tones - 1)
    return _play(
        where, played[:, None], np.full((n, 1), "chain"), period=scale.interval, scale=scale,
        condition="chain", seed=seed,
    )  # fmt: skip


def _on_scale(where: str, tone: Any, scale: ToneScale) -> int:
    if check_integer(where, "tone", tone, low=0) >= scale.n_tones:
        expected = f"a tone from 0 to {scale.n_tones - 1}"
        raise ValueError(refusal(where, f"tone {tone}", expected, "Choose one of the scale."))
    return int(tone)


def _play(
    where: str,
    tone: Index,
    role: NDArray[np.str_],
    *,
    period: float,
    scale: ToneScale,
    **labels: Any,
) -> xr.DataArray:
    """Play groups of tones (group, place), each group `period` after the one before."""
    n, length = tone.shape
    frame = scale.frame_duration
    sounding, per_tone = round(scale.tone_duration / frame), round(scale.interval / frame)
    per_group = round(check_number(where, "period", period, positive=True) / frame)
    needed = (length - 1) * per_tone + sounding
    if abs(per_group * frame - period) > 1e-6 * period or per_group < needed:
        found = f"a period of {period:g} s for {needed * frame:g} s of tones"
        expected = f"whole frames of {frame:g} s, no shorter than the tones"
        raise ValueError(refusal(where, found, expected, "Lengthen it."))
    values = np.zeros((n, per_group, scale.n_tones))
    heard, name = np.full((n, per_group), -1), np.full((n, per_group), "silence", dtype="<U11")
    slot = np.full((n, per_group), -1)
    for place in range(length):
        during = slice(place * per_tone, place * per_tone + sounding)
        played = np.flatnonzero(tone[:, place] >= 0)
        values[played, during, tone[played, place]] = 1.0
        heard[:, during] = tone[:, place, None]
        name[:, during] = role[:, place, None]
        slot[:, during] = (length * np.arange(n) + place)[:, None]
    stimulus = stimulus_array(values.reshape(1, -1, scale.n_tones), frame_duration=frame, **labels)
    return stimulus.assign_coords(
        frequency=("feature", scale.frequency),
        tone=("time", heard.ravel()),
        role=("time", name.ravel()),
        slot=("time", slot.ravel()),
    )
