"""Free energy and its gradients: against scipy densities, autograd and finite differences."""

from __future__ import annotations

from itertools import pairwise

import array_api_strict
import numpy as np
import pytest
import torch
from scipy import stats

from pcsim.inference import (
    Flat,
    GaussianPrior,
    Hierarchy,
    Level,
    SparsePrior,
    errors,
    free_energy,
    gradient,
    precision_gradient,
    predictions,
    weight_gradient,
    weighted_errors,
)
from pcsim.nonlinearity import Nonlinearity

SIZES = (4, 3, 2)
NAMES = ("linear", "tanh", "logistic", "relu", "square", "mine")
KINDS = ("scalar", "diagonal", "full")
PRIORS = ("gaussian", "full gaussian", "sparse", "flat")
MINE = Nonlinearity("mine", f=lambda x, xp: xp.sin(x) + 0.3 * x, df=lambda x, xp: xp.cos(x) + 0.3)


def make_precision(rng, kind, n):
    if kind == "scalar":
        return float(rng.uniform(0.2, 5))
    if kind == "diagonal":
        return rng.uniform(0.2, 5, n)
    basis = np.linalg.qr(rng.normal(size=(n, n)))[0]
    full = basis @ np.diag(rng.uniform(0.2, 5, n)) @ basis.T
    return (full + full.T) / 2


def make_prior(rng, kind, n):
    if kind == "sparse":
        return SparsePrior(alpha=float(rng.uniform(0.2, 5)))
    if kind == "flat":
        return Flat()
    full = "full" if "full" in kind else "diagonal"
    return GaussianPrior(mean=rng.normal(size=n), precision=make_precision(rng, full, n))


def make_hierarchy(rng, outer="linear", inner="linear", kind="scalar", priors=("flat", "gaussian")):
    outer, inner = (MINE if name == "mine" else name for name in (outer, inner))
    levels = [
        Level(rng.normal(size=(n, m)) * 0.7, make_precision(rng, kind, n), outer, inner)
        for n, m in pairwise(SIZES)
    ]
    made = [make_prior(rng, p, n) for p, n in zip(priors, SIZES[1:], strict=True)]
    return Hierarchy(tuple(levels), tuple(made))


def make_states(rng, lead=(5,)):
    return [rng.normal(size=(*lead, n)) for n in SIZES]


def convert(hierarchy, to):
    """The same hierarchy with arrays of another library."""

    def array(value):
        return to(value) if isinstance(value, np.ndarray) else value

    def prior(p):
        if isinstance(p, GaussianPrior):
            return GaussianPrior(array(p.mean), array(p.precision))
        return p

    levels = [
        Level(array(lv.weights), array(lv.precision), lv.outer, lv.inner) for lv in hierarchy.levels
    ]
    return Hierarchy(tuple(levels), tuple(map(prior, hierarchy.priors)))


@pytest.mark.parametrize("kind", KINDS)
def test_linear_gaussian_is_minus_the_log_density(rng, kind):
    model = make_hierarchy(rng, kind=kind)
    states = make_states(rng, ())
    expected = 0.0
    for level, below, above in zip(model.levels, states, states[1:], strict=False):
        covariance = np.linalg.inv(np.eye(len(below)) * level.precision)
        if kind == "full":
            covariance = np.linalg.inv(level.precision)
        mean = level.weights @ above
        expected -= stats.multivariate_normal.logpdf(below, mean, covariance)
    top = model.priors[1]
    sigma = 1 / np.sqrt(top.precision)
    expected -= stats.norm.logpdf(states[2], top.mean, sigma).sum()
    np.testing.assert_allclose(free_energy(model, states), expected, rtol=1e-12)


def test_sparse_prior_adds_half_alpha_log(rng):
    flat = make_hierarchy(rng, priors=("flat", "flat"))
    sparse = Hierarchy(flat.levels, (SparsePrior(0.7), SparsePrior(4.0)))
    states = make_states(rng)
    added = 0.35 * np.log1p(states[1] ** 2).sum(-1) + 2 * np.log1p(states[2] ** 2).sum(-1)
    np.testing.assert_allclose(free_energy(sparse, states), free_energy(flat, states) + added)


def torch_gradients(model, states):
    """Autograd of the mean free energy by states, weights and (log) precisions."""
    states = [torch.tensor(s, requires_grad=True) for s in states]
    weights = [torch.tensor(lv.weights, requires_grad=True) for lv in model.levels]
    leaves, levels = [], []
    for level, w in zip(model.levels, weights, strict=True):
        if np.ndim(level.precision) == 2:
            leaf = torch.tensor(level.precision, requires_grad=True)
            levels.append(Level(w, leaf, level.outer, level.inner))
        else:
            leaf = torch.log(torch.tensor(level.precision, dtype=torch.float64))
            leaf = leaf.clone().requires_grad_(True)
            levels.append(Level(w, torch.exp(leaf), level.outer, level.inner))
        leaves.append(leaf)
    priors = convert(model, torch.tensor).priors
    free_energy(Hierarchy(tuple(levels), priors), states).mean().backward()
    n = states[0].shape[0]
    return (
        [s.grad.numpy() * n for s in states],
        [w.grad.numpy() for w in weights],
        [p.grad.numpy() for p in leaves],
    )


def check_against_autograd(model, states):
    by_state, by_weight, by_precision = torch_gradients(model, states)
    for hand, auto in (
        (gradient(model, states), by_state),
        (weight_gradient(model, states), by_weight),
        (precision_gradient(model, states), by_precision),
    ):
        for a, b in zip(hand, auto, strict=True):
            assert a.shape == b.shape
            np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("outer", NAMES)
@pytest.mark.parametrize("inner", NAMES)
def test_gradients_agree_with_autograd(rng, outer, inner, kind):
    model = make_hierarchy(rng, outer, inner, kind, ("sparse", "gaussian"))
    check_against_autograd(model, make_states(rng))


@pytest.mark.parametrize("below", PRIORS)
@pytest.mark.parametrize("top", PRIORS)
def test_gradients_agree_with_autograd_under_every_prior(rng, below, top):
    model = make_hierarchy(rng, "tanh", "logistic", "diagonal", (below, top))
    check_against_autograd(model, make_states(rng))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("outer", ["linear", "tanh", "logistic", "square", "mine"])
def test_state_gradient_agrees_with_differences(rng, outer, kind):
    model = make_hierarchy(rng, outer, "mine", kind, ("sparse", "full gaussian"))
    states = make_states(rng, (2,))
    h = 1e-5
    for level, hand in enumerate(gradient(model, states)):
        for unit in range(SIZES[level]):
            up, down = (list(states) for _ in range(2))
            up[level], down[level] = states[level].copy(), states[level].copy()
            up[level][:, unit] += h
            down[level][:, unit] -= h
            slope = (free_energy(model, up) - free_energy(model, down)) / (2 * h)
            np.testing.assert_allclose(hand[:, unit], slope, rtol=1e-6, atol=1e-6)


def test_weight_gradient_is_post_times_pre(rng):
    model = make_hierarchy(rng, "tanh", "logistic")
    states = make_states(rng, ())
    for i, (xi, slope) in enumerate(
        zip(weighted_errors(model, states), weight_gradient(model, states), strict=True)
    ):
        h = 1 / (1 + np.exp(-states[i + 1]))
        gate = 1 - np.tanh(model.levels[i].weights @ h) ** 2
        np.testing.assert_allclose(slope, -np.outer(gate * xi, h), rtol=1e-12)


def test_errors_are_observed_minus_predicted(rng):
    model = make_hierarchy(rng, "tanh", kind="full")
    states = make_states(rng)
    for i, level in enumerate(model.levels):
        predicted = np.tanh(states[i + 1] @ level.weights.T)
        np.testing.assert_allclose(predictions(model, states)[i], predicted, rtol=1e-13)
        np.testing.assert_allclose(errors(model, states)[i], states[i] - predicted, rtol=1e-12)
        xi = (states[i] - predicted) @ level.precision
        np.testing.assert_allclose(weighted_errors(model, states)[i], xi, rtol=1e-12)


def test_the_slip_of_the_thesis_is_not_made(rng):
    # Dividing by sigma where sigma^2 belongs agrees at sigma = 1 only.
    w, sigma_x, sigma_z = rng.normal(size=(3, 2)), 0.5, 2.0
    model = Hierarchy((Level(w, 1 / sigma_x**2),), (GaussianPrior(0.3, 1 / sigma_z**2),))
    x, z = rng.normal(size=3), rng.normal(size=2)
    right = -w.T @ (x - w @ z) / sigma_x**2 + (z - 0.3) / sigma_z**2
    wrong = -w.T @ (x - w @ z) / sigma_x + (z - 0.3) / sigma_z
    hand = gradient(model, [x, z])[1]
    np.testing.assert_allclose(hand, right, rtol=1e-12)
    assert np.abs(hand - wrong).min() > 1e-3


def test_trials_are_independent_and_leading_axes_free(rng):
    model = make_hierarchy(rng, "tanh", kind="full", priors=("sparse", "gaussian"))
    states = make_states(rng, (2, 3))
    whole = free_energy(model, states)
    assert whole.shape == (2, 3)
    alone = free_energy(model, [s[1, 2] for s in states])
    np.testing.assert_allclose(whole[1, 2], alone, rtol=1e-13)
    np.testing.assert_allclose(
        gradient(model, states)[1][1, 2], gradient(model, [s[1, 2] for s in states])[1], rtol=1e-12
    )


def test_relabelling_units_changes_nothing(rng):
    model = make_hierarchy(rng, "tanh", "logistic", "full", ("sparse", "full gaussian"))
    states = make_states(rng)
    orders = [rng.permutation(n) for n in SIZES]
    levels = []
    for level, a, b in zip(model.levels, orders, orders[1:], strict=False):
        w, p = level.weights[np.ix_(a, b)], level.precision[np.ix_(a, a)]
        levels.append(Level(w, p, level.outer, level.inner))
    top, o = model.priors[1], orders[2]
    priors = (model.priors[0], GaussianPrior(top.mean[o], top.precision[np.ix_(o, o)]))
    shuffled = [s[:, o] for s, o in zip(states, orders, strict=True)]
    np.testing.assert_allclose(
        free_energy(Hierarchy(tuple(levels), priors), shuffled),
        free_energy(model, states),
        rtol=1e-12,
    )


def test_precision_kinds_agree(rng):
    w, p = rng.normal(size=(4, 3)), 0.7
    priors = (GaussianPrior(precision=4.0),)
    states = make_states(rng)[:2]
    values = [
        free_energy(Hierarchy((Level(w, q),), priors), states)
        for q in (p, np.full(4, p), p * np.eye(4))
    ]
    np.testing.assert_allclose(values[1], values[0], rtol=1e-13)
    np.testing.assert_allclose(values[2], values[0], rtol=1e-13)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", NAMES)
def test_other_libraries_agree(rng, name, kind):
    model = make_hierarchy(rng, name, name, kind, ("sparse", "full gaussian"))
    states = make_states(rng)
    for to, tol in (
        (torch.tensor, 1e-13),
        (array_api_strict.asarray, 1e-13),
        (lambda v: torch.tensor(v, dtype=torch.float32), 2e-4),
    ):
        other, there = convert(model, to), [to(s) for s in states]
        for function in (free_energy, gradient, weight_gradient, precision_gradient):
            mine, theirs = function(model, states), function(other, there)
            if function is free_energy:
                mine, theirs = [mine], [theirs]
            for a, b in zip(mine, theirs, strict=True):
                assert type(b) is type(there[0])
                np.testing.assert_allclose(np.asarray(b), a, rtol=tol, atol=tol)


def test_replica_batched_weights_are_separate_models(rng):
    w = rng.normal(size=(6, 4, 3))
    priors = (SparsePrior(0.7),)
    states = make_states(rng, (6, 5))[:2]
    batched = Hierarchy((Level(w, 4.0, outer="tanh"),), priors)
    whole = (
        free_energy(batched, states),
        gradient(batched, states)[1],
        weight_gradient(batched, states)[0],
    )
    for r in range(6):
        one, mine = Hierarchy((Level(w[r], 4.0, outer="tanh"),), priors), [s[r] for s in states]
        single = free_energy(one, mine), gradient(one, mine)[1], weight_gradient(one, mine)[0]
        for a, b in zip(whole, single, strict=True):
            np.testing.assert_allclose(a[r], b, rtol=1e-12, atol=1e-13)


def test_input_is_left_alone(rng):
    model, states = make_hierarchy(rng), make_states(rng)
    copies = [s.copy() for s in states]
    free_energy(model, states), gradient(model, states)
    for a, b in zip(states, copies, strict=True):
        np.testing.assert_array_equal(a, b)


def test_refusals(rng):
    w = np.ones((3, 2))
    with pytest.raises(ValueError, match=r"Level: found weights of shape \(3,\)"):
        Level(np.ones(3))
    with pytest.raises(ValueError, match=r"Level: found weights of shape \(3, 0\)"):
        Level(np.ones((3, 0)))
    with pytest.raises(ValueError, match="1 of 6 entries of weights NaN"):
        Level(np.where(np.eye(3)[:, :2] * [1, 0] > 0, np.nan, w))
    with pytest.raises(ValueError, match=r"precision down to -0\.7, expected precisions above 0"):
        Level(w, -0.7)
    with pytest.raises(ValueError, match="precision down to 0, expected"):
        Level(w, np.array([0.7, 0.0, 4.0]))
    with pytest.raises(
        ValueError, match=r"precision of shape \(2,\), expected a number, shape \(3,"
    ):
        Level(w, np.ones(2))
    with pytest.raises(ValueError, match=r"eigenvalues from -1 to 3, expected a positive definite"):
        Level(np.ones((2, 2)), np.array([[1.0, 2.0], [2.0, 1.0]]))
    with pytest.raises(ValueError, match="differs from its transpose by 1"):
        Level(np.ones((2, 2)), np.array([[4.0, 1.0], [0.0, 4.0]]))
    with pytest.raises(ValueError, match="Did you mean 'tanh'"):
        Level(w, outer="tan")
    with pytest.raises(TypeError, match="weights of type list with entries <U1"):
        Level([["a", "b"]])
    with pytest.raises(TypeError, match="arrays of one library"):
        Level(w, torch.ones(3, dtype=torch.float64))
    with pytest.raises(ValueError, match="expected one type of number"):
        Level(torch.ones(3, 2), torch.ones(3, dtype=torch.float64))
    with pytest.raises(ValueError, match="found alpha -1"):
        SparsePrior(-1.0)
    with pytest.raises(ValueError, match=r"mean of shape \(2, 2\)"):
        GaussianPrior(np.ones((2, 2)))


def test_refusals_of_a_hierarchy(rng):
    w = np.ones((3, 2))
    with pytest.raises(ValueError, match="1 levels and 2 priors"):
        Hierarchy((Level(w),), (Flat(), Flat()))
    with pytest.raises(ValueError, match=r"2 units above levels\[0\], 3 below the next"):
        Hierarchy((Level(w), Level(w)), (Flat(), Flat()))
    with pytest.raises(TypeError, match="an entry of type float, expected GaussianPrior"):
        Hierarchy((Level(w),), (0.7,))
    with pytest.raises(TypeError, match="an entry of type ndarray, expected Level"):
        Hierarchy((w,), (Flat(),))
    with pytest.raises(
        ValueError, match=r"priors\[0\]\.mean of shape \(3,\), expected a number or"
    ):
        Hierarchy((Level(w),), (GaussianPrior(np.zeros(3)),))
    with pytest.raises(ValueError, match=r"priors\[0\]: found precision of shape \(3,\)"):
        Hierarchy((Level(w),), (GaussianPrior(0.0, np.ones(3)),))
    model = Hierarchy((Level(w),), (Flat(),))
    with pytest.raises(ValueError, match="found 1 states, expected 2"):
        free_energy(model, [np.ones(3)])
    with pytest.raises(ValueError, match=r"states\[1\] of shape \(3,\), expected shape \(2,\)"):
        gradient(model, [np.ones(3), np.ones(3)])
    with pytest.raises(ValueError, match=r"states\[1\] of shape \(5, 2\), expected shape \(4, 2\)"):
        gradient(model, [np.ones((4, 3)), np.ones((5, 2))])
    with pytest.raises(ValueError, match="NaN or infinite"):
        errors(model, [np.full(3, np.inf), np.ones(2)])
    batched = Hierarchy((Level(np.ones((6, 3, 2))),), (Flat(),))
    with pytest.raises(ValueError, match=r"expected leading axes \(6,\) \+ \(trials,\)"):
        free_energy(batched, [np.ones((5, 3)), np.ones((5, 2))])
