r"""Two levels of latents of natural images, inferred by learned networks (Marino et al. 2018).

.. math:: p(x, z) = N(x; W z_1, \Pi_0^{-1})\, N(z_1; \gamma\,\mu_1(z_2), \Pi_1^{-1}(z_2))\,
    N(z_2; 0, I)

is trained with its inference on the bound on the evidence (https://arxiv.org/abs/1807.09356).
Iterative inference starts from the prior, or from the frame before, and improves its estimate by a
network that sees nothing but the estimate and the weighted errors below and at each level; direct
inference is one pass of a network from the image. The errors are those of the centre of the
posterior, :math:`z_1 - \gamma\,\mu_1(z_2)`; :math:`\gamma` is the gain of the feedback, and 0 cuts
it.

The image passes the difference of Gaussians of `rao_ballard_1999` and one Gaussian window; level 1
is decoded linearly, so that its units have fields, and level 2 predicts both mean and precision of
level 1 through a hidden layer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import numpy as np
import xarray as xr

from pcsim.filters import difference_of_gaussians, filter_matrix, gaussian_window
from pcsim.messages import check_choice, check_integer, check_number, refusal
from pcsim.responses import check_stimulus

if TYPE_CHECKING:
    from pcsim.deep.battery import DeepModel

__all__ = ["MODEL", "VariationalAutoencoder"]

PATCH, MARGIN, WINDOW = (16, 26), 8, 6.0
"""Pixels: the patch, what the filter takes around it, and the window's standard deviation."""
N_Z, HIDDEN, N_EPOCHS = (64, 32), ((128, 128), (64, 64)), 5
AREAS = ("LGN", "V1", "V2")
INFERENCES = ("iterative", "direct")
UPDATES = ("gated", "additive")


class Named(NamedTuple):
    """Units that are recorded together."""

    name: str
    level: int
    population: str


@dataclass(frozen=True, kw_only=True)
class VariationalAutoencoder:
    """A deep latent Gaussian model of image patches and the network that infers it."""

    weights: Mapping[str, Any] | None = None
    """Arrays of the model ("model.") and of its inference ("inference."); None draws them."""
    inference: str = "iterative"
    """"iterative" or "direct"."""
    update: str = "gated"
    """What an iterative network makes of its features: "gated" or "additive"."""
    segregated: bool = False
    """Whether an iterative network has basal and apical streams, which meet in the update."""
    feedback_gain: float = 1.0
    """Gain of the prediction from level 2; 0 cuts the feedback."""
    input_gain: float = 47.7
    """Brings filtered natural input to unit variance at the window's centre."""
    n_iterations: int = 5
    """At most, of each frame; then the estimate is held."""
    iteration: float = 0.0125
    """Seconds of one iteration: a cycle of fast gamma (80 Hz)."""
    record_dt: float | None = None
    """Seconds between recorded times; None records iterations, and ends of frames."""

    curriculum: ClassVar[str] = "patches"
    n_training: ClassVar[Mapping[str, int]] = {"quick": 12_000, "full": 48_000}

    def __post_init__(self) -> None:
        where = type(self).__name__
        check_choice(where, "inference", self.inference, INFERENCES)
        check_choice(where, "update", self.update, UPDATES)
        check_integer(where, "n_iterations", self.n_iterations, low=1)
        check_number(where, "iteration", self.iteration, positive=True)

    @property
    def field_shape(self) -> tuple[int, int]:
        """Rows and columns of the visual field: the patch and the margin of the filter."""
        return PATCH[0] + 2 * MARGIN, PATCH[1] + 2 * MARGIN

    @property
    def px_per_deg(self) -> float:
        """Pixels per degree of visual angle."""
        return 16.0

    @property
    def populations(self) -> tuple[Named, ...]:
        """Predictions and errors of each level, plain and weighted, and latents from level 1 on."""
        roles = ("prediction", "error", "weighted_error", "latent")
        return tuple(
            Named(f"{role}_{level}", level, role)
            for level in range(len(N_Z) + 1)
            for role in roles[: None if level else -1]
        )

    def prepare(self, stimulus: xr.DataArray) -> Any:
        """Filter the image by a difference of Gaussians and window it: (trial, time, 416)."""
        if stimulus.shape[2:] != self.field_shape:
            found, expected = f"images of {stimulus.shape[2:]} px", f"{self.field_shape}"
            raise ValueError(refusal(type(self).__name__, found, expected, "Crop or resize them."))
        values = stimulus.values.reshape(*stimulus.shape[:2], -1)
        return self.input_gain * (values - 0.5) @ retina()

    def run(
        self, stimulus: xr.DataArray, *, seed: int = 0, record: Sequence[str] | None = None
    ) -> xr.Dataset:
        """Return the responses to `stimulus`."""
        from pcsim.deep.column import held

        check_stimulus(stimulus, type(self).__name__)
        duration = float(stimulus["frame_duration"])
        n = int(np.clip(round(duration / self.iteration), 1, self.n_iterations))
        deep = replace(self.deep(), n_iterations=n)
        responses = deep.respond(self.prepare(stimulus), stimulus, seed=seed, record=record)
        return held(responses, stimulus, iteration=self.iteration, every=self.record_dt)

    def deep(self) -> DeepModel:
        """Return the torch model and its inference in float64."""
        from pcsim.deep.battery import DeepModel
        from pcsim.deep.column import scaled_feedback, with_arrays

        model, inference = self._pair(0)
        with_arrays({"model": model, "inference": inference}, self.weights)
        scaled_feedback(model, self.feedback_gain)
        return DeepModel(
            model=model.double(),
            inference=inference.double(),
            n_iterations=self.n_iterations,
            field_shape=self.field_shape,
            px_per_deg=self.px_per_deg,
            labels=self._labels(model.heads[0].weight.detach().numpy()),
        )

    def untrained(self, *, seed: int) -> VariationalAutoencoder:
        """Return the same model with the random weights that training would start from."""
        from pcsim.deep.column import arrays

        model, inference = self._pair(seed)
        return replace(self, weights=arrays({"model": model, "inference": inference}))

    def fit(self, stimulus: xr.DataArray, *, seed: int = 0) -> VariationalAutoencoder:
        """Learn from images, filtered and scaled to unit variance at the window's centre."""
        from pcsim.deep.column import arrays

        model, inference = self._pair(seed)
        self._learn(model, inference, stimulus, seed)
        return replace(self, weights=arrays({"model": model, "inference": inference}))

    def misled(self, stimulus: xr.DataArray, *, seed: int = 0) -> Any:
        """Return a new inference, in float64, that learned on this model from others' errors.

        The generative model stays. Each image's estimate is updated by the errors of another
        (direct inference: is that of another image), so that nothing but what all images share
        can be learned.
        """
        from pcsim.deep.column import with_arrays
        from pcsim.deep.transport import ShuffledData, ShuffledErrors

        model, own = self._pair(0)
        with_arrays({"model": model, "inference": own}, self.weights)
        _, inference = self._pair(seed)
        if self.inference == "direct":
            self._learn(model.requires_grad_(False), ShuffledData(inference), stimulus, seed)
            return inference.double()
        plain, inference.encoding = inference.encoding, ShuffledErrors(inference.encoding)
        self._learn(model.requires_grad_(False), inference, stimulus, seed)
        inference.encoding = plain
        return inference.double()

    def _learn(self, model: Any, inference: Any, stimulus: xr.DataArray, seed: int) -> None:
        """Train a model and its inference in place, or what of them may change."""
        from pcsim.deep.arms import examples
        from pcsim.deep.training import TrainingSettings, train

        x = self.prepare(stimulus).reshape(-1, PATCH[0] * PATCH[1])
        x = x / np.sqrt((x**2).mean() / (gaussian_window(PATCH, WINDOW) ** 2).mean())
        settings = TrainingSettings(
            n_epochs=N_EPOCHS, learning_rate=1e-3, learning_rate_decay=0.8, batch_size=64,
            largest_gradient=100.0, seed=seed, device="cpu",
        )  # fmt: skip
        train(model, inference, examples(x), settings, progress=False)

    def _pair(self, seed: int) -> tuple[Any, Any]:
        """Return a new model and its inference, with the random weights of a seed."""
        from pcsim.deep.column import natural_pair

        return natural_pair(
            PATCH[0] * PATCH[1], N_Z, HIDDEN, inference=self.inference, update=self.update,
            segregated=self.segregated, n_iterations=self.n_iterations, seed=seed,
        )  # fmt: skip

    def _labels(self, weights: Any) -> dict[str, dict[str, Any]]:
        """Areas and positions: pixels, centres of energy of the fields, and the middle."""
        rows, columns = np.indices(PATCH).reshape(2, -1)
        x = (columns - (PATCH[1] - 1) / 2) / self.px_per_deg
        y = ((PATCH[0] - 1) / 2 - rows) / self.px_per_deg
        energy = weights**2 / (weights**2).sum(0)
        places = ((x, y), (x @ energy, y @ energy), (np.zeros(N_Z[1]), np.zeros(N_Z[1])))
        labels = [
            {"area": area, "x": here[0], "y": here[1]}
            for area, here in zip(AREAS, places, strict=True)
        ]
        return {one.name: labels[one.level] for one in self.populations}


@cache
def retina() -> Any:
    """Return the filter and the window as one matrix, (field's pixels, patch's pixels)."""
    kernel = difference_of_gaussians(
        2 * MARGIN + 1, sigma_center=1.3, sigma_surround=2.08, weight=1.0
    )
    field = PATCH[0] + 2 * MARGIN, PATCH[1] + 2 * MARGIN
    return filter_matrix(field, kernel) * gaussian_window(PATCH, WINDOW).ravel()


MODEL = VariationalAutoencoder()
