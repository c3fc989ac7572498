"""Local rules are the slope of the energy, whatever a node's layers do besides."""

from __future__ import annotations

import warnings

import pytest
import torch
from pc_cases import Positive, filled, hooked, slopes_by_hand, tensor
from torch import nn

from pcsim.deep.pc_energy import SquaredError
from pcsim.deep.pc_inference import GradientDescent, infer
from pcsim.deep.pc_learning import energy_gradients, local_gradients
from pcsim.deep.pc_network import Node, PCNetwork


class Centred(nn.Conv2d):
    """A convolution with a pass of its own behind `forward`: weights without their mean."""

    def _conv_forward(self, x, weight, bias):
        return super()._conv_forward(x, weight - weight.mean((1, 2, 3), keepdim=True), bias)


class Attention(nn.Module):
    """Its last layer lends its weight and is never called."""

    def __init__(self):
        super().__init__()
        self.inner = nn.MultiheadAttention(4, 2, batch_first=True)

    def forward(self, x):
        return self.inner(x, x, x, need_weights=False)[0]


def weight_normed(layer):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return nn.utils.weight_norm(layer)


def conv():
    return nn.Conv2d(2, 3, 3)


IMAGES = {
    "inplace": lambda: (conv(), nn.ReLU(inplace=True), nn.Conv2d(3, 2, 1), nn.SiLU(inplace=True)),
    "weight_norm": lambda: (weight_normed(conv()), nn.Tanh()),
    "parametrized": lambda: (nn.utils.parametrizations.weight_norm(conv()), nn.Tanh()),
    "own pass": lambda: (Centred(2, 3, 3), nn.Tanh()),
    "hook": lambda: (hooked(conv()), nn.Tanh()),
    "circular": lambda: (nn.Conv2d(2, 3, 3, padding=1, padding_mode="circular"), nn.Tanh()),
}


def check(network, clamp):
    states = infer(network, clamp, GradientDescent(n_steps=4, step=0.03)).states
    slopes, local = energy_gradients(network, states), local_gradients(network, states)
    expected = slopes_by_hand(network, states)
    assert local.keys() == slopes.keys() == expected.keys()
    for name, gradient in expected.items():
        assert float(gradient.abs().max()) > 0, name
        for found in (slopes, local):
            torch.testing.assert_close(found[name], gradient, rtol=0, atol=1e-12, msg=name)


@pytest.mark.parametrize("kind", list(IMAGES))
def test_convolutions(rng, kind):
    first = nn.Sequential(*IMAGES[kind]())
    shape = first(torch.zeros(1, 2, 5, 5)).shape[1:]
    last = nn.Sequential(nn.Flatten(), nn.Linear(shape.numel(), 2))
    by_unit = SquaredError(torch.tensor([2.5, 4.0]))
    nodes = [Node("h", ("x",), first, SquaredError(0.7)), Node("y", ("h",), last, by_unit)]
    network = filled(PCNetwork(["x"], nodes), rng)
    check(network, {"x": tensor(rng, 3, 2, 5, 5), "y": tensor(rng, 3, 2)})


@pytest.mark.parametrize("kind", [Attention, lambda: Positive(4, 4)])
def test_sequences(rng, kind):
    last = nn.Sequential(nn.Linear(4, 3), nn.ReLU(inplace=True), nn.Linear(3, 3))
    by_unit = SquaredError(torch.tensor([2.5, 4.0, 1.6]))
    nodes = [Node("h", ("x",), kind(), SquaredError(0.7)), Node("y", ("h",), last, by_unit)]
    network = filled(PCNetwork(["x"], nodes), rng)
    check(network, {"x": tensor(rng, 2, 5, 4), "y": tensor(rng, 2, 5, 3)})
