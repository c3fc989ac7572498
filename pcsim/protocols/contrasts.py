"""Comparing responses: the index of two, which units respond, and where the estimate is read."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from pcsim.model import Model
from pcsim.protocols.signals import labels, visual_field
from pcsim.stimuli import natural_patches

__all__ = [
    "ESTIMATES",
    "contrast_index",
    "deepest_estimate",
    "departure",
    "equal_patches",
    "responsive",
]

Floats = NDArray[np.float64]
ESTIMATES = ("latent", "output", "error")
"""Roles read where a claim is about estimates: latents, or what a model without them sends on."""


def contrast_index(one: Any, other: Any) -> Floats:
    """Return (one - other) / (one + other) of responses that are not negative; 0 if both are 0.

    Examples
    --------
    >>> contrast_index(np.array([3.0, 0.0]), np.array([1.0, 0.0]))
    array([0.5, 0. ])
    """
    one, other = np.asarray(one, dtype=np.float64), np.asarray(other, dtype=np.float64)
    total = one + other
    return np.where(total > 0, (one - other) / np.where(total > 0, total, 1.0), 0.0)


def responsive(size: Any) -> NDArray[np.bool_]:
    """Return which units (..., unit) exceed 5 % of the population's 95th percentile on average.

    Examples
    --------
    >>> responsive(np.array([[4.0, 0.1, 3.0]]))
    array([ True, False,  True])
    """
    size = np.asarray(size, dtype=np.float64)
    level = size.reshape(-1, size.shape[-1]).mean(axis=0)
    scale = float(np.percentile(level, 95))
    return np.asarray(level > 0.05 * scale if scale > 1e-12 else np.zeros(level.size, dtype=bool))


def deepest_estimate(model: Model) -> tuple[int, str] | None:
    """Return level and role of the deepest latents, else outputs, else errors; None if none."""
    there = labels(model)
    for role in ESTIMATES:
        levels = [level for level, one in there if one == role]
        if levels:
            return max(levels), role
    return None


def departure(responses: xr.Dataset, rest: str = "grey") -> Floats:
    """Return |rate less that of the trial whose condition is `rest`|, (trial, time, unit)."""
    rate = responses["rate"].transpose("trial", "time", "unit").to_numpy()
    resting = rate[responses["condition"].values == rest].mean(axis=0)
    return np.asarray(np.abs(rate - resting), dtype=np.float64)


def equal_patches(model: Model, n: int, *, contrast: float, seed: int) -> Floats:
    """Return natural patches that fill a model's field, of mean grey and equal contrast, (n, y, x).

    Of 4 n patches the flatter half is left out, because noise would be scaled up, and of the rest
    those with the highest peaks, because they would be clipped.

    Parameters
    ----------
    model
        Whose field they fill.
    n
        How many.
    contrast
        Root mean square, in units of the range of luminance.
    seed
        Of the patches.
    """
    field, px_per_deg = visual_field(model)
    values = natural_patches(field, n=4 * n, px_per_deg=px_per_deg, seed=seed).to_numpy()[:, 0]
    centred = values - values.mean(axis=(1, 2), keepdims=True)
    spread = centred.std(axis=(1, 2), keepdims=True)
    rough = np.sort(np.argsort(spread[:, 0, 0])[2 * n :])
    scaled = contrast * centred[rough] / spread[rough]
    peak = np.abs(scaled).max(axis=(1, 2))
    return np.asarray(np.clip(0.5 + scaled[np.sort(np.argsort(peak)[:n])], 0.0, 1.0))
