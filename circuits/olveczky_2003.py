r"""Object-motion sensitivity in the retina: the background's motion predicts, and cancels, its own.

Bipolar subunits pass what gets brighter at their place, a ganglion cell pools those around it, and
a polyaxonal amacrine cell those far away, delayed by :math:`d`:

.. math:: b_j = \lfloor h * (k_j^\top x) \rfloor_+, \qquad
    \tau_a\,\dot a_i = \sum_j F_{ij}\,b_j - a_i, \qquad
    \tau\,\dot u_i = \sum_j P_{ij}\,b_j - g\,a_i(t - d) - u_i, \qquad y_i = \lfloor u_i \rfloor_+

with the transient filter h of `TemporalRelay`, P a Gaussian around the cell and F even over what
lies outside its centre. Both pools sum to 1, so that with :math:`g = 1` excitation and inhibition
by any input that is alike in the two balance: over time, a full-field step adds nothing to u. When
eye movements shake the whole image, both pools of rectified subunits rise and fall together, though
their gratings differ in phase; an object that moves on its own drives the centre at other moments
than those of inhibition. Pools of linear subunits average over the stripes and hardly see motion.

Predicts H07: responses to differential motion and none to global motion, whatever the direction.

Model after Olveczky, Baccus & Meister (2003, Nature 423:401) and Baccus et al. (2008, J. Neurosci.
28:6807): rectified transient subunits, wide-field inhibition through the same subunits. Own
choices: subunits of ON type every 2 px with a Gaussian of 1 px, a pool of 2.5 px, and all time
constants, which are of the order of those of the outer retina. `rectified` False makes the subunits
linear: the control, a linear centre and surround. No prediction is learned here; that of the
centre's motion from the background's is wired in.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse
import xarray as xr

from pcsim.circuit import Circuit, Population, Projection
from pcsim.kinds import Leaky, TemporalRelay
from pcsim.nonlinearity import linear, relu

__all__ = ["MODEL", "Olveczky2003"]

SIDE, SPACING, REACH = 56, 2, 4
"""Pixels: the field, between subunits, and how far from its centre a subunit looks."""
OFFSETS = (-2, 0, 2)
"""Pixels of the ganglion cells from the middle of the field, in both directions."""


@dataclass(frozen=True, kw_only=True)
class Olveczky2003(Circuit):
    """Subunits on 56 by 56 px, nine ganglion cells in the middle, an amacrine cell for each."""

    rectified: bool = True
    """False makes the subunits linear."""
    inhibition: float = 1.0
    """g, weight of the amacrine cell; 1 balances the excitation."""
    delay: float = 0.006
    """Seconds that inhibition needs along the amacrine cell's axons."""
    tau_subunit: float = 0.01
    """Seconds."""
    tau_transient: float = 0.05
    """How long a subunit passes a step, seconds."""
    tau_amacrine: float = 0.005
    """Seconds."""
    tau: float = 0.02
    """Time constant of the ganglion cells, seconds."""
    sigma_subunit: float = 1.0
    """Pixels."""
    sigma_pool: float = 2.5
    """Of the pool of a ganglion cell, pixels; the amacrine cell's begins at three times that."""
    dt: float = 0.002

    @property
    def field_shape(self) -> tuple[int, int]:
        """Rows and columns of the visual field."""
        return SIDE, SIDE

    @property
    def px_per_deg(self) -> float:
        """Pixels per degree of visual angle."""
        return 16.0

    @property
    def subunit_fields(self) -> Any:
        """(784, 3136) Gaussians of sum 1, sparse."""
        pixel_x, pixel_y = mosaic(1)
        x, y = mosaic(SPACING)
        squared = (pixel_x - x[:, None]) ** 2 + (pixel_y - y[:, None]) ** 2
        weights = np.exp(-squared / (2.0 * self.sigma_subunit**2)) * (squared <= REACH**2)
        return scipy.sparse.csr_array(weights / weights.sum(axis=1, keepdims=True))

    @property
    def pools(self) -> tuple[Any, Any]:
        """(9, 784) weights of the subunits in the ganglion cells and in the amacrine cells."""
        x, y = mosaic(SPACING)
        own_x, own_y = cells()
        distance = np.hypot(x - own_x[:, None], y - own_y[:, None])
        near = np.exp(-(distance**2) / (2.0 * self.sigma_pool**2))
        far = (distance > 3.0 * self.sigma_pool).astype(np.float64)
        return near / near.sum(axis=1, keepdims=True), far / far.sum(axis=1, keepdims=True)

    @property
    def populations(self) -> tuple[Population, ...]:
        """Subunits, amacrine cells and ganglion cells."""
        at: dict[str, Any] = {"level": 0, "area": "retina"}
        subunit = TemporalRelay(
            tau_trace=self.tau_transient, coefficient=1.0, tau=self.tau_subunit,
            nonlinearity=relu if self.rectified else linear,
        )  # fmt: skip
        x, y = (place / self.px_per_deg for place in cells())
        n = len(x)
        return (
            Population("subunit", subunit, (SIDE // SPACING) ** 2, population="input", **at),
            Population("amacrine", Leaky(self.tau_amacrine), n, population="interneuron", **at),
            Population("ganglion", Leaky(self.tau, relu), n, population="error", x=x, y=y, **at),
        )

    @property
    def projections(self) -> tuple[Projection, ...]:
        """Light to subunits, these to both pools, the far pool against the near one."""
        near, far = self.pools
        return (
            Projection("stimulus", "subunit", self.subunit_fields, port="drive"),
            Projection("subunit", "ganglion", near, port="drive"),
            Projection("subunit", "amacrine", far, port="drive"),
            Projection(
                "amacrine", "ganglion", self.inhibition * np.eye(len(near)), port="inhibition",
                delay=self.delay,
            ),
        )  # fmt: skip

    def prepare(self, stimulus: xr.DataArray) -> Any:
        """Return contrast relative to mid-grey, (trial, time, 3136)."""
        return (Circuit.prepare(self, stimulus) - 0.5) / 0.5


def mosaic(spacing: int) -> tuple[Any, Any]:
    """Return places every `spacing` pixels, pixels right of and above the centre of the field."""
    rows, columns = np.indices((SIDE // spacing,) * 2).reshape(2, -1)
    middle = (SIDE // spacing - 1) / 2
    return (columns - middle) * spacing, (middle - rows) * spacing


def cells() -> tuple[Any, Any]:
    """Return places of the ganglion cells, pixels right of and above the centre of the field."""
    right, up = np.meshgrid(OFFSETS, OFFSETS)
    return right.ravel().astype(np.float64), up.ravel().astype(np.float64)


MODEL = Olveczky2003()
