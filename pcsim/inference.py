"""Inference on arrays: the states that minimise the free energy of a `Hierarchy`.

Three solvers with one interface: gradient descent (what circuits do), Gauss-Newton (fewer, dearer
steps) and the exact solution of the linear Gaussian model. Any level may be clamped; the input may
be left free, and then the model generates. Leading axes are trials, inferred independently.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from array_api_compat import device

from pcsim.arrays import Array, as_array, one_namespace
from pcsim.hierarchy import (
    Flat,
    GaussianPrior,
    Hierarchy,
    Level,
    Prior,
    SparsePrior,
    check_hierarchy,
    check_replicas,
    check_states,
    downward,
    energy,
    errors,
    free_energy,
    gradient,
    is_linear,
    normalizer,
    precision_gradient,
    predictions,
    weight_gradient,
    weighted_errors,
)
from pcsim.inference_gradient import Moving, descend, fixed_steps, stable_step_at
from pcsim.inference_newton import newton_steps, solve_linear
from pcsim.messages import check_integer, check_number, refusal

__all__ = [
    "Flat",
    "GaussianPrior",
    "Hierarchy",
    "Level",
    "MapEstimate",
    "Prior",
    "SparsePrior",
    "errors",
    "free_energy",
    "gradient",
    "infer",
    "map_exact",
    "map_gauss_newton",
    "map_gradient",
    "precision_gradient",
    "predictions",
    "stable_step",
    "weight_gradient",
    "weighted_errors",
]


@dataclass(frozen=True, eq=False)
class MapEstimate:
    """The states at which the free energy is lowest, and what it is there."""

    states: tuple[Array, ...]
    """x, mu_1, ..., mu_L, each (..., n_l); clamped ones as given."""
    errors: tuple[Array, ...]
    """Observed minus predicted, of every level but the top."""
    free_energy: Array
    """(...,), nats."""
    n_steps: int
    """Steps taken until the last trial arrived."""


def map_gradient(
    hierarchy: Hierarchy,
    x: Array | None,
    *,
    n_steps: int = 10_000,
    tol: float = 1e-10,
    step: float | None = None,
    clamp: Mapping[int, Array] | None = None,
) -> MapEstimate:
    r"""Infer all free states jointly by gradient descent on the free energy.

    Without `step` every level takes steps of its gradient over a bound on its curvature, shortened
    where a nonlinearity bends more than that, so that F never rises. With `step` every level takes
    :math:`\mu \leftarrow \mu - \eta\,\partial F/\partial\mu`. Inference starts at the prior mean
    of the top and what it predicts below; where a slope is zero there (relu at 0), at one step
    beyond, taken as if the slope were one.

    Parameters
    ----------
    x : (..., n_x)
        Sensory input, or None to leave it free (generation).
    n_steps, tol
        Stop once every latent is within `tol` of where its shrinking steps lead; give up after
        `n_steps`. `tol` is never taken below 100 rounding units (1.2e-5 in float32).
    step
        Step size, if you want your own.
    clamp
        Level -> value (..., n_level) to hold it at.

    Returns
    -------
    MapEstimate

    Raises
    ------
    ValueError, TypeError
        If `x`, `clamp` or a number does not fit.
    RuntimeError
        If `tol` is not reached or `step` diverges; both name the largest stable step.

    References
    ----------
    Bogacz (2017), https://doi.org/10.1016/j.jmp.2015.11.003

    Examples
    --------
    >>> model = Hierarchy((Level(np.eye(1), 3.0),), (GaussianPrior(),))
    >>> estimate = map_gradient(model, np.array([2.0]))
    >>> estimate.states[1].round(3), estimate.errors[0].round(3)
    (array([1.5]), array([0.5]))
    """
    where = "map_gradient"
    n_steps, tol = _check_budget(where, n_steps, tol)
    states, free = _start(where, hierarchy, x, clamp)
    if step is None:
        states, done, moving = descend(hierarchy, states, free, n_steps=n_steps, tol=tol)
    else:
        step = check_number(where, "step", step, positive=True)
        states, done, moving = fixed_steps(
            hierarchy, states, free, n_steps=n_steps, tol=tol, step=step
        )
    if moving.any():
        largest = stable_step_at(hierarchy, states, free)
        hint = "" if step is None else f" The largest stable step here is {largest:.6g}."
        raise RuntimeError(_not_converged(where, moving, n_steps, tol) + hint)
    return _estimate(hierarchy, states, done)


def map_gauss_newton(
    hierarchy: Hierarchy,
    x: Array | None,
    *,
    n_steps: int = 1000,
    tol: float = 1e-10,
    clamp: Mapping[int, Array] | None = None,
) -> MapEstimate:
    """Infer all free states jointly by Gauss-Newton steps with Levenberg damping.

    Each step solves one system per trial in all free units together: memory grows with trials times
    the square of their number. Parameters, errors and start as in `map_gradient`.

    Examples
    --------
    >>> model = Hierarchy((Level(np.eye(1), 4.0, outer="tanh"),), (GaussianPrior(precision=0.7),))
    >>> newton, slow = map_gauss_newton(model, [0.9]), map_gradient(model, [0.9])
    >>> bool(abs(newton.states[1] - slow.states[1])[0] < 1e-9)
    True
    """
    where = "map_gauss_newton"
    n_steps, tol = _check_budget(where, n_steps, tol)
    check_hierarchy(where, hierarchy)
    _check_shared_weights(where, hierarchy)
    states, free = _start(where, hierarchy, x, clamp)
    states, done, moving = newton_steps(hierarchy, states, free, n_steps=n_steps, tol=tol)
    if moving.any():
        raise RuntimeError(_not_converged(where, moving, n_steps, tol))
    return _estimate(hierarchy, states, done)


def map_exact(
    hierarchy: Hierarchy, x: Array | None, *, clamp: Mapping[int, Array] | None = None
) -> MapEstimate:
    """Return the exact posterior mode (and mean) of a linear Gaussian model.

    Parameters and errors as in `map_gradient`.

    Raises
    ------
    ValueError
        Also if a level is not linear, a prior is not Gaussian or flat, or the posterior improper.

    Examples
    --------
    >>> model = Hierarchy((Level(np.ones((2, 1)), 4.0),), (GaussianPrior(precision=0.7),))
    >>> map_exact(model, np.array([1.0, 3.0])).states[1] * (2 * 4.0 + 0.7) / 4.0
    array([4.])
    """
    where = "map_exact"
    check_hierarchy(where, hierarchy)
    _check_shared_weights(where, hierarchy)
    names = [lv.outer.name for lv in hierarchy.levels] + [lv.inner.name for lv in hierarchy.levels]
    sparse = any(isinstance(prior, SparsePrior) for prior in hierarchy.priors)
    if not is_linear(hierarchy) or sparse:
        found = f"nonlinearities {sorted(set(names))}" + (" and a SparsePrior" if sparse else "")
        advice = "Use map_gauss_newton or map_gradient."
        raise ValueError(refusal(where, found, "a linear Gaussian model", advice))
    states, free = _start(where, hierarchy, x, clamp)
    return _estimate(hierarchy, solve_linear(hierarchy, states, free), 1)


def infer(
    hierarchy: Hierarchy, x: Array | None, *, n_steps: int = 100, tol: float = 1e-6
) -> MapEstimate:
    """Descend as `map_gradient` does, for at most `n_steps`, and return what is reached by then.

    For learning and for models of a fixed number of iterations, where a state short of rest is
    meant; `n_steps` of the result says whether the budget was used up.
    """
    states, free = _start("infer", hierarchy, x, None)
    states, done, _ = descend(hierarchy, states, free, n_steps=n_steps, tol=tol)
    return _estimate(hierarchy, states, done)


def stable_step(
    hierarchy: Hierarchy, states: Sequence[Array], *, free: Sequence[int] | None = None
) -> float:
    """Return the largest stable step of plain gradient descent around `states`.

    2 over the largest eigenvalue of the Hessian of F over the `free` levels (default: the latent
    ones), the smallest over trials. In a circuit it is the largest stable dt / tau.

    Examples
    --------
    >>> model = Hierarchy((Level(np.eye(1), 4.0),), (GaussianPrior(precision=0.7),))
    >>> round(stable_step(model, [np.array([2.0]), np.array([0.5])]) * 4.7, 6)
    2.0
    """
    _, checked = check_states("stable_step", hierarchy, states)
    levels = range(1, len(checked)) if free is None else free
    if not isinstance(levels, list | tuple | range) or len(levels) == 0:
        found = f"free {levels!r}" if isinstance(levels, list | tuple) else type(levels).__name__
        raise TypeError(refusal("stable_step", found, "a tuple of levels", "0 is the input."))
    for level in levels:
        if not isinstance(level, int) or level not in range(len(checked)):
            found, expected = f"free level {level!r}", f"levels 0 to {len(checked) - 1}"
            raise ValueError(refusal("stable_step", found, expected, "0 is the input."))
    return stable_step_at(hierarchy, checked, tuple(levels))


def _check_budget(where: str, n_steps: int, tol: float) -> tuple[int, float]:
    n_steps = check_integer(where, "n_steps", n_steps, low=1)
    return n_steps, check_number(where, "tol", tol, positive=True)


def _check_shared_weights(where: str, hierarchy: Hierarchy) -> None:
    for i, level in enumerate(hierarchy.levels):
        if level.weights.ndim > 2:
            found = f"levels[{i}].weights of shape {tuple(level.weights.shape)}"
            advice = "Use map_gradient, or one hierarchy per replica."
            raise ValueError(refusal(where, found, "shape (n_below, n_above)", advice))


def _start(
    where: str, hierarchy: Hierarchy, x: Array | None, clamp: Mapping[int, Array] | None
) -> tuple[list[Array], tuple[int, ...]]:
    """Return the states to start from and the levels that are free to move."""
    check_hierarchy(where, hierarchy)
    sizes = hierarchy.sizes
    if not isinstance(clamp, Mapping | None):
        found, advice = f"clamp of type {type(clamp).__name__}", "Give {level: values}."
        raise TypeError(refusal(where, found, "a mapping", advice))
    held = {} if x is None else {0: as_array(where, "x", x, ndim=1)}
    for level, value in (clamp or {}).items():
        if level not in range(len(sizes)) or level in held:
            found = f"clamp of level {level!r}" + (" although x is given" if level in held else "")
            advice = "Level 0 is x; pass x=None to clamp it, or name another level."
            raise ValueError(refusal(where, found, f"levels 0 to {len(sizes) - 1}", advice))
        held[level] = as_array(where, f"clamp[{level}]", value, ndim=1)
    for level, value in held.items():
        if value.shape[-1] != sizes[level]:
            name = "x" if level == 0 and x is not None else f"clamp[{level}]"
            found = f"{name} of shape {tuple(value.shape)}"
            advice = "Weights are (n_below, n_above): did you pass the transpose?"
            raise ValueError(refusal(where, found, f"shape (..., {sizes[level]})", advice))
    free = tuple(level for level in range(len(sizes)) if level not in held)
    if not free:
        found, advice = "every level clamped", "Leave one out of clamp."
        raise ValueError(refusal(where, found, "a level left to infer", advice))
    return _fill(where, hierarchy, held, xp=_namespace_of(where, hierarchy, held)), free


def _namespace_of(where: str, hierarchy: Hierarchy, held: Mapping[int, Array]) -> Any:
    named = {f"level {level}": value for level, value in held.items()}
    return one_namespace(where, weights=hierarchy.levels[0].weights, **named)


def _fill(where: str, hierarchy: Hierarchy, held: Mapping[int, Array], xp: Any) -> list[Array]:
    replicas = max((tuple(lv.weights.shape[:-2]) for lv in hierarchy.levels), key=len)
    shapes = [tuple(value.shape[:-1]) for value in held.values()]
    try:
        lead = np.broadcast_shapes(*shapes, (*replicas, 1) if replicas else ())
    except ValueError:
        found, advice = f"leading axes {shapes}", "Give all the same number of trials."
        raise ValueError(refusal(where, found, "leading axes that fit", advice)) from None
    check_replicas(where, hierarchy, lead)
    sizes, weights = hierarchy.sizes, hierarchy.levels[0].weights
    states: list[Any] = [None] * len(sizes)
    for level in reversed(range(len(sizes))):
        if level in held:
            states[level] = xp.broadcast_to(held[level], (*lead, sizes[level]))
        elif level == len(sizes) - 1:
            prior = hierarchy.priors[-1]
            mean = prior.mean if isinstance(prior, GaussianPrior) else 0.0
            shape = (*lead, sizes[level])
            states[level] = xp.zeros(shape, dtype=weights.dtype, device=device(weights)) + mean
        else:
            above = hierarchy.levels[level]
            drive = above.inner.f(states[level + 1], xp) @ xp.matrix_transpose(above.weights)
            states[level] = above.outer.f(drive, xp)
    free = [level for level in range(len(sizes)) if level not in held]
    return states if is_linear(hierarchy) else _leave_dead_points(hierarchy, states, free, xp)


def _leave_dead_points(
    hierarchy: Hierarchy, states: list[Array], free: Sequence[int], xp: Any
) -> list[Array]:
    """Move latents on where the slope is exactly zero, so that descent can start."""
    made = downward(hierarchy, states, xp)
    out = list(states)
    for i, level in enumerate(hierarchy.levels):
        outer, inner = level.outer.df(made.drives[i], xp), level.inner.df(states[i + 1], xp)
        dead = xp.any(outer == 0, axis=-1) | xp.any(inner == 0, axis=-1)
        if i + 1 not in free or not bool(xp.any(dead)):
            continue
        outer = xp.where(outer == 0, xp.ones_like(outer), outer)
        inner = xp.where(inner == 0, xp.ones_like(inner), inner)
        nudge = inner * ((outer * made.errors[i]) @ level.weights)
        squares = xp.sum(level.weights * level.weights, axis=(-2, -1))[..., None]
        scale = xp.where(squares > 0, squares, xp.ones_like(squares))
        if level.weights.ndim > 2:
            scale = scale[..., None]
        out[i + 1] = states[i + 1] + xp.where(dead[..., None], nudge / scale, 0 * nudge)
    return out


def _estimate(hierarchy: Hierarchy, states: list[Array], n_steps: int) -> MapEstimate:
    xp = one_namespace("MapEstimate", x=states[0])
    made = downward(hierarchy, states, xp)
    value = energy(hierarchy, states, made, xp) + normalizer(hierarchy, xp)
    return MapEstimate(tuple(states), tuple(made.errors), value, n_steps)


def _not_converged(where: str, moving: Moving, n_steps: int, tol: float) -> str:
    found = f"{moving.count()} trials about {moving.furthest():.1e} from rest after {n_steps} steps"
    return refusal(where, found, f"tol {tol:.1e}", "Raise n_steps or tol.")
