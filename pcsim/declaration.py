"""Populations and projections: what a circuit is made of, and the checks that it is lawful."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse

from pcsim.kinds.kind import Array, Kind
from pcsim.messages import check_array, check_integer, check_number, refusal, unknown_name
from pcsim.responses import POPULATIONS
from pcsim.weights import is_operator

__all__ = ["STIMULUS", "Hebbian", "Population", "Projection", "check_parts", "direct_order"]

STIMULUS = "stimulus"
"""Source name of the prepared stimulus: one number a feature, held for every frame."""


@dataclass(frozen=True)
class Population:
    """A group of like units.

    Parameters
    ----------
    name
        Unique in the circuit; projections and ``record=`` use it.
    kind
        The equation, one of `pcsim.kinds`.
    size
        Number of units.
    level
        0 is the sense organ, larger is deeper.
    population
        Role of the units in the responses: "latent", "error", "weighted_error", "prediction" ...
    area, layer
        Where it lies, for instance "V1" and "L2/3"; "" if nowhere in particular.
    x, y, channel : (size,), optional
        Position in the visual field, degrees, and channel of each unit.
    noise
        White noise on the state: the standard deviation it gives a unit that leaks with its own
        time constant. Drawn anew for every trial from the seed of the run.
    """

    name: str
    kind: Kind
    size: int
    level: int
    population: str
    area: str = ""
    layer: str = ""
    x: Array | None = None
    y: Array | None = None
    channel: Array | None = None
    noise: float = 0.0


@dataclass(frozen=True)
class Hebbian:
    r"""Local plasticity of a projection: weighted error times presynaptic output.

    .. math:: \dot W = \eta\, \langle \xi\, r^\top \rangle - \lambda W

    with :math:`r` the output of the source (after its gate) and the mean taken over the trials.

    Parameters
    ----------
    rate
        :math:`\eta`, per second.
    decay
        :math:`\lambda`, per second.
    error
        Name of the population that carries :math:`\xi`; the target itself if None. If it is another
        one and the target has a slope (a `Prediction`), :math:`\xi` is multiplied by that slope.

    References
    ----------
    Bogacz (2017), https://doi.org/10.1016/j.jmp.2015.11.003
    """

    rate: float
    decay: float = 0.0
    error: str | None = None


@dataclass(frozen=True)
class Projection:
    """Connections from one population, or from the stimulus, to a port of another.

    Parameters
    ----------
    source, target
        Names of populations; the source may be "stimulus".
    weights : (n_target, n_source), (replica, n_target, n_source) or None
        None connects unit i to unit i with strength 1. A scipy sparse array is kept sparse, and of
        `pcsim.weights.Local` weights no matrix is made.
    port
        Input of the target's kind; may be left out if the kind has only one.
    sign
        Factor on the weights, usually 1 or -1.
    delay
        Seconds, rounded to the time step of the run.
    gate
        Name of a population as large as the source. Its slope (the derivative of its nonlinearity
        where it stands) multiplies the source unit by unit, before delay and weights.
    plastic
        Local learning rule, used by `pcsim.circuit.simulate_plastic`.
    reads
        "output", what the source sends, or "rate", the activity that is recorded. They differ in
        latent units with an inner nonlinearity: output h(mu), rate mu.
    """

    source: str
    target: str
    weights: Array = None
    port: str = ""
    sign: float = 1.0
    delay: float = 0.0
    gate: str | None = None
    plastic: Hebbian | None = None
    reads: str = "output"


def port_of(projection: Projection, kind: Kind) -> str:
    """Return the port that a checked projection enters."""
    return projection.port or kind.ports[0]


def check_parts(
    where: str,
    populations: Sequence[Population],
    projections: Sequence[Projection],
    *,
    dt: float,
) -> None:
    """Refuse populations and projections that do not make a circuit.

    Raises
    ------
    TypeError, ValueError
        Saying which population or projection, what was found, and what to do.
    """
    if not populations:
        raise ValueError(refusal(where, "no populations", "at least one"))
    by_name: dict[str, Population] = {}
    for population in populations:
        if population.name in by_name or population.name == STIMULUS:
            found = f"two sources named {population.name!r}"
            raise ValueError(refusal(where, found, "unique names", "Rename one of them."))
        _check_population(where, population)
        by_name[population.name] = population
    for projection in projections:
        _check_projection(where, projection, by_name, dt)
    direct_order(where, populations, projections, dt=dt)


def _check_population(where: str, population: Population) -> None:
    if not isinstance(population.name, str) or not population.name:
        raise TypeError(refusal(where, f"name {population.name!r}", "text", "Name the population."))
    here = f"{where}, population {population.name!r}"
    size = check_integer(here, "size", population.size, low=1)
    check_integer(here, "level", population.level)
    roles = [role + end for role in POPULATIONS for end in ("", "_pos", "_neg")]
    if population.population not in roles:
        raise unknown_name(here, "role", population.population, roles)
    for name in ("x", "y", "channel"):
        if getattr(population, name) is not None:
            check_array(here, name, getattr(population, name), shape=(size,))
    # Attributes of the class: those of an instance may be computed from parameters not yet checked.
    absent = [
        name for name in ("ports", "states", "drift") if not hasattr(type(population.kind), name)
    ]
    if absent:
        found = f"a kind of type {type(population.kind).__name__}"
        raise TypeError(refusal(here, found, "one of pcsim.kinds", "For instance Leaky(tau=0.02)."))
    population.kind.check(here, size)
    noise = check_number(here, "noise", population.noise, low=0.0)
    if noise and "value" not in population.kind.states:
        found = f"noise {noise:g} on units without a time constant"
        raise ValueError(refusal(here, found, "noise 0", "Give the kind a tau."))


def _check_projection(
    where: str, projection: Projection, by_name: dict[str, Population], dt: float
) -> None:
    if projection.target not in by_name:
        raise unknown_name(where, "target", projection.target, by_name)
    if projection.source not in (*by_name, STIMULUS):
        raise unknown_name(where, "source", projection.source, (*by_name, STIMULUS))
    here = f"{where}, projection {projection.source!r} to {projection.target!r}"
    ports = by_name[projection.target].kind.ports
    if projection.port not in ports and (projection.port or len(ports) > 1):
        raise unknown_name(here, "port", projection.port, ports)
    if projection.reads not in ("output", "rate"):
        raise unknown_name(here, "reads", projection.reads, ("output", "rate"))
    check_number(here, "sign", projection.sign)
    delay = check_number(here, "delay", projection.delay, low=0.0)
    if 0.0 < delay < 0.5 * dt:
        found = f"a delay of {delay:g} s at a time step of {dt:g} s"
        raise ValueError(refusal(here, found, "0 or at least half a step", "Lower dt."))
    _check_weights(here, projection, by_name)
    _check_gate(here, projection, by_name)


def _check_weights(here: str, projection: Projection, by_name: dict[str, Population]) -> None:
    n_target = by_name[projection.target].size
    source = by_name.get(projection.source)
    n_source: Any = "n_stimulus" if source is None else source.size
    weights = projection.weights
    if weights is None:
        if source is not None and source.size != n_target:
            found = f"no weights between {source.size} and {n_target} units"
            advice = f"Give weights of shape ({n_target}, {source.size})."
            raise ValueError(refusal(here, found, "weights, or equal sizes", advice))
    elif is_operator(weights):
        if scipy.sparse.issparse(weights):
            check_array(here, "weights", weights.data)
        if weights.shape[-2] != n_target or (source is not None and weights.shape[-1] != n_source):
            found, expected = f"weights of shape {weights.shape}", f"({n_target}, {n_source})"
            raise ValueError(refusal(here, found, expected, "Weights are (n_target, n_source)."))
    else:
        shape = (n_target, n_source) if _n_axes(weights) < 3 else (None, n_target, n_source)
        check_array(here, "weights (n_target, n_source)", weights, shape=shape)
    _check_plastic(here, projection, by_name)


def _n_axes(weights: Any) -> int:
    try:
        return np.ndim(weights)
    except ValueError:
        # Ragged rows: `check_array` says so.
        return 2


def _check_plastic(here: str, projection: Projection, by_name: dict[str, Population]) -> None:
    rule = projection.plastic
    if rule is None:
        return
    check_number(here, "rate of plasticity", rule.rate)
    check_number(here, "decay of plasticity", rule.decay, low=0.0)
    weights = projection.weights
    if weights is None or is_operator(weights) or projection.sign == 0:
        found = "plasticity without a dense matrix of weights that reach the target"
        raise ValueError(refusal(here, found, "weights (n_target, n_source) and a sign, not 0"))
    if rule.error is not None:
        if rule.error not in by_name:
            raise unknown_name(here, "error population", rule.error, by_name)
        sizes = by_name[rule.error].size, by_name[projection.target].size
        if sizes[0] != sizes[1]:
            found = f"{sizes[0]} error units for {sizes[1]} target units"
            raise ValueError(refusal(here, found, "one error unit a target unit"))


def _check_gate(here: str, projection: Projection, by_name: dict[str, Population]) -> None:
    if projection.gate is None:
        return
    if projection.gate not in by_name:
        raise unknown_name(here, "gate", projection.gate, by_name)
    if projection.source == STIMULUS:
        advice = "Relay the stimulus through a population, and gate that."
        raise ValueError(refusal(here, "a gate on the stimulus", "no gate", advice))
    gate, source = by_name[projection.gate], by_name[projection.source]
    if not gate.kind.has_slope:
        sloped = [name for name, p in by_name.items() if p.kind.has_slope]
        found = f"gate {projection.gate!r} of kind {type(gate.kind).__name__}, which has no slope"
        raise ValueError(refusal(here, found, f"a gate among {sloped}"))
    if gate.size != source.size:
        found = f"a gate of {gate.size} units on a source of {source.size}"
        raise ValueError(refusal(here, found, "one gate unit a source unit"))


def direct_order(
    where: str, populations: Sequence[Population], projections: Sequence[Projection], *, dt: float
) -> list[str]:
    """Return the populations that follow their inputs at once, each after those it depends on.

    Raises
    ------
    ValueError
        If they depend on each other in a circle, so that no order exists.
    """
    direct = [p.name for p in populations if p.kind.direct]
    needs: dict[str, set[str]] = {name: set() for name in direct}
    for projection in projections:
        if projection.target in needs and projection.delay < 0.5 * dt:
            sources = {projection.source, projection.gate} & needs.keys()
            needs[projection.target] |= {str(source) for source in sources}
    order: list[str] = []
    while needs:
        ready = [name for name, sources in needs.items() if not sources & needs.keys()]
        if not ready:
            found = f"populations {sorted(needs)} that follow each other at once"
            advice = "Give one of them a time constant, or one projection a delay."
            raise ValueError(refusal(where, found, "no circle without time", advice))
        order += ready
        needs = {name: sources for name, sources in needs.items() if name not in ready}
    return order
