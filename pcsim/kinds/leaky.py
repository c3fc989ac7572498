"""Leaky units: the interneurons, and any other population that follows its net input."""

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

__all__ = ["Leaky"]


@dataclass(frozen=True)
class Leaky:
    r"""Units that leak towards their net input; as interneurons they carry lateral inhibition.

    .. math:: \tau\dot u = -u + \text{drive} - \text{inhibition}, \qquad
        \text{output} = f(u - \theta)

    Parameters
    ----------
    tau
        Time constant, seconds, one number or one a unit.
    nonlinearity
        The point nonlinearity :math:`f` or its name.
    threshold
        :math:`\theta`, a number or one a unit.
    """

    tau: Array = 0.02
    nonlinearity: Nonlinearity | str = "linear"
    threshold: Array = 0.0

    @property
    def ports(self) -> tuple[str, ...]:
        return ("drive", "inhibition")

    @property
    def states(self) -> tuple[str, ...]:
        return ("value",)

    @property
    def direct(self) -> bool:
        return False

    @property
    def has_slope(self) -> bool:
        return True

    @property
    def slowest(self) -> float:
        return float(np.max(self.tau))

    @property
    def steady(self) -> bool:
        return True

    def drift(self, state: Arrays, inputs: Arrays, xp: Any) -> dict[str, Array]:
        return {"value": (inputs["drive"] - inputs["inhibition"] - state["value"]) / self.tau}

    def decay(self, inputs: Arrays, xp: Any) -> dict[str, Array]:
        return {"value": 1.0 / self.tau}

    def output(self, state: Arrays, inputs: Arrays, xp: Any) -> Array:
        return nonlinearity(self.nonlinearity).f(state["value"] - self.threshold, xp)

    def rate(self, state: Arrays, inputs: Arrays, xp: Any) -> Array:
        return self.output(state, inputs, xp)

    def slope(self, state: Arrays, inputs: Arrays, xp: Any) -> Array:
        return nonlinearity(self.nonlinearity).df(state["value"] - self.threshold, xp)

    def check(self, where: str, size: int) -> None:
        check_nonlinearity(where, self.nonlinearity)
        check_tau(where, "tau", self.tau, size)
        check_parameter(where, "threshold", self.threshold, size)

    def brian_equations(self) -> BrianEquations:
        f = nonlinearity(self.nonlinearity)
        return BrianEquations(
            drift={"value": "(drive - inhibition - value)/tau"},
            expressions={
                "u": "value - threshold",
                "output": f.brian,
                "rate": f.brian,
                "slope": f.brian_df,
            },
            parameters={"tau": self.tau, "threshold": self.threshold},
        )
