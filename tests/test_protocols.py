"""Shared protocols against models whose receptive fields and responses are known exactly."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import xarray as xr

from pcsim import protocols
from pcsim.filters import gabor
from pcsim.responses import make_responses
from pcsim.stimuli import gratings

FIELD, PX = (24, 30), 16.0


@dataclass(frozen=True)
class Linear:
    """Known filters; answers at once, at the end of every frame."""

    filters: Any
    population: str = "output"

    @property
    def field_shape(self) -> tuple[int, int] | None:
        return FIELD

    @property
    def px_per_deg(self) -> float | None:
        return PX

    def run(
        self, stimulus: xr.DataArray, *, seed: int = 0, record: Sequence[str] | None = None
    ) -> xr.Dataset:
        n = len(self.filters)
        images = stimulus.to_numpy() - 0.5
        rate = np.einsum("btyx,uyx->btu", images, self.filters)
        # Two times a frame, so that windows inside a long frame are never empty.
        frame = float(stimulus["frame_duration"])
        time = np.concatenate([stimulus["time"].values + s * frame for s in (0.8, 1.0)])
        order = np.argsort(time)
        units = {
            "population": np.full(n, self.population),
            "level": np.ones(n, dtype=int),
            "area": np.full(n, "V1"),
            "x": np.zeros(n),
            "y": np.zeros(n),
        }
        doubled = np.concatenate([rate, rate], axis=1)[:, order]
        trial = {"condition": stimulus["condition"].values}
        return make_responses(doubled, time=time[order], units=units, trial=trial)


def gabors() -> tuple[Any, list[dict[str, float]]]:
    """Three Gabors with parameters that all differ; in pixels, as `gabor` takes them."""
    parameters = [
        {"x": 2.0, "y": -1.0, "sigma": 2.0, "frequency": 0.20, "orientation": 0.5, "phase": 0.3},
        {"x": -3.0, "y": 2.0, "sigma": 2.5, "frequency": 0.15, "orientation": 2.0, "phase": 1.9},
        {"x": 0.0, "y": 0.0, "sigma": 1.8, "frequency": 0.25, "orientation": 1.2, "phase": -1.0},
    ]
    return np.stack([gabor(FIELD, **one) for one in parameters]), parameters


def test_noise_maps_linear_fields_exactly():
    filters, _ = gabors()
    fields, responses = protocols.map_fields(
        Linear(filters), level=1, role="output", n=900, side=24, seed=3
    )
    inside = (slice(None), slice(None), slice(3, 27))
    np.testing.assert_allclose(fields.values[inside], filters[inside], atol=1e-10)
    assert responses.sizes["trial"] == 900


def test_preferences_are_those_of_the_gabor():
    filters, parameters = gabors()
    found = protocols.preferences(xr.DataArray(filters, dims=("unit", "y", "x")), px_per_deg=PX)
    for unit, wanted in enumerate(parameters):
        one = found.isel(unit=unit)
        assert abs(float(one.x) - wanted["x"] / PX) < 0.5 / PX
        assert abs(float(one.y) - wanted["y"] / PX) < 0.5 / PX
        # The energy of a Gaussian envelope is narrower than the envelope by the root of 2.
        assert abs(float(one.sigma) * PX - wanted["sigma"] / np.sqrt(2)) < 0.3 * wanted["sigma"]
        turn = (float(one.orientation) - wanted["orientation"] + np.pi / 2) % np.pi - np.pi / 2
        assert abs(turn) < 0.15
        assert abs(float(one.spatial_frequency) - wanted["frequency"] * PX) < 0.05 * PX


def test_fitted_gratings_return_the_amplitude_of_a_linear_unit():
    filters, _ = gabors()
    model = Linear(filters)
    units = protocols.fitted_units(model, 1, seed=0, scale="quick")
    contrast = xr.DataArray([0.2, 0.7], dims="contrast")
    shown, _ = protocols.fitted_gratings(model, units, {"diameter": 0.9, "contrast": contrast})
    assert shown.dims == ("unit", "contrast")
    for unit in range(3):
        own = {k: float(units[k][unit]) for k in ("x", "y", "orientation", "spatial_frequency")}
        quadrature = gratings(
            FIELD, **own, diameter=0.9, phase=[0.0, np.pi / 2], contrast=0.7, px_per_deg=PX
        )
        drive = np.einsum("byx,yx->b", quadrature.values[:, 0] - 0.5, filters[unit])
        np.testing.assert_allclose(shown[unit, 1], np.hypot(*drive), rtol=1e-9)
        np.testing.assert_allclose(shown[unit, 0] / shown[unit, 1], 0.2 / 0.7, rtol=1e-9)


def test_size_tuning_stays_in_the_field_and_grows_for_linear_units():
    filters, _ = gabors()
    model = Linear(filters)
    units = protocols.fitted_units(model, 1, seed=0, scale="quick")
    tuning = protocols.size_tuning(model, units)
    room = np.minimum(FIELD[1] / PX - 2 * np.abs(units.x), FIELD[0] / PX - 2 * np.abs(units.y))
    assert (tuning.diameter.max("size") <= room + 1e-12).all()
    plateau = tuning.response.isel(size=slice(-2, None)).mean("size")
    assert (plateau > 0.8 * tuning.response.max("size")).all()


def test_amplitude_does_not_depend_on_the_preferred_phase(rng):
    phases = np.arange(4) * np.pi / 2
    shift = rng.uniform(0, 2 * np.pi, (50, 1))
    found = protocols.amplitude(2.5 * np.cos(phases + shift))
    np.testing.assert_allclose(found, 2.5, rtol=1e-12)


def test_roles_are_read_in_order_of_preference():
    model = Linear(gabors()[0], population="latent")
    assert protocols.signal_role(model, 1) == "latent"
    assert protocols.signal_role(model, 2) is None
    assert protocols.first_level(model) == 1
    assert protocols.lacks(model, 1) == ""
    assert protocols.lacks(model, 2) == "it has no error or output or latent units at level 2"


def test_a_model_without_units_to_read_is_refused():
    with pytest.raises(ValueError, match=r"fitted_units: found .*, expected .*"):
        protocols.fitted_units(Linear(gabors()[0]), 2, seed=0, scale="quick")
