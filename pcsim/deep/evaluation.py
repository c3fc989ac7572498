r"""How good a model and its inference are, in nats, bits and words."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pcsim.deep.draw import Posterior
from pcsim.deep.evaluation_information import check_tensor
from pcsim.deep.grad_mode import ordinary, outside_inference_mode
from pcsim.deep.inference import Evaluation, Inference, Inferred, Refinement, check_batch, infer
from pcsim.deep.inference_gradient import GradientAscent
from pcsim.deep.latent_gaussian import LatentGaussian
from pcsim.deep.networks import evaluating
from pcsim.deep.posteriors import Point
from pcsim.messages import check_integer, check_object, refusal

__all__ = [
    "Gap",
    "amortization_gap",
    "bits_per_dimension",
    "elbo",
    "gradient_magnitudes",
    "log_likelihood",
    "perplexity",
]


def elbo(
    model: LatentGaussian,
    x: Tensor,
    q: Posterior,
    *,
    n_samples: int = 1,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Return the evidence lower bound of each example, (B,), nats, no weights on its parts.

    Parameters
    ----------
    x : (B, n_x)
    q
        The posterior of these examples, such as `infer(...).q`.
    n_samples
        Published bounds use 1.
    """
    check_batch("elbo", model, x)
    with torch.no_grad(), evaluating(model):
        return model.free_energy(x, q, n_samples=n_samples, generator=generator).elbo


def log_likelihood(
    model: LatentGaussian,
    x: Tensor,
    q: Posterior,
    *,
    n_samples: int = 5000,
    chunk: int = 100,
    generator: torch.Generator | None = None,
) -> Tensor:
    r"""Estimate log p(x) of each example by importance sampling, (B,), nats, in float64.

    .. math:: \log p(x) \approx \log \frac{1}{S} \sum_s \frac{p(x, z_s)}{q(z_s|x)}, \quad
        z_s \sim q

    A lower bound in expectation, and tight as S grows. With further priors of the model (`priors=`)
    their constants are missing.

    Parameters
    ----------
    x : (B, n_x)
    q
        The posterior of these examples, such as `infer(...).q`.
    n_samples
        Published numbers use 5,000.
    chunk
        Samples in memory at once.

    Raises
    ------
    ValueError
        If `q` is a `Point`: one value without a density gives log p(x, z) there, not log p(x).

    References
    ----------
    Burda, Grosse and Salakhutdinov (2016), https://arxiv.org/abs/1509.00519
    """
    check_batch("log_likelihood", model, x)
    if isinstance(q, Point):
        expected = "a posterior with a density to draw from"
        advice = "Infer with another family, such as MeanField; -elbo of a Point is -log p(x, z)."
        raise ValueError(refusal("log_likelihood", "a Point", expected, advice))
    n_samples = check_integer("log_likelihood", "n_samples", n_samples, low=1)
    chunk = check_integer("log_likelihood", "chunk", chunk, low=1)
    total = torch.full((len(x),), -math.inf, dtype=torch.float64, device=x.device)
    with torch.no_grad(), evaluating(model):
        for start in range(0, n_samples, chunk):
            n = min(chunk, n_samples - start)
            weights = model.free_energy(x, q, n_samples=n, generator=generator).importance
            total = torch.logaddexp(total, weights.double().logsumexp(0))
    return total - math.log(n_samples)


def bits_per_dimension(log_probability: Tensor, n_x: int) -> Tensor:
    r"""Turn nats an example into bits a feature: :math:`-\log p / (n_x \ln 2)`.

    The log probability must be that of discrete data (a binned output, or a density in units of
    one grey value).

    Examples
    --------
    >>> bits_per_dimension(torch.tensor([-3072 * math.log(2.0) * 5.6]), 3072)
    tensor([5.6000])
    """
    n_x = check_integer("bits_per_dimension", "n_x", n_x, low=1)
    return -log_probability / (n_x * math.log(2.0))


def perplexity(log_probability: Tensor, n_words: Tensor) -> float:
    r"""Return :math:`\exp(-\frac{1}{N} \sum_i \log p(x_i) / n_i)`: the mean is over documents.

    Parameters
    ----------
    log_probability : (N,)
        Nats of each document.
    n_words : (N,)
        Words of each document, above 0.

    References
    ----------
    Marino (2021), thesis, section 3.5
    """
    check_tensor("perplexity", "log_probability", log_probability)
    check_tensor("perplexity", "n_words", n_words)
    fits = log_probability.shape == n_words.shape and n_words.numel() > 0
    if not fits or not bool((n_words > 0).all()):
        least = f" down to {float(n_words.min()):g}" if n_words.numel() else ""
        found = f"{tuple(n_words.shape)} word counts{least}"
        expected = f"{tuple(log_probability.shape)} numbers above 0"
        raise ValueError(refusal("perplexity", found, expected, "Leave out empty documents."))
    return float((-log_probability.double() / n_words.double()).mean().exp())


@dataclass(frozen=True)
class Gap:
    """How far an inference falls short of the best its family can do."""

    amortized: Tensor
    """(B,) free energy where the inference ended, nats."""
    converged: Tensor
    """(B,) free energy after gradient ascent went on from there."""
    rest: float
    """Mean by which the last tenth of the ascent still lowered it: near 0 where it converged."""

    @property
    def gap(self) -> Tensor:
        """(B,) amortized minus converged; never far below 0."""
        return self.amortized - self.converged


def amortization_gap(
    model: LatentGaussian,
    inference: Inference,
    x: Tensor,
    *,
    ascent: Refinement = GradientAscent(step=0.02, decay=0.99, n_iterations=400),  # noqa: B008
    n_iterations: int | None = None,
    n_samples: int = 10,
    n_judges: int = 200,
    generator: torch.Generator | None = None,
) -> Gap:
    """Measure the free energy that a longer, unamortized inference would still win.

    Parameters
    ----------
    inference
        What is measured.
    ascent
        Goes on from where it ended.
    n_samples
        Samples for each gradient.
    n_judges
        Samples for the free energies that are compared: the same for all, and drawn apart from
        those of the gradients.
    """
    where = "amortization_gap"
    check_batch(where, model, x)
    check_object(where, "ascent", ascent, "refine", "what goes on, such as GradientAscent()")
    with outside_inference_mode(), torch.no_grad(), evaluating(model, inference):
        x = ordinary(x.detach())
        ended = infer(
            inference, model, x, n_iterations=n_iterations, n_samples=n_samples, generator=generator
        )
        evaluation = Evaluation(n_samples=n_samples, generator=generator)
        first = evaluation.at(model, x, ended.q)
        states = [step.q for step in ascent.refine(model, x, evaluation, first)]
        if not states:
            raise ValueError(refusal(where, "an ascent of no step", "at least one", "Allow some."))
        judged = [ended.q, states[(9 * (len(states) - 1)) // 10], states[-1]]
        amortized, near, converged = _on_one_noise(model, x, judged, n_judges, generator)
    return Gap(amortized, converged, float((near - converged).mean()))


def _on_one_noise(
    model: LatentGaussian,
    x: Tensor,
    judged: Sequence[Posterior],
    n_samples: int,
    generator: torch.Generator | None,
) -> list[Tensor]:
    """Free energies of posteriors of one family, whose differences are of them alone."""
    state = None if generator is None else generator.get_state()
    found = []
    for q in judged:
        if generator is not None and state is not None:
            generator.set_state(state)
        found.append(-elbo(model, x, q, n_samples=n_samples, generator=generator))
    return found


def gradient_magnitudes(inferred: Sequence[Inferred]) -> Tensor:
    """Average what `infer` recorded over the examples of all batches: (n_steps + 1, n_parameters).

    Raises
    ------
    ValueError
        If there is no batch, or batches differ in steps or parameters.
    """
    where = "gradient_magnitudes"
    shapes = sorted({tuple(one.gradients.shape) for one in inferred})
    if len(shapes) != 1:
        found = f"gradients of shapes {shapes}" if shapes else "no batch"
        advice = "Infer all batches alike: of one family and with as many iterations."
        raise ValueError(refusal(where, found, "one shape (n_steps + 1, n_parameters)", advice))
    n = [one.trace.shape[1] for one in inferred]
    weighted = [size * one.gradients for size, one in zip(n, inferred, strict=True)]
    return torch.stack(weighted).sum(0) / sum(n)
