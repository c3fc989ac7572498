"""Objectives: weights, free nats, annealing, and a divergence held at a target."""

from __future__ import annotations

import math

import deep_cases
import pytest
import torch
from deep_cases import normal

from pcsim.deep.latent_gaussian import LatentGaussian
from pcsim.deep.objective import Annealing, KLConstraint, Objective
from pcsim.deep.outputs import Gaussian
from pcsim.deep.posteriors import MeanField

generator = deep_cases.generator


@pytest.fixture
def model(generator):
    return LatentGaussian(
        5, (3, 2), Gaussian(4.0), prior_precision=0.7, generator=generator
    ).double()


@pytest.mark.parametrize("kl", ["closed", "sampled"])
def test_total_is_reconstruction_plus_weighted_divergence(kl, model, generator):
    x, q = normal(generator, 4, 5), MeanField.at_prior(model, 4)
    q = MeanField(tuple(m + 0.5 for m in q.mean), tuple(v - 0.7 for v in q.log_variance))
    objective = Objective(kl_weight=0.3, kl=kl)
    f = model.free_energy(x, q, n_samples=6, objective=objective, generator=generator)
    expected = f.reconstruction + 0.3 * f.kl.sum(-1)
    torch.testing.assert_close(f.total, expected, rtol=1e-12, atol=0)
    torch.testing.assert_close(f.elbo, -(f.reconstruction + f.kl.sum(-1)), rtol=1e-12, atol=0)
    if kl == "sampled":  # then the average importance weight is the bound itself
        torch.testing.assert_close(f.elbo, f.importance.mean(0), rtol=1e-12, atol=0)


def test_top_divergence_is_the_closed_form(model, generator):
    q = MeanField.at_prior(model, 1)
    q = MeanField(
        (q.mean[0], q.mean[1] + 0.5), (q.log_variance[0], q.log_variance[1] + math.log(4))
    )
    f = model.free_energy(normal(generator, 1, 5), q, generator=generator)
    # two latents: (4 + 0.25 - 1 - log 4) / 2 each
    assert f.kl[0, 1].item() == pytest.approx(4 + 0.25 - 1 - math.log(4), rel=1e-12)


def test_free_nats_cost_nothing_and_pull_nothing(model, generator):
    x, q = normal(generator, 4, 5), MeanField.at_prior(model, 4)
    q = MeanField((q.mean[0] + 3.0, q.mean[1] + 0.1), q.log_variance).detached()
    objective = Objective(free_bits=1.5, kl_weight=0.3)
    f = model.free_energy(x, q, n_samples=5, objective=objective, generator=generator)
    assert (f.kl[:, 0] > 1.5).all()
    assert (f.kl[:, 1] < 1.5).all()
    expected = f.reconstruction + 0.3 * (f.kl[:, 0] + 1.5)
    torch.testing.assert_close(f.total, expected, rtol=1e-12, atol=0)
    paid = torch.autograd.grad(
        (f.reconstruction + 0.3 * f.kl[:, 0]).sum(), q.parameters, retain_graph=True
    )
    for a, b in zip(paid, torch.autograd.grad(f.total.sum(), q.parameters), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("objective", [Objective(), Objective(free_bits=1.5, kl_weight=0.3)])
def test_the_total_owes_to_each_sample_what_it_would_be_less_without(objective, model, generator):
    q = MeanField.at_prior(model, 4)
    q = MeanField((q.mean[0] + 1.2, q.mean[1] + 0.1), q.log_variance)
    terms = model.terms(normal(generator, 4, 5), q, n_samples=3, generator=generator)
    likelihood, kl = terms.log_likelihood, objective.divergences(terms.draw)

    def total(samples, divisor):
        sums = kl[samples].sum(0) / divisor
        free = sums.clamp(min=objective.free_bits) if objective.free_bits else sums
        return -likelihood[samples].sum(0) / divisor + objective.kl_weight * free.sum(-1)

    for sample in range(3):
        others = [i for i in range(3) if i != sample]
        cost = 3 * (total([0, 1, 2], 3) - total(others, 3))
        advantage = 3 * (total([0, 1, 2], 3) - total(others, 2))
        torch.testing.assert_close(objective.cost(terms)[sample], cost, rtol=1e-10, atol=1e-12)
        found = objective.advantage(terms)[sample]
        torch.testing.assert_close(found, advantage, rtol=1e-10, atol=1e-12)
        if not objective.free_bits:
            alone = -likelihood[sample] + kl[sample].sum(-1)
            torch.testing.assert_close(cost, alone, rtol=1e-10, atol=1e-12)


def test_annealing_rises_and_stays():
    annealing = Annealing(n_steps=40, start=0.2)
    assert annealing.objective(0).kl_weight == 0.2
    assert annealing.objective(10).kl_weight == pytest.approx(0.4, rel=1e-12)
    assert annealing.objective(99).kl_weight == 1.0
    assert annealing.objective(0, Objective(free_bits=0.7)).free_bits == 0.7


def test_constraint_holds_the_divergence_at_its_target(generator):
    """Primal descent and dual ascent meet where the optimal divergence is the target."""
    model = LatentGaussian(5, (3,), Gaussian(4.0), generator=generator).double()
    x = 2 * normal(generator, 1, 5)
    constraint = KLConstraint(target=2.0, rate=0.02)
    q = MeanField.at_prior(model, 1).detached()
    optimiser = torch.optim.Adam(q.parameters, lr=0.02)
    tail = []
    for step in range(800):
        f = model.free_energy(
            x, q, n_samples=16, objective=constraint.objective(), generator=generator
        )
        optimiser.zero_grad()
        f.total.sum().backward()
        optimiser.step()
        constraint = constraint.updated(f)
        tail.append(f.kl.sum().item() if step >= 600 else math.nan)
    assert sum(tail[600:]) / 200 == pytest.approx(2.0, rel=0.05)
    assert constraint.log_multiplier > 0.1  # the unconstrained optimum has more


def test_refusals(refused):
    assert "kl_weight" in refused(Objective, kl_weight=-0.1)
    assert "free_bits" in refused(Objective, free_bits=-1.0)
    assert "n_steps" in refused(Annealing, n_steps=0)
    assert "target" in refused(KLConstraint, target=-2.0)
