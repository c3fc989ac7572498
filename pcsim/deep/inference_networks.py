"""The networks of amortized inference: fully connected, or what a builder makes for each level."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from pcsim.deep.draw import Posterior
from pcsim.deep.latent_gaussian import LatentGaussian
from pcsim.deep.networks import FullyConnected
from pcsim.messages import check_object, refusal

__all__ = [
    "Builder",
    "Made",
    "builder_of",
    "check_family",
    "check_made_for",
    "check_normalised",
    "made_for",
    "widths_of",
]

Builder = Callable[[int, Sequence[int], torch.Generator], nn.Module]
"""(level from 1, sizes of the parts of its input in a row, randomness) -> a network with `n_in`,
the sum of the sizes, and `n_out`. A direct network's first level has one part, the data; an
iterative one's has those of its encoding, and each level above ends with the features below."""
Made = tuple[int, tuple[int, ...], list[tuple[int, ...]]]
"""Inputs of the model, its latents, and the shape of each parameter of one example's posterior."""
USUAL: Mapping[str, Any] = {"activation": "elu", "link": "highway", "normalization": None}


def builder_of(
    where: str,
    n_levels: int,
    builder: Builder | None,
    widths: Sequence[Sequence[int]] | None,
    kind: Mapping[str, Any],
) -> Builder:
    """Return what makes the network of each level: the given builder, checked, or the usual one."""
    if builder is None:
        hidden = widths_of(n_levels, widths)
        return lambda level, sizes, generator: FullyConnected(
            sum(sizes), hidden[level - 1], generator=generator, **kind
        )
    kinds = "what makes them, such as Convolutional(shape=shape, channels=(8, 16))"
    check_object(where, "networks", builder, "__call__", kinds)
    others = [name for name, usual in USUAL.items() if kind[name] != usual]
    others += [] if widths is None else ["widths"]
    if others:
        found, advice = f"networks beside {', '.join(others)}", "Give the builder what it needs."
        raise ValueError(refusal(where, found, "one or the other", advice))

    def checked(level: int, sizes: Sequence[int], generator: torch.Generator) -> nn.Module:
        made = builder(level, sizes, generator)
        found = getattr(made, "n_in", None), isinstance(getattr(made, "n_out", None), int)
        if found != (sum(sizes), True):
            text = f"a network with n_in {found[0]} for level {level}"
            expected = f"n_in {sum(sizes)}, for parts of sizes {tuple(sizes)}, and n_out"
            advice = "Build it for the sizes it is called with."
            raise ValueError(refusal(where, text, expected, advice))
        return made

    return checked


def widths_of(n_levels: int, widths: Sequence[Sequence[int]] | None) -> Sequence[Sequence[int]]:
    """Return hidden units level by level, the default filled in."""
    if widths is None:
        return [(512 >> level, 512 >> level) for level in range(n_levels)]
    expected = f"one list of widths for each of {n_levels} levels"
    if not isinstance(widths, Sequence) or any(not isinstance(one, Sequence) for one in widths):
        advice = f"Write [{widths!r}] for one level."
        raise TypeError(refusal("inference network", f"widths {widths!r}", expected, advice))
    if len(widths) != n_levels:
        found = f"widths for {len(widths)} levels"
        raise ValueError(refusal("inference network", found, expected, "Give [[512, 512], ...]."))
    return widths


def check_normalised(where: str, level: int, sizes: Sequence[int]) -> None:
    """Refuse to layer-normalise an input of one number, which leaves 0 whatever it was."""
    if 1 in sizes:
        found = f"an input of one number among those of sizes {tuple(sizes)} to level {level}"
        expected = "more than one to layer-normalise, which leaves nothing of a single one"
        raise ValueError(refusal(where, found, expected, "Take normalise_inputs=False."))


def made_for(model: LatentGaussian, q: Posterior) -> Made:
    """Return what a network must be made for to infer `q` of this model."""
    return model.n_x, model.n_z, [tuple(one.shape[1:]) for one in q.parameters]


def check_made_for(where: str, made: Made, model: LatentGaussian, q: Posterior) -> None:
    """Refuse to infer another model than a network was made for."""
    now = made_for(model, q)
    if now != made:
        found, expected = (
            f"a model of {n_x} inputs and {n_z} latents, posterior parameters of shapes {shapes}"
            for n_x, n_z, shapes in (now, made)
        )
        advice = "Make the inference anew for this model."
        raise ValueError(refusal(where, found, f"{expected}, as it was made for", advice))


def check_family(where: str, family: type, q: Posterior) -> None:
    """Refuse to go on from a guess of another family than a network was made for."""
    if type(q) is not family:
        found, expected = f"a guess that is a {type(q).__name__}", f"a {family.__name__}"
        advice = f"Make both with start={type(q).__name__}.at_prior, or take another guess."
        raise ValueError(refusal(where, found, expected, advice))
