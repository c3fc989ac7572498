"""NWB: labels of any name, windows of their own and late stimuli come back as they were."""

from __future__ import annotations

import warnings
from datetime import UTC, datetime

import numpy as np
import pytest

pytest.importorskip("pynwb", reason="NWB files need pynwb: pip install 'pcsim[nwb]'")

from pcsim.neural import (
    make_spikes,
    read_nwb,
    responses_from_array,
    spike_times,
    validate_nwb,
    write_nwb,
)
from pcsim.responses import make_responses, stimulus_array

NAMES = ["id", "description", "tags", "timeseries", "start_time", "onset_time", "spike_times"]
NAMES += ["a/b", "a:b", "electrodes", "colnames", "name", "spikes_start_time", "label_id", "data"]


def assert_same(back, spikes):
    """Require the same labels of the same kind; times pass through the clock of the session."""
    assert set(back.coords) == set(spikes.coords)
    for name in spikes.coords:
        assert back[name].dims == spikes[name].dims
        assert back[name].dtype.kind == spikes[name].dtype.kind
        if name not in ("start", "stop"):
            np.testing.assert_array_equal(back[name], spikes[name])
    for name in ("start", "stop", "spike_time"):
        np.testing.assert_allclose(back[name], spikes[name], rtol=0, atol=1e-12)
    for name in ("spike_trial", "spike_unit"):
        np.testing.assert_array_equal(back[name], spikes[name])


def two_by_two(**labels):
    return make_spikes([[[0.01, 0.03], [0.02]], [[0.04], [0.02]]], stop=0.1, **labels)


@pytest.mark.parametrize("values", [[3.5, 4.5], ["left", "right"]])
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dim", ["units", "trial"])
def test_a_label_of_any_name_comes_back(tmp_path, dim, name, values):
    # A label with the name that its neighbour's column would get must not meet it.
    spikes = two_by_two(**{dim: {name: values, "label_a_b": [7, 8]}})
    back = read_nwb(write_nwb(tmp_path / "s.nwb", spikes=spikes)).spikes
    assert_same(back, spikes)


@pytest.mark.parametrize("name", ["id", "description", "a/b", "colnames"])
def test_labels_of_rates_come_back(tmp_path, name):
    rates = responses_from_array(
        np.arange(12.0).reshape(2, 3, 2), bin_width=0.1, units={name: [5, 9]}
    )
    back = read_nwb(write_nwb(tmp_path / "s.nwb", responses=rates)).responses
    assert back[name].dims == ("unit",)
    np.testing.assert_array_equal(back[name], [5, 9])
    np.testing.assert_array_equal(back["rate"], rates["rate"])


def test_a_label_and_its_index_are_two_labels(tmp_path):
    spikes = two_by_two(trial={"cue": [0.3, 0.7], "cue_index": [1, 2]})
    back = read_nwb(write_nwb(tmp_path / "s.nwb", spikes=spikes)).spikes
    assert_same(back, spikes)


def test_trials_of_rates_keep_a_start_and_a_stop(tmp_path):
    rates = responses_from_array(
        np.ones((2, 3, 2)), bin_width=0.1, trial={"start": [1.0, 2.0], "stop": [4.0, 7.0]}
    )
    back = read_nwb(write_nwb(tmp_path / "s.nwb", responses=rates)).responses
    np.testing.assert_array_equal([back["start"], back["stop"]], [[1.0, 2.0], [4.0, 7.0]])


def test_files_with_such_columns_are_valid(tmp_path, rng):
    spikes = two_by_two(trial={name: [0.3, 0.7] for name in NAMES})
    path = write_nwb(tmp_path / "s.nwb", spikes=spikes, stimulus=movie(rng))
    found = [m for m in validate_nwb(path) if not m.startswith("BEST_PRACTICE")]
    assert found == []
    assert_same(read_nwb(path).spikes, spikes)


def movie(rng, **labels):
    return stimulus_array(
        rng.uniform(size=(2, 5, 4, 3)), frame_duration=0.1, px_per_deg=2.0, **labels
    )


def test_scalars_of_a_stimulus_come_back(tmp_path, rng):
    stimulus = movie(rng, eye_of_trial=["l", "r"])
    stimulus = stimulus.assign_coords(eye="left = a b", gain=0.7, repeats=4, dark=False)
    back = read_nwb(write_nwb(tmp_path / "s.nwb", stimulus=stimulus)).stimulus
    assert back.drop_attrs().identical(stimulus.drop_attrs())
    assert back["repeats"].dtype.kind == "i"
    assert back["dark"].dtype.kind == "b"


@pytest.mark.parametrize("first", [1, 2, 4])
def test_a_late_stimulus_stays_late(tmp_path, rng, first):
    late = movie(rng).isel(time=slice(first, None))
    rates = make_responses(
        np.ones((2, 5, 2)),
        time=0.1 * np.arange(1, 6),
        units={"population": "output", "level": 0},
        trial=late,
    )
    for parts in ({}, {"responses": rates}):
        back = read_nwb(write_nwb(tmp_path / "s.nwb", stimulus=late, **parts))
        expected = 0.1 * np.arange(first, 5)
        np.testing.assert_allclose(back.stimulus["time"], expected, rtol=0, atol=1e-12)
        np.testing.assert_array_equal(back.stimulus, late)
    np.testing.assert_allclose(back.responses["time"], 0.1 * np.arange(1, 6), rtol=0, atol=1e-12)


@pytest.mark.parametrize(("start", "stop"), [(0.0, 0.1), (-0.2, 0.3), ([0.0, 0.05], [0.1, 0.9])])
def test_parts_of_unequal_span_come_back_with_their_own(tmp_path, rng, start, stop):
    times = [[[0.06, 0.08], [0.07]], [[0.09], []]]
    spikes = make_spikes(times, start=start, stop=stop, trial={"condition": "stimulus"})
    path = write_nwb(tmp_path / "s.nwb", spikes=spikes, stimulus=movie(rng))
    back = read_nwb(path)
    assert_same(back.spikes, spikes)
    np.testing.assert_allclose(back.stimulus["time"], 0.1 * np.arange(5), rtol=0, atol=1e-12)


def laboratory(path, on_trials=(), on_units=(), of_units=(100, 101)):
    """Write a session of a laboratory with columns of these names, 10 to 12 on trials."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import pynwb

        file = pynwb.NWBFile("a session", "id", datetime(2020, 1, 1, tzinfo=UTC))
        for name in on_trials:
            file.add_trial_column(name, "of a laboratory")
        for name in on_units:
            file.add_unit_column(name, "of a laboratory")
        for k in range(3):
            own = dict.fromkeys(on_trials, k + 10)
            file.add_trial(start_time=float(k), stop_time=k + 0.5, **own)
        for unit in range(2):
            own = dict.fromkeys(on_units, of_units[unit])
            file.add_unit(spike_times=np.array([0.1, 0.2, 1.1, 2.2]) + 0.01 * unit, **own)
        with pynwb.NWBHDF5IO(str(path), "w") as io:
            io.write(file)
    return path


@pytest.mark.parametrize(
    "name", ["trial", "unit", "time", "start", "stop", "spike", "spike_time", "level", "area"]
)
def test_columns_of_trials_with_taken_names_are_renamed(tmp_path, name):
    spikes = read_nwb(laboratory(tmp_path / "l.nwb", on_trials=[name])).spikes
    np.testing.assert_array_equal(spikes[f"trial_{name}"], [10, 11, 12])
    np.testing.assert_array_equal(spikes["trial"], [0, 1, 2])
    np.testing.assert_array_equal(spikes["unit"], [0, 1])
    np.testing.assert_array_equal(spikes["level"], [0, 0])
    assert [[t.size for t in row] for row in spike_times(spikes)] == [[2, 2], [1, 1], [1, 1]]


@pytest.mark.parametrize("name", ["trial", "unit", "time", "stop", "condition"])
def test_columns_of_units_with_taken_names_are_renamed(tmp_path, name):
    spikes = read_nwb(laboratory(tmp_path / "l.nwb", on_units=[name])).spikes
    np.testing.assert_array_equal(spikes[f"unit_{name}"], [100, 101])
    assert spikes["condition"].dims == ("trial",)


def test_a_column_of_both_tables_is_kept_twice(tmp_path):
    path = laboratory(tmp_path / "l.nwb", ["location", "trial_location"], ["location"])
    spikes = read_nwb(path).spikes
    np.testing.assert_array_equal(spikes["location"], [100, 101])
    for name in ("trial_location", "trial_trial_location"):
        np.testing.assert_array_equal(spikes[name], [10, 11, 12])


def test_contents_that_are_odd_are_not_called_damaged(tmp_path, refused):
    path = laboratory(tmp_path / "l.nwb", on_units=["level"], of_units=["deep", "high"])
    message = refused(lambda: read_nwb(path))
    assert "contents that cannot be read" in message
    assert "damaged" not in message


@pytest.mark.parametrize("name", ["location", "level", "area"])
def test_a_label_on_trial_and_unit_is_refused(refused, name):
    units = {"population": "output", "level": 0, "location": ["V1", "V2"]}
    trial = {"condition": ["a"], name: ["left"]}
    for make in (
        lambda: make_spikes([[[0.01], [0.02]]], stop=0.1, units=units, trial=trial),
        lambda: make_responses(np.ones((1, 1, 2)), time=[0.1], units=units, trial=trial),
    ):
        assert f"label '{name}' on trial and on unit" in refused(make)


@pytest.mark.parametrize(("dim", "name"), [("trial", "time"), ("trial", "unit"), ("unit", "time")])
def test_a_label_with_the_name_of_a_dimension_is_refused(refused, dim, name):
    units, trial = {"population": "output", "level": 0}, {"condition": ["a", "b"]}
    {"trial": trial, "unit": units}[dim][name] = [5, 6]
    spikes = [[[0.01], [0.02]], [[0.01], [0.02]]]
    for make in (
        lambda: make_spikes(spikes, stop=0.1, units=units, trial=trial),
        lambda: make_responses(np.ones((2, 1, 2)), time=[0.1], units=units, trial=trial),
    ):
        assert f"call it {dim}_{name}" in refused(make)


def test_spikes_refuse_a_second_start(refused):
    message = refused(lambda: two_by_two(trial={"start": [0.5, 0.7]}))
    assert "a label 'start' on trial" in message


def test_numbers_of_trials_and_units_are_still_labels():
    given = make_responses(
        np.ones((2, 1, 2)),
        time=[0.1],
        units={"population": "output", "level": 0, "unit": [7, 9]},
        trial={"condition": ["a", "b"], "trial": [5, 6]},
    )
    assert (given["trial"].values.tolist(), given["unit"].values.tolist()) == ([5, 6], [7, 9])
