"""Stacked networks against the general ones: same activities, same slopes, same optimiser."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from pcsim.deep.pc_descent import GradientDescent
from pcsim.deep.pc_energy import CrossEntropy, SquaredError
from pcsim.deep.pc_inference import infer
from pcsim.deep.pc_learning import energy_gradients
from pcsim.deep.pc_replicas import (
    ReplicaAdam,
    Replicas,
    Settling,
    backprop_gradients,
    descend,
    local_gradients,
    make_replicas,
    norms,
    settle,
)
from pcsim.deep.pc_trace import predictive_coding

SIZES = [5, 4, 3, 2]
LAYERS = {
    "linear": nn.Identity,
    "sigmoid": nn.Sigmoid,
    "tanh": nn.Tanh,
    "relu": nn.ReLU,
    "leaky_relu": nn.LeakyReLU,
}


def stacked(activation: str, loss: str = "squared", *, bias: bool = True) -> Replicas:
    """Return two float64 networks."""
    net = make_replicas(SIZES, [3, 4], activation=activation, loss=loss, init="default", bias=bias)
    weights, biases = ([one.double() for one in many] for many in (net.weights, net.biases))
    return Replicas(weights, biases, activation, loss)


def module(net: Replicas, replica: int) -> nn.Sequential:
    """Return one of them as a torch module."""
    layers: list[nn.Module] = []
    for k, weights in enumerate(net.weights):
        linear = nn.Linear(weights.shape[2], weights.shape[1], bias=bool(net.biases)).double()
        linear.weight.data.copy_(weights[replica])
        if net.biases:
            linear.bias.data.copy_(net.biases[k][replica, 0])
        layers += [linear, LAYERS[net.activation]()]
    return nn.Sequential(*layers[:-1])


@pytest.fixture
def batch(rng):
    x = torch.as_tensor(rng.normal(size=(2, 6, 5)))
    return x, torch.eye(2, dtype=torch.float64)[torch.as_tensor(rng.integers(2, size=(2, 6)))]


@pytest.mark.parametrize("loss", ["squared", "cross_entropy"])
@pytest.mark.parametrize("activation", list(LAYERS))
def test_settling_and_slopes_are_those_of_the_general_network(activation, loss, batch):
    net, (x, y) = stacked(activation, loss), batch
    # A long step, so that the discount has something to do in at least one replica.
    z = settle(net, x, y, Settling(n_steps=15, step=0.4, discount=0.5))
    found = local_gradients(net, x, y, z)
    energy = SquaredError() if loss == "squared" else CrossEntropy()
    for replica in range(2):
        general = predictive_coding(module(net, replica), cut="before_activation", output=energy)
        method = GradientDescent(n_steps=15, step=0.4, discount=0.5)
        settled = infer(general, {"input": x[replica], "output": y[replica]}, method)
        for mine, name in zip(z, list(general.nodes)[:-1], strict=True):
            torch.testing.assert_close(mine[replica], settled.states[name], rtol=0, atol=1e-12)
        slopes = [6 * one for one in energy_gradients(general, settled.states).values()]
        mine = [one[replica].squeeze(0) for k in range(3) for one in (found[k], found[3 + k])]
        for a, b in zip(mine, slopes, strict=True):
            torch.testing.assert_close(a, b, rtol=0, atol=1e-12)


@pytest.mark.parametrize("loss", ["squared", "cross_entropy"])
@pytest.mark.parametrize("activation", list(LAYERS))
def test_backprop_is_autograd(activation, loss, batch):
    net, (x, y) = stacked(activation, loss), batch
    for one in net.parameters:
        one.requires_grad_()
    total = net.output_loss(y, net.forward(x)[-1]).sum()
    expected = torch.autograd.grad(total, net.parameters)
    for a, b in zip(backprop_gradients(net, x, y), expected, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-12)


def test_own_transpose_as_feedback_changes_nothing_and_another_does(batch, rng):
    net, (x, y) = stacked("tanh", bias=False), batch
    plain = settle(net, x, y, Settling(n_steps=5))
    same = settle(net, x, y, Settling(n_steps=5), feedback=net.weights[1:])
    random = [torch.as_tensor(rng.normal(size=tuple(w.shape))) for w in net.weights[1:]]
    other = settle(net, x, y, Settling(n_steps=5), feedback=random)
    assert all(torch.equal(a, b) for a, b in zip(plain, same, strict=True))
    assert not torch.allclose(plain[0], other[0])


def test_one_layer_has_nothing_to_settle(batch):
    x, y = batch
    net = Replicas([torch.zeros(2, 2, 5, dtype=torch.float64)], [])
    z = settle(net, x, y, Settling(discount=0.5))
    assert z == []
    torch.testing.assert_close(local_gradients(net, x, y, z), backprop_gradients(net, x, y))


def test_adam_and_descent_are_those_of_torch(batch):
    x, y = batch
    rates = torch.tensor([0.03, 0.7], dtype=torch.float64)
    for kind, make in ((torch.optim.Adam, ReplicaAdam), (torch.optim.SGD, None)):
        net = stacked("tanh")
        copies = [
            [one[replica].clone().requires_grad_() for one in net.parameters] for replica in (0, 1)
        ]
        peers = [kind(copy, lr=float(rate)) for copy, rate in zip(copies, rates, strict=True)]
        adam = make(net, rates) if make else None
        for _ in range(4):
            slopes = backprop_gradients(net, x, y)
            adam.step(slopes) if adam else descend(net, slopes, rates)
            for replica, peer in enumerate(peers):
                for parameter, slope in zip(copies[replica], slopes, strict=True):
                    parameter.grad = slope[replica]
                peer.step()
        for replica, copy in enumerate(copies):
            for a, b in zip(net.parameters, copy, strict=True):
                torch.testing.assert_close(a[replica], b.detach(), rtol=0, atol=1e-12)


def test_norms_count_the_bias_as_an_input(batch):
    x, _ = batch
    expected = x.square().sum(2).mean(1) + 0.7
    torch.testing.assert_close(norms(stacked("relu"), x, [], 0.7)[0][:, 0, 0], expected + 1)
    torch.testing.assert_close(norms(stacked("relu", bias=False), x, [], 0.7)[0][:, 0, 0], expected)


def test_a_wrong_description_is_refused():
    with pytest.raises(ValueError, match=r"expected one of .*Did you mean 'sigmoid'"):
        make_replicas([2, 1], [0], activation="sigmoidal")
    with pytest.raises(ValueError, match="at least input and output"):
        make_replicas([2], [0])
