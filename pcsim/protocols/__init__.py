"""What protocols of the battery share: whose response is read, where it looks, what it prefers."""

from pcsim.protocols.fields import map_fields, preferences
from pcsim.protocols.gratings import amplitude, fitted_gratings, fitted_units, size_tuning
from pcsim.protocols.signals import (
    OUTPUTS,
    blank,
    first_level,
    lacks,
    respond,
    roles_at,
    signal_role,
    visual_field,
    window_mean,
)
from pcsim.protocols.tones import Listening, cannot_hear, listen, tone_levels

__all__ = [
    "OUTPUTS",
    "Listening",
    "amplitude",
    "blank",
    "cannot_hear",
    "first_level",
    "fitted_gratings",
    "fitted_units",
    "lacks",
    "listen",
    "map_fields",
    "preferences",
    "respond",
    "roles_at",
    "signal_role",
    "size_tuning",
    "tone_levels",
    "visual_field",
    "window_mean",
]
