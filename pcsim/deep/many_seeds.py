r"""Several seeds of a small model, trained as one batch.

The loss is the sum of the losses of all seeds, so each has the gradient, the noise and the order of
examples that it would have alone; the result is the same up to the order of sums.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence, Sized
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from pcsim.deep.copies import stack, unstack
from pcsim.deep.distributed import find_device
from pcsim.deep.estimators import ScoreFunction
from pcsim.deep.gaussians import RowGenerators
from pcsim.deep.grad_mode import ordinary, recording
from pcsim.deep.inference import Evaluation, Inference, check_rows
from pcsim.deep.inference_exact import Exact
from pcsim.deep.latent_gaussian import LatentGaussian
from pcsim.deep.training import Prepare
from pcsim.deep.training_run import Trained
from pcsim.deep.training_settings import TrainingSettings
from pcsim.deep.training_step import (
    CHECK_EVERY,
    TrainingStep,
    check_finite_step,
    check_loss,
    check_parts,
    check_prepared,
    generator_for,
    learning,
    parameter_groups,
    shuffled,
    torch_settings,
)
from pcsim.messages import check_integer, refusal

__all__ = ["train_together"]

WITHOUT = {"largest_gradient": None, "patience": None, "kl_target": None, "compile": False}
DIVERGED = "Lower learning_rate; the models given keep their weights."


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

    What comes out is what `train` would give for each with ``replace(settings, seed=seed)``; the
    modules are left in eval mode.

    Parameters
    ----------
    models, inferences
        One of each a seed, alike but for their weights, all of whose parameters are in layers.
    x : (N, n_x)
        Training examples; each seed has its own order.
    settings
        Without `largest_gradient`, `patience`, `kl_target` and the baseline "running_mean", which
        look at one model alone, and without `compile` and the precision "bfloat16".

    Returns
    -------
    trained
        One a seed.

    Raises
    ------
    ValueError
        If something cannot be trained as one, or the data do not fit.
    RuntimeError
        If a loss or a weight of any seed diverges, as in `train`; the models keep their weights.
    """
    check_together(models, inferences, settings, seeds)
    check_rows("train_together", models[0], x)
    with recording(), torch_settings(settings):
        return Together(models, inferences, x, settings, seeds, prepare).finish()


class Together:
    """A training run of all seeds: one stacked module and one optimiser."""

    def __init__(
        self,
        models: Sequence[LatentGaussian],
        inferences: Sequence[Inference],
        x: Tensor,
        settings: TrainingSettings,
        seeds: Sequence[int],
        prepare: Prepare | None,
    ) -> None:
        self.settings, self.seeds, self.prepare = settings, seeds, prepare
        self.device = find_device(settings.device)
        self.dtype = torch.float64 if settings.precision == "float64" else torch.float32
        self.x, self.n_x = ordinary(x.detach()).to(self.device), models[0].n_x
        self.size = min(settings.batch_size, len(x))
        pairs = zip(models, inferences, strict=True)
        self.alone = [TrainingStep(*pair) for pair in pairs]
        check_no_ties(self.alone)
        for one in self.alone:
            one.to(self.device, self.dtype)
        whole = stack(self.alone, self.size)
        assert isinstance(whole, TrainingStep)
        self.whole = whole
        groups = parameter_groups("train_together", self.whole)
        self.parameters = [one for part in groups for one in part]
        rate = settings.learning_rate
        self.optimiser = torch.optim.Adam(self.parameters, lr=rate, fused=True)
        self.histories: list[list[dict[str, Any]]] = [[] for _ in seeds]
        self.first: Tensor | None = None
        draw = draw_of(prepare, self.dtype, settings.seed)
        check_prepared("train_together", models[0], self.x, draw, self.dtype)

    def finish(self) -> list[Trained]:
        """Run all epochs."""
        learning(self.whole)
        for epoch in range(self.settings.n_epochs):
            values = self.learn(epoch).tolist()
            for history, value in zip(self.histories, values, strict=True):
                history.append({"epoch": epoch, "train": value, "validation": None})
        unstack(self.whole, self.alone)
        for one in self.alone:
            one.eval()
        return [Trained(history, False) for history in self.histories]

    def learn(self, epoch: int) -> Tensor:
        """Go once through the data; return the mean free energy of each seed, (K,)."""
        settings, n_steps = self.settings, len(self.x) // self.size
        for group in self.optimiser.param_groups:
            group["lr"] = settings.learning_rate * settings.learning_rate_decay**epoch
        orders = [shuffled(len(self.x), seed, epoch).to(self.device) for seed in self.seeds]
        total = torch.zeros(2, len(self.seeds), dtype=torch.float64, device=self.device)
        for index in range(n_steps):
            number = epoch * n_steps + index
            generators = [generator_for(self.device, seed, 2, number, 0) for seed in self.seeds]
            places = slice(index * self.size, (index + 1) * self.size)
            rows = [self.x[order[places]].to(self.dtype) for order in orders]
            if self.prepare is not None:
                rows = [self.prepare(*pair) for pair in zip(rows, generators, strict=True)]
            at = replace(settings, objective=settings.objective_at(number / n_steps))
            met = advance(self.whole, self.optimiser, torch.cat(rows), at, generators)
            total += met
            self.first = met[1] if self.first is None else self.first
            if (index + 1) % CHECK_EVERY == 0 or index + 1 == n_steps:
                self.check(total, number, index + 1)
        return total[0] / n_steps

    def check(self, total: Tensor, step: int, n_met: int) -> None:
        """Stop a run of which one seed diverged."""
        where = "train_together"
        check_finite_step(where, total, self.parameters, step, DIVERGED)
        assert self.first is not None
        met = (total[1] / n_met).tolist()
        for value, first, past in zip(met, self.first.tolist(), self.histories, strict=True):
            before = past[0]["train"] if past else first
            check_loss(where, value, before, self.n_x, step, DIVERGED)


def draw_of(prepare: Prepare | None, dtype: torch.dtype, seed: int) -> Callable[[Tensor], Tensor]:
    """Return what makes batches of rows, on noise that no training draws."""

    def drawn(rows: Tensor) -> Tensor:
        if prepare is None:
            return rows.to(dtype)
        return prepare(rows.to(dtype, copy=True), generator_for(rows.device, seed, 4))

    return drawn


def check_together(
    models: Sequence[LatentGaussian],
    inferences: Sequence[Inference],
    settings: TrainingSettings,
    seeds: Sequence[int],
) -> None:
    """Refuse what cannot be trained as one."""
    for name, parts in (("models", models), ("inferences", inferences), ("seeds", seeds)):
        if not isinstance(parts, Sized):
            found, advice = f"{name} of type {type(parts).__name__}", "Write [one] for one."
            raise TypeError(refusal("train_together", found, "a list, one entry a seed", advice))
    if not len(models) == len(inferences) == len(seeds) > 0:
        found = f"{len(models)} models, {len(inferences)} inferences and {len(seeds)} seeds"
        raise ValueError(refusal("train_together", found, "as many of each, at least one"))
    for pair in zip(models, inferences, strict=True):
        check_parts("train_together", *pair, settings)
    for seed in seeds:
        check_integer("train_together", "seed", seed)
    check_no_sharing(models, inferences)
    check_alone(settings)


def check_no_sharing(models: Sequence[LatentGaussian], inferences: Sequence[Inference]) -> None:
    """Refuse one object for two seeds, and what takes the weights of all, or stops all at once."""
    for what, parts in (("models", models), ("inferences", inferences)):
        learning = [id(one) for one in parts if isinstance(one, nn.Module)]
        if len(set(learning)) < len(learning):
            found, advice = f"the same object twice among the {what}", "Build one for each seed."
            raise ValueError(refusal("train_together", found, "objects of their own", advice))
    for one in inferences:
        for part in (one, getattr(one, "guess", None), getattr(one, "refinement", None)):
            if isinstance(part, Exact):
                found, expected = "an Exact", "an inference that does not read the weights"
                raise ValueError(refusal("train_together", found, expected, "Train one by one."))
            if getattr(part, "tolerance", 0.0):
                found = f"a {type(part).__name__} that goes on until all seeds are at its tolerance"
                advice = "Fix n_iterations, or train one by one."
                raise ValueError(refusal("train_together", found, "tolerance 0.0", advice))


def check_no_ties(steps: Sequence[nn.Module]) -> None:
    """Refuse parameters that learn in two places, which would part."""
    met: set[int] = set()
    for step in steps:
        for name, one in step.named_parameters(remove_duplicate=False):
            if one.requires_grad and id(one) in met:
                found, expected = f"'{name}', which is elsewhere too", "parameters in one place"
                raise ValueError(refusal("train_together", found, expected, "Train one by one."))
            met.add(id(one))


def check_alone(settings: TrainingSettings) -> None:
    """Refuse settings that look at one model alone."""
    for name, without in WITHOUT.items():
        if getattr(settings, name) != without:
            found, expected = f"{name} {getattr(settings, name)!r}", f"{without}"
            raise ValueError(refusal("train_together", found, expected, "Train one by one."))
    if settings.precision == "bfloat16":
        expected, advice = "'float32', 'tf32' or 'float64'", "Train one by one."
        raise ValueError(refusal("train_together", "precision 'bfloat16'", expected, advice))
    if isinstance(settings.estimator, ScoreFunction) and settings.estimator.remembers:
        found = f"the baseline {settings.estimator.baseline!r}, which all seeds would share"
        expected, advice = "'none' or 'leave_one_out'", "Take one of them, or train one by one."
        raise ValueError(refusal("train_together", found, expected, advice))


def advance(
    whole: nn.Module,
    optimiser: torch.optim.Optimizer,
    x: Tensor,
    settings: TrainingSettings,
    generators: Sequence[torch.Generator],
) -> Tensor:
    """Take one step for all seeds.

    Returns
    -------
    met : (2, K)
        Mean free energy of each, and the same where what is minimised, weights and all, is no
        lower.
    """
    shared = RowGenerators(generators, len(x) // len(generators))
    evaluation = Evaluation(
        n_samples=settings.n_samples, objective=settings.objective,
        estimator=settings.estimator, generator=shared,
    )  # fmt: skip
    loss, met = whole(x, evaluation, settings.n_iterations)
    shared.check_unused("train_together")
    optimiser.zero_grad(set_to_none=True)
    (len(generators) * loss).backward()
    optimiser.step()
    free_energy = torch.as_tensor(-met.elbo).double()
    both = torch.stack([free_energy, torch.minimum(free_energy, met.total)])
    return both.reshape(2, len(generators), -1).mean(2)
