r"""Geometry of responses over time: how much a trajectory bends.

.. math:: c_t = \arccos \frac{v_t \cdot v_{t+1}}{\|v_t\|\,\|v_{t+1}\|}, \qquad v_t = r_{t+1} - r_t
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from pcsim.messages import check_array, refusal

__all__ = ["cross_validated_curvature", "curvature"]

Floats = NDArray[np.float64]


def curvature(trajectory: Any) -> Floats:
    """Return the angle between successive steps of a trajectory, degrees.

    Straightening is the mean of this over responses less the mean over the stimuli themselves.
    Independent noise bends: steps of pure noise turn by 120 degrees. Average over trials first, or
    use `cross_validated_curvature`.

    Parameters
    ----------
    trajectory : (..., n_times, n_units)
        At least 3 times.

    Returns
    -------
    angle : (..., n_times - 2)
        0 for a straight line, 180 for turning back; NaN beside a step of length zero.

    References
    ----------
    Hénaff, Goris & Simoncelli (2019), https://doi.org/10.1038/s41593-019-0377-4;
    Hénaff et al. (2021), https://doi.org/10.1038/s41467-021-25939-z

    Examples
    --------
    >>> curvature([[0.0, 0.0], [1.0, 0.0], [1.0, 3.0], [1.0, 5.0]]).round(9)
    array([90.,  0.])
    """
    trajectory = _trajectory("curvature", trajectory, 2)
    steps = np.diff(trajectory, axis=-2)
    length = np.linalg.norm(steps, axis=-1, keepdims=True)
    unit = np.where(length > 0.0, steps / np.where(length > 0.0, length, 1.0), np.nan)
    before, after = unit[..., :-1, :], unit[..., 1:, :]
    # The arc cosine loses half of the digits of small angles.
    apart = np.linalg.norm(after - before, axis=-1)
    along = np.linalg.norm(after + before, axis=-1)
    return np.asarray(np.degrees(2.0 * np.arctan2(apart, along)))


def cross_validated_curvature(trajectories: Any) -> Floats:
    r"""Return curvature from repeats, without the bend that noise adds.

    Products of steps are averaged over pairs of different repeats a and b, with independent noise:

    .. math:: \cos c_t = \frac{\langle v_t^a \cdot v_{t+1}^b\rangle}
        {\sqrt{\langle v_t^a \cdot v_t^b\rangle \langle v_{t+1}^a \cdot v_{t+1}^b\rangle}}

    Parameters
    ----------
    trajectories : (n_repeats, ..., n_times, n_units)
        At least 2 repeats and 3 times.

    Returns
    -------
    angle : (..., n_times - 2)
        Degrees; NaN where a step does not stand out from the noise. If many are NaN, the rest are
        the ones that noise favoured, and their mean is worth little: then fit a model of the noise.

    Examples
    --------
    >>> line = np.array([[0.0, 0.0], [1.0, 1.0], [3.0, 3.0]])
    >>> cross_validated_curvature([line, line + 4.0]).round(5)
    array([0.])
    """
    where = "cross_validated_curvature"
    trajectories = _trajectory(where, trajectories, 3)
    n = trajectories.shape[0]
    if n < 2:
        raise ValueError(refusal(where, f"{n} repeat", "at least 2", "Use curvature."))
    steps = np.diff(trajectories, axis=-2)
    total = steps.sum(axis=0)

    def product(first: slice, second: slice) -> Floats:
        across = np.einsum("...tu,...tu->...t", total[..., first, :], total[..., second, :])
        within = np.einsum("r...tu,r...tu->...t", steps[..., first, :], steps[..., second, :])
        return np.asarray((across - within) / (n * (n - 1)))

    early, late = slice(None, -1), slice(1, None)
    power = product(slice(None), slice(None))
    clear = (power[..., early] > 0.0) & (power[..., late] > 0.0)
    size = np.sqrt(np.where(clear, power[..., early], 1.0)) * np.sqrt(
        np.where(clear, power[..., late], 1.0)
    )
    cosine = np.clip(product(early, late) / size, -1.0, 1.0)
    return np.where(clear, np.degrees(np.arccos(cosine)), np.nan)


def _trajectory(where: str, value: Any, least: int) -> Floats:
    array = check_array(where, "trajectory", value).astype(np.float64)
    if array.ndim < least or array.shape[-2] < 3:
        found, expected = f"shape {array.shape}", "(..., n_times, n_units)"
        raise ValueError(refusal(where, found, expected, "Give at least 3 times."))
    return np.asarray(array, dtype=np.float64)
