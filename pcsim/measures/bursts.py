"""Rhythms: when bursts begin, what phase they keep, and how far a line tops the spectrum."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter1d
from scipy.signal import welch

from pcsim.messages import check_array, check_number, refusal

__all__ = ["burst_latencies", "burst_onsets", "log_slope", "spectral_peak"]

Floats = NDArray[np.float64]


def burst_onsets(signal: Any, step: float, *, smoothing: float = 0.0) -> Floats:
    """Return the times at which a signal rises through the middle of its range.

    The range is that between the 5th and the 95th percentile. A burst ends below 30 % of it, and
    the next onset counts only after that. Times are interpolated between samples.

    Parameters
    ----------
    signal : (n_samples,)
    step
        Seconds between samples.
    smoothing
        Standard deviation of a Gaussian, seconds.

    Returns
    -------
    onset : (n_bursts,)
        Seconds after the first sample.

    Examples
    --------
    >>> t = np.arange(0.0, 6.0, 0.01)
    >>> burst_onsets(-np.cos(np.pi * t), 0.01).round(2)
    array([0.5, 2.5, 4.5])
    """
    where = "burst_onsets"
    step = check_number(where, "step", step, positive=True)
    values = check_array(where, "signal", signal, shape=("n_samples",)).astype(np.float64)
    if values.size == 0:
        return np.empty(0)
    if smoothing > 0.0:
        values = gaussian_filter1d(values, smoothing / step)
    low, high = np.quantile(values, [0.05, 0.95])
    if high - low <= 1e-12 * max(abs(high), abs(low)):
        return np.empty(0)
    middle, end = 0.5 * (low + high), low + 0.3 * (high - low)
    onsets, armed = [], bool(values[0] < end)
    for index in range(1, len(values)):
        if armed and values[index] >= middle:
            before, after = values[index - 1], values[index]
            share = (middle - before) / (after - before) if before < middle else 0.0
            onsets.append(step * (index - 1 + share))
            armed = False
        elif values[index] < end:
            armed = True
    return np.array(onsets)


def burst_latencies(reference: Any, follower: Any) -> tuple[Floats, Floats]:
    """Return the period of each cycle of a reference, and how long after it a follower bursts.

    Parameters
    ----------
    reference, follower : (n_bursts,)
        Onsets, seconds, ascending.

    Returns
    -------
    period, latency : (n_cycles,)
        Of the cycles in which the follower bursts; its first burst counts.

    Examples
    --------
    >>> burst_latencies([1.0, 3.0, 5.0, 7.0], [1.5, 5.4])
    (array([2., 2.]), array([0.5, 0.4]))
    """
    where = "burst_latencies"
    first = check_array(where, "reference", reference, shape=("n",)).astype(np.float64)
    second = check_array(where, "follower", follower, shape=("n",)).astype(np.float64)
    for name, onsets in (("reference", first), ("follower", second)):
        if (np.diff(onsets) <= 0.0).any():
            raise ValueError(refusal(where, f"{name} out of order", "ascending onsets"))
    if first.size < 2 or not second.size:
        return np.empty(0), np.empty(0)
    at = np.searchsorted(second, first[:-1])
    after = np.where(at < second.size, second[np.minimum(at, second.size - 1)], np.inf)
    heard = after < first[1:]
    return np.diff(first)[heard], np.asarray((after - first[:-1])[heard]).round(12)


def log_slope(period: Any, value: Any) -> float:
    """Return the slope of a value over the natural logarithm of the period, per e-fold.

    Examples
    --------
    >>> round(log_slope([0.5, 1.0, 2.0], np.log([1.0, 2.0, 4.0])), 12)  # proportional
    1.0
    """
    where = "log_slope"
    period = check_array(where, "period", period, shape=("n",), positive=True).astype(np.float64)
    value = check_array(where, "value", value, shape=(period.size,)).astype(np.float64)
    if period.size < 2 or np.ptp(period) <= 0.0:
        raise ValueError(refusal(where, "one period", "at least 2 different ones"))
    x = np.log(period) - np.log(period).mean()
    return float((x * value).sum() / (x**2).sum())


def spectral_peak(
    signal: Any, step: float, *, segment: float, band: tuple[float, float]
) -> tuple[float, float]:
    """Return the frequency of the largest power in a band, and that power over the band's median.

    Welch's method with Hann windows that overlap by a half.

    Parameters
    ----------
    signal : (n_samples, n_channels)
        Spectra are added over channels.
    step, segment
        Seconds between samples, and of a segment.
    band
        Hz.

    Returns
    -------
    frequency, ratio
        Hz; the ratio is 0 for a signal that does not vary.

    Examples
    --------
    >>> t = np.arange(0.0, 60.0, 0.02)
    >>> noise = 0.1 * np.random.default_rng(0).standard_normal(t.size)
    >>> peak = spectral_peak(
    ...     (np.sin(2 * np.pi * 1.5 * t) + noise)[:, None], 0.02, segment=10.0, band=(0.2, 6.0)
    ... )
    >>> round(peak[0], 3), peak[1] > 1000
    (1.5, True)
    """
    where = "spectral_peak"
    step = check_number(where, "step", step, positive=True)
    values = check_array(where, "signal", signal, shape=("n_samples", "n_channels"))
    n = round(check_number(where, "segment", segment, positive=True) / step)
    if not 8 <= n <= len(values):
        found = f"segments of {n} of {len(values)} samples"
        raise ValueError(refusal(where, found, "at least 8, and no more than there are"))
    frequency, power = welch(values.astype(np.float64), 1.0 / step, nperseg=n, axis=0)
    total = power.sum(axis=1)
    inside = (frequency >= band[0]) & (frequency <= band[1])
    if not inside.any():
        raise ValueError(refusal(where, f"band {band}", f"frequencies to {frequency[-1]:g} Hz"))
    best = int(np.flatnonzero(inside)[total[inside].argmax()])
    median = float(np.median(total[inside]))
    return float(frequency[best]), float(total[best]) / median if median > 0.0 else 0.0
