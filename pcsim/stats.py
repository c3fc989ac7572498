"""Statistics of the battery: intervals over replicas, corrections, effect sizes, exact tests."""

from __future__ import annotations

from pcsim.stats_bootstrap import (
    Bootstrap,
    Sample,
    hierarchical_bootstrap,
)
from pcsim.stats_intervals import bootstrap_p, interval
from pcsim.stats_student import Mean, mean_interval
from pcsim.stats_tests import (
    Jonckheere,
    McNemar,
    cohen_dz,
    holm,
    jonckheere,
    ks_similarity,
    ks_similarity_histogram,
    mcnemar_exact,
    rank_biserial,
)

__all__ = [
    "Bootstrap",
    "Jonckheere",
    "McNemar",
    "Mean",
    "Sample",
    "bootstrap_p",
    "cohen_dz",
    "hierarchical_bootstrap",
    "holm",
    "interval",
    "jonckheere",
    "ks_similarity",
    "ks_similarity_histogram",
    "mcnemar_exact",
    "mean_interval",
    "rank_biserial",
]
