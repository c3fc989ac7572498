r"""How an inference network's output changes the parameters of the approximate posterior."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from pcsim.deep.networks import linear

__all__ = ["UPDATES", "Additive", "Gated", "LearnedStep"]

FIRST_STEP = -4.0
"""Softplus of it, 0.018, is the size of a learned step before training."""


class Gated(nn.Module):
    r"""A gate between the old value and a new one (thesis, eq. 3.12).

    .. math:: \lambda \leftarrow g\,\lambda + (1 - g)\,\delta, \qquad g = \operatorname{sigmoid}(a)
    """

    def __init__(self, n_features: int, size: int, generator: torch.Generator) -> None:
        super().__init__()
        self.delta = linear(n_features, size, generator)
        self.gate = linear(n_features, size, generator)

    def forward(self, features: Tensor, value: Tensor, gradient: Tensor) -> Tensor:
        """Return the new value, shaped as `value` (B, size); `features` are (B, n_features)."""
        gate = torch.sigmoid(self.gate(features))
        return gate * value + (1 - gate) * self.delta(features)


class Additive(nn.Module):
    r"""A change, added: :math:`\lambda \leftarrow \lambda + \delta`."""

    def __init__(self, n_features: int, size: int, generator: torch.Generator) -> None:
        super().__init__()
        self.delta = linear(n_features, size, generator)

    def forward(self, features: Tensor, value: Tensor, gradient: Tensor) -> Tensor:
        """Return the new value, shaped as `value` (B, size)."""
        change: Tensor = self.delta(features)
        return value + change


class LearnedStep(nn.Module):
    r"""A step along the gradient whose size is an output, and an offset.

    .. math:: \lambda \leftarrow \lambda - \operatorname{softplus}(a)\,\partial F/\partial\lambda
        + \delta

    The step starts small: an untrained network must not throw the estimate away.
    """

    def __init__(self, n_features: int, size: int, generator: torch.Generator) -> None:
        super().__init__()
        self.size = linear(n_features, size, generator)
        nn.init.constant_(self.size.bias, FIRST_STEP)
        self.delta = linear(n_features, size, generator)

    def forward(self, features: Tensor, value: Tensor, gradient: Tensor) -> Tensor:
        """Return the new value, shaped as `value` (B, size)."""
        return value - softplus(self.size(features)) * gradient + self.delta(features)


UPDATES: dict[str, type[Gated | Additive | LearnedStep]] = {
    "gated": Gated,
    "additive": Additive,
    "learned_step": LearnedStep,
}
