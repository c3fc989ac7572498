r"""Rhythms between levels: who influences whom at which frequency, in which circuit.

A pair is the errors of a level and the estimates (latent units) one level up. Errors go forward to
the estimates, predictions come back. Each has a potential, the summed speed of its rates, and the
Granger causality between the two potentials says which direction dominates in a band.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr

from pcsim.circuit import Circuit, simulate_replicas
from pcsim.measures import (
    Tapers,
    chance_coherence,
    directed_asymmetry,
    lfp_proxy,
    power_drift,
    spectral_granger,
)
from pcsim.measures.spectra import _sampling
from pcsim.messages import check_integer, check_number, refusal
from pcsim.model import Model, lesion
from pcsim.protocols.signals import blank, visual_field
from pcsim.responses import select
from pcsim.stimuli import natural_sequences

__all__ = [
    "BANDS",
    "TAPERS",
    "error_estimate_pairs",
    "noisy_movies",
    "pair_influence",
    "pair_potentials",
    "pair_responses",
    "steady_responses",
]

TAPERS = Tapers(half_bandwidth=3.0, n_tapers=3, segment=2 / 3)
"""Plus and minus 3 Hz with 2 T W - 1 = 3 tapers are segments of 2/3 s."""
BANDS: Mapping[str, tuple[float, float]] = {"gamma": (60.0, 80.0), "beta": (14.0, 18.0)}
"""Where forward and backward influences peak between areas of the macaque (Bastos et al. 2015,
https://doi.org/10.1016/j.neuron.2014.12.018), Hz."""
UNSTEADY, DETECTED, HIGHEST = 100.0, 1.5, 120.0
FRAME, STEP = 0.004, 0.002
"""Seconds a frame, and between recorded rates: both reach beyond 100 Hz."""


def noisy_movies(
    model: Model, *, n: int, duration: float, noise: float = 0.05, seed: int
) -> xr.DataArray:
    """Return natural sequences with white luminance noise, which drives all frequencies alike.

    Parameters
    ----------
    model
        Whose field they fill.
    n, duration
        Number of trials, and their length in seconds.
    noise
        Standard deviation of the luminance noise, drawn anew for each frame and pixel; the sum is
        clipped to the range of luminance.
    seed
        Of both.
    """
    where = "noisy_movies"
    field, px_per_deg = visual_field(model)
    spread = check_number(where, "noise", noise, low=0.0)
    n_frames = round(check_number(where, "duration", duration, positive=True) / FRAME)
    movie = natural_sequences(
        field, n=check_integer(where, "n", n, low=1), n_frames=n_frames, frame_duration=FRAME,
        px_per_deg=px_per_deg, seed=seed + 31_000,
    )  # fmt: skip
    rng = np.random.default_rng([seed, 31])
    luminance = movie.to_numpy() + spread * rng.standard_normal(movie.shape)
    return movie.copy(data=np.clip(luminance, 0.0, 1.0))


def error_estimate_pairs(model: Model) -> dict[int, tuple[str, str]]:
    """Return the levels that have errors, and estimates one level above.

    Returns
    -------
    pairs
        Level of the errors -> names of their area and of the area of the estimates.

    Examples
    --------
    >>> from pcsim.circuits.rao_ballard_1999 import MODEL
    >>> error_estimate_pairs(MODEL)
    {0: ('LGN', 'V1'), 1: ('V1', 'V2')}
    """
    if model.field_shape is None:
        return {}
    units = lesion(model, record_dt=None).run(blank(model), seed=0)
    columns = (units[name].values.tolist() for name in ("population", "level", "area"))
    areas: dict[tuple[str, int], str] = {}
    for role, level, area in zip(*columns, strict=True):
        areas.setdefault((_plain(role), int(level)), area or f"level {level}")
    levels = sorted(level for role, level in areas if role == "error")
    return {
        level: (areas["error", level], areas["latent", level + 1])
        for level in levels
        if ("latent", level + 1) in areas
    }


def _plain(role: str) -> str:
    """Return a role without the sign that its units carry."""
    return role.removesuffix("_pos").removesuffix("_neg")


def pair_responses(
    models: Sequence[Any],
    stimulus: xr.DataArray,
    *,
    levels: Sequence[int],
    onset: float = 0.5,
    noise: float = 0.5,
    seed: int = 0,
) -> list[xr.Dataset]:
    """Return the rates of the errors of some levels and of the estimates above, for each model.

    Circuits run as replicas in one batch, other models one by one.

    Parameters
    ----------
    models
        Of one declaration, with different numbers.
    stimulus
        Shown to all.
    levels
        Of the errors.
    onset
        Seconds that are left out at the start.
    noise
        Given to models with a field `noise`; the others have that of the stimulus alone.
    seed
        Of the noise.

    Raises
    ------
    RuntimeError
        If one of the circuits diverges.
    """
    noisy = [lesion(model, record_dt=STEP, noise=noise) for model in models]
    wanted = {("error", level) for level in levels}
    wanted |= {("latent", level + 1) for level in levels}
    parts = getattr(noisy[0], "populations", None)
    record = None
    if parts is not None:
        record = [p.name for p in parts if (_plain(p.population), p.level) in wanted]
    if isinstance(noisy[0], Circuit):
        batch = simulate_replicas(noisy, stimulus, seed=seed, record=record)
        replica = batch["replica"].values
        found = [batch.isel(trial=replica == k) for k in range(len(models))]
    else:
        found = [one.run(stimulus, seed=seed, record=record) for one in noisy]
    return [select(one, time=slice(onset, None)) for one in found]


def steady_responses(
    models: Sequence[Any], stimulus: xr.DataArray, **options: Any
) -> list[xr.Dataset | None]:
    """Return `pair_responses`, with None for each circuit that diverges.

    Parameters
    ----------
    models, stimulus, **options
        As for `pair_responses`.
    """
    try:
        return list(pair_responses(models, stimulus, **options))
    except RuntimeError:
        if len(models) == 1:
            return [None]
    return [steady_responses([model], stimulus, **options)[0] for model in models]


def pair_potentials(responses: xr.Dataset, level: int) -> xr.DataArray:
    """Return the potentials (trial, time, site) of a pair: sites "error" and "estimate".

    Parameters
    ----------
    responses
        Of `pair_responses`.
    level
        Of the errors.
    """
    here = responses["level"].values == level
    roles = np.unique(responses["population"].values[here]).tolist()
    errors = [role for role in roles if _plain(role) == "error"]
    if not errors:
        found = f"no errors of level {level}"
        raise ValueError(refusal("pair_potentials", found, "a level that has them"))
    sites = {
        "error": {"population": errors, "level": level},
        "estimate": {"population": "latent", "level": level + 1},
    }
    return lfp_proxy(responses, sites)


def pair_influence(potentials: xr.DataArray) -> xr.Dataset:
    r"""Return who influences whom in a pair, at which frequency.

    Without any influence the mean causality is half of the coherence that chance brings about
    (1/2n, with n averaged spectra, or more if a few trials hold most of the power). An influence
    counts as detected if the mean of both directions from 4 to 100 Hz exceeds 1.5 times that, which
    1 to 2 % of pairs of independent signals do (white, red or bursting noise). There is no steady
    state if one quarter of the trials has 100 times the power of another, which saccades in natural
    input do not bring about.

    Parameters
    ----------
    potentials : (trial, time, site)
        Of `pair_potentials`; forward is from "error" to "estimate".

    Returns
    -------
    dataset
        `granger` (direction, frequency), nats; `index` (band): the directed-influence asymmetry
        index of gamma, of beta, and their "difference"; `detected`; `steady`. Causality and index
        are NaN where a potential is silent or not steady.

    References
    ----------
    Bastos et al. (2015), https://doi.org/10.1016/j.neuron.2014.12.018
    """
    rate, n_times = _sampling(potentials, "pair_influence")
    n = len(TAPERS.windows("pair_influence", rate, n_times)[0])
    frequency = np.fft.rfftfreq(n, 1.0 / rate)
    frequency = frequency[(frequency >= 1.0) & (frequency <= HIGHEST)]
    ways, index = np.full((2, frequency.size), np.nan), np.full(3, np.nan)
    detected = False
    steady = power_drift(potentials) <= UNSTEADY
    if steady and bool((potentials.std(("trial", "time")) > 0).all()):
        found = spectral_granger(potentials, TAPERS, max_drift=UNSTEADY)
        gamma, beta = (
            directed_asymmetry(found, forward=("error", "estimate"), band=band).item()
            for band in BANDS.values()
        )
        index = np.array([gamma, beta, gamma - beta])
        values = found.sel(frequency=frequency).to_numpy()
        ways = np.stack([values[0, 1], values[1, 0]])
        chance = chance_coherence(potentials, TAPERS).sel(frequency=slice(4.0, 100.0))
        heard = ways[:, (frequency >= 4.0) & (frequency <= 100.0)].mean()
        detected = bool(heard > 0.5 * DETECTED * chance.to_numpy()[0, 1].mean())
    return xr.Dataset(
        {
            "granger": (("direction", "frequency"), ways),
            "index": ("band", index),
            "detected": detected,
            "steady": steady,
        },
        coords={
            "direction": ["forward", "backward"],
            "frequency": frequency,
            "band": [*BANDS, "difference"],
        },
    )
