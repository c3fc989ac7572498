"""One step of learning: the loss of a batch, and where its randomness comes from."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from pcsim.deep.estimators import Estimator
from pcsim.deep.flows import Flowed
from pcsim.deep.inference import Evaluation, Inference, surrogate
from pcsim.deep.latent_gaussian import LatentGaussian
from pcsim.deep.objective import FreeEnergy
from pcsim.deep.training_settings import TrainingSettings
from pcsim.messages import check_object, refusal

__all__ = [
    "CHECK_EVERY",
    "DIVERGED",
    "WORST",
    "TrainingStep",
    "binarised",
    "check_finite_step",
    "check_loss",
    "check_parts",
    "check_prepared",
    "dequantised",
    "generator_for",
    "learning",
    "parameter_groups",
    "shuffled",
    "torch_settings",
]

WORST = 1000.0
"""A run has diverged once its mean free energy is more than this many times that of the first
epoch (in it: of its first step), or than this many nats a feature if those are more."""
HIGHEST = 1e6
"""Nats a feature; a first free energy above it is taken for this, because it began diverged."""
DIVERGED = (
    "Lower learning_rate or set largest_gradient; the last checkpoint is kept, the weights in "
    "memory are lost."
)
CHECK_EVERY = 50
"""Steps between looks at whether the loss is still finite: each waits for the device."""


class TrainingStep(nn.Module):
    """The model and its inference as one module, so that one wrapper sees all their parameters.

    The generative model learns from the last iteration alone, the inference network from all.
    """

    def __init__(
        self, model: LatentGaussian, inference: Inference, estimator: Estimator | None = None
    ) -> None:
        super().__init__()
        start: Any = getattr(inference, "start", None)
        owns = isinstance(inference, nn.Module) or start is None
        if not owns and isinstance(start(model, 1), Flowed):
            found = f"flows that {type(inference).__name__} would leave as they are"
            advice = "Train them with Direct or Iterative, which own them."
            raise ValueError(refusal("train", found, "flows of an inference network", advice))
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


def check_finite_step(
    where: str,
    total: Tensor,
    parameters: Iterable[Tensor],
    step: int,
    advice: str = DIVERGED,
) -> None:
    """Stop a run that has a loss or a weight NaN or infinite; `total` is a sum of losses."""
    sums = [total.sum().double()] + [one.detach().sum().double() for one in parameters]
    if not bool(torch.isfinite(torch.stack(sums)).all()):
        found = f"a loss or a weight NaN or infinite by step {step + 1}"
        raise RuntimeError(refusal(where, found, "finite numbers", advice))


def check_loss(
    where: str, loss: float, first: float, n_x: int, step: int, advice: str = DIVERGED
) -> None:
    """Stop a run whose mean free energy is out of all proportion to the first, all in nats.

    Raises
    ------
    RuntimeError
        If the loss is above `WORST` times the larger of `first` (at most `HIGHEST` a feature) and
        `n_x`, or is NaN.
    """
    size, low, high = abs(first), float(n_x), HIGHEST * n_x
    limit = WORST * max(min(size, high), low)
    if not loss <= limit:
        found = f"a mean free energy of {loss:.3g} nats by step {step + 1}"
        of = f"the first, {first:.3g}"
        if size < low:
            of = f"the number of features, {n_x}, which is more than the first, {first:.3g}"
        elif size > high:
            of = f"{HIGHEST:g} nats for each of {n_x} features (the first, {first:.3g}, is more)"
        expected = f"at most {limit:.3g}: {WORST:g} times {of}"
        raise RuntimeError(refusal(where, found, expected, advice))


def check_parts(where: str, model: object, inference: object, settings: object) -> None:
    """Refuse classes, and what is no model, no inference or no settings."""
    order = f"as in {where}(model, inference, x, settings)"
    check_object(where, "inference", inference, "steps", f"an inference, {order}")
    check_object(where, "model", model, "free_energy", f"a model, {order}")
    if not isinstance(settings, TrainingSettings):
        found, advice = f"settings {settings!r}", "Leave them out for the usual ones."
        raise TypeError(refusal(where, found, f"TrainingSettings(), {order}", advice))


def check_prepared(
    where: str,
    model: LatentGaussian,
    x: Tensor,
    batch: Callable[[Tensor], Tensor],
    dtype: torch.dtype,
) -> None:
    """Refuse data (N, n_x) that the model's output cannot have, as `batch` prepares them.

    They are to come out as tensors of the shape that they had, of the training's type and device.
    """
    for rows in x.split(10_000):
        try:
            prepared = batch(rows)
        except RuntimeError as error:
            found = f"x from {float(x.min()):g} to {float(x.max()):g}, on which `prepare` fails"
            reason = str(error).splitlines()[0].rstrip(".")
            expected, advice = "data that it takes", f"It says: {reason}."
            raise ValueError(refusal(where, found, expected, advice)) from None
        found, expected = _kind(prepared), _kind(rows.to(dtype))
        if found != expected:
            advice = "Let it return a batch of the kind that it is given."
            raise TypeError(refusal(where, f"{found} after `prepare`", expected, advice))
        if not bool(torch.isfinite(prepared).all()):
            bad = int((~torch.isfinite(prepared)).sum())
            found = f"{bad} of {prepared.numel()} entries NaN or infinite after `prepare`"
            raise ValueError(refusal(where, found, "finite numbers", "Mend `prepare` or the data."))
        model.output.check(where, prepared)


def _kind(x: object) -> str:
    if not isinstance(x, Tensor):
        return "None" if x is None else f"a {type(x).__name__}"
    name = str(x.dtype).removeprefix("torch.")
    return f"a tensor of {name} and shape {tuple(x.shape)} on {x.device}"


@contextlib.contextmanager
def torch_settings(settings: TrainingSettings) -> Iterator[None]:
    """Inside the block, TF32 in matrix products if asked for, and graphs that can be used twice."""
    import torch._functorch.config as compiled

    before, donated = torch.get_float32_matmul_precision(), compiled.donated_buffer
    # Inference takes a gradient and keeps the graph for the model's own.
    compiled.donated_buffer = donated and not settings.compile
    if settings.precision == "tf32":
        torch.set_float32_matmul_precision("high")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)
        compiled.donated_buffer = donated


def parameter_groups(where: str, step: TrainingStep) -> list[list[nn.Parameter]]:
    """Return what is to learn of the model and of the inference; what is frozen is left out.

    What they share is the model's.
    """
    inference = step.inference
    parts = [list(step.model.parameters())]
    if isinstance(inference, nn.Module):
        shared = set(map(id, parts[0]))
        parts.append([one for one in inference.parameters() if id(one) not in shared])
    learned = [[one for one in part if one.requires_grad] for part in parts]
    if not any(learned):
        advice = "Call requires_grad_() on what is to learn."
        raise ValueError(refusal(where, "nothing that learns", "a free parameter", advice))
    return [part for part in learned if part]


def learning(step: nn.Module) -> None:
    """Put a module in training mode, but for what is frozen: it keeps what it remembers, too."""
    step.train()
    for one in step.modules():
        parameters = list(one.parameters())
        if parameters and not any(parameter.requires_grad for parameter in parameters):
            one.eval()


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
    """Spread grey values in 0..1 evenly over their 256 bins.

    Raises
    ------
    ValueError
        If values are not within 0..1, such as greys up to 255.
    """
    if not bool(((x >= 0) & (x <= 1)).all()):
        found, advice = f"x from {float(x.min()):g} to {float(x.max()):g}", "Divide greys by 255."
        raise ValueError(refusal("dequantised", found, "numbers from 0 to 1", advice))
    noise = torch.rand(x.shape, generator=generator, dtype=x.dtype, device=x.device)
    return (x * 255 + noise) / 256
