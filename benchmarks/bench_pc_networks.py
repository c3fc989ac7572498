"""How fast are predictive-coding networks? Beside hand-written loops and peers, in one run.

    python benchmarks/bench_pc_networks.py [--quick] [--only PART] [--peer pcx=/path/to/python ...]

Pins one core, checks that all ways reach the same energy, and writes ``results/pc_networks.json``,
the tables in ``benchmarks/README.md`` and ``docs/figures/pc_cost.png``. Peers (pcx, fabricpc,
ngclearn) run in environments of their own, whose Python is given; without it they are said to be
skipped. Some minutes; ``--quick`` one. ``--only`` measures one part again and keeps the rest of the
results: ``depth``, ``memory``, or ``left``, where peers settle.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import platform
import time
from pathlib import Path
from typing import Any

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[_name] = "1"

import numpy as np  # noqa: E402
import torch  # noqa: E402
from pc_curves import Arrays, curves, draw, memory, memory_curves, network_of, problem  # noqa: E402
from pc_loops import LEARNING_RATE, RATE, AutogradLoop, NumpyLoop, TorchLoop  # noqa: E402
from pc_tables import into_readme, table  # noqa: E402
from pc_timing import Block, Peer, here, peers_of, side_by_side  # noqa: E402

from pcsim.deep.pc_errors import ErrorOptimisation  # noqa: E402
from pcsim.deep.pc_fast import PlainTrainer  # noqa: E402
from pcsim.deep.pc_inference import GradientDescent, infer  # noqa: E402
from pcsim.deep.pc_newton import GaussNewton  # noqa: E402
from pcsim.storage import write_json  # noqa: E402

HERE = Path(__file__).resolve().parent
WORKLOAD = (784, 256, 256, 256, 10)
COLUMN = (16, 32, 32, 32, 8)
T = 20
RATES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8)
OTHER = 7
"""Seed of the weights and data on which rates are chosen; times are taken on seed 0."""


def to_peer(sizes: tuple[int, ...], batch: int, n_steps: int, rate: float) -> dict[str, Any]:
    """Return what a peer's script reads."""
    weights, biases, (x, y) = problem(sizes, batch)
    settings = {"n_steps": n_steps, "rate": rate, "learning_rate": LEARNING_RATE}
    arrays = {f"weight_{i}": weight for i, weight in enumerate(weights)}
    arrays |= {f"bias_{i}": bias for i, bias in enumerate(biases)}
    return {"n_layers": len(weights), "x": x, "y": y, **settings, **arrays}


def gemm_rate(n: int, repeats: int) -> float:
    """Return the floating-point operations a second of one square product."""
    a, b, out = (torch.randn(n, n) for _ in range(3))
    way = {"mm": here(lambda: torch.mm(a, b, out=out))}
    return float(2 * n**3 / (1e-3 * side_by_side(way, repeats)["mm"]["best_ms"]))


def flops(sizes: tuple[int, ...], batch: int, n_steps: int) -> float:
    """Return the operations that products need: nothing that is clamped or at rest twice."""
    counts = [a * b for a, b in itertools.pairwise(sizes)]
    top = len(counts)
    start = sum(counts[:-1])  # the feedforward pass up to the last hidden node
    # News of the output climbs down one node a step; below it errors are zero.
    steps = 2 * sum(sum(counts[max(1, top - 1 - k) :]) for k in range(n_steps))
    learning = sum(counts[1:]) + sum(counts)  # fresh errors, and the weights' products
    return float(2 * batch * (start + steps + learning))


class Judge:
    """What the fixed steps must end at, in double precision, for either convention."""

    def __init__(self, sizes: tuple[int, ...], batch: int) -> None:
        self.weights, self.biases, (x, y) = problem(sizes, batch)
        self.x, self.y = torch.tensor(x), torch.tensor(y)
        self.expected: dict[str, tuple[float, Arrays]] = {}

    def ratio(self, states: Arrays, cut: str = "before_activation") -> float:
        """Return by how much, relatively, the energy of these hidden states is off."""
        network = network_of(self.weights, self.biases, torch.float64, cut)
        given = {"input": self.x, "output": self.y}
        hidden = zip(network.names[1:-1], states, strict=True)
        given |= {name: torch.tensor(state).double() for name, state in hidden}
        with torch.no_grad():
            energy = float(network.energy(given).mean())
        return abs(energy / self.ends(cut)[0] - 1)

    def ends(self, cut: str) -> tuple[float, Arrays]:
        """Return the energy that is right, and the weights after the update."""
        if cut not in self.expected:
            network = network_of(self.weights, self.biases, torch.float64, cut)
            method = GradientDescent(n_steps=T, step=RATE)
            settled = infer(network, {"input": self.x, "output": self.y}, method, record=True)
            PlainTrainer(network, method, learning_rate=LEARNING_RATE, path="general")(
                self.x, self.y
            )
            weights = [p.detach().numpy() for p in network.parameters() if p.ndim == 2]
            self.expected[cut] = float(settled.energy.mean()), weights
        return self.expected[cut]

    def check_weights(self, weights: Arrays, cut: str) -> None:
        """Refuse a peer whose weights moved elsewhere."""
        rights = self.ends(cut)[1]
        for before, right, weight in zip(self.weights, rights, weights, strict=True):
            off = np.abs(weight - right).max()
            assert off < 1e-6 + 1e-2 * np.abs(right - before).max(), off


def hand_written(sizes: tuple[int, ...], batch: int) -> dict[str, tuple[Block, Arrays]]:
    """Return the loops written by hand, and where each settles."""
    weights, biases, (x, y) = problem(sizes, batch)
    x32, y32 = x.astype("float32"), y.astype("float32")
    xt, yt = torch.from_numpy(x32), torch.from_numpy(y32)
    with_numpy, with_torch = NumpyLoop(weights, biases), TorchLoop(weights, biases, batch)
    generic = AutogradLoop(weights, biases)
    settled = with_numpy.settle(x32, y32, T)
    with_torch.update(xt, yt, T)
    generic.update(xt, yt, T)
    kept = [s.clone().numpy() for s in with_torch.z[:-1]]
    return {
        "torch, by hand": (here(lambda: with_torch.update(xt, yt, T)), kept),
        "numpy, by hand": (here(lambda: with_numpy.update(x32, y32, T)), settled),
        "torch, autograd at every step": (
            here(lambda: generic.update(xt, yt, T)),
            [s.detach().numpy() for s in generic.z],
        ),
    }


def fixed_steps(
    sizes: tuple[int, ...], batch: int, repeats: int, peers: dict[str, str]
) -> dict[str, Any]:
    """Time T steps and one update of the weights, all ways; check their energies first."""
    weights, biases, (x, y) = problem(sizes, batch)
    xt, yt = torch.tensor(x).float(), torch.tensor(y).float()
    network, judge = network_of(weights, biases), Judge(sizes, batch)
    method = GradientDescent(n_steps=T, step=RATE)
    trainer = PlainTrainer(network, method, learning_rate=LEARNING_RATE)
    start = time.process_time()
    trainer(xt, yt)
    first = {"pcsim": time.process_time() - start}
    own = [trainer.states[k].clone().numpy() for k in network.names[1:-1]]
    ways: dict[str, Block] = {"pcsim": here(lambda: trainer(xt, yt))}
    off = {"pcsim": judge.ratio(own)}
    for name, (way, states) in hand_written(sizes, batch).items():
        ways[name], off[name] = way, judge.ratio(states)
    started = [Peer(k, python, to_peer(sizes, batch, T, RATE)) for k, python in peers.items()]
    for peer in started:
        cut, n = peer.about["cut"], len(sizes) - 2
        judge.check_weights([peer.arrays[f"weight_{i}"] for i in range(n + 1)], cut)
        ways[peer.title] = peer
        off[peer.title] = judge.ratio([peer.arrays[f"state_{i}"] for i in range(n)], cut)
        first[peer.title] = peer.about["first_processor_s"]
    for name, difference in off.items():
        assert difference < 1e-6, (name, difference)
    found = {"ways": side_by_side(ways, repeats, 50 if batch == 1 else 1), "first_call_s": first}
    found |= {"singly": side_by_side(ways, 3 * repeats)} if batch == 1 else {}
    for peer in started:
        peer.close()
    return {**found, "differences": off, "flop": flops(sizes, batch, T),
            "energy": judge.ends("before_activation")[0]}  # fmt: skip


class Near:
    """One network and batch, and how far from equilibrium states are."""

    def __init__(self, seed: int) -> None:
        self.weights, self.biases, (x, y) = problem(WORKLOAD, 256, seed)
        self.double = {"input": torch.tensor(x), "output": torch.tensor(y)}
        self.x, self.y = torch.tensor(x).float(), torch.tensor(y).float()
        self.clamp = {"input": self.x, "output": self.y}
        self.network = network_of(self.weights, self.biases)
        exact = network_of(self.weights, self.biases, torch.float64)
        self.lowest = self.lowest_of(exact)
        with torch.no_grad():
            start = exact.feedforward({"input": self.double["input"]})
            self.start = float(exact.energy(start | self.double).mean())

    def lowest_of(self, network: Any) -> float:
        """Return the energy at equilibrium, in double precision."""
        best = infer(network, self.double, GaussNewton(n_steps=50, tol=1e-9))
        return float(best.energy.mean())

    def left_by(self, peer: Peer) -> float:
        """Return the same of a peer where it settled, by the energy of its own convention."""
        exact = network_of(self.weights, self.biases, torch.float64, peer.about["cut"])
        given = dict(self.double)
        for i, name in enumerate(exact.names[1:-1]):
            given[name] = torch.tensor(peer.arrays[f"state_{i}"]).double()
        with torch.no_grad():
            return float(exact.energy(given).mean()) / self.lowest_of(exact) - 1

    def left(self, method: Any) -> float:
        """Return the energy above the lowest, relative to the lowest."""
        return float(infer(self.network, self.clamp, method).energy.mean()) / self.lowest - 1

    def steps(self, kind: Any, rate: float, most: int) -> int:
        """Return how many steps come within 1 % of the lowest energy; `most` if none do."""
        counts = range(1, most)
        return next((n for n in counts if self.left(kind(n_steps=n, step=rate)) <= 0.01), most)


def rate_for(kind: Any, most: int) -> float:
    """Return the rate of the grid that needs the fewest steps, on other weights and data."""
    near = Near(OTHER)
    rates: list[float] = []
    for rate in RATES:
        try:
            near.left(kind(n_steps=most, step=rate))
        except RuntimeError:  # it diverges, and so do larger ones
            break
        rates.append(rate)
    return min(rates, key=lambda rate: near.steps(kind, rate, most))


def to_equilibrium(repeats: int, peers: dict[str, str]) -> dict[str, Any]:
    """Time what it takes to come within 1 % of the lowest energy, from the feedforward start."""
    near = Near(0)
    loop = TorchLoop(near.weights, near.biases, 256)
    best, step = rate_for(GradientDescent, 60), rate_for(ErrorOptimisation, 12)
    methods: dict[str, Any] = {}
    for rate in (RATE, best):
        n = near.steps(GradientDescent, rate, 200)
        methods[f"plain descent by hand, rate {rate}"] = GradientDescent(n_steps=n, step=rate)
    n = near.steps(ErrorOptimisation, step, 30)
    methods[f"pcsim, errors, rate {step}"] = ErrorOptimisation(n_steps=n, step=step)
    methods["pcsim, Gauss-Newton"] = GaussNewton(n_steps=1, n_products=1)
    ways: dict[str, Block] = {}
    started = []
    steps = {name: method.n_steps for name, method in methods.items()}
    left = {name: near.left(method) for name, method in methods.items()}
    for name, method in methods.items():
        assert left[name] <= 0.01, name
        if "by hand" in name:
            rate, n = method.step, method.n_steps
            ways[name] = here(lambda n=n, rate=rate: loop.settle(near.x, near.y, n, rate))  # type: ignore[misc]
            for peer, python in peers.items():
                started.append(Peer(peer, python, to_peer(WORKLOAD, 256, n, rate)))
                title = f"{started[-1].title}, rate {rate}, and an update"
                ways[title], steps[title] = started[-1], n
                left[title] = near.left_by(started[-1])
        else:
            ways[name] = here(lambda m=method: infer(near.network, near.clamp, m))  # type: ignore[misc]
    times = side_by_side(ways, repeats)
    for process in started:
        process.close()
    return {
        "ways": times,
        "steps": steps,
        "left": left,
        "lowest": near.lowest,
        "start": near.start,
    }


def depths(widest: int) -> list[dict[str, Any]]:
    """Count steps to within 1 % of the way to equilibrium against depth, best rate of a grid."""
    rows = []
    for depth in (4, 8, 16)[:widest]:
        counts = {}
        for what, kind, most in (
            ("plain", GradientDescent, 600),
            ("errors", ErrorOptimisation, 60),
        ):
            rates = (0.2, 0.4, 0.6)
            best = min(rates, key=lambda r: steps_at(depth, kind, r, most, OTHER))
            counts[what] = steps_at(depth, kind, best, most, 1)
        rows.append({"depth": depth, **counts})
    return rows


def steps_at(depth: int, kind: Any, rate: float, most: int, seed: int) -> int:
    """Return after how many steps 1 % of the way is left in a network 64 wide."""
    weights, biases, (x, y) = problem((64,) * depth + (10,), 64, seed=seed)
    network = network_of(weights, biases)
    clamp = {"input": torch.tensor(x).float(), "output": torch.tensor(y).float()}
    lowest = float(infer(network, clamp, GaussNewton(n_steps=30, tol=1e-5)).energy.sum())
    try:
        found = infer(network, clamp, kind(n_steps=most, step=rate), record=True).trace
    except RuntimeError:
        return 10**9
    near = np.array(found) <= lowest + 0.01 * (found[0] - lowest)
    return int(np.argmax(near)) if near.any() else 10**9


def renew_left(found: dict[str, Any], peers: dict[str, str]) -> None:
    """Fill in where peers settle; energies depend on no load, and times stay as they are."""
    near, part = Near(0), found["equilibrium"]
    for name in [n for n in part["steps"] if n.startswith("plain")]:
        n, rate = part["steps"][name], float(name.rsplit(" ", 1)[1])
        for peer, python in peers.items():
            process = Peer(peer, python, to_peer(WORKLOAD, 256, n, rate))
            title = f"{process.title}, rate {rate}, and an update"
            part["steps"][title], part["left"][title] = n, near.left_by(process)
            process.close()


def renew_depth(found: dict[str, Any], peers: dict[str, str]) -> None:
    """Time the curve against depth again, at the load of now."""
    others = [row for row in found["curves"] if row["varied"] != "depth"]
    found["curves"] = curves(5, ("depth",)) + others
    found["later"] = {**found.get("later", {}), "depth": os.getloadavg()[0]}


def renew_memory(found: dict[str, Any], peers: dict[str, str]) -> None:
    """Measure memory again; no load changes it."""
    found["memory_curves"] = memory_curves()


PARTS = {"depth": renew_depth, "left": renew_left, "memory": renew_memory}
"""What `--only` measures again, into the results that are there."""


def measure(peers: dict[str, str], *, quick: bool) -> dict[str, Any]:
    """Measure everything."""
    load = os.getloadavg()[0]
    repeats = 8 if quick else 20
    rate = gemm_rate(256, 50 * repeats)
    rows = curves(max(repeats // 3, 3))
    found: dict[str, Any] = {
        "workload": fixed_steps(WORKLOAD, 256, repeats, peers),
        "column": fixed_steps(COLUMN, 1, repeats, peers),
        "equilibrium": to_equilibrium(repeats, peers),
        "depths": depths(2 if quick else 3),
        "curves": rows,
        "memory_kib": memory((256,) * 4 + (10,), T),
        "memory_curves": memory_curves(),
        "gemm": max(rate, gemm_rate(256, 50 * repeats)),
        "load": load,
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "torch": torch.__version__,
    }
    found["bound_ms"] = 1e3 * found["workload"]["flop"] / found["gemm"]
    return found


def main() -> None:
    """Measure, write, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--only", choices=sorted(PARTS), action="append", default=[])
    parser.add_argument("--peer", action="append", default=[], help="NAME=PYTHON, several times")
    given = parser.parse_args()
    peers = peers_of(given.peer)
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    torch.set_num_threads(1)
    results = HERE / "results" / "pc_networks.json"
    if given.only:
        found = json.loads(results.read_text())
        for part in given.only:
            PARTS[part](found, peers)
    else:
        found = measure(peers, quick=given.quick)
    text = table(found)
    print(text)
    if not given.quick:
        results.parent.mkdir(exist_ok=True)
        write_json(results, found)
        into_readme(HERE / "README.md", text)
        draw(found["curves"], HERE.parent / "docs" / "figures" / "pc_cost.png")


if __name__ == "__main__":
    main()
