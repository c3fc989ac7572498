"""Receptive fields: known filters out of noise, shape measures and fits of known functions."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from pcsim.filters import difference_of_gaussians, gabor
from pcsim.measures import (
    annulus_depth,
    fit_difference_of_gaussians,
    fit_gabor,
    least_squares_receptive_field,
    locality,
    neighbour_asymmetry,
    radial_profile,
    response_triggered_average,
)
from pcsim.measures import field_fit as fitting
from pcsim.responses import make_responses, stimulus_array

UNITS = {"population": "error", "level": 1, "x": [0.0, 2.0], "y": [1.0, 1.0]}


def images(rng, n=3000, side=6, sigma=0.15):
    values = 0.5 + sigma * rng.normal(size=(n, 1, side, side))
    return stimulus_array(values, frame_duration=0.1, px_per_deg=16.0)


def answers(stimulus, filters, noise=0.0, rng=None):
    """Linear units, two bins a frame whose mean is the response."""
    drive = np.einsum("tfyx,uyx->tfu", stimulus.values, filters) + 3.0
    if noise:
        drive = drive + noise * rng.normal(size=drive.shape)
    rate = np.repeat(drive, 2, axis=1) + np.tile([0.5, -0.5], drive.shape[1])[:, None]
    time = 0.05 * np.arange(1, rate.shape[1] + 1)
    return make_responses(rate, time=time, units=UNITS, trial=stimulus)


def pair(side=6):
    return np.stack(
        [
            gabor((side, side), sigma=1.3, frequency=0.2, orientation=0.6, phase=0.8),
            -difference_of_gaussians(side, sigma_center=0.8, sigma_surround=1.7, weight=0.7),
        ]
    )


def test_average_of_a_linear_unit_is_its_filter_within_four_errors(rng):
    stimulus, filters, noise = images(rng), pair(), 0.3
    field = response_triggered_average(answers(stimulus, filters, noise, rng), stimulus)
    assert field.dims == ("unit", "y", "x")
    # Error of a covariance over the variance: the response's own spread over sigma root n.
    spread = np.sqrt(noise**2 + 0.15**2 * (filters**2).sum((1, 2)) * 2) / 0.15
    error = (spread / np.sqrt(3000))[:, None, None]
    assert (np.abs(field - filters) < 4 * error).all()
    assert np.abs((field - filters) / error).std() > 0.2


def test_least_squares_is_exact_for_linear_units(rng):
    filters = pair()
    # Neighbouring pixels are correlated, so the average is blurred and least squares is not.
    white = images(rng, n=300)
    blurred = white.copy(data=0.5 * (white.values + np.roll(white.values, 1, axis=-1)) + 0.1)
    blurred = blurred + 0.05 * white
    blurred = blurred.rename("stimulus").transpose(*white.dims)
    r = answers(blurred, filters)
    np.testing.assert_allclose(least_squares_receptive_field(r, blurred), filters, atol=1e-9)
    assert np.abs(response_triggered_average(r, blurred) - filters).max() > 0.05


def test_ridge_has_the_closed_form(rng):
    stimulus, filters = images(rng, n=200), pair()
    r = answers(stimulus, filters, 0.5, rng)
    s = stimulus.values.reshape(200, 36)
    s = s - s.mean(0)
    rate = r.rate.values.mean(1)
    gram = s.T @ s / 200
    ridge = 0.7 * np.trace(gram) / 36 * np.eye(36)
    expected = np.linalg.solve(gram + ridge, s.T @ (rate - rate.mean(0)) / 200)
    field = least_squares_receptive_field(r, stimulus, ridge=0.7)
    np.testing.assert_allclose(field.values.reshape(2, 36), expected.T, rtol=1e-9, atol=1e-12)


def sequences(rng, lags=3, n_trials=4, n_frames=160):
    values = (rng.random((n_trials, n_frames, 3, 3)) < 0.5).astype(float)
    stimulus = stimulus_array(values, frame_duration=0.1, px_per_deg=16.0)
    kernel = rng.normal(size=(2, lags, 3, 3))
    drive = np.zeros((n_trials, n_frames, 2))
    for lag in range(lags):
        shown = np.einsum("tfyx,uyx->tfu", values, kernel[:, lag])
        drive[:, lag:] += shown[:, : n_frames - lag]
    return stimulus, kernel, drive


def test_lags_of_a_linear_cascade_are_exact(rng, monkeypatch):
    stimulus, kernel, drive = sequences(rng)
    r = make_responses(drive, time=0.1 * np.arange(1, 161), units=UNITS, trial=stimulus)
    field = least_squares_receptive_field(r, stimulus, lags=range(3))
    assert field.dims == ("unit", "lag", "y", "x")
    np.testing.assert_allclose(field, kernel, atol=1e-9)
    np.testing.assert_allclose(field["lag_time"], [0.0, 0.1, 0.2])
    monkeypatch.setattr("pcsim.measures.receptive_field.BLOCK", 200)
    small = least_squares_receptive_field(r, stimulus, lags=range(3))
    np.testing.assert_allclose(small, field, atol=1e-10)
    # Later lags alone: frames without all lags are left out, the others keep their place.
    average = response_triggered_average(r, stimulus, lags=[2, 0], window=slice(0.5, None))
    samples = 4 * 155
    spread = np.sqrt((kernel**2).sum((1, 2, 3)) / samples)
    for lag in (0, 2):
        error = np.abs(average.sel(lag=lag) - kernel[:, lag]) / spread[:, None, None]
        # The largest of 18 errors.
        assert (error < 4.5).all()


def test_order_of_trials_and_units_changes_nothing(rng):
    stimulus, _, drive = sequences(rng)
    r = make_responses(drive, time=0.1 * np.arange(1, 161), units=UNITS, trial=stimulus)
    a = response_triggered_average(r, stimulus, lags=[0, 1])
    b = response_triggered_average(r.isel(trial=[2, 0, 3, 1], unit=[1, 0]), stimulus, lags=[0, 1])
    np.testing.assert_allclose(a, b.sortby("unit"), rtol=1e-12)
    c = response_triggered_average(r, stimulus.isel(trial=[3, 2, 1, 0]), lags=[0, 1])
    xr.testing.assert_identical(a, c)


def test_labels_of_units_stay(rng):
    stimulus = images(rng, n=50)
    field = response_triggered_average(answers(stimulus, pair()), stimulus)
    assert field["population"].values.tolist() == ["error", "error"]
    assert field["unit_x"].values.tolist() == [0.0, 2.0]
    assert field["px_per_deg"].item() == 16.0


def test_features_have_no_pixels(rng):
    stimulus = stimulus_array(rng.normal(size=(40, 1, 5)), frame_duration=0.1)
    weights = rng.normal(size=(5, 2))
    r = make_responses(stimulus.values @ weights, time=[0.1], units=UNITS, trial=stimulus)
    field = least_squares_receptive_field(r, stimulus)
    assert field.dims == ("unit", "feature")
    np.testing.assert_allclose(field, weights.T, atol=1e-10)


def field_of(*maps):
    return xr.DataArray(
        np.stack(maps), dims=("unit", "y", "x"), coords={"level": ("unit", [2] * len(maps))}
    )


def test_annulus_depth_of_an_analytic_filter():
    rows, columns = np.mgrid[:13, :13] - 6.0
    radius = np.hypot(rows, columns)
    weight, wide = 0.11, 2.6

    def profile(r):
        return np.exp(-0.5 * r**2 / 0.7**2) - weight * np.exp(-0.5 * r**2 / wide**2)

    kernel = profile(radius)
    depth = annulus_depth(field_of(kernel, -4.0 * kernel))
    rings = [[r for r in radius.ravel() if k - 0.5 < r < k + 0.5] for k in range(1, 6)]
    expected = min(np.mean([profile(r) for r in ring]) for ring in rings) / (1 - weight)
    np.testing.assert_allclose(depth, expected, rtol=1e-12)
    # The continuous profile falls deepest a little short of the ring of 2 pixels.
    fine = profile(np.linspace(0, 6, 6001)).min() / (1 - weight)
    assert fine < expected < 0.75 * fine
    assert (depth["level"] == 2).all()


def test_profile_of_a_cone_with_an_off_centre_peak():
    rows, columns = np.mgrid[:15, :12]
    radius = np.hypot(rows - 8, columns - 4)
    result = radial_profile(field_of(10.0 - radius), [0, 1, 2])
    one = (4 * 1 + 4 * np.sqrt(2)) / 8
    two = (4 * 2 + 8 * np.sqrt(5)) / 12
    np.testing.assert_allclose(result[0], [1.0, 1 - one / 10, 1 - two / 10], rtol=1e-12)


def test_locality_by_hand():
    kernel = np.zeros((15, 15))
    kernel[7, 7], kernel[7, 10], kernel[7, 11], kernel[0, 0] = 2.0, 1.0, 1.0, -0.5
    # 3 pixels are nearer than 4, 4 pixels are not.
    expected = (4 + 1) / (4 + 1 + 1 + 0.25)
    assert locality(field_of(kernel)).item() == pytest.approx(expected, rel=1e-12)
    assert locality(field_of(kernel), radius=30.0).item() == pytest.approx(1.0)


def test_asymmetry_by_hand():
    kernel = np.zeros((5, 5))
    kernel[2, 2] = -2.0
    kernel[1:4, 3] = -1.0
    around = np.array([0.5] * 3 + [0.0] * 5)
    border = np.zeros((5, 5))
    border[0, 2] = 1.0
    result = neighbour_asymmetry(field_of(kernel, border, np.zeros((5, 5))))
    assert result[0].item() == pytest.approx(around.std(), rel=1e-12)
    assert np.isnan(result[1:]).all()


def test_shape_ignores_sign_and_gain(rng):
    maps = rng.normal(size=(3, 13, 13))
    for measure in (annulus_depth, locality, neighbour_asymmetry):
        a, b = measure(field_of(*maps)), measure(field_of(*(-0.7 * maps)))
        np.testing.assert_allclose(a, b, rtol=1e-12)


def test_zeros_have_no_shape():
    silent = field_of(np.zeros((13, 13)))
    assert np.isnan(annulus_depth(silent)).all()
    assert np.isnan(locality(silent)).all()
    assert np.isnan(fit_gabor(silent)["sigma"]).all()


@pytest.mark.parametrize("name", ["_gabor", "_difference"])
def test_jacobians_by_finite_differences(rng, name):
    function = getattr(fitting, name)
    right, up = fitting._pixels((9, 8))
    low, high = {
        "_gabor": ([-1, -1, 0.2, 0.3, 0.05, -2, -1, -1], [1, 1, 1.2, 1.5, 0.3, 2, 1, 1]),
        "_difference": ([-1, -1, 0, 0.3, 0.5, 0.1], [1, 1, 1, 1.5, 4, 2]),
    }[name]
    for _ in range(10):
        p = rng.uniform(low, high)
        numeric = [
            (function(p + h, right, up)[0] - function(p - h, right, up)[0]) / 2e-6
            for h in 1e-6 * np.eye(p.size)
        ]
        analytic = function(p, right, up)[1]
        np.testing.assert_allclose(analytic, np.stack(numeric, axis=1), atol=1e-8)


def test_gabors_are_recovered_from_noise(rng):
    truth = [
        {
            "x": rng.uniform(-2, 2),
            "y": rng.uniform(-2, 2),
            "sigma": rng.uniform(1.6, 2.6),
            "aspect": rng.uniform(0.9, 1.6),
            "frequency": rng.uniform(0.1, 0.25),
            "orientation": rng.uniform(0, np.pi),
            "phase": rng.uniform(0, 2 * np.pi),
        }
        for _ in range(25)
    ]
    maps = np.stack([0.7 * gabor((16, 16), **p) for p in truth])
    exact = fit_gabor(field_of(*maps))
    assert (exact["r_squared"] > 1 - 1e-6).all()
    # A Gabor with few periods under its envelope can be written in more than one way.
    clear = np.array([p["sigma"] * p["frequency"] > 0.22 for p in truth])
    assert clear.sum() > 12
    noise = 0.03
    noisy = fit_gabor(field_of(*(maps + noise * rng.normal(size=maps.shape))))
    for fit, error in ((exact, 2e-3), (noisy, 0.25)):
        for name in ("x", "y", "sigma", "aspect", "frequency"):
            expected = np.array([p[name] for p in truth])
            assert (np.abs(fit[name] - expected)[clear] < error).all(), name
        turn = np.array([p["orientation"] for p in truth]) - fit["orientation"].values
        assert (np.abs(np.sin(turn))[clear] < 0.6 * error).all()
        n_x = np.array([p["sigma"] * p["frequency"] for p in truth])
        assert (np.abs(fit["n_x"] - n_x)[clear] < 0.25 * error).all()
        n_y = n_x * [p["aspect"] for p in truth]
        assert (np.abs(fit["n_y"] - n_y)[clear] < 0.25 * error).all()
        # The fitted function itself is what phase and amplitude are checked by.
        names = ("x", "y", "sigma", "aspect", "frequency", "orientation", "phase")
        rebuilt = [
            fit["amplitude"].values[i] * gabor((16, 16), **{n: fit[n].values[i] for n in names})
            for i in range(25)
        ]
        assert np.abs(rebuilt - maps)[clear].max() < 0.25 * error + 1e-3
    power = (maps**2).mean((1, 2))
    expected = power / (power + noise**2)
    np.testing.assert_allclose(noisy["r_squared"], expected, atol=0.05)
    assert (noisy["orientation"] >= 0).all()
    assert (noisy["orientation"] < np.pi).all()
    assert (noisy["amplitude"] > 0).all()


def test_fitted_parameters_do_not_depend_on_sign_and_gain():
    kernel = gabor((14, 14), sigma=2.0, frequency=0.17, orientation=2.1, phase=0.4, aspect=1.3)
    fit = fit_gabor(field_of(kernel, -250.0 * kernel))
    for name in ("sigma", "frequency", "orientation", "n_y"):
        assert fit[name][0].item() == pytest.approx(fit[name][1].item(), rel=1e-4)
    np.testing.assert_allclose(fit["amplitude"], [1.0, 250.0], rtol=1e-4)
    assert (fit["phase"][1] - fit["phase"][0]).item() == pytest.approx(np.pi, abs=1e-3)


def test_differences_of_gaussians_are_recovered_from_noise(rng):
    rows, columns = np.mgrid[:21, :21] - 10.0
    centre, surround, weight = 1.2, 3.1, 0.72

    def kernel(x, y, amplitude):
        r2 = (columns - x) ** 2 + (-rows - y) ** 2
        inner = np.exp(-0.5 * r2 / centre**2) / (2 * np.pi * centre**2)
        outer = np.exp(-0.5 * r2 / surround**2) / (2 * np.pi * surround**2)
        return amplitude * (inner - weight * outer)

    exact = fit_difference_of_gaussians(field_of(kernel(1.3, -0.8, 2.5), kernel(0.4, 0.2, -7.0)))
    np.testing.assert_allclose(exact["sigma_center"], centre, rtol=1e-4)
    np.testing.assert_allclose(exact["sigma_surround"], surround, rtol=1e-4)
    np.testing.assert_allclose(exact["weight"], weight, rtol=1e-4)
    np.testing.assert_allclose(exact["amplitude"], [2.5, -7.0], rtol=1e-4)
    np.testing.assert_allclose(exact["x"], [1.3, 0.4], atol=1e-4)
    np.testing.assert_allclose(exact["y"], [-0.8, 0.2], atol=1e-4)
    assert not exact["at_bound"].any()
    maps = [kernel(0.3, 0.1, 2.5) + 0.002 * rng.normal(size=(21, 21)) for _ in range(12)]
    noisy = fit_difference_of_gaussians(field_of(*maps))
    assert noisy["sigma_center"].median().item() == pytest.approx(centre, rel=0.03)
    assert noisy["sigma_surround"].median().item() == pytest.approx(surround, rel=0.1)
    assert noisy["weight"].median().item() == pytest.approx(weight, rel=0.1)


def test_a_plain_gaussian_has_no_surround_to_size():
    rows, columns = np.mgrid[:15, :15] - 7.0
    fit = fit_difference_of_gaussians(field_of(np.exp(-0.5 * (rows**2 + columns**2) / 1.7**2)))
    assert fit["at_bound"].item() == 1.0
    assert fit["r_squared"].item() > 0.999


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda r, s: response_triggered_average(r, s.isel(trial=slice(5))), "same trials"),
        (lambda r, s: response_triggered_average(r, s, lags=[]), "different whole numbers"),
        (lambda r, s: response_triggered_average(r, s, lags=[1, 1]), "different whole numbers"),
        (lambda r, s: response_triggered_average(r, s, lags=[-1]), "not below 0"),
        (lambda r, s: response_triggered_average(r, s, lags=[7]), "at least 2"),
        (lambda r, s: response_triggered_average(r, s, window=slice(5, 6)), "Widen the window"),
        (lambda r, s: response_triggered_average(r, 0 * s + 0.5), "never changes"),
        (lambda r, s: least_squares_receptive_field(r, 0 * s + 0.5), "never changes"),
        (lambda r, s: least_squares_receptive_field(r, s), "pass ridge=0.01"),
        (lambda r, s: least_squares_receptive_field(r, s, ridge=-1.0), "ridge -1"),
        (lambda r, s: annulus_depth(s.isel(x=0)), "name the axes y and x"),
        (lambda r, s: annulus_depth(s, range(1, 12)), "pass smaller radii"),
        (lambda r, s: annulus_depth(s, []), "no radii"),
        (lambda r, s: annulus_depth(s, [0.5]), "radius"),
        (lambda r, s: locality(s, radius=0.0), "radius 0"),
        (lambda r, s: locality(s * np.nan), "finite values"),
        (lambda r, s: fit_gabor(s.isel(x=slice(3))), "at least 5 x 5"),
        (lambda r, s: fit_difference_of_gaussians(s.values), "ndarray"),
    ],
)
def test_bad_input_is_refused(call, message):
    rng = np.random.default_rng(11)
    stimulus = images(rng, n=20)
    with pytest.raises((ValueError, TypeError), match=message):
        call(answers(stimulus, pair()), stimulus)
