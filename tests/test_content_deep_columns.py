"""The deep columns: variational autoencoders and the autoregressive flow; H32 and H37 on them."""

from __future__ import annotations

import importlib
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
import xarray as xr

from pcsim import catalog
from pcsim.deep.column import held
from pcsim.deep.inference import Evaluation
from pcsim.deep.inference_direct import Direct
from pcsim.deep.linear_gaussian import LinearGaussian
from pcsim.deep.race import lowest, prepared, raced, tuned
from pcsim.deep.training import TrainingSettings, train
from pcsim.deep.transport import (
    ShuffledData,
    encoder_jacobian,
    gradient_jacobian,
    responses_and_forms,
)
from pcsim.hypothesis import expectation_table
from pcsim.model import lesion
from pcsim.protocols import Mistaught, Untaught, films, inferring, lacks_inference
from pcsim.responses import make_responses
from pcsim.roster import load_model, save_model, variant
from pcsim.stimuli import natural_patches
from pcsim.stimulus import stimulus_array

few = importlib.import_module("pcsim.analysis.few_iterations")
weights = importlib.import_module("pcsim.analysis.weight_alignment")
VAE = catalog.load("circuits", "variational_autoencoder")
ARF = catalog.load("circuits", "autoregressive_flow")


def images(model, n=2, n_frames=1, duration=0.2, seed=3):
    one = natural_patches(model.field_shape, n=n * n_frames, seed=seed).to_numpy()
    values = one.reshape(n, n_frames, *model.field_shape)
    return stimulus_array(values, frame_duration=duration, px_per_deg=model.px_per_deg)


def chosen(responses, name):
    return responses.rate.values[:, :, responses.name.values == name]


@pytest.fixture(scope="module")
def taught():
    """Both inferences after a glance at a few images."""
    shown = natural_patches(VAE.field_shape, n=192, seed=1)
    return {
        kind: replace(VAE, inference=kind).fit(shown, seed=2) for kind in ("iterative", "direct")
    }


@pytest.mark.parametrize("kind", ["iterative", "direct"])
def test_training_repeats_and_lowers_the_free_energy(kind, taught):
    shown = natural_patches(VAE.field_shape, n=192, seed=1)
    again = replace(VAE, inference=kind).fit(shown, seed=2).weights
    assert all((again[name] == one).all() for name, one in taught[kind].weights.items())
    fresh = replace(VAE, inference=kind).untrained(seed=2)
    other = images(VAE, n=20, seed=9)
    before, after = (
        float(one.run(other, record=["latent_1"]).free_energy[:, -1].mean())
        for one in (fresh, taught[kind])
    )
    assert after < before - 20.0


def test_a_trained_model_is_saved_as_arrays(taught, tmp_path):
    shown = images(VAE)
    for kind, model in taught.items():
        save_model(model, tmp_path / kind, "variational_autoencoder")
        assert load_model(tmp_path / kind).run(shown).identical(model.run(shown))


def test_weights_of_other_settings_are_refused(taught, refused):
    wrong = replace(taught["direct"], inference="iterative")
    assert "same settings" in refused(wrong.deep)


@pytest.mark.parametrize("kind", ["iterative", "direct"])
def test_errors_are_observed_minus_predicted_and_the_lesion_cuts_the_mean_alone(kind, taught):
    model = taught[kind]
    shown = images(model)
    whole = model.run(shown)
    x = model.prepare(shown)
    np.testing.assert_allclose(
        chosen(whole, "error_0"), x - chosen(whole, "prediction_0"), rtol=0, atol=1e-12
    )
    cut = lesion(model, feedback_gain=0.0).run(shown)
    assert np.abs(chosen(whole, "prediction_1")).max() > 0.0
    np.testing.assert_array_equal(chosen(cut, "prediction_1"), 0.0)
    np.testing.assert_array_equal(chosen(cut, "error_1"), chosen(cut, "latent_1"))
    precision = chosen(cut, "weighted_error_1") / chosen(cut, "error_1")
    assert precision.std() > 0.0
    assert (precision > 0.0).all()


def test_direct_inference_is_there_at_once_and_iterative_goes_on_from_the_frame_before(taught):
    shown = images(VAE, n_frames=2)
    second = shown.isel(time=[1]).assign_coords(time=[0.0])
    found = {}
    for kind, model in taught.items():
        film, alone = (model.run(one, record=["latent_1"]).rate.values for one in (shown, second))
        n = film.shape[1] // 2
        # As in both runs the noise is drawn from the trial's generator, it differs; so does rate.
        moving = np.abs(np.diff(film[:, :n], axis=1)).max()
        found[kind] = moving, np.abs(film[:, n] - alone[:, 0]).max()
    assert found["direct"][0] == 0.0
    assert found["direct"][1] < 1e-9
    assert found["iterative"][0] > 1e-3
    assert found["iterative"][1] > 1e-3


def test_iterations_last_and_the_last_one_stays():
    values = np.arange(6.0)[None, :, None]
    shown = stimulus_array(np.zeros((1, 2, 1)), frame_duration=0.1)
    time = {"time": np.arange(1, 7) / 30, "frame": [0, 0, 0, 1, 1, 1]}
    responses = make_responses(
        values, time=time, units={"population": "error", "level": 0}, trial=shown
    )
    ends = held(responses, shown, iteration=0.02)
    np.testing.assert_allclose(ends.time, [0.02, 0.04, 0.06, 0.1, 0.12, 0.14, 0.16, 0.2])
    np.testing.assert_array_equal(ends.rate.values.ravel(), [0, 1, 2, 2, 3, 4, 5, 5])
    fine = held(responses, shown, iteration=0.02, every=0.01)
    np.testing.assert_allclose(fine.time, np.arange(1, 21) / 100)
    expected = [0, 0, 1, 1, 2, 2, 2, 2, 2, 2, 3, 3, 4, 4, 5, 5, 5, 5, 5, 5]
    np.testing.assert_array_equal(fine.rate.values.ravel(), expected)
    short = held(responses, shown, iteration=0.5)  # no time for three: each takes a third
    np.testing.assert_allclose(short.time, np.arange(1, 7) / 30)


def simulated(rng, weights, v):
    """Movies of the flow's own equation: first lag of the pixel and its right neighbour alone."""
    x = np.zeros((6, 300, 15, 15))
    for t in range(2, x.shape[1]):
        change = (x[:, t - 1] - x[:, t - 2]) ** 2
        right = np.roll(x[:, t - 1], -1, axis=2)
        mean = weights[0] * x[:, t - 1] + weights[1] * right
        x[:, t] = mean + np.sqrt(v[0] + v[1] * change) * rng.standard_normal(change.shape)
    return x


def test_the_flow_finds_the_process_that_made_its_movies(rng):
    truth, v = (0.7, 0.2), (1e-3, 0.4)
    x = simulated(rng, truth, v)
    shown = stimulus_array(x + 0.5, frame_duration=0.008, px_per_deg=16.0)
    found = ARF.fit(shown, seed=1)
    expected = np.zeros((4, 5))
    expected[0, 0], expected[0, 4] = truth
    # 60,000 rows; columns of sd 0.05 to 0.1 beside errors of sd 0.04: standard errors below 0.005.
    np.testing.assert_allclose(found.mean_weights, expected, atol=0.02)
    assert found.variance == pytest.approx(v[0], rel=0.06)
    np.testing.assert_allclose(found.change_weights[0], [v[1], 0.0], atol=0.05)
    np.testing.assert_allclose(found.change_weights[1:], 0.0, atol=0.04)
    y = chosen(found.run(shown), "output")[:, 10:]
    assert y.std() == pytest.approx(1.0, abs=0.01)
    assert abs((y[:, 1:] * y[:, :-1]).mean()) < 0.01
    # Kurtosis of the errors themselves is above 3; scaled by their conditional sigma it is 3.
    assert (y**4).mean() == pytest.approx(3.0, abs=0.1)


def test_the_flow_is_triangular_in_time_and_its_slope_is_the_root_of_the_precision(rng):
    flow_ = replace(
        ARF, mean_weights=0.1 * rng.standard_normal((4, 5)), offset=0.02, variance=0.7,
        change_weights=rng.uniform(0.2, 4.0, (3, 2)),
    )  # fmt: skip
    shown = images(flow_, n=1, n_frames=6, duration=0.008)
    moved = shown.copy()
    moved.values[0, 3, 7, 7] += 1e-3
    one, other = flow_.run(shown), flow_.run(moved)
    y, y_moved = chosen(one, "output"), chosen(other, "output")
    np.testing.assert_array_equal(y[:, :3], y_moved[:, :3])
    slope = (y_moved - y)[0, 3] / 1e-3
    place = 6 * 13 + 6
    assert slope[place] == pytest.approx(np.sqrt(chosen(one, "precision")[0, 3, place]), rel=1e-9)
    np.testing.assert_array_equal(np.delete(slope, place), 0.0)
    assert np.abs(y_moved - y)[0, 4:].max() > 0.0
    x = shown.values[..., 1:-1, 1:-1].reshape(1, 6, -1) - 0.5
    again = chosen(one, "prediction") + y / np.sqrt(chosen(one, "precision"))
    np.testing.assert_allclose(again, x, atol=1e-12)


def test_long_frames_are_read_again_at_each_step():
    shown = images(ARF, n=1, n_frames=1, duration=0.04)
    repeated = stimulus_array(
        np.repeat(shown.values, 5, axis=1), frame_duration=0.008, px_per_deg=16.0
    )
    model = replace(ARF, mean_weights=np.full((4, 5), 0.05))
    np.testing.assert_array_equal(model.run(shown).rate, model.run(repeated).rate)
    halves = lesion(model, record_dt=0.004).run(shown)
    np.testing.assert_array_equal(halves.rate[:, 1::2], model.run(shown).rate)


def linear(generator):
    """One level of two latents whose posterior is diagonal, and data."""
    basis = torch.linalg.qr(torch.randn(6, 2, generator=generator, dtype=torch.float64))[0]
    exact = LinearGaussian(
        (basis * torch.tensor([0.7, 1.4]).double(),),
        (torch.zeros(6).double(), torch.zeros(2).double()),
        (torch.full((6,), 4.0).double(), torch.full((2,), 0.7).double()),
    )  # fmt: skip
    return exact, torch.randn(2, 5, 6, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("rate", [59.7, 60.0, 125.0])
def test_every_frame_is_recorded_at_rates_that_steps_do_not_divide(rate):
    movie = images(ARF, n=1, n_frames=7, duration=1.0 / rate)
    out = lesion(ARF, record_dt=1.0 / rate).run(movie)
    np.testing.assert_allclose(out["time"], np.arange(1, 8) / rate, rtol=1e-12)


def test_a_race_is_against_the_best_there_is(rng):
    exact, frames = linear(torch.Generator().manual_seed(int(rng.integers(2**31))))
    model = exact.model()
    x, starts, best = prepared(model, frames.numpy(), n_long=300)
    # A mean-field posterior is exact here: the best is the evidence, but for the judges' noise.
    evidence = -exact.log_evidence(frames[1])
    np.testing.assert_allclose(x, frames[1])
    np.testing.assert_allclose(best, evidence, atol=1.0)
    again = lowest(model, x, list(starts.values()), n_iterations=300)
    assert (again >= best - 1e-12).all()
    grids = {"preconditioned": (0.01, 1.0), "damped": (0.01, 1.0)}
    steps, search = tuned(model, x, starts, best, n_iterations=6, n_samples=400, grids=grids)
    assert set(steps.values()) == {1.0}
    assert len(search) == 8
    found = raced(model, x, starts, {}, steps, n_iterations=6, n_samples=400)
    assert found.shape == (2, 2, 7, 5)
    short = raced(model, x, {"cold": starts["cold"]}, {}, steps, n_iterations=3, n_samples=400)
    np.testing.assert_array_equal(short[:, 0], found[:, 0, :4])  # a longer race begins alike
    left = (found.mean(-1) - best.mean()) / (found[..., :1, :].mean(-1) - best.mean())
    assert (left[:, 0, -1] < 0.1).all()


def test_shares_of_h32_are_those_of_mean_free_energies():
    means = {"cold_start": 10.0, "cold_best": 2.0, "cold_own": 2.4, "cold_damped": 4.0}
    assert few.own_share(means) == pytest.approx(0.95)
    assert few.missed_by("damped")(means) == pytest.approx(0.2)


def test_the_curve_of_h32_and_where_it_reaches_95_per_cent():
    k = np.arange(few.LONGEST + 1)
    # 1 - G halves, or falls to nine tenths, with each iteration; one lane rises.
    left = np.stack([0.5**k, 0.9**k, 1.0 + 0.1 * k])
    best = np.array([2.0, 4.0, 3.0])
    energy = best + 8.0 * left[:, None, :, None] * np.ones((1, 2, 1, 3))
    lanes = ["own", "damped", "gradient"]
    names = {"lane": [*lanes, "momentum", "preconditioned"], "start": list(few.STARTS)}
    dims = ("lane", "start", "iteration", "unit")
    seen = few.evidence(xr.DataArray(energy[[0, 1, 2, 2, 2]], dims=dims, coords=names), best)
    np.testing.assert_allclose(
        seen["gap_closed"].sel(lane=lanes, start="cold"), 1.0 - left, rtol=0, atol=1e-12
    )
    # 0.5^5 = 0.031 and 0.9^29 = 0.047 are the first below 0.05.
    np.testing.assert_array_equal(seen["k95"].sel(lane=lanes, start="warm"), [5, 29, np.inf])
    means = {str(name): float(seen[name].mean()) for name in few.HYPOTHESIS.variables}
    assert few.own_share(means) == pytest.approx(1.0 - 0.5**few.LIMIT)


def test_a_direct_network_learns_nothing_from_the_data_of_others(rng):
    generator = torch.Generator().manual_seed(int(rng.integers(2**31)))
    exact, _ = linear(generator)
    model = exact.model().requires_grad_(False)
    z = torch.randn(2000, 2, generator=generator, dtype=torch.float64) / 0.7**0.5
    x = z @ exact.weights[0].T
    x = x + 0.5 * torch.randn(x.shape, generator=generator, dtype=torch.float64)
    settings = TrainingSettings(
        n_epochs=30, learning_rate=2e-2, learning_rate_decay=0.85, batch_size=50,
        precision="float64", device="cpu",
    )  # fmt: skip
    own, misled = (Direct(model, widths=((),)) for _ in range(2))
    train(model, own, x, settings, progress=False)
    train(model, ShuffledData(misled), x, settings, progress=False)
    # The posterior's mean is (W' Pi W + Lambda)^-1 W' Pi x; without the data it is the prior's.
    w = exact.weights[0]
    wanted = torch.linalg.solve(4.0 * w.T @ w + 0.7 * torch.eye(2).double(), 4.0 * w.T)
    found = [encoder_jacobian(one, model, x[:1])[0] for one in (own, misled)]
    assert torch.linalg.norm(found[0] - wanted) < 0.1 * torch.linalg.norm(wanted)
    assert torch.linalg.norm(found[1]) < 0.15 * torch.linalg.norm(wanted)


def test_shuffled_data_give_each_the_estimate_of_another():
    exact, frames = linear(torch.Generator().manual_seed(3))
    model, x = exact.model(), frames[0]
    inner = Direct(model, widths=((),))
    evaluation = Evaluation(generator=torch.Generator().manual_seed(1))
    (step,) = ShuffledData(inner).steps(model, x, evaluation)
    mixed, plain = (one.parameters[0].detach() for one in (step.q, inner.posterior(model, x)))
    assert not torch.equal(mixed, plain)
    assert sorted(map(tuple, mixed.tolist())) == sorted(map(tuple, plain.tolist()))


@pytest.mark.parametrize("kind", ["iterative", "direct"])
def test_a_misled_network_learns_on_a_model_that_stays(kind, taught, monkeypatch):
    monkeypatch.setattr(type(VAE), "n_training", {"quick": 3 * 128})
    control = Mistaught(original=taught[kind], seed=4)
    found, again = (control.taught("quick") for _ in range(2))
    state = control.original.deep().model.state_dict()
    assert all(torch.equal(one, state[name]) for name, one in found.model.state_dict().items())
    fresh = control.fresh.deep().inference.state_dict()
    for name, one in found.inference.state_dict().items():
        assert torch.equal(one, again.inference.state_dict()[name])
        assert name in fresh
    assert any(not torch.equal(one, fresh[n]) for n, one in found.inference.state_dict().items())
    assert type(found.inference) is type(control.original.deep().inference)
    if kind == "iterative":
        assert found.inference.encoding == control.original.deep().inference.encoding


def test_what_has_no_network_cannot_be_misled():
    own = inferring(catalog.load("circuits", "rao_ballard_1999").untrained(seed=0))
    control = Mistaught(original=own, seed=2)
    assert type(control.taught("quick").inference) is type(own.deep().inference)
    seen = weights.observe(control, seed=0, scale="quick")
    means = {str(name): float(seen[name].mean()) for name in seen.data_vars}
    # Random feedback in 768 dimensions stands at right angles to random feedforward.
    assert weights.angle_to("transpose")(means) == pytest.approx(90.0, abs=5.0)


def test_h32_asks_an_untrained_network_on_the_same_generative_model(taught):
    own = inferring(taught["iterative"])
    control = Untaught(original=own, seed=4)
    ours, theirs = own.deep(), control.deep()
    state = theirs.model.state_dict()
    assert all(torch.equal(one, state[name]) for name, one in ours.model.state_dict().items())
    pairs = zip(ours.inference.parameters(), theirs.inference.parameters(), strict=True)
    assert any(not torch.equal(a, b) for a, b in pairs)
    assert "iterations" in lacks_inference(ARF)
    assert inferring(catalog.load("circuits", "rao_ballard_1999")).deep() is not None
    shown = films(own, n=3, seed=5)
    assert shown.shape == (2, 3, 416)
    # A pixel to the left: the second frame's middle is the first's, but for the window.
    assert np.corrcoef(shown[0].ravel(), shown[1].ravel())[0, 1] > 0.2


def test_what_was_made_of_another_model_infers_without_having_learned(taught):
    @dataclass(frozen=True)
    class Wrapped:
        original: object
        seed: int = 4

    found = inferring(Wrapped(taught["direct"]))
    assert isinstance(found, Untaught)
    assert found.seed == 4
    assert inferring(Wrapped(ARF)) is None


def test_what_a_gradient_and_an_encoder_make_of_errors(rng):
    exact, frames = linear(torch.Generator().manual_seed(int(rng.integers(2**31))))
    model = exact.model()
    gradient = gradient_jacobian(model, frames[0])
    wanted = 4.0 * exact.weights[0].T
    torch.testing.assert_close(gradient, wanted.expand(5, 2, 6), rtol=0, atol=1e-12)
    encoder = Direct(model, widths=((),))
    with torch.no_grad():
        encoder.heads[0][0].weight.copy_(torch.linalg.pinv(exact.weights[0]))
    found = encoder_jacobian(encoder, model, frames[0])
    expected = torch.linalg.pinv(exact.weights[0]).expand(5, 2, 6)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)
    evaluation = Evaluation(generator=torch.Generator().manual_seed(0))
    for inference, form in ((object(), "transpose"), (encoder, "pseudo-inverse")):
        response, forms = responses_and_forms(model, inference, frames[0], evaluation)
        one = weights.evidence(response, forms)
        means = {str(name): float(one[name].mean()) for name in one.data_vars}
        assert weights.angle_to(form)(means) < 1e-4
    # Columns of lengths 0.7 and 1.4: each latent's row of J' times that of J^+ is 1.
    cosine = 2.0 / np.sqrt((0.49 + 1.96) * (1 / 0.49 + 1 / 1.96))
    assert weights.angle_to("transpose")(means) == pytest.approx(np.degrees(np.arccos(cosine)))


def test_columns_are_in_the_table_with_their_expectations():
    assert variant("VAE-dir").settings == {"inference": "direct"}
    assert variant("variational_autoencoder").label == "VAE-iter"
    for label in ("VAE-dir", "VAE-iter", "ARF"):
        assert all(label in row for row in expectation_table().values())
