"""Perception by a generative network, by an amortized one, and by both (hybrid predictive coding).

A generative network predicts the image from the label; to classify, the image is held and the label
inferred. An amortized network guesses all activities from the image; it learns towards those that
inference ends at, each layer by its own error. Hybrid inference starts at the guess.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from pcsim.deep.pc_descent import GradientDescent
from pcsim.deep.pc_inference import infer
from pcsim.deep.pc_learning import learn as change_weights
from pcsim.deep.pc_network import Node, PCNetwork, States
from pcsim.messages import check_choice

__all__ = ["Answer", "Effort", "Perception", "PerceptionSettings", "ShiftedLayer"]

STARTS = ("amortized", "random")
Floats = NDArray[np.float32]


class ShiftedLayer(nn.Module):
    """act(x W) + b: the bias is outside the nonlinearity, as in the authors' code."""

    def __init__(self, n_in: int, n_out: int, *, linear: bool, rng: torch.Generator) -> None:
        super().__init__()
        self.weight = nn.Parameter(0.05 * torch.randn(n_out, n_in, generator=rng))
        self.bias = nn.Parameter(torch.zeros(n_out))
        self.linear = linear

    def forward(self, x: Tensor) -> Tensor:
        """Return what the layer predicts."""
        sums = nn.functional.linear(x, self.weight)
        return (sums if self.linear else torch.tanh(sums)) + self.bias


@dataclass(frozen=True, kw_only=True)
class PerceptionSettings:
    """Settings of Tschantz et al. (2023), https://doi.org/10.1371/journal.pcbi.1011280."""

    sizes: tuple[int, ...] = (10, 500, 500, 784)
    """Label, hidden, image."""
    step: float = 0.02
    """Twice the authors' .01: their slope is that of the squared error without the half."""
    n_train: int = 100
    n_test: int = 500
    """Iterations at most."""
    spread: float = 0.01
    """Standard deviation of random starts."""
    rate: float = 1e-4
    """Of Adam, for both networks."""
    threshold: float | None = None
    """Stop once the sum of absolute errors of a batch of 64 over the number of parameters is below
    this (the authors' measure; batches of other sizes are scaled to it)."""
    device: str = "cpu"

    @property
    def mean_error(self) -> float | None:
        """The threshold as mean absolute error of a unit."""
        if self.threshold is None:
            return None
        pairs = zip(self.sizes[:-1], self.sizes[1:], strict=True)
        n_parameters = sum(m * n + n for m, n in pairs)
        return self.threshold * n_parameters / (64 * sum(self.sizes[1:]))


@dataclass(frozen=True)
class Effort:
    """What inference took in one batch of training."""

    n_steps: int
    first_energy: float
    """Of an image, where inference began."""
    last_energy: float
    """Of an image, where it ended."""


@dataclass(frozen=True, eq=False)
class Answer:
    """What was seen in a batch of images."""

    label: NDArray[np.int64]
    n_steps: int


class Perception:
    """A generative network, an amortized one and their optimisers.

    Parameters
    ----------
    settings
        Sizes, iterations and rates.
    start
        Where inference starts: ``"amortized"`` makes this hybrid, ``"random"`` plain.
    seed
        Of the weights and of random starts.
    """

    def __init__(self, settings: PerceptionSettings, *, start: str, seed: int) -> None:
        self.settings, self.start = settings, check_choice("Perception", "start", start, STARTS)
        self.rng = torch.Generator().manual_seed(seed)
        sizes = settings.sizes
        self.names = ("label", *(f"h{k}" for k in range(1, len(sizes) - 1)), "image")
        down = stack(sizes, self.rng)
        nodes = [
            Node(name, (parent,), layer)
            for parent, name, layer in zip(self.names[:-1], self.names[1:], down, strict=True)
        ]
        self.network = PCNetwork(["label"], nodes).to(settings.device)
        self.guesser = nn.ModuleList(stack(sizes[::-1], self.rng)).to(settings.device)
        self.adams = (
            torch.optim.Adam(self.network.parameters(), lr=settings.rate),
            torch.optim.Adam(self.guesser.parameters(), lr=settings.rate),
        )

    def learn(self, image: Floats, label: Floats) -> Effort:
        """Change the weights by one batch with known labels; return what inference took."""
        held = {"image": self._tensor(image), "label": self._tensor(label)}
        guess = self.guess(held["image"])
        method = self._method(self.settings.n_train)
        begin = {k: v for k, v in self._begin(guess).items() if k not in held}
        settled = infer(self.network, held, method, initial=begin, record=True)
        change_weights(self.network, settled.states, self.adams[0])
        if self.start == "amortized":
            self._follow(held["image"], settled.states)
        first, last = (settled.trace[k] / len(image) for k in (0, -1))
        return Effort(settled.n_steps, first, last)

    def classify(self, image: Floats) -> tuple[Answer, Answer]:
        """Return what inference answers, and what the amortized network does alone."""
        held = self._tensor(image)
        guess = self.guess(held)
        method = self._method(self.settings.n_test)
        settled = infer(self.network, {"image": held}, method, initial=self._begin(guess))
        inferred, amortized = (
            states["label"].argmax(1).cpu().numpy() for states in (settled.states, guess)
        )
        return Answer(inferred, settled.n_steps), Answer(amortized, 0)

    def guess(self, image: Tensor) -> States:
        """Return the amortized network's activities of all nodes but the image."""
        found: States = {}
        value = image
        with torch.no_grad():
            for name, layer in zip(self.names[-2::-1], self.guesser, strict=True):
                value = layer(value)
                found[name] = value
        return found

    def _follow(self, image: Tensor, states: Mapping[str, Tensor]) -> None:
        """Move every layer of the amortized network towards where inference ended."""
        guess = self.guess(image)
        inputs = [image, *(guess[name] for name in self.names[-2:0:-1])]
        self.adams[1].zero_grad()
        losses = [
            0.5 * (states[name] - layer(x)).square().sum(1).mean()
            for name, layer, x in zip(self.names[-2::-1], self.guesser, inputs, strict=True)
        ]
        torch.stack(losses).sum().backward()
        self.adams[1].step()

    def _begin(self, guess: States) -> States:
        if self.start == "amortized":
            return guess
        return {
            name: (self.settings.spread * torch.randn(value.shape, generator=self.rng)).to(value)
            for name, value in guess.items()
        }

    def _method(self, n_steps: int) -> GradientDescent:
        return GradientDescent(
            n_steps=n_steps, step=self.settings.step, threshold=self.settings.mean_error
        )

    def _tensor(self, values: Floats) -> Tensor:
        return torch.as_tensor(values, device=self.settings.device)


def stack(sizes: tuple[int, ...], rng: torch.Generator) -> list[ShiftedLayer]:
    """Return layers from the first size to the last, the last one linear."""
    last = len(sizes) - 2
    return [
        ShiftedLayer(m, n, linear=k == last, rng=rng)
        for k, (m, n) in enumerate(itertools.pairwise(sizes))
    ]
