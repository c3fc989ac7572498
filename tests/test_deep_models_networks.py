"""Networks against their equations, and what they must not do."""

from __future__ import annotations

import math

import deep_cases
import pytest
import torch
from deep_cases import normal
from torch import nn

from pcsim.deep.convolutional import ConvolutionalDecoder, ConvolutionalEncoder
from pcsim.deep.networks import FullyConnected

generator = deep_cases.generator


def randomised(module, generator):
    """The module in float64 with weights, biases and gains nowhere at their start."""
    with torch.no_grad():
        for parameter in module.double().parameters():
            parameter.add_(0.3 * normal(generator, *parameter.shape))
    return module


def test_plain_layers_are_a_chain(generator):
    net = randomised(FullyConnected(4, (6, 5), activation="tanh"), generator)
    x = normal(generator, 3, 2, 4)
    one, two = net.linears
    expected = torch.tanh(two(torch.tanh(one(x))))
    torch.testing.assert_close(net(x), expected, rtol=0, atol=1e-14)
    assert net.n_out == 5


def test_highway_layers_gate_between_input_and_output(generator):
    net = randomised(FullyConnected(4, (5, 5), link="highway"), generator)
    x = normal(generator, 7, 4)
    h = nn.functional.elu(net.linears[0](x))  # changes the width, so has no gate
    g = torch.sigmoid(net.gates[1](h))
    expected = g * h + (1 - g) * nn.functional.elu(net.linears[1](h))
    torch.testing.assert_close(net(x), expected, rtol=0, atol=1e-14)


def test_concatenating_layers_keep_all_that_came_before(generator):
    net = randomised(FullyConnected(4, (3, 2), link="concat"), generator)
    x = normal(generator, 7, 4)
    assert net.n_out == 9
    h = torch.cat([x, nn.functional.elu(net.linears[0](x))], -1)
    expected = torch.cat([h, nn.functional.elu(net.linears[1](h))], -1)
    torch.testing.assert_close(net(x), expected, rtol=0, atol=1e-14)


def test_layer_norm_takes_features_not_examples(generator):
    net = randomised(FullyConnected(4, (6,), normalization="layer"), generator)
    x = normal(generator, 5, 4)
    h = net.linears[0](x)
    h = (h - h.mean(-1, keepdim=True)) / (h.var(-1, correction=0, keepdim=True) + 1e-5).sqrt()
    expected = nn.functional.elu(h * net.norms[0].weight + net.norms[0].bias)
    torch.testing.assert_close(net(x), expected, rtol=0, atol=1e-12)
    torch.testing.assert_close(net(x[2:3]), net(x)[2:3], rtol=0, atol=1e-12)


def test_batch_norm_takes_samples_and_examples_alike(generator):
    net = FullyConnected(4, (6,), normalization="batch", activation="identity")
    x = normal(generator, 3, 5, 4)
    h = randomised(net, generator).linears[0](x)
    h = (h - h.mean((0, 1))) / (h.var((0, 1), correction=0) + 1e-5).sqrt()
    expected = h * net.norms[0].weight + net.norms[0].bias
    torch.testing.assert_close(net(x), expected, rtol=0, atol=1e-12)


def test_batch_norm_of_one_example_takes_the_running_statistics(generator):
    net = FullyConnected(4, (6,), normalization="batch").double()
    net(normal(generator, 50, 4))
    before = net.norms[0].running_mean.clone()
    x = normal(generator, 1, 4)
    alone = net(x)
    assert torch.equal(net.norms[0].running_mean, before)
    assert torch.equal(alone, net.eval()(x))


def test_no_layers_pass_the_input(generator):
    x = normal(generator, 3, 4)
    assert torch.equal(FullyConnected(4)(x), x)


def test_weights_start_glorot_uniform_and_differ():
    net = FullyConnected(
        300, (300, 300), link="highway", generator=torch.Generator().manual_seed(3)
    )
    bound = math.sqrt(6 / 600)
    for layer in [*net.linears, *net.gates]:
        assert layer.weight.abs().max() <= bound
        # uniform: variance bound^2 / 3, of 90,000 weights within 4 standard errors
        ratio = layer.weight.var() / (bound**2 / 3)
        assert abs(ratio - 1) < 4 * math.sqrt(0.8 / 90_000)
        assert not layer.bias.any()
    assert not torch.equal(net.linears[0].weight, net.gates[0].weight)


def test_building_leaves_the_global_state_alone():
    before = torch.get_rng_state()
    FullyConnected(3, (4,)).head(2, 1, torch.Generator())
    ConvolutionalEncoder((1, 6, 6), (2,))
    ConvolutionalDecoder(3, (1, 6, 6), (2,)).head(36, 1, torch.Generator())
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize("size", [(28, 28), (7, 10), (9, 5)])
@pytest.mark.parametrize("normalization", [None, "batch", "layer"])
def test_convolutions_mirror_each_other(size, normalization, generator):
    shape, n = (3, *size), 3 * size[0] * size[1]
    encoder = ConvolutionalEncoder(shape, (4, 6), normalization=normalization).double()
    decoder = ConvolutionalDecoder(5, shape, (6, 4), normalization=normalization).double()
    head = decoder.head(n, 2, generator).double()
    features = encoder(normal(generator, 2, 3, n))
    assert features.shape == (2, 3, encoder.n_out)
    assert encoder.n_out == 6 * decoder.start[1] * decoder.start[2]
    assert head(decoder(normal(generator, 2, 3, 5))).shape == (2, 3, 2 * n)


def test_heads_of_a_decoder_are_images_in_a_row(generator):
    decoder = ConvolutionalDecoder(4, (3, 6, 6), (2,)).double()
    head = decoder.head(108, 2, generator).double()
    with torch.no_grad():
        head.layer.weight.zero_()
        head.layer.bias.copy_(torch.arange(6.0))
    first, second = head(decoder(normal(generator, 2, 4))).chunk(2, -1)
    assert torch.equal(first[0].reshape(3, 36), torch.arange(3.0).double()[:, None].expand(3, 36))
    assert torch.equal(second - first, torch.full_like(first, 3.0))


def test_encoder_moves_with_its_image(generator):
    encoder = randomised(ConvolutionalEncoder((1, 16, 16), (2,)), generator)
    image = torch.zeros(1, 16, 16).double()
    image[:, 6:9, 6:9] = normal(generator, 3, 3)
    moved = image.roll(2, -1)
    maps, after = (encoder(i.reshape(1, -1)).reshape(2, 8, 8) for i in (image, moved))
    torch.testing.assert_close(maps.roll(1, -1)[..., 2:-1], after[..., 2:-1], rtol=0, atol=1e-12)


def test_refusals(refused):
    assert "Did you mean 'elu'" in refused(FullyConnected, 3, (4,), activation="eluu")
    assert "'highway'" in refused(FullyConnected, 3, (4,), link="residual")
    assert "'layer'" in refused(FullyConnected, 3, (4,), normalization="group")
    assert "shape (..., 3)" in refused(FullyConnected(3, (4,)), torch.zeros(2, 4))
    assert "Flatten" in refused(ConvolutionalEncoder((1, 4, 4), (2,)), torch.zeros(2, 4))
    decoder = ConvolutionalDecoder(3, (1, 4, 4), (2,))
    assert "pixels of an image" in refused(decoder.head, 20, 1, torch.Generator())
    assert "(channels, height, width)" in refused(ConvolutionalEncoder, (4, 4), (2,))
