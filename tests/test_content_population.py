"""H18, H20 and H17 on populations whose answer is known."""

from __future__ import annotations

import importlib

import numpy as np
import pytest
import xarray as xr

from pcsim.measures import noise_correlation
from pcsim.protocols import Altered, ImageFunction, lacks
from pcsim.responses import make_responses

straightening = importlib.import_module("pcsim.analysis.temporal_straightening")
noise = importlib.import_module("pcsim.analysis.noise_correlations")
context = importlib.import_module("pcsim.analysis.sparseness_context")
FIELD, PX_PER_DEG = (12, 14), 16.0


def seen_by(function):
    return ImageFunction(FIELD, PX_PER_DEG, function)


def test_paths_on_circles_bend_by_their_step():
    frame = np.arange(straightening.N_FRAMES)
    steps = np.radians([[10.0, 30.0], [0.0, 70.0]])
    angle = steps[:, None, :, None] * frame
    circle = 4.0 * np.stack([np.cos(angle), np.sin(angle)], axis=-1)
    # One that stands still has no steps to compare: the other zoom is left.
    np.testing.assert_allclose(straightening.bend(circle)[:, 0], [20.0, 70.0], atol=1e-9)
    assert np.isnan(straightening.bend(0.0 * circle)).all()


def test_an_eye_glides_at_its_speed_within_the_photograph(rng):
    for _ in range(50):
        path = straightening.glide(np.array([60.0, 70.0]), 8, rng, "a wall")
        steps = np.diff(path, axis=0)
        np.testing.assert_allclose(np.hypot(*steps.T), straightening.SPEED)
        heading = np.unwrap(np.arctan2(*steps.T))
        assert np.ptp(np.diff(heading)) < 1e-9
        assert abs(np.diff(heading)[0]) <= straightening.TURN
        assert (path >= 6).all()
        assert (path <= np.array([60.0, 70.0]) - 6).all()
    with pytest.raises(RuntimeError, match="smaller than the path"):
        straightening.glide(np.array([20.0, 70.0]), 8, rng, "a stamp")


def test_unnatural_sequences_fade_in_a_straight_line():
    natural, unnatural = straightening.clips(seen_by(lambda x: x), n=1, seed=2)
    assert natural.shape == (10, 2, straightening.N_FRAMES, *FIELD)
    np.testing.assert_allclose(unnatural[:, :, [0, -1]], natural[:, :, [0, -1]], atol=1e-12)
    np.testing.assert_allclose(np.diff(unnatural, n=2, axis=2), 0.0, atol=1e-12)


def test_pixels_straighten_nothing_and_a_hash_bends_all_to_120_degrees():
    pixels, _ = straightening.observe(seen_by(lambda x: x + 0.5), seed=4, scale="quick")
    for name in ("natural", "unnatural", "natural_error"):
        np.testing.assert_allclose(pixels[name], 0.0, atol=1e-6)
    weights = np.random.default_rng(0).standard_normal((FIELD[0] * FIELD[1], 512))
    hashed, _ = straightening.observe(
        seen_by(lambda x: 1.0 + np.sin(3e3 * x @ weights)), seed=4, scale="quick"
    )
    # Steps of independent answers share one of their two ends: the cosine is -1/2. With 512
    # units an angle has a standard error of about 3 degrees, and 18 are averaged.
    bent = hashed["unnatural"] + hashed["pixels_unnatural"]
    np.testing.assert_allclose(bent, 120.0, atol=4.0)
    assert pixels["included"].all()


def test_shuffled_frames_turn_back_along_the_fade():
    model = Altered(seen_by(lambda x: x + 0.5), "shuffled")
    seen, _ = straightening.observe(model, seed=7, scale="quick")
    order = np.random.default_rng([7, 81]).permutation(straightening.N_FRAMES)
    turns = (np.diff(np.sign(np.diff(order))) != 0).mean()
    np.testing.assert_allclose(seen["pixels_unnatural"], 180.0 * turns, atol=1e-4)
    np.testing.assert_allclose(seen["unnatural"], 0.0, atol=1e-4)


def test_stand_ins_are_read_like_models():
    model = seen_by(lambda x: x)
    for build in (straightening.random_projection, straightening.two_stages):
        stand_in = build(model, 3)
        assert lacks(stand_in, 1) == ""
        rate = stand_in.run(xr.zeros_like(noise.noisy_images(model, n=1, seed=0)) + 0.5)["rate"]
        assert rate.sizes["unit"] == straightening.N_STAND_IN
        # Grey has no contrast, to which both answer.
        np.testing.assert_allclose(rate, 0.0, atol=1e-12)


def test_pseudo_values_of_a_mean_over_pairs_are_those_of_the_units(rng):
    own = rng.standard_normal(7)
    table = 0.5 * (own[:, None] + own)
    found = noise.pseudo_values((table, table), lambda noise, signal: float(noise.mean()))
    np.testing.assert_allclose(found, own, atol=1e-12)


def test_dependence_is_the_correlation_over_pairs():
    table = np.array([[1.0, 0.4, np.nan], [0.4, 1.0, 0.1], [np.nan, 0.1, 1.0]])
    pairs = noise.pairs((table, 2.0 - 3.0 * table), np.arange(3))
    assert len(pairs[0]) == 2, "a pair that never varied together is dropped"
    assert noise.dependence(*pairs) == pytest.approx(-1.0)
    assert noise.dependence(np.full(4, 0.2), np.arange(4.0)) == 0.0


def constant(n_conditions, n_units):
    n = n_conditions * noise.N_REPEATS
    names = [f"{k:02d}" for k in range(n_conditions) for _ in range(noise.N_REPEATS)]
    return make_responses(
        np.full((n, 4, n_units), 0.3), time=0.05 * np.arange(1, 5),
        units={"population": "output", "level": 1}, trial={"condition": names},
    )  # fmt: skip


def test_independent_cells_share_nothing_and_a_gain_what_was_published(rng):
    expected = {"independent": 0.0, "gain": 0.191}
    for change, wanted in expected.items():
        counts = noise.spike_counts(constant(40, 8), change, rng=rng, seed=3)
        # 16000 counts of mean 1.32 and variance up to 1.64, a gain for 8 of them.
        assert float(counts["spike_count"].mean()) == pytest.approx(1.32, abs=0.06)
        matrix = noise_correlation(counts).to_numpy()
        mean = matrix[np.triu_indices(8, 1)].mean()
        # 2000 trials: a pair has a standard error of 0.022, the mean over pairs less than 0.015.
        assert mean == pytest.approx(wanted, abs=0.06 if wanted else 0.02)


def test_copies_of_a_filter_share_noise_as_they_share_signals(rng):
    filters = np.repeat(rng.standard_normal((FIELD[0] * FIELD[1], 5)), 5, axis=1)
    model = seen_by(lambda x: x @ filters)
    found = {}
    for name, one in (("noisy", model), ("independent", Altered(model, "independent"))):
        held, _ = noise.observe(Slow(one), seed=1, scale="quick")
        inside = held["dependence"][held["included"]]
        found[name] = float(inside.mean()), float(inside.std() / np.sqrt(inside.size))
    assert found["noisy"][0] > 4 * found["noisy"][1]
    assert abs(found["independent"][0]) < 4 * found["independent"][1]


def Slow(model):
    """The same answers at four times, between which spikes can be drawn."""
    if isinstance(model, Altered):
        return Altered(Slow(model.model), model.change)
    return FourTimes(model.field_shape, model.px_per_deg, model.function)


class FourTimes(ImageFunction):
    def run(self, stimulus, *, seed=0, record=None):
        one = ImageFunction.run(self, stimulus)
        return make_responses(
            np.repeat(one["rate"].to_numpy(), 4, axis=1), time=0.05 * np.arange(1, 5),
            units={"population": "output", "level": 1}, trial=stimulus,
        )  # fmt: skip


def test_a_mask_is_open_inside_and_fades_over_its_rim():
    disc = context.mask((41, 61), 20.0)
    middle = disc[20]
    assert (middle[30 - 8 : 30 + 9] == 1.0).all()
    assert middle[30 + 9] == pytest.approx(0.5), "half way through the outer fifth"
    assert middle[30 + 10] == pytest.approx(0.0)
    assert (disc[:10] == 0.0).all()


def test_growth_of_known_sparseness():
    # Of five images a unit answers to all alike under mask 1, and to one alone under mask 4.
    first = np.array([[3, 3, 3, 3, 3], [2, 2, 0, 0, 0], [2, 2, 0, 0, 0], [3, 0, 0, 0, 0]])
    silent = np.array([[1, 0, 0, 0, 0], [0, 0, 0, 0, 0], [1, 0, 0, 0, 0], [1, 0, 0, 0, 0]])
    rate = np.stack([first, silent], axis=-1).reshape(20, 1, 2)
    responses = make_responses(
        rate.astype(float), time=[0.2], units={"population": "latent", "level": 1},
        trial={"condition": ["patch"] * 20},
    )  # fmt: skip
    sparse, alive = context.by_mask(responses, np.repeat(context.MASKS, 5), 5)
    # a = (4/5)^2 / (8/5) = 0.4 for two of five.
    np.testing.assert_allclose(sparse[:, 0], [0.0, 0.75, 0.75, 1.0], atol=1e-12)
    np.testing.assert_array_equal(alive, [True, False])
    # (-1.5, -0.5, 0.5, 1.5) . S / 5
    np.testing.assert_allclose(context.slope(sparse)[0], 0.3, atol=1e-12)
