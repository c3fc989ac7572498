"""Learning in predictive-coding networks: local rules, their variants, and two references."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from pcsim.deep.pc_clamp import (
    Clamp,
    check_shape,
    check_target,
    check_together,
    check_values,
    pose,
    predicted,
    split_clamp,
)
from pcsim.deep.pc_descent import AdamDescent, GradientDescent
from pcsim.deep.pc_gradients import (
    Gradients,
    chain_gradients,
    energy_gradients,
    entering,
    has_rule,
    layers_of,
    local_gradients,
    loop_gradients,
    precision_of,
    trainable,
)
from pcsim.deep.pc_inference import (
    Inference,
    Settled,
    conclude,
    conclude_fused,
    diverged,
    infer,
    settle,
    settle_fused,
)
from pcsim.deep.pc_network import PCNetwork, States, for_all
from pcsim.deep.pc_plain import own_parameters
from pcsim.messages import check_choice, check_number, refusal

__all__ = [
    "backprop_step",
    "energy_gradients",
    "incremental_step",
    "local_gradients",
    "proximal_step",
    "train_step",
]

RULES = ("energy", "local")


def learn(
    network: PCNetwork,
    states: Mapping[str, Tensor],
    optimiser: Optimizer,
    rule: str = "energy",
    *,
    idle: Collection[str] = (),
) -> None:
    """Take one step of the optimiser along the rule's gradients at these activities."""
    check_choice("learn", "rule", rule, RULES)
    gradients = chain_gradients(network, states)
    if gradients is None:
        slopes = energy_gradients if rule == "energy" else local_gradients
        gradients = slopes(network, states, idle=idle)
    apply(network, gradients, optimiser)


def train_step(
    network: PCNetwork,
    clamp: Clamp,
    method: Inference,
    optimiser: Optimizer,
    *,
    initial: Mapping[str, Tensor] | None = None,
    rule: str = "energy",
) -> Settled:
    """Settle, then change the weights (inference learning). With Adam as optimiser: IL-Adam.

    Parameters
    ----------
    optimiser
        Any of `torch.optim` over the parameters of the network.
    initial
        As in `infer`; what an amortizer guesses makes this hybrid (see `pc_hybrid`).
    rule
        ``"energy"`` (one backward pass) or ``"local"``; they are equal, and on chains of linear
        layers both are the local rule, computed without a graph.

    Returns
    -------
    Settled
        What the weights were changed at.
    """
    check_choice("train_step", "rule", rule, RULES)
    problem = pose(network, clamp, initial)
    loop = settle_fused(problem, method)
    if loop is None:
        settled = settle(problem, method, record=False)
    else:
        settled = conclude_fused(problem, loop, method)
    gradients = None if loop is None else loop_gradients(network, loop)
    if gradients is None:
        learn(network, settled.states, optimiser, rule, idle=settled.idle)
    else:
        apply(network, gradients, optimiser)
    return settled


def incremental_step(
    network: PCNetwork,
    clamp: Clamp,
    method: GradientDescent | AdamDescent,
    optimiser: Optimizer,
    *,
    initial: Mapping[str, Tensor] | None = None,
) -> Settled:
    r"""Change the weights at every step of inference (iPC), the last one included.

    .. math:: z_{t+1} = z_t - \gamma\,\partial_z F(z_t, W_t), \qquad
        W_{t+1} = W_t - \alpha\,\partial_W F(z_t, W_t), \qquad t = 0 \dots T

    both from the values before, but :math:`W_1 = W_0`, and :math:`z_T` stays: after T steps the
    weights have changed T times.

    References
    ----------
    Salvatori et al. (2024), https://arxiv.org/abs/2212.00720
    """
    problem = pose(network, clamp, initial)
    trace = []
    states = problem.start
    for visit in method.visits(problem, learning=True):
        trace.append(visit.energy)
        if not math.isfinite(visit.energy):
            raise diverged(method, len(trace) - 1)
        if len(trace) > 1:
            learn(network, problem.finish(visit.states), optimiser, idle=problem.idle)
        states = visit.states
    again = pose(network, clamp, states)
    return conclude(again, states, len(trace) - 1, method, tuple(trace))


def proximal_step(
    network: PCNetwork,
    clamp: Clamp,
    method: Inference,
    *,
    rate: float,
    epsilon: float = 0.25,
    optimiser: Optimizer | None = None,
) -> Settled:
    r"""Settle, then move each layer to where it would meet its error (IL-prox).

    .. math:: \Delta W = \frac{\langle\sum_p\delta_p\, r_p^\top\rangle}{n}, \qquad
        n = \langle\textstyle\sum_p |r_p|^2 + b\rangle + \epsilon

    with :math:`b = 1` where the layer has a bias, and :math:`\delta` the error behind the layer,
    not weighted by its precision: the normalised step of a proximal update. The sums run over the
    positions at which a layer is used: one in a plain network, each patch of a convolution, each
    place of a sequence, and every call of a layer that several nodes share. As :math:`n` is at
    least the largest curvature of half the squared error by the weights, the step never makes the
    error behind a layer larger.

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

    Returns
    -------
    Settled
        What the weights were changed at; its energy is that of `network`.

    References
    ----------
    Alonso et al. (2022), https://arxiv.org/abs/2206.00164; the authors' code.
    """
    check_number("proximal_step", "rate", rate, positive=True)
    check_number("proximal_step", "epsilon", epsilon, low=0.0)
    last, share = network.outputs[0], output_share(network, clamp, rate, epsilon)
    softer = network.with_energy(last, network.nodes[last].energy.scaled(share))
    settled = infer(softer, clamp, method)
    with torch.no_grad():
        energy = network.energy(settled.states, idle=settled.idle)
    factors = {name: 1.0 / precision_of(node) for name, node in network.nodes.items()}
    factors[last] = share * factors[last]
    gradients = local_gradients(network, settled.states, factors=factors)
    sizes = parameter_norms(presynaptic_norms(network, settled.states), epsilon)
    normalised = {
        name: gradients[name] / sizes[id(parameter)]
        for name, parameter in trainable(network).items()
        if id(parameter) in sizes
    }
    apply(network, normalised, optimiser)
    return replace(settled, energy=energy)


def output_share(network: PCNetwork, clamp: Clamp, rate: float, epsilon: float) -> Tensor | float:
    """Return what a proximal step multiplies the output's error by: one number, or one a unit."""
    last = network.outputs[0]
    held, _ = split_clamp("proximal_step", network, clamp)
    if not all(name in held for name in (*network.inputs, last)):
        found = f"a clamp of {sorted(clamp)}"
        raise ValueError(refusal("proximal_step", found, "whole inputs and the whole output"))
    with torch.no_grad():
        inputs = {name: held[name] for name in network.inputs}
        guess = network.feedforward(inputs, len(held[last]))
    calls = presynaptic_norms(network, guess)
    behind = [layer for name, layer, _ in calls if name == last]
    if not behind:
        advice = "End the network with one, or use train_step."
        found = f"no layer with a local rule in the prediction of {last!r}"
        raise ValueError(refusal("proximal_step", found, "a linear layer there", advice))
    norm = parameter_norms(calls, epsilon)[id(behind[-1].weight)]
    reach = norm * rate * precision_of(network.nodes[last])
    return reach / (1 + reach)


def apply(network: PCNetwork, gradients: Gradients, optimiser: Optimizer | None) -> None:
    """Take the step of the optimiser, or the whole of minus the gradients."""
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            # Not what an earlier step left there: the optimiser would take that too.
            parameter.grad = gradients.get(name)
            if optimiser is None and name in gradients:
                parameter.sub_(gradients[name])
    if optimiser is not None:
        optimiser.step()


def presynaptic_norms(
    network: PCNetwork, states: Mapping[str, Tensor]
) -> list[tuple[str, nn.Module, float]]:
    """Return every call of a layer with a rule: node, layer, squared norm of what enters it."""
    found: list[tuple[str, nn.Module, float]] = []
    name = ""

    def listen(layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        found.append((name, layer, entering(layer, inputs[0], len(states[name]))))

    parts = [part for node in network.nodes.values() for part in layers_of(network, node)]
    hooks = [p.register_forward_hook(listen) for p in dict.fromkeys(parts) if has_rule(p)]
    try:
        with torch.no_grad():
            for name in network.nodes:
                network.predict(name, states)
    finally:
        for hook in hooks:
            hook.remove()
    return found


def parameter_norms(calls: list[tuple[str, nn.Module, float]], epsilon: float) -> dict[int, float]:
    """Return what the step of each parameter (by `id`) is divided by: its calls together."""
    sums: dict[int, float] = {}
    for _, layer, size in calls:
        for parameter in own_parameters(layer) or ():
            sums[id(parameter)] = sums.get(id(parameter), 0.0) + size
    return {key: size + epsilon for key, size in sums.items()}


def check_given(
    where: str, network: PCNetwork, inputs: Mapping[str, Tensor], target: Tensor
) -> None:
    """Refuse inputs that are missing or unknown, and tensors that do not go together."""
    missing = [name for name in network.inputs if name not in inputs]
    if missing:
        found = f"no activity of the inputs {missing}"
        raise ValueError(refusal(where, found, "all of them", "Give them by their names."))
    for name, value in inputs.items():
        network.check_name(where, name)
        check_values(where, f"input {name!r}", value)
    if not isinstance(target, Tensor) or target.ndim > 1:  # else its shape is refused, by the loss
        check_values(where, "the target", target)
    last = network.outputs[0]
    check_together(where, network, dict(inputs) | {last: target})
    check_target(where, last, network.nodes[last].energy, target)


def backprop_step(
    network: PCNetwork, inputs: Mapping[str, Tensor], target: Tensor, optimiser: Optimizer
) -> Tensor:
    """Take one step of backpropagation on the energy of the output; return it, (batch,).

    The reference: the same network, energies and optimiser, without inference.

    Raises
    ------
    ValueError, TypeError
        If inputs or target do not fit the network, or every parameter is frozen.
    RuntimeError
        If the loss or its slope is not finite; the weights are then as they were.
    """
    last = network.outputs[0]
    energy = network.nodes[last].energy
    check_given("backprop_step", network, inputs, target)
    states: States = {name: value.detach() for name, value in inputs.items()}
    target = target.detach()
    # A root with a prior is the same for all examples of the inputs beside it; what depends on no
    # input is predicted once, for all examples of the target.
    n_inputs = len(next(iter(inputs.values()))) if inputs else 1
    for name, node in network.nodes.items():
        prediction = predicted("backprop_step", network, name, states)
        states[name] = for_all(node.energy.mean(prediction), n_inputs)
        if name == last:
            expected = prediction if inputs else for_all(prediction, len(target))
            check_shape("backprop_step", last, target, expected)
            loss = energy(target, prediction)
    if not loss.requires_grad:
        found, advice = "no trainable parameter behind the output", "Unfreeze one."
        raise ValueError(refusal("backprop_step", found, "at least one", advice))
    optimiser.zero_grad()
    average = loss.mean()
    slopes = []
    if math.isfinite(float(average.detach())):
        average.backward()
        slopes = [p.grad for p in network.parameters() if p.grad is not None]
    if not slopes or not math.isfinite(sum(float(slope.sum()) for slope in slopes)):
        optimiser.zero_grad()
        found = f"a loss of {float(average.detach()):.3g} or a slope that is not finite"
        advice = "Lower the learning rate, and look for NaN and infinity in the data."
        raise RuntimeError(refusal("backprop_step", found, "finite numbers", advice))
    optimiser.step()
    return loss.detach()
