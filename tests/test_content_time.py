"""Circuits in time against the filters that they claim to be."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import scipy.linalg
from scipy.integrate import solve_ivp

from pcsim import catalog
from pcsim.brian import run_brian
from pcsim.circuit import settle, simulate, simulate_plastic
from pcsim.hierarchy import GaussianPrior, Hierarchy, Level
from pcsim.inference_kalman import kalman_filter
from pcsim.responses import select
from pcsim.stimulus import stimulus_array

KALMAN = catalog.load("circuits", "rao_1999")
WORLD = replace(
    KALMAN,
    precision=np.array([0.7, 4.0, 2.0, 1.3, 0.4, 3.0]),
    process_precision=np.array([[2.0, 0.3], [0.3, 0.7]]),
    top_process_precision=4.0,
)


def states(rates):
    return select(rates, population="latent")["rate"].values


def frames(x, duration=0.02):
    return stimulus_array(x, frame_duration=duration)


def joint(model):
    """Transition, process covariance and observation of both levels, written out by hand."""
    v, vh, uh = model.transition, model.top_transition, model.top_weights
    q = np.linalg.inv(model.process_precision)
    qh = np.eye(1) / model.top_process_precision
    # (r, h) from (r, h) before, and from the noises (m, m_h) of both levels.
    a = np.block([[v, uh @ vh], [np.zeros((1, 2)), vh]])
    mix = np.block([[np.eye(2), uh], [np.zeros((1, 2)), np.eye(1)]])
    spread = mix @ scipy.linalg.block_diag(q, qh) @ mix.T
    c = np.concatenate([model.weights, np.zeros((6, 1))], axis=1)
    return a, spread, c, np.diag(1 / model.precision)


def filtered(model, x):
    """The textbook filter with the gain of scipy's Riccati solver, one sequence at a time."""
    a, q, c, r = joint(model)
    p = scipy.linalg.solve_discrete_are(a.T, c.T, q, r)
    out = np.zeros((*x.shape[:2], 3))
    for trial, sequence in enumerate(x):
        ahead = np.zeros(3)
        for t, seen in enumerate(sequence):
            k = p @ c.T @ np.linalg.inv(c @ p @ c.T + r)
            out[trial, t] = ahead + k @ (seen - c @ ahead)
            ahead = a @ out[trial, t]
    return out


def test_circuit_in_discrete_time_is_the_kalman_filter(rng):
    x = rng.standard_normal((3, 40, 6))
    rates = states(WORLD.run(frames(x)))
    np.testing.assert_allclose(rates, filtered(WORLD, x), atol=1e-8)
    belief = kalman_filter(WORLD.at_rest(), x)
    np.testing.assert_allclose(rates, belief.mean, atol=1e-8)
    error = select(WORLD.run(frames(x)), population="error")["rate"].values
    # Recorded at the end of the frame: this frame against the prediction of the next one.
    ahead = belief.mean @ WORLD.state_space.transition.T
    np.testing.assert_allclose(error, x - ahead @ WORLD.state_space.weights.T, atol=1e-8)


def test_whatever_the_first_belief_the_filter_ends_where_the_circuit_is(rng):
    x = rng.standard_normal((300, 6))
    belief = kalman_filter(WORLD.state_space, x)
    rates = states(WORLD.run(frames(x[None])))[0]
    assert np.abs(belief.mean[0] - rates[0]).max() > 1e-3
    np.testing.assert_allclose(belief.mean[-1], rates[-1], atol=1e-8)


def test_relaxing_on_the_exact_precision_of_each_frame_is_the_full_filter(rng):
    """Error and latent units that settle within each frame, prior and precision from the last."""
    bogacz = type(catalog.load("circuits", "bogacz_2017"))
    world, x = WORLD.state_space, rng.standard_normal((4, 6))
    belief = kalman_filter(world, x)
    mean, covariance = np.zeros(3), np.eye(3)
    for t, seen in enumerate(x):
        if t:
            mean = world.transition @ mean
            covariance = world.transition @ covariance @ world.transition.T
            covariance = covariance + world.process_covariance
        prior = GaussianPrior(mean=mean, precision=np.linalg.inv(covariance))
        level = Level(world.weights, precision=world.precision)
        circuit = bogacz(hierarchy=Hierarchy((level,), (prior,)))
        rest = settle(circuit, frames(seen[None, None]), tol=1e-11, record=["mu_1"])
        mean = rest["rate"].values[0, -1]
        np.testing.assert_allclose(mean, belief.mean[t], atol=1e-8)
        seen_precision = world.weights.T @ np.diag(world.precision) @ world.weights
        covariance = np.linalg.inv(prior.precision + seen_precision)


def test_circuit_in_continuous_time_is_the_kalman_bucy_filter(rng):
    model = replace(WORLD, time="continuous", dt=0.0002, integrator="rk4", record_dt=0.02)
    x = rng.standard_normal((2, 6, 6))
    rates = states(model.run(frames(x)))
    a, q, c, r = joint(WORLD)
    drift, tau = (a - np.eye(3)) / 0.02, 0.02
    p = scipy.linalg.solve_continuous_are(drift.T, c.T, q / tau, r * tau)
    gain = p @ c.T @ np.linalg.inv(r * tau)
    for trial in range(2):
        mean = np.zeros(3)
        for t in range(6):

            def flow(_, m, seen=x[trial, t]):
                return drift @ m + gain @ (seen - c @ m)

            mean = solve_ivp(flow, (0, 0.02), mean, rtol=1e-11, atol=1e-13).y[:, -1]
            np.testing.assert_allclose(rates[trial, t], mean, atol=1e-8)


def test_brian_gives_the_same_in_both_times(rng):
    x = rng.standard_normal((2, 10, 6))
    np.testing.assert_allclose(
        states(run_brian(WORLD, frames(x))), states(simulate(WORLD, frames(x))), atol=1e-10
    )
    slow = replace(WORLD, time="continuous", dt=0.000025, record_dt=0.02)
    np.testing.assert_allclose(
        states(run_brian(slow, frames(x[:, :2]))),
        states(simulate(replace(slow, integrator="rk4"), frames(x[:, :2]))),
        atol=1e-3,
    )


def test_without_feedback_level_2_predicts_nothing(rng):
    x = rng.standard_normal((1, 20, 6))
    cut = replace(WORLD, feedback_gain=0.0)
    down = {p.target: p.weights for p in cut.projections if p.source == "prediction_2"}
    assert not np.any(down["prediction_1"])
    assert np.abs(states(cut.run(frames(x))) - states(WORLD.run(frames(x)))).max() > 1e-3


def test_the_transition_is_learned_where_it_acts(rng):
    """From no rotation to the world's, by correction times the state before."""
    truth = KALMAN.transition
    state, seen = np.zeros((64, 2)), []
    for _ in range(1500):
        state = state @ truth.T + 0.2 * rng.standard_normal((64, 2))
        seen.append(state @ KALMAN.weights.T + 0.01 * rng.standard_normal((64, 6)))
    x = np.stack(seen, axis=1)
    # Without level 2, and with inputs that are nearly exact: least squares is the oracle.
    naive = replace(
        KALMAN, transition=0.5 * np.eye(2), top_weights=np.zeros((2, 1)), precision=1e4,
        learning_rate=2.5,
    )  # fmt: skip
    _, weights = simulate_plastic(naive, frames(x), record=["latent_1"])
    learned = weights["latent_1", "prediction_1", "drive"]
    np.testing.assert_allclose(learned, truth, atol=0.02)


def test_steps_that_are_not_those_of_the_world_are_refused():
    with pytest.raises(ValueError, match=r"rao_1999: found dt 0.001 s.*time='continuous'"):
        replace(KALMAN, dt=0.001)
    with pytest.raises(ValueError, match=r"Did you mean 'discrete'"):
        replace(KALMAN, time="discreet")
