"""Broken values for hypothesis to draw, and what a target of them is."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from hypothesis import strategies as st

NOT_FINITE = st.sampled_from([np.nan, np.inf, -np.inf])
NO_NUMBER = st.one_of(st.text(max_size=6), st.just(1j), st.just(object), st.just({}))
NOT_REAL = st.one_of(NOT_FINITE, NO_NUMBER)
NOT_POSITIVE = st.one_of(NOT_REAL, st.floats(max_value=0.0, allow_infinity=False))
NEGATIVE = st.one_of(NOT_REAL, st.floats(max_value=-1e-6, allow_infinity=False))
NO_SHARE = st.one_of(NEGATIVE, st.floats(min_value=1.0 + 1e-6, allow_infinity=False))
NO_COUNT = st.one_of(st.integers(max_value=0), st.floats(), NO_NUMBER, st.none(), st.just(True))
NO_NAME = st.one_of(st.text(max_size=8).map(lambda s: f"no {s}"), st.integers(), st.none())
NO_SHAPE = st.one_of(
    st.tuples(st.integers(max_value=0), st.integers(-3, 9)),
    st.lists(st.integers(1, 9), max_size=1).map(tuple),
    st.tuples(*[st.integers(1, 9)] * 3),
    st.tuples(st.floats(), st.integers(1, 9)),
    st.text(max_size=3),
    st.none(),
)


def shape_of(value: Any) -> tuple[int, ...] | None:
    """Return the shape of what is an array, None of what is ragged."""
    try:
        return np.shape(value)
    except ValueError:
        return None


def no_array(*shape: int) -> st.SearchStrategy[Any]:
    """Draw what is no finite array of this shape: another shape, a hole, text, ragged rows."""
    good = np.linspace(0.2, 0.8, int(np.prod(shape))).reshape(shape)

    def with_hole(place: int, value: float) -> Any:
        broken = good.copy()
        broken.flat[place % broken.size] = value
        return broken

    other = st.lists(st.integers(0, 5), min_size=0, max_size=len(shape) + 1).map(tuple)
    return st.one_of(
        st.builds(with_hole, st.integers(0, good.size - 1), NOT_FINITE),
        other.filter(lambda s: s != shape and s[-len(shape) :] != shape).map(np.ones),
        st.sampled_from(["text", [[1.0], [1.0, 2.0]], np.full(shape, 1j), np.full(shape, "a")]),
    )


@st.composite
def no_precision(draw: st.DrawFn, n: int) -> Any:
    """Draw what is no precision of `n` dimensions: negative, indefinite, lopsided, mis-sized."""
    kind = draw(st.sampled_from(["scalar", "vector", "indefinite", "lopsided", "size", "hole"]))
    if kind == "scalar":
        return draw(st.one_of(NOT_FINITE, st.floats(max_value=0.0, allow_infinity=False)))
    place = draw(st.integers(0, n - 1))
    low = draw(st.floats(-4.0, -0.2))
    if kind == "vector":
        return np.where(np.arange(n) == place, low, 0.7)
    if kind == "size":
        size = draw(st.integers(1, 6).filter(lambda s: s != n))
        return draw(st.sampled_from([np.full(size, 0.7), 4.0 * np.eye(size), np.ones((n, n, n))]))
    turn = np.linalg.qr(np.random.default_rng(place).normal(size=(n, n)))[0]
    if kind == "indefinite":
        return (turn * np.where(np.arange(n) == place, low, 4.0)) @ turn.T
    matrix = 4.0 * np.eye(n)
    matrix[place, (place + 1) % n] = low if kind == "lopsided" else np.nan
    return matrix


@dataclass(frozen=True)
class Target:
    """A call that works, and for some of its arguments what breaks it."""

    room: str
    call: Callable[..., Any]
    good: Mapping[str, Any]
    bad: Mapping[str, st.SearchStrategy[Any] | list[Any]]
