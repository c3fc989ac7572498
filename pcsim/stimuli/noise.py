"""White noise, Gaussian or binary, and binary m-sequences."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from pcsim.messages import check_choice, check_integer, check_number, refusal
from pcsim.stimuli.field import Field

__all__ = ["m_sequence", "white_noise"]

Floats = NDArray[np.floating[Any]]


def white_noise(
    field_shape: tuple[int, int],
    *,
    n_trials: int = 1,
    n_frames: int = 1,
    contrast: float = 0.3,
    kind: str = "gaussian",
    block: int = 1,
    seed: int = 0,
    background: float = 0.5,
    frame_duration: float = 0.2,
    px_per_deg: float = 16.0,
    condition: Any = "white_noise",
) -> xr.DataArray:
    """Draw noise that is independent over trials, frames and blocks of pixels.

    Parameters
    ----------
    field_shape
        Rows and columns.
    n_trials, n_frames
        Each frame is drawn anew.
    contrast
        Standard deviation over mean (root-mean-square contrast), 0 to 1. For binary noise this is
        the Michelson contrast as well. Gaussian luminance outside 0 to 1 is clipped, which lowers
        the standard deviation by 0.2 % at a contrast of 0.33, 4 % at 0.5 and 28 % at 1.
    kind
        "gaussian" or "binary".
    block
        Side of the squares of equal luminance, pixels. It must divide both sides of the field.
    seed
        Of the generator.
    background
        Mean luminance.
    frame_duration
        Seconds.
    px_per_deg
        Pixels per degree.
    condition
        Name of the condition.

    Returns
    -------
    stimulus : (trial, time, y, x)

    Raises
    ------
    ValueError
        If a parameter is out of range, or `block` does not divide the field.

    Examples
    --------
    >>> noise = white_noise((4, 4), n_trials=2, kind="binary", contrast=0.4, block=2, seed=1)
    >>> noise.shape, np.unique(noise).round(6)
    ((2, 1, 4, 4), array([0.3, 0.7]))
    """
    where = "white_noise"
    field = Field.check(where, field_shape, px_per_deg)
    n_trials = check_integer(where, "n_trials", n_trials, low=1)
    n_frames = check_integer(where, "n_frames", n_frames, low=1)
    contrast = check_number(where, "contrast", contrast, low=0.0, high=1.0)
    background = check_number(where, "background", background, low=0.0, high=1.0)
    block = check_integer(where, "block", block, low=1)
    check_choice(where, "kind", kind, ("gaussian", "binary"))
    if field.shape[0] % block or field.shape[1] % block:
        found = f"block {block} for a field of {field.shape}"
        raise ValueError(refusal(where, found, "a divisor of both sides", "Change one of them."))
    if kind == "binary":
        _must_stay_below_one(where, background, contrast)
    rng = np.random.default_rng(check_integer(where, "seed", seed))
    shape = (n_trials, n_frames, field.shape[0] // block, field.shape[1] // block)
    gaussian = kind == "gaussian"
    noise = rng.standard_normal(shape) if gaussian else 2.0 * rng.integers(0, 2, shape) - 1.0
    noise = noise.repeat(block, axis=-2).repeat(block, axis=-1)
    values = np.clip(background * (1.0 + contrast * noise), 0.0, 1.0)
    labels = {"contrast": contrast, "kind": kind, "block": block, "seed": seed}
    return field.stimulus(values, frame_duration=frame_duration, condition=condition, **labels)


def _must_stay_below_one(where: str, background: float, contrast: float) -> None:
    if background * (1.0 + contrast) > 1.0:
        found = f"contrast {contrast:g} on a background of {background:g}"
        raise ValueError(refusal(where, found, "a luminance up to 1", "Lower one of them."))


def m_sequence(
    field_shape: tuple[int, int],
    *,
    order: int = 15,
    shift: int | None = None,
    contrast: float = 1.0,
    background: float = 0.5,
    frame_duration: float = 1.0 / 64.0,
    px_per_deg: float = 16.0,
    condition: Any = "m_sequence",
) -> xr.DataArray:
    r"""Show a binary m-sequence: noise whose autocorrelation is exactly flat.

    A shift register with a primitive polynomial of degree `order` passes through all
    :math:`N = 2^\mathrm{order} - 1` states but zero. As +-1 its circular autocorrelation is 1 at
    lag 0 and :math:`-1/N` at every other lag. Pixel i, counted along the rows, shows the sequence
    advanced by ``i * shift`` frames, so a response to the last ``shift`` frames of one pixel is
    not mistaken for one to another pixel.

    Parameters
    ----------
    field_shape
        Rows and columns.
    order
        From 3 to 16.
    shift
        Frames between neighbouring pixels; by default as many as there are.
    contrast
        Michelson.
    background
        Mean luminance, up to ``background * contrast / N``: there is one bright frame more.
    frame_duration
        Seconds.
    px_per_deg
        Pixels per degree.
    condition
        Name of the condition.

    Returns
    -------
    stimulus : (1, N, y, x)
        With `order` and `pixel_shift` on `trial`.

    Raises
    ------
    ValueError
        If the sequence is too short for the pixels to have shifts of their own.

    References
    ----------
    Reid, Victor & Shapley (1997), Visual Neuroscience 14:1015-1027

    Examples
    --------
    >>> stimulus = m_sequence((2, 3), order=5)
    >>> stimulus.sizes["time"], int(stimulus.pixel_shift[0]), np.unique(stimulus)
    (31, 5, array([0., 1.]))
    """
    where = "m_sequence"
    field = Field.check(where, field_shape, px_per_deg)
    contrast = check_number(where, "contrast", contrast, low=0.0, high=1.0)
    background = check_number(where, "background", background, low=0.0, high=1.0)
    _must_stay_below_one(where, background, contrast)
    if check_integer(where, "order", order, low=3) > 16:
        raise ValueError(refusal(where, f"order {order}", "an integer from 3 to 16"))
    n_frames, n_pixels = 2**order - 1, field.shape[0] * field.shape[1]
    shift = n_frames // n_pixels if shift is None else check_integer(where, "shift", shift)
    if shift * n_pixels > n_frames or shift < 1:
        found = f"{n_pixels} pixels with shift {shift} in {n_frames} frames"
        expected = "a shift of at least 1 frame and no pixel twice"
        raise ValueError(refusal(where, found, expected, "Raise order, or shrink field or shift."))
    # Here: scipy.signal is slow to import.
    import scipy.signal

    register, _ = scipy.signal.max_len_seq(order)
    frame = np.arange(n_frames)[:, None] + shift * np.arange(n_pixels)
    signs = 2.0 * register[frame % n_frames] - 1.0
    values = background * (1.0 + contrast * signs.reshape(1, n_frames, *field.shape))
    labels = {"contrast": contrast, "order": order, "pixel_shift": shift}
    return field.stimulus(values, frame_duration=frame_duration, condition=condition, **labels)
