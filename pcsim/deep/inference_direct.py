"""Direct amortized inference: one pass of a network from the data to the posterior."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import prod
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import layer_norm

from pcsim.deep.draw import Posterior
from pcsim.deep.flows import Flowed
from pcsim.deep.inference import Evaluation, Start, Step, by_level, check_start
from pcsim.deep.inference_networks import (
    Builder,
    builder_of,
    check_made_for,
    check_normalised,
    made_for,
)
from pcsim.deep.latent_gaussian import LatentGaussian
from pcsim.deep.networks import linear
from pcsim.deep.posteriors import MeanField

__all__ = ["Direct"]


class Direct(nn.Module):
    r"""An encoder network :math:`\lambda = f_\phi(x)`.

    Each level has a network; level 1's sees the data, each other's the features of the one below.

    Parameters
    ----------
    model
        What is inferred; its sizes, type and device are taken over.
    start
        Gives the family of the approximate posterior, such as `FullCovariance.at_prior`.
    widths
        Hidden units of each level's network, level 1 first; None means 512, 512 and half of it at
        each level above.
    activation, link, normalization
        As of `FullyConnected`.
    normalise_inputs
        Whether the data are layer-normalised, as an iterative network's inputs are.
    networks
        Makes each level's network in place of the four above, such as `Convolutional`.
    generator
        Randomness of the initial weights; None means seed 0.
    """

    def __init__(
        self,
        model: LatentGaussian,
        *,
        start: Start = MeanField.at_prior,
        widths: Sequence[Sequence[int]] | None = None,
        activation: str = "elu",
        link: str = "highway",
        normalization: str | None = None,
        normalise_inputs: bool = False,
        networks: Builder | None = None,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0) if generator is None else generator
        self.start, self.normalise_inputs = start, normalise_inputs
        self.networks, self.heads = nn.ModuleList(), nn.ModuleList()
        size = model.n_x
        check_start("Direct", start)
        q = start(model, 1)
        levels = by_level(model, q)
        if normalise_inputs:
            check_normalised("Direct", 1, [size])
        self.flows = flows_of(q)
        self.made_for = made_for(model, q)
        kind = {"activation": activation, "link": link, "normalization": normalization}
        build = builder_of("Direct", len(levels), networks, widths, kind)
        for level, group in enumerate(levels, start=1):
            network: Any = build(level, [size], generator)
            size = network.n_out
            heads = [linear(size, prod(one.shape[1:]), generator) for one in group]
            self.networks.append(network)
            self.heads.append(nn.ModuleList(heads))
        self.to(levels[0][0])

    def posterior(self, model: LatentGaussian, x: Tensor) -> Posterior:
        """Return the posterior of each example of `x` (B, n_x), attached to the network."""
        start = self.start(model, len(x))
        check_made_for("Direct", self.made_for, model, start)
        parameters, features = [], layer_norm(x, x.shape[1:]) if self.normalise_inputs else x
        for network, heads in zip(self.networks, self.heads, strict=True):
            features = network(features)
            assert isinstance(heads, nn.ModuleList)
            parameters.extend([head(features) for head in heads])
        pairs = zip(parameters, start.parameters, strict=True)
        return start.with_parameters(
            tuple(one.reshape(old.shape).to(old.dtype) for one, old in pairs)
        )

    def steps(
        self,
        model: LatentGaussian,
        x: Tensor,
        evaluation: Evaluation,
        n_iterations: int | None = None,
    ) -> Iterator[Step]:
        """Yield the one step there is, whatever `n_iterations` says."""
        yield evaluation.at(model, x, self.posterior(model, x))


def flows_of(q: Posterior) -> nn.ModuleList | None:
    """Return the flows of a posterior, so that they are trained with the inference network."""
    if isinstance(q, Flowed):
        return q.flows if isinstance(q.flows, nn.ModuleList) else nn.ModuleList(q.flows)
    return None
