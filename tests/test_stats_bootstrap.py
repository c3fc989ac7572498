"""The hierarchical bootstrap against scipy, closed-form variances and simulated coverage."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.stats

from pcsim import stats_bootstrap
from pcsim.stats import Sample, bootstrap_p, hierarchical_bootstrap, interval

DRAWS = 10_000


def replicas(rng, *, n=5, units=40, stimuli=None, spread=0.7):
    shape = (units,) if stimuli is None else (units, stimuli)
    return [Sample({"v": rng.normal(spread * rng.normal(), 1.4, shape)}) for _ in range(n)]


def test_estimate_is_the_mean_of_replica_means(rng):
    samples = [Sample({"v": rng.normal(size=n)}) for n in (3, 30, 7)]
    result = hierarchical_bootstrap(samples, seed=3)
    means = [s.values["v"].mean() for s in samples]
    np.testing.assert_allclose(result.replicas, means, rtol=1e-12)
    assert result.estimate == pytest.approx(np.mean(means), rel=1e-12)
    assert result.draws.shape == (DRAWS,)


def test_variance_is_that_of_two_nested_levels(rng):
    samples = replicas(rng, n=4, units=13)
    result = hierarchical_bootstrap(samples, seed=1)
    within = np.mean([s.values["v"].var() / 13 for s in samples])
    expected = (np.var(result.replicas) + within) / 4
    # The variance of the variance of 10,000 near-normal draws is 2 / B: 4 SE.
    assert result.draws.var() == pytest.approx(expected, rel=4 * np.sqrt(2 / DRAWS))
    se = np.sqrt(expected / DRAWS)
    assert abs(result.draws.mean() - result.estimate) < 4 * se


def test_equal_replicas_are_resampled_independently(rng):
    values = rng.normal(0.0, 1.4, 13)
    result = hierarchical_bootstrap([Sample({"v": values}) for _ in range(4)], seed=1)
    # All draws take the same values, each replica in its own way, even one taken twice.
    assert result.draws.var() == pytest.approx(values.var() / 13 / 4, rel=4 * np.sqrt(2 / DRAWS))


def test_stimuli_are_crossed_with_units(rng):
    unit, stimulus = rng.normal(0, 1.3, (6, 1)), rng.normal(0, 0.8, (1, 9))
    result = hierarchical_bootstrap([Sample({"v": unit + stimulus})], seed=2)
    # Additive table: both margins vary, each by its own population variance over its own number.
    expected = unit.var() / 6 + stimulus.var() / 9
    assert result.draws.var() == pytest.approx(expected, rel=4 * np.sqrt(2 / DRAWS))


def test_constant_along_units_varies_only_with_stimuli(rng):
    stimulus = rng.normal(size=9)
    result = hierarchical_bootstrap([Sample({"v": np.tile(stimulus, (500, 1))})], seed=2)
    assert result.draws.var() == pytest.approx(stimulus.var() / 9, rel=4 * np.sqrt(2 / DRAWS))


def test_flat_case_agrees_with_scipy(rng):
    values = rng.exponential(2.0, 15)
    result = hierarchical_bootstrap([Sample({"v": [v]}) for v in values], seed=5, draws=40_000)
    for method in ("percentile", "BCa"):
        theirs = scipy.stats.bootstrap(
            (values,), np.mean, n_resamples=40_000, method=method, rng=np.random.default_rng(0)
        ).confidence_interval
        ours = interval(
            result.draws, result.estimate, method=method.lower(), jackknife=result.jackknife
        )
        # A quantile near 2.5 % of 40,000 draws has an SE of about 0.0135 standard deviations each.
        assert np.allclose(ours, theirs, atol=4 * 0.0135 * np.sqrt(2) * result.draws.std())


def test_bca_tails_follow_the_formula(rng):
    draws, jackknife = rng.gamma(3.0, size=4001), rng.gamma(2.0, size=12)
    estimate = float(np.quantile(draws, 0.6))
    z0 = scipy.stats.norm.ppf(((draws < estimate).mean() + (draws <= estimate).mean()) / 2)
    a = scipy.stats.skew(jackknife) / -6 / np.sqrt(12)
    z = z0 + scipy.stats.norm.ppf([0.05, 0.95])
    tails = scipy.stats.norm.cdf(z0 + z / (1 - a * z))
    expected = np.quantile(draws, tails)
    ours = interval(draws, estimate, level=0.9, method="bca", jackknife=jackknife)
    np.testing.assert_allclose(ours, expected, rtol=1e-12)


def test_bca_survives_equal_replicas():
    samples = [Sample({"v": [0.3, 0.3, 0.3]}) for _ in range(10)]
    result = hierarchical_bootstrap(samples, draws=500)
    ends = interval(result.draws, result.estimate, method="bca", jackknife=result.jackknife)
    assert ends == pytest.approx((0.3, 0.3), rel=1e-12)


def test_equal_samples_give_equal_draws_and_replicas_are_shared(rng):
    first = replicas(rng, units=20, stimuli=4)
    again = [Sample(dict(s.values)) for s in first]
    a, b = (hierarchical_bootstrap(s, seed=8) for s in (first, again))
    np.testing.assert_array_equal(a.draws, b.draws)
    # One unit a replica leaves only the choice of replicas, whatever the values are.
    x, y = rng.normal(size=5), rng.normal(size=5)
    one, two = (hierarchical_bootstrap([Sample({"v": [v]}) for v in w], seed=8) for w in (x, y))
    shifted = hierarchical_bootstrap([Sample({"v": [v]}) for v in 2 * x - y], seed=8)
    np.testing.assert_allclose(2 * one.draws - two.draws, shifted.draws, atol=1e-12)
    difference = one - two
    assert difference.estimate == pytest.approx(float(np.mean(x - y)), abs=1e-12)
    np.testing.assert_allclose(difference.replicas, x - y, atol=1e-12)


def test_pairing_by_replica_narrows_the_difference(rng):
    effect = rng.normal(0, 3.0, 6)
    model, control = (
        hierarchical_bootstrap([Sample({"v": e + s + rng.normal(0, 0.3, 50)}) for e in effect])
        for s in (0.8, 0.0)
    )
    low, high = interval((model - control).draws, (model - control).estimate)
    assert 0.5 < low < high < 1.1
    assert interval(model.draws, model.estimate)[1] - model.estimate > 1.0


def test_relabelling_units_changes_no_estimate(rng):
    samples = replicas(rng, units=12, stimuli=5)
    shuffled = [Sample({"v": s.values["v"][rng.permutation(12)]}) for s in samples]
    a, b = (hierarchical_bootstrap(s, seed=4) for s in (samples, shuffled))
    assert a.estimate == pytest.approx(b.estimate, rel=1e-12)
    assert a.draws.std() == pytest.approx(b.draws.std(), rel=4 * np.sqrt(1 / DRAWS))


def test_draws_do_not_depend_on_the_block(rng, monkeypatch):
    samples = replicas(rng, n=3, units=11, stimuli=6)
    whole = hierarchical_bootstrap(samples, draws=400, seed=2)
    monkeypatch.setattr(stats_bootstrap, "BLOCK", 100)
    np.testing.assert_allclose(
        hierarchical_bootstrap(samples, draws=400, seed=2).draws, whole.draws, rtol=1e-12
    )


def test_combine_sees_means_of_the_same_units(rng):
    # y = 4 x for every unit, so any resampling of units keeps the ratio of the means.
    samples = [Sample({"x": x, "y": 4 * x}) for x in rng.uniform(1, 2, (3, 25))]
    result = hierarchical_bootstrap(samples, lambda m: m["y"] / m["x"])
    np.testing.assert_allclose(result.draws, 4.0, rtol=1e-12)


def test_coverage_of_the_percentile_interval(rng):
    # Simulated truth 0, 12 replicas. The percentile interval of a mean is too narrow by about
    # sqrt((n-1)/n) and the t quantile; the coverage it should have is computed from both.
    n, hits, runs = 12, 0, 400
    for run in range(runs):
        samples = [Sample({"v": rng.normal(0.9 * rng.normal(), 0.4, 20)}) for _ in range(n)]
        result = hierarchical_bootstrap(samples, draws=500, seed=run)
        low, high = interval(result.draws, result.estimate)
        hits += low < 0 < high
    expected = 1 - 2 * scipy.stats.t.sf(1.96 * np.sqrt((n - 1) / n), n - 1)
    assert expected < 0.95
    assert scipy.stats.binomtest(hits, runs, expected).pvalue > 0.001


def test_a_seed_gives_the_same_draws_and_another_seed_others(rng):
    samples = replicas(rng, n=5, units=100, stimuli=20)
    first = hierarchical_bootstrap(samples, seed=1)
    assert np.array_equal(first.draws, hierarchical_bootstrap(samples, seed=1).draws)
    assert not np.array_equal(first.draws, hierarchical_bootstrap(samples, seed=2).draws)


def test_bootstrap_p_counts_both_tails():
    draws = np.concatenate([np.full(995, 2.0), np.full(4, -1.0)])
    assert bootstrap_p(draws) == pytest.approx(2 * 5 / 1000)
    assert bootstrap_p(-draws) == pytest.approx(2 * 5 / 1000)
    assert bootstrap_p(draws, null=2.0) == 1.0


def test_bootstrap_p_agrees_with_the_interval(rng):
    result = hierarchical_bootstrap(replicas(rng, n=6), seed=1)
    low, _ = interval(result.draws, result.estimate)
    # A twentieth of the spread of the draws moves about 30 of the 250 beyond the end.
    step = 0.05 * result.draws.std()
    assert bootstrap_p(result.draws, low - step) < 0.05 < bootstrap_p(result.draws, low + step)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: Sample({}), "no variables, expected at least one"),
        (lambda: Sample({"v": [np.nan, 1.0]}), "1 of 2 entries of v NaN"),
        (lambda: Sample({"v": []}), "leave this replica out"),
        (lambda: Sample({"v": [1.0], "w": [1.0, 2.0]}), "same number of units"),
        (lambda: Sample({"v": [[1.0]], "w": [[1.0, 2.0]]}), "same number of stimuli"),
        (lambda: Sample({"v": np.ones((1, 1, 1))}), r"\(n_unit,\) or"),
        (lambda: Sample({"v": [1.0, 2.0]}, n_total=1), "n_total 1, expected"),
        (lambda: hierarchical_bootstrap([]), "no samples, expected one a replica"),
        (lambda: hierarchical_bootstrap([Sample({"v": [1.0]})], draws=0), "draws 0"),
        (
            lambda: hierarchical_bootstrap([Sample({"v": [1.0]}), Sample({"w": [1.0]})]),
            "same variables in every replica",
        ),
        (
            lambda: hierarchical_bootstrap([Sample({"v": [1.0], "w": [2.0]})]),
            "Say how to combine",
        ),
        (
            lambda: hierarchical_bootstrap([Sample({"v": [1.0]})], lambda m: 3.0),
            "combine returning shape",
        ),
        (
            lambda: hierarchical_bootstrap([Sample({"v": [0.0]})], lambda m: 1 / m["v"]),
            "A denominator may reach 0",
        ),
        (lambda: interval([1.0, 2.0], 1.5, method="bca"), "Pass jackknife"),
        (lambda: interval([1.0, 2.0], 9.0, method="bca", jackknife=[1.0, 2.0]), "outside all"),
        (lambda: interval([1.0, 2.0], 1.5, method="basic"), "expected one of 'bca', 'percentile'"),
        (lambda: interval([], 1.5), "no draws"),
        (lambda: bootstrap_p([]), "no draws"),
        (lambda: hierarchical_bootstrap([Sample({"v": [1.0]})]).jackknife, "Add seeds"),
        (
            lambda: (
                hierarchical_bootstrap([Sample({"v": [1.0]})])
                - hierarchical_bootstrap([Sample({"v": [1.0]})] * 2)
            ),
            "Pair them by replica",
        ),
    ],
)
def test_bad_input_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize(
    "samples", [3, None, "ab", {"v": [1.0]}, [np.ones(3)], Sample({"v": [1.0]})]
)
def test_wrong_kind_is_refused(refused, samples):
    message = refused(hierarchical_bootstrap, samples)
    assert "expected a list of Samples" in message or "expected a Sample a replica" in message
