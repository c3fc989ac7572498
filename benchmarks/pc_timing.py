"""Take turns between ways to do the same work, in this process and in those of peers."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

__all__ = ["Block", "Peer", "here", "peers_of", "side_by_side"]

Block = Callable[[int], tuple[float, float]]
"""Do the work so many times; return the seconds of the processor and of the clock."""

SCRIPTS = {
    "pcx": "pcx_network.py",
    "fabricpc": "fabricpc_network.py",
    "ngclearn": "ngclearn_network.py",
}


def here(run: Callable[[], Any]) -> Block:
    """Return a way that runs in this process."""

    def block(count: int) -> tuple[float, float]:
        start = time.process_time(), time.perf_counter()
        for _ in range(count):
            run()
        return time.process_time() - start[0], time.perf_counter() - start[1]

    return block


def side_by_side(
    ways: Mapping[str, Block], repeats: int, block: int = 1
) -> dict[str, dict[str, float]]:
    """Time blocks of calls in turns, so that a busy machine is unfair to none; milliseconds."""
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
    for way in ways.values():
        way(1)
    for _ in range(repeats):
        for name, way in ways.items():
            processor, wall = way(block)
            taken[name].append((1e3 * processor / block, 1e3 * wall / block))
    return {
        name: {
            "median_ms": statistics.median(p for p, _ in times),
            "best_ms": min(p for p, _ in times),
            "wall_ms": statistics.median(w for _, w in times),
            "best_wall_ms": min(w for _, w in times),
        }
        for name, times in taken.items()
    }


class Peer:
    """A peer's script in the peer's own environment, on the same core; see `peers/serving.py`."""

    def __init__(self, name: str, python: str, problem: Mapping[str, Any]) -> None:
        self.folder = tempfile.TemporaryDirectory()
        given, answer = (Path(self.folder.name) / f"{end}.npz" for end in ("problem", "answer"))
        np.savez(given, **problem)
        script = Path(__file__).resolve().parent / "peers" / SCRIPTS[name]
        self.process = subprocess.Popen(
            [python, str(script), str(given), str(answer)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": "", "JAX_PLATFORMS": "cpu"},
        )
        self.about: dict[str, Any] = self.read()
        with np.load(answer) as found:
            self.arrays = dict(found)

    def read(self) -> Any:
        """Return the next line of the peer, or say that it has died."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"{self.process.args}: ended with {self.process.wait()}")
        return json.loads(line)

    def __call__(self, count: int) -> tuple[float, float]:
        """Run that many updates."""
        assert self.process.stdin is not None
        self.process.stdin.write(f"{count}\n")
        self.process.stdin.flush()
        processor, wall = self.read()
        return float(processor), float(wall)

    @property
    def title(self) -> str:
        """Name and version."""
        return f"{self.about['name']} {self.about['version']}"

    def close(self) -> None:
        """End the peer's process."""
        self.process.communicate()
        self.folder.cleanup()


def peers_of(options: list[str]) -> dict[str, str]:
    """Return name -> Python from options like ``pcx=env/bin/python``."""
    found = {}
    for option in options:
        name, _, python = option.partition("=")
        if name not in SCRIPTS or not Path(python).exists():
            known = ", ".join(SCRIPTS)
            raise SystemExit(f"--peer {option}: expected NAME=PYTHON, a peer of {known}")
        found[name] = python
    return found
