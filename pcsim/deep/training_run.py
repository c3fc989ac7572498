"""Epochs that are kept: checkpoints that a run goes on from, patience, progress.

What happens in an epoch is for subclasses to say. Whatever randomness they use is to be drawn from
a seed and the number of the step, so that nothing about it needs to be saved.
"""

from __future__ import annotations

import contextlib
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from pcsim.deep.best_weights import BEST, LAST, best_epoch, best_so_far, score
from pcsim.deep.checkpoint import (
    load_module,
    load_run,
    optimiser_tensors,
    restore_optimiser,
    save_checkpoint,
)
from pcsim.deep.distributed import Workers
from pcsim.deep.run_identity import check_fixed, check_identity, check_same
from pcsim.deep.training_progress import Report, silent, training_progress
from pcsim.messages import refusal

__all__ = ["EpochSettings", "Trained", "TrainingRun"]


class EpochSettings(Protocol):
    """What a run of epochs needs to know."""

    @property
    def n_epochs(self) -> int:
        """How many in all."""

    @property
    def patience(self) -> int | None:
        """Epochs without anything better after which it stops."""

    @property
    def checkpoint_every(self) -> int:
        """Epochs."""

    def record(self) -> dict[str, Any]:
        """Return what a continuation must share, as plain values."""


@dataclass(frozen=True)
class Trained:
    """What a training run did; the modules given to it hold the result."""

    history: list[dict[str, Any]]
    """A record an epoch: "epoch", "train" and "validation" free energy in nats an example."""
    stopped_early: bool

    @property
    def best(self) -> dict[str, Any]:
        """The record of the lowest validation (without one: training) free energy.

        Of equals the last, whose weights are the ones that patience leaves.
        """
        return self.history[best_epoch(self.history)]


class TrainingRun(ABC):
    """A training run: a module that learns, its optimisers, and what is known of the epochs so far.

    Parameters
    ----------
    where
        Who trains, for errors.
    step
        The module with everything that is kept: what learns, and what it remembers.
    optimisers
        Prefix of their tensors in a checkpoint -> optimiser.
    settings
        How many epochs, what stops them, when they are kept.
    group
        The processes that train together; the first writes.
    folder
        Where checkpoints go; None keeps none.
    identity
        What the run is a run of, name -> text; None where nothing is kept.
    """

    def __init__(
        self,
        where: str,
        step: nn.Module,
        optimisers: Mapping[str, Optimizer],
        settings: EpochSettings,
        group: Workers,
        *,
        folder: str | Path | None,
        identity: Mapping[str, str] | None,
    ) -> None:
        self.where, self.step, self.optimisers = where, step, optimisers
        self.epochs, self.group, self.identity = settings, group, identity
        if folder is not None and not isinstance(folder, str | os.PathLike):
            expected, advice = "a path, or None to keep nothing", "Such as folder='runs/first'."
            raise TypeError(refusal(where, f"folder {folder!r}", expected, advice))
        self.folder = None if folder is None else Path(folder)
        if self.folder is not None and self.folder.exists() and not self.folder.is_dir():
            found, expected = f"a file {self.folder}", "a folder, or a name that is free"
            raise ValueError(refusal(where, found, expected))
        self.history: list[dict[str, Any]] = []
        self.best: dict[str, Tensor] | None = None
        self.best_epoch: int | None = None

    @abstractmethod
    def learn(self, epoch: int) -> float:
        """Go once through the data; return the mean of what is minimised, as it was met."""

    @abstractmethod
    def judge(self) -> float | None:
        """Return what the epoch is judged by, lower is better; None takes what was met."""

    def further(self) -> dict[str, Any]:
        """Return plain values that a checkpoint is to keep besides."""
        return {}

    def take(self, record: Mapping[str, Any]) -> None:  # noqa: B027 (nothing is kept besides)
        """Take back what `further` gave."""

    def run(self, after_epoch: Callable[[int], None] | None, *, progress: bool) -> Trained:
        """Take up what the folder holds, and run the epochs that are missing."""
        self.resume()
        n_epochs, n_done = self.epochs.n_epochs, len(self.history)
        quiet = not (progress and self.group.leads)
        shown = contextlib.nullcontext(silent)
        with shown if quiet else training_progress(n_epochs, n_done) as report:
            self.finish(report, after_epoch)
        return Trained(self.history, self.is_stuck())

    def finish(self, report: Report, after_epoch: Callable[[int], None] | None = None) -> None:
        """Run the epochs that are missing."""
        while len(self.history) < self.epochs.n_epochs and not self.is_stuck():
            epoch = len(self.history)
            record: dict[str, Any] = {"epoch": epoch, "train": self.learn(epoch)}
            record["validation"] = self.agreed()
            self.history.append(record)
            self.keep()
            report(record)
            if after_epoch is not None:
                self.step.eval()
                after_epoch(len(self.history))
        if self.epochs.patience is not None and self.best is not None:
            load_module(self.where, self.step, self.best, "step.")
        self.step.eval()

    def agreed(self) -> float | None:
        """Judge the epoch alike in every process, or they would not stop at the same one."""
        for buffer in self.step.buffers():
            self.group.same(buffer)  # running means, of the shares of the batches that each saw
        judged = self.judge()
        if judged is None:
            return None
        told = torch.tensor(judged, dtype=torch.float64, device=self.group.device)
        self.group.same(told)
        return float(told)

    def is_stuck(self) -> bool:
        """Whether the last `patience` epochs brought nothing better."""
        patience = self.epochs.patience
        if patience is None or not self.history:
            return False
        best = min(range(len(self.history)), key=lambda epoch: score(self.history[epoch]))
        return len(self.history) - 1 - best >= patience

    def keep(self) -> None:
        """Write the checkpoint if it is due, and remember the best weights."""
        settings, n_done = self.epochs, len(self.history)
        is_best = settings.patience is not None and best_epoch(self.history) == n_done - 1
        if is_best:
            state = self.step.state_dict()
            self.best = {f"step.{name}": one.detach().cpu().clone() for name, one in state.items()}
            self.best_epoch = n_done - 1
        is_last = n_done == settings.n_epochs or self.is_stuck()
        # The last before the best, so that the best is never of an epoch that the run forgot.
        if is_last or is_best or n_done % settings.checkpoint_every == 0:
            self.write(LAST)
        if is_best:
            self.write(BEST)
        self.group.wait()

    def write(self, name: str) -> None:
        """Write a checkpoint, if there is a folder and this process leads."""
        if self.folder is None or not self.group.leads:
            return
        record: dict[str, Any] = {"settings": self.epochs.record(), "history": self.history}
        record |= {"identity": self.identity, "best_epoch": self.best_epoch, **self.further()}
        tensors = {f"step.{name}": one for name, one in self.step.state_dict().items()}
        if name == LAST:
            for prefix, optimiser in self.optimisers.items():
                tensors |= optimiser_tensors(optimiser, prefix)
        save_checkpoint(self.folder / name, tensors, record)

    def resume(self) -> None:
        """Take up the run that the folder holds, if it holds one."""
        if self.folder is None or not (self.folder / LAST).exists():
            return
        where = f"{self.where} in {self.folder}"
        tensors, record = load_run(self.folder / LAST)
        check_same(where, record.get("settings"), self.epochs.record())
        if self.identity is not None:
            check_identity(where, record.get("identity"), self.identity)
        check_fixed(where, self.step, tensors, "step.")
        n_done = len(record["history"])
        if n_done > self.epochs.n_epochs:
            found, expected = f"a run of {n_done} epochs", f"at most {self.epochs.n_epochs}"
            advice = "Raise n_epochs, or train in a new folder."
            raise ValueError(refusal(where, found, expected, advice))
        if self.epochs.patience is not None:
            self.best = best_so_far(where, self.folder, (tensors, record))
            self.best_epoch = best_epoch(record["history"])
        load_module(where, self.step, tensors, "step.")
        for prefix, optimiser in self.optimisers.items():
            restore_optimiser(where, optimiser, tensors, prefix)
        self.history = list(record["history"])
        self.take(record)
        self.mark_patience(record.get("best_epoch", "unknown"))
        self.group.wait()

    def mark_patience(self, before: int | str | None) -> None:
        """Write down what weights the run is to leave, which patience says that began or ended.

        The best are written anew if they are the last: the run may have been cut off between the
        two.
        """
        if self.best_epoch == len(self.history) - 1:
            self.write(BEST)
        if before != self.best_epoch:
            self.write(LAST)
