r"""Attention as precision: a map of V1 whose errors have a gain that attention sets.

Gabor channels :math:`x` (eight orientations, two phases, 5 by 5 places) are predicted by latents
of the same bank, :math:`x = U\mu + \text{noise}`, :math:`U \propto GG^\top`. Error units carry

.. math:: \xi = \Pi \odot (x - U\mu), \qquad \ln\Pi_i = \ln\Pi_0 - \ln(1 + \phi\, m_i)
    + \ln g \; a_i + \gamma_i,

.. math:: \tau\,\dot\mu = U^\top\xi - P\mu, \qquad
    \tau_\gamma\,\dot\gamma = \tfrac12 \textstyle\sum_i (1 - \Pi_i\varepsilon_i^2)
    - \pi_\gamma\gamma.

The precision depends on the state of the world, as in Feldman & Friston (2010, Front. Hum.
Neurosci. 4:215): noise grows with the mean magnitude :math:`m` of the channels at a place (variance
in proportion to the mean, Tolhurst, Movshon & Dean 1983), attention multiplies the precision by
:math:`g` in a field :math:`a` of place and orientation, and, if `attention_prior` is finite,
latents :math:`\gamma` infer it for every place. Attention is there before the trial, unless
`cue_onset` says when a cue starts it; then the gain follows through a low-pass, as the release of
acetylcholine does at the scale of seconds (Parikh et al. 2007, Neuron 56:141, abstract).

It predicts attentional gain (H34). Own choices: the layout (0.3 degrees between places), signal and
noise of equal power at natural contrast (from which follow :math:`\Pi_0 = 2`, :math:`\phi = 1`, and
:math:`P` such that predicted channels have unit variance), errors without a time constant.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, ClassVar

import numpy as np
import xarray as xr

from pcsim.circuit import Circuit, Population, Projection
from pcsim.filters import gabor
from pcsim.kinds import (
    Latent,
    Leaky,
    LogPrecision,
    PreciseError,
    PrecisionGradient,
    Prediction,
)
from pcsim.nonlinearity import Nonlinearity
from pcsim.priors import GaussianPrior

__all__ = ["MODEL", "FeldmanFriston2010"]

FIELD, PX_PER_DEG = (32, 42), 16.0
N_ORIENTATIONS, N_PHASES, N_SIDE = 8, 2, 5
SPACING = 0.3
"""Degrees between places."""
FREQUENCY = 2.85
"""Cycles per degree, the median of V1 (De Valois et al. 1982)."""
SIGMA = 0.146
"""Degrees: a bandwidth of 1.4 octaves at that frequency."""


def less_log1p(u: Any, xp: Any) -> Any:
    """Return -log(1 + u), the log precision of noise whose variance grows as 1 + u."""
    return -xp.log1p(u)


def less_log1p_slope(u: Any, xp: Any) -> Any:
    """Return its derivative."""
    return -1.0 / (1.0 + u)


NOISE = Nonlinearity(
    "less_log1p", less_log1p, less_log1p_slope, brian="-log(1 + u)", brian_df="-1/(1 + u)"
)


def layout() -> dict[str, Any]:
    """Return place (index), x, y (degrees) and orientation of the 400 channels."""
    side = SPACING * (np.arange(N_SIDE) - (N_SIDE - 1) / 2)
    turns = np.arange(N_ORIENTATIONS) * np.pi / N_ORIENTATIONS
    phases = np.arange(N_PHASES) * np.pi / 2
    grid = np.meshgrid(-side, side, turns, phases, indexing="ij")
    y, x, orientation, phase = (one.ravel() for one in grid)
    place = np.repeat(np.arange(N_SIDE**2), N_ORIENTATIONS * N_PHASES)
    return {"place": place, "x": x, "y": y, "orientation": orientation, "phase": phase}


@cache
def bank() -> tuple[Any, Any]:
    """Return the Gabors (400, 1344), unit norm, and what they predict of each other (400, 400)."""
    at = layout()
    filters = [
        gabor(
            FIELD, x=x * PX_PER_DEG, y=y * PX_PER_DEG, sigma=SIGMA * PX_PER_DEG,
            frequency=FREQUENCY / PX_PER_DEG, orientation=orientation, phase=phase,
        ).ravel()
        for x, y, orientation, phase in zip(
            at["x"], at["y"], at["orientation"], at["phase"], strict=True
        )
    ]  # fmt: skip
    stacked = np.stack([one - one.mean() for one in filters])
    stacked = stacked / np.linalg.norm(stacked, axis=1, keepdims=True)
    gram = stacked @ stacked.T
    return stacked, gram / np.linalg.norm(gram, 2)


@dataclass(frozen=True, kw_only=True)
class FeldmanFriston2010(Circuit):
    """Latents of orientation and place descend errors whose precision attention sets."""

    gain: float = 1.0
    """Of the channels; fitting gives them a root mean square of 1 on natural images."""
    precision: float = 2.0
    """Of a channel without input."""
    fano: float = 1.0
    """Growth of the noise's variance with the mean magnitude of the channels at a place."""
    attention_gain: float = 1.0
    """g, the factor on the precision in the middle of the attention field."""
    attention_x: float = 0.0
    attention_y: float = 0.0
    """Middle of the attention field, degrees right of and above the centre."""
    attention_sigma: float = float("inf")
    """Standard deviation of the attention field, degrees."""
    attention_orientation: float | None = None
    """Attended orientation, radians; None attends to all."""
    attention_concentration: float = 2.0
    """Of the field over orientation, exp(k (cos 2 d - 1)): half of it at 25 degrees."""
    attention_prior: float = float("inf")
    """Inverse variance of the log precisions that are inferred; infinite: none are."""
    prior_mean: float = 0.0
    """Of the latents, in the attention field: an additive bias instead of a gain."""
    cue_onset: float | None = None
    """When a cue starts to build up attention, seconds; None: it was there before."""
    tau_modulator: float = 1.0
    """Of the low-pass from cue to gain, seconds (Parikh et al. 2007: "scale of seconds")."""
    tau: float = 0.02
    """Of the fastest mode of the latents without attention, seconds."""
    tau_precision: float = 0.05
    """Of inferred log precisions at errors of the expected size, seconds."""
    dt: float = 0.005

    curriculum: ClassVar[str] = "patches"
    n_training: ClassVar[Mapping[str, int]] = {"quick": 1000, "full": 1000}

    @property
    def field_shape(self) -> tuple[int, int]:
        """Rows and columns of the visual field."""
        return FIELD

    @property
    def px_per_deg(self) -> float:
        """Pixels per degree of visual angle."""
        return PX_PER_DEG

    @property
    def prior_precision(self) -> float:
        """P, such that the predictions of latents drawn from the prior have unit variance."""
        return float((bank()[1] ** 2).sum(axis=1).mean())

    @property
    def attention(self) -> Any:
        """(400,) field of attention, 1 in its middle."""
        at = layout()
        distance = np.hypot(at["x"] - self.attention_x, at["y"] - self.attention_y)
        shape = np.exp(-0.5 * (distance / self.attention_sigma) ** 2)
        if self.attention_orientation is not None:
            turn = 2.0 * (at["orientation"] - self.attention_orientation)
            shape = shape * np.exp(self.attention_concentration * (np.cos(turn) - 1.0))
        return shape

    @property
    def populations(self) -> tuple[Population, ...]:
        """Errors and latents of each channel, and what sets the precision of each place."""
        at = layout()
        boost = float(np.log(self.attention_gain)) * self.attention
        base = np.log(self.precision) + (boost if self.cue_onset is None else 0.0 * boost)
        v1: dict[str, Any] = {"size": len(base), "area": "V1", "x": at["x"], "y": at["y"]}
        prior = GaussianPrior(self.prior_mean * self.attention, self.prior_precision)
        tau = self.tau * (self.precision + self.prior_precision)
        each = slice(None, None, N_ORIENTATIONS * N_PHASES)
        places: dict[str, Any] = {
            "size": N_SIDE**2, "level": 1, "population": "precision", "area": "V1",
            "x": at["x"][each], "y": at["y"][each],
        }  # fmt: skip
        listed = [
            Population("error", PreciseError(None, base), level=0, population="weighted_error",
                       layer="L2/3", **v1),
            Population("latent", Latent(tau, prior=prior), level=1, population="latent",
                       layer="L5/6", **v1),
            Population("noise", Prediction(outer=NOISE), **places),
        ]  # fmt: skip
        if self.cue_onset is not None:
            listed.append(Population("acetylcholine", Leaky(self.tau_modulator), 1, 1, "precision"))
        if np.isfinite(self.attention_prior):
            count = N_ORIENTATIONS * N_PHASES
            time = self.tau_precision * (0.5 * count + self.attention_prior)
            kind = LogPrecision(time, self.attention_prior, count=count)
            slope = PrecisionGradient(base)
            listed += [
                Population("slope", slope, level=0, population="interneuron", **v1),
                Population("attention", kind, **places),
            ]
        return tuple(listed)

    @property
    def projections(self) -> tuple[Projection, ...]:
        """Channels to errors, predictions down, errors up, and all that sets the precision."""
        predicted, spread = bank()[1], place_weights()
        n, n_places = spread.shape
        width = n + n_places + 1
        listed = [
            Projection("error", "latent", predicted.T, port="ascending"),
            Projection("stimulus", "noise", self.fano * np.eye(n_places, width, k=n)),
        ]
        inferred = bool(np.isfinite(self.attention_prior))
        for target in ("error", "slope") if inferred else ("error",):
            listed += [
                Projection("stimulus", target, np.eye(n, width), port="observed"),
                Projection("latent", target, predicted, port="predicted"),
                Projection("noise", target, spread, port="log_precision"),
            ]
            if inferred:
                listed.append(Projection("attention", target, spread, port="log_precision"))
            if self.cue_onset is not None:
                boost = float(np.log(self.attention_gain)) * self.attention[:, None]
                listed.append(Projection("acetylcholine", target, boost, port="log_precision"))
        if inferred:
            listed.append(Projection("slope", "attention", spread.T))
        if self.cue_onset is not None:
            cue = np.eye(1, width, k=width - 1)
            listed.append(Projection("stimulus", "acetylcholine", cue, port="drive"))
        return tuple(listed)

    def prepare(self, stimulus: xr.DataArray) -> Any:
        """Return the channels, their mean magnitude at each place, and the cue: (..., 426)."""
        images = Circuit.prepare(self, stimulus) - 0.5
        channels = self.gain * images @ bank()[0].T
        pairs = channels.reshape(*channels.shape[:2], N_SIDE**2, N_ORIENTATIONS, N_PHASES)
        magnitude = np.sqrt((pairs**2).sum(axis=-1)).mean(axis=-1)
        start = np.inf if self.cue_onset is None else self.cue_onset
        cue = (stimulus["time"].values >= start - 1e-9).astype(float)
        cue = np.broadcast_to(cue[None, :, None], (*channels.shape[:2], 1))
        return np.concatenate([channels, magnitude, cue], axis=-1)

    def untrained(self, *, seed: int) -> FeldmanFriston2010:
        """Return the circuit at a gain of 1; it has nothing that is drawn."""
        return replace(self, gain=1.0)

    def fit(self, stimulus: xr.DataArray, *, seed: int = 0) -> FeldmanFriston2010:
        """Scale the channels to a root mean square of 1 on `stimulus`."""
        model = self.untrained(seed=seed)
        channels = model.prepare(stimulus)[..., : len(place_weights())]
        return replace(model, gain=float(1.0 / np.sqrt((channels**2).mean())))


@cache
def place_weights() -> Any:
    """Return which channel lies at which place, (400, 25)."""
    return np.eye(N_SIDE**2)[layout()["place"]]


MODEL = FeldmanFriston2010()
