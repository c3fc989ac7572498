"""What a battery asks: which claims of which columns, with which seeds and at which scales."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pcsim import catalog, roster
from pcsim.hypothesis import Hypothesis
from pcsim.messages import check_choice, refusal, unknown_name

__all__ = ["Battery", "everything"]


@dataclass(frozen=True)
class Battery:
    """Which hypotheses are put to which columns, with which seeds, at which scales."""

    names: tuple[str, ...]
    """Catalog names or paths of the hypotheses."""
    hypotheses: tuple[Hypothesis, ...]
    columns: tuple[roster.Variant, ...]
    seeds: tuple[int, ...]
    scale: str
    """Of training."""
    protocols: str
    """Of the protocols: "quick" or "full"."""
    spared: tuple[str, ...]
    """Columns that are asked nothing but what was expected of them."""

    @classmethod
    def of(cls, settings: Mapping[str, Any]) -> Battery:
        """Read the settings "hypotheses" and "models" (or "all"), "spared", "seeds" and scales.

        Raises
        ------
        ValueError
            If a name is unknown, or two hypotheses or columns have the same name.
        """
        scale = str(settings.get("scale", "quick"))
        protocols = str(settings.get("protocols", scale))
        check_choice("battery", "protocols", protocols, ("quick", "full"))
        claims = everything(settings["hypotheses"], catalog.names("analysis"))
        loaded = [(str(n), catalog.load("analysis", n)) for n in claims]
        loaded.sort(key=lambda pair: pair[1].id)
        labels = [one.label for one in roster.ROSTER]
        columns = tuple(map(roster.variant, everything(settings["models"], labels)))
        for names in ([h.id for _, h in loaded], [one.label for one in columns]):
            if not names or len(set(names)) < len(names):
                found = f"{', '.join(names) or 'none'}"
                expected = "one or more hypotheses and models, each once"
                raise ValueError(refusal("battery", found, expected))
        seeds = settings["seeds"]
        return cls(
            tuple(name for name, _ in loaded),
            tuple(hypothesis for _, hypothesis in loaded),
            columns,
            tuple(range(seeds) if isinstance(seeds, int) else seeds),
            scale,
            protocols,
            _known(settings.get("spared", ()), {*labels, *(one.label for one in columns)}),
        )

    def unasked(self, hypothesis: Hypothesis, label: str) -> str:
        """Return why this battery does not put a question to a column, "" if it does."""
        if reason := hypothesis.inapplicable(label):
            return reason
        if label in self.spared and not hypothesis.expected(label):
            return "not asked: nothing was expected of it before the first run"
        return ""

    def rivals(self, hypothesis: Hypothesis) -> list[roster.Variant]:
        """Return the columns that serve this hypothesis as controls."""
        return [roster.variant(c.variant) for c in hypothesis.controls if c.variant is not None]


def _known(names: Sequence[str], labels: set[str]) -> tuple[str, ...]:
    """Return the names but "" (nothing, from the command line); refuse unknown ones."""
    for name in names:
        if name and name not in labels:
            raise unknown_name("battery", "spared column", name, labels)
    return tuple(filter(None, names))


def everything(names: Any, known: Sequence[str]) -> tuple[str, ...]:
    """Return the names of a setting; "all" stands for what is known."""
    return tuple(known) if names in ("all", ("all",), ["all"]) else tuple(map(str, names))
