"""One run of a circuit, or of its replicas, on one stimulus: frames in, labelled rates out."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import array_api_compat
import numpy as np
import xarray as xr
from numpy.typing import NDArray

from pcsim.declaration import STIMULUS, Population, Projection
from pcsim.engine import Integration, as_numpy
from pcsim.engine_bypass import bypass
from pcsim.engine_guard import Guard, largest_of
from pcsim.kinds.kind import Array
from pcsim.machine import Machine
from pcsim.machine_stack import Parts, move_parts, n_replicas_of, stack_parts
from pcsim.messages import check_array, refusal, unknown_name
from pcsim.responses import make_responses
from pcsim.weights import is_operator

__all__ = [
    "Run",
    "check_features",
    "frames_of_steps",
    "prepared",
    "recorded_names",
    "recorded_steps",
    "unit_labels",
]

_BLOCK = 2**18
"""Numbers in the state of trials that run together where weights are local: 2 MiB."""
_GUARD_EVERY = 50
"""Steps between looks at whether the activity diverges."""


class Run:
    """A checked circuit (or equal circuits, as replicas) on a checked stimulus.

    Parameters
    ----------
    circuits
        One, or the replicas.
    declared
        Their checked parts.
    stimulus
        Checked.
    record
        Names of the populations to record; all if None.
    replicas
        Whether `circuits` are replicas, even if there is only one.
    xp, device
        Array library and device; NumPy if None.
    """

    def __init__(
        self,
        circuits: Sequence[Any],
        declared: Sequence[Parts],
        stimulus: xr.DataArray,
        *,
        record: Sequence[str] | None = None,
        replicas: bool = False,
        xp: Any = None,
        device: Any = None,
    ) -> None:
        circuit = circuits[0]
        self.where, self.circuit, self.stimulus = type(circuit).__name__, circuit, stimulus
        stacked = stack_parts(self.where, declared)
        n_stacked = len(circuits) if replicas else None
        self.n_replicas = n_replicas_of(self.where, stacked[1], n_stacked)
        self.names = recorded_names(self.where, stacked[0], record)
        self._to_array, self._is_numpy = _converter(xp, device), xp is None
        self.parts = move_parts(stacked, self._to_array)
        features = _features(self.where, circuits, stimulus)
        if self.n_replicas and features.ndim == 3:
            features = np.broadcast_to(features, (self.n_replicas, *features.shape))
        check_features(self.where, *stacked, features.shape[-1])
        self.parts = bypass(*self.parts, keep=self.names)
        self.features: NDArray[np.float64] = features
        self._declared = declared

    def through(self, seed: int, *, learn: bool = False) -> xr.Dataset:
        """Show the whole stimulus once."""
        dt = self.circuit.dt
        frame_of = frames_of_steps(self.where, self.stimulus, dt)
        every, n_recorded = recorded_steps(self.where, self.circuit, len(frame_of))
        recorder = self._recorder(n_recorded)
        for trials in self._blocks(learn):
            integration = self._start(frame_of, seed, trials)
            guard, kept = self._guard(trials), recorder[..., trials, :, :]
            with np.errstate(all="ignore"):
                for step in range(len(frame_of)):
                    integration.step(step, learn=learn)
                    if (step + 1) % every == 0 and (step + 1) // every <= n_recorded:
                        rates = integration.rates(self.names, step)
                        self._write(kept, (step + 1) // every - 1, rates)
                    if (step + 1) % _GUARD_EVERY == 0:
                        guard.look(integration, step)
                guard.look(integration, len(frame_of) - 1)
        return self._responses(recorder, dt * every * np.arange(1, n_recorded + 1))

    def to_rest(self, tol: float, max_time: float) -> xr.Dataset:
        """Hold the one frame until nothing moves."""
        dt, n_steps = self.circuit.dt, max(1, int(np.ceil(max_time / self.circuit.dt)))
        integration, guard = self._start([0] * n_steps, 0), self._guard()
        slowest = max(population.kind.slowest for population in self.parts[0])
        # A signal may still be on its way along every delayed projection, one after the other.
        longest = sum(wire.n_steps for wire in self.machine.wires())
        recorder, speed = self._recorder(1), 0.0
        with np.errstate(all="ignore"):
            for step in range(n_steps):
                integration.step(step)
                if (step + 1) % 10 and step + 1 < n_steps:
                    continue
                guard.look(integration, step)
                largest = largest_of(integration.state)
                speed = largest_of(integration.change) / dt * slowest / (1 + largest)
                if speed < tol and step >= longest:
                    break
            else:
                found = f"states that still move by {speed:.2g} of the largest after {max_time:g} s"
                advice = "Raise max_time or tol; if it rings, lower dt or take integrator='rk4'."
                raise RuntimeError(refusal(self.where, found, f"below {tol:g}", advice))
            self._write(recorder, 0, integration.rates(self.names, step))
        return self._responses(recorder, np.array([(step + 1) * dt]))

    def _blocks(self, learn: bool) -> list[slice]:
        """Return the trials that run together: so many that their signals stay near the processor.

        Dense weights want many trials at once, noise and learning all of them.
        """
        *replicas, n_trials, _, _ = self.features.shape
        local = any(is_operator(projection.weights) for projection in self.parts[1])
        if not self._is_numpy or not local or learn or any(p.noise for p in self.parts[0]):
            return [slice(0, n_trials)]
        n_units = sum(p.size for p in self.parts[0]) * int(np.prod(replicas))
        n_blocks = -(-n_trials // max(1, _BLOCK // n_units))
        edges = np.linspace(0, n_trials, n_blocks + 1).astype(int).tolist()
        return [slice(*edge) for edge in itertools.pairwise(edges)]

    def _guard(self, trials: slice = slice(None)) -> Guard:
        return Guard(self.circuit, self._declared, self.features[..., trials, :, :])

    def _start(
        self, frame_of: Sequence[int], seed: int, trials: slice = slice(None)
    ) -> Integration:
        rng = np.random.default_rng(seed)
        frames = self._to_array(self.features[..., trials, :, :])
        self.machine = Machine(*self.parts, frames, frame_of, dt=self.circuit.dt)
        return Integration(
            self.machine,
            self.circuit.integrator,
            lambda shape: self._to_array(rng.standard_normal(shape)),
        )

    def _recorder(self, n_recorded: int) -> Array:
        n_units = sum(p.size for p in self._recorded())
        return self._to_array(np.zeros((*self.features.shape[:-2], n_recorded, n_units)))

    def _recorded(self) -> list[Population]:
        return [population for population in self.parts[0] if population.name in self.names]

    def _write(self, recorder: Array, number: int, rates: Sequence[Array]) -> None:
        start = 0
        for rate in rates:
            recorder[..., number, start : start + rate.shape[-1]] = rate
            start += rate.shape[-1]

    def _responses(self, recorder: Array, time: NDArray[np.float64]) -> xr.Dataset:
        rate = as_numpy(recorder)
        rate = rate.reshape(-1, *rate.shape[-2:])
        if not np.isfinite(rate).all():
            found = "rates that are not finite while the states are"
            advice = "Look at the nonlinearities: one of them overflows."
            raise RuntimeError(refusal(self.where, found, "finite rates", advice))
        attrs = {
            "circuit": self.where,
            "dt": self.circuit.dt,
            "integrator": self.circuit.integrator,
        }
        trial = self.stimulus if self.n_replicas is None else self._replicated()
        units = unit_labels(self._recorded())
        return make_responses(rate, time=time, units=units, trial=trial, attrs=attrs)

    def _replicated(self) -> xr.Dataset:
        """Return the labels of the trials, repeated for every replica."""
        n_trials, n_replicas = self.stimulus.sizes["trial"], self.n_replicas or 1
        coords = self.stimulus.coords
        labels = {name: c for name, c in coords.items() if c.dims in ((), ("trial",))}
        order = np.tile(np.arange(n_trials), n_replicas)
        return (
            xr.Dataset(coords=labels)
            .isel(trial=order)
            .assign_coords(
                trial=np.arange(order.size),
                replica=("trial", np.repeat(np.arange(n_replicas), n_trials)),
            )
        )


def _converter(xp: Any, device: Any) -> Callable[[Any], Array]:
    """Return what makes double-precision arrays of the library."""
    if xp is None:
        return np.asarray
    space = array_api_compat.array_namespace(xp.asarray([0.0]))
    # A copy: libraries that share memory with NumPy refuse arrays that cannot be written.
    return lambda values: space.asarray(np.array(values), device=device)


def prepared(where: str, circuit: Any, stimulus: xr.DataArray) -> NDArray[np.float64]:
    """Return the checked features (trial, time, feature) that a circuit makes of a stimulus."""
    shape = circuit.field_shape
    if shape is not None and "y" in stimulus.dims:
        seen = (stimulus.sizes["y"], stimulus.sizes["x"])
        if seen != tuple(shape):
            found = f"images of {seen[0]} x {seen[1]} pixels"
            advice = "Make the stimulus with field_shape=circuit.field_shape."
            raise ValueError(refusal(where, found, f"{shape[0]} x {shape[1]}", advice))
    size = (stimulus.sizes["trial"], stimulus.sizes["time"], None)
    features = check_array(where, "the prepared stimulus", circuit.prepare(stimulus), shape=size)
    return features.astype(np.float64, copy=False)


def _features(where: str, circuits: Sequence[Any], stimulus: xr.DataArray) -> NDArray[np.float64]:
    """Prepare the stimulus for every replica; once if all make the same of it."""
    first = prepared(where, circuits[0], stimulus)
    if len(circuits) == 1:
        return first
    others = [prepared(where, circuit, stimulus) for circuit in circuits[1:]]
    if all(np.array_equal(first, other) for other in others):
        return first
    return np.stack([first, *others])


def check_features(
    where: str,
    populations: Sequence[Population],
    projections: Sequence[Projection],
    n_features: int,
) -> None:
    """Refuse a prepared stimulus that does not fit the projections that read it."""
    sizes = {population.name: population.size for population in populations}
    for projection in projections:
        if projection.source != STIMULUS:
            continue
        weights, target = projection.weights, projection.target
        n_taken = sizes[target] if weights is None else np.shape(weights)[-1]
        if n_taken != n_features:
            found = f"a stimulus of {n_features} features"
            expected = f"{n_taken}, as the projection to {target!r} takes"
            raise ValueError(refusal(where, found, expected, "Change the stimulus or the weights."))


def recorded_names(
    where: str, populations: Sequence[Population], record: Sequence[str] | None
) -> list[str]:
    """Return the names of the populations to record, in the order of the declaration."""
    known = [population.name for population in populations]
    if record is None:
        return known
    if isinstance(record, str) or not record:
        found = f"record={record!r}"
        raise ValueError(refusal(where, found, "a list of population names", f"There are {known}."))
    for name in record:
        if name not in known:
            raise unknown_name(where, "population", name, known)
    return [name for name in known if name in set(record)]


def frames_of_steps(where: str, stimulus: xr.DataArray, dt: float) -> list[int]:
    """Return the number of the frame shown during each time step; -1 before the first."""
    onsets, duration = stimulus["time"].values, float(stimulus["frame_duration"])
    if duration < dt * (1 - 1e-6):
        found = f"frames of {duration:g} s at a time step of {dt:g} s"
        raise ValueError(refusal(where, found, "at least one step a frame", "Lower dt."))
    n_steps = max(1, round((onsets[-1] + duration) / dt))
    # A step shows the frame that is on when it begins, up to rounding of the onsets.
    shown = np.searchsorted(onsets, dt * (np.arange(n_steps) + 1e-6), side="right") - 1
    return [int(number) for number in shown]


def recorded_steps(where: str, circuit: Any, n_steps: int) -> tuple[int, int]:
    """Return the steps between recorded times, and how many of these there are."""
    every = 1 if circuit.record_dt is None else round(circuit.record_dt / circuit.dt)
    if every > n_steps:
        found = f"a stimulus of {n_steps * circuit.dt:g} s"
        expected = f"at least one record_dt of {circuit.record_dt:g} s"
        raise ValueError(refusal(where, found, expected, "Show it longer, or lower record_dt."))
    return every, n_steps // every


def unit_labels(populations: Sequence[Population]) -> dict[str, NDArray[Any]]:
    """Return the labels of the units of these populations, one population after the other."""
    sizes = [population.size for population in populations]
    labels = {
        name: np.repeat([getattr(population, name) for population in populations], sizes)
        for name in ("name", "population", "level", "area", "layer")
    }
    for name in ("x", "y", "channel"):
        values = [getattr(population, name) for population in populations]
        if any(value is not None for value in values):
            text = any(
                np.asarray(value).dtype.kind in "OU" for value in values if value is not None
            )
            blank: Any = "" if text else np.nan
            columns = [
                np.full(size, blank) if value is None else np.asarray(value)
                for value, size in zip(values, sizes, strict=True)
            ]
            labels[name] = np.concatenate(columns)
    if not any(labels["layer"]):
        del labels["layer"]
    return labels
