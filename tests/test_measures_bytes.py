"""The reference numbers of the battery, from the files they come from, through the public measures.

Skipped where PCSIM_DATA does not name the folder with the recordings.
"""

from __future__ import annotations

import csv
import os
from pathlib import Path

import h5py
import numpy as np
import pytest
import scipy.io

from pcsim.measures import (
    bootstrap_rsa,
    compare_rdms,
    noise_ceiling,
    noise_correlation_matrix,
    rdm_matrix,
    rdm_vector,
    resample_indices,
    transience_index,
)
from pcsim.responses import make_responses
from pcsim.stats import interval

DATA = Path(os.environ.get("PCSIM_DATA", "no data"))


def folder(name):
    path = DATA / name
    if not path.is_dir():
        pytest.skip(f"no {name} in PCSIM_DATA")
    return path


@pytest.fixture(scope="module")
def rdms():
    """Return the dissimilarities of the 92 images: brain, and by name the models."""
    path = folder("rsa_92images")
    brain = scipy.io.loadmat(path / "92_brainRDMs.mat")["RDMs"].ravel()
    models = scipy.io.loadmat(path / "92_modelRDMs.mat")["Models"].ravel()
    named = {str(m["name"].item()): vector(m["RDM"]) for m in models}
    figure = scipy.io.loadmat(path / "Kriegeskorte_Neuron2008_supplementalData.mat")
    monkey, human = (r["RDM"].ravel() for r in figure["RDMs_mIT_hIT_fig1"].ravel())
    return {"brain": np.stack([vector(r["RDM"]) for r in brain]), "models": named} | {
        "monkey": monkey.astype(float),
        "human": human.astype(float),
    }


def vector(matrix):
    matrix = matrix.astype(float)
    return rdm_vector(0.5 * (matrix + matrix.T))


def test_monkey_and_human_it(rdms):
    indices = resample_indices(92, 10_000)
    result = bootstrap_rsa(rdms["monkey"], rdms["human"], stimuli=indices)
    assert result.estimate.item() == pytest.approx(0.491, abs=5e-4)
    # The draws are those of rsatoolbox, which leaves out the distance of an image to its copy; how
    # the battery resampled is not written down, and its upper end is 0.01 above this one.
    low, high = interval(result.draws[:, 0], result.estimate.item())
    assert (low, high) == pytest.approx((0.393, 0.587), abs=0.012)


def test_shuffled_images_correlate_with_nothing(rdms, rng):
    matrix = rdm_matrix(rdms["monkey"])
    orders = [rng.permutation(92) for _ in range(1000)]
    shuffled = np.stack([rdm_vector(matrix[np.ix_(order, order)]) for order in orders])
    null = compare_rdms(rdms["human"], shuffled)[0]
    # 1,000 draws place the ends of the interval within 0.006.
    assert interval(null, null.mean()) == pytest.approx((-0.033, 0.040), abs=0.006)


def test_models_against_human_it(rdms):
    expected = {
        "animacy": 0.577,
        "FaceBodyManmadeNatobj": 0.418,
        "HMAX": 0.216,
        "Silhouette": 0.162,
        "V1": 0.042,
    }
    mean = rdms["brain"].mean(axis=0)
    for name, r in expected.items():
        found = compare_rdms(rdms["models"][name], mean).item()
        assert found == pytest.approx(r, abs=6e-4), name


def test_ceiling_of_eight_sessions(rdms):
    brain = rdms["brain"]
    assert len(brain) == 8
    pairwise = compare_rdms(brain, brain)[np.triu_indices(8, 1)]
    assert pairwise.mean() == pytest.approx(0.19, abs=0.005)
    lower, upper = noise_ceiling(brain)
    # "About 0.29-0.56": the lower bound is higher if one session is left out and not both.
    assert (lower, upper) == pytest.approx((0.29, 0.56), abs=0.06)


@pytest.fixture(scope="module")
def populations():
    """Return by name spike counts (repeat, unit, frame, movie, kind, zoom) and PSTHs of nine."""
    found = {}
    for path in sorted(folder("v1_macaque_henaff2021").glob("*_image_sequences.mat")):
        with h5py.File(path) as file:
            group = file["naturalStruct"]
            # The third kind is a contrast series, which most movies lack.
            counts = group["sortedResponses"][..., :2, :]
            psth = group["psth_population"][..., :2, :]
            found[path.stem] = (counts, psth, group["psth_edges"][:].ravel())
    assert len(found) == 9
    return found


def test_noise_correlation_of_macaque_v1(populations):
    means, against_signal = [], []
    for counts, _, _ in populations.values():
        n_repeats, n_units = counts.shape[:2]
        frames = np.moveaxis(counts, 1, -1).reshape(n_repeats, -1, n_units)
        condition = np.tile(np.arange(frames.shape[1]), n_repeats)
        matrix = noise_correlation_matrix(frames.reshape(-1, n_units), condition)
        pairs = np.triu_indices(n_units, 1)
        signal = np.corrcoef(np.nanmean(frames, axis=0).T)
        means.append(np.nanmean(matrix[pairs]))
        against_signal.append(np.corrcoef(matrix[pairs], signal[pairs])[0, 1])
    assert np.mean(means) == pytest.approx(0.191, abs=0.002)
    assert (min(means), max(means)) == pytest.approx((0.078, 0.354), abs=0.002)
    assert np.mean(against_signal) == pytest.approx(0.51, abs=0.02)
    assert np.std(against_signal, ddof=1) == pytest.approx(0.18, abs=0.01)


def test_transience_of_macaque_v1(populations):
    index = []
    for _, psth, time in populations.values():
        mean = psth.mean(axis=(2, 3, 4))
        evoked = mean - mean[time < -1e-9].mean(axis=0)
        responsive = evoked[(time > 0.029) & (time < 0.121)].max(axis=0) > 5.0
        units = {"population": "output", "level": 1}
        responses = make_responses(
            mean[None][:, :, responsive], time=time, units=units, trial={"condition": ["frame"]}
        )
        before = slice(None, -0.01)
        index.append(transience_index(responses, rectify="none", baseline=before).values.ravel())
    every = np.concatenate(index)
    # Which 176 units the battery took is not written down; above 5 spikes/s are 174.
    assert every.size == pytest.approx(176, abs=3)
    assert np.median(every) == pytest.approx(0.65, abs=0.01)
    assert np.quantile(every, [0.25, 0.75]) == pytest.approx([0.44, 1.0], abs=0.05)


def test_published_curvature_of_macaque_v1():
    path = folder("v1_macaque_henaff2021") / "curvature_235x.csv"
    with path.open(encoding="utf-8-sig") as lines:
        rows = list(csv.DictReader(lines))
    assert len(rows) == 720
    change = {(row["Dataset"], row["sequence type"]): [] for row in rows}
    for row in rows:
        key = (row["Dataset"], row["sequence type"])
        change[key].append(float(row["Delta Curvature: neural"]))
    names = sorted({name for name, _ in change})
    natural, unnatural = (
        np.array([np.mean(change[name, kind]) for name in names]) for kind in "12"
    )
    assert natural.mean() == pytest.approx(0.0, abs=0.05)
    assert unnatural.mean() == pytest.approx(77.6, abs=0.05)
    assert (natural < unnatural).sum() == 9
    draws = (natural - unnatural)[resample_indices(9, 10_000)].mean(axis=1)
    low, high = interval(draws, (natural - unnatural).mean())
    assert (low, high) == pytest.approx((-90.0, -66.1), abs=0.5)
