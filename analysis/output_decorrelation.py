"""H02: what the retina sends is less correlated than the scene, but not white."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from pcsim.hypothesis import (
    Control,
    Hypothesis,
    Means,
    Reference,
    Requirement,
)
from pcsim.model import Model
from pcsim.protocols import (
    OUTPUTS,
    StandIn,
    blank,
    by_scale,
    first_level,
    respond,
    signal_role,
    visual_field,
)
from pcsim.responses import make_responses
from pcsim.stimuli import natural_patches

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["HYPOTHESIS"]

N_IMAGES = {"quick": 400, "full": 2000}
DURATION = 0.2
CENTRAL = 0.3
"""Degrees: units within this distance of the centre on both axes are measured, one a pixel."""
BAND = np.arange(2.0, 7.5, 1.0)
"""Spatial frequencies of the slope, cycles per degree: from the extent of the region to the pixels'
limit of 8."""
STAGES = ("input", "linear", "output")
SHOWN = ("RETINA", "PATH", "LGN", "RB", "LN", "DN", "RETINA/identity", "RETINA/centre")


@dataclass(frozen=True)
class Centre(StandIn):
    """Units that pass the luminance of their pixel, blurred or not: a receptive field without a
    surround."""

    sigma: float = 0.0
    """Standard deviation of the Gaussian, pixels; 0 passes the pixel itself."""

    def run(
        self, stimulus: xr.DataArray, *, seed: int = 0, record: Sequence[str] | None = None
    ) -> xr.Dataset:
        """Return blurred luminance relative to mid-grey as output units of level 0."""
        ny, nx = stimulus.sizes["y"], stimulus.sizes["x"]
        blur = [gaussian_rows(n, self.sigma) for n in (ny, nx)]
        values = blur[0] @ (stimulus.to_numpy() - 0.5) @ blur[1].T
        rows, columns = np.indices((ny, nx)).reshape(2, -1)
        scale = float(stimulus["px_per_deg"])
        units = {
            "population": np.full(ny * nx, "output"),
            "level": np.zeros(ny * nx, dtype=int),
            "area": np.full(ny * nx, "retina"),
            "x": (columns - (nx - 1) / 2) / scale,
            "y": ((ny - 1) / 2 - rows) / scale,
        }
        time = stimulus["time"].values + float(stimulus["frame_duration"])
        rate = values.reshape(*values.shape[:2], -1)
        return make_responses(rate, time=time, units=units, trial=stimulus)


def gaussian_rows(n: int, sigma: float) -> Any:
    """Return (n, n) weights of a Gaussian around each place, rows summing to 1."""
    if sigma == 0.0:
        return np.eye(n)
    weights = np.exp(-0.5 * ((np.arange(n)[:, None] - np.arange(n)) / sigma) ** 2)
    return weights / weights.sum(axis=1, keepdims=True)


def signal(model: Model) -> tuple[int, str] | None:
    """Return level and role of the retina's outputs, or of those of the lowest level there is."""
    if model.field_shape is None:
        return None
    units = model.run(blank(model), seed=0)
    retina = set(units["population"].values[units["area"].values == "retina"].tolist())
    for role in OUTPUTS:
        if role in retina:
            return 0, role
    level = first_level(model)
    found = None if level is None else signal_role(model, level)
    return None if level is None or found is None else (level, found)


def observe(model: Model, *, seed: int, scale: str) -> xr.Dataset:
    """Correlate what units send for natural patches, and the pixels at the same places."""
    found = signal(model)
    assert found is not None
    field, px_per_deg = visual_field(model)
    stimulus = natural_patches(
        field, n=N_IMAGES[scale], frame_duration=DURATION, px_per_deg=px_per_deg, seed=seed + 10_000
    )
    responses = respond(model, stimulus, level=found[0], role=found[1], every=DURATION, seed=seed)
    units, pixels = one_a_pixel(responses, field, px_per_deg)
    sent = responses["rate"].isel(time=-1, unit=units).transpose("trial", "unit").to_numpy()
    stages = {
        "input": stimulus.to_numpy().reshape(len(sent), -1)[:, pixels],
        "linear": sent,
        "output": np.maximum(sent, 0.0),
    }
    x, y = (responses[axis].values[units] for axis in ("x", "y"))
    distance = np.hypot(x[:, None] - x, y[:, None] - y)
    alive = np.all([stage.std(axis=0) > 1e-9 * stage.std() for stage in stages.values()], axis=0)
    evidence: dict[str, Any] = {"included": ("unit", alive)}
    for name, stage in stages.items():
        squared = squared_correlations(stage, alive)
        evidence[name] = ("unit", squared.sum(axis=1) / np.maximum(alive.sum() - 1, 1))
        evidence[f"{name}_by_distance"] = ("bin", by_distance(squared, distance, alive, px_per_deg))
        power = place_spectrum(stage, (x, y), alive)
        evidence[f"{name}_spectrum"] = ("frequency", power)
        slope = np.polyfit(np.log(BAND), np.log(power), 1)[0]
        evidence[f"{name}_slope"] = ("unit", np.full(len(alive), slope))
    bins = np.arange(1, 9) / px_per_deg
    return xr.Dataset(evidence, coords={"frequency": BAND, "bin": bins})


def one_a_pixel(
    responses: xr.Dataset, field: tuple[int, int], px_per_deg: float
) -> tuple[Any, Any]:
    """Return the first unit at each central pixel, and these pixels' numbers."""
    x, y = responses["x"].values, responses["y"].values
    near = np.flatnonzero(np.maximum(np.abs(x), np.abs(y)) <= CENTRAL)
    column = np.rint(x[near] * px_per_deg + (field[1] - 1) / 2).astype(int)
    row = np.rint((field[0] - 1) / 2 - y[near] * px_per_deg).astype(int)
    pixels, first = np.unique(row * field[1] + column, return_index=True)
    return near[first], pixels


def squared_correlations(stage: Any, alive: Any) -> Any:
    """Return squared correlations of pairs, less what chance adds; 0 on the diagonal."""
    n = len(stage)
    scaled = (stage - stage.mean(axis=0)) / np.where(alive, stage.std(axis=0), 1.0)
    squared = (scaled.T @ scaled / n) ** 2
    # The square of a correlation r over n trials is too large by (1 - r^2)^2 / n.
    squared = squared - np.maximum(1.0 - squared, 0.0) ** 2 / n
    np.fill_diagonal(squared, 0.0)
    squared[~alive] = 0.0
    squared[:, ~alive] = 0.0
    return squared


def by_distance(squared: Any, distance: Any, alive: Any, px_per_deg: float) -> Any:
    """Return the root mean square correlation of pairs 1, 2 ... 8 px apart; 0 if there are none."""
    ring = np.rint(distance * px_per_deg)
    pairs = alive[:, None] & alive & ~np.eye(len(alive), dtype=bool)
    means = [squared[pairs & (ring == k)] for k in range(1, 9)]
    return np.array([max(float(m.mean()), 0.0) ** 0.5 if m.size else 0.0 for m in means])


def place_spectrum(stage: Any, place: tuple[Any, Any], alive: Any) -> Any:
    """Return the power of standardised responses as a function of spatial frequency over places."""
    x, y = (axis[alive] for axis in place)
    window = np.exp(-0.5 * (x**2 + y**2) / 0.15**2)
    values = stage[:, alive]
    values = (values - values.mean(axis=0)) / values.std(axis=0) * window
    angles = np.arange(8) * np.pi / 8
    power = []
    for frequency in BAND:
        phase = 2 * np.pi * frequency * (np.outer(x, np.cos(angles)) + np.outer(y, np.sin(angles)))
        power.append((np.abs(values @ np.exp(1j * phase)) ** 2).mean())
    return np.array(power) / (window**2).sum()


def decorrelation(means: Means) -> Any:
    """Return 1 - |r| of what is sent over |r| of the scene, root mean squares over pairs."""
    return 1.0 - np.sqrt(np.maximum(means["output"], 0.0) / means["input"])


def not_white(means: Means) -> Any:
    """Return by how much the outputs are from white: in their slope, or in their correlations."""
    return np.maximum(np.abs(means["output_slope"]) - 0.1, 0.98 - decorrelation(means))


def panel(evidence: Mapping[str, Sequence[xr.Dataset]], ax: Axes) -> None:
    """Draw correlations at the three stages of each column."""
    from pcsim.plots import colour

    shown = [label for label in SHOWN if evidence.get(label)]
    shades = {"input": colour("data"), "linear": colour("prediction"), "output": colour("error")}
    names = {"input": "scene", "linear": "linear filter", "output": "rectified output"}
    marks = {"input": "s", "linear": "^", "output": "o"}
    for stage in STAGES:
        for place, label in enumerate(shown):
            r = [float(one[stage][one["included"]].mean()) for one in evidence[label]]
            if stage == "linear" and all(
                bool((one["linear"] == one["output"]).all()) for one in evidence[label]
            ):
                continue
            at = place + 0.2 * (STAGES.index(stage) - 1) + np.linspace(-0.06, 0.06, len(r))
            ax.plot(
                at, np.sqrt(np.maximum(r, 0.0)), marks[stage], color=shades[stage], markersize=3,
                label=None if place else names[stage],
            )  # fmt: skip
    ax.set_xticks(range(len(shown)), [s.replace("RETINA/", "") for s in shown], rotation=45)
    ax.set_ylim(0.0, 1.0)
    ax.set_ylabel("Correlation of pairs (rms)")
    ax.legend(loc="lower left", bbox_to_anchor=(0.0, 1.0), ncols=3, columnspacing=0.8)


HYPOTHESIS = Hypothesis(
    id="H02",
    name="Output decorrelation is partial",
    claim=(
        "Retinal outputs are less correlated than scenes but not white (Abbasi-Asl et al. 2016; "
        "Graham, Chandler & Field 2006). What the output nonlinearity adds to it (Pitkow & Meister "
        "2012, Nat. Neurosci. 15:628) is measured beside it."
    ),
    family="retina",
    protocol=(
        f"{by_scale(N_IMAGES, 'natural patches')}, 0.2 s each, response at their end. Units within "
        "0.3 degrees of the centre, one a pixel, beside the pixels at the same places, so that "
        "distances are equal. Stages: pixels, the signed response, the response half-wave "
        "rectified (an on cell); of models that send rates without a sign the linear stage is not "
        "visible."
    ),
    statistic=(
        "D = 1 - |r| of the rectified outputs / |r| of the pixels, |r| the root mean square "
        "correlation over pairs, corrected for the number of patches. Beside it, not judged: the "
        "share of the nonlinearity, (|r linear| - |r output|) / (|r pixels| - |r output|), below 0 "
        "if rectification correlates. Log-log slope of power over places, 2 to 7 cycles per degree."
    ),
    signal="outputs or errors of the retina; of the lowest level in models without one",
    falsified_if="D not above 0, or outputs too white: slope within 0.1 of 0 and D above 0.98.",
    units="share of correlation",
    missing=lambda model: "" if signal(model) is not None else "it sees no images",
    observe=observe,
    variables=(*STAGES, *(f"{stage}_slope" for stage in STAGES)),
    combine=decorrelation,
    null=0.0,
    direction=1,
    rope=(-0.05, 0.05),
    reference=Reference(
        interval=(0.0, 1.0),
        status="read",
        source=(
            "152 salamander ganglion cells on natural movies: less correlated than the scenes "
            "although significant correlations remain; spectrum less steep, not flattened "
            "(Abbasi-Asl et al. 2016, arXiv:1612.03483, abstract). Simmons et al. 2013, PLoS "
            "Comput. Biol., PMC3854086: modestly more correlated than under white noise."
        ),
    ),
    requirements=(
        Requirement(
            name="not white",
            statement="Slope further from 0 than 0.1, or D below 0.98: some correlation is left.",
            combine=not_white,
        ),
    ),
    controls=(
        Control(
            name="identity",
            statement="Pixels that are only rectified have the scene's correlations.",
            transform=lambda model, seed: Centre(model),
        ),
        Control(
            name="centre",
            statement="A Gaussian receptive field of 1 px without a surround only blurs.",
            transform=lambda model, seed: Centre(model, sigma=1.0),
        ),
    ),
    departures=(
        "Photographs, not clips; the battery has the mean |r|, here the root mean square, which "
        "can be corrected for the number of patches.",
    ),
    remembered=("The share of the nonlinearity in Pitkow & Meister 2012.",),
    expectations={"RETINA": "+", "PATH": "+", "LGN": "-"},
    panel=panel,
)
