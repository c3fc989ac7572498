"""Training: it resumes to the same curve, loses nothing, refuses what is wrong, and shares work."""

from __future__ import annotations

import json
import math
import os
import pickle
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from training_cases import Stop, stop_at

from pcsim.deep.checkpoint import load_checkpoint, save_checkpoint
from pcsim.deep.estimators import ScoreFunction
from pcsim.deep.inference_direct import Direct
from pcsim.deep.inference_gradient import PointEstimate
from pcsim.deep.inference_iterative import Iterative
from pcsim.deep.latent_gaussian import LatentGaussian
from pcsim.deep.many_seeds import train_together
from pcsim.deep.networks import FullyConnected
from pcsim.deep.posteriors import MeanField
from pcsim.deep.training import TrainingSettings, restore, train
from pcsim.deep.training_step import binarised, generator_for, shuffled

SETTINGS = TrainingSettings(n_epochs=4, batch_size=16, learning_rate=3e-3)


def build(seed=0, *, kind="iterative", normalization=None, dtype=torch.float32):
    generator = torch.Generator().manual_seed(seed)
    decoders = [
        FullyConnected(n, [8], normalization=normalization, generator=generator) for n in (4, 3)
    ]
    model = LatentGaussian(10, (4, 3), decoders=decoders, generator=generator).to(dtype)
    small = {"widths": [[8, 8], [6]], "normalization": normalization, "generator": generator}
    if kind == "direct":
        return model, Direct(model, **small)
    return model, Iterative(model, n_iterations=2, recurrent=kind == "recurrent", **small)


@pytest.fixture
def x(rng):
    return torch.as_tensor(rng.random((64, 10)), dtype=torch.float32)


def weights(*modules):
    return {f"{i}.{n}": v.clone() for i, m in enumerate(modules) for n, v in m.state_dict().items()}


@pytest.mark.parametrize(
    ("kind", "extra"),
    [("iterative", {}), ("direct", {"kl_warm_up": 3, "kl_target": None}),
     ("direct", {"kl_target": 1.5}),
     ("direct", {"estimator": ScoreFunction("running_mean"), "n_samples": 3}),
     ("iterative", {"precision": "float64", "largest_gradient": 0.5, "patience": 3})],
    ids=["iterative", "warm-up", "constraint", "score", "clipped"],
)  # fmt: skip
def test_a_stopped_run_goes_on_to_the_same_curve_bit_for_bit(kind, extra, x, tmp_path):
    def run(folder, **changes):
        made = dict(extra)
        if "estimator" in made:
            made["estimator"] = ScoreFunction("running_mean")
        modules = build(kind=kind)
        done = train(
            *modules, x, replace(SETTINGS, **made), validation=x[:20], prepare=binarised,
            folder=folder, progress=False, **changes,
        )  # fmt: skip
        return done, weights(*modules)

    whole, expected = run(None)
    with pytest.raises(Stop):
        run(tmp_path / "run", after_epoch=stop_at(2))
    resumed, found = run(tmp_path / "run")
    assert resumed.history == whole.history
    assert len(whole.history) == 4
    assert all(torch.equal(found[name], value) for name, value in expected.items())


def test_a_finished_run_can_be_made_longer(x, tmp_path):
    modules = build()
    train(*modules, x, replace(SETTINGS, n_epochs=2), folder=tmp_path, progress=False)
    modules = build()
    longer = train(*modules, x, SETTINGS, folder=tmp_path, progress=False)
    whole = train(*build(), x, SETTINGS, progress=False)
    assert longer.history == whole.history
    again = build(seed=5)
    record = restore(*again, tmp_path)
    assert record["history"] == whole.history
    for one, other in zip(weights(*again).values(), weights(*modules).values(), strict=True):
        assert torch.equal(one, other)


def test_training_lowers_the_free_energy_of_every_estimator_and_normalization(x):
    for kind, extra, normalization in (
        ("direct", {}, "batch"),
        ("direct", {"estimator": ScoreFunction(), "n_samples": 4}, "layer"),
        ("recurrent", {}, None),
    ):
        settings = replace(SETTINGS, n_epochs=12, learning_rate=0.01, **extra)
        modules = build(kind=kind, normalization=normalization)
        done = train(*modules, x.round(), settings, progress=False)
        assert done.history[-1]["train"] < done.history[0]["train"] - 0.2


def test_the_divergence_is_held_to_its_target(x):
    settings = replace(SETTINGS, n_epochs=60, kl_target=2.0, learning_rate=0.01, n_samples=4)
    model, inference = build(kind="direct")
    train(model, inference, x.round(), settings, progress=False)
    q = inference.posterior(model, x.round())
    generator = torch.Generator().manual_seed(0)
    kl = model.free_energy(x.round(), q, n_samples=50, generator=generator).kl.sum(-1).mean()
    kl = kl.detach()
    assert abs(float(kl) - 2.0) < 0.5


def test_early_stopping_ends_at_the_best_weights(x):
    # Pure noise cannot be learned: sooner or later the validation gets worse.
    noise, other = x[:32].round(), 1 - x[32:].round()
    settings = replace(SETTINGS, n_epochs=400, patience=3, learning_rate=0.03)
    modules = build(kind="direct")
    kept = {}
    done = train(
        *modules, noise, settings, validation=other, progress=False,
        after_epoch=lambda n: kept.update({n: weights(*modules)}),
    )  # fmt: skip
    assert done.stopped_early
    best = done.best["epoch"]
    assert len(done.history) == best + 1 + 3
    assert all(torch.equal(weights(*modules)[name], v) for name, v in kept[best + 1].items())


def test_a_frozen_module_stays_as_it_is(x):
    model, inference = build(kind="direct")
    model.requires_grad_(False)
    before = weights(model)
    train(model, inference, x, replace(SETTINGS, n_epochs=1), progress=False)
    assert all(torch.equal(weights(model)[name], value) for name, value in before.items())
    inference.requires_grad_(False)
    with pytest.raises(ValueError, match=r"nothing that learns.*requires_grad_"):
        train(model, inference, x, SETTINGS, progress=False)


@pytest.mark.parametrize("part", [0, 1])
def test_running_means_of_what_is_frozen_stay_as_they_are(part, x):
    modules = build(kind="direct", normalization="batch")
    frozen, free = modules[part], modules[1 - part]
    frozen.requires_grad_(False)
    before = weights(frozen), weights(free)
    train(*modules, x, replace(SETTINGS, n_epochs=1), validation=x[:20], progress=False)
    assert any(name.endswith("running_mean") for name in before[0])
    assert all(torch.equal(weights(frozen)[name], value) for name, value in before[0].items())
    running = [name for name in before[1] if name.endswith("running_mean")]
    assert not any(torch.equal(weights(free)[name], before[1][name]) for name in running)


class Tied(nn.Module):
    """An inference whose weights are those of the model, but for its variances."""

    def __init__(self, model):
        super().__init__()
        self.model = model
        self.log_variance = nn.Parameter(torch.full((4,), math.log(0.7), dtype=torch.float64))

    def posterior(self, x):
        mean = x @ self.model.heads[0].weight
        return MeanField((mean,), (self.log_variance.expand_as(mean),))

    def steps(self, model, x, evaluation, n_iterations=None):
        yield evaluation.at(model, x, self.posterior(x))


def test_weights_that_model_and_inference_share_learn_once_from_both(x):
    settings = replace(SETTINGS, n_epochs=1, precision="float64")

    def build_tied():
        model = LatentGaussian(10, (4,), generator=generator_for("cpu", 0)).double()
        return model, Tied(model)

    found, (model, tied) = build_tied(), build_tied()
    train(*found, x, settings, progress=False)
    optimiser = torch.optim.Adam(tied.parameters(), lr=settings.learning_rate)
    order = shuffled(64, settings.seed, 0)
    for step, rows in enumerate(order.split(16)):
        noise = generator_for("cpu", settings.seed, 2, step, 0)
        batch = x[rows].double()
        optimiser.zero_grad()
        model.free_energy(batch, tied.posterior(batch), generator=noise).total.mean().backward()
        optimiser.step()
    for one, other in zip(found[1].parameters(), tied.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-12)


def test_one_frozen_decoder_of_two_stays_as_it_is(x):
    model, inference = build(kind="direct", normalization="batch")
    model.decoders[1].requires_grad_(False)
    before = weights(model.decoders[1])
    train(model, inference, x, replace(SETTINGS, n_epochs=1), progress=False)
    after = weights(model.decoders[1])
    assert all(torch.equal(after[name], value) for name, value in before.items())


def test_a_data_set_of_one_and_batches_of_one_train(x):
    for data, size in ((x[:1], 64), (x[:3], 1)):
        settings = replace(SETTINGS, n_epochs=2, batch_size=size)
        done = train(*build(), data, settings, progress=False)
        assert all(math.isfinite(record["train"]) for record in done.history)


def test_a_run_that_diverges_is_stopped_and_its_last_checkpoint_kept(x, tmp_path):
    modules = build(kind="direct")
    train(*modules, x, replace(SETTINGS, n_epochs=1), folder=tmp_path, progress=False)
    before = (tmp_path / "last.safetensors").read_bytes()
    with torch.no_grad():
        next(modules[0].parameters()).fill_(math.nan)
    save_checkpoint(
        tmp_path / "bad" / "last.safetensors",
        {**load_checkpoint(tmp_path / "last.safetensors")[0],
         **{f"step.model.{n}": v for n, v in modules[0].state_dict().items()}},
        load_checkpoint(tmp_path / "last.safetensors")[1],
    )  # fmt: skip
    with pytest.raises(RuntimeError, match="Lower learning_rate"):
        train(*build(kind="direct"), x, SETTINGS, folder=tmp_path / "bad", progress=False)
    assert (tmp_path / "last.safetensors").read_bytes() == before
    _, record = load_checkpoint(tmp_path / "bad" / "last.safetensors")
    assert len(record["history"]) == 1


def test_damaged_and_foreign_checkpoints_are_refused(refused, x, tmp_path):
    modules = build()
    train(*modules, x, replace(SETTINGS, n_epochs=1), folder=tmp_path, progress=False)
    file = tmp_path / "last.safetensors"
    whole = file.read_bytes()
    resume = {"settings": SETTINGS, "folder": tmp_path, "progress": False}

    file.write_bytes(whole[: len(whole) // 2])
    assert "cannot be read" in refused(train, *build(), x, **resume)
    file.write_bytes(b"")
    assert "cannot be read" in refused(train, *build(), x, **resume)
    file.write_bytes(pickle.dumps({"step.model": Trap()}))
    assert "cannot be read" in refused(train, *build(), x, **resume)
    save_file({"a": torch.zeros(2)}, file)
    assert "format None" in refused(train, *build(), x, **resume)
    file.write_bytes(whole)
    assert "in a new folder" in refused(train, *build(kind="direct"), x, **resume)
    other = {**resume, "settings": replace(SETTINGS, learning_rate=0.7)}
    assert "learning_rate 0.003 in the checkpoint" in refused(train, *build(), x, **other)
    assert [one.name for one in tmp_path.iterdir()] == ["last.safetensors"]


class Trap:
    """A pickle that would tell if it were loaded."""

    def __reduce__(self):
        return (os._exit, (3,))


def test_bad_data_and_settings_are_refused(refused, x):
    modules = build()
    assert "expected shape (B, 10)" in refused(train, *modules, x[:, :9], SETTINGS)
    assert "with B above 0" in refused(train, *modules, x[:0], SETTINGS)
    broken = x.clone()
    broken[3, 2] = math.nan
    assert "1 of 640 entries" in refused(train, *modules, broken, SETTINGS)
    assert "1 of 640 entries" in refused(train, *modules, x, SETTINGS, validation=broken)
    message = refused(train, *modules, x, replace(SETTINGS, device="cuda:9"))
    assert "device 'cuda:9', expected one of auto, cpu" in message
    assert "device 'gpu'" in refused(train, *modules, x, replace(SETTINGS, device="gpu"))
    assert "not below 1" in refused(TrainingSettings, n_epochs=0)
    assert "Did you mean 'float" in refused(TrainingSettings, precision="float")


def test_a_checkpoint_keeps_every_type_and_is_whole_or_not_there(tmp_path, refused):
    tensors = {
        "a": torch.arange(3),
        "b": torch.rand(2, 3).mT,
        "c": torch.zeros((), dtype=torch.bool),
    }
    record = {"number": 0.1 + 0.2, "list": [1, None, "two"]}
    save_checkpoint(tmp_path / "one.safetensors", tensors, record)
    found, kept = load_checkpoint(tmp_path / "one.safetensors")
    assert kept == record
    assert all(torch.equal(found[n], v) and found[n].dtype == v.dtype for n, v in tensors.items())
    assert "Check the path" in refused(load_checkpoint, tmp_path / "none.safetensors")
    before = (tmp_path / "one.safetensors").read_bytes()
    with pytest.raises(TypeError, match="to_plain"):
        save_checkpoint(tmp_path / "one.safetensors", tensors, {"object": object()})
    assert (tmp_path / "one.safetensors").read_bytes() == before


@pytest.mark.parametrize("kind", ["direct", "iterative", "recurrent"])
def test_seeds_trained_as_one_batch_are_those_trained_one_by_one(kind, x):
    seeds = (0, 3, 4)
    settings = replace(
        SETTINGS, n_epochs=3, precision="float64", n_samples=2, kl_warm_up=2, batch_size=24
    )
    alone = []
    for seed in seeds:
        modules = build(seed, kind=kind)
        done = train(*modules, x, replace(settings, seed=seed), prepare=binarised, progress=False)
        alone.append((done.history, weights(*modules)))
    models, inferences = zip(*(build(seed, kind=kind) for seed in seeds), strict=True)
    together = train_together(models, inferences, x, settings, seeds, prepare=binarised)
    for (history, expected), done, *pair in zip(alone, together, models, inferences, strict=True):
        found = weights(*pair)
        for name, value in expected.items():
            torch.testing.assert_close(found[name], value, rtol=0, atol=1e-10)
        curve = [record["train"] for record in done.history]
        assert curve == pytest.approx([record["train"] for record in history], abs=1e-10)


def test_what_cannot_be_trained_together_is_refused(refused, x):
    model, inference = build(kind="direct", normalization="batch")
    message = refused(train_together, [model], [inference], x, SETTINGS, [0])
    assert "Train one by one" in message
    model, inference = build()
    settings = replace(SETTINGS, patience=2)
    assert "patience 2" in refused(train_together, [model], [inference], x, settings, [0])
    assert "as many of each" in refused(train_together, [model], [inference], x, SETTINGS, [0, 1])


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # torch's compiler warns of parts of torch
def test_compiled_networks_train_to_the_same_curve(x):
    # In double precision: Adam's first steps turn rounding of small gradients into whole steps.
    settings = replace(SETTINGS, n_epochs=2, precision="float64")
    curves = [
        train(*build(), x, replace(settings, compile=compiled), progress=False).history
        for compiled in (False, True)
    ]
    for one, other in zip(*curves, strict=True):
        assert one["train"] == pytest.approx(other["train"], rel=1e-9)


SCRIPT = """
import json, sys
from dataclasses import replace
import torch
sys.path.insert(0, {tests!r})
from test_deep_training import SETTINGS, build, weights
from pcsim.deep.inference_gradient import PointEstimate
from pcsim.deep.training import train
x = torch.load({x!r}, weights_only=True)
found = {{}}
for kind in ("point", "iterative", "batch"):
    normalization = "batch" if kind == "batch" else None
    model, inference = build(dtype=torch.float64, normalization=normalization)
    inference = PointEstimate(n_iterations=3) if kind == "point" else inference
    done = train(model, inference, x, replace(SETTINGS, precision="float64"),
                 validation=x[:20], folder={folder!r} + kind, progress=False)
    found[kind] = [[r["train"] for r in done.history],
                   [float(p.double().abs().sum()) for p in model.parameters()],
                   [r["validation"] for r in done.history]]
print("RESULT " + json.dumps(found), flush=True)
"""


@pytest.mark.slow
def test_two_processes_train_as_one_does(x, tmp_path):
    torch.save(x, tmp_path / "x.pt")
    script = tmp_path / "script.py"
    here = str(Path(__file__).parent)
    script.write_text(
        SCRIPT.format(tests=here, x=str(tmp_path / "x.pt"), folder=str(tmp_path / "run-"))
    )
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(here).parent)}
    done = subprocess.run(
        [*command, str(script)], env=environment, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found = [json.loads(part.split("\n")[0]) for part in done.stdout.split("RESULT ")[1:]]
    assert len(found) == 2
    assert found[0] == found[1]
    # A point estimate draws nothing, so halves of a batch in two processes are the batch in one.
    model, _ = build(dtype=torch.float64)
    settings = replace(SETTINGS, precision="float64")
    alone = train(model, PointEstimate(n_iterations=3), x, settings, progress=False)
    curve, sums, _ = found[0]["point"]
    assert curve == pytest.approx([record["train"] for record in alone.history], rel=1e-9)
    expected = [float(p.detach().abs().sum()) for p in model.parameters()]
    assert sums == pytest.approx(expected, rel=1e-7)
    assert (tmp_path / "run-iterative" / "last.safetensors").is_file()
