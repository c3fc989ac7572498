"""Posteriors bent by normalizing flows: inverse autoregressive, planar and coupling."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from pcsim.deep.draw import Draw, Levels, bottom_first, interleaved, leaves, prior_chain
from pcsim.deep.gaussians import bounded, log_density, noise
from pcsim.deep.networks import check_sizes, seeded
from pcsim.messages import check_choice, check_integer, refusal

__all__ = ["KINDS", "Flow", "Flowed", "Planar"]


class Planar(nn.Module):
    r"""One planar step, :math:`z' = z + \hat u \tanh(w^\top z + b)`.

    :math:`\hat u = u + (\mathrm{softplus}(w^\top u) - 1 - w^\top u) w / |w|^2` keeps it invertible.
    With a context, a linear map of it is added to :math:`u`, :math:`w` and :math:`b`; without, the
    map is an empty buffer, so that every parameter has a gradient. Where
    :math:`w = 0` the step is a shift by :math:`u \tanh b`, which is invertible as it is.

    References
    ----------
    Rezende and Mohamed (2015), https://arxiv.org/abs/1505.05770
    """

    of_context: Tensor

    def __init__(self, n: int, n_context: int, generator: torch.Generator) -> None:
        super().__init__()
        self.n = n
        self.vectors = nn.Parameter(0.1 * torch.randn(2 * n + 1, generator=generator))
        of_context = torch.zeros(2 * n + 1, n_context)
        if n_context:
            self.of_context = nn.Parameter(of_context)
        else:
            self.register_buffer("of_context", of_context)

    def forward(self, z: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return the moved points (..., n) and the log determinant (...)."""
        vectors: Tensor = self.vectors
        if context is not None:
            vectors = vectors + context @ self.of_context.mT
        u, w, b = torch.split(vectors, [self.n, self.n, 1], -1)
        along = (w * u).sum(-1, keepdim=True)
        square = w.square().sum(-1, keepdim=True)
        least = torch.finfo(w.dtype).tiny ** 0.5  # below, derivatives would overflow
        square = torch.where(square > least, square, torch.ones_like(square))
        u = u + (softplus(along) - 1 - along) * w / square
        bend = torch.tanh((w * z).sum(-1, keepdim=True) + b)
        # 1 + u.w (1 - bend^2) is at least softplus - 1 + 1 > 0
        slope = (1 - bend.square()) * (u * w).sum(-1, keepdim=True)
        return z + u * bend, torch.log1p(slope).squeeze(-1)


class _Zuko(nn.Module):
    """One lazy transform of the zuko library as a step."""

    def __init__(self, transform: nn.Module) -> None:
        super().__init__()
        self.transform = transform

    def forward(self, z: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        moved, log_determinant = self.transform(context).call_and_ladj(z)
        return moved, log_determinant


def _autoregressive(n: int, n_context: int, index: int, widths: Sequence[int]) -> nn.Module:
    from zuko import flows

    order = torch.arange(n)
    transform: nn.Module = flows.MaskedAutoregressiveTransform(
        n, n_context, order=order if index % 2 == 0 else order.flip(0), hidden_features=widths
    )
    return transform


def _coupling(n: int, n_context: int, index: int, widths: Sequence[int]) -> nn.Module:
    from zuko import flows

    mask = torch.arange(n) % 2 == index % 2
    transform: nn.Module = flows.GeneralCouplingTransform(
        n, n_context, mask=mask, hidden_features=widths
    )
    return transform


KINDS: dict[str, Callable[[int, int, int, Sequence[int]], nn.Module] | None] = {
    "inverse_autoregressive": _autoregressive,
    "coupling": _coupling,
    "planar": None,
}


class Flow(nn.Module):
    """Steps that move the latents of one level and count how they stretch space.

    Parameters
    ----------
    n
        Latents of the level.
    kind
        "inverse_autoregressive" or "coupling" (affine, from zuko), or "planar".
    n_steps
        Steps one after another; the order of latents is reversed, or the halves swap, in between.
    n_context
        Size of the context that conditions every step; 0 for none.
    widths
        Hidden layers of each step's network (planar has none).
    generator
        Randomness of the initial weights; all but planar flows start near the identity.
    """

    def __init__(
        self,
        n: int,
        kind: str = "inverse_autoregressive",
        *,
        n_steps: int = 2,
        n_context: int = 0,
        widths: Sequence[int] = (64,),
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        self.n = check_integer("Flow", "n", n, low=1)
        check_choice("Flow", "kind", kind, KINDS)
        widths = check_sizes("Flow", "widths", widths)
        check_integer("Flow", "n_steps", n_steps, low=1)
        if kind == "coupling" and n < 2:
            advice = "Take 'inverse_autoregressive' or 'planar'."
            raise ValueError(refusal("Flow", f"coupling of {n} latent", "at least 2", advice))
        generator = seeded("Flow", generator)
        self.n_context = check_integer("Flow", "n_context", n_context)
        make = KINDS[kind]
        if make is None:
            steps: list[nn.Module] = [Planar(n, n_context, generator) for _ in range(n_steps)]
        else:
            seed = int(torch.randint(2**31, (), generator=generator))
            with torch.random.fork_rng(devices=[]):  # zuko draws from the global state
                torch.random.manual_seed(seed)
                steps = [_Zuko(make(n, n_context, i, widths)) for i in range(n_steps)]
            _near_identity(steps)
        self.steps = nn.ModuleList(steps)

    def forward(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Move points (S, B, n); return them and the log determinants (S, B)."""
        if context is not None:
            context = context.expand(*z.shape[:-1], context.shape[-1])
        total = z.new_zeros(z.shape[:-1])
        for step in self.steps:
            z, log_determinant = step(z, context)
            total = total + log_determinant
        return z, total


def _near_identity(steps: list[nn.Module]) -> None:
    with torch.no_grad():
        for step in steps:
            layers = [m for m in step.modules() if hasattr(m, "weight")]
            last = layers[-1] if layers else step  # of one latent alone zuko has no network
            for parameter in last.parameters():
                parameter.mul_(0.1)


def check_flows(
    flows: Sequence[nn.Module], n_z: Sequence[int], n_examples: int, context: Tensor | None
) -> None:
    """Refuse flows of other sizes than the levels', and a context that does not fit them."""
    where = "Flowed"
    if len(flows) != len(n_z):
        expected = f"one for each of {len(n_z)} levels"
        raise ValueError(refusal(where, f"{len(flows)} flows", expected))
    size = 0 if context is None else context.shape[-1]
    if context is not None and (context.ndim != 2 or len(context) not in (1, n_examples)):
        found, expected = f"a context of shape {tuple(context.shape)}", f"({n_examples}, n_context)"
        raise ValueError(refusal(where, found, expected))
    for number, (flow, n) in enumerate(zip(flows, n_z, strict=True), start=1):
        if not isinstance(flow, Flow):
            continue  # one's own: what it takes is not known
        if flow.n != n:
            found, expected = f"a flow of {flow.n} at level {number}", f"Flow({n}, ...)"
            raise ValueError(refusal(where, found, expected))
        if flow.n_context != size:
            found = f"a context of {size} for a flow with n_context {flow.n_context}"
            advice = "Give both, or neither."
            raise ValueError(refusal(where, found, "equal sizes", advice))


@dataclass(frozen=True, eq=False)
class Flowed:
    """Independent Gaussians, each level then moved by a flow of its own.

    Its parameters are ``(mean_1, log_variance_1, ...)`` of the Gaussians, level 1 first, and last
    the context, if there is one. The flows' weights are shared by all examples and learn with those
    of the inference network that starts from them (`Direct`, `Iterative`). Bind them to its start
    as in ``functools.partial(Flowed.at_prior, flows=flows)``: `copy.deepcopy` then copies them with
    it, where the copy of a lambda keeps the flows of the original. Divergences have no closed form
    and are sampled. Under `ScoreFunction` the Gaussians' parameters have
    score-function gradients, flows and contexts pathwise ones.
    """

    mean: tuple[Tensor, ...]
    """(B, n_l) a level, before the flow."""
    log_variance: tuple[Tensor, ...]
    """(B, n_l) a level, before the flow."""
    flows: Sequence[nn.Module]
    """A `Flow` a level (a list, or an `nn.ModuleList`)."""
    context: Tensor | None = None
    """(B, n_context), what conditions the flows."""

    @classmethod
    def at_prior(
        cls,
        model: Levels,
        n_examples: int,
        flows: Sequence[nn.Module],
        context: Tensor | None = None,
    ) -> Flowed:
        """Start the Gaussians at the prior, each level given the means of the level above.

        Flows take the number type of the model. A context of one row is that of every example.

        Raises
        ------
        ValueError
            If flows do not fit the levels, or the context does not fit flows and examples.
        """
        mean, log_variance = prior_chain(model, n_examples)
        check_flows(flows, [part.shape[-1] for part in mean], n_examples, context)
        for flow in flows:
            if next(flow.parameters()).dtype != mean[0].dtype:
                flow.to(dtype=mean[0].dtype)
        if context is not None and len(context) != n_examples:
            context = context.expand(n_examples, -1)
        return cls(mean, log_variance, flows, context)

    @property
    def parameters(self) -> tuple[Tensor, ...]:
        gaussian = interleaved(self.mean, self.log_variance)
        return gaussian if self.context is None else (*gaussian, self.context)

    def with_parameters(self, parameters: tuple[Tensor, ...]) -> Flowed:
        context = None
        if self.context is not None:
            *parameters, context = parameters  # type: ignore[assignment]
        mean, log_variance = tuple(parameters[0::2]), tuple(parameters[1::2])
        return Flowed(mean, log_variance, self.flows, context)

    def detached(self) -> Flowed:
        return self.with_parameters(leaves(self.parameters))

    def centre(self, model: Levels) -> tuple[Tensor, ...]:
        pairs = zip(self.flows, self.mean, strict=True)
        return tuple(flow(mean, self.context)[0] for flow, mean in pairs)

    def sample(
        self,
        model: Levels,
        n_samples: int,
        generator: torch.Generator | None,
        *,
        reparameterized: bool = True,
    ) -> Draw:
        z, log_q, log_p, scores = [], [], [], []
        above: Tensor | None = None
        for level in range(len(self.mean), 0, -1):
            mean, log_variance = self.mean[level - 1], bounded(self.log_variance[level - 1])
            eps = noise((n_samples, *mean.shape), mean, generator)
            start = mean + (0.5 * log_variance).exp() * eps
            start = start if reparameterized else start.detach()
            here, log_determinant = self.flows[level - 1](start, self.context)
            scores.append(log_density(start, mean, log_variance))
            z.append(here)
            log_q.append(scores[-1] - log_determinant)
            log_p.append(log_density(here, *model.prior(level, above)))
            above = here
        return bottom_first(z, log_q, log_p, [None] * len(z), torch.stack(scores).sum(0))
