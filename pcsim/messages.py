"""What an error says, and the checks at the public border that say it.

Every refusal reads ``<where>: found <this>, expected <that>. <What to do.>``, so that a reader who
did not write the code knows what to change.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable, Sequence
from types import EllipsisType
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "check_array",
    "check_choice",
    "check_integer",
    "check_number",
    "refusal",
    "unknown_name",
]

MOST_NAMES = 80
"""Known names that an error lists in full."""

Shape = Sequence["int | str | EllipsisType | None"]


def refusal(where: str, found: str, expected: str, advice: str = "") -> str:
    """Compose the one form that every error message takes.

    Examples
    --------
    >>> refusal("gabor", "frequency -1.0", "a number above 0", "Give cycles per pixel.")
    'gabor: found frequency -1.0, expected a number above 0. Give cycles per pixel.'
    """
    return f"{where}: found {found}, expected {expected.rstrip('.')}. {advice}".strip()


def unknown_name(where: str, what: str, name: object, known: Iterable[str]) -> ValueError:
    """Return the error for a name that is not known: it lists the known ones, or the ten nearest.

    Examples
    --------
    >>> raise unknown_name("load", "circuit", "bogacz", ["bogacz_2017", "adaptation"])
    Traceback (most recent call last):
    ValueError: load: found circuit 'bogacz', expected one of 'adaptation', 'bogacz_2017'.
    Did you mean 'bogacz_2017'?
    """
    listed = sorted(set(known))
    near = difflib.get_close_matches(str(name), listed, n=1, cutoff=0.5)
    shown = listed
    if len(listed) > MOST_NAMES:
        shown = sorted(difflib.get_close_matches(str(name), listed, n=10, cutoff=0.0))
    expected = "one of " + ", ".join(map(repr, shown)) if listed else "a name, but none is known"
    if len(shown) < len(listed):
        expected += f" and {len(listed) - len(shown)} others"
    advice = f"Did you mean {near[0]!r}?" if near else "Take one of these names."
    return ValueError(refusal(where, f"{what} {name!r}", expected, advice))


def check_array(
    where: str,
    name: str,
    value: Any,
    *,
    shape: Shape | None = None,
    finite: bool = True,
    positive: bool = False,
) -> NDArray[Any]:
    """Return `value` as a float array, refusing what is not one.

    Parameters
    ----------
    where, name
        The function that asks and the name of its parameter, for the message.
    value
        Anything array-like and real. float32 stays, every other number becomes float64.
    shape
        One entry an axis: an integer (this size), a string (any size, but equal strings mean equal
        sizes) or None (any size). A leading ``...`` allows any leading axes.
    finite, positive
        Whether to refuse NaN and infinity, and numbers that are not above zero.

    Raises
    ------
    TypeError
        If `value` is not made of real numbers.
    ValueError
        If its shape or its numbers are not as asked.

    Examples
    --------
    >>> check_array("infer", "weights", [[1, 2]], shape=("n_x", 2)).shape
    (1, 2)
    >>> check_array("infer", "weights", [1.0, 2.0], shape=("n_x", "n_z"))
    Traceback (most recent call last):
    ValueError: infer: found weights of shape (2,), expected shape (n_x, n_z). ...
    """
    array = _real_array(where, name, value)
    if shape is not None and not _matches(array.shape, shape):
        wanted = "(" + ", ".join("..." if s is ... else str(s or "any") for s in shape)
        wanted += ",)" if len(shape) == 1 else ")"
        advice = f"Give {name} the axes in this order."
        raise ValueError(
            refusal(where, f"{name} of shape {array.shape}", f"shape {wanted}", advice)
        )
    if finite and not np.isfinite(array).all():
        bad = int((~np.isfinite(array)).sum())
        found = f"{bad} of {array.size} entries of {name} NaN or infinite"
        raise ValueError(refusal(where, found, "finite numbers", "Remove or replace them."))
    if positive and not (array > 0).all():
        found = f"{name} down to {np.min(array):.6g}"
        raise ValueError(refusal(where, found, "numbers above 0", f"Make every {name} positive."))
    return array


def _real_array(where: str, name: str, value: Any) -> NDArray[Any]:
    try:
        array = np.asarray(value)
    except (TypeError, ValueError):
        found, advice = f"{name} that is no regular array", "Give rows of equal length."
        raise ValueError(refusal(where, found, "an array of numbers", advice)) from None
    if array.dtype.kind not in "fiub":
        found = f"{name} of type {type(value).__name__} with entries {array.dtype}"
        raise TypeError(refusal(where, found, "real numbers", "Convert it to floats."))
    return array if array.dtype == np.float32 else array.astype(np.float64, copy=False)


def _matches(shape: tuple[int, ...], wanted: Shape) -> bool:
    entries = list(wanted)
    if entries and entries[0] is ...:
        entries = entries[1:]
        shape = shape[max(len(shape) - len(entries), 0) :]
    if len(shape) != len(entries):
        return False
    sizes: dict[str, int] = {}
    for size, entry in zip(shape, entries, strict=True):
        if isinstance(entry, str):
            if sizes.setdefault(entry, size) != size:
                return False
        elif entry is not None and entry != size:
            return False
    return True


def check_number(
    where: str,
    name: str,
    value: Any,
    *,
    low: float = -math.inf,
    high: float = math.inf,
    positive: bool = False,
) -> float:
    """Return `value` as a finite float from `low` to `high`, both allowed, or refuse it.

    Examples
    --------
    >>> check_number("bar", "contrast", 1.4, low=0.0, high=1.0)
    Traceback (most recent call last):
    ValueError: bar: found contrast 1.4, expected a number from 0.0 to 1.0.
    """
    try:
        if isinstance(value, bool | np.bool_ | str | bytes) or np.ndim(value) != 0:
            raise TypeError
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        raise TypeError(refusal(where, f"{name} {_show(value)}", "one number")) from None
    if positive and not (math.isfinite(number) and number > 0):
        raise ValueError(refusal(where, f"{name} {number:.6g}", "a finite number above 0"))
    if not (math.isfinite(number) and low <= number <= high):
        bounds = {
            (True, True): f"a number from {low} to {high}",
            (True, False): f"a finite number not below {low}",
            (False, True): f"a finite number not above {high}",
            (False, False): "a finite number",
        }[math.isfinite(low), math.isfinite(high)]
        raise ValueError(refusal(where, f"{name} {number:.6g}", bounds))
    return number


def check_object(where: str, name: str, value: Any, method: str, expected: str) -> None:
    """Refuse a class in place of an object, and what cannot do what is asked of it.

    Examples
    --------
    >>> check_object("infer", "method", "adam", "visits", "a method")
    Traceback (most recent call last):
    TypeError: infer: found method 'adam', expected a method. Give the object itself, not its class.
    """
    if isinstance(value, type) or not callable(getattr(value, method, None)):
        found = value.__name__ if isinstance(value, type) else repr(value)
        found = f"{name} {found if len(found) < 80 else type(value).__name__}"
        raise TypeError(refusal(where, found, expected, "Give the object itself, not its class."))


def check_integer(where: str, name: str, value: Any, *, low: int = 0) -> int:
    """Return `value` as an integer not below `low`, or refuse it.

    Examples
    --------
    >>> check_integer("white_noise", "n_trials", 0, low=1)
    Traceback (most recent call last):
    ValueError: white_noise: found n_trials 0, expected an integer not below 1.
    """
    if isinstance(value, bool | np.bool_) or not isinstance(value, int | np.integer):
        raise TypeError(refusal(where, f"{name} {_show(value)}", "an integer"))
    if value < low:
        raise ValueError(refusal(where, f"{name} {value}", f"an integer not below {low}"))
    return int(value)


def check_choice(where: str, name: str, value: Any, choices: Iterable[str]) -> str:
    """Return `value` if it is one of `choices`, else raise `unknown_name`.

    Examples
    --------
    >>> check_choice("Whitening", "kind", "zca", ("zca", "pca"))
    'zca'
    """
    known = tuple(choices)
    if not isinstance(value, str) or value not in known:
        raise unknown_name(where, name, value, known)
    return value


def _show(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"of type {type(value).__name__}"
