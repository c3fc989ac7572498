"""What do the pathway, the laminar column and their kin show in time, context and sound?

The claims about time, contrast, attention, rhythm, expectation, action and dendrites are put to the
circuits that were built for them, to the pathway and the column that were not, and to the same
controls as in `correspondence`. A model that lacks what a claim reads is N/A, never scored.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pcsim.experiment import Experiment, Run
from pcsim.experiment_battery import battery_pieces, collect_battery

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["EXPERIMENT"]

COLUMNS = (
    "LN", "DN", "ADAPT", "RB", "RETINA", "LGN", "PATH", "COLUMN", "JB", "FF", "HOSOYA", "OMS", "SS",
    "AUD", "AUD-adapt", "VM", "VM-gain", "NMDA", "TWO-STAGE",
)  # fmt: skip
HYPOTHESES = (
    "attention_gain",
    "biphasic_kernels",
    "dendritic_depth",
    "dynamic_predictive_coding",
    "latency_hierarchy",
    "local_global",
    "object_motion",
    "oddball_hierarchy",
    "onset_transients",
    "output_decorrelation",
    "repetition_probability",
    "rhythm_asymmetry",
    "surround_and_noise",
    "variance_dependence",
    "visuomotor_mismatch",
)


def figures(run: Run) -> dict[str, Figure]:
    """Draw the table of verdicts and the panels from what the run has saved."""
    from pcsim.experiment_figures import battery_figures

    return battery_figures(run)


EXPERIMENT = Experiment(
    name="rate_circuits",
    question="What do the pathway, the column and their kin show in time, context and sound?",
    scales={
        "quick": {"seeds": 3, "models": COLUMNS, "hypotheses": HYPOTHESES},
        "full": {"seeds": 5, "models": COLUMNS, "hypotheses": HYPOTHESES},
    },
    pieces=battery_pieces,
    collect=collect_battery,
    figures=figures,
)
