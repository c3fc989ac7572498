"""Fits of tuning curves against scipy's curve_fit, against known coverage and known ambiguity."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.integrate
import scipy.optimize
import xarray as xr

from pcsim.measures import (
    bootstrap_curve_fit,
    curve_values,
    fit_curve,
    fit_naka_rushton,
)
from pcsim.measures.curve_models import CURVES

ANGLES = np.arange(12) * np.pi / 12
SIZES = np.geomspace(0.1, 10.0, 12)
CONTRASTS = np.array([0.0, 0.03, 0.06, 0.12, 0.25, 0.4, 0.6, 1.0])
CASES = {
    "gaussian": (ANGLES, [1.9, 0.4, 20.0, 4.0]),
    "von_mises": (ANGLES, [0.05, 3.0, 20.0, 4.0]),
    "naka_rushton": (CONTRASTS, [30.0, 0.2, 2.4, 4.0]),
    "difference_of_gaussians": (SIZES, [0.7, 3.0, 40.0, 20.0, 4.0]),
    "ratio_of_gaussians": (SIZES, [0.7, 3.0, 40.0, 1.5, 4.0]),
}


def curve(x, values, dim="value"):
    return xr.DataArray(np.atleast_2d(values), dims=("unit", dim), coords={dim: x})


@pytest.mark.parametrize("name", CASES)
def test_exact_curves_give_their_parameters_back(name):
    x, truth = CASES[name]
    exact = curve(x, CURVES[name].function(x, np.array(truth)))
    fit = fit_curve(exact, name)
    found = fit["estimate"].sel(unit=0) if "unit" in fit.coords else fit["estimate"].isel(unit=0)
    np.testing.assert_allclose(found, truth, rtol=2e-3)
    assert fit["identified"].all()
    assert fit["r_squared"].item() == pytest.approx(1.0, abs=1e-9)
    np.testing.assert_allclose(curve_values(fit, name, x), exact, atol=1e-4 * np.ptp(exact.values))


@pytest.mark.parametrize("name", CASES)
def test_standard_errors_are_those_of_scipy(name, rng):
    x, truth = CASES[name]
    model = CURVES[name]
    values = model.function(x, np.array(truth)) + rng.normal(0.0, 0.2, x.size)
    fit = fit_curve(curve(x, values), name).isel(unit=0)

    def function(at, *p):
        return model.function(at, np.array(p))

    best, covariance = scipy.optimize.curve_fit(
        function, x, values, p0=fit["estimate"].values, maxfev=20_000
    )
    np.testing.assert_allclose(fit["estimate"], best, rtol=5e-3)
    np.testing.assert_allclose(fit["standard_error"], np.sqrt(np.diag(covariance)), rtol=0.03)
    sem = np.full(x.size, 0.2)
    weighted = fit_curve(curve(x, values), name, error=curve(x, sem)).isel(unit=0)
    _, covariance = scipy.optimize.curve_fit(
        function, x, values, p0=best, sigma=sem, absolute_sigma=True, maxfev=20_000
    )
    np.testing.assert_allclose(weighted["standard_error"], np.sqrt(np.diag(covariance)), rtol=0.03)


@pytest.mark.parametrize(
    ("name", "noise"), [("von_mises", 0.01), ("naka_rushton", 0.01), ("ratio_of_gaussians", 5e-4)]
)
def test_intervals_cover_the_truth_as_often_as_they_say(name, noise, rng):
    """100 curves: 95 % +- 4 standard errors of 2.2 %.

    For noise this small (share of the range) the curve is straight in its parameters. A ratio of
    Gaussians, whose parameters trade off, needs less noise than the others.
    """
    x, truth = CASES[name]
    clean = CURVES[name].function(x, np.array(truth))
    noisy = clean + noise * np.ptp(clean) * rng.normal(size=(100, x.size))
    fit = fit_curve(curve(x, noisy), name)
    inside = (fit["low"] <= truth) & (np.array(truth) <= fit["high"])
    share = inside.mean("unit")
    assert (share > 0.95 - 4 * 0.022).all()
    assert (share < 1.0).any()


def test_bootstrap_agrees_with_the_covariance_where_noise_is_small(rng):
    x, truth = CASES["von_mises"]
    sem = 0.3
    values = CURVES["von_mises"].function(x, np.array(truth)) + rng.normal(0, sem, x.size)
    error = curve(x, np.full(x.size, sem))
    fit = fit_curve(curve(x, values), "von_mises", error=error)
    again = bootstrap_curve_fit(curve(x, values), "von_mises", error=error, draws=150)
    np.testing.assert_allclose(again["estimate"], fit["estimate"])
    wide, narrow = again["high"] - again["low"], fit["high"] - fit["low"]
    # Quantiles of 150 copies are known to some 10 %.
    np.testing.assert_allclose(wide / narrow, 1.0, atol=0.3)
    # The preferred angle lies beside the wrap at 0, its interval on both sides of it.
    preferred = again.sel(parameter="preferred").isel(unit=0)
    assert preferred["high"] - preferred["low"] < 0.2


def test_a_power_law_does_not_settle_its_saturation():
    """Contrasts far below c50: only r_max / c50^n is known."""
    contrast = np.geomspace(0.01, 0.2, 9)
    low = curve(contrast, 5.0 * contrast**2.0, "contrast")
    fit = fit_curve(low, "naka_rushton").isel(unit=0)
    assert not fit["identified"].sel(parameter=["r_max", "c50"]).any()
    assert np.isnan(fit["standard_error"].sel(parameter="c50"))
    assert fit["high"].sel(parameter="c50") == pytest.approx(10 * 0.2)
    assert fit["low"].sel(parameter="c50") == pytest.approx(0.1 * 0.01)


@pytest.mark.parametrize("name", ["difference_of_gaussians", "ratio_of_gaussians"])
def test_without_suppression_the_surround_is_not_identified(name):
    x = SIZES
    plain = CURVES[name].function(x, np.array([0.7, 3.0, 40.0, 0.0, 4.0]))
    fit = fit_curve(curve(x, plain), name).isel(unit=0)
    assert not fit["identified"].sel(parameter="ratio")
    assert fit["r_squared"] == pytest.approx(1.0, abs=1e-6)


def test_size_curves_are_integrals_of_gaussians():
    """k erf(s / w): a Gaussian exp(-(x/w)^2) integrated over a bar of half length s."""
    p = np.array([0.7, 3.0, 40.0, 20.0, 4.0])
    for s in (0.4, 1.7):
        center, surround = (
            scipy.integrate.quad(lambda x, w=w: np.exp(-((x / w) ** 2)), 0, s)[0]
            / (w * np.sqrt(np.pi) / 2)
            for w in (0.7, 2.1)
        )
        at = np.array([s])
        difference = CURVES["difference_of_gaussians"].function(at, p)
        assert difference[0] == pytest.approx(4 + 40 * center - 20 * surround)
        ratio = CURVES["ratio_of_gaussians"].function(at, p)
        assert ratio[0] == pytest.approx(4 + 40 * center**2 / (1 + 20 * surround**2))


def test_naka_rushton_is_the_fit_there_was(rng):
    x, truth = CASES["naka_rushton"]
    values = CURVES["naka_rushton"].function(x, np.array(truth)) + rng.normal(0, 0.5, (3, x.size))
    one, other = curve(x, values, "contrast"), fit_naka_rushton(curve(x, values, "contrast"))
    fit = fit_curve(one, "naka_rushton")
    for name in ("r_max", "c50", "n", "baseline"):
        np.testing.assert_allclose(
            fit["estimate"].sel(parameter=name).drop_vars("parameter"), other[name], rtol=1e-3
        )


def test_units_keep_their_labels_and_flat_ones_have_no_fit():
    values = np.stack([CURVES["gaussian"].function(ANGLES, np.array([1.0, 0.4, 5, 1])), 0 * ANGLES])
    two = xr.DataArray(
        values, dims=("unit", "orientation"),
        coords={"orientation": ANGLES, "unit": [4, 8], "level": ("unit", [1, 2])},
    )  # fmt: skip
    fit = fit_curve(two, "gaussian")
    np.testing.assert_array_equal(fit["level"], [1, 2])
    assert np.isnan(fit["estimate"].sel(unit=8)).all()
    assert not fit["identified"].sel(unit=8).any()
    shuffled = two.isel(orientation=[5, 1, 0, 2, 3, 4, 9, 6, 7, 8, 11, 10], unit=[1, 0])
    xr.testing.assert_allclose(fit_curve(shuffled, "gaussian").sortby("unit"), fit)


def test_what_cannot_be_fitted_is_refused(refused):
    few = curve(ANGLES[:4], [1.0, 2.0, 3.0, 2.0])
    assert "simpler curve" in refused(fit_curve, few, "gaussian")
    good = curve(ANGLES, np.cos(2 * ANGLES))
    assert "Did you mean" in refused(fit_curve, good, "von_misses")
    assert "above 0" in refused(fit_curve, good, "gaussian", error=0 * good)
    assert "at least 0" in refused(fit_curve, curve(SIZES - 5, SIZES), "ratio_of_gaussians")
