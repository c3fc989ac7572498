"""The laws that every model, hypothesis and experiment obeys, and what to do where one is broken.

A model is shown a small random stimulus. A hypothesis is shown a model that answers with noise: it
must judge that model lawfully, the same way twice, and must not find in it what it looks for.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import Any

from pcsim import catalog
from pcsim.contract_hypothesis import hypothesis_laws
from pcsim.contract_model import model_laws, probe
from pcsim.messages import refusal

__all__ = ["check_experiment", "check_file", "check_hypothesis", "check_model", "probe"]


def check_file(path: str | os.PathLike[str]) -> list[str]:
    """Return the broken laws of a circuit's, hypothesis's or experiment's file; empty if none.

    Parameters
    ----------
    path
        A Python file that holds `MODEL`, `HYPOTHESIS` or `EXPERIMENT`.

    Raises
    ------
    ValueError
        If the file does not run or holds none of the three.
    """
    room, content = catalog.load_file(os.fspath(path))
    checks: dict[str, Callable[[Any], list[str]]] = {
        "circuits": check_model,
        "analysis": check_hypothesis,
        "experiments": check_experiment,
    }
    return checks[room](content)


def check_model(model: Any) -> list[str]:
    """Return the laws of models that `model` breaks, each with what to do; empty if none.

    Examples
    --------
    >>> check_model(3)
    ['model: found a int, expected run, field_shape and px_per_deg. See pcsim.model.Model.']
    """
    return list(_guarded("model", model_laws(model)))


def check_hypothesis(hypothesis: Any) -> list[str]:
    """Return the laws of hypotheses that `hypothesis` breaks; empty if none."""
    return list(_guarded("hypothesis", hypothesis_laws(hypothesis)))


def check_experiment(experiment: Any) -> list[str]:
    """Return the laws of experiments that `experiment` breaks; empty if none."""
    return list(_guarded("experiment", _experiment_laws(experiment)))


def _guarded(what: str, laws: Iterator[str]) -> Iterator[str]:
    """Pass broken laws on; an exception ends them and is itself a broken law."""
    try:
        yield from laws
    except Exception as error:
        found = f"{type(error).__name__} ({error})"
        expected = "the checks to run to their end"
        yield refusal(what, found, expected, "Mend this first; the laws after it were not checked.")


def _experiment_laws(experiment: Any) -> Iterator[str]:
    for name in ("name", "question"):
        if not str(getattr(experiment, name, "")).strip():
            yield refusal("experiment", f"an empty {name}", "a text", f"Fill in {name}.")
    for scale in ("quick", "full"):
        settings = getattr(experiment, "scales", {}).get(scale)
        if not settings or "seeds" not in settings:
            found = f"scale {scale!r} {'without seeds' if settings else 'missing'}"
            expected = "settings with seeds for quick and full"
            yield refusal("experiment", found, expected, "Add it to scales.")
            continue
        seeds = settings["seeds"]
        chosen = {
            **settings,
            "scale": scale,
            "seeds": tuple(range(seeds) if isinstance(seeds, int) else seeds),
        }
        keys = [piece.key for piece in experiment.pieces(chosen)]
        if not keys or len(set(keys)) < len(keys):
            found = f"{len(keys)} pieces with {len(set(keys))} keys at scale {scale!r}"
            yield refusal("experiment", found, "pieces with a key each", "Name every piece anew.")
