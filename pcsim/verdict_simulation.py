"""The verdicts of many simulated data sets at once: the judge's own steps, on stacked arrays.

`judge_many` gives for every data set the verdict that `pcsim.hypothesis.judge` gives for it alone,
number for number (`tests/test_verdict_calibration.py`): the same draws, because the judge's
resampling depends on seed and sizes only, the same interval and the same `decide`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pcsim.hypothesis_claim import Hypothesis
from pcsim.hypothesis_parts import Combine
from pcsim.stats import interval
from pcsim.stats_bootstrap import resampling_weights
from pcsim.verdict import ControlResult, Effect, Outcome, RequirementResult, decide
from pcsim.verdict_effects import wider_interval

__all__ = ["Judged", "Stack", "first_rule", "judge_many", "resample_many"]

Floats = NDArray[np.float64]
Stack = Mapping[str, Floats]
"""Variable -> (data set, replica, unit); one data set of size 1 serves for all."""
Rule = Callable[[Floats, Floats, float, Sequence[Floats]], tuple[Floats, Floats, Floats]]

BCA_FROM = 10


@dataclass(frozen=True)
class Judged:
    """Verdicts and p of many data sets under one hypothesis."""

    outcomes: tuple[Outcome, ...]
    """Before any correction for several hypotheses."""
    p: Floats
    """(data set,), two-sided, of the effect and all requirements: the largest."""


@dataclass(frozen=True)
class _Many:
    """Bootstraps of many data sets: `pcsim.stats.Bootstrap` with an axis more."""

    draws: Floats
    """(data set, draws)"""
    replicas: Floats
    """(data set, replica)"""
    shared: list[Floats] = field(default_factory=list)
    """(data set, unit) if replicas share them: jackknife pseudo-values."""

    def __sub__(self, other: _Many) -> _Many:
        return _Many(
            self.draws - other.draws,
            self.replicas - other.replicas,
            [a - b for a, b in zip(self.shared, other.shared, strict=True)],
        )

    def effects(self, rule: Rule, null: float, n: int) -> list[Effect]:
        """Return an effect for each of `n` data sets."""
        low, high, p = rule(self.draws, self.replicas, null, self.shared)
        rows = np.broadcast_arrays(self.replicas.mean(axis=1), low, high, p, np.empty(n))[:4]
        return [Effect(*row) for row in zip(*(row.tolist() for row in rows), strict=True)]


def judge_many(
    hypothesis: Hypothesis,
    ours: Stack,
    theirs: Mapping[str, Stack],
    *,
    draws: int = 10_000,
    rules: Mapping[str, Rule] = MappingProxyType({"wider": wider_interval}),
) -> dict[str, Judged]:
    """Judge many data sets; every replica has included units, all of the same number.

    Parameters
    ----------
    hypothesis
        What is claimed. If its replicas share units, so do model and controls here.
    ours, theirs
        Evidence of the model, and of every control by name.
    draws
        Bootstrap draws.
    rules
        Name -> function from draws, values of the replicas, null and pseudo-values of shared units
        to low, high and p.

    Returns
    -------
    judged
        For each rule.
    """
    h = hypothesis
    n = max(a.shape[0] for stack in (ours, *theirs.values()) for a in stack.values())
    units = max(a.shape[2] for stack in (ours, *theirs.values()) for a in stack.values())
    resample = partial(resample_many, draws=draws, shared=units if "unit" in h.shared else 0)
    model = resample(ours, h.combine)
    rivals = {
        one.name: resample(theirs[one.name], h.combine) for one in h.controls if one.for_effect
    }
    further = []
    for one in h.requirements:
        found = resample(ours, one.combine)
        if one.against is not None:
            found = found - resample(theirs[one.against], one.combine)
        further.append(found)
    return {name: _judged(h, model, rivals, further, rule, n) for name, rule in rules.items()}


def _judged(
    h: Hypothesis,
    model: _Many,
    rivals: Mapping[str, _Many],
    further: Sequence[_Many],
    rule: Rule,
    n: int,
) -> Judged:
    effects = model.effects(rule, h.null, n)
    rows = {
        name: (rival.effects(rule, h.null, n), (model - rival).effects(rule, 0.0, n))
        for name, rival in rivals.items()
    }
    falsifiers = [
        (one, found.effects(rule, one.null, n))
        for one, found in zip(h.requirements, further, strict=True)
    ]
    outcomes = [
        decide(
            effects[k],
            [ControlResult(name, own[k], beyond[k]) for name, (own, beyond) in rows.items()],
            [RequirementResult(r.name, e[k], r.null, r.direction) for r, e in falsifiers],
            null=h.null,
            direction=h.direction,
            rope=h.rope,
            reference=(h.reference.interval, h.reference.status),
        )[0]
        for k in range(n)
    ]
    p = [[e.p for e in row] for row in (effects, *(e for _, e in falsifiers))]
    return Judged(tuple(outcomes), np.array(p, dtype=np.float64).max(axis=0))


def resample_many(
    stack: Stack, combine: Combine, draws: int, seed: int = 0, shared: int = 0
) -> _Many:
    """Return what `hierarchical_bootstrap` draws for each data set, for all in one product.

    `shared` is the number of units if the replicas share them, else 0. A stack of one unit stands
    for as many that are alike.
    """
    sets, n, units = next(iter(stack.values())).shape
    if shared > units == 1:
        units = shared
        stack = {name: np.broadcast_to(a, (sets, n, units)) for name, a in stack.items()}
    drawn = np.random.default_rng([seed, 0]).integers(0, n, (draws, n))
    common = resampling_weights(np.random.default_rng([seed, 3]), draws, units) if shared else None
    values = np.empty((draws * n, sets))
    for index in range(n):
        slots = np.flatnonzero(drawn == index)
        if common is None:
            rng = np.random.default_rng([seed, 1, index])
            weights = resampling_weights(rng, slots.size, units)
        else:
            weights = common[slots // n]
        values[slots] = _combined(
            combine, {name: weights @ a[:, index].T / units for name, a in stack.items()}
        )
    replicas = _combined(combine, {name: a.mean(axis=2) for name, a in stack.items()})
    pseudo = [_pseudo_values(stack, combine, replicas, units)] if shared else []
    return _Many(values.reshape(draws, n, sets).mean(axis=1).T, replicas, pseudo)


def _pseudo_values(stack: Stack, combine: Combine, replicas: Floats, units: int) -> Floats:
    """Return (data set, unit): `pcsim.stats_bootstrap.pseudo_values` of each data set."""
    if units < 2:
        alone: Floats = replicas.mean(axis=1, keepdims=True)
        return alone
    left_out = {name: (a.sum(axis=2, keepdims=True) - a) / (units - 1) for name, a in stack.items()}
    without = _combined(combine, left_out).mean(axis=1)
    found: Floats = units * replicas.mean(axis=1, keepdims=True) - (units - 1) * without
    return found


def _combined(combine: Combine, means: Mapping[str, Floats]) -> Floats:
    """Call `combine` on flat arrays, as the judge does."""
    shape = next(iter(means.values())).shape
    with np.errstate(all="ignore"):
        flat: Any = combine({name: a.ravel() for name, a in means.items()})
    return np.asarray(flat, dtype=np.float64).reshape(shape)


def first_rule(
    draws: Floats, replicas: Floats, null: float, shared: Sequence[Floats] = ()
) -> tuple[Floats, Floats, Floats]:
    """Return the interval and p of rule 1: percentile, and BCa from ten replicas on."""
    low, high = np.quantile(draws, (0.025, 0.975), axis=1)
    n, estimates = replicas.shape[1], replicas.mean(axis=1)
    for k in range(len(draws)) if n >= BCA_FROM else ():
        if draws[k].min() < estimates[k] < draws[k].max():
            left_out = (replicas[k].sum() - replicas[k]) / (n - 1)
            ends = interval(draws[k], float(estimates[k]), method="bca", jackknife=left_out)
            low[k], high[k] = ends
    fewer = np.minimum((draws <= null).sum(axis=1), (draws >= null).sum(axis=1))
    return low, high, np.minimum(1.0, 2.0 * (1.0 + fewer) / (draws.shape[1] + 1))
