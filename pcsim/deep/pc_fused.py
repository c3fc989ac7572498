"""Inference on a chain whose two ends are held, in place: the fused loop.

Its steps need no graph: buffers are reused, the prediction from the held input is computed once,
and each slope is two matrix products.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import final

import torch
from torch import Tensor, nn

from pcsim.deep.pc_chain import Chain
from pcsim.deep.pc_clamp import Problem
from pcsim.deep.pc_functions import SMOOTH, apply_to, times_slope
from pcsim.deep.pc_network import States

__all__ = ["FusedLoop"]


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
