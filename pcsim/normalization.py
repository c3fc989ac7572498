r"""Divisive normalization as an invertible flow, with its inverse and log-determinant."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from array_api_compat import array_namespace, device

from pcsim.arrays import Array, as_array, as_float, as_parameter, one_namespace, resolution
from pcsim.messages import check_number, refusal

__all__ = ["DivisiveNormalization"]


@dataclass(frozen=True, eq=False)
class DivisiveNormalization:
    r"""Every response divided by the pooled responses of the others.

    .. math:: y_i = \gamma_i\, \frac{\mathrm{sign}(x_i)\,|x_i|^n}
        {\sigma_i^n + \sum_j w_{ij} |x_j|^n}

    With :math:`u = |x|^n` and :math:`v = |y| / \gamma` this is the linear system
    :math:`(I - \mathrm{diag}(v) W)\,u = v\,\sigma^n`, which gives the inverse, and

    .. math:: \log\left|\frac{dy}{dx}\right| = \sum_i \log\frac{\gamma_i\, n\, |x_i|^{n-1}}
        {\sigma_i^n + \sum_j w_{ij}|x_j|^n} + \log\det(I - \mathrm{diag}(v) W).

    References
    ----------
    Carandini & Heeger (2012), https://doi.org/10.1038/nrn3136

    Examples
    --------
    >>> normalize = DivisiveNormalization(np.ones((2, 2)), semisaturation=0.5, gain=4.0)
    >>> y = normalize.forward(np.array([0.5, -1.5]))
    >>> y.round(4), normalize.inverse(y).round(12)
    (array([ 0.3636, -3.2727]), array([ 0.5, -1.5]))
    """

    weights: Array
    """(n, n), not negative: row i is the pool that divides response i."""
    semisaturation: float | Array = 1.0
    """Number or (n,), positive, in the units of x."""
    exponent: float = 2.0
    """Positive."""
    gain: float | Array = 1.0
    """Number or (n,), positive."""

    def __post_init__(self) -> None:
        where = "DivisiveNormalization"
        weights = as_array(where, "weights", self.weights, ndim=2)
        n = weights.shape[-1]
        if tuple(weights.shape) != (n, n) or n == 0:
            found = f"weights of shape {tuple(weights.shape)}"
            raise ValueError(refusal(where, found, "shape (n, n)", "Give each unit its pool."))
        xp = array_namespace(weights)
        if not bool(xp.all(weights >= 0)):
            found = f"weights down to {as_float(xp.min(weights)):.6g}"
            raise ValueError(refusal(where, found, "weights not below 0", "A pool only divides."))
        object.__setattr__(self, "weights", weights)
        exponent = check_number(where, "exponent", self.exponent, positive=True)
        object.__setattr__(self, "exponent", exponent)
        for name in ("semisaturation", "gain"):
            value = as_parameter(where, name, getattr(self, name))
            _check_positive(where, name, value, n)
            object.__setattr__(self, name, value)
        one_namespace(where, weights=weights, semisaturation=self.semisaturation, gain=self.gain)

    def forward(self, x: Array) -> Array:
        """Return the normalized `x` (..., n)."""
        x, xp = self._check("forward", "x", x)
        power, pool = self._pool(x, xp)
        return self.gain * xp.sign(x) * power / pool

    def inverse(self, y: Array) -> Array:
        """Return the x (..., n) that `forward` maps to `y`.

        Raises
        ------
        ValueError
            If no input gives `y`: it is at or beyond saturation.
        """
        y, xp = self._check("inverse", "y", y)
        v = xp.abs(y) / self.gain
        system = self._system(v, xp)
        target = v * self.semisaturation**self.exponent
        try:
            power = xp.linalg.solve(system, target[..., None])[..., 0]
        except (ValueError, RuntimeError):
            # LinAlgError is one of the two in every array library.
            raise ValueError(_beyond(float("nan"))) from None
        # A solution that is nowhere negative is the one input that gives y, and none else does.
        slack = 64 * resolution(power, xp) * xp.max(xp.abs(power), axis=-1, keepdims=True)
        if not bool(xp.all(xp.isfinite(power) & (power >= -slack))):
            raise ValueError(_beyond(as_float(xp.min(power))))
        power = xp.where(power > 0, power, xp.zeros_like(power))
        return xp.sign(y) * power ** (1 / self.exponent)

    def log_det(self, x: Array) -> Array:
        """Return log of the absolute determinant of dy/dx, (...,), natural.

        Minus infinity where an exponent above 1 flattens the response at x = 0 (plus below 1).
        """
        x, xp = self._check("log_det", "x", x)
        power, pool = self._pool(x, xp)
        factor = self.gain * self.exponent / pool
        logs = xp.log(factor) + (self.exponent - 1) * self._log_abs(x, xp)
        system = self._system(power / pool, xp)
        return xp.sum(logs, axis=-1) + xp.linalg.slogdet(system)[1]

    def _check(self, method: str, name: str, value: Array) -> tuple[Array, Any]:
        where, n = f"DivisiveNormalization.{method}", self.weights.shape[0]
        value = as_array(where, name, value, ndim=1)
        if value.shape[-1] != n:
            found = f"{name} of shape {tuple(value.shape)}"
            raise ValueError(refusal(where, found, f"shape (..., {n})", "Put units last."))
        return value, one_namespace(where, weights=self.weights, **{name: value})

    def _pool(self, x: Array, xp: Any) -> tuple[Array, Array]:
        power = xp.abs(x) ** self.exponent
        pooled = power @ xp.matrix_transpose(self.weights)
        return power, self.semisaturation**self.exponent + pooled

    def _system(self, v: Array, xp: Any) -> Array:
        eye = xp.eye(v.shape[-1], dtype=v.dtype, device=device(v))
        return eye - v[..., :, None] * self.weights

    def _log_abs(self, x: Array, xp: Any) -> Array:
        if self.exponent == 1:
            return xp.zeros_like(x)
        safe = xp.where(x == 0, xp.ones_like(x), xp.abs(x))
        return xp.where(x == 0, -xp.inf * xp.ones_like(x), xp.log(safe))


def _check_positive(where: str, name: str, value: float | Array, n: int) -> None:
    shape = tuple(getattr(value, "shape", ()))
    if shape not in ((), (n,)):
        found = f"{name} of shape {shape}"
        raise ValueError(refusal(where, found, f"a number or shape ({n},)", "Give one per unit."))
    low = value if isinstance(value, float) else as_float(array_namespace(value).min(value))
    if low <= 0:
        found = f"{name} down to {low:.6g}"
        raise ValueError(refusal(where, found, "numbers above 0", f"Make {name} positive."))


def _beyond(low: float) -> str:
    found = f"y that would need |x|^n down to {low:.3g}"
    advice = "Responses saturate: the pool divides every y below gain / weight. Give a smaller y."
    return refusal("DivisiveNormalization.inverse", found, "y in the range of forward", advice)
