"""Train networks by predictive coding and by backpropagation, over seeds and rates at once.

Both rules see the same weights at the start, the same batches in the same order and the same grid
of learning rates. What they differ in is what the weights are changed at.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pcsim.deep.pc_replicas import (
    ReplicaAdam,
    Replicas,
    Settling,
    backprop_gradients,
    descend,
    local_gradients,
    make_replicas,
    norms,
    settle,
)
from pcsim.messages import check_choice, refusal

__all__ = ["RULES", "Change", "Lesson", "Networks", "change_weights", "error_rate", "train"]

RULES = ("pc", "bp")
OPTIMISERS = ("sgd", "adam", "proximal")


@dataclass(frozen=True, eq=False)
class Lesson:
    """One batch for each seed, and what to test afterwards."""

    x: NDArray[np.float32]
    """(seed, batch, n_in)."""
    y: NDArray[np.float32]
    """(seed, batch, n_out)."""
    tests: tuple[tuple[NDArray[np.float32], NDArray[np.int64]], ...] = ()
    """Pairs of inputs (n, n_in) or (seed, n, n_in) and classes (n,) or (seed, n)."""


@dataclass(frozen=True, kw_only=True)
class Change:
    """How weights change: by which rule, after which inference, through which optimiser."""

    rule: str = "pc"
    """``"pc"`` or ``"bp"``."""
    settling: Settling = field(default_factory=Settling)
    optimiser: str = "sgd"
    """``"sgd"``, ``"adam"`` or ``"proximal"`` (see `proximal`)."""
    epsilon: float = 0.25
    """Of the proximal change alone."""
    average: bool = False
    """Whether slopes are averaged over the batch; summed otherwise."""

    def __post_init__(self) -> None:
        check_choice("Change", "rule", self.rule, RULES)
        check_choice("Change", "optimiser", self.optimiser, OPTIMISERS)


@dataclass(frozen=True, kw_only=True)
class Networks:
    """Networks of one shape: one for each seed and learning rate, seed by seed."""

    sizes: tuple[int, ...]
    seeds: tuple[int, ...]
    rates: tuple[float, ...]
    activation: str = "sigmoid"
    loss: str = "squared"
    init: str = "xavier_normal"
    gain: float = 1.0
    bias: bool = False
    device: str = "cpu"

    def build(self) -> tuple[Replicas, Tensor]:
        """Return the networks and the learning rate of each."""
        repeated = [seed for seed in self.seeds for _ in self.rates]
        net = make_replicas(
            self.sizes, repeated, activation=self.activation, loss=self.loss, init=self.init,
            gain=self.gain, bias=self.bias,
        )  # fmt: skip
        weights, biases = (
            [one.to(self.device) for one in many] for many in (net.weights, net.biases)
        )
        rates = torch.tensor(self.rates * len(self.seeds), device=self.device)
        return Replicas(weights, biases, net.activation, net.loss), rates

    def resume(self, weights: Sequence[NDArray[np.float32]]) -> tuple[Replicas, Tensor]:
        """Return networks without biases that start at weights (seed, n_out, n_in), one a layer."""
        _, rates = self.build()
        return Replicas(
            [self.spread(one) for one in weights], [], self.activation, self.loss
        ), rates

    def spread(self, values: NDArray[Any]) -> Tensor:
        """Return values (seed, ...) for every network, (replica, ...)."""
        if len(values) != len(self.seeds):
            found = f"values for {len(values)} seeds"
            raise ValueError(refusal("Networks", found, f"one for each of {len(self.seeds)}"))
        return torch.as_tensor(values, device=self.device).repeat_interleave(len(self.rates), 0)


def train(
    networks: Networks,
    change: Change,
    lessons: Iterable[Lesson],
    *,
    start: tuple[Replicas, Tensor] | None = None,
    keep: Callable[[Replicas], None] | None = None,
) -> NDArray[np.float64]:
    """Return the error rates at every test, (test, which, seed, rate).

    Parameters
    ----------
    networks, change
        What to train, and by what.
    lessons
        Batches in order. All that carry tests carry equally many.
    start
        Networks and rates to go on from, instead of new ones; they are changed in place.
    keep
        Called with the networks after the last lesson.
    """
    net, rates = networks.build() if start is None else start
    step = change_weights(net, change, rates)
    curves = []
    with torch.no_grad():
        for lesson in lessons:
            step(networks.spread(lesson.x), networks.spread(lesson.y))
            if lesson.tests:
                curves.append(np.stack([_tested(networks, net, *one) for one in lesson.tests]))
    if keep is not None:
        keep(net)
    if not curves:
        return np.zeros((0, 0, len(networks.seeds), len(networks.rates)))
    return np.stack(curves)


def change_weights(
    net: Replicas, change: Change, rates: Tensor
) -> Callable[[Tensor, Tensor], None]:
    """Return what changes the weights for one batch of inputs and outputs."""
    adam = ReplicaAdam(net, rates) if change.optimiser == "adam" else None

    def step(x: Tensor, y: Tensor) -> None:
        if change.optimiser == "proximal":
            proximal(net, change, rates, x, y)
            return
        if change.rule == "bp":
            slopes = backprop_gradients(net, x, y)
        else:
            slopes = local_gradients(net, x, y, settle(net, x, y, change.settling))
        if change.average:
            slopes = [slope / x.shape[1] for slope in slopes]
        if adam is not None:
            adam.step(slopes)
        else:
            descend(net, slopes, rates)

    return step


def proximal(net: Replicas, change: Change, rates: Tensor, x: Tensor, y: Tensor) -> None:
    r"""Move each layer to where it would meet its error; the output only part of its way.

    With :math:`n_l` the mean squared norm of what enters layer l (a bias counts 1) plus epsilon,
    slopes are divided by :math:`n_l`, and the output's error is multiplied by
    :math:`n_L\alpha/(1 + n_L\alpha)` during inference and in the change, :math:`n_L` at the
    feedforward start and :math:`\alpha` the learning rate. With backpropagated errors this is the
    control BP-prox. `pc_proximal.proximal_step` is the same rule for one network of any kind, at
    any precisions.

    References
    ----------
    Alonso et al. (2022), https://arxiv.org/abs/2206.00164
    """
    z = net.forward(x)[:-1]
    reach = norms(net, x, z, change.epsilon)[-1] * rates[:, None, None]
    share = reach / (1 + reach)
    if change.rule == "bp":
        slopes = backprop_gradients(net, x, y, output_weight=share)
    else:
        z = settle(net, x, y, change.settling, output_weight=share)
        slopes = local_gradients(net, x, y, z, output_weight=share)
    sizes = norms(net, x, z, change.epsilon)
    scale = [size * x.shape[1] for size in (*sizes, *(sizes if net.biases else ()))]
    ones = torch.ones_like(rates)
    descend(net, [slope / one for slope, one in zip(slopes, scale, strict=True)], ones)


def error_rate(net: Replicas, x: Tensor, label: Tensor) -> Tensor:
    """Return the share of examples whose largest output is not their class, (replica,).

    Outputs that are not finite are wrong.
    """
    output = net.forward(x)[-1]
    right = (output.argmax(-1) == label) & torch.isfinite(output).all(-1)
    return 1.0 - right.to(torch.float64).mean(-1)


def _tested(
    networks: Networks, net: Replicas, x: NDArray[np.float32], label: NDArray[np.int64]
) -> NDArray[np.float64]:
    shape = len(networks.seeds), len(networks.rates)
    device, copies = networks.device, len(net.weights[0])
    inputs = (
        networks.spread(x)
        if x.ndim == 3
        else torch.as_tensor(x, device=device).expand(copies, *x.shape)
    )
    labels = networks.spread(label) if label.ndim == 2 else torch.as_tensor(label, device=device)
    return error_rate(net, inputs, labels).cpu().numpy().reshape(shape)
