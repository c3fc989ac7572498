"""Information, posterior means and active units against closed forms."""

from __future__ import annotations

import math

import deep_cases
import numpy as np
import pytest
import torch
from deep_cases import mean_field, normal, orthogonal

from pcsim.deep.evaluation_information import (
    Information,
    active_units,
    mutual_information,
    posterior_means,
)
from pcsim.deep.flows import Flow, Flowed
from pcsim.deep.full_covariance import FullCovariance
from pcsim.deep.latent_gaussian import LatentGaussian
from pcsim.deep.networks import FullyConnected
from pcsim.deep.outputs import Gaussian
from pcsim.deep.posteriors import MeanField, Point, TopDown

generator = deep_cases.generator


def constant(value, *shape):
    return torch.full(shape, value, dtype=torch.float64)


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


@pytest.mark.parametrize("offset", [0.0, 1e3, 1e5])
def test_information_is_the_same_wherever_the_means_lie(offset, generator):
    # Means a hundred sigmas apart are told apart without error: I is log N.
    sigma = math.exp(-15 / 2)
    mean = 100 * sigma * torch.arange(50.0).double()[:, None] + offset
    q = MeanField((mean,), (torch.full((50, 1), -15.0).double(),))
    found = mutual_information(q, generator=generator)
    assert found.nats == pytest.approx(math.log(50), abs=1e-6)
    alike = MeanField((torch.full((50, 1), offset).double(),), q.log_variance)
    assert mutual_information(alike, generator=generator).nats == pytest.approx(0.0, abs=1e-9)


def test_information_is_not_drawn_from_the_global_state(refused):
    q = MeanField((torch.zeros(5, 2),), (torch.zeros(5, 2),))
    assert "no generator" in refused(mutual_information, q, generator=None)
    assert "generator 3" in refused(mutual_information, q, generator=3)


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


def test_bad_input_is_refused(refused, generator):
    linear = orthogonal(generator)
    model, x = linear.model(), normal(generator, 2, 6)
    assert "N above 1" in refused(active_units, torch.zeros(1, 3))
    assert "means of type list" in refused(active_units, [[0.0], [1.0]])
    assert "n_samples 0" in refused(posterior_means, model, linear.q(x), n_samples=0)
    message = refused(mutual_information, linear.q(x), generator=generator)
    assert "Infer with that family" in message
    message = refused(mutual_information, mean_field(linear, x), level=2, generator=generator)
    assert "found level 2, expected one of 1" in message
