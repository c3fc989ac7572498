r"""Dynamic predictive coding in the retina: inhibition learns, within seconds, what is familiar.

Ganglion cells of ON and OFF type, :math:`s = \pm 1`, take their centre-surround view of the image
and subtract what amacrine cells predict of it, through synapses of their own that are anti-Hebbian
and forget:

.. math:: \tau\,\dot u_i = s_i\,g_i^\top b - \sum_j w_{ij} a_j - u_i, \quad y_i = \max(u_i, 0),
    \qquad \tau_w\,\dot w_{ij} = -w_{ij} + \kappa\,a_j\,y_i

with bipolar cells b that low-pass contrast, and amacrine cells :math:`a = A b` that each see a blob
of it. Under symmetric input that changes much faster than :math:`\tau_w` the weights come to rest
at the ridge regression :math:`w = (C + \tfrac{2}{\kappa} I)^{-1} \langle a\,s\,g^\top b\rangle`,
:math:`C = \langle a a^\top\rangle` (the factor 2 because y keeps one half of u). In an environment
of one pattern p, :math:`a = z(t)\,p` with variance :math:`\sigma^2`, the response to it is reduced
to

.. math:: \frac{2/\kappa}{2/\kappa + \sigma^2 \lvert p\rvert^2}

of what it was, and that to patterns that are orthogonal at the amacrine cells is left alone.

Predicts H06: after seconds of one pattern, sensitivity to it falls and to another does not.

Model after Hosoya, Baccus & Meister (2005, Nature 436:71), whose ganglion cells receive inhibition
through anti-Hebbian synapses. Own choices: 4 by 4 places of 4 px with one cell of each type and one
amacrine cell, signed amacrine rates (each stands for an ON and an OFF cell), a time constant of 3 s
("several seconds", remembered), and a :math:`\kappa` that halves the response to slow full-field
flicker of 30 % contrast (30 ms frames, behind bipolar cells of 20 ms, are about half as strong).
`plasticity` 0 fixes the weights at 0. `adaptation` "contrast" replaces the amacrine cells by one
for each ganglion cell with the same view as that cell: then the same rule can only change a gain,
by contrast and blind to pattern.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr

from pcsim.circuit import Circuit, Population, Projection
from pcsim.kinds import FastSynapse, Leaky
from pcsim.messages import check_choice
from pcsim.nonlinearity import relu

__all__ = ["MODEL", "Hosoya2005"]

SIDE, BLOCK = 16, 4
N_PLACES = (SIDE // BLOCK) ** 2
CONTRAST = 0.3


@dataclass(frozen=True, kw_only=True)
class Hosoya2005(Circuit):
    """Bipolar, amacrine and ganglion cells on 16 by 16 px, and the synapses between the latter."""

    plasticity: float = 2.0 / (N_PLACES * CONTRAST**2)
    """kappa, growth of a weight per product of rates; 0 fixes all weights at 0."""
    adaptation: str = "pattern"
    """"pattern" (amacrine cells see blobs) or "contrast" (each sees what its ganglion cell sees)"""
    tau_weight: float = 3.0
    """Time constant of the synapses' decay, seconds."""
    tau_bipolar: float = 0.02
    """Seconds."""
    tau_amacrine: float = 0.005
    """Seconds."""
    tau: float = 0.005
    """Time constant of the ganglion cells, seconds."""
    sigma_center: float = 1.5
    """Of the ganglion cells' centre and of the amacrine cells' blob, pixels."""
    sigma_surround: float = 4.5
    """Pixels."""
    surround: float = 0.55
    """Volume of the surround over that of the centre (Croner & Kaplan 1995, remembered)."""
    dt: float = 0.002

    def __post_init__(self) -> None:
        check_choice("hosoya_2005", "adaptation", self.adaptation, ("pattern", "contrast"))

    @property
    def field_shape(self) -> tuple[int, int]:
        """Rows and columns of the visual field."""
        return SIDE, SIDE

    @property
    def px_per_deg(self) -> float:
        """Pixels per degree of visual angle."""
        return 16.0

    @property
    def fields(self) -> Any:
        """(32, 256) weights of the bipolar cells in the ganglion cells, ON cells first."""
        on = blobs(self.sigma_center) - self.surround * blobs(self.sigma_surround)
        return np.concatenate([on, -on])

    @property
    def amacrine_fields(self) -> Any:
        """(16, 256) blobs, or (32, 256) copies of `fields` as strong under full-field flicker."""
        if self.adaptation == "pattern":
            return blobs(self.sigma_center)
        return self.fields * np.sqrt(N_PLACES) / (1.0 - self.surround)

    @property
    def wiring(self) -> tuple[Any, Any]:
        """(n_synapse,) numbers of the ganglion and of the amacrine cell of each synapse."""
        cells = np.arange(2 * N_PLACES)
        if self.adaptation == "pattern":
            return np.repeat(cells, N_PLACES), np.tile(np.arange(N_PLACES), len(cells))
        return cells, cells

    @property
    def populations(self) -> tuple[Population, ...]:
        """Bipolar and amacrine cells, synapses, ganglion cells (channel 1 is ON, -1 OFF)."""
        x, y = places()
        at: dict[str, Any] = {"level": 0, "area": "retina"}
        kind = Leaky(tau=self.tau, nonlinearity=relu)
        synapse = FastSynapse(tau=self.tau_weight, gain=self.plasticity)
        cell: dict[str, Any] = {"kind": kind, "size": N_PLACES, "x": x, "y": y, **at}
        return (
            Population("bipolar", Leaky(self.tau_bipolar), SIDE**2, population="input", **at),
            Population(
                "amacrine", Leaky(self.tau_amacrine), len(self.amacrine_fields),
                population="interneuron", **at,
            ),
            Population("synapse", synapse, len(self.wiring[0]), population="interneuron", **at),
            Population("on", population="error", channel=np.ones(N_PLACES), **cell),
            Population("off", population="error", channel=-np.ones(N_PLACES), **cell),
        )  # fmt: skip

    @property
    def projections(self) -> tuple[Projection, ...]:
        """Light to bipolar cells, these to both others; synapses see both sides, and inhibit."""
        post, pre = (np.eye(number.max() + 1)[number] for number in self.wiring)
        out = [
            Projection("stimulus", "bipolar", port="drive"),
            Projection("bipolar", "amacrine", self.amacrine_fields, port="drive"),
            Projection("amacrine", "synapse", pre, port="pre"),
        ]
        for name, some in (("on", slice(0, N_PLACES)), ("off", slice(N_PLACES, None))):
            out += [
                Projection("bipolar", name, self.fields[some], port="drive"),
                Projection(name, "synapse", post[:, some], port="post"),
                Projection("synapse", name, post[:, some].T, port="inhibition"),
            ]
        return tuple(out)

    def prepare(self, stimulus: xr.DataArray) -> Any:
        """Return contrast relative to mid-grey, (trial, time, 256)."""
        return (Circuit.prepare(self, stimulus) - 0.5) / 0.5


def places() -> tuple[Any, Any]:
    """Return the centres of the 16 blocks, degrees right of and above the centre of the field."""
    rows, columns = np.indices((SIDE // BLOCK,) * 2).reshape(2, -1)
    middle = (SIDE // BLOCK - 1) / 2
    return (columns - middle) * BLOCK / 16.0, (middle - rows) * BLOCK / 16.0


def blobs(sigma: float) -> Any:
    """Return Gaussians (16, 256) at the places, each of sum 1 over the field."""
    rows, columns = np.indices((SIDE, SIDE)).reshape(2, -1)
    x, y = places()
    right = (columns - (SIDE - 1) / 2) - 16.0 * x[:, None]
    up = ((SIDE - 1) / 2 - rows) - 16.0 * y[:, None]
    blob = np.exp(-(right**2 + up**2) / (2.0 * sigma**2))
    return blob / blob.sum(axis=1, keepdims=True)


MODEL = Hosoya2005()
