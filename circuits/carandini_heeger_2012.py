r"""Divisive normalization: each rectified filter is divided by the pooled activity of its
neighbours.

.. math:: r_i = \gamma\,\frac{D_i^n}{\sigma^n + \sum_j w_{ij} D_j^n}, \qquad D_j = \max(g\,f_j^\top
x, 0)

(Carandini & Heeger 2012, Nat. Rev. Neurosci. 13:51, eq. 10). The pool is a Gaussian of the
distance between receptive fields, blind to their orientation. Following the cooling experiments of
Nassi et al. (2014, Front. Syst. Neurosci. 8:105), feedback sets how far the pool reaches:
`feedback_gain` 1 is the far pool and 0 the near one.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from pcsim.circuit import Population, Projection
from pcsim.circuit_filter_bank import FilterBankCircuit, draw_bank
from pcsim.kinds import DivisiveNormalization, Leaky
from pcsim.nonlinearity import power

__all__ = ["MODEL", "CarandiniHeeger2012"]

N_CENTRE, N_SURROUND = 32, 160


def bank(seed: int) -> tuple[Any, Any]:
    """Draw filters (192, 1344), the first 32 near the centre, and their places (192, 2)."""
    rng = np.random.default_rng([seed, 2012])
    inner, near = draw_bank(N_CENTRE, rng)
    outer, far = draw_bank(N_SURROUND, rng, spread=0.8)
    return np.concatenate([inner, outer]), np.concatenate([near, far])


@dataclass(frozen=True, kw_only=True)
class CarandiniHeeger2012(FilterBankCircuit):
    """Filters, their rectified powers, and the units that these powers drive and divide."""

    filters: Any = field(default_factory=lambda: bank(0)[0])
    """(192, 1344) receptive fields, unit norm and zero mean."""
    places: Any = field(default_factory=lambda: bank(0)[1])
    """(192, 2) centres x, y, degrees."""
    exponent: float = 2.0
    semisaturation: float = 1.0
    """In units of the root mean square of the drive on natural images."""
    near_pool: float = 0.15
    """Standard deviation of the pool without feedback, degrees."""
    far_pool: float = 0.5
    """Standard deviation of the pool with feedback, degrees."""
    feedback_gain: float = 1.0
    """0 shrinks the pool to the near one."""

    @property
    def populations(self) -> tuple[Population, ...]:
        """Filters' powers (the drive) and the normalized outputs, at the same places."""
        x, y = self.places.T
        drive = Leaky(tau=self.tau, nonlinearity=power(self.exponent, rectified=True))
        output = DivisiveNormalization(
            tau=self.tau, semisaturation=self.semisaturation, exponent=self.exponent
        )
        place: dict[str, Any] = {"size": len(x), "x": x, "y": y, "level": 1, "area": "V1"}
        return (
            Population(name="power", kind=drive, population="interneuron", **place),
            Population(name="output", kind=output, population="output", **place),
        )

    @property
    def projections(self) -> tuple[Projection, ...]:
        """Stimulus to filters; stimulus to outputs through the same filters, divided by the "
        "pool."""
        weights = self.gain * self.filters
        return (
            Projection(source="stimulus", target="power", weights=weights, port="drive"),
            Projection(source="stimulus", target="output", weights=weights, port="drive"),
            Projection(source="power", target="output", weights=self.pool, port="pool"),
        )

    @property
    def pool(self) -> Any:
        """(192, 192) weights of the pool, rows summing to 1."""
        width = self.near_pool + self.feedback_gain * (self.far_pool - self.near_pool)
        distance = np.linalg.norm(self.places[:, None] - self.places[None], axis=-1)
        weights = np.exp(-(distance**2) / (2 * width**2))
        return weights / weights.sum(axis=1, keepdims=True)

    def untrained(self, *, seed: int) -> CarandiniHeeger2012:
        """Return another draw of the bank."""
        filters, places = bank(seed)
        return replace(self, filters=filters, places=places, gain=1.0)


MODEL = CarandiniHeeger2012()
