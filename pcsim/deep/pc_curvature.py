"""The energy around a place in the errors: its height, its slope, and how it bends.

In the errors the energy bends by :math:`\\Pi + J^\\top H J`, where :math:`J` is how held nodes'
predictions depend on the errors and :math:`H` how their energies bend by the prediction. Two ways
to have it: automatic differentiation (any graph), and in place on chains, at a fraction of it.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Protocol, final

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from pcsim.deep.pc_chain import Chain, chain_of, is_supervised
from pcsim.deep.pc_clamp import Problem
from pcsim.deep.pc_fused import FusedLoop
from pcsim.deep.pc_network import States
from pcsim.deep.pc_unfold import coordinates, unfold, unfolded_energy
from pcsim.messages import refusal

__all__ = ["ChainCurve", "Curve", "GeneralCurve", "Quadratic", "curve_of"]


class Quadratic(Protocol):
    """The slope at a place, and products with the Gauss-Newton matrix there."""

    gradient: Tensor
    """(batch, n)."""

    def push(self, direction: Tensor) -> list[Tensor]:
        """Return how the predictions of held nodes move with the errors."""

    def curvature(self, direction: Tensor, pushed: list[Tensor]) -> Tensor:
        """Return direction times matrix times direction, (batch,)."""

    def product(self, direction: Tensor, pushed: list[Tensor]) -> Tensor:
        """Return matrix times direction, (batch, n)."""


class Curve(Protocol):
    """The energy of every example as a function of its errors, (batch, n)."""

    start: Tensor
    """The errors where the problem starts."""

    def energy(self, errors: Tensor) -> Tensor:
        """Return the energy of every example, (batch,)."""

    def quadratic(self, errors: Tensor) -> Quadratic:
        """Return slope and curvature, valid until the next place is looked at."""

    def states(self, errors: Tensor) -> States:
        """Return the activities that have these errors."""


def curve_of(problem: Problem) -> Curve:
    """Return the fastest way to follow the energy of a problem."""
    if any(state.dtype == torch.float16 for state in problem.start.values()):
        found = "float16, in which squares overflow, under steps that follow the curvature"
        expected, advice = "float32, float64 or bfloat16", "Convert, or take steps of fixed size."
        raise ValueError(refusal("infer", found, expected, advice))
    chain = chain_of(problem.network)
    if chain is not None and is_supervised(problem, chain) and problem.free:
        return ChainCurve(problem, chain)
    return GeneralCurve(problem)


@dataclass(frozen=True)
class Layout:
    """Errors of all free nodes side by side, (batch, n)."""

    shapes: dict[str, torch.Size]

    def join(self, parts: States) -> Tensor:
        """Return the errors as one tensor, (batch, n)."""
        return torch.cat([parts[name].flatten(1) for name in self.shapes], dim=1)

    def split(self, whole: Tensor) -> States:
        """Return the errors by node."""
        sizes = [shape[1:].numel() for shape in self.shapes.values()]
        parts = torch.split(whole, sizes, dim=1)
        return {
            name: part.reshape(len(whole), *shape[1:])
            for (name, shape), part in zip(self.shapes.items(), parts, strict=True)
        }


@final
class GeneralCurve:
    """By automatic differentiation, for any graph and any clamp."""

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        begin = coordinates(problem, problem.start)
        self.layout = Layout({name: error.shape for name, error in begin.items()})
        self.start = self.layout.join(begin) if begin else torch.empty(0)

    def energy(self, errors: Tensor) -> Tensor:
        """Return the energy of every example, (batch,)."""
        with torch.no_grad():
            parts = self.layout.split(errors)
            return unfolded_energy(self.problem, parts, *unfold(self.problem, parts))

    def quadratic(self, errors: Tensor) -> GeneralQuadratic:
        """Return slope and curvature."""
        return GeneralQuadratic(self.problem, self.layout, errors)

    def states(self, errors: Tensor) -> States:
        """Return the activities that have these errors."""
        with torch.no_grad():
            return unfold(self.problem, self.layout.split(errors))[0]


@final
class GeneralQuadratic:
    """Slope and curvature by automatic differentiation."""

    def __init__(self, problem: Problem, layout: Layout, errors: Tensor) -> None:
        nodes = problem.network.nodes
        self.problem, self.layout = problem, layout
        self.alone = [
            name for name in layout.shapes if name in nodes and name not in problem.masked
        ]
        # Fused attention has no second derivative.
        with torch.enable_grad(), sdpa_kernel(SDPBackend.MATH):
            self.leaf = errors.detach().requires_grad_()
            parts = layout.split(self.leaf)
            states, self.predictions = unfold(problem, parts)
            energy = unfolded_energy(problem, parts, states, self.predictions).sum()
            (self.gradient,) = torch.autograd.grad(energy, self.leaf, retain_graph=True)
            away = {n: self.predictions[n] - states[n] for n in problem.active}
            self.targets = {name: states[name].detach() for name in problem.active}
            self.ends = {
                n: end for n, end in away.items() if n not in self.alone and end.requires_grad
            }
            self.probes = [torch.zeros_like(end).requires_grad_() for end in self.ends.values()]
            ends = list(self.ends.values())
            if ends:
                self.pulled = torch.autograd.grad(ends, self.leaf, self.probes, create_graph=True)

    def push(self, direction: Tensor) -> list[Tensor]:
        """Return how the predictions of held nodes move with the errors."""
        if not self.ends:
            return []
        return list(torch.autograd.grad(self.pulled, self.probes, direction, retain_graph=True))

    def own(self, direction: Tensor) -> Tensor:
        """Return the precision times the direction; nothing where units are held."""
        nodes = self.problem.network.nodes
        pieces = self.layout.split(direction)
        bent = {
            name: nodes[name].energy.curvature(piece, piece, piece)
            if name in self.alone
            else torch.zeros_like(piece)
            for name, piece in pieces.items()
        }
        return self.layout.join(bent).detach()

    def bent(self, pushed: list[Tensor]) -> list[Tensor]:
        """Return the curvature of held nodes' energies times how they moved."""
        nodes = self.problem.network.nodes
        return [
            nodes[name].energy.curvature(part, self.predictions[name], self.targets[name]).detach()
            for name, part in zip(self.ends, pushed, strict=True)
        ]

    def curvature(self, direction: Tensor, pushed: list[Tensor]) -> Tensor:
        """Return direction times matrix times direction, (batch,)."""
        total = (direction * self.own(direction)).sum(1)
        for part, bent in zip(pushed, self.bent(pushed), strict=True):
            total = total + (part * bent).flatten(1).sum(1)
        return total

    def product(self, direction: Tensor, pushed: list[Tensor]) -> Tensor:
        """Return matrix times direction, (batch, n)."""
        if not self.ends:
            return self.own(direction)
        ends = list(self.ends.values())
        back = torch.autograd.grad(ends, self.leaf, self.bent(pushed), retain_graph=True)[0]
        return self.own(direction) + back


@final
class ChainCurve:
    """In place, for a chain whose two ends are held; it is its own quadratic."""

    gradient: Tensor

    def __init__(self, problem: Problem, chain: Chain) -> None:
        self.chain, self.x = chain, problem.start[chain.names[0]]
        self.loop = FusedLoop(chain, chain.rows(self.x))
        ends = [0]
        for size in chain.sizes[1:-1]:
            ends.append(ends[-1] + size)
        self.columns = [slice(0, 0), *(slice(a, b) for a, b in itertools.pairwise(ends))]
        with torch.no_grad():
            self.loop.start(problem)
            self.start = torch.cat(self.loop.free_errors()[1:-1], dim=1)
        self.place = self.start
        self.moves = [torch.empty_like(state) for state in self.loop.states]

    def visit(self, errors: Tensor) -> None:
        """Bring states, rates and predictions to these errors, unless they are there."""
        if errors is not self.place:
            self.loop.unfold([errors[:, part] for part in self.columns])
            self.place = errors

    @torch.no_grad()
    def energy(self, errors: Tensor) -> Tensor:
        """Return the energy of every example, (batch,)."""
        self.visit(errors)
        return self.loop.energy([errors[:, part] for part in self.columns])

    @torch.no_grad()
    def quadratic(self, errors: Tensor) -> ChainCurve:
        """Return slope and curvature, valid until the next place is looked at."""
        self.visit(errors)
        top = len(self.chain.links)
        self.gradient = self.weighted(errors).sub_(self.back(self.loop.correct(top)))
        return self

    @torch.no_grad()
    def states(self, errors: Tensor) -> States:
        """Return the activities that have these errors."""
        self.visit(errors)
        found = self.loop.by_name(self.x)
        return found | {name: found[name].clone() for name in self.chain.names[1:-1]}

    def weighted(self, errors: Tensor) -> Tensor:
        """Return precision times errors, a new tensor."""
        found = errors.clone()
        for part, precision in zip(self.columns[1:], self.chain.precisions, strict=False):
            if precision != 1.0:
                found[:, part] *= precision
        return found

    def back(self, signal: Tensor) -> Tensor:
        """Return how much the errors move what the signal weighs at the output, (batch, n)."""
        found = torch.empty_like(self.start)
        for level in range(len(self.chain.links) - 1, 0, -1):
            signal = self.loop.pull(level, signal)
            found[:, self.columns[level]] = signal
        return found

    @torch.no_grad()
    def push(self, direction: Tensor) -> list[Tensor]:
        """Return how the prediction of the output moves with the errors."""
        move = direction[:, self.columns[1]]
        for level in range(1, len(self.chain.links)):
            link, out = self.chain.links[level], self.moves[level + 1]
            move = self.loop.through_before(level, move, self.moves[level])
            torch.mm(move, link.layer.weight.T, out=out)
            move = self.loop.through_after(level, out, out)
            if level + 1 < len(self.chain.links):
                move = move.add_(direction[:, self.columns[level + 1]])
        return [move]

    def bent(self, pushed: Tensor) -> Tensor:
        """Return the curvature of the output's energy times how its prediction moved."""
        weight = self.chain.precisions[-1]
        if not self.chain.softmax:
            return pushed * weight
        share = torch.softmax(self.loop.predicted[-1], 1)
        total = self.loop.states[-1].sum(1, keepdim=True)
        return weight * share * (pushed - (share * pushed).sum(1, keepdim=True)) * total

    def curvature(self, direction: Tensor, pushed: list[Tensor]) -> Tensor:
        """Return direction times matrix times direction, (batch,)."""
        own = (self.weighted(direction) * direction).sum(1)
        return own + (self.bent(pushed[0]) * pushed[0]).sum(1)

    @torch.no_grad()
    def product(self, direction: Tensor, pushed: list[Tensor]) -> Tensor:
        """Return matrix times direction, (batch, n)."""
        return self.weighted(direction).add_(self.back(self.bent(pushed[0])))
