"""Recordings that come as fields, dissimilarities or curvatures: labelled tables, no responses."""

from __future__ import annotations

import csv
import os
from typing import Any

import numpy as np
import xarray as xr
from scipy.spatial.distance import squareform

from pcsim.messages import check_choice, refusal
from pcsim.neural_files import read_mat, read_npz, recording_file

__all__ = [
    "images_92",
    "macaque_ganglion_apricot",
    "macaque_v1_curvature_henaff_2021",
    "rdms_92_images",
]

CELL_TYPES = ("ON parasol", "OFF parasol", "ON midget", "OFF midget")
RDM_SETS = {
    "figure1": ("Kriegeskorte_Neuron2008_supplementalData.mat", "RDMs_mIT_hIT_fig1"),
    "human": ("92_brainRDMs.mat", "RDMs"),
    "behaviour": ("92_behavRDMs.mat", "rdms_behav_92"),
    "models": ("92_modelRDMs.mat", "Models"),
}


def macaque_ganglion_apricot(path: str | os.PathLike[str], cell_type: str) -> xr.Dataset:
    """Load the receptive fields of macaque ganglion cells of one type, space times time.

    The sign of a separable field is arbitrary; here it is such that the largest pixel, and the
    largest sample in time, are above zero, for ON and OFF cells alike.

    Parameters
    ----------
    path
        ``apricot_glm_compact.npz`` or its folder.
    cell_type
        "ON parasol", "OFF parasol", "ON midget" or "OFF midget".

    Returns
    -------
    table
        `space` (unit, y, x), `time_course` (unit, lag), the lag in frames before the spike.

    References
    ----------
    Recorded in the laboratory of E. J. Chichilnisky; Vanni et al. (2023), MacaqueRetina.
    """
    where = "macaque_ganglion_apricot"
    kind, size = check_choice(where, "cell_type", cell_type, CELL_TYPES).split()
    stem = kind + size.title()
    keys = (f"{stem}_space", f"{stem}_time")
    space, time = read_npz(where, path, "apricot_glm_compact.npz", keys).values()
    data = {
        "space": (("unit", "y", "x"), _upright(space.astype(np.float64))),
        "time_course": (("unit", "lag"), _upright(time.astype(np.float64))),
    }
    labels = {
        "area": ("unit", np.full(len(space), "retina")),
        "cell_type": ("unit", np.full(len(space), cell_type)),
        "unit": np.arange(len(space)),
        "lag": np.arange(time.shape[1]),
    }
    citation = "Chichilnisky laboratory, through github VisualNeuroscience-UH/MacaqueRetina"
    return xr.Dataset(data, coords=labels, attrs={"citation": citation})


def _upright(fields: Any) -> Any:
    flat = fields.reshape(len(fields), -1)
    peak = flat[np.arange(len(flat)), np.abs(flat).argmax(axis=1)]
    return fields * np.sign(peak).reshape(-1, *[1] * (fields.ndim - 1))


CURVATURE_FILE = "curvature_235x.csv"
CURVATURE = {
    "change": "Delta Curvature: neural",
    "change_control": "Delta Curvature: control",
    "pixel_curvature": "Pixel curvature",
}


def macaque_v1_curvature_henaff_2021(path: str | os.PathLike[str]) -> xr.Dataset:
    """Load how much macaque V1 bends or straightens 720 image sequences, as published.

    The curvature of noisy responses was estimated there with a model of the noise; it does not
    follow from the counts by `pcsim.measures.cross_validated_curvature`, for which noise is too
    strong.

    Parameters
    ----------
    path
        ``curvature_235x.csv`` or its folder.

    Returns
    -------
    table
        By `sequence`, degrees: `change` (neural less pixel curvature), `change_control` (the same
        for linear-nonlinear model units), `pixel_curvature`; with labels `population` and
        `category` ("natural" or "synthetic", a fade from first to last frame).

    References
    ----------
    Hénaff et al. (2021), https://doi.org/10.1038/s41467-021-25939-z
    """
    where = "macaque_v1_curvature_henaff_2021"
    source = recording_file(where, path, CURVATURE_FILE)
    try:
        with source.open(encoding="utf-8-sig", newline="") as lines:
            rows = list(csv.DictReader(lines))
        if not rows:
            raise ValueError("no rows")
        kind = [{"1": "natural", "2": "synthetic"}[row["sequence type"]] for row in rows]
        data = {
            name: ("sequence", np.array([float(row[column]) for row in rows]))
            for name, column in CURVATURE.items()
        }
        population = [row["Dataset"] for row in rows]
    except (KeyError, ValueError, TypeError) as error:
        found = f"{source.name}, which cannot be read ({type(error).__name__}: {error})"
        advice = "It is damaged or another recording: get it again."
        raise ValueError(refusal(where, found, f"the table {CURVATURE_FILE}", advice)) from None
    labels = {"population": ("sequence", population), "category": ("sequence", kind)}
    citation = "Hénaff et al. (2021) Nat Commun 12:5982"
    return xr.Dataset(data, coords=labels, attrs={"citation": citation, "units": "degrees"})


def rdms_92_images(path: str | os.PathLike[str], which: str = "figure1") -> xr.DataArray:
    """Load dissimilarity matrices of 92 images of objects.

    Parameters
    ----------
    path
        The folder of the files, or the file that holds `which`.
    which
        "figure1": monkey IT (674 neurons) and the mean of human IT; "human": 4 subjects in 2
        sessions; "behaviour": judgements of 16 subjects; "models".

    Returns
    -------
    rdm : (rdm, image, image_2)
        Symmetric, zero on the diagonal; `rdm` names them.

    References
    ----------
    Kriegeskorte et al. (2008), https://doi.org/10.1016/j.neuron.2008.10.043
    """
    where = "rdms_92_images"
    name, key = RDM_SETS[check_choice(where, "set", which, RDM_SETS)]
    stored = read_mat(where, path, name, (key,))[key]
    matrices = [np.asarray(entry, dtype=np.float64) for entry in stored["RDM"].ravel()]
    square = [m if m.shape[0] == m.shape[1] else squareform(m.ravel()) for m in matrices]
    names = [str(entry.item()) for entry in stored["name"].ravel()]
    return xr.DataArray(
        np.stack(square),
        dims=("rdm", "image", "image_2"),
        name="rdm",
        coords={"rdm": names},
        attrs={"citation": "Kriegeskorte et al. (2008) Neuron 60:1126"},
    )


def images_92(path: str | os.PathLike[str]) -> xr.DataArray:
    """Load the 92 images of objects, in the order of `rdms_92_images`.

    Parameters
    ----------
    path
        ``Kriegeskorte_Neuron2008_supplementalData.mat`` or its folder.

    Returns
    -------
    image : (image, y, x, channel)
        175 x 175 px, red, green and blue as coded for a display, uint8, on grey (128); `category`
        on `image`.

    References
    ----------
    Kriegeskorte et al. (2008), https://doi.org/10.1016/j.neuron.2008.10.043
    """
    where, key = "images_92", "stimuli_92objs"
    stored = read_mat(where, path, RDM_SETS["figure1"][0], (key,))[key].ravel()
    return xr.DataArray(
        np.stack([entry["image"] for entry in stored]),
        dims=("image", "y", "x", "channel"),
        coords={"category": ("image", [str(entry["category"].item()) for entry in stored])},
        name="image",
        attrs={"citation": "Kriegeskorte et al. (2008) Neuron 60:1126"},
    )
