"""Stimuli: bars, gratings, noise, photographs, image sequences, dead leaves, tones.

Each function takes the field in pixels (rows, columns) and `px_per_deg`, sizes in degrees, angles
in radians (0 along x, counter-clockwise, y upwards), time in seconds and Michelson contrast, and
returns a stimulus (trial, time, y, x) or (trial, time, feature) whose parameters lie on `trial`.
"""

from __future__ import annotations

from pcsim.stimuli.bars import bars
from pcsim.stimuli.gratings import gratings
from pcsim.stimuli.natural import natural_patches
from pcsim.stimuli.noise import m_sequence, white_noise
from pcsim.stimuli.photographs import PHOTOGRAPHS, Photograph, photographs, preprocess
from pcsim.stimuli.trials import grid

__all__ = [
    "PHOTOGRAPHS",
    "Photograph",
    "bars",
    "gratings",
    "grid",
    "m_sequence",
    "natural_patches",
    "photographs",
    "preprocess",
    "white_noise",
]
