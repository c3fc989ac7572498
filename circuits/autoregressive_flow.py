r"""A sequential autoregressive flow of natural movies (Marino's thesis, equation 8.1).

.. math:: y_t = \frac{x_t - \mu(x_{<t})}{\sigma(x_{<t})}, \qquad
    \mu = b + \sum_{k=1}^K \sum_n a_{kn}\,x_{t-k,n}, \qquad
    \sigma^2 = v_0 + \sum_{k=1}^{K-1} \left( v_k\,d_{t-k}^2 + w_k\,\bar d_{t-k}^2 \right)

for each pixel, with n over itself and its four neighbours, :math:`d_t = x_t - x_{t-1}` its last
change and :math:`\bar d^2` the mean of the neighbours' squared changes: a network without hidden
units for the mean, and a conditional variance that follows recent change (Engle 1982). Fitted by
maximum likelihood, :math:`\log p(x_t|x_{<t}) = -y_t^2/2 - \log \sigma + \text{const}`. The output y
is normalised error; the prediction is :math:`\mu` and the precision :math:`1/\sigma^2`. Before a
stimulus lies grey.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, NamedTuple

import numpy as np
import xarray as xr
from scipy.optimize import minimize

from pcsim.messages import check_number, refusal, unknown_name
from pcsim.responses import check_stimulus, make_responses

__all__ = ["MODEL", "AutoregressiveFlow"]

SIDE, N_PAST, N_PIXELS = 13, 4, 5
"""Outputs a side; frames of the past; a pixel and its neighbours."""
NEIGHBOURS = ((0, 0), (-1, 0), (1, 0), (0, -1), (0, 1))
N_ROWS = 60_000
"""Pairs of past and pixel, drawn from the training movies."""
FLOOR = 1e-6
"""Smallest variance, of luminance from 0 to 1."""


class Named(NamedTuple):
    """Units that are recorded together."""

    name: str
    level: int
    population: str


@dataclass(frozen=True, kw_only=True)
class AutoregressiveFlow:
    """One step of the flow at each pixel, with weights that all pixels share."""

    mean_weights: Any = field(default_factory=lambda: np.zeros((N_PAST, N_PIXELS)))
    """(4, 5) of past frames, the last first, and of the pixel and its neighbours."""
    offset: float = 0.0
    variance: float = 0.02
    """v_0; the default is about that of natural luminance."""
    change_weights: Any = field(default_factory=lambda: np.zeros((N_PAST - 1, 2)))
    """(3, 2) of squared changes, the last first: the pixel's own and its neighbours' mean."""
    step: float = 0.008
    """Seconds from one x to the next; longer frames are read again at each step."""
    record_dt: float | None = None
    """Seconds between recorded times; None records each step."""

    curriculum: ClassVar[str] = "sequences"
    n_training: ClassVar[Mapping[str, int]] = {"quick": 24, "full": 64}

    def __post_init__(self) -> None:
        check_number(type(self).__name__, "step", self.step, positive=True)
        check_number(type(self).__name__, "variance", self.variance, positive=True)

    @property
    def field_shape(self) -> tuple[int, int]:
        """Rows and columns of the visual field: outputs and a pixel around them."""
        return SIDE + 2, SIDE + 2

    @property
    def px_per_deg(self) -> float:
        """Pixels per degree of visual angle."""
        return 16.0

    @property
    def populations(self) -> tuple[Named, ...]:
        """The output, and what is predicted of the input."""
        return (
            Named("prediction", 0, "prediction"),
            Named("precision", 0, "precision"),
            Named("output", 1, "output"),
        )

    def run(
        self, stimulus: xr.DataArray, *, seed: int = 0, record: Sequence[str] | None = None
    ) -> xr.Dataset:
        """Return the responses to `stimulus`; of the populations named in `record`, or of all."""
        check_stimulus(stimulus, type(self).__name__)
        names = [one.name for one in self.populations]
        for name in record or ():
            if name not in names:
                raise unknown_name(type(self).__name__, "population", name, names)
        x = self.prepare(stimulus)
        mean, variance = self.predict(x)
        y = (inner(x) - mean) / np.sqrt(variance)
        rates = {"prediction": mean, "precision": 1.0 / variance, "output": y}
        chosen = [one for one in self.populations if record is None or one.name in record]
        n = x.shape[1]
        every = self.step if self.record_dt is None else self.record_dt
        duration = stimulus.sizes["time"] * float(stimulus["frame_duration"])
        times = every * np.arange(1, int(max(duration, self.step) / every + 1e-6) + 1)
        index = np.clip(np.ceil(times / self.step - 1e-6).astype(int) - 1, 0, n - 1)
        rate = np.concatenate(
            [rates[one.name][:, index].reshape(len(x), len(times), -1) for one in chosen], 2
        )
        rows, columns = np.indices((SIDE, SIDE)).reshape(2, -1)
        middle = (SIDE - 1) / 2
        units = {
            "name": np.repeat([one.name for one in chosen], SIDE**2),
            "population": np.repeat([one.population for one in chosen], SIDE**2),
            "level": np.repeat([one.level for one in chosen], SIDE**2),
            "area": "LGN",
            "x": np.tile((columns - middle) / self.px_per_deg, len(chosen)),
            "y": np.tile((middle - rows) / self.px_per_deg, len(chosen)),
        }
        return make_responses(rate, time=times, units=units, trial=stimulus)

    def prepare(self, stimulus: xr.DataArray) -> Any:
        """Return luminance relative to grey at each step, (trial, step, 15, 15)."""
        if stimulus.shape[2:] != self.field_shape:
            found, expected = f"images of {stimulus.shape[2:]} px", f"{self.field_shape}"
            raise ValueError(refusal(type(self).__name__, found, expected, "Crop or resize them."))
        duration = float(stimulus["frame_duration"])
        n = max(round(stimulus.sizes["time"] * duration / self.step), 1)
        shown = np.floor((np.arange(n) + 0.5) * self.step / duration).astype(int)
        return stimulus.values[:, np.minimum(shown, stimulus.sizes["time"] - 1)] - 0.5

    def predict(self, x: Any) -> tuple[Any, Any]:
        """Return mean and variance of each step of `x` given those before, (..., step, 13, 13)."""
        mean = np.full(inner(x).shape, float(self.offset))
        variance = np.full(mean.shape, float(self.variance))
        for weights, one in zip(self.mean_weights, pasts(x, N_PAST), strict=True):
            for weight, part in zip(weights, around(one), strict=True):
                mean += weight * part
        for (own, others), square in zip(self.change_weights, changes(x), strict=True):
            first, *rest = around(square)
            variance += own * first + others * sum(rest) / len(rest)
        return mean, variance

    def untrained(self, *, seed: int) -> AutoregressiveFlow:
        """Return the flow that predicts nothing and knows the variance of nothing."""
        fresh = type(self)()
        names = ("mean_weights", "offset", "variance", "change_weights")
        return replace(self, **{name: getattr(fresh, name) for name in names})

    def fit(self, stimulus: xr.DataArray, *, seed: int = 0) -> AutoregressiveFlow:
        """Maximise the likelihood of movies, from the least squares of the mean."""
        target, past, square = design(self.prepare(stimulus), np.random.default_rng([seed, 81]))
        start = np.linalg.lstsq(past, target, rcond=None)[0]
        spread = float(((target - past @ start) ** 2).mean())
        log_v = np.log([max(0.5 * spread, 2 * FLOOR), *np.full(square.shape[1] - 1, 0.05)])
        n = len(start)
        # Weights in units of the errors, so that the search is as curved in all of them.
        unit = np.sqrt(spread) / np.maximum(past.std(0), 1e-3)
        unit[-1] = np.sqrt(spread)

        def loss(point: Any) -> tuple[float, Any]:
            v = np.exp(point[n:])
            variance = square @ v + FLOOR
            error = target - past @ (unit * point[:n])
            relative = error**2 / variance
            by_mean = -unit * (past.T @ (error / variance)) / len(target)
            by_v = 0.5 * v * (square.T @ ((1.0 - relative) / variance)) / len(target)
            value = 0.5 * float((relative + np.log(variance)).mean())
            return value, np.concatenate([by_mean, by_v])

        bounds = [(None, None)] * n + [(-16.0, 3.0)] * square.shape[1]
        point = np.concatenate([start / unit, log_v])
        found = minimize(loss, point, jac=True, method="L-BFGS-B", bounds=bounds)
        weights, v = unit * found.x[:n], np.exp(found.x[n:])
        return replace(
            self,
            mean_weights=weights[:-1].reshape(N_PAST, N_PIXELS),
            offset=float(weights[-1]),
            variance=float(v[0]) + FLOOR,
            change_weights=v[1:].reshape(N_PAST - 1, 2),
        )


def inner(x: Any) -> Any:
    """Return images without their outermost pixels."""
    return x[..., 1:-1, 1:-1]


def around(x: Any) -> list[Any]:
    """Return each inner pixel and its four neighbours, N_PIXELS arrays."""
    ny, nx = x.shape[-2:]
    return [x[..., 1 + i : ny - 1 + i, 1 + j : nx - 1 + j] for i, j in NEIGHBOURS]


def pasts(x: Any, n: int) -> list[Any]:
    """Return `x` (..., step, y, x) 1 to n steps ago, grey before the start."""
    out = []
    for k in range(1, n + 1):
        late = np.zeros_like(x)
        late[..., k:, :, :] = x[..., : max(x.shape[-3] - k, 0), :, :]
        out.append(late)
    return out


def changes(x: Any) -> list[Any]:
    """Return squared changes from step t - k - 1 to t - k, for k from 1 to N_PAST - 1."""
    late = pasts(x, N_PAST)
    return [(late[k] - late[k + 1]) ** 2 for k in range(N_PAST - 1)]


def design(x: Any, rng: np.random.Generator) -> tuple[Any, Any, Any]:
    """Draw rows for the fit: pixels, their pasts and 1, 1 and their squared changes."""
    columns = [part for one in pasts(x, N_PAST) for part in around(one)]
    squares = []
    for square in changes(x):
        first, *rest = around(square)
        squares += [first, sum(rest) / len(rest)]
    kept = [one[:, N_PAST:].ravel() for one in (inner(x), *columns, *squares)]
    chosen = rng.permutation(len(kept[0]))[:N_ROWS]
    target, *others = (one[chosen] for one in kept)
    ones = np.ones_like(target)
    past = np.column_stack([*others[: len(columns)], ones])
    return target, past, np.column_stack([ones, *others[len(columns) :]])


MODEL = AutoregressiveFlow()
