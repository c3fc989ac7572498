r"""K copies of a module as one: what many seeds of a small model are trained by.

The copies differ in their weights only. Their weights are stacked, the examples of all copies lie
one after another in the batch, and every layer is applied to each copy's own rows at once.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state, vmap

from pcsim.messages import refusal

__all__ = ["Copies", "stack", "unstack"]

VECTORS = (nn.Linear, nn.LayerNorm)
"""Layers of vectors, (..., n)."""
IMAGES = (nn.Conv2d, nn.ConvTranspose2d, nn.GroupNorm)
"""Layers of images, (rows, channels, height, width)."""


class Copies(nn.Module):
    """K copies of one layer; a batch holds the rows of copy 0, then of copy 1, ..."""

    def __init__(self, layers: Sequence[nn.Module], n_examples: int) -> None:
        super().__init__()
        parameters, buffers = stack_module_state(list(layers))
        if buffers:
            found = f"a {type(layers[0]).__name__} with buffers {', '.join(sorted(buffers))}"
            raise ValueError(refusal("stack", found, "layers without", "Train one by one."))
        self.names = tuple(parameters)
        own = dict(layers[0].named_parameters())
        self.values = nn.ParameterList(
            nn.Parameter(values.detach(), requires_grad=own[name].requires_grad)
            for name, values in parameters.items()
        )
        self.n_examples = n_examples
        self.n_inner = 3 if isinstance(layers[0], IMAGES) else 1
        # In a list, so that the template's own parameters are not trained.
        self.template = [copy.deepcopy(layers[0]).to("meta")]

    def forward(self, x: Tensor) -> Tensor:
        """Apply each copy to its rows: (..., K B, n) to (..., K B, m).

        Leading axes may have been folded into the rows, as in (S K B, n).
        """
        out = self._applied(self._own_rows(x))
        lead = x.shape[: x.ndim - self.n_inner]
        n_copies, n_rows, *inner = out.shape
        split = out.reshape(n_copies, n_rows // self.n_examples, self.n_examples, *inner)
        return split.movedim(0, 1).reshape(*lead, *inner)

    def _applied(self, rows: Tensor) -> Tensor:
        if type(self.template[0]) is nn.Linear and len(self.values) == 2:
            weight, bias = self.values  # vmap would do the same, with ten times the overhead
            return torch.baddbmm(bias[:, None], rows, weight.mT)
        state = dict(zip(self.names, self.values, strict=True))

        def one(parameters: dict[str, Tensor], own: Tensor) -> Any:
            return functional_call(self.template[0], parameters, (own,))

        applied: Tensor = vmap(one)(state, rows)
        return applied

    def _own_rows(self, x: Tensor) -> Tensor:
        """Rows in whatever axes as (K, S B, n): those of each copy together."""
        n_copies, inner = len(self.values[0]), x.shape[-self.n_inner :]
        if x.ndim <= self.n_inner or x.shape[-self.n_inner - 1] % (n_copies * self.n_examples):
            found = f"a {type(self.template[0]).__name__} applied to shape {tuple(x.shape)}"
            expected = f"rows of {n_copies} times {self.n_examples} examples before its own axes"
            raise ValueError(refusal("train_together", found, expected, "Train one by one."))
        split = x.reshape(-1, n_copies, self.n_examples, *inner).movedim(1, 0)
        return split.flatten(1, 2)


def stack(modules: Sequence[nn.Module], n_examples: int) -> nn.Module:
    """Return one module that acts as all of them, each on its own `n_examples` rows of a batch.

    What is frozen in them is frozen in it.

    Raises
    ------
    ValueError
        If they differ in structure or in what is frozen, or hold parameters or buffers that are not
        a layer's own.
    """
    shapes = [{n: tuple(p.shape) for n, p in one.state_dict().items()} for one in modules]
    if any(one != shapes[0] for one in shapes):
        found, advice = "modules of different structure", "Build them alike, from other seeds."
        raise ValueError(refusal("stack", found, "equal names and shapes", advice))
    frozen = [{n for n, p in one.named_parameters() if not p.requires_grad} for one in modules]
    for one in frozen:
        if one != frozen[0]:
            found = f"'{min(one ^ frozen[0])}' frozen in some modules and free in others"
            advice = "Freeze the same parameters in all, or train one by one."
            raise ValueError(refusal("stack", found, "equal requires_grad", advice))
    whole = copy.deepcopy(modules[0])
    for name in layer_names(modules[0]):
        parent, _, own = name.rpartition(".")
        layers = [one.get_submodule(name) for one in modules]
        setattr(whole.get_submodule(parent), own, Copies(layers, n_examples))
    return whole


def unstack(whole: nn.Module, modules: Sequence[nn.Module]) -> None:
    """Copy the weights of a stacked module back into those it was made of."""
    with torch.no_grad():
        for name in layer_names(modules[0]):
            copies = whole.get_submodule(name)
            assert isinstance(copies, Copies)
            for index, module in enumerate(modules):
                own = dict(module.get_submodule(name).named_parameters())
                for key, values in zip(copies.names, copies.values, strict=True):
                    own[key].copy_(values[index])


def layer_names(module: nn.Module) -> list[str]:
    """Return the names of the layers that hold all parameters of a module."""
    found = []
    for name, one in module.named_modules():
        own = [key for key, _ in one.named_parameters(recurse=False)]
        is_layer = not any(True for _ in one.children())
        if own and (not is_layer or isinstance(one, nn.ParameterList)):
            what = f"parameters {', '.join(own)} of '{name}' ({type(one).__name__})"
            advice = "Fix the precisions and the top prior, or train one by one."
            raise ValueError(refusal("stack", what, "parameters in layers only", advice))
        if own:
            check_layer(one)
            found.append(name)
    return found


def check_layer(layer: nn.Module) -> None:
    """Refuse a layer of which it is not known where among the axes of its input the rows are."""
    own_shape = layer.normalized_shape if isinstance(layer, nn.LayerNorm) else ()
    if not isinstance(layer, (*VECTORS, *IMAGES)) or len(own_shape) > 1:
        found = f"a {layer.__class__.__name__} with parameters"
        names = ", ".join(one.__name__ for one in (*VECTORS, *IMAGES))
        raise ValueError(refusal("stack", found, f"{names} alone", "Train one by one."))
