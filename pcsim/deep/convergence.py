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
from pcsim.deep.networks import evaluating
from pcsim.deep.training_step import generator_for
from pcsim.messages import check_number, refusal
from pcsim.stats import mean_interval
from pcsim.stats_bootstrap import resampling_weights

__all__ = ["Closing", "closing", "converged", "descent", "first_reaching", "gap_closed", "judged"]


RUNAWAY = 1e9
"""Nats that stand for a free energy that is not finite."""


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
    with torch.no_grad(), evaluating(model):
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
    with torch.no_grad(), evaluating(model, inference):
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
    """The gap closed over iterations, with 95 % intervals over replicas and examples."""

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
    """Average the gap closed over replicas, with intervals.

    Replicas have seen the same examples, so a draw of the bootstrap takes replicas and examples
    crossed. Few replicas make it too narrow: of its interval and Student's over the replicas, each
    end is the farther one. Iterations are bounded by where the ends of the gap closed reach the
    level. Where inference ran off to infinity or NaN its free energy counts as 1e9 nats.

    Parameters
    ----------
    energy : (R, ..., K + 1, B)
        Free energy of each replica, lane, iteration and example.
    best : (R, B)
        The lowest each example could have.
    level
        What counts as closed.
    """
    energy = np.nan_to_num(energy, nan=RUNAWAY, posinf=RUNAWAY)
    rng = np.random.default_rng(seed)
    n_replicas, n = len(energy), energy.shape[-1]
    examples = np.concatenate([np.ones((1, n)), resampling_weights(rng, draws, n)]) / n
    replicas = resampling_weights(rng, draws, n_replicas) / n_replicas
    mean, lowest = energy @ examples.T, best @ examples.T
    first = mean[..., :1, :]
    lowest = lowest.reshape(n_replicas, *[1] * (mean.ndim - 2), -1)
    each = (first - mean) / (first - lowest)
    share = each[..., 0].mean(0)
    drawn = np.einsum("r...d,dr->...d", each[..., 1:], replicas)
    low, high = np.percentile(drawn, (2.5, 97.5), axis=-1)
    if n_replicas > 1:
        student = np.apply_along_axis(lambda one: mean_interval(one)[1:3], 0, each[..., 0])
        low, high = np.minimum(low, student[0]), np.maximum(high, student[1])

    def reached(curves: NDArray[Any]) -> NDArray[Any]:
        return np.apply_along_axis(lambda one: first_reaching(one, level), -1, curves)

    return Closing(
        share=share,
        share_ends=np.stack([low, high]),
        first=reached(share),
        first_ends=np.stack([reached(high), reached(low)]),
    )
