"""Dead leaves obey the laws of occluding discs; tone sequences hold what they promise."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import scipy.integrate
import scipy.stats

from pcsim import stimuli
from pcsim.stimuli.dead_leaves import draw_discs
from pcsim.stimulus import check_stimulus


def overlap(radius: np.ndarray, distance: float) -> np.ndarray:
    """Return the area shared by two discs of one radius this far apart."""
    half = np.clip(distance / (2 * radius), 0.0, 1.0)
    return 2 * radius**2 * (np.arccos(half) - half * np.sqrt(1 - half**2))


def same_leaf(distance: float, radii: tuple[float, float]) -> float:
    """Return the probability that two points see one leaf: E[overlap] / E[area of the union]."""
    radius = np.geomspace(*radii, 4001)
    shared, single = (
        scipy.integrate.trapezoid(radius**-3 * overlap(radius, d), radius) for d in (distance, 0.0)
    )
    return shared / (2 * single - shared)


def test_correlation_is_that_of_occluding_discs_with_cubic_radii():
    # Values of one leaf agree and of two are independent, so the correlation is same_leaf.
    radii, px, n = (0.25, 2.0), 16.0, 800
    images = stimuli.dead_leaves((24, 24), n=n, seed=4, radii=radii, px_per_deg=px)
    z = (images.values[:, 0] - 0.5) / np.sqrt(1 / 12)
    for lag in (3, 8, 16, 23):
        across, down = z[:, :, lag:] * z[:, :, :-lag], z[:, lag:] * z[:, :-lag]
        products = 0.5 * (across.mean(axis=(1, 2)) + down.mean(axis=(1, 2)))
        standard_error = products.std() / np.sqrt(n)
        # Antialiasing mixes leaves within a pixel of an edge: a hundredth at this radius.
        assert abs(products.mean() - same_leaf(lag / px, radii)) < 4 * standard_error + 0.01


def test_luminance_is_uniform():
    images = stimuli.dead_leaves((8, 8), n=600, seed=1, radii=(1.0, 3.0)).values[:, 0, 4, 4]
    # One pixel of each image, so the values are independent.
    assert scipy.stats.kstest(images, "uniform").pvalue > 1e-4


def test_radii_follow_the_cubic_law(rng):
    radii, size = (0.1, 3.0), (1.5, 0.7)
    radius, x, y = draw_discs(20_000, rng=rng, radii=radii, size=size)
    grid = np.geomspace(*radii, 20_001)
    density = grid**-3 * (size[0] + 2 * grid) * (size[1] + 2 * grid)
    law = scipy.integrate.cumulative_trapezoid(density, grid, initial=0)
    law /= law[-1]
    assert scipy.stats.kstest(radius, lambda r: np.interp(r, grid, law)).pvalue > 1e-4
    for place, side in ((x, size[1]), (y, size[0])):
        assert scipy.stats.kstest(place / (side + 2 * radius) + 0.5, "uniform").pvalue > 1e-4
    # Each disc weighed by the chance to be among those that touch gives the plain power.
    weight = 1 / ((size[0] + 2 * radius) * (size[1] + 2 * radius))
    counts, edges = np.histogram(radius, np.geomspace(0.1, 1.6, 9), weights=weight)
    slope = np.polyfit(np.log(edges[1:] * edges[:-1]) / 2, np.log(counts / np.diff(edges)), 1)[0]
    assert slope == pytest.approx(-3.0, abs=0.15)


def test_power_falls_about_as_the_inverse_square():
    images = stimuli.dead_leaves((96, 96), n=12, seed=2, radii=(0.0625, 6.0)).values[:, 0]
    window = np.outer(np.hanning(96), np.hanning(96))
    power = (np.abs(np.fft.fft2((images - 0.5) * window)) ** 2).mean(axis=0)
    frequency = np.hypot(*np.meshgrid(np.fft.fftfreq(96), np.fft.fftfreq(96)))
    edges = np.geomspace(3 / 96, 0.25, 8)
    which = np.digitize(frequency, edges)
    mean = [power[which == i].mean() for i in range(1, edges.size)]
    slope = np.polyfit(np.log(np.sqrt(edges[1:] * edges[:-1])), np.log(mean), 1)[0]
    assert -2.5 < slope < -1.7


def test_images_look_alike_at_all_scales():
    # Between the two limits, differences of neighbouring squares have one variance at all sizes.
    images = stimuli.dead_leaves((64, 64), n=60, seed=3, radii=(0.0625, 16.0)).values[:, 0]
    spread = []
    for side in (4, 8, 16):
        means = images.reshape(60, 64 // side, side, 64 // side, side).mean(axis=(2, 4))
        spread.append(np.sqrt((np.diff(means, axis=1)[:, ::2] ** 2).mean()))
    assert max(spread) / min(spread) < 1.3


def test_the_stream_has_no_end_and_the_batch_is_its_beginning():
    stream = stimuli.dead_leaves_stream((8, 8), seed=6)
    batch = check_stimulus(stimuli.dead_leaves((8, 8), n=3, seed=6))
    drawn = np.stack(list(itertools.islice(stream, 5)))
    assert np.array_equal(batch.values[:, 0], drawn[:3])
    assert not np.allclose(drawn[3], drawn[4])
    assert batch.image_number.values.tolist() == [0, 1, 2]


def test_leaves_keep_their_luminance():
    images = stimuli.dead_leaves((16, 16), n=5, luminance=(0.3, 0.7))
    assert images.min() >= 0.3
    assert images.max() <= 0.7


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"radii": (1.0, 0.5)}, "dead_leaves: found radii 1 to 0.5, expected the lower one first"),
        ({"radii": (0.0, 1.0)}, "dead_leaves: found radii 0"),
        ({"radii": 2.0}, "expected two numbers"),
        ({"radii": (0.1, np.nan)}, "dead_leaves: found radii nan"),
        ({"luminance": (0.0, 1.2)}, "numbers from 0 to 1"),
        ({"n": 0}, "dead_leaves: found n 0"),
        ({"px_per_deg": 0}, "dead_leaves: found px_per_deg 0"),
    ],
)
def test_bad_leaves_are_refused(asked, words):
    with pytest.raises(ValueError, match=words):
        stimuli.dead_leaves((8, 8), **{"n": 1, **asked})


def heard(sequence) -> tuple[np.ndarray, np.ndarray]:
    """Return tone and role of every onset."""
    onset = slice(None, None, 10)
    return sequence.tone.values[onset], sequence.role.values[onset]


@pytest.mark.parametrize(("share", "gap"), [(0.1, 2), (0.25, 2), (0.45, 1)])
def test_oddball_has_its_share_of_deviants_apart_from_one_another(share, gap):
    tone, role = heard(stimuli.oddball_sequence(401, deviant_probability=share, seed=5))
    assert tone.size == 401
    odd = np.flatnonzero(role == "deviant")
    assert odd.size == int(share * 401)
    assert odd[0] >= gap
    assert np.diff(odd).min() == gap + 1
    assert (tone[odd] == 5).all()
    assert (np.delete(tone, odd) == 4).all()


def test_deviants_come_anywhere_with_equal_chance():
    count = np.zeros(12)
    for seed in range(800):
        count += heard(stimuli.oddball_sequence(12, deviant_probability=0.1, seed=seed))[0] == 5
    # One deviant in ten places.
    assert (count[:2] == 0).all()
    assert (np.abs(count[2:] / 800 - 0.1) < 4.5 * np.sqrt(0.1 * 0.9 / 800)).all()


def test_tones_sound_for_their_time():
    scale = stimuli.ToneScale(n_tones=4, tone_duration=0.1, interval=0.3, frame_duration=0.05)
    sequence = check_stimulus(stimuli.cascade_sequence(8, scale=scale))
    assert sequence.sizes == {"trial": 1, "time": 48, "feature": 4}
    assert np.allclose(sequence.time[:3], [0.0, 0.05, 0.1])
    frames = sequence.values[0].reshape(8, 6, 4)
    assert (frames[:, :2].sum(axis=2) == 1).all()
    assert (frames[:, 2:] == 0).all()
    assert np.array_equal(frames[:, 0].argmax(axis=1), np.arange(8) % 4)
    assert np.allclose(np.log2(sequence.frequency / 1000.0), 0.5 * np.arange(4))
    assert sequence.position.values[6] == 1


def test_controls_play_every_tone_equally_often():
    for sequence in (
        stimuli.cascade_sequence(),
        stimuli.cascade_sequence(direction=-1),
        stimuli.many_standards_sequence(seed=3),
    ):
        tone, role = heard(sequence)
        assert np.bincount(tone).tolist() == [40] * 10
        assert set(role) == {"control"}
        assert (np.diff(tone) != 0).all()


def test_many_standards_are_not_a_cascade():
    tone, _ = heard(stimuli.many_standards_sequence(seed=3))
    assert abs(np.corrcoef(tone[1:], tone[:-1])[0, 1]) < 4 / np.sqrt(399) + 1 / 9


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: stimuli.oddball_sequence(standard=5), "expected two tones"),
        (lambda: stimuli.oddball_sequence(deviant=10), "expected a tone from 0 to 9"),
        (lambda: stimuli.oddball_sequence(5), "expected at least one deviant"),
        (lambda: stimuli.oddball_sequence(deviant_probability=0.6), "from 0.0 to 0.5"),
        (lambda: stimuli.oddball_sequence(deviant_probability=np.nan), "deviant_probability nan"),
        (lambda: stimuli.oddball_sequence(0), "oddball_sequence: found n 0"),
        (lambda: stimuli.cascade_sequence(direction=0), "1 rises, -1 falls"),
        (lambda: stimuli.many_standards_sequence(25), "a multiple of the 10 on the scale"),
        (lambda: stimuli.ToneScale(n_tones=1), "ToneScale: found n_tones 1"),
        (lambda: stimuli.ToneScale(interval=0.26), "expected whole frames"),
        (lambda: stimuli.ToneScale(tone_duration=0.3), "tones that end before the next"),
        (lambda: stimuli.ToneScale(lowest=-1.0), "ToneScale: found lowest -1"),
    ],
)
def test_bad_sequences_of_tones_are_refused(call, words):
    with pytest.raises(ValueError, match=words):
        call()
