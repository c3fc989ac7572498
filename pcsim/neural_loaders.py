"""Recordings of single cells with their stimulus, and of mouse V1; each from a user's file.

What the files are and where they come from: ``docs/recordings.md``. Each loader takes the path of
the file or of its folder, and writes the citation into ``attrs``.
"""

from __future__ import annotations

import os

import numpy as np
import xarray as xr

from pcsim.messages import refusal
from pcsim.neural_files import read_npz
from pcsim.neural_quality import responses_from_array
from pcsim.neural_spikes import make_spikes
from pcsim.responses import stimulus_array

__all__ = [
    "fly_h1_deruyter",
    "lgn_kara_2000",
    "locust_receptor_rokem_2006",
    "mouse_v1_allen",
]

Path = str | os.PathLike[str]


def lgn_kara_2000(path: Path) -> tuple[xr.Dataset, xr.DataArray]:
    """Load a cell of cat LGN that saw a binary m-sequence.

    Parameters
    ----------
    path
        ``c2p3.npz`` or its folder.

    Returns
    -------
    responses : (1, 32767, 1)
        Bins of 15.6 ms, one a frame.
    stimulus : (1, 32767, 16, 16)
        Checks of luminance 0 or 1; their size in degrees is not in the file, so `px_per_deg` is 1:
        one check is the unit of length.

    References
    ----------
    Kara, Reinagel & Reid (2000), https://doi.org/10.1016/S0896-6273(00)00072-6
    """
    keys = ("counts", "stim_bits", "bin_ms", "shape")
    stored = read_npz("lgn_kara_2000", path, "c2p3.npz", keys)
    width = float(stored["bin_ms"]) * 1e-3
    count = stored["counts"].astype(np.float64)
    checks = np.unpackbits(stored["stim_bits"], axis=1).reshape(-1, 16, 16)
    attrs = {"citation": "Kara, Reinagel & Reid (2000) Neuron 27:635"}
    responses = responses_from_array(
        count[None, :, None],
        bin_width=width,
        units={"level": 1, "area": "LGN"},
        trial={"condition": "m-sequence"},
        attrs=attrs,
    )
    stimulus = stimulus_array(
        checks[None].astype(np.float32),
        frame_duration=width,
        px_per_deg=1.0,
        condition="m-sequence",
    )
    return responses, stimulus.assign_attrs(attrs)


def fly_h1_deruyter(path: Path) -> tuple[xr.Dataset, xr.DataArray]:
    """Load the fly's neuron H1, which saw a pattern move at random for 20 minutes.

    Parameters
    ----------
    path
        ``c1p8.npz`` or its folder.

    Returns
    -------
    responses : (1, 600000, 1)
        Bins of 2 ms.
    stimulus : (1, 600000, 1)
        Horizontal velocity, degrees per second.

    References
    ----------
    Recorded by R. de Ruyter van Steveninck; Dayan & Abbott (2001), Theoretical Neuroscience,
    chapter 1, exercise 8.
    """
    keys = ("rho", "stim_deg_s", "dt_ms", "n")
    stored = read_npz("fly_h1_deruyter", path, "c1p8.npz", keys)
    width, n = float(stored["dt_ms"]) * 1e-3, int(stored["n"])
    count = np.unpackbits(stored["rho"])[:n].astype(np.float64)
    citation = "R. de Ruyter van Steveninck, in Dayan & Abbott (2001) Theoretical Neuroscience 1.8"
    responses = responses_from_array(
        count[None, :, None],
        bin_width=width,
        units={"level": 2, "area": "lobula plate"},
        trial={"condition": "random velocity"},
        attrs={"citation": citation},
    )
    stimulus = stimulus_array(
        stored["stim_deg_s"][None, :, None], frame_duration=width, condition="random velocity"
    )
    return responses, stimulus.assign_attrs(citation=citation, units="deg/s")


def locust_receptor_rokem_2006(
    path: Path, *, cutoff: float = 200.0
) -> tuple[xr.Dataset, xr.DataArray]:
    """Load an auditory receptor of the locust that heard noise with a random envelope for 10 s.

    Parameters
    ----------
    path
        ``grasshopper.npz`` or its folder.
    cutoff
        Of the envelope: 200 or 800 Hz, two recordings.

    Returns
    -------
    spikes
        One trial; `pcsim.neural.bin_spikes` counts them. Their times are multiples of 0.1 ms.
    stimulus : (1, 200000, 1)
        Amplitude modulation at 20 kHz, decibels.

    References
    ----------
    Rokem et al. (2006), https://doi.org/10.1152/jn.00891.2005
    """
    where = "locust_receptor_rokem_2006"
    number = {200.0: 1, 800.0: 2}.get(float(cutoff))
    if number is None:
        raise ValueError(refusal(where, f"cutoff {cutoff} Hz", "200 or 800 Hz", "Take one."))
    keys = (f"stim{number}", f"stim{number}_dt_us", f"spikes{number}_us")
    envelope, microseconds, times = read_npz(where, path, "grasshopper.npz", keys).values()
    step = float(microseconds) * 1e-6
    attrs = {"citation": "Rokem et al. (2006) J Neurophysiol 95:2541"}
    condition = f"envelope to {cutoff:.0f} Hz"
    spikes = make_spikes(
        [[times]],
        stop=envelope.size * step,
        time_unit="us",
        attrs={**attrs, "resolution": 1e-4},
        units={"level": 0, "area": "auditory nerve"},
        trial={"condition": [condition]},
    )
    stimulus = stimulus_array(envelope[None, :, None], frame_duration=step, condition=condition)
    return spikes, stimulus.assign_attrs(attrs, units="dB")


def mouse_v1_allen(path: Path) -> xr.Dataset:
    """Load spike counts of mouse V1 units for drifting gratings, one trial a grating.

    Parameters
    ----------
    path
        ``neuropixels_VISp_drifting_gratings.npz`` or its folder.

    Returns
    -------
    responses : (40, 1, 135)
        Counts summed over repeats, so `rate` is spikes and not Hz ("a.u."); on `trial` `direction`
        in radians and `temporal_frequency` in Hz, on `unit` the number of the Allen Institute and
        the indices that came with the table, `published_osi` and `published_dsi`.

    References
    ----------
    Siegle et al. (2021), https://doi.org/10.1038/s41586-020-03171-x
    """
    name = "neuropixels_VISp_drifting_gratings.npz"
    keys = ("unit_id", "spike_count", "orientation_deg", "tf_hz", "OSI", "DSI")
    stored = read_npz("mouse_v1_allen", path, name, keys)
    units, directions, frequencies = stored["spike_count"].shape
    direction = np.repeat(np.deg2rad(stored["orientation_deg"].astype(np.float64)), frequencies)
    count = stored["spike_count"].reshape(units, 1, -1).astype(np.float64)
    responses = responses_from_array(
        np.moveaxis(count, -1, 0).transpose(0, 2, 1),
        bin_width=1.0,
        units={
            "population": "output",
            "level": 2,
            "area": "V1",
            "allen_id": stored["unit_id"],
            "published_osi": stored["OSI"],
            "published_dsi": stored["DSI"],
        },
        trial={
            "condition": "drifting grating",
            "direction": direction,
            "temporal_frequency": np.tile(stored["tf_hz"].astype(np.float64), directions),
        },
        attrs={"citation": "Siegle et al. (2021) Nature 592:86; Allen Institute terms of use"},
    )
    responses["rate"].attrs["units"] = "a.u."
    return responses
