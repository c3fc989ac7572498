"""Whose response a hypothesis reads: the first role that the model has at a level."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from pcsim.messages import refusal
from pcsim.model import Model, lesion
from pcsim.responses import select
from pcsim.stimulus import stimulus_array

__all__ = [
    "OUTPUTS",
    "blank",
    "first_level",
    "lacks",
    "recording",
    "respond",
    "roles_at",
    "signal_role",
    "visual_field",
    "window_mean",
]

OUTPUTS = ("error", "output", "latent")
"""Roles read by default: error units, or what a model without them sends on."""


def visual_field(model: Model) -> tuple[tuple[int, int], float]:
    """Return rows and columns of a model's field, and its pixels per degree.

    Raises
    ------
    ValueError
        If the model sees no images.
    """
    if model.field_shape is None or model.px_per_deg is None:
        found = f"{type(model).__name__} without a visual field"
        raise ValueError(refusal("visual_field", found, "a model that sees images"))
    return model.field_shape, model.px_per_deg


def blank(model: Model, *, duration: float = 0.02) -> xr.DataArray:
    """Return one grey trial that fills a model's field."""
    shape, px_per_deg = visual_field(model)
    return stimulus_array(
        np.full((1, 1, *shape), 0.5), frame_duration=duration, px_per_deg=px_per_deg
    )


def labels(model: Model) -> list[tuple[int, str]]:
    """Return level and role of every unit that a model records; none if it sees no images."""
    if model.field_shape is None:
        return []
    units = model.run(blank(model), seed=0)
    return list(
        zip(units["level"].values.tolist(), units["population"].values.tolist(), strict=True)
    )


def roles_at(model: Model, level: int) -> tuple[str, ...]:
    """Return the roles of the units that a model has at a level."""
    return tuple(dict.fromkeys(role for deep, role in labels(model) if deep == level))


def signal_role(model: Model, level: int, roles: Sequence[str] = OUTPUTS) -> str | None:
    """Return the first of `roles` that the model has at `level`, None if it has none."""
    there = roles_at(model, level)
    return next((role for role in roles if role in there), None)


def first_level(model: Model, roles: Sequence[str] = OUTPUTS) -> int | None:
    """Return the lowest level at which the model has one of `roles`."""
    return min((level for level, role in labels(model) if role in roles), default=None)


def lacks(model: Model, level: int, roles: Sequence[str] = OUTPUTS) -> str:
    """Return why a model cannot be read at a level, "" if it can."""
    if model.field_shape is None:
        return "it sees no images"
    if signal_role(model, level, roles) is None:
        return f"it has no {' or '.join(roles)} units at level {level}"
    return ""


def recording(model: Any, every: float | None) -> Any:
    """Return the model recording every `every` seconds, or as it does if that is None.

    Where its time step does not divide that, it takes the largest smaller one that does.

    Examples
    --------
    >>> from pcsim import catalog
    >>> retina = catalog.load("circuits", "retina_srinivasan_1982")
    >>> fine = recording(lesion(retina, dt=0.005), 0.016)
    >>> fine.dt, fine.record_dt
    (0.004, 0.016)
    """
    dt = getattr(model, "dt", None)
    if every is None:
        return model
    if dt is None or math.isclose(round(every / dt) * dt, every, rel_tol=1e-9):
        return lesion(model, record_dt=every)
    return lesion(model, record_dt=every, dt=every / math.ceil(every / dt))


def respond(
    model: Model, stimulus: xr.DataArray, *, level: int, role: str, every: float, seed: int = 0
) -> xr.Dataset:
    """Run a model and keep the units of one role at one level, recorded every `every` seconds."""
    there = getattr(model, "populations", ())
    record = [p.name for p in there if p.level == level and p.population == role] or None
    responses = recording(model, every).run(stimulus, seed=seed, record=record)
    return select(responses, level=level, population=role)


def window_mean(responses: xr.Dataset, start: float, stop: float) -> NDArray[np.float64]:
    """Return the mean rate between two times in seconds, (trial, unit)."""
    rate = select(responses, time=slice(start, stop))["rate"]
    return np.asarray(rate.transpose("trial", "time", "unit").mean("time").to_numpy())
