r"""Predictive coding in the retina: lateral inhibition removes what neighbours predict.

Outputs y and the interneurons e that carry the lateral inhibition obey

.. math:: \tau\,\dot y = x - \bar x - e, \qquad \tau_e\,\dot e = M y - e

and rest at :math:`y = M^{-1}(x - \bar x)`. Srinivasan, Laughlin & Dubs (1982, Proc. R. Soc. B
216:427) subtract the linear prediction of each receptor from the others; in the whitening form of
Atick & Redlich (1990, Neural Comput. 2:308) the filter is symmetric. With C the covariance of log
luminance over natural patches and :math:`\lambda` a ridge (the noise),

- "whitening": :math:`M = (C + \lambda I)^{1/2}`, so that outputs are decorrelated;
- "prediction": :math:`M = (C + \lambda I)\,\mathrm{diag}(C + \lambda I)^{-1}_{ii}`, so that each
output is
  the error of the best linear prediction from all other receptors.

Both are scaled to a gain of 1 in the mean over the diagonal of the resulting filter.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import numpy as np
import xarray as xr

from pcsim.circuit import Circuit, Population, Projection
from pcsim.kinds import Error, Leaky

__all__ = ["MODEL", "RetinaSrinivasan1982"]

SIDE = 13
SCHEMES = ("whitening", "prediction")


def exponential_covariance() -> Any:
    """Return the covariance of a textured scene that falls by e in 4 px (Srinivasan's example)."""
    rows, columns = np.indices((SIDE, SIDE)).reshape(2, -1)
    distance = np.hypot(rows[:, None] - rows[None], columns[:, None] - columns[None])
    return 0.3 * np.exp(-distance / 4.0)


@dataclass(frozen=True, kw_only=True)
class RetinaSrinivasan1982(Circuit):
    """Receptors, outputs and lateral interneurons on a 13 by 13 grid."""

    covariance: Any = field(default_factory=exponential_covariance)
    """(169, 169) covariance of log luminance."""
    mean: Any = field(default_factory=lambda: np.zeros(SIDE**2))
    """(169,) mean log luminance, relative to mid-grey."""
    ridge: float = 0.1
    """Noise variance in units of the mean variance."""
    scheme: str = "whitening"
    """"whitening" (symmetric) or "prediction" (each receptor from all others)."""
    tau: float = 0.02
    """Time constant of the outputs, seconds."""
    tau_interneuron: float = 0.002
    """Seconds."""
    dt: float = 0.0005
    """Outputs and interneurons form a loop: stable below tau over the largest eigenvalue of M."""

    curriculum: ClassVar[str] = "patches"
    n_training: ClassVar[Mapping[str, int]] = {"quick": 40_000, "full": 40_000}

    def __post_init__(self) -> None:
        if self.scheme not in SCHEMES:
            raise ValueError(
                f"retina_srinivasan_1982: found scheme {self.scheme!r}, expected one of {SCHEMES}. "
                "Give one of the two."
            )

    @property
    def field_shape(self) -> tuple[int, int]:
        """Rows and columns of the visual field."""
        return SIDE, SIDE

    @property
    def px_per_deg(self) -> float:
        """Pixels per degree of visual angle."""
        return 16.0

    @property
    def inhibition(self) -> Any:
        """(169, 169) weights M of the outputs on the interneurons, the inverse of the filter."""
        noise = self.ridge * np.trace(self.covariance) / SIDE**2
        noisy = self.covariance + noise * np.eye(SIDE**2)
        variance, axes = np.linalg.eigh(noisy)
        if self.scheme == "whitening":
            matrix = (axes * np.sqrt(variance)) @ axes.T
            inverse_diagonal = ((axes / np.sqrt(variance)) * axes).sum(axis=1)
        else:
            precision_diagonal = ((axes / variance) * axes).sum(axis=1)
            matrix = noisy * precision_diagonal
            inverse_diagonal = np.ones(SIDE**2)
        return matrix * inverse_diagonal.mean()

    @property
    def populations(self) -> tuple[Population, ...]:
        """Outputs (the errors of the lateral prediction) and interneurons."""
        rows, columns = np.indices((SIDE, SIDE)).reshape(2, -1)
        centre = (SIDE - 1) / 2
        place: dict[str, Any] = {
            "size": SIDE**2, "level": 0, "area": "retina",
            "x": (columns - centre) / self.px_per_deg, "y": (centre - rows) / self.px_per_deg,
        }  # fmt: skip
        return (
            Population(name="output", kind=Error(tau=self.tau), population="error", **place),
            Population(
                name="lateral", kind=Leaky(tau=self.tau_interneuron), population="interneuron",
                **place,
            ),
        )  # fmt: skip

    @property
    def projections(self) -> tuple[Projection, ...]:
        """Receptors drive the outputs; the interneurons they drive inhibit them."""
        return (
            Projection(source="stimulus", target="output", port="observed"),
            Projection(source="output", target="lateral", weights=self.inhibition, port="drive"),
            Projection(source="lateral", target="output", port="inhibition"),
        )

    def prepare(self, stimulus: xr.DataArray) -> Any:
        """Return log luminance relative to mid-grey, less its learned mean: (trial, time, 169)."""
        return log_luminance(Circuit.prepare(self, stimulus)) - self.mean

    def untrained(self, *, seed: int) -> RetinaSrinivasan1982:
        """Return a retina without lateral weights (white covariance)."""
        return replace(self, covariance=np.eye(SIDE**2), mean=np.zeros(SIDE**2))

    def fit(self, stimulus: xr.DataArray, *, seed: int = 0) -> RetinaSrinivasan1982:
        """Take mean and covariance from images."""
        frames = log_luminance(Circuit.prepare(self, stimulus)).reshape(-1, SIDE**2)
        return replace(self, mean=frames.mean(axis=0), covariance=np.cov(frames.T))


def log_luminance(luminance: Any) -> Any:
    """Return log luminance relative to mid-grey; 1 % of the range is added against log of 0."""
    return np.log((luminance + 0.01) / 0.51)


MODEL = RetinaSrinivasan1982()
