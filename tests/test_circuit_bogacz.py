"""The tutorial of Bogacz (2017): its worked example, its network, and larger circuits like it."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from pcsim.catalog import load
from pcsim.circuit import settle, simulate, simulate_plastic
from pcsim.hierarchy import Flat, GaussianPrior, Hierarchy, Level, SparsePrior
from pcsim.inference import map_gauss_newton
from pcsim.nonlinearity import square
from pcsim.responses import select, stimulus_array

MODEL = load("circuits", "bogacz_2017")
Bogacz2017 = type(MODEL)


def light(*values, duration=0.4):
    return stimulus_array(np.array(values)[:, None, None], frame_duration=duration)


def single(variance_light, variance_size, expected_size):
    """Return the single node with other variances than 1."""
    level = Level(np.array([[1.0]]), 1 / variance_light, inner=square)
    prior = GaussianPrior(expected_size, 1 / variance_size)
    model = Hierarchy((level,), (prior,))
    return dataclasses.replace(MODEL, hierarchy=model, tau=0.1, tau_error=0.005)


def most_likely_size(observed, variance_light, variance_size, expected):
    """Solve 2 phi (u - phi^2) / S_u = (phi - v_p) / S_p for the real root of lowest energy."""
    cubic = [2 / variance_light, 0, 1 / variance_size - 2 * observed / variance_light]
    roots = np.roots([*cubic, -expected / variance_size])
    real = roots[abs(roots.imag) < 1e-9].real
    energy = (observed - real**2) ** 2 / variance_light + (real - expected) ** 2 / variance_size
    return real[np.argmin(energy)]


def test_worked_example_sees_a_food_item_of_size_1_6():
    rest = settle(MODEL, light(2.0), tol=1e-12)
    phi = select(rest, population="latent").rate.item()
    assert round(phi, 1) == 1.6
    assert phi == pytest.approx(most_likely_size(2.0, 1, 1, 3.0), rel=1e-9)


@pytest.mark.parametrize("variances", [(0.7, 4.0), (4.0, 0.7)])
def test_other_variances_move_the_estimate_as_the_cubic_says(variances):
    rest = settle(single(*variances, 3.0), light(2.0, 5.0), tol=1e-12)
    found = select(rest, population="latent").rate.values.ravel()
    expected = [most_likely_size(u, *variances, 3.0) for u in (2.0, 5.0)]
    np.testing.assert_allclose(found, expected, rtol=1e-8)
    errors = rest.rate.values[:, 0, rest.name.values == "xi_0"].ravel()
    np.testing.assert_allclose(errors, (np.array([2, 5]) - found**2) / variances[0], rtol=1e-7)


def test_network_of_the_tutorial_step_by_step():
    """The equations of its exercise on the network: Euler steps of 0.01 time constants."""
    circuit = dataclasses.replace(MODEL, tau=1.0, dt=0.01, integrator="euler")
    run = simulate(circuit, light(2.0, duration=5.0))
    phi = error_p = error_u = 0.0
    for rate in run.rate.values[0]:
        change_phi = error_u * 2 * phi - error_p
        change_p, change_u = phi - 3.0 - error_p, 2.0 - phi**2 - error_u
        phi, error_p = phi + 0.01 * change_phi, error_p + 0.01 * change_p
        error_u += 0.01 * change_u
        expected = {"mu_1": phi, "prior_1": error_p, "xi_0": error_u, "prediction_0": phi**2}
        found = dict(zip(run.name.values.tolist(), rate.tolist(), strict=True))
        assert found == pytest.approx(expected, abs=1e-12)
    assert abs(phi - 1.5675) < 0.1


def test_rest_of_a_full_model_is_the_map_estimate_at_every_node(rng):
    root = rng.normal(size=(4, 4))
    precision = root @ root.T / 4 + 0.3 * np.eye(4)
    levels = (
        Level(0.5 * rng.normal(size=(4, 3)), precision, outer="tanh"),
        Level(0.5 * rng.normal(size=(3, 2)), np.array([0.7, 4.0, 2.0]), inner="tanh"),
    )
    model = Hierarchy(levels, (SparsePrior(0.7), GaussianPrior(np.array([0.4, -1.3]), 0.7)))
    circuit = Bogacz2017(hierarchy=model, tau=0.1, tau_error=0.005)
    x = rng.normal(size=(3, 1, 4))
    rest = settle(circuit, stimulus_array(x, frame_duration=0.1), tol=1e-11)
    best = map_gauss_newton(model, x[:, 0])

    def at(name):
        return rest.rate.values[:, 0, rest.name.values == name]

    np.testing.assert_allclose(at("mu_1"), best.states[1], atol=1e-7)
    np.testing.assert_allclose(at("mu_2"), best.states[2], atol=1e-7)
    np.testing.assert_allclose(at("xi_0"), best.errors[0] @ precision, atol=1e-7)
    np.testing.assert_allclose(at("xi_0_int"), best.errors[0], atol=1e-7)
    np.testing.assert_allclose(at("xi_1"), best.errors[1] * levels[1].precision, atol=1e-7)
    np.testing.assert_allclose(at("prior_2"), 0.7 * (best.states[2] - [0.4, -1.3]), atol=1e-7)
    assert set(rest.population.values) == {
        "weighted_error",
        "prediction",
        "latent",
        "interneuron",
    }


def test_cut_feedback_leaves_the_weighted_input():
    level = Level(np.array([[1.3]]), 1 / 0.7, outer="tanh")
    whole = Bogacz2017(hierarchy=Hierarchy((level,), (GaussianPrior(3.0, 0.25),)))
    errors = [
        settle(dataclasses.replace(whole, feedback_gain=gain), light(2.0), record=["xi_0"])
        for gain in (0.0, 1.0)
    ]
    assert errors[0].rate.item() == pytest.approx(2.0 / 0.7, rel=1e-8)
    assert errors[1].rate.item() < 1.9 / 0.7


def test_learning_finds_the_weight_that_made_the_data(rng):
    size = rng.normal(2.0, 0.3, size=(200, 1, 1))
    true = Hierarchy(
        (Level(np.array([[1.3]]), 4.0, inner=square),), (GaussianPrior(2.0, 1 / 0.09),)
    )
    seen = stimulus_array(1.3 * size**2, frame_duration=4.0)
    wrong = Hierarchy((dataclasses.replace(true.levels[0], weights=[[0.7]]),), true.priors)
    circuit = Bogacz2017(hierarchy=wrong, tau=0.2, tau_error=0.002, learning_rate=0.05)
    _, weights = simulate_plastic(circuit, seen, record=["mu_1"])
    learned = weights["mu_1", "prediction_0", "drive"].item()
    assert abs(learned - 1.3) < 0.1
    assert weights["xi_0", "mu_1", "ascending"].item() == pytest.approx(learned)


def test_images_and_flat_priors(rng):
    level = Level(rng.normal(size=(6, 2)), 0.7)
    circuit = Bogacz2017(
        hierarchy=Hierarchy((level,), (Flat(),)), field_shape=(2, 3), px_per_deg=16.0
    )
    images = rng.random((4, 1, 2, 3))
    rest = settle(circuit, stimulus_array(images, frame_duration=0.1, px_per_deg=16.0), tol=1e-11)
    expected = np.linalg.lstsq(level.weights, images.reshape(4, 6).T, rcond=None)[0].T
    found = select(rest, population="latent").rate.values[:, 0]
    np.testing.assert_allclose(found, expected, atol=1e-7)
    assert circuit.field_shape == (2, 3)
