"""Evaluation against the closed forms of linear Gaussian models."""

from __future__ import annotations

import math

import deep_cases
import numpy as np
import pytest
import torch
from deep_cases import balanced, mean_field, normal, orthogonal

from pcsim.deep.arms import Arm, evaluate, examples
from pcsim.deep.evaluation import (
    amortization_gap,
    bits_per_dimension,
    elbo,
    gradient_magnitudes,
    log_likelihood,
    perplexity,
)
from pcsim.deep.inference import infer
from pcsim.deep.inference_direct import Direct
from pcsim.deep.inference_exact import Exact
from pcsim.deep.inference_gradient import GradientAscent, PointEstimate
from pcsim.deep.latent_gaussian import LatentGaussian
from pcsim.deep.outputs import Bernoulli
from pcsim.deep.posteriors import MeanField

generator = deep_cases.generator


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


class Staying:
    """An ascent that leaves the posterior where it is."""

    def refine(self, model, x, evaluation, first, n_iterations=None):
        return iter([first] * 12)


def test_a_posterior_has_no_gap_from_itself(generator):
    model = LatentGaussian(6, (3,), Bernoulli(), generator=generator).double()
    x = model.sample(5, generator)[0]
    start = GradientAscent(n_iterations=0)
    ended = {"n_samples": 1, "n_judges": 2, "generator": generator}
    found = amortization_gap(model, start, x, ascent=Staying(), **ended)
    assert not found.gap.any()
    assert found.rest == 0.0


def test_amortization_gap_is_the_same_in_inference_mode(generator):
    model = LatentGaussian(6, (3,), Bernoulli(), generator=generator).double()
    inference = Direct(model, widths=[[8]], generator=generator)
    x, state = model.sample(5, generator)[0], generator.get_state()
    ascent = GradientAscent(n_iterations=3)
    outside = amortization_gap(model, inference, x, ascent=ascent, generator=generator)
    generator.set_state(state)
    with torch.inference_mode():
        inside = amortization_gap(model, inference, 1 * x, ascent=ascent, generator=generator)
    assert torch.equal(inside.gap, outside.gap)
    assert inside.gap.any()


def test_importance_sampling_of_a_point_is_refused(refused, generator):
    linear = orthogonal(generator)
    model, x = linear.model(), normal(generator, 2, 6)
    q = infer(PointEstimate(n_iterations=5), model, x).q
    message = refused(log_likelihood, model, x, q, n_samples=3)
    assert "found a Point, expected a posterior with a density" in message
    # What it used to return is the joint density at the mode, which is another number.
    joint = model.free_energy(x, q).importance[0]
    assert float((joint.detach() - linear.log_evidence(x)).abs().min()) > 0.05


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
    assert "n_words of type int" in refused(perplexity, torch.tensor([-1.0]), 5)
    start, direct = GradientAscent(n_iterations=0), Direct(model, widths=[[8]])
    message = refused(amortization_gap, model, start, x, ascent=direct, generator=generator)
    assert "such as GradientAscent()" in message


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
            for rows in (x[:2], x[2:])
        ]
    found = gradient_magnitudes(runs)
    # At q = prior: dF/dmu = Lambda (mu - m), dF/dlog variance = (Lambda_ii / 0.7 - 1) / 2
    mean = linear.posterior(x)[0]
    slope = (linear.biases[-1] - mean) @ linear.posterior_precision()
    other = 0.5 * (linear.posterior_precision().diagonal() / 0.7 - 1)
    expected = torch.stack([slope.abs().mean(), other.abs().mean()])
    torch.testing.assert_close(found, expected[None], rtol=1e-9, atol=1e-12)


def test_gradients_of_unlike_runs_are_refused(refused, generator):
    linear = orthogonal(generator)
    x = normal(generator, 5, 6)
    runs = [
        infer(GradientAscent(n_iterations=n), linear.model(), x, generator=generator)
        for n in (1, 2)
    ]
    assert "shapes [(2, 2), (3, 2)]" in refused(gradient_magnitudes, runs)
    assert "no batch" in refused(gradient_magnitudes, [])


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
