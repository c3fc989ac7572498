"""What a hypothesis is made of: reference, further falsifiers, controls that ought to fail."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pcsim.messages import check_choice, refusal
from pcsim.model import Model

__all__ = ["Combine", "Control", "Means", "Reference", "Requirement", "check_direction"]

Means = Mapping[str, NDArray[np.float64]]
"""Variable name -> mean over the resampled units and stimuli, one for each bootstrap draw."""
Combine = Callable[[Means], NDArray[np.float64]]

STATUSES = ("read", "computed", "remembered")


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
        check_choice("Reference", "status", self.status, STATUSES)
        if self.status != "remembered" and not self.source:
            found = f"status '{self.status}' without a source"
            advice = "Give source=..., or status='remembered'."
            raise ValueError(refusal("Reference", found, "a citation", advice))
        if self.interval is not None and not self.interval[0] < self.interval[1]:
            expected = "(low, high) with low < high"
            raise ValueError(refusal("Reference", f"interval {self.interval}", expected))


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
        check_direction(f"Requirement '{self.name}'", self.direction)


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
    for_effect: bool = True
    """False for a control that serves the requirements `against` it alone, not the effect."""

    def __post_init__(self) -> None:
        if (self.variant is None) == (self.transform is None):
            both = "both variant and transform" if self.variant else "neither variant nor transform"
            advice = "Name a roster label or give a function."
            raise ValueError(refusal(f"Control '{self.name}'", both, "one of the two", advice))


def check_direction(where: str, direction: int) -> None:
    """Refuse a direction that is neither +1 nor -1."""
    if direction not in (1, -1):
        expected = "+1 (above the null) or -1 (below)"
        raise ValueError(refusal(where, f"direction {direction}", expected))
