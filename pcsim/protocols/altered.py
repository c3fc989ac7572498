"""Models that a protocol alters in how it reads them: the stand-ins of some controls."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from pcsim.model import Model
from pcsim.responses import make_responses

__all__ = ["Altered", "ImageFunction", "StandIn", "alteration"]


@dataclass(frozen=True)
class StandIn:
    """What stands in for a model and has its visual field; a subclass says what it answers."""

    model: Any

    @property
    def field_shape(self) -> tuple[int, int] | None:
        """Rows and columns of the visual field."""
        return cast("Model", self.model).field_shape

    @property
    def px_per_deg(self) -> float | None:
        """Pixels per degree."""
        return cast("Model", self.model).px_per_deg


@dataclass(frozen=True)
class Altered(StandIn):
    """A model that answers as it does, and a word that tells the protocol what to do with it."""

    change: str

    def run(
        self, stimulus: xr.DataArray, *, seed: int = 0, record: Sequence[str] | None = None
    ) -> xr.Dataset:
        """Return the responses of the model itself."""
        return cast("Model", self.model).run(stimulus, seed=seed, record=record)


def alteration(model: Any) -> tuple[Any, str]:
    """Return the model itself and the word of its alteration, "" if it has none.

    Examples
    --------
    >>> alteration(Altered("a model", "shuffled")), alteration("a model")
    (('a model', 'shuffled'), ('a model', ''))
    """
    return (model.model, model.change) if isinstance(model, Altered) else (model, "")


@dataclass(frozen=True)
class ImageFunction:
    """A stand-in of level 1 without time: each frame (..., pixels) less mid-grey is mapped once."""

    field_shape: tuple[int, int]
    px_per_deg: float
    function: Callable[[NDArray[np.float64]], NDArray[np.float64]]

    def run(
        self, stimulus: xr.DataArray, *, seed: int = 0, record: Sequence[str] | None = None
    ) -> xr.Dataset:
        """Return the function of each frame, (trial, time, unit), at the end of the frame."""
        frames = stimulus.transpose("trial", "time", "y", "x").to_numpy() - 0.5
        rate = self.function(frames.reshape(*frames.shape[:2], -1))
        time = stimulus["time"].values + float(stimulus["frame_duration"])
        middle = np.zeros(rate.shape[-1])
        units = {"population": "output", "level": 1, "area": "V1", "x": middle, "y": middle}
        return make_responses(rate, time=time, units=units, trial=stimulus)
