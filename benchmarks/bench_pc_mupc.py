"""What scales by place (muPC) do for residual networks of convolutions, at two depths.

    python benchmarks/bench_pc_mupc.py [--depths 8 64] [--batches 150]

MNIST, two convolutions of stride 2, as many residual branches (ReLU and a 3x3 convolution, 8
channels) as the depth, a linear readout; squared errors, Adam, batches of 64, one seed. The same
network with torch's own initial weights beside it, each learning by predictive coding and by
backpropagation, each at the best of `RATES` on 10,000 images held out of the training set. The test
set is looked at once for each. Every arm is written as it ends to ``results/pc_mupc.json`` and to
the table in ``benchmarks/README.md``. Needs MNIST (``PCSIM_DATA``, or ``pcsim data fetch mnist``).
"""

from __future__ import annotations

import argparse
import os
import time
from typing import Any

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[_name] = "1"

import torch  # noqa: E402
from bench_pc_mnist import mnist  # noqa: E402
from pc_tables import best_of, keep, percent, row  # noqa: E402
from torch import Tensor, nn  # noqa: E402
from torch.nn import functional  # noqa: E402

from pcsim.deep.pc_depth import Residual  # noqa: E402
from pcsim.deep.pc_errors import ErrorOptimisation  # noqa: E402
from pcsim.deep.pc_learning import backprop_step, train_step  # noqa: E402
from pcsim.deep.pc_mupc import mupc  # noqa: E402
from pcsim.deep.pc_network import PCNetwork  # noqa: E402
from pcsim.deep.pc_trace import predictive_coding  # noqa: E402

CHANNELS, BATCH, N_VALIDATION = 8, 64, 10_000
RATES = (0.001, 0.003, 0.01, 0.03)
SCALES = ("muPC", "torch's own")
RULES = ("predictive coding", "backpropagation")


def network_of(depth: int, scales: str) -> PCNetwork:
    """Return the network."""
    torch.manual_seed(0)
    body = nn.Sequential(
        nn.Conv2d(1, CHANNELS, 3, 2, padding=1),
        nn.Conv2d(CHANNELS, CHANNELS, 3, 2, padding=1),
        *(
            Residual(nn.Sequential(nn.ReLU(), nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1)))
            for _ in range(depth)
        ),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(49 * CHANNELS, 10),
    )
    return predictive_coding(mupc(body) if scales == "muPC" else body, cut="before_activation")


def train(
    depth: int, scales: str, rule: str, rate: float, n_batches: int, images: tuple[Tensor, ...]
) -> tuple[float | None, float | None]:
    """Return the shares of held-out and of test images that are right; None if it diverges."""
    x, label, test, test_label = (
        one.view(-1, 1, 28, 28) if one.ndim > 1 else one for one in images
    )
    known, known_label = x[:-N_VALIDATION], label[:-N_VALIDATION]
    network = network_of(depth, scales)
    optimiser = torch.optim.Adam(network.parameters(), rate)
    method = ErrorOptimisation(n_steps=4, step="auto")
    order = torch.randperm(len(known), generator=torch.Generator().manual_seed(0))
    for rows in order[: n_batches * BATCH].split(BATCH):
        target = functional.one_hot(known_label[rows], 10).float()
        try:
            if rule == "backpropagation":
                backprop_step(network, {"input": known[rows]}, target, optimiser)
            else:
                train_step(network, {"input": known[rows], "output": target}, method, optimiser)
        except RuntimeError:
            return None, None
    pairs = ((x[-N_VALIDATION:], label[-N_VALIDATION:]), (test, test_label))
    with torch.no_grad():
        found = [right(network, a, b) for a, b in pairs]
    return found[0], found[1]


def right(network: PCNetwork, x: Tensor, label: Tensor) -> float:
    """Return the share of images whose class is found."""
    found = torch.cat([network(part).argmax(1) for part in x.split(1000)])
    return float((found == label).double().mean())


def measure(
    depth: int, scales: str, rule: str, n_batches: int, images: tuple[Tensor, ...]
) -> dict[str, Any]:
    """Train at every rate; return the one that is best on held-out images."""
    tried: dict[float, float | None] = {}
    tested = {}
    start = time.process_time()
    for rate in RATES:
        tried[rate], tested[rate] = train(depth, scales, rule, rate, n_batches, images)
        print(depth, scales, rule, rate, f"{percent(tried[rate])} %", flush=True)
    best = best_of(tried)
    return {
        "depth": depth, "scales": scales, "rule": rule, "batches": n_batches, "rate": best,
        "held_out": tried[best], "test": tested[best],
        "tried": {f"{rate:g}": share for rate, share in tried.items()},
        "processor_s": time.process_time() - start,
    }  # fmt: skip


def table(found: list[dict[str, Any]]) -> str:
    """Return the table."""
    head = ["branches", "scales", "learning", "best rate"]
    head += [f"held out % at {rate:g}" for rate in RATES] + ["test %", "processor s"]
    lines = [row(head), row(["---"] * len(head))]
    for one in found:
        cells = [str(one["depth"]), one["scales"], one["rule"], f"{one['rate']:g}"]
        shares = [*one["tried"].values(), one["test"]]
        cells += [percent(share) for share in shares]
        lines.append(row([*cells, f"{one['processor_s']:.0f}"]))
    return "\n".join([*lines, ""])


def main() -> None:
    """Train, write, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--depths", type=int, nargs="+", default=[8, 64])
    parser.add_argument("--batches", type=int, default=150)
    given = parser.parse_args()
    torch.set_num_threads(1)
    images = mnist()
    for depth in given.depths:
        for rule in RULES:
            for scales in SCALES:
                one = measure(depth, scales, rule, given.batches, images)
                keep("pc_mupc", one, ("depth", "scales", "rule"), table)


if __name__ == "__main__":
    main()
