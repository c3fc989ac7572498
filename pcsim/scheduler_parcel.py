"""What travels between a run and the workers of a cluster: orders out, folders back.

A worker needs no file system in common with the run, for results. It fills the folder of a piece
in a scratch folder of its own, exactly as a process of the pool does, and sends it back as bytes;
the run alone writes to its folder. So a worker that is lost leaves nothing behind, an answer that
comes twice is the same bytes for the same place, and a disk that is full is known by its machine.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import os
import platform
import tempfile
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pcsim
from pcsim.messages import refusal
from pcsim.pool import THREADS, Failure, Job, TaskName, fill
from pcsim.provenance import PACKAGES, source_fingerprint

__all__ = ["Answer", "Order", "Parcel", "carry_out", "facts", "file_digest"]

SHORT = 12
"""Letters of a digest that are shown."""


@dataclass(frozen=True)
class Parcel:
    """A folder as bytes, with a digest over names and contents."""

    files: tuple[tuple[str, bytes], ...]
    folders: tuple[str, ...]
    digest: str

    @classmethod
    def of(cls, folder: Path) -> Parcel:
        """Read a folder; the same folder gives the same parcel."""
        paths = sorted(folder.rglob("*"))
        names = {path: path.relative_to(folder).as_posix() for path in paths}
        files = tuple((names[path], path.read_bytes()) for path in paths if not path.is_dir())
        folders = tuple(names[path] for path in paths if path.is_dir())
        return cls(files, folders, _digest(files, folders))

    def unpack(self, folder: Path) -> None:
        """Write it out again; refuse what has changed on the way.

        Raises
        ------
        ValueError
            If the bytes are not those that were packed.
        """
        if _digest(self.files, self.folders) != self.digest:
            advice = "Run again; mend the network if it comes back."
            raise ValueError(refusal("Parcel", "changed bytes", "those sent", advice))
        folder.mkdir(parents=True, exist_ok=True)
        for name in self.folders:
            (folder / name).mkdir(parents=True, exist_ok=True)
        for name, content in self.files:
            (folder / name).write_bytes(content)


def _digest(files: tuple[tuple[str, bytes], ...], folders: tuple[str, ...]) -> str:
    digest = hashlib.sha256()
    for name, content in files:
        digest.update(f"{name}\0{len(content)}\0".encode() + content)
    digest.update("\0".join(("", *folders)).encode())
    return digest.hexdigest()


@dataclass(frozen=True)
class Order:
    """A job as a worker gets it: no path of the machine that sends it but those of its sources."""

    key: str
    task: TaskName
    kwargs: Mapping[str, Any]
    needs: tuple[tuple[str, str], ...]
    """Key and name of the folder of every piece that is needed, relative to all pieces."""
    record: Mapping[str, str]
    """What is written of the piece beside its key."""
    sources: tuple[tuple[str, str], ...]
    """Path and sha256 of every file that the worker must have."""
    facts: Mapping[str, str]

    @classmethod
    def of(cls, job: Job, own: Mapping[str, str]) -> Order:
        """Return the order for a job of a run whose `facts` are `own`."""
        sources = tuple((file, file_digest(file)) for file in job.sources)
        needs = tuple((key, _place(key, folder.name)) for key, folder in job.needs.items())
        return cls(job.key, job.task, job.kwargs, needs, job.record, sources, own)


def _place(key: str, name: str) -> str:
    return (Path(key).parent / name).as_posix()


@dataclass(frozen=True)
class Answer:
    """What came of an order: a parcel, a failure, or the reason why this worker must not do it."""

    seconds: float = 0.0
    parcel: Parcel | None = None
    failure: Failure | None = None
    refused: str = ""


def facts() -> dict[str, str]:
    """Return what a worker and the run must have in common, or bytes would differ."""
    found = {"pcsim": pcsim.__version__, "sources of pcsim": source_fingerprint()[:SHORT]}
    found["Python"] = ".".join(platform.python_version_tuple()[:2])
    for name in (*PACKAGES, "brian2"):
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "none"
    return found


def file_digest(path: str) -> str:
    """Return the sha256 of a file, "none" if it cannot be read."""
    try:
        return hashlib.sha256(Path(path).read_bytes()).hexdigest()
    except OSError:
        return "none"


_ONE_AT_A_TIME = threading.Lock()
_BEGAN: dict[str, str] = {}
"""The facts when this process began: what it has imported, whatever lies on its disk by now."""


def carry_out(order: Order, *needs: Parcel) -> Answer:
    """Do a piece here, on a worker, and return its folder; `needs` in the order of the job's."""
    with _ONE_AT_A_TIME:
        refused = _mismatch(order)
        if refused:
            return Answer(refused=refused)
        start = time.perf_counter()
        with tempfile.TemporaryDirectory(prefix="pcsim-", dir=_scratch()) as place:
            root = Path(place) / "pieces"
            folders = {key: root / name for key, name in order.needs}
            for folder, sent in zip(folders.values(), needs, strict=True):
                sent.unpack(folder)
            job = Job(
                key=order.key,
                task=_own_name(order),
                kwargs=order.kwargs,
                folder=root / f"{order.key}@{order.record['fingerprint'][:8]}",
                needs=folders,
                record=order.record,
            )
            failure = fill(job)
            parcel = None if failure else Parcel.of(job.folder)
        if failure:
            failure = replace(failure, message=f"{failure.message} (on {platform.node()})")
        return Answer(time.perf_counter() - start, parcel, failure)


def _scratch() -> str | None:
    """Return the worker's own folder, which Dask clears after a kill; None for the system's."""
    try:
        from distributed import get_worker

        return str(get_worker().local_directory)
    except (ImportError, ValueError):
        return None


def _own_name(order: Order) -> TaskName:
    """Give a user's file a module name that changes with its text: workers live long."""
    digests = dict(order.sources)
    digest = digests.get(order.task.file)
    if digest is None:
        return order.task
    return replace(order.task, module=f"pcsim_task_{Path(order.task.file).stem}_{digest[:SHORT]}")


def _mismatch(order: Order) -> str:
    """Say in what this worker differs from the run, or nothing."""
    now = facts()
    began = _BEGAN or now
    _BEGAN.update(began)
    where = f"worker on {platform.node()}"
    other = {name: now[name] for name in order.facts if now[name] != order.facts[name]}
    if other:
        found = ", ".join(f"{name} {value}" for name, value in other.items())
        expected = ", ".join(f"{name} {order.facts[name]}" for name in other)
        advice = "Install the same on every worker and start them again."
        return refusal(where, found, expected, advice)
    if began != now:
        found = f"pcsim {began['sources of pcsim']} in memory, another on disk"
        return refusal(where, found, now["sources of pcsim"], "Start the workers again.")
    for path, digest in order.sources:
        if file_digest(path) != digest:
            found = f"no {path}" if file_digest(path) == "none" else f"another text in {path}"
            advice = "Put the file under this path on every machine."
            return refusal(where, found, f"the text of {digest[:SHORT]}", advice)
    threads = os.environ.get(THREADS[0], "not set")
    if threads != "1":
        found, advice = f"{THREADS[0]} {threads}", f"Start it with {THREADS[0]}=1 or with a nanny."
        return refusal(where, found, "1, as sums depend on it", advice)
    return ""
