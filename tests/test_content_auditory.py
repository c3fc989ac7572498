"""The auditory circuits against theory: depression, the delta rule, trials apart, both engines."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from pcsim import catalog
from pcsim.brian import run_brian
from pcsim.circuit import settle
from pcsim.stimuli import (
    ToneScale,
    markov_sequence,
    oddball_sequence,
    self_sound_sequence,
    tone_events,
)
from pcsim.stimulus import stimulus_array

MODEL = catalog.load("circuits", "auditory_hierarchy")
SELF = catalog.load("circuits", "self_generated_sound")


def of(responses, name):
    rate = responses["rate"].transpose("trial", "time", "unit").to_numpy()
    return rate[..., responses["name"].values == name]


def quiet(**fields):
    """Return a small circuit: three tones, no tuning, one delay of 0.1 s."""
    small = {"n_tones": 3, "tuning": 0.0, "n_levels": 1, "memory_spans": (0.1, 0.1, 0.1)}
    return replace(MODEL, **(small | fields))


def held(*rows):
    return stimulus_array(np.array(rows)[:, None, :], frame_duration=0.5)


def rest_without_prediction(x, model):
    """Return input and latent of every station: each passes x / (1 + u x tau), times K."""
    out = []
    for _ in range(model.n_levels):
        y = x / (1 + model.release * x * model.tau_recovery)
        x = model.gain * y
        out.append((y, x))
    return out


def test_adaptation_alone_rests_where_depletion_and_recovery_balance():
    model = quiet(n_levels=3, plasticity=0.0, release=4.0, tau_recovery=0.7, gain=0.9)
    x = np.array([[0.0, 0.4, 1.3], [0.7, 0.0, 2.0]])
    rest = settle(model, held(*x), tol=1e-11)
    for level, (y, latent) in enumerate(rest_without_prediction(x, model), start=1):
        np.testing.assert_allclose(of(rest, f"input_{level}")[:, 0], y, atol=1e-9)
        np.testing.assert_allclose(of(rest, f"error_pos_{level}")[:, 0], y, atol=1e-9)
        np.testing.assert_allclose(of(rest, f"latent_{level}")[:, 0], latent, atol=1e-9)
        assert (of(rest, f"prediction_{level}") == 0).all()


def test_held_tone_is_explained_up_to_what_is_forgotten():
    """All memory holds r; W = eta T e r and p = r W n r, so that e = y - eta T n r^2 e."""
    model = quiet(release=0.0, learning_rates=(0.7,), tau_forgetting=4.0, memory_spans=(0.3,))
    x = np.array([[0.8, 0.0, 0.0], [0.0, 0.4, 0.0]])
    rest = settle(model, held(*x), tol=1e-10, max_time=200.0)
    error = (of(rest, "error_pos_1") - of(rest, "error_neg_1"))[:, 0]
    latent = of(rest, "latent_1")[:, 0]
    gain = 0.7 * 4.0 * model.n_delays(1)
    np.testing.assert_allclose(error * (1 + gain * latent**2), x, atol=1e-7)
    np.testing.assert_allclose(latent, x - error + model.gain * error, atol=1e-7)
    np.testing.assert_allclose(of(rest, "prediction_1")[:, 0], x - error, atol=1e-7)


CHAIN = np.array([[0.1, 0.6, 0.3], [0.5, 0.2, 0.3], [0.2, 0.2, 0.6]])
SCALE = ToneScale(n_tones=3, tone_duration=0.05, interval=0.1)


def test_both_engines_take_the_same_steps_while_they_learn():
    model = quiet(n_levels=2, integrator="euler", dt=0.005, delay=0.005)
    sequence = markov_sequence(CHAIN, 4, seed=1, scale=SCALE)
    ours, theirs = model.run(sequence), run_brian(model, sequence)
    assert np.abs(of(ours, "synapse_1")).max() > 0.01
    np.testing.assert_allclose(theirs.rate.values, ours.rate.values, rtol=1e-9, atol=1e-12)


def test_both_engines_rest_alike_without_prediction():
    model = quiet(n_levels=2, plasticity=0.0, dt=0.005, delay=0.005, tau_recovery=0.1)
    x = np.array([[0.0, 0.4, 1.3]])
    stimulus = stimulus_array(x[:, None], frame_duration=1.0)
    expected = rest_without_prediction(x, model)[-1][0]
    for responses in (model.run(stimulus), run_brian(model, stimulus)):
        np.testing.assert_allclose(of(responses, "input_2")[:, -1], expected, atol=1e-3)


def shape_factor(model):
    """Return what a sure successor is predicted with: its own shape against the delayed memory.

    The rule correlates the error, one delay late, with memory, the tone low-passed: at rest
    w = <y(t - delta) m(t)> / <m(t - delta) m(t)>.
    """
    sounding = round(SCALE.tone_duration / model.dt)
    heard = np.append(np.ones(sounding), np.zeros(60))
    memory, level = np.zeros_like(heard), 0.0
    for step, x in enumerate(heard):
        memory[step] = level
        level += -np.expm1(-model.dt / model.tau) * (x - level)
    late = round(model.delay / model.dt)
    # Memory lies one tone back: the delay of the chain is the interval from tone to tone.
    return (heard[:-late] @ memory[late:]) / (memory[:-late] @ memory[late:])


def test_delta_rule_learns_the_conditional_expectation():
    """Before each use of a synapse its mean is the probability of what follows its source."""
    n_trials = 96
    model = quiet(release=0.0, gain=1.0, learning_rates=(2.5,), tau_forgetting=1e5, record_dt=0.1)
    chains = [markov_sequence(CHAIN, 400, seed=seed, scale=SCALE) for seed in range(n_trials)]
    stimulus = stimulus_array(np.concatenate([one.values for one in chains]), frame_duration=0.025)
    learned = model.weights(model.run(stimulus, record=["synapse_1"]), 1)[..., 0, :]
    tone = np.stack([tone_events(one).tone for one in chains])
    late = np.arange(400) >= 200
    for source, row in enumerate(CHAIN):
        used = (tone == source) & late
        found = np.stack(
            [w[use][:, :, source].mean(axis=0) for w, use in zip(learned, used, strict=True)]
        )
        found /= shape_factor(model)
        error = found.std(axis=0, ddof=1) / np.sqrt(n_trials)
        assert error.max() < 0.01
        np.testing.assert_array_less(np.abs(found.mean(axis=0) - row), 4 * error)


def test_prediction_of_a_sure_successor_leaves_little_error():
    cycle = np.roll(np.eye(3), 1, axis=1)
    model = quiet(release=0.0, gain=1.0, learning_rates=(8.0,), record_dt=0.0125)
    sequence = markov_sequence(cycle, 90, seed=1, scale=SCALE)
    responses = model.run(sequence, record=["error_pos_1", "synapse_1"])
    error = of(responses, "error_pos_1")[0].reshape(90, -1).mean(axis=1)
    assert error[-30:].mean() < 0.35 * error[0]
    weights = model.weights(responses, 1)[0, -1, :, 0]
    assert (weights.argmax(axis=0) == cycle.argmax(axis=1)).all()


def test_every_trial_learns_on_its_own():
    one = oddball_sequence(12, seed=1)
    two = oddball_sequence(12, standard=7, deviant=2, seed=5)
    both = stimulus_array(np.concatenate([one.values, two.values]), frame_duration=0.025)
    record = ["error_pos_1", "error_neg_3", "synapse_3"]
    together = MODEL.run(both, record=record)["rate"].values
    for trial, sequence in enumerate((one, two)):
        alone = MODEL.run(sequence, record=record)["rate"].values[0]
        np.testing.assert_allclose(together[trial], alone, rtol=1e-9, atol=1e-12)


def test_error_is_observed_minus_predicted():
    responses = MODEL.run(oddball_sequence(12, seed=1), record=None)
    for level in (1, 2, 3):
        difference = of(responses, f"error_pos_{level}") - of(responses, f"error_neg_{level}")
        compared = of(responses, f"input_{level}") - of(responses, f"prediction_{level}")
        np.testing.assert_allclose(difference, compared, atol=1e-12)
        assert of(responses, f"prediction_{level}").max() > 0.01


def test_lesions_do_what_they_say():
    sequence = oddball_sequence(12, seed=1)
    record = ["error_pos_1", "error_neg_1"]
    cut = replace(MODEL, feedback_gain=0.0).run(sequence, record=record)["rate"].values
    one = replace(MODEL, n_levels=1).run(sequence, record=record)["rate"].values
    whole = MODEL.run(sequence, record=record)["rate"].values
    np.testing.assert_allclose(cut, one, atol=1e-12)
    assert np.abs(whole - one).max() > 0.01
    fixed = replace(MODEL, plasticity=0.0).run(sequence)
    assert (of(fixed, "synapse_3") == 0).all()
    assert (of(fixed, "error_neg_1") == 0).all()


def test_half_the_step_changes_errors_little():
    sequence = oddball_sequence(20, seed=2)
    fields = {"record_dt": 0.25, "plasticity": 0.0}
    coarse, fine = (
        replace(MODEL, dt=dt, **fields).run(sequence, record=["latent_3"])["rate"].values
        for dt in (0.0125, 0.00625)
    )
    assert np.abs(coarse - fine).max() < 0.05 * np.abs(fine).max() + 1e-3


def test_self_generated_sound_rests_at_its_closed_form():
    """Held, each of K synapses is eta T g e, and the prediction g K times that."""
    model = replace(SELF, feedback_gain=0.7, learning_rate=0.4, tau_forgetting=2.0, memory_span=0.1)
    stimulus = held([1.0, 0.0, 0.0, 0.9, 0.0, 0.0], [0.0, 0.0, 0.0, 0.9, 0.0, 0.0])
    rest = settle(model, stimulus, tol=1e-10, max_time=100.0)
    error = of(rest, "error_pos")[:, 0, 2]
    expected = 0.9 / np.array([1 + 0.7**2 * 0.4 * 2.0 * 4, 1.0])
    np.testing.assert_allclose(error, expected, rtol=1e-7)


def test_self_generated_sound_takes_the_same_steps_in_both_engines():
    model = replace(SELF, integrator="euler")
    sequence = self_sound_sequence(2, n_probes=1, seed=3).isel(time=slice(0, 40))
    ours, theirs = model.run(sequence), run_brian(model, sequence)
    np.testing.assert_allclose(theirs.rate.values, ours.rate.values, rtol=1e-9, atol=1e-12)


def answers(model, *, coupled):
    sequence = self_sound_sequence(40, n_probes=3, coupled=coupled, seed=1)
    rate = model.run(sequence, record=["error_pos", "error_neg"])["rate"].values[0]
    events = tone_events(sequence)
    first = np.rint(events.onset / model.dt).astype(int)
    halves = rate.reshape(len(rate), 2, -1).sum(axis=2)
    mean = np.stack([halves[one : one + 6].mean(axis=0) for one in first])
    return {role: mean[events.role == role].mean(axis=0) for role in np.unique(events.role)}


def test_only_the_expected_sound_of_a_movement_is_suppressed():
    found = answers(SELF, coupled=True)
    heard = found["passive"][0]
    assert found["self"][0] < 0.5 * heard
    assert found["deviant"][0] > 0.8 * heard
    assert found["late"][0] > 0.8 * heard
    assert found["silent"][1] > 0.5 * heard
    assert found["passive"][1] < 1e-9


@pytest.mark.parametrize("lesion", [{"feedback_gain": 0.0}, {}])
def test_nothing_is_suppressed_without_coupling(lesion):
    found = answers(replace(SELF, **lesion), coupled=bool(lesion))
    assert found["self"][0] > 0.7 * found["passive"][0]
