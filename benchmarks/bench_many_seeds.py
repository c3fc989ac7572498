"""Seeds of one model trained as a batch, beside the same trained one after another.

    python benchmarks/bench_many_seeds.py [--seeds 8] [--repeats 4]

One epoch over 640 random binary examples of 196 pixels, batch 64, for a latent Gaussian model of 8
latents and hidden layers of 32 or 128 units, with direct inference. That both ways end at the same
free energies is checked first. Writes ``results/many_seeds.json`` and the table in
``benchmarks/README.md``.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[_name] = "1"

import numpy as np  # noqa: E402
import torch  # noqa: E402
from pc_tables import between, row  # noqa: E402
from pc_timing import here, side_by_side  # noqa: E402

from pcsim.deep.arms import Arm  # noqa: E402
from pcsim.deep.many_seeds import train_together  # noqa: E402
from pcsim.deep.outputs import Bernoulli  # noqa: E402
from pcsim.deep.training import train  # noqa: E402
from pcsim.deep.training_settings import TrainingSettings  # noqa: E402
from pcsim.storage import write_json  # noqa: E402

HERE = Path(__file__).resolve().parent
N_X, N_EXAMPLES = 196, 640
WIDTHS = (32, 128)


def ways(width: int, seeds: range) -> dict[str, Any]:
    """Return both ways to train an epoch; each gives the last mean free energies by seed."""
    x = torch.bernoulli(
        torch.full((N_EXAMPLES, N_X), 0.3), generator=torch.Generator().manual_seed(0)
    )
    settings = TrainingSettings(n_epochs=1, batch_size=64, device="cpu")
    arm = Arm(inference="direct", n_z=(8,), widths=((width, width),), link="plain")

    def batch() -> list[float]:
        built = [arm.build(N_X, seed, Bernoulli()) for seed in seeds]
        models, inferences = map(list, zip(*built, strict=True))
        done = train_together(models, inferences, x, settings, list(seeds))
        return [one.history[-1]["train"] for one in done]

    def singly() -> list[float]:
        ends = []
        for seed in seeds:
            model, inference = arm.build(N_X, seed, Bernoulli())
            own = TrainingSettings(n_epochs=1, batch_size=64, device="cpu", seed=seed)
            ends.append(train(model, inference, x, own).history[-1]["train"])
        return ends

    return {"one after another": singly, "as one batch": batch}


def table(found: dict[str, Any]) -> str:
    """Return the table."""
    head = ["hidden units", "way", "median ms", "best ms", "times faster"]
    lines = [row(head), row(["---"] * len(head))]
    for part in found["parts"]:
        slow = part["times"]["one after another"]["median_ms"]
        for way, ms in part["times"].items():
            numbers = (f"{ms['median_ms']:.0f}", f"{ms['best_ms']:.0f}")
            lines.append(row([str(part["width"]), way, *numbers, f"{slow / ms['median_ms']:.2f}"]))
    lines += [
        "",
        f"{found['seeds']} seeds, processor time of one core, torch {found['torch']}, load "
        f"{found['load']:.1f}, {found['repeats']} turns. Free energies agree to "
        f"{found['off']:.0e} (relative).",
        "",
    ]
    return "\n".join(lines)


def main() -> None:
    """Measure, write, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=4)
    given = parser.parse_args()
    torch.set_num_threads(1)
    load, parts, off = os.getloadavg()[0], [], 0.0
    for width in WIDTHS:
        both = ways(width, range(given.seeds))
        ends = [np.array(run()) for run in both.values()]
        off = max(off, float(np.abs(ends[0] / ends[1] - 1.0).max()))
        assert off < 1e-4, (width, ends)
        times = side_by_side({way: here(run) for way, run in both.items()}, given.repeats)
        parts.append({"width": width, "times": times})
    found = {
        "parts": parts, "off": off, "load": load, "seeds": given.seeds,
        "repeats": given.repeats, "torch": torch.__version__,
    }  # fmt: skip
    print(table(found))
    (HERE / "results").mkdir(exist_ok=True)
    write_json(HERE / "results" / "many_seeds.json", found)
    between(HERE / "README.md", "many_seeds", table(found))


if __name__ == "__main__":
    main()
