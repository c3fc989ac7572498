"""The hypothesis itself, and the evidence that its protocol leaves."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from pcsim.hypothesis_expectations import MARKS, expectation_table
from pcsim.hypothesis_parts import (
    Combine,
    Control,
    Means,
    Reference,
    Requirement,
    check_direction,
)
from pcsim.messages import check_choice, refusal, unknown_name
from pcsim.model import Model
from pcsim.neural_files import absent_recordings
from pcsim.stats_bootstrap import SHAREABLE
from pcsim.verdict import Verdict

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["Hypothesis", "Observation", "check_evidence", "observation"]

Observation = xr.Dataset | tuple[xr.Dataset, xr.Dataset]


def nothing_missing(model: Model) -> str:
    """Say that any model has the signal."""
    return ""


def mean_of_the_variable(means: Means) -> NDArray[np.float64]:
    """Return the mean of the one variable."""
    (values,) = means.values()
    return values


@dataclass(frozen=True, kw_only=True)
class Hypothesis:
    """A published finding that a model either shows or does not.

    `observe(model, seed=..., scale=...)`, with scale "quick" or "full", shows the protocol to a
    model and returns the evidence: a Dataset with dimension `unit` (and, if the statistic averages
    over them, `stimulus`), the `variables` of the statistic with dims (unit,) or (unit, stimulus),
    a boolean `included` (unit,), and any curves that the panel draws. It may return the pair
    (evidence, responses); the responses of the first replica are kept beside the verdicts.

    The effect is `combine` of the variables' means, compared with `null` in `direction`.

    `panel(evidence, ax)` draws the saved evidence: keys are the columns' labels, and
    "<label>/<control name>" for controls made by a transform; values hold one Dataset a replica.
    """

    id: str
    name: str
    claim: str
    family: str
    protocol: str
    statistic: str
    signal: str
    falsified_if: str | tuple[str, ...]
    observe: Callable[..., Observation]
    variables: tuple[str, ...]
    controls: tuple[Control, ...]
    reference: Reference
    version: int = 1
    units: str = ""
    missing: Callable[[Any], str] = nothing_missing
    """Reason why a model has no such signal, "" if it has."""
    recordings: tuple[str, ...] = ()
    """Folders in PCSIM_DATA with the recordings it needs; without them it is N/A for any model."""
    shared: tuple[str, ...] = ()
    """Which of "unit" and "stimulus" are the same ones in every replica, as recorded cells are,
    while the claim is about more than these. Then the interval takes them anew for all replicas at
    once, and does not shrink below what they allow. Not for a circuit's own units, nor for a set of
    stimuli that is all the claim is about."""
    combine: Combine = mean_of_the_variable
    null: float = 0.0
    direction: int = 1
    rope: tuple[float, float] | None = None
    requirements: tuple[Requirement, ...] = ()
    expectations: Mapping[str, str] = field(default_factory=dict)
    """Column label -> "+", "-", "?" or ".", for columns that the battery's table says nothing of; a
    mark of the table stands."""
    departures: tuple[str, ...] = ()
    """Where the test differs from what the source did or the battery asks, one sentence each."""
    remembered: tuple[str, ...] = ()
    """Numbers of protocol and criteria, beside the reference, that are remembered, not read."""
    panel: Callable[[Mapping[str, Sequence[xr.Dataset]], Axes], None] | None = field(default=None)

    def __post_init__(self) -> None:
        where = f"Hypothesis {self.id}"
        check_direction(where, self.direction)
        names = [control.name for control in self.controls]
        if not self.variables:
            advice = "Name at least one variable of the evidence."
            raise ValueError(refusal(where, "no variables", "what the statistic averages", advice))
        if len(self.variables) > 1 and self.combine is mean_of_the_variable:
            found = f"variables {', '.join(self.variables)} but no combine"
            advice = "Give combine=lambda means: ..."
            raise ValueError(refusal(where, found, "a function of their means", advice))
        if isinstance(self.shared, str) or len(set(self.shared)) < len(self.shared):
            expected = "a tuple of different names, as ('unit',)"
            raise ValueError(refusal(where, f"shared={self.shared!r}", expected))
        for dim in self.shared:
            check_choice(where, "shared", dim, SHAREABLE)
        if not names:
            expected, advice = "a model that ought to fail", "Give controls=(Control(...),)."
            raise ValueError(refusal(where, "no controls", expected, advice))
        if len(set(names)) < len(names):
            raise ValueError(refusal(where, f"controls {names}", "different names", "Rename one."))
        for requirement in self.requirements:
            if requirement.against is not None and requirement.against not in names:
                raise unknown_name(where, "control", requirement.against, names)

    def absent(self) -> str:
        """Return which recordings it needs that are not here, "" if none."""
        return absent_recordings(*self.recordings)

    def inapplicable(self, label: str) -> str:
        """Return why the battery does not put this question to a column, "" if it does."""
        if reason := self.absent():
            return reason
        return "the battery's table calls it not applicable" if self.expected(label) == "." else ""

    def expected(self, label: str) -> str:
        """Return the a-priori expectation for a column: "+", "-", "?", "." or "" if not stated."""
        mark = expectation_table().get(self.id, {}).get(label, "")
        return mark if mark in MARKS else self.expectations.get(label, "")

    def test(
        self,
        replicas: Sequence[Model],
        *,
        train: Callable[[str, int], Model],
        seeds: Sequence[int],
        label: str = "model",
        scale: str = "quick",
    ) -> Verdict:
        """Test trained replicas of a model, and the controls beside them.

        Parameters
        ----------
        replicas
            One trained model a seed.
        train
            Gives the replica of another column that serves as a control: ``train(label, seed)``.
        seeds
            One a replica: it seeds stimuli and transforms, and pairs model with control.
        label
            The column's name in the verdict.
        scale
            "quick" or "full".

        Returns
        -------
        Verdict
            Before any correction for several hypotheses (`pcsim.verdict.adjust`).
        """
        if len(replicas) != len(seeds) or not replicas:
            found = f"{len(replicas)} replicas and {len(seeds)} seeds"
            raise ValueError(refusal(f"{self.id}.test", found, "one seed for every replica"))
        from pcsim.hypothesis_judge import judge, not_applicable

        reason = self.inapplicable(label) or self.missing(replicas[0])
        if reason:
            return not_applicable(self, label, reason)
        pairs = list(zip(replicas, seeds, strict=True))
        evidence = [observation(self, m, seed=s, scale=scale)[0] for m, s in pairs]
        controls = {}
        for one in self.controls:
            if one.transform is not None:
                models = [one.transform(model, seed) for model, seed in pairs]
            else:
                models = [train(str(one.variant), seed) for seed in seeds]
            if not self.missing(models[0]):
                controls[one.name] = [
                    observation(self, m, seed=s, scale=scale)[0]
                    for m, s in zip(models, seeds, strict=True)
                ]
        return judge(self, label, evidence, controls, seeds=seeds)


def observation(
    hypothesis: Hypothesis, model: Model, *, seed: int, scale: str
) -> tuple[xr.Dataset, xr.Dataset | None]:
    """Show the protocol to a model; return the checked evidence and the responses, if any."""
    found = hypothesis.observe(model, seed=seed, scale=scale)
    evidence, responses = found if isinstance(found, tuple) else (found, None)
    return check_evidence(hypothesis, evidence), responses


def check_evidence(hypothesis: Hypothesis, evidence: xr.Dataset) -> xr.Dataset:
    """Return the evidence if it is lawful.

    Raises
    ------
    ValueError
        If a variable or `included` is absent, has other dims, or is not finite where included.
    """
    where = f"{hypothesis.id}.observe"
    wanted = (*hypothesis.variables, "included")
    absent = [name for name in wanted if name not in evidence]
    if absent:
        found = f"evidence with {', '.join(sorted(map(str, evidence.data_vars))) or 'nothing'}"
        advice = f"Add {', '.join(absent)}."
        raise ValueError(refusal(where, found, f"variables {', '.join(wanted)}", advice))
    included = evidence["included"]
    if included.dims != ("unit",) or included.dtype != bool:
        found = f"`included` of type {included.dtype} with dims {included.dims}"
        advice = "Say for every unit whether the inclusion rule holds."
        raise ValueError(refusal(where, found, "booleans with dims ('unit',)", advice))
    for name in hypothesis.variables:
        dims = evidence[name].dims
        if dims not in (("unit",), ("unit", "stimulus")):
            expected = "('unit',) or ('unit', 'stimulus')"
            advice = "Transpose it or average the other dimensions."
            raise ValueError(refusal(where, f"`{name}` with dims {dims}", expected, advice))
        bad = int((~np.isfinite(evidence[name].values[included.values])).sum())
        if bad:
            found = f"{bad} values of `{name}` in included units NaN or infinite"
            advice = "Exclude those units or mend the statistic."
            raise ValueError(refusal(where, found, "finite numbers", advice))
    return evidence
