"""Diagonal Gaussians: density, divergence, noise, and the one place where randomness enters."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from pcsim.messages import refusal

__all__ = [
    "LOG_VARIANCE_LIMIT",
    "RowGenerators",
    "bounded",
    "divergence",
    "log_density",
    "noise",
    "required",
]

LOG_VARIANCE_LIMIT = 15.0
"""Log variances of latents stay within plus and minus this."""


def bounded(log_variance: Tensor) -> Tensor:
    """Clamp a latent log variance, so that no exponential overflows."""
    return log_variance.clamp(-LOG_VARIANCE_LIMIT, LOG_VARIANCE_LIMIT)


def log_density(z: Tensor, mean: Tensor, log_variance: Tensor) -> Tensor:
    """Log density of a diagonal Gaussian, (..., n) to (...), in nats."""
    each = (z - mean).square() * (-log_variance).exp() + log_variance + math.log(2 * math.pi)
    return -0.5 * each.sum(-1)


def divergence(mean_q: Tensor, log_q: Tensor, mean_p: Tensor, log_p: Tensor) -> Tensor:
    r"""Divergence :math:`KL(q \| p)` of two diagonal Gaussians, (..., n) to (...), in nats.

    `log_q` and `log_p` are log variances.
    """
    distance = (mean_q - mean_p).square() * (-log_p).exp()
    return 0.5 * ((log_q - log_p).exp() + distance - 1 + log_p - log_q).sum(-1)


class RowGenerators(torch.Generator):
    """Generators of one example after another, or of so many after so many.

    Each draws for its own what it would have drawn alone. They serve `noise`, whose next to last
    axis is the batch.

    Parameters
    ----------
    rows
        The generators, in the order of the batch.
    n_each
        How many examples are of one generator.

    Examples
    --------
    >>> one, other = (torch.Generator().manual_seed(seed) for seed in (4, 7))
    >>> alone = noise((2, 1, 3), torch.zeros(1), torch.Generator().manual_seed(7))
    >>> both = noise((2, 2, 3), torch.zeros(1), RowGenerators([one, other]))
    >>> torch.equal(both[:, 1:], alone)
    True
    """

    rows: tuple[torch.Generator, ...]
    n_each: int
    unused: Tensor

    def __new__(cls, rows: Sequence[torch.Generator], n_each: int = 1) -> RowGenerators:
        made = super().__new__(cls, device=rows[0].device)  # type: ignore[call-arg]
        made.rows, made.n_each = tuple(rows), n_each
        made.unused = torch.Generator.get_state(made)
        return made

    def check_unused(self, where: str) -> None:
        """Refuse that something drew from this itself: no example would have drawn that alone."""
        if not torch.equal(torch.Generator.get_state(self), self.unused):
            found, expected = (
                "draws from the generator itself",
                "draws by pcsim.deep.gaussians.noise",
            )
            raise ValueError(refusal(where, found, expected, "Let each example draw its own."))

    def get_state(self) -> Tensor:
        """Return the states of the rows, (B, bytes)."""
        return torch.stack([one.get_state() for one in self.rows])

    def set_state(self, state: Tensor) -> RowGenerators:
        """Put the rows back into the states that `get_state` returned."""
        for one, own in zip(self.rows, state, strict=True):
            one.set_state(own.clone())
        return self


def noise(shape: Sequence[int], like: Tensor, generator: torch.Generator | None) -> Tensor:
    """Draw standard normal numbers of one shape, of the dtype and on the device of `like`."""
    if isinstance(generator, RowGenerators):
        *before, n_rows, n = shape
        n_each, n_generators = generator.n_each, len(generator.rows)
        if n_rows != n_each * n_generators:
            found, expected = f"{n_rows} examples", f"{n_generators} times {n_each}"
            raise ValueError(refusal("noise", found, expected, "Give each example its own."))
        alone = [noise((*before, n_each, n), like, one) for one in generator.rows]
        return torch.cat(alone, -2)
    drawn = torch.randn(
        tuple(shape), generator=required(generator), dtype=like.dtype, device=like.device
    )
    return drawn


def required(generator: torch.Generator | None) -> torch.Generator:
    """Return the generator, or refuse to draw from the global state."""
    if generator is None:
        advice = "Pass generator=torch.Generator().manual_seed(seed)."
        raise ValueError(refusal("sample", "no generator", "a torch.Generator", advice))
    if not isinstance(generator, torch.Generator):
        found, advice = f"generator {generator!r}", "Pass torch.Generator().manual_seed(seed)."
        raise TypeError(refusal("sample", found, "a torch.Generator", advice))
    return generator
