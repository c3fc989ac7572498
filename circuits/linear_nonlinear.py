r"""Static linear-nonlinear units: a Gabor filter and a rectifier, the simplest control.

.. math:: \tau\,\dot u = g\,w^\top (x - \bar x) - u, \qquad r = \max(u, 0)

No surround, no adaptation, no feedback: what this model shows is not evidence for prediction.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from pcsim.circuit import Population, Projection
from pcsim.circuit_filter_bank import FilterBankCircuit, draw_bank
from pcsim.kinds import Leaky
from pcsim.nonlinearity import relu

__all__ = ["MODEL", "LinearNonlinear"]

N_UNITS = 32


@dataclass(frozen=True, kw_only=True)
class LinearNonlinear(FilterBankCircuit):
    """Rectified Gabor filters at the centre of the field."""

    @property
    def populations(self) -> tuple[Population, ...]:
        """One population of outputs."""
        x, y = self.places.T
        unit = Leaky(tau=self.tau, nonlinearity=relu)
        return (
            Population(
                name="output", kind=unit, size=len(x), level=1, population="output", area="V1",
                x=x, y=y,
            ),
        )  # fmt: skip

    @property
    def projections(self) -> tuple[Projection, ...]:
        """The filters."""
        return (
            Projection(
                source="stimulus", target="output", weights=self.gain * self.filters, port="drive"
            ),
        )

    def untrained(self, *, seed: int) -> LinearNonlinear:
        """Return another draw of the bank."""
        filters, places = draw_bank(N_UNITS, np.random.default_rng([seed, 1996]))
        return replace(self, filters=filters, places=places, gain=1.0)


MODEL = LinearNonlinear()
