"""A predictive-coding network whose weights are arrays: it settles, learns and is compared."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pcsim.deep.pc_alignment import Directions, update_directions
from pcsim.deep.pc_replicas import ACTIVATIONS, Replicas, Settling, local_gradients, settle

__all__ = ["WeightedNetwork"]

Floats = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, eq=False)
class WeightedNetwork:
    r"""Layers :math:`p_l = W_l f(z_{l-1})`, held at input and output, in float64.

    .. math:: F = \tfrac12\sum_{l<L} |z_l - p_l|^2 + \tfrac12\Pi |y - p_L|^2

    Examples
    --------
    >>> net = WeightedNetwork(weights=[np.eye(2), np.eye(2)], activation="linear")
    >>> found = net.settled(np.ones((1, 2)), np.full((1, 2), 4.0), Settling(n_steps=200))
    >>> found["latents"][0].round(3), found["errors"][1].round(3)
    (array([[2.5, 2.5]]), array([[1.5, 1.5]]))
    """

    weights: Sequence[Floats]
    """Of layers 1 ... L, (n_out, n_in)."""
    feedback: Sequence[Floats] | None = None
    """What carries errors down in place of the transposed weights: of layers 2 ... L."""
    activation: str = "tanh"
    output_precision: float = 1.0

    def replicas(self, n: int = 1) -> tuple[Replicas, list[Tensor] | None]:
        """Return `n` copies on torch, and their feedback."""
        own, back = ([stacked(one, n) for one in many] for many in (self.weights, self.back))
        return Replicas(own, [], self.activation), back or None

    @property
    def back(self) -> Sequence[Floats]:
        """The feedback, or nothing."""
        return () if self.feedback is None else self.feedback

    def output(self, x: Floats) -> Floats:
        """Return what the output is predicted to be before it is seen, (N, n_out)."""
        return array(self.replicas()[0].forward(stacked(x))[-1])

    def settled(self, x: Floats, y: Floats, method: Settling) -> dict[str, list[Floats]]:
        """Return latents, predictions and errors of each layer where inference ends, (N, n) each.

        Latents are those of layers 1 ... L - 1; the others are of all layers.
        """
        net, feedback = self.replicas()
        inputs, target = stacked(x), stacked(y)
        weight = self._output_weight(1)
        with torch.no_grad():
            z = settle(net, inputs, target, method, feedback=feedback, output_weight=weight)
            rates = [inputs, *(ACTIVATIONS[self.activation](one) for one in z)]
            predictions = [net.layer(k, rate) for k, rate in enumerate(rates)]
        errors = [one - p for one, p in zip([*z, target], predictions, strict=True)]
        parts = {"latents": z, "predictions": predictions, "errors": errors}
        return {name: [array(one) for one in many] for name, many in parts.items()}

    def learned(
        self, batches: Iterable[tuple[Floats, Floats]], method: Settling, *, rate: float
    ) -> list[Floats]:
        r"""Return the weights after local changes, one settling a batch.

        .. math:: W_l \leftarrow W_l + \eta \langle \xi_l f(z_{l-1})^\top \rangle

        with the mean over the batch of the weighted error times the rate before the synapse.
        """
        net, feedback = self.replicas()
        weight = self._output_weight(1)
        with torch.no_grad():
            for x, y in batches:
                inputs, target = stacked(x), stacked(y)
                z = settle(net, inputs, target, method, feedback=feedback, output_weight=weight)
                slopes = local_gradients(net, inputs, target, z, output_weight=weight)
                for own, slope in zip(net.weights, slopes, strict=True):
                    own.sub_(slope, alpha=rate / len(x))
        return [array(one) for one in net.weights]

    def directions(
        self, x: Floats, y: Floats, *, steps: Sequence[int], step: float = 0.1
    ) -> Directions:
        """Return cosines of local changes with backpropagation's, for batches (n, batch, unit)."""
        n = len(x)
        net, feedback = self.replicas(n)
        return update_directions(
            net, torch.as_tensor(x), torch.as_tensor(y), shares=[1.0] * n,
            variances=[1.0 / self.output_precision] * n, steps=steps, step=step, feedback=feedback,
        )  # fmt: skip

    def _output_weight(self, n: int) -> Tensor:
        return torch.full((n, 1, 1), self.output_precision, dtype=torch.float64)


def stacked(values: Any, n: int = 1) -> Tensor:
    """Return values as float64 with `n` copies along a new first axis."""
    one = torch.as_tensor(np.array(values, dtype=np.float64))
    return one[None].repeat(n, *[1] * one.ndim)


def array(values: Tensor) -> Floats:
    """Return the first copy as an array."""
    return np.array(values[0].detach().numpy())
