"""H22, H25, H28 and H29 d to f on planted responses, and what their stimuli hold equal."""

from __future__ import annotations

import importlib
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest

from pcsim import catalog
from pcsim.circuit import Population
from pcsim.kinds import Leaky
from pcsim.protocols import contrast_index, deepest_estimate, departure, responsive
from pcsim.responses import make_responses
from pcsim.stimuli import tone_events

NOVEL, AWAY, NORM, KANIZSA, LAG, PAIRS = (
    importlib.import_module(f"pcsim.analysis.{name}")
    for name in (
        "novelty_response",
        "explaining_away",
        "norm_coding",
        "illusory_contours",
        "flash_lag",
        "sequence_learning",
    )
)
LN = catalog.load("circuits", "linear_nonlinear")
PREDNET = catalog.load("circuits", "prednet")


def test_index_and_inclusion():
    np.testing.assert_allclose(
        contrast_index([4.0, 0.7, 0.0], [0.7, 4.0, 0.0]), [33 / 47, -33 / 47, 0]
    )
    np.testing.assert_array_equal(responsive([[4.0, 0.0], [2.0, 0.1]]), [True, False])
    assert not responsive(np.zeros((2, 3))).any()


def test_deepest_estimates():
    assert deepest_estimate(PREDNET) == (2, "latent")
    assert deepest_estimate(LN) == (1, "output")
    assert deepest_estimate(catalog.load("circuits", "bogacz_2017")) is None


def test_departure_is_taken_from_grey():
    found = departure(
        make_responses(
            np.array([[[1.0, 4.0]], [[0.7, 5.0]]]), time=[0.1],
            units={"population": "latent", "level": 1}, trial={"condition": ["grey", "a"]},
        )
    )  # fmt: skip
    np.testing.assert_allclose(found, [[[0, 0]], [[0.3, 1.0]]], atol=1e-12)


def test_novelty_is_read_from_the_last_image_of_paired_sequences():
    stimuli = NOVEL.sequences(LN, n_draws=1, seed=3)
    assert tuple(stimuli) == NOVEL.SIZES
    for size, stimulus in stimuli.items():
        values, novel = stimulus.values, stimulus["condition"].values == "novel"
        last = values[:, -1]
        # The same images end as novel and as familiar ones, and only the familiar were shown.
        ends = [{one.tobytes() for one in last[part]} for part in (novel, ~novel)]
        assert ends[0] == ends[1]
        for trial, images in enumerate(values[:, :-1]):
            assert (images == last[trial]).all(axis=(1, 2)).any() != novel[trial]
            # Every image is seen equally often before, whatever the size of the set.
            counts = np.unique(images.reshape(len(images), -1), axis=0, return_counts=True)[1]
            np.testing.assert_array_equal(counts, np.full(size, NOVEL.N_CYCLES))
        spread = values.reshape(-1, *stimulus.shape[-2:]).std(axis=(1, 2))
        np.testing.assert_allclose(spread, NOVEL.CONTRAST, rtol=0.05)


def test_excess_and_familiarisation_of_planted_responses():
    responses = {}
    for size, stimulus in NOVEL.sequences(LN, n_draws=1, seed=3).items():
        novel = stimulus["condition"].values == "novel"
        images = np.full((len(novel), NOVEL.N_CYCLES * size + 1), 0.5)
        images[:, :size] = 4.0
        images[:, -1] = np.where(novel & (size == 3), 2.1, 0.7)
        rate = np.repeat(images, 6, axis=1)[..., None] * [1.0, -1.0]
        responses[size] = make_responses(
            rate, time=0.05 * np.arange(1, rate.shape[1] + 1),
            units={"population": "error", "level": 1}, trial=stimulus,
        )  # fmt: skip
    found = NOVEL.measure(responses)
    np.testing.assert_allclose(found["excess_3"], 0.5)
    np.testing.assert_allclose(found["excess_24"], 0.0, atol=1e-12)
    np.testing.assert_allclose(found["familiarised"], 3.5 / 4.5)
    np.testing.assert_allclose(found["course"].values[:2], [1.0, 0.125])
    # 0.5 at 3 images and 0 at 6: half of it at their geometric mean.
    assert float(found["half_size"]) == pytest.approx(np.sqrt(18.0))


def test_half_amplitude_and_time_constants_of_known_courses():
    # 0.8 - 0.2 log2(size / 3) is half of 0.8 two octaves above 3.
    assert NOVEL.half_amplitude([0.8, 0.6, 0.4, 0.2]) == pytest.approx(12.0)
    assert np.isnan(NOVEL.half_amplitude([0.8, 0.7, 0.6, 0.5]))
    assert np.isnan(NOVEL.half_amplitude([-0.1, -0.2, -0.3, -0.4]))
    time = 0.9 * np.arange(6)
    for tau in (0.7, 1.4):
        fitted = NOVEL.decay_time(time, 0.4 + 2.1 * np.exp(-time / tau))
        assert fitted == pytest.approx(tau, rel=0.02)
    assert np.isnan(NOVEL.decay_time(time, 2.1 - np.exp(-time / 0.7)))


def test_scrambled_shapes_have_the_ink_of_shapes_in_the_same_places():
    stimulus = AWAY.shapes(LN, n=6, seed=2)
    ink = np.abs(stimulus.values[:, 0] - 0.5)
    shape, scrambled = ink[:6], ink[6:]
    np.testing.assert_allclose(shape.sum((1, 2)), scrambled.sum((1, 2)), rtol=0.02)
    rows, columns = np.indices(ink.shape[1:])
    for axis in (rows, columns):
        centres = [(one * axis).sum((1, 2)) / one.sum((1, 2)) for one in (shape, scrambled)]
        np.testing.assert_allclose(*centres, atol=0.3)
    assert (np.abs(shape - scrambled).sum((1, 2)) > 0.5 * shape.sum((1, 2))).all()


def test_distances_are_from_the_mean_shape():
    stimulus = NORM.shapes(LN, n=5, seed=1)
    images, condition = stimulus.values[:, 0], stimulus["condition"].values
    shown = images[1:]
    np.testing.assert_allclose(shown.std(axis=(1, 2)), NORM.CONTRAST, rtol=0.02)
    start = images[(condition == "mean") & (stimulus["distance"].values == 0)]
    np.testing.assert_allclose(start, start[:1] * np.ones_like(start), atol=1e-12)
    far = [
        np.abs(images[(condition == "mean") & (stimulus["distance"].values == d)] - start).mean()
        for d in NORM.DISTANCES
    ]
    assert (np.diff(far) > 0).all()
    curve = 4.0 + 0.7 * np.array(NORM.DISTANCES)[:, None] * [1.0, -1.0, 0.0]
    np.testing.assert_allclose(NORM.slope(curve), [0.7 / 4.35, -0.7 / 3.65, 0.0], atol=1e-12)


def test_inducers_have_equal_ink_and_leave_the_contour_free():
    parts = {
        name: KANIZSA.covered((24, 32), name, 1.0, 1.0, 0.0)
        for name in ("illusory", "rotated", "real")
    }
    assert parts["illusory"].sum() == pytest.approx(parts["rotated"].sum(), rel=1e-12)
    assert parts["real"].sum() == pytest.approx(14.0 * 10.0)
    # Six pixels of the contour, between discs that reach four from its corners.
    for name in ("illusory", "rotated"):
        assert not parts[name][9:15].any()
    # The real one begins at the middle of the field; its mirror image ends there.
    assert parts["real"][12, 16] == 1.0
    assert parts["real"][12, 15] == 0.0
    other = KANIZSA.covered((24, 32), "real", 1.0, -1.0, 0.0)
    np.testing.assert_allclose(other, parts["real"][:, ::-1])
    # Inward quadrants are empty in the one, outward ones in the other.
    assert parts["illusory"][5:8, 16:19].sum() == 0
    assert parts["rotated"][2:5, 13:16].sum() == 0


def test_half_times():
    time = 0.01 * np.arange(1, 6)
    course = np.array([[0.0, 0.3, 0.5, 0.9, 0.7], [4.0, 4.0, 4.0, 4.0, 4.0]]).T
    np.testing.assert_allclose(KANIZSA.half_time(course, time), [0.03, 0.01])


def test_a_small_field_has_no_room_for_the_figure():
    assert "no room" in KANIZSA.missing(catalog.load("circuits", "visual_pathway"))
    assert KANIZSA.missing(PREDNET) == ""


def test_places_are_decoded_whatever_the_amplitude():
    centres = np.linspace(-8, 8, 60)
    templates = np.exp(-((LAG.TEMPLATES[:, None] - centres) ** 2) / 4.0)
    for place in (-3.1, 0.0, 2.37):
        response = 0.7 * np.exp(-((place - centres) ** 2) / 4.0)
        assert LAG.place_of(response, templates) == pytest.approx(place, abs=0.01)


@pytest.mark.parametrize("ahead", [0.0, 1.0])
def test_what_extrapolates_leads_by_a_frame(ahead):
    centres = np.linspace(-12, 12, 90)

    def blob(place):
        return np.exp(-((np.asarray(place)[..., None] - centres) ** 2) / 4.0)

    shown = LAG.trials()
    change = []
    for one in shown:
        speed = 0.0 if one["kind"] == "flash" else float(one["kind"].split()[1])
        path = np.repeat(one["path"] + ahead * one["way"] * speed, 5)
        change.append(np.where(np.isfinite(path)[:, None], blob(np.nan_to_num(path)), 0.0))
    templates = {contrast: blob(LAG.TEMPLATES) for contrast in (-0.8, 0.8)}
    found = LAG.leads(shown, np.array(change), templates)
    for name, speed in zip(("slow", "middle", "fast"), LAG.SPEEDS, strict=True):
        np.testing.assert_allclose(found[name], ahead * speed, atol=0.01)
    assert found["included"].values.sum() == 12


def test_conditional_probabilities_of_the_pairs_are_as_named():
    pairs = PAIRS.EXPOSED
    assert len(set(pairs)) == len(pairs)
    for name, (own, _, trailing) in PAIRS.TESTED.items():
        forward = sum(lead == own for lead, _ in pairs)
        backward = sum(trail == trailing for _, trail in pairs)
        assert (own, trailing) in pairs
        expected = {"both": (1, 1), "forward": (2, 1), "backward": (1, 2)}
        assert (forward, backward) == expected[name]
    for _, role, lead, trail in PAIRS.tests():
        assert ((lead, trail) in pairs) == (role == "predicted")


def test_pairs_of_tones_are_events():
    stimulus = PAIRS.pairs_of_tones([(3, 1), (8, -1)], np.arange(10)[::-1])
    events = tone_events(stimulus)
    np.testing.assert_allclose(events.onset, [0.0, 0.25, 1.1, 1.35])
    np.testing.assert_array_equal(events.tone, [6, 8, 1, -1])
    assert stimulus.values.sum() == 3 * 3


@dataclass(frozen=True)
class Forward:
    """Predicts by the mean of what followed; its error is what differs from that."""

    field_shape: tuple[int, int] = (8, 8)
    px_per_deg: float = 16.0
    known: Any = None
    plasticity: float = 1.0

    def exposed(self, stimulus, *, seed=0, n_passes=1):
        return replace(self, known=stimulus.values) if self.plasticity else self

    def run(self, stimulus, *, seed=0, record=None):
        frames = stimulus.values.copy()
        for trial in frames:
            if self.known is not None:
                same = (self.known[:, 1] == trial[1]).all(axis=(1, 2))
                trial[2] -= self.known[same, 2].mean(axis=0)
        rate = np.repeat(frames.reshape(*frames.shape[:2], -1), 3, axis=1)
        units = {"population": "error", "level": 1}
        return make_responses(rate, time=0.05 * np.arange(1, 10), units=units, trial=stimulus)


def test_a_forward_predictor_knows_the_one_conditional_probability_only():
    found = PAIRS.observe(Forward(), seed=1, scale="quick")
    means = {name: found[name].values for name in PAIRS.TESTED}
    np.testing.assert_allclose(means["both"], 1.0, atol=1e-6)
    np.testing.assert_allclose(means["backward"], 1.0, atol=1e-6)
    assert 0.0 < means["forward"].mean() < 0.8
    control = PAIRS.HYPOTHESIS.controls[0]
    blind = PAIRS.observe(control.transform(Forward(), 1), seed=1, scale="quick")
    np.testing.assert_allclose(blind["both"], 0.0, atol=1e-6)


def test_halves_of_the_rate_have_indices_of_their_own():
    n = len(PAIRS.tests())
    halves = np.full((2, n, 1), 2.0)
    roles = [(name, role) for name, role, _, _ in PAIRS.tests()]
    halves[0, roles.index(("both", "predicted"))] = 1.0
    halves[1, roles.index(("both", "predicted"))] = 6.0
    found = PAIRS.summary(halves)
    np.testing.assert_allclose(found["positive"], 1 / 3)
    np.testing.assert_allclose(found["negative"], -4 / 8)
    np.testing.assert_allclose(found["both"], (4 - 7) / 11)
    rate = np.array([[[3.0, -1.0], [-1.0, -3.0]]])
    np.testing.assert_allclose(PAIRS.halves_of(rate, 1), [[[1.5, 0.0]], [[0.5, 2.0]]])


@dataclass(frozen=True)
class Tired:
    """Answers to each pixel less, the more light it had since the trial began; knows no pairs."""

    field_shape: tuple[int, int] = (8, 8)
    px_per_deg: float = 16.0
    tau_adaptation: float = 1.0
    memory: int = 1
    """Frames that it remembers."""
    record_dt: float = 0.025

    @property
    def populations(self):
        return (Population(name="o", kind=Leaky(tau=1.0), size=64, level=1, population="output"),)

    def run(self, stimulus, *, seed=0, record=None):
        ink = stimulus.values.reshape(*stimulus.shape[:2], -1)
        past = np.zeros_like(ink)
        for back in range(1, self.memory + 1):
            past[:, back:] += ink[:, :-back]
        rate = np.repeat(ink / (1.0 + past), 6, axis=1)
        time = 0.025 * np.arange(1, rate.shape[1] + 1)
        units = {"population": "output", "level": 1}
        return make_responses(rate, time=time, units=units, trial=stimulus)


def test_likeness_of_leader_and_trailing_image_cancels_over_turns():
    model = Tired()
    assert PAIRS.missing(model) == ""
    one = PAIRS.summary(PAIRS.after_images(model, seed=1, turn=0))
    assert np.abs(one["both"]).max() > 0.02
    found = PAIRS.observe(model, seed=1, scale="quick")
    for name in PAIRS.TESTED:
        np.testing.assert_allclose(found[name], 0.0, atol=1e-9)


def test_what_only_adapts_sees_the_pairs_in_the_run_of_the_test():
    short, long = (PAIRS.after_images(Tired(memory=m), seed=1, turn=0) for m in (2, 60))
    # Frames are 0.5 on average: what went before is 2 frames of 1/2 in the one, 60 in the other.
    ratio = (1.0 + 60 * 0.5) / (1.0 + 2 * 0.5)
    assert short[0].mean() / long[0].mean() == pytest.approx(ratio, rel=0.1)


def test_who_learns_sequences():
    assert PAIRS.missing(PREDNET) == ""
    assert PAIRS.missing(catalog.load("circuits", "auditory_hierarchy")) == ""
    assert "learns no sequences" in PAIRS.missing(catalog.load("circuits", "rao_ballard_1999"))
