"""A hypothesis: a published neural finding as protocol, statistic, reference and controls.

A model is shown the protocol (`observe`) and leaves evidence, one row a unit. Evidence of trained
replicas, and of the controls that must fail, is judged by one rule for all hypotheses.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from pcsim.messages import unknown_name
from pcsim.model import Model

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = [
    "Control",
    "Hypothesis",
    "Means",
    "Reference",
    "Requirement",
    "check_evidence",
    "expectation_table",
    "observation",
]

Means = Mapping[str, NDArray[np.float64]]
"""Variable name -> mean over the resampled units and stimuli, one for each bootstrap draw."""
Combine = Callable[[Means], NDArray[np.float64]]
Observation = xr.Dataset | tuple[xr.Dataset, xr.Dataset]

STATUSES = ("read", "computed", "remembered")
MARKS = ("+", "-", "?", ".")


@dataclass(frozen=True, kw_only=True)
class Reference:
    """A published number, where it stands and how it was obtained.

    `status` is "read" (in a text), "computed" (from published data) or "remembered"; a remembered
    number can never give SUPPORTED. Without an interval only the sign of the effect is published.
    """

    value: float | None = None
    interval: tuple[float, float] | None = None
    status: str = "remembered"
    source: str = ""

    def __post_init__(self) -> None:
        if self.status not in STATUSES:
            raise unknown_name("Reference", "status", self.status, STATUSES)
        if self.status != "remembered" and not self.source:
            raise ValueError(
                f"Reference: status {self.status!r} without a source, expected a citation. "
                "Give source=... or status='remembered'."
            )
        if self.interval is not None and not self.interval[0] < self.interval[1]:
            raise ValueError(
                f"Reference: interval {self.interval}, expected (low, high) with low < high. "
                "Swap the two or widen it."
            )


@dataclass(frozen=True, kw_only=True)
class Requirement:
    """A further falsifier that must hold as well: a second statistic of the same evidence.

    An interval wholly on the wrong side of `null` refutes; one that includes it leaves the verdict
    at best inconclusive. With `against`, the statistic is the paired difference to that control.
    """

    name: str
    statement: str
    combine: Combine
    null: float = 0.0
    direction: int = 1
    against: str | None = None

    def __post_init__(self) -> None:
        _check_direction(f"Requirement '{self.name}'", self.direction)


@dataclass(frozen=True, kw_only=True)
class Control:
    """A model that ought to fail, paired with the tested one replica by replica.

    Either another column of the table (`variant`, a roster label) or a change of the tested model
    itself (`transform(model, seed)`), exactly one of the two.
    """

    name: str
    statement: str
    variant: str | None = None
    transform: Callable[[Any, int], Model] | None = None

    def __post_init__(self) -> None:
        if (self.variant is None) == (self.transform is None):
            raise ValueError(
                f"Control '{self.name}': variant {self.variant!r} and transform {self.transform!r}, "
                "expected exactly one of the two. Name a roster label or give a function."
            )


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
    over them, `stimulus`), the `variables` of the statistic with dims (unit,) or (unit, stimulus), a
    boolean `included` (unit,), and any curves that the panel draws. It may return the pair
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
    combine: Combine = mean_of_the_variable
    null: float = 0.0
    direction: int = 1
    rope: tuple[float, float] | None = None
    requirements: tuple[Requirement, ...] = ()
    expectations: Mapping[str, str] | None = None
    """Column label -> "+", "-", "?" or "."; None takes the row of the battery's table."""
    panel: Callable[[Mapping[str, Sequence[xr.Dataset]], Axes], None] | None = field(default=None)

    def __post_init__(self) -> None:
        where = f"Hypothesis {self.id}"
        _check_direction(where, self.direction)
        if not self.variables:
            raise ValueError(
                f"{where}: no variables, expected the names that the statistic averages. "
                "Name at least one variable of the evidence."
            )
        if len(self.variables) > 1 and self.combine is mean_of_the_variable:
            raise ValueError(
                f"{where}: {len(self.variables)} variables {self.variables} but no combine, expected "
                "a function of their means. Give combine=lambda means: ..."
            )
        if not self.controls:
            raise ValueError(
                f"{where}: no controls, expected a model that ought to fail. "
                "Give controls=(Control(...),)."
            )
        names = [control.name for control in self.controls]
        if len(set(names)) < len(names):
            raise ValueError(
                f"{where}: controls are named {names}, expected different names. Rename one."
            )
        for requirement in self.requirements:
            if requirement.against is not None and requirement.against not in names:
                raise unknown_name(where, "control", requirement.against, names)

    def expected(self, label: str) -> str:
        """Return the a-priori expectation for a column: "+", "-", "?", "." or "" if not stated."""
        if self.expectations is not None:
            return self.expectations.get(label, "")
        return expectation_table().get(self.id, {}).get(label, "")


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
        raise ValueError(
            f"{where}: the evidence has {sorted(map(str, evidence.data_vars))} but not {absent}, "
            f"expected {list(wanted)}. Add what is missing to the Dataset that observe returns."
        )
    included = evidence["included"]
    if included.dims != ("unit",) or included.dtype != bool:
        raise ValueError(
            f"{where}: `included` has dims {included.dims} and type {included.dtype}, expected a "
            "boolean (unit,). Say for every unit whether the inclusion rule holds."
        )
    for name in hypothesis.variables:
        dims = evidence[name].dims
        if dims not in (("unit",), ("unit", "stimulus")):
            raise ValueError(
                f"{where}: `{name}` has dims {dims}, expected (unit,) or (unit, stimulus). "
                "Transpose it or average the other dimensions."
            )
        bad = int((~np.isfinite(evidence[name].values[included.values])).sum())
        if bad:
            raise ValueError(
                f"{where}: `{name}` has {bad} values that are not finite in included units, expected "
                "none. Exclude those units or fix the statistic."
            )
    return evidence


@cache
def expectation_table() -> Mapping[str, Mapping[str, str]]:
    """Return the a-priori expectations: hypothesis id -> column label -> mark.

    They were filled before the first run and are never edited; a test pins the file's sha256.

    Examples
    --------
    >>> expectation_table()["H10"]["RB"], expectation_table()["H10"]["RB-cut"]
    ('+', '-')
    """
    text = resources.files("pcsim").joinpath("expectations.csv").read_text(encoding="utf-8")
    header, *rows = csv.reader(text.splitlines())
    return {row[0].split()[0]: dict(zip(header[2:-1], row[2:-1], strict=True)) for row in rows}


def _check_direction(where: str, direction: int) -> None:
    if direction not in (1, -1):
        raise ValueError(
            f"{where}: direction {direction}, expected +1 (above the null) or -1 (below). "
            "Give one of the two."
        )
