r"""Power spectra of responses and of images, their slope and their flatness.

Temporal spectra are one-sided densities by Welch's method with a Hann window: they sum, times the
frequency step, to the variance. Spatial spectra average over rings of equal frequency.
"""

from __future__ import annotations

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from pcsim.messages import check_number, refusal
from pcsim.responses import check_responses

__all__ = ["power_spectrum", "spatial_power_spectrum", "spectral_slope", "spectral_variation"]

Floats = NDArray[np.float64]

MIN_BINS = 4

# A Hann window correlates the power of neighbouring bins by (2/3)^2 and (1/6)^2, which widens the
# standard error of a slope over them by the root of 1 + 2 (4/9 + 1/36).
HANN_INFLATION = float(np.sqrt(1.0 + 2.0 * (4.0 / 9.0 + 1.0 / 36.0)))


def power_spectrum(
    signal: xr.Dataset | xr.DataArray, *, segment: float | None = None
) -> xr.DataArray:
    """Return the temporal power spectrum, averaged over trials.

    Parameters
    ----------
    signal
        Responses, of which `rate` is taken, or any array with dimension `time` at even steps, such
        as the stimulus itself.
    segment
        Length of Welch's segments, seconds, overlapping by half; None: the whole signal at once.

    Returns
    -------
    spectrum : (..., frequency)
        Power per Hz; frequencies in Hz, without 0 as the mean of each segment is taken off.
        Labels of the units stay; `trial`, where there is one, is averaged.

    Raises
    ------
    ValueError
        If times are uneven or a segment holds fewer than 8 samples.

    References
    ----------
    Welch (1967), https://doi.org/10.1109/TAU.1967.1161901

    Examples
    --------
    >>> time = np.arange(1, 129) / 64
    >>> wave = xr.DataArray(3 * np.sin(2 * np.pi * 10 * time), dims="time", coords={"time": time})
    >>> spectrum = power_spectrum(wave)
    >>> spectrum.idxmax("frequency").item(), round(float(spectrum.sum() * 0.5), 3)
    (10.0, 4.5)
    """
    where = "power_spectrum"
    array = check_responses(signal, where)["rate"] if isinstance(signal, xr.Dataset) else signal
    rate, n_samples = _sampling(array, where)
    # Responses from a Zarr file are read only now.
    array = array.compute()
    n_segment = n_samples
    if segment is not None:
        n_segment = round(check_number(where, "segment", segment, positive=True) * rate)
    if not 8 <= n_segment <= n_samples:
        found = f"segments of {n_segment} samples in a signal of {n_samples}"
        advice = f"At {rate:.6g} Hz a segment takes {8 / rate:.6g} to {n_samples / rate:.6g} s."
        raise ValueError(refusal(where, found, f"8 to {n_samples}", advice))
    frequency = np.fft.rfftfreq(n_segment, 1.0 / rate)[1:]
    result: xr.DataArray = xr.apply_ufunc(
        lambda values: _welch(values, rate, n_segment),
        array.astype(np.float64),
        input_core_dims=[["time"]],
        output_core_dims=[["frequency"]],
    )
    result = result.assign_coords(frequency=frequency).rename("power")
    return result.mean("trial") if "trial" in result.dims else result


def _sampling(array: xr.DataArray, where: str) -> tuple[float, int]:
    """Return samples per second and their number."""
    if not isinstance(array, xr.DataArray) or "time" not in array.coords or array["time"].ndim != 1:
        found = f"a {type(array).__name__} without labelled time"
        raise ValueError(refusal(where, found, "responses, or an array with dimension time"))
    time = array["time"].values.astype(np.float64)
    steps = np.diff(time)
    if time.size < 8 or not np.allclose(steps, steps.mean(), rtol=1e-3, atol=0.0):
        span = f" {steps.min():.6g} to {steps.max():.6g} s apart" if steps.size else ""
        found = f"{time.size} times{span}"
        raise ValueError(refusal(where, found, "at least 8 at even steps", "Resample the signal."))
    if not bool(np.isfinite(array).all()):
        raise ValueError(refusal(where, "NaN or infinite values", "finite numbers"))
    return float((time.size - 1) / (time[-1] - time[0])), time.size


def _welch(values: Floats, rate: float, n_segment: int) -> Floats:
    # Here, as below: scipy.signal and scipy.stats are slow to import.
    import scipy.signal

    # scipy's density is scaled so that white noise keeps its variance whatever the window.
    _, power = scipy.signal.welch(
        values, rate, "hann", nperseg=n_segment, detrend="constant", axis=-1
    )
    return np.asarray(power[..., 1:], dtype=np.float64)


def spatial_power_spectrum(
    images: xr.DataArray, *, px_per_deg: float | None = None
) -> xr.DataArray:
    """Return the rotational average of the two-dimensional power spectrum of each image.

    The mean is taken off and Hann windows along both axes keep the edges out. Rings
    are one cycle per image side wide, from 1 to half the pixels of the shorter side.

    Parameters
    ----------
    images : (..., y, x)
        Such as a stimulus; average the result over trials for a mean spectrum.
    px_per_deg
        Pixels per degree; None takes the coordinate of that name, or counts in pixels.

    Returns
    -------
    spectrum : (..., frequency)
        Power per bin of the discrete Fourier transform, in the square of the image's units;
        frequencies in cycles per degree (cycles per pixel where no `px_per_deg` is known).

    Raises
    ------
    ValueError
        If a side has fewer than 8 pixels or values are not finite.

    Examples
    --------
    >>> x = np.arange(32)
    >>> grating = np.tile(np.sin(2 * np.pi * 8 * x / 32), (32, 1))
    >>> spectrum = spatial_power_spectrum(xr.DataArray(grating, dims=("y", "x")), px_per_deg=16.0)
    >>> spectrum.idxmax("frequency").item()
    4.0
    """
    where = "spatial_power_spectrum"
    if not {"y", "x"} <= set(images.dims) or min(images.sizes["y"], images.sizes["x"]) < 8:
        found = f"dims {dict(images.sizes)}"
        raise ValueError(refusal(where, found, "images (..., y, x) of at least 8 x 8 pixels"))
    if not bool(np.isfinite(images).all()):
        raise ValueError(refusal(where, "NaN or infinite values", "finite numbers"))
    if px_per_deg is None:
        px_per_deg = float(images.coords["px_per_deg"]) if "px_per_deg" in images.coords else 1.0
    scale = check_number(where, "px_per_deg", px_per_deg, positive=True)
    result: xr.DataArray = xr.apply_ufunc(
        _rings,
        images.astype(np.float64),
        input_core_dims=[["y", "x"]],
        output_core_dims=[["frequency"]],
    )
    side = min(images.sizes["y"], images.sizes["x"])
    frequency = np.arange(1, result.sizes["frequency"] + 1) / side * scale
    return result.assign_coords(frequency=frequency).rename("power")


def _rings(images: Floats) -> Floats:
    import scipy.signal

    ny, nx = images.shape[-2:]
    window = np.multiply.outer(scipy.signal.windows.hann(ny, sym=False), np.hanning(nx + 1)[:-1])
    # The weighted mean leaves no leakage of the mean into the lowest ring.
    mean = (images * window).sum((-2, -1), keepdims=True) / window.sum()
    spectrum = np.abs(np.fft.fft2((images - mean) * window)) ** 2 / (window**2).sum()
    radius = np.hypot(*np.meshgrid(np.fft.fftfreq(ny), np.fft.fftfreq(nx), indexing="ij"))
    side = min(ny, nx)
    ring = np.rint(radius * side).astype(np.intp)
    rings = [spectrum[..., ring == k].mean(axis=-1) for k in range(1, side // 2 + 1)]
    return np.stack(rings, axis=-1)


def _band(spectrum: xr.DataArray, band: tuple[float, float], where: str) -> xr.DataArray:
    """Return the part of a spectrum inside a band, both ends included."""
    if not isinstance(spectrum, xr.DataArray) or "frequency" not in spectrum.coords:
        found = f"a {type(spectrum).__name__} without labelled frequency"
        raise ValueError(refusal(where, found, "a spectrum", "Make it with power_spectrum."))
    low, high = (check_number(where, "band", end, low=0.0) for end in band)
    frequency = spectrum["frequency"].values
    highest = float(frequency.max())
    if not low < high or high > highest * (1 + 1e-9):
        found = f"a band from {low:.6g} to {high:.6g}"
        expected = f"an increasing one up to the highest frequency, {highest:.6g}"
        raise ValueError(refusal(where, found, expected, "Sample faster, or lower the band."))
    inside = np.flatnonzero((frequency >= low * (1 - 1e-9)) & (frequency <= high * (1 + 1e-9)))
    inside = inside[frequency[inside] > 0]
    if inside.size < MIN_BINS:
        found = f"{inside.size} frequencies from {low:.6g} to {high:.6g}"
        expected = f"at least {MIN_BINS}"
        raise ValueError(refusal(where, found, expected, "Record longer, or widen the band."))
    return spectrum.isel(frequency=inside)


def spectral_slope(
    spectrum: xr.DataArray, *, band: tuple[float, float], level: float = 0.95
) -> xr.Dataset:
    r"""Fit a straight line to log power against log frequency.

    The exponent of :math:`P(f) \propto f^{slope}` by ordinary least squares over the bins in the
    band; the interval is Student's, widened for the correlation that the Hann window brings to
    neighbouring bins.

    Parameters
    ----------
    spectrum : (..., frequency)
    band
        Lowest and highest frequency, both included; at least 4 bins.
    level
        Coverage of the interval.

    Returns
    -------
    dataset
        `slope`, `low`, `high`, without `frequency`.

    Raises
    ------
    ValueError
        If the band exceeds the highest frequency or holds fewer than 4 bins, or power is not
        positive.

    Examples
    --------
    >>> f = np.arange(1.0, 20.0)
    >>> spectrum = xr.DataArray(5 * f**-1.5, dims="frequency", coords={"frequency": f})
    >>> round(spectral_slope(spectrum, band=(2.0, 15.0)).slope.item(), 6)
    -1.5
    """
    where = "spectral_slope"
    level = check_number(where, "level", level, low=1e-6, high=1.0 - 1e-6)
    inside = _band(spectrum, band, where)
    if not bool((inside > 0).all()):
        found = f"power down to {float(inside.min()):.6g}"
        raise ValueError(refusal(where, found, "power above 0", "Drop silent units first."))
    log_frequency = np.log(inside["frequency"].values.astype(np.float64))
    x = xr.DataArray(log_frequency - log_frequency.mean(), dims="frequency")
    y = inside.copy(data=np.log(inside.values))
    y = y - y.mean("frequency")
    spread = float((x**2).sum())
    slope = (x * y).sum("frequency") / spread
    freedom = inside.sizes["frequency"] - 2
    rss = ((y - slope * x) ** 2).sum("frequency")
    error = HANN_INFLATION * (rss / freedom / spread) ** 0.5
    from scipy.stats import t as student

    half = float(student.ppf(0.5 * (1.0 + level), freedom)) * error
    return xr.Dataset({"slope": slope, "low": slope - half, "high": slope + half})


def spectral_variation(spectrum: xr.DataArray, *, band: tuple[float, float]) -> xr.DataArray:
    """Return how far power is from flat over a band: its standard deviation over its mean.

    0 is a flat (white) spectrum. A spectrum from a single segment of noise gives about 1 whatever
    its shape: average over trials, segments or units before.

    Parameters
    ----------
    spectrum : (..., frequency)
    band
        Lowest and highest frequency, both included; at least 4 bins.

    Returns
    -------
    variation
        Without `frequency`; NaN where there is no power.

    Raises
    ------
    ValueError
        If the band exceeds the highest frequency or holds fewer than 4 bins.

    References
    ----------
    Dan, Atick & Reid (1996), https://doi.org/10.1523/JNEUROSCI.16-10-03351.1996

    Examples
    --------
    >>> f = np.arange(1.0, 9.0)
    >>> spectrum = xr.DataArray([2.0, 4.0] * 4, dims="frequency", coords={"frequency": f})
    >>> round(spectral_variation(spectrum, band=(1.0, 8.0)).item(), 4)
    0.3333
    """
    inside = _band(spectrum, band, "spectral_variation")
    mean = inside.mean("frequency")
    variation = inside.std("frequency") / mean.where(mean > 0)
    return variation.rename("spectral_variation")
