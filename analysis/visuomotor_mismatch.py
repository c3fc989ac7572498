"""H26: opposing inputs of running and optic flow predict mismatch responses, in L2/3 only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from pcsim.hypothesis import Control, Hypothesis, Means, Reference, Requirement
from pcsim.protocols import by_scale
from pcsim.protocols.flow import lacks_flow
from pcsim.protocols.mismatch import (
    MOMENTS,
    N_HALTS,
    N_REPLAYS,
    mismatch_correlation,
    mismatch_evidence,
    replica_correlations,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["HYPOTHESIS"]

SMALLEST = 0.01
"""R_MM below which it counts as none."""


def split(means: Means) -> Any:
    """Return R_MM of error units less that of estimates."""
    return mismatch_correlation(means, "error") - mismatch_correlation(means, "estimate")


def superficial(means: Means) -> Any:
    """Return the logarithm of R_MM of error units, so that a difference is a ratio."""
    return np.log(np.maximum(mismatch_correlation(means, "error"), SMALLEST))


def response(means: Means) -> Any:
    """Return the mean mismatch response of error units."""
    return means["error_raw"] / np.maximum(means["error_n"], 1e-12)


def panel(evidence: Mapping[str, Sequence[xr.Dataset]], ax: Axes) -> None:
    """Draw mismatch against opposing inputs in both parts, and R_MM beside the published."""
    from pcsim.plots import colour

    label = "VM" if evidence.get("VM") else next(iter(evidence), "")
    marks = {"error": ("error", "o", "L2/3 (error)"), "estimate": ("latent", "s", "L5/6 (latent)")}
    for name, (meaning, marker, title) in marks.items():
        x, y = [], []
        for one in evidence.get(label, ()):
            own = (one["part"].values == name) & one["included"].values
            x.append((one["with_running"] - one["with_flow"]).values[own])
            y.append(one["scaled"].values[own])
        if x:
            ax.plot(
                np.concatenate(x), np.concatenate(y), linestyle="", marker=marker, markersize=2.2,
                color=colour(meaning), alpha=0.6, markeredgewidth=0, label=title,
            )  # fmt: skip
    ax.axhline(0.0, color="black", linewidth=0.5)
    ax.axvline(0.0, color="black", linewidth=0.5, linestyle=":")
    ax.set_xlabel("Correlation with running - with flow, open loop")
    ax.set_ylabel("Mismatch response (rms = 1)")
    ax.margins(y=0.12)
    lines = [f"{'R':12s} {'L2/3':>6s} {'L5/6':>6s}", f"{'published':12s} {0.58:6.2f} {-0.1:6.2f}"]
    for column in ("VM", "VM-uncoupled", "VM-gain"):
        found = [replica_correlations(one) for one in evidence.get(column, ())]
        if found:
            first, second = np.mean(found, axis=0)
            lines.append(f"{column:12s} {first:6.2f} {second:6.2f}")
    ax.text(
        0.02, 0.98, "\n".join(lines), transform=ax.transAxes, va="top", fontsize=5.5,
        family="monospace",
    )  # fmt: skip
    ax.legend(loc="lower right", handletextpad=0.2)


HYPOTHESIS = Hypothesis(
    id="H26",
    version=2,
    name="Opposing visuomotor inputs predict mismatch in L2/3, not in L5/6",
    claim=(
        "Error units of L2/3 compare optic flow with what running predicts, so their mismatch "
        "response follows from the opposite signs of both inputs; estimates of L5/6 integrate them "
        "(Jordan & Keller 2020, Neuron 108:1194; Attinger et al. 2017, Cell 169:1291)."
    ),
    family="temporal",
    protocol=(
        "Virtual corridor. Flow halted for 1 s while the animal runs "
        f"({by_scale(N_HALTS, 'trials')}); flow of other trials replayed in open loop "
        f"({by_scale(N_REPLAYS, 'trials')} of 10 s); flow onset at rest. MM = mean rate "
        "during the halt less that of the 0.5 s before; c_m, c_v = correlations of the rate with "
        "running and with flow in open loop. Included: rate varies by more than 5 % of the 95th "
        "percentile."
    ),
    statistic="R_MM = correlation over units of MM with c_m - c_v; R_MM(error) - R_MM(estimate).",
    signal="error units (or outputs in L2/3) against latents (or outputs in L5/6)",
    falsified_if=(
        "The difference is not above 0.",
        "The multiplicative gain model has half of it, or half of R_MM in L2/3.",
        "Uncoupled training gives the same mismatch response.",
    ),
    units="correlation",
    missing=lacks_flow,
    observe=mismatch_evidence,
    variables=(*MOMENTS, "error_raw"),
    combine=split,
    null=0.0,
    direction=1,
    reference=Reference(
        value=0.68,
        interval=(-0.02, 1.26),
        status="read",
        source=(
            "Jordan & Keller 2020 (captions): R = 0.58 in 22 cells of L2/3, -0.1 in 12 of L5/6; "
            "interval of the difference from Fisher's z of both."
        ),
    ),
    requirements=(
        Requirement(
            name="coupled",
            statement="Mean mismatch response of error units above that after uncoupled training.",
            combine=response,
            against="uncoupled",
        ),
        Requirement(
            name="gain",
            statement="R_MM of L2/3 more than twice that of the gain model (difference of logs).",
            combine=superficial,
            null=float(np.log(2.0)),
            against="gain",
        ),
    ),
    controls=(
        Control(
            name="gain",
            statement="Running multiplies visual responses; nothing is predicted.",
            variant="VM-gain",
        ),
        Control(
            name="uncoupled",
            statement="Raised with flow that did not follow its running.",
            variant="VM-uncoupled",
        ),
    ),
    departures=(
        "Models have tens of units where the source has 22 and 12 cells.",
        "That mismatch needs coupled experience is judged by the size of the response, not by "
        "R_MM.",
        "Flow onset at rest is measured and not judged.",
    ),
    expectations={"VM": "+", "VM-uncoupled": "-", "VM-gain": "-"},
    panel=panel,
)  # fmt: skip
