"""Proximal inference learning (IL-prox): layers move to where they would meet their errors."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from pcsim.deep.grad_mode import recording
from pcsim.deep.pc_clamp import Clamp, seeing, split_clamp
from pcsim.deep.pc_gradients import (
    entering,
    has_rule,
    layers_of,
    local_gradients,
    precision_of,
    trainable,
)
from pcsim.deep.pc_inference import Inference, Settled, infer
from pcsim.deep.pc_learning import apply, check_optimiser
from pcsim.deep.pc_network import PCNetwork
from pcsim.deep.pc_plain import own_parameters
from pcsim.messages import check_number, refusal

__all__ = ["proximal_step"]

Average = Callable[[Tensor], Tensor]


def of_one_process(value: Tensor) -> Tensor:
    """Return the value: the mean over processes, where there is one."""
    return value


@recording()
def proximal_step(
    network: PCNetwork,
    clamp: Clamp,
    method: Inference,
    *,
    rate: float,
    epsilon: float = 0.25,
    optimiser: Optimizer | None = None,
    average: Average = of_one_process,
) -> Settled:
    r"""Settle, then move each layer to where it would meet its error (IL-prox).

    .. math:: \Delta W = \frac{\langle\sum_p\delta_p\, r_p^\top\rangle}{n}, \qquad
        n = \langle\textstyle\sum_p |r_p|^2 + b\rangle + \epsilon

    with :math:`b = 1` where the layer has a bias, and :math:`\delta` the error behind the layer,
    not weighted by its precision: the normalised step of a proximal update. The sums run over the
    positions at which a layer is used: one in a plain network, each patch of a convolution, each
    place of a sequence, and every call of a layer that several nodes share. As :math:`n` is at
    least the largest curvature of half the squared size of what leaves a layer by its weights, the
    step never makes the error behind a layer larger where nothing but functions of slope at most 1
    (tanh, relu) is between it and the prediction. Gains there are not counted: steps are too long
    by the square of one above 1, and too short below, as with the scales of muPC.

    The output's error counts only by a share :math:`s = n\Pi\alpha/(1 + n\Pi\alpha)`, with
    :math:`n` of the last layer behind it at the feedforward start, :math:`\Pi` the precision of the
    output (or the weight of its cross-entropy) and :math:`\alpha` the learning `rate`. Inference
    has :math:`s\Pi` in place of :math:`\Pi`; the step, without precisions, has
    :math:`\delta = s\,(y - p)` from the settled prediction :math:`p`. With one layer, one example
    and :math:`\epsilon = 0` nothing settles, and the step ends at the lowest point of
    :math:`F + |\Delta W|^2 / 2\alpha`, which is :math:`\Delta W = s\,(y - p)\,r^\top / n`: the
    precision is in :math:`s` alone. `pc_comparison.proximal` is the same rule for many networks at
    precision 1. (The paper has precisions of 1; the authors' code renews :math:`n` and the output
    at every step.)

    Only layers with a local rule move (`has_rule`); precisions and other layers stay.

    Parameters
    ----------
    rate
        Learning rate; 2.5 to 100 in the paper.
    epsilon
        Added to the norm.
    optimiser
        If given, it takes the normalised gradients (IL-prox-Adam).
    average
        Mean of a tensor over the processes that share a batch; gradients are the optimiser's to
        average, or the caller's.

    Returns
    -------
    Settled
        What the weights were changed at; its energy is that of `network`.

    References
    ----------
    Alonso et al. (2022), https://arxiv.org/abs/2206.00164; the authors' code.
    """
    if optimiser is not None:
        check_optimiser("proximal_step", optimiser, network)
    check_number("proximal_step", "rate", rate, positive=True)
    check_number("proximal_step", "epsilon", epsilon, low=0.0)
    last, share = network.outputs[0], output_share(network, clamp, rate, epsilon, average)
    softer = network.with_energy(last, network.nodes[last].energy.scaled(share))
    settled = infer(softer, clamp, method)
    with torch.no_grad():
        energy = seeing(network, settled.unseen).energy(settled.states, idle=settled.idle)
    factors = {name: 1.0 / precision_of(node) for name, node in network.nodes.items()}
    factors[last] = share * factors[last]
    gradients = local_gradients(
        network, settled.states, factors=factors, idle=settled.idle, unseen=settled.unseen
    )
    sizes = parameter_norms(presynaptic_norms(network, settled.states), epsilon, average)
    normalised = {
        name: gradients[name] / sizes[id(parameter)]
        for name, parameter in trainable(network).items()
        if id(parameter) in sizes
    }
    apply(network, normalised, optimiser)
    return replace(settled, energy=energy)


def output_share(
    network: PCNetwork, clamp: Clamp, rate: float, epsilon: float, average: Average
) -> Tensor:
    """Return what a proximal step multiplies the output's error by: one number, or one a unit."""
    last, where = network.outputs[0], "proximal_step"
    if len(network.outputs) > 1:
        found = f"outputs {list(network.outputs)}"
        raise ValueError(refusal(where, found, "one output", "Take train_step."))
    held, _ = split_clamp(where, network, clamp)
    if not all(name in held for name in (*network.inputs, last)):
        found = f"a clamp of {sorted(clamp)}"
        raise ValueError(refusal(where, found, "whole inputs and the whole output"))
    with torch.no_grad():
        inputs = {name: held[name] for name in network.inputs}
        guess = network.feedforward(inputs, len(held[last]))
    calls = presynaptic_norms(network, guess)
    behind = [layer for name, layer, _ in calls if name == last]
    if not behind:
        advice = "End the network with one that is not parameterised (mupc), or use train_step."
        found = f"no layer with a local rule in the prediction of {last!r}"
        raise ValueError(refusal(where, found, "a linear layer there", advice))
    norm = parameter_norms(calls, epsilon, average)[id(behind[-1].weight)]
    reach: Tensor = norm * rate * precision_of(network.nodes[last])
    return reach / (1 + reach)


def presynaptic_norms(
    network: PCNetwork, states: Mapping[str, Tensor]
) -> list[tuple[str, nn.Module, Tensor]]:
    """Return every call of a layer with a rule: node, layer, squared norms of what enters it."""
    found: list[tuple[str, nn.Module, Tensor]] = []
    name = ""

    def listen(
        layer: nn.Module, inputs: tuple[Tensor, ...], keywords: dict[str, Tensor], output: Tensor
    ) -> None:
        entered = inputs[0] if inputs else keywords["input"]
        found.append((name, layer, entering(layer, entered, len(states[name]))))

    parts = [part for node in network.nodes.values() for part in layers_of(network, node)]
    ruled = [part for part in dict.fromkeys(parts) if has_rule(part)]
    hooks = [part.register_forward_hook(listen, with_kwargs=True) for part in ruled]
    try:
        with torch.no_grad():
            for name in network.nodes:
                network.predict(name, states)
    finally:
        for hook in hooks:
            hook.remove()
    return found


def parameter_norms(
    calls: list[tuple[str, nn.Module, Tensor]], epsilon: float, average: Average
) -> dict[int, Tensor]:
    """Return what the step of each parameter (by `id`) is divided by: its calls together."""
    sums: dict[int, Tensor] = {}
    for _, layer, size in calls:
        for parameter in own_parameters(layer) or ():
            sums[id(parameter)] = sums.get(id(parameter), 0.0) + size
    # Of groups of channels, which do not meet, the largest bends most.
    return {key: average(size).max() + epsilon for key, size in sums.items()}
