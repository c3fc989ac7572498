"""The command: what it prints, what it leaves, and how it fails."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from pcsim import catalog
from pcsim.cli import main
from pcsim.cli_battery import hypothesis_name, table
from pcsim.cli_settings import fitted, pairs
from pcsim.experiment import run_experiment
from pcsim.responses import open_responses
from pcsim.verdict import Outcome, Verdict

MODEL = '''
"""Linear units, for the command's tests.

.. math:: r = g x
"""

from dataclasses import dataclass

import numpy as np

from pcsim.responses import make_responses


@dataclass(frozen=True, kw_only=True)
class Linear:
    """One unit a pixel."""

    gain: float = 0.7
    """Response to unit luminance."""
    x: float = 0.0
    """In both the circuit and the stimulus."""
    field_shape = (6, 8)
    px_per_deg = 16.0

    def run(self, stimulus, *, seed=0, record=None):
        rate = self.gain * stimulus.values.reshape(*stimulus.shape[:2], -1)
        n = rate.shape[-1]
        units = {"population": ["output"] * n, "level": [1] * n, "area": ["V1"] * n}
        time = stimulus["time"].values + float(stimulus["frame_duration"])
        trial = {"condition": stimulus["condition"].values}
        return make_responses(rate, time=time, units=units, trial=trial)


MODEL = Linear()
'''

HYPOTHESIS = '''
"""Light drives units."""

import numpy as np
import xarray as xr

from pcsim.hypothesis import Control, Hypothesis, Reference
from pcsim.stimuli import white_noise


def observe(model, *, seed, scale):
    stimulus = white_noise((6, 8), n_trials=4, seed=seed)
    rate = model.run(stimulus)["rate"].mean("time").transpose("unit", "trial").values
    included = np.ones(48, bool)
    return xr.Dataset({"rate": (("unit", "stimulus"), rate), "included": ("unit", included)})


HYPOTHESIS = Hypothesis(
    id="MINE",
    name="Light drives units",
    claim="Light drives units.",
    family="toy",
    protocol="White noise.",
    statistic="Mean rate.",
    signal="output",
    falsified_if="No rate.",
    observe=observe,
    variables=("rate",),
    controls=(Control(name="dark", statement="No gain.", variant="%s"),),
    reference=Reference(status="computed", source="Here", interval=(0.3, 0.4)),
    expectations={"linear": "+"},
)
'''


@pytest.fixture
def files(tmp_path) -> Path:
    (tmp_path / "linear.py").write_text(MODEL)
    (tmp_path / "dark.py").write_text(MODEL.replace("gain: float = 0.7", "gain: float = 0.1"))
    (tmp_path / "mine.py").write_text(HYPOTHESIS % (tmp_path / "dark.py"))
    return tmp_path


def call(capsys, *arguments) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as ended:
        main([str(one) for one in arguments])
    out, err = capsys.readouterr()
    return ended.value.code, out, err


def test_help_is_light():
    code = (
        "import sys\nfrom pcsim.cli import main\n"
        "try: main(['--help'])\nexcept SystemExit as e: assert e.code == 0\n"
        "heavy = {'torch', 'brian2', 'matplotlib', 'numpy', 'scipy', 'xarray', 'skimage'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
        "import os; assert os.environ['OMP_NUM_THREADS'] == '1'\n"
    )
    environment = {k: v for k, v in os.environ.items() if k != "OMP_NUM_THREADS"}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment
    )
    assert done.returncode == 0, done.stderr
    for command in ("list", "show", "simulate", "test", "run", "report", "check"):
        assert command in done.stdout


def test_threads_that_are_set_stay():
    code = (
        "from pcsim.cli import main\n"
        "try: main(['--help'])\nexcept SystemExit: pass\n"
        "import os; assert os.environ['OMP_NUM_THREADS'] == '3'\n"
    )
    subprocess.run(
        [sys.executable, "-c", code], check=True, env={**os.environ, "OMP_NUM_THREADS": "3"}
    )


def test_list(capsys):
    code, out, _ = call(capsys, "list")
    assert code == 0
    for name in (*catalog.names("circuits"), *catalog.names("analysis"), "RB-cut", "gratings"):
        assert name in out
    assert "RB-cut" not in call(capsys, "list", "circuits")[1]
    assert "trained on white_noise" in call(capsys, "list", "models")[1]
    code, _, err = call(capsys, "list", "circuit")
    assert code == 2
    assert "Did you mean 'circuits'" in err


def test_show_a_circuit(capsys):
    code, out, _ = call(capsys, "show", "rao_ballard_1999")
    assert code == 0
    assert ".. math::" in out
    assert "feedback_gain = 1.0" in out
    assert "Gain of the prediction from level 2" in out
    assert "RB-cut: " in out
    assert "H10 +" in out
    assert call(capsys, "show", "RB")[1] == out


def test_show_a_hypothesis_by_name_and_id(capsys):
    code, out, _ = call(capsys, "show", "end_stopping")
    assert code == 0
    for words in ("claim", "protocol", "falsified if", "control '", "RB + expected to pass"):
        assert words in out
    assert call(capsys, "show", "H10")[1] == out


def test_show_an_experiment_a_file_and_nothing(capsys, files):
    assert "scale quick" in call(capsys, "show", "correspondence")[1]
    shown = call(capsys, "show", "iterative_inference_text")[1]
    assert "widths = ((128, 128),)" in shown
    assert "collections = newsgroups, bbc_news" in shown
    assert "Response to unit luminance." in call(capsys, "show", files / "linear.py")[1]
    code, _, err = call(capsys, "show", "rao_balard_1999")
    assert code == 2
    assert "Did you mean 'rao_ballard_1999'" in err


def test_simulate(capsys, files):
    out = files / "r.nc"
    code, text, err = call(
        capsys, "simulate", files / "linear.py", "--stimulus", "bars", "-o", out,
        "--set", "length=0.25,0.125", "--set", "gain=4.0", "--set", "stimulus.x=0.1",
    )  # fmt: skip
    assert code == 0, err
    responses = open_responses(out)
    assert responses.sizes["trial"] == 2
    assert responses.sizes["unit"] == 48
    # Grey of 0.5 at a gain of 4.
    assert float(responses["rate"].isel(unit=0, trial=0, time=0)) == pytest.approx(2.0)
    assert "2 trials" in text


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--stimulus", "bar"), "Did you mean 'bars'"),
        (("--stimulus", "bars", "--set", "lenght=2"), "Did you mean 'length'"),
        (("--stimulus", "bars", "--set", "x=0.1"), "circuit.x or stimulus.x"),
        (("--stimulus", "bars", "--set", "model.x=0.1"), "prefix 'model'"),
        (("--stimulus", "bars", "--set", "gain=no"), "gain=no, expected a number"),
        (("--stimulus", "bars", "--set", "contrast=no"), "contrast=no, expected a number"),
        (("--stimulus", "bars", "--set", "length"), "Try --set contrast=0.5"),
        (("--stimulus", "video_sequences"), "Add --set path=..."),
        (("--stimulus", "bars", "-o", "r.txt"), "ending in .nc or .zarr"),
    ],
)
def test_simulate_refuses(capsys, files, arguments, words):
    given = arguments if "-o" in arguments else (*arguments, "-o", str(files / "r.nc"))
    code, _, err = call(capsys, "simulate", files / "linear.py", *given)
    assert code == 2
    assert err.startswith("pcsim: ")
    assert words in err
    assert not (files / "r.nc").exists()


def test_test_a_model_of_your_own(capsys, files, monkeypatch):
    monkeypatch.setenv("PCSIM_CACHE", str(files / "cache"))
    given = ("test", files / "mine.py", "--model", files / "linear.py", "--workers", 0)
    code, out, err = call(capsys, *given)
    assert code == 0, err
    assert "MINE" in out
    # White noise around 0.5 at a gain of 0.7 against 0.1: 0.35 within 0.3 to 0.4.
    assert "SUPPORTED" in out
    assert "lies in the reference interval" in out
    assert "test: [13/13]" in err
    code, again, err = call(capsys, *given)
    assert again == out
    assert "13 of 13 pieces are there already" in err
    code, _, err = call(capsys, *given, "--seeds", 2, "--out", files / "own")
    assert "Only 2 replicas" in (files / "own" / "verdicts.csv").read_text()


def test_test_prints_its_own_verdicts_whatever_is_in_the_folder_by_then(capsys, files, monkeypatch):
    def another_test_follows(*arguments, **options):
        run = run_experiment(*arguments, **options)
        (run.folder / "verdicts.csv").write_text("theirs")
        return run

    monkeypatch.setattr("pcsim.cli_battery.run_experiment", another_test_follows)
    given = ("test", files / "mine.py", "--model", files / "linear.py", "--workers", 0)
    code, out, err = call(capsys, *given, "--out", files / "run")
    assert code == 0, err
    assert "SUPPORTED" in out
    assert (files / "run" / "verdicts.csv").read_text() == "theirs"


def test_test_refuses_what_it_does_not_know(capsys, files):
    code, _, err = call(capsys, "test", "end_stoping", "--model", "RB")
    assert code == 2
    assert "Did you mean 'end_stopping'" in err
    code, _, err = call(capsys, "test", "end_stopping", "--model", "RBB", "--out", files / "run")
    assert code == 2
    assert "model 'RBB'" in err
    code, _, err = call(capsys, "test", "end_stopping")
    assert code == 2
    assert "--model" in err


def test_run_and_report(capsys, files):
    out = files / "run"
    given = ("run", "correspondence", "--out", out, "--workers", 0, "--seeds", 3)
    given += ("--set", f"models={files / 'linear.py'}", "--set", f"hypotheses={files / 'mine.py'}")
    code, text, err = call(capsys, *given)
    assert code == 0, err
    assert str(out) in text
    for name in ("verdicts.csv", "figure.pdf", "figure.png", "provenance.json"):
        assert (out / name).is_file()
    assert json.loads((out / "provenance.json").read_text())["seeds"] == [0, 1, 2]
    code, text, err = call(capsys, "report", out)
    assert code == 0, err
    assert "Light drives units" in (out / "report.html").read_text()
    code, _, err = call(capsys, "report", files, "-o", files / "r.html")
    assert code == 2
    assert not (files / "r.html").exists()
    code, _, err = call(capsys, "run", "correspondence", "--out", out, "--set", "model=RB")
    assert code == 2
    assert "Did you mean 'models'" in err


def test_check(capsys, files):
    (files / "broken.py").write_text("X = 1\n")
    code, _, err = call(capsys, "check", files / "broken.py")
    assert code == 2
    assert err.startswith("pcsim: ")
    assert "Traceback" not in err


def test_unknown_commands_and_options(capsys):
    for given in (("simulat",), ("list", "--loud"), ("run",)):
        code, _, err = call(capsys, *given)
        assert code == 2
        assert err.startswith("pcsim: ")
        assert "Traceback" not in err


def test_tracebacks_on_demand(capsys, monkeypatch):
    monkeypatch.setenv("PCSIM_TRACEBACK", "1")
    with pytest.raises(ValueError, match="circuits"):
        main(["list", "circuit"])


def test_an_unexpected_error_is_one_line_too(capsys, monkeypatch):
    monkeypatch.setattr("pcsim.cli_show.listing", lambda room: {}["gone"])
    code, _, err = call(capsys, "list")
    assert code == 2
    assert err == "pcsim: KeyError: 'gone'. This is a bug.\n"


def test_settings():
    assert pairs(["a=1e-3", "b=(1, 2)", "c=None", "d=x=y"]) == {
        "a": 1e-3,
        "b": (1, 2),
        "c": None,
        "d": "x=y",
    }
    assert fitted({"models": "RB", "n": 3}, {"models": ("LN",), "n": 1}) == {
        "models": ("RB",),
        "n": 3,
    }


def test_true_false_and_none_are_read_in_any_case():
    given = ["a=false", "b=TRUE", "c=none", "d=RB,false", "e=falsehood", "f='none'"]
    read = {"a": False, "b": True, "c": None, "d": ("RB", False), "e": "falsehood", "f": "none"}
    assert pairs(given) == read


@pytest.mark.parametrize("default", [True, 3, 0.5])
def test_text_for_a_number_or_a_truth_is_refused(default):
    with pytest.raises(ValueError, match=r"--set: found n=yes, expected (true or false|a number)"):
        fitted({"n": "yes"}, {"n": default})
    assert fitted({"n": None}, {"n": default}) == {"n": None}
    assert fitted({"n": "yes"}, {"n": "no"}) == {"n": "yes"}


def test_hypotheses_by_name_id_and_path():
    assert hypothesis_name("end_stopping") == hypothesis_name("H10") == "end_stopping"
    assert hypothesis_name("./mine.py") == "./mine.py"


def test_table_of_verdicts():
    one = Verdict(
        hypothesis="H10", version=1, family="V1", model="RB", verdict=Outcome.SUPPORTED,
        effect=0.4, low=0.3, high=0.5, control="LN", control_effect=0.1, control_low=0.0,
        control_high=0.2, p_holm=0.0321, n_included=84, n_total=96, n_replicas=3, reason="There.",
        expectation="+",
    )  # fmt: skip
    head, row, reason = table([one]).splitlines()
    assert row.split()[:3] == ["H10", "RB", "SUPPORTED"]
    assert "0.4 [0.3, 0.5]" in row
    assert "LN 0.1 [0, 0.2]" in row
    assert "84 of 96, 3 replicas" in row
    assert head.index("expected") == row.index("+")
    assert reason.strip() == "There."
