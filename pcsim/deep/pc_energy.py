"""Energies of predictive-coding nodes: how badly a prediction fits an activity, in nats.

Every energy is a negative log density of the activity `state` given its `prediction`, per example,
without the terms that depend on neither of them nor on a parameter. One that also says what every
unit adds (`terms`) serves outputs of which some units were not seen (`Seen`).
"""

from __future__ import annotations

import math
from typing import Any, Protocol, Self, cast, final

import torch
from torch import Tensor, nn
from torch.nn import functional

from pcsim.messages import check_number, refusal

__all__ = [
    "BinaryCrossEntropy",
    "CrossEntropy",
    "Energy",
    "Seen",
    "SquaredError",
    "summed",
    "whole",
]


class Energy(Protocol):
    """What a node asks of its energy; states and predictions are (batch, ...)."""

    quadratic: bool
    """Whether the node may be free: only then has it a lowest point in its own state. Methods in
    the errors ask more of free nodes: an energy of state minus prediction."""

    @property
    def precision(self) -> Tensor | float:
        """What errors are multiplied by, broadcasting to one example."""

    def __call__(self, state: Tensor, prediction: Tensor) -> Tensor:
        """Return the energy of every example, (batch,)."""

    def weighted_error(self, state: Tensor, prediction: Tensor) -> Tensor:
        """Return minus the derivative by the prediction."""

    def curvature(self, direction: Tensor, prediction: Tensor, state: Tensor) -> Tensor:
        """Return the second derivative by the prediction, times a direction."""

    def mean(self, prediction: Tensor) -> Tensor:
        """Return the activity that is expected."""

    def scaled(self, factor: Tensor | float) -> Self:
        """Return a new energy whose precision is this one's times a factor, and fixed."""


@final
class SquaredError(nn.Module):
    r"""Gaussian density with precision :math:`\Pi`: one number, or one a unit; learned if asked.

    .. math:: F = \tfrac12 \sum_i \left(\Pi_i \varepsilon_i^2 - \log \Pi_i\right), \qquad
        \xi = \Pi\varepsilon, \qquad
        \frac{\partial F}{\partial \log\Pi_i} = \tfrac12\left(\Pi_i\varepsilon_i^2 - 1\right)

    The constant :math:`\tfrac12\log 2\pi` a unit is left out, so that at precision 1 this is the
    energy that the field prints. Learned precisions are stored as `log_precision`.

    Parameters
    ----------
    precision
        One number, or a tensor that broadcasts to the shape of one example.
    learnable
        Whether the precision is a parameter.

    Examples
    --------
    >>> error = SquaredError(4.0)
    >>> error.weighted_error(torch.tensor([[3.0]]), torch.tensor([[1.0]]))
    tensor([[8.]])
    """

    quadratic = True
    log_precision: Tensor

    def __init__(self, precision: float | Tensor = 1.0, *, learnable: bool = False) -> None:
        super().__init__()
        if not isinstance(precision, Tensor):
            number = check_number("SquaredError", "precision", precision, positive=True)
            # One number in double precision keeps the type of what it multiplies.
            precision = torch.tensor(number, dtype=None if learnable else torch.float64)
        elif not (torch.isfinite(precision) & (precision > 0)).all():
            found = f"precision down to {precision.min().item():.6g}"
            advice = "Make every precision positive."
            raise ValueError(refusal("SquaredError", found, "finite numbers above 0", advice))
        log_precision = precision.detach().clone().log()
        if learnable:
            self.log_precision = nn.Parameter(log_precision)
        else:
            self.register_buffer("log_precision", log_precision)
        self._judged: tuple[Tensor, int, bool] | None = None

    @property
    def plain(self) -> bool:
        """Whether the precision is one number, fixed at 1; asked anew when it was written to.

        On a GPU, where to look at a number is to wait, writes through `.data` go unnoticed.
        """
        own = self._buffers.get("log_precision")
        if own is None or own.ndim:
            return False
        if own.device.type == "cpu":
            return own.item() == 0.0
        if self._judged is None or self._judged[0] is not own or self._judged[1] != own._version:
            self._judged = (own, own._version, float(own) == 0.0)
        return self._judged[2]

    @property
    def precision(self) -> Tensor:
        """The precision, broadcasting to one example."""
        return self.log_precision.exp()

    def forward(self, state: Tensor, prediction: Tensor) -> Tensor:
        """Return the energy of every example, (batch,)."""
        return 0.5 * self._doubled(state, prediction).flatten(1).sum(1)

    def terms(self, state: Tensor, prediction: Tensor) -> Tensor:
        """Return what every unit adds to the energy, (batch, ...)."""
        return 0.5 * self._doubled(state, prediction)

    def _doubled(self, state: Tensor, prediction: Tensor) -> Tensor:
        square = (state - prediction).square()
        return square if self.plain else self.precision * square - self.log_precision

    def weighted_error(self, state: Tensor, prediction: Tensor) -> Tensor:
        """Return precision times error."""
        error = state - prediction
        return error if self.plain else self.precision * error

    def curvature(self, direction: Tensor, prediction: Tensor, state: Tensor) -> Tensor:
        """Return precision times direction."""
        return direction if self.plain else self.precision * direction

    def mean(self, prediction: Tensor) -> Tensor:
        """Return the prediction itself."""
        return prediction

    def scaled(self, factor: Tensor | float) -> SquaredError:
        """Return a new energy with this precision times a number, or one a unit; not learned."""
        return SquaredError(self.precision * factor)


@final
class Seen(nn.Module):
    """An energy of those units of a node that were seen; others weigh and teach nothing.

    The density of those that were seen is that of all, the others integrated out: units of squared
    errors and of binary cross-entropies are independent. The classes of a `CrossEntropy` are not,
    and are seen together or not at all, activities of 0 standing for those that were not. So are
    the units of an energy without `terms`.
    """

    quadratic = False

    def __init__(self, energy: Energy, unseen: Tensor) -> None:
        super().__init__()
        self.energy, self.unseen = energy, unseen

    @property
    def precision(self) -> Tensor | float:
        """That of the energy."""
        return self.energy.precision

    def forward(self, state: Tensor, prediction: Tensor) -> Tensor:
        """Return the energy of every example, (batch,)."""
        if not hasattr(self.energy, "terms"):
            return self.energy(state, prediction).masked_fill(self.unseen.flatten(1).all(1), 0.0)
        terms: Tensor = cast(Any, self.energy).terms(state, prediction)
        return terms.masked_fill(self.unseen, 0.0).flatten(1).sum(1)

    def weighted_error(self, state: Tensor, prediction: Tensor) -> Tensor:
        """Return that of the energy, 0 where nothing was seen."""
        return self.energy.weighted_error(state, prediction).masked_fill(self.unseen, 0.0)

    def curvature(self, direction: Tensor, prediction: Tensor, state: Tensor) -> Tensor:
        """Return that of the energy, 0 where nothing was seen."""
        bent = self.energy.curvature(direction, prediction, state)
        return bent.masked_fill(self.unseen, 0.0)

    def mean(self, prediction: Tensor) -> Tensor:
        """Return that of the energy."""
        return self.energy.mean(prediction)

    def scaled(self, factor: Tensor | float) -> Seen:
        """Return that of the energy times a number, of the same units."""
        return Seen(self.energy.scaled(factor), self.unseen)


def whole(energy: Energy) -> Energy:
    """Return an energy of all units, whether some were seen or all."""
    return energy.energy if isinstance(energy, Seen) else energy


def summed(energies: Tensor) -> Tensor:
    """Return the sum over a batch, in at least single precision: half types end at 65504."""
    return energies.sum(dtype=torch.promote_types(energies.dtype, torch.float32))


@final
class CrossEntropy(nn.Module):
    r"""Categorical density; the prediction are logits, the state a distribution over dimension 1.

    .. math:: F = -w \sum_i z_i \log \mathrm{softmax}(p)_i, \qquad
        \xi = w\left(z - \mathrm{softmax}(p) \textstyle\sum_i z_i\right)

    Examples
    --------
    >>> target = torch.tensor([[0.0, 1.0]])
    >>> CrossEntropy(0.7).weighted_error(target, torch.zeros(1, 2))
    tensor([[-0.3500,  0.3500]])
    """

    quadratic = False
    limits = (0.0, math.inf)
    """Between which the states lie; energies that have no such limits need not say so."""

    def __init__(self, weight: float = 1.0) -> None:
        super().__init__()
        self.weight = check_number("CrossEntropy", "weight", weight, positive=True)

    @property
    def precision(self) -> float:
        """The weight."""
        return self.weight

    def forward(self, state: Tensor, prediction: Tensor) -> Tensor:
        """Return the energy of every example, (batch,)."""
        return self.terms(state, prediction).flatten(1).sum(1)

    def terms(self, state: Tensor, prediction: Tensor) -> Tensor:
        """Return what every unit adds to the energy, (batch, ...)."""
        return -self.weight * state * functional.log_softmax(prediction, dim=1)

    def weighted_error(self, state: Tensor, prediction: Tensor) -> Tensor:
        """Return target minus softmax, times the weight."""
        total = state.sum(1, keepdim=True)
        return self.weight * (state - functional.softmax(prediction, dim=1) * total)

    def curvature(self, direction: Tensor, prediction: Tensor, state: Tensor) -> Tensor:
        """Return the covariance of one draw, times the sum of the targets and a direction."""
        share, total = functional.softmax(prediction, dim=1), state.sum(1, keepdim=True)
        away = direction - (share * direction).sum(1, keepdim=True)
        return self.weight * share * away * total

    def mean(self, prediction: Tensor) -> Tensor:
        """Return the softmax of the logits."""
        return functional.softmax(prediction, dim=1)

    def scaled(self, factor: Tensor | float) -> CrossEntropy:
        """Return a new energy with this weight times a number."""
        return CrossEntropy(self.weight * float(factor))


@final
class BinaryCrossEntropy(nn.Module):
    r"""Bernoulli density of every unit; the prediction are logits.

    .. math:: F = w \sum_i \left(\log(1 + e^{p_i}) - z_i p_i\right), \qquad
        \xi = w\,(z - \mathrm{sigmoid}(p))
    """

    quadratic = False
    limits = (0.0, 1.0)

    def __init__(self, weight: float = 1.0) -> None:
        super().__init__()
        self.weight = check_number("BinaryCrossEntropy", "weight", weight, positive=True)

    @property
    def precision(self) -> float:
        """The weight."""
        return self.weight

    def forward(self, state: Tensor, prediction: Tensor) -> Tensor:
        """Return the energy of every example, (batch,)."""
        return self.terms(state, prediction).flatten(1).sum(1)

    def terms(self, state: Tensor, prediction: Tensor) -> Tensor:
        """Return what every unit adds to the energy, (batch, ...)."""
        return self.weight * (functional.softplus(prediction) - state * prediction)

    def weighted_error(self, state: Tensor, prediction: Tensor) -> Tensor:
        """Return state minus probability, times the weight."""
        return self.weight * (state - prediction.sigmoid())

    def curvature(self, direction: Tensor, prediction: Tensor, state: Tensor) -> Tensor:
        """Return the variance of one draw, times a direction."""
        probability = prediction.sigmoid()
        return self.weight * probability * (1 - probability) * direction

    def mean(self, prediction: Tensor) -> Tensor:
        """Return the probabilities."""
        return prediction.sigmoid()

    def scaled(self, factor: Tensor | float) -> BinaryCrossEntropy:
        """Return a new energy with this weight times a number."""
        return BinaryCrossEntropy(self.weight * float(factor))
