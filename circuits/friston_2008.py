r"""Generalized coordinates of motion: beliefs about position, velocity and so on (Friston 2008).

.. math:: \xi_x = \tilde\Pi_x(\tilde x - (1 \otimes C)\tilde\mu), \qquad
    \xi_z = \tilde\Pi_z(D\tilde\mu - (1 \otimes F)\tilde\mu), \qquad
    \tau\,\dot{\tilde\mu} = (1 \otimes C)^\top\xi_x - (D - 1 \otimes F)^\top\xi_z + \tau D\tilde\mu

Latents of every order are moved by those of the next (D) and descend the errors of what they
predict: of the input and its derivatives, and of their own motion. Noises are smooth, so that
derivatives carry information, and their precision follows from the noises' autocorrelation
:math:`\exp(-t^2/2s^2)` (`pcsim.inference_generalized` derives it). Coordinates are in units of s:
order k is :math:`s^k d^k/dt^k`, and the motion :math:`s^{k+1} d^{k+1}/dt^{k+1}`.

Order 1 without a prediction is the temporal difference: its second half weighs
:math:`s (x_t - x_{t-1})/\Delta`. The input's derivatives are taken from its last frames.

Friston (2008), Hierarchical models in the brain, PLoS Comput. Biol. 4:e1000211,
https://doi.org/10.1371/journal.pcbi.1000211. Embedding orders and smoothness of a few frames are
usual there; our own choice are the world (a damped rotation at 1 Hz, seen from three directions)
and all numbers. It takes features, not images: no visual entry of the battery applies.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import xarray as xr

from pcsim.circuit import Circuit, Population, Projection
from pcsim.inference_generalized import embed, generalized_precision, shift_matrix
from pcsim.kinds import Error, Latent

__all__ = ["MODEL", "Friston2008"]


def rotation() -> Any:
    """Return the flow (2, 2) of a rotation at 1 Hz that loses half in about 0.7 s, per second."""
    return np.array([[-1.0, -2 * np.pi], [2 * np.pi, -1.0]])


def directions() -> Any:
    """Return (3, 2) weights of inputs that look at the plane from three directions."""
    angle = np.arange(3) * np.pi / 3
    return np.stack([np.cos(angle), np.sin(angle)], axis=1)


@dataclass(frozen=True, kw_only=True)
class Friston2008(Circuit):
    """Errors of the input and of the motion, and the latents of all orders.

    Examples
    --------
    >>> [(population.name, population.size) for population in MODEL.populations]
    [('error_x', 12), ('error_z', 8), ('latent', 8)]
    """

    flow: Any = field(default_factory=rotation)
    """(n, n) F, per second."""
    weights: Any = field(default_factory=directions)
    """(m, n) top-down weights C."""
    precision: float | Any = 4.0
    """Inverse variance of the input given the state."""
    process_precision: float | Any = 0.7
    """Inverse variance of the noise on the motion (per second squared)."""
    order: int = 3
    """Highest derivative."""
    smoothness: float = 0.1
    """s of both noises, seconds."""
    feedback_gain: float = 1.0
    """Gain of the prediction of the input; 0 leaves the weighted input itself."""
    tau: float = 0.2
    """Time constant of the latents at precision 1, seconds; the inverse of kappa."""
    dt: float = 0.001

    @property
    def n_features(self) -> int:
        """Length of the input."""
        return int(self.weights.shape[0])

    @property
    def precisions(self) -> tuple[Any, Any]:
        """Of the generalized input and of the generalized motion, in units of s."""
        m, n = self.weights.shape
        motion = np.asarray(self.process_precision) / self.smoothness**2
        return (
            generalized_precision(self.precision, self.order, 1.0, m),
            generalized_precision(motion, self.order, 1.0, n),
        )

    @property
    def populations(self) -> tuple[Population, ...]:
        """Weighted errors of input and motion, and latents; `channel` is the order."""
        m, n = self.weights.shape
        one, two = (Error(tau=None, precision=precision) for precision in self.precisions)
        orders = np.arange(self.order + 1.0)
        return (
            Population(
                "error_x", one, m * (self.order + 1), 0, "weighted_error",
                channel=np.repeat(orders, m),
            ),
            Population(
                "error_z", two, n * (self.order + 1), 1, "weighted_error",
                channel=np.repeat(orders, n),
            ),
            Population(
                "latent", Latent(tau=self.tau), n * (self.order + 1), 1, "latent",
                channel=np.repeat(orders, n),
            ),
        )  # fmt: skip

    @property
    def projections(self) -> tuple[Projection, ...]:
        """Predictions of input and motion, their errors back, and the shift of the orders."""
        eye, n = np.eye(self.order + 1), self.weights.shape[1]
        shift = shift_matrix(self.order, n)
        flow = self.smoothness * np.kron(eye, self.flow)
        observe = np.kron(eye, self.weights)
        return (
            Projection("stimulus", "error_x", port="observed"),
            Projection("latent", "error_x", self.feedback_gain * observe, port="predicted"),
            Projection("latent", "error_z", shift, port="observed"),
            Projection("latent", "error_z", flow, port="predicted"),
            Projection("error_x", "latent", observe.T, port="ascending"),
            Projection("error_z", "latent", (shift - flow).T, port="own_error"),
            Projection("latent", "latent", self.tau / self.smoothness * shift, port="lateral"),
        )

    def prepare(self, stimulus: xr.DataArray) -> Any:
        """Return the input and its derivatives, in units of s: (trial, time, m (order + 1))."""
        step = float(stimulus["frame_duration"])
        derivatives = embed(Circuit.prepare(self, stimulus), self.order, step)
        units = self.smoothness ** np.arange(self.order + 1.0)
        return derivatives * np.repeat(units, self.n_features)


MODEL = Friston2008()
