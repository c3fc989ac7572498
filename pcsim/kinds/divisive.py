"""Divisive normalization: a drive divided by the pooled activity around it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from pcsim.kinds.kind import Array, Arrays, BrianEquations, check_parameter, check_tau
from pcsim.messages import check_number

__all__ = ["DivisiveNormalization"]


@dataclass(frozen=True)
class DivisiveNormalization:
    r"""Units whose leak grows with a pool, so that they rest at a ratio.

    .. math:: \tau\dot r = -(\sigma^n + \text{pool})\, r + \gamma\,\lfloor\text{drive}\rfloor_+^n

    At rest :math:`r = \gamma\lfloor\text{drive}\rfloor_+^n / (\sigma^n + \text{pool})`. The pool is
    the weighted sum that its projections bring, of outputs that already carry the exponent.

    Parameters
    ----------
    tau
        Time constant of a unit whose divisor is 1, seconds.
    semisaturation
        :math:`\sigma`, in units of the drive, above zero.
    exponent
        :math:`n`, at least 1.
    gain
        :math:`\gamma`.

    References
    ----------
    Carandini and Heeger (2012), https://doi.org/10.1038/nrn3136
    """

    tau: Array = 0.02
    semisaturation: Array = 1.0
    exponent: float = 2.0
    gain: Array = 1.0

    @property
    def ports(self) -> tuple[str, ...]:
        return ("drive", "pool")

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
        return float(np.max(self.tau / np.minimum(self.semisaturation**self.exponent, 1.0)))

    @property
    def steady(self) -> bool:
        return False

    def drift(self, state: Arrays, inputs: Arrays, xp: Any) -> dict[str, Array]:
        drive = self.gain * xp.clip(inputs["drive"], 0.0, None) ** self.exponent
        return {"value": (drive - self._divisor(inputs) * state["value"]) / self.tau}

    def decay(self, inputs: Arrays, xp: Any) -> dict[str, Array]:
        return {"value": self._divisor(inputs) / self.tau}

    def _divisor(self, inputs: Arrays) -> Array:
        return self.semisaturation**self.exponent + inputs["pool"]

    def output(self, state: Arrays, inputs: Arrays, xp: Any) -> Array:
        return state["value"]

    def rate(self, state: Arrays, inputs: Arrays, xp: Any) -> Array:
        return state["value"]

    def slope(self, state: Arrays, inputs: Arrays, xp: Any) -> Array:
        raise TypeError("Normalized units are linear in their state and have no gain.")

    def check(self, where: str, size: int) -> None:
        check_tau(where, "tau", self.tau, size)
        check_parameter(where, "semisaturation", self.semisaturation, size, positive=True)
        check_parameter(where, "gain", self.gain, size)
        check_number(where, "exponent", self.exponent, low=1.0)

    def brian_equations(self) -> BrianEquations:
        power = "clip(drive, 0, inf)**exponent"
        return BrianEquations(
            drift={"value": f"(gain*{power} - (semisaturation**exponent + pool)*value)/tau"},
            expressions={"output": "value", "rate": "value"},
            parameters={
                "tau": self.tau,
                "semisaturation": self.semisaturation,
                "exponent": self.exponent,
                "gain": self.gain,
            },
        )
