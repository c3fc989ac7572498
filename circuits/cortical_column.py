r"""The laminar cortical column: areas V1, V2, V4 of a hierarchy, each with its layers and delays.

Assignment of computations to layers after Bastos et al. (2012, Neuron 76:695) and Shipp (2016,
Front. Psychol. 7:1792). In every area :math:`a`, spiny stellates of L4 (:math:`u`) relay the errors
of the area below, pyramids of L5/6 (:math:`\mu`) hold the estimate and send predictions back,
interneurons (:math:`p`) turn predictions into inhibition, pyramids of L2/3 (:math:`\xi`) report
the precision-weighted error and send it forward, and interneurons (:math:`s`) inhibit them
in proportion to the covariance :math:`\Sigma = \Pi^{-1}` of the errors:

.. math::
    \tau_u \dot u_a &= -u_a + W_{a-1}^\top \xi_{a-1}(t - d_f), \qquad
    \tau_\mu \dot\mu_a = u_a - \xi_a \\
    \tau_i \dot p_a &= -p_a + \gamma W_a \mu_{a+1}(t - d_b), \qquad
    \tau_i \dot s_a = -s_a + (\Sigma_a - D_a)\,\xi_a \\
    \tau_\xi \dot\xi_a &= \mu_a - p_a - s_a - D_a \xi_a

(signals within an area arrive after :math:`d_l`). :math:`D_a`, half of the diagonal of
:math:`\Sigma_a`, is the pyramids' own leak. Level 0 are relay cells of the LGN,
:math:`\tau_\xi \dot\xi_0 = x - W_0\mu_1(t - d_b) - \xi_0/\Pi_0`; nothing predicts the top area,
whose errors are deviations from a prior mean of 0. At rest
:math:`\xi_a = \Pi_a (\mu_a - W_a\mu_{a+1})` and :math:`\mu` is the MAP estimate of the linear
Gaussian hierarchy with these precisions.

It sees images through differences of Gaussians (LGN) and Gabors at 15 places (V1: 6 orientations,
2 phases, 2 cycles per degree); these are fixed. Fitting learns the weights between V1, V2 and V4
from errors (Hebbian, Oja 1989) and the lateral inhibition within areas from their correlations.

Rates are signed: deviations of a population from its spontaneous rate; the brain may split them
over cells of two signs (Keller & Mrsic-Flogel 2018, Neuron 100:424). What it predicts: end-stopping
and surround suppression in L2/3 that need feedback (H10, H11), sustained estimates and transient
errors (H19), latencies that grow with the area (H33), fast forward and slow backward rhythms (H31),
and attention as gain of the errors (H34).

Time constants are those of the canonical microcircuit of SPM (`spm_fx_cmc`: spiny stellate and
superficial pyramidal 2 ms, interneurons 16 ms, deep pyramidal 28 ms), as is the delay of 1 ms
within an area. Forward and backward fibres are equally fast (Girard et al. 2001, J. Neurophysiol.
85:1328). Our own choices: 8 ms between areas, precisions, the numbers of units, the halves of
:math:`\Sigma`'s diagonal, and weights of spectral norm 1, because delays bound the gain of loops.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from itertools import pairwise
from typing import Any, ClassVar

import numpy as np
import xarray as xr

from pcsim.circuit import Circuit, Population, Projection
from pcsim.filters import gabor
from pcsim.inference import GaussianPrior, Hierarchy, Level, map_exact
from pcsim.kinds import Error, Latent, Leaky
from pcsim.messages import check_choice, check_integer, refusal

__all__ = ["MODEL", "CorticalColumn"]

AREAS = ("V1", "V2", "V4", "IT")
FIELD, PX_PER_DEG = (32, 42), 16.0
CELL = 2
"""Pixels between relay cells."""
GRID = (13, 17)
"""Rows and columns of relay cells."""
COLUMN = 5
"""Pixels between hypercolumns of V1: 3 rows, 5 columns."""
N_ORIENTATIONS, N_PHASES = 6, 2
N_UNITS = (180, 60, 24, 12)
FREQUENCY = 0.125
"""Cycles per pixel of the Gabors: 2 cycles per degree, the peak of the relay cells."""
SIGMA = 3.3
"""Pixels; 1.4 octaves of bandwidth at that frequency (De Valois et al. 1982)."""
BATCH, LATERAL, STRONGEST = 40, 0.5, 2.0


@dataclass(frozen=True, kw_only=True)
class CorticalColumn(Circuit):
    """Areas of a hierarchy, each with L4, L2/3, L5/6 and two kinds of interneurons.

    Controls: ``lateral="random"`` or ``"none"``; ``feedback_gain=0.0``; synchronous update, that is
    all delays 0 and all time constants equal.
    """

    n_areas: int = 3
    """V1, V2, V4, IT: how many of them, from below."""
    weights: Any = ()
    """(n_a, n_(a+1)) for a = V1, V2 ...: predictions descend through them, errors ascend; ()
    before fitting: random."""
    correlations: Any = ()
    """(n_a, n_a) for each area: correlations of its errors, shrunk; () before fitting: none."""
    lateral: str = "full"
    """Inhibition between columns: "full" as learned, "none", or "random" (shuffled; a control)."""
    lateral_seed: int = 0
    """Of the shuffling of lateral weights."""
    precision: Any = (1.0, 0.5, 0.5, 0.5, 0.5)
    """Inverse variances of the errors of LGN, V1, V2 ..."""
    attention: Any = ()
    """Factors on the precisions of LGN, V1 ..., each a number or one a unit; () leaves all at 1."""
    feedback_gain: float = 1.0
    """Gain of predictions between cortical areas; 0 cuts the feedback, 1 gives the MAP estimate."""
    corticothalamic_gain: float = 1.0
    """Gain of predictions from V1 to the LGN."""
    tau_error: float = 0.002
    """Time constant of L2/3 pyramids and relay cells, seconds (SPM: superficial pyramidal)."""
    tau_latent: float = 0.028
    """Time constant of L5/6 pyramids, seconds (SPM: deep pyramidal)."""
    tau_interneuron: float = 0.016
    """Time constant of interneurons, seconds (SPM)."""
    tau_input: float = 0.002
    """Time constant of L4, seconds (SPM: spiny stellate)."""
    delay_forward: float = 0.008
    """To the next area, seconds."""
    delay_backward: float = 0.008
    """From the next area, seconds."""
    delay_local: float = 0.001
    """Within an area, seconds (SPM: intrinsic)."""
    noise: float = 0.0
    """White noise on L4, L2/3 and L5/6: the standard deviation of an isolated unit."""
    input_gain: float = 20.0
    """Brings relay cells to unit variance on natural images; set by fitting."""
    learning_rate: float = 1.0
    """In units of the inverse curvature of the energy in the weights; falls as 1/(1 + batch/25)."""

    curriculum: ClassVar[str] = "patches"
    n_training: ClassVar[Mapping[str, int]] = {"quick": 6000, "full": 12_000}

    @property
    def field_shape(self) -> tuple[int, int]:
        """Rows and columns of the visual field."""
        return FIELD

    @property
    def px_per_deg(self) -> float:
        """Pixels per degree of visual angle."""
        return PX_PER_DEG

    @property
    def areas(self) -> tuple[str, ...]:
        """Names of the cortical areas, from below."""
        n = check_integer("CorticalColumn", "n_areas", self.n_areas, low=1)
        if n > len(AREAS):
            raise ValueError(refusal("CorticalColumn", f"{n} areas", f"at most {len(AREAS)}"))
        return AREAS[:n]

    @property
    def populations(self) -> tuple[Population, ...]:
        """Relay cells, then five populations an area; the top area has no predictions to take."""
        x, y = relay_places()
        relay = Error(tau=self.tau_error, variance=1.0 / self._precisions(0))
        out = [Population("error_LGN", relay, len(x), 0, "error", "LGN", "", x, y)]
        fast = Leaky(tau=self.tau_interneuron)
        for a, area in enumerate(self.areas, start=1):
            place: dict[str, Any] = dict(zip(("x", "y", "channel"), places(a), strict=True))
            error = Error(tau=self.tau_error, variance=self._leak(a))
            latent, relay_4 = Latent(tau=self.tau_latent), Leaky(tau=self.tau_input)
            cells: list[tuple[str, Any, str, str, float]] = [
                ("input", relay_4, "input", "L4", self.noise),
                ("error", error, "error", "L2/3", self.noise),
                ("latent", latent, "latent", "L5/6", self.noise),
                ("prediction", fast, "prediction", "L2/3", 0.0),
                ("interneuron", fast, "interneuron", "L2/3", 0.0),
            ]
            if a == self.n_areas:
                del cells[3]
            out += [
                Population(
                    f"{name}_{area}", kind, N_UNITS[a - 1], a, role, area, layer, noise=noise,
                    **place,
                )
                for name, kind, role, layer, noise in cells
            ]  # fmt: skip
        return tuple(out)

    @property
    def projections(self) -> tuple[Projection, ...]:
        """Errors forward, predictions backward through the same weights, and the loops between."""
        here, below = self.delay_local, "LGN"
        out = [Projection("stimulus", "error_LGN", port="observed")]
        for a, area in enumerate(self.areas, start=1):
            weights = self._weights(a - 1)
            gain = self.corticothalamic_gain if a == 1 else self.feedback_gain
            down = ("error_LGN", "predicted") if a == 1 else (f"prediction_{below}", "drive")
            loop = self.covariance(a) - np.diag(self._leak(a))
            forward, error, latent, inner = (
                f"{name}_{area}" for name in ("input", "error", "latent", "interneuron")
            )
            out += [
                Projection(
                    f"error_{below}", forward, weights.T, "drive", delay=self.delay_forward
                ),
                Projection(forward, latent, port="ascending", delay=here),
                Projection(
                    latent, down[0], gain * weights, down[1], delay=self.delay_backward
                ),
                Projection(latent, error, port="observed", delay=here),
                Projection(error, latent, port="own_error", delay=here),
                Projection(error, inner, loop, "drive", delay=here),
                Projection(inner, error, port="inhibition", delay=here),
            ]  # fmt: skip
            if a < self.n_areas:
                out.append(Projection(f"prediction_{area}", error, port="predicted", delay=here))
            below = area
        return tuple(out)

    def _weights(self, a: int) -> Any:
        """Return the weights from area a + 1 down to area a; 0 is the LGN."""
        if a == 0:
            return gabors()
        return self.weights[a - 1] if len(self.weights) else random_weights(0)[a - 1]

    def _precisions(self, a: int) -> Any:
        """Return the precision of every error of area a, before lateral inhibition."""
        n = len(relay_places()[0]) if a == 0 else N_UNITS[a - 1]
        factor = self.attention[a] if a < len(self.attention) else 1.0
        out = self.precision[a] * np.broadcast_to(np.asarray(factor, dtype=np.float64), n)
        if not (out > 0).all():
            found = f"precision times attention down to {out.min():g} in area {a}"
            raise ValueError(refusal("CorticalColumn", found, "numbers above 0"))
        return out

    def _leak(self, a: int) -> Any:
        """Return the pyramids' own share of their inhibition: half of the diagonal."""
        return 0.5 / self._precisions(a)

    def covariance(self, a: int) -> Any:
        """Return the covariance of the errors of area a = 1, 2 ... that sets their precision."""
        check_choice("CorticalColumn", "lateral", self.lateral, ("full", "none", "random"))
        correlations = np.eye(N_UNITS[a - 1])
        if self.lateral != "none" and a <= len(self.correlations):
            correlations = self.correlations[a - 1]
        if self.lateral == "random":
            correlations = shuffled(correlations, [self.lateral_seed, a])
        scale = self._precisions(a) ** -0.5
        return scale[:, None] * correlations * scale

    def hierarchy(self) -> Hierarchy:
        """Return the generative model whose MAP estimate it rests at, feedback intact."""
        precisions = [np.linalg.inv(self.covariance(a)) for a in range(1, self.n_areas + 1)]
        precisions = [np.diag(self._precisions(0)), *(0.5 * (p + p.T) for p in precisions)]
        levels = [Level(self._weights(a), precisions[a]) for a in range(self.n_areas)]
        priors = [GaussianPrior(precision=1e-12)] * (self.n_areas - 1)
        return Hierarchy(tuple(levels), (*priors, GaussianPrior(precision=precisions[-1])))

    def prepare(self, stimulus: xr.DataArray) -> Any:
        """Filter images by the differences of Gaussians of the relay cells: (trial, time, 221)."""
        return self.input_gain * (Circuit.prepare(self, stimulus) - 0.5) @ relay_fields()

    def untrained(self, *, seed: int) -> CorticalColumn:
        """Return the circuit with the random weights that training starts from."""
        return replace(self, weights=random_weights(seed), correlations=())

    def fit(self, stimulus: xr.DataArray, *, seed: int = 0) -> CorticalColumn:
        """Learn weights between areas, then lateral inhibition, from images at rest.

        Errors times rates of the first forward sweep, without feedback, make Oja's (1989) subspace
        rule: predictions come to span what varies most below.
        """
        model = self.untrained(seed=seed)
        inputs = model.prepare(stimulus).reshape(-1, len(relay_places()[0]))
        scale = float(1.0 / np.sqrt((inputs**2).mean()))
        inputs = scale * inputs
        rng = np.random.default_rng([seed, 2012])
        order = np.array_split(rng.permutation(len(inputs)), max(len(inputs) // BATCH, 1))
        for number, chosen in enumerate(order):
            rate = self.learning_rate / (1.0 + number / 25.0)
            model = replace(model, weights=model._learned(inputs[chosen], rate))
        model = replace(model, weights=tuple(normalised(one) for one in model.weights))
        errors = map_exact(model.hierarchy(), inputs).errors[1:]
        top = map_exact(model.hierarchy(), inputs).states[-1]
        correlations = tuple(shrunk(np.corrcoef(one.T)) for one in (*errors, top))
        return replace(model, correlations=correlations, input_gain=scale * self.input_gain)

    def _learned(self, inputs: Any, rate: float) -> Any:
        """Return the weights after one batch: what a forward sweep leaves unpredicted, times it."""
        estimate = map_exact(self.hierarchy(), inputs)
        out = list(self.weights)
        for a in range(1, self.n_areas):
            weights, below = out[a - 1], estimate.states[a]
            sweep = below @ weights
            error = below - sweep @ weights.T
            power = float(np.linalg.eigvalsh(sweep.T @ sweep)[-1])
            out[a - 1] = reach(a) * (weights + rate * (error.T @ sweep) / power)
        return tuple(out)


def normalised(weights: Any) -> Any:
    """Scale weights so that their strongest mode has gain 1, as far as the delays allow."""
    return weights / np.linalg.norm(weights, 2)


@cache
def random_weights(seed: int) -> tuple[Any, ...]:
    """Draw weights between the areas, within reach, of gain 1."""
    rng = np.random.default_rng([seed, 695])
    drawn = [rng.standard_normal(size) for size in pairwise(N_UNITS)]
    return tuple(normalised(w * reach(a)) for a, w in enumerate(drawn, start=1))


def shrunk(correlations: Any) -> Any:
    """Shrink correlations by half, or until their strongest mode has 2 times a unit's variance."""
    largest = float(np.linalg.eigvalsh(correlations)[-1])
    share = min(LATERAL, (STRONGEST - 1.0) / max(largest - 1.0, 1e-9))
    return np.eye(len(correlations)) + share * (correlations - np.eye(len(correlations)))


def shuffled(correlations: Any, seed: Any) -> Any:
    """Deal the correlations to other pairs of units; shrink them until they are a covariance."""
    n = len(correlations)
    upper = np.triu_indices(n, 1)
    out = np.zeros((n, n))
    out[upper] = np.random.default_rng(seed).permutation(correlations[upper])
    out += out.T
    lowest = -float(np.linalg.eigvalsh(out)[0])
    return np.eye(n) + min(1.0, 0.5 / max(lowest, 1e-9)) * out


@cache
def relay_places() -> tuple[Any, Any]:
    """Return x and y of the relay cells relative to the field's centre, degrees."""
    rows, columns = (np.arange(n) - (n - 1) / 2 for n in GRID)
    y, x = np.meshgrid(-rows, columns, indexing="ij")
    return x.ravel() * CELL / PX_PER_DEG, y.ravel() * CELL / PX_PER_DEG


@cache
def relay_fields() -> Any:
    """Return on-centre differences of Gaussians of 1.3 and 2.08 px, as matrix (pixels, 221)."""
    fields = []
    ny, nx = FIELD
    for x, y in zip(*relay_places(), strict=True):
        right = np.arange(nx) - (nx - 1) / 2 - x * PX_PER_DEG
        up = (ny - 1) / 2 - np.arange(ny) - y * PX_PER_DEG
        square = up[:, None] ** 2 + right**2
        two = [np.exp(-0.5 * square / sigma**2) for sigma in (1.3, 2.08)]
        fields.append((two[0] / two[0].sum() - two[1] / two[1].sum()).ravel())
    return np.stack(fields, axis=1)


def places(a: int) -> tuple[Any, Any, Any]:
    """Return x, y (degrees) and channel of the units of area a = 1, 2 ..."""
    n = N_UNITS[a - 1]
    if a > 2:
        return np.zeros(n), np.zeros(n), np.arange(n)
    rows, columns = (1, 0, -1) if a == 1 else (0,), (-2, -1, 0, 1, 2) if a == 1 else (-1, 0, 1)
    y, x = np.meshgrid(rows, columns, indexing="ij")
    each = n // x.size
    x, y = (np.repeat(one.ravel() * COLUMN / PX_PER_DEG, each) for one in (x, y))
    return x, y, np.tile(np.arange(each), n // each)


@cache
def gabors() -> Any:
    """Return what V1 predicts of the relay cells, (221, 180), of gain 1."""
    x, y, channel = places(1)
    out = []
    for i, c in enumerate(channel):
        orientation, phase = np.pi * (c // N_PHASES) / N_ORIENTATIONS, np.pi / 2 * (c % N_PHASES)
        one = gabor(
            GRID, x=x[i] * PX_PER_DEG / CELL, y=y[i] * PX_PER_DEG / CELL, sigma=SIGMA / CELL,
            frequency=FREQUENCY * CELL, orientation=orientation, phase=phase, aspect=1.5,
        )  # fmt: skip
        out.append(one.ravel() / np.linalg.norm(one))
    return normalised(np.stack(out, axis=1))


@cache
def reach(a: int) -> Any:
    """Return which units of area a each unit of area a + 1 predicts: its own and next columns."""
    x, above = places(a)[0], places(a + 1)[0]
    if a > 1:
        return np.ones((len(x), len(above)))
    return (np.abs(x[:, None] - above) <= 1.01 * COLUMN / PX_PER_DEG).astype(float)


MODEL = CorticalColumn()
