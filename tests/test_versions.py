"""A change of what decides a verdict raises the version of the hypothesis, and is recorded."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest

PATH = Path(__file__).parent / "versions.py"
SPEC = importlib.util.spec_from_file_location("hypothesis_versions", PATH)
assert SPEC is not None
assert SPEC.loader is not None
versions = importlib.util.module_from_spec(SPEC)
sys.modules[SPEC.name] = versions
SPEC.loader.exec_module(versions)

SOURCE = '''
"""H99: a claim."""
from pcsim.protocols import lacks
WINDOW = 0.3
"""Seconds."""
def observe(model, *, seed, scale):
    """Show it."""
    return model.size * WINDOW  # in the window
def panel(evidence, ax):
    ax.plot([1, 2])
HYPOTHESIS = Hypothesis(
    id="H99", version=1, claim="There is an effect.", null=0.5, panel=panel,
    controls=(Control(name="flat", statement="None.", variant="LN"),),
)
'''
HARMLESS = (
    ("Show it.", "Show the bars."), ("# in the window", ""), ('"""Seconds."""', ""),
    ("[1, 2]", "[1, 3]"), ("There is an", "There was an"), ('"None."', '"Nothing."'),
    ("WINDOW = 0.3", "WINDOW  =  0.30"), ("version=1", "version=2"),
)  # fmt: skip
DECIDING = (
    ("0.3", "0.2"), ("model.size *", "model.size +"), ("null=0.5", "null=0.4"),
    ('variant="LN"', 'variant="DN"'), ("import lacks", "import respond"), ('"flat"', '"linear"'),
)  # fmt: skip


@pytest.mark.parametrize("change", HARMLESS)
def test_texts_and_drawings_decide_nothing(change):
    assert change[0] in SOURCE
    assert versions.deciding(SOURCE.replace(*change)) == versions.deciding(SOURCE)


@pytest.mark.parametrize("change", DECIDING)
def test_numbers_controls_and_code_decide(change):
    assert change[0] in SOURCE
    assert versions.deciding(SOURCE.replace(*change)) != versions.deciding(SOURCE)


def test_what_a_file_imports_from_protocols_decides_too(tmp_path, monkeypatch):
    file = tmp_path / "claim.py"
    file.write_text(SOURCE)
    (own,) = versions.protocols_of(SOURCE)
    assert "def lacks(" in own.read_text()
    before = versions.digest(file)
    changed = tmp_path / own.name
    changed.write_text(own.read_text().replace("return", "print(); return", 1))
    monkeypatch.setattr(versions, "protocols_of", lambda text: [changed])
    assert versions.digest(file) != before


def test_a_change_needs_a_raised_version():
    before = {"H1": (1, "a"), "H2": (2, "b"), "H3": (1, "c")}
    assert versions.unanswered({"H1": (1, "x"), "H2": (3, "y"), "H3": (1, "c")}, before) == ["H1"]
    assert versions.unanswered({"H2": (1, "b"), "H4": (1, "d")}, before) == ["H2"]


def test_the_table_is_not_renewed_behind_ones_back(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(versions, "ROOT", tmp_path)
    monkeypatch.setattr(versions, "TABLE", tmp_path / "data" / "versions.csv")
    versions.write({"H1": (1, "a")})
    monkeypatch.setattr(versions, "current", lambda: {"H1": (1, "b")})
    assert versions.main([]) == 1
    assert "Raise `version`" in capsys.readouterr().out
    assert versions.recorded() == {"H1": (1, "a")}
    assert versions.main(["--unmoved"]) == 0
    assert versions.recorded() == {"H1": (1, "b")}
    # A version never falls.
    versions.write({"H1": (2, "b")})
    assert versions.main(["--unmoved"]) == 1


def test_every_change_of_a_hypothesis_is_recorded():
    now, before = versions.current(), versions.recorded()
    left = versions.unanswered(now, before)
    assert not left, (
        f"What decides the verdicts of {', '.join(left)} changed under the same version. Raise "
        "`version` in the file if a number can move and say so in CHANGELOG.md under 'Results that "
        "moved', then run: python tests/versions.py. If no number can move, run: "
        "python tests/versions.py --unmoved"
    )
    assert now == before, (
        "tests/data/versions.csv is older than the hypotheses: run python tests/versions.py"
    )
