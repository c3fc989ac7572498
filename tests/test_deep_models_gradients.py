"""The gradients of inference: written out, by autograd, and estimated without a path."""

from __future__ import annotations

import itertools
import math

import deep_cases
import numpy as np
import pytest
import torch
from deep_cases import normal
from torch.func import jacrev, vmap

from pcsim.deep.draw import Draw
from pcsim.deep.encodings import ErrorEncoding
from pcsim.deep.estimators import Pathwise, ScoreFunction
from pcsim.deep.flows import Flow, Flowed
from pcsim.deep.gaussians import noise
from pcsim.deep.inference import Evaluation, infer
from pcsim.deep.inference_iterative import Iterative
from pcsim.deep.latent_gaussian import LatentGaussian
from pcsim.deep.linear_gaussian import LinearGaussian
from pcsim.deep.networks import FullyConnected
from pcsim.deep.objective import Objective, Terms
from pcsim.deep.outputs import Bernoulli, Gaussian
from pcsim.deep.posteriors import FullCovariance, MeanField, Point, TopDown
from pcsim.priors import GaussianPrior, SparsePrior

N_X, N_Z, S = 5, 3, 400
SIZES = (3, 2)

generator = deep_cases.generator


def nonlinear(output, sizes, generator, **settings):
    """A model whose weights are large enough for the curvature of tanh to matter."""
    decoders = [FullyConnected(n, (7,), activation="tanh", generator=generator) for n in sizes]
    model = LatentGaussian(
        N_X, sizes, output, decoders=decoders, generator=generator, **settings
    ).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(parameter + 0.5 * normal(generator, *parameter.shape))
    return model


def one_level(output, generator, precision_p=0.7):
    """Model, data and a posterior none of whose sigmas is 1."""
    model = nonlinear(output, (N_Z,), generator, top_prior="learned")
    with torch.no_grad():
        log_precision = torch.full((N_Z,), math.log(precision_p))
        model.top.copy_(torch.stack([normal(generator, N_Z), log_precision]))
    x = output.sample(model.output_parameters(normal(generator, 4, N_Z)), generator).detach()
    q = MeanField((normal(generator, 4, N_Z),), (math.log(0.36) + 0.2 * normal(generator, 4, N_Z),))
    return model, x, q


def written_out(model, x, q, seed):
    """Section 6.1: -dF / d mu_q and -dF / d log sigma_q^2, the expectation over the same noise."""
    (mu,), (log_variance,) = q.mean, q.log_variance
    sigma = (0.5 * log_variance).exp()
    eps = noise((S, *mu.shape), mu, torch.Generator().manual_seed(seed))
    z = mu + sigma * eps

    def decoded(z1):
        return model.output_parameters(z1)[0]

    with torch.no_grad():
        jacobian = vmap(jacrev(decoded))(z.reshape(-1, N_Z)).reshape(S, 4, N_X, N_Z)
        e = model.output.weighted_error(x, (decoded(z),))
        mu_p, precision_p = model.top[0], model.top[1].exp()
    drive = torch.einsum("sbxz,sbx->sbz", jacobian, e)
    by_mean = drive.mean(0) - precision_p * (mu - mu_p)
    by_sigma = (eps * drive).mean(0) - precision_p * sigma + 1 / sigma
    split = torch.einsum("bxz,bx->bz", jacobian.mean(0), e.mean(0)) - precision_p * (mu - mu_p)
    return by_mean, sigma / 2 * by_sigma, split


@pytest.mark.parametrize("output", [Gaussian(4.0), Gaussian(0.7), Bernoulli()], ids=str)
@pytest.mark.parametrize("precision_p", [0.7, 4.0])
def test_gradients_of_section_6_1(output, precision_p, generator):
    model, x, q = one_level(output, generator, precision_p)
    same = torch.Generator().manual_seed(11)
    _, (mean, log_variance) = Pathwise().gradient(model, x, q, S, Objective(), same)
    by_mean, by_log_variance, split = written_out(model, x, q, 11)
    torch.testing.assert_close(-mean, by_mean, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(-log_variance, by_log_variance, rtol=1e-10, atol=1e-10)
    # The thesis' product of two averages is another number, by far more than rounding.
    assert (split - by_mean).abs().max() > 1e-2


def test_gradient_is_cut_from_the_posterior_and_open_to_the_model(generator):
    model, x, q = one_level(Gaussian(4.0), generator)
    leaf = q.detached()
    with torch.no_grad():
        f, gradient = Pathwise().gradient(model, x, leaf, 2, Objective(), generator)
    assert all(not g.requires_grad for g in gradient)
    f.total.mean().backward()
    assert all(p.grad is None for p in leaf.parameters)
    assert all(p.grad is not None for p in model.parameters())


def analytic(exact, x, q):
    """Free energy of a mean field in a one-level linear model, differentiable."""
    (mu,), (log_variance,) = q.mean, q.log_variance
    (w,), (b, mean), (precision, top) = exact.weights, exact.biases, exact.precisions
    spread = log_variance.exp() @ (w.square().T @ precision[:, None])
    fit = (precision * (x - mu @ w.T - b).square()).sum(-1) + spread[:, 0]
    fit = 0.5 * (fit + N_X * math.log(2 * math.pi) - precision.log().sum())
    kl = top * (log_variance.exp() + (mu - mean).square()) - 1 - top.log() - log_variance
    return fit + 0.5 * kl.sum(-1)


ESTIMATORS = {
    "pathwise": Pathwise,
    "none": lambda: ScoreFunction("none"),
    "leave_one_out": lambda: ScoreFunction("leave_one_out"),
    "running_mean": lambda: ScoreFunction("running_mean"),
}


def copies(q, n):
    """The same posterior for n examples."""
    return q.with_parameters(tuple(p[:1].expand(n, *p.shape[1:]) for p in q.parameters))


@pytest.mark.parametrize("kl", ["closed", "sampled"])
@pytest.mark.parametrize("name", ESTIMATORS)
def test_estimators_agree_with_the_analytic_gradient(name, kl, generator):
    weights, n = normal(generator, N_X, N_Z), 20_000
    exact = LinearGaussian(
        (weights,),
        (normal(generator, N_X), normal(generator, N_Z)),
        (torch.full((N_X,), 4.0).double(), torch.full((N_Z,), 0.75).double()),
    )
    x = normal(generator, 1, N_X)
    q = MeanField((normal(generator, 1, N_Z),), (normal(generator, 1, N_Z) - 2,)).detached()
    expected = torch.autograd.grad(analytic(exact, x, q).sum(), q.parameters)
    estimator, model, objective = ESTIMATORS[name](), exact.model(), Objective(kl=kl)
    if name == "running_mean":  # the first call has no earlier one to take the mean of
        estimator.free_energy(model, x.expand(50, -1), copies(q, 50), 2, objective, generator)
        assert estimator.level > 0
    f, gradient = estimator.gradient(model, x.expand(n, -1), copies(q, n), 2, objective, generator)
    value = analytic(exact, x, q).item()
    assert abs(f.total.mean().item() - value) < 4 * f.total.std().item() / math.sqrt(n)
    for found, wanted in zip(gradient, expected, strict=True):
        assert ((found.mean(0) - wanted[0]).abs() < 4 * found.std(0) / math.sqrt(n)).all()


def grid(n_samples):
    """Standard normal noise (S, points) of each sample, and the weight of each point."""
    one = torch.linspace(-8, 8, 1201, dtype=torch.float64)
    noise = torch.stack(torch.meshgrid(*[one] * n_samples, indexing="ij")).flatten(1)
    weight = (-0.5 * noise.square().sum(0)).exp()
    return noise, weight / weight.sum()


def blind(sizes, **settings):
    """A model whose data say nothing of its latents, so that divergences alone are weighed."""
    model = LatentGaussian(3, sizes, Gaussian(4.0), prior_precision=0.7, **settings).double()
    with torch.no_grad():
        for head in model.heads:
            head.weight.zero_()
    return model


@pytest.mark.parametrize(
    ("name", "n_samples"), [*itertools.product(ESTIMATORS, [2]), ("pathwise", 1), ("none", 1)]
)
def test_free_nats_of_sampled_divergences_have_the_gradient_of_quadrature(
    name, n_samples, generator
):
    q, n, free = (
        MeanField((torch.tensor([[0.7]]).double(),), (-torch.ones(1, 1).double(),)),
        40_000,
        0.5,
    )
    leaf = q.detached()
    (mean,), (log_variance,) = leaf.mean, leaf.log_variance
    noise, weight = grid(n_samples)
    z = mean + (0.5 * log_variance).exp() * noise
    log_ratio = 0.5 * (z.square() - noise.square() - log_variance)
    value = (log_ratio.mean(0).clamp(min=free) * weight).sum()
    expected = torch.autograd.grad(0.8 * value, leaf.parameters)
    objective = Objective(kl="sampled", free_bits=free, kl_weight=0.8)
    model, x = blind((1,)), torch.zeros(n, 3).double()
    _, gradient = ESTIMATORS[name]().gradient(
        model, x, copies(q, n), n_samples, objective, generator
    )
    for found, wanted in zip(gradient, expected, strict=True):
        assert abs(found.mean() - wanted.item()) < 4 * found.std() / math.sqrt(n)


@pytest.mark.parametrize("name", ESTIMATORS)
def test_free_nats_of_divergences_given_the_level_above(name, generator):
    """Closed forms, but the lower level's depends on the samples of the upper."""
    n, free = 40_000, 0.9
    model = blind((1, 1))
    with torch.no_grad():
        model.heads[1].weight.fill_(1.5)
    means, log_variances = ((0.4, -0.3), (-1.2, -0.6))
    q = MeanField(
        tuple(torch.full((1, 1), m).double() for m in means),
        tuple(torch.full((1, 1), v).double() for v in log_variances),
    )
    leaf = q.detached()
    noise, weight = grid(2)
    above = leaf.mean[1] + (0.5 * leaf.log_variance[1]).exp() * noise
    spread = leaf.log_variance[0].exp() + (leaf.mean[0] - 1.5 * above).square()
    lower = 0.5 * (0.7 * spread - 1 - math.log(0.7) - leaf.log_variance[0])
    upper = leaf.log_variance[1].exp() + leaf.mean[1].square() - 1 - leaf.log_variance[1]
    value = (lower.mean(0).clamp(min=free) * weight).sum() + (0.5 * upper).clamp(min=free).sum()
    expected = torch.autograd.grad(value, leaf.parameters, materialize_grads=True)
    estimator, x = ESTIMATORS[name](), torch.zeros(n, 3).double()
    objective = Objective(free_bits=free)
    _, gradient = estimator.gradient(model, x, copies(q, n), 2, objective, generator)
    for found, wanted in zip(gradient, expected, strict=True):
        assert abs(found.mean() - wanted.item()) <= 4 * found.std() / math.sqrt(n) + 1e-12


def families(model, generator):
    flows = [Flow(n, generator=generator).double() for n in SIZES]
    context = normal(generator, 1, 2)
    conditioned = [Flow(n, "planar", n_context=2, generator=generator).double() for n in SIZES]
    start = {
        "mean_field": MeanField.at_prior(model, 1),
        "top_down": TopDown.at_prior(model, 1),
        "full_covariance": FullCovariance.at_prior(model, 1),
        "flowed": Flowed.at_prior(model, 1, flows),
        "planar": Flowed.at_prior(model, 1, conditioned, context),
    }
    return {
        name: q.with_parameters(tuple(p + 0.3 * normal(generator, *p.shape) for p in q.parameters))
        for name, q in start.items()
    }


@pytest.mark.parametrize("kl", ["closed", "sampled"])
@pytest.mark.parametrize("name", ["mean_field", "top_down", "full_covariance", "flowed", "planar"])
def test_score_function_agrees_with_the_path(name, kl, generator):
    """Two levels, nonlinear: in every parameter of the posterior."""
    model, n = nonlinear(Gaussian(0.7), SIZES, generator), 15_000
    q, x = copies(families(model, generator)[name], n), normal(generator, 1, N_X).expand(n, -1)
    objective = Objective(kl=kl, kl_weight=0.8)
    _, path = Pathwise().gradient(model, x, q, 2, objective, generator)
    _, score = ScoreFunction().gradient(model, x, q, 2, objective, generator)
    for a, b in zip(path, score, strict=True):
        se = ((a.var(0) + b.var(0)) / n).sqrt()
        assert ((a.mean(0) - b.mean(0)).abs() <= 4 * se).all()


@pytest.mark.parametrize("name", ["mean_field", "top_down"])
def test_both_estimators_teach_the_generative_model_alike(name, generator):
    """A ladder's posterior holds the prior, so its weights need the score as well."""
    model, repeats, n = nonlinear(Gaussian(0.7), SIZES, generator), 40, 400
    x = normal(generator, 1, N_X).expand(n, -1)
    q = copies(families(model, generator)[name], n)
    found = []
    for estimator in (Pathwise(), ScoreFunction()):
        rows = []
        for _ in range(repeats):
            f = estimator.free_energy(model, x, q, 2, Objective(), generator)
            gradient = torch.autograd.grad(f.total.mean(), tuple(model.parameters()))
            rows.append(torch.cat([g.flatten() for g in gradient]))
        found.append(torch.stack(rows))
    a, b = found
    se = ((a.var(0) + b.var(0)) / repeats).sqrt()
    # 4.5 of Student's t with 78 degrees of freedom, for a hundred weights at once
    assert ((a.mean(0) - b.mean(0)).abs() <= 4.5 * se + 1e-12).all()


def test_baselines_are_what_they_say():
    costs = [torch.tensor([[1.0], [3.0], [8.0]]), torch.tensor([[2.0], [5.0], [8.0]])]
    none = [torch.zeros(3, 1)]
    terms = Terms(Draw(none, none, none, none, none[0]), -costs[0])
    weight = ScoreFunction("leave_one_out")._weight(Objective(), terms)
    assert (costs[0] - weight)[:, 0].tolist() == pytest.approx([5.5, 4.5, 2.0], abs=1e-6)
    running = ScoreFunction("running_mean", decay=0.75)
    # never the cost of its own call: nothing, then 4, then 0.75 * 4 + 0.25 * 5
    for cost, expected in ((costs[0], 0.0), (costs[1], 4.0), (costs[0], 4.25)):
        assert running._earlier(cost).item() == expected


def test_baselines_lower_the_variance(generator):
    model, x, q = one_level(Gaussian(4.0), generator)
    n = 3000
    many, data = copies(q, n), x[:1].expand(n, -1)
    spread = {}
    for name, make in ESTIMATORS.items():
        estimator = make()
        estimator.free_energy(model, data, many, 4, Objective(), generator)
        _, (gradient, _) = estimator.gradient(model, data, many, 4, Objective(), generator)
        spread[name] = gradient.var(0).sum().item()
    assert spread["pathwise"] < spread["leave_one_out"] < spread["none"]
    assert spread["running_mean"] < spread["none"]


@pytest.mark.parametrize("estimator", [Pathwise(), ScoreFunction()], ids=["path", "score"])
def test_both_estimators_train_to_the_evidence(estimator, generator):
    """Stochastic ascent of a full-covariance posterior ends at the exact one."""
    model = LatentGaussian(N_X, (2,), Gaussian(4.0), generator=generator).double()
    exact = LinearGaussian.of(model)
    x = normal(generator, 8, N_X)
    q = FullCovariance.at_prior(model, 8).detached()
    optimiser = torch.optim.Adam(q.parameters, lr=0.05)
    for step in range(400):
        optimiser.param_groups[0]["lr"] = 0.05 / (1 + step / 50)
        f = estimator.free_energy(model, x, q, 32, Objective(), generator)
        optimiser.zero_grad()
        f.total.sum().backward()
        optimiser.step()
    with torch.no_grad():
        f = model.free_energy(x, q, n_samples=2000, generator=generator)
    gap = f.total + exact.log_evidence(x)
    assert gap.mean() < 0.05


def test_refusals(refused, generator):
    model, x, q = one_level(Gaussian(4.0), generator)
    one = ScoreFunction().gradient
    assert "leave one out" in refused(one, model, x, q, 1, Objective(), generator)
    point = Point.at_prior(model, 4)
    assert "Pathwise" in refused(one, model, x, point, 2, Objective(), generator)
    assert "'leave_one_out'" in refused(ScoreFunction, "loo")


@pytest.mark.parametrize("further", list(itertools.product([0, 1], repeat=2)))
def test_errors_that_networks_see_make_the_gradient_with_further_priors(further, generator):
    """At a point, against autograd: errors through the weights, and what each prior adds."""
    priors = (SparsePrior(4.0), GaussianPrior(normal(generator, 3).numpy(), np.diag([0.7, 2, 4])))
    priors = [prior if own else None for prior, own in zip(priors, further, strict=True)]
    model = LatentGaussian(
        5, (4, 3), Gaussian(4.0), prior_precision=0.7, priors=priors, generator=generator
    ).double()
    evaluation = Evaluation(generator=generator)
    x = normal(generator, 6, 5)
    step = evaluation.at(model, x, Point((normal(generator, 6, 4), normal(generator, 6, 3))))
    levels = ErrorEncoding(with_x=False).inputs(model, x, step, evaluation)
    assert [len(level) for level in levels] == [3 + further[0], 3 + further[1]]
    for level, gradient, head in zip(levels, step.gradient, model.heads, strict=True):
        _, below, here, *others = level
        torch.testing.assert_close(sum(others) + here - below @ head.weight, gradient)


def test_a_network_that_sees_errors_infers_a_model_with_further_priors(generator):
    model = LatentGaussian(5, (4, 3), priors=[None, SparsePrior(4.0)], generator=generator)
    x = torch.zeros(6, 5)
    for start, segregated in ((MeanField, True), (MeanField, False), (FullCovariance, False)):
        iterative = Iterative(
            model, encoding=ErrorEncoding(), start=start.at_prior, segregated=segregated,
            widths=[[8]] if start is FullCovariance else [[8], [8]], n_iterations=2,
        )  # fmt: skip
        assert torch.isfinite(infer(iterative, model, x, generator=generator).trace).all()
