r"""What the data level looks like given its parameters: Bernoulli, Gaussian, multinomial.

Every output has one interface (`Output`). Its `parameters` are a tuple of tensors (..., n_x): first
the `n_parameters` that the network predicts, then the one that the model learns for all examples
alike, if there is one (`shared_shape`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from pcsim.deep.discretized import log_mass, log_mass_slope, log_tail, log_tail_slope
from pcsim.deep.gaussians import noise, required
from pcsim.messages import check_choice, check_integer, check_number, refusal

__all__ = ["Bernoulli", "Gaussian", "Multinomial", "Output"]

Parameters = tuple[Tensor, ...]
LOG_PRECISION_LIMITS = (-15.0, 7.0)
"""Learned log precisions of outputs are clamped to this range."""


class Output(Protocol):
    """The distribution of the data given the parameters that a decoder predicts."""

    @property
    def n_parameters(self) -> int:
        """How many numbers a feature the network predicts."""

    def shared_shape(self, n_x: int) -> tuple[int, ...] | None:
        """Shape of the parameter that is learned but not predicted, if there is one."""

    def log_prob(self, x: Tensor, parameters: Parameters) -> Tensor:
        """Log probability of `x` in nats, summed over features: (..., n_x) to (...)."""

    def mean(self, parameters: Parameters) -> Tensor:
        """Expectation of `x`, (..., n_x)."""

    def sample(self, parameters: Parameters, generator: torch.Generator | None) -> Tensor:
        """Draw one `x` for each set of parameters, (..., n_x)."""

    def check(self, where: str, x: Tensor) -> None:
        """Refuse data (..., n_x) that this distribution gives no probability to; `where` asks."""

    def weighted_error(self, x: Tensor, parameters: Parameters) -> Tensor:
        """Gradient of `log_prob` in the first parameter, (..., n_x)."""


@dataclass(frozen=True)
class Bernoulli:
    r"""Binary features; the parameter is the logit :math:`a`, the mean :math:`\sigma(a)`.

    Numbers between 0 and 1 are taken as probabilities: `log_prob` is its mean over them.
    """

    @property
    def n_parameters(self) -> int:
        return 1

    def shared_shape(self, n_x: int) -> tuple[int, ...] | None:
        return None

    def log_prob(self, x: Tensor, parameters: Parameters) -> Tensor:
        (logit,) = parameters
        return (x * logit - torch.nn.functional.softplus(logit)).sum(-1)

    def mean(self, parameters: Parameters) -> Tensor:
        return parameters[0].sigmoid()

    def sample(self, parameters: Parameters, generator: torch.Generator | None) -> Tensor:
        return torch.bernoulli(parameters[0].sigmoid(), generator=required(generator))

    def check(self, where: str, x: Tensor) -> None:
        low, high = float(x.min()), float(x.max())
        if low < 0 or high > 1:
            advice = "Divide greys by 255 and binarise them, or take another output."
            expected = "numbers in 0 to 1 for Bernoulli"
            raise ValueError(refusal(where, f"x from {low:g} to {high:g}", expected, advice))

    def weighted_error(self, x: Tensor, parameters: Parameters) -> Tensor:
        return x - parameters[0].sigmoid()


@dataclass(frozen=True)
class Gaussian:
    r"""Real features, :math:`x \sim N(\mu, \Pi^{-1})` with a diagonal precision.

    With a `bin_width` the data are quantised: `x` is the centre of a bin and its probability the
    Gaussian's mass between the bin's edges. For 8-bit images scaled as k/255 take
    ``bin_width=1 / 255, limits=(0.0, 1.0)``: the two outermost bins then reach to infinity, so that
    the 256 probabilities sum to 1.

    Examples
    --------
    >>> levels = torch.arange(256.0)[:, None] / 255
    >>> image = Gaussian(4.0, bin_width=1 / 255, limits=(0.0, 1.0))
    >>> probability = image.log_prob(levels, (torch.full((256, 1), 0.3),)).exp()
    >>> round(probability.sum().item(), 4)
    1.0
    """

    precision: float | str = 0.7
    """A number; or learned: "global" (one), "feature" (one a feature), "predicted" (from z).

    Learned ones are silently held between exp(-15) and exp(7), a sigma of 0.03: scale up data that
    are left with less noise, or give the number.
    """
    link: str = "identity"
    """"identity", or "sigmoid" for data in [0, 1]: what the first parameter passes through."""
    bin_width: float | None = None
    limits: tuple[float, float] | None = None
    """Centres of the outermost bins."""

    def __post_init__(self) -> None:
        where = "Gaussian"
        if isinstance(self.precision, str):
            check_choice(where, "precision", self.precision, ("global", "feature", "predicted"))
        else:
            check_number(where, "precision", self.precision, positive=True)
        check_choice(where, "link", self.link, ("identity", "sigmoid"))
        if self.bin_width is not None:
            check_number(where, "bin_width", self.bin_width, positive=True)
        elif self.limits is not None:
            found, advice = f"limits {self.limits} without bin_width", "Give the width of a bin."
            raise ValueError(refusal(where, found, "a bin_width beside limits", advice))
        if self.bin_width is not None and self.limits is not None:
            if not isinstance(self.limits, Sequence) or len(self.limits) != 2:
                found, advice = f"limits {self.limits!r}", "Write (0.0, 1.0) for k/255."
                raise ValueError(refusal(where, found, "the two outermost centres", advice))
            low, high = (check_number(where, "limits", one) for one in self.limits)
            n_bins = (high - low) / self.bin_width
            if not (high > low and abs(n_bins - round(n_bins)) < 1e-6 * n_bins):
                found = f"limits {self.limits} for bins of {self.bin_width:g}"
                expected = "a whole number of bins from the first to the second"
                raise ValueError(refusal(where, found, expected))

    @property
    def n_parameters(self) -> int:
        return 2 if self.precision == "predicted" else 1

    def shared_shape(self, n_x: int) -> tuple[int, ...] | None:
        return {"global": (1,), "feature": (n_x,)}.get(str(self.precision))

    def mean(self, parameters: Parameters) -> Tensor:
        return parameters[0].sigmoid() if self.link == "sigmoid" else parameters[0]

    def log_precision(self, parameters: Parameters) -> Tensor:
        """Log precision of each feature, broadcastable to the mean."""
        if isinstance(self.precision, str):
            return parameters[1].clamp(*LOG_PRECISION_LIMITS)
        return parameters[0].new_tensor(math.log(self.precision))

    def log_prob(self, x: Tensor, parameters: Parameters) -> Tensor:
        mean, log_precision = self.mean(parameters), self.log_precision(parameters)
        if self.bin_width is not None:
            root = (0.5 * log_precision).exp()
            return self._log_mass(x, (x - mean) * root, self.bin_width * root).sum(-1)
        each = log_precision.exp() * (x - mean).square() - log_precision + math.log(2 * math.pi)
        return -0.5 * each.sum(-1)

    def _log_mass(self, x: Tensor, centre: Tensor, width: Tensor) -> Tensor:
        mass = log_mass(centre, width)
        if self.limits is not None:
            lowest, highest = self._outermost(x)
            mass = torch.where(lowest, log_tail(centre + width / 2), mass)
            mass = torch.where(highest, log_tail(width / 2 - centre), mass)
        return mass

    def _outermost(self, x: Tensor) -> tuple[Tensor, Tensor]:
        assert self.limits is not None
        assert self.bin_width is not None
        low, high = self.limits
        return x < low + self.bin_width / 2, x > high - self.bin_width / 2

    def sample(self, parameters: Parameters, generator: torch.Generator | None) -> Tensor:
        mean, log_precision = self.mean(parameters), self.log_precision(parameters)
        x = mean + noise(mean.shape, mean, generator) * (-0.5 * log_precision).exp()
        if self.bin_width is None:
            return x
        low, high = self.limits if self.limits is not None else (0.0, math.inf)
        x = low + self.bin_width * ((x - low) / self.bin_width).round()
        return x if self.limits is None else x.clamp(low, high)

    def check(self, where: str, x: Tensor) -> None:
        """Refuse binned data outside the limits, and what lies apart from the centres of bins.

        Centres are a whole number of bins from the lower limit; without limits, from each other.
        """
        if self.bin_width is None:
            return
        low, high, edge = float(x.min()), float(x.max()), 0.5 * self.bin_width
        if self.limits is not None and (
            low < self.limits[0] - edge or high > self.limits[1] + edge
        ):
            expected = f"numbers in the bins around {self.limits[0]:g} to {self.limits[1]:g}"
            advice = "Scale the data (greys by 1/255), or change the limits of the Gaussian."
            raise ValueError(refusal(where, f"x from {low:g} to {high:g}", expected, advice))
        start = low if self.limits is None else self.limits[0]
        place = (x - start) / self.bin_width
        eps = torch.finfo(x.dtype).eps if x.is_floating_point() else 0.0
        rounding = 4 * eps * max(abs(low), abs(high)) / self.bin_width
        bad = int(((place - place.round()).abs() > 0.01 + rounding).sum())
        if bad:
            found = f"{bad} of {x.numel()} entries of x between the centres of bins"
            expected = f"{start:g} and whole multiples of {self.bin_width:g} from there"
            advice = "Undo what noise was added (dequantisation), or leave out bin_width."
            raise ValueError(refusal(where, found, expected, advice))

    def weighted_error(self, x: Tensor, parameters: Parameters) -> Tensor:
        mean, log_precision = self.mean(parameters), self.log_precision(parameters)
        slope = mean * (1 - mean) if self.link == "sigmoid" else 1.0
        if self.bin_width is None:
            return log_precision.exp() * (x - mean) * slope
        root = (0.5 * log_precision).exp()
        centre, width = (x - mean) * root, self.bin_width * root
        error = -log_mass_slope(centre, width)
        if self.limits is not None:
            lowest, highest = self._outermost(x)
            error = torch.where(lowest, -log_tail_slope(centre + width / 2), error)
            error = torch.where(highest, log_tail_slope(width / 2 - centre), error)
        return error * root * slope


@dataclass(frozen=True)
class Multinomial:
    """Counts, such as words of a document; the parameters are the logits of one event.

    The log probability is that of the events in order: the multinomial coefficient, which depends
    on the counts alone, is left out. So exp(-log_prob / n) is the perplexity of n words.
    """

    n_events: int = 100
    """Events that `sample` draws and `mean` expects; `log_prob` counts those in the data."""

    def __post_init__(self) -> None:
        check_integer("Multinomial", "n_events", self.n_events, low=1)

    @property
    def n_parameters(self) -> int:
        return 1

    def shared_shape(self, n_x: int) -> tuple[int, ...] | None:
        return None

    def log_prob(self, x: Tensor, parameters: Parameters) -> Tensor:
        return (x * parameters[0].log_softmax(-1)).sum(-1)

    def mean(self, parameters: Parameters) -> Tensor:
        return self.n_events * parameters[0].softmax(-1)

    def sample(self, parameters: Parameters, generator: torch.Generator | None) -> Tensor:
        probability = parameters[0].softmax(-1)
        flat = probability.reshape(-1, probability.shape[-1])
        events = torch.multinomial(flat, self.n_events, True, generator=required(generator))
        counts = torch.zeros_like(flat).scatter_add(1, events, torch.ones_like(events).to(flat))
        return counts.reshape(probability.shape)

    def check(self, where: str, x: Tensor) -> None:
        bad = (
            int(((x < 0) | (x != x.round())).sum()) if x.is_floating_point() else int((x < 0).sum())
        )
        if bad:
            found = f"{bad} of {x.numel()} entries of x negative or no whole number"
            advice = "Give the count of each event, or take another output."
            raise ValueError(refusal(where, found, "counts for Multinomial", advice))

    def weighted_error(self, x: Tensor, parameters: Parameters) -> Tensor:
        return x - x.sum(-1, keepdim=True) * parameters[0].softmax(-1)
