"""What every population kind offers to the engines: one equation, for arrays and for Brian 2.

A kind is a small frozen dataclass whose fields are its parameters. It never holds activity: the
engine hands it the state and the summed input of every port, and it answers with a rate of change.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from pcsim.messages import check_array, refusal
from pcsim.nonlinearity import Nonlinearity, nonlinearity

__all__ = ["Array", "Arrays", "BrianEquations", "Kind"]

Array = Any
"""An array of any library that follows the Array API standard."""
Arrays = Mapping[str, Array]


@dataclass(frozen=True)
class BrianEquations:
    """The equations of one kind as Brian 2 strings, one neuron at a time, dimensionless.

    Times are parameters whose names begin with ``tau`` (seconds). Ports have their own names.
    """

    drift: Mapping[str, str] = field(default_factory=dict)
    """State -> right-hand side of its differential equation, per second."""
    expressions: Mapping[str, str] = field(default_factory=dict)
    """Name -> expression, in order: ``output``, ``rate``, and ``slope`` if it has one."""
    parameters: Mapping[str, Array] = field(default_factory=dict)
    """Name -> number or one number a unit."""
    matrices: Mapping[str, tuple[Array, str]] = field(default_factory=dict)
    """Name -> (matrix, name of the vector it multiplies): coupling inside the population."""


class Kind(Protocol):
    """The interface of a population kind. Arrays have shape (..., n): leading axes are trials."""

    @property
    def ports(self) -> tuple[str, ...]:
        """Names of the inputs. What several projections send to one port is summed."""

    @property
    def states(self) -> tuple[str, ...]:
        """Names of the state variables, each one number a unit; none if algebraic."""

    @property
    def direct(self) -> bool:
        """Whether the output follows the inputs at once (and not only through a state)."""

    @property
    def has_slope(self) -> bool:
        """Whether `slope` exists, so that a projection may name this population as its gate."""

    @property
    def slowest(self) -> float:
        """Longest time constant, seconds; 0 if algebraic."""

    @property
    def steady(self) -> bool:
        """Whether `decay` stays the same whatever the inputs are."""

    def drift(self, state: Arrays, inputs: Arrays, xp: Any) -> dict[str, Array]:
        """Return the rate of change of every state, per second."""

    def decay(self, inputs: Arrays, xp: Any) -> dict[str, Array]:
        """Return the known part of the drift that is linear in the state, per second.

        Exponential Euler integrates it exactly. Zero means that plain Euler is used.
        """

    def output(self, state: Arrays, inputs: Arrays, xp: Any) -> Array:
        """Return what the population sends to others."""

    def rate(self, state: Arrays, inputs: Arrays, xp: Any) -> Array:
        """Return the activity that is recorded."""

    def slope(self, state: Arrays, inputs: Arrays, xp: Any) -> Array:
        """Return the slope of the nonlinearity where the population stands."""

    def check(self, where: str, size: int) -> None:
        """Refuse parameters that are not lawful for `size` units."""

    def brian_equations(self) -> BrianEquations:
        """Return the same equations for Brian 2."""


def check_tau(where: str, name: str, value: Any, size: int) -> None:
    """Refuse a time constant that is neither a positive number nor one for every unit."""
    check_parameter(where, name, value, size, positive=True)


def check_parameter(
    where: str, name: str, value: Any, size: int, *, positive: bool = False, low: float = -np.inf
) -> None:
    """Refuse what is neither a finite number nor one for every unit, in the allowed range."""
    shape = () if np.ndim(value) == 0 else (size,)
    array = check_array(where, name, value, shape=shape, positive=positive)
    if (array < low).any():
        found = f"{name} down to {array.min():.6g}"
        raise ValueError(refusal(where, found, f"numbers not below {low:g}"))


def check_nonlinearity(where: str, value: Any) -> None:
    """Refuse what names no point nonlinearity."""
    if not isinstance(value, str | Nonlinearity):
        raise TypeError(
            refusal(where, f"nonlinearity {value!r}", "a Nonlinearity or the name of one")
        )
    nonlinearity(value)


def is_matrix(value: Array) -> bool:
    """Tell whether `value` is a matrix over units, and not one row of numbers a replica."""
    return value is not None and np.ndim(value) > 1 and value.shape[-1] == value.shape[-2] > 1


def weigh(precision: Array, values: Array, xp: Any) -> Array:
    """Return precision times `values`, whether it is a number, a vector or a matrix."""
    if is_matrix(precision):
        return xp.matmul(values, xp.matrix_transpose(precision))
    return precision * values
