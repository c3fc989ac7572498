"""Weights that are frozen, made of others, shared or replaced: every path moves what it should."""

from __future__ import annotations

import importlib.util

import pytest
import torch
from pc_cases import Positive, filled, hooked, tensor, weighed
from torch import nn

from pcsim.deep.pc_chain import chain_of
from pcsim.deep.pc_energy import SquaredError
from pcsim.deep.pc_fast import PlainTrainer, path_for
from pcsim.deep.pc_inference import GradientDescent, infer
from pcsim.deep.pc_network import Node, PCNetwork
from pcsim.deep.pc_trace import predictive_coding

needs_numba = pytest.mark.skipif(
    importlib.util.find_spec("numba") is None, reason="numba is not installed"
)
PATHS = ["auto", "general", "fused", pytest.param("compiled", marks=needs_numba)]
METHOD = GradientDescent(n_steps=5, step=0.07)
RATE = 0.3


def layers(rng):
    net = nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 2))
    return filled(net, rng)


def taught(net, path, x, y, *, times=1):
    """Train, and hold every step to the derivative of the energy where the trainer settled."""
    network = weighed(net)
    trainer = PlainTrainer(network, METHOD, learning_rate=RATE, path=path)
    for _ in range(times):
        before = {name: p.detach().clone() for name, p in net.named_parameters()}
        wanted = [p for p in net.parameters() if p.requires_grad]
        clamp = {"input": x, "output": y}
        states = infer(network, clamp, METHOD, record=True).states
        slopes = torch.autograd.grad(network.energy(states).mean(), wanted)
        by_id = {id(p): slope for p, slope in zip(wanted, slopes, strict=True)}
        trainer(x, y)
        for name, p in net.named_parameters():
            if p.requires_grad:
                expected = before[name] - RATE * by_id[id(p)]
                assert float(by_id[id(p)].abs().max()) > 0, name
                torch.testing.assert_close(p.detach(), expected, rtol=0, atol=1e-12, msg=name)
            else:
                assert torch.equal(p, before[name]), name
    return trainer


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("frozen", ["0", "2.weight", "4.bias"])
def test_frozen_parameters_stay_on_every_path(rng, path, frozen):
    net, x, y = layers(rng), tensor(rng, 3, 4), tensor(rng, 3, 2)
    for name, parameter in net.named_parameters():
        parameter.requires_grad_(not name.startswith(frozen))
    trainer = taught(net, path, x, y, times=2)
    net.requires_grad_(False)
    before = [p.clone() for p in net.parameters()]
    trainer(x, y)
    assert all(torch.equal(a, b) for a, b in zip(before, net.parameters(), strict=True))


@pytest.mark.parametrize("path", ["auto", "general"])
def test_weights_made_of_others_learn_through_them(rng, path):
    net, x, y = layers(rng), tensor(rng, 3, 4), tensor(rng, 3, 2)
    nn.utils.parametrizations.weight_norm(net[0])
    taught(net, path, x, y, times=3)


def test_weights_that_become_made_of_others_are_noticed(rng):
    net, x, y = layers(rng), tensor(rng, 3, 4), tensor(rng, 3, 2)
    network = weighed(net)
    trainer = PlainTrainer(network, METHOD, learning_rate=RATE)
    trainer(x, y)
    nn.utils.parametrizations.weight_norm(net[2])
    before = net[2].weight.detach().clone()
    states = infer(network, {"input": x, "output": y}, METHOD, record=True).states
    scale = net[2].parametrizations.weight.original0
    start = scale.detach().clone()
    (slope,) = torch.autograd.grad(network.energy(states).mean(), scale)
    trainer(x, y)
    torch.testing.assert_close(scale.detach(), start - RATE * slope, rtol=0, atol=1e-12)
    assert not torch.equal(net[2].weight, before)


@pytest.mark.parametrize("path", ["fused", pytest.param("compiled", marks=needs_numba)])
def test_fast_paths_refuse_weights_made_of_others(rng, refused, path):
    net = layers(rng)
    network = predictive_coding(net)
    trainer = PlainTrainer(network, METHOD, learning_rate=RATE, path=path)
    nn.utils.parametrizations.weight_norm(net[0])
    assert "path='general'" in refused(trainer, tensor(rng, 3, 4), tensor(rng, 3, 2))
    assert "path='general'" in refused(PlainTrainer, network, METHOD, learning_rate=RATE, path=path)


@needs_numba
def test_weights_with_gaps_are_not_compiled(rng, refused):
    net, x, y = layers(rng), tensor(rng, 3, 4), tensor(rng, 3, 2)
    net[2].weight = nn.Parameter(net[2].weight.detach().T.contiguous().T)
    network = predictive_coding(net)
    words = refused(PlainTrainer, network, METHOD, learning_rate=RATE, path="compiled")
    assert "gaps" in words
    assert "path='fused'" in words
    assert path_for(network, METHOD, x) == "fused"
    taught(net, "auto", x, y)
    later = layers(rng)
    trainer = PlainTrainer(predictive_coding(later), METHOD, learning_rate=RATE, path="compiled")
    trainer(x, y)
    later[2].weight.data = later[2].weight.data.T
    assert "path='fused'" in refused(trainer, x, y)


@needs_numba
def test_half_precision_is_not_compiled(rng, refused):
    network = predictive_coding(layers(rng).bfloat16())
    words = refused(PlainTrainer, network, METHOD, learning_rate=RATE, path="compiled")
    assert "bfloat16" in words


@pytest.mark.parametrize("path", ["auto", "general", "fused"])
def test_a_weight_of_two_layers_learns_from_both(rng, path):
    net, x, y = layers(rng), tensor(rng, 3, 4), tensor(rng, 3, 2)
    net[2].weight = net[0].weight
    taught(net, path, x, y, times=2)


@pytest.mark.parametrize("path", PATHS)
def test_replaced_weights_learn(rng, path):
    net, x, y = layers(rng), tensor(rng, 3, 4), tensor(rng, 3, 2)
    network = weighed(net)
    trainer = PlainTrainer(network, METHOD, learning_rate=RATE, path=path)
    trainer(x, y)
    old, new = net[0].weight, nn.Parameter(tensor(rng, 4, 4))
    net[0].weight = new
    kept, start = old.detach().clone(), new.detach().clone()
    states = infer(network, {"input": x, "output": y}, METHOD, record=True).states
    (slope,) = torch.autograd.grad(network.energy(states).mean(), new)
    trainer(x, y)
    assert torch.equal(old, kept)
    torch.testing.assert_close(new.detach(), start - RATE * slope, rtol=0, atol=1e-12)


class Doubled(nn.Sequential):
    """A sequence with a forward pass of its own."""

    def forward(self, x):
        return 2.0 * super().forward(x)


@pytest.mark.parametrize(
    "hidden",
    [
        lambda: nn.Sequential(Positive(4, 4), nn.Tanh()),
        lambda: Doubled(nn.Linear(4, 4), nn.Tanh()),
        lambda: hooked(nn.Sequential(nn.Linear(4, 4), nn.Tanh())),
        lambda: nn.Sequential(nn.Linear(4, 4), hooked(nn.Tanh())),
    ],
)
def test_layers_that_compute_something_else_are_no_chain(rng, hidden):
    nodes = [
        Node("h", ("x",), hidden(), SquaredError(0.7)),
        Node("y", ("h",), nn.Linear(4, 2), SquaredError(4.0)),
    ]
    network = PCNetwork(["x"], nodes).double()
    assert chain_of(network) is None
    clamp = {"x": tensor(rng, 3, 4), "y": tensor(rng, 3, 2)}
    one, other = (infer(network, clamp, METHOD, record=record) for record in (False, True))
    torch.testing.assert_close(one.energy, other.energy, rtol=0, atol=1e-12)
    torch.testing.assert_close(one.energy, network.energy(one.states).detach(), rtol=0, atol=1e-12)
