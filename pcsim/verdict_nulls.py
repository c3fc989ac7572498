"""Situations in which a hypothesis is false, or true by a known amount, as simulated evidence."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial

import numpy as np
from numpy.typing import NDArray

from pcsim.hypothesis_claim import Hypothesis
from pcsim.hypothesis_parts import Control, Requirement
from pcsim.messages import check_choice, refusal
from pcsim.verdict_scene import (
    Line,
    Wanted,
    constant,
    effect_size,
    find_point,
    line_through,
    scatter,
)

__all__ = ["KINDS", "Scene", "Situation", "situations"]

Floats = NDArray[np.float64]
Stack = Mapping[str, Floats]

KINDS = ("absent", "same", "wrong", "present")
"""Beside "requirement 0", "requirement 1" ...: one further falsifier lies at its null."""

SEARCHES = 5
"""Points to start from before a kind is given up."""

ROOM = 6.0
"""Standard deviations from the truth to the nearer end of the line."""

FAR = 6.0
"""How far a line reaches, in published effects: beyond all but the rarest noise."""


@dataclass(frozen=True, kw_only=True)
class Situation:
    """What is true, and how the evidence scatters around it."""

    kind: str
    """One of `KINDS`, or "requirement <k>"."""
    n: int
    """Replicas."""
    units: int = 20
    share: float = 0.7
    """Of the variance of a replica's effect, what lies between replicas and not in its units."""
    noise: str = "normal"
    size: float = 2.0
    """Published effect over the standard deviation of a replica's effect."""
    shared: float = field(default=0.0, repr=False)
    """Of the same variance, what lies in units that all replicas share."""


def situations(hypothesis: Hypothesis) -> list[str]:
    """Return the kinds that can be simulated for a hypothesis.

    A requirement that is a count of other falsifiers cannot be moved to its null by itself.
    """
    scene = Scene(hypothesis)
    kinds = [*KINDS, *(f"requirement {k}" for k in range(len(hypothesis.requirements)))]
    return [kind for kind in kinds if scene.has(kind)]


class Scene:
    """Simulated evidence for one hypothesis.

    The further falsifiers are met without noise wherever they are not themselves at their null, and
    the controls show nothing, exactly, wherever they are not to show the same: neither ever
    saves a verdict from being wrong, so rates are the highest that the hypothesis allows.
    """

    def __init__(self, hypothesis: Hypothesis) -> None:
        self.hypothesis = hypothesis
        self.size = effect_size(hypothesis)
        self.statistics = [hypothesis.combine, *(r.combine for r in hypothesis.requirements)]
        self.lines: dict[str, Line | None] = {}
        self.rivals: dict[tuple[str, str], Line | dict[str, float] | None] = {}

    def truth(self, kind: str) -> float:
        """Return the true value of the statistic that moves."""
        h, parts = self.hypothesis, {"absent": 0.0, "same": 1.0, "present": 1.0, "wrong": -0.5}
        if kind in parts:
            return h.null + parts[kind] * h.direction * self.size
        one = self._requirement(kind)
        if one.against is None:
            return one.null
        return one.null + self._theirs_at(one)

    def has(self, kind: str) -> bool:
        """Whether evidence of this kind can be made."""
        controls = self.hypothesis.controls
        for seed in range(SEARCHES):
            self.lines[kind] = self._line(kind, seed)
            self.rivals.update({(kind, one.name): self._rival(kind, one) for one in controls})
            if all(self.rivals[kind, one.name] is not None for one in controls):
                return True
        return False

    def evidence(
        self, at: Situation, sets: int, rng: np.random.Generator
    ) -> tuple[Stack, dict[str, Stack]]:
        """Return the evidence of `sets` models and of their controls."""
        line = self.lines.get(at.kind) or (self.has(at.kind) and self.lines[at.kind])
        if not line:
            expected = ", ".join(situations(self.hypothesis))
            raise ValueError(refusal(f"Scene of {self.hypothesis.id}", at.kind, expected))
        sigma = self.size / at.size
        if at.kind != "present":
            # A rate under a null does not depend on the scale; noise that ran off the line would.
            sigma = min(sigma, line.room(self.truth(at.kind)) / ROOM)
        shape, spread = (sets, at.n, at.units), (sigma, at.share, at.shared)
        way = self.hypothesis.direction
        if at.kind.startswith("requirement"):
            way = self._requirement(at.kind).direction
        make = partial(scatter, shape=shape, spread=spread, kind=at.noise, rng=rng, direction=way)
        ours = make(line, self.truth(at.kind))
        theirs: dict[str, Stack] = {}
        for one in self.hypothesis.controls:
            found = self.rivals[at.kind, one.name]
            if isinstance(found, Line):
                theirs[one.name] = make(found, self.truth("same"))
            elif found is not None:
                theirs[one.name] = constant(found, at.n)
        return ours, theirs

    def _line(self, kind: str, seed: int) -> Line | None:
        moving = (
            0 if kind in KINDS else 1 + self.hypothesis.requirements.index(self._requirement(kind))
        )
        # From where the effect is at its published size the line may also lead to its absence: at
        # a correlation of 0 a search may find variables that do not vary at all.
        for value in (None, self.truth("present")) if moving == 0 else (None,):
            wanted = self._wanted(kind, moving, value)
            point = find_point(self.hypothesis.variables, wanted, seed=seed)
            if point is None:
                continue
            line = line_through(point, self.statistics, moving, reach=FAR * self.size)
            if line is not None and line.covers(self.truth(kind)):
                return line
        return None

    def _wanted(self, kind: str, moving: int, value: float | None) -> list[Wanted]:
        h = self.hypothesis
        effect = self.truth("present") if moving else self.truth(kind)
        found = [Wanted(h.combine, effect if value is None else value, 0, self.size)]
        for k, one in enumerate(h.requirements, start=1):
            if k == moving:
                found.append(Wanted(one.combine, self.truth(kind), 0, self.size))
            elif one.against is None:
                found.append(Wanted(one.combine, one.null + 0.1 * one.direction, one.direction))
        return found

    def _rival(self, kind: str, control: Control) -> Line | dict[str, float] | None:
        h, line = self.hypothesis, self.lines[kind]
        if line is None:
            return None
        if kind == "same" and control.for_effect:
            return line
        place = line.position(np.array([self.truth(kind)]))[0]
        here = {k: np.array([line.start[k] + line.direction[k] * place]) for k in line.start}
        effect = Wanted(h.combine, h.null, -h.direction)
        wanted = [effect] if control.for_effect else []
        for index, one in enumerate(h.requirements):
            if one.against != control.name:
                continue
            ours = float(np.asarray(one.combine(here))[0])
            if kind == f"requirement {index}":
                # A difference of the effect itself: a control that shows as much of it.
                wanted = [] if one.combine is h.combine else wanted
                wanted.append(Wanted(one.combine, ours - one.null, 0, self.size))
            else:
                bound = ours - one.null - 0.1 * one.direction
                wanted.append(Wanted(one.combine, bound, -one.direction))
        return find_point(h.variables, wanted)

    def _theirs_at(self, one: Requirement) -> float:
        """Return where the control of a requirement lies while the requirement is at its null."""
        if one.combine is self.hypothesis.combine:
            return self.truth("present") - one.null
        return 0.5

    def _requirement(self, kind: str) -> Requirement:
        name, _, index = kind.partition(" ")
        check_choice("Scene", "kind", name, (*KINDS, "requirement"))
        return self.hypothesis.requirements[int(index)]
