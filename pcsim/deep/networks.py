"""Fully connected networks that turn a vector into features."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from pcsim.messages import check_choice, check_integer, refusal

__all__ = ["ACTIVATIONS", "FullyConnected", "glorot"]

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
NORMALIZATIONS = ("batch", "layer")


class FullyConnected(nn.Module):
    r"""A stack of fully connected layers :math:`a(N(Wh + b))`.

    Links between layers: ``plain``; ``highway``, :math:`g \odot h + (1 - g) \odot a(N(Wh + b))` with
    :math:`g = \sigma(Vh + c)`, where a layer keeps the width (plain where it does not); ``concat``,
    each layer's output beside its input.

    Parameters
    ----------
    n_in
        Size of the input.
    widths
        Units of each layer, input side first. None at all: the features are the input.
    activation
        A name of `ACTIVATIONS`.
    link, normalization
        See above; normalization over the batch, over the features of a layer, or none.
    generator
        Randomness of the initial weights (Glorot uniform; biases are zero).
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
        self.n_in = check_integer(where, "n_in", n_in, low=1)
        self.link = check_choice(where, "link", link, LINKS)
        self.activation = check_choice(where, "activation", activation, ACTIVATIONS)
        self.linears, self.gates, self.norms = nn.ModuleList(), nn.ModuleList(), nn.ModuleList()
        size = self.n_in
        for width in widths:
            width = check_integer(where, "width", width, low=1)
            gated = link == "highway" and width == size
            self.linears.append(glorot(nn.Linear(size, width), generator))
            self.gates.append(glorot(nn.Linear(size, width), generator) if gated else nn.Identity())
            self.norms.append(_normalization(where, normalization, width))
            size = size + width if link == "concat" else width
        self.n_out = size

    def forward(self, x: Tensor) -> Tensor:
        """Map (..., n_in) to features (..., n_out)."""
        if x.shape[-1] != self.n_in:
            found, expected = f"x of shape {tuple(x.shape)}", f"(..., {self.n_in})"
            raise ValueError(refusal("FullyConnected", found, expected, "Check n_in."))
        h = x.reshape(-1, self.n_in)
        activation = ACTIVATIONS[self.activation]
        for linear, gate, norm in zip(self.linears, self.gates, self.norms, strict=True):
            new = activation(norm(linear(h)))
            if self.link == "concat":
                h = torch.cat([h, new], -1)
            elif isinstance(gate, nn.Linear):
                h = torch.lerp(new, h, torch.sigmoid(gate(h)))
            else:
                h = new
        return h.reshape(*x.shape[:-1], self.n_out)

    def head(self, n_out: int, n_heads: int, generator: torch.Generator | None = None) -> nn.Module:
        """Return a linear map from the features to `n_heads` vectors of `n_out`, one after another."""
        return glorot(nn.Linear(self.n_out, n_heads * n_out), generator)


def glorot(layer: nn.Module, generator: torch.Generator | None = None) -> nn.Module:
    """Set the weights of a linear or convolutional layer to Glorot uniform, its biases to zero.

    Without a generator the layer is seeded by its shape, never by the global state.
    """
    weight, bias = layer.weight, layer.bias
    assert isinstance(weight, Tensor)
    if generator is None:
        generator = torch.Generator(weight.device).manual_seed(sum(weight.shape))
    nn.init.xavier_uniform_(weight, generator=generator)
    if isinstance(bias, Tensor):
        nn.init.zeros_(bias)
    return layer


def _normalization(where: str, kind: str | None, width: int) -> nn.Module:
    if kind is None:
        return nn.Identity()
    check_choice(where, "normalization", kind, NORMALIZATIONS)
    return nn.BatchNorm1d(width) if kind == "batch" else nn.LayerNorm(width)
