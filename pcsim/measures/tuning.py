r"""Tuning curves and the indices read from them.

A tuning curve has dimensions (unit, parameter). Where a curve can be negative (error units carry
signed rates), say what stands for the recorded response: ``rectify`` is "none", "half" or "abs"
(`pcsim.measures.rates.rectified`).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from pcsim.measures.rates import mean_rate, quotient, rectified, trial_groups
from pcsim.messages import check_choice, check_number, refusal

__all__ = [
    "end_stopping_index",
    "half_width",
    "optimal_value",
    "parameter_of",
    "peak_and_plateau",
    "suppression_index",
    "tuning_curve",
]

Floats = NDArray[np.float64]


def tuning_curve(
    responses: xr.Dataset,
    parameter: str | Sequence[str],
    *,
    rectify: str,
    window: slice | None = None,
) -> xr.DataArray:
    """Return the mean rate of each unit for each value of a stimulus parameter.

    Trials that share the value are averaged, whatever else differs between them; select conditions
    first. Rates are rectified at each instant, before any mean.

    Parameters
    ----------
    responses
    parameter
        Name of a label on `trial`, or several of them, of which every combination must be there.
    rectify
        "none", "half" or "abs": what to do with negative rates.
    window
        Seconds, both ends included; None for all times.

    Returns
    -------
    curve : (unit, parameter, ...)
        With the labels of the units; values of the parameter sorted.

    Raises
    ------
    ValueError
        If there is no such parameter or a combination is missing.

    Examples
    --------
    >>> from pcsim.responses import make_responses
    >>> r = make_responses(np.array([2.0, 6.0, 4.0]).reshape(3, 1, 1), time=[0.1],
    ...                    units={"population": "error", "level": 0},
    ...                    trial={"condition": ["bar"] * 3, "length": [5.0, 9.0, 5.0]})
    >>> tuning_curve(r, "length", rectify="none").values
    array([[3., 6.]])
    """
    names = (parameter,) if isinstance(parameter, str) else parameter
    if not isinstance(names, Sequence):
        found, advice = f"parameter {parameter!r}"[:80], "Name a label on trial."
        raise TypeError(refusal("tuning_curve", found, "a name or several", advice))
    names = tuple(names)
    if not names or any(name in names[:i] for i, name in enumerate(names)):
        raise ValueError(refusal("tuning_curve", f"parameters {names}", "different names"))
    rate = mean_rate(responses, window=window, rectify=rectify)
    return trial_groups(rate, names, "tuning_curve").transpose("unit", *names)


def parameter_of(
    curve: xr.DataArray, dim: str | None, where: str, *, infinite: bool = False
) -> str:
    """Return the dimension of the parameter: `dim`, or the only one beside `unit`.

    An infinite value, as of a grating that fills the field, is refused unless `infinite`: one can
    rank it, but neither fit nor interpolate.
    """
    if not isinstance(curve, xr.DataArray):
        advice = "Make the curve with tuning_curve."
        raise TypeError(refusal(where, f"a {type(curve).__name__}", "a tuning curve", advice))
    others = [str(d) for d in curve.dims if d != "unit"]
    if dim is None and len(others) == 1:
        dim = others[0]
    if dim is None or dim not in curve.dims or dim not in curve.coords:
        found, expected = f"dims {curve.dims} and dim {dim!r}", "a labelled dimension to measure"
        raise ValueError(refusal(where, found, expected, f"Name one of {others} as dim."))
    values = curve.coords[dim].values
    if values.dtype.kind not in "fiu" or not bool(np.isfinite(curve).all()):
        found = f"a curve over {dim} of dtype {values.dtype}, or values that are not finite"
        raise ValueError(refusal(where, found, "numbers and finite rates"))
    bad = np.isnan(values) if infinite else ~np.isfinite(values)
    if bad.any():
        found = f"{int(bad.sum())} of {values.size} values of {dim} NaN or infinite"
        advice = "Drop the blanks before the curve is made: where the parameter is NaN."
        if not np.isnan(values).any():
            advice = "Drop these, or give them a finite value."
        raise ValueError(refusal(where, found, "finite values", advice))
    return dim


def peak_and_plateau(
    curve: xr.DataArray, *, limit: float, dim: str | None = None, rectify: str = "none"
) -> xr.Dataset:
    """Return the largest value of each curve and its mean where the parameter exceeds `limit`.

    Parameters
    ----------
    curve : (unit, parameter)
    limit
        In the units of the parameter. The peak is looked for at all values.
    dim, rectify
        The parameter, if there are several dimensions; what to do with negative values.

    Returns
    -------
    dataset
        `peak` and `plateau`, both (unit,).

    Raises
    ------
    ValueError
        If no value lies above `limit`, or all do.

    Examples
    --------
    >>> curve = xr.DataArray([1.0, 8.0, 3.0, 1.0], dims="length", coords={"length": [2, 6, 20, 24]})
    >>> result = peak_and_plateau(curve, limit=18)
    >>> result.peak.item(), result.plateau.item()
    (8.0, 2.0)
    """
    where = "peak_and_plateau"
    dim = parameter_of(curve, dim, where, infinite=True)
    limit = check_number(where, "limit", limit)
    above = curve[dim].values > limit
    if not above.any() or above.all():
        low, high = float(curve[dim].min()), float(curve[dim].max())
        found = f"limit {limit:.6g} for {dim} from {low:.6g} to {high:.6g}"
        raise ValueError(refusal(where, found, "values on both sides of the limit"))
    values = rectified(curve, rectify)
    plateau = values.isel({dim: np.flatnonzero(above)}).mean(dim)
    return xr.Dataset({"peak": values.max(dim), "plateau": plateau})


def suppression_index(
    curve: xr.DataArray,
    *,
    limit: float | None = None,
    dim: str | None = None,
    rectify: str = "none",
) -> xr.DataArray:
    r"""Return the surround suppression index.

    .. math:: SSI = \frac{R_{peak} - R_{plateau}}{R_{peak}}

    0 without suppression, 1 if the plateau is silent; above 1 if the plateau is negative and kept
    so by ``rectify="none"``.

    Parameters
    ----------
    curve : (unit, size)
    limit
        The plateau is the mean where the parameter exceeds this; None: the largest value alone.
    dim, rectify
        As in `peak_and_plateau`.

    Returns
    -------
    index : (unit,)
        NaN where the peak is not above zero.

    References
    ----------
    Cavanaugh, Bair & Movshon (2002), https://doi.org/10.1152/jn.00692.2001

    Examples
    --------
    >>> curve = xr.DataArray([1.0, 8.0, 6.0], dims="diameter", coords={"diameter": [0.2, 1.0, 5.0]})
    >>> suppression_index(curve).item()
    0.25
    """
    dim = parameter_of(curve, dim, "suppression_index", infinite=True)
    if limit is None:
        values = np.sort(curve[dim].values)
        if values.size < 2:
            found = f"{values.size} value of {dim}"
            raise ValueError(refusal("suppression_index", found, "at least 2"))
        limit = float(0.5 * (values[-2] + values[-1]))
    both = peak_and_plateau(curve, limit=limit, dim=dim, rectify=rectify)
    return quotient(both["peak"] - both["plateau"], both["peak"]).rename("suppression_index")


def end_stopping_index(
    curve: xr.DataArray, *, limit: float, dim: str | None = None, rectify: str = "none"
) -> xr.DataArray:
    r"""Return the end-stopping index in percent.

    .. math:: ES = 100\,\frac{R_{peak} - R_{plateau}}{R_{peak}}

    with the plateau the mean over bars longer than `limit`. A unit counts as end-stopped above 50.

    Parameters
    ----------
    curve : (unit, length)
    limit
        In the units of the parameter; 18 pixels for receptive fields of 5 x 10 pixels.
    dim, rectify
        As in `peak_and_plateau`. With "none" a plateau below zero gives more than 100.

    Returns
    -------
    index : (unit,)
        NaN where the peak is not above zero.

    References
    ----------
    Rao & Ballard (1999), https://doi.org/10.1038/4580

    Examples
    --------
    >>> curve = xr.DataArray([1.0, 8.0, 3.0, 1.0], dims="length", coords={"length": [2, 6, 20, 24]})
    >>> end_stopping_index(curve, limit=18).item()
    75.0
    """
    both = peak_and_plateau(curve, limit=limit, dim=dim, rectify=rectify)
    index = 100.0 * quotient(both["peak"] - both["plateau"], both["peak"])
    return index.rename("end_stopping_index")


def optimal_value(
    curve: xr.DataArray, *, dim: str | None = None, rectify: str = "none"
) -> xr.DataArray:
    """Return the value of the parameter with the largest response; of equal ones the smallest.

    Examples
    --------
    >>> curve = xr.DataArray([1.0, 8.0, 6.0], dims="diameter", coords={"diameter": [0.2, 1.0, 5.0]})
    >>> optimal_value(curve).item()
    1.0
    """
    dim = parameter_of(curve, dim, "optimal_value", infinite=True)
    return rectified(curve.sortby(dim), rectify).idxmax(dim).rename(f"optimal_{dim}")


def half_width(
    curve: xr.DataArray,
    *,
    dim: str | None = None,
    period: float | None = None,
    floor: str = "minimum",
    rectify: str = "none",
) -> xr.DataArray:
    """Return the half width at half height of a tuning curve.

    From the peak, both sides are followed down to half height with straight lines between the
    points; the half width is the mean of the two distances.

    Parameters
    ----------
    curve : (unit, parameter)
    dim
        The parameter, if there are several dimensions.
    period
        For circular parameters: pi for orientation, 2 pi for direction.
    floor
        Height counts from the curve's "minimum" or from "zero".
    rectify
        What to do with negative values.

    Returns
    -------
    width : (unit,)
        In the units of the parameter; NaN if a side does not fall to half height or the curve is
        flat.

    Examples
    --------
    >>> angle = np.arange(8) * np.pi / 8
    >>> curve = xr.DataArray(np.cos(2 * angle), dims="angle", coords={"angle": angle})
    >>> round(half_width(curve, period=np.pi).item() / np.pi, 3)
    0.25
    """
    where = "half_width"
    dim = parameter_of(curve, dim, where)
    check_choice(where, "floor", floor, ("minimum", "zero"))
    curve = rectified(curve.sortby(dim), rectify)
    at = curve[dim].values.astype(np.float64)
    if period is not None:
        period = check_number(where, "period", period, positive=True)
        if at[-1] - at[0] >= period * (1 - 1e-9):
            found = f"{dim} from {at[0]:.6g} to {at[-1]:.6g}"
            raise ValueError(refusal(where, found, f"less than one period of {period:.6g}"))
    if at.size < 3:
        raise ValueError(refusal(where, f"{at.size} values of {dim}", "at least 3"))
    width: xr.DataArray = xr.apply_ufunc(
        lambda values: _half_widths(values, at, period, floor == "minimum"),
        curve,
        input_core_dims=[[dim]],
    )
    return width.rename("half_width")


def _half_widths(curves: Floats, at: Floats, period: float | None, from_minimum: bool) -> Floats:
    flat = curves.reshape(-1, at.size)
    widths = np.full(flat.shape[0], np.nan)
    for row, values in enumerate(flat):
        peak = int(np.argmax(values))
        base = float(values.min()) if from_minimum else 0.0
        half = 0.5 * (float(values[peak]) + base)
        if values[peak] <= half:
            continue
        sides = []
        for step in (1, -1):
            if period is None:
                index = np.arange(peak, at.size if step > 0 else -1, step)
                distance = np.abs(at[index] - at[peak])
            else:
                index = (peak + step * np.arange(at.size)) % at.size
                distance = (step * (at[index] - at[peak])) % period
            sides.append(_fall(values[index], distance, half))
        widths[row] = 0.5 * (sides[0] + sides[1])
    return widths.reshape(curves.shape[:-1])


def _fall(values: Floats, distance: Floats, half: float) -> float:
    below = np.flatnonzero(values <= half)
    if below.size == 0:
        return float("nan")
    j = int(below[0])
    share = (values[j - 1] - half) / (values[j - 1] - values[j])
    return float(distance[j - 1] + share * (distance[j] - distance[j - 1]))
