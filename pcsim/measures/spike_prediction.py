r"""How well a linear-nonlinear model predicts spikes: Poisson regression, judged on unseen bins.

.. math:: \log \lambda = b + w^\top x, \qquad
    \min_{w, b} \sum_t (\lambda_t - n_t \log \lambda_t) + \tfrac12 \gamma \lVert w \rVert^2

The penalty :math:`\gamma` is chosen inside the training data; the score is what the prediction says
beyond the mean rate, in bits a spike.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pcsim.measures.encoding import contiguous_folds
from pcsim.messages import check_array, check_integer, check_number, refusal

__all__ = ["bits_per_spike", "cross_validated_bits", "lagged", "poisson_ridge"]

Floats = NDArray[np.float64]
PENALTIES = (1.0, 10.0, 100.0, 1000.0, 10_000.0)
LARGEST = 30.0
"""Largest logarithm of a predicted count: beyond the training data a prediction may run away."""


def lagged(signal: Any, n_lags: int, n_bumps: int) -> Floats:
    r"""Return the recent past of each channel through raised cosines, the newest bin first.

    Bump k of K has its peak at lag :math:`c_k = k (L - 1) / (K - 1)` of L and is
    :math:`\tfrac12 (1 + \cos(\pi (l - c_k) / d))` within one distance d of it, so that neighbours
    add up to 1.

    Parameters
    ----------
    signal : (n_bins, n_channels)
    n_lags
        Bins of the past, the present one included; bins before the first count as zero.
    n_bumps
        From 2 to `n_lags`; as many as lags gives each lag its own weight.

    Returns
    -------
    features : (n_bins, n_channels * n_bumps)

    Examples
    --------
    >>> lagged([[1.0], [2.0], [3.0]], 2, 2)
    array([[1., 0.],
           [2., 1.],
           [3., 2.]])
    """
    where = "lagged"
    signal = check_array(where, "signal", signal, shape=("n_bins", "n_channels")).astype(np.float64)
    n_lags = check_integer(where, "n_lags", n_lags, low=2)
    n_bumps = check_integer(where, "n_bumps", n_bumps, low=2)
    if n_bumps > n_lags:
        raise ValueError(refusal(where, f"{n_bumps} bumps on {n_lags} lags", "as many or fewer"))
    distance = (n_lags - 1) / (n_bumps - 1)
    away = np.arange(n_lags) - distance * np.arange(n_bumps)[:, None]
    near = np.abs(away) < distance
    basis = np.where(near, 0.5 * (1.0 + np.cos(np.pi * away / distance)), 0.0)
    padded = np.concatenate([np.zeros((n_lags - 1, signal.shape[1])), signal])
    past = np.lib.stride_tricks.sliding_window_view(padded, n_lags, axis=0)[..., ::-1]
    return np.asarray((past @ basis.T).reshape(len(signal), -1))


def poisson_ridge(
    features: Any, count: Any, *, penalty: float, start: Floats | None = None
) -> Floats:
    """Fit a Poisson regression with a penalty on the weights, by Newton's method.

    Parameters
    ----------
    features : (n_bins, n_features)
    count : (n_bins,)
        Spikes, at least one.
    penalty
        Above 0; the offset is free of it.
    start : (1 + n_features,)
        Where to begin.

    Returns
    -------
    weights : (1 + n_features,)
        The offset first.

    Raises
    ------
    RuntimeError
        If it does not come to rest.

    References
    ----------
    Paninski (2004), https://doi.org/10.1088/0954-898X_15_4_002

    Examples
    --------
    >>> fit = poisson_ridge([[0.0], [0.0], [1.0], [1.0]], [1, 3, 4, 12], penalty=1e-9)
    >>> np.exp([fit[0], fit[0] + fit[1]]).round(6)
    array([2., 8.])
    """
    where = "poisson_ridge"
    x, y = _checked(where, features, count)
    penalty = check_number(where, "penalty", penalty, positive=True)
    design = np.concatenate([np.ones((len(x), 1)), x], axis=1)
    ridge = np.r_[0.0, np.full(x.shape[1], penalty)]
    w = np.r_[np.log(y.mean()), np.zeros(x.shape[1])]
    if start is not None:
        w = check_array(where, "start", start, shape=(w.size,)).astype(np.float64)
    loss = _loss(design, y, ridge, w)
    for _ in range(100):
        rate = np.exp(np.minimum(design @ w, LARGEST))
        gradient = design.T @ (rate - y) + ridge * w
        hessian = (design * rate[:, None]).T @ design + np.diag(ridge)
        step = np.linalg.solve(hessian + 1e-9 * np.eye(len(w)), gradient)
        fall = float(gradient @ step)
        if fall < 1e-8 * max(1.0, abs(loss)):
            return np.asarray(w - step)
        size = 1.0
        while (new := _loss(design, y, ridge, w - size * step)) > loss - 1e-4 * size * fall:
            size /= 2.0
            if size < 1e-8:
                return np.asarray(w)
        w, loss = w - size * step, new
    raise RuntimeError(
        refusal(where, "weights that still move after 100 steps", "rest", "Raise penalty.")
    )


def _loss(design: Floats, y: Floats, ridge: Floats, w: Floats) -> float:
    log_rate = design @ w
    if log_rate.max() > LARGEST:
        return np.inf
    return float((np.exp(log_rate) - y * log_rate).sum() + 0.5 * (ridge * w**2).sum())


def bits_per_spike(count: Any, rate: Any, mean: float) -> float:
    r"""Return the log-likelihood of predicted counts beyond that of their mean, bits a spike.

    .. math:: \frac{1}{\sum_t n_t \ln 2} \sum_t \left( n_t \ln\frac{\lambda_t}{\bar\lambda}
        - \lambda_t + \bar\lambda \right)

    Parameters
    ----------
    count : (n_bins,)
    rate : (n_bins,)
        Predicted counts, above 0.
    mean
        The constant prediction that it is compared with, from the training data.

    Returns
    -------
    bits
        0 where no bin has a spike.

    Examples
    --------
    >>> round(bits_per_spike([0, 4], [1e-12, 4.0], 2.0), 6)  # which of two bins: one bit
    1.0
    """
    where = "bits_per_spike"
    y = check_array(where, "count", count, shape=("n_bins",)).astype(np.float64)
    rate = check_array(where, "rate", rate, shape=(len(y),), positive=True).astype(np.float64)
    mean = check_number(where, "mean", mean, positive=True)
    if not y.sum():
        return 0.0
    gain = (y * np.log(rate / mean)).sum() - rate.sum() + mean * len(y)
    return float(gain / (y.sum() * np.log(2.0)))


def cross_validated_bits(
    features: Any, count: Any, *, n_folds: int = 5, penalties: Sequence[float] = PENALTIES
) -> Floats:
    """Return the bits a spike of a Poisson regression on each fold, fitted on the others.

    Folds are contiguous. The penalty is the one that predicts best the fold after the tested one
    from the remaining ones; then all but the tested fold are fitted. Features are brought to mean 0
    and standard deviation 1 on the training data.

    Parameters
    ----------
    features : (n_bins, n_features)
    count : (n_bins,)
    n_folds
        At least 3.
    penalties
        To choose from.

    Returns
    -------
    bits : (n_folds,)
    """
    where = "cross_validated_bits"
    x, y = _checked(where, features, count)
    n_folds = check_integer(where, "n_folds", n_folds, low=3)
    label = contiguous_folds(len(x), n_folds)
    if min(y[label == fold].sum() for fold in range(n_folds)) <= 0.0:
        raise ValueError(refusal(where, "a fold without spikes", "spikes in all", "Use fewer."))
    bits = np.empty(n_folds)
    for fold in range(n_folds):
        train, test = label != fold, label == fold
        held = label == (fold + 1) % n_folds
        scores, start = [], None
        for penalty in sorted(penalties, reverse=True):
            score, start = _scored(x, y, train & ~held, held, penalty, start)
            scores.append((score, penalty))
        bits[fold], _ = _scored(x, y, train, test, max(scores)[1], start)
    return bits


def _scored(
    x: Floats, y: Floats, train: Any, test: Any, penalty: float, start: Floats | None
) -> tuple[float, Floats]:
    """Fit on some bins and score on others; return the score and the weights."""
    mean, spread = x[train].mean(axis=0), x[train].std(axis=0)
    live = spread > 1e-9 * max(float(np.abs(x).max()), 1e-300)
    scaled = np.where(live, (x - mean) / np.where(live, spread, 1.0), 0.0)
    w = poisson_ridge(scaled[train], y[train], penalty=penalty, start=start)
    rate = np.exp(np.minimum(w[0] + scaled[test] @ w[1:], LARGEST))
    return bits_per_spike(y[test], rate, float(y[train].mean())), w


def _checked(where: str, features: Any, count: Any) -> tuple[Floats, Floats]:
    x = check_array(where, "features", features, shape=("n", "n_features")).astype(np.float64)
    y = check_array(where, "count", count, shape=(len(x),)).astype(np.float64)
    if (y < 0.0).any() or y.sum() <= 0.0:
        found = f"counts from {y.min():g} that add up to {y.sum():g}"
        raise ValueError(refusal(where, found, "counts of at least 0 and a spike"))
    return x, y
