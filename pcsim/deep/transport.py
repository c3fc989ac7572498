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
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.func import jacfwd, jacrev, vmap

from pcsim.deep.encodings import ErrorEncoding
from pcsim.deep.inference import Evaluation, Step
from pcsim.deep.inference_iterative import Iterative
from pcsim.deep.latent_gaussian import LatentGaussian
from pcsim.messages import refusal

__all__ = ["FORMS", "ShuffledErrors", "angle", "decoder_jacobian", "forms", "update_jacobian"]

FORMS = ("transpose", "pseudo-inverse", "preconditioned")


@dataclass(frozen=True)
class ShuffledErrors:
    """An `ErrorEncoding` in which each example sees the data's errors of another: a control."""

    inner: ErrorEncoding = field(default_factory=lambda: ErrorEncoding(with_x=False))

    def inputs(
        self, model: LatentGaussian, x: Tensor, step: Step, evaluation: Evaluation
    ) -> list[list[Tensor]]:
        levels = self.inner.inputs(model, x, step, evaluation)
        place, device = len(levels[0]) - 2, x.device
        order = torch.randperm(len(x), generator=evaluation.generator, device=device)
        levels[0][place] = levels[0][place][order]
        return levels


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

    All else that the network sees is held still. Of a model with one level, and an inference with
    an `ErrorEncoding` without memory.
    """
    if len(model.n_z) > 1 or not isinstance(inference.encoding, ErrorEncoding):
        kind = type(inference.encoding).__name__
        found = f"a model of {len(model.n_z)} levels under {kind}"
        advice = "Take one level and Iterative(encoding=ErrorEncoding())."
        raise ValueError(refusal("update_jacobian", found, "one level under ErrorEncoding", advice))
    (inputs,) = inference.encoding.inputs(model, x, step, evaluation)
    place = len(inputs) - 2

    def mean(error: Tensor, row: list[Tensor], at: tuple[Tensor, ...]) -> Tensor:
        seen = [one[None] for one in row]
        seen[place] = error[None]
        q = step.q.with_parameters(tuple(one[None] for one in at))
        gradient = tuple(torch.zeros_like(one[None]) for one in at)
        here = Step(q, step.free_energy, gradient)
        return inference.respond(model, [seen], here, [None])[0].parameters[0][0]

    at = tuple(one.detach() for one in step.q.parameters)
    with torch.no_grad():
        answer: Tensor = vmap(jacrev(mean), chunk_size=64)(inputs[place], inputs, at)
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
