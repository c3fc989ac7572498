"""Do very deep predictive-coding networks learn? Residual networks on MNIST, and backpropagation.

    python benchmarks/bench_pc_depth.py [--setting FabricPC] [--energy cross-entropy]
        [--depths 64 128] [--arms ...] [--rates 0.01]

Width 128, muPC scaling, ReLU, squared errors at the output if nothing else is asked for, Adam, one
seed. A setting is how long and in what
batches a peer trained networks of such depth (`SETTINGS`). Of several rates the best on 10,000
images held out of the training set is taken; the test set is looked at once for each, at the end.
Every arm is written as it ends to ``results/pc_depth.json`` (arms that are not asked for stay) and
to the table in ``benchmarks/README.md``. Needs MNIST (``PCSIM_DATA``, or ``pcsim data fetch
mnist``).
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[_name] = "1"

import torch  # noqa: E402
from bench_pc_mnist import mnist  # noqa: E402
from pc_tables import best_of, keep, percent, row  # noqa: E402
from torch import Tensor  # noqa: E402
from torch.nn import functional  # noqa: E402

from pcsim.deep.pc_depth import residual_network  # noqa: E402
from pcsim.deep.pc_energy import CrossEntropy, Energy, SquaredError  # noqa: E402
from pcsim.deep.pc_errors import ErrorOptimisation  # noqa: E402
from pcsim.deep.pc_inference import Inference  # noqa: E402
from pcsim.deep.pc_learning import backprop_step, train_step  # noqa: E402
from pcsim.deep.pc_newton import GaussNewton  # noqa: E402

WIDTH, N_VALIDATION = 128, 10_000
ENERGIES: dict[str, Energy] = {"squared": SquaredError(), "cross-entropy": CrossEntropy()}


@dataclass(frozen=True)
class Setting:
    """How a peer trained."""

    n_batches: int
    size: int
    depths: tuple[int, ...]
    published: Mapping[int, str]
    """Test accuracies of the peer in percent, by depth."""


SETTINGS = {
    "jpc": Setting(900, 64, (30,), {30: "93.26 (jpc)"}),
    "FabricPC": Setting(
        703, 256, (64, 128), {64: "83.5 and 85.4 (FabricPC)", 128: "83.9 and 82.2 (FabricPC)"}
    ),
}
"""jpc's muPC notebook, and FabricPC's comparison with it, two of its parameterisations."""
ARMS: dict[str, Inference | None] = {
    "backpropagation": None,
    "4 steps of the errors, 0.05": ErrorOptimisation(n_steps=4, step=0.05),
    "4 steps of the errors, 0.3": ErrorOptimisation(n_steps=4, step=0.3),
    "4 automatic steps of the errors": ErrorOptimisation(n_steps=4, step="auto"),
    "one Gauss-Newton step": GaussNewton(n_steps=1),
}


def batches(n: int, setting: Setting, draw: torch.Generator) -> Iterator[Tensor]:
    """Yield shuffled indices, every epoch in a new order; what fills no batch is left out."""
    count = 0
    while True:
        for rows in torch.randperm(n, generator=draw).split(setting.size):
            if len(rows) < setting.size:
                continue
            if count == setting.n_batches:
                return
            count += 1
            yield rows


def train(
    arm: str,
    depth: int,
    rate: float,
    setting: Setting,
    images: tuple[Tensor, ...],
    *,
    energy: str,
) -> tuple[float | None, float | None]:
    """Return the shares of held-out and of test images that are right; None if it diverges."""
    x, label, test, test_label = images
    known, known_label = x[:-N_VALIDATION], label[:-N_VALIDATION]
    draw = torch.Generator().manual_seed(0)
    output = ENERGIES[energy]
    network = residual_network(784, WIDTH, 10, depth=depth, output=output, generator=draw)
    optimiser = torch.optim.Adam(network.parameters(), rate)
    method = ARMS[arm]
    for rows in batches(len(known), setting, draw):
        target = functional.one_hot(known_label[rows], 10).float()
        try:
            if method is None:
                backprop_step(network, {"input": known[rows]}, target, optimiser)
            else:
                train_step(network, {"input": known[rows], "output": target}, method, optimiser)
        except RuntimeError:
            return None, None
    pairs = ((x[-N_VALIDATION:], label[-N_VALIDATION:]), (test, test_label))
    with torch.no_grad():
        found = [float((network(a).argmax(1) == b).double().mean()) for a, b in pairs]
    return found[0], found[1]


def measure(
    arm: str,
    depth: int,
    rates: Sequence[float],
    name: str,
    images: tuple[Tensor, ...],
    *,
    energy: str,
) -> dict[str, Any]:
    """Train at every rate; return the one that is best on held-out images."""
    tried: dict[float, float | None] = {}
    tested, seconds = {}, {}
    for rate in rates:
        start = time.process_time()
        tried[rate], tested[rate] = train(arm, depth, rate, SETTINGS[name], images, energy=energy)
        seconds[rate] = time.process_time() - start
        found = f"{percent(tried[rate])} %, {seconds[rate]:.0f} s"
        print(name, energy, depth, arm, rate, found, flush=True)
    best = best_of(tried)
    return {
        "setting": name, "energy": energy, "depth": depth, "arm": arm, "rate": best,
        "held_out": tried[best], "test": tested[best], "processor_s": seconds[best],
        "tried": {f"{rate:g}": share for rate, share in tried.items()},
    }  # fmt: skip


def table(found: list[dict[str, Any]]) -> str:
    """Return the table."""
    head = [
        "depth",
        "energy of the output",
        "learning",
        "batches",
        "Adam's rate, of",
        "held out %",
        "test %",
    ]
    head += ["published test %", "processor s"]
    lines = [row(head), row(["---"] * len(head))]
    for one in found:
        setting = SETTINGS[one["setting"]]
        cells = [
            str(one["depth"]),
            one["energy"],
            one["arm"],
            f"{setting.n_batches} of {setting.size}",
        ]
        cells.append(f"{one['rate']:g}, {' '.join(one['tried'])}")
        cells += [percent(one[share]) for share in ("held_out", "test")]
        # Peers had squared errors and no backpropagation.
        theirs = one["energy"] == "squared" and ARMS[one["arm"]] is not None
        peer = setting.published.get(one["depth"], "") if theirs else ""
        lines.append(row([*cells, peer, f"{one['processor_s']:.0f}"]))
    return "\n".join([*lines, ""])


def main() -> None:
    """Train, write, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--setting", choices=list(SETTINGS), default="jpc")
    parser.add_argument("--energy", choices=list(ENERGIES), default="squared")
    parser.add_argument("--depths", type=int, nargs="+")
    parser.add_argument("--arms", nargs="+", choices=list(ARMS), default=list(ARMS))
    parser.add_argument("--rates", type=float, nargs="+", default=[0.003, 0.01, 0.03])
    given = parser.parse_args()
    torch.set_num_threads(1)
    images = mnist()
    for depth in given.depths or SETTINGS[given.setting].depths:
        for arm in given.arms:
            one = measure(arm, depth, given.rates, given.setting, images, energy=given.energy)
            keep("pc_depth", one, ("setting", "energy", "depth", "arm"), table)


if __name__ == "__main__":
    main()
