"""Figures for print: one palette with one meaning a colour, sizes in millimetres, small type.

Every ``plot_*`` draws the numbers it is given and returns the Axes; none computes a statistic.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from numpy.typing import ArrayLike

from pcsim.messages import refusal, unknown_name
from pcsim.plots_style import (
    COLOURS,
    DOUBLE_COLUMN,
    LARGEST,
    OKABE_ITO,
    SINGLE_COLUMN,
    VERDICTS,
    colour,
    publication_figure,
    save,
    style,
)

__all__ = [
    "COLOURS",
    "DOUBLE_COLUMN",
    "OKABE_ITO",
    "SINGLE_COLUMN",
    "colour",
    "plot_forest",
    "plot_receptive_fields",
    "plot_spectrum",
    "plot_tuning",
    "plot_verdict_matrix",
    "publication_figure",
    "save",
    "style",
]


def plot_tuning(
    data: xr.DataArray,
    *,
    x: str,
    low: xr.DataArray | None = None,
    high: xr.DataArray | None = None,
    ax: Axes | None = None,
    **line: Any,
) -> Axes:
    """Draw a curve with its interval, or a curve of each replica's with their range.

    Parameters
    ----------
    data : (x,) or (replica, x)
        The curve. Of several, the mean is drawn as a line and the lowest and highest as a band.
    x
        The dimension along the x axis, with its coordinate.
    low, high : (x,)
        Ends of the interval of a single curve; both or none.
    ax
        Where to draw; None makes a new figure.
    **line
        Passed to `Axes.plot`: color, label ...

    Raises
    ------
    ValueError
        If `data` has other dimensions, or one end of the interval is missing.
    """
    where = "plot_tuning"
    others = [str(dim) for dim in data.dims if dim != x]
    if x not in data.dims or len(others) > 1:
        expected = f"({x},) or (replica, {x})"
        advice = "Average over the units first."
        raise ValueError(refusal(where, f"data with dims {data.dims}", expected, advice))
    if (low is None) != (high is None) or (low is not None and others):
        found = "one end of the interval" if not others else "an interval beside replicas"
        raise ValueError(refusal(where, found, "both ends for a single curve, or none"))
    if others:
        low, high, data = data.min(others), data.max(others), data.mean(others)
    ax = _axes(ax)
    (drawn,) = ax.plot(data[x].values, data.values, **line)
    if low is not None and high is not None:
        band = low.transpose(x).values, high.transpose(x).values
        ax.fill_between(data[x].values, *band, color=drawn.get_color(), alpha=0.2, linewidth=0)
    return ax


def plot_receptive_fields(
    fields: ArrayLike, *, columns: int | None = None, ax: Axes | None = None
) -> Axes:
    """Draw receptive fields as a mosaic, each scaled to its own largest magnitude.

    Parameters
    ----------
    fields : (n, rows, columns)
        Zero is mid-grey, positive is light. A field of zeros stays grey.
    columns
        Fields side by side; None makes the mosaic about square.
    ax
        Where to draw; None makes a new figure.
    """
    array = np.asarray(fields, dtype=np.float64)
    if array.ndim != 3 or array.shape[0] == 0:
        found = f"fields of shape {array.shape}"
        raise ValueError(refusal("plot_receptive_fields", found, "(n, rows, columns), n above 0"))
    n, height, width = array.shape
    across = columns or int(np.ceil(np.sqrt(n)))
    down = -(-n // across)
    mosaic = np.full((down * (height + 1) - 1, across * (width + 1) - 1), np.nan)
    for index, one in enumerate(array):
        top, left = (index // across) * (height + 1), (index % across) * (width + 1)
        largest = np.abs(one).max()
        mosaic[top : top + height, left : left + width] = one / (largest if largest > 0 else 1.0)
    ax = _axes(ax)
    ax.imshow(mosaic, vmin=-1.0, vmax=1.0, cmap="gray", interpolation="nearest")
    ax.set_axis_off()
    return ax


def plot_spectrum(
    data: xr.DataArray,
    *,
    x: str = "frequency",
    low: xr.DataArray | None = None,
    high: xr.DataArray | None = None,
    ax: Axes | None = None,
    **line: Any,
) -> Axes:
    """Draw a power spectrum on logarithmic axes; frequency 0 is left out.

    Parameters
    ----------
    data : (x,) or (replica, x)
        Power; as for `plot_tuning`, like the others.
    """
    keep = data[x] > 0
    ends = [None if end is None else end.isel({x: keep.values}) for end in (low, high)]
    ax = plot_tuning(data.isel({x: keep.values}), x=x, low=ends[0], high=ends[1], ax=ax, **line)
    ax.set_xscale("log")
    ax.set_yscale("log")
    ax.set_xlabel("Frequency (Hz)")
    ax.set_ylabel("Power")
    return ax


def plot_forest(
    rows: Sequence[Mapping[str, Any]],
    *,
    reference: tuple[float, float] | None = None,
    null: float = 0.0,
    label: str = "Effect",
    ax: Axes | None = None,
) -> Axes:
    """Draw effects with intervals, one row a model, each above its control.

    Parameters
    ----------
    rows
        Mappings with "label", "effect", "low", "high" and, where measured, "control_effect",
        "control_low", "control_high"; a row whose effect is None is named but left empty, and so
        are numbers beyond 1e100, which no axis can hold.
    reference
        Published interval, drawn as a band.
    null
        Value of no effect, drawn as a line.
    label
        Of the x axis, with units.
    ax
        Where to draw; None makes a new figure.
    """
    ax = _axes(ax)
    if reference is not None:
        ax.axvspan(*reference, color=COLOURS["data"], alpha=0.1, linewidth=0, label="published")
    ax.axvline(null, color=COLOURS["data"], linewidth=0.6, linestyle=":")
    kinds = (
        ("", -0.14, "o", OKABE_ITO["blue"], "model"),
        ("control_", 0.18, "s", COLOURS["control"], "strongest control"),
    )
    for prefix, shift, marker, shade, name in kinds:
        found = [
            (place + shift, *(row[f"{prefix}{end}"] for end in ("effect", "low", "high")))
            for place, row in enumerate(rows)
            if row.get(f"{prefix}effect") is not None
        ]
        if not found:
            continue
        numbers = np.asarray(found, dtype=np.float64)
        y, value, low, high = np.where(np.abs(numbers) > LARGEST, np.nan, numbers).T
        ax.hlines(y, low, high, color=shade, linewidth=1.0)
        face = shade if prefix == "" else "white"
        ax.plot(value, y, marker, color=shade, markerfacecolor=face, label=name, zorder=3)
    ax.set_yticks(range(len(rows)), [str(row["label"]) for row in rows])
    ax.set_ylim(len(rows) - 0.5, -0.5)
    ax.tick_params(axis="y", length=0)
    ax.set_xlabel(label)
    return ax


def plot_verdict_matrix(
    verdicts: Mapping[tuple[str, str], str],
    *,
    rows: Sequence[tuple[str, str]],
    columns: Sequence[str],
    expectations: Mapping[tuple[str, str], str] | None = None,
    controls: Collection[tuple[str, str]] = (),
    ax: Axes | None = None,
) -> Axes:
    """Draw models x hypotheses as coloured cells with symbols, readable in grey as well.

    Parameters
    ----------
    verdicts
        (row, column) -> verdict; absent cells stay empty.
    rows, columns
        Rows as (key, label), from the top; columns from the left.
    expectations
        (row, column) -> "+", "-", "?" or ".", drawn small in the upper right corner.
    controls
        (row, column) where the column is itself a control of the claim: a small triangle in the
        lower left corner.
    ax
        Where to draw; None makes a new figure.
    """
    ax = _axes(ax)
    dense = len(columns) > _UPRIGHT
    for i, (key, _) in enumerate(rows):
        for j, column in enumerate(columns):
            if (key, column) in verdicts:
                mark = (expectations or {}).get((key, column), "")
                _cell(ax, (j, i), verdicts[key, column], mark, dense=dense)
                if (key, column) in controls:
                    _own_control(ax, (j, i))
    ax.set_xlim(-0.5, len(columns) - 0.5)
    ax.set_ylim(len(rows) - 0.5, -0.5)
    if dense:
        ax.set_xticks(range(len(columns)), columns, rotation=90, fontsize=6)
    else:
        ax.set_xticks(range(len(columns)), [name.replace("-", "-\n") for name in columns])
    ax.set_yticks(range(len(rows)), [label for _, label in rows])
    ax.tick_params(length=0, top=True, labeltop=True, bottom=False, labelbottom=False)
    ax.spines[:].set_visible(False)
    _matrix_legend(ax, bool(expectations), dense=dense, controls=bool(controls))
    return ax


_UPRIGHT = 13
"""So many labels fit side by side above a matrix."""


def _cell(
    ax: Axes, place: tuple[int, int], verdict: str, mark: str, *, dense: bool = False
) -> None:
    from matplotlib.patches import Rectangle

    if verdict not in VERDICTS:
        raise unknown_name("plot_verdict_matrix", "verdict", verdict, VERDICTS)
    shade, symbol, ink = VERDICTS[verdict]
    x, y = place
    ax.add_patch(Rectangle((x - 0.47, y - 0.46), 0.94, 0.92, facecolor=shade, edgecolor="#B0B0B0"))
    left, size = (x - 0.12, 6.0) if dense and mark and mark != "." else (x, 6.0 if dense else 9.0)
    ax.text(left, y, symbol, color=ink, ha="center", va="center", fontsize=size, gid=verdict)
    if mark and mark != ".":
        shown = mark.replace("-", "\N{MINUS SIGN}")
        size = 4.5 if dense else 6.0
        ax.text(x + 0.45, y - 0.44, shown, color=ink, ha="right", va="top", fontsize=size)


def _own_control(ax: Axes, place: tuple[int, int]) -> None:
    from matplotlib.patches import Polygon

    left, low = place[0] - 0.47, place[1] + 0.46
    corner = [(left, low), (left + 0.3, low), (left, low - 0.3)]
    ax.add_patch(Polygon(corner, facecolor="black", linewidth=0.0, gid="control"))


def _matrix_legend(ax: Axes, expectations: bool, *, dense: bool, controls: bool = False) -> None:
    """Name the symbols below the matrix, and say what the corner means."""
    from matplotlib.patches import Patch

    handles = [
        Patch(facecolor=shade, edgecolor="#B0B0B0", label=f"{symbol} {verdict}")
        for verdict, (shade, symbol, _) in VERDICTS.items()
    ]
    lines = []
    if expectations:
        lines.append(
            "Corner: expected before the first run to pass (+), to fail (\N{MINUS SIGN}), open (?)"
        )
    if controls:
        lines.append(
            "\N{BLACK LOWER LEFT TRIANGLE} The column is a control of the claim: "
            "expected is whether it shows the effect"
        )
    ax.legend(
        handles=handles,
        loc="upper right" if dense else "upper center",
        bbox_to_anchor=(1.0 if dense else 0.5, -0.02),
        ncols=len(handles) // 2 if dense else len(handles),
        title="\n".join(lines) or None,
        title_fontsize=7,
        columnspacing=1.2,
        handlelength=1.2,
    )


def _axes(ax: Axes | None) -> Axes:
    if ax is not None:
        return ax
    import matplotlib.pyplot as plt

    made: Axes = plt.subplots()[1]
    return made
