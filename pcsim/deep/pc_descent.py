"""Inference by descent in the activities: plain, with momentum, with a discount, by Adam."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from pcsim.deep.pc_clamp import Problem
from pcsim.deep.pc_energy import summed
from pcsim.deep.pc_network import States
from pcsim.messages import check_integer, check_number, refusal, unknown_name

__all__ = ["AdamDescent", "GradientDescent", "Visit"]

Step = "float | Mapping[str, float]"


@dataclass(frozen=True, eq=False)
class Visit:
    """A place that inference passes through."""

    states: States
    energy: float
    """Of the whole batch, at these states."""
    energies: Tensor | None = None
    """Of every example, where the method has them."""


@dataclass(frozen=True, kw_only=True)
class GradientDescent:
    r"""Activities go down the slope of the energy of their own example.

    .. math:: v \leftarrow m\,v - \eta\,\frac{\partial F}{\partial z}, \qquad z \leftarrow z + v

    With `discount`, :math:`\eta` is multiplied by it whenever the energy of the batch did not
    decrease at the last step (Song et al. 2024, .5 or .9 there).

    Examples
    --------
    >>> GradientDescent(n_steps=64, step=0.1, discount=0.5).momentum
    0.0
    """

    n_steps: int = 20
    step: float | Mapping[str, float] = 0.1
    """One number, or one for each free node."""
    momentum: float = 0.0
    discount: float = 1.0
    threshold: float | None = None
    """Stop once the mean absolute error of all units is below it (Tschantz et al. 2023)."""
    tol: float | None = None
    """Stop once no unit moves by more than this in a step."""

    def __post_init__(self) -> None:
        check_descent("GradientDescent", self.n_steps, self.step, self.threshold, self.tol)
        check_number("GradientDescent", "momentum", self.momentum, low=0.0, high=1.0)
        check_number("GradientDescent", "discount", self.discount, low=0.0, high=1.0)

    @property
    def is_plain(self) -> bool:
        """Whether this is a fixed number of steps of fixed size, with momentum or without."""
        return self.discount == 1.0 and self.threshold is None and self.tol is None

    def visits(self, problem: Problem, *, learning: bool = False) -> Iterator[Visit]:
        """Yield the start and every step; with `learning` weights may change in between."""
        steps = steps_of("GradientDescent", self.step, problem.free)
        velocity: States = {}
        last, factor = math.inf, 1.0
        states = dict(problem.start)
        for _ in range(self.n_steps):
            energy, slopes = slope(problem, states, learning=learning)
            yield Visit(states, energy)
            if is_below(self.threshold, problem, states, learning=learning):
                return
            factor *= self.discount if energy >= last else 1.0
            last = energy
            moves: States = {}
            for name, gradient in slopes.items():
                # Not in place: autograd may give two nodes one tensor, or many units one number.
                moves[name] = gradient * (-steps[name] * factor)
                if self.momentum:
                    velocity[name] = moves[name] + self.momentum * velocity.get(name, 0.0)
                    moves[name] = velocity[name]
            states = moved(problem, states, moves)
            if self.tol is not None and largest(moves) <= self.tol:
                break
        yield Visit(states, total_energy(problem, states, learning=learning))


@dataclass(frozen=True, kw_only=True)
class AdamDescent:
    """Activities follow Adam: running means of slope and its square, from zero at each call."""

    n_steps: int = 20
    step: float | Mapping[str, float] = 0.01
    betas: tuple[float, float] = (0.9, 0.999)
    threshold: float | None = None
    tol: float | None = None

    def __post_init__(self) -> None:
        check_descent("AdamDescent", self.n_steps, self.step, self.threshold, self.tol)
        if len(self.betas) != 2:
            raise ValueError(refusal("AdamDescent", f"betas {self.betas}", "two numbers"))
        for beta in self.betas:
            check_number("AdamDescent", "betas", beta, low=0.0, high=1.0 - 1e-9)

    def visits(self, problem: Problem, *, learning: bool = False) -> Iterator[Visit]:
        """Yield the start and every step; with `learning` weights may change in between."""
        steps = steps_of("AdamDescent", self.step, problem.free)
        means: States = {}
        squares: States = {}
        states = dict(problem.start)
        for count in range(1, self.n_steps + 1):
            energy, slopes = slope(problem, states, learning=learning)
            yield Visit(states, energy)
            if is_below(self.threshold, problem, states, learning=learning):
                return
            moves = {
                name: adam_move(name, gradient, means, squares, self.betas, count) * -steps[name]
                for name, gradient in slopes.items()
            }
            states = moved(problem, states, moves)
            if self.tol is not None and largest(moves) <= self.tol:
                break
        yield Visit(states, total_energy(problem, states, learning=learning))


def adam_move(
    name: str,
    gradient: Tensor,
    means: States,
    squares: States,
    betas: tuple[float, float],
    count: int,
) -> Tensor:
    """Update the running means in their dictionaries; return Adam's direction.

    In at least single precision: of half types the square of an ordinary slope is 0.
    """
    first, second = betas
    kind = gradient.dtype
    gradient = gradient.to(torch.promote_types(kind, torch.float32))
    zero = torch.zeros((), dtype=gradient.dtype, device=gradient.device)
    means[name] = torch.lerp(gradient, means.get(name, zero).expand_as(gradient), first)
    square = gradient.square()
    squares[name] = torch.lerp(square, squares.get(name, zero).expand_as(square), second)
    root = (squares[name] / (1 - second**count)).sqrt_()
    return (means[name] / (1 - first**count) / (root + 1e-8)).to(kind)


def slope(problem: Problem, states: States, *, learning: bool) -> tuple[float, States]:
    """Return the energy of the batch and its derivative by every free activity."""
    with torch.enable_grad():
        leaves = {name: states[name].detach().requires_grad_() for name in problem.free}
        energy = whole_energy(problem, states | leaves, learning=learning)
        if not leaves:
            return float(energy.detach()), {}
        slopes = torch.autograd.grad(energy, list(leaves.values()))
    found = dict(zip(leaves, slopes, strict=True))
    for name, (_, mask) in problem.masked.items():
        if name in found:
            found[name] = found[name].masked_fill(mask, 0.0)
    return float(energy.detach()), found


def whole_energy(problem: Problem, states: States, *, learning: bool) -> Tensor:
    """Return the energy of the batch, its constant predictions from memory unless learning."""
    return summed(fresh(problem, learning=learning).energy(states))


def fresh(problem: Problem, *, learning: bool) -> Problem:
    """Return the problem; while weights change, without the predictions that it remembers."""
    return replace(problem, constant={}) if learning else problem


def total_energy(problem: Problem, states: States, *, learning: bool) -> float:
    """Return the energy of the batch as a number."""
    with torch.no_grad():
        return float(whole_energy(problem, states, learning=learning))


def moved(problem: Problem, states: States, moves: States) -> States:
    """Return the states after these moves; the given ones stay as they are."""
    return states | {name: states[name] + move for name, move in moves.items()}


def is_below(threshold: float | None, problem: Problem, states: States, *, learning: bool) -> bool:
    """Return whether there is a threshold and the mean error is below it."""
    return threshold is not None and mean_error(problem, states, learning=learning) < threshold


def mean_error(problem: Problem, states: States, *, learning: bool) -> float:
    """Return the mean absolute error over all units of nodes that carry energy."""
    problem = fresh(problem, learning=learning)
    nodes = problem.network.nodes
    with torch.no_grad():
        errors = [
            (states[k] - nodes[k].energy.mean(problem.predict(k, states))).abs()
            for k in problem.active
        ]
        errors = [
            error.masked_select(~problem.unseen[k]) if k in problem.unseen else error
            for k, error in zip(problem.active, errors, strict=True)
        ]
    return float(sum(e.sum() for e in errors)) / max(1, sum(e.numel() for e in errors))


def largest(moves: States) -> float:
    """Return the largest move of any unit."""
    return max((float(move.abs().max()) for move in moves.values()), default=0.0)


def steps_of(
    where: str, step: float | str | Mapping[str, float], free: tuple[str, ...]
) -> dict[str, float]:
    """Return the step of each free node."""
    if not isinstance(step, Mapping):
        return dict.fromkeys(free, float(step))
    missing = [name for name in free if name not in step]
    if missing:
        found = f"no step for the free nodes {missing}"
        raise ValueError(refusal(where, found, "one number, or one for each free node"))
    for name in step:
        if name not in free:
            raise unknown_name(where, "step for node", name, free)
    return {name: float(step[name]) for name in free}


def check_descent(
    where: str,
    n_steps: int,
    step: float | Mapping[str, float],
    threshold: float | None,
    tol: float | None,
) -> None:
    """Refuse settings that cannot run."""
    check_integer(where, "n_steps", n_steps, low=0)
    for number in step.values() if isinstance(step, Mapping) else (step,):
        check_number(where, "step", number, low=0.0)
    if threshold is not None:
        check_number(where, "threshold", threshold, positive=True)
    if tol is not None:
        check_number(where, "tol", tol, low=0.0)
