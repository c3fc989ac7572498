"""Ways to settle agree with closed forms, with torch's own optimisers and with one another."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from pc_cases import filled, tensor
from torch import nn

from pcsim.deep.pc_clamp import Masked, pose
from pcsim.deep.pc_curvature import curve_of
from pcsim.deep.pc_energy import CrossEntropy, SquaredError
from pcsim.deep.pc_errors import ErrorOptimisation
from pcsim.deep.pc_inference import AdamDescent, GradientDescent, infer
from pcsim.deep.pc_network import Node, PCNetwork, Prior
from pcsim.deep.pc_newton import Exact, GaussNewton
from pcsim.deep.pc_trace import predictive_coding

LONG = GradientDescent(n_steps=5000, step=0.2, momentum=0.5, tol=1e-12)


def network_of(rng, act=nn.Tanh, output=None, precisions=(0.7, 4.0)):
    """Return 4-6-5-3 with precisions that are not one."""
    net = nn.Sequential(nn.Linear(4, 6), act(), nn.Linear(6, 5), act(), nn.Linear(5, 3))
    net = filled(net, rng)
    energies = {"_1": SquaredError(precisions[0]), "_3": SquaredError(precisions[1])}
    if output is None:
        output = SquaredError(torch.from_numpy(rng.uniform(0.5, 2.0, 3)))
    return predictive_coding(net, energies=energies, output=output).double()


def ends(rng, n=4):
    return {"input": tensor(rng, n, 4), "output": tensor(rng, n, 3)}


def same(one, other, atol):
    for name in one.states:
        torch.testing.assert_close(one.states[name], other.states[name], rtol=0, atol=atol)


def test_linear_equilibrium_is_the_closed_form(rng):
    w1, w2 = tensor(rng, 3, 2), tensor(rng, 2, 3)
    net = nn.Sequential(nn.Linear(2, 3, bias=False), nn.Linear(3, 2, bias=False)).double()
    net[0].weight.data, net[1].weight.data = w1, w2
    x, y = tensor(rng, 5, 2), tensor(rng, 5, 2)
    network = predictive_coding(net, energies={"_0": SquaredError(0.7)}, output=SquaredError(4.0))
    curvature = 0.7 * torch.eye(3).double() + 4.0 * w2.T @ w2
    z = torch.linalg.solve(curvature, (0.7 * x @ w1.T + 4.0 * y @ w2).T).T
    residual = y - x @ w1.T @ w2.T
    spread = torch.eye(2).double() / 4.0 + w2 @ w2.T / 0.7
    lowest = 0.5 * (residual * torch.linalg.solve(spread, residual.T).T).sum(1)
    lowest = lowest - 0.5 * (3 * np.log(0.7) + 2 * np.log(4.0))
    clamp = {"input": x, "output": y}
    errors = ErrorOptimisation(n_steps=4000, step=0.03, tol=1e-13)
    slow = GradientDescent(n_steps=5000, step=0.02, tol=1e-13)
    auto = ErrorOptimisation(n_steps=4000, step="auto", tol=1e-13)
    for method in (slow, errors, auto, GaussNewton(tol=1e-12), Exact()):
        settled = infer(network.double(), clamp, method)
        torch.testing.assert_close(settled.states["_0"], z, rtol=0, atol=1e-9)
        torch.testing.assert_close(settled.energy, lowest, rtol=1e-9, atol=0)


@pytest.mark.parametrize("output", [None, CrossEntropy(0.7)])
def test_all_methods_reach_one_equilibrium(rng, output):
    network, clamp = network_of(rng, output=output), ends(rng)
    clamp["output"] = torch.softmax(clamp["output"], 1)
    reference = infer(network, clamp, LONG)
    errors = ErrorOptimisation(n_steps=2000, step=0.2, tol=1e-13)
    adam = ErrorOptimisation(n_steps=3000, step=0.003, optimiser="adam", tol=1e-13)
    auto = ErrorOptimisation(n_steps=300, step="auto", tol=1e-10)
    for method in (errors, auto, GaussNewton(n_steps=100, tol=1e-11)):
        same(infer(network, clamp, method), reference, 1e-8)
    for method in (adam, AdamDescent(n_steps=3000, step=0.003)):
        same(infer(network, clamp, method), reference, 1e-3)


def test_mixed_clamps_reach_one_equilibrium(rng):
    net = network_of(rng)
    prior = Node("input", (), Prior(0.3 * torch.ones(4).double()), SquaredError(0.7).double())
    network = PCNetwork([], [prior, *net.nodes.values()], body=net.body)
    x, y = tensor(rng, 3, 4), tensor(rng, 3, 3)
    half = torch.tensor([True, False, True, False])
    free_hidden = torch.tensor([[True] * 2 + [False] * 4])
    clamps = [
        {"output": y},
        {"input": Masked(x, half), "output": y},
        {"input": x, "output": Masked(y, half[:3])},
        {"_1": Masked(tensor(rng, 3, 6), free_hidden), "output": y},
        {"_1": tensor(rng, 3, 6), "output": y},
    ]
    for clamp in clamps:
        reference = infer(network, clamp, LONG)
        errors = ErrorOptimisation(n_steps=3000, step=0.1, tol=1e-13)
        same(infer(network, clamp, errors), reference, 1e-7)
        auto = ErrorOptimisation(n_steps=1000, step="auto", tol=1e-10)
        same(infer(network, clamp, auto), reference, 1e-7)
        same(infer(network, clamp, GaussNewton(n_steps=200, tol=1e-11)), reference, 1e-7)


def test_exact_solves_masked_linear_networks(rng):
    network = network_of(rng, act=nn.Identity)
    x, y = tensor(rng, 3, 4), tensor(rng, 3, 3)
    clamp = {"input": Masked(x, torch.tensor([True, False, True, True])), "output": y}
    same(infer(network, clamp, Exact()), infer(network, clamp, GaussNewton(tol=1e-12)), 1e-8)


def test_exact_refuses_what_it_cannot_solve(rng, refused):
    clamp = ends(rng)
    assert "Use GaussNewton" in refused(infer, network_of(rng), clamp, Exact())
    linear = network_of(rng, act=nn.Identity)
    assert "at most 10" in refused(infer, linear, clamp, Exact(max_units=10))
    several = Masked(clamp["input"], torch.rand(4, 4) > 0.5)
    words = refused(infer, linear, {"input": several, "output": clamp["output"]}, Exact())
    assert "one mask for all" in words
    start = {"input": torch.zeros(4, 4).double()}
    words = refused(infer, linear, {"output": clamp["output"]}, Exact(), initial=start)
    assert "prior" in words


@pytest.mark.parametrize(
    "method",
    [
        GradientDescent(n_steps=60, step=0.05),
        ErrorOptimisation(n_steps=60, step=0.05),
        ErrorOptimisation(n_steps=60, step="auto"),
        GaussNewton(n_steps=20),
    ],
)
def test_energy_never_rises(rng, method):
    trace = np.array(infer(network_of(rng), ends(rng), method, record=True).trace)
    assert (np.diff(trace) <= 1e-12).all()
    assert trace[-1] < trace[0]


@pytest.mark.parametrize("scale", [0.7, 4.0])
def test_automatic_step_converges_where_a_fixed_one_diverges(rng, scale):
    network, clamp = network_of(rng, act=nn.Identity), ends(rng)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.mul_(scale)
    curve = curve_of(pose(network, clamp))
    # Columns of the curvature in errors scaled to precision 1, where the fixed step moves.
    unit = torch.eye(11).double()
    model = curve_of(pose(network, {k: v[:1].expand(11, -1) for k, v in clamp.items()}))
    model = model.quadratic(model.start)
    root = torch.tensor([0.7] * 6 + [4.0] * 5).double().sqrt()
    matrix = model.product(unit, model.push(unit)) / root / root[:, None]
    bound = 2 / float(torch.linalg.eigvalsh(matrix)[-1])
    lowest = infer(network, clamp, Exact()).energy
    auto = ErrorOptimisation(n_steps=4000, step="auto", tol=1e-12)
    settled = infer(network, clamp, auto, record=True)
    torch.testing.assert_close(settled.energy, lowest, rtol=0, atol=1e-9)
    rounding = 1e-14 * max(abs(energy) for energy in settled.trace)
    assert (np.diff(settled.trace) <= rounding).all()
    below = infer(network, clamp, ErrorOptimisation(n_steps=100, step=0.9 * bound))
    assert (below.energy < curve.energy(curve.start)).all()
    with pytest.raises(RuntimeError, match="inference that settles"):
        infer(network, clamp, ErrorOptimisation(n_steps=100, step=1.1 * bound))


@pytest.mark.parametrize("record", [True, False])
@pytest.mark.parametrize("method", [GradientDescent, ErrorOptimisation])
def test_energies_that_run_off_are_refused_though_finite(rng, method, record):
    # Two scalar layers: F = (z - a)^2 / 2 + (y - w z)^2 / 2, curvature c = 1 + w^2 in both. A step
    # e multiplies the distance from the lowest point by 1 - e c.
    w, y, n = 2.0, 3.0, 10
    net = nn.Sequential(nn.Linear(1, 1, bias=False), nn.Linear(1, 1, bias=False)).double()
    net[0].weight.data[:], net[1].weight.data[:] = 1.0, w
    network = predictive_coding(net)
    clamp = {"input": torch.ones(1, 1).double(), "output": y * torch.ones(1, 1).double()}
    lowest = (y - w) ** 2 / 2 / (1 + w**2)
    gain = (y - w) ** 2 / 2 - lowest

    def end_at(growth):
        return infer(network, clamp, method(n_steps=n, step=(1 + growth) / (1 + w**2)),
                     record=record).energy  # fmt: skip

    # An energy of 100 is what an overshooting step may leave; 1e6 is not.
    for energy in (1.0, 100.0):
        growth = ((energy - lowest) / gain) ** (0.5 / n)
        assert float(end_at(growth)[0]) == pytest.approx(energy, rel=1e-9)
    with pytest.raises(RuntimeError, match=r"an energy of 1e\+06, 0\.5 before, at step 10"):
        end_at((1e6 / gain) ** (0.5 / n))


def test_automatic_step_is_the_lowest_point_on_its_line():
    net = nn.Sequential(nn.Linear(1, 1, bias=False), nn.Linear(1, 1, bias=False)).double()
    net[0].weight.data[:], net[1].weight.data[:] = 0.7, 4.0
    clamp = {"input": torch.ones(1, 1).double(), "output": 3.0 * torch.ones(1, 1).double()}
    network = predictive_coding(net, energies={"_0": SquaredError(0.6)})
    settled = infer(network, clamp, ErrorOptimisation(n_steps=1, step="auto"))
    # One unit: 0.6 (z - 0.7) = 4 (3 - 4 z), at any precision after one step.
    assert abs(float(settled.states["_0"]) - 12.42 / 16.6) < 1e-12


def test_examples_have_their_own_automatic_step(rng):
    network, clamp = network_of(rng), ends(rng)
    method = ErrorOptimisation(n_steps=5, step="auto")
    together = infer(network, clamp, method).states["_1"]
    alone = infer(network, {k: v[2:3] for k, v in clamp.items()}, method).states["_1"]
    torch.testing.assert_close(together[2:3], alone, rtol=0, atol=1e-12)


def test_error_coordinates_need_far_fewer_steps_when_deep(rng):
    layers = []
    for _ in range(12):
        layers += [nn.Linear(8, 8), nn.Tanh()]
    net = nn.Sequential(*layers, nn.Linear(8, 3)).double()
    with torch.no_grad():
        for layer in net:
            if isinstance(layer, nn.Linear):
                layer.weight.copy_(tensor(rng, *layer.weight.shape) / np.sqrt(8))
    network = predictive_coding(net)
    clamp = {"input": tensor(rng, 16, 8), "output": tensor(rng, 16, 3)}
    lowest = float(infer(network, clamp, GaussNewton(n_steps=60, tol=1e-8)).energy.sum())

    def steps_needed(method):
        trace = np.array(infer(network, clamp, method, record=True).trace)
        near = trace <= lowest + 0.01 * (trace[0] - lowest)
        return int(np.argmax(near)) if near.any() else len(trace)

    errors = steps_needed(ErrorOptimisation(n_steps=200, step=0.2))
    activities = steps_needed(GradientDescent(n_steps=1000, step=0.2))
    assert 5 * errors <= activities


def test_descent_follows_torch_optimisers(rng):
    network, clamp = network_of(rng), ends(rng)

    def by_torch(make, n_steps):
        states = network.feedforward({"input": clamp["input"]})
        free = [states[k].detach().clone().requires_grad_() for k in ("_1", "_3")]
        optimiser = make(free)
        for _ in range(n_steps):
            optimiser.zero_grad()
            named = dict(zip(("_1", "_3"), free, strict=True))
            network.energy({**clamp, **named}).sum().backward()
            optimiser.step()
        return free

    pairs = [
        (GradientDescent(n_steps=9, step=0.05), lambda p: torch.optim.SGD(p, 0.05)),
        (GradientDescent(n_steps=9, step=0.05, momentum=0.7),
         lambda p: torch.optim.SGD(p, 0.05, momentum=0.7)),
        (AdamDescent(n_steps=9, step=0.05), lambda p: torch.optim.Adam(p, 0.05)),
    ]  # fmt: skip
    for method, make in pairs:
        expected = by_torch(make, 9)
        states = infer(network, clamp, method).states
        for name, value in zip(("_1", "_3"), expected, strict=True):
            torch.testing.assert_close(states[name], value.detach(), rtol=0, atol=1e-7)


def test_discount_shrinks_the_step_when_energy_does_not_fall():
    net = nn.Sequential(nn.Linear(1, 1, bias=False), nn.Linear(1, 1, bias=False)).double()
    net[0].weight.data[:], net[1].weight.data[:] = 0.7, 4.0
    x, y = torch.ones(1, 1).double(), 3.0 * torch.ones(1, 1).double()
    z, step, last, energies = 0.7, 0.15, np.inf, []
    for _ in range(12):
        energy = 0.5 * (z - 0.7) ** 2 + 0.5 * (3.0 - 4.0 * z) ** 2
        energies.append(energy)
        step, last = step * (0.5 if energy >= last else 1.0), energy
        z -= step * ((z - 0.7) - 4.0 * (3.0 - 4.0 * z))
    method = GradientDescent(n_steps=12, step=0.15, discount=0.5)
    clamp = {"input": x, "output": y}
    settled = infer(predictive_coding(net), clamp, method, record=True)
    np.testing.assert_allclose(settled.trace[:12], energies, rtol=1e-12)
    assert settled.trace[1] > settled.trace[0]
    assert abs(float(settled.states["_0"]) - z) < 1e-12


def test_early_stops(rng):
    network, clamp = network_of(rng), ends(rng)
    stopped = infer(network, clamp, GradientDescent(n_steps=500, tol=1e-4))
    assert 0 < stopped.n_steps < 500
    net = nn.Sequential(nn.Linear(1, 1, bias=False), nn.Linear(1, 1, bias=False)).double()
    net[0].weight.data[:], net[1].weight.data[:] = 0.7, 4.0
    one = torch.ones(1, 1).double()
    # Mean absolute error from (0 + 0.2) / 2 down to 0.2 (4 + 1) / 17 / 2 = 0.029.
    clamp = {"input": one, "output": 3.0 * one}
    method = GradientDescent(n_steps=500, step=0.01, threshold=0.05)
    settled = infer(predictive_coding(net), clamp, method)
    z = float(settled.states["_0"])
    assert 0 < settled.n_steps < 500
    assert 0.04 < (abs(z - 0.7) + abs(3.0 - 4.0 * z)) / 2 < 0.05


def test_steps_by_node(rng):
    network, clamp = network_of(rng), ends(rng)
    start = infer(network, clamp, GradientDescent(n_steps=0)).states
    moved = infer(network, clamp, GradientDescent(n_steps=1, step={"_1": 0.0, "_3": 0.1})).states
    assert torch.equal(moved["_1"], start["_1"])
    assert not torch.equal(moved["_3"], start["_3"])


def test_bad_settings_are_refused(rng, refused):
    network, clamp = network_of(rng), ends(rng)
    assert "n_steps" in refused(GradientDescent, n_steps=-1)
    assert "discount" in refused(GradientDescent, discount=1.5)
    assert "above 0" in refused(GradientDescent, threshold=0.0)
    assert "'adam'" in refused(ErrorOptimisation, optimiser="sgd")
    assert "'auto'" in refused(ErrorOptimisation, step="automatic")
    words = refused(ErrorOptimisation, step="auto", momentum=0.5)
    assert "momentum 0.5" in words
    assert "give a number" in words
    assert "optimiser 'adam'" in refused(ErrorOptimisation, step="auto", optimiser="adam")
    assert "damping" in refused(GaussNewton, damping=-1.0)
    words = refused(infer, network, clamp, GradientDescent(step={"_1": 0.1}))
    assert "['_3']" in words
    words = refused(infer, network, clamp, GradientDescent(step={"_1": 0.1, "_3": 0.1, "_2": 1.0}))
    assert "'_2'" in words


def test_divergence_is_refused(rng):
    network, clamp = network_of(rng, act=nn.Identity), ends(rng)
    for record in (True, False):
        with pytest.raises(RuntimeError, match="Lower the step"):
            infer(network, clamp, GradientDescent(n_steps=2000, step=50.0), record=record)
