"""What does whitening in space and in time make of natural images and movies? (thesis, fig. 8.1)

Filters of four whitenings that decorrelate equally well, a photograph and a movie before and
after, and the power spectra of both. Filters are fitted on one set of natural input and measured
on another.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from pcsim.experiment import Experiment, Piece, Run
from pcsim.filters import filter_valid
from pcsim.measures import (
    annulus_depth,
    locality,
    power_spectrum,
    spatial_power_spectrum,
    spectral_slope,
    spectral_variation,
)
from pcsim.stimuli import natural_patches, natural_sequences, photographs, preprocess
from pcsim.storage import atomic_path, write_text
from pcsim.whitening import FrameDifference, SpatioTemporal, TemporalAR, Whitening

if TYPE_CHECKING:
    from matplotlib.figure import Figure, SubFigure

__all__ = ["EXPERIMENT"]

SIDE, MOVIE_SIDE, CROP = 13, 16, 192
PX_PER_DEG, FRAME = 16.0, 0.008
RIDGE = 0.1
ORDER = 4
SHOWN_IMAGE = "china"
SHOWN_FRAMES = 5
SPATIAL_BAND, TEMPORAL_BAND = (1.0, 4.0), (3.0, 15.0)
SPATIAL = {
    "ZCA": Whitening("zca", RIDGE),
    "PCA": Whitening("pca", RIDGE),
    "Cholesky": Whitening("cholesky", RIDGE),
    "rotated ZCA": Whitening("zca", RIDGE, rotation=0),
}
TEMPORAL = {"frame difference": FrameDifference(), f"AR({ORDER})": TemporalAR(order=ORDER)}
BOTH = "ZCA, then AR"


def whiten_space(folder: Path, needs: Mapping[str, Path], *, seed: int, n: int) -> None:
    """Fit the spatial whitenings on patches; keep filters, a photograph and spectra."""
    field = (SIDE, SIDE)
    patches = natural_patches(field, n=n, seed=seed, preprocessing="log", px_per_deg=PX_PER_DEG)
    test = natural_patches(field, n=n, seed=seed + 500, preprocessing="log", px_per_deg=PX_PER_DEG)
    data, held_out = (one.to_numpy().reshape(n, -1) for one in (patches, test))
    centre = (SIDE**2) // 2
    filters, correlation = [], [mean_correlation(held_out)]
    for whitening in SPATIAL.values():
        fitted = whitening.fit(data)
        filters.append(np.asarray(fitted.filters)[centre].reshape(field))
        correlation.append(mean_correlation(np.asarray(fitted.forward(held_out))))
    kind = list(SPATIAL)
    bank = xr.DataArray(np.stack(filters), {"kind": kind}, dims=("kind", "y", "x"))
    image = preprocess(photographs(SHOWN_IMAGE)[SHOWN_IMAGE], kind="log")
    crop = xr.DataArray(image[90 : 90 + CROP, 250 : 250 + CROP], dims=("row", "column"))
    kernel = bank.sel(kind="ZCA").to_numpy()[::-1, ::-1]
    large = natural_patches(
        (64, 64), n=200, seed=seed + 900, preprocessing="log", px_per_deg=PX_PER_DEG
    ).isel(time=0)
    white = xr.DataArray(filter_valid(large.to_numpy(), kernel), dims=("trial", "y", "x"))
    inner = slice(SIDE // 2, 64 - SIDE // 2)
    spectra = [
        spatial_power_spectrum(one, px_per_deg=PX_PER_DEG).mean("trial")
        for one in (large.isel(y=inner, x=inner).drop_vars(("x", "y")), white)
    ]
    xr.Dataset(
        {
            "filter": bank,
            "depth": annulus_depth(bank),
            "locality": locality(bank),
            "correlation": ("stage", correlation),
            "image": crop,
            "white_image": (
                ("white_row", "white_column"),
                filter_valid(crop.to_numpy(), kernel),
            ),
            "spectrum": xr.concat(spectra, xr.Variable("stage_pair", ["before", "after"])),
        },
        coords={"stage": ["before", *kind]},
    ).to_netcdf(folder / "result.nc", engine="h5netcdf")


def mean_correlation(data: Any) -> float:
    """Return the mean absolute correlation of different features over samples (n, feature)."""
    correlation = np.abs(np.corrcoef(data.T))
    n = len(correlation)
    return float((correlation.sum() - n) / (n * (n - 1)))


def whiten_time(folder: Path, needs: Mapping[str, Path], *, seed: int, n: int) -> None:
    """Fit the temporal whitenings on movies; keep frames and spectra of others."""
    movies, test = (
        natural_sequences(
            (MOVIE_SIDE, MOVIE_SIDE), n=n, n_frames=500, frame_duration=FRAME, seed=start + seed,
            preprocessing="log", px_per_deg=PX_PER_DEG,
        )
        for start in (0, 500)
    )  # fmt: skip
    data, held_out = (one.to_numpy().reshape(n, 500, -1) for one in (movies, test))
    flows: dict[str, Any] = {
        **TEMPORAL,
        BOTH: SpatioTemporal(Whitening("zca", RIDGE), TemporalAR(order=ORDER)),
    }
    stages = {"before": held_out}
    stages |= {name: np.asarray(f.fit(data).forward(held_out)) for name, f in flows.items()}
    labels = xr.Variable("flow", list(stages))
    spectra = [power_spectrum(settled(one), segment=1.0).mean("unit") for one in stages.values()]
    spectrum = xr.concat(spectra, labels)
    frames = [one[0, 100 : 100 + SHOWN_FRAMES] for one in stages.values()]
    shape = (len(stages), SHOWN_FRAMES, MOVIE_SIDE, MOVIE_SIDE)
    xr.Dataset(
        {
            "spectrum": spectrum,
            "variation": spectral_variation(spectrum, band=TEMPORAL_BAND),
            "slope": spectral_slope(spectrum, band=TEMPORAL_BAND)["slope"],
            "frames": (("flow", "frame", "y", "x"), np.stack(frames).reshape(shape)),
        }
    ).to_netcdf(folder / "result.nc", engine="h5netcdf")


def settled(values: Any) -> xr.DataArray:
    """Label sequences (trial, time, unit) with seconds, the first half second left out."""
    time = FRAME * np.arange(values.shape[1])
    array = xr.DataArray(values, {"time": time}, dims=("trial", "time", "unit"))
    return array.isel(time=time > 0.5)


def pieces(settings: Mapping[str, Any]) -> list[Piece]:
    """Return one piece for space and one for time, for each seed."""
    out = []
    for seed in settings["seeds"]:
        space = {"seed": seed, "n": settings["n_patches"]}
        time = {"seed": seed, "n": settings["n_movies"]}
        out.append(Piece(key=f"space/{seed}", task=whiten_space, kwargs=space))
        out.append(Piece(key=f"time/{seed}", task=whiten_time, kwargs=time))
    return out


def collect(run: Run) -> None:
    """Stack the replicas into two files and write the numbers as a table."""
    rows = ["stage,quantity,mean,lowest,highest,n_replicas"]
    for room in ("space", "time"):
        parts = []
        for seed in run.settings["seeds"]:
            path = run.piece(f"{room}/{seed}") / "result.nc"
            with xr.open_dataset(path, engine="h5netcdf") as one:
                parts.append(one.load())
        result = xr.concat(parts, xr.Variable("replica", list(run.settings["seeds"])))
        with atomic_path(run.folder / f"{room}.nc") as part:
            result.to_netcdf(part, engine="h5netcdf")
        names = ("depth", "locality", "correlation") if room == "space" else ("variation", "slope")
        for name in names:
            (dim,) = (d for d in result[name].dims if d != "replica")
            for label in result[dim].values:
                values = result[name].sel({dim: label})
                numbers = (float(values.mean()), float(values.min()), float(values.max()))
                text = ",".join(f"{one:.6g}" for one in numbers)
                rows.append(f"{label},{name},{text},{values.sizes['replica']}".replace(", ", " "))
    write_text(run.folder / "table.csv", "\n".join(rows) + "\n")


def figures(run: Run) -> dict[str, Figure]:
    """Draw the figure from the saved numbers."""
    from pcsim.plots import DOUBLE_COLUMN, publication_figure

    with (
        xr.open_dataset(run.folder / "space.nc", engine="h5netcdf") as space,
        xr.open_dataset(run.folder / "time.nc", engine="h5netcdf") as time,
        publication_figure(DOUBLE_COLUMN, 150.0) as figure,
    ):
        rows: Any = figure.subfigures(3, 1, height_ratios=[1.15, 0.9, 1.1])
        upper, middle, lower = rows
        columns: Any = upper.subfigures(1, 2, width_ratios=[1.0, 1.05])
        left, right = columns
        draw_filters(left, space)
        draw_image(right, space)
        draw_frames(middle, time)
        axes = lower.subplots(1, 2)
        draw_spectra(axes, space, time)
        for part, letter in zip((left, right, middle, lower), "abcd", strict=True):
            part.suptitle(letter, x=0.005, y=0.99, ha="left", va="top", fontweight="bold")
    return {"figure": figure}


def draw_filters(part: SubFigure, space: xr.Dataset) -> None:
    """Draw the filter of the middle output of each whitening."""
    for ax, kind in zip(part.subplots(2, 2).flat, space["kind"].values, strict=True):
        one = space["filter"].sel(kind=kind).isel(replica=0).to_numpy()
        limit = np.abs(one).max()
        ax.imshow(one, cmap="gray", vmin=-limit, vmax=limit)
        ax.set_axis_off()
        near = float(space["locality"].sel(kind=kind).mean())
        ax.set_title(f"{kind}, $K_4$ = {near:.2f}")


def draw_image(part: SubFigure, space: xr.Dataset) -> None:
    """Draw the photograph and what ZCA makes of it."""
    pair = {"Log luminance": space["image"], "After ZCA": space["white_image"]}
    for ax, (title, image) in zip(part.subplots(1, 2), pair.items(), strict=True):
        values = image.isel(replica=0).to_numpy()
        ax.imshow(values, cmap="gray", **percentiles(values))
        ax.set_axis_off()
        ax.set_title(title)


def draw_frames(part: SubFigure, time: xr.Dataset) -> None:
    """Draw consecutive frames of a movie, before and after, in two blocks of rows."""
    flows = list(time["flow"].values)
    axes = part.subplots(2, 2 * SHOWN_FRAMES)
    for row, column in np.ndindex(2, 2):
        flow = flows[2 * row + column]
        frames = time["frames"].sel(flow=flow).isel(replica=0).to_numpy()
        limits = percentiles(frames)
        here = axes[row, column * SHOWN_FRAMES : (column + 1) * SHOWN_FRAMES]
        for ax, frame in zip(here, frames, strict=True):
            ax.imshow(frame, cmap="gray", **limits)
            ax.set_axis_off()
        name = "log luminance" if flow == "before" else flow
        here[SHOWN_FRAMES // 2].set_title(f"{name} (8 ms a frame)")


def percentiles(values: Any) -> dict[str, float]:
    """Return limits of grey that leave out the outermost half per cent on both sides."""
    low, high = np.percentile(values, [0.5, 99.5])
    return {"vmin": float(low), "vmax": float(high)}


def draw_spectra(axes: Any, space: xr.Dataset, time: xr.Dataset) -> None:
    """Draw spatial and temporal power, each relative to its mean over the band of the table."""
    from pcsim.plots import colour, plot_spectrum

    pairs = {"log luminance": "before", "after ZCA": "after"}
    for label, stage in pairs.items():
        power = relative(space["spectrum"].sel(stage_pair=stage), SPATIAL_BAND)
        shade = colour("data" if stage == "before" else "error")
        plot_spectrum(power, ax=axes[0], label=label, color=shade, linestyle="-")
    axes[0].set_xlabel("Spatial frequency (cycles/deg)")
    for flow in time["flow"].values:
        power = relative(time["spectrum"].sel(flow=flow), TEMPORAL_BAND)
        label = "log luminance" if flow == "before" else str(flow)
        line: dict[str, Any] = (
            {"color": colour("data"), "linestyle": "-"} if flow == "before" else {}
        )
        plot_spectrum(power.sel(frequency=slice(1, 50)), ax=axes[1], label=label, **line)
    axes[1].set_xlabel("Temporal frequency (Hz)")
    for ax, ticks in zip(axes, ((0.5, 1, 2, 4, 8), (1, 3, 10, 30)), strict=True):
        ax.set_ylabel("Power (relative)")
        ax.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
        ax.set_xticks([], minor=True)
        ax.legend(loc="lower left")


def relative(power: xr.DataArray, band: tuple[float, float]) -> xr.DataArray:
    """Return power over its mean in a band."""
    return power / power.sel(frequency=slice(*band)).mean("frequency")


EXPERIMENT = Experiment(
    name="spatiotemporal_whitening",
    question="What does whitening in space and in time make of natural images and movies?",
    scales={
        "quick": {"seeds": 3, "n_patches": 20_000, "n_movies": 24},
        "full": {"seeds": 5, "n_patches": 40_000, "n_movies": 64},
    },
    pieces=pieces,
    collect=collect,
    figures=figures,
)
