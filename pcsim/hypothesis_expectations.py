"""The a-priori expectations: which model was expected to pass which hypothesis, before any run."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from functools import cache
from importlib import resources

__all__ = ["MARKS", "expectation_table"]

MARKS = {"+": "expected to pass", "-": "expected to fail", "?": "open", ".": "not applicable"}


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
