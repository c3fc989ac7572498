"""One step of learning: the loss of a batch, and where its randomness comes from."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from pcsim.deep.estimators import Estimator
from pcsim.deep.inference import Evaluation, Inference, surrogate
from pcsim.deep.latent_gaussian import LatentGaussian
from pcsim.deep.objective import FreeEnergy

__all__ = ["TrainingStep", "binarised", "dequantised", "generator_for", "shuffled"]


class TrainingStep(nn.Module):
    """The model and its inference as one module, so that one wrapper sees all their parameters.

    The generative model learns from the last iteration alone, the inference network from all.
    """

    def __init__(
        self, model: LatentGaussian, inference: Inference, estimator: Estimator | None = None
    ) -> None:
        super().__init__()
        self.model = model
        self.inference: Any = inference
        self.estimator: Any = estimator  # a module where it remembers something

    def forward(self, x: Tensor, evaluation: Evaluation, n_iterations: int | None) -> Any:
        """Return a loss to differentiate, and the last free energy, detached."""
        steps = self.inference.steps(self.model, x, evaluation, n_iterations)
        for_inference, last = surrogate(steps)
        met = last.free_energy
        return for_inference + met.total.mean(), FreeEnergy(
            met.reconstruction.detach(), met.kl.detach(), met.total.detach(),
            met.importance.detach(),
        )  # fmt: skip


def generator_for(device: torch.device | str, *entries: int) -> torch.Generator:
    """Return a generator whose stream depends on the entries alone (seed, purpose, step ...).

    Nothing about randomness needs to be saved: a run that goes on draws what it would have drawn.
    """
    (seed,) = np.random.SeedSequence(entries).generate_state(1, np.uint64)
    return torch.Generator(device).manual_seed(int(seed >> np.uint64(1)))


def shuffled(n_examples: int, seed: int, epoch: int) -> Tensor:
    """Return the order of the examples in an epoch, the same in every process."""
    generator = generator_for(torch.device("cpu"), seed, 1, epoch)
    return torch.randperm(n_examples, generator=generator)


def binarised(x: Tensor, generator: torch.Generator) -> Tensor:
    """Draw 0 or 1 with probability `x`, anew each time: dynamic binarisation of images in 0..1."""
    return torch.bernoulli(x, generator=generator)


def dequantised(x: Tensor, generator: torch.Generator) -> Tensor:
    """Spread grey values in 0..1 evenly over their 256 bins."""
    noise = torch.rand(x.shape, generator=generator, dtype=x.dtype, device=x.device)
    return (x * 255 + noise) / 256
