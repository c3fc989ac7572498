r"""The shape of kernels in time: the biphasic index, and how far space and time separate.

A kernel has a dimension of lags, 0 for the present, and one or more of space.
"""

from __future__ import annotations

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from pcsim.measures.rates import quotient
from pcsim.messages import refusal

__all__ = ["biphasic_index", "separable_parts", "space_time_separability"]

Floats = NDArray[np.float64]


def biphasic_index(course: xr.DataArray, *, dim: str = "lag") -> xr.DataArray:
    r"""Return how deep a time course falls after its peak, relative to the peak.

    .. math:: BI = -\frac{\min_{t > t_{pk}} k(t)}{\max_t k(t)}

    The course has its main peak upwards; `separable_parts` turns it so.

    Parameters
    ----------
    course : (..., lag)
    dim
        The dimension of time.

    Returns
    -------
    index : (...)
        0: it falls to zero; 1: as deep as it was high; below 0: it never falls to zero. NaN where
        no value is above zero or nothing follows the peak.

    Examples
    --------
    >>> biphasic_index(xr.DataArray([0.5, 2.0, 0.0, -0.5, -0.1], dims="lag")).item()
    0.25
    """
    course = _checked(course, dim, "biphasic_index")
    peak = course.max(dim)
    place = xr.DataArray(np.arange(course.sizes[dim]), dims=dim)
    after = course.where(place > course.argmax(dim))
    return quotient(-after.min(dim), peak).rename("biphasic_index")


def _checked(kernel: xr.DataArray, dim: str, where: str) -> xr.DataArray:
    if not isinstance(kernel, xr.DataArray) or dim not in kernel.dims or kernel.sizes[dim] < 2:
        found = f"dims {dict(kernel.sizes)}" if isinstance(kernel, xr.DataArray) else "no DataArray"
        raise ValueError(refusal(where, found, f"at least 2 values along {dim!r}"))
    if not bool(np.isfinite(kernel).all()):
        raise ValueError(refusal(where, "a kernel with NaN or infinity", "finite values"))
    return kernel.astype(np.float64)


def separable_parts(
    kernel: xr.DataArray, *, dim: str = "lag", space: tuple[str, ...] = ("y", "x")
) -> xr.Dataset:
    r"""Return the best product of a time course and a map for each kernel.

    .. math:: k(t, p) = \sum_i s_i\,u_i(t)\,v_i(p), \qquad \frac{s_1^2}{\sum_i s_i^2}

    by singular values. The sign is such that the largest value of the course is above zero.

    Parameters
    ----------
    kernel : (..., lag, y, x)
    dim, space
        The dimensions of time and of space.

    Returns
    -------
    parts
        `course` (..., lag) of unit length, `space` (..., y, x) with the size of the kernel, and
        `separability` (...), from 1 / (number of components) to 1. NaN for a kernel of zeros.

    References
    ----------
    DeAngelis, Ohzawa & Freeman (1995), https://doi.org/10.1016/0166-2236(95)94496-R

    Examples
    --------
    >>> course = xr.DataArray([1.0, -0.5], dims="lag")
    >>> image = xr.DataArray([[3.0, 2.0]], dims=("y", "x"))
    >>> round(separable_parts(course * image).separability.item(), 6)
    1.0
    """
    where = "separable_parts"
    kernel = _checked(kernel, dim, where)
    absent = [name for name in space if name not in kernel.dims]
    if absent or not space:
        found = f"dims {tuple(kernel.dims)}"
        raise ValueError(refusal(where, found, f"space along {space}", "Name them as space."))
    course, image, share = xr.apply_ufunc(
        _first_component,
        kernel,
        input_core_dims=[[dim, *space]],
        output_core_dims=[[dim], list(space), []],
        kwargs={"n_space": len(space)},
    )
    return xr.Dataset({"course": course, "space": image, "separability": share})


def _first_component(kernel: Floats, n_space: int) -> tuple[Floats, Floats, Floats]:
    lead, sizes = kernel.shape[: -n_space - 1], kernel.shape[-n_space:]
    flat = kernel.reshape(*lead, kernel.shape[-n_space - 1], -1)
    u, s, v = np.linalg.svd(flat, full_matrices=False)
    course, image = u[..., 0], s[..., :1] * v[..., 0, :]
    top = np.take_along_axis(course, np.abs(course).argmax(axis=-1)[..., None], axis=-1)
    sign = np.where(top < 0, -1.0, 1.0)
    power = (s**2).sum(axis=-1)
    there = power > 0
    share = np.where(there, s[..., 0] ** 2 / np.where(there, power, 1.0), np.nan)
    blank = np.where(there, 1.0, np.nan)[..., None]
    return course * sign * blank, (image * sign * blank).reshape(*lead, *sizes), share


def space_time_separability(
    kernel: xr.DataArray, *, dim: str = "lag", space: tuple[str, ...] = ("y", "x")
) -> xr.DataArray:
    """Return the share of a kernel's energy in its best product of a time course and a map.

    Parameters and values are those of `separable_parts`.

    Examples
    --------
    >>> turning = xr.DataArray(np.eye(2)[..., None], dims=("lag", "y", "x"))
    >>> space_time_separability(turning).item()
    0.5
    """
    share = separable_parts(kernel, dim=dim, space=space)["separability"]
    return share.rename("space_time_separability")
