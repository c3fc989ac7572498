"""Names of a battery: users' files beside the roster, keys that cannot clash, relative paths."""

from __future__ import annotations

from pathlib import Path

import pytest

from pcsim import catalog
from pcsim.experiment_battery import battery_pieces
from pcsim.experiment_marks import marks_of

MODEL = '"""A circuit of the catalog."""\nfrom pcsim.circuits.bogacz_2017 import MODEL as MODEL\n'
CLAIM = '''
"""A claim of the catalog with other controls."""

from dataclasses import replace

from pcsim import catalog
from pcsim.hypothesis import Control

THEIRS = catalog.load("analysis", "surround_suppression")
CONTROLS = [
    Control(name=name, statement="Weak.", transform=lambda model, seed: model) for name in %r
]
CONTROLS += [Control(name=name, statement="Weak.", variant=name) for name in %r]
HYPOTHESIS = replace(
    THEIRS,
    id="MINE",
    controls=tuple(CONTROLS),
    requirements=tuple(replace(one, against=None) for one in THEIRS.requirements),
)
'''


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def claim(transforms=("weak",), variants=("RB",)) -> str:
    Path("claim.py").write_text(CLAIM % (transforms, variants), encoding="utf-8")
    return "claim.py"


def model(name: str) -> str:
    path = Path(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(MODEL, encoding="utf-8")
    return name


def pieces(*models: str, hypothesis: str = "surround_suppression"):
    settings = {"hypotheses": (hypothesis,), "models": models, "seeds": (0,), "scale": "quick"}
    return battery_pieces(settings)


def test_a_file_with_the_name_of_a_column_is_refused():
    with pytest.raises(ValueError, match=r"LN\.py, which bears the name of the column LN"):
        pieces(model("LN.py"))
    with pytest.raises(ValueError, match=r"RB\.py, which bears .* Rename the file"):
        pieces("LN", hypothesis=claim(variants=(model("RB.py"),)))
    assert "train/linear/0" in {one.key for one in pieces(model("linear.py"))}


def test_two_files_of_one_name_are_refused_where_one_is_a_control():
    mine, control = model("mine/dark.py"), model("theirs/dark.py")
    with pytest.raises(ValueError, match=r"'dark' \(.*mine/dark.py\) and 'dark' \(.*theirs/dark"):
        pieces(mine, hypothesis=claim(variants=(control,)))
    pieces(mine, hypothesis=claim(variants=(mine,)))


def test_names_that_keys_cannot_tell_apart_are_refused():
    with pytest.raises(ValueError, match=r"models 'my model' .* and 'my-model' .* differ"):
        pieces(model("my model.py"), model("my-model.py"))
    with pytest.raises(ValueError, match=r"controls 'cut a' \(MINE\) and 'cut-a' \(MINE\)"):
        pieces("LN", hypothesis=claim(transforms=("cut a", "cut-a")))


def test_names_without_a_letter_that_keys_can_hold_are_refused():
    with pytest.raises(ValueError, match=r"model '模型' \(.*模型\.py\), expected letters"):
        pieces(model("模型.py"))
    with pytest.raises(ValueError, match=r"control '弱' \(MINE\), expected letters"):
        pieces("LN", hypothesis=claim(transforms=("弱",)))


def test_the_whole_catalog_has_lawful_names():
    settings = {"hypotheses": "all", "models": "all", "seeds": (0,), "scale": "quick"}
    assert battery_pieces(settings)


def test_a_hypothesis_by_relative_path_is_found_from_elsewhere(here, monkeypatch):
    found = pieces("LN", hypothesis=claim())
    marks = marks_of(found, here).fingerprints
    assert marks == marks_of(pieces("LN", hypothesis=str(here / "claim.py")), here).fingerprints
    monkeypatch.chdir("/")
    asked = [one for one in found if "hypothesis" in one.kwargs]
    assert {one.key.split("/")[0] for one in asked} == {"observe", "observe-control", "judge"}
    assert {catalog.load("analysis", one.kwargs["hypothesis"]).id for one in asked} == {"MINE"}
