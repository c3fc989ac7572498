"""Kernels in time, centroids of fields, selectivity without folding, correlations with gaps."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from pcsim.measures import (
    biphasic_index,
    noise_signal_correlation,
    orientation_selectivity,
    radial_profile,
    separable_parts,
    signal_correlation_matrix,
    space_time_separability,
)


def test_biphasic_index_of_a_damped_wave():
    """k(t) = e^(-at) sin(wt): trough over peak is exp(-a pi / w), half a period apart."""
    a, w = np.array([4.0, 0.7]), 6.0
    t = np.linspace(0.0, 1.2, 24_001)
    course = xr.DataArray(
        np.exp(-a[:, None] * t) * np.sin(w * t), dims=("unit", "lag"), coords={"unit": [7, 9]}
    )
    found = biphasic_index(course)
    np.testing.assert_allclose(found, np.exp(-a * np.pi / w), rtol=1e-6)
    np.testing.assert_array_equal(found["unit"], [7, 9])
    np.testing.assert_allclose(biphasic_index(3.0 * course), found)


def test_courses_without_an_index():
    rising = xr.DataArray([[0.0, 1.0, 2.0], [-1.0, -2.0, -3.0]], dims=("unit", "lag"))
    assert np.isnan(biphasic_index(rising)).all()
    falling = xr.DataArray([4.0, 2.0, 1.0], dims="lag")
    assert biphasic_index(falling).item() == -0.25


def test_separable_parts_of_a_known_sum(rng):
    """Two orthogonal products of lengths 3 and 1: nine tenths of the energy in the first."""
    u, _ = np.linalg.qr(rng.normal(size=(6, 2)))
    v, _ = np.linalg.qr(rng.normal(size=(20, 2)))
    kernel = (3.0 * np.outer(u[:, 0], v[:, 0]) + np.outer(u[:, 1], v[:, 1])).reshape(6, 4, 5)
    field = xr.DataArray(
        np.stack([kernel, -2.0 * kernel, 0 * kernel]), dims=("unit", "lag", "y", "x")
    )
    parts = separable_parts(field.transpose("y", "unit", "x", "lag"))
    np.testing.assert_allclose(parts["separability"], [0.9, 0.9, np.nan], rtol=1e-12)
    np.testing.assert_allclose(space_time_separability(field), parts["separability"])
    course = parts["course"].transpose("unit", "lag").values
    assert (course[:2].max(axis=1) == np.abs(course[:2]).max(axis=1)).all()
    product = (parts["course"] * parts["space"]).transpose("unit", "lag", "y", "x").values
    first = 3.0 * np.outer(u[:, 0], v[:, 0]).reshape(6, 4, 5)
    np.testing.assert_allclose(product[0], first, atol=1e-12)
    np.testing.assert_allclose(product[1], -2 * first, atol=1e-12)
    assert np.isnan(product[2]).all()


def test_profile_about_the_centroid_is_that_of_the_clean_field():
    """A pixel beside the middle that is barely the largest moves the peak, not the centroid."""
    rows, columns = np.indices((15, 15))
    blob = np.exp(-((rows - 7.0) ** 2 + (columns - 7.0) ** 2) / (2 * 2.5**2))
    noisy = blob.copy()
    noisy[7, 9] = 1.02
    clean = radial_profile(xr.DataArray(blob, dims=("y", "x")), range(2, 6))
    noisy = xr.DataArray(noisy, dims=("y", "x"))
    # The rings about a centroid that lies 0.1 pixels off hold nearly the same pixels.
    at = radial_profile(noisy, range(2, 6), about="centroid")
    np.testing.assert_allclose(at, clean, atol=0.06)
    assert np.abs(radial_profile(noisy, range(2, 6)) - clean).max() > 0.1


def test_rings_by_hand():
    field = xr.DataArray(np.arange(25.0).reshape(5, 5) - 12.0, dims=("y", "x"))
    field[2, 2] = 20.0
    about = field / 20.0
    distance = np.hypot(*(np.indices((5, 5)) - 2))
    for rings, number in (("nearest", np.rint(distance)), ("between", np.floor(distance))):
        found = radial_profile(field, range(3), rings=rings)
        expected = [about.values[number == r].mean() for r in range(3)]
        np.testing.assert_allclose(found, expected, atol=1e-15)


def test_orientation_selectivity_without_folding():
    """Preferred 10 at 90 degrees; 2 and 4 at 0 and 180, so 3; the opposite 6 is not used."""
    angle = np.arange(8) * np.pi / 4
    curve = xr.DataArray(
        [[2.0, 5.0, 10.0, 5.0, 4.0, 5.0, 6.0, 5.0]], dims=("unit", "direction"),
        coords={"direction": angle},
    )  # fmt: skip
    alone = orientation_selectivity(curve, dim="direction", fold=False)
    assert alone.item() == pytest.approx(7 / 13)
    # Folded: 8 against 3.
    assert orientation_selectivity(curve, dim="direction").item() == pytest.approx(5 / 11)


def test_signal_correlations_leave_out_what_was_not_recorded(rng):
    """Every pair against numpy's correlation of the means of the conditions that both have."""
    rate = 3.0 + rng.normal(size=(60, 5))
    condition = np.repeat(np.arange(12), 5)
    rate += rng.normal(size=(12, 1))[condition]
    rate[condition == 3, 1] = np.nan
    rate[condition < 2, 4] = np.nan
    rate[rng.random(60) < 0.1, 0] = np.nan
    rate[:, 2] = 7.0
    found = signal_correlation_matrix(rate, condition)
    mean = np.array([[_mean(rate[condition == c, u]) for u in range(5)] for c in range(12)])
    for i, j in ((0, 1), (0, 4), (1, 4), (1, 3)):
        both = np.isfinite(mean[:, i]) & np.isfinite(mean[:, j])
        expected = np.corrcoef(mean[both, i], mean[both, j])[0, 1]
        assert found[i, j] == pytest.approx(expected, rel=1e-10)
        assert found[j, i] == found[i, j]
    assert np.isnan(found[2]).all()


def _mean(values):
    known = values[np.isfinite(values)]
    return known.mean() if known.size else np.nan


def test_noise_against_signal_is_a_correlation_over_pairs(rng):
    noise, signal = rng.normal(size=(2, 6, 6))
    noise, signal = noise + noise.T, signal + signal.T
    pairs = np.triu_indices(6, 1)
    expected = np.corrcoef(noise[pairs], signal[pairs])[0, 1]
    assert noise_signal_correlation(noise, signal) == pytest.approx(expected)
    noise[0, 1] = np.nan
    rest = np.corrcoef(noise[pairs][1:], signal[pairs][1:])[0, 1]
    assert noise_signal_correlation(noise, signal) == pytest.approx(rest)


def test_what_has_no_such_measure_is_refused(refused):
    plain = xr.DataArray(np.ones((3, 4)), dims=("lag", "x"))
    assert "Name them as space" in refused(separable_parts, plain)
    assert "along 'time'" in refused(biphasic_index, plain, dim="time")
    assert "finite values" in refused(biphasic_index, plain * np.nan)
    field = xr.DataArray(np.ones((9, 9)), dims=("y", "x"))
    assert "centroid" in refused(radial_profile, field, about="middle")
    assert "between" in refused(radial_profile, field, rings="inner")
    assert "at least 3" in refused(signal_correlation_matrix, np.ones((4, 2)), [0, 0, 1, 1])
    assert "same units" in refused(noise_signal_correlation, np.eye(3), np.eye(4))
    assert "found 1 pairs" in refused(noise_signal_correlation, np.eye(2), np.eye(2))
