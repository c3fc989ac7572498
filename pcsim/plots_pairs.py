"""Two rules over conditions: means with intervals."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import xarray as xr

from pcsim.plots_style import COLOURS

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["plot_pairs"]

STYLES = {"pc": ("error", "s", "-"), "bp": ("data", "o", "--")}


def plot_pairs(data: xr.Dataset, ax: Axes, *, labels: Mapping[str, str]) -> Axes:
    """Draw `pc` and `bp`, (row, bound) with bounds "mean", "low", "high", over `condition`."""
    x = data["condition"].to_numpy().astype(float)
    for rule, (meaning, mark, line) in STYLES.items():
        mean, low, high = (data[rule].sel(bound=b).to_numpy() for b in ("mean", "low", "high"))
        ax.errorbar(
            x, mean, np.stack([mean - low, high - mean]), color=COLOURS[meaning], marker=mark,
            linestyle=line, label=labels[rule], elinewidth=0.6,
        )  # fmt: skip
    return ax
