"""Do very deep predictive-coding networks learn? Residual networks on MNIST, and backpropagation.

    python benchmarks/bench_pc_depth.py [--depths 64 128] [--rate 0.01] [--batches 150]

Width 128, muPC scaling, ReLU, cross-entropy, Adam, batches of 64, one seed; the test set is looked
at once, at the end. An arm takes some seconds of one core at depth 64. Writes
``results/pc_depth.json`` (arms that are there and are not asked for stay) and the table in
``benchmarks/README.md``. Needs MNIST (``PCSIM_DATA``, or ``pcsim data fetch mnist``).
"""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path
from typing import Any

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[_name] = "1"

import torch  # noqa: E402
from bench_pc_mnist import mnist  # noqa: E402
from pc_tables import between, row  # noqa: E402
from torch import Tensor  # noqa: E402
from torch.nn import functional  # noqa: E402

from pcsim.deep.pc_depth import residual_network  # noqa: E402
from pcsim.deep.pc_energy import CrossEntropy  # noqa: E402
from pcsim.deep.pc_errors import ErrorOptimisation  # noqa: E402
from pcsim.deep.pc_inference import Inference  # noqa: E402
from pcsim.deep.pc_learning import backprop_step, train_step  # noqa: E402
from pcsim.deep.pc_newton import GaussNewton  # noqa: E402
from pcsim.storage import read_json, write_json  # noqa: E402

HERE = Path(__file__).resolve().parent
WIDTH, BATCH = 128, 64
ARMS: dict[str, Inference | None] = {
    "backpropagation": None,
    "4 steps of the errors, 0.05": ErrorOptimisation(n_steps=4, step=0.05),
    "4 steps of the errors, 0.3": ErrorOptimisation(n_steps=4, step=0.3),
    "one Gauss-Newton step": GaussNewton(n_steps=1),
}


def train(arm: str, depth: int, rate: float, n_batches: int, images: tuple[Tensor, ...]) -> float:
    """Return the share of the test set that is right after so many batches; NaN if it diverges."""
    x, label, test, test_label = images
    draw = torch.Generator().manual_seed(0)
    network = residual_network(784, WIDTH, 10, depth=depth, output=CrossEntropy(), generator=draw)
    optimiser = torch.optim.Adam(network.parameters(), rate)
    order = torch.randperm(len(x), generator=draw)
    method = ARMS[arm]
    for rows in order[: n_batches * BATCH].split(BATCH):
        target = functional.one_hot(label[rows], 10).float()
        try:
            if method is None:
                backprop_step(network, {"input": x[rows]}, target, optimiser)
            else:
                train_step(network, {"input": x[rows], "output": target}, method, optimiser)
        except RuntimeError:
            return float("nan")
    with torch.no_grad():
        return float((network(test).argmax(1) == test_label).double().mean())


def table(found: list[dict[str, Any]]) -> str:
    """Return the table."""
    head = ["depth", "learning", "Adam's rate", "batches", "test %", "processor s"]
    lines = [row(head), row(["---"] * len(head))]
    for one in found:
        cells = [str(one[k]) for k in ("depth", "arm", "rate", "batches")]
        lines.append(row([*cells, f"{100 * one['accuracy']:.1f}", f"{one['processor_s']:.0f}"]))
    return "\n".join([*lines, ""])


def main() -> None:
    """Train, write, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--depths", type=int, nargs="+", default=[64])
    parser.add_argument("--arms", nargs="+", choices=list(ARMS), default=list(ARMS)[:3])
    parser.add_argument("--rate", type=float, default=0.01)
    parser.add_argument("--batches", type=int, default=150)
    given = parser.parse_args()
    torch.set_num_threads(1)
    images = mnist()
    path = HERE / "results" / "pc_depth.json"
    found: list[dict[str, Any]] = read_json(path) if path.exists() else []
    for depth in given.depths:
        for arm in given.arms:
            asked = {"depth": depth, "arm": arm, "rate": given.rate, "batches": given.batches}
            start = time.process_time()
            accuracy = train(arm, depth, given.rate, given.batches, images)
            taken = time.process_time() - start
            found = [one for one in found if any(one[k] != v for k, v in asked.items())]
            found.append({**asked, "accuracy": accuracy, "processor_s": taken})
            print(asked, accuracy, f"{taken:.0f} s", flush=True)
            write_json(path, found)
            between(HERE / "README.md", "pc_depth", table(found))


if __name__ == "__main__":
    main()
