"""The figure of the hierarchy: the wiring it draws, and the sizes of the rates below it."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from pcsim import catalog
from pcsim.experiment import Run
from pcsim.experiment_folder import save_figures
from pcsim.responses import make_responses
from pcsim.storage import read_json, write_json

EXPERIMENT = catalog.load("experiments", "cortical_hierarchy")
PART = EXPERIMENT.collect.__globals__


def test_the_wiring_is_the_circuits_own():
    model = catalog.load("circuits", "cortical_column")
    found = PART["wiring"](model)
    declared = {(one.source, one.target) for one in model.projections if one.source != "stimulus"}
    assert {(one["source"], one["target"]) for one in found["projections"]} == declared
    courses = {(one["source"], one["target"]): one["course"] for one in found["projections"]}
    assert courses["error_V1", "input_V2"] == "forward"
    assert courses["latent_V2", "prediction_V1"] == "backward"
    assert courses["error_V1", "latent_V1"] == "local"
    assert sum(one["size"] for one in found["populations"]) == sum(
        one.size for one in model.populations
    )


def test_sizes_are_root_mean_squares_by_role_and_area():
    rng = np.random.default_rng(2)
    rate = rng.normal(size=(3, 4, 5))
    units = {
        "population": ["error", "error", "latent", "error", "latent"],
        "level": [0, 1, 1, 1, 1],
        "area": ["LGN", "V1", "V1", "V1", "V1"],
    }
    responses = make_responses(
        rate, time=0.01 * np.arange(1, 5), units=units, trial={"condition": ["a", "b", "c"]}
    )
    found = PART["sizes"](responses)["rate"]
    wanted = np.sqrt((rate[:, :, [1, 3]] ** 2).mean(axis=(0, 2)))
    np.testing.assert_allclose(found.sel(role="error", area="V1"), wanted)
    assert np.isnan(found.sel(role="latent", area="LGN")).all()


def test_figures_are_drawn_from_saved_numbers_at_the_widths_of_journals(tmp_path):
    model = catalog.load("circuits", "cortical_column")
    settings = {"seeds": (0, 1), "scale": "quick"}
    pieces = {}
    areas = ["LGN", "V1", "V2", "V4"]
    for seed in settings["seeds"]:
        place = tmp_path / "pieces" / f"{seed}"
        place.mkdir(parents=True)
        write_json(place / "wiring.json", PART["wiring"](model))
        values = np.abs(np.random.default_rng(seed).normal(size=(2, 4, 6)))
        values[1, 0] = np.nan
        coords = {"role": ["error", "latent"], "area": areas, "time": 0.05 * np.arange(1, 7)}
        whole = xr.Dataset({"rate": (("role", "area", "time"), values)}, coords=coords)
        whole.to_netcdf(place / "sizes.nc", engine="h5netcdf")
        pieces[f"respond/{seed}"] = place
    run = Run(tmp_path, EXPERIMENT.name, EXPERIMENT.question, "quick", settings, pieces)
    EXPERIMENT.collect(run)
    kept = xr.load_dataset(tmp_path / "sizes.nc", engine="h5netcdf")
    assert kept["rate"].dims == ("replica", "role", "area", "time")
    assert read_json(tmp_path / "wiring.json") == PART["wiring"](model)
    for path in tmp_path.glob("pieces/*/*"):
        path.unlink()
    files = save_figures(run, "state", EXPERIMENT.figures)
    for name, width in (("figure", 180), ("anatomy", 85)):
        data = Path(tmp_path / f"{name}.pdf").read_bytes()
        box = re.findall(rb"/MediaBox \[ 0 0 ([\d.]+)", data)
        assert float(box[0]) / 72 * 25.4 == pytest.approx(width, abs=0.1)
        assert b"/FontFile2" in data
        assert b"/Subtype /Image" not in data
    assert len(files) == 6
