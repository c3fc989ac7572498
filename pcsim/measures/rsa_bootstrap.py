r"""Bootstrap of representational similarity over stimuli, subjects, or both.

A resample repeats some conditions and lacks others; the distance of a condition to its own copy is
left out, as in rsatoolbox. A condition that was drawn :math:`w_i` times weighs its distances by
:math:`w_i w_j`, so every sum over pairs is a quadratic form,

.. math:: \sum_{i<j} w_i w_j\,x_{ij} y_{ij} = \tfrac12\, w^\top (X \circ Y)\, w

and all resamples together are one matrix product. Nothing is gathered or copied. For Spearman the
order of the distances is the same in all resamples: ranks are cumulative sums of weights.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pcsim.measures.rdm import n_conditions, rdm_matrix
from pcsim.measures.rsa import compare_rdms, rdm_rows, tau_a
from pcsim.messages import check_array, check_choice, check_integer, refusal

__all__ = ["RsaBootstrap", "bootstrap_rsa", "resample_indices"]

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

METHODS = ("pearson", "cosine", "spearman", "tau_a")
# Entries of the largest temporary array: 2e6 floats are 16 MB.
BLOCK = 2_000_000
# A variance below this share of the mean square is what rounding leaves of zero.
FLAT = 1e-13


@dataclass(frozen=True)
class RsaBootstrap:
    """Similarities of models to data, of the data themselves and of every resample."""

    estimate: Floats
    """(n_models,), mean over subjects."""
    draws: Floats
    """(draws, n_models). NaN where fewer than 3 different conditions were drawn, or all distances
    of a resample are equal."""
    lower: Floats
    """(draws,), lower bound of the noise ceiling; NaN for one subject and for rank methods."""
    upper: Floats
    """(draws,), its upper bound."""


def resample_indices(n: int, draws: int, *, seed: int = 0) -> Integers:
    """Return (draws, n) indices below n, drawn with replacement.

    Examples
    --------
    >>> resample_indices(4, 3).shape
    (3, 4)
    """
    n = check_integer("resample_indices", "n", n, low=1)
    draws = check_integer("resample_indices", "draws", draws, low=1)
    seed = check_integer("resample_indices", "seed", seed)
    return np.random.default_rng(seed).integers(0, n, (draws, n))


def bootstrap_rsa(
    models: Any,
    data: Any,
    *,
    method: str = "pearson",
    stimuli: Any = None,
    subjects: Any = None,
    ceiling: bool = True,
) -> RsaBootstrap:
    r"""Compare models with data in every resample of stimuli and subjects.

    Parameters
    ----------
    models : (n_models, n_pairs) or (n_pairs,)
    data : (n_subjects, n_pairs) or (n_pairs,)
    method
        "pearson", "cosine", "spearman" or "tau_a" (tau a goes through the resamples one by one).
    stimuli : (draws, n_conditions)
        Which conditions each resample takes: `resample_indices`. None: all of them once.
    subjects : (draws, n_subjects)
        Which subjects each resample takes; None: all of them once.
    ceiling
        Whether to compute the noise ceiling of every resample, for Pearson and cosine.

    Returns
    -------
    bootstrap

    Raises
    ------
    ValueError
        If neither `stimuli` nor `subjects` is given, or shapes disagree.

    References
    ----------
    Schütt et al. (2023), https://doi.org/10.7554/eLife.82566;
    Nili et al. (2014), https://doi.org/10.1371/journal.pcbi.1003553

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> data = rng.random((4, 45))
    >>> result = bootstrap_rsa(data.mean(axis=0), data, stimuli=resample_indices(10, 200))
    >>> result.draws.shape, bool(result.draws.min() < result.estimate[0] < result.draws.max())
    ((200, 1), True)
    """
    where = "bootstrap_rsa"
    check_choice(where, "method", method, METHODS)
    models, data = rdm_rows(where, "models", models), rdm_rows(where, "data", data)
    estimate = compare_rdms(models, data, method=method).mean(axis=1)
    n = n_conditions(where, data.shape[1])
    taken = _counts(where, "stimuli", stimuli, n)
    chosen = _counts(where, "subjects", subjects, len(data))
    if taken is None and chosen is None:
        advice = "Pass stimuli=resample_indices(n_conditions, draws)."
        raise ValueError(refusal(where, "no resamples", "stimuli or subjects", advice))
    if taken is not None and chosen is not None and len(taken) != len(chosen):
        found = f"{len(taken)} resamples of stimuli and {len(chosen)} of subjects"
        raise ValueError(refusal(where, found, "as many of both"))
    stacked, n_models = np.concatenate([models, data]), len(models)
    closed = method in ("pearson", "cosine")
    ceiling = ceiling and closed and len(data) > 1
    weights = np.ones((1, n)) if taken is None else taken
    tables = _moment_tables if closed else _rank_tables if method == "spearman" else _tau_tables
    pieces = [
        _summary(table, n_models, chosen if taken is None else _rows(chosen, start, table), ceiling)
        for start, table in tables(stacked, weights, method, _wanted(stacked, n_models, ceiling))
    ]
    draws, lower, upper = (np.concatenate([piece[k] for piece in pieces]) for k in range(3))
    return RsaBootstrap(estimate, draws, lower, upper)


def _counts(where: str, name: str, indices: Any, n: int) -> Floats | None:
    """Return (draws, n) how often each of n items was drawn."""
    if indices is None:
        return None
    found = check_array(where, name, indices, shape=("draws", n))
    picked = found.astype(np.int64)
    if (picked != found).any() or picked.size == 0 or picked.min() < 0 or picked.max() >= n:
        expected = f"integers from 0 to {n - 1}"
        raise ValueError(refusal(where, f"{name} with other entries", expected))
    offset = n * np.arange(len(picked))[:, None]
    counts = np.bincount((picked + offset).ravel(), minlength=picked.size)
    return counts.reshape(picked.shape).astype(np.float64)


def _wanted(rows: Floats, n_models: int, ceiling: bool) -> NDArray[np.bool_]:
    """Return (k, k), which similarities the result needs."""
    is_model = np.arange(len(rows)) < n_models
    wanted = is_model[:, None] & ~is_model[None, :]
    if ceiling:
        wanted |= ~is_model[:, None] & ~is_model[None, :]
    return np.asarray(wanted)


def _moment_tables(
    rows: Floats, weights: Floats, method: str, wanted: NDArray[np.bool_]
) -> Iterator[tuple[int, Floats]]:
    """Yield similarities (draws, k, k) from weighted moments, a block of draws at a time."""
    centred = method == "pearson"
    rows = rows - rows.mean(axis=1, keepdims=True) if centred else rows
    size = np.sqrt((rows**2).mean(axis=1, keepdims=True))
    rows = rows / np.where(size > 0.0, size, 1.0)
    matrices = rdm_matrix(rows)
    # A block of weights and its product with one matrix stay in the cache.
    step = max(1, BLOCK // max(weights.shape[1], len(rows) ** 2) // 4)
    for start in range(0, len(weights), step):
        yield start, _moments(matrices, weights[start : start + step], wanted, centred)


def _moments(matrices: Floats, weights: Floats, wanted: NDArray[np.bool_], centred: bool) -> Floats:
    k = len(matrices)
    total = 0.5 * (weights.sum(axis=1) ** 2 - (weights**2).sum(axis=1))
    total = np.where(total > 0.0, total, 1.0)

    def mean(matrix: Floats) -> Floats:
        return np.asarray(0.5 * np.einsum("bi,bi->b", weights @ matrix, weights) / total)

    means = np.stack([mean(m) for m in matrices], axis=1) if centred else np.zeros((len(total), k))
    squares = np.stack([mean(m * m) for m in matrices], axis=1)
    variances = squares - means**2
    flat = (variances <= FLAT * squares) | ((weights > 0).sum(axis=1) < 3)[:, None]
    spread = np.sqrt(np.where(flat, np.nan, variances))
    table = np.full((len(weights), k, k), np.nan)
    for i, j in zip(*np.nonzero(wanted), strict=True):
        if i == j:
            table[:, i, i] = spread[:, i] / spread[:, i]
        elif i < j:
            covariance = mean(matrices[i] * matrices[j]) - means[:, i] * means[:, j]
            table[:, i, j] = covariance / (spread[:, i] * spread[:, j])
            table[:, j, i] = table[:, i, j]
    return table


def _rank_tables(
    rows: Floats, weights: Floats, method: str, wanted: NDArray[np.bool_]
) -> Iterator[tuple[int, Floats]]:
    """Yield rank correlations (1, k, k), draw by draw."""
    i, j = np.triu_indices(weights.shape[1], 1)
    orders = [np.argsort(row, kind="stable") for row in rows]
    ends = [_tie_ends(row[order]) for row, order in zip(rows, orders, strict=True)]
    ranks = np.empty_like(rows)
    for draw, weight in enumerate(weights):
        pair = weight[i] * weight[j]
        total = pair.sum()
        for row, (order, end) in enumerate(zip(orders, ends, strict=True)):
            ranks[row, order] = _weighted_ranks(pair[order], end) - 0.5 * (total + 1.0)
        covariance = (ranks * pair) @ ranks.T
        variance = np.diag(covariance)
        flat = (variance <= FLAT * total**3) | ((weight > 0).sum() < 3)
        spread = np.sqrt(np.where(flat, np.nan, variance))
        table = covariance / np.outer(spread, spread)
        yield draw, np.where(wanted, table, np.nan)[None]


def _tie_ends(ordered: Floats) -> Integers | None:
    """Return the last position of every group of equal values, or None if all differ."""
    ends = np.flatnonzero(np.append(ordered[1:] != ordered[:-1], True))
    return None if ends.size == ordered.size else ends


def _weighted_ranks(weight: Floats, ends: Integers | None) -> Floats:
    """Return the mean rank of every value where it is repeated `weight` times."""
    below = np.cumsum(weight)
    if ends is None:
        return below - 0.5 * (weight - 1.0)
    last = below[ends]
    first = np.concatenate([[0.0], last[:-1]])
    sizes = np.diff(ends, prepend=-1)
    return np.repeat(0.5 * (first + last + 1.0), sizes)


def _tau_tables(
    rows: Floats, weights: Floats, method: str, wanted: NDArray[np.bool_]
) -> Iterator[tuple[int, Floats]]:
    """Yield tau a (1, k, k) of repeated pairs, draw by draw."""
    i, j = np.triu_indices(weights.shape[1], 1)
    n_models = int(wanted.any(axis=1).sum())
    for draw, weight in enumerate(weights):
        table = np.full(wanted.shape, np.nan)
        if (weight > 0).sum() >= 3:
            sample = np.repeat(rows, (weight[i] * weight[j]).astype(np.int64), axis=1)
            compare = _tau_rows(sample, n_models)
            table[:n_models, n_models:] = compare
        yield draw, table[None]


def _tau_rows(sample: Floats, n_models: int) -> Floats:
    return np.array([[tau_a(x, y) for y in sample[n_models:]] for x in sample[:n_models]])


def _rows(chosen: Floats | None, start: int, table: Floats) -> Floats | None:
    return None if chosen is None else chosen[start : start + len(table)]


def _summary(
    table: Floats, n_models: int, counts: Floats | None, ceiling: bool
) -> tuple[Floats, Floats, Floats]:
    """Return the mean over subjects and both bounds of the noise ceiling, of every draw."""
    n_subjects = table.shape[1] - n_models
    if counts is None:
        counts = np.ones((len(table), n_subjects))
    scores = table[:, :n_models, n_models:]
    draws = (scores * counts[:, None, :]).sum(axis=-1) / n_subjects
    if not ceiling:
        nothing = np.full(len(counts), np.nan)
        return draws, nothing, nothing
    return draws, *_ceiling(table[:, n_models:, n_models:], counts)


def _ceiling(similarity: Floats, counts: Floats) -> tuple[Floats, Floats]:
    r"""Return both bounds from the similarities of the subjects.

    The mean of standardized matrices needs no pass over pairs: with :math:`R` their similarities
    and the counts c, subject s correlates :math:`(Rc)_s / \sqrt{c^\top R c}` with it.
    """
    similarity = np.broadcast_to(similarity, (len(counts), *similarity.shape[1:]))
    with_all = np.einsum("bst,bt->bs", similarity, counts)
    power = np.einsum("bs,bs->b", with_all, counts)[:, None]
    own = np.diagonal(similarity, axis1=1, axis2=2) * counts
    without = with_all - own
    power_without = power - 2.0 * counts * with_all + own * counts
    there = counts > 0
    alone = there.sum(axis=1, keepdims=True) < 2
    with np.errstate(invalid="ignore", divide="ignore"):
        upper = with_all / np.sqrt(power)
        lower = np.where(alone, upper, without / np.sqrt(power_without))
    groups = there.sum(axis=1)
    return (
        np.where(there, lower, 0.0).sum(axis=1) / groups,
        np.where(there, upper, 0.0).sum(axis=1) / groups,
    )
