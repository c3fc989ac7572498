r"""What every way to infer has in common: one model, and inference chosen freely.

An inference yields steps. Step 0 is its start; at each one the free energy and its gradient in the
parameters :math:`\lambda` of the approximate posterior are taken at a *detached* copy of
:math:`\lambda`, while the step's own posterior hangs on the inference network that made it. So an
inference network of parameters :math:`\phi` learns by the split chain rule

.. math:: \frac{dF}{d\phi} = \frac{dF}{d\lambda}\,\frac{d\lambda}{d\phi}

with no graph through the model and none through the iterations (thesis, section 3.3).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor

from pcsim.deep.draw import Posterior
from pcsim.deep.estimators import Estimator, Pathwise
from pcsim.deep.full_covariance import FullCovariance
from pcsim.deep.grad_mode import ordinary, outside_inference_mode
from pcsim.deep.latent_gaussian import LatentGaussian
from pcsim.deep.networks import evaluating
from pcsim.deep.objective import FreeEnergy, Objective
from pcsim.messages import check_integer, check_object, refusal

__all__ = [
    "Evaluation",
    "Inference",
    "Inferred",
    "Refinement",
    "Start",
    "Step",
    "check_batch",
    "check_rows",
    "check_start",
    "infer",
    "surrogate",
]

Start = Callable[[LatentGaussian, int], Posterior]
"""Model, number of examples -> where inference starts, such as `MeanField.at_prior`."""


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """How the free energy is estimated at each step of an inference."""

    n_samples: int = 1
    objective: Objective = field(default_factory=Objective)
    estimator: Estimator = field(default_factory=Pathwise)
    generator: torch.Generator | None = None

    def at(self, model: LatentGaussian, x: Tensor, q: Posterior) -> Step:
        """Return the step at `q`: free energy and gradient at its detached copy."""
        free_energy, gradient = self.estimator.gradient(
            model, x, q, self.n_samples, self.objective, self.generator
        )
        return Step(q, free_energy, gradient)


@dataclass(frozen=True, eq=False)
class Step:
    """One state of an inference."""

    q: Posterior
    """The approximate posterior, attached to the inference network where there is one."""
    free_energy: FreeEnergy
    """At the detached `q`; attached to the model, for its own gradient."""
    gradient: tuple[Tensor, ...]
    """d total / d parameter, example by example, shaped as `q.parameters`."""


class Inference(Protocol):
    """Any way to fit the posterior of a model."""

    def steps(
        self,
        model: LatentGaussian,
        x: Tensor,
        evaluation: Evaluation,
        n_iterations: int | None = None,
    ) -> Iterator[Step]:
        """Yield the start and then one step an iteration; None takes the inference's own number."""


class Refinement(Inference, Protocol):
    """An inference that can go on from wherever another one ended."""

    def refine(
        self,
        model: LatentGaussian,
        x: Tensor,
        evaluation: Evaluation,
        first: Step,
        n_iterations: int | None = None,
    ) -> Iterator[Step]:
        """Yield one step an iteration, `first` left out."""


@dataclass(frozen=True, eq=False)
class Inferred:
    """What an inference ended at, and how it got there."""

    q: Posterior
    """Detached."""
    trace: Tensor
    """(n_steps + 1, B) free energy at the start and after each iteration, nats."""
    gradients: Tensor
    """(n_steps + 1, n_parameters) mean absolute gradient in each tensor of `q.parameters`."""


def infer(
    inference: Inference,
    model: LatentGaussian,
    x: Tensor,
    *,
    n_iterations: int | None = None,
    n_samples: int = 1,
    objective: Objective | None = None,
    estimator: Estimator | None = None,
    generator: torch.Generator | None = None,
) -> Inferred:
    """Infer the posterior of each example; nothing is kept for learning.

    Parameters
    ----------
    inference
        Any object of the inference rooms.
    model
        A `LatentGaussian` or another model with its interface.
    x : (B, n_x)
        Examples, inferred independently.
    n_iterations
        Free at test time; None takes what the inference was made with.
    n_samples
        Samples of the posterior for each free energy and gradient.

    Raises
    ------
    ValueError
        If `x` is no batch of the model's inputs, of another type or on another device than the
        model, is not finite, or is nothing that its output could be, such as greys up to 255 for
        `Bernoulli`.
    RuntimeError
        If the free energy of an example is no longer finite.
    """
    order = "infer(inference, model, x)"
    check_object("infer", "inference", inference, "steps", f"inference, as in {order}")
    check_object("infer", "model", model, "free_energy", f"a model, as in {order}")
    check_batch("infer", model, x)
    _check_evaluation(objective, estimator, generator)
    evaluation = Evaluation(
        n_samples=check_integer("infer", "n_samples", n_samples, low=1),
        objective=Objective() if objective is None else objective,
        estimator=Pathwise() if estimator is None else estimator,
        generator=generator,
    )
    if n_iterations is not None:
        check_integer("infer", "n_iterations", n_iterations)
    trace, gradients = [], []
    with outside_inference_mode(), torch.no_grad(), evaluating(model, inference):
        for step in inference.steps(model, ordinary(x.detach()), evaluation, n_iterations):
            trace.append(step.free_energy.total.detach())
            gradients.append(torch.stack([one.abs().mean() for one in step.gradient]))
            check_finite("infer", trace[-1], len(trace) - 1)
    q = step.q.with_parameters(tuple(one.detach() for one in step.q.parameters))
    return Inferred(q, torch.stack(trace), torch.stack(gradients))


def _check_evaluation(objective: object, estimator: object, generator: object) -> None:
    for name, value, kind, example in (
        ("objective", objective, Objective, "Objective(), or None"),
        ("estimator", estimator, Estimator, "Pathwise(), or None"),
        ("generator", generator, torch.Generator, "torch.Generator().manual_seed(0), or None"),
    ):
        if value is not None and (isinstance(value, type) or not isinstance(value, kind)):
            shown = value.__name__ if isinstance(value, type) else repr(value)
            advice = "Give the object itself."
            raise TypeError(refusal("infer", f"{name} {shown}", example, advice))


def check_start(where: str, start: object) -> None:
    """Refuse a family in place of what gives the posterior that inference starts from."""
    if isinstance(start, type) or not callable(start):
        shown = start.__name__ if isinstance(start, type) else repr(start)
        expected = "a function of model and number of examples"
        advice = "Take the family's own, such as MeanField.at_prior."
        raise TypeError(refusal(where, f"start {shown}", expected, advice))


def surrogate(steps: Iterator[Step]) -> tuple[Tensor, Step]:
    r"""Run the steps; return a scalar to differentiate for the inference network, and the last.

    .. math:: \frac{1}{K B}\sum_{k=1}^K\sum_{b=1}^B \lambda_{kb}\cdot
        \Big[\frac{\partial F_b}{\partial\lambda_{kb}}\Big]_\text{constant}

    over the K steps that hang on a network and the B examples: its gradient is that of the mean
    free energy over examples and steps, by the split chain rule. Its value means nothing.
    """
    total, n_learned, last = None, 0, None
    for step in steps:
        last = step
        if any(parameter.requires_grad for parameter in step.q.parameters):
            pairs = zip(step.q.parameters, step.gradient, strict=True)
            part = torch.stack([(one * slope).sum() for one, slope in pairs]).sum()
            total, n_learned = part if total is None else total + part, n_learned + 1
    if last is None:
        raise RuntimeError(refusal("surrogate", "an inference without a step", "its start"))
    free_energy = last.free_energy.total
    if total is None:
        return free_energy.new_zeros(()), last
    return total / (n_learned * len(free_energy)), last


def check_batch(where: str, model: LatentGaussian, x: Tensor) -> None:
    """Refuse what is not a finite batch (B, n_x) of data that the model's output can have.

    Type and device are to be those of the model.
    """
    _check_shape(where, model, x)
    own = getattr(model, "top", x)
    if (x.dtype, x.device) != (own.dtype, own.device):
        found, expected = (
            f"{what} of {str(one.dtype).removeprefix('torch.')} on {one.device}"
            for what, one in (("x", x), ("x", own))
        )
        advice = "Take x.to(model.top), or move the model."
        raise ValueError(refusal(where, found, f"{expected}, as the model", advice))
    check_rows(where, model, x)
    model.output.check(where, x)


def check_rows(where: str, model: LatentGaussian, x: Tensor) -> None:
    """Refuse what is not a finite batch (B, n_x) of the model's inputs."""
    _check_shape(where, model, x)
    if not bool(torch.isfinite(x).all()):
        bad = int((~torch.isfinite(x)).sum())
        found = f"{bad} of {x.numel()} entries of x NaN or infinite"
        raise ValueError(refusal(where, found, "finite numbers", "Remove or replace them."))


def _check_shape(where: str, model: LatentGaussian, x: Tensor) -> None:
    if not isinstance(x, Tensor):
        found, advice = f"x of type {type(x).__name__}", "Use torch.as_tensor."
        raise TypeError(refusal(where, found, "a tensor", advice))
    if x.layout != torch.strided or x.is_complex():
        kind = "complex" if x.is_complex() else f"{x.layout}".removeprefix("torch.")
        advice = "Take x.to_dense() of a sparse tensor, or the parts of complex numbers."
        raise TypeError(refusal(where, f"x that is {kind}", "a dense tensor of reals", advice))
    if x.ndim != 2 or x.shape[1] != model.n_x or len(x) == 0:
        found, expected = f"x of shape {tuple(x.shape)}", f"shape (B, {model.n_x}) with B above 0"
        raise ValueError(refusal(where, found, expected, "Flatten each example to one row."))


def check_finite(where: str, total: Tensor, iteration: int) -> None:
    """Stop an inference that runs away, before its numbers spread."""
    if not bool(torch.isfinite(total).all()):
        bad = int((~torch.isfinite(total)).sum())
        found = f"{bad} of {total.numel()} free energies NaN or infinite at iteration {iteration}"
        advice = "Lower the step size, or train the inference for the iterations it is run for."
        if not iteration:
            advice = "Scale the data, or look at the weights of the model and of its inference."
        raise RuntimeError(refusal(where, found, "finite numbers", advice))


def by_level(model: LatentGaussian, q: Posterior) -> list[tuple[Tensor, ...]]:
    """Return a posterior's parameters level by level, level 1 first, as networks are to see them.

    A `FullCovariance` has no levels: it is one group. The context of a `Flowed` counts with the
    highest level.
    """
    return grouped(model, q, q.parameters)


def grouped(
    model: LatentGaussian, q: Posterior, tensors: tuple[Tensor, ...]
) -> list[tuple[Tensor, ...]]:
    """Return tensors that belong to the parameters of `q` in the same groups as those."""
    if isinstance(q, FullCovariance):
        return [tensors]
    n_levels = len(model.n_z)
    n_each = len(tensors) // n_levels
    groups = [tensors[level * n_each : (level + 1) * n_each] for level in range(n_levels - 1)]
    return [*groups, tensors[(n_levels - 1) * n_each :]]
