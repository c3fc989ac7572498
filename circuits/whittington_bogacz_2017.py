r"""A predictive-coding network that learns to predict the centre of an image from its surround.

.. math:: p_l = W_l f(z_{l-1}), \qquad \epsilon_l = z_l - p_l, \qquad
    \dot z_l \propto -\epsilon_l + f'(z_l) \odot B_{l+1}^\top \xi_{l+1}, \qquad
    \Delta W_l \propto \xi_l f(z_{l-1})^\top

with :math:`z_0` the surround and :math:`z_L` the centre, both seen, :math:`f = \tanh` and
:math:`\xi_l` the error times its precision (1 in hidden layers). With :math:`B = W` the activities
descend the free energy; with B random matrices, fixed, they do not. Each synapse changes by
what its two ends know, and yet for some parameters the change is that of backpropagation
(Whittington & Bogacz 2017, https://doi.org/10.1162/NECO_a_00949; H39).

The centre is the sense organ, level 0, which levels 1 and 2 predict from the surround. Own choices:
the task (the paper's are digits), 128-64-64-16 units, patches of log luminance less the mean of
their surround. Gain and learning rate were set on how much of the centre is predicted.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import numpy as np
import xarray as xr

from pcsim.messages import check_choice, check_integer, check_number, refusal, unknown_name
from pcsim.responses import check_stimulus, make_responses
from pcsim.stimuli import natural_patches
from pcsim.stimulus import stimulus_array

if TYPE_CHECKING:
    from pcsim.deep.pc_replicas import Settling
    from pcsim.deep.pc_weights import WeightedNetwork

__all__ = ["MODEL", "WhittingtonBogacz2017"]

SIDE, MARGIN = 12, 4
"""Pixels of a side of the patch, and of the surround on each side of the centre."""
SIZES = (128, 64, 64, 16)
N_EPOCHS, BATCH = 4, 32
FEEDBACKS = ("transposed", "random")


class Named(NamedTuple):
    """Units that are recorded together."""

    name: str
    level: int
    population: str


def draw(seed: int) -> tuple[Any, ...]:
    """Draw the weights of all layers, of variance 2 / (n_in + n_out)."""
    rng = np.random.default_rng([seed, 2017])
    shapes = zip(SIZES[1:], SIZES[:-1], strict=True)
    return tuple(rng.normal(0.0, (2.0 / sum(shape)) ** 0.5, shape) for shape in shapes)


@dataclass(frozen=True, kw_only=True)
class WhittingtonBogacz2017:
    """Two hidden layers between the surround of a patch and its centre."""

    weights: tuple[Any, ...] | None = None
    """Of each layer, (n_out, n_in), from the surround on; None draws them."""
    feedback: str = "transposed"
    """"transposed", or "random": matrices of their own carry the errors, in learning too."""
    feedback_weights: tuple[Any, ...] | None = None
    """The random ones, of layers 2 and 3; None draws them."""
    output_precision: float = 1.0
    """Of the centre's errors; those of hidden layers have 1."""
    input_gain: float = 1.0
    """Of log luminance, in standard deviations of a photograph: patches then have about 0.6."""
    n_steps: int = 64
    """Of inference, for each frame."""
    step: float = 0.1
    """Of inference, as a share of the time constant of a latent without input."""
    learning_rate: float = 0.1

    curriculum: ClassVar[str] = "own"
    n_training: ClassVar[Mapping[str, int]] = {"quick": 12_000, "full": 48_000}
    field_shape: ClassVar[None] = None
    px_per_deg: ClassVar[None] = None
    senses: ClassVar[str] = "patches"
    n_features: ClassVar[int] = SIDE**2

    def __post_init__(self) -> None:
        where = type(self).__name__
        check_choice(where, "feedback", self.feedback, FEEDBACKS)
        check_integer(where, "n_steps", self.n_steps, low=1)
        check_number(where, "step", self.step, positive=True)
        check_number(where, "output_precision", self.output_precision, positive=True)

    @property
    def populations(self) -> tuple[Named, ...]:
        """Prediction and error of the centre and of both hidden levels, whose latents they are."""
        roles = ("prediction", "error", "latent")
        return tuple(
            Named(f"{role}_{level}", level, role)
            for level in range(len(SIZES) - 1)
            for role in roles[: None if level else -1]
        )

    def prepare(self, stimulus: xr.DataArray) -> Any:
        """Return surround and centre of each frame, (trial, time, 128) and (trial, time, 16)."""
        values = stimulus.to_numpy().astype(float)
        if values.ndim != 3 or values.shape[2] != self.n_features:
            found, expected = f"shape {values.shape}", f"(trial, time, {self.n_features})"
            raise ValueError(refusal(type(self).__name__, found, expected, "See `examples`."))
        centre = np.zeros((SIDE, SIDE), dtype=bool)
        centre[MARGIN:-MARGIN, MARGIN:-MARGIN] = True
        surround = values[..., ~centre.ravel()]
        mean = surround.mean(axis=-1, keepdims=True)
        seen = values[..., centre.ravel()]
        return self.input_gain * (surround - mean), self.input_gain * (seen - mean)

    def network(self) -> WeightedNetwork:
        """Return the network on torch."""
        from pcsim.deep.pc_weights import WeightedNetwork

        random = self.feedback == "random"
        return WeightedNetwork(
            weights=draw(0) if self.weights is None else self.weights,
            feedback=(self.feedback_weights or draw(1)[1:]) if random else None,
            output_precision=self.output_precision,
        )

    def settling(self) -> Settling:
        """Return how a frame is inferred."""
        from pcsim.deep.pc_replicas import Settling

        return Settling(n_steps=self.n_steps, step=self.step)

    def run(
        self, stimulus: xr.DataArray, *, seed: int = 0, record: Sequence[str] | None = None
    ) -> xr.Dataset:
        """Return where inference ends for each frame, a time at its end."""
        check_stimulus(stimulus, type(self).__name__)
        names = [one.name for one in self.populations]
        for name in record or ():
            if name not in names:
                raise unknown_name(type(self).__name__, "population", name, names)
        surround, centre = self.prepare(stimulus)
        x, y = (one.reshape(-1, one.shape[-1]) for one in (surround, centre))
        found = self.network().settled(x, y, self.settling())
        chosen = [one for one in self.populations if record is None or one.name in record]
        # Layers count from the surround, levels from the centre.
        parts = [found[f"{one.population}s"][len(SIZES) - 2 - one.level] for one in chosen]
        rate = np.concatenate([p.reshape(*surround.shape[:2], -1) for p in parts], axis=2)
        sizes = [part.shape[-1] for part in parts]
        fields = ("name", "population", "level")
        units = {f: np.repeat([getattr(one, f) for one in chosen], sizes) for f in fields}
        time = stimulus["time"].values + float(stimulus["frame_duration"])
        return make_responses(rate, time=time, units={**units, "area": "V1"}, trial=stimulus)

    def examples(self, n: int, *, seed: int) -> xr.DataArray:
        """Return natural patches of log luminance, (n, 1, 144)."""
        shown = natural_patches((SIDE, SIDE), n=n, preprocessing="log", seed=seed)
        return stimulus_array(
            shown.to_numpy().reshape(n, 1, -1), frame_duration=0.2, condition="natural"
        )

    def training(self, kind: str, *, seed: int, scale: str) -> xr.DataArray:
        """Return patches to learn from; as "white_noise" with every pixel on its own."""
        natural = self.examples(self.n_training[scale], seed=seed)
        if kind == "natural":
            return natural
        mixed = np.random.default_rng([seed, 1]).permuted(natural.to_numpy().ravel())
        return natural.copy(data=mixed.reshape(natural.shape))

    def untrained(self, *, seed: int) -> WhittingtonBogacz2017:
        """Return another draw of all weights, feedback included if it is random."""
        feedback = draw(seed + 1000)[1:] if self.feedback == "random" else None
        return replace(self, weights=draw(seed), feedback_weights=feedback)

    def fit(self, stimulus: xr.DataArray, *, seed: int = 0) -> WhittingtonBogacz2017:
        """Learn by local changes, one for each batch of patches at the end of inference."""
        model = self.untrained(seed=seed)
        x, y = (one.reshape(-1, one.shape[-1]) for one in model.prepare(stimulus))
        batches = shuffled(x, y, seed)
        learned = model.network().learned(batches, model.settling(), rate=self.learning_rate)
        return replace(model, weights=tuple(learned))


def shuffled(x: Any, y: Any, seed: int) -> Iterator[tuple[Any, Any]]:
    """Yield batches of rows in random order, each row once an epoch; rests are left out."""
    rng = np.random.default_rng([seed, 2])
    for _ in range(N_EPOCHS):
        order = rng.permutation(len(x))
        for start in range(0, len(x) - BATCH + 1, BATCH):
            rows = order[start : start + BATCH]
            yield x[rows], y[rows]


MODEL = WhittingtonBogacz2017()
