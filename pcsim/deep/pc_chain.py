"""Which networks are plain chains of linear layers, and fused loops for them.

A chain is what most predictive-coding experiments use: an input that is held, which may be
flattened first, linear layers with
elementwise functions before or after, squared errors with one precision a node, an output that is
held. Its steps need no graph: buffers are reused, the prediction from the held input is computed
once, and each slope is two matrix products.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor, nn

from pcsim.deep.pc_clamp import Problem
from pcsim.deep.pc_energy import CrossEntropy, SquaredError
from pcsim.deep.pc_functions import CODES, SMOOTH, apply_to, kind_of, times_slope
from pcsim.deep.pc_network import Node, PCNetwork, States
from pcsim.deep.pc_plain import own_parameters, runs_as
from pcsim.deep.pc_subgraph import Operation

__all__ = ["Chain", "FusedLoop", "Link", "chain_of"]

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
            name = getattr(step.target, "__name__", step.target)
            found.append(CALLS.get(name) if alone and isinstance(name, str) else None)
    return found


def is_flatten(part: nn.Module) -> bool:
    """Return whether a module makes a row of every example and does nothing else."""
    if not (isinstance(part, nn.Flatten) and runs_as(part, nn.Flatten)):
        return False
    hooked = part._forward_hooks or part._forward_pre_hooks
    return not hooked and (part.start_dim, part.end_dim) == (1, -1)


def is_flattening(step: Operation) -> bool:
    """Return whether an operation is `torch.flatten(x, 1)` or `x.flatten(1)`."""
    if getattr(step.target, "__name__", step.target) != FLATTEN or step.kind == "get_attr":
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


@final
class FusedLoop:
    """Buffers for one chain and batch size, and the loops that run in them."""

    def __init__(self, chain: Chain, like: Tensor) -> None:
        self.chain = chain
        self.batch = len(like)
        self.kind = (like.dtype, like.device)
        shapes = [(self.batch, size) for size in chain.sizes]
        self.rates = [like.new_empty(shape) for shape in shapes]
        self.predicted = [like.new_empty(shape) for shape in shapes]
        self.errors = [like.new_empty(shape) for shape in shapes]
        self.pulled = [like.new_empty(shape) for shape in shapes]
        self.spare = [like.new_empty(shape) for shape in shapes]
        self.states = [like.new_empty(shape) for shape in shapes]
        self.sums = [like.new_empty(shape) for shape in shapes]
        """What enters smooth functions behind a layer; not used by others."""
        self.velocity = [like.new_empty(shape) for shape in shapes]
        self.at_rest = False
        """Whether every hidden node is where it is predicted."""
        self.knows_sums = True
        """Whether the first prediction was computed here, and with it the sums that enter it."""
        self.shared = {n: (like.new_empty(self.batch, n), like.new_empty(self.batch, n))
                       for n in set(chain.sizes[1:-1])}  # fmt: skip

    def begin(self, x: Tensor, y: Tensor) -> None:
        """Hold both ends and start the others at the feedforward pass."""
        self.at_rest = True
        self.states[0], self.states[-1] = x, y
        last = len(self.chain.links) - 1
        for level in range(last + 1):
            self.predict(level)
            if level < last:
                self.states[level + 1].copy_(self.predicted[level + 1])

    def start(self, problem: Problem) -> None:
        """Begin where a problem starts, with its memory of the first prediction."""
        self.at_rest = problem.at_rest
        names = self.chain.names
        for level, name in enumerate(names):
            if 0 < level < len(names) - 1:
                self.states[level].copy_(problem.start[name])
            else:
                self.states[level] = problem.start[name]
        self.states[0] = self.chain.rows(self.states[0])
        apply_to(self.chain.links[0].before, self.states[0], self.rates[0])
        self.predicted[1].copy_(problem.constant[names[1]])
        self.knows_sums = False

    def by_name(self, x: Tensor) -> States:
        """Return the states, the input as it was given."""
        return dict(zip(self.chain.names, [x, *self.states[1:]], strict=True))

    def predict(self, level: int) -> None:
        """Refresh the prediction of the node above `level`."""
        link = self.chain.links[level]
        rate = apply_to(link.before, self.states[level], self.rates[level])
        weight, bias = link.layer.weight, link.layer.bias
        out = (self.sums if link.after in SMOOTH else self.predicted)[level + 1]
        if bias is None:
            torch.mm(rate, weight.T, out=out)
        else:
            torch.addmm(bias, rate, weight.T, out=out)
        apply_to(link.after, out, self.predicted[level + 1])

    def through_before(self, level: int, signal: Tensor, out: Tensor) -> Tensor:
        """Return a signal times the slope of the function before the layer of `level`."""
        kind = self.chain.links[level].before
        source = self.states if kind in SMOOTH else self.rates
        return times_slope(kind, signal, source[level], out)

    def through_after(self, level: int, signal: Tensor, out: Tensor) -> Tensor:
        """Return a signal times the slope of the function after the layer of `level`."""
        kind = self.chain.links[level].after
        source = self.sums if kind in SMOOTH else self.predicted
        return times_slope(kind, signal, source[level + 1], out)

    def correct(self, level: int) -> Tensor:
        """Refresh the weighted error of a node and return it."""
        error, precision = self.errors[level], self.chain.precisions[level - 1]
        if self.chain.softmax and level == len(self.chain.links):
            target = self.states[level]
            torch.softmax(self.predicted[level], 1, out=error)
            error.mul_(target.sum(1, keepdim=True)).neg_().add_(target)
        else:
            torch.sub(self.states[level], self.predicted[level], out=error)
        return error if precision == 1.0 else error.mul_(precision)

    def pull(self, level: int, signal: Tensor) -> Tensor:
        """Return what the node above `level` asks of it, from its weighted error."""
        link = self.chain.links[level]
        spare, pulled = self.spare[level + 1], self.pulled[level]
        signal = self.through_after(level, signal, spare)
        torch.mm(signal, link.layer.weight, out=pulled)
        return self.through_before(level, pulled, pulled)

    @torch.no_grad()
    def descend(self, n_steps: int, steps: list[float], momentum: float = 0.0) -> None:
        """Take plain steps in the activities; `steps` has one number for each hidden node.

        One sweep a step: a node moves as soon as its own error and that of the node above are
        known, so that what is read was just written. All errors are of the states before the step.
        From a feedforward start all hidden errors are zero, and news from the output climbs down
        one node a step: below it nothing needs to be computed.
        """
        top = len(self.chain.links)
        plain = self.chain.precisions[0] == 1.0 and not momentum
        for velocity in self.velocity[1:-1] if momentum else []:
            velocity.zero_()
        bare = not self.chain.softmax and all(k.after == "identity" for k in self.chain.links)
        sweep = self.miss if bare and set(self.chain.precisions) == {1.0} else self.pulled_by
        for count in range(n_steps):
            lowest = max(1, top - 1 - count) if self.at_rest else 1
            resting = self.at_rest and count < top - 1
            if not plain and not resting:
                self.correct(1)
            for level in range(lowest, top):
                pulled, state, step = sweep(level), self.states[level], steps[level - 1]
                if momentum:
                    velocity = self.velocity[level].mul_(momentum).add_(pulled, alpha=step)
                    if not (resting and level == lowest):
                        velocity.sub_(self.errors[level], alpha=step)
                    state.add_(velocity)
                    continue
                if resting and level == lowest:
                    pass
                elif level == 1 and plain:
                    state.lerp_(self.predicted[1], step)
                else:
                    state.sub_(self.errors[level], alpha=step)
                state.add_(pulled, alpha=step)
        self.at_rest = False

    def pulled_by(self, level: int) -> Tensor:
        """Refresh the error of the node above `level` and return what it asks of `level`."""
        self.predict(level)
        return self.pull(level, self.correct(level + 1))

    def miss(self, level: int) -> Tensor:
        """Do the same where errors are states minus sums, in fewer passes and buffers."""
        link, size = self.chain.links[level], self.chain.sizes[level]
        rate, pulled = self.shared[size]
        rate = apply_to(link.before, self.states[level], rate)
        weight, bias, error = link.layer.weight, link.layer.bias, self.errors[level + 1]
        if bias is None:
            error.copy_(self.states[level + 1])
        else:
            torch.sub(self.states[level + 1], bias, out=error)
        error.addmm_(rate, weight.T, alpha=-1.0)
        torch.mm(error, weight, out=pulled)
        source = self.states[level] if link.before in SMOOTH else rate
        return times_slope(link.before, pulled, source, pulled)

    @torch.no_grad()
    def optimise_errors(self, n_steps: int, steps: list[float]) -> None:
        """Take plain steps in the errors (ePC), each scaled by its precision."""
        top = len(self.chain.links)
        free = self.free_errors()
        for _ in range(n_steps):
            signal = self.correct(top)
            for level in range(top - 1, 0, -1):
                signal = self.pull(level, signal)
                share = steps[level - 1] / self.chain.precisions[level - 1]
                free[level].mul_(1.0 - steps[level - 1]).add_(signal, alpha=share)
            self.unfold(free)

    def free_errors(self) -> list[Tensor]:
        """Errors of the present states, level by level; ends are not used."""
        found = [self.errors[0]]
        for level in range(1, len(self.chain.links)):
            found.append(self.states[level] - self.predicted[level])
            self.predict(level)
        return [*found, self.errors[-1]]

    def unfold(self, free: list[Tensor]) -> None:
        """Set the states that have these errors."""
        for level in range(1, len(self.chain.links)):
            torch.add(self.predicted[level], free[level], out=self.states[level])
            self.predict(level)

    @torch.no_grad()
    def place(self, states: Sequence[Tensor]) -> None:
        """Put all nodes at these states, and predictions and errors with them."""
        self.at_rest = False
        self.states = list(states)
        self.predict(0)
        self.refresh()

    @torch.no_grad()
    def refresh(self) -> None:
        """Bring predictions and weighted errors up to the present states."""
        for level in range(1, len(self.chain.links)):
            self.predict(level)
        self.correct_all()

    def energy(self, errors: list[Tensor]) -> Tensor:
        """Return the energy of every example, (batch,), from hidden errors and the prediction."""
        top = len(self.chain.links)
        total = self.states[0].new_zeros(self.batch)
        for level in range(1, top + 1):
            precision, target = self.chain.precisions[level - 1], self.states[level]
            if level == top and self.chain.softmax:
                total -= precision * (target * self.predicted[level].log_softmax(1)).sum(1)
                continue
            error = errors[level] if level < top else target - self.predicted[level]
            total += 0.5 * precision * error.square().sum(1)
            if precision != 1.0:
                total -= 0.5 * error.shape[1] * math.log(precision)
        return total

    def correct_all(self) -> None:
        """Bring weighted errors up to the present states and predictions."""
        for level in range(1, len(self.states)):
            self.correct(level)

    def signals(self) -> Iterator[tuple[nn.Linear, Tensor, Tensor]]:
        """Yield each layer, what its sums are told by fresh errors, and its presynaptic rate."""
        if not self.knows_sums and self.chain.links[0].after in SMOOTH:
            self.predict(0)
            self.knows_sums = True
        for level, link in enumerate(self.chain.links):
            delta = self.through_after(level, self.errors[level + 1], self.spare[level + 1])
            rates = self.states if link.before == "identity" else self.rates
            yield link.layer, delta, rates[level]

    @torch.no_grad()
    def gradients(self) -> list[Tensor]:
        """Return minus weighted error times presynaptic rate, averaged, by `chain.parameters`."""
        found, share = [], -1.0 / self.batch
        for layer, delta, rate in self.signals():
            found.append(torch.addmm(layer.weight, delta.T, rate, beta=0, alpha=share))
            if layer.bias is not None:
                found.append(delta.sum(0).mul_(share))
        return found

    @torch.no_grad()
    def learn(self, learning_rate: float) -> None:
        """Move weights that are not frozen by the same times a rate, where they lie."""
        scale = learning_rate / self.batch
        for layer, delta, rate in self.signals():
            if layer.weight.requires_grad:
                layer.weight.addmm_(delta.T, rate, alpha=scale)
            if layer.bias is not None and layer.bias.requires_grad:
                layer.bias.add_(delta.sum(0), alpha=scale)
