"""The smaller circuits, each against the closed form of what it says it does."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from sklearn.linear_model import Lasso

from pcsim import catalog
from pcsim.stimulus import stimulus_array


def load(name, **settings):
    return replace(catalog.load("circuits", name), **settings)


def images(rng, model, n=3, contrast=0.1, duration=0.4):
    values = 0.5 + contrast * rng.standard_normal((n, 1, *model.field_shape))
    return stimulus_array(np.clip(values, 0, 1), frame_duration=duration, px_per_deg=16.0)


def last(model, stimulus, population):
    rate = model.run(stimulus)["rate"].isel(time=-1).transpose("trial", "unit")
    return rate.isel(unit=(rate.population == population).values).to_numpy()


def test_linear_nonlinear_rests_at_the_rectified_filter_output(rng):
    model = load("linear_nonlinear", gain=4.0, record_dt=0.4)
    stimulus = images(rng, model)
    drive = 4.0 * model.prepare(stimulus)[:, 0] @ model.filters.T
    np.testing.assert_allclose(
        last(model, stimulus, "output"), np.maximum(drive, 0), atol=1e-12, rtol=1e-12
    )


def test_divisive_normalization_rests_at_equation_10(rng):
    model = load("carandini_heeger_2012", gain=0.7, exponent=1.6, semisaturation=0.4, record_dt=2.0)
    stimulus = images(rng, model, duration=2.0)
    powers = np.maximum(0.7 * model.prepare(stimulus)[:, 0] @ model.filters.T, 0) ** 1.6
    expected = powers / (0.4**1.6 + powers @ model.pool.T)
    # The slowest unit leaks with tau / s^n = 43 ms: 2 s are 46 time constants.
    np.testing.assert_allclose(last(model, stimulus, "output"), expected, rtol=1e-9, atol=1e-12)


def test_feedback_widens_the_pool():
    model = load("carandini_heeger_2012")
    far = np.linalg.norm(model.places - model.places[0], axis=1) > 0.4
    assert (replace(model, feedback_gain=0.0).pool[0, far] < model.pool[0, far]).all()


def test_adaptation_follows_the_closed_form_of_a_step(rng):
    model = load("adaptation", coefficient=0.7, tau_adaptation=0.4, record_dt=0.05, dt=0.0005)
    stimulus = images(rng, model, duration=1.0)
    rate = model.run(stimulus)["rate"]
    output = rate.isel(unit=(rate.population == "output").values).transpose("trial", "time", "unit")
    drive = np.maximum(model.prepare(stimulus)[:, 0] @ model.filters.T, 0)
    late = output.time.values > 0.2  # the stages before the adaptation have settled
    share = 1.0 - 0.7 * (1.0 - np.exp(-output.time.values[late] / 0.4))
    expected = np.einsum("t,bu->btu", share, drive @ model.pooling.T)
    # Two leaks of 10 ms lag the step by about 20 ms of the 400 ms that adaptation takes.
    np.testing.assert_allclose(output.values[:, late], expected, rtol=0.05)


@pytest.mark.parametrize("threshold", [0.2, 0.7])
def test_local_competition_solves_the_lasso(rng, threshold):
    model = load("locally_competitive", threshold=threshold, record_dt=2.0)
    stimulus = images(rng, model, contrast=0.05, duration=2.0)
    inputs = model.prepare(stimulus)[:, 0]
    n = inputs.shape[1]
    lasso = Lasso(alpha=threshold / n, fit_intercept=False, tol=1e-12, max_iter=100_000)
    expected = np.stack([lasso.fit(model.dictionary, one).coef_ for one in inputs])
    np.testing.assert_allclose(last(model, stimulus, "latent"), expected, atol=1e-6)
    fast = model.settle_patches(model.dictionary, inputs, n_steps=3000)
    np.testing.assert_allclose(fast, expected, atol=1e-6)


def test_dictionary_learning_lowers_the_energy_and_keeps_unit_norm(rng):
    model = load("locally_competitive")
    sources = rng.standard_normal((60, 32, 42))
    mixed = np.einsum("nk,kyx->nyx", rng.laplace(size=(600, 60)) * 0.01, sources)
    stimulus = stimulus_array(
        np.clip(0.5 + mixed[:, None], 0, 1), frame_duration=0.1, px_per_deg=16.0
    )
    trained = model.fit(stimulus, seed=2)
    np.testing.assert_allclose(np.linalg.norm(trained.dictionary, axis=0), 1.0, atol=1e-12)
    inputs = model.prepare(stimulus)[:100, 0]
    inputs = inputs / inputs.std()

    def energy(atoms):
        active = model.settle_patches(atoms, inputs, n_steps=500)
        residual = ((inputs - active @ atoms.T) ** 2).sum()
        return 0.5 * residual + model.threshold * np.abs(active).sum()

    assert energy(trained.dictionary) < 0.9 * energy(model.untrained(seed=2).dictionary)


def random_covariance(rng, n=169):
    factor = rng.standard_normal((n, 2 * n)) / np.sqrt(2 * n)
    return 0.4 * factor @ factor.T + 0.05 * np.eye(n)


@pytest.mark.parametrize("scheme", ["whitening", "prediction"])
def test_retina_rests_at_the_inverse_of_its_inhibition(rng, scheme):
    model = load(
        "retina_srinivasan_1982", covariance=random_covariance(rng), scheme=scheme, record_dt=2.0
    )
    stimulus = images(rng, model, duration=2.0)
    expected = np.linalg.solve(model.inhibition, model.prepare(stimulus)[:, 0].T).T
    np.testing.assert_allclose(last(model, stimulus, "error"), expected, rtol=1e-6, atol=1e-8)


def test_retina_whitens_its_noisy_input(rng):
    model = load("retina_srinivasan_1982", covariance=random_covariance(rng), ridge=0.3)
    noisy = model.covariance + 0.3 * np.trace(model.covariance) / 169 * np.eye(169)
    filters = np.linalg.inv(model.inhibition)
    white = filters @ noisy @ filters.T
    np.testing.assert_allclose(white, white[0, 0] * np.eye(169), atol=1e-10)
    np.testing.assert_allclose(filters, filters.T, atol=1e-10)


def test_retina_prediction_is_the_regression_of_each_receptor_on_the_others(rng):
    model = load(
        "retina_srinivasan_1982", covariance=random_covariance(rng), ridge=0.2, scheme="prediction"
    )
    noisy = model.covariance + 0.2 * np.trace(model.covariance) / 169 * np.eye(169)
    filters = np.linalg.inv(model.inhibition)
    for unit in (0, 84):
        others = np.delete(np.arange(169), unit)
        weights = np.linalg.solve(noisy[np.ix_(others, others)], noisy[others, unit])
        np.testing.assert_allclose(filters[unit, unit], 1.0, rtol=1e-9)
        np.testing.assert_allclose(filters[unit, others], -weights, atol=1e-9)


def test_lgn_coefficient_minimises_the_prediction_error(rng):
    model = load("lgn_dong_atick_1995", tau_trace=0.02)
    walk = np.cumsum(0.02 * rng.standard_normal((4, 200, 13, 13)), axis=1)
    stimulus = stimulus_array(np.clip(0.5 + walk, 0, 1), frame_duration=0.008, px_per_deg=16.0)
    fitted = model.fit(stimulus)

    def error(coefficient):
        # The model's own run is the independent route: it starts from an empty trace.
        rate = replace(fitted, coefficient=coefficient, record_dt=0.008).run(stimulus)["rate"]
        return float((rate.isel(time=slice(20, None)) ** 2).mean())

    best = error(fitted.coefficient)
    assert best < error(fitted.coefficient + 0.05)
    assert best < error(fitted.coefficient - 0.05)


def test_lgn_transfer_function_is_that_of_the_relay():
    model = load("lgn_dong_atick_1995", coefficient=0.7, mean=0.0, tau_trace=0.03, record_dt=0.001)
    frequency, t = 5.0, np.arange(4000) * 0.001
    wave = 0.5 + 0.2 * np.sin(2 * np.pi * frequency * t)
    values = np.broadcast_to(wave[None, :, None, None], (1, 4000, 13, 13)).copy()
    stimulus = stimulus_array(values, frame_duration=0.001, px_per_deg=16.0)
    rate = model.run(stimulus)["rate"].isel(trial=0, unit=0).to_numpy()[2000:]
    phasor = 2 * np.mean(rate * np.exp(-2j * np.pi * frequency * t[2000:]))
    # The trace of an input held for each step is an exact recursion with this factor.
    keep = np.exp(-0.001 / 0.03)
    turn = np.exp(-2j * np.pi * frequency * 0.001)
    expected = 0.2 * abs(1 - 0.7 * (1 - keep) / (1 - keep * turn))
    np.testing.assert_allclose(abs(phasor), expected, rtol=1e-9)
    # In continuous time it is (1 - c + i w tau) / (1 + i w tau); a held input lags a little.
    iw = 2j * np.pi * frequency * 0.03
    np.testing.assert_allclose(abs(phasor), 0.2 * abs((1 - 0.7 + iw) / (1 + iw)), rtol=0.02)
