"""What a module may not do that becomes a predictive-coding network, and what it may."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn
from torch.nn import functional

from pcsim.deep.pc_energy import CrossEntropy, SquaredError
from pcsim.deep.pc_inference import GradientDescent, infer
from pcsim.deep.pc_trace import predictive_coding


class Pair(nn.Module):
    """Two layers, and whatever is done between them."""

    def __init__(self, between):
        super().__init__()
        self.first, self.second, self.between = nn.Linear(3, 4), nn.Linear(4, 2), between

    def forward(self, x):
        return self.second(self.between(self, self.first(x)))


def same_as_module(module, *x):
    with torch.no_grad():
        found, expected = predictive_coding(module)(*x), module(*x)
    return torch.equal(found, expected)


@pytest.mark.parametrize(
    ("between", "words"),
    [
        (lambda m, h: functional.dropout(h, 0.5, m.training), "'dropout'"),
        (lambda m, h: torch.dropout(h, 0.5, True), "'dropout'"),
        (lambda m, h: functional.alpha_dropout(h, training=True), "'alpha_dropout'"),
        (lambda m, h: h + torch.randn_like(h), "'randn_like'"),
        (lambda m, h: h + torch.randn(4), "numbers drawn in `forward`"),
        (lambda m, h: torch.bernoulli(h.sigmoid()), "'bernoulli'"),
        (lambda m, h: functional.rrelu(h, training=True), "'rrelu'"),
        (lambda m, h: functional.scaled_dot_product_attention(h, h, h, dropout_p=0.1), "attention"),
        (
            lambda m, h: functional.batch_norm(h, torch.zeros(4), torch.ones(4), training=True),
            "ties the examples",
        ),
    ],
)
def test_operations_that_draw_or_tie_examples_are_refused(between, words, refused):
    state = torch.get_rng_state()
    module = Pair(between)
    drawn = torch.get_rng_state()
    assert words in refused(predictive_coding, module)
    assert torch.equal(torch.get_rng_state(), drawn)
    torch.set_rng_state(state)


@pytest.mark.parametrize(
    "layer", [nn.RReLU(), nn.Dropout(0.5), nn.LSTM(3, 3, 2, dropout=0.5), nn.Embedding(4, 3)]
)
def test_modules_that_draw_or_take_whole_numbers_are_refused(layer, refused):
    assert type(layer).__name__ in refused(predictive_coding, nn.Sequential(nn.Linear(3, 3), layer))


@pytest.mark.parametrize(
    "between",
    [
        lambda m, h: functional.dropout(h, 0.5, False),
        lambda m, h: functional.dropout(h, p=0.0),
        lambda m, h: functional.rrelu(h),
        lambda m, h: functional.batch_norm(h, torch.zeros(4), torch.ones(4)),
        lambda m, h: h + torch.arange(4.0),
        lambda m, h: h.mul(2.0).add_(1.0),
    ],
)
def test_operations_without_chance_are_taken(between):
    assert same_as_module(Pair(between), torch.randn(5, 3))


class Residual(nn.Module):
    def __init__(self, inplace):
        super().__init__()
        self.a, self.c = nn.Linear(3, 4), nn.Linear(4, 2)
        self.b = nn.Sequential(nn.ReLU(inplace=inplace), nn.Linear(4, 4))

    def forward(self, x):
        h = self.a(x)
        return self.c(h + self.b(h))


def test_what_is_read_again_may_not_be_written_over(refused):
    assert same_as_module(Residual(False), torch.randn(5, 3))
    assert "writes over 'a', read elsewhere" in refused(predictive_coding, Residual(True))

    def twice(module, h):
        return h.mul_(2.0) + h

    assert "'mul_', which writes over" in refused(predictive_coding, Pair(twice))


class Query(nn.Module):
    """Adds to a prediction what depends on a parameter alone."""

    def __init__(self):
        super().__init__()
        self.a, self.f = nn.Linear(3, 4), nn.Linear(3, 4)
        self.query = nn.Parameter(torch.randn(1, 3))

    def forward(self, x):
        return self.a(x) + self.f(torch.tanh(self.query))


def test_what_depends_on_parameters_alone_is_no_activity():
    module, x = Query(), torch.randn(5, 3)
    network = predictive_coding(module, output=SquaredError(0.7))
    assert network.names == ("x", "output")
    assert same_as_module(module, x)
    settled = infer(network, {"x": x, "output": torch.zeros(5, 4)})
    expected = 0.5 * (0.7 * module(x).square() - math.log(0.7)).sum(1)
    torch.testing.assert_close(settled.energy, expected.detach())


class Defaults(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(3, 4), nn.Linear(4, 2)

    def forward(self, x, scale=2.0, mask=None, shifted=True):
        h = scale * self.a(x)
        if mask is not None:
            h = h * mask
        return self.b(h + 1.0 if shifted else h)


def test_arguments_keep_their_defaults():
    module, x = Defaults(), torch.randn(5, 3)
    network = predictive_coding(module)
    assert network.inputs == ("x",)
    assert same_as_module(module, x)
    infer(network, {"x": x, "output": torch.zeros(5, 2)}, GradientDescent(n_steps=3))


class HandsOn(nn.Module):
    def __init__(self):
        super().__init__()
        self.a = nn.Linear(3, 2)

    def forward(self, x):
        return x, self.a(x)


def test_an_input_that_is_returned_keeps_its_name():
    module, x = HandsOn(), torch.randn(5, 3)
    network = predictive_coding(module, output=SquaredError(2.0))
    assert network.inputs == ("x",)
    assert network.outputs == ("x", "output_1")
    for found, expected in zip(network(x), module(x), strict=True):
        assert torch.equal(found, expected)


def test_energies_of_unknown_nodes_or_given_twice_are_refused(refused):
    network = predictive_coding(nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)))
    assert "Did you mean 'output'" in refused(network.with_energy, "outptu", CrossEntropy())
    assert network.with_energy("output", CrossEntropy()).nodes["output"].energy.weight == 1.0
    both = {"energies": {"output": CrossEntropy()}, "output": CrossEntropy()}
    assert "Leave one out" in refused(predictive_coding, nn.Linear(3, 2), **both)
