"""The page on clusters: its job script is the one submitted, its experiment runs."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from pcsim import catalog
from pcsim.responses import stimulus_array
from pcsim.sweep import sweep

PAGE = (Path(__file__).resolve().parent.parent / "docs" / "clusters.md").read_text()
FILES = dict(re.findall(r"^```\w+ file=(\S+)\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE))
(SCRIPT,) = re.findall(r"^```bash\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)


def pcsim(folder: Path, *arguments: str) -> str:
    command = [sys.executable, "-m", "pcsim", *arguments]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_script_on_the_page_is_what_the_settings_make(tmp_path):
    pytest.importorskip("dask_jobqueue", reason="Slurm needs pip install 'pcsim[sweep]'")
    # No machine but a cluster's has this interface: take the one that all have.
    settings = FILES["cluster.toml"].replace('"ib0"', '"lo"')
    (tmp_path / "cluster.toml").write_text(settings)
    made = pcsim(tmp_path, "jobscript", "cluster.toml").strip()
    made = re.sub(r"^\S+python\S* -m", "/home/me/pcsim/.venv/bin/python -m", made, flags=re.M)
    made = re.sub(r"tcp://\S+", "tcp://10.0.0.1:8786", made)
    assert made.replace("--interface lo", "--interface ib0") == SCRIPT.strip()


def test_the_sweep_on_the_page_gives_what_one_call_gives(tmp_path):
    (tmp_path / "gains.py").write_text(FILES["gains.py"])
    pcsim(tmp_path, "run", "./gains.py", "--workers", "1", "--out", "run", "--seeds", "2")
    found = xr.load_dataset(tmp_path / "run" / "rates.nc", engine="h5netcdf")
    light = stimulus_array([[[2.0]]], frame_duration=0.6)
    model = catalog.load("circuits", "bogacz_2017")
    whole = sweep(model, light, grid={"feedback_gain": [0.8, 0.9, 1.0]}).isel(time=-1)
    assert found.sizes["point"] == 6
    for row in range(6):
        one = found.isel(point=row)
        expected = whole.rate.sel(feedback_gain=float(one.feedback_gain))
        np.testing.assert_allclose(one.rate, expected, rtol=1e-12)
    assert sorted(found.seed.values) == [0, 0, 0, 1, 1, 1]
