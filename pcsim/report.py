"""One self-contained HTML page about one or several runs, with its tables and figures beside it.

The page needs no network and no other file, and is drawn from what the runs have saved, nothing
else. Beside it lie the same numbers as CSV, as LaTeX tables and as figures in PDF.
"""

from __future__ import annotations

import base64
import hashlib
import os
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, UndefinedError

from pcsim.experiment import Run, open_run
from pcsim.experiment_folder import lock_of
from pcsim.messages import refusal
from pcsim.plots_style import VERDICTS
from pcsim.report_claims import claims_of, excluded_of, figure_of
from pcsim.report_tables import SUFFIXES, tables_of
from pcsim.report_text import expected, miss, number, p_value, plain, slug, span
from pcsim.storage import read_json, write_text
from pcsim.verdict import Outcome, Verdict, read_csv
from pcsim.verdict_expectations import CONTROL_COUNTS, agreement_counts, own_controls

__all__ = ["write_report"]

MEANING = {
    "SUPPORTED": "effect there, control fails, within the published interval (if there is one)",
    "QUALITATIVE": "effect there, control fails; size outside the interval, or only remembered",
    "NON-SPECIFIC": "effect there, but a control shows at least half of it",
    "INCONCLUSIVE": "the intervals do not decide",
    "REFUTED": "effect in the other direction or practically none",
    "N/A": "the model lacks the signal, or was not asked",
}

STATUS = {
    "read": "read in the source",
    "computed": "computed from published data",
    "remembered": "remembered, not read in a source: can never give SUPPORTED",
}

TWINS = (
    "RB is the battery's RB-sparse, Rao & Ballard's circuit with a sparse prior; RB-gauss is its "
    "twin with a Gaussian prior."
)

DENSE = 14
"""Models from which on the matrix is drawn narrow, with upright labels."""


def write_report(runs: Sequence[Run | str | os.PathLike[str]], path: str | Path) -> None:
    """Write the page, and beside it ``<name>_*.csv``, ``<name>_*.tex`` and ``<name>.pdf``.

    Parameters
    ----------
    runs
        Finished runs or their folders; the first gives the page its title.
    path
        The HTML file, replaced whole.

    Raises
    ------
    ValueError
        If there are no runs, one of them is not finished, or the page is to lie in the folder of a
        run that is going on.
    """
    opened = [run if isinstance(run, Run) else open_run(os.fspath(run)) for run in runs]
    if not opened:
        advice = "Give the folder of a finished run."
        raise ValueError(refusal("write_report", "no runs", "one or more", advice))
    sections = [_run(run, f"r{i}-" if len(opened) > 1 else "") for i, run in enumerate(opened)]
    page = _page(f"pcsim: {opened[0].experiment}", sections)
    with lock_of("write_report", Path(path)):
        for section, stem in zip(sections, _stems(Path(path), sections), strict=True):
            _write_beside(Path(path), section, stem)
        write_text(path, page)


def _stems(page: Path, sections: Sequence[dict[str, Any]]) -> list[str]:
    """Return what the names of each run's files begin with: runs of one experiment are numbered."""
    if len(sections) == 1:
        return [page.stem]
    names = [slug(section["experiment"]) for section in sections]
    counts = [names[: i + 1].count(name) for i, name in enumerate(names)]
    return [
        f"{page.stem}_{name}" + (f"-{count}" if count > 1 else "")
        for name, count in zip(names, counts, strict=True)
    ]


def _write_beside(page: Path, section: dict[str, Any], stem: str) -> None:
    """Write the tables and figures of a run that has verdicts."""
    if not section["verdicts"]:
        return
    from pcsim.report_figures import write_pages

    for name, text in section["tables"].items():
        write_text(page.with_name(f"{stem}_{name}"), text)
    write_pages(section["texts"], section["verdicts"], page.with_name(f"{stem}.pdf"))


def _page(title: str, sections: Sequence[dict[str, Any]]) -> str:
    environment = Environment(
        loader=PackageLoader("pcsim", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    filters = (number, span, p_value, expected, miss, slug)
    environment.filters.update({one.__name__: one for one in filters})
    folder = resources.files("pcsim").joinpath("templates")
    script = folder.joinpath("report.js").read_text(encoding="utf-8")
    digest = hashlib.sha256(f"\n{script}".encode()).digest()
    legend = [
        {"name": name, "slug": slug(name), "symbol": symbol, "fill": fill, "ink": ink}
        | {"meaning": MEANING[name]}
        for name, (fill, symbol, ink) in VERDICTS.items()
    ]
    try:
        return environment.get_template("report.html").render(
            title=title,
            runs=sections,
            legend=legend,
            marks={name: {"slug": slug(name), "symbol": VERDICTS[name][1]} for name in VERDICTS},
            style=folder.joinpath("report.css").read_text(encoding="utf-8"),
            script=script,
            # The browser runs this script and no other, whatever a text may hold.
            allowed=f"sha256-{base64.b64encode(digest).decode('ascii')}",
            status=STATUS,
        )
    except UndefinedError as error:
        found, advice = f"a run that lacks something ({error})", "Run the experiment again."
        where = "write_report"
        raise ValueError(refusal(where, found, "one of this version", advice)) from None


def _run(run: Run, prefix: str) -> dict[str, Any]:
    """Return what the page says about one run."""
    table = run.folder / "verdicts.csv"
    texts = run.folder / "hypotheses.json"
    verdicts = read_csv(table) if table.is_file() else []
    described = read_json(texts) if texts.is_file() else []
    try:
        return {"prefix": prefix, **_said(run, verdicts, described, prefix)}
    except KeyError as error:
        found, advice = f"a run that lacks something ({error})", "Run the experiment again."
        raise ValueError(refusal("write_report", found, "one of this version", advice)) from None


def _said(
    run: Run, verdicts: Sequence[Verdict], described: Sequence[dict[str, Any]], prefix: str
) -> dict[str, Any]:
    own = bool(own_controls(verdicts))
    models = list(dict.fromkeys(one.model for one in verdicts))
    tables = tables_of(described, verdicts, models) if verdicts else {}
    return {
        "experiment": run.experiment,
        "question": run.question,
        "scale": run.scale,
        "seeds": plain(list(run.settings["seeds"])),
        "models": models,
        "dense": len(models) >= DENSE,
        "families": list(dict.fromkeys(str(one["family"]) for one in described)),
        "verdicts": verdicts,
        "texts": described,
        "counts": _counted(verdicts),
        "claims": claims_of(run, described, verdicts, prefix),
        "foretold": agreement_counts(verdicts),
        "outcomes": [str(one) for one in Outcome] + (list(CONTROL_COUNTS.values()) if own else []),
        "own": own,
        "twins": TWINS if {"RB", "RB-gauss"} & set(models) else "",
        "excluded": excluded_of(run, verdicts),
        "statuses": {s: sum(c["reference"]["status"] == s for c in described) for s in STATUS},
        "tables": tables,
        "downloads": [_download(name, text) for name, text in tables.items()],
        "figure": None if verdicts else figure_of(run, "figure", run.question),
        "provenance": _provenance(run),
    }


def _kept(kept: Mapping[str, str]) -> str:
    """Say how many pieces older sources made; `provenance.json` names each."""
    if not kept:
        return ""
    makers = ", ".join(sorted({sha[:16] for sha in kept.values()}))
    return f"{len(kept)}, made by other sources than these (sha256 {makers})"


def _counted(verdicts: Sequence[Verdict]) -> dict[str, int]:
    counts = {name: sum(one.verdict == name for one in verdicts) for name in VERDICTS}
    return {name: n for name, n in counts.items() if n}


def _download(name: str, text: str) -> dict[str, str]:
    data = base64.b64encode(text.encode()).decode("ascii")
    kind = SUFFIXES[Path(name).suffix]
    return {"name": name, "source": f"data:{kind};charset=utf-8;base64,{data}"}


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
        "Kept pieces": _kept(record.get("kept") or {}),
    }
    settings = {k: v for k, v in run.settings.items() if k not in ("seeds", "scale")}
    lines |= {f"Setting {name}": plain(value) for name, value in settings.items()}
    machine = record.get("machine") or {}
    lines |= {f"Machine {name}".replace("_", " "): plain(v) for name, v in machine.items()}
    return [(name, text) for name, text in lines.items() if text]
