"""Which networks are plain chains of linear layers: what the fast loops work on.

A chain is what most predictive-coding experiments use: an input that is held, which may be
flattened first, linear layers with elementwise functions before or after, squared errors with one
precision a node (or a cross-entropy at the end), an output that is held.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from pcsim.deep.pc_clamp import Problem
from pcsim.deep.pc_energy import CrossEntropy, SquaredError
from pcsim.deep.pc_functions import CODES, kind_of
from pcsim.deep.pc_network import Node, PCNetwork
from pcsim.deep.pc_plain import own_parameters, runs_as
from pcsim.deep.pc_subgraph import Operation, operation_name

__all__ = ["Chain", "Link", "chain_of", "is_supervised"]

CALLS = {"tanh": "tanh", "relu": "relu", "sigmoid": "sigmoid"}
FLATTEN = "flatten"


@dataclass(frozen=True, eq=False)
class Link:
    """How one node of a chain is predicted: after(W before(z) + b)."""

    layer: nn.Linear
    before: str
    after: str


@dataclass(frozen=True, eq=False)
class Chain:
    """A network that is a chain; `links[l]` predicts `names[l + 1]` from `names[l]`."""

    names: tuple[str, ...]
    links: tuple[Link, ...]
    precisions: tuple[float, ...]
    """Of each predicted node; the weight, for cross-entropy."""
    softmax: bool
    """Whether the output has a cross-entropy."""
    flattens: bool = False
    """Whether the examples of the input are made rows before they enter the first layer."""

    def rows(self, x: Tensor) -> Tensor:
        """Return what enters the first layer from the input: (batch, n), if it can be that."""
        return x.flatten(1) if self.flattens and x.ndim > 2 else x

    @property
    def parameters(self) -> tuple[nn.Parameter, ...] | None:
        """Weight and, if it has one, bias of each link; None if one is made of others."""
        found = [own_parameters(link.layer) for link in self.links]
        return None if None in found else tuple(p for own in found for p in own or ())

    @functools.cached_property
    def is_known(self) -> bool:
        """Whether the compiled path has all its functions."""
        return all(kind in CODES for link in self.links for kind in (link.before, link.after))

    @functools.cached_property
    def n_weights(self) -> int:
        """How many weights there are."""
        return sum(link.layer.weight.numel() for link in self.links)

    @functools.cached_property
    def sizes(self) -> tuple[int, ...]:
        """Units of every node, the input first."""
        return (self.links[0].layer.in_features, *(k.layer.out_features for k in self.links))


def chain_of(network: PCNetwork) -> Chain | None:
    """Return the chain that a network is, or None; None where torch chooses types (autocast)."""
    if len(network.inputs) != 1:
        return None
    first = next(network.parameters(), None)
    if first is not None and torch.is_autocast_enabled(first.device.type):
        return None
    names, flattens = [network.inputs[0]], False
    links: list[Link] = []
    precisions: list[float] = []
    last = list(network.nodes)[-1]
    for name, node in network.nodes.items():
        parts = parts_of(node)
        if not links and len(parts) > 1 and parts[0] == FLATTEN:
            parts, flattens = parts[1:], True
        link = link_of(parts)
        precision = scalar_precision(node, final=name == last)
        if node.parents != (names[-1],) or link is None or precision is None:
            return None
        names.append(name)
        links.append(link)
        precisions.append(precision)
    layers = {id(link.layer) for link in links}
    if len(layers) < len(links):
        return None
    softmax = isinstance(network.nodes[last].energy, CrossEntropy)
    if softmax and links[-1].after != "identity":
        return None
    return Chain(tuple(names), tuple(links), tuple(precisions), softmax, flattens)


def scalar_precision(node: Node, *, final: bool) -> float | None:
    """Return the one precision of a node, or None if it has many or learns it."""
    energy = node.energy
    if isinstance(energy, SquaredError):
        learned = isinstance(energy.log_precision, nn.Parameter)
        alone = energy.log_precision.ndim == 0 and not learned
        return (1.0 if energy.plain else float(energy.precision)) if alone else None
    return energy.weight if final and isinstance(energy, CrossEntropy) else None


def link_of(parts: Sequence[nn.Module | str | None]) -> Link | None:
    """Return the layer among the parts of a prediction and the functions around it, or None."""
    before, after, layer = "identity", "identity", None
    for part in parts:
        if isinstance(part, nn.Module) and (part._forward_hooks or part._forward_pre_hooks):
            return None
        if isinstance(part, nn.Linear) and runs_as(part, nn.Linear) and layer is None:
            layer = part
            continue
        kind = part if part is None or isinstance(part, str) else kind_of(part)
        if kind is None or kind == FLATTEN:
            return None
        if layer is None:
            before, kind = (kind, "identity") if before == "identity" else (before, kind)
        elif after == "identity":
            after, kind = kind, "identity"
        if kind != "identity":
            return None
    return None if layer is None else Link(layer, before, after)


def parts_of(node: Node) -> list[nn.Module | str | None]:
    """Return what a prediction runs through, functions by name; None for what no chain has."""
    whole = node.predict
    if isinstance(whole, nn.Sequential) and runs_as(whole, nn.Sequential):
        hooked = whole._forward_hooks or whole._forward_pre_hooks
        return [None] if hooked else [FLATTEN if is_flatten(part) else part for part in whole]
    if isinstance(node.predict, nn.Module):
        return [node.predict]
    operations = getattr(node.predict, "operations", None)
    if operations is None:
        return [None]
    found: list[nn.Module | str | None] = []
    for step in operations:
        alone = len(step.arguments) == 1 and not any(step.keywords.values())
        if step.kind == "call_module" and alone:
            part = node.predict.body.get_submodule(step.target)  # type: ignore[attr-defined]
            found.append(FLATTEN if is_flatten(part) else part)
        elif is_flattening(step):
            found.append(FLATTEN)
        else:
            found.append(CALLS.get(operation_name(step.target)) if alone else None)
    return found


def is_flatten(part: nn.Module) -> bool:
    """Return whether a module makes a row of every example and does nothing else."""
    if not (isinstance(part, nn.Flatten) and runs_as(part, nn.Flatten)):
        return False
    hooked = part._forward_hooks or part._forward_pre_hooks
    return not hooked and (part.start_dim, part.end_dim) == (1, -1)


def is_flattening(step: Operation) -> bool:
    """Return whether an operation is `torch.flatten(x, 1)` or `x.flatten(1)`."""
    called = step.kind in ("call_function", "call_method")
    if not called or operation_name(step.target) != FLATTEN:
        return False
    settings = {
        **dict(zip(("start_dim", "end_dim"), step.arguments[1:], strict=False)),
        **step.keywords,
    }
    return settings in ({"start_dim": 1}, {"start_dim": 1, "end_dim": -1})


def is_supervised(problem: Problem, chain: Chain) -> bool:
    """Return whether the two ends are held and nothing else, and the start has its own order."""
    first, last = chain.names[0], chain.names[-1]
    if set(problem.held) != {first, last} or problem.masked:
        return False
    return chain.rows(problem.held[first]).ndim == 2 and problem.held[last].ndim == 2
