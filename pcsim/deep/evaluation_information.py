r"""What latents say about the data: mutual information and active units."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from pcsim.deep.draw import Posterior
from pcsim.deep.gaussians import bounded, noise
from pcsim.deep.latent_gaussian import LatentGaussian
from pcsim.deep.networks import evaluating
from pcsim.deep.posteriors import FullCovariance, MeanField, Point, TopDown
from pcsim.messages import check_integer, check_number, refusal

__all__ = ["Information", "active_units", "mutual_information", "posterior_means"]


NEAR = 1.0
"""Nats below the largest value that an estimate can take: within them it is a bound alone."""


@dataclass(frozen=True)
class Information:
    """An estimate of mutual information, and how far up its number of examples lets it go.

    Examples
    --------
    >>> print(Information(3.21, 1000), Information(6.5, 1000))
    3.210 >= 6.500
    """

    nats: float
    n_examples: int
    """N: the estimate is never above log N."""

    @property
    def is_bound(self) -> bool:
        """Whether it is within a nat of log N: a lower bound and no more."""
        return self.nats > math.log(self.n_examples) - NEAR

    def __str__(self) -> str:
        return f"{'>= ' if self.is_bound else ''}{self.nats:.3f}"


def mutual_information(
    q: MeanField,
    *,
    level: int = 1,
    n_samples: int = 1,
    chunk: int = 256,
    generator: torch.Generator,
) -> Information:
    r"""Estimate the information between the data and a latent level under q, nats.

    .. math:: I = E_{p(x)} E_{q(z|x)} \Big[\log q(z|x) - \log \frac{1}{N} \sum_n q(z|x_n)\Big]

    Each example's own posterior is one of the N, so the estimate is never above log N and too low
    by little while I is well below log N. Within a nat of log N it is a lower bound alone, and
    says so (`Information.is_bound`): draw more examples to know more.

    Parameters
    ----------
    q
        The posteriors of N examples.
    level
        1 is the lowest.
    n_samples
        Draws from each posterior.
    chunk
        Examples compared with all others at once.

    References
    ----------
    Hoffman and Johnson (2016), "ELBO surgery"
    """
    where = "mutual_information"
    level = check_integer(where, "level", level, low=1)
    n_samples = check_integer(where, "n_samples", n_samples, low=1)
    if not isinstance(q, MeanField):
        found, expected = f"a {type(q).__name__}", "a MeanField"
        raise ValueError(refusal(where, found, expected, "Infer with that family."))
    if level > len(q.mean):
        found, expected = f"level {level}", f"one of {len(q.mean)}, counted from 1"
        raise ValueError(refusal(where, found, expected, "Take a level that there is."))
    mean = q.mean[level - 1].detach().double()
    check_means(where, mean)
    mean = mean - mean.mean(0)  # information knows no place, and squares of far ones cancel
    precision = (-bounded(q.log_variance[level - 1].detach().double())).exp()
    n, total = len(mean), 0.0
    for _ in range(n_samples):
        z = mean + noise(mean.shape, mean, generator) * precision.rsqrt()
        for rows in torch.arange(n, device=mean.device).split(chunk):
            density = log_densities(z[rows], mean, precision)
            own = density.gather(1, rows[:, None])[:, 0]
            total += float((own - density.logsumexp(1) + math.log(n)).sum())
    return Information(total / (n * n_samples), n)


def check_tensor(where: str, name: str, value: object) -> None:
    """Refuse what is no tensor."""
    if not isinstance(value, Tensor):
        found = f"{name} of type {type(value).__name__}"
        raise TypeError(refusal(where, found, "a tensor", "Use torch.as_tensor."))


def check_means(where: str, means: Tensor) -> None:
    """Refuse means that are not finite: of inference that ran off."""
    if not bool(torch.isfinite(means).all()):
        found = f"{int((~torch.isfinite(means)).sum())} of {means.numel()} means NaN or infinite"
        raise ValueError(refusal(where, found, "finite means", "Look at the inference first."))


def log_densities(z: Tensor, mean: Tensor, precision: Tensor) -> Tensor:
    """Log density of each z (M, n) under each Gaussian (N, n), up to a constant, (M, N)."""
    # One matrix product each instead of an (M, N, n) array of differences.
    square = z.square() @ precision.mT - 2 * z @ (precision * mean).mT
    return -0.5 * (square + (precision * mean.square() - precision.log()).sum(1))


def posterior_means(
    model: LatentGaussian,
    q: Posterior,
    *,
    n_samples: int = 1000,
    chunk: int = 100,
    generator: torch.Generator | None = None,
) -> list[Tensor]:
    """Return the mean of each latent level, (B, n_l), lowest first, by sampling if need be.

    Exact for `MeanField`, `FullCovariance`, `Point` and the top level of a `TopDown`. Others are
    sampled, which adds a variance of that of the posterior over `n_samples` to their variance over
    examples: keep it well below the threshold of `active_units`.

    Parameters
    ----------
    q
        The posterior of these examples, such as `infer(...).q`.
    n_samples
        Samples of what has no mean in closed form.
    chunk
        Samples in memory at once.
    generator
        Needed where there is something to sample.
    """
    where = "posterior_means"
    n_samples = check_integer(where, "n_samples", n_samples, low=1)
    chunk = check_integer(where, "chunk", chunk, low=1)
    with torch.no_grad(), evaluating(model):
        ladder = isinstance(q, TopDown)
        if isinstance(q, MeanField | FullCovariance | Point) or (ladder and len(model.n_z) == 1):
            return [mean.detach() for mean in q.centre(model)]
        means = _sampled_means(model, q, n_samples, chunk, generator)
        return [*means[:-1], q.centre(model)[-1].detach()] if ladder else means


def _sampled_means(
    model: LatentGaussian,
    q: Posterior,
    n_samples: int,
    chunk: int,
    generator: torch.Generator | None,
) -> list[Tensor]:
    parts = []
    for start in range(0, n_samples, chunk):
        n = min(chunk, n_samples - start)
        parts.append([z.sum(0) for z in q.sample(model, n, generator).z])
    return [torch.stack(level).sum(0) / n_samples for level in zip(*parts, strict=True)]


def active_units(means: Tensor, *, threshold: float = 0.01) -> Tensor:
    r"""Return which units vary with the data: :math:`\mathrm{Var}_x(E_q[z_i|x]) > 0.01`, (n,).

    Parameters
    ----------
    means : (N, n)
        Posterior means of many examples. The noise of means that were sampled counts as variance:
        see `posterior_means`.

    References
    ----------
    Burda, Grosse and Salakhutdinov (2016), https://arxiv.org/abs/1509.00519

    Examples
    --------
    >>> active_units(torch.tensor([[0.0, 1.0], [0.0, 2.0]]))
    tensor([False,  True])
    """
    check_number("active_units", "threshold", threshold, low=0.0)
    check_tensor("active_units", "means", means)
    if means.ndim != 2 or len(means) < 2:
        found = f"means of shape {tuple(means.shape)}"
        raise ValueError(refusal("active_units", found, "(N, n) with N above 1"))
    check_means("active_units", means)
    return means.double().var(0) > threshold
