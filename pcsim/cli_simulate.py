"""``pcsim simulate``: a circuit, a stimulus that fits its field, responses in a file."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from pcsim import roster, stimuli
from pcsim.cli_figure import SUFFIXES, draw, potentials
from pcsim.cli_settings import check_kind
from pcsim.messages import check_integer, refusal, unknown_name
from pcsim.model import lesion
from pcsim.responses import save

__all__ = ["simulate", "stimulus_functions"]

DEFAULTS: Mapping[str, Mapping[str, Any]] = {
    "bars": {"length": 1.0},
    "gratings": {"spatial_frequency": 2.0},
    "natural_patches": {"n": 10},
    "natural_sequences": {"n": 2, "n_frames": 100},
    "dead_leaves": {"n": 10},
    "m_sequence": {"order": 9},
    "video_sequences": {"n": 2, "n_frames": 100},
}
"""Stimulus -> values for what it asks of everyone."""


def stimulus_functions() -> dict[str, Callable[..., Any]]:
    """Return the functions of `pcsim.stimuli` that make a stimulus, by name."""
    found = {name: getattr(stimuli, name) for name in stimuli.__all__}
    return {
        name: function
        for name, function in found.items()
        if inspect.isfunction(function)
        and inspect.signature(function).return_annotation == "xr.DataArray"
    }


def simulate(
    circuit: str,
    stimulus: str,
    out: Path,
    *,
    settings: Mapping[str, Any],
    seed: int,
    trained: bool = False,
    figure: Path | None = None,
    repeats: int = 1,
) -> str:
    """Run, save and draw; return a line about what was saved."""
    known = stimulus_functions()
    if stimulus not in known:
        raise unknown_name("simulate", "stimulus", stimulus, known)
    if out.suffix not in (".nc", ".zarr"):
        raise ValueError(refusal("simulate", f"file {out}", "a name ending in .nc or .zarr"))
    if figure is not None and figure.suffix not in SUFFIXES:
        found = f"figure {figure}"
        raise ValueError(refusal("simulate", found, f"a name ending in {', '.join(SUFFIXES)}"))
    model = _model(circuit)
    shown, changed = _shared_out(model, known[stimulus], settings)
    if changed:
        model = dataclasses.replace(model, **changed)
    if trained:
        model = _trained(circuit, changed, seed)
    made = _repeated(_stimulus(stimulus, known[stimulus], model, shown, seed), repeats)
    responses = potentials(model, model.run(made, seed=seed), made)
    save(responses, out)
    sizes = ", ".join(f"{responses.sizes[dim]} {dim}s" for dim in ("trial", "time", "unit"))
    if figure is not None:
        draw(responses, figure)
        sizes += f"; {figure}"
    return f"{out}: {sizes}"


def _repeated(stimulus: Any, repeats: int) -> Any:
    """Show all trials several times over; `repeat` on `trial` counts."""
    check_integer("simulate", "repeats", repeats, low=1)
    if repeats == 1:
        return stimulus
    n = stimulus.sizes["trial"]
    shown = stimulus.isel(trial=np.tile(np.arange(n), repeats))
    number = ("trial", np.repeat(np.arange(repeats), n))
    return shown.assign_coords(trial=np.arange(n * repeats), repeat=number)


def _trained(circuit: str, changed: Mapping[str, Any], seed: int) -> Any:
    if (Path(circuit) / "model.json").is_file():
        found = f"--train of {circuit}, a model that is saved"
        raise ValueError(refusal("simulate", found, "a name, label or file", "Leave --train out."))
    variant = roster.variant(circuit)
    kept = {name: value for name, value in variant.lesion.items() if name not in changed}
    settings = {**variant.settings, **changed}
    return roster.train(dataclasses.replace(variant, settings=settings, lesion=kept), seed=seed)


def _model(circuit: str) -> Any:
    if (Path(circuit) / "model.json").is_file():
        return roster.load_model(circuit)
    variant = roster.variant(circuit)
    return lesion(roster.untrained(variant), **variant.lesion)


def _shared_out(
    model: Any, function: Callable[..., Any], settings: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Say which settings are the stimulus's and which the circuit's."""
    parameters = inspect.signature(function).parameters
    of_stimulus = set(parameters) - {"field_shape", "px_per_deg"}
    is_data = dataclasses.is_dataclass(model)
    of_circuit = {f.name: f for f in dataclasses.fields(model) if f.init} if is_data else {}
    shown: dict[str, Any] = {}
    changed: dict[str, Any] = {}
    for full, value in settings.items():
        room, dot, name = full.rpartition(".")
        if dot and room not in ("circuit", "stimulus"):
            raise unknown_name("--set", "prefix", room, ("circuit", "stimulus"))
        if name in of_stimulus and name in of_circuit and not dot:
            found = f"{name}, which circuit and stimulus both have"
            expected = f"circuit.{name} or stimulus.{name}"
            raise ValueError(refusal("--set", found, expected))
        if name in of_stimulus and room != "circuit":
            check_kind(full, value, parameters[name].default)
            shown[name] = value
        elif name in of_circuit and room != "stimulus":
            old = getattr(model, name)
            check_kind(full, value, old)
            changed[name] = np.asarray(value, float) if isinstance(old, np.ndarray) else value
        else:
            raise unknown_name("--set", "parameter", full, {*of_stimulus, *of_circuit})
    return shown, changed


def _stimulus(
    name: str, function: Callable[..., Any], model: Any, shown: Mapping[str, Any], seed: int
) -> Any:
    parameters = inspect.signature(function).parameters
    values: dict[str, Any] = {**DEFAULTS.get(name, {}), **shown}
    if "seed" in parameters:
        values.setdefault("seed", seed)
    if "field_shape" in parameters:
        if model.field_shape is None:
            found = f"{type(model).__name__}, which sees features, with the images of {name}"
            raise ValueError(refusal("simulate", found, "a circuit that sees images"))
        values["field_shape"] = model.field_shape
        if model.px_per_deg is not None:
            values["px_per_deg"] = model.px_per_deg
    missing = [p.name for p in parameters.values() if p.default is p.empty and p.name not in values]
    if missing:
        found, advice = f"{name} without {', '.join(missing)}", f"Add --set {missing[0]}=..."
        raise ValueError(refusal("simulate", found, "all that it needs", advice))
    return function(**values)
