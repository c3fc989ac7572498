"""How fast are predictive-coding networks? Beside hand-written loops, in one run.

    python benchmarks/bench_pc_networks.py [--quick]

Pins one core, checks that all ways reach the same energy, and writes ``results/pc_networks.json``
and the tables in ``benchmarks/README.md``. Some minutes; ``--quick`` one.
"""

from __future__ import annotations

import argparse
import itertools
import os
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[_name] = "1"

import numpy as np  # noqa: E402
import torch  # noqa: E402
from pc_loops import LEARNING_RATE, RATE, AutogradLoop, NumpyLoop, TorchLoop  # noqa: E402
from torch import nn  # noqa: E402

from pcsim.deep.pc_errors import ErrorOptimisation  # noqa: E402
from pcsim.deep.pc_fast import PlainTrainer  # noqa: E402
from pcsim.deep.pc_inference import GradientDescent, infer  # noqa: E402
from pcsim.deep.pc_newton import GaussNewton  # noqa: E402
from pcsim.deep.pc_trace import predictive_coding  # noqa: E402
from pcsim.storage import write_json, write_text  # noqa: E402

HERE = Path(__file__).resolve().parent
WORKLOAD = (784, 256, 256, 256, 10)
COLUMN = (16, 32, 32, 32, 8)
T = 20
NOTE = """Times are of the processor
and not of the clock, because other work ran on the machine; ratios are what matters."""

Arrays = list[np.ndarray[Any, Any]]
Run = Callable[[], Any]


def problem(sizes: tuple[int, ...], batch: int, seed: int = 0) -> tuple[Arrays, Arrays, Arrays]:
    """Return weights, biases and [x, y] in float64; targets are one-hot."""
    rng = np.random.default_rng(seed)
    weights = [rng.uniform(-1, 1, (b, a)) / np.sqrt(a) for a, b in itertools.pairwise(sizes)]
    biases = [rng.uniform(-1, 1, b) / np.sqrt(a) for a, b in itertools.pairwise(sizes)]
    x = rng.uniform(0, 1, (batch, sizes[0]))
    y = np.eye(sizes[-1])[rng.integers(0, sizes[-1], batch)]
    return weights, biases, [x, y]


def network_of(weights: Arrays, biases: Arrays, dtype: torch.dtype = torch.float32) -> Any:
    """Return the network: predictions W tanh(z) + b, activities before the activation."""
    layers: list[nn.Module] = []
    for weight, bias in zip(weights, biases, strict=True):
        layers += [nn.Tanh()] if layers else []
        layers.append(nn.Linear(weight.shape[1], weight.shape[0], dtype=dtype))
        layers[-1].weight.data = torch.tensor(weight, dtype=dtype)
        layers[-1].bias.data = torch.tensor(bias, dtype=dtype)
    return predictive_coding(nn.Sequential(*layers), cut="before_activation")


def side_by_side(ways: dict[str, Run], repeats: int, block: int = 1) -> dict[str, dict[str, float]]:
    """Time blocks of calls in turns, so that a busy machine is unfair to none; processor ms."""
    taken: dict[str, list[float]] = {name: [] for name in ways}
    for run in ways.values():
        run()
    for _ in range(repeats):
        for name, run in ways.items():
            start = time.process_time()
            for _ in range(block):
                run()
            taken[name].append(1e3 * (time.process_time() - start) / block)
    return {k: {"median_ms": statistics.median(v), "best_ms": min(v)} for k, v in taken.items()}


def gemm_rate(n: int, repeats: int) -> float:
    """Return the floating-point operations a second of one square product."""
    a, b, out = (torch.randn(n, n) for _ in range(3))
    ms = side_by_side({"mm": lambda: torch.mm(a, b, out=out)}, repeats)["mm"]["best_ms"]
    return float(2 * n**3 / (1e-3 * ms))


def flops(sizes: tuple[int, ...], batch: int, n_steps: int) -> float:
    """Return the operations that products need: the clamped prediction once."""
    counts = [a * b for a, b in itertools.pairwise(sizes)]
    start = sum(counts[:-1])  # the feedforward pass up to the last hidden node
    steps = 2 * n_steps * sum(counts[1:])
    learning = sum(counts[1:]) + sum(counts)  # fresh errors, and the weights' products
    return float(2 * batch * (start + steps + learning))


def fixed_steps(sizes: tuple[int, ...], batch: int, repeats: int) -> dict[str, Any]:
    """Time T steps and one update of the weights, all ways; check their energies first."""
    weights, biases, (x, y) = problem(sizes, batch)
    x32, y32 = x.astype("float32"), y.astype("float32")
    xt, yt = torch.from_numpy(x32), torch.from_numpy(y32)
    network = network_of(weights, biases)
    exact = NumpyLoop(weights, biases, "float64")
    expected = exact.energy(x, y, exact.settle(x, y, T))
    trainer = PlainTrainer(
        network, GradientDescent(n_steps=T, step=RATE), learning_rate=LEARNING_RATE
    )
    loops = (
        NumpyLoop(weights, biases),
        TorchLoop(weights, biases, batch),
        AutogradLoop(weights, biases),
    )
    start = time.process_time()
    trainer(xt, yt)
    first_call = time.process_time() - start
    loops[0].update(x32, y32, T)
    loops[1].update(xt, yt, T)
    loops[2].update(xt, yt, T)
    settled = {
        "pcsim": [trainer.states[k].double().numpy() for k in network.names[1:-1]],
        "numpy, by hand": [
            a.astype("float64") for a in NumpyLoop(weights, biases).settle(x32, y32, T)
        ],
        "torch, by hand": [s.double().numpy() for s in loops[1].z[:-1]],
        "torch, autograd at every step": [s.double().numpy() for s in loops[2].z],
    }
    energies = {name: exact.energy(x, y, z) for name, z in settled.items()}
    for name, energy in energies.items():
        assert abs(energy / expected - 1) < 1e-6, (name, energy, expected)
    ways = {
        "pcsim": lambda: trainer(xt, yt),
        "torch, by hand": lambda: loops[1].update(xt, yt, T),
        "numpy, by hand": lambda: loops[0].update(x32, y32, T),
        "torch, autograd at every step": lambda: loops[2].update(xt, yt, T),
    }
    times = side_by_side(ways, repeats, 50 if batch == 1 else 1)
    found: dict[str, Any] = {"ways": times, "first_call_s": first_call}
    found["energy"] = expected
    found["largest_difference"] = max(abs(e / expected - 1) for e in energies.values())
    found["flop"] = flops(sizes, batch, T)
    return found


def to_equilibrium(repeats: int) -> dict[str, Any]:
    """Time what it takes to come within 1 % of the lowest energy, of it and of the way there."""
    weights, biases, (x, y) = problem(WORKLOAD, 256)
    xt, yt = torch.tensor(x).float(), torch.tensor(y).float()
    clamp = {"input": xt, "output": yt}
    double = {"input": torch.tensor(x), "output": torch.tensor(y)}
    lowest = infer(
        network_of(weights, biases, torch.float64), double, GaussNewton(n_steps=50, tol=1e-9)
    )
    goal = 1.01 * float(lowest.energy.mean())
    network, loop = network_of(weights, biases), TorchLoop(weights, biases, 256)
    exact = NumpyLoop(weights, biases, "float64")

    def enough(run: Callable[[int], float], most: int) -> int:
        return next(n for n in range(1, most) if run(n) <= goal)

    def by_loop(n: int) -> float:
        loop.settle(xt, yt, n)
        return exact.energy(x, y, [s.double().numpy() for s in loop.z[:-1]])

    def errors(n: int, step: float) -> Any:
        return infer(network, clamp, ErrorOptimisation(n_steps=n, step=step))

    n_plain = enough(by_loop, 2000)
    needed = {}
    for step in (0.2, 0.3, 0.4, 0.5, 0.6, 0.7):
        reach = [n for n in range(1, 30) if float(errors(n, step).energy.mean()) <= goal]
        if reach:
            needed[step] = reach[0]
    step = min(needed, key=lambda s: needed[s])
    ways = {
        f"plain descent by hand, rate {RATE}": lambda: loop.settle(xt, yt, n_plain),
        "pcsim, errors": lambda: errors(needed[step], step),
        "pcsim, Gauss-Newton": lambda: infer(network, clamp, GaussNewton(n_steps=1, n_products=3)),
    }
    newton = infer(network, clamp, GaussNewton(n_steps=1, n_products=3))
    assert float(newton.energy.mean()) <= goal
    return {
        "ways": side_by_side(ways, repeats),
        "steps": {"plain": n_plain, "errors": needed[step], "Gauss-Newton": newton.n_steps},
        "step_of_errors": step,
        "lowest": float(lowest.energy.mean()),
        "start": exact.energy(x, y, exact.settle(x, y, 0)),
    }


def depths(widest: int) -> list[dict[str, Any]]:
    """Count steps to within 1 % of the way to equilibrium against depth, best rate of a grid."""
    rows = []
    for depth in (4, 8, 16)[:widest]:
        weights, biases, (x, y) = problem((64,) * depth + (10,), 64, seed=1)
        network = network_of(weights, biases)
        clamp = {"input": torch.tensor(x).float(), "output": torch.tensor(y).float()}
        lowest = float(infer(network, clamp, GaussNewton(n_steps=30, tol=1e-5)).energy.sum())

        def best(make: Callable[[float], Any], rates: tuple[float, ...]) -> int:
            counts = []
            for rate in rates:
                trace = np.array(infer(network, clamp, make(rate), record=True).trace)  # noqa: B023
                near = trace <= lowest + 0.01 * (trace[0] - lowest)  # noqa: B023
                counts.append(int(np.argmax(near)) if near.any() else 10**9)
            return min(counts)

        plain = best(lambda r: GradientDescent(n_steps=600, step=r), (0.2, 0.4))
        errors = best(lambda r: ErrorOptimisation(n_steps=60, step=r), (0.2, 0.4, 0.6))
        rows.append({"depth": depth, "plain": plain, "errors": errors})
    return rows


def curves(repeats: int) -> list[dict[str, Any]]:
    """Time the fixed-step update against depth, width, T and batch, one at a time."""
    cases = [("depth", n, (256,) * (n + 1) + (10,), 64, 20) for n in (2, 4, 8, 16)]
    cases += [("width", n, (n, n, n, n, 10), 64, 20) for n in (32, 128, 512)]
    cases += [("T", n, (256, 256, 256, 256, 10), 64, n) for n in (5, 20, 80)]
    cases += [("batch", n, (256, 256, 256, 256, 10), n, 20) for n in (1, 16, 64, 256)]
    rows = []
    for what, value, sizes, batch, n_steps in cases:
        weights, biases, (x, y) = problem(sizes, batch)
        trainer = PlainTrainer(
            network_of(weights, biases),
            GradientDescent(n_steps=n_steps, step=RATE),
            learning_rate=LEARNING_RATE,
        )
        xt, yt = torch.tensor(x).float(), torch.tensor(y).float()
        ms = side_by_side({"pcsim": lambda: trainer(xt, yt)}, repeats)["pcsim"]["median_ms"]  # noqa: B023
        rows.append({"varied": what, "value": value, "ms": ms})
    return rows


def table(found: dict[str, Any]) -> str:
    """Return the tables for the README."""
    lines = []
    titles = {
        "workload": "784-256-256-256-10, tanh, batch 256, T = 20, one update of the weights",
        "column": "16-32-32-32-8, tanh, batch 1, T = 20, one update of the weights",
    }
    for key, title in titles.items():
        part = found[key]
        own = part["ways"]["torch, by hand"]["median_ms"]
        lines += [f"{title}:", "", "| way | median ms | best ms | relative to torch by hand |"]
        lines += ["|---|---|---|---|"]
        for name, ms in part["ways"].items():
            share = ms["median_ms"] / own
            lines.append(f"| {name} | {ms['median_ms']:.3g} | {ms['best_ms']:.3g} | {share:.2f} |")
        lines += ["", f"Energies agree to {part['largest_difference']:.1e} (relative); first call "
                  f"{part['first_call_s']:.3f} s.", ""]  # fmt: skip
    bound = found["bound_ms"]
    best = found["workload"]["ways"]["pcsim"]["best_ms"]
    lines += [
        f"The products of the first table need {found['workload']['flop'] / 1e9:.2f} GFLOP, which "
        f"at the rate of 256 x 256 x 256 products measured beside ({found['gemm'] / 1e9:.0f} "
        f"GFLOP/s) take {bound:.1f} ms: {100 * bound / best:.0f} % of that floor is reached.",
        "",
    ]
    near = found["equilibrium"]
    lines += ["The same network to within 1 % of its equilibrium energy, no update:", ""]
    lines += ["| way | steps | median ms | times faster |", "|---|---|---|---|"]
    slow = next(iter(near["ways"].values()))["median_ms"]
    for (name, ms), steps in zip(near["ways"].items(), near["steps"].values(), strict=True):
        own = ms["median_ms"]
        lines.append(f"| {name} | {steps} | {own:.3g} | {slow / own:.1f} |")
    lines += ["", "Steps to 1 % of the way to equilibrium, width 64, best rate of a grid:", ""]
    lines += ["| depth | activities | errors |", "|---|---|---|"]
    lines += [f"| {r['depth']} | {r['plain']} | {r['errors']} |" for r in found["depths"]]
    lines += [
        "",
        "Cost of one update, 256 wide, 4 layers, batch 64, T = 20 but for what varies:",
        "",
    ]
    lines += ["| varied | value: ms |", "|---|---|"]
    for what in ("depth", "width", "T", "batch"):
        row = ", ".join(
            f"{r['value']}: {r['ms']:.3g}" for r in found["curves"] if r["varied"] == what
        )
        lines.append(f"| {what} | {row} |")
    lines += ["", f"One core of {found['machine']}, torch {found['torch']}; load average "
              f"{found['load']:.1f} at the start. {NOTE}", ""]  # fmt: skip
    return "\n".join(lines)


def into_readme(text: str) -> None:
    """Put the tables between their marks, or at the end."""
    path, head, foot = HERE / "README.md", "<!-- pc_networks -->", "<!-- /pc_networks -->"
    whole = path.read_text()
    if head not in whole:
        whole = f"{whole.rstrip()}\n\n{INTRODUCTION}\n\n{head}\n{foot}\n"
    before, rest = whole.split(head)
    write_text(path, f"{before}{head}\n{text}{foot}{rest.split(foot)[1]}")


INTRODUCTION = """`python benchmarks/bench_pc_networks.py` measures predictive-coding networks
on one core, beside loops written by hand in torch and numpy and beside one that differentiates the
energy at every step, as generic libraries do; equal energies are checked first. It writes
`results/pc_networks.json` and what follows."""


def main() -> None:
    """Measure, write, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    quick = parser.parse_args().quick
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    torch.set_num_threads(1)
    load = os.getloadavg()[0]
    repeats = 8 if quick else 30
    rate = gemm_rate(256, 50 * repeats)
    found: dict[str, Any] = {
        "workload": fixed_steps(WORKLOAD, 256, repeats),
        "column": fixed_steps(COLUMN, 1, repeats),
        "equilibrium": to_equilibrium(repeats),
        "depths": depths(2 if quick else 3),
        "curves": curves(max(repeats // 3, 3)),
        "gemm": max(rate, gemm_rate(256, 50 * repeats)),
        "load": load,
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "torch": torch.__version__,
    }
    found["bound_ms"] = 1e3 * found["workload"]["flop"] / found["gemm"]
    text = table(found)
    print(text)
    if not quick:
        (HERE / "results").mkdir(exist_ok=True)
        write_json(HERE / "results" / "pc_networks.json", found)
        into_readme(text)


if __name__ == "__main__":
    main()
