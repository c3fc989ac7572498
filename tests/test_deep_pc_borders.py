"""Idle nodes, loaded precisions, starts, layers that write over their input, and global seeds."""

from __future__ import annotations

import pytest
import torch
from pc_cases import filled, tensor
from torch import nn

from pcsim.deep.pc_alignment import update_directions
from pcsim.deep.pc_clamp import pose
from pcsim.deep.pc_energy import CrossEntropy, SquaredError
from pcsim.deep.pc_errors import ErrorOptimisation
from pcsim.deep.pc_fast import PlainTrainer
from pcsim.deep.pc_hybrid import reverse_chain
from pcsim.deep.pc_inference import GradientDescent, infer
from pcsim.deep.pc_learning import incremental_step, train_step
from pcsim.deep.pc_network import Node, PCNetwork, Prior
from pcsim.deep.pc_newton import GaussNewton
from pcsim.deep.pc_replicas import make_replicas
from pcsim.deep.pc_trace import predictive_coding


def mlp(rng):
    return filled(nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)), rng)


@pytest.mark.parametrize("rule", ["energy", "local", "incremental"])
def test_what_nobody_observes_teaches_nothing(rng, rule):
    precision = SquaredError(torch.tensor(4.0).double(), learnable=True)
    beside = Node("v", ("h",), filled(nn.Linear(4, 5), rng), precision)
    nodes = [Node("h", ("x",), filled(nn.Linear(3, 4), rng)), Node("y", ("h",), mlp(rng)[2])]
    network = PCNetwork(["x"], [*nodes, beside], outputs=["y"])
    optimiser = torch.optim.SGD(network.parameters(), 0.1)
    clamp = {"x": tensor(rng, 6, 3), "y": tensor(rng, 6, 2)}
    for seen in (clamp, {"x": clamp["x"]}):
        kept = [p.detach().clone() for p in beside.predict.parameters()]
        before = nodes[0].predict.weight.detach().clone()
        if rule == "incremental":
            incremental_step(network, seen, GradientDescent(n_steps=5), optimiser)
        else:
            settled = train_step(network, seen, GradientDescent(n_steps=5), optimiser, rule=rule)
            assert set(settled.idle) == ({"v"} if "y" in seen else {"h", "v", "y"})
        assert float(precision.precision.detach()) == pytest.approx(4.0, rel=1e-15)
        for parameter, value in zip(beside.predict.parameters(), kept, strict=True):
            assert torch.equal(parameter, value)
        assert torch.equal(before, nodes[0].predict.weight) == ("y" not in seen)


@pytest.mark.parametrize(("saved", "made"), [(4.0, 1.0), (1.0, 4.0), (0.7, 4.0)])
def test_loaded_precisions_count(rng, saved, made):
    net, x, y = mlp(rng), tensor(rng, 6, 3), tensor(rng, 6, 2)

    def network_of(precision):
        energies = {"_1": SquaredError(precision)}
        return predictive_coding(net, energies=energies, output=SquaredError(precision))

    method = GradientDescent(n_steps=7, step=0.03)
    one, other = network_of(saved), network_of(made)
    trainer = PlainTrainer(other, method, learning_rate=0.0)
    trainer(x, y)
    other.load_state_dict(one.state_dict())
    clamp = {"input": x, "output": y}
    for record in (False, True):
        expected, found = (infer(n, clamp, method, record=record) for n in (one, other))
        torch.testing.assert_close(found.energy, expected.energy, rtol=1e-12, atol=0)
    # By hand, at what settled: half of precision times squared error minus the log precision.
    z = found.states["_1"]
    errors = z - torch.tanh(net[0](x)), y - net[2](z)
    log = torch.tensor(saved).double().log()
    by_hand = 0.5 * sum((saved * e.square() - log).sum(1) for e in errors)
    torch.testing.assert_close(found.energy, by_hand.detach())
    trainer(x, y)
    for name, state in found.states.items():
        torch.testing.assert_close(trainer.states[name], state, rtol=0, atol=1e-12)


def test_momentum_behind_adam_has_a_memory_of_its_own():
    # One input held at 0, one output at 2, one free error e: F = (7 e^2 + 4 (2 - 3 e)^2) / 2.
    net = nn.Sequential(nn.Linear(1, 1, bias=False), nn.Linear(1, 1, bias=False)).double()
    net[1].weight.data.fill_(3.0)
    energies = {"_0": SquaredError(7.0)}
    network = predictive_coding(net, energies=energies, output=SquaredError(4.0))
    x, y = torch.zeros(1, 1).double(), torch.full((1, 1), 2.0).double()
    method = ErrorOptimisation(n_steps=4, step=0.05, optimiser="adam", momentum=0.6)
    visits = list(method.visits(pose(network, {"input": x, "output": y})))
    e = velocity = mean = square = 0.0
    for count, visit in enumerate(visits):
        assert float(visit.states["_0"]) == pytest.approx(e, rel=1e-9, abs=1e-12)
        slope = (7.0 * e - 3.0 * 4.0 * (2.0 - 3.0 * e)) / 7.0
        mean, square = 0.9 * mean + 0.1 * slope, 0.999 * square + 0.001 * slope**2
        t = count + 1
        move = -0.05 * (mean / (1 - 0.9**t)) / ((square / (1 - 0.999**t)) ** 0.5 + 1e-8)
        velocity = move + 0.6 * velocity
        e += velocity
    assert len(visits) == 5


@pytest.mark.parametrize("record", [False, True])
def test_starts_must_fit_what_is_held(rng, refused, record):
    network, y = predictive_coding(mlp(rng)), tensor(rng, 5, 2)
    for n in (1, 2):
        start = {"input": torch.zeros(n, 3).double()}
        words = refused(infer, network, {"output": y}, initial=start, record=record)
        assert f"{n} examples in initial 'input'" in words
    start = {"_1": torch.zeros(5, 4)}
    clamp = {"input": tensor(rng, 5, 3), "output": y}
    words = refused(infer, network, clamp, initial=start, record=record)
    assert "initial '_1' of torch.float32" in words


def test_unequal_targets_bend_the_energy_by_their_sum(rng):
    # The equilibrium of a convex problem does not depend on the method that finds it.
    net = filled(nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 3)), rng)
    network = predictive_coding(net, output=CrossEntropy(0.7))
    clamp = {"input": tensor(rng, 5, 3), "output": 3.0 * torch.rand(5, 3).double() + 1.0}
    problem = pose(network, clamp)
    newton = GaussNewton(n_steps=6, tol=1e-12)
    settled = infer(network, clamp, newton)
    z = settled.states["_0"].requires_grad_()
    (slope,) = torch.autograd.grad(network.energy(settled.states | {"_0": z}).sum(), z)
    assert float(slope.abs().max()) < 1e-8
    assert problem.free == ("_0",)


class Rectified(nn.Module):
    """Writes over what its first layer sends, and hands on the result or drops it."""

    def __init__(self, drop=False):
        super().__init__()
        self.inner, self.outer, self.drop = nn.Linear(3, 3), nn.Linear(3, 2), drop

    def forward(self, x):
        h = self.inner(x)
        written = h.relu_()
        return self.outer(h if self.drop else written)


@pytest.mark.parametrize("cut", ["after_activation", "before_activation"])
@pytest.mark.parametrize(
    "make",
    [
        lambda: nn.Sequential(nn.Linear(3, 4), nn.ReLU(inplace=True), nn.Linear(4, 2)),
        lambda: nn.Sequential(nn.SiLU(inplace=True), nn.Linear(3, 2)),
        Rectified,
    ],
)
def test_layers_that_write_over_their_input_leave_activities_alone(rng, cut, make):
    module = filled(make(), rng)
    network, x, y = predictive_coding(module, cut=cut), tensor(rng, 6, 3), tensor(rng, 6, 2)
    given = x.clone()
    assert torch.equal(network(x), module(x.clone()))
    states = network.feedforward({network.inputs[0]: x})
    kept = {name: state.detach().clone() for name, state in states.items()}
    # At the feedforward pass every node is where it is predicted.
    assert float(network.energy(states).abs().max().detach()) < 1e-24
    assert all(torch.equal(states[name], value) for name, value in kept.items())
    clamp = {network.inputs[0]: x, "output": y}
    one, other = (infer(network, clamp, record=record) for record in (False, True))
    torch.testing.assert_close(one.energy, other.energy, rtol=0, atol=1e-12)
    assert torch.equal(x, given)


def test_what_is_written_over_and_dropped_is_refused(refused):
    assert "'relu_'" in refused(predictive_coding, Rectified(drop=True))


def test_steps_come_back_as_they_were_asked_for(refused):
    net = make_replicas((4, 5, 3), [0], activation="tanh")
    draw = torch.Generator().manual_seed(1)
    x, y = (torch.randn(1, 2, n, generator=draw) for n in (4, 3))
    where = {"shares": [1.0], "variances": [0.7]}
    found = update_directions(net, x, y, **where, steps=[5, 0, 5, 2]).local
    assert len(found) == 4
    for row, count in zip(found, (5, 0, 5, 2), strict=True):
        alone = update_directions(net, x, y, **where, steps=[count]).local[0]
        torch.testing.assert_close(row, alone, rtol=0, atol=0, equal_nan=True)
    assert "at least one" in refused(update_directions, net, x, y, **where, steps=[])
    assert "steps" in refused(update_directions, net, x, y, **where, steps=[-1])


def test_amortizers_are_drawn_from_their_generator_alone(rng):
    network = predictive_coding(filled(nn.Sequential(nn.Linear(2, 9), nn.Linear(9, 400)), rng))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        before = torch.random.get_rng_state()
        one, same, other = (
            reverse_chain(network, generator=torch.Generator().manual_seed(seed))
            for seed in (5, 5, 6)
        )
        assert torch.equal(before, torch.random.get_rng_state())
    first, second, third = (list(n.parameters()) for n in (one, same, other))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    assert not any(torch.equal(a, b) for a, b in zip(first, third, strict=True))
    # Uniform within 1 / sqrt(400): a variance of 1 / 1200, from 3600 draws.
    weight = first[0].detach()
    assert weight.shape == (9, 400)
    assert float(weight.abs().max()) <= 0.05
    assert float(weight.var() * 1200) == pytest.approx(1.0, abs=4 * (0.8 / 3600) ** 0.5)


def test_drawing_from_a_prior_needs_a_number(rng, refused):
    nodes = [Node("z", (), Prior(torch.zeros(3))), Node("y", ("z",), nn.Linear(3, 2))]
    network = PCNetwork([], nodes)
    assert "n_examples" in refused(network.feedforward, {})
    assert network.feedforward({}, n_examples=4)["y"].shape == (4, 2)
