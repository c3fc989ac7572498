"""H15: the response to a plaid is the average of those to its gratings, not their sum."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
from pcsim.protocols import by_scale, lacks, respond, signal_role, visual_field, window_mean
from pcsim.stimuli import gratings

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["HYPOTHESIS"]

LEVEL = 1
CONTRASTS = (0.06, 0.12, 0.25, 0.5)
HIGH, LOW = 0.5, 0.12
N_ORIENTATIONS = {"quick": 6, "full": 12}
PHASES = np.arange(4) * np.pi / 2
FREQUENCY = 2.0
"""Cycles per degree."""
DURATION, READ = 0.3, 0.05
STEADY = 0.15
"""Seconds a stimulus is on, between recorded times, and from when the response is steady."""
ADDITION = 0.85
"""Weight from which on responses count as adding up."""


def trials(n: int) -> dict[str, Any]:
    """Return the parameters of all stimuli as columns: gratings, plaids, a blank.

    The first grating of a plaid has the first contrast. Of two equal contrasts each orthogonal pair
    comes once, of two unequal ones in both orders. All phases of both are combined.
    """
    orientation = np.arange(n) * np.pi / n
    rows = [(c, o, p, 0.0, 0.0) for c in CONTRASTS for o in orientation for p in PHASES]
    both = [(p, q) for p in PHASES for q in PHASES]
    rows += [(c, o, p, c, q) for c in CONTRASTS for o in orientation[: n // 2] for p, q in both]
    rows += [(HIGH, o, p, LOW, q) for o in orientation for p, q in both]
    rows.append((0.0, 0.0, 0.0, 0.0, 0.0))
    names = ("contrast", "orientation", "phase", "plaid_contrast", "plaid_phase")
    return dict(zip(names, np.array(rows).T, strict=True))


def observe(model: Model, *, seed: int, scale: str) -> tuple[xr.Dataset, xr.Dataset]:
    """Show gratings and plaids that fill the field; compare each plaid with its gratings."""
    role = signal_role(model, LEVEL)
    assert role is not None
    field, px_per_deg = visual_field(model)
    table = trials(N_ORIENTATIONS[scale])
    stimulus = gratings(
        field, **table, spatial_frequency=FREQUENCY, duration=DURATION, px_per_deg=px_per_deg
    )
    responses = respond(model, stimulus, level=LEVEL, role=role, every=READ, seed=seed)
    rate = window_mean(responses, STEADY, DURATION)
    first, second, plaid = parts(table, rate - rate[-1])
    contrast = table["contrast"][table["plaid_contrast"] > 0]
    equal = contrast == table["plaid_contrast"][table["plaid_contrast"] > 0]
    total = first + second
    drive = np.sqrt((total[equal] ** 2).mean(axis=0))
    included = drive > 0.05 * np.percentile(drive, 95)
    at = [equal & (contrast == c) for c in CONTRASTS]
    products = {"cross": plaid * total, "power": total**2}
    data: dict[str, Any] = {n: ("unit", one[equal].mean(axis=0)) for n, one in products.items()}
    for name, one in products.items():
        means = np.stack([one[here].mean(axis=0) for here in at], axis=1)
        data[f"{name}_at"] = (("unit", "contrast"), means)
        data[f"{name}_low"] = ("unit", means[:, 0])
    unequal = np.zeros(2)
    if included.any():
        pair = [one[~equal][:, included].ravel() for one in (first, second)]
        unequal = np.linalg.lstsq(np.stack(pair, axis=1), plaid[~equal][:, included].ravel())[0]
    data["unequal"] = ("part", unequal)
    data["included"] = ("unit", included)
    coords = {"contrast": list(CONTRASTS), "part": [HIGH, LOW]}
    return xr.Dataset(data, coords=coords), responses


def parts(table: Mapping[str, Any], rate: Any) -> tuple[Any, Any, Any]:
    """Return the responses (plaid, unit) to the first grating, to the second and to each plaid."""
    is_plaid = table["plaid_contrast"] > 0
    alone = ~is_plaid & (table["contrast"] > 0)
    names = ("contrast", "orientation", "phase")
    keys = zip(*(table[name][alone] for name in names), strict=True)
    where = {key(*one): row for one, row in zip(keys, np.flatnonzero(alone), strict=True)}
    chosen = [table[name][is_plaid] for name in names]
    first = [where[key(*one)] for one in zip(*chosen, strict=True)]
    other = (
        table["plaid_contrast"][is_plaid], chosen[1] + np.pi / 2, table["plaid_phase"][is_plaid]
    )  # fmt: skip
    second = [where[key(*one)] for one in zip(*other, strict=True)]
    # A grating of orientation pi is that of 0 with the phase turned round.
    return rate[first], rate[second], rate[is_plaid]


def key(contrast: float, orientation: float, phase: float) -> tuple[float, float, float]:
    """Return what tells one grating from another."""
    turned = orientation > np.pi - 1e-9
    angle = orientation - np.pi if turned else orientation
    phase = -phase if turned else phase
    quarter = 4.0 * (phase / (2.0 * np.pi) % 1.0)
    return float(contrast), round(float(angle), 6), round(quarter, 6) % 4.0


def weight(means: Means) -> Any:
    """Return the weight w of R(plaid) = w (R1 + R2), by least squares over units and stimuli."""
    return quotient(means["cross"], means["power"])


def weight_at_low_contrast(means: Means) -> Any:
    """Return the weight at the lowest contrast alone."""
    return quotient(means["cross_low"], means["power_low"])


def quotient(cross: Any, power: Any) -> Any:
    """Return cross over power; 0 where there is no power."""
    return np.where(power > 0, cross / np.where(power > 0, power, 1.0), 0.0)


def panel(evidence: Mapping[str, Sequence[xr.Dataset]], ax: Axes) -> None:
    """Draw the weight against contrast for each column."""
    from pcsim.plots import OKABE_ITO

    shades = {
        "RB-gauss": ("orange", "o-"),
        "RB": ("vermillion", "o-"),
        "PATH": ("blue", "o-"),
        "LCA": ("purple", "o-"),
        "LN": ("black", "s-"),
        "ADAPT": ("green", "s-"),
        "DN": ("sky", "D-"),
    }
    ax.axhspan(0.4, 0.65, color="0.92", linewidth=0, zorder=0)
    ax.axhline(1.0, color="0.5", linewidth=0.6, linestyle=":")
    ax.axhline(0.5, color="0.5", linewidth=0.6, linestyle=":")
    for label, (shade, line) in shades.items():
        curves = []
        for one in evidence.get(label, ()):
            mean = one.isel(unit=one["included"].values)[["cross_at", "power_at"]].mean("unit")
            if bool((mean["power_at"] > 0).all()):
                curves.append(mean["cross_at"] / mean["power_at"])
        if curves:
            rows = xr.concat(curves, "replica").transpose("replica", "contrast")
            middle, x = rows.mean("replica"), 100 * rows["contrast"]
            ax.plot(x, middle, line, ms=3.5, color=OKABE_ITO[shade], label=label)
            ax.fill_between(
                x,
                rows.min("replica"),
                rows.max("replica"),
                color=OKABE_ITO[shade],
                alpha=0.15,
                lw=0,
            )
    ax.text(6.1, 1.015, "sum", fontsize="small", color="0.35")
    ax.text(6.1, 0.515, "mean (tree shrew V1)", fontsize="small", color="0.35")
    ax.set_xscale("log")
    ax.set_xticks([100 * c for c in CONTRASTS], [f"{100 * c:.0f}" for c in CONTRASTS])
    ax.minorticks_off()
    ax.set_ylim(0.0, 1.15)
    ax.set_xlabel("Contrast of each grating (%)")
    ax.set_ylabel("Weight of the gratings' responses")
    ax.legend(loc="lower left", bbox_to_anchor=(0.0, 1.0), ncols=3, columnspacing=1.0)


HYPOTHESIS = Hypothesis(
    id="H15",
    version=2,
    name="Plaids: responses average, not add",
    claim=(
        "The population's response to two orthogonal gratings of equal contrast is the mean of the "
        "responses to each, whatever the contrast. A linear circuit adds them."
    ),
    family="V1",
    protocol=(
        "Gratings of 2 cycles per degree and 6, 12, 25 and 50 % contrast that fill the field, "
        f"{by_scale(N_ORIENTATIONS, 'orientations')}, 4 phases, and plaids of the "
        "orthogonal ones in all 16 combinations of phases, 0.3 s; plaids of 50 "
        "and 12 %. Rates from 0.15 s on, with their sign, less that "
        "to grey. Each plaid is compared with its own gratings at the same phases, so that a "
        "linear unit has a weight of 1 exactly."
    ),
    statistic=(
        "w of R(plaid) = w (R1 + R2) by least squares over units, pairs, phases and contrasts. "
        "Beside it, not judged: the two weights at 50 and 12 %."
    ),
    signal="error units of level 1 (output or latent units of models without them)",
    falsified_if="w is above 0.85, over all contrasts or at 6 % alone.",
    units="weight",
    missing=lambda model: lacks(model, LEVEL),
    observe=observe,
    variables=("cross", "power", "cross_low", "power_low"),
    combine=weight,
    null=ADDITION,
    direction=-1,
    reference=Reference(
        value=0.5,
        interval=(0.4, 0.65),
        status="read",
        source=(
            "MacEvoy, Tucker & Fitzpatrick (2009, Nat. Neurosci. 12:637), tree shrew V1: the mean "
            "of the components across contrasts; the interval is the battery's. At unequal "
            "contrasts a mask shifts the contrast gain (Brouwer & Heeger 2011)."
        ),
    ),
    requirements=(
        Requirement(
            name="low contrast",
            statement="At 6 % as well, w is below 0.85: the average holds whatever the contrast.",
            combine=weight_at_low_contrast,
            null=ADDITION,
            direction=-1,
        ),
    ),
    controls=(
        Control(
            name="linear",
            statement="The circuit with Gaussian priors adds: w = 1.",
            variant="RB-gauss",
        ),
        Control(
            name="rectified",
            statement="Static filters with a rectifier lose what cancels, and average nothing.",
            variant="LN",
        ),
    ),
    departures=(
        "The battery asks for estimates and errors; one of the two is judged, errors where a "
        "model has them.",
        "Gratings stand still at four phases, and rates keep their sign; recorded were spikes, "
        "which have none.",
        "Weights of unequal contrasts are measured and not judged.",
        "That 6 % alone must average is not in the battery; it was added after a verdict had been "
        "seen.",
        "One spatial frequency for all units, not each unit's own.",
    ),
    expectations={
        "RB-gauss": "-",
        "PATH": "-",
        "PATH-cut": "-",
        "COLUMN": "-",
    },
    panel=panel,
)
