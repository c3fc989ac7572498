"""What is held during inference, what is free, and where inference starts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
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
from pcsim.deep.pc_energy import Seen, SquaredError, whole
from pcsim.deep.pc_network import Node, PCNetwork, States, for_all
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
    nothing: Tensor
    """The energy of no node, (batch,)."""
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
        total = self.nothing
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
        found = {name: state.detach() for name, state in states.items()}
        with torch.no_grad():
            for name, node in self.network.nodes.items():
                if name in found and name not in self.unseen:
                    continue
                mean = expected(node, self.predict(name, found), len(self.nothing))
                seen = found.get(name)
                found[name] = mean if seen is None else torch.where(self.unseen[name], mean, seen)
        return {name: found[name] for name in self.network.names}


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
    below = at_rest_below(network, held, masked)
    idle = tuple(
        name for name in reversed(network.nodes)
        if name not in held and everywhere(at_rest(below[name], masked.get(name)))
    )  # fmt: skip
    masked = {name: value for name, value in masked.items() if name not in idle}
    for name in [n for n in masked if n in network.nodes and everywhere(below[n])]:
        value, mask = masked[name]
        check_seen(where, name, network.nodes[name].energy, mask)
        held[name] = value.masked_fill(~mask, 0.0)
    free = tuple(name for name in network.names if name not in held)
    check_free(where, network, free, idle, masked)
    n = len(next(iter(given.values())))
    with torch.no_grad():
        states, predictions = lay_out(where, network, given | begin | held, masked, idle, n)
    held |= {n: states[n] for n in network.inputs if n not in held and everywhere(below[n])}
    moving = tuple(name for name in free if name not in idle and name not in held)
    unseen = unseen_units((*moving, *masked), network, below, masked, states)
    masked = {name: value for name, value in masked.items() if name not in held}
    constant = {
        name: prediction
        for name, prediction in predictions.items()
        if all(parent in held for parent in network.nodes[name].parents)
    }
    nothing = next(iter(given.values())).new_zeros(n)
    network, begins = seeing(network, unseen), not begin and not masked
    return Problem(
        network, held, masked, moving, idle, constant, states, unseen, nothing, begins
    )  # fmt: skip


def unseen_units(
    names: Iterable[str],
    network: PCNetwork,
    below: Mapping[str, Tensor | bool],
    masked: Mapping[str, tuple[Tensor, Tensor]],
    states: Mapping[str, Tensor],
) -> States:
    """Return the units of predicted nodes that are not held where nothing below them is."""
    found: States = {}
    for name in dict.fromkeys(names):
        if name not in network.nodes or below[name] is False:
            continue
        rows = torch.as_tensor(below[name], device=states[name].device).view(-1)
        units = rows.view(-1, *[1] * (states[name].ndim - 1)).expand_as(states[name])
        if name in masked:
            units = units & ~masked[name][1]
        if bool(units.any()):
            found[name] = units
    return found


def seeing(network: PCNetwork, unseen: Mapping[str, Tensor]) -> PCNetwork:
    """Return the network with energies of what was seen; these units of these nodes were not."""
    for name, units in unseen.items():
        network = network.with_energy(name, Seen(whole(network.nodes[name].energy), units))
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
        mean = expected(node, prediction, n)
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
            kind = getattr(value.mask, "dtype", type(value.mask).__name__)
            if kind is not torch.bool:
                found = f"a mask of {kind} for {name!r}"
                raise TypeError(refusal(where, found, "a boolean mask, True where held"))
            try:
                mask = value.mask.to(value.value.device).expand_as(value.value)
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
    """Return of every node in which examples, (batch,), nothing is held in what it predicts.

    One truth where all examples are alike.
    """
    found: dict[str, Tensor | bool] = {}
    for name in reversed(network.names):
        below: Tensor | bool = True
        for child in network.children_of(name):
            below = below & (child not in held and at_rest(found[child], masked.get(child)))
        found[name] = below
    return found


def at_rest(below: Tensor | bool, part: tuple[Tensor, Tensor] | None) -> Tensor | bool:
    """Return in which examples nothing is held below a node nor, by value and mask, in it."""
    return below if part is None else below & ~part[1].flatten(1).any(1)


def everywhere(resting: Tensor | bool) -> bool:
    """Return whether this is so in all examples."""
    return bool(resting.all()) if isinstance(resting, Tensor) else resting


def expected(node: Node, prediction: Tensor, n: int) -> Tensor:
    """Return what a node is expected to be, (n, ...): of a root a copy, not its own mean."""
    mean = for_all(node.energy.mean(prediction), n)
    return mean if node.parents else mean.detach().clone()
