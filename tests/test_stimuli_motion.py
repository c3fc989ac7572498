"""Pattern flicker and jittering gratings against what they say they show."""

from __future__ import annotations

import numpy as np
import pytest

from pcsim.stimuli import (
    PATTERNS,
    check_patterns,
    jittered_gratings,
    pattern_amplitudes,
    pattern_flicker,
    random_walks,
)

GRATING = {"spatial_frequency": 2.0, "center_diameter": 1.5, "px_per_deg": 16.0}


@pytest.mark.parametrize("shape", [(16, 16), (32, 48)])
def test_patterns_are_orthogonal(shape):
    patterns = check_patterns(shape, check=0.25, px_per_deg=16.0).reshape(4, -1)
    np.testing.assert_array_equal(patterns @ patterns.T, np.prod(shape) * np.eye(4))


def test_patterns_lie_alike_in_fields_of_any_size():
    large, small = check_patterns((40, 32)), check_patterns((13, 10))
    # The middle, to which patterns are fixed, is pixel n // 2.
    np.testing.assert_array_equal(small, large[:, 20 - 6 : 20 + 7, 16 - 5 : 16 + 5])


@pytest.mark.parametrize("pattern", [*PATTERNS, "white"])
def test_every_environment_has_the_same_mean_and_variance_at_each_pixel(pattern):
    shown = pattern_flicker((16, 20), pattern=pattern, n_frames=2000, contrast=0.2, n_trials=2)
    mean, variance = shown.mean("time").to_numpy(), shown.var("time").to_numpy()
    np.testing.assert_allclose(mean, 0.5, atol=1e-12)
    # Amplitudes of several patterns correlate by chance: 1 / sqrt(2000) each.
    tolerance = 1e-9 if pattern != "white" else 4 * 3 * 2 / np.sqrt(2000)
    np.testing.assert_allclose(variance, 0.01, rtol=tolerance)


def test_environments_differ_in_their_correlations():
    uniform, checks = (
        pattern_flicker((16, 16), pattern=name, contrast=0.2, seed=5) for name in PATTERNS[::3]
    )
    signs = check_patterns((16, 16))[3]
    np.testing.assert_allclose(
        checks.to_numpy() - 0.5, (uniform.to_numpy() - 0.5) * signs, atol=1e-12
    )


def test_amplitudes_are_read_back(rng):
    shown = pattern_flicker((13, 22), pattern="white", contrast=0.1, n_trials=3, n_frames=7)
    amplitudes = pattern_amplitudes(shown)
    np.testing.assert_allclose(amplitudes.mean(axis=1), 0.0, atol=1e-12)
    np.testing.assert_allclose(amplitudes.std(axis=1), 0.1 / 2.0, rtol=1e-9)
    again = np.tensordot(amplitudes, check_patterns((13, 22)), axes=1)
    np.testing.assert_allclose(0.5 * (1 + again), shown.to_numpy(), atol=1e-12)


def test_walks_take_one_step_a_frame_either_way(rng):
    walks = random_walks(400, 50, step=0.7, rng=rng)
    steps = np.diff(walks, axis=1)
    np.testing.assert_allclose(np.abs(steps), 0.7, rtol=1e-9)
    # Variance grows by a step squared a frame; standard error of a variance of 400: 7 %.
    np.testing.assert_allclose(walks[:, -1].var(), 49 * 0.7**2, rtol=4 * np.sqrt(2 / 400))


@pytest.mark.parametrize("direction", [0.0, 0.6, np.pi / 2])
def test_global_motion_shifts_the_whole_image(direction):
    shown = jittered_gratings(
        (32, 32), motion="global", direction=direction, phase=0.4, step=0.03, seed=2, **GRATING
    )
    rng = np.random.default_rng(2)
    walk = random_walks(2, 100, step=0.03, rng=rng)[0]
    right, up = shown["x"].values, shown["y"].values
    along = right[None, :] * np.cos(direction) + up[:, None] * np.sin(direction)
    expected = 0.5 + 0.5 * np.cos(4 * np.pi * (along - walk[:, None, None]) + 0.4)
    np.testing.assert_allclose(shown.to_numpy()[0], expected, atol=1e-12)


def test_the_disc_moves_alike_under_all_motions_that_move_it():
    kinds = ["global", "differential", "center", "background"]
    shown = jittered_gratings((40, 40), motion=kinds, seed=4, **GRATING).to_numpy()
    inside, outside = (..., slice(16, 24), slice(16, 24)), (..., slice(0, 4), slice(0, 40))
    np.testing.assert_allclose(shown[1][inside], shown[0][inside], atol=1e-12)
    np.testing.assert_allclose(shown[2][inside], shown[0][inside], atol=1e-12)
    np.testing.assert_allclose(shown[3][outside], shown[1][outside], atol=1e-12)
    still = [shown[3][inside], shown[2][outside]]
    for part in still:
        np.testing.assert_allclose(part, part[:1] * np.ones_like(part), atol=1e-12)
    assert np.abs(shown[1][outside] - shown[0][outside]).max() > 0.3


def test_the_gap_is_grey_and_walks_do_not_depend_on_how_many_there_are():
    shown = jittered_gratings((40, 40), motion="differential", gap=0.3, **GRATING)
    radius = np.hypot(shown["x"].values[None], shown["y"].values[:, None])
    ring = (radius > 0.75 + 0.05) & (radius < 1.05 - 0.05)
    np.testing.assert_allclose(shown.to_numpy()[0, :, ring], 0.5, atol=1e-12)
    more = jittered_gratings((40, 40), motion="differential", walk=[0, 3], gap=0.3, **GRATING)
    np.testing.assert_array_equal(more.to_numpy()[0], shown.to_numpy()[0])


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"motion": "sideways"}, "global, differential"),
        ({"spatial_frequency": 9.0}, "two pixels a cycle"),
        ({"center_diameter": 3.0}, "field"),
        ({"walk": 0.5}, "whole numbers"),
        ({"phase": [0.1, 0.2], "direction": [0.0, 0.1, 0.2]}, "as many as there are trials"),
        ({"contrast": 1.2}, "contrast"),
    ],
)
def test_unlawful_gratings_are_refused(changes, words, refused):
    given = {"motion": "global", **GRATING, **changes}
    assert words in refused(jittered_gratings, (32, 32), **given)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"pattern": "checker"}, "checkerboard"),
        ({"check": 0.2}, "whole number of pixels"),
        ({"check": 2.0}, "two checks"),
        ({"n_frames": 1}, "n_frames"),
        ({"contrast": -0.1}, "contrast"),
    ],
)
def test_unlawful_flicker_is_refused(changes, words, refused):
    assert words in refused(pattern_flicker, (32, 32), **changes)
