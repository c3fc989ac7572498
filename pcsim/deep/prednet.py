r"""A small recurrent predictor of the next frame in the manner of PredNet.

At each level l a convolutional LSTM holds a representation R, predicts what the level sees
(:math:`\hat A`), and passes on the rectified errors of both signs:

.. math:: R_l = \mathrm{LSTM}(E_l, R_l, g\,\uparrow R_{l+1}), \qquad
    \hat A_0 = c_0 * R_0, \quad \hat A_l = \lfloor c_l * R_l \rfloor_+

.. math:: E_l = [\lfloor A_l - \hat A_l \rfloor_+, \lfloor \hat A_l - A_l \rfloor_+], \qquad
    A_{l+1} = \mathrm{pool}\lfloor a_l * E_l \rfloor_+

The R of a step are computed from the top down out of what the step before left behind, then the E
from the bottom up. :math:`A_0` is the frame; levels halve its sides. Training lowers the errors of
all levels through the predictions alone: what a level sees counts as given there, because a network
that may change it as well sends up nothing, which is easily predicted (:math:`A_1` fell to a
thousandth). With a `head`, it lowers the error of a prediction that a further convolution reads
from :math:`R_0`, and leaves E alone (Lotter, Kreiman & Cox 2020, Nat. Mach. Intell. 2:210, Extended
Data Fig. 9).

Reference: Lotter, Kreiman & Cox (2017), ICLR, arXiv:1605.08104.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

__all__ = [
    "Architecture",
    "PredNet",
    "Snapshot",
    "State",
    "initial_weights",
    "joined",
    "learn",
    "unroll",
]

Arrays = tuple[NDArray[np.float32], ...]
PER_LEVEL = 6
"""Arrays of a level: weights and biases of the LSTM, of the prediction, of the way up."""
CHUNK = 16
"""Trials that run together, always as many: what a trial does may not depend on how many others."""


@dataclass(frozen=True)
class Architecture:
    """Channels of each level."""

    targets: tuple[int, ...] = (1, 8, 16)
    """Of A, what a level sees and predicts; E has twice as many."""
    latents: tuple[int, ...] = (4, 8, 16)
    """Of R."""
    head: bool = False
    """Whether the prediction that is trained is read from the lowest R by a convolution of its own,
    so that the errors are not part of the loss."""

    @property
    def shapes(self) -> list[tuple[int, ...]]:
        """Shapes of the weights and biases, level by level, then of the head."""
        found: list[tuple[int, ...]] = []
        n = len(self.targets)
        for level, (seen, held) in enumerate(zip(self.targets, self.latents, strict=True)):
            above = self.latents[level + 1] if level + 1 < n else 0
            up = self.targets[level + 1] if level + 1 < n else 0
            inputs = 2 * seen + held + above
            for out, into in ((4 * held, inputs), (seen, held), (up, 2 * seen)):
                found += [(out, into, 3, 3), (out,)]
        if self.head:
            found += [(self.targets[0], self.latents[0], 3, 3), (self.targets[0],)]
        return found


@dataclass(frozen=True)
class State:
    """What one step leaves for the next, a tensor (trial, channel, y, x) a level."""

    latent: tuple[Tensor, ...]
    cell: tuple[Tensor, ...]
    error: tuple[Tensor, ...]


@dataclass(frozen=True)
class Snapshot:
    """What a step computed, a tensor (trial, channel, y, x) a level."""

    state: State
    target: tuple[Tensor, ...]
    prediction: tuple[Tensor, ...]

    def of(self, role: str, level: int) -> Tensor:
        """Return the tensor of a role: error (signed), error_pos, error_neg, latent, prediction."""
        if role == "latent":
            return self.state.latent[level]
        if role == "prediction":
            return self.prediction[level]
        above, below = self.state.error[level].chunk(2, 1)
        return {"error": above - below, "error_pos": above, "error_neg": below}[role]


def joined(parts: Sequence[Tensor]) -> Tensor:
    """Return maps (trial, ...) as one list of units, (trial, unit)."""
    return torch.cat([part.flatten(1) for part in parts], 1)


def initial_weights(architecture: Architecture, seed: int) -> Arrays:
    """Draw weights, uniform as torch does (bound: inverse root of the inputs); biases are 0.

    The forget gates of the LSTM start with a bias of 1.
    """
    rng = np.random.default_rng([seed, 2017])
    out = []
    for shape in architecture.shapes:
        if len(shape) == 4:
            bound = 1.0 / np.sqrt(max(np.prod(shape[1:]), 1))
            out.append(rng.uniform(-bound, bound, shape).astype(np.float32))
        else:
            out.append(np.zeros(shape, dtype=np.float32))
    for level, held in enumerate(architecture.latents):
        out[PER_LEVEL * level + 1][held : 2 * held] = 1.0
    return tuple(out)


class PredNet:
    """The network as functions of its weights.

    Parameters
    ----------
    architecture
        Channels.
    weights
        Tensors in the order of `Architecture.shapes`.
    feedback_gain
        Factor on what representations receive from the level above.
    """

    def __init__(
        self, architecture: Architecture, weights: Sequence[Tensor], *, feedback_gain: float = 1.0
    ) -> None:
        self.architecture = architecture
        self.weights = list(weights)
        self.feedback_gain = feedback_gain
        self.n_levels = len(architecture.targets)

    def start(self, n: int, shape: tuple[int, int]) -> State:
        """Return the state before the first frame, all zeros."""
        like = self.weights[0]

        def zeros(channels: Sequence[int]) -> tuple[Tensor, ...]:
            return tuple(
                like.new_zeros(n, c, shape[0] >> level, shape[1] >> level)
                for level, c in enumerate(channels)
            )

        held, seen = self.architecture.latents, self.architecture.targets
        return State(zeros(held), zeros(held), zeros([2 * c for c in seen]))

    def step(self, frame: Tensor, before: State) -> Snapshot:
        """Return what a frame (trial, channel, y, x) does to the network."""
        latent, cell = list(before.latent), list(before.cell)
        for level in reversed(range(self.n_levels)):
            inputs = [before.error[level], before.latent[level]]
            if level + 1 < self.n_levels:
                above = F.interpolate(latent[level + 1], scale_factor=2.0, mode="nearest")
                inputs.append(self.feedback_gain * above)
            gates = self._conv(PER_LEVEL * level, torch.cat(inputs, 1))
            into, keep, out, new = gates.chunk(4, 1)
            cell[level] = keep.sigmoid() * before.cell[level] + into.sigmoid() * new.tanh()
            latent[level] = out.sigmoid() * cell[level].tanh()
        targets, predictions, errors = [], [], []
        seen = frame
        for level in range(self.n_levels):
            expected = self._conv(PER_LEVEL * level + 2, latent[level])
            expected = expected if level == 0 else expected.relu()
            surprise = seen - expected
            error = torch.cat([surprise.relu(), (-surprise).relu()], 1)
            targets.append(seen)
            predictions.append(expected)
            errors.append(error)
            if level + 1 < self.n_levels:
                seen = F.max_pool2d(self._conv(PER_LEVEL * level + 4, error).relu(), 2)
        state = State(tuple(latent), tuple(cell), tuple(errors))
        return Snapshot(state, tuple(targets), tuple(predictions))

    def loss(self, frame: Tensor, seen: Snapshot, level_weights: Sequence[float]) -> Tensor:
        """Return what training lowers at a frame: the mean errors, or the head's mean |error|.

        What a level sees counts as given: a network that may change it as well learns to send up
        nothing, which is easily predicted.
        """
        if self.architecture.head:
            predicted = self._conv(PER_LEVEL * self.n_levels, seen.state.latent[0])
            return (frame - predicted).abs().mean()
        pairs = zip(level_weights, seen.target, seen.prediction, strict=True)
        # Half of the mean |error| is the mean over both rectified halves.
        means = [0.5 * w * (a.detach() - p).abs().mean() for w, a, p in pairs]
        return torch.stack(means).sum()

    def _conv(self, first: int, x: Tensor) -> Tensor:
        return F.conv2d(x, self.weights[first], self.weights[first + 1], padding=1)


def learn(
    architecture: Architecture,
    weights: Arrays,
    batches: Iterator[NDArray[Any]],
    *,
    learning_rate: Callable[[int], float],
    level_weights: Sequence[float],
) -> tuple[Arrays, list[float]]:
    """Train by backpropagation through time with Adam; one update a batch.

    The first frame of a sequence is not predicted and does not count.

    Parameters
    ----------
    architecture, weights
        What is trained, and from where.
    batches
        Sequences (trial, time, channel, y, x), at least two frames.
    learning_rate
        Of update number i.
    level_weights
        Of the mean error of each level in the loss.

    Returns
    -------
    weights
        As arrays.
    losses
        One a batch, mean over frames.
    """
    tensors = [torch.tensor(array, requires_grad=True) for array in weights]
    used = [tensor for tensor in tensors if tensor.numel()]
    network = PredNet(architecture, tensors)
    optimiser = torch.optim.Adam(used, lr=1.0)
    losses = []
    for number, batch in enumerate(batches):
        frames = torch.as_tensor(np.ascontiguousarray(batch, dtype=np.float32))
        state = network.start(len(frames), (frames.shape[3], frames.shape[4]))
        total = []
        for moment in range(frames.shape[1]):
            seen = network.step(frames[:, moment], state)
            state = seen.state
            if moment:
                total.append(network.loss(frames[:, moment], seen, level_weights))
        loss = torch.stack(total).mean()
        for group in optimiser.param_groups:
            group["lr"] = learning_rate(number)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
    return tuple(tensor.detach().numpy().copy() for tensor in tensors), losses


def unroll(
    architecture: Architecture,
    weights: Arrays,
    frames: NDArray[Any],
    read: Callable[[Snapshot], Tensor],
    *,
    warm_up: int = 0,
    feedback_gain: float = 1.0,
) -> NDArray[np.float32]:
    """Show frames to the network and keep what `read` takes of every step.

    Parameters
    ----------
    architecture, weights
        The network.
    frames : (trial, time, channel, y, x)
    read
        Snapshot -> (trial, unit).
    warm_up
        Steps of zeros before the first frame.
    feedback_gain
        As for `PredNet`.

    Returns
    -------
    read : (trial, time, unit)
    """
    network = PredNet(
        architecture, [torch.tensor(array) for array in weights], feedback_gain=feedback_gain
    )
    shape = (frames.shape[3], frames.shape[4])
    with torch.no_grad():
        rested = network.start(CHUNK, shape)
        grey = torch.zeros(CHUNK, *frames.shape[2:])
        for _ in range(warm_up):
            rested = network.step(grey, rested).state
        parts = []
        for first in range(0, len(frames), CHUNK):
            some = np.zeros((CHUNK, *frames.shape[1:]), dtype=np.float32)
            n = len(frames[first : first + CHUNK])
            some[:n] = frames[first : first + CHUNK]
            shown, state, kept = torch.as_tensor(some), rested, []
            for moment in range(frames.shape[1]):
                seen = network.step(shown[:, moment], state)
                state = seen.state
                kept.append(read(seen)[:n])
            parts.append(torch.stack(kept, 1).numpy())
    return np.concatenate(parts)
