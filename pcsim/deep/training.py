r"""Training of a latent Gaussian model and its inference: plain torch, torchrun for more processes.

A run is a function of its settings and its data. All randomness is drawn from the seed and the
number of the step, so a run that was stopped goes on to the same curve, bit for bit on one CPU.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from pcsim.deep.best_weights import restore
from pcsim.deep.checkpoint import DAMAGED
from pcsim.deep.distributed import Workers, share_of, workers
from pcsim.deep.grad_mode import ordinary, recording
from pcsim.deep.inference import Evaluation, Inference, check_rows, infer
from pcsim.deep.latent_gaussian import LatentGaussian
from pcsim.deep.networks import FullyConnected
from pcsim.deep.objective import KLConstraint
from pcsim.deep.run_identity import run_identity
from pcsim.deep.training_run import Trained, TrainingRun
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
from pcsim.messages import refusal

__all__ = ["Trained", "TrainingSettings", "restore", "train"]

Prepare = Callable[[Tensor, torch.Generator], Tensor]


def train(
    model: LatentGaussian,
    inference: Inference,
    x: Tensor,
    settings: TrainingSettings = TrainingSettings(),  # noqa: B008
    *,
    validation: Tensor | None = None,
    prepare: Prepare | None = None,
    folder: str | Path | None = None,
    after_epoch: Callable[[int], None] | None = None,
    progress: bool = True,
) -> Trained:
    """Train in place; a folder that holds an unfinished run of the same settings is gone on with.

    The modules are left in eval mode.

    Under ``torchrun`` every process calls this with the same arguments; each takes its share of
    every batch, and gradients are averaged. Only the first writes and reports.

    Parameters
    ----------
    model, inference
        Moved to the device and type of the settings. An inference that is no `nn.Module` has
        nothing to learn; nor has a module after `requires_grad_(False)`, which stays as it is, in
        eval mode throughout, as does any part of which all parameters are frozen.
    x : (N, n_x)
        Training examples.
    validation : (M, n_x)
        Judged after each epoch, with the same noise each time. With `patience`, what is left in the
        modules at the end are the weights of the best epoch.
    prepare
        ``(batch, generator) -> batch``, drawn anew for each batch, such as `binarised`.
    folder
        Where checkpoints go; None keeps none.
    after_epoch
        Called with the number of epochs done, to look at the modules (in eval mode) as they learn.
    progress
        Whether to report on the error stream.

    Raises
    ------
    ValueError
        If the data do not fit the model or its output, or the folder holds another run (of other
        settings, another model, inference or estimator, other frozen weights or other data), a
        damaged file, or a run whose best weights `patience` asks for and that did not keep them.
    RuntimeError
        If the run diverges: a loss or a weight is no longer finite, or a free energy is above
        `WORST` times that of the first epoch. The last checkpoint is kept; what the modules hold is
        lost.
    """
    check_parts("train", model, inference, settings)
    check_rows("train", model, x)
    if validation is not None:
        check_rows("train (validation)", model, validation)
    with recording(), workers(settings.device) as group, torch_settings(settings):
        run = Run(model, inference, x, validation, prepare, settings, group, folder)
        run.check_data()
        return run.run(after_epoch, progress=progress)


class Run(TrainingRun):
    """Epochs of a model and its inference."""

    step: TrainingStep

    def __init__(
        self,
        model: LatentGaussian,
        inference: Inference,
        x: Tensor,
        validation: Tensor | None,
        prepare: Prepare | None,
        settings: TrainingSettings,
        group: Workers,
        folder: str | Path | None,
    ) -> None:
        self.settings, self.group, self.prepare = settings, group, prepare
        self.dtype = torch.float64 if settings.precision == "float64" else torch.float32
        parts = {"model": model, "inference": inference, "estimator": settings.estimator}
        identity = None if folder is None else run_identity(parts, x, validation, prepare)
        # A copy: what an estimator remembers is of one run, and settings are used for many.
        estimator = copy.deepcopy(settings.estimator)
        step = TrainingStep(model, inference, estimator).to(group.device, self.dtype)
        self.x = ordinary(x.detach()).to(group.device)
        self.validation = None
        if validation is not None:
            self.validation = ordinary(validation.detach()).to(group.device)
        self.batch_size = share_of(min(settings.batch_size, len(x)), group)
        if settings.compile:
            for module in step.modules():
                if isinstance(module, FullyConnected):
                    module.compile()
        self.parts = parameter_groups("train", step)
        groups = [{"params": part} for part in self.parts]
        self.optimiser = torch.optim.Adam(groups, lr=settings.learning_rate, fused=True)
        optimisers = {"optimiser.": self.optimiser}
        super().__init__(
            "train", step, optimisers, settings, group, folder=folder, identity=identity
        )
        self.shared = group.shared(step)
        target = settings.kl_target
        self.constraint = None if target is None else KLConstraint(target=target)
        self.first: Tensor | None = None

    def check_data(self) -> None:
        """Refuse data that the model's output cannot have, as they come out of `prepare`."""
        generator = generator_for(self.group.device, self.settings.seed, 4)
        for where, data in (("train", self.x), ("train (validation)", self.validation)):
            if data is not None:
                check_prepared(
                    where, self.step.model, data, lambda rows: self.batch(rows, generator),
                    self.dtype,
                )  # fmt: skip

    def learn(self, epoch: int) -> float:
        """Go once through the data; return the mean free energy met on the way."""
        settings, device = self.settings, self.group.device
        for entry in self.optimiser.param_groups:
            entry["lr"] = settings.learning_rate * settings.learning_rate_decay**epoch
        learning(self.step)
        order = shuffled(len(self.x), settings.seed, epoch).to(device)
        whole = self.batch_size * self.group.count
        n_steps = len(self.x) // whole
        total = torch.zeros(2, dtype=torch.float64, device=device)
        for index in range(n_steps):
            number = epoch * n_steps + index
            rows = order[index * whole : (index + 1) * whole][self.group.rank :: self.group.count]
            generator = generator_for(device, settings.seed, 2, number, self.group.rank)
            met = self.advance(self.batch(self.x[rows], generator), generator, number / n_steps)
            total += met
            self.first = met[1] if self.first is None else self.first
            if (index + 1) % CHECK_EVERY == 0 or index + 1 == n_steps:
                self.check(total, number, index + 1)
        return float(self.group.mean(total[0] / n_steps))

    def batch(self, rows: Tensor, generator: torch.Generator) -> Tensor:
        """Convert and prepare some rows of the data: a copy, which `prepare` may write to."""
        if self.prepare is None:
            return rows.to(self.dtype)
        return self.prepare(rows.to(self.dtype, copy=True), generator)

    def advance(self, x: Tensor, generator: torch.Generator, time: float) -> Tensor:
        """Take one step of the optimiser; `time` is in epochs.

        Returns
        -------
        met : (2,)
            Mean free energy, and the same where what is minimised, weights and all, is no lower.
        """
        settings = self.settings
        evaluation = Evaluation(
            n_samples=settings.n_samples,
            objective=(
                settings.objective_at(time)
                if self.constraint is None
                else self.constraint.objective(settings.objective)
            ),
            estimator=self.step.estimator,
            generator=generator,
        )
        half = settings.precision == "bfloat16"
        with torch.autocast(self.group.device.type, torch.bfloat16, enabled=half):
            loss, met = self.shared(x, evaluation, settings.n_iterations)
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        if settings.largest_gradient is not None:
            for part in self.parts:
                nn.utils.clip_grad_norm_(part, settings.largest_gradient)
        self.optimiser.step()
        if self.constraint is not None:
            kl = self.group.mean(met.kl.mean(0, keepdim=True))
            self.constraint = self.constraint.updated(replace(met, kl=kl))
        free_energy = torch.as_tensor(-met.elbo).double()
        # Under a small weight of the divergence the bound may be bad and the run sound.
        return torch.stack([free_energy.mean(), torch.minimum(free_energy, met.total).mean()])

    def check(self, total: Tensor, step: int, n_met: int) -> None:
        """Stop a run that diverged before it is written down."""
        total = self.group.mean(total)
        check_finite_step("train", total, [p for part in self.parts for p in part], step)
        assert self.first is not None
        first = self.history[0]["train"] if self.history else float(self.group.mean(self.first))
        check_loss("train", float(total[1]) / n_met, first, self.step.model.n_x, step)

    def judge(self) -> float | None:
        """Return the validation free energy, on the same noise each time."""
        if self.validation is None:
            return None
        settings = self.settings
        generator = generator_for(self.group.device, settings.seed, 3)
        self.step.eval()
        total = 0.0
        for rows in self.validation.split(max(self.batch_size, 500)):
            inferred = infer(
                self.step.inference, self.step.model, self.batch(rows, generator),
                n_iterations=settings.n_iterations, n_samples=settings.n_samples,
                generator=generator,
            )  # fmt: skip
            total += float(inferred.trace[-1].double().sum())
        return total / len(self.validation)

    def further(self) -> dict[str, Any]:
        """Return the multiplier of the divergence, which is learned too."""
        held = self.constraint
        return {} if held is None else {"log_multiplier": held.log_multiplier}

    def take(self, record: Mapping[str, Any]) -> None:
        """Take the multiplier back."""
        if self.constraint is not None:
            multiplier = record.get("log_multiplier")
            if not isinstance(multiplier, float | int):
                where, found = f"train in {self.folder}", f"a log_multiplier {multiplier!r}"
                raise ValueError(refusal(where, found, "that of `kl_target`", DAMAGED))
            self.constraint = replace(self.constraint, log_multiplier=float(multiplier))
