"""Activities as a function of errors, and the energy there: what methods in the errors share."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from pcsim.deep.pc_clamp import Problem
from pcsim.deep.pc_network import States

__all__ = ["coordinates", "own_precision", "unfold", "unfolded_energy"]


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


def own_precision(problem: Problem, name: str) -> Tensor | float:
    """Return the precision of a free node's error; 1 for inputs, which have none."""
    if name not in problem.network.nodes:
        return 1.0
    energy = problem.network.nodes[name].energy
    if getattr(energy, "plain", False):
        return 1.0
    precision = energy.precision
    return precision.detach() if isinstance(precision, Tensor) else precision
