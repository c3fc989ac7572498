r"""Contrast response functions: the Naka-Rushton equation against a straight line.

.. math:: R(c) = R_{max}\frac{c^n}{c_{50}^n + c^n} + b
"""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from scipy.optimize import least_squares

from pcsim.measures.rates import rectified
from pcsim.measures.tuning import parameter_of
from pcsim.messages import check_array, refusal

__all__ = ["fit_naka_rushton", "naka_rushton", "naka_rushton_jacobian"]

Floats = NDArray[np.float64]

PARAMETERS = ("r_max", "c50", "n", "baseline")
EXPONENT = (0.3, 8.0)
"""Bounds of n; published cells lie from about 1 to 5."""

N_STARTS = 3
# Residuals below this share of the range count as none, so that rounding decides no comparison.
PRECISE = 1e-5


def naka_rushton(contrast: Any, parameters: Any) -> Floats:
    """Return the Naka-Rushton response.

    Parameters
    ----------
    contrast : (..., contrast)
        Not negative.
    parameters : (4,)
        r_max, c50, n, baseline.

    Examples
    --------
    >>> naka_rushton([0.0, 0.3], (10.0, 0.3, 2.4, 1.5))
    array([1.5, 6.5])
    """
    contrast, (r_max, c50, n, baseline) = _checked(contrast, parameters)
    return np.asarray(r_max * _share(contrast, c50, n) + baseline)


def _checked(contrast: Any, parameters: Any) -> tuple[Floats, Floats]:
    values = check_array("naka_rushton", "contrast", contrast).astype(np.float64)
    chosen = check_array("naka_rushton", "parameters", parameters, shape=(4,)).astype(np.float64)
    if (values < 0).any() or chosen[1] <= 0 or chosen[2] <= 0:
        found = f"contrast from {values.min():.6g}, c50 {chosen[1]:.6g}, n {chosen[2]:.6g}"
        expected = "contrasts of at least 0, c50 and n above 0"
        raise ValueError(refusal("naka_rushton", found, expected))
    return values, chosen


def _share(contrast: Floats, c50: Any, n: Any) -> Floats:
    """c^n / (c50^n + c^n), written so that no power overflows; 0 at contrast 0."""
    seen = contrast > 0
    exponent = n * (np.log(c50) - np.log(np.where(seen, contrast, 1.0)))
    return np.where(seen, 1.0 / (1.0 + np.exp(np.clip(exponent, -500.0, 500.0))), 0.0)


def naka_rushton_jacobian(contrast: Any, parameters: Any) -> Floats:
    r"""Return the derivatives of `naka_rushton` by its parameters, (contrast, 4).

    With :math:`s = c^n / (c_{50}^n + c^n)`,

    .. math:: \frac{\partial R}{\partial c_{50}} = -R_{max} \frac{n}{c_{50}} s (1 - s), \qquad
        \frac{\partial R}{\partial n} = R_{max}\, s (1 - s) \ln\frac{c}{c_{50}}

    Examples
    --------
    >>> naka_rushton_jacobian([0.3], (10.0, 0.3, 2.4, 1.5)).round(3)
    array([[  0.5, -20. ,   0. ,   1. ]])
    """
    contrast, (r_max, c50, n, _) = _checked(contrast, parameters)
    share = _share(contrast, c50, n)
    seen = contrast > 0
    log_ratio = np.where(seen, np.log(np.where(seen, contrast, c50)) - np.log(c50), 0.0)
    slope = r_max * share * (1.0 - share)
    return np.stack([share, -slope * n / c50, slope * log_ratio, np.ones_like(share)], axis=-1)


def fit_naka_rushton(
    curve: xr.DataArray, *, dim: str = "contrast", rectify: str = "none"
) -> xr.Dataset:
    r"""Fit the Naka-Rushton equation and a straight line to each unit.

    Least squares from three starts, the best points of a grid over c50 and n where the other two
    parameters are linear. Bounds: c50 from a tenth of the lowest to ten times the highest contrast,
    n from 0.3 to 8, r_max within ten times the range of the curve, of either sign.

    .. math:: AIC = m \ln(RSS / m) + 2 (k + 1)

    with m contrasts and k = 4 parameters against k = 2 of R = a c + b. Residuals below 1e-5 of the
    range count as that, so a curve that both fit exactly goes to the line.

    Parameters
    ----------
    curve : (unit, contrast)
        At least 6 contrasts.
    dim
        The parameter with the contrasts.
    rectify
        What to do with negative values.

    Returns
    -------
    fit
        (unit,): `r_max`, `c50`, `n`, `baseline`, `r_squared`, `aic`; `slope`, `intercept`,
        `aic_linear` of the line; `aic_difference` = aic_linear - aic, above 0 if saturation is
        preferred. A flat curve gives NaN in all but the line.

    Raises
    ------
    ValueError
        If there are fewer than 6 contrasts, or one is negative.

    References
    ----------
    Naka & Rushton (1966), https://doi.org/10.1113/jphysiol.1966.sp008001

    Examples
    --------
    >>> contrast = np.array([0.0, 0.03, 0.06, 0.12, 0.25, 0.5, 1.0])
    >>> curve = xr.DataArray(naka_rushton(contrast, (20.0, 0.3, 2.4, 1.5)), dims="contrast",
    ...                      coords={"contrast": contrast})
    >>> fit = fit_naka_rushton(curve)
    >>> round(fit.n.item(), 3), round(fit.c50.item(), 3), bool(fit.aic_difference > 0)
    (2.4, 0.3, True)
    """
    where = "fit_naka_rushton"
    curve = rectified(curve.sortby(parameter_of(curve, dim, where)), rectify)
    contrast = curve[dim].values.astype(np.float64)
    if contrast.size < 6 or contrast[0] < 0 or contrast[-1] <= 0:
        found = f"{contrast.size} contrasts from {contrast[0]:.6g} to {contrast[-1]:.6g}"
        raise ValueError(refusal(where, found, "at least 6 from 0 up", "Show more contrasts."))
    names = (*PARAMETERS, "r_squared", "aic", "slope", "intercept", "aic_linear")
    fitted = xr.apply_ufunc(
        lambda values: _fit_all(values.astype(np.float64), contrast),
        curve,
        input_core_dims=[[dim]],
        output_core_dims=[["fitted"]],
    )
    fit = xr.Dataset({name: fitted.isel(fitted=i) for i, name in enumerate(names)})
    return fit.assign(aic_difference=fit["aic_linear"] - fit["aic"])


def _fit_all(curves: Floats, contrast: Floats) -> Floats:
    flat = curves.reshape(-1, contrast.size)
    rows = [_fit_one(values, contrast) for values in flat]
    return np.stack(rows).reshape(*curves.shape[:-1], -1)


def _fit_one(values: Floats, contrast: Floats) -> Floats:
    m = values.size
    span = float(np.ptp(values))
    line = np.stack([contrast, np.ones(m)], axis=1)
    slope, intercept = np.linalg.lstsq(line, values, rcond=None)[0]
    if span <= 1e-12 * float(np.abs(values).max()):
        return np.array([*[np.nan] * 6, slope, intercept, np.nan])
    floor = m * (PRECISE * span) ** 2
    rss_line = float(((values - line @ [slope, intercept]) ** 2).sum())
    best, rss = _fit_curve(values / span, contrast)
    rss *= span**2
    total = float(((values - values.mean()) ** 2).sum())
    aic, aic_linear = (
        m * np.log(max(r, floor) / m) + 2 * (k + 1) for r, k in ((rss, 4), (rss_line, 2))
    )
    best = best * np.array([span, 1.0, 1.0, span])
    return np.array([*best, 1.0 - rss / total, aic, slope, intercept, aic_linear])


def _fit_curve(values: Floats, contrast: Floats) -> tuple[Floats, float]:
    """Fit one curve of range 1, with c50 on a logarithmic axis."""
    lowest = float(contrast[contrast > 0].min())
    bounds = float(np.log(0.1 * lowest)), float(np.log(10.0 * contrast[-1]))
    low = np.array([-10.0, bounds[0], EXPONENT[0], values.min() - 10.0])
    high = np.array([10.0, bounds[1], EXPONENT[1], values.max() + 10.0])

    def natural(p: Floats) -> Floats:
        return np.array([p[0], np.exp(p[1]), p[2], p[3]])

    def residual(p: Floats) -> Floats:
        return naka_rushton(contrast, natural(p)) - values

    def jacobian(p: Floats) -> Floats:
        scale = np.array([1.0, np.exp(p[1]), 1.0, 1.0])
        return np.asarray(naka_rushton_jacobian(contrast, natural(p)) * scale)

    fits = [
        least_squares(
            residual,
            np.clip(start, low + 1e-6, high - 1e-6),
            jac=jacobian,
            bounds=(low, high),
            x_scale=[1.0, 1.0, 1.0, 1.0],
            xtol=1e-12,
            ftol=1e-12,
            gtol=1e-12,
            max_nfev=300,
        )
        for start in _starts(values, contrast, bounds)
    ]
    best = min(fits, key=lambda fit: float(fit.cost))
    return natural(best.x), 2.0 * float(best.cost)


def _starts(values: Floats, contrast: Floats, bounds: tuple[float, float]) -> Floats:
    """Return the best points of a grid over c50 and n; r_max and baseline are linear there."""
    log_c50, n = (
        grid.ravel() for grid in np.meshgrid(np.linspace(*bounds, 12), [0.7, 1.2, 2.0, 3.2, 5.0])
    )
    share = _share(contrast[None], np.exp(log_c50)[:, None], n[:, None])
    centred = share - share.mean(axis=1, keepdims=True)
    power = (centred**2).sum(axis=1)
    usable = power > 1e-9
    r_max = np.where(usable, centred @ values / np.where(usable, power, 1.0), 0.0)
    r_max = np.clip(r_max, -9.0, 9.0)
    baseline = values.mean() - r_max * share.mean(axis=1)
    rss = ((values - r_max[:, None] * share - baseline[:, None]) ** 2).sum(axis=1)
    chosen = np.argsort(rss, kind="stable")[:N_STARTS]
    return np.stack([r_max, log_c50, n, baseline], axis=1)[chosen]
