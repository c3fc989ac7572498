r"""Bogacz (2017): the tutorial's predictive-coding circuits, from a single node to any hierarchy.

Level l is predicted from the level above and has one error node a unit; latent nodes descend the
free energy with nothing but what reaches them:

.. math:: \tau\dot\xi_l = \mu_l - g_l(W_l h_l(\mu_{l+1})) - \Sigma_l \xi_l, \qquad
    \tau\dot\mu_{l+1} = h_l'(\mu_{l+1}) \odot W_l^\top (g_l' \odot \xi_l) - \xi_{l+1}

with :math:`\mu_0` the input. At rest :math:`\xi_l` are the weighted errors and :math:`\mu` is the
MAP estimate. A scalar or diagonal :math:`\Sigma_l` is the inhibition of an error node by itself; a
full one runs through interneurons, :math:`\tau\dot e_l = \Sigma_l \xi_l - e_l`, which inhibit the
error nodes. A Gaussian prior is an error node too (its prediction is the prior mean, a constant
input); a sparse prior is a nonlinear leak of the latent node.

With equal time constants a linear circuit always comes to rest, but one with curved predictions may
ring for ever, because its errors come too late to stop it. Error nodes and interneurons that are 20
times faster than the latent nodes make them descend the free energy.

Bogacz (2017), A tutorial on the free-energy framework for modelling perception and learning,
J Math Psychol 76:198-211, https://doi.org/10.1016/j.jmp.2015.11.003
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from pcsim.circuit import Circuit, Hebbian, Population, Projection
from pcsim.hierarchy import Flat, GaussianPrior, Hierarchy, Level
from pcsim.kinds import Error, Latent, Leaky, Prediction
from pcsim.nonlinearity import linear, square

__all__ = ["MODEL", "Bogacz2017"]


def food_size() -> Hierarchy:
    """Return the tutorial's example: light grows with the square of a size expected to be 3."""
    level = Level(np.array([[1.0]]), precision=1.0, inner=square)
    return Hierarchy((level,), (GaussianPrior(mean=3.0, precision=1.0),))


@dataclass(frozen=True, kw_only=True)
class Bogacz2017(Circuit):
    """Error nodes compare, latent nodes estimate, interneurons carry the covariances.

    Examples
    --------
    >>> from pcsim.circuit import settle
    >>> from pcsim.responses import select, stimulus_array
    >>> light = stimulus_array(np.full((1, 1, 1), 2.0), frame_duration=0.4)
    >>> select(settle(MODEL, light), population="latent").rate.values.round(3).item()
    1.567
    """

    hierarchy: Hierarchy = field(default_factory=food_size)
    """Weights, precisions, nonlinearities and priors; the tutorial's single node by default."""
    tau: float = 0.02
    """Time constant of the latent nodes, seconds."""
    tau_error: float | None = None
    """Of the error nodes; None: that of the latent nodes, as in the tutorial."""
    tau_interneuron: float | None = None
    """Of the interneurons; None: that of the error nodes."""
    integrator: str = "rk4"
    """Nodes ring before they rest; fourth order keeps that ringing damped at the same `dt`."""
    feedback_gain: float = 1.0
    """Strength with which predictions reach the error nodes; 0 cuts the feedback."""
    learning_rate: float = 0.0
    """Of the local rule on the weights, per second; `pcsim.circuit.simulate_plastic` applies it."""
    field_shape: tuple[int, int] | None = None
    """(rows, columns) if the input is an image."""
    px_per_deg: float | None = None
    """Pixels per degree if the input is an image."""

    @property
    def populations(self) -> tuple[Population, ...]:
        model, listed = self.hierarchy, []
        for below, level in enumerate(model.levels):
            prediction = Prediction(outer=level.outer)
            listed += self._error_nodes(f"xi_{below}", below, level.n_below, level.precision)
            listed.append(
                Population(f"prediction_{below}", prediction, level.n_below, below, "prediction")
            )
        for above, (level, prior) in enumerate(zip(model.levels, model.priors, strict=True), 1):
            leak = Flat() if isinstance(prior, GaussianPrior) else prior
            latent = Latent(self.tau, inner=level.inner, prior=leak)
            listed.append(Population(f"mu_{above}", latent, level.n_above, above, "latent"))
            if isinstance(prior, GaussianPrior):
                name = f"prior_{above}"
                listed += self._error_nodes(name, above, level.n_above, prior.precision)
        return tuple(listed)

    def _error_nodes(
        self, name: str, level: int, size: int, precision: float | NDArray[np.float64]
    ) -> list[Population]:
        full = np.ndim(precision) == 2
        tau = self.tau if self.tau_error is None else self.tau_error
        error = Error(tau, variance=0.0 if full else 1.0 / np.asarray(precision))
        nodes = [Population(name, error, size, level, "weighted_error")]
        if full:
            interneuron = Leaky(tau if self.tau_interneuron is None else self.tau_interneuron)
            nodes.append(Population(f"{name}_int", interneuron, size, level, "interneuron"))
        return nodes

    @property
    def projections(self) -> tuple[Projection, ...]:
        model, listed = self.hierarchy, []
        for below, level in enumerate(model.levels):
            listed += self._compare(f"xi_{below}", below, level.precision)
            listed += self._predict(below, level)
        start = model.sizes[0]
        for above, prior in enumerate(model.priors, 1):
            if isinstance(prior, GaussianPrior):
                listed += self._compare(f"prior_{above}", above, prior.precision)
                mean = self._from_stimulus(start, model.sizes[above])
                listed.append(Projection("stimulus", f"prior_{above}", mean, port="predicted"))
                start += model.sizes[above]
        return tuple(listed)

    def _from_stimulus(self, start: int, size: int) -> NDArray[np.float64]:
        """Return the matrix that picks `size` of the prepared features."""
        return np.eye(size, self.hierarchy.sizes[0] + self._means.size, k=start)

    def _compare(
        self, xi: str, level: int, precision: float | NDArray[np.float64]
    ) -> list[Projection]:
        """Connect error nodes to what they observe and, if latent, to what they correct."""
        if level == 0:
            weights = self._from_stimulus(0, self.hierarchy.sizes[0])
            listed = [Projection("stimulus", xi, weights, port="observed")]
        else:
            mu = f"mu_{level}"
            listed = [
                Projection(mu, xi, port="observed", reads="rate"),
                Projection(xi, mu, port="own_error"),
            ]
        if np.ndim(precision) == 2:
            covariance = np.linalg.inv(np.asarray(precision))
            listed += [
                Projection(xi, f"{xi}_int", covariance, port="drive"),
                Projection(f"{xi}_int", xi, port="inhibition"),
            ]
        return listed

    def _predict(self, below: int, level: Level) -> list[Projection]:
        mu, xi, prediction = f"mu_{below + 1}", f"xi_{below}", f"prediction_{below}"
        rate, gate = self.learning_rate, None if level.outer == linear else prediction
        down = Hebbian(rate, error=xi) if rate else None
        up = Hebbian(rate) if rate else None
        gain, weights = self.feedback_gain, np.asarray(level.weights)
        return [
            Projection(mu, prediction, weights, plastic=down),
            Projection(prediction, xi, port="predicted", sign=gain),
            Projection(xi, mu, weights.T, port="ascending", gate=gate, plastic=up),
        ]

    @property
    def _means(self) -> NDArray[np.float64]:
        """Return the means of the Gaussian priors, one after the other."""
        means = [
            np.broadcast_to(prior.mean, size)
            for prior, size in zip(self.hierarchy.priors, self.hierarchy.sizes[1:], strict=True)
            if isinstance(prior, GaussianPrior)
        ]
        return np.concatenate([np.zeros(0), *means])

    @property
    def n_features(self) -> int:
        """Length of the input; what the stimulus needs to have."""
        return self.hierarchy.sizes[0]

    def prepare(self, stimulus: xr.DataArray) -> NDArray[np.float64]:
        """Return the input, flattened, followed by the prior means as constant inputs."""
        values = stimulus.values.reshape(stimulus.sizes["trial"], stimulus.sizes["time"], -1)
        shape = (*values.shape[:2], self._means.size)
        return np.concatenate([values, np.broadcast_to(self._means, shape)], axis=-1)


MODEL = Bogacz2017()
