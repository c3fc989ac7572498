"""The laws of models: what `run` may and may not do."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from typing import Any

import numpy as np
import xarray as xr

from pcsim.messages import refusal
from pcsim.model import Learner, Model
from pcsim.responses import check_responses
from pcsim.stimulus import stimulus_array

__all__ = ["model_laws", "probe"]

TOLERANCE = 1e-9
"""Relative; sums over a batch of another size may be rounded in another order."""


def probe(model: Any, *, n_trials: int = 3, n_frames: int = 2, seed: int = 0) -> xr.DataArray:
    """Return a small random stimulus that fits the model's field or its number of features.

    Raises
    ------
    ValueError
        If the model has no field and does not say how many features it takes.
    """
    rng = np.random.default_rng(seed)
    shape = (n_trials, n_frames, *(model.field_shape or (_n_features(model),)))
    values = np.clip(rng.normal(0.5, 0.15, shape), 0.0, 1.0)
    return stimulus_array(
        values,
        frame_duration=0.02,
        px_per_deg=model.px_per_deg if model.field_shape else None,
        condition=[f"probe {i}" for i in range(n_trials)],
        number=np.arange(n_trials) / 7.0,
    )


def _n_features(model: Any) -> int:
    declared = getattr(model, "n_features", None)
    if declared is not None:
        return int(declared)
    sizes = {p.name: p.size for p in getattr(model, "populations", ())}
    for projection in getattr(model, "projections", ()):
        if projection.source == "stimulus":
            weights = projection.weights
            return int(sizes[projection.target] if weights is None else np.shape(weights)[-1])
    advice = "Give the model a property n_features."
    found = "a model without a field and without projections from the stimulus"
    raise ValueError(refusal("probe", found, "its number of features", advice))


def model_laws(model: Any) -> Iterator[str]:
    """Yield every law that a model breaks."""
    if not isinstance(model, Model):
        found, expected = f"a {type(model).__name__}", "run, field_shape and px_per_deg"
        yield refusal("model", found, expected, "See pcsim.model.Model.")
        return
    stimulus = probe(model)
    stimulus_before, model_before = stimulus.copy(deep=True), _pickled(model)
    if model_before is None:
        advice = "Keep lambdas and open files out of its fields: workers receive it by pickle."
        yield refusal("model", "no way to pickle it", "a model that can be pickled", advice)
    responses = model.run(stimulus, seed=1)
    yield from _schema_laws(stimulus, responses)
    if not stimulus.identical(stimulus_before):
        advice = "Copy before changing."
        yield refusal("input untouched", "a changed stimulus", "the stimulus as it was", advice)
    if model_before is not None and _pickled(model) != model_before:
        advice = "Keep state inside run, not on the model."
        yield refusal("model untouched", "a model changed by run", "the model as it was", advice)
    yield from _repeat_laws(model, stimulus, responses)
    yield from _trial_laws(model, stimulus, responses)
    yield from _refusal_laws(model, stimulus)
    if isinstance(model, Learner):
        yield from _learner_laws(model)


def _pickled(value: Any) -> bytes | None:
    try:
        return pickle.dumps(value)
    except Exception:
        return None


def _schema_laws(stimulus: xr.DataArray, responses: Any) -> Iterator[str]:
    try:
        check_responses(responses, "schema")
    except (TypeError, ValueError) as error:
        yield str(error)
        return
    for name, coord in stimulus.coords.items():
        if coord.dims != ("trial",):
            continue
        if name not in responses.coords or not coord.variable.equals(responses[name].variable):
            found = f"responses without the stimulus's own {name!r} on trial"
            advice = "Hand the stimulus to make_responses(trial=...)."
            yield refusal("labels", found, "every label of a trial passed on", advice)


def _repeat_laws(model: Model, stimulus: xr.DataArray, first: xr.Dataset) -> Iterator[str]:
    again = model.run(stimulus, seed=1)
    if not again.identical(first):
        advice = "Draw from np.random.default_rng(seed) alone."
        yield refusal("same seed", "another answer", "the same answer, bit by bit", advice)
    other = model.run(stimulus, seed=2)
    for name, coord in first.coords.items():
        if coord.dims == ("unit",) and not coord.variable.equals(other[name].variable):
            advice = "The labels and the order of units belong to the model, not to a run."
            yield refusal("unit order", f"{name} that changes with the seed", "one order", advice)


def _trial_laws(model: Model, stimulus: xr.DataArray, whole: xr.Dataset) -> Iterator[str]:
    rate = whole["rate"].values
    scale = TOLERANCE * max(float(np.abs(rate).max()), 1.0)
    for what, order in (("permuted", [2, 0, 1]), ("dropped", [1])):
        part = model.run(stimulus.isel(trial=order), seed=1)
        difference = float(np.abs(part["rate"].values - rate[order]).max())
        if difference > scale:
            found = f"rates that move by {difference:.3g} when trials are {what}"
            advice = "Take no mean over trials in run, and seed noise by trial number."
            yield refusal("trials independent", found, "the same rows", advice)


def _refusal_laws(model: Model, stimulus: xr.DataArray) -> Iterator[str]:
    broken = stimulus.copy(deep=True)
    broken.values[0, 0].flat[0] = np.nan
    for what, bad in (("NaN", broken), ("no time", stimulus.isel(time=0, drop=True))):
        advice = "Call check_stimulus(stimulus) at the top of run or prepare."
        expected = "ValueError or TypeError"
        try:
            model.run(bad, seed=1)
        except (TypeError, ValueError):
            continue
        except Exception as error:
            found = f"{type(error).__name__} on a stimulus with {what}"
            yield refusal("bad input refused", found, expected, advice)
        else:
            found = f"an answer to a stimulus with {what}"
            yield refusal("bad input refused", found, expected, advice)


def _learner_laws(model: Any) -> Iterator[str]:
    for name in ("curriculum", "n_training", "untrained"):
        if getattr(model, name, None) is None:
            advice = "See pcsim.model.Learner, or drop fit if it does not learn."
            yield refusal("learner", f"no {name}", f"{name} on a model with fit", advice)
            return
    before = _pickled(model)
    first, again = (_pickled(model.untrained(seed=3)) for _ in range(2))
    if first != again:
        advice = "Draw initial parameters from np.random.default_rng(seed)."
        yield refusal("untrained", "another start for the same seed", "the same start", advice)
    if _pickled(model) != before:
        advice = "Return dataclasses.replace(self, ...) instead."
        yield refusal("untrained", "the model itself changed", "a new model", advice)
    if not isinstance(model.untrained(seed=3), Model):
        yield refusal("untrained", "no model", "a model", "Return dataclasses.replace(self, ...).")
