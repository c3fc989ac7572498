r"""What the data level looks like given its parameters: Bernoulli, Gaussian, multinomial.

Each output has one interface. `parameters` is a tuple of tensors (..., n_x), `n_parameters` of them
predicted by the network, then those the model learns without a network (`shared_shape`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from pcsim.deep.gaussians import noise

__all__ = ["Bernoulli", "Gaussian", "Output"]

Parameters = tuple[Tensor, ...]


class Output(Protocol):
    """The distribution of the data given the parameters that a decoder predicts."""

    @property
    def n_parameters(self) -> int:
        """How many numbers a feature the network predicts."""

    def shared_shape(self, n_x: int) -> tuple[int, ...] | None:
        """Shape of the parameter that is learned but not predicted, if there is one."""

    def log_prob(self, x: Tensor, parameters: Parameters) -> Tensor:
        """Log probability of `x`, summed over features: (..., n_x) to (...)."""

    def mean(self, parameters: Parameters) -> Tensor:
        """Expectation of `x`, (..., n_x)."""

    def sample(self, parameters: Parameters, generator: torch.Generator | None) -> Tensor:
        """Draw one `x` for each set of parameters, (..., n_x)."""

    def weighted_error(self, x: Tensor, parameters: Parameters) -> Tensor:
        """Gradient of `log_prob` in the first parameter, (..., n_x)."""


@dataclass(frozen=True)
class Bernoulli:
    """Binary features; the parameter is the logit."""

    @property
    def n_parameters(self) -> int:
        return 1

    def shared_shape(self, n_x: int) -> tuple[int, ...] | None:
        return None

    def log_prob(self, x: Tensor, parameters: Parameters) -> Tensor:
        (logit,) = parameters
        return (x * logit - torch.nn.functional.softplus(logit)).sum(-1)

    def mean(self, parameters: Parameters) -> Tensor:
        return parameters[0].sigmoid()

    def sample(self, parameters: Parameters, generator: torch.Generator | None) -> Tensor:
        return torch.bernoulli(parameters[0].sigmoid(), generator=generator)

    def weighted_error(self, x: Tensor, parameters: Parameters) -> Tensor:
        return x - parameters[0].sigmoid()


@dataclass(frozen=True)
class Gaussian:
    """Real features with a fixed precision."""

    precision: float = 1.0

    @property
    def n_parameters(self) -> int:
        return 1

    def shared_shape(self, n_x: int) -> tuple[int, ...] | None:
        return None

    def log_prob(self, x: Tensor, parameters: Parameters) -> Tensor:
        each = self.precision * (x - parameters[0]).square()
        return -0.5 * (each + math.log(2 * math.pi / self.precision)).sum(-1)

    def mean(self, parameters: Parameters) -> Tensor:
        return parameters[0]

    def sample(self, parameters: Parameters, generator: torch.Generator | None) -> Tensor:
        mean = parameters[0]
        return mean + noise(mean.shape, mean, generator) / math.sqrt(self.precision)

    def weighted_error(self, x: Tensor, parameters: Parameters) -> Tensor:
        return self.precision * (x - parameters[0])
