"""The arms of a comparison: models that differ in their inference, and what is seen of each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from numpy.typing import ArrayLike
from torch import Tensor, nn

from pcsim.deep.encodings import (
    Encoding,
    ErrorEncoding,
    GradientEncoding,
    LogSignGradientEncoding,
)
from pcsim.deep.evaluation import amortization_gap, elbo, log_likelihood
from pcsim.deep.evaluation_information import active_units, mutual_information, posterior_means
from pcsim.deep.inference import Inference, infer
from pcsim.deep.inference_direct import Direct
from pcsim.deep.inference_hybrid import Hybrid
from pcsim.deep.inference_iterative import Iterative
from pcsim.deep.inference_ladder import Ladder
from pcsim.deep.latent_gaussian import LatentGaussian
from pcsim.deep.networks import FullyConnected
from pcsim.deep.outputs import Output
from pcsim.deep.posteriors import MeanField
from pcsim.deep.training_step import binarised, generator_for
from pcsim.messages import check_choice

__all__ = ["Arm", "evaluate", "examples"]

ENCODINGS: dict[str, type[GradientEncoding | ErrorEncoding | LogSignGradientEncoding]] = {
    "gradient": GradientEncoding,
    "error": ErrorEncoding,
    "log_sign": LogSignGradientEncoding,
}
INFERENCES = ("direct", "iterative", "hybrid", "ladder")


@dataclass(frozen=True, kw_only=True)
class Arm:
    """A model and its inference as plain values, so that they can be settings.

    Two arms that differ in their inference alone have the same decoder, with the same weights
    before training.
    """

    inference: str = "iterative"
    """"direct", "iterative", "hybrid" or "ladder"."""
    encoding: str = "gradient"
    """"gradient", "error" or "log_sign", of an iterative inference."""
    with_x: bool = True
    update: str = "gated"
    n_iterations: int = 5
    n_z: tuple[int, ...] = (64,)
    widths: tuple[tuple[int, ...], ...] = ((512, 512),)
    """Hidden units of encoder and decoder, level 1 first."""
    link: str = "highway"
    """Of the inference networks; the decoder's is plain."""
    normalization: str | None = None
    """"batch", "layer" or None, of the inference networks and of the decoder."""
    normalise_x: bool = False
    """Whether a direct network sees layer-normalised data, as an iterative one does."""
    segregated: bool = False
    """Whether an iterative network has basal and apical streams."""

    def __post_init__(self) -> None:
        check_choice("Arm", "inference", self.inference, INFERENCES)
        check_choice("Arm", "encoding", self.encoding, ENCODINGS)

    def build(
        self, n_x: int, seed: int, output: Output | None = None
    ) -> tuple[LatentGaussian, Inference]:
        """Return a new model of `n_x` inputs and its inference; the seed gives their weights."""
        generator = generator_for("cpu", seed, 10)
        decoders = [
            FullyConnected(n, hidden, normalization=self.normalization, generator=generator)
            for n, hidden in zip(self.n_z, self.widths, strict=True)
        ]
        model = LatentGaussian(n_x, self.n_z, output, decoders=decoders, generator=generator)
        return model, self._inference(model, generator_for("cpu", seed, 11))

    def _inference(self, model: LatentGaussian, generator: torch.Generator) -> Inference:
        network: dict[str, Any] = {
            "widths": self.widths, "link": self.link, "normalization": self.normalization,
            "generator": generator,
        }  # fmt: skip
        if self.inference == "ladder":
            return Ladder(model, **network)
        if self.inference == "direct":
            return Direct(model, normalise_inputs=self.normalise_x, **network)
        encoding: Encoding = ENCODINGS[self.encoding](with_x=self.with_x)
        iterative = Iterative(
            model, encoding=encoding, update=self.update, n_iterations=self.n_iterations,
            segregated=self.segregated, **network,
        )  # fmt: skip
        return iterative if self.inference == "iterative" else Hybrid(
            Direct(model, **network), iterative
        )  # fmt: skip


def examples(values: ArrayLike, *, scale: float = 1.0, binary_seed: int | None = None) -> Tensor:
    """Return examples (N, ...) as a float tensor (N, n_x) in units of `scale`.

    With a `binary_seed` each number is the probability of a one, drawn once: a test set that is the
    same for all arms.

    Examples
    --------
    >>> examples(np.full((2, 2, 2), 255, np.uint8), scale=255.0, binary_seed=0)
    tensor([[1., 1., 1., 1.],
            [1., 1., 1., 1.]])
    """
    rows = torch.as_tensor(values).flatten(1).float() / scale
    return rows if binary_seed is None else binarised(rows, generator_for("cpu", binary_seed, 12))


def evaluate(
    model: LatentGaussian,
    inference: Inference,
    x: Tensor,
    *,
    n_samples: int = 1,
    n_importance: int = 5000,
    n_gap: int = 0,
    seed: int = 0,
) -> dict[str, Any]:
    """Return what is known of a trained arm on test examples, as plain values.

    "mutual_information" (nats) is a lower bound alone where "mutual_information_is_bound".

    Parameters
    ----------
    x : (N, n_x)
        Test examples.
    n_samples
        Of the posterior for each gradient of inference, as in training.
    n_importance
        Of the posterior for log p(x).
    n_gap
        Examples whose amortization gap is measured; 0 for none.
    """
    first = next(model.parameters())
    x = x.to(first)
    generator = generator_for(x.device, seed, 15)
    for module in (model, inference):
        if isinstance(module, nn.Module):
            module.eval()
    found: dict[str, Any] = {"free_energy": [], "log_likelihood": [], "steps": [], "gradients": []}
    means, families = [], []
    for rows in x.split(500):
        inferred = infer(inference, model, rows, n_samples=n_samples, generator=generator)
        one = log_likelihood(
            model, rows, inferred.q, n_samples=n_importance, chunk=20, generator=generator
        )
        bound = elbo(model, rows, inferred.q, generator=generator)
        found["free_energy"] += (-bound).tolist()
        found["log_likelihood"] += one.tolist()
        found["steps"].append(inferred.trace.double().mean(1).tolist())
        found["gradients"].append(inferred.gradients.double().mean(1).tolist())
        means.append(posterior_means(model, inferred.q, generator=generator))
        families.append(inferred.q)
    for name in ("steps", "gradients"):
        found[name] = torch.tensor(found[name]).mean(0).tolist()
    levels = [torch.cat(level) for level in zip(*means, strict=True)]
    found["active_units"] = [int(active_units(level).sum()) for level in levels]
    if isinstance(families[0], MeanField):
        q = joined(families)
        information = mutual_information(q, generator=generator)
        found["mutual_information"] = information.nats
        found["mutual_information_is_bound"] = information.is_bound
    if n_gap:
        gap = amortization_gap(
            model, inference, x[:n_gap], n_samples=max(n_samples, 5), generator=generator
        )
        found["gap"], found["gap_rest"] = gap.gap.tolist(), gap.rest
    return found


def joined(parts: list[Any]) -> MeanField:
    """Return the posteriors of several batches as one."""
    columns = zip(*(part.parameters for part in parts), strict=True)
    whole: MeanField = parts[0].with_parameters(tuple(torch.cat(column) for column in columns))
    return whole
