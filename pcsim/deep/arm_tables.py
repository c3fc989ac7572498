"""Tables of trained arms: each arm, and pairs of arms with the interval that their seeds allow."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pcsim.stats import mean_interval

__all__ = [
    "MEASURES",
    "arm_rows",
    "bounds_by_number",
    "comparison_rows",
    "in_order",
    "paired_row",
]

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


def comparison_rows(
    arms: Mapping[str, Results],
    published: Mapping[int, tuple[float, float]],
    controls: Iterable[str],
) -> list[str]:
    """Return the lines of a table: direct minus iterative, `paired_row` by number of levels.

    Parameters
    ----------
    arms
        "levels/<levels>/direct", ".../iterative" and "controls/<levels>/<control>"; those that are
        not there have no row.
    published
        Levels -> negative log likelihood of direct and of iterative inference, nats.
    controls
        Names of direct arms besides the plain one.
    """
    rows = [
        "levels,direct_arm,measure,direct,iterative,difference,low,high,n_seeds,interval_over,"
        "n_images,published_direct,published_iterative,published_difference"
    ]
    for levels, (direct, iterative) in published.items():
        places = {"direct": f"levels/{levels}/direct"}
        places |= {name: f"controls/{levels}/{name}" for name in controls}
        second = arms.get(f"levels/{levels}/iterative", {})
        for name, place in places.items():
            first = arms.get(place, {})
            if not set(first) & set(second):
                continue
            for measure in MEASURES:
                beside = ",,"
                if (name, measure) == ("direct", "negative_log_likelihood"):
                    beside = f"{direct:.3f},{iterative:.3f},{direct - iterative:.3f}"
                row = paired_row(first, second, measure)
                rows.append(f"{levels},{name},{measure},{row},{beside}")
    return rows


def in_order(name: str) -> list[str | int]:
    """Return what arms are sorted by: 5 iterations before 16."""
    return [int(part) if part.isdecimal() else part for part in name.split("/")]


def bounds_by_number(
    arms: Mapping[str, Iterable[Mapping[str, Any]]], starts: Mapping[str, str]
) -> dict[str, tuple[list[int], list[float]]]:
    """Return label -> the numbers that end the keys of its arms, and their mean free energies.

    Parameters
    ----------
    arms
        Key -> what `evaluate` found, seed by seed.
    starts
        Label -> what the keys of its arms start with.
    """
    found: dict[str, tuple[list[int], list[float]]] = {}
    for label, start in starts.items():
        own = {int(k.removeprefix(start)): v for k, v in arms.items() if k.startswith(start)}
        means = [
            float(np.mean([np.mean(one["free_energy"]) for one in own[n]])) for n in sorted(own)
        ]
        if means:
            found[label] = (sorted(own), means)
    return found
