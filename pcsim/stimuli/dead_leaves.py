"""Dead leaves: discs that occlude one another, an endless source of images with natural spectra."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from pcsim.messages import check_integer, check_number, refusal
from pcsim.stimuli.field import Field, covered

__all__ = ["dead_leaves", "dead_leaves_stream", "draw_discs"]

Floats = NDArray[np.floating[Any]]

# What is left to see through all the leaves when an image counts as filled.
TRANSPARENT = 1e-3
MAX_BATCH = 2048


def dead_leaves(
    field_shape: tuple[int, int],
    *,
    n: int,
    seed: int = 0,
    radii: tuple[float, float] = (0.0625, 4.0),
    luminance: tuple[float, float] = (0.0, 1.0),
    frame_duration: float = 0.2,
    px_per_deg: float = 16.0,
    condition: Any = "dead_leaves",
) -> xr.DataArray:
    """Draw `n` dead-leaves images, one a trial: the first `n` of `dead_leaves_stream`.

    Parameters
    ----------
    field_shape, seed, radii, luminance, px_per_deg
        As for `dead_leaves_stream`.
    n
        How many.
    frame_duration
        How long each is shown, seconds.
    condition
        Name of the condition.

    Returns
    -------
    stimulus : (trial, 1, y, x)
        On `trial`: `image_number`, `seed`, `smallest_radius` and `largest_radius` in degrees.

    Examples
    --------
    >>> leaves = dead_leaves((16, 16), n=2, seed=5)
    >>> leaves.shape, bool((leaves >= 0).all() & (leaves <= 1).all())
    ((2, 1, 16, 16), True)
    """
    field = Field.check("dead_leaves", field_shape, px_per_deg)
    n = check_integer("dead_leaves", "n", n, low=1)
    stream = dead_leaves_stream(
        field.shape, seed=seed, radii=radii, luminance=luminance, px_per_deg=px_per_deg
    )
    return field.stimulus(
        np.stack(list(itertools.islice(stream, n)))[:, None],
        frame_duration=frame_duration,
        condition=condition,
        image_number=np.arange(n),
        seed=seed,
        smallest_radius=float(radii[0]),
        largest_radius=float(radii[1]),
    )


def dead_leaves_stream(
    field_shape: tuple[int, int],
    *,
    seed: int = 0,
    radii: tuple[float, float] = (0.0625, 4.0),
    luminance: tuple[float, float] = (0.0, 1.0),
    px_per_deg: float = 16.0,
) -> Iterator[Floats]:
    r"""Yield dead-leaves images without end.

    Opaque discs fall everywhere, also outside the field, until they hide the ground. Their radii
    have density proportional to :math:`r^{-3}` between two limits, the one law under which objects
    of all sizes cover equal areas, so that the images look alike at every scale between the limits
    and their power falls about as the inverse square of frequency. Luminance is uniform and
    independent from disc to disc. Edges are antialiased.

    Parameters
    ----------
    field_shape
        Rows and columns.
    seed
        Of the generator. Image i depends on `seed` and i alone.
    radii
        Smallest and largest radius, degrees. By default a pixel, and the width of a field of 8
        degrees halved.
    luminance
        Lowest and highest.
    px_per_deg
        Pixels per degree.

    Yields
    ------
    image : (ny, nx)

    Raises
    ------
    ValueError
        If the radii or the luminances are not in order.

    References
    ----------
    Lee, Mumford & Huang (2001), International Journal of Computer Vision 41:35-59

    Examples
    --------
    >>> stream = dead_leaves_stream((8, 8), seed=1)
    >>> bool((next(stream) == next(stream)).all())
    False
    """
    where = "dead_leaves"
    field = Field.check(where, field_shape, px_per_deg)
    seed = check_integer(where, "seed", seed)
    radii = _pair(where, "radii", radii, above_zero=True)
    luminance = _pair(where, "luminance", luminance)
    if luminance[0] < 0 or luminance[1] > 1:
        raise ValueError(refusal(where, f"luminance {luminance}", "numbers from 0 to 1"))
    return _images(field, seed, radii, luminance)


def _pair(where: str, name: str, value: Any, *, above_zero: bool = False) -> tuple[float, float]:
    if not isinstance(value, tuple | list) or len(value) != 2:
        found, advice = f"{name} {value!r}", "Give (low, high)."
        raise ValueError(refusal(where, found, "two numbers", advice))
    low, high = (check_number(where, name, entry, positive=above_zero) for entry in value)
    if low >= high:
        found, advice = f"{name} {low:g} to {high:g}", "Give (low, high)."
        raise ValueError(refusal(where, found, "the lower one first", advice))
    return low, high


def _images(
    field: Field, seed: int, radii: tuple[float, float], luminance: tuple[float, float]
) -> Iterator[Floats]:
    for number in itertools.count():
        yield _image(field, np.random.default_rng([seed, number]), radii, luminance)


def _image(
    field: Field,
    rng: np.random.Generator,
    radii: tuple[float, float],
    luminance: tuple[float, float],
) -> Floats:
    """Lay leaves behind one another, the front one first, until nothing shines through."""
    image, open_ = np.zeros(field.shape), np.ones(field.shape)
    pixel, batch = 1.0 / field.px_per_deg, 16
    while open_.max() > TRANSPARENT:
        batch = min(2 * batch, MAX_BATCH)
        radius, x, y = draw_discs(batch, rng=rng, radii=radii, size=field.size)
        light = rng.uniform(*luminance, batch)
        for i in _unhidden(field, open_, radius, x, y):
            rows = _span(-field.y, -y[i], radius[i] + pixel)
            columns = _span(field.x, x[i], radius[i] + pixel)
            distance = np.hypot(field.y[rows, None] - y[i], field.x[None, columns] - x[i])
            leaf = covered(distance, radius[i], pixel) * open_[rows, columns]
            image[rows, columns] += light[i] * leaf
            open_[rows, columns] -= leaf
    return np.asarray(image / (1.0 - open_))


def _unhidden(
    field: Field, open_: Floats, radius: Floats, x: Floats, y: Floats
) -> NDArray[np.integer[Any]]:
    """Return the discs that may touch a pixel that is still open, once few are."""
    row, column = np.nonzero(open_ > TRANSPARENT)
    if row.size > 256:
        return np.arange(radius.size)
    squared = (field.x[column] - x[:, None]) ** 2 + (field.y[row] - y[:, None]) ** 2
    reach = radius + 1.0 / field.px_per_deg
    return np.flatnonzero((squared < reach[:, None] ** 2).any(axis=1))


def _span(centers: Floats, middle: float, reach: float) -> slice:
    """Return the part of increasing `centers` within `reach` of `middle`."""
    low, high = np.searchsorted(centers, (middle - reach, middle + reach))
    return slice(int(low), int(high))


def draw_discs(
    n: int, *, rng: np.random.Generator, radii: tuple[float, float], size: tuple[float, float]
) -> tuple[Floats, Floats, Floats]:
    r"""Draw discs that fall onto a plane, leaving out those that miss a rectangle.

    A disc of radius r can touch the rectangle :math:`h \times w` when its centre lies within r of
    it, so among those that can, density is :math:`r^{-3} (h + 2r)(w + 2r)`, a mixture of the powers
    -3, -2 and -1, each drawn by its inverse.

    Parameters
    ----------
    n
        How many.
    rng
        Where the randomness comes from.
    radii
        Smallest and largest.
    size
        Height and width of the rectangle, in the unit of the radii.

    Returns
    -------
    radius, x, y : (n,)
        Centres lie uniformly in the rectangle widened by the radius on every side.

    Examples
    --------
    >>> discs = draw_discs(3, rng=np.random.default_rng(0), radii=(0.1, 2.0), size=(1.0, 1.0))
    >>> [entry.shape for entry in discs]
    [(3,), (3,), (3,)]
    """
    (low, high), (height, width) = radii, size
    share = np.array(
        [
            height * width * (low**-2.0 - high**-2.0) / 2.0,
            2.0 * (height + width) * (1.0 / low - 1.0 / high),
            4.0 * np.log(high / low),
        ]
    )
    power, u = rng.choice(3, size=n, p=share / share.sum()), rng.uniform(0.0, 1.0, n)
    cubes = (low**-2.0 + u * (high**-2.0 - low**-2.0)) ** -0.5
    squares = 1.0 / (1.0 / low + u * (1.0 / high - 1.0 / low))
    radius = np.choose(power, [cubes, squares, low * (high / low) ** u])
    x = rng.uniform(-0.5, 0.5, n) * (width + 2.0 * radius)
    y = rng.uniform(-0.5, 0.5, n) * (height + 2.0 * radius)
    return radius, x, y
