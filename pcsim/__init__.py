"""Predictive coding as runnable rate circuits, tested against cortex.

``import pcsim`` loads nothing heavy: the names below and the submodules are imported when they are
first used, so neither torch, Brian 2 nor matplotlib is paid for by who does not need it.
"""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"

_HOME = {
    "check_responses": "responses",
    "check_stimulus": "responses",
    "concat": "responses",
    "make_responses": "responses",
    "open_responses": "responses",
    "save": "responses",
    "select": "responses",
    "stimulus_array": "responses",
    "describe": "catalog",
    "load": "catalog",
    "names": "catalog",
    "lesion": "model",
    "Learner": "model",
    "Model": "model",
    "Circuit": "circuit",
    "settle": "circuit",
    "simulate": "circuit",
    "Hypothesis": "hypothesis",
    "Verdict": "verdict",
    "Experiment": "experiment",
    "run_experiment": "experiment",
    "check_file": "contract",
}
"""Public name -> the module that defines it."""

__all__ = ["__version__", *_HOME]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(importlib.import_module(f"pcsim.{_HOME[name]}"), name)
    if not name.startswith("_"):
        try:
            return importlib.import_module(f"pcsim.{name}")
        except ModuleNotFoundError as error:
            if error.name != f"pcsim.{name}":
                raise
    raise AttributeError(f"module 'pcsim' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)


def _checkout_content() -> None:
    """In a source checkout the content folders lie beside this package, not inside it."""
    from pathlib import Path

    root = Path(__file__).resolve().parent.parent
    if (root / "pyproject.toml").is_file() and (root / "circuits" / "__init__.py").is_file():
        __path__.append(str(root))


_checkout_content()
