r"""A small recurrent network that predicts the next frame, after PredNet (Lotter et al. 2020).

Three levels, each a convolutional LSTM R that predicts what the level sees, and rectified errors of
both signs that are all that ascends; the representation of a level descends to the R below it:

.. math:: R_l = \mathrm{LSTM}(E_l, R_l, g\,\uparrow R_{l+1}), \qquad
    E_l = [\lfloor A_l - \hat A_l \rfloor_+, \lfloor \hat A_l - A_l \rfloor_+], \qquad
    A_{l+1} = \mathrm{pool}\lfloor a_l * E_l \rfloor_+

(:math:`\hat A_l` is a convolution of :math:`R_l`, see `pcsim.deep.prednet`.) Nothing settles within
a frame: one step of 50 ms a frame, frames being what was seen on average during a step. Trained by
backpropagation through time to keep the errors of all levels small on photographs that glide past
and jump, as under pursuit and saccades; rates are those of the step that ended last, after 0.5 s of
grey.

``head=True`` is the control of Lotter et al. (2020, Nat. Mach. Intell. 2:210, Extended Data Fig.
9): an additional convolution reads the next frame from the lowest R, its error alone is trained,
and the "error units" are left to do what serves that.

``static=True`` is another: each sequence is one frame of a glide, held still, so that there are as
many photographs to learn from and no motion.

Predicts, or fails to: H10, H11, H19, H22, H28, H29. Lesion: ``feedback_gain=0``.

Our own choices: 24 by 32 px at 16 px per degree, 1, 8 and 16 channels of A and 4, 8 and 16 of R,
filters of 3 px, contrast instead of luminance as input (so that grey is 0, as the padding is),
errors of levels 0, 1 and 2 weighted 1, 0.1 and 0.1 (as Lotter et al. 2017, arXiv:1605.08104), 8
sequences of 10 frames of 16 by 16 px an update. It is far smaller than the original and saw half an
hour of video (at scale quick), so that what it does not show the original may. Units are recorded
in a window in the middle of the field.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import xarray as xr

from pcsim.messages import check_choice, refusal, unknown_name
from pcsim.responses import make_responses
from pcsim.stimuli import gliding_photographs
from pcsim.stimulus import check_stimulus

if TYPE_CHECKING:
    from pcsim.deep.prednet import Architecture

__all__ = ["MODEL", "PredNetSmall"]

AREAS = ("LGN", "V1", "V2")
PX_PER_DEG = 16.0
ROLES = ("error", "error_pos", "error_neg", "latent", "prediction")
BATCH, N_FRAMES, SIDE = 8, 10, 16
LEVEL_WEIGHTS = (1.0, 0.1, 0.1)


@dataclass(frozen=True, kw_only=True)
class PredNetSmall:
    """Convolutional LSTMs that predict, and the errors of their predictions."""

    weights: Any = ()
    """Float32 arrays in the order of `pcsim.deep.prednet.Architecture.shapes`; () for random."""
    targets: tuple[int, ...] = (1, 8, 16)
    """Channels that each level sees and predicts; it has twice as many rectified errors."""
    latents: tuple[int, ...] = (4, 8, 16)
    """Channels of each level's representation."""
    head: bool = False
    """Train a prediction of its own instead of the error units (a control)."""
    static: bool = False
    """Learn from frames that stand still (a control)."""
    feedback_gain: float = 1.0
    """Of what a representation receives from the level above; 0 cuts it."""
    shape: tuple[int, int] = (24, 32)
    """Rows and columns of the field, multiples of 4."""
    window: int = 8
    """Side of the square in the middle of the field whose units are recorded, pixels."""
    step: float = 0.05
    """Seconds a step."""
    warm_up: int = 10
    """Steps of grey before the stimulus."""
    record_dt: float | None = None
    """Seconds between recorded times; every step if None."""
    learning_rate: float = 6e-3
    """Of Adam; falls to 0 over the second half of the training."""
    plasticity: float = 1.0
    """Factor on the learning rate; 0 leaves the weights as they are."""

    curriculum: ClassVar[str] = "own"
    n_training: ClassVar[Mapping[str, int]] = {"quick": 3_200, "full": 16_000}
    """Sequences of half a second."""

    @property
    def field_shape(self) -> tuple[int, int]:
        """Rows and columns of the visual field."""
        return self.shape

    @property
    def px_per_deg(self) -> float:
        """Pixels per degree of visual angle."""
        return PX_PER_DEG

    @property
    def architecture(self) -> Architecture:
        """The channels of the network."""
        from pcsim.deep.prednet import Architecture

        return Architecture(self.targets, self.latents, self.head)

    def training(self, kind: str, *, seed: int, scale: str) -> xr.DataArray:
        """Return what it learns from: gliding photographs, or noise of their mean and variance.

        With `static` set, the first frame of either lasts as long as the sequence.
        """
        check_choice("prednet", "kind", kind, ("natural", "white_noise"))
        natural = gliding_photographs(
            (SIDE, SIDE), n=self.n_training[scale], n_frames=N_FRAMES, frame_duration=self.step,
            seed=seed, px_per_deg=PX_PER_DEG,
        )  # fmt: skip
        shown = natural.to_numpy()
        if kind == "white_noise":
            rng = np.random.default_rng([seed, 1])
            noise = rng.normal(float(natural.mean()), float(natural.std()), natural.shape)
            shown = np.clip(noise, 0.0, 1.0)
        if self.static:
            shown = np.repeat(shown[:, :1], N_FRAMES, axis=1)
        return natural.copy(data=shown)

    def untrained(self, *, seed: int) -> PredNetSmall:
        """Return the same network with the random weights that training would start from."""
        from pcsim.deep.prednet import initial_weights

        return replace(self, weights=initial_weights(self.architecture, seed))

    def fit(self, stimulus: xr.DataArray, *, seed: int = 0) -> PredNetSmall:
        """Train anew, on every sequence once.

        Parameters
        ----------
        stimulus : (trial, time, y, x)
            Of at least two steps; of any size, sides multiples of 4.
        seed
            Of the initial weights and of the order.
        """
        return self.untrained(seed=seed).exposed(stimulus, seed=seed)

    def exposed(self, stimulus: xr.DataArray, *, seed: int = 0, n_passes: int = 1) -> PredNetSmall:
        """Train on, from the weights it has, on every sequence `n_passes` times."""
        from pcsim.deep.prednet import learn

        frames = self.prepare(stimulus)
        if frames.shape[1] < 2 or any(side % 4 for side in frames.shape[-2:]):
            found = f"{frames.shape[1]} steps of {frames.shape[-2]} x {frames.shape[-1]} pixels"
            expected = "at least 2 steps, and sides that are multiples of 4"
            raise ValueError(refusal("prednet.fit", found, expected, "Lengthen or crop them."))
        if self.plasticity == 0:
            return self
        rng = np.random.default_rng([seed, 2020])
        order = np.concatenate([rng.permutation(len(frames)) for _ in range(n_passes)])
        chosen = np.array_split(order, max(len(order) // BATCH, 1))

        def batches() -> Iterator[Any]:
            for one in chosen:
                yield frames[one]

        def rate(number: int) -> float:
            return (
                self.plasticity * self.learning_rate * min(1.0, 2.0 * (1.0 - number / len(chosen)))
            )

        weights, _ = learn(
            self.architecture, self._own(), batches(), learning_rate=rate,
            level_weights=LEVEL_WEIGHTS[: len(self.targets)],
        )  # fmt: skip
        return replace(self, weights=weights)

    def prepare(self, stimulus: xr.DataArray) -> Any:
        """Return the mean contrast of each step, (trial, step, 1, y, x), float32; grey is 0.

        The last frame is held to the end of the last step.
        """
        checked = check_stimulus(stimulus, "prednet")
        if "y" not in checked.dims:
            found, advice = f"dims {checked.dims}", "It sees images."
            raise ValueError(refusal("prednet", found, "(trial, time, y, x)", advice))
        frame = float(checked["frame_duration"])
        n = checked.sizes["time"]
        n_steps = max(int(np.ceil(n * frame / self.step - 1e-6)), 1)
        edges = frame * np.arange(n + 1)
        edges[-1] = max(edges[-1], n_steps * self.step)
        begin = self.step * np.arange(n_steps)[:, None]
        shared = np.minimum(edges[1:], begin + self.step) - np.maximum(edges[:-1], begin)
        share = np.maximum(shared, 0.0) / self.step
        contrast = 2.0 * (checked.transpose("trial", "time", "y", "x").to_numpy() - 0.5)
        steps = np.einsum("st,ntyx->nsyx", share, contrast)
        return steps[:, :, None].astype(np.float32)

    def run(
        self, stimulus: xr.DataArray, *, seed: int = 0, record: Sequence[str] | None = None
    ) -> xr.Dataset:
        """Return the responses to `stimulus`, float32; it draws nothing.

        Parameters
        ----------
        stimulus : (trial, time, y, x)
        seed
            Without effect.
        record
            Names of populations, such as "error_1"; all if None.
        """
        from pcsim.deep.prednet import unroll

        frames = self.prepare(stimulus)
        if frames.shape[-2:] != self.shape:
            found = f"images of {frames.shape[-2]} x {frames.shape[-1]} pixels"
            advice = "Make the stimulus with field_shape=model.field_shape."
            raise ValueError(
                refusal("prednet", found, f"{self.shape[0]} x {self.shape[1]}", advice)
            )
        names = self._recorded(record)
        rested = np.concatenate([np.zeros_like(frames[:, :1]), frames], axis=1)
        rate = unroll(
            self.architecture, self._own(), rested, lambda seen: self._read(seen, names),
            warm_up=self.warm_up, feedback_gain=self.feedback_gain,
        )  # fmt: skip
        every = self.step if self.record_dt is None else self.record_dt
        duration = stimulus.sizes["time"] * float(stimulus["frame_duration"])
        time = every * np.arange(1, max(int(duration / every + 1e-6), 1) + 1)
        # Before the first step has ended there is what grey left; entry 0 is that.
        ended = np.minimum((time / self.step + 1e-6).astype(int), frames.shape[1])
        return make_responses(rate[:, ended], time=time, units=self._units(names), trial=stimulus)

    def _own(self) -> Any:
        return self.weights if len(self.weights) else self.untrained(seed=0).weights

    def _recorded(self, record: Sequence[str] | None) -> list[tuple[str, int]]:
        known = {f"{r}_{n}": (r, n) for n in range(len(self.targets)) for r in ROLES}
        for name in record or ():
            if name not in known:
                raise unknown_name("prednet", "population", name, known)
        return [v for k, v in known.items() if record is None or k in record]

    def _middle(self, level: int) -> tuple[slice, slice]:
        """Return the rows and columns of a level that the window covers."""
        spans = [(side >> level, min(self.window, side) >> level) for side in self.shape]
        return tuple(  # type: ignore[return-value]
            slice((side - wide) // 2, (side - wide) // 2 + wide) for side, wide in spans
        )

    def _read(self, seen: Any, names: Sequence[tuple[str, int]]) -> Any:
        """Return the recorded units of a snapshot, (trial, unit)."""
        from pcsim.deep.prednet import joined

        parts = []
        for role, level in names:
            rows, columns = self._middle(level)
            parts.append(seen.of(role, level)[:, :, rows, columns])
        return joined(parts)

    def _units(self, names: Sequence[tuple[str, int]]) -> dict[str, Any]:
        """Return the labels of the recorded units."""
        columns: dict[str, list[Any]] = {}
        for role, level in names:
            channels = (self.latents if role == "latent" else self.targets)[level]
            places = []
            for span, side in zip(self._middle(level), self.shape, strict=True):
                index = np.arange(span.start, span.stop) - ((side >> level) - 1) / 2
                places.append(index * 2**level / PX_PER_DEG)
            channel, y, x = np.meshgrid(np.arange(channels), -places[0], places[1], indexing="ij")
            labels: dict[str, Any] = {
                "name": f"{role}_{level}",
                "population": role,
                "level": level,
                "area": AREAS[level],
                "x": x.ravel(),
                "y": y.ravel(),
                "channel": channel.ravel(),
            }
            for key, value in labels.items():
                columns.setdefault(key, []).append(np.broadcast_to(value, x.size))
        return {key: np.concatenate(parts) for key, parts in columns.items()}


MODEL = PredNetSmall()
