"""Two rules on the same seeds, each at its own best learning rate: pairing, interval, table row."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from pcsim.stats import mean_interval

__all__ = ["PAIR_COLUMNS", "Pairing", "best_pair", "pair_row", "with_intervals"]

PAIR_COLUMNS = (
    "study,condition,quantity,pc,bp,gain,low,high,n_seeds,pc_rate,bp_rate,edge,published,holds"
)
"""Columns of a table; `gain` is how much better predictive coding is, with its 95 % interval.

`edge` names the rules whose best rate is the first or last of the grid: there may be a better one.
"""


@dataclass(frozen=True, eq=False)
class Pairing:
    """A quantity of both rules, one value a seed, and the learning rates it was had at."""

    pc: NDArray[np.float64]
    bp: NDArray[np.float64]
    pc_rate: float
    bp_rate: float
    higher: bool = False
    """Whether higher is better."""
    edge: str = ""
    """The rules whose best rate is at an end of the grid."""

    @property
    def gain(self) -> NDArray[np.float64]:
        """How much better predictive coding is, one value a seed."""
        return self.pc - self.bp if self.higher else self.bp - self.pc

    def saved(self, study: str, condition: float) -> xr.Dataset:
        """Return the values of both rules with their names, for the file of a run."""
        return xr.Dataset(
            {"pc": ("seed", self.pc), "bp": ("seed", self.bp)},
            coords={"seed": np.arange(len(self.pc)), "study": study, "condition": condition},
        )


def best_pair(pc: xr.DataArray, bp: xr.DataArray, *, higher: bool = False) -> Pairing:
    """Return both rules at the rate whose mean over seeds is best; arrays are (seed, rate).

    Examples
    --------
    >>> rates = {"seed": [0, 1], "rate": [0.1, 1.0]}
    >>> pc = xr.DataArray([[0.4, 0.2], [0.5, 0.3]], rates, ("seed", "rate"))
    >>> pair = best_pair(pc, pc + [[0.0, 0.5]])
    >>> pair.pc_rate, pair.bp_rate, pair.gain.round(2).tolist()
    (1.0, 0.1, [0.2, 0.2])
    """
    found: list[tuple[NDArray[np.float64], float]] = []
    edges = []
    for rule, values in (("pc", pc), ("bp", bp)):
        means = values.mean("seed")
        place = int(means.argmax("rate") if higher else means.argmin("rate"))
        best = values.isel(rate=place)
        found.append((best.to_numpy().astype(np.float64), float(best["rate"])))
        if place in (0, values.sizes["rate"] - 1) and values.sizes["rate"] > 1:
            edges.append(rule)
    (ours, our_rate), (theirs, their_rate) = found
    return Pairing(ours, theirs, our_rate, their_rate, higher, " ".join(edges))


def pair_row(study: str, condition: str, quantity: str, pair: Pairing, published: str) -> str:
    """Return a row of the table; `holds` is "yes" or "no" where the interval leaves out 0.

    Where "equal" is published, it is "yes" if no seed differs.
    """
    found = mean_interval(pair.gain)
    holds = "open"
    if published == "equal":
        holds = "no" if pair.gain.any() else "yes"
    elif found.n > 1 and (found.low > 0 or found.high < 0):
        holds = "yes" if found.low > 0 else "no"
    numbers = (pair.pc.mean(), pair.bp.mean(), *found[:3])
    text = ",".join(f"{one:.6g}" for one in numbers)
    rates = f"{pair.pc_rate:g},{pair.bp_rate:g}"
    return (
        f"{study},{condition},{quantity},{text},{found.n},{rates},{pair.edge},{published},{holds}"
    )


def with_intervals(rows: xr.Dataset) -> xr.Dataset:
    """Return mean, low and high over seeds of `pc` and `bp` (row, seed), for a figure.

    Seeds that a row does not have are left out; one seed alone has no interval.
    """
    found = {}
    for rule in ("pc", "bp"):
        bounds = []
        for values in rows[rule].transpose("row", "seed").to_numpy():
            one = mean_interval(values[np.isfinite(values)])
            bounds.append([one.estimate, one.low, one.high] if one.n > 1 else [one.estimate] * 3)
        found[rule] = (("row", "bound"), np.array(bounds))
    condition = ("row", rows["condition"].to_numpy())
    return xr.Dataset(found, coords={"bound": ["mean", "low", "high"], "condition": condition})
