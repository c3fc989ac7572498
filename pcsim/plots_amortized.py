"""Panels on amortized inference: races, paired arms, bounds, gradients and reconstructions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from pcsim.plots_style import OKABE_ITO

if TYPE_CHECKING:
    from matplotlib.figure import SubFigure

__all__ = ["bounds", "gradients", "images", "paired", "race"]

RACERS = {
    "iterative": "black", "gradient": "sky", "momentum": "orange", "adam": "blue",
    "rmsprop": "green", "preconditioned": "vermillion",
}  # fmt: skip
"""What runs in a race -> its colour."""


def race(axes: Any, lanes: Mapping[str, Any]) -> None:
    """Draw free energy over iterations and over seconds.

    Parameters
    ----------
    axes : (2,)
    lanes
        Name -> "free_energy", "seconds" (n_steps + 1,), and whether it is shown, "at_end". The lane
        "direct" has one estimate, after one pass; "iterative" is drawn in black.
    """
    best = min(np.nanmin(one["free_energy"]) for one in lanes.values())
    for name, one in lanes.items():
        above = np.array(one["free_energy"]) - best + 0.1
        if name == "direct":
            mark: dict[str, Any] = {"color": "black", "marker": "D", "ls": "none", "ms": 4}
            axes[0].plot([1], above, label="direct, one pass", zorder=3, **mark)
            axes[1].plot(one["seconds"], above, zorder=3, **mark)
        elif one["at_end"]:
            style: dict[str, Any] = {"color": OKABE_ITO[RACERS[name.split()[0]]], "ls": "-"}
            style["lw"] = 1.6 if name == "iterative" else 0.9
            axes[0].plot(np.arange(len(above)), above, label=name, **style)
            # The start costs no time: it has no place on a logarithmic axis.
            axes[1].plot(one["seconds"][1:], above[1:], **style)
    axes[0].set(xlabel="Iteration", ylabel="Free energy above\nthe lowest + 0.1 (nats)")
    axes[1].set(xlabel="Processor time (s)", xscale="log")
    for ax in axes:
        ax.set_yscale("log")
    # Room for the legend above the curves.
    axes[0].set_ylim(top=100 * axes[0].get_ylim()[1])
    axes[0].legend(loc="upper right", labelspacing=0.2)


def paired(ax: Any, rows: Sequence[Mapping[str, str]], labels: Mapping[str, str]) -> None:
    """Draw differences of arms with their intervals, and the published ones.

    Parameters
    ----------
    rows
        Lines of a table: "levels", "direct_arm", "difference", "low", "high" and
        "published_difference", which may be empty.
    labels
        Direct arm -> what the legend calls it.
    """
    colours = (OKABE_ITO[name] for name in ("black", "blue", "green"))
    shades = dict(zip(labels, colours, strict=True))
    named: set[str] = set()
    for row in rows:
        arm, levels = row["direct_arm"], int(row["levels"])
        x = levels + 0.14 * (list(labels).index(arm) - 1)
        middle, low, high = (float(row[name]) for name in ("difference", "low", "high"))
        label = None if arm in named else labels[arm]
        named.add(arm)
        ends = np.array([[middle - low], [high - middle]])
        ax.errorbar(x, middle, ends, fmt="s", ms=3, color=shades[arm], capsize=2, label=label)
        if row["published_difference"]:
            published = float(row["published_difference"])
            ax.plot(levels + 0.28, published, "x", color=OKABE_ITO["vermillion"], ms=4)
    ax.axhline(0.0, color="grey", lw=0.5)
    ax.set(xlim=(0.5, 2.5), xticks=(1, 2), xlabel="Levels")
    ax.set_ylabel("Direct minus iterative (nats)\ncross: published")
    ax.legend(loc="center left")


def bounds(ax: Any, lines: Mapping[str, tuple[list[int], list[float]]], xlabel: str) -> None:
    """Draw test free energies in nats, a line a label."""
    shades = {"direct": "grey", "iterative": "black"}
    for label, (x, y) in lines.items():
        ax.plot(x, y, "o-", label=label, **({"color": shades[label]} if label in shades else {}))
    ax.set(xlabel=xlabel, ylabel="Free energy, test (nats)")
    ax.legend()


def gradients(ax: Any, watched: Any) -> None:
    """Draw the size of the gradient in the mean against the epoch, a line an iteration."""
    sizes = np.array(watched)
    for step in sorted({0, 1, 2, 4, sizes.shape[1] - 1} & set(range(sizes.shape[1]))):
        ax.plot(np.arange(1, len(sizes) + 1), sizes[:, step], label=f"iteration {step}")
    ax.set(xlabel="Epoch", ylabel="Mean |gradient in the mean|", yscale="log")
    ax.legend()


def images(part: SubFigure, stages: Any, shown: Sequence[int]) -> None:
    """Draw test images and their reconstructions, (1 + number of stages, n, 784), in two blocks."""
    n_rows = stages.shape[1] // 2
    grid = part.subplots(n_rows, 2 * len(stages))
    for (row, column), ax in np.ndenumerate(grid):
        block, stage = divmod(column, len(stages))
        image = stages[stage, row + block * n_rows].reshape(28, 28)
        ax.imshow(image, cmap="gray", vmin=0, vmax=1)
        ax.set_axis_off()
        if row == 0:
            ax.set_title("image" if stage == 0 else f"{shown[stage - 1]}")
