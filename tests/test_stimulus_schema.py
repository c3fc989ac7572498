"""Stimuli: what the schema takes and refuses."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st

from pcsim.stimulus import check_stimulus, stimulus_array


def images(n_trials: int = 3, n_frames: int = 4) -> xr.DataArray:
    """Grey images of 5 rows and 6 columns."""
    return stimulus_array(
        np.full((n_trials, n_frames, 5, 6), 0.5),
        frame_duration=0.04,
        px_per_deg=16.0,
        condition=[f"c{i}" for i in range(n_trials)],
        contrast=0.3,
        orientation=np.arange(n_trials) / 7,
    )


def test_labels():
    s = images()
    assert s.name == "stimulus"
    assert s.dims == ("trial", "time", "y", "x")
    np.testing.assert_allclose(s.time, [0.0, 0.04, 0.08, 0.12], rtol=1e-12)
    assert s.contrast.dims == ("trial",)
    np.testing.assert_array_equal(s.contrast, [0.3] * 3)
    assert s.frame_duration.item() == 0.04
    assert s.px_per_deg.item() == 16.0


def test_features_need_no_pixels_and_float32_stays():
    s = stimulus_array(np.zeros((1, 2, 7), np.float32), frame_duration=0.7)
    assert s.dtype == np.float32
    assert s.dims == ("trial", "time", "feature")
    assert "px_per_deg" not in s.coords
    assert s.condition.values.tolist() == ["stimulus"]


def test_any_choice_of_trials_is_a_stimulus():
    s = images()
    assert check_stimulus(s.isel(trial=[2, 0])).trial.values.tolist() == [2, 0]
    assert check_stimulus(s) is s


def test_long_sequences_keep_their_frames_apart():
    check_stimulus(stimulus_array(np.zeros((1, 30_000, 1)), frame_duration=0.0156))


BROKEN = {
    "an array": (lambda s: s.values, "an xarray.DataArray"),
    "a dataset": (lambda s: s.to_dataset(), "an xarray.DataArray"),
    "no time": (lambda s: s.isel(time=0, drop=True), "('trial', 'time', 'y', 'x')"),
    "turned": (lambda s: s.transpose("trial", "time", "x", "y"), "('trial', 'time', 'y', 'x')"),
    "renamed": (lambda s: s.rename(y="row"), "('trial', 'time', 'y', 'x')"),
    "integers": (lambda s: s.astype(int), "astype(float)"),
    "NaN": (lambda s: s.where(s.trial != 1), "120 of 360 entries"),
    "no trials": (lambda s: s.isel(trial=[]), "no trial"),
    "no frames": (lambda s: s.isel(time=[]), "no time"),
    "no pixels": (lambda s: s.isel(x=[], y=[]), "no y and no x"),
    "no condition": (lambda s: s.drop_vars("condition"), "'condition' along trial"),
    "no trial numbers": (lambda s: s.drop_vars("trial"), "'trial' along trial"),
    "trial twice": (lambda s: s.isel(trial=[0, 0, 1]), "each once"),
    "before onset": (lambda s: s.assign_coords(time=s.time - 0.1), "frames from 0 s on"),
    "backwards": (lambda s: s.isel(time=[3, 2, 1, 0]), "strictly increasing"),
    "gap": (lambda s: s.isel(time=[0, 1, 3]), "Repeat a frame"),
    "no duration": (lambda s: s.drop_vars("frame_duration"), "'frame_duration' with one value"),
    "duration zero": (lambda s: s.assign_coords(frame_duration=0.0), "above 0"),
    "duration NaN": (lambda s: s.assign_coords(frame_duration=np.nan), "above 0"),
    "duration text": (lambda s: s.assign_coords(frame_duration="long"), "one number"),
    "duration per frame": (
        lambda s: s.assign_coords(frame_duration=("time", [0.04] * 4)),
        "with one value",
    ),
    "no pixel size": (lambda s: s.drop_vars("px_per_deg"), "'px_per_deg' with one value"),
    "negative pixel size": (lambda s: s.assign_coords(px_per_deg=-16.0), "above 0"),
    "levels of labels": (
        lambda s: s.set_index(trial=["condition", "contrast"]),
        "expected",
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_stimuli_are_refused(refused, name):
    break_it, words = BROKEN[name]
    message = refused(check_stimulus, break_it(images()), "run")
    assert words in message
    assert message.startswith("run: found ")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"values": np.zeros((2, 3))}, "Add the axes"),
        ({"values": [[["dark"]]]}, "real numbers"),
        ({"values": np.full((1, 1, 1), np.inf)}, "finite"),
        ({"frame_duration": 0.0}, "frame_duration 0"),
        ({"frame_duration": "short"}, "one number"),
        ({"frame_duration": True}, "one number"),
        ({"px_per_deg": -1.0}, "px_per_deg -1"),
        ({"condition": ["a", "b"]}, "2 trials"),
        ({"condition": 3}, "text"),
        ({"contrast": [0.1, 0.2]}, "contrast of shape (2,) for 1 trials"),
        ({"time": 0.1}, "That name is taken"),
        ({"values": np.zeros((1, 1, 4, 4))}, "'px_per_deg' with one value"),
    ],
)
def test_parameters_are_checked(refused, arguments, words):
    arguments = {"values": np.zeros((1, 2, 3)), "frame_duration": 0.04, **arguments}
    if "condition" in arguments and arguments["condition"] == ["a", "b"]:
        words = "condition of shape (2,)"
    assert words in refused(stimulus_array, arguments.pop("values"), **arguments)


@given(
    time=st.lists(st.floats(allow_nan=True, allow_infinity=True), min_size=4, max_size=4),
)
def test_only_evenly_spaced_frames_pass(refused, time):
    s = images()
    even = np.allclose(time, 0.04 * np.arange(4) + time[0], rtol=0, atol=1e-7) and time[0] >= 0
    if not even:
        refused(check_stimulus, s.assign_coords(time=time))
