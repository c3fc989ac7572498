"""Convolutional encoders and decoders in inference: they learn, and refuse what does not fit."""

from __future__ import annotations

import math

import deep_cases
import pytest
import torch

from pcsim.deep.convolutional import Convolutional, ConvolutionalDecoder
from pcsim.deep.encodings import ErrorEncoding, GradientEncoding
from pcsim.deep.evaluation import elbo
from pcsim.deep.inference import infer
from pcsim.deep.inference_direct import Direct
from pcsim.deep.inference_iterative import Iterative
from pcsim.deep.inference_ladder import Ladder
from pcsim.deep.latent_gaussian import LatentGaussian
from pcsim.deep.training import TrainingSettings, train

SHAPE = (1, 8, 8)
PLAN = Convolutional(shape=SHAPE, channels=(6, 8), widths=((32,),))

generator = deep_cases.generator


def bars(n, generator):
    """Images of one bright column each: ln 8 nats, spread over 64 pixels."""
    columns = torch.randint(8, (n,), generator=generator)
    return torch.eye(8)[columns][:, None].expand(n, 8, 8).reshape(n, 64).contiguous()


def pair(kind, generator):
    decoder = ConvolutionalDecoder(4, SHAPE, (8, 6), generator=generator)
    model = LatentGaussian(64, (4,), decoders=[decoder], generator=generator)
    if kind == "direct":
        return model, Direct(model, networks=PLAN, generator=generator)
    if kind == "ladder":
        return model, Ladder(model, networks=PLAN, generator=generator)
    encoding = {"gradient": GradientEncoding, "error": ErrorEncoding}[kind]()
    return model, Iterative(
        model, encoding=encoding, networks=PLAN, n_iterations=2, generator=generator
    )


@pytest.mark.parametrize("kind", ["direct", "error"])
def test_convolutions_learn_both_ways(kind, generator):
    model, inference = pair(kind, generator)
    x, test = bars(256, generator), bars(128, generator)
    before = {n: p.clone() for m in (model, inference) for n, p in m.named_parameters()}
    settings = TrainingSettings(
        n_epochs=12, batch_size=32, learning_rate=1e-2, device="cpu", largest_gradient=50.0
    )
    train(model, inference, x, settings, progress=False)
    q = infer(inference, model, test, n_samples=5, generator=generator).q
    bound = float(elbo(model, test, q, n_samples=20, generator=generator).mean())
    # Whoever says nothing of the column pays for 64 independent pixels that are bright in 1/8.
    independent = 64 * -(math.log(1 / 8) / 8 + 7 / 8 * math.log(7 / 8))
    assert math.log(8) - 0.1 < -bound < 0.6 * independent
    after = {n: p for m in (model, inference) for n, p in m.named_parameters()}
    moved = [n for n, one in after.items() if one.ndim == 4 and not torch.equal(one, before[n])]
    assert len([n for n in moved if "encoder" in n]) == 2
    assert len([n for n in moved if "decoders" in n]) == 2


def test_the_error_at_the_data_is_a_second_channel(generator):
    model, iterative = pair("error", generator)
    first = iterative.networks[0].first
    assert first.encoder.shape == (2, 8, 8)
    assert first.n_out == first.encoder.n_out + 3 * 4  # mean, log variance, error of the latents
    assert pair("gradient", generator)[1].networks[0].first.encoder.shape == SHAPE
    # What the convolutions see are the image parts, whatever lies between them.
    parts = [torch.rand(3, n, generator=generator) for n in first.sizes]
    images = [one for one in parts if one.shape[1] == 64]
    found = first(torch.cat(parts, -1))[:, : first.encoder.n_out]
    torch.testing.assert_close(found, first.encoder(torch.cat(images, -1)), rtol=0, atol=0)
    q = infer(iterative, model, bars(3, generator), generator=generator).q
    assert q.mean[0].shape == (3, 4)


def test_two_levels_have_convolutions_in_the_first_alone(generator):
    model = LatentGaussian(64, (4, 3), generator=generator)
    plan = Convolutional(shape=SHAPE, channels=(4,), widths=((10,), (9,)))
    for inference in (
        Direct(model, networks=plan, generator=generator),
        Iterative(model, networks=plan, encoding=ErrorEncoding(), generator=generator),
        Ladder(model, networks=plan, generator=generator).direct,
    ):
        one, two = inference.networks
        assert one.n_out == 10
        assert two.n_out == 9
        assert any(part.ndim == 4 for part in one.parameters())
        assert not any(part.ndim == 4 for part in two.parameters())


def test_what_does_not_fit_is_refused(refused, generator):
    model = LatentGaussian(64, (4, 3), generator=generator)
    assert "one list of widths a level" in refused(Direct, model, networks=PLAN)
    assert "networks beside widths" in refused(Direct, model, networks=PLAN, widths=[[8], [8]])
    assert "networks beside link" in refused(Iterative, model, networks=PLAN, link="plain")
    model = LatentGaussian(64, (4,), generator=generator)
    other = Convolutional(shape=(1, 9, 9), channels=(4,))
    assert "no part of size 81 among (64,)" in refused(Direct, model, networks=other)
    blind = GradientEncoding(with_x=False)
    assert "Take an encoding that sees" in refused(Iterative, model, networks=PLAN, encoding=blind)
    message = refused(Iterative, model, networks=PLAN, encoding=ErrorEncoding(), segregated=True)
    assert "two streams" in message

    def wrong(level, sizes, generator):
        return torch.nn.Linear(sum(sizes), 3)

    assert "n_in None for level 1" in refused(Direct, model, networks=wrong)


def test_a_network_is_for_the_model_it_was_made_for(refused, generator):
    x = bars(3, generator)
    made, other = (LatentGaussian(64, n_z, generator=generator) for n_z in ((4,), (5,)))
    for inference in (Direct(made, widths=[[8]]), Iterative(made, widths=[[8]])):
        message = refused(infer, inference, other, x, generator=generator)
        assert "shapes [(5,), (5,)]" in message
        assert "Make the inference anew" in message
    narrow = LatentGaussian(63, (4,), generator=generator)
    direct = Direct(made, widths=[[8]])
    assert "a model of 63 inputs" in refused(infer, direct, narrow, x[:, :63], generator=generator)
    assert "expected shape (B, 64)" in refused(infer, direct, made, x[:, :63], generator=generator)
