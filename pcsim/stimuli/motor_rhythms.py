r"""Rhythms of several channels: the demonstrations from which a policy learns to move.

Channel c bursts once a cycle. Its place in the cycle is set by one of two laws: a constant phase
:math:`\varphi_c`, so that latencies grow with the period T, or a constant latency
:math:`\varphi_c T_{min}` after channel 0, so that phases fall with it.

.. math:: a_c(t) = \exp\{\kappa [\cos 2\pi(\theta(t) - \varphi_c) - 1]\} + \sigma\,\eta_c(t)
    \quad\text{or}\quad \exp\{\kappa [\cos 2\pi\theta(t - \varphi_c T_{min}) - 1]\} + \dots

with cycles :math:`\theta` that advance at 1 / T and diffuse.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from pcsim.messages import check_array, check_choice, check_integer, check_number
from pcsim.stimulus import stimulus_array

__all__ = ["BURST_PHASES", "PERIODS", "bursts", "rhythms", "tonic_period"]

Floats = NDArray[np.float64]
BURST_PHASES = (0.0, 0.15, 0.35, 0.5, 0.65, 0.85)
"""Places of the bursts in the cycle."""
PERIODS = (3.0, 0.6)
"""Seconds, under a tonic input of 0 and of 1; the pyloric rhythm has 0.2 to 1.6 Hz in vivo."""
SHARPNESS = 4.0
"""kappa: a burst stays above half of its peak for a fifth of the cycle."""


def tonic_period(tonic: Any) -> Floats:
    """Return the period that a tonic input stands for, seconds: geometric between the two ends.

    Examples
    --------
    >>> tonic_period([0.0, 0.5, 1.0]).round(3)
    array([3.   , 1.342, 0.6  ])
    """
    slow, fast = PERIODS
    return np.asarray(slow * (fast / slow) ** np.asarray(tonic, dtype=np.float64))


def bursts(cycles: Any, phases: Any = 0.0) -> Floats:
    """Return activity from 0 to 1 at a number of cycles, with the peak at a phase.

    Examples
    --------
    >>> bursts([3.25, 3.5], 0.25).round(4)
    array([1.    , 0.0183])
    """
    angle = 2.0 * np.pi * (np.asarray(cycles) - np.asarray(phases))
    return np.asarray(np.exp(SHARPNESS * (np.cos(angle) - 1.0)))


def rhythms(
    tonic: Any,
    *,
    duration: float,
    frame_duration: float,
    law: str = "phase",
    noise: float = 0.05,
    jitter: float = 0.05,
    changes: Any = (),
    seed: int = 0,
) -> xr.DataArray:
    r"""Return rhythms of six channels, one trial a tonic input.

    Parameters
    ----------
    tonic : (n_trials,)
        From 0 (slow) to 1 (fast): `tonic_period`.
    duration, frame_duration
        Seconds.
    law
        "phase" or "latency": what a channel keeps when the period changes.
    noise
        Standard deviation of each channel from frame to frame.
    jitter
        Standard deviation of the cycle after a period, in cycles: phases diffuse.
    changes : (n_trials, n_changes)
        Seconds at which the cycle jumps by a random half, to between 1/4 and 3/4 of a cycle on;
        the tonic input says nothing about it.
    seed
        Of phases, noise and jumps.

    Returns
    -------
    rhythm : (trial, time, 7)
        The tonic input, and the six channels.

    Examples
    --------
    >>> shown = rhythms([0.0, 1.0], duration=6.0, frame_duration=0.04, seed=1)
    >>> dict(shown.sizes), shown.period.values.round(1).tolist()
    ({'trial': 2, 'time': 150, 'feature': 7}, [3.0, 0.6])
    """
    where = "rhythms"
    check_choice(where, "law", law, ("phase", "latency"))
    tonic = check_array(where, "tonic", tonic, shape=("n_trials",)).astype(np.float64)
    duration = check_number(where, "duration", duration, positive=True)
    step = check_number(where, "frame_duration", frame_duration, positive=True)
    check_integer(where, "seed", seed)
    rng = np.random.default_rng([seed, 40])
    phases = np.array(BURST_PHASES)
    # The longest delay lies before the first frame.
    extra = int(np.ceil(PERIODS[1] / step))
    n = round(duration / step)
    period = tonic_period(tonic)
    advance = step / period[:, None] * np.ones(n + extra)
    advance = advance + jitter * np.sqrt(step / period[:, None]) * rng.standard_normal(
        advance.shape
    )
    moments = np.asarray(changes, dtype=np.float64).reshape(len(tonic), -1)
    for trial, times in enumerate(moments):
        at = extra + np.round(times / step).astype(int)
        advance[trial, at] += rng.uniform(0.25, 0.75, at.size)
    cycles = rng.uniform(size=(len(tonic), 1)) + np.cumsum(advance, axis=1)
    if law == "phase":
        activity = bursts(cycles[:, extra:, None], phases)
    else:
        late = np.round(phases * PERIODS[1] / step).astype(int)
        activity = np.stack(
            [bursts(cycles[:, extra - lag : n + extra - lag]) for lag in late], axis=-1
        )
    activity = activity + noise * rng.standard_normal(activity.shape)
    held = np.broadcast_to(tonic[:, None, None], (*activity.shape[:2], 1))
    return stimulus_array(
        np.concatenate([held, activity], axis=-1), frame_duration=step, condition=f"constant {law}",
        tonic=tonic, period=period,
    )  # fmt: skip
