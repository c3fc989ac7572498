"""What a training run is a run of, so that a checkpoint is not gone on with as another run."""

from __future__ import annotations

import hashlib
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import fields, is_dataclass
from functools import partial
from types import MethodType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from pcsim.messages import refusal
from pcsim.storage import to_plain

__all__ = [
    "check_fixed",
    "check_identity",
    "check_restored",
    "check_same",
    "data_digest",
    "described",
    "run_identity",
]

SHOWN = 3
"""Differences that an error names."""
MISSING = object()


def run_identity(
    parts: Mapping[str, Any],
    x: Tensor,
    validation: Tensor | None,
    prepare: Callable[..., Any] | None,
) -> dict[str, str]:
    """Return what model, inference, estimator and data are, name -> text, the same in any process.

    Parameters
    ----------
    parts
        "model", "inference", "estimator" -> the object.
    x, validation
        The data, of which a digest is kept.
    prepare
        What batches pass first: of a function the name is kept, of an object what it holds too.
    """
    found = {name: one for part, whole in parts.items() for name, one in described(part, whole)}
    found |= {"data": data_digest(x), "prepare": plain_text(prepare)}
    found["validation"] = "None" if validation is None else data_digest(validation)
    return found


def data_digest(x: Tensor) -> str:
    """Return type, shape and the sha256 of the values of a tensor.

    Examples
    --------
    >>> data_digest(torch.zeros(2, 3))[:21]
    'float32 (2, 3) sha256'
    >>> data_digest(torch.zeros(2, 3)) == data_digest(torch.zeros(3, 2))
    False
    """
    values = x.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
    digest = hashlib.sha256(values.data).hexdigest()
    return f"{str(x.dtype).removeprefix('torch.')} {tuple(x.shape)} sha256 {digest}"


def described(name: str, value: Any, seen: set[int] | None = None) -> Iterator[tuple[str, str]]:
    """Yield (name, text) of an object and of all its settings; what is learned has its shape.

    `seen` are the objects of one's own classes that have been described: none is a second time.

    Examples
    --------
    >>> dict(described("layer", nn.Linear(3, 2, bias=False)))["layer.weight"]
    'learned (2, 3)'
    """
    seen = set() if seen is None else seen
    if isinstance(value, nn.Module):
        yield name, type(value).__qualname__
        yield from _of_module(name, value, seen)
    elif is_dataclass(value) and not isinstance(value, type):
        yield name, type(value).__qualname__
        for one in fields(value):
            yield from described(f"{name}.{one.name}", getattr(value, one.name), seen)
    elif isinstance(value, Mapping):
        for key in value:
            yield from described(f"{name}.{key}", value[key], seen)
    elif isinstance(value, Sequence) and not isinstance(value, str) and any(map(_deep, value)):
        for place, one in enumerate(value):
            yield from described(f"{name}.{place}", one, seen)
    elif _is_own(value):
        yield name, type(value).__qualname__
        if id(value) not in seen:
            seen.add(id(value))
            for key, one in _attributes(value):
                yield from described(f"{name}.{key}", one, seen)
    else:
        yield name, plain_text(value, seen)


def plain_text(value: Any, seen: set[int] | None = None) -> str:
    """Return a text for a value that holds no address in memory; `seen` as for `described`."""
    seen = set() if seen is None else seen

    def joined(values: Iterable[Any]) -> str:
        return ", ".join(plain_text(one, seen) for one in values)

    if isinstance(value, Tensor):
        return data_digest(value.detach().to_dense())
    if _is_array(value) and not isinstance(value, np.generic):
        array = np.asarray(value)
        if array.dtype.kind not in "biufc":
            return joined([array.tolist()])
        return data_digest(torch.as_tensor(array.astype(array.dtype.newbyteorder("="))))
    if isinstance(value, partial):
        inner = joined((*value.args, *value.keywords.items()))
        return f"partial({plain_text(value.func, seen)}, {inner})"
    if is_dataclass(value) and not isinstance(value, type):
        inner = ", ".join(
            f"{one.name}={plain_text(getattr(value, one.name), seen)}" for one in fields(value)
        )
        return f"{type(value).__qualname__}({inner})"
    if _is_own(value):
        (_, kind), *held = described("", value, seen)
        return f"{kind}({', '.join(f'{key[1:]}={text}' for key, text in held)})"
    if isinstance(value, MethodType) and not isinstance(value.__self__, type | nn.Module):
        return f"{value.__qualname__} of {plain_text(value.__self__, seen)}"
    if callable(value):
        return str(getattr(value, "__qualname__", type(value).__qualname__))
    if isinstance(value, list | tuple):
        return f"({joined(value)})"
    if isinstance(value, Mapping):
        return f"{{{joined(value.items())}}}"
    plain = value is None or isinstance(value, bool | int | float | complex | str | np.generic)
    return repr(value) if plain else type(value).__qualname__


def check_same(where: str, saved: Any, record: Mapping[str, Any]) -> None:
    """Refuse to go on with a run of other settings than those on record."""
    own: dict[str, Any] = to_plain(dict(record))
    if saved != own:
        raise ValueError(_different(where, saved if isinstance(saved, dict) else {}, own))


def check_identity(where: str, saved: Any, own: Mapping[str, str]) -> None:
    """Refuse to go on with a run of another model, inference, estimator or data.

    A checkpoint from before there were identities is taken, with a warning: its settings and the
    shapes of its weights are compared all the same.
    """
    if saved is None:
        found = "a checkpoint that does not say of which model and data it is"
        expected = "one that does; its settings and the shapes of its weights fit"
        advice = "Make sure that both are the same, or train in a new folder."
        warnings.warn(refusal(where, found, expected, advice), UserWarning, stacklevel=3)
    elif saved != own:
        raise ValueError(_different(where, saved if isinstance(saved, Mapping) else {}, own))


def check_fixed(where: str, module: nn.Module, tensors: Mapping[str, Tensor], prefix: str) -> None:
    """Refuse to go on with a run of other frozen weights, or of other constants in buffers.

    `tensors` are a checkpoint's, of which those whose names start with `prefix` are the module's.
    """
    for name, own in _unchanged(module):
        saved = tensors.get(prefix + name)
        if saved is not None and data_digest(saved) != data_digest(own.to(saved.dtype)):
            found = f"a run with other values of '{name}', which does not learn"
            expected = "the values that it has here"
            advice = "Give the weights of that run, or train in a new folder."
            raise ValueError(refusal(where, found, expected, advice))


def _unchanged(module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Yield (name, values) of all parameters and buffers that training does not change."""
    for place, one in module.named_modules():
        start = f"{place}." if place else ""
        for key, parameter in one.named_parameters(recurse=False):
            if not parameter.requires_grad:
                yield start + key, parameter
        # Running means: of a normalization, or of a module that says so.
        is_running = getattr(one, "track_running_stats", getattr(one, "remembers", False))
        if not is_running:
            for key, buffer in one.named_buffers(recurse=False):
                yield start + key, buffer


def check_restored(where: str, saved: Any, parts: Mapping[str, Any]) -> None:
    """Refuse to give a model or an inference network the weights of one of other settings.

    Entries that both know are compared; not what is learned, nor the number of iterations, which is
    free at test time, nor what an inference without weights is. Older checkpoints say nothing.
    """
    if not isinstance(saved, Mapping):
        return
    modules = {name: one for name, one in parts.items() if isinstance(one, nn.Module)}
    own = {key: text for name, one in modules.items() for key, text in described(name, one)}
    for key, text in own.items():
        before = saved.get(key, text)
        is_weight = all(one.startswith(("learned ", "fixed ", "buffer ")) for one in (text, before))
        is_free = key.endswith(".n_iterations") or "<l" in text + before  # <locals>, <lambda>
        if text != before and not is_weight and not is_free:
            found, expected = f"{key} {before!r} in the checkpoint", f"{key} {text!r}"
            advice = "Build the modules with the settings they were trained with."
            raise ValueError(refusal(where, found, expected, advice))


def _different(where: str, saved: Mapping[str, Any], own: Mapping[str, Any]) -> str:
    names = [name for name in {**own, **saved} if own.get(name) != saved.get(name)]
    found = ", ".join(f"{name} {saved.get(name)!r} in the checkpoint" for name in names[:SHOWN])
    expected = ", ".join(f"{name} {own.get(name)!r}" for name in names[:SHOWN])
    return refusal(where, found, expected, "Train in a new folder.")


def _of_module(name: str, module: nn.Module, seen: set[int]) -> Iterator[tuple[str, str]]:
    # Of pruning and the older weight_norm: the weight itself, computed anew at every call.
    made = {one.rpartition("_")[0] for one in module._parameters if one.endswith(("_orig", "_g"))}
    for key, value in vars(module).items():
        if not key.startswith("_") and key != "training" and key not in made:
            yield from described(f"{name}.{key}", value, seen)
    for key, one in module.named_parameters(recurse=False):
        kind = "learned" if one.requires_grad else "fixed"
        yield f"{name}.{key}", f"{kind} {tuple(one.shape)}"
    for key, buffer in module.named_buffers(recurse=False):
        yield f"{name}.{key}", f"buffer {tuple(buffer.shape)}"
    for key, child in module.named_children():
        yield from described(f"{name}.{key}", child, seen)


def _deep(value: Any) -> bool:
    """Whether a member of a sequence has settings of its own."""
    is_module = isinstance(value, nn.Module | Mapping)
    return is_module or (is_dataclass(value) and not isinstance(value, type)) or _is_own(value)


def _is_own(value: Any) -> bool:
    """Whether a value is of a class that says nothing of what it is but by its attributes."""
    known = type, nn.Module, Mapping, Sequence, Set, int, float, complex
    is_named = getattr(value, "__qualname__", None) is not None  # what acts as a function
    is_standard = type(value).__module__.partition(".")[0] in sys.stdlib_module_names
    if isinstance(value, known) or is_dataclass(value) or is_named or is_standard:
        return False
    return not _is_array(value) and any(_attributes(value))


def _is_array(value: Any) -> bool:
    """Whether a value is an array, or turns into one: a tensor, a table."""
    return not isinstance(value, type) and getattr(value, "__array__", None) is not None


def _attributes(value: Any) -> Iterator[tuple[str, Any]]:
    """Yield (name, value) of all that an object holds, in slots too."""
    yield from getattr(value, "__dict__", {}).items()
    for kind in type(value).__mro__:
        slots = vars(kind).get("__slots__", ())
        for slot in (slots,) if isinstance(slots, str) else slots:
            private = slot.startswith("__") and not slot.endswith("__")
            key = f"_{kind.__name__.lstrip('_')}{slot}" if private else slot
            held = getattr(value, key, MISSING)
            if slot not in ("__dict__", "__weakref__") and held is not MISSING:
                yield slot, held
