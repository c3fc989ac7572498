"""Judge the evidence of replicas: effects by bootstrap, then the rule of `pcsim.verdict`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import xarray as xr

from pcsim.hypothesis_claim import Hypothesis
from pcsim.hypothesis_parts import Control, Requirement
from pcsim.messages import refusal
from pcsim.stats import Bootstrap, Sample, cohen_dz, rank_biserial
from pcsim.verdict import (
    MIN_REPLICAS,
    ControlResult,
    Effect,
    Outcome,
    RequirementResult,
    Verdict,
    decide,
)
from pcsim.verdict_effects import Estimator, check_shared, samples

__all__ = ["judge", "not_applicable"]

MIN_SHARED = 2
"""Members of a dimension that all replicas share, below which nothing is concluded."""


def not_applicable(hypothesis: Hypothesis, label: str, reason: str) -> Verdict:
    """Return the verdict N/A, with its reason: the model lacks the signal or was not asked."""
    return Verdict(**_frame(hypothesis, label), verdict=Outcome.NA, reason=reason)


def _frame(hypothesis: Hypothesis, label: str) -> dict[str, Any]:
    """What a verdict repeats of its hypothesis."""
    low, high = hypothesis.reference.interval or (None, None)
    return {
        "hypothesis": hypothesis.id,
        "version": hypothesis.version,
        "family": hypothesis.family,
        "model": label,
        "units": hypothesis.units,
        "reference_low": low,
        "reference_high": high,
        "reference_status": hypothesis.reference.status,
        "reference_source": hypothesis.reference.source,
        "expectation": hypothesis.expected(label),
        "itself": any(one.variant == label for one in hypothesis.controls),
    }


def judge(
    hypothesis: Hypothesis,
    label: str,
    evidence: Sequence[xr.Dataset],
    controls: Mapping[str, Sequence[xr.Dataset]],
    *,
    seeds: Sequence[int],
    draws: int = 10_000,
) -> Verdict:
    """Judge the evidence of a model's replicas beside that of its controls.

    Parameters
    ----------
    hypothesis, label
        What is claimed, and the column it is claimed of.
    evidence
        One Dataset a replica, as `observe` returned it.
    controls
        Control name -> evidence in the same order of replicas. A control without an entry counts as
        not measured, and leaves the verdict at best inconclusive.
    seeds
        One a replica.
    draws
        Bootstrap draws.

    Raises
    ------
    ValueError
        If model, control and seeds differ in number, or model and control do not have the same
        members of a dimension that the hypothesis says they share.
    """
    if len(seeds) != len(evidence):
        found = f"{len(seeds)} seeds for {len(evidence)} replicas of {label}"
        raise ValueError(refusal("judge", found, "one seed a replica", "Give the seed of each."))
    for name, paired in controls.items():
        if len(paired) != len(evidence):
            found = f"{len(paired)} replicas of '{name}' beside {len(evidence)} of {label}"
            raise ValueError(refusal("judge", found, "one a seed of both", "Pair them by seed."))
    everything = {label: evidence, **{f"'{name}'": one for name, one in controls.items()}}
    check_shared(f"judge {hypothesis.id}", hypothesis.shared, everything)
    bench = _Bench(
        hypothesis,
        label,
        samples(evidence, hypothesis.variables),
        {name: samples(paired, hypothesis.variables) for name, paired in controls.items()},
        Estimator(draws=draws, shared=hypothesis.shared),
    )
    n_total = sum(one.sizes["unit"] for one in evidence)
    frame = _frame(hypothesis, label) | {
        "n_replicas": bench.n_replicas,
        "n_included": sum(one.n_included for one in bench.ours if one is not None),
        "n_total": n_total,
        "seeds": tuple(int(seed) for seed in seeds),
    }
    if bench.n_replicas == 0:
        reason = f"None of {n_total} units passes the inclusion rule."
        return Verdict(**frame, verdict=Outcome.INCONCLUSIVE, reason=reason)
    return Verdict(**frame, **bench.measure())


@dataclass(frozen=True)
class _Bench:
    """One model under one hypothesis, with its controls."""

    hypothesis: Hypothesis
    label: str
    ours: list[Sample | None]
    theirs: Mapping[str, list[Sample | None]]
    estimator: Estimator

    @property
    def n_replicas(self) -> int:
        """Replicas with included units."""
        return sum(one is not None for one in self.ours)

    @property
    def own(self) -> set[str]:
        """Names of the controls that the column is."""
        return {one.name for one in self.hypothesis.controls if one.variant == self.label}

    @property
    def asked(self) -> list[Requirement]:
        """The requirements that can be asked: not those that compare the column with itself."""
        return [one for one in self.hypothesis.requirements if one.against not in self.own]

    def measure(self) -> dict[str, Any]:
        """Return the numbers of the verdict, and the verdict."""
        h = self.hypothesis
        ours = self.estimator.bootstrap(self.ours, h.combine)
        effect = self.estimator.effect(ours, h.null)
        controls = [
            self.control(one) for one in h.controls if one.for_effect or one.name in self.own
        ]
        requirements = self.requirements()
        outcome, reason = decide(
            effect,
            controls,
            [one for one in requirements if one is not None],
            null=h.null,
            direction=h.direction,
            rope=h.rope,
            reference=(h.reference.interval, h.reference.status),
        )
        unmeasured = [r for r, one in zip(self.asked, requirements, strict=True) if one is None]
        if unmeasured and outcome not in (Outcome.REFUTED, Outcome.INCONCLUSIVE):
            outcome = Outcome.INCONCLUSIVE
            first = unmeasured[0]
            few = "too few of its control's units are included"
            why = few if first.against in self.theirs else "its control lacks the signal"
            reason = f"'{first.name}' was not measured: {why}. {reason}"
        if self.n_replicas < MIN_REPLICAS:
            outcome = Outcome.INCONCLUSIVE
            reason = (
                f"Only {self.n_replicas} replicas have included units, {MIN_REPLICAS} are needed. "
                f"{reason}"
            )
        if any(one.size < MIN_SHARED for one in ours.shared):
            outcome = Outcome.INCONCLUSIVE
            reason = (
                f"All replicas share one and the same unit or stimulus, {MIN_SHARED} are needed. "
                f"{reason}"
            )
        p = [effect.p, *(one.effect.p for one in requirements if one is not None)]
        return {
            "verdict": outcome,
            "reason": reason,
            "effect": effect.value,
            "low": effect.low,
            "high": effect.high,
            "replicas": tuple(float(v) for v in ours.replicas),
            "p": max(one for one in p if one is not None),
            "requirements": "; ".join(
                f"{r.name}: {_text(found)}"
                for r, found in zip(self.asked, requirements, strict=True)
            ),
            **self.strongest(controls, ours),
        }

    def control(self, control: Control) -> ControlResult:
        """Return the effect of a control and the paired difference to it."""
        name, itself = control.name, control.variant == self.label
        if name not in self.theirs:
            return ControlResult(name, None, None, itself, "it lacks the signal")
        pairs = self.pairs(name, self.hypothesis.combine)
        if pairs is None:
            return ControlResult(name, None, None, itself, "too few of its units are included")
        ours, theirs = pairs
        effect = self.estimator.effect(theirs, self.hypothesis.null)
        return ControlResult(name, effect, self.estimator.effect(ours - theirs), itself)

    def pairs(
        self, name: str, combine: Callable[[Mapping[str, Any]], Any]
    ) -> tuple[Bootstrap, Bootstrap] | None:
        """Return the model and a control in replicas that both measured; None if these are few."""
        theirs = self.theirs.get(name, [None] * len(self.ours))
        pairs = self.estimator.paired(self.ours, theirs, combine)
        few = pairs is None or pairs[0].replicas.size < min(MIN_REPLICAS, self.n_replicas)
        return None if few else pairs

    def requirements(self) -> list[RequirementResult | None]:
        """Return each further falsifier; None where its control was not measured."""
        found: list[RequirementResult | None] = []
        for one in self.asked:
            if one.against is None:
                result = self.estimator.bootstrap(self.ours, one.combine)
            else:
                pairs = self.pairs(one.against, one.combine)
                if pairs is None:
                    found.append(None)
                    continue
                result = pairs[0] - pairs[1]
            effect = self.estimator.effect(result, one.null)
            found.append(RequirementResult(one.name, effect, one.null, one.direction))
        return found

    def strongest(self, controls: Sequence[ControlResult], ours: Bootstrap) -> dict[str, Any]:
        """Return the columns of the control that comes closest to showing the effect."""
        h = self.hypothesis
        measured = [one for one in controls if one.effect is not None and not one.itself]
        if not measured:
            return {"control": "", **_sizes(ours.replicas, h.null, h.direction)}
        one = max(measured, key=lambda c: _towards(c.effect, h))
        assert one.effect is not None
        assert one.difference is not None
        pairs = self.estimator.paired(self.ours, self.theirs[one.name], h.combine)
        assert pairs is not None
        return {
            "control": one.name,
            "control_effect": one.effect.value,
            "control_low": one.effect.low,
            "control_high": one.effect.high,
            "control_replicas": tuple(float(v) for v in pairs[1].replicas),
            "difference_low": one.difference.low,
            "difference_high": one.difference.high,
            **_sizes(pairs[0].replicas, pairs[1].replicas, h.direction),
        }


def _towards(effect: Effect | None, hypothesis: Hypothesis) -> float:
    assert effect is not None
    return effect.towards(hypothesis.null, hypothesis.direction).value


def _sizes(ours: Any, theirs: Any, direction: int) -> dict[str, float]:
    """Standardised differences over replicas, positive in the predicted direction."""
    if ours.size < 2:
        return {}
    return {
        "d_z": direction * cohen_dz(ours, theirs),
        "rank_biserial": direction * rank_biserial(ours, theirs),
    }


def _text(result: RequirementResult | None) -> str:
    if result is None:
        return "not measured"
    effect, sign = result.effect, ">" if result.direction > 0 else "<"
    span = f"{effect.value:.3g} [{effect.low:.3g}, {effect.high:.3g}]"
    return f"{span}, wanted {sign} {result.null:g}"
