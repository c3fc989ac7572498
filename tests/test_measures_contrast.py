"""Naka-Rushton: derivatives by finite differences, known parameters from noisy curves, AIC."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from pcsim.measures import fit_naka_rushton, naka_rushton, naka_rushton_jacobian

CONTRAST = np.array([0.0, 0.03, 0.06, 0.12, 0.25, 0.5, 1.0])


def curves(values, contrast=CONTRAST):
    values = np.atleast_2d(values)
    return xr.DataArray(
        values,
        dims=("unit", "contrast"),
        coords={
            "contrast": contrast,
            "unit": np.arange(len(values)),
            "level": ("unit", [2] * len(values)),
        },
    )


def test_response_is_the_equation(rng):
    for _ in range(20):
        r_max, c50, n, b = rng.uniform([-5, 0.1, 0.5, -1], [30, 0.9, 6, 4])
        direct = r_max * CONTRAST**n / (c50**n + CONTRAST**n) + b
        ours = naka_rushton(CONTRAST, (r_max, c50, n, b))
        np.testing.assert_allclose(ours, direct, rtol=1e-12, atol=1e-12)


def test_jacobian_by_finite_differences(rng):
    for _ in range(20):
        p = rng.uniform([-5, 0.1, 0.5, -1], [30, 0.9, 6, 4])
        steps = 1e-6 * np.eye(4)
        numeric = [
            (naka_rushton(CONTRAST, p + h) - naka_rushton(CONTRAST, p - h)) / 2e-6 for h in steps
        ]
        analytic = naka_rushton_jacobian(CONTRAST, p)
        np.testing.assert_allclose(analytic, np.stack(numeric, axis=1), atol=3e-7)


def test_exact_curves_are_recovered(rng):
    truth = rng.uniform([2, 0.08, 1.0, 0], [60, 0.6, 4.0, 5], (30, 4))
    fit = fit_naka_rushton(curves([naka_rushton(CONTRAST, p) for p in truth]))
    for k, name in enumerate(("r_max", "c50", "n", "baseline")):
        np.testing.assert_allclose(fit[name], truth[:, k], rtol=1e-3, atol=1e-4)
    assert (fit["r_squared"] > 1 - 1e-9).all()
    assert (fit["aic_difference"] > 0).all()
    assert (fit["level"] == 2).all()


def test_noisy_curves_are_recovered_within_their_errors(rng):
    contrast = np.geomspace(0.02, 1.0, 12)
    p, sigma, n = np.array([23.0, 0.27, 2.4, 1.7]), 0.7, 200
    clean = naka_rushton(contrast, p)
    fit = fit_naka_rushton(curves(clean + rng.normal(0, sigma, (n, 12)), contrast))
    jacobian = naka_rushton_jacobian(contrast, p)
    spread = sigma * np.sqrt(np.diag(np.linalg.inv(jacobian.T @ jacobian)))
    for k, name in enumerate(("r_max", "c50", "n", "baseline")):
        # Median of n fits: standard error 1.25 spread / sqrt(n).
        assert abs(float(fit[name].median()) - p[k]) < 4 * 1.25 * spread[k] / np.sqrt(n)
        low, high = np.quantile(fit[name], [0.16, 0.84])
        assert 0.5 * (high - low) == pytest.approx(spread[k], rel=0.35)


def test_suppressed_units_have_a_negative_range():
    fit = fit_naka_rushton(curves(naka_rushton(CONTRAST, (-7.0, 0.2, 2.0, 9.0))))
    assert fit["r_max"].item() == pytest.approx(-7.0, rel=1e-3)


def test_a_line_prefers_the_line(rng):
    slope, intercept = np.array([[3.0], [40.0], [-2.0]]), np.array([[0.7], [0.0], [4.0]])
    exact = slope * CONTRAST + intercept
    fit = fit_naka_rushton(curves(exact))
    np.testing.assert_allclose(fit["slope"], [3.0, 40.0, -2.0], rtol=1e-9)
    np.testing.assert_allclose(fit["intercept"], [0.7, 0.0, 4.0], atol=1e-9)
    # Both fit exactly up to the stated precision, so the two extra parameters cost 2 each.
    assert (fit["aic_difference"] < 0).all()


def test_aic_by_hand(rng):
    values = naka_rushton(CONTRAST, (20.0, 0.3, 2.4, 1.5)) + rng.normal(0, 1.0, 7)
    fit = fit_naka_rushton(curves(values)).isel(unit=0)
    p = [fit[name].item() for name in ("r_max", "c50", "n", "baseline")]
    rss = ((naka_rushton(CONTRAST, p) - values) ** 2).sum()
    assert fit["aic"].item() == pytest.approx(7 * np.log(rss / 7) + 10, rel=1e-6)
    line = np.polyfit(CONTRAST, values, 1)
    rss = ((np.polyval(line, CONTRAST) - values) ** 2).sum()
    assert fit["aic_linear"].item() == pytest.approx(7 * np.log(rss / 7) + 6, rel=1e-9)
    tss = ((values - values.mean()) ** 2).sum()
    assert fit["r_squared"].item() == pytest.approx(
        1 - ((naka_rushton(CONTRAST, p) - values) ** 2).sum() / tss, rel=1e-6
    )


def test_scale_of_the_rates_does_not_matter(rng):
    values = naka_rushton(CONTRAST, (20.0, 0.3, 2.4, 1.5)) + rng.normal(0, 1.0, 7)
    a, b = (fit_naka_rushton(curves(s * values)) for s in (0.7, 4000.0))
    np.testing.assert_allclose(a["c50"], b["c50"], rtol=1e-4)
    np.testing.assert_allclose(a["aic_difference"], b["aic_difference"], rtol=1e-4)
    np.testing.assert_allclose(a["r_max"] * 4000 / 0.7, b["r_max"], rtol=1e-4)


def test_flat_curves_are_not_fitted():
    fit = fit_naka_rushton(curves([np.full(7, 3.0), np.zeros(7)]))
    assert np.isnan(fit["c50"]).all()
    np.testing.assert_allclose(fit["intercept"], [3.0, 0.0], atol=1e-12)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: fit_naka_rushton(curves(np.ones(5), CONTRAST[:5])), "at least 6"),
        (lambda: fit_naka_rushton(curves(np.ones(7), CONTRAST - 0.1)), "from 0 up"),
        (lambda: fit_naka_rushton(curves(np.ones(7)), dim="size"), "Name one of"),
        (lambda: naka_rushton([-0.1], (1.0, 0.3, 2.0, 0.0)), "contrasts of at least 0"),
        (lambda: naka_rushton([0.1], (1.0, 0.0, 2.0, 0.0)), "c50 and n above 0"),
        (lambda: naka_rushton([0.1], (1.0, 0.3, 2.0)), r"shape \(4,\)"),
    ],
)
def test_bad_input_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
