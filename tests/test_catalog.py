"""The catalog: found by file name, or by the path of a user's own file."""

from __future__ import annotations

import doctest
import importlib
import sys
from pathlib import Path

import pytest

from pcsim import catalog

ROOT = Path(__file__).resolve().parent.parent
EVERY = [(room, name) for room in catalog.CONSTANTS for name in catalog.names(room)]


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


@pytest.mark.parametrize("room", catalog.CONSTANTS)
def test_names_are_the_files(room):
    files = sorted(p.stem for p in (ROOT / room).glob("*.py") if not p.stem.startswith("_"))
    assert catalog.names(room) == files


@pytest.mark.parametrize(("room", "name"), EVERY)
def test_every_content_file_loads_and_says_what_it_is(room, name):
    assert catalog.load(room, name) is not None
    assert catalog.load(room, name) is catalog.load(room, name)
    line = catalog.describe(room, name)
    assert 20 <= len(line) <= 160
    assert "\n" not in line


@pytest.mark.parametrize(("room", "name"), EVERY)
def test_examples_in_content_files_run(room, name):
    module = importlib.import_module(f"pcsim.{room}.{name}")
    flags = doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS
    assert doctest.testmod(module, optionflags=flags).failed == 0


def test_every_class_of_content_is_known_by_its_installed_name():
    for room, name in EVERY:
        assert type(catalog.load(room, name)).__module__.startswith("pcsim.")
    copies = [name for name in sys.modules if name.split(".")[0] in catalog.CONSTANTS]
    assert copies == []


def test_unknown_names(refused):
    assert "Did you mean 'rao_ballard_1999'?" in refused(catalog.load, "circuits", "rao_balard")
    assert "expected one of 'analysis'" in refused(catalog.names, "models")
    assert "expected one of" in refused(catalog.describe, "circuits", "nothing_like_it")
    assert "expected one of" in refused(catalog.load, "circuits", "__init__")


def test_a_file_by_its_path(tmp_path):
    path = write(
        tmp_path / "mine.py",
        '"""My own model. More about it.\n"""\n'
        "from __future__ import annotations\n"
        "from dataclasses import dataclass\n"
        "@dataclass(frozen=True)\nclass Mine:\n    gain: float = 0.7\n"
        "MODEL = Mine()\n",
    )
    model = catalog.load("circuits", path)
    assert model.gain == 0.7
    assert catalog.load("circuits", str(path)) is model
    assert catalog.load_file(path) == ("circuits", model)
    assert catalog.describe("circuits", path) == "My own model"


def test_a_changed_file_is_run_again(tmp_path):
    path = write(tmp_path / "mine.py", "MODEL = 0.7\n")
    assert catalog.load("circuits", path) == 0.7
    write(path, "MODEL = 4.0\n")
    assert catalog.load("circuits", path) == 4.0
    assert [p.name for p in tmp_path.iterdir()] == ["mine.py"], "no byte code beside it"


def test_a_file_is_run_under_its_own_future_imports(tmp_path):
    path = write(tmp_path / "mine.py", "def f(x: int): ...\nMODEL = f.__annotations__['x']\n")
    assert catalog.load("circuits", path) is int


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (None, "cannot be read"),
        ("MODEL = = 3", "SyntaxError"),
        ("1 / 0", "ZeroDivisionError"),
        ("import surely_absent", "No module named 'surely_absent'"),
        ("HYPOTHESIS = 3", "with HYPOTHESIS, expected the constant MODEL"),
        ("x = 3", "with no constant"),
    ],
)
def test_files_that_are_refused(refused, tmp_path, text, words):
    path = tmp_path / "mine.py"
    if text is not None:
        write(path, text)
    assert words in refused(catalog.load, "circuits", path)


@pytest.mark.parametrize("text", ["x = 1", "MODEL = 1\nHYPOTHESIS = 2"])
def test_a_file_belongs_to_one_room(refused, tmp_path, text):
    assert "of MODEL, HYPOTHESIS, EXPERIMENT" in refused(
        catalog.load_file, write(tmp_path / "mine.py", text)
    )


def test_describe_does_not_run_the_file(refused, tmp_path):
    path = write(tmp_path / "mine.py", '"""Fine words (Rozell et al. 2008). More."""\n1 / 0\n')
    assert catalog.describe("circuits", path) == "Fine words (Rozell et al. 2008)"
    assert "line 1" in refused(catalog.describe, "circuits", write(tmp_path / "b.py", "def"))
    (tmp_path / "c.py").write_bytes(b"\xff\xfe")
    assert "not UTF-8" in refused(catalog.describe, "circuits", tmp_path / "c.py")
