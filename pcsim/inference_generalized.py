r"""Generalized filtering: belief about a state, its velocity, its acceleration ... at once.

.. math:: \dot z = F z + w, \qquad x = C z + v,

with noises that are smooth, of autocorrelation :math:`\rho(t) = \exp(-t^2/2s^2)`. Then derivatives
exist and predict one another: with :math:`\tilde z = (z, z', z'', \ldots)` to a chosen order p,

.. math:: \tilde x = (1 \otimes C)\,\tilde z + \tilde v, \qquad
    D\tilde z = (1 \otimes F)\,\tilde z + \tilde w, \qquad
    \dot{\tilde\mu} = D\tilde\mu - \kappa\,\partial F/\partial\tilde\mu

where D shifts every derivative into the place of the one below. The covariance of the derivatives
of a noise follows from :math:`\mathrm{cov}(v^{(i)}(t), v^{(j)}(u)) =
\partial_t^i \partial_u^j \rho(t - u) = (-1)^j \rho^{(i+j)}(t - u)`, and
:math:`\rho^{(2k)}(0) = (-1)^k (2k-1)!!/s^{2k}` (the moments of a Gaussian), so that

.. math:: R_{ij} = (-1)^{(i-j)/2}\,(i+j-1)!!\,/\,s^{i+j} \quad (i + j \text{ even}), \qquad 0
    \text{ otherwise},

and the precision of a generalized noise is :math:`R^{-1} \otimes \Pi`. Order 0 knows no motion;
order 1 compares velocities, of which the temporal difference of frames is the special case; in the
limit of white noise, s to 0, only the data themselves keep their precision, and for a random walk
with :math:`\kappa` the posterior covariance the flow is the Kalman-Bucy filter. Generalized vectors
list all features of order 0, then of order 1 and so on. NumPy arrays.

Friston (2008), Hierarchical models in the brain, https://doi.org/10.1371/journal.pcbi.1000211;
Friston, Stephan, Li and Daunizeau (2010), https://doi.org/10.1155/2010/621670
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pcsim.arrays import Array
from pcsim.messages import check_array, check_integer, check_number, refusal
from pcsim.priors import check_precision, precision_matrix

__all__ = [
    "GeneralizedModel",
    "embed",
    "generalized_filter",
    "generalized_precision",
    "shift_matrix",
    "smooth_covariance",
]

Floats = NDArray[np.float64]


def shift_matrix(order: int, n: int = 1) -> Floats:
    """Return D, which puts every derivative of n features in the place of the one below.

    Examples
    --------
    >>> shift_matrix(2) @ np.array([4.0, 0.7, -2.0])
    array([ 0.7, -2. ,  0. ])
    """
    check_integer("shift_matrix", "order", order)
    return np.asarray(np.kron(np.eye(order + 1, k=1), np.eye(n)))


def smooth_covariance(order: int, smoothness: float) -> Floats:
    r"""Return the covariance R of a noise of unit variance and its derivatives up to `order`.

    Parameters
    ----------
    order
        Highest derivative.
    smoothness
        s, the standard deviation of the Gaussian autocorrelation, seconds.

    Examples
    --------
    >>> smooth_covariance(2, 0.5)
    array([[ 1.,  0., -4.],
           [ 0.,  4.,  0.],
           [-4.,  0., 48.]])
    """
    check_integer("smooth_covariance", "order", order)
    check_number("smooth_covariance", "smoothness", smoothness, positive=True)
    covariance = np.zeros((order + 1, order + 1))
    for i in range(order + 1):
        for j in range(i % 2, order + 1, 2):
            odd_numbers = range(1, i + j, 2)
            covariance[i, j] = (-1) ** ((i - j) // 2) * math.prod(odd_numbers)
            covariance[i, j] /= smoothness ** (i + j)
    return covariance


def generalized_precision(
    precision: float | Array, order: int, smoothness: float, n: int
) -> Floats:
    """Return the precision of n noises and their derivatives, (n (order + 1), n (order + 1)).

    Examples
    --------
    >>> generalized_precision(4.0, 1, 0.5, 1)
    array([[4., 0.],
           [0., 1.]])
    """
    check_precision("generalized_precision", "precision", precision, n)
    inverse = np.linalg.inv(smooth_covariance(order, smoothness))
    matrix = precision_matrix(precision, n, np.zeros(n))
    return np.asarray(np.kron(0.5 * (inverse + inverse.T), matrix))


def embed(x: Array, order: int, step: float) -> Floats:
    """Return frames with their derivatives, from the last ``order + 1`` frames.

    The polynomial through these frames is differentiated at the last one: exact for polynomials up
    to `order`. Order 1 is the difference to the frame before, over the step. Before the first
    frame, its value is repeated.

    Parameters
    ----------
    x : (..., time, m)
    order
        Highest derivative.
    step
        Seconds between frames.

    Returns
    -------
    generalized : (..., time, (order + 1) m)

    Examples
    --------
    >>> embed(np.array([[1.0], [1.0], [4.0]]), 1, step=0.5)
    array([[1., 0.],
           [1., 0.],
           [4., 6.]])
    """
    x = check_array("embed", "x", x, shape=(..., None, None))
    check_integer("embed", "order", order)
    check_number("embed", "step", step, positive=True)
    back = -step * np.arange(order + 1)
    powers = np.arange(order + 1)
    # Taylor: x(t - k step) = sum_j (-k step)^j / j! x^(j)(t).
    taylor = back[:, None] ** powers / [math.factorial(int(j)) for j in powers]
    ahead = np.repeat(x[..., :1, :], order, axis=-2)
    padded, n_times = np.concatenate([ahead, x], axis=-2), x.shape[-2]
    past = [padded[..., order - k : order - k + n_times, :] for k in range(order + 1)]
    derivatives = np.einsum("jk,k...m->...jm", np.linalg.inv(taylor), np.stack(past))
    return np.asarray(derivatives.reshape(*x.shape[:-1], -1))


@dataclass(frozen=True, eq=False)
class GeneralizedModel:
    """A linear world with smooth noises, in generalized coordinates.

    Parameters
    ----------
    flow : (n, n)
        F, per second.
    weights : (m, n)
        C, top-down.
    precision : number, (m,) or (m, m)
        Inverse variance of the observation noise.
    process_precision : number, (n,) or (n, n)
        Inverse variance of the noise on the motion of the state (per second squared).
    order
        Highest derivative.
    smoothness, process_smoothness
        Standard deviations of both autocorrelations, seconds; the second is the first if None.

    Examples
    --------
    >>> model = GeneralizedModel(np.array([[-0.7]]), np.array([[2.0]]), 4.0, 0.7, order=1)
    >>> mu = np.array([1.0, -0.7])
    >>> bool(abs(model.gradient(np.array([2.0, -1.4]), mu)[0]) < 1e-12)
    True
    """

    flow: Array
    weights: Array
    precision: float | Array = 1.0
    process_precision: float | Array = 1.0
    order: int = 2
    smoothness: float = 0.5
    process_smoothness: float | None = None

    def __post_init__(self) -> None:
        where = "GeneralizedModel"
        check_integer(where, "order", self.order)
        object.__setattr__(self, "flow", check_array(where, "flow", self.flow, shape=("n", "n")))
        shape = (None, len(self.flow))
        weights = check_array(where, "weights (observed, state)", self.weights, shape=shape)
        object.__setattr__(self, "weights", weights)
        check_precision(where, "precision", self.precision, len(weights))
        check_precision(where, "process_precision", self.process_precision, len(self.flow))

    @property
    def shift(self) -> Floats:
        """D of the state."""
        return shift_matrix(self.order, len(self.flow))

    @property
    def observe(self) -> Floats:
        """1 (x) C: what the generalized state predicts of the generalized observation."""
        return np.asarray(np.kron(np.eye(self.order + 1), self.weights))

    @property
    def unexplained(self) -> Floats:
        """D - 1 (x) F: the motion of the generalized state that the flow does not explain."""
        return self.shift - np.asarray(np.kron(np.eye(self.order + 1), self.flow))

    @property
    def precisions(self) -> tuple[Floats, Floats]:
        """Of the generalized observation and of the generalized motion."""
        slow = self.smoothness if self.process_smoothness is None else self.process_smoothness
        m, n = self.weights.shape
        return (
            generalized_precision(self.precision, self.order, self.smoothness, m),
            generalized_precision(self.process_precision, self.order, slow, n),
        )

    def errors(self, x: Array, mu: Array) -> tuple[Floats, Floats]:
        """Return the errors of generalized observations (..., M) and of the motion (..., N)."""
        return x - mu @ self.observe.T, mu @ self.unexplained.T

    def free_energy(self, x: Array, mu: Array) -> Floats:
        """Return the free energy (...,) at generalized data and belief, nats."""
        total: Any = 0.0
        for error, precision in zip(self.errors(x, mu), self.precisions, strict=True):
            _, log_det = np.linalg.slogdet(precision / (2 * math.pi))
            total = total + 0.5 * ((error @ precision) * error).sum(axis=-1) - 0.5 * log_det
        return np.asarray(total)

    def gradient(self, x: Array, mu: Array) -> Floats:
        """Return the derivative of the free energy by the belief, (..., N)."""
        (seen, moved), (one, two) = self.errors(x, mu), self.precisions
        return np.asarray(moved @ two @ self.unexplained - seen @ one @ self.observe)

    def curvature(self) -> Floats:
        """Return the second derivative of the free energy, (N, N)."""
        one, two = self.precisions
        seen = self.observe.T @ one @ self.observe
        return np.asarray(seen + self.unexplained.T @ two @ self.unexplained)


def generalized_filter(
    model: GeneralizedModel,
    x: Array,
    *,
    step: float,
    rate: float | Array = 1.0,
    hold: bool = False,
) -> Floats:
    r"""Follow :math:`\dot{\tilde\mu} = D\tilde\mu - \kappa\,\partial F/\partial\tilde\mu`.

    Every step is integrated exactly, by the exponential of the linear flow of belief and data
    together.

    Parameters
    ----------
    model
        The world.
    x : (..., time, M)
        Generalized observations, from `embed` or known derivatives, each at the start of a step.
    step
        Seconds between them.
    rate : number, (N,) or (N, N)
        :math:`\kappa`, per second and unit of precision.
    hold
        Whether the data stand still within a step; otherwise they move by their own derivatives.

    Returns
    -------
    mu : (..., time, N)
        Belief at the end of each step, from 0.

    Raises
    ------
    ValueError
        If the data do not have ``order + 1`` times the observed features.

    Examples
    --------
    >>> model = GeneralizedModel(np.zeros((1, 1)), np.eye(1), 4.0, 0.01, order=1)
    >>> ramp = np.stack([0.1 * np.arange(400.0), np.ones(400)], axis=1)
    >>> generalized_filter(model, ramp, step=0.1, rate=4.0)[-1].round(1)
    array([40.,  1.])
    """
    where = "generalized_filter"
    wide, size = len(model.observe), len(model.shift)
    x = check_array(where, "x", x)
    if x.ndim < 2 or x.shape[-1] != wide:
        expected = f"(..., time, {wide}): order + 1 times the observed features"
        advice = "Use embed(x, order, step)."
        raise ValueError(refusal(where, f"x of shape {x.shape}", expected, advice))
    check_number(where, "step", step, positive=True)
    # Here: scipy.linalg is not needed to import this room.
    from scipy.linalg import expm

    rates = np.asarray(rate) * np.eye(size) if np.ndim(rate) < 2 else np.asarray(rate)
    pull = rates @ model.observe.T @ model.precisions[0]
    motion = np.zeros((wide, wide)) if hold else shift_matrix(model.order, len(model.weights))
    joint = np.block(
        [[model.shift - rates @ model.curvature(), pull], [np.zeros((wide, size)), motion]]
    )
    onward = expm(step * joint)[:size]
    mu = np.zeros((*x.shape[:-2], size))
    kept = []
    for t in range(x.shape[-2]):
        mu = mu @ onward[:, :size].T + x[..., t, :] @ onward[:, size:].T
        kept.append(mu)
    return np.stack(kept, axis=-2)
