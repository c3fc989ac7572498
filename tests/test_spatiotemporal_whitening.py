"""The whitening experiment on little input: laws of whitening, not remembered numbers."""

from __future__ import annotations

import csv

import numpy as np
import pytest
import xarray as xr

from pcsim import catalog
from pcsim.experiment import run_experiment

SETTINGS = {"n_patches": 4000, "n_movies": 6}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    experiment = catalog.load("experiments", "spatiotemporal_whitening")
    out = tmp_path_factory.mktemp("runs") / "whitening"
    return run_experiment(experiment, seeds=2, settings=SETTINGS, out=out, workers=0)


@pytest.fixture(scope="module")
def table(run):
    with (run.folder / "table.csv").open() as file:
        return {(row["stage"], row["quantity"]): row for row in csv.DictReader(file)}


def value(table, stage, quantity):
    return float(table[stage, quantity]["mean"])


def test_every_spatial_whitening_decorrelates_held_out_patches(table):
    before = value(table, "before", "correlation")
    for kind in ("ZCA", "PCA", "Cholesky", "rotated ZCA"):
        assert value(table, kind, "correlation") < 0.1 * before


def test_whiteness_does_not_make_filters_local(table):
    for local in ("ZCA", "Cholesky"):
        assert value(table, local, "locality") > 0.95
    for spread in ("PCA", "rotated ZCA"):
        assert value(table, spread, "locality") < 0.5


def test_temporal_whitening_flattens_a_falling_spectrum(table):
    assert value(table, "before", "slope") < -1.5
    for flow in ("frame difference", "AR(4)", "ZCA then AR"):
        assert abs(value(table, flow, "slope")) < 0.3
        assert value(table, flow, "variation") < 0.5 * value(table, "before", "variation")


def test_the_table_says_how_many_replicas(table):
    assert {row["n_replicas"] for row in table.values()} == {"2"}


def test_the_figure_shows_the_saved_spectra(run):
    figure = catalog.load("experiments", "spatiotemporal_whitening").figures(run)["figure"]
    axes = {ax.get_xlabel(): ax for ax in figure.findobj(lambda a: hasattr(a, "get_xlabel"))}
    drawn = axes["Spatial frequency (cycles/deg)"].lines[0].get_ydata()
    with xr.open_dataset(run.folder / "space.nc", engine="h5netcdf") as space:
        power = space["spectrum"].sel(stage_pair="before")
        band = power.sel(frequency=slice(1.0, 4.0)).mean("frequency")
        np.testing.assert_allclose(drawn, (power / band).mean("replica"), rtol=1e-12)
    for suffix in ("pdf", "png"):
        assert (run.folder / f"figure.{suffix}").stat().st_size > 10_000
