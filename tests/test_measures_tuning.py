"""Tuning curves and indices against closed forms and hand-made curves."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from pcsim.measures import (
    circular_selectivity,
    condition_mean,
    direction_selectivity,
    end_stopping_index,
    half_width,
    mean_rate,
    optimal_value,
    orientation_selectivity,
    peak_and_plateau,
    rectified,
    suppression_index,
    tuning_curve,
)
from pcsim.responses import make_responses


def responses(rate, **trial):
    rate = np.asarray(rate, dtype=float)
    trial.setdefault("condition", ["a"] * rate.shape[0])
    units = {
        "population": ["error"] * rate.shape[2],
        "level": np.arange(rate.shape[2]) % 2,
        "x": np.arange(rate.shape[2]) * 0.5,
    }
    return make_responses(
        rate, time=0.05 * np.arange(1, rate.shape[1] + 1), units=units, trial=trial
    )


def curve(values, at, dim="length"):
    values = np.atleast_2d(np.asarray(values, dtype=float))
    return xr.DataArray(values, dims=("unit", dim), coords={dim: at, "unit": range(len(values))})


def test_curve_averages_trials_and_times_by_label(rng):
    rate = rng.normal(size=(12, 4, 3))
    length = np.tile([9.0, 3.0, 6.0], 4)
    result = tuning_curve(responses(rate, length=length), "length", rectify="none")
    assert result.dims == ("unit", "length")
    np.testing.assert_array_equal(result["length"], [3.0, 6.0, 9.0])
    for k, value in enumerate([3.0, 6.0, 9.0]):
        expected = rate[length == value].mean(axis=(0, 1))
        np.testing.assert_allclose(result[:, k], expected, rtol=1e-12)
    np.testing.assert_array_equal(result["x"], [0.0, 0.5, 1.0])
    np.testing.assert_array_equal(result["level"], [0, 1, 0])


def test_order_of_trials_and_units_changes_nothing(rng):
    r = responses(rng.normal(size=(8, 3, 5)), length=np.tile([1.0, 2.0], 4), phase=[0.0, 1.0] * 4)
    turned = r.isel(trial=rng.permutation(8), unit=rng.permutation(5))
    a, b = (tuning_curve(x, "length", rectify="abs").sortby("unit") for x in (r, turned))
    xr.testing.assert_identical(a, b)


def test_curve_over_two_parameters(rng):
    rate = rng.normal(size=(6, 2, 1))
    contrast, angle = np.repeat([0.1, 0.5, 1.0], 2), np.tile([0.0, 0.7], 3)
    r = responses(rate, contrast=contrast, orientation=angle)
    result = tuning_curve(r, ("orientation", "contrast"), rectify="none")
    assert result.dims == ("unit", "orientation", "contrast")
    at = result.sel(orientation=0.7, contrast=0.5).item()
    assert at == pytest.approx(rate[3].mean(), rel=1e-12)


def test_rectified_before_the_mean():
    r = responses(np.array([[[-1.0], [3.0]], [[-4.0], [1.0]]]))
    assert mean_rate(r).values.ravel().tolist() == [1.0, -1.5]
    assert mean_rate(r, rectify="half").values.ravel().tolist() == [1.5, 0.5]
    assert mean_rate(r, rectify="abs").values.ravel().tolist() == [2.0, 2.5]
    assert rectified(xr.DataArray([-2.0]), "none").item() == -2.0


def test_window_includes_its_ends():
    r = responses(np.arange(1.0, 7.0).reshape(1, 6, 1))
    # 0.05 * 3 is a little above 0.15 in floating point and still belongs to the window.
    assert mean_rate(r, window=slice(0.1, 0.15)).item() == 2.5
    assert mean_rate(r, window=slice(0.3, None)).item() == 6.0


def test_condition_mean_sorts_conditions():
    r = responses(np.array([2.0, 4.0, 9.0]).reshape(3, 1, 1), condition=["b", "b", "a"])
    result = condition_mean(mean_rate(r))
    assert result["condition"].values.tolist() == ["a", "b"]
    assert result.values.ravel().tolist() == [9.0, 3.0]


def test_end_stopping_by_hand():
    c = curve([[1.0, 8.0, 4.0, 2.0, 3.0], [1.0, 2.0, 3.0, 4.0, 4.0]], [2, 6, 18, 20, 26])
    np.testing.assert_allclose(end_stopping_index(c, limit=18), [100 * (8 - 2.5) / 8, 0.0])
    both = peak_and_plateau(c, limit=18)
    np.testing.assert_allclose(both["plateau"], [2.5, 4.0])
    np.testing.assert_array_equal(optimal_value(c), [6, 20])


def test_signs_of_the_plateau_are_a_choice():
    c = curve([4.0, 8.0, -2.0], [2, 6, 20])
    index = [end_stopping_index(c, limit=18, rectify=r).item() for r in ("none", "half", "abs")]
    assert index == [125.0, 100.0, 75.0]


def test_units_without_response_are_not_a_number():
    c = curve([[0.0, 0.0, 0.0], [-3.0, -1.0, -2.0]], [2, 6, 20])
    assert np.isnan(end_stopping_index(c, limit=18)).all()
    assert np.isnan(suppression_index(c, rectify="half")).all()


def test_suppression_of_a_ratio_of_gaussians_model():
    # Integrated centre and surround: R = Kc Lc / (1 + Ks Ls), L = (1 - exp(-(d / w)^2)).
    size = np.geomspace(0.2, 60.0, 200)
    centre, surround = 1 - np.exp(-((size / 1.0) ** 2)), 1 - np.exp(-((size / 5.0) ** 2))
    c = curve(30 * centre / (1 + 0.7 * surround), size, "diameter")
    # The widest grating saturates both; the peak is found on a finer grid.
    fine = np.linspace(0.2, 6.0, 20_001)
    peak = (30 * (1 - np.exp(-(fine**2))) / (1 + 0.7 * (1 - np.exp(-((fine / 5) ** 2))))).max()
    expected = 1 - (30 / 1.7) / peak
    assert suppression_index(c).item() == pytest.approx(expected, abs=1e-3)


@pytest.mark.parametrize("shift", [0.0, 0.9, 3.0])
def test_half_width_of_a_von_mises_curve(shift):
    angle = np.arange(96) * np.pi / 96
    k = 2.3
    c = curve(4 + 7 * np.exp(k * (np.cos(2 * (angle - shift)) - 1)), angle, "orientation")
    # Half way between the maximum and the minimum exp(-2k).
    half = 0.5 * (1 + np.exp(-2 * k))
    expected = 0.5 * np.arccos(1 + np.log(half) / k)
    assert half_width(c, period=np.pi).item() == pytest.approx(expected, abs=2e-3)


def test_half_width_does_not_depend_on_gain_or_floor():
    at = np.linspace(-4, 4, 41)
    gauss = np.exp(-0.5 * (at / 0.8) ** 2)
    expected = 0.8 * np.sqrt(2 * np.log(2))
    both = curve([3 * gauss, 0.7 * gauss + 5], at)
    np.testing.assert_allclose(half_width(both), expected, rtol=2e-2)
    widths = half_width(both, floor="zero").values
    assert widths[0] == pytest.approx(expected, rel=2e-2)
    assert np.isnan(widths[1])
    assert np.isnan(half_width(curve([2.0, 2.0, 2.0], [1, 2, 3]))).all()


def test_selectivity_closed_forms():
    angle = np.arange(8) * np.pi / 8
    c = curve(
        [3 + 2 * np.cos(2 * (angle - np.pi / 4)), np.full(8, 0.7), np.eye(8)[3]],
        angle,
        "orientation",
    )
    np.testing.assert_allclose(orientation_selectivity(c), [2 / 3, 0.0, 1.0], atol=1e-12)
    expected = [1 / 3, 0.0, 1.0]
    np.testing.assert_allclose(circular_selectivity(c, period=np.pi), expected, atol=1e-12)


def test_directions_fold_to_orientations():
    angle = np.arange(16) * np.pi / 8
    values = 3 + 2 * np.cos(2 * angle) + 1.5 * np.cos(angle)
    c = curve(values, angle, "direction")
    assert direction_selectivity(c).item() == pytest.approx((6.5 - 3.5) / 10, rel=1e-12)
    folded = orientation_selectivity(c, dim="direction").item()
    assert folded == pytest.approx((5 - 1) / 6, rel=1e-12)


def test_odd_number_of_angles_is_interpolated():
    angle = np.arange(3) * np.pi / 3
    # The orthogonal angle pi/2 lies half way between the second and third.
    c = curve([4.0, 1.0, 2.0], angle, "orientation")
    assert orientation_selectivity(c).item() == pytest.approx(2.5 / 5.5, rel=1e-9)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda r, c: tuning_curve(r, "lenght", rectify="none"), "Did you mean 'length'"),
        (lambda r, c: tuning_curve(r, "length", rectify="both"), "'abs', 'half', 'none'"),
        (
            lambda r, c: tuning_curve(r, "length", rectify="none", window=slice(1.0, 2.0)),
            "Widen the window",
        ),
        (lambda r, c: tuning_curve(r, ("length", "phase"), rectify="none"), "every combination"),
        (lambda r, c: tuning_curve(r, (), rectify="none"), "different names"),
        (lambda r, c: end_stopping_index(c, limit=30), "both sides of the limit"),
        (lambda r, c: end_stopping_index(c, limit=18, dim="size"), "Name one of"),
        (lambda r, c: end_stopping_index(c.drop_vars("length"), limit=18), "labelled dimension"),
        (lambda r, c: suppression_index(c.isel(length=[0])), "at least 2"),
        (lambda r, c: half_width(c.isel(length=[0, 1])), "at least 3"),
        (lambda r, c: half_width(c, period=3.0), "less than one period"),
        (lambda r, c: half_width(c, floor="low"), "'minimum', 'zero'"),
        (lambda r, c: orientation_selectivity(-c, dim="length"), "rectify='half' or 'abs'"),
        (lambda r, c: direction_selectivity(c, dim="length"), "within one turn"),
        (lambda r, c: circular_selectivity(c, period=np.pi), "evenly spaced"),
        (lambda r, c: optimal_value(c.where(c > 2)), "finite rates"),
    ],
)
def test_bad_input_is_refused(call, message):
    r = responses(np.ones((3, 2, 1)), length=[1.0, 2.0, 3.0], phase=[0.0, 0.0, 1.0])
    with pytest.raises(ValueError, match=message):
        call(r, curve([4.0, 8.0, 2.0], [2.0, 6.0, 20.0]))


@pytest.mark.parametrize("parameter", [None, 3, {"length"}, [["length"], ["length"]], [3]])
def test_parameters_that_are_no_names_are_refused(refused, parameter):
    r = responses(np.ones((1, 2, 1)), length=[1.0])
    assert refused(tuning_curve, r, parameter, rectify="none").startswith("tuning_curve: found")


def test_wrong_kinds_are_refused():
    with pytest.raises(TypeError, match="tuning_curve"):
        end_stopping_index(np.ones(3), limit=1)
    with pytest.raises(TypeError, match="slice"):
        mean_rate(responses(np.ones((1, 1, 1))), window=(0.0, 0.1))
