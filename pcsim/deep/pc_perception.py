"""Perception by a generative network, by an amortized one, and by both (hybrid predictive coding).

A generative network predicts the image from the label; to classify, the image is held and the label
inferred. An amortized network over the same nodes guesses all activities from the image. Hybrid
inference starts at the guess and teaches it (`pc_hybrid`); plain inference starts at random.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from pcsim.deep.pc_descent import GradientDescent
from pcsim.deep.pc_hybrid import guess, hybrid_step
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

    Both are chains over the nodes ``"label"``, ``"h1"``, ... and ``"image"``, in the two
    directions. Only hybrid inference changes the amortized network.

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
        names = ("label", *(f"h{k}" for k in range(1, len(sizes) - 1)), "image")
        self.network, self.amortizer = (
            shifted_chain(names[::way], sizes[::way], self.rng).to(settings.device)
            for way in (1, -1)
        )
        self.adams = (
            torch.optim.Adam(self.network.parameters(), lr=settings.rate),
            torch.optim.Adam(self.amortizer.parameters(), lr=settings.rate),
        )

    def learn(self, image: Floats, label: Floats) -> Effort:
        """Change the weights by one batch with known labels; return what inference took."""
        held = {"image": self._tensor(image), "label": self._tensor(label)}
        method = self._method(self.settings.n_train)
        if self.start == "amortized":
            settled = hybrid_step(
                self.network, self.amortizer, held, method, optimisers=self.adams, record=True
            )
        else:
            begin = self._random(held["image"])
            del begin["label"]
            settled = infer(self.network, held, method, initial=begin, record=True)
            change_weights(self.network, settled.states, self.adams[0])
        first, last = (settled.trace[k] / len(image) for k in (0, -1))
        return Effort(settled.n_steps, first, last)

    def classify(self, image: Floats) -> tuple[Answer, Answer]:
        """Return what inference answers, and what the amortized network does alone."""
        held = {"image": self._tensor(image)}
        guessed = guess(self.amortizer, held)
        begin = guessed if self.start == "amortized" else self._random(held["image"])
        settled = infer(self.network, held, self._method(self.settings.n_test), initial=begin)
        inferred, amortized = (
            states["label"].argmax(1).cpu().numpy() for states in (settled.states, guessed)
        )
        return Answer(inferred, settled.n_steps), Answer(amortized, 0)

    def _random(self, image: Tensor) -> States:
        """Return random activities of all nodes but the image, the nearest to it drawn first."""
        spread, sizes = self.settings.spread, self.settings.sizes[-2::-1]
        return {
            name: (spread * torch.randn(len(image), size, generator=self.rng)).to(image)
            for name, size in zip(self.amortizer.nodes, sizes, strict=True)
        }

    def _method(self, n_steps: int) -> GradientDescent:
        return GradientDescent(
            n_steps=n_steps, step=self.settings.step, threshold=self.settings.mean_error
        )

    def _tensor(self, values: Floats) -> Tensor:
        return torch.as_tensor(values, device=self.settings.device)


def shifted_chain(names: Sequence[str], sizes: Sequence[int], rng: torch.Generator) -> PCNetwork:
    """Return a chain of shifted layers from the first node to the last, the last one linear."""
    links = zip(itertools.pairwise(names), itertools.pairwise(sizes), strict=True)
    nodes = [
        Node(name, (parent,), ShiftedLayer(m, n, linear=name == names[-1], rng=rng))
        for (parent, name), (m, n) in links
    ]
    return PCNetwork([names[0]], nodes)
