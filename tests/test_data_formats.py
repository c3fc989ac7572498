"""The file formats of data sets: what is written is read, and what is broken is refused."""

from __future__ import annotations

import gzip
import io
import struct
import tarfile

import numpy as np
import pytest
import scipy.io

from pcsim.data_formats import (
    counts_from_lines,
    counts_from_rows,
    read_cifar,
    read_idx,
    read_mat,
    read_npz,
    read_text_matrix,
)


def idx_bytes(array):
    """The published format, from its description."""
    head = struct.pack(">HBB", 0, 8, array.ndim) + struct.pack(f">{array.ndim}I", *array.shape)
    return head + array.tobytes()


def tar_bytes(members):
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz") as archive:
        for name, raw in members.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(raw)
            archive.addfile(entry, io.BytesIO(raw))
    return stream.getvalue()


@pytest.fixture
def array(rng):
    return rng.integers(256, size=(7, 4, 5), dtype=np.uint8)


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_idx_round_trip(tmp_path, array, suffix):
    path = tmp_path / f"images{suffix}"
    raw = idx_bytes(array)
    path.write_bytes(gzip.compress(raw) if suffix else raw)
    got = read_idx(path)
    np.testing.assert_array_equal(got, array)
    got[0] = 0  # Its own memory.


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda raw: raw[:-1], "for the shape"),
        (lambda raw: raw + b"\0", "for the shape"),
        (lambda raw: raw[:6], "for the shape|a start"),
        (lambda raw: raw[:2], "a start"),
        (lambda raw: b"", "a start"),
        (lambda raw: b"\0\0\x0d" + raw[3:], "a start"),
        (lambda raw: b"<!DOCTYPE html>", "a start 3c 21"),
        (lambda raw: raw[:4] + b"\xff" * 12 + raw[16:], "for the shape"),
    ],
)
def test_broken_idx_is_refused(tmp_path, array, change, words, refused):
    path = tmp_path / "images"
    path.write_bytes(change(idx_bytes(array)))
    message = refused(read_idx, path)
    assert "read images" in message
    assert "Delete the file and fetch it again." in message
    assert any(word in message for word in words.split("|"))


def flipped(raw, at):
    return raw[:at] + bytes([raw[at] ^ 0xFF]) + raw[at + 1 :]


@pytest.mark.parametrize(
    "change",
    [
        lambda raw: raw[:-3],
        lambda raw: raw[: len(raw) // 2],
        lambda raw: raw[:5],
        lambda raw: b"",
        lambda raw: flipped(raw, len(raw) // 2),
        lambda raw: flipped(raw, len(raw) - 6),
        lambda raw: b"<html>404</html>",
    ],
)
def test_broken_gzip_is_refused(tmp_path, array, change, refused):
    path = tmp_path / "images.gz"
    path.write_bytes(change(gzip.compress(idx_bytes(array))))
    assert "read images.gz" in refused(read_idx, path)


def test_npz_round_trip(tmp_path, array):
    path = tmp_path / "a.npz"
    np.savez_compressed(path, x=array, other=array)
    got = read_npz(path, ("x",))
    assert set(got) == {"x"}
    np.testing.assert_array_equal(got["x"], array)


@pytest.mark.parametrize("keep", [0, 1, 30, 200, 0.5, 0.95])
def test_truncated_npz_is_refused(tmp_path, array, keep, refused):
    path = tmp_path / "a.npz"
    np.savez_compressed(path, x=array)
    raw = path.read_bytes()
    path.write_bytes(raw[: keep if isinstance(keep, int) else int(keep * len(raw))])
    assert "an .npz archive" in refused(read_npz, path, ("x",))


def test_changed_byte_in_npz_is_refused(tmp_path, array, refused):
    path = tmp_path / "a.npz"
    np.savez(path, x=array)
    raw = path.read_bytes()
    path.write_bytes(flipped(raw, raw.index(array.tobytes()) + 3))
    assert "read a.npz" in refused(read_npz, path, ("x",))


def test_npz_without_the_name_or_with_objects_is_refused(tmp_path, array, refused):
    path = tmp_path / "a.npz"
    np.savez(path, y=array, x=np.array([{}], object))
    assert "arrays x, y, expected also z" in refused(read_npz, path, ("y", "z"))
    assert "array x that cannot be read" in refused(read_npz, path, ("x",))


def test_an_array_of_another_format_is_no_npz(tmp_path, array, refused):
    path = tmp_path / "a.npz"
    with path.open("wb") as file:
        np.save(file, array)
    assert "an .npz archive" in refused(read_npz, path, ("x",))


@pytest.mark.parametrize("compressed", [False, True])
def test_mat_round_trip(tmp_path, array, compressed):
    path = tmp_path / "a.mat"
    scipy.io.savemat(path, {"X": array[0]}, do_compression=compressed)
    np.testing.assert_array_equal(read_mat(path, "X"), array[0])


@pytest.mark.parametrize("keep", [0, 50, 140, 0.5, 0.9])
def test_truncated_mat_is_refused(tmp_path, rng, keep, refused):
    path = tmp_path / "a.mat"
    x = rng.integers(2, size=(50, 784), dtype=np.uint8)
    scipy.io.savemat(path, {"X": x}, do_compression=True)
    raw = path.read_bytes()
    path.write_bytes(raw[: keep if isinstance(keep, int) else int(keep * len(raw))])
    assert "read a.mat" in refused(read_mat, path, "X")


def test_foreign_mat_is_refused(tmp_path, array, refused):
    path = tmp_path / "a.mat"
    scipy.io.savemat(path, {"Y": array})
    assert "no array X" in refused(read_mat, path, "X")
    path.write_text("0 1 0 1\n")
    assert "a MATLAB v5 file" in refused(read_mat, path, "X")


def test_text_matrix(tmp_path, rng, refused):
    path = tmp_path / "a.amat"
    x = rng.integers(2, size=(6, 5), dtype=np.uint8)
    np.savetxt(path, x, fmt="%d")
    got = read_text_matrix(path, 5)
    assert got.dtype == np.uint8
    np.testing.assert_array_equal(got, x)
    raw = path.read_bytes()
    for broken in (raw[:-4], b"", raw.replace(b"1", b"2"), raw.replace(b" ", b","), raw[1:]):
        path.write_bytes(broken)
        assert "lines of 5 numbers 0 or 1" in refused(read_text_matrix, path, 5)
    path.write_bytes(raw)
    assert "lines of 7 numbers" in refused(read_text_matrix, path, 7)


def cifar_batch(rng, n):
    label = rng.integers(10, size=n, dtype=np.uint8)
    image = rng.integers(256, size=(n, 3, 32, 32), dtype=np.uint8)
    return (
        image,
        label,
        b"".join(bytes([k]) + i.tobytes() for k, i in zip(label, image, strict=True)),
    )


def test_cifar_round_trip(tmp_path, rng):
    path = tmp_path / "c.tar.gz"
    parts = [cifar_batch(rng, n) for n in (3, 4)]
    path.write_bytes(tar_bytes({"d/b": parts[1][2], "d/readme": b"x", "d/a": parts[0][2]}))
    image, label = read_cifar(path, ("d/a", "d/b"))
    np.testing.assert_array_equal(image, np.concatenate([p[0] for p in parts]))
    np.testing.assert_array_equal(label, np.concatenate([p[1] for p in parts]))


def test_broken_cifar_is_refused(tmp_path, rng, refused):
    path = tmp_path / "c.tar.gz"
    raw = cifar_batch(rng, 20)[2]
    whole = tar_bytes({"d/a": raw})
    for broken in (b"", whole[:100], whole[: len(whole) // 2], flipped(whole, len(whole) // 2)):
        path.write_bytes(broken)
        assert "read c.tar.gz" in refused(read_cifar, path, ("d/a",))
    path.write_bytes(whole)
    assert "no d/b, expected all batches" in refused(read_cifar, path, ("d/a", "d/b"))
    path.write_bytes(tar_bytes({"d/a": raw[:-1]}))
    assert "expected a multiple of 3073" in refused(read_cifar, path, ("d/a",))
    path.write_bytes(tar_bytes({"d/a": b"\x0a" + raw[1:]}))
    assert "label 10" in refused(read_cifar, path, ("d/a",))


def rows(**change):
    parts = {"data": [2, 1, 5], "indices": [0, 2, 1], "indptr": [0, 1, 3], "shape": [2, 3]}
    return {name: np.array(part) for name, part in {**parts, **change}.items()}


def test_rows_are_unfolded():
    np.testing.assert_array_equal(counts_from_rows("doc", rows()), [[2, 0, 0], [0, 5, 1]])
    twice = counts_from_rows("doc", rows(indices=[0, 2, 2]))
    np.testing.assert_array_equal(twice, [[2, 0, 0], [0, 0, 6]])


@pytest.mark.parametrize(
    "change",
    [
        {"indices": [0, 3, 1]},
        {"indices": [0, -1, 1]},
        {"indices": [0, 2]},
        {"indptr": [0, 3, 1]},
        {"indptr": [0, 1, 2]},
        {"indptr": [1, 1, 3]},
        {"indptr": [0, 3]},
        {"data": [2, -1, 5]},
        {"data": [2, 70_000, 5]},
        {"shape": [2]},
    ],
)
def test_contradictory_rows_are_refused(change, refused):
    assert "compressed sparse rows" in refused(counts_from_rows, "doc", rows(**change))


def test_lines_of_counts():
    count, label = counts_from_lines("doc", ["3 2:1 1:4", "9", "1 3:2"], 3)
    np.testing.assert_array_equal(count, [[4, 1, 0], [0, 0, 2]])
    np.testing.assert_array_equal(label, [3, 1])


@pytest.mark.parametrize(
    "line", ["1 4:1", "1 0:1", "1 2:-1", "1 2", "1 2:", "x 1:1", "", "1 2:70000"]
)
def test_broken_lines_are_refused(line, refused):
    assert "line 2" in refused(counts_from_lines, "doc", ["1 1:1", line], 3)
