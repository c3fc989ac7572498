"""What the page says about each hypothesis of a run: texts, figures, stimuli, cells."""

from __future__ import annotations

import base64
import io
import itertools
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import xarray as xr

from pcsim.experiment import Run
from pcsim.experiment_collect import COLLECTED
from pcsim.experiment_exclusions import read_exclusions
from pcsim.experiment_figures import PANELS
from pcsim.experiment_folder import FIGURES, listed
from pcsim.report_marks import Axis, trace_mark
from pcsim.report_text import slug
from pcsim.storage import read_json, read_record
from pcsim.verdict import Outcome, Verdict
from pcsim.verdict_expectations import agreement, presence

__all__ = ["LARGEST_SVG", "claims_of", "excluded_of", "figure_of"]

PAGE = (
    "cell", "cell-body", "cell-title", "exclusions", "exclusions-caption", "expected",
    "expected-caption", "find", "kept", "main", "matrix-caption", "matrix-title", "order",
    "provenance", "references", "references-caption", "title",
)  # fmt: skip
"""The ids of the page that are not made from names."""

LARGEST_SVG = 150_000
"""Bytes from which on a figure is shown as PNG instead, so that the page stays small."""


def claims_of(
    run: Run, texts: Sequence[Mapping[str, Any]], verdicts: Sequence[Verdict], prefix: str
) -> list[dict[str, Any]]:
    """Return what the page says about the hypotheses of a run, in their order."""
    counts = _counts(run)
    file = run.folder / PANELS
    panels = read_json(file) if file.is_file() else {}
    taken = set(PAGE)
    return [
        _claim(
            run,
            {**one, "anchor": f"{prefix}{_anchor(one['id'], taken, '-title', '-numbers')}"},
            _cells(one, [v for v in verdicts if v.hypothesis == one["id"]], counts, taken, prefix),
            panels.get(one["id"], ()),
        )
        for one in texts
    ]


def _anchor(name: str, taken: set[str], *with_it: str) -> str:
    """Return an id for a name that none has yet, nor those that end in `with_it`; note them."""
    first = slug(name)
    tries = (first if n == 1 else f"{first}-{n}" for n in itertools.count(1))
    found = next(one for one in tries if not {one, *(one + end for end in with_it)} & taken)
    taken |= {found, *(found + end for end in with_it)}
    return found


def _behind(claim: Mapping[str, Any]) -> dict[str, Any]:
    """Return what is drawn behind the effects of a hypothesis."""
    reference = claim["reference"]["interval"]
    return {
        "null": claim["null"],
        "rope": tuple(claim["rope"]) if claim["rope"] else None,
        "reference": tuple(reference) if reference else None,
    }


def _cells(
    claim: Mapping[str, Any],
    rows: Sequence[Verdict],
    counts: Mapping[tuple[str, str], str],
    taken: set[str],
    prefix: str,
) -> list[dict[str, Any]]:
    """Return what the page says about the models under one hypothesis."""
    key, behind = claim["id"], _behind(claim)
    axis = Axis.of(rows, **behind)
    return [
        {
            "row": row,
            "anchor": f"{prefix}{_anchor(f'{key}-{row.model}', taken)}",
            "mark": axis.mark(row),
            "strip": Axis.of([row], **behind).figure(row),
            "says": _says(row, axis),
            "kept": agreement(row.expectation, row.verdict, itself=row.itself),
            "own": presence(row.verdict) if row.itself else "",
            "dropped": counts.get((key, row.model), ""),
        }
        for row in rows
    ]


def _claim(
    run: Run, claim: Mapping[str, Any], cells: list[dict[str, Any]], drawn: Sequence[str]
) -> dict[str, Any]:
    key, name = claim["id"], claim["name"]
    shown = _collected(run, f"stimuli/{key}.nc")
    of = f" of {', '.join(drawn)}" if drawn else ""
    panel = f"{key} {name}: the curves behind the verdicts{of}. Numbers are in the table below."
    rows = [cell["row"] for cell in cells]
    return {
        **claim,
        "cells": {row.model: cell for row, cell in zip(rows, cells, strict=True)},
        "judged": [cell for cell in cells if cell["row"].verdict != Outcome.NA],
        "absent": _by_reason([cell for cell in cells if cell["row"].verdict == Outcome.NA]),
        "ticks": Axis.of(rows, **_behind(claim)).ticks(),
        "drawn": drawn,
        "replicas": any(row.replicas for row in rows),
        "figure": figure_of(run, f"figures/{key}", panel),
        "stimuli": [] if shown is None else list(_stimuli(shown)),
        "seen_by": "" if shown is None else _seen_by(shown),
    }


def _says(row: Verdict, axis: Axis) -> str:
    """Say what the drawing of a cell shows."""
    parts = [f"Disc and line: effect of {row.model} with its 95 % interval"]
    if row.replicas:
        parts.append(f"dots above: its {len(row.replicas)} replicas")
    if row.control_effect is not None:
        parts.append(f"square: strongest control, {row.control}")
    if row.control_replicas:
        parts.append("dots below: the control's replicas")
    if axis.reference:
        parts.append("grey band: published")
    if axis.rope:
        parts.append("dashed box: practically none")
    return "; ".join([*parts, "dotted: no effect"]) + "."


def _by_reason(cells: Sequence[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """Return reason -> cells that are not applicable for it."""
    found: dict[str, list[dict[str, Any]]] = {}
    for cell in cells:
        found.setdefault(cell["row"].reason.rstrip(".") or "no reason given", []).append(cell)
    return found


def figure_of(run: Run, name: str, text: str) -> dict[str, str] | None:
    """Return a figure as a data URI; an image, so that its parts cannot clash with others'.

    Only what the run says it has drawn from its present numbers is taken.
    """
    drawn = listed(run.folder, FIGURES) if read_record(run.folder / FIGURES).get("state") else []
    there = {
        file: run.folder / file
        for file in (f"{name}.svg", f"{name}.png")
        if file in drawn and (run.folder / file).is_file()
    }
    svg, png = there.get(f"{name}.svg"), there.get(f"{name}.png")
    if svg is not None and svg.stat().st_size <= LARGEST_SVG:
        return {"source": _uri(svg.read_bytes(), "image/svg+xml"), "text": text}
    if png is not None:
        return {"source": _uri(png.read_bytes(), "image/png"), "text": text}
    return None


def _collected(run: Run, name: str) -> Path | None:
    """Return a file that goes with the tables; runs of older versions do not list theirs."""
    path = run.folder / name
    stands = name in listed(run.folder, COLLECTED) or not (run.folder / COLLECTED).is_file()
    return path if stands and path.is_file() else None


def _uri(data: bytes, kind: str) -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode('ascii')}"


def _stimuli(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the thumbnails that a run kept of a protocol."""
    from PIL import Image

    found = xr.load_dataset(path, engine="h5netcdf")
    for place in range(found.sizes["thumbnail"]):
        one = found.isel(thumbnail=place)
        rows, columns = int(one["rows"]), int(one["columns"])
        caption = str(one["caption"].item())
        duration = float(one["duration"])
        entry: dict[str, Any] = {"caption": caption, "seconds": duration, "trace": None}
        if rows:
            file = io.BytesIO()
            strip = one["strip"].values[:rows, :columns]
            Image.fromarray(strip).save(file, format="PNG", optimize=True)
            entry |= {"source": _uri(file.getvalue(), "image/png"), "rows": rows}
            entry |= {"columns": columns, "zoom": max(2, min(6, 120 // columns))}
        else:
            entry["trace"] = trace_mark(one["trace"].values)
        yield entry


def _seen_by(path: Path) -> str:
    with xr.open_dataset(path, engine="h5netcdf") as found:
        return str(found["model"].item())


def _counts(run: Run) -> dict[tuple[str, str], str]:
    """Return (hypothesis, model) -> what was left out of the model's own evidence, in words."""
    words: dict[tuple[str, str], str] = {}
    for row in read_exclusions(run.folder / "exclusions.csv"):
        if not row["control"] and row["what"] != "units":
            key = row["hypothesis"], row["model"]
            text = f"{row['excluded']} of {row['total']} {row['what']} left out"
            words[key] = f"{words[key]}; {text}" if key in words else text
    return words


def excluded_of(run: Run, verdicts: Sequence[Verdict]) -> list[dict[str, Any]]:
    """Return, for each hypothesis, what was left out of models and of their controls.

    Runs of older versions counted units of models alone; then that is all there is.
    """
    rows = read_exclusions(run.folder / "exclusions.csv") or [
        {
            "hypothesis": one.hypothesis, "model": one.model, "control": "", "what": "units",
            "excluded": one.n_total - one.n_included, "total": one.n_total,
        }
        for one in verdicts
        if one.n_total
    ]  # fmt: skip
    found: dict[tuple[str, str], dict[str, Any]] = {}
    for row in rows:
        key = row["hypothesis"], row["what"]
        empty = {"hypothesis": key[0], "what": key[1], "most": None}
        sums = found.setdefault(key, {**empty, "models": [0, 0], "controls": [0, 0]})
        side = sums["controls" if row["control"] else "models"]
        side[0] += row["excluded"]
        side[1] += row["total"]
        share = row["excluded"] / row["total"] if row["total"] else 0.0
        if not row["control"] and share > 0 and (not sums["most"] or share > sums["most"][1]):
            sums["most"] = (row["model"], share)
    return list(found.values())
