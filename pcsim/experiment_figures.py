"""The battery's figures: the verdict matrix, and for each hypothesis its curves and effects."""

from __future__ import annotations

import textwrap
from collections.abc import ItemsView, Iterator, Mapping, Sequence, ValuesView
from typing import TYPE_CHECKING

import xarray as xr

from pcsim.experiment import Run
from pcsim.experiment_battery import Battery, evidence, observations
from pcsim.hypothesis import Hypothesis
from pcsim.plots import (
    DOUBLE_COLUMN,
    SINGLE_COLUMN,
    plot_forest,
    plot_verdict_matrix,
    publication_figure,
)
from pcsim.storage import write_json
from pcsim.verdict import Verdict, read_csv
from pcsim.verdict_expectations import forest_label, own_controls

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["PANELS", "battery_figures", "evidence_of"]

PANELS = "panels.json"
"""File of a run: hypothesis -> the columns that its panel draws."""


def evidence_of(run: Run, hypothesis: Hypothesis) -> dict[str, list[xr.Dataset]]:
    """Return the saved evidence by column, and by "<column>/<control>" for transforms.

    Columns that lack the signal are left out.
    """
    battery = Battery.of(run.settings)
    found: dict[str, list[xr.Dataset]] = {}
    for column in battery.columns:
        rows = observations(hypothesis, column.label, battery.seeds)
        for control in hypothesis.controls:
            if control.variant is not None or battery.unasked(hypothesis, column.label):
                del rows[control.name]
        for who, keys in rows.items():
            replicas = [evidence(run.piece(key)) for key in keys]
            whole = [one for one in replicas if one is not None]
            if whole:
                found[f"{column.label}/{who}" if who else column.label] = whole
    return found


def battery_figures(run: Run) -> dict[str, Figure]:
    """Return the verdict matrix, and for each hypothesis its panel and its effects.

    Leaves `panels.json`, the columns that each panel draws.
    """
    battery = Battery.of(run.settings)
    verdicts = read_csv(run.folder / "verdicts.csv")
    figures = {"figure": _matrix(battery, verdicts)}
    drawn: dict[str, list[str]] = {}
    for hypothesis in battery.hypotheses:
        rows = [one for one in verdicts if one.hypothesis == hypothesis.id]
        found = evidence_of(run, hypothesis)
        if found and hypothesis.panel is not None:
            seen = Asked(found)
            figures[f"figures/{hypothesis.id}"] = _panel(hypothesis, seen)
            drawn[hypothesis.id] = seen.names
        if any(one.effect is not None for one in rows):
            figures[f"figures/{hypothesis.id}-effects"] = _forest(hypothesis, rows)
    write_json(run.folder / PANELS, drawn)
    return figures


class Asked(Mapping[str, Sequence[xr.Dataset]]):
    """Evidence by column that knows of which columns it was asked, in their first order.

    Panels ask for the columns that they draw by name; going through all names, or all values, is
    not counted.
    """

    def __init__(self, found: Mapping[str, Sequence[xr.Dataset]]) -> None:
        self.found = found
        self.names: list[str] = []

    def __getitem__(self, name: str) -> Sequence[xr.Dataset]:
        value = self.found[name]
        if name not in self.names:
            self.names.append(name)
        return value

    def __iter__(self) -> Iterator[str]:
        return iter(self.found)

    def __len__(self) -> int:
        return len(self.found)

    def items(self) -> ItemsView[str, Sequence[xr.Dataset]]:
        """Return all pairs."""
        return self.found.items()

    def values(self) -> ValuesView[Sequence[xr.Dataset]]:
        """Return the evidence of all columns."""
        return self.found.values()


def _matrix(battery: Battery, verdicts: Sequence[Verdict]) -> Figure:
    # A long table has to fit on a page.
    long = len(battery.hypotheses) > 20
    width, height = (34, 7.0) if long else (28, 10.0)
    rows = [(h.id, f"{h.id}  {_wrapped(h.name, width)}") for h in battery.hypotheses]
    with publication_figure(DOUBLE_COLUMN, 30.0 + height * len(rows)) as figure:
        ax = plot_verdict_matrix(
            {(one.hypothesis, one.model): str(one.verdict) for one in verdicts},
            rows=rows,
            columns=[column.label for column in battery.columns],
            expectations={(v.hypothesis, v.model): v.expectation for v in verdicts},
            controls=own_controls(verdicts),
            ax=figure.add_subplot(),
        )
        if long:
            ax.tick_params(axis="y", labelsize=6)
    return figure


def _wrapped(text: str, width: int) -> str:
    return "\n".join(textwrap.wrap(text, width))


def _panel(hypothesis: Hypothesis, found: Mapping[str, Sequence[xr.Dataset]]) -> Figure:
    assert hypothesis.panel is not None
    with publication_figure(SINGLE_COLUMN, 62.0) as figure:
        ax = figure.add_subplot()
        hypothesis.panel(found, ax)
        if ax.get_legend_handles_labels()[0] and ax.get_legend() is None:
            ax.legend()
    return figure


def _forest(hypothesis: Hypothesis, verdicts: Sequence[Verdict]) -> Figure:
    names = ("effect", "low", "high", "control_effect", "control_low", "control_high")
    rows = [
        {"label": forest_label(one), **{name: getattr(one, name) for name in names}}
        for one in verdicts
        if one.effect is not None
    ]
    unit = f" ({hypothesis.units})" if hypothesis.units not in ("", "1") else ""
    with publication_figure(SINGLE_COLUMN, 26.0 + 5.0 * len(rows)) as figure:
        ax = plot_forest(
            rows,
            reference=hypothesis.reference.interval,
            null=hypothesis.null,
            label=f"Effect{unit}",
            ax=figure.add_subplot(),
        )
        figure.legend(*ax.get_legend_handles_labels(), loc="outside lower center", ncols=3)
    return figure
