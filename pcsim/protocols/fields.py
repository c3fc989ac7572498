"""Where units look and what they prefer, mapped with noise before stimuli are cut to the unit."""

from __future__ import annotations

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from pcsim.model import Model
from pcsim.protocols.signals import blank, respond
from pcsim.stimulus import stimulus_array

__all__ = ["map_fields", "preferences"]

Floats = NDArray[np.float64]


def map_fields(
    model: Model, *, level: int, role: str, n: int = 1500, side: int = 24, seed: int = 0
) -> tuple[xr.DataArray, xr.Dataset]:
    """Map receptive fields with Gaussian noise in the middle of the field, one image a trial.

    Parameters
    ----------
    model, level, role
        Whose units.
    n
        Number of images; more than the pixels that flicker, so that the regression is determined.
    side
        Pixels; the noise fills the middle `side` by `side` of the field, the rest stays grey.
    seed
        Of the noise.

    Returns
    -------
    fields : (unit, y, x)
        Least-squares weights of the pixels, exact for linear units; 0 where no noise was.
    responses
        To the noise, 0.2 s after its onset.
    """
    grey = blank(model, duration=0.2)
    ny, nx = grey.sizes["y"], grey.sizes["x"]
    height, width = min(side, ny), min(side, nx)
    top, left = (ny - height) // 2, (nx - width) // 2
    rng = np.random.default_rng([seed, 11])
    noise = np.clip(0.1 * rng.standard_normal((n, height, width)), -0.5, 0.5)
    images = np.full((n, 1, ny, nx), 0.5)
    images[:, 0, top : top + height, left : left + width] += noise
    stimulus = stimulus_array(
        images, frame_duration=0.2, px_per_deg=model.px_per_deg, condition="noise"
    )
    responses = respond(model, stimulus, level=level, role=role, every=0.2, seed=seed)
    rate = responses["rate"].isel(time=-1).transpose("trial", "unit").to_numpy()
    regressors = np.column_stack([np.ones(n), noise.reshape(n, -1)])
    weights = np.linalg.lstsq(regressors, rate, rcond=None)[0][1:]
    fields = np.zeros((rate.shape[1], ny, nx))
    fields[:, top : top + height, left : left + width] = weights.T.reshape(-1, height, width)
    return xr.DataArray(fields, dims=("unit", "y", "x")), responses


def preferences(fields: xr.DataArray, *, px_per_deg: float) -> xr.Dataset:
    """Return place, size, orientation and spatial frequency that receptive fields prefer.

    Place and size are the mean and the standard deviation (geometric mean of both axes) of the
    energy above four times its mean, which noise rarely reaches; orientation (of the stripes) and
    spatial frequency are those of the largest Fourier amplitude below 0.45 cycles per pixel.

    Parameters
    ----------
    fields : (unit, y, x)
        Receptive fields; x to the right, row 0 on top.
    px_per_deg
        Pixels per degree.

    Returns
    -------
    Dataset on unit: `x`, `y`, `sigma` (degrees), `orientation` (radians), `spatial_frequency`
    (cycles per degree).
    """
    values = fields.transpose("unit", "y", "x").to_numpy()
    table = np.array([_preference(field, px_per_deg) for field in values])
    names = ("x", "y", "sigma", "orientation", "spatial_frequency")
    return xr.Dataset({name: ("unit", table[:, i]) for i, name in enumerate(names)})


def _preference(field: Floats, px_per_deg: float) -> tuple[float, ...]:
    energy = field**2
    energy = np.where(energy > 4.0 * energy.mean(), energy, 0.0)
    energy = energy / max(float(energy.sum()), np.finfo(float).tiny)
    ny, nx = field.shape
    x, y = np.arange(nx) - (nx - 1) / 2, (ny - 1) / 2 - np.arange(ny)
    across, down = energy.sum(axis=0), energy.sum(axis=1)
    mean_x, mean_y = float(across @ x), float(down @ y)
    # A field of one pixel still has the width of that pixel.
    spread_x = max(float(across @ (x - mean_x) ** 2), 0.25)
    spread_y = max(float(down @ (y - mean_y) ** 2), 0.25)
    orientation, frequency = _peak_frequency(field)
    return (
        mean_x / px_per_deg,
        mean_y / px_per_deg,
        float((spread_x * spread_y) ** 0.25) / px_per_deg,
        orientation,
        frequency * px_per_deg,
    )


def _peak_frequency(field: Floats, n: int = 64) -> tuple[float, float]:
    """Return orientation of the stripes (radians) and frequency (cycles per pixel) of the peak."""
    spectrum = np.abs(np.fft.fft2(field, (n, n)))
    # Rows count downwards, y upwards.
    fy, fx = np.meshgrid(-np.fft.fftfreq(n), np.fft.fftfreq(n), indexing="ij")
    frequency = np.hypot(fx, fy)
    spectrum[(frequency > 0.45) | (frequency < 1.0 / max(field.shape))] = 0.0
    peak = np.unravel_index(int(spectrum.argmax()), spectrum.shape)
    # Stripes run at a right angle to the direction in which the luminance changes.
    turn = (np.arctan2(fy[peak], fx[peak]) + np.pi / 2) % np.pi
    return float(turn), float(frequency[peak])
