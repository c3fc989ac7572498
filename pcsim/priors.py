"""Precisions (inverse covariances) and the priors on latent states.

A precision is a number, a vector (n,) of one per unit, or a matrix (n, n) that is symmetric and
positive definite. Energies are in nats; an energy is minus a log density without its constant, and
`log_normalizer` is that constant.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from array_api_compat import array_namespace, device

from pcsim.arrays import Array, as_float, as_parameter, resolution
from pcsim.messages import check_number, refusal

__all__ = [
    "Flat",
    "GaussianPrior",
    "Prior",
    "SparsePrior",
    "check_precision",
    "log_normalizer",
    "precision_matrix",
    "precision_norm",
    "weigh",
]


def check_precision(where: str, name: str, value: Any, n: int | None = None) -> float | Array:
    """Return a lawful precision of `n` units (None: any number of them), or refuse `value`.

    Raises
    ------
    ValueError
        If it is not positive, or as a matrix not symmetric and positive definite.

    Examples
    --------
    >>> check_precision("Level", "precision", -0.7)
    Traceback (most recent call last):
    ValueError: Level: found precision down to -0.7, expected precisions above 0. ...
    """
    precision = as_parameter(where, name, value)
    if isinstance(precision, float):
        if precision <= 0:
            raise ValueError(_not_positive(where, name, precision))
        return precision
    shape = tuple(precision.shape)
    size = shape[-1] if n is None and shape else n
    if shape not in ((), (size,), (size, size)) or 0 in shape:
        n_text = "n" if size is None or n is None else str(n)
        expected = f"a number, shape ({n_text},) or ({n_text}, {n_text})"
        raise ValueError(
            refusal(where, f"{name} of shape {shape}", expected, f"Give {name} one per unit.")
        )
    xp = array_namespace(precision)
    if precision.ndim == 2:
        _check_positive_definite(where, name, precision, xp)
    elif not bool(xp.all(precision > 0)):
        raise ValueError(_not_positive(where, name, as_float(xp.min(precision))))
    return precision


def _not_positive(where: str, name: str, low: float) -> str:
    advice = f"{name} is an inverse variance: make it positive."
    return refusal(where, f"{name} down to {low:.6g}", "precisions above 0", advice)


def _check_positive_definite(where: str, name: str, matrix: Array, xp: Any) -> None:
    gap = as_float(xp.max(xp.abs(matrix - matrix.T)))
    scale = as_float(xp.max(xp.abs(matrix)))
    if gap > 1e4 * resolution(matrix, xp) * scale:
        found = f"{name} that differs from its transpose by {gap:.3g}"
        advice = f"Take ({name} + {name}.T) / 2 if that is what you mean."
        raise ValueError(refusal(where, found, "a symmetric matrix", advice))
    values = xp.linalg.eigvalsh(matrix)
    low, high = as_float(values[0]), as_float(values[-1])
    floor = matrix.shape[0] * resolution(matrix, xp) * high
    if low <= floor:
        found = f"{name} with eigenvalues from {low:.6g} to {high:.6g}"
        expected = "a positive definite matrix"
        ridge = max(floor, 0.0) - low + 1e-6 * max(abs(low), abs(high))
        advice = f"Add {ridge:.2g} to its diagonal or drop the dependent units."
        raise ValueError(refusal(where, found, expected, advice))


def weigh(precision: float | Array, error: Array) -> Array:
    """Return the weighted error: precision times `error` (..., n)."""
    return error @ precision if _ndim(precision) == 2 else precision * error


def log_normalizer(precision: float | Array, n: int, xp: Any) -> float | Array:
    """Return log of the integral of exp(-energy): (n log 2 pi - log det precision) / 2, nats.

    Examples
    --------
    >>> round(log_normalizer(4.0, 1, np), 4), round(0.5 * np.log(2 * np.pi / 4.0), 4)
    (0.2258, np.float64(0.2258))
    """
    if isinstance(precision, float):
        log_det: float | Array = n * math.log(precision)
    elif precision.ndim == 2:
        log_det = 2 * xp.sum(xp.log(xp.linalg.diagonal(xp.linalg.cholesky(precision))))
    elif precision.ndim == 1:
        log_det = xp.sum(xp.log(precision))
    else:
        log_det = n * xp.log(precision)
    return 0.5 * n * math.log(2 * math.pi) - 0.5 * log_det


def precision_matrix(precision: float | Array, n: int, like: Array) -> Array:
    """Return the precision as a matrix (n, n) in the library of `like`."""
    if _ndim(precision) == 2:
        return precision
    xp = array_namespace(like)
    return precision * xp.eye(n, dtype=like.dtype, device=device(like))


def precision_norm(precision: float | Array) -> float:
    """Return the largest eigenvalue of the precision."""
    if isinstance(precision, float):
        return precision
    xp = array_namespace(precision)
    full = precision.ndim == 2
    return as_float(xp.linalg.eigvalsh(precision)[-1] if full else xp.max(precision))


def _ndim(precision: float | Array) -> int:
    return int(getattr(precision, "ndim", 0))


@dataclass(frozen=True, eq=False)
class GaussianPrior:
    r"""Gaussian prior: energy :math:`\frac12 (\mu - m)^\top \Pi (\mu - m)`.

    Examples
    --------
    >>> GaussianPrior(mean=3.0, precision=0.7).gradient(np.array([5.0]), np)
    array([1.4])
    """

    mean: float | Array = 0.0
    """Number or (n,)."""
    precision: float | Array = 1.0
    """Inverse variance: number, (n,) or (n, n)."""

    def __post_init__(self) -> None:
        mean = as_parameter("GaussianPrior", "mean", self.mean)
        if _ndim(mean) > 1:
            found = f"mean of shape {tuple(mean.shape)}"  # type: ignore[union-attr]
            raise ValueError(
                refusal("GaussianPrior", found, "a number or shape (n,)", "Give one per unit.")
            )
        object.__setattr__(self, "mean", mean)
        precision = check_precision("GaussianPrior", "precision", self.precision)
        object.__setattr__(self, "precision", precision)

    def energy(self, mu: Array, xp: Any) -> Array:
        """Return the energy (...,) of `mu` (..., n), nats, without the constant."""
        error = mu - self.mean
        return 0.5 * xp.sum(error * weigh(self.precision, error), axis=-1)

    def gradient(self, mu: Array, xp: Any) -> Array:
        """Return the derivative of the energy by `mu`, (..., n)."""
        return weigh(self.precision, mu - self.mean)

    def log_normalizer(self, n: int, xp: Any) -> float | Array:
        """Return the constant that `energy` leaves out, nats."""
        return log_normalizer(self.precision, n, xp)

    def curvature(self, mu: Array, xp: Any) -> Array:
        """Return the second derivative, (n, n)."""
        return precision_matrix(self.precision, mu.shape[-1], mu)

    def curvature_bound(self) -> float:
        """Return the largest curvature in any direction at any `mu`."""
        return precision_norm(self.precision)


@dataclass(frozen=True, eq=False)
class SparsePrior:
    r"""Kurtotic prior of Rao & Ballard: energy :math:`\frac{\alpha}{2}\sum_i\log(1 + \mu_i^2)`.

    It is left unnormalised (for :math:`\alpha \le 1` it has no normalising constant).

    References
    ----------
    Rao & Ballard (1999), https://doi.org/10.1038/4580

    Examples
    --------
    >>> SparsePrior(alpha=4.0).gradient(np.array([-2.0, 0.0, 0.5]), np)
    array([-1.6,  0. ,  1.6])
    """

    alpha: float = 1.0
    """Strength, not negative."""

    def __post_init__(self) -> None:
        alpha = check_number("SparsePrior", "alpha", self.alpha, low=0.0)
        object.__setattr__(self, "alpha", alpha)

    def energy(self, mu: Array, xp: Any) -> Array:
        """Return the energy (...,) of `mu` (..., n), nats."""
        return 0.5 * self.alpha * xp.sum(xp.log1p(mu * mu), axis=-1)

    def gradient(self, mu: Array, xp: Any) -> Array:
        """Return the derivative of the energy by `mu`, (..., n)."""
        return self.alpha * mu / (1 + mu * mu)

    def log_normalizer(self, n: int, xp: Any) -> float:
        """Return 0: the prior is left unnormalised."""
        return 0.0

    def curvature(self, mu: Array, xp: Any) -> Array:
        r"""Return the curvature of the quadratic that touches the energy at `mu` from above.

        The energy is concave in :math:`\mu^2`, so :math:`\alpha / (1 + \mu^2)` on the diagonal,
        (..., n, n), always positive where the second derivative itself may be negative.
        """
        return (self.alpha / (1 + mu * mu))[..., None] * precision_matrix(1.0, mu.shape[-1], mu)

    def curvature_bound(self) -> float:
        """Return the largest curvature at any `mu`: alpha, at 0."""
        return self.alpha


@dataclass(frozen=True)
class Flat:
    """No prior: energy 0 everywhere."""

    def energy(self, mu: Array, xp: Any) -> Array:
        """Return zeros (...,)."""
        return xp.sum(xp.zeros_like(mu), axis=-1)

    def gradient(self, mu: Array, xp: Any) -> Array:
        """Return zeros (..., n)."""
        return xp.zeros_like(mu)

    def log_normalizer(self, n: int, xp: Any) -> float:
        """Return 0."""
        return 0.0

    def curvature(self, mu: Array, xp: Any) -> Array:
        """Return zeros (n, n)."""
        return 0.0 * precision_matrix(1.0, mu.shape[-1], mu)

    def curvature_bound(self) -> float:
        """Return 0."""
        return 0.0


Prior = GaussianPrior | SparsePrior | Flat
