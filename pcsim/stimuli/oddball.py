"""Tone sequences that tell deviance from repetition: oddball, cascade, many standards.

A tone is one feature that is 1 while the tone sounds; features are tones of a scale in steps of
`octaves`, from low to high. A sequence is one trial. Which tone is heard and in which role lies
frame by frame on `time` (`tone`, -1 in silence, and `role`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from pcsim.messages import check_integer, check_number, refusal
from pcsim.stimulus import stimulus_array

__all__ = ["ToneScale", "cascade_sequence", "many_standards_sequence", "oddball_sequence"]

Floats = NDArray[np.floating[Any]]
Index = NDArray[np.integer[Any]]


@dataclass(frozen=True, kw_only=True)
class ToneScale:
    """The tones of an experiment and their timing.

    Examples
    --------
    >>> ToneScale(n_tones=3, lowest=2000.0).frequency
    array([2000.        , 2828.42712475, 4000.        ])
    """

    n_tones: int = 10
    lowest: float = 1000.0
    """Hertz."""
    octaves: float = 0.5
    """From one tone to the next."""
    tone_duration: float = 0.075
    """Seconds of sound."""
    interval: float = 0.25
    """Seconds from one onset to the next."""
    frame_duration: float = 0.025
    """Seconds."""

    def __post_init__(self) -> None:
        where = "ToneScale"
        check_integer(where, "n_tones", self.n_tones, low=2)
        for name in ("lowest", "octaves", "tone_duration", "interval", "frame_duration"):
            check_number(where, name, getattr(self, name), positive=True)
        for name in ("tone_duration", "interval"):
            ratio = getattr(self, name) / self.frame_duration
            if round(ratio) < 1 or abs(ratio - round(ratio)) > 1e-6 * ratio:
                found = f"{name} {getattr(self, name):g} s in frames of {self.frame_duration:g} s"
                raise ValueError(refusal(where, found, "whole frames", "Change one of them."))
        if self.tone_duration > self.interval:
            found = f"tone_duration {self.tone_duration:g} s and interval {self.interval:g} s"
            raise ValueError(refusal(where, found, "tones that end before the next", "Shorten."))

    @property
    def frequency(self) -> Floats:
        """Hertz, (n_tones,)."""
        return np.asarray(self.lowest * 2.0 ** (self.octaves * np.arange(self.n_tones)))

    def play(self, tone: Index, role: NDArray[np.str_], **labels: Any) -> xr.DataArray:
        """Turn a list of tones into a stimulus (1, time, feature)."""
        sounding = round(self.tone_duration / self.frame_duration)
        per_tone = round(self.interval / self.frame_duration)
        values = np.zeros((tone.size, per_tone, self.n_tones))
        values[np.arange(tone.size), :sounding, tone] = 1.0
        heard = np.arange(per_tone) < sounding
        stimulus = stimulus_array(
            values.reshape(1, -1, self.n_tones), frame_duration=self.frame_duration, **labels
        )
        return stimulus.assign_coords(
            frequency=("feature", self.frequency),
            tone=("time", np.where(heard, tone[:, None], -1).ravel()),
            role=("time", np.where(heard, role[:, None], "silence").ravel()),
            position=("time", np.repeat(np.arange(tone.size), per_tone)),
        )


def oddball_sequence(
    n: int = 400,
    *,
    standard: int = 4,
    deviant: int = 5,
    deviant_probability: float = 0.1,
    seed: int = 0,
    scale: ToneScale | None = None,
) -> xr.DataArray:
    """Play one tone over and over, and now and then another.

    Deviants are an exact share of the tones, rounded down, spread at random so that at least two
    standards come before each (one, where the share is above a third).

    Parameters
    ----------
    n
        Tones in the sequence.
    standard, deviant
        Numbers on the scale, from 0.
    deviant_probability
        Share of deviants, above 0 and at most one half.
    seed
        Of the generator.
    scale
        By default half octaves from 1000 Hz.

    Returns
    -------
    stimulus : (1, time, feature)
        On `time`: `tone`, `role` ("standard", "deviant" or "silence") and `position` in the
        sequence.

    Raises
    ------
    ValueError
        If the two tones are one, or not on the scale, or no deviant fits.

    Examples
    --------
    >>> sequence = oddball_sequence(20, deviant_probability=0.1, seed=3)
    >>> onset = sequence.isel(time=slice(None, None, 10))
    >>> sequence.shape, int((onset.role == "deviant").sum())
    ((1, 200, 10), 2)
    """
    where, scale = "oddball_sequence", ToneScale() if scale is None else scale
    n = check_integer(where, "n", n, low=2)
    for name, tone in (("standard", standard), ("deviant", deviant)):
        _on_scale(where, name, tone, scale)
    if standard == deviant:
        found = f"tone {standard} as standard and deviant"
        raise ValueError(refusal(where, found, "two tones", "Change one of them."))
    share = check_number(where, "deviant_probability", deviant_probability, low=0.0, high=0.5)
    n_deviants = int(share * n + 1e-9)
    if n_deviants < 1:
        found = f"deviant_probability {share:g} of {n} tones"
        raise ValueError(refusal(where, found, "at least one deviant", "Raise one of them."))
    gap = 2 if 3 * n_deviants <= n else 1
    rng = np.random.default_rng(check_integer(where, "seed", seed))
    # Deviants with their gaps are blocks; the spare standards go between the blocks at random.
    spare = n - n_deviants * (gap + 1)
    block = np.sort(rng.permutation(spare + n_deviants)[:n_deviants])
    position = block + gap * (np.arange(n_deviants) + 1)
    odd = np.zeros(n, dtype=bool)
    odd[position] = True
    return scale.play(
        np.where(odd, deviant, standard),
        np.where(odd, "deviant", "standard"),
        condition="oddball",
        standard=standard,
        deviant=deviant,
        seed=seed,
    )


def cascade_sequence(
    n: int = 400, *, direction: int = 1, scale: ToneScale | None = None
) -> xr.DataArray:
    """Play the scale again and again, up or down: each tone is rare, regular and no deviant.

    Parameters
    ----------
    n
        Tones in the sequence.
    direction
        1 for rising, -1 for falling.
    scale
        By default ten half octaves from 1000 Hz.

    Returns
    -------
    stimulus : (1, time, feature)
        As for `oddball_sequence`; every tone has the role "control".

    References
    ----------
    Ruhnau, Herrmann & Schröger (2012), Clinical Neurophysiology 123:507-512

    Examples
    --------
    >>> cascade_sequence(12, direction=-1).tone.values[::10]
    array([9, 8, 7, 6, 5, 4, 3, 2, 1, 0, 9, 8])
    """
    where, scale = "cascade_sequence", ToneScale() if scale is None else scale
    n = check_integer(where, "n", n, low=2)
    if direction not in (1, -1):
        found, advice = f"direction {direction!r}", "1 rises, -1 falls."
        raise ValueError(refusal(where, found, "1 or -1", advice))
    rising = np.arange(n) % scale.n_tones
    tone = rising if direction == 1 else scale.n_tones - 1 - rising
    return scale.play(tone, np.full(n, "control"), condition="cascade", direction=direction)


def many_standards_sequence(
    n: int = 400, *, seed: int = 0, scale: ToneScale | None = None
) -> xr.DataArray:
    """Play the tones of the scale equally often in random order, none twice in a row.

    Parameters
    ----------
    n
        Tones in the sequence, a multiple of the tones of the scale.
    seed
        Of the generator.
    scale
        By default ten half octaves from 1000 Hz.

    Returns
    -------
    stimulus : (1, time, feature)
        As for `oddball_sequence`; every tone has the role "control".

    Raises
    ------
    ValueError
        If the tones cannot come equally often.

    References
    ----------
    Schröger & Wolff (1996), NeuroReport 7:3005-3008

    Examples
    --------
    >>> tone = many_standards_sequence(30, seed=2).tone.values[::10]
    >>> np.bincount(tone), bool((tone[1:] == tone[:-1]).any())
    (array([3, 3, 3, 3, 3, 3, 3, 3, 3, 3]), False)
    """
    where, scale = "many_standards_sequence", ToneScale() if scale is None else scale
    n = check_integer(where, "n", n, low=2)
    if n % scale.n_tones:
        found, expected = f"{n} tones", f"a multiple of the {scale.n_tones} on the scale"
        raise ValueError(refusal(where, found, expected, "Change n."))
    rng = np.random.default_rng(check_integer(where, "seed", seed))
    tone = np.empty(0, dtype=np.int64)
    for _ in range(n // scale.n_tones):
        order = rng.permutation(scale.n_tones)
        # Rounds in random order, turned by one where two rounds would meet in the same tone.
        repeats = tone.size > 0 and order[0] == tone[-1]
        tone = np.append(tone, np.roll(order, -1) if repeats else order)
    role = np.full(n, "control")
    return scale.play(tone, role, condition="many_standards", seed=seed)


def _on_scale(where: str, name: str, tone: Any, scale: ToneScale) -> None:
    if check_integer(where, name, tone) >= scale.n_tones:
        found, expected = f"{name} {tone}", f"a tone from 0 to {scale.n_tones - 1}"
        raise ValueError(refusal(where, found, expected, "Choose a tone of the scale."))
