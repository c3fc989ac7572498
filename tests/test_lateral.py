"""Lateral inhibition against the inverse, the roots and the factors of the covariance."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest
import scipy.linalg

from pcsim import catalog
from pcsim.brian import run_brian
from pcsim.circuit import Circuit, Population, Projection, settle, simulate_plastic
from pcsim.hierarchy import GaussianPrior, Hierarchy, Level
from pcsim.inference import map_exact
from pcsim.kinds import DivisiveNormalization
from pcsim.lateral import LATERAL_SCHEMES, lateral_weights, learn_lateral, random_lateral
from pcsim.stimulus import stimulus_array
from pcsim.whitening import Whitening

FRISTON = catalog.load("circuits", "friston_2005")
ALONE = replace(FRISTON, feedback_gain=0.0)
COVARIANCE = FRISTON.covariance


def held(x, duration=0.1):
    return stimulus_array(np.asarray(x)[:, None], frame_duration=duration)


def named(rates, name):
    return rates["rate"].values[:, -1, rates["name"].values == name]


def action(scheme):
    """What M must do to an error, from scipy and not from the closed form under test."""
    return {
        "precision": np.linalg.inv(COVARIANCE),
        "symmetric": np.linalg.inv(scipy.linalg.sqrtm(COVARIANCE).real),
        "triangular": scipy.linalg.solve_triangular(
            scipy.linalg.cholesky(COVARIANCE, lower=True), np.eye(8), lower=True
        ),
    }[scheme]


@pytest.mark.parametrize("scheme", LATERAL_SCHEMES)
def test_circuit_rests_at_the_inverse_of_its_scheme(rng, scheme):
    x = rng.standard_normal((4, 8))
    circuit = replace(ALONE, scheme=scheme)
    xi = named(settle(circuit, held(x), tol=1e-11), "xi")
    np.testing.assert_allclose(xi, x @ action(scheme).T, atol=1e-6)
    brian = run_brian(circuit, held(x[:1], 1.0), dt=0.0005, record=["xi"])
    np.testing.assert_allclose(brian["rate"].values[:, -1], x[:1] @ action(scheme).T, atol=1e-3)


@pytest.mark.parametrize("scheme", LATERAL_SCHEMES)
def test_latents_rest_at_the_map_estimate_of_the_full_covariance(rng, scheme):
    x = rng.standard_normal((3, 8))
    level = Level(FRISTON.weights, precision=np.linalg.inv(COVARIANCE))
    exact = map_exact(Hierarchy((level,), (GaussianPrior(precision=0.7),)), x)
    mu = named(settle(replace(FRISTON, scheme=scheme), held(x), tol=1e-11), "mu")
    np.testing.assert_allclose(mu, exact.states[1], atol=1e-6)
    wrong = named(settle(replace(FRISTON, scheme=scheme, lateral="random"), held(x)), "mu")
    assert np.abs(wrong - exact.states[1]).max() > 0.05


@pytest.mark.parametrize("scheme", ["symmetric", "triangular"])
def test_whitening_schemes_are_those_of_the_flows(rng, scheme):
    """The population circuit decorrelates as `pcsim.whitening` does; random weights do not."""
    data = rng.standard_normal((400, 8)) @ lateral_weights(COVARIANCE, "triangular").T
    kind = {"symmetric": "zca", "triangular": "cholesky"}[scheme]
    flow = Whitening(kind).fit(data)
    learned = learn_lateral(data, scheme)
    circuit = replace(ALONE, scheme=scheme, inhibition=learned)
    centred = data - data.mean(axis=0)
    xi = named(settle(circuit, held(centred), tol=1e-11), "xi")
    expected = flow.forward(data)
    # The flow divides by n - 1 or by n; the shape of the filter is what is compared.
    scale = expected.std() / xi.std()
    np.testing.assert_allclose(scale * xi, expected, atol=1e-6)
    np.testing.assert_allclose(xi.T @ xi / 400, np.eye(8), atol=1e-6)
    random = named(settle(replace(circuit, lateral="random"), held(centred)), "xi")
    off = (random.T @ random / 400)[~np.eye(8, dtype=bool)]
    assert np.abs(off).max() > 0.1


@pytest.mark.parametrize("scheme", LATERAL_SCHEMES)
def test_local_rule_comes_to_rest_at_the_sample_covariance(rng, scheme):
    errors = rng.standard_normal((60, 5)) @ (rng.standard_normal((5, 5)) + 3.0 * np.eye(5))
    sample = np.cov(errors.T, bias=True)
    learned = learn_lateral(errors, scheme)
    np.testing.assert_allclose(learned, lateral_weights(sample, scheme), atol=1e-8)
    if scheme != "precision":
        np.testing.assert_allclose(learned @ learned.T, sample, atol=1e-8)
    other = learn_lateral(errors, scheme, start=7.0)
    np.testing.assert_allclose(other, learned, atol=1e-8)


def test_learned_covariance_of_a_sample_is_within_four_standard_errors(rng):
    n, true = 5000, COVARIANCE
    errors = rng.standard_normal((n, 8)) @ lateral_weights(true, "triangular").T
    learned = learn_lateral(errors, "precision")
    deviation = np.sqrt((np.outer(np.diag(true), np.diag(true)) + true**2) / n)
    assert np.abs((learned - true) / deviation).max() < 4


def test_deviations_from_the_fixed_point_decay_as_derived():
    """One step of the rule from M = C + D moves by -rate * (D^T inverse(C)) to first order."""
    small = 1e-6 * np.array([[0.3, -0.2], [-0.2, 0.5]])
    c = np.array([[4.0, 1.0], [1.0, 0.7]])
    moved = np.linalg.solve(c + small, c).T - np.eye(2)
    np.testing.assert_allclose(moved, -small.T @ np.linalg.inv(c), atol=1e-11)


def test_circuit_learns_its_whitening_while_it_runs(rng):
    """Hebbian growth and decay of the running circuit, all samples held: M M' = <x x'>."""
    x = rng.standard_normal((40, 3)) @ np.array([[1.2, 0.5, 0.0], [0.0, 0.8, -0.4], [0, 0, 0.7]])
    circuit = replace(
        ALONE, scheme="symmetric", covariance=np.eye(3), weights=np.ones((3, 1)),
        inhibition=1.3 * np.eye(3), learning_rate=4.0, record_dt=0.5, dt=0.001,
    )  # fmt: skip
    rates, weights = simulate_plastic(circuit, held(x, 5.0), record=["xi"])
    learned = weights["xi", "lateral", "drive"]
    second = x.T @ x / 40
    np.testing.assert_allclose(learned, scipy.linalg.sqrtm(second).real, atol=1e-6)
    xi = rates["rate"].values[:, -1]
    np.testing.assert_allclose(xi.T @ xi / 40, np.eye(3), atol=1e-6)


@dataclass(frozen=True, kw_only=True)
class Divisive(Circuit):
    """Units divided by the pool of their neighbours' drives."""

    pool: np.ndarray
    semisaturation: float = 0.7

    @property
    def populations(self):
        kind = DivisiveNormalization(semisaturation=self.semisaturation, exponent=1.0, gain=4.0)
        return (Population("output", kind, len(self.pool), 0, "output"),)

    @property
    def projections(self):
        return (
            Projection("stimulus", "output", port="drive"),
            Projection("stimulus", "output", self.pool, port="pool"),
        )


def test_small_signals_see_divisive_normalization_as_linear_lateral_inhibition(rng):
    """r = g d / (s + w d): around d0, dr = g/(s + w d0) (1 - d0 w / (s + w d0)) dd."""
    pool = np.abs(rng.standard_normal((8, 8))) * 0.1
    circuit, background = Divisive(pool=pool), np.linspace(0.5, 2.0, 8)
    signal = 1e-5 * rng.standard_normal((3, 8))
    shown = held(np.concatenate([background[None], background + signal]))
    rest = settle(circuit, shown, tol=1e-13)["rate"].values[:, -1]
    divisor = 0.7 + pool @ background
    shared = background[:, None] * pool / divisor[:, None]
    linear = replace(
        ALONE, inhibition=np.linalg.inv(4.0 / divisor[:, None] * (np.eye(8) - shared)),
        scheme="precision",
    )  # fmt: skip
    xi = named(settle(linear, held(signal / 1e-5), tol=1e-11), "xi")
    np.testing.assert_allclose((rest[1:] - rest[0]) / 1e-5, xi, atol=1e-3)


def test_random_weights_keep_strength_and_lose_the_covariance():
    for scheme in LATERAL_SCHEMES:
        learned = lateral_weights(COVARIANCE, scheme)
        other = random_lateral(learned, seed=1)
        np.testing.assert_allclose(
            np.sort(np.linalg.eigvals(other).real), np.sort(np.linalg.eigvals(learned).real)
        )
        assert np.abs(other - learned).max() > 0.1


def test_refusals_say_what_to_do(rng):
    with pytest.raises(ValueError, match="Did you mean 'triangular'"):
        replace(FRISTON, scheme="triangle")
    with pytest.raises(ValueError, match="found lateral 'shuffled'"):
        replace(FRISTON, lateral="shuffled")
    with pytest.raises(ValueError, match="positive definite"):
        learn_lateral(np.ones((9, 2)) * np.arange(9.0)[:, None], "precision")
    with pytest.raises(RuntimeError, match="Raise n_steps"):
        learn_lateral(rng.standard_normal((9, 2)), "symmetric", n_steps=2)
