"""Precision that arrives at a port: learned, set by latents, moved by a cue, on both engines."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pytest
import torch

from pcsim.brian import run_brian
from pcsim.circuit import Circuit, Population, Projection, settle, simulate
from pcsim.hierarchy import Hierarchy, Level
from pcsim.kinds import Latent, Leaky, LogPrecision, PreciseError, PrecisionGradient
from pcsim.learning import learn_precision
from pcsim.priors import Flat, GaussianPrior
from pcsim.responses import stimulus_array

TAU = 0.02
BASE = np.log([0.7, 4.0, 2.0])
OBSERVED, PREDICTED = np.array([0.9, -1.3, 0.4]), np.array([-0.2, 0.7, 1.1])
MODULATION = np.log([1.5, 0.7, 4.0])


def held(*values, duration=1.0):
    return stimulus_array([[np.concatenate(values)]], frame_duration=duration)


@dataclass(frozen=True, kw_only=True)
class Parts(Circuit):
    """Whatever a test declares."""

    parts: tuple
    wires: tuple

    @property
    def populations(self):
        return self.parts

    @property
    def projections(self):
        return self.wires


def shown(ports, target="units", n=3):
    """Connect block i of the stimulus to port i."""
    width = n * len(ports)
    return tuple(
        Projection("stimulus", target, np.eye(n, width, k=n * i), port=port)
        for i, port in enumerate(ports)
    )


PORTS = ("observed", "predicted", "log_precision")


@pytest.mark.parametrize("engine", [simulate, run_brian])
@pytest.mark.parametrize("tau", [None, TAU])
def test_errors_rest_at_precision_times_error(engine, tau):
    units = Population("units", PreciseError(tau, BASE), 3, 0, "weighted_error")
    circuit = Parts(parts=(units,), wires=shown(PORTS))
    rate = engine(circuit, held(OBSERVED, PREDICTED, MODULATION)).rate.values[0, -1]
    gain = np.exp(BASE) * np.exp(MODULATION)
    np.testing.assert_allclose(rate, gain * (OBSERVED - PREDICTED), rtol=1e-9)


@pytest.mark.parametrize("engine", [simulate, run_brian])
def test_gradient_units_send_the_slope_of_the_free_energy(engine):
    units = Population("units", PrecisionGradient(BASE), 3, 0, "precision")
    circuit = Parts(parts=(units,), wires=shown(PORTS))
    rate = engine(circuit, held(OBSERVED, PREDICTED, MODULATION)).rate.values[0, -1]
    log_precision = torch.tensor(BASE + MODULATION, requires_grad=True)
    error = torch.tensor(OBSERVED - PREDICTED)
    (0.5 * (log_precision.exp() * error**2 - log_precision)).sum().backward()
    np.testing.assert_allclose(rate, -log_precision.grad.numpy(), rtol=1e-12)


@pytest.mark.parametrize("kind", [PreciseError(TAU, BASE), PreciseError(None, BASE)])
def test_both_engines_take_the_same_steps(kind):
    units = Population("units", kind, 3, 0, "weighted_error")
    circuit = Parts(parts=(units,), wires=shown(PORTS), integrator="euler", dt=2e-3)
    stimulus = held(OBSERVED, PREDICTED, MODULATION, duration=0.05)
    ours, theirs = simulate(circuit, stimulus), run_brian(circuit, stimulus)
    np.testing.assert_allclose(theirs.rate.values, ours.rate.values, rtol=1e-12)


def learner(n, *, tau=0.5, count=None, prior=0.0, mean=0.0):
    """Return n channels of error 0 - x with one unit that learns their common log precision."""
    pool = np.ones((n, 1))
    parts = (
        Population("xi", PreciseError(), n, 0, "weighted_error"),
        Population("slope", PrecisionGradient(), n, 0, "precision"),
        Population("lambda", LogPrecision(tau, prior, mean, count or n), 1, 1, "precision"),
    )
    wires = (
        *shown(("observed",), "xi", n),
        *shown(("observed",), "slope", n),
        Projection("lambda", "xi", pool, port="log_precision"),
        Projection("lambda", "slope", pool, port="log_precision"),
        Projection("slope", "lambda", pool.T),
    )
    return Parts(parts=parts, wires=wires)


def test_a_learned_precision_rests_at_one_over_the_mean_squared_error():
    x = np.array([0.7, -4.0, 1.9, 0.2])
    rest = settle(learner(4), stimulus_array([[x]], frame_duration=0.1), record=["lambda", "xi"])
    rate = rest.rate.values[0, 0]
    assert rate[-1] == pytest.approx(-np.log((x**2).mean()), abs=1e-7)
    # The rule of pcsim.inference on the same errors, one scalar precision for all channels.
    level = Level(np.zeros((4, 1)), precision=0.7)
    states = [x[None], np.zeros((1, 1))]
    best = learn_precision(Hierarchy((level,), (GaussianPrior(),)), states).levels[0].precision
    assert np.exp(rate[-1]) == pytest.approx(float(best), rel=1e-6)
    np.testing.assert_allclose(rate[:4], np.exp(rate[-1]) * x, rtol=1e-9)
    brian = run_brian(
        learner(4, tau=0.1), stimulus_array([[x]], frame_duration=1.0), dt=1e-4, record=["lambda"]
    )
    assert brian.rate.values[0, -1, 0] == pytest.approx(-np.log((x**2).mean()), abs=1e-3)


def test_a_slow_learner_averages_over_time(rng):
    # 4000 frames of variance 2.5: one over the mean square has a standard error of 2.2 %.
    frames = rng.normal(0.0, np.sqrt(2.5), (1, 4000, 1))
    stimulus = stimulus_array(frames, frame_duration=0.005)
    circuit = learner(1, tau=1.0)
    rate = simulate(circuit, stimulus, record=["lambda"]).rate.values[0, :, 0]
    late = np.exp(rate[len(rate) // 2 :]).mean()
    assert late == pytest.approx(1 / 2.5, rel=0.1)


def test_a_prior_holds_the_precision_back():
    x, prior, mean = np.array([4.0, 4.0]), 0.7, np.log(0.5)
    stimulus = stimulus_array([[x]], frame_duration=0.1)
    rest = settle(learner(2, prior=prior, mean=mean), stimulus, record=["lambda"])
    gamma = rest.rate.item()
    slope = 0.5 * (2 - np.exp(gamma) * (x**2).sum()) - prior * (gamma - mean)
    assert slope == pytest.approx(0.0, abs=1e-6)


def test_a_sudden_large_error_does_not_throw_the_precision_off():
    frames = np.concatenate([np.full(50, 0.5), np.full(50, 50.0)])[None, :, None]
    circuit = learner(1, tau=0.1, prior=0.7)
    rate = simulate(circuit, stimulus_array(frames, frame_duration=0.02), record=["lambda"])
    gamma = rate.rate.values[0, :, 0]
    # A single Euler step of 0.001 s would carry it to about -12 and take seconds to return.
    assert gamma.min() > -8
    residual = 0.5 * (1 - np.exp(gamma[-1]) * 2500) - 0.7 * gamma[-1]
    assert residual == pytest.approx(0.0, abs=1e-3)


WEIGHTS = np.array([[0.9, -0.4], [0.3, 1.2], [-0.7, 0.5]])
STATE = np.array([[0.6, 0.1], [-0.3, 0.8], [0.2, -0.5]])
"""How the log precision of three channels depends on two latents."""


def state_dependent():
    """Return latents that predict three channels, and on which their precision depends."""
    parts = (
        Population("xi", PreciseError(None, BASE), 3, 0, "weighted_error"),
        Population("slope", PrecisionGradient(BASE), 3, 0, "precision"),
        Population("mu", Latent(TAU, prior=GaussianPrior(0.3, 0.7)), 2, 1, "latent"),
    )
    wires = [
        Projection("xi", "mu", WEIGHTS.T, port="ascending"),
        Projection("slope", "mu", STATE.T, port="ascending"),
    ]
    for target in ("xi", "slope"):
        wires += [
            *shown(("observed",), target),
            Projection("mu", target, WEIGHTS, port="predicted"),
            Projection("mu", target, STATE, port="log_precision"),
        ]
    return Parts(parts=parts, wires=tuple(wires), integrator="euler")


def free_energy(mu, x):
    log_precision = torch.tensor(BASE) + torch.tensor(STATE) @ mu
    error = x - torch.tensor(WEIGHTS) @ mu
    energy = 0.5 * (log_precision.exp() * error**2 - log_precision).sum()
    return energy + 0.35 * ((mu - 0.3) ** 2).sum()


def test_a_precision_that_depends_on_latents_moves_them_down_the_free_energy():
    circuit = state_dependent()
    rate = simulate(circuit, held(OBSERVED, duration=0.03), record=["mu"]).rate.values[0]
    path = np.concatenate([np.zeros((1, 2)), rate])
    for before, after in pairwise(path):
        mu = torch.tensor(before, requires_grad=True)
        free_energy(mu, torch.tensor(OBSERVED)).backward()
        step = -circuit.dt / TAU * mu.grad.numpy()
        np.testing.assert_allclose(after - before, step, rtol=1e-9, atol=1e-12)
    theirs = run_brian(circuit, held(OBSERVED, duration=0.03), record=["mu"])
    np.testing.assert_allclose(theirs.rate.values[0], rate, rtol=1e-10)


def test_state_dependent_precision_rests_at_a_minimum(rng):
    circuit = state_dependent()
    rest = settle(circuit, held(OBSERVED, duration=0.1), record=["mu"]).rate.values[0, 0]
    x = torch.tensor(OBSERVED)
    here = float(free_energy(torch.tensor(rest), x))
    for step in rng.normal(scale=1e-2, size=(20, 2)):
        assert float(free_energy(torch.tensor(rest + step), x)) > here


@pytest.mark.parametrize("engine", [simulate, run_brian])
def test_the_gain_follows_a_cue_through_a_low_pass(engine):
    tau, log_gain, duration = 0.4, np.log(4.0), 0.5
    parts = (
        Population("xi", PreciseError(None, np.log(0.7)), 1, 0, "weighted_error"),
        Population("acetylcholine", Leaky(tau), 1, 1, "precision"),
    )
    wires = (
        Projection("stimulus", "xi", [[1.0, 0.0]], port="observed"),
        Projection("stimulus", "acetylcholine", [[0.0, 1.0]], port="drive"),
        Projection("acetylcholine", "xi", [[log_gain]], port="log_precision"),
    )
    circuit = Parts(parts=parts, wires=wires, dt=1e-4)
    found = engine(circuit, held([2.5], [1.0], duration=duration), record=["xi"])
    rise = 1 - np.exp(-found.time.values / tau)
    expected = 0.7 * np.exp(log_gain * rise) * 2.5
    np.testing.assert_allclose(found.rate.values[0, :, 0], expected, rtol=2e-4)


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        (PreciseError(tau=-0.02), "tau"),
        (PreciseError(log_precision=np.ones(2)), "log_precision"),
        (PrecisionGradient(log_precision=np.nan), "log_precision"),
        (LogPrecision(tau=0.0), "tau"),
        (LogPrecision(prior_precision=-0.7), "prior_precision"),
        (LogPrecision(mean=np.ones(2)), "mean"),
        (LogPrecision(count=-4.0), "count"),
    ],
)
def test_unlawful_parameters_are_refused(kind, words, refused):
    units = Population("units", kind, 3, 0, "precision")
    circuit = Parts(parts=(units,), wires=shown((kind.ports[0],)))
    assert words in refused(simulate, circuit, held(OBSERVED))


def test_flat_latents_learn_a_precision_as_well():
    """A plain latent without a prior, driven by the gradient units, has the same fixed point."""
    x = np.array([0.7, -4.0])
    pool = np.ones((2, 1))
    parts = (
        Population("slope", PrecisionGradient(), 2, 0, "precision"),
        Population("gamma", Latent(0.2, prior=Flat()), 1, 1, "precision"),
    )
    wires = (
        *shown(("observed",), "slope", 2),
        Projection("gamma", "slope", pool, port="log_precision"),
        Projection("slope", "gamma", pool.T, port="ascending"),
    )
    circuit = Parts(parts=parts, wires=wires)
    rest = settle(circuit, stimulus_array([[x]], frame_duration=0.1), record=["gamma"])
    assert np.exp(-rest.rate.item()) == pytest.approx((x**2).mean(), rel=1e-6)
