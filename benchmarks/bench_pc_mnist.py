"""How well, and how soon, do predictive-coding networks classify MNIST? Beside backpropagation.

    python benchmarks/bench_pc_mnist.py [--quick] [--seeds 3] [--epochs 25] [--arms backprop ...]
        [--peer pcx=/path/to/python] [--output FOLDER]

Network and settings are those of pcx's published run (784-128-128-128-10, GELU, batch 128, AdamW,
25 epochs; its best test accuracy of any epoch is 98.42 %, of backpropagation 98.46 %). Every
arm and seed is a file of its own in ``results/pc_mnist``; what is there already is not run again.
Needs MNIST (``PCSIM_DATA``, or ``pcsim data fetch mnist``).
"""

from __future__ import annotations

import argparse
import itertools
import os
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[_name] = "1"

import numpy as np  # noqa: E402
import torch  # noqa: E402
from torch import Tensor, nn  # noqa: E402
from torch.nn import functional  # noqa: E402

from pcsim import data  # noqa: E402
from pcsim.deep.pc_errors import ErrorOptimisation  # noqa: E402
from pcsim.deep.pc_inference import GradientDescent, Inference  # noqa: E402
from pcsim.deep.pc_learning import backprop_step, train_step  # noqa: E402
from pcsim.deep.pc_network import PCNetwork  # noqa: E402
from pcsim.deep.pc_newton import GaussNewton  # noqa: E402
from pcsim.deep.pc_trace import predictive_coding  # noqa: E402
from pcsim.storage import read_json, write_json, write_text  # noqa: E402

HERE = Path(__file__).resolve().parent
SIZES = (784, 128, 128, 128, 10)
BATCH = 128
LOOKS = 4
"""Times an epoch that the test set is looked at."""
MARKS = (0.95, 0.97, 0.975, 0.98)


@dataclass(frozen=True)
class Arm:
    """How the weights learn: pcx's published settings unless it says otherwise."""

    says: str
    method: Inference | None = None
    """None: backpropagation."""
    rate: float = 2.968930522737348e-4
    decay: float = 3.550241114984682e-4


ARMS = {
    "backprop": Arm("backpropagation", None, 2.7487989229471686e-4, 5.1207238497154115e-3),
    "activities": Arm(
        "predictive coding, 8 steps of the activities",
        GradientDescent(n_steps=8, step=0.010534787245955935, momentum=0.65),
    ),
    "errors": Arm(
        "predictive coding, 4 steps of the errors", ErrorOptimisation(n_steps=4, step=0.1)
    ),
    "errors_auto": Arm(
        "predictive coding, 4 automatic steps of the errors",
        ErrorOptimisation(n_steps=4, step="auto"),
    ),
    "newton": Arm("predictive coding, one Gauss-Newton step", GaussNewton(n_steps=1, n_products=2)),
}
PUBLISHED = {"backprop": 0.9846, "activities": 0.9842}


def mnist() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return images in [-1, 1] and labels, for training and for the test."""
    parts: list[Tensor] = []
    for split in ("train", "test"):
        found = data.load("mnist", split=split)
        image = torch.from_numpy(found["image"].values.astype("float32")).flatten(1)
        parts += [image / 127.5 - 1, torch.from_numpy(found["label"].values.astype("int64"))]
    return parts[0], parts[1], parts[2], parts[3]


def network_of(seed: int) -> PCNetwork:
    """Return the network: nodes after the activation, squared errors."""
    torch.manual_seed(seed)
    layers: list[nn.Module] = []
    for below, above in itertools.pairwise(SIZES):
        layers += [nn.GELU(approximate="tanh")] if layers else []
        layers.append(nn.Linear(below, above))
    return predictive_coding(nn.Sequential(*layers))


def factor_at(step: int, total: int) -> float:
    """Return the share of the rate: a tenth of warm-up to 1.1, then a cosine down to 0.1."""
    warm = 0.1 * total
    if step < warm:
        return 1.0 + 0.1 * step / warm
    return float(0.1 + 0.5 * (1 + np.cos(np.pi * (step - warm) / (total - warm))))


def batches(n: int, epochs: int, seed: int) -> Iterator[Tensor]:
    """Yield shuffled indices; what does not fill a batch is left to the next epoch."""
    rng = np.random.default_rng(seed)
    for _ in range(epochs):
        order = torch.from_numpy(rng.permutation(n))
        yield from order[: n - n % BATCH].split(BATCH)


def accuracy(network: PCNetwork, image: Tensor, label: Tensor) -> float:
    """Return the share that a feedforward pass gets right."""
    with torch.no_grad():
        return float((network(image).argmax(1) == label).double().mean())


def train(arm: Arm, seed: int, epochs: int) -> dict[str, Any]:
    """Train once; return accuracies and the time that learning took until each of them."""
    image, label, test_image, test_label = mnist()
    target = functional.one_hot(label, 10).float()
    network = network_of(seed)
    optimiser = torch.optim.AdamW(network.parameters(), arm.rate, weight_decay=arm.decay)
    total = epochs * (len(image) // BATCH)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda k: factor_at(k, total))
    every = max(total // (epochs * LOOKS), 1)
    curve: list[dict[str, float]] = []
    processor = wall = 0.0
    for count, index in enumerate(batches(len(image), epochs, seed), start=1):
        begun = time.process_time(), time.perf_counter()
        ended = not learn(network, arm, image[index], target[index], optimiser)
        schedule.step()
        processor += time.process_time() - begun[0]
        wall += time.perf_counter() - begun[1]
        if count % every == 0 or count == total or ended:
            right = accuracy(network, test_image, test_label)
            curve.append({"batch": count, "accuracy": right, "processor_s": processor,
                          "wall_s": wall})  # fmt: skip
        if ended:
            break
    return summary(curve, epochs) | {"stopped_at": count if ended else None}


def learn(network: PCNetwork, arm: Arm, x: Tensor, y: Tensor, optimiser: Any) -> bool:
    """Learn from a batch; return False where inference runs off, and the weights stay."""
    if arm.method is None:
        backprop_step(network, {"input": x}, y, optimiser)
        return True
    try:
        train_step(network, {"input": x, "output": y}, arm.method, optimiser)
    except RuntimeError as error:
        print(error, flush=True)
        return False
    return True


def summary(curve: list[dict[str, float]], epochs: int) -> dict[str, Any]:
    """Return the curve with its end, its best, and the time to each mark."""
    times = {
        str(mark): next((c["processor_s"] for c in curve if c["accuracy"] >= mark), None)
        for mark in MARKS
    }
    return {
        "epochs": epochs,
        "last": curve[-1]["accuracy"],
        "best": max(c["accuracy"] for c in curve),
        "processor_s": curve[-1]["processor_s"],
        "wall_s": curve[-1]["wall_s"],
        "time_to": times,
        "curve": curve,
    }


def by_peer(python: str, seed: int, epochs: int) -> dict[str, Any]:
    """Train pcx on the same images with the same settings, in its own environment."""
    image, label, test_image, test_label = (part.numpy() for part in mnist())
    with tempfile.TemporaryDirectory() as folder:
        problem, answer = Path(folder) / "problem.npz", Path(folder) / "answer.json"
        np.savez(problem, image=image, label=label, test_image=test_image, test_label=test_label)
        script = HERE / "peers" / "pcx_mnist.py"
        command = [python, str(script), str(problem), str(answer), str(seed), str(epochs)]
        subprocess.run(command, check=True, env={**os.environ, "PYTHONPATH": ""})
        return summary(read_json(answer), epochs)


def pieces(folder: Path, names: list[str], seeds: int, run: Callable[[str, int], Any]) -> Any:
    """Run what is missing, seed by seed, and return everything: arm -> its runs."""
    found: dict[str, list[Any]] = {name: [] for name in names}
    for seed in range(seeds):
        for name in names:
            path = folder / f"{name}_{seed}.json"
            if not path.exists():
                write_json(path, run(name, seed))
            found[name].append(read_json(path))
            ends = found[name][-1]
            print(f"{name}, seed {seed}: {100 * ends['last']:.2f} %", flush=True)
    return found


def table(found: dict[str, list[Any]]) -> str:
    """Return the table for the README."""
    head = ["learning", "seeds", "epochs", "last %", "best %", "published best %"]
    head += [f"s to {100 * mark:g} %" for mark in MARKS[1:]] + ["s in all"]
    lines = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    for name, runs in found.items():
        last, best = ([100 * run[k] for run in runs] for k in ("last", "best"))
        says = ARMS[name].says if name in ARMS else f"{name}, the peer itself, same settings"
        shown = 100 * PUBLISHED[name] if name in PUBLISHED else None
        stopped = sum(run.get("stopped_at") is not None for run in runs)
        says += f", {stopped} of {len(runs)} stopped where inference ran off" if stopped else ""
        cells = [says, str(len(runs)), str(runs[0]["epochs"]), spread(last), spread(best)]
        cells.append("" if shown is None else f"{shown:.2f}")
        for mark in MARKS[1:]:
            reached = [run["time_to"][str(mark)] for run in runs]
            cells.append("-" if None in reached else f"{statistics.median(reached):.0f}")
        cells.append(f"{statistics.median(run['processor_s'] for run in runs):.0f}")
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join([*lines, "", NOTE, ""])


def spread(values: list[float]) -> str:
    """Return the mean and, of several, how far they lie apart."""
    mean = statistics.mean(values)
    return f"{mean:.2f}" if len(values) < 2 else f"{mean:.2f} ± {statistics.stdev(values):.2f}"


NOTE = f"""Mean and standard deviation over seeds; "best" is of any look at the test set, as pcx
reports it ({LOOKS} looks an epoch here, one there), "last" is what can be had without looking.
Seconds are of one processor core, of learning alone, medians over seeds."""


def main() -> None:
    """Train, write, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one seed, two epochs")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=25)
    parser.add_argument("--arms", nargs="*", default=list(ARMS), choices=list(ARMS))
    parser.add_argument("--peer", help="pcx=PYTHON: train that peer too")
    parser.add_argument("--output", type=Path)
    given = parser.parse_args()
    torch.set_num_threads(1)
    seeds, epochs = (1, 2) if given.quick else (given.seeds, given.epochs)
    folder = given.output or HERE / "results" / ("pc_mnist_quick" if given.quick else "pc_mnist")
    names, python = list(given.arms), ""
    if given.peer:
        name, python = given.peer.split("=", 1)
        if name != "pcx":
            parser.error(f"peer {name!r}: only pcx trains on MNIST here")
        names.append(name)

    def run(name: str, seed: int) -> dict[str, Any]:
        return train(ARMS[name], seed, epochs) if name in ARMS else by_peer(python, seed, epochs)

    text = table(pieces(folder, names, seeds, run))
    print(text)
    write_text(folder / "table.md", text)


if __name__ == "__main__":
    main()
