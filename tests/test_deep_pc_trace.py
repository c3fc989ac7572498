"""Where a traced module is cut, and what of it stays what it was."""

from __future__ import annotations

import pytest
import torch
from pc_cases import drawn, energy_by_hand, slopes_by_hand, weighed
from torch import Tensor, nn
from torch.nn import functional

from pcsim.deep.pc_gradients import energy_gradients, local_gradients
from pcsim.deep.pc_inference import GradientDescent, infer
from pcsim.deep.pc_mupc import mupc
from pcsim.deep.pc_newton import GaussNewton
from pcsim.deep.pc_trace import predictive_coding


def settled(network, x, y):
    """Return energies where the network settles, and shapes and sizes of gradients there."""
    found = infer(network, {network.inputs[0]: x, "output": y}, GaussNewton(n_steps=200, tol=1e-12))
    slopes, by_hand = energy_gradients(network, found.states), slopes_by_hand(network, found.states)
    for name, slope in by_hand.items():
        torch.testing.assert_close(slopes[name], slope)
    torch.testing.assert_close(found.energy, energy_by_hand(network, found.states).detach())
    return found.energy, sorted((tuple(s.shape), float(s.square().sum())) for s in slopes.values())


def test_what_inputs_give_without_parameters_is_held_with_them():
    core = nn.Sequential(nn.Linear(16, 8), nn.Tanh(), nn.Linear(8, 3)).double()
    x, y = drawn(5, 4, 4), drawn(5, 3, seed=1)
    plain = settled(weighed(core), x.flatten(1), y)
    for first in (nn.Flatten(), nn.Sequential(nn.Flatten(), nn.Identity())):
        network = weighed(nn.Sequential(first, *core))
        assert [name for name in network.names if name.startswith("_0")] == []
        found = settled(network, x, y)
        torch.testing.assert_close(found[0], plain[0])
        for (shape, size), (other, expected) in zip(found[1], plain[1], strict=True):
            assert shape == other
            assert size == pytest.approx(expected, rel=1e-6)


class Recurrent(nn.Module):
    """Three steps from a state of zeros."""

    def __init__(self, begins):
        super().__init__()
        self.begins = begins
        self.i, self.h, self.o = nn.Linear(2, 4), nn.Linear(4, 4), nn.Linear(4, 1)

    def forward(self, x: Tensor) -> Tensor:
        h = self.begins(x)
        for t in range(3):
            h = torch.tanh(self.i(x[:, t]) + self.h(h))
        return self.o(h)


@pytest.mark.parametrize(
    "begins",
    [
        lambda x: x.new_zeros(x.size(0), 4),
        lambda x: torch.zeros_like(x).sum(1)[:, :1].expand(x.shape[0], 4),
        lambda x: x.new_zeros(1, 4).type_as(x),
    ],
)
def test_states_of_zeros_and_parts_of_inputs_are_no_activities(begins):
    network = predictive_coding(Recurrent(begins).double())
    assert network.names == ("x", "tanh", "tanh_1", "tanh_2", "output")
    x = drawn(6, 3, 2)
    torch.testing.assert_close(network(x), network.body(x))


class Buffered(nn.Module):
    """A layer behind a normalization and a mask that are computed from buffers."""

    def __init__(self, seed):
        super().__init__()
        self.register_buffer("scale", 0.5 + drawn(3, seed=seed).abs())
        self.register_buffer("mask", (drawn(3, 3, seed=seed) > 0).double())
        self.layer = nn.Linear(3, 2).double()

    def forward(self, x: Tensor) -> Tensor:
        return self.layer((x / (self.scale + 0.1)) @ self.mask.t()[: x.size(1)])


def test_buffers_are_read_when_predictions_are_made():
    body = Buffered(1)
    network, x = predictive_coding(body), drawn(4, 3)
    torch.testing.assert_close(network(x), body(x))
    body.load_state_dict(Buffered(2).state_dict())
    torch.testing.assert_close(network(x), body(x))
    network.float()
    torch.testing.assert_close(network(x.float()), body(x.float()))
    assert set(body.state_dict()) == set(Buffered(1).state_dict())


def test_a_module_that_counts_its_calls_is_refused(refused):
    class Counting(nn.Linear):
        def __init__(self):
            super().__init__(2, 2)
            self.register_buffer("n", torch.zeros(()))

        def forward(self, x: Tensor) -> Tensor:
            self.n += 1
            return functional.linear(x, self.weight)

    body = Counting()
    assert "writes to its buffers ['n']" in refused(predictive_coding, body)
    assert float(body.n) == 0.0


def test_attention_and_transformer_layers_are_layers():
    def layer():
        return nn.TransformerEncoderLayer(4, 2, 8, dropout=0.0, batch_first=True)

    body = nn.Sequential(nn.Linear(3, 4), layer(), layer(), nn.Linear(4, 2)).double()
    network = weighed(body, last=torch.tensor([0.7, 4.0]).double())
    assert network.names == ("input", "_0", "_1", "_2", "output")
    x = drawn(5, 6, 3)
    torch.testing.assert_close(network(x), body(x))
    clamp = {"input": x, "output": drawn(5, 6, 2, seed=1)}
    states = infer(network, clamp, GradientDescent(n_steps=3, step=0.03)).states
    slopes, local = energy_gradients(network, states), local_gradients(network, states)
    for name, slope in slopes_by_hand(network, states).items():
        torch.testing.assert_close(slopes[name], slope)
        torch.testing.assert_close(local[name], slope)


class Embedded(nn.Module):
    """Residual branches on an embedding with learned places, as many as the input is long."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Linear(3, 4)
        self.place = nn.Parameter(torch.zeros(1, 10, 4))
        self.branches = nn.ModuleList(nn.Linear(4, 4) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        z = self.embed(x) + self.place[:, : x.size(1)]
        for branch in self.branches:
            z = z + branch(torch.relu(z))
        return z


def test_an_embedding_beside_places_is_no_branch():
    body = mupc(Embedded())
    assert body.embed.parametrizations["weight"][0].factor == pytest.approx(3**-0.5)
    for branch in body.branches:
        assert branch.parametrizations["weight"][0].factor == pytest.approx((4 * 4) ** -0.5)


def test_cuts_are_named_as_nodes_are(refused):
    words = refused(predictive_coding, nn.Sequential(nn.Linear(2, 2)), cut=["nowhere"])
    assert "'input'" in words
    assert "'input_1'" not in words
    network = predictive_coding(nn.Sequential(nn.Linear(2, 2)))
    assert "Scale the module" in refused(mupc, network)
