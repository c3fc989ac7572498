r"""Representational similarity analysis: how alike two dissimilarity matrices are.

All functions take vectors of dissimilarities (`rdm_vector`), one matrix a row.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import kendalltau, rankdata

from pcsim.measures.centred import centred
from pcsim.measures.rdm import n_conditions, rdm_matrix
from pcsim.messages import check_array, check_choice, refusal

__all__ = ["RDM_COMPARISONS", "compare_rdms", "noise_ceiling", "pseudovalues", "tau_a"]

Floats = NDArray[np.float64]


def compare_rdms(a: Any, b: Any, *, method: str = "pearson") -> Floats:
    r"""Return the similarity of every matrix of one set with every one of another.

    Parameters
    ----------
    a : (n_a, n_pairs) or (n_pairs,)
    b : (n_b, n_pairs) or (n_pairs,)
    method
        "pearson"; "spearman"; "tau_a", Kendall's without correction for ties, for models that
        predict ties; "cosine", for distances with a meaningful zero; "whitened_cosine", which
        allows for the correlation of distances that share a condition (of squared Euclidean
        distances it is linear CKA).

    Returns
    -------
    similarity : (n_a, n_b)
        NaN where a matrix does not vary (of a cosine: is zero); tau a is 0 there.

    References
    ----------
    Nili et al. (2014), https://doi.org/10.1371/journal.pcbi.1003553;
    Diedrichsen et al. (2020), https://doi.org/10.48550/arXiv.2007.02789

    Examples
    --------
    >>> compare_rdms([1.0, 2.0, 3.0], [[2.0, 4.0, 6.0], [3.0, 2.0, 1.0]]).round(12)
    array([[ 1., -1.]])
    """
    where = "compare_rdms"
    check_choice(where, "method", method, tuple(RDM_COMPARISONS))
    a, b = rdm_rows(where, "a", a), rdm_rows(where, "b", b)
    if a.shape[1] != b.shape[1]:
        found = f"{a.shape[1]} and {b.shape[1]} dissimilarities"
        advice = "Select the conditions that both have, in the same order."
        raise ValueError(refusal(where, found, "as many in both", advice))
    return RDM_COMPARISONS[method](a, b)


def rdm_rows(where: str, name: str, value: Any) -> Floats:
    """Return one or more vectors of dissimilarities as (n_rdms, n_pairs)."""
    rows = np.atleast_2d(check_array(where, name, value).astype(np.float64))
    if rows.ndim != 2 or rows.shape[0] < 1:
        found = f"{name} of shape {rows.shape}"
        raise ValueError(refusal(where, found, "(n_rdms, n_pairs)", "Use rdm_vector(matrix)."))
    n = n_conditions(where, rows.shape[1])
    if n < 3:
        raise ValueError(refusal(where, f"{name} of {n} conditions", "at least 3"))
    return rows


def _cosine(a: Floats, b: Floats) -> Floats:
    return _directions(a) @ _directions(b).T


def _directions(rows: Floats) -> Floats:
    size = np.linalg.norm(rows, axis=1, keepdims=True)
    unit: Floats = np.where(size > 0.0, rows / np.where(size > 0.0, size, 1.0), np.nan)
    return unit


def _pearson(a: Floats, b: Floats) -> Floats:
    return _cosine(centred(a), centred(b))


def _spearman(a: Floats, b: Floats) -> Floats:
    return _pearson(rankdata(a, axis=1), rankdata(b, axis=1))


def _tau_a_table(a: Floats, b: Floats) -> Floats:
    return np.array([[tau_a(x, y) for y in b] for x in a])


def _whitened_cosine(a: Floats, b: Floats) -> Floats:
    return _cosine(_second_moments(a), _second_moments(b))


def _second_moments(rows: Floats) -> Floats:
    matrix = rdm_matrix(rows)
    matrix -= matrix.mean(axis=-1, keepdims=True)
    matrix -= matrix.mean(axis=-2, keepdims=True)
    return matrix.reshape(len(rows), -1)


RDM_COMPARISONS: dict[str, Callable[[Floats, Floats], Floats]] = {
    "pearson": _pearson,
    "spearman": _spearman,
    "tau_a": _tau_a_table,
    "cosine": _cosine,
    "whitened_cosine": _whitened_cosine,
}


def tau_a(x: Floats, y: Floats) -> float:
    r"""Return Kendall's tau a: concordant less discordant pairs, over all pairs.

    .. math:: \tau_a = \tau_b \sqrt{(1 - t_x / N)(1 - t_y / N)}, \qquad N = n (n - 1) / 2

    with the numbers :math:`t` of tied pairs; 0 where everything is tied.

    Parameters
    ----------
    x, y : (n,)

    Examples
    --------
    >>> round(tau_a(np.array([1.0, 2.0, 2.0]), np.array([1.0, 3.0, 2.0])), 12)
    0.666666666667
    """
    n_pairs = x.size * (x.size - 1) / 2
    untied = [1.0 - _ties(v) / n_pairs for v in (x, y)]
    if min(untied) <= 0.0:
        return 0.0
    return float(kendalltau(x, y).statistic) * float(np.sqrt(untied[0] * untied[1]))


def _ties(values: Floats) -> float:
    counts = np.unique(values, return_counts=True)[1].astype(np.float64)
    return float((counts * (counts - 1.0) / 2.0).sum())


def noise_ceiling(rdms: Any, *, method: str = "pearson") -> tuple[float, float]:
    r"""Return between which bounds the best possible model would lie.

    The upper bound compares each subject with the mean of all, the lower one with that of the rest.
    The mean is over matrices standardized as the method demands: z scores for Pearson, unit length
    for cosines, ranks for Spearman and tau a (for tau a the bounds are approximate).

    Parameters
    ----------
    rdms : (n_subjects, n_pairs)
    method
        As in `compare_rdms`.

    Returns
    -------
    lower, upper

    References
    ----------
    Nili et al. (2014), https://doi.org/10.1371/journal.pcbi.1003553

    Examples
    --------
    >>> lower, upper = noise_ceiling([[1.0, 2.0, 4.0], [1.0, 3.0, 3.5], [1.2, 2.0, 2.9]])
    >>> round(lower, 3), round(upper, 3)
    (0.947, 0.976)
    """
    where = "noise_ceiling"
    check_choice(where, "method", method, tuple(RDM_COMPARISONS))
    rows = rdm_rows(where, "rdms", rdms)
    if len(rows) < 2:
        raise ValueError(refusal(where, f"{len(rows)} subject", "at least 2"))
    compare, pooled = RDM_COMPARISONS[method], _poolable(rows, method)
    everyone = pooled.sum(axis=0)
    upper = compare(everyone[None], rows)
    lower = [
        compare((everyone - own)[None], row[None]) for own, row in zip(pooled, rows, strict=True)
    ]
    return float(np.mean(lower)), float(np.mean(upper))


def _poolable(rows: Floats, method: str) -> Floats:
    if method in ("spearman", "tau_a"):
        return np.asarray(rankdata(rows, axis=1), dtype=np.float64)
    return _directions(centred(rows) if method == "pearson" else rows)


def pseudovalues(a: Any, b: Any) -> Floats:
    r"""Return what each condition contributes to the Pearson correlation of two matrices.

    .. math:: \tilde r_i = n\,r - (n - 1)\,r_{-i}

    with :math:`r_{-i}` the correlation over the pairs without condition i. Their mean is the
    jackknife estimate of r and their standard error that of r over conditions, which the mean of
    pairs would make too small, as every condition is in n - 1 pairs.

    Parameters
    ----------
    a, b : (n_pairs,)

    Returns
    -------
    pseudovalue : (n_conditions,)

    Raises
    ------
    ValueError
        If a matrix does not vary once a condition is left out.

    References
    ----------
    Efron & Stein (1981), https://doi.org/10.1214/aos/1176345462

    Examples
    --------
    >>> pseudovalues([1.0, 2.0, 4.0, 3.0, 5.0, 7.0], [2.0, 4.0, 8.0, 6.0, 10.0, 14.0]).round(12)
    array([1., 1., 1., 1.])
    """
    where = "pseudovalues"
    rows = [rdm_rows(where, name, value)[0] for name, value in (("a", a), ("b", b))]
    if rows[0].size != rows[1].size:
        found = f"{rows[0].size} and {rows[1].size} dissimilarities"
        raise ValueError(refusal(where, found, "as many in both", "Select the same conditions."))
    n = n_conditions(where, rows[0].size)
    # Centred first, so that the sums below cancel little.
    x, y = (rdm_matrix(row - row.mean()) for row in rows)
    whole, left = [], []
    for product in (x, y, x * x, y * y, x * y):
        whole.append(product.sum() / 2.0)
        left.append(whole[-1] - product.sum(axis=1))
    pairs = n * (n - 1) / 2.0
    r, without = _moments(whole, pairs), _moments(left, pairs - (n - 1))
    if not (np.isfinite(r) and np.isfinite(without).all()):
        found = "a matrix of equal dissimilarities"
        raise ValueError(refusal(where, found, "matrices that vary without any condition"))
    return np.asarray(n * r - (n - 1) * without)


def _moments(sums: Any, n: float) -> Any:
    """Return the correlation from the sums of x, y, xx, yy and xy over n pairs."""
    sx, sy, xx, yy, xy = sums
    vx, vy = xx - sx**2 / n, yy - sy**2 / n
    still = (vx <= 1e-12 * xx) | (vy <= 1e-12 * yy)
    size = np.sqrt(np.where(still, 1.0, vx * vy))
    return np.where(still, np.nan, (xy - sx * sy / n) / size)
