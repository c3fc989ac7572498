"""Fully connected networks that turn a vector into features."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import skip_init

from pcsim.messages import check_choice, check_integer, refusal

__all__ = [
    "ACTIVATIONS",
    "FullyConnected",
    "TwoStreams",
    "check_sizes",
    "evaluating",
    "glorot",
    "linear",
    "mixed",
    "normalized",
    "normalizer",
    "seeded",
]

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "elu": nn.functional.elu,
    "gelu": nn.functional.gelu,
    "identity": lambda h: h,
    "leaky_relu": nn.functional.leaky_relu,
    "relu": nn.functional.relu,
    "sigmoid": torch.sigmoid,
    "softplus": nn.functional.softplus,
    "tanh": torch.tanh,
}
LINKS = ("plain", "highway", "concat")


class FullyConnected(nn.Module):
    r"""A stack of fully connected layers :math:`a(N(Wh + b))`.

    Links between layers: ``plain``; ``highway``, :math:`g \odot h + (1 - g) \odot a(N(Wh + b))`
    with :math:`g = \sigma(Vh + c)`, where a layer keeps the width (plain where it does not);
    ``concat``, each layer's output beside its input.

    Parameters
    ----------
    n_in
        Size of the input.
    widths
        Units of each layer, input side first. None at all: the features are the input.
    activation
        A name of `ACTIVATIONS`.
    link, normalization
        See above; :math:`N` is "batch", "layer" or None.
    generator
        Randomness of the weights (Glorot uniform; biases are zero). Without, seed 0 is taken.
    """

    n_in: int
    n_out: int
    """Number of features."""

    def __init__(
        self,
        n_in: int,
        widths: Sequence[int] = (),
        *,
        activation: str = "elu",
        link: str = "plain",
        normalization: str | None = None,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        where = "FullyConnected"
        generator = seeded(where, generator)
        self.n_in = check_integer(where, "n_in", n_in, low=1)
        self.link = check_choice(where, "link", link, LINKS)
        self.activation = check_choice(where, "activation", activation, ACTIVATIONS)
        self.linears, self.gates, self.norms = nn.ModuleList(), nn.ModuleList(), nn.ModuleList()
        size = self.n_in
        for width in check_sizes(where, "widths", widths):
            gated = link == "highway" and width == size
            self.linears.append(linear(size, width, generator))
            self.gates.append(linear(size, width, generator) if gated else nn.Identity())
            self.norms.append(normalizer(where, normalization, width))
            size = size + width if link == "concat" else width
        self.n_out = size

    def forward(self, x: Tensor) -> Tensor:
        """Map (..., n_in) to features (..., n_out)."""
        if x.shape[-1] != self.n_in:
            found, expected = f"x of shape {tuple(x.shape)}", f"shape (..., {self.n_in})"
            raise ValueError(refusal("FullyConnected", found, expected, "Check n_in."))
        h = x.reshape(-1, self.n_in)
        activation = ACTIVATIONS[self.activation]
        for layer, gate, norm in zip(self.linears, self.gates, self.norms, strict=True):
            new = activation(normalized(norm, layer(h)))
            if self.link == "concat":
                h = torch.cat([h, new], -1)
            elif not isinstance(gate, nn.Identity):
                h = mixed(new, h, torch.sigmoid(gate(h)))
            else:
                h = new
        return h.reshape(*x.shape[:-1], self.n_out)

    def head(self, n_out: int, n_heads: int, generator: torch.Generator) -> nn.Module:
        """Return a linear map from the features to `n_heads` vectors of `n_out`, in a row."""
        return linear(self.n_out, n_heads * n_out, generator)


class TwoStreams(nn.Module):
    """Two stacks side by side, each with half the units: their features never meet in here.

    Parameters
    ----------
    n_first, n_second
        How the input is divided.
    widths
        Units of each layer of both together; even numbers.
    """

    def __init__(self, n_first: int, n_second: int, widths: Sequence[int], **kind: Any) -> None:
        super().__init__()
        if any(width % 2 for width in widths):
            found, advice = f"widths {tuple(widths)}", "Each stream takes half of them."
            raise ValueError(refusal("TwoStreams", found, "even numbers", advice))
        half = [width // 2 for width in widths]
        self.sizes = (n_first, n_second)
        streams = [FullyConnected(n, half, **kind) for n in self.sizes]
        self.streams = nn.ModuleList(streams)
        self.n_in, self.n_out = sum(self.sizes), sum(one.n_out for one in streams)

    def forward(self, x: Tensor) -> Tensor:
        """Map (..., n_first + n_second) to features (..., n_out), the first stream's first."""
        parts = zip(self.streams, x.split(self.sizes, -1), strict=True)
        return torch.cat([stream(part) for stream, part in parts], -1)


@contextlib.contextmanager
def evaluating(*parts: object) -> Iterator[None]:
    """Hold modules in evaluation mode, in which batch normalization knows no batch.

    What is not a module is passed over; every submodule returns to the mode it had.
    """
    modules = [one for part in parts if isinstance(part, nn.Module) for one in part.modules()]
    before = [one.training for one in modules]
    for one in modules:
        one.training = False
    try:
        yield
    finally:
        for one, training in zip(modules, before, strict=True):
            one.training = training


def check_sizes(where: str, name: str, sizes: Sequence[int]) -> tuple[int, ...]:
    """Return the size of each layer, or refuse one number in place of many."""
    try:
        each = tuple(sizes)
    except TypeError:
        advice = f"Write ({sizes!r},) for one layer."
        found = f"{name} {sizes!r}"
        raise TypeError(refusal(where, found, "a size a layer", advice)) from None
    return tuple(check_integer(where, name, size, low=1) for size in each)


def seeded(where: str, generator: torch.Generator | None) -> torch.Generator:
    """Return the generator of a module's weights: of seed 0 where none is given."""
    if generator is None:
        return torch.Generator().manual_seed(0)
    if not isinstance(generator, torch.Generator):
        found, advice = f"generator {generator!r}", "Pass torch.Generator().manual_seed(seed)."
        raise TypeError(refusal(where, found, "a torch.Generator or None", advice))
    return generator


def linear(n_in: int, n_out: int, generator: torch.Generator) -> nn.Linear:
    """Return a linear layer with Glorot weights and zero biases."""
    layer: nn.Linear = skip_init(nn.Linear, n_in, n_out)  # the default draws from the global state
    glorot(layer, generator)
    return layer


def glorot(layer: nn.Linear | nn.Conv2d | nn.ConvTranspose2d, generator: torch.Generator) -> None:
    """Set a layer's weights to Glorot uniform and its biases to zero, in place."""
    nn.init.xavier_uniform_(layer.weight, generator=generator)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)


def mixed(new: Tensor, old: Tensor, gate: Tensor) -> Tensor:
    r"""Return :math:`g \odot old + (1 - g) \odot new`, in the widest type of the three.

    Inside autocast layers give half precision and what passes a gate unchanged is in full.
    """
    kind = torch.promote_types(torch.promote_types(new.dtype, old.dtype), gate.dtype)
    return torch.lerp(new.to(kind), old.to(kind), gate.to(kind))


def normalizer(where: str, kind: str | None, width: int) -> nn.Module:
    """Return batch or layer normalization of vectors, or nothing at all."""
    if kind is None:
        return nn.Identity()
    check_choice(where, "normalization", kind, ("batch", "layer"))
    return nn.BatchNorm1d(width) if kind == "batch" else nn.LayerNorm(width)


def normalized(norm: nn.Module, h: Tensor) -> Tensor:
    """Apply a normalization; a batch of one number a feature takes the running statistics."""
    alone = h.numel() == h.shape[1]
    if alone and isinstance(norm, nn.BatchNorm1d | nn.BatchNorm2d):
        return nn.functional.batch_norm(
            h, norm.running_mean, norm.running_var, norm.weight, norm.bias, eps=norm.eps
        )
    result: Tensor = norm(h)
    return result
