"""Learning in predictive-coding networks: local rules, their variants, and two references."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.grad import conv1d_weight, conv2d_weight, conv3d_weight
from torch.optim import Optimizer

from pcsim.deep.pc_clamp import Clamp, pose
from pcsim.deep.pc_descent import AdamDescent, GradientDescent
from pcsim.deep.pc_inference import Inference, Settled, conclude, infer
from pcsim.deep.pc_network import Node, PCNetwork, States
from pcsim.messages import check_choice, check_number, refusal

__all__ = [
    "backprop_step",
    "energy_gradients",
    "incremental_step",
    "local_gradients",
    "proximal_step",
    "train_step",
]

Gradients = dict[str, Tensor]
RULES = ("energy", "local")


def energy_gradients(network: PCNetwork, states: Mapping[str, Tensor]) -> Gradients:
    """Return the derivative of the energy, averaged over the batch, by every parameter.

    Parameters
    ----------
    states
        Every node, as `infer` returns them; they are taken as given.

    Returns
    -------
    gradients
        Name of a parameter, as in `named_parameters` -> its derivative.
    """
    parameters = trainable(network)
    held = {name: state.detach() for name, state in states.items()}
    with torch.enable_grad():
        energy = network.energy(held).mean()
        found = torch.autograd.grad(energy, list(parameters.values()), allow_unused=True)
    return {
        name: torch.zeros_like(parameter) if gradient is None else gradient
        for (name, parameter), gradient in zip(parameters.items(), found, strict=True)
    }


def local_gradients(network: PCNetwork, states: Mapping[str, Tensor]) -> Gradients:
    r"""Return the same derivatives by local rules: weighted error times presynaptic rate.

    .. math:: \frac{\partial F}{\partial W} = -\left\langle \delta\, r^\top \right\rangle, \qquad
        \delta = \left(\frac{\partial p}{\partial a}\right)^{\!\top} \xi

    Here :math:`r` is what enters a layer, :math:`a` what leaves it and :math:`\xi` the weighted
    error of the node that it predicts: nothing from another node enters. Layers other than linear
    ones and convolutions get the derivative of their own node's prediction, and a learned
    precision :math:`\tfrac12\langle\Pi\varepsilon^2 - 1\rangle` by its logarithm.
    """
    names = {id(parameter): name for name, parameter in trainable(network).items()}
    found: Gradients = {
        name: torch.zeros_like(parameter) for name, parameter in trainable(network).items()
    }
    held = {name: state.detach() for name, state in states.items()}
    for name, node in network.nodes.items():
        for parameter, gradient in node_rules(network, node, held):
            if id(parameter) in names:
                found[names[id(parameter)]] += gradient
        log_precision = getattr(node.energy, "log_precision", None)
        if log_precision is not None and id(log_precision) in names:
            error = held[name] - network.predict(name, held).detach()
            terms = 0.5 * (log_precision.detach().exp() * error.square() - 1) / len(error)
            found[names[id(log_precision)]] += terms.sum_to_size(log_precision.shape)
    return found


def node_rules(network: PCNetwork, node: Node, states: States) -> Iterable[tuple[Tensor, Tensor]]:
    """Yield the parameters of one node's prediction and their derivatives."""
    rates: list[tuple[nn.Module, Tensor, Tensor]] = []

    def listen(layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        rates.append((layer, inputs[0].detach(), output))

    layers = [layer for layer in layers_of(network, node) if has_rule(layer)]
    hooks = [layer.register_forward_hook(listen) for layer in dict.fromkeys(layers)]
    try:
        with torch.enable_grad():
            prediction = network.predict(node.name, states)
    finally:
        for hook in hooks:
            hook.remove()
    if not prediction.requires_grad:
        return
    n = len(states[node.name])
    weighted = node.energy.weighted_error(states[node.name], prediction.detach()) / n
    weighted = weighted.sum_to_size(prediction.shape)
    ruled = {id(p) for layer in layers for p in layer.parameters(recurse=False)}
    others = [p for p in parameters_of(network, node) if p.requires_grad and id(p) not in ruled]
    heard = [output for _, _, output in rates if output.requires_grad]
    pulled = torch.autograd.grad(prediction, [*heard, *others], weighted, allow_unused=True)
    for parameter, gradient in zip(others, pulled[len(heard) :], strict=True):
        if gradient is not None:
            yield parameter, -gradient
    kept = [rate for rate in rates if rate[2].requires_grad]
    for (layer, rate, _), delta in zip(kept, pulled[: len(heard)], strict=True):
        if delta is not None:
            yield from layer_rule(layer, rate, delta)


def has_rule(layer: nn.Module) -> bool:
    """Return whether the layer's rule is written out below."""
    return isinstance(layer, nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d) and (
        getattr(layer, "padding_mode", "zeros") == "zeros"
    )


def layer_rule(layer: nn.Module, rate: Tensor, delta: Tensor) -> Iterable[tuple[Tensor, Tensor]]:
    """Yield weight and bias with minus (postsynaptic signal times presynaptic rate)."""
    if isinstance(layer, nn.Linear):
        yield layer.weight, -delta.flatten(0, -2).T @ rate.flatten(0, -2)
        if layer.bias is not None:
            yield layer.bias, -delta.flatten(0, -2).sum(0)
        return
    convolution = cast(nn.Conv2d, layer)
    by_rank: dict[int, Callable[..., Tensor]] = {
        3: conv1d_weight,
        4: conv2d_weight,
        5: conv3d_weight,
    }
    weight = convolution.weight
    padding = convolution.padding
    if padding == "same" or padding == "valid":
        pad = [
            d * (k - 1) for d, k in zip(convolution.dilation, convolution.kernel_size, strict=True)
        ]
        padding = tuple(p // 2 if convolution.padding == "same" else 0 for p in pad)
    yield (
        weight,
        -by_rank[weight.ndim](
            rate,
            tuple(weight.shape),
            delta,
            stride=convolution.stride,
            padding=padding,
            dilation=convolution.dilation,
            groups=convolution.groups,
        ),
    )
    if convolution.bias is not None:
        yield convolution.bias, -delta.transpose(0, 1).flatten(1).sum(1)


def layers_of(network: PCNetwork, node: Node) -> list[nn.Module]:
    """Return the layers without parts that a node's prediction runs through."""
    if isinstance(node.predict, nn.Module):
        return [m for m in node.predict.modules() if not any(True for _ in m.children())]
    listed: Callable[[], list[nn.Module]] | None = getattr(node.predict, "layers", None)
    parts = listed() if listed is not None else []
    return [m for part in parts for m in part.modules() if not any(True for _ in m.children())]


def parameters_of(network: PCNetwork, node: Node) -> list[Tensor]:
    """Return the parameters that a node's prediction may depend on."""
    if isinstance(node.predict, nn.Module):
        return list(node.predict.parameters())
    return [] if network.body is None else list(network.body.parameters())


def trainable(network: PCNetwork) -> dict[str, Tensor]:
    """Return the parameters that ask for gradients, by name."""
    return {name: p for name, p in network.named_parameters() if p.requires_grad}


def learn(
    network: PCNetwork, states: Mapping[str, Tensor], optimiser: Optimizer, rule: str = "energy"
) -> None:
    """Take one step of the optimiser along the rule's gradients at these activities."""
    check_choice("learn", "rule", rule, RULES)
    gradients = (energy_gradients if rule == "energy" else local_gradients)(network, states)
    parameters = trainable(network)
    for name, gradient in gradients.items():
        cast(nn.Parameter, parameters[name]).grad = gradient
    optimiser.step()


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
        ``"energy"`` (one backward pass) or ``"local"``; they are equal.

    Returns
    -------
    Settled
        What the weights were changed at.
    """
    settled = infer(network, clamp, method, initial=initial)
    learn(network, settled.states, optimiser, rule)
    return settled


def incremental_step(
    network: PCNetwork,
    clamp: Clamp,
    method: GradientDescent | AdamDescent,
    optimiser: Optimizer,
    *,
    initial: Mapping[str, Tensor] | None = None,
) -> Settled:
    """Change the weights at every step of inference (iPC), the last one included.

    References
    ----------
    Salvatori et al. (2024), https://arxiv.org/abs/2212.00720
    """
    problem = pose(network, clamp, initial)
    trace = []
    states = problem.start
    for visit in method.visits(problem, learning=True):
        trace.append(visit.energy)
        if len(trace) > 1:
            learn(network, problem.finish(visit.states), optimiser)
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

    .. math:: \Delta W = \frac{\langle\delta\, r^\top\rangle}{n}, \qquad
        n = \langle |r|^2\rangle + b + \epsilon

    with :math:`b = 1` where the layer has a bias: the normalised step of a proximal update. The
    held output is moved only part of the way from its prediction :math:`p` to the target :math:`y`,
    :math:`p + (y - p)\, n\alpha/(1 + n\alpha)`, with :math:`n` of the last layer at the feedforward
    start and :math:`\alpha` the learning `rate`. (The authors' code renews both at every step.)
    Only linear layers and convolutions move; precisions and other layers stay.

    Parameters
    ----------
    rate
        Learning rate; 2.5 to 100 in the paper.
    epsilon
        Added to the norm.
    optimiser
        If given, it takes the normalised gradients (IL-prox-Adam).

    References
    ----------
    Alonso et al. (2022), https://arxiv.org/abs/2206.00164; the authors' code.
    """
    check_number("proximal_step", "rate", rate, positive=True)
    check_number("proximal_step", "epsilon", epsilon, low=0.0)
    last = network.outputs[0]
    target = clamp.get(last)
    if not isinstance(target, Tensor) or any(name not in clamp for name in network.inputs):
        found = f"a clamp of {sorted(clamp)}"
        raise ValueError(refusal("proximal_step", found, "all inputs and the whole output"))
    inputs = {name: cast(Tensor, clamp[name]) for name in network.inputs}
    with torch.no_grad():
        guess = network.feedforward(inputs)
    norm = presynaptic_norms(network, guess, epsilon)[-1][1]
    share = norm * rate / (1 + norm * rate)
    softer = guess[last] + share * (target - guess[last])
    settled = infer(network, {**clamp, last: softer}, method)
    gradients = local_gradients(network, settled.states)
    names = {id(parameter): name for name, parameter in trainable(network).items()}
    normalised: Gradients = {}
    for layer, size in presynaptic_norms(network, settled.states, epsilon):
        for parameter in layer.parameters(recurse=False):
            if id(parameter) in names:
                name = names[id(parameter)]
                normalised[name] = gradients[name] / size
    apply(trainable(network), normalised, optimiser)
    return settled


def apply(parameters: dict[str, Tensor], gradients: Gradients, optimiser: Optimizer | None) -> None:
    """Take the step of the optimiser, or the whole of minus the gradients."""
    with torch.no_grad():
        for name, gradient in gradients.items():
            cast(nn.Parameter, parameters[name]).grad = gradient
            if optimiser is None:
                parameters[name].sub_(gradient)
    if optimiser is not None:
        optimiser.step()


def presynaptic_norms(
    network: PCNetwork, states: Mapping[str, Tensor], epsilon: float
) -> list[tuple[nn.Module, float]]:
    """Return each layer with a rule, and the mean squared norm of what enters it."""
    found: list[tuple[nn.Module, float]] = []

    def listen(layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        rate = inputs[0]
        bias = getattr(layer, "bias", None) is not None
        found.append((layer, float(rate.square().sum()) / len(rate) + bias + epsilon))

    parts = [part for node in network.nodes.values() for part in layers_of(network, node)]
    hooks = [p.register_forward_hook(listen) for p in dict.fromkeys(parts) if has_rule(p)]
    try:
        with torch.no_grad():
            network.predictions(states)
    finally:
        for hook in hooks:
            hook.remove()
    return found


def backprop_step(
    network: PCNetwork, inputs: Mapping[str, Tensor], target: Tensor, optimiser: Optimizer
) -> Tensor:
    """Take one step of backpropagation on the energy of the output; return it, (batch,).

    The reference: the same network, energies and optimiser, without inference.
    """
    last = network.outputs[0]
    energy = network.nodes[last].energy
    states: States = dict(inputs)
    for name, node in network.nodes.items():
        prediction = network.predict(name, states)
        states[name] = node.energy.mean(prediction)
        if name == last:
            loss = energy(target, prediction)
    optimiser.zero_grad()
    loss.mean().backward()  # type: ignore[no-untyped-call]
    optimiser.step()
    return loss.detach()
