"""The axes of the cost curves count what they say that they count."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).resolve().parent.parent / "benchmarks"


@pytest.fixture
def curves(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import pc_curves

    yield pc_curves
    for name in ("pc_curves", "pc_loops", "pc_timing"):
        sys.modules.pop(name, None)


def test_depth_is_the_number_of_weight_matrices(curves):
    for what, value, sizes, batch, n_steps in curves.cases():
        weights, biases, (x, y) = curves.problem(sizes, batch)
        depth, width, t = (
            (value if what == name else usual)
            for name, usual in (("depth", 4), ("width", 256), ("T", 20))
        )
        assert len(weights) == len(biases) == depth
        assert {shape for w in weights for shape in w.shape} == {width, 10}
        assert n_steps == t
        assert len(x) == len(y) == (value if what == "batch" else 64)
