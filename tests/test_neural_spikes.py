"""Spikes, bins, trials and quality rules: counts by hand, laws, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from pcsim.neural import (
    align_spikes,
    bin_spikes,
    check_spikes,
    exclude_units,
    exclusions,
    make_spikes,
    psth,
    responses_from_array,
    spike_times,
    spikes_from_rates,
)
from pcsim.responses import make_responses, open_responses, save


@pytest.fixture
def trains(rng):
    """Three trials of two units, 0.7 s."""
    return [[np.sort(rng.uniform(0.0, 0.7, 30)) for _ in range(2)] for _ in range(3)]


def constant(rate, *, duration, n_trials=1, bin_width=0.01):
    """Return responses in Hz with one constant rate."""
    n = round(duration / bin_width)
    responses = make_responses(
        np.full((n_trials, n, 1), rate),
        time=bin_width * np.arange(1, n + 1),
        units={"population": "output", "level": 2, "area": "V1"},
        trial={"condition": ["on"] * n_trials},
    )
    responses["rate"].attrs["units"] = "Hz"
    return responses


def test_spike_times_inverts_make_spikes(trains):
    back = spike_times(make_spikes(trains, stop=0.7))
    for row, expected in zip(back, trains, strict=True):
        for times, given in zip(row, expected, strict=True):
            np.testing.assert_array_equal(times, given)


def test_spike_times_do_not_depend_on_the_order_of_the_table(trains, rng):
    spikes = make_spikes(trains, stop=0.7)
    mixed = spikes.isel(spike=rng.permutation(spikes.sizes["spike"]))
    assert bin_spikes(mixed, 0.1).identical(bin_spikes(spikes, 0.1))


def test_bins_are_closed_on_the_left():
    # 0.3 and 0.6 are not whole multiples of 0.1 in floating point.
    spikes = make_spikes([[[0.0, 0.1, 0.3, 0.6, 0.7]]], stop=0.7)
    counted = bin_spikes(spikes, 0.1)
    assert counted.spike_count.values.ravel().tolist() == [1, 1, 0, 1, 0, 0, 1]
    assert counted.attrs["spikes_outside"] == 1


def test_edges_do_not_drift_in_a_long_recording():
    n = 100_000
    counted = bin_spikes(make_spikes([[0.0137 * np.arange(n)]], stop=0.0137 * n), 0.0137)
    assert (counted.spike_count == 1).all()


def test_no_spike_is_lost_and_rates_are_counts_over_time(trains):
    counted = bin_spikes(make_spikes(trains, stop=0.7), 0.35)
    assert counted.spike_count.sum() + counted.attrs["spikes_outside"] == 180
    np.testing.assert_allclose(counted.rate, counted.spike_count / 0.35, rtol=1e-12)
    assert counted.time.values == pytest.approx([0.35, 0.7])


def test_finer_bins_add_up_to_coarse_ones(trains):
    spikes = make_spikes(trains, stop=0.7)
    fine, coarse = bin_spikes(spikes, 0.07).spike_count, bin_spikes(spikes, 0.14).spike_count
    added = fine.values.reshape(3, 5, 2, 2).sum(axis=2)
    np.testing.assert_array_equal(added, coarse)


def test_binned_spikes_are_lawful_responses(trains, tmp_path):
    spikes = make_spikes(trains, stop=0.7, units={"area": "V1"}, trial={"condition": list("aba")})
    counted = bin_spikes(spikes, 0.1)
    assert open_responses(save(counted, tmp_path / "r.nc")).identical(counted)


def test_unequal_trials_are_refused_or_cut(refused):
    spikes = make_spikes([[[0.1, 0.9]], [[0.2]]], stop=[1.0, 0.4])
    message = refused(bin_spikes, spikes, 0.1)
    assert "0.4 to 1 s" in message and "unequal='shortest'" in message  # noqa: PT018
    cut = bin_spikes(spikes, 0.1, unequal="shortest")
    assert cut.sizes["time"] == 4
    assert cut.attrs["spikes_outside"] == 1
    assert cut.attrs["seconds_cut"] == pytest.approx(0.6)


def test_bins_that_do_not_fill_the_trial_are_refused(refused):
    assert "0.35 s" in refused(bin_spikes, make_spikes([[[0.1]]], stop=0.7), 0.3)


def test_alignment_is_a_shift_of_the_clock(rng):
    times = np.sort(rng.uniform(0.0, 50.0, 900))
    onsets = np.array([3.0, 17.5, 40.0])
    whole = make_spikes([[times]], stop=50.0)
    cut = align_spikes(whole, onsets, window=(-0.5, 1.5), trial={"condition": list("abc")})
    for (own,), onset in zip(spike_times(cut), onsets, strict=True):
        inside = times[(times >= onset - 0.5) & (times < onset + 1.5)]
        np.testing.assert_allclose(own, inside - onset, atol=1e-12)
    assert cut.condition.values.tolist() == ["a", "b", "c"]


def test_alignment_keeps_the_numbers_of_units():
    whole = make_spikes([[[1.0], [2.0], [2.1]]], stop=5.0).isel(unit=[1, 2])
    keep = np.isin(whole["spike_unit"], whole["unit"])
    cut = align_spikes(whole.isel(spike=keep), [2.0], window=(-0.5, 0.5))
    assert cut["unit"].values.tolist() == [1, 2]
    assert cut["spike_unit"].values.tolist() == [1, 2]


def test_windows_beyond_the_recording_are_refused(refused):
    whole = make_spikes([[[1.0]]], stop=5.0)
    message = refused(align_spikes, whole, [1.0, 4.8], window=(0.0, 0.5))
    assert "1 of 2 windows" in message
    assert "seconds" in refused(align_spikes, whole, [1000.0], window=(0.0, 0.5))


def test_psth_is_the_mean_over_the_trials_of_a_condition():
    count = np.array([1.0, 3.0, 5.0, 7.0]).reshape(4, 1, 1)
    r = responses_from_array(count, bin_width=0.5, trial={"condition": list("baba")})
    histogram = psth(r)
    assert histogram.condition.values.tolist() == ["a", "b"]
    assert histogram.rate.values.ravel().tolist() == [10.0, 6.0]
    # Two trials that differ by d: standard error d / 2.
    assert histogram.standard_error.values.ravel() == pytest.approx([4.0, 4.0])
    assert histogram.n_trials.values.tolist() == [2, 2]


def test_silent_and_slow_units_and_rare_conditions_are_left_out_and_counted():
    count = np.tile([0.0, 1.0, 8.0], (3, 1, 1))
    r = responses_from_array(count, bin_width=0.5, trial={"condition": list("aab")})
    kept = exclude_units(r, min_rate=4.0, min_trials=2)
    assert kept.unit.values.tolist() == [2]
    assert exclusions(kept) == {"silent_units": 1, "slow_units": 1, "rare_trials": 1}


def test_exclusions_add_up_and_outlive_a_file(tmp_path):
    count = np.array([[[0.0, 5.0]], [[np.nan, 5.0]]])
    kept = exclude_units(responses_from_array(count, bin_width=1.0, missing="drop_trials"))
    assert exclusions(kept) == {"nan_bins": 1, "nan_trials": 1, "silent_units": 1}
    assert exclusions(open_responses(save(kept, tmp_path / "r.nc"))) == exclusions(kept)


def test_nothing_left_is_refused(refused):
    r = responses_from_array(np.ones((1, 1, 2)), bin_width=0.5)
    assert "fastest 2" in refused(exclude_units, r, min_rate=9.0)
    assert "min_trials" in refused(exclude_units, r, min_trials=2)


def test_missing_bins_are_refused_or_left_out(refused):
    count = np.ones((2, 3, 2))
    count[1, 2, 0] = np.nan
    message = refused(responses_from_array, count, bin_width=0.1)
    assert "1 of 12 bins NaN" in message and "drop_trials" in message  # noqa: PT018
    by_unit = responses_from_array(count, bin_width=0.1, missing="drop_units")
    assert dict(by_unit.sizes) == {"trial": 2, "time": 3, "unit": 1}
    assert exclusions(by_unit) == {"nan_bins": 1, "nan_units": 1}
    count[0, 0, 1] = np.nan
    assert "some whole" in refused(responses_from_array, count, bin_width=0.1, missing="drop_units")


def test_counts_that_are_none_are_refused(refused):
    assert "not negative" in refused(responses_from_array, [[[-1.0]]], bin_width=0.1)
    assert "not negative" in refused(responses_from_array, [[[np.inf]]], bin_width=0.1)


def test_milliseconds_given_as_seconds_are_found(rng, refused):
    times = np.cumsum(2.0 + rng.exponential(20.0, 500))
    stop = times[-1] + 1.0
    assert "time_unit='ms'" in refused(make_spikes, [[times]], stop=stop)
    assert "time_unit='ms'" in refused(make_spikes, [[times]], stop=stop / 1000)
    make_spikes([[times]], stop=stop / 1000, time_unit="ms")


def test_seconds_given_as_milliseconds_are_found(rng, refused):
    times = np.cumsum(0.002 + rng.exponential(0.02, 500))
    message = refused(make_spikes, [[times]], stop=times[-1], time_unit="ms")
    assert "not in ms" in message


def test_a_slow_neuron_in_seconds_is_no_mistake(rng):
    times = np.cumsum(rng.exponential(4.0, 300))
    make_spikes([[times]], stop=times[-1])


def test_bad_spikes_are_refused(refused):
    assert "NaN" in refused(make_spikes, [[[np.nan]]], stop=1.0)
    assert "outside" in refused(make_spikes, [[[-0.1]]], stop=1.0)
    assert "equally many" in refused(make_spikes, [[[0.1]], [[0.1], [0.2]]], stop=1.0)
    assert "start before stop" in refused(make_spikes, [[[]]], stop=0.0)
    assert "Did you mean" in refused(make_spikes, [[[0.1]]], stop=1.0, time_unit="sec")
    refused(check_spikes, xr.Dataset())
    refused(check_spikes, np.zeros(3))
    spikes = make_spikes([[[0.1], [0.2]]], stop=1.0)
    assert "not listed" in refused(check_spikes, spikes.isel(unit=[0]))


@pytest.mark.parametrize("tau", [0.0, 0.004])
def test_drawn_spikes_recover_the_rate(tau, rng):
    # One train of 400 s at 70 Hz: the variance of the count is at most Poisson, so 4 standard
    # errors of the rate are 4 sqrt(70 / 400).
    spikes = spikes_from_rates(constant(70.0, duration=400.0), seed=5, refractory=tau)
    assert abs(spikes.sizes["spike"] / 400.0 - 70.0) < 4 * np.sqrt(70.0 / 400.0)


@pytest.mark.parametrize(("tau", "rate"), [(0.0, 40.0), (0.004, 70.0), (0.003, 200.0)])
def test_fano_factor_is_that_of_the_renewal_process(tau, rate):
    # Counts of n windows of 1 s have Fano factor (1 - rate tau)^2, up to terms of 1 / (rate 1 s);
    # its standard error is F sqrt(2 / n).
    n, seconds = 1000, 1.0
    spikes = spikes_from_rates(constant(rate, duration=seconds * n), seed=6, refractory=tau)
    count = bin_spikes(spikes, seconds).spike_count.values.ravel()
    expected = (1 - rate * tau) ** 2
    found = count.var(ddof=1) / count.mean()
    assert abs(found - expected) < 4 * expected * np.sqrt(2 / n) + (rate * tau) / rate


def test_intervals_are_refractory_time_plus_exponential():
    tau, rate = 0.004, 70.0
    spikes = spikes_from_rates(constant(rate, duration=300.0), seed=7, refractory=tau)
    gaps = np.diff(spikes.spike_time.values)
    assert gaps.min() >= tau
    mean = 1 / rate - tau
    # The k-th of 10 equal parts of the exponential holds a tenth of the intervals.
    edges = tau - mean * np.log(1 - np.arange(10) / 10)
    share = np.histogram(gaps, [*edges, np.inf])[0] / gaps.size
    assert np.abs(share - 0.1).max() < 4 * np.sqrt(0.09 / gaps.size)


def test_a_changing_rate_is_recovered_bin_by_bin_in_spite_of_refractoriness():
    # The rate jumps from 20 to 150 Hz and back within a few refractory times.
    n, width, tau = 4000, 0.005, 0.005
    profile = np.tile([20.0, 150.0, 150.0, 20.0, 90.0], 4)
    r = constant(0.0, duration=width * profile.size, n_trials=n, bin_width=width)
    r["rate"] = r["rate"] + xr.DataArray(profile, dims="time")
    r["rate"].attrs["units"] = "Hz"
    found = bin_spikes(spikes_from_rates(r, seed=8, refractory=tau), width).rate.mean("trial")
    error = np.sqrt(profile / width / n)
    assert (np.abs(found.values.ravel() - profile) < 4 * error).all()


def test_same_seed_same_spikes_and_trials_differ():
    r = constant(50.0, duration=2.0, n_trials=2)
    first, again = (spikes_from_rates(r, seed=3) for _ in range(2))
    assert first.identical(again)
    assert not first.identical(spikes_from_rates(r, seed=4))
    one, two = (row[0] for row in spike_times(first))
    assert not np.isin(one, two).any()


def test_labels_survive_spikes_and_bins():
    r = constant(50.0, duration=1.0, n_trials=3, bin_width=0.1).assign_coords(
        trial=[4, 9, 2], contrast=("trial", [0.1, 0.2, 0.3])
    )
    back = bin_spikes(spikes_from_rates(r, seed=3), 0.1)
    for name in ("trial", "condition", "contrast", "area", "level", "population"):
        assert (back[name] == r[name]).all()
    np.testing.assert_allclose(back.time, r.time, atol=1e-12)


def test_silence_gives_no_spikes():
    spikes = spikes_from_rates(constant(0.0, duration=1.0), seed=1, refractory=0.002)
    assert spikes.sizes["spike"] == 0
    assert bin_spikes(spikes, 0.5).rate.sum() == 0


def test_rates_that_cannot_be_drawn_are_refused(refused):
    r = constant(50.0, duration=1.0)
    assert "1 / refractory" in refused(spikes_from_rates, r, seed=1, refractory=0.02)
    assert "halves" in refused(spikes_from_rates, r - 60.0, seed=1, hz_per_unit=1.0)
    r["rate"].attrs["units"] = "a.u."
    assert "hz_per_unit" in refused(spikes_from_rates, r, seed=1)
    assert "bin_width" in refused(spikes_from_rates, r.isel(time=[0]), seed=1, hz_per_unit=2.0)


def test_alignment_checks_a_long_recording_once(rng, monkeypatch):
    import pcsim.neural_bins

    calls = []
    counted = lambda spikes: calls.append(spikes) or spike_times(spikes)  # noqa: E731
    monkeypatch.setattr(pcsim.neural_bins, "spike_times", counted)
    long = make_spikes([[np.sort(rng.uniform(0.0, 60.0, 900)) for _ in range(3)]], stop=60.0)
    onsets = rng.uniform(1.0, 59.0, 40)
    cut = align_spikes(long, onsets, window=(-0.3, 0.7))
    assert len(calls) == 1
    # Each window holds the spikes from its first second on, up to but without its last.
    for row, onset in zip(spike_times(cut), onsets, strict=True):
        for mine, train in zip(row, spike_times(long)[0], strict=True):
            inside = train[(train >= onset - 0.3) & (train < onset + 0.7)]
            np.testing.assert_allclose(mine, inside - onset, rtol=0, atol=1e-12)
