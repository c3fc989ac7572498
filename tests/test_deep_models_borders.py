"""What latent Gaussian models and their parts take, and what they refuse in words."""

from __future__ import annotations

from functools import partial

import deep_cases
import numpy as np
import pytest
import torch
from deep_cases import normal

from pcsim.deep.convolutional import Convolutional, ConvolutionalDecoder, ConvolutionalEncoder
from pcsim.deep.evaluation import elbo, log_likelihood
from pcsim.deep.flows import Flow, Flowed
from pcsim.deep.inference import infer
from pcsim.deep.inference_direct import Direct
from pcsim.deep.inference_gradient import GradientAscent
from pcsim.deep.latent_gaussian import LatentGaussian
from pcsim.deep.networks import FullyConnected
from pcsim.deep.posteriors import FullCovariance, MeanField, Point, TopDown
from pcsim.priors import Flat, GaussianPrior, SparsePrior

SIZES = (3, 2)

generator = deep_cases.generator


def flowed(model, n_examples):
    return Flowed.at_prior(model, n_examples, [Flow(n, "planar") for n in model.n_z])


@pytest.mark.parametrize(
    ("priors", "words"),
    [
        (SparsePrior(), "Write [prior]"),
        ([SparsePrior()], "1 priors, expected 2"),
        ([None, SparsePrior], "priors[1] SparsePrior"),
        ([0.7, None], "priors[0] 0.7"),
        ([GaussianPrior(np.zeros(2)), None], "priors[0] with a mean of shape (2,)"),
        ([None, GaussianPrior(precision=4 * np.eye(3))], "expected a number or (2,) or (2, 2)"),
    ],
)
def test_priors_that_do_not_fit_the_levels_are_refused(priors, words, refused):
    assert words in refused(LatentGaussian, 6, (3, 2), priors=priors)


def test_models_with_further_priors_are_not_sampled(refused):
    draw = torch.Generator()
    model = LatentGaussian(6, (3, 2), priors=[None, SparsePrior(4.0)])
    assert "further priors" in refused(model.sample, 5, draw)
    assert LatentGaussian(6, (3,), priors=[Flat()]).sample(5, draw)[0].shape == (5, 6)


@pytest.mark.parametrize(
    "family", [MeanField, TopDown, Point, FullCovariance, flowed], ids=lambda one: one.__name__
)
@pytest.mark.parametrize("sizes", [(3,), (3, 2, 2), (2, 3), (3, 4)])
def test_posteriors_of_other_models_are_refused(family, sizes, refused):
    model, other = LatentGaussian(6, (3, 2)), LatentGaussian(6, sizes)
    start = getattr(family, "at_prior", family)
    x, draw = torch.zeros(4, 6), torch.Generator()
    words = f"q of levels of {sizes} latents, expected (3, 2)"
    assert words in refused(elbo, model, x, start(other, 4), generator=draw)
    if family is not Point:
        assert words in refused(log_likelihood, model, x, start(other, 4), generator=draw)
    single = start(model, 4)
    message = refused(elbo, model.double(), x.double(), single, generator=draw)
    assert "q of float32 on cpu, expected float64 on cpu" in message


def test_networks_are_for_the_levels_they_were_made_for(refused):
    made = Direct(LatentGaussian(6, (3, 2)), start=FullCovariance.at_prior, widths=[[8]])
    message = refused(made.posterior, LatentGaussian(6, (2, 3)), torch.zeros(4, 6))
    assert "(2, 3) latents" in message


def test_one_number_in_place_of_a_size_a_layer_is_refused(refused):
    shape = (1, 8, 8)
    assert "Write (8,)" in refused(FullyConnected, 3, 8)
    assert "Write (8,)" in refused(ConvolutionalDecoder, 3, shape, channels=8)
    assert "Write (8,)" in refused(ConvolutionalEncoder, shape, 8)
    assert "Write (4,)" in refused(Convolutional, shape=shape, channels=4)
    assert "Write ((32,),)" in refused(Convolutional, shape=shape, channels=(4,), widths=(32,))
    assert "channels 0" in refused(ConvolutionalDecoder, 3, shape, channels=(8, 0))


@pytest.mark.parametrize("generator", [3, 0])
def test_a_seed_in_place_of_a_generator_is_refused(generator, refused):
    for make, given in (
        (LatentGaussian, (6, (3,))),
        (FullyConnected, (3, (8,))),
        (ConvolutionalEncoder, ((1, 8, 8), (4,))),
        (ConvolutionalDecoder, (3, (1, 8, 8), (4,))),
        (Flow, (3,)),
    ):
        message = refused(make, *given, generator=generator)
        assert f"{make.__name__}: found generator {generator}" in message


def test_a_context_of_one_row_is_that_of_every_example(generator):
    model = LatentGaussian(5, SIZES, generator=generator).double()
    flows = [Flow(k, "planar", n_context=2, generator=generator) for k in SIZES]
    for flow in flows:
        for one in flow.parameters():
            torch.nn.init.normal_(one, generator=generator)
    row = normal(generator, 1, 2)
    whole = Flowed.at_prior(model, 4, flows, row.repeat(4, 1))
    start = partial(Flowed.at_prior, flows=flows, context=row)
    for shared in (start(model, 4), start(model, 4).detached()):
        assert shared.context.shape == (4, 2)
        for a, b in zip(shared.centre(model), whole.centre(model), strict=True):
            torch.testing.assert_close(a, b, rtol=0, atol=0)
    x = torch.zeros(4, 5).double()
    for inference in (Direct(model, start=start), GradientAscent(start=start, n_iterations=2)):
        q = infer(inference, model, x, generator=generator).q
        assert q.context.shape == (4, 2)


def test_every_parameter_of_a_planar_flow_has_a_gradient(generator):
    """Weights that were saved when it had a parameter of no numbers still fit."""
    flow = Flow(3, "planar", n_steps=2, generator=generator)
    shifted, log_determinant = flow(torch.randn(5, 3, generator=generator))
    (shifted.square().sum() + log_determinant.sum()).backward()
    assert all(one.grad is not None and one.grad.any() for one in flow.parameters())
    saved = {f"steps.{i}.vectors": torch.full((7,), 0.7) for i in range(2)}
    saved |= {f"steps.{i}.of_context": torch.zeros(7, 0) for i in range(2)}
    flow.load_state_dict(saved)
