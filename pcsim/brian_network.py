"""Populations and projections translated to Brian 2 groups and synapses."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import scipy.sparse
from numpy.typing import NDArray

from pcsim.declaration import STIMULUS, Population, Projection, direct_order, port_of
from pcsim.messages import refusal
from pcsim.weights import Local

__all__ = ["BrianNetwork"]

_LAST = 10_000
"""Order of what comes after all populations that follow their inputs at once."""


class BrianNetwork:
    """One circuit as a Brian 2 network for a number of trials.

    Parameters
    ----------
    brian2
        The package, with its preferences set.
    populations, projections
        Checked.
    features : (trial, frame, feature)
        The prepared stimulus.
    dt
        Time step, seconds.
    """

    def __init__(
        self,
        brian2: Any,
        populations: Sequence[Population],
        projections: Sequence[Projection],
        features: NDArray[np.float64],
        *,
        dt: float,
    ) -> None:
        self.brian2, self.dt, self.features = brian2, dt, features
        self.n_trials = features.shape[0]
        self._n_named = 0
        self.clock = brian2.Clock(dt=dt * brian2.second, name=self._name("clock"))
        self.network = brian2.Network()
        self._by_name = {population.name: population for population in populations}
        self._order = direct_order("run_brian", populations, projections, dt=dt)
        self._signals: dict[tuple[str, str, str | None], str] = {}
        for projection in projections:
            key = (projection.source, projection.reads, projection.gate)
            self._signals.setdefault(key, f"signal_{len(self._signals)}")
        self.groups = {p.name: self._group(p, projections) for p in populations}
        self._link_gates()
        self._sources: dict[tuple[str, int], Any] = {}
        self._taps: list[tuple[Any, Any, NDArray[np.float64]]] = []
        self._sums: list[tuple[int, Any]] = []
        for population in populations:
            self._connect_inside(population)
        counts: dict[tuple[str, str], int] = {}
        for projection in projections:
            port = port_of(projection, self._by_name[projection.target].kind)
            number = counts.setdefault((projection.target, port), 0)
            counts[projection.target, port] += 1
            self._connect(projection, f"{port}_{number}")

    def _name(self, what: str) -> str:
        """Return a name that is the same in every network, so that compiled code is found again."""
        self._n_named += 1
        return f"pcsim_{what}_{self._n_named}"

    def _add(self, thing: Any) -> Any:
        self.network.add(thing)
        return thing

    def _neurons(self, n: int, equations: str) -> Any:
        return self._add(
            self.brian2.NeuronGroup(
                self.n_trials * n,
                equations,
                method="euler",
                clock=self.clock,
                namespace={},
                name=self._name("neurons"),
            )
        )

    def _group(self, population: Population, projections: Sequence[Projection]) -> Any:
        """Write the equations of one population and set its parameters."""
        equations = population.kind.brian_equations()
        missing = [name for name, text in equations.expressions.items() if not text]
        if missing:
            found = f"a nonlinearity of population {population.name!r} without Brian 2 strings"
            advice = "Give Nonlinearity(brian=..., brian_df=...)."
            raise ValueError(refusal("run_brian", found, "an expression in u", advice))
        lines = [f"{name} : 1" for name in equations.matrices]
        for port in population.kind.ports:
            into = [p for p in projections if p.target == population.name]
            n = sum(port_of(p, population.kind) == port for p in into)
            lines += [f"{port}_{k} : 1" for k in range(n)]
            lines.append(f"{port} = {' + '.join(f'{port}_{k}' for k in range(n)) or '0.0'} : 1")
        for state, drift in equations.drift.items():
            noisy = population.noise > 0 and state == "value"
            noise = f" + {float(population.noise)!r}*sqrt(2/tau)*xi" if noisy else ""
            lines.append(f"d{state}/dt = {drift}{noise} : 1")
        lines += [f"{name} = {text} : 1" for name, text in equations.expressions.items()]
        for name in equations.parameters:
            lines.append(f"{name} : {'second' if name.startswith('tau') else '1'} (constant)")
        for (source, reads, gate), name in self._signals.items():
            if source == population.name:
                gating = "" if gate is None else f"*gate_{name}"
                lines += [f"{name} = {reads}{gating} : 1"]
                lines += [] if gate is None else [f"gate_{name} : 1 (linked)"]
        group = self._neurons(population.size, "\n".join(lines))
        # All states move together, after all inputs were summed.
        group.state_updater.when = "thresholds"
        for name, value in equations.parameters.items():
            unit = self.brian2.second if name.startswith("tau") else 1
            setattr(group, name, self._per_neuron(value, population.size) * unit)
        return group

    def _per_neuron(self, value: Any, n: int) -> NDArray[np.float64]:
        return np.tile(np.broadcast_to(np.asarray(value, dtype=np.float64), n), self.n_trials)

    def _link_gates(self) -> None:
        for (source, _, gate), name in self._signals.items():
            if gate is not None:
                linked = self.brian2.linked_var(self.groups[gate], "slope")
                setattr(self.groups[source], f"gate_{name}", linked)

    def _connect_inside(self, population: Population) -> None:
        """Couple the units of a population through the matrices of its kind."""
        group = self.groups[population.name]
        for name, (matrix, vector) in population.kind.brian_equations().matrices.items():
            self._sum(group, vector, group, name, matrix, self._rank(population.name) + 1)

    def _rank(self, target: str) -> int:
        return 2 * self._order.index(target) if target in self._order else _LAST + 2

    def _connect(self, projection: Projection, variable: str) -> None:
        lag = round(projection.delay / self.dt)
        target = self.groups[projection.target]
        signal = self._signals[projection.source, projection.reads, projection.gate]
        if projection.source == STIMULUS:
            source, read = self._stimulus(lag), "output"
        elif lag:
            source, read = self._delayed(projection, signal, lag), "output"
        else:
            source, read = self.groups[projection.source], signal
        weights = projection.weights
        if weights is None:
            weights = scipy.sparse.identity(self._by_name[projection.target].size)
        elif isinstance(weights, Local):
            weights = weights.to_sparse()
        elif not scipy.sparse.issparse(weights):
            weights = np.asarray(weights)
        weights = weights * projection.sign
        self._sum(source, read, target, variable, weights, self._rank(projection.target))

    def _sum(
        self, source: Any, read: str, target: Any, variable: str, weights: Any, order: int
    ) -> None:
        """Add synapses that sum `weights` times what is read into a variable of the target."""
        rows, columns, values = scipy.sparse.find(scipy.sparse.coo_array(weights))
        if values.size == 0:
            return
        n_target, n_source = weights.shape
        trial = np.repeat(np.arange(self.n_trials), values.size)
        synapses = self.brian2.Synapses(
            source,
            target,
            f"w : 1 (constant)\n{variable}_post = w*{read}_pre : 1 (summed)",
            clock=self.clock,
            namespace={},
            name=self._name("synapses"),
        )
        synapses.connect(
            i=np.tile(columns, self.n_trials) + trial * n_source,
            j=np.tile(rows, self.n_trials) + trial * n_target,
        )
        synapses.w = np.tile(values, self.n_trials)
        updater = synapses.summed_updaters[f"{variable}_post"]
        updater.order = order
        self._sums.append((order, updater))
        self._add(synapses)

    def _stimulus(self, lag: int) -> Any:
        """Return the neurons that show the stimulus as it was `lag` steps ago."""
        if (STIMULUS, lag) not in self._sources:
            self._sources[STIMULUS, lag] = self._neurons(self.features.shape[-1], "output : 1")
        return self._sources[STIMULUS, lag]

    def _delayed(self, projection: Projection, signal: str, lag: int) -> Any:
        """Return neurons that repeat a signal `lag` steps later, out of a ring buffer."""
        if (signal, lag) not in self._sources:
            n = self._by_name[projection.source].size
            now, later = self._neurons(n, "value : 1"), self._neurons(n, "output : 1")
            identity = scipy.sparse.identity(n)
            self._sum(self.groups[projection.source], signal, now, "value", identity, _LAST)
            ring = np.zeros((lag, self.n_trials * n))
            self._taps.append((now.variables["value"], later.variables["output"], ring))
            self._sources[signal, lag] = later
        return self._sources[signal, lag]

    def run(
        self, frame_of: Sequence[int], names: Sequence[str], *, every: int, n_recorded: int
    ) -> NDArray[np.float64]:
        """Run through the stimulus; return the rates (trial, time, unit) of these populations."""
        record_dt = every * self.dt * self.brian2.second
        clock = self.brian2.Clock(dt=record_dt, name=self._name("clock"))
        monitors = [self._monitor(name, clock) for name in names]
        direct = [
            updater
            for order, updater in sorted(self._sums, key=lambda pair: pair[0])
            if order < _LAST
        ]
        again = any(name in self._order for name in names)
        step = 0

        def begin() -> None:
            self._show(frame_of, step)
            for _, later, ring in self._taps:
                later.set_value(ring[step % len(ring)])

        def remember() -> None:
            for now, _, ring in self._taps:
                ring[step % len(ring)] = now.get_value()

        def finish() -> None:
            nonlocal step
            step += 1
            if again and step % every == 0:
                # What follows at once follows the new state, with the frame that was on so far.
                for _, later, ring in self._taps:
                    later.set_value(ring[step % len(ring)])
                for updater in direct:
                    updater.run()

        for function, when, order in (
            (begin, "start", 0),
            (remember, "groups", _LAST + 1),
            (finish, "end", 0),
        ):
            self._add(
                self.brian2.NetworkOperation(function, clock=self.clock, when=when, order=order)
            )
        # What is recorded at the end of the last step is read at the beginning of one more.
        n_steps = n_recorded * every + 1
        frame_of = [*frame_of, frame_of[-1]]
        self.network.run(n_steps * self.dt * self.brian2.second, namespace={})
        rates = [self._recorded(monitor) for monitor in monitors]
        return np.concatenate(rates, axis=-1)

    def hold(self, names: Sequence[str], n_steps: int) -> list[Any]:
        """Show the first frame for `n_steps` without Python in between, as standalone C++ must.

        Returns the monitors of these populations, which record the end of the run.

        Raises
        ------
        ValueError
            If a projection has a delay.
        """
        if self._taps or any(lag for _, lag in self._sources):
            found = "a projection with a delay"
            raise ValueError(refusal("run_brian", found, "none in a run without Python"))
        for group in self._sources.values():
            group.output = self.features[:, 0].ravel()
        clock = self.brian2.Clock(
            dt=n_steps * self.dt * self.brian2.second, name=self._name("clock")
        )
        monitors = [self._monitor(name, clock) for name in names]
        self.network.run((n_steps + 1) * self.dt * self.brian2.second, namespace={})
        return monitors

    def _monitor(self, name: str, clock: Any) -> Any:
        """Record before anything happens in a step: that is the end of the step before."""
        return self._add(
            self.brian2.StateMonitor(
                self.groups[name],
                "rate",
                record=True,
                clock=clock,
                when="start",
                order=-1,
                name=self._name("monitor"),
            )
        )

    def _recorded(self, monitor: Any) -> NDArray[np.float64]:
        rate = np.asarray(monitor.rate_)[:, 1:]
        return np.moveaxis(rate.reshape(self.n_trials, -1, rate.shape[-1]), 1, 2)

    def _show(self, frame_of: Sequence[int], step: int) -> None:
        for (source, lag), group in self._sources.items():
            if source != STIMULUS:
                continue
            number = frame_of[step - lag] if step >= lag else -1
            last = frame_of[step - lag - 1] if step > lag else -1
            if number != last:
                group.variables["output"].set_value(self.features[:, number].ravel())
