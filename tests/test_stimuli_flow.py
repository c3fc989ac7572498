"""Running and optic flow: what couples them, what halts, and the statistics of running."""

from __future__ import annotations

import numpy as np
import pytest

from pcsim.stimuli import optic_flow, running_speed


def split(stimulus):
    values = stimulus.values
    return values[..., 0], values[..., 1:]


def test_running_has_the_moments_of_its_process(rng):
    speed = running_speed(
        4000, 60, frame_duration=0.1, mean=0.7, spread=0.1, tau=0.4, rng=rng
    )  # 7 standard deviations above the cut
    assert speed.mean() == pytest.approx(0.7, abs=4 * 0.1 / np.sqrt(4000))
    assert speed.std() == pytest.approx(0.1, rel=0.02)
    now, later = speed[:, 20] - 0.7, speed[:, 24] - 0.7
    lag = (now * later).mean() / 0.1**2
    assert lag == pytest.approx(np.exp(-1.0), abs=4 / np.sqrt(4000))
    assert speed[:, 0].std() == pytest.approx(0.1, abs=0.005)


def test_running_stops_at_zero(rng):
    speed = running_speed(2000, 3, frame_duration=0.05, rng=rng)
    assert speed.min() == 0
    # Mean and spread are equal: a sixth (0.159) of the time lies below 0.
    assert (speed == 0).mean() == pytest.approx(0.159, abs=4 * np.sqrt(0.16 * 0.84 / 2000))


def test_coupled_flow_is_gain_times_running_plus_what_moves_by_itself():
    running, flow = split(optic_flow(5, gain=0.7, n_locations=3, seed=4))
    np.testing.assert_allclose(flow, np.repeat(0.7 * running[..., None], 3, axis=-1), rtol=1e-12)
    _, moved = split(optic_flow(40, gain=0.7, n_locations=3, external=0.04, seed=4, duration=10.0))
    still, _ = split(optic_flow(40, gain=0.7, n_locations=3, seed=4, duration=10.0))
    added = moved - 0.7 * still[..., None]
    assert added.std() == pytest.approx(0.04, rel=0.1)
    assert abs(np.corrcoef(added[..., 0].ravel(), added[..., 1].ravel())[0, 1]) < 0.2


@pytest.mark.parametrize("condition", ["uncoupled", "replay"])
def test_open_loop_flow_does_not_follow_running(condition):
    running, flow = split(optic_flow(60, condition=condition, duration=20.0, frame_duration=0.1))
    # 60 trials of 20 s at a correlation time of 1 s are about 600 independent pairs.
    assert abs(np.corrcoef(running.ravel(), flow[..., 0].ravel())[0, 1]) < 4 / np.sqrt(600)
    assert flow.mean() == pytest.approx(running.mean(), rel=0.15)


def test_replay_shows_the_flow_of_the_trial_before():
    running, flow = split(optic_flow(5, condition="replay", gain=0.7))
    np.testing.assert_allclose(flow[1:, :, 0], 0.7 * running[:-1], rtol=1e-12)


def test_mismatch_halts_the_flow_while_the_animal_runs():
    stimulus = optic_flow(30, condition="mismatch", external=0.02, onset=1.4, halt=0.8, seed=1)
    running, flow = split(stimulus)
    time = stimulus.time.values
    halted = (time > 1.39) & (time < 2.19)
    assert (flow[:, halted] == 0).all()
    assert (flow[:, ~halted] != 0).any(axis=-1).mean() > 0.9
    assert running[:, halted].min() >= 0.02
    assert stimulus.onset.values.tolist() == [1.4] * 30


def test_flow_starts_while_the_animal_stands():
    running, flow = split(optic_flow(2, condition="flow_onset", onset=1.0, gain=0.7))
    assert (running == 0).all()
    assert flow[:, :50].max() == 0
    np.testing.assert_allclose(flow[:, 50:], 0.07)


def test_the_seed_makes_the_trials():
    one, same, other = (optic_flow(3, condition="mismatch", seed=seed) for seed in (2, 2, 3))
    assert one.identical(same)
    assert not np.array_equal(one.values, other.values)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"condition": "couple"}, "Did you mean 'coupled'"),
        ({"condition": "mismatch", "onset": 3.5}, "Lengthen the trials"),
        ({"condition": "mismatch", "duration": 400.0, "halt": 200.0, "frame_duration": 1.0},
         "Lower halt"),
        ({"external": -0.1}, "external"),
        ({"n_locations": 0}, "n_locations"),
        ({"duration": 0.03}, "whole number of frames"),
    ],
)  # fmt: skip
def test_bad_parameters_are_refused(changes, words, refused):
    assert words in refused(optic_flow, 2, **changes)
