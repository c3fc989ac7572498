"""Which run a checkpoint is of: other runs, other objects and other weights are told apart."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from test_deep_training_guards import SETTINGS, build, tensors

from pcsim.deep.checkpoint import load_checkpoint, save_checkpoint
from pcsim.deep.encodings import ErrorEncoding, GradientEncoding, LogSignGradientEncoding
from pcsim.deep.estimators import Pathwise, ScoreFunction
from pcsim.deep.inference_gradient import GradientAscent
from pcsim.deep.outputs import Gaussian
from pcsim.deep.run_identity import described, run_identity
from pcsim.deep.training import restore, train
from pcsim.deep.training_step import binarised, dequantised


@pytest.fixture
def x(rng):
    return torch.as_tensor(rng.random((64, 10)), dtype=torch.float32)


def test_weights_come_back_after_training_with_an_estimator_that_remembers(x, tmp_path):
    modules = build()
    settings = replace(SETTINGS, estimator=ScoreFunction("running_mean"))
    train(*modules, x, settings, folder=tmp_path, progress=False)
    assert "step.estimator.level" in load_checkpoint(tmp_path / "last.safetensors")[0]
    again = build(seed=5)
    restore(*again, tmp_path)
    pairs = zip(tensors(*again), tensors(*modules), strict=True)
    assert all(torch.equal(one, other) for one, other in pairs)


OTHERS = {
    "data": (
        {"estimator": ScoreFunction("none")}, {"flip": True}, "data 'float32 (64, 10) sha256",
    ),
    "baseline": (
        {"estimator": ScoreFunction("none")}, {"estimator": ScoreFunction("running_mean")},
        "estimator.baseline \"'none'\" in the checkpoint",
    ),
    "output": ({}, {"output": Gaussian(1.0)}, "model.output 'Bernoulli' in the checkpoint"),
    "precision": (
        {"output": Gaussian(0.7)}, {"output": Gaussian(4.0)},
        "model.output.precision '0.7' in the checkpoint",
    ),
    "encoding": (
        {"encoding": LogSignGradientEncoding(floor=1e-3)}, {"encoding": LogSignGradientEncoding()},
        "inference.encoding.floor '0.001' in the checkpoint",
    ),
    "the same": (
        {"encoding": GradientEncoding()}, {"encoding": GradientEncoding(with_x=True)}, "",
    ),
    "prepare": ({"prepare": binarised}, {"prepare": dequantised}, "prepare 'binarised'"),
    "validation": ({}, {"validation": True}, "validation 'None' in the checkpoint"),
}  # fmt: skip


@pytest.mark.parametrize("name", list(OTHERS))
def test_another_run_of_equal_settings_and_shapes_is_not_gone_on_with(name, x, refused, tmp_path):
    def run(n_epochs, **changes):
        made = {"output": None, "encoding": None, "estimator": Pathwise(), **changes}
        modules = build(made["output"], encoding=made["encoding"])
        settings = replace(SETTINGS, n_epochs=n_epochs, estimator=made["estimator"])
        data = 1 - x if made.get("flip") else x
        return train(
            *modules, data, settings, folder=tmp_path, progress=False,
            prepare=made.get("prepare"), validation=x[:8] if made.get("validation") else None,
        )  # fmt: skip

    before, after, words = OTHERS[name]
    run(1, **before)
    whole = (tmp_path / "last.safetensors").read_bytes()
    both = {**before, **after}
    if not words:  # the same after all, told from another object
        assert len(run(2, **both).history) == 2
        return
    message = refused(run, 2, **both)
    assert words in message
    assert "Train in a new folder" in message
    assert (tmp_path / "last.safetensors").read_bytes() == whole


def test_a_checkpoint_without_identity_is_taken_with_a_warning(x, tmp_path):
    whole = train(*build(), x, replace(SETTINGS, n_epochs=2), progress=False)
    train(*build(), x, SETTINGS, folder=tmp_path, progress=False)
    file = tmp_path / "last.safetensors"
    found, record = load_checkpoint(file)
    assert record.pop("identity")["model.output"] == "Bernoulli"
    save_checkpoint(file, found, record)
    modules = build()
    with pytest.warns(UserWarning, match=r"does not say of which model and data.*new folder"):
        done = train(*modules, x, replace(SETTINGS, n_epochs=2), folder=tmp_path, progress=False)
    assert done.history == whole.history
    assert load_checkpoint(file)[1]["identity"]["model.output"] == "Bernoulli"


class Scaled:
    """A preparation, an output or an inference of one's own, of no class of the library."""

    __slots__ = ("__dict__", "within")

    def __init__(self, by, *, within=None):
        self.by, self.within, self.held = by, within, {"scale": [by]}
        self.itself = self  # what would go round for ever

    def __call__(self, rows, generator):
        return rows * 0.5

    def prepared(self, rows, generator):
        return self(rows, generator)

    n_parameters = 1
    shared_shape = staticmethod(lambda n_x: None)

    def check(self, where, x):
        pass

    def log_prob(self, x, parameters):
        return -0.5 * self.by * (x - parameters[0]).square().sum(-1)

    def steps(self, model, x, evaluation, n_iterations=None):
        return GradientAscent(n_iterations=2).steps(model, x, evaluation)


OWN = {
    "prepare": lambda one: {"prepare": one},
    "method of prepare": lambda one: {"prepare": one.prepared},
    "partial prepare": lambda one: {"prepare": partial(Scaled.prepared, one)},
    "output": lambda one: {"output": one},
    "inference": lambda one: {"inference": one},
}


@pytest.mark.parametrize("name", list(OWN))
def test_objects_of_ones_own_are_told_apart_by_what_they_hold(name, x, refused, tmp_path):
    def run(n_epochs, by, within):
        made = OWN[name](Scaled(by, within=within))
        model, inference = build(made.get("output"))
        return train(
            model, made.get("inference", inference), x, replace(SETTINGS, n_epochs=n_epochs),
            prepare=made.get("prepare"), folder=tmp_path, progress=False,
        )  # fmt: skip

    array = np.array([0.7, 4.0], dtype=">f8")
    run(1, 0.7, array)
    assert "'0.7'" in refused(run, 2, 4.0, array) or "by=0.7" in refused(run, 2, 4.0, array)
    assert "sha256" in refused(run, 2, 0.7, array + 0.1)
    assert len(run(2, 0.7, array.astype(float)).history) == 2


def test_weights_are_not_restored_beside_another_output_of_ones_own(x, refused, tmp_path):
    train(*build(Scaled(0.7)), x, SETTINGS, folder=tmp_path, progress=False)
    message = refused(restore, *build(Scaled(4.0)), tmp_path)
    assert "model.output.by '0.7' in the checkpoint, expected model.output.by '4.0'" in message
    restore(*build(Scaled(0.7)), tmp_path)


IDENTITY = """
import sys; sys.path.insert(0, {tests!r})
import torch
from test_deep_training_identity import identity
print(sorted(identity().items()))
"""


def identity():
    """An identity with whatever could hold an address: functions, partials, modules, objects."""
    model, inference = build(Gaussian("global"), encoding=ErrorEncoding())
    inference.start = partial(GradientAscent().start, n_examples=2)
    model.further = [Scaled(0.7, within=model), {"a": np.array(["b", None])}, object()]
    parts = {"model": model, "inference": inference, "estimator": ScoreFunction()}
    return run_identity(parts, torch.ones(3, 10), None, lambda rows, generator: rows)


def test_an_identity_is_the_same_in_another_process():
    script = IDENTITY.format(tests=str(Path(__file__).parent))
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=120,
        cwd=Path(__file__).parent.parent,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.strip() == str(sorted(identity().items()))
    assert "0x" not in done.stdout


def test_an_identity_leaves_out_what_training_changes(x, tmp_path):
    modules = build(Gaussian("feature"))
    before = dict(described("model", modules[0])), dict(described("inference", modules[1]))
    train(*modules, x, SETTINGS, folder=tmp_path, progress=False)
    after = dict(described("model", modules[0])), dict(described("inference", modules[1]))
    assert before == after
    assert before[0]["model.log_precision_x"] == "learned (10,)"
    modules[0].requires_grad_(False)
    assert dict(described("model", modules[0]))["model.log_precision_x"] == "fixed (10,)"
    value = {"a": np.array([0.7, 4.0])}
    assert dict(described("v", value)) != dict(described("v", {"a": np.array([0.7, 4.1])}))
