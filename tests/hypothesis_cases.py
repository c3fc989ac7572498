"""A toy model, what is observed of it, and a claim about it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import xarray as xr

from pcsim.hypothesis import Control, Hypothesis, Reference

__all__ = ["Toy", "hypothesis", "observe", "zero"]


@dataclass(frozen=True)
class Toy:
    """A model whose units show an effect of `size` plus noise of their own."""

    size: float = 0.5
    noise: float = 0.1
    signal: bool = True
    field_shape = None
    px_per_deg = None

    def run(self, stimulus, *, seed=0, record=None):
        raise NotImplementedError


def observe(model: Toy, *, seed: int, scale: str) -> xr.Dataset:
    rng = np.random.default_rng([seed, int(1000 * abs(model.size))])
    n = {"quick": 12, "full": 24}[scale]
    values = model.size + model.noise * rng.standard_normal(n)
    included = np.arange(n) % 4 != 3
    values[~included] = np.nan
    return xr.Dataset({"effect": ("unit", values), "included": ("unit", included)})


def hypothesis(**changes) -> Hypothesis:
    values = {
        "id": "T01",
        "name": "A toy effect",
        "claim": "There is an effect.",
        "family": "toy",
        "protocol": "None.",
        "statistic": "Mean.",
        "units": "1",
        "signal": "output",
        "falsified_if": "No effect.",
        "observe": observe,
        "variables": ("effect",),
        "controls": (Control(name="none", statement="No effect.", variant="ZERO"),),
        "reference": Reference(interval=(0.3, 0.7), status="read", source="A paper"),
        "missing": lambda model: "" if model.signal else "it is silent",
    }
    return Hypothesis(**{**values, **changes})


def zero(label: str, seed: int) -> Toy:
    return Toy(size=0.0)
