"""What users hand to deep models by mistake, or in a mode of torch of their own."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from torch import nn

from pcsim.deep.evaluation import elbo, log_likelihood, perplexity
from pcsim.deep.evaluation_information import active_units, mutual_information
from pcsim.deep.inference import infer
from pcsim.deep.inference_direct import Direct
from pcsim.deep.inference_exact import Exact as LinearExact
from pcsim.deep.inference_gradient import PointEstimate
from pcsim.deep.inference_hybrid import Hybrid
from pcsim.deep.latent_gaussian import LatentGaussian
from pcsim.deep.many_seeds import train_together
from pcsim.deep.networks import FullyConnected
from pcsim.deep.outputs import Bernoulli, Gaussian
from pcsim.deep.pc_descent import AdamDescent
from pcsim.deep.pc_energy import BinaryCrossEntropy, CrossEntropy, SquaredError
from pcsim.deep.pc_errors import ErrorOptimisation
from pcsim.deep.pc_fast import PlainTrainer
from pcsim.deep.pc_hybrid import guess, reverse_chain
from pcsim.deep.pc_inference import GradientDescent
from pcsim.deep.pc_inference import infer as settle
from pcsim.deep.pc_learning import backprop_step, train_step
from pcsim.deep.pc_newton import Exact, GaussNewton
from pcsim.deep.pc_trace import predictive_coding
from pcsim.deep.pc_training import train as train_network
from pcsim.deep.pc_training_settings import PCTrainingSettings
from pcsim.deep.posteriors import MeanField
from pcsim.deep.training import TrainingSettings, restore, train


def chain(*sizes, act=nn.Tanh, **energies):
    layers = [part for a, b in itertools.pairwise(sizes) for part in (nn.Linear(a, b), act())]
    return predictive_coding(nn.Sequential(*layers[:-1]), **energies)


def linear(*sizes, **energies):
    pairs = itertools.pairwise(sizes)
    return predictive_coding(nn.Sequential(*(nn.Linear(a, b) for a, b in pairs)), **energies)


def drawn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def autoencoder(**changes):
    draw = torch.Generator().manual_seed(0)
    model = LatentGaussian(6, (3,), Gaussian(1.0), generator=draw, **changes)
    return model, Direct(model, widths=[[8]], generator=draw)


SHORT = TrainingSettings(n_epochs=2, batch_size=10, device="cpu")


# The exact solution


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_exact_solution_is_its_own_solution(dtype):
    network = linear(3, 4, 2).to(dtype)
    clamp = {"input": drawn(5, 3).to(dtype), "output": drawn(5, 2, seed=1).to(dtype)}
    once = settle(network, clamp, Exact())
    again = settle(network, clamp, Exact(), initial={"_0": once.states["_0"]})
    tol = 1e-5 if dtype == torch.float32 else 1e-12
    torch.testing.assert_close(again.states["_0"], once.states["_0"], rtol=0, atol=tol)
    at_rest = {"input": clamp["input"], "output": network(clamp["input"]).detach()}
    assert float(settle(network, at_rest, Exact()).energy.max()) < tol**1.5


def test_a_network_that_is_not_linear_is_told_from_one_that_is(refused):
    network = chain(3, 4, 4, 2)
    clamp = {"input": drawn(5, 3), "output": drawn(5, 2, seed=1)}
    assert "of the slope left" in refused(settle, network, clamp, Exact())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("seed", range(8))
def test_many_lowest_points_are_refused_in_either_precision(dtype, seed, refused):
    torch.manual_seed(seed)
    network = linear(4, 5, 3).to(dtype)
    clamp, start = {"output": drawn(6, 3).to(dtype)}, {"input": torch.zeros(6, 4, dtype=dtype)}
    found = refused(settle, network, clamp, Exact(), initial=start)
    assert "without a single lowest point" in found


# Fast paths


@pytest.mark.parametrize("path", ["auto", "fused", "general"])
def test_no_path_learns_until_weights_are_not_finite(path):
    network = linear(4, 2)
    x, y = drawn(8, 4), drawn(8, 2, seed=1)
    trainer = PlainTrainer(network, GradientDescent(), learning_rate=10.0, path=path)

    def learn():
        for _ in range(60):
            trainer(x, y)

    with pytest.raises(RuntimeError):
        learn()
    assert all(torch.isfinite(one).all() for one in network.parameters())


@pytest.mark.parametrize("size", [1e20, 1e30])
def test_targets_too_large_for_their_squares_are_refused(size):
    network = linear(4, 3, 2)
    trainer = PlainTrainer(network, GradientDescent(n_steps=2), learning_rate=0.1)
    with pytest.raises(RuntimeError):
        trainer(drawn(8, 4), size * drawn(8, 2, seed=1))
    assert all(torch.isfinite(one).all() for one in network.parameters())


# Data of the wrong kind


@pytest.mark.parametrize(
    ("energy", "target", "words"),
    [
        (BinaryCrossEntropy(), 255.0, "probabilities, 0 to 1"),
        (BinaryCrossEntropy(), -0.1, "probabilities, 0 to 1"),
        (CrossEntropy(), -1.0, "weights of classes, from 0"),
    ],
)
def test_targets_that_an_energy_gives_no_density_are_refused(energy, target, words, refused):
    network, x, method = chain(4, 5, 3, output=energy), drawn(6, 4), GradientDescent()
    clamp = {"input": x, "output": torch.full((6, 3), target)}
    optimiser = torch.optim.SGD(network.parameters(), 0.1)
    assert words in refused(settle, network, clamp)
    assert words in refused(train_step, network, clamp, method, optimiser)
    assert words in refused(train_network, network, clamp, progress=False)
    trainer = PlainTrainer(network, method, learning_rate=0.1)
    assert words in refused(trainer, x, clamp["output"])
    assert words in refused(backprop_step, network, {"input": x}, clamp["output"], optimiser)


def test_activities_of_the_wrong_width_are_refused_by_name(refused):
    network = chain(4, 5, 3)
    clamp = {"input": drawn(6, 7), "output": drawn(6, 3)}
    assert "'input' (7,)" in refused(settle, network, clamp)
    trainer = PlainTrainer(network, GradientDescent(), learning_rate=0.1, path="general")
    assert "'input' (7,)" in refused(trainer, clamp["input"], clamp["output"])
    optimiser = torch.optim.SGD(network.parameters(), 0.1)
    found = refused(backprop_step, network, {"input": clamp["input"]}, clamp["output"], optimiser)
    assert "'input' (7,)" in found


def test_backpropagation_checks_what_it_is_given(refused):
    network = chain(4, 5, 3)
    optimiser = torch.optim.SGD(network.parameters(), 0.1)
    x, y = drawn(6, 4), drawn(6, 3)

    def call(inputs, target=y):
        return refused(backprop_step, network, inputs, target, optimiser)

    assert "no activity of the inputs ['input']" in call({"inp": x})
    assert "float64" in call({"input": x.double()})
    assert "(0, 4)" in call({"input": x[:0]}, y[:0])
    assert "int64" in call({"input": x}, y.long())
    leaf = x.clone().requires_grad_()
    backprop_step(network, {"input": leaf}, y, optimiser)
    assert leaf.grad is None


def test_a_guess_checks_what_it_is_given(refused):
    amortizer = reverse_chain(chain(4, 5, 3))
    y = drawn(6, 3)
    assert "NaN" in refused(guess, amortizer, {"output": y * math.nan})
    assert "float64" in refused(guess, amortizer, {"output": y.double()})
    assert "'output' (4,)" in refused(guess, amortizer, {"output": drawn(6, 4)})
    assert guess(amortizer, {"output": y})["input"].shape == (6, 4)


def test_precisions_of_another_type_are_refused(refused):
    network = chain(4, 3, 2, output=SquaredError(torch.as_tensor(np.array([1.0, 2.0]))))
    clamp = {"input": drawn(6, 4), "output": drawn(6, 2)}
    for method in (GradientDescent(), GaussNewton()):
        assert "precisions of torch.float64" in refused(settle, network, clamp, method)


def test_arrays_and_lists_are_refused_with_a_way_out(refused):
    model, inference = autoencoder()
    assert "Use torch.as_tensor" in refused(infer, inference, model, np.zeros((2, 6), np.float32))
    assert "Use torch.as_tensor" in refused(train, model, inference, [[0.0] * 6])


def test_classes_and_swapped_objects_are_refused(refused):
    model, inference = autoencoder()
    x = drawn(4, 6)
    assert "inference Direct, expected inference" in refused(infer, Direct, model, x)
    assert "infer(inference, model, x)" in refused(infer, model, inference, x)
    assert "refinement Exact" in refused(Hybrid, inference, LinearExact())
    assert "guess Direct" in refused(Hybrid, Direct, inference)
    assert "Write (3,)" in refused(LatentGaussian, 6, 3)
    assert "output Bernoulli" in refused(LatentGaussian, 6, (3,), Bernoulli)
    assert "energy of 'output' CrossEntropy" in refused(
        predictive_coding, nn.Linear(3, 2), output=CrossEntropy
    )
    assert "two numbers" in refused(AdamDescent, betas=(0.9,))
    network = chain(4, 3, 2)
    clamp = {"input": drawn(6, 4), "output": drawn(6, 2)}
    for wrong in (GradientDescent, "adam"):
        assert "Give the object itself" in refused(settle, network, clamp, wrong)
        assert "Give the object itself" in refused(PlainTrainer, network, wrong, learning_rate=0.1)


@pytest.mark.parametrize("limits", [(0.0, math.nan), (1.0, 0.0), (0.0, 0.95), (0.5, 0.5)])
def test_bins_that_do_not_fill_their_limits_are_refused(limits, refused):
    assert "limits" in refused(Gaussian, bin_width=0.1, limits=limits)


@pytest.mark.parametrize("limits", [(0, 1, 2), (0,), 1.0])
def test_limits_of_bins_are_two_numbers(limits, refused):
    message = refused(Gaussian, 1.0, bin_width=1 / 255, limits=limits)
    assert f"limits {limits!r}, expected the two outermost centres" in message


def test_what_latents_say_of_means_that_ran_off_is_refused(refused):
    means = torch.full((3, 2), math.nan)
    assert "6 of 6 means" in refused(active_units, means)
    q, draw = MeanField((means,), (torch.zeros(3, 2),)), torch.Generator()
    assert "6 of 6 means" in refused(mutual_information, q, generator=draw)


def test_a_feedforward_pass_of_less_than_one_example_is_refused(refused):
    network = chain(4, 3, 2)
    found = refused(network.feedforward, {"input": drawn(2, 4)}, n_examples=-1)
    assert "n_examples -1" in found


def test_perplexity_of_nothing_is_refused(refused):
    assert "numbers above 0" in refused(perplexity, torch.zeros(0), torch.zeros(0))
    assert "numbers above 0" in refused(perplexity, torch.zeros(2), torch.zeros(0))


# Data that hang on a graph, and modes of torch


def test_data_drawn_from_a_model_train_it_and_keep_no_graph():
    model, inference = autoencoder()
    x, latents = model.sample(40, torch.Generator().manual_seed(1))
    assert not x.requires_grad
    assert not latents[0].requires_grad
    train(model, inference, x, SHORT, progress=False)
    leaf = x.clone().requires_grad_()
    train(model, inference, 1.0 * leaf, SHORT, progress=False)
    assert leaf.grad is None


def test_data_with_a_graph_train_many_seeds():
    pairs = [autoencoder() for _ in range(2)]
    leaf = drawn(20, 6).requires_grad_()
    train_together(*zip(*pairs, strict=True), 1.0 * leaf, SHORT, [0, 1])
    assert leaf.grad is None


def test_the_same_object_for_two_seeds_is_refused(refused):
    model, inference = autoencoder()
    x = drawn(20, 6)
    assert "twice" in refused(train_together, [model] * 2, [inference] * 2, x, SHORT, [0, 1])


@pytest.mark.parametrize("method", [ErrorOptimisation(n_steps=3), GaussNewton(), Exact()])
@pytest.mark.parametrize("record", [False, True])
def test_inference_mode_changes_no_result(method, record):
    network = linear(4, 5, 3)
    x, y = drawn(6, 4), drawn(6, 3, seed=1)
    expected = settle(network, {"input": x, "output": y}, method, record=record)
    with torch.inference_mode():
        clamp = {"input": 1.0 * x, "output": 1.0 * y}
        found = settle(network, clamp, method, record=record)
    assert torch.equal(found.energy, expected.energy)


def test_latent_models_infer_and_train_in_any_mode():
    model, inference = autoencoder()
    x = drawn(20, 6)
    point = PointEstimate(n_iterations=5)
    expected = infer(point, model, x).trace
    with torch.inference_mode():
        assert torch.equal(infer(point, model, 1.0 * x).trace, expected)
        infer(inference, model, 1.0 * x, generator=torch.Generator().manual_seed(0))
        first = train(model, inference, 1.0 * x, SHORT, progress=False).history
    again = autoencoder()
    with torch.no_grad():
        second = train(*again, x, SHORT, progress=False).history
    assert [one["train"] for one in first] == [one["train"] for one in second]


def test_a_network_trains_where_the_caller_takes_no_derivatives():
    x, y = drawn(6, 4), drawn(6, 3, seed=1)
    settings = PCTrainingSettings(n_epochs=3, learning_rate=0.1)
    for mode in (torch.no_grad, torch.inference_mode):
        network = chain(4, 5, 3)
        with mode():
            done = train_network(network, {"input": x, "output": y}, settings, progress=False)
        assert done.history[-1]["train"] < done.history[0]["train"]


def test_examples_are_inferred_alone_though_the_model_is_in_training_mode():
    decoder = FullyConnected(3, (8,), normalization="batch", generator=torch.Generator())
    model, _ = autoencoder(decoders=[decoder])
    kept = {name: one.clone() for name, one in model.state_dict().items()}
    x, point = drawn(20, 6), PointEstimate(step=0.1, n_iterations=20)
    assert model.training
    whole, part = infer(point, model, x), infer(point, model, x[:2])
    torch.testing.assert_close(whole.trace[:, :2], part.trace, rtol=0, atol=1e-5)
    _, inference = autoencoder()
    draw = torch.Generator().manual_seed(0)
    q = infer(inference, model, x, generator=draw).q
    elbo(model, x, q, generator=draw)
    log_likelihood(model, x, q, n_samples=3, generator=draw)
    model.sample(5, draw)
    assert model.training
    for name, one in model.state_dict().items():
        assert torch.equal(one, kept[name]), name


def test_weights_are_not_restored_into_coarser_ones(tmp_path, refused):
    x = drawn(20, 6).double()
    settings = TrainingSettings(n_epochs=1, batch_size=10, device="cpu", precision="float64")
    train(*autoencoder(), x, settings, folder=tmp_path, progress=False)
    model, inference = autoencoder()
    assert "finer than torch.float32" in refused(restore, model, inference, tmp_path)
    restore(model.double(), inference.double(), tmp_path)


def test_advice_for_automatic_steps_is_not_to_take_them():
    network = chain(4, 5, 3)
    with torch.no_grad():
        for one in network.parameters():
            one.fill_(1e30)
    clamp = {"input": drawn(6, 4), "output": drawn(6, 3)}
    with pytest.raises(RuntimeError, match="lower the learning rate"):
        settle(network, clamp, ErrorOptimisation(n_steps=4, step="auto"))
