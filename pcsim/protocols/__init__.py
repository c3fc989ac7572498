"""What protocols of the battery share: whose response is read, where it looks, what it prefers."""

from pcsim.protocols.altered import Altered, ImageFunction, StandIn, alteration
from pcsim.protocols.contrasts import (
    ESTIMATES,
    contrast_index,
    deepest_estimate,
    departure,
    equal_patches,
    responsive,
)
from pcsim.protocols.fields import map_fields, preferences
from pcsim.protocols.gratings import amplitude, fitted_gratings, fitted_units, size_tuning
from pcsim.protocols.learned_inference import (
    Mistaught,
    Untaught,
    films,
    inferring,
    lacks_inference,
)
from pcsim.protocols.rhythm import BANDS as RHYTHM_BANDS
from pcsim.protocols.rhythm import TAPERS as RHYTHM_TAPERS
from pcsim.protocols.rhythm import (
    error_estimate_pairs,
    noisy_movies,
    pair_influence,
    pair_potentials,
    pair_responses,
    steady_responses,
)
from pcsim.protocols.scales import by_scale
from pcsim.protocols.signals import (
    OUTPUTS,
    blank,
    first_level,
    lacks,
    recording,
    respond,
    roles_at,
    signal_role,
    visual_field,
    window_mean,
)
from pcsim.protocols.tones import Listening, cannot_hear, listen, tone_levels

__all__ = [
    "ESTIMATES",
    "OUTPUTS",
    "RHYTHM_BANDS",
    "RHYTHM_TAPERS",
    "Altered",
    "ImageFunction",
    "Listening",
    "Mistaught",
    "StandIn",
    "Untaught",
    "alteration",
    "amplitude",
    "blank",
    "by_scale",
    "cannot_hear",
    "contrast_index",
    "deepest_estimate",
    "departure",
    "equal_patches",
    "error_estimate_pairs",
    "films",
    "first_level",
    "fitted_gratings",
    "fitted_units",
    "inferring",
    "lacks",
    "lacks_inference",
    "listen",
    "map_fields",
    "noisy_movies",
    "pair_influence",
    "pair_potentials",
    "pair_responses",
    "preferences",
    "recording",
    "respond",
    "responsive",
    "roles_at",
    "signal_role",
    "size_tuning",
    "steady_responses",
    "tone_levels",
    "visual_field",
    "window_mean",
]
