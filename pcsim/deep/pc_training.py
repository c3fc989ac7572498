r"""Training of predictive-coding networks: epochs, checkpoints, early stopping, several processes.

Like `pcsim.deep.training`, a run is a function of its settings and its data: one that was stopped
goes on to the same curve, bit for bit on one CPU.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from pcsim.deep.best_weights import restore_modules
from pcsim.deep.distributed import Workers, share_of, workers
from pcsim.deep.grad_mode import recording
from pcsim.deep.pc_clamp import Clamp
from pcsim.deep.pc_examples import Examples, misclassified, predicted_energy, supervised
from pcsim.deep.pc_hybrid import guess
from pcsim.deep.pc_inference import infer
from pcsim.deep.pc_network import PCNetwork
from pcsim.deep.pc_rules import Hybrid, Incremental, Learners
from pcsim.deep.pc_training_settings import PCTrainingSettings
from pcsim.deep.pc_unfit import refuse_tied
from pcsim.deep.run_identity import described, plain_text
from pcsim.deep.training_run import Trained, TrainingRun
from pcsim.deep.training_step import (
    CHECK_EVERY,
    check_finite_step,
    check_loss,
    generator_for,
    learning,
    shuffled,
)
from pcsim.messages import check_number, refusal

__all__ = ["PCTrainingSettings", "restore", "train"]

Prepare = Callable[[Clamp, torch.Generator], Clamp]


def train(
    network: PCNetwork,
    examples: Clamp,
    settings: PCTrainingSettings = PCTrainingSettings(),  # noqa: B008
    *,
    validation: Clamp | None = None,
    amortizer: PCNetwork | None = None,
    prepare: Prepare | None = None,
    folder: str | Path | None = None,
    after_epoch: Callable[[int], None] | None = None,
    progress: bool = True,
) -> Trained:
    """Train in place; a folder that holds an unfinished run of the same settings is gone on with.

    The networks are left in eval mode. Under ``torchrun`` every process calls this with the same
    arguments; each takes its share of every batch, gradients are averaged, and the first alone
    writes and reports.

    Parameters
    ----------
    network
        Moved to the device of the settings.
    examples
        Node -> (N, ...) that it is held at, or `Masked`: inputs and outputs (supervised), outputs
        alone (generative), or any others. Of the type of the parameters.
    validation
        The same of other examples, judged after each epoch.
    amortizer
        Of the rule `Hybrid`.
    prepare
        ``(clamp of a batch, generator) -> clamp``, drawn anew for each batch: noise, binarisation.
        Validation examples are judged as they are.
    folder
        Where checkpoints go; None keeps none.
    after_epoch
        Called with the number of epochs done, to look at the networks (in eval mode).
    progress
        Whether to report on the error stream.

    Returns
    -------
    Trained
        An epoch's "train" is the mean energy as it was met; "validation" is the score.

    Raises
    ------
    ValueError, TypeError
        If examples do not fit the network, nothing can learn, or the folder holds another run or a
        damaged file.
    RuntimeError
        If the run diverges; the last checkpoint is kept, what the networks hold is lost.

    Examples
    --------
    >>> from pcsim.deep.pc_trace import predictive_coding
    >>> network = predictive_coding(nn.Sequential(nn.Linear(2, 1)))
    >>> x = torch.tensor([[0.0, 1.0], [1.0, 0.0]])
    >>> settings = PCTrainingSettings(n_epochs=200, learning_rate=0.05)
    >>> done = train(network, {"input": x, "output": x[:, :1]}, settings, progress=False)
    >>> done.history[-1]["train"] < 1e-3
    True
    """
    with recording(), workers(settings.device) as group:
        learners = Learners(network, amortizer).to(group.device)
        run = Run(learners, examples, validation, prepare, settings, group, folder)
        return run.run(after_epoch, progress=progress)


class Run(TrainingRun):
    """Epochs of a predictive-coding network and, if it has one, of its amortizer."""

    step: Learners

    def __init__(
        self,
        learners: Learners,
        examples: Clamp,
        validation: Clamp | None,
        prepare: Prepare | None,
        settings: PCTrainingSettings,
        group: Workers,
        folder: str | Path | None,
    ) -> None:
        self.settings, self.prepare = settings, prepare
        network = learners.network
        self.check(settings, learners, group)
        learners.eval()  # to look at an example leaves no trace in running means
        start = None if learners.amortizer is None else partial(guess, learners.amortizer)
        self.examples = Examples("train", network, examples, group.device, start=start)
        self.validation: Examples | None = None
        if validation is not None:
            where = "train (validation)"
            self.validation = Examples(where, network, validation, group.device, start=start)
            if settings.score == "errors":
                misclassified(network, self.validation.rows(slice(1)))
        self.batch_size = share_of(min(settings.batch_size, len(self.examples)), group)
        rates = [settings.learning_rate, settings.amortizer_rate or settings.learning_rate]
        parts = [part for part in (network, learners.amortizer) if part is not None]
        self.rates = rates[: len(parts)]
        learners.optimisers = tuple(
            settings.optimiser_of(part, rate) for part, rate in zip(parts, self.rates, strict=True)
        )
        for optimiser in learners.optimisers:
            share_gradients(optimiser, group, settings.largest_gradient)
        optimisers = {f"optimiser{k}.": one for k, one in enumerate(learners.optimisers)}
        identity = None if folder is None else self.identity_of(learners)
        super().__init__(
            "train", learners, optimisers, settings, group, folder=folder, identity=identity
        )
        learners.average = group.mean
        for tensor in learners.state_dict().values():
            group.same(tensor)
        self.first: Tensor | None = None

    @staticmethod
    def check(settings: PCTrainingSettings, learners: Learners, group: Workers) -> None:
        """Refuse what cannot be learned together."""
        rule, parts = settings.rule, (learners.network, learners.amortizer)
        for part in [part for part in parts if not isinstance(part, PCNetwork | None)]:
            found, advice = f"a {type(part).__name__}", "Take predictive_coding(module)."
            raise TypeError(refusal("train", found, "a PCNetwork", advice))
        refuse_tied("train", learners.network)
        if isinstance(rule, Hybrid) != (learners.amortizer is not None):
            found = f"{'no' if learners.amortizer is None else 'an'} amortizer"
            advice = "The rule Hybrid and an amortizer go together."
            raise ValueError(
                refusal("train", f"{found} with {type(rule).__name__}", "both", advice)
            )
        if group.count > 1 and isinstance(rule, Incremental):
            method = rule.method
            if method.tol is not None or method.threshold is not None:
                found = f"Incremental in {group.count} processes, which may stop at different steps"
                advice = "Leave out tol and threshold, or take one process."
                raise ValueError(refusal("train", found, "a fixed number of steps", advice))

    def identity_of(self, learners: Learners) -> dict[str, str]:
        """Return what the run is a run of."""
        found = dict(described("network", learners.network))
        found |= dict(described("amortizer", learners.amortizer))
        found |= {f"data.{name}": text for name, text in self.examples.digests()}
        if self.validation is not None:
            found |= {f"validation.{name}": text for name, text in self.validation.digests()}
        return found | {"prepare": plain_text(self.prepare)}

    def learn(self, epoch: int) -> float:
        """Go once through the examples; return the mean energy met on the way."""
        settings, device = self.settings, self.group.device
        learning(self.step)
        order = shuffled(len(self.examples), settings.seed, epoch).to(device)
        whole = self.batch_size * self.group.count
        n_steps = len(self.examples) // whole
        total = torch.zeros((), dtype=torch.float64, device=device)
        for index in range(n_steps):
            number = epoch * n_steps + index
            self.set_rates(number / n_steps)
            rows = order[index * whole : (index + 1) * whole][self.group.rank :: self.group.count]
            clamp = self.batch(self.examples.rows(rows), number)
            met = settings.rule.learn(self.step, clamp).detach().double().mean()
            total += met
            self.first = met if self.first is None else self.first
            if (index + 1) % CHECK_EVERY == 0 or index + 1 == n_steps:
                self.check_numbers(total / (index + 1), number)
        return float(self.group.mean(total / n_steps))

    def set_rates(self, time: float) -> None:
        """Give the optimisers their learning rates at a time, in epochs."""
        schedule = self.settings.schedule
        factor = 1.0
        if schedule is not None:
            factor = check_number("train", f"schedule({time:g})", schedule(time), low=0.0)
        for optimiser, rate in zip(self.step.optimisers, self.rates, strict=True):
            for entry in optimiser.param_groups:
                entry["lr"] = rate * factor

    def batch(self, clamp: Clamp, number: int) -> Clamp:
        """Prepare some examples."""
        if self.prepare is None:
            return clamp
        device, network = self.group.device, self.step.network
        generator = generator_for(device, self.settings.seed, 2, number, self.group.rank)
        prepared = self.prepare(clamp, generator)
        if self.first is None:
            Examples("train (prepare)", network, prepared, device, start=self.examples.start)
        return prepared

    def check_numbers(self, mean: Tensor, step: int) -> None:
        """Stop a run that diverged before it is written down."""
        mean = self.group.mean(mean)
        check_finite_step("train", mean, self.step.parameters(), step)
        assert self.first is not None
        first = self.history[0]["train"] if self.history else float(self.group.mean(self.first))
        check_loss("train", float(mean), first, self.examples.n_numbers, step)

    def judge(self) -> float | None:
        """Return the score of the validation examples."""
        if self.validation is None:
            return None
        self.step.eval()
        network, total = self.step.network, 0.0
        for clamp in self.validation.batches(max(self.batch_size, 500)):
            if self.settings.score == "errors":
                total += float(misclassified(network, clamp).double().sum())
            elif supervised(network, clamp):
                total += float(predicted_energy(network, clamp).double().sum())
            else:
                method, start = self.settings.rule.method, self.validation.start
                begin = None if start is None else start(clamp)
                settled = infer(network, clamp, method, initial=begin)
                total += float(settled.energy.double().sum())
        if not math.isfinite(total):
            found, advice = f"a validation energy of {total:g}", "Scale them as those of training."
            raise RuntimeError(refusal("train (validation)", found, "a finite number", advice))
        return total / len(self.validation)


def share_gradients(optimiser: Optimizer, group: Workers, largest: float | None) -> None:
    """Let an optimiser average gradients over processes, and cut long ones, before each step."""

    def before(optimiser: Optimizer, *_: Any) -> None:
        parameters = [one for entry in optimiser.param_groups for one in entry["params"]]
        for one in parameters:
            if one.grad is not None:
                one.grad = group.mean(one.grad)
        if largest is not None:
            nn.utils.clip_grad_norm_(parameters, largest)

    if group.count > 1 or largest is not None:
        optimiser.register_step_pre_hook(before)


def restore(
    network: PCNetwork, folder: str | Path, *, amortizer: PCNetwork | None = None
) -> dict[str, Any]:
    """Give networks the weights that `train` left in a folder; return the checkpoint's record.

    The best weights if the run had `patience` when it was last gone on with, else the last.

    Raises
    ------
    ValueError
        If there is no such run, its best weights are missing, or it is of other networks.
    """
    parts = {"network": network, "amortizer": amortizer}
    return restore_modules(f"restore {folder}", Learners(network, amortizer), parts, folder)
