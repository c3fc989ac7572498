r"""The Kalman filter: exact inference of a linear Gaussian state that moves in time.

.. math:: z_t = A z_{t-1} + w_t, \qquad x_t = C z_t + v_t, \qquad
    w \sim N(0, \Pi_w^{-1}), \quad v \sim N(0, \Pi_x^{-1})

Predict with the transition A, compare, and correct by the error of the prediction times the gain.
Arrays of any library of the Array API standard; signals are (..., time, feature), and because the
precisions of a linear model do not depend on the data, covariances are (time, n, n) for all trials.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from array_api_compat import array_namespace

from pcsim.arrays import Array, as_array, as_float, constant, one_namespace
from pcsim.messages import refusal
from pcsim.priors import check_precision, precision_matrix

__all__ = [
    "KalmanEstimate",
    "StateSpace",
    "SteadyState",
    "kalman_bucy",
    "kalman_filter",
    "kalman_smoother",
    "predict",
    "steady_state",
    "update",
]


@dataclass(frozen=True, eq=False)
class StateSpace:
    """A linear Gaussian state space model.

    Parameters
    ----------
    transition : (n, n)
        A, from one time step to the next.
    weights : (m, n)
        C, top-down: what the state predicts of the observation.
    precision : number, (m,) or (m, m)
        Inverse variance of the observation given the state.
    process_precision : number, (n,) or (n, n)
        Inverse variance of the state given the one before.
    initial_mean : number or (n,)
        Of the first state, before the first observation.
    initial_precision : number, (n,) or (n, n)
        Of the same.

    Examples
    --------
    >>> import numpy as np
    >>> model = StateSpace(np.array([[0.9]]), np.array([[2.0]]), 4.0, 0.7)
    >>> model.n_states, model.n_observed
    (1, 1)
    """

    transition: Array
    weights: Array
    precision: float | Array = 1.0
    process_precision: float | Array = 1.0
    initial_mean: float | Array = 0.0
    initial_precision: float | Array = 1.0

    def __post_init__(self) -> None:
        where = "StateSpace"
        transition = as_array(where, "transition", self.transition, ndim=2)
        weights = as_array(where, "weights", self.weights, ndim=2)
        n = transition.shape[-1]
        if tuple(transition.shape) != (n, n) or weights.ndim != 2 or weights.shape[1] != n:
            found = f"transition {tuple(transition.shape)} and weights {tuple(weights.shape)}"
            advice = "The transition is (state, state), the weights are (observed, state)."
            raise ValueError(refusal(where, found, "shapes (n, n) and (m, n)", advice))
        one_namespace(where, transition=transition, weights=weights)
        object.__setattr__(self, "transition", transition)
        object.__setattr__(self, "weights", weights)
        check_precision(where, "precision", self.precision, weights.shape[0])
        check_precision(where, "process_precision", self.process_precision, n)
        check_precision(where, "initial_precision", self.initial_precision, n)

    @property
    def n_states(self) -> int:
        """Number of states."""
        return int(self.transition.shape[0])

    @property
    def n_observed(self) -> int:
        """Number of observed features."""
        return int(self.weights.shape[0])

    @property
    def noise_covariance(self) -> Array:
        """(m, m) covariance of the observation given the state."""
        return _covariance(self.precision, self.n_observed, self.weights)

    @property
    def process_covariance(self) -> Array:
        """(n, n) covariance of the state given the one before."""
        return _covariance(self.process_precision, self.n_states, self.weights)

    @property
    def initial_covariance(self) -> Array:
        """(n, n) covariance of the first state."""
        return _covariance(self.initial_precision, self.n_states, self.weights)


def _covariance(precision: float | Array, n: int, like: Array) -> Array:
    return array_namespace(like).linalg.inv(precision_matrix(precision, n, like))


@dataclass(frozen=True, eq=False)
class KalmanEstimate:
    """What the filter, or the smoother, believes at each time."""

    mean: Array
    """(..., time, n) of the state."""
    covariance: Array
    """(time, n, n)."""
    error: Array
    """(..., time, m) observed minus predicted, before the correction."""
    gain: Array
    """(time, n, m) from error to correction."""
    log_likelihood: Array
    """(...), nats, of the whole sequence; minus it is the free energy of exact inference."""
    predicted_mean: Array
    """(..., time, n) before the correction."""
    predicted_covariance: Array
    """(time, n, n)."""


def predict(model: StateSpace, mean: Array, covariance: Array) -> tuple[Array, Array]:
    """Move belief one step ahead: mean (..., n) and covariance (n, n).

    Examples
    --------
    >>> import numpy as np
    >>> model = StateSpace(np.array([[0.5]]), np.array([[1.0]]), process_precision=4.0)
    >>> predict(model, np.array([4.0]), np.array([[2.0]]))
    (array([2.]), array([[0.75]]))
    """
    a = model.transition
    return mean @ a.T, a @ covariance @ a.T + model.process_covariance


def update(
    model: StateSpace, x: Array, mean: Array, covariance: Array
) -> tuple[Array, Array, Array]:
    """Correct a predicted belief by an observation `x` (..., m).

    Returns
    -------
    mean : (..., n)
    covariance : (n, n)
        In the Joseph form, which stays symmetric and positive.
    gain : (n, m)

    Examples
    --------
    >>> import numpy as np
    >>> model = StateSpace(np.array([[0.5]]), np.array([[2.0]]), precision=4.0)
    >>> mean, covariance, gain = update(model, np.array([3.0]), np.zeros(1), np.array([[0.7]]))
    >>> bool(np.isclose(covariance, 1 / (1 / 0.7 + 2.0 * 4.0 * 2.0)).all()), mean.round(4)
    (True, array([1.377]))
    """
    c = model.weights
    gain = _gain(model, covariance)
    keep = constant(_eye(model), covariance, array_namespace(covariance)) - gain @ c
    covariance = keep @ covariance @ keep.T + gain @ model.noise_covariance @ gain.T
    return mean + (x - mean @ c.T) @ gain.T, covariance, gain


def _eye(model: StateSpace) -> Any:
    xp = array_namespace(model.weights)
    return xp.eye(model.n_states, dtype=model.weights.dtype)


def _gain(model: StateSpace, covariance: Array) -> Array:
    c, xp = model.weights, array_namespace(covariance)
    innovation = c @ covariance @ c.T + model.noise_covariance
    # (S^-1 C P)^T: both covariances are symmetric.
    return xp.linalg.solve(innovation, c @ covariance).T


def kalman_filter(model: StateSpace, x: Array) -> KalmanEstimate:
    """Filter sequences `x` (..., time, m), starting from the model's initial belief.

    Raises
    ------
    ValueError
        If the last axis is not what the model observes.

    References
    ----------
    Kalman (1960), https://doi.org/10.1115/1.3662552

    Examples
    --------
    >>> import numpy as np
    >>> model = StateSpace(np.array([[0.9]]), np.array([[2.0]]), 4.0, 0.7)
    >>> belief = kalman_filter(model, np.full((3, 50, 1), 4.0))
    >>> belief.mean.shape, belief.covariance.shape, belief.log_likelihood.shape
    ((3, 50, 1), (50, 1, 1), (3,))
    >>> bool(np.isclose(belief.gain[-1], steady_state(model).gain).all())
    True
    """
    x = as_array("kalman_filter", "x", x, ndim=2)
    xp = one_namespace("kalman_filter", x=x, weights=model.weights)
    if x.shape[-1] != model.n_observed:
        found = f"x of shape {tuple(x.shape)}"
        expected = f"{model.n_observed} features on the last axis"
        raise ValueError(refusal("kalman_filter", found, expected, "Axes are (..., time, feature)"))
    mean = xp.zeros((*x.shape[:-2], model.n_states), dtype=x.dtype) + model.initial_mean
    covariance = model.initial_covariance
    log_likelihood: Any = 0.0
    kept: list[tuple[Array, ...]] = []
    for t in range(x.shape[-2]):
        if t:
            mean, covariance = predict(model, mean, covariance)
        ahead, spread = mean, covariance
        error = x[..., t, :] - mean @ model.weights.T
        log_likelihood = log_likelihood + _log_density(model, error, covariance)
        mean, covariance, gain = update(model, x[..., t, :], mean, covariance)
        kept.append((mean, covariance, error, gain, ahead, spread))
    means, covariances, errors, gains, aheads, spreads = zip(*kept, strict=True)
    return KalmanEstimate(
        xp.stack(means, axis=-2),
        xp.stack(covariances),
        xp.stack(errors, axis=-2),
        xp.stack(gains),
        log_likelihood,
        xp.stack(aheads, axis=-2),
        xp.stack(spreads),
    )


def _log_density(model: StateSpace, error: Array, covariance: Array) -> Array:
    """Log density of an error (..., m) whose covariance the prediction gives, nats."""
    xp, c = array_namespace(error), model.weights
    root = xp.linalg.cholesky(c @ covariance @ c.T + model.noise_covariance)
    log_det = 2.0 * xp.sum(xp.log(xp.linalg.diagonal(root)))
    scaled = error @ xp.linalg.inv(root).T
    constant_term = model.n_observed * math.log(2 * math.pi)
    return -0.5 * (xp.sum(scaled**2, axis=-1) + log_det + constant_term)


def kalman_smoother(model: StateSpace, x: Array) -> KalmanEstimate:
    """Return what the whole sequence says of each state (Rauch-Tung-Striebel).

    Errors, gains and likelihood are the filter's.

    References
    ----------
    Rauch, Tung and Striebel (1965), https://doi.org/10.2514/3.3166
    """
    forward = kalman_filter(model, x)
    xp = array_namespace(forward.mean)
    n_times = forward.covariance.shape[0]
    mean, covariance = forward.mean[..., -1, :], forward.covariance[-1, :, :]
    means, covariances = [mean], [covariance]
    for t in range(n_times - 2, -1, -1):
        here, ahead = forward.covariance[t, :, :], forward.predicted_covariance[t + 1, :, :]
        back = xp.linalg.solve(ahead, model.transition @ here).T
        surprise = mean - forward.predicted_mean[..., t + 1, :]
        mean = forward.mean[..., t, :] + surprise @ back.T
        covariance = here + back @ (covariance - ahead) @ back.T
        means.append(mean)
        covariances.append(covariance)
    return KalmanEstimate(
        xp.stack(means[::-1], axis=-2),
        xp.stack(covariances[::-1]),
        forward.error,
        forward.gain,
        forward.log_likelihood,
        forward.predicted_mean,
        forward.predicted_covariance,
    )


@dataclass(frozen=True, eq=False)
class SteadyState:
    """Where the covariances of the filter come to rest."""

    gain: Array
    """(n, m) from error to correction."""
    covariance: Array
    """(n, n) after the correction; in continuous time the only one."""
    predicted_covariance: Array
    """(n, n) before the correction."""


def steady_state(model: StateSpace, *, max_doublings: int = 60) -> SteadyState:
    r"""Solve the Riccati equation of the filter by doubling: each step spans twice the time.

    .. math:: A_+ = A_k W A_k, \quad G_+ = G_k + A_k W G_k A_k^\top, \quad
        H_+ = H_k + A_k^\top H_k W A_k, \qquad W = (I + G_k H_k)^{-1}

    from :math:`A_0 = A^\top`, :math:`G_0 = C^\top\Pi_x C`, :math:`H_0 = \Pi_w^{-1}`; H comes to
    rest at the covariance of the prediction (Anderson 1978,
    https://doi.org/10.1080/00207177808922376).

    Raises
    ------
    RuntimeError
        If there is no rest: something that grows cannot be observed.

    Examples
    --------
    >>> import numpy as np
    >>> rest = steady_state(StateSpace(np.array([[0.0]]), np.array([[2.0]]), 4.0, 0.7))
    >>> bool(np.isclose(rest.predicted_covariance, 1 / 0.7).all())
    True
    """
    c, xp = model.weights, array_namespace(model.weights)
    a = model.transition.T
    g = c.T @ precision_matrix(model.precision, model.n_observed, c) @ c
    h, eye = model.process_covariance, _eye(model)
    for _ in range(max_doublings):
        inverse = xp.linalg.inv(eye + g @ h)
        through = a @ inverse
        grown = h + a.T @ h @ inverse @ a
        g, a = g + through @ g @ a.T, through @ a
        change, scale = as_float(xp.max(xp.abs(grown - h))), as_float(xp.max(xp.abs(grown)))
        h = 0.5 * (grown + grown.T)
        if not math.isfinite(scale) or scale > 1e12:
            break
        if change <= 1e-15 * scale:
            _, covariance, gain = update(model, c[:, 0] * 0.0, eye[0, :] * 0.0, h)
            return SteadyState(gain, covariance, h)
    advice = "Observe every state that grows, or shrink the transition."
    raise RuntimeError(refusal("steady_state", "covariances that grow without end", "rest", advice))


def kalman_bucy(model: StateSpace, *, n_steps: int = 100) -> SteadyState:
    r"""Solve the Riccati equation of the filter in continuous time (NumPy).

    .. math:: dz = F z\,dt + dw, \quad dx = C z\,dt + dv: \qquad
        0 = F P + P F^\top + \Pi_w^{-1} - P C^\top \Pi_x C P

    The model's `transition` is the drift F (per second) and its precisions are inverse spectral
    densities. Belief moves as :math:`\dot\mu = F\mu + P C^\top\Pi_x (x - C\mu)`. P is read from
    the matrix sign of the Hamiltonian, by Newton's iteration (Roberts 1980,
    https://doi.org/10.1080/00207178008922881).

    Raises
    ------
    RuntimeError
        If there is no rest: something that grows cannot be observed.

    References
    ----------
    Kalman and Bucy (1961), https://doi.org/10.1115/1.3658902

    Examples
    --------
    >>> drift, sees = np.zeros((1, 1)), np.array([[2.0]])
    >>> rest = kalman_bucy(StateSpace(drift, sees, precision=4.0, process_precision=0.7))
    >>> bool(np.isclose(rest.covariance, np.sqrt(1 / 0.7 / (2.0 * 4.0 * 2.0))).all())
    True
    """
    f, c, n = np.asarray(model.transition), np.asarray(model.weights), model.n_states
    seen = c.T @ precision_matrix(model.precision, model.n_observed, c)
    sign = np.block([[f.T, -seen @ c], [-np.asarray(model.process_covariance), -f]])
    advice = "Observe every state that grows, or shrink the transition."
    for _ in range(n_steps):
        try:
            inverse = np.linalg.inv(sign)
        except np.linalg.LinAlgError:
            break
        # Scaled by the determinant, the iteration converges in a few steps.
        scale = math.exp(-np.linalg.slogdet(sign)[1] / (2 * n))
        moved = 0.5 * (scale * sign + inverse / scale)
        change, sign = float(np.abs(moved - sign).max()), moved
        if change < 1e-13 * max(1.0, float(np.abs(sign).max())):
            eye = np.eye(n)
            left = np.concatenate([sign[:n, n:], sign[n:, n:] + eye])
            right = np.concatenate([sign[:n, :n] + eye, sign[n:, :n]])
            covariance = -np.linalg.lstsq(left, right, rcond=None)[0]
            gain = 0.5 * (covariance + covariance.T) @ seen
            if np.linalg.eigvals(f - gain @ c).real.max() < 0:
                return SteadyState(gain, 0.5 * (covariance + covariance.T), covariance)
            break
    found = "covariances that do not come to rest"
    raise RuntimeError(refusal("kalman_bucy", found, "rest", advice))
