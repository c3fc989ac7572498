"""Population kinds: one small class an equation, for arrays and for Brian 2."""

from __future__ import annotations

from pcsim.kinds.depression import Depression
from pcsim.kinds.divisive import DivisiveNormalization
from pcsim.kinds.error import Error
from pcsim.kinds.fast_synapse import FastSynapse
from pcsim.kinds.kind import BrianEquations, Kind
from pcsim.kinds.latent import Latent
from pcsim.kinds.leaky import Leaky
from pcsim.kinds.precise_error import LogPrecision, PreciseError, PrecisionGradient
from pcsim.kinds.prediction import Prediction
from pcsim.kinds.relay import TemporalRelay

__all__ = [
    "BrianEquations",
    "Depression",
    "DivisiveNormalization",
    "Error",
    "FastSynapse",
    "Kind",
    "Latent",
    "Leaky",
    "LogPrecision",
    "PreciseError",
    "PrecisionGradient",
    "Prediction",
    "TemporalRelay",
]
