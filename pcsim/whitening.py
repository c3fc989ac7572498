r"""Linear flows of the early senses: whitening in space; in time, from `temporal_whitening`.

Each is declared by its settings and fitted to data, which returns a new, frozen object with
``forward``, ``inverse`` and ``log_det`` (natural logarithm of \|det dy/dx\|). Spatial flows act on
the last axis (..., feature), temporal ones on the last two (..., time, feature).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from array_api_compat import array_namespace, device

from pcsim.arrays import Array, as_array, as_float, constant, one_namespace, resolution
from pcsim.messages import check_choice, check_integer, check_number, refusal
from pcsim.temporal_whitening import (
    FittedSpatioTemporal,
    FittedTemporalAR,
    Flow,
    FrameDifference,
    SpatioTemporal,
    TemporalAR,
    check_features,
)

__all__ = [
    "FittedSpatioTemporal",
    "FittedTemporalAR",
    "FittedWhitening",
    "Flow",
    "FrameDifference",
    "SpatioTemporal",
    "TemporalAR",
    "Whitening",
]


@dataclass(frozen=True)
class Whitening:
    r"""Spatial whitening: :math:`y = W(x - m)` with :math:`W C W^\top = I`.

    `kind` chooses among the many such W: "zca" the symmetric :math:`C^{-1/2}` (closest to the
    input, local and centre-surround on images), "pca" :math:`\Lambda^{-1/2}E^\top` (components by
    falling variance), "cholesky" the lower triangular :math:`L^{-1}`, :math:`C = LL^\top` (each
    output is what earlier inputs do not predict). C is the covariance of the data plus `ridge`.

    References
    ----------
    Srinivasan, Laughlin & Dubs (1982), https://doi.org/10.1098/rspb.1982.0085;
    Kessy, Lewin & Strimmer (2018), https://doi.org/10.1080/00031305.2016.1277159

    Examples
    --------
    >>> data = np.random.default_rng(0).normal(size=(500, 2)) @ np.array([[2.0, 0.0], [1.0, 0.5]])
    >>> white = Whitening("cholesky").fit(data)
    >>> np.cov(white.forward(data).T, bias=True).round(6) + 0.0
    array([[1., 0.],
           [0., 1.]])
    """

    kind: str = "zca"
    ridge: float = 0.0
    """Added to the diagonal of the covariance, in the unit that `ridge_unit` names."""
    ridge_unit: str = "relative"
    """"relative": times the mean variance of the data; "absolute": as it is."""
    rotation: Any = None
    """None, an orthogonal matrix (n, n), or a seed for a random one; applied to the output."""

    def __post_init__(self) -> None:
        check_choice("Whitening", "kind", self.kind, ("zca", "pca", "cholesky"))
        check_choice("Whitening", "ridge_unit", self.ridge_unit, ("relative", "absolute"))
        object.__setattr__(self, "ridge", check_number("Whitening", "ridge", self.ridge, low=0.0))

    def fit(self, data: Array) -> FittedWhitening:
        """Return the whitening of the mean and covariance (over N, not N - 1) of `data` (..., n).

        Raises
        ------
        ValueError
            If the covariance is singular; the message names a ridge that would do.
        """
        data = as_array("Whitening.fit", "data", data, ndim=2)
        xp = array_namespace(data)
        flat = xp.reshape(data, (-1, data.shape[-1]))
        mean = xp.mean(flat, axis=0)
        centred = flat - mean
        covariance = xp.matrix_transpose(centred) @ centred / flat.shape[0]
        return self.fit_covariance(covariance, mean)

    def fit_covariance(self, covariance: Array, mean: Array | None = None) -> FittedWhitening:
        """Return the whitening of a known covariance (n, n) and mean (n,), by default 0."""
        where = "Whitening.fit"
        covariance = as_array(where, "covariance", covariance, ndim=2)
        xp = array_namespace(covariance)
        n = covariance.shape[-1]
        if tuple(covariance.shape) != (n, n):
            found = f"covariance of shape {tuple(covariance.shape)}"
            raise ValueError(refusal(where, found, "shape (n, n)", "Give one row per feature."))
        gap = as_float(xp.max(xp.abs(covariance - covariance.T)))
        if gap > 1e4 * resolution(covariance, xp) * as_float(xp.max(xp.abs(covariance))):
            found = f"covariance that differs from its transpose by {gap:.3g}"
            raise ValueError(refusal(where, found, "a symmetric matrix", "Symmetrise it."))
        if mean is None:
            mean = xp.zeros_like(covariance[0, :])
        mean = as_array(where, "mean", mean, ndim=1)
        if tuple(mean.shape) != (n,):
            found = f"mean of shape {tuple(mean.shape)}"
            raise ValueError(refusal(where, found, f"shape ({n},)", "Give one per feature."))
        unit = as_float(xp.mean(xp.linalg.diagonal(covariance)))
        amount = self.ridge * (unit if self.ridge_unit == "relative" else 1.0)
        ridged = covariance + amount * xp.eye(n, dtype=covariance.dtype, device=device(covariance))
        values, vectors = xp.linalg.eigh(ridged)
        self._check_definite(values, unit, n, xp)
        filters, back = self._filters(ridged, values, vectors, xp)
        turn = self._rotation(covariance, n, xp)
        if turn is not None:
            filters, back = turn @ filters, back @ xp.matrix_transpose(turn)
        log_det = -0.5 * as_float(xp.sum(xp.log(values)))
        return FittedWhitening(mean, filters, back, log_det)

    def _check_definite(self, values: Array, unit: float, n: int, xp: Any) -> None:
        low, high = as_float(values[0]), as_float(values[-1])
        floor = 10 * n * resolution(values, xp) * abs(high)
        if low > floor and high > 0:
            return
        found = (
            f"a covariance with eigenvalues from {low:.3g} to {high:.3g} at ridge {self.ridge:g}"
        )
        if unit <= 0 and self.ridge_unit == "relative":
            advice = "The data do not vary: drop the constant features."
        else:
            scale = unit if self.ridge_unit == "relative" else 1.0
            lack = (floor - low) / scale + 1e-6 * max(high, unit, 1e-300) / scale
            advice = f"{_round_up(self.ridge + lack):.0e} would do as ridge ({self.ridge_unit})."
        raise ValueError(refusal("Whitening.fit", found, "a positive definite one", advice))

    def _filters(
        self, covariance: Array, values: Array, vectors: Array, xp: Any
    ) -> tuple[Array, Array]:
        """Return W and its inverse."""
        root = xp.sqrt(values)
        if self.kind == "cholesky":
            lower = xp.linalg.cholesky(covariance)
            eye = xp.eye(root.shape[0], dtype=lower.dtype, device=device(lower))
            return xp.tril(xp.linalg.solve(lower, eye)), lower
        transpose = xp.matrix_transpose(vectors)
        if self.kind == "zca":
            filters, back = (vectors / root) @ transpose, (vectors * root) @ transpose
            return _symmetric(filters, xp), _symmetric(back, xp)
        # The sign of an eigenvector is arbitrary: make its largest entry positive.
        largest = xp.argmax(xp.abs(vectors), axis=0)
        pick = xp.arange(root.shape[0], device=device(vectors))[:, None] == largest[None, :]
        signs = xp.sign(xp.sum(xp.where(pick, vectors, xp.zeros_like(vectors)), axis=0))
        vectors, root = xp.flip(vectors * signs, axis=1), xp.flip(root)
        return xp.matrix_transpose(vectors / root), vectors * root

    def _rotation(self, like: Array, n: int, xp: Any) -> Array | None:
        if self.rotation is None:
            return None
        if isinstance(self.rotation, int | np.integer):
            seed = check_integer("Whitening", "rotation", self.rotation)
            basis, upper = np.linalg.qr(np.random.default_rng(seed).normal(size=(n, n)))
            return constant(basis * np.sign(np.diag(upper)), like, xp)
        turn = as_array("Whitening", "rotation", self.rotation, ndim=2)
        one_namespace("Whitening", covariance=like, rotation=turn)
        fits = tuple(turn.shape) == (n, n)
        eye = xp.eye(n, dtype=like.dtype, device=device(like))
        if not fits or as_float(xp.max(xp.abs(turn @ turn.T - eye))) > 1e-6:
            found = f"rotation of shape {tuple(turn.shape)}" + (" that is not orthogonal" * fits)
            advice = "Give a seed, or Q of a QR decomposition."
            raise ValueError(refusal("Whitening", found, f"an orthogonal ({n}, {n})", advice))
        return turn


def _symmetric(matrix: Array, xp: Any) -> Array:
    return 0.5 * (matrix + xp.matrix_transpose(matrix))


def _round_up(value: float) -> float:
    """Return `value` rounded up to one digit."""
    unit = 10.0 ** math.floor(math.log10(value))
    return math.ceil(value / unit) * unit


@dataclass(frozen=True, eq=False)
class FittedWhitening:
    """A whitening with its numbers: :math:`y = W(x - m)`."""

    mean: Array
    """(n,), subtracted before the filters."""
    filters: Array
    """(n, n), W; a row is the filter of one output."""
    inverse_filters: Array
    """(n, n), the inverse of W; a column is what one output stands for."""
    filter_log_det: float
    """Log of the absolute determinant of W."""

    def forward(self, x: Array) -> Array:
        """Return the whitened `x` (..., n)."""
        x = check_features(x, "Whitening.forward", "x", self.filters, self.mean.shape[0])
        return (x - self.mean) @ self.filters.T

    def inverse(self, y: Array) -> Array:
        """Return the x (..., n) that `forward` maps to `y`."""
        y = check_features(y, "Whitening.inverse", "y", self.filters, self.mean.shape[0])
        return y @ self.inverse_filters.T + self.mean

    def log_det(self, x: Array) -> Array:
        """Return log of the absolute determinant of dy/dx, (...,): the same at every `x`."""
        x = check_features(x, "Whitening.log_det", "x", self.filters, self.mean.shape[0])
        xp = array_namespace(x)
        return xp.sum(xp.zeros_like(x), axis=-1) + self.filter_log_det
