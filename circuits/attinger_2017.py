r"""A visuomotor circuit that learns which optic flow its own running brings about.

Latent units of L5/6 integrate running and flow. They predict the flow, and error units of L2/3, one
pair a receptive field, carry what is more and what is less than predicted:

.. math:: e^+ = \lfloor Af - Wr \rfloor_+, \qquad e^- = \lfloor Wr - Af \rfloor_+,

.. math:: \tau\,\dot r = \Pi_f W^\top (e^+ - e^-) - \Pi_m (r - M m),

with :math:`f` the flow and :math:`m` running and a tonic input. At rest :math:`r` minimises
:math:`F = \tfrac12 \Pi_f \lVert Af - Wr \rVert^2 + \tfrac12 \Pi_m \lVert r - Mm \rVert^2`, and
:math:`W` learns by the local rule :math:`\Delta W \propto \langle (Af - Wr)\, r^\top \rangle`, the
net drive of an error pair times the rate before the synapse.

It predicts mismatch responses of L2/3 while the flow is halted during running, from which the
opposing influence of running and flow can be told (H26), and only after coupled experience: mice
raised with flow that did not follow their running lack them (Attinger, Wang & Keller 2017, Cell
169:1291; Jordan & Keller 2020, Neuron 108:1194; Keller & Mrsic-Flogel 2018, Neuron 100:424).

Own choices: 48 pairs over 8 places, receptive fields one place wide, log-normal strengths (0.5 in
the logarithm), 24 latents, motor prediction and flow as a whole equally reliable, speeds in units
of 0.1 m/s, noise half of a typical input.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import numpy as np
import xarray as xr

from pcsim.circuit import Circuit, Population, Projection, simulate
from pcsim.kinds import Latent, Leaky
from pcsim.messages import refusal
from pcsim.priors import GaussianPrior
from pcsim.responses import check_stimulus
from pcsim.stimuli import add_noise, optic_flow

__all__ = ["MODEL", "Attinger2017"]

N_LOCATIONS, N_PAIRS, N_LATENT = 8, 48, 24
SPREAD = 0.5
"""Standard deviation of the logarithm of synaptic strengths."""
DEGREES = 10.0
"""Of visual angle between places."""
BATCH = 50
"""Frames of training between updates of the weights."""


def draw(seed: int) -> dict[str, Any]:
    """Draw the weights of flow and running, and those that learning starts from."""
    rng = np.random.default_rng([seed, 2017])
    places = rng.uniform(0, N_LOCATIONS - 1, N_PAIRS)
    fields = np.exp(-0.5 * (np.arange(N_LOCATIONS) - places[:, None]) ** 2)
    strength = rng.lognormal(0.0, SPREAD, (N_PAIRS, 1))
    motor = rng.lognormal(0.0, SPREAD, N_LATENT)
    tonic = rng.standard_normal(N_LATENT)
    columns = [column / np.linalg.norm(column) for column in (motor, tonic)]
    return {
        "places": places,
        "visual_weights": strength * fields / fields.sum(axis=1, keepdims=True),
        "motor_weights": np.stack(columns, axis=1),
        "weights": 0.1 * rng.standard_normal((N_PAIRS, N_LATENT)) / np.sqrt(N_LATENT),
    }


@dataclass(frozen=True, kw_only=True)
class Attinger2017(Circuit):
    """Pairs of error units in L2/3 that running excites and flow inhibits, or the reverse."""

    weights: Any = field(default_factory=lambda: draw(0)["weights"])
    """(48, 24) from latents to error pairs, learned."""
    visual_weights: Any = field(default_factory=lambda: draw(0)["visual_weights"])
    """(48, 8) from the flow at each place to error pairs."""
    motor_weights: Any = field(default_factory=lambda: draw(0)["motor_weights"])
    """(24, 2) from running and tonic input to latents."""
    places: Any = field(default_factory=lambda: draw(0)["places"])
    """(48,) centres of the receptive fields, in steps between places."""
    coupled: bool = True
    """Whether the flow that it is raised with follows its running."""
    flow_precision: float = 1.0
    """Of the flow as a whole; each error pair has its share of it."""
    motor_precision: float = 1.0
    """Of what running predicts."""
    feedback_gain: float = 1.0
    """Of the predictions; 0 cuts them."""
    noise: float = 0.5
    """Standard deviation of each unit's own input noise from frame to frame, typical inputs."""
    speed_scale: float = 0.1
    """Typical speed of running and flow, metres per second."""
    tau: float = 0.02
    """Time constant of the fastest mode of the latents, seconds."""
    tau_error: float = 0.01
    """Of the error units, seconds."""
    learning_rate: float = 0.5
    """Share of the error of a typical frame that one batch removes."""
    corridor_gain: float = 1.0
    """Flow per running that it is raised with."""
    external: float = 0.02
    """Standard deviation of flow that its running does not cause, metres per second."""
    dt: float = 0.002

    senses: ClassVar[str] = "flow"
    curriculum: ClassVar[str] = "own"
    n_training: ClassVar[Mapping[str, int]] = {"quick": 40, "full": 160}
    """Trials of 10 s."""

    @property
    def n_features(self) -> int:
        """Running, and the flow at each place."""
        return 1 + int(self.visual_weights.shape[1])

    @property
    def precision(self) -> float:
        """Precision of one error pair."""
        return self.flow_precision / len(self.weights)

    @property
    def populations(self) -> tuple[Population, ...]:
        """Error units of both signs in L2/3, latents in L5/6."""
        n_pairs, n_latent = self.weights.shape
        middle = 0.5 * (self.visual_weights.shape[1] - 1)
        pair: dict[str, Any] = {
            "kind": Leaky(self.tau_error, "relu"), "size": n_pairs, "level": 0, "area": "V1",
            "layer": "L2/3", "x": DEGREES * (self.places - middle),
        }  # fmt: skip
        predicted = self.feedback_gain * self.weights
        curvature = self.precision * np.linalg.norm(predicted, 2) ** 2 + self.motor_precision
        prior = GaussianPrior(precision=self.motor_precision)
        latent = Latent(self.tau * float(curvature), prior=prior)
        return (
            Population(name="error_pos", population="error_pos", **pair),
            Population(name="error_neg", population="error_neg", **pair),
            Population("latent", latent, n_latent, 1, "latent", "V1", "L5/6"),
        )

    @property
    def projections(self) -> tuple[Projection, ...]:
        """Flow and prediction meet with opposite signs in the two kinds of error units."""
        n_pairs, n_latent = self.weights.shape
        down = self.feedback_gain * self.weights
        up = self.precision * down.T
        flow = self._from_stimulus(self.visual_weights, 2)
        start = 1 + self.n_features
        noise = [self._from_stimulus(self.noise * np.eye(n_pairs), start + k * n_pairs)
                 for k in range(2)]  # fmt: skip
        motor = self._from_stimulus(self.motor_precision * self.motor_weights, 0)
        jitter = self.motor_precision * self.noise / np.sqrt(n_latent) * np.eye(n_latent)
        motor = motor + self._from_stimulus(jitter, start + 2 * n_pairs)
        return (
            Projection("stimulus", "error_pos", flow + noise[0], port="drive"),
            Projection("latent", "error_pos", down, port="inhibition"),
            Projection("latent", "error_neg", down, port="drive"),
            Projection("stimulus", "error_neg", flow - noise[1], port="inhibition"),
            Projection("error_pos", "latent", up, port="ascending"),
            Projection("error_neg", "latent", up, port="ascending", sign=-1.0),
            Projection("stimulus", "latent", motor, port="lateral"),
        )

    @property
    def n_noisy(self) -> int:
        """Units that have noise of their own: all."""
        return 2 * len(self.weights) + int(self.weights.shape[1])

    def _from_stimulus(self, weights: Any, start: int) -> Any:
        """Put weights where their features lie among running, tonic input, flow and noise."""
        whole = np.zeros((len(weights), 1 + self.n_features + self.n_noisy))
        whole[:, start : start + weights.shape[1]] = weights
        return whole

    def prepare(self, stimulus: xr.DataArray) -> Any:
        """Return running, 1 and flow in typical speeds, and noise, which is 0 unless `run` adds it.

        Raises
        ------
        ValueError
            If the stimulus has another number of features.
        """
        values = Circuit.prepare(self, stimulus)
        n, own = values.shape[-1], self.n_features
        if n not in (own, own + self.n_noisy):
            found = f"{n} features"
            expected = f"{own}: running and the flow at {own - 1} places"
            raise ValueError(refusal("Attinger2017", found, expected, "See pcsim.stimuli."))
        speed = values[..., :own] / self.speed_scale
        noise = values[..., own:] if n > own else np.zeros((*values.shape[:2], self.n_noisy))
        tonic = np.ones((*values.shape[:2], 1))
        return np.concatenate([speed[..., :1], tonic, speed[..., 1:], noise], axis=-1)

    def run(
        self, stimulus: xr.DataArray, *, seed: int = 0, record: Sequence[str] | None = None
    ) -> xr.Dataset:
        """Return the responses to `stimulus`, with noise from `seed` on every unit's input."""
        stimulus = check_stimulus(stimulus, "Attinger2017")
        if self.noise and stimulus.sizes.get("feature") == self.n_features:
            stimulus = add_noise(stimulus, self.n_noisy, seed=seed)
        return simulate(self, stimulus, seed=seed, record=record)

    def infer(self, motor: Any, flow: Any) -> Any:
        """Return the latents (frame, 24) at rest for inputs (frame, 2) and (frame, 8)."""
        down = self.feedback_gain * self.weights
        hessian = self.precision * down.T @ down + self.motor_precision * np.eye(down.shape[1])
        pull = self.precision * (flow @ self.visual_weights.T) @ down
        pull = pull + self.motor_precision * motor @ self.motor_weights.T
        return np.linalg.solve(hessian, pull.T).T

    def training(self, kind: str, *, seed: int, scale: str) -> xr.DataArray:
        """Return running and flow, coupled or not; as "white_noise" every frame on its own."""
        stimulus = optic_flow(
            self.n_training[scale], condition="coupled" if self.coupled else "uncoupled",
            n_locations=self.n_features - 1, duration=10.0, frame_duration=0.05,
            gain=self.corridor_gain, external=self.external, seed=seed,
        )  # fmt: skip
        if kind == "natural":
            return stimulus
        flat = stimulus.to_numpy().reshape(-1, self.n_features)
        mixed = np.random.default_rng([seed, 1]).permuted(flat, axis=0)
        return stimulus.copy(data=mixed.reshape(stimulus.shape))

    def untrained(self, *, seed: int) -> Attinger2017:
        """Return another draw, with the weights that learning would start from."""
        return replace(self, **draw(seed))

    def fit(self, stimulus: xr.DataArray, *, seed: int = 0) -> Attinger2017:
        """Learn the prediction of flow, frame by frame at rest, in random order."""
        model = self.untrained(seed=seed)
        inputs = model.prepare(stimulus)[..., : 1 + model.n_features]
        inputs = inputs.reshape(-1, 1 + model.n_features)
        order = np.random.default_rng([seed, 20]).permutation(len(inputs))
        for chosen in np.array_split(inputs[order], max(len(inputs) // BATCH, 1)):
            model = model._learn(chosen)
        return model

    def _learn(self, inputs: Any) -> Attinger2017:
        """Move the weights along net drive times rate, averaged over a batch of frames."""
        motor, flow = inputs[:, :2], inputs[:, 2:]
        r = self.infer(motor, flow)
        drive = flow @ self.visual_weights.T - self.feedback_gain * r @ self.weights.T
        power = float((r**2).sum(axis=1).mean())
        step = self.learning_rate / power * drive.T @ r / len(r)
        return replace(self, weights=self.weights + step)


MODEL = Attinger2017()
