"""Hundreds of malformed inputs over all rooms: each is refused in one form, by our own code.

Every target is a call that works. One of its arguments at a time is replaced by something broken
that hypothesis draws; the call must end in a ValueError or TypeError of the form ``<where>:
<found>, expected <what>. <What to do.>``, raised in our sources (`refused` looks at both).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from malformed_data import MEASURES, NAMES, RESPONSES, SCHEMA, STATISTICS, STIMULI
from malformed_models import CIRCUITS, FILTERS, FLOWS, INFERENCE

from pcsim import priors, storage
from pcsim.responses import (
    open_responses,
    save,
)
from pcsim.verdict import read_csv

TARGETS = SCHEMA + INFERENCE + FLOWS + FILTERS + STIMULI + CIRCUITS + MEASURES + STATISTICS + NAMES
ROOMS = sorted({target.room for target in TARGETS})
EXAMPLES = 12
"""Malformed values to draw for each argument of each target, fewer where there are fewer."""
CASES = {
    "circuits": 150,
    "filters": 60,
    "flows": 60,
    "inference": 150,
    "measures": 40,
    "names": 40,
    "schema": 150,
    "statistics": 60,
    "stimuli": 300,
}
"""Distinct malformed inputs that each room must have refused, at the least."""


@pytest.mark.parametrize("target", TARGETS, ids=lambda t: f"{t.room}-{t.call.__name__}")
def test_the_unbroken_call_works(target):
    good = dict(target.good)
    if target.call is priors.check_precision:
        good["value"] = 0.7
    target.call(**good)


@pytest.mark.parametrize("room", ROOMS)
def test_malformed_input_is_refused(refused, room):
    targets = [target for target in TARGETS if target.room == room]
    seen: set[str] = set()
    slips: dict[str, str] = {}
    for number, target in enumerate(targets):
        for name, values in target.bad.items():
            call = f"{target.call.__qualname__} #{number}: {name}"
            for value in drawn(values):
                seen.add(f"{call} {value!r}")
                try:
                    refused(target.call, **{**target.good, name: value})
                except (Exception, pytest.fail.Exception) as error:
                    said = f"{type(error).__name__}: {error!s:.300}"
                    slips.setdefault(call, f"{value!r:.80} gave {said}")
    assert not slips, "\n".join(f"{call} = {slip}" for call, slip in slips.items())
    assert len(seen) >= CASES[room], f"only {len(seen)} inputs"


def drawn(values: st.SearchStrategy[Any] | list[Any]) -> list[Any]:
    """Draw the same values on every machine; of a list all."""
    if isinstance(values, list):
        return values
    found: list[Any] = []

    @settings(max_examples=EXAMPLES, phases=[Phase.generate])
    @given(value=values)
    def keep(value: Any) -> None:
        found.append(value)

    keep()
    return found


def test_there_are_two_hundred():
    assert set(CASES) == set(ROOMS)
    assert sum(CASES.values()) >= 200


@pytest.mark.parametrize(
    ("name", "read"),
    [("r.nc", open_responses), ("r.json", storage.read_json), ("v.csv", read_csv)],
)
def test_damaged_files_are_refused_and_nothing_is_left(refused, tmp_path, name, read):
    if name == "r.nc":
        save(RESPONSES, tmp_path / name)
    else:
        (tmp_path / name).write_text('{"a": [1, 2, 3]}' if name == "r.json" else "a,b\n1,2\n")
    whole = (tmp_path / name).read_bytes()

    @settings(
        max_examples=40,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=[HealthCheck.function_scoped_fixture],
    )
    @given(length=st.integers(0, len(whole) - 1))
    def check(length: int) -> None:
        (tmp_path / name).write_bytes(whole[:length])
        refused(read, tmp_path / name)

    check()
    assert [p.name for p in tmp_path.iterdir()] == [name]


def test_refused_writing_leaves_nothing(refused, tmp_path):
    refused(save, RESPONSES.isel(trial=[]), tmp_path / "r.nc")
    refused(save, RESPONSES, tmp_path / "r.xyz")
    refused(storage.write_json, tmp_path / "r.json", {"a": np.nan})
    assert list(tmp_path.iterdir()) == []
