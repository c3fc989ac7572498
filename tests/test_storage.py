"""Files: whole or not there; what goes in comes out."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pcsim.responses import make_responses, open_responses, save
from pcsim.storage import atomic_path, read_json, write_json, write_text


@pytest.fixture
def responses(rng) -> xr.Dataset:
    return make_responses(
        rng.normal(size=(2, 3, 4)),
        time={"time": [0.1, 0.2, 0.3], "frame": [0, 0, 1]},
        units={"population": ["error_pos", "error_neg", "latent", "latent"], "level": [0, 0, 1, 1]},
        trial={"condition": ["långt", "kort"], "blank": [False, True], "length": [0.7, np.nan]},
        free_energy=rng.normal(size=(2, 3)),
        attrs={"model": "example"},
    )


def test_round_trip_through_netcdf(responses, tmp_path):
    assert save(responses, tmp_path / "r.nc") == tmp_path / "r.nc"
    opened = open_responses(tmp_path / "r.nc")
    assert opened.identical(responses)
    assert opened.condition.dtype.kind == "U"


def test_round_trip_through_zarr(responses, tmp_path):
    pytest.importorskip("zarr")
    pytest.importorskip("dask")
    save(responses.chunk(trial=1), tmp_path / "r.zarr")
    opened = open_responses(tmp_path / "r.zarr")
    assert opened.rate.chunks is not None
    assert opened.load().identical(responses)
    save(opened.isel(trial=[1]), tmp_path / "r.zarr")
    assert open_responses(tmp_path / "r.zarr").sizes["trial"] == 1
    assert [p.name for p in tmp_path.iterdir()] == ["r.zarr"]


def test_same_responses_same_bytes(responses, tmp_path):
    save(responses, tmp_path / "a.nc")
    save(responses.copy(deep=True), tmp_path / "b.nc")
    assert (tmp_path / "a.nc").read_bytes() == (tmp_path / "b.nc").read_bytes()


def test_nested_provenance_is_kept_as_json_text(responses, tmp_path):
    responses.attrs = {"config": {"seeds": (1, 2)}, "dirty": True, "n": np.int64(3)}
    before = dict(responses.attrs)
    save(responses, tmp_path / "r.nc")
    assert responses.attrs == before
    attrs = open_responses(tmp_path / "r.nc").attrs
    assert attrs == {"config": '{"seeds": [1, 2]}', "dirty": "true", "n": 3}


def test_refused_responses_leave_no_file(refused, responses, tmp_path):
    refused(save, responses.drop_vars("condition"), tmp_path / "r.nc")
    refused(save, responses, tmp_path / "r.mat")
    responses.attrs["model"] = object()
    refused(save, responses, tmp_path / "r.nc")
    assert list(tmp_path.iterdir()) == []


def test_failed_save_leaves_the_old_file(refused, responses, tmp_path):
    save(responses, tmp_path / "r.nc")
    refused(save, responses.isel(trial=[]), tmp_path / "r.nc")
    assert open_responses(tmp_path / "r.nc").identical(responses)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40)
@given(data=st.data())
def test_damaged_netcdf_is_refused_or_read_whole(refused, responses, tmp_path, data):
    path = save(responses, tmp_path / "r.nc")
    whole = path.read_bytes()
    cut = tmp_path / "cut.nc"
    cut.write_bytes(whole[: data.draw(st.integers(0, len(whole) - 1))])
    message = refused(open_responses, cut)
    assert "cut.nc" in message
    assert "write it again" in message


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("absent.nc", None, "no such file"),
        ("note.txt", b"text", "found a path ending in '.txt'"),
        ("text.nc", b"not HDF5 at all", "cannot be read"),
        ("empty.nc", b"", "cannot be read"),
        ("absent.zarr", None, "no such file"),
    ],
)
def test_wrong_files_are_refused(refused, tmp_path, name, content, words):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    assert words in refused(open_responses, tmp_path / name)


def test_a_file_of_something_else_is_refused(refused, tmp_path):
    xr.Dataset({"speed": ("day", [1.0])}).to_netcdf(tmp_path / "w.nc", engine="h5netcdf")
    assert "found variables speed, expected 'rate'" in refused(open_responses, tmp_path / "w.nc")


def test_atomic_path_replaces_files_and_folders(tmp_path):
    write_text(tmp_path / "sub" / "a.txt", "old\r\n")
    write_text(tmp_path / "sub" / "a.txt", "new\n")
    assert (tmp_path / "sub" / "a.txt").read_bytes() == b"new\n"
    for text in ("one", "two"):
        with atomic_path(tmp_path / "folder") as part:
            part.mkdir()
            (part / text).write_text(text)
    assert [p.name for p in (tmp_path / "folder").iterdir()] == ["two"]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["folder", "sub"]


def test_atomic_path_keeps_the_suffix(tmp_path):
    with atomic_path(tmp_path / "figure.pdf") as part:
        assert part.suffix == ".pdf"
        assert part.parent == tmp_path
        part.touch()


@pytest.mark.parametrize("folder", [False, True])
def test_failure_removes_what_was_written(tmp_path, folder):
    write_text(tmp_path / "a.txt", "old")

    def write_and_fail() -> None:
        with atomic_path(tmp_path / "a.txt") as part:
            if folder:
                part.mkdir()
                (part / "half").touch()
            else:
                part.write_text("half")
            raise KeyError("boom")

    with pytest.raises(KeyError, match="boom"):
        write_and_fail()
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]
    assert (tmp_path / "a.txt").read_text() == "old"


def test_a_block_that_writes_nothing_is_an_error(tmp_path):
    with pytest.raises(RuntimeError, match="found nothing written"), atomic_path(tmp_path / "a"):
        pass


def test_killed_writer_leaves_the_old_file_whole(tmp_path):
    write_text(tmp_path / "a.txt", "old")
    code = f"""
        import os, signal
        from pcsim.storage import atomic_path
        with atomic_path({str(tmp_path / "a.txt")!r}) as part:
            part.write_text("half")
            os.kill(os.getpid(), signal.SIGKILL)
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)])
    assert done.returncode == -9
    assert (tmp_path / "a.txt").read_text() == "old"


def test_json_round_trip_and_same_bytes(tmp_path):
    value = {"b": np.float64(0.7), "a": [np.int64(4), None, True], "path": Path("x") / "y"}
    write_json(tmp_path / "a.json", value)
    write_json(tmp_path / "b.json", dict(reversed(value.items())))
    assert (tmp_path / "a.json").read_bytes() == (tmp_path / "b.json").read_bytes()
    path = os.fspath(Path("x") / "y")
    assert read_json(tmp_path / "a.json") == {"b": 0.7, "a": [4, None, True], "path": path}


@pytest.mark.parametrize("value", [float("nan"), [np.inf], {"a": object()}, {"a": 1j}])
def test_what_json_cannot_say_is_refused(refused, tmp_path, value):
    refused(write_json, tmp_path / "a.json", value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("content", [None, b"{", b"\xff\xfe", b""])
def test_broken_json_is_refused(refused, tmp_path, content):
    if content is not None:
        (tmp_path / "a.json").write_bytes(content)
    assert "read_json a.json: found" in refused(read_json, tmp_path / "a.json")
