r"""The linear Gaussian model of any depth, where everything is known in closed form.

.. math:: x = W_1 z_1 + b_1 + \epsilon_0, \quad z_l = W_{l+1} z_{l+1} + b_{l+1} + \epsilon_l, \quad
    \epsilon_l \sim N(0, \Pi_l^{-1})

It is what the other rooms are measured by: evidence, posterior, and the best any family can do.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from pcsim.deep.full_covariance import FullCovariance
from pcsim.deep.latent_gaussian import LatentGaussian, check_learnable
from pcsim.deep.networks import FullyConnected
from pcsim.deep.outputs import Gaussian
from pcsim.messages import refusal

__all__ = ["LinearGaussian"]


@dataclass(frozen=True, eq=False)
class LinearGaussian:
    """Weights, biases and precisions of a linear chain, and what follows from them.

    Evidence and posterior are computed in double precision, whatever the type they are returned in.

    Examples
    --------
    >>> x = torch.tensor([[2.0]])
    >>> exact = LinearGaussian(
    ...     weights=(torch.tensor([[1.0]]),), biases=(torch.tensor([0.0]), torch.tensor([0.0])),
    ...     precisions=(torch.tensor([3.0]), torch.tensor([1.0])))
    >>> mean, covariance = exact.posterior(x)
    >>> mean.item(), covariance.item()
    (1.5, 0.25)
    >>> f = exact.model().free_energy(x, exact.q(x), generator=torch.Generator().manual_seed(0))
    >>> bool(torch.isclose(f.importance[0, 0], exact.log_evidence(x)[0]))
    True
    """

    weights: tuple[Tensor, ...]
    """(n_below, n_above) a latent level, lowest first: to the data, to level 1, ..."""
    biases: tuple[Tensor, ...]
    """(n_below,) beside each of the weights, and last (n_L,), the mean of the top."""
    precisions: tuple[Tensor, ...]
    """(n,) of the data, of level 1, ..., of the top."""

    @classmethod
    def of(cls, model: LatentGaussian) -> LinearGaussian:
        """Read a latent Gaussian model; it must be linear, its precisions independent of z."""
        if not _is_linear(model):
            found = "a model with hidden layers, predicted precisions or a binned output"
            advice = "Leave decoders out; take Gaussian(precision) and a fixed prior_precision."
            raise ValueError(refusal("LinearGaussian", found, "a linear Gaussian model", advice))
        weights, biases, precisions = [], [], []
        for level, head in enumerate(model.heads):
            assert isinstance(head, nn.Linear)
            above = head.weight.new_zeros(head.in_features)
            weights.append(head.weight.detach())
            biases.append(head.bias.detach())
            precisions.append(_precision(model, level, above).detach().expand(head.out_features))
        mean, log_variance = (one.detach() for one in model.prior(len(model.n_z)))
        return cls((*weights,), (*biases, mean), (*precisions, (-log_variance).exp()))

    def model(self) -> LatentGaussian:
        """Return the latent Gaussian model with these weights, its precisions learnable.

        Raises
        ------
        ValueError
            If a precision is beyond the range that learned ones are held to.
        """
        check_learnable("LinearGaussian", self.precisions)
        n_x, *n_z = (len(p) for p in self.precisions)
        model = LatentGaussian(
            n_x, n_z, Gaussian("feature"), prior_precision="feature", top_prior="learned"
        ).to(self.weights[0])
        below = [model.log_precision_x, *model.log_precisions]
        with torch.no_grad():
            for i, (head, log_precision) in enumerate(zip(model.heads, below, strict=True)):
                assert isinstance(head, nn.Linear)
                assert isinstance(log_precision, nn.Parameter)
                head.weight.copy_(self.weights[i])
                head.bias.copy_(self.biases[i])
                log_precision.copy_(self.precisions[i].log())
            model.top.copy_(torch.stack([self.biases[-1], self.precisions[-1].log()]))
        return model

    @property
    def sizes(self) -> tuple[int, ...]:
        """Latents a level, lowest first."""
        return tuple(w.shape[1] for w in self.weights)

    def moments(self) -> tuple[Tensor, Tensor]:
        """Mean (n_x,) and covariance (n_x, n_x) of the data."""
        mean, covariance = self.biases[-1], torch.diag(1 / self.precisions[-1])
        for w, b, p in zip(
            self.weights[::-1], self.biases[-2::-1], self.precisions[-2::-1], strict=True
        ):
            mean = w @ mean + b
            covariance = w @ covariance @ w.mT + torch.diag(1 / p)
        return mean, covariance

    def log_evidence(self, x: Tensor) -> Tensor:
        """Return log p(x) of data (B, n_x), (B,)."""
        mean, covariance = self._double().moments()
        factor = torch.linalg.cholesky(covariance)
        white: Tensor = torch.linalg.solve_triangular(factor, (x.double() - mean).mT, upper=False)
        log_scale = torch.diagonal(factor).log().sum()
        evidence = white.square().sum(0) + len(mean) * math.log(2 * math.pi)
        log_p: Tensor = -0.5 * evidence - log_scale
        return log_p.to(x.dtype)

    def posterior_precision(self) -> Tensor:
        """(N, N): inverse covariance of all latents given data, lowest level first."""
        blocks = self.weights[0].new_zeros(sum(self.sizes), sum(self.sizes))
        start = 0
        for i, (w, n) in enumerate(zip(self.weights, self.sizes, strict=True)):
            here = slice(start, start + n)
            blocks[here, here] += w.mT @ (self.precisions[i][:, None] * w)
            blocks[here, here] += torch.diag(self.precisions[i + 1])
            if i:
                below = slice(start - self.sizes[i - 1], start)
                coupling = self.precisions[i][:, None] * w
                blocks[below, here] -= coupling
                blocks[here, below] -= coupling.mT
            start += n
        return blocks

    def posterior(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean (B, N) and covariance (N, N) of all latents given data, lowest level first."""
        mean, precision = self._double()._information(x.double())
        covariance = torch.cholesky_inverse(torch.linalg.cholesky(precision))
        return mean.to(x.dtype), covariance.to(x.dtype)

    def _double(self) -> LinearGaussian:
        # Beside what precise data say, single precision loses what the priors do.
        parts = (self.weights, self.biases, self.precisions)
        return LinearGaussian(*(tuple(one.double() for one in part) for part in parts))

    def _information(self, x: Tensor) -> tuple[Tensor, Tensor]:
        precision = self.posterior_precision()
        factor = torch.linalg.cholesky(precision)
        return torch.cholesky_solve(self._drive(x).mT, factor).mT, precision

    def _drive(self, x: Tensor) -> Tensor:
        # The posterior mean m solves P m = h; h collects what data and biases say of each level.
        drives = []
        for i, w in enumerate(self.weights):
            below = x - self.biases[0] if i == 0 else -self.biases[i]
            upward = (self.precisions[i] * below) @ w
            downward = self.precisions[i + 1] * self.biases[i + 1]
            drives.append((upward + downward).expand(len(x), -1))
        return torch.cat(drives, -1)

    def q(self, x: Tensor) -> FullCovariance:
        """Return the exact posterior as a member of the full-covariance family."""
        exact = FullCovariance.from_precision(*self._double()._information(x.double()), self.sizes)
        return exact.with_parameters(tuple(one.to(x.dtype) for one in exact.parameters))


def _is_linear(model: LatentGaussian) -> bool:
    output = model.output
    plain = isinstance(output, Gaussian) and output.precision != "predicted"
    plain = plain and output.link == "identity" and output.bin_width is None  # type: ignore[attr-defined]
    plain = plain and not any(model.priors)
    bare = all(isinstance(d, FullyConnected) and not len(d.linears) for d in model.decoders)
    return plain and bare and (model.prior_precision != "predicted" or len(model.n_z) == 1)


def _precision(model: LatentGaussian, level: int, above: Tensor) -> Tensor:
    if level:
        return (-model.prior(level, above)[1]).exp()
    assert isinstance(model.output, Gaussian)
    return model.output.log_precision(model.output_parameters(above)).exp()
