r"""Several seeds of a small model, trained as one batch.

The loss is the sum of the losses of all seeds, so each has the gradient, the noise and the order of
examples that it would have alone; the result is the same up to the order of sums.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from pcsim.deep.copies import SeparateNoise, stack, unstack
from pcsim.deep.inference import Evaluation, Inference, check_rows
from pcsim.deep.latent_gaussian import LatentGaussian
from pcsim.deep.training import Prepare, Trained
from pcsim.deep.training_settings import TrainingSettings
from pcsim.deep.training_step import (
    TrainingStep,
    check_loss,
    check_prepared,
    generator_for,
    shuffled,
)
from pcsim.messages import refusal

__all__ = ["train_together"]

WITHOUT = ("largest_gradient", "patience", "kl_target")


def train_together(
    models: Sequence[LatentGaussian],
    inferences: Sequence[Inference],
    x: Tensor,
    settings: TrainingSettings,
    seeds: Sequence[int],
    *,
    prepare: Prepare | None = None,
) -> list[Trained]:
    """Train as many models at once as there are seeds, in place, in this process.

    What comes out is what `train` would give for each with ``replace(settings, seed=seed)``.

    Parameters
    ----------
    models, inferences
        One of each a seed, alike but for their weights, all of whose parameters are in layers.
    x : (N, n_x)
        Training examples; each seed has its own order.
    settings
        Without `largest_gradient`, `patience` and `kl_target`, which look at one model alone.

    Returns
    -------
    trained
        One a seed.
    """
    check_rows("train_together", models[0], x)
    check_together(models, inferences, settings, seeds)
    device = torch.device("cpu" if settings.device == "auto" else settings.device)
    dtype = torch.float64 if settings.precision == "float64" else torch.float32
    size = min(settings.batch_size, len(x))
    pairs = zip(models, inferences, strict=True)
    alone: list[nn.Module] = [TrainingStep(*pair).to(device, dtype) for pair in pairs]
    whole = stack(alone, size)
    optimiser = torch.optim.Adam(whole.parameters(), lr=settings.learning_rate, fused=True)
    histories: list[list[dict[str, Any]]] = [[] for _ in seeds]
    x, n_steps = x.to(device), len(x) // size
    check_prepared("train_together", models[0], x, draw_of(prepare, dtype, settings.seed))
    first: list[float] = []
    for epoch in range(settings.n_epochs):
        for group in optimiser.param_groups:
            group["lr"] = settings.learning_rate * settings.learning_rate_decay**epoch
        orders = [shuffled(len(x), seed, epoch).to(device) for seed in seeds]
        total = torch.zeros(len(seeds), dtype=torch.float64, device=device)
        for index in range(n_steps):
            number = epoch * n_steps + index
            generators = [generator_for(device, seed, 2, number, 0) for seed in seeds]
            rows = [x[order[index * size :][:size]].to(dtype) for order in orders]
            if prepare is not None:
                rows = [prepare(*pair) for pair in zip(rows, generators, strict=True)]
            at = replace(settings, objective=settings.objective_at(number / n_steps))
            total += advance(whole, optimiser, torch.cat(rows), at, generators)
            first = first or total.tolist()
        for history, value in zip(histories, (total / n_steps).tolist(), strict=True):
            history.append({"epoch": epoch, "train": value, "validation": None})
        if not bool(torch.isfinite(total).all()):
            found = f"a free energy NaN or infinite in epoch {epoch}"
            raise RuntimeError(refusal("train_together", found, "finite", "Lower learning_rate."))
        # Where the divergence weighs little at first the bound may be bad and the run sound.
        if settings.objective_at(epoch).kl_weight >= 1:
            for value, before in zip((total / n_steps).tolist(), first, strict=True):
                check_loss("train_together", value, before, models[0].n_x, number)
    unstack(whole, alone)
    return [Trained(history, False) for history in histories]


def draw_of(prepare: Prepare | None, dtype: torch.dtype, seed: int) -> Callable[[Tensor], Tensor]:
    """Return what makes batches of rows, on noise that no training draws."""

    def drawn(rows: Tensor) -> Tensor:
        rows = rows.to(dtype)
        return rows if prepare is None else prepare(rows, generator_for(rows.device, seed, 4))

    return drawn


def check_together(
    models: Sequence[LatentGaussian],
    inferences: Sequence[Inference],
    settings: TrainingSettings,
    seeds: Sequence[int],
) -> None:
    """Refuse what cannot be trained as one."""
    if not len(models) == len(inferences) == len(seeds) > 0:
        found = f"{len(models)} models, {len(inferences)} inferences and {len(seeds)} seeds"
        raise ValueError(refusal("train_together", found, "as many of each, at least one"))
    for name in WITHOUT:
        if getattr(settings, name) is not None:
            found = f"{name} {getattr(settings, name)!r}"
            raise ValueError(refusal("train_together", found, "None", "Train one by one."))


def advance(
    whole: nn.Module,
    optimiser: torch.optim.Optimizer,
    x: Tensor,
    settings: TrainingSettings,
    generators: Sequence[torch.Generator],
) -> Tensor:
    """Take one step for all seeds; return the mean free energy of each, (K,)."""
    marker = torch.Generator(x.device)
    evaluation = Evaluation(
        n_samples=settings.n_samples, objective=settings.objective,
        estimator=settings.estimator, generator=marker,
    )  # fmt: skip
    with SeparateNoise(marker, generators, len(x) // len(generators)):
        loss, met = whole(x, evaluation, settings.n_iterations)
    optimiser.zero_grad(set_to_none=True)
    (len(generators) * loss).backward()
    optimiser.step()
    return torch.as_tensor(-met.elbo).double().reshape(len(generators), -1).mean(1)
