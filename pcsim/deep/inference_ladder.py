"""Top-down amortized inference."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from pcsim.deep.inference import Evaluation, Step
from pcsim.deep.inference_direct import Direct
from pcsim.deep.inference_networks import Builder
from pcsim.deep.latent_gaussian import LatentGaussian
from pcsim.deep.posteriors import TopDown

__all__ = ["Ladder"]


class Ladder(nn.Module):
    """Top-down amortized inference: what comes from below is joined with the prior of each level.

    A `Direct` network whose outputs are the bottom-up halves of a `TopDown` posterior.
    """

    def __init__(
        self,
        model: LatentGaussian,
        *,
        widths: Sequence[Sequence[int]] | None = None,
        activation: str = "elu",
        link: str = "highway",
        normalization: str | None = None,
        networks: Builder | None = None,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        self.direct = Direct(
            model, start=TopDown.at_prior, widths=widths, activation=activation, link=link,
            normalization=normalization, networks=networks, generator=generator,
        )  # fmt: skip

    def steps(
        self,
        model: LatentGaussian,
        x: Tensor,
        evaluation: Evaluation,
        n_iterations: int | None = None,
    ) -> Iterator[Step]:
        """Yield the one step there is, whatever `n_iterations` says."""
        return self.direct.steps(model, x, evaluation)
