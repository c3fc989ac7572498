"""H31: errors go forward at gamma frequencies, estimates come back at beta frequencies."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from pcsim.circuit import Circuit
from pcsim.hypothesis import Control, Hypothesis, Means, Reference, Requirement
from pcsim.measures import (
    multitaper_spectrum,
    phase_randomised,
    spectral_slope,
)
from pcsim.model import Model, lesion
from pcsim.protocols import (
    RHYTHM_BANDS,
    RHYTHM_TAPERS,
    error_estimate_pairs,
    noisy_movies,
    pair_influence,
    pair_potentials,
    pair_responses,
    steady_responses,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["HYPOTHESIS"]

N_TRIALS, DURATION = {"quick": 20, "full": 40}, {"quick": 4 / 3, "full": 4.0}
"""Quick: 20 x 2 segments x 3 tapers = 120 spectra, with which an influence on 2.5 % of the power at
one frequency is told from none (5 %: 1 - 0.05^(1/119)); full: 720."""
N_SWEPT, SWEPT = {"quick": 5, "full": 20}, {"quick": 4 / 3, "full": 2.0}
"""Trials and seconds of each cell of the sweep, whose sign alone counts: 9.8 % at quick, 1.7 %."""
ONSET = 0.5
NEURAL_NOISE = 0.5
"""Of a unit by itself, in circuits that take noise: half of what natural input does to a relay."""
SLOPE_BAND = (14.0, 80.0)
FACTORS = (0.5, 1.0, 2.0)
TIME_CONSTANTS = (("tau_error", "tau_latent"), ("tau", "tau_top"), ("tau_v1", "tau_v2"))
"""Fields swept: of errors and estimates where both have one, else of the estimates of two areas."""
N_SURROGATES = 5
MOST_FAILING = 2.5
"""Of 9 cells: 2 may fail, 3 may not."""
SHOWN = ("COLUMN", "PATH", "RB")


@dataclass(frozen=True)
class Variation:
    """A model as a control: its time constants are out of reach of the sweep."""

    model: Any
    phases: int | None = None
    """Seed of the phases of its units, which are randomised; None leaves them."""
    reason: str = ""
    """Why it is no control, if it is none."""
    record_dt: float | None = None

    @property
    def field_shape(self) -> tuple[int, int] | None:
        """Rows and columns of the visual field."""
        return self.model.field_shape  # type: ignore[no-any-return]

    @property
    def px_per_deg(self) -> float | None:
        """Pixels per degree."""
        return self.model.px_per_deg  # type: ignore[no-any-return]

    @property
    def populations(self) -> Any:
        """Populations that may be recorded, None if the model is no circuit."""
        return getattr(self.model, "populations", None)

    def run(
        self, stimulus: xr.DataArray, *, seed: int = 0, record: Sequence[str] | None = None
    ) -> xr.Dataset:
        """Return the model's responses, phases randomised if asked."""
        tested = lesion(self.model, record_dt=self.record_dt) if self.record_dt else self.model
        responses: xr.Dataset = tested.run(stimulus, seed=seed, record=record)
        if self.phases is None or responses.sizes["time"] < 4:
            return responses
        return responses.assign(rate=phase_randomised(responses["rate"], seed=self.phases))


def randomised(model: Any, seed: int) -> Any:
    """Return the model with units of unchanged spectra that have nothing in common."""
    return Variation(model, phases=seed)


def equalised(model: Any, seed: int) -> Any:
    """Return the model with errors as slow as estimates."""
    if not (hasattr(model, "tau_error") and hasattr(model, "tau_latent")):
        return Variation(model, reason="its errors have no time constant to equalise")
    slower = max(model.tau_error, model.tau_latent)
    return Variation(replace(model, tau_error=slower, tau_latent=slower))


def missing(model: Any) -> str:
    """Say why a model has no pair of errors and estimates."""
    if getattr(model, "reason", ""):
        return str(model.reason)
    if model.field_shape is None:
        return "it sees no images"
    return "" if error_estimate_pairs(model) else "it has no errors with estimates one level above"


def observe(model: Model, *, seed: int, scale: str) -> xr.Dataset:
    """Show natural sequences in noise; take spectra and Granger causality of each pair."""
    pairs = error_estimate_pairs(model)
    levels = list(pairs)
    stimulus = noisy_movies(model, n=N_TRIALS[scale], duration=ONSET + DURATION[scale], seed=seed)
    shown: dict[str, Any] = {"levels": levels, "onset": ONSET, "noise": NEURAL_NOISE, "seed": seed}
    (responses,) = pair_responses([model], stimulus, **shown)
    rows = [measured(responses, level, seed) for level in levels]
    names = [f"{below} to {above}" for below, above in pairs.values()]
    evidence = xr.concat(rows, "unit").assign_coords(pair=("unit", names))
    found = [bool(evidence["included"].any()), float(evidence["asymmetry"].mean())]
    cells, judged = (np.full((len(FACTORS), len(FACTORS)), one) for one in found[::-1])
    if time_constants(model):
        last = ONSET + SWEPT[scale]
        short = stimulus.isel(trial=slice(N_SWEPT[scale]), time=stimulus["time"].values < last)
        cells, judged = swept(model, short, shown)
    failing = MOST_FAILING
    if judged.any():
        failing = float(judged.size * np.mean(~(cells[judged.astype(bool)] > 0)))
    return evidence.assign(
        failing=("unit", np.full(len(rows), failing)),
        cells=(("first", "second"), cells),
        judged=(("first", "second"), judged.astype(bool)),
    ).assign_coords(first=list(FACTORS), second=list(FACTORS))


def measured(responses: xr.Dataset, level: int, seed: int) -> xr.Dataset:
    """Return the evidence of the errors of one level and the estimates above them."""
    potentials = pair_potentials(responses, level)
    power = pair_power(responses, level)
    found = pair_influence(potentials)
    included = bool(found["detected"]) and bool((power > 0).all())
    index, surrogate, slope = found["index"].fillna(0.0), 0.0, np.nan
    if included:
        made = (phase_randomised(potentials, seed=100 * seed + k) for k in range(N_SURROGATES))
        differences = [pair_influence(one)["index"].sel(band="difference") for one in made]
        surrogate = float(np.mean(differences))
        ratio = power.sel(site="estimate", drop=True) / power.sel(site="error", drop=True)
        slope = spectral_slope(ratio, band=SLOPE_BAND)["slope"].item()
    return xr.Dataset(
        {
            "asymmetry": index.sel(band="difference", drop=True),
            "surrogate": surrogate,
            "gamma": index.sel(band="gamma", drop=True),
            "beta": index.sel(band="beta", drop=True),
            "slope": slope,
            "granger": found["granger"],
            "power": power,
            "included": included,
        }
    )


def pair_power(responses: xr.Dataset, level: int) -> xr.DataArray:
    """Return the mean power of the rates of errors and of estimates: (site, frequency)."""
    roles, levels = responses["population"].values, responses["level"].values
    error = (levels == level) & np.char.startswith(roles, "error")
    estimate = (levels == level + 1) & (roles == "latent")
    rates = (responses["rate"].isel(unit=chosen) for chosen in (error, estimate))
    spectra = [multitaper_spectrum(rate, RHYTHM_TAPERS).mean("unit") for rate in rates]
    power = xr.concat(spectra, xr.Variable("site", ["error", "estimate"]))
    return power.sel(frequency=slice(1.0, 120.0))


def swept(model: Any, stimulus: xr.DataArray, shown: Mapping[str, Any]) -> tuple[Any, Any]:
    """Return the asymmetry at each of 3 x 3 time constants, and whether there is one to judge.

    It is the mean over pairs with a detected influence; NaN, and judged, without a steady state.
    """
    base = time_constants(model)
    circuits = []
    for factors in product(FACTORS, FACTORS):
        changed = {name: base[name] * f for name, f in zip(base, factors, strict=True)}
        circuits.append(lesion(model, **changed))
    values, judged = [], []
    for one in steady_responses(circuits, stimulus, **shown):
        value, heard = np.nan, True
        if one is not None:
            pairs = [pair_influence(pair_potentials(one, level)) for level in shown["levels"]]
            indices = [float(p["index"][-1]) for p in pairs if p["detected"]]
            steady = all(bool(p["steady"]) for p in pairs)
            heard = bool(indices) or not steady
            value = float(np.mean(indices)) if indices and steady else np.nan
        values.append(value)
        judged.append(heard)
    shape = (len(FACTORS), len(FACTORS))
    return np.reshape(values, shape), np.reshape(judged, shape)


def time_constants(model: Any) -> dict[str, float]:
    """Return the two time constants that are swept; those left open are the circuit's own."""
    for pair in TIME_CONSTANTS:
        if isinstance(model, Circuit) and all(hasattr(model, name) for name in pair):
            top: Any = [p.kind for p in model.populations if p.population == "latent"][-1]
            return {name: float(getattr(model, name) or top.tau) for name in pair}
    return {}


def gamma_above_beta(means: Means) -> Any:
    """Return DAI(gamma) less DAI(beta)."""
    return means["asymmetry"]


def above_surrogate(means: Means) -> Any:
    """Return by how much the asymmetry exceeds that of the same spectra without coupling."""
    return means["asymmetry"] - means["surrogate"]


def enough_cells(means: Means) -> Any:
    """Return how many cells fewer than 2.5 of 9 fail."""
    return MOST_FAILING - means["failing"]


def panel(evidence: Mapping[str, Sequence[xr.Dataset]], ax: Axes) -> None:
    """Draw the causality in both directions of the first column that has it, bands shaded."""
    from pcsim.plots import colour, plot_tuning

    shown = next((label for label in SHOWN if evidence.get(label)), None)
    if shown is None:
        return
    ways = {"forward": ("error", "forward"), "backward": ("latent", "backward")}
    for name, band in RHYTHM_BANDS.items():
        ax.axvspan(*band, color=colour("control"), alpha=0.15, linewidth=0)
        place = (sum(band) / 2, 0.98)
        ax.annotate(rf"$\{name}$", place, xycoords=("data", "axes fraction"), ha="center", va="top")
    for label, line in ((shown, "-"), (f"{shown}/equal", ":")):
        for way, (meaning, words) in ways.items():
            curves = [one["granger"].isel(unit=one["included"].values) for one in evidence.get(
                label, ())]  # fmt: skip
            curves = [c.sel(direction=way, drop=True).mean("unit") for c in curves if c.size]
            if curves:
                name = words if line == "-" else rf"{words}, equal $\tau$"
                plot_tuning(
                    xr.concat(curves, "replica"), x="frequency", ax=ax, label=name,
                    color=colour(meaning), linestyle=line,
                )  # fmt: skip
    ax.set_xlim(2.0, 100.0)
    ax.set_yscale("log")
    ax.set_ylim(bottom=1e-3)
    ax.set_xlabel("Frequency (Hz)")
    ax.set_ylabel(f"Granger causality (nats), {shown}")
    if ax.get_legend_handles_labels()[0]:
        ax.legend(loc="lower left", bbox_to_anchor=(0.0, 1.0), ncols=2, handlelength=1.6)
    else:
        ax.annotate("no influence detected", (0.5, 0.5), xycoords="axes fraction", ha="center")


HYPOTHESIS = Hypothesis(
    id="H31",
    version=3,
    name="Feed-forward fast, feedback slow",
    claim=(
        "Errors influence the estimates one level up at gamma frequencies, estimates influence the "
        "errors below at beta frequencies (Bastos et al. 2015, Neuron 85:390; Michalareas et al. "
        "2016, Neuron 89:384)."
    ),
    family="oscillation",
    protocol=(
        "Drift and saccades of a simulated eye over natural photographs at 250 frames per second "
        "with luminance noise (5 % of the range) drawn for every frame and pixel; 20 trials of "
        "4/3 s (full: 40 of 4 s) after 0.5 s of onset, and 5 of 4/3 s (full: 20 of 2 s) in each "
        "cell of the sweep. Circuits that take noise have 0.5 on each "
        "unit."
    ),
    statistic=(
        "Potentials L = sum |d rate/dt| over the errors of a level and over the estimates one "
        "level up; pairwise spectral Granger causality G (3 tapers, +-3 Hz); DAI = (G forward - G "
        "backward) / sum, of the means over 60-80 and 14-18 Hz; asymmetry = DAI(gamma) - "
        "DAI(beta). Pairs are included if an influence is detected at all: mean G of 4-100 Hz "
        "above 1.5 times that of independent signals with the same power in every segment."
    ),
    signal="error units of each level and latent units one level up",
    falsified_if=(
        "Asymmetry at or below 0.",
        "Asymmetry at or below 0 in more than 2 of 9 cells of a sweep of two time constants by "
        "1/2, 1 and 2 (of cells with a detected influence; one without a steady state counts).",
    ),
    units="difference of indices",
    missing=missing,
    observe=observe,
    variables=("asymmetry", "surrogate", "failing"),
    combine=gamma_above_beta,
    null=0.0,
    direction=1,
    reference=Reference(
        status="read",
        source=(
            "Bastos et al. 2015: forward theta (4 Hz) and gamma (60-80 Hz), backward beta (14-18 "
            "Hz), 28 pairs of areas, two macaques; the sign alone is comparable."
        ),
    ),
    requirements=(
        Requirement(
            name="sweep",
            statement="It holds in at least 7 of 9 combinations of time constants.",
            combine=enough_cells,
        ),
        Requirement(
            name="surrogates",
            statement="It exceeds that of phase-randomised potentials of the same spectra.",
            combine=above_surrogate,
        ),
    ),
    controls=(
        Control(
            name="equal",
            statement="With errors as slow as estimates there is no fast and no slow.",
            transform=equalised,
        ),
        Control(
            name="phases",
            statement="Units of the same spectra with random phases influence nothing.",
            transform=randomised,
        ),
    ),
    departures=(
        "VAE-dir is not a control: it has no course in time.",
        "The slope of estimates over errors, predicted -2, is kept beside the verdict.",
        "Cells of the sweep are smaller than the main test.",
    ),
    panel=panel,
)
