r"""How an inference network's output changes the parameters of the approximate posterior."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from pcsim.deep.networks import linear, mixed

__all__ = ["UPDATES", "Additive", "Gated", "LearnedStep", "Memory"]

FIRST_STEP = -6.0
"""Softplus of it, 0.0025, is the size of a learned step before training."""
FIRST_WEIGHTS = 0.01
"""What initial weights are multiplied by where the output is a change of the estimate."""


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
        return mixed(self.delta(features), value, gate)


def near_zero(n_features: int, size: int, generator: torch.Generator) -> nn.Linear:
    """Return a layer that hardly answers before training.

    A change of ordinary size would be made at every iteration, and errors grow with the estimate:
    in two levels an untrained network would run off within five.
    """
    layer = linear(n_features, size, generator)
    with torch.no_grad():
        layer.weight.mul_(FIRST_WEIGHTS)
    return layer


class Additive(nn.Module):
    r"""A change, added: :math:`\lambda \leftarrow \lambda + \delta`; little before training."""

    def __init__(self, n_features: int, size: int, generator: torch.Generator) -> None:
        super().__init__()
        self.delta = near_zero(n_features, size, generator)

    def forward(self, features: Tensor, value: Tensor, gradient: Tensor) -> Tensor:
        """Return the new value, shaped as `value` (B, size)."""
        change: Tensor = self.delta(features)
        return value + change


class LearnedStep(nn.Module):
    r"""A step along the gradient whose size is an output, and an offset.

    .. math:: \lambda \leftarrow \lambda - \operatorname{softplus}(a)\,\partial F/\partial\lambda
        + \delta

    Step and offset start small: an untrained network must not throw the estimate away.
    """

    def __init__(self, n_features: int, size: int, generator: torch.Generator) -> None:
        super().__init__()
        self.size = near_zero(n_features, size, generator)
        nn.init.constant_(self.size.bias, FIRST_STEP)
        self.delta = near_zero(n_features, size, generator)

    def forward(self, features: Tensor, value: Tensor, gradient: Tensor) -> Tensor:
        """Return the new value, shaped as `value` (B, size)."""
        change: Tensor = self.delta(features) - softplus(self.size(features)) * gradient
        return value + change


UPDATES: dict[str, type[Gated | Additive | LearnedStep]] = {
    "gated": Gated,
    "additive": Additive,
    "learned_step": LearnedStep,
}


class Memory(nn.Module):
    r"""Features that remember earlier iterations (a gated recurrent unit, one gate a feature).

    .. math:: h \leftarrow u\,h + (1 - u)\tanh(V f + U(r\,h)), \qquad
        (u, r) = \operatorname{sigmoid}(A f + B h)
    """

    def __init__(self, size: int, generator: torch.Generator) -> None:
        super().__init__()
        self.gates = linear(2 * size, 2 * size, generator)
        self.new = linear(2 * size, size, generator)

    def forward(self, features: Tensor, state: Tensor | None) -> Tensor:
        """Return the new state (B, size), from the features and the old one; None is zero."""
        state = torch.zeros_like(features) if state is None else state
        gates = torch.sigmoid(self.gates(torch.cat([features, state], -1)))
        keep, reset = gates.chunk(2, -1)
        new = torch.tanh(self.new(torch.cat([features, reset * state], -1)))
        return mixed(new, state, keep)
