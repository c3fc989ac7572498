"""Patches of natural images."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from pcsim.messages import check_choice, check_integer, check_number, refusal
from pcsim.stimuli.field import Field
from pcsim.stimuli.photographs import photographs, preprocess

__all__ = ["natural_patches", "prepared_photographs"]

Floats = NDArray[np.floating[Any]]


def natural_patches(
    field_shape: tuple[int, int],
    *,
    n: int,
    seed: int = 0,
    images: Any = None,
    preprocessing: str = "luminance",
    background: float = 0.5,
    frame_duration: float = 0.2,
    px_per_deg: float = 16.0,
    condition: Any = "natural",
) -> xr.DataArray:
    """Cut patches out of photographs, at random places of photographs taken at random.

    Parameters
    ----------
    field_shape
        Rows and columns of a patch; a pixel of the photograph is a pixel of the field.
    n
        How many, one a trial.
    seed
        Of the generator.
    images
        None for the photographs that come with the package, names out of them, a folder of image
        files, or a mapping from names to luminance; see `photographs`.
    preprocessing
        "luminance": linear luminance of mean `background` over each photograph, within 0 to 1.
        "log": log luminance of mean 0 and standard deviation 1 over each photograph. See
        `preprocess`.
    background
        Mean luminance of each photograph.
    frame_duration
        How long each patch is shown, seconds.
    px_per_deg
        Pixels per degree.
    condition
        Name of the condition.

    Returns
    -------
    stimulus : (trial, 1, y, x)
        On `trial`: `image`, `crop_row` and `crop_column` of the patch's upper left pixel,
        `preprocessing`, `seed`.

    Raises
    ------
    ValueError
        If a name is unknown or a photograph is smaller than the field.

    Examples
    --------
    >>> patches = natural_patches((16, 16), n=20, seed=4, images=["camera", "grass"])
    >>> patches.shape, sorted(set(patches.image.values.tolist()))
    ((20, 1, 16, 16), ['camera', 'grass'])
    """
    where = "natural_patches"
    field = Field.check(where, field_shape, px_per_deg)
    n, seed = check_integer(where, "n", n, low=1), check_integer(where, "seed", seed)
    prepared = prepared_photographs(where, field.shape, images, preprocessing, background)
    rng = np.random.default_rng(seed)
    which, row, column = _places(rng, n, prepared, field.shape)
    values = np.empty((n, 1, *field.shape))
    for i, image in enumerate(prepared.values()):
        windows = sliding_window_view(image, field.shape)
        here = which == i
        values[here, 0] = windows[row[here], column[here]]
    return field.stimulus(
        values,
        frame_duration=frame_duration,
        condition=condition,
        image=np.array(list(prepared))[which],
        crop_row=row,
        crop_column=column,
        preprocessing=preprocessing,
        seed=seed,
    )


def prepared_photographs(
    where: str, shape: tuple[int, int], images: Any, preprocessing: str, background: float
) -> dict[str, Floats]:
    """Read photographs, refuse those smaller than the field, and preprocess the rest.

    Examples
    --------
    >>> prepared = prepared_photographs("natural_patches", (8, 8), "camera", "luminance", 0.5)
    >>> round(float(prepared["camera"].mean()), 2)
    0.5
    """
    check_choice(where, "preprocessing", preprocessing, ("luminance", "log"))
    background = check_number(where, "background", background, low=0.01, high=0.99)
    prepared = {}
    for name, luminance in photographs(images).items():
        if np.less(luminance.shape, shape).any():
            found = f"image {name!r} of shape {luminance.shape}"
            advice = "Shrink field_shape or leave that image out."
            raise ValueError(refusal(where, found, f"at least the field's {shape}", advice))
        prepared[name] = preprocess(luminance, kind=preprocessing, background=background)
    return prepared


def _places(
    rng: np.random.Generator, n: int, images: dict[str, Floats], shape: tuple[int, int]
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    which = rng.integers(len(images), size=n)
    free = np.array([np.subtract(image.shape, shape) + 1 for image in images.values()])
    row, column = (rng.integers(free[which, axis]) for axis in (0, 1))
    return which, row, column
