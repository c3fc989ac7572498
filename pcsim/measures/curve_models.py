r"""Curves that tuning data are fitted with: what `pcsim.measures.fit_curve` takes.

With x an orientation in radians, a contrast, or a diameter,

.. math::
    \text{Gaussian:}\quad & b + a\,e^{-d^2 / 2\sigma^2}, \quad d = x - \theta
        \text{ wrapped to } \pm\pi/2 \\
    \text{von Mises:}\quad & b + a\,e^{\kappa (\cos 2(x - \theta) - 1)} \\
    \text{Naka-Rushton:}\quad & b + r_{max}\,c^n / (c_{50}^n + c^n) \\
    \text{difference of Gaussians:}\quad & b + k_c\,\mathrm{erf}(x / w_c)
        - k_s\,\mathrm{erf}(x / w_s) \\
    \text{ratio of Gaussians:}\quad & b + \frac{k_c\,\mathrm{erf}(x / w_c)^2}
        {1 + k_s\,\mathrm{erf}(x / w_s)^2}

with :math:`w_s = w_c \cdot` `ratio`, a ratio above 1.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import erf

from pcsim.measures.contrast import EXPONENT, PARAMETERS, naka_rushton

__all__ = [
    "CURVES",
    "DIFFERENCE_OF_GAUSSIANS",
    "GAUSSIAN_TUNING",
    "NAKA_RUSHTON",
    "RATIO_OF_GAUSSIANS",
    "VON_MISES_TUNING",
    "CurveModel",
]

Floats = NDArray[np.float64]
Grid = list[tuple[float, ...]]


@dataclass(frozen=True)
class CurveModel:
    """A curve with named parameters, their bounds and where to start looking for them.

    The curve is scaled to a range of 1 before it is fitted; parameters in `scaled` carry the units
    of the response and are scaled back.
    """

    name: str
    parameters: tuple[str, ...]
    function: Callable[[Floats, Floats], Floats]
    """(x, parameters) -> values."""
    bounds: Callable[[Floats], Floats]
    """x -> (2, parameter), for responses with a range of 1 that begin at 0."""
    starts: Callable[[Floats, Floats], Grid]
    """(x, values) -> parameters to begin from."""
    scaled: tuple[str, ...]
    offset: str = "baseline"
    """The parameter to which a constant added to the responses is added."""
    period: float | None = None
    circular: str = ""
    """The parameter that is an angle, reported from 0 to `period`."""


def _gaussian(x: Floats, p: Floats) -> Floats:
    apart = np.mod(x - p[0] + np.pi / 2, np.pi) - np.pi / 2
    return np.asarray(p[3] + p[2] * np.exp(-0.5 * (apart / p[1]) ** 2))


def _von_mises(x: Floats, p: Floats) -> Floats:
    return np.asarray(p[3] + p[2] * np.exp(p[1] * (np.cos(2.0 * (x - p[0])) - 1.0)))


def _difference(x: Floats, p: Floats) -> Floats:
    center, surround = erf(x / p[0]), erf(x / (p[0] * p[1]))
    return np.asarray(p[4] + p[2] * center - p[3] * surround)


def _ratio(x: Floats, p: Floats) -> Floats:
    center, surround = erf(x / p[0]) ** 2, erf(x / (p[0] * p[1])) ** 2
    return np.asarray(p[4] + p[2] * center / (1.0 + p[3] * surround))


def _angles(widths: tuple[float, ...]) -> Callable[[Floats, Floats], Grid]:
    def starts(x: Floats, values: Floats) -> Grid:
        # The phase of the second harmonic, and the highest point.
        phase = np.angle((values * np.exp(2j * x)).sum()) / 2.0
        places = (float(phase), float(x[values.argmax()]))
        return [(place, width, 1.0, 0.0) for place in places for width in widths]

    return starts


def _sizes(gains: tuple[float, ...]) -> Callable[[Floats, Floats], Grid]:
    def starts(x: Floats, values: Floats) -> Grid:
        best = max(float(x[values.argmax()]), float(x[x > 0].min()))
        widths = best * np.array([0.3, 0.6, 1.0, 1.8])
        grid = itertools.product(widths, (1.5, 3.0, 6.0), (1.0, 1.6, 3.0), gains)
        return [(float(w), ratio, k, s, 0.0) for w, ratio, k, s in grid]

    return starts


def _contrasts(x: Floats, values: Floats) -> Grid:
    seen = x[x > 0]
    middle = np.geomspace(seen.min(), seen.max(), 5)
    return [
        (size, float(c50), n, base)
        for size, base in ((1.2, 0.0), (-1.2, 1.0))
        for c50 in middle
        for n in (1.0, 2.0, 4.0)
    ]


def _of_angles(low: float, high: float) -> Callable[[Floats], Floats]:
    return lambda x: np.array([[-4 * np.pi, low, -5.0, -4.0], [4 * np.pi, high, 5.0, 5.0]])


def _of_sizes(x: Floats) -> Floats:
    seen = x[x > 0]
    low, high = 0.1 * float(seen.min()), 10.0 * float(seen.max())
    return np.array([[low, 1.0, 0.0, 0.0, -1.0], [high, 20.0, 50.0, 50.0, 1.0]])


def _of_contrasts(x: Floats) -> Floats:
    low, high = 0.1 * float(x[x > 0].min()), 10.0 * float(x.max())
    return np.array([[-10.0, low, EXPONENT[0], -10.0], [10.0, high, EXPONENT[1], 11.0]])


GAUSSIAN_TUNING = CurveModel(
    "gaussian", ("preferred", "sigma", "amplitude", "baseline"), _gaussian,
    _of_angles(0.03, np.pi), _angles((0.15, 0.35, 0.7)), ("amplitude", "baseline"),
    period=np.pi, circular="preferred",
)  # fmt: skip
"""Wrapped Gaussian of orientation; `sigma` in radians."""

VON_MISES_TUNING = CurveModel(
    "von_mises", ("preferred", "kappa", "amplitude", "baseline"), _von_mises,
    _of_angles(0.01, 300.0), _angles((0.5, 2.0, 8.0)), ("amplitude", "baseline"),
    period=np.pi, circular="preferred",
)  # fmt: skip
"""Von Mises curve of orientation."""

NAKA_RUSHTON = CurveModel(
    "naka_rushton", PARAMETERS, lambda x, p: naka_rushton(x, p), _of_contrasts, _contrasts,
    ("r_max", "baseline"),
)  # fmt: skip
"""Contrast response; r_max of either sign."""

DIFFERENCE_OF_GAUSSIANS = CurveModel(
    "difference_of_gaussians", ("width", "ratio", "center", "surround", "baseline"), _difference,
    _of_sizes, _sizes((0.2, 0.6, 1.2)), ("center", "surround", "baseline"),
)  # fmt: skip
"""Size tuning with a subtractive surround (Sceniak et al. 1999,
https://doi.org/10.1038/11197)."""

RATIO_OF_GAUSSIANS = CurveModel(
    "ratio_of_gaussians", ("width", "ratio", "center", "surround", "baseline"), _ratio,
    _of_sizes, _sizes((0.3, 1.0, 3.0)), ("center", "baseline"),
)  # fmt: skip
"""Size tuning with a divisive surround (Cavanaugh, Bair & Movshon 2002,
https://doi.org/10.1152/jn.00692.2001)."""

CURVES = {
    model.name: model
    for model in (
        GAUSSIAN_TUNING,
        VON_MISES_TUNING,
        NAKA_RUSHTON,
        DIFFERENCE_OF_GAUSSIANS,
        RATIO_OF_GAUSSIANS,
    )
}
"""By name."""
