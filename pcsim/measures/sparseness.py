r"""How few units, or how few stimuli, carry the responses.

.. math:: S = \frac{1 - a}{1 - 1/n}, \qquad a = \frac{\bar r^2}{\overline{r^2}}

is 0 if all n responses are equal and 1 if a single one is not zero. Responses must not be negative,
so signed rates take ``rectify="half"`` or ``"abs"``.
"""

from __future__ import annotations

import numpy as np
import xarray as xr

from pcsim.measures.rates import mean_rate, quotient
from pcsim.messages import refusal

__all__ = ["half_max_share", "lifetime_sparseness", "population_sparseness", "treves_rolls"]


def treves_rolls(rate: xr.DataArray, dim: str) -> xr.DataArray:
    """Return the sparseness of responses along one dimension.

    Parameters
    ----------
    rate
        Not negative.
    dim
        The dimension whose n values are compared.

    Returns
    -------
    sparseness
        Without `dim`; NaN where all responses are 0.

    Raises
    ------
    ValueError
        If a response is negative or there are fewer than 2 of them.

    References
    ----------
    Treves & Rolls (1991), https://doi.org/10.1088/0954-898X_2_4_004;
    Vinje & Gallant (2000), https://doi.org/10.1126/science.287.5456.1273

    Examples
    --------
    >>> treves_rolls(xr.DataArray([0.0, 4.0, 0.0], dims="unit"), "unit").item()
    1.0
    """
    where = "treves_rolls"
    if dim not in rate.dims or rate.sizes[dim] < 2:
        found = f"dims {dict(rate.sizes)}"
        raise ValueError(refusal(where, found, f"at least 2 values along {dim!r}"))
    _check_positive(rate, where)
    # Scaling by the largest response keeps squares of tiny rates from underflowing.
    peak = rate.max(dim)
    scaled = rate / peak.where(peak > 0, 1.0)
    a = quotient(scaled.mean(dim) ** 2, (scaled**2).mean(dim))
    return ((1.0 - a) / (1.0 - 1.0 / rate.sizes[dim])).rename("sparseness")


def _check_positive(rate: xr.DataArray, where: str) -> None:
    if not bool(np.isfinite(rate).all()) or bool((rate < 0).any()):
        found = f"rates from {float(rate.min()):.6g}, or not finite"
        advice = "Pass rectify='half' or 'abs'."
        raise ValueError(refusal(where, found, "finite rates of at least 0", advice))


def lifetime_sparseness(
    responses: xr.Dataset, *, rectify: str, window: slice | None = None
) -> xr.DataArray:
    """Return how selective each unit is over trials.

    Parameters
    ----------
    responses
        One stimulus a trial.
    rectify
        "half" or "abs" for signed rates, "none" for rates that are not negative.
    window
        Seconds, both ends included; None for all times.

    Returns
    -------
    sparseness : (unit,)

    Examples
    --------
    >>> from pcsim.responses import make_responses
    >>> r = make_responses(np.array([5.0, 0.0]).reshape(2, 1, 1), time=[0.1],
    ...                    units={"population": "latent", "level": 1},
    ...                    trial={"condition": ["a", "b"]})
    >>> lifetime_sparseness(r, rectify="none").item()
    1.0
    """
    return treves_rolls(mean_rate(responses, window=window, rectify=rectify), "trial")


def population_sparseness(
    responses: xr.Dataset, *, rectify: str, window: slice | None = None
) -> xr.DataArray:
    """Return how few units respond in each trial, (trial,); parameters as `lifetime_sparseness`."""
    return treves_rolls(mean_rate(responses, window=window, rectify=rectify), "unit")


def half_max_share(
    responses: xr.Dataset, *, rectify: str, window: slice | None = None
) -> xr.DataArray:
    """Return the share of units above half of their own largest response, in each trial.

    The largest response grows with the number of stimuli, so compare only equal numbers of them.

    Parameters
    ----------
    responses
        One stimulus a trial.
    rectify, window
        As in `lifetime_sparseness`.

    Returns
    -------
    share : (trial,)
        From 0 to 1. Units that never respond count in the denominator.

    References
    ----------
    Tang et al. (2018), https://doi.org/10.7554/eLife.33370

    Examples
    --------
    >>> from pcsim.responses import make_responses
    >>> r = make_responses(np.array([[5.0, 1.0], [2.0, 9.0]]).reshape(2, 1, 2), time=[0.1],
    ...                    units={"population": "latent", "level": 1},
    ...                    trial={"condition": ["a", "b"]})
    >>> half_max_share(r, rectify="none").values
    array([0.5, 0.5])
    """
    rate = mean_rate(responses, window=window, rectify=rectify)
    _check_positive(rate, "half_max_share")
    # NaN compares as false, so units without any response are never above half.
    peak = rate.max("trial")
    return (rate > 0.5 * peak.where(peak > 0)).mean("unit").rename("half_max_share")
