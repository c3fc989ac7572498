r"""Representational dissimilarity matrices: how different the responses to two conditions are.

Arrays hold one condition a row; the dissimilarities of the n (n - 1) / 2 pairs come as one vector,
in the order of the upper triangle, row by row (as in SciPy and rsatoolbox). Leading axes are
subjects, models or times, each on its own.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from pcsim.measures.rates import condition_mean, mean_rate, trial_groups
from pcsim.messages import check_array, check_choice, refusal

__all__ = [
    "condition_crossnobis",
    "condition_rdm",
    "correlation_rdm",
    "crossnobis_rdm",
    "euclidean_rdm",
    "noise_precision",
    "rdm_matrix",
    "rdm_vector",
]

Floats = NDArray[np.float64]

CONDITION = 1e12
"""Condition number from which on an inverse is mostly rounding."""


def correlation_rdm(patterns: Any) -> Floats:
    r"""Return one minus the Pearson correlation of every two patterns.

    Parameters
    ----------
    patterns : (..., n_conditions, n_units)

    Returns
    -------
    dissimilarity : (..., n_pairs)
        From 0 to 2. Neither gain nor offset of a pattern matters.

    Raises
    ------
    ValueError
        If a pattern is the same in all units, which correlates with nothing.

    References
    ----------
    Kriegeskorte, Mur & Bandettini (2008), https://doi.org/10.3389/neuro.06.004.2008

    Examples
    --------
    >>> correlation_rdm([[1.0, 2.0, 3.0], [2.0, 4.0, 6.0], [3.0, 2.0, 1.0]]).round(12)
    array([0., 2., 2.])
    """
    where = "correlation_rdm"
    patterns = _patterns(where, patterns)
    centred = patterns - patterns.mean(axis=-1, keepdims=True)
    size = np.linalg.norm(centred, axis=-1, keepdims=True)
    flat = size <= 1e-14 * np.abs(patterns).max(axis=-1, keepdims=True)
    if flat.any():
        found = f"{int(flat.sum())} patterns with equal responses of all units"
        advice = "Leave these conditions out or use euclidean_rdm."
        raise ValueError(refusal(where, found, "patterns that vary over units", advice))
    unit = centred / size
    return rdm_vector(1.0 - unit @ unit.swapaxes(-1, -2))


def euclidean_rdm(patterns: Any, *, precision: Any = None) -> Floats:
    r"""Return the squared distance of every two patterns, per unit.

    .. math:: d_{ij} = (b_i - b_j)^\top \Pi\,(b_i - b_j) / n_{units}

    With the noise precision :math:`\Pi` this is the squared Mahalanobis distance. Noise makes it
    larger: see `crossnobis_rdm`.

    Parameters
    ----------
    patterns : (..., n_conditions, n_units)
    precision : (n_units, n_units)
        None is the identity.

    Returns
    -------
    dissimilarity : (..., n_pairs)

    Examples
    --------
    >>> euclidean_rdm([[0.0, 0.0], [3.0, 1.0]])
    array([5.])
    """
    where = "euclidean_rdm"
    patterns = _patterns(where, patterns)
    # Distances do not change with the origin; near it, squares cancel least.
    patterns = patterns - patterns.mean(axis=-2, keepdims=True)
    kernel = _weigh(where, patterns, precision) @ patterns.swapaxes(-1, -2)
    return np.asarray(np.maximum(_kernel_distances(kernel), 0.0) / patterns.shape[-1])


def crossnobis_rdm(patterns: Any, *, precision: Any = None) -> Floats:
    r"""Return cross-validated squared Mahalanobis distances, which noise leaves unbiased.

    With the difference :math:`\delta_m = b_i - b_j` in fold m,

    .. math:: d_{ij} = \frac{1}{M (M - 1)} \sum_{m \ne k} \delta_m^\top \Pi\,\delta_k / n_{units}

    which is leave-one-fold-out, written as the square of the sum less the sum of squares.

    Parameters
    ----------
    patterns : (..., n_folds, n_conditions, n_units)
        Independent measurements of the same conditions.
    precision : (n_units, n_units)
        Inverse covariance of the noise; None is the identity.

    Returns
    -------
    dissimilarity : (..., n_pairs)
        May be negative: of equal conditions it is zero on average.

    References
    ----------
    Walther et al. (2016), https://doi.org/10.1016/j.neuroimage.2015.12.012

    Examples
    --------
    >>> crossnobis_rdm([[[0.0, 1.0], [2.0, 1.0]], [[1.0, 1.0], [4.0, 1.0]]])
    array([3.])
    """
    where = "crossnobis_rdm"
    expected = "(..., n_folds, n_conditions, n_units)"
    patterns = check_array(where, "patterns", patterns).astype(np.float64)
    if patterns.ndim < 3 or patterns.shape[-3] < 2 or patterns.shape[-2] < 2:
        advice = "Give at least 2 folds and 2 conditions."
        raise ValueError(refusal(where, f"patterns of shape {patterns.shape}", expected, advice))
    patterns = patterns - patterns.mean(axis=(-3, -2), keepdims=True)
    n_folds, _, n_units = patterns.shape[-3:]
    total = patterns.sum(axis=-3)
    across = _weigh(where, total, precision) @ total.swapaxes(-1, -2)
    within = _weigh(where, patterns, precision) @ patterns.swapaxes(-1, -2)
    kernel = (across - within.sum(axis=-3)) / (n_folds * (n_folds - 1))
    return np.asarray(_kernel_distances(kernel) / n_units)


def noise_precision(residuals: Any) -> Floats:
    r"""Return the inverse of the shrunk covariance of the noise.

    .. math:: \hat\Sigma = (1 - \lambda) S + \lambda \frac{\mathrm{tr} S}{p} I

    with the :math:`\lambda` that is expected to be nearest to the truth.

    Parameters
    ----------
    residuals : (n_samples, n_units)
        Responses less the mean of their condition; at least 3 samples.

    Returns
    -------
    precision : (n_units, n_units)

    Raises
    ------
    ValueError
        If samples are too few or do not differ, or the covariance cannot be inverted: samples that
        lie on a line leave nothing to shrink by.

    References
    ----------
    Ledoit & Wolf (2004), https://doi.org/10.1016/S0047-259X(03)00096-4

    Examples
    --------
    >>> noise_precision([[2.0, 0.0], [-2.0, 0.0], [0.0, 2.0], [0.0, -2.0]])
    array([[0.5, 0. ],
           [0. , 0.5]])
    """
    where = "noise_precision"
    residuals = check_array(where, "residuals", residuals, shape=("n_samples", "n_units"))
    n, p = residuals.shape
    centred = residuals.astype(np.float64) - residuals.mean(axis=0)
    covariance = centred.T @ centred / n
    scale = float(np.trace(covariance)) / p
    if n < 3 or scale <= 0.0:
        found = f"{n} samples of variance {scale:.3g}"
        raise ValueError(refusal(where, found, "at least 3 that differ", "Give the repeats."))
    squares = float(((centred**2).T @ (centred**2)).sum()) / n
    spread = (squares - float((covariance**2).sum())) / (n * p)
    distance = float(((covariance - scale * np.eye(p)) ** 2).sum()) / p
    shrinkage = min(spread, distance) / distance if distance > 0.0 else 1.0
    shrunk = (1.0 - shrinkage) * covariance + shrinkage * scale * np.eye(p)
    # The covariance is symmetric: its condition number is the ratio of its eigenvalues.
    power = np.linalg.eigvalsh(shrunk)
    if power[0] * CONDITION <= power[-1]:
        found = f"a covariance of {p} units from {n} samples that cannot be inverted"
        advice = "Give more repeats, or leave out units that are silent or copies of others."
        raise ValueError(refusal(where, found, "one that can", advice))
    return np.asarray(np.linalg.inv(shrunk))


def condition_rdm(
    responses: xr.Dataset,
    *,
    metric: str = "correlation",
    window: slice | None = None,
    rectify: str = "none",
) -> xr.DataArray:
    """Return the dissimilarities of the mean responses to the conditions.

    Parameters
    ----------
    responses
    metric
        "correlation" or "euclidean".
    window, rectify
        As in `mean_rate`.

    Returns
    -------
    dissimilarity : (condition, condition_b)
        Sorted by condition; equal labels meet whatever the order of the trials was.

    Examples
    --------
    >>> from pcsim.responses import make_responses
    >>> r = make_responses([[[2.0, 0.0]], [[1.0, 3.0]]], time=[0.1],
    ...                    units={"population": "latent", "level": 1},
    ...                    trial={"condition": ["b", "a"]})
    >>> condition_rdm(r, metric="euclidean").sel(condition="a", condition_b="b").item()
    5.0
    """
    metrics = {"correlation": correlation_rdm, "euclidean": euclidean_rdm}
    check_choice("condition_rdm", "metric", metric, tuple(metrics))
    rate = condition_mean(mean_rate(responses, window=window, rectify=rectify))
    vector = metrics[metric](rate.transpose("condition", "unit").values)
    return _labelled(vector, rate["condition"].values)


def condition_crossnobis(
    responses: xr.Dataset,
    *,
    fold: str,
    precision: Any = None,
    window: slice | None = None,
    rectify: str = "none",
) -> xr.DataArray:
    """Return cross-validated dissimilarities (condition, condition_b); see `crossnobis_rdm`.

    `fold` names the trial parameter whose values are independent measurements; every condition must
    be in every fold. Other parameters as in `condition_rdm`.
    """
    rate = mean_rate(responses, window=window, rectify=rectify)
    means = trial_groups(rate, (fold, "condition"), "condition_crossnobis")
    values = means.transpose(fold, "condition", "unit").values
    return _labelled(crossnobis_rdm(values, precision=precision), means["condition"].values)


def rdm_vector(matrix: Any) -> Floats:
    """Return the upper triangle of (..., n, n) as (..., n_pairs), row by row.

    Examples
    --------
    >>> rdm_vector([[0.0, 1.0, 2.0], [1.0, 0.0, 3.0], [2.0, 3.0, 0.0]])
    array([1., 2., 3.])
    """
    matrix = check_array("rdm_vector", "matrix", matrix, shape=(..., "n", "n"))
    rows, columns = np.triu_indices(matrix.shape[-1], 1)
    # One flat index gathers faster than two.
    flat = matrix.reshape(*matrix.shape[:-2], -1)
    return np.asarray(flat[..., rows * matrix.shape[-1] + columns], dtype=np.float64)


def rdm_matrix(vector: Any) -> Floats:
    """Return (..., n_pairs) as symmetric (..., n, n) with zeros on the diagonal.

    Examples
    --------
    >>> rdm_matrix([1.0, 2.0, 3.0])
    array([[0., 1., 2.],
           [1., 0., 3.],
           [2., 3., 0.]])
    """
    vector = check_array("rdm_matrix", "vector", vector, shape=(..., "n_pairs"))
    n = n_conditions("rdm_matrix", vector.shape[-1])
    matrix = np.zeros((*vector.shape[:-1], n, n))
    rows, columns = np.triu_indices(n, 1)
    matrix[..., rows, columns] = vector
    matrix[..., columns, rows] = vector
    return matrix


def n_conditions(where: str, n_pairs: int) -> int:
    """Return the n of n (n - 1) / 2 pairs, or refuse a number that no n gives."""
    n = (1 + math.isqrt(1 + 8 * n_pairs)) // 2
    if n_pairs < 1 or n * (n - 1) // 2 != n_pairs:
        expected = "n (n - 1) / 2 of n conditions"
        advice = "Pass the upper triangle without the diagonal: rdm_vector(matrix)."
        raise ValueError(refusal(where, f"{n_pairs} dissimilarities", expected, advice))
    return n


def _patterns(where: str, patterns: Any) -> Floats:
    patterns = check_array(where, "patterns", patterns).astype(np.float64)
    if patterns.ndim < 2 or patterns.shape[-2] < 2 or patterns.shape[-1] < 1:
        found, expected = f"patterns of shape {patterns.shape}", "(..., n_conditions, n_units)"
        raise ValueError(refusal(where, found, expected, "Give at least 2 conditions."))
    return np.asarray(patterns, dtype=np.float64)


def _weigh(where: str, patterns: Floats, precision: Any) -> Floats:
    if precision is None:
        return patterns
    n = patterns.shape[-1]
    precision = check_array(where, "precision", precision, shape=(n, n)).astype(np.float64)
    if not np.allclose(precision, precision.T, rtol=1e-8, atol=1e-12 * np.abs(precision).max()):
        advice = "Pass the inverse of a covariance: noise_precision(residuals)."
        raise ValueError(refusal(where, "a precision unlike its transpose", "symmetry", advice))
    return np.asarray(patterns @ (0.5 * (precision + precision.T)))


def _kernel_distances(kernel: Floats) -> Floats:
    diagonal = np.diagonal(kernel, axis1=-2, axis2=-1)
    sums = diagonal[..., :, None] + diagonal[..., None, :]
    return rdm_vector(sums - kernel - kernel.swapaxes(-1, -2))


def _labelled(vector: Floats, conditions: NDArray[Any]) -> xr.DataArray:
    coords = {"condition": conditions, "condition_b": conditions}
    dims = ("condition", "condition_b")
    return xr.DataArray(rdm_matrix(vector), dims=dims, coords=coords, name="dissimilarity")
