"""Where the scatter of a saved run comes from: from replicas, or from their units.

One row a column and hypothesis. The statistic of a replica has the variance s^2 over replicas, of
which its units account for about the variance of its bootstrap draws. The rest, if there is any,
lies between replicas.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import xarray as xr

from pcsim import catalog
from pcsim.hypothesis_claim import Hypothesis
from pcsim.messages import refusal
from pcsim.stats import hierarchical_bootstrap
from pcsim.verdict_effects import samples

__all__ = ["Component", "components", "replica_files"]

DRAWS = 400


@dataclass(frozen=True)
class Component:
    """The scatter of one statistic over the replicas of one column."""

    hypothesis: str
    column: str
    n_replicas: int
    n_units: float
    """Included, mean over replicas."""
    effect: float
    """Distance from the null in the predicted direction."""
    spread: float
    """Standard deviation of the statistic over replicas, s."""
    share: float
    """Of s^2, what units do not account for; from 0 to 1."""
    lopsided: float
    """Mean less median over s, positive if the long tail is on the predicted side."""


def replica_files(run: str | Path) -> Iterator[tuple[str, str, list[Path]]]:
    """Yield hypothesis id, column and evidence files by replica of a finished battery.

    Raises
    ------
    ValueError
        If the folder has no evidence.
    """
    folders: dict[tuple[str, str], list[Path]] = {}
    for path in sorted(Path(run, "pieces", "observe").glob("*/*/*/evidence.nc")):
        folders.setdefault((path.parts[-4], path.parts[-3]), []).append(path)
    if not folders:
        found = f"{run} without evidence"
        raise ValueError(refusal("replica_files", found, "the folder of a finished battery"))
    for (hypothesis, column), files in folders.items():
        yield hypothesis, column, files


def components(run: str | Path) -> list[dict[str, object]]:
    """Return the rows of a finished run for all hypotheses of the catalog, sorted."""
    claims = [catalog.load("analysis", name) for name in catalog.names("analysis")]
    known = {claim.id: claim for claim in claims}
    rows = [
        asdict(row)
        for name, column, files in replica_files(run)
        if name in known and (row := _component(known[name], column, files)) is not None
    ]
    return sorted(rows, key=lambda row: (str(row["hypothesis"]), str(row["column"])))


def _component(claim: Hypothesis, column: str, files: list[Path]) -> Component | None:
    evidence = [xr.load_dataset(path, engine="h5netcdf") for path in files]
    if any(name not in one for one in evidence for name in (*claim.variables, "included")):
        return None
    replicas = [one for one in samples(evidence, claim.variables) if one is not None]
    if len(replicas) < 3:
        return None
    alone = [hierarchical_bootstrap([one], claim.combine, draws=DRAWS) for one in replicas]
    values = np.array([one.estimate for one in alone])
    within = float(np.mean([one.draws.var() for one in alone]))
    spread = float(values.std(ddof=1))
    mean = float(values.mean())
    lopsided = claim.direction * (mean - float(np.median(values))) / spread if spread > 0 else 0.0
    return Component(
        hypothesis=claim.id,
        column=column,
        n_replicas=len(values),
        n_units=float(np.mean([one.n_included for one in replicas])),
        effect=claim.direction * (mean - claim.null),
        spread=spread,
        share=max(0.0, 1.0 - within / spread**2) if spread > 0 else 0.0,
        lopsided=lopsided,
    )
