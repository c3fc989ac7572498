"""Local learning, laminar assignment and apical streams: H39, H38 and H36, and the circuit."""

from __future__ import annotations

import importlib
from dataclasses import replace

import numpy as np
import pytest
import scipy.stats

from pcsim import catalog
from pcsim.deep.pc_replicas import Settling
from pcsim.deep.pc_weights import WeightedNetwork
from pcsim.deep.streams import sums_of_squares
from pcsim.roster import ROSTER, load_model, save_model, untrained, variant

h36 = importlib.import_module("pcsim.analysis.apical_basal_streams")
h38 = importlib.import_module("pcsim.analysis.laminar_assignment")
h39 = importlib.import_module("pcsim.analysis.local_gradients")
PCN = catalog.load("circuits", "whittington_bogacz_2017")


def drawn(rng, sizes=(6, 5, 3), **settings):
    shapes = zip(sizes[1:], sizes[:-1], strict=True)
    weights = [rng.normal(0.0, 0.5, shape) for shape in shapes]
    return WeightedNetwork(weights=weights, **settings)


@pytest.mark.parametrize("precision", [0.7, 4.0])
def test_a_linear_network_rests_at_the_least_squares_estimate(rng, precision):
    net = drawn(rng, activation="linear", output_precision=precision)
    x, y = rng.normal(size=(7, 6)), rng.normal(size=(7, 3))
    first, second = net.weights
    matrix = np.eye(5) + precision * second.T @ second
    z = np.linalg.solve(matrix, (x @ first.T + precision * y @ second).T).T
    found = net.settled(x, y, Settling(n_steps=2000, step=0.05))
    np.testing.assert_allclose(found["latents"][0], z, atol=1e-10)
    np.testing.assert_allclose(found["errors"][0], z - x @ first.T, atol=1e-10)
    np.testing.assert_allclose(found["errors"][1], y - z @ second.T, atol=1e-10)
    np.testing.assert_allclose(net.output(x), x @ first.T @ second.T, atol=1e-12)


def energy(weights, latents, x, y, precision):
    """F of a tanh network, by numpy alone, mean over the batch."""
    rates = [x, *map(np.tanh, latents)]
    errors = [
        one - rate @ own.T for one, rate, own in zip([*latents, y], rates, weights, strict=True)
    ]
    gains = [1.0] * (len(errors) - 1) + [precision]
    return sum(0.5 * g * (e**2).sum() for g, e in zip(gains, errors, strict=True)) / len(x)


@pytest.mark.parametrize("precision", [0.7, 4.0])
def test_a_change_of_weights_is_the_slope_of_the_free_energy(rng, precision):
    net = drawn(rng, (6, 5, 4, 3), output_precision=precision)
    x, y = rng.normal(size=(7, 6)), rng.normal(size=(7, 3))
    method = Settling(n_steps=9, step=0.05)
    latents = net.settled(x, y, method)["latents"]
    after = net.learned([(x, y)], method, rate=0.3)
    for layer, (old, new) in enumerate(zip(net.weights, after, strict=True)):
        slope = np.zeros_like(old)
        for place in np.ndindex(old.shape):
            ends = []
            for shift in (1e-5, -1e-5):
                moved = [one.copy() for one in net.weights]
                moved[layer][place] += shift
                ends.append(energy(moved, latents, x, y, precision))
            slope[place] = (ends[0] - ends[1]) / 2e-5
        np.testing.assert_allclose(new - old, -0.3 * slope, atol=1e-8)


@pytest.mark.parametrize("precision", [0.7, 4.0])
def test_cosines_of_a_linear_network_are_those_of_the_algebra(rng, precision):
    """At rest the output's error is (I / Pi + W W')^-1 / Pi times that of backpropagation."""
    net = drawn(rng, activation="linear", output_precision=precision)
    x, y = rng.normal(size=(2, 4, 6)), rng.normal(size=(2, 4, 3))
    first, second = net.weights
    found = net.directions(x, y, steps=[4000], step=0.05).local[0]
    for batch in range(2):
        missing = y[batch] - x[batch] @ first.T @ second.T
        error = missing @ np.linalg.inv(np.eye(3) / precision + second @ second.T)
        ours, theirs = (e @ second for e in (error, missing))
        pair = [(one.T @ x[batch]).ravel() for one in (ours, theirs)]
        expected = pair[0] @ pair[1] / np.prod([np.linalg.norm(one) for one in pair])
        assert found[batch, 0] == pytest.approx(expected, abs=1e-8)


def test_responses_are_what_inference_ends_at():
    model = replace(PCN.untrained(seed=3), output_precision=4.0)
    shown = model.examples(5, seed=2)
    responses = model.run(shown)

    def part(name):
        return responses.rate.values[:, 0, responses.name.values == name]

    surround, centre = (one[:, 0] for one in model.prepare(shown))
    np.testing.assert_allclose(surround.mean(axis=1), 0.0, atol=1e-12)
    first, second, third = model.weights
    np.testing.assert_allclose(part("prediction_2"), surround @ first.T, atol=1e-12)
    np.testing.assert_allclose(part("prediction_1"), np.tanh(part("latent_2")) @ second.T)
    np.testing.assert_allclose(part("prediction_0"), np.tanh(part("latent_1")) @ third.T)
    np.testing.assert_allclose(part("error_0"), centre - part("prediction_0"), atol=1e-12)
    for level in (1, 2):
        error = part(f"latent_{level}") - part(f"prediction_{level}")
        np.testing.assert_allclose(part(f"error_{level}"), error, atol=1e-12)
    alone = model.run(shown, record=["error_1"])
    np.testing.assert_array_equal(alone.rate[:, 0], part("error_1"))
    # The centre is the middle 4 x 4 of 12 x 12: brighter there alone moves nothing of the surround.
    spot = shown.copy(data=shown.values + np.pad(np.ones((4, 4)), 4).ravel())
    moved = model.prepare(spot)
    np.testing.assert_allclose(moved[0][:, 0], surround, atol=1e-12)
    np.testing.assert_allclose(moved[1][:, 0], centre + model.input_gain, atol=1e-12)


def test_learning_repeats_and_predicts_the_centre():
    model = replace(PCN, n_steps=16)
    shown, other = model.examples(3000, seed=1), model.examples(500, seed=2)
    learned = model.fit(shown, seed=4)
    again = model.fit(shown, seed=4)
    pairs = zip(learned.weights, again.weights, strict=True)
    assert all(np.array_equal(one, two) for one, two in pairs)
    x, y = (one[:, 0] for one in model.prepare(other))
    missed = ((y - learned.network().output(x)) ** 2).sum() / (y**2).sum()
    assert missed < 0.8


def test_random_feedback_is_drawn_once_and_kept(tmp_path):
    model = untrained(variant("PCN-random"))
    learned = model.fit(model.examples(64, seed=1), seed=4)
    fresh = model.untrained(seed=4)
    for one, two, own in zip(
        learned.feedback_weights, fresh.feedback_weights, fresh.weights[1:], strict=True
    ):
        np.testing.assert_array_equal(one, two)
        assert abs(np.corrcoef(one.ravel(), own.ravel())[0, 1]) < 4 / np.sqrt(one.size)
    save_model(learned, tmp_path / "model", "whittington_bogacz_2017")
    shown = model.examples(2, seed=5)
    assert load_model(tmp_path / "model").run(shown).identical(learned.run(shown))
    assert not PCN.untrained(seed=4).run(shown).identical(fresh.run(shown))


def test_white_noise_has_the_pixels_and_not_their_order():
    few = replace(PCN)
    natural = few.training("natural", seed=1, scale="quick").values
    noise = few.training("white_noise", seed=1, scale="quick").values
    np.testing.assert_array_equal(np.sort(noise, axis=None), np.sort(natural, axis=None))
    neighbours = np.corrcoef(noise[:, 0, 0], noise[:, 0, 1])[0, 1]
    assert abs(neighbours) < 4 / np.sqrt(len(noise))
    assert np.corrcoef(natural[:, 0, 0], natural[:, 0, 1])[0, 1] > 0.5


def test_what_the_circuit_refuses(refused):
    shown = PCN.examples(2, seed=1)
    assert "(trial, time, 144)" in refused(PCN.run, shown.isel(feature=slice(0, 9)))
    assert "Did you mean 'error_1'" in refused(PCN.run, shown, record=["error_11"])
    assert "Did you mean 'random'" in refused(replace, PCN, feedback="randm")


def test_changes_are_backpropagations_where_the_output_is_held_weakly():
    model = PCN.untrained(seed=3)
    weak = h39.observe(replace(model, output_precision=1e-4), seed=1, scale="quick")
    means = {name: float(weak[name].mean()) for name in h39.HYPOTHESIS.variables}
    # 64 steps of 0.1 leave exp(-6.4) of the way and more to go, a layer at a time.
    assert h39.worst(means) > 0.99
    random = replace(untrained(variant("PCN-random")).untrained(seed=3), output_precision=1e-4)
    other = h39.observe(random, seed=1, scale="quick")
    means = {name: float(other[name].mean()) for name in h39.HYPOTHESIS.variables}
    assert abs(h39.hidden(means)) < 0.25
    assert means["layer 3"] == pytest.approx(1.0, abs=0.01)


def test_the_statistics_of_h39():
    means = {"layer 1": 0.4, "layer 2": 0.8, "layer 3": 0.3}
    assert h39.hidden(means) == pytest.approx(0.6)
    assert h39.worst(means) == pytest.approx(0.3)
    cosines = np.array([[[np.nan, 1.0, 1.0], [0.7, 0.2, 0.1]]])
    assert h39.evidence(cosines, [4])["included"].values.tolist() == [False, True]
    assert "backpropagation" in h39.HYPOTHESIS.missing(catalog.load("circuits", "adaptation"))
    able = [one.label for one in ROSTER if not h39.HYPOTHESIS.missing(untrained(one))]
    assert able == ["PCN", "PCN-weak", "PCN-random"]


def correlated(error, estimate):
    """Return means whose correlations are those given."""
    means = {}
    for part, value in (("error", error), ("estimate", estimate)):
        values = {"n": 0.5, "mm": 0.0, "d": 0.0, "mm2": 0.5, "d2": 2.0, "mmd": value * 1.0}
        means |= {f"{part}_{name}": np.array([one]) for name, one in values.items()}
    return means


@pytest.mark.parametrize(("error", "estimate"), [(0.58, -0.1), (0.87, 0.55), (-0.4, 0.2)])
def test_the_assignment_is_a_ratio_of_normal_densities(error, estimate):
    z, means = np.arctanh([error, estimate]), np.arctanh([0.58, -0.1])
    sigmas = np.sqrt([1 / 19, 1 / 9])
    standard, swapped = (
        scipy.stats.norm.logpdf(z, means[order], sigmas[order]).sum() for order in ([0, 1], [1, 0])
    )
    found = float(h38.assignment(correlated(error, estimate))[0])
    assert found == pytest.approx(standard - swapped, abs=1e-9)
    reverse = float(h38.assignment(correlated(estimate, error))[0])
    assert reverse == pytest.approx(-found, abs=1e-9)


def test_the_reference_of_h38_is_that_of_samples_as_large(rng):
    reference = h38.HYPOTHESIS.reference
    at = float(h38.assignment(correlated(0.58, -0.1))[0])
    assert reference.value == pytest.approx(at, abs=0.005)
    n = 100_000
    pairs = (
        np.tanh(np.arctanh(value) + rng.normal(size=n) / np.sqrt(cells - 3))
        for value, cells in h38.LAYERS.values()
    )
    ratios = h38.assignment(correlated(*pairs))[0]
    low, high = np.quantile(ratios, [0.025, 0.975])
    assert reference.interval == pytest.approx((low, high), abs=0.35)


def test_a_class_lies_between_two_layers():
    middle = np.tanh(np.arctanh([0.58, -0.1]).mean())
    margin = h38.nearer("error", "L2/3", "L5/6")
    assert float(margin(correlated(middle, 0.0))[0]) == pytest.approx(0.0, abs=1e-12)
    assert float(margin(correlated(0.5, 0.0))[0]) > 0
    assert float(h38.nearer("estimate", "L5/6", "L2/3")(correlated(0.0, 0.5))[0]) < 0
    found = h38.distances(0.58)
    assert found["L2/3"] == pytest.approx(0.0, abs=1e-12)
    assert found["L5/6"] == pytest.approx(3 * (np.arctanh(0.58) + np.arctanh(0.1)))
    assert np.isfinite(h38.distances(1.0)["L2/3"])


@pytest.mark.parametrize(("label", "apart"), [("VAE-apical", True), ("VAE-additive", False)])
def test_only_streams_that_meet_in_a_sum_have_no_interaction(label, apart):
    model = untrained(variant(label)).untrained(seed=3)
    found = h36.observe(model, seed=1, scale="quick")
    means = {name: float(found[name].mean()) for name in h36.HYPOTHESIS.variables}
    assert (h36.interaction(means) < 1e-12) == apart
    assert means["below"] > 0
    assert means["own"] > 0


def test_sums_of_squares_add_up(rng):
    values = rng.normal(size=(4, 7, 3))
    total = ((values - values.mean((0, 1))) ** 2).sum((0, 1))
    np.testing.assert_allclose(sums_of_squares(values).sum(0), total, rtol=1e-12)


def test_the_cost_is_in_per_cent_of_the_free_energy():
    cost = h36.logarithm({"free_energy": np.array([102.0])})
    cost = cost - h36.logarithm({"free_energy": np.array([100.0])})
    (limit,) = (one.null for one in h36.HYPOTHESIS.requirements)
    assert float(cost[0]) == pytest.approx(limit, abs=1e-9)
    sums = np.array([[1.0, 0.0], [2.0, 0.0], [0.7, 0.0]])
    assert h36.evidence(sums, 4.0)["included"].values.tolist() == [True, False]
    assert not h36.evidence(sums, -4.0)["included"].values.any()


def test_only_networks_that_see_errors_have_streams():
    reasons = {
        label: h36.HYPOTHESIS.missing(untrained(variant(label)))
        for label in ("LN", "RB", "ARF", "VAE-dir", "VAE-iter", "VAE-apical")
    }
    assert reasons["VAE-iter"] == reasons["VAE-apical"] == ""
    assert all(reasons[label] for label in ("LN", "RB", "ARF", "VAE-dir"))
