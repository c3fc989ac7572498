"""Latent units: the estimate of a cause, pulled by the errors below it and above it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from pcsim.kinds.kind import (
    Array,
    Arrays,
    BrianEquations,
    check_nonlinearity,
    check_parameter,
    check_tau,
    is_matrix,
    weigh,
)
from pcsim.messages import refusal
from pcsim.nonlinearity import Nonlinearity, nonlinearity
from pcsim.priors import Flat, GaussianPrior, Prior, SparsePrior, check_precision

__all__ = ["Latent"]


@dataclass(frozen=True)
class Latent:
    r"""Units that descend the free energy.

    .. math:: \tau\dot\mu = h'(\mu)\,\text{ascending} - \text{own\_error}
        - \frac{\partial E}{\partial\mu} + \text{lateral}

    `ascending` are the weighted errors of the level below through transposed weights, `own_error`
    the weighted errors of this level's prediction from above, :math:`E` the energy of the prior.
    The output is :math:`h(\mu)`, the recorded rate :math:`\mu`.

    Parameters
    ----------
    tau
        Time constant, seconds, one number or one a unit.
    inner
        The point nonlinearity :math:`h` or its name.
    prior
        `GaussianPrior`, `SparsePrior` or `Flat`. Exponential Euler knows the leak of a Gaussian one
        (of a full precision its diagonal); the others it integrates as Euler does.

    References
    ----------
    Bogacz (2017), https://doi.org/10.1016/j.jmp.2015.11.003
    """

    tau: Array = 0.02
    inner: Nonlinearity | str = "linear"
    prior: Prior = field(default_factory=Flat)

    @property
    def ports(self) -> tuple[str, ...]:
        return ("ascending", "own_error", "lateral")

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
        mu = state["value"]
        pull = inputs["ascending"]
        if self.inner != "linear":
            pull = nonlinearity(self.inner).df(mu, xp) * pull
        push = inputs["own_error"] - inputs["lateral"]
        if isinstance(self.prior, GaussianPrior):
            push = push + weigh(self.prior.precision, mu - self.prior.mean, xp)
        elif not isinstance(self.prior, Flat):
            push = push + self.prior.gradient(mu, xp)
        return {"value": (pull - push) / self.tau}

    def decay(self, inputs: Arrays, xp: Any) -> dict[str, Array]:
        if not isinstance(self.prior, GaussianPrior):
            return {"value": 0.0 / self.tau}
        precision = self.prior.precision
        if is_matrix(precision):
            precision = xp.linalg.diagonal(precision)
            precision = precision if precision.ndim == 1 else precision[:, None, :]
        return {"value": precision / self.tau}

    def output(self, state: Arrays, inputs: Arrays, xp: Any) -> Array:
        return nonlinearity(self.inner).f(state["value"], xp)

    def rate(self, state: Arrays, inputs: Arrays, xp: Any) -> Array:
        return state["value"]

    def slope(self, state: Arrays, inputs: Arrays, xp: Any) -> Array:
        return nonlinearity(self.inner).df(state["value"], xp)

    def check(self, where: str, size: int) -> None:
        check_tau(where, "tau", self.tau, size)
        check_nonlinearity(where, self.inner)
        if not isinstance(self.prior, GaussianPrior | SparsePrior | Flat):
            found = f"a prior of type {type(self.prior).__name__}"
            raise TypeError(refusal(where, found, "GaussianPrior, SparsePrior or Flat"))
        if isinstance(self.prior, GaussianPrior):
            check_parameter(where, "mean of the prior", self.prior.mean, size)
            check_precision(where, "precision of the prior", self.prior.precision, size)

    def brian_equations(self) -> BrianEquations:
        h, prior = nonlinearity(self.inner), self.prior
        expressions = {"u": "value", "output": h.brian, "slope": h.brian_df, "rate": "value"}
        parameters: dict[str, Array] = {"tau": self.tau}
        matrices: dict[str, tuple[Array, str]] = {}
        if isinstance(prior, GaussianPrior):
            expressions["deviation"] = "value - prior_mean"
            parameters["prior_mean"] = prior.mean
            if is_matrix(prior.precision):
                matrices["prior_gradient"] = (prior.precision, "deviation")
            else:
                parameters["prior_precision"] = np.ravel(prior.precision)
                expressions["prior_gradient"] = "prior_precision*deviation"
        elif isinstance(prior, SparsePrior):
            parameters["alpha"] = prior.alpha
            expressions["prior_gradient"] = "alpha*value/(1 + value**2)"
        else:
            expressions["prior_gradient"] = "0.0*value"
        drift = "(slope*ascending - own_error - prior_gradient + lateral)/tau"
        return BrianEquations({"value": drift}, expressions, parameters, matrices)
