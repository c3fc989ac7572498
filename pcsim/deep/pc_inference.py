"""One call that settles a predictive-coding network, by whichever method."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from pcsim.deep.pc_clamp import Clamp, Masked, Problem, pose
from pcsim.deep.pc_descent import AdamDescent, GradientDescent, Visit
from pcsim.deep.pc_network import PCNetwork, States
from pcsim.messages import refusal

__all__ = ["AdamDescent", "GradientDescent", "Inference", "Masked", "Settled", "infer"]


class Inference(Protocol):
    """A way to settle: it yields where it passes, its start first and its result last."""

    def visits(self, problem: Problem, *, learning: bool = False) -> Iterator[Visit]:
        """Yield the start and every step; with `learning` weights may change in between."""


@dataclass(frozen=True, eq=False)
class Settled:
    """Where inference ended."""

    states: States
    """Every node, held and idle ones too, (batch, ...)."""
    energy: Tensor
    """(batch,), at these states, nats."""
    trace: tuple[float, ...]
    """Energy of the batch at the start and after every step."""

    @property
    def n_steps(self) -> int:
        """Steps taken."""
        return len(self.trace) - 1


def infer(
    network: PCNetwork,
    clamp: Clamp,
    method: Inference | None = None,
    *,
    initial: Mapping[str, Tensor] | None = None,
) -> Settled:
    """Settle a network: move what is free to where the energy of its example is low.

    Parameters
    ----------
    network
        The network; neither its parameters nor their gradients are touched.
    clamp
        Node -> activity (batch, ...) to hold it at, or `Masked` to hold some units.
    method
        `GradientDescent` with its defaults if not given.
    initial
        Where free nodes start. Otherwise each starts at the prediction of its parents, from the
        inputs on (the feedforward start); free inputs without a prior need an entry.

    Returns
    -------
    Settled

    Raises
    ------
    ValueError, TypeError
        If the clamp, the start or the method do not fit the network.
    RuntimeError
        If the energy is not finite at the end.

    Examples
    --------
    >>> from pcsim.deep.pc_trace import predictive_coding
    >>> network = predictive_coding(torch.nn.Sequential(torch.nn.Linear(4, 2)))
    >>> x, y = torch.ones(3, 4), torch.zeros(3, 2)
    >>> bool((infer(network, {"input": x, "output": y}).energy > 0).all())
    True
    """
    problem = pose(network, clamp, initial)
    return settle(problem, method or GradientDescent())


def settle(problem: Problem, method: Inference) -> Settled:
    """Run a method on a problem that is laid out."""
    trace = []
    states: States = problem.start
    for visit in method.visits(problem):
        trace.append(visit.energy)
        states = visit.states
    return conclude(problem, states, tuple(trace), method)


def conclude(
    problem: Problem, states: States, trace: tuple[float, ...], method: object
) -> Settled:
    """Return the result, or refuse one that has diverged."""
    if not math.isfinite(trace[-1]):
        first = next(i for i, value in enumerate(trace) if not math.isfinite(value))
        kind = type(method).__name__
        raise RuntimeError(
            refusal(
                "infer",
                f"an energy that is not finite after step {first} of {kind}",
                "inference that settles",
                "Lower the step, or use GaussNewton.",
            )
        )
    everything = problem.finish(states)
    with torch.no_grad():
        energy = problem.energy(everything)
    return Settled(everything, energy, trace)
