"""Latent Gaussian models: levels of Gaussian latents, each predicting the level below."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor, nn

from pcsim.deep.draw import Posterior
from pcsim.deep.gaussians import LOG_VARIANCE_LIMIT, bounded, noise
from pcsim.deep.networks import FullyConnected, evaluating, seeded
from pcsim.deep.objective import PLAIN, FreeEnergy, Objective, Terms
from pcsim.deep.outputs import LOG_PRECISION_LIMITS, Bernoulli, Output
from pcsim.deep.posteriors import Flowed, FullCovariance, MeanField, Point, TopDown
from pcsim.messages import check_choice, check_integer, check_number, check_object, refusal
from pcsim.priors import Flat, GaussianPrior, Prior

__all__ = ["LatentGaussian", "check_learnable"]

Precision = float | str


class LatentGaussian(nn.Module):
    r"""Data predicted by latents, latents by latents above them.

    .. math:: p(x, z) = p(x | z_1) \, p(z_1 | z_2) \cdots p(z_L), \qquad
        z_l | z_{l+1} \sim N(\mu_l(z_{l+1}), \mathrm{diag}\,\sigma_l^2(z_{l+1}))

    Each mean (and variance) is a linear head on the features of that level's decoder network. The
    top level is :math:`N(0, I)`, or learned.

    Parameters
    ----------
    n_x
        Features of the data.
    n_z
        Latents a level, bottom first.
    output
        Distribution of the data given the lowest latents.
    decoders
        A network a level: the first predicts the data from level 1, the next level 1 from level 2.
        Any module with `n_in`, `n_out` and `head` (see `FullyConnected`). Without, all are linear.
    prior_precision
        Of the levels below the top, given the level above: "predicted", "feature" (learned, one a
        latent), or a fixed number.
    top_prior
        "standard", or "learned" (mean and precision of each top latent).
    priors
        One more prior a latent level (`pcsim.priors`), on top of the prediction from above and not
        renormalised, as in `pcsim.hierarchy.Hierarchy`: sparse ones for instance. Their energies
        count with the reconstruction. None where a level has no other. With such priors p(x, z)
        lacks its constant, and so do free energies and estimates of log p(x); `sample` refuses.
    generator
        Randomness of the heads' weights. Without, seed 0 is taken.
    """

    top: Tensor
    """(2, n_L): mean and log precision of the top level."""

    def __init__(
        self,
        n_x: int,
        n_z: Sequence[int],
        output: Output | None = None,
        *,
        decoders: Sequence[nn.Module] | None = None,
        prior_precision: Precision = "predicted",
        top_prior: str = "standard",
        priors: Sequence[Prior | None] | None = None,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        self.n_x = check_integer("LatentGaussian", "n_x", n_x, low=1)
        if not isinstance(n_z, Sequence):
            found, advice = f"n_z {n_z!r}", "Write (3,) for one level of three latents."
            raise TypeError(refusal("LatentGaussian", found, "a size a level", advice))
        self.n_z = tuple(check_integer("LatentGaussian", "n_z", n, low=1) for n in n_z)
        self.output: Output = Bernoulli() if output is None else output
        kind = "an output, such as Bernoulli()"
        check_object("LatentGaussian", "output", self.output, "log_prob", kind)
        self.prior_precision = _checked(prior_precision)
        check_choice("LatentGaussian", "top_prior", top_prior, ("standard", "learned"))
        self._given_priors = _fitting(self.n_z, priors)
        generator = seeded("LatentGaussian", generator)
        networks = self._decoders(decoders)
        n_heads = 2 if prior_precision == "predicted" else 1
        sizes = [(self.n_x, self.output.n_parameters), *((n, n_heads) for n in self.n_z[:-1])]
        self.decoders = nn.ModuleList(networks)
        self.heads = nn.ModuleList(
            d.head(n, k, generator)  # type: ignore[operator]
            for d, (n, k) in zip(networks, sizes, strict=True)
        )
        self._learned(top_prior)
        self.priors = _alike(self._given_priors, self.top)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        # What torch calls to move and convert a module: the arrays of priors go with the latents.
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        self.priors = _alike(self._given_priors, self.top)
        return self

    def _decoders(self, given: Sequence[nn.Module] | None) -> list[nn.Module]:
        where = "LatentGaussian"
        if not self.n_z:
            raise ValueError(refusal(where, "n_z ()", "a size a level", "Give at least one."))
        if isinstance(given, nn.Module) and not isinstance(given, nn.ModuleList):
            found, advice = f"decoders {type(given).__name__}", "Write [decoder] for one level."
            raise TypeError(refusal(where, found, "a list of networks, one a level", advice))
        usual = (FullyConnected(n) for n in self.n_z)
        networks: list[nn.Module] = list(usual if given is None else given)
        sizes = tuple(getattr(d, "n_in", None) for d in networks)
        if sizes != self.n_z:
            found = f"decoders that take {sizes} latents"
            advice = "Give one network a level, lowest first, each taking its own level."
            raise ValueError(refusal(where, found, f"{self.n_z}", advice))
        return networks

    def _learned(self, top_prior: str) -> None:
        shape = self.output.shared_shape(self.n_x)
        self.log_precision_x = None if shape is None else nn.Parameter(torch.zeros(shape))
        self.log_precisions = nn.ParameterList(
            torch.zeros(n) for n in self.n_z[:-1] if self.prior_precision == "feature"
        )
        top = torch.zeros(2, self.n_z[-1])
        if top_prior == "learned":
            self.top = nn.Parameter(top)
        else:
            self.register_buffer("top", top)

    def prior(self, level: int, z_above: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Mean and log variance of a latent level given the level above it.

        Parameters
        ----------
        level
            1 is the lowest.
        z_above : (..., n_{l+1})
            Latents of the level above; None at the top.

        Returns
        -------
        mean, log_variance
            Of shapes that broadcast to (..., n_l).
        """
        if z_above is None:
            return self.top[0], bounded(-self.top[1])
        predicted = self._predicted(level, z_above)
        if self.prior_precision == "predicted":
            mean, log_variance = predicted.chunk(2, -1)
            return mean, bounded(log_variance)
        if self.prior_precision == "feature":
            return predicted, bounded(-self.log_precisions[level - 1])
        return predicted, predicted.new_tensor(-math.log(float(self.prior_precision)))

    def _predicted(self, level: int, z: Tensor) -> Tensor:
        # Autocast ends here: densities and sums over features are taken in the type of the latents.
        predicted: Tensor = self.heads[level](self.decoders[level](z))
        return predicted.to(z.dtype)

    def output_parameters(self, z1: Tensor) -> tuple[Tensor, ...]:
        """Parameters of the output given the lowest latents, each broadcastable to (..., n_x)."""
        parameters = self._predicted(0, z1).chunk(self.output.n_parameters, -1)
        if self.log_precision_x is None:
            return parameters
        return (*parameters, self.log_precision_x)

    @torch.no_grad()
    def sample(
        self, n: int, generator: torch.Generator | None = None
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Draw data and the latents behind them from the top down (ancestral sampling), detached.

        Returns
        -------
        x : (n, n_x)
        z : (n, n_l) a level, bottom first

        Raises
        ------
        ValueError
            If the model has further `priors`: what it is then cannot be drawn level by level.
        """
        n = check_integer("sample", "n", n)
        if any(prior is not None for prior in self.priors):
            found, advice = "a model with further priors", "Leave out priors to sample."
            raise ValueError(refusal("sample", found, "levels given those above alone", advice))
        z: list[Tensor] = []
        above: Tensor | None = None
        with evaluating(self):
            for level in range(len(self.n_z), 0, -1):
                mean, log_variance = self.prior(level, above)
                eps = noise((n, self.n_z[level - 1]), mean, generator)
                above = mean + (0.5 * log_variance).exp() * eps
                z.insert(0, above)
            return self.output.sample(self.output_parameters(z[0]), generator), tuple(z)

    def terms(
        self,
        x: Tensor,
        q: Posterior,
        *,
        n_samples: int = 1,
        generator: torch.Generator | None = None,
        reparameterized: bool = True,
    ) -> Terms:
        """Draw latents from `q` and score data `x` (B, n_x) with them."""
        if x.ndim != 2 or x.shape[1] != self.n_x:
            found, advice = f"x of shape {tuple(x.shape)}", "Flatten each example into a row."
            raise ValueError(refusal("free_energy", found, f"shape (B, {self.n_x})", advice))
        check_integer("free_energy", "n_samples", n_samples, low=1)
        if isinstance(q, type) or not callable(getattr(q, "sample", None)):
            found = f"q {q.__name__}" if isinstance(q, type) else f"q of type {type(q).__name__}"
            advice = "Give what infer(...) ended at: its q."
            raise TypeError(refusal("free_energy", found, "a posterior", advice))
        self._check_fits(q)
        draw = q.sample(self, n_samples, generator, reparameterized=reparameterized)
        if draw.z[0].shape[1] != len(x):
            found, expected = f"q of {draw.z[0].shape[1]} examples", f"{len(x)}, as in x"
            raise ValueError(refusal("free_energy", found, expected, "Give q the batch of x."))
        log_likelihood = self.output.log_prob(x, self.output_parameters(draw.z[0]))
        for prior, z in zip(self.priors, draw.z, strict=True):
            if prior is not None:
                log_likelihood = log_likelihood - prior.energy(z, torch)
        return Terms(draw, log_likelihood)

    def _check_fits(self, q: Posterior) -> None:
        advice = "Give a q that was inferred with this model."
        sizes = self.n_z
        if isinstance(q, FullCovariance):
            sizes = tuple(q.sizes)
        elif isinstance(q, MeanField | TopDown | Point | Flowed):
            sizes = tuple(one.shape[-1] for one in q.mean)
        if sizes != self.n_z:
            found, expected = f"q of levels of {sizes} latents", f"{self.n_z}, as the model has"
            raise ValueError(refusal("free_energy", found, expected, advice))
        for one in q.parameters:
            if (one.dtype, one.device) != (self.top.dtype, self.top.device):
                found = f"q of {str(one.dtype).removeprefix('torch.')} on {one.device}"
                own = f"{str(self.top.dtype).removeprefix('torch.')} on {self.top.device}"
                raise ValueError(refusal("free_energy", found, f"{own}, as the model", advice))

    def free_energy(
        self,
        x: Tensor,
        q: Posterior,
        *,
        n_samples: int = 1,
        objective: Objective = PLAIN,
        generator: torch.Generator | None = None,
    ) -> FreeEnergy:
        """Free energy of each example of `x` (B, n_x) at posterior `q`; gradients are pathwise.

        Examples
        --------
        >>> from pcsim.deep.posteriors import MeanField
        >>> generator = torch.Generator().manual_seed(0)
        >>> model = LatentGaussian(784, (64, 32), decoders=[
        ...     FullyConnected(64, (512, 512), link="highway"), FullyConnected(32, (256,))])
        >>> x, z = model.sample(5, generator)
        >>> q = MeanField.at_prior(model, n_examples=5)
        >>> f = model.free_energy(x, q, n_samples=10, generator=generator)
        >>> f.total.shape, f.kl.shape, f.importance.shape
        (torch.Size([5]), torch.Size([5, 2]), torch.Size([10, 5]))
        """
        terms = self.terms(x, q, n_samples=n_samples, generator=generator)
        return objective.free_energy(terms)


def check_learnable(where: str, precisions: Sequence[Tensor]) -> None:
    """Refuse precisions of levels, the data first, that a model which learns them cannot have."""
    for level, precision in enumerate(precisions):
        limit = LOG_VARIANCE_LIMIT
        low, high = (-limit, limit) if level else LOG_PRECISION_LIMITS
        wanted = precision.log()
        beyond = ~((wanted - wanted.clamp(low, high)).abs() < 1e-6)
        if bool(beyond.any()):
            found = f"a precision of {precision[beyond][0].item():.6g} at level {level}"
            expected = f"{math.exp(low):.3g} to {math.exp(high):.4g}, as learned ones are held to"
            advice = "Measure the data (level 0) or the latents in larger or smaller units."
            raise ValueError(refusal(where, found, expected, advice))


def _fitting(
    n_z: tuple[int, ...], priors: Sequence[Prior | None] | None
) -> tuple[Prior | None, ...]:
    if priors is None:
        return (None,) * len(n_z)
    if not isinstance(priors, Sequence):
        found, advice = f"priors {type(priors).__name__}", "Write [prior] for one level."
        raise TypeError(refusal("LatentGaussian", found, "a list of priors, one a level", advice))
    if len(priors) != len(n_z):
        found, expected = f"{len(priors)} priors", f"{len(n_z)}, one a latent level"
        advice = "Give None to a level without one."
        raise ValueError(refusal("LatentGaussian", found, expected, advice))
    return tuple(_fitted(level, prior, n_z[level]) for level, prior in enumerate(priors))


def _fitted(level: int, prior: Prior | None, n: int) -> Prior | None:
    if prior is None or isinstance(prior, Flat):
        return None
    name = f"priors[{level}]"
    check_object("LatentGaussian", name, prior, "energy", "a prior, such as SparsePrior(), or None")
    if not isinstance(prior, GaussianPrior):
        return prior
    for part, shapes in (("mean", ((), (n,))), ("precision", ((), (n,), (n, n)))):
        shape = tuple(np.shape(getattr(prior, part)))
        if shape not in shapes:
            found = f"{name} with a {part} of shape {shape}"
            expected = f"a number or {' or '.join(map(str, shapes[1:]))}, as level {level + 1} has"
            raise ValueError(refusal("LatentGaussian", found, expected, "Give one per latent."))
    return _with_arrays(
        prior, lambda v: torch.as_tensor(v if isinstance(v, Tensor) else np.array(v)).double()
    )


def _alike(priors: tuple[Prior | None, ...], like: Tensor) -> tuple[Prior | None, ...]:
    return tuple(
        _with_arrays(one, lambda v: v.to(like)) if isinstance(one, GaussianPrior) else one
        for one in priors
    )


def _with_arrays(prior: GaussianPrior, convert: Callable[[Any], Tensor]) -> GaussianPrior:
    made = copy.copy(prior)  # it was checked when it was made: single precision might not pass
    for name in ("mean", "precision"):
        value = getattr(prior, name)
        object.__setattr__(made, name, value if isinstance(value, float) else convert(value))
    return made


def _checked(precision: Precision) -> Precision:
    where, name = "LatentGaussian", "prior_precision"
    if isinstance(precision, str):
        return check_choice(where, name, precision, ("predicted", "feature"))
    return check_number(where, name, precision, positive=True)
