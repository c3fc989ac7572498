"""Local weight changes against backpropagation's: what the theory says, and a tiny run."""

from __future__ import annotations

import csv

import numpy as np
import pytest

from pcsim import catalog
from pcsim.data_arrays import one_hot
from pcsim.deep.pc_alignment import copies, random_feedback, update_directions
from pcsim.deep.pc_replicas import Replicas, make_replicas
from pcsim.experiment import run_experiment
from pcsim.stats import mean_interval


def networks(rng, *, n=1, activation="tanh", sizes=(6, 5, 5, 3)):
    net = make_replicas(sizes, [0], activation=activation)
    net = Replicas([one.double() for one in net.weights], [], activation)
    x, y = rng.normal(size=(4, sizes[0])), rng.normal(size=(4, sizes[-1]))
    return copies(net, x, y, n)


def test_the_first_slope_that_arrives_is_backpropagations(rng):
    net, x, y = networks(rng)
    found = update_directions(net, x, y, shares=[1.0], variances=[1.0], steps=[0, 1, 2])
    local = found.local[:, 0]
    assert np.isnan(local[0, :2]).all()
    assert np.isnan(local[1, 0])
    np.testing.assert_allclose([local[0, 2], local[1, 1], local[2, 0]], 1.0, atol=1e-12)
    np.testing.assert_allclose(found.backprop, 1.0, atol=1e-12)


def test_equal_as_the_variance_of_the_output_grows_not_as_the_error_shrinks(rng):
    net, x, y = networks(rng, n=4)
    found = update_directions(
        net, x, y, shares=[1.0, 1e-4, 1.0, 1.0], variances=[1.0, 1.0, 64.0, 4096.0], steps=[3000]
    )
    lost = 1 - found.local[0]
    assert (lost[1] > 1e-4).all()
    assert (lost[3] < 1e-5).all()
    assert (lost[3] < lost[2]).all()
    assert (lost[2] < lost[0]).all()


def test_the_angle_of_a_linear_network_at_equilibrium(rng):
    """One hidden layer, variance v: the output's error is (v I + W W^T)^-1 times the whole."""
    net, x, y = networks(rng, activation="linear", sizes=(6, 5, 3))
    w1, w2 = (one[0].numpy() for one in net.weights)
    inputs, missing = x[0].numpy(), y[0].numpy() - x[0].numpy() @ w1.T @ w2.T
    for variance in (0.7, 4.0):
        found = update_directions(
            net, x, y, shares=[1.0], variances=[variance], steps=[5000], step=0.05
        )
        error = missing @ np.linalg.inv(variance * np.eye(3) + w2 @ w2.T)
        ours, theirs = (error @ w2).T @ inputs, (missing @ w2).T @ inputs
        cosine = (ours * theirs).sum() / np.linalg.norm(ours) / np.linalg.norm(theirs)
        assert found.local[0, 0, 0] == pytest.approx(cosine, abs=1e-9)


def test_random_feedback_is_no_slope(rng):
    net, x, y = networks(rng)
    where = {"shares": [1.0], "variances": [1.0], "steps": [50]}
    found = update_directions(net, x, y, **where, feedback=random_feedback(net, 1))
    assert (found.backprop[0, :2] < 0.9).all()
    assert found.backprop[0, 2] == pytest.approx(1.0)


def test_student_interval_covers_what_it_says(rng):
    draws = rng.normal(3.0, 2.0, size=(4000, 4))
    found = [mean_interval(row) for row in draws]
    share = np.mean([one.low < 3.0 < one.high for one in found])
    assert abs(share - 0.95) < 4 * (0.95 * 0.05 / 4000) ** 0.5
    assert mean_interval([1.0]).high == float("inf")


def test_one_hot_refuses_a_class_too_many():
    with pytest.raises(ValueError, match="classes from 0 to 3, expected 0 to 2"):
        one_hot(np.array([0, 3]), 3)


def test_a_tiny_run_has_its_columns_and_resumes(monkeypatch, tmp_path):
    rng = np.random.default_rng(0)
    rows = rng.random((80, 784)).astype(np.float32), np.arange(80) % 10
    experiment = catalog.load("experiments", "local_learning")
    module = __import__("pcsim.experiments.local_learning", fromlist=["x"])
    monkeypatch.setattr(module, "labelled_rows", lambda name, split="train", n=None: rows)
    monkeypatch.setattr(module, "SIZES", (784, 8, 8, 10))
    monkeypatch.setattr(module, "STEPS", (0, 1, 4))
    settings = {"n_train": 80, "n_batches": 2, "n_test": 80}
    run = run_experiment(experiment, seeds=2, settings=settings, out=tmp_path / "run", workers=0)
    with (run.folder / "table.csv").open() as file:
        table = list(csv.DictReader(file))
    assert len(table) == 2 * 3 * 5 * 3
    assert {row["n_seeds"] for row in table} == {"2"}
    last = [row for row in table if (row["way"], row["layer"]) == ("feedback alignment", "3")]
    assert all(float(row["cosine"]) == pytest.approx(1.0) for row in last)
    before = {path: path.stat().st_mtime_ns for path in run.folder.rglob("result.nc")}
    run_experiment(experiment, seeds=2, settings=settings, out=tmp_path / "run", workers=0)
    assert before == {path: path.stat().st_mtime_ns for path in run.folder.rglob("result.nc")}
