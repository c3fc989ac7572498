"""The fast paths give the numbers of the general one, and are taken where they should be."""

from __future__ import annotations

import copy
import importlib.util
import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch
from pc_cases import tensor
from torch import nn

from pcsim.deep import pc_fast
from pcsim.deep.pc_chain import chain_of
from pcsim.deep.pc_clamp import pose
from pcsim.deep.pc_curvature import ChainCurve, GeneralCurve, curve_of
from pcsim.deep.pc_energy import CrossEntropy, SquaredError
from pcsim.deep.pc_errors import ErrorOptimisation
from pcsim.deep.pc_fast import PlainTrainer, path_for
from pcsim.deep.pc_gradients import trainable
from pcsim.deep.pc_inference import GradientDescent, infer
from pcsim.deep.pc_learning import energy_gradients, train_step
from pcsim.deep.pc_newton import GaussNewton
from pcsim.deep.pc_trace import predictive_coding

needs_numba = pytest.mark.skipif(
    importlib.util.find_spec("numba") is None, reason="numba is not installed"
)
METHODS = (
    GradientDescent(n_steps=20, step=0.07),
    ErrorOptimisation(n_steps=6, step=0.2),
)


def plain(rng, act=nn.Tanh, sizes=(8, 6, 5, 3)):
    layers = []
    for i, (below, above) in enumerate(itertools.pairwise(sizes)):
        layers += [act()] if i else []
        layers.append(nn.Linear(below, above, bias=i != 1))
    net = nn.Sequential(*layers).double()
    with torch.no_grad():
        for parameter in net.parameters():
            scale = 0.8 / np.sqrt(parameter.shape[-1])
            parameter.copy_(scale * tensor(rng, *parameter.shape))
    return net


def run(net, path, method, x, y, *, cut, output):
    net = copy.deepcopy(net)
    hidden = next(iter(predictive_coding(net, cut=cut).nodes))
    energies = {hidden: SquaredError(0.7)}
    network = predictive_coding(net, cut=cut, energies=energies, output=output)
    trainer = PlainTrainer(network, method, learning_rate=0.3, path=path)
    for _ in range(2):
        trainer(x, y)
    states = {name: state.clone() for name, state in trainer.states.items()}
    return states | {name: p.detach() for name, p in net.named_parameters()}


@pytest.mark.parametrize("method", METHODS, ids=["activities", "errors"])
@pytest.mark.parametrize("cut", ["after_activation", "before_activation"])
@pytest.mark.parametrize("act", [nn.Tanh, nn.ReLU, nn.Sigmoid])
@pytest.mark.parametrize("output", [SquaredError(4.0), CrossEntropy(0.7)], ids=["square", "cross"])
@pytest.mark.parametrize("path", ["fused", pytest.param("compiled", marks=needs_numba)])
def test_fast_paths_are_equal_to_the_general_one(rng, method, cut, act, output, path):
    net, x, y = plain(rng, act), tensor(rng, 4, 8), torch.softmax(tensor(rng, 4, 3), 1)
    general = run(net, "general", method, x, y, cut=cut, output=output)
    fast = run(net, path, method, x, y, cut=cut, output=output)
    assert fast.keys() == general.keys()
    for name, value in general.items():
        torch.testing.assert_close(fast[name], value, rtol=0, atol=1e-12, msg=name)


@pytest.mark.parametrize("path", ["fused", pytest.param("compiled", marks=needs_numba)])
def test_news_climbs_one_node_a_step(rng, path):
    net, x, y = plain(rng), tensor(rng, 4, 8), tensor(rng, 4, 3)
    for n_steps in range(4):
        method = GradientDescent(n_steps=n_steps, step=0.07)
        general, fast = (
            run(net, p, method, x, y, cut="before_activation", output=None)
            for p in ("general", path)
        )
        for name, value in general.items():
            torch.testing.assert_close(fast[name], value, rtol=0, atol=1e-12, msg=name)


@pytest.mark.parametrize("cut", ["after_activation", "before_activation"])
@pytest.mark.parametrize("approximate", ["none", "tanh"])
def test_momentum_and_smooth_functions_are_fused(rng, cut, approximate):
    net = plain(rng, act=lambda: nn.GELU(approximate=approximate))
    x, y = tensor(rng, 4, 8), tensor(rng, 4, 3)
    for method in (GradientDescent(n_steps=5, step=0.07, momentum=0.6), METHODS[1]):
        general, fused = (
            run(net, path, method, x, y, cut=cut, output=SquaredError(4.0))
            for path in ("general", "fused")
        )
        for name, value in general.items():
            torch.testing.assert_close(fused[name], value, rtol=0, atol=1e-12, msg=name)


@pytest.mark.parametrize("act", [nn.Tanh, nn.GELU])
@pytest.mark.parametrize("cut", ["after_activation", "before_activation"])
@pytest.mark.parametrize("output", [SquaredError(4.0), CrossEntropy(0.7)], ids=["square", "cross"])
def test_curve_of_a_chain_is_that_of_any_graph(rng, act, cut, output):
    net, x, y = plain(rng, act), tensor(rng, 4, 8), torch.softmax(tensor(rng, 4, 3), 1)
    hidden = next(iter(predictive_coding(net, cut=cut).nodes))
    energies = {hidden: SquaredError(0.7)}
    network = predictive_coding(net, cut=cut, energies=energies, output=output)
    problem = pose(network, {"input": x, "output": y})
    chain, general = curve_of(problem), GeneralCurve(problem)
    assert isinstance(chain, ChainCurve)
    assert chain.start.abs().max() < 1e-14
    errors = 0.3 * tensor(rng, *chain.start.shape)
    direction = tensor(rng, *errors.shape)
    torch.testing.assert_close(chain.energy(errors), general.energy(errors))
    here, there = chain.quadratic(errors), general.quadratic(errors)
    torch.testing.assert_close(here.gradient, there.gradient)
    pushed, also = here.push(direction), there.push(direction)
    torch.testing.assert_close(here.curvature(direction, pushed), there.curvature(direction, also))
    torch.testing.assert_close(here.product(direction, pushed), there.product(direction, also))
    for name, state in general.states(errors).items():
        torch.testing.assert_close(chain.states(errors)[name], state)


@needs_numba
def test_paths_are_equal_in_single_precision(rng):
    net = plain(rng, sizes=(16, 32, 32, 32, 8)).float()
    x, y = tensor(rng, 1, 16).float(), tensor(rng, 1, 8).float()
    found = [
        run(net, path, METHODS[0], x, y, cut="before_activation", output=None)
        for path in ("general", "fused", "compiled")
    ]
    for other in found[1:]:
        for name, value in found[0].items():
            torch.testing.assert_close(other[name], value, rtol=1e-5, atol=2e-6, msg=name)


def test_recorded_and_fused_inference_are_equal(rng):
    network = predictive_coding(plain(rng))
    clamp = {"input": tensor(rng, 4, 8), "output": tensor(rng, 4, 3)}
    start = {"_1": tensor(rng, 4, 6)}
    for method in METHODS:
        fused = infer(network, clamp, method, initial=start)
        general = infer(network, clamp, method, initial=start, record=True)
        assert fused.n_steps == general.n_steps == method.n_steps
        assert abs(general.trace[-1] - float(fused.energy.sum())) < 1e-10
        for name, value in general.states.items():
            torch.testing.assert_close(fused.states[name], value, rtol=0, atol=1e-12)


def test_path_follows_the_size_and_the_network(rng, monkeypatch):
    small = predictive_coding(plain(rng, sizes=(16, 32, 32, 32, 8)))
    one, many = torch.zeros(1, 16).double(), torch.zeros(256, 16).double()
    method = GradientDescent()
    monkeypatch.setattr(pc_fast, "has_numba", lambda: True)
    assert path_for(small, method, one) == "compiled"
    assert path_for(small, method, many) == "fused"
    assert path_for(small, GradientDescent(momentum=0.5), one) == "fused"
    assert path_for(small, GradientDescent(discount=0.5), one) == "general"
    monkeypatch.setattr(pc_fast, "has_numba", lambda: False)
    assert path_for(small, method, one) == "fused"
    convolution = predictive_coding(
        nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Linear(8, 2))
    )
    assert path_for(convolution, method, torch.zeros(1, 1, 4, 4)) == "general"


class FlattensItself(nn.Module):
    """A chain that makes rows of its input by a function."""

    def __init__(self, flatten):
        super().__init__()
        self.flatten, self.first, self.last = flatten, nn.Linear(8, 6), nn.Linear(6, 3, bias=False)

    def forward(self, x):
        return self.last(torch.tanh(self.first(self.flatten(x))))


def flattening(kind, rng):
    """A chain whose examples are 2 by 4, and the same chain for rows."""
    rows = plain(rng, sizes=(8, 6, 3))
    if kind == "layer":
        return nn.Sequential(nn.Flatten(), *copy.deepcopy(rows)), rows
    ways = {
        "function": lambda x: torch.flatten(x, 1),
        "method": lambda x: x.flatten(start_dim=1),
    }
    whole = FlattensItself(ways[kind]).double()
    linear = [part for part in rows if isinstance(part, nn.Linear)]
    for own, other in zip((whole.first, whole.last), linear, strict=True):
        own.load_state_dict(other.state_dict())
    return whole, rows


@pytest.mark.parametrize("path", ["fused", pytest.param("compiled", marks=needs_numba)])
@pytest.mark.parametrize("kind", ["layer", "function", "method"])
def test_a_flattened_input_takes_the_fast_paths_and_keeps_its_shape(kind, path, rng):
    net, rows = flattening(kind, rng)
    x, y = tensor(rng, 5, 2, 4), tensor(rng, 5, 3)
    output = SquaredError(0.7)
    network = predictive_coding(net, output=output)
    reference = predictive_coding(rows, output=output)
    clamp = {network.inputs[0]: x, "output": y}
    for method in (*METHODS, GaussNewton(n_steps=3)):
        found = infer(network, clamp, method)
        expected = infer(reference, {"input": x.flatten(1), "output": y}, method, record=True)
        assert torch.equal(found.states[network.inputs[0]], x)
        torch.testing.assert_close(found.energy, expected.energy, rtol=1e-12, atol=0)
    method = METHODS[0]
    assert path_for(network, method, x) == path_for(reference, method, x.flatten(1)) != "general"
    fast = PlainTrainer(network, method, learning_rate=0.1, path=path)
    slow = PlainTrainer(reference, method, learning_rate=0.1, path="general")
    for _ in range(3):
        fast(x, y)
        slow(x.flatten(1), y)
    assert torch.equal(fast.states[network.inputs[0]], x)
    pairs = zip(network.parameters(), reference.parameters(), strict=True)
    for own, other in pairs:
        torch.testing.assert_close(own, other, rtol=0, atol=1e-12)
    optimiser = torch.optim.SGD(network.parameters(), lr=0.1)
    wanted = energy_gradients(network, infer(network, clamp, method).states)
    before = {name: p.detach().clone() for name, p in network.named_parameters()}
    train_step(network, clamp, method, optimiser)
    for name, p in network.named_parameters():
        torch.testing.assert_close(p.detach(), before[name] - 0.1 * wanted[name])


def test_only_plain_chains_are_chains(rng):
    rows = (
        nn.Sequential(nn.Flatten(0, 1), nn.Linear(4, 2)),
        nn.Sequential(nn.Linear(4, 2), nn.Flatten()),
    )
    assert [chain_of(predictive_coding(one)) for one in rows] == [None, None]
    assert chain_of(predictive_coding(plain(rng))) is not None
    learned = predictive_coding(plain(rng), output=SquaredError(0.7, learnable=True))
    assert chain_of(learned) is None
    units = predictive_coding(plain(rng), output=SquaredError(torch.ones(3)))
    assert chain_of(units) is None
    assert chain_of(predictive_coding(plain(rng, act=nn.SiLU))) is None
    shared = nn.Linear(4, 4)
    assert chain_of(predictive_coding(nn.Sequential(shared, nn.Tanh(), shared))) is None


def test_inputs_stay_untouched(rng):
    net, x, y = plain(rng), tensor(rng, 4, 8), tensor(rng, 4, 3)
    before = x.clone(), y.clone()
    network = predictive_coding(net)
    PlainTrainer(network, METHODS[0], learning_rate=0.1, path="fused")(x, y)
    infer(network, {"input": x, "output": y}, METHODS[1])
    assert torch.equal(x, before[0])
    assert torch.equal(y, before[1])


def test_a_moved_module_and_another_batch_get_new_buffers(rng):
    net = plain(rng)
    trainer = PlainTrainer(predictive_coding(net), METHODS[0], learning_rate=0.1)
    trainer(tensor(rng, 4, 8), tensor(rng, 4, 3))
    trainer(tensor(rng, 2, 8), tensor(rng, 2, 3))
    net.float()
    before = net[0].weight.detach().clone()
    trainer(tensor(rng, 2, 8).float(), tensor(rng, 2, 3).float())
    assert trainer.states["_1"].dtype == torch.float32
    assert not torch.equal(before, net[0].weight)


@pytest.mark.parametrize("path", ["fused", pytest.param("compiled", marks=needs_numba)])
def test_bad_batches_are_refused(rng, refused, path):
    trainer = PlainTrainer(predictive_coding(plain(rng)), METHODS[0], learning_rate=0.1, path=path)
    x, y = tensor(rng, 4, 8), tensor(rng, 4, 3)
    weights = [p.detach().clone() for p in trainer.network.parameters()]
    assert "(batch, 8)" in refused(trainer, x[:, :5], y)
    assert "4 as in 'x'" in refused(trainer, x, y[:3])
    assert "float32" in refused(trainer, x.float(), y.float())
    assert "NaN" in refused(trainer, x * torch.nan, y)
    for one, other in zip(weights, trainer.network.parameters(), strict=True):
        assert torch.equal(one, other)


def test_bad_trainers_are_refused(rng, refused):
    network = predictive_coding(plain(rng, act=nn.SiLU))
    words = refused(PlainTrainer, network, METHODS[0], learning_rate=0.1, path="fused")
    assert "path='general'" in words
    assert "'auto'" in refused(PlainTrainer, network, METHODS[0], learning_rate=0.1, path="quick")
    assert "learning_rate" in refused(PlainTrainer, network, METHODS[0], learning_rate=-1.0)


@pytest.mark.parametrize("cut", ["after_activation", "before_activation"])
@pytest.mark.parametrize("act", [nn.Tanh, nn.ReLU, nn.GELU])
@pytest.mark.parametrize("output", [SquaredError(4.0), CrossEntropy(0.7)], ids=["square", "cross"])
def test_chains_learn_without_a_graph_what_autograd_finds(rng, cut, act, output):
    x, y = tensor(rng, 4, 8), torch.softmax(tensor(rng, 4, 3), 1)
    clamp = {"input": x, "output": y}
    energies = {f"_{2 if cut == 'before_activation' else 1}": SquaredError(0.7)}
    for method in (*METHODS, ErrorOptimisation(n_steps=3, step="auto"), GaussNewton(n_steps=1)):
        network = predictive_coding(plain(rng, act), cut=cut, energies=energies, output=output)
        network.get_parameter("body.4.bias").requires_grad_(False)
        assert chain_of(network) is not None
        still = torch.optim.SGD(network.parameters(), 0.0)
        settled = train_step(network, clamp, method, still)
        expected = energy_gradients(network, settled.states)
        assert "body.4.bias" not in expected
        for name, gradient in expected.items():
            found = network.get_parameter(name).grad
            torch.testing.assert_close(found, gradient, rtol=0, atol=1e-12, msg=name)


def test_weights_made_of_parameters_learn_by_autograd(rng):
    net = plain(rng)
    nn.utils.parametrizations.weight_norm(net[2])
    network = predictive_coding(net)
    clamp = {"input": tensor(rng, 4, 8), "output": tensor(rng, 4, 3)}
    settled = train_step(network, clamp, METHODS[0], torch.optim.SGD(network.parameters(), 0.0))
    for name, gradient in energy_gradients(network, settled.states).items():
        found = network.get_parameter(name).grad
        assert float(gradient.abs().max()) > 0, name
        torch.testing.assert_close(found, gradient, rtol=0, atol=1e-12, msg=name)


def test_axes_in_between_take_the_general_path(rng):
    network = predictive_coding(plain(rng))
    clamp = {"input": tensor(rng, 4, 2, 8), "output": tensor(rng, 4, 2, 3)}
    one, other = (infer(network, clamp, METHODS[0], record=record) for record in (True, False))
    torch.testing.assert_close(one.energy, other.energy, rtol=0, atol=1e-12)


@pytest.mark.parametrize("path", ["general", "fused", pytest.param("compiled", marks=needs_numba)])
def test_weights_do_not_learn_from_what_is_not_finite(rng, path):
    network = predictive_coding(plain(rng, nn.ReLU))
    before = [parameter.detach().clone() for parameter in network.parameters()]
    method = GradientDescent(n_steps=2000, step=50.0)
    trainer = PlainTrainer(network, method, learning_rate=0.1, path=path)
    with pytest.raises(RuntimeError, match=r"at step \d+ of GradientDescent.*50.0.*Lower the step"):
        trainer(tensor(rng, 4, 8), tensor(rng, 4, 3))
    for parameter, value in zip(network.parameters(), before, strict=True):
        assert torch.equal(parameter, value)


@pytest.mark.parametrize("path", ["general", "fused", pytest.param("compiled", marks=needs_numba)])
@pytest.mark.parametrize("kind", METHODS)
def test_weights_do_not_learn_from_errors_that_ran_off_though_finite(rng, path, kind):
    network = predictive_coding(plain(rng, nn.Tanh))
    before = [parameter.detach().clone() for parameter in network.parameters()]
    trainer = PlainTrainer(
        network, replace(kind, n_steps=6, step=30.0), learning_rate=1e-9, path=path
    )
    x, y = tensor(rng, 4, 8), tensor(rng, 4, 3)
    with pytest.raises(RuntimeError, match=r"at step 6 of \w+, steps of size 30.0, .*Lower"):
        trainer(x, y)
    for parameter, value in zip(network.parameters(), before, strict=True):
        assert torch.equal(parameter, value)


@pytest.mark.parametrize("path", ["general", "fused", pytest.param("compiled", marks=needs_numba)])
def test_large_errors_that_were_large_at_the_start_are_learned_from(rng, path):
    network = predictive_coding(plain(rng, nn.Tanh))
    last = list(network.parameters())[-1]
    before = last.detach().clone()
    trainer = PlainTrainer(network, METHODS[0], learning_rate=1e-9, path=path)
    trainer(tensor(rng, 4, 8), 1e4 * tensor(rng, 4, 3))
    assert not torch.equal(last, before)


def test_a_trainer_takes_inference_beyond_plain_steps():
    network = predictive_coding(nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))).double()
    x, y = torch.ones(5, 3).double(), torch.zeros(5, 2).double()
    before = {name: one.detach().clone() for name, one in trainable(network).items()}
    trainer = PlainTrainer(network, GaussNewton(), learning_rate=0.1)
    trainer(x, y)
    moved = trainable(network)
    states = trainer.states
    changed = {name: before[name] - one.detach() for name, one in moved.items()}
    with torch.no_grad():
        for name, one in moved.items():
            one.copy_(before[name])
    for name, slope in energy_gradients(network, states).items():
        torch.testing.assert_close(changed[name], 0.1 * slope, rtol=0, atol=1e-12)
