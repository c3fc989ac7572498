r"""Biphasic LGN cells by delayed predictive feedback from V1 (Jehee & Ballard 2009).

On and off cells of the LGN send what V1 did not predict; the prediction comes back late:

.. math:: \tau\,\dot e = x(t) - \gamma\,U r(t - d_b) - e/\Pi, \qquad
    \xi_\pm = \max(\pm e, 0), \qquad
    \tau_r\,\dot r = U^\top (\xi_+ - \xi_-)(t - d_f) - \alpha\, r/(1 + r^2)

A preferred stimulus drives a cell until the prediction arrives and subtracts; when the stimulus is
gone the prediction is still there, and drives the cell of the opposite sign. So the kernel reverses
polarity, and feedback lowers the response of cells aligned with a V1 zone of their own sign and
raises that of the opposite sign (H05). At rest :math:`r` is at the minimum of
:math:`F = \tfrac12\Pi\lVert x - U r\rVert^2 + \tfrac{\alpha}{2}\sum\log(1 + r^2)`.

Jehee & Ballard (2009), PLoS Comput. Biol. 5:e1000373,
https://doi.org/10.1371/journal.pcbi.1000373. From the paper (its abstract was read): on and off
units of the LGN, V1 trained on natural images, subtractive feedback that comes later than the
input. As in Rao & Ballard (1999): difference of Gaussians of 1.3 and 2.08 px, patches of 16 by 16
px, variance 1, :math:`\alpha` 1, weight decay 0.02 and the schedule of learning. Conduction: LGN to
V1 4 ms, back 6 ms (Briggs & Usrey 2007, J. Neurosci. 27:5431). Our own choices, made before the
first run: 64 latents, 5 ms for LGN cells and 20 ms for the fastest mode of V1; the paper moves in
discrete steps instead. The slowest modes of V1 take as long as the weights are weak.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any, ClassVar

import numpy as np
import xarray as xr

from pcsim.circuit import Circuit, Population, Projection
from pcsim.filters import difference_of_gaussians, filter_matrix
from pcsim.kinds import Error, Latent, Prediction
from pcsim.priors import GaussianPrior, SparsePrior

__all__ = ["MODEL", "JeheeBallard2009"]

PATCH, MARGIN, N_LATENT = 16, 8, 64
BATCH, DECAY_EVERY, INFERENCE_STEPS = 40, 40, 25


def random_weights(seed: int) -> Any:
    """Draw initial weights (256, 64), normal with standard deviation 0.1."""
    rng = np.random.default_rng([seed, 2009])
    return 0.1 * rng.standard_normal((PATCH**2, N_LATENT))


@dataclass(frozen=True, kw_only=True)
class JeheeBallard2009(Circuit):
    """LGN residual with its on and off cells, and the latents of V1."""

    weights: Any = field(default_factory=lambda: random_weights(0))
    """(256, 64) top-down weights U."""
    precision: float = 1.0
    """Inverse variance of the LGN's input given V1."""
    alpha: float = 1.0
    sparse: bool = True
    """Kurtotic prior; False takes the Gaussian prior of equal curvature at 0."""
    feedback_gain: float = 1.0
    """Gain of the prediction from V1; 0 cuts the feedback."""
    input_gain: float = 47.7
    """Brings filtered natural input to about unit variance, as in `rao_ballard_1999`."""
    tau_lgn: float = 0.005
    """LGN cells, seconds."""
    tau: float = 0.02
    """Of the fastest mode of the latents of V1, seconds."""
    delay_forward: float = 0.004
    """LGN to V1, seconds."""
    delay_back: float = 0.006
    """V1 to LGN, seconds."""
    weight_decay: float = 0.02
    learning_rate: float = 1.0
    learning_decay: float = 1.015
    dt: float = 0.002

    curriculum: ClassVar[str] = "patches"
    n_training: ClassVar[Mapping[str, int]] = {"quick": 12_000, "full": 12_000}
    """Images, after which the learning rate has fallen to about 1 % of its start."""

    @property
    def field_shape(self) -> tuple[int, int]:
        """Rows and columns of the visual field: the patch and the margin of the filter."""
        return PATCH + 2 * MARGIN, PATCH + 2 * MARGIN

    @property
    def px_per_deg(self) -> float:
        """Pixels per degree of visual angle."""
        return 16.0

    @property
    def populations(self) -> tuple[Population, ...]:
        """What V1 did not predict, the two LGN cells that send it, and the latents of V1."""
        axis = (np.arange(PATCH) - (PATCH - 1) / 2) / self.px_per_deg
        y, x = (one.ravel() for one in np.meshgrid(-axis, axis, indexing="ij"))
        lgn: dict[str, Any] = {"size": PATCH**2, "level": 0, "area": "LGN", "x": x, "y": y}
        v1: dict[str, Any] = {"x": np.zeros(N_LATENT), "y": np.zeros(N_LATENT)}
        residual = Error(tau=self.tau_lgn, variance=1.0 / self.precision)
        latent = Latent(tau=self.tau * self.curvature, prior=self.prior)
        on, off = np.ones(PATCH**2), -np.ones(PATCH**2)
        rectifier = Prediction(outer="relu")
        return (
            Population("residual", residual, population="error", **lgn),
            Population("lgn_on", rectifier, population="error_pos", channel=on, **lgn),
            Population("lgn_off", rectifier, population="error_neg", channel=off, **lgn),
            Population("latent", latent, N_LATENT, 1, "latent", "V1", **v1),
        )

    @property
    def projections(self) -> tuple[Projection, ...]:
        """The residual ascends in two signs, the prediction descends."""
        up: dict[str, Any] = {"port": "ascending", "delay": self.delay_forward}
        down = self.feedback_gain * self.weights
        return (
            Projection("stimulus", "residual", port="observed"),
            Projection("latent", "residual", down, port="predicted", delay=self.delay_back),
            Projection("residual", "lgn_on"),
            Projection("residual", "lgn_off", sign=-1.0),
            Projection("lgn_on", "latent", self.weights.T, **up),
            Projection("lgn_off", "latent", self.weights.T, sign=-1.0, **up),
        )

    @property
    def prior(self) -> SparsePrior | GaussianPrior:
        """Prior of the latents: kurtotic, or Gaussian of the same curvature at 0."""
        return SparsePrior(self.alpha) if self.sparse else GaussianPrior(precision=self.alpha)

    @property
    def curvature(self) -> float:
        """Largest curvature of the energy in the latents."""
        gram = self.precision * self.weights.T @ self.weights
        return float(np.linalg.eigvalsh(gram)[-1]) + self.alpha

    def prepare(self, stimulus: xr.DataArray) -> Any:
        """Filter the image by a difference of Gaussians: (trial, time, 256)."""
        return self.input_gain * (Circuit.prepare(self, stimulus) - 0.5) @ retina(self.field_shape)

    def untrained(self, *, seed: int) -> JeheeBallard2009:
        """Return the same circuit with the random weights that training would start from."""
        return replace(self, weights=random_weights(seed))

    def fit(self, stimulus: xr.DataArray, *, seed: int = 0) -> JeheeBallard2009:
        """Learn the weights from images scaled to unit variance, one settled batch at a time."""
        patches = self.prepare(stimulus).reshape(-1, PATCH**2)
        patches = patches / patches.std()
        rng = np.random.default_rng([seed, 1982])
        model, rate = self.untrained(seed=seed), self.learning_rate
        for chosen in np.array_split(rng.permutation(len(patches)), max(len(patches) // BATCH, 1)):
            model = model._learn(patches[chosen], rate)
            rate /= self.learning_decay ** (len(chosen) / DECAY_EVERY)
        return model

    def estimate(self, x: Any, n_steps: int = INFERENCE_STEPS) -> Any:
        """Descend the free energy for LGN input (trial, 256) by accelerated steps."""
        drive, gram = self.precision * x @ self.weights, self.weights.T @ self.weights
        curvature = self.curvature
        state = ahead = np.zeros_like(drive)
        speed = 1.0
        for _ in range(n_steps):
            shrunk = ahead / (1.0 + ahead**2) if self.sparse else ahead
            slope = drive - self.precision * ahead @ gram - self.alpha * shrunk
            moved = ahead + slope / curvature
            faster = (1.0 + np.sqrt(1.0 + 4.0 * speed**2)) / 2.0
            ahead = moved + (speed - 1.0) / faster * (moved - state)
            state, speed = moved, faster
        return state

    def _learn(self, patches: Any, rate: float) -> JeheeBallard2009:
        """Move the weights along residual times rate, less the decay.

        The step is divided by the curvature of the energy in the weights where that exceeds 1.
        """
        r = self.estimate(patches)
        step = self.precision * (patches - r @ self.weights.T).T @ r / len(r)
        power = float(self.precision * np.linalg.eigvalsh(r @ r.T)[-1] / len(r))
        step = rate / max(1.0, power) * (step - self.weight_decay * self.weights)
        return replace(self, weights=self.weights + step)


@cache
def retina(field_shape: tuple[int, int]) -> Any:
    """Return the difference of Gaussians as a matrix, (pixels of the field, 256)."""
    kernel = difference_of_gaussians(
        2 * MARGIN + 1, sigma_center=1.3, sigma_surround=2.08, weight=1.0
    )
    return filter_matrix(field_shape, kernel)


MODEL = JeheeBallard2009()
