"""Second-order inference: Gauss-Newton steps in the errors, and the exact solution if linear."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from pcsim.deep.pc_clamp import Problem
from pcsim.deep.pc_descent import Visit
from pcsim.deep.pc_errors import coordinates, unfold, unfolded_energy
from pcsim.deep.pc_network import States
from pcsim.messages import check_integer, check_number, refusal

__all__ = ["Exact", "GaussNewton"]

Product = Callable[[Tensor], Tensor]


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


@dataclass(frozen=True, kw_only=True)
class GaussNewton:
    r"""Gauss-Newton steps with Levenberg damping, every example its own, solved without a matrix.

    In the errors the energy bends by :math:`\Pi + J^\top H J`, where :math:`J` is how held nodes'
    predictions depend on the errors and :math:`H` how their energies bend by the prediction. This
    is the identity and as many further directions as there are held outputs, so that conjugate
    gradients need few products, each about two passes through the graph. The energy of no example
    ever rises.

    Parameters
    ----------
    n_steps, tol
        Stop once the slope of every example is below `tol` of what it was at the start (or at
        rounding); `n_steps` is the most it takes.
    n_products
        The most products in one step.
    damping
        Levenberg's, at the start; it adapts.
    """

    n_steps: int = 20
    tol: float = 1e-6
    n_products: int = 20
    damping: float = 1e-4

    def __post_init__(self) -> None:
        check_integer("GaussNewton", "n_steps", self.n_steps, low=0)
        check_integer("GaussNewton", "n_products", self.n_products, low=1)
        check_number("GaussNewton", "tol", self.tol, low=0.0)
        check_number("GaussNewton", "damping", self.damping, low=0.0)

    def visits(self, problem: Problem, *, learning: bool = False) -> Iterator[Visit]:
        """Yield the start and every step."""
        refuse_learning("GaussNewton", learning)
        begin = coordinates(problem, problem.start)
        layout = Layout({name: error.shape for name, error in begin.items()})
        if not begin:
            yield Visit(problem.start, float(problem.energy(problem.start).detach().sum()))
            return
        errors = layout.join(begin)
        energies = energy_at(problem, layout, errors)
        yield Visit(problem.start, float(energies.sum()))
        damping = torch.full_like(energies, self.damping)
        rise = torch.full_like(energies, 2.0)
        first: Tensor | None = None
        for _ in range(self.n_steps):
            gradient, product = quadratic(problem, layout, errors)
            size = gradient.norm(dim=1)
            first = size if first is None else first
            if bool(((size <= self.tol * first) | (damping > 1e8)).all()):
                return
            step = conjugate(gradient, product, damping, self.n_products)
            trial = energy_at(problem, layout, errors + step)
            # Where energies are equal to rounding, a step is as good as its model says.
            level = (trial - energies).abs() <= 8 * torch.finfo(trial.dtype).eps * energies.abs()
            better = (trial < energies) | level
            expected = 0.5 * (step * (damping[:, None] * step - gradient)).sum(1)
            gain = torch.where(level, 1.0, (energies - trial) / expected)
            damping, rise = adapt(damping, rise, gain, better)
            errors = torch.where(better[:, None], errors + step, errors)
            energies = torch.where(better, trial, energies)
            with torch.no_grad():
                states, _ = unfold(problem, layout.split(errors))
            yield Visit(states, float(energies.sum()))
            if bool(level.all()):
                return


def adapt(damping: Tensor, rise: Tensor, gain: Tensor, better: Tensor) -> tuple[Tensor, Tensor]:
    """Return the next damping and its next rise, from how much of the gain came (Nielsen 1999)."""
    calm = torch.clamp(1 - (2 * gain - 1) ** 3, 1 / 3, 2.0)
    lower = torch.clamp(damping * calm, min=1e-7)
    higher = torch.clamp(damping, min=1e-3) * rise
    return torch.where(better, lower, higher), torch.where(better, 2.0, 2.0 * rise)


def energy_at(problem: Problem, layout: Layout, errors: Tensor) -> Tensor:
    """Return the energy of every example at these errors, (batch,)."""
    with torch.no_grad():
        parts = layout.split(errors)
        return unfolded_energy(problem, parts, *unfold(problem, parts))


def quadratic(problem: Problem, layout: Layout, errors: Tensor) -> tuple[Tensor, Product]:
    r"""Return the slope (batch, n) and what multiplies with the Gauss-Newton matrix."""
    nodes = problem.network.nodes
    alone = [name for name in layout.shapes if name in nodes and name not in problem.masked]
    with torch.enable_grad():
        leaf = errors.detach().requires_grad_()
        parts = layout.split(leaf)
        states, predictions = unfold(problem, parts)
        energy = unfolded_energy(problem, parts, states, predictions).sum()
        (gradient,) = torch.autograd.grad(energy, leaf, retain_graph=True)
        misfits = {n: predictions[n] - states[n] for n in problem.active if n not in alone}
        misfits = {name: misfit for name, misfit in misfits.items() if misfit.requires_grad}
        ends = list(misfits.values())
        probes = [torch.zeros_like(end).requires_grad_() for end in ends]
        pulled = leaf.new_zeros(()).requires_grad_()
        if ends:
            pulled = torch.autograd.grad(ends, leaf, probes, create_graph=True)[0]

    def product(direction: Tensor) -> Tensor:
        pieces = layout.split(direction)
        own = {
            name: nodes[name].energy.curvature(piece, piece)
            if name in alone
            else torch.zeros_like(piece)
            for name, piece in pieces.items()
        }
        if not ends:
            return layout.join(own).detach()
        pushed = torch.autograd.grad(pulled, probes, direction, retain_graph=True)
        bent = [
            nodes[name].energy.curvature(part, predictions[name]).detach()
            for name, part in zip(misfits, pushed, strict=True)
        ]
        back = torch.autograd.grad(ends, leaf, bent, retain_graph=True)[0]
        return layout.join(own).detach() + back

    return gradient, product


def conjugate(gradient: Tensor, product: Product, damping: Tensor, n_products: int) -> Tensor:
    """Return minus the damped inverse times the gradient, by conjugate gradients, (batch, n)."""
    step = torch.zeros_like(gradient)
    residual = -gradient
    direction = residual
    square = residual.square().sum(1)
    # An inexact solve is enough for superlinear arrival.
    goal = square * torch.clamp(square.sqrt(), max=0.1).square()
    floor = torch.finfo(square.dtype).tiny
    for _ in range(n_products):
        turned = product(direction) + damping[:, None] * direction
        length = square / torch.clamp((direction * turned).sum(1), min=floor)
        length = torch.where(square > goal, length, torch.zeros_like(length))
        step = step + length[:, None] * direction
        residual = residual - length[:, None] * turned
        new = residual.square().sum(1)
        if bool((new <= goal).all()):
            break
        direction = residual + (new / torch.clamp(square, min=floor))[:, None] * direction
        square = new
    return step


@dataclass(frozen=True, kw_only=True)
class Exact:
    """The lowest point of a linear network with squared errors, by one solve for all examples.

    The matrix has the free units of one example on each side; `max_units` bounds them.
    """

    max_units: int = 8192
    tol: float = 1e-3
    """How much of the slope may be left (rounding); more means that the network is not linear."""

    def visits(self, problem: Problem, *, learning: bool = False) -> Iterator[Visit]:
        """Yield the start and the solution."""
        refuse_learning("Exact", learning)
        begin = coordinates(problem, problem.start)
        layout = Layout({name: error.shape for name, error in begin.items()})
        yield Visit(problem.start, float(problem.energy(problem.start).detach().sum()))
        if not begin:
            return
        check_masks(problem)
        errors = layout.join(begin)
        gradient, _ = quadratic(problem, layout, errors)
        n = gradient.shape[1]
        if n > self.max_units:
            found = f"{n} free units"
            raise ValueError(
                refusal("Exact", found, f"at most {self.max_units}", "Use GaussNewton.")
            )
        matrix = bend(problem, layout, errors[:1])
        factor, failed = torch.linalg.cholesky_ex(matrix)
        if failed:
            found = "an energy without a single lowest point"
            advice = "Give free inputs a prior, or hold more."
            raise ValueError(refusal("Exact", found, "a positive curvature", advice))
        errors = errors - torch.cholesky_solve(gradient.T, factor).T
        left, _ = quadratic(problem, layout, errors)
        if not bool(left.norm() <= self.tol * gradient.norm() + 1e-30):
            found = f"{float(left.norm() / gradient.norm()):.1e} of the slope left"
            advice = "Use GaussNewton for networks that are not linear or not quadratic."
            raise ValueError(refusal("Exact", found, "a linear network", advice))
        with torch.no_grad():
            states, _ = unfold(problem, layout.split(errors))
        yield Visit(states, float(energy_at(problem, layout, errors).sum()))


def bend(problem: Problem, layout: Layout, errors: Tensor) -> Tensor:
    """Return the curvature of one example, (n, n): the columns are examples of one batch."""
    n = errors.shape[1]
    wide = Problem(
        problem.network,
        {name: value[:1].expand(n, *value.shape[1:]) for name, value in problem.held.items()},
        {
            name: (value[:1].expand(n, *value.shape[1:]), mask[:1].expand(n, *mask.shape[1:]))
            for name, (value, mask) in problem.masked.items()
        },
        problem.free,
        problem.idle,
        {name: p[:1].expand(n, *p.shape[1:]) for name, p in problem.constant.items()},
        problem.start,
    )
    _, product = quadratic(wide, layout, errors.expand(n, n).contiguous())
    matrix = product(torch.eye(n, dtype=errors.dtype, device=errors.device))
    # Held units of a mask have no slope and no curvature: they stay with any.
    inert = {name: errors.new_zeros(1, *shape[1:]) for name, shape in layout.shapes.items()}
    inert.update({k: mask[:1].to(errors) for k, (_, mask) in problem.masked.items()})
    return 0.5 * (matrix + matrix.T) + torch.diag(layout.join(inert)[0])


def check_masks(problem: Problem) -> None:
    """Refuse masks that differ between examples: their matrices would."""
    for name, (_, mask) in problem.masked.items():
        if not bool((mask == mask[:1]).all()):
            found = f"masks of {name!r} that differ between examples"
            raise ValueError(refusal("Exact", found, "one mask for all", "Use GaussNewton."))


def refuse_learning(where: str, learning: bool) -> None:
    """Refuse to let weights change between steps."""
    if learning:
        advice = "Use GradientDescent or AdamDescent."
        found = "weights that change between steps"
        raise ValueError(refusal(where, found, "fixed weights", advice))
