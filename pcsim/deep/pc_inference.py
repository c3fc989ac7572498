"""One call that settles a predictive-coding network, by whichever method."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Protocol, cast

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import _SpectralNorm
from torch.nn.utils.spectral_norm import SpectralNorm

from pcsim.deep.grad_mode import outside_inference_mode
from pcsim.deep.pc_chain import Chain, chain_of, is_supervised
from pcsim.deep.pc_clamp import Clamp, Masked, Problem, pose
from pcsim.deep.pc_descent import AdamDescent, GradientDescent, Visit, steps_of
from pcsim.deep.pc_energy import summed
from pcsim.deep.pc_errors import ErrorOptimisation
from pcsim.deep.pc_fused import FusedLoop
from pcsim.deep.pc_network import PCNetwork, States
from pcsim.messages import check_object, refusal

__all__ = [
    "AdamDescent",
    "ErrorOptimisation",
    "GradientDescent",
    "Inference",
    "Masked",
    "Settled",
    "infer",
]


WORST = 1000.0
"""Inference has diverged once the energy is more than this many times that of the start, or than
this many nats a number of the states if those are more."""


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
    n_steps: int
    """Steps taken."""
    trace: tuple[float, ...] = ()
    """Energy of the batch at the start and after every step, if recorded."""
    idle: tuple[str, ...] = ()
    """Nodes below which nothing was held: they rest on their prediction."""
    unseen: Mapping[str, Tensor] = field(default_factory=dict)
    """Node -> units that rest so too: in an output held in part the others, and hidden units in the
    examples below which nothing was held."""


def infer(
    network: PCNetwork,
    clamp: Clamp,
    method: Inference | None = None,
    *,
    initial: Mapping[str, Tensor] | None = None,
    record: bool = False,
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
    record
        Whether to keep the energy of every step. Without it, plain steps on a chain of linear
        layers run in place, several times as fast.

    Returns
    -------
    Settled

    Raises
    ------
    ValueError, TypeError
        If the clamp, the start or the method do not fit the network.
    RuntimeError
        If the energy at the end is not finite, or above `WORST` times that of the start.

    Examples
    --------
    >>> from pcsim.deep.pc_trace import predictive_coding
    >>> network = predictive_coding(torch.nn.Sequential(torch.nn.Linear(4, 2)))
    >>> x, y = torch.ones(3, 4), torch.zeros(3, 2)
    >>> bool((infer(network, {"input": x, "output": y}).energy > 0).all())
    True
    """
    method = GradientDescent() if method is None else method
    check_method("infer", method)
    with outside_inference_mode(), still(network):
        problem = pose(network, clamp, initial)
        loop = None if record else settle_fused(problem, method)
        if loop is None:
            return settle(problem, method, record=record)
        return conclude_fused(problem, loop, method)


def check_method(where: str, method: object) -> None:
    """Refuse what does not infer."""
    check_object(where, "method", method, "visits", "inference, such as GradientDescent()")


def settle(problem: Problem, method: Inference, *, record: bool) -> Settled:
    """Run a method on a problem that is laid out."""
    trace = []
    states: States = problem.start
    energy: Tensor | None = None
    for visit in method.visits(problem):
        trace.append(visit.energy)
        states, energy = visit.states, visit.energies
        if not math.isfinite(visit.energy):
            raise diverged(method, len(trace) - 1)
    kept = tuple(trace) if record else ()
    return conclude(problem, states, len(trace) - 1, method, kept, energy=energy)


@contextlib.contextmanager
def still(network: PCNetwork) -> Iterator[None]:
    """Hold layers with a spectral norm as they are: in training each prediction would change it."""
    moving = [part for part in network.modules() if part.training and iterates(part)]
    try:
        for part in moving:
            part.training = False
        yield
    finally:
        for part in moving:
            part.training = True


def iterates(part: nn.Module) -> bool:
    """Return whether a module estimates a spectral norm anew whenever it is used in training."""
    hooks = part._forward_pre_hooks.values()
    return isinstance(part, _SpectralNorm) or any(isinstance(h, SpectralNorm) for h in hooks)


def settle_fused(problem: Problem, method: Inference) -> FusedLoop | None:
    """Return where plain steps on a chain end, errors with it, or None if these are not that."""
    if not isinstance(method, GradientDescent | ErrorOptimisation) or not method.is_plain:
        return None
    chain = chain_of(problem.network)
    if chain is None or not is_supervised(problem, chain):
        return None
    loop = FusedLoop(chain, chain.rows(problem.start[chain.names[0]]))
    steps = list(steps_of(type(method).__name__, method.step, problem.free).values())
    with torch.no_grad():
        loop.start(problem)
        take_steps(loop, method, steps)
        loop.refresh()
    return loop


def conclude_fused(problem: Problem, loop: FusedLoop, method: Inference) -> Settled:
    """Return where a loop has settled."""
    with torch.no_grad():
        errors = [state - out for state, out in zip(loop.states, loop.predicted, strict=True)]
        energy = loop.energy(errors)
    states = loop.by_name(problem.start[loop.chain.names[0]])
    n_steps = cast(GradientDescent, method).n_steps
    return conclude(problem, states, n_steps, method, energy=energy)


def take_steps(
    loop: FusedLoop, method: GradientDescent | ErrorOptimisation, steps: list[float]
) -> None:
    """Take the plain steps of a method; `steps` has one number for each hidden node."""
    if isinstance(method, GradientDescent):
        loop.descend(method.n_steps, steps, method.momentum)
    else:
        loop.optimise_errors(method.n_steps, steps)


def conclude(
    problem: Problem,
    states: States,
    n_steps: int,
    method: object,
    trace: tuple[float, ...] = (),
    *,
    energy: Tensor | None = None,
) -> Settled:
    """Return the result, or refuse one that has diverged."""
    everything = problem.finish(states)
    if energy is None:
        with torch.no_grad():
            energy = problem.energy(everything)
    check_settled(problem, float(summed(energy)), n_steps, method, trace)
    return Settled(everything, energy, n_steps, trace, problem.idle, problem.unseen)


def check_settled(
    problem: Problem, total: float, n_steps: int, method: object, trace: tuple[float, ...]
) -> None:
    """Refuse an energy, of the batch, not finite or out of all proportion to that of the start."""
    if not math.isfinite(total):
        raise diverged(method, n_steps)
    ordinary = float(sum(state.numel() for state in problem.start.values()))
    if total <= WORST * ordinary:
        return
    with torch.no_grad():
        first = trace[0] if trace else float(summed(problem.energy(problem.start)))
    if total > WORST * max(abs(first), ordinary):
        raise diverged(method, n_steps, f"an energy of {total:.3g}, {first:.3g} before,")


def misfit(loop: FusedLoop) -> float:
    """Return half the squared fresh errors of a batch, weighted by their precisions.

    Of squared errors it is the energy less the logarithms of the precisions.
    """
    weighted = zip(loop.errors[1:], loop.chain.precisions, strict=True)
    parts = [torch.dot(e.flatten(), e.flatten()) / precision for e, precision in weighted]
    return 0.5 * float(torch.stack(parts).sum())


def largest_misfit(chain: Chain, x: Tensor, y: Tensor) -> float:
    """Return the largest misfit of a batch that has not diverged, as `check_settled` means it.

    Not below `WORST` times the number of states, but minus infinity if the start is not finite.
    """
    loop = FusedLoop(chain, x)
    with torch.no_grad():
        loop.begin(x, y)
        loop.correct_all()
    first = misfit(loop)
    if not math.isfinite(first):
        return -math.inf
    return WORST * max(first, float(len(x) * sum(chain.sizes)))


def diverged(
    method: object, count: int, what: str = "an energy that is not finite"
) -> RuntimeError:
    """Return the error for activities that have run off by this step."""
    name, step = type(method).__name__, getattr(method, "step", None)
    size = "" if step is None else f", steps of size {step}"
    found = f"{what} at step {count} of {name}{size}"
    advice = "Lower the step, or use GaussNewton or ErrorOptimisation(step='auto')."
    if step in (None, "auto"):
        advice = "Look for weights that have run off (lower the learning rate) and for large data."
    return RuntimeError(refusal("infer", found, "inference that settles", advice))
