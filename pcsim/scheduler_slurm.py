"""Slurm: the cluster that a settings file describes, and the job script that it submits."""

from __future__ import annotations

import contextlib
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pcsim.messages import check_integer, refusal

__all__ = ["job_script", "read_settings", "slurm_cluster"]

WHERE = "--scheduler slurm"


def read_settings(file: str, workers: int = 1) -> tuple[int, dict[str, Any]]:
    """Return from a TOML file the number of jobs, and what `dask_jobqueue.SLURMCluster` is given.

    There are `workers` jobs if the file does not say.
    One thread for each worker: `processes` is `cores`. Without a file, Dask's own configuration
    (jobqueue.yaml) says all.

    Raises
    ------
    ValueError
        If the file cannot be read or gives a worker several threads.
    """
    try:
        settings = tomllib.loads(Path(file).read_text(encoding="utf-8")) if file else {}
    except OSError as error:
        found = f"{file} that cannot be read ({error.strerror})"
        raise ValueError(refusal(WHERE, found, "a TOML file", "Check the path.")) from None
    except ValueError as error:
        found = f"{file} that is not TOML ({error})"
        raise ValueError(refusal(WHERE, found, "a TOML file", "See docs/clusters.md.")) from None
    jobs = check_integer(WHERE, "jobs", settings.pop("jobs", workers), low=1)
    if not file:
        return jobs, {}
    cores = check_integer(WHERE, "cores", settings.setdefault("cores", 1), low=1)
    processes = settings.setdefault("processes", cores)
    if processes != cores:
        found, advice = f"{cores} cores for {processes} processes", "Leave processes out."
        raise ValueError(refusal(WHERE, found, "as many processes as cores", advice))
    return jobs, settings


@contextlib.contextmanager
def slurm_cluster(file: str, workers: int) -> Iterator[Any]:
    """Submit the jobs; cancel them at the end."""
    jobs, settings = read_settings(file, workers)
    cluster = _cluster(settings)
    try:
        cluster.scale(jobs=jobs)
        yield cluster
    finally:
        cluster.close(timeout=10)


def job_script(file: str) -> str:
    """Return the script that is submitted once for every job; nothing is submitted here."""
    cluster = _cluster(read_settings(file)[1])
    try:
        return str(cluster.job_script())
    finally:
        cluster.close(timeout=10)


def _cluster(settings: dict[str, Any]) -> Any:
    from dask_jobqueue.slurm import SLURMCluster

    try:
        # A login node has many users: the dashboard takes any port that is free.
        options = {"dashboard_address": ":0", **settings.get("scheduler_options", {})}
        return SLURMCluster(**{**settings, "scheduler_options": options})
    except (TypeError, ValueError) as error:
        found, advice = f"settings that it refuses ({error})", "See docs/clusters.md."
        raise ValueError(refusal(WHERE, found, "what SLURMCluster takes", advice)) from None
