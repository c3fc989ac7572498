r"""The shape of a receptive field around its peak: surround, locality, lopsidedness.

Every field is divided by its extreme value first, so that the peak is +1 whatever its sign: a
singular vector or an off-cell has no sign of its own. Distances are pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from pcsim.messages import check_choice, check_integer, check_number, refusal

__all__ = ["annulus_depth", "locality", "neighbour_asymmetry", "radial_profile"]

Floats = NDArray[np.float64]

CENTRE = 0.3
"""Share of the peak above which a pixel counts for the centroid."""


def _over_maps(
    field: xr.DataArray,
    measure: Callable[[Floats, Floats], Floats],
    where: str,
    name: str = "",
    about: str = "peak",
) -> xr.DataArray:
    """Apply `measure` to normalised maps (n, y, x) and distances from their middles (n, y, x)."""
    field = check_field(field, where)

    def apply(maps: Floats) -> Floats:
        flat = maps.reshape(-1, *maps.shape[-2:]).astype(np.float64)
        normalised, distance = _from_peak(flat)
        if about == "centroid":
            distance = _from_centroid(normalised)
        values = measure(normalised, distance)
        values[~np.isfinite(normalised).all((1, 2))] = np.nan
        return values.reshape(maps.shape[:-2] + values.shape[1:])

    result: xr.DataArray = xr.apply_ufunc(
        apply,
        field,
        input_core_dims=[["y", "x"]],
        output_core_dims=[["radius"] if name == "radius" else []],
    )
    return result.rename(where)


def check_field(field: xr.DataArray, where: str) -> xr.DataArray:
    """Return a receptive field with finite values along y and x, or refuse it."""
    if not isinstance(field, xr.DataArray) or not {"y", "x"} <= set(field.dims):
        found = f"dims {field.dims}" if isinstance(field, xr.DataArray) else type(field).__name__
        advice = "Make it with response_triggered_average, or name the axes y and x."
        raise ValueError(refusal(where, found, "a field (..., y, x)", advice))
    if field.size == 0 or not bool(np.isfinite(field).all()):
        raise ValueError(refusal(where, "an empty or infinite field", "finite values"))
    return field


def _from_peak(maps: Floats) -> tuple[Floats, Floats]:
    n, ny, nx = maps.shape
    peak = np.abs(maps).reshape(n, -1).argmax(axis=1)
    row, column = np.divmod(peak, nx)
    value = maps[np.arange(n), row, column][:, None, None]
    silent = value == 0.0
    normalised = np.where(silent, np.nan, maps / np.where(silent, 1.0, value))
    rows, columns = np.arange(ny)[:, None], np.arange(nx)
    distance = np.hypot(rows - row[:, None, None], columns - column[:, None, None])
    return normalised, distance


def _from_centroid(normalised: Floats) -> Floats:
    rows, columns = np.indices(normalised.shape[1:])
    weight = np.where(normalised > CENTRE, normalised, 0.0)
    total = weight.sum((1, 2))
    total = np.where(total > 0, total, 1.0)
    row, column = ((weight * at).sum((1, 2)) / total for at in (rows, columns))
    return np.asarray(np.hypot(rows - row[:, None, None], columns - column[:, None, None]))


def radial_profile(
    field: xr.DataArray,
    radii: Sequence[int] = range(6),
    *,
    about: str = "peak",
    rings: str = "nearest",
) -> xr.DataArray:
    """Return the mean of the normalised field over rings around its peak.

    A ring of radius r holds the pixels whose distance from the peak rounds to r; what lies outside
    the array is left out.

    Parameters
    ----------
    field : (..., y, x)
    radii
        Whole pixels.
    about
        "peak", or "centroid": the mean place of the pixels above 0.3 of the peak, weighted by their
        values, which suits fields whose peak is broad and noisy.
    rings
        "nearest", or "between": distances from r to below r + 1.

    Returns
    -------
    profile : (..., radius)
        Relative to the peak; NaN for a field of zeros and for rings wholly outside the array.

    Examples
    --------
    >>> from pcsim.filters import difference_of_gaussians
    >>> kernel = difference_of_gaussians(13, sigma_center=0.9, sigma_surround=2.5)
    >>> radial_profile(xr.DataArray(kernel, dims=("y", "x")), [0, 3]).values.round(3)
    array([ 1.   , -0.068])
    """
    where = "radial_profile"
    chosen = [check_integer(where, "radius", r) for r in radii]
    if not chosen:
        raise ValueError(refusal(where, "no radii", "at least one"))
    check_choice(where, "about", about, ("peak", "centroid"))
    check_choice(where, "rings", rings, ("nearest", "between"))

    def profile(maps: Floats, distance: Floats) -> Floats:
        ring = np.rint(distance) if rings == "nearest" else np.floor(distance)
        out = np.full((maps.shape[0], len(chosen)), np.nan)
        for k, radius in enumerate(chosen):
            inside = ring == radius
            count = inside.sum((1, 2))
            sums = np.where(inside, maps, 0.0).sum((1, 2))
            out[:, k] = np.where(count > 0, sums / np.maximum(count, 1), np.nan)
        return out

    return _over_maps(field, profile, where, "radius", about).assign_coords(radius=chosen)


def annulus_depth(field: xr.DataArray, radii: Sequence[int] = range(1, 6)) -> xr.DataArray:
    r"""Return the depth A of the antagonistic surround, relative to the peak.

    .. math:: A = \min_{r} \langle f \rangle_{r}, \qquad f(peak) = 1

    with the mean over the ring of each radius. Below 0: a surround of opposite sign.

    Parameters
    ----------
    field : (..., y, x)
    radii
        Whole pixels, 1 to 5 in the battery.

    Returns
    -------
    depth : (...)
        NaN for a field of zeros.

    Raises
    ------
    ValueError
        If a ring lies wholly outside the array.

    Examples
    --------
    >>> from pcsim.filters import difference_of_gaussians
    >>> kernel = difference_of_gaussians(13, sigma_center=0.9, sigma_surround=2.5)
    >>> round(annulus_depth(xr.DataArray(-kernel, dims=("y", "x"))).item(), 3)
    -0.068
    """
    where = "annulus_depth"
    profile = radial_profile(field, radii)
    silent = profile.isnull().all("radius")
    if bool((profile.isnull() & ~silent).any()):
        found = f"a field of {field.sizes['y']} x {field.sizes['x']} pixels"
        expected = f"one with pixels at radii {list(radii)} around each peak"
        raise ValueError(refusal(where, found, expected, "Enlarge it, or pass smaller radii."))
    return profile.min("radius").rename(where)


def locality(field: xr.DataArray, radius: float = 4.0) -> xr.DataArray:
    r"""Return the share of the energy nearer to the peak than `radius` pixels.

    .. math:: K_4 = \sum_{r < 4} f^2 / \sum f^2

    Parameters
    ----------
    field : (..., y, x)
    radius
        Pixels.

    Returns
    -------
    share : (...)
        From 0 to 1; NaN for a field of zeros.

    Examples
    --------
    >>> spread = xr.DataArray(np.ones((9, 9)), dims=("y", "x"))
    >>> spread[4, 4] = 2.0
    >>> round(locality(spread).item(), 4)
    0.5714
    """
    radius = check_number("locality", "radius", radius, positive=True)

    def share(maps: Floats, distance: Floats) -> Floats:
        # Far below the peak a square underflows; it adds nothing.
        energy = np.where(np.abs(maps) > 1e-150, maps, 0.0) ** 2
        total = energy.sum((1, 2))
        inside = np.where(distance < radius, energy, 0.0).sum((1, 2))
        return np.asarray(inside / np.where(total > 0, total, 1.0))

    return _over_maps(field, share, "locality")


def neighbour_asymmetry(field: xr.DataArray) -> xr.DataArray:
    """Return the standard deviation of the 8 neighbours of the peak, relative to the peak.

    0 is a field alike on all sides; the corners of a round one already make some difference.

    Parameters
    ----------
    field : (..., y, x)

    Returns
    -------
    asymmetry : (...)
        NaN for a field of zeros and where the peak lies on the border of the array.

    Examples
    --------
    >>> lopsided = xr.DataArray([[0.0, 0.0, 0.0], [0.0, 2.0, 1.0], [0.0, 0.0, 0.0]],
    ...                         dims=("y", "x"))
    >>> round(neighbour_asymmetry(lopsided).item(), 4)
    0.1654
    """

    def asymmetry(maps: Floats, distance: Floats) -> Floats:
        around = (distance > 0.5) & (distance < 1.5)
        out = np.full(maps.shape[0], np.nan)
        whole = around.sum((1, 2)) == 8
        if whole.any():
            out[whole] = maps[whole][around[whole]].reshape(-1, 8).std(axis=1)
        return out

    return _over_maps(field, asymmetry, "neighbour_asymmetry")
