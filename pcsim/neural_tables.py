"""Published tables beside the recordings: spectra of fields, scenes, dynamics of ganglion cells."""

from __future__ import annotations

import csv
import os
from typing import Any

import numpy as np
import xarray as xr

from pcsim.messages import check_choice, refusal
from pcsim.neural_files import read_npy, read_npz, recording_file

__all__ = ["field_potential_spectra", "macaque_ganglion_benardete", "mouse_scenes_allen"]

SPECTRA = {
    "meg": ("freqs.npy", "spectrum.npy"),
    "meg_wide": ("freqs_2.npy", "spectrum_2.npy"),
    "meg_group": ("group_freqs.npy", "group_powers.npy"),
    "lfp": ("freqs_lfp.npy", "spectrum_lfp.npy"),
}
BENARDETE = {
    "midget": (
        "Benardete_1997_VisNeurosci_midget.csv",
        "Benardete & Kaplan (1997) Vis Neurosci 14:169",
    ),
    "parasol": (
        "Benardete_1999_VisNeurosci_parasol.csv",
        "Benardete & Kaplan (1999) Vis Neurosci 16:355",
    ),
}
CENTRES = ("ON", "OFF", "ALL")
COLUMNS = {
    "minimum": "Minimum", "maximum": "Maximum", "median": "Median", "mean": "Mean", "sd": "SD",
    "sem": "SEM", "n": "N",
}  # fmt: skip


def field_potential_spectra(path: str | os.PathLike[str], which: str = "meg") -> xr.DataArray:
    """Load power spectra of human MEG or of a local field potential: a table, no responses.

    Parameters
    ----------
    path
        The folder of the files.
    which
        "meg": one point of cortex, 1.5 to 50 Hz; "meg_wide": another, 0 to 500 Hz; "meg_group": 25
        points of the first subject; "lfp": a local field potential, 0 to 625 Hz, of which the
        source says no more.

    Returns
    -------
    power : (spectrum, frequency)
        Above 0, not logarithmic; the source gives no unit. `frequency` in Hz.

    Raises
    ------
    ValueError
        If a file is absent or damaged, or powers and frequencies do not belong together.

    References
    ----------
    Human Connectome Project, through the tools of Donoghue et al. (2020),
    https://doi.org/10.1038/s41593-020-00744-x
    """
    where = "field_potential_spectra"
    names = SPECTRA[check_choice(where, "set", which, SPECTRA)]
    frequency, power = (read_npy(where, path, name) for name in names)
    power = np.atleast_2d(power)
    if frequency.ndim != 1 or power.ndim != 2 or power.shape[1] != frequency.size:
        found = f"powers {power.shape} beside frequencies {frequency.shape}"
        raise ValueError(refusal(where, found, "one power a frequency", "Get the files again."))
    return xr.DataArray(
        power,
        dims=("spectrum", "frequency"),
        coords={"frequency": frequency},
        name="power",
        attrs={"citation": "Human Connectome Project; Donoghue et al. (2020) Nat Neurosci 23:1655"},
    )


def mouse_scenes_allen(path: str | os.PathLike[str]) -> xr.DataArray:
    """Load the 118 natural scenes that mice saw, as reduced to 31 by 31 pixels: a stimulus.

    The responses that came with this reduction are not used, as they do not depend on the scene.

    Parameters
    ----------
    path
        ``natural_scenes_118_31px.npz`` or its folder.

    Returns
    -------
    scene : (scene, y, x)
        Grey as coded for a display, uint8, 0 to 255. Row 0 is taken for the top: the file does not
        say, nor how wide a pixel was for the mouse.

    References
    ----------
    Allen Brain Observatory; de Vries et al. (2020), https://doi.org/10.1038/s41593-019-0550-9
    """
    stored = read_npz("mouse_scenes_allen", path, "natural_scenes_118_31px.npz", ("scenes",))
    citation = "de Vries et al. (2020) Nat Neurosci 23:138; Allen Institute terms of use"
    return xr.DataArray(
        stored["scenes"], dims=("scene", "y", "x"), name="scene", attrs={"citation": citation}
    )


def macaque_ganglion_benardete(path: str | os.PathLike[str], cell_type: str) -> xr.Dataset:
    """Load the published dynamics of macaque ganglion cells: statistics over cells of each kind.

    The parameters are those of a cascade of low-pass filters and one high-pass stage. Times such as
    `NLTL`, `TL`, `TS`, `D` and `T0` are in milliseconds (remembered), `HS` is a share; in the file
    `_cen` and `_sur` mark centre and surround, and `Mean` is the mean rate.

    Parameters
    ----------
    path
        The table of that cell type or its folder.
    cell_type
        "midget" (1997) or "parasol" (1999).

    Returns
    -------
    table
        `minimum`, `maximum`, `median`, `mean`, `sd`, `sem` and `n`, each (parameter, centre), with
        `centre` "ON", "OFF" or "ALL". `sd` and `sem` of one of the two were computed from the
        other by n. Three rows contradict themselves, see ``docs/recordings.md``.

    References
    ----------
    Benardete & Kaplan (1997), https://doi.org/10.1017/S0952523800008853, and (1999), Visual
    Neuroscience 16:355
    """
    where = "macaque_ganglion_benardete"
    name, citation = BENARDETE[check_choice(where, "cell_type", cell_type, BENARDETE)]
    source = recording_file(where, path, name)
    try:
        with source.open(encoding="utf-8-sig", newline="") as lines:
            rows = {(row["Parameter"], row["Type"]): row for row in csv.DictReader(lines)}
        if not rows:
            raise ValueError("no rows")
        parameters = list(dict.fromkeys(parameter for parameter, _ in rows))
        data: dict[str, Any] = {
            ours: [[float(rows[p, kind][theirs]) for kind in CENTRES] for p in parameters]
            for ours, theirs in COLUMNS.items()
        }
    except (KeyError, ValueError, TypeError) as error:
        found = f"{source.name}, which cannot be read ({type(error).__name__}: {error})"
        advice = "It is damaged or another recording: get it again."
        raise ValueError(refusal(where, found, f"the table {name}", advice)) from None
    dims = ("parameter", "centre")
    return xr.Dataset(
        {ours: (dims, np.array(values)) for ours, values in data.items()},
        coords={"parameter": parameters, "centre": list(CENTRES)},
        attrs={"citation": citation, "cell_type": cell_type},
    )
