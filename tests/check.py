"""All checks, in the order in which they are cheapest to fail: what CI and `make test` run.

    python tests/check.py [lint] [format] [types] [tests]

Without a name, all of them. Stops at the first that fails and says how long each took.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CONTENT = ("circuits", "analysis", "experiments")


def lint() -> int:
    """Ruff's rules."""
    return call("ruff", "check", ".")


def layout() -> int:
    """Ruff's layout."""
    return call("ruff", "format", "--check", ".")


def types() -> int:
    """Mypy, strict, over the package as it is installed: content folders inside it."""
    tree = ROOT / "build" / "types" / "pcsim"
    shutil.rmtree(tree, ignore_errors=True)
    tree.mkdir(parents=True)
    for entry in sorted((ROOT / "pcsim").iterdir()):
        if entry.name != "__pycache__":
            (tree / entry.name).symlink_to(entry)
    for name in CONTENT:
        (tree / name).symlink_to(ROOT / name)
    return call("mypy")


def tests() -> int:
    """Tests, doctests and the README's code, warnings as errors, on two processes."""
    return call("pytest", "-n", "2")


STEPS: dict[str, Callable[[], int]] = {
    "lint": lint,
    "format": layout,
    "types": types,
    "tests": tests,
}


def call(module: str, *arguments: str) -> int:
    """Run a module with this Python from the root of the repository; its output passes through."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    command = [sys.executable, "-m", module, *arguments]
    return subprocess.run(command, cwd=ROOT, env=environment).returncode


def main(names: list[str]) -> int:
    """Run the named steps, or all; return the exit status of the first that failed, or 0."""
    unknown = sorted(set(names) - set(STEPS))
    if unknown:
        print(f"check: found step {unknown[0]!r}, expected one of {', '.join(STEPS)}.")
        return 2
    for name in names or STEPS:
        print(f"== {name}", flush=True)
        start = time.perf_counter()
        status = STEPS[name]()
        word = "ok" if status == 0 else f"FAILED (exit status {status})"
        print(f"== {name}: {word}, {time.perf_counter() - start:.1f} s", flush=True)
        if status:
            return status
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
