"""Running and optic flow in a virtual corridor: coupled, uncoupled, halted, replayed, at rest.

Features are the running speed and the speed of the flow at some places of the visual field, both
in metres per second of the corridor's wall, frame by frame.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from pcsim.messages import check_choice, check_integer, check_number, refusal
from pcsim.stimuli.field import frames
from pcsim.stimulus import stimulus_array

__all__ = ["add_noise", "optic_flow", "running_speed"]

Floats = NDArray[np.floating[Any]]

CONDITIONS = ("coupled", "uncoupled", "mismatch", "replay", "flow_onset")
MEAN, SPREAD, TAU = 0.10, 0.10, 1.0
"""Of running, before it is cut at 0 (own choice: a mouse that stands a sixth of the time)."""
TAU_EXTERNAL = 0.5
MOVING = 0.02
"""Slowest running, metres per second, during which the flow is halted."""
MOST_DRAWS = 200


def running_speed(
    n: int,
    n_frames: int,
    *,
    frame_duration: float,
    mean: float = MEAN,
    spread: float = SPREAD,
    tau: float = TAU,
    rng: np.random.Generator,
) -> Floats:
    r"""Draw running speeds: an Ornstein-Uhlenbeck process, cut at 0, where the animal stands.

    .. math:: \tau\,dv = (\bar v - v)\,dt + s\sqrt{2\tau}\,dB

    Parameters
    ----------
    n, n_frames
        Number of traces and frames of each; the process is stationary from the first frame.
    frame_duration, tau
        Seconds.
    mean, spread
        Mean and standard deviation before the cut, metres per second.
    rng
        Where the randomness comes from.

    Returns
    -------
    speed : (n, n_frames)

    Examples
    --------
    >>> speed = running_speed(50, 400, frame_duration=0.05, rng=np.random.default_rng(0))
    >>> bool(speed.min() == 0), bool(0.09 < speed.mean() < 0.13)
    (True, True)
    """
    where = "running_speed"
    check_integer(where, "n", n, low=1)
    check_integer(where, "n_frames", n_frames, low=1)
    walk = _walk(
        n,
        n_frames,
        step=check_number(where, "frame_duration", frame_duration, positive=True)
        / check_number(where, "tau", tau, positive=True),
        rng=rng,
    )
    spread = check_number(where, "spread", spread, low=0.0)
    return np.asarray(np.maximum(check_number(where, "mean", mean) + spread * walk, 0.0))


def _walk(n: int, n_frames: int, *, step: float, rng: np.random.Generator) -> Floats:
    """Return stationary Ornstein-Uhlenbeck traces of unit variance, by their exact transition."""
    keep = np.exp(-step)
    values = rng.standard_normal((n, n_frames))
    kick = np.sqrt(-np.expm1(-2.0 * step))
    for frame in range(1, n_frames):
        values[:, frame] = keep * values[:, frame - 1] + kick * values[:, frame]
    return values


def optic_flow(
    n: int,
    *,
    condition: str = "coupled",
    n_locations: int = 8,
    duration: float = 4.0,
    frame_duration: float = 0.02,
    gain: float = 1.0,
    external: float = 0.0,
    onset: float | None = None,
    halt: float = 1.0,
    seed: int = 0,
) -> xr.DataArray:
    """Draw trials of running and optic flow.

    Parameters
    ----------
    n
        Number of trials.
    condition
        "coupled": flow = gain * running + external. "uncoupled": the flow of another animal's
        running. "mismatch": coupled, with the flow halted from `onset` on while the animal runs.
        "replay": the flow of each coupled trial against the running of the next one (open loop).
        "flow_onset": the animal stands, and flow of the mean speed starts at `onset`.
    n_locations
        Places of the visual field.
    duration, frame_duration
        Seconds.
    gain
        Of the corridor, flow per running.
    external
        Standard deviation of flow that things moving by themselves add at each place, m/s.
    onset, halt
        When the flow changes, in the middle if None, and for how long it is halted, seconds.
    seed
        Of the trials.

    Returns
    -------
    stimulus : (trial, time, feature)
        Running speed, then the flow at each place; `onset` on `trial` where the flow changes.

    Raises
    ------
    ValueError
        If the change does not fit into the trial, or no animal runs that long.

    Examples
    --------
    >>> trial = optic_flow(3, condition="mismatch", n_locations=4, duration=3.0, onset=1.0)
    >>> trial.sizes["feature"], float(trial.isel(time=60, feature=slice(1, None)).max())
    (5, 0.0)
    """
    where = "optic_flow"
    check_integer(where, "n", n, low=1)
    n_locations = check_integer(where, "n_locations", n_locations, low=1)
    check_choice(where, "condition", condition, CONDITIONS)
    n_frames, held = frames(where, duration, frame_duration)
    gain = check_number(where, "gain", gain)
    external = check_number(where, "external", external, low=0.0)
    onset = duration / 2 if onset is None else check_number(where, "onset", onset, low=0.0)
    halt = check_number(where, "halt", halt, positive=True)
    changes = condition in ("mismatch", "flow_onset")
    if changes and onset + (halt if condition == "mismatch" else 0.0) > duration + 1e-9:
        found = f"a change of the flow at {onset:g} s in trials of {duration:g} s"
        raise ValueError(refusal(where, found, "one within the trial", "Lengthen the trials."))
    rng = np.random.default_rng([seed, CONDITIONS.index(condition)])
    time = held * np.arange(n_frames)
    changed = (time > onset - 1e-9) & (time < onset + halt - 1e-9)
    running, speed = _speeds(condition, n, time, changed, gain, rng)
    if condition == "flow_onset":
        speed[:, time > onset - 1e-9] = gain * MEAN
    flow = np.repeat(speed[..., None], n_locations, axis=-1)
    if external:
        walks = _walk(n * n_locations, n_frames, step=held / TAU_EXTERNAL, rng=rng)
        flow = flow + external * walks.reshape(n, n_locations, n_frames).swapaxes(1, 2)
    if condition == "mismatch":
        flow[:, changed] = 0.0
    labels: dict[str, Any] = {"onset": onset} if changes else {}
    values = np.concatenate([running[..., None], flow], axis=-1)
    return stimulus_array(values, frame_duration=held, condition=condition, **labels)


def _speeds(
    condition: str, n: int, time: Floats, changed: Any, gain: float, rng: np.random.Generator
) -> tuple[Floats, Floats]:
    """Return running and the flow that all places share, (n, frame) each."""
    held = float(time[1] - time[0]) if time.size > 1 else 1.0
    if condition == "flow_onset":
        return np.zeros((n, time.size)), np.zeros((n, time.size))
    running = running_speed(n, time.size, frame_duration=held, rng=rng)
    if condition == "uncoupled":
        return running, gain * running_speed(n, time.size, frame_duration=held, rng=rng)
    if condition == "replay":
        return running, gain * np.roll(running, 1, axis=0)
    if condition == "mismatch":
        # From half a second before the halt until it ends.
        needed = changed | ((time > time[changed][0] - 0.5) & (time < time[changed][0]))
        for _ in range(MOST_DRAWS):
            still = running[:, needed].min(axis=1) < MOVING
            if not still.any():
                break
            running[still] = running_speed(
                int(still.sum()), time.size, frame_duration=held, rng=rng
            )
        else:
            found = f"no running without a stop for {needed.sum() * held:g} s"
            raise ValueError(refusal("optic_flow", found, "a shorter halt", "Lower halt."))
    return running, gain * running


def add_noise(stimulus: xr.DataArray, n: int, *, seed: int) -> xr.DataArray:
    """Append `n` features of unit white noise, drawn frame by frame from the number of the trial.

    A trial keeps its noise whatever trials it is shown with.

    Parameters
    ----------
    stimulus : (trial, time, feature)
    n
        Number of noisy inputs, one for each unit that has noise of its own.
    seed
        Of the noise.

    Examples
    --------
    >>> noisy = add_noise(optic_flow(2, n_locations=3), 5, seed=1)
    >>> alone = add_noise(optic_flow(2, n_locations=3).isel(trial=[1]), 5, seed=1)
    >>> noisy.sizes["feature"], bool((noisy.isel(trial=[1]) == alone).all())
    (9, True)
    """
    check_integer("add_noise", "n", n, low=0)
    n_frames = stimulus.sizes["time"]
    noise = [
        np.random.default_rng([seed, int(trial), 17]).standard_normal((n_frames, n))
        for trial in stimulus["trial"].values
    ]
    values = np.concatenate([stimulus.to_numpy(), np.stack(noise)], axis=-1)
    return xr.DataArray(values, dims=stimulus.dims, coords=stimulus.coords, name=stimulus.name)
