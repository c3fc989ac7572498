r"""The deep twin of `rao_ballard_1999`: its generative model on torch, inferred by autograd.

Three levels: the three windowed patches (768), latents of three modules (96) and of the top (128),

.. math:: p(x, r, r_h) = N(x; U r, \Pi_0^{-1})\, N(r; \gamma U_h r_h, \Pi_1^{-1})\,
    e^{-\alpha_1 \sum \log(1 + r^2) / 2 - \alpha_2 \sum \log(1 + r_h^2) / 2}

with U block-diagonal. No equation of the circuit is used: inference follows the gradient of the
free energy by automatic differentiation, with momentum. At rest it has the circuit's latents and
errors, which a test holds to 1e-4.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import xarray as xr

from pcsim.catalog import load
from pcsim.responses import check_stimulus

if TYPE_CHECKING:
    from pcsim.deep.battery import DeepModel

__all__ = ["EQUIVALENT_TO", "MODEL", "RaoBallard1999Deep"]

EQUIVALENT_TO = "rao_ballard_1999"
"""The rate circuit that rests where this model ends."""


@dataclass(frozen=True, kw_only=True)
class RaoBallard1999Deep:
    """A hierarchy of linear decoders with the circuit's weights, inferred by MAP."""

    circuit: Any = field(default_factory=lambda: load("circuits", EQUIVALENT_TO))
    """The circuit whose weights, precisions and priors it has; it also filters the image."""
    n_iterations: int = 100
    """A frame, of its duration divided by this each; random weights need 200 to rest to 1e-4."""

    curriculum: ClassVar[str] = "patches"

    @property
    def n_training(self) -> Mapping[str, int]:
        """Number of images it learns from, those of the circuit."""
        return self.circuit.n_training  # type: ignore[no-any-return]

    @property
    def field_shape(self) -> tuple[int, int]:
        """(rows, columns) of the images it sees, pixels."""
        return self.circuit.field_shape  # type: ignore[no-any-return]

    @property
    def px_per_deg(self) -> float:
        """Pixels per degree of visual angle."""
        return self.circuit.px_per_deg  # type: ignore[no-any-return]

    def untrained(self, *, seed: int) -> RaoBallard1999Deep:
        """Return the twin of the untrained circuit."""
        return replace(self, circuit=self.circuit.untrained(seed=seed))

    def fit(self, stimulus: xr.DataArray, *, seed: int = 0) -> RaoBallard1999Deep:
        """Return the twin of the circuit that learned from these images."""
        return replace(self, circuit=self.circuit.fit(stimulus, seed=seed))

    def run(
        self, stimulus: xr.DataArray, *, seed: int = 0, record: Sequence[str] | None = None
    ) -> xr.Dataset:
        """Return the responses to `stimulus`, each iteration a time."""
        check_stimulus(stimulus, "RaoBallard1999Deep")
        features = self.prepare(stimulus)
        return self.deep().respond(features, stimulus, seed=seed, record=record)

    def prepare(self, stimulus: xr.DataArray) -> Any:
        """Return the features that the circuit sees, (trial, time, 768)."""
        return self.circuit.prepare(stimulus)

    def deep(self) -> DeepModel:
        """Return the torch model with the circuit's weights and the inference that fits it."""
        from pcsim.deep.battery import DeepModel
        from pcsim.deep.inference_gradient import GradientAscent
        from pcsim.deep.posteriors import Point
        from pcsim.deep.twins import twin_of
        from pcsim.hierarchy import Hierarchy, Level

        own = self.circuit
        lower, upper = _blocks(own.weights), own.feedback_gain * own.top_weights
        levels = Level(lower, own.precision), Level(upper, own.top_precision)
        priors = own.prior(own.alpha), own.prior(own.top_alpha)
        inference = GradientAscent(
            optimiser="momentum", step=1.0 / self._curvature(lower, upper), start=Point.at_prior
        )
        return DeepModel(
            model=twin_of(Hierarchy(levels, priors)),
            inference=inference,
            n_iterations=self.n_iterations,
            field_shape=self.field_shape,
            px_per_deg=self.px_per_deg,
            labels=self._labels(),
        )

    def _curvature(self, lower: Any, upper: Any) -> float:
        """Bound the curvature of the free energy: the sum of the bounds of its terms."""
        own = self.circuit
        below = own.precision * np.linalg.norm(lower, 2) ** 2
        above = own.top_precision * (1.0 + np.linalg.norm(upper, 2) ** 2)
        return float(below + above + max(own.alpha, own.top_alpha))

    def _labels(self) -> dict[str, dict[str, Any]]:
        """Positions and areas of the circuit's populations, module by module."""
        found: dict[str, dict[str, Any]] = {}
        places = [p for p in self.circuit.populations if p.population in ("error", "latent")]
        for level in (0, 1, 2):
            here = [p for p in places if p.level == level]
            role = here[0].population if level != 1 else "error"
            here = [p for p in here if p.population == role]
            labels = {
                "area": here[0].area,
                "x": np.concatenate([p.x for p in here]),
                "y": np.concatenate([p.y for p in here]),
            }
            if level < 2:
                labels["channel"] = np.concatenate([p.channel for p in here])
            for name in ("latent", "error", "weighted_error", "prediction")[level == 0 :]:
                found[f"{name}_{level}"] = labels
        return found


def _blocks(weights: Any) -> Any:
    """(3, 256, 32) weights of the modules as one block-diagonal matrix (768, 96)."""
    n_modules, n_x, n_z = weights.shape
    blocks = np.zeros((n_modules, n_x, n_modules, n_z))
    blocks[range(n_modules), :, range(n_modules)] = weights
    return blocks.reshape(n_modules * n_x, n_modules * n_z)


MODEL = RaoBallard1999Deep()
