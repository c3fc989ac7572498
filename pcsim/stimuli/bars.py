"""Bars of any length, width, orientation, position and contrast."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr

from pcsim.messages import check_number, refusal
from pcsim.stimuli.field import Field, covered, frames
from pcsim.stimuli.trials import align, names_of, numbers

__all__ = ["bars"]


def bars(
    field_shape: tuple[int, int],
    *,
    length: Any,
    width: Any = 0.125,
    orientation: Any = 0.0,
    x: Any = 0.0,
    y: Any = 0.0,
    contrast: Any = 1.0,
    background: float = 0.5,
    duration: float = 0.2,
    frame_duration: float | None = None,
    px_per_deg: float = 16.0,
    condition: Any = "bar",
) -> xr.DataArray:
    """Draw bars, one a trial, with antialiased edges.

    Every parameter down to `contrast`, and `condition`, is one value or one a trial; `grid` makes
    all combinations.

    Parameters
    ----------
    field_shape
        Rows and columns.
    length, width
        Degrees, along and across the orientation. A length of 0 draws no bar.
    orientation
        Radians counter-clockwise, 0 along x.
    x, y
        Centre, degrees right of and above the centre of the field.
    contrast
        From -1 to 1, negative for dark bars. The bar has luminance ``background * (1 + contrast)``,
        so that bars of contrast c and -c differ by Michelson contrast c.
    background
        Luminance around the bars, from 0 to 1.
    duration, frame_duration
        Seconds. Without `frame_duration` one frame lasts for all of `duration`.
    px_per_deg
        Pixels per degree.

    Returns
    -------
    stimulus : (trial, time, y, x)
        The parameters lie on `trial`, the centre as `position_x` and `position_y`.

    Raises
    ------
    ValueError
        If a bar reaches beyond the field, or a parameter is out of range.

    Examples
    --------
    >>> stimulus = bars((16, 16), length=[0.25, 0.5], width=0.125, contrast=-1.0)
    >>> dark = (0.5 - stimulus).sum(("y", "x")) / 0.5 / 16.0**2
    >>> dark.values.ravel()  # area, square degrees
    array([0.03125, 0.0625 ])
    """
    where = "bars"
    field = Field.check(where, field_shape, px_per_deg)
    background = check_number(where, "background", background, low=0.0, high=1.0)
    n_frames, frame_duration = frames(where, duration, frame_duration)
    trial = align(
        where,
        {
            "length": numbers(where, "length", length, low=0.0),
            "width": numbers(where, "width", width, above=0.0),
            "orientation": numbers(where, "orientation", orientation),
            "position_x": numbers(where, "x", x),
            "position_y": numbers(where, "y", y),
            "contrast": numbers(where, "contrast", contrast, low=-1.0, high=1.0),
            "condition": names_of(where, "condition", condition),
        },
    )
    _must_fit(field, trial)
    if background * (1.0 + trial["contrast"].max()) > 1.0:
        found = f"contrast {trial['contrast'].max():g} on a background of {background:g}"
        advice = "Lower the contrast or the background."
        raise ValueError(refusal(where, found, "a luminance up to 1", advice))
    along, across = field.rotated(trial["position_x"], trial["position_y"], trial["orientation"])
    half_length, half_width = (0.5 * trial[name][:, None, None] for name in ("length", "width"))
    pixel = 1.0 / field.px_per_deg
    bar = covered(along, half_length, pixel) * covered(across, half_width, pixel)
    images = background * (1.0 + trial["contrast"][:, None, None] * bar)
    values = np.repeat(images[:, None], n_frames, axis=1)
    return field.stimulus(values, frame_duration=frame_duration, **trial)


def _must_fit(field: Field, trial: dict[str, Any]) -> None:
    cos, sin = np.abs(np.cos(trial["orientation"])), np.abs(np.sin(trial["orientation"]))
    # The sine of pi is not quite 0: a bar as long as the field would stick out by 1e-17.
    cos, sin = np.round(cos, 12), np.round(sin, 12)
    half_width = 0.5 * (trial["length"] * cos + trial["width"] * sin)
    half_height = 0.5 * (trial["length"] * sin + trial["width"] * cos)
    field.must_hold(
        "bars",
        "a bar",
        half_height + np.abs(trial["position_y"]),
        half_width + np.abs(trial["position_x"]),
    )
