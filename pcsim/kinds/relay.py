"""Temporal relay: sends what its own recent past did not predict."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from pcsim.kinds.kind import (
    Array,
    Arrays,
    BrianEquations,
    check_nonlinearity,
    check_parameter,
    check_tau,
)
from pcsim.nonlinearity import Nonlinearity, nonlinearity

__all__ = ["TemporalRelay"]


@dataclass(frozen=True)
class TemporalRelay:
    r"""Units that whiten their drive in time by subtracting a running average of it.

    .. math:: \tau_a\dot a = \text{drive} - a, \qquad
        \tau\dot u = \text{drive} - k a - u, \qquad \text{output} = f(u)

    Without :math:`\tau`, :math:`u = \text{drive} - k a` at once. A constant drive is passed with
    gain :math:`1 - k`, a sudden one with gain 1.

    Parameters
    ----------
    tau_trace
        Time constant of the running average, seconds, one number or one a unit.
    coefficient
        :math:`k`, the share of the average that is predicted and removed.
    nonlinearity
        The point nonlinearity :math:`f` or its name.
    tau
        Time constant of the output, seconds; None follows at once.

    References
    ----------
    Srinivasan, Laughlin and Dubs (1982), https://doi.org/10.1098/rspb.1982.0085
    """

    tau_trace: Array = 0.1
    coefficient: Array = 0.9
    nonlinearity: Nonlinearity | str = "linear"
    tau: Array = None

    @property
    def ports(self) -> tuple[str, ...]:
        return ("drive",)

    @property
    def states(self) -> tuple[str, ...]:
        return ("trace",) if self.tau is None else ("value", "trace")

    @property
    def direct(self) -> bool:
        return self.tau is None

    @property
    def has_slope(self) -> bool:
        return True

    @property
    def slowest(self) -> float:
        return float(np.max(self.tau_trace if self.tau is None else self.tau_trace + self.tau))

    @property
    def steady(self) -> bool:
        return True

    def drift(self, state: Arrays, inputs: Arrays, xp: Any) -> dict[str, Array]:
        drive, trace = inputs["drive"], state["trace"]
        change = {"trace": (drive - trace) / self.tau_trace}
        if self.tau is not None:
            change["value"] = (drive - self.coefficient * trace - state["value"]) / self.tau
        return change

    def decay(self, inputs: Arrays, xp: Any) -> dict[str, Array]:
        decay = {"trace": 1.0 / self.tau_trace}
        return decay if self.tau is None else decay | {"value": 1.0 / self.tau}

    def output(self, state: Arrays, inputs: Arrays, xp: Any) -> Array:
        return nonlinearity(self.nonlinearity).f(self._u(state, inputs), xp)

    def rate(self, state: Arrays, inputs: Arrays, xp: Any) -> Array:
        return self.output(state, inputs, xp)

    def slope(self, state: Arrays, inputs: Arrays, xp: Any) -> Array:
        return nonlinearity(self.nonlinearity).df(self._u(state, inputs), xp)

    def _u(self, state: Arrays, inputs: Arrays) -> Array:
        if self.tau is not None:
            return state["value"]
        return inputs["drive"] - self.coefficient * state["trace"]

    def check(self, where: str, size: int) -> None:
        check_nonlinearity(where, self.nonlinearity)
        check_tau(where, "tau_trace", self.tau_trace, size)
        check_parameter(where, "coefficient", self.coefficient, size)
        if self.tau is not None:
            check_tau(where, "tau", self.tau, size)

    def brian_equations(self) -> BrianEquations:
        f = nonlinearity(self.nonlinearity)
        drift = {"trace": "(drive - trace)/tau_trace"}
        parameters = {"tau_trace": self.tau_trace, "coefficient": self.coefficient}
        u = "drive - coefficient*trace"
        if self.tau is not None:
            drift["value"] = "(drive - coefficient*trace - value)/tau"
            parameters["tau"] = self.tau
            u = "value"
        expressions = {"u": u, "output": f.brian, "rate": f.brian, "slope": f.brian_df}
        return BrianEquations(drift=drift, expressions=expressions, parameters=parameters)
