"""Recordings of macaque V1: image sequences (Hénaff et al. 2021), natural images (Tang 2018)."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from pcsim.messages import refusal
from pcsim.neural_files import read_npz, recording_file
from pcsim.neural_quality import responses_from_array
from pcsim.responses import make_responses

__all__ = [
    "macaque_v1_counts_henaff_2021",
    "macaque_v1_henaff_2021",
    "macaque_v1_psth_henaff_2021",
    "macaque_v1_sparseness_tang_2018",
]

HENAFF = "Hénaff et al. (2021) Nat Commun 12:5982"


class _Sequences(NamedTuple):
    """One population as its file holds it."""

    counts: NDArray[np.float64]
    """(repeat, unit, frame, movie, category, zoom); NaN where not shown."""
    psth: NDArray[np.float64]
    """(time, unit, movie, category, zoom), Hz."""
    edges: NDArray[np.float64]
    movies: list[str]
    categories: list[str]
    duration: float
    blank: NDArray[np.float64]


def macaque_v1_henaff_2021(path: str | os.PathLike[str]) -> xr.Dataset:
    """Load spike counts of one population of anaesthetised macaque V1, one trial a frame shown.

    Frames that were not shown, and repeats that were not made, are NaN in the file; they are left
    out and counted in ``attrs["exclusions"]``.

    Parameters
    ----------
    path
        One file such as ``ay2_u003_image_sequences.mat``.

    Returns
    -------
    responses : (trial, 1, unit)
        Counts in 200 ms; on `trial` `condition` (category, zoom, movie and frame), `category`,
        `zoom`, `movie`, `frame_number`, `repeat`.

    References
    ----------
    Hénaff et al. (2021), https://doi.org/10.1038/s41467-021-25939-z
    """
    where = "macaque_v1_henaff_2021"
    stored = _sequences(where, path)
    table = _counts(stored, path)
    dims = ("repeat", "frame_number", "movie", "category", "zoom")
    moved = table.transpose(*dims, "unit")
    grid = np.meshgrid(*(table[name].values for name in dims), indexing="ij")
    labels = {name: values.ravel() for name, values in zip(dims, grid, strict=True)}
    parts = (labels[name].astype(str) for name in ("category", "zoom", "movie", "frame_number"))
    names = [" ".join(words) for words in zip(*parts, strict=True)]
    return responses_from_array(
        moved.values.reshape(-1, 1, table.sizes["unit"]),
        bin_width=stored.duration,
        units={"level": 2, "area": "V1", "blank_rate": stored.blank},
        trial={"condition": names, **labels},
        missing="drop_trials",
        attrs=table.attrs,
    )


def macaque_v1_counts_henaff_2021(path: str | os.PathLike[str]) -> xr.DataArray:
    """Load every count of one population, NaN where a unit was not recorded: a labelled table.

    A third to two thirds of the trials lack some unit, so measures of pairs, such as the noise
    correlation, have more to work on here than in the whole trials of `macaque_v1_henaff_2021`.

    Returns
    -------
    count : (repeat, unit, frame_number, movie, category, zoom)
        Spikes in 200 ms. Conditions that were never shown are NaN throughout.
    """
    return _counts(_sequences("macaque_v1_counts_henaff_2021", path), path)


def _counts(stored: _Sequences, path: str | os.PathLike[str]) -> xr.DataArray:
    dims = ("repeat", "unit", "frame_number", "movie", "category", "zoom")
    sizes = dict(zip(dims, stored.counts.shape, strict=True))
    labels: dict[str, Any] = {
        **{name: np.arange(sizes[name]) for name in dims[:3]},
        "movie": stored.movies,
        "category": stored.categories,
        "zoom": ["zoom1x", "zoom2x"],
    }
    attrs = {"citation": HENAFF, "source": Path(path).name}
    return xr.DataArray(stored.counts, dims=dims, coords=labels, name="count", attrs=attrs)


def macaque_v1_psth_henaff_2021(path: str | os.PathLike[str]) -> xr.Dataset:
    """Load the PSTHs of one population: 200 ms of a frame, mean over frames, one trial a movie.

    Returns
    -------
    responses : (trial, 35, unit)
        Hz, in bins of 10 ms; `time` as in the file, from -0.05 to 0.29 s from frame onset.
    """
    where = "macaque_v1_psth_henaff_2021"
    stored = _sequences(where, path)
    moved = np.moveaxis(stored.psth, (0, 1), (-2, -1))
    at = np.indices(moved.shape[:-2]).reshape(3, -1)
    flat = moved.reshape(-1, *moved.shape[-2:])
    shown = ~np.isnan(flat).any(axis=(1, 2))
    movie = np.array(stored.movies)[at[0]]
    category = np.array(stored.categories)[at[1]]
    zoom = np.array(["zoom1x", "zoom2x"])[at[2]]
    names = np.array([" ".join(parts) for parts in zip(category, zoom, movie, strict=True)])
    responses = make_responses(
        flat[shown],
        time=stored.edges,
        units={"population": "output", "level": 2, "area": "V1", "blank_rate": stored.blank},
        trial={
            "condition": names[shown],
            "category": category[shown],
            "zoom": zoom[shown],
            "movie": movie[shown],
        },
        attrs={
            "citation": HENAFF,
            "source": Path(path).name,
            "exclusions": f'{{"nan_trials": {int((~shown).sum())}}}',
        },
    ).assign_coords(bin_width=0.01)
    responses["rate"].attrs["units"] = "Hz"
    return responses


def _sequences(where: str, path: str | os.PathLike[str]) -> _Sequences:
    import h5py

    source = recording_file(where, path, "ay2_u003_image_sequences.mat")
    try:
        with h5py.File(source) as stored:
            group = stored["naturalStruct"]

            def words(name: str) -> list[str]:
                return [
                    bytes(stored[r][()].ravel().astype(np.uint8)).decode()
                    for r in group[name][()].ravel()
                ]

            return _Sequences(
                counts=group["sortedResponses"][()],
                psth=group["psth_population"][()],
                edges=group["psth_edges"][()].ravel(),
                movies=words("movie_titles"),
                categories=words("stimulusStruct/categories"),
                duration=float(group["integrationPeriod"][()].item()),
                blank=group["mean_blank_rates"][()].ravel(),
            )
    except Exception as error:
        found = f"{source.name}, which cannot be read ({type(error).__name__}: {str(error)[:80]})"
        advice = "It is damaged, cut short or another recording: get it again."
        raise ValueError(refusal(where, found, "naturalStruct in HDF5", advice)) from None


def macaque_v1_sparseness_tang_2018(path: str | os.PathLike[str], *, monkey: int = 1) -> xr.Dataset:
    """Load how many of the neurons of awake macaque V1 each natural image drives.

    The single responses are not public, only these counts: a labelled table, no responses.

    Parameters
    ----------
    path
        ``tang2018_fig1_fig2.npz`` or its folder.
    monkey
        1 (1225 neurons) or 2 (982 neurons).

    Returns
    -------
    table
        `n_active` (image): neurons above half of their own largest response; `share` (image), from
        0 to 1; `n_images` (unit): images that drive each neuron above half.

    References
    ----------
    Tang et al. (2018), https://doi.org/10.7554/eLife.33370
    """
    where = "macaque_v1_sparseness_tang_2018"
    keys: dict[int, Any] = {1: ("Fig1f", "Fig2e"), 2: ("Fig1g", "Fig2f")}
    if monkey not in keys:
        raise ValueError(refusal(where, f"monkey {monkey!r}", "1 or 2", "Take one."))
    active, images = read_npz(where, path, "tang2018_fig1_fig2.npz", keys[monkey]).values()
    data = {
        "n_active": ("image", active.astype(np.int64)),
        "share": ("image", active / images.size),
        "n_images": ("unit", images.astype(np.int64)),
    }
    attrs = {"citation": "Tang et al. (2018) eLife 7:e33370", "area": "V1"}
    return xr.Dataset(data, attrs=attrs)
