r"""Three auditory stations that learn, within a run, which tone comes when, and predict it.

Inferior colliculus (level 1), medial geniculate body (2) and auditory cortex (3). At each station

.. math:: y_l = (1 - q_l)\,\lfloor r_{l-1}\rfloor_+, \qquad
    \dot q_l = u\,\lfloor r_{l-1}\rfloor_+ (1 - q_l) - q_l/\tau_q

.. math:: e_l^\pm = \lfloor \pm(y_l - p_l) \rfloor_+, \qquad
    \tau\dot r_l = -r_l + p_l + K(e_l^+ - e_l^-), \qquad
    p_l = \lfloor W_l m_l + \gamma V_l m_L \rfloor_+

.. math:: m_{l,k}(t) = r_l(t - d_k), \qquad
    \dot W_l = \eta_l\,(e_l^+ - e_l^-)\, m_l^\top - W_l/\tau_W, \qquad
    \dot V_l = \eta_L\gamma\,(e_l^+ - e_l^-)\, m_L^\top - V_l/\tau_W

with :math:`r_0` the tones seen through tonotopic tuning and L the highest station. Synapses between
stations depress (y: adaptation, which needs no prediction). Latents r are the prediction corrected
by the error, as in a Kalman filter of fixed gain K (Rao 1999); they ascend. Memory m holds them
along a chain of conduction delays (Wacongne, Changeux & Dehaene 2012). The synapses of every trial
start at zero and learn by the local delta rule what follows what. Stations below the cortex
remember 0.3 s: from one tone to the next. The cortex remembers 0.75 s, a chunk of five tones at
150 ms, and its memory also predicts the stations below it (corticofugal, gain :math:`\gamma`).
Nothing knows of deviants, chunks or omissions.

Predicts, or fails to: H21, H23, H24. Lesions: ``plasticity=0`` leaves adaptation without
prediction, ``release=0`` prediction without adaptation, ``feedback_gain=0`` cuts the descending
predictions, ``n_levels=1`` keeps the colliculus alone; ``delay``, the conduction time between
stations and from errors to synapses, makes them as good as synchronous at one time step.

Settings. Recovery 0.8 s and utilization 0.5 of depressing synapses are of Tsodyks & Markram (1997);
a tone drives 20 spikes per second (ours). Spans of memory that grow towards the cortex: intervals
up to 0.1 s are coded best in the colliculus, patterns of about 1 s in A1, weakly in MGB and not in
IC (Asokan et al. 2021, Curr. Biol. 31:1762); the numbers are ours. So are tuning of 0.3 octaves,
K = 0.8, latents of 10 ms, 12.5 ms between stations, and learning rates inverse to the squared
responses in memory, which fall from station to station, as fast as the delta rule stays free of
ringing at the loudest tone.

References: Rao & Ballard (1999), Nat. Neurosci. 2:79; Rao (1999), Vision Res. 39:1963; Wacongne et
al. (2012), J. Neurosci. 32:3665; Tsodyks & Markram (1997), PNAS 94:719.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import scipy.sparse
import xarray as xr

from pcsim.circuit import Circuit, Population, Projection
from pcsim.kinds import Depression, FastSynapse, Leaky, Prediction

__all__ = ["MODEL", "AuditoryHierarchy"]

AREAS = ("IC", "MGB", "AC")


@dataclass(frozen=True, kw_only=True)
class AuditoryHierarchy(Circuit):
    """Stations of signed error units, latent units, their memory and the synapses that predict."""

    n_tones: int = 10
    """Features of the stimulus, and tonotopic channels of each station."""
    octaves: float = 0.5
    """From one tone to the next."""
    tuning: float = 0.3
    """Standard deviation of a channel's tuning, octaves; 0 for none."""
    n_levels: int = 3
    """Stations, from the colliculus up: 1 to 3."""
    tau: float = 0.01
    """Time constant of error and latent units, seconds."""
    gain: float = 0.8
    """K, the share of an error by which the latents correct the prediction."""
    feedback_gain: float = 1.0
    """Gain of the prediction that descends; 0 cuts it."""
    delay: float = 0.0125
    """Conduction time between stations, both ways, seconds."""
    tau_recovery: float = 0.8
    """Recovery of depressed synapses, seconds."""
    release: float = 10.0
    """Share of its resources that a synapse releases per second of a tone; 0 for no adaptation."""
    plasticity: float = 1.0
    """Factor on all learning rates; 0 leaves adaptation without prediction."""
    learning_rates: tuple[float, ...] = (8.0, 16.0, 32.0)
    """Per second, of each station."""
    tau_forgetting: float = 100.0
    """Decay of the learned weights, seconds."""
    memory_spans: tuple[float, ...] = (0.3, 0.3, 0.75)
    """Longest delay that each station remembers, seconds."""
    memory_onset: float = 0.1
    """Shortest delay, seconds: no tone predicts its own continuation."""
    memory_step: float = 0.05
    """From one delay to the next, seconds."""
    dt: float = 0.0125

    senses: ClassVar[str] = "tones"

    @property
    def n_features(self) -> int:
        """Number of tones that the circuit hears."""
        return self.n_tones

    @property
    def populations(self) -> tuple[Population, ...]:
        """Station by station: input, signed errors, latents, memory, synapses, prediction."""
        return tuple(
            Population(
                name=f"{name}_{level}", kind=kind, size=size, level=level, population=role,
                area=AREAS[level - 1], channel=np.arange(size) % self.n_tones,
            )
            for level in range(1, self.n_levels + 1)
            for name, role, kind, size in self._station(level)
        )  # fmt: skip

    def _station(self, level: int) -> tuple[tuple[str, str, Any, int], ...]:
        """Return name, role, kind and size of the populations of a station."""
        n = self.n_tones
        half = Prediction(outer="relu")
        rates = self.plasticity * self._per_synapse(
            [self.learning_rates[source - 1] for source in self._sources(level)], level
        )
        synapse = FastSynapse(tau=self.tau_forgetting, gain=self.tau_forgetting * rates)
        return (
            ("input", "input", Depression(tau=self.tau_recovery, release=self.release), n),
            ("error_pos", "error_pos", half, n),
            ("error_neg", "error_neg", half, n),
            ("latent", "latent", Leaky(tau=self.tau, nonlinearity="relu"), n),
            ("memory", "interneuron", Prediction(), n * self.n_delays(level)),
            ("synapse", "interneuron", synapse, rates.size),
            ("prediction", "prediction", Prediction(outer="relu"), n),
        )

    def _sources(self, level: int) -> tuple[int, ...]:
        """Return the stations whose memory a station reads: its own, and the highest."""
        return (level,) if level == self.n_levels else (level, self.n_levels)

    def _per_synapse(self, values: Sequence[float], level: int) -> Any:
        """Return one value for each synapse of a station, given one for each of its sources."""
        sizes = [self.n_tones * self.n_delays(source) for source in self._sources(level)]
        return np.tile(np.repeat(values, sizes), self.n_tones)

    @property
    def projections(self) -> tuple[Projection, ...]:
        """Within stations, up from station to station, and down from the highest to all others."""
        out = [Projection("stimulus", "input_1", self.tuning_curves)]
        for level in range(1, self.n_levels + 1):
            out += [*self._within(level), *self._synapses(level)]
            if level < self.n_levels:
                above = f"input_{level + 1}"
                out.append(Projection(f"latent_{level}", above, delay=self.delay))
        return tuple(out)

    def _within(self, level: int) -> list[Projection]:
        seen, pos, neg, latent, memory, prediction = (
            f"{name}_{level}"
            for name in ("input", "error_pos", "error_neg", "latent", "memory", "prediction")
        )
        n, n_memory = self.n_tones, self.n_tones * self.n_delays(level)
        first = np.eye(n_memory, n)
        shift = np.eye(n_memory, k=-n)
        return [
            Projection(seen, pos),
            Projection(prediction, pos, sign=-1.0),
            Projection(seen, neg, sign=-1.0),
            Projection(prediction, neg),
            Projection(prediction, latent, port="drive"),
            Projection(pos, latent, sign=self.gain, port="drive"),
            Projection(neg, latent, sign=self.gain, port="inhibition"),
            Projection(latent, memory, first, delay=self.memory_onset),
            Projection(memory, memory, shift, delay=self.memory_step),
        ]

    def _synapses(self, level: int) -> list[Projection]:
        """Return what brings memory and error to the synapses of a station, and reads them.

        Memory unit k n + j holds channel j at delay k. Synapse i N + s joins to channel i unit s of
        the N that a station reads.
        """
        n, sources, synapse = self.n_tones, self._sources(level), f"synapse_{level}"
        sizes = [n * self.n_delays(source) for source in sources]
        whole = scipy.sparse.csr_array(np.tile(np.eye(sum(sizes)), (n, 1)))
        after = np.repeat(np.eye(n), sum(sizes), axis=0)
        out = [
            Projection(f"error_pos_{level}", synapse, after, port="post", delay=self.delay),
            Projection(
                f"error_neg_{level}", synapse, after, port="post", sign=-1.0, delay=self.delay
            ),
            Projection(synapse, f"prediction_{level}", after.T),
        ]
        for source, size, start in zip(sources, sizes, (0, sizes[0]), strict=False):
            own = source == level
            columns = whole[:, start : start + size]
            gain, delay = (1.0, 0.0) if own else (self.feedback_gain, self.delay)
            out.append(
                Projection(f"memory_{source}", synapse, columns, "pre", sign=gain, delay=delay)
            )
        return out

    def n_delays(self, level: int) -> int:
        """Return how many delays a station remembers."""
        span = self.memory_spans[level - 1] - self.memory_onset
        return round(span / self.memory_step) + 1

    @property
    def tuning_curves(self) -> Any:
        """Response of each channel to each tone, (n_tones, n_tones), 1 at the best tone."""
        if self.tuning == 0:
            return np.eye(self.n_tones)
        apart = self.octaves * np.subtract.outer(np.arange(self.n_tones), np.arange(self.n_tones))
        return np.exp(-0.5 * (apart / self.tuning) ** 2)

    def weights(self, responses: xr.Dataset, level: int) -> Any:
        """Return the recorded synapses of a station, (trial, time, channel, delay, channel)."""
        rate = responses["rate"].transpose("trial", "time", "unit")
        values = rate.isel(unit=(responses["name"] == f"synapse_{level}").values).to_numpy()
        return values.reshape(*values.shape[:2], self.n_tones, self.n_delays(level), self.n_tones)


MODEL = AuditoryHierarchy()
