"""Faults of recordings: each ends in a clear error or in an exclusion that is counted.

Every fault is planted in a known number of places, and the number is what must be reported.
"""

from __future__ import annotations

import warnings
from datetime import UTC, datetime

import numpy as np
import pytest

from pcsim.neural import (
    align_spikes,
    bin_spikes,
    exclude_units,
    exclusions,
    make_spikes,
    read_nwb,
    responses_from_array,
    spike_times,
    write_nwb,
)
from pcsim.responses import make_responses, open_responses, save

MANY = 400
"""Spikes of a unit whose unit of time can be told."""


def session(path, trains, trials, *, observed=None, onset=None):
    """Write an NWB file as a laboratory would: trains in seconds, trials as (start, stop)."""
    pynwb = pytest.importorskip("pynwb", reason="NWB files need pynwb: pip install 'pcsim[nwb]'")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        file = pynwb.NWBFile("a session", "id", datetime(2020, 1, 1, tzinfo=UTC))
        for row, times in enumerate(trains):
            own = {} if observed is None else {"obs_intervals": np.asarray(observed[row], float)}
            file.add_unit(spike_times=np.asarray(times, float), **own)
        if onset is not None:
            file.add_trial_column("onset_time", "zero")
        for row, (start, stop) in enumerate(trials):
            own = {} if onset is None else {"onset_time": onset[row]}
            file.add_trial(start_time=float(start), stop_time=float(stop), **own)
        with pynwb.NWBHDF5IO(str(path), "w") as io:
            io.write(file)
    return path


def numbers(spikes):
    """Return how many spikes each trial and unit has."""
    return [[times.size for times in row] for row in spike_times(spikes)]


# NaN bins


@pytest.mark.parametrize(("missing", "axis"), [("drop_trials", 0), ("drop_units", 2)])
def test_nan_bins_leave_out_whole_trials_or_units_and_nothing_else(rng, missing, axis):
    count = rng.poisson(2.0, (12, 5, 9)).astype(float)
    holes = np.zeros(count.shape, bool)
    holes[[1, 1, 4], [0, 3, 2], [2, 2, 7]] = True
    kept = responses_from_array(
        np.where(holes, np.nan, count), bin_width=0.05, start=-0.1, missing=missing
    )
    whole = ~holes.any(axis=tuple({0, 1, 2} - {axis}))
    assert (~whole).sum() == 2
    np.testing.assert_array_equal(kept.spike_count, np.compress(whole, count, axis=axis))
    dim = "trial" if axis == 0 else "unit"
    assert kept[dim].values.tolist() == np.flatnonzero(whole).tolist()
    assert exclusions(kept) == {"nan_bins": 3, f"nan_{dim}s": 2}


def test_nan_bins_are_refused_unless_one_says_what_to_do(rng, refused):
    count = rng.poisson(2.0, (4, 5, 3)).astype(float)
    count[[0, 2], [1, 1], [0, 2]] = np.nan
    message = refused(responses_from_array, count, bin_width=0.05)
    assert "2 of 60 bins NaN, in 2 of 4 trials" in message
    count[:, 0, 1] = np.nan
    message = refused(responses_from_array, count, bin_width=0.05, missing="drop_trials")
    assert "in 4 of 4 trials, expected some whole trials" in message
    assert "Did you mean" in refused(
        responses_from_array, count, bin_width=0.05, missing="drop_trial"
    )


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_rates_of_a_file_that_are_no_numbers_are_refused(tmp_path, refused, bad):
    pytest.importorskip("pynwb", reason="NWB files need pynwb: pip install 'pcsim[nwb]'")
    import h5py

    responses = make_responses(
        np.full((2, 4, 3), 20.0),
        time=0.01 * np.arange(1, 5),
        units={"population": ["output"] * 3, "level": 2, "area": "V1"},
        trial={"condition": ["a", "b"]},
    )
    path = write_nwb(tmp_path / "s.nwb", responses=responses)
    with h5py.File(path, "r+") as file:
        file["processing/pcsim/rate/data"][3, 1] = bad
    assert "NaN" in refused(read_nwb, path)


# Trials of unequal length


def test_unequal_trials_are_counted_and_no_spike_is_lost_sight_of(rng):
    stop = np.array([0.5, 0.8, 0.5, 1.1, 0.6])
    trains = [[np.sort(rng.uniform(0.0, end, 40)) for _ in range(3)] for end in stop]
    cut = bin_spikes(make_spikes(trains, stop=stop), 0.1, unequal="shortest")
    beyond = sum(int((times >= 0.5).sum()) for row in trains for times in row)
    assert cut.sizes["time"] == 5
    assert exclusions(cut) == {"cut_trials": 3, "spikes_outside": beyond}
    assert cut.spike_count.sum() + beyond == 5 * 3 * 40
    assert cut.attrs["seconds_cut"] == pytest.approx(0.3 + 0.6 + 0.1)


def test_trials_that_share_no_time_are_refused(refused):
    spikes = make_spikes([[[0.1]], [[0.9]]], start=[0.0, 0.6], stop=[0.5, 1.0])
    assert "share no time" in refused(bin_spikes, spikes, 0.1, unequal="shortest")
    assert "0.4 to 0.5 s" in refused(bin_spikes, spikes, 0.1)


def test_equal_trials_leave_nothing_out():
    assert exclusions(bin_spikes(make_spikes([[[0.1]], [[0.2]]], stop=0.5), 0.1)) == {}


# Silent units


def test_silent_and_slow_units_and_rare_trials_are_counted_together():
    count = np.zeros((5, 10, 6))
    count[:, :, 0] = 3.0
    count[0, 0, 1] = 1.0  # 1 spike in 5 trials of 1 s: 0.2 Hz
    count[:, 4, 2] = 1.0  # 1 Hz
    trial = {"condition": ["a", "a", "b", "b", "c"]}
    recording = responses_from_array(count, bin_width=0.1, trial=trial)
    kept = exclude_units(recording, min_rate=0.7, min_trials=2)
    assert kept.unit.values.tolist() == [0, 2]
    assert kept.trial.values.tolist() == [0, 1, 2, 3]
    assert exclusions(kept) == {"silent_units": 3, "slow_units": 1, "rare_trials": 1}


def test_a_recording_of_silent_units_is_refused(refused):
    silent = responses_from_array(np.zeros((2, 3, 4)), bin_width=0.1)
    assert "4 units, none above 0 Hz" in refused(exclude_units, silent)
    lawful = responses_from_array(np.ones((2, 3, 4)), bin_width=0.1)
    for wrong in (0, 1.5, "two"):
        assert "min_trials" in refused(exclude_units, lawful, min_trials=wrong)


# Another unit of time


@pytest.fixture
def train(rng):
    """Spikes in seconds, at about 30 Hz, none closer than 2 ms."""
    return np.cumsum(0.002 + rng.exponential(0.03, MANY))


def test_milliseconds_taken_for_seconds_are_refused(train, tmp_path, refused):
    end = float(train[-1])
    assert "milliseconds" in refused(make_spikes, [[1e3 * train]], stop=1e3 * end)
    assert "milliseconds" in refused(make_spikes, [[1e3 * train]], stop=end)
    whole = make_spikes([[train]], stop=end)
    assert "seconds" in refused(align_spikes, whole, [1e3, 2e3], window=(0.0, 0.5))
    assert "seconds" in refused(align_spikes, whole, [1.0, 2.0], window=(0.0, 500.0))
    trials = [(k, k + 0.5) for k in range(int(end))]
    path = session(tmp_path / "ms.nwb", [1e3 * train], trials)
    assert "pass time_unit='ms'" in refused(read_nwb, path)
    mended = read_nwb(path, time_unit="ms").spikes
    right = read_nwb(session(tmp_path / "s.nwb", [train], trials)).spikes
    assert numbers(mended) == numbers(right)


def test_trials_in_milliseconds_beside_spikes_in_seconds_are_refused(train, tmp_path, refused):
    trials = [(1e3 * k, 1e3 * k + 500) for k in range(12)]
    message = refused(read_nwb, session(tmp_path / "a.nwb", [train], trials))
    assert "11 of 12 trials that begin after the last spike" in message
    assert "times of trials in milliseconds" in message


@pytest.mark.parametrize("scale", [1e3, 1e6])
def test_seconds_taken_for_something_smaller_are_refused(train, refused, scale):
    unit = {1e3: "ms", 1e6: "us"}[scale]
    message = refused(make_spikes, [[train]], stop=float(train[-1]), time_unit=unit)
    assert f"not in {unit}" in message


def test_bins_in_milliseconds_are_refused(rng, refused):
    count = (rng.uniform(size=(4, 500, 3)) < 0.06).astype(float)
    message = refused(responses_from_array, count, bin_width=2.0)
    assert f"no two of {count.sum():.0f} spikes in one bin of 2 s" in message
    right = responses_from_array(count, bin_width=0.002)
    # 0.06 spikes in 2 ms are 30 Hz; 6000 bins, so 4 standard errors are 6 Hz.
    assert abs(float(right.rate.mean()) - 30.0) < 4 * np.sqrt(0.06 * 0.94 / 6000) / 0.002
    # Counts over long bins are lawful.
    responses_from_array(rng.poisson(40.0, (4, 10, 3)).astype(float), bin_width=2.0)


# Broken and odd NWB files


@pytest.mark.parametrize("missing", ["refuse", "drop_trials", "drop_units"])
def test_units_that_were_not_observed_are_not_silent(tmp_path, refused, missing):
    trials = [(0.0, 1.0), (2.0, 3.0), (4.0, 5.0), (6.0, 7.0)]
    trains = [(0.5, 2.5, 4.5, 6.5), (0.5, 2.5), (0.2, 6.4)]
    observed = [
        [(0.0, 7.0)],
        [(0.0, 3.0)],  # lost from the third trial on
        [(5.5, 7.0), (0.0, 2.4), (2.4, 5.5)],  # three pieces without a gap, out of order
    ]
    path = session(tmp_path / "lost.nwb", trains, trials, observed=observed)
    if missing == "refuse":
        message = refused(read_nwb, path)
        assert "2 of 12 pairs of trial and unit not observed, in 2 of 4 trials" in message
        return
    spikes = read_nwb(path, missing=missing).spikes
    if missing == "drop_trials":
        assert spikes.trial.values.tolist() == [0, 1]
        assert numbers(spikes) == [[1, 1, 1], [1, 1, 0]]
        assert exclusions(spikes) == {"unobserved_trials": 2}
    else:
        assert spikes.unit.values.tolist() == [0, 2]
        assert numbers(spikes) == [[1, 1], [1, 0], [1, 0], [1, 1]]
        assert exclusions(spikes) == {"unobserved_units": 1}
    assert exclusions(bin_spikes(spikes, 0.5)) == exclusions(spikes)


def test_a_gap_within_a_trial_is_not_observed(tmp_path, refused):
    path = session(
        tmp_path / "gap.nwb", [(0.1, 0.9)], [(0.0, 1.0)], observed=[[(0.0, 0.4), (0.6, 1.0)]]
    )
    assert "1 of 1 pairs" in refused(read_nwb, path)
    assert "expected some whole trials" in refused(read_nwb, path, missing="drop_trials")


def test_trials_that_overlap_count_no_spike_as_left_out(tmp_path):
    path = session(tmp_path / "o.nwb", [(0.2, 0.7, 1.2, 2.0)], [(0.0, 1.0), (0.5, 1.5)])
    spikes = read_nwb(path).spikes
    assert numbers(spikes) == [[2], [2]]
    assert exclusions(spikes) == {"spikes_outside": 1}


@pytest.mark.parametrize(
    ("trials", "words"),
    [
        ([(0.0, np.nan), (2.0, 3.0)], "both finite"),
        ([(np.nan, 1.0)], "none of them within"),
        ([(1.0, 0.0), (2.0, 3.0)], "start before stop"),
        ([(1.0, 1.0), (2.0, 3.0)], "start before stop"),
    ],
)
def test_trials_without_ends_are_refused(tmp_path, refused, trials, words):
    path = session(tmp_path / "t.nwb", [(0.5, 2.5)], trials)
    assert words in refused(read_nwb, path)


@pytest.mark.parametrize("cut", [512, 2048, 4096, 0.2, 0.4, 0.6, 0.8, -1])
def test_a_file_cut_anywhere_is_refused(tmp_path, rng, refused, cut):
    trains = [np.sort(rng.uniform(0.0, 20.0, 300)) for _ in range(3)]
    path = session(tmp_path / "whole.nwb", trains, [(k, k + 1.0) for k in range(20)])
    whole = path.read_bytes()
    end = int(cut * len(whole)) if isinstance(cut, float) else cut
    path.write_bytes(whole[:end])
    assert "get it again" in refused(read_nwb, path)


def test_a_folder_and_a_file_without_its_groups_are_refused(tmp_path, refused):
    import h5py

    assert "no such file" in refused(read_nwb, tmp_path)
    path = session(tmp_path / "s.nwb", [(0.5, 2.5)], [(0.0, 3.0)])
    with h5py.File(path, "r+") as file:
        del file["units/spike_times"]
    assert "expected" in refused(read_nwb, path)


def test_units_without_any_spike_keep_their_place_and_are_counted(tmp_path):
    path = session(tmp_path / "s.nwb", [(0.5, 2.5), (), (1.5,)], [(0.0, 1.0), (2.0, 3.0)])
    counted = bin_spikes(read_nwb(path).spikes, 0.5)
    assert counted.spike_count.sum(("trial", "time")).values.tolist() == [2, 0, 0]
    kept = exclude_units(counted)
    assert kept.unit.values.tolist() == [0]
    assert exclusions(kept) == {"silent_units": 2, "spikes_outside": 1}


# All at once


def test_every_exclusion_is_in_the_responses_that_are_saved(tmp_path, rng):
    """A session with all faults: what went and why can be read off the file at the end."""
    start = 2.0 * np.arange(12)
    length = np.where(np.arange(12) % 4 == 3, 1.3, 1.0)
    trials = list(zip(start, start + length, strict=True))
    busy = [np.sort(rng.uniform(0.0, 24.0, 600)) for _ in range(4)]
    trains = [*busy, [], [23.9]]  # the last fires between trials alone
    whole = [(0.0, 25.0)]
    lost = [(0.0, 4.5), (5.0, 25.0)]  # not observed in a part of the third trial
    observed = [whole, lost, whole, whole, whole, whole]
    path = session(tmp_path / "s.nwb", trains, trials, observed=observed)
    spikes = read_nwb(path, missing="drop_trials", area="V1").spikes
    found = exclude_units(bin_spikes(spikes, 0.1, unequal="shortest"), min_rate=0.5)
    back = open_responses(save(found, tmp_path / "r.nc"))
    in_trials = [(t % 2.0) < length[(t // 2.0).astype(int)] for t in busy]
    late = [(t % 2.0 >= 1.0) & inside for t, inside in zip(busy, in_trials, strict=True)]
    between = sum(int((~inside).sum()) for inside in in_trials) + 1
    assert exclusions(back) == {
        "cut_trials": 3,
        "silent_units": 2,
        "spikes_outside": between + sum(int(one.sum()) for one in late),
        "unobserved_trials": 1,
    }
    assert back.sizes == {"trial": 11, "time": 10, "unit": 4}
