"""Approximate posteriors: who depends on whom given the data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from pcsim.deep.draw import Draw, Posterior, leaves
from pcsim.deep.gaussians import bounded, divergence, log_density, noise

if TYPE_CHECKING:
    from pcsim.deep.latent_gaussian import LatentGaussian

__all__ = ["Draw", "MeanField", "Posterior"]


@dataclass(frozen=True, eq=False)
class MeanField:
    """Every latent Gaussian and independent of all others.

    Its parameters are ``(mean_1, log_variance_1, mean_2, log_variance_2, ...)``, level 1 first.
    """

    mean: tuple[Tensor, ...]
    """(B, n_l) a level."""
    log_variance: tuple[Tensor, ...]
    """(B, n_l) a level, clamped where it is used."""

    @classmethod
    def at_prior(cls, model: LatentGaussian, n_examples: int) -> MeanField:
        """Start at the prior, each level's given the means of the level above."""
        mean, log_variance = prior_chain(model, n_examples)
        return cls(mean, log_variance)

    @property
    def parameters(self) -> tuple[Tensor, ...]:
        return interleaved(self.mean, self.log_variance)

    def with_parameters(self, parameters: tuple[Tensor, ...]) -> MeanField:
        return MeanField(parameters[0::2], parameters[1::2])

    def detached(self) -> MeanField:
        return self.with_parameters(leaves(self.parameters))

    def sample(
        self,
        model: LatentGaussian,
        n_samples: int,
        generator: torch.Generator | None,
        *,
        reparameterized: bool = True,
    ) -> Draw:
        z, log_q, log_p, kl = [], [], [], []
        above: Tensor | None = None
        for level in range(len(self.mean), 0, -1):
            mean, log_variance = self.mean[level - 1], bounded(self.log_variance[level - 1])
            eps = noise((n_samples, *mean.shape), mean, generator)
            here = mean + (0.5 * log_variance).exp() * eps
            here = here if reparameterized else here.detach()
            mean_p, log_variance_p = model.prior(level, above)
            z.append(here)
            log_q.append(log_density(here, mean, log_variance))
            log_p.append(log_density(here, mean_p, log_variance_p))
            kl.append(_samples_first(divergence(mean, log_variance, mean_p, log_variance_p)))
            above = here
        return bottom_first(z, log_q, log_p, kl)


def bottom_first(
    z: list[Tensor],
    log_q: list[Tensor],
    log_p: list[Tensor],
    kl: Sequence[Tensor | None],
    score: Tensor | None = None,
) -> Draw:
    """Make a draw of lists that were filled from the top; the score is log q unless given."""
    score = torch.stack(log_q).sum(0) if score is None else score
    return Draw(z[::-1], log_q[::-1], log_p[::-1], list(kl)[::-1], score)


def interleaved(first: tuple[Tensor, ...], second: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Order two parameters a level as first_1, second_1, first_2, second_2, ..."""
    return tuple(p for pair in zip(first, second, strict=True) for p in pair)


def prior_chain(
    model: LatentGaussian, n_examples: int
) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
    """Return the prior's means and log variances, each level given the means above, (B, n_l)."""
    mean, log_variance = [], []
    above: Tensor | None = None
    with torch.no_grad():
        for level in range(len(model.n_z), 0, -1):
            here, spread = model.prior(level, above)
            above = here.expand(n_examples, -1).clone()
            mean.append(above)
            log_variance.append(spread.expand(n_examples, -1).clone())
    return tuple(mean[::-1]), tuple(log_variance[::-1])


def _samples_first(kl: Tensor) -> Tensor:
    return kl if kl.ndim == 2 else kl[None]
