"""Inference in the errors instead of the activities (ePC): one pass reaches every depth.

With :math:`z_i = p_i + \\varepsilon_i`, activities are a function of the errors, and the slope of
the energy by the errors is one backward pass through the whole graph, so that what is held at the
output moves the first layer in the first step. The equilibria are those of the activities.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from pcsim.deep.pc_clamp import Problem
from pcsim.deep.pc_curvature import Curve, curve_of
from pcsim.deep.pc_descent import Visit, adam_move, check_descent, largest, steps_of
from pcsim.deep.pc_energy import summed
from pcsim.deep.pc_network import States
from pcsim.deep.pc_unfold import coordinates, own_precision, unfold, unfolded_energy
from pcsim.messages import check_choice, check_number, refusal

__all__ = ["ErrorOptimisation"]

ENOUGH = 1e-4
"""Share of the gain that the slope promises which a step must bring (Armijo's condition)."""
HALVINGS = 30


@dataclass(frozen=True, kw_only=True)
class ErrorOptimisation:
    r"""Errors go down the slope of the energy, scaled by their own precision (ePC).

    .. math:: \varepsilon \leftarrow \varepsilon - \eta\,\Pi^{-1}\frac{\partial F}
        {\partial\varepsilon}

    Wherever a node is held, its energy is of its prediction as before. One step costs about a
    forward and a backward pass; the number of steps hardly grows with depth.

    A fixed step must stay below 2 over the curvature :math:`1 + \|\Pi^{-1}J^\top HJ\|` (see
    `pc_curvature`). On MNIST weights, and with them the curvature, grow in training until they
    reach that bound, and training that began well collapses. ``step="auto"`` measures the
    curvature :math:`c` of every example along its slope, takes :math:`1/c`, which is the lowest
    point on that line where the network is linear, and
    halves it until the energy of the example falls (Armijo 1966): it never rises, at any weights.

    References
    ----------
    Goemaere, Oliviers, Bogacz, Demeester (2026), https://arxiv.org/abs/2505.20137;
    Armijo (1966), https://doi.org/10.2140/pjm.1966.16.1

    Examples
    --------
    >>> ErrorOptimisation(n_steps=5, step=0.3).optimiser
    'gradient'
    """

    n_steps: int = 10
    step: float | Mapping[str, float] | Literal["auto"] = 0.3
    """One number, one for each free node, or ``"auto"``: by the curvature, for each example."""
    optimiser: str = "gradient"
    """``"gradient"`` or ``"adam"``."""
    momentum: float = 0.0
    discount: float = 1.0
    tol: float | None = None
    """Stop once no error moves by more than this in a step."""

    def __post_init__(self) -> None:
        step = 0.0 if self.step == "auto" else self.step
        if isinstance(step, str):
            check_choice("ErrorOptimisation", "step", step, ("auto",))
        check_descent("ErrorOptimisation", self.n_steps, step, None, self.tol)
        check_choice("ErrorOptimisation", "optimiser", self.optimiser, ("gradient", "adam"))
        check_number("ErrorOptimisation", "momentum", self.momentum, low=0.0, high=1.0)
        check_number("ErrorOptimisation", "discount", self.discount, low=0.0, high=1.0)
        if self.step == "auto" and (self.optimiser != "gradient" or self.has_memory):
            found = f"step 'auto' with optimiser {self.optimiser!r}, momentum {self.momentum} "
            found += f"and discount {self.discount}"
            advice = "Leave these at their defaults, or give a number as step."
            raise ValueError(refusal("ErrorOptimisation", found, "plain steps", advice))

    @property
    def is_plain(self) -> bool:
        """Whether this is a fixed number of plain steps."""
        fixed = self.step != "auto" and self.tol is None
        return fixed and self.optimiser == "gradient" and not self.has_memory

    @property
    def has_memory(self) -> bool:
        """Whether a step depends on those before it."""
        return self.momentum != 0.0 or self.discount != 1.0

    def visits(self, problem: Problem, *, learning: bool = False) -> Iterator[Visit]:
        """Yield the start and every step."""
        if learning:
            advice = "Use GradientDescent or AdamDescent."
            found = "weights that change between steps of errors"
            raise ValueError(refusal("ErrorOptimisation", found, "fixed weights", advice))
        if self.step == "auto":
            yield from self.along_lines(problem)
            return
        steps = steps_of("ErrorOptimisation", self.step, problem.free)
        errors = coordinates(problem, problem.start)
        means: States = {}
        squares: States = {}
        velocity: States = {}
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
                    velocity[name] = moves[name] + self.momentum * velocity.get(name, 0.0)
                    moves[name] = velocity[name]
            errors = {name: errors[name] + moves[name] for name in errors}
            if self.tol is not None and largest(moves) <= self.tol:
                break
        with torch.no_grad():
            states, predictions = unfold(problem, errors)
            energy = float(summed(unfolded_energy(problem, errors, states, predictions)))
        yield Visit(states, energy)

    def along_lines(self, problem: Problem) -> Iterator[Visit]:
        """Yield the start and every step of the automatic size."""
        if not problem.free:
            yield Visit(problem.start, float(summed(problem.energy(problem.start).detach())))
            return
        curve = curve_of(problem)
        variance = own_variance(problem)
        errors = curve.start
        energies = curve.energy(errors)
        yield Visit(problem.start, float(summed(energies)), energies)
        for _ in range(self.n_steps):
            before = errors
            errors, energies = line_step(curve, errors, energies, variance)
            yield Visit(curve.states(errors), float(summed(energies)), energies)
            if self.tol is not None and float((errors - before).abs().max()) <= self.tol:
                return


def line_step(
    curve: Curve, errors: Tensor, energies: Tensor, variance: Tensor | float
) -> tuple[Tensor, Tensor]:
    """Return errors and energies one step further down; no example's energy rises."""
    model = curve.quadratic(errors)
    direction = model.gradient * -variance
    promised = -(model.gradient * direction).sum(1)
    bend = model.curvature(direction, model.push(direction))
    length = promised / torch.clamp(bend, min=torch.finfo(bend.dtype).tiny)
    for _ in range(HALVINGS):
        moved = torch.addcmul(errors, length[:, None], direction)
        found = curve.energy(moved)
        # Where energies are equal to rounding, a step is as good as its model says.
        level = (found - energies).abs() <= 8 * torch.finfo(found.dtype).eps * energies.abs()
        enough = (found <= energies - ENOUGH * length * promised) | level
        if bool(enough.all()):
            return moved, found
        length = torch.where(enough, length, 0.5 * length)
    kept = torch.where(enough[:, None], moved, errors)
    return kept, torch.where(enough, found, energies)


def own_variance(problem: Problem) -> Tensor | float:
    """Return the inverse precision of every error of one example, side by side; 1 if all are."""
    precisions = [own_precision(problem, name) for name in problem.free]
    if all(not isinstance(precision, Tensor) for precision in precisions):
        return 1.0
    parts = []
    for name, precision in zip(problem.free, precisions, strict=True):
        one = torch.ones_like(problem.start[name][:1])
        parts.append((one / precision).flatten(1))
    return torch.cat(parts, dim=1)


def error_slope(problem: Problem, errors: States) -> tuple[States, float, States]:
    """Return activities, energy of the batch, and its slope by the errors over their precision."""
    with torch.enable_grad():
        leaves = {name: error.detach().requires_grad_() for name, error in errors.items()}
        states, predictions = unfold(problem, leaves)
        energy = summed(unfolded_energy(problem, leaves, states, predictions))
        found: tuple[Tensor, ...] = ()
        if leaves:
            found = torch.autograd.grad(energy, list(leaves.values()))
    slopes = {
        name: gradient / own_precision(problem, name)
        for name, gradient in zip(leaves, found, strict=True)
    }
    states = {name: state.detach() for name, state in states.items()}
    return states, float(energy.detach()), slopes
