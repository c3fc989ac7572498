"""Hybrid predictive coding: a second network guesses where inference will end, and learns it.

The amortizer is a network over the same nodes in the other direction, from what is observed. Its
feedforward pass is where inference starts; its targets are the activities where inference ends.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from pcsim.deep.grad_mode import recording
from pcsim.deep.pc_chain import chain_of
from pcsim.deep.pc_checks import check_together, check_values
from pcsim.deep.pc_clamp import Clamp, predicted
from pcsim.deep.pc_gradients import trainable
from pcsim.deep.pc_inference import Inference, Settled, infer
from pcsim.deep.pc_learning import apply, check_optimiser, learn
from pcsim.deep.pc_network import Node, PCNetwork, States, for_all
from pcsim.messages import check_choice, refusal

__all__ = ["amortized_gradients", "guess", "hybrid_step", "reverse_chain"]


def reverse_chain(
    network: PCNetwork,
    activation: nn.Module | None = None,
    *,
    generator: torch.Generator | None = None,
) -> PCNetwork:
    """Return an untrained amortizer for a chain of linear layers: the same sizes, upside down.

    Parameters
    ----------
    network
        A chain that predicts the data from its causes.
    activation
        Between its layers; tanh if not given. The last layer is linear.
    generator
        Draws weights and biases, as torch's linear layers have them: uniform within one over the
        root of what enters. Torch's own seed is left alone; a generator of seed 0 if not given.

    Examples
    --------
    >>> from pcsim.deep.pc_trace import predictive_coding
    >>> net = nn.Sequential(nn.Linear(2, 5), nn.Tanh(), nn.Linear(5, 8))
    >>> reverse_chain(predictive_coding(net)).names
    ('output', '_1', 'input')
    """
    chain = chain_of(network)
    if chain is None or chain.flattens:
        advice = "Describe the amortizer as a PCNetwork over the same names."
        found = "a network that is no chain of linear layers between rows"
        raise ValueError(refusal("reverse_chain", found, "a chain", advice))
    names, sizes = chain.names[::-1], chain.sizes[::-1]
    reference = chain.links[0].layer.weight
    draw = generator or torch.Generator().manual_seed(0)
    nodes = []
    for below, above, n_in, n_out in zip(names, names[1:], sizes, sizes[1:], strict=False):
        # Made without numbers, so that torch's own generator is not drawn from.
        layer = nn.utils.skip_init(nn.Linear, n_in, n_out, dtype=reference.dtype)
        with torch.no_grad():
            for parameter in layer.parameters():
                parameter.uniform_(-(n_in**-0.5), n_in**-0.5, generator=draw)
        layer = layer.to(reference.device)
        inner = nn.Sequential(layer, activation or nn.Tanh())
        nodes.append(Node(above, (below,), layer if above == names[-1] else inner))
    return PCNetwork([names[0]], nodes)


def guess(amortizer: PCNetwork, clamp: Clamp) -> States:
    """Return what the amortizer expects of every node that the clamp does not hold as a whole.

    Its inputs must be held as a whole. This alone is amortized inference.
    """
    inputs: States = {}
    for name in amortizer.inputs:
        value = clamp.get(name)
        if not isinstance(value, Tensor):
            found = f"no whole clamp of {name!r}"
            raise ValueError(refusal("guess", found, "the amortizer's inputs held", "Clamp it."))
        check_values("guess", f"clamp {name!r}", value)
        inputs[name] = value
    check_together("guess", amortizer, inputs)
    n = len(next(iter(inputs.values())))
    with torch.no_grad():
        states = dict(inputs)
        for name in amortizer.nodes:
            mean = amortizer.nodes[name].energy.mean(predicted("guess", amortizer, name, states))
            states[name] = for_all(mean, n)
    return {name: v for name, v in states.items() if not isinstance(clamp.get(name), Tensor)}


@recording()
def amortized_gradients(
    amortizer: PCNetwork, states: Mapping[str, Tensor], presynaptic: str = "guess"
) -> States:
    """Return derivatives of the amortizer's errors about settled activities.

    Parameters
    ----------
    states
        Where inference ended: the targets.
    presynaptic
        What enters each layer: the amortizer's own ``"guess"`` (Tschantz et al. 2023) or what was
        ``"settled"``. Either way a layer learns from its own error only.

    Returns
    -------
    gradients
        Name of a parameter -> derivative, averaged over the batch.
    """
    check_choice("amortized_gradients", "presynaptic", presynaptic, ("guess", "settled"))
    held = {name: states[name].detach() for name in amortizer.names}
    entering = held
    if presynaptic == "guess":
        with torch.no_grad():
            entering = amortizer.feedforward({name: held[name] for name in amortizer.inputs})
    parameters = trainable(amortizer)
    terms = [
        node.energy(held[name], amortizer.predict(name, entering)).mean()
        for name, node in amortizer.nodes.items()
    ]
    total = torch.stack(terms).sum()
    found = torch.autograd.grad(total, list(parameters.values()), allow_unused=True)
    return {
        name: torch.zeros_like(parameter) if gradient is None else gradient
        for (name, parameter), gradient in zip(parameters.items(), found, strict=True)
    }


@recording()
def hybrid_step(
    network: PCNetwork,
    amortizer: PCNetwork,
    clamp: Clamp,
    method: Inference,
    *,
    optimisers: tuple[Optimizer, Optimizer],
    presynaptic: str = "guess",
    record: bool = False,
) -> Settled:
    """Start at the guess, settle, and teach both networks what was settled on.

    Parameters
    ----------
    network, amortizer
        The generative network, and a network over the same nodes from the data.
    optimisers
        Of the network and of the amortizer.
    presynaptic
        As in `amortized_gradients`.
    record
        As in `infer`.

    References
    ----------
    Tschantz, Millidge, Seth, Buckley (2023), https://doi.org/10.1371/journal.pcbi.1011280
    """
    for one, optimiser in zip((network, amortizer), optimisers, strict=True):
        check_optimiser("hybrid_step", optimiser, one)
    if optimisers[0] is optimisers[1]:
        advice = "Make one for each: it would take both steps twice."
        raise ValueError(refusal("hybrid_step", "one optimiser twice", "two optimisers", advice))
    begin = guess(amortizer, clamp)
    settled = infer(network, clamp, method, initial=begin, record=record)
    gradients = amortized_gradients(amortizer, settled.states, presynaptic)
    learn(network, settled.states, optimisers[0], idle=settled.idle, unseen=settled.unseen)
    apply(amortizer, gradients, optimisers[1])
    return settled
