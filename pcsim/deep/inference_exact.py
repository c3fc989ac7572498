"""Exact inference, where there is a closed form."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from torch import Tensor

from pcsim.deep.inference import Evaluation, Step
from pcsim.deep.latent_gaussian import LatentGaussian
from pcsim.deep.linear_gaussian import LinearGaussian

__all__ = ["Exact"]


@dataclass(frozen=True)
class Exact:
    """The posterior itself, of a linear Gaussian model; any other model is refused."""

    def steps(
        self,
        model: LatentGaussian,
        x: Tensor,
        evaluation: Evaluation,
        n_iterations: int | None = None,
    ) -> Iterator[Step]:
        """Yield the one step there is, whatever `n_iterations` says."""
        yield evaluation.at(model, x, LinearGaussian.of(model).q(x))
