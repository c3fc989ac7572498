"""White noise is white, and m-sequences have the autocorrelation that they are made for."""

from __future__ import annotations

import numpy as np
import pytest

from pcsim import stimuli
from pcsim.stimulus import check_stimulus


@pytest.mark.parametrize("kind", ["gaussian", "binary"])
def test_noise_has_its_mean_and_contrast(kind):
    noise = stimuli.white_noise((20, 20), n_trials=50, contrast=0.25, kind=kind, seed=3)
    n = noise.size
    assert abs(float(noise.mean()) - 0.5) < 4 * 0.125 / np.sqrt(n)
    # A standard deviation has a relative error of 1/sqrt(2n) where it is Gaussian.
    assert abs(float(noise.std()) / 0.125 - 1.0) < 4 / np.sqrt(2 * n) + 1e-4
    assert noise.contrast.values[0] == 0.25


@pytest.mark.parametrize("kind", ["gaussian", "binary"])
@pytest.mark.parametrize("dim", ["time", "y", "x", "trial"])
def test_neighbours_are_independent(kind, dim):
    noise = stimuli.white_noise((12, 12), n_trials=12, n_frames=12, kind=kind, seed=8).values
    z = (noise - noise.mean()) / noise.std()
    axis = ["trial", "time", "y", "x"].index(dim)
    ahead, behind = np.delete(z, 0, axis), np.delete(z, -1, axis)
    assert abs((ahead * behind).mean()) < 4 / np.sqrt(ahead.size)


def test_blocks_are_uniform_and_independent():
    noise = stimuli.white_noise((8, 12), n_frames=200, kind="binary", contrast=0.6, block=4, seed=1)
    tiles = noise.values.reshape(200, 2, 4, 3, 4)
    assert (tiles.max(axis=(2, 4)) == tiles.min(axis=(2, 4))).all()
    assert np.allclose(np.unique(noise), [0.2, 0.8])
    corner = np.sign(tiles[:, 0, 0, 0, 0] - 0.5), np.sign(tiles[:, 0, 0, 1, 0] - 0.5)
    assert abs((corner[0] * corner[1]).mean()) < 4 / np.sqrt(200)


def test_same_seed_same_noise():
    first, again = (stimuli.white_noise((4, 4), n_trials=3, seed=7) for _ in range(2))
    other = stimuli.white_noise((4, 4), n_trials=3, seed=8)
    assert first.identical(check_stimulus(again))
    assert not np.allclose(first, other)


@pytest.mark.parametrize("order", range(3, 17))
def test_m_sequence_autocorrelation_is_flat(order):
    sequence = stimuli.m_sequence((1, 1), order=order, contrast=0.8)
    n = 2**order - 1
    signs = np.round((sequence.values.ravel() - 0.5) / 0.4)
    assert sequence.sizes["time"] == n
    assert set(signs) == {-1.0, 1.0}
    assert signs.sum() == 1.0
    spectrum = np.fft.rfft(signs)
    autocorrelation = np.fft.irfft(np.abs(spectrum) ** 2, n) / n
    assert autocorrelation[0] == pytest.approx(1.0)
    assert np.allclose(autocorrelation[1:], -1.0 / n, atol=1e-9)


def test_m_sequence_pixels_are_shifted_copies():
    sequence = stimuli.m_sequence((3, 4), order=9, shift=20)
    frames = sequence.values[0].reshape(511, 12)
    assert sequence.pixel_shift.values.tolist() == [20]
    for pixel in range(12):
        assert np.array_equal(frames[:, pixel], np.roll(frames[:, 0], -20 * pixel))


def test_m_sequence_recovers_a_kernel_in_space_and_time(rng):
    sequence = stimuli.m_sequence((2, 2), order=8, shift=60)
    signs = 2.0 * sequence.values[0].reshape(255, 4) - 1.0
    kernel = rng.normal(size=(6, 4))
    response = sum(np.roll(signs, lag, axis=0) @ kernel[lag] for lag in range(6))
    found = np.array([np.roll(signs, lag, axis=0).T @ response for lag in range(6)])
    # Every pair of distinct copies correlates by -1, so k is N + 1 times itself less its sum.
    assert np.allclose(found, 256 * kernel - kernel.sum(), atol=1e-9)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: stimuli.white_noise((4, 4), kind="pink"), "Did you mean|found kind 'pink'"),
        (lambda: stimuli.white_noise((4, 4), kind="gausian"), "Did you mean 'gaussian'"),
        (lambda: stimuli.white_noise((4, 6), block=4), "expected a divisor of both sides"),
        (lambda: stimuli.white_noise((4, 4), contrast=1.5), "white_noise: found contrast 1.5"),
        (lambda: stimuli.white_noise((4, 4), n_trials=0), "white_noise: found n_trials 0"),
        (lambda: stimuli.white_noise((4, 4), n_frames=-1), "white_noise: found n_frames -1"),
        (lambda: stimuli.white_noise((4, 4), seed=-1), "white_noise: found seed -1"),
        (lambda: stimuli.white_noise((4, 4), px_per_deg=np.inf), "px_per_deg inf"),
        (lambda: stimuli.white_noise((4, 4), frame_duration=0.0), "frame_duration 0"),
        (
            lambda: stimuli.white_noise((4, 4), kind="binary", background=0.9),
            "white_noise: found contrast 0.3 on a background of 0.9",
        ),
        (lambda: stimuli.m_sequence((4, 4), order=2), "m_sequence: found order 2"),
        (lambda: stimuli.m_sequence((4, 4), order=17), "an integer from 3 to 16"),
        (lambda: stimuli.m_sequence((4, 4), order=3), "Raise order, or shrink field or shift"),
        (lambda: stimuli.m_sequence((2, 2), order=5, shift=8), "no pixel twice"),
        (lambda: stimuli.m_sequence((2, 2), order=5, shift=0), "at least 1 frame"),
    ],
)
def test_bad_noise_is_refused(call, words):
    with pytest.raises(ValueError, match=words):
        call()
