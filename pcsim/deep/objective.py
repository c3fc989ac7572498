"""The free energy of a batch: what a draw costs, and how an objective weighs it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from pcsim.deep.draw import Draw
from pcsim.messages import check_choice, check_number

__all__ = ["FreeEnergy", "Objective", "Terms"]


@dataclass(frozen=True, eq=False)
class Terms:
    """A draw and the log likelihood of the data given it."""

    draw: Draw
    log_likelihood: Tensor
    """(S, B)"""


@dataclass(frozen=True, eq=False)
class FreeEnergy:
    """Free energy of a batch, an upper bound on -log p(x), in nats; lower is better."""

    reconstruction: Tensor
    """(B,): -log p(x | z), averaged over samples."""
    kl: Tensor
    """(B, L): divergence of each latent level, bottom first, averaged over samples, unweighted."""
    total: Tensor
    """(B,): what is minimised, the divergences as the objective weighs them."""
    importance: Tensor
    """(S, B): log p(x, z) - log q(z), the log weights of importance sampling."""

    @property
    def elbo(self) -> Tensor:
        """(B,): the evidence lower bound, whatever the weights."""
        return -(self.reconstruction + self.kl.sum(-1))


@dataclass(frozen=True, kw_only=True)
class Objective:
    r"""What is minimised: :math:`-E \log p(x|z) + \beta \sum_l \max(\lambda, KL_l)`.

    Both act on each example alone, so a batch is as good as its examples one by one.
    """

    kl_weight: float = 1.0
    r""":math:`\beta`"""
    free_bits: float = 0.0
    r""":math:`\lambda`, nats a level that cost nothing."""
    kl: str = "closed"
    """"closed" (where the family has a closed form given the levels above) or "sampled"."""

    def __post_init__(self) -> None:
        check_number("Objective", "kl_weight", self.kl_weight, low=0.0)
        check_number("Objective", "free_bits", self.free_bits, low=0.0)
        check_choice("Objective", "kl", self.kl, ("closed", "sampled"))

    def divergences(self, draw: Draw) -> Tensor:
        """Return the divergence of every sample and level, (S, B, L)."""
        kl = []
        for closed, log_q, log_p in zip(draw.kl, draw.log_q, draw.log_p, strict=True):
            usable = closed is not None and self.kl == "closed"
            kl.append(closed.expand_as(log_q) if closed is not None and usable else log_q - log_p)
        return torch.stack(kl, -1)

    def free_energy(self, terms: Terms) -> FreeEnergy:
        """Average a draw over its samples and weigh it."""
        draw = terms.draw
        reconstruction = -terms.log_likelihood.mean(0)
        kl = self.divergences(draw).mean(0)
        weighed = kl.clamp(min=self.free_bits) if self.free_bits else kl
        importance = terms.log_likelihood + sum(draw.log_p) - sum(draw.log_q)
        total = reconstruction + self.kl_weight * weighed.sum(-1)
        return FreeEnergy(reconstruction, kl, total, importance)

    def cost(self, terms: Terms) -> Tensor:
        """Return what each sample costs, (S, B); levels below their free nats cost nothing."""
        kl = self.divergences(terms.draw)
        paid = (kl.mean(0) >= self.free_bits).to(kl) if self.free_bits else torch.ones_like(kl[0])
        return -terms.log_likelihood + self.kl_weight * (paid.detach() * kl).sum(-1)
