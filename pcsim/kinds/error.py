"""Error units: precision-weighted prediction errors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from pcsim.kinds.kind import (
    Array,
    Arrays,
    BrianEquations,
    check_parameter,
    check_tau,
    is_matrix,
    weigh,
)
from pcsim.messages import refusal
from pcsim.priors import check_precision

__all__ = ["Error"]


@dataclass(frozen=True)
class Error:
    r"""Units that compare what is observed with what is predicted.

    .. math:: \tau\dot\xi = \text{observed} - \text{predicted} - \sigma^2\xi - \text{inhibition}

    At rest :math:`\xi = (\text{observed} - \text{predicted})/\sigma^2`, the weighted error. With
    ``variance=0`` and interneurons that answer :math:`\Sigma\xi` into `inhibition`, it rests at
    :math:`\Sigma^{-1}(\text{observed} - \text{predicted})` for a full covariance. Without a time
    constant the weighted error :math:`\xi = \Pi(\text{observed} - \text{predicted})` follows its
    inputs at once.

    Parameters
    ----------
    tau
        Time constant, seconds, one number or one a unit; None for the algebraic form.
    variance
        Strength of the inhibition of each unit by itself, a number or (n,). Dynamic form only.
    precision
        A number, (n,) or (n, n); 1 if not given. Algebraic form only.

    References
    ----------
    Bogacz (2017), https://doi.org/10.1016/j.jmp.2015.11.003
    """

    tau: Array = 0.02
    variance: Array = 0.0
    precision: Array = None

    @property
    def ports(self) -> tuple[str, ...]:
        return ("observed", "predicted", "inhibition") if self.tau is not None else _COMPARED

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

    def drift(self, state: Arrays, inputs: Arrays, xp: Any) -> dict[str, Array]:
        error = inputs["observed"] - inputs["predicted"]
        value = (error - self.variance * state["value"] - inputs["inhibition"]) / self.tau
        return {"value": value}

    def decay(self, inputs: Arrays, xp: Any) -> dict[str, Array]:
        return {"value": self.variance / self.tau}

    def output(self, state: Arrays, inputs: Arrays, xp: Any) -> Array:
        if self.tau is not None:
            return state["value"]
        error = inputs["observed"] - inputs["predicted"]
        return error if self.precision is None else weigh(self.precision, error, xp)

    def rate(self, state: Arrays, inputs: Arrays, xp: Any) -> Array:
        return self.output(state, inputs, xp)

    def slope(self, state: Arrays, inputs: Arrays, xp: Any) -> Array:
        raise TypeError("Error units are linear and have no gain.")

    def check(self, where: str, size: int) -> None:
        if self.tau is None:
            if np.any(np.asarray(self.variance) != 0):
                raise ValueError(
                    refusal(
                        where,
                        "a variance on error units without tau",
                        "a precision there",
                        "Give precision = 1 / variance, or a time constant.",
                    )
                )
            if self.precision is not None:
                check_precision(where, "precision", self.precision, size)
            return
        check_tau(where, "tau", self.tau, size)
        check_parameter(where, "variance", self.variance, size, low=0.0)
        if self.precision is not None:
            raise ValueError(
                refusal(
                    where,
                    "a precision on error units with tau",
                    "a variance there",
                    "Give variance = 1 / precision, an interneuron population for a full "
                    "covariance, or tau=None.",
                )
            )

    def brian_equations(self) -> BrianEquations:
        if self.tau is not None:
            return BrianEquations(
                drift={"value": "(observed - predicted - variance*value - inhibition)/tau"},
                expressions={"output": "value", "rate": "value"},
                parameters={"tau": self.tau, "variance": self.variance},
            )
        expressions = {"difference": "observed - predicted"}
        if is_matrix(self.precision):
            return BrianEquations(
                expressions=expressions | {"output": "weighted", "rate": "weighted"},
                matrices={"weighted": (self.precision, "difference")},
            )
        precision = 1.0 if self.precision is None else self.precision
        weighted = {"output": "precision*difference", "rate": "precision*difference"}
        return BrianEquations(
            expressions=expressions | weighted, parameters={"precision": np.ravel(precision)}
        )


_COMPARED = ("observed", "predicted")
