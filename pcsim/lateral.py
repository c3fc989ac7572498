r"""Lateral inhibition as inverse covariance: what the weights must be, and how they are learned.

Units :math:`\xi` that receive errors :math:`\epsilon` and are inhibited by interneurons e,

.. math:: \tau\dot\xi = \epsilon - e, \qquad \tau_e\,\dot e = M\xi - e,

rest at :math:`\xi = M^{-1}\epsilon`, with :math:`e = \epsilon`. With C the covariance of the errors

- "precision": :math:`M = C` gives the weighted error :math:`C^{-1}\epsilon`;
- "symmetric": :math:`M = C^{1/2}` decorrelates without mixing more than it must (ZCA);
- "triangular": :math:`M = L`, :math:`C = LL^\top`: every unit is inhibited only by those before it,
  so :math:`\xi_i` is what the units before i do not predict, over its own deviation (Cholesky,
  autoregressive).

**Local rule.** A synapse sees its two ends, unit :math:`\xi_j` and interneuron :math:`e_i`:

.. math:: \dot M = \eta\,(\langle e\,\xi^\top\rangle - R), \qquad R = I \text{ (precision)}
    \text{ or } M \text{ (both others)}

Hebbian onto inhibition is anti-Hebbian in effect. At rest
:math:`\langle e\xi^\top\rangle = C M^{-\top}`, so it stops

- for "precision" at :math:`C M^{-\top} = I`, that is at :math:`M = C`. In the eigenvectors of C,
  :math:`\dot\sigma = \eta(c/\sigma - 1)`, which falls to c from every :math:`\sigma > 0`; any small
  deviation D decays as :math:`\dot D = -\eta D^\top C^{-1}`, its symmetric part at rates
  :math:`\eta/c`; an antisymmetric part would grow, so the rule keeps the mean of both directions
  of a pair. Euler steps need :math:`\eta\,dt < 2 c_{min}`.
- for a free M at :math:`MM^\top = C`: :math:`S = MM^\top` obeys :math:`\dot S = 2\eta(C - S)`
  exactly, so whitening is reached from everywhere; from a symmetric positive start that commutes
  with C (any multiple of I) M stays so, and becomes :math:`C^{1/2}`.
- for a lower triangular M (absent synapses do not grow) at :math:`M = L` alone, from any positive
  diagonal: row by row, :math:`M_{ij}, j < i` relaxes to :math:`(C_{i,<i} M_{<i}^{-\top})_j`, then
  :math:`\dot M_{ii} = \eta(s_i/M_{ii} - M_{ii})` with :math:`s_i` the variance that is not
  predicted.

Friston (2005), https://doi.org/10.1098/rstb.2005.1622; Bogacz (2017), section 5,
https://doi.org/10.1016/j.jmp.2015.11.003; Foldiak (1990), https://doi.org/10.1007/BF02331346
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pcsim.messages import check_array, check_choice, check_integer, check_number, refusal
from pcsim.priors import check_precision

__all__ = ["LATERAL_SCHEMES", "lateral_weights", "learn_lateral", "random_lateral"]

Floats = NDArray[np.float64]
LATERAL_SCHEMES = ("precision", "symmetric", "triangular")


def lateral_weights(covariance: Floats, scheme: str) -> Floats:
    """Return the lateral weights M (n, n) of a scheme in closed form.

    Raises
    ------
    ValueError
        If the covariance is not symmetric and positive definite, or the scheme unknown.

    Examples
    --------
    >>> covariance = np.array([[4.0, 2.0], [2.0, 1.7]])
    >>> root = lateral_weights(covariance, "triangular")
    >>> bool(np.allclose(root @ root.T, covariance)), float(root[0, 1])
    (True, 0.0)
    """
    where = "lateral_weights"
    check_choice(where, "scheme", scheme, LATERAL_SCHEMES)
    covariance = check_array(where, "covariance", covariance, shape=("n", "n"))
    check_precision(where, "covariance", covariance)
    if scheme == "precision":
        return covariance
    if scheme == "triangular":
        return np.asarray(np.linalg.cholesky(covariance))
    values, axes = np.linalg.eigh(covariance)
    return np.asarray((axes * np.sqrt(values)) @ axes.T)


def learn_lateral(
    errors: Floats,
    scheme: str,
    *,
    rate: float = 0.2,
    start: float | None = None,
    n_steps: int = 50_000,
    tol: float = 1e-12,
) -> Floats:
    """Learn lateral weights from settled errors (sample, n) by the local rule of this module.

    Parameters
    ----------
    errors
        Their mean is taken off; each step sees the mean over all of them.
    scheme
        "precision", "symmetric" or "triangular".
    rate
        Step of the rule; for "precision" in units of the smallest variance along any direction.
    start
        Strength of the inhibition of each unit by itself before learning; the root mean variance
        (the mean variance for "precision") if None.
    n_steps, tol
        Give up after so many steps; learned once no weight moves by more than `tol` times the
        largest.

    Raises
    ------
    RuntimeError
        If the weights still move in the end.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> errors = rng.standard_normal((50, 2)) @ np.array([[2.0, 0.7], [0.0, 1.0]])
    >>> learned = learn_lateral(errors, "precision")
    >>> bool(np.allclose(learned, np.cov(errors.T, bias=True)))
    True
    """
    where = "learn_lateral"
    check_choice(where, "scheme", scheme, LATERAL_SCHEMES)
    errors = check_array(where, "errors", errors, shape=("samples", "n"))
    check_number(where, "rate", rate, low=1e-6, high=1.0)
    check_integer(where, "n_steps", n_steps, low=1)
    errors = errors - errors.mean(axis=0)
    moments = errors.T @ errors / len(errors)
    check_precision(where, "covariance of the errors", moments)
    precise, n = scheme == "precision", len(moments)
    mean = float(np.trace(moments)) / n
    step = rate * float(np.linalg.eigvalsh(moments)[0]) if precise else rate
    first = (mean if precise else mean**0.5) if start is None else start
    weights = check_number(where, "start", first, positive=True) * np.eye(n)
    for _ in range(n_steps):
        # <e xi'> over the samples, with every circuit at rest: e = errors, xi = inverse(M) errors.
        coactive = np.linalg.solve(weights, moments).T
        change = step * (coactive - (np.eye(n) if precise else weights))
        change = np.tril(change) if scheme == "triangular" else 0.5 * (change + change.T)
        weights = weights + change
        if np.abs(change).max() < tol * np.abs(weights).max():
            return weights
    found = f"weights that still move by {np.abs(change).max():.2g} after {n_steps} steps"
    raise RuntimeError(refusal(where, found, "rest", "Raise n_steps or rate, or lower tol."))


def random_lateral(weights: Floats, *, seed: int) -> Floats:
    """Return lateral weights of equal strength that know nothing of the covariance: the control.

    Symmetric weights keep their eigenvalues (so the gains and the stability of the circuit) in a
    random basis; triangular ones keep their diagonal and permute what is below it.

    Examples
    --------
    >>> weights = np.array([[4.0, 2.0], [2.0, 1.7]])
    >>> other = random_lateral(weights, seed=3)
    >>> bool(np.allclose(np.linalg.eigvalsh(other), np.linalg.eigvalsh(weights)))
    True
    """
    weights = check_array("random_lateral", "weights", weights, shape=("n", "n"))
    rng, n = np.random.default_rng([seed, 2005]), len(weights)
    if not np.allclose(weights, weights.T):
        below = np.tril_indices(n, -1)
        other = np.diag(np.diag(weights))
        other[below] = rng.permutation(weights[below])
        return other
    basis, _ = np.linalg.qr(rng.standard_normal((n, n)))
    values = np.linalg.eigvalsh(weights)
    mixed = (basis * values) @ basis.T
    return np.asarray(0.5 * (mixed + mixed.T))
