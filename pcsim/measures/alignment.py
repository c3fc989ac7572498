r"""How alike two sets of responses to the same stimuli are, up to a rotation of the units.

Rows are the same stimuli in both; the numbers of units may differ. All measures are blind to the
mean of each unit, to orthogonal maps of the units and (but for `procrustes_distance`) to overall
scale.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from pcsim.measures.centred import centred
from pcsim.messages import check_array, check_number, refusal

__all__ = ["linear_cka", "procrustes_distance", "shape_distance"]

Floats = NDArray[np.float64]


def linear_cka(x: Any, y: Any, *, debiased: bool = False) -> Floats:
    r"""Return the linear centred kernel alignment.

    .. math:: \frac{\|X^\top Y\|_F^2}{\|X^\top X\|_F\,\|Y^\top Y\|_F}

    of centred responses. With few stimuli and many units it nears 1 for unrelated responses;
    debiased, the estimate of each of the three leaves out what a stimulus shares with itself, and
    unrelated responses have 0 on average.

    Parameters
    ----------
    x : (..., n_stimuli, n_units_x)
    y : (..., n_stimuli, n_units_y)
    debiased
        At least 4 stimuli.

    Returns
    -------
    cka : (...)
        From 0 to 1; debiased it may fall below 0. NaN where responses do not vary, or the debiased
        strength of one of the two is not above 0.

    References
    ----------
    Kornblith et al. (2019), https://doi.org/10.48550/arXiv.1905.00414; debiased:
    Song et al. (2012), https://jmlr.org/papers/v13/song12a.html

    Examples
    --------
    >>> x = np.array([[0.0, 1.0], [2.0, 0.0], [1.0, 5.0], [4.0, 1.0]])
    >>> linear_cka(x, 3.0 * x[:, ::-1] + 2.0).round(12).item()
    1.0
    """
    where = "linear_cka"
    x, y = _pair(where, x, y, 4 if debiased else 2)
    if not debiased and max(x.shape[-1], y.shape[-1]) < x.shape[-2]:
        shared, own_x, own_y = (_energy(a, b) for a, b in ((x, y), (x, x), (y, y)))
    else:
        kernels = [a @ a.swapaxes(-1, -2) for a in (x, y)]
        inner = _unbiased if debiased else _inner
        k, m = kernels
        shared, own_x, own_y = inner(k, m), inner(k, k), inner(m, m)
    valid = (own_x > 0.0) & (own_y > 0.0)
    scale = np.sqrt(np.where(valid, own_x, 1.0)) * np.sqrt(np.where(valid, own_y, 1.0))
    return np.where(valid, shared / scale, np.nan)


def _energy(a: Floats, b: Floats) -> Floats:
    cross = a.swapaxes(-1, -2) @ b
    return _inner(cross, cross)


def _inner(a: Floats, b: Floats) -> Floats:
    return np.asarray(np.einsum("...ij,...ij->...", a, b))


def _unbiased(k: Floats, m: Floats) -> Floats:
    """Return Song's unbiased estimate of HSIC, times n (n - 3)."""
    n = k.shape[-1]
    diagonals = [np.diagonal(a, axis1=-2, axis2=-1) for a in (k, m)]
    inner = _inner(k, m) - np.einsum("...i,...i->...", *diagonals)
    rows_k, rows_m = (a.sum(axis=-1) - d for a, d in zip((k, m), diagonals, strict=True))
    sums = rows_k.sum(axis=-1) * rows_m.sum(axis=-1)
    crossed = np.einsum("...i,...i->...", rows_k, rows_m)
    return np.asarray(inner + sums / ((n - 1) * (n - 2)) - 2.0 * crossed / (n - 2))


def procrustes_distance(x: Any, y: Any) -> Floats:
    r"""Return how far two sets of responses are apart after the best rotation.

    .. math:: \min_Q \|X - YQ\|_F = \sqrt{\|X\|_F^2 + \|Y\|_F^2 - 2\,\|X^\top Y\|_*}

    of centred responses, with the sum of singular values :math:`\|\cdot\|_*`. A metric.

    Parameters
    ----------
    x : (..., n_stimuli, n_units_x)
    y : (..., n_stimuli, n_units_y)

    Returns
    -------
    distance : (...)

    References
    ----------
    Schönemann (1966), https://doi.org/10.1007/BF02289451

    Examples
    --------
    >>> x = np.array([[1.0, 0.0], [-1.0, 0.0]])
    >>> procrustes_distance(x, 3.0 * x[:, ::-1]).round(12).item()
    2.828427124746
    """
    x, y = _pair("procrustes_distance", x, y, 2)
    square = _inner(x, x) + _inner(y, y) - 2.0 * _nuclear(x, y)
    return np.asarray(np.sqrt(np.maximum(square, 0.0)))


def shape_distance(x: Any, y: Any, *, alpha: float = 1.0) -> Floats:
    r"""Return the angle between two sets of responses after the best rotation, radians.

    .. math:: \theta = \arccos \frac{\|\tilde X^\top \tilde Y\|_*}{\|\tilde X\|_F\,\|\tilde Y\|_F},
        \qquad \tilde X = X\,(\alpha I + (1 - \alpha)(X^\top X)^{-1/2})

    `alpha` 1 allows for rotations; 0 for every invertible linear map (the mean of canonical
    correlations). A metric between shapes.

    Parameters
    ----------
    x : (..., n_stimuli, n_units_x)
    y : (..., n_stimuli, n_units_y)
    alpha
        From 0 to 1.

    Returns
    -------
    angle : (...)
        From 0 to pi / 2; NaN where responses do not vary.

    References
    ----------
    Williams et al. (2021), https://doi.org/10.48550/arXiv.2110.14739

    Examples
    --------
    >>> x = np.array([[1.0, 0.0], [-1.0, 0.0], [0.0, 2.0], [0.0, -2.0]])
    >>> shape_distance(x, 3.0 * x[:, ::-1]).round(6).item()
    0.0
    >>> shape_distance(x, x @ [[4.0, 0.0], [1.0, 0.5]], alpha=0.0).round(6).item()
    0.0
    """
    where = "shape_distance"
    alpha = check_number(where, "alpha", alpha, low=0.0, high=1.0)
    x, y = (_partly_white(a, alpha) for a in _pair(where, x, y, 2))
    size = np.sqrt(_inner(x, x)) * np.sqrt(_inner(y, y))
    cosine = _nuclear(x, y) / np.where(size > 0.0, size, 1.0)
    return np.where(size > 0.0, np.arccos(np.clip(cosine, 0.0, 1.0)), np.nan)


def _partly_white(x: Floats, alpha: float) -> Floats:
    if alpha == 1.0:
        return x
    left, size, right = np.linalg.svd(x, full_matrices=False)
    kept = size > 1e-12 * size[..., :1]
    scaled = np.where(kept, alpha * size + (1.0 - alpha), 0.0)
    return np.asarray((left * scaled[..., None, :]) @ right)


def _nuclear(x: Floats, y: Floats) -> Floats:
    return np.asarray(np.linalg.svd(x.swapaxes(-1, -2) @ y, compute_uv=False).sum(axis=-1))


def _pair(where: str, x: Any, y: Any, least: int) -> tuple[Floats, Floats]:
    shape = (..., "n_stimuli", "n_units")
    x = check_array(where, "x", x, shape=shape).astype(np.float64)
    y = check_array(where, "y", y, shape=shape).astype(np.float64)
    if x.shape[-2] != y.shape[-2] or x.shape[-2] < least:
        found = f"{x.shape[-2]} and {y.shape[-2]} stimuli"
        advice = "Rows are the same stimuli in both."
        raise ValueError(refusal(where, found, f"as many in both, at least {least}", advice))
    return centred(x, -2), centred(y, -2)
