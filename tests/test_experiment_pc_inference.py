"""Inference learning and hybrid perception: rules against the library's, and tiny runs."""

from __future__ import annotations

import csv
from dataclasses import replace

import numpy as np
import pytest
import torch
from pc_cases import filled
from torch import nn

from pcsim import catalog
from pcsim.deep.pc_comparison import Change, Lesson, Networks, change_weights, error_rate, train
from pcsim.deep.pc_descent import GradientDescent
from pcsim.deep.pc_energy import CrossEntropy, SquaredError
from pcsim.deep.pc_hybrid import guess
from pcsim.deep.pc_lessons import Images
from pcsim.deep.pc_perception import Perception, PerceptionSettings
from pcsim.deep.pc_proximal import proximal_step
from pcsim.deep.pc_replicas import Replicas, Settling
from pcsim.deep.pc_trace import predictive_coding
from pcsim.experiment import run_experiment

PROXIMAL = (("squared", SquaredError), ("cross_entropy", CrossEntropy))
TINY = PerceptionSettings(sizes=(3, 5, 4, 6), n_train=10, n_test=10)


@pytest.mark.parametrize("n_steps", [0, 1, 20])
@pytest.mark.parametrize(("loss", "energy"), PROXIMAL)
def test_a_proximal_change_is_that_of_the_library(rng, loss, energy, n_steps):
    """Both weaken the output's error by one share, while activities settle and in the change."""
    networks = Networks(
        sizes=(5, 4, 6, 3), seeds=(1,), rates=(0.25,), activation="tanh", loss=loss,
        init="default", bias=True,
    )  # fmt: skip
    net, rates = networks.build()
    net = Replicas(
        [w.double() for w in net.weights],
        [b.double() for b in net.biases],
        net.activation,
        net.loss,
    )
    layers = nn.Sequential(
        nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3)
    ).double()
    for k, layer in enumerate(layers[::2]):
        layer.weight.data.copy_(net.weights[k][0])
        layer.bias.data.copy_(net.biases[k][0, 0])
    x = torch.as_tensor(rng.random((1, 7, 5)))
    y = torch.as_tensor(rng.dirichlet(np.ones(3), size=(1, 7)))
    change = Change(settling=Settling(n_steps=n_steps, step=0.2), optimiser="proximal")
    before = [one.clone() for one in net.parameters]
    change_weights(net, change, rates.double())(x, y)
    general = predictive_coding(layers, cut="before_activation", output=energy())
    method = GradientDescent(n_steps=n_steps, step=0.2)
    proximal_step(general, {"input": x[0], "output": y[0]}, method, rate=0.25, epsilon=0.25)
    for k, layer in enumerate(layers[::2]):
        torch.testing.assert_close(layer.weight.data, net.weights[k][0], rtol=0, atol=1e-12)
        torch.testing.assert_close(layer.bias.data, net.biases[k][0, 0], rtol=0, atol=1e-12)
    moves = [float((p - q).abs().max()) for p, q in zip(net.parameters, before, strict=True)]
    n_moved = min(n_steps, 2) + 1  # the news from the output climbs down one layer a step
    assert [move > 1e-6 for move in moves] == 2 * [k >= 3 - n_moved for k in range(3)]


def test_one_linear_layer_taught_one_image_at_an_endless_rate_knows_it(rng):
    """The proximal change at a rate without bound meets the target exactly."""
    networks = Networks(sizes=(6, 3), seeds=(0,), rates=(1e9,), activation="linear")
    net, rates = networks.build()
    x, y = torch.as_tensor(rng.random((2, 1, 1, 6))[0]).float(), torch.tensor([[[0.2, 0.7, 0.1]]])
    change = Change(rule="bp", optimiser="proximal", epsilon=0.0)
    change_weights(net, change, rates)(x, y)
    torch.testing.assert_close(net.forward(x)[-1], y, rtol=0, atol=1e-5)


def test_seeds_and_rates_are_told_apart(rng):
    networks = Networks(sizes=(4, 3), seeds=(0, 1), rates=(0.0, 0.5, 1.0), activation="linear")
    x = rng.normal(size=(2, 8, 4)).astype(np.float32)
    label = rng.integers(3, size=(2, 8))
    y = np.eye(3, dtype=np.float32)[label]
    change = Change(rule="bp", average=True)
    together = train(networks, change, [Lesson(x, y, ((x, label),))] * 20)
    for k, seed in enumerate((0, 1)):
        for r, rate in enumerate(networks.rates):
            alone = replace(networks, seeds=(seed,), rates=(rate,))
            one = [Lesson(x[k : k + 1], y[k : k + 1], ((x[k], label[k]),))] * 20
            np.testing.assert_allclose(train(alone, change, one)[:, 0, 0, 0], together[:, 0, k, r])


def test_outputs_that_are_not_finite_are_wrong():
    net = Replicas([torch.full((1, 3, 2), torch.nan)], [])
    label = torch.zeros(4, dtype=torch.int64)
    assert float(error_rate(net, torch.ones(1, 4, 2), label)) == 1.0


def test_hybrid_inference_starts_at_the_guess_and_the_guess_learns_where_it_ends(rng):
    network = Perception(TINY, start="amortized", seed=0)
    x = rng.random((8, 6)).astype(np.float32)
    y = np.eye(3, dtype=np.float32)[rng.integers(3, size=8)]
    none = Perception(replace(TINY, n_test=0), start="amortized", seed=0)
    inferred, guessed = none.classify(x)
    np.testing.assert_array_equal(inferred.label, guessed.label)

    def distance() -> float:
        held = guess(network.amortizer, {"image": torch.as_tensor(x)})["label"]
        return float((held - torch.as_tensor(y)).square().sum())

    begin = distance()
    network.adams[1].param_groups[0]["lr"] = 0.03
    for _ in range(60):
        network.learn(x, y)
    assert distance() < 0.7 * begin


def shifted(parameters, k, x):
    """Return what layer k makes of x, from weight and bias of each layer in turn."""
    weight, bias = parameters[2 * k : 2 * k + 2]
    sums = x @ weight.T
    return (sums if 2 * k + 2 == len(parameters) else sums.tanh()) + bias


def misfit(parameters, targets, inputs):
    """Return half the squared errors of all layers about their targets."""
    pairs = enumerate(zip(targets, inputs, strict=True))
    return sum(0.5 * (y - shifted(parameters, k, x)).square().sum() for k, (y, x) in pairs)


def learned_by_hand(networks, adams, batch, begin, settings):
    """Change the parameters of both networks; return energy of an image, at start and end.

    Hidden activities begin where the second network guesses them, unless given.
    """
    (down, up), (x, y) = networks, batch
    guessed = [x]
    for k in range(len(settings.sizes) - 2):
        guessed.append(shifted(up, k, guessed[-1]).detach())
    hidden, energies = guessed[1:] if begin is None else begin, []
    for _ in range(settings.n_train + 1):
        leaves = [one.detach().requires_grad_() for one in hidden]
        states = [y, *leaves[::-1], x]
        energy = misfit(down, states[1:], states[:-1])
        energies.append(float(energy.detach()) / len(x))
        slopes = torch.autograd.grad(energy, leaves)
        ended = [one.detach() for one in leaves]
        hidden = [one - settings.step * g for one, g in zip(ended, slopes, strict=True)]
    causes = [y, *ended[::-1]]
    losses = [misfit(down, [*causes[1:], x], causes)]
    if begin is None:
        losses.append(misfit(up, [*ended, y], guessed))
    for loss, adam in zip(losses, adams, strict=False):
        adam.zero_grad()
        (loss / len(x)).backward()
        adam.step()
    return energies[0], energies[-1]


@pytest.mark.parametrize("start", ["amortized", "random"])
def test_a_batch_changes_the_networks_as_their_energies_say(rng, start):
    settings = replace(TINY, rate=0.01, spread=0.3, step=0.1)
    network = Perception(settings, start=start, seed=0)
    both = [filled(one, rng) for one in (network.network, network.amortizer)]
    drawn = [[p.detach().clone() for p in one.parameters()] for one in both]
    copies = [[p.clone().requires_grad_() for p in one] for one in drawn]
    adams = [torch.optim.Adam(one, lr=settings.rate) for one in copies]
    draw = torch.Generator().set_state(network.rng.get_state())
    for _ in range(3):
        x, y = rng.random((8, 6)), np.eye(3)[rng.integers(3, size=8)]
        effort, begin = network.learn(x, y), None
        if start == "random":
            # Of the held label too, as where it is free.
            begin = [(0.3 * torch.randn(8, n, generator=draw)).double() for n in (4, 5, 3)][:2]
        batch = torch.as_tensor(x), torch.as_tensor(y)
        energies = learned_by_hand(copies, adams, batch, begin, settings)
        assert (effort.first_energy, effort.last_energy) == pytest.approx(energies, rel=1e-9)
    for one, expected, old in zip(both, copies, drawn, strict=True):
        for p, wanted, before in zip(one.parameters(), expected, old, strict=True):
            torch.testing.assert_close(p, wanted, rtol=0, atol=1e-10)
            moves = one is network.network or start == "amortized"
            assert bool((p != before).any()) == moves


def test_the_threshold_is_the_authors_sum_over_parameters(rng):
    """Sum of absolute errors of 64 images over the number of parameters, as a mean over units."""
    settings = replace(TINY, threshold=0.01)
    n_parameters = (3 * 5 + 5) + (5 * 4 + 4) + (4 * 6 + 6)
    assert settings.mean_error == pytest.approx(0.01 * n_parameters / (64 * (5 + 4 + 6)))
    easy = Perception(replace(TINY, threshold=100.0), start="random", seed=0)
    x, y = rng.random((4, 6)).astype(np.float32), np.eye(3, dtype=np.float32)[[0, 1, 2, 0]]
    assert easy.learn(x, y).n_steps == 0
    assert Perception(TINY, start="random", seed=0).learn(x, y).n_steps == TINY.n_train


def run_twice(experiment, settings, folder):
    """Run, run again, and check that nothing was computed twice; return the table."""
    run = run_experiment(experiment, seeds=2, settings=settings, out=folder, workers=0)
    before = {path: path.stat().st_mtime_ns for path in run.folder.rglob("result.nc")}
    run_experiment(experiment, seeds=2, settings=settings, out=folder, workers=0)
    assert before == {path: path.stat().st_mtime_ns for path in run.folder.rglob("result.nc")}
    with (run.folder / "table.csv").open() as file:
        return list(csv.DictReader(file))


def test_a_tiny_run_of_inference_learning(monkeypatch, tmp_path):
    rng = np.random.default_rng(0)
    x, label = rng.random((60, 784)).astype(np.float32), np.arange(60) % 10
    experiment = catalog.load("experiments", "inference_learning")
    module = __import__("pcsim.experiments.inference_learning", fromlist=["x"])
    monkeypatch.setattr(module, "load_images", lambda name, n_test: Images(x, label, x, label))
    monkeypatch.setattr(module, "SIZES", (784, 8, 8, 10))
    settings = {"n_images": 4, "n_stability": 4, "every": 2, "n_test": 10}
    table = run_twice(experiment, settings, tmp_path / "run")
    assert len(table) == 4 * 2 * 2 + 3
    assert {row["part"] for row in table} == {"published rate", "own best rate", "stability"}
    published = [row for row in table if row["part"] == "published rate"]
    assert {row["rate"] for row in published} == {"0.05", "5", "0.0001"}


def test_a_tiny_run_of_hybrid_predictive_coding(monkeypatch, tmp_path):
    rng = np.random.default_rng(0)
    rows = rng.random((200, 784)).astype(np.float32), np.arange(200) % 10
    experiment = catalog.load("experiments", "hybrid_predictive_coding")
    module = __import__("pcsim.experiments.hybrid_predictive_coding", fromlist=["x"])
    monkeypatch.setattr(module, "labelled_rows", lambda name, split="train", n=None: rows)
    settings = {
        "n_train": 1, "n_test": 1, "n_images": 200, "n_test_images": 20, "n_batches": 2,
        "switch": 2, "after": 2, "every": 1, "window": 1,
    }  # fmt: skip
    table = run_twice(experiment, settings, tmp_path / "run")
    assert len(table) == 5 + 2 * 2 * 5 + 2
    value = {row["quantity"]: float(row["value"]) for row in table if row["task"] == "split"}
    for what in ("fall during training", "rise at change"):
        own, control = (value[f"{name} iterations: {what}"] for name in ("hybrid", "plain"))
        assert value[f"hybrid less plain iterations: {what}"] == own - control
    rise = next(row for row in table if row["quantity"] == "hybrid iterations: rise at change")
    assert rise["published"] == "above 0"
