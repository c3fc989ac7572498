r"""The diagonal of the Gauss-Newton curvature of the free energy in each level's latents.

.. math:: h_i = \sum_{jk} J_{ji} H_{jk} J_{ki} + 1/\sigma_{p,i}^2

with J the derivative of the prediction of the level below in :math:`z_i`, and H minus the second
derivative of that level's log density in its prediction: :math:`1/\sigma^2` where it is Gaussian,
:math:`p(1 - p)` of a Bernoulli logit. Second derivatives of the network are left out, and so are
those of a link (the prediction of a Gaussian is its mean, behind the link), so h > 0. The further
priors of `LatentGaussian` add their own curvature.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor
from torch.func import jvp, vmap

from pcsim.deep.draw import Draw
from pcsim.deep.latent_gaussian import LatentGaussian
from pcsim.deep.networks import evaluating
from pcsim.deep.outputs import Gaussian
from pcsim.priors import Prior, SparsePrior

__all__ = ["latent_curvature"]


def latent_curvature(model: LatentGaussian, x: Tensor, draw: Draw) -> list[Tensor]:
    """Return h at a draw of the posterior, averaged over its samples, (B, n_l) a level.

    Batch normalization takes its running averages: derivatives must not move them.
    """
    with torch.no_grad(), evaluating(model):
        found = []
        for level, z in enumerate(draw.z, start=1):
            seen = _from_data(model, x, z) if level == 1 else _from_level(model, level - 1, z)
            above = draw.z[level] if level < len(draw.z) else None
            _, log_variance = model.prior(level, above)
            here = seen + (-log_variance).exp()
            prior = model.priors[level - 1]
            found.append((here if prior is None else here + _from_prior(prior, z)).mean(0))
    return found


def _from_prior(prior: Prior, z: Tensor) -> Tensor:
    if isinstance(prior, SparsePrior):  # of each latent apart: no matrix an example
        return torch.as_tensor(prior.curvature(z[..., None], torch)[..., 0, 0]).to(z)
    return torch.as_tensor(prior.curvature(z, torch)).diagonal().to(z)


def _from_data(model: LatentGaussian, x: Tensor, z: Tensor) -> Tensor:
    output = model.output
    linked = isinstance(output, Gaussian) and output.link != "identity"
    plain = replace(output, link="identity") if linked else output  # type: ignore[type-var]

    def prediction(parameters: tuple[Tensor, ...]) -> Tensor:
        return output.mean(parameters) if linked else parameters[0]

    parameters = model.output_parameters(z)
    first, rest = prediction(parameters), parameters[1:]

    def curve(u: Tensor) -> Tensor:
        def error(parameter: Tensor) -> Tensor:
            return -plain.weighted_error(x, (parameter, *rest))

        return torch.as_tensor(jvp(error, (first,), (u,))[1])

    return _from_below(lambda here: prediction(model.output_parameters(here)), z, curve)


def _from_level(model: LatentGaussian, below: int, z: Tensor) -> Tensor:
    precision = (-model.prior(below, z)[1]).exp()
    return _from_below(lambda here: model.prior(below, here)[0], z, lambda u: precision * u)


def _from_below(
    predict: Callable[[Tensor], Tensor], z: Tensor, curve: Callable[[Tensor], Tensor]
) -> Tensor:
    """Return the diagonal of J^T H J at each sample and example, (S, B, n)."""
    z = z.contiguous()  # the samples of a point share their memory, which jvp refuses

    def along(direction: Tensor) -> Tensor:
        u: Tensor = jvp(predict, (z,), (direction.expand_as(z),))[1]
        return (u * curve(u)).sum(-1)

    n = z.shape[-1]
    directions = torch.eye(n, dtype=z.dtype, device=z.device)
    return vmap(along, chunk_size=16)(directions).movedim(0, -1)
