"""Surrogates: signals with the spectra of others, and nothing else of them.

What a measure of coupling finds in surrogates is what power spectra alone bring about.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr

from pcsim.messages import check_integer, refusal

__all__ = ["phase_randomised"]


def phase_randomised(signal: xr.DataArray, *, seed: int) -> xr.DataArray:
    r"""Return signals with the power spectra of `signal` and random phases.

    Every trial of every channel is transformed, its phases are replaced by uniform ones drawn for
    it alone, and it is transformed back: each keeps its power at every frequency, its mean and its
    variance exactly, and loses what it shares with the others and with the stimulus. What is left
    is Gaussian: skewed or bursting signals lose their shape.

    Parameters
    ----------
    signal : (..., time)
        Any array with dimension `time` at even steps.
    seed
        Of the phases.

    Returns
    -------
    surrogate
        The same labels and order of dimensions.

    Raises
    ------
    ValueError
        If there is no dimension `time` of at least 4 samples, or values are not finite.

    References
    ----------
    Theiler et al. (1992), https://doi.org/10.1016/0167-2789(92)90102-S

    Examples
    --------
    >>> time = np.arange(400) / 200
    >>> wave = np.sin(2 * np.pi * 8 * time)
    >>> pair = xr.DataArray([wave, wave], dims=("site", "time"), coords={"time": time})
    >>> made = phase_randomised(pair, seed=3)
    >>> bool(np.allclose(abs(np.fft.rfft(made)), abs(np.fft.rfft(pair)), atol=1e-9))
    True
    >>> round(float(np.corrcoef(pair)[0, 1]), 3), abs(float(np.corrcoef(made)[0, 1])) < 0.9
    (1.0, True)
    """
    where = "phase_randomised"
    if not isinstance(signal, xr.DataArray) or signal.sizes.get("time", 0) < 4:
        found = f"a {type(signal).__name__} with dims {dict(getattr(signal, 'sizes', {}))}"
        raise ValueError(refusal(where, found, "an array with at least 4 times"))
    if not bool(np.isfinite(signal).all()):
        raise ValueError(refusal(where, "NaN or infinite values", "finite numbers"))
    rng = np.random.default_rng([check_integer(where, "seed", seed), 1992])
    made: xr.DataArray = xr.apply_ufunc(
        lambda values: _shuffled(values, rng),
        signal.compute().astype(np.float64),
        input_core_dims=[["time"]],
        output_core_dims=[["time"]],
        keep_attrs=True,
    )
    return made.transpose(*signal.dims)


def _shuffled(values: Any, rng: np.random.Generator) -> Any:
    n = values.shape[-1]
    spectrum = np.fft.rfft(values, axis=-1)
    phase = rng.uniform(0.0, 2.0 * np.pi, spectrum.shape)
    random = np.abs(spectrum) * np.exp(1j * phase)
    # Frequency 0 is the mean, and half the sampling rate has a sign only.
    random[..., 0] = spectrum[..., 0]
    if n % 2 == 0:
        random[..., -1] = np.abs(spectrum[..., -1]) * np.where(phase[..., -1] < np.pi, 1.0, -1.0)
    return np.fft.irfft(random, n, axis=-1)
