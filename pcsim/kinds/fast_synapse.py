"""Fast synapses: weights that are states, so that a circuit adapts within a run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from pcsim.kinds.kind import Array, Arrays, BrianEquations, check_parameter, check_tau

__all__ = ["FastSynapse"]


@dataclass(frozen=True)
class FastSynapse:
    r"""Synapses whose weight grows with activity on both sides and decays; one unit is one synapse.

    .. math:: \tau_w\,\dot w = -w + \kappa\,\text{pre}\cdot\text{post}, \qquad
        \text{output} = w\cdot\text{pre}

    Sent to an inhibitory port of the postsynaptic units, the rule is anti-Hebbian. With inputs that
    change much faster than :math:`\tau_w`, linear postsynaptic units :math:`y = x - w^\top a`
    of presynaptic activity a rest at :math:`w = (\langle a a^\top\rangle + I/\kappa)^{-1}
    \langle a x\rangle`: the ridge regression of what drives them, x, on a. Every trial has weights
    of its own, which start at 0; what is recorded is the weight.

    Parameters
    ----------
    tau
        Time constant of the decay, seconds, one number or one a synapse.
    gain
        :math:`\kappa`; 0 leaves the weights at 0.

    References
    ----------
    Hosoya, Baccus and Meister (2005), https://doi.org/10.1038/nature03689
    """

    tau: Array = 3.0
    gain: Array = 1.0

    @property
    def ports(self) -> tuple[str, ...]:
        return ("pre", "post")

    @property
    def states(self) -> tuple[str, ...]:
        return ("weight",)

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
        return True

    def drift(self, state: Arrays, inputs: Arrays, xp: Any) -> dict[str, Array]:
        growth = self.gain * inputs["pre"] * inputs["post"]
        return {"weight": (growth - state["weight"]) / self.tau}

    def decay(self, inputs: Arrays, xp: Any) -> dict[str, Array]:
        return {"weight": 1.0 / self.tau}

    def output(self, state: Arrays, inputs: Arrays, xp: Any) -> Array:
        return state["weight"] * inputs["pre"]

    def rate(self, state: Arrays, inputs: Arrays, xp: Any) -> Array:
        return state["weight"]

    def slope(self, state: Arrays, inputs: Arrays, xp: Any) -> Array:
        raise TypeError("Fast synapses are linear in their weight and have no gain.")

    def check(self, where: str, size: int) -> None:
        check_tau(where, "tau", self.tau, size)
        check_parameter(where, "gain", self.gain, size)

    def brian_equations(self) -> BrianEquations:
        return BrianEquations(
            drift={"weight": "(gain*pre*post - weight)/tau"},
            expressions={"output": "weight*pre", "rate": "weight"},
            parameters={"tau": self.tau, "gain": self.gain},
        )
