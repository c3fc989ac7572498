"""Clips out of a user's video (needs the extra ``video``)."""

from __future__ import annotations

import importlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from pcsim.messages import check_choice, check_integer, check_number, refusal
from pcsim.stimuli.field import Field
from pcsim.stimuli.photographs import luminance_of, preprocess

__all__ = ["video_sequences"]

Floats = NDArray[np.floating[Any]]
Index = NDArray[np.integer[Any]]

# Every eighth pixel along both axes is enough to know the mean and the spread of a video.
THINNED = 8


def video_sequences(
    field_shape: tuple[int, int],
    path: str | os.PathLike[str],
    *,
    n: int,
    n_frames: int,
    seed: int = 0,
    preprocessing: str = "luminance",
    background: float = 0.5,
    px_per_deg: float = 16.0,
    condition: Any = "video",
) -> xr.DataArray:
    """Cut clips out of a video at random places and times.

    The video is decoded twice, once to measure it and once to cut, and never held as a whole.
    Pixels are decoded to luminance as photographs are.

    Parameters
    ----------
    field_shape
        Rows and columns; a pixel of the video is a pixel of the field.
    path
        A file that FFmpeg can read.
    n, n_frames
        Clips, one a trial, and frames of each.
    seed
        Of the generator.
    preprocessing, background
        As for `natural_patches`, with the statistics of the whole video.
    px_per_deg
        Pixels per degree.
    condition
        Name of the condition.

    Returns
    -------
    stimulus : (trial, time, y, x)
        With the video's own frame rate. On `trial`: `video`, `start_frame`, `crop_row`,
        `crop_column`, `preprocessing`, `seed`.

    Raises
    ------
    ModuleNotFoundError
        If the package ``av`` is missing.
    ValueError
        If the file cannot be read, or is shorter or smaller than a clip.

    Examples
    --------
    >>> video_sequences((16, 16), "no_such_video.mp4", n=2, n_frames=8)
    Traceback (most recent call last):
    ValueError: video_sequences: found no file 'no_such_video.mp4', expected a video. ...
    """
    where = "video_sequences"
    field = Field.check(where, field_shape, px_per_deg)
    n, n_frames = (check_integer(where, *p, low=1) for p in (("n", n), ("n_frames", n_frames)))
    rng = np.random.default_rng(check_integer(where, "seed", seed))
    check_choice(where, "preprocessing", preprocessing, ("luminance", "log"))
    background = check_number(where, "background", background, low=0.01, high=0.99)
    path = Path(path)
    if not path.is_file():
        found, advice = f"no file {str(path)!r}", "Check the path."
        raise ValueError(refusal(where, found, "a video", advice))
    reference, size, frame_duration = _measure(path)
    free = np.subtract((len(reference), *size), (n_frames, *field.shape)) + 1
    if (free < 1).any():
        found = f"a video of {len(reference)} frames of {size[0]} x {size[1]} pixels"
        expected = f"at least {n_frames} frames of {field.shape[0]} x {field.shape[1]}"
        raise ValueError(refusal(where, found, expected, "Ask for shorter or smaller clips."))
    start, row, column = (rng.integers(limit, size=n) for limit in free)
    clips = _cut(path, np.empty((n, n_frames, *field.shape)), start, row, column)
    return field.stimulus(
        preprocess(clips, kind=preprocessing, background=background, reference=reference),
        frame_duration=frame_duration,
        condition=condition,
        video=path.name,
        start_frame=start,
        crop_row=row,
        crop_column=column,
        preprocessing=preprocessing,
        seed=seed,
    )


def _measure(path: Path) -> tuple[Floats, tuple[int, int], float]:
    """Return thinned luminance (frame, y, x), rows and columns, and seconds a frame."""
    thinned, size = [], (0, 0)
    for image in _decode(path):
        size = (image.shape[0], image.shape[1])
        thinned.append(image[::THINNED, ::THINNED])
    with _av().open(str(path)) as container:
        rate = container.streams.video[0].average_rate
    if not thinned or not rate:
        found = f"a video {path.name!r} without frames or frame rate"
        raise ValueError(refusal("video_sequences", found, "both", "Convert it with FFmpeg."))
    return np.stack(thinned), size, 1.0 / float(rate)


def _cut(path: Path, clips: Floats, start: Index, row: Index, column: Index) -> Floats:
    """Fill `clips` (trial, time, y, x) as the frames go by."""
    n_frames, ny, nx = clips.shape[1:]
    for now, image in enumerate(_decode(path)):
        for trial in np.flatnonzero((start <= now) & (now < start + n_frames)):
            top, left = row[trial], column[trial]
            clips[trial, now - start[trial]] = image[top : top + ny, left : left + nx]
    return clips


def _decode(path: Path) -> Iterator[Floats]:
    """Yield the luminance of every frame, (y, x) from 0 to 1."""
    av = _av()
    try:
        with av.open(str(path)) as container:
            if not container.streams.video:
                raise ValueError("no video stream")
            for frame in container.decode(video=0):
                yield luminance_of(frame.to_ndarray(format="rgb24") / 255.0)
    except (av.error.FFmpegError, ValueError) as error:
        found = f"a file {path.name!r} that does not decode ({error})"
        advice = "Convert it with FFmpeg."
        raise ValueError(refusal("video_sequences", found, "a video", advice)) from None


def _av() -> Any:
    try:
        return importlib.import_module("av")
    except ModuleNotFoundError:
        found = "no package 'av'"
        advice = "Install it with: pip install 'pcsim[video]'."
        expected = "it for reading video"
        raise ModuleNotFoundError(refusal("video_sequences", found, expected, advice)) from None
