"""The linear Gaussian chain: brute-force conditioning, and every family measured by it."""

from __future__ import annotations

import itertools
import math

import deep_cases
import numpy as np
import pytest
import torch
from scipy.stats import norm

from pcsim.deep.inference import Evaluation
from pcsim.deep.inference_exact import Exact
from pcsim.deep.latent_gaussian import LatentGaussian
from pcsim.deep.linear_gaussian import LinearGaussian
from pcsim.deep.networks import FullyConnected
from pcsim.deep.outputs import Bernoulli, Gaussian
from pcsim.deep.posteriors import MeanField, Point, TopDown
from pcsim.deep.twins import twin_of
from pcsim.hierarchy import Flat, Hierarchy, Level
from pcsim.priors import GaussianPrior

CHAINS = [(3,), (3, 2), (4, 3, 2)]

generator = deep_cases.generator


def chain(sizes, generator, n_x=5):
    """A chain with random weights and biases, precisions between 0.7 and 4."""
    sizes = (n_x, *sizes)

    def normal(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    def precision(n):
        return 0.7 + 3.3 * torch.rand(n, generator=generator, dtype=torch.float64)

    return LinearGaussian(
        tuple(normal(n, m) for n, m in itertools.pairwise(sizes)),
        tuple(normal(n) for n in sizes),
        tuple(precision(n) for n in sizes),
    )


def joint(exact):
    """Mean and covariance of (x, z_1, ..., z_L) from its definition as sums of noise."""
    sizes = [len(b) for b in exact.biases]
    n = sum(sizes)
    starts = [sum(sizes[:i]) for i in range(len(sizes))]
    # v = A v + b + noise, with A strictly upper block triangular
    below = torch.zeros(n, n, dtype=torch.float64)
    for i, w in enumerate(exact.weights):
        rows = slice(starts[i], starts[i] + sizes[i])
        below[rows, starts[i + 1] : starts[i + 1] + sizes[i + 1]] = w
    spread = torch.linalg.inv(torch.eye(n, dtype=torch.float64) - below)
    noise = torch.diag(1 / torch.cat(exact.precisions))
    return spread @ torch.cat(exact.biases), spread @ noise @ spread.T


@pytest.mark.parametrize("sizes", CHAINS)
def test_evidence_and_posterior_equal_conditioning_the_joint(sizes, generator):
    exact = chain(sizes, generator)
    mean, covariance = joint(exact)
    x, _ = exact.model().sample(4, generator)
    x = x.detach()
    evidence = torch.distributions.MultivariateNormal(mean[:5], covariance[:5, :5])
    torch.testing.assert_close(exact.log_evidence(x), evidence.log_prob(x), rtol=1e-10, atol=0)
    gain = covariance[5:, :5] @ torch.linalg.inv(covariance[:5, :5])
    mu, sigma = exact.posterior(x)
    torch.testing.assert_close(mu, mean[5:] + (x - mean[:5]) @ gain.T, rtol=0, atol=1e-10)
    expected = covariance[5:, 5:] - gain @ covariance[:5, 5:]
    torch.testing.assert_close(sigma, expected, rtol=0, atol=1e-10)


@pytest.mark.parametrize("sizes", CHAINS)
def test_free_energy_at_the_exact_posterior_is_minus_log_evidence(sizes, generator):
    exact = chain(sizes, generator)
    x = torch.randn(4, 5, generator=generator, dtype=torch.float64)
    f = exact.model().free_energy(x, exact.q(x), n_samples=3, generator=generator)
    # no variance at all: every sample of the exact posterior weighs the same
    expected = exact.log_evidence(x).expand(3, 4)
    torch.testing.assert_close(f.importance.detach(), expected, rtol=1e-10, atol=0)


@pytest.mark.parametrize("sizes", CHAINS)
def test_best_mean_field_misses_the_evidence_by_the_known_gap(sizes, generator):
    exact = chain(sizes, generator)
    x = torch.randn(1, 5, generator=generator, dtype=torch.float64)
    n, (mu, _), precision = 20_000, exact.posterior(x), exact.posterior_precision()
    # the mean-field optimum has the posterior's mean and the inverse diagonal of its precision
    variance = -precision.diagonal().log()
    q = MeanField(mu.split(list(sizes), -1), variance[None].split(list(sizes), -1))
    with torch.no_grad():
        f = exact.model().free_energy(x, q, n_samples=n, generator=generator)
    gap = 0.5 * (precision.diagonal().log().sum() - precision.logdet())
    se = f.importance.std() / math.sqrt(n)
    assert gap > 0.1
    assert abs(-f.importance.mean() - (gap - exact.log_evidence(x)[0])) < 4 * se


def test_point_at_the_posterior_mean_has_no_gradient(generator):
    exact = chain((4, 3), generator)
    x = torch.randn(6, 5, generator=generator, dtype=torch.float64)
    q = Point(exact.posterior(x)[0].split([4, 3], -1)).detached()
    f = exact.model().free_energy(x, q)
    for gradient in torch.autograd.grad(f.total.sum(), q.parameters):
        torch.testing.assert_close(gradient, torch.zeros_like(gradient), rtol=0, atol=1e-10)


def test_ladder_is_exact_where_the_evidence_is_diagonal(generator):
    def orthogonal(n, m, gain):
        square = torch.randn(n, n, generator=generator, dtype=torch.float64)
        return gain * torch.linalg.qr(square)[0][:, :m]

    precisions = [
        torch.full((n,), p, dtype=torch.float64) for n, p in ((5, 4.0), (3, 0.7), (2, 2.5))
    ]
    weights = (orthogonal(5, 3, 1.3), orthogonal(3, 2, 0.8))
    exact = LinearGaussian(weights, tuple(torch.zeros_like(p) for p in precisions), (*precisions,))
    x = torch.randn(6, 5, generator=generator, dtype=torch.float64)
    # evidence on level 1: gain^2 Pi_x around W^T x / gain^2; level 2 has level 1's noise too
    first, m1 = 1.3**2 * 4.0, x @ weights[0] / 1.3**2
    second, m2 = 0.8**2 / (1 / first + 1 / 0.7), m1 @ weights[1] / 0.8**2
    log_precision = (torch.full_like(m1, math.log(first)), torch.full_like(m2, math.log(second)))
    f = exact.model().free_energy(x, TopDown((m1, m2), log_precision), generator=generator)
    expected = exact.log_evidence(x)
    torch.testing.assert_close(f.importance[0].detach(), expected, rtol=1e-10, atol=0)


def test_reading_a_model_and_writing_it_back(generator):
    exact = chain((4, 3), generator)
    again = LinearGaussian.of(exact.model())
    for one, two in [
        (exact.weights, again.weights),
        (exact.biases, again.biases),
        (exact.precisions, again.precisions),
    ]:
        for a, b in zip(one, two, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-14, atol=0)
    fixed = LatentGaussian(5, (3, 2), Gaussian(4.0), prior_precision=0.7).double()
    read = LinearGaussian.of(fixed)
    assert [p[0].item() for p in read.precisions] == pytest.approx([4.0, 0.7, 1.0], rel=1e-12)


def one_latent(weight, precision):
    parameters = (torch.tensor([[weight]]), torch.zeros(1), torch.tensor([precision]))
    weight, zero, precision = (one.double() for one in parameters)
    return LinearGaussian((weight,), (zero, zero), (precision, torch.full_like(zero, 0.7)))


def test_precisions_that_a_learning_model_cannot_have_are_refused(refused):
    assert "precision of 2000 at level 0" in refused(one_latent(1.3, 2000.0).model)
    high = one_latent(1.3, 4.0)
    high.precisions[1].fill_(1e7)
    assert "precision of 1e+07 at level 1" in refused(high.model)
    for level in (Level(np.eye(2), np.array([4.0, 2000.0])), Level(np.eye(2), 2000.0)):
        message = refused(twin_of, Hierarchy((level,), (Flat(),)))
        assert "precision of 2000 at level 0" in message
    hierarchy = Hierarchy((Level(np.eye(1), 4.0),), (GaussianPrior(precision=1e-8),))
    assert "precision of 1e-08 at level 1" in refused(twin_of, hierarchy)
    edge = one_latent(1.3, math.exp(7.0))
    assert LinearGaussian.of(edge.model()).precisions[0].item() == pytest.approx(math.exp(7))


@pytest.mark.parametrize("log_precision", [-20.0, 20.0])
def test_a_top_beyond_its_range_is_read_as_the_model_takes_it(log_precision, generator):
    model = LatentGaussian(
        5, (2,), Gaussian(0.7), top_prior="learned", generator=generator
    ).double()
    with torch.no_grad():
        model.top[1] = log_precision
        exact = LinearGaussian.of(model)
        x = torch.randn(3, 5, generator=generator, dtype=torch.float64)
        f = model.free_energy(x, exact.q(x), n_samples=2, generator=generator)
    evidence = exact.log_evidence(x).expand(2, 3)
    torch.testing.assert_close(f.importance, evidence, rtol=1e-6, atol=0)


@pytest.mark.parametrize("precision", [0.7, 4000.0, 1e9])
def test_the_exact_posterior_is_exact_however_narrow(precision, generator):
    """Standard deviations down to 1e-7: every sample weighs the evidence, by scipy."""
    model = LatentGaussian(1, (1,), Gaussian(precision)).double()
    with torch.no_grad():
        model.heads[0].weight.fill_(300.0)
    x = torch.tensor([[1.7], [-40.0]]).double()
    spread = math.sqrt(300.0**2 + 1 / precision)
    expected = torch.as_tensor(norm.logpdf(x[:, 0].numpy(), 0.0, spread))
    step = next(Exact().steps(model, x, Evaluation(n_samples=3, generator=generator)))
    weights = step.free_energy.importance.detach()
    torch.testing.assert_close(weights, expected.expand(3, 2), rtol=0, atol=1e-6)
    variance = step.q.cholesky.square().squeeze()
    torch.testing.assert_close(
        variance, torch.full_like(variance, 1 / (1 + precision * 300.0**2)), rtol=1e-10, atol=0
    )


@pytest.mark.parametrize("precision", [0.7, 3e3, 1e6])
@pytest.mark.parametrize(("n_x", "n_z"), [(64, (128,)), (20, (40, 30)), (100, (20,))])
def test_single_precision_is_exact_with_many_and_narrow_latents(n_x, n_z, precision, generator):
    """Every sample weighs the evidence, which is by hand in double precision."""
    model = LatentGaussian(n_x, n_z, Gaussian(precision), prior_precision=4.0, generator=generator)
    x = model.sample(3, generator)[0]
    covariance = torch.eye(n_z[-1]).double()
    for level in range(len(n_z), 0, -1):
        weights = model.heads[level - 1].weight.detach().double()
        noise = 1 / (precision if level == 1 else 4.0)
        covariance = weights @ covariance @ weights.T + noise * torch.eye(len(weights)).double()
    zero = torch.zeros(n_x).double()
    expected = torch.distributions.MultivariateNormal(zero, covariance).log_prob(x.double())
    exact = LinearGaussian.of(model)
    evidence, q = exact.log_evidence(x), exact.q(x)
    assert {one.dtype for one in (evidence, *exact.posterior(x), *q.parameters)} == {torch.float32}
    with torch.no_grad():
        weights = model.free_energy(x, q, n_samples=200, generator=generator).importance
    # of the sums, and of n_x predictions in sigmas of the data
    rounding = 1e-4 + 1e-6 * math.sqrt(n_x * precision)
    torch.testing.assert_close(evidence.double(), expected, rtol=1e-5, atol=rounding)
    torch.testing.assert_close(weights.mean(0).double(), expected, rtol=1e-5, atol=rounding)
    assert weights.std(0).max() < rounding


def test_the_evidence_and_the_posterior_have_derivatives(generator):
    exact = chain((3, 2), generator)
    parts = (*exact.weights, *exact.biases, *exact.precisions)
    parts = [one.clone().requires_grad_() for one in parts]
    x = torch.randn(2, 5, generator=generator, dtype=torch.float64)

    def closed(*parts):
        made = LinearGaussian(parts[:2], parts[2:5], parts[5:])
        return made.log_evidence(x), *made.posterior(x), *made.q(x).parameters

    assert torch.autograd.gradcheck(closed, parts, atol=1e-7)


def test_ancestral_samples_have_the_joint_moments(generator):
    exact, n = chain((4, 3), generator), 40_000
    with torch.no_grad():
        x, z = exact.model().sample(n, generator)
    v = torch.cat([x, *z], -1)
    mean, covariance = joint(exact)
    standard = (v - mean) / covariance.diagonal().sqrt()
    assert (standard.mean(0).abs() < 4 / math.sqrt(n)).all()
    correlation = covariance / torch.outer(covariance.diagonal(), covariance.diagonal()).sqrt()
    products = standard[:, :, None] * standard[:, None, :]
    assert ((products.mean(0) - correlation).abs() < 4 * products.std(0) / math.sqrt(n)).all()


@pytest.mark.parametrize(
    "model",
    [
        LatentGaussian(5, (3,), Bernoulli()),
        LatentGaussian(5, (3,), Gaussian("predicted")),
        LatentGaussian(5, (3,), Gaussian(0.7, bin_width=0.1)),
        LatentGaussian(5, (3, 2), Gaussian(0.7)),
        LatentGaussian(5, (3,), Gaussian(0.7), decoders=[FullyConnected(3, (4,))]),
    ],
)
def test_models_without_a_closed_form_are_refused(model, refused):
    assert "linear Gaussian" in refused(LinearGaussian.of, model)
