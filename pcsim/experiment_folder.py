"""The folder of a run: who may write to it, what a kill left there, its record and its figures."""

from __future__ import annotations

import contextlib
import fcntl
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pcsim.messages import refusal, unknown_name
from pcsim.storage import atomic_path, read_json, write_json

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["Run", "clear_parts", "lock", "open_run", "save_figures"]

PART = re.compile(r"\..*\.[0-9a-f]{12}\.(part|old)(\..*)?")
"""Names of what `pcsim.storage.atomic_path` had not finished when its process was killed."""

SUFFIXES = (".pdf", ".png", ".svg")


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
    with (folder / ".lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            found = f"{folder} in use by another run"
            advice = "Wait for it to end or choose another folder."
            raise ValueError(refusal(where, found, "a folder of its own", advice)) from None
        yield


def clear_parts(folder: Path) -> None:
    """Remove what a killed run had begun; only call while holding the lock."""
    for path in sorted(folder.rglob(".*")):
        if PART.fullmatch(path.name):
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)


def save_figures(
    run: Run, state: str, figures: Callable[[Run], Mapping[str, Figure]]
) -> list[Path]:
    """Draw and save figures, unless those of the same pieces are there already.

    Parameters
    ----------
    run
        The finished run.
    state
        Fingerprint of what they are drawn from.
    figures
        Run -> figures by path without suffix; each is saved as PDF, PNG and SVG.
    """
    record = run.folder / "figures.json"
    if record.is_file():
        saved = read_json(record)
        files = [run.folder / name for name in saved.get("files", ())]
        if saved.get("state") == state and files and all(file.is_file() for file in files):
            return files
    record.unlink(missing_ok=True)
    files = [file for name, figure in figures(run).items() for file in _save(run, name, figure)]
    names = [file.relative_to(run.folder).as_posix() for file in files]
    write_json(record, {"state": state, "files": names})
    return files


def _save(run: Run, name: str, figure: Figure) -> list[Path]:
    from pcsim.plots import save

    files = []
    for suffix in SUFFIXES:
        path = run.folder / f"{name}{suffix}"
        with atomic_path(path) as part:
            save(figure, part)
        files.append(path)
    return files
