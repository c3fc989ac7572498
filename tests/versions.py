"""The versions of hypotheses, beside the sha256 of what decides their verdicts.

    python tests/versions.py              # after `version` was raised in the files that changed
    python tests/versions.py --unmoved    # after changes that can move no number

The table `tests/data/versions.csv` has a row a hypothesis. What decides is the source of its file
in `analysis/`, and of what it imports from `pcsim.protocols`, without docstrings, comments, layout,
texts that are only printed and the function that draws the panel. `test_versions.py` compares.
"""

from __future__ import annotations

import ast
import csv
import hashlib
import io
import sys
from collections.abc import Iterable
from pathlib import Path

from pcsim import catalog

ROOT = Path(__file__).resolve().parent.parent
PROTOCOLS = ROOT / "pcsim" / "protocols"
INDEX = PROTOCOLS / "__init__.py"
TABLE = ROOT / "tests" / "data" / "versions.csv"
HEAD = ("hypothesis", "version", "sha256")
TEXTS = {
    "claim", "departures", "falsified_if", "panel", "protocol", "remembered", "signal", "source",
    "statement", "statistic", "version",
}  # fmt: skip
"""Keyword arguments that are printed and decide nothing; the version has a column of its own."""
SKIPPED = {"ctx", "kind", "type_comment", "type_ignores", "lineno", "col_offset"}


def deciding(text: str) -> str:
    """Return the source as a tree, without what decides nothing; the same in all Pythons."""
    tree = ast.parse(text)
    drawn = {
        one.value.id
        for one in ast.walk(tree)
        if isinstance(one, ast.keyword) and one.arg == "panel" and isinstance(one.value, ast.Name)
    }
    return "".join(_told(tree, drawn))


def _told(node: object, drawn: set[str]) -> Iterable[str]:
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
        return
    if isinstance(node, ast.keyword) and node.arg in TEXTS:
        return
    if isinstance(node, ast.FunctionDef) and node.name in drawn:
        return
    if isinstance(node, ast.AST):
        yield f"({type(node).__name__}"
        for name, value in ast.iter_fields(node):
            # Older Pythons leave out fields that newer ones have, empty.
            if name not in SKIPPED and value not in (None, []):
                yield f" {name}="
                yield from _told(value, drawn)
        yield ")"
    elif isinstance(node, list):
        yield "["
        for one in node:
            yield from _told(one, drawn)
        yield "]"
    else:
        yield repr(node)


def protocols_of(text: str) -> list[Path]:
    """Return the files of `pcsim.protocols` from which a source imports names."""
    homes = {
        item.asname or item.name: home
        for home, item in _imported_of(INDEX.read_text(encoding="utf-8"), "pcsim")
    }
    names = set()
    for module, item in _imported_of(text, "pcsim.protocols"):
        names.add(homes[item.name] if module == "pcsim.protocols" else module)
    return sorted(PROTOCOLS / f"{name.rsplit('.', 1)[1]}.py" for name in names)


def _imported_of(text: str, package: str) -> Iterable[tuple[str, ast.alias]]:
    """Yield (module, name) of what a source imports from a package."""
    for one in ast.walk(ast.parse(text)):
        if isinstance(one, ast.ImportFrom) and (one.module or "").startswith(package):
            yield from ((one.module or "", item) for item in one.names)


def digest(path: Path) -> str:
    """Return the sha256 of what decides in a hypothesis' file and in the protocols it imports."""
    text = path.read_text(encoding="utf-8")
    parts = [text, *(one.read_text(encoding="utf-8") for one in protocols_of(text))]
    return hashlib.sha256("\n".join(map(deciding, parts)).encode()).hexdigest()


def current() -> dict[str, tuple[int, str]]:
    """Return id -> (version, sha256) of the hypotheses as they are."""
    found = {}
    for name in catalog.names("analysis"):
        one = catalog.load("analysis", name)
        found[one.id] = one.version, digest(ROOT / "analysis" / f"{name}.py")
    return dict(sorted(found.items()))


def recorded() -> dict[str, tuple[int, str]]:
    """Return id -> (version, sha256) of the table; nothing if there is none."""
    if not TABLE.is_file():
        return {}
    with TABLE.open(newline="", encoding="utf-8") as file:
        return {row[HEAD[0]]: (int(row[HEAD[1]]), row[HEAD[2]]) for row in csv.DictReader(file)}


def unanswered(now: dict[str, tuple[int, str]], before: dict[str, tuple[int, str]]) -> list[str]:
    """Return the hypotheses whose deciding source changed while their version was not raised."""
    both = [key for key in now if key in before]
    return [
        key
        for key in both
        if now[key][0] < before[key][0]
        or (now[key][1] != before[key][1] and now[key][0] <= before[key][0])
    ]


def write(found: dict[str, tuple[int, str]]) -> None:
    """Write the table."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(HEAD)
    writer.writerows([key, *row] for key, row in found.items())
    TABLE.parent.mkdir(exist_ok=True)
    TABLE.write_text(buffer.getvalue(), encoding="utf-8")


def main(arguments: list[str]) -> int:
    """Renew the table; refuse what changed under an old version, unless told that it moves none."""
    now, before = current(), recorded()
    left = unanswered(now, before)
    lower = [key for key in left if now[key][0] < before[key][0]]
    if left and (lower or "--unmoved" not in arguments):
        print(
            f"What decides changed under the same version: {', '.join(left)}. Raise `version` in "
            "its file if a number can move, and list the move in CHANGELOG.md under 'Results that "
            "moved'; if none can, run: python tests/versions.py --unmoved"
        )
        return 1
    write(now)
    changed = [key for key in now if before.get(key) != now[key]]
    gone = [key for key in before if key not in now]
    print(f"{TABLE.relative_to(ROOT)}: {len(now)} hypotheses, {len(changed)} renewed, {gone} gone")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
