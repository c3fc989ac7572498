"""Corrections, effect sizes and exact tests against hand computation and scipy."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import scipy.stats

from pcsim.stats import (
    cohen_dz,
    holm,
    jonckheere,
    ks_similarity,
    ks_similarity_histogram,
    mcnemar_exact,
    rank_biserial,
)


def test_holm_by_hand():
    # Sorted 0.005, 0.011, 0.02, 0.04, 0.13 times 5, 4, 3, 2, 1, then made monotone.
    adjusted = holm([0.011, 0.02, 0.13, 0.005, 0.04])
    np.testing.assert_allclose(adjusted, [0.044, 0.06, 0.13, 0.025, 0.08], rtol=1e-12)
    np.testing.assert_allclose(holm([0.02, 0.019]), [0.038, 0.038], rtol=1e-12)
    np.testing.assert_allclose(holm([0.6, 0.7]), [1.0, 1.0], rtol=1e-12)
    assert holm([]).size == 0


def test_holm_is_closed_testing_with_bonferroni(rng):
    p = rng.uniform(0, 0.3, 6)
    sets = [s for k in range(1, 7) for s in itertools.combinations(range(6), k)]
    closed = [max(min(1, len(s) * min(p[list(s)])) for s in sets if i in s) for i in range(6)]
    np.testing.assert_allclose(holm(p), closed, rtol=1e-12)


def test_cohen_dz_is_t_over_root_n(rng):
    x, y = rng.normal(0.7, 1, (2, 9))
    t = scipy.stats.ttest_rel(x, y).statistic
    assert cohen_dz(x, y) == pytest.approx(t / 3, rel=1e-12)
    assert cohen_dz(x, 0.4) == pytest.approx(cohen_dz(x - 0.4), rel=1e-12)


def test_cohen_dz_of_equal_differences():
    assert cohen_dz([2.0, 3.0], [2.0, 3.0]) == 0.0
    assert cohen_dz([1.2, 1.3, 1.1], [0.7, 0.8, 0.6]) == math.inf
    assert cohen_dz([1.0, 2.0], [2.0, 3.0]) == -math.inf


def test_rank_biserial_is_wilcoxon_rescaled(rng):
    x, y = rng.normal(0.3, 1, (2, 11))
    ranks = np.argsort(np.argsort(np.abs(x - y))) + 1
    plus = ranks[x > y].sum()
    assert rank_biserial(x, y) == pytest.approx((2 * plus - 66) / 66, rel=1e-12)
    assert rank_biserial([1.0, 2.0, 3.0]) == 1.0
    assert rank_biserial([1.0, 1.0], [1.0, 1.0]) == 0.0
    assert rank_biserial(y, x) == pytest.approx(-rank_biserial(x, y), rel=1e-12)


def test_ks_similarity_is_one_less_the_distance(rng):
    x, y = rng.normal(size=37).round(1), rng.normal(0.5, 2, 51).round(1)
    assert ks_similarity(x, y) == pytest.approx(1 - scipy.stats.ks_2samp(x, y).statistic)
    assert ks_similarity(x, x[::-1]) == 1.0
    assert ks_similarity([0.0], [1.0]) == 0.0


def test_ks_similarity_to_a_histogram(rng):
    x, y = rng.normal(size=40), rng.normal(0.4, 1.2, 60)
    edges = np.linspace(-6, 6, 400)
    fine = ks_similarity_histogram(x, edges, np.histogram(y, edges)[0])
    # With bins finer than the gaps it is the distance of the samples, up to one value.
    assert fine == pytest.approx(ks_similarity(x, y), abs=1 / 40 + 1e-12)
    assert ks_similarity_histogram(x, edges, np.histogram(x, edges)[0]) == pytest.approx(1.0)
    assert ks_similarity_histogram([3.0], [0.0, 1.0, 2.0], [4, 4]) == pytest.approx(0.0)


def test_mcnemar_is_a_binomial_test_on_changes(rng):
    before, after = rng.random(40) < 0.7, rng.random(40) < 0.4
    result = mcnemar_exact(before, after)
    p = scipy.stats.binomtest(result.lost, result.lost + result.gained, 0.5).pvalue
    assert result.p == pytest.approx(p, rel=1e-10)
    assert result.lost == sum(b and not a for b, a in zip(before, after, strict=True))
    assert mcnemar_exact(after, before).p == pytest.approx(p, rel=1e-10)
    assert mcnemar_exact(before, before) == (0, 0, 1.0)


@pytest.mark.parametrize("alternative", ["increasing", "decreasing", "two-sided"])
def test_jonckheere_is_exact_for_few_values(alternative):
    groups = [[1.3, 0.2], [0.9, 2.2, 1.7], [1.5, 3.0]]
    values, sizes = np.concatenate(groups), [2, 3, 2]

    def count(order):
        parts = np.split(np.asarray(order), np.cumsum(sizes)[:-1])
        pairs = itertools.combinations(range(3), 2)
        return sum((parts[i][:, None] < parts[j]).sum() for i, j in pairs)

    null = np.array([count(p) for p in itertools.permutations(values)])
    observed = count(values)
    up, down = (null >= observed).mean(), (null <= observed).mean()
    expected = {"increasing": up, "decreasing": down, "two-sided": min(1, 2 * min(up, down))}
    result = jonckheere(groups, alternative=alternative)
    assert result.exact
    assert result.statistic == observed
    assert result.p == pytest.approx(expected[alternative], rel=1e-10)


def test_jonckheere_of_two_groups_is_mann_whitney(rng):
    x, y = rng.normal(size=9), rng.normal(0.6, 1, 12)
    theirs = scipy.stats.mannwhitneyu(y, x, alternative="greater", method="exact")
    ours = jonckheere([x, y])
    assert ours.statistic == theirs.statistic
    assert ours.p == pytest.approx(theirs.pvalue, rel=1e-9)
    assert ours.effect == pytest.approx(2 * theirs.statistic / 108 - 1)


def test_jonckheere_with_ties_uses_the_permutation_variance(rng):
    x, y = rng.integers(0, 4, 30).astype(float), rng.integers(1, 5, 25).astype(float)
    theirs = scipy.stats.mannwhitneyu(
        y, x, alternative="greater", method="asymptotic", use_continuity=False
    )
    ours = jonckheere([x, y])
    assert not ours.exact
    assert ours.p == pytest.approx(theirs.pvalue, rel=1e-9)


def test_jonckheere_tie_variance_by_permutation(rng):
    groups = [rng.integers(0, 4, n).astype(float) for n in (8, 11, 9)]
    ours = jonckheere(groups)
    values, cuts = np.concatenate(groups), [8, 19]
    null = []
    for _ in range(4000):
        null.append(jonckheere(np.split(rng.permutation(values), cuts)).statistic)
    z = (ours.statistic - np.mean(null)) / np.std(null)
    assert scipy.stats.norm.ppf(1 - ours.p) == pytest.approx(z, abs=4 * 0.03)


def test_jonckheere_limits():
    assert jonckheere([[1.0, 1.0], [1.0, 1.0]]).p == 1.0
    many = jonckheere([np.arange(30.0), np.arange(30.0) + 0.5, np.arange(30.0) + 40])
    assert not many.exact
    assert many.p < 1e-6
    assert jonckheere([[1.0], [2.0]]).effect == 1.0


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: holm([0.2, 1.2]), "probabilities from 0 to 1"),
        (lambda: holm([0.2, np.nan]), "NaN"),
        (lambda: cohen_dz([1.0]), "1 pairs, expected at least 2"),
        (lambda: cohen_dz([1.0, 2.0], [1.0, 2.0, 3.0]), "Pair them by replica"),
        (lambda: rank_biserial([1.0]), "at least 2"),
        (lambda: ks_similarity([], [1.0]), "no x, expected at least one"),
        (lambda: ks_similarity_histogram([1.0], [0.0, 0.0], [1]), "increasing edges"),
        (lambda: ks_similarity_histogram([1.0], [0.0, 1.0], [0]), "counts of something"),
        (lambda: mcnemar_exact([1, 0], [0, 1]), "booleans of the same units"),
        (lambda: mcnemar_exact([True], [True, False]), "booleans of the same units"),
        (lambda: jonckheere([[1.0]]), "1 groups, expected at least 2"),
        (lambda: jonckheere([[1.0], []]), "no group 1"),
        (lambda: jonckheere([[1.0], [2.0]], alternative="up"), "expected one of 'decreasing'"),
    ],
)
def test_bad_input_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
