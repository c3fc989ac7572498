"""H34: precision acts as attentional gain: it scales tuning curves and keeps their width."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from pcsim.hypothesis import Control, Hypothesis, Means, Reference, Requirement
from pcsim.measures import half_width
from pcsim.model import Model
from pcsim.protocols import by_scale, fitted_units
from pcsim.protocols.attention import (
    AttentionControl,
    attend,
    attends_to_places,
    gain_preference,
    lacks_attention,
    show_gratings,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["HYPOTHESIS"]

LEVEL = 1
MOST_UNITS = {"quick": 6, "full": 16}
TURNS = np.arange(12) * np.pi / 12
TUNED = (0.25, 0.5)
"""Contrasts of the tuning curves, both of which can be doubled."""
CURVE = (0.06, 0.12, 0.25, 0.5, 1.0)
GAINS = (1.5, 2.0, 4.0)
GAIN = 2.0
"""The gain that is judged: the middle one."""
SMALL = 0.15
"""Standard deviation of the small attention field, degrees: about that of a receptive field."""
DURATION = 0.4
WINDOWS = {"transient": (0.0, 0.1), "steady": (0.3, 0.4)}
SIGNALS = ("error", "estimate")
Table = Mapping[tuple[str, str], Any]


def observe(model: Model, *, seed: int, scale: str) -> tuple[xr.Dataset, xr.Dataset]:
    """Measure tuning and contrast response with and without attention, in two fields."""
    units = fitted_units(model, LEVEL, seed=seed, scale=scale)
    chosen = np.random.default_rng([seed, 34]).permutation(units.sizes["unit"])
    units = units.isel(unit=np.sort(chosen[: MOST_UNITS[scale]]))
    small = np.minimum(4.0 * units["sigma"].to_numpy(), units["largest"].to_numpy())
    grid = [(turn, c) for c in TUNED for turn in TURNS]
    grid += [(0.0, c) for c in CURVE if c not in TUNED]
    plain, blank, responses = measured(model, units, grid, small, seed=seed)
    attended, own, _ = measured(attend(model, GAIN), units, grid, small, seed=seed)
    reference = tuning(plain, TUNED)
    evidence: dict[str, Any] = {}
    for key, (height, width, _) in tuning(attended, TUNED).items():
        name = "_".join(key)
        evidence[f"amplitude_{name}"] = ("unit", (height / reference[key][0]).mean(axis=1))
        evidence[f"width_{name}"] = ("unit", (width / reference[key][1]).mean(axis=1))
    evidence |= by_gain(model, units, small, plain, seed=seed)
    evidence |= preferences(model, units, plain, attended, seed=seed)
    main = ("error", "steady")
    peak = reference[main][2][:, -1].max(axis=-1)
    shift = (own - blank)[0, :, -1] / np.maximum(peak, 1e-12)
    curves = [one[main][2][:, -1] for one in (reference, tuning(attended, TUNED))]
    scale_of = np.maximum(curves[0].max(axis=-1, keepdims=True), 1e-12)
    finite = np.isfinite(evidence["width_error_steady"][1])
    evidence |= {
        "amplitude": evidence["amplitude_error_steady"],
        "width_change": ("unit", np.abs(np.nan_to_num(evidence["width_error_steady"][1]) - 1.0)),
        "baseline": ("unit", shift),
        "curve": (("unit", "turn"), curves[0] / scale_of),
        "curve_attended": (("unit", "turn"), curves[1] / scale_of),
        "included": ("unit", (peak > 0.05 * np.percentile(peak, 95)) & finite),
    }
    return xr.Dataset(evidence, coords={"turn": TURNS, "gain": list(GAINS)}), responses


def measured(
    model: Any, units: xr.Dataset, grid: Sequence[tuple[float, float]], diameter: Any, *, seed: int
) -> tuple[dict[tuple[str, str], Any], Any, xr.Dataset]:
    """Return (signal, epoch) -> driven response (unit, grating); the blank's; all responses."""
    turn, contrast = np.array(grid).T
    shown = {"turn": turn, "contrast": contrast, "diameter": diameter}
    driven, blank, responses = show_gratings(model, units, shown, duration=DURATION, seed=seed)
    time = responses["time"].values - 1e-9
    table = {
        (signal, epoch): rates[..., (time > start) & (time <= stop)].mean(axis=-1)
        for signal, rates in driven.items()
        for epoch, (start, stop) in WINDOWS.items()
    }
    return table, blank, responses


def tuning(table: Table, contrasts: Sequence[float]) -> dict[tuple[str, str], tuple[Any, Any, Any]]:
    """Return height and half width (unit, contrast) of tuning curves, and the curves."""
    found = {}
    for key, response in table.items():
        n = len(contrasts) * TURNS.size
        curves = response[:, :n].reshape(len(response), len(contrasts), TURNS.size)
        labelled = xr.DataArray(curves, dims=("unit", "contrast", "turn"), coords={"turn": TURNS})
        width = half_width(labelled, dim="turn", period=np.pi).to_numpy()
        height = np.maximum(curves.max(axis=-1) - curves.min(axis=-1), 1e-12)
        found[key] = (height, width, curves)
    return found


def by_gain(
    model: Model, units: xr.Dataset, diameter: Any, plain: Table, *, seed: int
) -> dict[str, Any]:
    """Return the amplitude ratio of both signals and epochs at every gain, low contrast."""
    grid = [(turn, TUNED[0]) for turn in TURNS]
    reference = tuning(plain, TUNED[:1])
    ratios: dict[tuple[str, str], list[Any]] = {key: [] for key in reference}
    for gain in GAINS:
        table, _, _ = measured(attend(model, gain), units, grid, diameter, seed=seed)
        for key, (height, _, _) in tuning(table, TUNED[:1]).items():
            ratios[key].append((height / reference[key][0])[:, 0])
    return {
        f"ratio_{'_'.join(key)}": (("unit", "gain"), np.stack(found, axis=1))
        for key, found in ratios.items()
    }


def preferences(
    model: Model, units: xr.Dataset, plain: Table, attended: Table, *, seed: int
) -> dict[str, Any]:
    """Return AIC(contrast gain) - AIC(response gain) for a large field and for a small one.

    The large field is shown small gratings, the small field gratings as large as there is room.
    """
    # Where the contrasts of the curve lie among the gratings of the first grid.
    first = len(TUNED) * TURNS.size
    at = [TUNED.index(c) * TURNS.size if c in TUNED else first for c in CURVE]
    at = [place + sum(c not in TUNED for c in CURVE[:i]) * (place == first)
          for i, place in enumerate(at)]  # fmt: skip
    main = ("error", "steady")
    pairs = {"large_field": (plain[main][:, at], attended[main][:, at])}
    if attends_to_places(model):
        grid = [(0.0, c) for c in CURVE]
        room = units["largest"].values
        before, _, _ = measured(model, units, grid, room, seed=seed)
        after, _, _ = measured(attend(model, GAIN, sigma=SMALL), units, grid, room, seed=seed)
        pairs["small_field"] = (before[main], after[main])
    return {
        f"response_gain_{name}": (
            "unit", [gain_preference(CURVE, *both) for both in zip(*pair, strict=True)]
        )
        for name, pair in pairs.items()
    }  # fmt: skip


def amplitude(means: Means) -> Any:
    """Return the mean amplitude ratio of errors at rest."""
    return means["amplitude"]


def same_width(means: Means) -> Any:
    """Return how far the mean change of the tuning width stays below 10 %."""
    return 0.1 - means["width_change"]


def panel(evidence: Mapping[str, Sequence[xr.Dataset]], ax: Axes) -> None:
    """Draw tuning curves of errors with and without attention, and the ratios of each column."""
    from pcsim.plots import colour

    label = "FF" if evidence.get("FF") else next(iter(evidence), "")
    shown = [one.isel(unit=one["included"].values) for one in evidence.get(label, ())]
    turns = np.degrees((TURNS + np.pi / 2) % np.pi - np.pi / 2)
    order = np.argsort(turns)
    kinds: tuple[tuple[str, str, dict[str, Any]], ...] = (
        ("curve", "unattended", {"color": colour("control"), "marker": "s"}),
        ("curve_attended", "attended, g = 2", {"color": colour("error"), "marker": "o"}),
    )
    for name, title, style in kinds:
        for i, one in enumerate(shown):
            mean = one[name].mean("unit").values[order]
            ax.plot(turns[order], mean, linestyle="-", linewidth=0.8, markersize=2.5,
                    label=None if i else title, **style)  # fmt: skip
    lines = [f"{'ratio at rest':14s} {'errors':>7s} {'width':>6s} {'estim.':>7s}"]
    for area, ratio in (("V4, published", 1.26), ("V1, published", 1.08)):
        lines.append(f"{area:14s} {ratio:7.2f} {'same':>6s}")
    for column in ("FF", "COLUMN", "RB", "RB-cut"):
        found = [one.isel(unit=one["included"].values) for one in evidence.get(column, ())]
        if found:
            names = ("amplitude_error_steady", "width_error_steady", "amplitude_estimate_steady")
            values = [np.mean([float(one[n].mean()) for one in found]) for n in names]
            lines.append(f"{column:14s} {values[0]:7.2f} {values[1]:6.2f} {values[2]:7.2f}")
    ax.set_ylim(0.0, 2.7)
    ax.text(0.02, 0.98, "\n".join(lines), transform=ax.transAxes, va="top", fontsize=5.5,
            family="monospace")  # fmt: skip
    ax.set_xticks([-90, -45, 0, 45])
    ax.set_xlabel("Orientation from preferred (degrees)")
    ax.set_ylabel(f"Weighted error of {label} (share of peak)")
    ax.legend(loc="upper right", bbox_to_anchor=(1.02, 0.67))


HYPOTHESIS = Hypothesis(
    id="H34",
    version=2,
    name="Precision acts as attentional gain",
    claim=(
        "Attention is a gain on the precision of errors (Feldman & Friston 2010, Front. Hum. "
        "Neurosci. 4:215): it multiplies tuning curves, keeps their width and leaves undriven "
        "activity alone (McAdams & Maunsell 1999, J. Neurosci. 19:431)."
    ),
    family="V1",
    protocol=(
        "Precision times 2 everywhere (and 1.5 and 4). Each unit's preferred grating, four sigma "
        "wide, 0.4 s, two phases in quadrature, less the response to a blank: 12 orientations at "
        "25 and 50 % contrast, contrasts of 6 to 100 %; 0-0.1 s (transient) and 0.3-0.4 s (rest). "
        "Contrast against response gain also with a field of 0.15 degrees on gratings that fill "
        "the visual field. At most "
        f"{by_scale(MOST_UNITS, 'units')}. Included: peak above 5 % of the 95th percentile."
    ),
    statistic=(
        "Amplitude ratio, attended to not, of the weighted errors' orientation tuning (largest "
        "less smallest response) at rest, averaged over both contrasts."
    ),
    signal=(
        "precision-weighted errors in V1 (in Rao & Ballard those above the errors whose precision "
        "is raised); estimates, transients and gains in the evidence"
    ),
    falsified_if="The amplitude ratio is not above 1, or the width changes by more than 10 %.",
    units="ratio",
    missing=lacks_attention,
    observe=observe,
    variables=("amplitude", "width_change"),
    combine=amplitude,
    null=1.0,
    direction=1,
    reference=Reference(
        value=1.26,
        interval=(1.05, 1.35),
        status="read",
        source=(
            "McAdams & Maunsell 1999: median +26 % in V4 (n = 262), +8 % in V1 (n = 135), widths "
            "not systematically changed."
        ),
    ),
    requirements=(
        Requirement(
            name="width",
            statement="The width of orientation tuning changes by less than 10 %.",
            combine=same_width,
        ),
    ),
    controls=(
        Control(
            name="prior shift",
            statement="Attention shifts the prior mean of the latents and adds, not multiplies.",
            transform=lambda model, seed: AttentionControl(original=model, acts="prior"),
        ),
        Control(
            name="contrast",
            statement="The stimulus itself has twice the contrast; precision stays.",
            transform=lambda model, seed: AttentionControl(original=model, acts="contrast"),
        ),
    ),
    departures=(
        "Precision is raised everywhere; a field at one place is measured beside it.",
        "Gain 2 is judged; baseline, transients and contrast against response gain are not.",
        "The interval 1.05 to 1.35 is the battery's, to hold V1 and V4.",
    ),
    expectations={"FF": "+", "COLUMN": "?"},
    panel=panel,
)  # fmt: skip
