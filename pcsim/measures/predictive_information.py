r"""What the past says of the future, and the most that a summary of the past can say of it.

The predictive information of a series is :math:`I(\mathrm{past};\mathrm{future})`. A code T of the
past that carries :math:`I(T;\mathrm{past})` can carry at most so much of the future as the
information bottleneck allows; for Gaussian signals that curve is known in closed form. Nats.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.linalg
from numpy.typing import NDArray

from pcsim.measures.information import gaussian_information, joint_count, mutual_information
from pcsim.messages import check_array, check_integer, refusal

__all__ = [
    "canonical_correlations",
    "gaussian_bottleneck",
    "gaussian_predictive_information",
    "predictive_information",
]

Floats = NDArray[np.float64]


def predictive_information(
    words: Any, *, lag: int = 1, correction: str = "none", n_words: int | None = None
) -> Floats:
    r"""Return the information :math:`I(w_t; w_{t+k})` of words about later words, nats.

    Parameters
    ----------
    words : (..., n_trials, n_times)
        Whole numbers from 0 on, as of `binary_words`. Pairs never span two trials.
    lag
        k, in bins, at least 1.
    correction
        As in `mutual_information`.
    n_words
        How many words there are; None: up to the largest.

    Returns
    -------
    information : (...)

    References
    ----------
    Bialek, Nemenman & Tishby (2001), https://doi.org/10.1162/089976601753195969

    Examples
    --------
    >>> round(float(predictive_information([[0, 1, 0, 1, 0, 1, 0, 1, 0]])), 4)
    0.6931
    """
    where = "predictive_information"
    lag = check_integer(where, "lag", lag, low=1)
    values = check_array(where, "words", words)
    if values.ndim < 2 or values.shape[-1] <= lag:
        found = f"words of shape {values.shape} at lag {lag}"
        expected = "(..., n_trials, n_times) with more times than the lag"
        raise ValueError(refusal(where, found, expected))
    n = int(values.max()) + 1 if n_words is None else n_words
    pairs = [
        part.reshape(*values.shape[:-2], -1) for part in (values[..., :-lag], values[..., lag:])
    ]
    return mutual_information(joint_count(*pairs, shape=(n, n)), correction=correction)


def gaussian_predictive_information(
    autocovariance: Any, *, n_past: int, n_future: int, gap: int = 0
) -> Floats:
    """Return the information of a stationary Gaussian series' past about its future, nats.

    Parameters
    ----------
    autocovariance : (..., n_lags)
        At lags 0, 1, ...; at least ``n_past + gap + n_future`` of them.
    n_past, n_future
        Samples of either.
    gap
        Samples left out between them.

    Examples
    --------
    >>> found = gaussian_predictive_information(0.8 ** np.arange(5), n_past=3, n_future=2)
    >>> round(float(found), 4)
    0.5108
    """
    where = "gaussian_predictive_information"
    sizes = [
        check_integer(where, name, value, low=low)
        for name, value, low in (("n_past", n_past, 1), ("n_future", n_future, 1), ("gap", gap, 0))
    ]
    values = check_array(where, "autocovariance", autocovariance).astype(np.float64)
    if values.ndim == 0 or values.shape[-1] < sum(sizes):
        found = f"an autocovariance of shape {values.shape}"
        raise ValueError(refusal(where, found, f"(..., n_lags) with {sum(sizes)} lags or more"))
    past, future, between = sizes
    at = np.concatenate([np.arange(past), past + between + np.arange(future)])
    return gaussian_information(values[..., np.abs(at[:, None] - at)], past)


def canonical_correlations(covariance: Any, n_x: int) -> Floats:
    """Return the canonical correlations of two parts of a random vector, largest first.

    Parameters
    ----------
    covariance : (n, n)
        Positive definite.
    n_x
        Size of the first part.

    Returns
    -------
    correlation : (min(n_x, n - n_x),)

    Examples
    --------
    >>> canonical_correlations([[2.0, 1.2], [1.2, 2.0]], 1).round(9)
    array([0.6])
    """
    where = "canonical_correlations"
    gaussian_information(covariance, n_x)
    matrix = check_array(where, "covariance", covariance, shape=("n", "n")).astype(np.float64)
    one, other = np.linalg.cholesky(matrix[:n_x, :n_x]), np.linalg.cholesky(matrix[n_x:, n_x:])
    half = scipy.linalg.solve_triangular(one, matrix[:n_x, n_x:], lower=True)
    whitened = scipy.linalg.solve_triangular(other, half.T, lower=True)
    return np.asarray(np.linalg.svd(whitened, compute_uv=False).clip(0.0, 1.0))


def gaussian_bottleneck(correlation: Any, information: Any) -> Floats:
    r"""Return the most that a code of the past can say of the future: the bottleneck curve.

    With canonical correlations :math:`\rho_i` between past and future, a code with n components
    and trade-off :math:`\beta` has

    .. math:: I(T;past) = \tfrac12 \sum_{i \le n} \ln \frac{(\beta - 1)\,\rho_i^2}{1-\rho_i^2},
        \qquad I(T;future) = I(T;past) - \tfrac12 \sum_{i \le n} \ln \beta\,\rho_i^2

    and the i-th component enters at :math:`\beta = 1/\rho_i^2`. No code of Gaussian past and future
    does better, be it discrete or not.

    Parameters
    ----------
    correlation : (n,)
        Canonical correlations, from 0 to below 1; one or more above 0.
    information : (...)
        I(T; past), nats, not negative.

    Returns
    -------
    bound : (...)
        The largest I(T; future), nats.

    Raises
    ------
    ValueError
        If nothing of the future can be predicted, or all of it.

    References
    ----------
    Chechik et al. (2005), J. Mach. Learn. Res. 6:165; Globerson & Tishby (2004)

    Examples
    --------
    >>> gaussian_bottleneck([0.6], [0.0, 0.5, 50.0]).round(4)  # the last is all there is
    array([0.    , 0.1291, 0.2231])
    """
    where = "gaussian_bottleneck"
    rho = np.sort(check_array(where, "correlation", correlation, shape=("n",)))[::-1]
    past = check_array(where, "information", information).astype(np.float64)
    square = rho[rho > 0].astype(np.float64) ** 2
    if square.size == 0 or square[0] >= 1 or (rho < 0).any():
        found = f"correlations from {rho.min(initial=np.inf):.6g} to {rho.max(initial=0.0):.6g}"
        raise ValueError(refusal(where, found, "numbers from 0 to below 1, one above 0"))
    if (past < 0).any():
        raise ValueError(refusal(where, f"information {past.min():.6g}", "at least 0"))
    odds = np.log(square) - np.log1p(-square)
    n = np.arange(1, square.size + 1)
    # What the past part carries when component n enters: beta - 1 = 1 / odds of that component.
    enters = 0.5 * (np.cumsum(odds) - n * odds)
    active = np.searchsorted(enters, past, side="right").clip(1)
    log_gain = (2.0 * past - np.cumsum(odds)[active - 1]) / active
    explained = np.cumsum(np.log(square))[active - 1]
    return np.asarray(past - 0.5 * (active * np.logaddexp(0.0, log_gain) + explained))
