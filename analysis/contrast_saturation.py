"""H14: responses saturate with contrast while the tuning for orientation keeps its width."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from pcsim.hypothesis import Control, Hypothesis, Means, Reference, Requirement
from pcsim.measures import fit_naka_rushton, half_width
from pcsim.model import Model
from pcsim.protocols import fitted_gratings, fitted_units, lacks

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["HYPOTHESIS"]

LEVEL = 1
CONTRASTS = (0.0, 0.03, 0.06, 0.12, 0.25, 0.5, 1.0)
ORIENTATIONS = np.arange(12) * np.pi / 12
LOW, HIGH = 0.12, 1.0
STANDARD_ERROR = 0.05
"""Of every point of the contrast response, in shares of the largest response."""


def observe(model: Model, *, seed: int, scale: str) -> tuple[xr.Dataset, xr.Dataset]:
    """Measure contrast response at the best orientation, and tuning at low and high contrast."""
    units = fitted_units(model, LEVEL, seed=seed, scale=scale)
    diameter = np.minimum(4.0 * units["sigma"], units["largest"])
    contrast = xr.DataArray(list(CONTRASTS), dims="contrast")
    shown = {"diameter": diameter, "contrast": contrast}
    curve, responses = fitted_gratings(model, units, shown, seed=seed)
    curve = curve.assign_coords(contrast=list(CONTRASTS))
    turns = xr.DataArray(ORIENTATIONS, dims="orientation")
    levels = xr.DataArray([LOW, HIGH], dims="contrast")
    turned = {"orientation": units["orientation"] + turns, "contrast": levels}
    tuning, _ = fitted_gratings(model, units, {"diameter": diameter, **turned}, seed=seed)
    tuning = tuning.assign_coords(orientation=ORIENTATIONS)
    width = half_width(tuning, dim="orientation", period=np.pi)
    ratio = width.isel(contrast=0) / width.isel(contrast=1)
    fit = fit_naka_rushton(curve)
    gain = aic_gain(curve, fit)
    peak = curve.max("contrast")
    evidence = xr.Dataset(
        {
            "aic_gain": gain.fillna(0.0),
            "width_deviation": xr.apply_ufunc(np.abs, ratio - 1.0).fillna(0.0),
            "exponent": fit["n"],
            "c50": fit["c50"],
            "curve": curve,
            "included": (peak > 0.05 * float(np.percentile(peak, 95)))
            & np.isfinite(ratio)
            & np.isfinite(gain),
        }
    )
    return evidence, responses


def aic_gain(curve: xr.DataArray, fit: xr.Dataset) -> xr.DataArray:
    """Return AIC(line) - AIC(Naka-Rushton) for a known standard error of each point.

    With Gaussian noise of known size AIC is chi squared plus twice the number of parameters: 2 for
    the line, 4 for the Naka-Rushton function.
    """
    line = fit["slope"] * curve["contrast"] + fit["intercept"]
    total = ((curve - curve.mean("contrast")) ** 2).sum("contrast")
    excess = ((curve - line) ** 2).sum("contrast") - (1.0 - fit["r_squared"]) * total
    peak = curve.max("contrast")
    return excess / (STANDARD_ERROR * peak.where(peak > 0)) ** 2 - 4.0


def saturation(means: Means) -> Any:
    """Return by how much the Naka-Rushton function is preferred to the straight line (AIC)."""
    return means["aic_gain"]


def same_width(means: Means) -> Any:
    """Return how far the mean change of the tuning width stays below 10 %."""
    return 0.1 - means["width_deviation"]


def panel(evidence: Mapping[str, Sequence[xr.Dataset]], ax: Axes) -> None:
    """Draw mean contrast response functions."""
    from pcsim.plots import plot_tuning

    for label in ("RB", "RB-gauss", "DN", "LN", "LCA"):
        curves = []
        for one in evidence.get(label, ()):
            units = one.isel(unit=one["included"].values)
            curves.append((units["curve"] / units["curve"].max("contrast")).mean("unit"))
        if curves:
            plot_tuning(xr.concat(curves, "replica"), x="contrast", label=label, ax=ax)
    ax.set_xlabel("Michelson contrast")
    ax.set_ylabel("Response (share of peak)")
    ax.set_ylim(bottom=0.0)


HYPOTHESIS = Hypothesis(
    id="H14",
    name="Contrast saturation with contrast-invariant tuning",
    claim=(
        "Responses saturate with contrast (Naka-Rushton) while the width of orientation tuning "
        "stays the "
        "same. A linear predictive coder cannot do so."
    ),
    family="V1",
    protocol=(
        "At most 16 units (full: 32). Gratings of 0, 3, 6, 12, 25, 50 and 100 % contrast, four "
        "sigma wide, at the preferred orientation and spatial frequency, 4 phases, 0.5 s; 12 "
        "orientations at 12 and 100 %."
    ),
    statistic=(
        "Mean over units of AIC(straight line) - AIC(Naka-Rushton), taking a standard error of 5 "
        "% of "
        "the unit's largest response for every point; a linear unit gives -4."
    ),
    signal="error units of level 1 (output or latent units of models without them)",
    falsified_if="The straight line is preferred, or the tuning width changes by more than 10 %.",
    units="AIC",
    missing=lambda model: lacks(model, LEVEL),
    observe=observe,
    variables=("aic_gain", "width_deviation"),
    combine=saturation,
    null=0.0,
    direction=1,
    reference=Reference(
        status="remembered",
        source="V1: n about 2 to 3.5, c50 about 20 to 35 % (Sclar, Maunsell & Lennie 1990).",
    ),
    requirements=(
        Requirement(
            name="width",
            statement="The width of orientation tuning changes by less than 10 %.",
            combine=same_width,
        ),
    ),
    controls=(
        Control(
            name="linear",
            statement="The same circuit with Gaussian priors is linear in contrast.",
            variant="RB-gauss",
        ),
    ),
    departures=(
        "Exponent and half-saturation are not compared with the published ones.",
        "A standard error of 5 % is assumed, and tuning is measured at two contrasts.",
    ),
    panel=panel,
)
