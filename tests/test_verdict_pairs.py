"""Requirements against a control: they need as many pairs of replicas as a control does."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import xarray as xr

from pcsim.hypothesis import Control, Hypothesis, Reference, Requirement, judge
from pcsim.verdict import Outcome

N = 5


def claim() -> Hypothesis:
    """Return a claim whose requirement looks at a control of its own, "side"."""
    same = lambda model, seed: model  # noqa: E731
    beyond = Requirement(name="beats", statement="", combine=lambda m: m["e"], against="side")
    return Hypothesis(
        id="T02",
        name="A toy effect",
        claim="There is an effect.",
        family="toy",
        protocol="None.",
        statistic="Mean.",
        units="1",
        signal="output",
        falsified_if="No effect.",
        observe=lambda model, *, seed, scale: xr.Dataset(),
        variables=("e",),
        controls=(
            Control(name="main", statement="", transform=same),
            Control(name="side", statement="", transform=same, for_effect=False),
        ),
        reference=Reference(interval=(0.5, 1.5), status="computed", source="A paper"),
        requirements=(beyond,),
    )


def replicas(values, n_included=N):
    """Return evidence of six units a replica; the later replicas have none included."""
    return [
        xr.Dataset(
            {
                "e": ("unit", value + 0.01 * np.arange(-3, 3)),
                "included": ("unit", np.full(6, k < n_included)),
            }
        )
        for k, value in enumerate(values)
    ]


OURS = [1.0, 1.02, 0.97, 1.05, 0.99]
MAIN = [0.0, 0.01, -0.01, 0.02, 0.005]


@pytest.mark.parametrize("side", [0.1, 1.3])
@pytest.mark.parametrize("n_pairs", [1, 2])
def test_too_few_pairs_neither_keep_nor_break_a_requirement(side, n_pairs):
    theirs = replicas(side + 0.01 * np.arange(N), n_pairs)
    controls = {"main": replicas(MAIN), "side": theirs}
    found = judge(claim(), "A", replicas(OURS), controls, seeds=range(N))
    assert found.verdict == Outcome.INCONCLUSIVE
    assert found.requirements == "beats: not measured"
    assert "'beats' was not measured: too few of its control's units" in found.reason


@pytest.mark.parametrize(("side", "verdict"), [(0.1, "SUPPORTED"), (1.3, "REFUTED")])
def test_three_pairs_decide_a_requirement(side, verdict):
    controls = {"main": replicas(MAIN), "side": replicas(side + 0.01 * np.arange(N), 3)}
    assert judge(claim(), "A", replicas(OURS), controls, seeds=range(N)).verdict == verdict


def test_seeds_are_counted_without_controls():
    with pytest.raises(
        ValueError, match="2 seeds for 5 replicas of A, expected one seed a replica"
    ):
        judge(replace(claim(), requirements=()), "A", replicas(OURS), {}, seeds=[0, 1])
