"""What a finished piece is known by: settings, needs and sources; and which pieces to keep."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from pcsim.experiment_piece import Piece
from pcsim.messages import refusal
from pcsim.pool import TaskName
from pcsim.provenance import fingerprint, source_fingerprint
from pcsim.storage import read_record

__all__ = ["Marks", "fitting", "is_done", "marks_of", "sources_of"]

RECORD = "piece.json"


@dataclass(frozen=True)
class Marks:
    """The fingerprints of a run's pieces, and which are those of older sources."""

    package: str
    """The sha256 of the sources of pcsim."""
    fingerprints: Mapping[str, str]
    """Key -> sha256 over settings, needs and sources."""
    questions: Mapping[str, str]
    """Key -> sha256 over task and settings alone, its own and of the pieces that it needs."""
    kept: Mapping[str, str] = field(default_factory=dict)
    """Key -> sha256 of the sources that made a piece which is kept all the same."""

    def record(self, key: str) -> dict[str, str]:
        """Return what the folder of a piece says of itself, beside its key."""
        return {
            "fingerprint": self.fingerprints[key],
            "question": self.questions[key],
            "source_sha256": self.package,
        }


def marks_of(pieces: Sequence[Piece], folder: Path, keep: Sequence[str] = ()) -> Marks:
    """Return the fingerprints of pieces; each comes after what it needs.

    Parameters
    ----------
    pieces
        All pieces of the run.
    folder
        Where the folders of pieces are.
    keep
        Patterns of keys. A finished piece that fits one keeps the fingerprint it has, whatever was
        edited since, if task and settings are the same, its own and of what it needs; of several
        the newest.

    Raises
    ------
    ValueError
        If a pattern fits no piece, or a source cannot be read.
    """
    _all_fit([piece.key for piece in pieces], keep)
    package = source_fingerprint()
    marks: dict[str, str] = {}
    questions: dict[str, str] = {}
    kept: dict[str, str] = {}
    for piece in pieces:
        try:
            own = {"key": piece.key, "task": _name(piece), "kwargs": dict(piece.kwargs)}
            asked = {need: questions[need] for need in piece.needs}
            questions[piece.key] = fingerprint({**own, "needs": asked})
            needs = {need: marks[need] for need in piece.needs}
            texts = [_text_of(piece, file) for file in sources_of(piece)]
            made = {"needs": needs, "package": package, "sources": texts}
            marks[piece.key] = fingerprint({**own, **made})
        except TypeError as error:
            raise TypeError(f"piece {piece.key}: kwargs are not plain values. {error}") from None
        if not fitting([piece.key], keep) or is_done(
            folder / f"{piece.key}@{marks[piece.key][:8]}", marks[piece.key]
        ):
            continue
        if older := _older(folder, piece.key, questions[piece.key]):
            marks[piece.key] = older["fingerprint"]
            kept[piece.key] = older["source_sha256"]
    return Marks(package, marks, questions, kept)


def fitting(keys: Sequence[str], patterns: Sequence[str]) -> set[str]:
    """Return the keys that fit one of the patterns.

    Examples
    --------
    >>> sorted(fitting(["train/RB/0", "observe/H10/RB/0"], ["train/*", "judge/*"]))
    ['train/RB/0']
    """
    return {key for key in keys if any(fnmatchcase(key, pattern) for pattern in patterns)}


def _all_fit(keys: Sequence[str], patterns: Sequence[str]) -> None:
    for pattern in patterns:
        if not fitting(keys, [pattern]):
            expected = f"patterns of its pieces, such as {', '.join(keys[:3])}"
            found = f"keep '{pattern}', which fits none"
            raise ValueError(refusal("run", found, expected, "Use *."))


def _older(folder: Path, key: str, question: str) -> dict[str, Any] | None:
    """Return the record of the newest finished piece with the same question, None without one."""
    place = folder / key
    records = [path / RECORD for path in place.parent.glob(f"{place.name}@*")]
    found = [(path.stat().st_mtime, read_record(path)) for path in records if path.is_file()]
    whole = [(at, one) for at, one in found if {"fingerprint", "source_sha256"} <= one.keys()]
    same = [(at, one) for at, one in whole if one.get("question") == question]
    return max(same, key=lambda pair: pair[0])[1] if same else None


def _name(piece: Piece) -> str:
    task = TaskName.of(piece.task)
    return f"{Path(task.file).stem}.{task.name}"


def sources_of(piece: Piece) -> tuple[str, ...]:
    """Return the files outside pcsim that the piece depends on, its own first."""
    task = TaskName.of(piece.task)
    own = () if task.module.startswith("pcsim.") else (task.file,)
    return (*own, *piece.sources)


def _text_of(piece: Piece, file: str) -> str:
    try:
        return Path(file).read_text(encoding="utf-8")
    except OSError as error:
        found = f"source {file} that cannot be read ({error.strerror})"
        where = f"piece {piece.key}"
        raise ValueError(refusal(where, found, "a file", "Check the path.")) from None


def is_done(folder: Path, mark: str) -> bool:
    """A folder stands only when it is whole; the full mark guards against a shared prefix.

    A record that cannot be read counts as none: the piece is made again.
    """
    return read_record(folder / RECORD).get("fingerprint") == mark
