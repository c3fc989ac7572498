"""Training as a piece of an experiment: parts that follow one another, in folders of their own."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from pcsim.deep.arms import Arm
from pcsim.deep.best_weights import BEST, LAST
from pcsim.deep.inference import Inference, infer
from pcsim.deep.latent_gaussian import LatentGaussian
from pcsim.deep.outputs import Output
from pcsim.deep.training import Prepare, Trained, TrainingSettings, restore, train
from pcsim.deep.training_step import generator_for
from pcsim.storage import read_json, write_json

__all__ = ["restored", "train_network", "train_part"]

WATCHED = "watched.json"
KEPT = (LAST, BEST, WATCHED)


def train_part(
    folder: Path,
    needs: Mapping[str, Path],
    pair: tuple[LatentGaussian, Inference],
    x: Tensor,
    settings: TrainingSettings,
    *,
    part: tuple[int, int] = (1, 1),
    validation: Tensor | None = None,
    prepare: Prepare | None = None,
    watched: Tensor | None = None,
) -> Trained:
    """Train a model and its inference through a part of the epochs, from where the last one ended.

    Parameters
    ----------
    folder, needs
        Of the piece; whatever it needs is the part before this one.
    pair
        Model and inference, trained in place.
    settings
        Those of the whole training.
    part
        (which, of how many), counted from 1.
    watched : (B, n_x)
        Examples on which the gradient of each iteration is looked at after each epoch
        (`watched.json`: epoch, iteration -> mean absolute gradient in the first mean).
    """
    if not (folder / LAST).exists():  # or else this part was begun before, and cut off
        for before in needs.values():
            for name in KEPT:
                if (before / name).exists():
                    shutil.copy(before / name, folder)
    model, inference = pair
    seen = read_json(folder / WATCHED) if (folder / WATCHED).exists() else []

    def watch(n_done: int) -> None:
        if watched is not None:
            rows = watched.to(next(model.parameters()))
            noise = generator_for(rows.device, 0, 21)
            found = infer(inference, model, rows, generator=noise, n_samples=settings.n_samples)
            # Epochs that a cut-off run looked at and forgot are looked at again.
            seen[n_done - 1 :] = [found.gradients[:, 0].tolist()]
            write_json(folder / WATCHED, seen)

    n_epochs = max(1, settings.n_epochs * part[0] // part[1])
    trained = train(
        model, inference, x, replace(settings, n_epochs=n_epochs), validation=validation,
        prepare=prepare, folder=folder, after_epoch=watch, progress=False,
    )  # fmt: skip
    write_json(folder / WATCHED, seen)
    return trained


def restored(
    arm: Mapping[str, Any], n_x: int, folder: Path, output: Output | None = None
) -> tuple[LatentGaussian, Inference]:
    """Return the model and the inference that `train` left in a folder, ready to infer."""
    model, inference = Arm(**arm).build(n_x, 0, output)
    restore(model, inference, folder)
    model.eval().requires_grad_(False)
    if isinstance(inference, nn.Module):
        inference.eval()
    return model, inference


def train_network(
    model: LatentGaussian,
    arm: Mapping[str, Any],
    x: Tensor,
    settings: TrainingSettings,
    *,
    change: Callable[[Any], None] | None = None,
    prepare: Prepare | None = None,
) -> Inference:
    """Return an inference network of an arm, trained on a model that stays as it is.

    `change` is done to the new network before training: a control with a wrong input, for instance.
    """
    model.requires_grad_(False)
    _, inference = Arm(**arm).build(model.n_x, settings.seed, model.output)
    if change is not None:
        change(inference)
    train(model, inference, x, settings, prepare=prepare, progress=False)
    return inference
