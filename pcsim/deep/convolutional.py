"""Convolutional networks: images to features, features to images, rows of numbers outside."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import skip_init

from pcsim.deep.networks import (
    ACTIVATIONS,
    FullyConnected,
    check_sizes,
    glorot,
    linear,
    normalized,
    seeded,
)
from pcsim.messages import check_choice, check_integer, refusal

__all__ = ["Convolutional", "ConvolutionalDecoder", "ConvolutionalEncoder"]

KERNEL = 3
"""Pixels on a side; with stride 2 and one pixel of padding a layer halves the image, rounded up."""


class ConvolutionalEncoder(nn.Module):
    """Halve an image once a layer, ending in a row of features.

    Parameters
    ----------
    shape
        (channels, height, width) of the image, which comes flattened in this order.
    channels
        Of each layer, image side first.
    activation, normalization, generator
        As in `FullyConnected`; "layer" normalizes over all channels and pixels of an example.
    """

    n_in: int
    n_out: int

    def __init__(
        self,
        shape: tuple[int, int, int],
        channels: Sequence[int],
        *,
        activation: str = "elu",
        normalization: str | None = None,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        where = "ConvolutionalEncoder"
        self.shape = _shape(where, shape)
        self.activation = check_choice(where, "activation", activation, ACTIVATIONS)
        channels = check_sizes(where, "channels", channels)
        generator = seeded(where, generator)
        sizes = halvings(self.shape[1:], len(channels))
        self.layers, self.norms = nn.ModuleList(), nn.ModuleList()
        before = self.shape[0]
        for n in channels:
            layer: nn.Conv2d = skip_init(nn.Conv2d, before, n, KERNEL, stride=2, padding=1)
            glorot(layer, generator)
            self.layers.append(layer)
            self.norms.append(_normalizer(where, normalization, n))
            before = n
        self.n_in = _product(self.shape)
        self.n_out = before * sizes[-1][0] * sizes[-1][1]

    def forward(self, x: Tensor) -> Tensor:
        """Map images (..., n_in) to features (..., n_out)."""
        _check_row("ConvolutionalEncoder", x, self.n_in)
        h = x.reshape(-1, *self.shape)
        for layer, norm in zip(self.layers, self.norms, strict=True):
            h = ACTIVATIONS[self.activation](normalized(norm, layer(h)))
        return h.reshape(*x.shape[:-1], self.n_out)

    def head(self, n_out: int, n_heads: int, generator: torch.Generator) -> nn.Module:
        """Return a linear map from the features to `n_heads` vectors of `n_out`, in a row."""
        return linear(self.n_out, n_heads * n_out, generator)


class ConvolutionalDecoder(nn.Module):
    """Double a small image once a layer: the mirror of `ConvolutionalEncoder`.

    Parameters
    ----------
    n_in
        Latents.
    shape
        (channels, height, width) of the image, any sizes.
    channels
        Of each layer, latent side first; the first is that of the smallest image.
    activation, normalization, generator
        As in `ConvolutionalEncoder`.
    """

    n_in: int
    n_out: int

    def __init__(
        self,
        n_in: int,
        shape: tuple[int, int, int],
        channels: Sequence[int],
        *,
        activation: str = "elu",
        normalization: str | None = None,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        where = "ConvolutionalDecoder"
        self.n_in = check_integer(where, "n_in", n_in, low=1)
        self.shape = _shape(where, shape)
        self.activation = check_choice(where, "activation", activation, ACTIVATIONS)
        channels = check_sizes(where, "channels", channels)
        if not channels:
            raise ValueError(refusal(where, "channels ()", "one a layer", "Give at least one."))
        generator = seeded(where, generator)
        sizes = halvings(self.shape[1:], len(channels))[::-1]
        self.start = (channels[0], *sizes[0])
        self.lift = linear(self.n_in, _product(self.start), generator)
        self.layers, self.norms = nn.ModuleList(), nn.ModuleList()
        after = [*channels[1:], channels[-1]]
        for i, (n, m) in enumerate(zip(channels, after, strict=True)):
            layer = _doubling(n, m, sizes[i], sizes[i + 1])
            glorot(layer, generator)
            self.layers.append(layer)
            self.norms.append(_normalizer(where, normalization, m))
        self.n_out = channels[-1] * self.shape[1] * self.shape[2]

    def forward(self, z: Tensor) -> Tensor:
        """Map latents (..., n_in) to features (..., n_out), the channels of every pixel."""
        _check_row("ConvolutionalDecoder", z, self.n_in)
        activation = ACTIVATIONS[self.activation]
        h = activation(self.lift(z.reshape(-1, self.n_in))).reshape(-1, *self.start)
        for layer, norm in zip(self.layers, self.norms, strict=True):
            h = activation(normalized(norm, layer(h)))
        return h.reshape(*z.shape[:-1], self.n_out)

    def head(self, n_out: int, n_heads: int, generator: torch.Generator) -> nn.Module:
        """Return a convolution from the features to `n_heads` images in a row."""
        if n_out != _product(self.shape):
            found = f"n_out {n_out}"
            expected = f"{_product(self.shape)}, the pixels of an image {self.shape}"
            advice = "A convolutional decoder predicts images: give it their shape."
            raise ValueError(refusal("ConvolutionalDecoder", found, expected, advice))
        return _ImageHead(self.n_out, self.shape, n_heads, generator)


@dataclass(frozen=True, kw_only=True)
class Convolutional:
    """Builds the networks of an inference of images: convolutions, then fully connected layers.

    Level 1's convolutions see as channels all parts of its input that are as large as the image
    (the data; the errors at the data); what is no image joins their features. Levels above have
    fully connected layers alone. For `networks` of `Direct`, `Ladder` and `Iterative`.

    Examples
    --------
    >>> from pcsim.deep.inference_direct import Direct
    >>> from pcsim.deep.latent_gaussian import LatentGaussian
    >>> shape = (1, 28, 28)
    >>> decoder = ConvolutionalDecoder(10, shape, (16, 8))
    >>> model = LatentGaussian(784, (10,), decoders=[decoder])
    >>> networks = Convolutional(shape=shape, channels=(8, 16), widths=((64,),))
    >>> Direct(model, networks=networks).posterior(model, torch.zeros(5, 784)).mean[0].shape
    torch.Size([5, 10])
    """

    shape: tuple[int, int, int]
    """(channels, height, width)"""
    channels: tuple[int, ...]
    """Of each convolution, image side first; each halves the image."""
    widths: tuple[tuple[int, ...], ...] = ((),)
    """Fully connected units of each level's network; of level 1 after the convolutions."""
    activation: str = "elu"
    link: str = "highway"
    """Of the fully connected layers."""
    normalization: str | None = None

    def __post_init__(self) -> None:
        check_sizes("Convolutional", "channels", self.channels)
        widths = self.widths
        if not isinstance(widths, Sequence) or any(not isinstance(w, Sequence) for w in widths):
            found, advice = f"widths {widths!r}", "Write ((32,),) for one level of one layer."
            raise TypeError(refusal("Convolutional", found, "one list of widths a level", advice))

    def __call__(self, level: int, sizes: Sequence[int], generator: torch.Generator) -> nn.Module:
        """Return the network of a level whose input has parts of these sizes."""
        if level > len(self.widths):
            found, expected = f"widths of {len(self.widths)} levels", "one list of widths a level"
            raise ValueError(refusal("Convolutional", found, expected, "Give one for each level."))
        kind: dict[str, Any] = {
            "activation": self.activation, "normalization": self.normalization
        }  # fmt: skip
        if level == 1:
            before = _Pictures(self, sizes, generator)
            after = FullyConnected(
                before.n_out, self.widths[0], link=self.link, generator=generator, **kind
            )
            return _Chain(before, after)
        return FullyConnected(
            sum(sizes), self.widths[level - 1], link=self.link, generator=generator, **kind
        )


class _Pictures(nn.Module):
    """Rows of parts to the convolutional features of those that are images, and all others."""

    def __init__(
        self, plan: Convolutional, sizes: Sequence[int], generator: torch.Generator
    ) -> None:
        super().__init__()
        size = _product(_shape("Convolutional", plan.shape))
        self.sizes, self.is_image = tuple(sizes), tuple(one == size for one in sizes)
        n_images = sum(self.is_image)
        if not n_images:
            found = f"no part of size {size} among {self.sizes}"
            advice = "Take an encoding that sees the data or its errors, and the image's shape."
            raise ValueError(refusal("Convolutional", found, f"an image {plan.shape}", advice))
        self.encoder = ConvolutionalEncoder(
            (n_images * plan.shape[0], *plan.shape[1:]), plan.channels, activation=plan.activation,
            normalization=plan.normalization, generator=generator,
        )  # fmt: skip
        self.n_in, self.n_out = sum(sizes), self.encoder.n_out + sum(sizes) - n_images * size

    def forward(self, x: Tensor) -> Tensor:
        _check_row("Convolutional", x, self.n_in)
        parts = list(zip(x.split(self.sizes, -1), self.is_image, strict=True))
        images = torch.cat([part for part, is_image in parts if is_image], -1)
        others = [part for part, is_image in parts if not is_image]
        return torch.cat([self.encoder(images), *others], -1)


class _Chain(nn.Module):
    """Two networks, one after the other."""

    def __init__(self, first: nn.Module, second: nn.Module) -> None:
        super().__init__()
        self.first, self.second = first, second
        self.n_in, self.n_out = first.n_in, second.n_out

    def forward(self, x: Tensor) -> Tensor:
        features: Tensor = self.second(self.first(x))
        return features


class _ImageHead(nn.Module):
    """Channels of every pixel to `n_heads` images, flattened one after another."""

    def __init__(
        self, n_in: int, shape: tuple[int, int, int], n_heads: int, generator: torch.Generator
    ) -> None:
        super().__init__()
        self.size = shape[1:]
        self.channels = n_in // (shape[1] * shape[2])
        layer: nn.Conv2d = skip_init(
            nn.Conv2d, self.channels, n_heads * shape[0], KERNEL, padding=1
        )
        glorot(layer, generator)
        self.layer = layer

    def forward(self, features: Tensor) -> Tensor:
        images: Tensor = self.layer(features.reshape(-1, self.channels, *self.size))
        return images.reshape(*features.shape[:-1], -1)


def halvings(size: tuple[int, int], n: int) -> list[tuple[int, int]]:
    """Return an image's size and what it is after each of `n` halvings, rounded up.

    Examples
    --------
    >>> halvings((28, 27), 2)
    [(28, 27), (14, 14), (7, 7)]
    """
    sizes = [size]
    for _ in range(n):
        height, width = sizes[-1]
        sizes.append(((height + 1) // 2, (width + 1) // 2))
    return sizes


def _doubling(n: int, m: int, small: tuple[int, int], large: tuple[int, int]) -> nn.ConvTranspose2d:
    extra = (large[0] - 2 * small[0] + 1, large[1] - 2 * small[1] + 1)
    layer: nn.ConvTranspose2d = skip_init(
        nn.ConvTranspose2d, n, m, KERNEL, stride=2, padding=1, output_padding=extra
    )
    return layer


def _normalizer(where: str, kind: str | None, channels: int) -> nn.Module:
    if kind is None:
        return nn.Identity()
    check_choice(where, "normalization", kind, ("batch", "layer"))
    return nn.BatchNorm2d(channels) if kind == "batch" else nn.GroupNorm(1, channels)


def _shape(where: str, shape: tuple[int, int, int]) -> tuple[int, int, int]:
    if len(shape) != 3:
        expected = "(channels, height, width)"
        raise ValueError(refusal(where, f"shape {tuple(shape)}", expected, "Give three sizes."))
    channels, height, width = (check_integer(where, "shape", n, low=1) for n in shape)
    return channels, height, width


def _check_row(where: str, x: Tensor, n: int) -> None:
    if x.shape[-1] != n:
        found, expected = f"x of shape {tuple(x.shape)}", f"shape (..., {n})"
        raise ValueError(refusal(where, found, expected, "Flatten each example into a row."))


def _product(shape: tuple[int, int, int]) -> int:
    return shape[0] * shape[1] * shape[2]
