"""The report as figures: the matrix, then every effect beside its control, vector, in one PDF."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pcsim.plots import DOUBLE_COLUMN, plot_forest, plot_verdict_matrix, publication_figure, style
from pcsim.storage import atomic_path
from pcsim.verdict import Verdict
from pcsim.verdict_expectations import forest_label, own_controls

__all__ = ["write_pages"]

NUMBERS = ("effect", "low", "high", "control_effect", "control_low", "control_high")


def write_pages(
    claims: Sequence[Mapping[str, Any]], verdicts: Sequence[Verdict], path: Path
) -> None:
    """Write the matrix on one page and two hypotheses' effects on each page after it.

    The same verdicts give the same bytes; type is embedded, nothing is a raster.
    """
    from matplotlib.backends.backend_pdf import PdfPages

    told = [one for one in verdicts if one.effect is not None]
    rows = [(claim, [one for one in told if one.hypothesis == claim["id"]]) for claim in claims]
    measured = [pair for pair in rows if pair[1]]
    with (
        atomic_path(path) as part,
        style(),
        PdfPages(part, metadata={"CreationDate": None}) as pages,
    ):
        pages.savefig(_matrix(claims, verdicts))
        for first in range(0, len(measured), 2):
            pages.savefig(_effects(measured[first : first + 2]))


def _matrix(claims: Sequence[Mapping[str, Any]], verdicts: Sequence[Verdict]) -> Any:
    models = list(dict.fromkeys(one.model for one in verdicts))
    rows = [(str(c["id"]), _short(f"{c['id']}  {c['name']}", 34)) for c in claims]
    with publication_figure(DOUBLE_COLUMN, 34.0 + 6.0 * len(rows)) as figure:
        ax = figure.add_subplot()
        plot_verdict_matrix(
            {(one.hypothesis, one.model): str(one.verdict) for one in verdicts},
            rows=rows,
            columns=models,
            expectations={(v.hypothesis, v.model): v.expectation for v in verdicts},
            controls=own_controls(verdicts),
            ax=ax,
        )
        ax.tick_params(axis="y", labelsize=6)
    return figure


def _effects(pair: Sequence[tuple[Mapping[str, Any], Sequence[Verdict]]]) -> Any:
    longest = max(len(rows) for _, rows in pair)
    with publication_figure(DOUBLE_COLUMN, 30.0 + 5.0 * longest) as figure:
        axes = figure.subplots(1, 2, squeeze=False)[0]
        for ax, (claim, rows) in zip(axes, pair, strict=False):
            table = [
                {"label": forest_label(v), **{name: getattr(v, name) for name in NUMBERS}}
                for v in rows
            ]
            interval = claim["reference"]["interval"]
            unit = f" ({claim['units']})" if claim["units"] not in ("", "1") else ""
            plot_forest(
                table,
                reference=tuple(interval) if interval else None,
                null=claim["null"],
                label=f"Effect{unit}",
                ax=ax,
            )
            ax.set_title(_short(f"{claim['id']}  {claim['name']}"), loc="left")
        for ax in axes[len(pair) :]:
            ax.set_axis_off()
        handles, labels = axes[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=3)
    return figure


def _short(text: str, most: int = 58) -> str:
    return "\n".join(textwrap.wrap(text, most))
