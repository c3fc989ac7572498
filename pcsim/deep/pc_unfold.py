"""Activities as a function of errors, and the energy there: what methods in the errors share."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from pcsim.deep.pc_clamp import Problem
from pcsim.deep.pc_energy import Energy, SquaredError, whole
from pcsim.deep.pc_network import States
from pcsim.messages import refusal

__all__ = ["coordinates", "own_precision", "unfold", "unfolded_energy"]


def coordinates(problem: Problem, states: Mapping[str, Tensor]) -> States:
    """Return the errors of the free nodes; of free inputs, which nothing predicts, the activity."""
    nodes = problem.network.nodes
    for name in problem.free:
        if name in nodes:
            check_difference(name, nodes[name].energy, states[name])
    with torch.no_grad():
        return {
            name: states[name] - problem.predict(name, states) if name in nodes else states[name]
            for name in problem.free
        }


def check_difference(name: str, energy: Energy, like: Tensor) -> None:
    """Refuse, of a free node, an energy that looks at more than state minus prediction."""
    energy = whole(energy)
    if isinstance(energy, SquaredError):
        return
    with torch.no_grad():
        error = torch.linspace(-1.0, 0.7, like[:1].numel()).view_as(like[:1]).to(like)
        there = energy(error + 0.5, torch.full_like(error, 0.5))
        same = torch.allclose(there, energy(error, torch.zeros_like(error)), rtol=1e-2)
    if not same:
        found = f"{name!r} with {type(energy).__name__}, which looks at more than the error,"
        advice = "Take GradientDescent or AdamDescent."
        raise ValueError(refusal("infer", found, "energies of state minus prediction", advice))


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
    total = problem.nothing
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
