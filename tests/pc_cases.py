"""Networks with numbers of their own, in float64: what tests of predictive coding begin with."""

from __future__ import annotations

from itertools import cycle

import torch
from torch import nn
from torch.nn import functional

from pcsim.deep.pc_energy import SquaredError
from pcsim.deep.pc_trace import predictive_coding

__all__ = [
    "Positive",
    "drawn",
    "energy_by_hand",
    "filled",
    "hooked",
    "slopes_by_hand",
    "tensor",
    "weighed",
]


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


def weighed(module, *, cut="after_activation", last=4.0):
    """Return the network of a module at precisions that show a slip: hidden ones 0.7 and 2.5."""
    network, turns = predictive_coding(module, cut=cut), cycle((0.7, 2.5))
    for name in list(network.nodes):
        precision = last if name in network.outputs else next(turns)
        network = network.with_energy(name, SquaredError(precision))
    return network


def energy_by_hand(network, states):
    """Return what squared errors at a network's precisions cost each example, written out."""
    total = torch.zeros(())
    for name, node in network.nodes.items():
        error = states[name] - network.predict(name, states)
        precision = node.energy.precision
        terms = precision * error.square() - precision.log()
        total = total + 0.5 * terms.flatten(1).sum(1)
    return total


def slopes_by_hand(network, states):
    """Return the derivative of that energy, averaged over the batch, by every parameter."""
    names, parameters = zip(*network.named_parameters(), strict=True)
    energy = energy_by_hand(network, {name: state.detach() for name, state in states.items()})
    return dict(zip(names, torch.autograd.grad(energy.mean(), parameters), strict=True))


def hooked(layer):
    """Double what a layer returns; return the layer."""
    layer.register_forward_hook(lambda _, __, output: 2.0 * output)
    return layer
