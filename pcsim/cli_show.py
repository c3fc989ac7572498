"""``pcsim list`` and ``pcsim show``: what there is, read from the files themselves."""

from __future__ import annotations

import ast
import dataclasses
import importlib.util
import inspect
import itertools
import re
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from pcsim import catalog, data, roster
from pcsim.hypothesis import Hypothesis
from pcsim.hypothesis_expectations import MARKS, expectation_table
from pcsim.messages import unknown_name

__all__ = ["listing", "page"]

ROOMS = ("circuits", "analysis", "experiments")
WIDTH = 96


def listing(room: str | None) -> str:
    """Return a line for everything in a room, or in all of them."""
    rooms = (*ROOMS, "models", "stimuli", "data")
    if room is not None and room not in rooms:
        raise unknown_name("list", "room", room, rooms)
    blocks = []
    for one in (room,) if room else rooms:
        lines = list(_entries(one))
        width = max((len(name) for name, _ in lines), default=0)
        head = [] if room else [one]
        indent = "" if room else "  "
        blocks.append("\n".join([*head, *(f"{indent}{n.ljust(width)}  {t}" for n, t in lines)]))
    return "\n\n".join(blocks)


def _entries(room: str) -> Iterator[tuple[str, str]]:
    if room == "models":
        for variant in roster.ROSTER:
            yield variant.label, _about(variant)
    elif room == "stimuli":
        from pcsim.cli_simulate import stimulus_functions

        for name, function in sorted(stimulus_functions().items()):
            yield name, (inspect.getdoc(function) or "").split("\n")[0].rstrip(".")
    elif room == "data":
        for name in data.available():
            here = [split for split, place in data.where(name).items() if place]
            yield name, f"{data.record(name).title}; here: {', '.join(here) or 'nothing'}"
    else:
        for name in catalog.names(room):
            yield name, catalog.describe(room, name)


def _about(variant: roster.Variant) -> str:
    parts = [variant.circuit]
    if variant.training != "natural":
        parts.append(
            "untrained" if variant.training == "none" else f"trained on {variant.training}"
        )
    parts += [f"{name} = {value}" for name, value in variant.settings.items()]
    parts += [f"{name} = {value} after training" for name, value in variant.lesion.items()]
    return ", ".join(parts)


def page(name: str) -> str:
    """Return all there is to say about a circuit, hypothesis, experiment, column or file."""
    room, entry = _find(name)
    content = catalog.load(room, entry)
    blocks = {
        "circuits": lambda: _circuit(entry, content),
        "analysis": lambda: _hypothesis(entry, content),
        "experiments": lambda: _experiment(entry, content),
    }
    return "\n\n".join(block for block in blocks[room]() if block)


def _find(name: str) -> tuple[str, str]:
    if name.endswith(".py"):
        return catalog.load_file(name)[0], name
    labels = {one.label: one.circuit for one in roster.ROSTER}
    if name in labels:
        return "circuits", labels[name]
    known = {entry: room for room in ROOMS for entry in catalog.names(room)}
    if name in known:
        return known[name], name
    ids = {catalog.load("analysis", entry).id: entry for entry in catalog.names("analysis")}
    if name in ids:
        return "analysis", ids[name]
    raise unknown_name("show", "name", name, [*known, *labels, *ids])


def _docstring(room: str, name: str) -> str:
    """Return the file's docstring, which holds the equations and the sources."""
    path = Path(name)
    if not name.endswith(".py"):
        spec = importlib.util.find_spec(f"pcsim.{room}.{name}")
        path = Path(str(spec.origin)) if spec else path
    return inspect.cleandoc(ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or "")


def _circuit(name: str, model: Any) -> Iterator[str]:
    yield f"circuit {name}"
    yield _docstring("circuits", name)
    yield inspect.getdoc(type(model)) or ""
    populations = getattr(model, "populations", ())
    if populations:
        rows = [
            f"  {p.name}: {p.size} {p.population} units, level {p.level}"
            + (f", {p.area}" if p.area else "")
            + (f" {p.layer}" if p.layer else "")
            + f", {type(p.kind).__name__}"
            for p in populations
        ]
        yield "\n".join(["populations", *rows])
        yield "\n".join(["projections", *map(_projection, model.projections)])
    if dataclasses.is_dataclass(model):
        notes = _notes(type(model))
        rows = [
            f"  {f.name} = {_short(getattr(model, f.name))}"
            + (f"\n{textwrap.indent(notes[f.name], ' ' * 6)}" if f.name in notes else "")
            for f in dataclasses.fields(model)
            if f.init
        ]
        yield "\n".join(["parameters", *rows])
    yield from _columns(name)


def _projection(one: Any) -> str:
    """Return a line about a projection: whence, where to, by what weights, how late."""
    shape = getattr(one.weights, "shape", None)
    parts = ["one to one" if shape is None else " x ".join(map(str, shape))]
    parts += [f"times {one.sign:g}"] if one.sign != 1 else []
    parts += [f"gated by {one.gate}"] if one.gate else []
    parts += [f"{1e3 * one.delay:g} ms"] if one.delay else []
    port = f" ({one.port})" if one.port else ""
    return f"  {one.source} -> {one.target}{port}: {', '.join(parts)}"


def _columns(circuit: str) -> Iterator[str]:
    """What the battery expects of the columns of this circuit."""
    columns = [one for one in roster.ROSTER if one.circuit == circuit]
    if not columns:
        return
    rows = ["expected before the first run (+ pass, - fail, ? open, . not applicable)"]
    claims = [catalog.load("analysis", name) for name in catalog.names("analysis")]
    for column in columns:
        marks = {
            h: row[column.label] for h, row in expectation_table().items() if column.label in row
        }
        stated = {claim.id: claim.expected(column.label) for claim in claims}
        marks = dict(sorted({**marks, **{h: mark for h, mark in stated.items() if mark}}.items()))
        text = "  ".join(f"{h} {mark}" for h, mark in marks.items()) or "nothing stated"
        rows += textwrap.wrap(
            f"{column.label}: {text}", WIDTH, initial_indent="  ", subsequent_indent="    "
        )
    yield "\n".join(rows)


def _notes(kind: type) -> dict[str, str]:
    """Return what is said of each field of a dataclass, in its class and those it is made from.

    That is the text under the field, or its entry under "Parameters" of the class's docstring.
    """
    found: dict[str, str] = {}
    for one in reversed(kind.__mro__):
        if one is object or one.__module__ not in sys.modules:
            continue
        found |= _parameters(inspect.cleandoc(one.__doc__ or ""))
        try:
            (body,) = ast.parse(textwrap.dedent(inspect.getsource(one))).body
        except (OSError, TypeError):
            continue
        statements = getattr(body, "body", [])
        for field, note in itertools.pairwise(statements):
            if (
                isinstance(field, ast.AnnAssign)
                and isinstance(field.target, ast.Name)
                and isinstance(note, ast.Expr)
                and isinstance(note.value, ast.Constant)
                and isinstance(note.value.value, str)
            ):
                found[field.target.id] = inspect.cleandoc(note.value.value)
    return found


def _parameters(docstring: str) -> dict[str, str]:
    """Read the section "Parameters" of a docstring: name -> text."""
    section = docstring.partition("Parameters\n----------\n")[2]
    section = re.split(r"\n\n?\w+\n-{3,}\n", section)[0]
    found: dict[str, str] = {}
    for entry in re.split(r"\n(?=\S)", section):
        head, _, text = entry.partition("\n")
        for name in head.split(":")[0].split(","):
            if text.strip():
                found[name.strip()] = inspect.cleandoc(text)
    return found


def _short(value: Any) -> str:
    if isinstance(value, np.ndarray) and value.size > 8:
        return f"array {value.shape}"
    if isinstance(value, tuple | list) and any(isinstance(v, np.ndarray) for v in value):
        return f"({', '.join(map(_short, value))})"
    text = repr(value)
    return text if len(text) <= 70 else f"{text[:67]}..."


def _hypothesis(name: str, hypothesis: Hypothesis) -> Iterator[str]:
    yield f"{hypothesis.id}  {hypothesis.name} ({name}, version {hypothesis.version})"
    falsified = hypothesis.falsified_if
    reference = hypothesis.reference
    number = "only the sign is published"
    if reference.interval is not None:
        number = f"{reference.interval[0]:g} to {reference.interval[1]:g} ({hypothesis.units})"
    texts = {
        "claim": hypothesis.claim,
        "protocol": hypothesis.protocol,
        "statistic": hypothesis.statistic,
        "signal": hypothesis.signal,
        "reference": f"{number}, {reference.status}. {reference.source}",
        "falsified if": falsified if isinstance(falsified, str) else " ".join(falsified),
        "differs from its source": " ".join(hypothesis.departures),
        "remembered as well": " ".join(hypothesis.remembered),
        **{f"control '{one.name}'": one.statement for one in hypothesis.controls},
        **{f"requires '{one.name}'": one.statement for one in hypothesis.requirements},
    }
    for head, text in texts.items():
        if not text:
            continue
        yield f"{head}\n" + textwrap.fill(text, WIDTH, initial_indent="  ", subsequent_indent="  ")
    marks = {one.label: hypothesis.expected(one.label) for one in roster.ROSTER}
    rows = [f"  {label} {mark} {MARKS[mark]}" for label, mark in marks.items() if mark in MARKS]
    yield "\n".join(["expected before the first run", *rows]) if rows else ""


def _experiment(name: str, experiment: Any) -> Iterator[str]:
    yield f"experiment {name}"
    yield _docstring("experiments", name)
    for scale, settings in experiment.scales.items():
        rows = [f"  {key} = {_listed(value)}" for key, value in settings.items()]
        yield "\n".join([f"scale {scale}", *rows])


def _listed(value: Any) -> str:
    is_list = isinstance(value, tuple | list)
    # Names and numbers as `--set` takes them; ((128, 128),) is not (128, 128).
    is_flat = is_list and not any(isinstance(one, tuple | list) for one in value)
    text = ", ".join(map(str, value)) if is_flat else repr(value)
    return textwrap.fill(text, WIDTH - 4, subsequent_indent=" " * 6)
