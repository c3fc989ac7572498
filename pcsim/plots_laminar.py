"""Figures of a simulation: rates by layer and area, local field potentials."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import xarray as xr
from matplotlib.axes import Axes

from pcsim.messages import refusal
from pcsim.plots_style import COLOURS, OKABE_ITO

__all__ = ["ROLE_COLOURS", "ROLE_NAMES", "plot_laminar_rates", "plot_lfp"]

ROLE_COLOURS: Mapping[str, str] = {
    "error": COLOURS["error"],
    "weighted_error": COLOURS["error"],
    "latent": COLOURS["latent"],
    "prediction": COLOURS["prediction"],
    "input": COLOURS["data"],
    "interneuron": COLOURS["control"],
    "output": OKABE_ITO["purple"],
    "precision": OKABE_ITO["orange"],
}
ROLE_NAMES: Mapping[str, str] = {
    "error": "error",
    "weighted_error": "error",
    "latent": "estimate",
    "prediction": "prediction",
    "input": "input",
    "interneuron": "inhibition",
    "output": "output",
    "precision": "precision",
}
"""How a reader calls the roles."""
DASHES: Mapping[str, str] = {"interneuron": "--", "prediction": "-."}


def plot_laminar_rates(rates: xr.DataArray, *, ax: Axes) -> Axes:
    """Draw the size of the rates of the populations of one layer, or of one level.

    Parameters
    ----------
    rates : (population, time)
        With the coordinate `role` on `population`; time in seconds.
    ax
        Where to draw.
    """
    if set(rates.dims) != {"population", "time"} or "role" not in rates.coords:
        found, expected = f"rates with dims {rates.dims}", "(population, time) and role"
        raise ValueError(refusal("plot_laminar_rates", found, expected))
    for one in rates.transpose("population", "time"):
        role = str(one["role"].item()).removesuffix("_pos").removesuffix("_neg")
        ax.plot(
            1e3 * one["time"].values,
            one.values,
            color=ROLE_COLOURS.get(role, COLOURS["data"]),
            linestyle=DASHES.get(role, "-"),
            label=ROLE_NAMES.get(role, role),
        )
    return ax


def plot_lfp(
    lfp: xr.DataArray, *, ax: Axes, colours: Sequence[str] | None = None, gap: float = 1.2
) -> Axes:
    """Draw one potential a site, one above the other, each over twice its own largest size.

    Parameters
    ----------
    lfp : (time, site)
        Time in seconds.
    ax
        Where to draw.
    colours
        One a site.
    gap
        Between zero lines, in units of the largest size.
    """
    if set(lfp.dims) != {"time", "site"}:
        found = f"potentials with dims {lfp.dims}"
        raise ValueError(refusal("plot_lfp", found, "(time, site)", "Average over the trials."))
    values = lfp.transpose("site", "time").to_numpy()
    time = 1e3 * lfp["time"].values
    for number, one in enumerate(values):
        largest = float(np.abs(one).max())
        zero = -gap * number
        ax.axhline(zero, color="#B0B0B0", linewidth=0.5)
        shade = colours[number] if colours else COLOURS["data"]
        ax.plot(time, zero + 0.5 * one / (largest or 1.0), color=shade, linestyle="-")
    ax.set_yticks(-gap * np.arange(len(values)), lfp["site"].values.tolist())
    ax.tick_params(axis="y", length=0)
    ax.spines["left"].set_visible(False)
    ax.set_xlabel("Time (ms)")
    return ax
