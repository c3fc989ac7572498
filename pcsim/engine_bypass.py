r"""Leave out linear populations that nobody looks at: what passes through them is one product.

An error unit without a time constant sends :math:`\Pi(x - W r)`. If it is not recorded, its target
may as well get :math:`(B \Pi) x - (B \Pi W) r`: fewer numbers to multiply where the error is wide
and its target narrow, as between an image and a few latents. The circuit's states move as before,
up to rounding.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import Any

from pcsim.declaration import STIMULUS, Population, Projection, port_of
from pcsim.kinds import Error
from pcsim.kinds.kind import Array, is_matrix
from pcsim.weights import is_operator

__all__ = ["bypass"]

_SIGNS = {"observed": 1.0, "predicted": -1.0, "inhibition": -1.0}


def bypass(
    populations: Sequence[Population], projections: Sequence[Projection], keep: Collection[str]
) -> tuple[tuple[Population, ...], tuple[Projection, ...]]:
    """Return the circuit without the direct error populations that it can do without.

    Parameters
    ----------
    populations, projections
        Checked; weights in one array library.
    keep
        Names of the populations that are recorded.

    Returns
    -------
    populations, projections
        Those that stay, and the products of what led through the others.
    """
    sizes = {population.name: population.size for population in populations}
    for population in populations:
        into = [p for p in projections if p.target == population.name]
        out = [p for p in projections if p.source == population.name]
        if population.name in keep or not _is_linear(population, into, out, projections):
            continue
        joined = [(first, then) for then in out for first in into]
        if _cost(joined, sizes) >= _cost_through(into, out, sizes):
            continue
        rest = [p for p in projections if population.name not in (p.source, p.target)]
        projections = (*rest, *(_join(population.kind, *pair) for pair in joined))
        populations = [one for one in populations if one is not population]
    return tuple(populations), tuple(projections)


def _is_linear(
    population: Population,
    into: Sequence[Projection],
    out: Sequence[Projection],
    projections: Sequence[Projection],
) -> bool:
    kind = population.kind
    if not isinstance(kind, Error) or not kind.direct or not into or not out:
        return False
    read = any(
        population.name in (p.gate, p.plastic.error if p.plastic else None) for p in projections
    )
    plain = all(
        p.delay == 0
        and p.plastic is None
        and isinstance(p.sign, float | int)
        and not is_operator(p.weights)
        for p in (*into, *out)
    )
    # A one-to-one path has no weights that could carry the precision.
    bare = any(p.weights is None for p in into) and any(p.weights is None for p in out)
    # A gate after the error would stand between the two products.
    return not read and plain and not bare and all(p.gate is None for p in out)


def _cost(joined: Sequence[tuple[Projection, Projection]], sizes: dict[str, int]) -> int:
    """Multiplications a trial and step; the stimulus is weighed once a frame, which is free."""
    return sum(sizes[first.source] * sizes[then.target] for first, then in joined if _moves(first))


def _cost_through(
    into: Sequence[Projection], out: Sequence[Projection], sizes: dict[str, int]
) -> int:
    dense = [p for p in (*into, *out) if _moves(p) and p.weights is not None]
    return sum(sizes[p.source] * sizes[p.target] for p in dense)


def _moves(projection: Projection) -> bool:
    return projection.source != STIMULUS


def _join(kind: Any, first: Projection, then: Projection) -> Projection:
    """Return the projection from the source of `first` to the target of `then`."""
    sign = _SIGNS[port_of(first, kind)] * first.sign * then.sign
    weights = _product(then.weights, kind.precision, first.weights)
    return replace(first, target=then.target, port=then.port, weights=weights, sign=sign)


def _product(after: Array | None, precision: Any, before: Array | None) -> Array | None:
    """Return after @ precision @ before; None is the identity."""
    if precision is None:
        scaled = after
    elif is_matrix(precision):
        scaled = precision if after is None else after @ precision
    elif after is None:
        # A scalar or diagonal precision scales the rows of what comes before; replicas' numbers
        # lie in rows, (replica, 1, n).
        n_axes = getattr(precision, "ndim", 0)
        column = precision[:, None] if n_axes == 1 else precision
        return (column.swapaxes(-1, -2) if n_axes > 1 else column) * before
    else:
        scaled = after * precision
    if before is None:
        return scaled
    return before if scaled is None else scaled @ before
