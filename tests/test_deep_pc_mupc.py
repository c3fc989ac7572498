"""Depth parameterisation of any network: scales by place, sizes by theory, and the older way."""

from __future__ import annotations

import pytest
import torch
from pc_cases import slopes_by_hand, weighed
from torch import Tensor, nn

from pcsim.deep.pc_depth import Residual, residual_network
from pcsim.deep.pc_errors import ErrorOptimisation
from pcsim.deep.pc_inference import infer
from pcsim.deep.pc_learning import energy_gradients, local_gradients, train_step
from pcsim.deep.pc_mupc import mupc


def factor_of(layer, name="weight"):
    """Return what is used of a layer, over what is stored."""
    stored = layer.parametrizations[name].original
    with torch.no_grad():
        stored.fill_(1.0)
        return float(getattr(layer, name).flatten()[0])


def is_scaled(layer, expected, *, bias=1.0):
    found = factor_of(layer)
    other = factor_of(layer, "bias") if "bias" in layer.parametrizations else 1.0
    return found == pytest.approx(expected) and other == pytest.approx(bias)


class Block(nn.Module):
    """A branch of two convolutions beside a link, with its own layer where sizes change."""

    def __init__(self, below, above, stride=1):
        super().__init__()
        self.one = nn.Conv2d(below, above, 3, stride, padding=1)
        self.two = nn.Conv2d(above, above, 3, padding=1)
        self.link = nn.Identity() if below == above else nn.Conv2d(below, above, 1, stride)

    def forward(self, x: Tensor) -> Tensor:
        z = self.two(torch.relu(self.one(torch.relu(x))))
        z += self.link(x)
        return z


def test_residual_network_is_scaled_as_before():
    depth, width = 9, 16
    links = [Residual(nn.Sequential(nn.ReLU(), nn.Linear(width, width, bias=False)))
             for _ in range(depth - 2)]  # fmt: skip
    top = nn.Sequential(nn.ReLU(), nn.Linear(width, 3, bias=False))
    body = mupc(nn.Sequential(nn.Linear(5, width, bias=False), *links, top), depth=depth)
    older = residual_network(5, width, 3, depth=depth)
    x = torch.randn(7, 5, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(body(x), older(x))


def test_layers_are_scaled_by_their_place():
    body = nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1), Block(4, 4), Block(4, 8, 2), Block(8, 8), nn.Flatten(),
        nn.Linear(8 * 9, 5), nn.ReLU(), nn.Linear(5, 2),
    )  # fmt: skip
    mupc(body)
    assert is_scaled(body[0], 9**-0.5)
    for block, below, above in ((body[1], 4, 4), (body[2], 4, 8), (body[3], 8, 8)):
        assert is_scaled(block.one, (9 * below) ** -0.5)
        assert is_scaled(block.two, (9 * above * 3) ** -0.5, bias=3**-0.5)
    assert is_scaled(body[2].link, 4**-0.5)
    assert is_scaled(body[5], 72**-0.5)
    assert is_scaled(body[7], 1 / 5)


class Many(nn.Module):
    """A sum of three, two outputs, two inputs."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.c, self.d = (nn.Linear(4, 4, bias=False) for _ in range(4))
        self.up = nn.Bilinear(4, 4, 6, bias=False)
        self.right = nn.Linear(6, 2, bias=False)

    def forward(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        z = self.d(x)
        z = z + torch.tanh(self.a(z)) + self.b(torch.tanh(self.c(z)))
        up = self.up(z, y)
        return up.square(), self.right(up)


def test_sums_of_three_and_outputs_of_two():
    body = mupc(Many())
    assert is_scaled(body.a, (4 * 2) ** -0.5)
    assert is_scaled(body.b, (4 * 2) ** -0.5)
    assert is_scaled(body.c, 0.5)
    assert is_scaled(body.d, 0.5)
    assert is_scaled(body.up, 0.25)
    assert is_scaled(body.right, 1 / 6)

    class Alone(Many):
        def forward(self, x: Tensor) -> Tensor:
            for _ in range(2):
                x = x + torch.tanh(self.a(x)) + self.b(torch.tanh(self.c(x)))
            return self.right(self.up(x, x))

    body = mupc(Alone())
    assert is_scaled(body.a, (4 * 4) ** -0.5)  # two branches in each of two sums
    assert is_scaled(body.b, (4 * 4) ** -0.5)
    assert is_scaled(body.c, 0.5)
    assert is_scaled(body.up, 16**-0.5)


def test_links_around_links_add_to_one_stream():
    inner = nn.Sequential(*(Residual(nn.Linear(4, 4)) for _ in range(3)))
    mupc(nn.Sequential(Residual(inner), Residual(nn.Linear(4, 4)), nn.Linear(4, 1)))
    assert all(is_scaled(link.module, (4 * 4) ** -0.5, bias=0.5) for link in inner)


@pytest.mark.parametrize("depth", [1, 8, 64])
@pytest.mark.parametrize("kind", ["linear", "convolutional"])
def test_activities_have_the_size_that_sums_of_independent_terms_have(depth, kind):
    # Without an activation function, each sum adds 1/L of the stream's variance.
    make = {
        "linear": lambda: nn.Linear(256, 256),
        "convolutional": lambda: nn.Conv2d(16, 16, 3, padding=1, padding_mode="circular"),
    }[kind]
    links = nn.Sequential(*(Residual(make()) for _ in range(depth)))
    body = mupc(nn.Sequential(links, nn.Flatten(), nn.Linear(256, 4)))
    draw = torch.Generator().manual_seed(3)
    shape = (200, 256) if kind == "linear" else (200, 16, 4, 4)
    with torch.no_grad():
        size = float(body[0](torch.randn(shape, generator=draw)).square().mean())
    spread = 0.1 if kind == "linear" else 0.4  # 16 channels are few: about (2 L / 144 L)^(1/2)
    assert size == pytest.approx((1 + 1 / depth) ** depth, rel=spread)


def test_a_network_of_scaled_layers_learns_by_local_rules():
    draw = torch.Generator().manual_seed(2)
    body = nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1), *(Block(4, 4) for _ in range(20)), nn.Flatten(),
        nn.Linear(36, 2),
    ).double()  # fmt: skip
    network = weighed(mupc(body), cut="before_activation")
    clamp = {
        "input": torch.randn(6, 1, 3, 3, generator=draw, dtype=torch.float64),
        "output": torch.randn(6, 2, generator=draw, dtype=torch.float64),
    }
    method = ErrorOptimisation(n_steps=4, step="auto")
    states = infer(network, clamp, method).states
    slopes, local = energy_gradients(network, states), local_gradients(network, states)
    expected = slopes_by_hand(network, states)
    assert slopes.keys() == local.keys() == expected.keys()
    for name, slope in expected.items():
        torch.testing.assert_close(slopes[name], slope)
        torch.testing.assert_close(local[name], slope)
    # Without errors all that is left are the logarithms of the precisions.
    least = float(network.energy(network.feedforward({"input": clamp["input"]})).mean().detach())
    optimiser = torch.optim.Adam(network.parameters(), 0.01)
    energies = [float(train_step(network, clamp, method, optimiser).energy.mean()) - least
                for _ in range(30)]  # fmt: skip
    assert energies[-1] < 0.5 * energies[0]


def test_what_cannot_be_scaled_is_refused(refused):
    assert "no linear or convolutional layer" in refused(mupc, nn.Sequential(nn.ReLU()))
    body = mupc(nn.Sequential(nn.Linear(2, 2)))
    assert is_scaled(body[0], 0.5)
    assert "'0', parameterised already" in refused(mupc, body)
    assert "depth" in refused(mupc, nn.Linear(2, 2), depth=0)


def test_draws_leave_the_seed_alone_and_repeat():
    layers = [nn.ConvTranspose1d(4, 6, 4, stride=2, groups=2) for _ in range(2)]
    before = torch.get_rng_state()
    one, two = (mupc(nn.Sequential(layer)) for layer in layers)
    assert torch.equal(before, torch.get_rng_state())
    torch.testing.assert_close(one[0].weight, two[0].weight, rtol=0.0, atol=0.0)
    # Two channels and, at stride two, two of four positions reach each unit.
    assert factor_of(one[0]) == pytest.approx(1 / 4)


def test_a_branch_at_the_end_is_a_branch():
    body = mupc(nn.Sequential(nn.Linear(4, 4), Residual(nn.Linear(4, 4))))
    assert is_scaled(body[1].module, 0.5)
    assert is_scaled(body[0], 0.5)
