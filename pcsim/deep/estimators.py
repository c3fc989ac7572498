r"""Estimators of the gradient of the free energy, through the expectation over the posterior.

Each gives a free energy whose `total` has the exact value of its samples and back-propagates the
estimator's own gradient, to the posterior and to the generative model alike.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from pcsim.deep.draw import Posterior
from pcsim.deep.latent_gaussian import LatentGaussian
from pcsim.deep.objective import PLAIN, FreeEnergy, Objective, Terms
from pcsim.messages import check_choice, check_number, refusal

__all__ = ["Estimator", "Pathwise", "ScoreFunction"]


@runtime_checkable
class Estimator(Protocol):
    """A way to estimate gradients through an expectation."""

    def free_energy(
        self,
        model: LatentGaussian,
        x: Tensor,
        q: Posterior,
        n_samples: int = 1,
        objective: Objective = PLAIN,
        generator: torch.Generator | None = None,
    ) -> FreeEnergy:
        """Free energy whose `total` back-propagates this estimator's gradient."""

    def gradient(
        self,
        model: LatentGaussian,
        x: Tensor,
        q: Posterior,
        n_samples: int = 1,
        objective: Objective = PLAIN,
        generator: torch.Generator | None = None,
    ) -> tuple[FreeEnergy, tuple[Tensor, ...]]:
        """Free energy at `q`, cut from its graph, and d total / d parameter of each example."""


@dataclass(frozen=True)
class Pathwise:
    """Differentiate through the samples (the reparameterisation gradient)."""

    def free_energy(
        self,
        model: LatentGaussian,
        x: Tensor,
        q: Posterior,
        n_samples: int = 1,
        objective: Objective = PLAIN,
        generator: torch.Generator | None = None,
    ) -> FreeEnergy:
        return model.free_energy(
            x, q, n_samples=n_samples, objective=objective, generator=generator
        )

    def gradient(
        self,
        model: LatentGaussian,
        x: Tensor,
        q: Posterior,
        n_samples: int = 1,
        objective: Objective = PLAIN,
        generator: torch.Generator | None = None,
    ) -> tuple[FreeEnergy, tuple[Tensor, ...]]:
        return _gradient(self, model, x, q, n_samples, objective, generator)


class ScoreFunction(nn.Module):
    r"""Weigh the score of each sample by what it costs (REINFORCE).

    .. math:: \nabla E_q[f] = E_q[\nabla f + (f - b) \nabla \log q]

    where no gradient flows through the samples. The baseline :math:`b` lowers the variance and must
    not depend on the sample it is subtracted from: "none"; "leave_one_out", the mean cost of the
    other samples of the example; "running_mean", the mean cost of earlier calls, kept in a buffer.

    Free nats make the total a function of all S samples, whose score is the sum of theirs. Each
    sample's is weighed by that total less what it is without the sample (see `Objective.cost`),
    and "leave_one_out" subtracts the total of the others: the gradient that `Pathwise` estimates.

    References
    ----------
    Williams (1992), https://doi.org/10.1007/BF00992696; Mnih and Rezende (2016),
    https://arxiv.org/abs/1602.06725

    Examples
    --------
    >>> from pcsim.deep.posteriors import MeanField
    >>> model, generator = LatentGaussian(4, (2,)), torch.Generator().manual_seed(0)
    >>> x, q = torch.zeros(3, 4), MeanField.at_prior(model, n_examples=3)
    >>> f, gradient = ScoreFunction().gradient(model, x, q, n_samples=8, generator=generator)
    >>> [tuple(one.shape) for one in gradient]
    [(3, 2), (3, 2)]
    """

    level: Tensor
    """The running mean of the cost; NaN before the first call."""

    def __init__(self, baseline: str = "leave_one_out", *, decay: float = 0.9) -> None:
        super().__init__()
        known = ("none", "leave_one_out", "running_mean")
        self.baseline = check_choice("ScoreFunction", "baseline", baseline, known)
        self.decay = check_number("ScoreFunction", "decay", decay, low=0.0, high=1.0)
        self.register_buffer("level", torch.tensor(float("nan")))

    @property
    def remembers(self) -> bool:
        """Whether the baseline is made of earlier calls."""
        return self.baseline == "running_mean"

    def free_energy(
        self,
        model: LatentGaussian,
        x: Tensor,
        q: Posterior,
        n_samples: int = 1,
        objective: Objective = PLAIN,
        generator: torch.Generator | None = None,
    ) -> FreeEnergy:
        if self.baseline == "leave_one_out" and n_samples < 2:
            found, advice = f"n_samples {n_samples}", "Draw more, or take another baseline."
            raise ValueError(refusal("ScoreFunction", found, "at least 2 to leave one out", advice))
        terms = model.terms(x, q, n_samples=n_samples, generator=generator, reparameterized=False)
        free_energy = objective.free_energy(terms)
        surrogate = (self._weight(objective, terms).detach() * terms.draw.score).mean(0)
        return replace(free_energy, total=free_energy.total + surrogate - surrogate.detach())

    def gradient(
        self,
        model: LatentGaussian,
        x: Tensor,
        q: Posterior,
        n_samples: int = 1,
        objective: Objective = PLAIN,
        generator: torch.Generator | None = None,
    ) -> tuple[FreeEnergy, tuple[Tensor, ...]]:
        return _gradient(self, model, x, q, n_samples, objective, generator)

    def _weight(self, objective: Objective, terms: Terms) -> Tensor:
        if self.baseline == "leave_one_out":
            return objective.advantage(terms)
        cost = objective.cost(terms)
        return cost if self.baseline == "none" else cost - self._earlier(cost.detach())

    def _earlier(self, cost: Tensor) -> Tensor:
        earlier = torch.where(self.level.isnan(), 0.0, self.level).to(cost)
        weight = torch.where(self.level.isnan(), 0.0, self.decay).to(cost)
        self.level = (weight * earlier + (1 - weight) * cost.mean()).to(self.level.dtype)
        return earlier


def _gradient(
    estimator: Estimator,
    model: LatentGaussian,
    x: Tensor,
    q: Posterior,
    n_samples: int,
    objective: Objective,
    generator: torch.Generator | None,
) -> tuple[FreeEnergy, tuple[Tensor, ...]]:
    # The graph stays: the gradient of the generative model is taken from the same free energy.
    with torch.enable_grad():
        leaf = q.detached()
        free_energy = estimator.free_energy(model, x, leaf, n_samples, objective, generator)
        gradient = torch.autograd.grad(
            free_energy.total.sum(), leaf.parameters, retain_graph=True, materialize_grads=True
        )
    return free_energy, gradient
