"""Movements and the sounds they make: coupled or not, with probes that break the coupling."""

from __future__ import annotations

import numpy as np
import xarray as xr

from pcsim.messages import check_integer, check_number, refusal
from pcsim.stimulus import stimulus_array

__all__ = ["PROBES", "self_sound_sequence"]

PROBES = ("self", "passive", "deviant", "deviant passive", "late", "silent")
"""Movement with its tone; the tone alone; movement with another tone; that tone alone; movement
with its tone later than usual; movement without a tone."""


def self_sound_sequence(
    n_training: int = 40,
    *,
    coupled: bool = True,
    n_tones: int = 5,
    tone: int = 2,
    deviant: int = 4,
    latency: float = 0.1,
    late: float = 0.3,
    n_probes: int = 4,
    seed: int = 0,
) -> xr.DataArray:
    """Play movements with their tone, then probes of every kind in random order.

    Movements and tones last 50 ms, an event comes every 0.7 s.

    Parameters
    ----------
    n_training
        Movements before the probes. Two more come before every probe.
    coupled
        Whether the tone of the training follows the movement at `latency`, or comes at a random
        time before the next.
    n_tones, tone, deviant
        Tones, that which movements make, and another one.
    latency, late
        From the movement to its tone, and to the tone of late probes, seconds.
    n_probes
        Probes of each kind.
    seed
        Of the order and of the random times.

    Returns
    -------
    stimulus : (1, time, feature)
        Features are the movement and the tones. On `time`: `slot` (number of the event, from the
        onset of its tone, or of when it would come, for 50 ms; -1 elsewhere), `tone` (-1 where none
        is played) and `role` ("training" or one of `PROBES`).

    Raises
    ------
    ValueError
        If the tones are one, not on the scale, or later than 0.4 s.

    Examples
    --------
    >>> from pcsim.stimuli import tone_events
    >>> events = tone_events(self_sound_sequence(3, n_probes=1, seed=2))
    >>> int((events.role == "training").sum()), int((events.tone < 0).sum())
    (15, 1)
    """
    where, frame, per_event, during = "self_sound_sequence", 0.025, 28, 2
    n_training = check_integer(where, "n_training", n_training, low=1)
    n_probes = check_integer(where, "n_probes", n_probes, low=1)
    known = [
        check_integer(where, name, one) for name, one in (("tone", tone), ("deviant", deviant))
    ]
    lags = [
        check_number(where, name, one, low=0.0, high=0.4)
        for name, one in (("latency", latency), ("late", late))
    ]
    if known[0] == known[1] or max(known) >= n_tones:
        found = f"tones {known} on a scale of {n_tones}"
        raise ValueError(refusal(where, found, "two tones of the scale", "Change one of them."))
    rng = np.random.default_rng([check_integer(where, "seed", seed), 2018])
    probes = rng.permutation(np.repeat(PROBES, n_probes))
    roles = ["training"] * n_training
    for probe in probes:
        roles += ["training", "training", str(probe)]
    values = np.zeros((len(roles) * per_event, 1 + n_tones))
    slot = np.full(len(values), -1)
    heard, role = slot.copy(), np.full(len(values), "silence", dtype="<U15")
    near, far = (round(lag / frame) for lag in lags)
    for number, name in enumerate(roles):
        start = number * per_event
        lag = far if name == "late" else near
        if name == "training" and not coupled:
            lag = int(rng.integers(per_event - during))
        played = {"silent": -1, "deviant": known[1], "deviant passive": known[1]}.get(
            name, known[0]
        )
        sounding = slice(start + lag, start + lag + during)
        if not name.endswith("passive"):
            values[start : start + during, 0] = 1.0
        if played >= 0:
            values[sounding, 1 + played] = 1.0
        slot[sounding], heard[sounding], role[sounding] = number, played, name
    condition = "coupled" if coupled else "uncoupled"
    stimulus = stimulus_array(values[None], frame_duration=frame, condition=condition, seed=seed)
    return stimulus.assign_coords(slot=("time", slot), tone=("time", heard), role=("time", role))
