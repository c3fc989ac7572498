"""Read the file formats that data sets come in, and refuse what is truncated or corrupt.

Nothing here unpickles: an ``.npz`` that holds objects is refused.
"""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pcsim.messages import refusal

__all__ = ["counts_from_rows", "read_npz"]

Array = NDArray[np.generic]
ADVICE = "Delete it and fetch it again."


def read_npz(path: Path, names: Sequence[str]) -> dict[str, Array]:
    """Return the named arrays of an ``.npz`` file.

    Raises
    ------
    ValueError
        If the file is no zip archive, is damaged, lacks a name or holds Python objects.
    """
    where = f"read_npz {path.name}"
    try:
        with np.load(path, allow_pickle=False) as held:
            missing = sorted(set(names) - set(held.files))
            if missing:
                found = f"arrays {', '.join(sorted(held.files))}"
                raise ValueError(refusal(where, found, f"also {', '.join(missing)}", ADVICE))
            return {name: _entry(where, held, name) for name in names}
    except (zipfile.BadZipFile, EOFError, OSError, zlib.error) as error:
        found = f"a damaged or foreign file ({error})"
        raise ValueError(refusal(where, found, "an .npz archive", ADVICE)) from None


def _entry(where: str, held: Mapping[str, Array], name: str) -> Array:
    try:
        return held[name]
    except ValueError as error:
        found = f"array {name} that cannot be read ({error})"
        raise ValueError(refusal(where, found, "plain numbers or text", ADVICE)) from None


def counts_from_rows(where: str, parts: Mapping[str, Array]) -> NDArray[np.uint16]:
    """Return the dense matrix of compressed sparse rows (`data`, `indices`, `indptr`, `shape`).

    Raises
    ------
    ValueError
        If the parts contradict each other.
    """
    data, indices = parts["data"], parts["indices"].astype(np.int64)
    indptr, shape = parts["indptr"].astype(np.int64), parts["shape"].astype(np.int64)
    sound = (
        shape.shape == (2,)
        and data.shape == indices.shape
        and indptr.shape == (shape[0] + 1,)
        and indptr[0] == 0
        and indptr[-1] == data.size
        and bool((np.diff(indptr) >= 0).all())
        and (data.size == 0 or (0 <= indices.min() and indices.max() < shape[1]))
        and (data.size == 0 or (0 <= data.min() and data.max() < 2**16))
    )
    if not sound:
        found = "row parts that contradict each other"
        raise ValueError(refusal(where, found, "compressed sparse rows of counts", ADVICE))
    dense = np.zeros((int(shape[0]), int(shape[1])), np.uint16)
    rows = np.repeat(np.arange(shape[0]), np.diff(indptr))
    np.add.at(dense, (rows, indices), data.astype(np.uint16))
    return dense
