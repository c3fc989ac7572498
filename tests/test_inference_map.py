"""MAP solvers: against the conditioned joint Gaussian, each other, and the law that F falls."""

from __future__ import annotations

from itertools import pairwise

import array_api_strict
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pcsim.inference import (
    Flat,
    GaussianPrior,
    Hierarchy,
    Level,
    SparsePrior,
    free_energy,
    gradient,
    infer,
    map_exact,
    map_gauss_newton,
    map_gradient,
    stable_step,
)
from pcsim.inference_gradient import descend
from pcsim.inference_newton import newton_steps

SOLVERS = (map_exact, map_gauss_newton, map_gradient)


def full_precision(rng, n):
    basis = np.linalg.qr(rng.normal(size=(n, n)))[0]
    full = basis @ np.diag(rng.uniform(0.2, 5, n)) @ basis.T
    return (full + full.T) / 2


def linear_model(rng, sizes, scale=1.0):
    """A linear Gaussian hierarchy of mixed kinds of precision, none of them 1."""
    levels = []
    for i, (n, m) in enumerate(pairwise(sizes)):
        precision = (full_precision(rng, n), rng.uniform(0.2, 5, n), float(rng.uniform(0.2, 5)))
        weights = scale * rng.normal(size=(n, m)) / np.sqrt(m)
        levels.append(Level(weights, precision[i % 3]))
    top = GaussianPrior(rng.normal(size=sizes[-1]), full_precision(rng, sizes[-1]))
    return Hierarchy(tuple(levels), (Flat(),) * (len(levels) - 1) + (top,))


def matrix(precision, n):
    return precision * np.eye(n) if np.ndim(precision) < 2 else precision


def joint_gaussian(model):
    """Mean and covariance of (x, mu_1, ..., mu_L), composed from the top down as covariances."""
    sizes = model.sizes
    top = model.priors[-1]
    mean, covariance = (
        np.broadcast_to(top.mean, sizes[-1]),
        np.linalg.inv(matrix(top.precision, sizes[-1])),
    )
    for level in reversed(model.levels):
        n = level.n_below
        down = np.zeros((n, len(mean)))
        down[:, : level.n_above] = level.weights
        noise = np.linalg.inv(matrix(level.precision, n))
        cross = down @ covariance
        covariance = np.block([[cross @ down.T + noise, cross], [cross.T, covariance]])
        mean = np.concatenate([down @ mean, mean])
    return mean, covariance


def condition(model, known):
    """Posterior mean of every level given those in `known`, by marginal covariances."""
    mean, covariance = joint_gaussian(model)
    ends = np.cumsum((0, *model.sizes))
    spans = [np.arange(a, b) for a, b in pairwise(ends)]
    if not known:
        return [mean[s] for s in spans]
    seen = np.concatenate([spans[i] for i in sorted(known)])
    values = np.concatenate([known[i] for i in sorted(known)], axis=-1)
    gain = covariance[:, seen] @ np.linalg.inv(covariance[np.ix_(seen, seen)])
    whole = mean + (values - mean[seen]) @ gain.T
    return [whole[..., s] for s in spans]


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("sizes", [(4, 3), (5, 4, 3), (6, 4, 3, 2)])
def test_linear_gaussian_is_the_conditional_mean(rng, sizes, solver):
    model = linear_model(rng, sizes)
    x = rng.normal(size=(4, sizes[0]))
    estimate = solver(model, x)
    for got, wanted in zip(estimate.states, condition(model, {0: x}), strict=True):
        np.testing.assert_allclose(got, wanted, atol=1e-11 if solver is map_exact else 1e-9)
    np.testing.assert_allclose(estimate.free_energy, free_energy(model, estimate.states))
    np.testing.assert_allclose(
        estimate.errors[0], x - estimate.states[1] @ model.levels[0].weights.T
    )


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("held", [(3,), (2,), (1,), (0, 3), (0, 2), (1, 3), ()])
def test_any_level_can_be_clamped_or_free(rng, held, solver):
    model = linear_model(rng, (5, 4, 3, 2))
    known = {i: rng.normal(size=(3, model.sizes[i])) for i in held}
    clamp = {i: v for i, v in known.items() if i}
    estimate = solver(model, known.get(0), clamp=clamp)
    for level, wanted in enumerate(condition(model, known)):
        np.testing.assert_allclose(estimate.states[level], wanted, atol=1e-9)


@given(seed=st.integers(0, 2**32 - 1), scale=st.floats(0.2, 1.5))
@settings(max_examples=20, deadline=None)
def test_three_solvers_agree_on_random_linear_models(seed, scale):
    rng = np.random.default_rng(seed)
    model = linear_model(rng, rng.integers(1, 5, size=3), scale)
    x = rng.normal(size=(2, model.sizes[0]))
    exact = map_exact(model, x)
    for solver in (map_gauss_newton, map_gradient):
        for a, b in zip(solver(model, x, n_steps=100_000).states, exact.states, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-8)


def nonlinear_model(rng, outer, inner="linear", prior="gaussian"):
    priors = {
        "gaussian": (Flat(), GaussianPrior(0.4, 0.7)),
        "sparse": (SparsePrior(0.7), SparsePrior(4.0)),
        "both": (GaussianPrior(0.3, rng.uniform(0.2, 5, 4)), SparsePrior(0.7)),
    }[prior]
    levels = (
        Level(rng.normal(size=(5, 4)) * 0.6, full_precision(rng, 5), outer, inner),
        Level(rng.normal(size=(4, 3)) * 0.6, rng.uniform(0.2, 5, 4), outer, inner),
    )
    return Hierarchy(levels, priors)


CASES = [
    ("linear", "linear", "sparse"),
    ("linear", "tanh", "both"),
    ("tanh", "linear", "gaussian"),
    ("tanh", "logistic", "sparse"),
    ("logistic", "tanh", "gaussian"),
    ("square", "linear", "gaussian"),
    ("linear", "square", "both"),
]


@pytest.mark.parametrize("solver", [map_gauss_newton, map_gradient])
@pytest.mark.parametrize(("outer", "inner", "prior"), CASES)
def test_nonlinear_estimate_is_a_minimum(rng, solver, outer, inner, prior):
    model = nonlinear_model(rng, outer, inner, prior)
    x = rng.normal(size=(2, 5))
    states = solver(model, x, n_steps=50_000).states
    for slope in gradient(model, states)[1:]:
        np.testing.assert_allclose(slope, 0, atol=1e-8)
    lowest = free_energy(model, states)
    for _ in range(20):
        near = [x, *(s + 1e-3 * rng.normal(size=s.shape) for s in states[1:])]
        assert (free_energy(model, near) >= lowest).all()


def test_newton_and_gradient_meet_from_the_same_start(rng):
    model = nonlinear_model(rng, "tanh")
    x = rng.normal(size=(4, 5))
    slow, fast = map_gradient(model, x), map_gauss_newton(model, x)
    for a, b in zip(slow.states, fast.states, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-9)
    assert fast.n_steps < slow.n_steps


@pytest.mark.parametrize("steps", [descend, newton_steps])
@pytest.mark.parametrize(
    ("outer", "inner", "prior"),
    [*CASES, ("linear", "linear", "gaussian"), ("relu",) * 2 + ("both",)],
)
def test_free_energy_never_rises(rng, steps, outer, inner, prior):
    model = nonlinear_model(rng, outer, inner, prior)
    start = [2 * rng.normal(size=(6, n)) for n in model.sizes]
    last = free_energy(model, start)
    for n in range(1, 40):
        states, _, _ = steps(model, start, (1, 2), n_steps=n, tol=1e-12)
        now = free_energy(model, states)
        assert (now <= last + 1e-13 * (1 + np.abs(last))).all()
        last = now


@pytest.mark.parametrize("solver", SOLVERS)
def test_trials_are_independent(rng, solver):
    model = linear_model(rng, (5, 4, 3))
    x = rng.normal(size=(6, 5)) * np.array([0.01, 0.1, 1, 10, 100, 0])[:, None]
    whole = solver(model, x).states[1]
    for i, trial in enumerate(x):
        np.testing.assert_allclose(whole[i], solver(model, trial).states[1], rtol=1e-9, atol=1e-11)
    shaped = solver(model, x.reshape(2, 3, 5)).states[1]
    np.testing.assert_allclose(shaped.reshape(6, 4), whole, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("to", [torch.tensor, array_api_strict.asarray])
@pytest.mark.parametrize("solver", SOLVERS)
def test_other_libraries_agree(rng, solver, to):
    w, x = rng.normal(size=(4, 3)), rng.normal(size=(5, 4))
    outer = "linear" if solver is map_exact else "tanh"
    pi, top = full_precision(rng, 4), rng.uniform(0.2, 5, 3)
    mine = Hierarchy((Level(w, pi, outer),), (GaussianPrior(0.3, top),))
    theirs = Hierarchy((Level(to(w), to(pi), outer),), (GaussianPrior(0.3, to(top)),))
    ours, other = solver(mine, x), solver(theirs, to(x))
    assert type(other.states[1]) is type(to(x))
    np.testing.assert_allclose(np.asarray(other.states[1]), ours.states[1], atol=1e-9)


@pytest.mark.parametrize("solver", SOLVERS)
def test_float32(rng, solver):
    w, x = rng.normal(size=(4, 3)), rng.normal(size=(5, 4))
    mine = Hierarchy((Level(w, 4.0),), (GaussianPrior(0.3, 0.7),))
    single = Hierarchy((Level(torch.tensor(w).float(), 4.0),), (GaussianPrior(0.3, 0.7),))
    got = solver(single, torch.tensor(x).float()).states[1]
    assert got.dtype == torch.float32
    np.testing.assert_allclose(got.numpy(), map_exact(mine, x).states[1], atol=2e-4)


def test_replica_batched_weights(rng):
    w, x = rng.normal(size=(3, 4, 2)), rng.normal(size=(3, 5, 4))
    for outer in ("linear", "tanh"):
        priors = (GaussianPrior(0.3, 0.7),)
        whole = map_gradient(Hierarchy((Level(w, 4.0, outer),), priors), x)
        for r in range(3):
            one = map_gradient(Hierarchy((Level(w[r], 4.0, outer),), priors), x[r])
            np.testing.assert_allclose(whole.states[1][r], one.states[1], atol=1e-9)


def test_dead_points_are_left(rng):
    # At mu = 0 the slope of relu and of square is 0, but data pull.
    w = np.abs(rng.normal(size=(4, 2)))
    x = w @ np.array([0.5, 1.5])
    for name in ("relu", "square"):
        for model in (
            Hierarchy((Level(w, 4.0, name),), (GaussianPrior(0.0, 0.2),)),
            Hierarchy((Level(w, 4.0, inner=name),), (GaussianPrior(0.0, 0.2),)),
        ):
            for solver in (map_gradient, map_gauss_newton):
                assert np.abs(solver(model, x).states[1]).max() > 0.2


def test_a_minimum_in_a_kink_is_found():
    # For mu < 0 only the prior pulls, up; for mu > 0 the data push down harder: the minimum is 0.
    model = Hierarchy((Level(np.ones((1, 1)), 4.0, inner="relu"),), (GaussianPrior(0.5, 0.7),))
    assert abs(float(map_gradient(model, np.array([-3.0])).states[1][0])) < 1e-6


def test_stable_step_is_two_over_the_largest_curvature(rng):
    model = linear_model(rng, (5, 4, 3))
    states = [rng.normal(size=n) for n in model.sizes]
    _, covariance = joint_gaussian(model)
    joint = np.linalg.inv(covariance)
    largest = np.linalg.eigvalsh(joint[5:, 5:])[-1]
    np.testing.assert_allclose(stable_step(model, states), 2 / largest, rtol=1e-4)
    whole = np.linalg.eigvalsh(joint)[-1]
    np.testing.assert_allclose(stable_step(model, states, free=(0, 1, 2)), 2 / whole, rtol=1e-4)


@pytest.mark.parametrize("factor", [1.02, 3.0, 1e3, 1e300])
def test_divergence_names_the_step_that_would_do(rng, factor):
    model = linear_model(rng, (5, 4, 3))
    x = rng.normal(size=(3, 5))
    largest = stable_step(model, map_exact(model, x).states)
    with pytest.raises(RuntimeError, match="expected a step below") as caught:
        map_gradient(model, x, step=factor * largest)
    named = float(str(caught.value).split("a step below ")[1].split()[0])
    np.testing.assert_allclose(named, largest, rtol=1e-3)
    safe = map_gradient(model, x, step=0.9 * named)
    np.testing.assert_allclose(safe.states[1], map_exact(model, x).states[1], atol=1e-9)


def test_a_given_step_is_plain_gradient_descent(rng):
    model = linear_model(rng, (4, 3))
    x = rng.normal(size=4)
    with pytest.raises(RuntimeError, match="largest stable step here is") as caught:
        map_gradient(model, x, step=1e-4, n_steps=3)
    assert "after 3 steps, expected tol 1.0e-10" in str(caught.value)


def test_infer_takes_its_budget(rng):
    model = linear_model(rng, (4, 3))
    x = rng.normal(size=(2, 4))
    rough = infer(model, x, n_steps=2)
    assert rough.n_steps == 2
    assert (rough.free_energy > map_exact(model, x).free_energy).all()
    fine = infer(model, x, n_steps=10_000, tol=1e-10)
    np.testing.assert_allclose(fine.states[1], map_exact(model, x).states[1], atol=1e-9)


def test_input_is_left_alone(rng):
    model, x = linear_model(rng, (4, 3)), rng.normal(size=4)
    before = x.copy()
    for solver in SOLVERS:
        solver(model, x)
    np.testing.assert_array_equal(x, before)


@pytest.mark.parametrize("solver", SOLVERS)
def test_refusals(rng, solver):
    model = linear_model(rng, (4, 3, 2))
    x = rng.normal(size=(5, 4))
    name = solver.__name__
    with pytest.raises(
        ValueError, match=rf"{name}: found x of shape \(5, 3\), expected .*\.\.\., 4"
    ):
        solver(model, x[:, :3])
    with pytest.raises(ValueError, match="1 of 20 entries of x NaN"):
        solver(model, np.where(np.arange(20).reshape(5, 4) == 7, np.nan, x))
    with pytest.raises(TypeError, match="x of type list"):
        solver(model, ["a", "b", "c", "d"])
    with pytest.raises(ValueError, match="clamp of level 3, expected levels 0 to 2"):
        solver(model, x, clamp={3: np.ones(2)})
    with pytest.raises(ValueError, match="clamp of level 0 although x is given"):
        solver(model, x, clamp={0: x})
    with pytest.raises(ValueError, match=r"clamp\[2\] of shape \(3,\)"):
        solver(model, x, clamp={2: np.ones(3)})
    with pytest.raises(ValueError, match="Give all the same number of trials"):
        solver(model, x, clamp={2: np.ones((4, 2))})
    with pytest.raises(ValueError, match="found every level clamped, expected a level left"):
        solver(model, x, clamp={1: np.ones(3), 2: np.ones(2)})
    with pytest.raises(TypeError, match="arrays of one library"):
        solver(model, torch.tensor(x))


def test_more_refusals(rng):
    model = linear_model(rng, (4, 3))
    x = rng.normal(size=4)
    for name, value in (("step", 0.0), ("step", -1.0), ("tol", 0.0), ("n_steps", 0)):
        with pytest.raises(ValueError, match=f"map_gradient: found {name} "):
            map_gradient(model, x, **{name: value})
    with pytest.raises(RuntimeError, match="Raise n_steps or tol"):
        map_gradient(model, x, n_steps=2)
    with pytest.raises(RuntimeError, match="Raise n_steps or tol"):
        map_gauss_newton(model, x, n_steps=1)
    tanh = Hierarchy((Level(np.ones((4, 3)), 0.7, "tanh"),), (SparsePrior(4.0),))
    with pytest.raises(ValueError, match=r"\['linear', 'tanh'\] and a SparsePrior, expected a lin"):
        map_exact(tanh, x)
    flat = Hierarchy((Level(np.ones((4, 3)), 0.7),), (Flat(),))
    with pytest.raises(ValueError, match="Give a GaussianPrior to the levels whose prior is Flat"):
        map_exact(flat, x)
    batched = Hierarchy((Level(np.ones((2, 4, 3)), 0.7),), (GaussianPrior(),))
    with pytest.raises(ValueError, match="Use map_gradient, or one hierarchy per replica"):
        map_exact(batched, x)
    with pytest.raises(ValueError, match="free level 5, expected levels 0 to 1"):
        stable_step(model, [x, np.zeros(3)], free=(5,))
