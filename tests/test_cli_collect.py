"""``pcsim collect`` of an experiment of one's own: found by its file, nothing is run."""

from __future__ import annotations

from pathlib import Path

import pytest

from pcsim.cli import main

EXPERIMENT = '''
"""How many letters are there?"""

from pathlib import Path

from pcsim.experiment import Experiment, Piece
from pcsim.storage import write_json, write_text


def counted(folder, needs, *, seed, log):
    with Path(log).open("a") as file:
        file.write(f"{seed}\\n")
    write_json(folder / "n.json", 10 + seed)


def pieces(settings):
    return [
        Piece(key=f"n/{seed}", task=counted, kwargs={"seed": seed, "log": settings["log"]})
        for seed in settings["seeds"]
    ]


def collect(run):
    found = [int((run.piece(f"n/{seed}") / "n.json").read_text()) for seed in run.settings["seeds"]]
    write_text(run.folder / "table.txt", f"%s {sum(found)}")


EXPERIMENT = Experiment(
    name="letters",
    question="How many?",
    scales={"quick": {"seeds": 2, "log": "log"}},
    pieces=pieces,
    collect=collect,
    figures=lambda run: {},
)
'''


def call(capsys, *arguments) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as ended:
        main([str(one) for one in arguments])
    out, err = capsys.readouterr()
    return ended.value.code, out, err


@pytest.fixture
def mine(capsys, tmp_path) -> Path:
    """Return the file of an experiment that was run into ``run`` beside it."""
    file = tmp_path / "letters.py"
    file.write_text(EXPERIMENT % "sum", encoding="utf-8")
    given = ("run", file, "--out", tmp_path / "run", "--workers", 0)
    code, _, err = call(capsys, *given, "--set", f"log={tmp_path / 'log'}")
    assert code == 0, err
    assert (tmp_path / "run" / "table.txt").read_text() == "sum 21"
    return file


def test_it_is_collected_by_path(capsys, mine):
    folder = mine.parent / "run"
    mine.write_text(EXPERIMENT % "total", encoding="utf-8")
    code, out, err = call(capsys, "collect", folder, "--experiment", mine)
    assert code == 0, err
    assert out == f"{folder}: tables of 2 pieces are there.\n"
    assert (folder / "table.txt").read_text() == "total 21"
    assert (mine.parent / "log").read_text().split() == ["0", "1"]  # nothing was run for it


def test_tables_go_elsewhere_if_asked(capsys, mine):
    out = mine.parent / "tables"
    call(capsys, "collect", mine.parent / "run", "--experiment", mine, "--out", out)
    assert [path.name for path in out.iterdir()] == ["table.txt"]
    assert (out / "table.txt").read_text() == "sum 21"


def test_without_its_file_or_with_another_it_is_refused(capsys, mine):
    folder = mine.parent / "run"
    code, _, err = call(capsys, "collect", folder)
    assert code == 2
    assert "experiments 'letters'" in err
    code, _, err = call(capsys, "collect", folder, "--experiment", mine.parent / "other.py")
    assert code == 2
    assert "other.py that cannot be read" in err
    (mine.parent / "model.py").write_text("MODEL = 1\n")
    code, _, err = call(capsys, "collect", folder, "--experiment", mine.parent / "model.py")
    assert code == 2
    assert "expected the constant EXPERIMENT" in err
