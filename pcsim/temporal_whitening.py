"""Linear flows in time: autoregressive whitening, frame differences, and space with time.

Sequences are (..., time, feature); leading axes are trials.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from array_api_compat import array_namespace

from pcsim.arrays import Array, as_array, one_namespace, resolution
from pcsim.messages import check_integer, check_number, refusal

__all__ = [
    "FittedSpatioTemporal",
    "FittedTemporalAR",
    "Flow",
    "FrameDifference",
    "SpatioTemporal",
    "TemporalAR",
    "check_features",
]


class Flow(Protocol):
    """An invertible map of arrays."""

    def forward(self, x: Array) -> Array:
        """Return y."""

    def inverse(self, y: Array) -> Array:
        """Return the x that `forward` maps to `y`."""

    def log_det(self, x: Array) -> Array:
        """Return log of the absolute determinant of dy/dx at `x`."""


@runtime_checkable
class Fittable(Protocol):
    """The settings of a flow, to be fitted."""

    def fit(self, data: Array) -> Any:
        """Return the fitted flow."""


def check_features(
    value: Array, where: str, name: str, like: Array, n: int, ndim: int = 1
) -> Array:
    """Return `value` with `n` features on its last axis, in the library of `like`, or refuse it."""
    value = as_array(where, name, value, ndim=ndim)
    one_namespace(where, **{name: value, "filters": like})
    if value.shape[-1] != n:
        expected = f"shape (..., {n})" if ndim == 1 else f"shape (..., time, {n})"
        found = f"{name} of shape {tuple(value.shape)}"
        raise ValueError(refusal(where, found, expected, "Put the features on the last axis."))
    return value


@dataclass(frozen=True)
class TemporalAR:
    r"""Temporal whitening by linear prediction from the last `order` frames.

    .. math:: y_t = \Big(x_t - m - \sum_{k=1}^{p} a_k (x_{t-k} - m)\Big) / \sigma

    Frame t < `order` is predicted from the t frames there are, by the best predictor of that order
    with its own :math:`\sigma`, so a stationary autoregressive input is white from frame 0 on. The
    coefficients solve the Yule-Walker equations of the (biased, hence positive) autocovariance.

    References
    ----------
    Dong & Atick (1995), https://doi.org/10.1088/0954-898X_6_2_003

    Examples
    --------
    >>> x = np.array([[0.0], [1.0], [0.0], [-1.0]])
    >>> TemporalAR(order=1).fit(x).forward(x)[0].round(3)
    array([0.])
    """

    order: int = 1
    ridge: float = 0.0
    """Added to the variance, relative to it."""
    shared: bool = True
    """One filter for all features (their autocovariances averaged), or one for each."""

    def __post_init__(self) -> None:
        check_integer("TemporalAR", "order", self.order, low=1)
        object.__setattr__(self, "ridge", check_number("TemporalAR", "ridge", self.ridge, low=0.0))

    def fit(self, data: Array) -> FittedTemporalAR:
        """Return the whitening of sequences (..., time, feature), their leading axes pooled.

        Raises
        ------
        ValueError
            If the sequences are too short or a feature is constant.
        """
        where = "TemporalAR.fit"
        data = as_array(where, "data", data, ndim=2)
        xp = array_namespace(data)
        n_time, n = data.shape[-2:]
        if n_time <= self.order or 0 in data.shape:
            found = f"data of shape {tuple(data.shape)}"
            expected = f"(..., time, feature) with more than {self.order} frames"
            raise ValueError(refusal(where, found, expected, "Lower order or give longer data."))
        flat = xp.reshape(data, (-1, n_time, n))
        mean = xp.mean(flat, axis=(0, 1))
        lags = self._autocovariance(flat - mean, xp)
        lags[0] = lags[0] * (1 + self.ridge)
        if not bool(xp.all(lags[0] > 0)):
            found = f"{n_time} frames in which a feature never varies"
            raise ValueError(refusal(where, found, "features that vary", "Drop the constant ones."))
        return self._solve(lags, mean, xp)

    def _autocovariance(self, centred: Array, xp: Any) -> list[Array]:
        """Return (n,) for lags 0 to `order`, divided by the number of frames whatever the lag."""
        n_trials, n_time = centred.shape[:2]
        lags = []
        for k in range(self.order + 1):
            products = centred[:, k:, :] * centred[:, : n_time - k, :]
            lag = xp.sum(products, axis=(0, 1)) / (n_trials * n_time)
            lags.append(xp.zeros_like(lag) + xp.mean(lag) if self.shared else lag)
        return lags

    def _solve(self, lags: list[Array], mean: Array, xp: Any) -> FittedTemporalAR:
        """Solve the Yule-Walker equations of every order up to `order` (Levinson's recursion)."""
        zero = xp.zeros_like(lags[0])
        coefficients, variances = [[zero] * self.order], [lags[0]]
        for k in range(1, self.order + 1):
            last = coefficients[-1]
            rest = lags[k] - sum((last[j] * lags[k - 1 - j] for j in range(k - 1)), zero)
            partial = rest / variances[-1]
            now = [last[j] - partial * last[k - 2 - j] for j in range(k - 1)]
            coefficients.append([*now, partial] + [zero] * (self.order - k))
            variances.append(variances[-1] * (1 - partial) * (1 + partial))
            floor = 100 * resolution(mean, xp) * lags[0]
            if not bool(xp.all(variances[-1] > floor)):
                found = f"a feature that {k} frames predict without error at ridge {self.ridge:g}"
                advice = (
                    f"1e-6 would do as ridge, or order {k - 1}." if k > 1 else "Set ridge=1e-6."
                )
                raise ValueError(refusal("TemporalAR.fit", found, "some surprise", advice))
        stacked = xp.stack([xp.stack(row, axis=0) for row in coefficients], axis=0)
        return FittedTemporalAR(mean, stacked, xp.sqrt(xp.stack(variances, axis=0)))


@dataclass(frozen=True, eq=False)
class FittedTemporalAR:
    """A temporal whitening with its numbers; row k of both arrays serves k frames of past."""

    mean: Array
    """(n,)."""
    coefficients: Array
    """(order + 1, order, n): weight of the frame one back, two back, ... in the prediction."""
    sigma: Array
    """(order + 1, n): standard deviation of what is not predicted."""

    @property
    def order(self) -> int:
        """Number of past frames used, once there are so many."""
        return int(self.coefficients.shape[1])

    @property
    def filters(self) -> Array:
        """(order + 1, n): the full filter; entry k weighs the frame k back."""
        xp = array_namespace(self.mean)
        one = xp.ones_like(self.sigma[-1:, :])
        return xp.concat([one, -self.coefficients[-1, ...]], axis=0) / self.sigma[-1, :]

    def forward(self, x: Array) -> Array:
        """Return the whitened sequence of `x` (..., time, n)."""
        x = check_features(x, "TemporalAR.forward", "x", self.mean, self.mean.shape[0], 2)
        xp = array_namespace(x)
        centred = x - self.mean
        start = min(self.order, x.shape[-2])
        head = [self._surprise(centred, t, xp) for t in range(start)]
        body = centred[..., start:, :]
        for k in range(1, self.order + 1):
            past = centred[..., start - k : x.shape[-2] - k, :] if start == self.order else body
            body = body - self.coefficients[-1, k - 1, :] * past
        return xp.concat([*head, body / self.sigma[-1, :]], axis=-2)

    def _surprise(self, centred: Array, t: int, xp: Any) -> Array:
        predicted = self._predict([centred[..., j : j + 1, :] for j in range(t)], t)
        return (centred[..., t : t + 1, :] - predicted) / self.sigma[t, :]

    def _predict(self, past: list[Array], t: int) -> Any:
        row = min(t, self.order)
        recent = past[::-1][:row]
        pairs = enumerate(recent)
        return sum((self.coefficients[row, k, :] * frame for k, frame in pairs), 0.0)

    def inverse(self, y: Array) -> Array:
        """Return the sequence that `forward` maps to `y`, frame after frame."""
        y = check_features(y, "TemporalAR.inverse", "y", self.mean, self.mean.shape[0], 2)
        xp = array_namespace(y)
        frames: list[Array] = []
        for t in range(y.shape[-2]):
            scaled = self.sigma[min(t, self.order), :] * y[..., t : t + 1, :]
            frames.append(scaled + self._predict(frames[-self.order :], t))
        return xp.concat(frames, axis=-2) + self.mean if frames else y

    def log_det(self, x: Array) -> Array:
        """Return log of the absolute determinant of a whole sequence, (...,)."""
        x = check_features(x, "TemporalAR.log_det", "x", self.mean, self.mean.shape[0], 2)
        xp = array_namespace(x)
        n_time, logs = x.shape[-2], -xp.sum(xp.log(self.sigma), axis=-1)
        start = min(self.order, n_time)
        total = xp.sum(logs[:start]) + (n_time - start) * logs[-1]
        return xp.sum(xp.zeros_like(x), axis=(-2, -1)) + total


@dataclass(frozen=True)
class FrameDifference:
    """Temporal whitening of a random walk: every frame minus the one before, frame 0 as it is.

    Examples
    --------
    >>> FrameDifference().forward(np.array([[1.0], [3.0], [2.0]]))[:, 0]
    array([ 1.,  2., -1.])
    """

    def fit(self, data: Array) -> FrameDifference:
        """Return itself: there is nothing to fit."""
        as_array("FrameDifference.fit", "data", data, ndim=2)
        return self

    def forward(self, x: Array) -> Array:
        """Return the differences of `x` (..., time, n)."""
        x = as_array("FrameDifference.forward", "x", x, ndim=2)
        xp = array_namespace(x)
        return xp.concat([x[..., :1, :], x[..., 1:, :] - x[..., :-1, :]], axis=-2)

    def inverse(self, y: Array) -> Array:
        """Return the running sum of `y` (..., time, n)."""
        y = as_array("FrameDifference.inverse", "y", y, ndim=2)
        xp = array_namespace(y)
        return xp.cumulative_sum(y, axis=-2)

    def log_det(self, x: Array) -> Array:
        """Return zeros (...,): differences keep volume."""
        x = as_array("FrameDifference.log_det", "x", x, ndim=2)
        xp = array_namespace(x)
        return xp.sum(xp.zeros_like(x), axis=(-2, -1))


@dataclass(frozen=True)
class SpatioTemporal:
    """Spatial whitening of every frame, then temporal whitening of every output.

    Examples
    --------
    >>> from pcsim.whitening import Whitening
    >>> movie = np.random.default_rng(0).normal(size=(4, 50, 3)).cumsum(axis=1)
    >>> white = SpatioTemporal(Whitening("zca"), TemporalAR(order=1)).fit(movie)
    >>> bool(np.allclose(white.inverse(white.forward(movie)), movie))
    True
    """

    spatial: Fittable
    temporal: Fittable

    def __post_init__(self) -> None:
        for name in ("spatial", "temporal"):
            if not isinstance(getattr(self, name), Fittable):
                found = f"{name} of type {type(getattr(self, name)).__name__}"
                advice = "Give Whitening(...) and TemporalAR(...) or FrameDifference()."
                raise TypeError(refusal("SpatioTemporal", found, "settings with fit", advice))

    def fit(self, data: Array) -> FittedSpatioTemporal:
        """Return the flow fitted to sequences (..., time, feature), temporal after spatial."""
        data = as_array("SpatioTemporal.fit", "data", data, ndim=2)
        spatial = self.spatial.fit(data)
        return FittedSpatioTemporal(spatial, self.temporal.fit(spatial.forward(data)))


@dataclass(frozen=True, eq=False)
class FittedSpatioTemporal:
    """The composition of a fitted spatial and a fitted temporal flow."""

    spatial: Flow
    temporal: Flow

    def forward(self, x: Array) -> Array:
        """Return the whitened sequence of `x` (..., time, n)."""
        return self.temporal.forward(self.spatial.forward(x))

    def inverse(self, y: Array) -> Array:
        """Return the sequence that `forward` maps to `y`."""
        return self.spatial.inverse(self.temporal.inverse(y))

    def log_det(self, x: Array) -> Array:
        """Return log of the absolute determinant of a whole sequence, (...,)."""
        x = as_array("SpatioTemporal.log_det", "x", x, ndim=2)
        xp = array_namespace(x)
        frames = xp.sum(self.spatial.log_det(x), axis=-1)
        return frames + self.temporal.log_det(self.spatial.forward(x))
