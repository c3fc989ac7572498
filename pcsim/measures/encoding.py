r"""Encoding models: how much of the responses a linear map of features predicts.

Ridge regression on features, its penalty chosen for each unit inside the training data alone,
judged on responses that took no part in either; and the share of what can be explained at all.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pcsim.messages import check_array, check_integer, refusal

__all__ = ["Encoding", "contiguous_folds", "noise_corrected_variance", "ridge_encoding"]
__all__ += ["signal_power"]

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

PENALTIES = tuple(10.0**k for k in range(-3, 6))


@dataclass(frozen=True)
class Encoding:
    """Cross-validated predictions of an encoding model."""

    prediction: Floats
    """(n_stimuli, n_units), each from folds that do not hold the stimulus."""
    penalty: Floats
    """(n_folds, n_units), the chosen penalty."""
    r_squared: Floats
    """(n_units,), one minus squared error over variance, over all stimuli; NaN without variance."""


def contiguous_folds(n: int, n_folds: int) -> Integers:
    """Return the fold of each of n stimuli: blocks in order, the first ones larger by one.

    Examples
    --------
    >>> contiguous_folds(5, 2)
    array([0, 0, 0, 1, 1])
    """
    n_folds = check_integer("contiguous_folds", "n_folds", n_folds, low=2)
    if n < n_folds:
        raise ValueError(refusal("contiguous_folds", f"{n} stimuli", f"at least {n_folds}"))
    sizes = np.full(n_folds, n // n_folds)
    sizes[: n % n_folds] += 1
    return np.repeat(np.arange(n_folds), sizes)


def ridge_encoding(
    features: Any,
    responses: Any,
    *,
    penalties: Any = PENALTIES,
    folds: Any = 5,
    n_inner: int = 5,
) -> Encoding:
    r"""Predict responses by ridge regression with nested cross-validation.

    .. math:: \min_W \|Y - XW\|^2 + \lambda \|W\|^2

    with an unpenalized offset. In the training data of each outer fold, each unit takes the
    penalty with the smallest mean squared error over contiguous inner folds.

    One eigendecomposition of the smaller of :math:`X^\top X` and :math:`XX^\top` serves all
    penalties and units.

    Parameters
    ----------
    features : (n_stimuli, n_features)
        Scale them alike: the penalty counts weights.
    responses : (n_stimuli, n_units)
    penalties : (n_penalties,)
        Positive. If the chosen one lies at an end, widen the range.
    folds
        The number of contiguous outer folds, or (n_stimuli,) the fold of each stimulus. Stimuli
        that resemble each other, as frames of one movie do, belong in one fold.
    n_inner
        Inner folds, contiguous in the order of the training stimuli.

    Returns
    -------
    encoding

    References
    ----------
    Hoerl & Kennard (1970), https://doi.org/10.1080/00401706.1970.10488634;
    Naselaris et al. (2011), https://doi.org/10.1016/j.neuroimage.2010.07.073

    Examples
    --------
    >>> x = np.random.default_rng(0).normal(size=(40, 3))
    >>> fit = ridge_encoding(x, x @ [[1.0], [-2.0], [0.5]] + 4.0)
    >>> fit.r_squared.round(3), fit.penalty[0]
    (array([1.]), array([0.001]))
    """
    where = "ridge_encoding"
    x = check_array(where, "features", features, shape=("n", "n_features")).astype(np.float64)
    y = check_array(where, "responses", responses, shape=("n", "n_units")).astype(np.float64)
    grid = check_array(where, "penalties", penalties, shape=("n",), positive=True)
    if len(x) != len(y) or grid.size == 0:
        found = f"{len(x)} rows of features, {len(y)} of responses, {grid.size} penalties"
        raise ValueError(refusal(where, found, "a row a stimulus in both and a penalty"))
    label = _fold_labels(where, folds, len(x))
    outer = np.unique(label)
    prediction, penalty = np.empty_like(y), np.empty((outer.size, y.shape[1]))
    for row, fold in enumerate(outer):
        train, test = np.flatnonzero(label != fold), np.flatnonzero(label == fold)
        penalty[row] = grid[_choose(x[train], y[train], grid, n_inner)]
        predict = _ridge(x[train], y[train], x[test])
        prediction[test] = predict(penalty[row])
    error = ((y - prediction) ** 2).sum(axis=0)
    variance = np.where(np.ptp(y, axis=0) > 0.0, ((y - y.mean(axis=0)) ** 2).sum(axis=0), np.nan)
    return Encoding(prediction, penalty, 1.0 - error / variance)


def _fold_labels(where: str, folds: Any, n: int) -> Integers:
    if np.ndim(folds) == 0:
        return contiguous_folds(n, folds)
    names, label = np.unique(check_array(where, "folds", folds, shape=(n,)), return_inverse=True)
    if names.size < 2:
        raise ValueError(refusal(where, "one fold", "at least 2"))
    return label.astype(np.int64)


def _choose(x: Floats, y: Floats, grid: Floats, n_inner: int) -> Integers:
    """Return (n_units,), the index of the best penalty."""
    label = contiguous_folds(len(x), n_inner)
    error = np.zeros((grid.size, y.shape[1]))
    for fold in range(n_inner):
        held = label == fold
        predict = _ridge(x[~held], y[~held], x[held])
        for row, penalty in enumerate(grid):
            error[row] += ((y[held] - predict(penalty)) ** 2).mean(axis=0)
    return np.asarray(np.argmin(error, axis=0))


def _ridge(x: Floats, y: Floats, new: Floats) -> Callable[[Floats | float], Floats]:
    """Return a function from penalties, one or one a unit, to predictions (n_new, n_units)."""
    offset_x, offset_y = x.mean(axis=0), y.mean(axis=0)
    x, y, new = x - offset_x, y - offset_y, new - offset_x
    if x.shape[1] <= x.shape[0]:
        power, basis = np.linalg.eigh(x.T @ x)
        inner, outer = basis.T @ (x.T @ y), new @ basis
    else:
        power, basis = np.linalg.eigh(x @ x.T)
        inner, outer = basis.T @ y, (new @ x.T) @ basis
    # Rounding leaves zero eigenvalues slightly negative.
    power = np.maximum(power, 0.0)[:, None]

    def predict(penalty: Floats | float) -> Floats:
        return np.asarray(outer @ (inner / (power + penalty)) + offset_y)

    return predict


def signal_power(responses: Any) -> Floats:
    r"""Return the variance over stimuli of the part of responses that repeats share, unbiased.

    .. math:: SP = \frac{n\,P(\bar r) - \overline{P(r)}}{n - 1}

    with the variance P over stimuli and n repeats.

    Parameters
    ----------
    responses : (n_repeats, n_stimuli, ...)

    Returns
    -------
    power : (...)
        May be negative where there is hardly a signal.

    References
    ----------
    Sahani & Linden (2002), How linear are auditory cortical responses? NIPS 15, 125-132.

    Examples
    --------
    >>> signal_power([[1.0, 2.0, 3.0], [1.0, 2.0, 3.0]]).round(12).item()
    1.0
    """
    where = "signal_power"
    responses = _repeats(where, responses)
    n = responses.shape[0]
    of_mean = responses.mean(axis=0).var(axis=0, ddof=1)
    mean_of = responses.var(axis=1, ddof=1).mean(axis=0)
    return np.asarray((n * of_mean - mean_of) / (n - 1))


def noise_corrected_variance(responses: Any, prediction: Any) -> Floats:
    r"""Return the share of the signal power that a prediction explains.

    .. math:: \frac{P(\bar r) - P(\bar r - \hat r)}{SP}

    Noise of the mean is in both terms of the numerator and drops out, if the prediction comes from
    other data: the truth scores 1 on average, and a constant 0.

    Parameters
    ----------
    responses : (n_repeats, n_stimuli, ...)
    prediction : (n_stimuli, ...)

    Returns
    -------
    share : (...)
        NaN where the signal power is not above 0.

    References
    ----------
    Sahani & Linden (2002), How linear are auditory cortical responses? NIPS 15, 125-132.

    Examples
    --------
    >>> noise_corrected_variance([[1.0, 2.0, 3.0], [1.0, 2.0, 3.0]], [2.0, 2.0, 2.0]).item()
    0.0
    """
    where = "noise_corrected_variance"
    responses = _repeats(where, responses)
    shape = responses.shape[1:]
    prediction = check_array(where, "prediction", prediction, shape=shape).astype(np.float64)
    power = signal_power(responses)
    mean = responses.mean(axis=0)
    explained = mean.var(axis=0, ddof=1) - (mean - prediction).var(axis=0, ddof=1)
    # What is left of a constant by rounding is no signal.
    signal = power > 1e-28 * np.abs(responses).max(axis=(0, 1)) ** 2
    return np.where(signal, explained / np.where(signal, power, 1.0), np.nan)


def _repeats(where: str, responses: Any) -> Floats:
    array = check_array(where, "responses", responses).astype(np.float64)
    if array.ndim < 2 or array.shape[0] < 2 or array.shape[1] < 2:
        found, expected = f"responses of shape {array.shape}", "(n_repeats, n_stimuli, ...)"
        raise ValueError(refusal(where, found, expected, "Give at least 2 of each."))
    return np.asarray(array, dtype=np.float64)
