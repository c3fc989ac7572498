"""Inference in the errors instead of the activities (ePC): one pass reaches every depth.

With :math:`z_i = p_i + \\varepsilon_i`, activities are a function of the errors, and the slope of
the energy by the errors is one backward pass through the whole graph, so that what is held at the
output moves the first layer in the first step. The equilibria are those of the activities.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor

from pcsim.deep.pc_clamp import Problem
from pcsim.deep.pc_descent import Visit, adam_move, check_descent, largest, steps_of
from pcsim.deep.pc_energy import SquaredError
from pcsim.deep.pc_network import States
from pcsim.messages import check_choice, check_number, refusal

__all__ = ["ErrorOptimisation", "coordinates", "unfold"]


def coordinates(problem: Problem, states: Mapping[str, Tensor]) -> States:
    """Return the errors of the free nodes; of free inputs, which nothing predicts, the activity."""
    nodes = problem.network.nodes
    with torch.no_grad():
        return {
            name: states[name] - problem.predict(name, states) if name in nodes else states[name]
            for name in problem.free
        }


def unfold(problem: Problem, errors: Mapping[str, Tensor]) -> tuple[States, States]:
    """Return the activities that have these errors, and the predictions, of nodes with energy."""
    states: States = dict(problem.held)
    for name in problem.network.inputs:
        if name in errors:
            states[name] = problem.hold(name, errors[name])
    predictions: States = {}
    for name in problem.active:
        predictions[name] = problem.predict(name, states)
        if name in errors:
            states[name] = problem.hold(name, predictions[name] + errors[name])
    return states, predictions


def unfolded_energy(
    problem: Problem, errors: Mapping[str, Tensor], states: States, predictions: States
) -> Tensor:
    """Return the energy of every example, (batch,); of free nodes straight from their errors."""
    first = next(iter(states.values()))
    total = first.new_zeros(len(first))
    for name in problem.active:
        energy = problem.network.nodes[name].energy
        if name in errors and name not in problem.masked:
            total = total + energy(errors[name], errors[name].new_zeros(()))
        else:
            total = total + energy(states[name], predictions[name])
    return total


@dataclass(frozen=True, kw_only=True)
class ErrorOptimisation:
    r"""Errors go down the slope of the energy, scaled by their own precision (ePC).

    .. math:: \varepsilon \leftarrow \varepsilon - \eta\,\Pi^{-1}\frac{\partial F}
        {\partial\varepsilon}

    Wherever a node is held, its energy is of its prediction as before. One step costs about a
    forward and a backward pass; the number of steps hardly grows with depth. A step must stay below
    2 / (1 + how much the output bends the energy), which shrinks as weights grow: where training
    turns erratic, lower it, or take `GaussNewton`, which finds it by itself.

    References
    ----------
    Goemaere, Oliviers, Bogacz, Demeester (2026), https://arxiv.org/abs/2505.20137

    Examples
    --------
    >>> ErrorOptimisation(n_steps=5, step=0.3).optimiser
    'gradient'
    """

    n_steps: int = 10
    step: float | Mapping[str, float] = 0.3
    optimiser: str = "gradient"
    """``"gradient"`` or ``"adam"``."""
    momentum: float = 0.0
    discount: float = 1.0
    tol: float | None = None
    """Stop once no error moves by more than this in a step."""

    def __post_init__(self) -> None:
        check_descent("ErrorOptimisation", self.n_steps, self.step, None, self.tol)
        check_choice("ErrorOptimisation", "optimiser", self.optimiser, ("gradient", "adam"))
        check_number("ErrorOptimisation", "momentum", self.momentum, low=0.0, high=1.0)
        check_number("ErrorOptimisation", "discount", self.discount, low=0.0, high=1.0)

    @property
    def is_plain(self) -> bool:
        """Whether this is a fixed number of plain steps."""
        extras = (self.momentum, 1.0 - self.discount)
        return self.optimiser == "gradient" and not any(extras) and self.tol is None

    def visits(self, problem: Problem, *, learning: bool = False) -> Iterator[Visit]:
        """Yield the start and every step."""
        if learning:
            advice = "Use GradientDescent or AdamDescent."
            found = "weights that change between steps of errors"
            raise ValueError(refusal("ErrorOptimisation", found, "fixed weights", advice))
        steps = steps_of("ErrorOptimisation", self.step, problem.free)
        errors = coordinates(problem, problem.start)
        means: States = {}
        squares: States = {}
        last, factor = math.inf, 1.0
        for count in range(1, self.n_steps + 1):
            states, energy, slopes = error_slope(problem, errors)
            yield Visit(states, energy)
            factor *= self.discount if energy >= last else 1.0
            last = energy
            moves: States = {}
            for name, gradient in slopes.items():
                if self.optimiser == "adam":
                    gradient = adam_move(name, gradient, means, squares, (0.9, 0.999), count)
                moves[name] = gradient * (-steps[name] * factor)
                if self.momentum:
                    moves[name] = means[name] = moves[name] + self.momentum * means.get(name, 0.0)
            errors = {name: errors[name] + moves[name] for name in errors}
            if self.tol is not None and largest(moves) <= self.tol:
                break
        with torch.no_grad():
            states, predictions = unfold(problem, errors)
            energy = float(unfolded_energy(problem, errors, states, predictions).sum())
        yield Visit(states, energy)


def error_slope(problem: Problem, errors: States) -> tuple[States, float, States]:
    """Return activities, energy of the batch, and its slope by the errors over their precision."""
    with torch.enable_grad():
        leaves = {name: error.detach().requires_grad_() for name, error in errors.items()}
        states, predictions = unfold(problem, leaves)
        energy = unfolded_energy(problem, leaves, states, predictions).sum()
        found: tuple[Tensor, ...] = ()
        if leaves:
            found = torch.autograd.grad(energy, list(leaves.values()))
    slopes = {
        name: gradient / own_precision(problem, name)
        for name, gradient in zip(leaves, found, strict=True)
    }
    states = {name: state.detach() for name, state in states.items()}
    return states, float(energy.detach()), slopes


def own_precision(problem: Problem, name: str) -> Tensor | float:
    """Return the precision of a free node's error; 1 for inputs, which have none."""
    if name not in problem.network.nodes:
        return 1.0
    energy = cast(SquaredError, problem.network.nodes[name].energy)
    return 1.0 if energy.plain else energy.precision.detach()
