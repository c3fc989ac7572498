"""Which published neural findings does each circuit show, and do the controls fail?

Every column of the roster is trained on natural images and put to every hypothesis beside its
controls. The figure is the table of verdicts; one panel a hypothesis shows the curves behind it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pcsim.catalog import names
from pcsim.experiment import Experiment, Run
from pcsim.experiment_battery import battery_pieces, collect_battery
from pcsim.roster import ROSTER

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["EXPERIMENT"]

COLUMNS = tuple(variant.label for variant in ROSTER)
HYPOTHESES = tuple(names("analysis"))


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
