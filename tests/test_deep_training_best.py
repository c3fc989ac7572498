"""Which weights a run leaves when patience begins, ends or is cut off, and what fits into what."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from pcsim.deep.checkpoint import load_checkpoint, save_checkpoint
from pcsim.deep.estimators import ScoreFunction
from pcsim.deep.inference_direct import Direct
from pcsim.deep.inference_iterative import Iterative
from pcsim.deep.latent_gaussian import LatentGaussian
from pcsim.deep.outputs import Bernoulli, Gaussian
from pcsim.deep.training import TrainingSettings, restore, train

SETTINGS = TrainingSettings(n_epochs=1, batch_size=16, learning_rate=1e-2, device="cpu")
RISING = torch.ones(64, 10), torch.zeros(16, 10)
"""What is learned of the first makes the second worse with every epoch."""


def build(seed=0, output=None, **changes):
    generator = torch.Generator().manual_seed(seed)
    model = LatentGaussian(10, (4,), output, generator=generator)
    return model, Direct(model, widths=[[8]], generator=generator, **changes)


def tensors(modules):
    return [one.clone() for part in modules for one in part.state_dict().values()]


def same(one, other):
    return all(torch.equal(a, b) for a, b in zip(tensors(one), tensors(other), strict=True))


def run(folder, *, data=RISING, estimator=None, **changes):
    modules = build()
    settings = replace(SETTINGS, **changes)
    if estimator is not None:
        settings = replace(settings, estimator=ScoreFunction(estimator))
    done = train(
        *modules, data[0], settings, validation=data[1], folder=folder, progress=False
    )  # fmt: skip
    return modules, done


def left(folder):
    modules = build(5)
    restore(*modules, folder)
    return modules


def test_patience_that_begins_late_leaves_what_it_leaves_from_the_start(tmp_path):
    whole, curve = run(None, n_epochs=9, patience=2)
    assert curve.best["epoch"] == 0
    run(tmp_path)
    late, done = run(tmp_path, n_epochs=9, patience=2)
    assert done.history == curve.history
    assert same(late, whole)
    assert same(left(tmp_path), whole)


def test_patience_that_ends_leaves_the_last_weights(tmp_path):
    whole, _ = run(None, n_epochs=6)
    run(tmp_path, n_epochs=2, patience=5)
    early, _ = run(None, n_epochs=1)
    assert same(left(tmp_path), early)  # the best of two
    longer, _ = run(tmp_path, n_epochs=6)
    assert same(longer, whole)
    assert same(left(tmp_path), whole)


def test_patience_can_end_and_begin_again_where_the_best_weights_are_still_there(tmp_path):
    whole, _ = run(None, n_epochs=6, patience=5)
    run(tmp_path, n_epochs=2, patience=5)
    run(tmp_path, n_epochs=2)
    assert same(left(tmp_path), run(None, n_epochs=2)[0])  # without another epoch, too
    again, _ = run(tmp_path, n_epochs=6, patience=5)
    assert same(again, whole)
    assert same(left(tmp_path), whole)


def test_best_weights_that_nobody_kept_are_asked_for_in_vain(tmp_path, refused):
    run(tmp_path, n_epochs=3)
    message = refused(run, tmp_path, n_epochs=6, patience=5)
    assert "no weights of epoch 0, the best of 3" in message
    assert "Go on without patience" in message
    run(tmp_path, n_epochs=4)
    assert same(left(tmp_path), run(None, n_epochs=4)[0])


def test_a_run_cut_off_between_its_two_files_goes_on_to_the_best_weights(tmp_path):
    falling = torch.ones(64, 10), torch.ones(16, 10)
    run(tmp_path / "one", data=falling, n_epochs=2, patience=2, checkpoint_every=5)
    run(tmp_path / "two", data=falling, n_epochs=3, patience=2, checkpoint_every=5)
    # The last file of epoch 2 beside the best one of epoch 1.
    (tmp_path / "two" / "best.safetensors").write_bytes(
        (tmp_path / "one" / "best.safetensors").read_bytes()
    )
    third, _ = run(None, data=falling, n_epochs=3)
    assert same(left(tmp_path / "two"), third)
    again, _ = run(tmp_path / "two", data=falling, n_epochs=3, patience=2)
    assert same(again, third)


def test_best_weights_that_are_missing_are_asked_for(tmp_path, refused):
    run(tmp_path, n_epochs=3, patience=5)
    (tmp_path / "best.safetensors").unlink()
    message = refused(restore, *build(), tmp_path)
    assert "no best.safetensors of epoch 0" in message
    assert "Copy all files" in message


@pytest.mark.parametrize("stale", [False, True])
def test_a_folder_of_before_is_restored_by_its_histories(stale, tmp_path):
    # Without the entry that tells of patience; stale where a later epoch was the best.
    falling = torch.ones(64, 10), torch.ones(16, 10)
    data = falling if stale else RISING
    run(tmp_path, data=data, n_epochs=2, patience=5)
    if stale:
        run(tmp_path, data=data, n_epochs=4)
    file = tmp_path / "last.safetensors"
    found, record = load_checkpoint(file)
    del record["best_epoch"]
    save_checkpoint(file, found, record)
    expected, _ = run(None, data=data, n_epochs=4 if stale else 1)
    assert same(left(tmp_path), expected)


def without(file, change):
    """Write a checkpoint anew without something that it had."""
    found, record = load_checkpoint(file)
    change(found, record)
    save_checkpoint(file, found, record)


def forget(record, name, value=None):
    record.pop(name)
    if value is not None:
        record[name] = value


DAMAGES = {
    "no history": (lambda _, record: forget(record, "history"), "history is missing or damaged"),
    "no epochs": (lambda _, record: forget(record, "history", []), "history is missing or damaged"),
    "no entry": (
        lambda _, record: forget(record["history"][0], "validation"), "missing or damaged",
    ),
    "a word": (
        lambda _, record: forget(record["history"][1], "train", "low"), "missing or damaged",
    ),
    "no squares": (
        lambda found, _: forget(found, "optimiser.0.exp_avg_sq"), "state 'optimiser.0.exp_avg_sq'",
    ),
    "no state": (
        lambda found, _: [found.pop(name) for name in list(found) if "optimiser" in name],
        "no optimiser state 'optimiser.0.step'",
    ),
    "no multiplier": (lambda _, record: forget(record, "log_multiplier"), "log_multiplier None"),
    "identity": (lambda _, record: forget(record, "identity", ["Direct"]), "expected model 'Lat"),
}  # fmt: skip


@pytest.mark.parametrize("name", list(DAMAGES))
def test_a_checkpoint_that_is_damaged_inside_is_not_gone_on_with(name, tmp_path, refused):
    change, words = DAMAGES[name]
    run(tmp_path, n_epochs=2, kl_target=1.5)
    file = tmp_path / "last.safetensors"
    without(file, change)
    before = file.read_bytes()
    message = refused(run, tmp_path, n_epochs=3, kl_target=1.5)
    assert words in message
    assert "rain in a new folder" in message
    assert file.read_bytes() == before
    if "history" in words or "damaged" in words:
        assert "take another copy" in refused(left, tmp_path)


@pytest.mark.parametrize("name", ["best.safetensors", "last.safetensors"])
def test_best_weights_of_no_history_are_refused(name, tmp_path, refused):
    run(tmp_path, n_epochs=2, patience=5)
    without(tmp_path / name, DAMAGES["no history"][0])
    for ask in (lambda: run(tmp_path, n_epochs=3, patience=5), lambda: left(tmp_path)):
        assert f"load_checkpoint {name}: found a checkpoint whose history" in refused(ask)


def freeze(modules, part):
    modules[part].requires_grad_(False)
    return modules


@pytest.mark.parametrize("part", [0, 1])
def test_a_run_is_not_gone_on_with_on_other_frozen_weights(part, tmp_path, refused):
    x = RISING[0]
    settings = replace(SETTINGS, n_epochs=2)
    first = freeze(build(0), part)
    train(*first, x, settings, folder=tmp_path, progress=False)
    other = freeze(build(7), part)
    before = tensors(other)
    message = refused(train, *other, x, settings, folder=tmp_path, progress=False)
    assert "which does not learn" in message
    assert all(torch.equal(a, b) for a, b in zip(before, tensors(other), strict=True))
    again = freeze(build(0), part)
    train(*again, x, settings, folder=tmp_path, progress=False)
    assert same(again, first)
    train(*again, x, replace(settings, n_epochs=3), folder=tmp_path, progress=False)
    whole = freeze(build(0), part)
    train(*whole, x, replace(settings, n_epochs=3), progress=False)
    assert same(again, whole)


def test_a_run_is_not_gone_on_with_on_other_constants_in_a_buffer(tmp_path, refused):
    x = RISING[0]
    train(*build(), x, SETTINGS, folder=tmp_path, progress=False)
    other = build()
    other[0].top[1] += 0.7
    longer = replace(SETTINGS, n_epochs=2)
    message = refused(train, *other, x, longer, folder=tmp_path, progress=False)
    assert "'model.top', which does not learn" in message


@pytest.mark.parametrize("baseline", ["none", "running_mean"])
def test_what_training_changes_in_buffers_may_differ(baseline, tmp_path):
    run(tmp_path, estimator=baseline, n_epochs=1)
    longer, _ = run(tmp_path, estimator=baseline, n_epochs=2)
    whole, _ = run(None, estimator=baseline, n_epochs=2)
    assert same(longer, whole)
    folder = tmp_path / "normalised"
    modules = build(normalization="batch")
    for n_epochs in (1, 2):  # the very modules again, with running means of their own
        settings = replace(SETTINGS, n_epochs=n_epochs)
        train(*modules, RISING[0], settings, folder=folder, progress=False)
    other = build(normalization="batch")
    train(*other, RISING[0], replace(SETTINGS, n_epochs=2), progress=False)
    assert same(modules, other)


def test_weights_are_not_restored_into_modules_of_other_settings(tmp_path, refused):
    train(*build(output=Gaussian(0.7)), RISING[0], SETTINGS, folder=tmp_path, progress=False)
    message = refused(restore, *build(output=Bernoulli()), tmp_path)
    assert "model.output 'Gaussian' in the checkpoint, expected model.output 'Bernoulli'" in message
    assert "model.output.precision '0.7'" in refused(
        restore, *build(output=Gaussian(4.0)), tmp_path
    )
    message = refused(restore, *build(output=Gaussian(0.7), activation="tanh"), tmp_path)
    assert "inference.networks.0." in message
    frozen = freeze(build(5, Gaussian(0.7)), 0)
    restore(*frozen, tmp_path)


def test_weights_are_restored_into_modules_in_eval_mode(tmp_path):
    trained, other = build(normalization="batch"), build(5, normalization="batch")
    train(*trained, RISING[0], SETTINGS, folder=tmp_path, progress=False)
    restore(*other, tmp_path)
    assert not any(one.training for part in other for one in part.modules())
    assert same(trained, other)


def test_the_number_of_iterations_is_free_when_weights_are_restored(tmp_path):
    def pair(n_iterations):
        model, _ = build()
        return model, Iterative(model, widths=[[8]], n_iterations=n_iterations)

    first, second = pair(2), pair(7)
    train(*first, RISING[0], SETTINGS, folder=tmp_path, progress=False)
    restore(*second, tmp_path)
    assert same(first, second)
