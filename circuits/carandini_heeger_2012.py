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

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import numpy as np
import xarray as xr

from pcsim.circuit import Circuit, Population, Projection
from pcsim.filters import gabor_bank
from pcsim.kinds import DivisiveNormalization, Leaky
from pcsim.nonlinearity import power

__all__ = ["MODEL", "CarandiniHeeger2012"]

FIELD = (32, 42)
N_CENTRE, N_SURROUND = 32, 160
PX_PER_DEG = 16.0


def bank(seed: int) -> tuple[Any, Any]:
    """Draw filters (192, 1344), the first 32 near the centre, and their places (192, 2) in "
    "degrees."""
    rng = np.random.default_rng([seed, 2012])
    inner, near = gabor_bank(FIELD, N_CENTRE, rng=rng, px_per_deg=PX_PER_DEG, spread=0.1)
    outer, far = gabor_bank(FIELD, N_SURROUND, rng=rng, px_per_deg=PX_PER_DEG, spread=0.8)
    places = np.concatenate([np.stack([t["x"], t["y"]], axis=1) / PX_PER_DEG for t in (near, far)])
    return np.concatenate([inner, outer]), places


@dataclass(frozen=True, kw_only=True)
class CarandiniHeeger2012(Circuit):
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
        """Filters' powers (the drive) and the normalized outputs, at the same places."""
        x, y = self.places.T
        drive = Leaky(tau=self.tau, nonlinearity=power(self.exponent, rectified=True))
        output = DivisiveNormalization(
            tau=self.tau, semisaturation=self.semisaturation, exponent=self.exponent
        )
        place = {"size": len(x), "x": x, "y": y, "level": 1, "area": "V1"}
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

    def prepare(self, stimulus: xr.DataArray) -> Any:
        """Return the images less mid-grey, (trial, time, 1344)."""
        return Circuit.prepare(self, stimulus) - 0.5

    def untrained(self, *, seed: int) -> CarandiniHeeger2012:
        """Return another draw of the bank."""
        filters, places = bank(seed)
        return replace(self, filters=filters, places=places)

    def fit(self, stimulus: xr.DataArray, *, seed: int = 0) -> CarandiniHeeger2012:
        """Draw a bank and scale it so that filters have a root mean square of 1 on `stimulus`."""
        model = self.untrained(seed=seed)
        drive = self.prepare(stimulus) @ model.filters.T
        return replace(model, gain=float(1.0 / np.sqrt((drive**2).mean())))


MODEL = CarandiniHeeger2012()
