"""Read the file formats that data sets come in, and refuse what is truncated or corrupt.

Nothing here unpickles: an ``.npz`` that holds Python objects is refused.
"""

from __future__ import annotations

import contextlib
import gzip
import lzma
import math
import tarfile
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pcsim.messages import refusal

__all__ = [
    "Array",
    "counts_from_lines",
    "counts_from_rows",
    "damaged",
    "read_cifar",
    "read_idx",
    "read_mat",
    "read_npz",
    "read_text_matrix",
]

Array = NDArray[np.generic]
IDX_UINT8 = 8
"""Code of unsigned bytes in the third byte of an idx file."""
BROKEN = (
    EOFError,
    OSError,
    zipfile.BadZipFile,
    tarfile.TarError,
    zlib.error,
    lzma.LZMAError,
    NotImplementedError,
)


def damaged(where: str, found: str, expected: str) -> ValueError:
    """Return the error for a file that is not what it should be."""
    return ValueError(refusal(where, found, expected, "Delete the file and fetch it again."))


@contextlib.contextmanager
def _opened(path: Path, expected: str) -> Iterator[str]:
    """Turn whatever a decompressor says about a broken file into one message."""
    where = f"read {path.name}"
    try:
        yield where
    except FileNotFoundError:
        raise
    except BROKEN as error:
        raise damaged(where, f"a damaged or foreign file ({error})", expected) from None


def read_npz(path: Path, names: Sequence[str]) -> dict[str, Array]:
    """Return the named arrays of an ``.npz`` file.

    Raises
    ------
    ValueError
        If the file is no zip archive, is damaged, lacks a name or holds Python objects.
    """
    with _opened(path, "an .npz archive") as where:
        if not zipfile.is_zipfile(path):
            raise damaged(where, "a damaged or foreign file", "an .npz archive")
        with np.load(path, allow_pickle=False) as held:
            missing = sorted(set(names) - set(held.files))
            if missing:
                found = f"arrays {', '.join(sorted(held.files))}"
                raise damaged(where, found, f"also {', '.join(missing)}")
            return {name: _entry(where, held, name) for name in names}


def _entry(where: str, held: Mapping[str, Array], name: str) -> Array:
    try:
        return held[name]
    except (ValueError, SyntaxError, TypeError) as error:
        found = f"array {name} that cannot be read ({error})"
        raise damaged(where, found, "plain numbers or text") from None


def read_idx(path: Path) -> NDArray[np.uint8]:
    """Return the array of an idx file of unsigned bytes, gzipped (``.gz``) or plain.

    The format: two zero bytes, a code of the type, the number of axes, their sizes as big-endian
    32-bit integers, the entries; https://github.com/cvdfoundation/mnist

    Raises
    ------
    ValueError
        If the file is damaged, shorter or longer than it says, or of another type.
    """
    expected = "an idx file of unsigned bytes"
    with _opened(path, expected) as where:
        raw = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    if len(raw) < 4 or raw[:2] != b"\0\0" or raw[2] != IDX_UINT8 or not 1 <= raw[3] <= 4:
        raise damaged(where, f"a start {raw[:4].hex(' ')}", f"{expected}: 00 00 08 and axes")
    start = 4 + 4 * raw[3]
    shape = tuple(np.frombuffer(raw[4:start].ljust(start - 4, b"\0"), ">u4").tolist())
    if len(raw) != start + math.prod(shape):
        expected = f"{start + math.prod(shape)} for the shape {shape} that it states"
        raise damaged(where, f"{len(raw)} bytes", expected)
    return np.frombuffer(raw, np.uint8, offset=start).reshape(shape).copy()


def read_mat(path: Path, name: str) -> Array:
    """Return one array of a MATLAB v5 file.

    Raises
    ------
    ValueError
        If the file is damaged, of another version, or lacks the name.
    """
    from scipy.io import loadmat
    from scipy.io.matlab import MatReadError

    expected = "a MATLAB v5 file"
    with _opened(path, expected) as where:
        raw = path.read_bytes()
        if not raw.startswith(b"MATLAB 5.0 MAT-file"):
            raise damaged(where, f"a start {raw[:12]!r}", expected)
        try:
            held = loadmat(path, variable_names=[name])
        except (MatReadError, ValueError, TypeError, KeyError, IndexError) as error:
            raise damaged(where, f"a damaged file ({error})", expected) from None
    if name not in held:
        raise damaged(where, f"no array {name}", f"an array {name}")
    array: Array = np.asarray(held[name])
    return array


def read_text_matrix(path: Path, n_columns: int) -> NDArray[np.uint8]:
    """Return the zeros and ones of a text file with `n_columns` a line, separated by a space.

    Raises
    ------
    ValueError
        If a line is shorter or longer, or anything else than 0 and 1 is there.
    """
    expected = f"lines of {n_columns} numbers 0 or 1"
    with _opened(path, expected) as where:
        raw = np.frombuffer(path.read_bytes().rstrip(b"\n") + b"\n", np.uint8)
    width = 2 * n_columns
    if raw.size % width or raw.size == 0:
        raise damaged(where, f"{raw.size} bytes, no whole number of lines", expected)
    rows = raw.reshape(-1, width)
    gaps, values = rows[:, 1::2], rows[:, 0::2] - np.uint8(ord("0"))
    if (gaps[:, :-1] != ord(" ")).any() or (gaps[:, -1] != ord("\n")).any() or (values > 1).any():
        raise damaged(where, "other characters", expected)
    return values.astype(np.uint8)


def read_cifar(path: Path, members: Sequence[str]) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Return images (n, 3, 32, 32) and labels of the named batches of CIFAR-10's binary archive.

    A record is one byte of label and 3 x 32 x 32 bytes of red, green and blue, row by row;
    https://www.cs.toronto.edu/~kriz/cifar.html

    Raises
    ------
    ValueError
        If the archive is damaged, lacks a batch, or a batch is no whole number of records.
    """
    size = 1 + 3 * 32 * 32
    batches = []
    for name, raw in _read_members(path, members).items():
        if len(raw) % size or not raw:
            expected = f"a multiple of {size}"
            raise damaged(f"read {path.name}", f"{name} of {len(raw)} bytes", expected)
        batches.append(np.frombuffer(raw, np.uint8).reshape(-1, size))
    records = np.concatenate(batches)
    if (records[:, 0] > 9).any():
        raise damaged(f"read {path.name}", f"label {records[:, 0].max()}", "labels from 0 to 9")
    return records[:, 1:].reshape(-1, 3, 32, 32).copy(), records[:, 0].copy()


def _read_members(path: Path, members: Sequence[str]) -> dict[str, bytes]:
    """Return the named files of a ``.tar.gz``; nothing is extracted to the disk.

    Raises
    ------
    ValueError
        If the archive is damaged or lacks one.
    """
    found: dict[str, bytes] = {}
    with _opened(path, "a .tar.gz archive") as where, gzip.open(path) as stream:
        with tarfile.open(fileobj=stream, mode="r:") as archive:
            for entry in archive:
                held = archive.extractfile(entry) if entry.name in members else None
                if held is not None:
                    found[entry.name] = held.read()
        while stream.read(2**20):
            pass  # The check sum of the contents comes last.
    missing = sorted(set(members) - set(found))
    if missing:
        raise damaged(where, f"no {', '.join(missing)}", "all batches")
    return {name: found[name] for name in members}


def counts_from_rows(where: str, parts: Mapping[str, Array]) -> NDArray[np.uint16]:
    """Return the dense matrix of compressed sparse rows (`data`, `indices`, `indptr`, `shape`).

    Raises
    ------
    ValueError
        If the parts contradict each other.

    Examples
    --------
    >>> rows = {"data": [2, 1], "indices": [0, 2], "indptr": [0, 1, 2], "shape": [2, 3]}
    >>> counts_from_rows("doc", {name: np.array(part) for name, part in rows.items()})
    array([[2, 0, 0],
           [0, 0, 1]], dtype=uint16)
    """
    data, indices = parts["data"].astype(np.int64), parts["indices"].astype(np.int64)
    indptr, shape = parts["indptr"].astype(np.int64), parts["shape"].astype(np.int64)
    sound = (
        shape.shape == (2,)
        and data.shape == indices.shape
        and indptr.shape == (shape[0] + 1,)
        and indptr[0] == 0
        and indptr[-1] == data.size
        and bool((np.diff(indptr) >= 0).all())
        and (data.size == 0 or (indices.min() >= 0 and indices.max() < shape[1]))
        and (data.size == 0 or bool((data >= 0).all() and (data < 2**16).all()))
    )
    if not sound:
        raise damaged(where, "row parts that contradict each other", "compressed sparse rows")
    dense = np.zeros((int(shape[0]), int(shape[1])), np.uint16)
    rows = np.repeat(np.arange(shape[0]), np.diff(indptr))
    np.add.at(dense, (rows, indices), data.astype(np.uint16))
    return dense


def counts_from_lines(
    where: str, lines: Sequence[str], n_words: int
) -> tuple[NDArray[np.uint16], NDArray[np.int64]]:
    """Return counts and labels of lines ``label word:count word:count ...``, words from 1.

    Documents without a word are left out.

    Raises
    ------
    ValueError
        If a line is not of that form or a word is beyond `n_words`.

    Examples
    --------
    >>> counts_from_lines("doc", ["7 1:2 3:1", "4"], 3)
    (array([[2, 0, 1]], dtype=uint16), array([7]))
    """
    counts, labels = [], []
    for number, line in enumerate(lines, 1):
        try:
            label, *pairs = line.split()
            row = np.zeros(n_words, np.uint16)
            for pair in pairs:
                word, _, count = pair.partition(":")
                if not 1 <= int(word) <= n_words or not 0 <= int(count) < 2**16:
                    raise ValueError
                row[int(word) - 1] = int(count)
            labels.append(int(label))
            counts.append(row)
        except ValueError:
            found = f"line {number} {line[:40]!r}"
            raise damaged(where, found, f"label word:count, words from 1 to {n_words}") from None
    dense = np.array(counts, np.uint16).reshape(-1, n_words)
    kept = dense.any(axis=1)
    return dense[kept], np.array(labels, np.int64)[kept]
