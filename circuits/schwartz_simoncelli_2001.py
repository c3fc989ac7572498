r"""Divisive normalization with weights learned from natural images.

Linear filters :math:`L_i = g\,f_i^\top x` of natural images are hardly correlated, yet their sizes
are dependent: the variance of one grows with the energy of its neighbours. Each squared response is
divided by the variance that its neighbours predict:

.. math:: R_i = \frac{\lfloor L_i \rfloor_+^2}{\sigma_i^2 + \sum_{j \ne i} w_{ij} L_j^2}, \qquad
    (\sigma_i^2, w_{i\cdot}) = \arg\min_{\ge 0} \Bigl\langle \log v_i + \frac{L_i^2}{v_i}
    \Bigr\rangle,\quad v_i = \sigma_i^2 + \sum_{j \ne i} w_{ij} L_j^2

(maximum likelihood of a Gaussian :math:`p(L_i \mid L_j)` of variance :math:`v_i`). Where lateral
inhibition in the retina subtracts the mean that neighbours predict, this divides by the predicted
scale: its nonlinear generalisation.

Predicts H16: normalized responses are less dependent than the filters; linear whitening cannot do
so, and images with scrambled phases have nothing to remove.

Schwartz & Simoncelli (2001, Nat. Neurosci. 4:819): rectified squared filters, weights nonnegative
and learned by maximum likelihood, no unit in its own pool. Own choices: instead of a steerable
pyramid quadrature pairs of Gabor filters at 4 orientations, 9 places 4 px apart at a wavelength of
6 px and one at 12 px; one half-wave each; constants of at least a thousandth of a filter's variance
(fits end there, as natural images have flat regions); a time constant that is `tau` without
contrast and falls as the divisor grows.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import numpy as np
import scipy.optimize
import xarray as xr

from pcsim.circuit import Population, Projection
from pcsim.circuit_filter_bank import FIELD, PX_PER_DEG, FilterBankCircuit
from pcsim.filters import gabor
from pcsim.kinds import DivisiveNormalization, Leaky

__all__ = ["MODEL", "SchwartzSimoncelli2001"]

N_FILTERS = 80
WAVELENGTHS = ((6.0, (-4.0, 0.0, 4.0)), (12.0, (0.0,)))
"""Pixels, and the places along both axes at each."""
SIGMA = 0.42
"""Of the envelope, in wavelengths: a bandwidth of 1.4 octaves."""
FLOOR = 1e-3
"""Least constant of a divisor, in shares of the variance of the filter."""


def bank(seed: int) -> tuple[Any, Any]:
    """Return filters (80, 1344) turned by a random angle, and their places (80, 2), degrees."""
    turn = np.random.default_rng([seed, 2001]).uniform(0.0, np.pi / 4)
    filters, places = [], []
    for wavelength, lattice in WAVELENGTHS:
        for x, y in ((x, y) for y in lattice for x in lattice):
            for k in range(8):
                shape = {"x": x, "y": y, "sigma": SIGMA * wavelength, "aspect": 1.0}
                tuned = {"orientation": turn + (k // 2) * np.pi / 4, "phase": (k % 2) * np.pi / 2}
                wave = gabor(FIELD, frequency=1.0 / wavelength, **shape, **tuned)
                envelope = gabor(FIELD, frequency=0.0, orientation=0.0, phase=0.0, **shape)
                wave = wave - envelope * (wave.sum() / envelope.sum())
                filters.append(wave.ravel() / np.linalg.norm(wave))
                places.append((x / PX_PER_DEG, y / PX_PER_DEG))
    return np.stack(filters), np.array(places)


@dataclass(frozen=True, kw_only=True)
class SchwartzSimoncelli2001(FilterBankCircuit):
    """Filters' energies, and the units that the filters drive and the energies divide."""

    filters: Any = field(default_factory=lambda: bank(0)[0])
    """(80, 1344) receptive fields, unit norm and zero mean."""
    places: Any = field(default_factory=lambda: bank(0)[1])
    """(80, 2) centres x, y, degrees."""
    pool: Any = field(default_factory=lambda: np.zeros((N_FILTERS, N_FILTERS)))
    """(80, 80) weights w of the energies in each divisor, learned; the diagonal is 0."""
    constant: Any = field(default_factory=lambda: np.ones(N_FILTERS))
    """(80,) constants sigma squared of the divisors, learned."""
    normalization: float = 1.0
    """Factor on the pool; 0 leaves squared filters."""

    n_training: ClassVar[Mapping[str, int]] = {"quick": 4000, "full": 20_000}

    @property
    def populations(self) -> tuple[Population, ...]:
        """Energies and normalized outputs, at the same places."""
        x, y = self.places.T
        place: dict[str, Any] = {"size": len(x), "x": x, "y": y, "level": 1, "area": "V1"}
        output = DivisiveNormalization(
            tau=self.tau * self.constant, semisaturation=np.sqrt(self.constant), exponent=2.0
        )
        energy = Leaky(tau=self.tau, nonlinearity="square")
        return (
            Population(name="energy", kind=energy, population="interneuron", **place),
            Population(name="output", kind=output, population="output", **place),
        )

    @property
    def projections(self) -> tuple[Projection, ...]:
        """Stimulus to energies and outputs through the filters; energies divide the outputs."""
        weights = self.gain * self.filters
        pool = self.normalization * self.pool
        return (
            Projection(source="stimulus", target="energy", weights=weights, port="drive"),
            Projection(source="stimulus", target="output", weights=weights, port="drive"),
            Projection(source="energy", target="output", weights=pool, port="pool"),
        )

    def untrained(self, *, seed: int) -> SchwartzSimoncelli2001:
        """Return another draw of the bank, without pools."""
        filters, places = bank(seed)
        n = len(filters)
        start: dict[str, Any] = {"pool": np.zeros((n, n)), "constant": np.ones(n)}
        return replace(self, filters=filters, places=places, gain=1.0, **start)

    def fit(self, stimulus: xr.DataArray, *, seed: int = 0) -> SchwartzSimoncelli2001:
        """Draw a bank, set its gain, and learn every unit's pool by maximum likelihood."""
        model = FilterBankCircuit.fit(self, stimulus, seed=seed)
        drive = model.gain * model.prepare(stimulus) @ model.filters.T
        energy = drive.reshape(-1, len(model.filters)) ** 2
        pool, constant = np.zeros_like(model.pool), np.ones_like(model.constant)
        for i in range(len(pool)):
            others = np.arange(len(pool)) != i
            constant[i], pool[i, others] = conditional_variance(energy[:, i], energy[:, others])
        return replace(model, pool=pool, constant=constant)


def conditional_variance(energy: Any, others: Any) -> tuple[float, Any]:
    """Return the constant and the weights (m,) of the variance that neighbours predict.

    Parameters
    ----------
    energy : (n,)
        Squares of the responses whose variance is modelled.
    others : (n, m)
        Squares of the neighbours' responses.
    """
    scale = float(energy.mean())
    inputs = np.column_stack([np.ones(len(energy)), others / others.mean(axis=0)])
    target = energy / scale
    start = np.full(inputs.shape[1], 0.5 / (inputs.shape[1] - 1))
    start[0] = 0.5
    bounds = [(FLOOR, None)] + [(0.0, None)] * (inputs.shape[1] - 1)
    found = scipy.optimize.minimize(
        deviance, start, args=(inputs, target), jac=True, bounds=bounds, method="L-BFGS-B",
        options={"maxiter": 200},
    )  # fmt: skip
    weights = scale * found.x
    return float(weights[0]), weights[1:] / others.mean(axis=0)


def deviance(weights: Any, inputs: Any, target: Any) -> tuple[float, Any]:
    """Return the mean of log v + target / v with v = inputs @ weights, and its gradient."""
    variance = inputs @ weights
    value = float((np.log(variance) + target / variance).mean())
    slope = (1.0 - target / variance) / variance
    return value, slope @ inputs / len(target)


MODEL = SchwartzSimoncelli2001()
