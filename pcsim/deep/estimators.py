"""Estimators of the gradient of the free energy in the parameters of the posterior."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from pcsim.deep.draw import Posterior
from pcsim.deep.latent_gaussian import LatentGaussian
from pcsim.deep.objective import FreeEnergy, Objective

__all__ = ["Estimator", "Pathwise"]


class Estimator(Protocol):
    """A way to estimate gradients through an expectation."""

    def free_energy(
        self,
        model: LatentGaussian,
        x: Tensor,
        q: Posterior,
        n_samples: int = 1,
        objective: Objective = ...,
        generator: torch.Generator | None = None,
    ) -> FreeEnergy:
        """Free energy whose `total` back-propagates this estimator's gradient."""

    def gradient(
        self,
        model: LatentGaussian,
        x: Tensor,
        q: Posterior,
        n_samples: int = 1,
        objective: Objective = ...,
        generator: torch.Generator | None = None,
    ) -> tuple[FreeEnergy, tuple[Tensor, ...]]:
        """Free energy at `q`, cut from its graph, and d total / d parameter of each example."""


@dataclass(frozen=True)
class Pathwise:
    """Differentiate the samples themselves (the reparameterisation gradient)."""

    def free_energy(
        self,
        model: LatentGaussian,
        x: Tensor,
        q: Posterior,
        n_samples: int = 1,
        objective: Objective = Objective(),  # noqa: B008
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
        objective: Objective = Objective(),  # noqa: B008
        generator: torch.Generator | None = None,
    ) -> tuple[FreeEnergy, tuple[Tensor, ...]]:
        return gradient_at(self, model, x, q, n_samples, objective, generator)


def gradient_at(
    estimator: Estimator,
    model: LatentGaussian,
    x: Tensor,
    q: Posterior,
    n_samples: int,
    objective: Objective,
    generator: torch.Generator | None,
) -> tuple[FreeEnergy, tuple[Tensor, ...]]:
    """Evaluate at leaves of `q`; the graph stays, for the gradient of the generative model."""
    with torch.enable_grad():
        leaf = q.detached()
        free_energy = estimator.free_energy(model, x, leaf, n_samples, objective, generator)
        gradient = torch.autograd.grad(
            free_energy.total.sum(), leaf.parameters, retain_graph=True, materialize_grads=True
        )
    return free_energy, gradient
