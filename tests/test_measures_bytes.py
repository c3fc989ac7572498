"""The reference numbers of the battery, from the files they come from, through the public measures.

Skipped where PCSIM_DATA does not name the folder with the recordings.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import scipy.io

from pcsim.measures import bootstrap_rsa, compare_rdms, noise_ceiling, rdm_vector, resample_indices
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
    # 10,000 draws place the ends of the interval within 0.005.
    low, high = interval(result.draws[:, 0], result.estimate.item())
    assert (low, high) == pytest.approx((0.393, 0.587), abs=0.005)


def test_models_against_human_it(rdms):
    expected = {"animacy": 0.577, "HMAX": 0.216, "silhouette": 0.162}
    mean = rdms["brain"].mean(axis=0)
    names = {k.lower(): k for k in rdms["models"]}
    for name, r in expected.items():
        key = next(full for low, full in names.items() if name.lower() in low)
        assert compare_rdms(rdms["models"][key], mean).item() == pytest.approx(r, abs=6e-4), key


def test_ceiling_of_eight_sessions(rdms):
    brain = rdms["brain"]
    assert len(brain) == 8
    pairwise = compare_rdms(brain, brain)[np.triu_indices(8, 1)]
    assert pairwise.mean() == pytest.approx(0.19, abs=0.005)
    lower, upper = noise_ceiling(brain)
    assert (lower, upper) == pytest.approx((0.29, 0.56), abs=0.035)
