"""Inference by following the gradient: no network, nothing learned."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from pcsim.deep.ascent import RULES, Preconditioned, Tensors
from pcsim.deep.curvature import latent_curvature
from pcsim.deep.draw import Posterior
from pcsim.deep.gaussians import bounded
from pcsim.deep.inference import Evaluation, Start, Step, check_start
from pcsim.deep.latent_gaussian import LatentGaussian
from pcsim.deep.posteriors import MeanField, Point
from pcsim.messages import check_choice, check_integer, check_number, refusal

__all__ = ["GradientAscent", "PointEstimate"]


@dataclass(frozen=True, kw_only=True)
class GradientAscent:
    r"""Ascent of the evidence lower bound in the parameters of the posterior.

    .. math:: \lambda \leftarrow \lambda - \eta\,\gamma^k\, d(\nabla_\lambda F)

    with :math:`d` the rule's direction. Every example moves, and stops, on its own.

    Raises
    ------
    ValueError
        If a parameter is out of range, or "preconditioned" is asked of a family it does not know.
    """

    optimiser: str = "adam"
    """"gradient", "momentum", "adam", "rmsprop", "preconditioned" (diagonal Gauss-Newton) or
    "damped" (the same, the step of each example halved until its free energy falls)."""
    step: float = 0.1
    r""":math:`\eta`"""
    decay: float = 1.0
    r""":math:`\gamma`: what a step is multiplied by from one iteration to the next."""
    n_iterations: int = 100
    tolerance: float = 0.0
    """An example stays where it is once none of its parameters moves by more than this (before any
    halving); inference ends early once all do. Meanwhile the free energy of one that stays is drawn
    on new noise at each iteration. 0 stops none."""
    start: Start = MeanField.at_prior
    """Where inference starts, and so the family of the approximate posterior."""

    def __post_init__(self) -> None:
        where = type(self).__name__
        check_choice(where, "optimiser", self.optimiser, RULES)
        check_number(where, "step", self.step, positive=True)
        check_number(where, "decay", self.decay, low=0.0, high=1.0)
        check_number(where, "tolerance", self.tolerance, low=0.0)
        check_integer(where, "n_iterations", self.n_iterations)
        check_start(where, self.start)

    def steps(
        self,
        model: LatentGaussian,
        x: Tensor,
        evaluation: Evaluation,
        n_iterations: int | None = None,
    ) -> Iterator[Step]:
        """Yield the prior, then one step an iteration."""
        first = evaluation.at(model, x, self.start(model, len(x)))
        yield first
        yield from self.refine(model, x, evaluation, first, n_iterations)

    def refine(
        self,
        model: LatentGaussian,
        x: Tensor,
        evaluation: Evaluation,
        first: Step,
        n_iterations: int | None = None,
    ) -> Iterator[Step]:
        """Yield one step an iteration from `first` on, which is left out."""
        rule, step = RULES[self.optimiser], first
        memory = rule.start(first.q.parameters)
        still = torch.zeros_like(first.free_energy.total, dtype=torch.bool)
        for iteration in range(self.n_iterations if n_iterations is None else n_iterations):
            curvature = None
            if isinstance(rule, Preconditioned):
                curvature = parameter_curvature(model, x, step.q, evaluation)
            change, memory = rule.change(step.gradient, memory, iteration, curvature)
            size = self.step * self.decay**iteration
            if isinstance(rule, Preconditioned) and rule.halvings:
                new = backtracked(model, x, evaluation, step, change, size, rule.halvings)
            else:
                new = moved(step.q, change, size)
            if self.tolerance:
                new = held(step.q, new, still)
                still = still | (size * largest(change) <= self.tolerance)
            step = evaluation.at(model, x, new)
            yield step
            if self.tolerance and bool(still.all()):
                return


@dataclass(frozen=True, kw_only=True)
class PointEstimate:
    r"""The mode of the posterior (MAP): :math:`\min_z -\log p(x, z)` from the prior's mean.

    Fields as those of `GradientAscent`.
    """

    optimiser: str = "preconditioned"
    step: float = 0.5
    decay: float = 1.0
    n_iterations: int = 50
    tolerance: float = 0.0

    def steps(
        self,
        model: LatentGaussian,
        x: Tensor,
        evaluation: Evaluation,
        n_iterations: int | None = None,
    ) -> Iterator[Step]:
        """Yield the prior's mean, then one step an iteration."""
        ascent = GradientAscent(
            optimiser=self.optimiser, step=self.step, decay=self.decay,
            n_iterations=self.n_iterations, tolerance=self.tolerance, start=Point.at_prior,
        )  # fmt: skip
        return ascent.steps(model, x, evaluation, n_iterations)


def moved(q: Posterior, change: Tensors, size: float | Tensor) -> Posterior:
    """Return `q` less `size` times the change, detached; one size for all, or (B,)."""
    sizes = torch.as_tensor(size, dtype=change[0].dtype, device=change[0].device)
    new = []
    for one, by in zip(q.parameters, change, strict=True):
        each = sizes if sizes.ndim == 0 else _each(sizes, one)
        new.append(one.detach() - each * by)
    return q.with_parameters(tuple(new))


def held(old: Posterior, new: Posterior, still: Tensor) -> Posterior:
    """Return `new`, but `old` for the examples that are to stay, (B,)."""
    pairs = zip(old.parameters, new.parameters, strict=True)
    return new.with_parameters(
        tuple(torch.where(_each(still, to), one.detach(), to) for one, to in pairs)
    )


def largest(change: Tensors) -> Tensor:
    """Return the largest number of each example's change, (B,)."""
    return torch.stack([one.abs().flatten(1).amax(1) for one in change]).amax(0)


def _each(values: Tensor, like: Tensor) -> Tensor:
    """Return one value an example, (B,), so that it meets all of the example's numbers."""
    return values.reshape(-1, *[1] * (like.ndim - 1))


def backtracked(
    model: LatentGaussian,
    x: Tensor,
    evaluation: Evaluation,
    step: Step,
    change: Tensors,
    size: float,
    halvings: int,
) -> Posterior:
    r"""Return where each example ends that halves its own step until it is worth taking.

    A step is taken if :math:`F(\lambda - \eta d) \le F(\lambda) - c\,\eta\,d^\top\nabla F` with
    c = 1e-4 (Armijo 1966). Both sides are taken on the same noise.
    """
    generator = evaluation.generator
    noise = None if generator is None else generator.get_state()

    def energy(q: Posterior) -> Tensor:
        if generator is not None and noise is not None:
            generator.set_state(noise)
        found = model.free_energy(
            x, q, n_samples=evaluation.n_samples, objective=evaluation.objective,
            generator=generator,
        )  # fmt: skip
        return found.total.detach()

    with torch.no_grad():
        pairs = zip(change, step.gradient, strict=True)
        slope = torch.stack([(by * one).flatten(1).sum(1) for by, one in pairs]).sum(0)
        before = energy(step.q)
        taken = torch.zeros_like(slope)
        tried = size
        for _ in range(halvings + 1):
            open_ = taken == 0
            if not bool(open_.any()):
                break
            after = energy(moved(step.q, change, tried))
            good = open_ & (after <= before - 1e-4 * tried * slope)
            taken = torch.where(good, torch.full_like(taken, tried), taken)
            tried = tried / 2
    return moved(step.q, change, taken)


def parameter_curvature(
    model: LatentGaussian, x: Tensor, q: Posterior, evaluation: Evaluation
) -> Tensors:
    r"""Return the curvature in each parameter of a `MeanField` or a `Point`, shaped as it.

    The mean has that of the latent. The free energy depends on a log variance :math:`\rho` as
    :math:`(h e^\rho - \rho)/2`: second derivative :math:`h e^\rho/2`, and 1/2 where it is least;
    the larger of the two never overshoots.
    """
    with torch.no_grad():
        draw = q.sample(model, evaluation.n_samples, evaluation.generator)
    curvature = latent_curvature(model, x, draw)
    if isinstance(q, Point):
        return tuple(curvature)
    if not isinstance(q, MeanField):
        found, expected = f"a {type(q).__name__}", "a MeanField or a Point"
        advice = "Take optimiser='adam' for this family."
        raise ValueError(refusal("GradientAscent preconditioned", found, expected, advice))
    both = []
    for h, log_variance in zip(curvature, q.log_variance, strict=True):
        spread = h * bounded(log_variance.detach()).exp()
        both.extend([h, 0.5 * spread.clamp(min=1.0)])
    return tuple(both)
