"""The folder of a run: who may write to it, what a kill left there, its record and its figures."""

from __future__ import annotations

import contextlib
import fcntl
import re
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from pcsim.messages import refusal, unknown_name
from pcsim.storage import atomic_path, read_json, read_record, write_json

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = [
    "FIGURES",
    "Run",
    "clear_parts",
    "drop_figures",
    "listed",
    "lock",
    "lock_of",
    "open_run",
    "replace_listed",
    "save_figures",
]

PART = re.compile(r"\..*\.[0-9a-f]{12}\.(part|old)(\..*)?")
"""Names of what `pcsim.storage.atomic_path` had not finished when its process was killed."""

LOCK = ".pcsim.lock"
"""Not '.lock', a name that other programs give to files in folders above a run."""

SUFFIXES = (".pdf", ".png", ".svg")

FIGURES = "figures.json"
"""File of a run: its figures, and the fingerprint of what they were drawn from."""


@dataclass(frozen=True)
class Run:
    """A run of an experiment: its folder, its settings, and the folders of its pieces."""

    folder: Path
    experiment: str
    question: str
    scale: str
    settings: Mapping[str, Any]
    pieces: Mapping[str, Path]
    """Key -> folder, of every piece of this run."""

    def piece(self, key: str) -> Path:
        """Return the folder of a piece.

        Raises
        ------
        ValueError
            If the run has no such piece.
        """
        if key not in self.pieces:
            raise unknown_name(f"run {self.experiment}", "piece", key, self.pieces)
        return self.pieces[key]

    @property
    def missing(self) -> list[str]:
        """Keys of the pieces that are not there yet."""
        return [key for key, path in self.pieces.items() if not path.is_dir()]

    def save(self) -> None:
        """Write the record that `open_run` reads."""
        record = {
            "experiment": self.experiment,
            "question": self.question,
            "scale": self.scale,
            "settings": dict(self.settings),
            "pieces": {
                key: path.relative_to(self.folder).as_posix() for key, path in self.pieces.items()
            },
        }
        write_json(self.folder / "run.json", record)


def open_run(folder: str | Path) -> Run:
    """Open the folder of a finished run.

    Raises
    ------
    ValueError
        If it is not one.
    """
    place = Path(folder)
    if not (place / "run.json").is_file():
        found = f"{place} without run.json"
        advice = "Give a folder that 'pcsim run' finished, such as runs/correspondence."
        raise ValueError(refusal("open_run", found, "the folder of a finished run", advice))
    record = read_json(place / "run.json")
    try:
        settings = {**record["settings"], "seeds": tuple(record["settings"]["seeds"])}
        pieces = {key: place / path for key, path in record["pieces"].items()}
        texts = (record["experiment"], record["question"], record["scale"])
    except (KeyError, TypeError, AttributeError):
        found, advice = f"{place / 'run.json'} with other contents", "Run the experiment again."
        raise ValueError(refusal("open_run", found, "the record of a run", advice)) from None
    return Run(place, *texts, settings, pieces)


@contextlib.contextmanager
def lock(where: str, folder: Path) -> Iterator[None]:
    """Hold the folder for one run; the system lets go of it when the process ends."""
    with (folder / LOCK).open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            found = f"{folder} in use by another run"
            advice = "Wait for it to end or choose another folder."
            raise ValueError(refusal(where, found, "a folder of its own", advice)) from None
        yield


@contextlib.contextmanager
def lock_of(where: str, file: Path) -> Iterator[None]:
    """Hold the run that a file lies in, if any: its next run would clear what is half written."""
    for folder in file.absolute().parents:
        if (folder / LOCK).is_file() or (folder / "run.json").is_file():
            with lock(where, folder):
                yield
            return
    yield


def clear_parts(folder: Path) -> None:
    """Remove what a killed run had begun; only call while holding the lock."""
    for path in sorted(folder.rglob(".*")):
        if PART.fullmatch(path.name):
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)


def listed(folder: Path, record: str) -> list[str]:
    """Return the files that a record of a run names, as paths within its folder."""
    names = read_record(folder / record).get("files")
    if not isinstance(names, list):
        return []
    paths = [PurePosixPath(name) for name in names if isinstance(name, str)]
    return [str(one) for one in paths if not one.is_absolute() and ".." not in one.parts]


def replace_listed(
    folder: Path, record: str, files: Iterable[str], write: Callable[[], None], state: str = ""
) -> None:
    """Write files of a run, remove those that the record named before, and name the new ones.

    Killed at any moment it leaves a record that names all that there may be.
    """
    names, before = sorted(files), listed(folder, record)
    write_json(folder / record, {"state": None, "files": sorted({*before, *names})})
    write()
    for name in set(before) - set(names):
        (folder / name).unlink(missing_ok=True)
    write_json(folder / record, {"state": state, "files": names})


def drop_figures(run: Run, state: str) -> None:
    """Remove the figures of a run unless they were drawn from this state."""
    if read_record(run.folder / FIGURES).get("state") != state and listed(run.folder, FIGURES):
        replace_listed(run.folder, FIGURES, (), lambda: None)


def save_figures(
    run: Run, state: str, figures: Callable[[Run], Mapping[str, Figure]]
) -> list[Path]:
    """Draw and save figures, unless those of the same state are there already; remove older ones.

    Parameters
    ----------
    run
        The finished run.
    state
        Fingerprint of what they are drawn from, and by what.
    figures
        Run -> figures by path without suffix; each is saved as PDF, PNG and SVG.
    """
    files = [run.folder / name for name in listed(run.folder, FIGURES)]
    drawn = read_record(run.folder / FIGURES).get("state") == state
    if drawn and files and all(file.is_file() for file in files):
        return files
    # Until they are all there the record has no state, and a report takes none of them.
    write_json(run.folder / FIGURES, {"state": None, "files": listed(run.folder, FIGURES)})
    made = figures(run)
    names = [f"{name}{suffix}" for name in made for suffix in SUFFIXES]

    def write() -> None:
        for name, figure in made.items():
            _save(run, name, figure)

    replace_listed(run.folder, FIGURES, names, write, state)
    return [run.folder / name for name in names]


def _save(run: Run, name: str, figure: Figure) -> None:
    from pcsim.plots import save

    for suffix in SUFFIXES:
        with atomic_path(run.folder / f"{name}{suffix}") as part:
            save(figure, part)
