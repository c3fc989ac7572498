"""The curvature behind a link: Gauss-Newton's, by autograd, and steps along it."""

from __future__ import annotations

import math

import pytest
import torch
from torch.func import hessian, jacrev

from pcsim.deep.curvature import latent_curvature
from pcsim.deep.inference import infer
from pcsim.deep.inference_gradient import PointEstimate
from pcsim.deep.latent_gaussian import LatentGaussian
from pcsim.deep.networks import FullyConnected
from pcsim.deep.outputs import Gaussian
from pcsim.deep.posteriors import Point

BINS = {"bin_width": 0.1, "limits": (0.0, 1.0)}


def model_of(output, seed):
    generator = torch.Generator().manual_seed(seed)
    decoder = FullyConnected(2, (6,), activation="tanh", generator=generator)
    model = LatentGaussian(4, (2,), output, decoders=[decoder], generator=generator).double()
    with torch.no_grad():
        for one in model.parameters():
            one.add_(0.7 * torch.randn(one.shape, generator=generator, dtype=torch.float64))
    return model, generator


@pytest.mark.parametrize("precision", [4.0, "feature", "predicted"])
@pytest.mark.parametrize("bins", [{}, BINS], ids=["plain", "binned"])
def test_curvature_behind_a_link_is_that_of_gauss_and_newton(precision, bins, rng):
    model, generator = model_of(Gaussian(precision, link="sigmoid", **bins), int(rng.integers(99)))
    z = 2 * torch.randn(5, 2, generator=generator, dtype=torch.float64)
    x = (torch.rand(5, 4, generator=generator, dtype=torch.float64) * 10).round() / 10
    x[0] = torch.tensor([0.0, 1.0, 0.0, 1.0])  # the outermost bins
    draw = Point((z,)).sample(model, 1, None)
    (found,) = latent_curvature(model, x, draw)
    plain = Gaussian(precision, **bins)

    def mean(point):
        return model.output.mean(model.output_parameters(point))

    for row, (point, data) in enumerate(zip(z, x, strict=True)):
        rest = [one.detach() for one in model.output_parameters(point)[1:]]
        jacobian = jacrev(mean)(point)
        own = -hessian(lambda m, d=data, r=rest: plain.log_prob(d, (m, *r)))(mean(point))
        expected = (jacobian.mT @ own @ jacobian).diagonal() + 1.0
        torch.testing.assert_close(found[row], expected.detach(), rtol=1e-9, atol=1e-9)
        if not bins:
            precisions = model.output.log_precision((mean(point), *rest)).exp().expand(4)
            torch.testing.assert_close(own, torch.diag(precisions), rtol=1e-9, atol=1e-9)
    assert (found > 0).all()


def test_far_data_curve_the_energy_up_and_are_descended_to():
    """Two features of logit 2 z: h = 2 * 100 (2 p (1 - p))^2 + 1 where the Hessian is negative."""
    model = LatentGaussian(2, (1,), Gaussian(100.0, link="sigmoid")).double()
    with torch.no_grad():
        model.heads[0].weight.fill_(2.0)
    x, z = torch.full((1, 2), 0.99).double(), torch.full((1, 1), -1.5).double()
    (found,) = latent_curvature(model, x, Point((z,)).sample(model, 1, None))
    p = 1 / (1 + math.exp(3.0))
    assert found.item() == pytest.approx(200 * (2 * p * (1 - p)) ** 2 + 1, rel=1e-10)
    with torch.no_grad():
        model.top[0] = -1.5
    trace = infer(PointEstimate(), model, x).trace[:, 0]
    assert trace[-1] < trace[0] - 50
