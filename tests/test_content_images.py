"""H15 and H09 on filters whose answer is known."""

from __future__ import annotations

import importlib
import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from scipy.stats import ks_2samp, kurtosis

from pcsim import catalog
from pcsim.filters import gabor
from pcsim.protocols import ImageFunction
from pcsim.stimuli import gratings

plaids = importlib.import_module("pcsim.analysis.plaid_averaging")
fields = importlib.import_module("pcsim.analysis.receptive_field_statistics")
FIELD, PX_PER_DEG = (16, 16), 16.0
HISTOGRAMS = Path("published_reference/v1_property_histograms.json")


def weight(seen):
    one = seen.isel(unit=seen["included"].values)
    return float(plaids.weight({n: np.array(float(one[n].mean())) for n in ("cross", "power")}))


def test_linear_units_add_and_rectified_ones_lose_what_cancels(rng):
    filters = rng.standard_normal((FIELD[0] * FIELD[1], 30))
    seen, _ = plaids.observe(
        ImageFunction(FIELD, PX_PER_DEG, lambda x: x @ filters), seed=0, scale="quick"
    )
    assert weight(seen) == pytest.approx(1.0, abs=1e-12)
    np.testing.assert_allclose(seen["unequal"], 1.0, atol=1e-12)
    np.testing.assert_allclose(seen["cross_at"], seen["power_at"], atol=1e-12)
    cut, _ = plaids.observe(
        ImageFunction(FIELD, PX_PER_DEG, lambda x: np.maximum(x @ filters, 0.0)),
        seed=0, scale="quick",
    )  # fmt: skip
    # max(a + b, 0) lies between 0 and max(a, 0) + max(b, 0).
    assert 0.5 < weight(cut) < 1.0


def test_a_pool_of_energies_averages_and_the_stronger_grating_wins(monkeypatch):
    monkeypatch.setitem(plaids.N_ORIENTATIONS, "quick", 2)
    angles = [o for o in (0.0, np.pi / 2) for _ in range(2)]
    waves = gratings(
        FIELD, orientation=angles, phase=[0.0, np.pi / 2] * 2, contrast=1.0,
        spatial_frequency=plaids.FREQUENCY, px_per_deg=PX_PER_DEG,
    ).to_numpy().reshape(4, -1) - 0.5  # fmt: skip

    def share(x):
        energy = (x @ waves.T) ** 2
        pair = np.stack([energy[..., :2].sum(-1), energy[..., 2:].sum(-1)], axis=-1)
        total = pair.sum(axis=-1, keepdims=True)
        return pair / np.where(total > 1e-9, total, np.inf)

    seen, _ = plaids.observe(ImageFunction(FIELD, PX_PER_DEG, share), seed=0, scale="quick")
    # Whole cycles fit the field, so that the two orientations do not see each other.
    assert weight(seen) == pytest.approx(0.5, abs=1e-9)
    high, low = plaids.HIGH**2, plaids.LOW**2
    expected = np.array([high, low]) / (high + low)
    np.testing.assert_allclose(seen["unequal"], expected, atol=1e-9)


def test_every_plaid_finds_its_own_gratings():
    table = plaids.trials(4)
    stimulus = gratings(
        FIELD, **table, spatial_frequency=plaids.FREQUENCY, px_per_deg=PX_PER_DEG
    ).to_numpy()[:, 0]
    first, second, both = plaids.parts(table, stimulus.reshape(len(stimulus), -1) - 0.5)
    np.testing.assert_allclose(both, first + second, atol=1e-12)


def test_the_histogram_is_the_published_one():
    data = os.environ.get("PCSIM_DATA")
    path = Path(data) / HISTOGRAMS if data else None
    if path is None or not path.is_file():
        pytest.skip(f"needs {HISTOGRAMS} below PCSIM_DATA")
    stored = json.loads(path.read_text())["devalois1982b_peak_sf_cpd"]
    assert tuple(stored["bins_log2"]) == fields.EDGES
    for name, counts in fields.COUNTS.items():
        kind, place = name.split(", ")
        place = "foveal" if place == "fovea" else "parafoveal"
        assert tuple(stored[f"{kind}_{place}"]) == counts
    assert sum(map(sum, fields.COUNTS.values())) == stored["n"]


def means(good, below, blob=0.0):
    table = {f"below_{k}": np.array(good * one) for k, one in enumerate(below)}
    return {"good": np.array(good), "blob": np.array(good * blob), **table}


def test_similarity_to_the_macaque():
    own = fields.observed()
    assert (np.diff(own) >= 0).all()
    assert fields.similarity(means(0.7, own)) == pytest.approx(1.0)
    # All units between 2 and 2.8: the larger of the shares of cells on either side is missing.
    spike = (np.array(fields.INNER) >= 2.8).astype(float)
    at = fields.INNER.index(2.8)
    wanted = 1.0 - max(own[at - 1], 1.0 - own[at])
    assert fields.similarity(means(0.7, spike)) == pytest.approx(wanted)
    assert fields.similarity(means(0.0, own)) == 0.0
    assert fields.blob_share(means(0.7, own, blob=0.3)) == pytest.approx(0.3)


def test_v1_may_differ_from_itself_as_much_as_its_groups_of_cells_do():
    # An independent count: the distance of two samples, each cell at the number of its bin.
    groups = {
        name: np.repeat(np.arange(len(counts)), counts) for name, counts in fields.COUNTS.items()
    }
    every = np.concatenate(list(groups.values()))
    alike = {name: 1.0 - ks_2samp(one, every).statistic for name, one in groups.items()}
    name, least = fields.least_like()
    assert least == pytest.approx(min(alike.values()), abs=1e-12)
    assert alike[name] == min(alike.values())
    assert fields.HYPOTHESIS.reference.interval == (least, 1.0)
    assert fields.HALF < least < 1.0


def test_fields_of_known_gabor_functions():
    shape = (24, 24)
    known = [
        {"sigma": 3.0, "frequency": 0.15, "orientation": 0.6, "aspect": 1.3},
        {"sigma": 2.5, "frequency": 0.07, "orientation": 2.0, "aspect": 1.2},
        {"sigma": 2.0, "frequency": 0.28, "orientation": 1.2, "aspect": 0.8},
    ]
    noise = np.random.default_rng(5).standard_normal(shape)
    kernels = [gabor(shape, **one) for one in known] + [noise]
    weights = np.stack([k.ravel() for k in kernels], axis=1)
    model = ImageFunction(shape, PX_PER_DEG, lambda x: x @ weights)
    seen = fields.observe(model, seed=0, scale="quick")
    np.testing.assert_array_equal(seen["good"], [1, 1, 1, 0])
    # sigma f is 0.45, 0.175 and 0.56, and 1.3, 1.2 and 0.8 times that along the stripes.
    np.testing.assert_allclose(seen["n_x"][:3], [0.45, 0.175, 0.56], rtol=1e-3)
    np.testing.assert_array_equal(seen["blob"], [0, 1, 0, 0])
    np.testing.assert_allclose(seen["frequency"][:3], [2.4, 1.12, 4.48], rtol=1e-3)
    below = np.array([seen[f"below_{k}"].values for k in range(len(fields.INNER))])
    np.testing.assert_array_equal(below.sum(axis=0), [6, 8, 4, 0])


def test_principal_components_are_orthogonal_and_ordered():
    model = fields.principal_components(ImageFunction((20, 22), PX_PER_DEG, np.abs), 1)
    weights = model.function(np.eye(20 * 22))
    np.testing.assert_allclose(weights.T @ weights, np.eye(fields.N_COMPONENTS), atol=1e-9)
    # The first component of photographs is their mean over the patch, nearly.
    first = weights[:, 0]
    assert abs(first.sum()) > 0.95 * np.abs(first).sum()


@dataclass(frozen=True)
class Pupil:
    """A learner that keeps what it was shown."""

    field_shape: tuple[int, int] = (8, 8)
    px_per_deg: float = PX_PER_DEG
    shown: Any = field(default=None)
    curriculum: ClassVar[str] = "patches"
    n_training: ClassVar[dict[str, int]] = {"quick": 4000, "full": 4000}

    def run(self, stimulus, *, seed=0, record=None):
        raise NotImplementedError

    def fit(self, stimulus, *, seed=0):
        return Pupil(shown=stimulus)

    def untrained(self, *, seed):
        return self


def test_scrambled_images_have_the_covariance_of_natural_ones_and_no_more():
    pupil = fields.raised_on_scrambled(Pupil(), 3)
    natural = importlib.import_module("pcsim.roster").training_stimulus(Pupil(), "natural", seed=3)
    flat, before = (one.to_numpy().reshape(4000, -1) for one in (pupil.shown, natural))
    expected, found = np.cov(before.T), np.cov(flat.T)
    # 4000 images; luminance beyond its range is cut off.
    assert np.linalg.norm(found - expected) < 0.15 * np.linalg.norm(expected)
    edges = [one[:, 1] - one[:, 0] for one in (before, flat)]
    # Of a Gaussian the excess kurtosis is 0, with a standard error of 0.08.
    assert kurtosis(edges[1]) < 0.4 < kurtosis(edges[0])
    untaught = ImageFunction(FIELD, PX_PER_DEG, np.abs)
    assert fields.raised_on_scrambled(untaught, 3) is untaught


def test_banks_that_were_drawn_from_the_reference_are_not_judged():
    assert "not learned" in fields.missing(catalog.load("circuits", "linear_nonlinear"))
    assert fields.missing(catalog.load("circuits", "rao_ballard_1999")) == ""
