r"""Receptive fields from responses to noise: the response-triggered average and least squares.

A response belongs to the frame on the screen during its bin (recorded times are the ends of bins);
lag k looks back k frames. For a linear unit
:math:`r_t = b + \sum_{k,p} w_{k,p}\, s_{t-k,p}` least squares returns w exactly, the average does
so on the mean, for white noise.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from pcsim.measures.rates import TIME_TOLERANCE, windowed
from pcsim.messages import check_integer, check_number, refusal
from pcsim.responses import check_stimulus

__all__ = ["least_squares_receptive_field", "response_triggered_average"]

Floats = NDArray[np.float64]

# Entries of the largest temporary design matrix.
BLOCK = 4_000_000
# A Gram matrix worse conditioned than this leaves no digits of the solution.
SINGULAR = 1e-11


class _Data(NamedTuple):
    """Responses and the frames they belong to, as arrays."""

    pixels: Floats
    """(trial, frame, feature)."""
    rate: Floats
    """(sample, unit), mean over the bins of a frame."""
    trial: NDArray[np.intp]
    """(sample,)"""
    frame: NDArray[np.intp]
    """(sample,)"""
    lags: NDArray[np.intp]


def response_triggered_average(
    responses: xr.Dataset,
    stimulus: xr.DataArray,
    *,
    lags: Sequence[int] | None = None,
    window: slice | None = None,
) -> xr.DataArray:
    r"""Return the covariance of response and stimulus over the variance of the stimulus.

    .. math:: w_{k,p} = \frac{\mathrm{cov}(r_t, s_{t-k,p})}{\overline{\mathrm{var}(s)}}

    For white noise it estimates the linear filter, in response per unit of luminance; for any other
    stimulus it is that filter blurred by the correlations of the stimulus.

    Parameters
    ----------
    responses
    stimulus : (trial, time, y, x) or (trial, time, feature)
        Noise or an m-sequence, with the same trials as the responses, in any order.
    lags
        Whole frames to look back, such as ``range(6)``; None: the frame on the screen alone.
    window
        Seconds of the response to use, both ends included; None: all.

    Returns
    -------
    field : (unit, y, x), or (unit, lag, y, x) if `lags` is given
        `lag` in frames, with seconds as `lag_time`; (..., feature) for features. Labels of the
        units stay; their positions x and y become `unit_x` and `unit_y`.

    Raises
    ------
    ValueError
        If trials do not match, fewer than 2 samples are left or the stimulus never changes.

    References
    ----------
    Chichilnisky (2001), https://doi.org/10.1080/713663221

    Examples
    --------
    >>> from pcsim.responses import make_responses, stimulus_array
    >>> noise = stimulus_array(np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])[:, None],
    ...                        frame_duration=0.1)
    >>> r = make_responses(noise.values @ np.array([[3.0], [-2.0]]), time=[0.1], trial=noise,
    ...                    units={"population": "error", "level": 0})
    >>> response_triggered_average(r, noise).values
    array([[ 3., -2.]])
    """
    where = "response_triggered_average"
    data = _matched(responses, stimulus, lags, window, where)
    rate = data.rate - data.rate.mean(axis=0)
    n, features = data.trial.size, data.pixels.shape[-1]
    covariance = np.empty((data.lags.size, features, rate.shape[1]))
    variance = 0.0
    for index, lag in enumerate(data.lags):
        seen = data.pixels[data.trial, data.frame - lag]
        seen = seen - seen.mean(axis=0)
        covariance[index] = seen.T @ rate / n
        variance += float((seen**2).mean()) / data.lags.size
    if variance <= 0.0:
        raise ValueError(refusal(where, "a stimulus that never changes", "noise"))
    return _labelled(covariance / variance, responses, stimulus, data.lags, lags is None)


def least_squares_receptive_field(
    responses: xr.Dataset,
    stimulus: xr.DataArray,
    *,
    lags: Sequence[int] | None = None,
    window: slice | None = None,
    ridge: float = 0.0,
) -> xr.DataArray:
    r"""Return the linear filter that explains the responses best, whatever the stimulus statistics.

    .. math:: w = (C_{ss} + \lambda\,\overline{\mathrm{var}(s)}\, I)^{-1} C_{sr}

    with covariances, so a constant is fitted too.

    Parameters
    ----------
    responses, stimulus, lags, window
        As in `response_triggered_average`.
    ridge
        :math:`\lambda`, in units of the mean variance of a pixel.

    Returns
    -------
    field : (unit, y, x), or (unit, lag, y, x) if `lags` is given

    Raises
    ------
    ValueError
        If the stimulus does not determine the filter and `ridge` is 0.

    Examples
    --------
    >>> from pcsim.responses import make_responses, stimulus_array
    >>> shown = stimulus_array(np.array([[0.0, 0.0], [1.0, 0.3], [0.0, 1.0], [0.5, 1.0]])[:, None],
    ...                        frame_duration=0.1)
    >>> r = make_responses(shown.values @ np.array([[3.0], [-2.0]]), time=[0.1], trial=shown,
    ...                    units={"population": "error", "level": 0})
    >>> least_squares_receptive_field(r, shown).values.round(9)
    array([[ 3., -2.]])
    """
    where = "least_squares_receptive_field"
    ridge = check_number(where, "ridge", ridge, low=0.0)
    data = _matched(responses, stimulus, lags, window, where)
    gram, cross = _moments(data)
    variance = float(np.trace(gram)) / gram.shape[0]
    if variance <= 0.0:
        raise ValueError(refusal(where, "a stimulus that never changes", "noise"))
    values, vectors = np.linalg.eigh(gram / variance)
    values = values + ridge
    if values[0] < SINGULAR * values[-1]:
        found = f"{data.trial.size} samples for {values.size} weights that they do not determine"
        advice = "Show more or richer stimuli, or pass ridge=0.01."
        raise ValueError(refusal(where, found, "independent pixels", advice))
    weights = vectors @ ((vectors.T @ (cross / variance)) / values[:, None])
    weights = weights.reshape(data.lags.size, -1, weights.shape[-1])
    return _labelled(weights, responses, stimulus, data.lags, lags is None)


def _moments(data: _Data) -> tuple[Floats, Floats]:
    """Covariances of the lagged stimulus with itself and with the rates, in bounded memory."""
    size = data.lags.size * data.pixels.shape[-1]
    rate = data.rate - data.rate.mean(axis=0)
    gram, cross = np.zeros((size, size)), np.zeros((size, rate.shape[1]))
    # The mean pixel is taken off first: what is left of the mean is small, so no digits are lost.
    pixels = data.pixels - data.pixels.mean(axis=(0, 1))
    total = np.zeros(size)
    step = max(1, BLOCK // size)
    for start in range(0, data.trial.size, step):
        part = slice(start, start + step)
        frames = data.frame[part, None] - data.lags
        block = pixels[data.trial[part, None], frames].reshape(frames.shape[0], size)
        gram += block.T @ block
        cross += block.T @ rate[part]
        total += block.sum(axis=0)
    n = data.trial.size
    return (gram - np.multiply.outer(total, total) / n) / n, cross / n


def _matched(
    responses: xr.Dataset,
    stimulus: xr.DataArray,
    lags: Sequence[int] | None,
    window: slice | None,
    where: str,
) -> _Data:
    rate = windowed(responses, window, where).sortby("trial").transpose("trial", "time", "unit")
    stimulus = check_stimulus(stimulus, where).sortby("trial")
    if not np.array_equal(rate["trial"].values, stimulus["trial"].values):
        found = f"{rate.sizes['trial']} and {stimulus.sizes['trial']} trials with other numbers"
        expected = "the same trials in responses and stimulus"
        raise ValueError(refusal(where, found, expected, "Select the same of both."))
    chosen = [check_integer(where, "lag", lag) for lag in ([0] if lags is None else lags)]
    if not chosen or len(set(chosen)) < len(chosen):
        raise ValueError(refusal(where, f"lags {chosen}", "different whole numbers of frames"))
    values, frame = _by_frame(rate, stimulus, where)
    usable = frame >= max(chosen)
    values, frame = values[:, usable], frame[usable]
    trial, column = np.divmod(np.arange(values.shape[0] * frame.size), max(frame.size, 1))
    if trial.size < 2:
        found = f"{trial.size} samples of frames with all lags"
        raise ValueError(refusal(where, found, "at least 2", "Show longer or more trials."))
    pixels = stimulus.values.reshape(*stimulus.shape[:2], -1).astype(np.float64)
    return _Data(
        pixels, values.reshape(trial.size, -1), trial, frame[column], np.array(chosen, np.intp)
    )


def _by_frame(
    rate: xr.DataArray, stimulus: xr.DataArray, where: str
) -> tuple[Floats, NDArray[np.intp]]:
    """Return mean rates (trial, frame, unit) and the numbers of the frames they belong to."""
    onset = stimulus["time"].values
    time = rate["time"].values
    # A bin that ends at the onset of a frame belongs to the frame before.
    frame = np.searchsorted(onset, time - TIME_TOLERANCE) - 1
    inside = (frame >= 0) & (time <= onset[-1] + float(stimulus["frame_duration"]) + TIME_TOLERANCE)
    if not inside.any():
        found = f"responses from {time[0]:.6g} to {time[-1]:.6g} s"
        expected = f"some after {onset[0]:.6g} s, while frames are shown"
        raise ValueError(refusal(where, found, expected, "Widen the window."))
    frames, starts, count = np.unique(frame[inside], return_index=True, return_counts=True)
    sums = np.add.reduceat(rate.values[:, inside], starts, axis=1)
    return sums / count[:, None], frames


def _labelled(
    weights: Floats,
    responses: xr.Dataset,
    stimulus: xr.DataArray,
    lags: NDArray[np.intp],
    single: bool,
) -> xr.DataArray:
    """(lag, feature, unit) -> (unit, lag, y, x) with the labels of units and pixels."""
    dims = stimulus.dims[2:]
    shape = (weights.shape[2], lags.size, *(stimulus.sizes[d] for d in dims))
    coords = {n: c.variable for n, c in responses.coords.items() if c.dims == ("unit",)}
    # Positions of units would clash with the pixels' axes, so they go by unit_x and unit_y here.
    coords = {f"unit_{n}" if n in dims else n: c for n, c in coords.items()}
    coords |= {d: stimulus[d].variable for d in dims if d in stimulus.coords}
    if "px_per_deg" in stimulus.coords:
        coords["px_per_deg"] = stimulus["px_per_deg"].variable
    field = xr.DataArray(
        np.moveaxis(weights, 2, 0).reshape(shape), dims=("unit", "lag", *dims), coords=coords
    ).rename("receptive_field")
    if single:
        return field.isel(lag=0)
    seconds = lags * float(stimulus["frame_duration"])
    return field.assign_coords(lag=lags, lag_time=("lag", seconds))
