r"""The deep twin of the circuits of Bogacz (2017): the same hierarchy as a latent Gaussian model.

.. math:: p(x, z_1, \dots, z_L) = \prod_l N\left(z_l; g_l(W_l h_l(z_{l+1})), \Pi_l^{-1}\right)
    p(z_L), \qquad z_0 = x

No equation of the circuit is used: inference follows the gradient of the free energy by automatic
differentiation, with momentum. At rest it has the circuit's latents and weighted errors, which a
test holds to 1e-4. The precisions of the hierarchy are numbers or one a unit; what a full one
does through interneurons, independent levels of a latent Gaussian model cannot.

Bogacz (2017), A tutorial on the free-energy framework for modelling perception and learning,
J Math Psychol 76:198-211, https://doi.org/10.1016/j.jmp.2015.11.003
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import xarray as xr

from pcsim.catalog import load

if TYPE_CHECKING:
    from pcsim.deep.battery import DeepModel

__all__ = ["EQUIVALENT_TO", "MODEL", "Bogacz2017Deep"]

EQUIVALENT_TO = "bogacz_2017"
"""The rate circuit that rests where this model ends."""


@dataclass(frozen=True, kw_only=True)
class Bogacz2017Deep:
    """The circuit's hierarchy, inferred by MAP.

    Examples
    --------
    >>> import numpy as np
    >>> from pcsim.responses import select, stimulus_array
    >>> light = stimulus_array(np.full((1, 1, 1), 2.0), frame_duration=0.4)
    >>> size = select(MODEL.run(light), population="latent").rate
    >>> size.isel(time=-1).values.round(3).item()  # as in the tutorial, for light 2 and size 3
    1.567
    """

    circuit: Any = field(default_factory=lambda: load("circuits", EQUIVALENT_TO))
    """The circuit whose hierarchy it has."""
    n_iterations: int = 300
    """A frame, of its duration divided by this each."""
    step: float = 0.01
    """Of gradient ascent with momentum; lower it where precisions or weights are large."""

    @property
    def field_shape(self) -> tuple[int, int] | None:
        """(rows, columns) of the images it sees, if it sees images."""
        return self.circuit.field_shape  # type: ignore[no-any-return]

    @property
    def px_per_deg(self) -> float | None:
        """Pixels per degree of visual angle, if it sees images."""
        return self.circuit.px_per_deg  # type: ignore[no-any-return]

    @property
    def n_features(self) -> int:
        """Length of the input."""
        return self.circuit.n_features  # type: ignore[no-any-return]

    def run(
        self, stimulus: xr.DataArray, *, seed: int = 0, record: Sequence[str] | None = None
    ) -> xr.Dataset:
        """Return the responses to `stimulus`, each iteration a time."""
        return self.deep().run(stimulus, seed=seed, record=record)

    def deep(self) -> DeepModel:
        """Return the torch model of the hierarchy and the inference that fits it."""
        from pcsim.deep.battery import DeepModel
        from pcsim.deep.inference_gradient import GradientAscent
        from pcsim.deep.posteriors import Point
        from pcsim.deep.twins import twin_of

        return DeepModel(
            model=twin_of(self.circuit.hierarchy),
            inference=GradientAscent(optimiser="momentum", step=self.step, start=Point.at_prior),
            n_iterations=self.n_iterations,
            field_shape=self.field_shape,
            px_per_deg=self.px_per_deg,
        )


MODEL = Bogacz2017Deep()
