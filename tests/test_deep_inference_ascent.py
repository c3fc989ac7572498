"""Inference by gradients against the posterior of a linear Gaussian model, which is known."""

from __future__ import annotations

import math
from itertools import pairwise

import deep_cases
import pytest
import torch
from deep_cases import normal

from pcsim.deep.curvature import latent_curvature
from pcsim.deep.draw import Draw
from pcsim.deep.flows import Flow, Flowed
from pcsim.deep.full_covariance import FullCovariance
from pcsim.deep.gaussians import RowGenerators, noise
from pcsim.deep.inference import Evaluation, infer
from pcsim.deep.inference_exact import Exact
from pcsim.deep.inference_gradient import GradientAscent, PointEstimate
from pcsim.deep.latent_gaussian import LatentGaussian
from pcsim.deep.linear_gaussian import LinearGaussian
from pcsim.deep.networks import FullyConnected
from pcsim.deep.outputs import Gaussian
from pcsim.deep.posteriors import MeanField, Point, TopDown
from pcsim.deep.training import TrainingSettings, train
from pcsim.priors import Flat, GaussianPrior, SparsePrior

OPTIMISERS = [
    ("preconditioned", 0.5, 1.0, 200),
    ("damped", 1.0, 1.0, 200),
    ("momentum", 0.02, 1.0, 600),
    ("adam", 0.3, 0.99, 1500),
    ("rmsprop", 0.3, 0.98, 900),
]

generator = deep_cases.generator


def chain(generator, sizes=(6, 3, 2)):
    """A linear Gaussian chain of any depth, data first, at precisions that show a slip."""
    weights = tuple(0.6 * normal(generator, *pair) for pair in pairwise(sizes))
    biases = tuple(normal(generator, n) for n in sizes)
    values = (4.0, 0.7, 0.5)
    precisions = tuple(torch.full((n,), v).double() for n, v in zip(sizes, values, strict=False))
    return LinearGaussian(weights, biases, precisions)


def orthogonal(generator, n_x=6, n_z=3):
    """One whose posterior is diagonal: orthogonal columns of different lengths."""
    basis = torch.linalg.qr(normal(generator, n_x, n_z))[0]
    weights = basis * torch.tensor([0.5, 0.9, 1.4], dtype=torch.float64)
    plain = chain(generator, (n_x, n_z))
    return LinearGaussian((weights,), plain.biases, plain.precisions)


@pytest.fixture
def balanced(monkeypatch):
    """Noise whose sample mean is 0 and sample covariance 1: expected squares come out exact."""
    for module in ("posteriors", "full_covariance"):
        monkeypatch.setattr(f"pcsim.deep.{module}.noise", deep_cases.balanced)


def test_exact_inference_has_the_evidence_as_its_bound(generator):
    linear = chain(generator)
    x = normal(generator, 5, 6)
    found = infer(Exact(), linear.model(), x, n_samples=3, generator=generator)
    # log p(x, z) - log q(z) is the log evidence at every sample, so one is as good as many.
    importance = linear.model().free_energy(x, found.q, n_samples=3, generator=generator).importance
    torch.testing.assert_close(importance, linear.log_evidence(x).expand(3, 5), rtol=0, atol=1e-9)


def test_exact_inference_refuses_a_nonlinear_model(refused, generator):
    model = LatentGaussian(6, (3,), decoders=[FullyConnected(3, [4])])
    message = refused(infer, Exact(), model, torch.zeros(2, 6), generator=generator)
    assert "hidden layers" in message


@pytest.mark.parametrize(("optimiser", "step", "decay", "n"), OPTIMISERS)
def test_point_estimate_is_the_posterior_mean(optimiser, step, decay, n, generator):
    linear = chain(generator)
    x = normal(generator, 4, 6)
    search = PointEstimate(optimiser=optimiser, step=step, decay=decay, n_iterations=n)
    found = torch.cat(infer(search, linear.model(), x).q.parameters, -1)
    torch.testing.assert_close(found, linear.posterior(x)[0], rtol=0, atol=1e-6)


@pytest.mark.usefixtures("balanced")
@pytest.mark.parametrize(("optimiser", "step", "decay", "n"), OPTIMISERS)
def test_mean_field_reaches_a_diagonal_posterior_and_the_evidence(
    optimiser, step, decay, n, generator
):
    linear = orthogonal(generator)
    x = normal(generator, 4, 6)
    ascent = GradientAscent(optimiser=optimiser, step=step, decay=decay, n_iterations=n)
    found = infer(ascent, linear.model(), x, n_samples=6)
    mean, covariance = linear.posterior(x)
    torch.testing.assert_close(found.q.mean[0], mean, rtol=0, atol=1e-6)
    variance = found.q.log_variance[0].exp()
    torch.testing.assert_close(variance, covariance.diagonal().expand(4, 3), rtol=0, atol=1e-6)
    torch.testing.assert_close(found.trace[-1], -linear.log_evidence(x), rtol=0, atol=1e-6)


@pytest.mark.usefixtures("balanced")
def test_full_covariance_reaches_a_correlated_posterior(generator):
    linear = chain(generator, (6, 3))
    x = normal(generator, 2, 6)
    ascent = GradientAscent(
        optimiser="momentum", step=0.02, n_iterations=700, start=FullCovariance.at_prior
    )
    found = infer(ascent, linear.model(), x, n_samples=6)
    torch.testing.assert_close(found.trace[-1], -linear.log_evidence(x), rtol=0, atol=1e-6)
    factor = found.q.cholesky
    covariance = linear.posterior(x)[1].expand(2, 3, 3)
    torch.testing.assert_close(factor @ factor.mT, covariance, rtol=0, atol=1e-6)


def test_preconditioned_ascent_is_there_in_one_step_where_the_posterior_is_diagonal(generator):
    linear = orthogonal(generator)
    x = normal(generator, 4, 6)
    search = PointEstimate(optimiser="preconditioned", step=1.0, n_iterations=1)
    (found,) = infer(search, linear.model(), x).q.parameters
    torch.testing.assert_close(found, linear.posterior(x)[0], rtol=0, atol=1e-12)


def test_curvature_of_a_linear_model_is_the_diagonal_of_the_posterior_precision(generator):
    linear = chain(generator)
    x = normal(generator, 4, 6)
    model = linear.model()
    z = [normal(generator, 2, 4, n) for n in (3, 2)]
    nothing = [torch.zeros(2, 4)] * 2
    draw = Draw(z, nothing, nothing, [None, None], nothing[0])
    found = torch.cat(latent_curvature(model, x, draw), -1)
    expected = linear.posterior_precision().diagonal().expand(4, 5)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)


def test_curvature_of_linear_logits_is_the_diagonal_of_the_hessian(generator):
    model = LatentGaussian(6, (3,), generator=generator).double()
    x, z = normal(generator, 1, 6).gt(0).double(), normal(generator, 1, 1, 3)
    nothing = [torch.zeros(1, 1)]
    (found,) = latent_curvature(model, x, Draw([z], nothing, nothing, [None], nothing[0]))

    def energy(point):
        likelihood = model.output.log_prob(x, model.output_parameters(point[None]))
        return 0.5 * point.square().sum() - likelihood.sum()

    hessian = torch.autograd.functional.hessian(energy, z[0, 0])
    torch.testing.assert_close(found[0], hessian.diagonal(), rtol=0, atol=1e-12)


FURTHER = {
    "gaussian": GaussianPrior(mean=0.3, precision=20.0),
    "vector": GaussianPrior(precision=torch.tensor([0.5, 4.0, 20.0]).double()),
    "matrix": GaussianPrior(
        precision=torch.tensor([[4.0, 0.7, 0.0], [0.7, 9.0, 0.2], [0.0, 0.2, 20.0]]).double()
    ),
    "flat": Flat(),
}


@pytest.mark.parametrize("name", list(FURTHER))
def test_curvature_counts_further_priors_as_the_hessian_does(name, generator):
    prior = FURTHER[name]
    model = LatentGaussian(6, (3,), priors=[prior], generator=generator).double()
    x, z = normal(generator, 1, 6).gt(0).double(), normal(generator, 1, 1, 3)
    nothing = [torch.zeros(1, 1)]
    (found,) = latent_curvature(model, x, Draw([z], nothing, nothing, [None], nothing[0]))

    def energy(point):
        return model.free_energy(x, Point((point[None],))).total.sum()

    hessian = torch.autograd.functional.hessian(energy, z[0, 0])
    torch.testing.assert_close(found[0], hessian.diagonal(), rtol=0, atol=1e-12)


def test_curvature_of_a_sparse_prior_is_that_of_the_parabola_that_touches_it(generator):
    model, plain = (
        LatentGaussian(6, (3,), priors=[prior], generator=torch.Generator().manual_seed(3)).double()
        for prior in (SparsePrior(alpha=4.0), None)
    )
    x, z = normal(generator, 4, 6).gt(0).double(), normal(generator, 2, 4, 3)
    nothing = [torch.zeros(2, 4)]
    draw = Draw([z], nothing, nothing, [None], nothing[0])
    (found,), (without,) = (latent_curvature(one, x, draw) for one in (model, plain))
    # d energy / d z over z, at each of both samples
    slope = 0.5 * torch.func.grad(lambda u: (4.0 * torch.log1p(u * u)).sum())(z)
    torch.testing.assert_close(found - without, (slope / z).mean(0), rtol=0, atol=1e-12)


def test_a_mode_under_a_steep_further_prior_is_found(generator):
    # Prior and further prior are one Gaussian of precision 1 + 20 about 20 m / 21.
    column, precision = normal(generator, 10, 1), 20.0
    model = LatentGaussian(
        10, (1,), Gaussian(0.7), priors=[GaussianPrior(mean=0.3, precision=precision)]
    ).double()
    with torch.no_grad():
        model.heads[0].weight.copy_(column)
        model.heads[0].bias.zero_()
    x = normal(generator, 3, 10)
    (found,) = infer(PointEstimate(), model, x).q.parameters
    whole = 1 + precision + 0.7 * column.square().sum()
    expected = (0.7 * x @ column + precision * 0.3) / whole
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-10)


def test_damped_ascent_halves_the_step_of_each_example_until_its_energy_falls(generator):
    # Two latents that all but share one column: the diagonal asks for twice the step that helps.
    column = normal(generator, 6, 1)
    weights = torch.cat([column, column, column + 0.01 * normal(generator, 6, 1)], 1)
    plain = chain(generator, (6, 3))
    model = LinearGaussian((weights,), plain.biases, plain.precisions).model()
    x = normal(generator, 5, 6) * torch.tensor([1e-3, 1.0, 1.0, 10.0, 100.0])[:, None].double()
    traces = {
        rule: infer(PointEstimate(optimiser=rule, step=1.0, n_iterations=40), model, x).trace
        for rule in ("preconditioned", "damped")
    }
    assert (traces["preconditioned"][1] > traces["preconditioned"][0]).any()
    assert (traces["damped"].diff(dim=0) <= 1e-9).all()
    assert (traces["damped"][1] < traces["damped"][0]).all()


def test_damped_ascent_takes_the_whole_step_where_it_helps(generator):
    linear = orthogonal(generator)
    x = normal(generator, 4, 6)
    one = [
        infer(PointEstimate(optimiser=rule, step=1.0), linear.model(), x, n_iterations=1).q
        for rule in ("preconditioned", "damped")
    ]
    torch.testing.assert_close(one[0].parameters, one[1].parameters, rtol=0, atol=0)


def test_damped_ascent_judges_both_ends_on_the_same_noise(generator):
    model = LatentGaussian(6, (3,), decoders=[FullyConnected(3, [8])], generator=generator)
    x = torch.bernoulli(torch.full((50, 6), 0.4), generator=generator)
    ascent = GradientAscent(optimiser="damped", step=1.0)
    start = MeanField.at_prior(model, 50)
    seen = Evaluation(generator=torch.Generator().manual_seed(3))
    step = next(ascent.refine(model, x, seen, seen.at(model, x, start), 1))
    # The draws are those of the last look: start, curvature, then one stream for both ends.
    again = Evaluation(generator=torch.Generator().manual_seed(3))
    again.at(model, x, start)
    start.sample(model, 1, again.generator)
    state = again.generator.get_state()
    before = model.free_energy(x, start, generator=again.generator).total
    again.generator.set_state(state)
    after = model.free_energy(x, step.q, generator=again.generator).total
    assert (after <= before + 1e-6).all()
    assert (after < before).float().mean() > 0.9


def test_damped_ascent_of_a_batch_is_that_of_each_example_alone(generator):
    model = LatentGaussian(6, (3,), decoders=[FullyConnected(3, [8])], generator=generator).double()
    x = torch.bernoulli(torch.full((7, 6), 0.4).double(), generator=generator)
    ascent = GradientAscent(optimiser="damped", step=1.0, n_iterations=4)

    def rows():
        return [torch.Generator().manual_seed(seed) for seed in range(7)]

    both = infer(ascent, model, x, generator=RowGenerators(rows()))
    for place, own in enumerate(rows()):
        alone = infer(ascent, model, x[place : place + 1], generator=own)
        torch.testing.assert_close(both.trace[:, place], alone.trace[:, 0], rtol=0, atol=1e-10)


def test_row_generators_draw_the_same_again_from_a_state():
    like = torch.zeros(1)
    rows = RowGenerators([torch.Generator().manual_seed(seed) for seed in (4, 7)])
    noise((2, 2, 3), like, rows)
    state = rows.get_state()
    drawn = noise((2, 2, 3), like, rows)
    assert not torch.equal(noise((2, 2, 3), like, rows), drawn)
    rows.set_state(state)
    assert torch.equal(noise((2, 2, 3), like, rows), drawn)
    rows.set_state(state)
    assert torch.equal(noise((2, 2, 3), like, rows), drawn)


def test_preconditioned_refuses_a_family_without_known_curvature(refused, generator):
    linear = chain(generator)
    ascent = GradientAscent(optimiser="preconditioned", start=TopDown.at_prior)
    x = normal(generator, 2, 6)
    message = refused(infer, ascent, linear.model(), x, generator=generator)
    assert "optimiser='adam'" in message


def test_a_step_that_runs_away_is_stopped(generator):
    linear = chain(generator)
    search = PointEstimate(optimiser="momentum", step=10.0, n_iterations=2000)
    with pytest.raises(RuntimeError, match="Lower the step size"):
        infer(search, linear.model(), normal(generator, 2, 6))


@pytest.mark.parametrize(
    ("bad", "words"),
    [({"optimiser": "adm"}, "Did you mean 'adam'"), ({"step": 0.0}, "above 0"),
     ({"decay": 1.5}, "to 1.0"), ({"n_iterations": -1}, "not below 0")],
)  # fmt: skip
def test_ascent_refuses_bad_settings(refused, bad, words):
    assert words in refused(GradientAscent, **bad)


def test_data_that_do_not_fit_are_refused(refused, generator):
    model = chain(generator).model()
    assert "expected shape (B, 6)" in refused(infer, PointEstimate(), model, torch.zeros(2, 5))
    broken = torch.full((2, 6), math.nan, dtype=torch.float64)
    assert "NaN or infinite" in refused(infer, PointEstimate(), model, broken)


def test_first_step_is_the_start(generator):
    linear = chain(generator)
    x = normal(generator, 2, 6)
    found = infer(GradientAscent(), linear.model(), x, n_iterations=0, generator=generator)
    assert found.trace.shape == (1, 2)
    start = MeanField.at_prior(linear.model(), 2)
    for one, other in zip(found.q.parameters, start.parameters, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0)


def test_one_seed_gives_one_result(generator):
    linear = chain(generator)
    x = normal(generator, 2, 6)
    traces = [
        infer(
            GradientAscent(n_iterations=3), linear.model(), x,
            generator=torch.Generator().manual_seed(7),
        ).trace
        for _ in range(2)
    ]  # fmt: skip
    assert torch.equal(*traces)
    assert Evaluation().n_samples == 1


def pixels(generator, n=20, n_x=64):
    return torch.bernoulli(torch.full((n, n_x), 0.4), generator=generator)


def test_curvature_leaves_running_averages_alone(generator):
    decoder = FullyConnected(4, (8,), normalization="batch", generator=generator)
    model = LatentGaussian(64, (4,), decoders=[decoder], generator=generator)
    model.train()
    x = pixels(generator)
    kept = [one.clone() for one in model.buffers()]
    draw = MeanField.at_prior(model, len(x)).sample(model, 2, generator)
    latent_curvature(model, x, draw)
    assert all(torch.equal(a, b) for a, b in zip(kept, model.buffers(), strict=True))
    assert all(one.training for one in model.modules())
    found = train(model, PointEstimate(), x, TrainingSettings(n_epochs=1), progress=False)
    assert len(found.history) == 1


def test_flows_that_nothing_would_train_are_refused(generator):
    model, flows = LatentGaussian(6, (3,), generator=generator), [Flow(3, generator=generator)]
    ascent = GradientAscent(start=lambda m, n: Flowed.at_prior(m, n, flows))
    with pytest.raises(ValueError, match="flows that GradientAscent would leave as they are"):
        train(model, ascent, pixels(generator, n_x=6), TrainingSettings(n_epochs=1))


def test_flows_take_the_number_type_of_the_model(generator):
    model = LatentGaussian(6, (3,), generator=generator).double()
    flows = [Flow(3, generator=generator)]
    ascent = GradientAscent(start=lambda m, n: Flowed.at_prior(m, n, flows), n_iterations=2)
    found = infer(ascent, model, pixels(generator, n_x=6).double(), generator=generator)
    assert found.trace.dtype == torch.float64
