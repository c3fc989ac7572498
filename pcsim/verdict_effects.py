"""Effects with intervals from the evidence of replicas: model, controls, paired differences."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from scipy.special import stdtr, stdtrit

from pcsim.messages import refusal
from pcsim.stats import Bootstrap, Sample, hierarchical_bootstrap
from pcsim.stats_student import standard_errors
from pcsim.verdict import Effect

__all__ = ["Estimator", "check_shared", "samples", "wider_interval"]

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


def check_shared(
    where: str, shared: Sequence[str], evidence: Mapping[str, Sequence[xr.Dataset]]
) -> None:
    """Refuse evidence whose replicas do not have the same members of a shared dimension.

    Parameters
    ----------
    where
        What is judged, for the message.
    shared
        Out of "unit" and "stimulus".
    evidence
        Name -> replicas, of the model and of its controls. A replica without an included unit is
        passed over, as it is by the verdict.

    Raises
    ------
    ValueError
        If number, coordinates or, of units, inclusion differ.
    """
    first: tuple[str, dict[str, Any]] | None = None
    for name, replicas in evidence.items():
        for number, one in enumerate(replicas):
            if not shared or not one["included"].values.any():
                continue
            here = f"replica {number} of {name}", _members(one, shared)
            first = first or here
            for key in {**first[1], **here[1]}:
                before: Any = first[1].get(key)
                if not np.array_equal(before, here[1].get(key, ())):
                    found = f"{key} of {here[0]} other than of {first[0]}"
                    advice = "Leave a member out of all of them or of none, in one order."
                    expected = f"the same for model and controls, which share {', '.join(shared)}"
                    raise ValueError(refusal(where, found, expected, advice))


def _members(evidence: xr.Dataset, shared: Sequence[str]) -> dict[str, Any]:
    """Return what says which members there are: number, coordinates, inclusion of units."""
    found: dict[str, Any] = {}
    for dim in shared:
        if dim in evidence.sizes:
            found[f"number of '{dim}'"] = evidence.sizes[dim]
            found |= {str(k): c.values for k, c in evidence.coords.items() if c.dims == (dim,)}
    if "unit" in shared:
        found["`included`"] = evidence["included"].values
    return found


@dataclass(frozen=True)
class Estimator:
    """Bootstraps statistics so that model and control share their resampling of replicas."""

    draws: int = 10_000
    seed: int = 0
    shared: tuple[str, ...] = ()
    """Dimensions whose members are the same in every replica; model and control share them too."""

    def bootstrap(
        self, replicas: Sequence[Sample | None], combine: Callable[[Mapping[str, Any]], Any]
    ) -> Bootstrap:
        """Resample the replicas that have included units."""
        whole = [one for one in replicas if one is not None]
        return hierarchical_bootstrap(
            whole, combine, draws=self.draws, seed=self.seed, shared=self.shared
        )

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
        low, high, p = wider_interval(result.draws, result.replicas, null, result.shared)
        return Effect(result.estimate, float(low), float(high), float(p))


def wider_interval(
    draws: Floats, replicas: Floats, null: float = 0.0, shared: Sequence[Floats] = ()
) -> tuple[Floats, Floats, Floats]:
    r"""Return the 95 % interval that is the widest, end by end, of several, and the largest p.

    The first is the percentile interval of the hierarchical bootstrap: it knows how units and
    stimuli scatter, but over :math:`R` replicas it is too narrow, by :math:`\sqrt{(R-1)/R}` and
    by the normal quantile in place of Student's (at R = 3 by 2.7 together). The second,
    :math:`\bar v \pm t_{R-1}\, s/\sqrt R`, takes the value of each replica as one
    observation: exact for normal values whatever lies within the replicas, but it
    shrinks to nothing where a few replicas happen to agree. The wider of both is never narrower
    than either, so the level is that of Student's interval or below: 5 % for normal values of the
    replicas, more if these are strongly skewed (docs/statistics.md).

    Where replicas share units or stimuli, Student's over replicas lacks what these add, and holds
    nothing. Two more are taken: Student's over the shared members, and that of both together
    (`standard_errors`).

    Parameters
    ----------
    draws : (..., draws)
        Bootstrap draws of the statistic.
    replicas : (..., n_replicas)
        Its value in each replica. One alone has no Student's interval: the bootstrap's stands.
    null
        The value that p is about.
    shared : each (..., n_members)
        Pseudo-values of the members of each shared dimension.

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
    mean = replicas.mean(axis=-1)
    for error, freedom in standard_errors([replicas, *shared]):
        half = stdtrit(freedom, TAILS[1]) * error
        low, high = np.minimum(low, mean - half), np.maximum(high, mean + half)
        with np.errstate(divide="ignore", invalid="ignore"):
            t = np.where(mean == null, 0.0, -np.abs(mean - null) / error)
        p = np.maximum(p, 2.0 * stdtr(freedom, t))
    return low, high, p
