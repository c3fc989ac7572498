"""Latency, transience and sparseness against closed forms."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from pcsim.measures import (
    half_max_share,
    latency,
    lifetime_sparseness,
    population_sparseness,
    transience_index,
    treves_rolls,
)
from pcsim.responses import make_responses


def responses(rate, dt=0.01, condition=None):
    rate = np.asarray(rate, dtype=float)
    trial = {"condition": condition or ["a"] * rate.shape[0]}
    units = {"population": "error", "level": 1}
    return make_responses(rate, time=dt * np.arange(1, rate.shape[1] + 1), units=units, trial=trial)


@pytest.mark.parametrize("tau", [0.03, 0.08])
def test_latency_of_an_exponential_rise(tau):
    dt = 1e-3
    time = dt * np.arange(1, 2001)
    r = responses((4 * (1 - np.exp(-time / tau)))[None, :, None], dt)
    assert latency(r, rectify="none").item() == pytest.approx(tau * np.log(2), abs=1e-5)
    third = latency(r, rectify="none", fraction=1 / 3).item()
    assert third == pytest.approx(tau * np.log(1.5), abs=1e-5)


def test_latency_is_linear_between_samples_and_from_onset():
    # A ramp from 0 at 0.2 s to 10 at 0.4 s, constant before and after; baseline 3.
    time = 0.05 * np.arange(1, 13)
    ramp = 3 + np.clip(50 * (time - 0.2), 0, 10)
    r = responses(ramp[None, :, None], 0.05)
    baseline = slice(0.0, 0.2)
    assert latency(r, rectify="none", baseline=baseline).item() == pytest.approx(0.3)
    late = latency(r, rectify="none", baseline=baseline, onset=0.15).item()
    assert late == pytest.approx(0.15)


def test_first_sample_interpolates_from_the_onset():
    r = responses(np.array([8.0, 8.0]).reshape(1, 2, 1), 0.1)
    assert latency(r, rectify="none").item() == pytest.approx(0.05)


def test_negative_responses_take_a_choice():
    r = responses(np.array([-1.0, -4.0, 1.0, 1.0]).reshape(1, 4, 1), 0.1)
    # From -4 at 0.2 s to 1 at 0.3 s the line reaches 0.5 after nine tenths of the way.
    assert latency(r, rectify="none").item() == pytest.approx(0.29)
    assert latency(r, rectify="abs").item() == pytest.approx(0.1 + 0.1 / 3)
    assert np.isnan(latency(r, rectify="half", end=0.2)).all()


def test_conditions_are_averaged_before():
    rate = np.zeros((3, 4, 2))
    rate[0, 1:, 0], rate[1, 3:, 0], rate[2, 0:, 1] = 2.0, 2.0, 1.0
    r = responses(rate, 0.1, ["b", "b", "a"])
    result = latency(r, rectify="none")
    assert result.dims == ("condition", "unit")
    assert result.sel(condition="b", unit=0).item() == pytest.approx(0.2)
    assert result.sel(condition="a", unit=1).item() == pytest.approx(0.05)
    assert np.isnan(result.sel(condition="a", unit=0))
    shuffled = latency(r.isel(trial=[2, 1, 0]), rectify="none")
    xr.testing.assert_identical(result, shuffled)


def test_transience_by_hand():
    time = 0.01 * np.arange(1, 31)
    rate = np.where(time < 0.13, 9.0, 3.0)
    flat, undershoot = np.full(30, 5.0), np.where(time < 0.13, 9.0, -2.0)
    r = responses(np.stack([rate, flat, undershoot], axis=-1)[None])
    np.testing.assert_allclose(transience_index(r, rectify="none")[0], [6 / 12, 0.0, 1.0])
    # Baseline 5: the third is flat, so it has no response left.
    index = transience_index(
        responses((flat * 1.0)[None, :, None]), rectify="none", baseline=slice(0, 0.3)
    )
    assert np.isnan(index).all()


def test_transience_of_an_exponential_decay():
    tau, dt = 0.05, 1e-3
    time = dt * np.arange(1, 301)
    r = responses((2 + 7 * np.exp(-time / tau))[None, :, None], dt)
    peak = 2 + 7 * np.exp(-0.03 / tau)
    late = 2 + 7 * np.exp(-time[149:240] / tau).mean()
    expected = (peak - late) / (peak + late)
    assert transience_index(r, rectify="none").item() == pytest.approx(expected, rel=1e-9)


def test_sparseness_closed_forms(rng):
    n = 12
    one = np.zeros(n)
    one[4] = 3.0
    half = np.repeat([0.0, 2.0], n // 2)
    rate = xr.DataArray(np.stack([one, np.full(n, 0.7), half]), dims=("unit", "trial"))
    expected = [1.0, 0.0, 0.5 / (1 - 1 / n)]
    np.testing.assert_allclose(treves_rolls(rate, "trial"), expected, atol=1e-12)
    exponential = xr.DataArray(rng.exponential(4.0, (50, 4000)), dims=("unit", "trial"))
    # Exponential rates have a = 1/2; the error of a is about 1 / sqrt(n).
    assert float(treves_rolls(exponential, "trial").mean()) == pytest.approx(0.5, abs=4 / 450)


def test_lifetime_and_population_look_along_their_own_axis(rng):
    rate = rng.exponential(2.0, (9, 1, 6))
    r = responses(rate)
    a = rate[:, 0].mean(0) ** 2 / (rate[:, 0] ** 2).mean(0)
    np.testing.assert_allclose(lifetime_sparseness(r, rectify="none"), (1 - a) / (1 - 1 / 9))
    a = rate[:, 0].mean(1) ** 2 / (rate[:, 0] ** 2).mean(1)
    np.testing.assert_allclose(population_sparseness(r, rectify="none"), (1 - a) / (1 - 1 / 6))
    turned = r.isel(unit=rng.permutation(6), trial=rng.permutation(9))
    b = lifetime_sparseness(turned, rectify="none").sortby("unit")
    np.testing.assert_allclose(lifetime_sparseness(r, rectify="none"), b, rtol=1e-12)


def test_half_max_share_counts_units(rng):
    rate = np.array([[4.0, 1.0, 0.0], [1.9, 3.0, 0.0], [2.1, 0.0, 0.0]])
    share = half_max_share(responses(rate[:, None]), rectify="none")
    np.testing.assert_allclose(share, [1 / 3, 1 / 3, 1 / 3])
    assert share.dims == ("trial",)


def test_silent_and_tiny_rates():
    rate = xr.DataArray([[0.0, 0.0], [1e-200, 0.0]], dims=("unit", "trial"))
    values = treves_rolls(rate, "trial").values
    assert np.isnan(values[0])
    assert values[1] == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda r: latency(r, rectify="none", onset=9.0), "Widen the window"),
        (lambda r: latency(r, rectify="none", fraction=0.0), "fraction 0"),
        (lambda r: latency(r, rectify="up"), "'abs', 'half', 'none'"),
        (lambda r: latency(r, rectify="none", baseline=slice(8, 9)), "Widen the window"),
        (lambda r: transience_index(r, rectify="none", sustained=slice(8, 9)), "Move the window"),
        (lambda r: lifetime_sparseness(r, rectify="none"), "rectify='half' or 'abs'"),
        (lambda r: half_max_share(r, rectify="none"), "rectify='half' or 'abs'"),
        (lambda r: treves_rolls(r.rate, "x"), "at least 2 values along 'x'"),
        (lambda r: population_sparseness(r, rectify="half"), "at least 2 values along 'unit'"),
    ],
)
def test_bad_input_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call(responses(-np.ones((3, 30, 1))))
