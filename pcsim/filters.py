"""Spatial filters as arrays: Gabors, differences of Gaussians, windows, and valid convolution.

All lengths are pixels and all frequencies cycles per pixel. Positions are offsets from the centre
of the array, x to the right and y upwards, so row 0 is the top. Orientation 0 means stripes that
run along x; angles grow counter-clockwise.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.special
from numpy.typing import NDArray

from pcsim.messages import check_array, check_integer, check_number, refusal

__all__ = [
    "difference_of_gaussians",
    "filter_matrix",
    "filter_valid",
    "gabor",
    "gabor_bank",
    "gaussian_window",
]

Floats = NDArray[np.floating[Any]]

# Spread in octaves of log-normal peak frequencies whose quartiles are 1.71 and 4.63 cycles/degree.
PEAK_FREQUENCY = 2.85
PEAK_FREQUENCY_OCTAVES = float(np.log2(4.63 / 1.71) / (2.0 * scipy.special.ndtri(0.75)))


def gabor(
    shape: tuple[int, int],
    *,
    x: float = 0.0,
    y: float = 0.0,
    sigma: float = 2.0,
    frequency: float = 0.15,
    orientation: float = 0.0,
    phase: float = 0.0,
    aspect: float = 1.0,
) -> Floats:
    r"""Return a Gabor function, a grating under a Gaussian.

    With :math:`u` along the stripes and :math:`v` across them, both from the centre `x`, `y`,

    .. math:: \exp\left(-\frac{(u/a)^2 + v^2}{2\sigma^2}\right) \cos(2\pi f v + \varphi)

    Parameters
    ----------
    shape
        Rows and columns.
    x, y
        Centre, pixels right of and above the middle of the array.
    sigma
        Standard deviation of the Gaussian across the stripes, pixels.
    frequency
        Cycles per pixel, from 0 to 0.5.
    orientation, phase
        Radians. Phase 0 is even (a light stripe in the centre), pi/2 is odd.
    aspect
        Length along the stripes over width across them.

    Returns
    -------
    filter : (ny, nx)
        Not normalised: the peak of the Gaussian is 1.

    Raises
    ------
    ValueError
        If a size is not positive or the frequency is above what pixels can carry.

    Examples
    --------
    >>> even = gabor((9, 9), sigma=1.5, frequency=0.2)
    >>> even.shape, float(even[4, 4]), bool(np.allclose(even, even[:, ::-1]))
    ((9, 9), 1.0, True)
    """
    where = "gabor"
    ny, nx = check_shape(where, "shape", shape)
    sigma = check_number(where, "sigma", sigma, positive=True)
    frequency = check_number(where, "frequency", frequency, low=0.0, high=0.5)
    aspect = check_number(where, "aspect", aspect, positive=True)
    orientation = check_number(where, "orientation", orientation)
    phase = check_number(where, "phase", phase)
    right = _offsets(nx) - check_number(where, "x", x)
    up = -_offsets(ny)[:, None] - check_number(where, "y", y)
    along = right * np.cos(orientation) + up * np.sin(orientation)
    across = up * np.cos(orientation) - right * np.sin(orientation)
    envelope = np.exp(-0.5 * ((along / (aspect * sigma)) ** 2 + (across / sigma) ** 2))
    return np.asarray(envelope * np.cos(2.0 * np.pi * frequency * across + phase))


def check_shape(where: str, name: str, shape: Any) -> tuple[int, int]:
    """Return rows and columns as two integers above 0, or refuse them.

    Examples
    --------
    >>> check_shape("gabor", "shape", (8, 0))
    Traceback (most recent call last):
    ValueError: gabor: found shape entry 0, expected an integer not below 1.
    """
    try:
        entries = tuple(shape)
    except TypeError:
        entries = ()
    if isinstance(shape, str) or len(entries) != 2:
        found, expected = f"{name} {shape!r}", "two integers, rows and columns"
        raise ValueError(refusal(where, found, expected, "Give (ny, nx), as in (16, 16)."))
    rows, columns = (check_integer(where, f"{name} entry", entry, low=1) for entry in entries)
    return rows, columns


def _offsets(n: int) -> Floats:
    return np.arange(n) - 0.5 * (n - 1)


def gaussian_window(shape: tuple[int, int], sigma: float) -> Floats:
    """Return a round Gaussian in the middle of the array, 1 at its peak.

    Parameters
    ----------
    shape
        Rows and columns. An even size puts the peak between pixels.
    sigma
        Standard deviation, pixels.

    Returns
    -------
    window : (ny, nx)

    Examples
    --------
    >>> gaussian_window((3, 3), 1.0).round(3)
    array([[0.368, 0.607, 0.368],
           [0.607, 1.   , 0.607],
           [0.368, 0.607, 0.368]])
    """
    ny, nx = check_shape("gaussian_window", "shape", shape)
    sigma = check_number("gaussian_window", "sigma", sigma, positive=True)
    rows = np.exp(-0.5 * (_offsets(ny) / sigma) ** 2)
    columns = np.exp(-0.5 * (_offsets(nx) / sigma) ** 2)
    return np.asarray(rows[:, None] * columns)


def difference_of_gaussians(
    size: int | tuple[int, int],
    *,
    sigma_center: float = 1.0,
    sigma_surround: float = 3.0,
    weight: float = 1.0,
) -> Floats:
    """Return an on-centre filter: a narrow Gaussian less `weight` times a wide one.

    Parameters
    ----------
    size
        Rows and columns, or one number for a square.
    sigma_center, sigma_surround
        Standard deviations, pixels; the surround is the wider one.
    weight
        Volume of the surround relative to the centre. Both Gaussians sum to 1 on the array before
        they are weighed, so the filter sums to ``1 - weight``: 1 gives exactly zero mean.

    Returns
    -------
    filter : (ny, nx)

    Raises
    ------
    ValueError
        If the surround is not wider than the centre.

    Examples
    --------
    >>> kernel = difference_of_gaussians(11, sigma_center=0.8, sigma_surround=2.0, weight=0.7)
    >>> round(float(kernel.sum()), 12)
    0.3
    """
    where = "difference_of_gaussians"
    shape = (size, size) if isinstance(size, int | np.integer) else size
    shape = check_shape(where, "size", shape)
    sigma_center = check_number(where, "sigma_center", sigma_center, positive=True)
    sigma_surround = check_number(where, "sigma_surround", sigma_surround, positive=True)
    weight = check_number(where, "weight", weight, low=0.0)
    if sigma_surround <= sigma_center:
        found = f"sigma_surround {sigma_surround:.6g} and sigma_center {sigma_center:.6g}"
        advice = "Widen the surround; flip the sign of the filter for an off-centre one."
        raise ValueError(refusal(where, found, "a surround wider than the centre", advice))
    center, surround = (gaussian_window(shape, sigma) for sigma in (sigma_center, sigma_surround))
    # An even size has no pixel at the peak, so a very narrow Gaussian can vanish on the array.
    if center.sum() < np.finfo(np.float64).tiny:
        found = f"sigma_center {sigma_center:.6g}"
        raise ValueError(refusal(where, found, "a centre that covers a pixel", "Widen it."))
    return np.asarray(center / center.sum() - weight * surround / surround.sum())


def gabor_bank(
    shape: tuple[int, int],
    n: int,
    *,
    rng: np.random.Generator,
    px_per_deg: float = 16.0,
    median_frequency: float = PEAK_FREQUENCY,
    spread: float = 0.5,
) -> tuple[Floats, dict[str, Floats]]:
    """Draw Gabor filters like the receptive fields of simple cells.

    Orientation and phase are uniform; the centre is uniform over the middle part `spread` of the
    array. The peak frequency is log-normal with the stated median and the octave spread of macaque
    V1 (quartiles 1.71 and 4.63 cycles/degree around 2.85), cut off below one cycle per array and
    above nine tenths of the pixels' limit. The Gaussian has a bandwidth of 1.4 octaves.

    Parameters
    ----------
    shape, n
        Rows and columns of each filter, and how many.
    rng
        Where the randomness comes from.
    px_per_deg
        Pixels per degree of visual angle.
    median_frequency
        Cycles per degree.
    spread
        From 0 (all centres in the middle) to 1 (anywhere on the array).

    Returns
    -------
    filters : (n, ny * nx)
        Each of zero mean and unit norm.
    parameters : dict of (n,)
        ``x``, ``y``, ``sigma``, ``frequency``, ``orientation``, ``phase``, ``aspect``, in the units
        of `gabor`.

    Raises
    ------
    ValueError
        If the array is too small to hold a cycle below the limit of its pixels.

    References
    ----------
    De Valois, Albrecht & Thorell (1982), Vision Research 22:545-559

    Examples
    --------
    >>> filters, parameters = gabor_bank((12, 12), 5, rng=np.random.default_rng(0))
    >>> filters.shape, bool(np.allclose((filters**2).sum(axis=1), 1.0)), sorted(parameters)[:3]
    ((5, 144), True, ['aspect', 'frequency', 'orientation'])
    """
    where = "gabor_bank"
    ny, nx = check_shape(where, "shape", shape)
    n = check_integer(where, "n", n, low=1)
    px_per_deg = check_number(where, "px_per_deg", px_per_deg, positive=True)
    median = check_number(where, "median_frequency", median_frequency, positive=True) / px_per_deg
    spread = check_number(where, "spread", spread, low=0.0, high=1.0)
    low, high = 1.0 / min(ny, nx), 0.45
    if low >= high:
        found, expected = f"shape {(ny, nx)}", "at least 3 pixels a side"
        raise ValueError(refusal(where, found, expected, "Enlarge the array."))
    frequency = _log_normal_between(n, rng, median, (low, high))
    parameters = {
        "x": spread * nx * rng.uniform(-0.5, 0.5, n),
        "y": spread * ny * rng.uniform(-0.5, 0.5, n),
        "sigma": _sigma_periods(1.4) / frequency,
        "frequency": frequency,
        "orientation": rng.uniform(0.0, np.pi, n),
        "phase": rng.uniform(0.0, 2.0 * np.pi, n),
        "aspect": np.full(n, 1.5),
    }
    rows = [_balanced((ny, nx), {k: float(v[i]) for k, v in parameters.items()}) for i in range(n)]
    return np.stack(rows), parameters


def _log_normal_between(
    n: int, rng: np.random.Generator, median: float, bounds: tuple[float, float]
) -> Floats:
    low, high = scipy.special.ndtr(np.log2(np.divide(bounds, median)) / PEAK_FREQUENCY_OCTAVES)
    octaves = PEAK_FREQUENCY_OCTAVES * scipy.special.ndtri(rng.uniform(low, high, n))
    # The inverse of a probability that rounds to 0 or 1 is infinite: the bounds hold either way.
    return np.asarray(np.clip(median * np.exp2(np.clip(octaves, -60.0, 60.0)), *bounds))


def _sigma_periods(bandwidth: float) -> float:
    """Return sigma times frequency of a Gabor that halves its gain over `bandwidth` octaves."""
    ratio = 2.0**bandwidth
    return float(np.sqrt(np.log(2.0) / 2.0) / np.pi * (ratio + 1.0) / (ratio - 1.0))


def _balanced(shape: tuple[int, int], parameters: dict[str, float]) -> Floats:
    filled = gabor(shape, **parameters)
    envelope = gabor(shape, **{**parameters, "frequency": 0.0, "phase": 0.0})
    # Taking the mean off under the envelope keeps the filter local.
    filled = filled - envelope * (filled.sum() / envelope.sum())
    return np.asarray(filled.ravel() / np.linalg.norm(filled))


def filter_valid(images: Any, kernel: Any) -> Floats:
    """Convolve every image with one kernel, where the kernel fits wholly inside.

    The kernel is turned by 180 degrees, as in any convolution; pass ``kernel[::-1, ::-1]`` for the
    response of a receptive field.

    Parameters
    ----------
    images : (..., ny, nx)
    kernel : (ky, kx)

    Returns
    -------
    filtered : (..., ny - ky + 1, nx - kx + 1)

    Raises
    ------
    ValueError
        If the kernel is larger than the images.

    Examples
    --------
    >>> filter_valid(np.ones((2, 5, 6)), np.full((3, 3), 0.7)).round(6)[0, 0]
    array([6.3, 6.3, 6.3, 6.3])
    """
    where = "filter_valid"
    images = check_array(where, "images", images, shape=(..., "ny", "nx"))
    kernel = check_array(where, "kernel", kernel, shape=("ky", "kx"))
    if 0 in images.shape or 0 in kernel.shape or np.less(images.shape[-2:], kernel.shape).any():
        found = f"a kernel {kernel.shape} for images {images.shape}"
        expected = "a kernel that fits into the images"
        raise ValueError(refusal(where, found, expected, "Shrink it, or pad the images."))
    # Here, because scipy.signal takes longer to import than all the rest of pcsim.
    import scipy.signal

    kernel = kernel.reshape((1,) * (images.ndim - 2) + kernel.shape)
    filtered = scipy.signal.oaconvolve(images, kernel, mode="valid", axes=(-2, -1))
    return np.asarray(filtered, dtype=np.float64)


def filter_matrix(field_shape: tuple[int, int], kernel: Any) -> Floats:
    """Return `filter_valid` of images of one shape as a matrix, for many small images.

    Returns
    -------
    matrix : (ny * nx, (ny - ky + 1) * (nx - kx + 1))
        ``images.reshape(n, -1) @ matrix`` are the filtered images, flattened.

    Examples
    --------
    >>> image = np.arange(12.0).reshape(3, 4)
    >>> kernel = np.array([[0.5, -1.0]])
    >>> filtered = image.ravel() @ filter_matrix((3, 4), kernel)
    >>> bool(np.allclose(filtered, filter_valid(image, kernel).ravel()))
    True
    """
    ny, nx = check_shape("filter_matrix", "field_shape", field_shape)
    units = np.eye(ny * nx).reshape(-1, ny, nx)
    return filter_valid(units, kernel).reshape(ny * nx, -1)
