r"""What a learned update makes of errors, beside what the generative model would have it make.

The update's answer to the weighted error of the data, :math:`B = \partial\,dz/\partial\xi_x`
(n_z, n_x), is compared with maps made of the decoder's Jacobian
:math:`J = \partial g/\partial z` (n_x, n_z):

.. math:: J^\top, \qquad J^+, \qquad (J^\top \Pi J + \Lambda)^{-1} J^\top \Pi

the gradient, the pseudo-inverse, and the gradient preconditioned by the posterior's precision: in a
linear Gaussian model the last is the step that ends at the posterior's mean.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.func import grad, jacfwd, jacrev, vmap

from pcsim.deep.encodings import ErrorEncoding
from pcsim.deep.inference import Evaluation, Step, by_level
from pcsim.deep.inference_direct import Direct
from pcsim.deep.inference_iterative import Iterative
from pcsim.deep.latent_gaussian import LatentGaussian
from pcsim.deep.posteriors import Point
from pcsim.messages import refusal

__all__ = [
    "FORMS",
    "ShuffledData",
    "ShuffledErrors",
    "angle",
    "decoder_jacobian",
    "encoder_jacobian",
    "forms",
    "gradient_jacobian",
    "responses_and_forms",
    "update_jacobian",
]

FORMS = ("transpose", "pseudo-inverse", "preconditioned")


@dataclass(frozen=True)
class ShuffledErrors:
    """An `ErrorEncoding` in which each example sees the data's errors of another: a control."""

    inner: ErrorEncoding = field(default_factory=lambda: ErrorEncoding(with_x=False))

    def inputs(
        self, model: LatentGaussian, x: Tensor, step: Step, evaluation: Evaluation
    ) -> list[list[Tensor]]:
        levels = self.inner.inputs(model, x, step, evaluation)
        place, device = self.from_below(0, len(by_level(model, step.q)[0]))[-1], x.device
        order = torch.randperm(len(x), generator=evaluation.generator, device=device)
        levels[0][place] = levels[0][place][order]
        return levels

    def from_below(self, level: int, n_estimates: int) -> list[int]:
        """Return what `ErrorEncoding.from_below` does."""
        return self.inner.from_below(level, n_estimates)


class ShuffledData(nn.Module):
    """A direct inference in which each example has the estimate of another: a control."""

    def __init__(self, inner: Direct) -> None:
        super().__init__()
        self.inner = inner

    def steps(
        self,
        model: LatentGaussian,
        x: Tensor,
        evaluation: Evaluation,
        n_iterations: int | None = None,
    ) -> Iterator[Step]:
        """Yield the one step there is, whatever `n_iterations` says."""
        order = torch.randperm(len(x), generator=evaluation.generator, device=x.device)
        yield evaluation.at(model, x, self.inner.posterior(model, x[order]))


def decoder_jacobian(model: LatentGaussian, z: Tensor) -> Tensor:
    """Return J = d mean(x) / dz at each of `z` (B, n_1), (B, n_x, n_1)."""

    def mean(one: Tensor) -> Tensor:
        return model.output.mean(model.output_parameters(one[None]))[0]

    with torch.no_grad():
        jacobian: Tensor = vmap(jacfwd(mean), chunk_size=64)(z)
    return jacobian


def forms(jacobian: Tensor, precision_x: Tensor | float, precision_z: Tensor | float) -> Any:
    r"""Return the maps from *weighted* errors to latents, name -> (B, n_z, n_x).

    The update sees :math:`\xi_x = \Pi\varepsilon_x`, so the :math:`\Pi` that the last form ends on
    is in its input already; with one precision for all inputs no angle depends on that.

    Parameters
    ----------
    jacobian : (B, n_x, n_z)
    precision_x, precision_z
        Inverse variances of the output and of the latents' prior: numbers, or one a feature.
    """
    transpose = jacobian.mT
    kind: Any = {"dtype": jacobian.dtype, "device": jacobian.device}
    weighted = torch.as_tensor(precision_x, **kind)
    one = torch.ones(jacobian.shape[-1], **kind)
    curvature = transpose @ (weighted.expand(jacobian.shape[-2])[:, None] * jacobian)
    curvature = curvature + torch.diag(torch.as_tensor(precision_z, **kind) * one)
    found = (
        transpose, torch.linalg.pinv(jacobian), torch.linalg.solve(curvature, transpose)
    )  # fmt: skip
    return dict(zip(FORMS, found, strict=True))


def update_jacobian(
    inference: Iterative,
    model: LatentGaussian,
    x: Tensor,
    step: Step,
    evaluation: Evaluation,
) -> Tensor:
    """Return B = d mean' / d xi_x at `step`, (B, n_1, n_x): what one update makes of an error.

    All else that the networks see is held still. Of level 1, and of an inference with an
    `ErrorEncoding` without memory.
    """
    if not isinstance(inference.encoding, ErrorEncoding):
        found = f"a {type(inference.encoding).__name__}"
        advice = "Take Iterative(encoding=ErrorEncoding())."
        raise ValueError(refusal("update_jacobian", found, "an ErrorEncoding", advice))
    inputs = inference.encoding.inputs(model, x, step, evaluation)
    place = inference.encoding.from_below(0, len(by_level(model, step.q)[0]))[-1]

    def mean(error: Tensor, rows: list[list[Tensor]], at: tuple[Tensor, ...]) -> Tensor:
        seen = [[one[None] for one in row] for row in rows]
        seen[0][place] = error[None]
        q = step.q.with_parameters(tuple(one[None] for one in at))
        gradient = tuple(torch.zeros_like(one[None]) for one in at)
        here = Step(q, step.free_energy, gradient)
        return inference.respond(model, seen, here, [None] * len(seen))[0].parameters[0][0]

    at = tuple(one.detach() for one in step.q.parameters)
    with torch.no_grad():
        answer: Tensor = vmap(jacrev(mean), chunk_size=64)(inputs[0][place], inputs, at)
    return answer


def encoder_jacobian(inference: Direct, model: LatentGaussian, x: Tensor) -> Tensor:
    """Return d mean_1 / dx of a direct network, (B, n_1, n_x).

    At equal precisions of the data it points where the derivative by the weighted error does.
    """

    def mean(one: Tensor) -> Tensor:
        return inference.posterior(model, one[None]).parameters[0][0]

    with torch.no_grad():
        answer: Tensor = vmap(jacrev(mean), chunk_size=64)(x)
    return answer


def gradient_jacobian(model: LatentGaussian, x: Tensor) -> Tensor:
    r"""Return :math:`-\partial^2 F / \partial z_1 \partial x` at the prior's centre, (B, n_1, n_x).

    What a gradient makes of an error; by automatic differentiation, not by a formula.
    """
    start = Point.at_prior(model, 1).parameters

    def change(one: Tensor) -> Tensor:
        def energy(z: Tensor) -> Tensor:
            q = Point((z[None], *start[1:]))
            return model.free_energy(one[None], q).total[0]

        slope: Tensor = -grad(energy)(start[0][0])
        return slope

    with torch.no_grad():
        answer: Tensor = torch.stack([jacrev(change)(one) for one in x])
    return answer


def angle(first: NDArray[Any], second: NDArray[Any]) -> NDArray[Any]:
    """Return degrees between arrays read as vectors, (...) of arrays (..., n_z, n_x).

    Examples
    --------
    >>> float(angle(np.eye(2), np.array([[1.0, 1.0], [0.0, 0.0]])).round(6))
    60.0
    """
    a, b = (np.asarray(one, float).reshape(*np.shape(one)[:-2], -1) for one in (first, second))
    # Kahan's form keeps its digits where the arrays are nearly parallel.
    a, b = (one / np.linalg.norm(one, axis=-1, keepdims=True) for one in (a, b))
    half = np.arctan2(np.linalg.norm(a - b, axis=-1), np.linalg.norm(a + b, axis=-1))
    degrees: NDArray[Any] = 2 * half * (180 / math.pi)
    return degrees


def responses_and_forms(
    model: LatentGaussian, inference: object, x: Tensor, evaluation: Evaluation
) -> tuple[NDArray[Any], dict[str, NDArray[Any]]]:
    """Return what an inference makes of the data's errors, and the maps that it might be.

    Both averaged over examples and over the updates of an iterative inference, (n_1, n_x). An
    inference without a network is taken for the gradient.
    """
    if isinstance(inference, Iterative):
        steps = list(inference.steps(model, x, evaluation))[:-1]
        made = [update_jacobian(inference, model, x, one, evaluation) for one in steps]
        states = [one.q.centre(model) for one in steps]
    elif isinstance(inference, Direct):
        made = [encoder_jacobian(inference, model, x)]
        states = [inference.posterior(model, x).centre(model)]
    else:
        made = [gradient_jacobian(model, x[:1])]
        states = [Point.at_prior(model, 1).centre(model)]
    found: dict[str, list[NDArray[Any]]] = {name: [] for name in FORMS}
    for z in states:
        jacobian = decoder_jacobian(model, z[0].detach())
        with torch.no_grad():
            output: Any = model.output
            precision_x = output.log_precision(model.output_parameters(z[0])).exp()
            above = z[1] if len(z) > 1 else None
            precision_z = (-model.prior(1, above)[1]).exp()
        both = [torch.atleast_1d(one) for one in (precision_x, precision_z)]
        weights = [one.reshape(-1, one.shape[-1]).mean(0) for one in both]
        for name, one in forms(jacobian, *weights).items():
            found[name].append(one.mean(0).numpy())
    response = torch.stack([one.mean(0) for one in made]).mean(0).detach().numpy()
    return response, {name: np.mean(many, 0) for name, many in found.items()}
