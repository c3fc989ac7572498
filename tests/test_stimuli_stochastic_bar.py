"""Damped stochastic motion against its theory, and the bar against the positions."""

from __future__ import annotations

import numpy as np
import pytest

from pcsim.measures import gaussian_predictive_information
from pcsim.stimuli import damped_motion, damped_motion_covariance, moving_bars
from pcsim.stimulus import check_stimulus

SLOW = {"damping": 12.0, "frequency": 2.0, "frame_duration": 0.01}


def test_autocovariance_of_drawn_motion(rng):
    n = 4000
    position = damped_motion(n, 40, sigma=0.7, **SLOW, rng=rng)
    expected = damped_motion_covariance(40, sigma=0.7, **SLOW)
    for first in (0, 10):
        found = (position[:, first : first + 1] * position[:, first:]).mean(axis=0)
        # Each product has a standard deviation of at most sqrt(2) sigma^2.
        np.testing.assert_allclose(found, expected[: 40 - first], atol=4 * np.sqrt(2 / n) * 0.7**2)


def test_short_frames_give_the_damped_oscillator():
    """Continuous time: e^(-g t / 2) (cos w t + g / 2w sin w t), with w^2 = omega^2 - g^2 / 4."""
    frame, damping, frequency = 1e-5, 8.0, 2.0
    lags = damped_motion_covariance(
        20_001, damping=damping, frequency=frequency, frame_duration=frame
    )[::5000]
    t = 0.05 * np.arange(5)
    w = np.sqrt((2 * np.pi * frequency) ** 2 - damping**2 / 4)
    theory = np.exp(-damping * t / 2) * (np.cos(w * t) + damping / (2 * w) * np.sin(w * t))
    np.testing.assert_allclose(lags, theory, atol=5e-4)


def test_two_positions_hold_all_of_the_past():
    lags = damped_motion_covariance(24, **SLOW)
    two = gaussian_predictive_information(lags, n_past=2, n_future=2)
    many = gaussian_predictive_information(lags, n_past=9, n_future=9)
    one = gaussian_predictive_information(lags, n_past=1, n_future=9)
    assert many == pytest.approx(two, rel=1e-5)
    assert one < 0.9 * two


def test_bar_is_where_its_position_says(rng):
    position = damped_motion(3, 50, sigma=0.2, rng=rng)
    shown = moving_bars((6, 32), position=position, contrast=-0.6)
    check_stimulus(shown)
    dark = (0.5 - shown).isel(y=2)
    np.testing.assert_allclose(dark.sum("x"), 0.5 * 0.6 * 0.125 * 16, atol=1e-12)
    centre = (dark * shown["x"]).sum("x") / dark.sum("x")
    # Edges are blended, so the centre of mass is off by a fraction of a pixel.
    np.testing.assert_allclose(centre, position, atol=0.25 / 16)
    np.testing.assert_array_equal(shown.isel(y=0), shown.isel(y=5))


def test_bad_motion_is_refused(refused):
    unstable = {"damping": 0.1, "frequency": 5.0, "frame_duration": 0.05}
    assert "Shorten the frames" in refused(damped_motion_covariance, 3, **unstable)
    at = np.zeros((1, 2))
    assert "Lower one" in refused(moving_bars, (4, 8), position=at, contrast=1.0, background=0.7)
    assert "n_frames" in refused(moving_bars, (4, 8), position=at[0])
    assert "above 0" in refused(damped_motion, 1, 2, sigma=0.0, rng=np.random.default_rng(0))
