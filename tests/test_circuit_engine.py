"""The array engine: order of the integrators, rest, divergence, libraries, replicas, learning."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field

import numpy as np
import pytest

from pcsim.catalog import load
from pcsim.circuit import (
    Circuit,
    Hebbian,
    Population,
    Projection,
    settle,
    simulate,
    simulate_plastic,
    simulate_replicas,
)
from pcsim.engine import as_numpy
from pcsim.hierarchy import Hierarchy, Level, weight_gradient
from pcsim.inference import map_gauss_newton
from pcsim.kinds import DivisiveNormalization, Error, Latent, Leaky, Prediction
from pcsim.priors import GaussianPrior, SparsePrior
from pcsim.responses import select, stimulus_array

WEIGHTS = np.array([[0.9, -0.4], [0.3, 1.2], [-0.7, 0.5]])


@dataclass(frozen=True, kw_only=True)
class Nonlinear(Circuit):
    """Errors, gated nonlinear predictions, latents with any prior, a normalized read-out."""

    weights: np.ndarray = field(default_factory=lambda: WEIGHTS)
    variance: np.ndarray = field(default_factory=lambda: np.array([0.7, 4.0, 2.0]))
    prior: GaussianPrior | SparsePrior = field(default_factory=lambda: SparsePrior(4.0))
    tau: float = 0.02
    delay: float = 0.0
    noise: float = 0.0
    learning_rate: float = 0.0

    @property
    def populations(self):
        n, m = self.weights.shape[-2:]
        return (
            Population("xi", Error(self.tau, variance=self.variance), n, 0, "weighted_error"),
            Population("prediction", Prediction(outer="tanh"), n, 0, "prediction"),
            Population("mu", Latent(self.tau, prior=self.prior), m, 1, "latent", noise=self.noise),
            Population("ratio", DivisiveNormalization(2 * self.tau, 0.7), m, 1, "output"),
            Population("pool", Leaky(self.tau, "square"), m, 1, "interneuron"),
        )

    @property
    def projections(self):
        rate, n = self.learning_rate, self.weights.shape[-1]
        down = Hebbian(rate, error="xi") if rate else None
        upward = Hebbian(rate) if rate else None
        up = np.swapaxes(self.weights, -1, -2)
        return (
            Projection("stimulus", "xi", port="observed"),
            Projection("mu", "prediction", self.weights, delay=self.delay, plastic=down),
            Projection("prediction", "xi", port="predicted"),
            Projection("xi", "mu", up, "ascending", gate="prediction", plastic=upward),
            Projection("mu", "ratio", port="drive"),
            Projection("mu", "pool", port="drive"),
            Projection("pool", "ratio", np.ones((n, n)) / n, port="pool"),
        )


def frames(rng, n_trials=4, n_frames=2, n=3, frame_duration=0.04):
    values = rng.normal(size=(n_trials, n_frames, n))
    return stimulus_array(values, frame_duration=frame_duration)


@pytest.mark.parametrize(
    ("integrator", "order"), [("euler", 1), ("exponential_euler", 1), ("rk4", 4)]
)
def test_integrators_have_their_order(rng, integrator, order):
    stimulus = frames(rng, n_trials=2)
    steps = [2e-3 / 2**k for k in range(5)]
    exact = simulate(Nonlinear(dt=2e-3 / 2**7, integrator="rk4", record_dt=0.08), stimulus)
    errors = []
    for dt in steps:
        run = simulate(Nonlinear(dt=dt, integrator=integrator, record_dt=0.08), stimulus)
        errors.append(np.linalg.norm(run.rate.values - exact.rate.values))
    fitted = np.polyfit(np.log(steps), np.log(errors), 1)[0]
    assert abs(fitted - order) < 0.2


def test_no_integrator_moves_the_state_at_rest(rng):
    stimulus = frames(rng, n_frames=1)
    rests = [
        settle(Nonlinear(integrator=name), stimulus, tol=1e-12).rate.values
        for name in ("euler", "exponential_euler", "rk4")
    ]
    np.testing.assert_allclose(rests[1], rests[0], rtol=1e-9, atol=1e-11)
    np.testing.assert_allclose(rests[2], rests[0], rtol=1e-9, atol=1e-11)


def test_rest_is_the_map_estimate_and_the_read_out_a_ratio(rng):
    stimulus = frames(rng, n_frames=1)
    circuit = Nonlinear(delay=0.005)
    rest = settle(circuit, stimulus, tol=1e-11)
    level = Level(WEIGHTS, 1 / circuit.variance, outer="tanh")
    best = map_gauss_newton(Hierarchy((level,), (SparsePrior(4.0),)), stimulus.values[:, 0])
    mu = select(rest, population="latent").rate.values[:, 0]
    np.testing.assert_allclose(mu, best.states[1], rtol=1e-7, atol=1e-8)
    ratio = np.maximum(mu, 0) ** 2 / (0.49 + (mu**2).mean(axis=1, keepdims=True))
    np.testing.assert_allclose(
        select(rest, population="output").rate.values[:, 0], ratio, rtol=1e-7, atol=1e-9
    )


def test_settle_says_that_it_did_not_come_to_rest(rng):
    with pytest.raises(RuntimeError, match="expected below 1e-09"):
        settle(Nonlinear(), frames(rng, n_frames=1), max_time=0.01)


def test_settle_says_what_to_do_about_ringing_that_never_ends():
    ringing = dataclasses.replace(load("circuits", "bogacz_2017"), integrator="euler")
    light = stimulus_array(np.full((1, 1, 1), 9.0), frame_duration=0.1)
    with pytest.raises(RuntimeError, match="if it rings, lower dt or take integrator='rk4'"):
        settle(ringing, light, max_time=2.0)
    for changes in ({"dt": 1e-4}, {"integrator": "rk4"}):
        rest = settle(dataclasses.replace(ringing, **changes), light)
        assert select(rest, population="latent").rate.item() == pytest.approx(3.0)


# Array libraries


@pytest.mark.parametrize("integrator", ["euler", "exponential_euler", "rk4"])
def test_torch_agrees_with_numpy(rng, integrator):
    torch = pytest.importorskip("torch")
    stimulus = frames(rng)
    circuit = Nonlinear(delay=0.004, integrator=integrator, prior=GaussianPrior(0.3, 0.7))
    ours = simulate(circuit, stimulus)
    theirs = simulate(circuit, stimulus, xp=torch)
    np.testing.assert_allclose(theirs.rate.values, ours.rate.values, rtol=1e-12, atol=1e-12)


def test_torch_runs_replicas_and_noise_as_numpy_does(rng):
    torch = pytest.importorskip("torch")
    stimulus = frames(rng)
    circuits = [Nonlinear(weights=rng.normal(size=(3, 2)), noise=0.1) for _ in range(3)]
    ours = simulate_replicas(circuits, stimulus, seed=7)
    theirs = simulate_replicas(circuits, stimulus, seed=7, xp=torch)
    np.testing.assert_allclose(theirs.rate.values, ours.rate.values, rtol=1e-12, atol=1e-12)


# Replicas


def full(precision):
    return GaussianPrior(mean=0.3, precision=precision)


def spd(rng, n):
    root = rng.normal(size=(n, n))
    return root @ root.T + 0.2 * np.eye(n)


@pytest.mark.parametrize("differing", ["weights", "variance", "prior", "full prior", "tau", "none"])
def test_replicas_in_one_batch_are_the_circuits_one_by_one(rng, differing):
    values = {
        "weights": [{"weights": rng.normal(size=(3, 2))} for _ in range(4)],
        "variance": [{"variance": rng.uniform(0.2, 5, 3)} for _ in range(4)],
        "prior": [{"prior": GaussianPrior(v, 4 * v)} for v in (0.2, 0.7, 1.3, 4.0)],
        "full prior": [{"prior": full(spd(rng, 2))} for _ in range(4)],
        "tau": [{"tau": v} for v in (0.01, 0.02, 0.03, 0.05)],
        "none": [{}] * 4,
    }[differing]
    circuits = [Nonlinear(delay=0.004, **changes) for changes in values]
    stimulus = frames(rng)
    batch = simulate_replicas(circuits, stimulus, record=["mu", "ratio"])
    assert batch.replica.values.tolist() == [0] * 4 + [1] * 4 + [2] * 4 + [3] * 4
    for number, circuit in enumerate(circuits):
        alone = simulate(circuit, stimulus, record=["mu", "ratio"])
        own = batch.rate.values[batch.replica.values == number]
        np.testing.assert_allclose(own, alone.rate.values, rtol=1e-12, atol=1e-13)


def test_weights_with_a_replica_axis_are_replicas(rng):
    weights = rng.normal(size=(2, 3, 2))
    stimulus = frames(rng)
    batch = simulate(Nonlinear(weights=weights), stimulus)
    for number in range(2):
        alone = simulate(Nonlinear(weights=weights[number]), stimulus)
        own = batch.rate.values[batch.replica.values == number]
        np.testing.assert_allclose(own, alone.rate.values, rtol=1e-12, atol=1e-13)


def test_one_replica_is_a_batch_too(rng):
    stimulus = frames(rng)
    batch = simulate_replicas([Nonlinear()], stimulus)
    np.testing.assert_array_equal(batch.rate.values, simulate(Nonlinear(), stimulus).rate.values)
    assert batch.replica.values.tolist() == [0] * 4


def test_replicas_that_are_not_alike_are_refused(rng, refused):
    stimulus = frames(rng)
    a = Nonlinear()
    for other, words in (
        (
            dataclasses.replace(load("circuits", "bogacz_2017"), integrator=a.integrator),
            "populations",
        ),
        (Nonlinear(weights=WEIGHTS[:, :1]), "size"),
        (Nonlinear(noise=0.1), "noise"),
        (Nonlinear(delay=0.1), "delay"),
        (Nonlinear(prior=GaussianPrior()), "prior"),
        (Nonlinear(variance=0.7), "variance"),
        (Nonlinear(dt=2e-3), "dt"),
    ):
        assert words in refused(simulate_replicas, [a, other], stimulus)


# Noise


@pytest.mark.parametrize("integrator", ["euler", "exponential_euler"])
def test_noise_has_the_spread_that_was_asked_for(integrator):
    @dataclass(frozen=True, kw_only=True)
    class Noisy(Circuit):
        @property
        def populations(self):
            return (Population("u", Leaky(0.01), 50, 0, "output", noise=0.4),)

        @property
        def projections(self):
            return ()

    stimulus = stimulus_array(np.zeros((200, 1, 1)), frame_duration=0.1)
    circuit = Noisy(dt=5e-4, integrator=integrator, record_dt=0.1)
    rate = circuit.run(stimulus, seed=3).rate.values
    n = rate.size
    # 10,000 units; at this dt the discrete process is up to 2.6 % wider or narrower in variance.
    assert abs(rate.var() / 0.4**2 - 1) < 4 * np.sqrt(2 / n) + 0.03
    assert abs(rate.mean()) < 4 * 0.4 / np.sqrt(n)
    np.testing.assert_array_equal(circuit.run(stimulus, seed=3).rate.values, rate)
    assert not np.array_equal(circuit.run(stimulus, seed=4).rate.values, rate)


# Learning


def test_plastic_weights_descend_the_hand_written_gradient(rng):
    stimulus = frames(rng, n_frames=1, frame_duration=2.0)
    circuit = Nonlinear(prior=GaussianPrior(0.3, 0.7), learning_rate=1e-9)
    responses, weights = simulate_plastic(circuit, stimulus)
    level = Level(WEIGHTS, 1 / circuit.variance, outer="tanh")
    model = Hierarchy((level,), (circuit.prior,))
    best = map_gauss_newton(model, stimulus.values[:, 0])
    down = -weight_gradient(model, best.states)[0]
    # At rest the weights drift at a constant rate; the approach to rest leaves a trace of it.
    learned = (weights["mu", "prediction", "drive"] - WEIGHTS) / 1e-9
    np.testing.assert_allclose(learned / 2.0, down, atol=0.05 * abs(down).max())
    assert responses.sizes["trial"] == 4


def test_plastic_weights_stay_transposes_and_lower_the_errors(rng):
    stimulus = frames(rng, n_frames=1, frame_duration=3.0)
    circuit = Nonlinear(prior=GaussianPrior(0.3, 0.7), learning_rate=2.0)
    _, weights = simulate_plastic(circuit, stimulus, record=["xi"])
    down, up = weights["mu", "prediction", "drive"], weights["xi", "mu", "ascending"]
    assert abs(down - WEIGHTS).max() > 0.1
    np.testing.assert_allclose(up, down.T, atol=1e-12)

    def energy(circuit):
        level = Level(circuit.weights, 1 / circuit.variance, outer="tanh")
        model = Hierarchy((level,), (circuit.prior,))
        return map_gauss_newton(model, stimulus.values[:, 0]).free_energy.mean()

    assert energy(dataclasses.replace(circuit, weights=down)) < energy(circuit) - 0.01


def test_simulate_leaves_plastic_weights_as_they_are(rng):
    stimulus = frames(rng)
    fixed, plastic = Nonlinear(), Nonlinear(learning_rate=5.0)
    np.testing.assert_array_equal(
        simulate(plastic, stimulus).rate.values, simulate(fixed, stimulus).rate.values
    )


def test_decay_shrinks_the_weights():
    @dataclass(frozen=True, kw_only=True)
    class Decaying(Circuit):
        @property
        def populations(self):
            return (Population("u", Leaky(0.02), 1, 0, "output"),)

        @property
        def projections(self):
            rule = Hebbian(rate=0.0, decay=0.7)
            return (Projection("stimulus", "u", [[4.0]], "drive", sign=-1.0, plastic=rule),)

    stimulus = stimulus_array(np.full((1, 1, 1), 0.3), frame_duration=1.0)
    _, weights = simulate_plastic(Decaying(dt=1e-4), stimulus)
    np.testing.assert_allclose(weights["stimulus", "u", "drive"], 4 * np.exp(-0.7), rtol=1e-4)


def test_as_numpy_brings_arrays_home():
    torch = pytest.importorskip("torch")
    np.testing.assert_array_equal(as_numpy(torch.tensor([0.7, 4.0])), np.float32([0.7, 4.0]))
