"""Local circuits at scale: the array engine beside Brian 2, from a thousand units to a million.

    python benchmarks/bench_scale.py [peers] [scale] [torch]

Without a name, all three parts. Times are seconds of processor time, of one thread, so that what
else runs on the machine counts less; the load is written beside them. Everything is the smallest
of some repeats. Writes ``results/scale.json`` and the tables between the marks in ``README.md``.
"""

from __future__ import annotations

import argparse
import math
import os
import platform
import re
import resource
import shutil
import tempfile
import time
import tracemalloc
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[_name] = "1"

import numpy as np  # noqa: E402
import xarray as xr  # noqa: E402
from scale_tables import BATCH, SCALE_BATCH, tables  # noqa: E402

from pcsim import catalog  # noqa: E402
from pcsim.brian_network import BrianNetwork  # noqa: E402
from pcsim.circuit import Circuit, Local, Population, Projection, simulate  # noqa: E402
from pcsim.kinds import Error, Latent  # noqa: E402
from pcsim.priors import GaussianPrior  # noqa: E402
from pcsim.responses import stimulus_array  # noqa: E402
from pcsim.storage import read_json, write_json, write_text  # noqa: E402

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results" / "scale.json"
DT = 1e-3
KERNEL = np.array([[0.05, 0.1, 0.05], [0.1, 0.3, 0.1], [0.05, 0.1, 0.04]])
"""Not separable: every unit has nine weights of its own each way."""


@dataclass(frozen=True, kw_only=True)
class Sheet(Circuit):
    """Errors and the latents that predict them."""

    weights: Any
    integrator: str = "euler"
    dt: float = DT

    @property
    def populations(self) -> tuple[Population, ...]:
        """Return the two populations."""
        (n, m), latent = self.weights.shape, Latent(0.1, prior=GaussianPrior(precision=0.7))
        return (
            Population("xi", Error(0.01, variance=4.0), n, 0, "weighted_error"),
            Population("mu", latent, m, 1, "latent"),
        )

    @property
    def projections(self) -> tuple[Projection, ...]:
        """Return predictions and errors."""
        return (
            Projection("stimulus", "xi", port="observed"),
            Projection("mu", "xi", self.weights, port="predicted"),
            Projection("xi", "mu", self.weights.T, port="ascending"),
        )


def sheet(n_units: int, n_steps: int, dense: bool = False) -> Sheet:
    """Return a circuit of so many units that records the end of so many steps.

    Locally wired it has as many errors as latents, densely wired three times as many.
    """
    if dense:
        m = n_units // 4
        weights: Any = np.random.default_rng(0).normal(size=(n_units - m, m)) / n_units
    else:
        n = n_units // 2
        rows = next(k for k in range(math.isqrt(n), 0, -1) if n % k == 0)
        weights = Local((rows, n // rows), KERNEL)
    return Sheet(weights=weights, record_dt=n_steps * DT)


def column(n_steps: int) -> Circuit:
    """Return the laminar column, 1,517 units in three areas.

    Without delays: Brian 2 has none for continuous signals, so that ours would be timed there.
    """
    zero = {name: 0.0 for name in ("delay_forward", "delay_backward", "delay_local")}
    model = catalog.load("circuits", "cortical_column")
    return replace(model, dt=DT, integrator="euler", record_dt=n_steps * DT, **zero)


CIRCUITS: dict[str, Callable[[int], Circuit]] = {
    "local": lambda n_steps: sheet(1000, n_steps),
    "dense": lambda n_steps: sheet(128, n_steps, dense=True),
    "column": column,
}
RECORDED = {"local": "mu", "dense": "mu", "column": "latent_V1"}
MOST_TRIALS = {"column": 16}
"""256 columns in one network are 20 million synapses: Brian builds them for minutes, then swaps."""


def held(circuit: Circuit, n_trials: int, n_steps: int) -> xr.DataArray:
    """Return one frame a trial."""
    rng, shape = np.random.default_rng(1), circuit.field_shape
    if shape is not None:
        values = rng.uniform(size=(n_trials, 1, *shape))
        px_per_deg = circuit.px_per_deg
        return stimulus_array(values, frame_duration=n_steps * DT, px_per_deg=px_per_deg)
    n_features = circuit.populations[0].size
    values = rng.normal(size=(n_trials, 1, n_features))
    return stimulus_array(values, frame_duration=n_steps * DT)


def cost(run: Callable[[int], Any], few: int, repeats: int) -> dict[str, float]:
    """Return seconds a step without set-up: a run of 3 `few` steps less one of `few`."""
    found = {}
    for name, clock in (("processor", time.process_time), ("wall", time.perf_counter)):
        taken: dict[int, list[float]] = {few: [], 3 * few: []}
        for _ in range(repeats):
            for n_steps, times in taken.items():
                start = clock()
                run(n_steps)
                times.append(clock() - start)
        found[name] = (min(taken[3 * few]) - min(taken[few])) / (2 * few)
    return found


def array_run(
    build: Callable[[int], Circuit], n_trials: int, *, record: str = "mu", **options: Any
) -> Callable[[int], Any]:
    """Return what runs the array engine for a number of steps."""

    def run(n_steps: int) -> xr.Dataset:
        circuit = build(n_steps)
        return simulate(circuit, held(circuit, n_trials, n_steps), record=[record], **options)

    return run


# Peers


def network(brian2: Any, circuit: Circuit, n_trials: int) -> BrianNetwork:
    """Return the circuit as Brian's own groups and synapses."""
    values = circuit.prepare(held(circuit, n_trials, 1))
    return BrianNetwork(brian2, circuit.populations, circuit.projections, values, dt=DT)


def cython(brian2: Any, wiring: str, n_trials: int, few: int, repeats: int) -> dict[str, float]:
    """Return seconds a step of Brian 2 in cython, with no Python of ours between steps."""
    circuit = CIRCUITS[wiring](1)
    brian2.prefs.codegen.target = "numpy"
    net = network(brian2, circuit, n_trials)
    brian2.prefs.codegen.target = "cython"
    net.hold([RECORDED[wiring]], 2)
    second = brian2.second
    return cost(lambda n: net.network.run(n * DT * second, namespace={}), few, repeats)


def standalone(brian2: Any, wiring: str, n_trials: int, n_steps: int) -> dict[str, Any]:
    """Return seconds a step of Brian 2 as a C++ program, and of its compilation."""
    circuit, record = CIRCUITS[wiring](1), [RECORDED[wiring]]
    folder = tempfile.mkdtemp(prefix="pcsim_standalone_")
    brian2.set_device("cpp_standalone", directory=folder, build_on_run=False)
    device = brian2.get_device()
    try:
        monitors = network(brian2, circuit, n_trials).hold(record, n_steps)
        start = time.perf_counter()
        device.build(directory=folder, compile=True, run=False)
        compiled, before = time.perf_counter(), children()
        device.run(folder, "results", True, run_args=[])
        found = {
            "compile": compiled - start,
            "processor": (children() - before) / n_steps,
            "loop": device._last_run_time / n_steps,
        }
        rate = np.asarray(monitors[0].rate_)[:, -1].reshape(n_trials, -1)
    finally:
        device.reinit()
        brian2.set_device("runtime")
        shutil.rmtree(folder, ignore_errors=True)
    once = replace(circuit, record_dt=n_steps * DT)
    ours = simulate(once, held(circuit, n_trials, n_steps), record=record).rate.values[:, -1]
    found["difference"] = float(np.abs(rate - ours).max())
    return found


def children() -> float:
    """Return the processor time of the programs that were run."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def peers(options: argparse.Namespace) -> dict[str, Any]:
    """Time one circuit on the array engine and on Brian 2, in pairs."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import brian2
    rows: list[dict[str, Any]] = []
    for wiring, build in CIRCUITS.items():
        n = sum(population.size for population in build(1).populations)
        for n_trials, few in ((1, 1500), (BATCH, 20)):
            for way, found in _ways(brian2, wiring, n_trials, few, options).items():
                row = {"wiring": wiring, "units": n, "way": way, "trials": n_trials, **found}
                # The C++ program times its own loop; what it does before is not counted.
                row["step"] = min(found["processor"], found.get("loop", math.inf))
                row["unit_steps_a_second"] = n * row["trials"] / row["step"]
                rows.append(row)
                print(row, flush=True)
    return {"rows": rows, "load": os.getloadavg()[0]}


def _ways(
    brian2: Any, wiring: str, n_trials: int, few: int, options: argparse.Namespace
) -> dict[str, dict[str, Any]]:
    run = array_run(CIRCUITS[wiring], n_trials, record=RECORDED[wiring])
    ways: dict[str, dict[str, Any]] = {"array engine": cost(run, few, options.repeats)}
    at_once = min(n_trials, MOST_TRIALS.get(wiring, n_trials))
    found = cython(brian2, wiring, at_once, few * n_trials // at_once, options.repeats)
    ways["Brian 2, cython"] = {**found, "trials": at_once}
    if options.standalone and at_once == n_trials:
        ways["Brian 2, C++"] = standalone(brian2, wiring, n_trials, 10 * few)
    return ways


# Scale


def scale(options: argparse.Namespace) -> dict[str, Any]:
    """Return the cost of a unit and step, and the memory, by size."""
    rows = []
    for n_units in (10**3, 10**4, 10**5, 10**6):
        if n_units > options.largest:
            break
        for n_trials in (1, SCALE_BATCH):
            few = max(4, 4_000_000 // (n_units * n_trials))
            build = partial(sheet, n_units)
            step = cost(array_run(build, n_trials), few, options.repeats)
            row = {"units": n_units, "trials": n_trials, "few": few}
            row |= {f"ns_{name}": 1e9 * s / (n_units * n_trials) for name, s in step.items()}
            rows.append(row)
            print(row, flush=True)
    return {"rows": rows, "memory": memory(10**5), "load": os.getloadavg()[0]}


def memory(n_units: int) -> dict[str, float]:
    """Return bytes a unit: of the trials that run at a time, and of every further one."""
    peaks = {}
    for n_trials in (2, 4, 32):
        circuit = sheet(n_units, 2)
        stimulus = held(circuit, n_trials, 2)
        tracemalloc.start()
        simulate(circuit, stimulus, record=["mu"])
        peaks[n_trials] = tracemalloc.get_traced_memory()[1] / n_units
        tracemalloc.stop()
    few = float(np.dtype(float).itemsize / 2)
    return {
        "units": n_units,
        "bytes_a_unit_with_2_trials": peaks[2],
        "bytes_a_unit_and_further_trial": (peaks[32] - peaks[4]) / 28,
        "of_these_recorded": few,
    }


# Torch


def torch_part(options: argparse.Namespace) -> dict[str, Any]:
    """Run the same circuit on torch arrays, on the processor and on a GPU if there is one."""
    try:
        import torch
    except ImportError:
        return {"skipped": "no torch"}
    torch.set_num_threads(1)
    n_units, n_trials, n_steps = min(10**5, options.largest), 8, 40
    build = partial(sheet, n_units)
    ours = array_run(build, n_trials)(n_steps).rate.values
    report: dict[str, Any] = {"units": n_units, "trials": n_trials, "load": os.getloadavg()[0]}
    devices = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
    for device in devices:
        run = array_run(build, n_trials, xp=torch, device=device)
        difference = np.abs(run(n_steps).rate.values - ours).max() / np.abs(ours).max()
        step = cost(run, n_steps // 4, options.repeats)
        report[device] = {"difference": float(difference), **step}
    report["numpy"] = cost(array_run(build, n_trials), n_steps // 4, options.repeats)
    if "cuda" not in devices:
        report["cuda"] = "skipped: torch finds no GPU here"
    print(report, flush=True)
    return report


def processor() -> str:
    """Return what the processor calls itself."""
    info = Path("/proc/cpuinfo")
    found = re.search(r"model name\s*: (.*)", info.read_text()) if info.is_file() else None
    return found[1] if found else platform.processor()


def main() -> None:
    """Run what was asked for, keep what was measured before, and write the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("parts", nargs="*", default=["peers", "scale", "torch"])
    parser.add_argument("--largest", type=int, default=10**6)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--no-standalone", dest="standalone", action="store_false")
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    report = read_json(options.out) if options.out.is_file() else {}
    report["machine"] = {
        "processor": processor(),
        "python": platform.python_version(),
        "numpy": np.__version__,
    }
    known = {"peers": peers, "scale": scale, "torch": torch_part}
    for name in options.parts:
        report[name] = known[name](options)
        options.out.parent.mkdir(parents=True, exist_ok=True)
        write_json(options.out, report)
    text = tables(report)
    print(text)
    readme = HERE / "README.md"
    if options.out == RESULTS:
        before, _, rest = readme.read_text().partition("<!-- scale -->\n")
        after = rest.partition("<!-- /scale -->")[2]
        write_text(readme, f"{before}<!-- scale -->\n{text}<!-- /scale -->{after or chr(10)}")


if __name__ == "__main__":
    main()
