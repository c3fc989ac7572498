"""Small drawings inside the page: effects with their controls on one axis, traces of stimuli.

They are made of numbers alone, so nothing in them has to be escaped.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from pcsim.plots_style import LARGEST
from pcsim.report_text import ROUNDING, number
from pcsim.verdict import Verdict

__all__ = ["Axis", "trace_mark"]

WIDTH, HEIGHT, EDGE = 230.0, 44.0, 12.0
MODEL, CONTROL = 13.0, 31.0
"""Heights of the two rows of a mark."""
BESIDE = 8.0
"""Distance of the replicas from their row: the model's lie above, the control's below."""
MOST = 40
"""Replicas that are drawn; of more, so many evenly spaced in order of size."""
REACH = 1.0
"""Intervals are drawn up to this share of the points' range beyond it, then cut."""


@dataclass(frozen=True)
class Axis:
    """The axis that all effects of a hypothesis share, with what is drawn behind them."""

    low: float
    high: float
    null: float = 0.0
    rope: tuple[float, float] | None = None
    reference: tuple[float, float] | None = None

    @classmethod
    def of(
        cls,
        rows: Sequence[Verdict],
        *,
        null: float,
        rope: tuple[float, float] | None = None,
        reference: tuple[float, float] | None = None,
    ) -> Axis:
        """Return the axis on which all points, the null and the published interval lie.

        Long intervals are cut, so that one uncertain model does not squeeze the others.

        Examples
        --------
        >>> from pcsim.verdict import Outcome
        >>> one = Verdict(hypothesis="H1", version=1, family="V1", model="A",
        ...               verdict=Outcome.QUALITATIVE, effect=1.0, low=-40.0, high=1.2)
        >>> axis = Axis.of([one], null=0.0)
        >>> axis.low, axis.high
        (-1.0, 1.2)
        """
        names = ("effect", "control_effect")
        points = [null, *(reference or ())]
        points += [v for row in rows for n in names if (v := getattr(row, n)) is not None]
        points = [v for v in points if abs(v) <= LARGEST] or [0.0]
        ends = [
            v
            for row in rows
            for v in (
                row.low, row.high, row.control_low, row.control_high,
                *row.replicas, *row.control_replicas,
            )
            if v is not None and abs(v) <= LARGEST
        ]  # fmt: skip
        first, last = min(points), max(points)
        reach = REACH * (last - first) or 1.0
        low = max(min([first, *ends]), first - reach)
        high = min(max([last, *ends]), last + reach)
        if high - low < ROUNDING * max(1.0, abs(low), abs(high)):
            wide = max(1.0, abs(low) / 1000.0, abs(high) / 1000.0)
            low, high = low - wide, high + wide
        return cls(low, high, null, rope, reference)

    def place(self, value: float) -> float:
        """Return the x of a value, cut at the edges."""
        share = (min(max(value, self.low), self.high) - self.low) / (self.high - self.low)
        return round(EDGE + share * (WIDTH - 2 * EDGE), 1)

    def mark(self, row: Verdict) -> Markup:
        """Return a row's effect and control with their intervals, and each replica as a dot."""
        parts = [self._behind()]
        parts.append(self._dots(MODEL - BESIDE, row.replicas, "m"))
        parts.append(self._dots(CONTROL + BESIDE, row.control_replicas, "c"))
        parts.append(self._interval(MODEL, row.low, row.high, "m"))
        parts.append(self._interval(CONTROL, row.control_low, row.control_high, "c"))
        if row.effect is not None:
            parts.append(f'<circle class="m" cx="{self.place(row.effect)}" cy="{MODEL:g}" r="4"/>')
        if row.control_effect is not None:
            x, y = self.place(row.control_effect) - 3.5, CONTROL - 3.5
            parts.append(f'<rect class="c" x="{x:.1f}" y="{y:g}" width="7" height="7"/>')
        return _svg("".join(parts))

    def figure(self, row: Verdict) -> Markup:
        """Return a row's mark with the axis below it."""
        return self.mark(row) + self.ticks()

    def _behind(self) -> str:
        parts = []
        for ends, name in ((self.reference, "ref"), (self.rope, "rope")):
            if ends is not None and ends[1] >= self.low and ends[0] <= self.high:
                x, wide = self.place(ends[0]), self.place(ends[1]) - self.place(ends[0])
                parts.append(
                    f'<rect class="{name}" x="{x}" y="0" width="{max(wide, 1.0):.1f}" '
                    f'height="{HEIGHT:g}"/>'
                )
        x = self.place(self.null)
        return "".join(parts) + f'<path class="null" d="M{x} 0V{HEIGHT:g}"/>'

    def _interval(self, y: float, low: float | None, high: float | None, name: str) -> str:
        if low is None or high is None:
            return ""
        left, right = self.place(low), self.place(high)
        path = f"M{left} {y:g}H{right}"
        # An arrow where the interval goes on beyond the axis.
        if low < self.low:
            path += f"M{left + 4:g} {y - 4:g}L{left} {y:g}l4 4"
        if high > self.high:
            path += f"M{right - 4:g} {y - 4:g}L{right} {y:g}l-4 4"
        return f'<path class="{name}" d="{path}"/>'

    def _dots(self, y: float, values: Sequence[float], name: str) -> str:
        """Return values as the round ends of lines without length."""
        finite = sorted(v for v in values if math.isfinite(v))
        if len(finite) > MOST:
            finite = [finite[round(k)] for k in np.linspace(0, len(finite) - 1, MOST)]
        path = "".join(f"M{self.place(v):g} {y:g}h0" for v in finite)
        return f'<path class="r {name}" d="{path}"/>' if path else ""

    def ticks(self) -> Markup:
        """Return the axis itself, with a few numbers."""
        parts = [f'<path class="axis" d="M{EDGE:g} 4H{WIDTH - EDGE:g}"/>']
        for value in _round_numbers(self.low, self.high):
            x = self.place(value)
            parts.append(f'<path class="axis" d="M{x} 4v4"/>')
            parts.append(f'<text x="{x}" y="20">{number(value)}</text>')
        return _svg("".join(parts), height=23)


def _svg(inside: str, *, width: float = WIDTH, height: float = HEIGHT) -> Markup:
    return Markup(
        f'<svg class="mark" viewBox="0 0 {width:g} {height:g}" aria-hidden="true" '
        f'focusable="false">{inside}</svg>'
    )


def _round_numbers(low: float, high: float) -> list[float]:
    """Return two to four round numbers between two ends."""
    raw = (high - low) / 3.0
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(m * power for m in (1.0, 2.0, 5.0, 10.0) if m * power >= raw)
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    return [step * k for k in range(first, last + 1)]


def trace_mark(trace: NDArray[np.float32]) -> Markup:
    """Return traces (line, sample) over time, all on one scale; NaN ends a line."""
    width, height, edge = 132.0, 44.0, 3.0
    finite = trace[np.isfinite(trace)]
    low, high = float(finite.min()), float(finite.max())
    size = (high - low) or 1.0
    parts = []
    for number_, line in enumerate(trace):
        values = line[np.isfinite(line)]
        if not values.size:
            continue
        x = np.linspace(edge, width - edge, values.size)
        y = height - edge - (values - low) / size * (height - 2 * edge)
        points = " ".join(f"{a:.1f},{b:.1f}" for a, b in zip(x, y, strict=True))
        parts.append(f'<polyline class="t{number_ % 4}" points="{points}"/>')
    return Markup(
        f'<svg class="trace" viewBox="0 0 {width:g} {height:g}" width="{width:g}" '
        f'height="{height:g}" aria-hidden="true" focusable="false">{"".join(parts)}</svg>'
    )
