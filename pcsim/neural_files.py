"""Open the arrays of a published recording: the path a user gives, and what must be inside."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pcsim.messages import refusal

__all__ = [
    "absent_recordings",
    "read_mat",
    "read_npy",
    "read_npz",
    "recording_file",
    "recording_folder",
]

ADVICE = "Set PCSIM_DATA to the folder that holds it."


def recording_folder(name: str) -> Path:
    """Return the folder of a recording: the one called `name` in PCSIM_DATA.

    Raises
    ------
    RuntimeError
        If it is not there.
    """
    if reason := absent_recordings(name):
        raise RuntimeError(refusal("recording_folder", reason, f"a folder {name}", ADVICE))
    return Path(os.environ["PCSIM_DATA"]) / name


def absent_recordings(*names: str) -> str:
    """Return which of the recordings are not here, "" if all are.

    Examples
    --------
    >>> absent_recordings()
    ''
    """
    local = os.environ.get("PCSIM_DATA", "")
    gone = [name for name in names if not (local and (Path(local) / name).is_dir())]
    if not gone:
        return ""
    place = "PCSIM_DATA" if local else "PCSIM_DATA, which is not set"
    return f"data absent: no {' or '.join(gone)} in {place} (docs/recordings.md)"


def recording_file(where: str, path: str | os.PathLike[str], name: str) -> Path:
    """Return the file at `path`, or the one called `name` if `path` is a folder."""
    source = Path(path)
    source = source / name if source.is_dir() else source
    if not source.is_file():
        advice = f"Give the path of {name} or of its folder."
        raise ValueError(refusal(where, f"no file {source}", "a recording", advice))
    return source


def read_npz(
    where: str, path: str | os.PathLike[str], name: str, keys: Sequence[str]
) -> dict[str, NDArray[Any]]:
    """Return arrays of an npz file by name, refusing a file that is damaged or lacks one."""
    source = recording_file(where, path, name)
    try:
        with source.open("rb") as file, np.load(file, allow_pickle=False) as stored:
            found = {key: stored[key] for key in stored.files}
    except Exception as error:
        raise _damaged(where, source, error) from None
    return _with_keys(where, source, found, keys)


def read_npy(where: str, path: str | os.PathLike[str], name: str) -> NDArray[np.float64]:
    """Return the one array of an npy file, refusing one that is damaged or not finite."""
    source = recording_file(where, path, name)
    try:
        with source.open("rb") as file:
            found = np.load(file, allow_pickle=False).astype(np.float64)
    except Exception as error:
        raise _damaged(where, source, error) from None
    if not np.isfinite(found).all():
        raise _damaged(where, source, ValueError("values that are not finite"))
    return np.asarray(found)


def read_mat(
    where: str, path: str | os.PathLike[str], name: str, keys: Sequence[str]
) -> dict[str, Any]:
    """Return variables of a MATLAB file up to version 7 by name, as `read_npz`."""
    from scipy.io import loadmat

    source = recording_file(where, path, name)
    try:
        with source.open("rb") as file:
            found = dict(loadmat(file))
    except Exception as error:
        raise _damaged(where, source, error) from None
    return _with_keys(where, source, found, keys)


def _damaged(where: str, source: Path, error: Exception) -> ValueError:
    found = f"{source.name}, which cannot be read ({type(error).__name__}: {str(error)[:80]})"
    advice = "It is damaged or cut short: get it again."
    return ValueError(refusal(where, found, f"a whole {source.suffix} file", advice))


def _with_keys(
    where: str, source: Path, found: dict[str, Any], keys: Sequence[str]
) -> dict[str, Any]:
    missing = [key for key in keys if key not in found]
    if missing:
        shown = f"{source.name} without {', '.join(missing)}"
        advice = "It is another recording, or an old copy."
        raise ValueError(refusal(where, shown, f"variables {', '.join(keys)}", advice))
    return {key: found[key] for key in keys}
