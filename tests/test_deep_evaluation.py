"""Evaluation against the closed forms of linear Gaussian models."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from pcsim.deep.arms import Arm, evaluate, examples
from pcsim.deep.evaluation import (
    amortization_gap,
    bits_per_dimension,
    elbo,
    gradient_magnitudes,
    log_likelihood,
    perplexity,
)
from pcsim.deep.evaluation_information import (
    Information,
    active_units,
    mutual_information,
    posterior_means,
)
from pcsim.deep.flows import Flow, Flowed
from pcsim.deep.full_covariance import FullCovariance
from pcsim.deep.inference import infer
from pcsim.deep.inference_direct import Direct
from pcsim.deep.inference_exact import Exact
from pcsim.deep.inference_gradient import GradientAscent, PointEstimate
from pcsim.deep.latent_gaussian import LatentGaussian
from pcsim.deep.linear_gaussian import LinearGaussian
from pcsim.deep.networks import FullyConnected
from pcsim.deep.outputs import Gaussian
from pcsim.deep.posteriors import MeanField, Point, TopDown


@pytest.fixture
def generator(rng):
    return torch.Generator().manual_seed(int(rng.integers(2**31)))


def normal(generator, *shape):
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def constant(value, *shape):
    return torch.full(shape, value, dtype=torch.float64)


def orthogonal(generator, lengths=(0.4, 0.8, 1.2)):
    """A linear Gaussian model whose posterior is diagonal."""
    n = len(lengths)
    basis = torch.linalg.qr(normal(generator, 6, n))[0]
    return LinearGaussian(
        (basis * torch.tensor(lengths, dtype=torch.float64),),
        (normal(generator, 6), normal(generator, n)),
        (torch.tensor([4.0] * 6).double(), torch.tensor([0.7] * n, dtype=torch.float64)),
    )


def mean_field(linear, x):
    mean, covariance = linear.posterior(x)
    return MeanField((mean,), (covariance.diagonal().log().expand_as(mean),))


def test_every_importance_weight_of_the_exact_posterior_is_the_evidence(generator):
    linear = orthogonal(generator)
    x = normal(generator, 4, 6)
    q = infer(Exact(), linear.model(), x, generator=generator).q
    for n_samples, chunk in ((1, 100), (7, 3), (8, 8)):
        found = log_likelihood(
            linear.model(), x, q, n_samples=n_samples, chunk=chunk, generator=generator
        )
        torch.testing.assert_close(found, linear.log_evidence(x), rtol=0, atol=1e-9)


def test_importance_weighted_likelihood_of_a_wrong_posterior_is_the_evidence(generator):
    linear = orthogonal(generator)
    x = linear.model().sample(6, generator)[0].detach()
    exact = mean_field(linear, x)
    # Broader than the posterior and beside it, so the weights vary but have a variance.
    q = MeanField((exact.mean[0] + 0.1,), (exact.log_variance[0] + 0.6,))
    n = 5000
    found = log_likelihood(linear.model(), x, q, n_samples=n, chunk=300, generator=generator)
    assert found.dtype == torch.float64
    weights = linear.model().free_energy(x, q, n_samples=n, generator=generator).importance
    relative = (weights.detach() - linear.log_evidence(x)).exp()
    error = relative.std(0) / math.sqrt(n)  # of log of the mean, to first order
    assert bool(((found - linear.log_evidence(x)).abs() < 4 * error).all())
    bound = elbo(linear.model(), x, q, n_samples=n, generator=generator)
    assert bool((found > bound).all())


def test_single_precision_far_from_zero_is_summed_in_double(generator):
    linear = orthogonal(generator)
    x = 100.0 * normal(generator, 3, 6)
    model = linear.model().float()
    exact = mean_field(linear, x)
    q = exact.with_parameters(tuple(one.float() for one in exact.parameters))
    found = log_likelihood(model, x.float(), q, n_samples=50, generator=generator)
    assert bool(torch.isfinite(found).all())
    torch.testing.assert_close(found, linear.log_evidence(x), rtol=1e-5, atol=0)


def test_bound_of_the_exact_posterior_is_the_evidence_on_average(generator):
    linear = orthogonal(generator)
    x = normal(generator, 4, 6)
    n = 4000
    draws = torch.stack(
        [elbo(linear.model(), x, mean_field(linear, x), generator=generator) for _ in range(200)]
    )
    many = elbo(linear.model(), x, mean_field(linear, x), n_samples=n, generator=generator)
    error = draws.std(0) / math.sqrt(n)
    assert bool(((many - linear.log_evidence(x)).abs() < 4 * error).all())


def test_amortization_gap_is_the_divergence_from_the_exact_posterior(generator):
    linear = orthogonal(generator)
    x = normal(generator, 5, 6)
    start = GradientAscent(n_iterations=0)
    # Noise of zero mean and unit covariance makes the expected squares exact.
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pcsim.deep.posteriors.noise", balanced)
        found = amortization_gap(
            linear.model(), start, x, n_samples=6, n_judges=6,
            ascent=GradientAscent(optimiser="preconditioned", step=0.5, n_iterations=100),
        )  # fmt: skip
    mean, covariance = linear.posterior(x)
    prior, variance = linear.biases[-1], 1 / linear.precisions[-1]
    ratio = variance / covariance.diagonal()
    distance = (mean - prior).square() / covariance.diagonal()
    expected = 0.5 * (ratio + distance - 1 - ratio.log()).sum(-1)
    torch.testing.assert_close(found.gap, expected, rtol=0, atol=1e-6)
    torch.testing.assert_close(found.converged, -linear.log_evidence(x), rtol=0, atol=1e-6)
    assert abs(found.rest) < 1e-6


def balanced(shape, like, generator):
    n = shape[-1]
    axes = math.sqrt(n) * torch.eye(n, dtype=like.dtype)
    return torch.cat([axes, -axes])[:, None].expand(shape)


def test_mutual_information_of_a_linear_gaussian_model(generator):
    linear = orthogonal(generator, (0.4, 0.8))
    (w,), precision = linear.weights, linear.precisions[0]
    # I = 1/2 log |posterior precision| / |prior precision|
    inner = w.mT @ (precision[:, None] * w) / linear.precisions[1]
    expected = 0.5 * float(torch.logdet(torch.eye(2).double() + inner))
    found = []
    for _ in range(10):
        x = linear.model().sample(1500, generator)[0].detach()
        found.append(mutual_information(mean_field(linear, x), generator=generator).nats)
    error = np.std(found, ddof=1) / math.sqrt(len(found))
    # A sample's own posterior among 1,500 costs at most about (e^I - 1) / 2N besides.
    assert abs(np.mean(found) - expected) < 4 * error + math.expm1(expected) / 1500
    assert expected > 0.5


def test_mutual_information_is_bounded_by_the_number_of_examples(generator):
    q = MeanField((torch.eye(5) * 100,), (torch.zeros(5, 5),))
    found = mutual_information(q, n_samples=3, chunk=2, generator=generator)
    assert found.nats == pytest.approx(math.log(5), abs=1e-12)
    q = MeanField((torch.zeros(5, 5),), (torch.zeros(5, 5),))
    assert mutual_information(q, generator=generator).nats == pytest.approx(0.0, abs=1e-12)


@pytest.mark.parametrize(("n_bits", "is_bound"), [(3, False), (9, True), (11, True)])
def test_information_near_its_ceiling_is_a_bound(n_bits, is_bound, generator):
    # Bits that are told apart without error: I is n_bits ln 2, and 512 examples can show 9 of them.
    places = torch.arange(512)[:, None] * (2 if n_bits > 9 else 1)
    bits = (places // 2 ** torch.arange(n_bits)) % 2
    q = MeanField((200.0 * bits,), (torch.zeros(512, n_bits),))
    found = mutual_information(q, generator=generator)
    truth = n_bits * math.log(2)
    assert found.nats == pytest.approx(min(truth, 9 * math.log(2)), abs=1e-9)
    assert found.is_bound is is_bound
    assert str(found) == (f">= {math.log(512):.3f}" if is_bound else f"{truth:.3f}")


def test_information_is_a_bound_from_one_nat_below_the_ceiling():
    ceiling = math.log(700)
    assert not Information(ceiling - 1.001, 700).is_bound
    assert Information(ceiling - 0.999, 700).is_bound


def test_importance_sampling_of_a_point_is_refused(refused, generator):
    linear = orthogonal(generator)
    model, x = linear.model(), normal(generator, 2, 6)
    q = infer(PointEstimate(n_iterations=5), model, x).q
    message = refused(log_likelihood, model, x, q, n_samples=3)
    assert "found a Point, expected a posterior with a density" in message
    # What it used to return is the joint density at the mode, which is another number.
    joint = model.free_energy(x, q).importance[0]
    assert float((joint.detach() - linear.log_evidence(x)).abs().min()) > 0.05


def test_active_units_are_those_the_data_move(generator):
    linear = orthogonal(generator, (0.0, 0.02, 0.8))
    x = linear.model().sample(4000, generator)[0].detach()
    (means,) = posterior_means(linear.model(), mean_field(linear, x))
    # Var E[z|x] is prior variance minus posterior variance: 0, 0.003 and 1.1.
    spread = 1 / 0.7 - linear.posterior(x)[1].diagonal()
    torch.testing.assert_close(means.var(0), spread, rtol=0.15, atol=1e-12)
    assert active_units(means).tolist() == [False, False, True]


def test_posterior_means_in_closed_form_are_exact(generator):
    linear = orthogonal(generator)
    model, x = linear.model(), normal(generator, 2, 6)
    mean, covariance = linear.posterior(x)
    evidence = covariance.diagonal().reciprocal() - 0.7  # beside a prior of precision 0.7
    middle = (mean / covariance.diagonal() - 0.7 * linear.biases[-1]) / evidence
    ladder = TopDown((middle,), (evidence.log().expand_as(mean),))
    for q in (linear.q(x), mean_field(linear, x), ladder, Point((mean,))):
        (found,) = posterior_means(model, q)
        torch.testing.assert_close(found, mean, rtol=0, atol=1e-12)
        assert not found.requires_grad


def two_levels(generator):
    output = Gaussian(4.0)
    model = LatentGaussian(6, (3, 2), output, prior_precision=0.7, generator=generator)
    return model.double()


def test_sampled_posterior_means_are_those_of_the_family(generator):
    model, n = two_levels(generator), 4000
    evidence = (normal(generator, 2, 3), normal(generator, 2, 2))
    q = TopDown(evidence, (constant(1.4, 2, 3), constant(0.3, 2, 2)))
    low, top = posterior_means(model, q, n_samples=n, chunk=900, generator=generator)
    # Gaussians multiply: the top meets N(0, 1), level 1 its linear prediction with precision 0.7.
    share = [math.exp(1.4) / (math.exp(1.4) + 0.7), math.exp(0.3) / (math.exp(0.3) + 1)]
    torch.testing.assert_close(top, share[1] * evidence[1], rtol=0, atol=1e-12)
    layer = model.heads[1]
    expected = share[0] * evidence[0] + (1 - share[0]) * (top @ layer.weight.mT + layer.bias)
    spread = (1 - share[0]) ** 2 * layer.weight.square().sum(1) * (1 - share[1])
    error = ((spread + 1 / (math.exp(1.4) + 0.7)) / n).sqrt()
    assert bool(((low - expected).abs() < 4 * error).all())


@pytest.mark.parametrize("family", ["full", "ladder", "two levels", "flow"])
def test_units_that_forgot_the_data_are_not_active(family, generator):
    """Here q is the same for every x, so that no mean varies with the data."""
    one = LatentGaussian(4, (3,), generator=generator).double()
    model = two_levels(generator) if family == "two levels" else one
    q = {
        "full": lambda: FullCovariance.at_prior(one, 500),
        "ladder": lambda: TopDown((constant(0.0, 500, 3),), (constant(0.7, 500, 3),)),
        "two levels": lambda: TopDown(
            tuple(constant(0.0, 500, n) for n in model.n_z),
            tuple(constant(-15.0, 500, n) for n in model.n_z),
        ),
        "flow": lambda: Flowed.at_prior(one, 500, [Flow(3, generator=generator).double()]),
    }[family]()
    for means in posterior_means(model, q, generator=generator):
        assert not active_units(means).any()


def test_posterior_means_are_taken_in_evaluation_mode(generator):
    decoders = [FullyConnected(n, (5,), normalization="batch", generator=generator) for n in (3, 2)]
    model = LatentGaussian(6, (3, 2), decoders=decoders, generator=generator)
    before = [one.clone() for one in model.buffers()]
    posterior_means(model, TopDown.at_prior(model, 4), n_samples=5, generator=generator)
    assert all(torch.equal(*pair) for pair in zip(before, model.buffers(), strict=True))
    assert model.training


def test_bits_and_perplexity_are_their_formulas():
    # A uniform guess among 256 greys is 8 bits a feature.
    uniform = torch.full((3,), -12 * math.log(256.0), dtype=torch.float64)
    torch.testing.assert_close(bits_per_dimension(uniform, 12), torch.full((3,), 8.0).double())
    # Uniform words have the size of the vocabulary as their perplexity, whatever the lengths.
    n_words = torch.tensor([3.0, 70.0, 4.0], dtype=torch.float64)
    assert perplexity(-n_words * math.log(500.0), n_words) == pytest.approx(500.0, rel=1e-12)
    # The mean is over documents: lengths must not weigh.
    log_p = -torch.tensor([2.0, 100.0], dtype=torch.float64)
    found = perplexity(log_p, torch.tensor([1.0, 100.0]))
    assert found == pytest.approx(math.exp((2.0 + 1.0) / 2), rel=1e-12)


def test_bad_input_is_refused(refused, generator):
    linear = orthogonal(generator)
    x = normal(generator, 2, 6)
    q = mean_field(linear, x)
    model = linear.model()
    assert "not below 1" in refused(log_likelihood, model, x, q, n_samples=0)
    assert "Leave out empty" in refused(perplexity, torch.zeros(2), torch.tensor([1.0, 0.0]))
    assert "N above 1" in refused(active_units, torch.zeros(1, 3))
    assert "n_samples 0" in refused(posterior_means, model, linear.q(x), n_samples=0)
    message = refused(mutual_information, linear.q(x), generator=generator)
    assert "Infer with that family" in message
    message = refused(mutual_information, q, level=2, generator=generator)
    assert "found level 2, expected one of 1" in message


@pytest.mark.parametrize("kind", [torch.float32, torch.uint8, torch.int64])
def test_data_of_another_type_than_the_model_are_refused(kind, refused, generator):
    model = LatentGaussian(6, (3,), generator=generator).double()
    direct = Direct(model, widths=[[8]], generator=generator)
    x = torch.ones(2, 6).to(kind)
    q = infer(direct, model, x.to(model.top), generator=generator).q
    name = str(kind).removeprefix("torch.")
    for message in (
        refused(infer, direct, model, x, generator=generator),
        refused(infer, GradientAscent(), model, x, generator=generator),
        refused(elbo, model, x, q, generator=generator),
    ):
        assert f"x of {name} on cpu, expected x of float64 on cpu" in message
    assert "x of float64 on meta" in refused(infer, direct, model, x.double().to("meta"))


def test_gradient_magnitudes_are_those_of_the_closed_form(generator):
    linear = orthogonal(generator)
    x = normal(generator, 5, 6)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pcsim.deep.posteriors.noise", balanced)
        runs = [
            infer(GradientAscent(n_iterations=0), linear.model(), rows, n_samples=6)
            for rows in (x[:2], x[2:4])
        ]
    found = gradient_magnitudes(runs)
    # At q = prior: dF/dmu = Lambda (mu - m), dF/dlog variance = (Lambda_ii / 0.7 - 1) / 2
    mean = linear.posterior(x[:4])[0]
    slope = (linear.biases[-1] - mean) @ linear.posterior_precision()
    other = 0.5 * (linear.posterior_precision().diagonal() / 0.7 - 1)
    expected = torch.stack([slope.abs().mean(), other.abs().mean()])
    torch.testing.assert_close(found, expected[None], rtol=1e-9, atol=1e-12)


def test_arms_that_differ_in_inference_alone_start_from_equal_decoders(refused):
    sizes = {"n_z": (4, 3), "widths": ((8, 8), (6, 6))}
    arms = [
        Arm(inference=kind, **sizes) for kind in ("direct", "iterative", "hybrid", "ladder")
    ]  # fmt: skip
    models = [arm.build(9, seed=3)[0] for arm in arms]
    for model in models[1:]:
        pairs = zip(models[0].parameters(), model.parameters(), strict=True)
        assert all(torch.equal(*pair) for pair in pairs)
    other = arms[0].build(9, seed=4)[0]
    assert not torch.equal(next(models[0].parameters()), next(other.parameters()))
    assert "Did you mean 'iterative'" in refused(Arm, inference="iterativ")


def test_an_arm_is_measured(rng):
    x = examples(rng.integers(0, 256, size=(12, 3, 3)).astype(np.uint8), scale=255.0, binary_seed=1)
    assert x.shape == (12, 9)
    assert set(x.unique().tolist()) == {0.0, 1.0}
    arm = Arm(n_z=(4,), widths=((8,),), n_iterations=2)
    model, inference = arm.build(9, seed=0)
    found = evaluate(model, inference, x, n_importance=30, n_gap=3)
    again = evaluate(model, inference, x, n_importance=30, n_gap=3)
    assert found == again
    assert len(found["free_energy"]) == len(found["log_likelihood"]) == 12
    assert len(found["steps"]) == 3
    assert len(found["gap"]) == 3
