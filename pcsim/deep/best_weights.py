"""Which weights a training run is to leave: those of its best epoch, or of its last."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from pcsim.deep.checkpoint import load_module, load_run
from pcsim.deep.inference import Inference
from pcsim.deep.latent_gaussian import LatentGaussian
from pcsim.deep.run_identity import check_restored
from pcsim.deep.training_step import TrainingStep
from pcsim.messages import refusal

__all__ = ["BEST", "LAST", "best_epoch", "best_so_far", "restore", "restore_modules", "score"]

LAST, BEST = "last.safetensors", "best.safetensors"

Checkpoint = tuple[dict[str, Tensor], dict[str, Any]]


def score(record: Mapping[str, Any]) -> float:
    """Return what an epoch is judged by."""
    value = record["train"] if record["validation"] is None else record["validation"]
    return float(value)


def best_epoch(history: Sequence[Mapping[str, Any]]) -> int:
    """Return the epoch whose weights are the best, counted from 0; of equals the last."""
    lowest = min(map(score, history))
    return max(epoch for epoch, record in enumerate(history) if score(record) == lowest)


def best_so_far(where: str, folder: Path, last: Checkpoint) -> dict[str, Tensor]:
    """Return the weights of the best epoch of a run that goes on with patience.

    Parameters
    ----------
    where
        Who asks, for the error.
    folder
        Of the run.
    last
        Its last checkpoint.

    Raises
    ------
    ValueError
        If they are not there, because that epoch was run without patience.
    """
    tensors, record = last
    kept = _kept_best(folder, record["history"])
    if kept is not None:
        return kept[0]
    best, n_done = best_epoch(record["history"]), len(record["history"])
    if best == n_done - 1:
        return {name: one for name, one in tensors.items() if name.startswith("step.")}
    found = f"no weights of epoch {best}, the best of {n_done}, which was run without patience"
    advice = "Go on without patience, or train in a new folder."
    raise ValueError(refusal(where, found, f"{BEST} of that epoch", advice))


def _kept_best(folder: Path, history: Sequence[Any]) -> Checkpoint | None:
    """Return the best checkpoint if it is that of this history, or else None."""
    if not (folder / BEST).exists():
        return None
    tensors, record = load_run(folder / BEST)
    past = record["history"]
    n_shared = min(len(past), len(history))
    is_same = past[:n_shared] == list(history[:n_shared])
    # A run that was cut off may have found its best after it wrote its last.
    is_best = len(past) > len(history) or len(past) - 1 == best_epoch(history)
    return (tensors, record) if is_same and is_best else None


def restore(model: LatentGaussian, inference: Inference, folder: str | Path) -> dict[str, Any]:
    """Give modules the weights that `train` left in a folder; return the checkpoint's record.

    The best weights if the run had `patience` when it was last gone on with, else the last. The
    modules are left in eval mode, as `train` leaves them.

    Raises
    ------
    ValueError
        If there is no such run, its best weights are missing, or its modules were built with other
        settings (an output, an activation ...) or sizes.
    """
    parts = {"model": model, "inference": inference}
    return restore_modules(f"restore {folder}", TrainingStep(model, inference), parts, folder)


def restore_modules(
    where: str, step: nn.Module, parts: Mapping[str, Any], folder: str | Path
) -> dict[str, Any]:
    """Give what a run trained as one module its weights, in eval mode.

    `parts` are compared by name.
    """
    tensors, record = _left(where, Path(folder))
    check_restored(where, record.get("identity"), parts)
    # What an estimator remembers is of use to training alone.
    tensors = {n: v for n, v in tensors.items() if not n.startswith("step.estimator.")}
    load_module(where, step, tensors, "step.")
    step.eval()
    return record


def _left(where: str, folder: Path) -> Checkpoint:
    """Return the checkpoint that holds what a run ended with."""
    if not (folder / LAST).exists() and (folder / BEST).exists():
        return load_run(folder / BEST)
    last = load_run(folder / LAST)
    record = last[1]
    # One from before there was this entry does not tell whether it had patience.
    best = record.get("best_epoch", "unknown")
    kept = None if best is None else _kept_best(folder, record["history"])
    if kept is not None:
        return kept
    if best in (None, "unknown", len(record["history"]) - 1):
        return last
    advice = "Copy all files of the run's folder."
    raise ValueError(refusal(where, f"no {BEST} of epoch {best}", "the best weights", advice))
