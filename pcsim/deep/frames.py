"""Short films of images that move slowly, for inference that goes on from frame to frame."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

__all__ = ["moving"]


def moving(
    images: NDArray[Any], n_frames: int, *, turn: float = 4.0, drift: float = 0.4, seed: int = 0
) -> NDArray[Any]:
    """Return binary frames of images that turn and drift, as they are in the middle frame.

    A pixel's threshold is drawn once for all frames, so that nothing changes but by movement.

    Parameters
    ----------
    images : (N, y, x)
        Grey values, 0 to 255.
    n_frames
        How many.
    turn, drift
        Degrees and pixels a frame; senses and directions are drawn at random.

    Returns
    -------
    frames : (n_frames, N, y * x)
        Zeros and ones, float32.
    """
    rng = np.random.default_rng(seed)
    threshold = rng.random(images.shape[1:])
    films = []
    for image in images / 255.0:
        sense, heading = rng.choice((-1.0, 1.0)), rng.uniform(0.0, 2.0 * math.pi)
        way = drift * np.array((math.sin(heading), math.cos(heading)))
        film = []
        for t in np.arange(n_frames) - (n_frames - 1) / 2:
            turned = ndimage.rotate(image, sense * turn * t, reshape=False, order=1)
            film.append(ndimage.shift(turned, way * t, order=1) > threshold)
        films.append(film)
    return np.swapaxes(np.array(films, np.float32), 0, 1).reshape(n_frames, len(images), -1)
