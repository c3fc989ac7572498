r"""The visual pathway as one circuit: retina, LGN, V1 and V2, after figure 8.8 of the thesis.

The retina whitens log luminance in space, the LGN whitens it in time and compares it with what V1
predicts, and V1 and V2 explain it as in Rao & Ballard (1999, Nat. Neurosci. 2:79). With C the
covariance of log luminance, :math:`\lambda` the variance of the noise and c the share of the trace

.. math:: g = k\,(C + \lambda)^{-1/2}\, C\,(C + \lambda)^{-1} x, \qquad
    y = g - c\,a, \quad \tau_a\,\dot a = g - a, \qquad \xi_\pm = \max(\pm\Pi_0 (y - U r),\, 0)

.. math:: F = \tfrac12 \Pi_0 \lVert y - U r \rVert^2 + \tfrac12 \Pi_1 \lVert r - U_h r_h \rVert^2
    + \tfrac{\alpha_1}{2} \sum \log(1 + r^2) + \tfrac{\alpha_2}{2} \sum \log(1 + r_h^2)

Receptors pool (noise is removed before whitening: Atick & Redlich 1992, Neural Comput. 4:196);
horizontal and amacrine cells subtract what the neighbours predict, each half of the whitening, and
on and off cells carry the two signs. The share :math:`c = 1 - \tau_a / T` whitens input whose power
falls as :math:`1/(\omega^2 + T^{-2})` (Dong & Atick 1995, Network 6:159). On and off cells of the
LGN send the residual up, and V1 and V2 descend F. A constant image comes to rest at the minimum of
F with :math:`y = (1 - c)\,g`.

The field is 16 by 16 px at 16 px per degree; video comes at any frame rate, in the battery 125 Hz.
Predicts: output decorrelation (H02), a surround that weakens with noise (H03), biphasic kernels and
phase-reversed feedback (H05), onset transients (H19), latency that grows with the level (H33).

Conduction delays: LGN to V1 4.0 ms and back 5.1 ms, here 6 (Briggs & Usrey 2007, J. Neurosci.
27:5431); V1 to V2 and back alike, 3.5 m/s (Girard et al. 2001, J. Neurophysiol. 85:1328), 2 ms for
7 mm. Precisions, priors and learning are those of Rao & Ballard. Our own choices: interneurons that
are driven forward and split the filter in equal halves, time constants of 5 to 20 ms, 4 ms from
retina to LGN, a correlation time T of 0.2 s, about a fixation, nine modules of 8 by 8 px that
overlap by half, 16 and 48 latents, and weights learned on what a new fixation brings, y = g. With
the delays the loop of LGN and V1 rings at onsets, at some 14 Hz for three cycles.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import numpy as np
import xarray as xr

from pcsim.circuit import Circuit, Population, Projection
from pcsim.kinds import Error, Latent, Leaky, Prediction, TemporalRelay
from pcsim.priors import GaussianPrior, SparsePrior

__all__ = ["MODEL", "VisualPathway"]

SIDE, PATCH, OFFSET = 16, 8, 4
N_PER_MODULE, N_V2 = 16, 48
CORNERS = [(row, column) for row in (0, OFFSET, 2 * OFFSET) for column in (0, OFFSET, 2 * OFFSET)]
N_V1 = len(CORNERS) * N_PER_MODULE
BATCH, DECAY_EVERY, INFERENCE_STEPS = 100, 400, 25
SWITCHES = {
    "spatial": ("whitening", "random", "none"),
    "temporal": ("whitening", "adaptation", "none"),
}
ADAPTATION = (0.8, 1.4)
"""Share and time constant (s) of adaptation without prediction, those of `adaptation`."""


def module_mask() -> Any:
    """Return which pixels each V1 latent can predict, (256, 144): those of its module."""
    mask = np.zeros((SIDE, SIDE, len(CORNERS), N_PER_MODULE))
    for module, (row, column) in enumerate(CORNERS):
        mask[row : row + PATCH, column : column + PATCH, module] = 1.0
    return mask.reshape(SIDE**2, N_V1)


def random_weights(seed: int) -> tuple[Any, Any]:
    """Draw initial weights of V1 and V2, normal with standard deviation 0.1."""
    rng = np.random.default_rng([seed, 88])
    lower = 0.1 * rng.standard_normal((SIDE**2, N_V1)) * module_mask()
    return lower, 0.1 * rng.standard_normal((N_V1, N_V2))


def exponential_covariance() -> Any:
    """Return the covariance of a textured scene that falls by e in 4 px, (256, 256)."""
    rows, columns = np.indices((SIDE, SIDE)).reshape(2, -1)
    distance = np.hypot(rows[:, None] - rows[None], columns[:, None] - columns[None])
    return 0.3 * np.exp(-distance / 4.0)


@dataclass(frozen=True, kw_only=True)
class VisualPathway(Circuit):
    """Retina, LGN, V1 and V2; `feedback_gain` 0 cuts what descends to the LGN and to V1."""

    covariance: Any = field(default_factory=exponential_covariance)
    """(256, 256) covariance of log luminance."""
    mean: Any = field(default_factory=lambda: np.zeros(SIDE**2))
    """(256,) mean log luminance, relative to mid-grey."""
    snr: float = 10.0
    """Mean variance of log luminance over that of the noise the retina is adapted to; the inverse
    of the ridge of `retina_srinivasan_1982`."""
    weights: Any = field(default_factory=lambda: random_weights(0)[0])
    """(256, 144) top-down weights U of V1, zero outside of each module."""
    top_weights: Any = field(default_factory=lambda: random_weights(0)[1])
    """(144, 48) top-down weights of V2."""
    precision: float = 1.0
    """Inverse variance of the LGN's input given V1."""
    top_precision: float = 0.1
    """Inverse variance of V1 given V2."""
    alpha: float = 1.0
    top_alpha: float = 0.05
    sparse: bool = True
    """Kurtotic prior; False takes the Gaussian prior of equal curvature at 0."""
    feedback_gain: float = 1.0
    """Gain of the predictions from V1 to the LGN and from V2 to V1; 0 cuts both."""
    spatial: str = "whitening"
    """"whitening", "random" (each interneuron's weights in random order) or "none"."""
    temporal: str = "whitening"
    """"whitening", "adaptation" (a slow share of the past, no prediction) or "none"."""
    correlation_time: float = 0.2
    """Seconds over which natural input stays alike."""
    tau_trace: float = 0.01
    """Memory of the LGN's trace, seconds."""
    tau_receptor: float = 0.01
    tau_interneuron: float = 0.01
    """Horizontal and amacrine cells, seconds."""
    tau_relay: float = 0.005
    """Bipolar, ganglion and LGN cells, seconds."""
    tau_v1: float = 0.02
    """Of the fastest mode of the latents of V1, seconds."""
    tau_v2: float = 0.02
    """Of the fastest mode of the latents of V2, seconds."""
    delay_lgn: float = 0.004
    """Retina to LGN, seconds."""
    delay_v1: float = 0.004
    """LGN to V1, seconds."""
    delay_back: float = 0.006
    """V1 to LGN, seconds."""
    delay_v2: float = 0.002
    """V1 to V2, and V2 to V1, seconds."""
    weight_decay: float = 0.02
    learning_rate: float = 1.0
    learning_decay: float = 1.015
    dt: float = 0.002

    curriculum: ClassVar[str] = "patches"
    n_training: ClassVar[Mapping[str, int]] = {"quick": 40_000, "full": 40_000}
    """Images, after which the learning rate has fallen to about a fifth of its start."""

    def __post_init__(self) -> None:
        for name, known in SWITCHES.items():
            if getattr(self, name) not in known:
                raise ValueError(
                    f"visual_pathway: found {name} {getattr(self, name)!r}, expected one of "
                    f"{known}. Give one of these."
                )

    @property
    def field_shape(self) -> tuple[int, int]:
        """Rows and columns of the visual field."""
        return SIDE, SIDE

    @property
    def px_per_deg(self) -> float:
        """Pixels per degree of visual angle."""
        return 16.0

    @property
    def trace(self) -> tuple[float, float]:
        """Share of the trace that the LGN subtracts, and the trace's time constant in seconds."""
        whitening = (1.0 - self.tau_trace / self.correlation_time, self.tau_trace)
        options = {"whitening": whitening, "adaptation": ADAPTATION, "none": (0.0, self.tau_trace)}
        return options[self.temporal]

    @property
    def populations(self) -> tuple[Population, ...]:
        """Five layers of the retina, the LGN, errors and latents of V1, latents of V2."""
        relay, between = Leaky(tau=self.tau_relay), Leaky(tau=self.tau_interneuron)
        rectifier, (share, tau) = Prediction(outer="relu"), self.trace
        temporal = TemporalRelay(tau_trace=tau, coefficient=share)
        residual = Error(tau=self.tau_relay, variance=1.0 / self.precision)
        lower, upper, _ = self._curvatures(1.0)
        v1 = Latent(tau=self.tau_v1 * lower, prior=self.prior(self.alpha))
        v2 = Latent(tau=self.tau_v2 * upper, prior=self.prior(self.top_alpha))
        eye: dict[str, Any] = {"level": 0, "area": "retina", **retinotopy()}
        lgn: dict[str, Any] = {**eye, "area": "LGN"}
        on, off = np.ones(SIDE**2), -np.ones(SIDE**2)
        x, y = np.repeat(module_centres(), N_PER_MODULE, axis=0).T / self.px_per_deg
        cortex: dict[str, Any] = {"size": N_V1, "level": 1, "area": "V1", "x": x, "y": y}
        top: dict[str, Any] = {"size": N_V2, "level": 2, "x": np.zeros(N_V2), "y": np.zeros(N_V2)}
        return (
            Population("receptor", Leaky(tau=self.tau_receptor), population="input", **eye),
            Population("horizontal", between, population="interneuron", **eye),
            Population("bipolar", relay, population="input", **eye),
            Population("amacrine", between, population="interneuron", **eye),
            Population("ganglion", relay, population="output", **eye),
            Population("ganglion_on", rectifier, population="output_pos", channel=on, **eye),
            Population("ganglion_off", rectifier, population="output_neg", channel=off, **eye),
            Population("relay", temporal, population="input", **lgn),
            Population("residual", residual, population="error", **lgn),
            Population("lgn_on", rectifier, population="error_pos", channel=on, **lgn),
            Population("lgn_off", rectifier, population="error_neg", channel=off, **lgn),
            Population("latent_1", v1, population="latent", **cortex),
            Population("error_1", Error(tau=None), population="error", **cortex),
            Population("latent_2", v2, population="latent", area="V2", **top),
        )

    @property
    def projections(self) -> tuple[Projection, ...]:
        """Images ascend as whitened residuals; predictions descend."""
        pooling, lateral = self.retina()
        lower, upper = self.weights, self.feedback_gain * self.top_weights
        down: dict[str, Any] = {"port": "predicted"}
        return (
            Projection("stimulus", "receptor", pooling, "drive"),
            Projection("receptor", "horizontal", lateral, "drive"),
            Projection("receptor", "bipolar", port="drive"),
            Projection("horizontal", "bipolar", port="inhibition"),
            Projection("bipolar", "amacrine", lateral, "drive"),
            Projection("bipolar", "ganglion", port="drive"),
            Projection("amacrine", "ganglion", port="inhibition"),
            Projection("ganglion", "ganglion_on"),
            Projection("ganglion", "ganglion_off", sign=-1.0),
            Projection("ganglion_on", "relay", delay=self.delay_lgn),
            Projection("ganglion_off", "relay", sign=-1.0, delay=self.delay_lgn),
            Projection("relay", "residual", port="observed"),
            Projection(
                "latent_1", "residual", self.feedback_gain * lower, delay=self.delay_back, **down
            ),
            Projection("residual", "lgn_on"),
            Projection("residual", "lgn_off", sign=-1.0),
            Projection("lgn_on", "latent_1", lower.T, "ascending", delay=self.delay_v1),
            Projection("lgn_off", "latent_1", lower.T, "ascending", -1.0, delay=self.delay_v1),
            Projection("latent_1", "error_1", port="observed"),
            Projection("latent_2", "error_1", upper, delay=self.delay_v2, **down),
            Projection("error_1", "latent_1", port="own_error", sign=self.top_precision),
            Projection(
                "error_1", "latent_2", self.top_precision * upper.T, "ascending",
                delay=self.delay_v2,
            ),
        )  # fmt: skip

    def prior(self, alpha: float) -> SparsePrior | GaussianPrior:
        """Return the prior of an area: kurtotic, or Gaussian of the same curvature at 0."""
        return SparsePrior(alpha) if self.sparse else GaussianPrior(precision=alpha)

    def retina(self) -> tuple[Any, Any]:
        """Return the receptors' pooling and the interneurons' weights, (256, 256) each.

        The filter of the retina, pooling, then twice what the interneurons leave, gives natural
        input a mean variance of 1.
        """
        variance, axes = np.linalg.eigh(self.covariance)
        signal = np.maximum(variance, 0.0)
        noisy = signal + signal.mean() / self.snr
        half = noisy**-0.25
        half = half / ((axes * half) @ axes.T).diagonal().mean()
        pooling = signal / noisy
        gain = 1.0 / np.sqrt((signal * (pooling * half**2) ** 2).mean())
        lateral = np.eye(SIDE**2) - (axes * half) @ axes.T
        if self.spatial == "random":
            lateral = np.random.default_rng(0).permuted(lateral, axis=1)
        elif self.spatial == "none":
            lateral = np.zeros_like(lateral)
        return gain * (axes * pooling) @ axes.T, lateral

    def ganglion(self, features: Any) -> Any:
        """Return where the ganglion cells rest, (..., 256), given log luminance less its mean."""
        pooling, lateral = self.retina()
        left = np.eye(SIDE**2) - lateral
        return features @ (left @ left @ pooling).T

    def prepare(self, stimulus: xr.DataArray) -> Any:
        """Return log luminance relative to mid-grey, less its learned mean: (trial, time, 256)."""
        return log_luminance(Circuit.prepare(self, stimulus)) - self.mean

    def untrained(self, *, seed: int) -> VisualPathway:
        """Return a pathway without lateral weights (white covariance) and with random weights."""
        weights, top_weights = random_weights(seed)
        white = 0.3 * np.eye(SIDE**2)
        zeros = np.zeros(SIDE**2)
        return replace(self, covariance=white, mean=zeros, weights=weights, top_weights=top_weights)

    def fit(self, stimulus: xr.DataArray, *, seed: int = 0) -> VisualPathway:
        """Take mean and covariance from images; learn the weights of V1 and V2 by the local rule.

        V1 sees each image as the ganglion cells rest on it.
        """
        frames = log_luminance(Circuit.prepare(self, stimulus)).reshape(-1, SIDE**2)
        mean = frames.mean(axis=0)
        model = replace(self.untrained(seed=seed), mean=mean, covariance=np.cov(frames.T))
        inputs = model.ganglion(frames - mean)
        rng = np.random.default_rng([seed, 1982])
        rate = self.learning_rate
        for chosen in np.array_split(rng.permutation(len(inputs)), max(len(inputs) // BATCH, 1)):
            model = model._learn(inputs[chosen], rate)
            rate /= self.learning_decay ** (len(chosen) / DECAY_EVERY)
        return model

    def estimate(self, inputs: Any, n_steps: int = INFERENCE_STEPS) -> tuple[Any, Any]:
        """Descend the free energy for LGN input (trial, 256): latents of V1 and V2.

        Accelerated gradient steps on both areas at once, each in units of its own curvature; what
        couples them raises the joint curvature to at most 1 + c.
        """
        hessian = self._quadratic()
        alpha = np.repeat([self.alpha, self.top_alpha], [N_V1, N_V2])
        lower, upper, coupling = self._curvatures(self.feedback_gain)
        joint = 1.0 + coupling / np.sqrt(lower * upper)
        step = 1.0 / (joint * np.repeat([lower, upper], [N_V1, N_V2]))
        drive = np.zeros((len(inputs), N_V1 + N_V2))
        drive[:, :N_V1] = self.precision * inputs @ self.weights
        state = ahead = np.zeros_like(drive)
        speed = 1.0
        for _ in range(n_steps):
            shrunk = ahead / (1.0 + ahead**2) if self.sparse else ahead
            moved = ahead + step * (drive - ahead @ hessian - alpha * shrunk)
            faster = (1.0 + np.sqrt(1.0 + 4.0 * speed**2)) / 2.0
            ahead = moved + (speed - 1.0) / faster * (moved - state)
            state, speed = moved, faster
        return state[:, :N_V1], state[:, N_V1:]

    def _curvatures(self, feedback: float) -> tuple[float, float, float]:
        """Return the largest curvature of the energy in each area, and of what couples them."""
        gram = feedback * self.precision * self.weights.T @ self.weights
        lower = np.linalg.eigvalsh(gram)[-1] + self.top_precision + self.alpha
        upper = feedback * self.top_weights
        spread = max(float(np.linalg.eigvalsh(upper.T @ upper)[-1]), 0.0)
        top = self.top_precision * spread + self.top_alpha
        return float(lower), top, self.top_precision * spread**0.5

    def _quadratic(self) -> Any:
        """Return the Hessian of the energy without its priors, over V1 and V2: (192, 192)."""
        upper = self.feedback_gain * self.top_weights
        lower = self.feedback_gain * self.precision * self.weights.T @ self.weights
        coupled = -self.top_precision * upper
        return np.block(
            [
                [lower + self.top_precision * np.eye(N_V1), coupled],
                [coupled.T, self.top_precision * upper.T @ upper],
            ]
        )

    def _learn(self, inputs: Any, rate: float) -> VisualPathway:
        """Move both weights along error times rate, less the decay."""
        r, top = self.estimate(inputs)
        below = self.precision * (inputs - r @ self.weights.T)
        above = self.top_precision * (r - top @ self.top_weights.T)
        # The largest eigenvalue of r' r / n is that of r r' / n, which is smaller.
        powers = [np.linalg.eigvalsh(one @ one.T)[-1] / len(r) for one in (r, top)]
        lower_rate = rate / max(1.0, self.precision * float(powers[0]))
        upper_rate = rate / max(1.0, self.top_precision * float(powers[1]))
        lower = below.T @ r / len(r) * module_mask() - self.weight_decay * self.weights
        upper = above.T @ top / len(r) - self.weight_decay * self.top_weights
        return replace(
            self,
            weights=self.weights + lower_rate * lower,
            top_weights=self.top_weights + upper_rate * upper,
        )


def retinotopy() -> dict[str, Any]:
    """Return size and places (degrees) of a population with a unit for each pixel."""
    rows, columns = np.indices((SIDE, SIDE)).reshape(2, -1)
    centre = (SIDE - 1) / 2
    return {"size": SIDE**2, "x": (columns - centre) / 16.0, "y": (centre - rows) / 16.0}


def module_centres() -> Any:
    """Return x and y of the modules' centres, pixels from the middle: (9, 2)."""
    middle = (np.array(CORNERS) + (PATCH - 1) / 2) - (SIDE - 1) / 2
    return np.stack([middle[:, 1], -middle[:, 0]], axis=1)


def log_luminance(luminance: Any) -> Any:
    """Return log luminance relative to mid-grey; 1 % of the range is added against log of 0."""
    return np.log((luminance + 0.01) / 0.51)


MODEL = VisualPathway()
