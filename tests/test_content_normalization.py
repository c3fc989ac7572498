"""Learned divisive normalization against maximum likelihood, and the dependence it removes."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import scipy.optimize
import scipy.stats

from pcsim import catalog
from pcsim.brian import run_brian
from pcsim.roster import Variant, train, training_stimulus
from pcsim.stimulus import stimulus_array

SS = catalog.load("circuits", "schwartz_simoncelli_2001")
H16 = catalog.load("analysis", "variance_dependence")
CIRCUIT = vars(__import__("pcsim.circuits.schwartz_simoncelli_2001", fromlist=["MODEL"]))
ANALYSIS = H16.observe.__globals__


@cache
def trained():
    return train(Variant(label="SS", circuit="schwartz_simoncelli_2001"), seed=3)


def images(rng, n=2, contrast=0.1):
    values = np.clip(0.5 + contrast * rng.standard_normal((n, 1, *SS.field_shape)), 0, 1)
    return stimulus_array(values, frame_duration=0.6, px_per_deg=16.0)


def output(responses):
    rate = responses["rate"].isel(time=-1).transpose("trial", "unit")
    return rate.isel(unit=(rate["population"] == "output").values).to_numpy()


@pytest.mark.parametrize("engine", ["arrays", "brian"])
def test_circuit_rests_at_the_ratio(rng, engine):
    n = len(SS.filters)
    pool = rng.uniform(0, 0.4, (n, n)) * (rng.uniform(size=(n, n)) < 0.1)
    constant = rng.uniform(0.7, 4.0, n)
    model = replace(SS, gain=7.0, pool=pool, constant=constant, record_dt=0.6)
    stimulus = images(rng, n=1)
    drive = 7.0 * model.prepare(stimulus)[:, 0] @ model.filters.T
    expected = np.maximum(drive, 0) ** 2 / (constant + drive**2 @ pool.T)
    run = model.run if engine == "arrays" else lambda s: run_brian(model, s, dt=1e-3)
    np.testing.assert_allclose(output(run(stimulus)), expected, rtol=1e-6, atol=1e-6)


def test_without_normalization_outputs_are_squared_halves(rng):
    model = replace(trained(), normalization=0.0, record_dt=0.6)
    stimulus = images(rng)
    drive = model.gain * model.prepare(stimulus)[:, 0] @ model.filters.T
    found = output(model.run(stimulus)) * model.constant
    np.testing.assert_allclose(found, np.maximum(drive, 0) ** 2, rtol=1e-9, atol=1e-12)


def test_filters_are_quadrature_pairs_without_mean():
    filters = SS.filters
    np.testing.assert_allclose(filters.sum(axis=1), 0.0, atol=1e-9)
    np.testing.assert_allclose(np.linalg.norm(filters, axis=1), 1.0, rtol=1e-12)
    # Even and odd filters of one place and orientation are orthogonal.
    overlap = (filters[0:72:2] * filters[1:72:2]).sum(axis=1)
    np.testing.assert_allclose(overlap, 0.0, atol=0.02)


def test_gradient_of_the_deviance(rng):
    inputs, target = rng.gamma(2.0, size=(60, 5)), rng.gamma(0.7, size=60)
    deviance = CIRCUIT["deviance"]
    weights = rng.uniform(0.1, 0.7, 5)
    error = scipy.optimize.check_grad(
        lambda w: deviance(w, inputs, target)[0], lambda w: deviance(w, inputs, target)[1], weights
    )
    assert error < 1e-5


def test_maximum_likelihood_recovers_the_variance_that_made_the_responses(rng):
    n, weights, constant = 40_000, np.array([0.7, 0.0, 2.0]), 0.4
    others = rng.standard_normal((n, 3)) ** 2 * np.array([1.0, 4.0, 0.7])
    energy = (constant + others @ weights) * rng.standard_normal(n) ** 2
    found, pool = CIRCUIT["conditional_variance"](energy, others)
    # Standard errors at n = 40 000 are about 0.02.
    np.testing.assert_allclose(found, constant, atol=0.08)
    np.testing.assert_allclose(pool, weights, atol=0.08)
    assert (pool >= 0).all()


def test_learned_weights_obey_the_conditions_of_a_bounded_minimum():
    model = trained()
    natural = training_stimulus(model, "natural", seed=3)
    drive = model.gain * model.prepare(natural)[:, 0] @ model.filters.T
    energy = drive**2
    for i in (0, 33, 79):
        variance = model.constant[i] + energy @ model.pool[i]
        slope = ((1 - energy[:, i] / variance) / variance) @ energy / len(energy)
        others = np.arange(len(energy.T)) != i
        at_zero = others & (model.pool[i] < 1e-9)
        assert slope[at_zero].min() > -0.02
        np.testing.assert_allclose(slope[others & ~at_zero], 0.0, atol=0.02)
    assert np.diag(model.pool).max() == 0.0


def test_neighbours_predict_the_variance_of_images_that_were_not_learned():
    model = trained()
    fresh = training_stimulus(model, "natural", seed=77)
    energy = (model.gain * model.prepare(fresh)[:, 0] @ model.filters.T) ** 2
    variance = model.constant + energy @ model.pool.T
    learned = (np.log(variance) + energy / variance).mean(axis=0)
    alone = np.log(energy.mean(axis=0)) + 1.0
    assert (learned < alone).all()


def test_kappa_is_spearmans_correlation(rng):
    values = np.abs(rng.standard_t(4, (300, 3)))
    values[:50, 0] = 0.0
    kappa = ANALYSIS["kappa"](values, np.array([0, 1]), np.array([2, 2]))
    expected = [scipy.stats.spearmanr(values[:, i], values[:, 2])[0] for i in (0, 1)]
    np.testing.assert_allclose(kappa, expected, rtol=1e-9)


def test_gaussian_pairs_have_no_dependence_and_a_common_scale_gives_one(rng):
    n = 20_000
    plain = rng.standard_normal((n, 2))
    scale = np.exp(rng.normal(0, 0.7, (n, 1)))
    kappa = ANALYSIS["kappa"]
    ends = np.array([0]), np.array([1])
    assert abs(kappa(np.abs(plain), *ends)[0]) < 4 / np.sqrt(n)
    mixed = np.abs(scale * plain)
    assert kappa(mixed, *ends)[0] > 0.2
    # No rotation or scaling of the plane removes it.
    turn = np.array([[0.7, -0.4], [0.3, 4.0]])
    assert kappa(np.abs(scale * plain @ turn.T) + 0.0, *ends)[0] > 0.15
    assert abs(kappa(mixed / scale, *ends)[0]) < 4 / np.sqrt(n)


def test_scrambled_images_are_gaussian_with_the_same_covariance(rng):
    scale = np.exp(rng.normal(0, 0.5, (1500, 1)))
    natural = scale * (rng.standard_normal((1500, 6)) @ rng.standard_normal((6, 6))) + 0.4
    scrambled = ANALYSIS["gaussian_images"](natural.reshape(1500, 2, 3), rng).reshape(1500, 6)
    np.testing.assert_allclose(scrambled.mean(axis=0), natural.mean(axis=0), atol=0.5)
    ours, theirs = np.cov(scrambled.T), np.cov(natural.T)
    # Both are sampled: sqrt(2 / 1500) of a variance each.
    assert np.abs(ours - theirs).max() < 10 * np.sqrt(4 / 1500) * theirs.max()
    assert np.abs(scipy.stats.kurtosis(scrambled)).max() < 5 * np.sqrt(24 / 1500)
    assert scipy.stats.kurtosis(natural).min() > 5 * np.sqrt(24 / 1500)


@pytest.mark.parametrize("exponent", [1.0, 2.0, 2.6])
def test_linear_filters_are_found_behind_rectified_powers(rng, exponent):
    linear = rng.standard_normal((400, 5))
    halves = [
        [np.maximum(sign * factor * linear, 0) ** exponent for sign in (1, -1)] for factor in (1, 2)
    ]
    found = ANALYSIS["signed_root"](*halves)
    np.testing.assert_allclose(found, linear / np.abs(linear).max(axis=0), rtol=1e-9, atol=1e-12)


def test_a_static_filter_keeps_its_dependence_and_learned_division_does_not():
    rows = {}
    for name, model in (("LN", catalog.load("circuits", "linear_nonlinear")), ("SS", trained())):
        found = H16.observe(model, seed=2, scale="quick")
        rows[name] = found.isel(unit=found["included"].values)
    np.testing.assert_allclose(rows["LN"]["kappa_out"], rows["LN"]["kappa_in"], atol=1e-3)
    means = {name: float(rows["SS"][name].mean()) for name in H16.variables}
    assert means["kappa_out"] < 0.5 * means["kappa_in"]
    assert abs(means["kappa_scrambled"]) < 4 / np.sqrt(500)
    control = H16.controls[0].transform(trained(), 2)
    white = H16.observe(control, seed=2, scale="quick")
    white = float(white["kappa_out"].values[white["included"].values].mean())
    assert white > 0.6 * means["kappa_in"]


def test_units_that_never_respond_stay_silent_when_the_others_are_whitened(rng):
    whitened_sizes = ANALYSIS["whitened_sizes"]
    signals = rng.standard_normal((4000, 3)) @ [[2.0, 0.5, 0.0], [0.0, 1.0, 0.3], [0.0, 0.0, 1.5]]
    linear = np.insert(signals, 1, 0.0, axis=1)
    sizes = whitened_sizes(linear)
    assert not sizes[:, 1].any()
    np.testing.assert_array_equal(np.delete(sizes, 1, axis=1), whitened_sizes(signals))
    # White Gaussian signals have the mean size sqrt(2 / pi); the ridge takes a little.
    np.testing.assert_allclose(whitened_sizes(signals).mean(axis=0), 0.798, rtol=0.04)
    assert not whitened_sizes(np.zeros((10, 2))).any()
