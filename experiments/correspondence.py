"""Which published neural findings does each model show, and do the controls fail?

Rate circuits, their deep twins and the controls are put to the claims of the battery. At scale
quick these are the twelve of the first release and the columns that they tell apart; at scale full
all claims and 37 columns, some of them trained for longer. Protocols are of the same size: more
replicas tell more than more stimuli do, and the table then takes hours, not days (``--set
protocols=full --set spared=`` has it all). The figure is the table of verdicts; one panel a
hypothesis shows the curves behind it. Others can be named, or ``all``: ``--set models=...
--set hypotheses=...``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pcsim.experiment import Experiment, Run
from pcsim.experiment_battery import battery_pieces, collect_battery

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["EXPERIMENT"]

FIRST_RELEASE = (
    "spatial_whitening",
    "temporal_whitening",
    "biphasic_kernels",
    "end_stopping",
    "surround_suppression",
    "feedback_loss",
    "temporal_straightening",
    "noise_correlations",
    "oddball_hierarchy",
    "visuomotor_mismatch",
    "few_iterations",
    "object_similarity",
)
"""H01, H04, H05, H10, H11, H12, H18, H20, H23, H26, H32, H42."""
FIRST_COLUMNS = (
    "LN", "DN", "ADAPT", "LCA", "RB", "RB-cut", "RETINA", "LGN", "AUD", "AUD-adapt", "VM",
    "VM-gain", "VAE-dir", "VAE-iter",
)  # fmt: skip
COLUMNS = (
    "LN", "DN", "ADAPT", "LCA", "RB", "RB-cut", "RB-noise", "RB-untr", "RB-gauss", "VAE-dir",
    "VAE-iter", "ARF", "PREDNET-s", "PREDNET-noE", "RETINA", "LGN", "JB", "PATH", "PATH-cut",
    "COLUMN", "BOGACZ", "FF", "HOSOYA", "OMS", "SS", "AUD", "AUD-adapt", "VM", "VM-gain", "NMDA",
    "TWO-STAGE", "ARF-policy", "IID-policy", "CHAIN", "PCN", "PCN-weak", "VAE-apical",
)  # fmt: skip
"""Models in their own right; RB is the battery's RB-sparse, RB-gauss its Gaussian twin. What only
serves as a control is trained where a claim asks for it."""
LARGE = ("JB", "PATH", "PATH-cut", "VAE-apical")
"""Columns that take most of the time; at scale full they meet only claims that expected something
of them before the first run."""


def figures(run: Run) -> dict[str, Figure]:
    """Draw the table of verdicts and the panels from what the run has saved."""
    from pcsim.experiment_figures import battery_figures

    return battery_figures(run)


EXPERIMENT = Experiment(
    name="correspondence",
    question="Which published neural findings does each circuit show, and do the controls fail?",
    scales={
        "quick": {
            "seeds": 3,
            "models": FIRST_COLUMNS,
            "hypotheses": FIRST_RELEASE,
            "protocols": "quick",
            "spared": (),
        },
        "full": {
            "seeds": 5,
            "models": COLUMNS,
            "hypotheses": "all",
            "protocols": "quick",
            "spared": LARGE,
        },
    },
    pieces=battery_pieces,
    collect=collect_battery,
    figures=figures,
)
