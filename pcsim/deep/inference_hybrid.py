"""Hybrid inference: a quick guess, then refinement."""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor, nn

from pcsim.deep.inference import Evaluation, Inference, Refinement, Step
from pcsim.deep.latent_gaussian import LatentGaussian
from pcsim.messages import check_object

__all__ = ["Hybrid"]


class Hybrid(nn.Module):
    """Start where one inference ends and go on with another, for instance direct then iterative.

    Both learn, each from the steps that hang on it. `n_iterations` counts those of the second.
    The two must share a family of posteriors.
    """

    def __init__(self, guess: Inference, refinement: Refinement) -> None:
        super().__init__()
        check_object("Hybrid", "guess", guess, "steps", "inference, such as Direct(model)")
        kind = "inference that goes on from a guess, such as Iterative(model)"
        check_object("Hybrid", "refinement", refinement, "refine", kind)
        self.guess, self.refinement = guess, refinement

    def steps(
        self,
        model: LatentGaussian,
        x: Tensor,
        evaluation: Evaluation,
        n_iterations: int | None = None,
    ) -> Iterator[Step]:
        """Yield the steps of the guess, then those of the refinement."""
        for first in self.guess.steps(model, x, evaluation):
            yield first
        yield from self.refinement.refine(model, x, evaluation, first, n_iterations)
