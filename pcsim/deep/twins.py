"""The latent Gaussian model that is the same as the hierarchy of a rate circuit."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from pcsim.deep.latent_gaussian import LatentGaussian, check_learnable
from pcsim.deep.networks import linear
from pcsim.deep.outputs import Gaussian
from pcsim.hierarchy import Hierarchy
from pcsim.messages import refusal
from pcsim.nonlinearity import Nonlinearity
from pcsim.priors import GaussianPrior

__all__ = ["twin_of"]

FLAT = -15.0
"""Log precision of a top level without a Gaussian prior: as wide as latents are let be."""


def twin_of(hierarchy: Hierarchy) -> LatentGaussian:
    r"""Return the float64 model whose :math:`-\log p(x, z)` is the hierarchy's free energy.

    Equal up to constants, and to a Gaussian of log precision `FLAT` at a top that has none.

    Parameters
    ----------
    hierarchy
        Any functions and priors; the precisions of its levels are numbers or vectors, because the
        levels of a latent Gaussian model are independent given the level above.

    Raises
    ------
    ValueError
        If the precision of a level is a full matrix, or beyond what the model can have.

    Examples
    --------
    >>> from pcsim.deep.posteriors import Point
    >>> from pcsim.hierarchy import Level, free_energy
    >>> one = Hierarchy((Level(np.eye(1), 4.0),), (GaussianPrior(mean=3.0, precision=0.7),))
    >>> x, z = torch.tensor([[2.0]]).double(), torch.tensor([[2.5]]).double()
    >>> f = twin_of(one).free_energy(x, Point((z,))).total
    >>> bool(np.isclose(f, free_energy(one, [x.numpy(), z.numpy()])))
    True
    """
    for i, level in enumerate(hierarchy.levels):
        if np.ndim(level.precision) == 2:
            found, advice = f"levels[{i}] with a full precision", "Give one number a unit."
            raise ValueError(refusal("twin_of", found, "a diagonal precision", advice))
    top = hierarchy.priors[-1]
    own = isinstance(top, GaussianPrior) and np.ndim(top.precision) < 2
    precisions = [level.precision for level in hierarchy.levels]
    precisions += [top.precision] if own and isinstance(top, GaussianPrior) else []
    check_learnable("twin_of", [torch.as_tensor(np.atleast_1d(one).copy()) for one in precisions])
    model = LatentGaussian(
        hierarchy.sizes[0],
        hierarchy.sizes[1:],
        Gaussian("feature"),
        prior_precision="feature",
        top_prior="learned",
        decoders=[_Decoder(v.n_above, v.inner, v.outer) for v in hierarchy.levels],
        priors=[*hierarchy.priors[:-1], None if own else top],
    ).double()
    _fill(model, hierarchy)
    with torch.no_grad():
        model.top[1] = FLAT
        if own and isinstance(top, GaussianPrior):
            model.top[0] = torch.as_tensor(np.array(top.mean))
            model.top[1] = torch.as_tensor(np.log(np.array(top.precision)))
    return model.requires_grad_(False)


class _Decoder(nn.Module):
    """A function of each latent alone; its head adds the weights and a function of each sum."""

    def __init__(self, n: int, inner: Nonlinearity, outer: Nonlinearity) -> None:
        super().__init__()
        self.n_in = self.n_out = n
        self.inner, self.outer = inner, outer

    def forward(self, z: Tensor) -> Tensor:
        rate: Tensor = self.inner.f(z, torch)
        return rate

    def head(self, n_out: int, n_heads: int, generator: torch.Generator) -> nn.Module:
        return _Head(linear(self.n_out, n_heads * n_out, generator), self.outer)


class _Head(nn.Module):
    def __init__(self, weights: nn.Linear, outer: Nonlinearity) -> None:
        super().__init__()
        self.weights, self.outer = weights, outer

    def forward(self, rate: Tensor) -> Tensor:
        prediction: Tensor = self.outer.f(self.weights(rate), torch)
        return prediction


def _fill(model: LatentGaussian, hierarchy: Hierarchy) -> None:
    precisions = [model.log_precision_x, *model.log_precisions]
    with torch.no_grad():
        for level, head, precision in zip(hierarchy.levels, model.heads, precisions, strict=True):
            assert isinstance(head, _Head)
            assert isinstance(precision, nn.Parameter)
            head.weights.weight.copy_(torch.as_tensor(np.array(level.weights)))
            precision.copy_(torch.as_tensor(np.log(np.array(level.precision))))
