"""Palette, type and sizes of the project's figures."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib
from cycler import cycler
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from pcsim.messages import unknown_name

__all__ = [
    "COLOURS",
    "DOUBLE_COLUMN",
    "LARGEST",
    "OKABE_ITO",
    "SINGLE_COLUMN",
    "VERDICTS",
    "colour",
    "publication_figure",
    "save",
    "style",
]

LARGEST = 1e100
"""Numbers beyond are off every axis: drawing programs compute with their squares and spans."""

SINGLE_COLUMN = 85.0
"""Width of a figure over one column, mm."""
DOUBLE_COLUMN = 180.0
"""Width of a figure over two columns, mm."""

OKABE_ITO = {
    "black": "#000000",
    "orange": "#E69F00",
    "sky": "#56B4E9",
    "green": "#009E73",
    "yellow": "#F0E442",
    "blue": "#0072B2",
    "vermillion": "#D55E00",
    "purple": "#CC79A7",
}
"""Colours that stay apart for readers with any of the common colour-vision deficiencies."""

COLOURS = {
    "error": OKABE_ITO["vermillion"],
    "latent": OKABE_ITO["blue"],
    "prediction": OKABE_ITO["green"],
    "data": OKABE_ITO["black"],
    "control": "#8A8A8A",
}
"""What a colour means, in every figure of the project."""

VERDICTS = {
    "SUPPORTED": ("#00558A", "\N{BLACK CIRCLE}", "white"),
    "QUALITATIVE": ("#8CC8EE", "\N{CIRCLE WITH LEFT HALF BLACK}", "black"),
    "NON-SPECIFIC": ("#F0E442", "\N{ALMOST EQUAL TO}", "black"),
    "INCONCLUSIVE": ("#E6E6E6", "\N{WHITE CIRCLE}", "black"),
    "REFUTED": ("#D0662F", "\N{MULTIPLICATION SIGN}", "black"),
    "N/A": ("#FFFFFF", "\N{EN DASH}", "#767676"),
}
"""Verdict -> colour, symbol, colour of the symbol; the shades also differ in grey."""

COLUMNS = ("#E69F00", "#56B4E9", "#CC79A7", "#4D4D4D", "#8C510A")
"""Colours of columns of the table, none of which has a meaning of its own."""

DASHES: tuple[Any, ...] = ("-", (0, (5, 1.5)), (0, (1, 1)), (0, (5, 1, 1, 1)), (0, (2.5, 1)))
"""Lines that stay apart in grey."""

RC: dict[Any, Any] = {
    "axes.prop_cycle": cycler(color=COLUMNS, linestyle=DASHES),
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 7.0,
    "axes.titlesize": 8.0,
    "axes.labelsize": 7.0,
    "xtick.labelsize": 7.0,
    "ytick.labelsize": 7.0,
    "legend.fontsize": 7.0,
    "legend.frameon": False,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.6,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "xtick.minor.width": 0.4,
    "ytick.minor.width": 0.4,
    "lines.linewidth": 1.2,
    "lines.markersize": 3.0,
    "patch.linewidth": 0.6,
    "savefig.dpi": 300,
    "pdf.fonttype": 42,
    "ps.fonttype": 42,
    "svg.fonttype": "path",
    "svg.hashsalt": "pcsim",
    "image.cmap": "gray",
}


def colour(meaning: str) -> str:
    """Return the colour of "error", "latent", "prediction", "data" or "control".

    Examples
    --------
    >>> colour("error")
    '#D55E00'
    """
    if meaning not in COLOURS:
        raise unknown_name("colour", "meaning", meaning, COLOURS)
    return COLOURS[meaning]


@contextmanager
def style() -> Iterator[None]:
    """Draw and save in the project's style: 7 pt sans, thin lines, editable text in PDF."""
    with matplotlib.rc_context(RC):
        yield


@contextmanager
def publication_figure(
    width: float = SINGLE_COLUMN, height: float | None = None
) -> Iterator[Figure]:
    """Yield an empty figure of the given size in mm, in the project's style.

    Examples
    --------
    >>> with publication_figure(85, 60) as figure:
    ...     line = figure.add_subplot().plot([0.5, 1.0, 2.0], [0.0, 0.5, 0.6])
    >>> (figure.get_size_inches() * 25.4).round(6)
    array([85., 60.])
    """
    with style():
        figure = Figure(
            figsize=(width / 25.4, (0.7 * width if height is None else height) / 25.4),
            layout="constrained",
        )
        FigureCanvasAgg(figure)
        yield figure


def save(figure: Figure, path: str | Path) -> None:
    """Write a figure without the date: the same figure gives the same bytes."""
    kinds = {".pdf": {"CreationDate": None}, ".svg": {"Date": None}, ".png": {}}
    suffix = Path(path).suffix
    if suffix not in kinds:
        raise unknown_name("save", "kind of figure", suffix, kinds)
    metadata: dict[str, Any] = kinds[suffix]
    with style():
        figure.savefig(path, metadata=metadata)
