"""Progress on the error stream: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from pcsim.pool import Job

__all__ = ["progress"]

Report = Callable[[str, str, float], None]

EVERY = 5.0
"""Seconds between plain lines about pieces that went well."""

SHOWN = 3
"""Pieces that the bar names."""


@contextmanager
def progress(name: str, total: int, jobs: Sequence[Job]) -> Iterator[Report]:
    """Yield a function that reports ("start" | "done" | "failed", key, seconds).

    Parameters
    ----------
    name
        What is running.
    total
        Pieces in all, with those that were finished before.
    jobs
        Those still to be run.
    """
    before = total - len(jobs)
    if before:
        print(f"{name}: {before} of {total} pieces are there already", file=sys.stderr, flush=True)
    if sys.stderr.isatty():
        with _bar(name, jobs) as report:
            yield report
    else:
        yield _lines(name, total, before)


def _lines(name: str, total: int, before: int) -> Report:
    state = {"done": before, "said": 0.0}

    def report(event: str, key: str, seconds: float) -> None:
        if event == "start":
            return
        state["done"] += 1
        due = time.monotonic() - state["said"] >= EVERY or state["done"] == total
        if event == "failed" or due:
            state["said"] = time.monotonic()
            count = f"[{int(state['done'])}/{total}]"
            print(f"{name}: {count} {key} {event}, {seconds:.1f} s", file=sys.stderr, flush=True)

    return report


@contextmanager
def _bar(name: str, jobs: Sequence[Job]) -> Iterator[Report]:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    weights = {job.key: job.weight for job in jobs}
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f} %"),
        TimeElapsedColumn(),
        TextColumn("{task.fields[now]}"),
    )
    running: list[str] = []
    with Progress(*columns, console=Console(stderr=True), transient=False) as bar:
        task = bar.add_task(name, total=sum(weights.values()), now="")

        def report(event: str, key: str, seconds: float) -> None:
            if event == "start":
                running.append(key)
            else:
                running.remove(key)
                bar.advance(task, weights[key])
            if event == "failed":
                bar.console.print(f"{key} failed after {seconds:.1f} s", style="red")
            bar.update(task, now=_some(running))

        yield report


def _some(keys: Sequence[str]) -> str:
    """Return the first few keys and how many more there are; a cluster runs hundreds at once."""
    more = len(keys) - SHOWN
    return ", ".join(keys[:SHOWN]) + (f" and {more} more" if more > 0 else "")
