"""Prediction units: what a level expects of the one below."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from pcsim.kinds.kind import Array, Arrays, BrianEquations, check_nonlinearity, check_tau
from pcsim.nonlinearity import Nonlinearity, nonlinearity

__all__ = ["Prediction"]


@dataclass(frozen=True)
class Prediction:
    r"""Units that send :math:`g(u)`, where :math:`u` is their drive.

    .. math:: \tau\dot u = \text{drive} - u, \qquad \text{output} = g(u)

    Without a time constant :math:`u` is the drive itself. Their slope :math:`g'(u)` gates the
    errors that ascend past them, as the chain rule asks: ``Projection(..., gate="prediction")``.

    Parameters
    ----------
    tau
        Time constant, seconds, one number or one a unit; None follows the drive at once.
    outer
        The point nonlinearity :math:`g` or its name.
    """

    tau: Array = None
    outer: Nonlinearity | str = "linear"

    @property
    def ports(self) -> tuple[str, ...]:
        return ("drive",)

    @property
    def states(self) -> tuple[str, ...]:
        return () if self.tau is None else ("value",)

    @property
    def direct(self) -> bool:
        return self.tau is None

    @property
    def has_slope(self) -> bool:
        return True

    @property
    def slowest(self) -> float:
        return 0.0 if self.tau is None else float(np.max(self.tau))

    @property
    def steady(self) -> bool:
        return True

    def drift(self, state: Arrays, inputs: Arrays, xp: Any) -> dict[str, Array]:
        return {"value": (inputs["drive"] - state["value"]) / self.tau}

    def decay(self, inputs: Arrays, xp: Any) -> dict[str, Array]:
        return {"value": 1.0 / self.tau}

    def output(self, state: Arrays, inputs: Arrays, xp: Any) -> Array:
        return nonlinearity(self.outer).f(self._u(state, inputs), xp)

    def rate(self, state: Arrays, inputs: Arrays, xp: Any) -> Array:
        return self.output(state, inputs, xp)

    def slope(self, state: Arrays, inputs: Arrays, xp: Any) -> Array:
        return nonlinearity(self.outer).df(self._u(state, inputs), xp)

    def _u(self, state: Arrays, inputs: Arrays) -> Array:
        return inputs["drive"] if self.tau is None else state["value"]

    def check(self, where: str, size: int) -> None:
        check_nonlinearity(where, self.outer)
        if self.tau is not None:
            check_tau(where, "tau", self.tau, size)

    def brian_equations(self) -> BrianEquations:
        g = nonlinearity(self.outer)
        u = "drive" if self.tau is None else "value"
        expressions = {"u": u, "output": g.brian, "rate": g.brian, "slope": g.brian_df}
        if self.tau is None:
            return BrianEquations(expressions=expressions)
        return BrianEquations(
            drift={"value": "(drive - value)/tau"},
            expressions=expressions,
            parameters={"tau": self.tau},
        )
