r"""The Kalman filter as a hierarchical circuit with predicted transitions (Rao 1999).

Level 1 follows a world that moves, level 2 what drives it:

.. math:: x_t = U r_t + n, \qquad r_t = V r_{t-1} + U_h h_t + m, \qquad h_t = V_h h_{t-1} + m_h

Each level predicts its own next state, the higher one adds its prediction to that of the lower,
and only errors ascend:

.. math:: \bar h = V_h h, \quad \bar r = V r + \gamma U_h \bar h, \quad
    \delta = K(x - U\bar r), \qquad \tau\,\dot r = \bar r + \delta - r, \quad
    \tau\,\dot h = \bar h + G\,\delta - h

K and G are the rest of the Riccati equation of both levels together: because the input tells
nothing of level 2 but through level 1, the correction of level 1 is all that level 2 needs, and
:math:`G = P_{hr} P_{rr}^{-1}`. In discrete time (one Euler step of :math:`\tau` a frame) this is
the steady Kalman filter exactly. In continuous time the error is taken of the present state,
:math:`x - U r`, and the circuit is the steady Kalman-Bucy filter of
:math:`\dot r = (V - 1)r/\tau + \ldots`

The transition V is learned where it acts: correction times the state before (`learning_rate`,
with `pcsim.circuit.simulate_plastic`); it rests where corrections are uncorrelated with the past.

Rao (1999), An optimal estimation approach to visual perception and learning, Vision Res.
39:1963-1989, https://doi.org/10.1016/S0042-6989(98)00279-X; Rao & Ballard (1997), Dynamic model of
visual recognition, Neural Comput. 9:721-763. The papers run predictions and corrections as
separate steps of one frame and approximate the gain per level; here it is exact. The sizes and
numbers of the default world are our own choice: a damped rotation at 2 Hz, driven from above.
It takes features, not images: no visual entry of the battery applies to it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from pcsim.circuit import Circuit, Hebbian, Population, Projection
from pcsim.inference_kalman import StateSpace, SteadyState, kalman_bucy, steady_state
from pcsim.kinds import Error, Leaky, Prediction
from pcsim.messages import check_choice, refusal

__all__ = ["MODEL", "Rao1999"]

N_INPUT = 6
ANGLE = 2 * np.pi * 2.0 * 0.02
"""Radians that a state turns in a frame of 0.02 s at 2 Hz."""


def views() -> Any:
    """Return (6, 2) weights of inputs that look at the plane from six directions."""
    directions = np.arange(N_INPUT) * np.pi / N_INPUT
    return np.stack([np.cos(directions), np.sin(directions)], axis=1)


def rotation() -> Any:
    """Return a (2, 2) rotation that loses 5 % a frame."""
    cos, sin = np.cos(ANGLE), np.sin(ANGLE)
    return 0.95 * np.array([[cos, -sin], [sin, cos]])


@dataclass(frozen=True, kw_only=True)
class Rao1999(Circuit):
    """Error units, predictions and states of two levels.

    Examples
    --------
    >>> from pcsim.inference_kalman import kalman_filter
    >>> from pcsim.responses import stimulus_array
    >>> x = np.random.default_rng(0).standard_normal((2, 9, 6))
    >>> rates = MODEL.run(stimulus_array(x, frame_duration=0.02), record=["latent_1"]).rate
    >>> exact = kalman_filter(MODEL.at_rest(), x).mean[..., :2]
    >>> bool(np.allclose(rates, exact, atol=1e-10))
    True
    """

    weights: Any = field(default_factory=views)
    """(n_x, n_1) top-down weights U."""
    transition: Any = field(default_factory=rotation)
    """(n_1, n_1) V, from one time constant to the next."""
    top_weights: Any = field(default_factory=lambda: np.array([[0.3], [0.1]]))
    """(n_1, n_2) top-down weights of level 2."""
    top_transition: Any = field(default_factory=lambda: np.array([[0.98]]))
    """(n_2, n_2) V_h."""
    precision: float | Any = 4.0
    """Inverse variance of the input given level 1: number, (n_x,) or (n_x, n_x)."""
    process_precision: float | Any = 25.0
    """Inverse variance of level 1 given its prediction."""
    top_process_precision: float | Any = 10.0
    """Inverse variance of level 2 given its prediction."""
    feedback_gain: float = 1.0
    """Gain of the prediction from level 2; 0 cuts the feedback and leaves K and G as they are."""
    time: str = "discrete"
    """"discrete" (`dt` equal to `tau`, Euler steps) or "continuous" (`dt` far below `tau`)."""
    learning_rate: float = 0.0
    """Of the transition V, per second; 0 leaves it as it is."""
    tau: float = 0.02
    """Time constant of the states and time step of the transitions, seconds."""
    dt: float = 0.02
    integrator: str = "euler"

    def __post_init__(self) -> None:
        where = "rao_1999"
        check_choice(where, "time", self.time, ("discrete", "continuous"))
        stepped = np.isclose(self.dt, self.tau) and self.integrator == "euler"
        if self.time == "discrete" and not stepped:
            found = f"dt {self.dt:g} s, tau {self.tau:g} s and integrator {self.integrator!r}"
            advice = "Or take time='continuous'."
            expected = "dt equal to tau and 'euler' in discrete time"
            raise ValueError(refusal(where, found, expected, advice))

    @property
    def n_features(self) -> int:
        """Length of the input."""
        return int(self.weights.shape[0])

    @property
    def state_space(self) -> StateSpace:
        """The world that the circuit infers, both levels in one state."""
        n_1, n_2 = self.top_weights.shape
        top = self.top_weights
        one, two = (
            StateSpace(self.transition, self.weights, self.precision, self.process_precision),
            StateSpace(self.top_transition, np.eye(n_2), 1.0, self.top_process_precision),
        )
        process, above = one.process_covariance, two.process_covariance
        transition = np.block(
            [[self.transition, top @ self.top_transition], [np.zeros((n_2, n_1)), two.transition]]
        )
        covariance = np.block(
            [[process + top @ above @ top.T, top @ above], [above @ top.T, above]]
        )
        weights = np.concatenate([self.weights, np.zeros((self.n_features, n_2))], axis=1)
        if self.time == "continuous":
            drift, spread = (transition - np.eye(n_1 + n_2)) / self.tau, covariance / self.tau
            precision = np.linalg.inv(one.noise_covariance) / self.tau
            return StateSpace(drift, weights, _even(precision), _even(np.linalg.inv(spread)))
        return StateSpace(transition, weights, self.precision, _even(np.linalg.inv(covariance)))

    def at_rest(self) -> StateSpace:
        """Return the same world, begun with the covariance at which the filter's gain rests."""
        world, n = self.state_space, sum(self.top_weights.shape)
        precision = _even(np.linalg.inv(self._rest.predicted_covariance))
        parts = (world.transition, world.weights, world.precision, world.process_precision)
        return StateSpace(*parts, np.zeros(n), precision)

    @property
    def _rest(self) -> SteadyState:
        solve = kalman_bucy if self.time == "continuous" else steady_state
        return solve(self.state_space)

    @property
    def gains(self) -> tuple[Any, Any]:
        """K (n_1, n_x) from errors to level 1, G (n_2, n_1) from its correction to level 2."""
        rest, n_1 = self._rest, self.top_weights.shape[0]
        spread = rest.predicted_covariance
        upward = np.linalg.solve(spread[:n_1, :n_1], spread[:n_1, n_1:]).T
        scale = self.tau if self.time == "continuous" else 1.0
        return scale * rest.gain[:n_1], upward

    @property
    def populations(self) -> tuple[Population, ...]:
        """Errors of the input; of each level its prediction, its correction and its state."""
        n_1, n_2 = self.top_weights.shape
        state, at_once = Leaky(tau=self.tau), Prediction()
        return (
            Population("error_0", Error(tau=None), self.n_features, 0, "error"),
            Population("prediction_1", at_once, n_1, 1, "prediction"),
            Population("error_1", Error(tau=None), n_1, 1, "weighted_error"),
            Population("latent_1", state, n_1, 1, "latent"),
            Population("prediction_2", at_once, n_2, 2, "prediction"),
            Population("latent_2", state, n_2, 2, "latent"),
        )

    @property
    def projections(self) -> tuple[Projection, ...]:
        """Transitions within a level, predictions down, corrections up."""
        gain, upward = self.gains
        rule = Hebbian(self.learning_rate, error="error_1") if self.learning_rate else None
        seen = "latent_1" if self.time == "continuous" else "prediction_1"
        down = self.feedback_gain * self.top_weights
        return (
            Projection("latent_2", "prediction_2", self.top_transition),
            Projection("latent_1", "prediction_1", self.transition, plastic=rule),
            Projection("prediction_2", "prediction_1", down),
            Projection("stimulus", "error_0", port="observed"),
            Projection(seen, "error_0", self.weights, port="predicted"),
            Projection("error_0", "error_1", gain, port="observed"),
            Projection("prediction_1", "latent_1", port="drive"),
            Projection("error_1", "latent_1", port="drive"),
            Projection("prediction_2", "latent_2", port="drive"),
            Projection("error_1", "latent_2", upward, port="drive"),
        )


def _even(matrix: Any) -> Any:
    """Return the symmetric part, so that rounding does not make a precision unlawful."""
    return 0.5 * (matrix + matrix.T)


MODEL = Rao1999()
