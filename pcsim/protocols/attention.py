"""Attention as a gain on precision: who has it, and responses with and without it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from scipy.optimize import least_squares

from pcsim.circuit import Circuit
from pcsim.model import Model, lesion
from pcsim.protocols.signals import recording, visual_field
from pcsim.stimuli import gratings

__all__ = [
    "AttentionControl",
    "attend",
    "attends_to_places",
    "gain_preference",
    "lacks_attention",
    "read_signals",
    "show_gratings",
]

Floats = NDArray[np.float64]

ERRORS = ("weighted_error", "error")
PHASES = np.arange(2) * np.pi / 2
"""In quadrature; what contrast reversal adds is nothing new in a unit that is odd in contrast."""
RESPONSE, CONTRAST = 0, 1
EVERY = 0.05
"""Seconds between recorded times."""


def _fields(model: Any) -> set[str]:
    return {f.name for f in dataclasses.fields(model)} if dataclasses.is_dataclass(model) else set()


def attends_to_places(model: Any) -> bool:
    """Tell whether attention can be given to a place, and not only to all of the field."""
    return bool({"attention_gain", "attention"} & _fields(model))


def attend(
    model: Any, gain: float, *, x: float = 0.0, y: float = 0.0, sigma: float = float("inf")
) -> Any:
    """Return the model with the precision of its errors raised in a Gaussian attention field.

    A circuit with `attention_gain` is told gain and field; one with `attention` (factors for each
    area) gets the factors of its errors in V1; one with a number `precision` (Rao & Ballard) has it
    multiplied, wherever attention is. A model with none of them is returned as it is.
    """
    fields = _fields(model)
    if "attention_gain" in fields:
        place = {"attention_x": x, "attention_y": y, "attention_sigma": sigma}
        return lesion(model, attention_gain=gain, **place)
    if "attention" in fields:
        own = next(p for p in model.populations if p.area == "V1" and p.population in ERRORS)
        distance = np.hypot(np.asarray(own.x) - x, np.asarray(own.y) - y)
        factor = gain ** np.exp(-0.5 * (distance / sigma) ** 2)
        return lesion(model, attention=(1.0, factor))
    if isinstance(getattr(model, "precision", None), int | float):
        # Steeper energies need finer steps.
        finer = {"dt": model.dt / np.ceil(max(gain, 1.0))} if "dt" in fields else {}
        return lesion(model, precision=gain * model.precision, **finer)
    return model


def lacks_attention(model: Any) -> str:
    """Return why attention cannot raise the precision of errors in a model's V1, "" if it can."""
    if model.field_shape is None:
        return "it sees no images"
    number = isinstance(getattr(model, "precision", None), int | float)
    if not (attends_to_places(model) or number):
        return "it has no precision that attention could raise"
    roles = {p.population for p in getattr(model, "populations", ()) if p.area == "V1"}
    if not (roles & set(ERRORS) and "latent" in roles) and not isinstance(model, AttentionControl):
        return "it has no pairs of error units and latents in V1"
    return ""


def read_signals(responses: xr.Dataset) -> dict[str, Floats]:
    """Return the rates (trial, time, unit) of errors and of estimates in V1, in the same order."""
    role = responses["population"].values.astype(str)
    here = responses["area"].values.astype(str) == "V1"
    rate = responses["rate"].transpose("trial", "time", "unit").to_numpy()
    error = here & np.isin(role, ERRORS)
    return {"error": rate[..., error], "estimate": rate[..., here & (role == "latent")]}


def show_gratings(
    model: Any, units: xr.Dataset, shown: Mapping[str, Any], *, duration: float, seed: int
) -> tuple[dict[str, Floats], NDArray[Any], xr.Dataset]:
    """Show each unit its own gratings, at the stated changes of what it prefers, and a blank.

    Parameters
    ----------
    model, units
        As `pcsim.protocols.fitted_units` returned them.
    shown
        `turn` (radians from the preferred orientation), `contrast` and `diameter` (degrees, one a
        unit, or None): sequences of equal length, one entry a grating.

    Returns
    -------
    driven : dict
        "error" and "estimate" -> (unit, grating, time): root of the summed squares over two phases
        in quadrature of the rate less that of the blank.
    blank : (2, unit, time)
        Rates of error and estimate without a stimulus.
    responses
        Of all units of V1.
    """
    n_units, n = units.sizes["unit"], len(shown["turn"])
    shape = (n_units, n, PHASES.size)

    def spread(values: Any) -> Floats:
        return np.broadcast_to(values, shape).ravel()

    trials: dict[str, Any] = {
        "x": spread(units["x"].values[:, None, None]),
        "y": spread(units["y"].values[:, None, None]),
        "spatial_frequency": spread(units["spatial_frequency"].values[:, None, None]),
        "diameter": spread(np.asarray(shown["diameter"])[:, None, None]),
        "orientation": spread(
            units["orientation"].values[:, None, None] + np.asarray(shown["turn"])[:, None]
        ),
        "contrast": spread(np.asarray(shown["contrast"])[:, None]),
        "phase": spread(PHASES),
    }
    trials = {name: np.append(values, values[0]) for name, values in trials.items()}
    trials["contrast"][-1] = 0.0
    field, px_per_deg = visual_field(model)
    stimulus = gratings(field, **trials, duration=duration, px_per_deg=px_per_deg)
    record = None
    if isinstance(model, Circuit):
        wanted = (*ERRORS, "latent")
        record = [p.name for p in model.populations if p.area == "V1" and p.population in wanted]
    responses = recording(model, EVERY).run(stimulus, seed=seed, record=record)
    index, driven, blanks = units["index"].to_numpy(), {}, []
    for name, rate in read_signals(responses).items():
        own = rate[:-1].reshape(*shape, *rate.shape[1:])
        own = own[np.arange(n_units), :, :, :, index]  # (unit, grating, phase, time)
        blank = rate[-1][:, index].T
        driven[name] = np.sqrt(((own - blank[:, None, None]) ** 2).sum(axis=2))
        blanks.append(blank)
    return driven, np.stack(blanks), responses


def gain_preference(
    contrast: Sequence[float], plain: Floats, attended: Floats, *, standard_error: float = 0.05
) -> float:
    """Return AIC(contrast gain) - AIC(response gain) of two contrast response curves.

    Both are Naka-Rushton functions of one exponent; contrast gain lets the semisaturation differ,
    response gain the largest response. Above 0 the response gain describes them better.

    Parameters
    ----------
    contrast, plain, attended : (contrast,)
        Contrasts above 0, and responses that are 0 without contrast.
    standard_error
        Of every point, in shares of the largest response.

    Examples
    --------
    >>> from pcsim.measures import naka_rushton
    >>> c = np.array([0.06, 0.12, 0.25, 0.5, 1.0])
    >>> plain = naka_rushton(c, (1.0, 0.2, 2.0, 0.0))
    >>> bool(gain_preference(c, plain, 1.5 * plain) > 10)
    True
    >>> bool(gain_preference(c, plain, naka_rushton(c, (1.0, 0.1, 2.0, 0.0))) < -10)
    True
    """
    both = np.concatenate([plain, attended]) / max(float(np.max(attended)), 1e-12)
    log_contrast = np.tile(np.log(np.asarray(contrast, dtype=np.float64)), 2)
    second = np.repeat([0.0, 1.0], len(plain))

    def fit(changes: int) -> float:
        """Return the smallest sum of squares over r_max, c50, n and the change, all as logs."""

        def residual(p: Floats) -> Floats:
            r_max = np.exp(p[0] + (p[3] * second if changes == RESPONSE else 0.0))
            log_c50 = p[1] - (p[3] * second if changes == CONTRAST else 0.0)
            return np.asarray(
                r_max / (1.0 + np.exp(np.exp(p[2]) * (log_c50 - log_contrast))) - both
            )

        low, high = np.array([-6.0, -5.0, -1.2, -3.0]), np.array([6.0, 4.0, 2.1, 3.0])
        starts = [[0.0, np.log(h), np.log(n), 0.2] for h in (0.1, 0.4, 2.0) for n in (1.0, 2.0)]
        fits = [least_squares(residual, s, bounds=(low, high), max_nfev=200) for s in starts]
        return min(2.0 * float(one.cost) for one in fits)

    return (fit(CONTRAST) - fit(RESPONSE)) / standard_error**2


@dataclass(frozen=True, kw_only=True)
class AttentionControl:
    """A control that attends in another way than by precision.

    "contrast": the stimulus itself has g times the contrast in the attention field. "prior": the
    prior mean of the latents is shifted by g - 1 there; where a model's prior has no mean, its
    rates are, which in a linear circuit is the same.
    """

    original: Any
    acts: str
    attention_gain: float = 1.0
    attention_x: float = 0.0
    attention_y: float = 0.0
    attention_sigma: float = float("inf")
    record_dt: float | None = None

    @property
    def field_shape(self) -> tuple[int, int] | None:
        """Rows and columns of the original's field."""
        return cast("Model", self.original).field_shape

    @property
    def px_per_deg(self) -> float | None:
        """Pixels per degree of the original."""
        return cast("Model", self.original).px_per_deg

    def run(
        self, stimulus: xr.DataArray, *, seed: int = 0, record: Sequence[str] | None = None
    ) -> xr.Dataset:
        """Return the responses of the original without attention to its precision."""
        model = lesion(self.original, record_dt=self.record_dt)
        extra = self.attention_gain - 1.0
        if self.acts == "contrast":
            stimulus = stimulus.copy(data=self._raised(stimulus))
            return cast("xr.Dataset", model.run(stimulus, seed=seed, record=record))
        if "prior_mean" in _fields(model):
            place = {f"attention_{n}": getattr(self, f"attention_{n}") for n in ("x", "y", "sigma")}
            model = lesion(model, prior_mean=extra, **place)
            return cast("xr.Dataset", model.run(stimulus, seed=seed, record=record))
        responses = model.run(stimulus, seed=seed, record=record)
        return cast("xr.Dataset", responses.assign(rate=responses["rate"] + extra))

    def _raised(self, stimulus: xr.DataArray) -> Floats:
        ny, nx = stimulus.sizes["y"], stimulus.sizes["x"]
        scale = float(stimulus["px_per_deg"])
        x = (np.arange(nx) - (nx - 1) / 2) / scale - self.attention_x
        y = ((ny - 1) / 2 - np.arange(ny)) / scale - self.attention_y
        distance = np.hypot(x[None], y[:, None])
        shape = np.exp(-0.5 * (distance / self.attention_sigma) ** 2)
        factor = self.attention_gain**shape
        values = 0.5 + factor * (stimulus.to_numpy() - 0.5)
        return np.asarray(np.clip(values, 0.0, 1.0))
