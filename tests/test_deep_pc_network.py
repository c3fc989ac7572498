"""From a module to a predictive-coding network: graph, energies, clamps and what is refused."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from pc_cases import tensor
from torch import nn

from pcsim.deep.pc_clamp import Masked, pose
from pcsim.deep.pc_energy import BinaryCrossEntropy, CrossEntropy, SquaredError
from pcsim.deep.pc_inference import GradientDescent, infer
from pcsim.deep.pc_network import Node, PCNetwork, Prior
from pcsim.deep.pc_trace import predictive_coding

CUTS = ("after_activation", "before_activation")


class Forked(nn.Module):
    """A convolution, a residual block and two heads."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(1, 4, 3, padding=1)
        self.inner = nn.Conv2d(4, 4, 3, padding=1)
        self.outer = nn.Conv2d(4, 4, 3, padding=1)
        self.label, self.side = nn.Linear(64, 3), nn.Linear(64, 2)

    def forward(self, x):
        h = torch.relu(self.stem(x))
        h = (h + self.outer(torch.tanh(self.inner(h)))).flatten(1)
        return self.label(h), self.side(h)


def filled(module, rng):
    """Give every parameter numbers of its own, in float64."""
    module = module.double()
    with torch.no_grad():
        for parameter in module.parameters():
            scale = 1 / np.sqrt(max(parameter[0].numel(), 1))
            parameter.copy_(torch.from_numpy(rng.normal(size=parameter.shape) * scale))
    return module


def mlp(rng, act=nn.Tanh):
    return filled(
        nn.Sequential(nn.Linear(4, 6), act(), nn.Linear(6, 5), act(), nn.Linear(5, 3)), rng
    )


@pytest.mark.parametrize("cut", CUTS)
def test_feedforward_pass_is_the_module(rng, cut):
    plain, forked = mlp(rng), filled(Forked(), rng)
    x, image = tensor(rng, 7, 4), tensor(rng, 2, 1, 4, 4)
    assert torch.equal(predictive_coding(plain, cut=cut)(x), plain(x))
    for found, expected in zip(
        predictive_coding(forked, cut=cut)(image), forked(image), strict=True
    ):
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("cut", CUTS)
def test_energy_is_zero_at_the_feedforward_pass(rng, cut):
    network = predictive_coding(filled(Forked(), rng), cut=cut)
    states = network.feedforward({"x": tensor(rng, 2, 1, 4, 4)})
    assert float(network.energy(states).detach().abs().max()) < 1e-25


def test_cuts_lie_where_they_are_asked_for(rng):
    net = mlp(rng)
    states = {"input": tensor(rng, 2, 4), "_1": tensor(rng, 2, 6)}
    after = predictive_coding(net).predict("_1", states)
    torch.testing.assert_close(after, torch.tanh(net[0](states["input"])))
    before = predictive_coding(net, cut="before_activation")
    prediction = before.predict("_2", {"_0": states["_1"]})
    torch.testing.assert_close(prediction, net[2](torch.tanh(states["_1"])))
    assert predictive_coding(net, cut=["2"]).names == ("input", "_2", "output")
    residual = predictive_coding(Forked(), cut="before_activation")
    assert "add" in residual.nodes
    assert residual.nodes["add"].parents == ("stem", "inner")


def test_parameters_are_shared_and_the_copy_is_independent(rng):
    net = mlp(rng)
    network = predictive_coding(net)
    assert {id(p) for p in network.parameters()} == {id(p) for p in net.parameters()}
    twin = copy.deepcopy(network)
    with torch.no_grad():
        net[0].weight.zero_()
    x = tensor(rng, 2, 4)
    assert torch.equal(network(x), net(x))
    assert not torch.equal(twin(x), net(x))


ENERGIES = [
    SquaredError(4.0),
    SquaredError(torch.tensor([0.7, 4.0, 2.0], dtype=torch.float64), learnable=True),
    CrossEntropy(0.7),
    BinaryCrossEntropy(0.7),
]


@pytest.mark.parametrize("energy", ENERGIES)
def test_weighted_error_and_curvature_are_derivatives(rng, energy):
    energy = energy.double()
    # Targets that do not sum to 1, so that their sum is seen.
    state, direction = 1.7 * torch.softmax(tensor(rng, 2, 3), 1), tensor(rng, 2, 3)
    prediction = tensor(rng, 2, 3).requires_grad_()
    total = energy(state, prediction).sum()
    (slope,) = torch.autograd.grad(total, prediction, create_graph=True)
    torch.testing.assert_close(energy.weighted_error(state, prediction), -slope)
    if slope.requires_grad:
        (bent,) = torch.autograd.grad(slope, prediction, direction)
        torch.testing.assert_close(energy.curvature(direction, prediction, state), bent)


@pytest.mark.parametrize("energy", ENERGIES)
def test_a_scaled_energy_has_scaled_slopes_and_leaves_the_first_alone(rng, energy):
    energy = energy.double()
    state, prediction = torch.softmax(tensor(rng, 2, 3), 1), tensor(rng, 2, 3).requires_grad_()
    (slope,) = torch.autograd.grad(energy(state, prediction).sum(), prediction)
    (scaled,) = torch.autograd.grad(energy.scaled(0.3)(state, prediction).sum(), prediction)
    torch.testing.assert_close(scaled, 0.3 * slope)
    (again,) = torch.autograd.grad(energy(state, prediction).sum(), prediction)
    assert torch.equal(again, slope)
    assert not list(energy.scaled(0.3).parameters())


def test_energies_are_densities(rng):
    state, prediction = torch.rand(5, 3).double(), tensor(rng, 5, 3)
    precision = torch.tensor([0.7, 4.0, 2.0]).double()
    normal = torch.distributions.Normal(prediction, precision**-0.5)
    constant = 1.5 * np.log(2 * np.pi)
    found = SquaredError(precision)(state, prediction) + constant
    torch.testing.assert_close(found, -normal.log_prob(state).sum(1))
    coin = torch.distributions.Bernoulli(logits=prediction, validate_args=False)
    torch.testing.assert_close(
        BinaryCrossEntropy()(state, prediction), -coin.log_prob(state).sum(1)
    )
    label = torch.tensor([0, 2, 1, 1, 0])
    one_hot = nn.functional.one_hot(label).double()
    expected = nn.functional.cross_entropy(prediction, label, reduction="none")
    torch.testing.assert_close(CrossEntropy()(one_hot, prediction), expected)


def test_prior_of_a_root_pulls_and_may_learn(rng):
    w, y = tensor(rng, 3, 2), tensor(rng, 4, 3)
    layer = nn.Linear(2, 3, bias=False).double()
    layer.weight.data = w
    mean = torch.tensor([0.3, -0.2]).double()
    nodes = [
        Node("z", (), Prior(mean, learnable=True), SquaredError(0.7).double()),
        Node("y", ("z",), layer, SquaredError(4.0).double()),
    ]
    network = PCNetwork([], nodes)
    settled = infer(network, {"y": y}, GradientDescent(n_steps=4000, step=0.03, tol=1e-13))
    expected = torch.linalg.solve(
        4.0 * w.T @ w + 0.7 * torch.eye(2).double(), (4.0 * y @ w + 0.7 * mean).T
    ).T
    torch.testing.assert_close(settled.states["z"], expected, rtol=0, atol=1e-10)
    assert "predictors.z.mean" in dict(network.named_parameters())


def test_held_units_of_a_mask_do_not_move(rng):
    network = predictive_coding(mlp(rng))
    x, y = tensor(rng, 3, 4), tensor(rng, 3, 3)
    mask = torch.tensor([True, False, True, False])
    settled = infer(network, {"input": Masked(x, mask), "output": y})
    assert torch.equal(settled.states["input"][:, mask], x[:, mask])
    assert not torch.equal(settled.states["input"][:, ~mask], x[:, ~mask])


def test_free_output_rests_on_its_prediction(rng):
    network = predictive_coding(mlp(rng), output=CrossEntropy())
    x = tensor(rng, 3, 4)
    settled = infer(network, {"input": x})
    torch.testing.assert_close(settled.states["output"], torch.softmax(network.body(x), 1))
    assert pose(network, {"input": x, "_1": tensor(rng, 3, 6)}).idle == ("output", "_3")


def test_examples_are_independent(rng):
    network = predictive_coding(mlp(rng))
    x, y = tensor(rng, 5, 4), tensor(rng, 5, 3)
    together = infer(network, {"input": x, "output": y}, record=True)
    alone = infer(network, {"input": x[2:3], "output": y[2:3]}, record=True)
    for name in network.names:
        torch.testing.assert_close(together.states[name][2:3], alone.states[name])


def test_batch_norm_dropout_and_branches_are_refused(refused):
    assert "GroupNorm" in refused(predictive_coding, nn.Sequential(nn.BatchNorm1d(3)))
    assert "Remove it" in refused(predictive_coding, nn.Sequential(nn.Dropout(0.5)))

    class Branch(nn.Module):
        def forward(self, x):
            return x if x.sum() > 0 else -x

    assert "PCNetwork(inputs, nodes)" in refused(predictive_coding, Branch())


def test_bad_graphs_are_refused(rng, refused):
    net = mlp(rng)
    assert "Did you mean 'after_activation'" in refused(
        predictive_coding, net, cut="after_activity"
    )
    assert "'output'" in refused(predictive_coding, net, energies={"top": CrossEntropy()})
    node = Node("y", ("x",), nn.Linear(2, 2))
    assert "each name once" in refused(PCNetwork, ["x"], [node, node])
    assert "cycles" in refused(PCNetwork, ["x"], [Node("y", ("z",), nn.Identity()),
                                                  Node("z", ("y",), nn.Identity())])  # fmt: skip
    assert "parent 'w'" in refused(PCNetwork, ["x"], [Node("y", ("w",), nn.Identity())])
    assert "at least one node" in refused(PCNetwork, ["x"], [])
    assert "above 0" in refused(SquaredError, -1.0)
    assert "above 0" in refused(SquaredError, torch.tensor([1.0, 0.0]))


def test_bad_clamps_are_refused(rng, refused):
    network = predictive_coding(mlp(rng), output=CrossEntropy())
    x, y = tensor(rng, 3, 4), torch.rand(3, 3).double()

    def words(**clamp):
        return refused(infer, network, clamp)

    assert "Did you mean 'output'" in words(input=x, outputs=y)
    assert "labels as one-hot" in words(input=x, output=y.long())
    assert "NaN" in words(input=x * torch.nan, output=y)
    assert "3 as in 'input'" in words(input=x, output=y[:2])
    assert "float64" in words(input=x.float(), output=y.float())
    assert "as predicted" in words(input=x, output=y[:, :2])
    assert "along the first axis" in words(input=x[0])
    assert "priors=" in words(output=y)
    assert "a tensor" in words(input=[[1.0]])
    assert "at least one node" in words()
    mask = torch.tensor([True, False, True])
    assert "parts the classes" in words(input=x, output=Masked(y, mask))
    assert "boolean" in words(input=x, output=Masked(y, mask.double()))
    assert "broadcasts" in words(input=x, output=Masked(y, mask[:2]))
    wide = predictive_coding(mlp(rng), energies={"_1": SquaredError(torch.ones(5))})
    assert "precision of shape (5,)" in refused(infer, wide, {"input": x, "output": y})
