"""Natural image sequences: what an eye sees that drifts and jumps over a photograph."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import scipy.ndimage
import xarray as xr
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from pcsim.messages import check_integer, check_number
from pcsim.stimuli.eye import DIFFUSION, eye_movements
from pcsim.stimuli.field import Field
from pcsim.stimuli.natural import prepared_photographs

__all__ = ["moving_views", "natural_sequences", "sample_between_pixels"]

Floats = NDArray[np.floating[Any]]
Path = Callable[[np.random.Generator, Any], tuple[Floats, NDArray[np.bool_]]]

# The cubic spline reaches one pixel before and two after the pixel that a position falls into.
MARGIN = 2


def natural_sequences(
    field_shape: tuple[int, int],
    *,
    n: int,
    n_frames: int,
    frame_duration: float = 0.02,
    seed: int = 0,
    images: Any = None,
    preprocessing: str = "luminance",
    diffusion: float = DIFFUSION,
    saccade_rate: float = 3.0,
    saccade_amplitude: float = 4.0,
    background: float = 0.5,
    px_per_deg: float = 16.0,
    condition: Any = "natural_sequence",
) -> xr.DataArray:
    """Show what an eye sees that drifts and makes saccades over a photograph.

    Each trial takes a photograph at random and starts at a random place. Between pixels the
    photograph is interpolated by a cubic spline. Trial i depends on `seed` and i alone.

    Parameters
    ----------
    field_shape
        Rows and columns; a pixel of the photograph is a pixel of the field.
    n, n_frames
        Trials, and frames of each.
    frame_duration
        Seconds. The eye moves from frame to frame and rests during one.
    seed
        Of the generator.
    images, preprocessing, background
        As for `natural_patches`.
    diffusion, saccade_rate, saccade_amplitude
        As for `eye_movements`.
    px_per_deg
        Pixels per degree.
    condition
        Name of the condition.

    Returns
    -------
    stimulus : (trial, time, y, x)
        On `trial`: `image`, `start_row` and `start_column` of the first frame's upper left corner,
        `n_saccades`, `diffusion`, `saccade_rate`, `saccade_amplitude`, `preprocessing`, `seed`.

    Raises
    ------
    ValueError
        If a photograph is not at least four pixels larger than the field.

    Examples
    --------
    >>> clips = natural_sequences((8, 8), n=2, n_frames=5, images="camera", seed=3)
    >>> clips.shape, clips.time.values.round(2)
    ((2, 5, 8, 8), array([0.  , 0.02, 0.04, 0.06, 0.08]))
    """
    where = "natural_sequences"
    field = Field.check(where, field_shape, px_per_deg)
    n, n_frames = (check_integer(where, *p, low=1) for p in (("n", n), ("n_frames", n_frames)))
    seed = check_integer(where, "seed", seed)
    frame_duration = check_number(where, "frame_duration", frame_duration, positive=True)
    larger = (field.shape[0] + 2 * MARGIN, field.shape[1] + 2 * MARGIN)
    prepared = prepared_photographs(where, larger, images, preprocessing, background)
    motion = {
        "diffusion": diffusion,
        "saccade_rate": saccade_rate,
        "saccade_amplitude": saccade_amplitude,
    }

    def path(rng: np.random.Generator, room: Any) -> tuple[Floats, NDArray[np.bool_]]:
        return eye_movements(n_frames, rng=rng, frame_duration=frame_duration, room=room, **motion)

    values, columns = moving_views(
        prepared, field, path, n=n, n_frames=n_frames, seed=seed, jumps="n_saccades"
    )
    # A spline overshoots at sharp edges.
    values = np.clip(values, 0.0, 1.0) if preprocessing == "luminance" else values
    settings = {**motion, "preprocessing": preprocessing, "seed": seed, "condition": condition}
    return field.stimulus(values, frame_duration=frame_duration, **columns, **settings)


def moving_views(
    photographs: Mapping[str, Floats],
    field: Field,
    path: Path,
    *,
    n: int,
    n_frames: int,
    seed: int,
    jumps: str,
) -> tuple[Floats, dict[str, Any]]:
    """Move a window over photographs, each trial over one and on a path of its own.

    Parameters
    ----------
    photographs
        Name -> image, at least `MARGIN` pixels larger than the field on every side.
    path
        ``(rng, room) -> (n_frames, 2), (n_frames,)``: places in degrees within `room`, and whether
        a jump led there.
    jumps
        Label of the number of jumps.

    Returns
    -------
    values : (n, n_frames, ny, nx)
    columns
        `image`, `start_row`, `start_column` and the number of jumps of each trial.
    """
    splines = [scipy.ndimage.spline_filter(image, order=3) for image in photographs.values()]
    values, labels = np.empty((n, n_frames, *field.shape)), []
    for trial in range(n):
        rng = np.random.default_rng([seed, trial])
        which = int(rng.integers(len(splines)))
        room = np.subtract(splines[which].shape, np.add(field.shape, 2 * MARGIN))
        places, jumped = path(rng, room / field.px_per_deg)
        corner = MARGIN + places * field.px_per_deg
        values[trial] = sample_between_pixels(splines[which], corner, field.shape)
        labels.append((list(photographs)[which], *corner[0], int(jumped.sum())))
    names = ("image", "start_row", "start_column", jumps)
    return values, dict(zip(names, map(np.array, zip(*labels, strict=True)), strict=True))


def sample_between_pixels(spline: Floats, corner: Floats, shape: tuple[int, int]) -> Floats:
    """Cut windows out of an image at places between its pixels, by a cubic spline.

    Parameters
    ----------
    spline : (rows, columns)
        The coefficients, from ``scipy.ndimage.spline_filter(image, order=3)``.
    corner : (n, 2)
        Row and column of the upper left pixel of each window, not whole. A window and two pixels
        around it must lie within the image.
    shape
        Rows and columns of a window.

    Returns
    -------
    windows : (n, ny, nx)

    Examples
    --------
    >>> ramp = np.tile(np.arange(24.0), (24, 1))
    >>> spline = scipy.ndimage.spline_filter(ramp, order=3)
    >>> sample_between_pixels(spline, np.array([[10.0, 10.25]]), (1, 3)).round(3)
    array([[[10.25, 11.25, 12.25]]])
    """
    ny, nx = shape
    whole = np.floor(corner).astype(np.int64)
    part = corner - whole
    # Position p lies between knots 1 and 2 of the four that start a pixel before it.
    row, column = (whole - 1).T
    blocks = sliding_window_view(spline, (ny + 3, nx + 3))[row, column]
    down, right = _cubic_weights(part[:, 0]), _cubic_weights(part[:, 1])
    rows = sum(down[k][:, None, None] * blocks[:, k : k + ny] for k in range(4))
    windows = sum(right[k][:, None, None] * rows[:, :, k : k + nx] for k in range(4))
    return np.asarray(windows)


def _cubic_weights(part: Floats) -> tuple[Floats, Floats, Floats, Floats]:
    """Return the values of the cubic B-spline at the four knots around each position."""
    rest = 1.0 - part
    inner = [(4.0 - 6.0 * t**2 + 3.0 * t**3) / 6.0 for t in (part, rest)]
    return rest**3 / 6.0, inner[0], inner[1], part**3 / 6.0
