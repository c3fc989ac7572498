r"""Iterative amortized inference: a network that learned to climb (thesis, chapter 3)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import layer_norm

from pcsim.deep.draw import Posterior
from pcsim.deep.encodings import Encoding, ErrorEncoding, GradientEncoding
from pcsim.deep.inference import Evaluation, Start, Step, by_level, check_start
from pcsim.deep.inference_direct import flows_of
from pcsim.deep.inference_networks import (
    Builder,
    builder_of,
    check_family,
    check_made_for,
    check_normalised,
    made_for,
    widths_of,
)
from pcsim.deep.latent_gaussian import LatentGaussian
from pcsim.deep.networks import TwoStreams
from pcsim.deep.posteriors import MeanField
from pcsim.deep.updates import UPDATES, Memory
from pcsim.messages import check_choice, check_integer, check_object, refusal

__all__ = ["Iterative"]


class Iterative(nn.Module):
    r"""A network that improves the estimate from what inference sees of it.

    .. math:: \lambda \leftarrow f_\phi(\lambda, \nabla_\lambda F), \qquad
        \lambda_0 = \text{the prior}

    Level 1's network sees the inputs of its level; each other's also the features of the one below.
    Neither the estimate nor the gradient carries a graph from one iteration to the next.

    Parameters
    ----------
    model
        What is inferred; its sizes, type and device are taken over.
    encoding
        `GradientEncoding`, `ErrorEncoding` or `LogSignGradientEncoding`.
    update
        "gated", "additive" or "learned_step".
    start
        Where inference starts, and so the family of the approximate posterior.
    widths
        Hidden units of each level's network, level 1 first; None means 512, 512 and half of it at
        each level above.
    activation, link, normalization
        As of `FullyConnected`.
    normalise_inputs
        Whether each input is layer-normalised (over its features, without learned weights). What
        its features have in common, mean and size, is lost; of two numbers only a sign is left
        (which is the larger), of one nothing. So levels of one latent are refused, and those of two
        want False too.
    segregated
        Whether errors from below (and the observation) and all that belongs to the level itself
        pass networks of their own, of half the units each, that meet only in the update: basal and
        apical dendrites. For the `ErrorEncoding`.
    recurrent
        Whether a gated recurrent unit carries features from one iteration to the next, with its
        graph.
    n_iterations
        How many, unless the caller says otherwise.
    networks
        Makes each level's network in place of widths, activation, link and normalization, such as
        `Convolutional`; not with streams.
    generator
        Randomness of the initial weights; None means seed 0.
    """

    def __init__(
        self,
        model: LatentGaussian,
        *,
        encoding: Encoding = GradientEncoding(),  # noqa: B008
        update: str = "gated",
        start: Start = MeanField.at_prior,
        widths: Sequence[Sequence[int]] | None = None,
        activation: str = "elu",
        link: str = "highway",
        normalization: str | None = None,
        normalise_inputs: bool = True,
        segregated: bool = False,
        recurrent: bool = False,
        n_iterations: int = 5,
        networks: Builder | None = None,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        rule = UPDATES[check_choice("Iterative", "update", update, UPDATES)]
        generator = torch.Generator().manual_seed(0) if generator is None else generator
        check_object("Iterative", "encoding", encoding, "inputs", "one, such as ErrorEncoding()")
        check_start("Iterative", start)
        self.encoding, self.start = encoding, start
        self.normalise_inputs, self.segregated = normalise_inputs, segregated
        if segregated and not isinstance(encoding, ErrorEncoding):
            found, advice = f"a segregated {type(encoding).__name__}", "Take ErrorEncoding()."
            raise ValueError(refusal("Iterative", found, "an ErrorEncoding", advice))
        if segregated and networks is not None:
            found, advice = "networks for two streams", "Give widths, or segregated=False."
            raise ValueError(refusal("Iterative", found, "widths", advice))
        self.n_iterations = check_integer("Iterative", "n_iterations", n_iterations, low=1)
        self.networks, self.cells, self.updates = nn.ModuleList(), nn.ModuleList(), nn.ModuleList()
        size = 0
        q = start(model, 1)
        groups, inputs = by_level(model, q), self._input_sizes(model)
        self._n_estimates = [len(group) for group in groups]
        self.flows = flows_of(q)
        self.made_for, self._family = made_for(model, q), type(q)
        kind = {"activation": activation, "link": link, "normalization": normalization}
        build = (
            self._streams(widths_of(len(groups), widths), kind)
            if segregated
            else builder_of("Iterative", len(groups), networks, widths, kind)
        )
        for level, (group, sizes) in enumerate(zip(groups, inputs, strict=True), start=1):
            if normalise_inputs:
                check_normalised("Iterative", level, sizes)
            network: Any = build(level, [*sizes, size] if level > 1 else sizes, generator)
            size = network.n_out
            self.networks.append(network)
            self.cells.append(Memory(size, generator) if recurrent else nn.Identity())
            updates = [rule(size, one[0].numel(), generator) for one in group]
            self.updates.append(nn.ModuleList(updates))
        self.to(groups[0][0])

    def _streams(self, hidden: Sequence[Sequence[int]], kind: Mapping[str, Any]) -> Builder:
        def build(level: int, sizes: Sequence[int], generator: torch.Generator) -> TwoStreams:
            own = sizes[:-1] if level > 1 else sizes
            n_basal = sum(own[place] for place in self._basal(level - 1)) + sum(sizes[len(own) :])
            widths = hidden[level - 1]
            return TwoStreams(n_basal, sum(sizes) - n_basal, widths, generator=generator, **kind)

        return build

    def _input_sizes(self, model: LatentGaussian) -> list[list[int]]:
        """Encode one example to see how much there is of it."""
        q = self.start(model, 1)
        x = q.parameters[0].new_zeros(1, model.n_x)
        evaluation = Evaluation(generator=torch.Generator(x.device).manual_seed(0))
        levels = self.encoding.inputs(model, x, evaluation.at(model, x, q), evaluation)
        return [[one.shape[1] for one in inputs] for inputs in levels]

    def _basal(self, level: int) -> list[int]:
        """Places of what comes from below among the inputs of a level, 0 the lowest."""
        encoding: Any = self.encoding
        if not self.segregated:
            return []
        places: list[int] = encoding.from_below(level, self._n_estimates[level])
        return places

    def steps(
        self,
        model: LatentGaussian,
        x: Tensor,
        evaluation: Evaluation,
        n_iterations: int | None = None,
    ) -> Iterator[Step]:
        """Yield the prior, then one step an iteration."""
        first = evaluation.at(model, x, self.start(model, len(x)))
        yield first
        yield from self.refine(model, x, evaluation, first, n_iterations)

    def refine(
        self,
        model: LatentGaussian,
        x: Tensor,
        evaluation: Evaluation,
        first: Step,
        n_iterations: int | None = None,
    ) -> Iterator[Step]:
        """Yield one step an iteration from `first` on, which is left out."""
        check_family("Iterative", self._family, first.q)
        check_made_for("Iterative", self.made_for, model, first.q)
        step = first
        states: list[Tensor | None] = [None] * len(self.networks)
        for _ in range(self.n_iterations if n_iterations is None else n_iterations):
            q, states = self._updated(model, x, evaluation, step, states)
            step = evaluation.at(model, x, q)
            yield step

    def _updated(
        self,
        model: LatentGaussian,
        x: Tensor,
        evaluation: Evaluation,
        step: Step,
        states: list[Tensor | None],
    ) -> tuple[Posterior, list[Tensor | None]]:
        return self.respond(model, self.encoding.inputs(model, x, step, evaluation), step, states)

    def respond(
        self,
        model: LatentGaussian,
        inputs: list[list[Tensor]],
        step: Step,
        states: list[Tensor | None],
    ) -> tuple[Posterior, list[Tensor | None]]:
        """Return the estimate after `step`, given what each level sees, and the new memories.

        `inputs` as the encoding returns them, or changed on purpose: to ask what a network makes of
        errors that it does not meet on its own.
        """
        groups = by_level(model, step.q)
        parameters: list[Tensor] = []
        new_states: list[Tensor | None] = []
        features: Tensor | None = None
        slopes = iter(step.gradient)
        for level, group in enumerate(groups):
            features = self._features(level, inputs[level], features, states[level])
            new_states.append(features)
            updates = self.updates[level]
            assert isinstance(updates, nn.ModuleList)
            for update, one in zip(updates, group, strict=True):
                value, slope = one.detach().flatten(1), next(slopes).flatten(1)
                parameters.append(update(features, value, slope).reshape(one.shape))
        return step.q.with_parameters(tuple(parameters)), new_states

    def _features(
        self, level: int, inputs: list[Tensor], below: Tensor | None, state: Tensor | None
    ) -> Tensor:
        if self.normalise_inputs:
            inputs = [layer_norm(one, one.shape[1:]) for one in inputs]
        basal = self._basal(level)
        own = [one for place, one in enumerate(inputs) if place not in basal]
        first = [] if below is None else [below]
        # Without streams the order is that of the encoding, what comes from below last.
        ordered = [*(inputs[i] for i in basal), *first, *own] if basal else [*own, *first]
        whole = torch.cat(ordered, -1)
        features: Tensor = self.networks[level](whole)
        cell = self.cells[level]
        if not isinstance(cell, nn.Identity):
            carried: Tensor = cell(features, state)
            return carried
        return features
