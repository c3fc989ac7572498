"""Write files so that a reader finds the old one or the new one, never half of either."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from pcsim.messages import refusal

__all__ = [
    "atomic_path",
    "cache_folder",
    "read_json",
    "read_record",
    "to_plain",
    "write_json",
    "write_text",
]


def cache_folder() -> Path:
    """Return where models and data are kept: PCSIM_CACHE, or the user's cache folder."""
    own = os.environ.get("PCSIM_CACHE")
    if own:
        return Path(own)
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "pcsim"


@contextlib.contextmanager
def atomic_path(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Give a temporary sibling of `path` to write to; it takes the place of `path` at the end.

    The block may create a file or a folder. If it raises, what it wrote is removed and `path` is
    as before. The sibling keeps the suffix, starts with a dot and lies on the same disk, so the
    move is one step of the file system: a process killed at any moment leaves a file whole. (A
    folder that replaces an older one takes two: killed between, `path` is missing, never half.)

    Parameters
    ----------
    path
        Where the result shall be. Missing parent folders are made.

    Raises
    ------
    RuntimeError
        If the block ends without having written anything.

    Examples
    --------
    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp())
    >>> with atomic_path(folder / "note.txt") as part:
    ...     _ = part.write_text("whole")
    >>> [p.name for p in folder.iterdir()]
    ['note.txt']
    """
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.parent / f".{target.stem}.{uuid.uuid4().hex[:12]}.part{target.suffix}"
    try:
        yield part
        if not part.exists():
            expected = f"the block to have written {part.name}"
            raise RuntimeError(refusal("atomic_path", "nothing written", expected))
        _take_the_place(part, target)
    finally:
        _remove(part)


def _take_the_place(part: Path, target: Path) -> None:
    if target.is_dir() and not target.is_symlink():
        # A folder that is not empty cannot be replaced in one step: move the old one away first.
        old = part.with_name(f".{target.stem}.{uuid.uuid4().hex[:12]}.old")
        target.rename(old)
        try:
            os.replace(part, target)
        except OSError:
            old.rename(target)
            raise
        _remove(old)
    else:
        os.replace(part, target)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write `text` as UTF-8 with the line ends it has, atomically."""
    with atomic_path(path) as part:
        part.write_text(text, encoding="utf-8", newline="")


def write_json(path: str | os.PathLike[str], value: Any) -> None:
    """Write `value` as JSON with sorted keys, atomically; the same value gives the same bytes.

    Raises
    ------
    ValueError
        If a number is not finite: JSON has no word for it.
    TypeError
        If something is neither a mapping, a sequence, an array, text, a number nor None.
    """
    try:
        text = json.dumps(to_plain(value), indent=1, sort_keys=True, allow_nan=False)
    except ValueError:
        found, advice = "a number that is NaN or infinite", "Write None where there is no number."
        where = f"write_json {Path(path).name}"
        raise ValueError(refusal(where, found, "finite numbers", advice)) from None
    write_text(path, text + "\n")


def to_plain(value: Any) -> Any:
    """Turn arrays, tuples, paths and numpy scalars into what JSON knows.

    Examples
    --------
    >>> to_plain({"size": np.int64(3), "sigma": (np.float64(0.5), None)})
    {'size': 3, 'sigma': [0.5, None]}
    """
    if isinstance(value, np.generic):
        return to_plain(value.item())
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Mapping):
        return {str(key): to_plain(entry) for key, entry in value.items()}
    if isinstance(value, np.ndarray):
        return to_plain(value.tolist())
    if isinstance(value, list | tuple):
        return [to_plain(entry) for entry in value]
    if isinstance(value, set | frozenset):
        return sorted(to_plain(entry) for entry in value)
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    found = f"a {type(value).__name__}"
    expected = "numbers, text, None, arrays, and lists or mappings of them"
    raise TypeError(refusal("to_plain", found, expected, "Convert it first."))


def read_json(path: str | os.PathLike[str]) -> Any:
    """Read a JSON file.

    Raises
    ------
    ValueError
        If there is no such file or it is not JSON.
    """
    where = f"read_json {Path(path).name}"
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        found = f"no readable file ({error.strerror})"
        raise ValueError(refusal(where, found, "a JSON file", "Check the path.")) from None
    except ValueError as error:
        found = f"text that is not JSON ({error})"
        raise ValueError(refusal(where, found, "JSON", "Write the file anew.")) from None


def read_record(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read a JSON mapping that can be made again: empty if there is none, or it is damaged."""
    try:
        record = read_json(path)
    except ValueError:
        return {}
    return record if isinstance(record, dict) else {}
