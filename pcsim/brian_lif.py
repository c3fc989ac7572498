"""The rate of a noisy leaky integrate-and-fire neuron, and its inverse as a table."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["SIGMA", "TAU_M", "Floats", "lif_rate", "rate_table"]

Floats = NDArray[np.float64]
TAU_M, SIGMA = 0.01, 0.42
"""Membrane time constant, seconds, and noise, in units of threshold less reset: a standard
deviation of 0.3 of the free membrane."""
CURRENTS = (0.0, 3.0, 301)
"""Mean currents of the table, in units of the threshold."""
LOWEST = -1.6
"""Membrane potential that no neuron comes to: five standard deviations below reset."""


def lif_rate(current: Any, *, dt: float = 1e-4) -> Floats:
    r"""Return the rate of a noisy leaky integrate-and-fire neuron, spikes per second.

    One over the mean first-passage time from reset to threshold of the walk that the neuron takes
    in steps of `dt`, from its integral equation

    .. math:: T(v) = dt + \int_{-\infty}^{1} p(v' \mid v)\, T(v')\, dv'

    by Gauss-Legendre quadrature. For small steps it is the rate of Siegert (1951).

    Parameters
    ----------
    current
        Mean currents in units of the threshold, from 0 on.
    dt
        Time step, seconds.

    Examples
    --------
    >>> lif_rate([0.5, 1.0, 2.0]).round(1)
    array([ 12.1,  50.4, 145.7])
    """
    step = SIGMA * np.sqrt(dt / TAU_M)
    nodes, weights = np.polynomial.legendre.leggauss(int(np.ceil(2.0 * (1.0 - LOWEST) / step)))
    grid = LOWEST + 0.5 * (nodes + 1.0) * (1.0 - LOWEST)
    weights = weights * 0.5 * (1.0 - LOWEST) / (step * np.sqrt(2.0 * np.pi))
    start, out = np.append(grid, 0.0), []
    for one in np.ravel(current):
        mean = start + dt / TAU_M * (one - start)
        walk = weights * np.exp(-0.5 * ((grid - mean[:, None]) / step) ** 2)
        passage = np.linalg.solve(np.eye(len(grid)) - walk[:-1], np.full(len(grid), dt))
        out.append(1.0 / (dt + walk[-1] @ passage))
    return np.reshape(out, np.shape(current))


@cache
def rate_table(dt: float) -> tuple[Floats, Floats]:
    """Return rates that grow, and the mean currents that give them."""
    currents = np.linspace(*CURRENTS[:2], CURRENTS[2])
    return lif_rate(currents, dt=dt), currents
