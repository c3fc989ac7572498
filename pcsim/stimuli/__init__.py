"""Stimuli: bars, gratings, noise, photographs, image sequences, dead leaves, tones.

Each function takes the field in pixels (rows, columns) and `px_per_deg`, sizes in degrees, angles
in radians (0 along x, counter-clockwise, y upwards), time in seconds and Michelson contrast, and
returns a stimulus (trial, time, y, x) or (trial, time, feature) whose parameters lie on `trial`.
"""

from __future__ import annotations

from pcsim.stimuli.bars import bars
from pcsim.stimuli.dead_leaves import dead_leaves, dead_leaves_stream
from pcsim.stimuli.eye import eye_movements
from pcsim.stimuli.flicker import PATTERNS, check_patterns, pattern_amplitudes, pattern_flicker
from pcsim.stimuli.gliding import gliding_photographs
from pcsim.stimuli.gratings import gratings
from pcsim.stimuli.jitter import MOTIONS, jittered_gratings, random_walks
from pcsim.stimuli.motor_rhythms import BURST_PHASES, PERIODS, bursts, rhythms, tonic_period
from pcsim.stimuli.natural import natural_patches
from pcsim.stimuli.noise import m_sequence, white_noise
from pcsim.stimuli.oddball import (
    ToneScale,
    cascade_sequence,
    many_standards_sequence,
    oddball_sequence,
)
from pcsim.stimuli.optic_flow import add_noise, optic_flow, running_speed
from pcsim.stimuli.photographs import PHOTOGRAPHS, Photograph, photographs, preprocess
from pcsim.stimuli.self_sound import self_sound_sequence
from pcsim.stimuli.sequences import natural_sequences
from pcsim.stimuli.stochastic_bar import (
    damped_motion,
    damped_motion_covariance,
    moving_bars,
)
from pcsim.stimuli.tone_sequences import (
    local_global_sequence,
    markov_sequence,
    pair_sequence,
    tone_events,
)
from pcsim.stimuli.trials import grid
from pcsim.stimuli.video import video_sequences

__all__ = [
    "BURST_PHASES",
    "MOTIONS",
    "PATTERNS",
    "PERIODS",
    "PHOTOGRAPHS",
    "Photograph",
    "ToneScale",
    "add_noise",
    "bars",
    "bursts",
    "cascade_sequence",
    "check_patterns",
    "damped_motion",
    "damped_motion_covariance",
    "dead_leaves",
    "dead_leaves_stream",
    "eye_movements",
    "gliding_photographs",
    "gratings",
    "grid",
    "jittered_gratings",
    "local_global_sequence",
    "m_sequence",
    "many_standards_sequence",
    "markov_sequence",
    "moving_bars",
    "natural_patches",
    "natural_sequences",
    "oddball_sequence",
    "optic_flow",
    "pair_sequence",
    "pattern_amplitudes",
    "pattern_flicker",
    "photographs",
    "preprocess",
    "random_walks",
    "rhythms",
    "running_speed",
    "self_sound_sequence",
    "tone_events",
    "tonic_period",
    "video_sequences",
    "white_noise",
]
