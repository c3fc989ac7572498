"""Numbers and linear Gaussian models that tests of latent Gaussian models begin with."""

from __future__ import annotations

import math

import pytest
import torch

from pcsim.deep.linear_gaussian import LinearGaussian
from pcsim.deep.posteriors import MeanField

__all__ = ["balanced", "generator", "mean_field", "normal", "orthogonal"]


@pytest.fixture
def generator(rng):
    """A generator of torch seeded by the name of the test: ``generator = deep_cases.generator``."""
    return torch.Generator().manual_seed(int(rng.integers(2**31)))


def normal(generator, *shape):
    """Return standard normal numbers."""
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def orthogonal(generator, lengths=(0.4, 0.8, 1.2)):
    """Return a linear Gaussian model whose posterior is diagonal."""
    n = len(lengths)
    basis = torch.linalg.qr(normal(generator, 6, n))[0]
    return LinearGaussian(
        (basis * torch.tensor(lengths, dtype=torch.float64),),
        (normal(generator, 6), normal(generator, n)),
        (torch.tensor([4.0] * 6).double(), torch.tensor([0.7] * n, dtype=torch.float64)),
    )


def mean_field(linear, x):
    """Return the posterior of a linear Gaussian model whose latents the data do not entangle."""
    mean, covariance = linear.posterior(x)
    return MeanField((mean,), (covariance.diagonal().log().expand_as(mean),))


def balanced(shape, like, generator):
    """Stand for noise: samples of mean 0 and covariance 1, so that expected squares are exact."""
    n = shape[-1]
    axes = math.sqrt(n) * torch.eye(n, dtype=like.dtype)
    return torch.cat([axes, -axes])[:, None].expand(shape)
