"""The experiments on amortized inference, on next to nothing: rules, tables and figures."""

from __future__ import annotations

import csv
import math

import numpy as np
import pytest
import xarray as xr

from pcsim import catalog, data
from pcsim.experiment import run_experiment
from pcsim.storage import read_json

TRAINING = {"n_epochs": 1, "learning_rate": 1e-3, "batch_size": 32}
TINY = {"n_z": (3,), "widths": ((8, 8),), "training": TRAINING}
WORDS = 12


def little(name, *, split="train"):
    """Data that look like the real ones: patches of light in images, or word counts."""
    rng = np.random.default_rng(len(name) + len(split))
    if name in ("newsgroups", "bbc_news"):
        topics = rng.dirichlet(np.full(WORDS, 0.3), 3)
        counts = np.array([rng.multinomial(20, topics[i % 3]) for i in range(60)])
        counts[0] = 0
        return xr.Dataset({"count": (("document", "word"), counts.astype(np.uint16))})
    image = np.zeros((80, 28, 28), np.uint8)
    for one, (y, x) in zip(image, rng.integers(4, 16, (80, 2)), strict=True):
        one[y : y + 8, x : x + 6] = 230
    return xr.Dataset({"image": (("sample", "y", "x"), image)})


@pytest.fixture(scope="module")
def run_tiny(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    patch = pytest.MonkeyPatch()
    patch.setattr(data, "load", little)

    def run(name, **settings):
        experiment = catalog.load("experiments", name)
        return run_experiment(
            experiment, seeds=1, settings={**TINY, **settings}, out=folder / name, workers=0
        )

    yield run
    patch.undo()


def content(name):
    """The module of an experiment, for its rules."""
    return catalog.load("experiments", name).pieces.__globals__


def table(run, name="table"):
    with (run.folder / f"{name}.csv").open() as file:
        return list(csv.DictReader(file))


def results(run):
    return read_json(run.folder / "results.json")


def axes(figure):
    return figure.findobj(lambda one: hasattr(one, "get_xlabel"))


def test_inference_iterations_tells_what_each_lane_needs(run_tiny):
    run = run_tiny(
        "inference_iterations",
        n_train=64,
        n_validation=2,
        n_test=3,
        n_iterations=4,
        n_samples=2,
        n_long=20,
    )
    rows = {(row["start"], row["inference"]): row for row in table(run)}
    assert len(rows) == 2 * 7
    # Both starts are judged against the same best; the warm one has less to close.
    assert float(rows["warm", "gradient"]["nats_to_close"]) < float(
        rows["cold", "gradient"]["nats_to_close"]
    )
    assert rows["cold", "iterative"]["steps"] == "-"
    assert {row["verdict"] for row in table(run, "verdicts")} == {"INCONCLUSIVE"}  # one seed
    with xr.open_dataset(run.folder / "summary.nc", engine="h5netcdf") as found:
        assert float(np.abs(found["share"].isel(iteration=0)).max()) == 0.0
    figure = catalog.load("experiments", "inference_iterations").figures(run)["figure"]
    labels = {ax.get_xlabel() for ax in axes(figure)}
    assert "Iteration $k$" in labels


@pytest.mark.parametrize(("rival", "damped", "own", "control", "expected"), [
    ((9, 12), (8, 20), (2, 3), (math.inf, math.inf), "SUPPORTED"),
    ((4, 6), (8, 20), (2, 3), (math.inf, math.inf), "REFUTED"),
    ((9, math.inf), (5, 6), (2, 3), (math.inf, math.inf), "REFUTED"),
    ((9, 12), (8, 20), (9, 20), (math.inf, math.inf), "REFUTED"),
    ((6, 12), (8, 20), (2, 3), (math.inf, math.inf), "INCONCLUSIVE"),
    ((9, 12), (4, 7), (2, 3), (math.inf, math.inf), "INCONCLUSIVE"),
    ((9, 12), (8, 20), (7, 9), (math.inf, math.inf), "INCONCLUSIVE"),
    ((9, 12), (8, 20), (2, 3), (5, 7), "NON-SPECIFIC"),
])  # fmt: skip
def test_verdict_on_iterations(rival, damped, own, control, expected):
    ends = np.array([rival, damped, own, control], float).T[..., None]
    lanes = ["preconditioned", "damped", "iterative", "untrained"]
    found = xr.Dataset(
        {"k95_ends": (("end", "lane", "start"), ends)}, coords={"lane": lanes, "start": ["cold"]}
    )
    verdict = content("inference_iterations")["verdict"]
    assert verdict(found, "cold", 3)[0] == expected
    assert verdict(found, "cold", 2)[0] == "INCONCLUSIVE"


def test_weight_transport_measures_every_network(run_tiny):
    run = run_tiny("weight_transport", n_train=64, n_test=4, draws=20)
    rows = table(run)
    assert len(rows) == 5 * 3 + 1
    for row in rows[:-1]:
        assert 0 < float(row["low"]) <= float(row["high"]) < 180
    figure = catalog.load("experiments", "weight_transport").figures(run)["figure"]
    assert "Angle of the average (degrees)" in {ax.get_xlabel() for ax in axes(figure)}


@pytest.mark.parametrize(("transpose", "difference", "control", "expected"), [
    ((50, 48, 52), (5, 3, 7), 88, "SUPPORTED"),
    ((79, 78, 80.5), (5, 3, 7), 88, "REFUTED"),
    ((50, 48, 52), (-5, -7, -3), 88, "QUALITATIVE"),
    ((70, 68, 72), (5, 3, 7), 88, "QUALITATIVE"),
    ((50, 48, 52), (1, -1, 3), 88, "INCONCLUSIVE"),
    ((50, 48, 52), (5, 3, 7), 51, "NON-SPECIFIC"),
])  # fmt: skip
def test_verdict_on_angles(transpose, difference, control, expected):
    summary = {
        "trained transpose": [*transpose],
        "shuffled transpose": [control, control, control],
        "untrained transpose": [90, 89, 91],
    }
    verdict = content("weight_transport")["verdict"]
    assert verdict(summary, list(difference), 3)[0] == expected


def test_intervals_of_angles_are_over_seeds_or_images_whichever_is_wider():
    bounded = content("weight_transport")["bounded"]
    draws = np.linspace(69.0, 71.0, 201)  # images move the angle by 1 and bias it by 2
    found = bounded([66.0, 68.0, 70.0], [draws] * 3)
    half = 4.302652729911275 * 2.0 / math.sqrt(3)
    np.testing.assert_allclose(found, [68.0, 68.0 - half, 68.0 + half], atol=1e-9)
    np.testing.assert_allclose(bounded([68.0] * 3, [draws] * 3), [68.0, 67.05, 68.95], atol=1e-9)
    np.testing.assert_allclose(bounded([68.0], [draws]), [68.0, 67.05, 68.95], atol=1e-9)


def test_apical_basal_keeps_streams_apart(run_tiny):
    sizes = {"n_z": (3, 2), "widths": ((8, 8), (4, 4)), "n_test": 6, "n_crossed": 4}
    run = run_tiny("apical_basal", n_train=64, n_importance=5, **sizes)
    rows = {(row["arm"], row["quantity"]): float(row["mean"]) for row in table(run)}
    assert rows["segregated", "share_interaction"] < 1e-10  # float32
    assert rows["unconstrained", "share_interaction"] > 1e-6
    assert rows["segregated", "n_weights"] < rows["unconstrained", "n_weights"]
    figure = catalog.load("experiments", "apical_basal").figures(run)["figure"]
    assert "Variance of the update (%)" in {ax.get_ylabel() for ax in axes(figure)}


@pytest.mark.parametrize(("values", "expected"), [
    ([0.1, 0.2, 0.3], "SUPPORTED"), ([4.0, 4.1, 4.2], "REFUTED"), ([1.0, 2.0, 3.0], "INCONCLUSIVE"),
    ([0.1, 0.2], "INCONCLUSIVE"),
])  # fmt: skip
def test_verdict_on_separation(values, expected):
    assert content("apical_basal")["verdict"](values)[0] == expected


def test_text_goes_on_in_parts_and_stands_beside_a_unigram(run_tiny, monkeypatch):
    module = content("iterative_inference_text")
    monkeypatch.setitem(module, "N_TEST_NEWS", 20)
    monkeypatch.setitem(module, "N_VALID_NEWS", 10)
    training = {**TRAINING, "n_epochs": 2}
    run = run_tiny("iterative_inference_text", n_importance=5, parts=2, training=training)
    rows = table(run)
    assert len(rows) == 2 * 2 * 3
    epochs = {arm: len(seeds[0]["history"]) for arm, seeds in results(run)["bbc_news"].items()}
    assert epochs == {"direct": 2, "direct-raw": 2, "direct-longer": 12, "iterative": 2}
    for row in rows:
        assert 1 < float(row["iterative"]) < 3 * WORDS
        assert 1 < float(row["unigram"]) < 3 * WORDS
        assert row["rcv1_direct"] in ("377.4", "323")
    figure = catalog.load("experiments", "iterative_inference_text").figures(run)["figure"]
    (gradients, *_) = (ax for ax in axes(figure) if "partial" in ax.get_ylabel())
    assert all(len(line.get_xdata()) == 2 for line in gradients.lines)  # an epoch a part


@pytest.mark.parametrize(("changed", "words"), [
    ({"widths": (8, 8)}, "widths (8, 8), expected one list of widths for each of 1 levels"),
    ({"widths": ((8, 8), (4,))}, "for each of 1 levels"), ({"n_test": 1}, "n_test 1, expected 2"),
    ({"training": {"batch_size": 64}}, "n_epochs and the other settings"),
])  # fmt: skip
def test_text_refuses_settings_that_every_piece_would_fail_on(changed, words, refused):
    experiment = catalog.load("experiments", "iterative_inference_text")
    settings = {**experiment.scales["quick"], "seeds": (0,), **changed}
    assert words in refused(experiment.pieces, settings)


def test_unigram_perplexity_of_even_counts_is_the_number_of_words(run_tiny):
    module = content("iterative_inference_text")
    even = np.full((3, WORDS), 4.0)
    assert module["unigram"](even, even[:1]) == pytest.approx(WORDS)
    parts = module["documents"]("bbc_news")
    assert {len(one) for one in parts.values()} == {59}  # the empty document is left out


def test_images_are_paired_by_seed_in_their_own_unit(run_tiny):
    run = run_tiny("iterative_inference_images", n_train=64, n_test=5, n_importance=5, levels=(1,))
    rows = table(run)
    assert [row["unit"] for row in rows] == ["bits/dim"] * 4 + ["nats"] * 4
    epochs = {arm: len(seeds[0]["history"]) for arm, seeds in results(run)["omniglot/1"].items()}
    assert epochs == {"direct": 1, "direct-longer": 6, "iterative": 1}
    assert [row["cifar10_direct"] for row in rows] == ["5.823"] + [""] * 7
    assert {row["ordering"] for row in rows} == {"undecided"}  # one seed has no interval
    for row in rows:
        difference = float(row["direct"]) - float(row["iterative"])
        assert float(row["difference"]) == pytest.approx(difference, abs=0.2)
    figure = catalog.load("experiments", "iterative_inference_images").figures(run)["figure"]
    assert "Inference iteration" in {ax.get_xlabel() for ax in axes(figure)}
