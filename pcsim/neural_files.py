"""Open the arrays of a published recording: the path a user gives, and what must be inside."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pcsim.messages import refusal

__all__ = ["read_mat", "read_npz", "recording_file"]


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
