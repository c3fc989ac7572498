"""A circuit wired up on arrays: what flows where in a given state, and how fast the state moves.

All trials, and all replicas of a circuit, advance together: the state is one array
(..., trial, state) with a leading axis `replica` where there are several, and every population sees
its own slice of it. A projection is one matrix product a step for the whole batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import array_api_compat
import numpy as np

from pcsim.declaration import STIMULUS, Population, Projection, direct_order, port_of
from pcsim.kinds.kind import Array, Arrays, Kind
from pcsim.machine_tiles import Tile, tiles_of
from pcsim.weights import is_operator
from pcsim.weights_apply import Operator, operator

__all__ = ["Machine", "Node", "Views", "Wire"]

Signal = tuple[str, str, str | None]
"""What travels along a projection: (source, what it reads, gate)."""
Views = dict[str, dict[str, Array]]
"""Population -> state -> its slice of a state array."""


@dataclass
class Wire:
    """One projection ready to run; `weights` are transposed and carry the sign."""

    projection: Projection
    n_steps: int
    weights: Array
    signal: Signal
    operator: Operator | None = None
    """What multiplies, if the weights are no matrix."""
    buffer: Array = None
    before: Array = None
    """What entered the projection last, before its weights."""
    frame: int | None = None
    """Number of the stimulus frame that `product` belongs to."""
    product: Array = None


@dataclass
class Node:
    """One population: its part of the state, and what flowed in and out of it last."""

    population: Population
    slices: dict[str, slice]
    wires: dict[str, list[Wire]]
    inputs: dict[str, Array]
    output: Array = None
    slope: Array = None
    tiles: Sequence[Tile] = ()
    sums: dict[str, Array] = field(default_factory=dict)
    """Port -> where what several projections send is added up (NumPy)."""


@dataclass
class _Ring:
    """The last signals of one source, for projections with a delay."""

    values: Array
    size: int

    def write(self, step: int, signal: Array) -> None:
        self.values[step % self.size, ...] = signal

    def read(self, step: int) -> Array:
        return self.values[step % self.size, ...]


class Machine:
    """One batch of a circuit. It is built for one run and holds that run's signals on their way.

    Parameters
    ----------
    populations, projections
        Checked; their arrays belong to `xp` and may have a leading replica axis.
    frames : (..., trial, frame, feature)
        The prepared stimulus.
    frame_of : (n_step,)
        Number of the frame that is shown during each step; -1 before the first.
    dt
        Seconds; the delays are rounded to it.
    """

    def __init__(
        self,
        populations: Sequence[Population],
        projections: Sequence[Projection],
        frames: Array,
        frame_of: Sequence[int],
        *,
        dt: float,
    ) -> None:
        self.xp, self.dt = array_api_compat.array_namespace(frames), dt
        self.frames, self.frame_of = frames, frame_of
        self._is_numpy = array_api_compat.is_numpy_array(frames)
        self.batch = tuple(frames.shape[:-2])
        self.blank = self.xp.zeros_like(frames[..., 0, :])
        self.nodes = self._make_nodes(populations, projections)
        order = direct_order("machine", populations, projections, dt=dt)
        self._direct = [self.nodes[name] for name in order]
        self._indirect = [node for node in self.nodes.values() if not node.population.kind.direct]
        self._sloped = {p.gate for p in projections if p.gate}
        self._sloped |= {p.target for p in projections if p.plastic and p.plastic.error}
        self._sloped = {name for name in self._sloped if self._kind(name).has_slope}
        self._rings = self._make_rings()
        self.n_states = sum(len(p.kind.states) * p.size for p in populations)
        self._now: Views = {}

    def zeros(self, *shape: int) -> Array:
        """Return zeros of shape (..., trial, *shape) where the stimulus lies."""
        device = array_api_compat.device(self.frames)
        return self.xp.zeros((*self.batch, *shape), dtype=self.frames.dtype, device=device)

    def _kind(self, name: str) -> Any:
        return self.nodes[name].population.kind

    def _make_nodes(
        self, populations: Sequence[Population], projections: Sequence[Projection]
    ) -> dict[str, Node]:
        nodes, start = {}, 0
        for population in populations:
            slices = {}
            for state in population.kind.states:
                slices[state] = slice(start, start + population.size)
                start += population.size
            wires: dict[str, list[Wire]] = {port: [] for port in population.kind.ports}
            for projection in projections:
                if projection.target == population.name:
                    port = port_of(projection, population.kind)
                    wires[port].append(self._make_wire(projection, population.size))
            # Ports that nothing enters stay at this zero, which takes no room.
            shape = (*self.batch, population.size)
            inputs = {
                port: self.xp.broadcast_to(self.blank[..., :1], shape)
                for port, into in wires.items()
                if not into
            }
            node = nodes[population.name] = Node(population, slices, wires, inputs)
            if self._is_numpy:
                node.tiles = tiles_of(population.kind, self.batch, population.size)
        return nodes

    def _make_wire(self, projection: Projection, size: int) -> Wire:
        weights, sign = projection.weights, projection.sign
        buffer, multiply = None, None
        if is_operator(weights):
            weights, multiply = None, operator(weights, sign, self.zeros(size))
        elif weights is not None:
            weights = sign * self.xp.matrix_transpose(weights)
            if self._is_numpy:
                weights, buffer = np.ascontiguousarray(weights), self.zeros(size)
        signal = (projection.source, projection.reads, projection.gate)
        n_steps = round(projection.delay / self.dt)
        return Wire(projection, n_steps, weights, signal, multiply, buffer)

    def _make_rings(self) -> dict[Signal, _Ring]:
        longest: dict[Signal, int] = {}
        for wire in self.wires():
            if wire.n_steps and wire.projection.source != STIMULUS:
                longest[wire.signal] = max(longest.get(wire.signal, 0), wire.n_steps)
        rings = {}
        for signal, n_steps in longest.items():
            zeros = self.zeros(self.nodes[signal[0]].population.size)
            rings[signal] = _Ring(self.xp.stack([zeros] * n_steps), n_steps)
        return rings

    def wires(self) -> list[Wire]:
        """Return all projections, target by target."""
        return [w for node in self.nodes.values() for into in node.wires.values() for w in into]

    def view(self, state: Array) -> Views:
        """Return the slice of every state of every population in a state array."""
        return {
            name: {which: state[..., part] for which, part in node.slices.items()}
            for name, node in self.nodes.items()
        }

    def evaluate(self, views: Views, step: int, shown: int) -> None:
        """Compute what flows everywhere at the beginning of `step`, with the frame of step `shown`.

        The two differ where a rate is recorded at the end of a frame.
        """
        self._now = views
        for node in self._indirect:
            self._emit(node, views)
        for node in self._direct:
            self._collect(node, step, shown)
            self._emit(node, views)
        for node in self._indirect:
            self._collect(node, step, shown)

    def _emit(self, node: Node, views: Views) -> None:
        name, kind = node.population.name, node.population.kind
        node.output = kind.output(views[name], node.inputs, self.xp)
        if name in self._sloped:
            node.slope = kind.slope(views[name], node.inputs, self.xp)

    def _collect(self, node: Node, step: int, shown: int) -> None:
        for port, wires in node.wires.items():
            if wires:
                total = self._arrive(wires[0], step, shown)
                for wire in wires[1:]:
                    more = self._arrive(wire, step, shown)
                    total = self._add(node.sums.get(port), total, more)
                    if self._is_numpy:
                        node.sums[port] = total
                node.inputs[port] = total

    def _add(self, buffer: Array, one: Array, other: Array) -> Array:
        return one + other if buffer is None else np.add(one, other, out=buffer)

    def _arrive(self, wire: Wire, step: int, shown: int) -> Array:
        if wire.projection.source == STIMULUS:
            return self._arrive_stimulus(wire, shown - wire.n_steps)
        if not wire.n_steps:
            return self._weigh(wire, self.signal(wire.signal))
        return self._weigh(wire, self._rings[wire.signal].read(step - wire.n_steps))

    def _arrive_stimulus(self, wire: Wire, shown: int) -> Array:
        number = self.frame_of[shown] if shown >= 0 else -1
        if wire.frame != number or wire.projection.plastic is not None:
            frame = self.frames[..., number, :] if number >= 0 else self.blank
            wire.frame, wire.product = number, self._weigh(wire, frame)
        return wire.product

    def signal(self, signal: Signal) -> Array:
        """Return what the source sends now, after its gate."""
        source, reads, gate = signal
        node = self.nodes[source]
        values = node.output if reads == "output" else self.rate(source, self._now)
        return values if gate is None else values * self.nodes[gate].slope

    def rate(self, name: str, views: Views) -> Array:
        """Return the activity of a population; of one that is direct, as last evaluated."""
        node = self.nodes[name]
        return node.population.kind.rate(views[name], node.inputs, self.xp)

    def drift(self, into: Views, factors: Views | float = 1.0) -> None:
        """Write the rate of change of the state last evaluated, times a factor for every state."""
        for name, node in self.nodes.items():
            if not node.slices:
                continue
            kind, now, own = node.population.kind, self._now[name], into[name]
            factor = factors[name] if isinstance(factors, dict) else dict.fromkeys(own, factors)
            if not node.tiles:
                self._drift_of(kind, now, node.inputs, own, factor)
            for tile in node.tiles:
                some, inputs, into_some = (tile.part(a) for a in (now, node.inputs, own))
                self._drift_of(tile.kind, some, inputs, into_some, tile.part_of_factors(factor))

    def _drift_of(
        self, kind: Kind, state: Arrays, inputs: Arrays, into: Arrays, factor: Any
    ) -> None:
        for name, values in kind.drift(state, inputs, self.xp).items():
            if self._is_numpy:
                np.multiply(values, factor[name], out=into[name])
            else:
                into[name][...] = values * factor[name]

    def decay(self, name: str) -> dict[str, Array]:
        """Return the rates at which the states of a population are known to decay, per second."""
        node = self.nodes[name]
        return node.population.kind.decay(node.inputs, self.xp)

    def remember(self, step: int) -> None:
        """Keep the signals that arrive later."""
        for signal, ring in self._rings.items():
            ring.write(step, self.signal(signal))

    def learn(self) -> None:
        """Move the plastic weights by one time step of their local rules."""
        for wire in self.wires():
            rule = wire.projection.plastic
            if rule is None:
                continue
            target = self.nodes[wire.projection.target]
            error = target.output if rule.error is None else self.nodes[rule.error].output
            if rule.error is not None and target.slope is not None:
                error = error * target.slope
            outer = self.xp.matmul(self.xp.matrix_transpose(wire.before), error) / error.shape[-2]
            gain = self.dt * rule.rate * wire.projection.sign
            wire.weights = wire.weights + gain * outer - self.dt * rule.decay * wire.weights

    def _weigh(self, wire: Wire, values: Array) -> Array:
        weights, sign = wire.weights, wire.projection.sign
        wire.before = values
        if wire.operator is not None:
            return wire.operator(values)
        if weights is None:
            return values if isinstance(sign, float | int) and sign == 1 else sign * values
        if wire.buffer is not None:
            return _matmul_into(values, weights, wire.buffer)
        return self.xp.matmul(values, weights)


def _matmul_into(values: Array, weights: Array, buffer: Array) -> Array:
    """Multiply without a new array; weights shared by all replicas make one product, not many."""
    if weights.ndim == 2 and values.ndim == 3:
        n_in, n_out = weights.shape
        flat = buffer.reshape(-1, n_out)
        return np.matmul(values.reshape(-1, n_in), weights, out=flat).reshape(buffer.shape)
    return np.matmul(values, weights, out=buffer)
