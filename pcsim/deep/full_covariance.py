"""A Gaussian posterior in which every latent of every level varies with every other."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from pcsim.deep.draw import Draw, Levels, bottom_first, leaves, prior_chain
from pcsim.deep.gaussians import LOG_VARIANCE_LIMIT, log_density, noise

__all__ = ["FullCovariance"]


@dataclass(frozen=True, eq=False)
class FullCovariance:
    r"""All latents jointly Gaussian, :math:`z = \mu + C \epsilon` with a Cholesky factor :math:`C`.

    The joint vector runs from the **top** level down, so the rows of :math:`C` that belong to a
    level are that level's conditional given the levels above. Its parameters are ``(mean, raw)``:
    below the diagonal `raw` is :math:`C`, on it :math:`\log C_{ii}`, above it nothing.
    """

    mean: Tensor
    """(B, N), N latents of all levels, top level first."""
    raw: Tensor
    """(B, N, N)"""
    sizes: tuple[int, ...]
    """Latents a level, bottom first."""
    limit: float = LOG_VARIANCE_LIMIT / 2
    r""":math:`\log C_{ii}` is clamped to plus and minus this where it is used."""

    @classmethod
    def at_prior(cls, model: Levels, n_examples: int) -> FullCovariance:
        """Start at the prior, each level given the means above, uncorrelated."""
        mean, log_variance = prior_chain(model, n_examples)
        diagonal = torch.cat(log_variance[::-1], -1) / 2
        return cls(torch.cat(mean[::-1], -1), torch.diag_embed(diagonal), model.n_z)

    @classmethod
    def from_moments(
        cls, mean: Tensor, covariance: Tensor, sizes: tuple[int, ...]
    ) -> FullCovariance:
        """Take a mean (B, N) and covariance (N, N) or (B, N, N) whose latents run bottom first.

        It is the Gaussian of these moments however small they are: nothing is clamped.
        """
        order = _top_first(sizes)
        factor = torch.linalg.cholesky(covariance[..., order, :][..., :, order])
        return cls._factored(mean[:, order], factor, sizes)

    @classmethod
    def from_precision(
        cls, mean: Tensor, precision: Tensor, sizes: tuple[int, ...]
    ) -> FullCovariance:
        r"""As `from_moments`, from the inverse of the covariance, which is never inverted itself.

        Of the precision, its axes turned round, with Cholesky factor :math:`M`, the covariance has
        the factor :math:`M^{-\top}` with its axes turned back.
        """
        order = _top_first(sizes)
        turned = precision[..., order[::-1], :][..., :, order[::-1]]
        inverse = torch.linalg.cholesky(turned).flip(-1, -2).mT
        one = torch.eye(len(order), dtype=mean.dtype, device=mean.device)
        factor = torch.linalg.solve_triangular(inverse, one, upper=False)
        return cls._factored(mean[:, order], factor, sizes)

    @classmethod
    def _factored(cls, mean: Tensor, factor: Tensor, sizes: tuple[int, ...]) -> FullCovariance:
        diagonal = torch.diagonal(factor, dim1=-2, dim2=-1)
        raw = factor.tril(-1) + torch.diag_embed(diagonal.log())
        return cls(mean, raw.expand(len(mean), -1, -1).clone(), sizes, math.inf)

    @property
    def parameters(self) -> tuple[Tensor, ...]:
        return self.mean, self.raw

    def with_parameters(self, parameters: tuple[Tensor, ...]) -> FullCovariance:
        mean, raw = parameters
        return FullCovariance(mean, raw, self.sizes, self.limit)

    def detached(self) -> FullCovariance:
        return self.with_parameters(leaves(self.parameters))

    @property
    def cholesky(self) -> Tensor:
        """(B, N, N), lower triangular, top level first."""
        diagonal = torch.diagonal(self.raw, dim1=-2, dim2=-1).clamp(-self.limit, self.limit)
        return self.raw.tril(-1) + torch.diag_embed(diagonal.exp())

    def centre(self, model: Levels) -> tuple[Tensor, ...]:
        levels: tuple[Tensor, ...] = torch.split(self.mean, list(self.sizes[::-1]), -1)
        return levels[::-1]

    def sample(
        self,
        model: Levels,
        n_samples: int,
        generator: torch.Generator | None,
        *,
        reparameterized: bool = True,
    ) -> Draw:
        factor = self.cholesky
        eps = noise((n_samples, *self.mean.shape), self.mean, generator)
        joint = self.mean + torch.einsum("bij,sbj->sbi", factor, eps)
        if not reparameterized:
            joint = joint.detach()
            eps = _solved(factor, joint - self.mean)
        z, log_q, log_p, kl = [], [], [], []
        above: Tensor | None = None
        start = 0
        for level in range(len(self.sizes), 0, -1):
            rows = slice(start, start + self.sizes[level - 1])
            here, block = joint[..., rows], factor[:, rows, rows]
            log_scale = torch.diagonal(block, dim1=-2, dim2=-1).log().sum(-1)
            prior = model.prior(level, above)
            z.append(here)
            log_q.append(log_density(eps[..., rows], *_standard(here)) - log_scale)
            log_p.append(log_density(here, *prior))
            mean = self.mean[:, rows] + torch.einsum(
                "bij,sbj->sbi", factor[:, rows, :start], eps[..., :start]
            )
            kl.append(_divergence(mean, block, log_scale, *prior))
            above, start = here, rows.stop
        return bottom_first(z, log_q, log_p, kl)


def _divergence(
    mean: Tensor, block: Tensor, log_scale: Tensor, mean_p: Tensor, log_variance_p: Tensor
) -> Tensor:
    variance = block.square().sum(-1)
    ratio = (variance + (mean - mean_p).square()) * (-log_variance_p).exp()
    return 0.5 * (ratio - 1 + log_variance_p).sum(-1) - log_scale


def _standard(like: Tensor) -> tuple[Tensor, Tensor]:
    zero = torch.zeros_like(like)
    return zero, zero


def _solved(factor: Tensor, offset: Tensor) -> Tensor:
    columns = offset.permute(1, 2, 0)
    solved: Tensor = torch.linalg.solve_triangular(factor, columns, upper=False)
    return solved.permute(2, 0, 1)


def _top_first(sizes: tuple[int, ...]) -> list[int]:
    order: list[int] = []
    for n in sizes:
        order = [*range(len(order), len(order) + n), *order]
    return order
