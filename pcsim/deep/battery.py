"""Deep models as models of the battery: a stimulus in, labelled responses of every level out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
import xarray as xr
from numpy.typing import NDArray
from torch import Tensor

from pcsim.deep.draw import Posterior
from pcsim.deep.gaussians import RowGenerators
from pcsim.deep.inference import Evaluation, Inference, Step, check_finite
from pcsim.deep.inference_gradient import GradientAscent, PointEstimate
from pcsim.deep.latent_gaussian import LatentGaussian
from pcsim.deep.networks import evaluating
from pcsim.deep.outputs import Multinomial, Output
from pcsim.deep.posteriors import Point
from pcsim.messages import check_integer, check_object, refusal, unknown_name
from pcsim.responses import check_stimulus, make_responses

__all__ = ["DeepModel"]

ROLES = ("latent", "error", "weighted_error", "prediction")


@dataclass(frozen=True, kw_only=True, eq=False)
class DeepModel:
    r"""A latent Gaussian model and an inference, run on stimuli frame by frame.

    Every frame is inferred for `n_iterations`, from where the frame before it ended if the
    inference can go on from there, and each iteration is a time of the response. At the centre
    :math:`\mu` of the posterior every level l gives

    .. math:: \epsilon_l = \mu_l - \hat\mu_l(\mu_{l+1}), \qquad \xi_l = \Pi_l \epsilon_l,
        \qquad \mu_0 = x

    with the prediction :math:`\hat\mu_l` and, from level 1 on, the latent itself. At the data
    :math:`\xi_0` is the gradient of the log likelihood in the output's first parameter, and at the
    top the prediction is the prior's mean. A `Multinomial` output predicts as many events as the
    stimulus has.

    Populations are named by role and level: "latent_1", "error_0", "weighted_error_0" ...

    Examples
    --------
    >>> from pcsim.deep.outputs import Gaussian
    >>> from pcsim.responses import stimulus_array
    >>> deep = DeepModel(model=LatentGaussian(4, (2,), Gaussian(0.7)), n_iterations=5)
    >>> seen = deep.run(stimulus_array(np.ones((3, 2, 4)), frame_duration=0.1), record=["error_0"])
    >>> dict(seen.sizes), seen.iteration.values.tolist()
    ({'trial': 3, 'time': 10, 'unit': 4}, [1, 2, 3, 4, 5, 1, 2, 3, 4, 5])
    """

    model: LatentGaussian
    inference: Inference = field(default_factory=PointEstimate)
    n_iterations: int = 50
    """An iteration lasts the frame's duration divided by this."""
    n_samples: int = 1
    """Of a posterior that is drawn from: each trial by a generator of its own."""
    field_shape: tuple[int, int] | None = None
    """(rows, columns) if the input is an image."""
    px_per_deg: float | None = None
    """Pixels per degree if the input is an image."""
    labels: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Population -> label -> one value a unit, or one for all: `area`, `x`, `y`, `channel` ..."""

    def __post_init__(self) -> None:
        where = "DeepModel"
        check_object(where, "model", self.model, "free_energy", "a model, such as LatentGaussian")
        check_object(where, "inference", self.inference, "steps", "an inference")
        check_integer(where, "n_iterations", self.n_iterations, low=1)
        sizes = self._sizes()
        for name, labels in self.labels.items():
            if name not in sizes:
                raise unknown_name(where, "population", name, sizes)
            for label, values in labels.items():
                shape = np.shape(values)
                if shape not in ((), (1,), (sizes[name],)):
                    found = f"label {label!r} of shape {shape} for {name!r}"
                    expected = f"{sizes[name]} values, one a unit, or one for all"
                    raise ValueError(refusal(where, found, expected))

    @property
    def n_features(self) -> int:
        """Length of the input."""
        return self.model.n_x

    def run(
        self, stimulus: xr.DataArray, *, seed: int = 0, record: Sequence[str] | None = None
    ) -> xr.Dataset:
        """Return the responses to `stimulus`; of the populations named in `record`, or of all."""
        check_stimulus(stimulus, "DeepModel")
        values = stimulus.values.reshape(*stimulus.shape[:2], -1)
        return self.respond(values, stimulus, seed=seed, record=record)

    def respond(
        self,
        values: NDArray[Any],
        stimulus: xr.DataArray,
        *,
        seed: int = 0,
        record: Sequence[str] | None = None,
    ) -> xr.Dataset:
        """Return the responses to prepared features (trial, frame, n_x) of a stimulus.

        Raises
        ------
        ValueError
            If the features are of another number than the model's, or nothing that its output
            could be.
        RuntimeError
            If inference runs off to free energies that are not finite.
        """
        if values.shape[2] != self.model.n_x:
            found, expected = f"{values.shape[2]} features", f"{self.model.n_x}, as the model has"
            raise ValueError(refusal("DeepModel", found, expected, "Crop or resize the stimulus."))
        names = self._recorded(record)
        x = torch.as_tensor(np.array(values)).to(self.model.top)
        self.model.output.check("DeepModel", x)
        numbers = stimulus.coords["trial"].values
        blocks = [self._infer(x[rows], names, seed, numbers[rows]) for rows in self._batches(x)]
        rate, free_energy = (np.concatenate(parts) for parts in zip(*blocks, strict=True))
        return make_responses(
            rate,
            time=self._times(stimulus),
            units=self._units(names),
            trial=stimulus,
            free_energy=free_energy,
        )

    def _batches(self, x: Tensor) -> list[slice]:
        # Sums over a batch round otherwise than alone: only in float64 does that not show.
        if x.dtype == torch.float64:
            return [slice(0, len(x))]
        return [slice(i, i + 1) for i in range(len(x))]

    def _infer(
        self, x: Tensor, names: Sequence[str], seed: int, trials: NDArray[Any]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        drawn = [int(np.random.default_rng([seed, int(n)]).integers(2**62)) for n in trials]
        generator = RowGenerators([torch.Generator(x.device).manual_seed(n) for n in drawn])
        evaluation = Evaluation(n_samples=self.n_samples, generator=generator)
        rates, energies = [], []
        before: Posterior | None = None
        with evaluating(self.model, self.inference):
            for frame in range(x.shape[1]):
                steps = self._frame(x[:, frame], evaluation, before)
                for iteration, step in enumerate(steps, 1):
                    energies.append(step.free_energy.total.detach())
                    check_finite(f"DeepModel, frame {frame}", energies[-1], iteration)
                    rates.append(self._rates(x[:, frame], step.q, names))
                    before = step.q
        generator.check_unused("DeepModel")
        rate, energy = torch.stack(rates, 1), torch.stack(energies, 1)
        return rate.double().cpu().numpy(), energy.double().cpu().numpy()

    def _frame(self, x: Tensor, evaluation: Evaluation, before: Posterior | None) -> list[Step]:
        steps: Iterator[Step]
        refine = getattr(_refinement(self.inference), "refine", None)
        if before is None or refine is None:
            steps = self.inference.steps(self.model, x, evaluation, self.n_iterations)
        else:
            first = evaluation.at(self.model, x, before)
            steps = refine(self.model, x, evaluation, first, self.n_iterations)
        found: list[Step] = []
        for step in steps:  # the start is not a response, unless there is nothing else
            found.append(Step(step.q.detached(), step.free_energy, step.gradient))
        found = found[-self.n_iterations :]
        return found + [found[-1]] * (self.n_iterations - len(found))

    def _rates(self, x: Tensor, q: Posterior, names: Sequence[str]) -> Tensor:
        model, rates = self.model, {}
        with torch.no_grad():
            z = q.centre(model)
            parameters = model.output_parameters(z[0])
            rates["prediction_0"] = _expected(model.output, x, parameters)
            rates["error_0"] = x - rates["prediction_0"]
            rates["weighted_error_0"] = model.output.weighted_error(x, parameters)
            for level, here in enumerate(z, 1):
                mean, log_variance = model.prior(level, z[level] if level < len(z) else None)
                rates[f"latent_{level}"] = here
                rates[f"prediction_{level}"] = mean.expand_as(here)
                rates[f"error_{level}"] = here - mean
                rates[f"weighted_error_{level}"] = (here - mean) * (-log_variance).exp()
        return torch.cat([rates[name].detach() for name in names], -1)

    def _sizes(self) -> dict[str, int]:
        sizes = (self.model.n_x, *self.model.n_z)
        return {
            f"{role}_{level}": n
            for level, n in enumerate(sizes)
            for role in ROLES
            if level or role != "latent"
        }

    def _recorded(self, record: Sequence[str] | None) -> list[str]:
        names = list(self._sizes())
        for name in record or ():
            if name not in names:
                raise unknown_name("DeepModel", "population", name, names)
        return names if record is None else [name for name in names if name in record]

    def _times(self, stimulus: xr.DataArray) -> dict[str, NDArray[Any]]:
        onset = stimulus.coords["time"].values
        share = np.arange(1, self.n_iterations + 1) / self.n_iterations
        duration = float(stimulus.coords["frame_duration"])
        return {
            "time": (onset[:, None] + share * duration).ravel(),
            "frame": np.repeat(np.arange(len(onset)), self.n_iterations),
            "iteration": np.tile(np.arange(1, self.n_iterations + 1), len(onset)),
        }

    def _units(self, names: Sequence[str]) -> dict[str, Any]:
        sizes = self._sizes()
        roles = {name: name.rpartition("_")[::2] for name in names}
        units: dict[str, list[Any]] = {
            "name": [np.repeat(name, sizes[name]) for name in names],
            "population": [np.repeat(role, sizes[name]) for name, (role, _) in roles.items()],
            "level": [np.repeat(int(level), sizes[name]) for name, (_, level) in roles.items()],
        }
        for label in sorted({"area"}.union(*(self.labels.get(name, {}) for name in names))):
            given = [self.labels.get(name, {}).get(label) for name in names]
            kinds = {np.asarray(value).dtype.kind for value in given if value is not None}
            blank = "" if label == "area" or kinds & set("OU") else np.nan
            units[label] = [
                np.broadcast_to(np.asarray(blank if value is None else value), sizes[name])
                for name, value in zip(names, given, strict=True)
            ]
        return {label: np.concatenate(columns) for label, columns in units.items()}


def _expected(output: Output, x: Tensor, parameters: tuple[Tensor, ...]) -> Tensor:
    mean = output.mean(parameters)
    if isinstance(output, Multinomial):
        return mean * (x.sum(-1, keepdim=True) / output.n_events)
    return mean


def _refinement(inference: Inference) -> Any:
    """A point estimate is a gradient ascent, which can go on; others say so themselves."""
    if isinstance(inference, PointEstimate):
        return GradientAscent(
            optimiser=inference.optimiser, step=inference.step, decay=inference.decay,
            n_iterations=inference.n_iterations, tolerance=inference.tolerance,
            start=Point.at_prior,
        )  # fmt: skip
    return inference
