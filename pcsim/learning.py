r"""Learning of weights and precisions from prediction errors, local in space and time.

Weights follow :math:`\Delta W_l = \eta\,\langle (g' \odot \xi_l)\,h(\mu_{l+1})^\top\rangle - \eta
\lambda W_l`, what a synapse can know: the weighted error after it times the rate before it.
Precisions follow the mean square of the errors.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from pcsim.arrays import Array, as_array, as_float, resolution
from pcsim.hierarchy import (
    Hierarchy,
    Level,
    check_states,
    downward,
    precision_gradient,
    weight_gradient_of,
)
from pcsim.inference import MapEstimate, infer
from pcsim.messages import check_integer, check_number, refusal
from pcsim.priors import precision_matrix

__all__ = ["learn", "learn_precision", "learn_weights"]


def learn(
    hierarchy: Hierarchy,
    x: Array,
    *,
    learning_rate: float,
    weight_decay: float = 0.0,
    n_steps: int = 100,
    tol: float = 1e-6,
) -> tuple[Hierarchy, MapEstimate]:
    """Take one step of learning on a batch: infer the latents, then move the weights.

    Inference is the curvature-bounded descent of `map_gradient`, ended at `tol` or, as learning
    needs no last digit, after `n_steps` without complaint.

    Parameters
    ----------
    x : (..., n_x)
        Batch of inputs.
    learning_rate, weight_decay
        Size of the step and fraction of it that pulls the weights to zero.
    n_steps, tol
        Budget and tolerance of inference.

    Returns
    -------
    hierarchy
        The same with new weights.
    estimate
        The inference before the step, under the old weights.

    Examples
    --------
    >>> from pcsim.inference import GaussianPrior
    >>> model = Hierarchy((Level(np.full((1, 1), 0.5), 4.0),), (GaussianPrior(precision=0.7),))
    >>> better, before = learn(model, np.array([[2.0]]), learning_rate=0.05)
    >>> bool(infer(better, np.array([[2.0]])).free_energy < before.free_energy)
    True
    """
    check_integer("learn", "n_steps", n_steps, low=1)
    check_number("learn", "tol", tol, positive=True)
    x = as_array("learn", "x", x, ndim=1)
    estimate = infer(hierarchy, x, n_steps=n_steps, tol=tol)
    learned = learn_weights(
        hierarchy, estimate.states, learning_rate=learning_rate, weight_decay=weight_decay
    )
    return learned, estimate


def learn_weights(
    hierarchy: Hierarchy,
    states: Sequence[Array],
    *,
    learning_rate: float,
    weight_decay: float = 0.0,
) -> Hierarchy:
    """Return the hierarchy after one step of the local rule on the weights of every level.

    Raises
    ------
    RuntimeError
        If the step carries a weight out of the finite numbers.

    Examples
    --------
    >>> from pcsim.inference import GaussianPrior
    >>> model = Hierarchy((Level(np.eye(1), 4.0),), (GaussianPrior(),))
    >>> states = [np.array([2.0]), np.array([0.5])]
    >>> learn_weights(model, states, learning_rate=0.1).levels[0].weights
    array([[1.3]])
    """
    where = "learn_weights"
    rate = check_number(where, "learning_rate", learning_rate, low=0.0)
    decay = check_number(where, "weight_decay", weight_decay, low=0.0)
    xp, states = check_states(where, hierarchy, states)
    gradients = weight_gradient_of(hierarchy, downward(hierarchy, states, xp), xp)
    levels = []
    for i, (level, slope) in enumerate(zip(hierarchy.levels, gradients, strict=True)):
        weights = level.weights - rate * (slope + decay * level.weights)
        if not bool(xp.all(xp.isfinite(weights))):
            found = f"weights of levels[{i}] that are no longer finite"
            advice = f"Lower learning_rate (it is {rate:.3g})."
            raise RuntimeError(refusal(where, found, "finite weights", advice))
        levels.append(dataclasses.replace(level, weights=weights))
    return dataclasses.replace(hierarchy, levels=tuple(levels))


def learn_precision(
    hierarchy: Hierarchy, states: Sequence[Array], *, learning_rate: float | None = None
) -> Hierarchy:
    r"""Return the hierarchy with precisions that fit the errors of these states better.

    Every precision keeps its kind: number, vector or matrix.

    Parameters
    ----------
    states
        [x, mu_1, ..., mu_L]; leading axes are trials.
    learning_rate
        None: the closed form, :math:`1/\langle\epsilon^2\rangle` or
        :math:`\langle\epsilon\epsilon^\top\rangle^{-1}`. Otherwise one step down the gradient by
        :math:`\log\pi` of a number or vector; a matrix moves its covariance by this fraction
        (at most 1) of the way to the closed form, which keeps it positive definite.

    Raises
    ------
    ValueError
        If errors are zero, or too few trials leave a covariance singular.

    Examples
    --------
    >>> from pcsim.inference import GaussianPrior
    >>> model = Hierarchy((Level(np.zeros((1, 1)), 4.0),), (GaussianPrior(),))
    >>> states = [np.array([[1.0], [-3.0]]), np.zeros((2, 1))]
    >>> learn_precision(model, states).levels[0].precision
    0.2
    """
    where = "learn_precision"
    if learning_rate is not None:
        learning_rate = check_number(where, "learning_rate", learning_rate, low=0.0)
    xp, states = check_states(where, hierarchy, states)
    made = downward(hierarchy, states, xp)
    slopes = None if learning_rate is None else precision_gradient(hierarchy, states)
    levels = []
    for i, (level, error) in enumerate(zip(hierarchy.levels, made.errors, strict=True)):
        eps = xp.reshape(error, (-1, level.n_below))
        if getattr(level.precision, "ndim", 0) == 2:
            precision = _matrix_step(f"{where}: levels[{i}]", level, eps, learning_rate, xp)
        elif learning_rate is None or slopes is None:
            precision = _closed_form(f"{where}: levels[{i}]", level, eps, xp)
        else:
            precision = level.precision * xp.exp(-learning_rate * slopes[i])
        levels.append(dataclasses.replace(level, precision=precision))
    return dataclasses.replace(hierarchy, levels=tuple(levels))


def _closed_form(where: str, level: Level, eps: Array, xp: Any) -> Array:
    variance = xp.mean(eps * eps, axis=0)
    if getattr(level.precision, "ndim", 0) == 0:
        variance = xp.asarray(xp.mean(variance))
    if not bool(xp.all(variance > 0)):
        found = f"{eps.shape[0]} trials with errors that are all zero in some unit"
        advice = "Give more trials, or a learning_rate."
        raise ValueError(refusal(where, found, "errors that vary", advice))
    return 1 / variance


def _matrix_step(where: str, level: Level, eps: Array, rate: float | None, xp: Any) -> Array:
    if rate is not None and rate > 1:
        found = f"learning_rate {rate:.6g}"
        advice = "A covariance moves a fraction of the way."
        raise ValueError(refusal(where, found, "at most 1 for a matrix precision", advice))
    eye = precision_matrix(1.0, level.n_below, eps)
    covariance = xp.matrix_transpose(eps) @ eps / eps.shape[0]
    if rate is not None:
        covariance = (1 - rate) * xp.linalg.solve(level.precision, eye) + rate * covariance
    values = xp.linalg.eigvalsh(covariance)
    low, high = as_float(values[0]), as_float(values[-1])
    if low <= level.n_below * resolution(eps, xp) * high:
        found = f"{eps.shape[0]} trials whose errors span fewer than {level.n_below} units"
        advice = "Give more trials, a learning_rate below 1, or a diagonal precision."
        raise ValueError(refusal(where, found, "a covariance of full rank", advice))
    precision = xp.linalg.solve(covariance, eye)
    return 0.5 * (precision + xp.matrix_transpose(precision))
