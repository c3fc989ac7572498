"""Worker processes that run the pieces of an experiment and may be killed at any moment.

Each worker is a fresh process with one thread. A piece is run in a temporary folder that takes its
place only when it is whole. If the parent dies, however it dies, its workers end by themselves.
"""

from __future__ import annotations

import errno
import importlib
import importlib.util
import inspect
import multiprocessing
import os
import shutil
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

from pcsim.messages import refusal
from pcsim.storage import atomic_path, write_json

__all__ = [
    "Agenda",
    "Failure",
    "Job",
    "TaskName",
    "fill",
    "run_jobs",
    "settle",
    "without_main_module",
]

FULL = (errno.ENOSPC, errno.EDQUOT)
LEAST_ROOM = 4096
"""Bytes; a disk with less than a block is full."""
THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


@dataclass(frozen=True)
class TaskName:
    """A function at the top level of a file, found again in another process."""

    module: str
    file: str
    name: str

    @classmethod
    def of(cls, task: Callable[..., None]) -> TaskName:
        """Return the name of a function.

        Raises
        ------
        ValueError
            If it is not at the top level of a file.
        """
        name = getattr(task, "__qualname__", repr(task))
        if not inspect.isfunction(task) or not name.isidentifier():
            expected = "a function at the top level of a file"
            advice = "Other processes must find it: move it out of its class or function."
            raise ValueError(refusal("Piece", f"task {name}", expected, advice))
        return cls(task.__module__, str(Path(inspect.getfile(task)).resolve()), name)

    def find(self) -> Callable[..., None]:
        """Import the file, if need be by its path, and return the function."""
        return getattr(self._module(), self.name)  # type: ignore[no-any-return]

    def _module(self) -> Any:
        known = sys.modules.get(self.module)
        if known is not None and hasattr(known, self.name):
            return known
        if self.module.startswith("pcsim."):
            return importlib.import_module(self.module)
        # A user's file, or a test's, need not be importable by name: load it by its path. Under
        # the name of the main module it would run as a script.
        name = "pcsim_main" if self.module == "__main__" else self.module
        if name in sys.modules:
            return sys.modules[name]
        spec = importlib.util.spec_from_file_location(name, self.file)
        if spec is None or spec.loader is None:
            found = f"file {self.file}"
            raise ValueError(refusal("Piece", found, "a Python file", "Name it *.py."))
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        spec.loader.exec_module(module)
        return module


@dataclass(frozen=True)
class Job:
    """A piece that is ready to be run: what to call and which folder to fill."""

    key: str
    task: TaskName
    kwargs: Mapping[str, Any]
    folder: Path
    needs: Mapping[str, Path]
    record: Mapping[str, str]
    """What `piece.json` says of it beside its key: "fingerprint" and what made it."""
    weight: float = 1.0
    sources: tuple[str, ...] = ()
    """Files outside pcsim that another machine must have, with the same text."""


@dataclass(frozen=True)
class Failure:
    """Why a piece did not finish."""

    key: str
    message: str
    trace: str = ""
    skipped: bool = False
    """It was not run because a piece that it needs had failed."""


@dataclass
class Agenda:
    """What is still to do while a run goes on; the same for processes and for a cluster."""

    waiting: dict[str, Job]
    finished: set[str]
    failures: dict[str, Failure] = field(default_factory=dict)

    def ready(self) -> list[Job]:
        """Return the jobs whose needs are met."""
        return [job for job in self.waiting.values() if self.finished.issuperset(job.needs)]

    def next_job(self) -> Job | None:
        """Take the heaviest job whose needs are met, so that long pieces start first."""
        ready = self.ready()
        if not ready:
            return None
        return self.waiting.pop(max(ready, key=lambda job: job.weight).key)

    def fail(self, failure: Failure) -> None:
        """Record a failure; what needs the piece will not be run."""
        self.failures[failure.key] = failure
        for key, job in list(self.waiting.items()):
            if failure.key in job.needs and key in self.waiting:
                del self.waiting[key]
                self.fail(Failure(key, f"not run, it needs {failure.key}", skipped=True))


def run_jobs(
    jobs: Sequence[Job],
    *,
    finished: Sequence[str] = (),
    workers: int = 2,
    report: Callable[[str, str, float], None] = lambda event, key, seconds: None,
) -> list[Failure]:
    """Run jobs in the order of their needs; go on with the others when one fails.

    Parameters
    ----------
    jobs
        What to run, in any order.
    finished
        Keys of needed pieces that are there already.
    workers
        Number of processes; 0 runs everything in this one.
    report
        Called with ("start" | "done" | "failed", key, seconds).

    Returns
    -------
    list of Failure
        Of the jobs that failed or were not run for that reason; empty if all is well.
    """
    state = Agenda({job.key: job for job in jobs}, set(finished))
    if workers == 0:
        _run_here(state, report)
    else:
        _run_in_processes(state, min(workers, max(len(jobs), 1)), report)
    return list(state.failures.values())


def _run_here(state: Agenda, report: Callable[[str, str, float], None]) -> None:
    while job := state.next_job():
        report("start", job.key, 0.0)
        start = time.perf_counter()
        failure = fill(job)
        settle(state, job, failure, time.perf_counter() - start, report)


def settle(
    state: Agenda,
    job: Job,
    failure: Failure | None,
    seconds: float,
    report: Callable[[str, str, float], None],
) -> None:
    """Write down how a job ended, and tell."""
    if failure is None:
        state.finished.add(job.key)
        report("done", job.key, seconds)
    else:
        state.fail(failure)
        report("failed", job.key, seconds)


def fill(job: Job) -> Failure | None:
    """Run one job; its folder appears whole or not at all."""
    try:
        with atomic_path(job.folder) as part:
            part.mkdir()
            with _said_when_full(part):
                job.task.find()(part, dict(job.needs), **job.kwargs)
                write_json(part / "piece.json", {"key": job.key, **job.record})
    except Exception as error:
        message = f"{type(error).__name__}: {error}"
        if isinstance(error, OSError) and error.errno in FULL:
            message = "the disk is full. Free some space and run again: it resumes"
        return Failure(job.key, message, traceback.format_exc())
    return None


@contextmanager
def _said_when_full(part: Path) -> Iterator[None]:
    """Raise the system's own error for a full disk, whatever a library made of it.

    HDF5 says it in the text of other errors, and numpy only how many bytes it could not write.
    """
    try:
        yield
    except Exception as error:
        if "No space left on device" in str(error) or _room(part) < LEAST_ROOM:
            raise OSError(errno.ENOSPC, "No space left on device") from error
        raise


def _room(part: Path) -> int:
    return shutil.disk_usage(part.parent).free


@dataclass
class _Worker:
    """A process and the job it is at."""

    process: Any
    pipe: Connection[Any, Any]
    job: Job | None = None
    since: float = 0.0


def _run_in_processes(
    state: Agenda, workers: int, report: Callable[[str, str, float], None]
) -> None:
    crew: list[_Worker] = []
    try:
        while True:
            crew = [worker for worker in crew if worker.process.is_alive() or worker.job]
            while len(crew) < min(workers, _busy(crew) + len(state.waiting)):
                crew.append(_start())
            _hand_out(state, crew, report)
            if not _busy(crew):
                return
            for worker in _heard_from(crew):
                _take_back(state, worker, report)
    finally:
        for worker in crew:
            worker.pipe.close()
            worker.process.kill()
        for worker in crew:
            worker.process.join()


def _busy(crew: Sequence[_Worker]) -> int:
    return sum(worker.job is not None for worker in crew)


def _hand_out(
    state: Agenda, crew: Sequence[_Worker], report: Callable[[str, str, float], None]
) -> None:
    for worker in crew:
        if worker.job is None and (job := state.next_job()):
            worker.job, worker.since = job, time.perf_counter()
            report("start", job.key, 0.0)
            worker.pipe.send(job)


def _heard_from(crew: Sequence[_Worker]) -> list[_Worker]:
    """Wait until a busy worker has answered or died."""
    busy = [worker for worker in crew if worker.job is not None]
    handles = [worker.pipe for worker in busy] + [worker.process.sentinel for worker in busy]
    ready = wait(handles)
    return [w for w in busy if w.pipe in ready or w.process.sentinel in ready]


def _take_back(state: Agenda, worker: _Worker, report: Callable[[str, str, float], None]) -> None:
    job = worker.job
    assert job is not None
    try:
        failure = worker.pipe.recv() if worker.pipe.poll() else _died(worker, job)
    except (EOFError, OSError):
        failure = _died(worker, job)
    worker.job = None
    settle(state, job, failure, time.perf_counter() - worker.since, report)


def _died(worker: _Worker, job: Job) -> Failure:
    worker.process.join(10)
    code = worker.process.exitcode
    cause = " (killed; was memory short?)" if code == -signal.SIGKILL else ""
    return Failure(job.key, f"its worker process ended with exit code {code}{cause}")


def _start() -> _Worker:
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_work, args=(theirs,), daemon=True)
    with _one_thread(), without_main_module():
        process.start()
    theirs.close()
    return _Worker(process, ours)


@contextmanager
def _one_thread() -> Iterator[None]:
    """Let a child see one thread for each numerical library."""
    before = {name: os.environ.get(name) for name in THREADS}
    os.environ.update(dict.fromkeys(THREADS, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


@contextmanager
def without_main_module() -> Iterator[None]:
    """Keep a child from running the parent's script again: tasks are found by their file."""
    main = sys.modules["__main__"]
    hidden = {name: main.__dict__.pop(name) for name in ("__file__",) if hasattr(main, name)}
    spec, main.__spec__ = main.__spec__, None
    try:
        yield
    finally:
        main.__spec__ = spec
        main.__dict__.update(hidden)


def _work(pipe: Connection[Any, Any]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    while True:
        try:
            job = pipe.recv()
        except (EOFError, OSError):
            return
        pipe.send(fill(job))


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)
