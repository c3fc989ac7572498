"""Which published neural findings does each circuit show, and do the controls fail?

Circuits of the early visual system, raised on natural images, and their controls are put to the
claims about space and contrast. The figure is the table of verdicts; one panel a hypothesis shows
the curves behind it. Other columns and claims can be named: ``--set models=... hypotheses=...``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pcsim.experiment import Experiment, Run
from pcsim.experiment_battery import battery_pieces, collect_battery

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["EXPERIMENT"]

COLUMNS = (
    "LN", "DN", "ADAPT", "LCA", "RB", "RB-cut", "RB-noise", "RB-untr", "RB-gauss", "RETINA", "LGN",
    "BOGACZ",
)  # fmt: skip
HYPOTHESES = (
    "contrast_saturation",
    "end_stopping",
    "feedback_loss",
    "spatial_whitening",
    "surround_suppression",
    "temporal_whitening",
)


def figures(run: Run) -> dict[str, Figure]:
    """Draw the table of verdicts and the panels from what the run has saved."""
    from pcsim.experiment_figures import battery_figures

    return battery_figures(run)


EXPERIMENT = Experiment(
    name="correspondence",
    question="Which published neural findings does each circuit show, and do the controls fail?",
    scales={
        "quick": {"seeds": 3, "models": COLUMNS, "hypotheses": HYPOTHESES},
        "full": {"seeds": 5, "models": COLUMNS, "hypotheses": HYPOTHESES},
    },
    pieces=battery_pieces,
    collect=collect_battery,
    figures=figures,
)
