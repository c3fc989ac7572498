"""Units that all replicas share: the crossed bootstrap, Student's over them, and the verdict."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import scipy.stats
import xarray as xr

from pcsim import catalog, stats_bootstrap
from pcsim.hypothesis import Control, Hypothesis, Reference, Requirement, judge
from pcsim.stats import Sample, hierarchical_bootstrap
from pcsim.stats_binomial import clopper_pearson
from pcsim.stats_bootstrap import pseudo_values
from pcsim.stats_student import standard_errors
from pcsim.verdict import ALPHA, Outcome
from pcsim.verdict_effects import wider_interval
from pcsim.verdict_nulls import Scene, Situation
from pcsim.verdict_simulation import judge_many

DRAWS = 10_000
CLAIMS = (Outcome.SUPPORTED, Outcome.QUALITATIVE)
SE_OF_VARIANCE = (2 / DRAWS) ** 0.5
"""Relative, of the variance of near-normal draws."""


def claim(**changes):
    values = {
        "id": "T02", "name": "Shared", "claim": "There is an effect.", "family": "toy",
        "protocol": "None.", "statistic": "Mean.", "units": "1", "signal": "output",
        "falsified_if": "No effect.", "observe": None, "variables": ("gain",),
        "controls": (Control(name="none", statement="No effect.", variant="ZERO"),),
        "reference": Reference(status="read", source="A paper"), "shared": ("unit",),
    }  # fmt: skip
    return Hypothesis(**{**values, **changes})


def evidence(gain, included=None, **coords):
    gain = np.asarray(gain, float)
    dims = ("unit", "stimulus")[: gain.ndim]
    kept = np.ones(len(gain), bool) if included is None else np.asarray(included)
    table = {"gain": (dims, gain), "included": ("unit", kept)}
    return xr.Dataset(table, coords={k: ("unit", v) for k, v in coords.items()})


def judged(ours, theirs, hypothesis=None):
    controls = {"none": theirs}
    return judge(hypothesis or claim(), "M", ours, controls, seeds=range(len(ours)), draws=2000)


def margins(table):
    """Return population variances of rows, of columns, and of what is left."""
    rows, columns = table.mean(1, keepdims=True), table.mean(0, keepdims=True)
    return rows.var(), columns.var(), (table - rows - columns + table.mean()).var()


@pytest.mark.parametrize("n", [3, 30])
def test_three_recorded_cells_do_not_become_more_with_seeds(n):
    # One cell of three is predicted well, the same in all replicas: Student over three cells.
    gain = np.array([0.0, 0.02, 0.30])
    h43 = catalog.load("analysis", "spike_prediction")
    ours = [evidence(np.repeat(gain[:, None], 5, axis=1))] * n
    theirs = {one.name: [evidence(np.zeros((3, 5)))] * n for one in h43.controls}
    found = judge(h43, "RB", ours, theirs, seeds=range(n), draws=2000)
    student = scipy.stats.ttest_1samp(gain, 0.0)
    low, high = student.confidence_interval(0.95)
    assert found.verdict == Outcome.INCONCLUSIVE
    assert (found.low, found.high) == pytest.approx((low, high), rel=1e-9)
    assert found.p == pytest.approx(student.pvalue, rel=1e-9)
    # As if each replica had cells of its own it was a finding.
    old = judge(replace(h43, shared=()), "RB", ours, theirs, seeds=range(n), draws=2000)
    assert old.verdict == Outcome.SUPPORTED


def test_identical_replicas_do_not_narrow_the_interval(rng):
    samples = [Sample({"v": rng.normal(0.5, 1.0, 60)})]
    values = samples[0].values["v"]
    for n in (1, 4, 25):
        found = hierarchical_bootstrap(samples * n, seed=3, shared=("unit",))
        # The replica and its units: nothing is left of n.
        assert found.draws.var() == pytest.approx(values.var() / 60, rel=4 * SE_OF_VARIANCE)
        low, high, _ = wider_interval(found.draws, found.replicas, 0.0, found.shared)
        student = scipy.stats.t.interval(0.95, 59, values.mean(), scipy.stats.sem(values))
        assert low <= student[0] + 1e-12
        assert high >= student[1] - 1e-12


def test_variance_is_that_of_a_crossed_table(rng):
    # Owen (2007), for a full table: rows, columns and the rest by their own numbers.
    table = rng.normal(size=(4, 1)) + 0.7 * rng.normal(size=(1, 9)) + 0.9 * rng.normal(size=(4, 9))
    found = hierarchical_bootstrap([Sample({"v": row}) for row in table], shared=("unit",))
    rows, columns, rest = margins(table)
    expected = rows / 4 + columns / 9 + rest / 36
    assert found.draws.var() == pytest.approx(expected, rel=4 * SE_OF_VARIANCE)
    assert found.draws.mean() == pytest.approx(table.mean(), abs=4 * (expected / DRAWS) ** 0.5)


def test_scatter_within_the_table_counts_more_than_once(rng):
    # Only units in replicas scatter: the true variance is 1 / Rn, and the draws have it
    # (1 - 1/R) + (1 - 1/n) + (1 - 1/R)(1 - 1/n) times: never less than once.
    n, units = 4, 5
    ratio = []
    for seed in range(300):
        table = rng.normal(size=(n, units))
        found = hierarchical_bootstrap(
            [Sample({"v": row}) for row in table], draws=300, seed=seed, shared=("unit",)
        )
        ratio.append(found.draws.var() * n * units)
    a, b = 1 - 1 / n, 1 - 1 / units
    assert np.mean(ratio) == pytest.approx(a + b + a * b, abs=4 * np.std(ratio) / 300**0.5)


def test_units_and_stimuli_can_both_be_shared(rng):
    replica, unit, stimulus = rng.normal(size=(5, 1, 1)), rng.normal(size=6), rng.normal(size=8)
    table = replica + unit[:, None] + stimulus
    samples = [Sample({"v": one}) for one in table]
    both = hierarchical_bootstrap(samples, shared=("stimulus", "unit"))
    expected = replica.var() / 5 + unit.var() / 6 + stimulus.var() / 8
    assert both.draws.var() == pytest.approx(expected, rel=4 * SE_OF_VARIANCE)
    assert [one.size for one in both.shared] == [6, 8]
    # Stimuli alone: each replica takes units of its own.
    one = hierarchical_bootstrap(samples, shared=("stimulus",))
    expected = (replica.var() + unit.var() / 6) / 5 + stimulus.var() / 8
    assert one.draws.var() == pytest.approx(expected, rel=4 * SE_OF_VARIANCE)


def test_without_shared_units_every_bit_is_as_before(rng):
    # The procedure of rule 2 written out: streams (seed, 0), (seed, 1, replica), (seed, 2, ...).
    samples = [Sample({"v": rng.normal(size=(7, 3))}) for _ in range(4)]
    drawn = np.random.default_rng([5, 0]).integers(0, 4, (200, 4))
    expected = np.empty(drawn.shape)
    for r, sample in enumerate(samples):
        k = int((drawn == r).sum())
        units, stimuli = (
            np.random.default_rng([5, axis, r]).integers(0, size, (k, size))
            for axis, size in ((1, 7), (2, 3))
        )
        counts = [
            np.array([np.bincount(one, minlength=size) for one in picked], float)
            for picked, size in ((units, 7), (stimuli, 3))
        ]
        expected[drawn == r] = (
            np.einsum("ks,ks->k", counts[0] @ sample.values["v"] / 7, counts[1]) / 3
        )
    found = hierarchical_bootstrap(samples, draws=200, seed=5, shared=())
    assert np.array_equal(found.draws, expected.mean(axis=1))
    assert found.shared == ()
    # What no variable has cannot be shared.
    flat = [Sample({"v": one.values["v"][:, 0]}) for one in samples]
    a, b = (hierarchical_bootstrap(flat, seed=5, shared=s) for s in ((), ("stimulus",)))
    assert np.array_equal(a.draws, b.draws)


def test_draws_do_not_depend_on_the_block(rng, monkeypatch):
    samples = [Sample({"v": rng.normal(size=(11, 6))}) for _ in range(3)]
    for shared in (("unit",), ("stimulus",), ("unit", "stimulus")):
        whole = hierarchical_bootstrap(samples, draws=400, seed=2, shared=shared)
        with monkeypatch.context() as patch:
            patch.setattr(stats_bootstrap, "BLOCK", 100)
            parts = hierarchical_bootstrap(samples, draws=400, seed=2, shared=shared)
        np.testing.assert_allclose(parts.draws, whole.draws, rtol=1e-12)


def test_pseudo_values_leave_a_unit_out_of_all_replicas(rng):
    tables = [{"x": rng.uniform(1, 2, (6, 4)), "y": rng.uniform(1, 2, 6)} for _ in range(3)]
    samples = [Sample(one) for one in tables]

    def ratio(means):
        return means["y"] / means["x"]

    def estimate(keep):
        return np.mean([one["y"][keep].mean() / one["x"][keep].mean() for one in tables])

    every = np.arange(6)
    expected = [6 * estimate(every) - 5 * estimate(every != j) for j in every]
    np.testing.assert_allclose(pseudo_values(samples, ratio, "unit"), expected, rtol=1e-12)
    # Of a plain mean they are the means of the units, over replicas.
    plain = [Sample({"x": one["x"]}) for one in tables]
    means = np.mean([one["x"] for one in tables], axis=0)
    np.testing.assert_allclose(pseudo_values(plain, None, "unit"), means.mean(1), rtol=1e-12)
    np.testing.assert_allclose(pseudo_values(plain, None, "stimulus"), means.mean(0), rtol=1e-12)


def test_errors_of_both_margins_are_those_of_welch(rng):
    # The sum of two independent squared errors: Welch's test of two means has the same.
    rows, columns = rng.normal(0, 2, 5), rng.normal(0, 1, 12)
    alone, other, both = standard_errors([rows, columns])
    welch = scipy.stats.ttest_ind(rows, columns, equal_var=False)
    assert both[1] == pytest.approx(welch.df, rel=1e-12)
    assert both[0] == pytest.approx(abs((rows.mean() - columns.mean()) / welch.statistic))
    for (error, freedom), values in ((alone, rows), (other, columns)):
        assert (error, freedom) == pytest.approx((scipy.stats.sem(values), values.size - 1))
    assert len(standard_errors([rows, columns[:1]])) == 1
    assert [float(error) for error, _ in standard_errors([0 * rows, 0 * columns])] == [0, 0, 0]


def test_shared_units_cancel_in_the_difference_to_a_control(rng):
    # Units differ a lot and in model and control alike; the model has 0.5 more everywhere.
    unit, own = rng.normal(0.0, 3.0, 12), rng.normal(0.0, 0.01, (2, 4, 12))
    ours, theirs = (
        [evidence(unit + shift + e) for e in one]
        for shift, one in zip((0.5, 0.0), own, strict=True)
    )
    requirement = Requirement(
        name="more", statement="More.", combine=lambda m: m["gain"], against="none"
    )
    found = judged(ours, theirs, claim(requirements=(requirement,)))
    assert found.low < 0 < found.high
    difference = 0.5 + (own[0] - own[1]).mean(axis=0)
    low, high = scipy.stats.t.interval(0.95, 11, difference.mean(), scipy.stats.sem(difference))
    assert 0.45 < found.difference_low <= low + 1e-12
    assert high - 1e-12 <= found.difference_high < 0.55
    span = f"[{found.difference_low:.3g}, {found.difference_high:.3g}]"
    assert span in found.requirements


def test_one_shared_unit_concludes_nothing():
    ours = [evidence([value]) for value in (0.50, 0.51, 0.52)]
    found = judged(ours, [evidence([0.0])] * 3)
    assert found.verdict == Outcome.INCONCLUSIVE
    assert "one and the same unit" in found.reason


@pytest.mark.parametrize(
    ("ours", "theirs", "words"),
    [
        ([evidence([1, 2, 3]), evidence([1, 2])], None, "number of 'unit' of replica 1 of M"),
        (
            [evidence([1, 2]), evidence([1, 2], [True, False])], None,
            "`included` of replica 1 of M other than of replica 0 of M",
        ),
        (
            [evidence([1, 2], cell=["a", "b"]), evidence([1, 2], cell=["b", "a"])], None,
            "cell of replica 1 of M",
        ),
        ([evidence([1, 2])] * 2, [evidence([1, 2, 3])] * 2, "replica 0 of 'none'"),
    ],
)  # fmt: skip
def test_units_that_are_not_the_same_are_refused(ours, theirs, words):
    with pytest.raises(ValueError, match=words):
        judged(ours, theirs or ours)


def test_a_silent_replica_is_left_out_as_ever():
    silent = evidence([9, 9], [False, False])
    found = judged([evidence([1, 2]), silent, evidence([1, 2])], [evidence([0, 0])] * 3)
    assert (found.n_replicas, found.n_included, found.effect) == (2, 4, 1.5)


def test_unlawful_sharing_is_refused(rng):
    with pytest.raises(ValueError, match="expected a tuple of different names"):
        claim(shared="unit")
    with pytest.raises(ValueError, match="shared 'cell'"):
        claim(shared=("cell",))
    unequal = [Sample({"v": rng.normal(size=n)}) for n in (3, 4)]
    with pytest.raises(ValueError, match=r"\[3, 4\] members of 'unit'"):
        hierarchical_bootstrap(unequal, shared=("unit",))
    with pytest.raises(ValueError, match="expected one of 'stimulus', 'unit'"):
        hierarchical_bootstrap(unequal, shared=("cells",))
    pair = [hierarchical_bootstrap([one] * 2, draws=10, shared=("unit",)) for one in unequal]
    with pytest.raises(ValueError, match="shared members"):
        pair[0] - pair[1]


@pytest.mark.parametrize("name", ["spike_prediction", "spatial_whitening", "latency_hierarchy"])
def test_many_at_once_is_the_judge_one_by_one(name, rng):
    shared = replace(catalog.load("analysis", name), shared=("unit",))
    ours, theirs = Scene(shared).evidence(Situation(kind="present", n=4, units=7), 2, rng)
    together = judge_many(shared, ours, theirs, draws=100)["wider"]

    def dataset(stack, k, r):
        values = {v: ("unit", np.resize(a[min(k, len(a) - 1), r], 7)) for v, a in stack.items()}
        return xr.Dataset(values | {"included": ("unit", np.ones(7, bool))})

    for k in range(2):
        controls = {w: [dataset(one, k, r) for r in range(4)] for w, one in theirs.items()}
        mine = [dataset(ours, k, r) for r in range(4)]
        alone = judge(shared, "SIMULATED", mine, controls, seeds=range(4), draws=100)
        assert together.outcomes[k] == alone.verdict
        assert together.p[k] == pytest.approx(alone.p, rel=1e-7)


@pytest.mark.parametrize(("units", "split"), [(3, (0.0, 1.0)), (40, (0.5, 0.5))])
def test_shared_units_do_not_break_the_level(units, split, rng):
    # 2.5 % beyond one end; 0.1 % of correct rules fail. The rule that takes units anew for each
    # of ten replicas claims more than 5 %.
    h43 = catalog.load("analysis", "spike_prediction")
    at = Situation(kind="absent", n=10, units=units, share=split[0], shared=split[1])
    ours, theirs = Scene(h43).evidence(at, 1000, rng)
    rates = []
    for one in (h43, replace(h43, shared=())):
        found = judge_many(one, ours, theirs, draws=200)["wider"]
        hits = sum(o in CLAIMS and p < ALPHA for o, p in zip(found.outcomes, found.p, strict=True))
        rates.append(clopper_pearson(hits, 1000, level=0.998)[0])
    assert rates[0] <= ALPHA / 2
    assert rates[1] > ALPHA


def test_shares_of_variance_are_as_asked(rng):
    h43 = catalog.load("analysis", "spike_prediction")
    at = Situation(kind="absent", n=5, units=8, share=0.2, shared=0.5)
    gain = Scene(h43).evidence(at, 4000, rng)[0]["gain"]
    total = gain.mean(axis=2).var()
    # Replicas of a data set have their shared units in common: the covariance of two of them.
    centred = gain.mean(axis=2) - gain.mean()
    common = np.mean(centred[:, 0] * centred[:, 1])
    assert common / total == pytest.approx(0.5, abs=0.04)
    within = (gain - gain.mean(axis=1, keepdims=True)).var(axis=2, ddof=1).mean() / 8
    assert within * (5 / 4) / total == pytest.approx(0.3, abs=0.02)
