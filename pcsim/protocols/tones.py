"""Protocols of tones: who can hear them, and what error units answer to each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from pcsim.circuit import Circuit
from pcsim.messages import refusal
from pcsim.model import Model, lesion
from pcsim.protocols.signals import OUTPUTS
from pcsim.stimuli.tone_sequences import ToneEvents, tone_events
from pcsim.stimulus import stimulus_array

__all__ = ["Listening", "cannot_hear", "listen", "tone_levels"]

Floats = NDArray[np.floating[Any]]


def cannot_hear(model: Model, *, n_levels: int = 1, n_tones: int = 10) -> str:
    """Return why a model cannot be asked about tones, "" if it can.

    Parameters
    ----------
    model
        With ``senses = "tones"`` if it hears.
    n_levels
        Levels with a signal that the question needs.
    n_tones
        Tones of the stimuli.
    """
    if getattr(model, "senses", "images") != "tones":
        return "it hears no tones"
    heard = getattr(model, "n_features", None)
    if heard != n_tones:
        return f"it hears {heard} tones, not {n_tones}"
    levels = tone_levels(model)
    if len(levels) < n_levels:
        return f"it has {len(levels)} of the {n_levels} levels that are compared"
    return ""


def tone_levels(model: Model) -> tuple[int, ...]:
    """Return the levels at which a model of tones has a signal, from the senses up."""
    units = model.run(_silence(model), seed=0)
    roles = [role.removesuffix("_pos").removesuffix("_neg") for role in units["population"].values]
    known = np.isin(roles, _signal(roles))
    return tuple(int(level) for level in np.unique(units["level"].values[known]))


def _silence(model: Any) -> xr.DataArray:
    return stimulus_array(np.zeros((1, 2, int(model.n_features))), frame_duration=0.025)


def _signal(roles: Sequence[str]) -> list[str]:
    """Return the role that is read: the first of `OUTPUTS` that is there."""
    return [role for role in OUTPUTS if role in roles][:1]


@dataclass(frozen=True)
class Listening:
    """What the units of one level did to sequences of equal length, one a trial.

    Parameters
    ----------
    rate : (trial, time, unit)
        Of error units the rate, of units that carry both signs its absolute value.
    time : (time,)
        Ends of the recorded intervals, seconds.
    channel : (unit,)
        Tonotopic channel of each unit.
    events
        The tones of each trial.
    """

    rate: Floats
    time: Floats
    channel: NDArray[np.int_]
    sign: NDArray[np.int_]
    """(unit,) 1 and -1 of signed halves, 0 where a unit carries both signs."""
    events: tuple[ToneEvents, ...]

    def response(self, window: tuple[float, float]) -> list[Floats]:
        """Return for each trial the mean rate (event, unit) in a window after each onset, seconds.

        Raises
        ------
        ValueError
            If the window holds no recorded time.
        """
        out = []
        sums = np.concatenate([np.zeros_like(self.rate[:, :1]), np.cumsum(self.rate, axis=1)], 1)
        for trial, events in enumerate(self.events):
            edges = [
                np.searchsorted(self.time, events.onset + edge + 1e-9, side="right")
                for edge in window
            ]
            count = edges[1] - edges[0]
            if count.size == 0 or count.min() < 1:
                found = f"a window of {window} s without recorded times"
                raise ValueError(refusal("response", found, "at least one", "Widen it."))
            out.append((sums[trial, edges[1]] - sums[trial, edges[0]]) / count[:, None])
        return out

    def by_channel(self, response: Floats, n_channels: int) -> Floats:
        """Return (..., channel): the sum of a response (..., unit) over the units of a channel."""
        belongs = self.channel[:, None] == np.arange(n_channels)
        return np.asarray(response @ belongs.astype(np.float64))


def listen(
    model: Model, sequences: Sequence[xr.DataArray], *, every: float = 0.0125, seed: int = 0
) -> tuple[dict[int, Listening], xr.Dataset]:
    """Play sequences of equal length, one a trial, and return what the signal of each level did.

    Parameters
    ----------
    model
        Of tones.
    sequences
        Each (1, time, feature), from `pcsim.stimuli`.
    every
        Seconds between recorded times.
    seed
        Of the model's noise.

    Returns
    -------
    listening : dict
        Level -> `Listening`.
    responses : xr.Dataset
        The responses of the signal units of all levels to the first sequence.

    Raises
    ------
    ValueError
        If the sequences differ in length.
    """
    lengths = {sequence.sizes["time"] for sequence in sequences}
    if len(lengths) != 1:
        found = f"sequences of {sorted(lengths)} frames"
        raise ValueError(refusal("listen", found, "one length", "Play as many tones in each."))
    stimulus = stimulus_array(
        np.concatenate([sequence.values for sequence in sequences]),
        frame_duration=float(sequences[0]["frame_duration"]),
        condition=[str(sequence["condition"].item()) for sequence in sequences],
    )
    responses = lesion(model, record_dt=every).run(stimulus, seed=seed, record=_names(model))
    roles = responses["population"].values.astype(str)
    bare = np.array([role.removesuffix("_pos").removesuffix("_neg") for role in roles])
    responses = responses.isel(unit=np.isin(bare, _signal(bare.tolist())))
    events = tuple(tone_events(sequence) for sequence in sequences)
    heard = {}
    for level in np.unique(responses["level"].values):
        here = responses.isel(unit=responses["level"].values == level)
        role = here["population"].values.astype(str)
        sign = np.char.endswith(role, "_pos").astype(int) - np.char.endswith(role, "_neg")
        rate = here["rate"].transpose("trial", "time", "unit").to_numpy()
        channel = here["channel"].values.astype(int)
        time = here["time"].values
        heard[int(level)] = Listening(
            np.where(sign == 0, np.abs(rate), rate), time, channel, sign, events
        )
    return heard, responses.isel(trial=[0])


def _names(model: Model) -> list[str] | None:
    """Return the populations to record, None for those of a model that declares none."""
    if not isinstance(model, Circuit):
        return None
    roles = [p.population.removesuffix("_pos").removesuffix("_neg") for p in model.populations]
    known = _signal(roles)
    return [p.name for p, role in zip(model.populations, roles, strict=True) if role in known]
