"""Ways to learn from one batch, as plain values that a training run can keep (`pc_training`)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol, cast

from torch import Tensor, nn
from torch.optim import Optimizer

from pcsim.deep.pc_clamp import Clamp
from pcsim.deep.pc_descent import AdamDescent, GradientDescent
from pcsim.deep.pc_errors import ErrorOptimisation
from pcsim.deep.pc_hybrid import hybrid_step
from pcsim.deep.pc_inference import Inference, check_method
from pcsim.deep.pc_learning import backprop_step, incremental_step, train_step
from pcsim.deep.pc_network import PCNetwork
from pcsim.deep.pc_proximal import Average, of_one_process, proximal_step
from pcsim.messages import check_choice, check_number, refusal

__all__ = [
    "Backpropagation",
    "Hybrid",
    "Incremental",
    "InferenceLearning",
    "Learners",
    "Proximal",
    "Rule",
]


class Learners(nn.Module):
    """What learns: a network, and an amortizer that guesses where it will settle, if there is one.

    Parameters
    ----------
    network, amortizer
        Over the same nodes.
    optimisers
        Of the network and, with an amortizer, of it.
    average
        Mean over the processes that share a batch.
    """

    def __init__(
        self,
        network: PCNetwork,
        amortizer: PCNetwork | None = None,
        optimisers: tuple[Optimizer, ...] = (),
        average: Average = of_one_process,
    ) -> None:
        super().__init__()
        self.network, self.amortizer = network, amortizer
        self.optimisers, self.average = optimisers, average


class Rule(Protocol):
    """A way to learn from one batch."""

    @property
    def method(self) -> Inference | None:
        """How it infers, or None if it does not."""

    def learn(self, learners: Learners, clamp: Clamp) -> Tensor:
        """Change the weights once or more; return the energy of each example before, (batch,)."""


def automatic() -> Inference:
    """Return inference that needs no step to be chosen."""
    return ErrorOptimisation(n_steps=4, step="auto")


@dataclass(frozen=True, kw_only=True)
class InferenceLearning:
    """Settle, then change the weights (`train_step`)."""

    method: Inference = field(default_factory=automatic)

    def __post_init__(self) -> None:
        check_method("InferenceLearning", self.method)

    def learn(self, learners: Learners, clamp: Clamp) -> Tensor:
        """Return the energy where the network settled."""
        return train_step(learners.network, clamp, self.method, learners.optimisers[0]).energy


@dataclass(frozen=True, kw_only=True)
class Incremental:
    """Change the weights at every step of inference (`incremental_step`)."""

    method: GradientDescent | AdamDescent = field(default_factory=GradientDescent)

    def __post_init__(self) -> None:
        check_method("Incremental", self.method)

    def learn(self, learners: Learners, clamp: Clamp) -> Tensor:
        """Return the energy at the end, with the weights as they are then."""
        network, optimiser = learners.network, learners.optimisers[0]
        return incremental_step(network, clamp, self.method, optimiser).energy


@dataclass(frozen=True, kw_only=True)
class Proximal:
    """Settle, then move each layer to where it would meet its error (`proximal_step`).

    The optimiser takes the normalised steps: "sgd" at a learning rate of 1 takes them whole.
    """

    method: Inference = field(default_factory=automatic)
    rate: float = 2.5
    epsilon: float = 0.25

    def __post_init__(self) -> None:
        check_method("Proximal", self.method)
        check_number("Proximal", "rate", self.rate, positive=True)
        check_number("Proximal", "epsilon", self.epsilon, low=0.0)

    def learn(self, learners: Learners, clamp: Clamp) -> Tensor:
        """Return the energy where the network settled with the weaker error of its output."""
        return proximal_step(
            learners.network, clamp, self.method, rate=self.rate, epsilon=self.epsilon,
            optimiser=learners.optimisers[0], average=learners.average,
        ).energy  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Hybrid:
    """Start where an amortizer guesses, settle, and teach both what was settled on."""

    method: Inference = field(default_factory=GradientDescent)
    presynaptic: str = "guess"

    def __post_init__(self) -> None:
        check_method("Hybrid", self.method)
        check_choice("Hybrid", "presynaptic", self.presynaptic, ("guess", "settled"))

    def learn(self, learners: Learners, clamp: Clamp) -> Tensor:
        """Return the energy where the network settled."""
        if learners.amortizer is None:
            found, advice = "no amortizer", "Give one, such as reverse_chain(network)."
            raise ValueError(refusal("Hybrid", found, "a network that guesses", advice))
        own, other = learners.optimisers
        settled = hybrid_step(
            learners.network, learners.amortizer, clamp, self.method, optimisers=(own, other),
            presynaptic=self.presynaptic,
        )  # fmt: skip
        return settled.energy


@dataclass(frozen=True)
class Backpropagation:
    """No inference: the energy of the output and its slope (`backprop_step`), the reference."""

    method: None = None

    def learn(self, learners: Learners, clamp: Clamp) -> Tensor:
        """Return the energy of the output."""
        network = learners.network
        whole = all(
            isinstance(clamp.get(name), Tensor) for name in (*network.inputs, network.outputs[0])
        )
        if not whole or len(clamp) > len(network.inputs) + 1:
            found = f"a clamp of {sorted(clamp)}"
            expected = f"{sorted((*network.inputs, network.outputs[0]))}, whole"
            raise ValueError(refusal("Backpropagation", found, expected))
        inputs = {name: cast(Tensor, clamp[name]) for name in network.inputs}
        target = cast(Tensor, clamp[network.outputs[0]])
        return backprop_step(network, inputs, target, learners.optimisers[0])
