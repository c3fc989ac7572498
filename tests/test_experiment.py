"""Runs: settings, order of pieces, fingerprints, failures, and the folder they leave."""

from __future__ import annotations

import fcntl
import json
import os
import signal
from pathlib import Path

import pytest
from matplotlib.figure import Figure

from pcsim import experiment_folder
from pcsim.experiment import Experiment, Piece, open_run, run_experiment
from pcsim.pool import TaskName
from pcsim.storage import read_json, write_text


def count(folder: Path, needs, *, log: str, value: int, fail: bool = False) -> None:
    """Write a number, and note in a log outside the run that it was computed."""
    with Path(log).open("a") as file:
        file.write(f"{folder.parent.name}\n")
    if fail:
        raise RuntimeError("the well is dry")
    before = sum(int((path / "value").read_text()) for path in needs.values())
    write_text(folder / "value", str(before + value))


def vanish(folder: Path, needs) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def fill_disk(folder: Path, needs) -> None:
    raise OSError(28, "No space left on device")


def experiment(pieces, **changes) -> Experiment:
    def collect(run):
        total = sum(int((path / "value").read_text()) for path in run.pieces.values())
        write_text(run.folder / "total", str(total))

    values = {
        "name": "toy",
        "question": "Does it add up?",
        "scales": {"quick": {"seeds": 2, "step": 1}, "full": {"seeds": 5, "step": 2}},
        "pieces": pieces,
        "collect": collect,
        "figures": lambda run: {"figure": Figure(figsize=(1, 1))},
    }
    return Experiment(**{**values, **changes})


def chain(log, **changes):
    """Two seeds, each a first piece and one that adds to it."""

    def pieces(settings):
        made = []
        for seed in settings["seeds"]:
            kwargs = {"log": str(log), "value": settings["step"] + seed, **changes}
            made.append(Piece(key=f"add/{seed}", task=count, kwargs=kwargs, needs=(f"a/{seed}",)))
            made.append(Piece(key=f"a/{seed}", task=count, kwargs={"log": str(log), "value": 10}))
        return made

    return pieces


def computed(log: Path) -> int:
    return len(log.read_text().splitlines()) if log.exists() else 0


@pytest.fixture
def log(tmp_path) -> Path:
    return tmp_path / "log"


def test_a_run_leaves_what_it_should(tmp_path, log, capsys):
    run = run_experiment(experiment(chain(log)), out=tmp_path / "run", workers=0)
    # 2 x 10 for a; 10 + 1 + 0 and 10 + 1 + 1 for add.
    assert (run.folder / "total").read_text() == str(20 + 11 + 12)
    assert {path.name for path in run.folder.iterdir()} >= {
        "figure.pdf",
        "figure.png",
        "figure.svg",
        "figures.json",
        "provenance.json",
        "run.json",
    }
    assert run.piece("add/1").parent.name == "add"
    assert "toy: [4/4]" in capsys.readouterr().err
    provenance = json.loads((run.folder / "provenance.json").read_text())
    assert provenance["seeds"] == [0, 1]
    assert provenance["config"]["step"] == 1


def test_finished_pieces_are_never_run_again(tmp_path, log, capsys):
    first = run_experiment(experiment(chain(log)), out=tmp_path / "run", workers=0)
    stamp = (first.folder / "figure.png").stat().st_mtime_ns
    again = run_experiment(experiment(chain(log)), out=tmp_path / "run", workers=0)
    assert computed(log) == 4
    assert again == first
    assert (first.folder / "figure.png").stat().st_mtime_ns == stamp
    assert "4 of 4 pieces are there already" in capsys.readouterr().err
    run_experiment(experiment(chain(log)), out=tmp_path / "run", workers=0, seeds=3)
    assert computed(log) == 6


def test_a_run_can_be_done_in_several_goes(tmp_path, log):
    out = tmp_path / "run"
    first = run_experiment(experiment(chain(log)), out=out, workers=0, only="add/1")
    assert computed(log) == 2  # with the piece that it needs
    assert set(first.missing) == {"a/0", "add/0"}
    assert not (out / "total").exists()
    assert not (out / "run.json").exists()
    second = run_experiment(experiment(chain(log)), out=out, workers=0, only="a*/0")
    assert computed(log) == 4
    assert second.missing == []
    at_once = run_experiment(experiment(chain(log)), out=tmp_path / "other", workers=0)
    assert (out / "total").read_bytes() == (at_once.folder / "total").read_bytes()
    assert (out / "run.json").read_bytes() == (at_once.folder / "run.json").read_bytes()


def test_tables_of_a_part_have_their_provenance(tmp_path, log):
    def collect(run):
        write_text(run.folder / "left", " ".join(sorted(run.missing)))

    made = experiment(chain(log), collect=collect, gathers_parts=True)
    run = run_experiment(made, out=tmp_path / "run", workers=0, only="add/1")
    assert (run.folder / "left").read_text() == "a/0 add/0"
    assert read_json(run.folder / "provenance.json")["seeds"] == [0, 1]
    assert not (run.folder / "figure.png").exists()


def test_changed_settings_run_anew_what_depends_on_them(tmp_path, log):
    one = run_experiment(experiment(chain(log)), out=tmp_path / "run", workers=0)
    other = run_experiment(
        experiment(chain(log)), out=tmp_path / "run", workers=0, settings={"step": 5}
    )
    assert one.piece("a/0") == other.piece("a/0")
    assert one.piece("add/0") != other.piece("add/0")
    assert computed(log) == 6


def test_changed_source_runs_everything_anew(tmp_path, log, monkeypatch):
    one = run_experiment(experiment(chain(log)), out=tmp_path / "run", workers=0)
    monkeypatch.setattr("pcsim.experiment_marks.source_fingerprint", lambda: "other")
    other = run_experiment(experiment(chain(log)), out=tmp_path / "run", workers=0)
    assert computed(log) == 8
    assert not set(one.pieces.values()) & set(other.pieces.values())


def test_kept_pieces_outlive_changed_sources(tmp_path, log, monkeypatch):
    def run(**arguments):
        made = experiment(chain(log))
        return run_experiment(made, out=tmp_path / "run", **{"workers": 0, **arguments})

    one = run()
    maker = read_json(one.piece("a/0") / "piece.json")["source_sha256"]
    monkeypatch.setattr("pcsim.experiment_marks.source_fingerprint", lambda: "other")
    other = run(keep=["a/*"])
    assert computed(log) == 6  # what adds to them is run anew
    assert [other.piece(f"a/{seed}") for seed in (0, 1)] == [one.piece("a/0"), one.piece("a/1")]
    assert read_json(other.folder / "provenance.json")["kept"] == {"a/0": maker, "a/1": maker}
    run(keep=["a/*"])
    assert computed(log) == 6
    run(settings={"step": 5}, keep=["a*"])
    assert computed(log) == 8  # another setting is another question
    fresh = run()
    assert computed(log) == 12
    assert read_json(fresh.folder / "provenance.json")["kept"] == {}


def test_what_needs_a_piece_with_other_settings_is_not_kept(tmp_path, log, monkeypatch):
    def pieces(first):
        return lambda settings: [
            Piece(key="a", task=count, kwargs={"log": str(log), "value": first}),
            Piece(key="b", task=count, kwargs={"log": str(log), "value": 1}, needs=("a",)),
        ]

    run_experiment(experiment(pieces(10)), out=tmp_path / "run", workers=0)
    monkeypatch.setattr("pcsim.experiment_marks.source_fingerprint", lambda: "other")
    again = run_experiment(experiment(pieces(20)), out=tmp_path / "run", workers=0, keep=["*"])
    assert computed(log) == 4
    assert (again.piece("b") / "value").read_text() == "21"


def test_of_several_older_pieces_the_newest_is_kept(tmp_path, log, monkeypatch):
    for place, sources in enumerate(("first", "second")):
        monkeypatch.setattr("pcsim.experiment_marks.source_fingerprint", lambda s=sources: s)
        run = run_experiment(experiment(chain(log)), out=tmp_path / "run", workers=0)
        for path in run.pieces.values():
            os.utime(path / "piece.json", (1e9 + place, 1e9 + place))
    monkeypatch.setattr("pcsim.experiment_marks.source_fingerprint", lambda: "third")
    again = run_experiment(experiment(chain(log)), out=tmp_path / "run", workers=0, keep=["*"])
    assert computed(log) == 8
    assert set(read_json(again.folder / "provenance.json")["kept"].values()) == {"second"}


def test_changed_file_of_the_user_runs_its_pieces_anew(tmp_path, log):
    mine = tmp_path / "mine.py"

    def pieces(settings):
        return [
            Piece(key="a", task=count, kwargs={"log": str(log), "value": 1}, sources=(str(mine),)),
            Piece(key="b", task=count, kwargs={"log": str(log), "value": 1}),
        ]

    mine.write_text("X = 1\n")
    run_experiment(experiment(pieces), out=tmp_path / "run", workers=0)
    mine.write_text("X = 2\n")
    run_experiment(experiment(pieces), out=tmp_path / "run", workers=0)
    assert computed(log) == 3


@pytest.mark.parametrize("workers", [0, 2])
def test_a_failing_piece_stops_what_needs_it_and_nothing_else(tmp_path, log, workers):
    def pieces(settings):
        kwargs = {"log": str(log), "value": 1}
        return [
            Piece(key="bad", task=count, kwargs={**kwargs, "fail": settings["step"] == 1}),
            Piece(key="after", task=count, kwargs=kwargs, needs=("bad",)),
            Piece(key="last", task=count, kwargs=kwargs, needs=("after",)),
            Piece(key="good", task=count, kwargs=kwargs),
        ]

    with pytest.raises(RuntimeError, match="bad: RuntimeError: the well is dry") as caught:
        run_experiment(experiment(pieces), out=tmp_path / "run", workers=workers)
    assert "1 pieces failed" in str(caught.value)
    assert "2 more need these" in str(caught.value)
    assert "Traceback" in (tmp_path / "run" / "errors.txt").read_text()
    assert [path.name[:4] for path in (tmp_path / "run" / "pieces").iterdir()] == ["good"]
    assert not (tmp_path / "run" / "figure.pdf").exists()
    run_experiment(experiment(pieces), out=tmp_path / "run", workers=workers, settings={"step": 2})
    # bad and good at first; then bad, after and last.
    assert computed(log) == 5
    assert not (tmp_path / "run" / "errors.txt").exists()


def test_a_killed_worker_is_named_and_the_others_go_on(tmp_path, log):
    def pieces(settings):
        kwargs = {"log": str(log), "value": 1}
        return [
            Piece(key="killed", task=vanish, weight=9.0),
            *(Piece(key=f"good/{i}", task=count, kwargs=kwargs) for i in range(3)),
        ]

    with pytest.raises(RuntimeError, match=r"killed: its worker process ended .* code -9"):
        run_experiment(experiment(pieces), out=tmp_path / "run", workers=2)
    assert computed(log) == 3


def test_a_full_disk_says_so(tmp_path):
    pieces = [Piece(key="big", task=fill_disk)]
    with pytest.raises(RuntimeError, match=r"big: the disk is full\. Free some space"):
        run_experiment(experiment(lambda s: pieces), out=tmp_path / "run", workers=0)


def test_same_bytes_with_any_number_of_workers(tmp_path, log):
    def fresh(name, workers):
        run_experiment(experiment(chain(log)), out=tmp_path / name, workers=workers, seeds=3)
        names = ("total", "run.json", "figure.pdf", "figure.png", "figure.svg")
        return [(tmp_path / name / file).read_bytes() for file in names]

    assert fresh("none", 0) == fresh("one", 1) == fresh("two", 2)


def test_heavy_pieces_start_first(tmp_path, log):
    def pieces(settings):
        return [
            Piece(key=f"p{i}/x", task=count, kwargs={"log": str(log), "value": 1}, weight=i)
            for i in range(4)
        ]

    run_experiment(experiment(pieces), out=tmp_path / "run", workers=0)
    assert log.read_text().split() == ["p3", "p2", "p1", "p0"]


def test_what_a_killed_run_left_is_cleared(tmp_path, log):
    run = run_experiment(experiment(chain(log)), out=tmp_path / "run", workers=0)
    part = run.folder / "pieces" / "add" / ".0@12345678.0123456789ab.part"
    part.mkdir()
    (part / "half").write_text("ha")
    stray = run.folder / ".verdicts.0123456789ab.part.csv"
    stray.write_text("ha")
    kept = run.folder / ".mine"
    kept.write_text("mine")
    run_experiment(experiment(chain(log)), out=tmp_path / "run", workers=0)
    assert not part.exists()
    assert not stray.exists()
    assert kept.exists()


def test_open_run(tmp_path, log):
    run = run_experiment(experiment(chain(log)), out=tmp_path / "run", workers=0)
    assert open_run(tmp_path / "run") == run
    with pytest.raises(ValueError, match="Did you mean 'add/1'"):
        run.piece("ad/1")
    with pytest.raises(ValueError, match=r"without run\.json"):
        open_run(tmp_path)
    (tmp_path / "run" / "run.json").write_text("{}")
    with pytest.raises(ValueError, match="Run the experiment again"):
        open_run(tmp_path / "run")


def test_one_run_at_a_time_in_a_folder(tmp_path, log):
    (tmp_path / "run").mkdir()
    with (
        experiment_folder.lock("test", tmp_path / "run"),
        pytest.raises(ValueError, match="in use by another run"),
    ):
        run_experiment(experiment(chain(log)), out=tmp_path / "run", workers=0)


def test_a_lock_of_another_program_above_hinders_nothing(tmp_path):
    foreign = tmp_path / ".lock"
    with foreign.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with experiment_folder.lock_of("test", tmp_path / "reports" / "report.html"):
            assert [path.name for path in tmp_path.iterdir()] == [".lock"]


def test_a_folder_that_cannot_be_written_to(tmp_path, log):
    (tmp_path / "file").write_text("")
    for out in (tmp_path / "file", tmp_path / "file" / "run"):
        with pytest.raises(ValueError, match="cannot be written to"):
            run_experiment(experiment(chain(log)), out=out, workers=0)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"scale": "quik"}, "Did you mean 'quick'"),
        ({"settings": {"stepp": 2}}, "Did you mean 'step'"),
        ({"seeds": 0}, "seeds 0"),
        ({"seeds": [1, 1]}, "all different"),
        ({"seeds": []}, "one or more"),
        ({"seeds": [-1]}, "not below 0"),
        ({"workers": -1}, "workers -1"),
        ({"only": "ad/*"}, "'ad/\\*', which fits none"),
        ({"keep": ["a/*", "ad/*"]}, "keep 'ad/\\*', which fits none"),
    ],
)
def test_unlawful_arguments_are_refused(tmp_path, log, arguments, words):
    with pytest.raises(ValueError, match=words):
        run_experiment(experiment(chain(log)), out=tmp_path / "run", **{"workers": 0, **arguments})
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("pieces", "words"),
    [
        ([Piece(key="a", task=vanish), Piece(key="a", task=vanish)], "two pieces 'a'"),
        ([Piece(key="a", task=vanish, needs=("b",))], "need 'b'"),
        (
            [Piece(key="a", task=vanish, needs=("b",)), Piece(key="b", task=vanish, needs=("a",))],
            "without a circle",
        ),
        ([Piece(key="a", task=lambda folder, needs: None)], "top level of a file"),
        ([Piece(key="a", task=vanish, sources=("no.py",))], "cannot be read"),
    ],
)
def test_unlawful_pieces_are_refused(tmp_path, pieces, words):
    with pytest.raises(ValueError, match=words):
        run_experiment(experiment(lambda s: pieces), out=tmp_path / "run", workers=0)


def test_kwargs_must_be_plain_values(tmp_path):
    pieces = [Piece(key="a", task=vanish, kwargs={"what": object()})]
    with pytest.raises(TypeError, match="piece a: kwargs are not plain"):
        run_experiment(experiment(lambda s: pieces), out=tmp_path / "run", workers=0)
    with pytest.raises(ValueError, match="single slashes"):
        Piece(key="../a", task=vanish)
    with pytest.raises(ValueError, match="single slashes"):
        Piece(key="a b", task=vanish)


def test_scales_name_their_seeds():
    with pytest.raises(ValueError, match="Add how many"):
        experiment(chain("x"), scales={"quick": {}})


def test_tasks_are_found_in_another_process():
    name = TaskName.of(count)
    assert name.find() is count
    assert Path(name.file) == Path(__file__).resolve()
