r"""Errors whose precision arrives at a port, and units that carry a log precision themselves.

Precision that is learned, set by a latent state or moved by neuromodulation is a signal like any
other: what reaches the port `log_precision` of channel i is summed, and

.. math:: \Pi_i = \exp(\lambda_i), \qquad \lambda_i = \lambda_i^0 + \text{log\_precision}_i.

With :math:`F = \tfrac12 \sum_i (\Pi_i \varepsilon_i^2 - \lambda_i) + \ldots` the slope that a state
:math:`\gamma` with :math:`\lambda = \lambda^0 + A\gamma` descends is

.. math:: -\frac{\partial F}{\partial\gamma} = A^\top \tfrac12 (1 - \Pi \odot \varepsilon^2),

zero where :math:`1/\Pi` is the mean square of the errors that a unit of :math:`\gamma` pools.

Feldman & Friston (2010), https://doi.org/10.3389/fnhum.2010.00215
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from pcsim.kinds.kind import Array, Arrays, BrianEquations, check_parameter, check_tau

__all__ = ["LogPrecision", "PreciseError", "PrecisionGradient"]

MOST = 30.0
"""Largest magnitude of a log precision: beyond it exp() is a number that no noise has."""
PORTS = ("observed", "predicted", "log_precision")


def gain_of(log_precision: Array, inputs: Arrays, xp: Any) -> Array:
    """Return the precision, exp of the base and of what arrives, kept within e^-30 and e^30."""
    return xp.exp(xp.clip(inputs["log_precision"] + log_precision, -MOST, MOST))


def brian_gain() -> str:
    """Return the same as a Brian 2 expression."""
    return f"exp(clip(base + log_precision, -{MOST!r}, {MOST!r}))"


@dataclass(frozen=True)
class PreciseError:
    r"""Error units with a gain that other populations set.

    .. math:: \tau\dot\xi = \Pi \odot (\text{observed} - \text{predicted}) - \xi

    At rest, or without a time constant at once, :math:`\xi = \Pi \odot \varepsilon`, the weighted
    error: attention multiplies the errors of a place or feature.

    Parameters
    ----------
    tau
        Time constant, seconds, one number or one a unit; None follows the inputs at once.
    log_precision
        :math:`\lambda^0`, a number or one a unit.

    References
    ----------
    Feldman & Friston (2010), https://doi.org/10.3389/fnhum.2010.00215

    Examples
    --------
    >>> inputs = {"observed": np.array([3.0]), "predicted": np.array([1.0]),
    ...           "log_precision": np.log([2.0])}
    >>> PreciseError(log_precision=np.log(0.7)).output({}, inputs, np).round(6)
    array([2.8])
    """

    tau: Array = None
    log_precision: Array = 0.0

    @property
    def ports(self) -> tuple[str, ...]:
        return PORTS

    @property
    def states(self) -> tuple[str, ...]:
        return () if self.tau is None else ("value",)

    @property
    def direct(self) -> bool:
        return self.tau is None

    @property
    def has_slope(self) -> bool:
        return False

    @property
    def slowest(self) -> float:
        return 0.0 if self.tau is None else float(np.max(self.tau))

    @property
    def steady(self) -> bool:
        return True

    def _weighted(self, inputs: Arrays, xp: Any) -> Array:
        gain = gain_of(self.log_precision, inputs, xp)
        return gain * (inputs["observed"] - inputs["predicted"])

    def drift(self, state: Arrays, inputs: Arrays, xp: Any) -> dict[str, Array]:
        return {"value": (self._weighted(inputs, xp) - state["value"]) / self.tau}

    def decay(self, inputs: Arrays, xp: Any) -> dict[str, Array]:
        return {"value": 1.0 / self.tau}

    def output(self, state: Arrays, inputs: Arrays, xp: Any) -> Array:
        return self._weighted(inputs, xp) if self.tau is None else state["value"]

    def rate(self, state: Arrays, inputs: Arrays, xp: Any) -> Array:
        return self.output(state, inputs, xp)

    def slope(self, state: Arrays, inputs: Arrays, xp: Any) -> Array:
        raise TypeError("Error units are linear and have no gain of their own.")

    def check(self, where: str, size: int) -> None:
        check_parameter(where, "log_precision", self.log_precision, size)
        if self.tau is not None:
            check_tau(where, "tau", self.tau, size)

    def brian_equations(self) -> BrianEquations:
        weighted = {"weighted": f"{brian_gain()}*(observed - predicted)"}
        parameters: dict[str, Array] = {"base": self.log_precision}
        if self.tau is None:
            sent = {"output": "weighted", "rate": "weighted"}
            return BrianEquations(expressions=weighted | sent, parameters=parameters)
        return BrianEquations(
            drift={"value": "(weighted - value)/tau"},
            expressions=weighted | {"output": "value", "rate": "value"},
            parameters=parameters | {"tau": self.tau},
        )


@dataclass(frozen=True)
class PrecisionGradient:
    r"""Units that send how a channel's log precision should move to lower the free energy.

    .. math:: -\frac{\partial F}{\partial\lambda} = \tfrac12 (1 - \Pi \odot \varepsilon^2)

    They follow their inputs at once and have the ports of `PreciseError`, which they stand beside.
    Through transposed weights they reach what sets the precision: `LogPrecision` units, or the
    latents of which the precision is a function.

    Parameters
    ----------
    log_precision
        :math:`\lambda^0`, as in the error units.

    Examples
    --------
    >>> inputs = {"observed": np.array([3.0]), "predicted": np.array([1.0]),
    ...           "log_precision": np.log([0.25])}
    >>> PrecisionGradient().output({}, inputs, np)
    array([0.])
    """

    log_precision: Array = 0.0

    @property
    def ports(self) -> tuple[str, ...]:
        return PORTS

    @property
    def states(self) -> tuple[str, ...]:
        return ()

    @property
    def direct(self) -> bool:
        return True

    @property
    def has_slope(self) -> bool:
        return False

    @property
    def slowest(self) -> float:
        return 0.0

    @property
    def steady(self) -> bool:
        return True

    def drift(self, state: Arrays, inputs: Arrays, xp: Any) -> dict[str, Array]:
        return {}

    def decay(self, inputs: Arrays, xp: Any) -> dict[str, Array]:
        return {}

    def output(self, state: Arrays, inputs: Arrays, xp: Any) -> Array:
        error = inputs["observed"] - inputs["predicted"]
        return 0.5 - 0.5 * gain_of(self.log_precision, inputs, xp) * error * error

    def rate(self, state: Arrays, inputs: Arrays, xp: Any) -> Array:
        return self.output(state, inputs, xp)

    def slope(self, state: Arrays, inputs: Arrays, xp: Any) -> Array:
        raise TypeError("These units are a square of their input and offer no gain.")

    def check(self, where: str, size: int) -> None:
        check_parameter(where, "log_precision", self.log_precision, size)

    def brian_equations(self) -> BrianEquations:
        change = f"0.5 - 0.5*{brian_gain()}*(observed - predicted)**2"
        return BrianEquations(
            expressions={"output": change, "rate": change},
            parameters={"base": self.log_precision},
        )


@dataclass(frozen=True)
class LogPrecision:
    r"""Units whose rate is a log precision, learned from squared errors around a prior.

    .. math:: \tau\dot\gamma = \text{drive} - \pi_\gamma (\gamma - \eta)

    `drive` is the sum of `PrecisionGradient` units over the channels whose precision a unit sets.
    Slow units without a prior learn: they rest where :math:`e^{\gamma}` is one over the mean
    squared error. Fast ones with a prior infer the precision of the moment; :math:`\eta` is then
    what attention expects.

    Parameters
    ----------
    tau
        Time constant, seconds, one number or one a unit.
    prior_precision
        :math:`\pi_\gamma`, not negative; 0 without a prior.
    mean
        :math:`\eta`.
    count
        How many channels a unit pools (the sum of its weights). Large errors make the equation
        stiff, and from the count exponential Euler knows how stiff.

    References
    ----------
    Feldman & Friston (2010), https://doi.org/10.3389/fnhum.2010.00215
    """

    tau: Array = 1.0
    prior_precision: Array = 0.0
    mean: Array = 0.0
    count: Array = 1.0

    @property
    def ports(self) -> tuple[str, ...]:
        return ("drive",)

    @property
    def states(self) -> tuple[str, ...]:
        return ("value",)

    @property
    def direct(self) -> bool:
        return False

    @property
    def has_slope(self) -> bool:
        return False

    @property
    def slowest(self) -> float:
        return float(np.max(self.tau))

    @property
    def steady(self) -> bool:
        return False

    def drift(self, state: Arrays, inputs: Arrays, xp: Any) -> dict[str, Array]:
        pull = self.prior_precision * (state["value"] - self.mean)
        return {"value": (inputs["drive"] - pull) / self.tau}

    def decay(self, inputs: Arrays, xp: Any) -> dict[str, Array]:
        # drive = (count - sum of Pi eps^2) / 2, and that sum grows as exp(value).
        curvature = xp.clip(0.5 * self.count - inputs["drive"], 0.0, None)
        return {"value": (curvature + self.prior_precision) / self.tau}

    def output(self, state: Arrays, inputs: Arrays, xp: Any) -> Array:
        return state["value"]

    def rate(self, state: Arrays, inputs: Arrays, xp: Any) -> Array:
        return state["value"]

    def slope(self, state: Arrays, inputs: Arrays, xp: Any) -> Array:
        raise TypeError("Log precisions are sent as they are and have no gain.")

    def check(self, where: str, size: int) -> None:
        check_tau(where, "tau", self.tau, size)
        check_parameter(where, "prior_precision", self.prior_precision, size, low=0.0)
        check_parameter(where, "mean", self.mean, size)
        check_parameter(where, "count", self.count, size, low=0.0)

    def brian_equations(self) -> BrianEquations:
        return BrianEquations(
            drift={"value": "(drive - prior_precision*(value - mean))/tau"},
            expressions={"output": "value", "rate": "value"},
            parameters={
                "tau": self.tau,
                "prior_precision": self.prior_precision,
                "mean": self.mean,
            },
        )
