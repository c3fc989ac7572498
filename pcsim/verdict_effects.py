"""Effects with intervals from the evidence of replicas: model, controls, paired differences."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from scipy.special import stdtr, stdtrit

from pcsim.stats import Bootstrap, Sample, hierarchical_bootstrap
from pcsim.verdict import Effect

__all__ = ["Estimator", "samples", "wider_interval"]

Floats = NDArray[np.float64]
TAILS = (0.025, 0.975)


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
        """Return estimate, 95 % interval and p: `wider_interval`."""
        low, high, p = wider_interval(result.draws, result.replicas, null)
        return Effect(result.estimate, float(low), float(high), float(p))


def wider_interval(
    draws: Floats, replicas: Floats, null: float = 0.0
) -> tuple[Floats, Floats, Floats]:
    r"""Return the 95 % interval that is the wider, end by end, of two, and the larger p.

    The first is the percentile interval of the hierarchical bootstrap: it knows how units and
    stimuli scatter, but over :math:`R` replicas it is too narrow, by :math:`\sqrt{(R-1)/R}` and
    by the normal quantile in place of Student's (at R = 3 by 2.7 together). The second,
    :math:`\bar v \pm t_{R-1}\, s/\sqrt R`, takes the value of each replica as one
    observation: exact for normal values whatever lies within the replicas, but it
    shrinks to nothing where a few replicas happen to agree. The wider of both is never narrower
    than either, so the level is that of Student's interval or below.

    Parameters
    ----------
    draws : (..., draws)
        Bootstrap draws of the statistic.
    replicas : (..., n_replicas)
        Its value in each replica. One alone has no Student's interval: the bootstrap's stands.
    null
        The value that p is about.

    Returns
    -------
    low, high, p : (...)
        p is two-sided, and below 0.05 only if the interval leaves `null` out.

    Examples
    --------
    >>> low, high, p = wider_interval(np.linspace(1.5, 2.5, 1001), np.array([1.0, 2.0, 3.0]))
    >>> round(float(low), 3), round(float(high), 3), round(float(p), 4)
    (-0.484, 4.484, 0.0742)
    """
    low, high = np.quantile(draws, TAILS, axis=-1)
    fewer = np.minimum((draws <= null).sum(axis=-1), (draws >= null).sum(axis=-1))
    p = np.minimum(1.0, 2.0 * (1.0 + fewer) / (draws.shape[-1] + 1))
    n = replicas.shape[-1]
    if n > 1:
        mean, error = replicas.mean(axis=-1), replicas.std(axis=-1, ddof=1) / n**0.5
        half = stdtrit(n - 1, TAILS[1]) * error
        low, high = np.minimum(low, mean - half), np.maximum(high, mean + half)
        with np.errstate(divide="ignore", invalid="ignore"):
            t = np.where(mean == null, 0.0, -np.abs(mean - null) / error)
        p = np.maximum(p, 2.0 * stdtr(n - 1, t))
    return low, high, p
