"""Measures at their edges: blanks, constants, ends of bands, files that are read in chunks."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from pcsim.measures import (
    burst_onsets,
    circular_selectivity,
    directed_asymmetry,
    fit_autoregression,
    fit_curve,
    fit_naka_rushton,
    half_width,
    linear_cka,
    multitaper_spectrum,
    noise_corrected_variance,
    noise_precision,
    noise_signal_correlation,
    optimal_value,
    orientation_selectivity,
    peak_and_plateau,
    phase_randomised,
    poisson_ridge,
    power_spectrum,
    ridge_encoding,
    shape_distance,
    shuffle_corrected_information,
    suppression_index,
    tuning_curve,
)
from pcsim.responses import make_responses, open_responses, save

# Blanks and infinite sizes


def gratings_and_a_blank():
    """Return responses 10, 4, 2, 4 to gratings and 30 to a blank screen."""
    angle = np.array([0.0, 0.25, 0.5, 0.75, np.nan]) * np.pi
    return make_responses(
        np.array([10.0, 4.0, 2.0, 4.0, 30.0]).reshape(5, 1, 1),
        time=[0.1],
        units={"population": "output", "level": 0},
        trial={"condition": ["g"] * 4 + ["blank"], "orientation": angle},
    )


@pytest.mark.parametrize(
    "measure",
    [
        orientation_selectivity,
        suppression_index,
        optimal_value,
        lambda curve: circular_selectivity(curve, period=np.pi),
        lambda curve: half_width(curve, period=np.pi),
        lambda curve: peak_and_plateau(curve, limit=1.0),
        lambda curve: fit_curve(curve, "von_mises"),
        lambda curve: fit_naka_rushton(curve, dim="orientation"),
    ],
)
def test_a_blank_is_no_grating(refused, measure):
    curve = tuning_curve(gratings_and_a_blank(), "orientation", rectify="none")
    message = refused(measure, curve)
    assert "1 of 5 values of orientation NaN or infinite" in message
    assert "Drop the blanks" in message


def test_what_the_advice_says_gives_the_index_of_the_gratings():
    shown = gratings_and_a_blank()
    shown = shown.isel(trial=np.isfinite(shown["orientation"].values))
    curve = tuning_curve(shown, "orientation", rectify="none")
    # (10 - 2) / (10 + 2), between the preferred and the orthogonal orientation.
    assert orientation_selectivity(curve).item() == pytest.approx(8 / 12, rel=1e-12)


def sizes(at):
    return xr.DataArray([1.0, 8.0, 4.0, 2.0], dims="diameter", coords={"diameter": at})


def test_a_grating_that_fills_the_field_is_ranked_but_not_fitted(refused):
    curve = sizes([0.5, 1.0, 2.0, np.inf])
    both = peak_and_plateau(curve, limit=1.5)
    assert (both["peak"].item(), both["plateau"].item()) == (8.0, 3.0)
    assert suppression_index(curve, limit=1.5).item() == pytest.approx(5 / 8, rel=1e-12)
    assert optimal_value(curve).item() == 1.0
    assert "give them a finite value" in refused(half_width, curve)


# Constants


@pytest.mark.parametrize("value", [0.1, 0.3, 1e-7, 1e9, 0.7])
@pytest.mark.parametrize("n", [10, 11, 13])
def test_responses_that_do_not_vary_have_no_alignment(rng, value, n):
    still, other = np.full((n, 3), value), rng.normal(size=(n, 4))
    for debiased in (False, True):
        assert np.isnan(linear_cka(still, other, debiased=debiased))
        assert np.isnan(linear_cka(other, still, debiased=debiased))
    for alpha in (0.0, 0.4, 1.0):
        assert np.isnan(shape_distance(still, other, alpha=alpha))


@pytest.mark.parametrize("size", [1e-9, 1e-5])
def test_small_variation_about_a_large_mean_is_variation(rng, size):
    x = rng.normal(size=(40, 3))
    # CKA is blind to offset and scale; digits are lost, the measure is not.
    assert linear_cka(1.0 + size * x, x) == pytest.approx(1.0, abs=1e-6)


@pytest.mark.parametrize("value", [0.1, 0.3, 0.5, 1e9, 0.0])
@pytest.mark.parametrize("n", [2, 3, 7])
def test_constant_repeats_have_no_signal_to_explain(value, n):
    assert np.isnan(noise_corrected_variance(np.full((n, 3), value), [0.0, 1.0, 2.0]))


def test_each_unit_has_a_signal_of_its_own_size():
    # The middle unit is constant, the last one far smaller than the first.
    one = np.array([[1e6, 0.3, 1e-6], [2e6, 0.3, 2e-6], [3e6, 0.3, 3e-6]])
    share = noise_corrected_variance(np.stack([one, one]), one)
    np.testing.assert_allclose(share, [1.0, np.nan, 1.0], rtol=1e-9)


def test_correlations_of_correlations_that_are_all_equal_are_unknown(rng):
    still, other = np.full((5, 5), 0.1), rng.normal(size=(5, 5))
    assert np.isnan(noise_signal_correlation(still, other))
    assert np.isnan(noise_signal_correlation(other, still))


# Precision of the noise


@pytest.mark.parametrize("p", [1, 2, 5])
def test_two_samples_give_no_precision(rng, refused, p):
    assert "at least 3" in refused(noise_precision, rng.normal(size=(2, p)))


@pytest.mark.parametrize("sizes", [(1.0, -1.0, 1.0, -1.0), (2.0, -2.0, 2.0, -2.0)])
def test_samples_on_a_line_give_no_precision(refused, sizes):
    # All residuals have one length: nothing is left over to shrink by, and S has rank 1.
    line = np.outer(sizes, [0.7, -0.4, 2.0])
    assert "cannot be inverted" in refused(noise_precision, line)


def test_three_samples_give_the_inverse_of_the_shrunk_covariance(rng):
    residuals = rng.normal(size=(3, 4))
    from sklearn.covariance import LedoitWolf

    expected = LedoitWolf().fit(residuals).covariance_
    np.testing.assert_allclose(noise_precision(residuals) @ expected, np.eye(4), atol=1e-10)


# Files that are read in chunks


@pytest.fixture
def chunked(rng, tmp_path):
    pytest.importorskip("dask", reason="chunks need dask: pip install 'pcsim[zarr]'")
    pytest.importorskip("zarr", reason="needs zarr: pip install 'pcsim[zarr]'")
    whole = make_responses(
        rng.random((8, 64, 5)),
        time=0.01 * np.arange(1, 65),
        units={"population": "output", "level": 0},
        trial={"condition": ["a", "b"] * 4},
    )
    opened = open_responses(save(whole, tmp_path / "r.zarr"))
    assert opened["rate"].chunks is not None
    return whole, opened


@pytest.mark.parametrize(
    "measure",
    [
        power_spectrum,
        lambda r: power_spectrum(r["rate"], segment=0.32),
        lambda r: phase_randomised(r["rate"], seed=3),
        lambda r: multitaper_spectrum(r["rate"]),
    ],
)
def test_chunks_change_nothing(chunked, measure):
    whole, opened = (measure(one) for one in chunked)
    # Sums over another layout of memory round otherwise.
    xr.testing.assert_allclose(opened, whole, rtol=1e-12)
    assert set(opened.coords) == set(whole.coords)


# Directed influence


def influence(ahead, back, frequency):
    values = np.full((2, 2, len(frequency)), np.nan)
    values[0, 1], values[1, 0] = ahead, back
    names = ["V1", "V2"]
    return xr.DataArray(
        values,
        dims=("source", "target", "frequency"),
        coords={"source": names, "target": names, "frequency": frequency},
    )


def test_both_ends_of_a_band_count_in_spite_of_rounding():
    frequency = 0.1 * np.arange(1, 11)
    assert frequency[2] > 0.3
    found = influence([9.0, 3.0, 6.0, *[5.0] * 7], [9.0, 1.0, 2.0, *[5.0] * 7], frequency)
    # (4.5 - 1.5) / (4.5 + 1.5) over 0.2 and 0.3; 0.2 alone would give the same, so weigh unlike.
    found.loc[{"source": "V1", "target": "V2", "frequency": frequency[2]}] = 4.0
    index = directed_asymmetry(found, forward=("V1", "V2"), band=(0.2, 0.3))
    assert index.item() == pytest.approx((3.5 - 1.5) / (3.5 + 1.5), rel=1e-12)
    low = directed_asymmetry(found, forward=("V1", "V2"), band=(frequency[2] + 5e-17, 0.35))
    assert low.item() == pytest.approx((4.0 - 2.0) / 6.0, rel=1e-12)


def test_what_was_not_measured_has_no_direction():
    frequency = [60.0, 70.0]
    unknown = influence([np.nan] * 2, [0.1, 0.1], frequency)
    assert np.isnan(directed_asymmetry(unknown, forward=("V1", "V2"), band=(60.0, 70.0)))
    none = influence([0.0] * 2, [0.0] * 2, frequency)
    assert directed_asymmetry(none, forward=("V1", "V2"), band=(60.0, 70.0)).item() == 0.0


def test_a_channel_has_no_influence_on_itself(refused):
    found = influence([0.3] * 2, [0.1] * 2, [60.0, 70.0])
    message = refused(directed_asymmetry, found, forward=("V1", "V1"), band=(60.0, 70.0))
    assert "'V1' as source and as target" in message


# The rest


def test_a_circular_shuffle_never_leaves_the_order_as_it_is(rng):
    # y is x of distinct symbols shifted by 0 only if nothing is shifted; of 2 samples, half were.
    x = np.array([0, 0, 0, 1])
    found = shuffle_corrected_information(x, x, n_shuffles=200, seed=4, circular=True)
    entropy = np.log(4) - 0.75 * np.log(3)
    # A shift of a lone 1 by 1 to 3 of 4 places: it meets a 0, as closed form of the table 2, 1, 1.
    shifted = 2 * entropy - (0.5 * np.log(2) + 0.5 * np.log(4))
    np.testing.assert_allclose(found.shuffled, shifted, rtol=1e-12)
    assert shifted < entropy


def test_one_sample_cannot_be_shifted(refused):
    message = refused(shuffle_corrected_information, [0], [0], circular=True)
    assert "at least 2 to shift" in message


def test_an_order_of_none_is_blamed_on_the_order(rng, refused):
    noise = xr.DataArray(
        rng.normal(size=(9, 50, 1)),
        dims=("trial", "time", "site"),
        coords={"time": np.arange(50.0)},
    )
    message = refused(fit_autoregression, noise, order=0)
    assert "found order 0" in message
    assert "max_order" not in message
    assert "found max_order 0" in refused(fit_autoregression, noise, max_order=0)


def test_no_samples_have_no_bursts():
    assert burst_onsets([], 0.01).size == 0
    assert burst_onsets([], 0.01, smoothing=0.1).size == 0


def test_a_start_of_another_shape_is_refused(refused):
    features, count = [[0.0], [0.0], [1.0], [1.0]], [1, 3, 4, 12]
    message = refused(poisson_ridge, features, count, penalty=0.7, start=np.zeros(3))
    assert "start of shape (3,), expected shape (2,)" in message
    fit = poisson_ridge(features, count, penalty=1e-9, start=[0, 0])
    np.testing.assert_allclose(np.exp([fit[0], fit[0] + fit[1]]), [2.0, 8.0], rtol=1e-6)


def test_folds_of_one_whole_number_stay_two(rng):
    x, y = rng.normal(size=(40, 3)), rng.normal(size=(40, 2))
    label = np.repeat([0.2, 0.7, 1.4, 1.9], 10)
    found = ridge_encoding(x, y, folds=label)
    # By definition the fold of a stimulus counts by which others share it, not by its name.
    expected = ridge_encoding(x, y, folds=np.repeat([0, 1, 2, 3], 10))
    assert found.penalty.shape == (4, 2)
    np.testing.assert_array_equal(found.prediction, expected.prediction)


def test_folds_have_to_be_two(rng, refused):
    folds = np.full(40, 0.3)
    assert "one fold" in refused(
        ridge_encoding, rng.normal(size=(40, 3)), np.ones((40, 1)), folds=folds
    )
