"""The figure of the calibration of verdicts, from its saved tables."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pcsim.plots_style import DOUBLE_COLUMN, OKABE_ITO, publication_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["calibration_figure"]

Row = Mapping[str, str]
SHADES = ("blue", "green", "orange", "vermillion", "purple", "sky", "black")


def calibration_figure(folder: str | Path, level: float) -> Figure:
    """Draw false claims by rule, by hypothesis and by noise, and power.

    Parameters
    ----------
    folder
        Holds `table.csv` and `power.csv`.
    level
        The rate that a verdict may be wrong with.
    """
    table, power = (_rows(Path(folder) / name) for name in ("table.csv", "power.csv"))
    with publication_figure(DOUBLE_COLUMN, 130.0) as figure:
        axes: Any = figure.subplots(2, 2).flat
        pooled = [row for row in table if row["scope"] == "all"]
        _rules(axes[0], [r for r in pooled if r["kind"] == "absent" and r["noise"] == "normal"])
        _noises(
            axes[1],
            [r for r in pooled if r["kind"] == "absent" and float(r["share"] or 0.0) == 1.0],
        )
        _hypotheses(axes[2], table)
        _power(axes[3], power)
        for ax in axes[:3]:
            ax.axhline(100 * level, color="black", linewidth=0.6, linestyle=":")
        for ax, letter in zip(axes, "abcd", strict=True):
            ax.set_title(letter, loc="left", fontweight="bold")
    return figure


def _rows(path: Path) -> list[Row]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def _shade(index: int) -> str:
    known = [OKABE_ITO[name] for name in SHADES if name in OKABE_ITO]
    return known[index % len(known)]


def _line(ax: Axes, rows: Iterable[Row], shift: float, **style: Any) -> None:
    rows = sorted(rows, key=lambda row: float(row["n"]))
    x = np.arange(len(rows)) + shift
    y, low, high = (
        100 * np.array([float(row[name]) for row in rows])
        for name in ("claimed", "claimed_low", "claimed_high")
    )
    ax.errorbar(x, y, yerr=[y - low, high - y], markersize=3, linewidth=0.8, **style)
    ax.set_xticks(range(len(rows)), [row["n"] for row in rows])
    ax.set_xlabel("Replicas")
    ax.set_ylabel("False claims (%)")


def _rules(ax: Axes, rows: list[Row]) -> None:
    shares = sorted({row["share"] for row in rows}, key=float)
    looks = {"1": ("--", "o", "rule 1"), "2": ("-", "s", "rule 2")}
    for index, share in enumerate(shares):
        for rule, (dash, mark, name) in looks.items():
            own = [r for r in rows if r["share"] == share and r["rule"] == rule]
            own = [r for r in own if r["units"] == "20"]
            label = f"{name}, {100 * float(share):.0f} %"
            shift = 0.05 * (index - 1.5)
            _line(ax, own, shift, color=_shade(index), linestyle=dash, marker=mark, label=label)
    ax.set_ylim(0.0)
    ax.set_title("effect absent; variance between replicas", fontsize=7)
    ax.legend(ncols=2, fontsize=5.5, loc="upper right")


def _noises(ax: Axes, rows: list[Row]) -> None:
    rows = [row for row in rows if row["rule"] == "2"]
    for index, noise in enumerate(dict.fromkeys(row["noise"] for row in rows)):
        own = [row for row in rows if row["noise"] == noise]
        _line(ax, own, 0.05 * (index - 1.5), color=_shade(index), marker="s", label=noise)
    ax.set_ylim(0.0, 12.0)
    ax.set_title("effect absent; all variance between replicas; rule 2", fontsize=7)
    ax.legend(ncols=2, fontsize=6, loc="upper right")


def _hypotheses(ax: Axes, table: list[Row]) -> None:
    own = [row for row in table if row["scope"] != "all" and row["scope"][:6] != "family"]
    smallest = min((row["n"] for row in own), key=float)
    own = [row for row in own if row["n"] == smallest]
    scopes = sorted({row["scope"] for row in own})
    looks = (("absent", "o"), ("same", "^"), ("wrong", "v"), ("requirement", "s"))
    for index, (kind, mark) in enumerate(looks):
        rows = [row for row in own if row["kind"] == kind]
        x = np.array([scopes.index(row["scope"]) for row in rows]) + 0.2 * (index - 1.5)
        y, low, high = (
            100 * np.array([float(row[name]) for row in rows])
            for name in ("claimed", "claimed_low", "claimed_high")
        )
        ax.errorbar(
            x, y, yerr=[y - low, high - y], linestyle="", marker=mark, markersize=2.5,
            linewidth=0.6, color=_shade(index), label=kind,
        )  # fmt: skip
    ax.set_xticks(range(len(scopes)), scopes, rotation=90, fontsize=5.5)
    ax.set_ylim(0.0, 10.0)
    ax.set_ylabel("False claims (%)")
    ax.set_title(f"each hypothesis, {smallest} replicas, symmetric noise, rule 2", fontsize=7)
    ax.legend(ncols=4, fontsize=5.5, loc="upper right")


def _power(ax: Axes, rows: list[Row]) -> None:
    counts = sorted({row["n"] for row in rows}, key=float)
    for index, size in enumerate(sorted({row["size"] for row in rows}, key=float)):
        own = [[r for r in rows if r["n"] == n and r["size"] == size] for n in counts]
        found, exact, holm = (
            [100 * np.mean([float(row[name]) for row in one]) for one in own]
            for name in ("claimed", "student", "student_holm")
        )
        ink = _shade(index)
        ax.plot(exact, color=ink, linewidth=0.8)
        ax.plot(holm, color=ink, linewidth=0.8, linestyle=":")
        ax.plot(found, color=ink, linestyle="", marker="o", label=f"{float(size):g} SD")
    ax.axhline(80.0, color="0.6", linewidth=0.6)
    ax.set_xticks(range(len(counts)), counts)
    ax.set_ylim(0.0, 112.0)
    ax.set_xlabel("Replicas")
    ax.set_ylabel("True claims (%)")
    ax.set_title("circles simulated; lines Student, dotted after Holm", fontsize=7)
    ax.legend(ncols=4, fontsize=6, loc="upper center")
