"""The visual field that a stimulus is drawn on: pixels, degrees, and edges without staircase.

x runs to the right and y upwards, both in degrees from the centre of the field, so row 0 is the
top. Orientation 0 means elongated along x; angles grow counter-clockwise.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from pcsim.filters import check_shape
from pcsim.messages import check_number, refusal
from pcsim.stimulus import stimulus_array

__all__ = ["Field", "covered", "frames"]

Floats = NDArray[np.floating[Any]]


@dataclass(frozen=True)
class Field:
    """A rectangle of pixels in the visual field.

    Examples
    --------
    >>> field = Field.check("bars", (4, 8), 16.0)
    >>> field.size, field.y
    ((0.25, 0.5), array([ 0.09375,  0.03125, -0.03125, -0.09375]))
    """

    shape: tuple[int, int]
    """Rows and columns."""
    px_per_deg: float

    @classmethod
    def check(cls, where: str, field_shape: Any, px_per_deg: Any) -> Field:
        """Build a field from a caller's parameters, or refuse them."""
        shape = check_shape(where, "field_shape", field_shape)
        return cls(shape, check_number(where, "px_per_deg", px_per_deg, positive=True))

    @property
    def size(self) -> tuple[float, float]:
        """Height and width, degrees."""
        return self.shape[0] / self.px_per_deg, self.shape[1] / self.px_per_deg

    @property
    def x(self) -> Floats:
        """Centres of the columns, degrees right of the centre."""
        return (np.arange(self.shape[1]) - 0.5 * (self.shape[1] - 1)) / self.px_per_deg

    @property
    def y(self) -> Floats:
        """Centres of the rows, degrees above the centre."""
        return (0.5 * (self.shape[0] - 1) - np.arange(self.shape[0])) / self.px_per_deg

    def rotated(self, x: Floats, y: Floats, orientation: Floats) -> tuple[Floats, Floats]:
        """Return distances along and across an orientation from `x`, `y`: two (n, ny, nx)."""
        right = self.x[None, None, :] - x[:, None, None]
        up = self.y[None, :, None] - y[:, None, None]
        cos, sin = np.cos(orientation)[:, None, None], np.sin(orientation)[:, None, None]
        return right * cos + up * sin, up * cos - right * sin

    def stimulus(
        self, values: Floats, *, frame_duration: float, condition: Any, **trial_coords: Any
    ) -> xr.DataArray:
        """Label images (trial, time, y, x) of this field, pixel centres in degrees included."""
        stimulus = stimulus_array(
            values,
            frame_duration=frame_duration,
            px_per_deg=self.px_per_deg,
            condition=condition,
            **trial_coords,
        )
        return stimulus.assign_coords(x=self.x, y=self.y)

    def must_hold(self, where: str, what: str, half_height: Floats, half_width: Floats) -> None:
        """Refuse extents, in degrees from the centre, that reach beyond the field."""
        height, width = self.size
        # Rounding may put an edge that lies on the border a hair outside.
        slack = 1e-9 * max(height, width)
        if (2 * half_height > height + slack).any() or (2 * half_width > width + slack).any():
            tall, wide = 2 * float(half_height.max()), 2 * float(half_width.max())
            found = f"{what} that reaches over {tall:.4g} x {wide:.4g} degrees about the centre"
            expected = f"one within the field of {height:.4g} x {width:.4g} degrees"
            raise ValueError(
                refusal(where, found, expected, "Shrink or move it, or enlarge field_shape.")
            )


def covered(distance: Floats, half_width: Floats, pixel: float) -> Floats:
    """Return how much of a pixel lies within `half_width` of a line, or of a point.

    A pixel is as wide as its side in every direction: exact for edges along the axes, and in sum
    for slanted ones.

    Parameters
    ----------
    distance, half_width
        From the pixel's centre to the line, and half the width of the stripe about that line.
    pixel
        Side of a pixel, in the same unit.

    Examples
    --------
    >>> covered(np.array([0.0, 1.0, 2.0]), np.array(1.25), 1.0)
    array([1.  , 0.75, 0.  ])
    """
    upper = np.minimum(distance + 0.5 * pixel, half_width)
    lower = np.maximum(distance - 0.5 * pixel, -half_width)
    return np.asarray(np.clip((upper - lower) / pixel, 0.0, 1.0))


def frames(where: str, duration: Any, frame_duration: Any) -> tuple[int, float]:
    """Return the number of frames and the seconds of each; None means one frame for all.

    Examples
    --------
    >>> frames("bars", 0.2, 0.05), frames("bars", 0.2, None)
    ((4, 0.05), (1, 0.2))
    """
    duration = check_number(where, "duration", duration, positive=True)
    if frame_duration is None:
        return 1, duration
    frame_duration = check_number(where, "frame_duration", frame_duration, positive=True)
    n = duration / frame_duration
    if round(n) < 1 or abs(n - round(n)) > 1e-6 * n:
        found = f"duration {duration:.6g} s and frame_duration {frame_duration:.6g} s"
        expected = "a whole number of frames"
        raise ValueError(refusal(where, found, expected, "Round duration to whole frames."))
    return round(n), frame_duration
