"""Rate circuits: declared once, run by the array engine here or by Brian 2 in `pcsim.brian`.

A circuit is a frozen dataclass whose fields are its parameters and which declares populations and
projections. A lesion is a changed parameter: ``dataclasses.replace(circuit, feedback_gain=0.0)``.
"""

from __future__ import annotations

import abc
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from pcsim.declaration import Hebbian, Population, Projection, check_parts, port_of
from pcsim.engine import INTEGRATORS, as_numpy
from pcsim.engine_run import Run
from pcsim.machine_stack import Parts
from pcsim.messages import check_choice, check_number, refusal
from pcsim.responses import check_stimulus
from pcsim.weights import Local

__all__ = [
    "Circuit",
    "Hebbian",
    "Local",
    "Population",
    "Projection",
    "check_circuit",
    "settle",
    "simulate",
    "simulate_plastic",
    "simulate_replicas",
]


@dataclass(frozen=True, kw_only=True)
class Circuit(abc.ABC):
    """A rate circuit. A concrete one adds fields and declares `populations` and `projections`.

    Parameters
    ----------
    dt
        Time step, seconds.
    integrator
        "exponential_euler" (first order, stable for any leak that a kind knows), "euler" or "rk4"
        (fourth order while the stimulus is constant; delayed signals are held during a step).
    record_dt
        Seconds between recorded times, a multiple of `dt`; every step if None. What is recorded is
        the rate at the end of each interval.

    Examples
    --------
    >>> from pcsim.kinds import Leaky
    >>> from pcsim.responses import stimulus_array
    >>> @dataclass(frozen=True, kw_only=True)
    ... class Relay(Circuit):
    ...     tau: float = 0.05
    ...     @property
    ...     def populations(self):
    ...         return (Population("relay", Leaky(self.tau), 1, 0, "output"),)
    ...     @property
    ...     def projections(self):
    ...         return (Projection("stimulus", "relay", port="drive"),)
    >>> step = stimulus_array(np.full((1, 1, 1), 4.0), frame_duration=0.05)
    >>> rate = Relay(record_dt=0.05).run(step).rate
    >>> bool(np.isclose(rate.item(), 4 * (1 - np.exp(-1))))
    True
    """

    dt: float = 1e-3
    integrator: str = "exponential_euler"
    record_dt: float | None = None

    @property
    @abc.abstractmethod
    def populations(self) -> tuple[Population, ...]:
        """Return the populations, in the order of the units in the responses."""

    @property
    @abc.abstractmethod
    def projections(self) -> tuple[Projection, ...]:
        """Return the projections between them."""

    @property
    def field_shape(self) -> tuple[int, int] | None:
        """(rows, columns) of the images it sees, pixels; None if it takes features, not images."""
        return None

    @property
    def px_per_deg(self) -> float | None:
        """Pixels per degree of visual angle; None if it takes features."""
        return None

    def prepare(self, stimulus: xr.DataArray) -> NDArray[np.float64]:
        """Return the stimulus as features (trial, time, feature); images are read row by row."""
        values = stimulus.values.astype(np.float64, copy=False)
        return values.reshape(*values.shape[:2], -1)

    def run(
        self, stimulus: xr.DataArray, *, seed: int = 0, record: Sequence[str] | None = None
    ) -> xr.Dataset:
        """Return the responses to `stimulus`; of the populations named in `record`, or of all."""
        return simulate(self, stimulus, seed=seed, record=record)


def check_circuit(circuit: Circuit) -> Parts:
    """Return the populations and projections of a circuit, or refuse it; every run calls this once.

    Raises
    ------
    TypeError, ValueError
        Saying what was found where, what was expected, and what to do.
    """
    where = type(circuit).__name__
    if not isinstance(circuit, Circuit):
        raise TypeError(refusal("circuit", f"a {where}", "a Circuit", "Subclass pcsim.Circuit."))
    dt = check_number(where, "dt", circuit.dt, positive=True)
    integrator = check_choice(where, "integrator", circuit.integrator, INTEGRATORS)
    _check_record_dt(where, circuit)
    populations, projections = tuple(circuit.populations), tuple(circuit.projections)
    check_parts(where, populations, projections, dt=dt)
    noisy = [population.name for population in populations if population.noise]
    if noisy and integrator == "rk4":
        found = f"noise in {noisy} with integrator 'rk4'"
        raise ValueError(refusal(where, found, "an Euler integrator", "Use 'exponential_euler'."))
    return populations, projections


def _check_record_dt(where: str, circuit: Circuit) -> None:
    if circuit.record_dt is None:
        return
    record_dt = check_number(where, "record_dt", circuit.record_dt, positive=True)
    every = round(record_dt / circuit.dt)
    if every < 1 or abs(every * circuit.dt - record_dt) > 1e-6 * record_dt:
        found = f"record_dt {record_dt:g} s at a time step of {circuit.dt:g} s"
        raise ValueError(refusal(where, found, "a whole number of steps", "Change one of them."))


def simulate(
    circuit: Circuit,
    stimulus: xr.DataArray,
    *,
    seed: int = 0,
    record: Sequence[str] | None = None,
    xp: Any = None,
    device: Any = None,
) -> xr.Dataset:
    """Run a circuit on all trials at once, from a state of zero.

    Frames are held until the next one. A plastic projection keeps its weights: see
    `simulate_plastic`.

    Parameters
    ----------
    circuit
        What to run.
    stimulus
        (trial, time, y, x) or (trial, time, feature).
    seed
        Of the noise; without noise it changes nothing.
    record
        Names of the populations to record; all if None.
    xp, device
        An Array API library, for instance ``torch``, and where it puts arrays; NumPy if None.

    Returns
    -------
    responses : xr.Dataset
        Recorded times are the ends of the intervals of `record_dt`.

    Raises
    ------
    ValueError
        If circuit, stimulus or names are not lawful.
    RuntimeError
        If the activity diverges; the message names the largest stable time step.

    Examples
    --------
    >>> from pcsim.circuits.bogacz_2017 import MODEL
    >>> from pcsim.responses import stimulus_array
    >>> light = stimulus_array(np.full((3, 2, 1), 2.0), frame_duration=0.1)
    >>> dict(simulate(MODEL, light, record=["mu_1", "xi_0"]).sizes)
    {'trial': 3, 'time': 200, 'unit': 2}
    """
    return _run(circuit, stimulus, record=record, xp=xp, device=device).through(seed)


def _run(circuit: Circuit, stimulus: xr.DataArray, **options: Any) -> Run:
    parts = check_circuit(circuit)
    check_stimulus(stimulus, type(circuit).__name__)
    return Run([circuit], [parts], stimulus, **options)


def simulate_replicas(
    circuits: Sequence[Circuit],
    stimulus: xr.DataArray,
    *,
    seed: int = 0,
    record: Sequence[str] | None = None,
    xp: Any = None,
    device: Any = None,
) -> xr.Dataset:
    """Run circuits of one declaration and different numbers in one batch.

    Returns
    -------
    responses : xr.Dataset
        Trials of replica 0, then of replica 1 ...; coordinate `replica` on `trial`.

    Raises
    ------
    ValueError
        If the circuits differ in more than the numbers of their kinds and weights.

    Examples
    --------
    >>> from dataclasses import replace
    >>> from pcsim.circuits.bogacz_2017 import MODEL
    >>> from pcsim.responses import stimulus_array
    >>> light = stimulus_array(np.full((1, 1, 1), 2.0), frame_duration=0.6)
    >>> models = [replace(MODEL, feedback_gain=gain) for gain in (0.9, 1.0)]
    >>> rates = simulate_replicas(models, light, record=["mu_1"])
    >>> rates.replica.values, rates.rate.values[:, -1, 0].round(2)
    (array([0, 1]), array([1.64, 1.57]))
    """
    if len(circuits) == 0:
        raise ValueError(refusal("simulate_replicas", "no circuits", "at least one"))
    parts = [check_circuit(circuit) for circuit in circuits]
    check_stimulus(stimulus, type(circuits[0]).__name__)
    _check_settings(circuits)
    run = Run(circuits, parts, stimulus, record=record, replicas=True, xp=xp, device=device)
    return run.through(seed)


def _check_settings(circuits: Sequence[Circuit]) -> None:
    """Refuse replicas that would run with different time steps."""
    for name in ("dt", "integrator", "record_dt"):
        values = {getattr(circuit, name) for circuit in circuits}
        if len(values) > 1:
            found = f"replicas with {name} {sorted(map(str, values))}"
            raise ValueError(refusal("simulate_replicas", found, f"one {name} for all"))


def simulate_plastic(
    circuit: Circuit,
    stimulus: xr.DataArray,
    *,
    seed: int = 0,
    record: Sequence[str] | None = None,
) -> tuple[xr.Dataset, dict[tuple[str, str, str], NDArray[np.float64]]]:
    """Run a circuit while its plastic projections learn, each step from the mean over trials.

    Returns
    -------
    responses : xr.Dataset
        As of `simulate`.
    weights : dict
        (source, target, port) -> (n_target, n_source), the new weights.

    Raises
    ------
    ValueError
        If no projection is plastic.
    """
    where = type(circuit).__name__
    run = _run(circuit, stimulus, record=record)
    if not any(projection.plastic for projection in run.parts[1]):
        found = "no plastic projection"
        raise ValueError(refusal(where, found, "at least one", "Declare Projection(plastic=...)."))
    responses = run.through(seed, learn=True)
    weights = {}
    for wire in run.machine.wires():
        if wire.projection.plastic is not None:
            target = run.machine.nodes[wire.projection.target].population
            key = (wire.projection.source, target.name, port_of(wire.projection, target.kind))
            signed = np.swapaxes(as_numpy(wire.weights), -1, -2)
            weights[key] = signed / wire.projection.sign
    return responses, weights


def settle(
    circuit: Circuit,
    stimulus: xr.DataArray,
    *,
    tol: float = 1e-9,
    max_time: float = 60.0,
    record: Sequence[str] | None = None,
) -> xr.Dataset:
    """Hold one frame until no state moves, and return the rates at rest.

    Parameters
    ----------
    circuit
        What to run.
    stimulus
        One frame a trial.
    tol
        At rest once no state would move by more than ``tol * (1 + largest state)`` within the
        longest time constant of the circuit.
    max_time
        Give up after so many simulated seconds.
    record
        Names of the populations to record; all if None.

    Raises
    ------
    ValueError
        If the stimulus has more than one frame, or a population has noise.
    RuntimeError
        If the circuit diverges or does not come to rest.

    Examples
    --------
    >>> from pcsim.circuits.bogacz_2017 import MODEL
    >>> from pcsim.responses import stimulus_array
    >>> light = stimulus_array([[[2.0]], [[9.0]]], frame_duration=0.1)
    >>> settle(MODEL, light, record=["mu_1"]).rate.values.ravel().round(3)
    array([1.567, 3.   ])
    """
    where = type(circuit).__name__
    check_number("settle", "tol", tol, positive=True)
    check_number("settle", "max_time", max_time, positive=True)
    run = _run(circuit, stimulus, record=record)
    if stimulus.sizes["time"] != 1:
        found = f"a stimulus of {stimulus.sizes['time']} frames"
        raise ValueError(refusal("settle", found, "one frame", "Use stimulus.isel(time=[0])."))
    noisy = [population.name for population in run.parts[0] if population.noise]
    if noisy:
        found = f"noise in {noisy}"
        raise ValueError(
            refusal(f"settle {where}", found, "none", "Set noise=0: noise never rests.")
        )
    return run.to_rest(tol, max_time)
