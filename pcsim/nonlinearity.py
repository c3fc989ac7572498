"""Point nonlinearities: a function, its derivative, and the same two as Brian 2 strings.

The array form takes the array namespace as its second argument, so one definition serves NumPy,
torch and every other library that follows the Array API standard.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from pcsim.messages import check_number, refusal, unknown_name

__all__ = [
    "Nonlinearity",
    "linear",
    "logistic",
    "nonlinearity",
    "power",
    "relu",
    "soft_threshold",
    "square",
    "tanh",
]

Array = Any


@dataclass(frozen=True)
class Nonlinearity:
    """A function applied to every unit on its own, with its derivative.

    A user's own is made the same way as those below: give `f` and `df`, and the strings if the
    circuit is to run on Brian 2.

    Examples
    --------
    >>> import numpy as np
    >>> softplus = Nonlinearity(
    ...     name="softplus",
    ...     f=lambda x, xp: xp.log1p(xp.exp(x)),
    ...     df=lambda x, xp: 1 / (1 + xp.exp(-x)),
    ...     brian="log(1 + exp(u))",
    ...     brian_df="1 / (1 + exp(-u))",
    ... )
    >>> round(float(softplus.df(np.array(0.0), np)), 3)
    0.5
    """

    name: str
    f: Callable[[Array, Any], Array]
    """``f(x, xp)``: the value, of the shape of `x`; `xp` is the array namespace."""
    df: Callable[[Array, Any], Array]
    """``df(x, xp)``: the derivative at `x`."""
    brian: str = ""
    """The value as a Brian 2 expression in ``u``; "" if there is none."""
    brian_df: str = ""
    """The derivative as a Brian 2 expression in ``u``; "" if there is none."""

    def __post_init__(self) -> None:
        for name in ("f", "df"):
            if not callable(getattr(self, name)):
                found = f"{name} {getattr(self, name)!r}"
                raise TypeError(
                    refusal("Nonlinearity", found, "a function of (x, xp)", f"Give {name}.")
                )


@dataclass(frozen=True)
class _Bound:
    """``function(x, xp, *parameters)``: unlike a closure it compares, hashes and pickles."""

    function: Callable[..., Array]
    parameters: tuple[float | bool, ...]

    def __call__(self, x: Array, xp: Any) -> Array:
        return self.function(x, xp, *self.parameters)


def nonlinearity(which: str | Nonlinearity) -> Nonlinearity:
    """Return the nonlinearity of this name; an instance is returned as it is.

    Raises
    ------
    ValueError
        If the name is not known.

    Examples
    --------
    >>> nonlinearity("tanh").brian
    'tanh(u)'
    """
    if isinstance(which, Nonlinearity):
        return which
    if not isinstance(which, str):
        found = f"a {type(which).__name__}"
        advice = "Make one with Nonlinearity(name=..., f=..., df=...)."
        raise TypeError(refusal("nonlinearity", found, "a name or a Nonlinearity", advice))
    if which not in _NAMED:
        raise unknown_name("nonlinearity", "name", which, _NAMED)
    return _NAMED[which]


def _linear(x: Array, xp: Any) -> Array:
    return x


def _one(x: Array, xp: Any) -> Array:
    return xp.ones_like(x)


def _tanh(x: Array, xp: Any) -> Array:
    return xp.tanh(x)


def _tanh_df(x: Array, xp: Any) -> Array:
    y = xp.tanh(x)
    return (1 - y) * (1 + y)


def _logistic(x: Array, xp: Any) -> Array:
    # 1 / (1 + exp(-x)), written so that no x overflows.
    return 0.5 + 0.5 * xp.tanh(0.5 * x)


def _logistic_df(x: Array, xp: Any) -> Array:
    return 0.25 * _tanh_df(0.5 * x, xp)


def _relu(x: Array, xp: Any) -> Array:
    return xp.where(x > 0, x, xp.zeros_like(x))


def _relu_df(x: Array, xp: Any) -> Array:
    return xp.where(x > 0, xp.ones_like(x), xp.zeros_like(x))


def _soft_threshold(x: Array, xp: Any, lam: float) -> Array:
    return xp.sign(x) * _relu(xp.abs(x) - lam, xp)


def _soft_threshold_df(x: Array, xp: Any, lam: float) -> Array:
    return _relu_df(xp.abs(x) - lam, xp)


def _power(x: Array, xp: Any, n: float, rectified: bool) -> Array:
    return _relu(x, xp) ** n if rectified else xp.sign(x) * xp.abs(x) ** n


def _power_df(x: Array, xp: Any, n: float, rectified: bool) -> Array:
    slope = n * xp.abs(x) ** (n - 1)
    return xp.where(x > 0, slope, xp.zeros_like(x)) if rectified else slope


def _square(x: Array, xp: Any) -> Array:
    return x * x


def _square_df(x: Array, xp: Any) -> Array:
    return 2 * x


linear = Nonlinearity("linear", _linear, _one, "u", "1")
tanh = Nonlinearity("tanh", _tanh, _tanh_df, "tanh(u)", "1 - tanh(u)**2")
logistic = Nonlinearity(
    "logistic",
    _logistic,
    _logistic_df,
    "0.5 + 0.5*tanh(0.5*u)",
    "0.25*(1 - tanh(0.5*u)**2)",
)
relu = Nonlinearity("relu", _relu, _relu_df, "u*int(u > 0)", "1.0*int(u > 0)")
square = Nonlinearity("square", _square, _square_df, "u**2", "2*u")

_NAMED = {each.name: each for each in (linear, tanh, logistic, relu, square)}


def soft_threshold(lam: float) -> Nonlinearity:
    r"""Return :math:`f(u) = \mathrm{sign}(u)\,\max(|u| - \lambda, 0)`.

    Parameters
    ----------
    lam
        Threshold :math:`\lambda \ge 0`, in the units of `u`.

    References
    ----------
    Rozell et al. (2008), https://doi.org/10.1162/neco.2008.03-07-486

    Examples
    --------
    >>> import numpy as np
    >>> soft_threshold(0.5).f(np.array([-2.0, 0.3, 0.75]), np)
    array([-1.5 ,  0.  ,  0.25])
    """
    lam = check_number("soft_threshold", "lam", lam, low=0.0)
    return Nonlinearity(
        f"soft_threshold({lam!r})",
        _Bound(_soft_threshold, (lam,)),
        _Bound(_soft_threshold_df, (lam,)),
        f"sign(u)*(abs(u) - {lam!r})*int(abs(u) > {lam!r})",
        f"1.0*int(abs(u) > {lam!r})",
    )


def power(n: float, rectified: bool = True) -> Nonlinearity:
    r"""Return :math:`f(u) = \max(u, 0)^n`, or :math:`\mathrm{sign}(u)|u|^n` if not rectified.

    Parameters
    ----------
    n
        Exponent, at least 1: below it the slope at 0 is infinite.
    rectified
        Whether negative input gives 0 (a firing rate) or the mirrored value.

    Examples
    --------
    >>> import numpy as np
    >>> power(2.0).f(np.array([-3.0, 3.0]), np)
    array([0., 9.])
    """
    n = check_number("power", "n", n, low=1.0)
    value, slope = f"abs(u)**{n!r}", f"{n!r}*abs(u)**{n - 1!r}"
    return Nonlinearity(
        f"power({n!r}, rectified={bool(rectified)})",
        _Bound(_power, (n, bool(rectified))),
        _Bound(_power_df, (n, bool(rectified))),
        f"{value}*int(u > 0)" if rectified else f"sign(u)*{value}",
        f"{slope}*int(u > 0)" if rectified else slope,
    )
