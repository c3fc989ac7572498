"""What a battery asks: which claims of which columns, with which seeds and at which scales."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pcsim import catalog, roster
from pcsim.hypothesis import Hypothesis
from pcsim.messages import check_choice, refusal, unknown_name

__all__ = ["Battery", "everything", "slug"]


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
            If a name is unknown, if two hypotheses or columns have the same name, or if names of
            columns or of controls cannot be told apart in keys.
        """
        scale = str(settings.get("scale", "quick"))
        protocols = str(settings.get("protocols", scale))
        check_choice("battery", "protocols", protocols, ("quick", "full"))
        claims = everything(settings["hypotheses"], catalog.names("analysis"))
        # A file is found by workers elsewhere too, and is one source whatever its spelling.
        places = [str(Path(n).resolve()) if n.endswith(".py") else n for n in claims]
        loaded = [(name, catalog.load("analysis", name)) for name in places]
        loaded.sort(key=lambda pair: pair[1].id)
        labels = [one.label for one in roster.ROSTER]
        columns = tuple(map(roster.variant, everything(settings["models"], labels)))
        for names in ([h.id for _, h in loaded], [one.label for one in columns]):
            if not names or len(set(names)) < len(names):
                found = f"{', '.join(names) or 'none'}"
                expected = "one or more hypotheses and models, each once"
                raise ValueError(refusal("battery", found, expected))
        seeds = settings["seeds"]
        made = cls(
            tuple(name for name, _ in loaded),
            tuple(hypothesis for _, hypothesis in loaded),
            columns,
            tuple(range(seeds) if isinstance(seeds, int) else seeds),
            scale,
            protocols,
            _known(settings.get("spared", ()), {*labels, *(one.label for one in columns)}),
        )
        made._check_keys()
        return made

    def _check_keys(self) -> None:
        """Refuse models, or controls of a hypothesis, that keys could not tell apart."""
        rivals = [one for hypothesis in self.hypotheses for one in self.rivals(hypothesis)]
        every = [*self.columns, *rivals]
        for column in every:
            _check_label(column)
        every += [column.intact for column in every if column.lesion]
        _check_slugs("model", [(one.label, one.circuit, one) for one in every])
        for hypothesis in self.hypotheses:
            made = [one.name for one in hypothesis.controls if one.transform is not None]
            _check_slugs("control", [(name, hypothesis.id, name) for name in made])

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


def slug(name: str) -> str:
    """Return a name as part of a key.

    Examples
    --------
    >>> slug("cut feedback (level 2)")
    'cut-feedback-level-2'
    """
    return re.sub(r"[^A-Za-z0-9_.+-]+", "-", name).strip("-.")


def _check_label(column: roster.Variant) -> None:
    """Refuse a user's file that has the name of one of the roster's columns."""
    if column.circuit.endswith(".py") and column.label in {one.label for one in roster.ROSTER}:
        found = f"{column.circuit}, which bears the name of the column {column.label}"
        raise ValueError(refusal("battery", found, "a name of its own", "Rename the file."))


def _check_slugs(what: str, named: Iterable[tuple[str, str, Any]]) -> None:
    """Refuse two things of one `slug`, and one without; each as name, where it is, and itself."""
    expected = "names that differ in letters a to z, digits or _ . + -"
    seen: dict[str, tuple[str, str, Any]] = {}
    for name, place, thing in named:
        if not slug(name):
            found = f"{what} '{name}' ({place})"
            raise ValueError(refusal("battery", found, "letters a to z or digits", "Rename it."))
        other, where, before = seen.setdefault(slug(name), (name, place, thing))
        if before != thing or other != name:
            found = f"{what}s '{other}' ({where}) and '{name}' ({place})"
            raise ValueError(refusal("battery", found, expected, "Rename one."))


def _known(names: Sequence[str], labels: set[str]) -> tuple[str, ...]:
    """Return the names but "" (nothing, from the command line); refuse unknown ones."""
    for name in names:
        if name and name not in labels:
            raise unknown_name("battery", "spared column", name, labels)
    return tuple(filter(None, names))


def everything(names: Any, known: Sequence[str]) -> tuple[str, ...]:
    """Return the names of a setting; "all" stands for what is known."""
    return tuple(known) if names in ("all", ("all",), ["all"]) else tuple(map(str, names))
