"""Training of predictive-coding networks: what is cut off is not lost, what is wrong is refused."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import partial

import pytest
import torch
from pc_cases import filled, tensor
from test_deep_pc_training import RULES, SETTINGS, build, half_squares
from torch import nn
from torch.nn.utils import prune

from pcsim.deep import training_run
from pcsim.deep.checkpoint import load_checkpoint
from pcsim.deep.pc_energy import BinaryCrossEntropy, SquaredError
from pcsim.deep.pc_hybrid import amortized_gradients
from pcsim.deep.pc_inference import GradientDescent
from pcsim.deep.pc_network import Node, PCNetwork, Prior
from pcsim.deep.pc_proximal import proximal_step
from pcsim.deep.pc_rules import (
    Backpropagation,
    Hybrid,
    Incremental,
    InferenceLearning,
    Proximal,
)
from pcsim.deep.pc_trace import predictive_coding
from pcsim.deep.pc_training import PCTrainingSettings, restore, train


@pytest.fixture
def clamp(rng):
    x = tensor(rng, 32, 3)
    label = (x.sum(1) > 0).long()
    return {"input": x, "output": nn.functional.one_hot(label, 2).double()}


@dataclass(frozen=True)
class Decay:
    """A schedule with a setting."""

    rate: float

    def __call__(self, time):
        return self.rate**time


class Wide(nn.Module):
    """A layer beside one that nothing uses."""

    def __init__(self):
        super().__init__()
        self.used, self.idle = nn.Linear(2, 5), nn.Linear(2, 2)

    def forward(self, x):
        return torch.tanh(self.used(x))


@pytest.mark.parametrize("after", [False, True])
def test_a_cut_beside_the_best_weights_does_not_lose_them(clamp, tmp_path, monkeypatch, after):
    # Two epochs learn, the third spoils, and then nothing moves: the best is the second.
    settings = replace(
        SETTINGS, n_epochs=5, patience=4, optimiser="sgd", learning_rate=0.05,
        schedule=lambda time: (1.0, 1.0, 60.0, 0.0, 0.0)[int(time)],
    )  # fmt: skip
    write, written = training_run.save_checkpoint, []

    def cut_off(path, *rest):
        written.append(path.name)
        second = written.count("best.safetensors") == 2 and path.name.startswith("best")
        if second and not after:
            raise KeyboardInterrupt
        write(path, *rest)
        if second:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(training_run, "save_checkpoint", cut_off)
        with pytest.raises(KeyboardInterrupt):
            train(build(), clamp, settings, validation=clamp, folder=tmp_path, progress=False)
    network, other = build(), build(seed=1)
    done = train(network, clamp, settings, validation=clamp, folder=tmp_path, progress=False)
    scores = [one["validation"] for one in done.history]
    assert len(scores) == 5
    assert min(scores) == scores[1] < min(scores[2:])
    restore(other, tmp_path)
    for one in (network, other):
        assert half_squares(one, clamp) == pytest.approx(scores[1], rel=1e-12)


def test_of_equal_epochs_the_one_whose_weights_are_left_is_the_best(clamp, tmp_path):
    settings = replace(SETTINGS, learning_rate=1e-12, score="errors", patience=3)
    done = train(build(), clamp, settings, validation=clamp, folder=tmp_path, progress=False)
    assert len({one["validation"] for one in done.history}) == 1
    kept = load_checkpoint(tmp_path / "best.safetensors")[1]
    assert done.best == kept["history"][-1]
    assert done.best["epoch"] == kept["best_epoch"] == 3


def test_a_proximal_step_does_not_take_what_another_rule_left(clamp):
    body = nn.Sequential(nn.Linear(3, 5), nn.PReLU(), nn.Linear(5, 2)).double()
    network = predictive_coding(body)
    train(network, clamp, replace(SETTINGS, rule=Backpropagation()), progress=False)
    slope, weight = body[1].weight.detach().clone(), body[0].weight.detach().clone()
    assert float(body[1].weight.grad) != 0
    train(network, clamp, replace(SETTINGS, rule=RULES["proximal"]), progress=False)
    assert torch.equal(body[1].weight, slope)  # no layer with a local rule
    assert not torch.equal(body[0].weight, weight)


def test_a_proximal_step_needs_no_input(rng):
    # One linear layer below a root held at r: the step ends at s (x - p) r' / n from where it was,
    # s = n a / (1 + n a) with n = |r|^2 + 1 and a the rate; nothing settles.
    layer = filled(nn.Linear(2, 3), rng)
    root = Node("z", (), Prior(tensor(rng, 2)))
    network = PCNetwork([], [root, Node("x", ("z",), layer)])
    r, x = network.nodes["z"].predict.mean, tensor(rng, 1, 3)
    before, rate = layer.weight.detach().clone(), 0.7
    error = (x - layer(r)).detach()
    n = float(r.square().sum()) + 1
    held = {"x": x, "z": r.unsqueeze(0)}
    proximal_step(network, held, GradientDescent(n_steps=1), rate=rate, epsilon=0.0)
    share = n * rate / (1 + n * rate)
    assert torch.allclose(layer.weight - before, share * error.T * r / n, atol=1e-12)
    # Free, the root moves too, and the prediction comes nearer.
    rule = Proximal(method=GradientDescent(n_steps=5))
    settings = replace(SETTINGS, rule=rule, n_epochs=30, optimiser="sgd", learning_rate=1.0)
    done = train(network, {"x": tensor(rng, 32, 3)}, settings, progress=False)
    assert done.history[-1]["train"] < 0.9 * done.history[0]["train"]


def test_parts_of_an_amortizer_that_nothing_uses_stay(rng):
    below = predictive_coding(filled(nn.Sequential(nn.Linear(3, 5), nn.Linear(5, 2)), rng))
    wide = filled(Wide(), rng)
    last = filled(nn.Linear(5, 3), rng)
    above = PCNetwork(["output"], [Node("_0", ("output",), wide), Node("input", ("_0",), last)])
    states = {"input": tensor(rng, 4, 3), "_0": tensor(rng, 4, 5), "output": tensor(rng, 4, 2)}
    found = amortized_gradients(above, states)
    # The last layer's slope by hand: its guess of the input, from its guess of what is hidden.
    rate = torch.tanh(wide.used(states["output"]))
    error = (last(rate) - states["input"]).detach()
    assert torch.allclose(found["predictors.input.weight"], error.T @ rate / 4, atol=1e-12)
    held = {"input": states["input"], "output": states["output"]}
    before = wide.idle.weight.detach().clone()
    train(below, held, replace(SETTINGS, rule=Hybrid()), amortizer=above, progress=False)
    assert torch.equal(wide.idle.weight, before)


def test_the_examples_that_are_looked_at_first_leave_no_running_means(rng, clamp):
    # A running mean of all batches, which are all the same 32 examples: their mean.
    norm = nn.BatchNorm1d(2, momentum=None).double()
    layers = nn.Sequential(norm, filled(nn.Linear(2, 5), rng))
    last = Node("input", ("_1",), filled(nn.Linear(5, 3), rng))
    amortizer = PCNetwork(["output"], [Node("_1", ("output",), layers), last])
    settings = replace(SETTINGS, rule=RULES["hybrid"], batch_size=32)
    train(build(), clamp, settings, amortizer=amortizer, progress=False)
    assert torch.allclose(norm.running_mean, clamp["output"].mean(0), atol=1e-12)


def test_layers_that_tie_examples_are_refused(clamp, refused):
    layers = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2)).double()
    network = PCNetwork(["input"], [Node("output", ("input",), layers)])
    assert "ties the examples" in refused(train, network, clamp, SETTINGS, progress=False)


def test_examples_that_tell_nothing_or_do_not_fit_are_refused(clamp, refused):
    def message(network, data, settings=SETTINGS, **more):
        return refused(train, network, data, settings, progress=False, **more)

    narrow = {**clamp, "input": clamp["input"][:, :2]}
    says = message(build(), narrow)
    assert "'input' (2,)" in says
    assert "mat1 and mat2" in says
    lonely = {"input": clamp["input"]}
    assert "nothing held but ['input']" in message(build(), lonely)
    assert "nothing held but ['input']" in message(build(), clamp, validation=lonely)
    assert "Tensor" in message(build(), clamp["input"])
    assert "predictive_coding(module)" in message(nn.Linear(3, 2).double(), clamp)
    single = predictive_coding(nn.Linear(3, 1).double(), output=BinaryCrossEntropy())
    held = {**clamp, "output": clamp["output"][:, :1]}
    errors = replace(SETTINGS, score="errors")
    assert "at least 2" in message(single, held, errors, validation=held)


@pytest.mark.parametrize("rule", [InferenceLearning(), Proximal(), Backpropagation()])
def test_what_prepare_gives_is_looked_at(clamp, refused, rule):
    for wrong, says in (
        (lambda held, generator: None, "NoneType"),
        (lambda held, generator: {**held, "input": held["input"] * math.nan}, "NaN"),
        (lambda held, generator: {**held, "input": held["input"][:, :2]}, "'input' (2,)"),
        (lambda held, generator: {**held, "input": held["input"][:3]}, "expected 3"),
        (lambda held, generator: {name: one.float() for name, one in held.items()}, "float32"),
    ):
        settings = replace(SETTINGS, rule=rule)
        found = refused(train, build(), clamp, settings, prepare=wrong, progress=False)
        assert "prepare" in found
        assert says in found


def test_a_validation_energy_that_is_not_finite_stops_the_run(clamp, tmp_path):
    rectified = nn.Sequential(nn.Linear(3, 5), nn.ReLU(), nn.Linear(5, 2))
    huge = {"input": clamp["input"].float() * 1e30, "output": clamp["output"].float()}
    plain = {name: one.float() for name, one in clamp.items()}
    with pytest.raises(RuntimeError, match="validation energy of inf"):
        train(
            predictive_coding(rectified), plain, replace(SETTINGS, patience=2), validation=huge,
            folder=tmp_path, progress=False,
        )  # fmt: skip
    assert not list(tmp_path.glob("*.safetensors"))


def test_another_schedule_is_another_run(clamp, tmp_path, refused):
    def fading(rate, time):
        return rate**time

    for number, make in enumerate((Decay, lambda rate: partial(fading, rate))):
        folder = tmp_path / str(number)
        settings = [replace(SETTINGS, schedule=make(rate)) for rate in (0.9, 0.5)]
        whole = train(build(), clamp, settings[0], folder=folder, progress=False)
        says = refused(train, build(), clamp, settings[1], folder=folder, progress=False)
        assert "schedule" in says
        again = train(build(), clamp, settings[0], folder=folder, progress=False)
        assert again.history == whole.history


def test_schedules_and_methods_that_are_none_are_refused(clamp, refused):
    assert "function of time" in refused(PCTrainingSettings, schedule=0.9)
    for value in (math.nan, -1.0, None):
        settings = replace(SETTINGS, schedule=lambda time, value=value: value)
        assert "schedule(0)" in refused(train, build(), clamp, settings, progress=False)
    for rule in (InferenceLearning, Incremental, Proximal, Hybrid):
        assert "GradientDescent()" in refused(rule, method=None)
        assert "not its class" in refused(rule, method=GradientDescent)
    assert "presynaptic" in refused(Hybrid, presynaptic="both")


def test_what_is_frozen_on_the_way_stays(clamp):
    network, kept = build(), []

    def freeze(done):
        network.body[0].requires_grad_(False)
        kept.append([one.detach().clone() for one in network.body.parameters()])

    for rule in (RULES["settling"], RULES["proximal"]):
        kept.clear()
        network.requires_grad_(True)
        train(network, clamp, replace(SETTINGS, rule=rule), after_epoch=freeze, progress=False)
        first, last = kept[0], kept[-1]
        assert all(torch.equal(one, two) for one, two in zip(first[:2], last[:2], strict=True))
        assert not torch.equal(first[2], last[2])


def test_backpropagation_takes_the_first_of_two_outputs(rng):
    one, two = filled(nn.Linear(3, 2), rng), filled(nn.Linear(3, 4), rng)
    nodes = [Node("one", ("x",), one), Node("two", ("x",), two)]
    network = PCNetwork(["x"], nodes, outputs=["one", "two"])
    x, y = tensor(rng, 8, 3), tensor(rng, 8, 2)
    loss = 0.5 * float((one(x) - y).detach().square().sum(1).mean())
    settings = replace(SETTINGS, rule=Backpropagation(), learning_rate=1e-13)
    done = train(network, {"x": x, "one": y}, settings, progress=False)
    assert done.history[0]["train"] == pytest.approx(loss, rel=1e-9)


def test_a_batch_that_prepare_spoils_later_is_refused_as_that(clamp, refused):
    calls = iter(range(9))

    def spoil(held, generator):
        return held if next(calls) < 2 else {**held, "input": held["input"] * math.nan}

    settings = replace(SETTINGS, rule=RULES["proximal"])
    assert "NaN" in refused(train, build(), clamp, settings, prepare=spoil, progress=False)


def test_a_file_in_place_of_the_folder_is_refused_before_an_epoch(clamp, tmp_path, refused):
    path = tmp_path / "run"
    path.write_text("notes")
    assert "a file" in refused(train, build(), clamp, SETTINGS, folder=path, progress=False)


class Joined(nn.Module):
    """A layer of two parents side by side."""

    def __init__(self, n_in, n_out):
        super().__init__()
        self.layer = nn.Linear(n_in, n_out)

    def forward(self, *parents):
        return self.layer(torch.cat(parents, 1))


def test_backpropagation_goes_through_a_prior_beside_an_input(rng):
    layer, mean = filled(Joined(5, 3), rng), tensor(rng, 2)
    root = Node("z", (), Prior(mean, learnable=True))
    network = PCNetwork(["c"], [root, Node("x", ("c", "z"), layer)])
    c, x = tensor(rng, 8, 3), tensor(rng, 8, 3)
    # By hand: dF/dmean = W_z' (p - x), a mean over examples; one step of size 0.1.
    weight, bias = layer.layer.weight.detach().clone(), layer.layer.bias.detach().clone()
    error = c @ weight[:, :3].T + mean @ weight[:, 3:].T + bias - x
    settings = replace(
        SETTINGS, rule=Backpropagation(), optimiser="sgd", learning_rate=0.1, n_epochs=1
    )
    done = train(network, {"c": c, "x": x}, settings, progress=False)
    energy = 0.5 * float(error.square().sum(1).mean())
    assert done.history[0]["train"] == pytest.approx(energy, rel=1e-12)
    moved = mean - 0.1 * (error @ weight[:, 3:]).mean(0)
    assert torch.allclose(root.predict.mean, moved, atol=1e-12)


def pruned(seed):
    """A network of which a quarter of the first weights is cut off."""
    body = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)).double()
    rng = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for one in body.parameters():
            one.copy_(torch.randn(one.shape, generator=rng, dtype=one.dtype))
    prune.l1_unstructured(body[0], "weight", amount=0.25)
    return predictive_coding(body, output=SquaredError(0.7))


def test_pruned_networks_are_restored_whatever_their_weights_were(clamp, tmp_path):
    first, second = pruned(0), pruned(1)
    train(first, clamp, SETTINGS, folder=tmp_path, progress=False)
    restore(second, tmp_path)
    for one, other in zip(first.parameters(), second.parameters(), strict=True):
        assert torch.equal(one, other)
    assert torch.equal(first(clamp["input"]), second(clamp["input"]))
