r"""Many copies of one multilayer network, of one shape but other weights, run as one batch.

Comparing rules over seeds and learning rates takes hundreds of small networks. Their layers are
stacked along a first axis, so that a step of all of them costs little more than a step of one. The
rules are written out by hand; a test holds them to `pcsim.deep.pc_network`, which is general.

An activity is what leaves a layer with weights, before the nonlinearity:

.. math:: p_l = W_l f(z_{l-1}) + b_l, \qquad F = \tfrac12\sum_l |z_l - p_l|^2 + \mathcal{L}(y, p_L)

with :math:`f` left out for the input. Sums run over units and over the batch.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from pcsim.messages import check_choice, check_integer, check_number, refusal

__all__ = [
    "ReplicaAdam",
    "Replicas",
    "Settling",
    "backprop_gradients",
    "descend",
    "local_gradients",
    "make_replicas",
    "norms",
    "settle",
]

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "linear": lambda z: z,
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
    "relu": torch.relu,
    "leaky_relu": functional.leaky_relu,
}
SLOPES: dict[str, Callable[[Tensor, Tensor], Tensor | None]] = {
    "linear": lambda z, rate: None,
    "sigmoid": lambda z, rate: rate * (1 - rate),
    "tanh": lambda z, rate: 1 - rate * rate,
    "relu": lambda z, rate: (z > 0).to(z.dtype),
    "leaky_relu": lambda z, rate: 0.99 * (z > 0).to(z.dtype) + 0.01,
}
"""Derivative from the activity and its rate; None stands for one."""

LOSSES = ("squared", "cross_entropy")
INITS = ("xavier_normal", "xavier_uniform", "default")


@dataclass(frozen=True, eq=False)
class Replicas:
    """The parameters of all copies; training changes them in place."""

    weights: list[Tensor]
    """Of layers 1 ... L: (replica, n_out, n_in)."""
    biases: list[Tensor]
    """(replica, 1, n_out), or none at all."""
    activation: str = "tanh"
    loss: str = "squared"

    @property
    def parameters(self) -> list[Tensor]:
        """Weights, then biases."""
        return [*self.weights, *self.biases]

    def layer(self, index: int, rate: Tensor) -> Tensor:
        """Return what a layer, counted from 0, makes of the rates that enter it."""
        weights = self.weights[index].transpose(1, 2)
        if self.biases:
            return torch.baddbmm(self.biases[index], rate, weights)
        return torch.bmm(rate, weights)

    def forward(self, x: Tensor) -> list[Tensor]:
        """Return what leaves every layer, (replica, batch, unit) each; the last is the output."""
        out = [self.layer(0, x)]
        for index in range(1, len(self.weights)):
            out.append(self.layer(index, ACTIVATIONS[self.activation](out[-1])))
        return out

    def output_error(self, target: Tensor, output: Tensor) -> Tensor:
        """Return minus the slope of the loss by the output."""
        if self.loss == "squared":
            return target - output
        return target - torch.softmax(output, dim=-1)

    def output_loss(self, target: Tensor, output: Tensor) -> Tensor:
        """Return the loss, summed over the batch, (replica,)."""
        if self.loss == "squared":
            return 0.5 * (target - output).square().sum((1, 2))
        return -(target * torch.log_softmax(output, dim=-1)).sum((1, 2))


def make_replicas(
    sizes: Sequence[int],
    seeds: Sequence[int],
    *,
    activation: str = "tanh",
    loss: str = "squared",
    init: str = "xavier_normal",
    gain: float = 1.0,
    bias: bool = False,
) -> Replicas:
    """Draw the weights of a network for each seed; equal seeds get equal weights.

    Parameters
    ----------
    sizes
        Units of the input, of each hidden layer and of the output.
    init
        ``"xavier_normal"`` or ``"xavier_uniform"`` times `gain`, or ``"default"``: uniform within
        :math:`n_{in}^{-1/2}`, as `torch.nn.Linear`. Biases are zero, or as the weights by default.

    Examples
    --------
    >>> net = make_replicas([4, 3, 2], seeds=[0, 0, 1])
    >>> [tuple(one.shape) for one in net.weights]
    [(3, 3, 4), (3, 2, 3)]
    >>> bool((net.weights[0][0] == net.weights[0][1]).all())
    True
    """
    where = "make_replicas"
    check_choice(where, "activation", activation, tuple(ACTIVATIONS))
    check_choice(where, "loss", loss, LOSSES)
    check_choice(where, "init", init, INITS)
    if len(sizes) < 2 or not len(seeds):
        found = f"{len(sizes)} sizes and {len(seeds)} seeds"
        raise ValueError(refusal(where, found, "at least input and output, and one seed"))
    layers = list(itertools.pairwise(sizes))
    drawn: dict[int, tuple[list[Tensor], list[Tensor]]] = {}
    for seed in dict.fromkeys(seeds):
        rng = torch.Generator().manual_seed(seed)
        weights = [draw(rng, (n, m), m, n, init) * gain for m, n in layers]
        default = init == "default"
        offsets = [
            draw(rng, (1, n), m, n, init) if default else torch.zeros(1, n) for m, n in layers
        ]
        drawn[seed] = weights, offsets
    stacked = [torch.stack([drawn[seed][0][k] for seed in seeds]) for k in range(len(layers))]
    offset = [torch.stack([drawn[seed][1][k] for seed in seeds]) for k in range(len(layers))]
    return Replicas(stacked, offset if bias else [], activation, loss)


def draw(rng: torch.Generator, shape: tuple[int, int], n_in: int, n_out: int, init: str) -> Tensor:
    """Return random weights of one layer."""
    if init == "xavier_normal":
        scale: float = (2.0 / (n_in + n_out)) ** 0.5
        return torch.randn(shape, generator=rng) * scale
    limit: float = (6.0 / (n_in + n_out)) ** 0.5 if init == "xavier_uniform" else n_in**-0.5
    return (2 * torch.rand(shape, generator=rng) - 1) * limit


@dataclass(frozen=True, kw_only=True)
class Settling:
    r"""Inference by descent, all layers at once, from the feedforward start.

    .. math:: z_l \leftarrow z_l + \eta\left(f'(z_l) \odot W_{l+1}^\top\varepsilon_{l+1}
        \right) - \eta'\varepsilon_l

    With `discount`, a replica's steps shrink by it whenever its energy did not decrease.
    """

    n_steps: int = 64
    step: float = 0.1
    """:math:`\\eta`, for the errors that a layer causes."""
    own: float | None = None
    """:math:`\\eta'`, for its own errors; the same if not given."""
    discount: float = 1.0
    output_weight: float = 1.0
    """Factor of the output's error during inference, not in the change of weights."""

    def __post_init__(self) -> None:
        check_integer("Settling", "n_steps", self.n_steps, low=0)
        check_number("Settling", "step", self.step, low=0.0)
        check_number("Settling", "discount", self.discount, low=0.0, high=1.0)


def settle(
    net: Replicas,
    x: Tensor,
    y: Tensor,
    method: Settling,
    *,
    feedback: Sequence[Tensor] | None = None,
    output_weight: Tensor | None = None,
    watch: Callable[[int, list[Tensor]], None] | None = None,
) -> list[Tensor]:
    """Return the activities of the hidden layers where inference ends.

    Parameters
    ----------
    x, y
        Held input and output, (replica, batch, unit).
    feedback
        What carries errors down in place of the transposed weights: of layers 2 ... L, each
        (replica, n_out, n_in).
    output_weight
        Further factor of the output's error, (replica, 1, 1).
    watch
        Called with the number of steps done and the activities, at the start and after each step.
    """
    back = net.weights[1:] if feedback is None else feedback
    constant = net.layer(0, x)
    z = net.forward(x)[:-1]
    own = method.step if method.own is None else method.own
    factor: Tensor | float = 1.0
    last = torch.full((len(x),), torch.inf, dtype=x.dtype, device=x.device)
    if watch is not None:
        watch(0, z)
    for count in range(1, method.n_steps + 1):
        rates = [ACTIVATIONS[net.activation](one) for one in z]
        errors, output = layer_errors(net, z, rates, constant)
        if method.discount < 1.0:
            energy = net.output_loss(y, output) if output is not None else torch.zeros_like(last)
            energy = sum((0.5 * e.square().sum((1, 2)) for e in errors), energy)
            shrink = torch.where(energy < last, 1.0, method.discount).to(x.dtype)
            factor, last = factor * shrink[:, None, None], energy
        if output is not None:
            final = net.output_error(y, output) * method.output_weight
            errors.append(final if output_weight is None else final * output_weight)
        z = [
            one + factor * (method.step * pulled(net, one, rate, later, matrix) - own * error)
            for one, rate, error, later, matrix in zip(
                z, rates, errors, errors[1:], back, strict=False
            )
        ]
        if watch is not None:
            watch(count, z)
    return z


def layer_errors(
    net: Replicas, z: list[Tensor], rates: list[Tensor], constant: Tensor
) -> tuple[list[Tensor], Tensor | None]:
    """Return the errors of the hidden layers, and the prediction of the output."""
    if not z:
        return [], None
    errors = [z[0] - constant]
    errors += [z[k] - net.layer(k, rates[k - 1]) for k in range(1, len(z))]
    return errors, net.layer(len(z), rates[-1])


def pulled(net: Replicas, z: Tensor, rate: Tensor, error: Tensor, matrix: Tensor) -> Tensor:
    """Return an error carried down through a layer and through the nonlinearity."""
    down = torch.bmm(error, matrix)
    slope = SLOPES[net.activation](z, rate)
    return down if slope is None else down.mul_(slope)


def local_gradients(
    net: Replicas, x: Tensor, y: Tensor, z: list[Tensor], *, output_weight: Tensor | None = None
) -> list[Tensor]:
    r"""Return the slope of F by the parameters, summed over the batch: minus error times rate.

    .. math:: \partial F/\partial W_l = -\sum \varepsilon_l f(z_{l-1})^\top
    """
    rates = [x, *(ACTIVATIONS[net.activation](one) for one in z)]
    predictions = [net.layer(k, rate) for k, rate in enumerate(rates)]
    errors = [one - prediction for one, prediction in zip(z, predictions, strict=False)]
    final = net.output_error(y, predictions[-1])
    errors.append(final if output_weight is None else final * output_weight)
    return products(net, errors, rates)


def products(net: Replicas, errors: list[Tensor], rates: list[Tensor]) -> list[Tensor]:
    """Return minus error times rate for weights, minus error for biases."""
    slopes = [-torch.bmm(e.transpose(1, 2), r) for e, r in zip(errors, rates, strict=True)]
    return slopes + ([-e.sum(1, keepdim=True) for e in errors] if net.biases else [])


def backprop_gradients(
    net: Replicas,
    x: Tensor,
    y: Tensor,
    *,
    feedback: Sequence[Tensor] | None = None,
    output_weight: Tensor | None = None,
) -> list[Tensor]:
    """Return the slope of the loss by the parameters, summed over the batch.

    With `feedback` matrices in place of the weights this is feedback alignment, not a slope.
    """
    back = net.weights[1:] if feedback is None else feedback
    out = net.forward(x)
    rates = [ACTIVATIONS[net.activation](one) for one in out[:-1]]
    final = net.output_error(y, out[-1])
    errors = [final if output_weight is None else final * output_weight]
    for one, rate, matrix in zip(
        reversed(out[:-1]), reversed(rates), reversed(list(back)), strict=True
    ):
        errors.insert(0, pulled(net, one, rate, errors[0], matrix))
    return products(net, errors, [x, *rates])


def norms(net: Replicas, x: Tensor, z: list[Tensor], epsilon: float) -> list[Tensor]:
    """Return the mean squared norm of what enters each layer, (replica, 1, 1), plus epsilon.

    A bias counts as one more input of 1.
    """
    rates = [x, *(ACTIVATIONS[net.activation](one) for one in z)]
    extra = epsilon + (1.0 if net.biases else 0.0)
    return [(r.square().sum(2).mean(1) + extra)[:, None, None] for r in rates]


def descend(net: Replicas, gradients: Sequence[Tensor], rates: Tensor) -> None:
    """Change the parameters in place by minus the learning rate of each replica, (replica,)."""
    for parameter, gradient in zip(net.parameters, gradients, strict=True):
        parameter.sub_(rates[:, None, None] * gradient)


class ReplicaAdam:
    """Adam with a learning rate for each replica."""

    def __init__(self, net: Replicas, rates: Tensor) -> None:
        self.net, self.rates, self.count = net, rates[:, None, None], 0
        self.means = [torch.zeros_like(p) for p in net.parameters]
        self.squares = [torch.zeros_like(p) for p in net.parameters]

    def step(self, gradients: Sequence[Tensor]) -> None:
        """Change the parameters in place."""
        self.count += 1
        correction = (1 - 0.999**self.count) ** 0.5
        stacked = zip(self.net.parameters, gradients, self.means, self.squares, strict=True)
        for parameter, gradient, mean, square in stacked:
            mean.mul_(0.9).add_(gradient, alpha=0.1)
            square.mul_(0.999).addcmul_(gradient, gradient, value=0.001)
            direction = mean / ((square.sqrt() / correction).add_(1e-8))
            parameter.sub_(self.rates / (1 - 0.9**self.count) * direction)
