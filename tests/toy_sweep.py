"""Squares and their sum: a run for tests, told by the environment to note, wait, or die.

SWEEP_LOG is a file that every piece notes its value, seed and process in; while SWEEP_HOLD exists,
values from 3 on wait; value 13 kills its process.
"""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import numpy as np

from pcsim.experiment import Experiment, Piece
from pcsim.storage import write_text


def square(folder: Path, needs, *, value: int, seed: int, numbers: int) -> None:
    with Path(os.environ["SWEEP_LOG"]).open("a") as file:
        file.write(f"{value} {seed} {os.getpid()}\n")
    if value == 13:
        os.kill(os.getpid(), signal.SIGKILL)
    while value >= 3 and Path(os.environ.get("SWEEP_HOLD", "/nowhere/hold")).exists():
        time.sleep(0.02)
    noise = np.random.default_rng([value, seed]).normal(size=(numbers, 16))
    (folder / "inner").mkdir()
    np.save(folder / "inner" / "product.npy", noise @ noise.T)
    write_text(folder / "square", str(value**2 + seed))


def add(folder: Path, needs) -> None:
    write_text(folder / "sum", str(sum(int((p / "square").read_text()) for p in needs.values())))


def pieces(settings) -> list[Piece]:
    points = [
        Piece(
            key=f"square/{value}/{seed}",
            task=square,
            kwargs={"value": value, "seed": seed, "numbers": settings["numbers"]},
            weight=10.0 - value,
        )
        for value in settings["values"]
        for seed in settings["seeds"]
    ]
    return [*points, Piece(key="sum", task=add, needs=tuple(piece.key for piece in points))]


def collect(run) -> None:
    write_text(run.folder / "total", (run.piece("sum") / "sum").read_text())


EXPERIMENT = Experiment(
    name="toy",
    question="What is the sum?",
    scales={"quick": {"seeds": 2, "values": (1, 2, 3, 4), "numbers": 3}},
    pieces=pieces,
    collect=collect,
    figures=lambda run: {},
)
