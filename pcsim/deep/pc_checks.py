"""What a clamp, a start and the energies of a predictive-coding network must be, or are refused."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from pcsim.deep.pc_energy import CrossEntropy, Energy
from pcsim.deep.pc_network import PCNetwork, States
from pcsim.messages import refusal

__all__ = [
    "check_free",
    "check_precision",
    "check_seen",
    "check_shape",
    "check_target",
    "check_together",
    "check_type",
    "check_values",
]


def check_target(where: str, name: str, energy: Energy, state: Tensor) -> None:
    """Refuse activities to which an energy gives no density."""
    limits = getattr(energy, "limits", None)
    if limits is None:
        return
    low, high = float(state.min()), float(state.max())
    if low < limits[0] or high > limits[1]:
        found = f"{name!r} from {low:.6g} to {high:.6g} under {type(energy).__name__}"
        expected = "probabilities, 0 to 1" if limits[1] < math.inf else "weights of classes, from 0"
        raise ValueError(refusal(where, found, expected, "Scale them, or take SquaredError."))


def check_type(where: str, name: str, precision: Tensor, state: Tensor) -> None:
    """Refuse precisions, one a unit, of another number type than the activities."""
    if precision.ndim and precision.dtype != state.dtype:
        found = f"precisions of {precision.dtype} at {name!r}"
        advice = "Make them of the type of the network, or bring it to theirs with .to(...)."
        raise ValueError(refusal(where, found, f"{state.dtype} as the activities", advice))


def check_values(where: str, what: str, value: Tensor) -> None:
    """Refuse what is no finite floating tensor with a batch."""
    if not isinstance(value, Tensor):
        found, advice = f"{what} of type {type(value).__name__}", "Use torch.as_tensor."
        raise TypeError(refusal(where, found, "a tensor", advice))
    if not value.is_floating_point():
        advice = "Convert it: labels as one-hot floats."
        raise TypeError(refusal(where, f"{what} of {value.dtype}", "floating numbers", advice))
    if value.ndim < 2 or len(value) == 0:
        found = f"{what} of shape {tuple(value.shape)}"
        advice = "Examples go along the first axis."
        raise ValueError(refusal(where, found, "shape (batch, ...)", advice))
    # A sum is many times as fast to look at, and finite only if everything is.
    if not math.isfinite(value.detach().sum()) and not torch.isfinite(value).all():
        found = f"{what} with NaN or infinite entries"
        raise ValueError(refusal(where, found, "finite numbers", "Remove or replace them."))


def check_together(
    where: str, network: PCNetwork, given: States, begin: Mapping[str, Tensor] | None = None
) -> None:
    """Refuse tensors that differ in batch, type or device, among them or from the parameters."""
    (first, lead), *others = given.items()
    parameter = next(network.parameters(), None)
    pairs = [(f"clamp {name!r}", value) for name, value in others]
    pairs += [(f"initial {name!r}", value) for name, value in (begin or {}).items()]
    for what, value in pairs:
        if len(value) != len(lead):
            found = f"{len(value)} examples in {what}"
            raise ValueError(refusal(where, found, f"{len(lead)} as in {first!r}"))
    if parameter is not None:
        pairs.append(("a parameter", parameter))
    for what, value in pairs:
        if value.dtype != lead.dtype or value.device != lead.device:
            found = f"{what} of {value.dtype} on {value.device}"
            expected = f"{lead.dtype} on {lead.device} as in clamp {first!r}"
            advice = "Bring network and data together with .to(...)."
            raise ValueError(refusal(where, found, expected, advice))


def check_free(
    where: str,
    network: PCNetwork,
    free: tuple[str, ...],
    idle: tuple[str, ...],
    masked: Mapping[str, tuple[Tensor, Tensor]],
) -> None:
    """Refuse free nodes whose energy has no lowest point in their own activity."""
    for name in free:
        if name in idle or name not in network.nodes or network.nodes[name].energy.quadratic:
            continue
        kind = type(network.nodes[name].energy).__name__
        found = f"{name!r} with {kind} {'partly ' if name in masked else ''}free"
        advice = "Hold all of it, or give it a SquaredError."
        raise ValueError(refusal(where, found, "free nodes with a squared error", advice))


def check_seen(where: str, name: str, energy: Energy, mask: Tensor) -> None:
    """Refuse a mask of an output that its energy does not allow."""
    kind = type(energy).__name__
    apart = bool((mask.flatten(1).any(1) != mask.flatten(1).all(1)).any())
    if apart and not hasattr(energy, "terms"):
        found = f"{name!r} with {kind} held in part"
        advice = "Mask whole examples, or give the energy a method `terms`."
        raise ValueError(refusal(where, found, "an energy that says what each unit adds", advice))
    if isinstance(energy, CrossEntropy) and bool((mask.any(1) != mask.all(1)).any()):
        found = f"a mask of {name!r} that parts the classes of an example"
        expected = f"all of them held, or none, under {kind}"
        raise ValueError(refusal(where, found, expected, "Mask whole examples."))


def check_shape(where: str, name: str, state: Tensor, expected: Tensor) -> None:
    """Refuse an activity that has not the shape of its prediction."""
    if state.shape != expected.shape:
        found = f"{name!r} of shape {tuple(state.shape)}"
        wanted = f"{tuple(expected.shape)} as predicted"
        raise ValueError(refusal(where, found, wanted))


def check_precision(
    where: str, name: str, precision: tuple[int, ...], shape: tuple[int, ...]
) -> None:
    """Refuse a precision that does not broadcast to one example."""
    pairs = zip(reversed(precision), reversed(shape), strict=False)
    if len(precision) > len(shape) or any(own not in (1, size) for own, size in pairs):
        found = f"a precision of shape {precision} at {name!r}"
        raise ValueError(refusal(where, found, f"one that broadcasts to {shape}"))
