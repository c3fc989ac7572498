"""The Brian 2 engine: the same declaration of a circuit as an explicit Brian 2 network.

It is the independent reference for the array engine, and the way to Brian's own tools. All trials
run in one network: a population of n units becomes n neurons a trial, and a projection one set of
synapses that never crosses trials. Every equation comes from the kind itself, with units.

Within a time step, first the inputs of all populations are summed from the present state (those
that follow at once in the order of their dependence), then all states move together by Euler's
method. With ``integrator="euler"`` the array engine takes the same steps.
"""

from __future__ import annotations

import dataclasses
import signal
import sys
import threading
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import xarray as xr

from pcsim.brian_network import BrianNetwork
from pcsim.circuit import Circuit, check_circuit
from pcsim.engine_run import (
    check_features,
    frames_of_steps,
    prepared,
    recorded_names,
    recorded_steps,
    unit_labels,
)
from pcsim.messages import check_choice, check_number, refusal
from pcsim.responses import check_stimulus, make_responses

__all__ = ["local_brian", "run_brian"]

TARGETS = ("numpy", "cython")
_lock = threading.Lock()


def run_brian(
    circuit: Circuit,
    stimulus: xr.DataArray,
    *,
    seed: int = 0,
    target: str = "numpy",
    dt: float | None = None,
    record: Sequence[str] | None = None,
) -> xr.Dataset:
    """Run a circuit on Brian 2, all trials in one network, from a state of zero.

    Parameters
    ----------
    circuit
        What to run. Its integrator is not used: Brian moves the states by Euler's method (with
        noise, Euler-Maruyama).
    stimulus
        (trial, time, y, x) or (trial, time, feature).
    seed
        Of the noise.
    target
        "numpy", or "cython" (needs a compiler, takes seconds to compile, then runs faster).
    dt
        Time step, seconds; that of the circuit if None.
    record
        Names of the populations to record; all if None.

    Returns
    -------
    responses : xr.Dataset
        With the labels that `pcsim.circuit.simulate` gives.

    Raises
    ------
    ImportError
        If Brian 2 is not installed.
    ValueError
        If circuit, stimulus, target or names are not lawful.
    RuntimeError
        If the activity diverges.

    Examples
    --------
    >>> from pcsim.circuits.bogacz_2017 import MODEL
    >>> from pcsim.responses import stimulus_array
    >>> light = stimulus_array(np.full((1, 1, 1), 2.0), frame_duration=0.6)
    >>> run_brian(MODEL, light, record=["mu_1"]).rate.values[0, -1].round(3)
    array([1.567])
    """
    check_choice("run_brian", "target", target, TARGETS)
    if dt is not None:
        dt = check_number("run_brian", "dt", dt, positive=True)
        circuit = dataclasses.replace(circuit, dt=dt)
    check_circuit(circuit)
    where = type(circuit).__name__
    check_stimulus(stimulus, where)
    features = prepared(where, circuit, stimulus)
    populations, projections = circuit.populations, circuit.projections
    check_features(where, populations, projections, features.shape[-1])
    if any(np.ndim(projection.weights) == 3 for projection in projections):
        found = "weights with a replica axis"
        raise ValueError(refusal("run_brian", found, "one circuit", "Run replicas one by one."))
    frame_of = frames_of_steps(where, stimulus, circuit.dt)
    every, n_recorded = recorded_steps(where, circuit, len(frame_of))
    names = recorded_names(where, populations, record)
    with local_brian(seed) as brian2:
        network = BrianNetwork(brian2, populations, projections, features, dt=circuit.dt)
        # Only what runs every step is worth compiling.
        brian2.prefs.codegen.target = target
        rate = network.run(frame_of, names, every=every, n_recorded=n_recorded)
    if not np.isfinite(rate).all():
        found = f"activity that diverged at a time step of {circuit.dt:g} s"
        raise RuntimeError(refusal(where, found, "a smaller step", "Give run_brian a smaller dt."))
    return make_responses(
        rate,
        time=circuit.dt * every * np.arange(1, n_recorded + 1),
        units=unit_labels([p for p in populations if p.name in names]),
        trial=stimulus,
        attrs={"circuit": where, "dt": circuit.dt, "integrator": f"brian2 {target} euler"},
    )


@contextmanager
def local_brian(seed: int) -> Iterator[Any]:
    """Lend Brian 2, seeded, and put back what was set before."""
    brian2 = _import_brian()
    state, before = np.random.get_state(), brian2.prefs.codegen.target  # noqa: NPY002
    try:
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.filterwarnings("ignore", category=DeprecationWarning)
            brian2.prefs.codegen.target = "numpy"
            brian2.seed(seed)
            yield brian2
    finally:
        brian2.prefs.codegen.target = before
        # Brian seeds the global stream of NumPy too.
        np.random.set_state(state)  # noqa: NPY002


def _import_brian() -> Any:
    """Import Brian 2, also off the main thread, where its signal handler cannot be set."""
    with _lock:
        original = signal.signal
        off_main = threading.current_thread() is not threading.main_thread()
        try:
            if off_main and "brian2" not in sys.modules:
                signal.signal = lambda *_: None
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", category=DeprecationWarning)
                import brian2
        except ModuleNotFoundError as error:
            if (error.name or "").partition(".")[0] != "brian2":
                raise
            found, advice = "no Brian 2", "Install it with: pip install 'pcsim[brian]'"
            raise ImportError(refusal("run_brian", found, "the package brian2", advice)) from None
        finally:
            signal.signal = original
    return brian2
