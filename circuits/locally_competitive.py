r"""Flat sparse coding by local competition: no hierarchy, no feedback (Rozell et al. 2008).

.. math:: \tau\,\dot u = \Phi^\top x - (\Phi^\top \Phi - I)\,a - u, \qquad a = S_\lambda(u)

settles at the minimum of :math:`\tfrac12 \lVert x - \Phi a \rVert^2 + \lambda \lVert a \rVert_1`
(Neural Comput. 20:2526); :math:`S_\lambda` is the soft threshold. Flat sparse coding shows several
non-classical effects by itself (Zhu & Rozell 2013, PLoS Comput. Biol. 9:e1003191), so a hierarchy
has to do better than this control. The dictionary is learned on natural images from the same
filtered input that `rao_ballard_1999` sees.
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
from pcsim.kinds import Leaky
from pcsim.nonlinearity import soft_threshold

__all__ = ["MODEL", "LocallyCompetitive"]

PATCH, MARGIN = (16, 26), 8
N_UNITS = 128
BATCH, DECAY_EVERY, INFERENCE_STEPS = 10, 40, 60


def random_dictionary(seed: int) -> Any:
    """Draw a dictionary (416, 128) of unit-norm atoms."""
    rng = np.random.default_rng([seed, 2008])
    atoms = rng.standard_normal((PATCH[0] * PATCH[1], N_UNITS))
    return atoms / np.linalg.norm(atoms, axis=0)


@dataclass(frozen=True, kw_only=True)
class LocallyCompetitive(Circuit):
    """Thresholded units that inhibit each other by the overlap of their receptive fields."""

    dictionary: Any = field(default_factory=lambda: random_dictionary(0))
    """(416, 128) atoms of unit norm."""
    threshold: float = 1.0
    """lambda, in standard deviations of the input at the window's centre."""
    input_gain: float = 47.7
    """Brings filtered natural input to unit variance at the window's centre."""
    tau: float = 0.01
    """Time constant, seconds."""
    learning_rate: float = 1.0
    learning_decay: float = 1.015
    dt: float = 0.001

    curriculum: ClassVar[str] = "patches"
    n_training: ClassVar[Mapping[str, int]] = {"quick": 12_000, "full": 12_000}
    """Images, after which the learning rate has fallen to about 1 % of its start."""

    @property
    def field_shape(self) -> tuple[int, int]:
        """Rows and columns of the visual field."""
        return PATCH[0] + 2 * MARGIN, PATCH[1] + 2 * MARGIN

    @property
    def px_per_deg(self) -> float:
        """Pixels per degree of visual angle."""
        return 16.0

    @property
    def populations(self) -> tuple[Population, ...]:
        """The competing units, at the centres of energy of their atoms."""
        energy = self.dictionary**2
        rows, columns = np.indices(PATCH).reshape(2, -1)
        x = (columns @ energy - (PATCH[1] - 1) / 2) / self.px_per_deg
        y = ((PATCH[0] - 1) / 2 - rows @ energy) / self.px_per_deg
        unit = Leaky(tau=self.tau, nonlinearity=soft_threshold(self.threshold))
        return (
            Population(
                name="latent", kind=unit, size=N_UNITS, level=1, population="latent", area="V1",
                x=x, y=y,
            ),
        )  # fmt: skip

    @property
    def projections(self) -> tuple[Projection, ...]:
        """Drive through the atoms, competition through their overlaps."""
        overlap = self.dictionary.T @ self.dictionary - np.eye(N_UNITS)
        return (
            Projection(source="stimulus", target="latent", weights=self.dictionary.T, port="drive"),
            Projection(source="latent", target="latent", weights=overlap, port="inhibition"),
        )

    def prepare(self, stimulus: xr.DataArray) -> Any:
        """Filter the image by a difference of Gaussians and window it: (trial, time, 416)."""
        return self.input_gain * (Circuit.prepare(self, stimulus) - 0.5) @ retina(self.field_shape)

    def untrained(self, *, seed: int) -> LocallyCompetitive:
        """Return the same circuit with the random dictionary that training would start from."""
        return replace(self, dictionary=random_dictionary(seed))

    def fit(self, stimulus: xr.DataArray, *, seed: int = 0) -> LocallyCompetitive:
        """Learn the dictionary from images: residual times activity, atoms kept at unit norm."""
        patches = self.prepare(stimulus).reshape(-1, PATCH[0] * PATCH[1])
        patches = patches / np.sqrt((patches**2).mean() / (patch_window() ** 2).mean())
        rng = np.random.default_rng([seed, 1982])
        atoms, rate = random_dictionary(seed), self.learning_rate
        for chosen in np.array_split(rng.permutation(len(patches)), max(len(patches) // BATCH, 1)):
            batch = patches[chosen]
            active = self.settle_patches(atoms, batch)
            power = np.linalg.norm(active, 2) ** 2 / len(batch)
            step = (batch - active @ atoms.T).T @ active / len(batch)
            atoms = atoms + rate / max(1.0, float(power)) * step
            atoms = atoms / np.linalg.norm(atoms, axis=0)
            rate /= self.learning_decay ** (len(chosen) / DECAY_EVERY)
        return replace(self, dictionary=atoms)

    def settle_patches(self, atoms: Any, patches: Any, n_steps: int = INFERENCE_STEPS) -> Any:
        """Minimise the sparse coding energy by accelerated proximal steps; (trial, 128)."""
        gram, drive = atoms.T @ atoms, patches @ atoms
        step = 1.0 / np.linalg.eigvalsh(gram)[-1]
        active = ahead = np.zeros_like(drive)
        momentum = 1.0
        for _ in range(n_steps):
            moved = ahead + step * (drive - ahead @ gram)
            new = np.sign(moved) * np.maximum(np.abs(moved) - step * self.threshold, 0.0)
            grown = (1.0 + np.sqrt(1.0 + 4.0 * momentum**2)) / 2.0
            ahead = new + (momentum - 1.0) / grown * (new - active)
            active, momentum = new, grown
        return active


def patch_window() -> Any:
    """Return the largest of the three windows of `rao_ballard_1999` at each pixel, (16, 26)."""
    column = gaussian_window((PATCH[0], PATCH[0]), 4.8)
    window = np.zeros(PATCH)
    for start in (0, 5, 10):
        window[:, start : start + PATCH[0]] = np.maximum(
            window[:, start : start + PATCH[0]], column
        )
    return window


@cache
def retina(field_shape: tuple[int, int]) -> Any:
    """Return the filter and the window as one matrix, (pixels of the field, 416)."""
    kernel = difference_of_gaussians(
        2 * MARGIN + 1, sigma_center=1.3, sigma_surround=2.08, weight=1.0
    )
    filtered = filter_matrix(field_shape, kernel)
    return filtered * patch_window().ravel()


MODEL = LocallyCompetitive()
