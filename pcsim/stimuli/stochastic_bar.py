r"""A bar that moves like a damped pendulum kicked at random: partly predictable, and known how far.

.. math:: x_{t+1} = x_t + v_t\,\Delta, \qquad
    v_{t+1} = (1 - \Gamma\Delta)\,v_t - \omega^2 x_t\,\Delta + s\,\xi_t

with Gaussian kicks :math:`\xi`. Positions are a Gaussian autoregression of order two, so that all
of the past that matters for the future lies in two successive positions.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import scipy.linalg
import xarray as xr
from numpy.typing import NDArray

from pcsim.messages import check_array, check_integer, check_number, refusal
from pcsim.stimuli.field import Field, covered

__all__ = ["damped_motion", "damped_motion_covariance", "moving_bars"]

Floats = NDArray[np.float64]

DAMPING, FREQUENCY, FRAME = 20.0, 1.5, 1.0 / 60.0
"""Per second, Hz, seconds: those of Palmer et al. (2015), remembered."""


def _dynamics(where: str, damping: Any, frequency: Any, frame: Any) -> tuple[Floats, Floats]:
    """Return the step of (x, v) and its stationary covariance with a variance of x of 1."""
    damping = check_number(where, "damping", damping, positive=True)
    omega = 2.0 * math.pi * check_number(where, "frequency", frequency, positive=True)
    frame = check_number(where, "frame_duration", frame, positive=True)
    step = np.array([[1.0, frame], [-(omega**2) * frame, 1.0 - damping * frame]])
    if np.abs(np.linalg.eigvals(step)).max() >= 1.0:
        found = f"damping {damping:.6g} and frequency {frequency:.6g} at {frame:.6g} s a frame"
        advice = "Shorten the frames or raise the damping."
        raise ValueError(refusal(where, found, "motion that stays bounded", advice))
    covariance = scipy.linalg.solve_discrete_lyapunov(step, np.diag([0.0, 1.0]))
    return step, covariance / covariance[0, 0]


def damped_motion_covariance(
    n_lags: int,
    *,
    sigma: float = 1.0,
    damping: float = DAMPING,
    frequency: float = FREQUENCY,
    frame_duration: float = FRAME,
) -> Floats:
    """Return the autocovariance of the positions of `damped_motion`, (n_lags,), from lag 0 on.

    Parameters
    ----------
    n_lags
        Frames.
    sigma, damping, frequency, frame_duration
        As in `damped_motion`.

    Examples
    --------
    >>> damped_motion_covariance(3, sigma=2.0).round(3)
    array([4.   , 3.942, 3.804])
    """
    where = "damped_motion_covariance"
    n_lags = check_integer(where, "n_lags", n_lags, low=1)
    sigma = check_number(where, "sigma", sigma, positive=True)
    step, covariance = _dynamics(where, damping, frequency, frame_duration)
    out = np.empty(n_lags)
    for lag in range(n_lags):
        out[lag] = sigma**2 * covariance[0, 0]
        covariance = step @ covariance
    return out


def damped_motion(
    n_trials: int,
    n_frames: int,
    *,
    sigma: float = 1.0,
    damping: float = DAMPING,
    frequency: float = FREQUENCY,
    frame_duration: float = FRAME,
    rng: np.random.Generator,
) -> Floats:
    """Draw positions of damped stochastic motion, stationary from the first frame.

    Parameters
    ----------
    n_trials, n_frames
    sigma
        Standard deviation of the position; it sets the strength of the kicks.
    damping
        Per second.
    frequency
        Of the undamped swing, Hz.
    frame_duration
        Seconds.
    rng

    Returns
    -------
    position : (n_trials, n_frames)
        In the unit of `sigma`.

    References
    ----------
    Palmer, Marre, Berry & Bialek (2015), https://doi.org/10.1073/pnas.1506855112

    Examples
    --------
    >>> damped_motion(3, 5, rng=np.random.default_rng(0)).shape
    (3, 5)
    """
    where = "damped_motion"
    n_trials = check_integer(where, "n_trials", n_trials, low=1)
    n_frames = check_integer(where, "n_frames", n_frames, low=1)
    sigma = check_number(where, "sigma", sigma, positive=True)
    step, covariance = _dynamics(where, damping, frequency, frame_duration)
    kick = math.sqrt(max((covariance - step @ covariance @ step.T)[1, 1], 0.0))
    state = rng.standard_normal((n_trials, 2)) @ np.linalg.cholesky(covariance).T
    out = np.empty((n_trials, n_frames))
    for frame in range(n_frames):
        out[:, frame] = state[:, 0]
        state = state @ step.T
        state[:, 1] += kick * rng.standard_normal(n_trials)
    return sigma * out


def moving_bars(
    field_shape: tuple[int, int],
    *,
    position: Any,
    width: float = 0.125,
    contrast: float = -1.0,
    background: float = 0.5,
    frame_duration: float = FRAME,
    px_per_deg: float = 16.0,
) -> xr.DataArray:
    """Show an upright bar, as high as the field, wherever it is said to be in each frame.

    Parameters
    ----------
    field_shape
        Rows and columns.
    position : (n_trials, n_frames)
        x of the bar's middle, degrees. Where the bar leaves the field it is not seen.
    width
        Degrees.
    contrast
        From -1 to 1, negative for dark bars.
    background
        Luminance around the bar, from 0 to 1.
    frame_duration
        Seconds.
    px_per_deg
        Pixels per degree.

    Returns
    -------
    stimulus : (trial, time, y, x)

    Examples
    --------
    >>> dark = 0.5 - moving_bars((4, 16), position=[[0.0, 0.25]])
    >>> ((dark * dark.x).sum(("y", "x")) / dark.sum(("y", "x"))).values
    array([[0.  , 0.25]])
    """
    where = "moving_bars"
    field = Field.check(where, field_shape, px_per_deg)
    at = check_array(where, "position", position, shape=("n_trials", "n_frames"))
    width = check_number(where, "width", width, positive=True)
    contrast = check_number(where, "contrast", contrast, low=-1.0, high=1.0)
    background = check_number(where, "background", background, low=0.0, high=1.0)
    if background * (1.0 + contrast) > 1.0:
        found = f"contrast {contrast:g} on a background of {background:g}"
        raise ValueError(refusal(where, found, "a luminance up to 1", "Lower one of them."))
    distance = field.x - at[..., None]
    row = background * (1.0 + contrast * covered(distance, np.array(width / 2), 1 / px_per_deg))
    values = np.repeat(row[:, :, None, :], field.shape[0], axis=2)
    labels = {"width": width, "contrast": contrast}
    return field.stimulus(values, frame_duration=frame_duration, condition="moving bar", **labels)
