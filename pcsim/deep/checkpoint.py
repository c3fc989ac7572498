"""Checkpoints: tensors in a safetensors file, replaced in one step; loading executes nothing."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from pcsim.messages import refusal
from pcsim.storage import atomic_path, to_plain

__all__ = [
    "DAMAGED",
    "load_checkpoint",
    "load_module",
    "load_run",
    "optimiser_tensors",
    "restore_optimiser",
    "save_checkpoint",
]

FORMAT = "pcsim-checkpoint-1"
DAMAGED = "The file is damaged: take another copy of it, or train in a new folder."


def save_checkpoint(
    path: str | os.PathLike[str], tensors: Mapping[str, Tensor], record: Mapping[str, Any]
) -> None:
    """Write tensors and a record of plain values; a reader finds the old file or the new one.

    Parameters
    ----------
    path
        The file; a temporary name beside it takes its place when it is whole.
    tensors
        Name -> tensor, of any device and type.
    record
        Plain values, kept as JSON in the file's header; floats come back bit for bit.
    """
    plain = {name: one.detach().cpu().contiguous().clone() for name, one in tensors.items()}
    metadata = {"format": FORMAT, "record": json.dumps(to_plain(dict(record)), sort_keys=True)}
    with atomic_path(path) as part:
        save_file(plain, part, metadata=metadata)


def load_checkpoint(path: str | os.PathLike[str]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read what `save_checkpoint` wrote, on the CPU.

    Returns
    -------
    tensors, record

    Raises
    ------
    ValueError
        If there is no such file, it is truncated, or something else wrote it.
    """
    where, advice = f"load_checkpoint {Path(path).name}", "Delete the file or give another."
    expected = "a checkpoint of pcsim"
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            metadata = file.metadata() or {}
            if metadata.get("format") != FORMAT:
                found = f"a safetensors file of format {metadata.get('format')!r}"
                raise ValueError(refusal(where, found, f"{expected} ({FORMAT!r})", advice))
            return {name: file.get_tensor(name) for name in file.keys()}, _record(where, metadata)  # noqa: SIM118
    except FileNotFoundError:
        raise ValueError(refusal(where, "no such file", expected, "Check the path.")) from None
    except (SafetensorError, OSError) as error:
        found = f"a file that cannot be read ({error})"
        raise ValueError(refusal(where, found, expected, advice)) from None


def _record(where: str, metadata: Mapping[str, str]) -> dict[str, Any]:
    try:
        record = json.loads(metadata.get("record", ""))
    except ValueError:
        record = None
    if not isinstance(record, dict):
        raise ValueError(refusal(where, "a record that is not JSON", "a mapping", "Delete it."))
    return record


def load_run(path: str | os.PathLike[str]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read a checkpoint as `load_checkpoint` does, of which the record has a history of epochs."""
    tensors, record = load_checkpoint(path)
    history = record.get("history")
    if not isinstance(history, list) or not history or not all(map(_is_epoch, history)):
        found = "a checkpoint whose history is missing or damaged"
        where, expected = f"load_checkpoint {Path(path).name}", "what each epoch ended at"
        raise ValueError(refusal(where, found, expected, DAMAGED))
    return tensors, record


def _is_epoch(entry: Any) -> bool:
    if not isinstance(entry, dict) or not {"epoch", "train", "validation"} <= set(entry):
        return False
    is_judged = isinstance(entry["validation"], float | int | None)
    return is_judged and isinstance(entry["train"], float | int)


def load_module(where: str, module: nn.Module, tensors: Mapping[str, Tensor], prefix: str) -> None:
    """Copy the tensors whose names start with `prefix` into a module, all or none.

    Raises
    ------
    ValueError
        If names or shapes are not those of the module: the checkpoint is of another one.
    """
    own = module.state_dict()
    given = {
        name.removeprefix(prefix): one for name, one in tensors.items() if name.startswith(prefix)
    }
    problems = [f"no '{name}'" for name in own if name not in given]
    problems += [f"'{name}', which the module has not" for name in given if name not in own]
    problems += [
        f"'{name}' of shape {tuple(given[name].shape)} for {tuple(one.shape)}"
        for name, one in own.items()
        if name in given and given[name].shape != one.shape
    ]
    problems += [
        f"'{name}' of {given[name].dtype}, finer than {one.dtype}"
        for name, one in own.items()
        if name in given and given[name].dtype.itemsize > one.dtype.itemsize
    ]
    if problems:
        found = f"a checkpoint with {problems[0]}" + (
            f" ({len(problems) - 1} more)" if len(problems) > 1 else ""
        )
        expected = f"the tensors of this {type(module).__name__}"
        advice = "Build the module with the settings it was saved with, or train in a new folder."
        raise ValueError(refusal(where, found, expected, advice))
    module.load_state_dict(given)


def optimiser_tensors(optimiser: torch.optim.Optimizer, prefix: str) -> dict[str, Tensor]:
    """Return an optimiser's state as named tensors: ``<prefix><parameter>.<quantity>``."""
    state = optimiser.state_dict()["state"]
    return {
        f"{prefix}{index}.{name}": value
        for index, entry in state.items()
        for name, value in entry.items()
        if isinstance(value, Tensor)
    }


def restore_optimiser(
    where: str, optimiser: torch.optim.Optimizer, tensors: Mapping[str, Tensor], prefix: str
) -> None:
    """Give an optimiser the state that `optimiser_tensors` took from one of the same parameters.

    A parameter that has had no gradient has no state.

    Raises
    ------
    ValueError
        If the state does not fit the parameters, or is missing: all of it, or a part of one's.
    """
    whole = optimiser.state_dict()
    parameters = [p for group in optimiser.param_groups for p in group["params"]]
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        if not key.startswith(prefix):
            continue
        index, _, name = key.removeprefix(prefix).partition(".")
        number = int(index) if index.isdigit() else len(parameters)
        known = number < len(parameters)
        if not known or (value.ndim and value.shape != parameters[number].shape):
            found = f"optimiser state '{key}' of shape {tuple(value.shape)}"
            expected = f"the state of {len(parameters)} parameters"
            raise ValueError(refusal(where, found, expected, "Train in a new folder."))
        state.setdefault(number, {})[name] = value
    for number, entry in (state or {0: {}}).items():
        for name in _remembered(optimiser):
            if name not in entry:
                found, expected = f"no optimiser state '{prefix}{number}.{name}'", "that of the run"
                raise ValueError(refusal(where, found, expected, DAMAGED))
    optimiser.load_state_dict({"state": state, "param_groups": whole["param_groups"]})


def _remembered(optimiser: torch.optim.Optimizer) -> tuple[str, ...]:
    """Return what an optimiser remembers of a parameter from step to step."""
    if isinstance(optimiser, torch.optim.Adam | torch.optim.AdamW):
        return ("step", "exp_avg", "exp_avg_sq")
    return ("momentum_buffer",) if optimiser.defaults.get("momentum") else ()
