"""Spectra against Parseval, closed forms and simulated coverage."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.signal
import scipy.stats
import xarray as xr

from pcsim.measures import (
    power_spectrum,
    spatial_power_spectrum,
    spectral_slope,
    spectral_variation,
)
from pcsim.responses import make_responses, stimulus_array


def signal(values, rate=100.0):
    values = np.asarray(values, dtype=float)
    dims = ("unit", "time") if values.ndim == 2 else ("trial", "unit", "time")
    return xr.DataArray(
        values, dims=dims, coords={"time": np.arange(1, values.shape[-1] + 1) / rate}
    )


def test_parseval_for_white_noise(rng):
    noise = rng.normal(0, 1.7, (60, 1024))
    spectrum = power_spectrum(signal(noise))
    step = float(spectrum.frequency[1] - spectrum.frequency[0])
    total = (spectrum * step).sum("frequency")
    # Hann-weighted variance; its expectation is the variance, less what the mean takes.
    weights = scipy.signal.windows.hann(1024, sym=False) ** 2
    centred = noise - noise.mean(axis=1, keepdims=True)
    direct = (centred**2 * weights).sum(axis=1) / weights.sum()
    # The bin at 0 holds a last bit of it.
    np.testing.assert_allclose(total, direct, rtol=0.05)
    assert float(total.mean()) == pytest.approx(1.7**2, rel=4 * np.sqrt(2 * 35 / 18 / 1024 / 60))


def test_power_of_a_sine_and_its_frequency():
    t = np.arange(1, 501) / 100
    spectrum = power_spectrum(signal(3.0 * np.sin(2 * np.pi * 12 * t)[None]))
    assert spectrum.idxmax("frequency").item() == pytest.approx(12.0)
    assert float(spectrum.sum()) * 0.2 == pytest.approx(4.5, rel=1e-9)


def test_segments_average_and_units_stay(rng):
    r = make_responses(
        rng.normal(size=(5, 400, 3)),
        time=0.02 * np.arange(1, 401),
        units={"population": "error", "level": [0, 1, 1]},
        trial={"condition": ["a"] * 5},
    )
    spectrum = power_spectrum(r, segment=2.0)
    assert spectrum.dims == ("unit", "frequency")
    np.testing.assert_allclose(spectrum.frequency, np.arange(1, 51) * 0.5)
    np.testing.assert_array_equal(spectrum.level, [0, 1, 1])
    _, direct = scipy.signal.welch(r.rate.values, 50.0, nperseg=100, axis=1)
    np.testing.assert_allclose(spectrum, direct.mean(0)[1:].T, rtol=1e-10)
    turned = r.isel(trial=rng.permutation(5), unit=rng.permutation(3))
    other = power_spectrum(turned, segment=2.0).sortby("unit")
    np.testing.assert_allclose(other, spectrum, rtol=1e-12)


def test_slope_of_a_random_walk_is_minus_two(rng):
    walk = np.cumsum(rng.normal(size=(200, 2048)), axis=1)
    spectrum = power_spectrum(signal(walk)).mean("unit")
    fit = spectral_slope(spectrum, band=(0.5, 8.0))
    # At 8 of 100 Hz the discrete walk is 4 sin^2(w/2), less steep than w^2 by under 1 %.
    assert fit.slope.item() == pytest.approx(-2.0, abs=0.03)
    assert fit.low < fit.slope < fit.high


def test_slope_of_white_noise_covers_zero_as_often_as_it_says(rng):
    runs = 600
    fit = spectral_slope(power_spectrum(signal(rng.normal(size=(runs, 512)))), band=(3.0, 40.0))
    hits = int(((fit.low < 0) & (fit.high > 0)).sum())
    assert scipy.stats.binomtest(hits, runs, 0.95).pvalue > 0.001


@pytest.mark.parametrize("exponent", [-1.5, 0.7, 0.0])
def test_slope_of_an_exact_power_law(exponent):
    f = np.linspace(1, 30, 59)
    spectrum = xr.DataArray(0.4 * f**exponent, dims="frequency", coords={"frequency": f})
    fit = spectral_slope(spectrum, band=(2.0, 20.0))
    assert fit.slope.item() == pytest.approx(exponent, abs=1e-12)
    assert fit.high.item() == pytest.approx(exponent, abs=1e-7)


def test_slope_agrees_with_linregress(rng):
    f = np.arange(1.0, 40.0)
    power = rng.exponential(1.0, 39)
    spectrum = xr.DataArray(power, dims="frequency", coords={"frequency": f})
    theirs = scipy.stats.linregress(np.log(f), np.log(power))
    fit = spectral_slope(spectrum, band=(1.0, 39.0))
    assert fit.slope.item() == pytest.approx(theirs.slope, rel=1e-9)
    inflation = np.sqrt(1 + 2 * (4 / 9 + 1 / 36))
    half = scipy.stats.t.ppf(0.975, 37) * theirs.stderr * inflation
    assert (fit.high - fit.low).item() == pytest.approx(2 * half, rel=1e-9)


def test_variation_closed_forms(rng):
    f = np.arange(1.0, 31.0)
    flat = xr.DataArray(np.full(30, 0.7), dims="frequency", coords={"frequency": f})
    assert spectral_variation(flat, band=(3.0, 15.0)).item() == pytest.approx(0.0, abs=1e-12)
    falling = flat.copy(data=4.0 / f**2)
    inside = 4.0 / f[2:15] ** 2
    expected = inside.std() / inside.mean()
    assert spectral_variation(falling, band=(3.0, 15.0)).item() == pytest.approx(expected)
    assert np.isnan(spectral_variation(0 * flat, band=(3.0, 15.0)))
    # One periodogram of noise: exponential power, variation near 1; many averaged: near 0.
    spectra = power_spectrum(signal(rng.normal(size=(400, 2048))))
    single = float(spectral_variation(spectra, band=(2.0, 48.0)).mean())
    assert single == pytest.approx(1.0, abs=0.03)
    many = spectral_variation(spectra.mean("unit"), band=(2.0, 48.0)).item()
    assert many == pytest.approx(1 / 20, rel=0.2)


@pytest.mark.parametrize("exponent", [-2.0, -3.0])
def test_spatial_slope_of_synthesised_images(rng, exponent):
    n = 64
    radius = np.hypot(*np.meshgrid(np.fft.fftfreq(n), np.fft.fftfreq(n)))
    radius[0, 0] = 1.0
    noise = np.fft.fft2(rng.normal(size=(80, n, n)))
    gain = radius ** (exponent / 2)
    gain[0, 0] = 0.0
    images = np.fft.ifft2(noise * gain).real
    stack = xr.DataArray(images, dims=("trial", "y", "x"))
    spectrum = spatial_power_spectrum(stack, px_per_deg=16.0).mean("trial")
    np.testing.assert_allclose(spectrum.frequency, np.arange(1, 33) / n * 16.0)
    fit = spectral_slope(spectrum, band=(1.0, 6.0))
    assert fit.slope.item() == pytest.approx(exponent, abs=0.1)


def test_spatial_spectrum_of_white_images_is_their_variance(rng):
    images = xr.DataArray(rng.normal(2.0, 0.7, (300, 24, 32)), dims=("trial", "y", "x"))
    spectrum = spatial_power_spectrum(images).mean("trial")[2:]
    # A ring k holds at least 2 pi k bins, two of which are one number.
    assert abs(float(spectrum.mean()) - 0.49) < 4 * 0.49 * np.sqrt(1 / 300 / 200)
    np.testing.assert_allclose(spectrum, 0.49, rtol=0.12)


def test_spatial_spectrum_takes_pixels_per_degree_from_the_stimulus():
    x = np.arange(32)
    grating = 0.5 + 0.4 * np.tile(np.sin(2 * np.pi * 4 * x / 32), (1, 1, 32, 1))
    shown = stimulus_array(grating, frame_duration=0.1, px_per_deg=8.0)
    assert spatial_power_spectrum(shown).idxmax("frequency").item() == pytest.approx(1.0)


NOISE = signal(np.random.default_rng(3).normal(size=(2, 64)))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: power_spectrum(NOISE.isel(time=[0, 1, 2, 3, 4, 5, 6, 9, 11])), "even steps"),
        (lambda: power_spectrum(NOISE.isel(time=slice(4))), "at least 8"),
        (lambda: power_spectrum(NOISE.drop_vars("time")), "without labelled time"),
        (lambda: power_spectrum(NOISE, segment=9.0), "a segment takes 0.08 to 0.64 s"),
        (lambda: power_spectrum(NOISE.where(NOISE > 0)), "finite numbers"),
        (
            lambda: spectral_slope(power_spectrum(NOISE), band=(3.0, 60.0)),
            "highest frequency, 50. Sample faster",
        ),
        (lambda: spectral_slope(power_spectrum(NOISE), band=(3.0, 6.0)), "at least 4"),
        (lambda: spectral_variation(power_spectrum(NOISE), band=(9.0, 3.0)), "an increasing one"),
        (lambda: spectral_slope(0 * power_spectrum(NOISE), band=(3.0, 30.0)), "above 0"),
        (lambda: spectral_slope(NOISE, band=(3.0, 30.0)), "Make it with power_spectrum"),
        (lambda: spatial_power_spectrum(NOISE), "at least 8 x 8 pixels"),
        (
            lambda: spatial_power_spectrum(xr.DataArray(np.full((9, 9), np.nan), dims=("y", "x"))),
            "finite numbers",
        ),
    ],
)
def test_bad_input_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
