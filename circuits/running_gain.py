r"""Visual responses that running multiplies: mismatch without a prediction.

Each unit is tuned to the speed of the flow at one place, and running scales what it sends:

.. math:: r = (1 + k\, m)\, v(f), \qquad
    v(f) = \exp\!\Big(-\tfrac{1}{2\sigma^2} \ln^2 \frac{|f| + f_0}{f_p + f_0}\Big)

(:math:`m` running, :math:`f_p` the preferred speed). Units that prefer slow flow answer when the
flow is halted, the more the faster the animal runs, though they compare nothing: the reading of
mismatch responses that Muzzu & Saleem (2021, Cell Reports 37:109772) put forward, whose cells that
answer halts prefer slow flow and answer more during running. It is the control of H26. Layers
differ in name only.

The tuning is log-Gaussian with the mean width, 1.22, of 501 neurons of MT
(https://jov.arvojournals.org/article.aspx?articleid=2129459). Own choices: the offset, preferred
speeds uniform from 0 to 0.3 m/s, a doubling of responses at typical running (log-normal, 0.5), and
48 units a layer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import numpy as np
import xarray as xr

from pcsim.circuit import Circuit, Population, Projection, simulate
from pcsim.kinds import Leaky
from pcsim.messages import refusal
from pcsim.responses import check_stimulus
from pcsim.stimuli import add_noise, optic_flow

__all__ = ["MODEL", "RunningGain"]

N_LOCATIONS, N_UNITS = 8, 48
LAYERS = {"superficial": "L2/3", "deep": "L5/6"}
FASTEST = 0.3
"""Largest preferred speed, metres per second."""
DEGREES = 10.0
"""Of visual angle between places."""


def draw(seed: int) -> dict[str, Any]:
    """Draw places, preferred speeds and gains of both layers, (2, 48) each."""
    rng = np.random.default_rng([seed, 2021])
    shape = (len(LAYERS), N_UNITS)
    return {
        "places": rng.integers(0, N_LOCATIONS, shape),
        "preferred": rng.uniform(0.0, FASTEST, shape),
        "running_gain": rng.lognormal(0.0, 0.5, shape),
    }


@dataclass(frozen=True, kw_only=True)
class RunningGain(Circuit):
    """Two layers of speed-tuned units; a gain unit beside each follows the running."""

    places: Any = field(default_factory=lambda: draw(0)["places"])
    """(2, 48) index of the place whose flow a unit of a layer sees."""
    preferred: Any = field(default_factory=lambda: draw(0)["preferred"])
    """(2, 48) preferred speed of flow, metres per second."""
    running_gain: Any = field(default_factory=lambda: draw(0)["running_gain"])
    """(2, 48) k, by how much typical running raises the response."""
    width: float = 1.22
    """Standard deviation of the logarithm of speed."""
    offset: float = 0.02
    """f0, metres per second."""
    speed_scale: float = 0.1
    """Typical running, metres per second."""
    noise: float = 0.5
    """Standard deviation of each unit's own input noise from frame to frame."""
    tau: float = 0.02
    """Time constant of all units, seconds."""
    dt: float = 0.002

    senses: ClassVar[str] = "flow"
    curriculum: ClassVar[str] = "own"
    n_training: ClassVar[Mapping[str, int]] = {"quick": 1, "full": 1}

    @property
    def n_features(self) -> int:
        """Running, and the flow at each place."""
        return 1 + N_LOCATIONS

    @property
    def populations(self) -> tuple[Population, ...]:
        """Of each layer the tuned inputs, their gains and the outputs."""
        listed = []
        for index, (name, layer) in enumerate(LAYERS.items()):
            x = DEGREES * (self.places[index] - 0.5 * (N_LOCATIONS - 1))
            shared: dict[str, Any] = {"size": x.size, "area": "V1", "layer": layer, "x": x}
            listed += [
                Population(f"tuned_{name}", Leaky(self.tau), level=0, population="input", **shared),
                # The slope of a square, 2 u, is the gain.
                Population(f"gain_{name}", Leaky(self.tau, "square"), level=0,
                           population="interneuron", **shared),
                Population(f"output_{name}", Leaky(self.tau, "relu"), level=1,
                           population="output", **shared),
            ]  # fmt: skip
        return tuple(listed)

    @property
    def projections(self) -> tuple[Projection, ...]:
        """The tuned input reaches the output through the gain of its running."""
        listed = []
        n = self.places.shape[1]
        for index, name in enumerate(LAYERS):
            running = np.zeros((n, 2 + 4 * n))
            running[:, 0], running[:, 1] = 0.5 * self.running_gain[index], 0.5
            tuned = np.eye(n, 2 + 4 * n, k=2 + index * n)
            noise = self.noise * np.eye(n, 2 + 4 * n, k=2 + (2 + index) * n)
            listed += [
                Projection("stimulus", f"tuned_{name}", tuned, port="drive"),
                Projection("stimulus", f"gain_{name}", running, port="drive"),
                Projection("stimulus", f"output_{name}", noise, port="drive"),
                Projection(f"tuned_{name}", f"output_{name}", port="drive", gate=f"gain_{name}"),
            ]
        return tuple(listed)

    def prepare(self, stimulus: xr.DataArray) -> Any:
        """Return running in typical speeds, 1, tuned responses to the flow, and noise if any.

        Raises
        ------
        ValueError
            If the stimulus has another number of features.
        """
        values = Circuit.prepare(self, stimulus)
        n, own = values.shape[-1], self.n_features
        if n not in (own, own + self.places.size):
            expected = f"{own}: running and the flow at {own - 1} places"
            raise ValueError(
                refusal("RunningGain", f"{n} features", expected, "See pcsim.stimuli.")
            )
        speed = np.abs(values[..., 1:own])[..., self.places.ravel()] + self.offset
        octaves = np.log(speed / (self.preferred.ravel() + self.offset))
        tuned = np.exp(-0.5 * (octaves / self.width) ** 2)
        noise = values[..., own:] if n > own else np.zeros(tuned.shape)
        running = values[..., :1] / self.speed_scale
        return np.concatenate([running, np.ones_like(running), tuned, noise], axis=-1)

    def run(
        self, stimulus: xr.DataArray, *, seed: int = 0, record: Sequence[str] | None = None
    ) -> xr.Dataset:
        """Return the responses to `stimulus`, with noise from `seed` on every output's input."""
        stimulus = check_stimulus(stimulus, "RunningGain")
        if self.noise and stimulus.sizes.get("feature") == self.n_features:
            stimulus = add_noise(stimulus, self.places.size, seed=seed)
        return simulate(self, stimulus, seed=seed, record=record)

    def training(self, kind: str, *, seed: int, scale: str) -> xr.DataArray:
        """Return a trial of running; nothing is learned from it."""
        return optic_flow(self.n_training[scale], n_locations=self.n_features - 1, seed=seed)

    def untrained(self, *, seed: int) -> RunningGain:
        """Return another draw of places, speeds and gains."""
        return replace(self, **draw(seed))

    def fit(self, stimulus: xr.DataArray, *, seed: int = 0) -> RunningGain:
        """Return another draw: its tuning and gain are given, not learned."""
        return self.untrained(seed=seed)


MODEL = RunningGain()
