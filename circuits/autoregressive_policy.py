r"""An autoregressive policy: each command of the muscles follows from the last, by feed-forward.

.. math:: a_t = \mu(h_t) + \sigma(h_t) \odot z_t, \qquad
    h_t = (a_{t-1}, \dots, a_{t-L}, u), \quad z_t \sim N(0, I)

with one hidden layer for :math:`\mu` and :math:`\ln\sigma`, a tonic input u and no clock. It is an
affine autoregressive flow over the sequence, learned by maximum likelihood from demonstrations,

.. math:: -\ln p(a) = \sum_t \tfrac12 \lVert z_t \rVert^2 + \sum_c \ln\sigma_c(h_t) + \text{const},
    \qquad z_t = (a_t - \mu(h_t)) / \sigma(h_t),

so the base variable z is what a higher area has to send for the movement to come out as it does: an
error of the prediction from the recent past, in units of its expected size.

It predicts H40, a rhythm under tonic input whose phases do not depend on the period, as of the
pyloric network (Bucher, Prinz & Marder 2005, J. Neurosci. 25:1611), if that is what it was shown;
`law` "latency" shows it fixed delays instead. ``n_taps=0`` leaves no history: an independent draw
at every step. ``follows=True`` replaces z by what brings about a desired movement (H41).

Own choices: six channels, steps of 40 ms, a history of 0.2 s, 64 hidden units, Adam.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import numpy as np
import xarray as xr

from pcsim.messages import check_choice, refusal
from pcsim.responses import check_stimulus, make_responses
from pcsim.stimuli import BURST_PHASES, rhythms

__all__ = ["MODEL", "AutoregressivePolicy"]

N_CHANNELS, N_HIDDEN = len(BURST_PHASES), 64
STEPS, BATCH, RATE = 4000, 256, 3e-3
"""Of Adam; the rate falls to 0 along a cosine."""
LOUDEST, QUIETEST = 1.0, -5.0
"""Bounds of the logarithm of sigma."""


def draw(seed: int, n_taps: int) -> dict[str, Any]:
    """Draw the weights that learning starts from."""
    rng = np.random.default_rng([seed, 40])
    n = 1 + N_CHANNELS * n_taps
    return {
        "hidden_weights": rng.standard_normal((N_HIDDEN, n)) / np.sqrt(n),
        "hidden_bias": np.zeros(N_HIDDEN),
        "output_weights": 0.1 * rng.standard_normal((2 * N_CHANNELS, N_HIDDEN)) / 8.0,
        "output_bias": np.r_[np.full(N_CHANNELS, 0.2), np.full(N_CHANNELS, -1.5)],
    }


@dataclass(frozen=True, kw_only=True)
class AutoregressivePolicy:
    """A policy over six channels, driven by a tonic input."""

    n_taps: int = 5
    """Steps of its own past that it sees."""
    law: str = "phase"
    """What the demonstrations keep when their period changes: "phase" or "latency"."""
    taught: float = 1.0
    """Share of the range of tonic inputs, around the middle, that the demonstrations cover."""
    follows: bool = False
    """Whether features 2 to 7 are the desired movement, instead of pushes."""
    dt: float = 0.04
    """Seconds between commands."""
    hidden_weights: Any = field(default_factory=lambda: draw(0, 5)["hidden_weights"])
    """(64, 31) from the history, newest first, and the tonic input."""
    hidden_bias: Any = field(default_factory=lambda: draw(0, 5)["hidden_bias"])
    """(64,)"""
    output_weights: Any = field(default_factory=lambda: draw(0, 5)["output_weights"])
    """(12, 64) to the means and to the logarithms of sigma."""
    output_bias: Any = field(default_factory=lambda: draw(0, 5)["output_bias"])
    """(12,)"""

    senses: ClassVar[str] = "tonic"
    curriculum: ClassVar[str] = "own"
    n_training: ClassVar[Mapping[str, int]] = {"quick": 64, "full": 256}
    """Demonstrations of 30 s."""
    field_shape: ClassVar[tuple[int, int] | None] = None
    px_per_deg: ClassVar[float | None] = None

    def __post_init__(self) -> None:
        check_choice("autoregressive_policy", "law", self.law, ("phase", "latency"))

    @property
    def n_features(self) -> int:
        """The tonic input, and a push (or a desired output) of each channel."""
        return 1 + N_CHANNELS

    def predict(self, history: Any, tonic: Any) -> tuple[Any, Any]:
        """Return mean and ln sigma (..., 6) from histories (..., 6 n_taps) and inputs (..., 1)."""
        seen = np.concatenate([history, tonic], axis=-1)
        hidden = np.tanh(seen @ self.hidden_weights.T + self.hidden_bias)
        out = hidden @ self.output_weights.T + self.output_bias
        return out[..., :N_CHANNELS], np.clip(out[..., N_CHANNELS:], QUIETEST, LOUDEST)

    def run(
        self, stimulus: xr.DataArray, *, seed: int = 0, record: Sequence[str] | None = None
    ) -> xr.Dataset:
        """Return the commands a (population "output", level 0) and z ("error", level 1).

        A trial keeps its z, drawn from `seed` and its number, whatever it is run with. A push is
        added to the command of its step and enters the history; the tonic input may change.

        Raises
        ------
        ValueError
            If the stimulus does not have 7 features.
        """
        values = self._inputs(stimulus)
        n_trials, n_steps = values.shape[:2]
        base = np.stack([
            np.random.default_rng([seed, int(trial), 40]).standard_normal((n_steps, N_CHANNELS))
            for trial in stimulus["trial"].values
        ])  # fmt: skip
        outputs, history = np.empty_like(base), np.zeros((n_trials, N_CHANNELS * self.n_taps))
        for step in range(n_steps):
            tonic, rest = values[:, step, :1], values[:, step, 1:]
            # Row by row, so that a trial's rounding does not depend on its company.
            mean, log_sigma = self.predict(history, tonic)
            if self.follows:
                outputs[:, step] = rest
                base[:, step] = (rest - mean) * np.exp(-log_sigma)
            else:
                outputs[:, step] = mean + np.exp(log_sigma) * base[:, step] + rest
            whole = np.concatenate([outputs[:, step], history], axis=1)
            history = whole[:, : history.shape[1]]
        return self._label(outputs, base, stimulus, record)

    def _inputs(self, stimulus: xr.DataArray) -> Any:
        """Return the features (trial, step, 7) at the policy's own steps."""
        stimulus = check_stimulus(stimulus, "autoregressive_policy")
        if stimulus.sizes.get("feature") != self.n_features:
            found = f"dims {dict(stimulus.sizes)}"
            expected = f"{self.n_features} features: tonic input and a push of each channel"
            raise ValueError(refusal("autoregressive_policy", found, expected, "Add pushes of 0."))
        frame, n = float(stimulus["frame_duration"]), stimulus.sizes["time"]
        n_steps = max(round(n * frame / self.dt), 1)
        at = np.minimum((np.arange(n_steps) + 0.5) * self.dt / frame, n - 1).astype(int)
        return stimulus.transpose("trial", "time", "feature").values[:, at].astype(np.float64)

    def _label(
        self, outputs: Any, base: Any, stimulus: xr.DataArray, record: Sequence[str] | None
    ) -> xr.Dataset:
        parts = {"output": (outputs, 0, "spinal cord"), "error": (base, 1, "motor cortex")}
        kept = [name for name in parts if record is None or name in record]
        if not kept:
            found = f"record {list(record or ())}"
            raise ValueError(refusal("autoregressive_policy", found, "output or error"))
        return make_responses(
            np.concatenate([parts[name][0] for name in kept], axis=-1),
            time=self.dt * np.arange(1, outputs.shape[1] + 1),
            units={
                "population": np.repeat(kept, N_CHANNELS),
                "level": np.repeat([parts[name][1] for name in kept], N_CHANNELS),
                "area": np.repeat([parts[name][2] for name in kept], N_CHANNELS),
                "channel": np.tile(np.arange(N_CHANNELS, dtype=float), len(kept)),
            },
            trial=stimulus,
        )

    def training(self, kind: str, *, seed: int, scale: str) -> xr.DataArray:
        """Return demonstrations at many periods; as "white_noise" the same in random order."""
        rng = np.random.default_rng([seed, 4])
        tonic = 0.5 + self.taught * (rng.uniform(size=self.n_training[scale]) - 0.5)
        shown = rhythms(tonic, duration=30.0, frame_duration=self.dt, law=self.law, seed=seed)
        if kind == "natural":
            return shown
        return shown.copy(data=rng.permuted(shown.values, axis=1))

    def untrained(self, *, seed: int) -> AutoregressivePolicy:
        """Return another draw of the weights."""
        return replace(self, **draw(seed, self.n_taps))

    def fit(self, stimulus: xr.DataArray, *, seed: int = 0) -> AutoregressivePolicy:
        """Learn from demonstrations (tonic input, six channels) by maximum likelihood."""
        model = self.untrained(seed=seed)
        values = model._inputs(stimulus)
        start = self.n_taps
        n = values.shape[1] - start
        lags = [values[:, start - lag : start - lag + n, 1:] for lag in range(1, start + 1)]
        seen = np.concatenate([*lags, values[:, start:, :1]], axis=-1)
        seen, target = seen.reshape(-1, seen.shape[-1]), values[:, start:, 1:].reshape(-1, 6)
        rng = np.random.default_rng([seed, 41])
        names = ("hidden_weights", "hidden_bias", "output_weights", "output_bias")
        weights = [getattr(model, name).copy() for name in names]
        moments = [[np.zeros_like(w), np.zeros_like(w)] for w in weights]
        for step in range(STEPS):
            chosen = rng.integers(0, len(seen), BATCH)
            slopes = gradient(weights, seen[chosen], target[chosen])
            rate = 0.5 * RATE * (1.0 + np.cos(np.pi * step / STEPS))
            for w, (first, second), slope in zip(weights, moments, slopes, strict=True):
                first += 0.1 * (slope - first)
                second += 0.001 * (slope**2 - second)
                scale = np.sqrt(second / (1.0 - 0.999 ** (step + 1))) + 1e-8
                w -= rate * first / (1.0 - 0.9 ** (step + 1)) / scale
        return replace(model, **dict(zip(names, weights, strict=True)))


def gradient(weights: Sequence[Any], seen: Any, target: Any) -> list[Any]:
    """Return the slope of the mean of -ln p for each array of weights."""
    into, bias, out, offset = weights
    hidden = np.tanh(seen @ into.T + bias)
    raw = hidden @ out.T + offset
    log_sigma = np.clip(raw[:, N_CHANNELS:], QUIETEST, LOUDEST)
    z = (target - raw[:, :N_CHANNELS]) * np.exp(-log_sigma)
    inside = log_sigma == raw[:, N_CHANNELS:]
    slope = np.concatenate([-z * np.exp(-log_sigma), (1.0 - z**2) * inside], axis=1) / len(seen)
    back = (slope @ out) * (1.0 - hidden**2)
    return [back.T @ seen, back.sum(axis=0), slope.T @ hidden, slope.sum(axis=0)]


MODEL = AutoregressivePolicy()
