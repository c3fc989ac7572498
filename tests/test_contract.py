"""The contract: every content file obeys it, and it finds what does not."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import partial
from types import FunctionType
from typing import Any

import numpy as np
import pytest

from pcsim import catalog
from pcsim.contract import (
    check_experiment,
    check_file,
    check_hypothesis,
    check_model,
    probe,
)
from pcsim.contract_hypothesis import NAMES_FULL, false_calls, sizes_by_scale
from pcsim.hypothesis import Control, Hypothesis, Reference
from pcsim.protocols import by_scale
from pcsim.responses import make_responses
from pcsim.stimulus import check_stimulus

CHECKS = {"circuits": check_model, "analysis": check_hypothesis, "experiments": check_experiment}
EVERY = [
    pytest.param(room, name, marks=[pytest.mark.slow] if room == "analysis" else [])
    for room in CHECKS
    for name in catalog.names(room)
]


@pytest.mark.parametrize(("room", "name"), EVERY)
def test_every_content_file_is_lawful(room, name):
    assert CHECKS[room](catalog.load(room, name)) == []


@dataclass(frozen=True)
class Toy:
    """A lawful model of four pixels, and ways to break each law."""

    slip: str = ""
    field_shape: tuple[int, int] | None = (2, 2)
    px_per_deg: float | None = 16.0
    memory: list[Any] = field(default_factory=list)

    def run(self, stimulus, *, seed=0, record=None):
        if self.slip != "takes NaN":
            check_stimulus(stimulus, "Toy")
        rate = stimulus.values.reshape(*stimulus.shape[:2], -1).copy()
        rng = np.random.default_rng(seed)
        units = {"population": "output", "level": 0, "x": np.arange(4.0)}
        if self.slip == "global noise":
            rate += np.random.default_rng().normal(size=rate.shape)
        elif self.slip == "mean over trials":
            rate -= rate.mean(axis=0)
        elif self.slip == "noise by row":
            rate += rng.normal(size=rate.shape)
        elif self.slip == "in place":
            stimulus.values[:] *= 2
        elif self.slip == "memory":
            self.memory.append(seed)
        elif self.slip == "order by seed":
            units["x"] = rng.permutation(4) + 0.0
        elif self.slip == "shape":
            rate = rate[0]
        elif self.slip == "takes NaN":
            rate = np.nan_to_num(rate)
        trial = {"condition": stimulus.condition.values} if self.slip == "labels" else stimulus
        time = stimulus.time.values if "time" in stimulus.coords else [0.0]
        return make_responses(rate, time=time, units=units, trial=trial)


def test_lawful_toy():
    assert check_model(Toy()) == []


@pytest.mark.parametrize(
    ("slip", "words"),
    [
        ("global noise", "same seed: found another answer"),
        ("mean over trials", "trials independent: found rates that move"),
        ("noise by row", "seed noise by trial number"),
        ("in place", "input untouched: found a changed stimulus"),
        ("memory", "model untouched: found a model changed by run"),
        ("order by seed", "unit order: found x that changes"),
        ("shape", "model: found ValueError"),
        ("takes NaN", "bad input refused: found an answer to a stimulus with NaN"),
        ("labels", "labels: found responses without the stimulus's own 'number'"),
    ],
)
def test_each_slip_is_found(slip, words):
    assert any(words in law for law in check_model(Toy(slip)))


def test_what_cannot_be_pickled_is_found():
    @dataclass(frozen=True)
    class Local(Toy):
        pass

    assert any("no way to pickle it" in law for law in check_model(Local()))


def test_what_is_no_model_is_said():
    assert "expected run, field_shape" in check_model(object())[0]
    assert "number of features" in check_model(replace(Toy(), field_shape=None))[0]


def test_learners_without_a_curriculum_are_found():
    class Learner(Toy):
        def fit(self, stimulus, *, seed=0):
            return self

    assert any("learner: found no curriculum" in law for law in check_model(Learner()))


def test_probe_fits_the_model():
    stimulus = check_stimulus(probe(Toy(), n_trials=5))
    assert stimulus.shape == (5, 2, 2, 2)
    assert len(set(stimulus.condition.values)) == 5
    assert stimulus.identical(probe(Toy(), n_trials=5))


def _evidence(model, *, seed, scale):
    import xarray as xr

    stimulus = probe(model, n_trials=4, seed=seed)
    rate = model.run(stimulus, seed=seed).rate.values[:, -1]
    return xr.Dataset(
        {
            "effect": ("unit", rate.mean(axis=0)),
            "always": ("unit", np.abs(rate).mean(axis=0) + 4.0),
            "included": ("unit", np.ones(rate.shape[1], bool)),
        }
    )


LAWFUL = Hypothesis(
    id="X01",
    name="Mean",
    claim="The mean is above zero.",
    family="V1",
    protocol="Four probes.",
    statistic="Mean rate.",
    signal="any",
    falsified_if="The mean is not above zero.",
    observe=_evidence,
    variables=("effect",),
    controls=(Control(name="linear", statement="It has no feedback.", variant="LN"),),
    reference=Reference(value=0.7, status="remembered", source="Nobody 1999"),
    expectations={"RB": "+", "LN": "-"},
)


def test_lawful_hypothesis():
    assert check_hypothesis(LAWFUL) == []


def _drawn_anew(model, *, seed, scale):
    evidence = _evidence(model, seed=seed, scale=scale)
    return evidence.assign(effect=evidence.effect + np.random.default_rng().normal())


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"claim": " "}, "found an empty claim"),
        ({"falsified_if": ()}, "found an empty falsified_if"),
        ({"departures": "No drift."}, "found departures 'No drift.'"),
        ({"remembered": ("The rate.", " ")}, "found remembered"),
        ({"version": 0}, "found version 0"),
        ({"expectations": {}}, "before the first run"),
        ({"expectations": {"RB": "yes"}}, "expectation 'yes' for RB"),
        ({"id": "H12", "expectations": {"DN": "-"}}, "'+', as the battery's table has it"),
        ({"controls": (Control(name="a", statement="", variant="LN"),)}, "without text"),
        ({"controls": (Control(name="a", statement="b", variant="LNN"),)}, "Did you mean 'LN'"),
        ({"reference": Reference(value=0.7)}, "a reference number without a source"),
        ({"observe": _drawn_anew}, "other evidence from the same model and seed"),
        ({"variables": ("absent",)}, "absent"),
        ({"missing": lambda model: "it never has"}, "no model of the roster"),
    ],
)
def test_each_slip_of_a_hypothesis_is_found(changes, words):
    found = check_hypothesis(replace(LAWFUL, **changes))
    assert any(words in law for law in found), found


def test_a_protocol_that_is_silent_on_one_scale_is_found():
    sizes = {**globals(), "N_SHOWN": {"quick": 4, "full": 8}, "SHARES": {"quick": 0.1}}
    observe = FunctionType(_evidence.__code__, sizes)
    observe.__kwdefaults__ = _evidence.__kwdefaults__
    for one in (observe, partial(partial(observe))):
        claim = replace(LAWFUL, observe=one)
        (law,) = check_hypothesis(claim)
        assert "one scale's numbers, though N_SHOWN has two" in law
        assert check_hypothesis(replace(claim, protocol="4 probes (full: 8).")) == []
        assert len(check_hypothesis(replace(claim, protocol="Full-field or full contrast."))) == 1


@pytest.mark.parametrize("name", catalog.names("analysis"))
def test_protocols_give_the_numbers_of_both_scales(name):
    claim = catalog.load("analysis", name)
    if sizes_by_scale(claim.observe):
        assert NAMES_FULL.search(claim.protocol), claim.protocol


def test_sizes_are_found_where_claims_have_them():
    # H26 and H38 share a function of `pcsim.protocols`, whose file holds the sizes.
    for name in ("laminar_assignment", "visuomotor_mismatch"):
        claim = catalog.load("analysis", name)
        assert sizes_by_scale(claim.observe) == ["N_HALTS", "N_REPLAYS"]
    assert sizes_by_scale(catalog.load("analysis", "surround_suppression").observe) == []
    assert by_scale({"quick": 24, "full": 64}, "units") == "24 units (full: 64)"


def test_a_statistic_that_finds_an_effect_in_noise_is_caught_by_its_control():
    # Every model has |rate| + 4: noise in place of the control shows it as well.
    assert check_hypothesis(replace(LAWFUL, variables=("always",))) == []


def test_effects_in_noise_that_no_control_shows_are_found(monkeypatch):
    import pcsim.contract_hypothesis as laws
    from pcsim.verdict import Outcome

    judge = laws.judge

    def too_eager(*arguments, **options):
        return replace(judge(*arguments, **options), verdict=Outcome.QUALITATIVE)

    monkeypatch.setattr(laws, "judge", too_eager)
    found = check_hypothesis(LAWFUL)
    assert any("X01 null: found an effect called in 20 of 20 splits" in law for law in found)


def test_no_effect_is_rarely_called_one(rng):
    import xarray as xr

    evidence = xr.Dataset(
        {"effect": ("unit", rng.normal(size=60)), "included": ("unit", np.ones(60, bool))}
    )
    assert false_calls(LAWFUL, evidence) <= 5


def test_what_is_no_hypothesis_is_said():
    assert "expected a pcsim.hypothesis.Hypothesis" in check_hypothesis("H10")[0]


@dataclass(frozen=True)
class Piece:
    key: str


@dataclass(frozen=True)
class Question:
    name: str = "question"
    question: str = "Does it?"
    scales: Any = field(default_factory=lambda: {"quick": {"seeds": 3}, "full": {"seeds": 5}})

    def pieces(self, settings):
        return [Piece(f"seed/{i}") for i in settings["seeds"]]


def test_experiments():
    assert check_experiment(Question()) == []
    twice = Question(scales={scale: {"seeds": (3, 3)} for scale in ("quick", "full")})
    assert "2 pieces with 1 keys" in check_experiment(twice)[0]
    assert "empty question" in check_experiment(Question(question=""))[0]
    assert "'full' missing" in check_experiment(Question(scales={"quick": {"seeds": 3}}))[0]
    no_seeds = {"quick": {"n": 1}, "full": {"seeds": 1}}
    assert "without seeds" in check_experiment(Question(scales=no_seeds))[0]


def test_check_file_knows_the_room(tmp_path, refused):
    path = tmp_path / "mine.py"
    path.write_text("MODEL = 3\n")
    assert check_file(path) == [
        "model: found a int, expected run, field_shape and px_per_deg. See pcsim.model.Model."
    ]
    path.write_text("HYPOTHESIS = 3\n")
    assert "hypothesis" in check_file(path)[0]
    path.write_text("x = 3\n")
    assert "exports MODEL" in refused(check_file, path)
