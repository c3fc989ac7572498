"""The battery as an experiment: its pieces, what they share, and a small run of it for real."""

from __future__ import annotations

import shutil
from collections import Counter

import numpy as np
import pytest
import xarray as xr

from pcsim import catalog, roster
from pcsim.experiment import Piece, run_experiment
from pcsim.experiment_battery import Battery, battery_pieces, evidence, slug
from pcsim.experiment_exclusions import read_exclusions
from pcsim.experiment_figures import evidence_of
from pcsim.hypothesis import Hypothesis
from pcsim.report import write_report
from pcsim.roster import ROSTER
from pcsim.stimuli import white_noise
from pcsim.verdict import Outcome, read_csv

EXPERIMENT = catalog.load("experiments", "correspondence")
MODEL = '''
"""Units with a gain; without one they have no signal."""

from dataclasses import dataclass

from pcsim.responses import make_responses


@dataclass(frozen=True, kw_only=True)
class Toy:
    gain: float = 1.0
    field_shape = (2, 3)
    px_per_deg = 16.0

    def run(self, stimulus, *, seed=0, record=None):
        rate = self.gain * stimulus.values.reshape(*stimulus.shape[:2], -1)
        units = {"population": ["output"] * 6, "level": [1] * 6, "area": ["V1"] * 6}
        time = stimulus["time"].values + float(stimulus["frame_duration"])
        trial = {"condition": stimulus["condition"].values}
        return make_responses(rate, time=time, units=units, trial=trial)


MODEL = Toy()
'''
HYPOTHESIS = '''
"""There is a gain."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import xarray as xr

from pcsim.hypothesis import Control, Hypothesis, Reference
from pcsim.stimuli import white_noise


def observe(model, *, seed, scale):
    responses = model.run(white_noise((2, 3), n_trials=4, seed=seed))
    rate = responses["rate"].mean("time").transpose("unit", "trial").values
    included = np.arange(6) > 1
    data = {"rate": (("unit", "stimulus"), rate), "included": ("unit", included)}
    return xr.Dataset(data | {"dropped_trials": 2, "total_trials": 9}), responses


def panel(evidence, ax):
    Path("%(drawn)s").write_text(" ".join(sorted(evidence)))
    ax.plot([float(one["rate"].mean()) for replicas in evidence.values() for one in replicas])


HYPOTHESIS = Hypothesis(
    id="T1", name="A gain", claim="A gain.", family="toy", protocol="Noise.", statistic="Mean.",
    signal="output", falsified_if="None.", observe=observe, variables=("rate",),
    missing=lambda model: "" if model.gain else "it has no gain",
    controls=(
        Control(name="cut in half", statement="Weak.", transform=lambda m, s: replace(m, gain=0.1)),
        Control(name="rival", statement="Weak.", variant="%(weak)s"),
    ),
    reference=Reference(status="computed", source="Here", interval=(0.4, 0.6)), panel=panel,
)
'''


def pieces(**changes) -> dict[str, Piece]:
    settings = {**EXPERIMENT.scales["quick"], "scale": "quick", **changes}
    return {piece.key: piece for piece in EXPERIMENT.pieces(settings)}


@pytest.mark.parametrize(("scale", "seeds"), [("quick", 3), ("full", 5)])
def test_every_column_meets_every_hypothesis(scale, seeds):
    settings = {**EXPERIMENT.scales[scale], "scale": scale}
    assert settings["seeds"] == seeds
    assert set(settings["models"]) <= {variant.label for variant in ROSTER}
    kinds = Counter(piece.key.split("/")[0] for piece in EXPERIMENT.pieces(settings))
    claims = catalog.names("analysis") if scale == "full" else settings["hypotheses"]
    n_columns, n_hypotheses = len(settings["models"]), len(claims)
    assert kinds["judge"] == n_columns * n_hypotheses
    assert kinds["observe"] >= seeds * n_columns * n_hypotheses
    assert kinds["train"] >= seeds * n_columns


def test_the_quick_scale_is_the_first_release_and_a_part_of_the_full_one():
    quick, full = (EXPERIMENT.scales[scale] for scale in ("quick", "full"))
    ids = {catalog.load("analysis", name).id for name in quick["hypotheses"]}
    assert ids == {f"H{n:02d}" for n in (1, 4, 5, 10, 11, 12, 18, 20, 23, 26, 32, 42)}
    assert set(quick["models"]) < set(full["models"])


def test_all_stands_for_all_that_is_known():
    found = pieces(models="all", hypotheses="all", seeds=(0,))
    judged = {key for key in found if key.startswith("judge/")}
    assert len(judged) == len(ROSTER) * len(catalog.names("analysis"))


def test_needs_are_pieces_and_every_model_is_trained_once():
    found = pieces()
    for piece in found.values():
        assert set(piece.needs) <= set(found)
    assert found["train/RB-cut/1"].needs == ("train/RB/1",)
    assert found["train/RB-noise/1"].needs == ()
    assert found["train/RB/1"].weight > found["train/RB-untr/1"].weight


def test_rivals_are_observed_even_if_they_are_no_columns():
    found = pieces(models=("RB",), hypotheses=("end_stopping",), seeds=(0,))
    trained = {key for key in found if key.startswith("train/")}
    claim: Hypothesis = catalog.load("analysis", "end_stopping")
    rivals = {control.variant for control in claim.controls if control.variant}
    assert {f"train/{label}/0" for label in {"RB", *rivals}} <= trained
    assert [key for key in found if key.startswith("judge/")] == ["judge/H10/RB"]


def test_what_a_column_is_judged_by_does_not_depend_on_the_others():
    alone = pieces(models=("RB",), hypotheses=("end_stopping",))
    among = pieces()
    assert all(among[key] == piece for key, piece in alone.items())


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"models": ("RB", "rao_ballard_1999")}, "each once"),
        ({"hypotheses": ()}, "one or more"),
        ({"models": ("RBB",)}, "model 'RBB'"),
        ({"hypotheses": ("end_stoping",)}, "Did you mean 'end_stopping'"),
    ],
)
def test_unlawful_settings_are_refused(changes, words):
    with pytest.raises(ValueError, match=words):
        pieces(**changes)


def test_names_become_keys():
    assert slug("a / b.c (d)") == "a-b.c-d"


@pytest.fixture
def toy(tmp_path) -> dict[str, tuple[str, ...]]:
    sources = {
        "strong.py": MODEL,
        "weak.py": MODEL.replace("gain: float = 1.0", "gain: float = 0.1"),
        "mute.py": MODEL.replace("gain: float = 1.0", "gain: float = 0.0"),
        "gain.py": HYPOTHESIS % {"weak": tmp_path / "weak.py", "drawn": tmp_path / "drawn"},
    }
    for name, source in sources.items():
        (tmp_path / name).write_text(source)
    models = tuple(str(tmp_path / name) for name in ("strong.py", "mute.py", "weak.py"))
    return {"models": models, "hypotheses": (str(tmp_path / "gain.py"),)}


def counted(folder) -> dict[tuple[str, str, str], tuple[int, int]]:
    return {
        (row["model"], row["control"], row["what"]): (row["excluded"], row["total"])
        for row in read_exclusions(folder / "exclusions.csv")
    }


def test_a_small_battery_for_real(tmp_path, toy):
    run = run_experiment(EXPERIMENT, settings=toy, out=tmp_path / "run", workers=0)
    found = {one.model: one for one in read_csv(run.folder / "verdicts.csv")}
    # Noise around 0.5 at a gain of 1 against 0.1; the weak column is its own control.
    assert found["strong"].verdict == Outcome.SUPPORTED
    assert found["strong"].effect == pytest.approx(0.5, abs=0.1)
    assert found["strong"].control_effect == pytest.approx(0.1 * found["strong"].effect)
    assert found["strong"].p_holm is not None
    assert found["mute"].verdict == Outcome.NA
    assert found["mute"].reason == "it has no gain"
    assert found["weak"].verdict == Outcome.NON_SPECIFIC
    names = {path.relative_to(run.folder).as_posix() for path in run.folder.rglob("*.*")}
    assert {"figure.pdf", "figure.png", "figures/T1.svg", "figures/T1-effects.pdf"} <= names
    assert {"responses/T1_strong.nc", "hypotheses.json", "provenance.json"} <= names
    assert "responses/T1_mute.nc" not in names
    # Two units of six are left out by the rule, and two trials of nine by the protocol's count.
    assert counted(run.folder) == {
        ("strong", "", "units"): (3 * 2, 3 * 6),
        ("strong", "cut in half", "units"): (3 * 2, 3 * 6),
        ("strong", "rival", "units"): (3 * 2, 3 * 6),
        ("strong", "", "trials"): (3 * 2, 3 * 9),
        ("strong", "cut in half", "trials"): (3 * 2, 3 * 9),
        ("strong", "rival", "trials"): (3 * 2, 3 * 9),
    } | {
        ("weak", who, what): (3 * 2, 3 * n)
        for who in ("", "cut in half", "rival")
        for what, n in (("units", 6), ("trials", 9))
    }
    shown = xr.load_dataset(run.folder / "stimuli" / "T1.nc", engine="h5netcdf")
    assert shown["model"].item() == "strong"
    noise = white_noise((2, 3), n_trials=4, seed=0).isel(trial=0)
    first = shown["strip"].values[0, :2, :3]
    np.testing.assert_array_equal(first, (255 * noise.values[0]).round())
    assert (tmp_path / "drawn").read_text().split() == [
        "strong", "strong/cut", "in", "half", "weak", "weak/cut", "in", "half",
    ]  # fmt: skip


def test_what_the_battery_calls_inapplicable_is_not_asked(tmp_path, toy):
    path = tmp_path / "gain.py"
    path.write_text(path.read_text().replace("panel=panel", "expectations={'strong': '.'}"))
    run = run_experiment(EXPERIMENT, settings=toy, out=tmp_path / "run", workers=0)
    found = {one.model: one for one in read_csv(run.folder / "verdicts.csv")}
    assert found["strong"].verdict == Outcome.NA
    assert found["strong"].expectation == "."
    assert "observe-control/T1/strong/cut-in-half/0" not in run.pieces
    assert set(evidence_of(run, Battery.of(run.settings).hypotheses[0])) == {
        "weak",
        "weak/cut in half",
    }


def test_figures_are_drawn_from_what_is_saved(tmp_path, toy):
    run = run_experiment(EXPERIMENT, settings=toy, out=tmp_path / "run", workers=0)
    claim = Battery.of(run.settings).hypotheses[0]
    saved = evidence_of(run, claim)
    assert set(saved) == {"strong", "strong/cut in half", "weak", "weak/cut in half"}
    assert [len(replicas) for replicas in saved.values()] == [3, 3, 3, 3]
    one = evidence(run.piece("observe/T1/strong/2"))
    assert isinstance(one, xr.Dataset)
    assert one["included"].dtype == bool
    xr.testing.assert_identical(one, saved["strong"][2])
    assert evidence(run.piece("observe/T1/mute/0")) is None


def test_a_change_of_the_hypothesis_trains_nothing_anew(tmp_path, toy):
    first = run_experiment(EXPERIMENT, settings=toy, out=tmp_path / "run", workers=0)
    path = tmp_path / "gain.py"
    path.write_text(path.read_text().replace("n_trials=4", "n_trials=5"))
    second = run_experiment(EXPERIMENT, settings=toy, out=tmp_path / "run", workers=0)
    assert first.piece("train/strong/0") == second.piece("train/strong/0")
    assert first.piece("observe/T1/strong/0") != second.piece("observe/T1/strong/0")
    assert first.piece("judge/T1/strong") != second.piece("judge/T1/strong")


def test_stimuli_and_responses_of_earlier_settings_go(toy, tmp_path):
    run = run_experiment(EXPERIMENT, settings=toy, out=tmp_path / "run", workers=0)
    assert (run.folder / "stimuli" / "T1.nc").is_file()
    own = run.folder / "responses" / "mine.nc"
    own.write_text("mine")
    dumb = {**toy, "models": (toy["models"][1],)}
    run_experiment(EXPERIMENT, settings=dumb, out=tmp_path / "run", workers=0)
    assert [path.name for path in (run.folder / "responses").iterdir()] == ["mine.nc"]
    assert not list((run.folder / "stimuli").iterdir())
    # What another program left there is not shown as if the run had made it.
    shutil.copyfile(run.piece("observe/T1/strong/0") / "stimuli.nc", run.folder / "stimuli/T1.nc")
    write_report([run.folder], tmp_path / "report.html")
    assert "What is shown" not in (tmp_path / "report.html").read_text()


def test_pieces_with_seeds_as_a_number():
    settings = {"models": ("LN",), "hypotheses": ("end_stopping",), "seeds": 2}
    assert Battery.of(settings).seeds == (0, 1)
    assert len({piece.key for piece in battery_pieces(settings)}) == len(battery_pieces(settings))


def test_protocols_have_a_size_of_their_own():
    settings = {"models": ("LN",), "hypotheses": ("spatial_whitening",), "seeds": 1}
    for changes, wanted in (({}, "full"), ({"protocols": "quick"}, "quick")):
        pieces = battery_pieces({**settings, "scale": "full", **changes})
        scales = {piece.key.split("/")[0]: piece.kwargs.get("scale") for piece in pieces}
        assert scales == {
            "train": "full", "observe": wanted, "observe-control": wanted, "judge": None,
        }  # fmt: skip
    with pytest.raises(ValueError, match=r"'quik'.*Did you mean 'quick'"):
        battery_pieces({**settings, "protocols": "quik"})


@pytest.mark.parametrize(
    ("claim", "label", "reason"),
    [
        ("end_stopping", "PATH", "its field is 16 px wide, the longest bar 26 px"),
        ("flash_lag", "ARF", "its field is 15 px wide, bars pass over 16 px"),
        ("spatial_whitening", "HOSOYA", "it has no units within a pixel of the middle"),
    ],
)
def test_what_a_protocol_cannot_show_is_said_before_it_runs(claim, label, reason):
    hypothesis = catalog.load("analysis", claim)
    assert hypothesis.missing(roster.untrained(roster.variant(label))) == reason
    assert hypothesis.missing(roster.untrained(roster.variant("RB"))) == ""


def test_columns_can_be_asked_what_was_expected_of_them_alone():
    settings = {
        "models": ("LN", "PATH", "VM"), "hypotheses": ("end_stopping",), "seeds": 1,
        "spared": ("LN", "VM"),
    }  # fmt: skip
    claim = catalog.load("analysis", "end_stopping")
    assert [claim.expected(label) for label in ("LN", "PATH", "VM")] == ["-", "", ""]
    battery = Battery.of(settings)
    reasons = [battery.unasked(claim, label) for label in ("LN", "PATH", "VM")]
    assert reasons == ["", "", "not asked: nothing was expected of it before the first run"]
    pieces = {piece.key: piece for piece in battery_pieces(settings)}
    assert pieces["observe/H10/VM/0"].kwargs["reason"] == reasons[2]
    assert pieces["observe/H10/RB-noise/0"].kwargs["reason"] == ""  # a control
    for nothing in ((), ("",)):
        assert Battery.of({**settings, "spared": nothing}).unasked(claim, "VM") == ""
    with pytest.raises(ValueError, match=r"spared column 'PAHT'.*Did you mean 'PATH'"):
        Battery.of({**settings, "spared": ("PAHT",)})
