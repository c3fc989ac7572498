r"""Auditory cortex that learns to predict the sound of its own movements.

A copy of the motor command reaches auditory cortex along a chain of delays; synapses learn, by the
local delta rule and within the run, which tone comes how long after a movement, and error units
compare the tones that arrive with that:

.. math:: m_k(t) = r(t - d_k), \qquad \tau\dot r = -r + \text{movement}

.. math:: e^\pm = \lfloor \pm(x - \gamma\,\lfloor W m\rfloor_+) \rfloor_+, \qquad
    \dot W = \eta\gamma\,(e^+ - e^-)\, m^\top - W/\tau_W

After coupled experience the response to the expected tone at the expected time is suppressed,
tones of other pitch or at another time are not, and a movement without its sound excites the
negative errors. Without coupling self-made and heard tones evoke nearly the same, with
``plasticity=0`` the same; ``feedback_gain=0`` cuts the efference copy. A movement and a tone that
are held (both of size 1, all K delays on) rest at an error of
:math:`1/(1 + \gamma^2\eta\tau_W K)`.

Suppression that experience makes specific to the tone of a movement, through motor cortex:
Schneider, Sundararajan & Mooney (2018), Nature 561:391. Specific to its time as well, with neurons
of L2/3 and L5 that answer to violations: Audette et al. (2022), Curr. Biol. 32:4925. The delays
(25 ms to 0.3 s), the 10 ms of the motor units and the learning rate, which removes about a fifth of
the error with every movement, are ours. No hypothesis of the battery asks for this circuit.

>>> import numpy as np
>>> from pcsim.stimuli import self_sound_sequence, tone_events
>>> sequence = self_sound_sequence(40, n_probes=3, seed=1)
>>> rates = MODEL.run(sequence, record=["error_pos"]).rate.values[0]
>>> onset, _, role = tone_events(sequence)
>>> first = np.rint(onset / MODEL.dt).astype(int)
>>> response = np.array([rates[one : one + 6].mean() for one in first])
>>> size = {name: response[role == name].mean() for name in np.unique(role)}
>>> bool(size["self"] < 0.5 * size["passive"]), bool(size["deviant"] > 0.8 * size["passive"])
(True, True)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from pcsim.circuit import Circuit, Population, Projection
from pcsim.kinds import FastSynapse, Leaky, Prediction

__all__ = ["MODEL", "SelfGeneratedSound"]


@dataclass(frozen=True, kw_only=True)
class SelfGeneratedSound(Circuit):
    """Motor cortex, its delayed copies, the synapses that predict, and signed error units."""

    n_tones: int = 5
    """Tones; features of the stimulus are the movement and then these."""
    tau: float = 0.01
    """Time constant of the motor units, seconds."""
    feedback_gain: float = 1.0
    """Gain of the efference copy; 0 cuts it."""
    plasticity: float = 1.0
    """Factor on the learning rate; 0 leaves the synapses at zero."""
    learning_rate: float = 4.0
    """Per second."""
    tau_forgetting: float = 1000.0
    """Decay of the learned weights, seconds: coupling lasts for days."""
    memory_span: float = 0.3
    """Longest delay of the efference copy, seconds."""
    memory_step: float = 0.025
    """From one delay to the next, seconds."""
    dt: float = 0.0125

    senses: ClassVar[str] = "movement and tones"

    @property
    def n_features(self) -> int:
        """The movement and the tones."""
        return 1 + self.n_tones

    @property
    def n_delays(self) -> int:
        """How many delays the efference copy has, the shortest being one step."""
        return round(self.memory_span / self.memory_step)

    @property
    def populations(self) -> tuple[Population, ...]:
        """Motor cortex and its copies; in auditory cortex synapses, prediction and errors."""
        n, n_delays = self.n_tones, self.n_delays
        rate = self.plasticity * self.learning_rate
        synapse = FastSynapse(tau=self.tau_forgetting, gain=rate * self.tau_forgetting)
        half, channel = Prediction(outer="relu"), np.arange(n)
        return (
            Population("motor", Leaky(tau=self.tau), 1, 2, "latent", area="M2"),
            Population("copy", Prediction(), n_delays, 1, "interneuron", area="AC"),
            Population("synapse", synapse, n * n_delays, 1, "interneuron", area="AC"),
            Population("prediction", half, n, 1, "prediction", area="AC", channel=channel),
            Population(
                "error_pos", half, n, 1, "error_pos", area="AC", layer="L2/3", channel=channel
            ),
            Population(
                "error_neg", half, n, 1, "error_neg", area="AC", layer="L2/3", channel=channel
            ),
        )

    @property
    def projections(self) -> tuple[Projection, ...]:
        """Synapse i K + k joins delay k of K to tone i."""
        n, n_delays, step = self.n_tones, self.n_delays, self.memory_step
        movement, tones = np.eye(1, 1 + n), np.eye(n, 1 + n, k=1)
        before = np.tile(np.eye(n_delays), (n, 1))
        after = np.repeat(np.eye(n), n_delays, axis=0)
        gain, lag = self.feedback_gain, self.dt
        return (
            Projection("stimulus", "motor", movement, port="drive"),
            Projection("motor", "copy", np.eye(n_delays, 1), delay=step),
            Projection("copy", "copy", np.eye(n_delays, k=-1), delay=step),
            Projection("copy", "synapse", before, port="pre", sign=gain),
            Projection("error_pos", "synapse", after, port="post", delay=lag),
            Projection("error_neg", "synapse", after, port="post", sign=-1.0, delay=lag),
            Projection("synapse", "prediction", after.T),
            Projection("stimulus", "error_pos", tones),
            Projection("prediction", "error_pos", sign=-1.0),
            Projection("stimulus", "error_neg", tones, sign=-1.0),
            Projection("prediction", "error_neg"),
        )


MODEL = SelfGeneratedSound()
