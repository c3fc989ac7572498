"""NWB: what is written is valid and comes back, and what is broken is refused."""

from __future__ import annotations

import subprocess
import sys
import warnings
from datetime import UTC, datetime

import numpy as np
import pytest

pytest.importorskip("pynwb", reason="NWB files need pynwb: pip install 'pcsim[nwb]'")

from pcsim.neural import (
    bin_spikes,
    make_spikes,
    read_nwb,
    spike_times,
    spikes_from_rates,
    validate_nwb,
    write_nwb,
)
from pcsim.responses import make_responses, select, stimulus_array


@pytest.fixture
def simulated(rng):
    """Two trials, three units of two levels, an image sequence: spikes, responses, stimulus."""
    stimulus = stimulus_array(
        rng.uniform(size=(2, 5, 4, 3)),
        frame_duration=0.02,
        px_per_deg=16.0,
        condition=["left", "right"],
        contrast=[0.3, 0.7],
    )
    responses = make_responses(
        rng.uniform(20.0, 90.0, (2, 10, 3)),
        time=0.01 * np.arange(1, 11),
        units={"population": ["input", "error", "error"], "level": [0, 1, 1], "area": "V1"},
        trial=stimulus,
    )
    responses["rate"].attrs["units"] = "Hz"
    return spikes_from_rates(responses, seed=2, refractory=0.002), responses, stimulus


@pytest.fixture
def written(simulated, tmp_path):
    spikes, responses, stimulus = simulated
    return write_nwb(tmp_path / "s.nwb", spikes=spikes, responses=responses, stimulus=stimulus)


def laboratory_file(path, *, trials=None, spikes=((0.5, 1.5, 2.5),), with_units=True):
    """Write an NWB file as a laboratory would, without any of our labels."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import pynwb

        file = pynwb.NWBFile("a session", "id", datetime(2020, 1, 1, tzinfo=UTC))
        for times in spikes if with_units else ():
            file.add_unit(spike_times=np.asarray(times, float))
        for start, stop in trials or ():
            file.add_trial(start_time=start, stop_time=stop)
        with pynwb.NWBHDF5IO(str(path), "w") as io:
            io.write(file)
    return path


ORIENTATION = "[check_data_orientation]"
"""The inspector takes the longest axis for time: wrong where units or pixels outnumber samples."""


def severe(path, *, allowed=()):
    """Return findings of more weight than a suggestion, but for checks that are allowed to fail.

    Suggestions stay: a simulation has no date, experimenter or institution.
    """
    found = [m for m in validate_nwb(path) if not m.startswith("BEST_PRACTICE_SUGGESTION")]
    return [m for m in found if not m.endswith(tuple(allowed))] if allowed else found


def needs_inspector():
    pytest.importorskip("nwbinspector", reason="needs the inspector: pip install nwbinspector")


def one_trial(time, rng, n_units=2):
    rate = rng.uniform(size=(1, len(time), n_units))
    units = {"population": "error", "level": 1, "area": "V1"}
    return make_responses(rate, time=time, units=units, trial={"condition": ["noise"]})


def test_what_is_written_is_valid(written):
    assert severe(written) == []


def test_the_inspector_is_heard_where_it_is_installed(written):
    import h5py

    needs_inspector()
    with h5py.File(written, "a") as file:
        del file["general/subject"]
        file["units/spike_times"].attrs["resolution"] = np.nan
    checks = [m.split()[-1] for m in severe(written)]
    assert sorted(checks) == ["[check_subject_exists]", "[check_units_resolution_is_set]"]


def test_every_mix_of_parts_passes_the_inspector(simulated, tmp_path):
    spikes, responses, stimulus = simulated
    parts = {"spikes": spikes, "responses": responses, "stimulus": stimulus}
    for name, part in parts.items():
        for trials in (part, part.isel(trial=[0])) if name != "spikes" else (part,):
            assert severe(write_nwb(tmp_path / "s.nwb", **{name: trials})) == []


def test_only_the_guess_of_orientation_is_wrong_for_many_units(tmp_path, rng):
    needs_inspector()
    many = one_trial(np.array([0.01, 0.02, 0.03]), rng, n_units=50)
    path = write_nwb(tmp_path / "s.nwb", responses=many)
    assert [m.split()[-1] for m in severe(path)] == [ORIENTATION]
    assert severe(path, allowed=[ORIENTATION]) == []
    np.testing.assert_array_equal(read_nwb(path).responses.rate, many.rate)


def series(path, name="processing/pcsim/rate"):
    """Return the clock of a series as it stands in the file: start and rate, or times."""
    import h5py

    with h5py.File(path) as file:
        group = file[name]
        if "timestamps" in group:
            return group["timestamps"][:]
        return group["starting_time"][()], group["starting_time"].attrs["rate"]


def test_regular_samples_have_a_start_and_a_rate(tmp_path, rng):
    time = 0.0156 * np.arange(1, 3001)
    path = write_nwb(tmp_path / "s.nwb", responses=one_trial(time, rng))
    start, rate = series(path)
    assert start == 0.0156
    assert rate == pytest.approx(1 / 0.0156, rel=1e-13)
    np.testing.assert_allclose(read_nwb(path).responses.time, time, rtol=0, atol=1e-12)


def test_the_pause_between_trials_makes_times_irregular(written):
    # Two trials of 0.1 s in bins of 0.01 s, a second apart; times are ends of bins.
    ends = 0.01 * np.arange(1, 11)
    np.testing.assert_allclose(series(written), [*ends, *(1.1 + ends)], atol=1e-12)


def test_trials_of_one_sample_are_regular_and_single_samples_are_not(tmp_path):
    # Frames of 0.3 s with a second between them: one every 1.3 s.
    three = stimulus_array(np.ones((3, 1, 2)), frame_duration=0.3)
    path = write_nwb(tmp_path / "a.nwb", stimulus=three)
    start, rate = series(path, "stimulus/presentation/stimulus")
    assert (start, rate) == (0.0, pytest.approx(1 / 1.3, rel=1e-13))
    assert read_nwb(path).stimulus.identical(three)
    one = stimulus_array(np.ones((1, 1, 2)), frame_duration=0.3)
    path = write_nwb(tmp_path / "b.nwb", stimulus=one)
    assert series(path, "stimulus/presentation/stimulus").tolist() == [0.0]
    assert read_nwb(path).stimulus.identical(one)


def test_a_jitter_of_ten_nanoseconds_is_kept(tmp_path, rng):
    time = 0.01 * np.arange(1, 101)
    time[50] += 1e-8
    path = write_nwb(tmp_path / "s.nwb", responses=one_trial(time, rng))
    np.testing.assert_allclose(series(path), time, rtol=0, atol=1e-15)
    np.testing.assert_allclose(read_nwb(path).responses.time, time, rtol=0, atol=1e-15)


def test_the_resolution_is_that_of_the_numbers_unless_given(tmp_path):
    spikes = make_spikes([[[0.1]]], stop=700.0)
    back = read_nwb(write_nwb(tmp_path / "a.nwb", spikes=spikes)).spikes
    # From 512 to 1024, floats of 53 bits are 2**-43 apart.
    assert back.attrs["resolution"] == 2.0**-43
    sampled = spikes.assign_attrs(resolution=1 / 30000)
    path = write_nwb(tmp_path / "b.nwb", spikes=sampled)
    assert read_nwb(path).spikes.attrs["resolution"] == 1 / 30000
    assert severe(path) == []


def subject_of(path):
    import h5py

    with h5py.File(path) as file:
        group = file.get("general/subject", {})
        return {name: group[name].asstr()[()] for name in group}


def test_the_subject_of_a_model_is_marked_as_simulated(written):
    subject = subject_of(written)
    assert subject["subject_id"] == "simulated"
    assert "No animal" in subject["description"]
    # NCBI taxonomy 32630: synthetic construct.
    assert subject["species"].endswith("NCBITaxon_32630")


def test_the_subject_of_a_file_read_is_written_again(simulated, written, tmp_path):
    again = write_nwb(tmp_path / "again.nwb", spikes=read_nwb(written).spikes)
    assert subject_of(again) == subject_of(written)
    mouse = {"subject_id": "m1", "species": "Mus musculus", "sex": "F", "age": "P90D"}
    first = write_nwb(tmp_path / "m.nwb", spikes=simulated[0], subject=mouse)
    second = write_nwb(tmp_path / "m2.nwb", spikes=read_nwb(first).spikes)
    for path in (first, second):
        found = subject_of(path)
        assert found.pop("age") == "P90D"
        assert found == {name: text for name, text in mouse.items() if name != "age"}


def test_a_recording_is_never_called_simulated(tmp_path):
    import h5py

    lab = laboratory_file(tmp_path / "lab.nwb")
    cited = make_spikes([[[0.1]]], stop=0.5, attrs={"citation": "Kara et al. (2000)"})
    for spikes, said in ((read_nwb(lab).spikes, "A recording"), (cited, "Kara et al. (2000)")):
        path = write_nwb(tmp_path / "s.nwb", spikes=spikes)
        assert subject_of(path) == {}
        with h5py.File(path) as file:
            assert file["session_description"].asstr()[()] == said
            assert "simulation" not in file["general/keywords"].asstr()[:].tolist()


def test_all_three_come_back(written, simulated):
    spikes, responses, stimulus = simulated
    back = read_nwb(written)
    for own, given in zip(spike_times(back.spikes), spike_times(spikes), strict=True):
        for times, expected in zip(own, given, strict=True):
            np.testing.assert_allclose(times, expected, atol=1e-12)
    assert back.spikes.attrs["spikes_outside"] == 0
    np.testing.assert_array_equal(back.responses.rate, responses.rate)
    np.testing.assert_allclose(back.responses.time, responses.time, atol=1e-12)
    assert back.responses.rate.attrs["units"] == "Hz"
    for name in ("condition", "contrast", "population", "level", "area"):
        assert (back.responses[name] == responses[name]).all()
        if name in spikes.coords:
            assert (back.spikes[name] == spikes[name]).all()
    assert back.stimulus.identical(stimulus)


def test_binning_before_and_after_the_file_gives_the_same(written, simulated):
    before, after = (bin_spikes(s, 0.02) for s in (simulated[0], read_nwb(written).spikes))
    np.testing.assert_array_equal(before.spike_count, after.spike_count)


def test_numbers_of_units_and_trials_survive(simulated, tmp_path):
    _, responses, _ = simulated
    part = select(responses, level=1, condition="right")
    spikes = spikes_from_rates(part, seed=1)
    path = write_nwb(tmp_path / "s.nwb", spikes=spikes, responses=part)
    back = read_nwb(path)
    assert back.spikes.unit.values.tolist() == [1, 2] == back.responses.unit.values.tolist()
    assert back.spikes.trial.values.tolist() == [1] == back.responses.trial.values.tolist()
    assert back.stimulus is None


def test_spikes_alone_features_alone_and_silent_units(tmp_path):
    spikes = make_spikes([[[0.1], []], [[], []]], start=-0.2, stop=[0.5, 0.9])
    back = read_nwb(write_nwb(tmp_path / "a.nwb", spikes=spikes))
    assert back.responses is None
    assert [[t.size for t in row] for row in spike_times(back.spikes)] == [[1, 0], [0, 0]]
    np.testing.assert_allclose(back.spikes.stop, [0.5, 0.9], atol=1e-12)
    np.testing.assert_allclose(back.spikes.start, -0.2, atol=1e-12)
    tones = stimulus_array(np.ones((1, 4, 2)), frame_duration=0.05)
    path = write_nwb(tmp_path / "b.nwb", stimulus=tones)
    assert read_nwb(path).stimulus.identical(tones)
    assert severe(path) == []


def test_the_session_begins_at_0_and_trials_do_not_overlap(tmp_path):
    import h5py

    spikes = make_spikes([[[-0.1]], [[0.3]]], start=-0.2, stop=[0.5, 0.9])
    with h5py.File(write_nwb(tmp_path / "a.nwb", spikes=spikes)) as file:
        table = file["intervals/trials"]
        start, stop, onset = (table[f"{n}_time"][:] for n in ("start", "stop", "onset"))
        times = file["units/spike_times"][:]
    assert start[0] == 0.0
    assert stop[0] < start[1]
    np.testing.assert_allclose(stop - start, [0.7, 1.1])
    np.testing.assert_allclose(onset - start, 0.2)
    np.testing.assert_allclose(times - onset, [-0.1, 0.3])


def test_subject_and_description_are_kept(simulated, tmp_path):
    subject = {"subject_id": "m1", "species": "Mus musculus", "sex": "U", "age": "P90D"}
    path = write_nwb(tmp_path / "s.nwb", spikes=simulated[0], subject=subject)
    assert subject_of(path) == subject
    assert severe(path) == []


def test_a_laboratory_file_is_cut_into_its_trials(tmp_path):
    path = laboratory_file(
        tmp_path / "lab.nwb", trials=[(0.0, 1.0), (2.0, 3.0)], spikes=[(0.5, 1.5, 2.25), ()]
    )
    spikes = read_nwb(path, population="latent", level=2, area="V1").spikes
    assert [times.tolist() for times, _ in spike_times(spikes)] == [[0.5], [0.25]]
    assert spikes.attrs["spikes_outside"] == 1
    counted = bin_spikes(spikes, 0.5)
    assert counted.area.values.tolist() == ["V1", "V1"]
    assert set(counted.population.values) == {"latent"}


def test_a_spike_at_the_very_ends_of_a_trial_is_kept(tmp_path):
    times = [[[0.0, 0.1]], [[0.05, 0.1]]]
    spikes = make_spikes(times, stop=0.1)
    back = read_nwb(write_nwb(tmp_path / "s.nwb", spikes=spikes)).spikes
    for row, found in zip(times, spike_times(back), strict=True):
        np.testing.assert_allclose(found[0], row[0], atol=1e-9)
    trials = [(0.0, 1.0), (1.0, 2.0), (3.0, 4.0)]
    path = laboratory_file(tmp_path / "lab.nwb", trials=trials, spikes=((1.0, 2.0, 3.0, 4.0),))
    found = [row[0].tolist() for row in spike_times(read_nwb(path).spikes)]
    assert found == [[], [0.0, 1.0], [0.0, 1.0]]


def test_a_file_without_trials_is_one_long_trial(tmp_path):
    spikes = read_nwb(laboratory_file(tmp_path / "lab.nwb")).spikes
    assert spikes.sizes["trial"] == 1
    assert spike_times(spikes)[0][0].tolist() == [0.5, 1.5, 2.5]


def test_milliseconds_in_a_laboratory_file_are_found(tmp_path, rng, refused):
    times = np.cumsum(2.0 + rng.exponential(30.0, 400))
    path = laboratory_file(tmp_path / "lab.nwb", spikes=[times])
    assert "milliseconds" in refused(read_nwb, path)
    back = read_nwb(path, time_unit="ms").spikes
    np.testing.assert_allclose(spike_times(back)[0][0], times / 1000)
    few = laboratory_file(tmp_path / "few.nwb", spikes=[(510.0, 900.0)], trials=[(0.0, 1.0)])
    assert "none of them within" in refused(read_nwb, few)


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.99])
def test_a_truncated_file_is_refused(written, refused, share):
    whole = written.read_bytes()
    written.write_bytes(whole[: int(share * len(whole))])
    for function in (read_nwb, validate_nwb):
        message = refused(function, written)
        assert "cannot be read" in message
        assert "get it again" in message


def test_damaged_bytes_never_pass_silently_or_crash(written, simulated, rng):
    whole = bytearray(written.read_bytes())
    expected = spike_times(simulated[0])
    for _ in range(10):
        damaged = whole.copy()
        at = int(rng.integers(0, len(whole) - 512))
        damaged[at : at + 512] = rng.bytes(512)
        written.write_bytes(damaged)
        try:
            back = read_nwb(written)
        except ValueError as error:
            assert ", expected " in str(error)  # noqa: PT017
        else:
            # The damage hit what is not read, or values that no checksum guards.
            assert len(spike_times(back.spikes)) == len(expected)


def test_files_of_another_kind_are_refused(tmp_path, refused):
    import h5py

    assert "no such file" in refused(read_nwb, tmp_path / "none.nwb")
    text = tmp_path / "text.nwb"
    text.write_text("not HDF5")
    assert "cannot be read" in refused(read_nwb, text)
    plain = tmp_path / "plain.nwb"
    with h5py.File(plain, "w") as file:
        file["x"] = np.zeros(3)
    assert "an NWB file" in refused(read_nwb, plain)


def test_files_with_nothing_to_read_are_refused(tmp_path, refused):
    empty = laboratory_file(tmp_path / "empty.nwb", with_units=False)
    assert "at least one" in refused(read_nwb, empty)
    bad = laboratory_file(tmp_path / "nan.nwb", spikes=[(0.1, np.nan)])
    assert "NaN" in refused(read_nwb, bad)


def test_what_cannot_be_written_is_refused(simulated, tmp_path, refused):
    spikes, responses, _ = simulated
    assert "'.nwb'" in refused(write_nwb, tmp_path / "s.nc", spikes=spikes)
    assert "nothing to write" in refused(write_nwb, tmp_path / "s.nwb")
    other = responses.isel(trial=[0])
    message = refused(write_nwb, tmp_path / "s.nwb", spikes=spikes, responses=other)
    assert "same trials" in message
    local = datetime(2020, 1, 1)
    assert "time zone" in refused(write_nwb, tmp_path / "s.nwb", spikes=spikes, session_start=local)
    assert list(tmp_path.iterdir()) == []


def test_importing_the_room_imports_no_pynwb():
    code = "import sys, pcsim.neural; print('pynwb' in sys.modules, 'h5py' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]
