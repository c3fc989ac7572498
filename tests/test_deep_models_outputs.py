"""Outputs against closed forms in eighty digits, and autograd."""

from __future__ import annotations

import math
from itertools import product

import deep_cases
import mpmath
import numpy as np
import pytest
import torch

from pcsim.deep.discretized import log_mass, log_mass_slope, log_tail, log_tail_slope
from pcsim.deep.outputs import Bernoulli, Gaussian, Multinomial

LEVELS = torch.arange(256, dtype=torch.float64) / 255
BINNED = Gaussian(4.0, bin_width=1 / 255, limits=(0.0, 1.0))
OUTPUTS = [
    Bernoulli(),
    Gaussian(0.7),
    Gaussian(4.0, link="sigmoid"),
    Gaussian("global"),
    Gaussian("feature"),
    Gaussian("predicted"),
    Gaussian(4.0, bin_width=0.3),
    Gaussian("predicted", bin_width=1 / 255, limits=(0.0, 1.0), link="sigmoid"),
    Multinomial(30),
]

generator = deep_cases.generator


def parameters_of(output, n, n_x, generator):
    """Random parameters of every kind, log precision near log 4."""
    first = torch.randn(n, n_x, generator=generator, dtype=torch.float64, requires_grad=True)
    if not isinstance(output, Gaussian) or not isinstance(output.precision, str):
        return (first,)
    shape = output.shared_shape(n_x) or (n, n_x)
    return first, math.log(4.0) + 0.3 * torch.randn(*shape, generator=generator).double()


def log_mass_by_hand(centre, width):
    """Log mass of a bin and two derivatives in its centre, in eighty digits.

    An infinite bin has no centre: it begins where one is given.
    """
    with mpmath.workdps(80):
        low = mpmath.mpf(centre) - (width / 2 if math.isfinite(width) else 0)
        high = low + width
        near, beyond = mpmath.npdf(low), mpmath.npdf(high)
        root = mpmath.sqrt(2)
        total = (mpmath.erfc(low / root) - mpmath.erfc(high / root)) / 2
        slope = (beyond - near) / total
        rise = low * near - (high * beyond if mpmath.isfinite(high) else 0)
        return float(mpmath.log(total)), float(slope), float(rise / total - slope**2)


@pytest.mark.parametrize("output", OUTPUTS, ids=str)
def test_weighted_error_is_the_gradient_of_log_prob(output, generator):
    parameters = parameters_of(output, 6, 5, generator)
    x = output.sample(parameters, generator).detach()
    (gradient,) = torch.autograd.grad(output.log_prob(x, parameters).sum(), parameters[0])
    torch.testing.assert_close(output.weighted_error(x, parameters), gradient, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("output", OUTPUTS, ids=str)
def test_samples_have_the_mean_that_the_output_names(output, generator):
    n = 20_000
    parameters = tuple(p[:1].detach() for p in parameters_of(output, 1, 3, generator))
    if isinstance(output, Gaussian) and output.limits:
        parameters = (0.3 * parameters[0], parameters[1] + 3.0)  # away from the closed ends
    many = tuple(p.expand(n, -1) if p.shape[-1] == 3 else p for p in parameters)
    x = output.sample(many, generator)
    se = x.std(0) / math.sqrt(n)
    assert ((x.mean(0) - output.mean(many)[0]).abs() < 4 * se).all()


@pytest.mark.parametrize("precision", [0.7, 4.0])
def test_gaussian_log_prob_is_the_closed_form(precision, generator):
    x, mean = torch.randn(2, 4, 3, generator=generator, dtype=torch.float64)
    expected = torch.distributions.Normal(mean, precision**-0.5).log_prob(x).sum(-1)
    shared = torch.tensor([math.log(precision)], dtype=torch.float64)
    for output, parameters in [
        (Gaussian(precision), (mean,)),
        (Gaussian("global"), (mean, shared)),
        (Gaussian("feature"), (mean, shared.expand(3))),
        (Gaussian("predicted"), (mean, shared.expand(4, 3))),
    ]:
        torch.testing.assert_close(output.log_prob(x, parameters), expected, rtol=1e-12, atol=0)


def test_bernoulli_log_prob_is_the_closed_form(generator):
    logit = torch.tensor([[-800.0, -1.5, 0.4, 800.0]], dtype=torch.float64)
    for x in (torch.zeros(1, 4).double(), torch.ones(1, 4).double()):
        expected = torch.distributions.Bernoulli(logits=logit).log_prob(x).sum(-1)
        torch.testing.assert_close(Bernoulli().log_prob(x, (logit,)), expected)


def test_multinomial_leaves_out_the_coefficient(generator):
    logits = torch.randn(4, 6, generator=generator, dtype=torch.float64)
    x = Multinomial(30).sample((logits,), generator)
    assert (x.sum(-1) == 30).all()
    full = torch.distributions.Multinomial(30, logits=logits).log_prob(x)
    coefficient = math.lgamma(31) - torch.lgamma(x + 1).sum(-1)
    torch.testing.assert_close(Multinomial().log_prob(x, (logits,)), full - coefficient)


@pytest.mark.parametrize("precision", [0.7, 4.0, 1e3, 1e6])
@pytest.mark.parametrize("mean", [-2.0, 0.0, 0.37, 1.4])
def test_discretised_probabilities_sum_to_one(precision, mean):
    output = Gaussian(precision, bin_width=1 / 255, limits=(0.0, 1.0))
    each = output.log_prob(LEVELS[:, None], (torch.full((256, 1), mean).double(),))
    assert abs(each.exp().sum().item() - 1) < 1e-10
    assert each.isfinite().all()


@pytest.mark.parametrize("precision", [0.7, 4.0])
def test_discretised_probabilities_without_limits_sum_to_one(precision):
    x = torch.arange(-60, 61, dtype=torch.float64)[:, None] * 0.3
    each = Gaussian(precision, bin_width=0.3).log_prob(x, (torch.full((121, 1), 0.21).double(),))
    assert abs(each.exp().sum().item() - 1) < 1e-12


@pytest.mark.parametrize("width", [1e-6, 1e-3, 0.09, 0.11, 0.7, 4.0, 30.0])
@pytest.mark.parametrize("centre", [0.0, 0.03, 0.7, 2.1, 4.0, 11.0, 40.0, 120.0])
def test_mass_of_a_bin_in_eighty_digits(centre, width):
    c = torch.tensor(centre, dtype=torch.float64, requires_grad=True)
    h = torch.tensor(width, dtype=torch.float64)
    value, slope, _ = log_mass_by_hand(centre, width)
    found = log_mass(c, h)
    (gradient,) = torch.autograd.grad(found, c)
    assert found.item() == pytest.approx(value, rel=2e-11, abs=2e-11)
    assert gradient.item() == pytest.approx(slope, rel=2e-8, abs=1e-9)
    assert log_mass_slope(c, h).item() == pytest.approx(slope, rel=2e-8, abs=1e-9)
    assert log_mass_slope(-c, h).item() == -log_mass_slope(c, h).item()


def open_slope(start, width):
    """Of a bin without an end, in where it begins: its mass is that below minus this."""
    return -log_tail_slope(-start)


CENTRES = (0.0, 0.25, 2.0, 9.0, 40.0, 1000.0, 3000.0, 10_000.0)
STARTS = (-30.0, -2.0, 0.0, 3.0, 7.9, 8.1, 1000.0, 10_000.0)
TOLERANCES = {
    (log_mass_slope, torch.float64): (1e-9, 3e-8),
    (log_mass_slope, torch.float32): (1e-5, 3e-4),
    (open_slope, torch.float64): (1e-12, 1e-11),
    (open_slope, torch.float32): (2e-6, 2e-5),
}
"""Of a slope and of its own derivative."""


@pytest.mark.parametrize("kind", [torch.float64, torch.float32])
@pytest.mark.parametrize(
    ("slope_of", "centre", "width"),
    [
        *product([log_mass_slope], CENTRES, [2**-20, 2**-6, 0.5, 4.0]),
        *product([open_slope], STARTS, [math.inf]),
    ],
)
def test_slopes_keep_their_digits_in_the_tails(kind, slope_of, centre, width):
    c = torch.tensor(centre, dtype=kind, requires_grad=True)
    found = slope_of(c, torch.tensor(width, dtype=kind))
    (gradient,) = torch.autograd.grad(found, c)
    _, slope, curvature = log_mass_by_hand(centre, width)
    near, looser = TOLERANCES[slope_of, kind]
    assert found.item() == pytest.approx(slope, rel=near, abs=near)
    assert gradient.item() == pytest.approx(curvature, abs=looser)


EDGES = (*(sign * 10.0**k for sign in (-1, 1) for k in range(-1, 7)), -7.9, -8.1, -1e8, 0.0)


@pytest.mark.parametrize("kind", [torch.float64, torch.float32])
@pytest.mark.parametrize("edge", EDGES)
def test_an_open_bin_and_its_derivatives_at_any_distance(kind, edge):
    """Against eighty digits at the number that the type makes of the edge."""
    t = torch.tensor(edge, dtype=kind, requires_grad=True)
    found = log_tail(t)
    (slope,) = torch.autograd.grad(found, t, create_graph=True)
    (curvature,) = torch.autograd.grad(slope, t)
    with mpmath.workdps(80):
        at = mpmath.mpf(t.item())
        mass = mpmath.erfc(-at / mpmath.sqrt(2)) / 2
        hazard = mpmath.npdf(at) / mass
        expected = [float(one) for one in (mpmath.log(mass), hazard, -hazard * (hazard + at))]
    near, looser = (1e-12, 1e-11) if kind == torch.float64 else (2e-6, 2e-5)
    assert found.item() == pytest.approx(expected[0], rel=near, abs=near)
    assert slope.item() == pytest.approx(expected[1], rel=near, abs=near)
    assert curvature.item() == pytest.approx(expected[2], rel=looser, abs=looser)


@pytest.mark.parametrize("mean", [0.5, 3.0, 100.0])
def test_the_outermost_bins_pull_a_far_mean_back(mean):
    """In single precision, against the tail's own: a slope of precision times distance."""
    output = Gaussian(1e6, bin_width=1 / 255, limits=(0.0, 1.0))
    means = torch.tensor([[mean, 1 - mean]], requires_grad=True)
    value = output.log_prob(torch.tensor([[0.0, 1.0]]), (means,))
    (gradient,) = torch.autograd.grad(value.sum(), means)
    distance = mean - 0.5 / 255
    slope = 1e6 * distance + 1 / distance  # and the next term is of order 1e-6
    assert gradient[0].tolist() == pytest.approx([-slope, slope], rel=3e-6)


def test_discretised_tails_are_finite_in_single_precision():
    x = LEVELS.float()[:, None].repeat(1, 3)
    mean = torch.tensor([-300.0, 0.5, 300.0]).repeat(256, 1).requires_grad_()
    log_precision = torch.tensor([7.0, 7.0, 7.0]).requires_grad_()
    output = Gaussian("feature", bin_width=1 / 255, limits=(0.0, 1.0))
    value = output.log_prob(x, (mean, log_precision)).sum()
    gradients = torch.autograd.grad(value, (mean, log_precision))
    assert value.isfinite()
    assert all(g.isfinite().all() for g in gradients)
    assert output.weighted_error(x, (mean, log_precision)).isfinite().all()


def test_narrow_bins_are_density_times_width(generator):
    x, mean = torch.randn(2, 5, 3, generator=generator, dtype=torch.float64)
    width = 1e-4
    binned = Gaussian(4.0, bin_width=width).log_prob(x, (mean,))
    expected = Gaussian(4.0).log_prob(x, (mean,)) + 3 * math.log(width)
    torch.testing.assert_close(binned, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("kind", [torch.float32, torch.float64])
def test_binned_data_are_centres_of_bins(kind, generator, refused):
    k = torch.arange(256.0).to(kind)[None]
    signed = Gaussian(4.0, bin_width=2 / 255)  # k = 127.5 would be 0
    coarse = Gaussian(0.7, bin_width=0.3)
    for output, x in (
        (BINNED, k / 255),
        (BINNED, k * (1 / 255)),
        (signed, 2 * k / 255 - 1),
        (coarse, coarse.sample((1000 * k,), generator)),
        (Gaussian(4.0, bin_width=1.0, limits=(0.0, 255.0)), k.to(torch.uint8)),
        (Gaussian(), k / 256),
    ):
        output.check("here", x)
    dequantised = (k + torch.rand(k.shape, generator=generator).to(kind)) / 256
    free = Gaussian(4.0, bin_width=1 / 255)
    for output, x in (
        (BINNED, k / 256),
        (BINNED, dequantised),
        (free, k / 256),
        (free, dequantised),
    ):
        assert "of 256 entries of x between the centres" in refused(output.check, "here", x)


def test_binned_samples_lie_on_bins(generator):
    x = BINNED.sample((torch.rand(50, 4, generator=generator).double(),), generator)
    np.testing.assert_allclose(x * 255, (x * 255).round(), atol=1e-9)
    assert x.min() >= 0
    assert x.max() <= 1


def test_refusals(refused):
    assert "'feature'" in refused(Gaussian, "features")
    assert "above 0" in refused(Gaussian, -0.7)
    assert "bin_width beside limits" in refused(Gaussian, 0.7, limits=(0.0, 1.0))
    assert "n_events" in refused(Multinomial, 0)
    assert "generator" in refused(Bernoulli().sample, (torch.zeros(1, 2),), None)
