"""The visuomotor circuits against what they say they do, and the statistics of H26."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from pcsim import catalog, roster
from pcsim.analysis import visuomotor_mismatch as h26
from pcsim.brian import run_brian
from pcsim.circuit import settle, simulate
from pcsim.protocols.flow import compartments, flow_trials, halt_response, opposing_inputs
from pcsim.protocols.mismatch import replica_correlations
from pcsim.responses import make_responses
from pcsim.stimuli import optic_flow
from pcsim.stimulus import stimulus_array


@pytest.fixture(scope="module")
def raised():
    """The circuit raised with flow at 0.7 of its running, and nothing else in it."""
    model = catalog.load("circuits", "attinger_2017")
    model = replace(model, corridor_gain=0.7, external=0.0)
    return model.fit(model.training("natural", seed=1, scale="quick"), seed=1)


def frame(rng, model, n=3, duration=0.5):
    values = rng.uniform(0.0, 0.3, (n, 1, model.n_features))
    return stimulus_array(values, frame_duration=duration)


def pick(responses, name):
    kept = responses.isel(unit=(responses.population == name).values)
    return kept.rate.transpose("trial", "time", "unit").to_numpy()


def rest(model, stimulus):
    """Solve for the latents with numpy.linalg alone."""
    inputs = stimulus.values[:, 0] / 0.1
    motor = np.column_stack([inputs[:, 0], np.ones(len(inputs))]) @ model.motor_weights.T
    flow = inputs[:, 1:] @ model.visual_weights.T
    pi, pi_m = model.flow_precision / 48, model.motor_precision
    root = np.concatenate([np.sqrt(pi) * model.weights, np.sqrt(pi_m) * np.eye(24)])
    target = np.concatenate([np.sqrt(pi) * flow, np.sqrt(pi_m) * motor], axis=1)
    return np.linalg.lstsq(root, target.T, rcond=None)[0].T, flow


def test_it_rests_at_the_least_squares_estimate(raised, rng):
    model = replace(raised, flow_precision=4.0, motor_precision=0.7)
    stimulus = frame(rng, model)
    latents, flow = rest(model, stimulus)
    found = settle(model, stimulus, tol=1e-10)
    np.testing.assert_allclose(pick(found, "latent")[:, 0], latents, rtol=1e-6, atol=1e-8)
    error = flow - latents @ model.weights.T
    np.testing.assert_allclose(pick(found, "error_pos")[:, 0], np.maximum(error, 0), atol=1e-7)
    np.testing.assert_allclose(pick(found, "error_neg")[:, 0], np.maximum(-error, 0), atol=1e-7)


def test_brian_rests_at_the_same_estimate(raised, rng):
    model = replace(raised, flow_precision=4.0, motor_precision=0.7)
    stimulus = frame(rng, model, n=1, duration=1.0)
    brian = run_brian(model, stimulus, dt=1e-3, record=["latent"])
    np.testing.assert_allclose(brian.rate.values[0, -1], rest(model, stimulus)[0][0], atol=1e-3)


def test_the_learning_step_goes_down_the_free_energy(raised, rng):
    model = raised.untrained(seed=4)
    motor = np.column_stack([rng.uniform(0, 3, 7), np.ones(7)])
    flow = rng.uniform(0, 3, (7, 8))
    step = model._learn(np.concatenate([motor, flow], axis=1)).weights - model.weights
    weights = torch.tensor(model.weights, requires_grad=True)
    r = torch.tensor(model.infer(motor, flow))
    error = torch.tensor(flow @ model.visual_weights.T) - r @ weights.T
    (0.5 * (error**2).sum(dim=1).mean()).backward()
    slope = weights.grad.numpy()
    cosine = -(slope * step).sum() / np.linalg.norm(slope) / np.linalg.norm(step)
    assert cosine == pytest.approx(1.0, abs=1e-9)


def test_coupled_experience_teaches_the_gain_of_the_corridor(raised):
    predicted = raised.weights @ raised.motor_weights
    expected = 0.7 * raised.visual_weights.sum(axis=1)
    np.testing.assert_allclose(predicted[:, 0], expected, rtol=0.05, atol=0.02)
    assert np.abs(predicted[:, 1]).max() < 0.1


def test_after_uncoupled_experience_running_hardly_drives_errors(raised):
    model = replace(raised, coupled=False)
    other = model.fit(model.training("natural", seed=1, scale="quick"), seed=1)

    def slope(one):
        """Return by how much typical running moves the errors, once the latents are at rest."""
        inputs = np.zeros((2, 2)), np.zeros((2, 8))
        inputs[0][1, 0] = 1.0
        still, running = -one.infer(*inputs) @ one.weights.T
        return np.abs(running - still).mean()

    assert slope(other) < 0.25 * slope(raised)


def test_a_halt_drives_negative_errors_by_what_was_predicted(raised):
    model = replace(raised, noise=0.0, record_dt=0.02)
    stimulus = optic_flow(4, condition="mismatch", gain=0.7, seed=2)
    responses = model.run(stimulus)
    time = responses.time.values
    halted = (time > 2.5) & (time <= 3.0)
    assert pick(responses, "error_neg")[:, halted].mean() > 0.2
    assert pick(responses, "error_pos")[:, halted].mean() < 0.02
    before = (time > 1.5) & (time <= 2.0)
    assert pick(responses, "error_neg")[:, before].mean() < 0.05
    cut = replace(model, feedback_gain=0.0).run(stimulus)
    assert pick(cut, "error_neg")[:, halted].max() == pytest.approx(0.0, abs=1e-6)


@pytest.mark.parametrize("name", ["attinger_2017", "running_gain"])
def test_noise_belongs_to_the_trial_and_the_seed(name):
    model = replace(catalog.load("circuits", name), record_dt=0.1)
    stimulus = optic_flow(3, duration=0.4)
    first, again, other = (model.run(stimulus, seed=seed).rate.values for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)
    alone = model.run(stimulus.isel(trial=[2]), seed=1).rate.values
    np.testing.assert_allclose(alone[0], first[2], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("engine", [simulate, run_brian])
def test_running_multiplies_tuned_responses(engine, rng):
    model = catalog.load("circuits", "running_gain")
    stimulus = frame(rng, model, n=2)
    running, flow = stimulus.values[:, 0, 0] / 0.1, stimulus.values[:, 0, 1:]
    found = engine(model, stimulus, record=["output_deep"]).rate.values[:, -1]
    speed = flow[:, model.places[1]] + model.offset
    octaves = np.log(speed / (model.preferred[1] + model.offset)) / model.width
    expected = (1 + running[:, None] * model.running_gain[1]) * np.exp(-0.5 * octaves**2)
    np.testing.assert_allclose(found, expected, rtol=1e-6)


@pytest.mark.parametrize("name", ["attinger_2017", "running_gain"])
def test_another_number_of_features_is_refused(name, refused):
    model = catalog.load("circuits", name)
    message = refused(model.run, optic_flow(1, n_locations=5, duration=0.1))
    assert "running and the flow at 8 places" in message


def test_the_roster_lets_a_learner_make_its_own_training():
    model = catalog.load("circuits", "attinger_2017")
    natural = roster.training_stimulus(model, "natural", seed=3)
    assert natural.sizes["trial"] == model.n_training["quick"]
    running, flow = natural.values[..., 0].ravel(), natural.values[..., 1].ravel()
    assert np.corrcoef(running, flow)[0, 1] > 0.9
    noise = roster.training_stimulus(model, "white_noise", seed=3)
    running, flow = noise.values[..., 0].ravel(), noise.values[..., 1].ravel()
    assert abs(np.corrcoef(running, flow)[0, 1]) < 4 / np.sqrt(running.size)
    np.testing.assert_allclose(np.sort(running), np.sort(natural.values[..., 0].ravel()))
    apart = roster.train(roster.variant("VM-uncoupled"), seed=3)
    assert not apart.coupled
    assert not np.array_equal(apart.weights, model.untrained(seed=3).weights)


def test_a_halt_response_is_the_difference_of_two_means():
    time = 0.05 * np.arange(1, 81)
    rate = np.where((time > 2.001) & (time < 3.001), 4.0, 0.7)[None, :, None] * np.ones((2, 1, 3))
    units = {"population": ["error_neg", "latent", "output"], "level": [0, 1, 1],
             "layer": ["", "", "L5/6"]}  # fmt: skip
    trial = {"condition": ["mismatch"] * 2, "onset": [2.0, 2.0]}
    responses = make_responses(rate, time=time, units=units, trial=trial)
    np.testing.assert_allclose(halt_response(responses), 3.3)
    assert compartments(responses).tolist() == ["error", "estimate", "estimate"]


def test_opposing_inputs_are_correlations():
    shown = optic_flow(6, condition="replay", duration=20.0, n_locations=2, frame_duration=0.05)
    running, flow = shown.values[..., 0], shown.values[..., 1:].mean(axis=-1)
    rate = np.stack([running, -2.0 * flow, 0.3 * running - 0.4 * flow, 0 * flow], axis=-1)
    responses = make_responses(
        rate,
        time=shown.time.values + 0.05,
        units={"population": ["error_pos"] * 4, "level": [0] * 4},
        trial={"condition": shown.condition.values},
    )
    with_running, with_flow = opposing_inputs(responses, shown)
    assert with_running[0] == pytest.approx(1.0)
    assert with_flow[1] == pytest.approx(-1.0)
    mixed = np.corrcoef(rate[..., 2].ravel(), running.ravel())[0, 1]
    assert with_running[2] == pytest.approx(mixed)
    assert with_running[3] == with_flow[3] == 0


def test_the_statistic_is_the_correlation_over_units_of_each_part():
    model = roster.train(roster.variant("VM"), seed=5)
    evidence, _ = h26.HYPOTHESIS.observe(model, seed=5, scale="quick")
    first, second = replica_correlations(evidence)
    for name, found in (("error", first), ("estimate", second)):
        own = (evidence["part"].values == name) & evidence["included"].values
        d = (evidence["with_running"] - evidence["with_flow"]).values[own]
        expected = np.corrcoef(evidence["mismatch"].values[own], d)[0, 1]
        assert found == pytest.approx(expected, abs=1e-9)


def test_models_that_see_images_are_told_why_not():
    reason = h26.HYPOTHESIS.missing(catalog.load("circuits", "linear_nonlinear"))
    assert "optic flow" in reason
    with pytest.raises(ValueError, match="running and flow"):
        flow_trials(catalog.load("circuits", "linear_nonlinear"), 2)
