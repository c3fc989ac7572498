"""Gauss-Newton steps on the free energy with Levenberg damping, and the exact linear solution.

The arguments are trusted; the public border is `pcsim.inference`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from array_api_compat import array_namespace, device

from pcsim.arrays import Array, as_float, resolution
from pcsim.hierarchy import Hierarchy, Level, downward
from pcsim.inference_gradient import Moving, evaluate, keep
from pcsim.messages import refusal
from pcsim.nonlinearity import linear
from pcsim.priors import Flat, precision_matrix, weigh

__all__ = ["curvature_matrix", "newton_steps", "solve_linear"]


def curvature_matrix(
    hierarchy: Hierarchy, states: Sequence[Array], free: tuple[int, ...], xp: Any
) -> Array:
    r"""Return the Gauss-Newton curvature of F over all free states jointly.

    Block tridiagonal: :math:`\Pi_l + J_{l-1}^\top \Pi_{l-1} J_{l-1} + \text{prior}` on the diagonal
    and :math:`-\Pi_l J_l` beside it. A sparse prior enters by a quadratic
    that bounds it from above.

    Returns
    -------
    curvature : (..., N, N)
        N free units; without trial axes where the model is linear and Gaussian.
    """
    levels, sizes = hierarchy.levels, hierarchy.sizes
    drives = downward(hierarchy, states, xp).drives
    slopes = [_jacobian(lv, drives[i], states[i + 1], xp) for i, lv in enumerate(levels)]
    blocks: dict[tuple[int, int], Array] = {}
    for i in free:
        block = 0.0
        if i < len(levels):
            block = block + precision_matrix(levels[i].precision, sizes[i], states[i])
        if i > 0:
            below = xp.matrix_transpose(slopes[i - 1])
            block = block + weigh(levels[i - 1].precision, below) @ slopes[i - 1]
            if not isinstance(hierarchy.priors[i - 1], Flat):
                block = block + hierarchy.priors[i - 1].curvature(states[i], xp)
        blocks[i, i] = block
        if i < len(levels) and i + 1 in free:
            up = -weigh(levels[i].precision, xp.matrix_transpose(slopes[i]))
            blocks[i + 1, i], blocks[i, i + 1] = up, xp.matrix_transpose(up)
    return _assemble(blocks, free, sizes, xp)


def _jacobian(level: Level, drive: Array, above: Array, xp: Any) -> Array:
    """Return d prediction / d state above: (n_below, n_above), with trial axes if it varies."""
    out = level.weights
    if level.outer != linear:
        out = level.outer.df(drive, xp)[..., :, None] * out
    if level.inner != linear:
        out = out * level.inner.df(above, xp)[..., None, :]
    return out


def _assemble(
    blocks: dict[tuple[int, int], Array], free: tuple[int, ...], sizes: tuple[int, ...], xp: Any
) -> Array:
    lead = max((tuple(block.shape[:-2]) for block in blocks.values()), key=len)
    some = next(iter(blocks.values()))
    rows = []
    for i in free:
        row = []
        for j in free:
            shape = (*lead, sizes[i], sizes[j])
            block = blocks.get((i, j))
            if block is None:
                block = xp.zeros(shape, dtype=some.dtype, device=device(some))
            row.append(xp.broadcast_to(block, shape))
        rows.append(xp.concat(row, axis=-1))
    return xp.concat(rows, axis=-2)


def newton_steps(
    hierarchy: Hierarchy, states: list[Array], free: tuple[int, ...], *, n_steps: int, tol: float
) -> tuple[list[Array], int, Moving]:
    """Take damped Gauss-Newton steps until every trial has arrived; F never rises.

    The damping of a trial falls after a step that lowers F as its quadratic model foretold and
    rises after one that does not, which is undone.
    """
    xp = array_namespace(states[0])
    moving = Moving(states[0], tol, xp)
    damping = moving.size + 1e-3
    now, grad = evaluate(hierarchy, states, xp)
    for done in range(1, n_steps + 1):
        flat = xp.concat([grad[i] for i in free], axis=-1)
        step = _damped_step(curvature_matrix(hierarchy, states, free, xp), damping, flat, xp)
        delta = _split(step, [states[i].shape[-1] for i in free])
        new = list(states)
        for i, change in zip(free, delta, strict=True):
            new[i] = states[i] + change
        new_now, new_grad = evaluate(hierarchy, new, xp)
        # The model: with D s = -gradient, F falls by s' D s - s' A s / 2.
        assumed = -xp.sum(step * flat, axis=-1)
        bent = xp.sum(step * (xp.concat([new_grad[i] for i in free], axis=-1) - flat), axis=-1)
        slack = 16 * resolution(flat, xp) * (xp.abs(now) + xp.abs(new_now))
        lower = new_now <= now - 0.25 * assumed + slack
        accepted = moving.which & lower & (bent <= 1.5 * assumed)
        eased = xp.where(bent <= 1.25 * assumed, damping / 10, damping)
        eased = xp.where(eased < 1e-12, 0 * eased + 1e-12, eased)
        damping = xp.where(accepted | ~moving.which, eased, damping * 10)
        states = keep(accepted, new, states, xp)
        now, grad = xp.where(accepted, new_now, now), keep(accepted, new_grad, grad, xp)
        moving.update(delta, [states[i] for i in free], accepted)
        if not moving.any():
            return states, done, moving
    return states, n_steps, moving


def _damped_step(curvature: Array, damping: Array, gradient: Array, xp: Any) -> Array:
    largest = xp.max(xp.linalg.diagonal(curvature), axis=-1)
    ridge = damping * xp.where(largest > 0, largest, xp.ones_like(largest))
    damped = curvature + ridge[..., None, None] * precision_matrix(
        1.0, gradient.shape[-1], gradient
    )
    return -xp.linalg.solve(damped, gradient[..., None])[..., 0]


def _split(step: Array, sizes: Sequence[int]) -> list[Array]:
    out, start = [], 0
    for n in sizes:
        out.append(step[..., start : start + n])
        start += n
    return out


def solve_linear(hierarchy: Hierarchy, states: list[Array], free: tuple[int, ...]) -> list[Array]:
    """Return the minimum of F of a linear Gaussian model: one block solve over all free levels.

    Raises
    ------
    ValueError
        If the free states are not determined: the curvature is singular.
    """
    xp = array_namespace(states[0])
    curvature = curvature_matrix(hierarchy, states, free, xp)
    values = xp.linalg.eigvalsh(curvature)
    low, high = as_float(values[0]), as_float(values[-1])
    if low <= curvature.shape[-1] * resolution(curvature, xp) * high:
        found = f"a posterior whose precision has eigenvalues from {low:.3g} to {high:.3g}"
        advice = "Give a GaussianPrior to the levels whose prior is Flat, or clamp them."
        raise ValueError(refusal("map_exact", found, "a positive definite one", advice))
    # The second solve removes the rounding of the first.
    for _ in range(2):
        _, grad = evaluate(hierarchy, states, xp)
        flat = xp.concat([grad[i] for i in free], axis=-1)
        columns = xp.matrix_transpose(xp.reshape(flat, (-1, flat.shape[-1])))
        step = xp.reshape(xp.matrix_transpose(xp.linalg.solve(curvature, columns)), flat.shape)
        states = list(states)
        for i, change in zip(free, _split(step, [states[i].shape[-1] for i in free]), strict=True):
            states[i] = states[i] - change
    return states
