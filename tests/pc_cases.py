"""Networks with numbers of their own, in float64: what tests of predictive coding begin with."""

from __future__ import annotations

import torch

__all__ = ["filled", "tensor"]


def tensor(rng, *shape):
    """Return standard normal numbers."""
    return torch.from_numpy(rng.normal(size=shape))


def filled(module, rng, scale=0.4):
    """Give every parameter of a module normal numbers; return the module."""
    module = module.double()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(scale * tensor(rng, *parameter.shape))
    return module
