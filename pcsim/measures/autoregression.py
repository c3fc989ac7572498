r"""Autoregressions of several channels: fitted by least squares, their spectra and causality.

.. math:: y(t) = \sum_{k=1}^p A_k\, y(t - k) + e(t), \qquad e \sim N(0, \Sigma), \qquad
    H(f) = \Big(1 - \sum_k A_k e^{-2\pi i f k / r}\Big)^{-1}

with :math:`r` samples per second; the spectral density is :math:`H \Sigma H^* / r`.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import permutations

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from pcsim.measures.granger import labelled_channels, pair_granger
from pcsim.messages import check_array, check_integer, check_number, refusal

__all__ = ["Autoregression", "fit_autoregression", "parametric_granger"]

Floats = NDArray[np.float64]
Complex = NDArray[np.complex128]

PER_COEFFICIENT = 5
"""Observations that each coefficient needs at least."""
MEMORIES = 8.0
"""Slowest time constants that a trial must hold: below about 8, a random walk is not ruled out
(the 5 % point of n (1 - root); Dickey & Fuller 1979)."""


@dataclass(frozen=True, kw_only=True)
class Autoregression:
    """A known or fitted autoregression.

    Parameters
    ----------
    coefficients : (lag, channel, channel)
        A_1, A_2 ...; row: the channel that is predicted.
    covariance : (channel, channel)
        Sigma.
    rate
        Samples per second.

    Examples
    --------
    >>> slow = Autoregression(coefficients=[[[0.7]]], covariance=[[4.0]], rate=100.0)
    >>> slow.spectrum([0.0]).real.round(4).ravel()  # 4 / (1 - 0.7)^2 / 100
    array([0.4444])
    >>> round(slow.memory, 4)  # -0.01 / ln 0.7
    0.028
    """

    coefficients: Floats
    covariance: Floats
    rate: float

    def __post_init__(self) -> None:
        where = "Autoregression"
        check_array(where, "coefficients", self.coefficients, shape=("lag", "n", "n"))
        covariance = check_array(where, "covariance", self.covariance, shape=("n", "n"))
        check_number(where, "rate", self.rate, positive=True)
        if len(covariance) != np.shape(self.coefficients)[1]:
            found = f"{len(covariance)} channels in the covariance"
            raise ValueError(refusal(where, found, f"{np.shape(self.coefficients)[1]}"))

    def transfer(self, frequency: Floats) -> Complex:
        """Return H (frequency, channel, channel) at frequencies in Hz."""
        coefficients = np.asarray(self.coefficients, dtype=np.float64)
        lags = np.arange(1, len(coefficients) + 1)
        turn = np.exp(-2j * np.pi * np.asarray(frequency)[:, None] * lags / self.rate)
        past = np.einsum("fk,kab->fab", turn, coefficients)
        inverse: Complex = np.linalg.inv(np.eye(coefficients.shape[1]) - past)
        return inverse

    def spectrum(self, frequency: Floats) -> Complex:
        """Return the two-sided spectral density (frequency, channel, channel), per Hz."""
        transfer = self.transfer(frequency)
        noise = np.asarray(self.covariance, dtype=np.float64)
        density: Complex = transfer @ noise @ np.swapaxes(transfer, -1, -2).conj() / self.rate
        return density

    @property
    def memory(self) -> float:
        """Seconds in which the slowest mode decays to 1/e; infinite if one does not decay."""
        coefficients = np.asarray(self.coefficients, dtype=np.float64)
        order, n = coefficients.shape[:2]
        companion = np.zeros((order * n, order * n))
        companion[:n] = np.concatenate(list(coefficients), axis=1)
        companion[n:, :-n] = np.eye((order - 1) * n)
        radius = float(np.abs(np.linalg.eigvals(companion)).max())
        if radius <= 0.0:
            return 0.0
        return float("inf") if radius >= 1.0 else float(-1.0 / np.log(radius) / self.rate)


def fit_autoregression(
    signal: xr.Dataset | xr.DataArray, *, order: int | None = None, max_order: int = 20
) -> Autoregression:
    """Fit an autoregression to all channels at once, by least squares over all trials.

    The mean of each channel is taken off; no lag reaches from one trial into another.

    Parameters
    ----------
    signal
        Responses, of which `lfp` is taken, or an array (trial, time, channel).
    order
        Number of lags; None takes the one from 1 to `max_order` with the lowest Bayesian
        information criterion.
    max_order
        The highest that is tried.

    Raises
    ------
    ValueError
        If there are fewer than 5 observations a coefficient, or the signal is not stationary: its
        slowest mode does not decay, or takes more than an eighth of a trial to decay.

    Examples
    --------
    >>> rng = np.random.default_rng(2)
    >>> noise = rng.normal(size=(20, 500, 1))
    >>> wave = np.zeros_like(noise)
    >>> for t in range(2, 500):
    ...     wave[:, t] = 1.2 * wave[:, t - 1] - 0.7 * wave[:, t - 2] + noise[:, t]
    >>> found = fit_autoregression(xr.DataArray(wave, dims=("trial", "time", "site"),
    ...                            coords={"time": np.arange(500) / 500}))
    >>> found.coefficients.ravel().round(1)
    array([ 1.2, -0.7])
    """
    where = "fit_autoregression"
    values, _, rate = labelled_channels(signal, where)
    return _fitted(values, rate, where, order, max_order)


def parametric_granger(
    signal: xr.Dataset | xr.DataArray,
    *,
    order: int | None = None,
    max_order: int = 20,
    n_frequencies: int = 129,
) -> xr.Dataset:
    """Return the Granger causality of all ordered pairs of channels from autoregressions.

    Parameters
    ----------
    signal
        Responses, of which `lfp` is taken, or an array (trial, time, channel).
    order, max_order
        As for `fit_autoregression`, for each pair by itself.
    n_frequencies
        From 0 to half the sampling rate.

    Returns
    -------
    dataset
        `granger` (source, target, frequency), nats; `in_time` (source, target), its mean over all
        frequencies, the causality in the time domain; `order` (source, target). NaN, and order 0,
        on the diagonal.

    Raises
    ------
    ValueError
        As `fit_autoregression`, and if there is one channel only.

    References
    ----------
    Geweke (1982), https://doi.org/10.1080/01621459.1982.10477803
    """
    where = "parametric_granger"
    check_integer(where, "n_frequencies", n_frequencies, low=9)
    values, names, rate = labelled_channels(signal, where, pairs=True)
    frequency = np.linspace(0.0, 0.5 * rate, n_frequencies)
    size = len(names)
    found = np.full((size, size, n_frequencies), np.nan)
    in_time, orders = np.full((size, size), np.nan), np.zeros((size, size), dtype=np.int64)
    for a, b in permutations(range(size), 2):
        if a > b:
            continue
        model = _fitted(values[..., [a, b]], rate, where, order, max_order)
        covariance = np.asarray(model.covariance)
        both = pair_granger(model.transfer(frequency), covariance)
        found[a, b], found[b, a] = both.T
        # The integral is exact once the spectrum is smooth at this spacing: periodic functions.
        fine = np.arange(4096) / 4096 * rate
        in_time[a, b], in_time[b, a] = pair_granger(model.transfer(fine), covariance).mean(axis=0)
        orders[a, b] = orders[b, a] = len(model.coefficients)
    pair = ("source", "target")
    return xr.Dataset(
        {
            "granger": ((*pair, "frequency"), found),
            "in_time": (pair, in_time),
            "order": (pair, orders),
        },
        coords={"source": names, "target": names, "frequency": frequency},
    )


def _fitted(
    values: Floats, rate: float, where: str, order: int | None, max_order: int
) -> Autoregression:
    n_trials, n_times, n = values.shape
    wanted = order if order is not None else max_order
    highest = check_integer(where, "max_order" if order is None else "order", wanted, low=1)
    observations = n_trials * (n_times - highest)
    if observations < PER_COEFFICIENT * highest * n:
        found = f"{max(observations, 0)} observations for {highest} lags of {n} channels"
        expected = f"at least {PER_COEFFICIENT * highest * n}"
        raise ValueError(refusal(where, found, expected, "Give more trials, or lower the order."))
    values = values - values.mean(axis=(0, 1))
    chosen = highest
    if order is None:
        # All orders are compared on the same observations.
        scores = [_bic(values, lags, highest) for lags in range(1, highest + 1)]
        chosen = 1 + int(np.argmin(scores))
    coefficients, covariance = _least_squares(values, chosen, chosen)
    model = Autoregression(coefficients=coefficients, covariance=covariance, rate=rate)
    duration = n_times / rate
    if model.memory * MEMORIES > duration:
        found = f"a mode that takes {model.memory:.3g} s to decay in trials of {duration:.3g} s"
        expected = f"at most {duration / MEMORIES:.3g} s (a stationary signal)"
        advice = "Take off slow drifts, leave out the onset, or give longer trials."
        raise ValueError(refusal(where, found, expected, advice))
    return model


def _least_squares(values: Floats, order: int, skip: int) -> tuple[Floats, Floats]:
    """Return coefficients (lag, n, n) and residual covariance, from times after `skip`."""
    n_times, n = values.shape[1:]
    past = [values[:, skip - lag : n_times - lag] for lag in range(1, order + 1)]
    regressors = np.concatenate(past, axis=-1).reshape(-1, order * n)
    target = values[:, skip:].reshape(-1, n)
    gram = regressors.T @ regressors
    if np.linalg.matrix_rank(gram, hermitian=True) < len(gram):
        found = "channels that are silent or copies of others"
        advice = "Drop them, or add noise."
        raise ValueError(refusal("autoregression", found, "channels of their own", advice))
    weights = np.linalg.solve(gram, regressors.T @ target)
    residual = target - regressors @ weights
    freedom = max(len(target) - order * n, 1)
    coefficients: Floats = np.asarray(weights, dtype=np.float64)
    coefficients = coefficients.reshape(order, n, n).transpose(0, 2, 1)
    covariance: Floats = residual.T @ residual / freedom
    return coefficients, covariance


def _bic(values: Floats, order: int, skip: int) -> float:
    _, covariance = _least_squares(values, order, skip)
    n_times, n = values.shape[1:]
    observations = values.shape[0] * (n_times - skip)
    share = (observations - order * n) / observations
    _, size = np.linalg.slogdet(covariance * share)
    return float(observations * size + order * n**2 * np.log(observations))
