"""How fast is the array engine? A thousand replicas in one batch, and a hundred thousand units.

Run ``python benchmarks/bench_engine.py``; it takes some minutes and writes
``benchmarks/results/engine.json``, ``engine.md`` and the tables in ``benchmarks/README.md``.
"""

from __future__ import annotations

import argparse
import itertools
import os
import platform
import re
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[_name] = "1"

import numpy as np  # noqa: E402
import scipy.sparse  # noqa: E402
import xarray as xr  # noqa: E402

from pcsim.brian import run_brian  # noqa: E402
from pcsim.catalog import load  # noqa: E402
from pcsim.circuit import (  # noqa: E402
    Circuit,
    Population,
    Projection,
    simulate,
    simulate_replicas,
)
from pcsim.hierarchy import GaussianPrior, Hierarchy, Level  # noqa: E402
from pcsim.kinds import Error, Latent  # noqa: E402
from pcsim.responses import stimulus_array  # noqa: E402
from pcsim.storage import write_json, write_text  # noqa: E402

HERE = Path(__file__).resolve().parent
SIZES = (16, 8, 4)
"""Units of the three levels; with errors, predictions and priors a replica has 72."""
DT = 1e-3


def replica(seed: int, record_dt: float) -> Circuit:
    """Return the three-level circuit of Bogacz (2017) with weights and precisions of its own."""
    rng = np.random.default_rng(seed)
    levels = tuple(
        Level(
            0.5 * rng.normal(size=(below, above)) / np.sqrt(above),
            rng.uniform(0.2, 5.0, below),
            outer="tanh",
        )
        for below, above in itertools.pairwise(SIZES)
    )
    priors = tuple(GaussianPrior(precision=rng.uniform(0.2, 5.0, n)) for n in SIZES[1:])
    return type(load("circuits", "bogacz_2017"))(
        hierarchy=Hierarchy(levels, priors),
        tau=0.1,
        tau_error=0.01,
        integrator="euler",
        record_dt=record_dt,
        dt=DT,
    )


@dataclass(frozen=True, kw_only=True)
class Sheet(Circuit):
    """Errors and latents, equally many, with dense or local weights."""

    weights: Any

    @property
    def populations(self) -> tuple[Population, ...]:
        """Return the two populations."""
        latent, n = Latent(0.1, prior=GaussianPrior(precision=0.7)), self.weights.shape[0]
        return (
            Population("xi", Error(0.01, variance=4.0), n, 0, "weighted_error"),
            Population("mu", latent, n, 1, "latent"),
        )

    @property
    def projections(self) -> tuple[Projection, ...]:
        """Return predictions and errors."""
        return (
            Projection("stimulus", "xi", port="observed"),
            Projection("mu", "xi", self.weights, port="predicted"),
            Projection("xi", "mu", self.weights.T, port="ascending"),
        )


def random_weights(n: int, *, local: bool) -> Any:
    """Return nine weights a unit, or one for every pair."""
    if not local:
        return np.random.default_rng(0).normal(size=(n, n)) / np.sqrt(n)
    offsets = np.arange(-4, 5)
    bands = [np.full(n - abs(k), 0.3 / (1 + abs(k))) for k in offsets]
    return scipy.sparse.diags_array(bands, offsets=offsets, format="csr")


def seconds(function: Callable[[], Any], repeats: int) -> list[float]:
    """Return how long each of `repeats` calls took."""
    taken = []
    for _ in range(repeats):
        start = time.perf_counter()
        function()
        taken.append(time.perf_counter() - start)
    return taken


def held(n: int, n_steps: int) -> xr.DataArray:
    """Return one trial of one frame."""
    values = np.random.default_rng(1).normal(size=(1, 1, n))
    return stimulus_array(values, frame_duration=n_steps * DT)


def compare_ways(n_replicas: int, n_steps: int, repeats: int) -> dict[str, Any]:
    """Time one batch, a loop over replicas and Brian 2 on one replica; check that they agree."""
    circuits = [replica(seed, n_steps * DT) for seed in range(n_replicas)]
    stimulus = held(SIZES[0], n_steps)
    results: dict[str, np.ndarray] = {}

    def batch() -> None:
        results["batch"] = simulate_replicas(circuits, stimulus).rate.values[:, 0]

    def loop() -> None:
        rates = [simulate(circuit, stimulus).rate.values[0, 0] for circuit in circuits]
        results["loop"] = np.stack(rates)

    def brian() -> None:
        rate = run_brian(circuits[0], stimulus, target="cython").rate.values[0, 0]
        results["brian"] = rate

    brian()  # compiles
    taken = {f.__name__: seconds(f, repeats) for f in (batch, loop, brian)}
    median = {name: statistics.median(times) for name, times in taken.items()}
    scale = float(np.abs(results["loop"]).max())
    return {
        "n_replicas": n_replicas,
        "n_steps": n_steps,
        "units_per_replica": int(results["loop"].shape[1]),
        "seconds": taken,
        "median_seconds": median,
        "loop_over_batch": median["loop"] / median["batch"],
        "brian_over_batch_per_replica": median["brian"] * n_replicas / median["batch"],
        "batch_against_loop": float(np.abs(results["batch"] - results["loop"]).max()) / scale,
        "batch_against_brian": float(np.abs(results["batch"][0] - results["brian"]).max()) / scale,
        "per_step": per_step(circuits, repeats),
    }


def per_step(circuits: Sequence[Circuit], repeats: int) -> dict[str, float]:
    """Return seconds a step and a replica, without set-up: a long run less a short one."""

    def slope(run: Callable[[xr.DataArray], Any], few: int, many: int) -> float:
        short, long = held(SIZES[0], few), held(SIZES[0], many)
        times = [
            seconds(lambda: run(long), 1)[0] - seconds(lambda: run(short), 1)[0]
            for _ in range(repeats)
        ]
        return statistics.median(times) / (many - few)

    few = circuits[0].record_dt or DT
    first = round(few / DT)
    batch = slope(lambda s: simulate_replicas(circuits, s), first, 3 * first)
    return {
        "batch": batch / len(circuits),
        "loop": slope(lambda s: simulate(circuits[0], s), first, 21 * first),
        "brian": slope(lambda s: run_brian(circuits[0], s, target="cython"), first, 21 * first),
    }


def cost_by_size(sizes: Sequence[int], densest: int, repeats: int) -> list[dict[str, Any]]:
    """Return nanoseconds a unit and step, from a long run less a short one."""
    rows = []
    for local, size in itertools.product((False, True), sizes):
        if not local and size > densest:
            continue
        work = size * (9 if local else size)
        few = max(10, min(1000, round(2e8 / work)))
        weights = random_weights(size // 2, local=local)
        sheet = Sheet(weights=weights, dt=DT, record_dt=few * DT)
        short, long = held(size // 2, few), held(size // 2, 4 * few)
        times = [
            seconds(lambda: simulate(sheet, long), 1)[0]  # noqa: B023
            - seconds(lambda: simulate(sheet, short), 1)[0]  # noqa: B023
            for _ in range(repeats)
        ]
        step = statistics.median(times) / (3 * few)
        wiring = "local, 9 weights a unit" if local else "dense"
        nanoseconds = 1e9 * step / size
        rows.append({"units": size, "wiring": wiring, "ns_per_unit_step": nanoseconds})
        print(f"{size:>7} units, {wiring}: {nanoseconds:.1f} ns a unit and step", flush=True)
    return rows


def tables(report: dict[str, Any]) -> str:
    """Return both results as Markdown."""
    ways, step = report["ways"], report["ways"]["per_step"]
    median, n = ways["median_seconds"], ways["n_replicas"]
    lines = [
        f"{n:,} replicas of a three-level circuit ({ways['units_per_replica']} units each), "
        f"{ways['n_steps']} steps, median of {len(ways['seconds']['batch'])}:",
        "",
        "| way | seconds | relative to the batch | µs a step and replica, without set-up |",
        "|---|---|---|---|",
        f"| one batch | {median['batch']:.2f} | 1 | {1e6 * step['batch']:.2f} |",
        f"| Python loop over replicas, same engine | {median['loop']:.1f} "
        f"| {ways['loop_over_batch']:.0f} | {1e6 * step['loop']:.0f} |",
        f"| Brian 2 (cython, compiled before), one replica | {median['brian']:.2f} "
        f"| {ways['brian_over_batch_per_replica']:.0f} (times {n:,}) "
        f"| {1e6 * step['brian']:.0f} |",
        "",
        f"Largest difference of a rate, relative to the largest rate: batch against loop "
        f"{ways['batch_against_loop']:.1e}, batch against Brian 2 "
        f"{ways['batch_against_brian']:.1e}.",
        "",
        "Cost by size, one trial, half errors and half latents, without set-up:",
        "",
        "| units | dense, ns a unit and step | local (9 weights a unit), ns a unit and step |",
        "|---|---|---|",
    ]
    by_size: dict[int, dict[str, float]] = {}
    for row in report["sizes"]:
        by_size.setdefault(row["units"], {})[row["wiring"][:5]] = row["ns_per_unit_step"]
    for size, costs in sorted(by_size.items()):
        dense = f"{costs['dense']:,.0f}" if "dense" in costs else "does not fit"
        lines.append(f"| {size:,} | {dense} | {costs['local']:,.0f} |")
    machine = report["machine"]
    lines += [
        "",
        f"One thread of {machine['processor']}, Python {machine['python']}, NumPy "
        f"{machine['numpy']}; load average {machine['load']:.1f} at the start. Timings are noisy; "
        "the ratios are what matters.",
    ]
    return "\n".join(lines) + "\n"


def processor() -> str:
    """Return what the processor calls itself."""
    info = Path("/proc/cpuinfo")
    found = re.search(r"model name\s*: (.*)", info.read_text()) if info.is_file() else None
    return found[1] if found else platform.processor()


def main() -> None:
    """Run all, print it, and write the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--replicas", type=int, default=1000)
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--largest", type=int, default=100_000)
    parser.add_argument("--densest", type=int, default=10_000)
    parser.add_argument("--out", type=Path, default=HERE / "results")
    options = parser.parse_args()
    sizes = [size for size in (100, 1000, 10_000, 100_000) if size <= options.largest]
    report = {
        "machine": {
            "processor": processor(),
            "python": platform.python_version(),
            "numpy": np.__version__,
            "load": os.getloadavg()[0],
        },
        "ways": compare_ways(options.replicas, options.steps, options.repeats),
        "sizes": cost_by_size(sizes, options.densest, options.repeats),
    }
    text = tables(report)
    print(text)
    options.out.mkdir(parents=True, exist_ok=True)
    write_json(options.out / "engine.json", report)
    write_text(options.out / "engine.md", text)
    readme = HERE / "README.md"
    if options.out == HERE / "results" and readme.is_file():
        before, _, rest = readme.read_text().partition("<!-- engine -->\n")
        after = rest.partition("<!-- /engine -->")[2]
        write_text(readme, f"{before}<!-- engine -->\n{text}<!-- /engine -->{after}")


if __name__ == "__main__":
    main()
