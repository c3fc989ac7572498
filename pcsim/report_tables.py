"""The tables of a battery for a paper: CSV to compute with, LaTeX (booktabs) to print."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pcsim.report_text import p_value
from pcsim.verdict import Outcome, Verdict
from pcsim.verdict_expectations import agreement

__all__ = ["LETTERS", "SUFFIXES", "booktabs", "csv_text", "latex", "tables_of"]

SUFFIXES = {".csv": "text/csv", ".tex": "application/x-tex"}
"""Kinds of files, with what a browser calls them."""

LETTERS = {
    "SUPPORTED": "S",
    "QUALITATIVE": "Q",
    "NON-SPECIFIC": "N",
    "INCONCLUSIVE": "I",
    "REFUTED": "R",
    "N/A": "--",
}
"""Verdicts in tables that have no colour."""

ESCAPES = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_",
    "{": r"\{", "}": r"\}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}",
    "<": r"\textless{}", ">": r"\textgreater{}", "\N{MINUS SIGN}": "$-$", "\N{EN DASH}": "--",
    "|": r"\textbar{}", '"': "''",
}  # fmt: skip

EFFECTS = (
    "hypothesis", "name", "family", "model", "verdict", "itself", "expectation", "kept", "effect",
    "low", "high", "units", "control", "control_effect", "control_low", "control_high",
    "difference_low", "difference_high", "d_z", "rank_biserial", "p", "p_holm", "n_replicas",
    "n_included", "n_total", "reference_value", "reference_low", "reference_high",
    "reference_status", "reference_source", "signal", "protocol", "statistic", "falsified_if",
    "reason", "requirements", "seeds",
)  # fmt: skip


def tables_of(
    claims: Sequence[Mapping[str, Any]], verdicts: Sequence[Verdict], models: Sequence[str]
) -> dict[str, str]:
    """Return file name -> text: the matrix, the effects and the references, each in both forms.

    Parameters
    ----------
    claims
        The hypotheses as `hypotheses.json` describes them.
    verdicts
        The cells.
    models
        The columns of the matrix, in order.
    """
    return {
        "matrix.csv": _matrix_csv(claims, verdicts, models),
        "matrix.tex": _matrix_tex(claims, verdicts, models),
        "effects.csv": _effects_csv(claims, verdicts),
        "effects.tex": _effects_tex(claims, verdicts),
        "references.csv": _references_csv(claims),
        "references.tex": _references_tex(claims),
    }


def latex(text: Any) -> str:
    r"""Return a text with what LaTeX would read as commands made harmless.

    Examples
    --------
    >>> print(latex(r"50 % of {x_1} & \input{y}"))
    50 \% of \{x\_1\} \& \textbackslash{}input\{y\}
    """
    return "".join(ESCAPES.get(letter, letter) for letter in str(text))


def csv_text(rows: Iterable[Sequence[Any]]) -> str:
    """Return rows as CSV with plain line ends."""
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="\n").writerows(rows)
    return buffer.getvalue()


def _matrix_csv(
    claims: Sequence[Mapping[str, Any]], verdicts: Sequence[Verdict], models: Sequence[str]
) -> str:
    cells = {(one.hypothesis, one.model): str(one.verdict) for one in verdicts}
    rows = [
        [one["id"], one["name"], one["family"], *(cells.get((one["id"], m), "") for m in models)]
        for one in claims
    ]
    return csv_text([["hypothesis", "name", "family", *models], *rows])


def _matrix_tex(
    claims: Sequence[Mapping[str, Any]], verdicts: Sequence[Verdict], models: Sequence[str]
) -> str:
    cells = {(one.hypothesis, one.model): one for one in verdicts}
    head = ["", *(rf"\rotatebox{{90}}{{{latex(model)}}}" for model in models)]
    rows = []
    for claim in claims:
        found = [cells.get((claim["id"], model)) for model in models]
        label = f"{latex(claim['id'])} {latex(claim['name'])}"
        rows.append([label, *("" if one is None else _letter(one) for one in found)])
    letters = ", ".join(f"{letter} {name}" for name, letter in LETTERS.items())
    note = (
        f"Verdicts: {letters}. Raised: what was expected before the first run, + to pass, "
        "$-$ to fail, ? open; c: the column is a control of the claim, and what was expected is "
        "whether it shows the effect."
    )
    return booktabs(
        "l" + "c" * len(models), head, rows, caption=note, needs="booktabs, graphicx", size="tiny"
    )


def _letter(one: Verdict) -> str:
    shown = {"+": "+", "-": "$-$", "?": "?"}.get(one.expectation, "")
    if one.itself and one.verdict != Outcome.NA:
        shown += "c"
    raised = rf"\textsuperscript{{{shown}}}" if shown else ""
    return f"{LETTERS[str(one.verdict)]}{raised}"


def _effects_csv(claims: Sequence[Mapping[str, Any]], verdicts: Sequence[Verdict]) -> str:
    by_id = {one["id"]: one for one in claims}
    rows = []
    for one in verdicts:
        claim = by_id.get(one.hypothesis, {})
        reference = claim.get("reference", {})
        own = {
            "name": claim.get("name"),
            "kept": agreement(one.expectation, one.verdict, itself=one.itself),
            "reference_value": reference.get("value"),
            "falsified_if": " ".join(claim.get("falsified_if", ())),
            "seeds": " ".join(map(str, one.seeds)),
        }
        own |= {name: claim.get(name) for name in ("signal", "protocol", "statistic")}
        rows.append([_plain(own[n] if n in own else getattr(one, n)) for n in EFFECTS])
    return csv_text([EFFECTS, *rows])


def _plain(value: Any) -> Any:
    if value is None:
        return ""
    return f"{value:.9g}" if isinstance(value, float) else str(value)


def _effects_tex(claims: Sequence[Mapping[str, Any]], verdicts: Sequence[Verdict]) -> str:
    head = ["", "Model", "Verdict", "Effect", r"Strongest control", "Difference", "$p$ (Holm)", "n"]
    rows: list[list[str]] = []
    for claim in claims:
        mine = [v for v in verdicts if v.hypothesis == claim["id"] and v.verdict != Outcome.NA]
        for number, one in enumerate(mine):
            control = f"{latex(one.control)} " if one.control else ""
            rows.append(
                [
                    latex(claim["id"]) if number == 0 else "",
                    latex(one.model),
                    latex(str(one.verdict).lower()),
                    _interval(one.effect, one.low, one.high),
                    control + _interval(one.control_effect, one.control_low, one.control_high),
                    _interval(None, one.difference_low, one.difference_high),
                    latex(p_value(one.p_holm)),
                    f"{one.n_included}/{one.n_total}",
                ]
            )
    note = "Effects with 95\\,\\% intervals, the strongest control, and the paired difference."
    return booktabs(
        "llllllll", head, rows, caption=note, needs="booktabs, longtable", size="scriptsize"
    )


def _interval(value: float | None, low: float | None, high: float | None) -> str:
    point = "" if value is None else _math(value)
    if low is None or high is None:
        return point or "--"
    return f"{point} [{_math(low)}, {_math(high)}]".strip()


def _math(value: float) -> str:
    return f"${value + 0.0:.3g}$"


def _references(claims: Sequence[Mapping[str, Any]]) -> list[list[Any]]:
    rows = []
    for claim in claims:
        one = claim["reference"]
        low, high = one["interval"] or (None, None)
        rows.append([claim["id"], claim["name"], one["value"], low, high, claim["units"]])
        rows[-1] += [one["status"], one["source"]]
    return rows


def _references_csv(claims: Sequence[Mapping[str, Any]]) -> str:
    head = ["hypothesis", "name", "value", "low", "high", "units", "status", "source"]
    return csv_text([head, *([_plain(cell) for cell in row] for row in _references(claims))])


def _references_tex(claims: Sequence[Mapping[str, Any]]) -> str:
    rows = []
    for key, _, value, low, high, units, status, source in _references(claims):
        number = _interval(value, low, high)
        shown = "sign" if number == "--" else f"{number} {latex(units if units != '1' else '')}"
        rows.append([latex(key), shown.strip(), latex(status), latex(source)])
    note = "Published values. A remembered one can never give SUPPORTED."
    head = ["", "Published", "Status", "Source"]
    return booktabs(
        r"llp{0.12\linewidth}p{0.5\linewidth}", head, rows, caption=note,
        needs="booktabs, longtable", size="scriptsize",
    )  # fmt: skip


def booktabs(
    columns: str,
    head: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    caption: str,
    needs: str,
    size: str,
) -> str:
    """Return a table of cells that are LaTeX already; a long one may break over pages."""
    kind = "longtable" if "longtable" in needs else "tabular"
    lines = [f"% needs {needs}", rf"{{\{size}", rf"\begin{{{kind}}}{{@{{}}{columns}@{{}}}}"]
    if kind == "longtable":
        lines.append(rf"\caption{{{caption}}}\\")
    lines += [r"\toprule", " & ".join(head) + r" \\", r"\midrule"]
    if kind == "longtable":
        lines.append(r"\endhead")
    lines += [" & ".join(row) + r" \\" for row in rows]
    lines += [r"\bottomrule", rf"\end{{{kind}}}"]
    if kind == "tabular":
        lines.append(rf"\par {caption}")
    return "\n".join([*lines, "}", ""])
