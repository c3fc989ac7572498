r"""How much of a neuron's rate a point neuron explains, and how much a network of two layers.

Both are fitted by least squares to rates under patterns of active synapses, and scored on patterns
that they have not seen. They share the somatic nonlinearity :math:`\log(1 + e^x)`.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import scipy.optimize
from numpy.typing import NDArray

from pcsim.messages import check_array, refusal

__all__ = ["cross_validated_r2", "fit_point_neuron", "fit_two_layer"]

Array = NDArray[np.float64]
Predict = Callable[[Array], Array]
_BOUND = 40.0


def fit_point_neuron(patterns: Array, rates: Array) -> Predict:
    r"""Fit :math:`\log(1 + e^{w\cdot n + c})`, one weight a branch.

    Parameters
    ----------
    patterns : (pattern, branch)
        Active synapses.
    rates : (pattern,)
        Hz, not negative.

    Returns
    -------
    predict
        Patterns to rates.

    Examples
    --------
    >>> n = np.random.default_rng(0).integers(0, 9, (40, 2)).astype(float)
    >>> rate = np.log1p(np.exp(0.7 * n[:, 0] + 0.4 * n[:, 1] - 2.0))
    >>> bool(np.allclose(fit_point_neuron(n, rate)(n), rate, atol=1e-5))
    True
    """
    patterns, rates = _checked("fit_point_neuron", patterns, rates)

    def model(x: Array, values: Array) -> Array:
        return _soma(x @ values[:-1] + values[-1])

    start: Array = np.linalg.lstsq(_padded(patterns), rates, rcond=None)[0].astype(np.float64)
    return _best(model, patterns, rates, [start, np.zeros(patterns.shape[1] + 1)])


def fit_two_layer(patterns: Array, rates: Array) -> Predict:
    r"""Fit :math:`\log(1 + e^{w\cdot s(n) + c})`, :math:`s(n) = \sigma((n - \theta)/\kappa) + k n`.

    The subunit function is shared by all branches (Poirazi, Brannon & Mel 2003), the weights are
    their own. Started from several thresholds; the best fit is kept. With :math:`s` linear it is
    the point neuron, so that it has three parameters more.
    """
    patterns, rates = _checked("fit_two_layer", patterns, rates)

    def model(x: Array, values: Array) -> Array:
        theta, log_kappa, linear = values[:3]
        inner = np.clip((x - theta) * np.exp(-np.clip(log_kappa, -3.0, 4.0)), -_BOUND, _BOUND)
        return _soma((1.0 / (1.0 + np.exp(-inner)) + linear * x) @ values[3:-1] + values[-1])

    n, scale = patterns.shape[1], float(rates.max(initial=1.0))
    starts = [
        np.concatenate([[theta, 0.0, 0.02], np.full(n, scale / n), [0.0]])
        for theta in np.quantile(patterns, (0.5, 0.7, 0.85)) + 1.0
    ]
    return _best(model, patterns, rates, starts)


def cross_validated_r2(
    fit: Callable[[Array, Array], Predict], patterns: Array, rates: Array, *, n_folds: int = 5
) -> float:
    """Return the share of variance explained on the patterns left out, pooled over the folds.

    Fold k leaves out every `n_folds`-th pattern from the k-th on.

    Raises
    ------
    ValueError
        If there are fewer than two patterns a fold, or the rates do not vary.
    """
    patterns, rates = _checked("cross_validated_r2", patterns, rates)
    if len(rates) < 2 * n_folds:
        found = f"{len(rates)} patterns for {n_folds} folds"
        raise ValueError(refusal("cross_validated_r2", found, "at least two a fold"))
    if np.ptp(rates) == 0:
        found = f"a rate of {rates[0]:g} Hz for every pattern"
        raise ValueError(refusal("cross_validated_r2", found, "rates that vary"))
    left = np.empty_like(rates)
    for fold in range(n_folds):
        out = np.arange(len(rates)) % n_folds == fold
        left[out] = fit(patterns[~out], rates[~out])(patterns[out])
    return float(1.0 - ((rates - left) ** 2).mean() / rates.var())


def _checked(where: str, patterns: Array, rates: Array) -> tuple[Array, Array]:
    patterns = check_array(where, "patterns", patterns, shape=(None, None))
    return patterns, check_array(where, "rates", rates, shape=(len(patterns),))


def _padded(patterns: Array) -> Array:
    return np.column_stack([patterns, np.ones(len(patterns))])


def _soma(x: Array) -> Array:
    bounded = np.clip(x, -_BOUND, _BOUND)
    return np.where(x > _BOUND, x, np.log1p(np.exp(bounded)))


def _best(
    model: Callable[[Array, Array], Array], patterns: Array, rates: Array, starts: list[Array]
) -> Predict:
    fits = [
        scipy.optimize.least_squares(
            lambda values: model(patterns, values) - rates, start, method="trf", max_nfev=300
        )
        for start in starts
    ]
    values = min(fits, key=lambda found: found.cost).x
    return lambda x: model(np.asarray(x, dtype=np.float64), values)
