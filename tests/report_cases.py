"""Claims and verdicts that tests report, and a reader of the page that comes of them."""

from __future__ import annotations

from html.parser import HTMLParser

from pcsim.hypothesis import Control, Hypothesis, Reference, Requirement
from pcsim.verdict import Outcome, Verdict

__all__ = ["VOID", "Page", "claim", "verdicts"]

VOID = {"meta", "link", "img", "br", "input"}


class Page(HTMLParser):
    """Collects what a test looks at, and refuses tags that do not close."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] not in ("style", "script"):
            self.words.append(data)

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attrs for name, attrs in self.tags if name == tag]

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


def claim(key: str, **changes) -> Hypothesis:
    values = {
        "id": key,
        "name": f"Name of {key}",
        "claim": "Cortex <predicts> & subtracts.",
        "family": "V1",
        "protocol": "Bars of growing length.",
        "statistic": "Share of end-stopped units.",
        "signal": "error units",
        "units": "share",
        "falsified_if": ("The drop is below 50 %.", "Noise shows half."),
        "departures": ("Bars do not drift.", "Cells are few."),
        "remembered": ("The length of the bar.",),
        "observe": lambda *a, **k: None,
        "variables": ("share",),
        "controls": (Control(name="flat", statement="No hierarchy.", variant="LCA"),),
        "requirements": (Requirement(name="peak", statement="Peak stays.", combine=len),),
        "reference": Reference(
            value=0.4, interval=(0.3, 0.7), status="remembered", source="Rao & Ballard 1999"
        ),
        "rope": (-0.05, 0.05),
    }
    return Hypothesis(**{**values, **changes})


def verdicts() -> list[Verdict]:
    shared = {"version": 1, "family": "V1", "reference_status": "remembered"}
    return [
        Verdict(
            hypothesis="H10", model="RB", verdict=Outcome.QUALITATIVE, effect=0.4321, low=0.31,
            high=0.5, control="flat", control_effect=-0.0123, control_low=-0.1, control_high=0.08,
            difference_low=0.25, difference_high=0.55, p=0.0002, p_holm=0.0417, n_replicas=3,
            n_included=84, n_total=96, expectation="+", reason="It is there.",
            replicas=(0.42, 0.43, 0.4463), control_replicas=(-0.05, 0.0131),
            requirements="peak: 0.2 [0.1, 0.3], wanted > 0", **shared,
        ),
        Verdict(
            hypothesis="H10", model="RB-cut", verdict=Outcome.NA, expectation="-",
            reason="It lacks <error> units.", **shared,
        ),
        Verdict(hypothesis="H11", model="RB", verdict=Outcome.REFUTED, effect=-1.0, **shared),
    ]  # fmt: skip
