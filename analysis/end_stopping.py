"""H10: error units of V1 are end-stopped because higher areas predict long bars."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from pcsim.hypothesis import Control, Hypothesis, Means, Reference, Requirement
from pcsim.model import Model, lesion
from pcsim.protocols import lacks, respond, signal_role, visual_field, window_mean
from pcsim.stimuli import bars

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["HYPOTHESIS"]

LENGTHS = np.arange(1, 27)
"""Pixels, up to the receptive field of level 2."""
PLATEAU_FROM = 18
CRITERION = 50.0
DURATION = 4.0
"""Seconds; the paper reads the errors after convergence."""
LEVEL = 1
SHOWN = ("RB", "RB-noise", "RB-untr", "RB-gauss", "LCA", "LN")


def missing(model: Model) -> str:
    """Return why a model cannot be shown the bars, "" if it can."""
    if reason := lacks(model, LEVEL):
        return reason
    (_, n_x), _ = visual_field(model)
    wide = f"its field is {n_x} px wide, the longest bar {LENGTHS[-1]} px"
    return wide if n_x < LENGTHS[-1] else ""


def observe(model: Model, *, seed: int, scale: str) -> tuple[xr.Dataset, xr.Dataset]:
    """Show dark horizontal bars of growing length until the circuit rests; cut the feedback."""
    role = signal_role(model, LEVEL)
    assert role is not None
    field, px_per_deg = visual_field(model)
    stimulus = bars(
        field, length=LENGTHS / px_per_deg, width=2 / px_per_deg, contrast=-1.0,
        duration=DURATION, px_per_deg=px_per_deg,
    )  # fmt: skip
    curves, shown = {}, []
    for name, tested in (("intact", model), ("cut", lesion(model, feedback_gain=0.0))):
        responses = respond(tested, stimulus, level=LEVEL, role=role, every=0.1, seed=seed)
        central = np.abs(responses["x"].values) <= 0.16
        responses = responses.isel(unit=central)
        curves[name] = np.abs(window_mean(responses, DURATION - 0.2, DURATION)).T  # (unit, length)
        shown.append(responses)
    index = {name: end_stopping(curve) for name, curve in curves.items()}
    peak = curves["intact"].max(axis=1)
    evidence = xr.Dataset(
        {
            "stopped": ("unit", (index["intact"] > CRITERION).astype(float)),
            "stopped_without_feedback": ("unit", (index["cut"] > CRITERION).astype(float)),
            "index": ("unit", index["intact"]),
            "index_without_feedback": ("unit", index["cut"]),
            "optimal_length": ("unit", LENGTHS[curves["intact"].argmax(axis=1)] / px_per_deg),
            "curve": (("unit", "length"), curves["intact"]),
            "curve_without_feedback": (("unit", "length"), curves["cut"]),
            "included": ("unit", peak > 0.05 * np.percentile(peak, 95)),
        },
        coords={"length": LENGTHS / px_per_deg},
    )
    return evidence, shown[0]


def end_stopping(curves: Any) -> Any:
    """Return 100 (peak - plateau) / peak, the plateau being the mean beyond 18 px; 0 if silent."""
    peak = curves.max(axis=1)
    plateau = curves[:, LENGTHS > PLATEAU_FROM].mean(axis=1)
    return np.where(peak > 0, 100.0 * (peak - plateau) / np.where(peak > 0, peak, 1.0), 0.0)


def share(means: Means) -> Any:
    """Return the share of units that are end-stopped."""
    return means["stopped"]


def halved(means: Means) -> Any:
    """Return by how much cutting the feedback undercuts half of that share."""
    return 0.5 * means["stopped"] - means["stopped_without_feedback"]


def panel(evidence: Mapping[str, Sequence[xr.Dataset]], ax: Axes) -> None:
    """Draw the share of end-stopped units of each column, with feedback and without."""
    from pcsim.plots import colour

    shown = [label for label in SHOWN if evidence.get(label)]
    kinds: dict[str, tuple[str, dict[str, Any]]] = {
        "with feedback": ("stopped", {"color": colour("error"), "marker": "o"}),
        "without": ("stopped_without_feedback", {"color": colour("control"), "marker": "s"}),
    }
    for shift, (name, (variable, marker)) in zip((-0.12, 0.12), kinds.items(), strict=True):
        for place, label in enumerate(shown):
            shares = [float(one[variable][one["included"]].mean()) for one in evidence[label]]
            x = np.full(len(shares), place + shift)
            ax.plot(
                x, shares, linestyle="-", linewidth=0.6, label=None if place else name, **marker
            )
    for share, line, name in (
        (28 / 32, "--", "published, with"),
        (5 / 32, ":", "published, without"),
    ):
        ax.axhline(share, color="black", linestyle=line, linewidth=0.6)
        ax.annotate(name, (len(shown) - 0.5, share), ha="right", va="bottom", fontsize=6)
    ax.set_xticks(range(len(shown)), shown)
    ax.set_xlim(-0.5, len(shown) - 0.5)
    ax.set_ylim(0.0, 1.0)
    ax.set_ylabel("Share of end-stopped units")
    ax.legend(loc="lower left", bbox_to_anchor=(0.0, 1.0), ncols=2)


HYPOTHESIS = Hypothesis(
    id="H10",
    version=2,
    name="End-stopping in error units depends on feedback",
    claim=(
        "Error units at level 1 are end-stopped because level 2, trained on natural images, "
        "predicts "
        "long bars better (Rao & Ballard 1999, Nat. Neurosci. 2:79)."
    ),
    family="V1",
    protocol=(
        "Dark horizontal bars, 2 px wide and 1 to 26 px long, on grey at the centre of the field, "
        "4 s; response = |rate| averaged over the last 0.2 s, at rest as in the paper; repeated "
        "with the feedback set to 0. Units of the central module; included if the peak exceeds 5 "
        "% of the population's 95th percentile. The same at full scale."
    ),
    statistic=(
        "Share of units with ES > 50, ES = 100 (peak - plateau) / peak, plateau = mean beyond 18 "
        "px."
    ),
    signal="error units of level 1 (output or latent units of models without them)",
    falsified_if=(
        "The share without feedback is not below half of the share with it, or the noise-trained "
        "control shows at least half of the effect."
    ),
    units="share of units",
    missing=missing,
    observe=observe,
    variables=("stopped", "stopped_without_feedback", "index", "index_without_feedback"),
    combine=share,
    null=0.0,
    direction=1,
    rope=(-0.05, 0.05),
    reference=Reference(
        value=28 / 32,
        interval=(0.710, 0.965),
        status="read",
        source=(
            "Rao & Ballard 1999: 28 of 32 model units, 5 without feedback; interval = exact "
            "binomial "
            "95 % for 28/32. Cat: layer 6 inactivation abolishes end-inhibition (Bolz & Gilbert "
            "1986), "
            "contested by Grieve & Sillito 1991 (29 % of cells unaffected)."
        ),
    ),
    requirements=(
        Requirement(
            name="feedback",
            statement="Without feedback fewer than half as many units are end-stopped.",
            combine=halved,
        ),
    ),
    controls=(
        Control(
            name="noise",
            statement="The same circuit raised on white noise has learned no long contours.",
            variant="RB-noise",
        ),
        Control(
            name="untrained",
            statement="The same circuit with random weights predicts nothing.",
            variant="RB-untr",
        ),
        Control(
            name="flat",
            statement="Flat sparse coding is end-stopped by competition, without a hierarchy.",
            variant="LCA",
        ),
    ),
    departures=(
        "Shares of units are compared by the bootstrap over replicas, not by McNemar's test.",
        "Losses of peak and of plateau are drawn as curves, not judged apart.",
        "The interval is the binomial one of 28 of 32 model units, not of cells.",
    ),
    panel=panel,
)
