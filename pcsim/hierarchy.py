r"""The hierarchical Gaussian model: its free energy and the gradients of it, written by hand.

Level 0 is the input :math:`x`, levels 1 to L are latent. Level l is predicted from the one above,

.. math:: \hat\mu_l = g_l(W_l\, h_l(\mu_{l+1})), \quad \epsilon_l = \mu_l - \hat\mu_l,
    \quad \xi_l = \Pi_l \epsilon_l, \qquad \mu_0 = x,

.. math:: F = \sum_l \tfrac12 \epsilon_l^\top \Pi_l \epsilon_l - \tfrac12 \log|\Pi_l / 2\pi|
    + \text{priors},

in nats. `states` is always the sequence [x, mu_1, ..., mu_L]; leading axes are trials. Weights may
have leading axes too, one set of weights per replica: then states are (replicas, trials, n).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pcsim.arrays import Array, as_array, one_namespace
from pcsim.messages import refusal
from pcsim.nonlinearity import Nonlinearity, linear, nonlinearity
from pcsim.priors import (
    Flat,
    GaussianPrior,
    Prior,
    SparsePrior,
    check_precision,
    log_normalizer,
    precision_matrix,
    weigh,
)

__all__ = [
    "Flat",
    "GaussianPrior",
    "Hierarchy",
    "Level",
    "Prior",
    "SparsePrior",
    "check_states",
    "errors",
    "free_energy",
    "gradient",
    "precision_gradient",
    "predictions",
    "weight_gradient",
    "weighted_errors",
]


@dataclass(frozen=True, eq=False)
class Level:
    """How one level predicts the level below it.

    Examples
    --------
    >>> Level(np.ones((3, 2)), precision=0.7, outer="tanh").n_above
    2
    """

    weights: Array
    """(n_below, n_above), top-down; with leading axes one set per replica."""
    precision: float | Array = 1.0
    """Inverse variance of the level below around its prediction: number, (n_below,) or matrix."""
    outer: Nonlinearity = linear
    """g, applied to the weighted sum."""
    inner: Nonlinearity = linear
    """h, applied to the state above."""

    def __post_init__(self) -> None:
        weights = as_array("Level", "weights", self.weights, ndim=2)
        if 0 in weights.shape:
            found = f"weights of shape {tuple(weights.shape)}"
            advice = "A level has at least one unit below and one above."
            raise ValueError(refusal("Level", found, "shape (n_below, n_above)", advice))
        object.__setattr__(self, "weights", weights)
        precision = check_precision("Level", "precision", self.precision, self.n_below)
        object.__setattr__(self, "precision", precision)
        one_namespace("Level", weights=weights, precision=precision)
        for name in ("outer", "inner"):
            object.__setattr__(self, name, nonlinearity(getattr(self, name)))

    @property
    def n_below(self) -> int:
        """Number of units that are predicted."""
        return int(self.weights.shape[-2])

    @property
    def n_above(self) -> int:
        """Number of units that predict."""
        return int(self.weights.shape[-1])


@dataclass(frozen=True, eq=False)
class Hierarchy:
    """Levels from the input upwards, and one prior for each latent level.

    ``priors[l]`` acts on latent level l + 1 in addition to the prediction from above; the top level
    has only its prior.

    Examples
    --------
    >>> two = Level(np.ones((3, 2)), 0.7), Level(np.ones((2, 4)), 4.0)
    >>> Hierarchy(two, (Flat(), GaussianPrior(precision=0.7))).sizes
    (3, 2, 4)
    """

    levels: tuple[Level, ...]
    priors: tuple[Prior, ...]

    def __post_init__(self) -> None:
        for name in ("levels", "priors"):
            given = getattr(self, name)
            if not isinstance(given, list | tuple):
                found = f"{name} of type {type(given).__name__}"
                advice = f"Put the {name} in a tuple, the lowest first."
                raise TypeError(refusal("Hierarchy", found, "a tuple", advice))
            object.__setattr__(self, name, tuple(given))
        if not self.levels or len(self.levels) != len(self.priors):
            found = f"{len(self.levels)} levels and {len(self.priors)} priors"
            advice = "Give Flat() to a level that has no prior of its own."
            raise ValueError(refusal("Hierarchy", found, "as many priors as levels, >= 1", advice))
        self._check_types()
        self._check_sizes()
        arrays = {f"weights[{i}]": level.weights for i, level in enumerate(self.levels)}
        one_namespace("Hierarchy", **arrays)

    def _check_types(self) -> None:
        for kind, given, listed in (
            (Level, self.levels, "Level"),
            (Prior, self.priors, "GaussianPrior, SparsePrior or Flat"),
        ):
            for each in given:
                if not isinstance(each, kind):
                    found = f"an entry of type {type(each).__name__}"
                    raise TypeError(refusal("Hierarchy", found, listed, f"Wrap it in {listed}."))

    def _check_sizes(self) -> None:
        for i, (below, above) in enumerate(zip(self.levels, self.levels[1:], strict=False)):
            if below.n_above != above.n_below:
                found = f"{below.n_above} units above levels[{i}], {above.n_below} below the next"
                advice = "Weights are (n_below, n_above): did you pass the transpose?"
                raise ValueError(refusal("Hierarchy", found, "equal numbers", advice))
        for i, (prior, n) in enumerate(zip(self.priors, self.sizes[1:], strict=True)):
            if isinstance(prior, GaussianPrior):
                check_precision(f"Hierarchy: priors[{i}]", "precision", prior.precision, n)
                shape = tuple(getattr(prior.mean, "shape", ()))
                if shape not in ((), (n,)):
                    found = f"priors[{i}].mean of shape {shape}"
                    advice = "Give one mean per unit."
                    raise ValueError(refusal("Hierarchy", found, f"a number or ({n},)", advice))

    @property
    def sizes(self) -> tuple[int, ...]:
        """Number of units of every level, the input first."""
        return (self.levels[0].n_below, *(level.n_above for level in self.levels))


@dataclass(frozen=True, eq=False)
class _Pass:
    """What one downward pass through the levels leaves behind, a list entry per level."""

    rates: list[Array]  # h(mu_(l+1))
    drives: list[Array]  # W h
    errors: list[Array]
    weighted: list[Array]


def downward(hierarchy: Hierarchy, states: Sequence[Array], xp: Any) -> _Pass:
    """Predict every level from the one above and compare; the arguments are trusted."""
    made = _Pass([], [], [], [])
    for level, below, above in zip(hierarchy.levels, states, states[1:], strict=False):
        made.rates.append(level.inner.f(above, xp))
        made.drives.append(made.rates[-1] @ xp.matrix_transpose(level.weights))
        made.errors.append(below - level.outer.f(made.drives[-1], xp))
        made.weighted.append(weigh(level.precision, made.errors[-1]))
    return made


def gated(level: Level, drive: Array, weighted: Array, xp: Any) -> Array:
    """Return g'(drive) times the weighted error: what is passed up and what weights learn from."""
    return weighted if level.outer == linear else level.outer.df(drive, xp) * weighted


def energy(hierarchy: Hierarchy, states: Sequence[Array], made: _Pass, xp: Any) -> Array:
    """Return the part of F that depends on the states, (...,); the arguments are trusted."""
    total = 0.0
    for error, weighted in zip(made.errors, made.weighted, strict=True):
        total = total + 0.5 * xp.sum(error * weighted, axis=-1)
    for prior, mu in zip(hierarchy.priors, states[1:], strict=True):
        if not isinstance(prior, Flat):
            total = total + prior.energy(mu, xp)
    return total


def normalizer(hierarchy: Hierarchy, xp: Any) -> float | Array:
    """Return the part of F that does not depend on the states, nats."""
    total: float | Array = 0.0
    for level in hierarchy.levels:
        total = total + log_normalizer(level.precision, level.n_below, xp)
    for prior, n in zip(hierarchy.priors, hierarchy.sizes[1:], strict=True):
        total = total + prior.log_normalizer(n, xp)
    return total


def state_gradient(hierarchy: Hierarchy, states: Sequence[Array], made: _Pass, xp: Any) -> Any:
    """Return dF/dstate for every level as a list; the arguments are trusted."""
    out = [made.weighted[0]]
    for i, (level, prior) in enumerate(zip(hierarchy.levels, hierarchy.priors, strict=True)):
        mu = states[i + 1]
        ascending = gated(level, made.drives[i], made.weighted[i], xp) @ level.weights
        if level.inner != linear:
            ascending = level.inner.df(mu, xp) * ascending
        total = -ascending
        if i + 1 < len(hierarchy.levels):
            total = total + made.weighted[i + 1]
        if not isinstance(prior, Flat):
            total = total + prior.gradient(mu, xp)
        out.append(total)
    return out


def check_states(where: str, hierarchy: Hierarchy, states: Sequence[Array]) -> tuple[Any, Any]:
    """Return (array namespace, states as a list of arrays) or refuse the states.

    Raises
    ------
    ValueError
        If their number, sizes or leading axes do not fit the hierarchy.
    """
    check_hierarchy(where, hierarchy)
    sizes = hierarchy.sizes
    if not isinstance(states, list | tuple):
        found = f"states of type {type(states).__name__}"
        raise TypeError(refusal(where, found, "a list", "Give [x, mu_1, ..., mu_L]."))
    if len(states) != len(sizes):
        found, expected = f"{len(states)} states", f"{len(sizes)} (the input, then each latent)"
        raise ValueError(refusal(where, found, expected, "Give [x, mu_1, ..., mu_L]."))
    checked = [as_array(where, f"states[{i}]", s, ndim=1) for i, s in enumerate(states)]
    for i, (state, n) in enumerate(zip(checked, sizes, strict=True)):
        if state.shape[-1] != n or tuple(state.shape[:-1]) != tuple(checked[0].shape[:-1]):
            found = f"states[{i}] of shape {tuple(state.shape)}"
            expected = f"shape {(*checked[0].shape[:-1], n)}"
            advice = "All states share their leading (trial) axes; the last axis is the units."
            raise ValueError(refusal(where, found, expected, advice))
    check_replicas(where, hierarchy, tuple(checked[0].shape[:-1]))
    named = {f"states[{i}]": state for i, state in enumerate(checked)}
    return one_namespace(where, weights=hierarchy.levels[0].weights, **named), checked


def check_hierarchy(where: str, hierarchy: Hierarchy) -> None:
    if not isinstance(hierarchy, Hierarchy):
        found, advice = f"a {type(hierarchy).__name__}", "Build Hierarchy(levels, priors)."
        raise TypeError(refusal(where, found, "a Hierarchy", advice))


def check_replicas(where: str, hierarchy: Hierarchy, lead: tuple[int, ...]) -> None:
    """Refuse leading axes of states that do not meet those of replica-batched weights."""
    for i, level in enumerate(hierarchy.levels):
        replicas = tuple(level.weights.shape[:-2])
        if replicas and lead[:-1] != replicas:
            found = (
                f"states with leading axes {lead} for levels[{i}].weights of replicas {replicas}"
            )
            expected = f"leading axes {replicas} + (trials,)"
            advice = "Give every replica its own trials, as the axis before the units."
            raise ValueError(refusal(where, found, expected, advice))


def predictions(hierarchy: Hierarchy, states: Sequence[Array]) -> list[Array]:
    """Return the prediction of every level but the top: g(W h(mu above)), each (..., n_l)."""
    xp, states = check_states("predictions", hierarchy, states)
    made = downward(hierarchy, states, xp)
    return [lv.outer.f(drive, xp) for lv, drive in zip(hierarchy.levels, made.drives, strict=True)]


def errors(hierarchy: Hierarchy, states: Sequence[Array]) -> list[Array]:
    """Return the prediction error of every level but the top: observed minus predicted."""
    xp, states = check_states("errors", hierarchy, states)
    return downward(hierarchy, states, xp).errors


def weighted_errors(hierarchy: Hierarchy, states: Sequence[Array]) -> list[Array]:
    """Return precision times prediction error of every level but the top."""
    xp, states = check_states("weighted_errors", hierarchy, states)
    return downward(hierarchy, states, xp).weighted


def free_energy(hierarchy: Hierarchy, states: Sequence[Array]) -> Array:
    r"""Return :math:`F = -\log p(x, \mu_1, \dots, \mu_L)`, with all constants.

    A `SparsePrior` contributes only :math:`\frac\alpha2\sum\log(1 + \mu^2)`, `Flat` nothing. A
    prior on a level that is also predicted multiplies that prediction, not renormalised.

    Returns
    -------
    free_energy : (...,)
        Nats, one per trial.

    Examples
    --------
    >>> one = Hierarchy((Level(np.eye(1), 4.0),), (GaussianPrior(mean=3.0, precision=0.7),))
    >>> f = free_energy(one, [np.array([2.0]), np.array([2.5])])
    >>> bool(np.isclose(f, 0.5 * 4 * 0.25 + 0.5 * 0.7 * 0.25 - 0.5 * np.log(2.8 / (2 * np.pi)**2)))
    True
    """
    xp, states = check_states("free_energy", hierarchy, states)
    return energy(hierarchy, states, downward(hierarchy, states, xp), xp) + normalizer(
        hierarchy, xp
    )


def gradient(hierarchy: Hierarchy, states: Sequence[Array]) -> list[Array]:
    r"""Return the derivative of the free energy by every state, the input included.

    .. math:: \frac{\partial F}{\partial\mu_l} = \xi_l
        - h'(\mu_l) \odot W_{l-1}^\top (g' \odot \xi_{l-1}) + \text{prior}_l'

    Examples
    --------
    >>> one = Hierarchy((Level(np.eye(1), 4.0),), (GaussianPrior(mean=3.0, precision=0.7),))
    >>> gradient(one, [np.array([2.0]), np.array([2.5])])
    [array([-2.]), array([1.65])]
    """
    xp, states = check_states("gradient", hierarchy, states)
    made = downward(hierarchy, states, xp)
    return list(state_gradient(hierarchy, states, made, xp))


def weight_gradient(hierarchy: Hierarchy, states: Sequence[Array]) -> list[Array]:
    r"""Return dF/dW of every level, averaged over trials: local, postsynaptic times presynaptic.

    .. math:: \frac{\partial F}{\partial W_l} = -\langle (g' \odot \xi_l)\, h(\mu_{l+1})^\top\rangle

    Returns
    -------
    gradients
        One of the shape of the weights per level.

    Examples
    --------
    >>> one = Hierarchy((Level(np.eye(1), 4.0),), (Flat(),))
    >>> weight_gradient(one, [np.array([2.0]), np.array([2.5])])
    [array([[5.]])]
    """
    xp, states = check_states("weight_gradient", hierarchy, states)
    return weight_gradient_of(hierarchy, downward(hierarchy, states, xp), xp)


def weight_gradient_of(hierarchy: Hierarchy, made: _Pass, xp: Any) -> list[Array]:
    """Return the weight gradients that follow from a downward pass; the arguments are trusted."""
    out = []
    for i, level in enumerate(hierarchy.levels):
        post = gated(level, made.drives[i], made.weighted[i], xp)
        pre = made.rates[i]
        if level.weights.ndim == 2:
            post, pre = _trials(post, xp), _trials(pre, xp)
        out.append(-(xp.matrix_transpose(post) @ pre) / post.shape[-2])
    return out


def precision_gradient(hierarchy: Hierarchy, states: Sequence[Array]) -> list[Array]:
    r"""Return the derivative of F by the precision of every level, averaged over trials.

    By the logarithm of a scalar, :math:`\frac12(\pi\,\epsilon^\top\epsilon - n)`, or of a diagonal
    precision, :math:`\frac12(\pi_i\epsilon_i^2 - 1)`; by the entries of a matrix,
    :math:`\frac12(\epsilon\epsilon^\top - \Pi^{-1})`.

    Examples
    --------
    >>> one = Hierarchy((Level(np.eye(1), 4.0),), (Flat(),))
    >>> precision_gradient(one, [np.array([2.0]), np.array([2.5])])
    [array(0.)]
    """
    xp, states = check_states("precision_gradient", hierarchy, states)
    made = downward(hierarchy, states, xp)
    out = []
    for level, error in zip(hierarchy.levels, made.errors, strict=True):
        pi, eps = level.precision, _trials(error, xp)
        if getattr(pi, "ndim", 0) == 2:
            second = xp.matrix_transpose(eps) @ eps / eps.shape[0]
            covariance = xp.linalg.solve(pi, precision_matrix(1.0, level.n_below, eps))
            out.append(0.5 * (second - covariance))
        else:
            square = xp.mean(eps * weigh(pi, eps), axis=0)
            terms = 0.5 * (square - 1)
            out.append(terms if getattr(pi, "ndim", 0) == 1 else xp.asarray(xp.sum(terms)))
    return out


def _trials(values: Array, xp: Any) -> Array:
    """Return `values` (..., n) as (trials, n)."""
    return xp.reshape(values, (-1, values.shape[-1]))


def is_linear(hierarchy: Hierarchy) -> bool:
    """Return whether every nonlinearity is the identity."""
    return all(level.outer == linear and level.inner == linear for level in hierarchy.levels)
