"""CKA, Procrustes and shape distance, curvature: against other implementations and laws."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.linalg
import scipy.spatial
from sklearn.cross_decomposition import CCA

from pcsim.measures import (
    compare_rdms,
    cross_validated_curvature,
    curvature,
    euclidean_rdm,
    linear_cka,
    procrustes_distance,
    shape_distance,
)


def rotation(rng, n):
    return np.linalg.qr(rng.normal(size=(n, n)))[0]


def related(rng, n, n_x, n_y):
    x = rng.normal(size=(n, n_x))
    return x, x @ rng.normal(size=(n_x, n_y)) + rng.normal(size=(n, n_y)) + 4.0


def kernel_hsic(k, m):
    """Return the unbiased HSIC of Song et al. (2012), equation 5, as it is printed."""
    n = len(k)
    k, m, one = k - np.diag(np.diag(k)), m - np.diag(np.diag(m)), np.ones(n)
    terms = np.trace(k @ m) + (one @ k @ one) * (one @ m @ one) / ((n - 1) * (n - 2))
    return (terms - 2.0 / (n - 2) * (one @ k @ m @ one)) / (n * (n - 3))


@pytest.mark.parametrize(("n", "n_x", "n_y"), [(30, 7, 4), (9, 20, 13), (20, 25, 3)])
def test_cka_is_the_whitened_cosine_of_distances(rng, n, n_x, n_y):
    x, y = related(rng, n, n_x, n_y)
    distances = compare_rdms(euclidean_rdm(x), euclidean_rdm(y), method="whitened_cosine")
    assert linear_cka(x, y) == pytest.approx(distances.item(), abs=1e-12)


@pytest.mark.parametrize(("n", "n_x", "n_y"), [(30, 7, 4), (9, 20, 13)])
def test_debiased_cka_is_the_printed_formula(rng, n, n_x, n_y):
    x, y = related(rng, n, n_x, n_y)
    # The formula is blind to the mean: raw kernels give the same as centred ones.
    k, m = x @ x.T, y @ y.T
    expected = kernel_hsic(k, m) / np.sqrt(kernel_hsic(k, k) * kernel_hsic(m, m))
    assert linear_cka(x, y, debiased=True) == pytest.approx(expected, abs=1e-10)


def test_debiased_cka_of_unrelated_responses_is_zero(rng):
    n = 2000
    x, y = rng.normal(size=(n, 12, 30)), rng.normal(size=(n, 12, 30))
    debiased = linear_cka(x, y, debiased=True)
    assert abs(debiased.mean()) < 4 * debiased.std() / np.sqrt(n)
    assert linear_cka(x, y).mean() > 0.6


def test_similarities_ignore_rotation_offset_and_scale(rng):
    x, y = related(rng, 25, 6, 9)
    turned = 0.7 * x @ rotation(rng, 6) + 4.0
    for function in (linear_cka, lambda a, b: linear_cka(a, b, debiased=True), shape_distance):
        assert function(turned, y) == pytest.approx(float(function(x, y)), abs=1e-10)
        assert function(y, x) == pytest.approx(float(function(x, y)), abs=1e-10)
    assert linear_cka(x, turned) == pytest.approx(1.0, abs=1e-12)
    # Arc cosine of 1 less rounding.
    assert shape_distance(x, turned) == pytest.approx(0.0, abs=1e-7)
    same = x @ rotation(rng, 6) + 0.7
    assert procrustes_distance(x, same) == pytest.approx(0.0, abs=1e-6)


def test_stacks_are_measured_one_by_one(rng):
    x, y = rng.normal(size=(3, 10, 4)), rng.normal(size=(3, 10, 15))
    for function in (linear_cka, procrustes_distance, shape_distance):
        each = [function(a, b) for a, b in zip(x, y, strict=True)]
        np.testing.assert_allclose(function(x, y), each, atol=1e-12)


def test_procrustes_is_that_of_scipy(rng):
    x, y = related(rng, 20, 5, 5)
    a, b = (m - m.mean(axis=0) for m in (x, y))
    turn, _ = scipy.linalg.orthogonal_procrustes(b, a)
    assert procrustes_distance(x, y) == pytest.approx(np.linalg.norm(a - b @ turn), abs=1e-12)
    disparity = scipy.spatial.procrustes(x, y)[2]
    assert np.sin(shape_distance(x, y)) ** 2 == pytest.approx(disparity, abs=1e-12)


def test_alpha_zero_is_the_mean_canonical_correlation(rng):
    x, y = related(rng, 60, 3, 4)
    pairs = zip(*(s.T for s in CCA(3, max_iter=5000, tol=1e-14).fit_transform(x, y)), strict=True)
    mean = np.mean([np.corrcoef(a, b)[0, 1] for a, b in pairs])
    expected = 3 * mean / np.sqrt(3 * 4)
    assert np.cos(shape_distance(x, y, alpha=0.0)) == pytest.approx(expected, abs=1e-6)
    mixed = x @ rng.normal(size=(3, 3))
    assert shape_distance(mixed, y, alpha=0.0) == pytest.approx(
        float(shape_distance(x, y, alpha=0.0)), abs=1e-10
    )


def test_distances_obey_the_triangle(rng):
    for _ in range(20):
        x, y, z = rng.normal(size=(3, 8, 4))
        for function in (procrustes_distance, shape_distance):
            assert function(x, z) <= function(x, y) + function(y, z) + 1e-12


def test_a_circle_bends_by_its_angle(rng):
    angle = np.radians(0.7) * np.arange(9)
    circle = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    plane = rotation(rng, 5)[:2]
    np.testing.assert_allclose(curvature(4.0 * circle @ plane + 0.7), 0.7, atol=1e-9)
    np.testing.assert_allclose(curvature(circle[::-1]), 0.7, atol=1e-9)
    line = np.outer([0.0, 1.0, 5.0, 5.0, 2.0, 3.0], [3.0, 4.0])
    np.testing.assert_allclose(curvature(line), [0.0, np.nan, np.nan, 180.0], atol=1e-9)


def test_noise_turns_by_120_degrees(rng):
    turns = curvature(rng.normal(size=(400, 3, 2000)))[:, 0]
    # In many dimensions steps share half of their variance, with the opposite sign.
    error = turns.std() / np.sqrt(400)
    assert abs(turns.mean() - 120.0) < 4 * error + 0.05


def test_repeats_take_the_noise_out(rng):
    angle = np.radians(35.0) * np.arange(6)
    circle = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    noisy = circle + 0.4 * rng.normal(size=(4000, 6, 2))
    assert (curvature(noisy).mean(axis=0) > 60.0).all()
    # The cosine of 4,000 repeats has a standard error near 0.02, which is 2 degrees here.
    assert np.abs(cross_validated_curvature(noisy) - 35.0).max() < 8.0
    clean = np.stack([circle, circle])
    np.testing.assert_allclose(cross_validated_curvature(clean), 35.0, atol=1e-9)


def test_repeats_are_paired_as_it_is_written(rng):
    path = np.cumsum(rng.normal(4.0, 1.0, (6, 3)), axis=0)
    repeats = path + 0.7 * rng.normal(size=(3, 6, 3))
    steps = np.diff(repeats, axis=1)
    pairs = [(a, b) for a in range(3) for b in range(3) if a != b]

    def mean(t, s):
        return np.mean([steps[a, t] @ steps[b, s] for a, b in pairs])

    cosines = [mean(t, t + 1) / np.sqrt(mean(t, t) * mean(t + 1, t + 1)) for t in range(4)]
    expected = np.degrees(np.arccos(np.clip(cosines, -1.0, 1.0)))
    np.testing.assert_allclose(cross_validated_curvature(repeats), expected, atol=1e-6)


def test_refusals(refused, rng):
    x = rng.normal(size=(6, 3))
    assert "same stimuli" in refused(linear_cka, x, x[:5])
    assert "at least 4" in refused(linear_cka, x[:3], x[:3], debiased=True)
    assert "alpha" in refused(shape_distance, x, x, alpha=4.0)
    assert "3 times" in refused(curvature, x[:2])
    assert "Use curvature" in refused(cross_validated_curvature, x[None])
    assert np.isnan(linear_cka(np.ones((6, 2)), x))
    assert np.isnan(shape_distance(np.ones((6, 2)), x))
