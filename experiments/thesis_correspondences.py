"""Which of the proposed correspondences between cortex and machine learning pass their tests?

Thesis table 8.1 pairs parts of neural circuits with parts of latent variable models. The table's
own text was not at hand: the rows here are derived from where the battery's hypotheses cover the
thesis (sections 8.2 to 8.4, by line), and are scored by the verdicts of finished batteries:
``--set run=runs/correspondence,runs/other``. The score counts cells that were expected to
pass before the first run, and how many of them did. A column that is a control of a hypothesis says
nothing for a correspondence and is left out there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pcsim.experiment import Experiment, Piece, Run
from pcsim.experiment_finished import finished_piece, gathered
from pcsim.report_tables import booktabs, csv_text, latex
from pcsim.storage import read_json, write_json, write_text
from pcsim.verdict import Outcome, Verdict
from pcsim.verdict_expectations import PASSES, agreement

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["EXPERIMENT"]


@dataclass(frozen=True)
class Correspondence:
    """One row: what is in the brain, what it is likened to, and the hypotheses that test it."""

    neural: str
    machine: str
    hypotheses: tuple[str, ...]
    lines: str
    """Of the thesis, where the correspondence is drawn."""


def ids(*numbers: int) -> tuple[str, ...]:
    """Return the ids of hypotheses."""
    return tuple(f"H{number:02d}" for number in numbers)


ROWS = (
    Correspondence(
        "Retina and thalamus remove redundancy", "Whitening flows on the input",
        ids(1, 2, 3, 4, 5, 6, 7, 8), "2324-2332, 2420",
    ),
    Correspondence(
        "Top-down projections, extra-classical fields", "Predictions of a generative model",
        ids(5, 10, 11, 12), "2420-2426",
    ),
    Correspondence(
        "Responses to the unexpected", "Prediction errors", ids(21, 22, 23, 24, 26, 28), "2420-2426"
    ),
    Correspondence(
        "Lateral inhibition", "Normalizing flows, error covariance", ids(1, 2, 3, 4, 16),
        "2511-2529",
    ),
    Correspondence("Attention as gain", "Precision of the errors", ids(34), "2511-2529"),
    Correspondence(
        "Pyramidal dendrites", "Amortized inference by deep networks", ids(35, 36, 37), "2481-2495"
    ),
    Correspondence("Oscillations", "Iterations of inference", ids(31, 32), "2497-2503"),
    Correspondence(
        "Plasticity within the neuron", "Backpropagation, kept local", ids(39), "2505-2509"
    ),
    Correspondence(
        "Prediction of video", "Sequential latent variables", ("H29d", "H29e", "H29f"),
        "section 8.3",
    ),
    Correspondence(
        "Pattern generators, motor cortex", "Autoregressive policies", ids(40, 41), "2332, 2531"
    ),
)  # fmt: skip
READING = (
    "The pairs of rows are our reading of thesis sections 8.2 to 8.4: the text of its table 8.1 "
    "was not at hand."
)
MEASURED = ("SUPPORTED", "QUALITATIVE", "NON-SPECIFIC", "INCONCLUSIVE", "REFUTED")


def pieces(settings: Mapping[str, Any]) -> list[Piece]:
    """Return the one piece: the verdicts, gathered."""
    return [finished_piece(settings)]


def score(row: Correspondence, verdicts: Sequence[Verdict]) -> dict[str, Any]:
    """Return the numbers of a row: what was tested, with which verdicts, and what was foretold."""
    mine = [
        one for one in verdicts if one.hypothesis in row.hypotheses and one.verdict != Outcome.NA
    ]
    controls = [one for one in mine if one.itself]
    mine = [one for one in mine if not one.itself]
    foretold = [one for one in mine if one.expectation == "+"]
    against = [one for one in mine if one.expectation == "-"]
    return {
        "neural": row.neural,
        "machine": row.machine,
        "lines": row.lines,
        "hypotheses": list(row.hypotheses),
        "tested": sorted({one.hypothesis for one in mine}),
        "passed_by_some": sorted({one.hypothesis for one in mine if one.verdict in PASSES}),
        "n_cells": len(mine),
        "n_controls": len(controls),
        **{name: sum(one.verdict == name for one in mine) for name in MEASURED},
        "n_expected_to_pass": len(foretold),
        "n_passed_as_expected": sum(one.verdict in PASSES for one in foretold),
        "n_expected_to_fail": len(against),
        "n_failed_as_expected": sum(
            agreement(one.expectation, one.verdict) == "kept" for one in against
        ),
        "remembered": sorted({v.hypothesis for v in mine if v.reference_status == "remembered"}),
    }


def collect(run: Run) -> None:
    """Leave the scored table as numbers, CSV and LaTeX."""
    verdicts, _ = gathered(run)
    scored = [score(row, verdicts) for row in ROWS]
    write_json(run.folder / "scores.json", scored)
    names = list(scored[0])
    rows = [[_plain(one[name]) for name in names] for one in scored]
    write_text(run.folder / "table.csv", csv_text([names, *rows]))
    write_text(run.folder / "table.tex", tex(scored))


def _plain(value: Any) -> str:
    return " ".join(value) if isinstance(value, list) else str(value)


def tex(scored: Sequence[Mapping[str, Any]]) -> str:
    """Return the table for LaTeX; hypotheses that no run tested are in brackets."""
    head = ["Neuroscience", "Machine learning", "Hypotheses", "S", "Q", "N", "I", "R", "Foretold"]
    rows = []
    for one in scored:
        keys = [key if key in one["tested"] else f"[{key}]" for key in one["hypotheses"]]
        counts = [str(one[name]) if one["n_cells"] else "--" for name in MEASURED]
        texts = [one["neural"], one["machine"], ", ".join(keys)]
        rows.append([*map(latex, texts), *counts, share(one)])
    note = (
        "Cells (hypothesis by model) by verdict: SUPPORTED, QUALITATIVE, NON-SPECIFIC, "
        "INCONCLUSIVE, REFUTED. Foretold: of the cells expected to pass before the first run, how "
        "many did. In brackets: not tested in these runs. Columns that are controls of a "
        f"hypothesis are not counted. {READING}"
    )
    widths = r"p{0.22\linewidth}p{0.22\linewidth}p{0.2\linewidth}cccccc"
    return booktabs(widths, head, rows, caption=note, needs="booktabs", size="footnotesize")


def share(one: Mapping[str, Any]) -> str:
    """Return how many of the cells that were expected to pass did."""
    n = one["n_expected_to_pass"]
    return f"{one['n_passed_as_expected']} of {n}" if n else "\N{EN DASH}"


def figures(run: Run) -> dict[str, Figure]:
    """Draw the table with a bar of verdicts a row."""
    from pcsim.plots import DOUBLE_COLUMN, publication_figure

    scored = read_json(run.folder / "scores.json")
    with publication_figure(DOUBLE_COLUMN, 20.0 + 9.0 * len(scored)) as figure:
        figure.set_layout_engine("none")
        ax = figure.add_axes((0.01, 0.11, 0.98, 0.88))
        _draw(scored, ax)
    return {"figure": figure}


NEURAL, MACHINE, TESTS, BAR, SCORE = 0.0, 0.235, 0.445, 0.63, 0.985
"""Where the columns of the drawn table begin, as shares of its width; the score ends at its own."""
LONGEST = 0.27
"""Width of the longest bar."""


def _draw(scored: Sequence[Mapping[str, Any]], ax: Axes) -> None:
    from matplotlib.patches import Patch

    from pcsim.plots_style import VERDICTS

    most = max([one["n_cells"] for one in scored] + [1])
    ax.set_xlim(0.0, 1.0)
    ax.set_ylim(len(scored) - 0.4, -1.1)
    ax.set_axis_off()
    heads = ((NEURAL, "Neuroscience"), (MACHINE, "Machine learning"), (TESTS, "Hypotheses"))
    for x, text in (*heads, (BAR, "Cells by verdict")):
        ax.text(x, -0.75, text, fontweight="bold", va="center")
    ax.text(SCORE, -0.75, "Foretold", fontweight="bold", va="center", ha="right")
    ax.axhline(-0.45, color="black", linewidth=0.8)
    for y, one in enumerate(scored):
        ax.text(NEURAL, y, _folded(one["neural"], 26), va="center")
        ax.text(MACHINE, y, _folded(one["machine"], 23), va="center")
        ax.text(TESTS, y, _folded(_tests(one), 23), va="center", fontsize=6)
        _bar(ax, y, one, most)
        ax.text(SCORE, y, share(one), va="center", ha="right")
        ax.axhline(y + 0.5, color="#D0D0D0", linewidth=0.4)
    handles = [
        Patch(facecolor=VERDICTS[n][0], edgecolor="#B0B0B0", label=f"{VERDICTS[n][1]} {n}")
        for n in MEASURED
    ]
    place: dict[str, Any] = {"loc": "upper center", "bbox_to_anchor": (0.5, 0.01)}
    ax.legend(handles=handles, ncols=5, handlelength=1.2, columnspacing=1.4, **place)
    note = (
        "Cells: hypothesis by model, without columns that are controls of the hypothesis. "
        "Foretold: of those expected to pass before the first run, how many did.\n"
        "In brackets: not tested. "
        f"{READING}"
    )
    ax.text(0.5, -0.075, note, transform=ax.transAxes, ha="center", va="top", fontsize=6)


def _bar(ax: Axes, y: int, one: Mapping[str, Any], most: int) -> None:
    """Draw the verdicts of a row, each as long as the cells that have it."""
    from pcsim.plots_style import VERDICTS

    if not one["n_cells"]:
        ax.text(BAR, y, "not tested", va="center", color="#767676", style="italic")
        return
    left = BAR
    for name in MEASURED:
        wide = LONGEST * one[name] / most
        if wide:
            fill, _, ink = VERDICTS[name]
            edge: dict[str, Any] = {"edgecolor": "#B0B0B0", "linewidth": 0.4}
            ax.barh(y, wide, left=left, height=0.56, color=fill, **edge)
            if wide > 0.014:
                ax.text(
                    left + wide / 2, y, str(one[name]), color=ink, ha="center", va="center",
                    fontsize=6,
                )  # fmt: skip
        left += wide


def _tests(one: Mapping[str, Any]) -> str:
    return " ".join(k if k in one["tested"] else f"({k})" for k in one["hypotheses"])


def _folded(text: str, width: int) -> str:
    import textwrap

    return "\n".join(textwrap.wrap(text, width))


SETTINGS = {"seeds": 1, "run": ("runs/correspondence",)}
EXPERIMENT = Experiment(
    name="thesis_correspondences",
    question="Which proposed correspondences of cortex and machine learning pass their tests?",
    scales={"quick": SETTINGS, "full": SETTINGS},
    pieces=pieces,
    collect=collect,
    figures=figures,
)
