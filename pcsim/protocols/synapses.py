"""Patterns of active synapses on the branches of a neuron: dispersed, clustered, complementary."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from pcsim.stimulus import stimulus_array

__all__ = ["SYNAPSE_RATE", "complementary_patterns", "random_patterns", "synaptic_drive"]

SYNAPSE_RATE = 30.0
"""Spikes per second of an active synapse."""


def random_patterns(n: int, n_branches: int, *, seed: Any) -> NDArray[np.float64]:
    """Draw numbers of active synapses a branch, from dispersed to clustered.

    A pattern has 5 to 50 active synapses, dealt to the branches by a multinomial whose shares are
    drawn from a Dirichlet distribution of a concentration between 0.3 (clustered on one or two
    branches) and 10 (nearly even), uniform in its logarithm.

    Returns
    -------
    patterns : (n, n_branches)

    Examples
    --------
    >>> totals = random_patterns(20, 4, seed=0).sum(axis=1)
    >>> bool(totals.min() >= 5 and totals.max() <= 50)
    True
    """
    rng = np.random.default_rng(seed)
    patterns = np.empty((n, n_branches))
    for row in patterns:
        total = rng.integers(5, 51)
        concentration = np.exp(rng.uniform(np.log(0.3), np.log(10.0)))
        shares = rng.dirichlet(np.full(n_branches, concentration))
        row[:] = rng.multinomial(total, shares)
    return patterns


def complementary_patterns(n_branches: int, strength: float) -> NDArray[np.float64]:
    """Return the four inputs of the exclusive or in complementary code, (4, n_branches).

    Lines A and not-B end on even branches, lines not-A and B on odd ones, each with `strength`
    synapses a branch. Rows are (A, B) = (0, 0), (0, 1), (1, 0), (1, 1). All four activate equally
    many synapses, so that no weighted sum of A and B, and no count, tells the middle two apart.

    Examples
    --------
    >>> complementary_patterns(2, 3.0)
    array([[3., 3.],
           [0., 6.],
           [6., 0.],
           [3., 3.]])
    """
    even = np.arange(n_branches) % 2 == 0
    rows = [strength * (np.where(even, a + (1 - b), (1 - a) + b)) for a in (0, 1) for b in (0, 1)]
    return np.array(rows, dtype=np.float64)


def synaptic_drive(patterns: NDArray[np.float64], *, duration: float) -> xr.DataArray:
    """Return a stimulus of one frame in which each pattern's synapses are active, spikes/s."""
    return stimulus_array(SYNAPSE_RATE * patterns[:, None, :], frame_duration=duration)
