"""Gratings that jitter: an object on a background that moves with it or on its own."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from pcsim.messages import check_integer, check_number, refusal
from pcsim.stimuli.field import Field, covered
from pcsim.stimuli.trials import align, names_of, numbers

__all__ = ["MOTIONS", "jittered_gratings", "random_walks"]

Floats = NDArray[np.floating[Any]]

MOTIONS = ("global", "differential", "center", "background")
"""Both parts move alike; each on its own; only the one or the other moves."""


def random_walks(n_walks: int, n_frames: int, *, step: float, rng: np.random.Generator) -> Floats:
    """Walk on a line: one step forth or back before every frame but the first.

    Returns
    -------
    walks : (n_walks, n_frames)
        In the unit of `step`; all begin at 0.

    Examples
    --------
    >>> walks = random_walks(2, 5, step=0.5, rng=np.random.default_rng(0))
    >>> walks[:, 0], np.unique(np.abs(np.diff(walks)))
    (array([0., 0.]), array([0.5]))
    """
    steps = step * rng.choice([-1.0, 1.0], (n_walks, n_frames))
    steps[:, 0] = 0.0
    return np.cumsum(steps, axis=1)


def jittered_gratings(
    field_shape: tuple[int, int],
    *,
    motion: Any,
    spatial_frequency: float,
    center_diameter: float,
    direction: Any = 0.0,
    phase: Any = 0.0,
    walk: Any = 0,
    step: float = 0.02,
    gap: float = 0.0,
    contrast: float = 1.0,
    n_frames: int = 100,
    seed: int = 0,
    background: float = 0.5,
    frame_duration: float = 0.015,
    px_per_deg: float = 16.0,
) -> xr.DataArray:
    r"""Show a grating in a disc and another in the rest of the field, both shaken along one line.

    Displaced by s(t), the grating is :math:`L_0(1 + c\cos(2\pi f(v - s(t)) + \varphi))` with v the
    distance along the direction. The disc's walk has the same course under every `motion` that
    moves it, and so has the background's own walk.

    Parameters
    ----------
    field_shape
        Rows and columns.
    motion
        One or one a trial of `MOTIONS`.
    spatial_frequency
        Cycles per degree.
    center_diameter
        Of the disc in the middle of the field, degrees.
    direction
        Of a positive step, radians from x; the stripes stand at a right angle. One or one a trial.
    phase
        Of the grating in both parts before the first step, radians. One or one a trial.
    walk
        Number of the pair of random walks, from 0 on; one or one a trial. Trials of the same number
        move in the same way.
    step
        Length of a step, degrees; one a frame.
    gap
        Width of a grey ring around the disc, degrees.
    contrast
        Michelson.
    n_frames
        One step a frame.
    seed
        Of the walks.
    background
        Mean luminance.
    frame_duration
        Seconds.
    px_per_deg
        Pixels per degree.

    Returns
    -------
    stimulus : (trial, time, y, x)
        The condition is the motion; `direction`, `phase` and `walk` on `trial`.

    Raises
    ------
    ValueError
        If a parameter is out of range, or the disc is wider than the field.

    References
    ----------
    Olveczky, Baccus & Meister (2003), Nature 423:401-408

    Examples
    --------
    >>> both = jittered_gratings((24, 24), motion=["global", "differential"],
    ...                          spatial_frequency=2.0, center_diameter=0.5)
    >>> both.condition.values.tolist(), both.sizes["time"]
    (['global', 'differential'], 100)
    """
    where = "jittered_gratings"
    field = Field.check(where, field_shape, px_per_deg)
    scalars = _checked(where, field, spatial_frequency, center_diameter, step, gap)
    background = check_number(where, "background", background, low=0.0, high=0.5)
    contrast = check_number(where, "contrast", contrast, low=0.0, high=1.0)
    n_frames = check_integer(where, "n_frames", n_frames, low=1)
    trial = _trials(where, motion, direction, phase, walk)
    rng = np.random.default_rng(check_integer(where, "seed", seed))
    n_walks = int(trial["walk"].max()) + 1
    # Pair by pair, so that the first pairs are the same however many there are.
    pairs = [random_walks(2, n_frames, step=scalars["step"], rng=rng) for _ in range(n_walks)]
    walks = np.stack(pairs)[trial["walk"].astype(int)]
    kind = trial["condition"]
    disc = np.where((kind == "background")[:, None], 0.0, walks[:, 0])
    own = np.isin(kind, ["differential", "background"])[:, None]
    rest = np.where(own, walks[:, 1], np.where((kind == "global")[:, None], walks[:, 0], 0.0))
    zero = np.zeros(len(kind))
    along, _ = field.rotated(zero, zero, trial["direction"])
    radius = np.hypot(*field.rotated(zero[:1], zero[:1], zero[:1]))[0]
    half, pixel = 0.5 * scalars["center_diameter"], 1.0 / field.px_per_deg
    inside = covered(radius, np.array(half), pixel)
    outside = 1.0 - covered(radius, np.array(half + scalars["gap"]), pixel)
    f = 2.0 * np.pi * scalars["spatial_frequency"]
    base = f * along + trial["phase"][:, None, None]
    # cos(a - b) = cos a cos b + sin a sin b: one product instead of a cosine a pixel and frame.
    maps = [wave(base) * part for part in (inside, outside) for wave in (np.cos, np.sin)]
    shifts = [wave(f * shift) for shift in (disc, rest) for wave in (np.cos, np.sin)]
    images = np.stack(maps, axis=1).reshape(len(kind), 4, -1)
    waves = np.matmul(np.stack(shifts, axis=-1), images).reshape(len(kind), -1, *field.shape)
    values = background * (1.0 + contrast * waves)
    labels = {"spatial_frequency": spatial_frequency, "contrast": contrast, "seed": seed, **trial}
    return field.stimulus(np.clip(values, 0.0, 1.0), frame_duration=frame_duration, **labels)


def _checked(
    where: str, field: Field, frequency: Any, diameter: Any, step: Any, gap: Any
) -> dict[str, float]:
    frequency = check_number(where, "spatial_frequency", frequency, positive=True)
    if frequency > 0.5 * field.px_per_deg:
        found = f"spatial_frequency {frequency:g} cycles/degree at {field.px_per_deg:g} pixels"
        expected = f"at most {0.5 * field.px_per_deg:g}, two pixels a cycle"
        raise ValueError(refusal(where, found, expected, "Raise px_per_deg."))
    diameter = check_number(where, "center_diameter", diameter, positive=True)
    gap = check_number(where, "gap", gap, low=0.0)
    extent = np.array(0.5 * diameter + gap)
    field.must_hold(where, "a disc", extent, extent)
    step = check_number(where, "step", step, low=0.0)
    return {
        "spatial_frequency": frequency, "center_diameter": diameter, "step": step, "gap": gap,
    }  # fmt: skip


def _trials(where: str, motion: Any, direction: Any, phase: Any, walk: Any) -> dict[str, Any]:
    kind = names_of(where, "motion", motion)
    unknown = [name for name in kind.tolist() if name not in MOTIONS]
    if unknown:
        raise ValueError(refusal(where, f"motion {unknown[0]!r}", f"one of {', '.join(MOTIONS)}"))
    walk = numbers(where, "walk", walk, low=0.0)
    if (walk != np.round(walk)).any():
        raise ValueError(refusal(where, f"walk {walk.tolist()}", "whole numbers from 0 on"))
    columns: dict[str, NDArray[Any]] = {
        "condition": kind,
        "direction": numbers(where, "direction", direction),
        "phase": numbers(where, "phase", phase),
        "walk": walk,
    }
    return align(where, columns)
