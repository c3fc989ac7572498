"""Bars and gratings have the area, place, orientation, frequency and contrast asked for."""

from __future__ import annotations

import numpy as np
import pytest

from pcsim import stimuli
from pcsim.stimulus import check_stimulus

PX = 16.0


def moments(image: np.ndarray) -> tuple[np.ndarray, np.ndarray, float]:
    """Return centre (right, up), covariance in degrees and sum of an image's excess over grey."""
    weight = np.abs(image - 0.5)
    y, x = np.mgrid[: image.shape[0], : image.shape[1]].astype(float)
    right, up = (x - (image.shape[1] - 1) / 2) / PX, ((image.shape[0] - 1) / 2 - y) / PX
    place = np.stack([right.ravel(), up.ravel()])
    return (
        np.average(place, axis=1, weights=weight.ravel()),
        np.cov(place, aweights=weight.ravel(), ddof=0),
        weight.sum(),
    )


def test_bars_along_the_axes_have_exactly_their_area():
    cases = stimuli.grid(length=[0.07, 0.5, 1.3], orientation=[0.0, np.pi / 2], width=[0.04, 0.3])
    bars = stimuli.bars((40, 33), contrast=0.6, x=0.11, y=-0.07, **cases)
    area = (bars - 0.5).sum(("y", "x")).isel(time=0) / 0.3 / PX**2
    assert np.allclose(area, np.multiply(cases["length"], cases["width"]), rtol=1e-12)


def test_slanted_bars_have_their_area_place_and_orientation():
    orientation = np.linspace(0.0, np.pi, 13)[:-1]
    bars = stimuli.bars(
        (64, 64), length=1.9, width=0.37, orientation=orientation, contrast=-0.8, x=0.4, y=-0.3
    )
    for angle, image in zip(orientation, bars.values[:, 0], strict=True):
        center, covariance, total = moments(image)
        assert total / (0.5 * 0.8) / PX**2 == pytest.approx(1.9 * 0.37, rel=0.02)
        assert center == pytest.approx([0.4, -0.3], abs=0.01)
        axis = np.linalg.eigh(covariance)[1][:, 1]
        assert abs(axis @ [np.cos(angle), np.sin(angle)]) == pytest.approx(1.0, abs=1e-3)


def test_bar_luminance_is_the_signed_contrast_about_grey():
    bars = stimuli.bars((32, 32), length=1.0, width=0.5, contrast=[-1.0, -0.3, 0.3])
    middle = bars.values[:, 0, 16, 16]
    assert np.allclose(middle, [0.0, 0.35, 0.65])
    light, dark = middle[2], middle[1]
    assert (light - dark) / (light + dark) == pytest.approx(0.3)


def test_bar_is_the_same_turned_by_half_a_turn():
    bars = stimuli.bars((32, 30), length=1.2, orientation=[0.6, 0.6 + np.pi])
    assert np.allclose(bars[0], bars[1], atol=1e-12)


def test_bars_may_be_as_long_as_the_field():
    bars = stimuli.bars((16, 32), length=[2.0, 1.0], orientation=[np.pi, np.pi / 2], width=0.5)
    assert np.allclose(bars[0, 0, 8], 1.0)


def test_bars_carry_their_parameters_and_times():
    bars = check_stimulus(
        stimuli.bars(
            (16, 16),
            length=[0.2, 0.4],
            x=0.1,
            duration=0.3,
            frame_duration=0.1,
            condition=["short", "long"],
        )
    )
    assert bars.sizes == {"trial": 2, "time": 3, "y": 16, "x": 16}
    assert bars.condition.values.tolist() == ["short", "long"]
    assert bars.length.values.tolist() == [0.2, 0.4]
    assert bars.position_x.values.tolist() == [0.1, 0.1]
    assert np.allclose(bars.time, [0.0, 0.1, 0.2])
    assert np.allclose(bars[:, 0], bars[:, 2])
    assert (np.diff(bars.x) > 0).all()
    assert (np.diff(bars.y) < 0).all()


def test_grid_combines_and_the_last_varies_fastest():
    combined = stimuli.grid(a=[1, 2], b="one", c=[3, 4, 5])
    assert combined["a"] == [1, 1, 1, 2, 2, 2]
    assert combined["b"] == ["one"] * 6
    assert combined["c"] == [3, 4, 5, 3, 4, 5]


@pytest.mark.parametrize("orientation", [0.0, 0.5, np.pi / 2, 2.2])
def test_grating_spectrum_peaks_across_its_stripes(orientation):
    image = stimuli.gratings(
        (96, 96), spatial_frequency=3.0, orientation=orientation, phase=0.9
    ).values[0, 0]
    window = np.outer(np.hanning(96), np.hanning(96))
    gain = np.abs(np.fft.fft2((image - 0.5) * window, (960, 960)))
    row, column = np.unravel_index(np.argmax(gain), gain.shape)
    frequency = PX * np.fft.fftfreq(960)
    found = np.array([frequency[column], -frequency[row]])
    expected = 3.0 * np.array([-np.sin(orientation), np.cos(orientation)])
    assert np.allclose(found * np.sign(found @ expected), expected, atol=0.02)


@pytest.mark.parametrize("contrast", [0.06, 0.5, 1.0])
@pytest.mark.parametrize("background", [0.5, 0.3])
def test_grating_has_its_michelson_contrast(contrast, background):
    # Eight pixels a cycle and rows between the crests moved onto them by the phase.
    image = stimuli.gratings(
        (32, 32),
        spatial_frequency=2.0,
        phase=np.pi / 8,
        contrast=contrast,
        background=background,
    )
    low, high = float(image.min()), float(image.max())
    assert (high - low) / (high + low) == pytest.approx(contrast, rel=1e-12)
    assert float(image.mean()) == pytest.approx(background, rel=1e-12)


def test_drifting_grating_is_a_static_one_of_moving_phase():
    asked = {"spatial_frequency": 1.5, "orientation": 0.8, "contrast": 0.7, "diameter": 1.6}
    moving = stimuli.gratings(
        (32, 32), temporal_frequency=4.0, duration=0.2, frame_duration=0.02, phase=0.3, **asked
    )
    still = stimuli.gratings((32, 32), phase=0.3 - 2 * np.pi * 4.0 * moving.time.values, **asked)
    assert np.allclose(moving.values[0], still.values[:, 0], atol=1e-12)


def test_positive_temporal_frequency_moves_a_quarter_turn_counter_clockwise():
    # One pixel a frame: 2 Hz at 2 cycles/degree is 1 degree/s; 16 frames/s at 16 pixels/degree.
    for orientation, shift, axis in ((0.0, -1, 0), (np.pi / 2, -1, 1)):
        frames = stimuli.gratings(
            (16, 16),
            spatial_frequency=2.0,
            orientation=orientation,
            temporal_frequency=2.0,
            duration=2 / 16,
            frame_duration=1 / 16,
        ).values[0]
        # Orientation 0 moves upwards, to lower rows; upright stripes move to the left.
        assert np.allclose(frames[1], np.roll(frames[0], shift, axis=axis), atol=1e-12)


@pytest.mark.parametrize(("inner", "outer"), [(0.0, 0.5), (0.0, 2.9), (0.9, 2.3)])
def test_discs_and_rings_have_their_area(inner, outer):
    disc = stimuli.gratings(
        (48, 48), spatial_frequency=0.0, contrast=0.6, inner_diameter=inner, diameter=outer
    )
    area = float((disc - 0.5).sum()) / 0.3 / PX**2
    assert area == pytest.approx(np.pi / 4 * (outer**2 - inner**2), rel=0.02)


def test_plaid_is_the_sum_of_its_gratings():
    shared = {"diameter": 2.0, "temporal_frequency": 3.0, "duration": 0.1, "frame_duration": 0.05}
    first = stimuli.gratings((40, 40), spatial_frequency=2.0, contrast=0.3, **shared)
    second = stimuli.gratings(
        (40, 40), spatial_frequency=2.0, orientation=np.pi / 2, contrast=0.5, **shared
    )
    plaid = stimuli.gratings(
        (40, 40), spatial_frequency=2.0, contrast=0.3, plaid_contrast=0.5, **shared
    )
    assert np.allclose(plaid.values, first.values + second.values - 0.5, atol=1e-12)


def test_surround_is_its_own_grating_around_the_disc():
    asked = {"spatial_frequency": 2.0, "phase": 0.4}
    both = stimuli.gratings(
        (48, 48),
        contrast=0.4,
        diameter=1.2,
        surround_contrast=0.9,
        surround_orientation=1.1,
        surround_inner_diameter=1.8,
        surround_diameter=2.8,
        **asked,
    ).values[0, 0]
    center = stimuli.gratings((48, 48), contrast=0.4, **asked).values[0, 0]
    around = stimuli.gratings((48, 48), contrast=0.9, orientation=1.1, **asked).values[0, 0]
    y, x = (np.mgrid[:48, :48] - 23.5) / PX
    radius, edge = np.hypot(x, y), 0.75 / PX
    assert np.allclose(both[radius < 0.6 - edge], center[radius < 0.6 - edge])
    ring = (radius > 0.9 + edge) & (radius < 1.4 - edge)
    assert np.allclose(both[ring], around[ring])
    assert np.allclose(both[(radius > 0.6 + edge) & (radius < 0.9 - edge)], 0.5)
    assert np.allclose(both[radius > 1.4 + edge], 0.5)


def test_surround_without_inner_diameter_abuts_the_disc():
    alone = stimuli.gratings((32, 32), spatial_frequency=2.0, contrast=0.4)
    split = stimuli.gratings(
        (32, 32), spatial_frequency=2.0, contrast=0.4, diameter=1.1, surround_contrast=0.4
    )
    assert np.allclose(alone, split, atol=1e-12)


def test_gratings_may_be_anywhere():
    moved = stimuli.gratings(
        (48, 48), spatial_frequency=1.0, diameter=0.8, x=0.5, y=-0.75, orientation=0.3
    ).values[0, 0]
    center = stimuli.gratings((48, 48), spatial_frequency=1.0, diameter=0.8, orientation=0.3)
    assert np.allclose(moved, np.roll(center.values[0, 0], (12, 8), axis=(0, 1)), atol=1e-12)


def test_diameters_of_none_fill_the_field():
    discs = stimuli.gratings((16, 16), spatial_frequency=2.0, diameter=[0.5, None])
    assert discs.diameter.values.tolist() == [0.5, np.inf]
    assert np.allclose(discs[1], stimuli.gratings((16, 16), spatial_frequency=2.0)[0])


FIELD = (32, 32)


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"length": -1.0}, "bars: found length -1, expected numbers from 0"),
        ({"length": np.nan}, "bars: found 1 of 1 entries of length NaN"),
        ({"length": []}, "bars: found length of shape"),
        ({"length": [[0.1]]}, "Give a scalar or a flat list"),
        ({"length": 2.5}, "reaches over .* within the field of 2 x 2 degrees"),
        ({"length": 1.0, "x": 0.8}, "Shrink or move it, or enlarge field_shape"),
        ({"length": 1.0, "width": 0.0}, "bars: found width 0, expected numbers above 0"),
        ({"length": 1.0, "contrast": 1.2}, "bars: found contrast 1.2, expected numbers from -1 to"),
        ({"length": 1.0, "background": 0.8}, "Lower the contrast or the background"),
        ({"length": 1.0, "px_per_deg": 0.0}, "bars: found px_per_deg 0"),
        ({"length": 1.0, "duration": -0.1}, "bars: found duration -0.1"),
        ({"length": 1.0, "duration": 0.1, "frame_duration": 0.04}, "a whole number of frames"),
        ({"length": 1.0, "duration": 0.1, "frame_duration": 0.4}, "a whole number of frames"),
        ({"length": [0.1, 0.2], "width": [0.1] * 3}, "Use pcsim.stimuli.grid"),
        ({"length": 1.0, "condition": 3}, "bars: found condition 3"),
    ],
)
def test_bad_bars_are_refused(asked, words):
    with pytest.raises(ValueError, match=words):
        stimuli.bars(FIELD, **asked)


@pytest.mark.parametrize("shape", [(0, 4), (4,), 16, (4, 4, 4), "ab"])
def test_bad_fields_are_refused(shape):
    with pytest.raises((ValueError, TypeError), match="bars: found field_shape"):
        stimuli.bars(shape, length=0.1)


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"spatial_frequency": 8.1}, "Raise px_per_deg"),
        ({"spatial_frequency": -1.0}, "gratings: found spatial_frequency -1"),
        ({"plaid_spatial_frequency": 9.0}, "gratings: found plaid_spatial_frequency 9"),
        ({"contrast": -0.1}, "gratings: found contrast -0.1"),
        ({"contrast": 0.6, "plaid_contrast": 0.6}, "Lower the contrasts or the background"),
        ({"surround_contrast": 0.5, "diameter": None}, "Give both in degrees, the inner one"),
        ({"diameter": 1.0, "inner_diameter": 1.0}, "expected the inner below the outer"),
        ({"diameter": 2.1}, "gratings: found a disc that reaches over"),
        ({"diameter": 0.0}, "gratings: found diameter 0"),
        ({"diameter": [0.5, np.nan]}, "entries of diameter NaN"),
        ({"diameter": []}, "gratings: found diameter of shape"),
        ({"temporal_frequency": 2.0}, "Give frame_duration, seconds"),
        (
            {"temporal_frequency": 30.0, "duration": 0.2, "frame_duration": 0.02},
            "Shorten frame_duration",
        ),
        ({"background": 0.6}, "expected luminance from 0 to 1"),
    ],
)
def test_bad_gratings_are_refused(asked, words):
    with pytest.raises(ValueError, match=words):
        stimuli.gratings(FIELD, **{"spatial_frequency": 2.0, **asked})


@pytest.mark.parametrize("value", ["wide", None, {"a": 1}, [0.1, "b"]])
def test_parameters_that_are_no_numbers_are_refused(value):
    with pytest.raises((TypeError, ValueError), match="bars: found length"):
        stimuli.bars(FIELD, length=value)


@pytest.mark.parametrize("value", ["x", 1j, {"a": 1}, [0.5, "b"], [[0.5], [0.2, 0.4]], [None, "x"]])
@pytest.mark.parametrize("name", ["diameter", "surround_diameter", "surround_inner_diameter"])
def test_diameters_that_are_no_numbers_are_refused(refused, name, value):
    asked = {"spatial_frequency": 2.0, name: value}
    assert refused(stimuli.gratings, FIELD, **asked).startswith(f"gratings: found {name}")


def test_an_empty_list_makes_no_grid():
    with pytest.raises(ValueError, match="grid: found no width"):
        stimuli.grid(length=[0.1], width=[])
