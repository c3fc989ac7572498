r"""What every way to infer has in common: the model is written once, the inference is chosen freely.

An inference yields steps. Step 0 is its start; at each one the free energy and its gradient in the
parameters :math:`\lambda` of the approximate posterior are taken at a *detached* copy of
:math:`\lambda`, while the step's own posterior hangs on the inference network that made it. So an
inference network of parameters :math:`\phi` learns by the split chain rule

.. math:: \frac{dF}{d\phi} = \frac{dF}{d\lambda}\,\frac{d\lambda}{d\phi}

with no graph through the model and none through the iterations (thesis, section 3.3).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor

from pcsim.deep.estimators import Pathwise
from pcsim.deep.latent_gaussian import FreeEnergy
from pcsim.deep.objective import Objective
from pcsim.messages import check_integer, refusal

__all__ = ["Evaluation", "Inference", "Inferred", "Step", "infer", "surrogate"]


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """How the free energy is estimated at each step of an inference."""

    n_samples: int = 1
    objective: Objective = field(default_factory=Objective)
    estimator: Any = field(default_factory=Pathwise)
    """`Pathwise` or `ScoreFunction`."""
    generator: torch.Generator | None = None

    def at(self, model: Any, x: Tensor, q: Any) -> Step:
        """Return the step at `q`: free energy and gradient at its detached copy."""
        leaf = q.detached()
        free_energy, gradient = self.estimator.gradient(
            model, x, leaf, n_samples=self.n_samples, objective=self.objective,
            generator=self.generator,
        )  # fmt: skip
        return Step(q, free_energy, tuple(one.detach() for one in gradient))


@dataclass(frozen=True)
class Step:
    """One state of an inference."""

    q: Any
    """The approximate posterior, attached to the inference network where there is one."""
    free_energy: FreeEnergy
    """At the detached `q`; attached to the model, for its own gradient."""
    gradient: tuple[Tensor, ...]
    """d total / d parameter, example by example, shaped as `q.parameters`."""


class Inference(Protocol):
    """Any way to fit the posterior of a model."""

    def steps(
        self, model: Any, x: Tensor, evaluation: Evaluation, n_iterations: int | None = None
    ) -> Iterator[Step]:
        """Yield the start and then one step an iteration; None takes the inference's own number."""
        ...


@dataclass(frozen=True)
class Inferred:
    """What an inference ended at, and how it got there."""

    q: Any
    """Detached."""
    trace: Tensor
    """(n_steps + 1, B) free energy at the start and after each iteration, nats."""
    gradients: Tensor
    """(n_steps + 1, n_parameters) mean absolute gradient in each tensor of `q.parameters`."""


def infer(
    inference: Inference,
    model: Any,
    x: Tensor,
    *,
    n_iterations: int | None = None,
    n_samples: int = 1,
    objective: Objective | None = None,
    estimator: Any = None,
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
        If `x` is no batch of the model's inputs or is not finite.
    RuntimeError
        If the free energy of an example is no longer finite.
    """
    check_batch("infer", model, x)
    evaluation = Evaluation(
        n_samples=check_integer("infer", "n_samples", n_samples, low=1),
        objective=Objective() if objective is None else objective,
        estimator=Pathwise() if estimator is None else estimator,
        generator=generator,
    )
    if n_iterations is not None:
        check_integer("infer", "n_iterations", n_iterations)
    trace, gradients, q = [], [], None
    for step in inference.steps(model, x, evaluation, n_iterations):
        trace.append(step.free_energy.total.detach())
        gradients.append(torch.stack([one.abs().mean() for one in step.gradient]))
        q = step.q.detached()
        check_finite("infer", trace[-1], len(trace) - 1)
    return Inferred(q, torch.stack(trace), torch.stack(gradients))


def surrogate(steps: list[Step]) -> Tensor:
    r"""Return a scalar whose gradient in the inference network is the split chain rule's.

    :math:`\frac{1}{K B}\sum_k \sum_\lambda \lambda_k\, \partial F_k/\partial\lambda_k` over the K
    steps that hang on a network, averaged over the B examples. Its value means nothing.
    """
    learned = [step for step in steps if any(p.requires_grad for p in step.q.parameters)]
    if not learned:
        return steps[-1].free_energy.total.new_zeros(())
    products = [
        (parameter * gradient).sum()
        for step in learned
        for parameter, gradient in zip(step.q.parameters, step.gradient, strict=True)
    ]
    n_examples = steps[-1].free_energy.total.shape[-1]
    return torch.stack(products).sum() / (len(learned) * n_examples)


def check_batch(where: str, model: Any, x: Tensor) -> None:
    """Refuse what is not a finite batch (B, n_x) of the model's inputs."""
    if x.ndim != 2 or x.shape[1] != model.n_x or len(x) == 0:
        found, expected = f"x of shape {tuple(x.shape)}", f"shape (B, {model.n_x}) with B above 0"
        raise ValueError(refusal(where, found, expected, "Flatten each example to one row."))
    if not bool(torch.isfinite(x).all()):
        bad = int((~torch.isfinite(x)).sum())
        found = f"{bad} of {x.numel()} entries of x NaN or infinite"
        raise ValueError(refusal(where, found, "finite numbers", "Remove or replace them."))


def check_finite(where: str, total: Tensor, iteration: int) -> None:
    """Stop an inference that runs away, before its numbers spread."""
    if not bool(torch.isfinite(total).all()):
        bad = int((~torch.isfinite(total)).sum())
        found = f"{bad} of {total.numel()} free energies NaN or infinite at iteration {iteration}"
        advice = "Lower the step size, or train the inference for the iterations it is run for."
        raise RuntimeError(refusal(where, found, "finite numbers", advice))
