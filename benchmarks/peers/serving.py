"""What every peer's script does: read a problem, settle once, then time blocks on request.

A script is run by the Python of the peer's own environment, with the problem (npz) and the file
for its answer (npz). It prints one line of JSON about itself, and then, for each number that it
reads, runs that many updates and prints the processor and the wall time that they took. So the
benchmark can take turns between its own ways and the peers.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

__all__ = ["Problem", "serve"]


class Problem:
    """Weights (out, in), biases, a batch and the settings of one update."""

    def __init__(self, path: str) -> None:
        found = np.load(path)
        count = int(found["n_layers"])
        self.weights = [found[f"weight_{i}"].astype("float32") for i in range(count)]
        self.biases = [found[f"bias_{i}"].astype("float32") for i in range(count)]
        self.x, self.y = found["x"].astype("float32"), found["y"].astype("float32")
        self.n_steps, self.rate = int(found["n_steps"]), float(found["rate"])
        self.learning_rate = float(found["learning_rate"])
        self.sizes = (self.x.shape[1], *(len(weight) for weight in self.weights))


def serve(
    about: dict[str, Any],
    update: Callable[[], None],
    settled: Callable[[], list[Any]],
    learned: Callable[[], list[Any]],
    wait: Callable[[], None],
) -> None:
    """Update once, save hidden activities and weights after it, then time blocks until the end.

    Parameters
    ----------
    about
        Name, version, convention.
    update
        One update: inference and a step of the weights.
    settled, learned
        Hidden activities, and weights (out, in), after the last update.
    wait
        Returns when all work is done.
    """
    start = time.process_time(), time.perf_counter()
    update()
    wait()
    first = time.process_time() - start[0], time.perf_counter() - start[1]
    arrays = {f"state_{i}": np.asarray(z) for i, z in enumerate(settled())}
    arrays |= {f"weight_{i}": np.asarray(w) for i, w in enumerate(learned())}
    np.savez(sys.argv[2], **arrays)
    print(json.dumps({**about, "first_call_s": first[1], "first_processor_s": first[0]}))
    sys.stdout.flush()
    for line in sys.stdin:
        start = time.process_time(), time.perf_counter()
        for _ in range(int(line)):
            update()
        wait()
        taken = [time.process_time() - start[0], time.perf_counter() - start[1]]
        print(json.dumps(taken), flush=True)
