"""An experiment: one question, cut into pieces that are run once, and a figure from saved numbers.

A run is a folder. Every piece has a folder of its own in it, named by a fingerprint of its
settings, of the pieces it needs and of the source; a finished piece is never run again, so a run
that was stopped, however it was stopped, goes on where it was and ends with the same bytes.
"""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pcsim.experiment_folder import (
    Run,
    clear_parts,
    drop_figures,
    lock,
    lock_of,
    open_run,
    save_figures,
)
from pcsim.experiment_marks import Marks, fitting, is_done, marks_of, sources_of
from pcsim.experiment_piece import Piece, in_parts
from pcsim.experiment_progress import progress
from pcsim.messages import check_choice, check_integer, refusal, unknown_name
from pcsim.pool import Failure, Job, TaskName, run_jobs
from pcsim.provenance import fingerprint, provenance, written
from pcsim.scheduler import check_scheduler, run_on_cluster
from pcsim.storage import write_json, write_text

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["Experiment", "Piece", "Run", "collect_run", "in_parts", "open_run", "run_experiment"]


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """One question, its scales, and what is left of a run.

    Parameters
    ----------
    name, question
        The name of the run's folder, and what the run answers.
    scales
        Scale -> settings; each has "seeds", a number of replicas or the seeds themselves.
    pieces
        Settings -> the pieces; settings hold "scale" and "seeds" (a tuple) besides the scale's own.
    collect
        Gathers finished pieces into files of the run's folder (`verdicts.csv` ...).
    figures
        Run -> figures by path without suffix ("figure", "figures/H10"), drawn from saved numbers.
    gathers_parts
        Whether `collect` also works with some pieces missing, and writes what there is.
    """

    name: str
    question: str
    scales: Mapping[str, Mapping[str, Any]]
    pieces: Callable[[Mapping[str, Any]], Sequence[Piece]]
    collect: Callable[[Run], None]
    figures: Callable[[Run], Mapping[str, Figure]]
    gathers_parts: bool = False

    def __post_init__(self) -> None:
        for scale, settings in self.scales.items():
            if "seeds" not in settings:
                where = f"Experiment {self.name}"
                found = f"scale '{scale}' with {sorted(settings)}"
                raise ValueError(refusal(where, found, "seeds among them", "Add how many."))


def run_experiment(
    experiment: Experiment,
    *,
    scale: str = "quick",
    seeds: int | Sequence[int] | None = None,
    settings: Mapping[str, Any] | None = None,
    out: str | Path | None = None,
    workers: int = 2,
    scheduler: str | None = None,
    only: str | None = None,
    keep: Sequence[str] = (),
) -> Run:
    """Run what is missing of an experiment and leave its verdicts, figures and provenance.

    Parameters
    ----------
    experiment
        What to run.
    scale
        One of its scales.
    seeds
        Number of replicas (seeds 0, 1, ...) or the seeds themselves; None takes the scale's.
    settings
        Changes the scale's settings, by name.
    out
        Folder of the run; None means ``runs/<name>``.
    workers
        Processes of one thread each; 0 runs everything in this one.
    scheduler
        A Dask cluster instead, as `pcsim.scheduler` has them: "local", "local:4", the address of
        a scheduler, "slurm:FILE". The numbers are the same.
    only
        A pattern of keys, "levels/1/*": no more is run than these pieces and what they need. A run
        that is not whole by then has no verdicts and figures yet, and tables of what there is if
        the experiment gathers parts; `Run.missing` says what is left.
    keep
        Patterns of keys, "train/*". Finished pieces that fit are taken as they are, though pcsim or
        their files were edited since; the provenance names them and the sources that made them.

    Returns
    -------
    Run

    Raises
    ------
    ValueError
        If a setting is unknown, a piece is unlawful or the folder cannot be written to.
    RuntimeError
        If pieces failed. The others are finished and kept; running again resumes.
    """
    where = f"run {experiment.name}"
    chosen = _settings(experiment, scale, seeds, settings or {})
    workers = check_integer(where, "workers", workers)
    if scheduler is not None:
        check_scheduler(scheduler)
    folder = Path(out) if out is not None else Path("runs") / experiment.name
    pieces = _ordered(where, experiment.pieces(chosen))
    wanted = _wanted(where, pieces, only)
    place = folder / "pieces"
    marks = marks_of(pieces, place, keep)
    paths = {key: place / f"{key}@{mark[:8]}" for key, mark in marks.fingerprints.items()}
    run = Run(folder, experiment.name, experiment.question, scale, chosen, paths)
    with _writable(where, folder), lock(where, folder):
        clear_parts(folder)
        done = {key for key, path in paths.items() if is_done(path, marks.fingerprints[key])}
        jobs = [_job(piece, paths, marks) for piece in wanted if piece.key not in done]
        with progress(experiment.name, len(done) + len(jobs), jobs) as report:
            if scheduler is None:
                failures = run_jobs(jobs, finished=sorted(done), workers=workers, report=report)
            else:
                present = {key: paths[key] for key in done}
                failures = run_on_cluster(
                    jobs, scheduler=scheduler, workers=workers, present=present, report=report
                )
        _raise_failures(where, folder, failures)
        whole = len(done) + len(jobs) == len(pieces)
        if not whole and not experiment.gathers_parts:
            return run
        if jobs or marks.kept or not (folder / "provenance.json").is_file():
            record = provenance(chosen, chosen["seeds"])
            write_json(folder / "provenance.json", {**record, "kept": dict(marks.kept)})
        run.save()
        experiment.collect(run)
        state = _drawn_from(experiment, run, marks)
        if whole:
            save_figures(run, state, experiment.figures)
        else:
            drop_figures(run, state)
    return run


def _drawn_from(experiment: Experiment, run: Run, marks: Marks) -> str:
    """Return the fingerprint of all that figures show: numbers, settings, and what draws them."""
    return fingerprint(
        {
            "pieces": dict(marks.fingerprints),
            "package": marks.package,
            "question": run.question,
            "scale": run.scale,
            "settings": dict(run.settings),
            "functions": [written(one) for one in (experiment.collect, experiment.figures)],
        }
    )


def collect_run(experiment: Experiment, run: Run, out: str | Path | None = None) -> Run:
    """Write the tables of a run from its saved pieces, whatever source made them.

    Parameters
    ----------
    experiment
        The one that was run.
    run
        As `open_run` gives it.
    out
        Where tables go; None means the folder of the run.

    Raises
    ------
    ValueError
        If pieces are missing and the experiment does not gather parts, the run lacks a setting that
        the experiment has by now, or the folder of the tables is in use by a run.
    """
    if run.missing and not experiment.gathers_parts:
        found = f"a run with {len(run.missing)} of {len(run.pieces)} pieces missing"
        advice = f"Finish it: pcsim run {experiment.name} --out {run.folder}"
        raise ValueError(refusal(f"collect {run.folder}", found, "a whole run", advice))
    target = run if out is None else replace(run, folder=Path(out))
    target.folder.mkdir(parents=True, exist_ok=True)
    with lock_of(f"collect {run.folder}", target.folder / "tables"):
        try:
            experiment.collect(target)
        except KeyError as error:
            name = error.args[0]
            if name in run.settings or name not in experiment.scales.get(run.scale, {}):
                raise
            found = f"a run without the setting {name!r}"
            where, advice = f"collect {run.folder}", "Collect it with the code it ran by."
            raise ValueError(refusal(where, found, "one of this version", advice)) from None
    return target


def _settings(
    experiment: Experiment,
    scale: str,
    seeds: int | Sequence[int] | None,
    changes: Mapping[str, Any],
) -> dict[str, Any]:
    where = f"run {experiment.name}"
    check_choice(where, "scale", scale, tuple(experiment.scales))
    base = dict(experiment.scales[scale])
    for name in changes:
        if name not in base:
            raise unknown_name(where, "setting", name, base)
    chosen = {**base, **changes, "scale": scale}
    wanted: Any = chosen["seeds"] if seeds is None else seeds
    if isinstance(wanted, int) and not isinstance(wanted, bool):
        wanted = range(check_integer(where, "seeds", wanted, low=1))
    chosen["seeds"] = tuple(check_integer(where, "seed", seed) for seed in wanted)
    if not chosen["seeds"] or len(set(chosen["seeds"])) < len(chosen["seeds"]):
        raise ValueError(refusal(where, f"seeds {chosen['seeds']}", "one or more, all different"))
    return chosen


def _ordered(where: str, pieces: Sequence[Piece]) -> list[Piece]:
    """Return the pieces so that each comes after what it needs."""
    by_key: dict[str, Piece] = {}
    for piece in pieces:
        if piece.key in by_key:
            found = f"two pieces '{piece.key}'"
            raise ValueError(refusal(where, found, "different keys", "Rename one."))
        by_key[piece.key] = piece
    for piece in pieces:
        for need in piece.needs:
            if need not in by_key:
                raise unknown_name(f"piece {piece.key}", "need", need, by_key)
    ordered: dict[str, Piece] = {}
    left = dict(by_key)
    while left:
        ready = [piece for piece in left.values() if all(n in ordered for n in piece.needs)]
        if not ready:
            found = f"pieces that need each other: {', '.join(sorted(left))}"
            raise ValueError(refusal(where, found, "needs without a circle"))
        for piece in ready:
            ordered[piece.key] = left.pop(piece.key)
    return list(ordered.values())


def _wanted(where: str, pieces: Sequence[Piece], only: str | None) -> list[Piece]:
    """Return the pieces whose keys fit a pattern, and all that they need; each after its needs."""
    if only is None:
        return list(pieces)
    wanted = fitting([piece.key for piece in pieces], [only])
    if not wanted:
        some = ", ".join(piece.key for piece in pieces[:3])
        expected = f"a pattern of its pieces, such as {some}"
        raise ValueError(refusal(where, f"only '{only}', which fits none", expected, "Use *."))
    for piece in reversed(pieces):
        if piece.key in wanted:
            wanted.update(piece.needs)
    return [piece for piece in pieces if piece.key in wanted]


def _job(piece: Piece, paths: Mapping[str, Path], marks: Marks) -> Job:
    return Job(
        key=piece.key,
        task=TaskName.of(piece.task),
        kwargs=dict(piece.kwargs),
        folder=paths[piece.key],
        needs={need: paths[need] for need in piece.needs},
        record=marks.record(piece.key),
        weight=piece.weight,
        sources=sources_of(piece),
    )


def _raise_failures(where: str, folder: Path, failures: Sequence[Failure]) -> None:
    record = folder / "errors.txt"
    if not failures:
        record.unlink(missing_ok=True)
        return
    write_text(record, "\n\n".join(f"{f.key}: {f.message}\n{f.trace}" for f in failures) + "\n")
    failed = [one for one in failures if not one.skipped]
    lines = [f"  {one.key}: {one.message}" for one in failed[:10]]
    skipped = len(failures) - len(failed)
    if skipped:
        lines.append(f"  {skipped} more need these and were not run.")
    raise RuntimeError(
        f"{where}: {len(failed)} pieces failed; the others are finished and kept.\n"
        + "\n".join(lines)
        + f"\nTracebacks are in {record}. Mend the cause and run again: it resumes."
    )


@contextlib.contextmanager
def _writable(where: str, folder: Path) -> Iterator[None]:
    """Say in one sentence that a folder cannot be written to, or that the disk is full."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            found, advice = "a full disk", "Free some space and run again: it resumes."
            raise ValueError(refusal(where, found, f"room in {folder}", advice)) from error
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST):
            found = f"{folder} that cannot be written to ({error.strerror})"
            raise ValueError(refusal(where, found, "a folder", "Choose another.")) from error
        raise
