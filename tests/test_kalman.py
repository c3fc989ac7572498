"""The Kalman filter against conditioning of the joint Gaussian, and its circuit against both."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.linalg
import scipy.stats

from pcsim.inference_kalman import (
    StateSpace,
    kalman_bucy,
    kalman_filter,
    kalman_smoother,
    steady_state,
)

TRANSITION = np.array([[0.9, 0.3, 0.0], [-0.25, 0.85, 0.1], [0.0, 0.2, 0.6]])
WEIGHTS = np.array([[1.0, 0.4, -0.2], [0.3, -0.8, 0.5]])
PRECISION = np.array([[4.0, 0.6], [0.6, 0.7]])
PROCESS = np.array([[2.0, 0.3, 0.1], [0.3, 0.7, -0.2], [0.1, -0.2, 4.0]])
MODEL = StateSpace(
    TRANSITION, WEIGHTS, PRECISION, PROCESS, np.array([0.5, -1.0, 0.2]), np.array([0.7, 4.0, 1.3])
)


def joint(model, n_times):
    """Mean and covariance of all states, and the matrix that observes them, block by block."""
    n, a = model.n_states, model.transition
    q, p0 = np.linalg.inv(model.process_precision), np.diag(1 / model.initial_precision)
    # z = L (z_0, w_1, w_2, ...) with L of powers of the transition.
    powers = np.zeros((n_times * n, n_times * n))
    for i in range(n_times):
        for j in range(i + 1):
            block = np.linalg.matrix_power(a, i - j)
            powers[i * n : (i + 1) * n, j * n : (j + 1) * n] = block
    drive = scipy.linalg.block_diag(p0, *[q] * (n_times - 1))
    start = np.concatenate([model.initial_mean, np.zeros((n_times - 1) * n)])
    return powers @ start, powers @ drive @ powers.T, np.kron(np.eye(n_times), model.weights)


def conditioned(model, x, upto):
    """Mean and covariance of all states given the observations before `upto`, and log density."""
    n_times, m = x.shape
    mean, covariance, observe = joint(model, n_times)
    observe = observe[: upto * m]
    noise = np.kron(np.eye(upto), np.linalg.inv(model.precision))
    s = observe @ covariance @ observe.T + noise
    gain = covariance @ observe.T @ np.linalg.inv(s)
    seen = x[:upto].ravel()
    density = scipy.stats.multivariate_normal(observe @ mean, s).logpdf(seen)
    after = covariance - gain @ observe @ covariance
    return mean + gain @ (seen - observe @ mean), after, density


def test_filter_is_the_conditional_of_the_joint_gaussian(rng):
    x = rng.standard_normal((2, 7, 2)) * 1.5
    belief = kalman_filter(MODEL, x)
    for trial in range(2):
        for t in range(7):
            mean, covariance, density = conditioned(MODEL, x[trial], t + 1)
            here = slice(3 * t, 3 * t + 3)
            np.testing.assert_allclose(belief.mean[trial, t], mean[here], atol=1e-10)
            np.testing.assert_allclose(belief.covariance[t], covariance[here, here], atol=1e-10)
        assert belief.log_likelihood[trial] == pytest.approx(density, abs=1e-9)


def test_smoother_is_the_conditional_on_the_whole_sequence(rng):
    x = rng.standard_normal((6, 2))
    belief = kalman_smoother(MODEL, x)
    mean, covariance, density = conditioned(MODEL, x, 6)
    np.testing.assert_allclose(belief.mean.ravel(), mean, atol=1e-10)
    for t in range(6):
        here = slice(3 * t, 3 * t + 3)
        np.testing.assert_allclose(belief.covariance[t], covariance[here, here], atol=1e-10)
    assert belief.log_likelihood == pytest.approx(density, abs=1e-9)


def test_steady_state_is_that_of_scipy():
    q, r = np.linalg.inv(PROCESS), np.linalg.inv(PRECISION)
    expected = scipy.linalg.solve_discrete_are(TRANSITION.T, WEIGHTS.T, q, r)
    rest = steady_state(MODEL)
    np.testing.assert_allclose(rest.predicted_covariance, expected, atol=1e-10)
    gain = expected @ WEIGHTS.T @ np.linalg.inv(WEIGHTS @ expected @ WEIGHTS.T + r)
    np.testing.assert_allclose(rest.gain, gain, atol=1e-10)
    last = kalman_filter(MODEL, np.zeros((200, 2)))
    np.testing.assert_allclose(last.covariance[-1], rest.covariance, atol=1e-10)
    np.testing.assert_allclose(last.gain[-1], rest.gain, atol=1e-10)


def test_a_growing_state_that_is_seen_comes_to_rest_and_an_unseen_one_is_refused():
    grows = np.diag([1.2, 0.5])
    seen = StateSpace(grows, np.array([[0.7, 0.0]]), 4.0, 0.7)
    expected = scipy.linalg.solve_discrete_are(grows.T, seen.weights.T, np.eye(2) / 0.7, [[0.25]])
    np.testing.assert_allclose(steady_state(seen).predicted_covariance, expected, atol=1e-10)
    with pytest.raises(RuntimeError, match=r"steady_state: found .*Observe every state"):
        steady_state(StateSpace(grows, np.array([[0.0, 0.7]]), 4.0, 0.7))


def test_continuous_rest_is_that_of_scipy():
    drift = np.array([[-0.7, 4.0, 0.0], [-4.0, -0.7, 0.3], [0.0, 0.2, 0.1]])
    model = StateSpace(drift, WEIGHTS, PRECISION, PROCESS)
    q, r = np.linalg.inv(PROCESS), np.linalg.inv(PRECISION)
    expected = scipy.linalg.solve_continuous_are(drift.T, WEIGHTS.T, q, r)
    rest = kalman_bucy(model)
    np.testing.assert_allclose(rest.covariance, expected, atol=1e-10)
    np.testing.assert_allclose(rest.gain, expected @ WEIGHTS.T @ PRECISION, atol=1e-10)
    with pytest.raises(RuntimeError, match=r"kalman_bucy: found .*Observe every state"):
        kalman_bucy(StateSpace(np.diag([0.3, 0.0]), np.array([[0.0, 0.7]]), 4.0, 0.7))


def test_torch_arrays_give_the_same(rng):
    torch = pytest.importorskip("torch")
    x = rng.standard_normal((2, 5, 2))
    parts = (TRANSITION, WEIGHTS, PRECISION, PROCESS, MODEL.initial_mean, MODEL.initial_precision)
    other = kalman_smoother(StateSpace(*map(torch.tensor, parts)), torch.tensor(x))
    own = kalman_smoother(MODEL, x)
    for name in ("mean", "covariance", "log_likelihood", "gain"):
        np.testing.assert_allclose(getattr(other, name).numpy(), getattr(own, name), atol=1e-12)
    tensors = StateSpace(torch.tensor(TRANSITION), torch.tensor(WEIGHTS), 4.0, 0.7)
    rest = steady_state(StateSpace(TRANSITION, WEIGHTS, 4.0, 0.7))
    np.testing.assert_allclose(steady_state(tensors).gain.numpy(), rest.gain, atol=1e-12)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"transition": np.ones((2, 3))}, r"shapes \(n, n\) and \(m, n\)"),
        ({"weights": np.ones((2, 4))}, r"shapes \(n, n\) and \(m, n\)"),
        ({"precision": -0.7}, "precisions above 0"),
        ({"process_precision": np.ones(2)}, "one per unit"),
        ({"initial_precision": np.zeros((3, 3))}, "positive definite"),
        ({"transition": np.full((3, 3), np.nan)}, "finite numbers"),
    ],
)
def test_unlawful_models_are_refused(change, words):
    given = {"transition": TRANSITION, "weights": WEIGHTS} | change
    with pytest.raises(ValueError, match=words):
        StateSpace(**given)


def test_signals_of_another_width_are_refused():
    with pytest.raises(ValueError, match=r"kalman_filter: found x of shape \(4, 3\), expected 2"):
        kalman_filter(MODEL, np.zeros((4, 3)))
