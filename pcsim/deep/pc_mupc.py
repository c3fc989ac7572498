"""Depth parameterisation (muPC) of any network: scales by a layer's place in the graph."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, final

import torch
from torch import Tensor, fx, nn
from torch.nn.utils import parametrize

from pcsim.deep.pc_network import PCNetwork
from pcsim.deep.pc_subgraph import operation_name
from pcsim.deep.pc_trace import WEIGHTED, is_sum, reached, trace
from pcsim.messages import check_integer, refusal

__all__ = ["mupc"]


def mupc(
    module: nn.Module, *, depth: int | None = None, generator: torch.Generator | None = None
) -> nn.Module:
    r"""Draw the weights of a module anew and scale them by their place, in place (muPC).

    Every weight is drawn from N(0, 1), every bias is 0, and of a layer whose units have N inputs
    each (of a convolution: channels times positions of the kernel) what is used is

    .. math:: a W x + c b, \qquad a = \begin{cases}
        (NL)^{-1/2} & \text{with which a branch ends beside a residual link, one of L} \\
        N^{-1} & \text{behind which no other layer has weights} \\
        N^{-1/2} & \text{else} \end{cases}

    with :math:`c = L^{-1/2}` where a branch ends, and 1 elsewhere. So activities keep their size
    however wide and deep the module is, up to what its activation functions take away.

    The source has branches of one layer, and for them this is what `residual_network` does (there L
    counts all matrices: `depth`). Beyond it: of a branch of several layers the last one alone
    answers for the size of the sum (Yang et al.); the stream is the way into a sum with the fewest
    layers, so a projection beside a branch is scaled like any layer. Links within a branch are not
    looked at.

    One step of Adam at rate r changes a weight by about r, and so what L layers add together by up
    to :math:`r\sqrt{NL}`. The source reports one rate for all sizes; by this count a rate that is
    best at one size falls as :math:`(NL)^{-1/2}`.

    Parameters
    ----------
    module
        One that `predictive_coding` can trace. Linear and convolutional layers are scaled; other
        parameters (of normalization, of layers that are not called as modules) stay.
    depth
        L, where it is not the number of branches.
    generator
        Draws the weights; torch's own seed is left alone. A generator of seed 0 if not given.

    Returns
    -------
    nn.Module
        The module. What learns is ``(name).parametrizations.weight.original``.

    Raises
    ------
    ValueError, TypeError
        If it cannot be traced, has no layer with weights, or one is parameterised already.

    References
    ----------
    Innocenti, Achour, Buckley (2025), https://arxiv.org/abs/2505.13124; Yang, Yu, Zhu, Hayou
    (2023), https://arxiv.org/abs/2310.02244

    Examples
    --------
    >>> from pcsim.deep.pc_depth import Residual
    >>> links = [Residual(nn.Sequential(nn.ReLU(), nn.Linear(8, 8))) for _ in range(100)]
    >>> body = mupc(nn.Sequential(nn.Linear(4, 8), *links, nn.Linear(8, 2)))
    >>> body(torch.ones(3, 4)).shape
    torch.Size([3, 2])
    """
    where = "mupc"
    if isinstance(module, PCNetwork):
        found, advice = "a PCNetwork", "Scale the module, then take predictive_coding(module)."
        raise TypeError(refusal(where, found, "the module it is made of", advice))
    if depth is not None:
        check_integer(where, "depth", depth, low=1)
    places = places_of(module, trace(where, module))
    if not places.layers:
        found = f"a {type(module).__name__} that calls no linear or convolutional layer"
        raise ValueError(refusal(where, found, "layers to scale"))
    for name, layer in places.layers.items():
        if parametrize.is_parametrized(layer):
            found, advice = f"layer {name!r}, parameterised already", "Scale a module once."
            raise ValueError(refusal(where, found, "plain layers", advice))
    draw = generator or torch.Generator().manual_seed(0)
    n_branches = depth or max(places.n_branches, 1)
    for layer in dict.fromkeys(places.layers.values()):
        added = layer in places.added
        last = layer in places.last and not added
        scale(layer, draw, last=last, share=n_branches if added else 1)
    return module


@final
class Times(nn.Module):
    """A parameterisation: what is used is what is stored, times a constant."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, stored: Tensor) -> Tensor:
        """Return what is used."""
        return self.factor * stored


def scale(layer: nn.Module, draw: torch.Generator, *, last: bool, share: int) -> None:
    """Draw the weights of a layer, and say what is used of them."""
    known: Any = layer
    weight, bias = known.weight, known.bias
    fan_in = math.prod(weight.shape[1:])
    if getattr(layer, "transposed", False):
        reaching = math.prod(weight.shape[2:]) / math.prod(known.stride)
        fan_in = weight.shape[0] // known.groups * reaching
    with torch.no_grad():
        weight.copy_(torch.randn(weight.shape, generator=draw, device=draw.device))
        if bias is not None:
            bias.zero_()
    factor = 1 / fan_in if last else (fan_in * share) ** -0.5
    parametrize.register_parametrization(layer, "weight", Times(factor))
    if bias is not None and share > 1:
        parametrize.register_parametrization(layer, "bias", Times(share**-0.5))


@dataclass
class Places:
    """Where layers with weights stand in the graph of a module."""

    layers: dict[str, nn.Module] = field(default_factory=dict)
    """By name, in the order of calls."""
    last: set[nn.Module] = field(default_factory=set)
    """Behind which no other has weights."""
    added: set[nn.Module] = field(default_factory=set)
    """With which a branch ends."""
    n_branches: int = 0


def places_of(module: nn.Module, graph: fx.Graph) -> Places:
    """Return where the layers stand."""
    found = Places()
    layer_of: dict[fx.Node, nn.Module] = {}
    data = reached(graph)
    for value in graph.nodes:
        if value.op == "call_module" and value in data:
            layer = module.get_submodule(value.target)
            if isinstance(layer, WEIGHTED):
                layer_of[value] = found.layers[value.target] = layer
    found.last = {layer_of[value] for value in hindmost(list(graph.nodes), layer_of)}
    stream: set[nn.Module] = set()
    for total, between in segments(graph, data):
        if not joins(total):
            continue
        lengths = n_layers(between, layer_of)
        ways = sorted(summands(total, between), key=lambda way: lengths.get(way, 0))
        stream |= {layer_of[one] for one in upstream(ways[0], between) if one in layer_of}
        for way in ways[1:]:
            ends = hindmost(upstream(way, between), layer_of)
            found.added |= {layer_of[one] for one in ends}
            found.n_branches += bool(ends)
    found.added -= stream
    return found


def segments(graph: fx.Graph, data: set[fx.Node]) -> Iterator[tuple[fx.Node, dict[fx.Node, None]]]:
    """Yield each value that every way through the graph passes, and those since the one before.

    In the order of the graph such a value is spanned by no use, from before it to behind it.
    """
    live: dict[fx.Node, None] = {}
    for value in reversed(graph.nodes):
        if value.op == "output" or (value in data and any(user in live for user in value.users)):
            live[value] = None
    place: dict[fx.Node, int] = {}
    for value in reversed(live):
        inputs = [one for one in value.all_input_nodes if one.op == "placeholder"]
        if value.op != "placeholder":  # an input begins where it is first used
            for one in [*inputs, value]:
                place.setdefault(one, len(place))
    reach, between = 0, dict[fx.Node, None]()
    for value, number in place.items():
        if reach <= number:
            yield value, between
            between = {}
        else:
            between[value] = None
        reach = max([reach, *(place[user] for user in value.users if user in live)])


def joins(value: fx.Node) -> bool:
    """Return whether a value is a sum or a difference of two others: their variances add."""
    minus = operation_name(value.target) in ("sub", "isub", "sub_")
    return is_sum(value) or (minus and len(value.all_input_nodes) > 1)


def summands(total: fx.Node, between: Collection[fx.Node]) -> list[fx.Node]:
    """Return what a sum is the sum of, through sums within it."""
    found: dict[fx.Node, None] = {}
    waiting = list(reversed(total.all_input_nodes))
    while waiting:
        one = waiting.pop()
        if one in between and joins(one):
            waiting += reversed(one.all_input_nodes)
        else:
            found[one] = None
    return list(found)


def upstream(value: fx.Node, between: Collection[fx.Node]) -> list[fx.Node]:
    """Return a value and what it is computed from, as far as `between` goes, in its order."""
    needed = {value}
    for one in reversed([one for one in between if one is not value]):
        if any(user in needed for user in one.users):
            needed.add(one)
    return [one for one in between if one in needed]


def n_layers(between: Collection[fx.Node], layers: Collection[fx.Node]) -> dict[fx.Node, int]:
    """Return, for each value, the layers on the longest way to it."""
    found: dict[fx.Node, int] = {}
    for one in between:
        before = max((found.get(source, 0) for source in one.all_input_nodes), default=0)
        found[one] = before + (one in layers)
    return found


def hindmost(values: Sequence[fx.Node], layers: Collection[fx.Node]) -> list[fx.Node]:
    """Return the layers behind which, among these values, there is no other."""
    behind: dict[fx.Node, bool] = {}
    for value in reversed(values):
        users = [user for user in value.users if user in behind]
        behind[value] = any(behind[user] or user in layers for user in users)
    return [value for value in values if value in layers and not behind[value]]
