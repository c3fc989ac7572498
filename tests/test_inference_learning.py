"""Learning: the local rule descends F, finds known weights and precisions, refuses bad input."""

from __future__ import annotations

import array_api_strict
import numpy as np
import pytest
import torch

from pcsim.inference import (
    Flat,
    GaussianPrior,
    Hierarchy,
    Level,
    SparsePrior,
    free_energy,
    infer,
    map_exact,
    precision_gradient,
    weight_gradient,
)
from pcsim.learning import learn, learn_precision, learn_weights


def small(rng, precision=4.0, prior=None):
    level = Level(rng.normal(size=(4, 2)) * 0.5, precision)
    return Hierarchy((level,), (prior or GaussianPrior(0.0, 0.7),))


def test_weight_step_is_the_gradient_and_decay(rng):
    model = small(rng)
    states = [rng.normal(size=(5, 4)), rng.normal(size=(5, 2))]
    moved = learn_weights(model, states, learning_rate=0.07, weight_decay=0.3)
    w = model.levels[0].weights
    expected = w - 0.07 * (weight_gradient(model, states)[0] + 0.3 * w)
    np.testing.assert_allclose(moved.levels[0].weights, expected, rtol=1e-13)


def test_weight_gradient_does_not_depend_on_the_size_of_the_batch(rng):
    model = small(rng)
    states = [rng.normal(size=(5, 4)), rng.normal(size=(5, 2))]
    doubled = [np.concatenate([s, s]) for s in states]
    np.testing.assert_allclose(
        weight_gradient(model, doubled)[0], weight_gradient(model, states)[0], rtol=1e-12
    )


@pytest.mark.parametrize("outer", ["linear", "tanh"])
@pytest.mark.parametrize("prior", [GaussianPrior(0.3, 0.7), SparsePrior(0.7)])
def test_learning_lowers_the_free_energy(rng, outer, prior):
    levels = (
        Level(0.3 * rng.normal(size=(6, 4)), 4.0, outer),
        Level(0.3 * rng.normal(size=(4, 2)), 0.7, outer),
    )
    model = Hierarchy(levels, (Flat(), prior))
    x = np.tanh(rng.normal(size=(40, 2)) @ rng.normal(size=(2, 6)))
    values = []
    for _ in range(15):
        model, estimate = learn(model, x, learning_rate=0.04, n_steps=300)
        values.append(float(estimate.free_energy.mean()))
    assert np.diff(values).max() < 1e-6
    assert values[0] - values[-1] > 0.1


def test_weights_of_probabilistic_pca_are_found(rng):
    # With a prior of precision p and noise of precision q the evidence is highest at the principal
    # subspace; EM on the posterior mean alone (zero temperature) finds the same subspace.
    n, basis = 400, np.linalg.qr(rng.normal(size=(5, 5)))[0]
    x = rng.normal(size=(n, 5)) * np.array([3.0, 2.0, 0.2, 0.2, 0.2]) @ basis.T
    model = Hierarchy((Level(0.1 * rng.normal(size=(5, 2)), 4.0),), (GaussianPrior(0.0, 0.7),))
    for _ in range(300):
        model, _ = learn(model, x, learning_rate=0.05, weight_decay=0.01, n_steps=200)
    learned = np.linalg.qr(model.levels[0].weights)[0]
    principal = np.linalg.svd(x, full_matrices=False)[2][:2].T
    overlap = np.linalg.svd(learned.T @ principal)[1]
    assert overlap.min() > 0.999


@pytest.mark.parametrize("kind", ["scalar", "diagonal", "full"])
def test_closed_form_precision_zeroes_the_gradient(rng, kind):
    start = {"scalar": 4.0, "diagonal": np.full(4, 0.7), "full": 0.7 * np.eye(4)}[kind]
    model = small(rng, start)
    states = [rng.normal(size=(50, 4)) * [0.5, 1.5, 2.0, 3.0], rng.normal(size=(50, 2))]
    best = learn_precision(model, states)
    assert np.ndim(best.levels[0].precision) == np.ndim(start)
    np.testing.assert_allclose(precision_gradient(best, states)[0], 0, atol=1e-10)
    assert free_energy(best, states).mean() < free_energy(model, states).mean()


@pytest.mark.parametrize("kind", ["scalar", "diagonal", "full"])
def test_precision_steps_lead_to_the_closed_form(rng, kind):
    start = {"scalar": 4.0, "diagonal": np.full(4, 0.7), "full": 0.7 * np.eye(4)}[kind]
    model = small(rng, start)
    states = [rng.normal(size=(50, 4)) * [0.5, 1.5, 2.0, 3.0], rng.normal(size=(50, 2))]
    best = learn_precision(model, states).levels[0].precision
    last = free_energy(model, states).mean()
    for _ in range(500):
        model = learn_precision(model, states, learning_rate=0.1)
        now = free_energy(model, states).mean()
        assert now <= last + 1e-12 * abs(last)
        last = now
    np.testing.assert_allclose(model.levels[0].precision, best, rtol=1e-6, atol=1e-8)


def test_precision_of_known_noise_is_recovered(rng):
    n, precision = 20_000, np.array([0.2, 0.7, 4.0, 5.0])
    mu = rng.normal(size=(n, 2))
    model = small(rng, np.full(4, 0.5))
    x = mu @ model.levels[0].weights.T + rng.normal(size=(n, 4)) / np.sqrt(precision)
    found = learn_precision(model, [x, mu]).levels[0].precision
    # The relative standard error of a variance is sqrt(2 / n).
    np.testing.assert_allclose(found, precision, rtol=4 * np.sqrt(2 / n))


@pytest.mark.parametrize("to", [torch.tensor, array_api_strict.asarray])
@pytest.mark.parametrize("kind", ["scalar", "diagonal", "full"])
def test_other_libraries_agree(rng, to, kind):
    pi = {"scalar": 4.0, "diagonal": np.full(4, 0.7), "full": 0.7 * np.eye(4)}[kind]
    there = pi if kind == "scalar" else to(pi)
    w, x = rng.normal(size=(4, 2)), rng.normal(size=(9, 4))
    mine = Hierarchy((Level(w, pi),), (GaussianPrior(0.0, 0.7),))
    theirs = Hierarchy((Level(to(w), there),), (GaussianPrior(0.0, 0.7),))
    mine, estimate = learn(mine, x, learning_rate=0.1, weight_decay=0.2, tol=1e-12, n_steps=5000)
    theirs, other = learn(
        theirs, to(x), learning_rate=0.1, weight_decay=0.2, tol=1e-12, n_steps=5000
    )
    for rate in (None, 0.2):
        a = learn_precision(mine, estimate.states, learning_rate=rate).levels[0]
        b = learn_precision(theirs, other.states, learning_rate=rate).levels[0]
        np.testing.assert_allclose(np.asarray(b.weights), a.weights, rtol=1e-8)
        np.testing.assert_allclose(np.asarray(b.precision), a.precision, rtol=1e-8, atol=1e-10)


def test_replica_batched_learning_is_separate_learning(rng):
    w, x = rng.normal(size=(3, 4, 2)), rng.normal(size=(3, 6, 4))
    whole = Hierarchy((Level(w, 4.0),), (SparsePrior(0.7),))
    whole, _ = learn(whole, x, learning_rate=0.1, tol=1e-12, n_steps=5000)
    for r in range(3):
        one = Hierarchy((Level(w[r], 4.0),), (SparsePrior(0.7),))
        one, _ = learn(one, x[r], learning_rate=0.1, tol=1e-12, n_steps=5000)
        np.testing.assert_allclose(whole.levels[0].weights[r], one.levels[0].weights, rtol=1e-8)


def test_learning_returns_a_new_model_and_the_inference_before(rng):
    model = small(rng)
    x, before = rng.normal(size=(5, 4)), model.levels[0].weights.copy()
    learned, estimate = learn(model, x, learning_rate=0.1, tol=1e-12, n_steps=5000)
    np.testing.assert_array_equal(model.levels[0].weights, before)
    assert not np.allclose(learned.levels[0].weights, before)
    np.testing.assert_allclose(estimate.states[1], map_exact(model, x).states[1], atol=1e-10)
    np.testing.assert_allclose(
        infer(model, x, n_steps=5000, tol=1e-12).states[1], estimate.states[1]
    )


def test_refusals(rng):
    model = small(rng)
    x, mu = rng.normal(size=(3, 4)), rng.normal(size=(3, 2))
    with pytest.raises(
        ValueError, match=r"learning_rate -0\.1, expected a finite number not below"
    ):
        learn(model, x, learning_rate=-0.1)
    with pytest.raises(ValueError, match="weight_decay -1"):
        learn(model, x, learning_rate=0.1, weight_decay=-1.0)
    with pytest.raises(ValueError, match="n_steps 0"):
        learn(model, x, learning_rate=0.1, n_steps=0)
    with pytest.raises(ValueError, match=r"x of shape \(3, 2\)"):
        learn(model, mu, learning_rate=0.1)
    with np.errstate(over="ignore"), pytest.raises(RuntimeError, match="Lower learning_rate"):
        learn_weights(model, [1e150 * x, 1e150 * mu], learning_rate=1e300)
    exact = [mu @ model.levels[0].weights.T, mu]
    with pytest.raises(
        ValueError, match=r"levels\[0\]: found 3 trials with errors that are all zero"
    ):
        learn_precision(model, exact)
    full = small(rng, 0.7 * np.eye(4))
    with pytest.raises(ValueError, match="3 trials whose errors span fewer than 4 units"):
        learn_precision(full, [x, mu])
    with pytest.raises(ValueError, match=r"learning_rate 1\.5, expected at most 1"):
        learn_precision(full, [x, mu], learning_rate=1.5)
