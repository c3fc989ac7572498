"""H35: the dendrites of a pyramidal neuron are the first layer of a network of two."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from pcsim.brian_dendrite import DendriticNeuron
from pcsim.hypothesis import Control, Hypothesis, Means, Reference, Requirement
from pcsim.measures import cross_validated_r2, fit_point_neuron, fit_two_layer
from pcsim.model import Model, lesion
from pcsim.protocols import by_scale
from pcsim.protocols.synapses import complementary_patterns, random_patterns, synaptic_drive
from pcsim.responses import select

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["HYPOTHESIS"]

N_PATTERNS: Mapping[str, int] = {"quick": 150, "full": 400}
DURATION, FROM = 0.6, 0.1
"""Seconds a pattern is shown, and after which spikes are counted."""
STRENGTHS = np.arange(1.0, 9.0)
"""Synapses a line and branch of the exclusive or."""
REPEATS = 4
SHOWN = {
    "NMDA": "NMDA",
    "NMDA/AMPA alone": "AMPA\nalone",
    "NMDA/passive": "linear\nsynapses",
    "TWO-STAGE": "two-stage\nrate neuron",
}
"""Columns and controls of the panel, and what it calls them."""


def observe(model: Model, *, seed: int, scale: str) -> xr.Dataset:
    """Show random patterns and fit both models; show the exclusive or at growing strengths."""
    n_branches = int(getattr(model, "n_features", 0))
    patterns = random_patterns(N_PATTERNS[scale], n_branches, seed=[seed, 35])
    rates = mean_rates(model, patterns, seed)
    scores = {"point": np.zeros(len(rates)), "two_layer": np.zeros(len(rates))}
    varies = np.ptp(rates, axis=1) > 0
    for unit in np.flatnonzero(varies):
        scores["point"][unit] = cross_validated_r2(fit_point_neuron, patterns, rates[unit])
        scores["two_layer"][unit] = cross_validated_r2(fit_two_layer, patterns, rates[unit])
    exclusive = np.concatenate([complementary_patterns(n_branches, float(s)) for s in STRENGTHS])
    # A repeat has another order of frames, so that its synapses are drawn anew.
    repeated = [mean_rates(model, exclusive, seed + 1000 * (k + 1)) for k in range(REPEATS)]
    answers = np.stack(repeated, axis=-1).reshape(len(rates), STRENGTHS.size, 4, REPEATS)
    return xr.Dataset(
        {
            "point": ("unit", np.clip(scores["point"], -1.0, 1.0)),
            "two_layer": ("unit", np.clip(scores["two_layer"], -1.0, 1.0)),
            "xor": ("unit", [xor_accuracy(one) for one in answers]),
            "exclusive": (("unit", "strength", "input"), answers.mean(axis=-1)),
            "rate": (("unit", "pattern"), rates),
            "included": ("unit", varies),
        },
        coords={"strength": STRENGTHS, "input": ["00", "01", "10", "11"]},
    )


def mean_rates(model: Model, patterns: Any, seed: int) -> Any:
    """Return the rate of every output unit under every pattern, (unit, pattern)."""
    stimulus = synaptic_drive(patterns, duration=DURATION)
    responses = select(lesion(model, record_dt=0.05).run(stimulus, seed=seed), population="output")
    late = select(responses, time=slice(FROM, DURATION + 0.01))["rate"]
    return late.mean("time").transpose("unit", "trial").to_numpy()


def xor_accuracy(answers: Any) -> float:
    """Return how often a threshold on the rate tells (0,1), (1,0) from (0,0), (1,1).

    Strength and threshold are chosen on one half of the repeats and scored on the other, both
    ways. The unit must fire more for the two in the middle.

    Parameters
    ----------
    answers : (strength, input, repeat)
        Rates.
    """
    truth = np.array([False, True, True, False])[:, None]
    scores = []
    for chosen in (0, 1):
        train, test = answers[..., chosen::2], answers[..., 1 - chosen :: 2]
        best = (-1.0, 0, 0.0)
        for strength, rates in enumerate(train):
            levels = np.unique(rates)
            for threshold in np.concatenate([[levels[0] - 1.0], (levels[1:] + levels[:-1]) / 2]):
                score = float(((rates > threshold) == truth).mean())
                best = max(best, (score, strength, float(threshold)))
        _, strength, threshold = best
        scores.append(((test[strength] > threshold) == truth).mean())
    return float(np.mean(scores))


def gain(means: Means) -> Any:
    """Return what the second layer adds to the explained variance."""
    return means["two_layer"] - means["point"]


def above_chance(means: Means) -> Any:
    """Return by how much the exclusive or is solved better than by firing always or never."""
    return means["xor"] - 0.5


def missing(model: Model) -> str:
    """Return why a model cannot be tested."""
    if getattr(model, "senses", "images") != "synapses":
        return "it has no dendrites"
    if isinstance(model, DendriticNeuron) and find_spec("brian2") is None:
        return "it needs Brian 2, which is not installed"
    return ""


def without_nmda(model: Any, seed: int) -> Any:
    """Replace NMDA by stronger AMPA synapses; make the subunits of a rate neuron linear."""
    return lesion(lesion(model, synapses="ampa"), nonlinear=False)


def passive(model: Any, seed: int) -> Any:
    """Make the synapses currents, so that nothing in a branch depends on its voltage."""
    return lesion(lesion(model, synapses="current"), nonlinear=False)


def panel(evidence: Mapping[str, Sequence[xr.Dataset]], ax: Axes) -> None:
    """Draw the variance that both models explain, for every column and control."""
    from pcsim.plots import colour

    shown = [label for label in SHOWN if evidence.get(label)]
    kinds = {"point neuron": ("point", "control", "s"), "two layers": ("two_layer", "latent", "o")}
    for shift, (name, (variable, paint, marker)) in zip((-0.12, 0.12), kinds.items(), strict=True):
        for place, label in enumerate(shown):
            values = [float(one[variable][one["included"]].mean()) for one in evidence[label]]
            ax.plot(
                np.full(len(values), place + shift), values, marker=marker, color=colour(paint),
                linestyle="-", linewidth=0.6, label=None if place else name,
            )  # fmt: skip
    for level, line, name in ((0.91, "--", "published, two layers"), (0.37, ":", "point neuron")):
        ax.axhline(level, color="black", linestyle=line, linewidth=0.6)
        ax.annotate(name, (len(shown) - 0.5, level), ha="right", va="bottom", fontsize=6)
    ax.set_xticks(range(len(shown)), [SHOWN[label] for label in shown])
    ax.set_xlim(-0.5, len(shown) - 0.5)
    ax.set_ylim(0.0, 1.05)
    ax.set_ylabel("Variance of the rate explained\non unseen patterns")
    ax.legend(loc="lower left", bbox_to_anchor=(0.0, 1.0), ncols=2)


HYPOTHESIS = Hypothesis(
    id="H35",
    name="Dendrites are the first layer of a network",
    claim=(
        "A network of two layers, whose hidden units are the branches, explains the rate of a "
        "pyramidal neuron that a point neuron does not explain, because of NMDA receptors "
        "(Poirazi, Brannon & Mel 2003, Neuron 37:989; Beniaguev, Segev & London 2021, Neuron "
        "109:2727)."
    ),
    family="cell",
    protocol=(
        f"{by_scale(N_PATTERNS)} patterns of 5 to 50 active synapses (30 spikes/s each), from "
        "dispersed to clustered on few branches, 0.6 s each; rate from 0.1 s on. The exclusive or "
        "in complementary code, 1 to 8 synapses a line and branch, four repeats."
    ),
    statistic=(
        "R2 on left-out patterns (5 folds) of the two-layer fit minus that of the point-neuron "
        "fit; accuracy of a single unit at the exclusive or, threshold and strength chosen on "
        "other repeats."
    ),
    signal="output units (somata)",
    falsified_if=(
        "The gain of the second layer with NMDA does not exceed that without.",
        "The unit does not solve the exclusive or better than chance (0.5).",
    ),
    units="share of variance",
    missing=missing,
    observe=observe,
    variables=("point", "two_layer", "xor"),
    combine=gain,
    null=0.0,
    direction=1,
    rope=(-0.02, 0.02),
    reference=Reference(
        value=0.54,
        status="read",
        source=(
            "Two layers explain 91 %, a point neuron 37 % (Mel, workshop 2002; Poirazi et al. "
            "2003, abstract). No interval is published: only the sign is judged. Beniaguev et al. "
            "2021: five to eight layers with NMDA, one hidden layer without. Human dendrites "
            "compute the exclusive or (Gidon et al. 2020, Science 367:83)."
        ),
    ),
    requirements=(
        Requirement(
            name="exclusive or",
            statement="A single unit solves the exclusive or more often than chance.",
            combine=above_chance,
        ),
        Requirement(
            name="NMDA",
            statement="The second layer adds more with NMDA than with AMPA alone.",
            combine=gain,
            against="AMPA alone",
        ),
    ),
    controls=(
        Control(
            name="AMPA alone",
            statement="Without NMDA a branch does not jump; the mean rate is matched.",
            transform=without_nmda,
        ),
        Control(
            name="passive",
            statement="Linear branches add nothing that a point neuron does not have.",
            transform=passive,
        ),
    ),
    departures=(
        "One and two layers only: no network of up to eight layers, and no AUC of spikes.",
        "Rates of patterns stand for spike trains.",
    ),
    expectations={"NMDA": "+", "TWO-STAGE": "+"},
    panel=panel,
)
