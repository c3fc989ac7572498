"""Population kinds against their closed forms: every case runs on both engines."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest
import xarray as xr
from scipy.optimize import brentq

from pcsim.brian import run_brian
from pcsim.circuit import Circuit, Population, Projection, settle, simulate
from pcsim.kinds import (
    Depression,
    Error,
    FastSynapse,
    Kind,
    Latent,
    Leaky,
    Prediction,
    TemporalRelay,
)
from pcsim.kinds import DivisiveNormalization as Divisive
from pcsim.nonlinearity import power
from pcsim.priors import Flat, GaussianPrior, SparsePrior
from pcsim.responses import stimulus_array

TAU = 0.02
A, B = np.array([0.9, -1.3, 0.4]), np.array([-0.2, 0.7, 1.1])
"""What enters the first and the second port, three units."""
SPD = np.array([[2.0, 0.3, -0.2], [0.3, 0.7, 0.1], [-0.2, 0.1, 1.2]])
DIAGONAL = np.array([0.7, 4.0, 2.0])


@dataclass(frozen=True, kw_only=True)
class Toy(Circuit):
    """Three units of one kind with the stimulus on their ports, and what else a test needs."""

    kind: Kind
    ports: tuple[str, ...]
    more: tuple[Population, ...] = ()
    wiring: tuple[Projection, ...] = ()
    noise: float = 0.0

    @property
    def populations(self):
        return (Population("units", self.kind, 3, 1, "latent", noise=self.noise), *self.more)

    @property
    def projections(self):
        pick = [np.eye(3, 3 * len(self.ports), k=3 * i) for i in range(len(self.ports))]
        ports = zip(self.ports, pick, strict=True)
        return (*(Projection("stimulus", "units", w, port=p) for p, w in ports), *self.wiring)


def held(*values, duration=1.0):
    """Return one trial, and a second one of other numbers, that hold these inputs."""
    features = np.concatenate(values)
    return stimulus_array([[features], [0.3 * features]], frame_duration=duration)


def arrays(circuit, stimulus, **changes):
    return simulate(circuit, stimulus, **changes)


def brian(circuit, stimulus, **changes):
    return run_brian(circuit, stimulus, **changes)


INTERNEURONS = (Population("interneurons", Leaky(TAU), 3, 1, "interneuron"),)
INHIBITION = (
    Projection("units", "interneurons", SPD, port="drive"),
    Projection("interneurons", "units", port="inhibition"),
)


def sparse_rest(pull, alpha):
    """Solve alpha mu / (1 + mu^2) = pull for the root nearer to zero."""
    return (alpha - np.sqrt(alpha**2 - 4 * pull**2)) / (2 * pull)


def tanh_rest(pull, precision):
    """Solve (1 - tanh(mu)^2) pull = precision mu."""
    roots = [
        brentq(lambda mu, p=p: (1 - np.tanh(mu) ** 2) * p - precision * mu, -9, 9)
        for p in pull.flat
    ]
    return np.array(roots).reshape(pull.shape)


def gaussian(precision):
    return Latent(TAU, prior=GaussianPrior(mean=0.3, precision=precision))


CASES: dict[str, tuple[Toy, Callable]] = {
    "error, scalar variance": (
        Toy(kind=Error(TAU, variance=0.7), ports=("observed", "predicted")),
        lambda a, b: (a - b) / 0.7,
    ),
    "error, diagonal variance": (
        Toy(kind=Error(TAU, variance=DIAGONAL), ports=("observed", "predicted")),
        lambda a, b: (a - b) / DIAGONAL,
    ),
    "error, interneurons": (
        Toy(
            kind=Error(TAU),
            ports=("observed", "predicted"),
            more=INTERNEURONS,
            wiring=INHIBITION,
        ),
        lambda a, b: (a - b) @ np.linalg.inv(SPD),
    ),
    "error at once": (
        Toy(kind=Error(tau=None), ports=("observed", "predicted")),
        lambda a, b: a - b,
    ),
    "error at once, diagonal precision": (
        Toy(kind=Error(tau=None, precision=DIAGONAL), ports=("observed", "predicted")),
        lambda a, b: DIAGONAL * (a - b),
    ),
    "error at once, full precision": (
        Toy(kind=Error(tau=None, precision=SPD), ports=("observed", "predicted")),
        lambda a, b: (a - b) @ SPD,
    ),
    "latent, Gaussian prior": (
        Toy(kind=gaussian(4.0), ports=("ascending", "own_error")),
        lambda a, b: 0.3 + (a - b) / 4.0,
    ),
    "latent, diagonal prior and lateral input": (
        Toy(kind=gaussian(DIAGONAL), ports=("ascending", "lateral")),
        lambda a, b: 0.3 + (a + b) / DIAGONAL,
    ),
    "latent, full prior": (
        Toy(kind=gaussian(SPD), ports=("ascending", "own_error")),
        lambda a, b: 0.3 + (a - b) @ np.linalg.inv(SPD),
    ),
    "latent, sparse prior": (
        Toy(kind=Latent(TAU, prior=SparsePrior(alpha=4.8)), ports=("ascending", "own_error")),
        lambda a, b: sparse_rest(a - b, 4.8),
    ),
    "latent, inner tanh": (
        Toy(
            kind=Latent(TAU, inner="tanh", prior=GaussianPrior(precision=0.7)),
            ports=("ascending",),
        ),
        lambda a: tanh_rest(a, 0.7),
    ),
    "latent, no prior, errors that it undoes": (
        Toy(
            kind=Latent(TAU, prior=Flat()),
            ports=("ascending", "lateral"),
            wiring=(Projection("units", "units", port="own_error", reads="rate"),),
        ),
        lambda a, b: a + b,
    ),
    "prediction": (
        Toy(kind=Prediction(TAU, outer="tanh"), ports=("drive",)),
        lambda a: np.tanh(a),
    ),
    "prediction at once": (
        Toy(kind=Prediction(outer="logistic"), ports=("drive",)),
        lambda a: 1 / (1 + np.exp(-a)),
    ),
    "leaky, relu with threshold": (
        Toy(kind=Leaky(TAU, "relu", threshold=0.4), ports=("drive", "inhibition")),
        lambda a, b: np.maximum(a - b - 0.4, 0),
    ),
    "leaky, power": (
        Toy(kind=Leaky(TAU, power(2.5)), ports=("drive", "inhibition")),
        lambda a, b: np.maximum(a - b, 0) ** 2.5,
    ),
    "divisive normalization": (
        Toy(kind=Divisive(TAU, 0.7, 2.5, 4.0), ports=("drive", "pool")),
        lambda a, b: 4.0 * np.maximum(a, 0) ** 2.5 / (0.7**2.5 + b),
    ),
    "fast synapse": (
        Toy(kind=FastSynapse(TAU, 0.7), ports=("pre", "post")),
        lambda a, b: 0.7 * a * b,
    ),
    "depression": (
        Toy(kind=Depression(TAU, release=4.0), ports=("drive",)),
        lambda a: np.maximum(a, 0) / (1 + 4.0 * np.maximum(a, 0) * TAU),
    ),
    "relay at once": (
        Toy(kind=TemporalRelay(0.05, 0.7, "tanh"), ports=("drive",)),
        lambda a: np.tanh(0.3 * a),
    ),
    "relay with a time constant": (
        Toy(kind=TemporalRelay(0.05, 0.7, tau=TAU), ports=("drive",)),
        lambda a: 0.3 * a,
    ),
}


@pytest.mark.parametrize("engine", [arrays, brian])
@pytest.mark.parametrize("name", CASES)
def test_kind_rests_at_its_closed_form(name, engine):
    circuit, closed_form = CASES[name]
    inputs = [A, abs(B) if name.startswith("divisive") else B][: len(circuit.ports)]
    stimulus = held(*inputs)
    expected = np.stack([closed_form(*inputs), closed_form(*(0.3 * x for x in inputs))])
    responses = engine(circuit, stimulus, record=["units"])
    np.testing.assert_allclose(responses.rate.values[:, -1], expected, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("name", CASES)
def test_both_engines_take_the_same_steps(name):
    circuit, _ = CASES[name]
    circuit = Toy(**{**vars(circuit), "integrator": "euler", "dt": 2e-3})
    inputs = [A, abs(B)][: len(circuit.ports)]
    stimulus = held(*inputs, duration=0.05)
    ours, theirs = simulate(circuit, stimulus), run_brian(circuit, stimulus)
    np.testing.assert_allclose(theirs.rate.values, ours.rate.values, rtol=1e-12, atol=1e-13)
    xr.testing.assert_equal(ours.coords.to_dataset(), theirs.coords.to_dataset())


def test_interneurons_invert_random_covariances(rng):
    for n in (1, 2, 5):
        root = rng.normal(size=(n, 2 * n))
        covariance = root @ root.T / n + 0.2 * np.eye(n)
        x = rng.normal(size=(4, 1, n))

        @dataclass(frozen=True, kw_only=True)
        class Full(Circuit):
            covariance: np.ndarray

            @property
            def populations(self):
                n = len(self.covariance)
                return (
                    Population("xi", Error(TAU), n, 0, "weighted_error"),
                    Population("e", Leaky(3 * TAU), n, 0, "interneuron"),
                )

            @property
            def projections(self):
                return (
                    Projection("stimulus", "xi", port="observed"),
                    Projection("xi", "e", self.covariance, port="drive"),
                    Projection("e", "xi", port="inhibition"),
                )

        stimulus = stimulus_array(x, frame_duration=0.1)
        rest = settle(Full(covariance=covariance), stimulus, tol=1e-11, record=["xi"])
        expected = x[:, 0] @ np.linalg.inv(covariance)
        np.testing.assert_allclose(rest.rate.values[:, 0], expected, rtol=1e-8, atol=1e-9)


STEP_RESPONSES = {
    "error": (Error(TAU, variance=4.0), "observed", lambda a, t: a / 4 * decay(t * 4 / TAU)),
    "latent": (
        Latent(TAU, prior=GaussianPrior(precision=DIAGONAL)),
        "ascending",
        lambda a, t: a / DIAGONAL * decay(t * DIAGONAL / TAU),
    ),
    "prediction": (Prediction(TAU), "drive", lambda a, t: a * decay(t / TAU)),
    "leaky": (
        Leaky(np.array([0.01, 0.02, 0.07])),
        "drive",
        lambda a, t: a * decay(t / np.array([0.01, 0.02, 0.07])),
    ),
    "divisive": (
        Divisive(TAU, 0.7, 2.0, 4.0),
        "drive",
        lambda a, t: 4 * np.maximum(a, 0) ** 2 / 0.49 * decay(t * 0.49 / TAU),
    ),
    "relay": (TemporalRelay(0.05, 0.7), "drive", lambda a, t: a * (1 - 0.7 * decay(t / 0.05))),
}


def decay(x):
    """Return 1 - exp(-x)."""
    return -np.expm1(-x)


@pytest.mark.parametrize("name", STEP_RESPONSES)
def test_exponential_euler_is_exact_for_a_leak(name):
    kind, port, closed_form = STEP_RESPONSES[name]
    responses = simulate(Toy(kind=kind, ports=(port,), dt=0.004), held(A, duration=0.04))
    for time, rate in zip(responses.time.values, responses.rate.values[0], strict=True):
        np.testing.assert_allclose(rate, closed_form(A, time), rtol=1e-12)


@pytest.mark.parametrize(
    "kind",
    [
        Prediction(outer="tanh"),
        Prediction(TAU, outer="logistic"),
        Leaky(TAU, "square", threshold=0.4),
        Latent(TAU, inner="tanh"),
        TemporalRelay(0.05, 0.7, "tanh"),
        TemporalRelay(0.05, 0.7, "logistic", tau=TAU),
    ],
)
def test_slope_is_the_derivative_of_the_output(kind):
    assert kind.has_slope

    def output(u):
        state = {"value": u, "trace": B}
        return kind.output(state, {"drive": u}, np)

    state = {"value": A, "trace": B}
    numeric = (output(A + 1e-6) - output(A - 1e-6)) / 2e-6
    np.testing.assert_allclose(kind.slope(state, {"drive": A}, np), numeric, rtol=1e-8)


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        (Error(tau=-0.02), "tau"),
        (Error(tau=0.0), "tau"),
        (Error(TAU, variance=-0.7), "variance"),
        (Error(TAU, variance=np.ones(2)), "variance"),
        (Error(TAU, precision=4.0), "precision"),
        (Error(tau=None, variance=0.7), "variance"),
        (Error(tau=None, precision=-SPD), "precision"),
        (Error(tau=None, precision=np.triu(SPD)), "precision"),
        (Latent(tau=np.nan), "tau"),
        (Latent(TAU, inner="tnh"), "Did you mean 'tanh'?"),
        (Latent(TAU, inner=3), "nonlinearity"),
        (Latent(TAU, prior="gaussian"), "prior"),
        (Latent(TAU, prior=GaussianPrior(precision=np.ones(2))), "precision"),
        (Latent(TAU, prior=GaussianPrior(mean=np.ones(2))), "mean"),
        (Prediction(tau=np.inf), "tau"),
        (Leaky(TAU, threshold=np.ones(2)), "threshold"),
        (Divisive(TAU, semisaturation=0.0), "semisaturation"),
        (Divisive(TAU, exponent=0.5), "exponent"),
        (Depression(tau=0.0), "tau"),
        (Depression(release=-1.0), "release"),
        (TemporalRelay(tau_trace=-1.0), "tau_trace"),
        (TemporalRelay(coefficient=np.nan), "coefficient"),
    ],
)
def test_unlawful_parameters_are_refused(kind, words, refused):
    port = kind.ports[0]
    message = refused(simulate, Toy(kind=kind, ports=(port,)), held(A))
    assert words in message
