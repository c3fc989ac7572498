"""Gratings: static or drifting, full field, in a disc, with an annular surround, and plaids."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from pcsim.messages import check_array, check_number, refusal
from pcsim.stimuli.field import Field, covered, frames
from pcsim.stimuli.trials import align, names_of, numbers

__all__ = ["gratings"]

Floats = NDArray[np.floating[Any]]
Trials = dict[str, Any]


_LIMITS: dict[str, dict[str, float]] = {
    "orientation": {},
    "spatial_frequency": {"low": 0.0},
    "phase": {},
    "contrast": {"low": 0.0, "high": 1.0},
    "temporal_frequency": {},
    "diameter": {"above": 0.0},
    "inner_diameter": {"low": 0.0},
    "x": {},
    "y": {},
    "plaid_contrast": {"low": 0.0, "high": 1.0},
    "plaid_orientation": {},
    "plaid_spatial_frequency": {"low": 0.0},
    "plaid_phase": {},
    "surround_contrast": {"low": 0.0, "high": 1.0},
    "surround_orientation": {},
    "surround_phase": {},
    "surround_diameter": {"above": 0.0},
    "surround_inner_diameter": {"low": 0.0},
}
"""Parameters of a trial and the numbers that they may take."""


def gratings(
    field_shape: tuple[int, int],
    *,
    spatial_frequency: Any,
    orientation: Any = 0.0,
    phase: Any = 0.0,
    contrast: Any = 1.0,
    temporal_frequency: Any = 0.0,
    diameter: Any = None,
    inner_diameter: Any = 0.0,
    x: Any = 0.0,
    y: Any = 0.0,
    plaid_contrast: Any = 0.0,
    plaid_orientation: Any = None,
    plaid_spatial_frequency: Any = None,
    plaid_phase: Any = 0.0,
    surround_contrast: Any = 0.0,
    surround_orientation: Any = None,
    surround_phase: Any = None,
    surround_diameter: Any = None,
    surround_inner_diameter: Any = None,
    background: float = 0.5,
    duration: float = 0.2,
    frame_duration: float | None = None,
    px_per_deg: float = 16.0,
    condition: Any = "grating",
) -> xr.DataArray:
    r"""Draw gratings, one a trial: :math:`L = L_0 (1 + c \cos(2\pi (f v - f_t t) + \varphi))`.

    :math:`v` is the distance across the stripes from the centre, so a positive temporal frequency
    moves the stripes a quarter turn counter-clockwise of their orientation. All parameters but
    `background`, `duration`, `frame_duration` and `px_per_deg` are one value or one a trial.

    Parameters
    ----------
    field_shape
        Rows and columns.
    spatial_frequency
        Cycles per degree, at most half of `px_per_deg`.
    orientation, phase
        Radians; orientation 0 has stripes along x and turns counter-clockwise. At phase 0 a bright
        stripe runs through the centre.
    contrast
        Michelson, 0 to 1.
    temporal_frequency
        Hertz; 0 is static, negative drifts the other way. Drifting needs `frame_duration`.
    diameter, inner_diameter
        Degrees, the disc that the grating fills and a hole in it. None fills the field.
    x, y
        Centre, degrees right of and above the centre of the field.
    plaid_contrast, plaid_orientation, plaid_spatial_frequency, plaid_phase
        A second grating added in the same disc, moving at the same temporal frequency. By default
        it is orthogonal and of the same spatial frequency.
    surround_contrast, surround_orientation, surround_phase
        A grating in an annulus around the disc, of the same frequencies; by default of the same
        orientation and phase.
    surround_diameter, surround_inner_diameter
        Degrees. By default the annulus reaches from the edge of the disc to the ends of the field.
    background
        Mean luminance, 0 to 1.
    duration, frame_duration
        Seconds. Without `frame_duration` one frame lasts for all of `duration`.
    px_per_deg
        Pixels per degree.
    condition
        Name of the condition.

    Returns
    -------
    stimulus : (trial, time, y, x)
        The parameters lie on `trial`, the centre as `position_x` and `position_y`. An infinite
        diameter stands for one that fills the field.

    Raises
    ------
    ValueError
        If a grating is finer than the pixels, faster than the frames, brighter than 1, or a disc
        reaches beyond the field.

    Examples
    --------
    >>> stimulus = gratings((32, 32), spatial_frequency=2.0, orientation=[0.0, np.pi / 2],
    ...                     contrast=0.4, diameter=1.5)
    >>> stimulus.shape, stimulus.orientation.values.round(2)
    ((2, 1, 32, 32), array([0.  , 1.57]))
    """
    field = Field.check("gratings", field_shape, px_per_deg)
    background = check_number("gratings", "background", background, low=0.0, high=1.0)
    n_frames, held = frames("gratings", duration, frame_duration)
    parameters = {
        "orientation": orientation,
        "spatial_frequency": spatial_frequency,
        "phase": phase,
        "contrast": contrast,
        "temporal_frequency": temporal_frequency,
        "diameter": diameter,
        "inner_diameter": inner_diameter,
        "x": x,
        "y": y,
        "plaid_contrast": plaid_contrast,
        "plaid_orientation": plaid_orientation,
        "plaid_spatial_frequency": plaid_spatial_frequency,
        "plaid_phase": plaid_phase,
        "surround_contrast": surround_contrast,
        "surround_orientation": surround_orientation,
        "surround_phase": surround_phase,
        "surround_diameter": surround_diameter,
        "surround_inner_diameter": surround_inner_diameter,
    }
    trial = _trials(parameters, condition)
    _must_fit(field, trial)
    _must_be_sampled(field, trial, None if frame_duration is None else held)
    _must_be_luminance(background, trial)
    values = background * (1.0 + _modulation(field, trial, held * np.arange(n_frames)))
    return field.stimulus(np.clip(values, 0.0, 1.0), frame_duration=held, **trial)


def _trials(parameters: Trials, condition: Any) -> Trials:
    columns: Trials = {"condition": names_of("gratings", "condition", condition)}
    for name, limits in _LIMITS.items():
        if name.endswith("diameter") and name != "inner_diameter":
            optional = name == "surround_inner_diameter" and parameters[name] is None
            columns |= {} if optional else {name: _diameter(name, parameters[name])}
        elif parameters[name] is not None:
            columns[name] = numbers("gratings", name, parameters[name], **limits)
    columns.setdefault("plaid_orientation", columns["orientation"] + 0.5 * np.pi)
    columns.setdefault("plaid_spatial_frequency", columns["spatial_frequency"])
    columns.setdefault("surround_orientation", columns["orientation"])
    columns.setdefault("surround_phase", columns["phase"])
    columns.setdefault("surround_inner_diameter", columns["diameter"])
    columns["position_x"], columns["position_y"] = columns.pop("x"), columns.pop("y")
    return align("gratings", columns)


def _diameter(name: str, value: Any) -> Floats:
    """Return diameters above 0 where None, in place of any of them, is infinite."""
    given = np.atleast_1d(np.asarray(value, dtype=object))
    absent = np.array([entry is None for entry in given.flat], dtype=bool).reshape(given.shape)
    sizes = np.where(absent, np.inf, given).tolist()
    entries = check_array("gratings", name, sizes, finite=False)
    fills = entries == np.inf
    checked = numbers("gratings", name, np.where(fills, 1.0, entries), above=0.0)
    return np.where(fills, np.inf, checked)


def _must_fit(field: Field, trial: Trials) -> None:
    finite = [trial[name] for name in ("diameter", "surround_diameter")]
    radius = 0.5 * np.max([np.where(np.isinf(size), 0.0, size) for size in finite], axis=0)
    x, y = np.abs(trial["position_x"]), np.abs(trial["position_y"])
    field.must_hold("gratings", "a disc", radius + y, radius + x)
    for inner, outer, drawn in (
        ("inner_diameter", "diameter", trial["contrast"] + trial["plaid_contrast"] > 0),
        ("surround_inner_diameter", "surround_diameter", trial["surround_contrast"] > 0),
    ):
        empty = drawn & (trial[inner] >= trial[outer])
        if empty.any():
            i = int(np.argmax(empty))
            found = f"{inner} {trial[inner][i]:g} and {outer} {trial[outer][i]:g} (inf: the field)"
            advice = "Give both in degrees, the inner one smaller."
            raise ValueError(refusal("gratings", found, "the inner below the outer", advice))


def _must_be_sampled(field: Field, trial: Trials, frame_duration: float | None) -> None:
    for name in ("spatial_frequency", "plaid_spatial_frequency"):
        if trial[name].max() > 0.5 * field.px_per_deg:
            found = f"{name} {trial[name].max():g} cycles/degree at {field.px_per_deg:g} pixels"
            expected = f"at most {0.5 * field.px_per_deg:g}, two pixels a cycle"
            raise ValueError(refusal("gratings", found, expected, "Raise px_per_deg."))
    fastest = np.abs(trial["temporal_frequency"]).max()
    if fastest > 0 and frame_duration is None:
        found = f"temporal_frequency {fastest:g} without frame_duration"
        raise ValueError(refusal("gratings", found, "both", "Give frame_duration, seconds."))
    if frame_duration is not None and fastest * frame_duration > 0.5:
        found = f"temporal_frequency {fastest:g} Hz at frames of {frame_duration:g} s"
        expected = "at least two frames a cycle"
        raise ValueError(refusal("gratings", found, expected, "Shorten frame_duration."))


def _must_be_luminance(background: float, trial: Trials) -> None:
    center = (trial["contrast"] + trial["plaid_contrast"]).max()
    highest = max(center, trial["surround_contrast"].max())
    if highest > 1.0 + 1e-12 or background * (1.0 + highest) > 1.0 + 1e-12:
        found = f"contrast {highest:g}, a plaid's both added, on a background of {background:g}"
        advice = "Lower the contrasts or the background."
        raise ValueError(refusal("gratings", found, "luminance from 0 to 1", advice))


def _modulation(field: Field, trial: Trials, time: Floats) -> Floats:
    """Return luminance relative to the background less 1: (trial, time, y, x)."""
    radius = np.hypot(*field.rotated(trial["position_x"], trial["position_y"], 0 * trial["phase"]))
    pixel = 1.0 / field.px_per_deg

    def ring(inner: str, outer: str) -> Floats:
        hole, disc = (covered(radius, 0.5 * trial[d][:, None, None], pixel) for d in (inner, outer))
        return np.clip(disc - hole, 0.0, 1.0)

    center = ring("inner_diameter", "diameter")
    total = _wave(field, trial, time, "") * center[:, None]
    if (trial["plaid_contrast"] > 0).any():
        total += _wave(field, trial, time, "plaid_") * center[:, None]
    if (trial["surround_contrast"] > 0).any():
        around = {**trial, "surround_spatial_frequency": trial["spatial_frequency"]}
        annulus = ring("surround_inner_diameter", "surround_diameter")
        total += _wave(field, around, time, "surround_") * annulus[:, None]
    return total


def _wave(field: Field, trial: Trials, time: Floats, part: str) -> Floats:
    x, y, orientation = trial["position_x"], trial["position_y"], trial[f"{part}orientation"]
    _, across = field.rotated(x, y, orientation)
    space = trial[f"{part}spatial_frequency"][:, None, None] * across
    cycles = space[:, None] - (trial["temporal_frequency"][:, None] * time)[:, :, None, None]
    phase = trial[f"{part}phase"][:, None, None, None]
    wave = np.cos(2.0 * np.pi * cycles + phase)
    return np.asarray(trial[f"{part}contrast"][:, None, None, None] * wave)
