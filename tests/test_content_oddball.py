"""The hypotheses of tone sequences on planted responses: what they measure, and in whom."""

from __future__ import annotations

import importlib
from dataclasses import dataclass

import numpy as np
import pytest

from pcsim import catalog, roster
from pcsim.protocols import Listening, cannot_hear, listen, tone_levels
from pcsim.responses import make_responses
from pcsim.stimuli import (
    cascade_sequence,
    local_global_sequence,
    many_standards_sequence,
    oddball_sequence,
    pair_sequence,
    tone_events,
)
from pcsim.stimulus import check_stimulus

ODDBALL, LOCAL, PAIRS = (
    importlib.import_module(f"pcsim.analysis.{name}")
    for name in ("oddball_hierarchy", "local_global", "repetition_probability")
)


@dataclass(frozen=True)
class Echo:
    """Three levels of error units that repeat the tones, whatever came before."""

    n_features: int = 10
    senses: str = "tones"
    field_shape: None = None
    px_per_deg: None = None
    record_dt: float = 0.0125

    def run(self, stimulus, *, seed=0, record=None):
        values = check_stimulus(stimulus, "Echo").values
        each = round(float(stimulus["frame_duration"]) / self.record_dt)
        rate = np.repeat(values, each, axis=1)
        time = self.record_dt * np.arange(1, rate.shape[1] + 1)
        units = {
            "population": np.repeat(["error_pos", "error_neg", "latent"], [30, 30, 30]),
            "level": np.tile(np.repeat([1, 2, 3], 10), 3),
            "channel": np.tile(np.arange(10), 9),
        }
        parts = [np.tile(rate, 3), np.zeros((*rate.shape[:2], 30)), 9 * np.tile(rate, 3)]
        return make_responses(np.concatenate(parts, 2), time=time, units=units, trial=stimulus)


@pytest.mark.parametrize("module", [ODDBALL, LOCAL, PAIRS])
def test_what_has_no_memory_shows_nothing(module):
    hypothesis = module.HYPOTHESIS
    assert hypothesis.missing(Echo()) == ""
    evidence, _ = hypothesis.observe(Echo(), seed=3, scale="quick")
    assert evidence["included"].sum() >= 2
    kept = evidence.isel(unit=evidence["included"].values)
    for name in hypothesis.variables:
        np.testing.assert_allclose(kept[name].values, 0.0, atol=1e-12)


def test_who_can_be_asked():
    assert cannot_hear(catalog.load("circuits", "linear_nonlinear")) == "it hears no tones"
    assert cannot_hear(Echo(n_features=4)) == "it hears 4 tones, not 10"
    assert tone_levels(Echo()) == (1, 2, 3)
    one = roster.train(roster.variant("AUD-one"), seed=0)
    assert "1 of the 3 levels" in ODDBALL.HYPOTHESIS.missing(one)
    assert LOCAL.HYPOTHESIS.missing(one) == ""


def test_listening_reads_error_units_in_their_window():
    sequence = oddball_sequence(6, deviant_probability=0.2, seed=1)
    heard, responses = listen(Echo(), [sequence, cascade_sequence(6)])
    assert set(responses["population"].values) == {"error_pos", "error_neg"}
    for trial, played in enumerate((sequence, cascade_sequence(6))):
        response = heard[2].response((0.0, 0.1))[trial]
        total = heard[2].by_channel(response, 10)
        # Tones sound for 75 of these 100 ms.
        expected = 0.75 * np.eye(10)[tone_events(played).tone]
        np.testing.assert_allclose(total, expected, atol=1e-12)
    with pytest.raises(ValueError, match="one length"):
        listen(Echo(), [sequence, cascade_sequence(7)])
    with pytest.raises(ValueError, match="at least one"):
        heard[1].response((0.01, 0.011))


def test_decomposition_tells_deviance_from_adaptation():
    n = 80
    sequences = [
        oddball_sequence(n, standard=standard, deviant=deviant, seed=i)
        for i, (standard, deviant) in enumerate(ODDBALL.PAIRS)
    ]
    sequences += [cascade_sequence(n), cascade_sequence(n, direction=-1)]
    sequences.append(many_standards_sequence(n, seed=1))
    events = [tone_events(one) for one in sequences]
    size = {"deviant": 0.7, "standard": 0.2, "control": 0.4}
    response = [
        np.array([size[role] for role in one.role])[:, None] * np.ones(10) for one in events
    ]
    # What is left out may be anything.
    for one in response:
        one[: n // 4] = 9.0
    found = ODDBALL.decompose(response, events)
    norm = np.sqrt(0.7**2 + 0.2**2 + 0.4**2)
    np.testing.assert_allclose(found["iPE"], 0.3 / norm, rtol=1e-12)
    np.testing.assert_allclose(found["iRS"], 0.2 / norm, rtol=1e-12)
    np.testing.assert_allclose(found["iMM"], found["iPE"] + found["iRS"], rtol=1e-12)
    np.testing.assert_allclose(found["iPE_many"], 0.3 / norm, rtol=1e-12)


def test_slope_and_trend_have_the_sign_of_growth():
    means = {f"iPE_{level}": np.array([0.1 * level, -0.2 * level]) for level in (1, 2, 3)}
    np.testing.assert_allclose(ODDBALL.slope(means), [0.1, -0.2])
    assert ODDBALL.HYPOTHESIS.direction == 1
    low, high = ODDBALL.HYPOTHESIS.reference.interval
    for table in (ODDBALL.PUBLISHED, ODDBALL.PUBLISHED_NONLEMNISCAL):
        published = {f"iPE_{k}": np.array(v) for k, v in enumerate(table["iPE"], start=1)}
        assert low - 1e-9 <= ODDBALL.slope(published) <= high + 1e-9
        for k in range(3):
            assert table["iMM"][k] == pytest.approx(table["iPE"][k] + table["iRS"][k], abs=0.011)


def chunks(rule, answers):
    """Return what was heard in a block where the fifth place evokes `answers`, all others 0.5."""
    sequence = local_global_sequence(32, rule=rule, tones=(2, 6), shares=(0.2, 0.2), seed=5)
    events = tone_events(sequence)
    time = 0.0125 * np.arange(1, round(32 * 1.4 / 0.0125) + 1)
    rate = np.zeros((1, time.size, 10))
    for number, (onset, tone) in enumerate(zip(events.onset, events.tone, strict=True)):
        place = "other" if number % 5 < 4 else {2: "x", 6: "Y", -1: "omission"}[int(tone)]
        during = (time > onset + 1e-6) & (time < onset + 0.15 + 1e-6)
        rate[0, during, 0] = {"other": 0.5, **answers}[place]
    channel, sign = np.arange(10), np.ones(10, dtype=int)
    return Listening(rate, time, channel, sign, (events,))


def test_three_consequences_are_read_from_their_places():
    answers = {"x": 0.9, "Y": 0.7, "omission": 0.2}
    (found,) = LOCAL.responses_of(chunks("xxxxY", answers))
    assert found["Y"][0] == pytest.approx(1.4)
    assert found["fifth x"][0] == pytest.approx(0.8)
    assert found["omission"][0] == pytest.approx(0.4)
    assert (found["Y"][1:] == 0).all()


def test_score_counts_what_holds():
    means = {
        "local": np.array([0.1, 0.1, -0.1]),
        "global": np.array([0.2, -0.2, -0.2]),
        "omission_Y": np.array([0.3, 0.3, 0.1]),
        "omission_x": np.array([0.1, 0.1, 0.2]),
    }
    np.testing.assert_array_equal(LOCAL.score(means), [3.0, 2.0, 0.0])
    np.testing.assert_allclose(LOCAL.omission(means), [0.2, 0.2, 0.15])


def test_pairs_are_gathered_by_tone_role_and_block():
    sequences = [pair_sequence(32, repetition_probability=p, seed=1) for p in (0.75, 0.25)]
    events = [tone_events(one) for one in sequences]
    evoked = [
        (10 * block + 2 * one.tone + (one.role == "repetition"))[:, None] * np.ones(10)
        for block, one in enumerate(events)
    ]
    for block in (0, 1):
        blocks = [number == block for number in (0, 1)]
        found = PAIRS.gather(evoked, events, blocks, "repetition", 3)
        np.testing.assert_allclose(found, [10 * block + 7] * 3)
        found = PAIRS.gather(evoked, events, blocks, "alternation", 5)
        np.testing.assert_allclose(found, [10 * block + 10] * 3)
