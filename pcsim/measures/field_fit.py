r"""Gabor functions and differences of Gaussians fitted to receptive fields.

Bounded least squares from several starts with analytic Jacobians. Positions are pixels right of and
above the middle of the array, angles radians with 0 for stripes along x: the conventions of
`pcsim.filters`. Goodness of fit is the share of the field's energy,
:math:`R^2 = 1 - \sum (f - \hat f)^2 / \sum f^2`.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from scipy.optimize import least_squares

from pcsim.measures.field_shape import check_field
from pcsim.messages import refusal

__all__ = ["fit_difference_of_gaussians", "fit_gabor"]

Floats = NDArray[np.float64]

GABOR = (
    "x",
    "y",
    "sigma",
    "aspect",
    "frequency",
    "orientation",
    "phase",
    "amplitude",
    "r_squared",
    "n_x",
    "n_y",
)
DIFFERENCE = (
    "x",
    "y",
    "sigma_center",
    "sigma_surround",
    "amplitude",
    "weight",
    "r_squared",
    "at_bound",
)
SIZE_RATIO = (1.1, 12.0)
"""Bounds of the surround's size over the centre's."""


def _fit_maps(
    field: xr.DataArray, fit: Callable[[Floats], Floats], names: tuple[str, ...], where: str
) -> xr.Dataset:
    field = check_field(field, where)
    if min(field.sizes["y"], field.sizes["x"]) < 5:
        found = f"a field of {field.sizes['y']} x {field.sizes['x']} pixels"
        raise ValueError(refusal(where, found, "at least 5 x 5"))

    def apply(maps: Floats) -> Floats:
        flat = maps.reshape(-1, *maps.shape[-2:]).astype(np.float64)
        rows = []
        for one in flat:
            peak = float(np.abs(one).max())
            rows.append(fit(one / peak) if peak > 0 else np.full(len(names), np.nan))
            rows[-1][names.index("amplitude")] *= peak
        return np.stack(rows).reshape(*maps.shape[:-2], len(names))

    fitted = xr.apply_ufunc(
        apply, field, input_core_dims=[["y", "x"]], output_core_dims=[["fitted"]]
    )
    return xr.Dataset({name: fitted.isel(fitted=i) for i, name in enumerate(names)})


def _pixels(shape: tuple[int, ...]) -> tuple[Floats, Floats]:
    """Offsets from the middle, right and up, one entry a pixel."""
    up, right = np.meshgrid(
        0.5 * (shape[0] - 1) - np.arange(shape[0]),
        np.arange(shape[1]) - 0.5 * (shape[1] - 1),
        indexing="ij",
    )
    return right.ravel(), up.ravel()


def fit_gabor(field: xr.DataArray) -> xr.Dataset:
    r"""Fit a Gabor function to each receptive field.

    .. math:: A \exp\left(-\frac{(u/a)^2 + v^2}{2\sigma^2}\right)\cos(2\pi f v + \varphi)

    with u along and v across the stripes. Starts: the four highest peaks of the amplitude spectrum,
    two widths each; the other parameters come from the field's energy.

    Parameters
    ----------
    field : (..., y, x)
        At least 5 x 5 pixels.

    Returns
    -------
    fit
        `x`, `y`, `sigma` (pixels), `aspect`, `frequency` (cycles per pixel, 0 to 0.5),
        `orientation` (0 to pi), `phase` (0 to 2 pi), `amplitude` (above 0), `r_squared`, and
        Ringach's widths in periods, across the stripes `n_x` = sigma f and along them `n_y` =
        aspect sigma f. NaN for a field of zeros.

    References
    ----------
    Ringach (2002), https://doi.org/10.1152/jn.2002.88.1.455

    Examples
    --------
    >>> from pcsim.filters import gabor
    >>> kernel = gabor((16, 16), x=1.2, sigma=2.2, frequency=0.14, orientation=0.7, phase=1.1)
    >>> fit = fit_gabor(xr.DataArray(3.0 * kernel, dims=("y", "x")))
    >>> [round(fit[name].item(), 3) for name in ("x", "sigma", "orientation", "phase", "n_x")]
    [1.2, 2.2, 0.7, 1.1, 0.308]
    """
    return _fit_maps(field, _fit_one_gabor, GABOR, "fit_gabor")


def _fit_one_gabor(one: Floats) -> Floats:
    right, up = _pixels(one.shape)
    target = one.ravel()
    size = float(max(one.shape))
    # Parameters: x, y, log sigma across, log sigma along, frequency, orientation, cosine, sine.
    low = np.array([right.min(), up.min(), np.log(0.3), np.log(0.3), 0.0, -20.0, -20.0, -20.0])
    high = np.array([right.max(), up.max(), np.log(size), np.log(2 * size), 0.5, 20.0, 20.0, 20.0])
    fits = [
        least_squares(
            lambda p: _gabor(p, right, up)[0] - target,
            np.clip(start, low + 1e-6, high - 1e-6),
            jac=lambda p: _gabor(p, right, up)[1],
            bounds=(low, high),
            max_nfev=100,
        )
        for start in _gabor_starts(one, right, up)
    ]
    best = min(fits, key=lambda fit: float(fit.cost))
    return _gabor_row(best.x, 1.0 - 2.0 * float(best.cost) / float((target**2).sum()))


def _gabor(p: Floats, right: Floats, up: Floats) -> tuple[Floats, Floats]:
    """Return the function and its derivatives, (pixel,) and (pixel, 8)."""
    x, y, log_across, log_along, frequency, orientation, cosine, sine = p
    across2, along2 = np.exp(-2.0 * log_across), np.exp(-2.0 * log_along)
    c, s = np.cos(orientation), np.sin(orientation)
    u = (right - x) * c + (up - y) * s
    v = (up - y) * c - (right - x) * s
    envelope = np.exp(-np.minimum(0.5 * (u**2 * along2 + v**2 * across2), 300.0))
    k = 2.0 * np.pi * frequency
    even, odd = envelope * np.cos(k * v), envelope * np.sin(k * v)
    value = cosine * even + sine * odd
    slope = sine * even - cosine * odd
    by_u = -u * along2 * value
    by_v = -v * across2 * value + k * slope
    jacobian = [
        -c * by_u + s * by_v,
        -s * by_u - c * by_v,
        v**2 * across2 * value,
        u**2 * along2 * value,
        2.0 * np.pi * v * slope,
        v * by_u - u * by_v,
        even,
        odd,
    ]
    return value, np.stack(jacobian, axis=1)


def _gabor_starts(one: Floats, right: Floats, up: Floats) -> list[Floats]:
    energy = np.abs(one).ravel() ** 2
    energy = energy / energy.sum()
    x, y = float(energy @ right), float(energy @ up)
    spread = float(np.sqrt(0.5 * (energy @ ((right - x) ** 2 + (up - y) ** 2))))
    # The energy of a Gaussian of width sigma has width sigma / sqrt(2).
    width = float(np.clip(np.sqrt(2.0) * spread, 0.6, 0.5 * max(one.shape)))
    starts = []
    for frequency, orientation in _spectral_peaks(one):
        for scale in (1.0, 0.5):
            sigma = np.log(scale * width)
            p = np.array([x, y, sigma, sigma, frequency, orientation, 1.0, 0.0])
            basis = _gabor(p, right, up)[1][:, 6:]
            p[6:] = np.clip(np.linalg.lstsq(basis, one.ravel(), rcond=None)[0], -15.0, 15.0)
            starts.append(p)
    return starts


def _spectral_peaks(one: Floats, n: int = 4) -> list[tuple[float, float]]:
    """Return frequency and orientation of the highest peaks of the padded amplitude spectrum."""
    size = 2 * max(one.shape)
    spectrum = np.abs(np.fft.fft2(one, (size, size)))
    grid = np.fft.fftfreq(size)
    # Rows run downwards, so the frequency along them counts upwards with the opposite sign.
    fy, fx = np.meshgrid(-grid, grid, indexing="ij")
    half = (fy > 0) | ((fy == 0) & (fx >= 0))
    spectrum = np.where(half & (np.hypot(fx, fy) <= 0.5), spectrum, 0.0)
    peaks = []
    for _ in range(n):
        row, column = np.unravel_index(int(np.argmax(spectrum)), spectrum.shape)
        if spectrum[row, column] <= 0.0:
            break
        a, b = float(fx[row, column]), float(fy[row, column])
        # v = -right sin + up cos carries the wave: (fx, fy) = f (-sin, cos).
        peaks.append((float(np.hypot(a, b)), float(np.arctan2(-a, b))))
        near = np.minimum(np.hypot(fx - a, fy - b), np.hypot(fx + a, fy + b)) < 2.5 / size
        spectrum = np.where(near, 0.0, spectrum)
    return peaks


def _gabor_row(p: Floats, r_squared: float) -> Floats:
    x, y, log_across, log_along, frequency, orientation, cosine, sine = p
    sigma, aspect = float(np.exp(log_across)), float(np.exp(log_along - log_across))
    phase = np.arctan2(-sine, cosine)
    # Turning the stripes by pi reverses v, which reverses the phase.
    turns = np.floor(orientation / np.pi)
    if turns % 2:
        phase = -phase
    row = [
        x,
        y,
        sigma,
        aspect,
        frequency,
        orientation - turns * np.pi,
        phase % (2.0 * np.pi),
        np.hypot(cosine, sine),
        r_squared,
        sigma * frequency,
        aspect * sigma * frequency,
    ]
    return np.array(row, dtype=np.float64)


def fit_difference_of_gaussians(field: xr.DataArray) -> xr.Dataset:
    r"""Fit a round centre less a round surround to each receptive field.

    .. math:: A\left[\frac{e^{-r^2/2\sigma_c^2}}{2\pi\sigma_c^2}
        - w\,\frac{e^{-r^2/2\sigma_s^2}}{2\pi\sigma_s^2}\right]

    Bounds: the surround 1.1 to 12 times as wide as the centre, w from 0 to 3. Where the size ratio
    or the weight ends at a bound the sizes mean nothing: `at_bound` is 1.

    Parameters
    ----------
    field : (..., y, x)
        At least 5 x 5 pixels.

    Returns
    -------
    fit
        `x`, `y`, `sigma_center`, `sigma_surround` (pixels), `amplitude` (volume of the centre, of
        either sign), `weight` (volume of the surround over the centre's), `r_squared`, `at_bound`.
        NaN for a field of zeros.

    References
    ----------
    Rodieck (1965), https://doi.org/10.1016/0042-6989(65)90033-7

    Examples
    --------
    >>> from pcsim.filters import difference_of_gaussians
    >>> kernel = difference_of_gaussians(21, sigma_center=1.1, sigma_surround=2.9, weight=0.7)
    >>> fit = fit_difference_of_gaussians(xr.DataArray(-2.0 * kernel, dims=("y", "x")))
    >>> [round(fit[n].item(), 2) for n in ("amplitude", "sigma_center", "sigma_surround", "weight")]
    [-2.0, 1.1, 2.9, 0.7]
    """
    return _fit_maps(field, _fit_one_difference, DIFFERENCE, "fit_difference_of_gaussians")


def _fit_one_difference(one: Floats) -> Floats:
    right, up = _pixels(one.shape)
    target = one.ravel()
    size = float(max(one.shape))
    peak = int(np.abs(target).argmax())
    # Parameters: x, y, log sigma of the centre, log size ratio, amplitude, amplitude of surround.
    sign = float(np.sign(target[peak]))
    low = np.array([right.min(), up.min(), np.log(0.25), np.log(SIZE_RATIO[0]), 0.0, 0.0])
    high = np.array([right.max(), up.max(), np.log(size), np.log(SIZE_RATIO[1]), np.inf, 3.0])
    fits = []
    for sigma in (0.7, 1.5, 3.0):
        for ratio in (1.8, 4.0):
            volume = 2.0 * np.pi * sigma**2
            start = [right[peak], up[peak], np.log(sigma), np.log(ratio), volume, 0.6]
            fits.append(
                least_squares(
                    lambda p: sign * _difference(p, right, up)[0] - target,
                    np.clip(start, low + 1e-6, high - 1e-6),
                    jac=lambda p: sign * _difference(p, right, up)[1],
                    bounds=(low, high),
                    max_nfev=100,
                    xtol=1e-10,
                )
            )
    best = min(fits, key=lambda fit: float(fit.cost))
    x, y, log_center, log_ratio, amplitude, weight = best.x
    r_squared = 1.0 - 2.0 * float(best.cost) / float((target**2).sum())
    edge = np.minimum(best.x - low, high - best.x)[[3, 5]]
    center = np.exp(log_center)
    surround = center * np.exp(log_ratio)
    at_bound = float((edge < 1e-3).any())
    return np.array([x, y, center, surround, sign * amplitude, weight, r_squared, at_bound])


def _difference(p: Floats, right: Floats, up: Floats) -> tuple[Floats, Floats]:
    """Return the function and its derivatives, (pixel,) and (pixel, 6)."""
    x, y, log_center, log_ratio, amplitude, weight = p
    center2 = np.exp(-2.0 * log_center)
    surround2 = center2 * np.exp(-2.0 * log_ratio)
    dx, dy = right - x, up - y
    r2 = dx**2 + dy**2
    center = center2 / (2.0 * np.pi) * np.exp(-np.minimum(0.5 * r2 * center2, 300.0))
    surround = surround2 / (2.0 * np.pi) * np.exp(-np.minimum(0.5 * r2 * surround2, 300.0))
    inward = amplitude * (center * center2 - weight * surround * surround2)
    by_center = amplitude * center * (r2 * center2 - 2.0)
    by_surround = -amplitude * weight * surround * (r2 * surround2 - 2.0)
    jacobian = [
        dx * inward,
        dy * inward,
        by_center + by_surround,
        by_surround,
        center - weight * surround,
        -amplitude * surround,
    ]
    return amplitude * (center - weight * surround), np.stack(jacobian, axis=1)
