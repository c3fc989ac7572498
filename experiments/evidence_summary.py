"""What can the evidence tell apart? Models, accounts and expectations over a finished battery.

Two models are told apart by a hypothesis if both were measured and one shows its effect with all
that must hold as well (SUPPORTED, QUALITATIVE, or NON-SPECIFIC: a control shows it too) where the
other does not (REFUTED); INCONCLUSIVE and N/A tell nothing. So a column that is itself a control
of the claim is told from one that lacks the effect.
Batteries are named by ``--set run=runs/correspondence,runs/other``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from pcsim.experiment import Experiment, Piece, Run
from pcsim.experiment_finished import finished_piece, gathered
from pcsim.storage import atomic_path, read_json, write_json
from pcsim.verdict import Outcome, Verdict
from pcsim.verdict_expectations import CONTROL_COUNTS, agreement_counts, counted_as, presence

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["EXPERIMENT"]

MEASURED = ("SUPPORTED", "QUALITATIVE", "NON-SPECIFIC", "INCONCLUSIVE", "REFUTED")
COUNTED = (*MEASURED, *CONTROL_COUNTS.values())
SHADES = dict(
    zip(CONTROL_COUNTS.values(), ("NON-SPECIFIC", "INCONCLUSIVE", "REFUTED"), strict=True)
)
"""Verdicts whose colours the cells of controls have."""
NAMES = {"+": "expected to pass", "-": "expected to fail", "?": "open"}
HATCH = "/////"
NUMBERED = 16
"""Models up to which the counts are written into the matrix."""


def pieces(settings: Mapping[str, Any]) -> list[Piece]:
    """Return the one piece: the verdicts, gathered."""
    return [finished_piece(settings)]


def separation(verdicts: Sequence[Verdict]) -> xr.Dataset:
    """Return how many hypotheses compare two models, and how many tell them apart.

    Returns
    -------
    xr.Dataset
        `compared` and `apart` (model, other), counts; models in order of their first cell, without
        those that no hypothesis compares with another.
    """
    models = list(dict.fromkeys(one.model for one in verdicts if one.verdict != Outcome.NA))
    place = {name: number for number, name in enumerate(models)}
    compared = np.zeros((len(models), len(models)), dtype=int)
    apart = np.zeros_like(compared)
    for key in dict.fromkeys(one.hypothesis for one in verdicts):
        mine = [one for one in verdicts if one.hypothesis == key]
        decided = [one for one in mine if presence(one.verdict) in ("present", "absent")]
        for one in decided:
            for other in decided:
                if one.model != other.model:
                    cell = place[one.model], place[other.model]
                    compared[cell] += 1
                    apart[cell] += presence(one.verdict) != presence(other.verdict)
    dims = ("model", "other")
    found = xr.Dataset(
        {"compared": (dims, compared), "apart": (dims, apart)},
        coords={"model": models, "other": models},
    )
    keep = np.flatnonzero(compared.any(axis=1))
    return found.isel(model=keep, other=keep)


def discrimination(
    verdicts: Sequence[Verdict], texts: Sequence[Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """Return for each hypothesis its verdicts, and how many pairs of models it tells apart."""
    rows = []
    for claim in texts:
        mine = [one for one in verdicts if one.hypothesis == claim["id"]]
        present = sum(presence(one.verdict) == "present" for one in mine)
        absent = sum(presence(one.verdict) == "absent" for one in mine)
        rows.append(
            {
                "id": claim["id"],
                "name": claim["name"],
                "pairs_apart": present * absent,
                **{name: sum(counted_as(one) == name for one in mine) for name in COUNTED},
            }
        )
    return sorted(rows, key=lambda row: (-row["pairs_apart"], row["id"]))


def collect(run: Run) -> None:
    """Leave the counts that the figures draw."""
    verdicts, texts = gathered(run)
    with atomic_path(run.folder / "separation.nc") as part:
        separation(verdicts).to_netcdf(part, engine="h5netcdf")
    write_json(run.folder / "discrimination.json", discrimination(verdicts, texts))
    write_json(run.folder / "expectations.json", agreement_counts(verdicts))


def figures(run: Run) -> dict[str, Figure]:
    """Draw models told apart, hypotheses by what they tell, and what became of expectations."""
    from pcsim.plots import DOUBLE_COLUMN, SINGLE_COLUMN, publication_figure

    pairs = xr.load_dataset(run.folder / "separation.nc", engine="h5netcdf")
    rows = read_json(run.folder / "discrimination.json")
    counts = read_json(run.folder / "expectations.json")
    height = max(105.0, 44.0 + 5.2 * len(rows))
    with publication_figure(DOUBLE_COLUMN, height) as wide:
        grid = wide.add_gridspec(2, 2, height_ratios=(3.4, 1.0), width_ratios=(1.15, 1.0))
        _pairs(pairs, wide.add_subplot(grid[0, 0]))
        _hypotheses(rows, wide.add_subplot(grid[:, 1]))
        _expectations(counts, wide.add_subplot(grid[1, 0]))
        for ax, letter in zip(wide.axes, "abc", strict=False):
            ax.set_title(letter, loc="left", fontweight="bold", fontsize=9)
        _legend(wide)
    with publication_figure(SINGLE_COLUMN, 48.0) as narrow:
        _expectations(counts, narrow.add_subplot())
        _legend(narrow, ncols=3)
    return {"figure": wide, "expectations": narrow}


def _pairs(pairs: xr.Dataset, ax: Axes) -> None:
    """Draw the lower triangle: how many hypotheses tell two models apart."""
    from matplotlib.colors import LinearSegmentedColormap

    apart = pairs["apart"].transpose("model", "other").to_numpy().astype(float)
    compared = pairs["compared"].transpose("model", "other").to_numpy()
    apart[(compared == 0) | (np.triu(np.ones_like(apart)) > 0)] = np.nan
    names = pairs["model"].values.tolist()
    shades = LinearSegmentedColormap.from_list("apart", ["#F2F2F2", "#8CC8EE", "#00558A"])
    largest = np.nanmax(apart) if np.isfinite(apart).any() else 1.0
    # Cells are patches, so that the figure stays a vector drawing at any size.
    ax.pcolormesh(
        apart, cmap=shades, vmin=0, vmax=max(largest, 1.0), edgecolors="white", linewidth=0.8
    )
    size = 6 if len(names) <= NUMBERED else 4.5
    for y, x in zip(*np.nonzero(np.isfinite(apart)), strict=True):
        dark = apart[y, x] > 0.6 * largest
        text = f"{apart[y, x]:.0f}"
        ax.text(
            x + 0.5, y + 0.5, text, ha="center", va="center", fontsize=size,
            color="white" if dark else "black",
        )  # fmt: skip
    ax.set_xticks(np.arange(len(names)) + 0.5, names, rotation=90, fontsize=size)
    ax.set_yticks(np.arange(len(names)) + 0.5, names, fontsize=size)
    ax.set_xlim(0, max(len(names) - 1, 1))
    ax.set_ylim(len(names), min(1, len(names) - 1))
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)
    ax.text(
        0.98, 0.97, "Hypotheses that tell\ntwo models apart\n(empty: none compares them)",
        transform=ax.transAxes, ha="right", va="top",
    )  # fmt: skip


def _hypotheses(rows: Sequence[Mapping[str, Any]], ax: Axes) -> None:
    """Draw the verdicts of each hypothesis; those that tell most models apart on top."""
    import textwrap

    for y, row in enumerate(rows):
        end = _stack(ax, y, row)
        ax.text(end + 0.3, y, f"{row['pairs_apart']}", va="center", fontsize=6)
    labels = ["\n".join(textwrap.wrap(f"{r['id']} {r['name']}", 38)) for r in rows]
    ax.set_yticks(range(len(rows)), labels, fontsize=6)
    ax.set_ylim(len(rows) - 0.4, -0.6)
    ax.tick_params(axis="y", length=0)
    ax.set_xlabel("Models measured\n(at the end: pairs told apart)")


def _expectations(counts: Mapping[str, Mapping[str, int]], ax: Axes) -> None:
    """Draw what became of the cells that were expected to pass, to fail, or left open."""
    for y, mark in enumerate(NAMES):
        _stack(ax, y, counts[mark])
    ax.set_yticks(range(len(NAMES)), list(NAMES.values()))
    ax.set_ylim(len(NAMES) - 0.4, -0.6)
    ax.tick_params(axis="y", length=0)
    ax.set_xlabel("Cells measured")


def _stack(ax: Axes, y: int, counts: Mapping[str, Any]) -> float:
    """Draw a bar of verdicts and return where it ends."""
    from pcsim.plots_style import VERDICTS

    left = 0.0
    for name in COUNTED:
        fill, symbol, ink = VERDICTS[SHADES.get(name, name)]
        n = int(counts[name])
        if n:
            edge: dict[str, Any] = {"edgecolor": "#8A8A8A" if name in SHADES else "#B0B0B0"}
            edge |= {"linewidth": 0.4, "hatch": HATCH if name in SHADES else None}
            ax.barh(y, n, left=left, height=0.66, facecolor=fill, **edge)
            if name not in SHADES:
                ax.text(left + n / 2, y, symbol, color=ink, ha="center", va="center", fontsize=5)
        left += n
    return left


def _legend(figure: Figure, ncols: int = 6) -> None:
    from matplotlib.patches import Patch

    from pcsim.plots_style import VERDICTS

    handles = [
        Patch(facecolor=VERDICTS[n][0], edgecolor="#B0B0B0", label=f"{VERDICTS[n][1]} {n}")
        for n in MEASURED
    ]
    handles.append(
        Patch(facecolor="white", edgecolor="#8A8A8A", hatch=HATCH, label="a control of the claim")
    )
    figure.legend(handles=handles, loc="outside lower center", ncols=ncols, handlelength=1.2)


SETTINGS = {"seeds": 1, "run": ("runs/correspondence",)}
EXPERIMENT = Experiment(
    name="evidence_summary",
    question="What can the evidence tell apart?",
    scales={"quick": SETTINGS, "full": SETTINGS},
    pieces=pieces,
    collect=collect,
    figures=figures,
)
