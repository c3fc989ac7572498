"""Networks with numbers of their own, in float64: what tests of predictive coding begin with."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

__all__ = ["Positive", "drawn", "filled", "hooked", "tensor"]


class Positive(nn.Linear):
    """A linear layer with a forward pass of its own."""

    def forward(self, x):
        return functional.linear(x, self.weight.abs(), self.bias)


def tensor(rng, *shape):
    """Return standard normal numbers."""
    return torch.from_numpy(rng.normal(size=shape))


def drawn(*shape, seed=0):
    """Return standard normal numbers of a seed."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def filled(module, rng, scale=0.4):
    """Give every parameter of a module normal numbers; return the module."""
    module = module.double()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(scale * tensor(rng, *parameter.shape))
    return module


def hooked(layer):
    """Double what a layer returns; return the layer."""
    layer.register_forward_hook(lambda _, __, output: 2.0 * output)
    return layer
