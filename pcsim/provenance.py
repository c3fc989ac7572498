"""Where a result comes from: settings, seeds, versions, commit, machine."""

from __future__ import annotations

import datetime
import hashlib
import importlib
import importlib.metadata
import inspect
import json
import os
import platform
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from pcsim.storage import to_plain

__all__ = ["fingerprint", "provenance", "source_fingerprint", "written"]

PACKAGES = ("numpy", "scipy", "xarray", "h5netcdf", "h5py", "matplotlib", "scikit-image", "torch")
THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "PYTHONHASHSEED")
CONTENT = ("circuits", "analysis", "experiments")


def provenance(config: Mapping[str, Any], seeds: Iterable[int]) -> dict[str, Any]:
    """Return all that is needed to do a run again, as plain JSON values.

    Parameters
    ----------
    config
        The settings of the run, in full.
    seeds
        Every seed that entered.

    Examples
    --------
    >>> record = provenance({"scale": "quick"}, [0, 1])
    >>> record["seeds"], record["config"]
    ([0, 1], {'scale': 'quick'})
    """
    packages = {d.name: d.version for d in importlib.metadata.distributions() if d.name}
    listed = sorted(f"{name}=={version}" for name, version in packages.items())
    wanted = {name.lower(): name for name in (*PACKAGES, "brian2")}
    return {
        "time": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "arguments": list(sys.argv[1:]),
        "config": to_plain(dict(config)),
        "config_sha256": fingerprint(dict(config)),
        "seeds": [int(seed) for seed in seeds],
        "source_sha256": source_fingerprint(),
        "git": _git(),
        "python": platform.python_version(),
        "packages": {
            wanted[name.lower()]: version
            for name, version in sorted(packages.items())
            if name.lower() in wanted
        },
        "packages_sha256": hashlib.sha256("\n".join(listed).encode()).hexdigest(),
        "machine": _machine(),
    }


def fingerprint(value: Any) -> str:
    """Return the sha256 of a value's canonical JSON: equal values, equal fingerprints.

    Examples
    --------
    >>> fingerprint({"b": 1, "a": (2, 3)}) == fingerprint({"a": [2, 3], "b": 1})
    True
    """
    text = json.dumps(to_plain(value), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def source_fingerprint() -> str:
    """Return the sha256 over the sources of `pcsim` and the content folders, names and text.

    A result made by other sources has another fingerprint, whether or not they were committed.
    """
    digest = hashlib.sha256()
    for room in ("", *CONTENT):
        for folder in map(Path, importlib.import_module(f"pcsim.{room}".rstrip(".")).__path__):
            if room == "" and not (folder / "messages.py").is_file():
                continue  # the checkout's root, which `pcsim.__path__` holds for the content
            for file in sorted(folder.rglob("*")):
                within = file.relative_to(folder)
                if file.suffix not in (".py", ".csv") or (
                    room == "" and within.parts[0] in CONTENT
                ):
                    continue
                name = Path(room, within).as_posix()
                digest.update(f"{name}\0{file.stat().st_size}\0".encode() + file.read_bytes())
    return digest.hexdigest()


def written(function: Callable[..., Any]) -> str:
    """Return the sha256 of a function's name, its place in its file, and the text of that file.

    A function without a file, or whose file is gone, is known by name and place alone.
    """
    plain = inspect.unwrap(getattr(function, "func", function))
    code = getattr(plain, "__code__", None)
    name = [getattr(plain, "__qualname__", type(plain).__name__)]
    if code is None:
        return fingerprint(name)
    try:
        text = Path(code.co_filename).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        text = ""
    return fingerprint([*name, code.co_firstlineno, text])


def _git() -> dict[str, Any]:
    """Commit of a checkout, whether it was changed since, and the sha256 of the change."""
    import pcsim

    root = Path(pcsim.__file__).parent.parent
    if not (root / ".git").exists():
        return {"commit": None, "dirty": None, "diff_sha256": None}
    commit, diff = _call(root, "rev-parse", "HEAD"), _call(root, "diff", "HEAD")
    if commit is None or diff is None:
        return {"commit": None, "dirty": None, "diff_sha256": None}
    digest = hashlib.sha256(diff).hexdigest() if diff else None
    return {"commit": commit.decode().strip(), "dirty": bool(diff), "diff_sha256": digest}


def _call(root: Path, *arguments: str) -> bytes | None:
    try:
        done = subprocess.run(["git", *arguments], cwd=root, capture_output=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None


def _machine() -> dict[str, Any]:
    return {
        "system": platform.platform(),
        "processor": platform.machine(),
        "cpus": os.cpu_count(),
        "cpus_allowed": len(os.sched_getaffinity(0)) if sys.platform == "linux" else None,
        "threads": {name: os.environ.get(name) for name in THREADS},
    }
