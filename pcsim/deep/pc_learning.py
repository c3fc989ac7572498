"""Learning in predictive-coding networks: settling, incremental steps, and backpropagation."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from types import MappingProxyType

import torch
from torch import Tensor
from torch.optim import LBFGS, Optimizer

from pcsim.deep.grad_mode import ordinary, recording
from pcsim.deep.pc_checks import check_shape, check_target, check_together, check_values
from pcsim.deep.pc_clamp import Clamp, pose, predicted
from pcsim.deep.pc_descent import AdamDescent, GradientDescent
from pcsim.deep.pc_gradients import (
    Gradients,
    chain_gradients,
    energy_gradients,
    local_gradients,
    loop_gradients,
)
from pcsim.deep.pc_inference import (
    Inference,
    Settled,
    conclude,
    conclude_fused,
    diverged,
    settle,
    settle_fused,
    still,
)
from pcsim.deep.pc_network import PCNetwork, States, for_all
from pcsim.messages import check_choice, refusal

__all__ = [
    "backprop_step",
    "energy_gradients",
    "incremental_step",
    "local_gradients",
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
    unseen: Mapping[str, Tensor] = MappingProxyType({}),
) -> None:
    """Take one step of the optimiser along the rule's gradients at these activities."""
    check_choice("learn", "rule", rule, RULES)
    gradients = None if unseen else chain_gradients(network, states)
    if gradients is None:
        slopes = energy_gradients if rule == "energy" else local_gradients
        gradients = slopes(network, states, idle=idle, unseen=unseen)
    apply(network, gradients, optimiser)


@recording()
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
        Any of `torch.optim` over the parameters of the network, but for LBFGS.
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
    check_optimiser("train_step", optimiser, network)
    with still(network):
        problem = pose(network, clamp, initial)
        loop = settle_fused(problem, method)
        if loop is None:
            settled = settle(problem, method, record=False)
        else:
            settled = conclude_fused(problem, loop, method)
    gradients = None if loop is None else loop_gradients(network, loop)
    if gradients is None:
        learn(network, settled.states, optimiser, rule, idle=settled.idle, unseen=settled.unseen)
    else:
        apply(network, gradients, optimiser)
    return settled


@recording()
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
    check_optimiser("incremental_step", optimiser, network)
    problem = pose(network, clamp, initial)
    trace = []
    states = problem.start
    for visit in method.visits(problem, learning=True):
        trace.append(visit.energy)
        if not math.isfinite(visit.energy):
            raise diverged(method, len(trace) - 1)
        if len(trace) > 1:
            ends = problem.finish(visit.states)
            learn(network, ends, optimiser, idle=problem.idle, unseen=problem.unseen)
        states = visit.states
    again = pose(network, clamp, states)
    return conclude(again, states, len(trace) - 1, method, tuple(trace))


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


def check_optimiser(where: str, optimiser: object, network: PCNetwork) -> None:
    """Refuse what takes no step by gradients alone, or none of this network."""
    if not isinstance(optimiser, Optimizer) or isinstance(optimiser, LBFGS):
        found = f"{optimiser!r}" if isinstance(optimiser, type) else type(optimiser).__name__
        advice = "Such as torch.optim.Adam(network.parameters(), 1e-3)."
        expected = "an optimiser of torch.optim that needs no closure"
        raise TypeError(refusal(where, f"the optimiser {found}", expected, advice))
    known = {id(parameter) for parameter in network.parameters()}
    if not any(id(p) in known for group in optimiser.param_groups for p in group["params"]):
        found, expected = "an optimiser of other parameters", "some of the network's"
        advice = "Pass network.parameters(); weights that a plain function reads need `body`."
        raise ValueError(refusal(where, found, expected, advice))


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


@recording()
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
    check_optimiser("backprop_step", optimiser, network)
    check_given("backprop_step", network, inputs, target)
    states: States = {name: ordinary(value.detach()) for name, value in inputs.items()}
    target = ordinary(target.detach())
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
