"""The experiments on amortization: what they compare is equal but for the inference."""

from __future__ import annotations

import csv
import dataclasses
import math

import numpy as np
import pytest
import torch

from pcsim import data
from pcsim.catalog import load
from pcsim.deep.arm_training import restored
from pcsim.deep.arms import Arm
from pcsim.experiment import collect_run, open_run, run_experiment
from pcsim.storage import read_json

EXPERIMENT = load("experiments", "iterative_inference_mnist")
GAP = load("experiments", "amortization_gap_2d")


@pytest.fixture
def digits(rng, monkeypatch):
    """Two kinds of image instead of MNIST, so that no download is needed."""
    kinds = rng.integers(0, 256, size=(2, 28, 28))
    images = kinds[rng.integers(0, 2, size=300)].astype(np.uint8)

    class Images:
        def __getitem__(self, name):
            return self

        def to_numpy(self):
            return images

    monkeypatch.setattr(data, "load", lambda name, *, split="train": Images())


@pytest.mark.parametrize("scale", EXPERIMENT.scales)
def test_arms_differ_in_their_inference_alone(scale):
    settings = {**EXPERIMENT.scales[scale], "seeds": (0, 1, 2)}
    pieces = {piece.key: piece for piece in EXPERIMENT.pieces(settings)}
    last = settings["parts"]
    for levels in (1, 2):
        for seed in (0, 1, 2):
            direct, iterative = (
                dict(pieces[f"levels/{levels}/{kind}/{seed}/{last}"].kwargs)
                for kind in ("direct", "iterative")
            )
            one, other = Arm(**direct.pop("arm")), Arm(**iterative.pop("arm"))
            assert direct == iterative  # samples, epochs, data, seed
            assert (one.inference, other.inference) == ("direct", "iterative")
            assert (one.n_z, one.widths, one.link) == (other.n_z, other.widths, other.link)


def test_each_number_of_levels_learns_by_its_own_settings():
    settings = {**EXPERIMENT.scales["full"], "seeds": (0,)}
    found = {}
    for piece in EXPERIMENT.pieces(settings):
        if piece.key != "race":
            arm, training = piece.kwargs["arm"], piece.kwargs["training"]
            own = (
                training["batch_size"], training["learning_rate"], arm.get("normalization"),
            )  # fmt: skip
            found.setdefault(len(arm["n_z"]), set()).add(own)
    # The released configuration of two levels: batch normalization, 256 images, 2e-4.
    assert found == {1: {(64, 5e-4, None)}, 2: {(256, 2e-4, "batch")}}


def test_controls_have_the_seeds_and_levels_that_are_asked_for():
    keys = {
        piece.key for piece in EXPERIMENT.pieces({**EXPERIMENT.scales["quick"], "seeds": (5, 6)})
    }
    found = sorted(key for key in keys if key.startswith("controls"))
    assert found == ["controls/1/direct_equal_compute/5/1", "controls/1/direct_normalised/5/1"]


def test_parts_follow_one_another():
    settings = {**EXPERIMENT.scales["full"], "seeds": (0,)}
    pieces = EXPERIMENT.pieces(settings)
    chain = [piece for piece in pieces if piece.key.startswith("levels/1/direct/0/")]
    assert [piece.needs for piece in chain[:3]] == [
        (), ("levels/1/direct/0/1",), ("levels/1/direct/0/2",),
    ]  # fmt: skip


def test_a_small_run_in_parts_leaves_its_tables_and_figure(digits, tmp_path):
    changes = {
        "parts": 2, "n_epochs": 2, "minor_epochs": 2, "n_train": 64, "minor_train": 64,
        "n_test": 12, "n_importance": 8, "n_gap": 0, "iterations": (2,), "samples": (1,),
        "n_raced": 3, "control_seeds": 2, "control_levels": (1, 2), "n_z": (3, 2),
        "widths": ((6,), (5,)), "encodings": ("gradient, x", "error"),
        "normalization": (None, "batch"), "batch_size": (64, 32),
    }  # fmt: skip
    run = run_experiment(
        EXPERIMENT, seeds=2, settings=changes, out=tmp_path / "run", workers=0
    )  # fmt: skip
    paired = (run.folder / "paired.csv").read_text().splitlines()
    assert paired[1].endswith("84.140,83.840,0.300")
    assert paired[7].endswith("82.630,82.457,0.173")
    arms = {tuple(row.split(",")[:2]) for row in paired[1:]}
    kinds = ("direct", "direct_normalised", "direct_equal_compute")
    assert arms == {(levels, kind) for levels in "12" for kind in kinds}
    results = read_json(run.folder / "results.json")
    first = np.array([-np.mean(one["log_likelihood"]) for one in results["levels/1/direct"]])
    other = np.array([-np.mean(one["log_likelihood"]) for one in results["levels/1/iterative"]])
    middle, low, high = map(float, paired[1].split(",")[5:8])
    difference = first - other
    assert middle == pytest.approx(difference.mean(), abs=1e-3)
    # Student's 97.5 % point with one degree of freedom is 12.7062.
    half = 12.7062 * difference.std(ddof=1) / math.sqrt(2)
    assert [low, high] == pytest.approx([middle - half, middle + half], abs=2e-3)
    assert len(results["levels/1/direct"][0]["history"]) == 2
    assert len(results["controls/1/direct_equal_compute"][0]["history"]) == 6 * 2
    assert (run.folder / "figure.png").is_file()
    race = table(run.folder / "race.csv")
    rules = {row["lane"].split()[0] for row in race}
    ascents = {"gradient", "momentum", "adam", "rmsprop", "preconditioned"}
    assert rules == {"iterative", "direct", *ascents}
    assert [row["iteration"] for row in race if row["lane"] == "direct"] == ["0"]
    assert all(bool(row["step"]) == (" " in row["lane"]) for row in race)


def test_the_direct_network_of_the_race_leaves_the_decoder_as_it_is(digits, tmp_path):
    changes = {
        "n_train": 64, "minor_train": 64, "minor_epochs": 1, "n_test": 12, "n_importance": 8,
        "iterations": (2,), "n_raced": 2, "n_z": (3, 2), "widths": ((6,), (5,)),
        "encodings": ("gradient, x",), "n_gap": 0,
    }  # fmt: skip
    run = run_experiment(
        EXPERIMENT, seeds=1, settings=changes, out=tmp_path, workers=0, only="race"
    )
    arm = {"n_iterations": 2, "n_z": (3,), "widths": ((6,),)}
    one, _ = restored(arm, 784, run.piece("encodings/gradient+x/2/0/1"))
    direct = {**arm, "inference": "direct", "normalise_x": True}
    other, trained = restored(direct, 784, run.piece("race_direct"))
    for a, b in zip(one.parameters(), other.parameters(), strict=True):
        assert torch.equal(a, b)
    first = Arm(**direct).build(784, 0)[1]
    moved = [
        not torch.equal(a, b) for a, b in zip(first.parameters(), trained.parameters(), strict=True)
    ]
    assert any(moved)
    # What was not run is missing from the tables, and there is no figure yet.
    assert {row.split(",")[0] for row in (tmp_path / "arms.csv").read_text().splitlines()} == {
        "arm", "encodings/gradient+x/2",
    }  # fmt: skip
    assert (tmp_path / "race.csv").is_file()
    assert not (tmp_path / "figure.png").exists()


def test_tables_of_a_part_of_a_run(digits, tmp_path):
    changes = {
        "n_epochs": 1, "n_train": 64, "n_test": 12, "n_importance": 8, "n_gap": 0,
        "n_z": (3, 2), "widths": ((6,), (5,)),
    }  # fmt: skip
    run = run_experiment(
        EXPERIMENT, settings=changes, out=tmp_path / "run", workers=0, only="levels/1/*/0/*"
    )
    assert run.missing
    (row,) = [r for r in table(tmp_path / "run/paired.csv") if r["measure"] == "free_energy"]
    assert (row["levels"], row["n_seeds"], row["interval_over"], row["n_images"]) == (
        "1", "1", "images", "12",
    )  # fmt: skip
    first, second = (
        np.array(read_json(run.piece(f"levels/1/{kind}/0/1") / "result.json")["free_energy"])
        for kind in ("direct", "iterative")
    )
    each = first - second
    # Student's 97.5 % point with eleven degrees of freedom is 2.200985.
    half = 2.200985 * each.std(ddof=1) / math.sqrt(12)
    assert float(row["difference"]) == pytest.approx(each.mean(), abs=1e-3)
    assert float(row["high"]) - float(row["low"]) == pytest.approx(2 * half, abs=2e-3)
    # The same tables from the saved pieces alone, elsewhere.
    assert "arms.csv" in {path.name for path in (tmp_path / "run").iterdir()}
    collect_run(EXPERIMENT, open_run(tmp_path / "run"), tmp_path / "tables")
    for name in ("arms.csv", "paired.csv"):
        assert (tmp_path / "tables" / name).read_bytes() == (tmp_path / "run" / name).read_bytes()


def test_an_experiment_that_needs_all_its_pieces_refuses_a_part(digits, tmp_path):
    run = run_experiment(
        EXPERIMENT, settings={"n_epochs": 1, "n_train": 64, "n_test": 12, "n_importance": 8,
                              "n_gap": 0, "n_z": (3, 2), "widths": ((6,), (5,))},
        out=tmp_path, workers=0, only="levels/1/direct/0/*",
    )  # fmt: skip
    whole = dataclasses.replace(EXPERIMENT, gathers_parts=False)
    with pytest.raises(ValueError, match=r"pieces missing.*a whole run"):
        collect_run(whole, run)


def table(path):
    with path.open() as file:
        return list(csv.DictReader(file))


def test_gaps_are_counted_from_the_best_that_lanes_or_grid_found():
    found = {
        "lanes": {
            "a": {"trace": [[9.0, 3.0], [9.0, 4.0]]},
            "b": {"trace": [[9.0, 2.0], [9.0, 8.0]]},
        },
        "lowest": [2.5, 3.5],
    }
    gaps = GAP.pieces.__globals__["gaps_of"](found)
    np.testing.assert_allclose(gaps["a"], [1.0, 0.5])
    np.testing.assert_allclose(gaps["b"], [0.0, 4.5])


def test_a_small_run_in_two_latents(digits, tmp_path):
    changes = {
        "n_train": 64, "n_epochs": 1, "n_hidden": 6, "n_iterations": 2, "n_ascent": 5,
        "spacing": 1.0,
    }  # fmt: skip
    run = run_experiment(GAP, seeds=1, settings=changes, out=tmp_path / "run", workers=0)
    rows = (run.folder / "gaps.csv").read_text().splitlines()
    lanes = {row.split(",")[1] for row in rows[1:]}
    assert lanes == {"direct", "iterative", "gradient", "preconditioned"}
    found = read_json(run.folder / "results.json")["0"]
    # The start of inference is the prior's mean, the middle of the surface.
    middle = np.array(found["surface"])[:, 5, 5]
    starts = np.array(found["lanes"]["gradient"]["trace"])[:3, 0]
    np.testing.assert_allclose(middle, starts, atol=0.02)
    assert (run.folder / "figure.png").is_file()
