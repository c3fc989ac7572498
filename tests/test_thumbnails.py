"""Thumbnails of stimuli: what they show, how large they get, and that watching changes nothing."""

from __future__ import annotations

import numpy as np
import pytest

from pcsim import catalog
from pcsim.protocols.shown import watched
from pcsim.stimuli import white_noise
from pcsim.stimuli.thumbnails import Thumbnails
from pcsim.stimulus import stimulus_array


def images(values, **coords):
    return stimulus_array(np.asarray(values, float), frame_duration=0.1, px_per_deg=16.0, **coords)


def test_a_strip_holds_the_frames_side_by_side_between_white_gaps():
    frames = np.zeros((1, 3, 2, 2))
    frames[0, 0], frames[0, 2] = 0.2, 0.8
    frames[0, 0, 0, 0] = 1.0
    seen = Thumbnails()
    seen.add(images(frames))
    one = seen.dataset().isel(thumbnail=0)
    assert (int(one["rows"]), int(one["columns"])) == (2, 3 * 2 + 2 * 2)
    row = one["strip"].values[0].tolist()
    assert row == [255, 51, 255, 255, 0, 0, 255, 255, 204, 204]
    assert float(one["duration"]) == pytest.approx(0.3)


def test_frames_that_repeat_are_shown_once():
    still = np.repeat(np.linspace(0.0, 1.0, 6).reshape(1, 1, 2, 3), 5, axis=1)
    seen = Thumbnails()
    seen.add(images(still))
    assert seen.dataset()["strip"].shape == (1, 2, 3)


def test_large_images_are_averaged_over_blocks():
    rng = np.random.default_rng(3)
    picture = rng.uniform(size=(1, 1, 88, 132))
    seen = Thumbnails()
    seen.add(images(picture))
    blocks = picture[0, 0].reshape(44, 2, 44, 3).mean(axis=(1, 3))
    strip = seen.dataset()["strip"].values[0]
    np.testing.assert_array_equal(strip, (255 * blocks).round())


def test_few_features_give_traces_and_many_an_image():
    rng = np.random.default_rng(5)
    values = rng.normal(size=(1, 300, 2))
    seen = Thumbnails()
    seen.add(stimulus_array(values, frame_duration=0.01))
    trace = seen.dataset()["trace"].values[0]
    np.testing.assert_allclose(trace, values[0, :160].T, rtol=1e-6)
    assert seen.dataset()["caption"].item() == "stimulus, the first 1.6 s"
    assert float(seen.dataset()["duration"][0]) == pytest.approx(3.0)
    values = rng.normal(size=(1, 300, 7))
    seen = Thumbnails()
    seen.add(stimulus_array(values, frame_duration=0.01))
    shown = seen.dataset()
    assert shown["trace"].size == 0
    first = values[0, :160].T
    wanted = 255 * (0.5 + 0.5 * first / np.abs(first).max())
    np.testing.assert_array_equal(shown["strip"].values[0], wanted.round())


def test_conditions_come_first_blanks_last_and_never_more_than_eight():
    rng = np.random.default_rng(7)
    pictures = rng.uniform(size=(30, 1, 4, 4))
    names = [f"c{k % 10}" for k in range(30)]
    pictures[0] = 0.5
    seen = Thumbnails()
    seen.add(images(pictures, condition=names))
    shown = seen.dataset()
    assert shown.sizes["thumbnail"] == 8
    assert len(set(shown["condition"].values.tolist())) == 8
    only = Thumbnails()
    only.add(images(np.full((1, 1, 4, 4), 0.5)))
    only.add(images(pictures[1:2], condition="picture"))
    assert only.dataset()["condition"].values.tolist() == ["picture"]


def test_it_stays_small_whatever_is_shown():
    rng = np.random.default_rng(11)
    seen = Thumbnails()
    for _ in range(200):
        seen.add(images(rng.uniform(size=(4, 3, 60, 60))))
    shown = seen.dataset()
    assert len(seen.found) == 64
    assert shown.nbytes < 8 * (44 * (3 * 44 + 4) + 2000)


def test_no_stimulus_gives_no_thumbnail():
    assert Thumbnails().dataset().sizes["thumbnail"] == 0


def test_watching_sees_lesioned_copies_and_leaves_the_class_as_it_was():
    import dataclasses

    model = catalog.load("circuits", "linear_nonlinear")
    kind = type(model)
    before = kind.run, "run" in vars(kind)
    stimulus = white_noise(model.field_shape, n_trials=2, seed=3)
    alone = model.run(stimulus, seed=1)
    with watched(model) as seen:
        answer = model.run(stimulus, seed=1)
        other = stimulus.copy(data=1.0 - stimulus.values)
        dataclasses.replace(model, record_dt=None).run(other)
    np.testing.assert_array_equal(answer["rate"].values, alone["rate"].values)
    assert len(seen.found) == 4
    assert (kind.run, "run" in vars(kind)) == before
    with pytest.raises(ZeroDivisionError), watched(model):
        1 / 0  # noqa: B018
    assert (kind.run, "run" in vars(kind)) == before
