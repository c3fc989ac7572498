"""Dynamic predictive coding in the retina against the regressions that it ought to reach."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import pytest

from pcsim import catalog
from pcsim.brian import run_brian
from pcsim.circuit import settle
from pcsim.stimuli import check_patterns, pattern_flicker
from pcsim.stimulus import stimulus_array

HOSOYA = catalog.load("circuits", "hosoya_2005")
H06 = catalog.load("analysis", "dynamic_predictive_coding")


def named(responses, name):
    rate = responses["rate"].transpose("trial", "time", "unit")
    return rate.isel(unit=(rate["name"] == name).values).to_numpy()


def still(rng, n=2):
    """Return images of one frame, and their contrast (trial, pixel)."""
    values = np.clip(rng.normal(0.5, 0.15, (n, 1, 16, 16)), 0, 1)
    return stimulus_array(values, frame_duration=1.0, px_per_deg=16.0), 2 * values.reshape(
        n, -1
    ) - 1


def rest(circuit, contrast):
    """Rates and weights at rest under a still image, in closed form."""
    drive = contrast @ circuit.fields.T
    amacrine = contrast @ circuit.amacrine_fields.T
    post, pre = circuit.wiring
    seen = np.zeros_like(drive)
    np.add.at(seen, (slice(None), post), amacrine[:, pre] ** 2)
    rate = np.maximum(drive, 0) / (1 + circuit.plasticity * seen)
    return rate, circuit.plasticity * amacrine[:, pre] * rate[:, post]


@pytest.mark.parametrize("adaptation", ["pattern", "contrast"])
def test_circuit_rests_at_its_fixed_point_in_both_engines(rng, adaptation):
    circuit = replace(HOSOYA, adaptation=adaptation, tau_weight=0.07, plasticity=4.0, dt=5e-4)
    stimulus, contrast = still(rng)
    rate, weights = rest(circuit, contrast)
    at_rest = settle(circuit, stimulus, tol=1e-10)
    brian = run_brian(replace(circuit, record_dt=1.0), stimulus, dt=1e-3)
    for responses, tolerance in ((at_rest, 1e-7), (brian, 1e-3)):
        found = np.concatenate([named(responses, n)[:, -1] for n in ("on", "off")], axis=1)
        np.testing.assert_allclose(found, rate, rtol=tolerance, atol=tolerance)
        np.testing.assert_allclose(
            named(responses, "synapse")[:, -1], weights, rtol=tolerance, atol=tolerance
        )


@cache
def learned(environment):
    """Return mean late weights (32, 16), and what the bipolar cells sent, from a long run.

    Weights that remember 6 s of frames of 50 ms, through cells that lag by 2 ms.
    """
    fast = {"tau_bipolar": 0.001, "tau_amacrine": 0.001, "tau": 0.001, "tau_weight": 6.0}
    circuit = replace(HOSOYA, record_dt=0.05, dt=0.0025, **fast)
    stimulus = pattern_flicker(
        (16, 16), pattern=environment, n_trials=4, n_frames=1000, frame_duration=0.05, seed=3
    )
    responses = circuit.run(stimulus, record=["bipolar", "synapse"])
    late = responses["time"].values > 15.0
    weights = named(responses, "synapse")[:, late].mean(axis=(0, 1)).reshape(32, 16)
    return circuit, weights, named(responses, "bipolar")[:, late].reshape(-1, 256)


@pytest.mark.parametrize("environment", ["uniform", "checkerboard", "white"])
def test_weights_reach_the_ridge_regression(environment):
    circuit, weights, bipolar = learned(environment)
    amacrine, drive = bipolar @ circuit.amacrine_fields.T, bipolar @ circuit.fields.T
    covariance = amacrine.T @ amacrine / len(amacrine)
    noisy = covariance + 2.0 / circuit.plasticity * np.eye(16)
    expected = np.linalg.solve(noisy, amacrine.T @ drive / len(amacrine)).T
    # The regression holds for infinitely short frames; at 50 ms the weights move with them.
    difference = np.linalg.norm(weights - expected) / np.linalg.norm(expected)
    assert difference < 0.1
    plain = np.linalg.solve(covariance + np.eye(16) / circuit.plasticity, noisy @ expected.T).T
    assert np.linalg.norm(weights - plain) / np.linalg.norm(plain) > 0.15


def test_familiar_pattern_is_reduced_by_the_predicted_factor_and_an_orthogonal_one_is_not():
    circuit, weights, bipolar = learned("uniform")
    uniform, columns = check_patterns((16, 16)).reshape(4, -1)[:2]
    seen = circuit.amacrine_fields @ uniform
    variance = bipolar[:, 0].var()
    factor = 1.0 / (1.0 + circuit.plasticity / 2.0 * variance * (seen @ seen))
    assert 0.3 < factor < 0.8
    before = circuit.fields @ np.stack([uniform, columns]).T
    after = before - weights @ circuit.amacrine_fields @ np.stack([uniform, columns]).T
    np.testing.assert_allclose(after[:, 0] / before[:, 0], factor, rtol=0.08)
    # The weights are alike for all amacrine cells, whose rates under columns cancel.
    np.testing.assert_allclose(after[:, 1], before[:, 1], atol=1e-9)


def test_gain_adaptation_reduces_all_patterns_alike(rng):
    circuit = replace(HOSOYA, adaptation="contrast")
    weights = rng.uniform(0.1, 0.3, 32)
    patterns = check_patterns((16, 16)).reshape(4, -1).T
    reduced = circuit.fields @ patterns - weights[:, None] * (circuit.amacrine_fields @ patterns)
    ratio = reduced[:, [0, 3]] / (circuit.fields @ patterns)[:, [0, 3]]
    np.testing.assert_allclose(ratio[:, 0], ratio[:, 1], rtol=1e-9)
    uniform = circuit.amacrine_fields @ patterns[:, 0]
    # As strong under full-field flicker as all blobs together.
    np.testing.assert_allclose(uniform**2, 16.0, rtol=1e-9)


def test_without_plasticity_cells_are_their_fields(rng):
    circuit = replace(HOSOYA, plasticity=0.0, record_dt=1.0)
    stimulus, contrast = still(rng)
    responses = circuit.run(stimulus)
    assert (named(responses, "synapse") == 0).all()
    on, off = named(responses, "on")[:, -1], named(responses, "off")[:, -1]
    np.testing.assert_allclose(on - off, contrast @ circuit.fields[:16].T, atol=1e-9)
    np.testing.assert_allclose(on * off, 0.0, atol=1e-12)


def test_weights_forget_with_their_time_constant():
    flicker = pattern_flicker((16, 16), n_frames=100, frame_duration=0.03, contrast=0.3)
    grey = np.full((1, 100, 16, 16), 0.5)
    values = np.concatenate([flicker.to_numpy(), grey], axis=1)
    stimulus = stimulus_array(values, frame_duration=0.03, px_per_deg=16.0)
    responses = replace(HOSOYA, record_dt=0.03, tau_weight=0.7).run(stimulus)
    weights = named(responses, "synapse")[0]
    early, late = weights[110], weights[190]
    np.testing.assert_allclose(late / early, np.exp(-80 * 0.03 / 0.7), rtol=1e-3)


def test_hypothesis_tells_pattern_from_gain():
    found = H06.observe(HOSOYA, seed=1, scale="quick")
    assert found["included"].values.all()
    assert set(found["channel"].values) == {-1.0, 1.0}
    sensitivity = found["sensitivity"].mean("unit")
    for environment, other in (("uniform", "checkerboard"), ("checkerboard", "uniform")):
        own = float(sensitivity.sel(environment=environment, pattern=environment))
        assert own < float(sensitivity.sel(environment=other, pattern=environment))
    blind = H06.observe(replace(HOSOYA, adaptation="contrast"), seed=1, scale="quick")
    assert abs(float(blind["novelty"].mean())) < 0.1 * float(found["novelty"].mean())
    assert float(blind["sensitivity"].max()) < float(found["sensitivity"].max())
