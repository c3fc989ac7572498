"""How sharply units prefer one orientation or direction.

Angles are radians. Curves come from `pcsim.measures.tuning.tuning_curve`; the indices need values
that are not negative, so signed rates take ``rectify="half"`` or ``"abs"``.
"""

from __future__ import annotations

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from pcsim.measures.rates import quotient, rectified
from pcsim.measures.tuning import parameter_of
from pcsim.messages import check_number, refusal

__all__ = ["circular_selectivity", "direction_selectivity", "orientation_selectivity"]

Floats = NDArray[np.float64]


def orientation_selectivity(
    curve: xr.DataArray, *, dim: str = "orientation", rectify: str = "none", fold: bool = True
) -> xr.DataArray:
    r"""Return the orientation selectivity index.

    .. math:: OSI = \frac{R_{pref} - R_{orth}}{R_{pref} + R_{orth}}

    Between measured angles the curve is interpolated linearly; the period is pi.

    Parameters
    ----------
    curve : (unit, orientation)
        Radians. Directions (period 2 pi) are folded to orientations by their mean.
    dim, rectify
        The parameter; what to do with negative values.
    fold
        False, for directions: the preferred direction alone against the mean of the two at a right
        angle to it, as in the tables of the Allen Institute.

    Returns
    -------
    index : (unit,)
        From 0 to 1, without folding from -1; NaN for units without response.

    Raises
    ------
    ValueError
        If values are negative: an index of signed rates has no meaning.

    Examples
    --------
    >>> angle = np.arange(4) * np.pi / 4
    >>> curve = xr.DataArray(3 + np.cos(2 * angle), dims="orientation",
    ...                      coords={"orientation": angle})
    >>> round(orientation_selectivity(curve).item(), 3)
    0.333
    """
    curve = _without_sign(curve, dim, rectify, "orientation_selectivity")
    if fold:
        curve, at = _folded(curve, dim)
        index = _index(curve, at, dim, np.pi, (0.5 * np.pi,))
    else:
        at = _within_a_turn(curve, dim, "orientation_selectivity")
        index = _index(curve, at, dim, 2 * np.pi, (0.5 * np.pi, 1.5 * np.pi))
    return index.rename("orientation_selectivity")


def _without_sign(curve: xr.DataArray, dim: str, rectify: str, where: str) -> xr.DataArray:
    values = rectified(curve.sortby(parameter_of(curve, dim, where)), rectify)
    if bool((values < 0).any()):
        found = f"values down to {float(values.min()):.6g}"
        raise ValueError(refusal(where, found, "none below 0", "Pass rectify='half' or 'abs'."))
    return values


def _folded(curve: xr.DataArray, dim: str) -> tuple[xr.DataArray, Floats]:
    """Average angles that differ by pi."""
    at = np.mod(curve[dim].values.astype(np.float64), np.pi)
    at = np.where(np.pi - at < 1e-9, 0.0, at)
    _, first, inverse = np.unique(at.round(9), return_index=True, return_inverse=True)
    parts = [curve.isel({dim: np.flatnonzero(inverse == k)}).mean(dim) for k in range(first.size)]
    return xr.concat(parts, dim=xr.DataArray(at[first], dims=dim, name=dim)), at[first]


def _within_a_turn(curve: xr.DataArray, dim: str, where: str) -> Floats:
    at: Floats = curve[dim].values.astype(np.float64)
    if at[-1] - at[0] >= 2 * np.pi * (1 - 1e-9):
        found = f"{dim} from {at[0]:.6g} to {at[-1]:.6g}"
        raise ValueError(refusal(where, found, "radians within one turn"))
    return at


def _index(
    curve: xr.DataArray, at: Floats, dim: str, period: float, offsets: tuple[float, ...]
) -> xr.DataArray:
    """(pref - other) / (pref + other), the other the mean at some angles from the preferred."""
    if at.size < 3:
        found = f"{at.size} values of {dim}"
        raise ValueError(refusal("selectivity", found, "at least 3 within a period"))

    def index(values: Floats) -> Floats:
        flat = values.reshape(-1, at.size)
        preferred = at[flat.argmax(axis=1)]
        other = np.array(
            [
                np.interp(angle + np.array(offsets), at, row, period=period).mean()
                for angle, row in zip(preferred, flat, strict=True)
            ]
        )
        top = flat.max(axis=1)
        total = np.where(top > 0, top + other, 1.0)
        return np.where(top > 0, (top - other) / total, np.nan).reshape(values.shape[:-1])

    result: xr.DataArray = xr.apply_ufunc(index, curve, input_core_dims=[[dim]])
    return result


def direction_selectivity(
    curve: xr.DataArray, *, dim: str = "direction", rectify: str = "none"
) -> xr.DataArray:
    r"""Return the direction selectivity index.

    .. math:: DSI = \frac{R_{pref} - R_{null}}{R_{pref} + R_{null}}

    Parameters
    ----------
    curve : (unit, direction)
        Radians, within 2 pi.
    dim, rectify
        As in `orientation_selectivity`.

    Returns
    -------
    index : (unit,)
        From 0 to 1; NaN for units without response.

    Examples
    --------
    >>> angle = np.arange(4) * np.pi / 2
    >>> curve = xr.DataArray([4.0, 1.0, 1.0, 1.0], dims="direction", coords={"direction": angle})
    >>> direction_selectivity(curve).item()
    0.6
    """
    where = "direction_selectivity"
    curve = _without_sign(curve, dim, rectify, where)
    at = _within_a_turn(curve, dim, where)
    return _index(curve, at, dim, 2 * np.pi, (np.pi,)).rename(where)


def circular_selectivity(
    curve: xr.DataArray, *, period: float, dim: str | None = None, rectify: str = "none"
) -> xr.DataArray:
    r"""Return one minus the circular variance, the length of the mean response vector.

    .. math:: L = \frac{|\sum_k R_k\, e^{2\pi i \theta_k / P}|}{\sum_k R_k}

    Angles must be evenly spaced over the period.

    Parameters
    ----------
    curve : (unit, angle)
    period
        pi for orientation, 2 pi for direction.
    dim, rectify
        As in `orientation_selectivity`.

    Returns
    -------
    length : (unit,)
        From 0 (flat) to 1 (one angle only); NaN for units without response.

    References
    ----------
    Ringach, Shapley & Hawken (2002), https://doi.org/10.1523/JNEUROSCI.22-13-05639.2002

    Examples
    --------
    >>> angle = np.arange(6) * np.pi / 6
    >>> curve = xr.DataArray(3 + np.cos(2 * angle), dims="angle", coords={"angle": angle})
    >>> round(circular_selectivity(curve, period=np.pi).item(), 4)
    0.1667
    """
    where = "circular_selectivity"
    dim = parameter_of(curve, dim, where)
    period = check_number(where, "period", period, positive=True)
    curve = _without_sign(curve, dim, rectify, where)
    at = curve[dim].values.astype(np.float64)
    gaps = np.diff(np.append(at, at[0] + period))
    if not np.allclose(gaps, period / at.size, rtol=1e-6, atol=0.0):
        found = f"{dim} with gaps {gaps.min():.6g} to {gaps.max():.6g}"
        expected = f"angles evenly spaced over {period:.6g}"
        raise ValueError(refusal(where, found, expected, "Leave out the repeated angle."))
    phase = xr.DataArray(2 * np.pi * at / period, dims=dim, coords={dim: at})
    real, imaginary = (curve * np.cos(phase)).sum(dim), (curve * np.sin(phase)).sum(dim)
    return quotient((real**2 + imaginary**2) ** 0.5, curve.sum(dim)).rename(where)
