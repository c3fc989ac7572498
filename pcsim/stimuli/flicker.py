"""Flicker of a few spatial patterns: environments that differ in their correlations alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from pcsim.messages import check_choice, check_integer, check_number, refusal
from pcsim.stimuli.field import Field

__all__ = ["PATTERNS", "check_patterns", "pattern_amplitudes", "pattern_flicker"]

Floats = NDArray[np.floating[Any]]

PATTERNS = ("uniform", "columns", "rows", "checkerboard")
"""The four patterns of +-1 that repeat every two checks; they are orthogonal."""


def check_patterns(
    field_shape: tuple[int, int], *, check: float = 0.25, px_per_deg: float = 16.0
) -> Floats:
    """Draw the patterns `PATTERNS` with +-1, a corner of four checks in the middle of the field.

    Parameters
    ----------
    field_shape
        Rows and columns.
    check
        Side of a check, degrees; a whole number of pixels.
    px_per_deg
        Pixels per degree.

    Returns
    -------
    patterns : (4, y, x)

    Raises
    ------
    ValueError
        If a check is no whole number of pixels, or the field is smaller than two checks.

    Examples
    --------
    >>> patterns = check_patterns((4, 4), check=0.125)
    >>> patterns[3].astype(int)
    array([[ 1,  1, -1, -1],
           [ 1,  1, -1, -1],
           [-1, -1,  1,  1],
           [-1, -1,  1,  1]])
    """
    where = "check_patterns"
    field = Field.check(where, field_shape, px_per_deg)
    check = check_number(where, "check", check, positive=True)
    side = round(check * field.px_per_deg)
    if side < 1 or abs(side - check * field.px_per_deg) > 1e-6:
        found = f"checks of {check:g} degrees at {field.px_per_deg:g} pixels a degree"
        raise ValueError(refusal(where, found, "a whole number of pixels", "Change check."))
    if min(field.shape) < 2 * side:
        found = f"checks of {side} pixels in a field of {field.shape}"
        raise ValueError(refusal(where, found, "a field of two checks or more", "Shrink check."))
    # Counted from the middle, so that the pattern lies in the same way in fields of any size.
    row, column = (((np.arange(n) - n // 2) // side) % 2 for n in field.shape)
    along = [1.0 - 2.0 * column, 1.0 - 2.0 * row]
    columns = np.broadcast_to(along[0][None, :], field.shape)
    rows = np.broadcast_to(along[1][:, None], field.shape)
    return np.stack([np.ones(field.shape), columns, rows, columns * rows])


def pattern_flicker(
    field_shape: tuple[int, int],
    *,
    pattern: str = "uniform",
    n_trials: int = 1,
    n_frames: int = 100,
    contrast: float = 0.3,
    check: float = 0.25,
    seed: int = 0,
    background: float = 0.5,
    frame_duration: float = 0.03,
    px_per_deg: float = 16.0,
) -> xr.DataArray:
    r"""Flicker one pattern at Gaussian amplitudes, or all four at independent ones.

    .. math:: L = L_0 \bigl(1 + c\, n^{-1/2} \textstyle\sum_{k=1}^n z_k(t)\, p_k\bigr)

    Every :math:`z_k` has mean 0 and variance 1 over the frames of each trial, so all patterns, and
    "white" flicker of all of them, give each pixel the same mean and the same variance.
    Luminance outside 0 to 1 is clipped (0.1 % of the frames at a contrast of 0.3).

    Parameters
    ----------
    field_shape
        Rows and columns.
    pattern
        One of `PATTERNS`, or "white" for all four at once, n = 4.
    n_trials, n_frames
        Amplitudes are drawn anew for each frame; two or more frames. The same seed gives all single
        patterns the same amplitudes.
    contrast
        Standard deviation over mean of a pixel.
    check
        Side of a check, degrees.
    seed
        Of the generator.
    background
        Mean luminance.
    frame_duration
        Seconds.
    px_per_deg
        Pixels per degree.

    Returns
    -------
    stimulus : (trial, time, y, x)
        The condition is the pattern; `contrast`, `check` and `seed` on `trial`.

    Raises
    ------
    ValueError
        If a parameter is out of range.

    References
    ----------
    Hosoya, Baccus & Meister (2005), Nature 436:71-77

    Examples
    --------
    >>> one = pattern_flicker((16, 16), pattern="uniform", n_frames=400)
    >>> other = pattern_flicker((16, 16), pattern="checkerboard", n_frames=400)
    >>> [float(x.std("time").mean().round(2)) for x in (one, other)]
    [0.15, 0.15]
    """
    where = "pattern_flicker"
    check_choice(where, "pattern", pattern, (*PATTERNS, "white"))
    n_trials = check_integer(where, "n_trials", n_trials, low=1)
    n_frames = check_integer(where, "n_frames", n_frames, low=2)
    contrast = check_number(where, "contrast", contrast, low=0.0, high=1.0)
    background = check_number(where, "background", background, low=0.0, high=1.0)
    patterns = check_patterns(field_shape, check=check, px_per_deg=px_per_deg)
    shown = patterns if pattern == "white" else patterns[[PATTERNS.index(pattern)]]
    rng = np.random.default_rng(check_integer(where, "seed", seed))
    z = rng.standard_normal((n_trials, n_frames, len(shown)))
    z = z - z.mean(axis=1, keepdims=True)
    z = z / z.std(axis=1, keepdims=True)
    waves = np.tensordot(z, shown, axes=1) / np.sqrt(len(shown))
    values = np.clip(background * (1.0 + contrast * waves), 0.0, 1.0)
    labels = {"condition": pattern, "contrast": contrast, "check": check, "seed": seed}
    field = Field.check(where, field_shape, px_per_deg)
    return field.stimulus(values, frame_duration=frame_duration, **labels)


def pattern_amplitudes(stimulus: xr.DataArray, *, check: float = 0.25) -> Floats:
    """Return the amplitudes of the four patterns in every frame, relative to mid-grey.

    Parameters
    ----------
    stimulus : (trial, time, y, x)
        Any images.
    check
        Side of a check, degrees.

    Returns
    -------
    amplitudes : (trial, time, 4)
        Least-squares coefficients of `PATTERNS` in luminance / 0.5 - 1.

    Examples
    --------
    >>> shown = pattern_flicker((8, 8), pattern="rows", contrast=0.2, n_frames=2)
    >>> pattern_amplitudes(shown)[0].round(6)
    array([[ 0. ,  0. ,  0.2,  0. ],
           [ 0. ,  0. , -0.2,  0. ]])
    """
    shape = (stimulus.sizes["y"], stimulus.sizes["x"])
    patterns = check_patterns(shape, check=check, px_per_deg=float(stimulus["px_per_deg"]))
    basis = patterns.reshape(len(PATTERNS), -1)
    values = stimulus.transpose("trial", "time", "y", "x").to_numpy()
    relative = values.reshape(*values.shape[:2], -1) / 0.5 - 1.0
    flat = relative.reshape(-1, basis.shape[1])
    amplitudes = np.linalg.solve(basis @ basis.T, basis @ flat.T).T
    return np.asarray(amplitudes.reshape(*values.shape[:2], len(PATTERNS)))
