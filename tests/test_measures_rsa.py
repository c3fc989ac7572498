"""Dissimilarities, their comparison and their bootstrap: against rsatoolbox, SciPy and laws."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.distance import pdist
from scipy.stats import kendalltau, pearsonr, spearmanr

from pcsim.measures import (
    bootstrap_rsa,
    compare_rdms,
    condition_crossnobis,
    condition_rdm,
    correlation_rdm,
    crossnobis_rdm,
    euclidean_rdm,
    noise_ceiling,
    noise_precision,
    rdm_matrix,
    rdm_vector,
    resample_indices,
)
from pcsim.measures.rsa import RDM_COMPARISONS
from pcsim.responses import make_responses

RSATOOLBOX_NAMES = {
    "pearson": "corr",
    "spearman": "spearman",
    "tau_a": "tau-a",
    "cosine": "cosine",
    "whitened_cosine": "cosine_cov",
}


@pytest.fixture(scope="module")
def peer():
    """Return rsatoolbox with the modules used here."""
    pytest.importorskip("rsatoolbox")
    import rsatoolbox
    import rsatoolbox.data
    import rsatoolbox.inference
    import rsatoolbox.rdm

    return rsatoolbox


def precision_of(rng, n):
    root = rng.normal(size=(n, 2 * n))
    return np.linalg.inv(root @ root.T / (2 * n))


def similar_rdms(rng, n_rdms, n_conditions):
    """Return distances that share a part, some of them tied."""
    shared = rng.normal(size=(n_conditions, 5))
    noise = 0.8 * rng.normal(size=(n_rdms, n_conditions, 5))
    rdms = euclidean_rdm(shared + noise)
    rdms[0] = rdms[0].round(0)
    return rdms


def test_vector_and_matrix_are_inverse(rng):
    vector = rng.random((2, 3, 28))
    np.testing.assert_array_equal(rdm_vector(rdm_matrix(vector)), vector)
    assert rdm_matrix(vector).shape == (2, 3, 8, 8)


def test_distances_are_those_of_scipy(rng):
    patterns = rng.normal(3.0, 2.0, (7, 11))
    np.testing.assert_allclose(correlation_rdm(patterns), pdist(patterns, "correlation"))
    np.testing.assert_allclose(euclidean_rdm(patterns), pdist(patterns, "sqeuclidean") / 11)
    precision = precision_of(rng, 11)
    mahalanobis = pdist(patterns, "mahalanobis", VI=precision) ** 2 / 11
    np.testing.assert_allclose(euclidean_rdm(patterns, precision=precision), mahalanobis)


def test_distances_are_those_of_rsatoolbox(peer, rng):
    folds, conditions, units = 4, 9, 13
    patterns = rng.normal(size=(folds, conditions, units))
    precision = precision_of(rng, units)
    labels = {
        "cond": np.tile(np.arange(conditions), folds),
        "fold": np.repeat(np.arange(folds), conditions),
    }
    data = peer.data.Dataset(patterns.reshape(-1, units), obs_descriptors=labels)

    def theirs(method, **options):
        with np.errstate(all="ignore"):  # it writes NaN into an integer array
            rdms = peer.rdm.calc_rdm(data, method=method, descriptor="cond", **options)
        return rdms.get_vectors()[0]

    mean = patterns.mean(axis=0)
    ours = crossnobis_rdm(patterns, precision=precision)
    expected = theirs("crossnobis", noise=precision, cv_descriptor="fold")
    np.testing.assert_allclose(ours, expected, rtol=0, atol=1e-12)
    np.testing.assert_allclose(correlation_rdm(mean), theirs("correlation"), atol=1e-12)
    np.testing.assert_allclose(euclidean_rdm(mean), theirs("euclidean"), atol=1e-12)
    expected = theirs("mahalanobis", noise=precision)
    np.testing.assert_allclose(euclidean_rdm(mean, precision=precision), expected, atol=1e-12)


def test_crossnobis_is_unbiased(rng):
    truth = np.zeros((4, 6))
    truth[1] = 2.0
    draws = crossnobis_rdm(truth + 0.7 * rng.normal(size=(4000, 3, 4, 6)))
    error = draws.std(axis=0) / np.sqrt(len(draws))
    assert (np.abs(draws.mean(axis=0) - euclidean_rdm(truth)) < 4 * error).all()
    assert (euclidean_rdm(truth + 0.7 * rng.normal(size=(500, 4, 6))).mean(axis=0) > 0.9).all()


def test_distances_are_batched_and_ignore_what_they_should(rng):
    patterns = rng.normal(size=(3, 5, 8))
    rotation = np.linalg.qr(rng.normal(size=(8, 8)))[0]
    for function in (correlation_rdm, euclidean_rdm):
        each = np.stack([function(p) for p in patterns])
        np.testing.assert_allclose(function(patterns), each, atol=1e-14)
    np.testing.assert_allclose(
        correlation_rdm(4.0 * patterns + 0.7), correlation_rdm(patterns), atol=1e-12
    )
    np.testing.assert_allclose(
        euclidean_rdm(patterns @ rotation + 0.7), euclidean_rdm(patterns), atol=1e-12
    )


def test_noise_precision_is_that_of_ledoit_and_wolf(rng):
    from sklearn.covariance import LedoitWolf

    for n, p in ((40, 6), (10, 25)):
        residuals = rng.normal(size=(n, p)) @ rng.normal(size=(p, p))
        np.testing.assert_allclose(
            noise_precision(residuals), LedoitWolf().fit(residuals).precision_, rtol=1e-9
        )


def test_conditions_meet_by_label(rng):
    rates = rng.normal(size=(12, 3, 5))
    names = np.array(["c", "a", "b"] * 4)
    fold = np.repeat(np.arange(4), 3)
    units = {"population": "latent", "level": 1}
    trial = {"condition": names, "fold": fold}
    responses = make_responses(rates, time=[0.1, 0.2, 0.3], units=units, trial=trial)
    mean = rates.mean(axis=1).reshape(4, 3, 5)[:, [1, 2, 0]]
    found = condition_rdm(responses, metric="euclidean")
    assert list(found["condition"].values) == ["a", "b", "c"]
    np.testing.assert_allclose(rdm_vector(found.values), euclidean_rdm(mean.mean(axis=0)))
    shuffled = responses.isel(trial=rng.permutation(12))
    np.testing.assert_allclose(condition_rdm(shuffled), condition_rdm(responses), atol=1e-14)
    crossed = condition_crossnobis(shuffled, fold="fold")
    np.testing.assert_allclose(rdm_vector(crossed.values), crossnobis_rdm(mean), atol=1e-12)


@pytest.mark.parametrize("method", RDM_COMPARISONS)
def test_comparisons_are_those_of_rsatoolbox(peer, rng, method):
    a, b = similar_rdms(rng, 3, 9), similar_rdms(rng, 4, 9)
    theirs = peer.rdm.compare(peer.rdm.RDMs(a), peer.rdm.RDMs(b), method=RSATOOLBOX_NAMES[method])
    np.testing.assert_allclose(compare_rdms(a, b, method=method), theirs, rtol=0, atol=1e-12)


def test_comparisons_are_those_of_scipy(rng):
    x, y = rng.random((2, 36))
    for method, function in (("pearson", pearsonr), ("spearman", spearmanr), ("tau_a", kendalltau)):
        expected = function(x, y)[0]
        assert compare_rdms(x, y, method=method).item() == pytest.approx(expected, abs=1e-12)


def test_rank_methods_ignore_monotone_maps_and_pearson_linear_ones(rng):
    x, y = rng.random((2, 45))
    for method in ("spearman", "tau_a"):
        np.testing.assert_allclose(
            compare_rdms(np.exp(4.0 * x), y, method=method), compare_rdms(x, y, method=method)
        )
    np.testing.assert_allclose(compare_rdms(4.0 * x + 0.7, y), compare_rdms(x, y))
    np.testing.assert_allclose(
        compare_rdms(4.0 * x, y, method="cosine"), compare_rdms(x, y, method="cosine")
    )
    assert np.isnan(compare_rdms(np.full(45, 0.7), y)).all()


@pytest.mark.filterwarnings("ignore:Noise ceiling for tau")
@pytest.mark.parametrize("method", RDM_COMPARISONS)
def test_ceiling_is_that_of_rsatoolbox(peer, rng, method):
    data = similar_rdms(rng, 5, 10)
    theirs = peer.inference.boot_noise_ceiling(peer.rdm.RDMs(data), method=RSATOOLBOX_NAMES[method])
    np.testing.assert_allclose(noise_ceiling(data, method=method), theirs, rtol=0, atol=1e-12)


def drawn_by(peer, function, models, data, method, draws):
    """Return evaluations and ceilings of rsatoolbox from numpy's global state 7."""
    fixed = [peer.model.ModelFixed(str(k), peer.rdm.RDMs(m[None])) for k, m in enumerate(models)]
    rdms = peer.rdm.RDMs(data)
    np.random.seed(7)  # noqa: NPY002
    result = function(fixed, rdms, method=RSATOOLBOX_NAMES[method], N=draws)
    return result.evaluations, result.noise_ceiling


def replayed(n_conditions, n_subjects, draws, *, stimuli, subjects):
    """Return the indices that rsatoolbox draws from the same state, in the same order."""
    np.random.seed(7)  # noqa: NPY002
    taken, chosen = [], []
    for _ in range(draws):
        if subjects:
            chosen.append(np.random.randint(0, n_subjects, n_subjects))  # noqa: NPY002
        if stimuli:
            taken.append(np.random.randint(0, n_conditions, n_conditions))  # noqa: NPY002
    return {"stimuli": taken or None, "subjects": chosen or None}


@pytest.mark.parametrize("method", ["pearson", "cosine", "spearman", "tau_a"])
@pytest.mark.parametrize("over", ["stimuli", "subjects", "both"])
@pytest.mark.filterwarnings("ignore:Noise ceiling for tau")
def test_bootstrap_is_that_of_rsatoolbox(peer, rng, method, over):
    functions = {
        "stimuli": peer.inference.eval_bootstrap_pattern,
        "subjects": peer.inference.eval_bootstrap_rdm,
        "both": peer.inference.eval_bootstrap,
    }
    models, data, draws = similar_rdms(rng, 2, 12), similar_rdms(rng, 4, 12), 30
    theirs, ceiling = drawn_by(peer, functions[over], models, data, method, draws)
    indices = replayed(12, 4, draws, stimuli=over != "subjects", subjects=over != "stimuli")
    ours = bootstrap_rsa(models, data, method=method, **indices)
    np.testing.assert_allclose(ours.draws, theirs, rtol=0, atol=1e-10)
    expected = compare_rdms(models, data, method=method).mean(axis=1)
    np.testing.assert_allclose(ours.estimate, expected, atol=1e-12)
    if method in ("pearson", "cosine"):
        np.testing.assert_allclose([ours.lower, ours.upper], ceiling, rtol=0, atol=1e-10)
    else:
        assert np.isnan(ours.lower).all()


def test_every_condition_once_gives_the_estimate(rng):
    models, data = similar_rdms(rng, 2, 15), similar_rdms(rng, 3, 15)
    for method in ("pearson", "cosine", "spearman", "tau_a"):
        result = bootstrap_rsa(models, data, method=method, stimuli=[rng.permutation(15)])
        np.testing.assert_allclose(result.draws[0], result.estimate, atol=1e-12)


def test_blocks_do_not_matter(rng, monkeypatch):
    import pcsim.measures.rsa_bootstrap as module

    data = similar_rdms(rng, 4, 10)
    stimuli, subjects = resample_indices(10, 23, seed=1), resample_indices(4, 23, seed=2)
    whole = bootstrap_rsa(data[:1], data, stimuli=stimuli, subjects=subjects)
    monkeypatch.setattr(module, "BLOCK", 200)
    parts = bootstrap_rsa(data[:1], data, stimuli=stimuli, subjects=subjects)
    for name in ("draws", "lower", "upper"):
        np.testing.assert_allclose(getattr(parts, name), getattr(whole, name), atol=1e-14)


def test_two_conditions_in_a_resample_give_nan(rng):
    data = similar_rdms(rng, 2, 4)
    for method in ("pearson", "cosine", "spearman", "tau_a"):
        few = bootstrap_rsa(data[0], data, method=method, stimuli=[[0, 0, 1, 1], [0, 1, 2, 3]])
        assert np.isnan(few.draws).ravel().tolist() == [True, False]


def test_refusals(refused, rng):
    data = similar_rdms(rng, 2, 6)
    assert "resample_indices" in refused(bootstrap_rsa, data, data)
    assert "0 to 5" in refused(bootstrap_rsa, data, data, stimuli=[[0, 1, 2, 3, 4, 6]])
    assert "same order" in refused(compare_rdms, data, data[:, :10])
    assert "rdm_vector" in refused(compare_rdms, data[:, :7], data[:, :7])
    assert "Did you mean" in refused(compare_rdms, data, data, method="pearsn")
    assert "at least 2" in refused(noise_ceiling, data[0])
    assert "euclidean_rdm" in refused(correlation_rdm, np.ones((3, 4)))
    assert "2 folds" in refused(crossnobis_rdm, data)
    assert "inverse" in refused(euclidean_rdm, np.eye(3), precision=np.triu(np.ones((3, 3))))
    assert "repeats" in refused(noise_precision, np.ones((4, 2)))
