"""Hypotheses: what they refuse, what they judge, and how rarely nothing is called something."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from importlib import resources

import numpy as np
import pytest
import xarray as xr
from hypothesis_cases import Toy, hypothesis, observe, zero

from pcsim.hypothesis import (
    Control,
    Reference,
    Requirement,
    check_evidence,
    expectation_table,
    judge,
)
from pcsim.verdict import Outcome

PINNED = "0cf171cb0c6eb0ff1e661af8f97b35b118e774c265032d26b81847125d8e923a"


def test_expectations_are_the_table_filled_before_the_first_run():
    bytes_ = resources.files("pcsim").joinpath("expectations.csv").read_bytes()
    assert hashlib.sha256(bytes_).hexdigest() == PINNED, (
        "The a-priori expectations were filled before the first run and are never edited."
    )
    table = expectation_table()
    assert table["H14"] == {
        "LN": "-",
        "DN": "+",
        "ADAPT": "?",
        "LCA": "?",
        "RB": "-",
        "RB-cut": "-",
        "VAE-dir": "?",
        "VAE-iter": "?",
        "ARF": "?",
        "PREDNET-s": "?",
    }
    assert len(table) == 39


def test_expectation_of_a_column():
    assert hypothesis(id="H12").expected("DN") == "+"
    assert hypothesis(id="H12").expected("mine") == ""
    assert hypothesis(expectations={"RB": "?"}).expected("RB") == "?"
    assert hypothesis(id="H12", expectations={"mine": "?"}).expected("DN") == "+"
    assert hypothesis(id="H12", expectations={"mine": "?"}).expected("mine") == "?"
    assert hypothesis().expected("RB") == ""


def test_supported_against_a_control_that_fails():
    found = hypothesis().test([Toy()] * 3, train=zero, seeds=[0, 1, 2], label="TOY")
    assert found.verdict == Outcome.SUPPORTED
    assert (found.n_replicas, found.n_included, found.n_total) == (3, 27, 36)
    # 27 values of standard deviation 0.1 around 0.5: within 4 standard errors.
    assert abs(found.effect - 0.5) < 4 * 0.1 / np.sqrt(27)
    assert found.low < found.effect < found.high
    assert found.control == "none"
    assert abs(found.control_effect) < 4 * 0.1 / np.sqrt(27)
    assert found.rank_biserial == 1.0
    assert found.p < 0.05


def test_replicas_of_one_number_carry_it_through():
    def constant(model, *, seed, scale):
        return xr.Dataset(
            {"effect": ("unit", np.full(4, model.size)), "included": ("unit", np.ones(4, bool))}
        )

    found = hypothesis(observe=constant).test(
        [Toy(size=0.4), Toy(size=0.6), Toy(size=0.5)], train=zero, seeds=[0, 1, 2]
    )
    # Mean 0.5; differences to the control 0.4, 0.6, 0.5 with standard deviation 0.1: d_z = 5.
    assert found.effect == pytest.approx(0.5, abs=1e-12)
    assert found.d_z == pytest.approx(5.0, abs=1e-9)
    # Student, 2 degrees of freedom: t(0.975) = 4.302653 (table); standard error 0.1 / sqrt 3.
    half = 4.302653 * 0.1 / 3**0.5
    assert (found.low, found.high) == pytest.approx((0.5 - half, 0.5 + half), abs=1e-7)


def test_direction_below_gives_positive_effect_sizes():
    found = hypothesis(direction=-1, reference=Reference()).test(
        [Toy(size=-0.5)] * 3, train=zero, seeds=[0, 1, 2]
    )
    assert found.verdict == Outcome.QUALITATIVE
    assert found.d_z > 0
    assert found.rank_biserial == 1.0


def test_transform_control_and_non_specific():
    cut = Control(name="halved", statement="", transform=lambda m, seed: replace(m, size=0.35))
    found = hypothesis(controls=(cut,)).test([Toy()] * 3, train=zero, seeds=[0, 1, 2])
    assert found.verdict == Outcome.NON_SPECIFIC
    assert found.control == "halved"


def test_lesion_without_effect_on_the_model_makes_it_its_own_control():
    nothing = Control(name="lesion", statement="", transform=lambda m, seed: m)
    found = hypothesis(controls=(nothing,)).test([Toy()] * 3, train=zero, seeds=[0, 1, 2])
    assert found.verdict == Outcome.NON_SPECIFIC
    assert (found.difference_low, found.difference_high) == (0.0, 0.0)


def test_column_that_is_its_own_control():
    found = hypothesis().test(
        [Toy()] * 3, train=lambda label, seed: Toy(), seeds=[0, 1, 2], label="ZERO"
    )
    assert found.verdict == Outcome.NON_SPECIFIC
    assert "this model is the control" in found.reason
    assert found.itself
    # It is not compared with itself.
    assert (found.control, found.control_effect, found.difference_low) == ("", None, None)


def test_effect_of_a_control_is_read_off_its_own_replicas():
    weaker = Requirement(
        name="beyond", statement="", combine=lambda means: means["effect"], against="none"
    )
    flat = Control(name="flat", statement="", transform=lambda m, seed: replace(m, size=0.0))
    base = hypothesis()
    claim = hypothesis(controls=(*base.controls, flat), requirements=(weaker,))
    models = {size: [Toy(size=size)] * 3 for size in (0.5, 0.0, -0.5)}
    found = {
        size: claim.test(own, train=lambda label, seed, s=size: Toy(size=s), seeds=[0, 1, 2],
                         label="ZERO")
        for size, own in models.items()
    }  # fmt: skip
    assert all(one.itself for one in found.values())
    # No difference to itself is asked for: that is 0 whatever the effect.
    assert [one.requirements for one in found.values()] == ["", "", ""]
    assert found[0.5].control == "flat"
    assert [one.verdict for one in found.values()] == [
        Outcome.NON_SPECIFIC, Outcome.INCONCLUSIVE, Outcome.REFUTED,
    ]  # fmt: skip
    other = claim.test(models[0.5], train=zero, seeds=[0, 1, 2], label="TOY")
    assert (other.itself, other.verdict) == (False, Outcome.SUPPORTED)
    assert other.requirements.startswith("beyond: ")


def test_a_control_of_a_requirement_alone_is_no_evidence_either():
    beyond = Requirement(
        name="beyond", statement="", combine=lambda means: means["effect"], against="aside"
    )
    controls = (
        Control(name="none", statement="", transform=lambda m, seed: replace(m, size=0.0)),
        Control(name="aside", statement="", variant="ZERO", for_effect=False),
    )
    claim = hypothesis(controls=controls, requirements=(beyond,))
    train = lambda label, seed: Toy()  # noqa: E731
    found = claim.test([Toy()] * 3, train=train, seeds=[0, 1, 2], label="ZERO")
    assert (found.itself, found.verdict) == (True, Outcome.NON_SPECIFIC)
    assert found.control == "none"


def test_the_effect_of_each_replica_is_kept():
    def constant(model, *, seed, scale):
        values = {"effect": ("unit", np.full(4, model.size))}
        return xr.Dataset({**values, "included": ("unit", np.ones(4, bool))})

    found = hypothesis(observe=constant).test(
        [Toy(size=0.4), Toy(size=0.6), Toy(size=0.5)],
        train=lambda label, seed: Toy(size=0.1 * seed),
        seeds=[0, 1, 2],
    )
    assert found.replicas == pytest.approx((0.4, 0.6, 0.5), abs=1e-12)
    assert found.control_replicas == pytest.approx((0.0, 0.1, 0.2), abs=1e-12)
    assert found.seeds == (0, 1, 2)


def test_two_replicas_conclude_nothing():
    found = hypothesis().test([Toy()] * 2, train=zero, seeds=[0, 1])
    assert found.verdict == Outcome.INCONCLUSIVE
    assert "Only 2 replicas" in found.reason
    single = hypothesis().test([Toy()], train=zero, seeds=[0])
    assert single.verdict == Outcome.INCONCLUSIVE
    assert single.d_z is None


def test_model_without_the_signal_is_not_applicable():
    found = hypothesis().test([Toy(signal=False)] * 3, train=zero, seeds=[0, 1, 2])
    assert found.verdict == Outcome.NA
    assert found.reason == "it is silent"
    assert found.effect is None


def test_control_without_the_signal_leaves_it_open():
    silent = lambda label, seed: Toy(signal=False)  # noqa: E731
    found = hypothesis().test([Toy()] * 3, train=silent, seeds=[0, 1, 2])
    assert found.verdict == Outcome.INCONCLUSIVE
    assert "lacks the signal" in found.reason


def test_no_included_units():
    def none(model, *, seed, scale):
        evidence = observe(model, seed=seed, scale=scale)
        return evidence.assign(included=("unit", np.zeros(evidence.sizes["unit"], bool)))

    found = hypothesis(observe=none).test([Toy()] * 3, train=zero, seeds=[0, 1, 2])
    assert found.verdict == Outcome.INCONCLUSIVE
    assert found.reason == "None of 36 units passes the inclusion rule."
    assert (found.n_replicas, found.n_included, found.n_total) == (0, 0, 36)


def test_requirement_against_a_control():
    beyond = Requirement(
        name="beyond zero",
        statement="More than the control.",
        combine=lambda means: means["effect"],
        null=0.6,
        against="none",
    )
    found = hypothesis(requirements=(beyond,)).test([Toy()] * 3, train=zero, seeds=[0, 1, 2])
    assert found.verdict == Outcome.REFUTED
    assert "beyond zero: 0." in found.requirements
    assert "wanted > 0.6" in found.requirements


def test_requirement_whose_control_was_not_measured_leaves_it_open():
    aside = Control(name="aside", statement="", variant="MUTE", for_effect=False)
    beyond = Requirement(name="more", statement="", combine=lambda m: m["effect"], against="aside")
    test = hypothesis(controls=(*hypothesis().controls, aside), requirements=(beyond,))

    def train(label: str, seed: int) -> Toy:
        return Toy(size=0.0, signal=label != "MUTE")

    found = test.test([Toy()] * 3, train=train, seeds=[0, 1, 2])
    assert found.verdict == Outcome.INCONCLUSIVE
    assert "'more' was not measured" in found.reason
    assert found.requirements == "more: not measured"
    heard = test.test([Toy()] * 3, train=zero, seeds=[0, 1, 2])
    assert heard.verdict == Outcome.SUPPORTED
    assert heard.control == "none"


def test_p_is_the_largest_of_effect_and_requirements():
    weak = Requirement(name="w", statement="", combine=lambda m: m["effect"] - 0.5, direction=1)
    alone = hypothesis().test([Toy()] * 3, train=zero, seeds=[0, 1, 2])
    both = hypothesis(requirements=(weak,)).test([Toy()] * 3, train=zero, seeds=[0, 1, 2])
    assert both.p > alone.p


def test_stimulus_dimension_and_two_variables():
    def two(model, *, seed, scale):
        peak = np.tile([4.0, 2.0], (5, 1)) + 0.01 * seed
        return xr.Dataset(
            {
                "peak": (("unit", "stimulus"), peak),
                "plateau": (("unit", "stimulus"), 0.5 * peak if model.size else peak),
                "included": ("unit", np.ones(5, bool)),
            }
        )

    test = hypothesis(
        observe=two,
        variables=("peak", "plateau"),
        combine=lambda means: 1.0 - means["plateau"] / means["peak"],
    )
    found = test.test([Toy()] * 3, train=zero, seeds=[0, 1, 2])
    assert found.effect == pytest.approx(0.5, abs=1e-12)
    assert found.control_effect == pytest.approx(0.0, abs=1e-12)


def test_responses_beside_the_evidence():
    with_responses = hypothesis(observe=lambda m, *, seed, scale: (observe(m, seed=seed, scale=scale), xr.Dataset()))  # fmt: skip  # noqa: E501
    assert with_responses.test([Toy()] * 3, train=zero, seeds=[0, 1, 2]).verdict == "SUPPORTED"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"direction": 0}, "direction 0"),
        ({"variables": ()}, "no variables"),
        ({"variables": ("a", "b")}, "a, b but no combine"),
        ({"controls": ()}, "a model that ought to fail"),
        ({"controls": (Control(name="a", statement="", variant="x"),) * 2}, "Rename one"),
        (
            {"requirements": (Requirement(name="r", statement="", combine=len, against="nona"),)},
            "Did you mean 'none'",
        ),
    ],
)
def test_unlawful_hypotheses_are_refused(changes, words):
    with pytest.raises(ValueError, match=words):
        hypothesis(**changes)


def test_unlawful_parts_are_refused():
    with pytest.raises(ValueError, match="status='remembered'"):
        Reference(interval=(0.1, 0.2), status="read")
    with pytest.raises(ValueError, match="Did you mean 'read'"):
        Reference(status="rea")
    with pytest.raises(ValueError, match="low < high"):
        Reference(interval=(0.2, 0.1))
    with pytest.raises(ValueError, match="neither variant nor transform"):
        Control(name="c", statement="")
    with pytest.raises(ValueError, match="both variant and transform"):
        Control(name="c", statement="", variant="LN", transform=lambda m, s: m)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda e: e.drop_vars("effect"), "Add effect"),
        (lambda e: e.drop_vars("included"), "Add included"),
        (lambda e: e.assign(included=e.included.astype(float)), "`included` of type float64"),
        (lambda e: e.assign(effect=e.effect.expand_dims("time")), "`effect` with dims"),
        (lambda e: e.assign(effect=e.effect * np.nan), "NaN or infinite"),
    ],
)
def test_unlawful_evidence_is_refused(change, words):
    evidence = change(observe(Toy(), seed=0, scale="quick"))
    with pytest.raises(ValueError, match=words):
        check_evidence(hypothesis(), evidence)


def test_unpaired_replicas_are_refused():
    one = observe(Toy(), seed=0, scale="quick")
    with pytest.raises(ValueError, match="Pair them by seed"):
        judge(hypothesis(), "TOY", [one] * 3, {"none": [one] * 2}, seeds=[0, 1, 2])
    with pytest.raises(ValueError, match="one seed for every replica"):
        hypothesis().test([Toy()] * 2, train=zero, seeds=[0])


def null_evidence(rng: np.random.Generator, n: int, replica_sd: float) -> list[xr.Dataset]:
    return [
        xr.Dataset(
            {
                "effect": ("unit", rng.normal(replica_sd * rng.standard_normal(), 1.0, 20)),
                "included": ("unit", np.ones(20, bool)),
            }
        )
        for _ in range(n)
    ]


@pytest.mark.parametrize(
    ("n", "replica_sd", "allowed"),
    [
        # Units vary, replicas hardly: 2.5 % in the predicted direction. P(> 17 of 300) < 0.001.
        (5, 0.1, 17),
        # Replicas vary and there are three: all lie on one side in 1 of 8 runs, which no bootstrap
        # over three can tell from an effect; the control has to fail as well. P(> 57) < 0.001.
        (3, 3.0, 57),
    ],
)
def test_nothing_is_rarely_called_supported(rng, n, replica_sd, allowed):
    test = hypothesis(reference=Reference(status="computed", source="sign only"))
    calls = 0
    for _ in range(300):
        ours, control = null_evidence(rng, n, replica_sd), null_evidence(rng, n, replica_sd)
        found = judge(test, "TOY", ours, {"none": control}, seeds=range(n), draws=400)
        calls += found.verdict == Outcome.SUPPORTED
    assert calls <= allowed
