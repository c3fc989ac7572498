"""Tables of trained arms: each arm, and pairs of arms with the interval that their seeds allow."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pcsim.stats import mean_interval

__all__ = ["MEASURES", "arm_rows", "paired_row"]

MEASURES = {
    "negative_log_likelihood": ("log_likelihood", -1.0),
    "free_energy": ("free_energy", 1.0),
}
"""Name in tables -> name in results of `pcsim.deep.arms.evaluate`, and its sign."""

Results = Mapping[int, Mapping[str, Any]]
"""Seed -> what `evaluate` found."""


def of_images(one: Mapping[str, Any], measure: str) -> NDArray[Any]:
    """Return a measure of each test image of one trained model, (N,), nats."""
    name, sign = MEASURES[measure]
    return sign * np.array(one[name], float)


def arm_rows(arms: Mapping[str, Results]) -> list[str]:
    """Return the lines of a table: a row an arm and seed.

    `mutual_information_bound` is log n_test: the estimate is never above it, so a value near it is
    a lower bound and tells no arms apart.
    """
    rows = [
        "arm,seed,n_epochs,n_test,negative_log_likelihood,free_energy,amortization_gap,n_gap,"
        "mutual_information,mutual_information_bound,active_units"
    ]
    for name, results in arms.items():
        for seed, one in results.items():
            n_test, gap = len(one["free_energy"]), one.get("gap", ())
            numbers = (
                *(f"{of_images(one, measure).mean():.3f}" for measure in MEASURES),
                f"{np.mean(gap):.3f}" if len(gap) else "", str(len(gap)),
                f"{one['mutual_information']:.3f}", f"{math.log(n_test):.3f}",
                " ".join(map(str, one["active_units"])),
            )  # fmt: skip
            rows.append(f"{name},{seed},{len(one['history'])},{n_test},{','.join(numbers)}")
    return rows


def paired_row(first: Results, second: Results, measure: str) -> str:
    """Return means, first minus second, its 95 % interval, and over what the interval is taken.

    Seeds are paired, those that both arms have. Of a single seed the interval is over its test
    images: it says how sure the difference of two trained models is, not that of two methods.

    Examples
    --------
    >>> one = {0: {"free_energy": [3.0, 5.0, 4.0]}}
    >>> paired_row(one, {0: {"free_energy": [2.0, 2.0, 2.0]}}, "free_energy")
    '4.000,2.000,2.000,-0.484,4.484,1,images,3'
    """
    seeds = [seed for seed in first if seed in second]
    pairs = [(of_images(first[s], measure), of_images(second[s], measure)) for s in seeds]
    single = len(pairs) == 1
    differences = pairs[0][0] - pairs[0][1] if single else [(a - b).mean() for a, b in pairs]
    middle, low, high, _ = mean_interval(differences)
    means = [float(np.mean([part[side].mean() for part in pairs])) for side in (0, 1)]
    numbers = ",".join(f"{one:.3f}" for one in (*means, middle, low, high))
    return f"{numbers},{len(pairs)},{'images' if single else 'seeds'},{len(pairs[0][0])}"
