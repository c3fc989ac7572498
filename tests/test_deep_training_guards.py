"""What training refuses: data of another kind, odd settings, and losses that run away."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from pcsim.deep.checkpoint import load_checkpoint, save_checkpoint
from pcsim.deep.estimators import ScoreFunction
from pcsim.deep.inference import infer
from pcsim.deep.inference_direct import Direct
from pcsim.deep.inference_iterative import Iterative
from pcsim.deep.latent_gaussian import LatentGaussian
from pcsim.deep.many_seeds import train_together
from pcsim.deep.objective import Annealing, Objective
from pcsim.deep.outputs import Bernoulli, Gaussian, Multinomial
from pcsim.deep.training import TrainingSettings, train
from pcsim.deep.training_step import WORST, binarised, check_loss, dequantised, generator_for

SETTINGS = TrainingSettings(n_epochs=1, batch_size=16, learning_rate=3e-3, device="cpu")


def build(output=None, *, encoding=None, n_z=(4,), seed=0):
    generator = torch.Generator().manual_seed(seed)
    model = LatentGaussian(10, n_z, output, generator=generator)
    if encoding is None:
        return model, Direct(model, widths=[[8]] * len(n_z), generator=generator)
    return model, Iterative(
        model, encoding=encoding, widths=[[8]], n_iterations=2, generator=generator
    )


def tensors(*modules):
    return [one.clone() for part in modules for one in part.state_dict().values()]


@pytest.fixture
def x(rng):
    return torch.as_tensor(rng.random((64, 10)), dtype=torch.float32)


@pytest.mark.parametrize("rate", [3e3, 30.0])
def test_a_loss_that_runs_away_stops_the_run_and_keeps_the_last_checkpoint(rate, x, tmp_path):
    modules = build(Gaussian(4.0))
    train(*modules, x, SETTINGS, folder=tmp_path, progress=False)
    before = (tmp_path / "last.safetensors").read_bytes()
    record = load_checkpoint(tmp_path / "last.safetensors")
    record[1]["settings"]["learning_rate"] = rate
    save_checkpoint(tmp_path / "wild" / "last.safetensors", *record)
    kept = (tmp_path / "wild" / "last.safetensors").read_bytes()
    wild = replace(SETTINGS, n_epochs=5, learning_rate=rate)
    for folder in (tmp_path / "wild", None):
        with pytest.raises(RuntimeError, match=r"mean free energy of .*Lower learning_rate"):
            train(*build(Gaussian(4.0)), x, wild, folder=folder, progress=False)
    assert (tmp_path / "wild" / "last.safetensors").read_bytes() == kept
    assert (tmp_path / "last.safetensors").read_bytes() == before
    message = r"train_together: found a mean free energy of .*Lower learning_rate"
    with pytest.raises(RuntimeError, match=message):
        train_together(*([one] for one in build(Gaussian(4.0))), x, wild, [0])


def test_a_loss_has_diverged_beyond_its_stated_multiple():
    for first, least in ((50.0, 50.0), (-300.0, 300.0), (0.01, 10.0)):
        check_loss("train", WORST * least, first, 10, 0)
        for loss in (1.001 * WORST * least, math.inf, math.nan):
            with pytest.raises(RuntimeError, match="Lower learning_rate"):
                check_loss("train", loss, first, 10, 0)


@pytest.mark.parametrize(
    ("loss", "first", "n_x", "limit", "of"),
    [
        (1e9, 250.0, 8, "2.5e+05", "1000 times the first, 250"),
        (1e9, 2.0, 8, "8e+03", "1000 times the number of features, 8,"),
        (1.2e15, 1.23e15, 8, "8e+09", r"1000 times 1e\+06 nats for each of 8 features"),
    ],
)
def test_a_loss_is_refused_in_words_that_give_its_limit(loss, first, n_x, limit, of):
    limit = limit.replace("+", r"\+")
    with pytest.raises(RuntimeError, match=f"at most {limit}: {of}"):
        check_loss("train", loss, first, n_x, 3)


def test_devices_folders_and_data_of_another_kind_are_refused(x, refused):
    assert "device None, expected a name such as 'auto'" in refused(TrainingSettings, device=None)
    assert replace(SETTINGS, device=torch.device("cpu")).device.type == "cpu"
    modules = build()
    message = refused(train, *modules, x, SETTINGS, folder=3)
    assert "folder 3, expected a path, or None" in message
    for data, words in ((x.to_sparse(), "sparse_coo"), (x.to(torch.complex64), "complex")):
        for message in (
            refused(train, *modules, data, SETTINGS),
            refused(train, *modules, x, SETTINGS, validation=data),
            refused(infer, modules[1], modules[0], data),
        ):
            assert f"x that is {words}, expected a dense tensor of reals" in message


def test_classes_swapped_parts_and_no_settings_are_refused(x, refused):
    model, inference = build()
    assert "inference Direct" in refused(train, model, Direct, x, SETTINGS)
    assert "inference 3" in refused(train, model, 3, x, SETTINGS)
    assert "as in train(model, inference, x, settings)" in refused(
        train, inference, model, x, SETTINGS
    )
    assert "model LatentGaussian" in refused(train, LatentGaussian, inference, x, SETTINGS)
    for wrong in (None, {"n_epochs": 2}, TrainingSettings):
        assert "TrainingSettings()" in refused(train, model, inference, x, wrong)


def test_a_bound_that_a_small_weight_lets_go_has_not_diverged(x):
    # With no weight on the divergence posteriors narrow without end: the bound is not the loss.
    settings = replace(SETTINGS, n_epochs=30, learning_rate=0.3, objective=Objective(kl_weight=0.0))
    done = train(*build(Gaussian(4.0)), 30 * x, settings, progress=False)
    assert done.history[-1]["train"] < done.history[0]["train"] * WORST


BAD = {
    "greys": (Bernoulli(), 255 * torch.ones(4, 10), "x from 255 to 255", "Divide greys by 255"),
    "signs": (Bernoulli(), -torch.ones(4, 10), "x from -1 to -1", "0 to 1 for Bernoulli"),
    "negative": (Multinomial(), torch.full((4, 10), -5.0), "40 of 40 entries", "count of each"),
    "shares": (Multinomial(), torch.full((4, 10), 0.1), "40 of 40 entries", "count of each"),
    "bins": (
        Gaussian(0.7, bin_width=1 / 255, limits=(0.0, 1.0)), torch.full((4, 10), 2.0),
        "x from 2 to 2", "Scale the data",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", list(BAD))
def test_data_that_an_output_cannot_have_are_refused_at_every_border(name, refused):
    output, x, *words = BAD[name]
    modules = build(output)
    good = (x * 0).round()
    for message in (
        refused(train, *modules, x, SETTINGS, progress=False),
        refused(train, *modules, good, SETTINGS, validation=x, progress=False),
        refused(train_together, [modules[0]], [modules[1]], x, SETTINGS, [0]),
        refused(infer, modules[1], modules[0], x),
    ):
        assert all(one in message for one in words), message
    output.check("test", good)


def test_data_are_judged_as_they_come_out_of_their_preparation(refused, x):
    greys = (255 * x).round()

    def scaled(rows, generator):
        return binarised(rows / 255, generator)

    done = train(*build(), greys, SETTINGS, prepare=scaled, validation=greys, progress=False)
    assert math.isfinite(done.history[0]["train"])
    message = refused(train, *build(), greys, SETTINGS, prepare=binarised, progress=False)
    assert "on which `prepare` fails" in message
    message = refused(train, *build(), x, SETTINGS, prepare=lambda rows, _: 3 * rows)
    assert "0 to 1 for Bernoulli" in message
    modules = build(Gaussian(1.0))
    before = tensors(*modules)
    message = refused(train, *modules, x, SETTINGS, prepare=lambda rows, _: rows * math.nan)
    assert "640 of 640 entries NaN or infinite after `prepare`" in message
    after = zip(before, tensors(*modules), strict=True)
    assert all(torch.equal(one, other) for one, other in after)


@pytest.mark.parametrize(
    ("prepare", "found"),
    [
        (lambda rows, _: rows.double(), "a tensor of float64 and shape (64, 10) on cpu"),
        (lambda rows, _: rows.numpy(), "a ndarray"),
        (lambda rows, _: None, "None"),
        (lambda rows, _: rows[:, :9], "a tensor of float32 and shape (64, 9) on cpu"),
    ],
    ids=["float64", "numpy", "nothing", "shape"],
)
def test_a_preparation_that_returns_another_kind_is_refused(prepare, found, x, refused):
    for message in (
        refused(train, *build(), x, SETTINGS, prepare=prepare, progress=False),
        refused(train_together, *([one] for one in build()), x, SETTINGS, [0], prepare=prepare),
    ):
        assert f"found {found} after `prepare`" in message
        assert "expected a tensor of float32 and shape (64, 10) on cpu" in message
    double = replace(SETTINGS, precision="float64")
    if found.startswith("a tensor of float64"):
        train(*build(), x, double, prepare=prepare, progress=False)


def test_greys_up_to_255_are_not_dequantised(x, refused):
    greys = (255 * x).to(torch.uint8)
    message = refused(train, *build(Gaussian(0.7)), greys, SETTINGS, prepare=dequantised)
    assert "dequantised: found x from 0" in message or "dequantised: found x from 1" in message
    assert "Divide greys by 255" in message
    assert "x from -0.7 to" in refused(dequantised, torch.tensor([-0.7, 0.4]), torch.Generator())
    train(*build(Gaussian(0.7)), greys / 255, SETTINGS, prepare=dequantised, progress=False)


def test_a_preparation_that_works_in_place_changes_no_data(x):
    def halved(rows, generator):
        return rows.mul_(0.5)

    validation = x[:20].clone()
    before = x.clone(), validation.clone()
    settings = replace(SETTINGS, n_epochs=3)
    runs = [
        train(*build(), x, settings, validation=validation, prepare=one, progress=False).history
        for one in (halved, lambda rows, _: 0.5 * rows)
    ]
    assert runs[0] == runs[1]
    train_together(*([one] for one in build()), x, settings, [0], prepare=halved)
    assert all(torch.equal(*pair) for pair in zip(before, (x, validation), strict=True))


def test_checking_data_draws_nothing_that_training_draws(x, monkeypatch):
    done = []
    for checks in (True, False):
        if not checks:
            monkeypatch.setattr("pcsim.deep.training.check_prepared", lambda *_: None)
        modules = build()
        train(*modules, x, SETTINGS, prepare=binarised, progress=False)
        done.append(tensors(*modules))
    assert all(torch.equal(one, other) for one, other in zip(*done, strict=True))


def test_settings_refuse_two_weights_of_the_divergence_and_what_is_no_estimator(refused):
    message = refused(TrainingSettings, kl_target=1.5, kl_warm_up=3)
    assert "kl_target 1.5 beside kl_warm_up 3" in message
    assert "leave one out" in message
    message = refused(TrainingSettings, kl_target=1.5, objective=Objective(kl_weight=0.7))
    assert "objective.kl_weight 0.7" in message
    message = refused(TrainingSettings, kl_target=1.5, objective=Objective(free_bits=0.5))
    assert "kl_target 1.5 beside objective.free_bits 0.5" in message
    for estimator in ("score", ScoreFunction, None):
        assert "such as Pathwise()" in refused(TrainingSettings, estimator=estimator)
    assert "such as Objective()" in refused(TrainingSettings, objective=0.7)


def test_the_warm_up_of_settings_is_annealing():
    settings = TrainingSettings(kl_warm_up=4, objective=Objective(kl_weight=0.7, free_bits=0.3))
    for time in (0.0, 0.3, 1.7, 4.0, 9.0):
        found = settings.objective_at(time)
        assert found.kl_weight == pytest.approx(0.7 * min(time / 4, 1.0), abs=1e-15)
        assert found == Annealing(n_steps=4, end=0.7).objective(time, settings.objective)
    plain = TrainingSettings(objective=Objective(kl_weight=0.7))
    assert plain.objective_at(0.0) is plain.objective


def test_two_runs_of_one_settings_object_are_the_same_run(x):
    settings = replace(SETTINGS, n_epochs=2, estimator=ScoreFunction("running_mean"))
    histories, ends = [], []
    for _ in range(2):
        modules = build()
        histories.append(train(*modules, x, settings, progress=False).history)
        ends.append(tensors(*modules))
    assert histories[0] == histories[1]
    assert all(torch.equal(one, other) for one, other in zip(*ends, strict=True))
    assert bool(settings.estimator.level.isnan())


@pytest.mark.parametrize("validated", [False, True])
def test_training_leaves_its_modules_in_eval_mode(validated, x):
    model, _ = build()
    inference = Direct(model, widths=[[8]], normalization="batch")
    train(model, inference, x, SETTINGS, validation=x if validated else None, progress=False)
    assert not any(one.training for part in (model, inference) for one in part.modules())


def test_a_run_that_begins_beyond_all_proportion_is_stopped():
    with pytest.raises(RuntimeError, match="mean free energy of 1e"):
        check_loss("train", 1e29, 1e29, 64, 0)
    check_loss("train", 64e5, 64e5, 64, 0)  # grey values of a thousand, not yet learned


def test_noise_depends_on_its_entries_alone():
    one, same, other = (
        torch.randn(4, generator=generator_for("cpu", 3, *entries))
        for entries in ((1, 2), (1, 2), (2, 1))
    )
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


def test_prepared_batches_have_the_distribution_they_should(rng):
    grey = torch.as_tensor(rng.integers(0, 256, size=(20_000,)) / 255.0)
    generator = generator_for("cpu", int(rng.integers(1000)))
    ones = binarised(torch.full((20_000,), 0.7), generator)
    assert set(ones.unique().tolist()) == {0.0, 1.0}
    assert abs(float(ones.mean()) - 0.7) < 4 * math.sqrt(0.21 / 20_000)
    spread = dequantised(grey, generator) * 256 - grey * 255
    assert 0 <= float(spread.min()) < float(spread.max()) <= 1 + 1e-9
    assert abs(float(spread.mean()) - 0.5) < 4 * math.sqrt(1 / 12 / 20_000)
