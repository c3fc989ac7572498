"""Spikes from rates: the inhomogeneous Poisson process with an absolute refractory period."""

from __future__ import annotations

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from pcsim.messages import check_integer, check_number, refusal
from pcsim.neural_spikes import make_spikes, renamed
from pcsim.responses import check_responses

__all__ = ["bin_width_of", "spikes_from_rates"]

Floats = NDArray[np.float64]


def spikes_from_rates(
    responses: xr.Dataset,
    *,
    seed: int,
    refractory: float = 0.0,
    hz_per_unit: float | None = None,
) -> xr.Dataset:
    r"""Draw spikes whose expected rate is the rate of the responses, refractory or not.

    After a spike none follows for a time :math:`\tau`. With the hazard

    .. math:: h(t) = \frac{r(t)}{1 - \int_{t-\tau}^{t} r(s)\,ds}

    outside of that time, the expected rate is :math:`r(t)` exactly: the denominator is the chance
    not to be refractory. Without refractoriness this is the Poisson process. A constant rate gives
    intervals :math:`\tau + \mathrm{Exp}(h)` and a Fano factor that tends to :math:`(1 - r\tau)^2`.

    Parameters
    ----------
    responses
        Rates, not negative, held over the bin that ends at each time.
    seed
        The same seed gives the same spikes.
    refractory
        :math:`\tau`, seconds.
    hz_per_unit
        How many Hz a rate of 1 stands for; only rates with the unit "Hz" do without.

    Returns
    -------
    spikes
        With the labels of the responses.

    Raises
    ------
    ValueError
        If rates are negative, have no unit, or are too high for `refractory`.

    References
    ----------
    Berry & Meister (1998), https://doi.org/10.1523/JNEUROSCI.18-06-02200.1998

    Examples
    --------
    >>> from pcsim.responses import make_responses
    >>> r = make_responses(np.full((1, 10, 1), 50.0), time=np.arange(1, 11) * 0.1,
    ...                    units={"population": "output", "level": 0},
    ...                    trial={"condition": ["on"]})
    >>> spikes = spikes_from_rates(r, seed=1, refractory=0.002, hz_per_unit=1.0)
    >>> bool(spikes.spike_time.diff("spike").min() >= 0.002)
    True
    """
    where = "spikes_from_rates"
    responses = check_responses(responses, where)
    tau = check_number(where, "refractory", refractory, low=0.0)
    rng = np.random.default_rng(check_integer(where, "seed", seed))
    rate = _in_hz(responses, hz_per_unit)
    width = bin_width_of(responses, where)
    n_trials, n_bins, n_units = rate.shape
    start = float(responses["time"][0]) - width
    if tau > 0 and float(rate.max()) * tau >= 1.0:
        found = f"rates up to {rate.max():.6g} Hz"
        expected = f"less than 1 / refractory = {1 / tau:.6g} Hz"
        raise ValueError(refusal(where, found, expected, "Shorten refractory or scale the rates."))
    trains = [
        [start + _train(rate[i, :, j], width, tau, rng) for j in range(n_units)]
        for i in range(n_trials)
    ]
    skip = ("trial", "unit", "start", "stop")
    labels = {
        dim: {
            str(n): c.values
            for n, c in responses.coords.items()
            if c.dims == (dim,) and n not in skip
        }
        for dim in ("trial", "unit")
    }
    spikes = make_spikes(
        trains,
        start=start,
        stop=start + n_bins * width,
        units=labels["unit"],
        trial=labels["trial"],
        attrs={**responses.attrs, "spike_seed": seed, "refractory": tau},
    )
    return renamed(spikes, unit=responses["unit"].values, trial=responses["trial"].values)


def _in_hz(responses: xr.Dataset, hz_per_unit: float | None) -> Floats:
    where, unit = "spikes_from_rates", responses["rate"].attrs.get("units", "a.u.")
    if hz_per_unit is None and unit != "Hz":
        advice = "Say with hz_per_unit how many Hz a rate of 1 stands for."
        raise ValueError(refusal(where, f"rates in {unit}", "rates in Hz", advice))
    scale = (
        1.0
        if hz_per_unit is None
        else check_number(where, "hz_per_unit", hz_per_unit, positive=True)
    )
    rate: Floats = scale * responses["rate"].values.astype(np.float64)
    if (rate < 0).any():
        found = f"rates down to {rate.min():.6g} Hz"
        advice = "Split signed rates into halves first (measures.rectified)."
        raise ValueError(refusal(where, found, "none below 0", advice))
    return rate


def bin_width_of(responses: xr.Dataset, where: str) -> float:
    """Return the length of the bins of responses, seconds: their label, or the step of time."""
    if "bin_width" in responses.coords:
        return float(responses["bin_width"])
    steps = np.diff(responses["time"].values)
    if steps.size == 0 or not np.allclose(steps, steps[0], rtol=1e-3, atol=0.0):
        found = f"{steps.size + 1} times without one step"
        advice = "Add it with assign_coords(bin_width=...)."
        raise ValueError(refusal(where, found, "evenly spaced times or a bin_width", advice))
    return float(steps.mean())


def _train(rate: Floats, width: float, tau: float, rng: np.random.Generator) -> Floats:
    """Thin a homogeneous process to the hazard, then let every spike silence what follows it."""
    duration = width * rate.size
    expected = np.concatenate([[0.0], np.cumsum(rate * width)])
    edges = width * np.arange(rate.size + 1)
    # No window of length tau holds more than tau times the highest rate.
    highest = float(rate.max()) / (1.0 - float(rate.max()) * tau)
    times = np.sort(rng.uniform(0.0, duration, rng.poisson(highest * duration)))
    at = np.minimum((times / width).astype(np.intp), rate.size - 1)
    recent = np.interp(times, edges, expected) - np.interp(times - tau, edges, expected)
    kept = times[rng.uniform(size=times.size) * highest * (1.0 - recent) < rate[at]]
    return _with_dead_time(kept, tau)


def _with_dead_time(times: Floats, tau: float) -> Floats:
    """Leave out, in order, every spike closer than `tau` to the last one that was kept."""
    while tau > 0:
        close = np.diff(times, prepend=-np.inf) < tau
        # Of a run of close spikes only the first is surely silenced: its forerunner stays.
        first = close & ~np.concatenate([[False], close[:-1]])
        if not first.any():
            break
        times = times[~first]
    return times
