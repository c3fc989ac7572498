"""What every parameter of a predictive-coding network should learn at given activities.

Three ways to one answer: automatic differentiation, local rules layer by layer, and the same local
rules in the buffers of a chain.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping
from types import MappingProxyType
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge, get_gradient_edge
from torch.nn import functional
from torch.nn.grad import conv1d_weight, conv2d_weight, conv3d_weight

from pcsim.deep.grad_mode import recording
from pcsim.deep.pc_chain import chain_of
from pcsim.deep.pc_clamp import seeing
from pcsim.deep.pc_energy import whole
from pcsim.deep.pc_fused import FusedLoop
from pcsim.deep.pc_network import Node, PCNetwork, States
from pcsim.deep.pc_plain import own_parameters, runs_as

__all__ = [
    "Gradients",
    "chain_gradients",
    "energy_gradients",
    "has_rule",
    "layers_of",
    "local_gradients",
    "loop_gradients",
    "precision_of",
    "trainable",
]

Gradients = dict[str, Tensor]
Call = tuple[nn.Module, Tensor, GradientEdge]
"""A layer, what entered it, and where its output is in the graph."""


@recording()
def energy_gradients(
    network: PCNetwork,
    states: Mapping[str, Tensor],
    *,
    idle: Collection[str] = (),
    unseen: Mapping[str, Tensor] = MappingProxyType({}),
) -> Gradients:
    """Return the derivative of the energy, averaged over the batch, by every parameter.

    Parameters
    ----------
    states
        Every node, as `infer` returns them; they are taken as given.
    idle
        Nodes below which nothing was held (`Settled.idle`). They tell their parameters nothing,
        their precision, whose errors of 0 are no observation, as little as their weights.
    unseen
        Node -> where its units are such (`Settled.unseen`).

    Returns
    -------
    gradients
        Name of a parameter, as in `named_parameters` -> its derivative.
    """
    parameters = trainable(network)
    held = {name: state.detach() for name, state in states.items()}
    if not parameters:
        return {}
    energy = seeing(network, unseen).energy(held, idle=idle).mean()
    if not energy.requires_grad:
        return {name: torch.zeros_like(parameter) for name, parameter in parameters.items()}
    found = torch.autograd.grad(energy, list(parameters.values()), allow_unused=True)
    return {
        name: torch.zeros_like(parameter) if gradient is None else gradient
        for (name, parameter), gradient in zip(parameters.items(), found, strict=True)
    }


@recording()
def local_gradients(
    network: PCNetwork,
    states: Mapping[str, Tensor],
    *,
    factors: Mapping[str, Tensor | float] | None = None,
    idle: Collection[str] = (),
    unseen: Mapping[str, Tensor] = MappingProxyType({}),
) -> Gradients:
    r"""Return the same derivatives by local rules: weighted error times presynaptic rate.

    .. math:: \frac{\partial F}{\partial W} = -\left\langle \delta\, r^\top \right\rangle, \qquad
        \delta = \left(\frac{\partial p}{\partial a}\right)^{\!\top} \xi

    Here :math:`r` is what enters a layer, :math:`a` what leaves it and :math:`\xi` the weighted
    error of the node that it predicts: nothing from another node enters. Layers other than plain
    linear ones and convolutions (see `has_rule`) get the derivative of their own node's prediction,
    and a learned precision :math:`\tfrac12\langle\Pi\varepsilon^2 - 1\rangle` by its logarithm.

    Parameters
    ----------
    states
        As in `energy_gradients`.
    factors
        Node -> what its :math:`\xi` is multiplied by, where not by 1. One over its precision
        leaves the bare error: what meets an error and not what lowers the energy.
    idle, unseen
        As in `energy_gradients`.
    """
    names = {id(parameter): name for name, parameter in trainable(network).items()}
    found: Gradients = {
        name: torch.zeros_like(parameter) for name, parameter in trainable(network).items()
    }
    held = {name: state.detach() for name, state in states.items()}
    factors = factors or {}
    for name, node in seeing(network, unseen).nodes.items():
        if name in idle:
            continue
        for parameter, gradient in node_rules(network, node, held, factors.get(name, 1.0)):
            if id(parameter) in names:
                found[names[id(parameter)]] += gradient
        log_precision = getattr(whole(node.energy), "log_precision", None)
        if log_precision is not None and id(log_precision) in names:
            error = held[name] - network.predict(name, held).detach()
            terms = 0.5 * (log_precision.detach().exp() * error.square() - 1) / len(error)
            if name in unseen:
                terms = terms.masked_fill(unseen[name], 0.0)
            found[names[id(log_precision)]] += terms.sum_to_size(log_precision.shape)
    return found


def node_rules(
    network: PCNetwork, node: Node, states: States, factor: Tensor | float
) -> Iterable[tuple[Tensor, Tensor]]:
    """Yield the parameters of one node's prediction and their derivatives."""
    heard: list[Call] = []

    def listen(
        layer: nn.Module, inputs: tuple[Tensor, ...], keywords: dict[str, Tensor], output: Tensor
    ) -> Tensor:
        # What follows may write over the output (inplace=True): its place in the graph is kept, not
        # the tensor, and a view, whose place would change with it, goes on as a copy.
        if output.requires_grad:
            entered = inputs[0] if inputs else keywords["input"]
            heard.append((layer, entered.detach(), get_gradient_edge(output)))
        return output.clone() if output._is_view() else output

    layers = dict.fromkeys(layer for layer in layers_of(network, node) if has_rule(layer))
    hooks = [
        layer.register_forward_hook(listen, prepend=True, with_kwargs=True) for layer in layers
    ]
    try:
        with torch.enable_grad():
            prediction = network.predict(node.name, states)
    finally:
        for hook in hooks:
            hook.remove()
    if not prediction.requires_grad:
        return
    n = len(states[node.name])
    error = factor * node.energy.weighted_error(states[node.name], prediction.detach()) / n
    slope = -error.sum_to_size(prediction.shape)
    heard = whole_uses(heard, prediction)
    ruled = {id(p) for layer, _, _ in heard for p in own_parameters(layer) or ()}
    others = [p for p in parameters_of(network, node) if p.requires_grad and id(p) not in ruled]
    wanted: list[Any] = [*(edge for _, _, edge in heard), *others]
    pulled = torch.autograd.grad(prediction, wanted, slope, allow_unused=True)
    for parameter, gradient in zip(others, pulled[len(heard) :], strict=True):
        if gradient is not None:
            yield parameter, gradient
    for (layer, rate, _), delta in zip(heard, pulled[: len(heard)], strict=True):
        if delta is not None:
            yield from layer_rule(layer, rate, -delta)


def whole_uses(heard: list[Call], prediction: Tensor) -> list[Call]:
    """Return the calls of layers whose parameters a prediction uses in such calls only.

    Others, whose weight `forward` also takes by itself, have more to learn than their rule says.
    """
    expected = Counter(id(p) for layer, _, _ in heard for p in own_parameters(layer) or ())
    found = uses(prediction)
    return [
        call for call in heard
        if all(found[id(p)] <= expected[id(p)] for p in own_parameters(call[0]) or ())
    ]  # fmt: skip


def uses(value: Tensor) -> Counter[int]:
    """Return how often each parameter (by `id`) enters the graph of a value."""
    found: Counter[int] = Counter()
    known, waiting = {value.grad_fn}, [value.grad_fn]
    while waiting:
        for source, _ in getattr(waiting.pop(), "next_functions", ()):
            if hasattr(source, "variable"):
                found[id(source.variable)] += 1
            elif source is not None and source not in known:
                known.add(source)
                waiting.append(source)
    return found


def precision_of(node: Node) -> Tensor | float:
    """Return what the errors of a node are multiplied by; for cross-entropies, their weight."""
    precision = node.energy.precision
    return precision.detach() if isinstance(precision, Tensor) else precision


def has_rule(layer: nn.Module) -> bool:
    """Return whether the layer's rule is written out below.

    Linear layers and convolutions padded with zeros, with weights of their own (not weight_norm)
    and no forward pass of their own.
    """
    plain = any(runs_as(layer, kind) for kind in (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d))
    zeros = getattr(layer, "padding_mode", "zeros") == "zeros"
    return plain and zeros and own_parameters(layer) is not None


def layer_rule(layer: nn.Module, rate: Tensor, delta: Tensor) -> Iterable[tuple[Tensor, Tensor]]:
    """Yield weight and bias with minus (postsynaptic signal times presynaptic rate)."""
    if isinstance(layer, nn.Linear):
        yield layer.weight, -delta.flatten(0, -2).T @ rate.flatten(0, -2)
        if layer.bias is not None:
            yield layer.bias, -delta.flatten(0, -2).sum(0)
        return
    convolution = cast(nn.Conv2d, layer)
    by_rank: dict[int, Callable[..., Tensor]] = {
        3: conv1d_weight,
        4: conv2d_weight,
        5: conv3d_weight,
    }
    weight = convolution.weight
    yield (
        weight,
        -by_rank[weight.ndim](
            padded(convolution, rate),
            tuple(weight.shape),
            delta,
            stride=convolution.stride,
            dilation=convolution.dilation,
            groups=convolution.groups,
        ),
    )
    if convolution.bias is not None:
        yield convolution.bias, -delta.transpose(0, 1).flatten(1).sum(1)


def entering(layer: nn.Module, rate: Tensor, n: int) -> Tensor:
    """Return the squared norms of all that meets the weights, means over n examples, (groups,).

    A layer that is used at many positions (a convolution, a linear layer along a sequence) meets
    an input at each: of a convolution the patches, which overlap. A bias meets 1 at each. This is
    the trace, and so at least the largest eigenvalue, of how half the squared sums of the layer
    bend by its parameters. Groups of channels do not meet; linear layers have one group.
    """
    n, bias = min(n, len(rate)), getattr(layer, "bias", None) is not None
    if isinstance(layer, nn.Linear):
        positions = rate.numel() / rate.shape[-1] / n
        return (rate.square().sum() / n + bias * positions).reshape(1)
    convolution = cast(nn.Conv2d, layer)
    convolve = {3: functional.conv1d, 4: functional.conv2d, 5: functional.conv3d}[rate.ndim]
    groups, width = convolution.groups, convolution.in_channels // convolution.groups
    met = convolve(
        padded(convolution, rate.square()),
        rate.new_ones(groups, width, *convolution.kernel_size),
        stride=convolution.stride,
        dilation=convolution.dilation,
        groups=groups,
    ).transpose(0, 1)
    return met.flatten(1).sum(1) / n + bias * met[0].numel() / n


def padded(convolution: nn.Conv2d, rate: Tensor) -> Tensor:
    """Return what enters a convolution with its zeros around it."""
    sides: list[int] = []
    pairs = zip(convolution.dilation, convolution.kernel_size, strict=True)
    for axis, (dilation, size) in enumerate(pairs):
        if convolution.padding == "same":
            both = dilation * (size - 1)  # an even kernel has one zero more at the end
            here = [both // 2, both - both // 2]
        else:
            here = [0 if convolution.padding == "valid" else int(convolution.padding[axis])] * 2
        sides = here + sides  # torch counts axes from the last
    return functional.pad(rate, sides)


def layers_of(network: PCNetwork, node: Node) -> list[nn.Module]:
    """Return the layers without parts that a node's prediction runs through."""
    if isinstance(node.predict, nn.Module):
        return [m for m in node.predict.modules() if not any(True for _ in m.children())]
    listed: Callable[[], list[nn.Module]] | None = getattr(node.predict, "layers", None)
    parts = listed() if listed is not None else []
    return [m for part in parts for m in part.modules() if not any(True for _ in m.children())]


def parameters_of(network: PCNetwork, node: Node) -> list[Tensor]:
    """Return the parameters that a node's prediction may depend on."""
    if isinstance(node.predict, nn.Module):
        return list(node.predict.parameters())
    return [] if network.body is None else list(network.body.parameters())


def trainable(network: PCNetwork) -> dict[str, Tensor]:
    """Return the parameters that ask for gradients, by name."""
    return {name: p for name, p in network.named_parameters() if p.requires_grad}


def chain_gradients(network: PCNetwork, states: Mapping[str, Tensor]) -> Gradients | None:
    """Return the local rules of a chain without building a graph, or None if it is no chain."""
    chain = chain_of(network)
    if chain is None:
        return None
    x, *others = (states[name].detach() for name in chain.names)
    whole = [chain.rows(x), *others]
    if any(state.ndim != 2 for state in whole):
        return None
    loop = FusedLoop(chain, whole[0])
    loop.place(whole)
    return loop_gradients(network, loop)


def loop_gradients(network: PCNetwork, loop: FusedLoop) -> Gradients | None:
    """Return the gradients at fresh errors of a loop; None if weights are made of parameters."""
    names = {id(parameter): name for name, parameter in network.named_parameters()}
    parameters = loop.chain.parameters
    if parameters is None or any(id(parameter) not in names for parameter in parameters):
        return None
    wanted = trainable(network)
    found: Gradients = {}
    for parameter, gradient in zip(parameters, loop.gradients(), strict=True):
        name = names[id(parameter)]
        if name in wanted:
            found[name] = found[name] + gradient if name in found else gradient
    return {k: found[k] if k in found else torch.zeros_like(p) for k, p in wanted.items()}
