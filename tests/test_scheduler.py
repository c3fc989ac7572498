"""On a Dask cluster a run ends with the bytes of a serial one, whatever is killed meanwhile.

Nothing here expects a machine to be quick: what is waited for is that pieces are there or that
processes have begun or ended, and only the limit on the whole test ends a wait that is in vain.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

pytest.importorskip("distributed", reason="a cluster needs Dask: pip install 'pcsim[sweep]'")

ROOT = Path(__file__).resolve().parent.parent
TOY = Path(__file__).with_name("toy_sweep.py")
TOTAL = 2 * (1 + 4 + 9 + 16) + 4
"""Of value² + seed over values 1 to 4 and seeds 0 and 1."""

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


class Toy:
    """The toy run in a folder of its own, as a user starts it."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.log, self.hold = folder, folder / "log", folder / "hold"
        self.out = folder / "run"
        self.started: list[subprocess.Popen] = []
        shutil.copy(TOY, folder / "toy.py")

    def call(self, *command: str, path: Path = ROOT) -> subprocess.Popen:
        environment = os.environ | {
            "PYTHONPATH": str(path),
            "SWEEP_LOG": str(self.log),
            "SWEEP_HOLD": str(self.hold),
            "OMP_NUM_THREADS": "1",
        }
        process = subprocess.Popen(
            [sys.executable, "-m", *command],
            env=environment,
            cwd=self.folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self.started.append(process)
        return process

    def start(self, *options: str, out: Path | None = None) -> subprocess.Popen:
        folder = str(out or self.out)
        return self.call("pcsim", "run", str(self.folder / "toy.py"), "--out", folder, *options)

    def finish(self, process: subprocess.Popen) -> str:
        _, err = process.communicate()
        assert process.returncode == 0, err
        return err

    def begun(self) -> list[tuple[str, int]]:
        """Return "value seed" and process of every piece that has begun, in order."""
        lines = self.log.read_text().splitlines() if self.log.exists() else []
        return [(line.rpartition(" ")[0], int(line.split()[-1])) for line in lines]

    def done(self) -> set[str]:
        """Return the finished pieces by key."""
        while True:
            try:
                found = list(self.out.glob("pieces/**/piece.json"))
                break
            except FileNotFoundError:  # a folder took its last name as it was looked through
                continue
        whole = [path for path in found if ".part" not in str(path)]
        return {str(p.parent.relative_to(self.out / "pieces")).partition("@")[0] for p in whole}

    def wait(self, process: subprocess.Popen, condition: Callable[[], bool]) -> None:
        while not condition() and process.poll() is None:
            time.sleep(0.02)
        assert process.poll() is None, process.communicate()[1]

    def until_held(self, process: subprocess.Popen) -> int:
        """Return the process of a piece that waits, when the four before are there."""
        self.wait(process, lambda: len(self.done()) == 4 and len(self.begun()) > 4)
        return self.begun()[4][1]

    def cluster(self, n: int = 1) -> tuple[str, subprocess.Popen]:
        """Start a scheduler and workers; return its address and process."""
        file = self.folder / f"scheduler{len(self.started)}.json"
        options = ["--host", "127.0.0.1", "--port", "0", "--no-dashboard"]
        scheduler = self.call(
            "distributed.cli.dask_scheduler", *options, "--scheduler-file", str(file)
        )
        for _ in range(n):
            self.worker("--scheduler-file", str(file))
        while not file.exists():
            time.sleep(0.05)
        return json.loads(file.read_text())["address"], scheduler

    def worker(self, *options: str, path: Path = ROOT) -> subprocess.Popen:
        place = str(self.folder / "scratch")
        common = ["--nthreads", "1", "--no-dashboard", "--local-directory", place]
        return self.call("distributed.cli.dask_worker", *common, *options, path=path)

    def end(self) -> None:
        for process in self.started:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.communicate()


@pytest.fixture
def toy(tmp_path):
    made = Toy(tmp_path)
    yield made
    made.end()


def contents(folder: Path) -> dict[str, bytes]:
    """Return everything a run left, but the record of when and where."""
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in files
        if path.name != "provenance.json"
    }


@pytest.fixture(scope="module")
def serial(tmp_path_factory) -> dict[str, bytes]:
    """What a run in one process leaves."""
    made = Toy(tmp_path_factory.mktemp("serial"))
    made.finish(made.start("--workers", "0"))
    return contents(made.out)


def test_serial_run_is_right(serial):
    assert serial["total"] == str(TOTAL).encode()
    assert sum(name.endswith("piece.json") for name in serial) == 9


def test_a_killed_worker_loses_nothing(toy, serial):
    toy.hold.touch()
    process = toy.start("--scheduler", "local:2")
    os.kill(toy.until_held(process), signal.SIGKILL)
    # Its piece begins again before the others are let go: it was given to another worker.
    first = toy.begun()[4][0]
    toy.wait(process, lambda: Counter(what for what, _ in toy.begun())[first] == 2)
    toy.hold.unlink()
    err = toy.finish(process)
    assert "toy: [9/9]" in err
    assert contents(toy.out) == serial
    assert Counter(Counter(what for what, _ in toy.begun()).values()) == {1: 7, 2: 1}


def test_a_piece_that_kills_its_workers_is_named_and_the_others_finish(toy):
    values = "values=1,13,2"
    process = toy.start("--scheduler", "local:2", "--set", values)
    _, err = process.communicate()
    assert process.returncode == 2
    assert "square/13/0: 3 workers died at it" in err
    assert "square/13/1: 3 workers died at it" in err
    assert "1 more need these" in err
    assert "Traceback (most" not in err, err
    assert toy.done() == {f"square/{value}/{seed}" for value in (1, 2) for seed in (0, 1)}


def test_a_killed_scheduler_is_said_and_the_run_resumes(toy, serial):
    toy.hold.touch()
    address, scheduler = toy.cluster()
    process = toy.start("--scheduler", address)
    toy.until_held(process)
    os.kill(scheduler.pid, signal.SIGKILL)
    _, err = process.communicate()
    assert process.returncode == 2
    assert "found the scheduler gone with 5 pieces left" in err
    assert "run the same again" in err
    assert "Traceback (most" not in err, err
    assert len(toy.done()) == 4
    toy.hold.unlink()
    before = Counter(what for what, _ in toy.begun())
    address, _ = toy.cluster()
    err = toy.finish(toy.start("--scheduler", address))
    assert "4 of 9 pieces are there already" in err
    assert contents(toy.out) == serial
    after = Counter(what for what, _ in toy.begun())
    assert all(after[f"{value} {seed}"] == 1 for value in (1, 2) for seed in (0, 1)), after - before


def test_a_killed_run_resumes_on_the_same_cluster(toy, serial):
    toy.hold.touch()
    address, _ = toy.cluster()
    process = toy.start("--scheduler", address)
    toy.until_held(process)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    toy.hold.unlink()
    assert "4 of 9 pieces" in toy.finish(toy.start("--scheduler", address))
    assert contents(toy.out) == serial
    # An edited file is run as it is now, by workers that have run it before.
    source = (toy.folder / "toy.py").read_text()
    (toy.folder / "toy.py").write_text(source.replace("value**2 + seed", "value**3 + seed"))
    toy.finish(toy.start("--scheduler", address))
    assert (toy.out / "total").read_text() == str(2 * (1 + 8 + 27 + 64) + 4)


def test_a_worker_with_other_sources_is_refused(toy, serial):
    other = toy.folder / "other"
    for room in ("pcsim", "circuits", "analysis", "experiments"):
        shutil.copytree(ROOT / room, other / room, ignore=shutil.ignore_patterns("__pycache__"))
    with (other / "pcsim" / "inference.py").open("a") as file:
        file.write("# edited\n")
    address, _ = toy.cluster(0)
    process = toy.start("--scheduler", address)
    assert "no workers yet; waiting" in process.stderr.readline()
    wrong = toy.worker(address, path=other)
    _, err = process.communicate()
    assert process.returncode == 2
    assert re.search(r"found sources of pcsim \w+, expected sources of pcsim \w+\.", err), err
    assert "start them again" in err
    assert toy.done() == set()
    assert toy.begun() == []
    os.killpg(wrong.pid, signal.SIGKILL)
    toy.worker(address)
    toy.finish(toy.start("--scheduler", address))
    assert contents(toy.out) == serial


def test_workers_of_a_killed_run_end(toy):
    toy.hold.touch()
    process = toy.start("--scheduler", "local:1")
    worker = toy.until_held(process)
    os.kill(process.pid, signal.SIGKILL)
    while Path(f"/proc/{worker}").exists() and _state(worker) != "Z":
        time.sleep(0.05)
    assert len(toy.done()) == 4


def test_interrupted_it_keeps_what_is_finished(toy, serial):
    toy.hold.touch()
    process = toy.start("--scheduler", "local:1")
    toy.until_held(process)
    os.killpg(process.pid, signal.SIGINT)
    _, err = process.communicate()
    assert process.returncode == 130
    assert "pcsim: stopped. What was finished is kept" in err
    assert "Traceback (most" not in err, err
    toy.hold.unlink()
    assert "4 of 9 pieces" in toy.finish(toy.start("--workers", "1"))
    assert contents(toy.out) == serial


def _state(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return "Z"


@pytest.fixture
def small_disk(tmp_path):
    """A disk of its own that holds a few pieces; ``grow()`` makes it larger."""
    place = tmp_path / "disk"
    place.mkdir()

    def mount(*options: str) -> int:
        command = ["mount", "-t", "tmpfs", *options, "tmpfs", str(place)]
        return subprocess.run(command, capture_output=True).returncode

    if shutil.which("mount") is None or mount("-o", "size=1m") != 0:
        pytest.skip("a disk of its own is mounted by root alone")
    yield place, lambda: mount("-o", "remount,size=64m")
    subprocess.run(["umount", "-l", str(place)], check=True)


@pytest.mark.parametrize("options", [("--workers", "2"), ("--scheduler", "local:1")])
def test_a_full_disk_is_said_and_the_run_resumes(toy, small_disk, options):
    disk, grow = small_disk
    toy.out = disk / "run"
    # Each piece holds 200² numbers, 0.32 MB: three of eight fit.
    options = (*options, "--set", "numbers=200")
    process = toy.start(*options)
    _, err = process.communicate()
    assert process.returncode == 2
    assert "disk" in err
    assert "Free some space and run again: it resumes" in err
    assert "Traceback (most" not in err, err
    kept = toy.done()
    assert 0 < len(kept) < 8
    assert not [path for path in disk.rglob("*") if ".part" in path.name]
    assert grow() == 0
    begun = len(toy.begun())
    assert f"{len(kept)} of 9 pieces" in toy.finish(toy.start(*options))
    assert len(toy.begun()) - begun == 8 - len(kept)
    whole = toy.folder / "whole"
    toy.finish(toy.start("--workers", "0", "--set", "numbers=200", out=whole))
    assert contents(toy.out) == contents(whole)
