"""Where gradient ascent with a tolerance stops: every example on its own."""

from __future__ import annotations

import deep_cases
import pytest
import torch
from deep_cases import normal
from test_deep_inference_ascent import OPTIMISERS, chain

from pcsim.deep.gaussians import RowGenerators
from pcsim.deep.inference import infer
from pcsim.deep.inference_gradient import GradientAscent, PointEstimate

generator = deep_cases.generator


def test_ascent_stops_once_nothing_moves(generator):
    linear = chain(generator)
    x = normal(generator, 2, 6)
    search = PointEstimate(step=0.5, n_iterations=1000, tolerance=1e-10)
    found = infer(search, linear.model(), x)
    assert len(found.trace) < 900
    mean = torch.cat(found.q.parameters, -1)
    torch.testing.assert_close(mean, linear.posterior(x)[0], rtol=0, atol=1e-7)


def scaled(x):
    """Examples near and far, which arrive at different iterations."""
    return x * torch.tensor([0.01, 0.7, 40.0], dtype=x.dtype)[:, None]


@pytest.mark.parametrize(
    ("optimiser", "step", "decay", "n"), [*OPTIMISERS, ("gradient", 0.05, 1.0, 2000)]
)
def test_an_example_stops_where_it_would_alone(optimiser, step, decay, n, generator):
    model, x = chain(generator).model(), scaled(normal(generator, 3, 6))
    search = PointEstimate(
        optimiser=optimiser, step=step, decay=decay, n_iterations=n, tolerance=1e-4
    )
    whole = infer(search, model, x)
    n_steps = set()
    for row in range(3):
        alone = infer(search, model, x[row : row + 1])
        for one, other in zip(whole.q.parameters, alone.q.parameters, strict=True):
            torch.testing.assert_close(one[row : row + 1], other, rtol=0, atol=1e-12)
        n_own = len(alone.trace)
        rest = alone.trace[-1, 0].expand(len(whole.trace) - n_own)
        expected = torch.cat([alone.trace[:, 0], rest])
        torch.testing.assert_close(whole.trace[:, row], expected, rtol=1e-12, atol=1e-12)
        n_steps.add(n_own)
    assert len(n_steps) > 1
    assert max(n_steps) == len(whole.trace) < n + 1


@pytest.mark.parametrize(("optimiser", "step"), [(one[0], one[1]) for one in OPTIMISERS])
def test_an_example_on_its_own_noise_stops_where_it_would_alone(optimiser, step, generator):
    model, x = chain(generator).model(), scaled(normal(generator, 3, 6))
    ascent = GradientAscent(optimiser=optimiser, step=step, decay=0.9, tolerance=1e-2)

    def own(row):
        return torch.Generator().manual_seed(row)

    both = RowGenerators([own(row) for row in range(3)])
    whole = infer(ascent, model, x, n_samples=4, generator=both)
    n_steps = set()
    for row in range(3):
        alone = infer(ascent, model, x[row : row + 1], n_samples=4, generator=own(row))
        for one, other in zip(whole.q.parameters, alone.q.parameters, strict=True):
            torch.testing.assert_close(one[row : row + 1], other, rtol=1e-12, atol=1e-12)
        n_steps.add(len(alone.trace))
    assert max(n_steps) == len(whole.trace)
    assert len(n_steps) > 1


def test_a_tolerance_of_zero_stops_nothing(generator):
    # A step of 0 from the second iteration on: nothing moves, and every iteration is asked for.
    search = PointEstimate(optimiser="gradient", step=0.05, decay=0.0, n_iterations=7)
    found = infer(search, chain(generator).model(), normal(generator, 2, 6))
    assert found.trace.shape == (8, 2)
