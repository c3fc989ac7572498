r"""Static linear-nonlinear units: a Gabor filter and a rectifier, the simplest control.

.. math:: \tau\,\dot u = w^\top (x - \bar x) - u, \qquad r = \max(u, 0)

No surround, no adaptation, no feedback: what this model shows is not evidence for prediction. The
bank follows the spread of preferred spatial frequency of macaque simple cells (De Valois et al.
1982, Vision Res. 22:545: median 2.85 cycles per degree), limited to what the sampling of the field
can carry.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import numpy as np
import xarray as xr

from pcsim.circuit import Circuit, Population, Projection
from pcsim.filters import gabor_bank
from pcsim.kinds import Leaky
from pcsim.nonlinearity import relu

__all__ = ["MODEL", "LinearNonlinear"]

FIELD = (32, 42)
N_UNITS = 32
PX_PER_DEG = 16.0


def bank(seed: int) -> tuple[Any, Any]:
    """Draw unit-norm, zero-mean filters (32, 1344) around the centre, and their places in "
    "degrees."""
    rng = np.random.default_rng([seed, 1996])
    filters, table = gabor_bank(FIELD, N_UNITS, rng=rng, px_per_deg=PX_PER_DEG, spread=0.1)
    return filters, np.stack([table["x"], table["y"]], axis=1) / PX_PER_DEG


@dataclass(frozen=True, kw_only=True)
class LinearNonlinear(Circuit):
    """Rectified Gabor filters at the centre of the field."""

    filters: Any = field(default_factory=lambda: bank(0)[0])
    """(32, 1344) receptive fields, unit norm and zero mean."""
    places: Any = field(default_factory=lambda: bank(0)[1])
    """(32, 2) centres x, y, degrees."""
    gain: float = 1.0
    tau: float = 0.01
    """Time constant, seconds."""
    dt: float = 0.002

    curriculum: ClassVar[str] = "patches"
    n_training: ClassVar[Mapping[str, int]] = {"quick": 1000, "full": 1000}

    @property
    def field_shape(self) -> tuple[int, int]:
        """Rows and columns of the visual field."""
        return FIELD

    @property
    def px_per_deg(self) -> float:
        """Pixels per degree of visual angle."""
        return PX_PER_DEG

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

    def prepare(self, stimulus: xr.DataArray) -> Any:
        """Return the images less mid-grey, (trial, time, 1344)."""
        return Circuit.prepare(self, stimulus) - 0.5

    def untrained(self, *, seed: int) -> LinearNonlinear:
        """Return another draw of the bank."""
        filters, places = bank(seed)
        return replace(self, filters=filters, places=places)

    def fit(self, stimulus: xr.DataArray, *, seed: int = 0) -> LinearNonlinear:
        """Draw a bank and scale it so that filters have a root mean square of 1 on `stimulus`."""
        model = self.untrained(seed=seed)
        drive = self.prepare(stimulus) @ model.filters.T
        return replace(model, gain=float(1.0 / np.sqrt((drive**2).mean())))


MODEL = LinearNonlinear()
