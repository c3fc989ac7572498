"""Depressing synapses: what arrives weakens with use and recovers with rest."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from pcsim.kinds.kind import Array, Arrays, BrianEquations, check_parameter, check_tau

__all__ = ["Depression"]


@dataclass(frozen=True)
class Depression:
    r"""Terminals that release a share of what they have left, and refill.

    .. math:: \dot q = u\,\lfloor\text{drive}\rfloor_+ (1 - q) - q/\tau, \qquad
        \text{output} = \lfloor\text{drive}\rfloor_+ (1 - q)

    :math:`q` is the share that is used up; the mean-field form of the model of Tsodyks and Markram.
    A steady drive :math:`x` is passed with gain :math:`1/(1 + u x \tau)`, a sudden one with gain 1.

    Parameters
    ----------
    tau
        Time constant of recovery, seconds, one number or one a unit.
    release
        :math:`u`, share released per second at a drive of 1: the utilization of one spike times the
        spikes per second that a drive of 1 stands for. 0 removes the depression.

    References
    ----------
    Tsodyks and Markram (1997), https://doi.org/10.1073/pnas.94.2.719
    """

    tau: Array = 0.8
    release: Array = 10.0

    @property
    def ports(self) -> tuple[str, ...]:
        return ("drive",)

    @property
    def states(self) -> tuple[str, ...]:
        return ("used",)

    @property
    def direct(self) -> bool:
        return True

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
        released = self.release * self.output(state, inputs, xp)
        return {"used": released - state["used"] / self.tau}

    def decay(self, inputs: Arrays, xp: Any) -> dict[str, Array]:
        return {"used": 1.0 / self.tau + self.release * xp.clip(inputs["drive"], 0.0, None)}

    def output(self, state: Arrays, inputs: Arrays, xp: Any) -> Array:
        return xp.clip(inputs["drive"], 0.0, None) * (1.0 - state["used"])

    def rate(self, state: Arrays, inputs: Arrays, xp: Any) -> Array:
        return self.output(state, inputs, xp)

    def slope(self, state: Arrays, inputs: Arrays, xp: Any) -> Array:
        raise TypeError("Depressing synapses have no gain that another projection may use.")

    def check(self, where: str, size: int) -> None:
        check_tau(where, "tau", self.tau, size)
        check_parameter(where, "release", self.release, size, low=0.0)

    def brian_equations(self) -> BrianEquations:
        arriving = "clip(drive, 0, inf)*(1 - used)"
        return BrianEquations(
            drift={"used": f"release*{arriving}/tau_unit - used/tau"},
            expressions={"output": arriving, "rate": arriving},
            parameters={"tau": self.tau, "release": self.release, "tau_unit": 1.0},
        )
