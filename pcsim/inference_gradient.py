"""Gradient descent on the free energy: steps bounded by curvature, or of a given size.

The arguments are trusted; the public border is `pcsim.inference`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from array_api_compat import array_namespace

from pcsim.arrays import Array, as_float, constant, resolution
from pcsim.hierarchy import Hierarchy, downward, energy, is_linear, state_gradient
from pcsim.messages import refusal
from pcsim.nonlinearity import linear
from pcsim.priors import precision_norm

__all__ = ["Moving", "descend", "fixed_steps", "keep", "peak", "stable_step_at"]

GROWTH = 2.0
"""Factor on the assumed curvature after a rejected step."""
RELAX = 0.7
"""Factor on it after an accepted one, never below the bound itself."""
RISES = 25
"""Steps in a row with rising F that count as divergence."""


def evaluate(hierarchy: Hierarchy, states: Sequence[Array], xp: Any) -> tuple[Array, Any]:
    """Return the state-dependent energy (...,) and the gradient, a list."""
    made = downward(hierarchy, states, xp)
    return energy(hierarchy, states, made, xp), state_gradient(hierarchy, states, made, xp)


def peak(arrays: Sequence[Array], xp: Any) -> Array:
    """Return the largest magnitude over the units of all `arrays`, one per trial."""
    out = xp.max(xp.abs(arrays[0]), axis=-1)
    for array in arrays[1:]:
        out = xp.maximum(out, xp.max(xp.abs(array), axis=-1))
    return out


def inner_product(left: Sequence[Array], right: Sequence[Array], xp: Any) -> Array:
    """Return the sum of products over the units of all levels, one per trial."""
    return sum(xp.sum(a * b, axis=-1) for a, b in zip(left, right, strict=True))


def keep(which: Array, new: Sequence[Array], old: Sequence[Array], xp: Any) -> list[Array]:
    """Return the new states where `which` (...,) holds and the old ones elsewhere."""
    return [xp.where(which[..., None], a, b) for a, b in zip(new, old, strict=True)]


class Moving:
    """Which trials are still moving, judged by the distance that is left.

    Steps that shrink by a factor q each leave size * q / (1 - q) to go; a trial has arrived when
    its last step and this rest are both below `tol`, or when its steps are rounding noise.
    """

    def __init__(self, like: Array, tol: float, xp: Any) -> None:
        self.xp = xp
        self.eps = resolution(like, xp)
        self.tol = max(tol, 100 * self.eps)
        self.size = xp.sum(xp.zeros_like(like), axis=-1)
        self.left = self.size
        self.which = self.size == 0

    def update(self, steps: Sequence[Array], states: Sequence[Array], accepted: Array) -> None:
        """Take note of the last step of every trial that accepted one."""
        xp = self.xp
        size = peak(steps, xp)
        shrink = self.size - size
        rest = size * size / xp.where(shrink > 0, shrink, xp.ones_like(shrink))
        known = (shrink > 0) | (size == 0)
        noise = size <= 4 * self.eps * (1 + peak(states, xp))
        arrived = (known & (size <= self.tol) & (rest <= self.tol)) | noise
        counts = self.which & accepted
        self.left = xp.where(counts, xp.where(known, xp.maximum(size, rest), size), self.left)
        self.size = xp.where(counts, size, self.size)
        self.which = self.which & ~(arrived & accepted)

    def any(self) -> bool:
        """Return whether any trial still moves."""
        return bool(self.xp.any(self.which))

    def count(self) -> int:
        """Return how many trials still move."""
        return int(self.xp.sum(self.xp.where(self.which, 0 * self.left + 1, 0 * self.left)))

    def furthest(self) -> float:
        """Return the largest estimated distance left among the trials that still move."""
        return as_float(self.xp.max(self.xp.where(self.which, self.left, 0 * self.left)))


@dataclass(frozen=True, eq=False)
class _Bounds:
    """Norms of weights and precisions, from which curvature is bounded at any state."""

    hierarchy: Hierarchy
    free: tuple[int, ...]
    weights: list[Any]
    precisions: list[float]

    def at(self, states: Sequence[Array], xp: Any) -> list[Any]:
        r"""Return D_l such that the Gauss-Newton curvature is at most diag(D_l).

        The curvature is block tridiagonal; a sum of the norms of a block row bounds it. The slopes
        of the nonlinearities enter by their largest value in each trial.
        """
        levels, n = self.hierarchy.levels, len(self.hierarchy.levels)
        rows: list[Any] = [0.0] * (n + 1)
        drives = None if is_linear(self.hierarchy) else downward(self.hierarchy, states, xp).drives
        for i, level in enumerate(levels):
            norm = self.weights[i]
            if level.outer != linear and drives is not None:
                norm = norm * peak([level.outer.df(drives[i], xp)], xp)
            if level.inner != linear:
                norm = norm * peak([level.inner.df(states[i + 1], xp)], xp)
            across = self.precisions[i] * norm
            both = i in self.free and i + 1 in self.free
            rows[i] = rows[i] + self.precisions[i] + (across if both else 0.0)
            prior = self.hierarchy.priors[i].curvature_bound()
            rows[i + 1] = across * norm + (across if both else 0.0) + prior
        return [rows[i] for i in self.free]


def _bounds(hierarchy: Hierarchy, free: tuple[int, ...], xp: Any) -> _Bounds:
    norms = []
    for level in hierarchy.levels:
        w, wt = level.weights, xp.matrix_transpose(level.weights)
        gram = w @ wt if level.n_below <= level.n_above else wt @ w
        largest = xp.linalg.eigvalsh(gram)[..., -1]
        norm = xp.sqrt(xp.where(largest > 0, largest, 0 * largest))
        norms.append(as_float(norm) if w.ndim == 2 else norm[..., None])
    return _Bounds(
        hierarchy, free, norms, [precision_norm(lv.precision) for lv in hierarchy.levels]
    )


def descend(
    hierarchy: Hierarchy, states: list[Array], free: tuple[int, ...], *, n_steps: int, tol: float
) -> tuple[list[Array], int, Moving]:
    """Descend by steps of gradient / curvature bound until every trial has arrived.

    With linear levels the bound holds everywhere and every step lowers F. Otherwise a step that
    raises F, or meets more curvature than assumed, is undone and tried shorter, trial by trial.
    """
    xp = array_namespace(states[0])
    bounds = _bounds(hierarchy, free, xp)
    moving = Moving(states[0], tol, xp)
    step = _linear_step if is_linear(hierarchy) else _backtracking_step
    memory: dict[str, Any] = {"boost": moving.size + 1.0}
    for done in range(1, n_steps + 1):
        states, delta, accepted = step(hierarchy, states, bounds, moving.which, memory, xp)
        moving.update(delta, [states[i] for i in free], accepted)
        if not moving.any():
            return states, done, moving
    return states, n_steps, moving


def _apply(states: Sequence[Array], free: tuple[int, ...], delta: Sequence[Array]) -> list[Array]:
    out = list(states)
    for i, change in zip(free, delta, strict=True):
        out[i] = out[i] + change
    return out


def _linear_step(
    hierarchy: Hierarchy, states: Any, bounds: _Bounds, which: Array, memory: Any, xp: Any
) -> tuple[list[Array], list[Array], Array]:
    if "rows" not in memory:
        memory["rows"] = [_column(row, xp) for row in bounds.at(states, xp)]
    made = downward(hierarchy, states, xp)
    grad = state_gradient(hierarchy, states, made, xp)
    pairs = zip(bounds.free, memory["rows"], strict=True)
    delta = [-grad[i] / row for i, row in pairs]
    if not bool(xp.all(which)):
        delta = [xp.where(which[..., None], d, xp.zeros_like(d)) for d in delta]
    return _apply(states, bounds.free, delta), delta, which


def _backtracking_step(
    hierarchy: Hierarchy, states: Any, bounds: _Bounds, which: Array, memory: Any, xp: Any
) -> tuple[list[Array], list[Array], Array]:
    free, boost = bounds.free, memory["boost"]
    if "grad" not in memory:
        memory["energy"], memory["grad"] = evaluate(hierarchy, states, xp)
    grad = [memory["grad"][i] for i in free]
    rows = [_column(row * boost, xp) for row in bounds.at(states, xp)]
    delta = [-g / row for g, row in zip(grad, rows, strict=True)]
    new = _apply(states, free, delta)
    new_energy, new_grad = evaluate(hierarchy, new, xp)
    assumed = inner_product([d * row for d, row in zip(delta, rows, strict=True)], delta, xp)
    change = [new_grad[i] - memory["grad"][i] for i in free]
    slack = 16 * resolution(states[0], xp) * (xp.abs(memory["energy"]) + xp.abs(new_energy))
    lower = new_energy <= memory["energy"] - 0.25 * assumed + slack
    straight = inner_product(change, delta, xp) <= 1.5 * assumed
    accepted = which & lower & straight
    memory["energy"] = xp.where(accepted, new_energy, memory["energy"])
    memory["grad"] = keep(accepted, new_grad, memory["grad"], xp)
    smaller = xp.maximum(RELAX * boost, xp.ones_like(boost))
    memory["boost"] = xp.where(accepted, smaller, GROWTH * boost)
    memory["boost"] = xp.where(which, memory["boost"], xp.ones_like(boost))
    return keep(accepted, new, states, xp), delta, accepted


def _column(row: Any, xp: Any) -> Any:
    """Return the bound as a divisor of (..., n) that is nowhere zero."""
    if isinstance(row, float):
        return row if row > 0 else 1.0
    return xp.where(row > 0, row, xp.ones_like(row))[..., None]


def fixed_steps(
    hierarchy: Hierarchy,
    states: list[Array],
    free: tuple[int, ...],
    *,
    n_steps: int,
    tol: float,
    step: float,
) -> tuple[list[Array], int, Moving]:
    """Descend by steps of ``step * gradient``, as a user asks who studies the dynamics.

    Raises
    ------
    RuntimeError
        If F keeps rising or overflows; the message names the largest stable step.
    """
    xp = array_namespace(states[0])
    moving = Moving(states[0], tol, xp)
    best, lowest, last, rises = states, None, None, moving.size
    with np.errstate(over="ignore", invalid="ignore"):
        for done in range(1, n_steps + 1):
            now, grad = evaluate(hierarchy, states, xp)
            if last is None:
                lowest = last = now
            rises = xp.where(now > last, rises + 1, 0 * rises)
            improved = now < lowest
            best, lowest = keep(improved, states, best, xp), xp.where(improved, now, lowest)
            if bool(xp.any(rises >= RISES)) or not bool(xp.all(xp.isfinite(now))):
                raise RuntimeError(_diverged(hierarchy, best, free, step, done))
            last = now
            delta = [-step * grad[i] for i in free]
            delta = [xp.where(moving.which[..., None], d, xp.zeros_like(d)) for d in delta]
            states = _apply(states, free, delta)
            moving.update(delta, [states[i] for i in free], moving.which)
            if not moving.any():
                return states, done, moving
    return states, n_steps, moving


def _diverged(
    hierarchy: Hierarchy, states: list[Array], free: tuple[int, ...], step: float, done: int
) -> str:
    largest = stable_step_at(hierarchy, states, free)
    found = f"free energy rising away from its minimum after {done} steps of step={step:.6g}"
    expected = f"a step below {largest:.6g} (2 / largest curvature)"
    return refusal("map_gradient", found, expected, "Lower step, or leave it out.")


def stable_step_at(hierarchy: Hierarchy, states: list[Array], free: tuple[int, ...]) -> float:
    """Return 2 / the largest curvature of F over the free states at `states`, over all trials.

    The curvature is found by power iteration on differences of the hand-written gradient.
    """
    xp = array_namespace(states[0])
    rng = np.random.default_rng(0)
    v = [
        states[i] * 0 + constant(rng.normal(size=states[i].shape[-1]), states[i], xp) for i in free
    ]
    h = resolution(states[0], xp) ** (1 / 3) * (1 + as_float(xp.max(peak(states, xp))))
    value = 0.0
    for _ in range(1000):
        scale = peak(v, xp)[..., None]
        v = [each / xp.where(scale > 0, scale, xp.ones_like(scale)) for each in v]
        _, up = evaluate(hierarchy, _apply(states, free, [h * each for each in v]), xp)
        _, down = evaluate(hierarchy, _apply(states, free, [-h * each for each in v]), xp)
        bent = [(up[i] - down[i]) / (2 * h) for i in free]
        old = value
        value = as_float(xp.max(xp.abs(inner_product(v, bent, xp)) / inner_product(v, v, xp)))
        v = bent
        if abs(value - old) <= 1e-7 * value:
            break
    return 2 / value if value > 0 else float("inf")
