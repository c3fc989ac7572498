"""What is held during inference, what is free, and where inference starts."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from pcsim.deep.grad_mode import ordinary
from pcsim.deep.pc_energy import CrossEntropy, Energy, Seen, SquaredError
from pcsim.deep.pc_network import PCNetwork, States, for_all
from pcsim.messages import refusal

__all__ = ["Clamp", "Masked", "Problem", "pose", "seeing"]


@dataclass(frozen=True, eq=False)
class Masked:
    """Values held in some units only."""

    value: Tensor
    """(batch, ...). What it says where the mask is False is a start for inputs that nothing
    predicts; other nodes that predict something start at their prediction, and those that predict
    nothing rest on it."""
    mask: Tensor
    """Boolean, True where held; broadcasts to `value`."""


Clamp = Mapping[str, "Tensor | Masked"]
"""Node -> what it is held at."""


@dataclass(frozen=True, eq=False)
class Problem:
    """A network with some activities held; what inference methods work on."""

    network: PCNetwork
    """Of energies that look at what was seen only (`Seen`)."""
    held: States
    """Nodes that do not move; 0 where they were not seen."""
    masked: dict[str, tuple[Tensor, Tensor]]
    """Node that predicts something -> value and mask, of one shape."""
    free: tuple[str, ...]
    """Nodes that move, masked ones among them, parents before children."""
    idle: tuple[str, ...]
    """Free nodes that predict nothing: they rest on their prediction and carry no energy."""
    constant: States
    """Predictions that nothing free enters, computed once."""
    start: States
    """Activities of all nodes but idle ones."""
    unseen: States
    """Node held in part that predicts nothing -> its other units: idle, as free such nodes are."""
    at_rest: bool = False
    """Whether free nodes start where their parents predict them."""

    @property
    def active(self) -> tuple[str, ...]:
        """Nodes that carry energy."""
        return tuple(name for name in self.network.nodes if name not in self.idle)

    def predict(self, name: str, states: Mapping[str, Tensor]) -> Tensor:
        """Return a prediction, from memory where it cannot change."""
        if name in self.constant:
            return self.constant[name]
        return self.network.predict(name, states)

    def energy(self, states: Mapping[str, Tensor]) -> Tensor:
        """Return the energy of every example, (batch,), without idle nodes."""
        nodes = self.network.nodes
        first = next(iter(self.start.values()))
        total = first.new_zeros(len(first))
        for name in self.active:
            total = total + nodes[name].energy(states[name], self.predict(name, states))
        return total

    def hold(self, name: str, state: Tensor) -> Tensor:
        """Return the state with what is held in it put back."""
        if name not in self.masked:
            return state
        value, mask = self.masked[name]
        return torch.where(mask, value, state)

    def finish(self, states: Mapping[str, Tensor]) -> States:
        """Return all activities, idle ones at their prediction."""
        given = {name: state.detach() for name, state in states.items()}
        with torch.no_grad():
            n = len(next(iter(given.values())))
            found = self.network.feedforward(given, n_examples=n)
            for name, unseen in self.unseen.items():
                mean = self.network.nodes[name].energy.mean(self.predict(name, found))
                found[name] = torch.where(unseen, mean, found[name])
        return found


def pose(
    network: PCNetwork,
    clamp: Clamp,
    initial: Mapping[str, Tensor] | None = None,
    *,
    where: str = "infer",
) -> Problem:
    """Check a clamp and lay out the problem.

    Parameters
    ----------
    network
        The network.
    clamp
        Node -> (batch, ...) or `Masked`. Any nodes: inputs (prediction), outputs and inputs
        (learning), outputs alone (inverting a classifier, or inference in a generative network).
    initial
        Where free nodes start; from the prediction of their parents where not given.

    Raises
    ------
    ValueError, TypeError
        If a name is not a node, values are no finite floats or differ in batch, type or device, or
        a node is free that its energy does not hold (cross-entropy, unless nothing depends on it).
    """
    held, masked = split_clamp(where, network, clamp)
    given = held | {name: value for name, (value, _) in masked.items()}
    if not given:
        advice = "Clamp a node; what is expected without data is `network.feedforward`."
        raise ValueError(refusal(where, "an empty clamp", "at least one node held", advice))
    begin = dict(initial or {})
    for name, value in begin.items():
        network.check_name(f"{where}: initial", name)
        check_values(where, f"initial {name!r}", value)
        begin[name] = ordinary(value.detach())
    check_together(where, network, given, begin)
    idle = idle_nodes(network, held, masked)
    unseen: States = {}
    for name in tuple(masked):
        if name in network.nodes and all(child in idle for child in network.children_of(name)):
            value, mask = masked.pop(name)
            check_seen(where, name, network.nodes[name].energy, mask)
            held[name], unseen[name] = value.masked_fill(~mask, 0.0), ~mask
    free = tuple(name for name in network.names if name not in held)
    check_free(where, network, free, idle, masked)
    n = len(next(iter(given.values())))
    with torch.no_grad():
        states, predictions = lay_out(where, network, given | begin | held, masked, idle, n)
    constant = {
        name: prediction
        for name, prediction in predictions.items()
        if all(parent in held for parent in network.nodes[name].parents)
    }
    moving = tuple(name for name in free if name not in idle)
    at_rest = not begin and not masked
    network = seeing(network, unseen)
    return Problem(network, held, masked, moving, idle, constant, states, unseen, at_rest)


def seeing(network: PCNetwork, unseen: Mapping[str, Tensor]) -> PCNetwork:
    """Return the network with energies of what was seen; these units of these nodes were not."""
    for name, units in unseen.items():
        energy = network.nodes[name].energy
        whole = energy.energy if isinstance(energy, Seen) else energy
        network = network.with_energy(name, Seen(whole, units))
    return network


def lay_out(
    where: str,
    network: PCNetwork,
    known: States,
    masked: Mapping[str, tuple[Tensor, Tensor]],
    idle: tuple[str, ...],
    n: int,
) -> tuple[States, States]:
    """Return where activities start, and their predictions there, without idle nodes.

    Known activities are taken; of masked nodes without a start only what is held.
    """
    missing = [name for name in network.inputs if name not in known]
    if missing:
        found = f"no activity of {missing}"
        advice = "Clamp them, give them priors (predictive_coding(..., priors=...)), or a start."
        raise ValueError(refusal(where, found, "one for every input without a prior", advice))
    states = {name: known[name].detach() for name in network.inputs}
    predictions: States = {}
    for name, (value, mask) in masked.items():
        if name in network.inputs:
            check_shape(where, name, states[name], value)
            states[name] = torch.where(mask, value, states[name])
    for name, node in network.nodes.items():
        if name in idle:
            continue
        prediction = predictions[name] = predicted(where, network, name, states)
        mean = for_all(node.energy.mean(prediction), n)
        state = known[name].detach() if name in known else mean
        check_shape(where, name, state, mean)
        if name in masked:
            value, mask = masked[name]
            state = torch.where(mask, value, mean if known[name] is value else state)
        states[name] = state
        if isinstance(node.energy, SquaredError):
            precision = tuple(node.energy.log_precision.shape)
            check_precision(where, name, precision, tuple(state.shape[1:]))
            check_type(where, name, node.energy.log_precision, state)
        if name in known:
            check_target(where, name, node.energy, state)
    return states, predictions


def predicted(where: str, network: PCNetwork, name: str, states: States) -> Tensor:
    """Return a prediction, or say which activities do not fit the layers behind it."""
    try:
        prediction = network.predict(name, states)
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:
        parents = network.nodes[name].parents
        shapes = ", ".join(f"{one!r} {tuple(states[one].shape[1:])}" for one in parents)
        found, expected = f"activities of shapes {shapes}", f"shapes that predict {name!r}"
        advice = f"Its layers say: {str(error).splitlines()[0].rstrip('.')}."
        raise ValueError(refusal(where, found, expected, advice)) from None
    if prediction.ndim < 2:
        found = f"a prediction of {name!r} of shape {tuple(prediction.shape)}"
        advice = "Keep the axis of units: leave out squeeze."
        raise ValueError(refusal(where, found, "shape (batch, ...)", advice))
    return prediction


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


def split_clamp(
    where: str, network: PCNetwork, clamp: Clamp
) -> tuple[States, dict[str, tuple[Tensor, Tensor]]]:
    """Return what is held as a whole and what in part, checked one by one."""
    held: States = {}
    masked: dict[str, tuple[Tensor, Tensor]] = {}
    for name, value in clamp.items():
        network.check_name(where, name)
        if isinstance(value, Masked):
            check_values(where, f"clamp {name!r}", value.value)
            if value.mask.dtype != torch.bool:
                found = f"a mask of {value.mask.dtype} for {name!r}"
                raise TypeError(refusal(where, found, "a boolean mask, True where held"))
            try:
                mask = value.mask.expand_as(value.value)
            except RuntimeError:
                found = f"a mask of shape {tuple(value.mask.shape)} for {name!r}"
                expected = f"one that broadcasts to {tuple(value.value.shape)}"
                raise ValueError(refusal(where, found, expected)) from None
            if bool(mask.all()):
                held[name] = ordinary(value.value.detach())
            else:
                masked[name] = (ordinary(value.value.detach()), mask)
        else:
            check_values(where, f"clamp {name!r}", value)
            held[name] = ordinary(value.detach())
    return held, masked


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


def idle_nodes(
    network: PCNetwork, held: States, masked: Mapping[str, tuple[Tensor, Tensor]]
) -> tuple[str, ...]:
    """Return the free nodes below which nothing is held."""
    idle: list[str] = []
    for name in reversed(network.nodes):
        if name in held or name in masked:
            continue
        if all(child in idle for child in network.children_of(name)):
            idle.append(name)
    return tuple(idle)


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
    if not hasattr(energy, "terms"):
        found = f"{name!r} with {kind} held in part"
        advice = "Hold all of it or nothing, or give the energy a method `terms`."
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
