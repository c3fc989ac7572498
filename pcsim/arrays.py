"""Border checks for code that runs on any array library of the Array API standard.

Numbers and lists become NumPy float64 arrays; an array of another library stays in that library.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from array_api_compat import array_namespace, device, is_array_api_obj, is_numpy_array

from pcsim.messages import check_array, refusal

__all__ = [
    "Array",
    "as_array",
    "as_float",
    "as_parameter",
    "constant",
    "one_namespace",
    "resolution",
]

Array = Any
"""An array of any library that follows the Array API standard."""


def as_array(where: str, name: str, value: Any, *, ndim: int = 0) -> Array:
    """Return `value` as a finite array of floats with at least `ndim` axes, or refuse it.

    Examples
    --------
    >>> as_array("forward", "x", [1, 2], ndim=1)
    array([1., 2.])
    >>> as_array("forward", "x", [1.0, np.inf], ndim=1)
    Traceback (most recent call last):
    ValueError: forward: found 1 of 2 entries of x NaN or infinite, expected finite numbers. ...
    """
    if not is_array_api_obj(value) or is_numpy_array(value):
        array: Array = check_array(where, name, value)
    else:
        array = value
        xp = array_namespace(array)
        if not xp.isdtype(array.dtype, "real floating"):
            found = f"{name} of type {array.dtype}"
            raise TypeError(refusal(where, found, "real floating numbers", f"Convert {name}."))
        if not bool(xp.all(xp.isfinite(array))):
            found = f"{name} with NaN or infinite entries"
            raise ValueError(refusal(where, found, "finite numbers", "Remove or replace them."))
    if 0 in array.shape:
        found = f"{name} of shape {tuple(array.shape)}"
        raise ValueError(refusal(where, found, "at least one entry", f"Give {name} some data."))
    if array.ndim < ndim:
        found = f"{name} of shape {tuple(array.shape)}"
        advice = f"Give {name} its missing axes."
        raise ValueError(refusal(where, found, f"at least {ndim} axes", advice))
    return array


def as_parameter(where: str, name: str, value: Any) -> float | Array:
    """Return a finite number as a float and anything else as an array.

    A float meets arrays of every library and precision; an array keeps its own.

    Examples
    --------
    >>> as_parameter("Level", "precision", np.float64(0.7))
    0.7
    """
    array = as_array(where, name, value)
    if array.ndim == 0 and is_numpy_array(array):
        return float(array)
    return array


def one_namespace(where: str, **arrays: Any) -> Any:
    """Return the array namespace that all `arrays` share; floats fit every one.

    Raises
    ------
    TypeError
        If they belong to several libraries.
    ValueError
        If, outside NumPy (which promotes), they differ in type of number.

    Examples
    --------
    >>> one_namespace("forward", x=np.zeros(2), gain=4.0).__name__
    'array_api_compat.numpy'
    """
    given = {name: a for name, a in arrays.items() if not isinstance(a, int | float)}
    owners = {name: array_namespace(a) for name, a in given.items()}
    listed = ", ".join(f"{name} of {xp.__name__.split('.')[-1]}" for name, xp in owners.items())
    if len(set(owners.values())) > 1:
        advice = "Convert all to one library."
        raise TypeError(refusal(where, listed, "arrays of one library", advice))
    dtypes = {name: a.dtype for name, a in given.items()}
    if len(set(dtypes.values())) > 1 and not all(map(is_numpy_array, given.values())):
        found = ", ".join(f"{name} of {dtype}" for name, dtype in dtypes.items())
        raise ValueError(refusal(where, found, "one type of number", "Convert them to one type."))
    return next(iter(owners.values()), array_namespace(np.zeros(0)))


def as_float(value: Array) -> float:
    """Return an array of one number as a float, outside any record of derivatives.

    Examples
    --------
    >>> as_float(np.array(0.7))
    0.7
    """
    return float(getattr(value, "detach", lambda: value)())


def constant(value: Any, like: Array, xp: Any) -> Array:
    """Return `value` (numbers, a NumPy array) in the library, type and device of `like`."""
    return xp.asarray(value, dtype=like.dtype, device=device(like))


def resolution(array: Array, xp: Any) -> float:
    """Return the rounding unit of the numbers of `array`: 2.2e-16 for float64.

    Examples
    --------
    >>> np.log2(resolution(np.zeros(1), np))
    np.float64(-52.0)
    """
    return float(xp.finfo(array.dtype).eps)
