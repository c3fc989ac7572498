"""Families of posteriors: densities, divergences and flows against closed forms and autograd."""

from __future__ import annotations

import math
from copy import deepcopy
from functools import partial

import deep_cases
import pytest
import torch
from deep_cases import normal
from torch.distributions import MultivariateNormal, Normal

from pcsim.deep.flows import Flow, Flowed
from pcsim.deep.inference_direct import Direct
from pcsim.deep.latent_gaussian import LatentGaussian
from pcsim.deep.networks import FullyConnected
from pcsim.deep.objective import Objective
from pcsim.deep.outputs import Bernoulli, Gaussian
from pcsim.deep.posteriors import FullCovariance, MeanField, Point, TopDown
from pcsim.priors import SparsePrior

KINDS = ["inverse_autoregressive", "planar", "coupling"]
SIZES = (3, 2)

generator = deep_cases.generator


def moved(parameters, generator):
    return tuple(p + 0.4 * normal(generator, *p.shape) for p in parameters)


@pytest.fixture
def model(generator):
    """Two levels, nonlinear, conditional variances away from 1."""
    decoders = [FullyConnected(n, (6,), activation="tanh", generator=generator) for n in SIZES]
    model = LatentGaussian(
        5, SIZES, Gaussian(4.0), decoders=decoders, top_prior="learned", generator=generator
    ).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(moved((parameter,), generator)[0])
    return model


def families(model, n, generator, context=None):
    flows = [
        Flow(k, n_context=0 if context is None else 2, generator=generator).double() for k in SIZES
    ]
    found = [MeanField, TopDown, FullCovariance, Point]
    start = [f.at_prior(model, n) for f in found]
    start.append(Flowed.at_prior(model, n, flows, context))
    return [q.with_parameters(moved(q.parameters, generator)) for q in start]


def test_every_family_has_the_shapes_it_names(model, generator):
    for q in families(model, 4, generator, normal(generator, 4, 2)):
        draw = q.sample(model, 7, generator)
        assert [z.shape for z in draw.z] == [(7, 4, 3), (7, 4, 2)]
        assert all(p.shape == (7, 4) for p in [*draw.log_p, *draw.log_q, draw.score])
        leaf = q.detached()
        assert all(p.is_leaf and p.requires_grad for p in leaf.parameters)
        for a, b in zip(leaf.parameters, q.parameters, strict=True):
            assert torch.equal(a.detach(), b.detach())


def test_examples_are_independent(model, generator):
    x = normal(generator, 4, 5)
    for q in families(model, 4, generator, normal(generator, 4, 2)):
        q = q.detached()
        f = model.free_energy(x, q, n_samples=3, generator=generator)
        gradients = torch.autograd.grad(f.total[2], q.parameters)
        for gradient in gradients:
            assert not gradient[[0, 1, 3]].any()
            assert gradient[2].any()


def test_centre_is_the_mean_given_the_centres_above(model, generator):
    """Samples whose upper level sits at its centre average to the centre of the lower."""
    n = 20_000
    for q in families(model, 1, generator)[:3]:
        with torch.no_grad():
            centre = q.centre(model)
            draw = q.sample(model, n, generator)
        # the top level averages to its centre in every family
        se = draw.z[1].std(0) / math.sqrt(n)
        assert ((draw.z[1].mean(0) - centre[1]).abs() < 4 * se).all()
        if not isinstance(q, TopDown):
            se = draw.z[0].std(0) / math.sqrt(n)
            assert ((draw.z[0].mean(0) - centre[0]).abs() < 4 * se).all()
    ladder = families(model, 1, generator)[1]
    top = torch.full_like(ladder.log_precision[1], 1e3)  # no spread above: the mean is exact
    held = TopDown(ladder.mean, (ladder.log_precision[0], top))
    with torch.no_grad():
        z, centre = held.sample(model, n, generator).z[0], held.centre(model)[0]
    # exp(-15) of variance is left at the top
    assert ((z.mean(0) - centre).abs() < 4 * z.std(0) / math.sqrt(n) + 1e-3).all()


def test_centre_of_a_flow_is_where_it_takes_the_mean(model, generator):
    q = families(model, 4, generator)[-1]
    moved_mean, _ = q.flows[0](q.mean[0])
    assert torch.equal(q.centre(model)[0], moved_mean)


def test_other_priors_add_their_energy(generator):
    z, x = (normal(generator, 4, 3),), normal(generator, 4, 5)
    plain = LatentGaussian(5, (3,), Gaussian(4.0)).double()
    sparse = LatentGaussian(5, (3,), Gaussian(4.0), priors=[SparsePrior(0.7)]).double()
    added = sparse.free_energy(x, Point(z)).total - plain.free_energy(x, Point(z)).total
    expected = 0.35 * torch.log1p(z[0].square()).sum(-1)
    torch.testing.assert_close(added, expected, rtol=1e-12, atol=1e-12)


def test_prior_and_start_agree(model, generator):
    q = MeanField.at_prior(model, 4)
    above = q.mean[1][None]
    mean, log_variance = model.prior(1, above)
    torch.testing.assert_close(q.mean[0], mean[0].detach(), rtol=0, atol=1e-14)
    torch.testing.assert_close(q.log_variance[0], log_variance[0].detach(), rtol=0, atol=1e-14)
    top = model.top.detach()
    torch.testing.assert_close(q.log_variance[1], -top[1].expand(4, -1), rtol=0, atol=0)


@pytest.mark.parametrize("family", [MeanField, TopDown, FullCovariance, Point])
def test_a_start_at_the_prior_leaves_no_trace_in_running_statistics(family, generator):
    # Its examples are all alike, which says nothing of the latents that a decoder will see.
    decoders = [FullyConnected(n, [4], normalization="batch", generator=generator) for n in (3, 2)]
    model = LatentGaussian(5, (3, 2), decoders=decoders, generator=generator)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    start = family.at_prior(model.train(), 6)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert all(module.training for module in model.modules())
    # It is where the model says, once it learns no more.
    for one, other in zip(
        start.parameters, family.at_prior(model.eval(), 6).parameters, strict=True
    ):
        assert torch.equal(one, other)


def test_running_statistics_are_those_of_the_samples(generator):
    decoders = [FullyConnected(n, [4], normalization="batch", generator=generator) for n in (3, 2)]
    model = LatentGaussian(5, (3, 2), decoders=decoders, generator=generator).train()
    norm = model.decoders[1].norms[0]
    norm.momentum = 1.0  # the last batch alone
    q = MeanField.at_prior(model, 50)
    mean = torch.randn(50, 2, generator=generator)
    q = MeanField((q.mean[0], mean), (q.log_variance[0], torch.full((50, 2), -30.0)))
    q.sample(model, 1, generator)
    sums = model.decoders[1].linears[0](mean).detach()
    assert int(norm.num_batches_tracked) == 1
    # Log variances are clamped at -15: samples are their means but for 5e-4.
    torch.testing.assert_close(norm.running_mean, sums.mean(0), atol=2e-3, rtol=0)
    torch.testing.assert_close(norm.running_var, sums.var(0), atol=5e-3, rtol=5e-3)


def test_mean_field_densities_are_normal(model, generator):
    q = families(model, 4, generator)[0]
    draw = q.sample(model, 5, generator)
    for level in (0, 1):
        law = Normal(q.mean[level], (0.5 * q.log_variance[level]).exp())
        expected = law.log_prob(draw.z[level]).sum(-1)
        torch.testing.assert_close(draw.log_q[level], expected, rtol=1e-10, atol=1e-12)
    mean, log_variance = model.prior(1, draw.z[1])
    expected = Normal(mean, (0.5 * log_variance).exp()).log_prob(draw.z[0]).sum(-1)
    torch.testing.assert_close(draw.log_p[0], expected, rtol=1e-10, atol=1e-12)


def test_full_covariance_density_is_multivariate_normal(model, generator):
    q = families(model, 4, generator)[2]
    draw = q.sample(model, 5, generator)
    joint = torch.cat([draw.z[1], draw.z[0]], -1)  # top level first
    expected = MultivariateNormal(q.mean, scale_tril=q.cholesky).log_prob(joint)
    torch.testing.assert_close(sum(draw.log_q), expected, rtol=1e-10, atol=1e-12)
    again = FullCovariance.from_moments(
        torch.cat([q.mean[:, 2:], q.mean[:, :2]], -1),
        (q.cholesky @ q.cholesky.mT).roll((-2, -2), (-2, -1)),
        SIZES,
    )
    torch.testing.assert_close(again.mean, q.mean, rtol=0, atol=0)
    torch.testing.assert_close(again.cholesky, q.cholesky, rtol=1e-10, atol=1e-12)
    covariance = (q.cholesky @ q.cholesky.mT).roll((-2, -2), (-2, -1))
    mean = torch.cat([q.mean[:, 2:], q.mean[:, :2]], -1)
    inverted = FullCovariance.from_precision(mean, torch.linalg.inv(covariance), SIZES)
    torch.testing.assert_close(inverted.mean, q.mean, rtol=0, atol=0)
    torch.testing.assert_close(inverted.cholesky, q.cholesky, rtol=1e-10, atol=1e-12)


def test_top_down_joins_evidence_and_prior_as_gaussians_multiply(model, generator):
    q = families(model, 4, generator)[1]
    draw = q.sample(model, 5, generator)
    mean, log_variance = model.prior(1, draw.z[1])
    precision = (-log_variance).exp() + q.log_precision[0].exp()
    weighed = (-log_variance).exp() * mean + q.log_precision[0].exp() * q.mean[0]
    expected = Normal(weighed / precision, precision**-0.5).log_prob(draw.z[0]).sum(-1)
    torch.testing.assert_close(draw.log_q[0], expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("family", [0, 1, 2], ids=["mean_field", "top_down", "full_covariance"])
def test_closed_and_sampled_divergence_agree(family, model, generator):
    n = 20_000
    with torch.no_grad():
        draw = families(model, 3, generator)[family].sample(model, n, generator)
    for closed, log_q, log_p in zip(draw.kl, draw.log_q, draw.log_p, strict=True):
        difference = log_q - log_p - closed
        assert (closed >= 0).all()
        assert (difference.mean(0).abs() < 4 * difference.std(0) / math.sqrt(n)).all()


def test_point_costs_the_joint_density(model, generator):
    q = families(model, 4, generator)[3]
    x = normal(generator, 4, 5)
    f = model.free_energy(x, q, n_samples=2)
    top = Normal(model.top[0], (-0.5 * model.top[1]).exp()).log_prob(q.mean[1]).sum(-1)
    mean, log_variance = model.prior(1, q.mean[1])
    low = Normal(mean, (0.5 * log_variance).exp()).log_prob(q.mean[0]).sum(-1)
    (predicted,) = model.output_parameters(q.mean[0])
    data = Normal(predicted, 0.5).log_prob(x).sum(-1)
    torch.testing.assert_close(f.total, -(top + low + data), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("kind", ["inverse_autoregressive", "planar"])
@pytest.mark.parametrize("n_context", [0, 2])
def test_a_flow_of_one_latent_stretches_by_its_slope(kind, n_context, generator):
    flow = Flow(1, kind, n_context=n_context, generator=generator).double()
    z = normal(generator, 3, 6, 1).requires_grad_()
    moved, log_determinant = flow(z, normal(generator, 6, 2) if n_context else None)
    (slope,) = torch.autograd.grad(moved.sum(), z, retain_graph=True)
    torch.testing.assert_close(log_determinant, slope[..., 0].log(), rtol=0, atol=1e-12)
    if kind != "planar":
        assert 0 < (moved - z).abs().max() < 0.5 * (1 + z.abs().max())
    gradients = torch.autograd.grad(moved.sum(), list(flow.parameters()), allow_unused=True)
    assert any(one is not None and one.any() for one in gradients)


@pytest.mark.parametrize("size", [0.0, 1e-15])
def test_a_planar_step_without_a_direction_is_a_shift(size, generator):
    flow = Flow(3, "planar", n_steps=1, generator=generator)
    with torch.no_grad():
        flow.steps[0].vectors[3:6] = size
    u, b = flow.steps[0].vectors[:3].detach(), flow.steps[0].vectors[6].detach()
    z = normal(generator, 5, 2, 3).float()
    moved, log_determinant = flow(z)
    torch.testing.assert_close(moved, z + u * b.tanh(), rtol=0, atol=1e-6)
    torch.testing.assert_close(log_determinant, torch.zeros(5, 2), rtol=0, atol=1e-6)
    (moved.square().sum() + log_determinant.sum()).backward()
    assert flow.steps[0].vectors.grad.isfinite().all()


def test_a_copied_inference_has_flows_of_its_own(generator):
    model, flows = LatentGaussian(5, (3,), generator=generator), [Flow(3, generator=generator)]
    direct = Direct(model, widths=[[4]], start=partial(Flowed.at_prior, flows=flows))
    copied = deepcopy(direct).start(model, 2).flows
    assert copied[0] is not flows[0]
    assert all(map(torch.equal, copied[0].parameters(), flows[0].parameters()))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("n_context", [0, 2])
def test_log_determinant_of_a_flow_is_that_of_its_jacobian(kind, n_context, generator):
    flow = Flow(4, kind, n_steps=3, n_context=n_context, generator=generator).double()
    with torch.no_grad():
        for parameter in flow.parameters():
            parameter.add_(0.15 * normal(generator, *parameter.shape))
    z, context = normal(generator, 6, 4), normal(generator, 6, 2) if n_context else None
    _, log_determinant = flow(z, context)
    for i in range(6):
        here = None if context is None else context[i]
        jacobian = torch.autograd.functional.jacobian(lambda v, c=here: flow(v, c)[0], z[i])
        expected = torch.linalg.slogdet(jacobian)[1]
        assert log_determinant[i].item() == pytest.approx(expected.item(), abs=1e-10)
    assert log_determinant.std() > 1e-2


def test_autoregressive_step_looks_back_only(generator):
    flow = Flow(4, n_steps=1, generator=generator).double()
    jacobian = torch.autograd.functional.jacobian(lambda v: flow(v)[0], normal(generator, 4))
    assert not jacobian.triu(1).any()
    assert (jacobian.diagonal() > 0).all()


@pytest.mark.parametrize("kind", KINDS)
def test_flowed_posterior_is_normalised(kind, model, generator):
    """E_q[p(z) / q(z)] = 1 with p the prior: the importance weights of no data."""
    n = 40_000
    flows = [Flow(k, kind, generator=generator).double() for k in SIZES]
    q = Flowed.at_prior(model, 1, flows)
    wide = tuple(v + 1.0 for v in q.log_variance)
    with torch.no_grad():
        draw = Flowed(q.mean, wide, flows).sample(model, n, generator)
    weight = (sum(draw.log_p) - sum(draw.log_q)).exp()
    assert abs(weight.mean() - 1) < 4 * weight.std() / math.sqrt(n)
    assert weight.std() < 5


def test_gradient_reaches_flow_and_context(model, generator):
    context = normal(generator, 4, 2).requires_grad_()
    q = families(model, 4, generator, context)[-1]
    f = model.free_energy(normal(generator, 4, 5), q, n_samples=2, generator=generator)
    f.total.sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in q.flows[0].parameters())
    assert context.grad is not None
    assert context.grad.any()


def test_flows_of_other_sizes_are_refused(model, generator, refused):
    flows = [Flow(k, n_context=2) for k in SIZES]
    context = normal(generator, 4, 2)
    assert Flowed.at_prior(model, 4, flows, context).context is context
    for wrong, given, says in (
        (flows[:1], context, "1 flows"),
        (flows[::-1], context, "a flow of 2 at level 1"),
        (flows, None, "a context of 0 for a flow with n_context 2"),
        ([Flow(k) for k in SIZES], context, "a context of 2 for a flow with n_context 0"),
        (flows, normal(generator, 3, 2), "a context of shape"),
    ):
        assert says in refused(Flowed.at_prior, model, 4, wrong, given)
    assert "width" in refused(Flow, 3, widths=(0,))
    assert "Write (8,)" in refused(Flow, 3, widths=8)
    assert "n" in refused(Flow, 0)


def test_building_a_flow_leaves_the_global_state_alone():
    before = torch.get_rng_state()
    one, two = (Flow(3, generator=torch.Generator().manual_seed(5)) for _ in range(2))
    assert torch.equal(before, torch.get_rng_state())
    z = torch.ones(2, 3)
    assert torch.equal(one(z)[0], two(z)[0])


def test_same_generator_same_draw(model):
    q = MeanField.at_prior(model, 2)
    one, two = (q.sample(model, 3, torch.Generator().manual_seed(8)) for _ in range(2))
    assert torch.equal(one.z[0], two.z[0])


def test_prior_precision_is_fixed_learned_or_predicted(generator):
    z = normal(generator, 3, 2)
    fixed = LatentGaussian(5, SIZES, prior_precision=4.0).double()
    assert fixed.prior(1, z)[1].item() == pytest.approx(-math.log(4.0))
    learned = LatentGaussian(5, SIZES, prior_precision="feature").double()
    assert learned.prior(1, z)[1].shape == (3,)
    assert [n for n, _ in learned.named_parameters()].count("log_precisions.0") == 1
    predicted = LatentGaussian(5, SIZES).double()
    assert predicted.prior(1, z)[1].shape == (3, 3)
    assert "top" not in dict(predicted.named_parameters())


def test_extreme_posteriors_stay_finite(model, generator):
    x = normal(generator, 2, 5).float()
    model = model.float()
    for scale in (-1e4, 1e4):
        for q in families(model.double(), 2, generator):
            far = tuple(scale * torch.ones_like(p) for p in q.parameters)
            far = (0 * far[0], *far[1:]) if len(far) > 1 else (0 * far[0],)
            if isinstance(q, MeanField | TopDown):
                far = (0 * far[0], far[1], 0 * far[2], far[3])
                f = model.free_energy(x.double(), q.with_parameters(far), generator=generator)
                assert f.total.isfinite().all()


def test_refusals(model, refused, generator):
    x, q = normal(generator, 4, 5), MeanField.at_prior(model, 4)
    assert "torch.Generator" in refused(model.free_energy, x, q)
    assert "shape (B, 5)" in refused(model.free_energy, x[:, :4], q, generator=generator)
    assert "Give q the batch of x" in refused(model.free_energy, x[:3], q, generator=generator)
    assert "n_samples" in refused(model.free_energy, x, q, n_samples=0, generator=generator)
    assert "n_z" in refused(LatentGaussian, 5, ())
    assert "lowest first" in refused(LatentGaussian, 5, SIZES, decoders=[FullyConnected(3)])
    assert "prior_precision" in refused(LatentGaussian, 5, SIZES, prior_precision=-1.0)
    assert "one a latent level" in refused(LatentGaussian, 5, SIZES, priors=[None])
    assert "'standard'" in refused(LatentGaussian, 5, SIZES, top_prior="normal")
    assert "at least 2" in refused(Flow, 1, "coupling")
    assert "'planar'" in refused(Flow, 3, "planer")
    assert "'sampled'" in refused(Objective, kl="exact")
    assert isinstance(LatentGaussian(5, SIZES).output, Bernoulli)
