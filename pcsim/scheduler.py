"""Run the pieces of an experiment on a Dask cluster: local, at an address, or through Slurm.

The same pieces, the same order and the same folders as with processes (`pcsim.pool`). The run hands
a worker one piece at a time, with the folders that it needs, and writes what comes back; workers
write nothing that counts. Dask gives the piece of a lost worker to another one.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pcsim.messages import refusal
from pcsim.pool import Agenda, Failure, Job, settle, without_main_module
from pcsim.scheduler_parcel import Answer, Order, Parcel, carry_out, facts
from pcsim.scheduler_slurm import slurm_cluster
from pcsim.storage import atomic_path

__all__ = ["check_scheduler", "run_on_cluster"]

Report = Callable[[str, str, float], None]

ALLOWED_DEATHS = 2
"""Of workers under one piece, on a cluster of our own, before the piece is given up."""
CONNECT = 10.0
"""Seconds to wait for a scheduler's first answer."""
TICK = 0.5
"""Seconds between looks at the cluster while nothing comes back."""
SAY_EVERY = 30.0
"""Seconds between lines that say that there are no workers."""
ATTEMPTS = 5
"""Times that a piece is handed out again when the cluster forgets it."""
LOGGERS = ("distributed", "tornado", "asyncio")
KINDS = "local, local:N, tcp://HOST:PORT, slurm or slurm:FILE.toml"


def check_scheduler(scheduler: str) -> tuple[str, str]:
    """Return kind ("local", "slurm" or "address") and argument of what a user gave.

    Examples
    --------
    >>> check_scheduler("local:4"), check_scheduler("tcp://10.0.0.1:8786")
    (('local', '4'), ('address', 'tcp://10.0.0.1:8786'))
    """
    kind, colon, argument = scheduler.partition(":")
    if kind == "slurm" and (argument or not colon):
        return kind, argument
    if kind == "local" and (not colon or (argument.isdecimal() and int(argument) > 0)):
        return kind, argument
    if "://" in scheduler and argument.strip("/"):
        return "address", scheduler
    advice = "Start one with 'dask scheduler', which prints its address, or take local."
    raise ValueError(refusal("--scheduler", repr(scheduler), KINDS, advice))


def run_on_cluster(
    jobs: Sequence[Job],
    *,
    scheduler: str,
    workers: int,
    present: dict[str, Path],
    report: Report,
) -> list[Failure]:
    """Run jobs as `pcsim.pool.run_jobs` does, on the workers of a Dask cluster.

    Parameters
    ----------
    jobs
        What to run, in any order.
    scheduler
        "local", "local:N", an address, "slurm" or "slurm:FILE".
    workers
        Processes of a local cluster for which no number is given.
    present
        Key -> folder of pieces that are there already.
    report
        Called with ("start" | "done" | "failed", key, seconds).

    Raises
    ------
    ValueError
        If there is no such scheduler, or Dask is not installed.
    RuntimeError
        If the scheduler is lost, or a worker has another version of what makes the numbers.
    OSError
        If the folder of the run cannot be written to.
    """
    kind, argument = check_scheduler(scheduler)
    _installed(kind)
    if not jobs:
        return []
    with _client(kind, argument, max(1, min(workers, len(jobs)))) as client:
        run = _Cluster(client, scheduler, Agenda({job.key: job for job in jobs}, set(present)))
        run.folders = {**present, **{job.key: job.folder for job in jobs}}
        try:
            run.go(report)
        finally:
            run.let_go()
    return list(run.agenda.failures.values())


def _installed(kind: str) -> None:
    try:
        import distributed  # noqa: F401

        if kind == "slurm":
            import dask_jobqueue  # noqa: F401
    except ImportError as error:
        advice = "Install it with pip install 'pcsim[sweep]'."
        raise ValueError(refusal("--scheduler", f"no {error.name}", "Dask", advice)) from None


@contextlib.contextmanager
def _client(kind: str, argument: str, workers: int) -> Iterator[Any]:
    """Connect, starting the cluster where it is ours; close what was started."""
    import dask
    from distributed import Client

    settings = {
        "distributed.scheduler.allowed-failures": ALLOWED_DEATHS,
        # A trained model is larger than Dask expects of an argument.
        "distributed.admin.large-graph-warning-threshold": "100 GiB",
    }
    with contextlib.ExitStack() as stack:
        stack.enter_context(dask.config.set(settings))
        stack.enter_context(_quiet())
        target: Any = argument
        if kind == "local":
            stack.enter_context(without_main_module())
            stack.enter_context(_same_environment())
            target = stack.enter_context(_local(int(argument or workers)))
        elif kind == "slurm":
            target = stack.enter_context(slurm_cluster(argument, workers))
        try:
            client = Client(target, timeout=CONNECT, set_as_default=False)
        except (OSError, TimeoutError, ValueError) as error:
            found = f"no scheduler at {argument} ({type(error).__name__})"
            advice = "Start it with 'dask scheduler', or mend the address."
            raise ValueError(refusal("--scheduler", found, "one that answers", advice)) from None
        try:
            yield client
        finally:
            client.close(timeout=CONNECT)


@contextlib.contextmanager
def _local(workers: int) -> Iterator[Any]:
    from distributed import LocalCluster

    cluster = LocalCluster(
        n_workers=workers,
        threads_per_worker=1,
        processes=True,
        memory_limit=0,
        dashboard_address=None,
        silence_logs=logging.CRITICAL,
        preload="pcsim.scheduler_preload",
    )
    try:
        yield cluster
    finally:
        cluster.close(timeout=CONNECT)


@contextlib.contextmanager
def _same_environment() -> Iterator[None]:
    """Undo what Dask writes into the environment for the workers that it starts."""
    before = dict(os.environ)
    try:
        yield
    finally:
        for name in os.environ.keys() - before.keys():
            del os.environ[name]
        os.environ.update(before)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep Dask, and what it runs on, from logging what is said here in one sentence."""
    # Children too: Dask gives some of its own a level of their own.
    names = [name for name in logging.root.manager.loggerDict if name.split(".")[0] in LOGGERS]
    levels = {one: one.level for one in map(logging.getLogger, (*LOGGERS, *names))}
    for logger in levels:
        logger.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        for logger, level in levels.items():
            logger.setLevel(level)


@dataclass
class _Cluster:
    """One run on one cluster: what is in flight, and what was sent along."""

    client: Any
    name: str
    agenda: Agenda
    folders: dict[str, Path] = field(default_factory=dict)
    flying: dict[str, tuple[Job, Any, int]] = field(default_factory=dict)
    """Key -> job, future, how many times it was handed out."""
    parcels: dict[str, Any] = field(default_factory=dict)
    """Key -> future of the folder of a finished piece, sent once for all that need it."""
    said: float = 0.0

    def go(self, report: Report) -> None:
        own = facts()
        while True:
            free = self._workers() - len(self.flying)
            while free > 0 and (job := self.agenda.next_job()):
                report("start", job.key, 0.0)
                self._hand_out(job, own, 1)
                free -= 1
            if not self.flying and not self.agenda.ready():
                return
            self._wait()
            for key, (job, future, attempt) in list(self.flying.items()):
                if future.status == "pending":
                    continue
                del self.flying[key]
                if future.status in ("cancelled", "lost"):
                    self._again(job, own, attempt)
                    continue
                self._take(job, future, report)
            self._forget()

    def let_go(self) -> None:
        """Tell the cluster to stop what is in flight; it may be gone."""
        with contextlib.suppress(Exception):
            futures = [future for _, future, _ in self.flying.values()]
            self.client.cancel([*futures, *self.parcels.values()])

    def _workers(self) -> int:
        self._check()
        try:
            count = len(self.client.nthreads())
        except Exception:
            raise self._lost() from None
        if count == 0 and time.monotonic() - self.said >= SAY_EVERY:
            self.said = time.monotonic()
            print(f"{self.name}: no workers yet; waiting", file=sys.stderr, flush=True)
        return count

    def _check(self) -> None:
        if self.client.status != "running":
            raise self._lost()

    def _lost(self) -> RuntimeError:
        left = len(self.flying) + len(self.agenda.waiting)
        found = f"the scheduler gone with {left} pieces left"
        advice = "What is finished is kept: run the same again, and it resumes."
        return RuntimeError(refusal(f"--scheduler {self.name}", found, "it to answer", advice))

    def _hand_out(self, job: Job, own: dict[str, str], attempt: int) -> None:
        needs = [self._sent(key) for key in job.needs]
        name = f"pcsim-{job.key}-{job.record['fingerprint'][:16]}-{attempt}"
        future = self.client.submit(
            carry_out, Order.of(job, own), *needs, key=name, priority=job.weight, pure=False
        )
        self.flying[job.key] = (job, future, attempt)

    def _sent(self, key: str) -> Any:
        if key not in self.parcels or self.parcels[key].status in ("cancelled", "lost"):
            parcel = Parcel.of(self.folders[key])
            name = f"pcsim-parcel-{key}-{parcel.digest[:16]}"
            # As the result of a task, not as data: a worker that dies with it is no loss.
            self.parcels[key] = self.client.submit(_itself, parcel, key=name, pure=False)
        return self.parcels[key]

    def _wait(self) -> None:
        from distributed import wait

        futures = [future for _, future, _ in self.flying.values()]
        if not futures:
            time.sleep(TICK)
            return
        with contextlib.suppress(Exception):
            wait(futures, timeout=TICK, return_when="FIRST_COMPLETED")

    def _again(self, job: Job, own: dict[str, str], attempt: int) -> None:
        self._check()
        if attempt >= ATTEMPTS:
            raise self._lost()
        self._hand_out(job, own, attempt + 1)

    def _take(self, job: Job, future: Any, report: Report) -> None:
        """Write what came back; the folder of the run is written to here and nowhere else."""
        answer = self._answer(job, future)
        if answer.refused:
            raise RuntimeError(answer.refused)
        if answer.parcel is not None:
            with atomic_path(job.folder) as part:
                answer.parcel.unpack(part)
        settle(self.agenda, job, answer.failure, answer.seconds, report)

    def _answer(self, job: Job, future: Any) -> Answer:
        from distributed import KilledWorker

        try:
            answer: Answer = future.result()
        except KilledWorker as error:
            deaths = error.allowed_failures + 1
            text = f"{deaths} workers died at it, the last at {error.last_worker.address}"
            return Answer(failure=Failure(job.key, f"{text}. Was memory or time short?"))
        except ImportError as error:
            advice = "Install the same pcsim there, and start the workers again."
            raise RuntimeError(refusal("worker", str(error), "pcsim", advice)) from None
        except Exception as error:
            self._check()
            return Answer(failure=Failure(job.key, f"{type(error).__name__}: {error}"))
        return answer

    def _forget(self) -> None:
        """Let go of folders that nothing needs any more."""
        left = [*self.agenda.waiting.values(), *(job for job, _, _ in self.flying.values())]
        needed = {key for job in left for key in job.needs}
        self.parcels = {key: one for key, one in self.parcels.items() if key in needed}


def _itself(parcel: Parcel) -> Parcel:
    return parcel
