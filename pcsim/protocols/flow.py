"""Running and optic flow: who senses them, and what is read from halts and from open loop."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from pcsim.messages import refusal
from pcsim.model import Model, lesion
from pcsim.stimuli import optic_flow

__all__ = ["compartments", "flow_trials", "halt_response", "lacks_flow", "opposing_inputs"]

Floats = NDArray[np.float64]

EVERY = 0.05
"""Seconds between recorded times."""
SUPERFICIAL, DEEP = "error", "estimate"


def lacks_flow(model: Any) -> str:
    """Return why a model cannot be read by protocols of running and flow, "" if it can."""
    if getattr(model, "senses", "images") == "flow":
        return ""
    return "it senses neither running nor optic flow"


def flow_trials(model: Model, n: int, *, seed: int = 0, **stimulus: Any) -> xr.Dataset:
    """Run a model on trials of `pcsim.stimuli.optic_flow` and return its responses.

    Raises
    ------
    ValueError
        If the model senses something else.
    """
    reason = lacks_flow(model)
    features = getattr(model, "n_features", None)
    if reason or features is None:
        found = f"{type(model).__name__}: {reason or 'no n_features'}"
        raise ValueError(refusal("flow_trials", found, "a model of running and flow"))
    shown = optic_flow(n, n_locations=int(features) - 1, seed=seed, **stimulus)
    return lesion(model, record_dt=EVERY).run(shown, seed=seed)


def compartments(responses: xr.Dataset) -> NDArray[np.str_]:
    """Return "error", "estimate" or "" for every unit.

    Error units and outputs of L2/3 count as errors, latents and outputs of L5/6 as estimates: the
    assignment of layers that predictive coding makes (Bastos et al. 2012).
    """
    role = responses["population"].values.astype(str)
    layer = responses["layer"].values.astype(str) if "layer" in responses.coords else role
    is_output = role == "output"
    error = np.char.startswith(role, "error") | (is_output & (layer == "L2/3"))
    estimate = (role == "latent") | (is_output & (layer == "L5/6"))
    return np.where(error, SUPERFICIAL, np.where(estimate, DEEP, ""))


def halt_response(responses: xr.Dataset, *, halt: float = 1.0, before: float = 0.5) -> Floats:
    """Return each unit's mean rate while the flow is halted less that just before, (unit,)."""
    onset = float(responses["onset"].values[0])
    time = responses["time"].values
    rate = responses["rate"].transpose("trial", "time", "unit").to_numpy().mean(axis=0)
    during = (time > onset + 1e-9) & (time < onset + halt + 1e-9)
    earlier = (time > onset - before + 1e-9) & (time < onset + 1e-9)
    return np.asarray(rate[during].mean(axis=0) - rate[earlier].mean(axis=0))


def opposing_inputs(responses: xr.Dataset, shown: xr.DataArray) -> tuple[Floats, Floats]:
    """Correlate each unit's activity with running and with flow, over trials and times.

    Parameters
    ----------
    responses
        To `shown`.
    shown : (trial, time, feature)
        Running and flow that do not follow each other.

    Returns
    -------
    with_running, with_flow : (unit,)
        0 for a unit that never changes.
    """
    # A recorded time is the end of its interval: the frame that was shown lies just before it.
    frame = np.ceil(responses["time"].values / float(shown["frame_duration"]) - 1e-6) - 1
    values = shown.to_numpy()[:, frame.astype(int)]
    rate = responses["rate"].transpose("trial", "time", "unit").to_numpy()
    rate = rate.reshape(-1, rate.shape[-1])
    running, flow = values[..., 0].ravel(), values[..., 1:].mean(axis=-1).ravel()
    return _correlation(rate, running), _correlation(rate, flow)


def _correlation(rate: Floats, signal: Any) -> Floats:
    rate, signal = rate - rate.mean(axis=0), signal - signal.mean()
    size = np.sqrt((rate**2).sum(axis=0) * (signal**2).sum())
    alive = size > 0
    return np.asarray(np.where(alive, signal @ rate / np.where(alive, size, 1.0), 0.0))
