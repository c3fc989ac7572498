"""What there is: circuits, analyses and experiments, found by file name; a user's file by path.

No registry and no decorator: a file in one of the three folders that holds the constant of its room
is found. A path to a ``.py`` file works wherever a name does.
"""

from __future__ import annotations

import ast
import hashlib
import importlib
import importlib.util
import pkgutil
import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from pcsim.messages import check_choice, refusal, unknown_name

__all__ = ["CONSTANTS", "describe", "load", "load_file", "names"]

CONSTANTS = {"circuits": "MODEL", "analysis": "HYPOTHESIS", "experiments": "EXPERIMENT"}
"""Room -> the one constant that a file of it exports."""


def names(room: str) -> list[str]:
    """Return the names of the files of a room, sorted.

    Parameters
    ----------
    room
        "circuits", "analysis" or "experiments".

    Examples
    --------
    >>> "rao_ballard_1999" in names("circuits")
    True
    """
    check_choice("names", "room", room, CONSTANTS)
    folder = importlib.import_module(f"pcsim.{room}").__path__
    return sorted(m.name for m in pkgutil.iter_modules(folder) if not m.name.startswith("_"))


def load(room: str, name: str | Path) -> Any:
    """Return the model, hypothesis or experiment of this name, or of the file at this path.

    Raises
    ------
    ValueError
        If the name is unknown, or the file does not run or lacks the constant of the room.

    Examples
    --------
    >>> load("circuits", "rao_ballard")
    Traceback (most recent call last):
    ValueError: load: found circuits 'rao_ballard', expected one of ... Did you mean ...
    """
    where = "load"
    check_choice(where, "room", room, CONSTANTS)
    if _is_path(name):
        module = _run_file(Path(name))
    elif name in names(room):
        module = importlib.import_module(f"pcsim.{room}.{name}")
    else:
        raise unknown_name(where, room, str(name), names(room))
    if CONSTANTS[room] not in vars(module):
        own = [constant for constant in CONSTANTS.values() if constant in vars(module)]
        found = f"{Path(str(module.__file__)).name} with {' and '.join(own) or 'no constant'}"
        expected = f"the constant {CONSTANTS[room]} as {room} have it"
        raise ValueError(refusal(where, found, expected, f"Assign {CONSTANTS[room]} = ... in it."))
    return getattr(module, CONSTANTS[room])


def load_file(path: str | Path) -> tuple[str, Any]:
    """Return the room that a user's file belongs to, by the constant it holds, and the constant.

    Raises
    ------
    ValueError
        If the file does not run or holds none of the constants, or more than one.
    """
    module = _run_file(Path(path))
    own = [room for room, constant in CONSTANTS.items() if constant in vars(module)]
    if len(own) != 1:
        found = f"{Path(path).name} with {len(own)} of {', '.join(CONSTANTS.values())}"
        advice = "A circuit exports MODEL, an analysis HYPOTHESIS, an experiment EXPERIMENT."
        raise ValueError(refusal("load_file", found, "one of them", advice))
    return own[0], getattr(module, CONSTANTS[own[0]])


def describe(room: str, name: str | Path) -> str:
    """Return the first sentence of the file's docstring, without running the file."""
    check_choice("describe", "room", room, CONSTANTS)
    if not _is_path(name) and name not in names(room):
        raise unknown_name("describe", room, str(name), names(room))
    if _is_path(name):
        source = _read(Path(name))
    else:
        spec = importlib.util.find_spec(f"pcsim.{room}.{name}")
        source = _read(Path(str(spec.origin if spec else name)))
    try:
        text = ast.get_docstring(ast.parse(source)) or ""
    except SyntaxError as error:
        found = f"{name} that is not Python ({error.msg}, line {error.lineno})"
        raise ValueError(refusal("describe", found, "a Python file", "Mend it.")) from None
    paragraph = " ".join(text.split("\n\n")[0].split())
    return re.split(r"(?<!et al)(?<!\bfig)(?<!\beq)\. ", paragraph)[0].rstrip(".")


def _is_path(name: str | Path) -> bool:
    return isinstance(name, Path) or name.endswith(".py") or "/" in name


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not UTF-8 text"
        found = f"{path.name} that cannot be read ({reason})"
        raise ValueError(refusal("catalog", found, "a Python file", "Check the path.")) from None


def _run_file(path: Path) -> ModuleType:
    """Run a user's file as a module of its own; the same text is run once."""
    source = _read(path)
    digest = hashlib.sha256(f"{path.resolve()}\0{source}".encode()).hexdigest()[:12]
    name = f"pcsim_file_{path.stem}_{digest}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        found = f"a file called {path.name}"
        raise ValueError(refusal("catalog", found, "a Python file ending in .py", "Rename it."))
    module = importlib.util.module_from_spec(spec)
    # Dataclasses look their module up by name while it is being run.
    sys.modules[name] = module
    try:
        # Not spec.loader.exec_module: its byte code is told apart by size and whole seconds only,
        # so a file that is changed at once would run as it was.
        exec(compile(source, path, "exec", dont_inherit=True), vars(module))
    except Exception as error:
        del sys.modules[name]
        found = f"{path.name} that does not run ({type(error).__name__}: {error})"
        expected = "a file that can be imported"
        raise ValueError(refusal("catalog", found, expected, "Mend that first.")) from error
    return module
