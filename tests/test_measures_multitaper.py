"""Multitaper spectra against closed forms."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.signal
import xarray as xr
from spectra_cases import RATE, labelled, simulated

from pcsim.measures import (
    Autoregression,
    Tapers,
    chance_coherence,
    coherence,
    cross_spectrum,
    lfp_proxy,
    multitaper_spectrum,
)
from pcsim.responses import make_responses


@pytest.mark.parametrize("n_times", [400, 401])
def test_white_noise_has_the_level_of_its_variance(rng, n_times):
    noise = labelled(rng.normal(0.0, 1.7, (80, n_times, 2)))
    spectrum = multitaper_spectrum(noise, Tapers(half_bandwidth=4.0))
    assert spectrum.dims == ("site", "frequency")
    assert spectrum.site.values.tolist() == ["S0", "S1"]
    inside = spectrum.sel(frequency=slice(8.0, 92.0))
    # 80 trials of 15 tapers each, and about 10 independent bands of +-4 Hz.
    tolerance = 4 / np.sqrt(80 * 15 * 10)
    np.testing.assert_allclose(inside.mean("frequency"), 1.7**2 / (RATE / 2), rtol=tolerance)
    total = spectrum.sum("frequency") * float(spectrum.frequency[1])
    np.testing.assert_allclose(total, 1.7**2, rtol=0.03)


@pytest.mark.parametrize("n", [300, 301])
def test_parseval_is_exact_for_the_tapered_signal(rng, n):
    values = rng.normal(size=(3, n, 2))
    tapers = Tapers(half_bandwidth=3.0, n_tapers=2, centre="none")
    spectrum = multitaper_spectrum(labelled(values), tapers)
    windows = scipy.signal.windows.dpss(n, 3.0 * n / RATE, 2)
    energy = ((windows[:, None, :, None] * values) ** 2).sum(2).mean((0, 1))
    total = spectrum.sum("frequency") * float(spectrum.frequency[1])
    np.testing.assert_allclose(total, energy * 1.0, rtol=1e-12)


def test_a_sinusoid_keeps_its_power_and_place():
    time = np.arange(800) / RATE
    wave = labelled(np.stack([3.0 * np.sin(2 * np.pi * 31.0 * time + 0.4)] * 1, -1)[None])
    spectrum = multitaper_spectrum(wave, Tapers(half_bandwidth=2.0)).isel(site=0)
    step = float(spectrum.frequency[1])
    inside = spectrum.sel(frequency=slice(28.0, 34.0))
    assert float(inside.sum()) * step == pytest.approx(4.5, rel=2e-3)
    assert float(inside.sum() / spectrum.sum()) > 0.99


def test_spectrum_of_an_autoregression_is_the_analytic_one(rng):
    model = Autoregression(
        coefficients=np.array([[[1.2]], [[-0.8]]]), covariance=np.array([[0.7]]), rate=RATE
    )
    values = simulated(model.coefficients, model.covariance, rng, n_trials=150, n_times=600)
    spectrum = multitaper_spectrum(labelled(values), Tapers(half_bandwidth=2.0)).isel(site=0)
    frequency = spectrum.frequency.values
    turn = np.exp(-2j * np.pi * frequency / RATE)
    analytic = 2 * 0.7 / RATE / np.abs(1 - 1.2 * turn + 0.8 * turn**2) ** 2
    np.testing.assert_allclose(2 * model.spectrum(frequency)[:, 0, 0].real, analytic, rtol=1e-12)
    # 150 trials of 11 tapers: 2.5 % each; the peak, 20 Hz wide, is smoothed a little.
    inside = slice(6, -6)
    np.testing.assert_allclose(spectrum.values[inside], analytic[inside], rtol=4 / np.sqrt(1650))


def test_cross_spectrum_has_the_phase_of_a_lag_and_coherence_of_a_share(rng):
    first = rng.normal(size=(60, 803))
    second = 0.7 * first[:, :-3] + rng.normal(0.0, 2.0, (60, 800))
    pair = labelled(np.stack([first[:, 3:], second], -1))
    spectrum = cross_spectrum(pair, Tapers(half_bandwidth=4.0))
    inside = spectrum.sel(source="S0", target="S1", frequency=slice(5.0, 40.0))
    phase = np.angle(inside.values)
    lagged = np.angle(np.exp(2j * np.pi * inside.frequency.values * 3 / RATE))
    assert np.abs(np.angle(np.exp(1j * (phase - lagged)))).max() < 0.25
    np.testing.assert_allclose(
        spectrum.sel(source="S1", target="S0"), spectrum.sel(source="S0", target="S1").conj()
    )
    shared = coherence(pair, Tapers(half_bandwidth=4.0)).sel(source="S0", target="S1")
    expected = 0.49 / (0.49 + 4.0)
    n = 60 * 31
    assert float(shared.mean()) == pytest.approx(expected, abs=4 / np.sqrt(n) * 2 * expected**0.5)


@pytest.mark.parametrize("spread", [0.0, 1.5])
def test_chance_is_the_coherence_of_independent_channels(rng, spread):
    """Also where some trials are much stronger than others in both channels."""
    found, expected = [], []
    for _ in range(40):
        strength = np.exp(spread * rng.standard_normal((24, 1, 1)))
        pair = labelled(strength * rng.standard_normal((24, 200, 2)))
        tapers = Tapers(half_bandwidth=3.0)
        found.append(coherence(pair, tapers).values[0, 1].mean())
        expected.append(chance_coherence(pair, tapers).values[0, 1].mean())
    assert np.mean(found) == pytest.approx(np.mean(expected), rel=0.1)
    n = 24 * 5
    assert (np.mean(expected) > 2 / n) == (spread > 0)


def test_segments_are_epochs_of_their_own(rng):
    values = rng.normal(size=(4, 610, 2))
    tapers = Tapers(half_bandwidth=3.0, segment=1.0)
    whole = multitaper_spectrum(labelled(values), tapers)
    cut = values[:, :600].reshape(12, 200, 2)
    np.testing.assert_allclose(
        whole, multitaper_spectrum(labelled(cut), Tapers(half_bandwidth=3.0)), rtol=1e-12
    )


def test_ensemble_centre_takes_off_what_is_locked_to_the_stimulus(rng):
    locked = 5.0 * np.sin(2 * np.pi * 20 * np.arange(400) / RATE)[None, :, None]
    noise = rng.normal(size=(50, 400, 1))
    tapers = Tapers(centre="ensemble")
    with_it = multitaper_spectrum(labelled(noise + locked), tapers)
    np.testing.assert_allclose(with_it, multitaper_spectrum(labelled(noise), tapers), rtol=1e-9)


def test_lfp_of_responses_is_taken(rng):
    rates = rng.normal(size=(3, 300, 4))
    units = {"population": ["error", "error", "latent", "latent"], "level": [0, 0, 1, 1]}
    responses = make_responses(
        rates, time=np.arange(1, 301) / RATE, units=units, trial={"condition": ["a"] * 3}
    )
    proxy = lfp_proxy(
        responses,
        {"low": {"population": "error"}, "high": {"population": "latent", "level": 1}},
    )
    expected = np.abs(np.diff(rates, axis=1)).reshape(3, 299, 2, 2).sum(-1) * RATE
    np.testing.assert_allclose(proxy, expected, rtol=1e-9)
    assert proxy.condition.values.tolist() == ["a"] * 3
    with pytest.raises(ValueError, match="make an lfp with lfp_proxy"):
        multitaper_spectrum(responses)
    stored = responses.isel(time=slice(1, None)).assign(lfp=proxy)
    xr.testing.assert_allclose(multitaper_spectrum(stored), multitaper_spectrum(proxy))


def test_unit_labels_stay_and_units_are_alike_in_any_order(rng):
    units = {"population": "error", "level": [0, 1, 1], "area": ["LGN", "V1", "V1"]}
    responses = make_responses(
        rng.normal(size=(4, 200, 3)), time=np.arange(1, 201) / RATE, units=units,
        trial={"condition": ["a"] * 4},
    )  # fmt: skip
    spectrum = multitaper_spectrum(responses["rate"])
    assert spectrum.area.values.tolist() == ["LGN", "V1", "V1"]
    turned = responses.isel(unit=[2, 0, 1], trial=[3, 1, 0, 2])
    np.testing.assert_allclose(
        multitaper_spectrum(turned["rate"]).sortby("unit"), spectrum, rtol=1e-12
    )


NOISE = labelled(np.random.default_rng(7).normal(size=(10, 400, 2)))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: multitaper_spectrum(NOISE, Tapers(n_tapers=40)), "at most 11.*leak"),
        (lambda: multitaper_spectrum(NOISE, Tapers(half_bandwidth=0.1)), "longer segments or a wi"),
        (lambda: multitaper_spectrum(NOISE, Tapers(segment=9.0)), "a segment takes 0.04 to 2 s"),
        (lambda: multitaper_spectrum(NOISE, Tapers(centre="trial")), "expected one of 'ensemble'"),
        (
            lambda: multitaper_spectrum(NOISE.isel(trial=[0]), Tapers(centre="ensemble")),
            "one trial, expected several.*centre='segment'",
        ),
        (lambda: coherence(0 * NOISE), "Drop silent channels"),
        (lambda: lfp_proxy(xr.Dataset(), {}), "make_responses"),
    ],
)
def test_bad_input_is_refused(call, message):
    with pytest.raises((TypeError, ValueError), match=message):
        call()
