"""Does torch.compile make a training step faster on a processor? Called in turns with plain torch.

    python benchmarks/bench_compile.py [--repeats 8]

One step of the optimiser of the latent Gaussian model (784-512-512-64, highway links in the
inference network, batch 64), with direct and with iterative inference of five steps, with and
without ``TrainingSettings(compile=True)``; and one update of the predictive-coding network of
``bench_pc_networks.py`` (256 wide, four weight matrices, batch 64, T = 20) on the path for any
graph, with and without compiled predictions, beside the fused path, which needs no compiler. That
compiled and plain steps give equal losses is checked first. Writes ``results/compile.json`` and the
table in ``benchmarks/README.md``. Needs a C++ compiler; no GPU and no CUDA graph is measured.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[_name] = "1"

import torch  # noqa: E402
from pc_curves import network_of, problem  # noqa: E402
from pc_loops import LEARNING_RATE, RATE  # noqa: E402
from pc_tables import between, row  # noqa: E402
from pc_timing import here, side_by_side  # noqa: E402

from pcsim.deep.arms import Arm  # noqa: E402
from pcsim.deep.inference import Evaluation  # noqa: E402
from pcsim.deep.networks import FullyConnected  # noqa: E402
from pcsim.deep.outputs import Bernoulli  # noqa: E402
from pcsim.deep.pc_fast import PlainTrainer  # noqa: E402
from pcsim.deep.pc_inference import GradientDescent  # noqa: E402
from pcsim.deep.training_settings import TrainingSettings  # noqa: E402
from pcsim.deep.training_step import TrainingStep, generator_for, torch_settings  # noqa: E402
from pcsim.storage import write_json  # noqa: E402

HERE = Path(__file__).resolve().parent
BATCH, T = 64, 20
SIZES = (256, 256, 256, 256, 10)


def latent_step(inference: str, *, compiled: bool) -> Callable[[], float]:
    """Return one step of training on fixed data, as `pcsim.deep.training` takes it."""
    model, how = Arm(inference=inference).build(784, 0, Bernoulli())
    step = TrainingStep(model, how)
    if compiled:
        for module in step.modules():
            if isinstance(module, FullyConnected):
                module.compile()
    optimiser = torch.optim.Adam(step.parameters(), lr=2e-4, fused=True)
    x = torch.bernoulli(torch.full((BATCH, 784), 0.3), generator=generator_for("cpu", 1))

    def run() -> float:
        evaluation = Evaluation(n_samples=1, generator=generator_for("cpu", 2))
        optimiser.zero_grad()
        loss, met = step(x, evaluation, None)
        loss.backward()
        optimiser.step()
        return float(met.total.mean())

    return run


def network_update(path: str, *, compiled: bool) -> Callable[[], float]:
    """Return one update of the predictive-coding network on fixed data."""
    weights, biases, (x, y) = problem(SIZES, BATCH)
    network = network_of(weights, biases)
    if compiled:
        network.predict = torch.compile(network.predict)
    method = GradientDescent(n_steps=T, step=RATE)
    trainer = PlainTrainer(network, method, learning_rate=LEARNING_RATE, path=path)
    given = torch.tensor(x).float(), torch.tensor(y).float()

    def run() -> float:
        trainer(*given)
        with torch.no_grad():
            return float(network.energy(trainer.states).mean())

    return run


def measure(name: str, steps: dict[str, Callable[[], float]], repeats: int) -> dict[str, Any]:
    """Check that all ways lose the same, and time them in turns."""
    first, losses = {}, {}
    for way, step in steps.items():
        start = time.process_time()
        losses[way] = [step() for _ in range(3)]
        first[way] = time.process_time() - start
    plain = losses["plain"]
    for way, loss in losses.items():
        off = max(abs(a / b - 1) for a, b in zip(loss, plain, strict=True))
        assert off < 1e-4, (name, way, loss, plain)
    times = side_by_side({way: here(step) for way, step in steps.items()}, repeats, 2)
    return {"what": name, "times": times, "first_s": first}


def table(found: dict[str, Any]) -> str:
    """Return the table."""
    head = ["one step of", "way", "median ms", "best ms", "relative to plain", "first 3 calls, s"]
    lines = [row(head), row(["---"] * len(head))]
    for part in found["parts"]:
        plain = part["times"]["plain"]["median_ms"]
        for way, ms in part["times"].items():
            numbers = ms["median_ms"], ms["best_ms"]
            cells = [part["what"], way, *(f"{n:.3g}" for n in numbers)]
            lines.append(row([*cells, f"{numbers[0] / plain:.2f}", f"{part['first_s'][way]:.1f}"]))
    lines += [
        "",
        f"Processor time of one core, torch {found['torch']}, load {found['load']:.1f}, "
        f"{found['repeats']} turns of 2 calls. No GPU; CUDA graphs are not built.",
        "",
    ]
    return "\n".join(lines)


def main() -> None:
    """Measure, write, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=8)
    repeats = parser.parse_args().repeats
    torch.set_num_threads(1)
    # Each node's prediction is a graph of its own, with gradients and without: more than 8.
    torch._dynamo.config.recompile_limit = 64
    load, parts = os.getloadavg()[0], []
    with torch_settings(TrainingSettings(compile=True)):
        for kind in ("direct", "iterative"):
            steps = {"plain": latent_step(kind, compiled=False)}
            steps["torch.compile"] = latent_step(kind, compiled=True)
            parts.append(measure(f"latent Gaussian model, {kind}", steps, repeats))
        steps = {"plain": network_update("general", compiled=False)}
        steps["torch.compile"] = network_update("general", compiled=True)
        steps["fused, no compiler"] = network_update("fused", compiled=False)
        parts.append(measure("predictive-coding network", steps, repeats))
    found = {"parts": parts, "load": load, "repeats": repeats, "torch": torch.__version__}
    print(table(found))
    (HERE / "results").mkdir(exist_ok=True)
    write_json(HERE / "results" / "compile.json", found)
    between(HERE / "README.md", "compile", table(found))


if __name__ == "__main__":
    main()
