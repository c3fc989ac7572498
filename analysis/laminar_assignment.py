"""H38: errors are the cells of L2/3 and estimates those of L5/6, not the other way round."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
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
from pcsim.protocols import by_scale
from pcsim.protocols.flow import lacks_flow
from pcsim.protocols.mismatch import (
    MOMENTS,
    N_HALTS,
    N_REPLAYS,
    PARTS,
    mismatch_correlation,
    mismatch_evidence,
    replica_correlations,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["HYPOTHESIS"]

LAYERS = {"L2/3": (0.58, 22), "L5/6": (-0.1, 12)}
"""Correlation of mismatch with opposing inputs, and cells (Jordan & Keller 2020)."""
LARGEST = 0.99
"""Correlation taken instead of a larger one, whose transform would be infinite."""
SHOWN = ("VM", "VM-uncoupled", "VM-gain")


def transformed(correlation: Any) -> Any:
    """Return Fisher's z of a correlation."""
    return np.arctanh(np.clip(correlation, -LARGEST, LARGEST))


def distances(correlation: Any) -> dict[str, Any]:
    """Return how many standard errors of each layer's z a correlation lies from it, signed."""
    z = transformed(correlation)
    return {
        layer: (z - transformed(value)) * np.sqrt(n - 3) for layer, (value, n) in LAYERS.items()
    }


def assignment(means: Means) -> Any:
    """Return the log likelihood ratio of the standard assignment to the swapped one, nats."""
    error, estimate = (distances(mismatch_correlation(means, part)) for part in PARTS)
    standard = error["L2/3"] ** 2 + estimate["L5/6"] ** 2
    swapped = error["L5/6"] ** 2 + estimate["L2/3"] ** 2
    return 0.5 * (swapped - standard)


def nearer(part: str, own: str, other: str) -> Callable[[Means], Any]:
    """Return by how much a class lies nearer to its own layer than to the other, in z."""

    def margin(means: Means) -> Any:
        z = transformed(mismatch_correlation(means, part))
        first, second = (transformed(LAYERS[layer][0]) for layer in (own, other))
        return np.abs(z - second) - np.abs(z - first)

    return margin


def panel(shown: Mapping[str, Sequence[xr.Dataset]], ax: Axes) -> None:
    """Draw R_MM of both classes of every column across the published values of both layers."""
    from pcsim.plots_style import COLOURS

    labels = [label for label in SHOWN if shown.get(label)]
    for place, label in enumerate(labels):
        pairs = np.array([replica_correlations(one) for one in shown[label]])
        for index, (meaning, mark) in enumerate((("error", "o"), ("latent", "s"))):
            x = place + 0.2 * (index - 0.5) + np.linspace(-0.05, 0.05, len(pairs))
            name = ("errors", "estimates")[index] if place == 0 else None
            ax.plot(
                x, pairs[:, index], linestyle="", marker=mark, markersize=3.5,
                color=COLOURS[meaning], label=name,
            )  # fmt: skip
    for index, (value, n) in enumerate(LAYERS.values()):
        low, high = np.tanh(transformed(value) + np.array([-1.96, 1.96]) / np.sqrt(n - 3))
        ax.errorbar(
            len(labels) + 0.2 * (index - 0.5), value, [[value - low], [high - value]],
            fmt="os"[index], markersize=3.5, color="black", capsize=2,
            label=f"mouse, {list(LAYERS)[index]}",
        )  # fmt: skip
        ax.axhline(value, color="0.6", linewidth=0.6, linestyle=("-", ":")[index], zorder=0)
    ax.axhline(0.0, color="black", linewidth=0.4)
    ax.set_xticks(range(len(labels) + 1), [*labels, "mouse"])
    ax.set_xlim(-0.5, len(labels) + 0.5)
    ax.set_ylim(-1.05, 1.05)
    ax.set_ylabel("Correlation of mismatch with inputs")
    ax.legend(loc="lower left", bbox_to_anchor=(0.0, 1.0), ncols=2)


HYPOTHESIS = Hypothesis(
    id="H38",
    name="Errors are L2/3 and estimates L5/6",
    claim=(
        "Of the two ways to assign errors and estimates to layers the standard one (Bastos et al. "
        "2012, Neuron 76:695) fits mouse V1 (Jordan & Keller 2020, Neuron 108:1194): each class "
        "is scored against the cells of both layers."
    ),
    family="temporal",
    protocol=(
        "That of H26: flow halted for 1 s while the animal runs "
        f"({by_scale(N_HALTS, 'trials')}), and flow replayed in open loop "
        f"({by_scale(N_REPLAYS, 'trials')}); "
        "R_MM = correlation over units of the mismatch response with c_m - c_v."
    ),
    statistic=(
        "With z Fisher's transform of R_MM and the two published correlations normal in it, of "
        "variance 1 / (n - 3): log likelihood of errors in L2/3 and estimates in L5/6 less that "
        "of the reverse."
    ),
    signal="error units (or outputs in L2/3) and latents (or outputs in L5/6)",
    falsified_if=(
        "The reverse assignment is the likelier.",
        "Errors lie nearer to L5/6, or estimates nearer to L2/3.",
    ),
    units="nats",
    missing=lacks_flow,
    observe=mismatch_evidence,
    variables=MOMENTS,
    combine=assignment,
    null=0.0,
    direction=1,
    reference=Reference(
        value=8.15,
        interval=(-0.27, 19.8),
        status="read",
        source=(
            "Jordan & Keller 2020 (captions): R = 0.58 in 22 cells of L2/3, -0.1 in 12 of L5/6. "
            "The ratio at these values, and 95 % of the ratios of samples as large around them."
        ),
    ),
    requirements=(
        Requirement(
            name="errors",
            statement="R_MM of errors is nearer to that of L2/3 than to that of L5/6.",
            combine=nearer("error", "L2/3", "L5/6"),
        ),
        Requirement(
            name="estimates",
            statement="R_MM of estimates is nearer to that of L5/6 than to that of L2/3.",
            combine=nearer("estimate", "L5/6", "L2/3"),
        ),
    ),
    controls=(
        Control(
            name="gain",
            statement="Running multiplies visual responses; its layers are outputs, no errors.",
            variant="VM-gain",
        ),
        Control(
            name="uncoupled",
            statement="Raised with flow that did not follow its running, it has nothing to expect.",
            variant="VM-uncoupled",
        ),
    ),
    departures=(
        "The battery asks for the 2 by 2 of classes and layers; its four distances are judged as "
        "one likelihood ratio, their signs as requirements.",
        "Models have tens of units where the source has 22 and 12 cells.",
    ),
    expectations={
        "VM": "+", "VM-uncoupled": "-", "VM-gain": "-",
    },
    panel=panel,
)  # fmt: skip
