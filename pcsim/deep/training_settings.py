"""How a model and its inference are trained."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any

import torch

from pcsim.deep.estimators import Estimator, Pathwise
from pcsim.deep.objective import Annealing, Objective
from pcsim.messages import check_choice, check_integer, check_number, refusal

__all__ = ["TrainingSettings"]

PRECISIONS = ("float32", "tf32", "bfloat16", "float64")
FREE = ("n_epochs", "patience", "device", "compile", "checkpoint_every")
"""What may differ between a run and its continuation."""


@dataclass(frozen=True, kw_only=True)
class TrainingSettings:
    """Numbers of one training run; the defaults are those of the thesis' MNIST models.

    Examples
    --------
    >>> TrainingSettings(n_epochs=3, learning_rate=-1.0)
    Traceback (most recent call last):
    ValueError: TrainingSettings: found learning_rate -1, expected a finite number above 0.
    """

    n_epochs: int = 10
    batch_size: int = 64
    """Of all processes together; what is left over at an epoch's end is left out."""
    learning_rate: float = 2e-4
    """Adam's, for the model and for the inference network."""
    learning_rate_decay: float = 0.999
    """What the learning rate is multiplied by after each epoch."""
    n_samples: int = 1
    """Samples of the posterior for each free energy."""
    n_iterations: int | None = None
    """Of inference; None takes the inference's own."""
    objective: Objective = field(default_factory=Objective)
    estimator: Estimator = field(default_factory=Pathwise)
    kl_warm_up: int = 0
    """Epochs over which the weight of the divergence grows linearly from 0 (`Annealing`)."""
    kl_target: float | None = None
    """Nats that the divergence is held to by a multiplier (`KLConstraint`), which is its weight:
    not beside a warm-up, another weight or free bits."""
    largest_gradient: float | None = None
    """Longer gradients are cut to this norm, model and inference each."""
    patience: int | None = None
    """Stop after this many epochs without a better validation free energy."""
    seed: int = 0
    device: str = "auto"
    precision: str = "float32"
    """"float32", "tf32" (CUDA), "bfloat16" (autocast), "float64"."""
    compile: bool = False
    """Compile the networks with torch.compile: slow at first, faster for long runs."""
    checkpoint_every: int = 1
    """Epochs."""

    def __post_init__(self) -> None:
        where = "TrainingSettings"
        for name in ("n_epochs", "batch_size", "n_samples", "checkpoint_every"):
            check_integer(where, name, getattr(self, name), low=1)
        check_integer(where, "kl_warm_up", self.kl_warm_up)
        check_integer(where, "seed", self.seed)
        if self.patience is not None:
            check_integer(where, "patience", self.patience, low=1)
        if self.n_iterations is not None:
            check_integer(where, "n_iterations", self.n_iterations)
        check_number(where, "learning_rate", self.learning_rate, positive=True)
        check_number(where, "learning_rate_decay", self.learning_rate_decay, low=0.0, high=1.0)
        if self.kl_target is not None:
            check_number(where, "kl_target", self.kl_target, low=0.0)
        if self.largest_gradient is not None:
            check_number(where, "largest_gradient", self.largest_gradient, positive=True)
        check_choice(where, "precision", self.precision, PRECISIONS)
        if not isinstance(self.device, str | torch.device):
            found, expected = f"device {self.device!r}", "a name such as 'auto', 'cpu' or 'cuda:0'"
            raise TypeError(refusal(where, found, expected, "Leave it out for 'auto'."))
        self._check_bound(where)

    def _check_bound(self, where: str) -> None:
        """Refuse what is no objective or estimator, and two ways to weigh the divergence."""
        kinds = (("objective", Objective, "Objective()"), ("estimator", Estimator, "Pathwise()"))
        for name, kind, example in kinds:
            value = getattr(self, name)
            if not isinstance(value, kind) or isinstance(value, type):
                found, expected = f"{name} {value!r}", f"an {name}, such as {example}"
                advice = "Give the object itself."
                raise TypeError(refusal(where, found, expected, advice))
        if self.kl_target is None:
            return
        for name, value, usual in (
            ("kl_warm_up", self.kl_warm_up, 0),
            ("objective.kl_weight", self.objective.kl_weight, 1.0),
            ("objective.free_bits", self.objective.free_bits, 0.0),
        ):
            if value != usual:
                found = f"kl_target {self.kl_target:g} beside {name} {value:g}"
                advice = "The multiplier alone weighs the divergence: leave one out."
                raise ValueError(refusal(where, found, f"{name} {usual:g}", advice))

    def objective_at(self, time: float) -> Objective:
        """Return what is minimised at a time, in epochs, where there is no target."""
        plain = self.objective
        if not self.kl_warm_up:
            return plain
        return Annealing(n_steps=self.kl_warm_up, end=plain.kl_weight).objective(time, plain)

    def record(self) -> dict[str, Any]:
        """Return what a continuation must share, as plain values."""
        plain = {one.name: getattr(self, one.name) for one in dataclasses.fields(self)}
        plain["objective"] = dataclasses.asdict(self.objective)
        plain["estimator"] = type(self.estimator).__name__
        return {name: value for name, value in plain.items() if name not in FREE}
