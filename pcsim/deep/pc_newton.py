"""Second-order inference: Gauss-Newton steps in the errors, and the exact solution if linear."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from pcsim.deep.pc_clamp import Problem, seeing
from pcsim.deep.pc_curvature import GeneralCurve, Quadratic, curve_of
from pcsim.deep.pc_descent import Visit
from pcsim.deep.pc_energy import summed
from pcsim.messages import check_integer, check_number, refusal

__all__ = ["Exact", "GaussNewton"]


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
        if not problem.free:
            yield Visit(problem.start, float(summed(problem.energy(problem.start).detach())))
            return
        curve = curve_of(problem)
        errors = curve.start
        energies = curve.energy(errors)
        yield Visit(problem.start, float(summed(energies)), energies)
        damping = torch.full_like(energies, self.damping)
        rise = torch.full_like(energies, 2.0)
        first: Tensor | None = None
        for _ in range(self.n_steps):
            model = curve.quadratic(errors)
            gradient = model.gradient
            size = gradient.norm(dim=1)
            first = size if first is None else first
            if bool(((size <= self.tol * first) | (damping > 1e8)).all()):
                return
            step = conjugate(model, damping, self.n_products)
            moved = errors + step
            trial = curve.energy(moved)
            # Where energies are equal to rounding, a step is as good as its model says.
            level = (trial - energies).abs() <= 8 * torch.finfo(trial.dtype).eps * energies.abs()
            better = (trial < energies) | level
            expected = 0.5 * (step * (damping[:, None] * step - gradient)).sum(1)
            gain = torch.where(level, 1.0, (energies - trial) / expected)
            damping, rise = adapt(damping, rise, gain, better)
            errors = moved if bool(better.all()) else torch.where(better[:, None], moved, errors)
            energies = torch.where(better, trial, energies)
            yield Visit(curve.states(errors), float(summed(energies)), energies)
            if bool(level.all()):
                return


def adapt(damping: Tensor, rise: Tensor, gain: Tensor, better: Tensor) -> tuple[Tensor, Tensor]:
    """Return the next damping and its next rise, from how much of the gain came (Nielsen 1999)."""
    calm = torch.clamp(1 - (2 * gain - 1) ** 3, 1 / 3, 2.0)
    lower = torch.clamp(damping * calm, min=1e-7)
    higher = torch.clamp(damping, min=1e-3) * rise
    return torch.where(better, lower, higher), torch.where(better, 2.0, 2.0 * rise)


def conjugate(model: Quadratic, damping: Tensor, n_products: int) -> Tensor:
    """Return minus the damped inverse times the gradient, by conjugate gradients, (batch, n)."""
    step = torch.zeros_like(model.gradient)
    residual = -model.gradient
    direction = residual
    square = residual.square().sum(1)
    # An inexact solve is enough for superlinear arrival.
    goal = square * torch.clamp(square.sqrt(), max=0.1).square()
    floor = torch.finfo(square.dtype).tiny
    for count in range(1, n_products + 1):
        pushed = model.push(direction)
        bend = model.curvature(direction, pushed) + damping * direction.square().sum(1)
        length = square / torch.clamp(bend, min=floor)
        length = torch.where(square > goal, length, torch.zeros_like(length))
        step = torch.addcmul(step, length[:, None], direction)
        if count == n_products:
            break
        turned = model.product(direction, pushed) + damping[:, None] * direction
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
        yield Visit(problem.start, float(summed(problem.energy(problem.start).detach())))
        if not problem.free:
            return
        check_masks(problem)
        curve = GeneralCurve(problem)
        errors = curve.start
        gradient = curve.quadratic(errors).gradient
        n = gradient.shape[1]
        if torch.finfo(gradient.dtype).bits < 32:
            found, advice = f"{gradient.dtype}", "Convert network and data with .float()."
            raise ValueError(refusal("Exact", found, "float32 or float64", advice))
        if n > self.max_units:
            found = f"{n} free units"
            raise ValueError(
                refusal("Exact", found, f"at most {self.max_units}", "Use GaussNewton.")
            )
        matrix = matrix_of(curve)
        factor, failed = torch.linalg.cholesky_ex(matrix)
        eps = torch.finfo(matrix.dtype).eps
        # What is left of a unit's curvature once the units before it have taken their share: where
        # that is rounding alone, some direction has no curvature.
        own = factor.diagonal().square() / matrix.diagonal()
        if failed or float(own.min()) < 100 * eps * n**0.5:
            found = "an energy without a single lowest point"
            advice = "Give free inputs a prior, hold more, or compute in float64."
            raise ValueError(refusal("Exact", found, "a positive curvature", advice))
        errors = errors - torch.cholesky_solve(gradient.T, factor).T
        left = curve.quadratic(errors).gradient
        # At its lowest point a network has no slope but rounding, to be measured by what it sums.
        size = sum(float(state.square().sum()) for state in problem.start.values()) ** 0.5
        rounding = 100 * eps * float(matrix.norm()) * size
        if not bool(left.norm() <= self.tol * gradient.norm() + rounding):
            found = f"{float(left.norm() / gradient.norm()):.1e} of the slope left"
            advice = "Use GaussNewton for networks that are not linear or not quadratic."
            raise ValueError(refusal("Exact", found, "a linear network", advice))
        energies = curve.energy(errors)
        yield Visit(curve.states(errors), float(summed(energies)), energies)


def matrix_of(curve: GeneralCurve) -> Tensor:
    """Return the curvature of one example, (n, n): the columns are examples of one batch."""
    problem, errors = curve.problem, curve.start[:1]
    n = errors.shape[1]

    def widen(value: Tensor) -> Tensor:
        return value[:1].expand(n, *value.shape[1:])

    unseen = {name: widen(value) for name, value in problem.unseen.items()}
    wide = replace(
        problem,
        held={name: widen(value) for name, value in problem.held.items()},
        masked={k: (widen(value), widen(mask)) for k, (value, mask) in problem.masked.items()},
        constant={name: widen(value) for name, value in problem.constant.items()},
        start={name: widen(value) for name, value in problem.start.items()},
        network=seeing(problem.network, unseen),
        nothing=widen(problem.nothing),
        unseen=unseen,
    )
    model = GeneralCurve(wide).quadratic(errors.expand(n, n).contiguous())
    unit = torch.eye(n, dtype=errors.dtype, device=errors.device)
    matrix = model.product(unit, model.push(unit))
    # Held units of a mask have no slope and no curvature: they stay with any.
    shapes = curve.layout.shapes
    inert = {name: errors.new_zeros(1, *shape[1:]) for name, shape in shapes.items()}
    inert.update({k: mask[:1].to(errors) for k, (_, mask) in problem.masked.items()})
    return 0.5 * (matrix + matrix.T) + torch.diag(curve.layout.join(inert)[0])


def check_masks(problem: Problem) -> None:
    """Refuse masks that differ between examples: their matrices would."""
    masks = {name: mask for name, (_, mask) in problem.masked.items()}
    for name, mask in {**masks, **problem.unseen}.items():
        if not bool((mask == mask[:1]).all()):
            found = f"masks of {name!r} that differ between examples"
            raise ValueError(refusal("Exact", found, "one mask for all", "Use GaussNewton."))


def refuse_learning(where: str, learning: bool) -> None:
    """Refuse to let weights change between steps."""
    if learning:
        advice = "Use GradientDescent or AdamDescent."
        found = "weights that change between steps"
        raise ValueError(refusal(where, found, "fixed weights", advice))
