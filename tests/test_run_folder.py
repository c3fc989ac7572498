"""The folder of a run: figures that are of its state, damaged records, and who may write there."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from matplotlib.figure import Figure

from pcsim.experiment import Experiment, Piece, Run, collect_run, open_run, run_experiment
from pcsim.experiment_folder import save_figures
from pcsim.report import write_report
from pcsim.report_claims import figure_of
from pcsim.storage import atomic_path, read_json, write_json, write_text


def note(folder: Path, needs, *, seed: int, log: str) -> None:
    with Path(log).open("a") as file:
        file.write(f"{seed}\n")
    write_json(folder / "seed.json", seed)


def titled(*names: str):
    """Figures of these names, each with a setting in it that no piece takes."""

    def draw(run: Run) -> dict[str, Figure]:
        made = {name: Figure((1, 1)) for name in names}
        for figure in made.values():
            figure.suptitle(str(run.settings["shown"]))
        return made

    return draw


def drawn_anew(run: Run) -> dict[str, Figure]:
    figure = Figure((1, 1))
    figure.suptitle("another function")
    return {"figure": figure}


@pytest.fixture
def toy(tmp_path) -> Experiment:
    log = str(tmp_path / "log")
    return Experiment(
        name="toy",
        question="What is shown?",
        scales={"quick": {"seeds": 2, "shown": 1}},
        pieces=lambda settings: [
            Piece(key=f"a/{seed}", task=note, kwargs={"seed": seed, "log": log})
            for seed in settings["seeds"]
        ],
        collect=lambda run: write_text(run.folder / "left", " ".join(run.missing)),
        figures=titled("figure"),
    )


def done(experiment: Experiment, tmp_path: Path, **arguments) -> Run:
    return run_experiment(experiment, out=tmp_path / "run", workers=0, **arguments)


def seeds_run(tmp_path: Path) -> list[str]:
    return (tmp_path / "log").read_text().split()


def test_figures_are_drawn_anew_when_what_they_show_has_changed(toy, tmp_path, monkeypatch):
    run = done(toy, tmp_path)

    def stamp() -> int:
        return (run.folder / "figure.svg").stat().st_mtime_ns

    stamps = [stamp()]
    done(toy, tmp_path)
    assert stamp() == stamps[-1]
    for changed in (replace(toy, question="What else?"), replace(toy, figures=drawn_anew)):
        done(changed, tmp_path)
        assert stamp() > stamps[-1]
        stamps.append(stamp())
    assert b"another function" in (run.folder / "figure.svg").read_bytes()
    done(toy, tmp_path, settings={"shown": 2})
    assert stamp() > stamps[-1]
    assert seeds_run(tmp_path) == ["0", "1"]  # no piece was run again for any of it
    stamps.append(stamp())
    monkeypatch.setattr("pcsim.experiment_marks.source_fingerprint", lambda: "other")
    done(toy, tmp_path, settings={"shown": 2}, keep=["*"])
    assert stamp() > stamps[-1]
    assert seeds_run(tmp_path) == ["0", "1"]


def test_figures_are_drawn_anew_when_the_file_of_their_function_was_edited(toy, tmp_path):
    file = tmp_path / "mine.py"
    source = "WORD = %r\ndef draw(run):\n    figure = Figure((1, 1))\n"
    source += "    figure.suptitle(WORD)\n    return {'figure': figure}\n"
    for word in ("first", "second"):
        file.write_text(source % word)
        names = {"Figure": Figure}
        exec(compile(file.read_text(), file, "exec"), names)
        run = done(replace(toy, figures=names["draw"]), tmp_path)
        assert word.encode() in (run.folder / "figure.svg").read_bytes()


def test_figures_of_earlier_settings_go_and_others_stay(toy, tmp_path):
    run = done(replace(toy, figures=titled("figure", "figures/H1")), tmp_path)
    own = run.folder / "figures" / "mine.svg"
    own.write_text("<svg/>")
    assert figure_of(run, "figures/H1", "text") is not None
    assert figure_of(run, "figures/mine", "text") is None
    done(toy, tmp_path, settings={"shown": 2})
    assert sorted(path.name for path in own.parent.iterdir()) == ["mine.svg"]
    names = read_json(run.folder / "figures.json")["files"]
    assert names == ["figure.pdf", "figure.png", "figure.svg"]


def test_figures_that_were_not_finished_are_not_shown_and_go_later(toy, tmp_path):
    run = done(replace(toy, figures=titled("figure", "old")), tmp_path)

    def breaks(run: Run) -> dict[str, Figure]:
        raise RuntimeError("no ink")

    with pytest.raises(RuntimeError, match="no ink"):
        done(replace(toy, figures=breaks), tmp_path, settings={"shown": 2})
    assert figure_of(run, "figure", "text") is None
    done(toy, tmp_path, settings={"shown": 2})
    assert not list(run.folder.glob("old.*"))
    assert figure_of(run, "figure", "text") is not None


def test_tables_of_a_part_are_not_left_beside_figures_of_another_whole(toy, tmp_path):
    parts = replace(toy, gathers_parts=True)
    run = done(parts, tmp_path, seeds=1)
    assert (run.folder / "figure.png").is_file()
    done(parts, tmp_path, seeds=3, only="a/2")
    assert (run.folder / "left").read_text() == "a/1"
    assert not list(run.folder.glob("figure.*"))


def test_a_record_names_nothing_outside_its_folder(toy, tmp_path):
    run = done(toy, tmp_path)
    outside = tmp_path / "mine.svg"
    outside.write_text("<svg/>")
    names = ["../mine.svg", str(outside), 3, "figure.svg"]
    write_json(run.folder / "figures.json", {"state": "s", "files": names})
    save_figures(run, "other", titled("new"))
    assert outside.is_file()
    assert not (run.folder / "figure.svg").exists()


@pytest.mark.parametrize("text", ["", "[]", '{"key', '{"fingerprint": 3}'])
def test_a_piece_whose_record_is_damaged_is_made_again(toy, tmp_path, text):
    run = done(toy, tmp_path)
    record = run.piece("a/0") / "piece.json"
    whole = record.read_text()
    record.write_text(text)
    assert done(toy, tmp_path).missing == []
    assert seeds_run(tmp_path) == ["0", "1", "0"]
    assert record.read_text() == whole
    record.write_text(text)
    done(toy, tmp_path, keep=["a/*"])
    assert seeds_run(tmp_path) == ["0", "1", "0", "0"]


@pytest.mark.parametrize("text", ["", "[]", '{"state', '{"files": 3}', '{"files": [[]]}'])
def test_figures_whose_record_is_damaged_are_drawn_again(toy, tmp_path, text):
    run = done(toy, tmp_path)
    record = run.folder / "figures.json"
    whole = record.read_text()
    record.write_text(text)
    done(toy, tmp_path)
    assert record.read_text() == whole


def test_nothing_is_collected_or_reported_into_a_run_that_goes_on(toy, tmp_path):
    refused: list[str] = []

    def collect(run: Run) -> None:
        write_text(run.folder / "left", "")
        for write in (
            lambda: collect_run(toy, run),
            lambda: write_report([run], run.folder / "report.html"),
            lambda: write_report([run], run.folder / "deeper" / "report.html"),
        ):
            with pytest.raises(ValueError, match=r"run in use by another run.*choose another"):
                write()
            refused.append("yes")
        collect_run(toy, run, tmp_path / "tables")
        write_report([run], tmp_path / "report.html")

    done(replace(toy, collect=collect), tmp_path)
    assert len(refused) == 3
    assert (tmp_path / "tables" / "left").is_file()
    run = collect_run(toy, open_run(tmp_path / "run"))
    write_report([run], run.folder / "report.html")
    assert (run.folder / "report.html").is_file()


def test_a_run_of_older_settings_is_refused_in_words_or_collected_if_it_can_be(toy, tmp_path):
    run = done(toy, tmp_path)

    def collect(run: Run) -> None:
        write_text(run.folder / "left", str(run.settings["added"]))

    newer = replace(toy, scales={"quick": {**toy.scales["quick"], "added": 3}})
    with pytest.raises(ValueError, match="a run without the setting 'added', expected one of this"):
        collect_run(replace(newer, collect=collect), run)
    collect_run(newer, run)
    with pytest.raises(KeyError):
        collect_run(replace(toy, collect=collect), run)  # no run has what no scale has


def test_what_a_report_writes_keeps_a_run_from_starting(toy, tmp_path, monkeypatch):
    run = done(toy, tmp_path)
    refused: list[str] = []

    def start(path, text) -> None:
        with atomic_path(path) as part:
            part.write_text(text)
            with pytest.raises(ValueError, match="in use by another run"):
                done(toy, tmp_path)
            refused.append(part.name)

    monkeypatch.setattr("pcsim.report.write_text", start)
    write_report([run], run.folder / "report.html")
    assert refused
    assert (run.folder / "report.html").is_file()
    assert read_json(run.folder / "figures.json")["state"]
