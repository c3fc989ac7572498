"""The verdict rule on constructed intervals, branch by branch, Holm, and the table on disk."""

from __future__ import annotations

import csv
import math
from dataclasses import fields, replace

import pytest

from pcsim.verdict import (
    ControlResult,
    Effect,
    Outcome,
    RequirementResult,
    Verdict,
    adjust,
    decide,
    read_csv,
    to_csv,
)
from pcsim.verdict_expectations import agreement, presence

FAILS = ControlResult("LN", Effect(0.01, -0.02, 0.04), Effect(0.39, 0.25, 0.5))
STRONG = Effect(0.4, 0.3, 0.5)


def test_supported_with_point_in_reference():
    outcome, reason = decide(STRONG, [FAILS], reference=((0.3, 0.7), "read"))
    assert outcome == Outcome.SUPPORTED
    assert "reference interval [0.3, 0.7]" in reason


def test_supported_when_only_the_sign_is_published():
    assert decide(STRONG, [FAILS], reference=(None, "computed"))[0] == Outcome.SUPPORTED


def test_qualitative_outside_reference_says_by_how_much():
    outcome, reason = decide(STRONG, [FAILS], reference=((0.55, 0.7), "read"))
    assert outcome == Outcome.QUALITATIVE
    assert "misses the reference [0.55, 0.7] by 0.15" in reason
    outcome, reason = decide(STRONG, [FAILS], reference=((0.1, 0.2), "computed"))
    assert outcome == Outcome.QUALITATIVE
    assert "by 0.2" in reason


@pytest.mark.parametrize("interval", [None, (0.3, 0.7)])
def test_remembered_is_never_supported(interval):
    outcome, reason = decide(STRONG, [FAILS], reference=(interval, "remembered"))
    assert outcome == Outcome.QUALITATIVE
    assert "remembered" in reason


def test_refuted_on_the_wrong_side():
    assert decide(Effect(-0.4, -0.5, -0.3), [FAILS])[0] == Outcome.REFUTED
    outcome, reason = decide(STRONG, [FAILS], null=0.6)
    assert outcome == Outcome.REFUTED
    assert "wrong side of 0.6" in reason


def test_refuted_wholly_inside_the_rope_even_with_the_right_sign():
    outcome, reason = decide(Effect(0.04, 0.01, 0.07), [FAILS], rope=(-0.1, 0.1))
    assert outcome == Outcome.REFUTED
    assert "practically none" in reason
    assert decide(Effect(0.08, 0.01, 0.13), [FAILS], rope=(-0.1, 0.1))[0] != Outcome.REFUTED


def test_refuted_by_a_requirement():
    wrong = RequirementResult("cross above iso", Effect(-0.2, -0.3, -0.1))
    outcome, reason = decide(STRONG, [FAILS], [wrong])
    assert outcome == Outcome.REFUTED
    assert "'cross above iso' fails" in reason


def test_inconclusive_when_the_interval_includes_the_null():
    outcome, reason = decide(Effect(0.2, -0.1, 0.5), [FAILS])
    assert outcome == Outcome.INCONCLUSIVE
    assert "includes 0" in reason


def test_inconclusive_when_a_requirement_is_open():
    open_ = RequirementResult("locality", Effect(0.2, -0.1, 0.5))
    outcome, reason = decide(STRONG, [FAILS], [open_])
    assert outcome == Outcome.INCONCLUSIVE
    assert "'locality' is open" in reason


@pytest.mark.parametrize(("share", "expected"), [(0.49, "SUPPORTED"), (0.51, "NON-SPECIFIC")])
def test_non_specific_from_half_of_the_effect(share, expected):
    half = ControlResult("LCA", Effect(share * 0.4, 0.1, 0.25), Effect(0.2, 0.1, 0.3))
    assert decide(STRONG, [FAILS, half])[0] == expected


def test_share_is_relative_to_the_null():
    # Ratios around 1: the control's 1.3 is 3/4 of the model's 1.4 above null, not 1.3 / 1.4.
    model, null = Effect(1.4, 1.2, 1.6), 1.0
    weak = ControlResult("c", Effect(1.1, 1.0, 1.2), Effect(0.3, 0.1, 0.5))
    assert decide(model, [weak], null=null)[0] == Outcome.SUPPORTED
    strong = ControlResult("c", Effect(1.3, 1.2, 1.4), Effect(0.1, 0.05, 0.2))
    outcome, reason = decide(model, [strong], null=null)
    assert outcome == Outcome.NON_SPECIFIC
    assert "75 %" in reason


def test_inconclusive_when_the_difference_includes_zero():
    noisy = ControlResult("LN", Effect(0.1, -0.3, 0.5), Effect(0.3, -0.1, 0.7))
    outcome, reason = decide(STRONG, [FAILS, noisy])
    assert outcome == Outcome.INCONCLUSIVE
    assert "includes 0" in reason


def test_a_model_that_is_its_own_control_is_never_supported():
    itself = ControlResult("LN", STRONG, Effect(0.0, 0.0, 0.0), itself=True)
    assert decide(STRONG, [itself, FAILS])[0] == Outcome.NON_SPECIFIC
    unmeasured = replace(itself, effect=None, difference=None)
    assert decide(STRONG, [unmeasured])[0] == Outcome.NON_SPECIFIC
    # Its own effect and requirements decide first.
    assert decide(Effect(0.4, -0.1, 0.9), [itself])[0] == Outcome.INCONCLUSIVE
    assert decide(Effect(-0.4, -0.5, -0.3), [itself])[0] == Outcome.REFUTED
    wrong = RequirementResult("r", Effect(-0.2, -0.3, -0.1))
    assert decide(STRONG, [itself], [wrong])[0] == Outcome.REFUTED


@pytest.mark.parametrize(
    ("hypothesis", "model"), [("H11", "LCA"), ("H12", "DN"), ("H19", "ADAPT"), ("H25", "ADAPT")]
)
def test_a_control_keeps_its_expectation_by_its_effect(hypothesis, model):
    from pcsim.catalog import load, names

    (claim,) = (h for name in names("analysis") if (h := load("analysis", name)).id == hypothesis)
    assert any(one.variant == model for one in claim.controls)
    mark = claim.expected(model)
    assert mark == "+"
    outcome = {
        "present": Outcome.NON_SPECIFIC, "open": Outcome.INCONCLUSIVE, "absent": Outcome.REFUTED,
    }  # fmt: skip
    kept = {p: agreement(mark, outcome[p], itself=True) for p in outcome}
    assert kept == {"present": "kept", "open": "undecided", "absent": "against"}
    assert all(presence(outcome[p]) == p for p in outcome)
    # Foretold to lack the effect it is against the expectation to show it.
    foretold = {p: agreement("-", outcome[p], itself=True) for p in outcome}
    assert foretold == {"present": "against", "open": "undecided", "absent": "kept"}
    # Of a column that is no control, NON-SPECIFIC is a failure.
    assert agreement(mark, Outcome.NON_SPECIFIC) == "against"


def test_inconclusive_without_a_measured_control():
    missing = ControlResult("LCA", None, None, note="it lacks the signal")
    outcome, reason = decide(STRONG, [FAILS, missing])
    assert outcome == Outcome.INCONCLUSIVE
    assert "'LCA' was not measured: it lacks the signal" in reason
    assert decide(STRONG, [])[0] == Outcome.INCONCLUSIVE


def test_predicted_below_the_null_mirrors_above():
    mirrored = ControlResult("LN", Effect(-0.01, -0.04, 0.02), Effect(-0.39, -0.5, -0.25))
    below = Effect(-0.4, -0.5, -0.3)
    found = decide(below, [mirrored], direction=-1, reference=((-0.7, -0.3), "read"))[0]
    assert found == Outcome.SUPPORTED
    assert decide(STRONG, [FAILS], direction=-1)[0] == Outcome.REFUTED


def test_refuted_comes_before_non_specific_and_before_open_requirements():
    same = ControlResult("LN", Effect(-0.4, -0.5, -0.3), Effect(0.0, -0.1, 0.1))
    open_ = RequirementResult("open", Effect(0.1, -0.1, 0.3))
    assert decide(Effect(-0.4, -0.5, -0.3), [same], [open_])[0] == Outcome.REFUTED


def verdict(hypothesis: str, p: float | None, *, model: str = "RB", **changes) -> Verdict:
    values = {"version": 1, "family": "V1", "verdict": Outcome.SUPPORTED, "reason": "There."}
    return Verdict(hypothesis=hypothesis, model=model, p=p, **{**values, **changes})


def test_holm_within_family_and_model():
    # Holm by hand: 0.01 * 3 = 0.03; 0.03 * 2 = 0.06; 0.04 -> 0.06 (monotone).
    table = [
        verdict("H10", 0.04),
        verdict("H11", 0.01),
        verdict("H12", 0.03),
        verdict("H01", 0.04, family="retina"),
        verdict("H10", 0.04, model="LN"),
    ]
    found = adjust(table)
    assert [one.p_holm for one in found] == pytest.approx([0.06, 0.03, 0.06, 0.04, 0.04])
    assert [str(one.verdict) for one in found] == [
        "INCONCLUSIVE",
        "SUPPORTED",
        "INCONCLUSIVE",
        "SUPPORTED",
        "SUPPORTED",
    ]
    assert found[0].reason.startswith("Would be SUPPORTED, but its Holm-corrected p of 0.06")


@pytest.mark.parametrize("outcome", [Outcome.QUALITATIVE, Outcome.NON_SPECIFIC])
def test_holm_also_takes_back_weaker_claims(outcome):
    assert adjust([verdict("H10", 0.07, verdict=outcome)])[0].verdict == Outcome.INCONCLUSIVE


def test_holm_leaves_refuted_and_not_applicable():
    table = [verdict("H10", 0.9, verdict=Outcome.REFUTED), verdict("H11", None)]
    table[1] = replace(table[1], verdict=Outcome.NA)
    found = adjust(table)
    assert [one.verdict for one in found] == [Outcome.REFUTED, Outcome.NA]
    assert found[1].p_holm is None
    # What is not tested does not count among the tests.
    assert found[0].p_holm == pytest.approx(0.9)


def test_table_survives_the_disk_in_the_same_bytes(tmp_path):
    table = [
        verdict("H10", 2 / 10001, effect=1 / 3, low=-0.0, d_z=math.inf, seeds=(0, 1, 2)),
        verdict("H11", None, verdict=Outcome.NA, reason='It has "no" error, units;\nnone.'),
        verdict("H12", 0.01, itself=True, replicas=(0.1, 1 / 3), control_replicas=(-2e-9, 4.0)),
    ]
    to_csv(table, tmp_path / "a.csv")
    found = read_csv(tmp_path / "a.csv")
    assert found[0].effect == 0.333333333
    assert found[0].d_z == math.inf
    assert found[1].p is None
    assert found[1].reason == table[1].reason
    assert found[0].seeds == (0, 1, 2)
    assert [one.itself for one in found] == [False, False, True]
    assert found[2].replicas == (0.1, 0.333333333)
    assert found[2].control_replicas == (-2e-9, 4.0)
    to_csv(found, tmp_path / "b.csv")
    assert (tmp_path / "a.csv").read_bytes() == (tmp_path / "b.csv").read_bytes()
    assert b"-0," not in (tmp_path / "a.csv").read_bytes()


def test_header_is_the_fields(tmp_path):
    to_csv([], tmp_path / "empty.csv")
    header = (tmp_path / "empty.csv").read_text().strip().split(",")
    assert header == [item.name for item in fields(Verdict)]
    assert read_csv(tmp_path / "empty.csv") == []


def test_a_table_of_an_older_version_is_read(tmp_path):
    said = decide(STRONG, [ControlResult("LN", STRONG, None, itself=True)])[1]
    table = [
        verdict("H12", 0.01, verdict=Outcome.NON_SPECIFIC, reason=said),
        verdict("H12", 0.01, model="LN", verdict=Outcome.NON_SPECIFIC),
    ]
    to_csv(table, tmp_path / "new.csv")
    with (tmp_path / "new.csv").open(newline="") as file:
        rows = list(csv.reader(file))
    width = rows[0].index("itself")
    assert rows[0][width:] == ["itself", "replicas", "control_replicas"]
    with (tmp_path / "old.csv").open("w", newline="") as file:
        csv.writer(file).writerows(row[:width] for row in rows)
    found = read_csv(tmp_path / "old.csv")
    # That a column is the control stands in its reason.
    assert [one.itself for one in found] == [True, False]
    assert found[0].replicas == ()
    assert [replace(one, itself=False) for one in found] == read_csv(tmp_path / "new.csv")


def test_a_damaged_table_is_refused(tmp_path):
    (tmp_path / "a.csv").write_text("model,verdict\nRB,SUPPORTED\n")
    with pytest.raises(ValueError, match="Was it written by another version"):
        read_csv(tmp_path / "a.csv")
    to_csv([verdict("H10", 0.1)], tmp_path / "b.csv")
    broken = (tmp_path / "b.csv").read_text().replace("SUPPORTED", "SUPPOR")
    (tmp_path / "b.csv").write_text(broken)
    with pytest.raises(ValueError, match="row that cannot be read"):
        read_csv(tmp_path / "b.csv")


@pytest.mark.parametrize("cells", [1, 5, 30])
def test_a_table_cut_short_is_refused(tmp_path, cells):
    to_csv([verdict("H10", 0.1), verdict("H11", 0.1)], tmp_path / "a.csv")
    lines = (tmp_path / "a.csv").read_text().splitlines()
    assert lines[2].count(",") >= 30
    lines[2] = ",".join(lines[2].split(",")[:cells])
    (tmp_path / "a.csv").write_text("\n".join(lines))
    with pytest.raises(ValueError, match="row 2 that is cut short or too long"):
        read_csv(tmp_path / "a.csv")
