"""H08 on codes whose information is known: the best linear ones, late ones, and none."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest

from pcsim import catalog
from pcsim.measures import binary_words, gaussian_bottleneck, joint_count, mutual_information
from pcsim.responses import make_responses

H08 = catalog.load("analysis", "predictive_information")
module = __import__("pcsim.analysis.predictive_information", fromlist=["words"])


@dataclass(frozen=True)
class Place:
    """Cells that spike where the bar is, a given number of frames ago, and never elsewhere."""

    delay: int = 0
    record_dt: float | None = None
    field_shape: tuple[int, int] = (4, 32)
    px_per_deg: float = 16.0

    def run(self, stimulus, *, seed=0, record=None):
        dark = (0.5 - stimulus).clip(min=0.0)
        place = (dark * stimulus["x"]).sum(("x", "y")) / dark.sum(("x", "y")).clip(min=1e-9)
        edges = np.linspace(-0.5, 0.5, 7)
        rate = np.exp(-((place.values[..., None] - edges) ** 2) / (2 * 0.1**2))
        at = np.maximum(np.arange(rate.shape[1]) - self.delay, 0)
        step = float(stimulus["frame_duration"])
        return make_responses(
            rate[:, at], time=stimulus["time"].values + step, trial=stimulus,
            units={"population": "output", "level": 0},
        )  # fmt: skip


@dataclass(frozen=True)
class Blind(Place):
    """Cells whose rates are noise."""

    def run(self, stimulus, *, seed=0, record=None):
        seen = Place.run(self, stimulus)
        noise = np.random.default_rng(seed).gamma(1.0, size=seen["rate"].shape)
        return seen.assign(rate=(seen["rate"].dims, noise))


def found(model, seed=3):
    evidence = H08.observe(model, seed=seed, scale="quick")
    kept = evidence.isel(unit=evidence["included"].values)
    return float(kept["future"].mean() / kept["bound"].mean()), evidence


def test_words_of_independent_cells(rng):
    p = rng.uniform(size=(7, 3))
    table = module.words(p)
    assert table.sum(axis=1) == pytest.approx(1.0)
    # The bits of binary_words: cell k adds 2^k.
    for word in range(8):
        bits = (word >> np.arange(3)) & 1
        assert binary_words(bits) == word
        expected = np.where(bits, p, 1 - p).prod(axis=1)
        np.testing.assert_allclose(table[:, word], expected, atol=1e-12)


def test_informations_are_those_of_drawn_spikes(rng):
    """Rates that depend on 4 states of the world, which are also the future: I is known."""
    state = rng.integers(0, 4, (60, 400))
    p = np.array([[0.1, 0.6], [0.3, 0.1], [0.5, 0.5], [0.05, 0.9]])[state].reshape(-1, 2)
    past, future = module.informations(p, state, rng)
    spikes = rng.random((40, *p.shape)) < p
    drawn = joint_count(np.tile(state.ravel(), 40), binary_words(spikes).ravel())
    assert past == pytest.approx(float(mutual_information(drawn)), abs=0.003)
    assert future == pytest.approx(past, abs=0.003)


def test_bound_is_that_of_the_motion():
    """All of the future at most: the determinants of the two-by-two covariances."""
    from pcsim.measures import gaussian_predictive_information
    from pcsim.stimuli import damped_motion_covariance

    most = gaussian_predictive_information(damped_motion_covariance(40), n_past=9, n_future=9)
    assert gaussian_bottleneck(module.correlations(), 50.0) == pytest.approx(most, rel=1e-5)


def test_a_prompt_code_of_place_comes_near_the_bound_and_a_late_one_does_not():
    prompt, evidence = found(Place())
    assert (evidence["future"] <= 1.02 * evidence["bound"]).all()
    shares = [prompt, *(found(Place(delay=k))[0] for k in (3, 9))]
    assert shares[0] > 0.7
    assert shares[0] > shares[1] > shares[2]
    assert shares[2] < 0.45


def test_a_late_code_says_as_much_of_the_past():
    one, other = (found(Place(delay=k))[1]["past"] for k in (0, 9))
    np.testing.assert_allclose(one.mean(), other.mean(), rtol=0.1)


def test_noise_and_shuffled_words_say_nothing_of_the_future():
    (control,) = [c for c in H08.controls if c.name == "shuffled"]
    for model in (Blind(), control.transform(Place(), 1)):
        share, evidence = found(model)
        assert evidence["included"].any()
        assert abs(share) < 0.05


def test_late_control_is_late():
    shown = module.moving_bars((4, 32), position=np.linspace(-0.5, 0.5, 12)[None])
    late = module.Late(Place(), 4).run(shown)["rate"].values
    prompt = Place().run(shown)["rate"].values
    np.testing.assert_array_equal(late[:, 4:], prompt[:, :-4])
    np.testing.assert_array_equal(late[:, :4], np.repeat(prompt[:, :1], 4, axis=1))


def test_late_units_carry_less_of_the_future_than_prompt_ones():
    (control,) = [c for c in H08.controls if c.name == "delayed"]
    prompt = catalog.load("circuits", "linear_nonlinear").untrained(seed=2)
    late, evidence = found(control.transform(None, 2))
    assert evidence["included"].all()
    assert late < found(prompt)[0] - 0.1


def test_models_without_images_are_not_asked():
    assert "no images" in H08.missing(catalog.load("circuits", "auditory_hierarchy"))
