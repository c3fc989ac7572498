r"""How fast an inference closes the gap between where it starts and the best of its family.

.. math:: G_k = \frac{F_0 - F_k}{F_0 - F_\infty}

with free energies averaged over examples, and :math:`k_{95}` the first iteration at which
:math:`G_k \ge 0.95`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from pcsim.deep.draw import Posterior
from pcsim.deep.evaluation import elbo
from pcsim.deep.inference import Evaluation, Inference
from pcsim.deep.inference_gradient import GradientAscent
from pcsim.deep.latent_gaussian import LatentGaussian
from pcsim.deep.training_step import generator_for
from pcsim.messages import check_number, refusal

__all__ = ["Closing", "closing", "converged", "descent", "first_reaching", "gap_closed", "judged"]


def judged(
    model: LatentGaussian, x: Tensor, q: Posterior, *, n_judges: int = 20, seed: int = 0
) -> Tensor:
    """Return the free energy of each example, (B,), on noise that depends on the seed alone."""
    judge = generator_for(x.device, seed, 30)
    return -elbo(model, x, q, n_samples=n_judges, generator=judge).double()


def converged(
    model: LatentGaussian,
    x: Tensor,
    start: Posterior,
    *,
    n_iterations: int = 300,
    n_samples: int = 5,
    seed: int = 0,
) -> Posterior:
    """Return where a long inference ends that goes on from `start`, detached.

    Adam, whose steps shrink a hundredfold on the way.
    """
    decay = 0.01 ** (1 / max(n_iterations, 1))
    ascent = GradientAscent(step=0.05, decay=decay, n_iterations=n_iterations)
    evaluation = Evaluation(n_samples=n_samples, generator=generator_for(x.device, seed, 31))
    q = start
    with torch.no_grad():
        for step in ascent.refine(model, x, evaluation, evaluation.at(model, x, start)):
            q = step.q
    return q.with_parameters(tuple(one.detach() for one in q.parameters))


def descent(
    inference: Inference,
    model: LatentGaussian,
    x: Tensor,
    *,
    n_iterations: int,
    start: Posterior | None = None,
    n_samples: int = 5,
    n_judges: int = 20,
    seed: int = 0,
) -> NDArray[Any]:
    """Return the free energy of each example at each iteration, (n_iterations + 1, B), nats.

    Parameters
    ----------
    inference
        One that does not iterate ends after its single step: its value then repeats. Of one that
        makes a guess first, the iterations are those of the refinement, and what the guess ends at
        is its start.
    start
        Where inference starts; None takes the inference's own start (cold). An inference that
        cannot go on from a given estimate ignores it, but for the first value.
    n_samples, n_judges
        Samples for gradients, and for the free energies that are reported.
    """
    evaluation = Evaluation(n_samples=n_samples, generator=generator_for(x.device, seed, 32))
    refine = getattr(inference, "refine", None)
    with torch.no_grad():
        if start is not None and refine is not None:
            first = evaluation.at(model, x, start)
            steps = refine(model, x, evaluation, first, n_iterations)
        else:
            steps = inference.steps(model, x, evaluation, n_iterations)
        energies = [judged(model, x, step.q, n_judges=n_judges, seed=seed) for step in steps]
        if start is not None:
            if refine is None and (len(energies) > 1 or not n_iterations):
                del energies[0]  # a start of its own
            given = judged(model, x, start, n_judges=n_judges, seed=seed)
            energies = [given, *energies[max(len(energies) - n_iterations, 0) :]]
    energies = energies[-(n_iterations + 1) :]
    energies += [energies[-1]] * (n_iterations + 1 - len(energies))
    return torch.stack(energies).cpu().numpy()


def gap_closed(curve: ArrayLike, best: ArrayLike) -> NDArray[Any]:
    """Return G_k, (K + 1,), of free energies over iterations (K + 1, ...) and of the best (...).

    Examples
    --------
    >>> gap_closed([[110.0, 90.0], [101.0, 81.0], [100.0, 80.0]], [100.0, 80.0])
    array([0. , 0.9, 1. ])
    """
    values, lowest = np.asarray(curve, float), np.asarray(best, float)
    if values.shape[1:] != lowest.shape:
        found, expected = f"best of shape {lowest.shape}", f"{values.shape[1:]}, as a row of curve"
        raise ValueError(refusal("gap_closed", found, expected, "Give one value an example."))
    mean = values.reshape(len(values), -1).mean(1)
    share: NDArray[Any] = (mean[0] - mean) / (mean[0] - lowest.mean())
    return share


def first_reaching(share: ArrayLike, level: float = 0.95) -> float:
    """Return the first iteration at which the gap is closed to `level`; infinite if none.

    Examples
    --------
    >>> first_reaching([0.0, 0.9, 0.96, 0.99]), first_reaching([0.0, 0.9])
    (2.0, inf)
    """
    reached = np.flatnonzero(np.asarray(share) >= check_number("first_reaching", "level", level))
    return float(reached[0]) if reached.size else np.inf


@dataclass(frozen=True)
class Closing:
    """The gap closed over iterations, with 95 % intervals over examples."""

    share: NDArray[Any]
    """(..., K + 1)"""
    share_ends: NDArray[Any]
    """(2, ..., K + 1)"""
    first: NDArray[Any]
    """(...) the first iteration at the level; infinite if none."""
    first_ends: NDArray[Any]
    """(2, ...)"""


def closing(
    energy: NDArray[Any],
    best: NDArray[Any],
    *,
    level: float = 0.95,
    draws: int = 2000,
    seed: int = 0,
) -> Closing:
    """Average the gap closed over replicas, and bootstrap it over the examples of each.

    Parameters
    ----------
    energy : (R, ..., K + 1, B)
        Free energy of each replica, lane, iteration and example.
    best : (R, B)
        The lowest each example could have.
    level
        What counts as closed.
    """
    n = energy.shape[-1]
    weights = np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), draws)
    weights = np.concatenate([np.ones((1, n), int), weights]) / n
    mean, lowest = energy @ weights.T, best @ weights.T
    first = mean[..., :1, :]
    lowest = lowest.reshape(len(best), *[1] * (mean.ndim - 2), -1)
    share = ((first - mean) / (first - lowest)).mean(0)
    reached = np.apply_along_axis(lambda one: first_reaching(one, level), -2, share)
    tails = (2.5, 97.5)
    return Closing(
        share=share[..., 0],
        share_ends=np.percentile(share[..., 1:], tails, axis=-1),
        first=reached[..., 0],
        # An order statistic, not an interpolation: a draw may never get there.
        first_ends=np.percentile(reached[..., 1:], tails, axis=-1, method="inverted_cdf"),
    )
