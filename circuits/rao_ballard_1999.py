r"""Hierarchical predictive coding of natural images with feedback (Rao & Ballard 1999).

Three levels: three overlapping image patches (level 0), one module of latents for each (level 1),
and one module that predicts all three (level 2). Latents descend

.. math:: F = \tfrac12 \Pi_0 \sum_m \lVert x_m - U_m r_m \rVert^2
    + \tfrac12 \Pi_1 \lVert r - \gamma\, U_h r_h \rVert^2
    + \tfrac{\alpha_1}{2} \sum \log(1 + r^2) + \tfrac{\alpha_2}{2} \sum \log(1 + r_h^2)

which is half the E of the paper; :math:`\gamma` is the gain of the feedback. The units that the
paper finds end-stopped carry the error of level 1, :math:`r - \gamma U_h r_h`.

Settings are the paper's (Methods): 16x16 patches offset by 5 px, 32 + 32 + 32 and 128 units,
variances 1 and 10, :math:`\alpha` 1 and 0.05, weight decay 0.02, learning rate 1 divided by 1.015
every 40 inputs. Where the paper is silent: a difference of Gaussians of 1.3 and 2.08 px, a window
of 4.8 px, inputs scaled to unit variance at the centre of the window, weights updated every 10
inputs, and the learning rate divided by the curvature of the energy in the weights where that
exceeds 1, because a rate of 1 diverges otherwise.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any, ClassVar

import numpy as np
import xarray as xr

from pcsim.circuit import Circuit, Population, Projection
from pcsim.filters import difference_of_gaussians, filter_matrix, gaussian_window
from pcsim.kinds import Error, Latent
from pcsim.priors import GaussianPrior, SparsePrior

__all__ = ["MODEL", "RaoBallard1999"]

MODULES = ("left", "centre", "right")
PATCH, OFFSET, MARGIN = 16, 5, 8
N_LATENT, N_TOP = 32, 128
BATCH, DECAY_EVERY, INFERENCE_STEPS = 10, 40, 25


def random_weights(seed: int) -> tuple[Any, Any]:
    """Draw initial weights of both levels, normal with standard deviation 0.1."""
    rng = np.random.default_rng([seed, 1999])
    lower = 0.1 * rng.standard_normal((len(MODULES), PATCH**2, N_LATENT))
    return lower, 0.1 * rng.standard_normal((len(MODULES) * N_LATENT, N_TOP))


@dataclass(frozen=True, kw_only=True)
class RaoBallard1999(Circuit):
    r"""Error units compare each level with the prediction from above; latents descend the errors.

    .. math:: \tau\,\dot r = \Pi_0 U^\top(x - U r) - \Pi_1 (r - \gamma U_h r_h) - \alpha_1 r/(1 +
    r^2),
        \qquad \tau_h\,\dot r_h = \gamma\,\Pi_1 U_h^\top (r - \gamma U_h r_h)
        - \alpha_2 r_h/(1 + r_h^2)

    with :math:`\tau_h` such that the fastest mode of level 2 is as fast as that of level 1, unless
    it is given. The state at rest does not depend on it; with equal time constants the weak
    precision of level 2 makes it a hundred times slower.
    """

    weights: Any = field(default_factory=lambda: random_weights(0)[0])
    """(3, 256, 32) top-down weights U of each module."""
    top_weights: Any = field(default_factory=lambda: random_weights(0)[1])
    """(96, 128) top-down weights of level 2."""
    precision: float = 1.0
    """Inverse variance of the input given level 1."""
    top_precision: float = 0.1
    """Inverse variance of level 1 given level 2."""
    alpha: float = 1.0
    top_alpha: float = 0.05
    sparse: bool = True
    """Kurtotic prior; False takes the Gaussian prior of equal curvature at 0 (a linear model)."""
    feedback_gain: float = 1.0
    """Gain of the prediction from level 2; 0 cuts the feedback."""
    input_gain: float = 47.7
    """Brings filtered natural input to unit variance at the window's centre."""
    tau: float = 0.02
    """Time constant of the latents of level 1, seconds."""
    tau_top: float | None = None
    """Time constant of the latents of level 2, seconds; None matches the levels' fastest modes."""
    weight_decay: float = 0.02
    learning_rate: float = 1.0
    learning_decay: float = 1.015
    dt: float = 0.002

    curriculum: ClassVar[str] = "patches"
    n_training: ClassVar[Mapping[str, int]] = {"quick": 12_000, "full": 12_000}
    """Images, after which the learning rate has fallen to about 1 % of its start."""

    @property
    def field_shape(self) -> tuple[int, int]:
        """Rows and columns of the visual field: the three patches and the margin of the filter."""
        return PATCH + 2 * MARGIN, PATCH + 2 * OFFSET + 2 * MARGIN

    @property
    def px_per_deg(self) -> float:
        """Pixels per degree of visual angle."""
        return 16.0

    @property
    def populations(self) -> tuple[Population, ...]:
        """Errors of level 0, latents and errors of level 1 for each module; latents of level 2."""
        out = []
        for index, module in enumerate(MODULES):
            x, y = self.positions(index)
            middle = np.full(N_LATENT, x.mean())
            own: dict[str, Any] = {
                "x": middle,
                "y": np.zeros(N_LATENT),
                "channel": np.full(N_LATENT, index),
            }
            out += [
                Population(
                    name=f"error_0_{module}", kind=Error(tau=None), size=PATCH**2, level=0,
                    population="error", area="LGN", x=x, y=y, channel=np.full(PATCH**2, index),
                ),
                Population(
                    name=f"latent_1_{module}", kind=Latent(tau=self.tau,
                    prior=self.prior(self.alpha)), size=N_LATENT, level=1, population="latent",
                    area="V1", **own,
                ),
                Population(
                    name=f"error_1_{module}", kind=Error(tau=None), size=N_LATENT, level=1,
                    population="error", area="V1", **own,
                ),
            ]  # fmt: skip
        lower, upper, _ = self._curvatures()
        tau_top = self.tau * upper / lower if self.tau_top is None else self.tau_top
        top = Latent(tau=tau_top, prior=self.prior(self.top_alpha))
        zeros = np.zeros(N_TOP)
        out.append(
            Population(
                name="latent_2", kind=top, size=N_TOP, level=2, population="latent", area="V2",
                x=zeros, y=zeros,
            )
        )  # fmt: skip
        return tuple(out)

    @property
    def projections(self) -> tuple[Projection, ...]:
        """Predictions descend, errors ascend; each pair of weights is the other's transpose."""
        out = []
        for index, module in enumerate(MODULES):
            lower = self.weights[index]
            rows = slice(index * N_LATENT, (index + 1) * N_LATENT)
            upper = self.feedback_gain * self.top_weights[rows]
            error_0, latent, error_1 = (f"{p}_{module}" for p in ("error_0", "latent_1", "error_1"))
            pixels = np.zeros((PATCH**2, len(MODULES) * PATCH**2))
            pixels[:, index * PATCH**2 : (index + 1) * PATCH**2] = np.eye(PATCH**2)
            out += [
                Projection(source="stimulus", target=error_0, weights=pixels, port="observed"),
                Projection(source=latent, target=error_0, weights=lower, port="predicted"),
                Projection(
                    source=error_0, target=latent, weights=self.precision * lower.T,
                    port="ascending"
                ),
                Projection(source=latent, target=error_1, port="observed"),
                Projection(source="latent_2", target=error_1, weights=upper, port="predicted"),
                Projection(
                    source=error_1, target=latent, port="own_error", sign=self.top_precision
                ),
                Projection(
                    source=error_1, target="latent_2", weights=self.top_precision * upper.T,
                    port="ascending",
                ),
            ]  # fmt: skip
        return tuple(out)

    def prior(self, alpha: float) -> SparsePrior | GaussianPrior:
        """Return the prior of a level: kurtotic, or Gaussian of the same curvature at 0."""
        return SparsePrior(alpha) if self.sparse else GaussianPrior(precision=alpha)

    def positions(self, module: int) -> tuple[Any, Any]:
        """Return the positions of a module's pixels relative to the field's centre, degrees."""
        axis = np.arange(PATCH) - (PATCH - 1) / 2
        y, x = np.meshgrid(-axis, axis + (module - 1) * OFFSET, indexing="ij")
        return x.ravel() / self.px_per_deg, y.ravel() / self.px_per_deg

    def prepare(self, stimulus: xr.DataArray) -> Any:
        """Filter the image by a difference of Gaussians and window it: (trial, time, 768)."""
        images = self.input_gain * (Circuit.prepare(self, stimulus) - 0.5)
        filtered = images @ retina(self.field_shape)
        filtered = filtered.reshape(*images.shape[:2], PATCH, PATCH + 2 * OFFSET)
        window = gaussian_window((PATCH, PATCH), 4.8)
        starts = [index * OFFSET for index in range(len(MODULES))]
        patches = [filtered[..., start : start + PATCH] * window for start in starts]
        return np.stack(patches, axis=2).reshape(*images.shape[:2], -1)

    def untrained(self, *, seed: int) -> RaoBallard1999:
        """Return the same circuit with the random weights that training would start from."""
        weights, top_weights = random_weights(seed)
        return replace(self, weights=weights, top_weights=top_weights)

    def fit(self, stimulus: xr.DataArray, *, seed: int = 0) -> RaoBallard1999:
        """Learn both levels' weights from images, one batch of settled inputs at a time.

        The filtered images are scaled to unit variance at the window's centre, whatever their
        statistics, so that a circuit raised on noise learns at the same input power.
        """
        patches = self.prepare(stimulus).reshape(-1, len(MODULES), PATCH**2)
        window = gaussian_window((PATCH, PATCH), 4.8)
        patches = patches / np.sqrt((patches**2).mean() / (window**2).mean())
        rng = np.random.default_rng([seed, 1982])
        model = self.untrained(seed=seed)
        rate = self.learning_rate
        for chosen in np.array_split(rng.permutation(len(patches)), max(len(patches) // BATCH, 1)):
            model = model._learn(patches[chosen], rate)
            rate /= self.learning_decay ** (len(chosen) / DECAY_EVERY)
        return model

    def settle_patches(self, patches: Any, n_steps: int = INFERENCE_STEPS) -> tuple[Any, Any]:
        """Descend the free energy for windowed patches (trial, 3, 256): latents of levels 1 and 2.

        Accelerated gradient steps on both levels at once, each in units of its own curvature; what
        couples the levels raises the joint curvature to at most 1 + c.
        """
        hessian, n = self._quadratic(), len(self.top_weights)
        alpha = np.repeat([self.alpha, self.top_alpha], [n, N_TOP])
        lower, upper, coupling = self._curvatures()
        joint = 1.0 + coupling / np.sqrt(lower * upper)
        step = 1.0 / (joint * np.repeat([lower, upper], [n, N_TOP]))
        drive = np.zeros((len(patches), n + N_TOP))
        below = self.precision * patches.transpose(1, 0, 2) @ self.weights
        drive[:, :n] = below.transpose(1, 0, 2).reshape(len(patches), n)
        state = ahead = np.zeros_like(drive)
        speed = 1.0
        for _ in range(n_steps):
            moved = ahead + step * (drive - ahead @ hessian - alpha * self._shrink(ahead))
            faster = (1.0 + np.sqrt(1.0 + 4.0 * speed**2)) / 2.0
            ahead = moved + (speed - 1.0) / faster * (moved - state)
            state, speed = moved, faster
        return state[:, :n].reshape(-1, len(MODULES), N_LATENT), state[:, n:]

    def _curvatures(self) -> tuple[float, float, float]:
        """Return the largest curvature of the energy in each level, and of what couples them."""
        gram = self.precision * self.weights.transpose(0, 2, 1) @ self.weights
        lower = np.linalg.eigvalsh(gram).max() + self.top_precision + self.alpha
        upper = self.feedback_gain * self.top_weights
        spread = max(float(np.linalg.eigvalsh(upper @ upper.T)[-1]), 0.0)
        top = self.top_precision * spread + self.top_alpha
        return float(lower), top, self.top_precision * spread**0.5

    def _quadratic(self) -> Any:
        """Return the Hessian of the energy without its priors, over both levels: (224, 224)."""
        n = len(MODULES) * N_LATENT
        upper = self.feedback_gain * self.top_weights
        hessian = np.zeros((n + N_TOP, n + N_TOP))
        for module, one in enumerate(self.weights):
            here = slice(module * N_LATENT, (module + 1) * N_LATENT)
            hessian[here, here] = self.precision * one.T @ one
        hessian[range(n), range(n)] += self.top_precision
        hessian[:n, n:] = -self.top_precision * upper
        hessian[n:, :n] = hessian[:n, n:].T
        hessian[n:, n:] = self.top_precision * upper.T @ upper
        return hessian

    def _shrink(self, rate: Any) -> Any:
        return rate / (1.0 + rate**2) if self.sparse else rate

    def _learn(self, patches: Any, rate: float) -> RaoBallard1999:
        """Move both weights along error times rate, less the decay."""
        r, top = self.settle_patches(patches)
        below = patches.transpose(1, 0, 2) - r.transpose(1, 0, 2) @ self.weights.transpose(0, 2, 1)
        flat = r.reshape(len(r), -1)
        above = self.top_precision * (flat - self.feedback_gain * top @ self.top_weights.T)
        lower_step = self.precision * below.transpose(0, 2, 1) @ r.transpose(1, 0, 2) / len(r)
        upper_step = self.feedback_gain * above.T @ top / len(r)
        rates = r.transpose(1, 0, 2)
        # The largest eigenvalue of r' r / n is that of r r' / n, which is smaller.
        power = self.precision * np.linalg.eigvalsh(rates @ rates.transpose(0, 2, 1)) / len(r)
        top_power = self.top_precision * np.linalg.eigvalsh(top @ top.T)[-1] / len(r)
        lower = self.weights + rate / max(1.0, float(power.max())) * (
            lower_step - self.weight_decay * self.weights
        )
        upper = self.top_weights + rate / max(1.0, float(top_power)) * (
            upper_step - self.weight_decay * self.top_weights
        )
        return replace(self, weights=lower, top_weights=upper)


@cache
def retina(field_shape: tuple[int, int]) -> Any:
    """Return the difference of Gaussians as a matrix, (pixels of the field, 16 * 26)."""
    kernel = difference_of_gaussians(
        2 * MARGIN + 1, sigma_center=1.3, sigma_surround=2.08, weight=1.0
    )
    return filter_matrix(field_shape, kernel)


MODEL = RaoBallard1999()
