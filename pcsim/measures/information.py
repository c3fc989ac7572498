r"""Mutual information of discrete responses and of Gaussian signals, in nats.

.. math:: I(X; Y) = \sum_{x,y} p(x, y) \ln \frac{p(x, y)}{p(x)\,p(y)}

With few samples the plug-in estimate is too large; how the bias is taken off is said by name.
Divide by ln 2 for bits.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pcsim.messages import check_array, check_choice, check_integer, refusal

__all__ = [
    "ShuffledInformation",
    "binary_words",
    "entropy",
    "gaussian_information",
    "joint_count",
    "mutual_information",
    "shuffle_corrected_information",
]

Floats = NDArray[np.float64]
CORRECTIONS = ("none", "miller_madow", "panzeri_treves")


def binary_words(active: Any) -> NDArray[np.int64]:
    """Return the number of the word that units form by being active or not.

    Parameters
    ----------
    active : (..., n_units)
        True, or a count above 0, where a unit is active; at most 20 units.

    Returns
    -------
    word : (...)
        Unit k adds 2 to the power k.

    Examples
    --------
    >>> binary_words([[0, 0, 0], [1, 0, 2]])
    array([0, 5])
    """
    values = check_array("binary_words", "active", active)
    if values.ndim == 0 or not 1 <= values.shape[-1] <= 20:
        found, advice = f"active of shape {values.shape}", "Take smaller groups."
        raise ValueError(refusal("binary_words", found, "(..., 1 to 20 units)", advice))
    place = 2 ** np.arange(values.shape[-1])
    return np.asarray((values > 0) @ place, dtype=np.int64)


def joint_count(x: Any, y: Any, *, shape: tuple[int, int] | None = None) -> Floats:
    """Count how often two symbols occur together.

    Parameters
    ----------
    x, y : (..., n)
        Whole numbers from 0 on, one a sample.
    shape
        Numbers of symbols of x and of y; None: up to the largest there is.

    Returns
    -------
    count : (..., n_x, n_y)

    Examples
    --------
    >>> joint_count([0, 1, 1], [2, 0, 0])
    array([[0., 0., 1.],
           [2., 0., 0.]])
    """
    where = "joint_count"
    one, other = (_symbols(where, name, value) for name, value in (("x", x), ("y", y)))
    if one.shape != other.shape or one.size == 0:
        found = f"shapes {one.shape} and {other.shape}"
        raise ValueError(refusal(where, found, "one symbol of each a sample"))
    sizes = (int(one.max()) + 1, int(other.max()) + 1)
    n_x, n_y = sizes if shape is None else shape
    if n_x < sizes[0] or n_y < sizes[1]:
        found = f"symbols up to {sizes[0] - 1} and {sizes[1] - 1}"
        raise ValueError(refusal(where, found, f"those of a table of {n_x} x {n_y}"))
    rows = (one * n_y + other).reshape(-1, one.shape[-1])
    flat = rows + n_x * n_y * np.arange(len(rows))[:, None]
    count = np.bincount(flat.ravel(), minlength=len(rows) * n_x * n_y).astype(np.float64)
    return count.reshape(*one.shape[:-1], n_x, n_y)


def _symbols(where: str, name: str, value: Any) -> NDArray[np.int64]:
    values = check_array(where, name, value)
    if values.ndim == 0 or (values < 0).any() or (values != np.rint(values)).any():
        found = f"{name} of shape {values.shape}, or not whole"
        raise ValueError(refusal(where, found, "whole numbers from 0 on, (..., n)"))
    return values.astype(np.int64)


def entropy(count: Any, *, correction: str = "none") -> Floats:
    r"""Return the entropy of a discrete variable from counts, nats.

    .. math:: \hat H = -\sum_k \hat p_k \ln \hat p_k + \frac{R - 1}{2N}

    The last term is the correction, with R the number of symbols that occur ("miller_madow"), or
    that can occur as estimated by Bayes' rule ("panzeri_treves").

    Parameters
    ----------
    count : (..., n)
        Not negative. Without a correction probabilities do as well.
    correction
        "none", "miller_madow" or "panzeri_treves".

    Returns
    -------
    entropy : (...)

    Raises
    ------
    ValueError
        If a count is negative, or there are none; with a correction, if counts are not whole.

    References
    ----------
    Miller (1955); Panzeri & Treves (1996), https://doi.org/10.1088/0954-898X_7_1_006

    Examples
    --------
    >>> entropy([[2, 2]]).round(4), entropy([[2, 2]], correction="miller_madow").round(4)
    (array([0.6931]), array([0.8181]))
    """
    table = _counts("entropy", count, 1, correction)
    total = table.sum(axis=-1)
    return np.asarray(_plug_in(table) + (_support(table, correction) - 1.0) / (2.0 * total))


def _counts(where: str, count: Any, axes: int, correction: str) -> Floats:
    check_choice(where, "correction", correction, CORRECTIONS)
    table = check_array(where, "count", count).astype(np.float64)
    if table.ndim < axes or (table < 0).any():
        found = f"counts of shape {table.shape}, or below 0"
        raise ValueError(refusal(where, found, f"counts with {axes} axes or more"))
    if not (table.sum(axis=tuple(range(-axes, 0))) > 0).all():
        raise ValueError(refusal(where, "a table without counts", "at least one sample"))
    if correction != "none" and (table != np.rint(table)).any():
        found, advice = "counts that are not whole", "Pass counts, not probabilities."
        raise ValueError(refusal(where, found, f"whole ones for '{correction}'", advice))
    return table


def _plug_in(table: Floats) -> Floats:
    p = table / table.sum(axis=-1, keepdims=True)
    return np.asarray(-(p * np.log(np.where(p > 0, p, 1.0))).sum(axis=-1))


def _support(table: Floats, correction: str) -> Any:
    """Return how many symbols each row has: (...); 1 for no correction."""
    if correction == "none":
        return 1.0
    if correction == "miller_madow":
        return (table > 0).sum(axis=-1)
    flat = table.reshape(-1, table.shape[-1])
    return np.array([_bayes_support(row) for row in flat]).reshape(table.shape[:-1])


def _bayes_support(row: Floats) -> float:
    """Estimate how many symbols can occur: the number whose expected share seen is what was seen.

    Adds unseen symbols, one by one, until as many symbols would be expected in N samples as there
    are; seen ones have probabilities (n_k + 1) / (N + R), less what goes to unseen ones.
    """
    n, seen = float(row.sum()), int((row > 0).sum())
    if n == 0 or seen == row.size:
        return float(max(seen, 1))
    found = row[row > 0]
    gap = seen - float((1.0 - (1.0 - found / n) ** n).sum())
    for unseen in range(1, row.size - seen + 1):
        share = unseen * (1.0 - (n / (n + seen)) ** (1.0 / n))
        p = (1.0 - share) * (found + 1.0) / (n + seen)
        expected = float((1.0 - (1.0 - p) ** n).sum())
        expected += unseen * (1.0 - (1.0 - share / unseen) ** n)
        if abs(seen - expected) >= gap:
            return float(seen + unseen - 1)
        gap = abs(seen - expected)
    return float(row.size)


def mutual_information(count: Any, *, correction: str = "none") -> Floats:
    r"""Return the mutual information of two discrete variables from their joint counts, nats.

    The first variable is the stimulus s, the second the response. The plug-in estimate is reduced
    by its leading bias

    .. math:: \frac{1}{2N}\Bigl[\sum_s (R_s - 1) - (R - 1)\Bigr]

    with :math:`R_s` responses possible for s and R in all: those that occur ("miller_madow": then
    :math:`\sum_s R_s` is the number of cells that are not empty), or an estimate of those that can
    ("panzeri_treves").

    Parameters
    ----------
    count : (..., n_x, n_y)
        Not negative. Without a correction probabilities do as well.
    correction
        "none", "miller_madow" or "panzeri_treves". For time series, whose samples are not
        independent, use `shuffle_corrected_information`.

    Returns
    -------
    information : (...)
        Below 0 where the correction exceeds the estimate.

    References
    ----------
    Panzeri et al. (2007), https://doi.org/10.1152/jn.00559.2007

    Examples
    --------
    >>> count = [[[5, 0], [0, 5]]]
    >>> mutual_information(count).round(4)
    array([0.6931])
    >>> mutual_information(count, correction="miller_madow").round(4)
    array([0.7431])
    """
    table = _counts("mutual_information", count, 2, correction)
    total = table.sum(axis=(-2, -1))
    joint = table.reshape(*table.shape[:-2], -1)
    response = table.sum(axis=-2)
    raw = _plug_in(table.sum(axis=-1)) + _plug_in(response) - _plug_in(joint)
    shown = table.sum(axis=-1) > 0
    each = np.where(shown, _support(table, correction) - 1.0, 0.0).sum(axis=-1)
    bias = (each - (_support(response, correction) - 1.0)) / (2.0 * total)
    return np.asarray(raw - bias)


class ShuffledInformation(NamedTuple):
    """An estimate of information, and what is left of it when samples are put out of order."""

    information: Floats
    """(...), the plug-in estimate less the mean of the shuffled ones, nats."""
    shuffled: Floats
    """(..., n_shuffles), nats."""


def shuffle_corrected_information(
    x: Any, y: Any, *, n_shuffles: int = 20, seed: int = 0, circular: bool = False
) -> ShuffledInformation:
    """Return the information between two series of symbols, less that of shuffled samples.

    Parameters
    ----------
    x, y : (..., n)
        Whole numbers from 0 on.
    n_shuffles, seed
        How often y is shuffled, and from which seed.
    circular
        Shift y by a random time in a circle in place of a permutation, which keeps the correlation
        within each series and so the size of the bias.

    Examples
    --------
    >>> result = shuffle_corrected_information([0, 1] * 500, [0, 1] * 500)
    >>> bool(abs(result.information - np.log(2)) < 0.01), result.shuffled.shape
    (True, (20,))
    """
    where = "shuffle_corrected_information"
    n_shuffles = check_integer(where, "n_shuffles", n_shuffles, low=1)
    one, other = (_symbols(where, name, value) for name, value in (("x", x), ("y", y)))
    raw = mutual_information(joint_count(one, other))
    shape = (int(one.max()) + 1, int(other.max()) + 1)
    rng = np.random.default_rng(check_integer(where, "seed", seed))
    n = one.shape[-1]
    if circular and n < 2:
        raise ValueError(refusal(where, f"{n} sample", "at least 2 to shift"))
    order: Callable[[], NDArray[np.int64]] = (
        (lambda: np.roll(np.arange(n), rng.integers(1, n)))
        if circular
        else (lambda: rng.permutation(n))
    )
    shuffled = np.stack(
        [
            mutual_information(joint_count(one, other[..., order()], shape=shape))
            for _ in range(n_shuffles)
        ],
        axis=-1,
    )
    return ShuffledInformation(np.asarray(raw - shuffled.mean(axis=-1)), shuffled)


def gaussian_information(covariance: Any, n_x: int) -> Floats:
    r"""Return the mutual information of two parts of a Gaussian vector, nats.

    .. math:: I = \tfrac12 \ln \frac{\det C_{xx} \det C_{yy}}{\det C}

    Parameters
    ----------
    covariance : (..., n, n)
        Positive definite.
    n_x
        Size of the first part.

    Raises
    ------
    ValueError
        If the matrix is not symmetric and positive definite, or a part is empty.

    References
    ----------
    Cover & Thomas (2006), Elements of Information Theory, chapter 8

    Examples
    --------
    >>> round(float(gaussian_information([[2.0, 1.2], [1.2, 2.0]], 1)), 4)  # -ln(1 - 0.36) / 2
    0.2231
    """
    where = "gaussian_information"
    matrix = check_array(where, "covariance", covariance, shape=(..., "n", "n")).astype(np.float64)
    n_x = check_integer(where, "n_x", n_x, low=1)
    if n_x >= matrix.shape[-1]:
        found = f"n_x {n_x} of {matrix.shape[-1]}"
        raise ValueError(refusal(where, found, "two parts that are not empty"))
    whole = _log_determinant(where, matrix)
    parts = (matrix[..., :n_x, :n_x], matrix[..., n_x:, n_x:])
    return np.asarray(0.5 * (sum(_log_determinant(where, part) for part in parts) - whole))


def _log_determinant(where: str, matrix: Floats) -> Floats:
    scale = np.abs(matrix).max(axis=(-2, -1), keepdims=True)
    if not np.allclose(matrix / scale, np.swapaxes(matrix, -1, -2) / scale, rtol=0.0, atol=1e-10):
        raise ValueError(refusal(where, "a covariance that is not symmetric", "a symmetric one"))
    try:
        root = np.linalg.cholesky(matrix)
    except np.linalg.LinAlgError:
        advice = "Leave out parts that the others determine."
        raise ValueError(refusal(where, "a singular covariance", "one > 0", advice)) from None
    return np.asarray(2.0 * np.log(np.diagonal(root, axis1=-2, axis2=-1)).sum(axis=-1))
