"""Ridge encoding, signal power, signal and noise correlation: scikit-learn, NumPy and theory."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import Ridge
from sklearn.model_selection import GridSearchCV, KFold

from pcsim.measures import (
    contiguous_folds,
    noise_corrected_variance,
    noise_correlation,
    ridge_encoding,
    signal_correlation,
    signal_power,
)
from pcsim.responses import make_responses

GRID = (0.03, 0.7, 4.0, 90.0)


def problem(rng, n, p, units):
    x = rng.normal(size=(n, p)) @ np.diag(rng.uniform(0.2, 3.0, p)) + 0.7
    weights = rng.normal(size=(p, units)) / np.sqrt(p)
    return x, x @ weights + rng.uniform(0.2, 5.0, units) * rng.normal(size=(n, units)) + 4.0


@pytest.mark.parametrize(("n", "p"), [(60, 8), (33, 70)])
def test_nested_ridge_is_that_of_scikit_learn(rng, n, p):
    x, y = problem(rng, n, p, 5)
    ours = ridge_encoding(x, y, penalties=GRID, folds=4, n_inner=3)
    for unit in range(5):
        for fold, (train, test) in enumerate(KFold(4).split(x)):
            search = GridSearchCV(
                Ridge(), {"alpha": GRID}, cv=KFold(3), scoring="neg_mean_squared_error"
            ).fit(x[train], y[train, unit])
            assert ours.penalty[fold, unit] == search.best_params_["alpha"]
            expected = search.predict(x[test])
            np.testing.assert_allclose(ours.prediction[test, unit], expected, atol=1e-9)
    assert len(np.unique(ours.penalty)) > 1


def test_folds_are_those_of_scikit_learn():
    for n, k in ((10, 3), (11, 4), (5, 5)):
        for fold, (_, test) in enumerate(KFold(k).split(np.zeros(n))):
            np.testing.assert_array_equal(np.flatnonzero(contiguous_folds(n, k) == fold), test)


def test_held_out_responses_do_not_leak(rng):
    x, y = problem(rng, 40, 12, 3)
    label = contiguous_folds(40, 4)
    before = ridge_encoding(x, y, folds=label)
    changed = y.copy()
    changed[label == 2] += rng.normal(0.0, 50.0, (10, 3))
    after = ridge_encoding(x, changed, folds=label)
    np.testing.assert_array_equal(before.prediction[label == 2], after.prediction[label == 2])
    assert not np.allclose(before.prediction[label == 1], after.prediction[label == 1])


def test_noise_is_not_predicted_and_offsets_are_free(rng):
    x, y = rng.normal(size=(80, 30)), rng.normal(size=(80, 6))
    fit = ridge_encoding(x, y)
    assert (fit.r_squared < 0.1).all()
    moved = ridge_encoding(x + 4.0, y + 0.7)
    np.testing.assert_allclose(moved.prediction, fit.prediction + 0.7, atol=1e-9)
    assert np.isnan(ridge_encoding(x, np.full((80, 1), 0.7)).r_squared).all()


def test_truth_explains_all_and_a_constant_nothing(rng):
    n, sigma, repeats = 3000, 4.0, 5
    truth = 0.7 * rng.normal(size=(200, n))
    noisy = truth + sigma * rng.normal(size=(repeats, 200, n))
    power = signal_power(noisy)
    expected = truth.var(axis=0, ddof=1)
    assert abs((power - expected).mean()) < 4 * (power - expected).std() / np.sqrt(n)
    mean = noisy.mean(axis=0)
    explained = mean.var(axis=0, ddof=1) - (mean - truth).var(axis=0, ddof=1)
    assert abs((explained - expected).mean()) < 4 * (explained - expected).std() / np.sqrt(n)
    quiet = truth[:, :5] + 0.1 * rng.normal(size=(repeats, 200, 5))
    np.testing.assert_allclose(noise_corrected_variance(quiet, truth[:, :5]), 1.0, atol=0.01)
    constant = noise_corrected_variance(quiet, np.full((200, 5), 4.0))
    np.testing.assert_allclose(constant, 0.0, atol=1e-12)
    half = noise_corrected_variance(quiet, 0.5 * truth[:, :5])
    np.testing.assert_allclose(half, 0.75, atol=0.02)


def recorded(rate, condition):
    condition = [str(c) for c in condition]
    units = {"population": "output", "level": 1}
    return make_responses(rate[:, None, :], time=[0.2], units=units, trial={"condition": condition})


def correlated_noise(rng, correlation, n_trials, n_units):
    covariance = np.full((n_units, n_units), correlation) + (1 - correlation) * np.eye(n_units)
    return rng.normal(size=(n_trials, n_units)) @ np.linalg.cholesky(covariance).T


def test_noise_correlation_is_the_one_put_in(rng):
    n_conditions, n_trials = 40, 50
    condition = np.repeat(np.arange(n_conditions), n_trials)
    tuning = 4.0 * rng.normal(size=(n_conditions, 6))
    rate = tuning[condition] + 0.7 * correlated_noise(rng, 0.2, condition.size, 6)
    found = noise_correlation(recorded(rate, condition)).values[np.triu_indices(6, 1)]
    error = (1 - 0.2**2) / np.sqrt(n_conditions * (n_trials - 1))
    assert np.abs(found - 0.2).max() < 4 * error
    signal = signal_correlation(recorded(rate, condition)).values
    np.testing.assert_allclose(signal, np.corrcoef(tuning.T), atol=0.02)


def test_correlations_are_those_of_numpy_in_any_order_of_trials(rng):
    condition = np.repeat(["a", "b", "c"], [4, 7, 9])
    rate = rng.normal(size=(20, 5)) + rng.normal(size=(20, 1))
    parts = [rate[condition == name] for name in "abc"]
    z = np.concatenate([(p - p.mean(axis=0)) / p.std(axis=0, ddof=1) for p in parts])
    shuffled = recorded(rate, condition).isel(trial=rng.permutation(20))
    np.testing.assert_allclose(noise_correlation(shuffled), np.corrcoef(z.T), atol=1e-12)
    means = np.stack([p.mean(axis=0) for p in parts])
    np.testing.assert_allclose(signal_correlation(shuffled), np.corrcoef(means.T), atol=1e-12)


def test_conditions_without_spikes_or_repeats_say_nothing(rng):
    condition = np.repeat([0, 1], 10)
    rate = rng.normal(size=(20, 3))
    alone = noise_correlation(recorded(rate, condition))
    silent, lone = np.zeros((10, 3)), np.full((1, 3), 40.0)
    more = recorded(np.concatenate([rate, silent, lone]), [*condition, *[2] * 10, 3])
    np.testing.assert_allclose(noise_correlation(more), alone, atol=1e-12)
    quiet = rate.copy()
    quiet[:, 2] = 4.0
    with_quiet = noise_correlation(recorded(quiet, condition)).values
    assert np.isnan(with_quiet[2]).all()
    assert np.isfinite(with_quiet[:2, :2]).all()


def test_refusals(refused, rng):
    x, y = problem(rng, 12, 3, 2)
    assert "row a stimulus" in refused(ridge_encoding, x, y[:11])
    assert "positive" in refused(ridge_encoding, x, y, penalties=[0.0, 1.0])
    assert "at least 2" in refused(ridge_encoding, x, y, folds=np.zeros(12))
    assert "at least 5" in refused(ridge_encoding, x[:4], y[:4])
    assert "at least 2" in refused(signal_power, y[:1])
    assert "prediction" in refused(noise_corrected_variance, np.ones((2, 5)), np.ones(4))
    single = recorded(rng.normal(size=(3, 2)), [0, 1, 2])
    assert "Repeat" in refused(noise_correlation, single)
    assert "at least 3" in refused(signal_correlation, recorded(np.ones((2, 2)), [0, 1]))
