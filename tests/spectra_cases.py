"""Trials of autoregressions, labelled: what tests of spectra begin with."""

from __future__ import annotations

import numpy as np
import xarray as xr

__all__ = ["RATE", "labelled", "simulated"]

RATE = 200.0
"""Hz."""


def labelled(values, rate=RATE):
    """Label (trial, time, site) values."""
    n_times, n_sites = np.shape(values)[1:]
    coords = {"time": np.arange(1, n_times + 1) / rate, "site": [f"S{i}" for i in range(n_sites)]}
    return xr.DataArray(values, coords, ("trial", "time", "site"))


def simulated(coefficients, covariance, rng, *, n_trials=40, n_times=800, burn=200):
    """Return trials (trial, time, channel) of an autoregression at rest."""
    coefficients = np.asarray(coefficients, dtype=float)
    n = coefficients.shape[1]
    root = np.linalg.cholesky(covariance)
    values = rng.normal(size=(n_trials, n_times + burn, n)) @ root.T
    for t in range(len(coefficients), n_times + burn):
        for lag, matrix in enumerate(coefficients, start=1):
            values[:, t] += values[:, t - lag] @ matrix.T
    return values[:, burn:]
