"""Halts of the flow, replays in open loop and onsets at rest: what H26 and H38 read from them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from pcsim.model import Model
from pcsim.protocols.flow import compartments, flow_trials, halt_response, opposing_inputs
from pcsim.stimuli import optic_flow

__all__ = [
    "MOMENTS",
    "N_HALTS",
    "N_REPLAYS",
    "PARTS",
    "mismatch_correlation",
    "mismatch_evidence",
    "replica_correlations",
]

N_HALTS = {"quick": 24, "full": 96}
N_REPLAYS = {"quick": 12, "full": 48}
REPLAY: Mapping[str, Any] = {"condition": "replay", "duration": 10.0}
PARTS = ("error", "estimate")
SUMS = ("n", "mm", "d", "mm2", "d2", "mmd")
"""Of each part: units, mismatch response, c_m - c_v, their squares and their product."""
MOMENTS = tuple(f"{part}_{name}" for part in PARTS for name in SUMS)


def mismatch_evidence(model: Model, *, seed: int, scale: str) -> tuple[xr.Dataset, xr.Dataset]:
    """Halt the flow during running, replay it in open loop, and start it at rest."""
    halts = flow_trials(model, N_HALTS[scale], condition="mismatch", seed=seed)
    replay = flow_trials(model, N_REPLAYS[scale], **REPLAY, seed=seed)
    onsets = flow_trials(model, N_HALTS[scale] // 2, condition="flow_onset", seed=seed)
    shown = optic_flow(
        N_REPLAYS[scale], n_locations=int(getattr(model, "n_features", 1)) - 1, **REPLAY, seed=seed
    )
    with_running, with_flow = opposing_inputs(replay, shown)
    mismatch, difference = halt_response(halts), with_running - with_flow
    part = compartments(halts)
    spread = replay["rate"].std(("trial", "time")).values
    read = (part != "") & (spread > 0.05 * np.percentile(spread[part != ""], 95))
    scaled = mismatch / max(float(np.sqrt((mismatch[read] ** 2).mean())), 1e-12)
    # Moments about the middle of each part keep the sums of the correlation well conditioned.
    evidence = {
        "mismatch": ("unit", mismatch), "scaled": ("unit", scaled),
        "with_running": ("unit", with_running), "with_flow": ("unit", with_flow),
        "flow_onset": ("unit", halt_response(onsets)),
        "part": ("unit", part), "included": ("unit", read),
    }  # fmt: skip
    for name in PARTS:
        own = (part == name) & read
        mm = np.where(own, scaled - scaled[own].mean(), 0.0) if own.any() else 0.0 * scaled
        d = np.where(own, difference - difference[own].mean(), 0.0) if own.any() else 0.0 * scaled
        moments = (own.astype(float), mm, d, mm**2, d**2, mm * d)
        evidence |= {f"{name}_{s}": ("unit", v) for s, v in zip(SUMS, moments, strict=True)}
    evidence["error_raw"] = ("unit", np.where((part == "error") & read, mismatch, 0.0))
    return xr.Dataset(evidence), halts


def mismatch_correlation(means: Mapping[str, NDArray[np.float64]], part: str) -> Any:
    """Return R_MM of a part: the correlation over its units of mismatch and c_m - c_v."""
    n, mm, d, mm2, d2, mmd = (np.asarray(means[f"{part}_{name}"]) for name in SUMS)
    n = np.maximum(n, 1e-12)
    size = np.sqrt(np.maximum((mm2 / n - (mm / n) ** 2) * (d2 / n - (d / n) ** 2), 0.0))
    return np.where(size > 1e-12, (mmd / n - mm * d / n**2) / np.maximum(size, 1e-12), 0.0)


def replica_correlations(evidence: xr.Dataset) -> tuple[float, float]:
    """Return R_MM of both parts of one replica."""
    kept = evidence.isel(unit=np.flatnonzero(evidence["included"].values))
    means = {name: kept[name].values.mean(keepdims=True) for name in MOMENTS}
    first, second = (float(mismatch_correlation(means, part)[0]) for part in PARTS)
    return first, second
