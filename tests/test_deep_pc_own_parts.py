"""What users bring themselves: functions, hooks, energies, names, optimisers and free inputs."""

from __future__ import annotations

import pytest
import torch
from pc_cases import drawn, energy_by_hand, weighed
from torch import nn

from pcsim.deep.pc_chain import chain_of
from pcsim.deep.pc_clamp import Masked
from pcsim.deep.pc_descent import AdamDescent, GradientDescent
from pcsim.deep.pc_energy import SquaredError
from pcsim.deep.pc_errors import ErrorOptimisation
from pcsim.deep.pc_fast import PlainTrainer, path_for
from pcsim.deep.pc_hybrid import hybrid_step, reverse_chain
from pcsim.deep.pc_inference import infer
from pcsim.deep.pc_learning import (
    energy_gradients,
    incremental_step,
    local_gradients,
    train_step,
)
from pcsim.deep.pc_mupc import mupc
from pcsim.deep.pc_network import Node, PCNetwork, Prior
from pcsim.deep.pc_newton import Exact, GaussNewton
from pcsim.deep.pc_trace import predictive_coding
from pcsim.deep.pc_training import PCTrainingSettings, train


@torch.fx.wrap
def sigmoid(x):
    """A function of one's own that bears a known name."""
    return x * torch.sigmoid(x)


class Swish(nn.Module):
    """Three linear layers with that function between."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = nn.Linear(4, 6), nn.Linear(6, 6), nn.Linear(6, 3)

    def forward(self, x):
        return self.c(sigmoid(self.b(sigmoid(self.a(x)))))


def chain(activation=nn.Tanh):
    """A network of two layers."""
    return weighed(nn.Sequential(nn.Linear(4, 5), activation(), nn.Linear(5, 3)).double())


def test_a_function_of_ones_own_is_not_taken_for_the_one_it_is_named_after():
    network = weighed(Swish().double())
    assert chain_of(network) is None
    clamp = {"x": drawn(5, 4), "output": drawn(5, 3, seed=1)}
    fast = infer(network, clamp)
    torch.testing.assert_close(fast.energy, energy_by_hand(network, fast.states).detach())
    slow = infer(network, clamp, record=True)
    for name, state in slow.states.items():
        torch.testing.assert_close(fast.states[name], state)


def test_two_free_inputs_of_a_sum_share_its_error():
    # F = p (y - a - b)^2 / 2 from 0: one step of size s moves both by s p y.
    network = PCNetwork(["a", "b"], [Node("y", ("a", "b"), lambda a, b: a + b, SquaredError(0.7))])
    y, zero = drawn(5, 3), torch.zeros(5, 3).double()
    start = {"a": zero, "b": zero}
    found = infer(network, {"y": y}, GradientDescent(n_steps=1, step=0.1), initial=start)
    for name in ("a", "b"):
        torch.testing.assert_close(found.states[name], 0.07 * y)
    # At rest a = b = y / 2.
    heavy = GradientDescent(n_steps=300, step=0.3, momentum=0.5)
    found = infer(network, {"y": y}, heavy, initial=start)
    torch.testing.assert_close(found.states["a"], 0.5 * y)


def test_many_units_with_one_slope_move():
    total = PCNetwork(
        ["a"], [Node("y", ("a",), lambda a: a.sum(1, keepdim=True), SquaredError(0.7))]
    )
    y, start = drawn(5, 1), {"a": torch.zeros(5, 3).double()}
    found = infer(total, {"y": y}, GradientDescent(n_steps=1, step=0.1), initial=start)
    torch.testing.assert_close(found.states["a"], 0.07 * y.expand(5, 3))


def test_a_free_input_below_which_nothing_is_held_rests():
    nodes = [
        Node(name, (parent,), nn.Linear(3, 2).double(), SquaredError(0.7))
        for name, parent in (("h", "a"), ("y", "b"))
    ]
    network = PCNetwork(["a", "b"], nodes)
    b, part = drawn(5, 3), torch.tensor([True, False, True])
    clamp = {"a": drawn(5, 3), "h": drawn(5, 2, seed=1)}
    for method in (GradientDescent(), AdamDescent(), ErrorOptimisation(step="auto"), GaussNewton()):
        for held, begin in ((clamp, {"b": b}), (clamp | {"b": Masked(b, part)}, None)):
            found = infer(network, held, method, initial=begin)
            assert torch.equal(found.states["b"], b)
            torch.testing.assert_close(found.states["y"], nodes[1].predict(b).detach())


def test_a_learned_prior_of_a_held_input():
    body = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3)).double()
    x, y = drawn(6, 4), drawn(6, 3, seed=1)
    prior = Prior(torch.zeros(4).double(), learnable=True)
    energies = {"_1": SquaredError(0.7), "input": SquaredError(2.5)}
    network = predictive_coding(body, energies=energies, priors={"input": prior})
    clamp = {"input": x, "output": y}
    ends = [
        infer(network, clamp, method).energy
        for method in (
            GradientDescent(n_steps=2000, step=0.1),
            ErrorOptimisation(n_steps=300, step="auto"),
            GaussNewton(n_steps=30, tol=1e-12),
        )
    ]
    for end in ends[1:]:
        torch.testing.assert_close(end, ends[0])
    # F holds 2.5 (x - m)^2 / 2, whose slope by m at 0 is minus 2.5 times the mean of x.
    slope = energy_gradients(network, infer(network, clamp).states)["predictors.input.mean"]
    torch.testing.assert_close(slope, -2.5 * x.mean(0))
    train(network, clamp, PCTrainingSettings(n_epochs=2, batch_size=3), progress=False)
    free = infer(network, {"output": y}, GradientDescent(n_steps=0))
    before = free.states["input"].clone()
    with torch.no_grad():
        prior.mean += 1.0
    assert not any(state.requires_grad for state in free.states.values())
    assert torch.equal(free.states["input"], before)


class Link(nn.Module):
    """A Gaussian density about sinh(prediction)."""

    quadratic, precision = True, 1.0

    def forward(self, state, prediction):
        return 0.5 * (state - prediction.sinh()).square().flatten(1).sum(1)

    def weighted_error(self, state, prediction):
        return (state - prediction.sinh()) * prediction.cosh()

    def curvature(self, direction, prediction, state):
        return direction * prediction.cosh() ** 2

    def mean(self, prediction):
        return prediction.sinh()


def test_methods_in_the_errors_refuse_energies_of_more_than_the_error(refused):
    body = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3)).double()
    network = predictive_coding(body, energies={"_1": Link()}, output=SquaredError(0.7))
    clamp = {"input": drawn(5, 4), "output": drawn(5, 3, seed=1)}
    found = infer(network, clamp, GradientDescent(n_steps=2000, step=0.1))
    states = {
        name: state.clone().requires_grad_(name == "_1") for name, state in found.states.items()
    }
    (slope,) = torch.autograd.grad(network.energy(states).sum(), states["_1"])
    assert slope.abs().max() < 1e-9
    for method in (ErrorOptimisation(n_steps=3), ErrorOptimisation(step="auto"), GaussNewton()):
        assert "'_1' with Link" in refused(infer, network, clamp, method)


@pytest.mark.parametrize("activation", [nn.Tanh, nn.SiLU])
def test_hooks_on_weights_are_asked_by_every_rule(activation):
    x, y = drawn(5, 4), drawn(5, 3, seed=1)
    clamp, method = {"input": x, "output": y}, GradientDescent(n_steps=5, step=0.2)

    def steps(network):
        optimiser = torch.optim.SGD(network.parameters(), 0.1)
        yield lambda: train_step(network, clamp, method, optimiser)
        yield lambda: train_step(network, clamp, method, optimiser, rule="local")
        yield lambda: incremental_step(network, clamp, method, optimiser)
        yield lambda: PlainTrainer(network, method, learning_rate=0.1)(x, y)

    for number in range(4):
        network = chain(activation)
        weight = network.body[0].weight
        weight.register_hook(lambda slope: slope * 0.0)
        before = weight.detach().clone(), network.body[2].weight.detach().clone()
        list(steps(network))[number]()
        assert torch.equal(weight, before[0])
        assert not torch.equal(network.body[2].weight, before[1])
        states = infer(network, clamp, method).states
        assert not local_gradients(network, states)["body.0.weight"].any()


def test_names_that_containers_of_torch_keep_for_themselves():
    names = ("values", "keys", "type", "training")
    nodes = [
        Node(name, (parent,), nn.Linear(3, 3).double(), SquaredError(0.7))
        for parent, name in zip(("x", *names), names, strict=False)
    ]
    network = PCNetwork(["x"], nodes)
    found = infer(network, {"x": drawn(2, 3), "training": drawn(2, 3, seed=1)}, Exact())
    torch.testing.assert_close(found.energy, energy_by_hand(network, found.states).detach())
    assert "predictors.values.weight" in dict(network.named_parameters())


def test_optimisers_of_something_else_and_one_for_two_are_refused(refused):
    network, method = chain(), GradientDescent(n_steps=3)
    clamp = {"input": drawn(5, 4), "output": drawn(5, 3, seed=1)}
    other = torch.optim.SGD(chain().parameters(), 0.1)
    assert "an optimiser of other parameters" in refused(train_step, network, clamp, method, other)
    amortizer = reverse_chain(network)
    both = torch.optim.SGD([*network.parameters(), *amortizer.parameters()], 0.1)
    message = refused(
        hybrid_step,
        network,
        amortizer,
        {"output": clamp["output"]},
        method,
        optimisers=(both, both),
    )
    assert "one optimiser twice" in message


def test_learning_in_inference_mode():
    x, y = drawn(5, 4), drawn(5, 3, seed=1)
    network = chain(nn.SiLU)
    states = infer(network, {"input": x, "output": y}).states
    expected = energy_gradients(network, states)
    before = network.body[0].weight.detach().clone()
    with torch.inference_mode():
        found = energy_gradients(network, states), local_gradients(network, states)
        PlainTrainer(network, GradientDescent(n_steps=3), learning_rate=0.1)(x, y)
    for slopes in found:
        for name, slope in slopes.items():
            torch.testing.assert_close(slope, expected[name])
    assert not torch.equal(network.body[0].weight, before)


def test_an_output_that_is_not_the_end_of_the_chain_is_held_on_no_fast_path():
    nodes = [
        Node(name, (parent,), nn.Linear(3, 3).double(), SquaredError(0.7))
        for name, parent in (("h", "x"), ("y", "h"))
    ]
    network = PCNetwork(["x"], nodes, outputs=["h"])
    assert path_for(network, GradientDescent(), drawn(2, 3)) == "general"


def test_what_is_no_network_or_no_mapping_is_refused(refused):
    x = drawn(2, 4)
    assert "a network of type Linear" in refused(infer, nn.Linear(4, 3), {"input": x})
    assert "clamp of type list" in refused(infer, chain(), [x])
    assert "initial of type list" in refused(infer, chain(), {"input": x}, initial=[1])
    assert "of type function" in refused(predictive_coding, lambda x: x)
    message = refused(PCNetwork, ["x"], [Node("y", "x", nn.Linear(3, 3))])
    assert "parents 'x'" in message


def test_a_written_precision_is_noticed():
    network = predictive_coding(nn.Sequential(nn.Linear(4, 3)).double())
    clamp = {"input": drawn(2, 4), "output": drawn(2, 3, seed=1)}
    infer(network, clamp)
    network.energies["output"].log_precision.data.fill_(1.2)
    found = infer(network, clamp)
    torch.testing.assert_close(found.energy, energy_by_hand(network, found.states).detach())


class Minus(nn.Module):
    """Branches that are subtracted from their stream, or added to it."""

    def __init__(self, sign):
        super().__init__()
        self.first, self.last, self.sign = nn.Linear(16, 16), nn.Linear(16, 4), sign
        self.branches = nn.ModuleList(nn.Linear(16, 16) for _ in range(6))

    def forward(self, x):
        stream = self.first(x)
        for branch in self.branches:
            stream = stream + branch(stream) if self.sign > 0 else stream - branch(stream)
        return self.last(stream)


def test_a_branch_that_is_subtracted_has_the_scale_of_one_that_is_added():
    added, subtracted = (mupc(Minus(sign)) for sign in (1, -1))
    for one, other in zip(added.parameters(), subtracted.parameters(), strict=True):
        assert torch.equal(one, other)


def test_more_layers_between_two_activities_than_python_recurses():
    layers = [part for _ in range(700) for part in (nn.Linear(2, 2), nn.Tanh())]
    body = nn.Sequential(*layers).double()
    network = predictive_coding(body, cut=[])
    assert network.names == ("input", "output")
    x = drawn(3, 2)
    torch.testing.assert_close(network(x), body(x))


class Parallel(nn.Module):
    """Many branches of one input, summed one after another."""

    def __init__(self, n_branches):
        super().__init__()
        self.first, self.last = nn.Linear(4, 32), nn.Linear(32, 8)
        self.branches = nn.ModuleList(nn.Linear(32, 32) for _ in range(n_branches))

    def forward(self, x):
        stream = self.first(x)
        return self.last(stream + sum(branch(stream) for branch in self.branches))


def test_scales_of_more_branches_than_python_recurses():
    # The variance of all branches together is that of the stream, whatever their number.
    x = torch.randn(64, 4, generator=torch.Generator().manual_seed(1))
    few, many = (float(mupc(Parallel(n))(x).detach().std()) for n in (8, 1100))
    assert 0.5 < many / few < 2.0


def test_masks_that_are_no_masks_are_refused(refused):
    clamp = {"input": drawn(2, 4), "output": Masked(drawn(2, 3), [True] * 3)}
    assert "a mask of list" in refused(infer, chain(), clamp)
