"""Seeds trained as one: what is frozen, refused and stopped is what it is for each alone."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

from pcsim.deep.convolutional import Convolutional, ConvolutionalDecoder
from pcsim.deep.copies import Copies, stack
from pcsim.deep.estimators import ScoreFunction
from pcsim.deep.flows import Flow, Flowed
from pcsim.deep.inference_direct import Direct
from pcsim.deep.inference_exact import Exact
from pcsim.deep.inference_gradient import GradientAscent
from pcsim.deep.inference_hybrid import Hybrid
from pcsim.deep.latent_gaussian import LatentGaussian
from pcsim.deep.many_seeds import train_together
from pcsim.deep.networks import FullyConnected
from pcsim.deep.objective import Objective
from pcsim.deep.outputs import Gaussian
from pcsim.deep.training import TrainingSettings, train
from pcsim.deep.transport import ShuffledData

SETTINGS = TrainingSettings(
    n_epochs=2, batch_size=16, learning_rate=1e-2, precision="float64", device="cpu"
)


def build(seed=0, output=None):
    generator = torch.Generator().manual_seed(seed)
    model = LatentGaussian(10, (4,), output, generator=generator)
    return model, Direct(model, widths=[[8]], generator=generator)


def convolutional(seed, channels):
    """Images of 8 by 8, seen and predicted by convolutions."""
    shape, generator = (1, 8, 8), torch.Generator().manual_seed(seed)
    decoder = ConvolutionalDecoder(
        3, shape, (channels,), normalization="layer", generator=generator
    )
    model = LatentGaussian(64, (3,), decoders=[decoder], generator=generator)
    networks = Convolutional(shape=shape, channels=(channels,), normalization="layer")
    return model, Direct(model, networks=networks, generator=generator)


def tensors(*modules):
    return [one.clone() for part in modules for one in part.state_dict().values()]


def together(pairs, x, settings, seeds):
    models, inferences = (list(one) for one in zip(*pairs, strict=True))
    return train_together(models, inferences, x, settings, seeds)


@pytest.fixture
def x(rng):
    return torch.as_tensor(rng.random((64, 10)), dtype=torch.float32)


def test_weights_in_two_places_are_refused(x, refused):
    model, inference = build()
    inference.heads[0][0].weight = inference.heads[0][1].weight
    message = refused(together, [(model, inference)], x, SETTINGS, [0])
    assert "'inference.heads.0.1.weight', which is elsewhere too" in message
    model, inference = build()
    other = build(3)
    other[0].heads[0] = model.heads[0]
    assert "'model.heads.0.weight'" in refused(
        together, [(model, inference), other], x, SETTINGS, [0, 3]
    )


class Dropped(FullyConnected):
    """A decoder some of whose features are lost at random in training mode."""

    def __init__(self, share, generator):
        super().__init__(4, [8], generator=generator)
        self.drop = nn.Dropout(share)

    def forward(self, z):
        return self.drop(super().forward(z))


def test_a_frozen_part_is_in_eval_mode(x):
    def pair(seed, share):
        generator = torch.Generator().manual_seed(seed)
        decoder = Dropped(share, generator)
        model = LatentGaussian(10, (4,), decoders=[decoder], generator=generator)
        inference = Direct(model, widths=[[8]], generator=generator)
        return model.requires_grad_(False), inference

    dropped, plain = ([pair(seed, share) for seed in (0, 3)] for share in (0.5, 0.0))
    both = [together(pairs, x, SETTINGS, [0, 3]) for pairs in (dropped, plain)]
    assert [one.history for one in both[0]] == [one.history for one in both[1]]


@pytest.mark.parametrize("part", [0, 1])
def test_a_frozen_part_stays_as_it_is_and_the_other_learns_as_it_does_alone(part, x):
    def pair(seed):
        modules = build(seed)
        modules[part].requires_grad_(False)
        return modules

    pairs = [pair(seed) for seed in (0, 3)]
    before = [tensors(modules[part].double()) for modules in pairs]
    together(pairs, x, SETTINGS, [0, 3])
    for seed, modules, frozen in zip((0, 3), pairs, before, strict=True):
        kept = zip(tensors(modules[part]), frozen, strict=True)
        assert all(torch.equal(one, other) for one, other in kept)
        alone = pair(seed)
        train(*alone, x, replace(SETTINGS, seed=seed), progress=False)
        for one, other in zip(tensors(*modules), tensors(*alone), strict=True):
            torch.testing.assert_close(one, other, rtol=0, atol=1e-10)


@pytest.mark.parametrize("channels", [8, 5])
def test_convolutions_with_layer_normalization_learn_as_they_do_alone(channels, rng):
    """Eight channels are as many as the image is wide; a wrong axis is not seen by its size."""
    x = torch.as_tensor(rng.random((24, 64)) < 0.4, dtype=torch.float32)
    settings = replace(SETTINGS, batch_size=8, n_samples=2)
    pairs = [convolutional(seed, channels) for seed in (0, 3)]
    together(pairs, x, settings, [0, 3])
    for seed, modules in zip((0, 3), pairs, strict=True):
        alone = convolutional(seed, channels)
        train(*alone, x, replace(settings, seed=seed), progress=False)
        for one, other in zip(tensors(*modules), tensors(*alone), strict=True):
            torch.testing.assert_close(one, other, rtol=0, atol=1e-10)


class Own(nn.Linear):
    """A layer that is a linear one by its parameters alone."""

    def forward(self, x):
        return torch.sin(super().forward(x))


def test_layers_of_ones_own_are_applied_as_they_are():
    layers = [Own(3, 2), Own(3, 2)]
    copies = Copies(layers, 5)
    x = torch.randn(4, 10, 3, generator=torch.Generator().manual_seed(0))
    expected = torch.cat([layers[0](x[:, :5]), layers[1](x[:, 5:])], 1)
    torch.testing.assert_close(copies(x), expected)


def planar(seed):
    model, _ = build(seed)

    def start(model, n_examples):
        return Flowed.at_prior(model, n_examples, flows)

    flows = [Flow(4, "planar", n_steps=1)]
    return model, Direct(model, start=start, widths=[[8]])


def test_layers_that_take_something_else_than_rows_are_refused(x, refused):
    message = refused(together, [planar(0), planar(1)], x, SETTINGS, [0, 1])
    assert "a Planar with parameters" in message
    assert "Train one by one" in message
    copies = Copies([nn.Linear(3, 2), nn.Linear(3, 2)], 5)
    assert "2 times 5 examples" in refused(copies, torch.zeros(10, 4, 3))
    assert "a LayerNorm" in refused(stack, [nn.LayerNorm((4, 3))], 5)


def test_what_is_frozen_in_one_seed_alone_is_refused_and_so_is_nothing_to_learn(x, refused):
    pairs = [build(0), build(3)]
    pairs[1][0].heads[0].bias.requires_grad_(False)
    message = refused(together, pairs, x, SETTINGS, [0, 3])
    assert "'model.heads.0.bias' frozen in some modules" in message
    frozen = build(0)
    for one in frozen:
        one.requires_grad_(False)
    assert "nothing that learns" in refused(together, [frozen], x, SETTINGS, [0])


REFUSED = {
    "compile": ({"compile": True}, "compile True"),
    "bfloat16": ({"precision": "bfloat16"}, "precision 'bfloat16'"),
    "device": ({"device": "cuda:9"}, "device 'cuda:9'"),
    "baseline": ({"estimator": ScoreFunction("running_mean")}, "which all seeds would share"),
}


@pytest.mark.parametrize("name", list(REFUSED))
def test_settings_that_would_be_ignored_are_refused(name, x, refused):
    changes, words = REFUSED[name]
    assert words in refused(together, [build()], x, replace(SETTINGS, **changes), [0])


def test_what_is_no_seed_or_no_list_of_parts_is_refused_first(x, refused):
    model, inference = build()
    assert "0 models, 0 inferences and 0 seeds" in refused(train_together, [], [], x, SETTINGS, [])
    for seed, words in ((-1, "seed -1"), (0.5, "seed 0.5"), ("0", "seed '0'")):
        assert words in refused(together, [(model, inference)], x, SETTINGS, [seed])
    assert "models of type LatentGaussian" in refused(
        train_together, model, [inference], x, SETTINGS, [0]
    )
    assert "seeds of type int" in refused(train_together, [model], [inference], x, SETTINGS, 1)
    assert "settings None" in refused(train_together, [model], [inference], x, None, [0])
    assert "inference Direct" in refused(train_together, [model], [Direct], x, SETTINGS, [0])
    for one in (Exact(), Hybrid(Exact(), GradientAscent())):
        message = refused(train_together, [model], [one], x, SETTINGS, [0])
        assert "an Exact, expected an inference that does not read" in message
    ends = GradientAscent(tolerance=0.01)
    for one in (ends, Hybrid(inference, ends)):
        message = refused(train_together, [model], [one], x, SETTINGS, [0])
        assert "goes on until all seeds are at its tolerance" in message


def test_tf32_is_asked_for_during_the_run_and_the_device_is_that_of_train(x, monkeypatch):
    seen = []

    def prepare(rows, generator):
        seen.append((torch.get_float32_matmul_precision(), rows.device.type))
        return rows

    before = torch.get_float32_matmul_precision()
    settings = replace(SETTINGS, precision="tf32", device="auto")
    model, inference = build()
    train_together([model], [inference], x, settings, [0], prepare=prepare)
    model, inference = build()
    apart = len(seen)
    train(model, inference, x, settings, prepare=prepare, progress=False)
    # But for the look at the data before the run.
    assert set(seen[1:apart]) == set(seen[apart + 1 :])
    assert {one[0] for one in seen} == {"high"}
    assert torch.get_float32_matmul_precision() == before


def test_the_score_without_memory_trains_together_as_alone(x):
    settings = replace(SETTINGS, estimator=ScoreFunction(), n_samples=3)
    pairs = [build(0), build(3)]
    done = together(pairs, x, settings, [0, 3])
    alone = build(3)
    curve = train(*alone, x, replace(settings, seed=3), progress=False).history
    found = [record["train"] for record in done[1].history]
    assert found == pytest.approx([record["train"] for record in curve], abs=1e-10)
    assert not any(part.training for modules in pairs for part in modules)


@pytest.mark.parametrize("hybrid", [False, True])
def test_steps_are_halved_on_the_noise_of_each_seed_as_they_are_alone(hybrid, x):
    """Damped steps compare free energies on one noise, put back before each."""
    settings = replace(SETTINGS, n_samples=2, n_iterations=4)

    def pair(seed):
        model, guess = build(seed)
        ascent = GradientAscent(optimiser="damped", step=2.0)
        return model, Hybrid(guess, ascent) if hybrid else ascent

    pairs = [pair(0), pair(3)]
    done = together(pairs, x, settings, [0, 3])
    for seed, trained in zip((0, 3), done, strict=True):
        curve = train(*pair(seed), x, replace(settings, seed=seed), progress=False).history
        found = [record["train"] for record in trained.history]
        assert found == pytest.approx([record["train"] for record in curve], abs=1e-9)


def test_weights_that_end_infinite_stop_the_run_and_the_models_keep_theirs(x):
    # One step: its loss is finite, taken before the weights move.
    settings = replace(
        SETTINGS, n_epochs=1, batch_size=64, learning_rate=1e308, precision="float64"
    )
    pairs = [build(0, Gaussian(1.0)), build(3, Gaussian(1.0))]
    before = tensors(*(part.double() for modules in pairs for part in modules))
    with pytest.raises(RuntimeError, match=r"a weight NaN or infinite.*keep their weights"):
        together(pairs, x, settings, [0, 3])
    after = tensors(*(part for modules in pairs for part in modules))
    assert all(torch.equal(one, other) for one, other in zip(before, after, strict=True))
    with pytest.raises(RuntimeError, match=r"a weight NaN or infinite.*memory are lost"):
        train(*build(0, Gaussian(1.0)), x, settings, progress=False)


def test_a_bound_that_a_small_weight_lets_go_stops_neither_way(x):
    settings = replace(
        SETTINGS, n_epochs=30, learning_rate=0.3, objective=Objective(kl_weight=0.0),
        precision="float32",
    )  # fmt: skip
    done = together([build(0, Gaussian(4.0))], 30 * x, settings, [0])
    assert len(done[0].history) == 30


def test_an_inference_that_draws_from_the_generator_itself_is_refused(x, refused):
    pairs = [(model, ShuffledData(direct)) for model, direct in (build(0), build(1))]
    message = refused(together, pairs, x, SETTINGS, [0, 3])
    assert "draws from the generator itself" in message
