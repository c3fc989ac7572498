"""Bursts on signals whose onsets are known, and Poisson regression on counts whose law is known."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import minimize

from pcsim.measures import (
    bits_per_spike,
    burst_latencies,
    burst_onsets,
    compare_rdms,
    cross_validated_bits,
    lagged,
    log_slope,
    poisson_ridge,
    pseudovalues,
    rdm_matrix,
    rdm_vector,
    spectral_peak,
)


def test_onsets_of_a_sine_are_its_rising_zeros():
    t = np.arange(0.0, 8.0, 0.01)
    found = burst_onsets(3.0 + 0.7 * np.sin(2 * np.pi * (t - 0.3) / 1.7), 0.01)
    # The middle of the 5th and 95th percentiles of whole cycles is the mean.
    np.testing.assert_allclose(found, 0.3 + 1.7 * np.arange(5), atol=0.02)
    assert burst_onsets(np.full(50, 4.0), 0.01).size == 0


def test_a_ripple_on_a_burst_is_no_second_onset():
    t = np.arange(0.0, 10.0, 0.01)
    square = ((t % 2.0) > 1.0) * 1.0
    ripple = square * (1.0 - 0.4 * (np.sin(40.0 * t) > 0))
    assert burst_onsets(ripple, 0.01).size == burst_onsets(square, 0.01).size == 5


def test_latencies_take_the_first_burst_and_leave_silent_cycles_out():
    period, latency = burst_latencies([0.0, 2.0, 5.0, 6.0], [0.5, 0.7, 5.25, 7.0])
    np.testing.assert_allclose(period, [2.0, 1.0])
    np.testing.assert_allclose(latency, [0.5, 0.25])
    assert burst_latencies([1.0], [2.0])[0].size == 0


def test_slope_over_ln_period():
    period = np.array([0.6, 1.1, 2.3, 3.0])
    # A latency of d has phases d / T; ln d / T falls by 1 an e-fold.
    assert log_slope(period, np.log(0.4 / period)) == pytest.approx(-1.0, abs=1e-12)
    assert log_slope(period, np.full(4, 0.7)) == pytest.approx(0.0, abs=1e-12)


def test_peak_of_the_spectrum_of_a_line_in_white_noise(rng):
    step, n, amplitude = 0.04, 40_000, 0.7
    t = step * np.arange(n)
    noise = rng.standard_normal((n, 2))
    found, ratio = spectral_peak(
        noise + amplitude * np.sin(2 * np.pi * 0.75 * t)[:, None], step, segment=12.0, band=(0.1, 6)
    )
    assert found == pytest.approx(0.75, abs=1 / 12.0)
    # By a Hann window a line of amplitude a has density a^2 T / 3; unit noise has 2 dt.
    assert ratio == pytest.approx(1.0 + amplitude**2 * 12.0 / 3.0 / (2 * step), rel=0.1)
    assert spectral_peak(noise, step, segment=12.0, band=(0.1, 6))[1] < 2.0
    assert spectral_peak(np.ones((500, 1)), step, segment=12.0, band=(0.1, 6))[1] == 0.0


def test_bursts_are_refused_with_what_to_do(refused):
    assert "ascending" in refused(burst_latencies, [2.0, 1.0], [1.5])
    assert "one period" in refused(log_slope, [1.0, 1.0], [0.2, 0.3])
    assert "segments of 300" in refused(
        spectral_peak, np.ones((100, 1)), 0.04, segment=12.0, band=(0.1, 6.0)
    )


def test_lags_are_weighted_by_cosines_that_add_up_to_one(rng):
    signal = rng.standard_normal((40, 2))
    features = lagged(signal, 7, 3).reshape(40, 2, 3)
    past = np.stack([np.r_[np.zeros(k), signal[: 40 - k, 1]] for k in range(7)])
    np.testing.assert_allclose(features[:, 1].sum(axis=1), past.sum(axis=0), atol=1e-12)
    peak = 0.5 * (1 + np.cos(np.pi * np.arange(-2, 3) / 3))
    np.testing.assert_allclose(features[:, 1, 1], peak @ past[1:6], atol=1e-12)
    np.testing.assert_allclose(lagged(signal, 7, 7).reshape(40, 2, 7)[:, 1].T, past, atol=1e-12)


def test_poisson_regression_is_at_the_minimum_of_its_objective(rng):
    x = rng.standard_normal((300, 3))
    y = rng.poisson(np.exp(0.3 + x @ [0.7, -0.4, 0.0])).astype(float)
    penalty = 4.0

    def objective(w):
        eta = w[0] + x @ w[1:]
        return (np.exp(eta) - y * eta).sum() + 0.5 * penalty * (w[1:] ** 2).sum()

    expected = minimize(objective, np.zeros(4), method="BFGS", options={"gtol": 1e-8}).x
    np.testing.assert_allclose(poisson_ridge(x, y, penalty=penalty), expected, atol=1e-5)
    start = np.array([2.0, 1.0, -3.0, 0.5])
    again = poisson_ridge(x, y, penalty=penalty, start=start)
    np.testing.assert_allclose(again, expected, atol=1e-5)


def test_bits_of_a_known_code():
    # Bins of two kinds with rates p and q say, in expectation, the divergence from their mean.
    p, q = 0.7, 4.0
    count = np.array([p, q] * 500)
    mean = 0.5 * (p + q)
    expected = (p * np.log2(p / mean) + q * np.log2(q / mean)) / (p + q)
    assert bits_per_spike(count, count, mean) == pytest.approx(expected, abs=1e-12)
    assert bits_per_spike(count, np.full(1000, mean), mean) == pytest.approx(0.0, abs=1e-12)
    assert bits_per_spike([0, 0], [0.4, 0.7], 0.5) == 0.0


def test_cross_validated_bits_find_a_signal_and_nothing_in_noise(rng):
    x = rng.standard_normal((6000, 6))
    rate = 0.4 * np.exp(0.8 * x[:, 0])
    y = rng.poisson(rate).astype(float)
    bits = cross_validated_bits(x, y)
    # In expectation: E[r ln(r / m)] / (m ln 2) = s^2 / (2 ln 2) for a log-normal rate.
    assert bits.mean() == pytest.approx(0.8**2 / (2 * np.log(2)), abs=0.06)
    none = cross_validated_bits(rng.standard_normal((6000, 6)), y)
    assert abs(none.mean()) < 0.01
    # A channel that is constant, and the scale of the others, change nothing.
    other = np.concatenate([x * 7.0, np.full((6000, 1), 3.0)], axis=1)
    np.testing.assert_allclose(cross_validated_bits(other, y), bits, atol=1e-6)


def test_regression_refuses_what_it_cannot_fit(refused):
    assert "a spike" in refused(poisson_ridge, np.ones((3, 1)), np.zeros(3), penalty=1.0)
    assert "as many or fewer" in refused(lagged, np.ones((5, 1)), 3, 4)
    counts = np.r_[np.ones(10), np.zeros(20)]
    assert "fold without spikes" in refused(
        cross_validated_bits, np.ones((30, 1)), counts, n_folds=3
    )


def test_pseudovalues_are_the_jackknife(rng):
    a, b = rng.random((2, 66))
    whole = compare_rdms(a, b).item()
    expected = []
    for left in range(12):
        keep = np.delete(np.arange(12), left)
        part = [rdm_vector(rdm_matrix(v)[np.ix_(keep, keep)]) for v in (a, b)]
        expected.append(12 * whole - 11 * compare_rdms(*part).item())
    np.testing.assert_allclose(pseudovalues(a, b), expected, atol=1e-10)
    np.testing.assert_allclose(pseudovalues(3.0 * a + 4.0, 0.7 * b), expected, atol=1e-10)


def test_pseudovalues_refuse_equal_dissimilarities(refused):
    assert "equal dissimilarities" in refused(pseudovalues, np.ones(66), np.arange(66.0))
