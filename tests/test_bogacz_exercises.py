"""The worked exercises of the tutorial, with answers derived on their own.

One latent: food of size phi, prior N(v_p, Sigma_p), light u ~ N(phi^2, Sigma_u); u = 2, v_p = 3.
Every exercise is done at the variances of the tutorial (1, 1) and at others, where a slip between
variance, precision and sigma shows.

References
----------
Bogacz (2017), https://doi.org/10.1016/j.jmp.2015.11.003
"""

from __future__ import annotations

import numpy as np
import pytest

from pcsim.inference import (
    Flat,
    GaussianPrior,
    Hierarchy,
    Level,
    errors,
    free_energy,
    gradient,
    map_gauss_newton,
    map_gradient,
    precision_gradient,
    weight_gradient,
    weighted_errors,
)
from pcsim.learning import learn_precision, learn_weights

U, V_P = 2.0, 3.0
VARIANCES = [(1.0, 1.0), (0.25, 2.0), (4.0, 0.5)]
at_variances = pytest.mark.parametrize(("sigma_u", "sigma_p"), VARIANCES)
"""Sigma_u and Sigma_p are variances, as in the tutorial."""


def food(sigma_u, sigma_p):
    level = Level(np.ones((1, 1)), 1 / sigma_u, outer="square")
    return Hierarchy((level,), (GaussianPrior(V_P, 1 / sigma_p),))


def posterior(sigma_u, sigma_p):
    """The posterior on a grid, from Bayes' rule: likelihood times prior over their integral."""
    phi = np.linspace(0.01, 5, 200_001)
    log_joint = -((U - phi**2) ** 2) / (2 * sigma_u) - (phi - V_P) ** 2 / (2 * sigma_p)
    joint = np.exp(log_joint) / (2 * np.pi * np.sqrt(sigma_u * sigma_p))
    return phi, joint, joint / np.trapezoid(joint, phi)


def mode(sigma_u, sigma_p):
    """The positive root of (v_p - phi)/Sigma_p + 2 phi (u - phi^2)/Sigma_u = 0."""
    roots = np.roots([-2 / sigma_u, 0, 2 * U / sigma_u - 1 / sigma_p, V_P / sigma_p])
    real = roots[np.abs(roots.imag) < 1e-9].real
    return float(real[real > 0].max())


@at_variances
def test_exercise_1_posterior(sigma_u, sigma_p):
    phi, joint, normalised = posterior(sigma_u, sigma_p)
    model = food(sigma_u, sigma_p)
    states = [np.full((phi.size, 1), U), phi[:, None]]
    np.testing.assert_allclose(np.exp(-free_energy(model, states)), joint, rtol=1e-10, atol=1e-300)
    density = np.exp(-free_energy(model, states))
    density /= np.trapezoid(density, phi)
    np.testing.assert_allclose(density, normalised, rtol=1e-9, atol=1e-300)
    np.testing.assert_allclose(phi[density.argmax()], mode(sigma_u, sigma_p), atol=5e-5)


def test_exercise_1_peak_of_the_tutorial():
    # The tutorial reads the most likely size off its figure as about 1.6.
    assert round(mode(1.0, 1.0), 1) == 1.6


@at_variances
def test_exercise_2_gradient_and_its_descent(sigma_u, sigma_p):
    model = food(sigma_u, sigma_p)
    for phi in (0.5, 1.5, 3.0):
        by_hand = (V_P - phi) / sigma_p + (U - phi**2) / sigma_u * 2 * phi
        slope = gradient(model, [np.array([U]), np.array([phi])])[1]
        np.testing.assert_allclose(-slope, by_hand, rtol=1e-12)
    # Euler steps of 0.01 for 5 units of time, from the prior mean.
    phi = np.array([V_P])
    for _ in range(500):
        phi = phi - 0.01 * gradient(model, [np.array([U]), phi])[1]
    np.testing.assert_allclose(phi, mode(sigma_u, sigma_p), atol=1e-3)


@at_variances
@pytest.mark.parametrize("solver", [map_gradient, map_gauss_newton])
def test_solvers_find_the_mode(sigma_u, sigma_p, solver):
    estimate = solver(food(sigma_u, sigma_p), np.array([U]))
    np.testing.assert_allclose(estimate.states[1], mode(sigma_u, sigma_p), atol=1e-9)


@at_variances
def test_exercise_3_network_of_nodes(sigma_u, sigma_p):
    # phi' = eps_u g'(phi) - eps_p; eps_p' = phi - v_p - Sigma_p eps_p;
    # eps_u' = u - g(phi) - Sigma_u eps_u. In the tutorial an error node holds the weighted error.
    phi, eps_p, eps_u = V_P, 0.0, 0.0
    for _ in range(20_000):
        phi, eps_p, eps_u = (
            phi + 0.01 * (2 * phi * eps_u - eps_p),
            eps_p + 0.01 * (phi - V_P - sigma_p * eps_p),
            eps_u + 0.01 * (U - phi**2 - sigma_u * eps_u),
        )
    model = food(sigma_u, sigma_p)
    states = map_gradient(model, np.array([U])).states
    np.testing.assert_allclose(phi, states[1][0], rtol=1e-6)
    np.testing.assert_allclose(eps_u, weighted_errors(model, states)[0][0], rtol=1e-6)
    prior = model.priors[0]
    np.testing.assert_allclose(eps_p, prior.gradient(states[1], np)[0], rtol=1e-6)


@at_variances
def test_learning_rules_of_the_parameters(sigma_u, sigma_p):
    # dF/dv_p = eps_p, dF/dSigma = (eps^2 - 1/Sigma)/2 with eps the weighted error (their sign: -F).
    # A level over a clamped unit of 1 carries v_p as its weight.
    levels = (
        Level(np.ones((1, 1)), 1 / sigma_u, outer="square"),
        Level(np.full((1, 1), V_P), 1 / sigma_p),
    )
    model = Hierarchy(levels, (Flat(), Flat()))
    phi = 1.3
    states = [np.array([[U]]), np.array([[phi]]), np.array([[1.0]])]
    eps_u, eps_p = (U - phi**2) / sigma_u, (phi - V_P) / sigma_p
    np.testing.assert_allclose(-weight_gradient(model, states)[1], eps_p, rtol=1e-12)
    # dF/dlog(precision) = -Sigma dF/dSigma.
    for slope, eps, sigma in zip(
        precision_gradient(model, states), (eps_u, eps_p), (sigma_u, sigma_p), strict=True
    ):
        np.testing.assert_allclose(-slope / sigma, -0.5 * (eps**2 - 1 / sigma), rtol=1e-12)


@at_variances
def test_prior_parameters_are_learned(rng, sigma_u, sigma_p):
    # Linear light (g = identity), so that u ~ N(v_p, Sigma_u + Sigma_p) and learning v_p is exact.
    n = 4000
    u = V_P + np.sqrt(sigma_u + sigma_p) * rng.normal(size=(n, 1))
    model = Hierarchy(
        (Level(np.ones((1, 1)), 1 / sigma_u), Level(np.zeros((1, 1)), 1 / sigma_p)),
        (Flat(), Flat()),
    )
    for _ in range(60):
        states = map_gradient(model, u, clamp={2: np.ones((n, 1))}).states
        moved = learn_weights(model, states, learning_rate=0.5 * (sigma_u + sigma_p))
        model = Hierarchy((model.levels[0], moved.levels[1]), model.priors)
    error = np.sqrt((sigma_u + sigma_p) / n)
    np.testing.assert_allclose(model.levels[1].weights[0, 0], u.mean(), rtol=1e-9)
    assert abs(model.levels[1].weights[0, 0] - V_P) < 4 * error


@pytest.mark.parametrize("sigma", [2.0, 0.5])
def test_exercise_5_variance_learned_with_an_interneuron(rng, sigma):
    # eps' = phi - v - e; e' = Sigma eps - e; at rest eps = (phi - v)/Sigma and e = phi - v.
    # The local rule dSigma = alpha (eps e - 1) then leads to the variance of phi.
    trials, alpha, estimate, trace = 1000, 0.01, 1.0, []
    for phi in 5.0 + np.sqrt(sigma) * rng.normal(size=trials):
        eps, e = 0.0, 0.0
        for _ in range(2000):
            eps, e = eps + 0.01 * (phi - 5.0 - e), e + 0.01 * (estimate * eps - e)
        level = Level(np.full((1, 1), 5.0), 1 / estimate)
        model, states = Hierarchy((level,), (Flat(),)), [np.array([phi]), np.ones(1)]
        if len(trace) % 250 == 0:
            rest = float(weighted_errors(model, states)[0][0])
            np.testing.assert_allclose(eps, rest, atol=5e-3 * (1 + abs(rest)))
            np.testing.assert_allclose(e, errors(model, states)[0][0], atol=5e-3 * (1 + abs(e)))
        estimate += alpha * (eps * e - 1)
        trace.append(estimate)
    # Stationary spread of this rule: variance alpha * sigma, correlated over sigma / alpha trials.
    spread = 4 * np.sqrt(alpha * sigma * 2 * (sigma / alpha) / 500)
    np.testing.assert_allclose(np.mean(trace[500:]), sigma, atol=spread)


@pytest.mark.parametrize("sigma", [2.0, 0.5])
def test_exercise_5_by_the_precision_of_the_engine(rng, sigma):
    phi = 5.0 + np.sqrt(sigma) * rng.normal(size=(1000, 1))
    model = Hierarchy((Level(np.full((1, 1), 5.0), 1.0),), (Flat(),))
    states = [phi, np.ones((1000, 1))]
    for _ in range(300):
        model = learn_precision(model, states, learning_rate=0.2)
    np.testing.assert_allclose(1 / model.levels[0].precision, np.mean((phi - 5) ** 2), rtol=1e-6)
    assert abs(1 / model.levels[0].precision - sigma) < 4 * sigma * np.sqrt(2 / 1000)


def test_multivariate_circuit_at_variances_other_than_one(rng):
    # Section 5 of the tutorial: phi_1 predicted by Theta h(phi_2); at rest the error nodes hold
    # Sigma^-1 times the error, with a full covariance.
    basis = np.linalg.qr(rng.normal(size=(3, 3)))[0]
    covariance = basis @ np.diag([0.25, 2.0, 4.0]) @ basis.T
    covariance = (covariance + covariance.T) / 2
    theta, x = rng.normal(size=(3, 2)), rng.normal(size=3)
    precision = np.linalg.inv(covariance)
    level = Level(theta, (precision + precision.T) / 2, inner="tanh")
    model = Hierarchy((level,), (GaussianPrior(0.3, 0.7),))
    phi, eps = np.full(2, 0.3), np.zeros(3)
    for _ in range(20_000):
        drive = (1 - np.tanh(phi) ** 2) * (theta.T @ eps) - 0.7 * (phi - 0.3)
        phi, eps = phi + 0.01 * drive, eps + 0.01 * (x - theta @ np.tanh(phi) - covariance @ eps)
    states = [x, phi]
    np.testing.assert_allclose(gradient(model, states)[1], 0, atol=1e-8)
    np.testing.assert_allclose(eps, weighted_errors(model, states)[0], atol=1e-8)
