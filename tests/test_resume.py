"""Killed at ten random moments, a run resumes each time and ends with the same bytes.

Nothing here expects a machine to be quick: what is waited for is that pieces are there or that
processes have ended, and only the limit on the whole test ends a wait that is in vain.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from itertools import pairwise
from pathlib import Path

import pytest

MODEL = '''
"""A circuit of one number."""

from dataclasses import dataclass

from pcsim.responses import make_responses


@dataclass(frozen=True, kw_only=True)
class Tiny:
    gain: float = 1.0
    field_shape = (2, 2)
    px_per_deg = 16.0

    def run(self, stimulus, *, seed=0, record=None):
        rate = self.gain * stimulus.values.reshape(*stimulus.shape[:2], -1)
        units = {"population": ["output"] * 4, "level": [1] * 4, "area": ["V1"] * 4}
        time_ = stimulus["time"].values + float(stimulus["frame_duration"])
        trial = {"condition": stimulus["condition"].values}
        return make_responses(rate, time=time_, units=units, trial=trial)


MODEL = Tiny()
'''

HYPOTHESIS = '''
"""A gain is there, and a circuit whose gain was cut shows none."""

import time
from dataclasses import replace

import numpy as np
import xarray as xr

from pcsim.hypothesis import Control, Hypothesis, Reference
from pcsim.responses import stimulus_array


def observe(model, *, seed, scale):
    time.sleep(0.15)  # long enough to be killed at it
    noise = np.random.default_rng(seed).uniform(size=(6, 1, 2, 2))
    stimulus = stimulus_array(noise, frame_duration=0.02, px_per_deg=16.0)
    responses = model.run(stimulus, seed=seed)
    values = responses["rate"].mean("time").transpose("unit", "trial").values
    evidence = xr.Dataset(
        {
            "gain": (("unit", "stimulus"), values),
            "included": ("unit", np.ones(4, bool)),
        }
    )
    return evidence, responses


HYPOTHESIS = Hypothesis(
    id="%(id)s",
    name="A gain",
    claim="There is a gain.",
    family="toy",
    protocol="White noise.",
    statistic="Mean rate.",
    signal="output",
    falsified_if="No rate.",
    observe=observe,
    variables=("gain",),
    controls=(
        Control(name="cut", statement="No gain.", transform=lambda m, s: replace(m, gain=0.01)),
        Control(name="LN", statement="No toy.", variant="%(rival)s"),
    ),
    reference=Reference(status="computed", source="here", interval=(0.3, 0.7)),
    panel=lambda evidence, ax: ax.plot([len(v) for v in evidence.values()]),
)
'''

EXPERIMENT = '''
"""Does the toy have a gain?"""

from pathlib import Path

from pcsim.experiment import Experiment
from pcsim.experiment_battery import battery_pieces, collect_battery
from pcsim.experiment_figures import battery_figures

HERE = Path(__file__).parent

EXPERIMENT = Experiment(
    name="toy",
    question="Does the toy have a gain?",
    scales={
        "quick": {
            "seeds": 5,
            "models": (str(HERE / "tiny.py"),),
            "hypotheses": (str(HERE / "gain.py"), str(HERE / "gain_again.py")),
        }
    },
    pieces=battery_pieces,
    collect=collect_battery,
    figures=battery_figures,
)
'''


pytestmark = pytest.mark.timeout(1200)


@pytest.fixture
def files(tmp_path) -> Path:
    rival = str(tmp_path / "rival.py")
    sources = {
        "tiny.py": MODEL,
        "rival.py": MODEL.replace("gain: float = 1.0", "gain: float = 0.05"),
        "gain.py": HYPOTHESIS % {"id": "T1", "rival": rival},
        "gain_again.py": HYPOTHESIS % {"id": "T2", "rival": rival},
        "toy.py": EXPERIMENT,
    }
    for name, source in sources.items():
        (tmp_path / name).write_text(textwrap.dedent(source).lstrip())
    return tmp_path


def start(files: Path, out: str, workers: int = 2) -> subprocess.Popen:
    """Start the run in a process group of its own."""
    command = [sys.executable, "-m", "pcsim", "run", str(files / "toy.py")]
    command += ["--out", str(files / out), "--workers", str(workers)]
    return subprocess.Popen(
        command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True
    )


def finish(process: subprocess.Popen) -> str:
    _, err = process.communicate()
    assert process.returncode == 0, err
    return err


def pieces(files: Path, out: str) -> set[str]:
    """Return the finished pieces. Folders come and go meanwhile; parts start with a dot."""
    root, found = files / out / "pieces", set()
    for where, folders, names in os.walk(root):
        folders[:] = [folder for folder in folders if not folder.startswith(".")]
        if "piece.json" in names:
            found.add(os.path.relpath(where, root))
    return found


def wait_for(process: subprocess.Popen, files: Path, out: str, n: int) -> None:
    """Return when `n` pieces are there; the run must not have ended by then."""
    while len(pieces(files, out)) < n and process.poll() is None:
        time.sleep(0.02)
    assert process.poll() is None, process.communicate()[1]


@pytest.mark.slow
def test_killed_ten_times_it_ends_with_the_same_bytes(files, rng):
    finish(start(files, "whole"))
    every = pieces(files, "whole")
    kept = [set()]
    for _ in range(10):
        process = start(files, "killed")
        # A moment is a number of new pieces and a while, cut short by the next piece: a quick
        # machine must not have done them all before its last kill.
        n = len(kept[-1]) + int(rng.integers(0, 3))
        wait_for(process, files, "killed", n)
        until = time.monotonic() + rng.uniform(0.0, 0.3)
        while time.monotonic() < until and len(pieces(files, "killed")) <= n:
            time.sleep(0.01)
        assert process.poll() is None, "the run has ended before its last kill"
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        kept.append(pieces(files, "killed"))
    assert all(before <= after for before, after in pairwise(kept))
    assert len(kept[1]) < len(kept[-1]) < len(every)
    finish(start(files, "killed"))
    whole, killed = files / "whole", files / "killed"
    assert pieces(files, "killed") == every
    for name in ("verdicts.csv", "hypotheses.json"):
        assert (killed / name).read_bytes() == (whole / name).read_bytes()
    assert b"SUPPORTED" in (killed / "verdicts.csv").read_bytes()
    names = [{path.name for path in one.rglob("*")} for one in (whole, killed)]
    assert names[0] == names[1], "a kill left something behind"


def test_interrupted_it_keeps_what_is_finished(files):
    process = start(files, "run")
    wait_for(process, files, "run", 2)
    os.killpg(process.pid, signal.SIGINT)
    _, err = process.communicate()
    assert process.returncode == 130
    assert "pcsim: stopped. What was finished is kept" in err
    assert "Traceback" not in err
    kept = pieces(files, "run")
    assert len(kept) >= 2
    assert f"{len(kept)} of " in finish(start(files, "run")).splitlines()[0]


def test_workers_end_when_their_parent_is_killed(files):
    process = start(files, "run")
    wait_for(process, files, "run", 1)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    while _group(process.pid):
        time.sleep(0.1)
    assert len(pieces(files, "run")) < 40, "they did all that was left to do"


def _group(pgid: int) -> list[int]:
    """Return the processes of a group that are still alive."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            fields = (entry / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[2]) == pgid and fields[0] != "Z":
            found.append(int(entry.name))
    return found
