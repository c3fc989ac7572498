"""Whether what a network makes of two inputs is a sum of what it makes of each."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pcsim.deep.encodings import ErrorEncoding, estimates
from pcsim.deep.inference import Evaluation, Step
from pcsim.deep.inference_iterative import Iterative
from pcsim.deep.latent_gaussian import LatentGaussian
from pcsim.messages import refusal

__all__ = ["crossed_updates", "sums_of_squares", "variance_shares"]


def crossed_updates(
    update: Iterative, model: LatentGaussian, x: Tensor, step: Step, evaluation: Evaluation
) -> Tensor:
    """Return the change of level 1's mean for every pair of examples, (B, B, n_1).

    Entry (i, j) is the answer to what comes from below in example i (the error, and the data where
    the network sees them) beside all that belongs to the level (estimate and own errors) in j.

    Raises
    ------
    ValueError
        If the network sees anything but errors.
    """
    if not isinstance(update.encoding, ErrorEncoding):
        found, advice = type(update.encoding).__name__, "Train one with encoding=ErrorEncoding()."
        raise ValueError(refusal("crossed_updates", found, "an ErrorEncoding", advice))
    inputs = update.encoding.inputs(model, x, step, evaluation)
    below = update.encoding.from_below(0, len(estimates(model, step)[0]))
    n = len(x)
    rows = torch.arange(n, device=x.device)
    first, second = rows.repeat_interleave(n), rows.repeat(n)
    crossed = [
        [one[first if level == 0 and i in below else second] for i, one in enumerate(found)]
        for level, found in enumerate(inputs)
    ]
    q = step.q.with_parameters(tuple(one.detach()[second] for one in step.q.parameters))
    gradient = tuple(one[second] for one in step.gradient)
    here = Step(q, step.free_energy, gradient)
    with torch.no_grad():
        new, _ = update.respond(model, crossed, here, [None] * len(inputs))
    return (new.parameters[0] - q.parameters[0]).reshape(n, n, -1)


def variance_shares(values: NDArray[Any]) -> tuple[float, float, float]:
    r"""Divide the variance of a full table (I, J, n) into rows, columns and their interaction.

    .. math:: y_{ij} = \bar y + a_i + b_j + c_{ij}

    and the shares are the sums of squares of a, b and c over that of :math:`y - \bar y`, all n
    features together. They sum to 1; the last is 0 where y is a sum of two functions.

    Examples
    --------
    >>> a, b = np.array([[0.0], [3.0]]), np.array([0.0, 4.0])
    >>> variance_shares((a + b)[..., None])
    (0.36, 0.64, 0.0)
    """
    if values.ndim != 3 or min(values.shape[:2]) < 2:
        found = f"values of shape {values.shape}"
        advice = "Cross at least two of each."
        raise ValueError(refusal("variance_shares", found, "shape (I, J, n)", advice))
    below, own, rest = (float(one.sum()) for one in sums_of_squares(values))
    total = below + own + rest
    if total == 0.0:
        found = "an update that never changes"
        raise ValueError(refusal("variance_shares", found, "some variance", "Train it first."))
    return below / total, own / total, rest / total


def sums_of_squares(values: NDArray[Any]) -> NDArray[np.float64]:
    """Return the sums of squares of rows, columns and interaction of each feature, (3, n).

    Examples
    --------
    >>> table = np.array([[0.0, 4.0], [3.0, 7.0]])
    >>> sums_of_squares(np.stack([table, table * table], axis=2)).round(3)
    array([[  9., 441.],
           [ 16., 784.],
           [  0., 144.]])
    """
    centred = values.astype(float) - values.astype(float).mean((0, 1))
    rows, columns = centred.mean(1, keepdims=True), centred.mean(0, keepdims=True)
    below = values.shape[1] * (rows**2).sum((0, 1))
    own = values.shape[0] * (columns**2).sum((0, 1))
    return np.stack([below, own, ((centred - rows - columns) ** 2).sum((0, 1))])
