"""A hypothesis: a published neural finding as protocol, statistic, reference and controls.

A model is shown the protocol (`observe`) and leaves evidence, one row a unit. Evidence of trained
replicas, and of the controls that must fail, is judged by one rule for all hypotheses.
"""

from __future__ import annotations

from pcsim.hypothesis_claim import Hypothesis, check_evidence, observation
from pcsim.hypothesis_expectations import expectation_table
from pcsim.hypothesis_judge import judge, not_applicable
from pcsim.hypothesis_parts import Control, Means, Reference, Requirement

__all__ = [
    "Control",
    "Hypothesis",
    "Means",
    "Reference",
    "Requirement",
    "check_evidence",
    "expectation_table",
    "judge",
    "not_applicable",
    "observation",
]
