r"""A race against the clock: nats per second of one inference and of others on the same model.

.. math:: v_k = (F_0 - F_k) / t_k

with :math:`F_0` the free energy at the prior and :math:`t_k` the time at which the estimate of
iteration k is there. Its own free energy, which tells how good it is, comes after that. On a CPU
the seconds of a race are those of the processor, so that other work on the machine does not count.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pcsim.deep.convergence import descent
from pcsim.deep.draw import Posterior
from pcsim.deep.evaluation import elbo
from pcsim.deep.inference import Evaluation, Inference, Step
from pcsim.deep.inference_gradient import GradientAscent
from pcsim.deep.latent_gaussian import LatentGaussian
from pcsim.deep.training_step import generator_for
from pcsim.stats import mean_interval

__all__ = ["Chosen", "Timed", "chosen_steps", "race_lanes", "race_table", "timed"]


@dataclass(frozen=True)
class Timed:
    """An inference run against the clock."""

    of_examples: NDArray[Any]
    """(n_steps + 1, B) nats, judged on the same noise at every step."""
    seconds: NDArray[Any]
    """(n_steps + 1,) from the start until the estimate was there; the judging left out."""

    @property
    def free_energy(self) -> NDArray[Any]:
        """(n_steps + 1,) mean over examples, nats."""
        mean: NDArray[Any] = self.of_examples.mean(1)
        return mean


@dataclass(frozen=True, kw_only=True)
class Clock(Evaluation):
    """An evaluation that notes when it is asked for: the estimate is there by then."""

    now: Callable[[], float]
    arrivals: list[float] = field(default_factory=list)

    def at(self, model: LatentGaussian, x: Tensor, q: Posterior) -> Step:
        """Note the time, then evaluate."""
        if x.is_cuda:
            torch.cuda.synchronize(x.device)
        self.arrivals.append(self.now())
        return super().at(model, x, q)


def timed(
    inference: Inference,
    model: LatentGaussian,
    x: Tensor,
    *,
    n_iterations: int,
    n_samples: int = 1,
    n_judges: int = 20,
    n_repeats: int = 1,
    now: Callable[[], float] = time.perf_counter,
) -> Timed:
    """Run an inference against the clock and judge it at each step with many samples.

    Parameters
    ----------
    x : (B, n_x)
        One batch.
    n_samples, n_judges
        Samples for gradients, and for the free energies that are reported.
    n_repeats
        Runs, of which the median time counts; their estimates are the same, and judged once.
    now
        What tells the time, in seconds.
    """

    def clock() -> Clock:
        return Clock(n_samples=n_samples, generator=generator_for(x.device, 0, 13), now=now)

    energies, first = _once(inference, model, x, n_iterations, n_judges, clock())
    again = [_once(inference, model, x, n_iterations, 0, clock())[1] for _ in range(n_repeats - 1)]
    return Timed(energies, np.median([first, *again], 0))


def _once(
    inference: Inference,
    model: LatentGaussian,
    x: Tensor,
    n_iterations: int,
    n_judges: int,
    clock: Clock,
) -> tuple[NDArray[Any], NDArray[Any]]:
    energies, seconds, spent = [], [], 0.0
    with torch.no_grad():
        steps = inference.steps(model, x, clock, n_iterations)
        while True:
            start = clock.now()
            step = next(steps, None)
            if step is None:
                break
            # The last evaluation that was asked for is that of the step's own estimate.
            seconds.append(spent + clock.arrivals[-1] - start)
            if x.is_cuda:
                torch.cuda.synchronize(x.device)
            spent += clock.now() - start
            if n_judges:
                judge = generator_for(x.device, 0, 14)
                energy = -elbo(model, x, step.q, n_samples=n_judges, generator=judge)
                energies.append(energy.double().cpu().numpy())
    return np.array(energies), np.array(seconds)


@dataclass(frozen=True)
class Chosen:
    """A step size, and how it was come by."""

    rule: str
    step: float
    at_iteration: int
    """It gave the lowest free energy of validation examples here."""
    at_edge: bool
    """Whether it is the first or last that was tried: a better one may lie outside."""


def chosen_steps(
    model: LatentGaussian,
    x: Tensor,
    grids: Mapping[str, Sequence[float]],
    *,
    n_iterations: int,
    early: int,
    n_samples: int = 5,
) -> list[Chosen]:
    """Choose each rule's step twice on validation examples: for the end, and for an early estimate.

    Parameters
    ----------
    x : (B, n_x)
        Apart from the examples of the race.
    grids
        Rule -> steps that are tried.
    early
        The iteration at which the early estimate is judged. Where the same step is best at both,
        it is returned once.
    """
    found: list[Chosen] = []
    for rule, grid in grids.items():
        curves = []
        for step in grid:
            ascent = GradientAscent(optimiser=rule, step=step)
            energy = descent(
                ascent, model, x, n_iterations=n_iterations, n_samples=n_samples, n_judges=5
            ).mean(1)
            curves.append(np.where(np.isfinite(energy), energy, np.inf))
        for at in (n_iterations, min(early, n_iterations)):
            best = int(np.argmin([curve[at] for curve in curves]))
            one = Chosen(rule, grid[best], at, best in (0, len(grid) - 1))
            if not any((o.rule, o.step) == (one.rule, one.step) for o in found):
                found.append(one)
    return found


def race_lanes(
    model: LatentGaussian,
    amortized: Mapping[str, Inference],
    x: Tensor,
    validation: Tensor,
    grids: Mapping[str, Sequence[float]],
    *,
    n_iterations: int,
    early: int,
) -> tuple[dict[str, Timed], dict[str, Chosen]]:
    """Time amortized inferences and, at steps chosen on validation examples, gradient rules.

    Returns
    -------
    lanes
        Amortized ones by name, then "<rule> <step>".
    notes
        How the steps of the latter were chosen.
    """
    chosen = chosen_steps(model, validation, grids, n_iterations=n_iterations, early=early)
    notes = {f"{one.rule} {one.step:g}": one for one in chosen}
    ascents = {k: GradientAscent(optimiser=one.rule, step=one.step) for k, one in notes.items()}
    now = time.perf_counter if x.is_cuda else time.process_time
    lanes = {
        name: timed(one, model, x, n_iterations=n_iterations, n_samples=5, n_repeats=3, now=now)
        for name, one in {**amortized, **ascents}.items()
    }
    return lanes, notes


def race_table(lanes: Mapping[str, Timed], notes: Mapping[str, Chosen]) -> list[str]:
    """Return the lines of a table: a row a lane and iteration, with 95 % intervals over examples.

    Nats are gained over the prior, which the first lane starts from. The interval of nats per
    second is that of the nats alone, at the time that was measured.
    """
    start = next(iter(lanes.values())).of_examples[0]
    lowest = min(np.nanmin(one.free_energy) for one in lanes.values())
    rows = [
        "lane,step,chosen_at,at_edge,iteration,seconds,free_energy,above_the_lowest,gained,"
        "gained_low,gained_high,nats_per_second,nats_per_second_low,nats_per_second_high,n_images"
    ]
    for name, one in lanes.items():
        note = notes.get(name)
        about = f"{note.step:g},{note.at_iteration},{int(note.at_edge)}" if note else ",,"
        for iteration, (energy, seconds) in enumerate(
            zip(one.of_examples, one.seconds, strict=True)
        ):
            if not np.isfinite(energy).all():
                rows.append(f"{name},{about},{iteration},{seconds:.6f},,,,,,,,,{len(energy)}")
                continue
            mean = energy.mean()
            gained, low, high, n = mean_interval(start - energy)
            speed = ",".join(f"{v / seconds:.4g}" for v in (gained, low, high)) if gained else ",,"
            rows.append(
                f"{name},{about},{iteration},{seconds:.6f},{mean:.3f},{mean - lowest:.3f},"
                f"{gained:.3f},{low:.3f},{high:.3f},{speed},{n}"
            )
    return rows
