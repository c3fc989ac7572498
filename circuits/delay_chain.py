r"""A chain of fixed delays: a pacemaker, and channels that follow it after latencies of their own.

.. math:: \dot\theta = 1 / T(u), \qquad a_c(t) = b(\theta(t - d_c)) + \sigma\,\eta_c(t)

with the period T that a tonic input u sets, bursts b and delays :math:`d_c`. Rhythmic, with the
order of the pyloric network, but its phases :math:`d_c / T` fall as the period grows: the control
of H40, which does not lack a rhythm but a constant phase (after the alternatives in Marder &
Bucher 2001, Curr. Biol. 11:R986).

Own choices: delays that give the phases of the demonstrations at the shortest period; their noise.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import xarray as xr

from pcsim.messages import refusal
from pcsim.responses import check_stimulus, make_responses
from pcsim.stimuli import BURST_PHASES, PERIODS, bursts, tonic_period

__all__ = ["MODEL", "DelayChain"]


@dataclass(frozen=True, kw_only=True)
class DelayChain:
    """Six channels behind one pacemaker."""

    delays: tuple[float, ...] = tuple(phase * PERIODS[1] for phase in BURST_PHASES)
    """Seconds after the pacemaker, one a channel."""
    noise: float = 0.05
    """Standard deviation of each channel from step to step."""
    dt: float = 0.04
    """Seconds."""

    senses: ClassVar[str] = "tonic"
    field_shape: ClassVar[tuple[int, int] | None] = None
    px_per_deg: ClassVar[float | None] = None

    @property
    def n_features(self) -> int:
        """The tonic input, and a push of each channel."""
        return 1 + len(self.delays)

    def run(
        self, stimulus: xr.DataArray, *, seed: int = 0, record: Sequence[str] | None = None
    ) -> xr.Dataset:
        """Return the channels, population "output"; a push adds to them and changes nothing else.

        Raises
        ------
        ValueError
            If the stimulus does not have 7 features.
        """
        stimulus = check_stimulus(stimulus, "delay_chain")
        if stimulus.sizes.get("feature") != self.n_features:
            found = f"dims {dict(stimulus.sizes)}"
            expected = f"{self.n_features} features: tonic input and a push of each channel"
            raise ValueError(refusal("delay_chain", found, expected, "Add pushes of 0."))
        frame, n = float(stimulus["frame_duration"]), stimulus.sizes["time"]
        n_steps = max(round(n * frame / self.dt), 1)
        at = np.minimum((np.arange(n_steps) + 0.5) * self.dt / frame, n - 1).astype(int)
        values = stimulus.transpose("trial", "time", "feature").values[:, at]
        outputs = np.stack([
            self._trial(one, np.random.default_rng([seed, int(number), 40]))
            for one, number in zip(values, stimulus["trial"].values, strict=True)
        ])  # fmt: skip
        units = {"population": "output", "level": 0, "area": "spinal cord"}
        time = self.dt * np.arange(1, n_steps + 1)
        channel = {"channel": np.arange(len(self.delays), dtype=float)}
        return make_responses(outputs, time=time, units={**units, **channel}, trial=stimulus)

    def _trial(self, values: Any, rng: np.random.Generator) -> Any:
        """Return (step, channel) under a tonic input and pushes (step, 7)."""
        speed = 1.0 / tonic_period(values[:, 0])
        moments = self.dt * np.arange(len(values))
        cycles = rng.uniform() + np.r_[0.0, np.cumsum(self.dt * speed)[:-1]]
        # Before the first step the pacemaker ran at its first speed.
        late = moments[:, None] - np.array(self.delays)
        then = np.interp(late, moments, cycles)
        then = np.where(late < 0.0, cycles[0] + late * speed[0], then)
        noise = self.noise * rng.standard_normal(then.shape)
        return bursts(then) + noise + values[:, 1:]


MODEL = DelayChain()
