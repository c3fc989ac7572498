"""Proximal steps of layers used at many positions or by many nodes: closed forms, and no rise."""

from __future__ import annotations

import math

import pytest
import torch
from pc_cases import filled, tensor, weighed
from torch import nn
from torch.nn import functional

from pcsim.deep.pc_clamp import Masked
from pcsim.deep.pc_energy import SquaredError
from pcsim.deep.pc_inference import GradientDescent, infer
from pcsim.deep.pc_learning import backprop_step
from pcsim.deep.pc_network import Node, PCNetwork
from pcsim.deep.pc_newton import Exact
from pcsim.deep.pc_proximal import proximal_step
from pcsim.deep.pc_trace import predictive_coding


def met(layer, x):
    """Return what enters a layer of one output with a bias, (positions, weights and bias)."""
    if isinstance(layer, nn.Linear):
        rows = x.flatten(0, -2)
    else:
        rows = functional.unfold(x, layer.kernel_size, stride=layer.stride, padding=layer.padding)
        rows = rows.transpose(1, 2).flatten(0, 1)
    return torch.cat([rows, torch.ones_like(rows[:, :1])], dim=1)


LAYERS = [
    (lambda: nn.Linear(3, 1), (7, 3)),
    (lambda: nn.Linear(3, 1), (2, 4, 3)),
    (lambda: nn.Conv2d(3, 1, 2), (3, 5, 6)),
    (lambda: nn.Conv2d(3, 1, 3, stride=2, padding=1), (3, 5, 6)),
]


@pytest.mark.parametrize(("make", "shape"), LAYERS)
@pytest.mark.parametrize("precision", [0.7, 4.0])
def test_one_pattern_at_all_positions_is_the_proximal_update(rng, make, shape, precision):
    # All positions see one pattern and have one error: the ridge regression is the exact minimum.
    layer, rate = filled(make(), rng), 0.7
    if not isinstance(layer, nn.Linear):
        layer.padding = (0, 0)
        x = tensor(rng, shape[0], 1, 1).expand(1, *shape).clone()
    else:
        x = tensor(rng, shape[-1]).expand(1, *shape).clone()
    network = PCNetwork(["x"], [Node("y", ("x",), layer, SquaredError(precision))])
    y = layer(x).detach() + 1.3
    rows = met(layer, x)
    start = torch.cat([layer.weight.detach().flatten(), layer.bias.detach()])
    ridge = precision * rows.T @ rows + torch.eye(len(start)).double() / rate
    change = torch.linalg.solve(ridge, precision * rows.T @ (1.3 * torch.ones(len(rows)).double()))
    proximal_step(network, {"x": x, "y": y}, GradientDescent(), rate=rate, epsilon=0.0)
    found = torch.cat([layer.weight.detach().flatten(), layer.bias.detach()])
    torch.testing.assert_close(found, start + change)


@pytest.mark.parametrize(("make", "shape"), LAYERS)
@pytest.mark.parametrize("rate", [0.07, 5.0, 1e6])
def test_what_a_proximal_update_lowers_never_rises(rng, make, shape, rate):
    # F averaged over the batch + |change|^2 / (2 rate); grey images have much in common.
    layer = filled(make(), rng)
    network = PCNetwork(["x"], [Node("y", ("x",), layer, SquaredError(4.0))])
    x = 0.5 + 0.3 * tensor(rng, 2, *shape)
    y = layer(x).detach() + 0.5 + 0.1 * tensor(rng, *layer(x).shape)
    states = {"x": x, "y": y}
    before, start = (
        network.energy(states).mean().detach(),
        [p.detach().clone() for p in layer.parameters()],
    )
    proximal_step(network, states, GradientDescent(), rate=rate, epsilon=0.0)
    paid = sum((p - q).square().sum() for p, q in zip(layer.parameters(), start, strict=True))
    after, paid = network.energy(states).mean().detach(), paid.detach()
    assert float(after) < float(before)
    assert float(after + paid / (2 * rate)) <= float(before)


@pytest.mark.parametrize("conv", [(4, {}), (4, {"groups": 2}), (2, {"dilation": 2, "padding": 1})])
def test_hidden_convolutions_come_nearer_to_where_they_settled(rng, conv):
    channels, options = conv
    net = nn.Sequential(
        nn.Conv2d(2, channels, 2, **options), nn.Tanh(), nn.Flatten(), nn.LazyLinear(2)
    )
    net(torch.zeros(1, 2, 5, 5))
    network = weighed(filled(net, rng), cut="before_activation")
    x, y = 0.5 + 0.3 * tensor(rng, 3, 2, 5, 5), tensor(rng, 3, 2)
    settled = proximal_step(network, {"input": x, "output": y}, GradientDescent(), rate=3.0)
    assert float(network.energy(settled.states).sum().detach()) < float(settled.energy.sum())


def test_groups_of_one_pattern_meet_the_target_in_the_limit(rng):
    layer = filled(nn.Conv2d(2, 2, 2, groups=2, bias=False), rng)
    network = PCNetwork(["x"], [Node("y", ("x",), layer, SquaredError(4.0))])
    x = torch.full((1, 2, 4, 4), 0.6).double()
    x[:, 1] *= -1
    y = layer(x).detach() + torch.tensor([1.3, -0.4]).double()[:, None, None]
    proximal_step(network, {"x": x, "y": y}, GradientDescent(), rate=1e12, epsilon=0.0)
    torch.testing.assert_close(layer(x).detach(), y, rtol=0, atol=1e-9)


@pytest.mark.parametrize("y_last", [True, False])
def test_the_share_is_of_the_output_wherever_it_stands(rng, y_last):
    layer, other = (filled(nn.Linear(3, 2, bias=False), rng) for _ in range(2))
    node = Node("y", ("x",), layer, SquaredError(4.0))
    beside = Node("v", ("x",), nn.Sequential(nn.Sigmoid(), other))
    network = PCNetwork(["x"], [beside, node] if y_last else [node, beside], outputs=["y"])
    x, y, v = tensor(rng, 1, 3), tensor(rng, 1, 2), tensor(rng, 1, 2)
    before = layer.weight.detach().clone()
    reach = 0.7 * 4.0 * x.square().sum()
    expected = before + reach / (1 + reach) * (y - x @ before.T).T @ x / x.square().sum()
    clamp = {"x": x, "y": y, "v": v}
    proximal_step(network, clamp, GradientDescent(), rate=0.7, epsilon=0.0)
    torch.testing.assert_close(layer.weight.detach(), expected)


def test_a_layer_of_two_nodes_is_divided_by_both_norms(rng):
    # Inputs of one direction and one error: the ridge regression over both is exact.
    layer = filled(nn.Linear(3, 2, bias=False), rng)
    nodes = [Node("h", ("u",), layer), Node("y", ("x",), layer)]
    network = PCNetwork(["u", "x"], nodes, outputs=["y"])
    direction, error = tensor(rng, 1, 3), tensor(rng, 1, 2)
    u, x = 3.0 * direction, 0.5 * direction
    before = layer.weight.detach().clone()
    h, y = u @ before.T + 3.0 * error, x @ before.T + 0.5 * error
    clamp = {"u": u, "x": x, "h": h, "y": y}
    proximal_step(network, clamp, GradientDescent(), rate=1e12, epsilon=0.0)
    expected = before + error.T @ direction / direction.square().sum()
    torch.testing.assert_close(layer.weight.detach(), expected)


@pytest.mark.parametrize("precision", [4.0, (0.7, 4.0, 2.5)])
def test_what_settles_feels_only_a_share_of_the_output(rng, precision):
    # Linear and one example: where (z - V x) .7 = W' S P (y - W z), in closed form.
    net = filled(nn.Sequential(nn.Linear(4, 5, bias=False), nn.Linear(5, 3, bias=False)), rng)
    weigh = torch.tensor(precision).double()
    network = predictive_coding(net, energies={"_0": SquaredError(0.7)}, output=SquaredError(weigh))
    x, y = tensor(rng, 1, 4), tensor(rng, 1, 3)
    v, w = (layer.weight.detach().clone() for layer in net)
    reach = 0.3 * weigh * ((x @ v.T).square().sum() + 0.1)
    share = (reach / (1 + reach)).expand(3)
    pull = w.T @ torch.diag(share * weigh)
    matrix = 0.7 * torch.eye(5).double() + pull @ w
    z = torch.linalg.solve(matrix, 0.7 * v @ x[0] + pull @ y[0])
    settled = proximal_step(network, {"input": x, "output": y}, Exact(), rate=0.3, epsilon=0.1)
    torch.testing.assert_close(settled.states["_0"][0], z)
    torch.testing.assert_close(settled.states["output"], y)
    moved = (z - v @ x[0])[:, None] * x / (x.square().sum() + 0.1)
    torch.testing.assert_close(net[0].weight.detach() - v, moved)
    moved = (share * (y[0] - w @ z))[:, None] * z / (z.square().sum() + 0.1)
    torch.testing.assert_close(net[1].weight.detach() - w, moved)
    missed = 0.7 * (z - v @ x[0]).square().sum() + (weigh * (y[0] - w @ z).square()).sum()
    constant = 5 * math.log(0.7) + weigh.log().expand(3).sum()
    torch.testing.assert_close(settled.energy[0], 0.5 * (missed - constant))


@pytest.mark.parametrize("learnable", [False, True])
def test_a_proximal_step_that_diverges_leaves_the_network_as_it_was(rng, learnable):
    energy = SquaredError(4.0, learnable=learnable)
    net = filled(nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3)), rng)
    network = predictive_coding(net, output=energy).double()
    clamp = {"input": tensor(rng, 2, 4), "output": tensor(rng, 2, 3)}
    before = {name: value.clone() for name, value in network.state_dict().items()}
    start = infer(network, clamp, GradientDescent(n_steps=0)).energy
    with pytest.raises(RuntimeError, match="not finite"):
        proximal_step(network, clamp, GradientDescent(n_steps=500, step=1e9), rate=1.0)
    assert network.nodes["output"].energy is energy
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    torch.testing.assert_close(infer(network, clamp, GradientDescent(n_steps=0)).energy, start)
    proximal_step(network, clamp, GradientDescent(), rate=1.0)
    kept = [name for name, old in before.items() if torch.equal(network.state_dict()[name], old)]
    assert kept == [name for name in before if "log_precision" in name]


def test_proximal_refuses_what_has_no_norm(rng, refused):
    network = predictive_coding(filled(nn.Sequential(nn.Linear(4, 3)), rng))
    x, y = tensor(rng, 2, 4), tensor(rng, 2, 3)
    masked = Masked(x, torch.tensor([True, False, True, True]))
    clamp = {"input": masked, "output": y}
    assert "whole inputs" in refused(proximal_step, network, clamp, GradientDescent(), rate=1.0)
    bare = PCNetwork(["x"], [Node("y", ("x",), nn.Tanh())])
    words = refused(proximal_step, bare, {"x": x, "y": x}, GradientDescent(), rate=1.0)
    assert "local rule" in words


def test_backprop_checks_the_target_and_what_can_learn(rng, refused):
    net = filled(nn.Sequential(nn.Linear(3, 1)), rng)
    network, optimiser = predictive_coding(net), torch.optim.SGD(net.parameters(), 0.1)
    x, y = tensor(rng, 64, 3), tensor(rng, 64)
    before = net[0].weight.detach().clone()
    assert "(64, 1)" in refused(backprop_step, network, {"input": x}, y, optimiser)
    assert torch.equal(net[0].weight, before)
    net.requires_grad_(False)
    assert "Unfreeze" in refused(backprop_step, network, {"input": x}, y[:, None], optimiser)
