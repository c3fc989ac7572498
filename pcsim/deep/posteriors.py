"""Approximate posteriors: who depends on whom given the data.

`MeanField`, `TopDown` and `Point` are here; `FullCovariance` (every latent with every other) and
`Flowed` (beyond Gaussian) in files of their own, to be had from here too.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from pcsim.deep.draw import Draw, Levels, Posterior, bottom_first, interleaved, leaves, prior_chain
from pcsim.deep.flows import Flowed
from pcsim.deep.full_covariance import FullCovariance
from pcsim.deep.gaussians import bounded, divergence, log_density, noise
from pcsim.messages import refusal

__all__ = ["Draw", "Flowed", "FullCovariance", "MeanField", "Point", "Posterior", "TopDown"]


@dataclass(frozen=True, eq=False)
class MeanField:
    """Every latent Gaussian and independent of all others.

    Its parameters are ``(mean_1, log_variance_1, mean_2, log_variance_2, ...)``, level 1 first.
    """

    mean: tuple[Tensor, ...]
    """(B, n_l) a level."""
    log_variance: tuple[Tensor, ...]
    """(B, n_l) a level, clamped where it is used."""

    @classmethod
    def at_prior(cls, model: Levels, n_examples: int) -> MeanField:
        """Start at the prior, each level given the means of the level above."""
        return cls(*prior_chain(model, n_examples))

    @property
    def parameters(self) -> tuple[Tensor, ...]:
        return interleaved(self.mean, self.log_variance)

    def with_parameters(self, parameters: tuple[Tensor, ...]) -> MeanField:
        return MeanField(parameters[0::2], parameters[1::2])

    def detached(self) -> MeanField:
        return self.with_parameters(leaves(self.parameters))

    def centre(self, model: Levels) -> tuple[Tensor, ...]:
        return self.mean

    def sample(
        self,
        model: Levels,
        n_samples: int,
        generator: torch.Generator | None,
        *,
        reparameterized: bool = True,
    ) -> Draw:
        z, log_q, log_p, kl = [], [], [], []
        above: Tensor | None = None
        for level in range(len(self.mean), 0, -1):
            mean, log_variance = self.mean[level - 1], bounded(self.log_variance[level - 1])
            eps = noise((n_samples, *mean.shape), mean, generator)
            here = mean + (0.5 * log_variance).exp() * eps
            here = here if reparameterized else here.detach()
            prior = model.prior(level, above)
            z.append(here)
            log_q.append(log_density(here, mean, log_variance))
            log_p.append(log_density(here, *prior))
            kl.append(divergence(mean, log_variance, *prior))
            above = here
        return bottom_first(z, log_q, log_p, kl)


@dataclass(frozen=True, eq=False)
class TopDown:
    r"""Bottom-up evidence met by the prior on the way down (a ladder).

    Every level is sampled given the level above. Evidence with mean :math:`m_l` and precision
    :math:`\Lambda_l` joins the prior of the level as Gaussians multiply,

    .. math:: \Pi_{q,l} = \Lambda_l + \Pi_l(z_{l+1}), \qquad
        \mu_{q,l} = \Pi_{q,l}^{-1} (\Lambda_l m_l + \Pi_l(z_{l+1}) \mu_l(z_{l+1})).

    Its parameters are ``(mean_1, log_precision_1, ...)`` of the evidence, level 1 first.

    References
    ----------
    Sønderby et al. (2016), https://arxiv.org/abs/1602.02282
    """

    mean: tuple[Tensor, ...]
    """(B, n_l) a level."""
    log_precision: tuple[Tensor, ...]
    """(B, n_l) a level, clamped where it is used."""

    @classmethod
    def at_prior(cls, model: Levels, n_examples: int) -> TopDown:
        """Start at the prior's means, with evidence as precise as the prior."""
        mean, log_variance = prior_chain(model, n_examples)
        return cls(mean, tuple(-v for v in log_variance))

    @property
    def parameters(self) -> tuple[Tensor, ...]:
        return interleaved(self.mean, self.log_precision)

    def with_parameters(self, parameters: tuple[Tensor, ...]) -> TopDown:
        return TopDown(parameters[0::2], parameters[1::2])

    def detached(self) -> TopDown:
        return self.with_parameters(leaves(self.parameters))

    def centre(self, model: Levels) -> tuple[Tensor, ...]:
        centres: list[Tensor] = []
        for level in range(len(self.mean), 0, -1):
            prior = model.prior(level, centres[0] if centres else None)
            centres.insert(0, self._joined(level, *prior)[0])
        return tuple(centres)

    def sample(
        self,
        model: Levels,
        n_samples: int,
        generator: torch.Generator | None,
        *,
        reparameterized: bool = True,
    ) -> Draw:
        z, log_q, log_p, kl = [], [], [], []
        above: Tensor | None = None
        for level in range(len(self.mean), 0, -1):
            prior = model.prior(level, above)
            mean, log_variance = self._joined(level, *prior)
            shape = (n_samples, *self.mean[level - 1].shape)
            here = mean + (0.5 * log_variance).exp() * noise(shape, mean, generator)
            here = here if reparameterized else here.detach()
            z.append(here)
            log_q.append(log_density(here, mean, log_variance))
            log_p.append(log_density(here, *prior))
            kl.append(divergence(mean, log_variance, *prior))
            above = here
        return bottom_first(z, log_q, log_p, kl)

    def _joined(self, level: int, mean_p: Tensor, log_variance_p: Tensor) -> tuple[Tensor, Tensor]:
        evidence, log_precision = self.mean[level - 1], bounded(self.log_precision[level - 1])
        # The evidence's share of the joined precision, without a division that could overflow.
        share = torch.sigmoid(log_precision + log_variance_p)
        log_variance = -torch.logaddexp(log_precision, -log_variance_p)
        return mean_p + share * (evidence - mean_p), log_variance


@dataclass(frozen=True, eq=False)
class Point:
    """One value for every latent: its free energy is -log p(x, z), and inference is MAP.

    A point has no entropy (its divergence would be infinite), so the `kl` of a level is its
    cross-entropy, -log p(z_l | z_{l+1}), and importance weights are those of the joint density.
    """

    mean: tuple[Tensor, ...]
    """(B, n_l) a level."""

    @classmethod
    def at_prior(cls, model: Levels, n_examples: int) -> Point:
        """Start at the prior's means."""
        return cls(prior_chain(model, n_examples)[0])

    @property
    def parameters(self) -> tuple[Tensor, ...]:
        return self.mean

    def with_parameters(self, parameters: tuple[Tensor, ...]) -> Point:
        return Point(parameters)

    def detached(self) -> Point:
        return self.with_parameters(leaves(self.parameters))

    def centre(self, model: Levels) -> tuple[Tensor, ...]:
        return self.mean

    def sample(
        self,
        model: Levels,
        n_samples: int,
        generator: torch.Generator | None,
        *,
        reparameterized: bool = True,
    ) -> Draw:
        if not reparameterized:
            advice = "Take Pathwise(): nothing is drawn."
            raise ValueError(refusal("ScoreFunction", "a Point", "a family with a density", advice))
        z, log_q, log_p = [], [], []
        above: Tensor | None = None
        for level in range(len(self.mean), 0, -1):
            here = self.mean[level - 1].expand(n_samples, -1, -1)
            z.append(here)
            log_p.append(log_density(here, *model.prior(level, above)))
            log_q.append(torch.zeros_like(log_p[-1]))
            above = here
        return bottom_first(z, log_q, log_p, [-p for p in log_p])
