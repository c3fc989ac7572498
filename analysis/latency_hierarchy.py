"""H33: the higher an area, the later it answers a flash; nearly any cascade does."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from scipy.stats import rankdata

from pcsim.circuit import Circuit
from pcsim.hypothesis import Control, Hypothesis, Means, Reference
from pcsim.measures import latency
from pcsim.model import Model, lesion
from pcsim.protocols import recording, roles_at, visual_field
from pcsim.responses import make_responses
from pcsim.stimuli import natural_patches

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["HYPOTHESIS"]

ROLES = ("latent", "error")
MOST_LEVELS = 6
N_IMAGES = {"quick": 16, "full": 48}
DURATION, STEP = 0.5, 0.002
"""Seconds a flash lasts, and between recorded rates (one time step of models that are coarser)."""
OTHER_TAUS = ("tau_trace", "tau_modulator", "tau_precision")
"""Time constants of adaptation and of precision, which are no membranes'."""
SHOWN = ("COLUMN", "COLUMN/synchronous", "PATH", "RB")


def levels_of(model: Model) -> tuple[str, list[int]]:
    """Return the first role that a model has at two levels or more, and these levels."""
    if model.field_shape is None:
        return "", []
    roles = {level: roles_at(model, level) for level in range(MOST_LEVELS)}
    for role in ROLES:
        levels = [level for level, there in roles.items() if role in there]
        if len(levels) > 1:
            return role, levels
    return "", []


def missing(model: Model) -> str:
    """Say why a model has no latencies to order."""
    if model.field_shape is None:
        return "it sees no images"
    return "" if levels_of(model)[1] else "it has estimates or errors at one level at most"


def observe(model: Model, *, seed: int, scale: str) -> xr.Dataset:
    """Flash natural images and rank the latencies of all units, and their levels."""
    role, levels = levels_of(model)
    responses = flashed(model, role, levels, seed=seed, scale=scale)
    level = responses["level"].values
    size = (responses["rate"].transpose("trial", "time", "unit") ** 2).mean("trial") ** 0.5
    peak = size.max("time").values
    included = np.zeros(len(peak), bool)
    for one in levels:
        mine = level == one
        included[mine] = peak[mine] > 0.05 * np.percentile(peak[mine], 95)
    late = latency(one_trial(responses, size.values), rectify="abs")
    late = late.transpose("condition", "unit").values[0]
    included &= np.isfinite(late)
    ranks = standard_ranks(np.stack([level, np.where(included, late, 0.0)]), included)
    by_level = [late[included & (level == one)] for one in levels]
    median = [1e3 * np.median(one) if one.size else np.nan for one in by_level]
    return xr.Dataset(
        {
            "level_rank": ("unit", ranks[0]),
            "latency_rank": ("unit", ranks[1]),
            "product": ("unit", ranks[0] * ranks[1]),
            "level_square": ("unit", ranks[0] ** 2),
            "latency_square": ("unit", ranks[1] ** 2),
            "latency": ("unit", np.where(included, late, 0.0)),
            "median_latency": ("deep", np.array(median)),
            "included": ("unit", included),
        },
        coords={"deep": levels, "level": ("unit", level)},
        attrs={"role": role},
    )


def flashed(model: Model, role: str, levels: Sequence[int], *, seed: int, scale: str) -> xr.Dataset:
    """Return the responses of the units of one role to natural images that come out of grey."""
    field, px_per_deg = visual_field(model)
    images = natural_patches(
        field, n=N_IMAGES[scale], seed=seed + 33_000, frame_duration=DURATION,
        px_per_deg=px_per_deg,
    )  # fmt: skip
    record = None
    if isinstance(model, Circuit):
        record = [p.name for p in model.populations if p.population == role]
    dt = float(getattr(model, "dt", STEP))
    every = dt * max(round(STEP / dt), 1)
    responses: xr.Dataset = recording(model, every).run(images, seed=seed, record=record)
    chosen = (responses["population"].values == role) & np.isin(responses["level"].values, levels)
    return responses.isel(unit=np.flatnonzero(chosen))


def one_trial(responses: xr.Dataset, size: NDArray[np.float64]) -> xr.Dataset:
    """Label sizes (time, unit) as the responses of a single trial."""
    units = {"population": "latent", "level": responses["level"].values}
    time = responses["time"].values
    return make_responses(size[None], time=time, units=units, trial={"condition": ["flash"]})


def standard_ranks(values: NDArray[np.float64], included: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Rank each row over the included units, to mean 0 and variance 1; 0 for the others."""
    ranks = np.zeros(values.shape)
    for row, one in zip(ranks, values, strict=True):
        if included.any() and np.ptp(one[included]) > 0:
            own = rankdata(one[included])
            row[included] = (own - own.mean()) / own.std()
    return ranks


def correlation(means: Means) -> Any:
    """Return Spearman's correlation of level and latency over the units of a draw."""
    a, b = means["level_rank"], means["latency_rank"]
    spread = (means["level_square"] - a**2) * (means["latency_square"] - b**2)
    together = means["product"] - a * b
    real = spread > 1e-12
    return np.where(real, together / np.sqrt(np.where(real, spread, 1.0)), 0.0)


def synchronous(model: Any, seed: int) -> Any:
    """Return the model without delays, all membranes with the geometric mean of their taus."""
    if not dataclasses.is_dataclass(model):
        return model
    values = {f.name: getattr(model, f.name) for f in dataclasses.fields(model) if f.init}
    numbers = {name: value for name, value in values.items() if isinstance(value, float)}
    delays = {name: 0.0 for name in numbers if name.startswith("delay")}
    taus = [n for n in numbers if n.startswith("tau") and n not in OTHER_TAUS]
    same = float(np.exp(np.mean([np.log(numbers[name]) for name in taus]))) if taus else 0.0
    return lesion(model, **delays, **dict.fromkeys(taus, same))


def panel(evidence: Mapping[str, Sequence[xr.Dataset]], ax: Axes) -> None:
    """Draw median latencies against the level, a line a replica of each column."""
    from pcsim.plots import OKABE_ITO, colour

    shades = (OKABE_ITO["blue"], colour("control"), OKABE_ITO["orange"], OKABE_ITO["purple"])
    markers = ("o", "s", "^", "D")
    for label, shade, marker in zip(SHOWN, shades, markers, strict=True):
        found = evidence.get(label, ())
        for number, one in enumerate(found):
            name = label.replace("/synchronous", ", synchronous")
            ax.plot(
                one["deep"].values, one["median_latency"].values, color=shade, marker=marker,
                linestyle="-", linewidth=0.8, label=None if number else name,
            )  # fmt: skip
    ax.set_xticks([1, 2, 3])
    ax.set_xlim(0.7, 3.3)
    ax.set_ylim(bottom=0.0)
    ax.set_xlabel("Level")
    ax.set_ylabel("Time to half of the peak (ms)")
    ax.legend(loc="lower left", bbox_to_anchor=(0.0, 1.0), ncols=2)


# A rank correlation is nearly 1 in any cascade of leaky units, delayed or not: the control is
# expected to show the effect, and the verdict to be that it is not specific.
CASCADES = (
    "RB", "RB-cut", "RB-noise", "RB-untr", "RB-gauss", "PATH", "PATH-cut", "PATH-untr",
    "PATH-noise", "COLUMN", "COLUMN-cut", "COLUMN-sync", "JB", "JB-cut",
)  # fmt: skip

HYPOTHESIS = Hypothesis(
    id="H33",
    name="Latency grows with level",
    claim=(
        "V1 answers first among cortical areas, V2 and V4 follow progressively later (Schmolesky "
        "et al. 1998, J. Neurophysiol. 79:3272)."
    ),
    family="oscillation",
    protocol=(
        "16 natural images (48 at full scale) flashed out of grey for 0.5 s; included are units "
        "whose root mean square response over images peaks above 5 % of their level's 95th "
        "percentile."
    ),
    statistic=(
        "Spearman's correlation over units of level with latency, the time at which the root mean "
        "square response first reaches half of its peak."
    ),
    signal="estimate (latent) units of all levels; error units of models without these",
    falsified_if="The correlation is not above 0.",
    units="rank correlation",
    missing=missing,
    observe=observe,
    variables=("level_rank", "latency_rank", "product", "level_square", "latency_square"),
    combine=correlation,
    null=0.0,
    direction=1,
    reference=Reference(
        status="read",
        source=(
            "Schmolesky et al. 1998 (abstract): V1 first, V2 and V4 progressively later and "
            "broader; V1 and V2 overlap in matching layers (Nowak et al. 1995)."
        ),
    ),
    controls=(
        Control(
            name="synchronous",
            statement=(
                "No conduction delays, and one time constant for all: what is left of the order "
                "comes from the cascade. A model without delays is its own control."
            ),
            transform=synchronous,
        ),
    ),
    departures=(
        "Latencies of models are ranked, not compared in ms; units are ranked by their own level.",
    ),
    expectations=dict.fromkeys(CASCADES, "-"),
    panel=panel,
)
