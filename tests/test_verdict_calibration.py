"""Verdicts on evidence whose truth is known: the level holds, power is Student's, judges agree."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import scipy.stats
import xarray as xr

from pcsim import catalog
from pcsim.hypothesis import judge
from pcsim.stats_binomial import clopper_pearson, replicas_needed, student_power
from pcsim.verdict import ALPHA, Outcome
from pcsim.verdict_effects import wider_interval
from pcsim.verdict_nulls import Scene, Situation, situations
from pcsim.verdict_scene import NOISES, Wanted, find_point, line_through, noise, scatter
from pcsim.verdict_simulation import first_rule, judge_many

CLAIMS = (Outcome.SUPPORTED, Outcome.QUALITATIVE)
NAMES = catalog.names("analysis")
NULLS = ("absent", "same", "wrong")


def claims(judged):
    pairs = zip(judged.outcomes, judged.p, strict=True)
    return sum(outcome in CLAIMS and p < ALPHA for outcome, p in pairs)


def dataset(stack, k, r):
    """Return the evidence of data set k, replica r."""
    values = {name: ("unit", a[min(k, a.shape[0] - 1), r]) for name, a in stack.items()}
    units = next(iter(stack.values())).shape[2]
    return xr.Dataset(values | {"included": ("unit", np.ones(units, bool))})


@pytest.mark.parametrize(
    ("name", "n"), [("local_global", 3), ("spatial_whitening", 10), ("visuomotor_mismatch", 3)]
)
def test_many_at_once_is_the_judge_one_by_one(name, n, rng):
    claim = catalog.load("analysis", name)
    scene = Scene(claim)
    for kind in ("absent", "same", "present", "requirement 0"):
        ours, theirs = scene.evidence(Situation(kind=kind, n=n, units=7), 2, rng)
        together = judge_many(claim, ours, theirs, draws=100)["wider"]
        for k in range(2):
            alone = judge(
                claim,
                "SIMULATED",
                [dataset(ours, k, r) for r in range(n)],
                {who: [dataset(one, k, r) for r in range(n)] for who, one in theirs.items()},
                seeds=range(n),
                draws=100,
            )
            assert together.outcomes[k] == alone.verdict
            assert together.p[k] == pytest.approx(alone.p, rel=1e-7)


@pytest.mark.parametrize("kind", NULLS)
def test_no_claim_more_often_than_the_level_allows(kind, rng):
    # 2.5 % lie beyond one end of a 95 % interval. 400 data sets of each of three hypotheses:
    # the exact binomial interval of the rate must not lie above; 0.1 % of correct judges fail.
    hits = total = 0
    for name in ("repetition_probability", "spatial_whitening", "end_stopping"):
        claim = catalog.load("analysis", name)
        ours, theirs = Scene(claim).evidence(Situation(kind=kind, n=3, share=1.0), 400, rng)
        hits += claims(judge_many(claim, ours, theirs, draws=200)["wider"])
        total += 400
    low, _ = clopper_pearson(hits, total, level=0.998)
    assert low <= ALPHA / 2


def test_the_first_rule_broke_the_level(rng):
    # What the test above can see: three replicas, all variance between them.
    claim = catalog.load("analysis", "repetition_probability")
    ours, theirs = Scene(claim).evidence(Situation(kind="absent", n=3, share=1.0), 1000, rng)
    judged = judge_many(claim, ours, theirs, draws=200, rules={"first": first_rule})["first"]
    low, _ = clopper_pearson(claims(judged), 1000, level=0.998)
    assert low > ALPHA


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_every_hypothesis_keeps_the_level(name, rng):
    claim = catalog.load("analysis", name)
    scene, kinds = Scene(claim), [one for one in situations(claim) if one != "present"]
    assert kinds
    for kind in kinds:
        for n, shape in ((3, "normal"), (5, "heavy")):
            at = Situation(kind=kind, n=n, share=1.0, noise=shape)
            hits = claims(judge_many(claim, *scene.evidence(at, 400, rng), draws=200)["wider"])
            # 44 hypotheses of four kinds, twice: 0.02 % each leaves about 5 % for all together.
            low, _ = clopper_pearson(hits, 400, level=0.9996)
            assert low <= ALPHA / 2, (kind, n, shape, hits)


@pytest.mark.parametrize("n", [3, 5])
def test_power_is_that_of_the_noncentral_t(n, rng):
    # All variance between replicas and many draws' worth of agreement among units: the wider
    # interval is Student's, but where the bootstrap's is wider, which costs a little.
    claim = catalog.load("analysis", "repetition_probability")
    at = Situation(kind="present", n=n, share=1.0, size=3.0)
    judged = judge_many(claim, *Scene(claim).evidence(at, 1500, rng), draws=200)["wider"]
    expected = scipy.stats.nct.sf(scipy.stats.t.ppf(0.975, n - 1), n - 1, 3.0 * n**0.5)
    assert student_power(3.0, n) == pytest.approx(expected, rel=1e-6)
    low, high = clopper_pearson(claims(judged), 1500, level=0.998)
    assert low <= expected <= high


def test_replicas_needed_is_the_first_that_suffices():
    for size, alpha in ((1.0, 0.05), (2.0, 0.05), (2.0, 0.01)):
        n = replicas_needed(size, alpha=alpha)
        power = [
            scipy.stats.nct.sf(scipy.stats.t.ppf(1 - alpha / 2, k - 1), k - 1, size * k**0.5)
            for k in (n - 1, n)
        ]
        assert power[0] < 0.8 <= power[1]
    assert replicas_needed(100.0) == 3


def test_interval_of_a_rate_agrees_with_scipy():
    for hits, n in ((0, 20), (3, 20), (20, 20), (28, 32)):
        expected = scipy.stats.binomtest(hits, n).proportion_ci(0.95, "exact")
        assert clopper_pearson(hits, n) == pytest.approx(tuple(expected), abs=1e-9)
    with pytest.raises(ValueError, match="hits from 0 to n"):
        clopper_pearson(4, 3)


def test_the_wider_interval_holds_both(rng):
    replicas, draws = rng.normal(2.0, 1.0, (50, 4)), rng.normal(2.0, 0.6, (50, 500))
    low, high, p = wider_interval(draws, replicas, 1.0)
    for k in range(50):
        student = scipy.stats.t.interval(
            0.95, 3, loc=replicas[k].mean(), scale=scipy.stats.sem(replicas[k])
        )
        ends = np.quantile(draws[k], [0.025, 0.975])
        expected = min(ends[0], student[0]), max(ends[1], student[1])
        assert (low[k], high[k]) == pytest.approx(expected, rel=1e-9)
        assert p[k] >= scipy.stats.ttest_1samp(replicas[k], 1.0).pvalue - 1e-9
        if p[k] < 0.05:
            assert not low[k] < 1.0 < high[k]


def test_equal_replicas_leave_the_interval_of_the_bootstrap():
    draws = np.linspace(0.1, 0.3, 1001)
    low, high, p = wider_interval(draws, np.full(3, 0.2), 0.0)
    assert (low, high) == pytest.approx((0.105, 0.295))
    assert p == pytest.approx(2 / 1002)
    assert wider_interval(np.full(99, 0.2), np.full(3, 0.2), 0.2)[2] == 1.0


@pytest.mark.parametrize("kind", NOISES)
def test_noise_has_mean_0_and_variance_1(kind, rng):
    found = noise(kind, (400_000,), rng)
    # Skewness of a gamma variable of shape 2 is 2 / sqrt 2; heavy tails have no fourth moment.
    skewness = {"skew towards": 2**0.5, "skew away": -(2**0.5)}.get(kind, 0.0)
    assert found.mean() == pytest.approx(0.0, abs=0.01)
    if kind != "heavy":
        assert found.var() == pytest.approx(1.0, abs=0.02)
        assert scipy.stats.skew(found) == pytest.approx(skewness, abs=0.05)
    else:
        assert scipy.stats.kstest(found * 3**0.5, scipy.stats.t(3).cdf).pvalue > 1e-4


def test_a_scene_has_the_truth_that_it_was_given(rng):
    # A crooked statistic, 1 - sqrt(b / a): its mean over replicas is the truth all the same.
    def crooked(means):
        return 1.0 - np.sqrt(means["b"] / means["a"])

    point = find_point(("a", "b"), [Wanted(crooked, 0.3)])
    line = line_through(point, [crooked], 0, reach=2.0)
    spread = 0.2
    stack = scatter(line, 0.3, shape=(4000, 5, 8), spread=(spread, 0.5), kind="normal", rng=rng)
    values = crooked({name: a.mean(axis=2) for name, a in stack.items()})
    # 20,000 replicas: 4 standard errors of mean and of standard deviation.
    assert values.mean() == pytest.approx(0.3, abs=4 * spread / 20_000**0.5)
    assert values.std() == pytest.approx(spread, rel=4 / 40_000**0.5)
    with pytest.raises(ValueError, match="one that reaches 9"):
        scatter(line, 9.0, shape=(1, 3, 2), spread=(0.1, 1.0), kind="normal", rng=rng)


@pytest.mark.parametrize("name", NAMES)
def test_nulls_can_be_made_for_every_hypothesis(name):
    assert set(NULLS) | {"present"} <= set(situations(catalog.load("analysis", name)))


def test_share_between_replicas_is_as_asked(rng):
    claim = catalog.load("analysis", "repetition_probability")
    at = Situation(kind="absent", n=4, units=30, share=0.3, size=2.0)
    ours, _ = Scene(claim).evidence(at, 3000, rng)
    values = ours["likely"] - ours["unlikely"]
    total, within = values.mean(axis=2).var(), values.var(axis=2, ddof=1).mean() / 30
    assert 1.0 - within / total == pytest.approx(0.3, abs=0.03)


def test_more_replicas_find_more(rng):
    claim = catalog.load("analysis", "spatial_whitening")
    found = []
    for n in (3, 5, 10):
        at = Situation(kind="present", n=n, size=2.0)
        found.append(
            claims(judge_many(claim, *Scene(claim).evidence(at, 300, rng), draws=200)["wider"])
        )
    assert all(less < more for less, more in pairwise(found))
