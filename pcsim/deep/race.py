"""Ways to infer in a race on one model: what each starts from, its step, and the best there is."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from pcsim.deep.arms import examples
from pcsim.deep.convergence import converged, descent, first_reaching, gap_closed, judged
from pcsim.deep.draw import Posterior
from pcsim.deep.inference import Inference, Start
from pcsim.deep.inference_gradient import GradientAscent
from pcsim.deep.latent_gaussian import LatentGaussian
from pcsim.deep.posteriors import MeanField

__all__ = ["GRIDS", "lowest", "prepared", "raced", "tuned"]

GRIDS: Mapping[str, Sequence[float]] = {
    "gradient": (0.002, 0.005, 0.01, 0.02, 0.05),
    "momentum": (0.0005, 0.001, 0.002, 0.005, 0.01),
    "preconditioned": (0.1, 0.2, 0.35, 0.5, 1.0),
    "damped": (0.35, 0.5, 1.0, 2.0),
}
"""Rule -> step sizes tried on validation examples. A damped step is the first one tried: it is
halved where it does not help, example by example, and may so be larger."""


def lowest(
    model: LatentGaussian,
    x: Tensor,
    starts: Sequence[Posterior],
    *,
    n_iterations: int,
    others: Sequence[Posterior] = (),
) -> NDArray[Any]:
    """Return the lowest free energy of each example, (B,), over long searches.

    Parameters
    ----------
    starts
        Where a search begins each.
    others
        Estimates that count as they are.
    """
    # One search that has not ended would make gaps larger than all.
    ends = [*others, *(converged(model, x, one, n_iterations=n_iterations) for one in starts)]
    found: NDArray[Any] = np.min([judged(model, x, end).cpu().numpy() for end in ends], 0)
    return found


def prepared(
    model: LatentGaussian,
    frames: NDArray[Any],
    *,
    n_long: int,
    guess: Callable[[Tensor], Posterior] | None = None,
    prior: Start = MeanField.at_prior,
) -> tuple[Tensor, dict[str, Posterior], NDArray[Any]]:
    """Return frames from the second on as rows, where they start, and their lowest free energies.

    Parameters
    ----------
    frames : (T, N, n_x)
        Films; rows are in the order of frames.
    n_long
        Iterations of each of three long searches: through the film, from the prior, from the frame
        before.
    guess
        Where the search through the film begins; None takes the prior.
    prior
        The family of posteriors, at the prior.

    Returns
    -------
    x : ((T - 1) N, n_x)
    starts
        "cold" (the prior) and "warm" (the best estimate of the frame before).
    best : ((T - 1) N,)
        Nats.
    """
    x = examples(frames.reshape(-1, frames.shape[-1])).to(next(model.parameters()))
    n = frames.shape[1]
    start = prior(model, len(x)) if guess is None else guess(x)
    q = converged(model, x, start, n_iterations=n_long)
    before = q.with_parameters(tuple(one[:-n] for one in q.parameters))
    after = q.with_parameters(tuple(one[n:] for one in q.parameters))
    rows = x[n:]
    starts = {"cold": prior(model, len(rows)), "warm": before}
    best = lowest(model, rows, list(starts.values()), n_iterations=n_long, others=[after])
    return rows, starts, best


def tuned(
    model: LatentGaussian,
    x: Tensor,
    starts: Mapping[str, Posterior],
    best: NDArray[Any],
    *,
    n_iterations: int,
    n_samples: int = 5,
    level: float = 0.95,
    grids: Mapping[str, Sequence[float]] = GRIDS,
) -> tuple[dict[str, float], list[list[Any]]]:
    """Choose each rule's step by its first iteration at `level`, ties by the mean gap closed.

    Returns
    -------
    steps
        "<rule> <start>" -> step.
    search
        [rule, start, step, iterations, mean gap closed] of every step that was tried.
    """
    chosen, search = {}, []
    for (rule, grid), (start, q) in ((a, b) for a in grids.items() for b in starts.items()):
        keys = []
        for step in grid:
            curve = descent(
                GradientAscent(optimiser=rule, step=step), model, x, start=q,
                n_iterations=n_iterations, n_samples=n_samples, n_judges=10,
            )  # fmt: skip
            share = np.nan_to_num(gap_closed(curve, best), nan=-1e9, neginf=-1e9)
            keys.append((first_reaching(share, level), -float(share.mean())))
            search.append([rule, start, step, str(keys[-1][0]), -keys[-1][1]])
        chosen[f"{rule} {start}"] = grid[min(range(len(grid)), key=keys.__getitem__)]
    return chosen, search


def raced(
    model: LatentGaussian,
    x: Tensor,
    starts: Mapping[str, Posterior],
    lanes: Mapping[str, Inference],
    steps: Mapping[str, float],
    *,
    n_iterations: int,
    n_samples: int = 5,
    n_judges: int = 20,
) -> NDArray[Any]:
    """Return free energies in nats, (lane, start, n_iterations + 1, B).

    Parameters
    ----------
    lanes
        Inferences, which come after the rules.
    steps
        "<rule> <start>" -> its step; rules in the order in which they first come.
    """
    rules = list(dict.fromkeys(name.split()[0] for name in steps))
    curves = []
    for name in (*rules, *lanes):
        row = []
        for start, q in starts.items():
            lane: Inference = (
                lanes[name]
                if name in lanes
                else GradientAscent(optimiser=name, step=steps[f"{name} {start}"])
            )
            curve = descent(
                lane, model, x, start=q, n_iterations=n_iterations, n_samples=n_samples,
                n_judges=n_judges,
            )  # fmt: skip
            row.append(curve)
        curves.append(row)
    return np.array(curves)
