"""How a predictive-coding network is trained."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import nn
from torch.optim import SGD, Adam, AdamW, Optimizer

from pcsim.deep.pc_rules import InferenceLearning, Rule
from pcsim.deep.run_identity import described, plain_text
from pcsim.deep.training_settings import FREE
from pcsim.messages import check_choice, check_integer, check_number, refusal

__all__ = ["PCTrainingSettings"]

OPTIMISERS: Mapping[str, type[Optimizer]] = {"sgd": SGD, "adam": Adam, "adamw": AdamW}
SCORES = ("energy", "errors")


@dataclass(frozen=True, kw_only=True)
class PCTrainingSettings:
    """Numbers of one training run.

    Examples
    --------
    >>> PCTrainingSettings(optimiser="lion")  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    ValueError: PCTrainingSettings: found optimiser 'lion', expected one of 'adam', 'adamw', ...
    """

    n_epochs: int = 10
    rule: Rule = field(default_factory=InferenceLearning)
    """How weights learn from a batch; see `pc_rules`."""
    batch_size: int = 128
    """Of all processes together; what is left over at an epoch's end is left out."""
    optimiser: str = "adam"
    """"sgd", "adam" or "adamw"."""
    learning_rate: float = 1e-3
    amortizer_rate: float | None = None
    """Learning rate of the amortizer; None takes the network's."""
    momentum: float = 0.0
    """Of "sgd"."""
    weight_decay: float = 0.0
    schedule: Callable[[float], float] | None = None
    """Time in epochs -> what the learning rates are multiplied by. Runs are compared by its name,
    arguments of `partial` and fields of a dataclass, not by its code."""
    largest_gradient: float | None = None
    """Longer gradients are cut to this norm, network and amortizer each."""
    score: str = "energy"
    """What validation examples are judged by: "energy" of what is held, as whole inputs predict it
    (without them, where the network settles), or "errors", the share that `misclassified` finds."""
    patience: int | None = None
    """Stop after this many epochs without a better score; the best weights are what is left."""
    seed: int = 0
    """Of the order of examples and of what `prepare` draws."""
    device: str = "auto"
    checkpoint_every: int = 1
    """Epochs."""

    def __post_init__(self) -> None:
        where = "PCTrainingSettings"
        for name in ("n_epochs", "batch_size", "checkpoint_every"):
            check_integer(where, name, getattr(self, name), low=1)
        check_integer(where, "seed", self.seed)
        if self.patience is not None:
            check_integer(where, "patience", self.patience, low=1)
        check_choice(where, "optimiser", self.optimiser, OPTIMISERS)
        check_choice(where, "score", self.score, SCORES)
        check_number(where, "learning_rate", self.learning_rate, positive=True)
        check_number(where, "momentum", self.momentum, low=0.0, high=1.0)
        check_number(where, "weight_decay", self.weight_decay, low=0.0)
        for name in ("amortizer_rate", "largest_gradient"):
            if getattr(self, name) is not None:
                check_number(where, name, getattr(self, name), positive=True)
        if self.schedule is not None and not callable(self.schedule):
            found, advice = f"schedule {self.schedule!r}", "Such as lambda time: 0.9**time."
            raise TypeError(refusal(where, found, "a function of time, or None", advice))
        if self.momentum and self.optimiser != "sgd":
            found, advice = f"momentum {self.momentum:g} of {self.optimiser!r}", "Take 'sgd'."
            raise ValueError(refusal(where, found, "momentum 0", advice))
        if not callable(getattr(self.rule, "learn", None)) or isinstance(self.rule, type):
            found, advice = f"rule {self.rule!r}", "See pcsim.deep.pc_rules."
            raise TypeError(refusal(where, found, "a rule, such as InferenceLearning()", advice))

    def record(self) -> dict[str, Any]:
        """Return what a continuation must share, as plain values."""
        plain = {one.name: getattr(self, one.name) for one in dataclasses.fields(self)}
        plain["rule"] = dict(described("rule", self.rule))
        plain["schedule"] = plain_text(self.schedule)
        return {name: value for name, value in plain.items() if name not in FREE}

    def optimiser_of(self, network: nn.Module, rate: float) -> Optimizer:
        """Return an optimiser of what is free to learn."""
        learned = [one for one in network.parameters() if one.requires_grad]
        if not learned:
            advice = "Call requires_grad_() on what is to learn."
            raise ValueError(refusal("train", "nothing that learns", "a free parameter", advice))
        more = {"momentum": self.momentum} if self.optimiser == "sgd" else {}
        make: Any = OPTIMISERS[self.optimiser]
        made: Optimizer = make(learned, lr=rate, weight_decay=self.weight_decay, **more)
        return made
