"""What a predictive-coding update costs against depth, width, T and batch, and its memory."""

from __future__ import annotations

import itertools
import multiprocessing
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pc_loops import LEARNING_RATE, RATE, AutogradLoop
from pc_timing import here, side_by_side
from torch import nn

from pcsim.deep.pc_fast import PlainTrainer
from pcsim.deep.pc_inference import GradientDescent
from pcsim.deep.pc_learning import backprop_step
from pcsim.deep.pc_trace import predictive_coding

__all__ = ["WAYS", "cases", "curves", "draw", "memory", "memory_curves", "network_of", "problem"]

Arrays = list[np.ndarray[Any, Any]]
GENERIC = "torch, autograd at every step"
WAYS = ("pcsim", GENERIC)
MANY = 4096
DEPTHS = (2, 4, 8, 16)
TS = (5, 20, 80)
"""Of the memory curve."""
VARIED = ("depth", "width", "T", "batch")


def problem(sizes: tuple[int, ...], batch: int, seed: int = 0) -> tuple[Arrays, Arrays, Arrays]:
    """Return weights, biases and [x, y] in float64; targets are one-hot."""
    rng = np.random.default_rng(seed)
    weights = [rng.uniform(-1, 1, (b, a)) / np.sqrt(a) for a, b in itertools.pairwise(sizes)]
    biases = [rng.uniform(-1, 1, b) / np.sqrt(a) for a, b in itertools.pairwise(sizes)]
    x = rng.uniform(0, 1, (batch, sizes[0]))
    y = np.eye(sizes[-1])[rng.integers(0, sizes[-1], batch)]
    return weights, biases, [x, y]


def network_of(
    weights: Arrays,
    biases: Arrays,
    dtype: torch.dtype = torch.float32,
    cut: str = "before_activation",
) -> Any:
    """Return the network: predictions W tanh(z) + b, activities before the activation."""
    layers: list[nn.Module] = []
    for weight, bias in zip(weights, biases, strict=True):
        layers += [nn.Tanh()] if layers else []
        layers.append(nn.Linear(weight.shape[1], weight.shape[0], dtype=dtype))
        layers[-1].weight.data = torch.tensor(weight, dtype=dtype)
        layers[-1].bias.data = torch.tensor(bias, dtype=dtype)
    return predictive_coding(nn.Sequential(*layers), cut=cut)


def update_of(
    way: str, sizes: tuple[int, ...], n_steps: int
) -> Callable[[torch.Tensor, torch.Tensor], Any]:
    """Return one update of a fresh network by one way."""
    weights, biases, _ = problem(sizes, 1)
    if way == GENERIC:
        loop = AutogradLoop(weights, biases)
        return lambda x, y: loop.update(x, y, n_steps)
    network = network_of(weights, biases)
    if way == "backpropagation":
        optimiser = torch.optim.SGD(network.parameters(), LEARNING_RATE)
        return lambda x, y: backprop_step(network, {"input": x}, y, optimiser)
    method = GradientDescent(n_steps=n_steps, step=RATE)
    path = "general" if way == "pcsim, any graph" else "auto"
    return PlainTrainer(network, method, learning_rate=LEARNING_RATE, path=path)


Case = tuple[str, int, tuple[int, ...], int, int]
"""What varies, its value, sizes, batch and T."""


def cases(varied: tuple[str, ...] = VARIED) -> list[Case]:
    """Return what is timed; depth n is n weight matrices, and 4 where it does not vary."""
    found: list[Case] = [("depth", n, (256,) * n + (10,), 64, 20) for n in DEPTHS]
    found += [("width", n, (n, n, n, n, 10), 64, 20) for n in (32, 64, 128, 256, 512)]
    found += [("T", n, (256, 256, 256, 256, 10), 64, n) for n in (5, 10, 20, 40, 80)]
    found += [("batch", n, (256, 256, 256, 256, 10), n, 20) for n in (1, 4, 16, 64, 256)]
    return [case for case in found if case[0] in varied]


def curves(repeats: int, varied: tuple[str, ...] = VARIED) -> list[dict[str, Any]]:
    """Time the fixed-step update against depth, width, T and batch, one at a time."""
    rows = []
    for what, value, sizes, batch, n_steps in cases(varied):
        x, y = (torch.tensor(a).float() for a in problem(sizes, batch)[2])
        updates = {way: update_of(way, sizes, n_steps) for way in WAYS}
        ways = {way: here(lambda run=run: run(x, y)) for way, run in updates.items()}  # type: ignore[misc]  # noqa: B023
        found = side_by_side(ways, repeats)
        ms = {way: times["median_ms"] for way, times in found.items()}
        rows.append({"varied": what, "value": value, "ms": ms})
    return rows


def peak(way: str, sizes: tuple[int, ...], batch: int, n_steps: int) -> int:
    """Return how many bytes one update of a batch adds at most to what is held before it."""
    torch.set_num_threads(1)
    x, y = (torch.tensor(a).float() for a in problem(sizes, batch)[2])
    update = update_of(way, sizes, n_steps)
    update_of(way, sizes, n_steps)(x[:1], y[:1])
    Path("/proc/self/clear_refs").write_text("5")  # forget the peak so far
    before = held("VmRSS")
    update(x, y)
    return held("VmHWM") - before


def held(what: str) -> int:
    """Return bytes of memory that Linux counts for this process."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(what):
            return 1024 * int(line.split()[1])
    raise RuntimeError(f"no {what} in /proc/self/status: peak memory needs Linux")


def memory(
    sizes: tuple[int, ...],
    n_steps: int,
    ways: tuple[str, ...] = (*WAYS, "pcsim, any graph", "backpropagation"),
    batch: int = MANY,
) -> dict[str, float]:
    """Return the peak memory per sample of each way, KiB, each in a process of its own."""
    found = {}
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(
        ["pcsim.deep.pc_fast", "pcsim.deep.pc_learning", "pcsim.deep.pc_trace"]
    )
    for way in ways:
        with context.Pool(1) as pool:
            grown = pool.apply(peak, (way, sizes, batch, n_steps))
        found[way] = grown / batch / 1024
    return found


def memory_curves() -> list[dict[str, Any]]:
    """Measure peak memory per sample against depth (weight matrices) and T, one at a time."""
    chosen = [case for case in cases(("depth", "T")) if case[0] == "depth" or case[1] in TS]
    return [
        {"varied": what, "value": value, "kib": memory(sizes, n_steps, WAYS, MANY // 4)}
        for what, value, sizes, _, n_steps in chosen
    ]


def draw(rows: list[dict[str, Any]], path: Path) -> None:
    """Draw the curves and save them."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(1, 4, figsize=(10, 2.8), sharey=True, layout="constrained")
    titles = {
        "depth": "weight matrices",
        "width": "units a layer",
        "T": "steps",
        "batch": "examples",
    }
    for ax, (what, label) in zip(axes, titles.items(), strict=True):
        part = [row for row in rows if row["varied"] == what]
        for way, colour in zip(WAYS, ("C0", "0.6"), strict=True):
            values = [row["value"] for row in part]
            ax.loglog(values, [row["ms"][way] for row in part], "o-", color=colour, label=way)
        ax.set_xlabel(label)
        ax.set_xticks(values, [str(value) for value in values])
        ax.minorticks_off()
    axes[0].set_ylabel("one update (processor ms)")
    axes[0].legend(frameon=False, fontsize=7)
    path.parent.mkdir(exist_ok=True)
    figure.savefig(path, dpi=150)
    plt.close(figure)
