"""Movements of the eye: Brownian drift and saccades."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from pcsim.messages import check_array, check_integer, check_number

__all__ = ["DIFFUSION", "eye_movements", "reflected"]

Floats = NDArray[np.floating[Any]]

DIFFUSION = 40.0 / 3600.0
"""Diffusion constant of fixational drift, squared degrees a second (40 squared arcminutes)."""


def eye_movements(
    n_frames: int,
    *,
    rng: np.random.Generator,
    frame_duration: float,
    room: Any,
    diffusion: float = DIFFUSION,
    saccade_rate: float = 3.0,
    saccade_amplitude: float = 4.0,
) -> tuple[Floats, NDArray[np.bool_]]:
    """Draw the path of an eye over a rectangle, frame by frame.

    Drift is Brownian: along each axis the displacement over t seconds has variance
    ``2 * diffusion * t``. Saccades come as a Poisson process, in any direction, their size
    exponential; two within a frame are one. The borders reflect both. The path starts anywhere.

    Parameters
    ----------
    n_frames
        How many.
    rng
        Where the randomness comes from.
    frame_duration
        Seconds.
    room : (2,)
        Height and width of the rectangle, degrees.
    diffusion
        Squared degrees a second.
    saccade_rate
        Hertz.
    saccade_amplitude
        Mean size, degrees.

    Returns
    -------
    path : (n_frames, 2)
        Degrees below and right of the upper left corner of the rectangle.
    saccade : (n_frames,)
        Whether a saccade led to the frame.

    References
    ----------
    Kuang, Poletti, Victor & Rucci (2012), Current Biology 22:510-514

    Examples
    --------
    >>> rng = np.random.default_rng(2)
    >>> path, saccade = eye_movements(4, rng=rng, frame_duration=0.02, room=(5.0, 8.0))
    >>> path.shape, bool((path >= 0).all()), saccade.shape
    ((4, 2), True, (4,))
    """
    where = "eye_movements"
    n_frames = check_integer(where, "n_frames", n_frames, low=1)
    dt = check_number(where, "frame_duration", frame_duration, positive=True)
    diffusion = check_number(where, "diffusion", diffusion, low=0.0)
    rate = check_number(where, "saccade_rate", saccade_rate, low=0.0)
    amplitude = check_number(where, "saccade_amplitude", saccade_amplitude, low=0.0)
    room = np.maximum(check_array(where, "room", room, shape=(2,)), 0.0)
    start = rng.uniform(0.0, 1.0, 2) * room
    steps = rng.normal(0.0, np.sqrt(2.0 * diffusion * dt), (n_frames - 1, 2))
    saccade = rng.poisson(rate * dt, n_frames - 1) > 0
    size, angle = rng.exponential(amplitude, n_frames - 1), rng.uniform(0, 2 * np.pi, n_frames - 1)
    jumps = size[:, None] * np.stack([np.sin(angle), np.cos(angle)], axis=1)
    free = np.vstack([start, start + np.cumsum(steps + saccade[:, None] * jumps, axis=0)])
    return reflected(free, room), np.append(False, saccade)


def reflected(free: Floats, room: Floats) -> Floats:
    """Return a free path (n, 2) folded into a rectangle (height, width) between mirrors."""
    # A path between mirrors is the free path seen through a ruler folded at both borders.
    period = np.where(room > 0, 2.0 * room, 1.0)
    return np.where(room > 0, room - np.abs(free % period - room), 0.0)
