"""The small recurrent predictor against a forward pass in NumPy, finite differences, and time."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.signal import correlate2d

from pcsim import catalog, roster
from pcsim.deep.prednet import Architecture, PredNet, initial_weights, learn
from pcsim.stimuli import gliding_photographs
from pcsim.stimuli.gliding import gliding_path
from pcsim.stimulus import stimulus_array

MODEL = catalog.load("circuits", "prednet")
SMALL = replace(MODEL, targets=(1, 2), latents=(2, 3), shape=(8, 12), window=4)


def movie(rng, model, n=2, n_frames=5, frame=0.05):
    values = rng.uniform(0.2, 0.8, (n, n_frames, *model.field_shape))
    return stimulus_array(values, frame_duration=frame, px_per_deg=16.0)


def random(rng, model):
    """Weights far from 0, and biases that are not 0."""
    shapes = model.architecture.shapes
    return replace(
        model, weights=tuple(0.4 * rng.standard_normal(s).astype(np.float32) for s in shapes)
    )


def conv(x, weights, bias):
    """Correlate (channel, y, x) with (out, in, 3, 3), zeros around."""
    return np.array(
        [
            b + sum(correlate2d(x[i], w[i], mode="same") for i in range(len(x)))
            for w, b in zip(weights, bias, strict=True)
        ]
    )


def sigmoid(x):
    return 1.0 / (1.0 + np.exp(-x))


def forward(model, frames, warm_up):
    """Run one trial, contrast (time, y, x), of the small model: steps of (E, R, prediction)."""
    w = [np.asarray(a, dtype=np.float64) for a in model.weights]
    ny, nx = model.shape
    r = [np.zeros((2, ny, nx)), np.zeros((3, ny // 2, nx // 2))]
    c = [np.zeros_like(one) for one in r]
    e = [np.zeros((2, ny, nx)), np.zeros((4, ny // 2, nx // 2))]
    out = []
    for frame in [np.zeros((ny, nx))] * warm_up + list(frames):
        for level in (1, 0):
            inputs = [*e[level], *r[level]]
            if level == 0:
                above = r[1].repeat(2, axis=1).repeat(2, axis=2)
                inputs += list(model.feedback_gain * above)
            gate = conv(np.array(inputs), w[6 * level], w[6 * level + 1])
            n = len(r[level])
            i, f, o, g = (gate[k * n : (k + 1) * n] for k in range(4))
            c[level] = sigmoid(f) * c[level] + sigmoid(i) * np.tanh(g)
            r[level] = sigmoid(o) * np.tanh(c[level])
        p = [conv(r[0], w[2], w[3]), np.maximum(conv(r[1], w[8], w[9]), 0.0)]
        e[0] = np.concatenate([np.maximum(frame - p[0], 0), np.maximum(p[0] - frame, 0)])
        up = np.maximum(conv(e[0], w[4], w[5]), 0.0)
        seen = up.reshape(2, ny // 2, 2, nx // 2, 2).max(axis=(2, 4))
        e[1] = np.concatenate([np.maximum(seen - p[1], 0), np.maximum(p[1] - seen, 0)])
        out.append(([x.copy() for x in e], [x.copy() for x in r], p))
    return out[warm_up:]


def test_forward_pass_is_that_of_numpy(rng):
    model = random(rng, replace(SMALL, feedback_gain=0.7, warm_up=3))
    stimulus = movie(rng, model)
    found = model.run(stimulus)
    for trial in range(2):
        frames = 2.0 * (stimulus.values[trial] - 0.5)
        # One more step of grey than `warm_up`: what is recorded before the first step ends.
        for moment, (e, r, p) in enumerate(forward(model, frames, model.warm_up + 1)):
            rate = found["rate"].isel(trial=trial, time=moment).to_numpy()
            name = found["name"].values
            inner = slice(2, 6), slice(4, 8)
            low, high = inner, (slice(1, 3), slice(2, 4))
            expected = {
                "error_0": (e[0][:1] - e[0][1:])[:, *low],
                "error_pos_1": e[1][:2][:, *high],
                "error_neg_1": e[1][2:][:, *high],
                "latent_0": r[0][:, *low],
                "latent_1": r[1][:, *high],
                "prediction_0": p[0][:, *low],
                "prediction_1": p[1][:, *high],
            }
            for key, value in expected.items():
                np.testing.assert_allclose(rate[name == key], value.ravel(), atol=1e-5)


def test_places_are_those_of_the_pixels(rng):
    # A bright pixel drives the error of level 0 where the labels say that it is.
    model = MODEL.untrained(seed=0)
    values = np.full((1, 1, *model.field_shape), 0.5)
    values[0, 0, 9, 18] = 1.0
    stimulus = stimulus_array(values, frame_duration=0.05, px_per_deg=16.0)
    found = model.run(stimulus, record=["error_0"]).isel(trial=0, time=0)
    unit = int(found["rate"].values.argmax())
    assert found["x"].values[unit] == pytest.approx((18 - 15.5) / 16)
    assert found["y"].values[unit] == pytest.approx((11.5 - 9) / 16)


def test_gradient_is_that_of_finite_differences(rng):
    for head in (False, True):
        architecture = Architecture((1, 2), (2, 3), head)
        weights = [
            torch.tensor(0.4 * rng.standard_normal(s), requires_grad=True)
            for s in architecture.shapes
        ]
        frames = torch.tensor(rng.uniform(-0.6, 0.6, (2, 4, 1, 4, 8)))

        def loss(values, architecture=architecture, frames=frames):
            network = PredNet(architecture, values, feedback_gain=0.7)
            state, total = network.start(2, (4, 8)), 0.0
            for moment in range(4):
                seen = network.step(frames[:, moment], state)
                total = total + network.loss(frames[:, moment], seen, (0.7, 0.0))
                state = seen.state
            return total

        loss(weights).backward()
        way = [torch.tensor(rng.standard_normal(w.shape)) for w in weights]
        slope = sum(
            float((w.grad * d).sum()) for w, d in zip(weights, way, strict=True) if w.numel()
        )
        with torch.no_grad():
            ends = [
                float(loss([w + s * 1e-6 * d for w, d in zip(weights, way, strict=True)]))
                for s in (1, -1)
            ]
        assert slope == pytest.approx((ends[0] - ends[1]) / 2e-6, rel=1e-5)


def test_what_a_level_sees_is_not_trained_to_be_predicted(rng):
    architecture = Architecture((1, 2), (2, 3))
    weights = [
        torch.tensor(0.4 * rng.standard_normal(s), requires_grad=True) for s in architecture.shapes
    ]
    network = PredNet(architecture, weights)
    frame = torch.tensor(rng.uniform(-0.6, 0.6, (2, 1, 4, 8)))
    network.loss(frame, network.step(frame, network.start(2, (4, 8))), (0.0, 0.7)).backward()
    up, prediction = weights[4], weights[8]
    assert up.grad is None or not up.grad.any()
    assert prediction.grad.any()


def test_the_loss_is_that_of_the_definition(rng):
    frames = rng.uniform(-0.5, 0.5, (3, 8, 12))
    for head in (False, True):
        model = random(rng, replace(SMALL, head=head))
        architecture = model.architecture
        shown = frames[None, :, None]
        _, (loss,) = learn(
            architecture, model.weights, iter([shown]), learning_rate=lambda _: 0.0,
            level_weights=(0.7, 4.0),
        )  # fmt: skip
        steps = forward(model, frames, 0)[1:]
        if head:
            w, b = (np.asarray(a, dtype=np.float64) for a in model.weights[12:])
            each = [
                np.abs(frame - conv(r[0], w, b)[0]).mean()
                for frame, (_, r, _) in zip(frames[1:], steps, strict=True)
            ]
        else:
            each = [0.7 * e[0].mean() + 4.0 * e[1].mean() for e, _, _ in steps]
        assert loss == pytest.approx(np.mean(each), rel=1e-5)


def test_nothing_moves_before_its_cause(rng):
    model = random(rng, replace(SMALL, record_dt=0.02))
    one = movie(rng, model, n=1)
    other = one.copy(deep=True)
    other[:, 3:] = 1.0 - other[:, 3:]
    first, second = (model.run(s)["rate"] for s in (one, other))
    changed = (np.abs(first - second) > 0).any(("trial", "unit")).to_numpy()
    # Frame 3 begins at 0.15 s, and the step that it belongs to ends at 0.2 s.
    np.testing.assert_array_equal(changed, first["time"].values > 0.199)
    grey = one.copy(data=np.full(one.shape, 0.5))
    before = first["time"].values < 0.049
    rest = model.run(grey)["rate"].isel(time=before)
    np.testing.assert_array_equal(rest, first.isel(time=before))


def test_a_step_sees_the_mean_over_its_time(rng):
    fast = movie(rng, SMALL, n=1, n_frames=4, frame=0.02)
    contrast = 2.0 * (fast.values[0] - 0.5)
    seen = SMALL.prepare(fast)[0, :, 0]
    # Steps of 0.05 s over frames of 0.02 s; the last frame is held to the end of the second step.
    np.testing.assert_allclose(seen[0], (0.4 * contrast[:2].sum(0) + 0.2 * contrast[2]), atol=1e-6)
    np.testing.assert_allclose(seen[1], 0.2 * contrast[2] + 0.8 * contrast[3], atol=1e-6)


def test_other_trials_do_not_matter(rng):
    model = random(rng, SMALL)
    stimulus = movie(rng, model, n=19)
    whole = model.run(stimulus)["rate"].to_numpy()
    part = model.run(stimulus.isel(trial=[17, 3]))["rate"].to_numpy()
    np.testing.assert_array_equal(part, whole[[17, 3]])


def test_training_lowers_errors_of_unseen_sequences_and_repeats(rng):
    clips = gliding_photographs((16, 16), n=160, n_frames=6, seed=3)
    unseen = gliding_photographs((24, 32), n=8, n_frames=6, seed=4)
    before = MODEL.untrained(seed=1)
    after, again = (MODEL.fit(clips, seed=1) for _ in range(2))
    for one, two in zip(after.weights, again.weights, strict=True):
        np.testing.assert_array_equal(one, two)
    errors = []
    for model in (before, after):
        rate = model.run(unseen, record=["error_0"])["rate"].isel(time=slice(1, None))
        errors.append(float(np.abs(rate).mean()))
    assert errors[1] < 0.7 * errors[0]


def test_saved_and_loaded_it_is_the_same(rng, tmp_path):
    model = random(rng, replace(MODEL, head=True))
    roster.save_model(model, tmp_path / "m", "prednet")
    loaded = roster.load_model(tmp_path / "m")
    stimulus = movie(rng, model)
    assert loaded.run(stimulus).identical(model.run(stimulus))
    assert loaded.head


def test_refusals(rng, refused):
    assert "16 x 16 pixels" in refused(MODEL.run, movie(rng, replace(MODEL, shape=(16, 16))))
    assert "sides that are multiples of 4" in refused(
        MODEL.fit, movie(rng, replace(MODEL, shape=(10, 16)))
    )
    assert "Did you mean 'error_1'" in refused(
        lambda: MODEL.run(movie(rng, MODEL), record=["errors_1"])
    )
    tones = stimulus_array(np.zeros((1, 2, 10)), frame_duration=0.05)
    assert "(trial, time, y, x)" in refused(MODEL.run, tones)


def test_gliding_photographs_move_by_whole_pixels_as_shifted_windows():
    ramp = np.add.outer(3.0 * np.arange(60.0), 1.0 + np.arange(80.0))
    clip = gliding_photographs(
        (8, 8), n=3, n_frames=6, images={"ramp": ramp}, seed=5, speed=1.5, jump_rate=0.0
    )
    steps = np.diff(clip.values, axis=1)
    # A ramp that moves steadily changes everywhere by the same amount (splines keep ramps).
    inner = steps[:, :, 2:-2, 2:-2]
    np.testing.assert_allclose(inner, inner[:, :1, :1, :1] * np.ones_like(inner), atol=1e-6)
    assert (clip["n_jumps"].values == 0).all()
    whole = gliding_photographs((8, 8), n=4, n_frames=6, images="camera", seed=5)
    part = gliding_photographs((8, 8), n=2, n_frames=6, images="camera", seed=5)
    np.testing.assert_array_equal(whole.values[:2], part.values)


def test_jumps_come_at_their_rate(rng):
    n = 20_000
    path, jumped = gliding_path(
        n, rng=rng, frame_duration=0.05, room=(9.0, 4.0), speed=2.5, jump_rate=2.0
    )
    share = 1.0 - np.exp(-0.1)
    error = np.sqrt(share * (1 - share) / n)
    assert jumped.mean() == pytest.approx(share, abs=4 * error)
    assert (path >= 0).all()
    assert (path <= [9.0, 4.0]).all()


def test_static_training_shows_one_frame_of_each_glide(monkeypatch):
    monkeypatch.setattr(type(MODEL), "n_training", {"quick": 3})
    moving = MODEL.training("natural", seed=1, scale="quick")
    still = replace(MODEL, static=True).training("natural", seed=1, scale="quick")
    assert still.dims == moving.dims
    np.testing.assert_array_equal(still.values[:, 0], moving.values[:, 0])
    np.testing.assert_array_equal(np.diff(still.values, axis=1), 0.0)
    assert np.abs(np.diff(moving.values, axis=1)).max() > 0.05


def test_initial_weights_keep_the_memory_open():
    architecture = Architecture()
    weights = initial_weights(architecture, 3)
    assert [w.shape for w in weights] == architecture.shapes
    np.testing.assert_array_equal(weights[7], np.repeat([0.0, 1.0, 0.0, 0.0], 8))
