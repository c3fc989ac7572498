r"""A local field potential's stand-in: how much the rates of a group of units change.

.. math:: L(t) = \sum_i \Big|\frac{dr_i}{dt}\Big|

Synaptic currents add up in the field whatever their sign; a rate unit's net input current is
:math:`\tau\,dr/dt` plus its leak.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr

from pcsim.measures.spectra import _sampling as sampling
from pcsim.messages import refusal
from pcsim.responses import check_responses, select

__all__ = ["lfp_proxy"]


def lfp_proxy(responses: xr.Dataset, sites: Mapping[str, Mapping[str, Any]]) -> xr.DataArray:
    """Return the summed speed of the rates of each site's units.

    Parameters
    ----------
    responses
        At even steps of time.
    sites
        Name of the site -> labels of its units, as for `pcsim.responses.select`:
        ``{"V1": {"population": "error", "level": 1}}``.

    Returns
    -------
    lfp : (trial, time, site)
        Per second, one time fewer than the responses have: each stands at the end of its step.

    Raises
    ------
    ValueError
        If no site is named, a site has no units or times are uneven.

    Examples
    --------
    >>> from pcsim.responses import make_responses
    >>> rate = np.array([[[0.0, 1.0], [0.2, 0.7]] * 4])
    >>> r = make_responses(rate, time=0.1 * np.arange(1, 9), trial={"condition": ["a"]},
    ...                    units={"population": "error", "level": [0, 0]})
    >>> lfp_proxy(r, {"V1": {"population": "error"}}).values[0, 0].round(6)
    array([5.])
    """
    where = "lfp_proxy"
    check_responses(responses, where)
    if not sites:
        raise ValueError(refusal(where, "no sites", "at least one", "Name which units to sum."))
    rate, _ = sampling(responses["rate"], where)
    columns = []
    for labels in sites.values():
        chosen = select(responses, **labels)["rate"].transpose("trial", "time", "unit")
        columns.append(np.abs(np.diff(chosen.to_numpy(), axis=1)).sum(axis=-1) * rate)
    coords = responses["rate"].isel(unit=0, drop=True).isel(time=slice(1, None)).coords
    made = xr.DataArray(
        np.stack(columns, axis=-1), {**coords, "site": list(sites)}, ("trial", "time", "site"),
        name="lfp",
    )  # fmt: skip
    made.attrs["units"] = "1/s"
    return made
