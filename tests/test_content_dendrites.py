"""Dendrites: subunit fits against known neurons, the two-stage rate neuron, the NMDA neuron."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import scipy.optimize

from pcsim import catalog
from pcsim.brian import run_brian
from pcsim.circuit import settle
from pcsim.measures import cross_validated_r2, fit_point_neuron, fit_two_layer
from pcsim.protocols.synapses import complementary_patterns, random_patterns, synaptic_drive
from pcsim.stimulus import stimulus_array

RATE = catalog.load("circuits", "poirazi_2003")
NMDA = catalog.load("circuits", "pyramidal_nmda")


def softplus(x):
    return np.log1p(np.exp(x))


def test_both_fits_explain_a_point_neuron(rng):
    patterns = random_patterns(80, 4, seed=1)
    rates = softplus(0.2 * patterns @ np.array([0.7, 0.4, 1.3, 0.9]) - 1.5)
    assert cross_validated_r2(fit_point_neuron, patterns, rates) > 0.999
    assert cross_validated_r2(fit_two_layer, patterns, rates) > 0.99


def test_two_layers_are_needed_for_sigmoidal_branches():
    patterns = random_patterns(120, 5, seed=2)
    hidden = 1.0 / (1.0 + np.exp(-(patterns - 6.0) / 0.7))
    rates = softplus(hidden @ np.array([4.0, 3.0, 5.0, 4.0, 2.0]) - 1.0)
    assert cross_validated_r2(fit_two_layer, patterns, rates) > 0.98
    assert cross_validated_r2(fit_point_neuron, patterns, rates) < 0.9


def test_fits_refuse_what_they_cannot_judge():
    with pytest.raises(ValueError, match="at least two a fold"):
        cross_validated_r2(fit_point_neuron, np.ones((4, 2)), np.arange(4.0))
    with pytest.raises(ValueError, match="rates that vary"):
        cross_validated_r2(fit_point_neuron, np.ones((20, 2)), np.full(20, 3.0))


def test_no_weighted_sum_solves_the_exclusive_or_in_this_code():
    patterns = complementary_patterns(6, 4.0)
    np.testing.assert_array_equal(patterns.sum(axis=1), np.full(4, 24.0))
    np.testing.assert_array_equal(patterns[[1, 2]].sum(axis=0), patterns[[0, 3]].sum(axis=0))


def theory(patterns, circuit):
    branch = (patterns - circuit.theta) / circuit.kappa
    y = 1.0 / (1.0 + np.exp(-branch)) if circuit.nonlinear else branch / 4.0 + 0.5
    basal, apical = y[:, : circuit.n_basal].sum(axis=1), y[:, circuit.n_basal :].sum(axis=1)
    v = basal + circuit.apical_weight * apical - circuit.somatic_threshold
    return circuit.gain * np.maximum(v, 0.0)


@pytest.mark.parametrize("nonlinear", [True, False])
def test_the_rate_neuron_rests_where_theory_says(nonlinear):
    circuit = replace(RATE, nonlinear=nonlinear, theta=4.0, kappa=0.7)
    patterns = random_patterns(12, 10, seed=3)
    found = settle(circuit, synaptic_drive(patterns, duration=0.1), tol=1e-10)
    rate = found.rate.isel(unit=found["population"].values == "output").values.ravel()
    np.testing.assert_allclose(rate, theory(patterns, circuit), rtol=1e-6, atol=1e-6)


def test_the_rate_neuron_on_brian():
    circuit = replace(RATE, dt=5e-4, record_dt=0.6, integrator="euler")
    patterns = random_patterns(4, 10, seed=4)
    found = run_brian(circuit, synaptic_drive(patterns, duration=0.6), record=["rate"])
    np.testing.assert_allclose(
        found.rate.values.ravel(), theory(patterns, circuit), rtol=1e-3, atol=0.05
    )


def test_a_branch_jumps_to_a_plateau_with_nmda():
    """In theory a branch rests near the leak at little conductance and near 0 mV at much."""

    def current(v, conductance):
        block = 1.0 / (1.0 + NMDA.magnesium / 3.57 * np.exp(-62.0 * v))
        leak = 0.25e-9 + NMDA.g_axial
        return leak * (-0.070 - v) - conductance * block * v

    v = np.linspace(-0.07, -0.0005, 4000)
    steady = {g: int((np.diff(np.sign(current(v, g * 1e-9))) != 0).sum()) for g in (1.0, 7.5, 30.0)}
    assert (steady[1.0], steady[30.0]) == (1, 1)
    low = scipy.optimize.brentq(current, -0.07, 0.0, args=(1e-9,))
    high = scipy.optimize.brentq(current, -0.07, 0.0, args=(3e-8,))
    assert low < -0.06
    assert high > -0.02
    patterns = np.zeros((3, 10))
    patterns[:, :6] = np.array([[1.0], [6.0], [12.0]])
    rate = replace(NMDA, n_neurons=2, spread=0.0).run(
        synaptic_drive(patterns, duration=0.5), seed=1
    )
    weak, enough, twice = rate.rate.mean(["time", "unit"]).values
    assert weak == 0
    assert enough > 20
    assert twice < 2 * enough


def test_linear_synapses_add_up():
    """With currents, the mean voltage of an unfiring neuron is linear in the arrivals: no spikes
    below rheobase, and equal totals fire alike wherever they are.
    """
    neuron = replace(NMDA, synapses="current", n_neurons=2, spread=0.0)
    patterns = np.zeros((2, 10))
    patterns[0, :6] = 8.0
    patterns[1, :3] = 16.0
    rate = neuron.run(synaptic_drive(patterns, duration=1.0), seed=2).rate
    spread, clustered = rate.mean(["time", "unit"]).values
    assert spread > 20
    assert abs(spread - clustered) < 0.15 * spread


def test_trials_do_not_know_each_other():
    drive = synaptic_drive(random_patterns(3, 10, seed=5), duration=0.2)
    neuron = replace(NMDA, n_neurons=2)
    together, alone = neuron.run(drive, seed=3), neuron.run(drive.isel(trial=[2]), seed=3)
    np.testing.assert_array_equal(together.rate.values[2], alone.rate.values[0])


def test_refusals():
    with pytest.raises(ValueError, match="one rate a branch"):
        NMDA.run(stimulus_array(np.ones((1, 1, 3)), frame_duration=0.1))
    with pytest.raises(ValueError, match="rates of 0 or more"):
        NMDA.run(stimulus_array(-np.ones((1, 1, 10)), frame_duration=0.1))
    with pytest.raises(ValueError, match="Did you mean 'nmda'"):
        replace(NMDA, synapses="nmdaa")
