r"""What an iterative inference network sees of the state of inference.

Each encoding returns, level by level, the tensors (B, n) that enter the network of that level. The
thesis' two choices are the gradients of the free energy (eq. 3.1 to 3.2) and the errors that the
gradients are made of (eq. 3.4 to 3.6); either stands beside the current estimate.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from pcsim.deep.inference import Evaluation, Step, by_level, grouped
from pcsim.deep.latent_gaussian import LatentGaussian
from pcsim.deep.posteriors import MeanField

__all__ = ["Encoding", "ErrorEncoding", "GradientEncoding", "LogSignGradientEncoding"]


class Encoding(Protocol):
    """A choice of inputs."""

    def inputs(
        self, model: LatentGaussian, x: Tensor, step: Step, evaluation: Evaluation
    ) -> list[list[Tensor]]:
        """Return the inputs of each level's network, level 1 first, without a graph."""


@dataclass(frozen=True)
class GradientEncoding:
    """The estimate and the gradient of the free energy in it, parameter by parameter."""

    with_x: bool = True

    def inputs(
        self, model: LatentGaussian, x: Tensor, step: Step, evaluation: Evaluation
    ) -> list[list[Tensor]]:
        levels = estimates(model, step)
        for found, gradient in zip(levels, gradients(model, step), strict=True):
            found.extend(gradient)
        return with_observation(levels, x) if self.with_x else levels


@dataclass(frozen=True)
class LogSignGradientEncoding:
    r"""As `GradientEncoding`, the gradient as its size and its direction.

    .. math:: \log(|\nabla F| + \epsilon), \qquad \operatorname{sign} \nabla F

    Small gradients stand apart as well as large ones. Which of the two all of an example are, and a
    sign that all share, is seen by a network with ``normalise_inputs=False`` alone: the layer
    normalisation of `Iterative`, its default, takes away what the entries have in common.
    """

    with_x: bool = True
    floor: float = 1e-5
    r""":math:`\epsilon`"""

    def inputs(
        self, model: LatentGaussian, x: Tensor, step: Step, evaluation: Evaluation
    ) -> list[list[Tensor]]:
        levels = estimates(model, step)
        for found, gradient in zip(levels, gradients(model, step), strict=True):
            for one in gradient:
                found.extend([(one.abs() + self.floor).log(), one.sign()])
        return with_observation(levels, x) if self.with_x else levels


@dataclass(frozen=True)
class ErrorEncoding:
    r"""The estimate, the weighted error below each level and the one at it.

    .. math:: \xi_0 = \frac{\partial \log p(x|z_1)}{\partial g_1(z_1)}, \qquad
        \xi_l = \frac{\mu_l - \mu^p_l(z_{l+1})}{\sigma^{p\,2}_l(z_{l+1})}

    Both are averaged over samples of the posterior. Level l sees :math:`\xi_{l-1}, \xi_l`, and last
    the derivative of the energy of its further prior, if it has one (`priors` of the model).
    """

    with_x: bool = True

    def inputs(
        self, model: LatentGaussian, x: Tensor, step: Step, evaluation: Evaluation
    ) -> list[list[Tensor]]:
        levels = estimates(model, step)
        errors = weighted_errors(model, x, step, evaluation)
        if len(levels) == 1:  # one network for all there is
            levels[0].extend(errors)
        else:
            further = iter(errors[len(levels) + 1 :])
            for level, found in enumerate(levels):
                found.extend([errors[level], errors[level + 1]])
                if model.priors[level] is not None:
                    found.append(next(further))
        return with_observation(levels, x) if self.with_x else levels

    def from_below(self, level: int, n_estimates: int) -> list[int]:
        """Return the places of what comes from below among the inputs of a level (0 the lowest).

        Those are the data, where they are seen, and the error below the level; `n_estimates`
        tensors of the estimate lie between them. All other errors belong to the level itself.
        """
        if self.with_x and level == 0:
            return [0, 1 + n_estimates]
        return [n_estimates]


def weighted_errors(
    model: LatentGaussian, x: Tensor, step: Step, evaluation: Evaluation
) -> list[Tensor]:
    """Return the weighted errors, the data level's (B, n_x) first, then each latent level's.

    Last come the derivatives of the energies of further priors, of the levels that have one.
    """
    with torch.no_grad():
        draw = step.q.sample(model, evaluation.n_samples, evaluation.generator)
        errors = [model.output.weighted_error(x, model.output_parameters(draw.z[0])).mean(0)]
        # Where the mean is known it stands for its samples: less noise, the same expectation.
        values = step.q.mean if isinstance(step.q, MeanField) else draw.z
        for level, value in enumerate(values, start=1):
            above = draw.z[level] if level < len(draw.z) else None
            prediction, log_variance = model.prior(level, above)
            error = (value - prediction) * (-log_variance).exp()
            errors.append(error.mean(0) if error.ndim == 3 else error)
        for prior, z in zip(model.priors, draw.z, strict=True):
            if prior is not None:
                errors.append(prior.gradient(z, torch).mean(0))
    return errors


def estimates(model: LatentGaussian, step: Step) -> list[list[Tensor]]:
    """Return the detached parameters of each level, flattened to (B, n)."""
    return [[one.detach().flatten(1) for one in group] for group in by_level(model, step.q)]


def gradients(model: LatentGaussian, step: Step) -> list[list[Tensor]]:
    """Return the gradients of each level, flattened to (B, n)."""
    groups = grouped(model, step.q, step.gradient)
    return [[one.flatten(1) for one in group] for group in groups]


def with_observation(levels: list[list[Tensor]], x: Tensor) -> list[list[Tensor]]:
    """Put the data before the inputs of level 1."""
    return [[x, *levels[0]], *levels[1:]]
