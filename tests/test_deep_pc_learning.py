"""Learning rules: local is the energy's slope, and the limits that theory knows are reached."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from pc_cases import filled, tensor
from torch import nn

from pcsim.deep.pc_clamp import pose
from pcsim.deep.pc_curvature import curve_of
from pcsim.deep.pc_depth import residual_network
from pcsim.deep.pc_energy import CrossEntropy, SquaredError
from pcsim.deep.pc_errors import ErrorOptimisation
from pcsim.deep.pc_hybrid import amortized_gradients, guess, hybrid_step, reverse_chain
from pcsim.deep.pc_inference import GradientDescent, infer
from pcsim.deep.pc_learning import (
    backprop_step,
    energy_gradients,
    incremental_step,
    local_gradients,
    train_step,
)
from pcsim.deep.pc_newton import Exact, GaussNewton
from pcsim.deep.pc_proximal import proximal_step
from pcsim.deep.pc_trace import predictive_coding


class ResidualConvolution(nn.Module):
    """Strided, grouped and padded convolutions, a residual link and a normalisation."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(1, 4, 3, padding=1, stride=2)
        self.inner = nn.Conv2d(4, 4, 3, padding="same", bias=False)
        self.outer = nn.Conv2d(4, 4, 3, padding=1, groups=2)
        self.norm, self.head = nn.GroupNorm(2, 4), nn.Linear(16, 3)

    def forward(self, x):
        h = self.stem(x)
        h = h + self.outer(torch.relu(self.norm(self.inner(torch.tanh(h)))))
        return self.head(torch.relu(h).flatten(1))


def convolutional_case(rng, cut):
    module = filled(ResidualConvolution(), rng)
    hidden = list(predictive_coding(module, cut=cut).nodes)[:-1]
    precision = torch.tensor(0.7, dtype=torch.float64)
    energies = {name: SquaredError(precision, learnable=True) for name in hidden}
    network = predictive_coding(module, cut=cut, energies=energies, output=CrossEntropy(0.7))
    clamp = {"x": tensor(rng, 3, 1, 4, 4), "output": torch.softmax(tensor(rng, 3, 3), 1)}
    return network.double(), clamp


@pytest.mark.parametrize("cut", ["after_activation", "before_activation"])
def test_local_rules_are_the_slope_of_the_energy(rng, cut):
    network, clamp = convolutional_case(rng, cut)
    states = infer(network, clamp).states
    by_energy, by_rule = energy_gradients(network, states), local_gradients(network, states)
    assert by_energy.keys() == by_rule.keys()
    assert any("log_precision" in name for name in by_rule)
    for name, gradient in by_energy.items():
        assert float(gradient.abs().max()) > 0, name
        torch.testing.assert_close(by_rule[name], gradient, rtol=0, atol=1e-12, msg=name)


def test_convolutional_energy_by_hand(rng):
    network, clamp = convolutional_case(rng, "before_activation")
    states = {k: v.requires_grad_() for k, v in infer(network, clamp).states.items()}
    m = network.body
    stem, inner, total = states["stem"], states["inner"], states["add"]
    predictions = {
        "stem": m.stem(states["x"]),
        "inner": m.inner(torch.tanh(stem)),
        "add": stem + m.outer(torch.relu(m.norm(inner))),
    }
    energy = sum(
        0.5 * (0.7 * (states[k] - p).square() - np.log(0.7)).sum() for k, p in predictions.items()
    )
    logits = m.head(torch.relu(total).flatten(1))
    energy = energy - 0.7 * (states["output"] * torch.log_softmax(logits, 1)).sum()
    free = [stem, inner, total]
    expected = torch.autograd.grad(energy, free)
    found = torch.autograd.grad(network.energy(states).sum(), free)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-12)


def test_per_unit_precision_learns_its_slope(rng):
    net = filled(nn.Sequential(nn.Linear(3, 2)), rng)
    precision = torch.tensor([0.7, 4.0]).double()
    network = predictive_coding(net, output=SquaredError(precision, learnable=True))
    x, y = tensor(rng, 5, 3), tensor(rng, 5, 2)
    found = local_gradients(network, {"input": x, "output": y})["energies.output.log_precision"]
    expected = 0.5 * (precision * (y - net(x)).square().mean(0) - 1)
    torch.testing.assert_close(found, expected.detach())


def test_converged_update_of_a_linear_network_is_analytic(rng):
    w1, w2 = tensor(rng, 3, 2), tensor(rng, 2, 3)
    net = nn.Sequential(nn.Linear(2, 3, bias=False), nn.Linear(3, 2, bias=False)).double()
    net[0].weight.data, net[1].weight.data = w1.clone(), w2.clone()
    energies = {"_0": SquaredError(0.7)}
    network = predictive_coding(net, energies=energies, output=SquaredError(4.0)).double()
    x, y = tensor(rng, 6, 2), tensor(rng, 6, 2)
    z = torch.linalg.solve(
        0.7 * torch.eye(3).double() + 4.0 * w2.T @ w2, (0.7 * x @ w1.T + 4.0 * y @ w2).T
    ).T
    optimiser = torch.optim.SGD(network.parameters(), 0.3)
    train_step(network, {"input": x, "output": y}, Exact(), optimiser, rule="local")
    first = w1 + 0.3 * 0.7 * (z - x @ w1.T).T @ x / 6
    second = w2 + 0.3 * 4.0 * (y - z @ w2.T).T @ z / 6
    torch.testing.assert_close(net[0].weight.detach(), first, rtol=0, atol=1e-10)
    torch.testing.assert_close(net[1].weight.detach(), second, rtol=0, atol=1e-10)


def directions(network, net, x, y, method):
    states = infer(network, {"input": x, "output": y}, method).states
    found = torch.cat([g.flatten() for g in energy_gradients(network, states).values()])
    loss = 0.5 * (net(x) - y).square().sum() / len(x)
    expected = torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(net.parameters()))])
    return float(nn.functional.cosine_similarity(found, expected, dim=0))


@pytest.mark.parametrize("size", [1e-3, 0.3])
def test_weakly_held_outputs_give_the_direction_of_backpropagation(rng, size):
    # With errors free to stay at the output, hidden ones are backpropagation's (Whittington and
    # Bogacz 2017); at equal precisions they are mixed by (I + W W^T)^-1 however small they are.
    net = filled(nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3)), rng)
    x = tensor(rng, 8, 4)
    y = net(x).detach() + size * tensor(rng, 8, 3)
    method = GaussNewton(n_steps=50, tol=1e-10)
    energies = {"_1": SquaredError(4.0)}
    network = predictive_coding(net, energies=energies, output=SquaredError(4e-4))
    assert directions(network, net, x, y, method) > 0.999
    equal = predictive_coding(net, energies=energies, output=SquaredError(4.0))
    assert directions(equal, net, x, y, method) < directions(network, net, x, y, method)


def test_one_hidden_layer_at_small_error_is_backpropagation(rng):
    # One output: (I + W W^T)^-1 is one number an example, nearly the same for all of them.
    net = filled(nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 1)), rng, scale=0.1)
    x = tensor(rng, 8, 4)
    y = net(x).detach() + 1e-3 * tensor(rng, 8, 1)
    network = predictive_coding(net, energies={"_1": SquaredError(0.7)}, output=SquaredError(4.0))
    method = GaussNewton(n_steps=50, tol=1e-10)
    assert directions(network, net, x, y, method) > 0.999


def test_backprop_step_is_torch_backpropagation(rng):
    net = filled(nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3)), rng)
    x, label = tensor(rng, 8, 4), torch.arange(8) % 3
    network = predictive_coding(net, output=CrossEntropy())
    loss = nn.functional.cross_entropy(net(x), label)
    gradients = torch.autograd.grad(loss, list(net.parameters()))
    expected = [p.detach() - 0.1 * g for p, g in zip(net.parameters(), gradients, strict=True)]
    target = nn.functional.one_hot(label).double()
    found = backprop_step(network, {"input": x}, target, torch.optim.SGD(net.parameters(), 0.1))
    torch.testing.assert_close(found.mean(), loss.detach())
    for one, other in zip(net.parameters(), expected, strict=True):
        torch.testing.assert_close(one.detach(), other)


def test_one_incremental_step_is_one_plain_step(rng):
    clamp = {"input": tensor(rng, 5, 4), "output": tensor(rng, 5, 3)}
    weights = []
    for step in (incremental_step, train_step):
        net = filled(nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3)),
                   np.random.default_rng(3))  # fmt: skip
        network = predictive_coding(net)
        step(network, clamp, GradientDescent(n_steps=1), torch.optim.SGD(net.parameters(), 0.1))
        weights.append([p.detach() for p in net.parameters()])
    for one, other in zip(*weights, strict=True):
        torch.testing.assert_close(one, other)
    settled = incremental_step(
        network, clamp, GradientDescent(n_steps=20), torch.optim.SGD(net.parameters(), 0.05)
    )
    still = infer(network, clamp, GradientDescent(n_steps=0)).energy.sum()
    assert settled.trace[-1] < settled.trace[0]
    assert settled.n_steps == 20
    assert bool(torch.isfinite(still))


def test_incremental_refuses_methods_in_the_errors(rng, refused):
    net = filled(nn.Sequential(nn.Linear(4, 3)), rng)
    clamp = {"input": tensor(rng, 2, 4), "output": tensor(rng, 2, 3)}
    optimiser = torch.optim.SGD(net.parameters(), 0.1)
    words = refused(incremental_step, predictive_coding(net), clamp, ErrorOptimisation(), optimiser)
    assert "GradientDescent" in words


def test_incremental_steps_do_not_learn_from_what_is_not_finite(rng):
    network, clamp = convolutional_case(rng, "after_activation")
    optimiser = torch.optim.SGD(network.parameters(), 0.0)
    method = GradientDescent(n_steps=500, step=1e9)
    with pytest.raises(RuntimeError, match=r"at step \d+ of GradientDescent"):
        incremental_step(network, clamp, method, optimiser)
    assert all(torch.isfinite(p.grad).all() for p in network.parameters() if p.grad is not None)


def test_proximal_step_meets_the_target_in_its_limit(rng):
    net = filled(nn.Sequential(nn.Linear(4, 3, bias=False)), rng)
    network = predictive_coding(net)
    x, y = tensor(rng, 1, 4), tensor(rng, 1, 3)
    before = net(x).detach()
    norm = float(x.square().sum())
    proximal_step(network, {"input": x, "output": y}, GradientDescent(), rate=0.7, epsilon=0.0)
    share = 0.7 * norm / (1 + 0.7 * norm)
    # The minimum of |y - Wx|^2 / 2 + |W - W_0|^2 / (2 rate), in closed form.
    torch.testing.assert_close(net(x).detach(), before + share * (y - before))
    proximal_step(network, {"input": x, "output": y}, GradientDescent(), rate=1e12, epsilon=0.0)
    torch.testing.assert_close(net(x).detach(), y, rtol=0, atol=1e-9)


def test_proximal_needs_both_ends(rng, refused):
    network = predictive_coding(filled(nn.Sequential(nn.Linear(4, 3)), rng))
    clamp = {"input": tensor(rng, 2, 4)}
    assert "whole output" in refused(proximal_step, network, clamp, GradientDescent(), rate=1.0)
    assert "rate" in refused(proximal_step, network, clamp, GradientDescent(), rate=0.0)


def test_rule_is_checked(rng, refused):
    net = filled(nn.Sequential(nn.Linear(4, 3)), rng)
    clamp = {"input": tensor(rng, 2, 4), "output": tensor(rng, 2, 3)}
    optimiser = torch.optim.SGD(net.parameters(), 0.1)
    words = refused(
        train_step, predictive_coding(net), clamp, GradientDescent(), optimiser, rule="hebb"
    )
    assert "'local'" in words


def test_sixty_four_layers_train():
    draw = torch.Generator().manual_seed(1)
    teacher = torch.randn(8, 2, generator=draw)
    network = residual_network(8, 32, 2, depth=64, activation="tanh", generator=draw)
    optimiser = torch.optim.Adam(network.parameters(), 1e-2)

    def batch(n):
        x = torch.randn(n, 8, generator=draw)
        return x, nn.functional.one_hot((x @ teacher).argmax(1), 2).float()

    method = ErrorOptimisation(n_steps=3, step=0.3)
    for _ in range(40):
        x, y = batch(64)
        train_step(network, {"input": x, "output": y}, method, optimiser)
    x, y = batch(1000)
    assert float((network(x).argmax(1) == y.argmax(1)).double().mean()) > 0.9


def classes():
    """Return 128 examples of four classes that a linear teacher separates."""
    rng = torch.Generator().manual_seed(1)
    x, teacher = torch.randn(128, 8, generator=rng), torch.randn(8, 4, generator=rng)
    return x, nn.functional.one_hot((x @ teacher).argmax(1), 4).float()


def test_training_bends_the_energy_until_a_fixed_step_overshoots():
    x, y = classes()
    clamp = {"input": x, "output": y}

    def train(step):
        torch.manual_seed(0)
        layers = [nn.Linear(8, 16), nn.GELU(), nn.Linear(16, 16), nn.GELU(), nn.Linear(16, 4)]
        network = predictive_coding(nn.Sequential(*layers))
        optimiser = torch.optim.Adam(network.parameters(), 0.01)
        method, shares, rises = ErrorOptimisation(n_steps=4, step=step), [], []
        for count in range(150):
            if count % 50 == 49:
                with torch.no_grad():
                    shares.append(float((network(x).argmax(1) == y.argmax(1)).float().mean()))
                start = infer(network, clamp, GradientDescent(n_steps=0)).energy
                end = infer(network, clamp, method).energy
                rises.append(float((end > 1.0001 * start).float().mean()))
            train_step(network, clamp, method, optimiser)
        curve = curve_of(pose(network, clamp))
        model = curve.quadratic(curve.start)
        probe = model.gradient
        for _ in range(20):
            probe = model.product(probe, model.push(probe))
            bend = probe.norm(dim=1)
            probe = probe / bend[:, None]
        return shares, rises, float(bend.max())

    _, rises, bend = train(0.5)
    assert bend > 2 / 0.5
    assert max(rises) > 0.05
    shares, rises, bend = train("auto")
    assert bend > 2 / 0.5
    assert max(rises) == 0.0
    assert shares[-1] > 0.9


def test_mupc_keeps_the_size_of_activities_at_any_depth():
    x = torch.randn(64, 20, generator=torch.Generator().manual_seed(2)).double()
    sizes = []
    for depth in (8, 128):
        draw = torch.Generator().manual_seed(3)
        network = residual_network(20, 64, 3, depth=depth, generator=draw).double()
        sizes.append(network.feedforward({"input": x})[f"layer_{depth - 1}"].square().mean())
    # Each block adds at most a share 1 / depth of the variance: between 1 and e.
    assert all(0.7 < float(size.detach()) < 4.0 for size in sizes)


def test_amortizer_learns_what_was_settled_on(rng):
    net = filled(nn.Sequential(nn.Linear(2, 5), nn.Tanh(), nn.Linear(5, 8)), rng)
    network = predictive_coding(net)
    amortizer = filled(reverse_chain(network), rng)
    states = {"input": tensor(rng, 4, 2), "_1": tensor(rng, 4, 5), "output": tensor(rng, 4, 8)}
    found = amortized_gradients(amortizer, states, "settled")
    expected = energy_gradients(amortizer, states)
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient)
    hidden = amortizer.feedforward({"output": states["output"]})["_1"].detach()
    error = states["input"] - amortizer.predict("input", {"_1": hidden}).detach()
    by_guess = amortized_gradients(amortizer, states)["predictors.input.weight"]
    torch.testing.assert_close(by_guess, -error.T @ hidden / 4)


def test_hybrid_learns_to_start_near_the_end():
    draw = torch.Generator().manual_seed(4)
    centres = torch.randn(2, 8, generator=draw)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        network = predictive_coding(nn.Sequential(nn.Linear(2, 12), nn.Tanh(), nn.Linear(12, 8)))
        amortizer = reverse_chain(network)
    optimisers = tuple(torch.optim.Adam(m.parameters(), 1e-2) for m in (network, amortizer))

    def batch(n):
        label = torch.randint(0, 2, (n,), generator=draw)
        image = centres[label] + 0.3 * torch.randn(n, 8, generator=draw)
        return nn.functional.one_hot(label, 2).float(), image

    for _ in range(80):
        label, image = batch(32)
        hybrid_step(network, amortizer, {"input": label, "output": image},
                    GradientDescent(n_steps=10), optimisers=optimisers)  # fmt: skip
    label, image = batch(200)
    start = guess(amortizer, {"output": image})
    assert float((start["input"].argmax(1) == label.argmax(1)).double().mean()) > 0.95
    cold = {"input": torch.zeros(200, 2)}
    clamp, method = {"output": image}, GradientDescent(n_steps=5)
    warm = infer(network, clamp, method, initial=start).energy.mean()
    assert warm < infer(network, clamp, method, initial=cold).energy.mean()


def test_bad_amortizers_are_refused(rng, refused):
    network = predictive_coding(filled(nn.Sequential(nn.Linear(2, 3)), rng))
    amortizer = reverse_chain(network)
    assert "Clamp it" in refused(guess, amortizer, {"input": tensor(rng, 2, 2)})
    assert "a chain" in refused(reverse_chain, residual_network(2, 3, 2, depth=4))
