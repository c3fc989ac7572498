"""Circuits that see images through a bank of oriented filters: the feed-forward controls."""

from __future__ import annotations

import abc
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, TypeVar

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from pcsim.circuit import Circuit
from pcsim.filters import gabor_bank

__all__ = ["FilterBankCircuit", "draw_bank"]

FIELD = (32, 42)
PX_PER_DEG = 16.0
Bank = TypeVar("Bank", bound="FilterBankCircuit")


def draw_bank(
    n: int, rng: np.random.Generator, *, spread: float = 0.1
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Draw Gabor filters (n, 1344) over a field of 32 by 42 px, and their places (n, 2) in degrees.

    Parameters
    ----------
    n, rng
        How many, and where the randomness comes from.
    spread
        Share of the field's sides over which the centres lie, around the middle.
    """
    filters, table = gabor_bank(FIELD, n, rng=rng, px_per_deg=PX_PER_DEG, spread=spread)
    places = np.stack([table["x"], table["y"]], axis=1) / PX_PER_DEG
    return np.asarray(filters, dtype=np.float64), np.asarray(places, dtype=np.float64)


@dataclass(frozen=True, kw_only=True)
class FilterBankCircuit(Circuit):
    """A circuit whose input is an image, less mid-grey, through unit-norm filters times a gain.

    The bank follows the spread of preferred spatial frequency of macaque simple cells (De Valois et
    al. 1982, Vision Res. 22:545: median 2.85 cycles per degree), limited to what the sampling of
    the field can carry. Fitting draws a bank and sets the gain; nothing else is learned.
    """

    filters: Any = field(default_factory=lambda: draw_bank(32, np.random.default_rng(0))[0])
    """(n, 1344) receptive fields, unit norm and zero mean."""
    places: Any = field(default_factory=lambda: draw_bank(32, np.random.default_rng(0))[1])
    """(n, 2) centres x, y of the outputs, degrees."""
    gain: float = 1.0
    """Of the filters; fitting sets it so that they have a root mean square of 1 on its stimulus."""
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

    def prepare(self, stimulus: xr.DataArray) -> NDArray[np.float64]:
        """Return the images less mid-grey, (trial, time, 1344)."""
        return Circuit.prepare(self, stimulus) - 0.5

    @abc.abstractmethod
    def untrained(self: Bank, *, seed: int) -> Bank:
        """Return the circuit with another draw of its bank, at a gain of 1."""

    def fit(self: Bank, stimulus: xr.DataArray, *, seed: int = 0) -> Bank:
        """Draw a bank and scale it so that filters have a root mean square of 1 on `stimulus`."""
        model = self.untrained(seed=seed)
        drive = model.prepare(stimulus) @ model.filters.T
        return replace(model, gain=float(1.0 / np.sqrt((drive**2).mean())))
