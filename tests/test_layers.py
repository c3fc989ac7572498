"""Imports point down: every module has a line, and no arrow runs up, in a circle or to the side."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parent.parent
CONTENT = ("circuits", "analysis", "experiments")
LINES = (
    "messages arrays nonlinearity filters schema stimulus responses storage provenance model stats "
    "hierarchy priors inference lateral learning whitening temporal_whitening normalization",
    "stimuli measures plots data neural",
    "kinds weights declaration machine engine circuit brian synaptic deep control",
    "catalog verdict hypothesis roster protocols",
    "pool scheduler experiment contract",
    "report sweep",
    "cli __main__",
)
LINE = {room: number for number, rooms in enumerate(LINES) for room in rooms.split()}
HEAVY = {
    "torch": ("deep", "control"),
    "zuko": ("deep",),
    "safetensors": ("deep", "control"),
    "numba": ("deep",),
    "gymnasium": ("control",),
    "brian2": ("brian",),
    "matplotlib": ("plots", "report"),
    "dask": ("scheduler",),
    "distributed": ("scheduler",),
    "dask_jobqueue": ("scheduler",),
}
"""Package -> the rooms that may import it. Matplotlib also inside functions of content files."""


class Import(NamedTuple):
    """One imported module, and where it is written."""

    name: str
    top: bool
    typing: bool


def room_of(module: str) -> str:
    """Return the room of a module below `pcsim`: ``stats_bootstrap`` belongs to ``stats``."""
    first = module.split(".")[0]
    return first if first in LINE or first in CONTENT else first.split("_")[0]


def imports(source: str, module: str, *, package: bool = False) -> Iterator[Import]:
    """Yield every import of a source, absolute; `module` is its own full name."""
    parent = module if package else module.rpartition(".")[0]

    def visit(node: ast.AST, top: bool, typing: bool) -> Iterator[Import]:
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(alias.name, top, typing)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parts = parent.split(".")
                base = ".".join([*parts[: len(parts) - node.level + 1], *filter(None, [base])])
            for alias in node.names:
                # Only from the top of the package is what is imported surely a module.
                yield Import(f"{base}.{alias.name}" if base == "pcsim" else base, top, typing)
        inner = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        guard = isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        for child in ast.iter_child_nodes(node):
            yield from visit(child, top and not inner, typing or guard)

    yield from visit(ast.parse(source), True, False)


def violations(source: str, module: str, *, package: bool = False) -> list[str]:
    """Return what is wrong with the imports of one source, each with the two modules named."""
    own = module.removeprefix("pcsim").lstrip(".")
    room = room_of(own) if own else ""
    is_content = room in CONTENT
    found = []
    if own and not is_content and room not in LINE:
        found.append(f"{module}: a module without a line; give it one in tests/test_layers.py")
    for name, top, typing in imports(source, module, package=package):
        first = name.split(".")[0]
        if first in CONTENT or first == "tests":
            found.append(f"{module}: imports {name}, a second copy of pcsim.{name}")
        in_figure = first == "matplotlib" and is_content and not top
        if first in HEAVY and not typing and not in_figure and room not in HEAVY[first]:
            found.append(f"{module}: imports {name} outside {' and '.join(HEAVY[first])}")
        if first != "pcsim" or name == "pcsim":
            continue
        target = room_of(name.removeprefix("pcsim."))
        if target in CONTENT:
            found.append(f"{module}: imports content {name}; use pcsim.catalog.load")
        elif target.startswith("__version__") or not own:
            continue
        elif not is_content and LINE.get(target, 99) > LINE.get(room, 99):
            found.append(f"{module}: imports {name}, which lies above it")
    return found


def sources() -> list[tuple[str, Path]]:
    """Return every module of the package as (full name, file)."""
    found = []
    for folder in ("pcsim", *CONTENT):
        for file in sorted((ROOT / folder).rglob("*.py")):
            parts = file.relative_to(ROOT).with_suffix("").parts
            parts = parts if folder == "pcsim" else ("pcsim", *parts)
            parts = parts[:-1] if parts[-1] == "__init__" else parts
            found.append((".".join(parts), file))
    return found


def circle(arrows: dict[str, set[str]]) -> list[str]:
    """Return the modules along one circle of imports, or nothing."""
    done: set[str] = set()

    def walk(module: str, path: list[str]) -> list[str]:
        if module in path:
            return path[path.index(module) :]
        if module in done:
            return []
        done.add(module)
        for target in sorted(arrows.get(module, ())):
            found = walk(target, [*path, module])
            if found:
                return found
        return []

    return next((found for start in sorted(arrows) if (found := walk(start, []))), [])


def test_every_arrow_points_down():
    found = [
        line
        for module, file in sources()
        for line in violations(file.read_text(), module, package=file.name == "__init__.py")
    ]
    assert not found, "\n".join(found)


def test_no_imports_in_a_circle():
    known = dict(sources())
    arrows: dict[str, set[str]] = {}
    for module, file in known.items():
        package = file.name == "__init__.py"
        targets = {i.name for i in imports(file.read_text(), module, package=package) if i.top}
        # A package's front names its own parts, and they each other: that is no circle.
        arrows[module] = {t for t in targets if t in known and not module.startswith(f"{t}.")}
    assert circle(arrows) == []


def test_top_of_the_package_imports_the_standard_library_only():
    source = (ROOT / "pcsim" / "__init__.py").read_text()
    names = {i.name.split(".")[0] for i in imports(source, "pcsim", package=True)}
    assert names <= {"__future__", "importlib", "typing", "pathlib"}


@pytest.mark.parametrize(
    ("module", "source", "words"),
    [
        ("pcsim.stats", "import pcsim.circuit", "lies above"),
        ("pcsim.stats_tests", "from pcsim.hypothesis import Hypothesis", "lies above"),
        ("pcsim.inference", "def f():\n    from pcsim import stimuli", "lies above"),
        ("pcsim.measures.tuning", "from ..cli import main", "lies above"),
        ("pcsim.circuit", "import torch", "outside deep"),
        ("pcsim.circuit", "def f():\n    from torch import nn", "outside deep"),
        ("pcsim.circuit", "import brian2 as b", "outside brian"),
        ("pcsim.sweep", "def f():\n    from distributed import Client", "outside scheduler"),
        ("pcsim.verdict", "def f():\n    import matplotlib.pyplot as plt", "outside plots"),
        ("pcsim.analysis.end_stopping", "import matplotlib.pyplot as plt", "outside plots"),
        ("pcsim.circuits.a", "from pcsim.circuits.b import MODEL", "imports content"),
        ("pcsim.circuits.a", "from . import b", "imports content"),
        ("pcsim.experiment", "from pcsim.experiments import correspondence", "imports content"),
        ("pcsim.analysis.a", "import circuits.b", "second copy"),
        ("pcsim.novelty", "import numpy", "without a line"),
    ],
)
def test_planted_slip_is_found(module, source, words):
    found = violations(source, module)
    assert len(found) == 1
    assert words in found[0]


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("pcsim.circuit", "from pcsim.inference import Level\nimport numpy as np"),
        ("pcsim.hypothesis", "if TYPE_CHECKING:\n    from matplotlib.axes import Axes"),
        ("pcsim.analysis.a", "def panel(evidence, ax):\n    import matplotlib.pyplot as plt"),
        ("pcsim.analysis.a", "from pcsim.catalog import load"),
        ("pcsim.deep.flows", "import torch"),
        ("pcsim.kinds.error", "from pcsim.kinds.kind import Kind"),
        ("pcsim.cli", "from pcsim.report import write_report"),
    ],
)
def test_lawful_import_passes(module, source):
    assert violations(source, module) == []


def test_planted_circle_is_found():
    assert circle({"a": {"b"}, "b": {"c"}, "c": {"b"}}) == ["b", "c"]
    assert circle({"a": {"b", "c"}, "b": {"c"}, "c": set()}) == []
