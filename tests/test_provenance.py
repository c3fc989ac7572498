"""Provenance: enough to do a run again, and a fingerprint that moves when the sources do."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np

from pcsim.provenance import fingerprint, provenance, source_fingerprint
from pcsim.storage import read_json, write_json

ROOT = Path(__file__).resolve().parent.parent


def test_record_is_complete_and_plain(tmp_path):
    record = provenance({"scale": "quick", "sizes": (np.int64(3),)}, range(2))
    write_json(tmp_path / "provenance.json", record)
    assert read_json(tmp_path / "provenance.json") == record
    assert record["seeds"] == [0, 1]
    assert record["config"] == {"scale": "quick", "sizes": [3]}
    assert record["python"] == ".".join(map(str, sys.version_info[:3]))
    assert record["packages"]["numpy"] == np.__version__
    assert record["machine"]["threads"]["OMP_NUM_THREADS"] == "1"
    assert {"time", "git", "source_sha256", "packages_sha256"} <= record.keys()


def test_fingerprint_is_that_of_canonical_json():
    text = json.dumps({"a": [1, 0.7], "b": None}, sort_keys=True, separators=(",", ":"))
    expected = hashlib.sha256(text.encode()).hexdigest()
    assert fingerprint({"b": None, "a": (np.int64(1), np.float64(0.7))}) == expected
    assert fingerprint({"a": 1}) != fingerprint({"a": 1.5})


def test_source_fingerprint_sees_every_source_and_nothing_else(tmp_path):
    for name in ("pcsim", "circuits", "analysis", "experiments"):
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / name, tmp_path / name, ignore=ignored)
    (tmp_path / "pyproject.toml").touch()

    def there() -> str:
        code = "from pcsim.provenance import source_fingerprint as f; print(f())"
        done = subprocess.run(
            [sys.executable, "-c", code],
            cwd=tmp_path,
            env={"PYTHONPATH": str(tmp_path), "PYTHONDONTWRITEBYTECODE": "1"},
            capture_output=True,
            text=True,
            check=True,
        )
        return done.stdout.strip()

    first = there()
    assert first == source_fingerprint()
    (tmp_path / "circuits" / "notes.txt").write_text("no source")
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests" / "test_a.py").write_text("")
    assert there() == first
    seen = {first}
    for room in ("pcsim", "circuits", "analysis", "experiments"):
        (tmp_path / room / "added.py").write_text('"""One more."""\n')
        seen.add(there())
    assert len(seen) == 5
