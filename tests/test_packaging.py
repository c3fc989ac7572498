"""What is shipped, what it needs, and the two commands."""

from __future__ import annotations

import ast
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

import pcsim

ROOT = Path(__file__).resolve().parent.parent
CONTENT = ("circuits", "analysis", "experiments")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
EXTRAS = PROJECT["project"]["optional-dependencies"]
LOCK = (ROOT / "constraints.txt").read_text().splitlines()
DISTRIBUTION = {"skimage": "scikit-image", "sklearn": "scikit-learn", "PIL": "pillow"}
SUPPORT = {"all", "docs", "test", "dev"}


def plain(requirement: str) -> str:
    """Return the normalised name of a requirement or a pin."""
    return re.split(r"[^A-Za-z0-9._-]", requirement)[0].lower().replace("_", "-")


def shipped() -> set[str]:
    """Return the files that the wheel should hold, as paths below site-packages."""
    suffixes = {".py", ".csv"}
    files = {p.relative_to(ROOT) for p in (ROOT / "pcsim").rglob("*") if p.suffix in suffixes}
    files |= {p.relative_to(ROOT) for p in (ROOT / "pcsim" / "templates").glob("*") if p.is_file()}
    files |= {Path("pcsim/py.typed")}
    for room in CONTENT:
        files |= {Path("pcsim") / p.relative_to(ROOT) for p in (ROOT / room).rglob("*.py")}
    return {p.as_posix() for p in files if "__pycache__" not in p.parts}


def test_every_package_is_listed():
    folders = {p.parent for p in (ROOT / "pcsim").rglob("__init__.py")}
    tree = {".".join(f.relative_to(ROOT).parts) for f in folders}
    listed = PROJECT["tool"]["setuptools"]["packages"]
    assert set(listed) == tree | {f"pcsim.{room}" for room in CONTENT}
    assert len(listed) == len(set(listed))


def test_one_version():
    cited = re.search(r"^version: (.+)$", (ROOT / "CITATION.cff").read_text(), re.MULTILINE)
    assert PROJECT["project"]["version"] == pcsim.__version__ == cited.group(1)


def test_all_takes_every_extra_that_is_used_at_run_time():
    (line,) = EXTRAS["all"]
    assert set(re.findall(r"[a-z]+", line.split("[")[1])) == set(EXTRAS) - SUPPORT


def test_every_import_is_a_dependency():
    core = {plain(r) for r in PROJECT["project"]["dependencies"]}
    known = core | {plain(r) for name in set(EXTRAS) - SUPPORT for r in EXTRAS[name]}
    imported = set()
    for folder in ("pcsim", *CONTENT):
        for file in (ROOT / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(file.read_text())):
                names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
                if isinstance(node, ast.ImportFrom) and not node.level:
                    names = [node.module]
                imported |= {name.split(".")[0] for name in names}
    foreign = imported - set(sys.stdlib_module_names) - {"pcsim"}
    missing = {DISTRIBUTION.get(n, n.replace("_", "-")) for n in foreign} - known
    assert missing == set()


def test_the_lock_pins_everything_and_fits_any_machine():
    pinned = {plain(line) for line in LOCK}
    wanted = PROJECT["project"]["dependencies"] + [r for e in EXTRAS.values() for r in e]
    assert {plain(r) for r in wanted} - {"pcsim"} <= pinned
    pins = [line.split(";")[0].strip() for line in LOCK]
    assert all(re.fullmatch(r"[a-z0-9.-]+==[^=+]+", pin) for pin in pins)
    assert "numpy==2.3.5 ; python_full_version < '3.12'" in LOCK


def copy_of_the_sources(folder: Path) -> Path:
    """Copy what the build reads: it writes beside it, and must not write here."""
    for name in ("pcsim", "tests", *CONTENT):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for file in ROOT.iterdir():
        if file.is_file():
            shutil.copy(file, folder / file.name)
    return folder


@pytest.mark.slow
def test_wheel_holds_the_sources_and_nothing_else(tmp_path):
    source = copy_of_the_sources(tmp_path / "source")
    (source / "circuits" / "results").mkdir()
    (source / "circuits" / "results" / "big.npy").touch()
    (source / "circuits" / "scratch.py.orig").touch()
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(tmp_path)]
    done = subprocess.run(command, cwd=source, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    (wheel,) = tmp_path.glob("*.whl")
    site = tmp_path / "site"
    with zipfile.ZipFile(wheel) as archive:
        held = {name for name in archive.namelist() if ".dist-info/" not in name}
        archive.extractall(site)
    assert held == shipped()
    code = (
        "import pcsim, pathlib; names = pcsim.names('circuits'); "
        "print(pathlib.Path(pcsim.__file__).parents[1].name, len(names), "
        "pcsim.describe('circuits', names[0]) != '', type(pcsim.load('circuits', names[0])))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(site)},
        capture_output=True,
        text=True,
        check=True,
    )
    n = len([p for p in (ROOT / "circuits").glob("*.py") if not p.stem.startswith("_")])
    assert done.stdout.startswith(f"site {n} True <class 'pcsim.circuits.")


def make(*arguments: str, **environment: str) -> str:
    """Return what make prints."""
    done = subprocess.run(
        ["make", "--no-print-directory", *arguments],
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("target", ["test", "demo"])
def test_a_second_call_installs_nothing(tmp_path, target):
    fresh = make("-n", target, f"VENV={tmp_path}/v")
    assert f"-m venv {tmp_path}/v" in fresh
    assert "pip install" in fresh
    assert "-c constraints.txt" in fresh
    (tmp_path / "v" / "bin").mkdir(parents=True)
    for name in ("bin/python", ".core.ok", ".test.ok"):
        (tmp_path / "v" / name).touch()
    again = make("-n", target, f"VENV={tmp_path}/v")
    assert "pip" not in again
    assert "venv " not in again
    assert ("tests/check.py" if target == "test" else "pcsim run correspondence") in again


def test_make_sets_one_thread_and_allows_byte_code():
    rule = "show: ; @echo threads=$$OMP_NUM_THREADS bytecode=[$$PYTHONDONTWRITEBYTECODE]"
    shown = make("--eval", rule, "show", PYTHONDONTWRITEBYTECODE="1", OMP_NUM_THREADS="1")
    assert shown.strip() == "threads=1 bytecode=[]"


def test_make_refuses_an_old_python(tmp_path):
    old = tmp_path / "python3"
    check = "import sys; sys.version_info = (3, 10); exec(sys.argv[1])"
    old.write_text(f'#!/bin/sh\nexec {sys.executable} -c "{check}" "$2"\n')
    old.chmod(0o755)
    done = subprocess.run(
        ["make", "test", f"VENV={tmp_path}/v", f"PYTHON={old}"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode != 0
    assert "pcsim needs Python 3.11 or newer" in done.stderr
    assert not (tmp_path / "v").exists()


def test_ci_runs_make_test():
    script = ROOT / ".ci" / "run"
    assert os.access(script, os.X_OK)
    assert "make test" in script.read_text()


SMOKE = {
    "brian": "import brian2",
    "deep": "import torch",
    "zarr": "import zarr, dask",
    "video": "import av",
    "nwb": "import pynwb",
    "rsa": "import rsatoolbox",
    "spectra": "import specparam",
    "control": "import gymnasium, mujoco",
    "sweep": "import dask.distributed, dask_jobqueue",
}


def test_every_extra_has_a_smoke_test():
    assert set(SMOKE) == set(EXTRAS) - SUPPORT


@pytest.mark.parametrize("extra", SMOKE)
def test_extra_can_be_imported(extra):
    # The resolver calls combinations compatible that then cannot be imported.
    names = SMOKE[extra].removeprefix("import ").split(", ")
    absent = [name for name in names if importlib.util.find_spec(name.split(".")[0]) is None]
    if absent:
        pytest.skip(f"extra {extra!r} is not installed here: no {', '.join(absent)}")
    subprocess.run([sys.executable, "-c", SMOKE[extra]], check=True, capture_output=True)
