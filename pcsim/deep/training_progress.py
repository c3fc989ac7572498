"""Progress of a training run on the error stream: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

__all__ = ["silent", "training_progress"]

Report = Callable[[Mapping[str, Any]], None]

EVERY = 5.0
"""Seconds between plain lines."""


def silent(record: Mapping[str, Any]) -> None:
    """Say nothing."""


@contextmanager
def training_progress(n_epochs: int, done: int) -> Iterator[Report]:
    """Yield a function that takes the record of a finished epoch."""
    if done:
        print(f"train: goes on after epoch {done} of {n_epochs}", file=sys.stderr, flush=True)
    if sys.stderr.isatty():
        with _bar(n_epochs, done) as report:
            yield report
    else:
        yield _lines(n_epochs)


def described(record: Mapping[str, Any]) -> str:
    """Return the free energies of an epoch in words."""
    text = f"{record['train']:.2f} nats"
    if record["validation"] is not None:
        text += f", validation {record['validation']:.2f}"
    return text


def _lines(n_epochs: int) -> Report:
    said = 0.0

    def report(record: Mapping[str, Any]) -> None:
        nonlocal said
        number = record["epoch"] + 1
        if time.monotonic() - said >= EVERY or number == n_epochs:
            said = time.monotonic()
            line = f"train: [{number}/{n_epochs}] {described(record)}"
            print(line, file=sys.stderr, flush=True)

    return report


@contextmanager
def _bar(n_epochs: int, done: int) -> Iterator[Report]:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("train"),
        BarColumn(),
        TextColumn("{task.completed}/{task.total}"),
        TimeRemainingColumn(),
        TextColumn("{task.description}"),
    )
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task("", total=n_epochs, completed=done)

        def report(record: Mapping[str, Any]) -> None:
            bar.update(task, advance=1, description=described(record))

        yield report
