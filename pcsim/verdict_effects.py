"""Effects with intervals from the evidence of replicas: model, controls, paired differences."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from pcsim.stats import Bootstrap, Sample, bootstrap_p, hierarchical_bootstrap, interval
from pcsim.verdict import Effect

__all__ = ["Estimator", "samples"]

BCA_FROM = 10
"""Replicas from which on the interval is bias-corrected and accelerated."""


def samples(evidence: Sequence[xr.Dataset], variables: Sequence[str]) -> list[Sample | None]:
    """Return the included units of each replica; None where no unit is included."""
    return [_sample(one, variables) for one in evidence]


def _sample(evidence: xr.Dataset, variables: Sequence[str]) -> Sample | None:
    keep: NDArray[np.bool_] = evidence["included"].values
    if not keep.any():
        return None
    values = {name: evidence[name].values[keep].astype(np.float64) for name in variables}
    return Sample(values, n_total=keep.size)


@dataclass(frozen=True)
class Estimator:
    """Bootstraps statistics so that model and control share their resampling of replicas."""

    draws: int = 10_000
    seed: int = 0

    def bootstrap(
        self, replicas: Sequence[Sample | None], combine: Callable[[Mapping[str, Any]], Any]
    ) -> Bootstrap:
        """Resample the replicas that have included units."""
        whole = [one for one in replicas if one is not None]
        return hierarchical_bootstrap(whole, combine, draws=self.draws, seed=self.seed)

    def paired(
        self,
        model: Sequence[Sample | None],
        control: Sequence[Sample | None],
        combine: Callable[[Mapping[str, Any]], Any],
    ) -> tuple[Bootstrap, Bootstrap] | None:
        """Resample model and control over the replicas in which both have included units."""
        pairs = [(a, b) for a, b in zip(model, control, strict=True) if a and b]
        if not pairs:
            return None
        ours, theirs = zip(*pairs, strict=True)
        return self.bootstrap(ours, combine), self.bootstrap(theirs, combine)

    @staticmethod
    def effect(result: Bootstrap, null: float = 0.0) -> Effect:
        """Return estimate, 95 % interval and p; BCa from 10 replicas on."""
        draws, estimate = result.draws, result.estimate
        inside = bool(draws.min() < estimate < draws.max())
        if result.replicas.size >= BCA_FROM and inside:
            jackknife = result.jackknife
            low, high = interval(draws, estimate, method="bca", jackknife=jackknife)
        else:
            low, high = interval(draws, estimate)
        return Effect(estimate, low, high, bootstrap_p(draws, null))
