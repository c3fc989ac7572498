"""Photographs that glide past at a steady velocity and jump now and then."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from pcsim.messages import check_integer, check_number
from pcsim.stimuli.eye import reflected
from pcsim.stimuli.field import Field
from pcsim.stimuli.natural import prepared_photographs
from pcsim.stimuli.sequences import MARGIN, moving_views

__all__ = ["gliding_path", "gliding_photographs"]

Floats = NDArray[np.floating[Any]]


def gliding_photographs(
    field_shape: tuple[int, int],
    *,
    n: int,
    n_frames: int,
    frame_duration: float = 0.05,
    seed: int = 0,
    images: Any = None,
    speed: float = 2.5,
    jump_rate: float = 2.0,
    px_per_deg: float = 16.0,
    condition: Any = "gliding",
) -> xr.DataArray:
    """Show photographs that move past, each trial one, from a random place.

    What an eye sees that pursues something across a scene, or rests, and makes saccades. Between
    pixels the photograph is interpolated by a cubic spline. Trial i depends on `seed` and i alone.

    Parameters
    ----------
    field_shape
        Rows and columns; a pixel of the photograph is a pixel of the field.
    n, n_frames
        Trials, and frames of each.
    frame_duration
        Seconds.
    seed
        Of the generator.
    images
        As for `natural_patches`.
    speed, jump_rate
        As for `gliding_path`.
    px_per_deg
        Pixels per degree.
    condition
        Name of the condition.

    Returns
    -------
    stimulus : (trial, time, y, x)
        On `trial`: `image`, `start_row` and `start_column` of the first frame's upper left corner,
        `n_jumps`, `seed`.

    Raises
    ------
    ValueError
        If a photograph is not at least four pixels larger than the field.

    Examples
    --------
    >>> clips = gliding_photographs((8, 8), n=2, n_frames=5, images="camera", seed=3)
    >>> clips.shape, clips.time.values.round(2)
    ((2, 5, 8, 8), array([0.  , 0.05, 0.1 , 0.15, 0.2 ]))
    """
    where = "gliding_photographs"
    field = Field.check(where, field_shape, px_per_deg)
    n, n_frames = (check_integer(where, *p, low=1) for p in (("n", n), ("n_frames", n_frames)))
    seed = check_integer(where, "seed", seed)
    frame_duration = check_number(where, "frame_duration", frame_duration, positive=True)
    larger = (field.shape[0] + 2 * MARGIN, field.shape[1] + 2 * MARGIN)
    prepared = prepared_photographs(where, larger, images, "luminance", 0.5)

    def path(rng: np.random.Generator, room: Any) -> tuple[Floats, NDArray[np.bool_]]:
        return gliding_path(
            n_frames, rng=rng, frame_duration=frame_duration, room=room, speed=speed,
            jump_rate=jump_rate,
        )  # fmt: skip

    values, columns = moving_views(
        prepared, field, path, n=n, n_frames=n_frames, seed=seed, jumps="n_jumps"
    )
    # A spline overshoots at sharp edges.
    values = np.clip(values, 0.0, 1.0)
    return field.stimulus(
        values, frame_duration=frame_duration, condition=condition, seed=seed, **columns
    )


def gliding_path(
    n_frames: int,
    *,
    rng: np.random.Generator,
    frame_duration: float,
    room: Any,
    speed: float,
    jump_rate: float,
) -> tuple[Floats, NDArray[np.bool_]]:
    """Draw a path over a rectangle: straight at a steady speed, then a jump to any other place.

    Parameters
    ----------
    n_frames
        How many.
    rng
        Where the randomness comes from.
    frame_duration
        Seconds.
    room : (2,)
        Height and width of the rectangle, degrees; its borders reflect the path.
    speed
        Degrees a second: each stretch draws its own between 0 and this, and any direction.
    jump_rate
        Hertz; two jumps within a frame are one.

    Returns
    -------
    path : (n_frames, 2)
        Degrees below and right of the upper left corner of the rectangle.
    jumped : (n_frames,)
        Whether a jump led to the frame.

    Examples
    --------
    >>> rng = np.random.default_rng(2)
    >>> path, jumped = gliding_path(
    ...     5, rng=rng, frame_duration=0.1, room=(9.0, 9.0), speed=2.0, jump_rate=0.0)
    >>> step = np.hypot(*np.diff(path, axis=0).T)
    >>> bool(np.ptp(step) < 1e-12 and step.max() <= 0.2), bool(jumped.any())
    (True, False)
    """
    jumped = np.append(False, rng.poisson(jump_rate * frame_duration, n_frames - 1) > 0)
    stretch = np.cumsum(jumped)
    first = np.flatnonzero(np.append(True, jumped[1:]))
    shape = (first.size, 2)
    start = rng.uniform(0.0, 1.0, shape) * np.maximum(room, 0.0)
    pace, angle = rng.uniform(0.0, speed, shape[0]), rng.uniform(0.0, 2.0 * np.pi, shape[0])
    velocity = pace[:, None] * np.stack([np.sin(angle), np.cos(angle)], axis=1)
    since = frame_duration * (np.arange(n_frames) - first[stretch])
    free = start[stretch] + since[:, None] * velocity[stretch]
    return reflected(free, np.maximum(room, 0.0)), jumped
