"""Samples of an approximate posterior, and what every approximate posterior offers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor

if TYPE_CHECKING:
    from typing_extensions import Self

    from pcsim.deep.latent_gaussian import LatentGaussian

__all__ = ["Draw", "Posterior"]


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

    def sample(
        self,
        model: LatentGaussian,
        n_samples: int,
        generator: torch.Generator | None,
        *,
        reparameterized: bool = True,
    ) -> Draw:
        """Draw all latents; unless `reparameterized`, no gradient flows through what is drawn."""


def leaves(parameters: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Cut tensors from their graph and let them ask for a gradient."""
    return tuple(p.detach().clone().requires_grad_() for p in parameters)
