"""Filters have the frequency, orientation, sum and bandwidth that their parameters say."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.signal
import scipy.stats

from pcsim import filters


def peak(image: np.ndarray) -> tuple[float, float]:
    """Return the frequency to the right and upwards where the spectrum peaks, cycles/pixel."""
    size = 512
    gain = np.abs(np.fft.fft2(image, (size, size)))
    row, column = np.unravel_index(np.argmax(gain), gain.shape)
    frequency = np.fft.fftfreq(size)
    return frequency[column], -frequency[row]


@pytest.mark.parametrize("orientation", [0.0, 0.4, np.pi / 2, 2.5])
@pytest.mark.parametrize("frequency", [0.1, 0.23])
def test_gabor_spectrum_peaks_across_its_stripes(orientation, frequency):
    image = filters.gabor((61, 61), sigma=7.0, frequency=frequency, orientation=orientation)
    right, up = peak(image)
    expected = frequency * np.array([-np.sin(orientation), np.cos(orientation)])
    sign = np.sign(right * expected[0] + up * expected[1])
    assert np.allclose(sign * np.array([right, up]), expected, atol=1.5 / 512)


def test_gabor_lies_where_it_is_put():
    envelope = filters.gabor((41, 31), x=6.0, y=-4.0, sigma=2.0, frequency=0.0)
    row, column = np.unravel_index(np.argmax(envelope), envelope.shape)
    assert (row, column) == (20 + 4, 15 + 6)


def test_gabor_is_longer_along_its_stripes_by_the_aspect():
    envelope = filters.gabor((81, 81), sigma=4.0, frequency=0.0, orientation=0.0, aspect=1.7)
    offset = np.arange(81) - 40
    along = (envelope.sum(axis=0) * offset**2).sum() / envelope.sum()
    across = (envelope.sum(axis=1) * offset**2).sum() / envelope.sum()
    assert np.sqrt(across) == pytest.approx(4.0, rel=1e-3)
    assert np.sqrt(along) == pytest.approx(1.7 * 4.0, rel=1e-3)


def test_odd_gabor_changes_sign_through_its_centre():
    odd = filters.gabor((21, 21), sigma=3.0, frequency=0.1, orientation=0.7, phase=np.pi / 2)
    assert np.allclose(odd, -odd[::-1, ::-1])


def test_gaussian_window_falls_by_the_square_of_distance():
    window = filters.gaussian_window((9, 13), 1.7)
    assert window[4, 6] == 1.0
    assert window[4 + 2, 6 - 3] == pytest.approx(np.exp(-(2**2 + 3**2) / (2 * 1.7**2)))


@pytest.mark.parametrize("frequency", [0.0, 0.05, 0.12])
def test_difference_of_gaussians_has_the_closed_form_gain(frequency):
    kernel = filters.difference_of_gaussians(61, sigma_center=1.3, sigma_surround=4.0, weight=0.7)
    offset = np.arange(61) - 30
    gain = (kernel.sum(axis=0) * np.cos(2 * np.pi * frequency * offset)).sum()

    def gaussian(sigma):
        return np.exp(-2 * (np.pi * sigma * frequency) ** 2)

    assert gain == pytest.approx(gaussian(1.3) - 0.7 * gaussian(4.0), abs=1e-9)


@pytest.mark.parametrize("size", [7, 8, (5, 12)])
def test_difference_of_gaussians_of_weight_one_has_no_mean(size):
    kernel = filters.difference_of_gaussians(size, sigma_center=0.7, sigma_surround=4.0)
    assert abs(kernel.sum()) < 1e-14


def test_gabor_bank_filters_are_balanced_and_can_be_drawn_again(rng):
    bank, parameters = filters.gabor_bank((18, 14), 40, rng=rng)
    assert bank.shape == (40, 18 * 14)
    assert np.allclose(bank.sum(axis=1), 0.0, atol=1e-12)
    assert np.allclose(np.linalg.norm(bank, axis=1), 1.0, atol=1e-12)
    again = np.stack(
        [
            filters.gabor((18, 14), **{name: v[i] for name, v in parameters.items()}).ravel()
            for i in range(40)
        ]
    )
    overlap = (again * bank).sum(axis=1) / np.linalg.norm(again, axis=1)
    # Only the part under the envelope that takes the mean off is missing.
    assert (overlap > 0.7).all()


def test_gabor_bank_draws_frequencies_from_the_stated_law(rng):
    _, parameters = filters.gabor_bank((64, 64), 1500, rng=rng, px_per_deg=16.0)
    octaves = np.log2(parameters["frequency"] * 16.0 / 2.85)
    sigma = np.log2(4.63 / 1.71) / (2 * scipy.stats.norm.ppf(0.75))
    bounds = np.log2(np.array([16.0 / 64, 0.45 * 16.0]) / 2.85) / sigma
    law = scipy.stats.truncnorm(*bounds, scale=sigma)
    assert scipy.stats.kstest(octaves, law.cdf).pvalue > 1e-4


def test_gabor_bank_bandwidth_is_1_4_octaves(rng):
    _, parameters = filters.gabor_bank((16, 16), 3, rng=rng)
    f, sigma = parameters["frequency"], parameters["sigma"]
    half = np.sqrt(2 * np.log(2)) / (2 * np.pi * sigma)
    assert np.allclose(np.log2((f + half) / (f - half)), 1.4)


def test_gabor_bank_stays_below_what_pixels_carry(rng):
    _, parameters = filters.gabor_bank((8, 8), 200, rng=rng, px_per_deg=4.0)
    assert parameters["frequency"].max() < 0.5
    assert parameters["frequency"].min() >= 1 / 8


def test_filter_valid_is_convolution_of_each_image(rng):
    images, kernel = rng.normal(size=(2, 3, 11, 9)), rng.normal(size=(4, 3))
    filtered = filters.filter_valid(images, kernel)
    assert filtered.shape == (2, 3, 8, 7)
    for index in np.ndindex(2, 3):
        expected = scipy.signal.convolve2d(images[index], kernel, mode="valid")
        assert np.allclose(filtered[index], expected, atol=1e-12)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: filters.gabor((0, 4)), "gabor: found shape entry 0"),
        (lambda: filters.gabor((4, 4, 4)), "expected two integers, rows and columns"),
        (lambda: filters.gabor((4, 4), sigma=-1.0), "gabor: found sigma -1"),
        (lambda: filters.gabor((4, 4), frequency=0.7), "expected a number from 0.0 to 0.5"),
        (lambda: filters.gabor((4, 4), phase=np.nan), "gabor: found phase nan"),
        (lambda: filters.gaussian_window((4, 4), 0.0), "gaussian_window: found sigma 0"),
        (
            lambda: filters.difference_of_gaussians(9, sigma_center=3.0, sigma_surround=2.0),
            "Widen the surround",
        ),
        (
            lambda: filters.difference_of_gaussians(8, sigma_center=0.01),
            "expected a centre that covers a pixel",
        ),
        (lambda: filters.filter_valid(np.ones((3, 3)), np.ones((4, 4))), "Shrink it, or pad"),
        (lambda: filters.filter_valid(np.full((3, 3), np.nan), np.ones((2, 2))), "NaN"),
        (
            lambda: filters.gabor_bank((2, 2), 1, rng=np.random.default_rng(0)),
            "expected at least 3 pixels a side",
        ),
        (
            lambda: filters.gabor_bank((8, 8), 1, rng=np.random.default_rng(0), px_per_deg=0.0),
            "gabor_bank: found px_per_deg 0",
        ),
    ],
)
def test_bad_parameters_are_refused(call, words):
    with pytest.raises(ValueError, match=words):
        call()
