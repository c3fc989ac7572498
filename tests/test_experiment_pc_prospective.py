"""Prospective configuration at tiny size, and its toys and alignment against closed forms."""

from __future__ import annotations

import csv
from dataclasses import replace

import numpy as np
import pytest
import xarray as xr

from pcsim import catalog
from pcsim.deep.pc_alignment import output_path, target_alignment
from pcsim.deep.pc_comparison import Change, Networks
from pcsim.deep.pc_lessons import Images, alternating, drifting, repeated
from pcsim.deep.pc_replicas import Settling
from pcsim.experiment import run_experiment
from pcsim.experiment_pairs import Pairing, pair_row

LONG = Settling(n_steps=4000, step=0.1)
TINY = {
    "n_test": 10, "continual_rounds": 1, "continual_per_class": 1, "batch_sizes": (1,),
    "batch_epochs": 1, "batches": 2, "drift_epochs": 1, "drift_per_class": 1,
    "pretraining_epochs": 1,
    "small_per_class": (1,), "small_epochs": 1, "depths": (1, 2), "depth_epochs": 1,
    "depth_per_class": 1, "aligned_depths": (1, 3), "n_aligned": 2,
}  # fmt: skip


@pytest.fixture
def images(rng):
    x = rng.random((60, 6)).astype(np.float32)
    label = np.arange(60) % 4
    return Images(x, label, x[:20], label[:20])


def test_first_lesson_of_the_diagonal_toy_by_hand():
    """x = 1, hidden weights 0, output weights 1 and 2, fixed, target 1 and 1.

    At equilibrium the hidden error is d (y - d w) / (1 + d^2), so that a lesson at rate r moves the
    outputs by r d^2 / (1 + d^2) = r (.5, .8); backpropagation moves them by r d^2 = r (1, 4).
    """
    weights = [np.zeros((2, 1), np.float32), np.diag([1.0, 2.0]).astype(np.float32)]
    how = {"x": (1.0,), "y": (1.0, 1.0), "rate": 0.1, "n_lessons": 1, "fixed": (1,)}
    pc = output_path(weights, Change(settling=LONG), **how)
    bp = output_path(weights, Change(rule="bp"), **how)
    np.testing.assert_allclose(pc[1], [0.05, 0.08], rtol=1e-5)
    np.testing.assert_allclose(bp[1], [0.1, 0.4], rtol=1e-5)


def test_first_lesson_of_the_forked_toy_by_hand():
    """Weights 1, target 0 and 1: h solves (1 + 2) h = 1 + 0 + 1, so that h = 2/3.

    Errors are -1/3 below and (-2/3, 1/3) above, and what enters the outputs is h.
    """
    weights = [np.ones((1, 1), np.float32), np.ones((2, 1), np.float32)]
    how = {"x": (1.0,), "y": (0.0, 1.0), "rate": 0.2, "n_lessons": 1}
    pc = output_path(weights, Change(settling=LONG), **how)
    w = 1 - 0.2 / 3
    expected = [w * (1 - 0.2 * 4 / 9), w * (1 + 0.2 * 2 / 9)]
    np.testing.assert_allclose(pc[1], expected, rtol=1e-5)
    bp = output_path(weights, Change(rule="bp"), **how)
    np.testing.assert_allclose(bp[1], [0.8 * 0.8, 0.8], rtol=1e-6)
    assert abs(pc[1, 1] - 1) < abs(bp[1, 1] - 1)


def test_alignment_of_a_linear_network_is_that_of_its_equilibrium(rng):
    """Output W2 W1 x. With A = I + W2 W2^T the errors are A^-1 e above and W2^T A^-1 e below."""
    networks = Networks(sizes=(7, 5, 4), seeds=(2, 3), rates=(1e-3,), activation="linear")
    x, y = (rng.normal(size=(2, 1, n)).astype(np.float32) for n in (7, 4))
    found = target_alignment(networks, Change(settling=LONG), x, y)
    net, _ = networks.build()
    for k in range(2):
        w1, w2 = (w[k].double().numpy() for w in net.weights)
        p, h0 = w2 @ w1 @ x[k, 0], w1 @ x[k, 0]
        e2 = np.linalg.solve(np.eye(4) + w2 @ w2.T, y[k, 0] - p)
        e1 = w2.T @ e2
        v1, v2 = w1 + 1e-3 * np.outer(e1, x[k, 0]), w2 + 1e-3 * np.outer(e2, h0 + e1)
        moved, missing = v2 @ v1 @ x[k, 0] - p, y[k, 0] - p
        expected = moved @ missing / np.linalg.norm(moved) / np.linalg.norm(missing)
        assert found[k, 0] == pytest.approx(expected, abs=1e-3)


def test_without_hidden_layers_both_rules_point_at_the_target(rng):
    networks = Networks(sizes=(7, 4), seeds=(0,), rates=(1e-2,), activation="linear")
    x, y = (rng.normal(size=(1, 1, n)).astype(np.float32) for n in (7, 4))
    for rule in ("pc", "bp"):
        assert target_alignment(networks, Change(rule=rule), x, y) == pytest.approx(1.0, abs=1e-5)


def test_tasks_divide_the_classes_and_share_the_outputs(images):
    seen = {0: set(), 1: set()}
    course = alternating(images, (0, 1), per_class=3, batch=4, n_rounds=2, n_epochs=1)
    lookup = {row.tobytes(): k for row, k in zip(images.x, images.label, strict=True)}
    answers = {}
    for number, lesson in enumerate(course):
        task = number // 2 % 2
        assert lesson.y.shape[2] == 2
        for row, y in zip(lesson.x[0], lesson.y[0], strict=True):
            label = lookup[row.tobytes()]
            seen[task].add(label)
            assert answers.setdefault(label, int(y.argmax())) == y.argmax()
    assert seen[0].isdisjoint(seen[1])
    assert seen[0] | seen[1] == {0, 1, 2, 3}
    for task in (0, 1):
        assert {answers[label] for label in seen[task]} == {0, 1}


def test_drift_moves_the_outputs_of_the_second_half_alone(images):
    course = list(drifting(images, (0,), per_class=2, batch=8, n_epochs=9, interval=1))
    answers = np.array([lesson.tests[0][1][0][:4] for lesson in course])
    assert (answers[:, :2] == [0, 1]).all()
    assert {tuple(row) for row in answers[:, 2:]} == {(2, 3), (3, 2)}


def test_an_epoch_shows_every_image_once_and_is_tested_once(images):
    course = list(repeated(images, (0, 1), per_class=5, batch=8, n_epochs=2))
    assert [len(lesson.tests) for lesson in course] == [0, 0, 1] * 2
    shown = np.concatenate([lesson.x[1] for lesson in course[:3]])
    assert len(np.unique(shown, axis=0)) == 20
    with pytest.raises(ValueError, match="16 images of class 0, expected at most 15"):
        next(repeated(images, (0,), per_class=16, batch=8, n_epochs=1))


def test_a_row_says_whether_the_interval_leaves_out_zero():
    better, worse = np.array([0.1, 0.2, 0.1]), np.array([0.4, 0.5, 0.5])
    pair = Pairing(better, worse, 0.1, 0.2, edge="bp")
    assert pair_row("s", "1", "q", pair, "PC lower").endswith("3,0.1,0.2,bp,PC lower,yes")
    swapped = Pairing(worse, better, 0.1, 0.2)
    assert pair_row("s", "1", "q", swapped, "PC lower").endswith("no")
    assert pair_row("s", "1", "q", replace(pair, bp=better), "equal").endswith("yes")


@pytest.fixture
def fake(monkeypatch, images):
    """Let the experiment learn little random images instead of Fashion-MNIST."""
    rng = np.random.default_rng(0)
    x, label = rng.random((200, 784)).astype(np.float32), np.arange(200) % 10
    made = Images(x, label, x[:20], label[:20])
    catalog.load("experiments", "prospective_configuration")
    module = __import__("pcsim.experiments.prospective_configuration", fromlist=["x"])
    monkeypatch.setattr(module, "load_images", lambda name, n_test: made)
    short = {study: Settling(n_steps=2, discount=0.5) for study in module.SETTLING}
    monkeypatch.setattr(module, "SETTLING", short)
    return module.EXPERIMENT


def test_a_tiny_run_has_its_columns_and_resumes(fake, tmp_path):
    run = run_experiment(fake, seeds=2, settings=TINY, out=tmp_path / "run", workers=0)
    with (run.folder / "table.csv").open() as file:
        rows = list(csv.DictReader(file))
    studies = {"continual", "batch size", "drift", "small data", "depth", "alignment", "toy"}
    assert {row["study"] for row in rows} == studies
    first = next(row for row in rows if (row["study"], row["condition"]) == ("depth", "1"))
    assert (first["gain"], first["holds"]) == ("0", "yes")
    with (run.folder / "search.csv").open() as file:
        chosen = [row for row in csv.DictReader(file) if row["chosen"] == "1"]
    assert len(chosen) == 2 * len([row for row in rows if row["quantity"] == "mean test error"])
    with xr.open_dataset(run.folder / "comparison.nc", engine="h5netcdf") as saved:
        assert saved.sizes["row"] == len(rows) - 1
    before = {path: path.stat().st_mtime_ns for path in run.folder.rglob("result.nc")}
    run_experiment(fake, seeds=2, settings=TINY, out=tmp_path / "run", workers=0)
    assert before == {path: path.stat().st_mtime_ns for path in run.folder.rglob("result.nc")}
