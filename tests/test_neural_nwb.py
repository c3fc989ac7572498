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


def test_what_is_written_is_valid(written):
    severe = [m for m in validate_nwb(written) if not m.startswith("BEST_PRACTICE")]
    assert severe == []


def test_the_inspector_is_heard_where_it_is_installed(written):
    pytest.importorskip("nwbinspector", reason="nwbinspector is not installed")
    critical = [m for m in validate_nwb(written) if m.startswith(("CRITICAL", "ERROR"))]
    assert critical == []


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
    assert validate_nwb(path) == []


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
    assert validate_nwb(path) == []


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
