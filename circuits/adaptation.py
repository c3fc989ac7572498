r"""Rectified subunits that adapt to what they saw, pooled without prediction: the adaptation
control.

.. math:: \tau_a \dot a = \max(w^\top x, 0) - a, \qquad
    s = \max(\max(w^\top x, 0) - c\,a,\, 0), \qquad \tau\,\dot r = P s - r

Responses fall with exposure and recover with novelty although nothing is predicted, as in the
model that accounts for novelty responses of mouse V1 (Homann et al. 2022, PNAS 119:e2108882119;
familiarisation within 1.4 s, the time constant taken here).
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from pcsim.circuit import Population, Projection
from pcsim.circuit_filter_bank import FilterBankCircuit, draw_bank
from pcsim.kinds import Leaky, TemporalRelay
from pcsim.nonlinearity import relu

__all__ = ["MODEL", "Adaptation"]

N_SUBUNITS, N_UNITS, N_POOLED = 128, 32, 4


def bank(seed: int) -> tuple[Any, Any, Any]:
    """Draw subunits (128, 1344), the pooling (32, 128) and the outputs' places (32, 2)."""
    rng = np.random.default_rng([seed, 2022])
    filters, places = draw_bank(N_SUBUNITS, rng)
    pooling = np.zeros((N_UNITS, N_SUBUNITS))
    for unit in pooling:
        unit[rng.choice(N_SUBUNITS, N_POOLED, replace=False)] = rng.uniform(0.5, 1.5, N_POOLED)
    pooling /= pooling.sum(axis=1, keepdims=True)
    return filters, pooling, pooling @ places


@dataclass(frozen=True, kw_only=True)
class Adaptation(FilterBankCircuit):
    """Adapting subunits, pooled."""

    filters: Any = field(default_factory=lambda: bank(0)[0])
    """(128, 1344) receptive fields of the subunits, unit norm and zero mean."""
    pooling: Any = field(default_factory=lambda: bank(0)[1])
    """(32, 128) weights of the subunits in each output."""
    places: Any = field(default_factory=lambda: bank(0)[2])
    """(32, 2) centres x, y of the outputs, degrees."""
    coefficient: float = 0.8
    """Share of the adapted level that is subtracted; 0 removes adaptation."""
    tau_adaptation: float = 1.4
    """Seconds."""

    @property
    def populations(self) -> tuple[Population, ...]:
        """Subunits, their adapting relays, and the pooled outputs."""
        x, y = self.places.T
        n = len(self.filters)
        relay = TemporalRelay(
            tau_trace=self.tau_adaptation, coefficient=self.coefficient, nonlinearity=relu
        )
        return (
            Population(
                name="subunit", kind=Leaky(tau=self.tau, nonlinearity=relu), size=n, level=0,
                population="input", area="LGN",
            ),
            Population(
                name="adapted", kind=relay, size=n, level=0, population="interneuron", area="LGN"
            ),
            Population(
                name="output", kind=Leaky(tau=self.tau), size=len(x), level=1, population="output",
                area="V1", x=x, y=y,
            ),
        )  # fmt: skip

    @property
    def projections(self) -> tuple[Projection, ...]:
        """Stimulus to subunits to relays to outputs."""
        return (
            Projection(
                source="stimulus", target="subunit", weights=self.gain * self.filters, port="drive"
            ),
            Projection(source="subunit", target="adapted", port="drive"),
            Projection(source="adapted", target="output", weights=self.pooling, port="drive"),
        )

    def untrained(self, *, seed: int) -> Adaptation:
        """Return another draw of the bank."""
        filters, pooling, places = bank(seed)
        return replace(self, filters=filters, pooling=pooling, places=places, gain=1.0)


MODEL = Adaptation()
