"""The report of what is seldom: names that look alike, numbers off any axis, claims cut short."""

from __future__ import annotations

import math
import re
from collections import Counter
from importlib import resources
from pathlib import Path

import pytest

from pcsim.experiment import Run
from pcsim.experiment_battery import describe
from pcsim.hypothesis import Control, Hypothesis, Reference
from pcsim.plots import plot_forest
from pcsim.report import write_report
from pcsim.report_claims import PAGE
from pcsim.report_marks import Axis
from pcsim.storage import write_json
from pcsim.verdict import Outcome, Verdict, to_csv


def claim(key: str = "H1") -> dict:
    made = Hypothesis(
        id=key, name="A name", claim="A claim.", family="V1", protocol="Bars.", statistic="Mean.",
        signal="output", units="share", falsified_if="None.", observe=lambda *a, **k: None,
        variables=("share",), controls=(Control(name="flat", statement="Flat.", variant="LN"),),
        reference=Reference(status="read", source="Here", interval=(0.4, 0.6)),
    )  # fmt: skip
    return describe(made)


def verdict(model: str, **changes) -> Verdict:
    values = {"effect": 1.0, "low": 0.5, "high": 1.5, "replicas": (1.0, 1.0, 1.0)}
    return Verdict(
        hypothesis=changes.pop("hypothesis", "H1"), version=1, family="V1", model=model,
        verdict=Outcome.SUPPORTED, n_total=3, n_included=3, **{**values, **changes},
    )  # fmt: skip


def page_of(tmp_path: Path, verdicts, claims=None) -> str:
    folder = tmp_path / "run"
    Run(folder, "toy", "What?", "quick", {"seeds": (0,)}, {}).save()
    to_csv(verdicts, folder / "verdicts.csv")
    write_json(folder / "hypotheses.json", [claim()] if claims is None else claims)
    write_report([folder], tmp_path / "report.html")
    return (tmp_path / "report.html").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "models",
    [("A+", "A-"), ("a b", "a-b", "A B"), ("title", "numbers", "+"), ("a", "a-2", "a+", "a-")],
)
def test_models_whose_names_look_alike_have_cells_of_their_own(tmp_path, models):
    page = page_of(tmp_path, [verdict(one) for one in models])
    ids = Counter(re.findall(r'\bid="([^"]*)"', page))
    assert [name for name, n in ids.items() if n > 1] == []
    cells = dict(
        re.findall(r'<tbody class="cell"[^>]* id="([^"]*)"[^>]* data-model="([^"]*)"', page)
    )
    links = re.findall(r'<td class="v-[^>]*data-model="([^"]*)"[^>]*><a href="#([^"]*)"', page)
    assert [model for model, _ in links] == list(models)
    assert all(cells[target] == model for model, target in links)


def test_hypotheses_whose_ids_look_alike_have_sections_of_their_own(tmp_path):
    keys = ("H1", "H 1", "H-1", "find", "H1-RB")
    rows = [verdict("RB", hypothesis=key) for key in keys]
    page = page_of(tmp_path, rows, [claim(key) for key in keys])
    assert max(Counter(re.findall(r'\bid="([^"]*)"', page)).values()) == 1
    sections = re.findall(r'<section class="claim" id="([^"]*)"', page)
    links = re.findall(r'<th scope="row"><a href="#([^"]*)"><b>([^<]*)</b>', page)
    assert [key for _, key in links] == list(keys)
    assert [target for target, _ in links] == sections


def test_the_ids_of_the_page_itself_are_known():
    folder = resources.files("pcsim").joinpath("templates")
    texts = [one.read_text(encoding="utf-8") for one in folder.iterdir() if "html" in one.name]
    ids = re.findall(r'\bid="(?:\{\{ run\.prefix \}\})?([^"{]+)"', "".join(texts))
    assert len(ids) > 10
    assert set(ids) == set(PAGE)


EXTREMES = {
    "smallest": {"effect": 5e-324, "low": 0.0, "high": 5e-324},
    "huge": {"effect": 1e300, "low": -1e308, "high": 1e308},
    "infinite": {"effect": math.inf, "low": 0.0, "high": math.inf},
    "far": {"effect": 1e9, "low": 1e9, "high": 1e9 + 1e-6},
    "widest": {"effect": 1.0, "low": -1.7e308, "high": 1.7e308, "replicas": (1e308, -1e308)},
}


@pytest.mark.parametrize("name", EXTREMES)
def test_a_number_off_any_axis_spoils_no_report(tmp_path, name):
    page = page_of(tmp_path, [verdict("A", **EXTREMES[name]), verdict("B")])
    assert 'data-model="A"' in page
    assert "nan" not in "".join(re.findall(r'<svg class="mark".*?</svg>', page))
    assert (tmp_path / "report.pdf").stat().st_size > 1000


@pytest.mark.parametrize("name", EXTREMES)
def test_an_axis_holds_what_it_can(name):
    rows = [verdict("A", **EXTREMES[name])]
    axis = Axis.of(rows, null=0.0)
    assert math.isfinite(axis.low)
    assert axis.low < axis.high
    ends = [axis.place(value) for value in (axis.low, axis.high)]
    assert ends == [12.0, 218.0]
    assert ends[0] <= axis.place(rows[0].effect) <= ends[1]
    ticks = re.findall(r"<text[^>]*>([^<]*)</text>", axis.ticks())
    assert len(ticks) == len(set(ticks)) >= 2


def test_other_rows_of_a_figure_are_drawn_as_if_the_huge_one_were_not_there():
    rows = [{"label": "B", "effect": 1.0, "low": 0.5, "high": 1.5}]
    alone = plot_forest(rows).get_xlim()
    huge = {"label": "A", "effect": 1e300, "low": -1e308, "high": 1e308}
    assert plot_forest([*rows, huge]).get_xlim() == pytest.approx(alone)


@pytest.mark.parametrize("name", ["units", "reference", "name", "controls", "null"])
def test_a_claim_that_lacks_something_is_refused_in_words(tmp_path, name):
    lacking = {key: value for key, value in claim().items() if key != name}
    with pytest.raises(ValueError, match=rf"lacks something \(.*{name}.*Run the experiment again"):
        page_of(tmp_path, [verdict("A")], [lacking])
    assert not (tmp_path / "report.html").exists()
