"""Proximal steps at precisions, local rules of even kernels, and losses that are not finite."""

from __future__ import annotations

import math

import pytest
import torch
from pc_cases import filled, tensor, weighed
from torch import nn

from pcsim.deep.pc_energy import BinaryCrossEntropy, CrossEntropy, SquaredError
from pcsim.deep.pc_inference import GradientDescent, infer
from pcsim.deep.pc_learning import (
    backprop_step,
    energy_gradients,
    local_gradients,
)
from pcsim.deep.pc_proximal import proximal_step
from pcsim.deep.pc_trace import predictive_coding


@pytest.mark.parametrize("precision", [0.7, 4.0, (0.7, 4.0, 2.5)])
def test_proximal_step_is_the_proximal_update_at_any_precision(rng, precision):
    # min over W of sum_i Pi_i |y_i - W_i x|^2 / 2 + |W - W_0|^2 / (2 rate), row by row.
    weigh = torch.tensor(precision).double()
    net = filled(nn.Sequential(nn.Linear(4, 3, bias=False)), rng)
    network = predictive_coding(net, output=SquaredError(weigh))
    x, y = tensor(rng, 1, 4), tensor(rng, 1, 3)
    before = net[0].weight.detach().clone()
    reach = 0.7 * weigh * x.square().sum()
    expected = before + ((reach / (1 + reach)) * (y - x @ before.T)).T @ x / x.square().sum()
    proximal_step(network, {"input": x, "output": y}, GradientDescent(), rate=0.7, epsilon=0.0)
    torch.testing.assert_close(net[0].weight.detach(), expected)
    proximal_step(network, {"input": x, "output": y}, GradientDescent(), rate=1e9, epsilon=0.0)
    torch.testing.assert_close(net(x).detach(), y, rtol=0, atol=1e-6)


def test_hidden_layer_meets_where_it_settled_at_any_precision(rng):
    net = filled(nn.Sequential(nn.Linear(4, 5, bias=False), nn.Tanh(), nn.Linear(5, 3)), rng)
    network = predictive_coding(
        net, cut="before_activation", energies={"_0": SquaredError(0.7)}, output=SquaredError(4.0)
    )
    x, y = tensor(rng, 1, 4), tensor(rng, 1, 3)
    before = net[0](x).detach()
    settled = proximal_step(
        network, {"input": x, "output": y}, GradientDescent(), rate=0.7, epsilon=0.0
    )
    assert float((settled.states["_0"] - before).abs().max()) > 0.01
    torch.testing.assert_close(net[0](x).detach(), settled.states["_0"])


@pytest.mark.parametrize("kind", [CrossEntropy, BinaryCrossEntropy])
def test_proximal_step_depends_on_weight_times_rate_alone(rng, kind):
    # F / w + |dW|^2 / (2 w rate) has its lowest point where F + |dW|^2 / (2 rate) has.
    x, y = tensor(rng, 6, 4), torch.softmax(tensor(rng, 6, 3), 1)
    start = [tensor(rng, 3, 4), tensor(rng, 3)]
    weights = []
    for weight, rate in ((4.0, 0.7), (0.7, 4.0)):
        net = nn.Sequential(nn.Linear(4, 3)).double()
        net[0].weight.data, net[0].bias.data = start[0].clone(), start[1].clone()
        network = predictive_coding(net, output=kind(weight))
        proximal_step(network, {"input": x, "output": y}, GradientDescent(), rate=rate)
        weights.append(net[0].weight.detach())
    assert float((weights[0] - start[0]).abs().max()) > 1e-3
    torch.testing.assert_close(weights[0], weights[1])


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths")
@pytest.mark.parametrize("kernel", [2, 3, 4, (2, 3)])
@pytest.mark.parametrize("dilation", [1, 3])
def test_local_rule_of_any_kernel_that_keeps_the_size(rng, kernel, dilation):
    layers = nn.Conv2d(2, 3, kernel, padding="same", dilation=dilation), nn.Tanh(), nn.Flatten()
    net = filled(nn.Sequential(*layers, nn.Linear(3 * 49, 2)), rng)
    network = weighed(net)
    clamp = {"input": tensor(rng, 3, 2, 7, 7), "output": tensor(rng, 3, 2)}
    states = infer(network, clamp, GradientDescent(n_steps=3, step=0.01)).states
    expected, found = energy_gradients(network, states), local_gradients(network, states)
    for name, gradient in expected.items():
        assert float(gradient.abs().max()) > 0, name
        torch.testing.assert_close(found[name], gradient, rtol=0, atol=1e-12, msg=name)


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths")
@pytest.mark.parametrize("rank", [1, 3])
def test_local_rule_of_even_kernels_in_other_ranks(rng, rank):
    convolution = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[rank - 1]
    net = filled(nn.Sequential(convolution(2, 3, 4, padding="same")), rng)
    network = predictive_coding(net, output=SquaredError(0.7))
    shape = (5,) * rank
    states = {"input": tensor(rng, 2, 2, *shape), "output": tensor(rng, 2, 3, *shape)}
    expected, found = energy_gradients(network, states), local_gradients(network, states)
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, rtol=0, atol=1e-12, msg=name)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("where", ["input", "target", "slope"])
def test_backprop_step_does_not_learn_from_what_is_not_finite(rng, bad, where):
    net = filled(nn.Sequential(nn.Linear(4, 6), nn.Softplus(), nn.Linear(6, 3)), rng)
    network = predictive_coding(net, output=SquaredError(4.0))
    optimiser = torch.optim.Adam(net.parameters(), 0.1)
    x, y = tensor(rng, 5, 4), tensor(rng, 5, 3)
    if where == "slope":
        net[0].weight.register_hook(lambda slope: slope * bad)
    else:
        (x if where == "input" else y)[2, 1] = bad
    before = [p.detach().clone() for p in net.parameters()]
    error, words = ValueError, rf"{where}.* NaN or infinite entries"
    if where == "slope":
        error, words = RuntimeError, r"not finite.*Lower the learning rate"
    with pytest.raises(error, match=words):
        backprop_step(network, {"input": x}, y, optimiser)
    assert not optimiser.state
    assert all(torch.equal(a, b) for a, b in zip(before, net.parameters(), strict=True))
