"""Where changes of weights point: along backpropagation's, and towards the target."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pcsim.deep.pc_comparison import Change, Networks, change_weights
from pcsim.deep.pc_replicas import (
    Replicas,
    Settling,
    backprop_gradients,
    local_gradients,
    settle,
)
from pcsim.messages import check_integer, refusal

__all__ = [
    "Directions",
    "copies",
    "output_path",
    "random_feedback",
    "target_alignment",
    "update_directions",
]


@dataclass(frozen=True, eq=False)
class Directions:
    """Cosines with backpropagation; NaN where a change is nil."""

    local: NDArray[np.float64]
    """Of local changes, (step, replica, layer)."""
    backprop: NDArray[np.float64]
    """Of backpropagation with the same feedback, (replica, layer): 1 with the weights' own."""


def random_feedback(net: Replicas, seed: int) -> list[Tensor]:
    """Return matrices in the shapes and of the spread of layers 2 ... L, the same in each copy."""
    rng = torch.Generator().manual_seed(seed)
    out = []
    for one in net.weights[1:]:
        drawn = torch.randn(one.shape[1:], generator=rng, dtype=one.dtype) * one[0].std().cpu()
        out.append(drawn.to(one.device).expand_as(one).contiguous())
    return out


def update_directions(
    net: Replicas,
    x: Tensor,
    y: Tensor,
    *,
    shares: Sequence[float],
    variances: Sequence[float],
    steps: Sequence[int],
    step: float = 0.1,
    feedback: Sequence[Tensor] | None = None,
) -> Directions:
    """Return where changes point during inference, for each target and variance of the output.

    Parameters
    ----------
    net
        One copy for each condition.
    x, y
        (replica, batch, unit).
    shares
        How far the target lies on the way from the output to `y`, for each condition.
    variances
        Of the output, one over its precision, for each condition; hidden layers have 1.
    steps, step
        The numbers of steps of inference at which to look, in any order, and the size of one.
    feedback
        What carries errors down in place of the transposed weights, as of `settle`.
    """
    if not steps:
        raise ValueError(refusal("update_directions", "no steps", "at least one number of steps"))
    for count in steps:
        check_integer("update_directions", "steps", count, low=0)
    with torch.no_grad():
        output = net.forward(x)[-1]
        share, variance = (
            torch.tensor(one, dtype=x.dtype, device=x.device)[:, None, None]
            for one in (shares, variances)
        )
        target = output + share * (y - output)
        slopes = backprop_gradients(net, x, target)
        found: dict[int, NDArray[np.float64]] = {}

        def watch(count: int, z: list[Tensor]) -> None:
            if count in steps:
                found[count] = cosines(local_gradients(net, x, target, z), slopes, net)

        method = Settling(n_steps=max(steps), step=step)
        settle(net, x, target, method, feedback=feedback, output_weight=1 / variance, watch=watch)
        through = backprop_gradients(net, x, target, feedback=feedback)
    return Directions(np.stack([found[count] for count in steps]), cosines(through, slopes, net))


def cosines(ours: Sequence[Tensor], theirs: Sequence[Tensor], net: Replicas) -> NDArray[np.float64]:
    """Return the cosine of the slopes by the weights of each layer, (replica, layer)."""
    out = []
    for one, other in zip(ours[: len(net.weights)], theirs, strict=False):
        a, b = one.double().flatten(1), other.double().flatten(1)
        sizes = a.norm(dim=1) * b.norm(dim=1)
        cosine = (a * b).sum(1) / sizes
        out.append(torch.where(sizes > 0, cosine, torch.nan))
    return torch.stack(out, 1).cpu().numpy()


def target_alignment(
    networks: Networks, change: Change, x: NDArray[np.float32], y: NDArray[np.float32]
) -> NDArray[np.float64]:
    r"""Return the cosine between the change of output by one lesson and what was missing.

    .. math:: \cos\left(\hat y' - \hat y,\; y - \hat y\right)

    Parameters
    ----------
    x, y : (seed, 1, n)
        One example for each seed.

    Returns
    -------
    alignment : (seed, rate)
    """
    net, rates = networks.build()
    inputs, targets = networks.spread(x), networks.spread(y)
    with torch.no_grad():
        before = net.forward(inputs)[-1].double()
        change_weights(net, change, rates)(inputs, targets)
        moved = net.forward(inputs)[-1].double() - before
    cosine = torch.cosine_similarity(moved.flatten(1), (targets - before).flatten(1), dim=1)
    return cosine.cpu().numpy().reshape(len(networks.seeds), len(networks.rates))


def output_path(
    weights: Sequence[NDArray[np.float32]],
    change: Change,
    *,
    x: Sequence[float],
    y: Sequence[float],
    rate: float,
    n_lessons: int,
    fixed: Sequence[int] = (),
) -> NDArray[np.float64]:
    """Return the outputs of one linear network before each of its lessons and after, (n + 1, unit).

    Parameters
    ----------
    weights
        Of each layer, (n_out, n_in).
    fixed
        Layers, counted from 0, that do not learn.
    """
    net = Replicas([torch.tensor(one)[None] for one in weights], [], "linear")
    inputs, target = torch.tensor([[list(x)]]), torch.tensor([[list(y)]])
    kept = [net.weights[k].clone() for k in fixed]
    step = change_weights(net, change, torch.tensor([rate]))
    path = [net.forward(inputs)[-1]]
    with torch.no_grad():
        for _ in range(n_lessons):
            step(inputs, target)
            for k, one in zip(fixed, kept, strict=True):
                net.weights[k].copy_(one)
            path.append(net.forward(inputs)[-1])
    return torch.cat(path).flatten(1).double().numpy()


def copies(
    net: Replicas, x: NDArray[np.float32], y: NDArray[np.float32], n: int
) -> tuple[Replicas, Tensor, Tensor]:
    """Return `n` copies of the first network, and one batch (batch, unit) for all of them."""
    weights, biases = (
        [one[:1].repeat(n, 1, 1) for one in many] for many in (net.weights, net.biases)
    )
    device = net.weights[0].device
    inputs, targets = (torch.as_tensor(one, device=device).expand(n, *one.shape) for one in (x, y))
    return Replicas(weights, biases, net.activation, net.loss), inputs, targets
