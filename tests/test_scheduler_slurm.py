"""Slurm: the settings, the script that they become, and the script run by a stand-in for Slurm."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("dask_jobqueue", reason="Slurm needs pip install 'pcsim[sweep]'")

from pcsim.scheduler_slurm import read_settings

SETTINGS = f"""
jobs = 3
cores = 4
memory = "8GB"
queue = "short"
account = "cortex"
walltime = "02:00:00"
python = "{sys.executable}"
job_extra_directives = ["--exclude=node7"]
job_script_prologue = ["export PCSIM_DATA=/data"]
worker_extra_args = ["--lifetime", "110m", "--lifetime-stagger", "5m"]
"""

# What the run needs of Slurm, on this machine: jobs are processes, queue and limits are not kept.
STAND_IN = {
    # As Slurm does it keeps the script, which is removed once it is submitted.
    "sbatch": '#!/bin/sh\nkept="$(dirname "$0")/$(basename "$1")"\ncp "$1" "$kept"\n'
    'setsid sh "$kept" > "$kept.log" 2>&1 &\necho "Submitted batch job $!"\n'
    'echo "$1" >> "$(dirname "$0")/submitted"\n',
    "scancel": '#!/bin/sh\necho "$@" >> "$(dirname "$0")/cancelled"\nkill -9 -- "-$1"\n',
    "squeue": "#!/bin/sh\n",
}


@pytest.fixture
def settings(tmp_path) -> Path:
    path = tmp_path / "slurm.toml"
    path.write_text(SETTINGS)
    return path


def jobscript(path: Path) -> tuple[int, str, str]:
    """Return code and output of the command; a cluster that fails half made stays over there."""
    command = [sys.executable, "-m", "pcsim", "jobscript", str(path)]
    done = subprocess.run(command, capture_output=True, text=True)
    return done.returncode, done.stdout, done.stderr


def test_settings_become_a_script(settings):
    code, out, err = jobscript(settings)
    assert code == 0, err
    lines = out.splitlines()
    assert lines[0] == "#!/usr/bin/env bash"
    for line in (
        "-p short",
        "-A cortex",
        "--cpus-per-task=4",
        "--mem=8G",
        "-t 02:00:00",
        "--exclude=node7",
    ):
        assert f"#SBATCH {line}" in lines
    assert "export PCSIM_DATA=/data" in lines
    (command,) = (line for line in lines if "dask_worker" in line)
    assert re.search(r"tcp://\S+:\d+ ", command)
    assert "--nthreads 1 " in command
    assert "--nworkers 4 " in command
    assert "--lifetime 110m" in command
    assert "--nanny" in command
    # The prologue comes before the worker.
    assert lines.index("export PCSIM_DATA=/data") < lines.index(command)


def test_number_of_jobs(settings, tmp_path):
    assert read_settings(str(settings), 7)[0] == 3
    (tmp_path / "none.toml").write_text('queue = "short"\n')
    assert read_settings(str(tmp_path / "none.toml"), 7) == (
        7,
        {"queue": "short", "cores": 1, "processes": 1},
    )
    assert read_settings("", 2) == (2, {})


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("jobs = 0", "jobs 0"),
        ("cores = 4\nprocesses = 1", "4 cores for 1 processes"),
        ("jobs = ", "not TOML"),
        (None, "cannot be read"),
    ],
)
def test_unlawful_settings_are_refused(tmp_path, refused, text, words):
    path = tmp_path / "s.toml"
    if text is not None:
        path.write_text(text)
    assert words in refused(read_settings, str(path))


@pytest.mark.parametrize("text", ['cores = 1\nmemory = "1GB"\nqueeu = "short"', "cores = 1"])
def test_what_slurm_cluster_does_not_take_is_refused(tmp_path, text):
    path = tmp_path / "s.toml"
    path.write_text(text)
    code, _, err = jobscript(path)
    assert code == 2
    assert "found settings that it refuses" in err
    assert "docs/clusters.md" in err
    assert "Traceback" not in err


@pytest.mark.timeout(600)
def test_the_script_runs_the_pieces(tmp_path):
    place = tmp_path / "bin"
    place.mkdir()
    for name, text in STAND_IN.items():
        (place / name).write_text(text)
        (place / name).chmod(0o755)
    shutil.copy(Path(__file__).with_name("toy_sweep.py"), tmp_path / "toy.py")
    (tmp_path / "slurm.toml").write_text(
        f'jobs = 2\ncores = 1\nmemory = "1GB"\npython = "{sys.executable}"\n'
        f'local_directory = "{tmp_path / "scratch"}"\ninterface = "lo"\n'
    )
    command = [sys.executable, "-m", "pcsim", "run", str(tmp_path / "toy.py")]
    command += ["--out", str(tmp_path / "run"), "--scheduler", f"slurm:{tmp_path / 'slurm.toml'}"]
    environment = os.environ | {
        "PATH": f"{place}{os.pathsep}{os.environ['PATH']}",
        "SWEEP_LOG": str(tmp_path / "log"),
        "OMP_NUM_THREADS": "1",
    }
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stderr
    # 2 (1 + 4 + 9 + 16) + 4, the sum of value² + seed.
    assert (tmp_path / "run" / "total").read_text() == "64"
    assert len((place / "submitted").read_text().splitlines()) == 2
    assert len((place / "cancelled").read_text().split()) == 2
