r"""Temporal whitening in the LGN: each relay subtracts what its recent past predicts.

.. math:: \tau_a\,\dot a = x - a, \qquad y = x - c\,a, \qquad
    c = \langle x a \rangle / \langle a^2 \rangle

The coefficient minimises the mean square of the error y of predicting the input from its own
trace. With the power of natural input falling as :math:`1/\omega^2`, the error is white between
the corners
:math:`(1 - c)/\tau_a` and :math:`1/\tau_a` (Dong & Atick 1995, Network 6:159; Dan, Atick & Reid
1996, J. Neurosci. 16:3351).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import xarray as xr

from pcsim.circuit import Circuit, Population, Projection
from pcsim.kinds import TemporalRelay

__all__ = ["MODEL", "LgnDongAtick1995"]

SIDE = 13


@dataclass(frozen=True, kw_only=True)
class LgnDongAtick1995(Circuit):
    """One relay for each pixel of a 13 by 13 grid."""

    coefficient: float = 0.95
    """Share of the trace that is subtracted."""
    mean: float = 0.0
    """Mean luminance relative to mid-grey."""
    tau_trace: float = 0.01
    """Memory of the trace, seconds."""
    dt: float = 0.001

    curriculum: ClassVar[str] = "sequences"
    n_training: ClassVar[Mapping[str, int]] = {"quick": 24, "full": 64}

    @property
    def field_shape(self) -> tuple[int, int]:
        """Rows and columns of the visual field."""
        return SIDE, SIDE

    @property
    def px_per_deg(self) -> float:
        """Pixels per degree of visual angle."""
        return 16.0

    @property
    def populations(self) -> tuple[Population, ...]:
        """The relays, whose output is the error of the prediction from the past."""
        rows, columns = np.indices((SIDE, SIDE)).reshape(2, -1)
        centre = (SIDE - 1) / 2
        kind = TemporalRelay(tau_trace=self.tau_trace, coefficient=self.coefficient)
        return (
            Population(
                name="relay", kind=kind, size=SIDE**2, level=0, population="error", area="LGN",
                x=(columns - centre) / self.px_per_deg, y=(centre - rows) / self.px_per_deg,
            ),
        )  # fmt: skip

    @property
    def projections(self) -> tuple[Projection, ...]:
        """One receptor for each relay."""
        return (Projection(source="stimulus", target="relay", port="drive"),)

    def prepare(self, stimulus: xr.DataArray) -> Any:
        """Return luminance relative to its learned mean, (trial, time, 169)."""
        return Circuit.prepare(self, stimulus) - 0.5 - self.mean

    def untrained(self, *, seed: int) -> LgnDongAtick1995:
        """Return relays that predict nothing."""
        return replace(self, coefficient=0.0, mean=0.0)

    def fit(self, stimulus: xr.DataArray, *, seed: int = 0) -> LgnDongAtick1995:
        """Take the mean, then the coefficient that predicts each frame's end from the trace."""
        centred = replace(self, mean=0.0).prepare(stimulus)
        mean = float(centred.mean())
        frames = centred - mean
        keep = np.exp(-float(stimulus["frame_duration"]) / self.tau_trace)
        trace = np.zeros_like(frames)
        trace[:, 0] = frames[:, 0]
        for t in range(1, frames.shape[1]):
            trace[:, t] = keep * trace[:, t - 1] + (1.0 - keep) * frames[:, t]
        coefficient = float((frames * trace).sum() / (trace**2).sum())
        return replace(self, mean=mean, coefficient=coefficient)


MODEL = LgnDongAtick1995()
