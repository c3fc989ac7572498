"""The free energy of a batch: what a draw costs, and how an objective weighs it."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from pcsim.deep.draw import Draw
from pcsim.messages import check_choice, check_integer, check_number

__all__ = ["PLAIN", "Annealing", "FreeEnergy", "KLConstraint", "Objective", "Terms"]


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

    Both act on each example alone, so a batch is as good as its examples one by one. The maximum is
    taken of the mean over an example's samples; where that mean is itself random ("sampled", or a
    level whose closed form depends on the level above) what is minimised is its expectation, and
    so depends on the number of samples.
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
        importance = terms.log_likelihood + sum(draw.log_p) - sum(draw.log_q)
        return FreeEnergy(reconstruction, kl, self._total(reconstruction, kl), importance)

    def _total(self, reconstruction: Tensor, kl: Tensor) -> Tensor:
        weighed = kl.clamp(min=self.free_bits) if self.free_bits else kl
        return reconstruction + self.kl_weight * weighed.sum(-1)

    def cost(self, terms: Terms) -> Tensor:
        """Return what the total owes to each sample, (S, B).

        S times the total, less what it would be were the terms of the sample 0. Without free nats
        this is the cost of the sample alone; with them samples share what their level may have.
        """
        return self._owed(terms, len(terms.log_likelihood))

    def advantage(self, terms: Terms) -> Tensor:
        """Return S times the total, less the total of the other samples alone, (S, B); S > 1."""
        return self._owed(terms, len(terms.log_likelihood) - 1)

    def _owed(self, terms: Terms, n_others: int) -> Tensor:
        each, kl = -terms.log_likelihood, self.divergences(terms.draw)
        whole = self._total(each.mean(0), kl.mean(0))
        others = ((one.sum(0) - one) / n_others for one in (each, kl))
        return len(each) * (whole - self._total(*others))


PLAIN = Objective()
"""The free energy itself, nothing weighted."""


@dataclass(frozen=True, kw_only=True)
class Annealing:
    """A weight of the divergence that rises linearly over `n_steps`, then stays.

    Steps of any kind: in `TrainingSettings` they are epochs, and begun ones count in part.

    Examples
    --------
    >>> [Annealing(n_steps=4).weight(step) for step in (0, 1, 4, 9)]
    [0.0, 0.25, 1.0, 1.0]
    """

    n_steps: int
    start: float = 0.0
    end: float = 1.0

    def __post_init__(self) -> None:
        check_integer("Annealing", "n_steps", self.n_steps, low=1)
        check_number("Annealing", "start", self.start, low=0.0)
        check_number("Annealing", "end", self.end, low=0.0)

    def weight(self, step: float) -> float:
        """Return the weight at a step, counted from 0."""
        done = min(step / self.n_steps, 1.0)
        return self.start + (self.end - self.start) * done

    def objective(self, step: float, plain: Objective = PLAIN) -> Objective:
        """Return the objective of a step."""
        return replace(plain, kl_weight=self.weight(step))


@dataclass(frozen=True, kw_only=True)
class KLConstraint:
    r"""Hold the divergence at a target by a Lagrange multiplier.

    Minimises the reconstruction subject to :math:`KL \le C`: the divergence weighs
    :math:`\beta = e^\lambda`, and :math:`\lambda` ascends the dual after each step,
    :math:`\lambda \leftarrow \lambda + \eta (KL - C)`.

    References
    ----------
    Rezende and Viola (2018), https://arxiv.org/abs/1810.00597
    """

    target: float
    """Nats an example, over all levels."""
    rate: float = 0.01
    log_multiplier: float = 0.0
    limit: float = 10.0
    """The log multiplier stays within plus and minus this."""

    def __post_init__(self) -> None:
        check_number("KLConstraint", "target", self.target, low=0.0)
        check_number("KLConstraint", "rate", self.rate, positive=True)

    def objective(self, plain: Objective = PLAIN) -> Objective:
        """Return the objective under the present multiplier."""
        return replace(plain, kl_weight=math.exp(self.log_multiplier))

    def updated(self, free_energy: FreeEnergy) -> KLConstraint:
        """Return the constraint after a step that had this free energy."""
        excess = free_energy.kl.detach().sum(-1).mean().item() - self.target
        moved = self.log_multiplier + self.rate * excess
        return replace(self, log_multiplier=min(max(moved, -self.limit), self.limit))
