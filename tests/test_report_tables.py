"""The tables beside the report: CSV that reads back, LaTeX that closes what it opens, a PDF."""

from __future__ import annotations

import csv
import io
import re
from itertools import pairwise

import pytest

from pcsim.hypothesis_parts import Reference
from pcsim.report_claims import excluded_of
from pcsim.report_figures import write_pages
from pcsim.report_marks import Axis
from pcsim.report_tables import latex, tables_of
from pcsim.verdict import Outcome, Verdict

CLAIM = {
    "id": "H10", "name": "50 % & more_{x}", "version": 1, "claim": "c", "family": "V1",
    "protocol": "Bars.", "statistic": "Share.", "signal": "error", "units": "share", "null": 0.0,
    "direction": 1, "rope": None, "falsified_if": ["It is absent."], "controls": [],
    "requirements": [],
    "reference": {"value": 0.875, "interval": [0.71, 0.965], "status": "remembered",
                  "source": "Rao & Ballard 1999, 100 %"},
}  # fmt: skip
SHARED = {"hypothesis": "H10", "version": 1, "family": "V1"}
VERDICTS = [
    Verdict(
        **SHARED, model="RB_1", verdict=Outcome.QUALITATIVE, effect=0.4321, low=-0.31, high=0.5,
        control="flat & long", control_effect=-0.0123, control_low=-0.1, control_high=0.08,
        difference_low=0.25, difference_high=0.55, p=0.0002, p_holm=0.0417, n_replicas=3,
        n_included=84, n_total=96, expectation="-", reason="It is, there.", seeds=(0, 1),
    ),
    Verdict(**SHARED, model="LN", verdict=Outcome.NA, expectation="+", reason="No signal."),
]  # fmt: skip
TABLES = tables_of([CLAIM], VERDICTS, ["RB_1", "LN", "GONE"])


def rows(name: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(TABLES[name])))


def test_csv_reads_back_to_the_numbers():
    first, second = rows("effects.csv")
    assert float(first["effect"]) == pytest.approx(0.4321)
    assert float(first["low"]) == pytest.approx(-0.31)
    assert (first["kept"], first["reason"], first["seeds"]) == ("against", "It is, there.", "0 1")
    assert (second["verdict"], second["effect"], second["kept"]) == ("N/A", "", "")
    assert rows("matrix.csv") == [
        {"hypothesis": "H10", "name": CLAIM["name"], "family": "V1", "RB_1": "QUALITATIVE",
         "LN": "N/A", "GONE": ""}
    ]  # fmt: skip
    (reference,) = rows("references.csv")
    assert (reference["status"], reference["low"]) == ("remembered", "0.71")


@pytest.mark.parametrize("name", ["matrix.tex", "effects.tex", "references.tex"])
def test_latex_is_balanced_and_every_row_has_as_many_cells_as_columns(name):
    text = TABLES[name]
    for opened, closed in (("{", "}"),):
        bare = re.sub(r"\\[{}]", "", text)
        assert bare.count(opened) == bare.count(closed)
    begun, ended = re.findall(r"\\begin\{(\w+)\}", text), re.findall(r"\\end\{(\w+)\}", text)
    assert begun == ended
    (columns,) = re.findall(r"@\{\}(.*)@\{\}\}", text)
    n = len(re.sub(r"p\{[^{}]*\}", "p", columns))
    body = text[text.index(r"\toprule") : text.index(r"\bottomrule")]
    lines = [line for line in body.splitlines() if line.endswith(r"\\")]
    assert len(lines) >= 2
    assert {len(re.split(r"(?<!\\)&", line)) for line in lines} == {n}
    assert "booktabs" in text.splitlines()[0]


def test_latex_prints_what_it_would_read_as_commands():
    for name in ("matrix.tex", "references.tex"):
        bare = re.sub(r"\\.", "", TABLES[name].split("\n", 3)[3])
        assert not re.search(r"[%#]", bare)
    assert r"50 \% \& more\_\{x\}" in TABLES["matrix.tex"]
    assert latex("a\\b") == r"a\textbackslash{}b"
    assert "$-0.31$" in TABLES["effects.tex"]
    assert r"Q\textsuperscript{$-$}" in TABLES["matrix.tex"]


def test_the_pdf_has_a_page_for_the_matrix_and_effects_and_embeds_its_type(tmp_path):
    paths = [tmp_path / "a.pdf", tmp_path / "b.pdf"]
    for path in paths:
        write_pages([CLAIM], VERDICTS, path)
    data = paths[0].read_bytes()
    assert data == paths[1].read_bytes()
    assert len(re.findall(rb"/Type /Page\b(?!s)", data)) == 2
    assert b"/FontFile2" in data
    assert b"/Subtype /Image" not in data
    assert float(re.findall(rb"/MediaBox \[ 0 0 ([\d.]+)", data)[0]) == pytest.approx(
        180 / 25.4 * 72, abs=0.1
    )


def test_an_axis_puts_every_point_where_it_belongs():
    axis = Axis(-1.0, 3.0, null=0.0)
    ends = [axis.place(value) for value in (-1.0, 0.0, 1.0, 2.0, 3.0)]
    steps = [b - a for a, b in pairwise(ends)]
    assert steps == pytest.approx([steps[0]] * 4, abs=0.11)
    assert axis.place(99.0) == ends[-1]
    text = str(axis.mark(VERDICTS[0]))
    assert f'cx="{axis.place(0.4321)}"' in text
    assert f"M{axis.place(-0.31)} 13H{axis.place(0.5)}" in text
    assert str(axis.mark(VERDICTS[1])).count("<circle") == 0
    long = Verdict(**SHARED, model="A", verdict=Outcome.QUALITATIVE, effect=1.0, low=-9.0, high=2.0)
    assert "l4 4" in str(axis.mark(long))


def test_exclusions_fall_back_on_the_units_of_verdicts(tmp_path):
    from pcsim.experiment import Run

    run = Run(tmp_path, "x", "?", "quick", {"seeds": (0,)}, {})
    (one,) = excluded_of(run, VERDICTS)
    assert one["models"] == [12, 96]
    assert one["most"] == ("RB_1", pytest.approx(0.125))
    assert one["controls"] == [0, 0]


def test_every_status_of_a_reference_has_words():
    from pcsim.hypothesis_parts import STATUSES
    from pcsim.report import STATUS

    assert set(STATUS) == set(STATUSES)
    assert Reference().status in STATUS
