"""Samples of an approximate posterior, and what every approximate posterior offers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, Self

import torch
from torch import Tensor

from pcsim.deep.networks import evaluating

__all__ = ["Draw", "Levels", "Posterior", "bottom_first", "interleaved", "leaves", "prior_chain"]


class Levels(Protocol):
    """What a posterior asks of a generative model: its latents and their prior."""

    @property
    def n_z(self) -> tuple[int, ...]:
        """Latents a level, bottom first."""

    def prior(self, level: int, z_above: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Mean and log variance of a latent level given the level above it."""


@dataclass(frozen=True, eq=False)
class Draw:
    """Samples of all latents, bottom level first, and what they weigh; S samples, B examples."""

    z: list[Tensor]
    """(S, B, n_l) a level."""
    log_q: list[Tensor]
    """(S, B) a level: log q of the level given the levels above."""
    log_p: list[Tensor]
    """(S, B) a level: log p of the level given the levels above."""
    kl: list[Tensor | None]
    """(S, B) or (1, B) a level: the divergence given the levels above, None where not closed."""
    score: Tensor
    """(S, B): the log density of what was drawn; its gradient is the score function."""


class Posterior(Protocol):
    """A family of distributions over all latents, one a batch example."""

    @property
    def parameters(self) -> tuple[Tensor, ...]:
        """What inference optimises; the first axis of each is the example."""

    def with_parameters(self, parameters: tuple[Tensor, ...]) -> Self:
        """Return this posterior with other parameters."""

    def detached(self) -> Self:
        """Return it cut from its graph, its parameters leaves that ask for a gradient."""

    def centre(self, model: Levels) -> tuple[Tensor, ...]:
        """Where it lies: the mean of each level given the centres above it, (B, n_l), from 1."""

    def sample(
        self,
        model: Levels,
        n_samples: int,
        generator: torch.Generator | None,
        *,
        reparameterized: bool = True,
    ) -> Draw:
        """Draw all latents; unless `reparameterized`, no gradient flows through what is drawn."""


def leaves(parameters: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Cut tensors from their graph and let them ask for a gradient."""
    return tuple(p.detach().clone().requires_grad_() for p in parameters)


def bottom_first(
    z: list[Tensor],
    log_q: list[Tensor],
    log_p: list[Tensor],
    kl: Sequence[Tensor | None],
    score: Tensor | None = None,
) -> Draw:
    """Make a draw of lists that were filled from the top; the score is log q unless given."""
    score = torch.stack(log_q).sum(0) if score is None else score
    closed = [None if k is None else k.reshape(-1, k.shape[-1]) for k in kl]
    return Draw(z[::-1], log_q[::-1], log_p[::-1], closed[::-1], score)


def interleaved(first: tuple[Tensor, ...], second: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Order two parameters a level as first_1, second_1, first_2, second_2, ..."""
    return tuple(p for pair in zip(first, second, strict=True) for p in pair)


def prior_chain(model: Levels, n_examples: int) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
    """Means and log variances of the prior, each level given the means above it, (B, n_l).

    All examples are alike here: batch normalization takes running statistics, and learns nothing.
    """
    mean, log_variance = [], []
    above: Tensor | None = None
    with torch.no_grad(), evaluating(model):
        for level in range(len(model.n_z), 0, -1):
            here, spread = model.prior(level, above)
            shape = (n_examples, model.n_z[level - 1])
            above = here.expand(shape).clone()
            mean.append(above)
            log_variance.append(spread.expand(shape).clone())
    return tuple(mean[::-1]), tuple(log_variance[::-1])
