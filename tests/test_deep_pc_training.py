"""Training of predictive-coding networks: it equals its steps, resumes, and loses nothing."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from pc_cases import filled, tensor
from torch import nn
from training_cases import Stop, stop_at

from pcsim.deep.checkpoint import load_checkpoint
from pcsim.deep.pc_clamp import Masked
from pcsim.deep.pc_energy import CrossEntropy, SquaredError
from pcsim.deep.pc_errors import ErrorOptimisation
from pcsim.deep.pc_hybrid import reverse_chain
from pcsim.deep.pc_inference import GradientDescent
from pcsim.deep.pc_network import Node, PCNetwork, Prior
from pcsim.deep.pc_newton import GaussNewton
from pcsim.deep.pc_rules import (
    Backpropagation,
    Hybrid,
    Incremental,
    InferenceLearning,
    Proximal,
)
from pcsim.deep.pc_trace import predictive_coding
from pcsim.deep.pc_training import PCTrainingSettings, restore, train
from pcsim.deep.training_step import shuffled

SETTINGS = PCTrainingSettings(n_epochs=4, batch_size=8, learning_rate=0.01, device="cpu")
RULES = {
    "settling": InferenceLearning(method=GradientDescent(n_steps=4)),
    "errors": InferenceLearning(),
    "incremental": Incremental(method=GradientDescent(n_steps=3)),
    "proximal": Proximal(method=GradientDescent(n_steps=3)),
    "hybrid": Hybrid(method=GradientDescent(n_steps=3)),
    "backprop": Backpropagation(),
}


def build(rng=None, *, seed=0, output=None):
    """Return a classifier of three numbers, in float64."""
    generator = torch.Generator().manual_seed(seed)
    body = nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 2)).double()
    with torch.no_grad():
        for one in body.parameters():
            one.copy_(0.5 * torch.randn(one.shape, generator=generator, dtype=one.dtype))
    return predictive_coding(body, output=output or SquaredError())


@pytest.fixture
def clamp(rng):
    x = tensor(rng, 32, 3)
    label = (x.sum(1) > 0).long()
    return {"input": x, "output": nn.functional.one_hot(label, 2).double()}


def amortizer_of(network, rule):
    return reverse_chain(network) if isinstance(rule, Hybrid) else None


def weights(*networks):
    whole = nn.ModuleList([one for one in networks if one is not None])
    return {name: value.clone() for name, value in whole.state_dict().items()}


def half_squares(network, clamp):
    """Return the mean of half the squared error of a feedforward pass."""
    with torch.no_grad():
        return 0.5 * float((network(clamp["input"]) - clamp["output"]).square().sum(1).mean())


def test_backpropagation_is_that_of_a_loop_by_hand(clamp):
    settings = replace(
        SETTINGS, rule=Backpropagation(), optimiser="sgd", momentum=0.5, weight_decay=0.01,
        largest_gradient=0.3, schedule=lambda time: 1 / (1 + time),
    )  # fmt: skip
    network = build()
    train(network, clamp, settings, progress=False)
    # The same in torch alone: the mean over the batch of half the squared error.
    other = build()
    optimiser = torch.optim.SGD(other.parameters(), 0.01, momentum=0.5, weight_decay=0.01)
    for epoch in range(4):
        for index, rows in enumerate(shuffled(32, 0, epoch).split(8)):
            optimiser.param_groups[0]["lr"] = 0.01 / (1 + epoch + index / 4)
            error = other(clamp["input"][rows]) - clamp["output"][rows]
            optimiser.zero_grad()
            (0.5 * error.square().sum(1)).mean().backward()
            nn.utils.clip_grad_norm_(other.parameters(), 0.3)
            optimiser.step()
    for one, two in zip(network.parameters(), other.parameters(), strict=True):
        assert torch.allclose(one, two, rtol=1e-10, atol=1e-12)


def test_a_network_without_hidden_nodes_reaches_least_squares(rng):
    x, noise = tensor(rng, 40, 3), 0.1 * tensor(rng, 40, 2)
    y = x @ tensor(rng, 3, 2) + 1 + noise
    network = predictive_coding(nn.Sequential(nn.Linear(3, 2)).double())
    settings = replace(SETTINGS, n_epochs=400, batch_size=40, optimiser="sgd", learning_rate=0.3)
    done = train(network, {"input": x, "output": y}, settings, progress=False)
    design = torch.cat([x, torch.ones(40, 1, dtype=x.dtype)], 1)
    solved = torch.linalg.lstsq(design, y)
    weight, bias = (p.detach() for p in network.parameters())
    assert torch.allclose(weight.T, solved.solution[:3], atol=1e-9)
    assert torch.allclose(bias, solved.solution[3], atol=1e-9)
    least = 0.5 * (design @ solved.solution - y).square().sum(1).mean()
    assert done.history[-1]["train"] == pytest.approx(float(least), rel=1e-9)


@pytest.mark.parametrize("name", RULES)
def test_a_run_that_was_stopped_goes_on_to_the_same_curve(clamp, tmp_path, name):
    rule = RULES[name]
    settings = replace(SETTINGS, rule=rule)

    def noisy(batch, generator):
        noise = torch.randn(batch["input"].shape, generator=generator, dtype=torch.float64)
        return {**batch, "input": batch["input"] + 0.1 * noise}

    def run(folder, **more):
        network = build()
        guesses = amortizer_of(network, rule)
        found = train(
            network, clamp, settings, validation=clamp, amortizer=guesses, prepare=noisy,
            folder=tmp_path / folder, progress=False, **more,
        )  # fmt: skip
        return found.history, weights(network, guesses)

    whole, ends = run("whole")
    with pytest.raises(Stop):
        run("cut", after_epoch=stop_at(2))
    history, other = run("cut")
    assert history == whole
    assert len(whole) == 4
    assert whole[0]["train"] != whole[1]["train"]
    assert all(torch.equal(ends[key], other[key]) for key in ends)
    network = build(seed=3)
    guesses = amortizer_of(network, rule)
    restore(network, tmp_path / "cut", amortizer=guesses)
    assert all(torch.equal(ends[key], value) for key, value in weights(network, guesses).items())


def test_every_rule_lowers_the_error(clamp):
    for name, rule in RULES.items():
        network = build()
        before = half_squares(network, clamp)
        # A whole proximal step is one of "sgd" at a rate of 1.
        how = {"optimiser": "sgd", "learning_rate": 1.0} if name == "proximal" else {}
        settings = replace(SETTINGS, rule=rule, n_epochs=30, **how)
        amortizer = amortizer_of(network, rule)
        train(network, clamp, settings, amortizer=amortizer, progress=False)
        assert half_squares(network, clamp) < 0.5 * before, name


def test_patience_leaves_the_best_weights(clamp, tmp_path):
    # A rate that grows spoils what was learned.
    settings = replace(
        SETTINGS, n_epochs=30, patience=2, optimiser="sgd", learning_rate=0.05,
        schedule=lambda time: 1.0 if time < 5 else 60.0,
    )  # fmt: skip
    network = build()
    seen = []

    def look(done):
        seen.append(half_squares(network, clamp))

    done = train(
        network, clamp, settings, validation=clamp, folder=tmp_path, after_epoch=look,
        progress=False,
    )  # fmt: skip
    scores = [one["validation"] for one in done.history]
    assert scores == pytest.approx(seen, rel=1e-12)
    best = scores.index(min(scores))
    assert done.stopped_early
    assert len(scores) == best + 3 < 30
    other = build(seed=1)
    restore(other, tmp_path)
    for one in (network, other):
        assert half_squares(one, clamp) == pytest.approx(min(scores), rel=1e-12)


def test_the_share_of_wrong_answers_is_counted(clamp):
    network = build(output=CrossEntropy())
    settings = replace(SETTINGS, score="errors", n_epochs=1, learning_rate=1e-12)
    done = train(network, clamp, settings, validation=clamp, progress=False)
    logits = network.predict("output", network.feedforward({"input": clamp["input"]}))
    wrong = (logits.argmax(1) != clamp["output"].argmax(1)).double().mean()
    assert 0 < float(wrong) < 1
    assert done.history[0]["validation"] == pytest.approx(float(wrong), rel=1e-12)


def test_a_generative_network_is_judged_where_it_settles(rng):
    # z ~ N(0, I), x ~ N(W z + b, I): the lowest energy is that of x under its marginal, without
    # the constants, 0.5 (x - b)' (W W' + I)^-1 (x - b).
    layer = filled(nn.Linear(2, 4), rng)
    root = Node("z", (), Prior(torch.zeros(2, dtype=torch.float64)))
    network = PCNetwork([], [root, Node("x", ("z",), layer)])
    x = tensor(rng, 16, 4)
    rule = InferenceLearning(method=GaussNewton(n_steps=3, n_products=10))
    settings = replace(SETTINGS, rule=rule, n_epochs=1, learning_rate=1e-13)
    done = train(network, {"x": x}, settings, validation={"x": x}, progress=False)
    weight, bias = layer.weight.detach(), layer.bias.detach()
    inverse = torch.linalg.inv(weight @ weight.T + torch.eye(4, dtype=weight.dtype))
    lowest = 0.5 * torch.einsum("bi,ij,bj->b", x - bias, inverse, x - bias).mean()
    assert done.history[0]["validation"] == pytest.approx(float(lowest), rel=1e-8)
    assert done.history[0]["train"] == pytest.approx(float(lowest), rel=1e-8)


def test_parts_of_nodes_may_be_held(rng):
    layer = filled(nn.Linear(2, 4), rng)
    root = Node("z", (), Prior(torch.zeros(2, dtype=torch.float64)))
    network = PCNetwork([], [root, Node("x", ("z",), layer)])
    mask = torch.tensor([True, True, True, False])
    x = tensor(rng, 16, 4)
    rule = InferenceLearning(method=GaussNewton(n_steps=3, n_products=10))
    before = layer.weight.detach().clone()
    settings = replace(SETTINGS, rule=rule, n_epochs=2)
    train(network, {"x": Masked(x, mask)}, settings, progress=False)
    moved = (layer.weight.detach() - before).abs().sum(1)
    assert (moved[:3] > 1e-6).all()
    assert float(moved[3]) < 1e-9  # nobody saw it


@pytest.mark.parametrize("n", [1, 3])
def test_a_data_set_of_one_and_a_batch_of_one(clamp, n):
    few = {name: value[:n] for name, value in clamp.items()}
    settings = replace(SETTINGS, batch_size=1, n_epochs=3)
    done = train(build(), few, settings, progress=False)
    assert [math.isfinite(one["train"]) for one in done.history] == [True] * 3


def test_divergence_keeps_the_last_checkpoint(clamp, tmp_path):
    settings = replace(SETTINGS, rule=Backpropagation(), optimiser="sgd", learning_rate=0.01)
    train(build(), clamp, replace(settings, n_epochs=2), folder=tmp_path, progress=False)
    kept = (tmp_path / "last.safetensors").read_bytes()
    settings = replace(settings, n_epochs=60, schedule=None)
    network = build()

    def spoil(done):
        with torch.no_grad():
            for one in network.parameters():
                one.mul_(1e200)

    with pytest.raises(RuntimeError, match=r"finite|times the first"):
        train(network, clamp, settings, folder=tmp_path, after_epoch=spoil, progress=False)
    # One epoch was good and is kept; what came after it is not.
    tensors, record = load_checkpoint(tmp_path / "last.safetensors")
    assert len(record["history"]) == 3
    assert all(bool(torch.isfinite(one).all()) for one in tensors.values())
    assert kept != (tmp_path / "last.safetensors").read_bytes()


def test_another_run_is_not_gone_on_with(clamp, tmp_path):
    train(build(), clamp, SETTINGS, folder=tmp_path, progress=False)
    kept = (tmp_path / "last.safetensors").read_bytes()
    deeper = predictive_coding(nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)).double())
    other = {**clamp, "input": clamp["input"] + 1}
    rule = InferenceLearning(method=ErrorOptimisation(n_steps=7))
    for network, data, settings, says in (
        (build(), clamp, replace(SETTINGS, learning_rate=0.02), "learning_rate"),
        (build(), clamp, replace(SETTINGS, rule=rule), "rule"),
        (build(), clamp, replace(SETTINGS, schedule=lambda time: 1.0), "schedule"),
        (build(), other, SETTINGS, "data.input"),
        (deeper, clamp, SETTINGS, "network"),
        (build(output=CrossEntropy()), clamp, SETTINGS, "network"),
        (build(), clamp, replace(SETTINGS, n_epochs=2), "4 epochs"),
    ):
        with pytest.raises(ValueError, match=says):
            train(network, data, settings, folder=tmp_path, progress=False)
        assert (tmp_path / "last.safetensors").read_bytes() == kept
    with pytest.raises(ValueError, match="network"):
        restore(deeper, tmp_path)
    (tmp_path / "last.safetensors").write_bytes(kept[: len(kept) // 2])
    with pytest.raises(ValueError, match="cannot be read"):
        train(build(), clamp, SETTINGS, folder=tmp_path, progress=False)


def test_what_does_not_fit_is_refused(clamp):
    frozen = build()
    frozen.requires_grad_(False)
    integers = {**clamp, "output": clamp["output"].long()}
    wide = {**clamp, "output": clamp["output"].repeat(1, 2)}
    fewer = {**clamp, "output": clamp["output"][:5]}
    holed = {**clamp, "input": clamp["input"].clone().index_fill_(0, torch.tensor(3), math.nan)}
    hybrid = replace(SETTINGS, rule=RULES["hybrid"])
    for network, data, settings, kind, says in (
        (frozen, clamp, SETTINGS, ValueError, "nothing that learns"),
        (build(), integers, SETTINGS, TypeError, "one-hot"),
        (build(), wide, SETTINGS, ValueError, "predicted"),
        (build(), fewer, SETTINGS, ValueError, "5 examples"),
        (build(), holed, SETTINGS, ValueError, "NaN"),
        (build(), {}, SETTINGS, ValueError, "empty clamp"),
        (build(), {"inputs": clamp["input"]}, SETTINGS, ValueError, "inputs"),
        (build(), clamp, hybrid, ValueError, "no amortizer"),
        (build().float(), clamp, SETTINGS, ValueError, "float32"),
        (build(), clamp, replace(SETTINGS, device="cuda:7"), ValueError, "device"),
        (build(), {"input": clamp["input"]}, replace(SETTINGS, rule=Backpropagation()), ValueError,
         "output"),
    ):  # fmt: skip
        with pytest.raises(kind, match=says):
            train(network, data, settings, progress=False)
    network = build()
    with pytest.raises(ValueError, match="an amortizer"):
        train(network, clamp, SETTINGS, amortizer=reverse_chain(network), progress=False)
    masked = {**clamp, "input": Masked(clamp["input"], torch.tensor([True, True, False]))}
    settings = replace(SETTINGS, score="errors")
    with pytest.raises(ValueError, match="Judge by 'energy'"):
        train(network, clamp, settings, validation=masked, progress=False)


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"optimiser": "lion"}, "adamw"),
        ({"momentum": 0.5}, "sgd"),
        ({"learning_rate": math.nan}, "learning_rate"),
        ({"score": "accuracy"}, "errors"),
        ({"batch_size": 0}, "batch_size"),
        ({"rule": GradientDescent()}, "pc_rules"),
        ({"rule": InferenceLearning}, "pc_rules"),
    ],
)
def test_wrong_settings_are_refused(wrong, says):
    with pytest.raises((ValueError, TypeError), match=says):
        PCTrainingSettings(**wrong)


SCRIPT = """
import json, sys
from dataclasses import replace
import torch
sys.path.insert(0, {tests!r})
from test_deep_pc_training import RULES, SETTINGS, amortizer_of, build
from pcsim.deep.pc_descent import GradientDescent
from pcsim.deep.pc_rules import Incremental
from pcsim.deep.pc_training import train
clamp = torch.load({data!r}, weights_only=True)
found = {{}}
for name in ("settling", "hybrid", "backprop", "incremental", "proximal"):
    # Other weights in the second process: it must take over those of the first.
    network = build(seed=int(__import__("os").environ["RANK"]))
    amortizer = amortizer_of(network, RULES[name])
    done = train(network, clamp, replace(SETTINGS, rule=RULES[name]), amortizer=amortizer,
                 folder={folder!r} + name, progress=False)
    found[name] = [[r["train"] for r in done.history],
                   [float(p.detach().abs().sum()) for p in network.parameters()]]
print("RESULT " + json.dumps(found), flush=True)
try:
    early = Incremental(method=GradientDescent(n_steps=3, tol=0.1))
    train(network, clamp, replace(SETTINGS, rule=early), progress=False)
except ValueError as error:
    print("REFUSED", error, flush=True)
"""


@pytest.mark.slow
def test_two_processes_train_as_one_does(clamp, tmp_path):
    torch.save(clamp, tmp_path / "clamp.pt")
    script = tmp_path / "script.py"
    here = str(Path(__file__).parent)
    names = {"tests": here, "data": str(tmp_path / "clamp.pt"), "folder": str(tmp_path / "run-")}
    script.write_text(SCRIPT.format(**names))
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(here).parent)}
    done = subprocess.run(
        [*command, str(script)], env=environment, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr[-3000:]
    parts = [part.split("\n")[0] for part in done.stdout.split("RESULT ")[1:]]
    found = [json.loads(part.split("REFUSED")[0]) for part in parts]
    assert len(found) == 2
    assert found[0] == found[1]
    assert done.stdout.count("REFUSED") == 2
    for name, (curve, sums) in found[0].items():
        network = build()
        amortizer = amortizer_of(network, RULES[name])
        settings = replace(SETTINGS, rule=RULES[name])
        alone = train(network, clamp, settings, amortizer=amortizer, progress=False)
        assert curve == pytest.approx([one["train"] for one in alone.history], rel=1e-8)
        assert sums == pytest.approx(
            [float(p.detach().abs().sum()) for p in network.parameters()], rel=1e-8
        )
