"""Latent Gaussian models: levels of Gaussian latents, each predicting the level below."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from pcsim.deep.draw import Posterior
from pcsim.deep.gaussians import bounded, noise
from pcsim.deep.networks import FullyConnected
from pcsim.deep.objective import FreeEnergy, Objective, Terms
from pcsim.deep.outputs import Bernoulli, Output
from pcsim.messages import check_integer, refusal

__all__ = ["LatentGaussian"]


class LatentGaussian(nn.Module):
    r"""Data predicted by latents, latents by latents above them.

    .. math:: p(x, z) = p(x | z_1) \, p(z_1 | z_2) \cdots p(z_L), \qquad
        z_l | z_{l+1} \sim N(\mu_l(z_{l+1}), \mathrm{diag}\,\sigma_l^2(z_{l+1}))
    """

    def __init__(
        self,
        n_x: int,
        n_z: Sequence[int],
        output: Output | None = None,
        *,
        decoders: Sequence[nn.Module] | None = None,
    ) -> None:
        super().__init__()
        self.n_x = check_integer("LatentGaussian", "n_x", n_x, low=1)
        self.n_z = tuple(check_integer("LatentGaussian", "n_z", n, low=1) for n in n_z)
        self.output: Output = Bernoulli() if output is None else output
        networks = decoders or [FullyConnected(n) for n in self.n_z]
        self.decoders = nn.ModuleList(networks)
        sizes = [(self.n_x, self.output.n_parameters), *((n, 2) for n in self.n_z[:-1])]
        self.heads = nn.ModuleList(
            d.head(n, k)
            for d, (n, k) in zip(networks, sizes, strict=True)  # type: ignore[operator]
        )
        self.register_buffer("top", torch.zeros(self.n_z[-1]), persistent=False)

    def prior(self, level: int, z_above: Tensor | None) -> tuple[Tensor, Tensor]:
        """Mean and log variance of a latent level, (..., n_l), given the level above it."""
        if z_above is None:
            top = self.top
            assert isinstance(top, Tensor)
            return top, top
        mean, log_variance = self.heads[level](self.decoders[level](z_above)).chunk(2, -1)
        return mean, bounded(log_variance)

    def output_parameters(self, z1: Tensor) -> tuple[Tensor, ...]:
        """Parameters of the output, each (..., n_x), given the lowest latents."""
        heads: Tensor = self.heads[0](self.decoders[0](z1))
        return heads.chunk(self.output.n_parameters, -1)

    def terms(
        self,
        x: Tensor,
        q: Posterior,
        *,
        n_samples: int = 1,
        generator: torch.Generator | None = None,
        reparameterized: bool = True,
    ) -> Terms:
        """Draw latents from `q` and score data `x` (B, n_x) with them."""
        draw = q.sample(self, n_samples, generator, reparameterized=reparameterized)
        return Terms(draw, self.output.log_prob(x, self.output_parameters(draw.z[0])))

    def free_energy(
        self,
        x: Tensor,
        q: Posterior,
        *,
        n_samples: int = 1,
        objective: Objective = Objective(),  # noqa: B008
        generator: torch.Generator | None = None,
    ) -> FreeEnergy:
        """Free energy of each example of `x` (B, n_x) at posterior `q`; gradients are pathwise."""
        terms = self.terms(x, q, n_samples=n_samples, generator=generator)
        return objective.free_energy(terms)
