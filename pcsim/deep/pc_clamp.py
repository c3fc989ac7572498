"""What is held during inference, what is free, and where inference starts."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pcsim.deep.grad_mode import ordinary
from pcsim.deep.pc_checks import (
    check_free,
    check_precision,
    check_seen,
    check_shape,
    check_target,
    check_together,
    check_type,
    check_values,
)
from pcsim.deep.pc_energy import Seen, SquaredError
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
    """Node -> units that are idle in some examples: of outputs, what was not held; of hidden nodes,
    where nothing is held below them."""
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
            for name in [name for name in self.network.nodes if name in self.unseen]:
                mean = self.network.nodes[name].energy.mean(self.predict(name, found))
                found[name] = torch.where(self.unseen[name], mean, found[name])
        return {name: own(state) for name, state in found.items()}


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
    if not isinstance(network, PCNetwork):
        found, advice = f"a network of type {type(network).__name__}", "Take predictive_coding(it)."
        raise TypeError(refusal(where, found, "a PCNetwork", advice))
    for what, values in (("clamp", clamp), ("initial", initial or {})):
        if not isinstance(values, Mapping):
            found = f"{what} of type {type(values).__name__}"
            raise TypeError(refusal(where, found, "a mapping", "Such as {'input': x}."))
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
    resting = at_rest_below(network, held, masked)
    idle = tuple(name for name in reversed(network.nodes) if everywhere(resting[name]))
    masked = {name: value for name, value in masked.items() if name not in idle}
    unseen = {name: ~masked[name][1] for name in outer(network, masked, idle)}
    for name, units in unseen.items():
        value, mask = masked.pop(name)
        check_seen(where, name, network.nodes[name].energy, mask)
        held[name] = value.masked_fill(units, 0.0)
    free = tuple(name for name in network.names if name not in held)
    check_free(where, network, free, idle, masked)
    n = len(next(iter(given.values())))
    with torch.no_grad():
        states, predictions = lay_out(where, network, given | begin | held, masked, idle, n)
    held |= {name: states[name] for name in network.inputs if everywhere(resting[name])}
    masked = {name: value for name, value in masked.items() if name not in held}
    moving = tuple(name for name in free if name not in idle and name not in held)
    unseen |= unseen_examples(network, moving, resting, states)
    constant = {
        name: prediction
        for name, prediction in predictions.items()
        if all(parent in held for parent in network.nodes[name].parents)
    }
    at_rest = not begin and not masked
    network = seeing(network, unseen)
    return Problem(network, held, masked, moving, idle, constant, states, unseen, at_rest)


def outer(network: PCNetwork, masked: Collection[str], idle: Collection[str]) -> list[str]:
    """Return the masked nodes that something predicts and that predict idle nodes at most."""
    return [
        name for name in masked
        if name in network.nodes and all(child in idle for child in network.children_of(name))
    ]  # fmt: skip


def unseen_examples(
    network: PCNetwork,
    moving: Sequence[str],
    resting: Mapping[str, Tensor | bool],
    states: Mapping[str, Tensor],
) -> States:
    """Return the units of hidden nodes in examples below which nothing is held."""
    found: States = {}
    for name in moving:
        rows = resting[name]
        known = name in network.nodes and hasattr(network.nodes[name].energy, "terms")
        if known and isinstance(rows, Tensor) and bool(rows.any()):
            found[name] = rows.view(-1, *[1] * (states[name].ndim - 1)).expand_as(states[name])
    return found


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
        prediction = predicted(where, network, name, states)
        predictions[name] = prediction.detach()
        mean = own(for_all(node.energy.mean(prediction), n))
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


def at_rest_below(
    network: PCNetwork, held: States, masked: Mapping[str, tuple[Tensor, Tensor]]
) -> dict[str, Tensor | bool]:
    """Return of every node in which examples, (batch,), nothing is held in it and below it.

    One truth where all examples are alike.
    """
    found: dict[str, Tensor | bool] = {}
    for name in reversed(network.names):
        resting: Tensor | bool = name not in held
        if name in masked and name in network.nodes:  # what is held of an input costs nothing
            resting = ~masked[name][1].flatten(1).any(1)
        for child in network.children_of(name):
            resting = resting & found[child]
        found[name] = resting
    return found


def everywhere(resting: Tensor | bool) -> bool:
    """Return whether this is so in all examples."""
    return bool(resting.all()) if isinstance(resting, Tensor) else resting


def own(state: Tensor) -> Tensor:
    """Return an activity, a copy where it would show a parameter: the mean of a prior."""
    return state.detach().clone() if state.requires_grad else state
