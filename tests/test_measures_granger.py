"""Granger causality and surrogates against closed forms and two other tools."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import scipy.linalg
import xarray as xr
from spectra_cases import RATE, labelled, simulated

from pcsim.measures import (
    Autoregression,
    Tapers,
    coherence,
    directed_asymmetry,
    fit_autoregression,
    multitaper_spectrum,
    pair_granger,
    parametric_granger,
    phase_randomised,
    spectral_factor,
    spectral_granger,
)

# 0 drives 1 after two samples; 0 rings at a quarter of the rate of sampling, 1 is slow.
ONE_WAY = np.array([[[0.4, 0.0], [0.0, 0.7]], [[-0.6, 0.0], [0.5, -0.2]]])
ONE_WAY_NOISE = np.diag([0.7, 4.0])
# Both ways, with a third of the news shared.
BOTH_WAYS = np.array([[[0.5, 0.3], [0.0, 0.3]], [[-0.4, 0.0], [0.4, -0.5]]])
BOTH_NOISE = np.array([[0.7, 0.5], [0.5, 4.0]])


def one_way_granger(frequency):
    """G from 0 to 1 by hand: ln(1 + |c|^2 s0 / (|1 - g|^2 s1)), c the drive, g 0's own past."""
    turn = np.exp(-2j * np.pi * frequency / RATE)
    own = 1.0 - 0.4 * turn + 0.6 * turn**2
    drive = 0.5 * turn**2
    return np.log1p(np.abs(drive / own) ** 2 * 0.7 / 4.0)


# Factorisation and causality


def test_factors_of_an_autoregression_are_its_own():
    model = Autoregression(coefficients=BOTH_WAYS, covariance=BOTH_NOISE, rate=RATE)
    frequency = np.fft.fftfreq(512, 1 / RATE)
    transfer, noise = spectral_factor(model.spectrum(frequency) * RATE)
    np.testing.assert_allclose(noise, BOTH_NOISE, rtol=1e-7)
    np.testing.assert_allclose(transfer, model.transfer(frequency), atol=1e-7)


def test_factors_of_a_batch_of_unlike_scales():
    frequency = np.fft.fftfreq(256, 1 / RATE)
    models = [
        Autoregression(coefficients=c, covariance=s, rate=RATE)
        for c, s in ((ONE_WAY, ONE_WAY_NOISE), (BOTH_WAYS, BOTH_NOISE))
    ]
    units = np.array([1e-6, 3e4])
    stack = np.stack([m.spectrum(frequency) for m in models]) * units[:, None] * units
    transfer, noise = spectral_factor(stack)
    for one, h, s, given in zip(models, transfer, noise, stack, strict=True):
        np.testing.assert_allclose(s / units / units[:, None] * RATE, one.covariance, atol=1e-6)
        size = np.sqrt(np.diag(s))  # the scale of each channel, twelve decades apart
        rebuilt = h @ s @ h.conj().swapaxes(-1, -2)
        np.testing.assert_allclose(
            rebuilt / size / size[:, None], given / size / size[:, None], atol=1e-6
        )
        own = pair_granger(one.transfer(frequency), one.covariance)
        np.testing.assert_allclose(pair_granger(h, s), own, atol=1e-6)


def test_exact_causality_of_one_way_drive_is_the_closed_form():
    model = Autoregression(coefficients=ONE_WAY, covariance=ONE_WAY_NOISE, rate=RATE)
    frequency = np.linspace(0.0, RATE / 2, 101)
    found = pair_granger(model.transfer(frequency), model.covariance)
    np.testing.assert_allclose(found[:, 0], one_way_granger(frequency), rtol=1e-12)
    np.testing.assert_allclose(found[:, 1], 0.0, atol=1e-14)


@pytest.mark.parametrize(
    ("coefficients", "covariance"), [(ONE_WAY, ONE_WAY_NOISE), (BOTH_WAYS, BOTH_NOISE)]
)
def test_the_mean_over_frequency_is_the_causality_in_time(coefficients, covariance):
    """Geweke's identity, against the error of the best long prediction from one's own past."""
    model = Autoregression(coefficients=coefficients, covariance=covariance, rate=RATE)
    frequency = np.arange(2048) / 2048 * RATE
    spectrum = model.spectrum(frequency) * RATE
    mean = pair_granger(model.transfer(frequency), covariance).mean(axis=0)
    for target in (0, 1):
        covariances = np.fft.ifft(spectrum[:, target, target]).real
        order = 200
        weights = scipy.linalg.solve_toeplitz(covariances[:order], covariances[1 : order + 1])
        alone = covariances[0] - weights @ covariances[1 : order + 1]
        in_time = np.log(alone / covariance[target, target])
        assert mean[1 - target] == pytest.approx(in_time, abs=1e-9)


def test_spectra_alone_give_the_closed_form_within_sampling_error(rng):
    values = simulated(ONE_WAY, ONE_WAY_NOISE, rng, n_trials=60, n_times=800)
    found = spectral_granger(labelled(values), Tapers(half_bandwidth=3.0))
    n_spectra = 60 * 23
    inside = found.sel(frequency=slice(5.0, 95.0))
    expected = one_way_granger(inside.frequency.values)
    ahead = inside.sel(source="S0", target="S1")
    # The peak, 0.67 at 46 Hz, is 15 Hz wide: smoothing over +-3 Hz takes off a few per cent.
    assert np.abs(ahead - expected).max() < 0.12
    assert float((ahead - expected).mean()) == pytest.approx(0.0, abs=0.01)
    back = inside.sel(source="S1", target="S0")
    assert float(back.mean()) < 3.0 / n_spectra
    assert (found.sel(source="S0", target="S0").isnull()).all()


def test_an_autoregression_finds_order_and_closed_form(rng):
    values = simulated(ONE_WAY, ONE_WAY_NOISE, rng, n_trials=60, n_times=800)
    fitted = fit_autoregression(labelled(values))
    assert len(fitted.coefficients) == 2
    se = 4 / np.sqrt(60 * 800) * 2.5  # sd(e_1) / sd(y_0) at most 2.5
    np.testing.assert_allclose(fitted.coefficients, ONE_WAY, atol=se)
    np.testing.assert_allclose(np.diag(fitted.covariance), [0.7, 4.0], rtol=4 * (2 / 48_000) ** 0.5)
    found = parametric_granger(labelled(values))
    assert found.order.sel(source="S0", target="S1").item() == 2
    ahead = found.granger.sel(source="S0", target="S1")
    np.testing.assert_allclose(ahead, one_way_granger(found.frequency.values), atol=0.06)
    assert float(found.granger.sel(source="S1", target="S0").max()) < 20 / 48_000
    weights = np.ones(129)
    weights[[0, -1]] = 0.5
    mean = float((ahead * weights).sum() / weights.sum())
    assert found.in_time.sel(source="S0", target="S1").item() == pytest.approx(mean, rel=1e-6)


def test_causality_in_time_is_the_ratio_of_errors(rng):
    """The fitted causality against two regressions: with and without the other's past."""
    values = simulated(BOTH_WAYS, BOTH_NOISE, rng, n_trials=40, n_times=1000)
    found = parametric_granger(labelled(values), order=2)
    for target, name in ((0, "S0"), (1, "S1")):
        own = fit_autoregression(labelled(values[..., [target]]), order=30)
        both = fit_autoregression(labelled(values), order=2)
        ratio = np.log(own.covariance[0, 0] / both.covariance[target, target])
        in_time = found.in_time.sel(source=f"S{1 - target}", target=name).item()
        assert in_time == pytest.approx(ratio, abs=5e-3)
        assert in_time > 0.02


def test_asymmetry_follows_direction_and_band(rng):
    values = simulated(ONE_WAY, ONE_WAY_NOISE, rng, n_trials=30, n_times=600)
    found = spectral_granger(labelled(values))
    ahead = directed_asymmetry(found, forward=("S0", "S1"), band=(40.0, 60.0))
    assert ahead.item() > 0.95
    back = directed_asymmetry(found, forward=("S1", "S0"), band=(40.0, 60.0))
    assert back.item() == pytest.approx(-ahead.item())
    with pytest.raises(ValueError, match="expected one of 'S0', 'S1'"):
        directed_asymmetry(found, forward=("S0", "V2"), band=(40.0, 60.0))
    with pytest.raises(ValueError, match=r"no frequency from 90\.1 to 90\.2 Hz"):
        directed_asymmetry(found, forward=("S0", "S1"), band=(90.1, 90.2))


def test_more_than_a_pair_is_every_pair_by_itself(rng):
    values = rng.normal(size=(30, 400, 3))
    values[:, 2:, 2] += 0.7 * values[:, :-2, 0]
    all_of_them = spectral_granger(labelled(values))
    alone = spectral_granger(labelled(values).isel(site=[0, 2]))
    np.testing.assert_allclose(
        all_of_them.sel(source="S0", target="S2"), alone.sel(source="S0", target="S2"), rtol=1e-6
    )
    assert float(all_of_them.sel(source="S0", target="S2").mean()) > 0.3
    assert float(all_of_them.sel(source="S0", target="S1").mean()) < 0.01


# Surrogates


@pytest.mark.parametrize("n", [300, 301])
def test_surrogates_keep_every_spectrum_and_lose_the_coupling(rng, n):
    values = simulated(BOTH_WAYS, BOTH_NOISE, rng, n_trials=40, n_times=n)
    real = labelled(values + 3.0)
    made = phase_randomised(real, seed=4)
    assert made.dims == real.dims
    np.testing.assert_allclose(
        np.abs(np.fft.rfft(made.values, axis=1)), np.abs(np.fft.rfft(real.values, axis=1)),
        atol=1e-9,
    )  # fmt: skip
    np.testing.assert_allclose(made.mean("time"), real.mean("time"), atol=1e-12)
    tapers = Tapers(half_bandwidth=4.0)
    n_spectra = 40 * 11
    shared = coherence(made, tapers).sel(source="S0", target="S1", frequency=slice(8, 92))
    assert float(shared.mean()) < 2.5 / n_spectra
    assert float(coherence(real, tapers).sel(source="S0", target="S1").mean()) > 0.1
    assert not np.allclose(made, phase_randomised(real, seed=5))
    xr.testing.assert_identical(made, phase_randomised(real, seed=4))


def test_surrogates_refuse_what_has_no_time():
    with pytest.raises(ValueError, match="at least 4 times"):
        phase_randomised(xr.DataArray(np.zeros((3, 2)), dims=("trial", "time")), seed=0)


# Peers


def test_spectra_and_causality_agree_with_spectral_connectivity(rng):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        peer = pytest.importorskip("spectral_connectivity")
    # An odd number: of an even one theirs drops the lag of half of it, ours halves it.
    values = simulated(BOTH_WAYS, BOTH_NOISE, rng, n_trials=30, n_times=405)
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        # Theirs is (time, trial, channel).
        transformed = peer.Multitaper(
            values.transpose(1, 0, 2), sampling_frequency=RATE,
            time_halfbandwidth_product=3.0 * 405 / RATE, n_tapers=11,
        )  # fmt: skip
        theirs = peer.Connectivity.from_multitaper(transformed)
        power, shared = theirs.power()[0], theirs.coherence_magnitude()[0]
        # [..., i, j] of theirs is from j to i.
        causality = theirs.pairwise_spectral_granger_prediction()[0]
        frequency = theirs.frequencies
    tapers = Tapers(half_bandwidth=3.0, n_tapers=11)
    assert len(tapers.windows("test", RATE, 405)) == 11
    ours = multitaper_spectrum(labelled(values), tapers)
    np.testing.assert_allclose(ours.frequency, np.abs(frequency), atol=1e-9)
    ratio = ours.values.T[1:-1] / power[1:-1]
    np.testing.assert_allclose(ratio, ratio[0, 0], rtol=1e-6)
    ours = coherence(labelled(values), tapers).sel(source="S0", target="S1")
    np.testing.assert_allclose(ours, shared[:, 0, 1], atol=1e-6)
    ours = spectral_granger(labelled(values), tapers)
    np.testing.assert_allclose(ours.sel(source="S0", target="S1"), causality[:, 1, 0], atol=2e-3)
    np.testing.assert_allclose(ours.sel(source="S1", target="S0"), causality[:, 0, 1], atol=2e-3)
    assert float(ours.mean()) > 0.05


def test_spectra_and_causality_agree_with_elephant(rng):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        spectral = pytest.importorskip("elephant.spectral")
        causal = pytest.importorskip("elephant.causality.granger")
    values = simulated(ONE_WAY, ONE_WAY_NOISE, rng, n_trials=1, n_times=20_000)
    values = values - values.mean(axis=1)
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        _, power = spectral.multitaper_psd(values[0].T, fs=RATE, nw=50, num_tapers=99)
        _, pairs = causal.pairwise_spectral_granger(
            values[0, :, 0], values[0, :, 1], fs=RATE, nw=50, num_tapers=99
        )
        in_time = causal.pairwise_granger(values[0], max_order=5, information_criterion="bic")
    tapers = Tapers(half_bandwidth=0.5, n_tapers=99)
    ours = multitaper_spectrum(labelled(values), tapers)
    # Theirs drops the last sample of windows that are one sample longer.
    np.testing.assert_allclose(ours[:, 1:-1], power[:, 1:-1], rtol=5e-3)
    found = parametric_granger(labelled(values), max_order=5).in_time
    ahead, back = (found.sel(source=a, target=b).item() for a, b in (("S0", "S1"), ("S1", "S0")))
    # Theirs is rounded to the digits that its standard error warrants.
    assert ahead == pytest.approx(float(in_time.directional_causality_x_y), abs=6e-3)
    assert back == pytest.approx(float(in_time.directional_causality_y_x), abs=2e-3)
    # Where Wilson's step constrains lag 0, theirs constrains frequency 0: it stays a little off.
    ours = (
        spectral_granger(labelled(values), tapers).mean("frequency").sel(source="S0", target="S1")
    )
    theirs = pairs.directional_causality_x_y.mean()
    assert ours.item() == pytest.approx(float(theirs), rel=0.25)


# Refusals

NOISE = labelled(np.random.default_rng(7).normal(size=(10, 400, 2)))
WALK = labelled(np.random.default_rng(8).normal(size=(10, 400, 2)).cumsum(axis=1))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: spectral_granger(NOISE.isel(trial=[0]), Tapers(n_tapers=3)),
            "found 3 spectra .* more tri",
        ),
        (lambda: spectral_granger(NOISE.isel(site=[0])), "one channel, expected at least two"),
        (
            lambda: spectral_granger(0 * NOISE),
            "without power at some frequency.*Drop silent channels",
        ),
        (
            lambda: spectral_granger(WALK),
            "from one quarter of the trials to another.*Leave out the onset",
        ),
        (lambda: spectral_granger(NOISE.isel(site=[0, 0])), "site labels with repeats"),
        (
            lambda: spectral_granger(NOISE.isel(site=[0, 0]).assign_coords(site=["a", "b"])),
            "not positive definite.*copies of others",
        ),
        (lambda: spectral_granger(NOISE.expand_dims("condition")), "one dimension of channels"),
        (lambda: fit_autoregression(WALK, order=2), "takes .* s to decay.*slow drifts"),
        (
            lambda: fit_autoregression(NOISE.isel(trial=[0], time=slice(30))),
            "20 observations for 20|10 observations for 20 lags of 2 channels.*lower the order",
        ),
        (
            lambda: fit_autoregression(NOISE.isel(site=[0, 0]).assign_coords(site=["a", "b"])),
            "copies of others",
        ),
        (lambda: spectral_factor(np.full((8, 2, 2), -1.0)), "not positive definite"),
        (lambda: spectral_factor(np.full((8, 1, 1), 1j)), "no spectrum of real signals"),
        (lambda: spectral_factor(np.ones((8, 2))), "found a spectrum of shape"),
        (
            lambda: spectral_factor(
                np.linspace(1, 9, 8)[[0, 1, 2, 3, 4, 3, 2, 1], None, None], max_steps=1
            ),
            "after 1 steps.*longer segments",
        ),
    ],
)
def test_bad_input_is_refused(call, message):
    with pytest.raises((ValueError, RuntimeError), match=message):
        call()
