"""What travels: folders survive it, and a worker that would make other numbers refuses."""

from __future__ import annotations

import dataclasses
import os
import sys
import types
from pathlib import Path

import pytest

from pcsim import pool, scheduler, scheduler_parcel
from pcsim.pool import Agenda, Job, TaskName, fill
from pcsim.provenance import fingerprint
from pcsim.scheduler import check_scheduler, run_on_cluster
from pcsim.scheduler_parcel import Order, Parcel, carry_out, facts


def write(folder: Path, needs, *, text: str) -> None:
    before = "".join((path / "text").read_text() for path in needs.values())
    (folder / "text").write_text(before + text)


def say(folder: Path, needs, *, error: str) -> None:
    raise {"hdf5": RuntimeError("file write failed: No space left on device"), "dry": OSError(5)}[
        error
    ]


@pytest.fixture
def job(tmp_path) -> Job:
    need = tmp_path / "pieces" / "a" / "0@11111111"
    need.mkdir(parents=True)
    (need / "text").write_text("one, ")
    return Job(
        key="b/0",
        task=TaskName.of(write),
        kwargs={"text": "two"},
        folder=tmp_path / "pieces" / "b" / "0@22222222",
        needs={"a/0": need},
        record={"fingerprint": fingerprint("b")},
        sources=(str(Path(__file__).resolve()),),
    )


@pytest.fixture(autouse=True)
def _fresh(monkeypatch):
    monkeypatch.setattr(scheduler_parcel, "_BEGAN", {})
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


def needed(job: Job) -> list[Parcel]:
    return [Parcel.of(folder) for folder in job.needs.values()]


def test_a_folder_survives(tmp_path):
    folder = tmp_path / "one"
    (folder / "deep" / "empty").mkdir(parents=True)
    (folder / "deep" / "bytes").write_bytes(bytes(range(256)))
    (folder / "text").write_text("")
    parcel = Parcel.of(folder)
    for _ in range(2):  # Twice over the same place is once.
        parcel.unpack(tmp_path / "other")
    assert Parcel.of(tmp_path / "other") == parcel
    assert (tmp_path / "other" / "deep" / "bytes").read_bytes() == bytes(range(256))
    assert (tmp_path / "other" / "deep" / "empty").is_dir()


@pytest.mark.parametrize(
    "change",
    [
        {"files": (("text", b"onf"),)},
        {"files": (("texu", b"one"),)},
        {"folders": ("more",)},
        {"files": ()},
    ],
)
def test_changed_bytes_are_refused(tmp_path, refused, change):
    (tmp_path / "text").write_bytes(b"one")
    parcel = dataclasses.replace(Parcel.of(tmp_path), **change)
    assert "changed bytes" in refused(parcel.unpack, tmp_path / "other")
    assert not (tmp_path / "other").exists()


def test_an_answer_is_the_folder_that_a_process_leaves(job):
    answer = carry_out(Order.of(job, facts()), *needed(job))
    assert not answer.refused
    assert answer.failure is None
    assert not job.folder.exists(), "a worker writes to the folder of the run"
    assert fill(job) is None
    assert answer.parcel == Parcel.of(job.folder)
    assert dict(answer.parcel.files)["text"] == b"one, two"


def test_a_failure_names_the_machine(job):
    order = dataclasses.replace(Order.of(job, facts()), kwargs={"texts": ""})
    failure = carry_out(order, *needed(job)).failure
    assert "unexpected keyword argument 'texts'" in failure.message
    assert f"(on {os.uname().nodename})" in failure.message
    assert "Traceback" in failure.trace


@pytest.mark.parametrize("name", ["pcsim", "sources of pcsim", "Python", "numpy", "scipy"])
def test_another_version_is_refused(job, name):
    answer = carry_out(Order.of(job, facts() | {name: "0.0.7"}), *needed(job))
    assert answer.parcel is None
    assert f"{name} {facts()[name]}, expected {name} 0.0.7" in answer.refused
    assert "Install the same on every worker" in answer.refused


def test_pcsim_edited_under_a_worker_is_refused(job, monkeypatch):
    assert carry_out(Order.of(job, facts()), *needed(job)).parcel
    monkeypatch.setattr(scheduler_parcel, "source_fingerprint", lambda: "edited since")
    refused = carry_out(Order.of(job, facts()), *needed(job)).refused
    assert "in memory, another on disk, expected edited since" in refused
    assert "Start the workers again" in refused


def test_absent_and_other_files_are_refused(job, tmp_path):
    mine = tmp_path / "mine.py"
    mine.write_text("X = 1\n")
    order = Order.of(dataclasses.replace(job, sources=(str(mine),)), facts())
    mine.write_text("X = 2\n")
    assert f"another text in {mine}" in carry_out(order, *needed(job)).refused
    mine.unlink()
    refused = carry_out(order, *needed(job)).refused
    assert f"no {mine}" in refused
    assert "under this path on every machine" in refused


@pytest.mark.parametrize("threads", ["4", None])
def test_several_threads_are_refused(job, monkeypatch, threads):
    monkeypatch.delenv("OMP_NUM_THREADS")
    if threads:
        monkeypatch.setenv("OMP_NUM_THREADS", threads)
    assert "OMP_NUM_THREADS=1" in carry_out(Order.of(job, facts()), *needed(job)).refused


def test_an_edited_task_is_run_as_it_is_now(job, tmp_path):
    mine = tmp_path / "mine.py"
    found = []
    for word in ("first", "second"):
        mine.write_text(f"def task(folder, needs):\n    (folder / 't').write_text('{word}')\n")
        task = TaskName("mine", str(mine), "task")
        one = dataclasses.replace(job, task=task, kwargs={}, needs={}, sources=(str(mine),))
        answer = carry_out(Order.of(one, facts()))
        found.append(dict(answer.parcel.files)["t"])
    assert found == [b"first", b"second"]


@pytest.mark.parametrize(("error", "full"), [("hdf5", True), ("dry", False)])
def test_a_full_disk_is_known_by_its_words(job, error, full):
    one = dataclasses.replace(job, task=TaskName.of(say), kwargs={"error": error})
    assert fill(one).message.startswith("the disk is full") == full
    assert not list(one.folder.parent.iterdir())


def test_a_full_disk_is_known_by_its_room(job, monkeypatch):
    monkeypatch.setattr(pool, "_room", lambda part: 100)
    failure = fill(dataclasses.replace(job, task=TaskName.of(say), kwargs={"error": "dry"}))
    assert failure.message.startswith("the disk is full")


class Future:
    """A future as the run sees it."""

    def __init__(self, status, value=None):
        self.status, self.value = status, value

    def result(self):
        if isinstance(self.value, Exception):
            raise self.value
        return self.value


class Client:
    """A cluster of one worker that forgets the first pieces it is given."""

    def __init__(self, forgets: int, status: str = "running"):
        self.forgets, self.status, self.names, self.calls = forgets, status, [], 0

    def nthreads(self):
        return {"tcp://one": 1}

    def submit(self, function, *arguments, key, **options):
        self.names.append(key)
        if function is not carry_out:
            return Future("finished", function(*arguments))
        self.calls += 1
        if self.calls <= self.forgets:
            return Future("cancelled")
        order, *needs = arguments
        return Future("finished", carry_out(order, *(one.value for one in needs)))

    def cancel(self, futures):
        self.names.append("cancel")


def run(job: Job, client: Client):
    made = scheduler._Cluster(client, "tcp://one", Agenda({job.key: job}, set(job.needs)))
    made.folders = {**job.needs, job.key: job.folder}
    events = []
    made._wait = lambda: None
    made.go(lambda event, key, seconds: events.append((event, key)))
    return events


def test_a_forgotten_piece_is_handed_out_again_and_counted_once(job):
    client = Client(forgets=2)
    assert run(job, client) == [("start", "b/0"), ("done", "b/0")]
    assert (job.folder / "text").read_text() == "one, two"
    pieces = [name for name in client.names if name.startswith("pcsim-b")]
    assert len(set(pieces)) == 3
    assert len(client.names) == 4, "the folder it needs was sent more than once"


def test_a_cluster_that_forgets_all_is_given_up(job):
    with pytest.raises(RuntimeError, match=r"the scheduler gone .* run the same again"):
        run(job, Client(forgets=100))
    with pytest.raises(RuntimeError, match="the scheduler gone with 1 pieces left"):
        run(job, Client(forgets=0, status="closed"))


@pytest.mark.parametrize(
    "wrong",
    ["", "locl", "local:", "local:0", "local:two", "tcp://", "10.0.0.1:8786", "slurm:", "slurmx"],
)
def test_unlawful_schedulers_are_refused(refused, wrong):
    message = refused(check_scheduler, wrong)
    assert "local, local:N, tcp://HOST:PORT, slurm or slurm:FILE.toml" in message


def test_absent_dask_is_said(job, monkeypatch, refused):
    monkeypatch.setitem(sys.modules, "distributed", None)
    message = refused(run_on_cluster, [job], scheduler="local", workers=1, present={}, report=print)
    assert "pip install 'pcsim[sweep]'" in message


def test_absent_pcsim_on_a_worker_is_said(job):
    client = types.SimpleNamespace(status="running")
    made = scheduler._Cluster(client, "tcp://one", Agenda({}, set()))
    gone = Future("error", ModuleNotFoundError("No module named 'pcsim'"))
    pytest.importorskip("distributed")
    with pytest.raises(RuntimeError, match="No module named 'pcsim', expected pcsim"):
        made._answer(job, gone)


def test_nobody_at_an_address_is_said(job, monkeypatch, refused):
    pytest.importorskip("distributed")
    monkeypatch.setattr(scheduler, "CONNECT", 0.5)
    message = refused(
        run_on_cluster, [job], scheduler="tcp://127.0.0.1:9", workers=1, present={}, report=print
    )
    assert "no scheduler at tcp://127.0.0.1:9" in message
