"""Generalized filtering: its precisions, its gradient, and where it must agree with the truth."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import scipy.signal

from pcsim import catalog
from pcsim.brian import run_brian
from pcsim.circuit import settle
from pcsim.inference_generalized import (
    GeneralizedModel,
    embed,
    generalized_filter,
    generalized_precision,
    shift_matrix,
    smooth_covariance,
)
from pcsim.inference_kalman import StateSpace, kalman_bucy
from pcsim.responses import select
from pcsim.stimulus import stimulus_array
from pcsim.whitening import FrameDifference

FLOW = np.array([[-0.7, -4.0], [4.0, -0.3]])
WEIGHTS = np.array([[1.0, 0.4], [0.3, -0.8], [0.2, 2.0]])
MODEL = GeneralizedModel(
    FLOW, WEIGHTS, np.array([4.0, 0.7, 2.0]), np.array([[2.0, 0.3], [0.3, 0.7]]),
    order=3, smoothness=0.4, process_smoothness=0.6,
)  # fmt: skip
CIRCUIT = catalog.load("circuits", "friston_2008")


def test_covariance_is_that_of_derivatives_of_sampled_noise(rng):
    """White noise through a Gaussian kernel of width s / sqrt 2 has the stated autocorrelation."""
    s, n, dt = 0.7, 400_000, 0.02
    time = np.arange(-300, 301) * dt
    kernels, width = [np.exp(-(time**2) / s**2)], s / np.sqrt(2)
    kernels[0] /= np.sqrt((kernels[0] ** 2).sum())
    hermite = [np.ones_like(time), time / width**2]
    hermite.append(hermite[1] ** 2 - 1 / width**2)
    # d^k/dt^k of exp(-t^2 / 2 w^2) is (-1)^k times a polynomial times itself.
    kernels += [-hermite[1] * kernels[0], hermite[2] * kernels[0]]
    noise = rng.standard_normal(n)
    signals = np.stack([scipy.signal.fftconvolve(noise, k, mode="valid") for k in kernels])
    sampled, exact = np.cov(signals), smooth_covariance(2, s)
    # Independent samples: one every two correlation times.
    n_eff = n * dt / (2 * s)
    spread = np.sqrt((np.outer(np.diag(exact), np.diag(exact)) + exact**2) / n_eff)
    assert np.abs((sampled - exact) / spread).max() < 4
    inverse = generalized_precision(4.0, 2, s, 1)
    np.testing.assert_allclose(inverse @ exact / 4.0, np.eye(3), atol=1e-10)
    scale = np.sqrt(np.diag(exact))
    numeric = np.linalg.inv(sampled) * np.outer(scale, scale)
    np.testing.assert_allclose(numeric, inverse / 4 * np.outer(scale, scale), atol=0.15)


def test_covariance_is_the_derivative_of_the_autocorrelation():
    """Against automatic differentiation of exp(-t^2 / 2 s^2)."""
    torch = pytest.importorskip("torch")
    s, t = 0.7, torch.zeros((), dtype=torch.float64, requires_grad=True)
    value, derivatives = torch.exp(-(t**2) / (2 * s**2)), []
    for _ in range(9):
        derivatives.append(float(value.detach()))
        (value,) = torch.autograd.grad(value, t, create_graph=True)
    covariance = smooth_covariance(4, s)
    for i in range(5):
        for j in range(5):
            assert covariance[i, j] == pytest.approx((-1) ** j * derivatives[i + j], abs=1e-9)


def test_gradient_is_that_of_the_free_energy(rng):
    torch = pytest.importorskip("torch")
    x, mu = rng.standard_normal(12), rng.standard_normal(8)
    one, two = (torch.tensor(p) for p in MODEL.precisions)
    point = torch.tensor(mu, requires_grad=True)
    seen = torch.tensor(x) - torch.tensor(np.kron(np.eye(4), WEIGHTS)) @ point
    motion = np.eye(8, k=2) - np.kron(np.eye(4), FLOW)
    moved = torch.tensor(motion) @ point
    energy = 0.5 * (seen @ one @ seen + moved @ two @ moved)
    energy.backward()
    np.testing.assert_allclose(MODEL.gradient(x, mu), point.grad.numpy(), rtol=1e-10, atol=1e-10)
    zero = MODEL.free_energy(np.zeros(12), np.zeros(8))
    assert MODEL.free_energy(x, mu) - zero == pytest.approx(energy.item(), rel=1e-12)
    log_det = sum(np.linalg.slogdet(p.numpy() / (2 * np.pi))[1] for p in (one, two))
    assert zero == pytest.approx(-0.5 * log_det)
    step = 1e-5 * rng.standard_normal(8)
    change = MODEL.gradient(x, mu + step) - MODEL.gradient(x, mu)
    np.testing.assert_allclose(change, MODEL.curvature() @ step, atol=1e-9)


@pytest.mark.parametrize("order", [1, 2, 3, 4])
def test_belief_in_a_polynomial_converges_to_its_derivatives(order):
    """Of degree up to the order, seen through frames alone: position, velocity, acceleration."""
    time, polynomial = 0.05 * np.arange(1200), np.polynomial.Polynomial([4.0, -0.7, 0.3, -0.2, 0.1])
    truth = polynomial.cutdeg(order)
    x = embed(truth(time / 10.0)[:, None], order, 0.05)
    derivatives = np.stack([truth.deriv(k)(time / 10) / 10**k for k in range(order + 1)], axis=1)
    np.testing.assert_allclose(x[order:], derivatives[order:], atol=1e-6)
    # The flow says nothing (its precision is small), so that only the orders explain one another.
    world = GeneralizedModel(np.zeros((1, 1)), np.eye(1), 4.0, 1e-12, order, smoothness=1.0)
    mu = generalized_filter(world, derivatives, step=0.05, rate=4.0)
    after = np.stack([truth.deriv(k)((time + 0.05) / 10) / 10**k for k in range(order + 1)], axis=1)
    np.testing.assert_allclose(mu[-1], after[-1], rtol=1e-7, atol=1e-7)


def test_temporal_difference_is_the_first_order(rng):
    """Without a prediction the error of the velocity is the difference of frames, over the step."""
    x = rng.standard_normal((2, 9, 3))
    plain = replace(CIRCUIT, order=1, feedback_gain=0.0, precision=0.7, record_dt=0.02)
    stimulus = stimulus_array(x, frame_duration=0.02)
    error = plain.run(stimulus, record=["error_x"])
    velocity = error["rate"].values[..., error["channel"].values == 1]
    difference = FrameDifference().fit(x).forward(x)[:, 1:]
    # Precision of the velocity in units of s is the precision itself.
    scale = 0.7 * plain.smoothness / 0.02
    np.testing.assert_allclose(velocity[:, 1:], scale * difference, atol=1e-10)
    np.testing.assert_allclose(embed(x, 1, 0.02)[:, 1:, 3:], difference / 0.02, atol=1e-10)


def test_white_noise_limit_of_a_random_walk_is_the_kalman_bucy_filter(rng):
    """Then velocities carry nothing, and with kappa the posterior variance the gains agree."""
    q, r, step = 0.7, 4.0, 0.05
    walk = StateSpace(np.zeros((1, 1)), np.array([[2.0]]), 1 / r, 1 / q)
    rest = kalman_bucy(walk)
    assert rest.covariance.item() == pytest.approx(np.sqrt(q * r) / 2.0)
    x = rng.standard_normal((50, 1))
    data = np.concatenate([x, rng.standard_normal((50, 1))], axis=1)
    rough = GeneralizedModel(
        np.zeros((1, 1)), np.array([[2.0]]), 1 / r, 1 / q, order=1, smoothness=1e-7
    )
    mu = generalized_filter(rough, data, step=step, rate=rest.covariance.item(), hold=True)
    mean, keep = 0.0, np.exp(-2.0 * rest.gain.item() * step)
    for t in range(50):
        mean = x[t, 0] / 2.0 + keep * (mean - x[t, 0] / 2.0)
        assert mu[t, 0] == pytest.approx(mean, abs=1e-8)


def settled_belief(circuit, x):
    """Where the circuit's latents rest on a constant input, solved and not run."""
    n = circuit.order + 1
    one, two = circuit.precisions
    observe = np.kron(np.eye(n), circuit.weights)
    shift, flow = np.eye(2 * n, k=2), 0.1 * np.kron(np.eye(n), circuit.flow)
    motion = shift - flow
    pull = observe.T @ one @ observe + motion.T @ two @ motion
    generalized = np.concatenate([x, np.zeros(3 * (n - 1))])
    return np.linalg.solve(pull - circuit.tau / 0.1 * shift, observe.T @ one @ generalized)


def test_circuit_settles_where_theory_says_in_both_engines(rng):
    x = rng.standard_normal(3)
    stimulus = stimulus_array(x[None, None], frame_duration=0.8)
    expected = settled_belief(CIRCUIT, x)
    rates = settle(CIRCUIT, stimulus, tol=1e-11, record=["latent"])["rate"].values[0, -1]
    np.testing.assert_allclose(rates, expected, atol=1e-8)
    brian = run_brian(replace(CIRCUIT, record_dt=0.8), stimulus, record=["latent"])
    np.testing.assert_allclose(brian["rate"].values[0, -1], expected, atol=1e-3)


def test_circuit_follows_the_filter_of_its_room(rng):
    """In plain units: the same world, and a descent in coordinates that are measured in s."""
    x = rng.standard_normal((2, 30, 3)).cumsum(axis=1) * 0.1
    circuit = replace(CIRCUIT, order=2, dt=0.0005, integrator="rk4", record_dt=0.05)
    rates = select(circuit.run(stimulus_array(x, frame_duration=0.05)), population="latent")
    world = GeneralizedModel(
        circuit.flow, circuit.weights, circuit.precision, circuit.process_precision, 2, 0.1
    )
    units = np.repeat(0.1 ** np.arange(3.0), 2)
    mu = generalized_filter(
        world, embed(x, 2, 0.05), step=0.05, rate=np.diag(units**-2) / circuit.tau, hold=True
    )
    np.testing.assert_allclose(rates["rate"].values, mu * units, atol=1e-6)


def test_refusals_say_what_to_do():
    with pytest.raises(ValueError, match=r"found x of shape \(4, 3\).*embed"):
        generalized_filter(MODEL, np.zeros((4, 3)), step=0.1)
    with pytest.raises(ValueError, match="smoothness 0"):
        smooth_covariance(2, 0.0)
    with pytest.raises(ValueError, match="weights"):
        GeneralizedModel(FLOW, np.ones((3, 4)))
    assert shift_matrix(0, 2).tolist() == [[0.0, 0.0], [0.0, 0.0]]
