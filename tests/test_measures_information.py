"""Information measures against closed forms, simulated bias and numerical optimisation."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.linalg
import scipy.optimize
import scipy.stats
from sklearn.metrics import mutual_info_score

from pcsim.measures import (
    binary_words,
    canonical_correlations,
    entropy,
    gaussian_bottleneck,
    gaussian_information,
    gaussian_predictive_information,
    joint_count,
    mutual_information,
    predictive_information,
    shuffle_corrected_information,
)


def test_plug_in_is_that_of_scipy_and_scikit_learn(rng):
    x, y = rng.integers(0, 5, (2, 3, 400))
    y[:, ::2] = x[:, ::2]
    found = mutual_information(joint_count(x, y))
    np.testing.assert_allclose(
        found, [mutual_info_score(a, b) for a, b in zip(x, y, strict=True)], atol=1e-12
    )
    count = rng.integers(0, 9, (4, 6))
    np.testing.assert_allclose(entropy(count), scipy.stats.entropy(count, axis=1), atol=1e-12)


def test_counts_and_words():
    table = joint_count([[0, 1, 1], [2, 2, 2]], [[1, 0, 0], [0, 0, 1]], shape=(3, 2))
    np.testing.assert_array_equal(table[0], [[0, 1], [2, 0], [0, 0]])
    np.testing.assert_array_equal(table[1], [[0, 0], [0, 0], [2, 1]])
    np.testing.assert_array_equal(binary_words([[0, 3, 0], [1, 1, 1]]), [2, 7])


def test_miller_madow_by_hand():
    # 10 samples, 4 cells of 6 occupied, 2 rows and 3 columns: (2 + 3 - 4 - 1) / 20 = 0.
    count = [[3, 1, 0], [0, 2, 4]]
    plain = mutual_information(count)
    assert mutual_information(count, correction="miller_madow") == pytest.approx(plain)
    assert entropy([3, 1, 6], correction="miller_madow") == pytest.approx(entropy([3, 1, 6]) + 0.1)


@pytest.mark.parametrize("correction", ["miller_madow", "panzeri_treves"])
def test_corrections_remove_the_bias_of_independent_samples(rng, correction):
    """The plug-in estimate of zero has mean (n_x - 1)(n_y - 1) / 2N."""
    n, draws = 400, 400
    x, y = rng.integers(0, 6, (2, draws, n))
    count = joint_count(x, y)
    raw, less = mutual_information(count), mutual_information(count, correction=correction)
    error = raw.std() / np.sqrt(draws)
    assert raw.mean() == pytest.approx(25 / (2 * n), abs=4 * error + 0.002)
    assert less.mean() == pytest.approx(0.0, abs=4 * error + 0.002)


def test_panzeri_treves_where_each_stimulus_allows_few_responses(rng):
    """20 responses of which each stimulus allows 8, from 24 samples of each of 10 stimuli."""
    allowed = np.stack([rng.permutation(20)[:8] for _ in range(10)])
    p = np.zeros((10, 20))
    np.put_along_axis(p, allowed, rng.dirichlet(np.full(8, 3.0), 10), axis=1)
    p /= p.sum()
    truth = float((p * np.log(np.where(p > 0, p, 1))).sum())
    truth += sum(float(scipy.stats.entropy(p.sum(axis=k))) for k in (0, 1))
    count = np.stack([[rng.multinomial(24, row / row.sum()) for row in p] for _ in range(200)])
    bias = {
        name: mutual_information(count, correction=name).mean() - truth
        for name in ("none", "miller_madow", "panzeri_treves")
    }
    assert bias["none"] > 0.08
    assert abs(bias["miller_madow"]) < 0.5 * bias["none"]
    assert abs(bias["panzeri_treves"]) < abs(bias["miller_madow"])


def test_bayes_support_never_exceeds_the_table_and_is_exact_when_all_is_seen(rng):
    count = rng.integers(1, 9, (3, 5))
    np.testing.assert_allclose(
        entropy(count, correction="panzeri_treves"), entropy(count, correction="miller_madow")
    )
    sparse = np.array([3, 1, 1, 0, 0, 0, 0, 0])
    rise = entropy(sparse, correction="panzeri_treves") - entropy(sparse)
    assert 2 / 10 <= rise <= 7 / 10


def test_shuffles_keep_the_bias_of_slow_series_only_in_a_circle(rng):
    """Two slow independent series: plug-in and permutation call them related, shifts do not."""
    slow = np.cumsum(rng.random((2, 60, 4000)) < 0.02, axis=-1) % 4
    x, y = slow
    permuted = shuffle_corrected_information(x, y, n_shuffles=4).information
    shifted = shuffle_corrected_information(x, y, n_shuffles=20, circular=True).information
    error = shifted.std() / np.sqrt(60)
    assert permuted.mean() > 10 * error
    assert abs(shifted.mean()) < 4 * error


def test_gaussian_information_of_correlated_pairs(rng):
    root = rng.normal(size=(4, 5, 7))
    matrix = root @ root.transpose(0, 2, 1)
    found = gaussian_information(matrix, 2)
    for one, c in zip(found, matrix, strict=True):
        inside = np.linalg.inv(c[:2, :2]) @ c[:2, 2:] @ np.linalg.inv(c[2:, 2:]) @ c[2:, :2]
        square = np.linalg.eigvals(inside).real
        assert one == pytest.approx(-0.5 * np.log1p(-square).sum(), rel=1e-10)
        np.testing.assert_allclose(
            canonical_correlations(c, 2) ** 2, np.sort(square)[::-1], rtol=1e-9
        )


def test_words_of_a_markov_chain(rng):
    """Two states left with probability 0.1: I = ln 2 - H(0.1), and by 2 steps with 0.18."""
    flips = rng.random((50, 2000)) < 0.1
    words = (flips.cumsum(axis=1) + rng.integers(0, 2, (50, 1))) % 2
    for lag, p in ((1, 0.1), (2, 0.18)):
        truth = np.log(2) + p * np.log(p) + (1 - p) * np.log(1 - p)
        found = predictive_information(words, lag=lag, correction="miller_madow")
        slope = np.log((1 - p) / p)
        assert found == pytest.approx(truth, abs=4 * slope * np.sqrt(p * (1 - p) / 1e5) * 2)


def test_predictive_information_of_autoregressions():
    """Order 1: all is in the last sample. Order 2: the last two samples and the next two."""
    a = 0.8
    one = gaussian_predictive_information(a ** np.arange(9), n_past=4, n_future=5)
    assert one == pytest.approx(-0.5 * np.log(1 - a**2), rel=1e-10)
    gap = gaussian_predictive_information(a ** np.arange(9), n_past=4, n_future=2, gap=2)
    assert gap == pytest.approx(-0.5 * np.log(1 - a**6), rel=1e-10)
    step = np.array([[1.5, -0.7], [1.0, 0.0]])
    stationary = scipy.linalg.solve_discrete_lyapunov(step, np.diag([2.0, 0.0]))
    lags = np.array([(np.linalg.matrix_power(step, k) @ stationary)[0, 0] for k in range(12)])
    two = gaussian_predictive_information(lags, n_past=2, n_future=2)
    assert gaussian_predictive_information(lags, n_past=6, n_future=6) == pytest.approx(two)
    # Of the next two samples, the noise of two steps is left: variances 2 each.
    left = np.log(np.linalg.det(stationary)) - np.log(2.0 * 2.0)
    assert two == pytest.approx(0.5 * left, rel=1e-9)


def test_bottleneck_of_one_component():
    rho, past = 0.6, np.array([0.0, 0.1, 0.7, 3.0])
    expected = -0.5 * np.log(1 - rho**2 * (1 - np.exp(-2 * past)))
    np.testing.assert_allclose(gaussian_bottleneck([rho], past), expected, atol=1e-12)


@pytest.mark.parametrize("past", [0.05, 0.4, 1.5])
def test_bottleneck_is_the_best_of_all_noisy_projections(rng, past):
    """T = A x + unit noise: the best A at this I(T; x), found by a numerical search."""
    rho = np.array([0.9, 0.6, 0.3])

    def informations(flat):
        a = flat.reshape(3, 3)
        noise = np.eye(3)
        total = np.linalg.slogdet(a @ a.T + noise)[1]
        given = np.linalg.slogdet(a @ np.diag(1 - rho**2) @ a.T + noise)[1]
        return 0.5 * total, 0.5 * (total - given)

    best = 0.0
    for _ in range(6):
        found = scipy.optimize.minimize(
            lambda flat: -informations(flat)[1], rng.normal(size=9) * 0.5, method="SLSQP",
            constraints={"type": "eq", "fun": lambda flat: informations(flat)[0] - past},
            options={"maxiter": 500, "ftol": 1e-12},
        )  # fmt: skip
        if found.success and abs(informations(found.x)[0] - past) < 1e-6:
            best = max(best, -found.fun)
    assert gaussian_bottleneck(rho, past) == pytest.approx(best, abs=1e-5)


def test_no_discrete_code_beats_the_bottleneck(rng):
    """Any threshold of a Gaussian past: its information about the future lies below the curve."""
    x = rng.normal(size=200_000)
    y = 0.8 * x + 0.6 * rng.normal(size=x.size)
    edges = np.quantile(y, np.linspace(0, 1, 41)[1:-1])
    for threshold in (0.0, 0.5, 1.5):
        code = (x > threshold).astype(int)
        future = mutual_information(joint_count(code, np.searchsorted(edges, y)))
        bound = gaussian_bottleneck([0.8], entropy(np.bincount(code)))
        assert 0.6 * bound < future < bound


def test_what_cannot_be_measured_is_refused(refused):
    assert "Take smaller groups" in refused(binary_words, np.zeros((2, 30)))
    assert "whole numbers" in refused(joint_count, [0.5, 1.0], [0, 1])
    assert "table of 1 x 2" in refused(joint_count, [0, 1], [0, 1], shape=(1, 2))
    assert "not probabilities" in refused(
        mutual_information, [[0.5, 0.5]], correction="miller_madow"
    )
    assert "Did you mean" in refused(entropy, [1, 2], correction="miller_maddow")
    assert "at least one sample" in refused(entropy, [0, 0])
    assert "singular" in refused(gaussian_information, np.ones((2, 2)), 1)
    assert "not symmetric" in refused(gaussian_information, [[1.0, 0.5], [0.2, 1.0]], 1)
    assert "two parts" in refused(gaussian_information, np.eye(2), 2)
    assert "more times than the lag" in refused(predictive_information, [[0, 1]], lag=2)
    assert "lags or more" in refused(
        gaussian_predictive_information, [1.0, 0.5], n_past=2, n_future=2
    )
    assert "one above 0" in refused(gaussian_bottleneck, [0.0], 0.5)
    assert "at least 0" in refused(gaussian_bottleneck, [0.5], -0.5)
