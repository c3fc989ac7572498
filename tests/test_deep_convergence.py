"""Gaps, Jacobians and streams against models in which they are known."""

from __future__ import annotations

import deep_cases
import numpy as np
import pytest
import torch
from deep_cases import normal

from pcsim.deep.convergence import closing, converged, descent, first_reaching, gap_closed
from pcsim.deep.encodings import ErrorEncoding, GradientEncoding
from pcsim.deep.frames import moving
from pcsim.deep.full_covariance import FullCovariance
from pcsim.deep.inference import Evaluation, infer
from pcsim.deep.inference_direct import Direct
from pcsim.deep.inference_gradient import GradientAscent, PointEstimate
from pcsim.deep.inference_hybrid import Hybrid
from pcsim.deep.inference_iterative import Iterative
from pcsim.deep.latent_gaussian import LatentGaussian
from pcsim.deep.linear_gaussian import LinearGaussian
from pcsim.deep.networks import FullyConnected, TwoStreams
from pcsim.deep.outputs import Gaussian
from pcsim.deep.pairs import paired
from pcsim.deep.posteriors import MeanField, Point
from pcsim.deep.streams import crossed_updates, variance_shares
from pcsim.deep.transport import (
    ShuffledErrors,
    angle,
    decoder_jacobian,
    forms,
    update_jacobian,
)
from pcsim.stats import mean_interval

PRECISION_X, PRECISION_Z = 4.0, 0.7

generator = deep_cases.generator


def linear(weights):
    """A model of one level with these weights, at precisions that show a slip, without biases."""
    n_x, n_z = weights.shape
    biases = (torch.zeros(n_x).double(), torch.zeros(n_z).double())
    precisions = (
        torch.full((n_x,), PRECISION_X, dtype=torch.float64),
        torch.full((n_z,), PRECISION_Z, dtype=torch.float64),
    )  # fmt: skip
    return LinearGaussian((weights,), biases, precisions)


def orthogonal(generator, lengths, n_x=6):
    basis = torch.linalg.qr(normal(generator, n_x, len(lengths)))[0]
    return linear(basis * torch.tensor(lengths, dtype=torch.float64))


def lowest(model, exact, x):
    q = Point((exact.posterior(x)[0],))
    return model.free_energy(x, q).total.detach().numpy()


def test_one_preconditioned_step_closes_the_gap_where_latents_do_not_interact(generator):
    exact = orthogonal(generator, (0.5, 0.9, 1.4))
    x, model = normal(generator, 5, 6), exact.model()
    rule = GradientAscent(optimiser="preconditioned", step=1.0, start=Point.at_prior)
    share = gap_closed(descent(rule, model, x, n_iterations=3), lowest(model, exact, x))
    np.testing.assert_allclose(share, [0.0, 1.0, 1.0, 1.0], rtol=0, atol=1e-12)
    assert first_reaching(share) == 1.0


def test_gaps_are_measured_in_eval_mode_and_move_no_running_means(generator):
    decoder = FullyConnected(3, [8], normalization="batch", generator=generator)
    model = LatentGaussian(6, (3,), Gaussian(0.7), decoders=[decoder], generator=generator)
    inference = Direct(model, widths=[[8]], normalization="batch", generator=generator)
    x, parts = torch.randn(5, 6, generator=generator), (model, inference)
    before = [one.clone() for part in parts for one in part.buffers()]
    found = []
    for is_training in (True, False):
        for part in parts:
            part.train(is_training)
        curve = descent(inference, model, x, n_iterations=1)
        start = inference.eval().posterior(model, x)
        found.append((curve, converged(model, x, start, n_iterations=3).mean[0]))
    np.testing.assert_array_equal(found[0][0], found[1][0])
    assert torch.equal(found[0][1], found[1][1])
    after = [one for part in parts for one in part.buffers()]
    assert all(torch.equal(*pair) for pair in zip(before, after, strict=True))


def test_fixed_steps_close_the_gap_at_the_rate_of_the_curvature(generator):
    """On a quadratic of curvature h what is left shrinks by (1 - step h)^2 an iteration."""
    exact = orthogonal(generator, (0.9, 0.9, 0.9))
    x, model = normal(generator, 5, 6), exact.model()
    curvature, step = PRECISION_X * 0.9**2 + PRECISION_Z, 0.1
    rule = GradientAscent(optimiser="gradient", step=step, start=Point.at_prior)
    share = gap_closed(descent(rule, model, x, n_iterations=6), lowest(model, exact, x))
    expected = 1 - (1 - step * curvature) ** (2 * np.arange(7))
    np.testing.assert_allclose(share, expected, rtol=0, atol=1e-12)


def test_a_warm_start_goes_on_from_where_it_is_put(generator):
    exact = orthogonal(generator, (0.5, 0.9, 1.4))
    x, model = normal(generator, 5, 6), exact.model()
    start = Point((exact.posterior(x)[0],))
    rule = GradientAscent(optimiser="gradient", step=0.1, start=Point.at_prior)
    curve = descent(rule, model, x, n_iterations=2, start=start)
    best = lowest(model, exact, x)
    np.testing.assert_allclose(curve, [best] * 3, rtol=0, atol=1e-12)


def test_a_descent_has_a_row_an_iteration_whatever_the_inference_and_its_start(generator):
    exact = orthogonal(generator, (0.5, 0.9, 1.4))
    x, model = normal(generator, 5, 6), exact.model()
    best = lowest(model, exact, x)
    mode = PointEstimate(optimiser="preconditioned", step=1.0)
    start = Point((exact.posterior(x)[0] + 0.3,))
    given = model.free_energy(x, start).total.detach().numpy()
    # One step of the rule is all it takes; it starts at the prior, wherever we start.
    curve = descent(mode, model, x, n_iterations=3, start=start)
    np.testing.assert_allclose(curve, [given, best, best, best], rtol=0, atol=1e-12)
    np.testing.assert_allclose(
        descent(mode, model, x, n_iterations=0, start=start), [given], rtol=0, atol=1e-12
    )
    # A guess that is exact and a refinement that runs off, from there and from the start.
    away = GradientAscent(optimiser="gradient", step=0.1, start=Point.at_prior)
    hybrid = Hybrid(PointEstimate(step=1.0, n_iterations=2), away)
    cold = descent(hybrid, model, x, n_iterations=3)
    np.testing.assert_allclose(cold, [best] * 4, rtol=0, atol=1e-12)
    warm = descent(hybrid, model, x, n_iterations=3, start=start)
    np.testing.assert_allclose(warm, [given, best, best, best], rtol=0, atol=1e-12)


def test_a_single_step_repeats_after_a_given_start(generator):
    exact = orthogonal(generator, (0.5, 0.9, 1.4))
    x, model = normal(generator, 5, 6), exact.model()
    direct = Direct(model, widths=[[8]], start=Point.at_prior, generator=generator)
    start = Point((exact.posterior(x)[0],))
    (only,) = descent(direct, model, x, n_iterations=0)
    curve = descent(direct, model, x, n_iterations=3, start=start)
    best = lowest(model, exact, x)
    np.testing.assert_allclose(curve, [best, only, only, only], rtol=0, atol=1e-12)


def test_intervals_of_equal_examples_have_no_width(rng):
    curve = np.array([10.0, 4.0, 1.0])
    energy = np.broadcast_to(curve[None, None, :, None], (2, 1, 3, 7))
    found = closing(energy, np.zeros((2, 7)), level=0.9, draws=20, seed=1)
    np.testing.assert_allclose(found.share, [[0.0, 0.6, 0.9]], atol=1e-12)
    np.testing.assert_allclose(found.share_ends[0], found.share_ends[1], atol=1e-12)
    late = closing(energy, np.full((2, 7), -90.0), level=0.9, draws=20)
    assert np.isinf(late.first).all()
    assert np.isinf(late.first_ends).all()


def test_intervals_over_few_replicas_are_students():
    curves = np.array([[10.0, 1.0, 0.5], [10.0, 1.2, 0.7], [10.0, 0.8, 0.6]])
    energy = np.repeat(curves[:, :, None], 5, axis=-1)
    found = closing(energy, np.zeros((3, 5)), level=0.93, draws=200)
    # Of shares .90, .88, .92 and .95, .93, .94: standard deviations of .02 and .01.
    half = 4.302652729911275 * np.array([0.0, 0.02, 0.01]) / np.sqrt(3)
    np.testing.assert_allclose(found.share, [0.0, 0.9, 0.94], atol=1e-12)
    np.testing.assert_allclose(found.share_ends - found.share, [-half, half], atol=1e-9)
    assert (found.first, *found.first_ends) == (2.0, 1.0, np.inf)


def test_intervals_over_shared_examples_count_them_once(rng):
    # All replicas alike: what is left is the error of a mean over 400 examples, not over 1,200.
    last = rng.normal(2.0, 1.0, 400)
    energy = np.broadcast_to(np.stack([np.full(400, 10.0), last]), (3, 2, 400))
    low, high = closing(energy, np.zeros((3, 400)), draws=20_000).share_ends[:, 1]
    assert high - low == pytest.approx(2 * 1.96 * 0.1 * last.std() / 20, rel=0.03)


def test_what_ran_off_closed_nothing():
    energy = np.array([[[10.0, 10.0], [1.0, np.nan], [1.0, np.inf]]] * 2)
    found = closing(energy, np.zeros((2, 2)), draws=50)
    assert (found.share[1:] < -1e7).all()
    assert np.isinf(found.first)


def test_frames_move_slowly_about_the_image_itself(rng):
    images = np.zeros((4, 28, 28))
    images[:, 6:22, 12:16] = 255.0
    frames = moving(images, 5, seed=3)
    assert set(np.unique(frames)) == {0.0, 1.0}
    np.testing.assert_array_equal(frames[2], images.reshape(4, -1) / 255.0)
    near = np.abs(frames[1] - frames[2]).sum()
    assert 0 < near < np.abs(frames[0] - frames[4]).sum()


def test_the_preconditioned_form_takes_errors_to_the_posterior_mean(generator):
    exact = linear(normal(generator, 6, 3))
    x, model = normal(generator, 5, 6), exact.model()
    jacobian = decoder_jacobian(model, normal(generator, 5, 3))
    torch.testing.assert_close(jacobian, exact.weights[0].expand(5, 6, 3), rtol=0, atol=1e-12)
    found = forms(jacobian, PRECISION_X, PRECISION_Z)["preconditioned"]
    mean = (found @ (PRECISION_X * x)[..., None])[..., 0]
    torch.testing.assert_close(mean, exact.posterior(x)[0], rtol=0, atol=1e-12)


def test_the_posterior_mean_map_is_at_no_angle_to_the_preconditioned_form(generator):
    exact = linear(normal(generator, 6, 3))
    data = torch.eye(6, dtype=torch.float64)
    bayes = exact.posterior(data)[0].mT.numpy()
    jacobian = exact.weights[0][None]
    found = {k: v[0].numpy() for k, v in forms(jacobian, PRECISION_X, PRECISION_Z).items()}
    assert angle(bayes, found["preconditioned"]) < 1e-6
    assert angle(bayes, found["transpose"]) > 1.0
    assert angle(bayes, -found["preconditioned"]) > 180 - 1e-6


def test_all_forms_agree_where_the_decoder_is_orthogonal(generator):
    jacobian = orthogonal(generator, (0.9, 0.9, 0.9)).weights[0][None]
    one, two, three = (v.numpy() for v in forms(jacobian, PRECISION_X, PRECISION_Z).values())
    assert float(angle(one, two)[0]) < 1e-6
    assert float(angle(one, three)[0]) < 1e-6


def bare(model, encoding=None):
    """An iterative network without hidden layers: its update is a linear map of what it sees."""
    return Iterative(
        model, encoding=encoding or ErrorEncoding(with_x=False), update="additive", widths=((),),
        normalise_inputs=False, n_iterations=1,
    )  # fmt: skip


def test_a_linear_update_has_its_weights_as_jacobian_and_can_be_exact(generator):
    exact = linear(normal(generator, 6, 3))
    x, model = normal(generator, 5, 6), exact.model()
    network = bare(model)
    head = network.updates[0][0].delta
    wanted = forms(exact.weights[0][None], PRECISION_X, PRECISION_Z)["preconditioned"][0]
    with torch.no_grad():
        head.weight.zero_()
        head.weight[:, 6:12] = wanted  # after mean and log variance, before the own error
    evaluation = Evaluation(generator=generator)
    first = next(iter(network.steps(model, x, evaluation)))
    found = update_jacobian(network, model, x, first, evaluation)
    torch.testing.assert_close(found, wanted.expand(5, 3, 6), rtol=0, atol=1e-12)
    # The prior has a variance, so the error is that of a draw: averaged here over many.
    ended = infer(network, model, x, n_samples=20_000, generator=generator)
    error = ended.q.parameters[0] - exact.posterior(x)[0]
    assert float(error.abs().max()) < 0.1


def test_jacobians_of_what_has_no_errors_are_refused(generator, refused):
    model = linear(normal(generator, 6, 3)).model()
    network = bare(model, GradientEncoding(with_x=False))
    message = refused(update_jacobian, network, model, None, None, None)
    assert "ErrorEncoding" in message


def test_shuffled_errors_are_those_of_other_examples(generator):
    model = linear(normal(generator, 6, 3)).model()
    x = normal(generator, 40, 6)
    evaluation = Evaluation(generator=torch.Generator().manual_seed(1))
    step = next(iter(bare(model).steps(model, x, evaluation)))
    same = Evaluation(generator=torch.Generator().manual_seed(2))
    plain = ErrorEncoding(with_x=False).inputs(model, x, step, same)[0]
    same = Evaluation(generator=torch.Generator().manual_seed(2))
    mixed = ShuffledErrors().inputs(model, x, step, same)[0]
    assert not torch.equal(plain[2], mixed[2])
    ordered = [one[2][one[2][:, 0].argsort()] for one in (plain, mixed)]
    torch.testing.assert_close(*ordered, rtol=0, atol=0)
    for place in (0, 1, 3):
        torch.testing.assert_close(plain[place], mixed[place], rtol=0, atol=0)


def test_variance_is_divided_as_the_table_was_made(rng):
    a, b = rng.normal(size=(5, 1, 2)), rng.normal(size=(1, 7, 2))
    a, b = a - a.mean(0), b - b.mean(1, keepdims=True)
    below, own, rest = variance_shares(a + b)
    total = 7 * (a**2).sum() + 5 * (b**2).sum()
    np.testing.assert_allclose((below, own), (7 * (a**2).sum() / total, 5 * (b**2).sum() / total))
    assert rest < 1e-12
    assert variance_shares(a * b)[2] == pytest.approx(1.0, abs=1e-12)


def deep(generator, **kind):
    decoders = [FullyConnected(n, (8,), generator=generator) for n in (3, 2)]
    model = LatentGaussian(6, (3, 2), decoders=decoders).double()
    encoding = ErrorEncoding(with_x=False)
    return model, Iterative(model, encoding=encoding, widths=((8,), (8,)), **kind)


@pytest.mark.parametrize(("kind", "apart"), [
    ({"segregated": True, "update": "additive"}, True), ({"update": "additive"}, False),
    ({"segregated": True, "update": "gated"}, False),
])  # fmt: skip
def test_only_streams_that_meet_in_a_sum_do_not_interact(generator, kind, apart):
    model, network = deep(generator, **kind)
    x = torch.bernoulli(torch.full((9, 6), 0.5).double(), generator=generator)
    evaluation = Evaluation(generator=generator)
    step = list(network.steps(model, x, evaluation))[1]
    shares = variance_shares(crossed_updates(network, model, x, step, evaluation).numpy())
    assert sum(shares) == pytest.approx(1.0)
    assert (shares[2] < 1e-12) == apart


@pytest.mark.parametrize("start", [Point.at_prior, FullCovariance.at_prior])
@pytest.mark.parametrize("with_x", [True, False])
def test_streams_of_a_posterior_without_levels_are_told_apart(generator, start, with_x):
    model = LatentGaussian(6, (3, 2), generator=generator).double()
    encoding = ErrorEncoding(with_x=with_x)
    network = Iterative(
        model, encoding=encoding, update="additive", segregated=True, start=start,
        widths=[[8]] * (2 if start == Point.at_prior else 1), generator=generator,
    )  # fmt: skip
    x = torch.bernoulli(torch.full((5, 6), 0.5).double(), generator=generator)
    evaluation = Evaluation(generator=generator)
    step = list(network.steps(model, x, evaluation))[2]
    below, own, both = variance_shares(crossed_updates(network, model, x, step, evaluation).numpy())
    assert min(below, own) > 1e-3
    assert both < 1e-12


def test_only_errors_can_be_crossed(generator):
    model = LatentGaussian(6, (3,), generator=generator)
    network = Iterative(model, widths=[[8]], generator=generator)
    x, evaluation = torch.ones(2, 6), Evaluation(generator=generator)
    step = next(iter(network.steps(model, x, evaluation)))
    with pytest.raises(ValueError, match="found GradientEncoding, expected an ErrorEncoding"):
        crossed_updates(network, model, x, step, evaluation)


def test_examples_that_meet_themselves_take_the_usual_step(generator):
    model, network = deep(generator, update="gated")
    x = torch.bernoulli(torch.full((4, 6), 0.5).double(), generator=generator)
    seeds = [Evaluation(generator=torch.Generator().manual_seed(5)) for _ in range(3)]
    step = next(iter(network.steps(model, x, seeds[0])))
    crossed = crossed_updates(network, model, x, step, seeds[1])
    usual = next(iter(network.refine(model, x, seeds[2], step, 1))).q
    change = usual.parameters[0] - step.q.parameters[0]
    torch.testing.assert_close(crossed.diagonal().mT, change, rtol=0, atol=1e-12)


def test_streams_do_not_see_each_other(generator, refused):
    network = TwoStreams(3, 2, (8, 4), generator=generator).double()
    x = normal(generator, 5, 5).requires_grad_()
    (slope,) = torch.autograd.grad(network(x)[:, :2].sum(), x)
    assert float(slope[:, 3:].abs().max()) == 0.0
    assert float(slope[:, :3].abs().min()) > 0.0
    assert "even" in refused(TwoStreams, 3, 2, (7,))
    model = linear(normal(generator, 6, 3)).model()
    assert "ErrorEncoding" in refused(Iterative, model, segregated=True)


BASAL = {
    "point": (Point.at_prior, (3,), True, [0, 2]),
    "mean field": (MeanField.at_prior, (3, 2), True, [0, 3]),
    "mean field, no data": (MeanField.at_prior, (3, 2), False, [2]),
    "full covariance": (FullCovariance.at_prior, (3, 2), True, [0, 3]),
}
"""Family -> its start, latents, whether the data are seen, the places of the data and their error
among data, estimate and errors of the lowest network."""


@pytest.mark.parametrize("name", list(BASAL))
def test_the_basal_stream_sees_the_data_and_the_error_below_and_nothing_else(name, generator):
    start, n_z, with_x, basal = BASAL[name]
    n_networks = 1 if start == FullCovariance.at_prior else len(n_z)  # it has no levels
    model = LatentGaussian(6, n_z, generator=generator).double()
    network = Iterative(
        model, encoding=ErrorEncoding(with_x=with_x), update="additive", segregated=True,
        start=start, widths=[[8]] * n_networks, normalise_inputs=False, generator=generator,
    )  # fmt: skip
    x = torch.bernoulli(torch.full((4, 6), 0.5).double(), generator=generator)
    evaluation = Evaluation(generator=generator)
    step = evaluation.at(model, x, start(model, 4))
    inputs = network.encoding.inputs(model, x, step, evaluation)[0]
    assert [inputs[place].shape for place in basal] == [x.shape] * len(basal)
    # What the features of the first stream depend on is found by their gradient.
    leaves = [one.clone().requires_grad_() for one in inputs]
    features = network._features(0, leaves, None, None)[:, :4]
    slopes = torch.autograd.grad(features.sum(), leaves, materialize_grads=True)
    assert [place for place, one in enumerate(slopes) if one.abs().max() > 0] == basal
    infer(network, model, x, generator=generator)


def test_student_interval_has_its_closed_form_and_pairs_use_it():
    # t(0.975, 2) = 4.302653: mean 2, standard deviation 1, n 3.
    middle, low, high, _ = mean_interval([1.0, 2.0, 3.0])
    np.testing.assert_allclose((middle, low, high), (2.0, 2 - 2.484138, 2 + 2.484138), atol=1e-6)
    pair = paired({"a": [3.0, 4.0, 5.0], "b": [2.0, 2.0, 2.0]}, "a", "b")
    assert (pair.difference, pair.verdict) == (2.0, "undecided")
    assert paired({"a": [3.0], "b": [2.0]}, "a", "b").row == "3,2,1,,,1"
    assert paired({"a": [1.0, 1.1], "b": [9.0, 9.0]}, "a", "b").verdict == "the other way"
