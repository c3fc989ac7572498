"""One self-contained HTML page about one or several runs: verdicts, figures, provenance.

It needs no network and no other file, and is drawn from what the runs have saved, nothing else.
"""

from __future__ import annotations

import base64
import os
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined, Template, UndefinedError

from pcsim.experiment import Run, open_run
from pcsim.messages import refusal
from pcsim.plots_style import VERDICTS
from pcsim.storage import read_json, write_text
from pcsim.verdict import Verdict, read_csv

__all__ = ["write_report"]

MEANING = {
    "SUPPORTED": "effect there, control fails, within the published interval (if there is one)",
    "QUALITATIVE": "effect there, control fails; size outside the interval, or only remembered",
    "NON-SPECIFIC": "effect there, but a control shows at least half of it",
    "INCONCLUSIVE": "the intervals do not decide",
    "REFUTED": "effect in the other direction or practically none",
    "N/A": "the model lacks the signal",
}

STATUS = {
    "read": "read in the source",
    "computed": "computed from published data",
    "remembered": "remembered, not read in a source: can never give SUPPORTED",
}

ROUNDING = 1e-12
"""Numbers below are shown as 0: they are what rounding leaves of it."""

LARGEST_SVG = 1_500_000
"""Bytes from which on a figure is shown as PNG instead."""


def write_report(runs: Sequence[Run | str | os.PathLike[str]], path: str | Path) -> None:
    """Write the report.

    Parameters
    ----------
    runs
        Finished runs or their folders; the first gives the page its title.
    path
        The HTML file, replaced whole.

    Raises
    ------
    ValueError
        If there are no runs, or one of them is not finished.
    """
    opened = [run if isinstance(run, Run) else open_run(os.fspath(run)) for run in runs]
    if not opened:
        advice = "Give the folder of a finished run."
        raise ValueError(refusal("write_report", "no runs", "one or more", advice))
    sections = [_run(run, f"r{i}-" if len(opened) > 1 else "") for i, run in enumerate(opened)]
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    filters = (number, span, p_value, expected, miss)
    environment.filters.update({one.__name__: one for one in filters})
    folder = resources.files("pcsim").joinpath("templates")
    template = environment.from_string(folder.joinpath("report.html").read_text(encoding="utf-8"))
    legend = [
        {"name": name, "slug": slug(name), "symbol": symbol, "fill": fill, "ink": ink}
        | {"meaning": MEANING[name]}
        for name, (fill, symbol, ink) in VERDICTS.items()
    ]
    page = _rendered(
        template,
        title=f"pcsim: {opened[0].experiment}",
        runs=sections,
        legend=legend,
        marks={name: {"slug": slug(name), "symbol": VERDICTS[name][1]} for name in VERDICTS},
        style=folder.joinpath("report.css").read_text(encoding="utf-8"),
        status=STATUS,
    )
    write_text(path, page)


def _rendered(template: Template, **values: Any) -> str:
    try:
        return template.render(**values)
    except UndefinedError as error:
        found, advice = f"a run that lacks something ({error})", "Run the experiment again."
        where = "write_report"
        raise ValueError(refusal(where, found, "one of this version", advice)) from None


def _run(run: Run, prefix: str) -> dict[str, Any]:
    """Return what the page says about one run."""
    table = run.folder / "verdicts.csv"
    texts = run.folder / "hypotheses.json"
    verdicts = read_csv(table) if table.is_file() else []
    claims = read_json(texts) if texts.is_file() else []
    models = list(dict.fromkeys(one.model for one in verdicts))
    cells = {(one.hypothesis, one.model): one for one in verdicts}
    counts = {name: sum(one.verdict == name for one in verdicts) for name in VERDICTS}
    return {
        "prefix": prefix,
        "experiment": run.experiment,
        "question": run.question,
        "scale": run.scale,
        "seeds": ", ".join(map(str, run.settings["seeds"])),
        "models": models,
        "counts": {name: n for name, n in counts.items() if n},
        "claims": [_claim(run, claim, models, cells, prefix) for claim in claims],
        "figure": None if verdicts else _figure(run.folder / "figure", run.question),
        "provenance": _provenance(run),
    }


def _claim(
    run: Run,
    claim: Mapping[str, Any],
    models: Sequence[str],
    cells: Mapping[tuple[str, str], Verdict],
    prefix: str,
) -> dict[str, Any]:
    """Return what the page says about one hypothesis."""
    key, name = claim["id"], claim["name"]
    rows = {model: cells.get((key, model)) for model in models}
    panel = f"{key} {name}: the curves behind the verdicts. Numbers are in the table below."
    effects = (
        f"{key}: effect of each model with its 95 % interval beside its strongest control; "
        "numbers are in the table below."
    )
    return {
        **claim,
        "anchor": f"{prefix}{slug(key)}",
        "rows": [(model, f"{prefix}{slug(f'{key}-{model}')}", row) for model, row in rows.items()],
        "figures": [
            figure
            for figure in (
                _figure(run.folder / "figures" / key, panel, "What the models do"),
                _figure(run.folder / "figures" / f"{key}-effects", effects, "Effects and controls"),
            )
            if figure
        ],
    }


def _figure(stem: Path, text: str, caption: str = "") -> dict[str, str] | None:
    """Return a figure as a data URI; an image, so that its parts cannot clash with others'."""
    svg, png = stem.with_name(f"{stem.name}.svg"), stem.with_name(f"{stem.name}.png")
    if svg.is_file() and svg.stat().st_size <= LARGEST_SVG:
        path, kind = svg, "image/svg+xml"
    elif png.is_file():
        path, kind = png, "image/png"
    else:
        return None
    data = base64.b64encode(path.read_bytes()).decode("ascii")
    return {"source": f"data:{kind};base64,{data}", "text": text, "caption": caption}


def _provenance(run: Run) -> list[tuple[str, str]]:
    """Return the lines of provenance that a reader needs to do the run again."""
    path = run.folder / "provenance.json"
    record = read_json(path) if path.is_file() else {}
    git = record.get("git") or {}
    commit = git.get("commit") or "not a checkout"
    if git.get("dirty"):
        commit += f", with changes (sha256 of the diff {str(git.get('diff_sha256'))[:16]})"
    packages = record.get("packages") or {}
    arguments = record.get("arguments") or []
    lines = {
        "Finished": record.get("time", "unknown"),
        "Commit": commit,
        "Source sha256": record.get("source_sha256", "unknown"),
        "Command": " ".join(["pcsim", *map(str, arguments)]) if arguments else "from Python",
        "Python": record.get("python", "unknown"),
        "Packages": ", ".join(f"{name} {version}" for name, version in packages.items()),
        "Seeds": ", ".join(map(str, run.settings["seeds"])),
        "Scale": run.scale,
    }
    settings = {k: v for k, v in run.settings.items() if k not in ("seeds", "scale")}
    lines |= {f"Setting {name}": _plain(value) for name, value in settings.items()}
    machine = record.get("machine") or {}
    lines |= {f"Machine {name}".replace("_", " "): _plain(v) for name, v in machine.items()}
    return [(name, text) for name, text in lines.items() if text]


def _plain(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_plain(entry)}" for name, entry in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value))
    return str(value)


def slug(name: str) -> str:
    """Return a name as an HTML id or class.

    Examples
    --------
    >>> slug("N/A"), slug("H10-RB-cut")
    ('n-a', 'h10-rb-cut')
    """
    return "".join(c if c.isalnum() else "-" for c in name.lower()).strip("-")


def number(value: float | None) -> str:
    """Return a number to three digits with a true minus sign; a dash for none.

    Examples
    --------
    >>> number(-0.03214), number(None), number(-5.5e-17)
    ('\N{MINUS SIGN}0.0321', '\N{EN DASH}', '0')
    """
    if value is None:
        return "\N{EN DASH}"
    if abs(value) < ROUNDING:
        return "0"
    return f"{value + 0.0:.3g}".replace("-", "\N{MINUS SIGN}").replace("inf", "\N{INFINITY}")


def span(low: float | None, high: float | None) -> str:
    """Return an interval; nothing for none."""
    return "" if low is None or high is None else f"[{number(low)}, {number(high)}]"


def miss(row: Verdict) -> str:
    """Return how far an effect lies from the published interval; nothing where there is none.

    Examples
    --------
    >>> row = {"hypothesis": "H1", "version": 1, "family": "V1", "model": "A", "effect": 0.5}
    >>> miss(Verdict(**row, verdict="QUALITATIVE", reference_low=0.7, reference_high=0.9))
    '0.2 below the published [0.7, 0.9].'
    """
    low, high = row.reference_low, row.reference_high
    if row.effect is None or low is None or high is None:
        return ""
    published = f"the published {span(low, high)}."
    if row.effect < low:
        return f"{number(low - row.effect)} below {published}"
    if row.effect > high:
        return f"{number(row.effect - high)} above {published}"
    return f"Within {published}"


def p_value(value: float | None) -> str:
    """Return a p value to three decimals.

    Examples
    --------
    >>> p_value(0.0002), p_value(0.0417)
    ('< 0.001', '0.042')
    """
    if value is None:
        return "\N{EN DASH}"
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def expected(mark: str) -> str:
    """Return an a-priori mark with its meaning.

    Examples
    --------
    >>> expected("+"), expected("")
    ('+ pass', 'not stated')
    """
    words = {"+": "+ pass", "-": "\N{MINUS SIGN} fail", "?": "? open", ".": "not applicable"}
    return words.get(mark, mark) or "not stated"
