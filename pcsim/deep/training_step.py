"""One step of learning: the loss of a batch, and where its randomness comes from."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from pcsim.deep.estimators import Estimator
from pcsim.deep.inference import Evaluation, Inference, surrogate
from pcsim.deep.latent_gaussian import LatentGaussian
from pcsim.deep.objective import FreeEnergy
from pcsim.messages import refusal

__all__ = [
    "DIVERGED",
    "WORST",
    "TrainingStep",
    "binarised",
    "check_loss",
    "check_prepared",
    "dequantised",
    "generator_for",
    "shuffled",
]

WORST = 1000.0
"""A run has diverged once its mean free energy is more than this many times that of the first
epoch (in it: of its first step), or than this many nats a feature if those are more."""
DIVERGED = "Lower learning_rate or set largest_gradient; the last checkpoint is kept."


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


def check_loss(where: str, loss: float, first: float, n_x: int, step: int) -> None:
    """Stop a run whose mean free energy is out of all proportion to the first, all in nats.

    Raises
    ------
    RuntimeError
        If the loss is above `WORST` times the larger of `first` and `n_x`, or is NaN.
    """
    limit = WORST * max(abs(first), float(n_x))
    if not loss <= limit:
        found = f"a mean free energy of {loss:.3g} nats by step {step + 1}"
        expected = f"at most {limit:.3g}, {WORST:g} times the first ({first:.3g}, {n_x} features)"
        raise RuntimeError(refusal(where, found, expected, DIVERGED))


def check_prepared(
    where: str, model: LatentGaussian, x: Tensor, batch: Callable[[Tensor], Tensor]
) -> None:
    """Refuse data (N, n_x) that the model's output cannot have, as `batch` prepares them."""
    for rows in x.split(10_000):
        try:
            prepared = batch(rows)
        except RuntimeError as error:
            found = f"x from {float(x.min()):g} to {float(x.max()):g}, on which `prepare` fails"
            reason = str(error).splitlines()[0].rstrip(".")
            expected, advice = "data that it takes", f"It says: {reason}."
            raise ValueError(refusal(where, found, expected, advice)) from None
        model.output.check(where, prepared)


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
