"""Incremental predictive coding by hand: activities and weights change in parallel."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from pcsim.deep.pc_descent import AdamDescent
from pcsim.deep.pc_energy import SquaredError
from pcsim.deep.pc_inference import GradientDescent
from pcsim.deep.pc_learning import incremental_step
from pcsim.deep.pc_trace import predictive_coding

SIZES = (4, 6, 5, 3)
PRECISIONS = (0.7, 2.5, 4.0)
"""Of the two hidden nodes and of the output."""
STEP, RATE, BATCH = 0.07, 0.11, 5


def slopes(weights, biases, z):
    """Return dF/dz of the hidden nodes, dF/dW and dF/db (means), F; predictions W tanh(z) + b."""
    rates = [z[0], *(np.tanh(one) for one in z[1:-1])]
    layers = zip(PRECISIONS, z[1:], rates, weights, biases, strict=True)
    errors = [p * (above - rate @ w.T - b) for p, above, rate, w, b in layers]
    by_z = [
        errors[i] - (1 - rates[i + 1] ** 2) * (errors[i + 1] @ weights[i + 1]) for i in range(2)
    ]
    by_w = [-error.T @ rate / BATCH for error, rate in zip(errors, rates, strict=True)]
    by_b = [-error.mean(0) for error in errors]
    pairs = zip(PRECISIONS, errors, strict=True)
    energy = sum((0.5 * (e**2 / p - np.log(p))).sum() for p, e in pairs)
    return by_z, by_w, by_b, energy


def moved(values, directions, size):
    return [value - size * one for value, one in zip(values, directions, strict=True)]


def by_hand(weights, biases, x, y, n_steps):
    """Both from the values before, at every step; at the start only the activities move."""
    z = [x]
    for w, b in zip(weights[:-1], biases[:-1], strict=True):
        z.append((np.tanh(z[-1]) if len(z) > 1 else z[-1]) @ w.T + b)
    z.append(y)
    energies = []
    for count in range(n_steps + 1):
        by_z, by_w, by_b, energy = slopes(weights, biases, z)
        energies.append(energy)
        if count < n_steps:
            z = [x, *moved(z[1:-1], by_z, STEP), y]
        if count:
            weights, biases = moved(weights, by_w, RATE), moved(biases, by_b, RATE)
    return weights, biases, z, energies


def network_and_arrays(rng):
    shapes = list(zip(SIZES[1:], SIZES[:-1], strict=True))
    weights = [0.5 * rng.normal(size=shape) for shape in shapes]
    biases = [0.5 * rng.normal(size=n) for n, _ in shapes]
    layers = []
    for w, b in zip(weights, biases, strict=True):
        layers += [nn.Tanh()] if layers else []
        layers.append(nn.Linear(w.shape[1], w.shape[0]).double())
        layers[-1].weight.data, layers[-1].bias.data = torch.tensor(w), torch.tensor(b)
    energies = {"_0": SquaredError(PRECISIONS[0]), "_2": SquaredError(PRECISIONS[1])}
    network = predictive_coding(
        nn.Sequential(*layers),
        cut="before_activation",
        energies=energies,
        output=SquaredError(PRECISIONS[2]),
    )
    return network, weights, biases


@pytest.mark.parametrize("n_steps", [1, 2, 7])
def test_activities_and_weights_change_in_parallel(rng, n_steps):
    network, weights, biases = network_and_arrays(rng)
    x, y = rng.normal(size=(BATCH, 4)), rng.normal(size=(BATCH, 3))
    expected_w, expected_b, z, energies = by_hand(weights, biases, x, y, n_steps)
    settled = incremental_step(
        network,
        {"input": torch.tensor(x), "output": torch.tensor(y)},
        GradientDescent(n_steps=n_steps, step=STEP),
        torch.optim.SGD(network.parameters(), RATE),
    )
    found = [layer for layer in network.body if isinstance(layer, nn.Linear)]
    for layer, w, b in zip(found, expected_w, expected_b, strict=True):
        np.testing.assert_allclose(layer.weight.detach(), w, rtol=0, atol=1e-12)
        np.testing.assert_allclose(layer.bias.detach(), b, rtol=0, atol=1e-12)
    for name, state in zip(network.names, z, strict=True):
        np.testing.assert_allclose(settled.states[name], state, rtol=0, atol=1e-12)
    assert settled.n_steps == n_steps
    # The last energy of the trace is that of the last activities before their weights changed.
    np.testing.assert_allclose(settled.trace, energies, rtol=1e-12)
    last = slopes(expected_w, expected_b, z)[-1]
    np.testing.assert_allclose(float(settled.energy.sum()), last, rtol=1e-12)


@pytest.mark.parametrize("kind", [GradientDescent, AdamDescent])
def test_threshold_sees_the_weights_of_the_moment(rng, kind):
    # The first prediction comes from held nodes alone, and its weights change all the same.
    x, y = torch.tensor(rng.normal(size=(BATCH, 4))), torch.tensor(rng.normal(size=(BATCH, 3)))
    clamp = {"input": x, "output": y}
    network, _, _ = network_and_arrays(rng)
    start = {k: torch.tensor(3 * rng.normal(size=(BATCH, n))) for k, n in (("_0", 6), ("_2", 5))}
    before = [p.detach().clone() for p in network.parameters()]

    def run(threshold, n_steps=40):
        with torch.no_grad():
            for parameter, value in zip(network.parameters(), before, strict=True):
                parameter.copy_(value)
        optimiser = torch.optim.SGD(network.parameters(), 0.03)
        method = kind(n_steps=n_steps, step=0.05, threshold=threshold)
        settled = incremental_step(network, clamp, method, optimiser, initial=start)
        left = network.errors(settled.states)
        total = sum(float(e.detach().abs().sum()) for e in left.values())
        return settled.n_steps, total / sum(e.numel() for e in left.values())

    # Without a threshold, after n steps: the mean error that the look after them must see.
    seen = [run(None, n_steps=n)[1] for n in range(26)]
    threshold = 1.001 * seen[-1]
    first = next(n for n, error in enumerate(seen) if error < threshold)
    assert first > 2
    stopped, error = run(threshold)
    assert stopped == first
    assert error == pytest.approx(seen[first], rel=1e-12)
