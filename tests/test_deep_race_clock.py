"""The race against the clock: what is timed, which steps are chosen, what the table says."""

from __future__ import annotations

import csv

import numpy as np
import pytest

from pcsim.deep import race_clock
from pcsim.deep.arms import Arm, examples
from pcsim.deep.convergence import descent
from pcsim.deep.inference import Evaluation
from pcsim.deep.inference_gradient import GradientAscent
from pcsim.deep.posteriors import MeanField
from pcsim.deep.race_clock import Timed, chosen_steps, race_table, timed


class Ticker:
    """A clock that only goes when it is told to."""

    def __init__(self):
        self.time = 0.0

    def __call__(self):
        return self.time


class Slow:
    """Takes a second for each estimate but the first, which is the prior."""

    def __init__(self, clock):
        self.clock = clock

    def steps(self, model, x, evaluation, n_iterations=None):
        for iteration in range(n_iterations + 1):
            self.clock.time += float(iteration > 0)
            yield evaluation.at(model, x, MeanField.at_prior(model, len(x)))


@pytest.fixture
def parts(rng):
    x = examples(rng.integers(0, 256, size=(12, 9)), scale=255.0, binary_seed=1)
    model, inference = Arm(n_z=(4,), widths=((8,),), n_iterations=2).build(9, seed=0)
    return model, inference, x


def test_time_is_that_until_the_estimate_is_there(parts, monkeypatch):
    model, inference, x = parts
    clock, evaluate, judge = Ticker(), Evaluation.at, race_clock.elbo

    def slow_evaluation(self, *given):
        clock.time += 10.0
        return evaluate(self, *given)

    def slow_judge(*given, **named):
        clock.time += 1000.0
        return judge(*given, **named)

    monkeypatch.setattr(Evaluation, "at", slow_evaluation)
    monkeypatch.setattr(race_clock, "elbo", slow_judge)
    found = timed(Slow(clock), model, x, n_iterations=3, n_repeats=2, now=clock)
    assert found.of_examples.shape == (4, 12)
    # Estimates and the evaluations before them count; an estimate's own does not, nor judging.
    assert found.seconds.tolist() == [0.0, 11.0, 22.0, 33.0]
    run = timed(inference, model, x, n_iterations=4)
    assert run.free_energy.shape == run.seconds.shape == (5,)
    assert (np.diff(run.seconds) > 0).all()


def test_steps_are_the_best_of_the_grid_at_their_iteration(parts):
    model, _, x = parts
    grids = {"adam": (0.001, 0.1, 3.0), "gradient": (0.01, 0.05)}
    chosen = chosen_steps(model, x, grids, n_iterations=12, early=3)
    assert {one.rule for one in chosen} == set(grids)
    for one in chosen:
        curves = {
            step: descent(
                GradientAscent(optimiser=one.rule, step=step), model, x, n_iterations=12,
                n_judges=5,
            ).mean(1)[one.at_iteration]
            for step in grids[one.rule]
        }  # fmt: skip
        assert curves[one.step] == min(curves.values())
        assert one.at_edge == (one.step in (grids[one.rule][0], grids[one.rule][-1]))
        assert one.at_iteration in (3, 12)


def test_the_table_divides_nats_by_seconds():
    start = np.array([10.0, 12.0, 14.0])
    iterative = Timed(np.stack([start, start - [4.0, 5.0, 6.0]]), np.array([0.0, 0.5]))
    direct = Timed(start[None] - 3.0, np.array([0.1]))
    lost = Timed(np.stack([start, start * np.nan]), np.array([0.0, 0.2]))
    lanes = {"iterative": iterative, "direct": direct, "adam 1": lost}
    rows = list(csv.DictReader(race_table(lanes, {})))
    second = rows[1]
    assert float(second["gained"]) == 5.0
    assert float(second["nats_per_second"]) == 10.0
    # Student's 97.5 % point with two degrees of freedom is 4.30265; the deviation is 1.
    half = 4.30265 / np.sqrt(3)
    assert float(second["gained_high"]) == pytest.approx(5.0 + half, abs=1e-3)
    assert float(second["nats_per_second_low"]) == pytest.approx((5.0 - half) / 0.5, abs=1e-2)
    assert rows[0]["nats_per_second"] == ""
    assert float(rows[2]["nats_per_second"]) == pytest.approx(30.0)
    assert float(rows[2]["above_the_lowest"]) == pytest.approx(2.0)
    assert rows[4]["free_energy"] == ""
    assert {len(row) for row in rows} == {15}
    assert all(None not in row for row in rows)


def test_a_step_that_diverges_is_not_chosen(parts):
    model, _, x = parts
    (one, *_) = chosen_steps(model, x, {"gradient": (0.01, 1e12)}, n_iterations=3, early=3)
    assert one.step == 0.01
