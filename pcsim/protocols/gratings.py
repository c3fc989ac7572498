"""Gratings cut to each unit: on its own centre, at its own orientation and spatial frequency."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from pcsim.messages import refusal
from pcsim.model import Model
from pcsim.protocols.fields import map_fields, preferences
from pcsim.protocols.signals import respond, signal_role, visual_field, window_mean
from pcsim.stimuli import gratings

__all__ = ["amplitude", "fitted_gratings", "fitted_units", "size_tuning"]

PHASES = np.arange(4) * np.pi / 2
DURATION, STEADY = 0.5, 0.3
"""Seconds a grating is shown, and from when the response counts as steady."""
CENTRAL = 0.16
"""Degrees: units within this distance of the field's centre, on both axes, are measured."""
MOST_UNITS = {"quick": 16, "full": 32}
N_SIZES = 12


def fitted_units(model: Model, level: int, *, seed: int, scale: str) -> xr.Dataset:
    """Choose central units of a level and map what they prefer.

    Returns
    -------
    Dataset on unit: the preferences of `pcsim.protocols.preferences`, `largest` (the widest disc,
    degrees, that fits the field around the unit) and `index`, the unit's place among those of
    its `role` at its `level`.
    """
    role = signal_role(model, level)
    if role is None:
        found = f"{type(model).__name__} without units to read at level {level}"
        raise ValueError(refusal("fitted_units", found, "error, output or latent units there"))
    fields, responses = map_fields(model, level=level, role=role, seed=seed)
    near = np.maximum(np.abs(responses["x"].values), np.abs(responses["y"].values)) <= CENTRAL
    index = np.flatnonzero(near)
    most = MOST_UNITS[scale]
    if len(index) > most:
        rng = np.random.default_rng([seed, 7])
        index = np.sort(rng.choice(index, most, replace=False))
    field, px_per_deg = visual_field(model)
    units = preferences(fields.isel(unit=index), px_per_deg=px_per_deg)
    ny, nx = (side / px_per_deg for side in field)
    rooms = nx - 2 * np.abs(units["x"].values), ny - 2 * np.abs(units["y"].values)
    room = xr.DataArray(np.minimum(*rooms), dims="unit")
    return units.assign(largest=room, index=("unit", index)).assign_coords(role=role, level=level)


def fitted_gratings(
    model: Model, units: xr.Dataset, parameters: Mapping[str, Any], *, seed: int = 0
) -> tuple[xr.DataArray, xr.Dataset]:
    """Show every unit its own gratings at four phases and return the amplitude of its response.

    Parameters
    ----------
    model
        Any model with a visual field.
    units
        From `fitted_units`.
    parameters
        Changes of the unit's preferred grating, by the names of `pcsim.stimuli.gratings`: numbers,
        or DataArrays over unit and any further dimensions. All are shown in one batch.
    seed
        Of the run.

    Returns
    -------
    response : (unit, ...)
        Amplitude over the phases of the rate from 0.3 to 0.5 s.
    responses
        Of all units that were read.
    """
    own = {name: units[name] for name in ("x", "y", "orientation", "spatial_frequency")}
    shown = {name: xr.DataArray(value) for name, value in {**own, **parameters}.items()}
    shown["phase"] = xr.DataArray(PHASES, dims="phase")
    index = xr.DataArray(np.arange(units.sizes["unit"]), dims="unit")
    spread = xr.broadcast(index, *shown.values())
    dims = ("unit", *(d for d in spread[0].dims if d not in ("unit", "phase")), "phase")
    own_unit, *grid = (one.transpose(*dims) for one in spread)
    flat: dict[str, Any] = {
        name: one.to_numpy().ravel() for name, one in zip(shown, grid, strict=True)
    }
    field, px_per_deg = visual_field(model)
    stimulus = gratings(field, **flat, duration=DURATION, px_per_deg=px_per_deg)
    level, role = int(units["level"].item()), str(units["role"].item())
    responses = respond(model, stimulus, level=level, role=role, every=0.05, seed=seed)
    steady = window_mean(responses, STEADY, DURATION)
    which = units["index"].to_numpy()[own_unit.to_numpy().ravel()]
    by_phase = steady[np.arange(len(steady)), which].reshape(own_unit.shape)
    response = own_unit.isel(phase=0, drop=True).astype(float).copy(data=amplitude(by_phase))
    return response, responses


def size_tuning(model: Model, units: xr.Dataset, *, seed: int = 0) -> xr.Dataset:
    """Measure the response to discs from 0.2 to 10 sigma of each unit's field, 12 on a log scale.

    Discs end where the field ends: larger ones are shown at the unit's largest diameter.

    Returns
    -------
    Dataset: `response` and `diameter` (unit, size), degrees; `size` in sigma.
    """
    sigmas = xr.DataArray(np.geomspace(0.2, 10.0, N_SIZES), dims="size")
    wanted = units["sigma"] * sigmas
    diameter = wanted.where(wanted < units["largest"], units["largest"]).transpose("unit", "size")
    response, _ = fitted_gratings(model, units, {"diameter": diameter}, seed=seed)
    tuning = xr.Dataset({"response": response, "diameter": diameter})
    return tuning.assign_coords(size=sigmas.to_numpy())


def amplitude(by_phase: NDArray[Any], axis: int = -1) -> NDArray[np.float64]:
    """Return sqrt(2) times the root mean square over evenly spaced phases.

    For a unit that is linear in a grating this is the amplitude of its response, whatever phase
    it prefers.

    Examples
    --------
    >>> phases = np.arange(4) * np.pi / 2
    >>> amplitude(3.0 * np.cos(phases - 0.4)).round(12)
    np.float64(3.0)
    """
    return np.asarray(np.sqrt(2.0 * (np.asarray(by_phase) ** 2).mean(axis=axis)))[()]
