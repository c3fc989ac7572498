"""Sweeps: one circuit over a grid of parameters, in as few batches as its structure allows."""

from __future__ import annotations

import dataclasses
import itertools
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from pcsim.circuit import Circuit, check_circuit, simulate_replicas
from pcsim.engine_run import recorded_names
from pcsim.machine_stack import Parts, stack_parts
from pcsim.messages import check_choice, refusal, unknown_name
from pcsim.responses import check_stimulus

__all__ = ["sweep"]

_BATCH = 2**22
"""Numbers in the state of the points that run together: 32 MiB."""
_RECORDED = 2**25
"""Recorded numbers of the points that run together: 256 MiB."""
_SAY_EVERY = 5.0
"""Seconds between lines on the error stream; a sweep that is over before is silent."""

Measure = Callable[[xr.Dataset], Any]


@dataclass
class _Point:
    """One point of the grid."""

    index: tuple[int, ...]
    label: str
    circuit: Circuit
    parts: Parts


def sweep(
    circuit: Circuit,
    stimulus: xr.DataArray,
    *,
    grid: Mapping[str, Sequence[Any]],
    record: Sequence[str] | None = None,
    seed: int = 0,
    measure: Measure | None = None,
    on_divergence: str = "raise",
) -> xr.Dataset:
    """Run a circuit at every point of a grid of its parameters.

    Points that differ in numbers only run together as replicas of one batch; those that differ in
    structure (delays, sizes, time steps) are told apart and run batch after batch. Circuits with
    noise run point by point, each with the noise that a run of its own with this seed has.

    Parameters
    ----------
    circuit
        What to run.
    stimulus
        (trial, time, y, x) or (trial, time, feature), the same for all points.
    grid
        Field of the circuit -> values; every combination of them is a point.
    record
        Names of the populations to record; all if None.
    seed
        Of the noise.
    measure
        What to keep of the responses of one point: a function of responses that returns a DataArray
        or a number. Without it all rates are kept.
    on_divergence
        "raise", or "nan" to fill in NaN where the activity diverges.

    Returns
    -------
    results : xr.Dataset
        One dimension for every parameter, then those of the rates (trial, time, unit) or of the
        measure. Values that are no numbers or texts are labelled by their place in the list.

    Raises
    ------
    TypeError, ValueError
        If a parameter is not known, a point is not lawful, or points do not fit one array.
    RuntimeError
        If the activity diverges; the message names the point and the largest stable step.

    Examples
    --------
    >>> from pcsim.circuits.bogacz_2017 import MODEL
    >>> from pcsim.responses import stimulus_array
    >>> light = stimulus_array(np.full((1, 1, 1), 2.0), frame_duration=0.6)
    >>> found = sweep(MODEL, light, grid={"feedback_gain": [0.9, 1.0], "dt": [5e-4, 1e-3]},
    ...               measure=lambda r: r.rate.sel(unit=r.name == "mu_1").isel(time=-1))
    >>> found.measure.dims
    ('feedback_gain', 'dt', 'trial', 'unit')
    >>> found.measure.sel(feedback_gain=1.0, dt=1e-3).values.round(2)
    array([[1.57]])
    """
    check_circuit(circuit)
    check_stimulus(stimulus, type(circuit).__name__)
    check_choice("sweep", "on_divergence", on_divergence, ("raise", "nan"))
    values = _checked_grid(circuit, stimulus, grid)
    recorded_names(type(circuit).__name__, circuit.populations, record)
    points = _points(circuit, values)
    keep = measure or _rates
    table = _Table(values, "rate" if measure is None else "measure")
    teller = _Teller(len(points))
    for batch in _batches(points, stimulus):
        for point, responses in _run(batch, stimulus, (record, seed, on_divergence)):
            table.put(point, None if responses is None else keep(responses))
            teller.tell()
    return table.dataset()


def _rates(responses: xr.Dataset) -> xr.DataArray:
    return responses["rate"]


def _checked_grid(
    circuit: Circuit, stimulus: xr.DataArray, grid: Mapping[str, Sequence[Any]]
) -> dict[str, list[Any]]:
    known = [field.name for field in dataclasses.fields(circuit) if field.init]
    if not isinstance(grid, Mapping) or not grid:
        found, advice = f"grid {grid!r}", f"There are {known}."
        raise TypeError(refusal("sweep", found, "a mapping parameter -> values", advice))
    checked = {}
    for name, values in grid.items():
        if name not in known:
            raise unknown_name("sweep", "parameter", name, known)
        listed = list(values) if np.iterable(values) and not isinstance(values, str) else []
        if not listed:
            found = f"{name} {values!r}"
            raise ValueError(refusal("sweep", found, "at least one value in a list"))
        if name in _TAKEN or name in stimulus.coords:
            found = f"a parameter {name!r}, which labels trials, times or units, too"
            advice = "Rename the coordinate of the stimulus, or the field of the circuit."
            raise ValueError(refusal("sweep", found, "a name of its own", advice))
        checked[str(name)] = listed
    return checked


_LABELS = ("name", "population", "level", "area", "layer", "x", "y", "channel", "condition")
_TAKEN = ("trial", "time", "unit", *_LABELS)


def _points(circuit: Circuit, values: Mapping[str, list[Any]]) -> list[_Point]:
    points = []
    for index in itertools.product(*(range(len(listed)) for listed in values.values())):
        own = {name: listed[i] for i, (name, listed) in zip(index, values.items(), strict=True)}
        label = ", ".join(f"{name}={_shown(value)}" for name, value in own.items())
        try:
            one = dataclasses.replace(circuit, **own)
            points.append(_Point(index, label, one, check_circuit(one)))
        except (TypeError, ValueError) as error:
            raise type(error)(f"sweep, point {label}, {error}") from error
    return points


def _shown(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _batches(points: Sequence[_Point], stimulus: xr.DataArray) -> list[list[_Point]]:
    """Return the points in batches of equal structure that are not too large."""
    groups: list[list[_Point]] = []
    for point in points:
        alike = (group for group in groups if _alike(group[0], point))
        group = next(alike, None)
        if group is None:
            groups.append([point])
        else:
            group.append(point)
    batches = []
    for group in groups:
        most = _most(group[0], stimulus)
        batches += [group[i : i + most] for i in range(0, len(group), most)]
    return batches


def _alike(one: _Point, other: _Point) -> bool:
    for name in ("dt", "integrator", "record_dt"):
        if getattr(one.circuit, name) != getattr(other.circuit, name):
            return False
    try:
        stack_parts("sweep", [one.parts, other.parts])
    except ValueError:
        return False
    return True


def _most(point: _Point, stimulus: xr.DataArray) -> int:
    """Return how many such points run together."""
    populations = point.parts[0]
    if any(population.noise for population in populations):
        return 1
    n = stimulus.sizes["trial"] * sum(population.size for population in populations)
    lasts = float(stimulus["time"].values[-1]) + float(stimulus["frame_duration"])
    n_times = max(1.0, lasts / (point.circuit.record_dt or point.circuit.dt))
    return max(1, min(_BATCH // n, int(_RECORDED / (n * n_times))))


def _run(
    batch: Sequence[_Point], stimulus: xr.DataArray, settings: tuple[Any, int, str]
) -> list[tuple[_Point, xr.Dataset | None]]:
    """Run points together; where one diverges, find it by halving."""
    record, seed, on_divergence = settings
    try:
        circuits = [point.circuit for point in batch]
        responses = simulate_replicas(circuits, stimulus, seed=seed, record=record)
    except RuntimeError as error:
        if len(batch) == 1:
            if on_divergence == "nan":
                return [(batch[0], None)]
            raise RuntimeError(f"sweep, point {batch[0].label}, {error}") from error
        half = len(batch) // 2
        parts = batch[:half], batch[half:]
        return [result for part in parts for result in _run(part, stimulus, settings)]
    n = stimulus.sizes["trial"]
    own = [responses.isel(trial=slice(i * n, (i + 1) * n)) for i in range(len(batch))]
    trial = stimulus["trial"].values
    each = [one.drop_vars("replica").assign_coords(trial=trial) for one in own]
    return list(zip(batch, each, strict=True))


class _Table:
    """The results of all points in one array."""

    def __init__(self, values: Mapping[str, list[Any]], name: str) -> None:
        self._values, self._name = values, name
        self._shape = tuple(len(listed) for listed in values.values())
        self._first: xr.DataArray | None = None
        self._array: NDArray[Any] = np.full(self._shape, np.nan)

    def put(self, point: _Point, result: Any) -> None:
        """Write the result of one point; of one that diverged (None), nothing."""
        if result is None:
            return
        result = result if isinstance(result, xr.DataArray) else xr.DataArray(result)
        if self._first is None:
            self._first = result
            self._array = np.full((*self._shape, *result.shape), np.nan)
        if not _same_axes(self._first, result):
            found = f"a result of {dict(result.sizes)} at {point.label}"
            expected = f"{dict(self._first.sizes)} with equal labels, as at the points before"
            advice = "Set record_dt, record like populations, or give a measure."
            raise ValueError(refusal("sweep", found, expected, advice))
        self._array[point.index] = result.values

    def dataset(self) -> xr.Dataset:
        """Return what was written, labelled."""
        first = xr.DataArray(np.nan) if self._first is None else self._first
        labels = {name: (name, _labels(listed)) for name, listed in self._values.items()}
        coords = {str(name): coord.variable for name, coord in first.coords.items()}
        dims = (*self._values, *first.dims)
        variable = xr.Variable(dims, self._array, attrs=first.attrs)
        return xr.Dataset({self._name: variable}, coords={**coords, **labels})


def _same_axes(one: xr.DataArray, other: xr.DataArray) -> bool:
    if one.dims != other.dims or one.shape != other.shape:
        return False
    shared = [dim for dim in one.dims if dim in one.coords and dim in other.coords]
    same = [np.array_equal(one[dim].values, other[dim].values) for dim in shared if dim != "time"]
    times = [np.allclose(one[dim], other[dim], rtol=1e-9) for dim in shared if dim == "time"]
    return all(same + times)


def _labels(values: Sequence[Any]) -> NDArray[Any]:
    simple = all(isinstance(v, bool | int | float | np.number) for v in values)
    if simple or all(isinstance(v, str) for v in values):
        return np.asarray(values)
    return np.arange(len(values))


class _Teller:
    """Says now and then on the error stream how far a long sweep is."""

    def __init__(self, total: int) -> None:
        self._total, self._done = total, 0
        self._start = self._said = time.monotonic()

    def tell(self) -> None:
        """Count one more point."""
        self._done += 1
        now = time.monotonic()
        if now - self._said >= _SAY_EVERY:
            self._said = now
            text = f"sweep: {self._done} of {self._total} points, {now - self._start:.0f} s"
            print(text, file=sys.stderr, flush=True)
