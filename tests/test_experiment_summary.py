"""Figures over finished batteries: what is counted, what is refused, and what is drawn."""

from __future__ import annotations

import csv
import re
from dataclasses import replace

import numpy as np
import pytest

from pcsim import catalog
from pcsim.experiment import run_experiment
from pcsim.storage import read_json, write_json
from pcsim.verdict import Outcome, Verdict, read_csv, to_csv

TABLE = catalog.load("experiments", "thesis_correspondences")
SUMMARY = catalog.load("experiments", "evidence_summary")


def one(
    hypothesis: str, model: str, verdict: Outcome, expectation: str = "", *, itself: bool = False
) -> Verdict:
    names = {"hypothesis": hypothesis, "model": model, "verdict": verdict}
    return Verdict(**names, version=1, family="V1", expectation=expectation, itself=itself)


S, Q, N, R, OPEN, NA = (
    Outcome.SUPPORTED, Outcome.QUALITATIVE, Outcome.NON_SPECIFIC, Outcome.REFUTED,
    Outcome.INCONCLUSIVE, Outcome.NA,
)  # fmt: skip
CELLS = [
    one("H10", "RB", S, "+"), one("H10", "LN", R, "-"), one("H10", "DN", OPEN, "-"),
    one("H11", "RB", Q, "+"), one("H11", "LN", N, "-"), one("H11", "DN", R, "+"),
    one("H12", "RB", S, "?"), one("H12", "LN", Q, "-"), one("H12", "DN", NA, "+"),
    one("H35", "NMDA", S, "+"),
]  # fmt: skip


def battery(folder, cells) -> str:
    folder.mkdir()
    to_csv(cells, folder / "verdicts.csv")
    keys = sorted({cell.hypothesis for cell in cells})
    write_json(folder / "hypotheses.json", [{"id": key, "name": f"Name {key}"} for key in keys])
    return str(folder)


def made(experiment, tmp_path, *cells):
    places = tuple(battery(tmp_path / f"b{k}", part) for k, part in enumerate(cells))
    out = tmp_path / experiment.name
    return run_experiment(experiment, settings={"run": places}, out=out, workers=0)


def width_of(path) -> float:
    data = path.read_bytes()
    assert b"/FontFile2" in data
    assert b"/Subtype /Image" not in data
    return float(re.findall(rb"/MediaBox \[ 0 0 ([\d.]+)", data)[0]) / 72 * 25.4


def test_the_scored_table(tmp_path):
    run = made(TABLE, tmp_path, CELLS)
    rows = {row["neural"]: row for row in read_json(run.folder / "scores.json")}
    top = rows["Top-down projections, extra-classical fields"]
    assert top["tested"] == ["H10", "H11", "H12"]
    assert [top[str(name)] for name in (S, Q, N, OPEN, R)] == [2, 2, 1, 1, 2]
    assert top["n_cells"] == 8
    # DN under H12 lacks the signal: not a failed prophecy.
    assert (top["n_passed_as_expected"], top["n_expected_to_pass"]) == (2, 3)
    # LN under H12 passed though it was to fail; DN under H10 is open.
    assert (top["n_failed_as_expected"], top["n_expected_to_fail"]) == (2, 4)
    motor = rows["Pattern generators, motor cortex"]
    assert (motor["n_cells"], motor["tested"]) == (0, [])
    text = (run.folder / "table.tex").read_text()
    assert "[H05], H10, H11, H12" in text
    assert "2 of 3" in text
    assert text.count("--") >= 6
    with (run.folder / "table.csv").open(newline="") as file:
        assert len(list(csv.DictReader(file))) == len(rows) == 10
    assert width_of(run.folder / "figure.pdf") == pytest.approx(180, abs=0.1)


def module():
    from importlib.util import module_from_spec, spec_from_file_location
    from pathlib import Path

    path = Path(__file__).parent.parent / "experiments" / "thesis_correspondences.py"
    spec = spec_from_file_location("thesis_correspondences_rows", path)
    assert spec is not None
    assert spec.loader is not None
    found = module_from_spec(spec)
    import sys

    sys.modules[spec.name] = found
    spec.loader.exec_module(found)
    return found


def test_every_hypothesis_of_the_coverage_is_in_a_row():
    covered = {key for row in module().ROWS for key in row.hypotheses}
    named = [*range(1, 9), 10, 11, 12, 16, 21, 22, 23, 24, 26, 28, 31, 32, 34, 35, 36, 37, 39]
    ids = {f"H{number:02d}" for number in (*named, 40, 41)}
    assert covered == ids | {"H29d", "H29e", "H29f"}


def test_every_hypothesis_of_a_row_is_in_the_catalog():
    known = {catalog.load("analysis", name).id for name in catalog.names("analysis")}
    for row in module().ROWS:
        assert set(row.hypotheses) <= known, row.neural


def test_columns_that_are_controls_say_nothing_for_a_correspondence(tmp_path):
    cells = [one("H12", "DN", N, "+", itself=True), one("H12", "RB", R, "-")]
    run = made(TABLE, tmp_path, cells)
    rows = {row["neural"]: row for row in read_json(run.folder / "scores.json")}
    top = rows["Top-down projections, extra-classical fields"]
    assert (top["n_cells"], top["n_controls"], top["n_expected_to_pass"]) == (1, 1, 0)
    assert "our reading" in (run.folder / "table.tex").read_text()


def test_a_control_is_told_from_what_lacks_its_effect(tmp_path):
    import xarray as xr

    # H12 of the review: divisive normalization, its control, loses what RB does not lose.
    cells = [one("H12", "RB", R, "-"), one("H12", "DN", N, "+", itself=True)]
    run = made(SUMMARY, tmp_path, cells)
    found = xr.load_dataset(run.folder / "separation.nc", engine="h5netcdf")
    assert found["apart"].values.tolist() == [[0, 1], [1, 0]]
    (row,) = read_json(run.folder / "discrimination.json")
    assert (row["pairs_apart"], row["NON-SPECIFIC"], row["control: effect there"]) == (1, 0, 1)
    counts = read_json(run.folder / "expectations.json")
    assert counts["+"]["control: effect there"] == 1
    assert counts["+"]["NON-SPECIFIC"] == 0


def test_what_is_told_apart(tmp_path):
    import xarray as xr

    run = made(SUMMARY, tmp_path, CELLS[:6], CELLS[6:])
    found = xr.load_dataset(run.folder / "separation.nc", engine="h5netcdf")
    # NMDA was measured alone: there is nothing to tell it from.
    assert found["model"].values.tolist() == ["RB", "LN", "DN"]
    # LN shows the effect of H11 as RB does, though not it alone; DN has none.
    assert found["apart"].values.tolist() == [[0, 1, 1], [1, 0, 1], [1, 1, 0]]
    assert found["compared"].values.tolist() == [[0, 3, 1], [3, 0, 1], [1, 1, 0]]
    np.testing.assert_array_equal(found["apart"], found["apart"].T)
    rows = {row["id"]: row["pairs_apart"] for row in read_json(run.folder / "discrimination.json")}
    assert rows == {"H11": 2, "H10": 1, "H12": 0, "H35": 0}
    assert next(iter(rows)) == "H11"
    counts = read_json(run.folder / "expectations.json")
    assert counts["+"][str(R)] == 1
    assert counts["-"][str(Q)] == 1
    assert width_of(run.folder / "figure.pdf") == pytest.approx(180, abs=0.1)
    assert width_of(run.folder / "expectations.pdf") == pytest.approx(85, abs=0.1)


def test_a_battery_that_changes_is_read_again(tmp_path):
    run = made(SUMMARY, tmp_path, CELLS)
    to_csv([*CELLS[:9], one("H35", "NMDA", R, "+")], tmp_path / "b0" / "verdicts.csv")
    places = (str(tmp_path / "b0"),)
    again = run_experiment(SUMMARY, settings={"run": places}, out=run.folder, workers=0)
    assert read_json(again.folder / "expectations.json")["+"][str(R)] == 2


def test_what_is_no_battery_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"verdicts\.csv that cannot be read"):
        run_experiment(SUMMARY, settings={"run": (str(tmp_path / "none"),)}, out=tmp_path / "o")
    (tmp_path / "half").mkdir()
    to_csv(CELLS, tmp_path / "half" / "verdicts.csv")
    with pytest.raises(RuntimeError, match=r"without verdicts\.csv and hypotheses\.json"):
        run_experiment(
            SUMMARY, settings={"run": (str(tmp_path / "half"),)}, out=tmp_path / "o", workers=0
        )


def test_batteries_that_disagree_are_refused(tmp_path):
    with pytest.raises(RuntimeError, match="SUPPORTED and REFUTED for RB under H10"):
        made(SUMMARY, tmp_path, CELLS, [one("H10", "RB", R)])


MEASURED = replace(CELLS[0], effect=0.5, low=0.4, high=0.6, control_effect=0.1, p=0.01)


@pytest.mark.parametrize("name", ["effect", "low", "high", "control_effect"])
def test_batteries_whose_numbers_differ_are_refused(tmp_path, name):
    words = rf"{name.replace('_', ' ')} 0\.\d and 0\.55 for RB under H10"
    with pytest.raises(RuntimeError, match=words):
        made(SUMMARY, tmp_path, [MEASURED], [replace(MEASURED, **{name: 0.55})])


def test_batteries_may_differ_in_rounding_and_in_what_p_is_corrected_for(tmp_path):
    again = replace(MEASURED, effect=0.5 + 1e-13, p_holm=0.03)
    run = made(SUMMARY, tmp_path, [MEASURED], [again])
    assert len(read_csv(run.piece("verdicts") / "verdicts.csv")) == 1
