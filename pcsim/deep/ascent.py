"""Rules that turn gradients into steps, each number of each example on its own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

__all__ = ["RULES", "Adam", "Momentum", "Preconditioned", "RMSProp", "Rule"]

Tensors = tuple[Tensor, ...]


class Rule(Protocol):
    """A step from a gradient and a memory of earlier ones."""

    def start(self, parameters: Tensors) -> list[Tensors]:
        """Return the memory before the first step."""

    def change(
        self, gradient: Tensors, memory: list[Tensors], iteration: int, curvature: Tensors | None
    ) -> tuple[Tensors, list[Tensors]]:
        """Return what to subtract at step size 1, and the new memory; iterations count from 0."""


@dataclass(frozen=True)
class Momentum:
    r"""Steps that keep going: :math:`v \leftarrow \beta v + \nabla F`, subtract :math:`v`."""

    momentum: float = 0.9

    def start(self, parameters: Tensors) -> list[Tensors]:
        return [zeros(parameters)]

    def change(
        self, gradient: Tensors, memory: list[Tensors], iteration: int, curvature: Tensors | None
    ) -> tuple[Tensors, list[Tensors]]:
        (velocity,) = memory
        new = tuple(self.momentum * v + g for v, g in zip(velocity, gradient, strict=True))
        return new, [new]


@dataclass(frozen=True)
class RMSProp:
    r"""Steps over a running root mean square: :math:`\nabla F / (\sqrt{s} + \epsilon)`."""

    decay: float = 0.99
    epsilon: float = 1e-8

    def start(self, parameters: Tensors) -> list[Tensors]:
        return [zeros(parameters)]

    def change(
        self, gradient: Tensors, memory: list[Tensors], iteration: int, curvature: Tensors | None
    ) -> tuple[Tensors, list[Tensors]]:
        (square,) = memory
        new = running(square, tuple(g.square() for g in gradient), self.decay)
        pairs = zip(gradient, new, strict=True)
        return tuple(g / (s.sqrt() + self.epsilon) for g, s in pairs), [new]


@dataclass(frozen=True)
class Adam:
    """Kingma and Ba (2015), both running means corrected for their start at zero."""

    decay: float = 0.9
    decay_square: float = 0.999
    epsilon: float = 1e-8

    def start(self, parameters: Tensors) -> list[Tensors]:
        return [zeros(parameters), zeros(parameters)]

    def change(
        self, gradient: Tensors, memory: list[Tensors], iteration: int, curvature: Tensors | None
    ) -> tuple[Tensors, list[Tensors]]:
        first = running(memory[0], gradient, self.decay)
        second = running(memory[1], tuple(g.square() for g in gradient), self.decay_square)
        scale = 1 - self.decay ** (iteration + 1)
        scale_square = 1 - self.decay_square ** (iteration + 1)
        change = tuple(
            (m / scale) / ((s / scale_square).sqrt() + self.epsilon)
            for m, s in zip(first, second, strict=True)
        )
        return change, [first, second]


@dataclass(frozen=True)
class Preconditioned:
    r"""Steps over the diagonal of the Gauss-Newton curvature: :math:`\nabla F / h`."""

    halvings: int = 0
    """How often a step is halved at most, example by example, while it lowers the free energy too
    little; an example whose last try fails as well stays where it is. 0 takes every step."""

    def start(self, parameters: Tensors) -> list[Tensors]:
        return []

    def change(
        self, gradient: Tensors, memory: list[Tensors], iteration: int, curvature: Tensors | None
    ) -> tuple[Tensors, list[Tensors]]:
        assert curvature is not None
        return tuple(g / h for g, h in zip(gradient, curvature, strict=True)), []


RULES: dict[str, Rule] = {
    "gradient": Momentum(momentum=0.0),
    "momentum": Momentum(),
    "adam": Adam(),
    "rmsprop": RMSProp(),
    "preconditioned": Preconditioned(),
    "damped": Preconditioned(halvings=10),
}


def zeros(parameters: Tensors) -> Tensors:
    """Return zeros in the shapes of the parameters."""
    return tuple(torch.zeros_like(one) for one in parameters)


def running(mean: Tensors, new: Tensors, decay: float) -> Tensors:
    """Move a running mean towards new values."""
    return tuple(decay * m + (1 - decay) * n for m, n in zip(mean, new, strict=True))
