"""H04: responses of the LGN to natural movies have a flat temporal spectrum."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from pcsim.hypothesis import Control, Hypothesis, Means, Reference, Requirement
from pcsim.measures import power_spectrum, spectral_slope, spectral_variation
from pcsim.model import Learner, Model
from pcsim.protocols import StandIn, by_scale, first_level, respond, signal_role, visual_field
from pcsim.responses import make_responses, select
from pcsim.roster import training_stimulus
from pcsim.stimuli import natural_sequences
from pcsim.stimulus import stimulus_array

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["HYPOTHESIS"]

FRAME = 0.008
N_FRAMES = 625
N_SEQUENCES = {"quick": 24, "full": 64}
BAND = (3.0, 15.0)
SETTLED = 1.0
CENTRAL = 0.2
"""Degrees: units within this distance of the centre on both axes are measured."""


@dataclass(frozen=True)
class Pixels(StandIn):
    """The control that does nothing: units repeat the luminance of their pixel."""

    def run(
        self, stimulus: xr.DataArray, *, seed: int = 0, record: Sequence[str] | None = None
    ) -> xr.Dataset:
        """Return the central pixels as output units of level 0, at the end of every frame."""
        ny, nx = stimulus.sizes["y"], stimulus.sizes["x"]
        rows, columns = np.indices((ny, nx)).reshape(2, -1)
        scale = float(stimulus["px_per_deg"])
        x, y = (columns - (nx - 1) / 2) / scale, ((ny - 1) / 2 - rows) / scale
        near = np.flatnonzero(np.maximum(np.abs(x), np.abs(y)) <= CENTRAL)
        units = {
            "population": np.full(len(near), "output"),
            "level": np.zeros(len(near), dtype=int),
            "area": np.full(len(near), "retina"),
            "x": x[near],
            "y": y[near],
        }
        rate = stimulus.to_numpy().reshape(*stimulus.shape[:2], -1)[..., near]
        time = stimulus["time"].values + float(stimulus["frame_duration"])
        trial = {name: stimulus[name].values for name in ("condition",)}
        return make_responses(rate, time=time, units=units, trial=trial)


def sequences(model: Model, *, seed: int, scale: str) -> xr.DataArray:
    """Return natural sequences, and a third as many of noise of the same mean and variance."""
    field, px_per_deg = visual_field(model)
    natural = natural_sequences(
        field, n=N_SEQUENCES[scale], n_frames=N_FRAMES, frame_duration=FRAME,
        px_per_deg=px_per_deg, seed=seed + 10_000,
    ).to_numpy()  # fmt: skip
    rng = np.random.default_rng([seed, 4])
    noise = rng.normal(natural.mean(), natural.std(), (len(natural) // 3, *natural.shape[1:]))
    np.clip(noise, 0.0, 1.0, out=noise)
    return stimulus_array(
        np.concatenate([natural, noise]), frame_duration=FRAME, px_per_deg=px_per_deg,
        condition=np.repeat(["natural", "noise"], [len(natural), len(noise)]),
    )  # fmt: skip


def observe(model: Model, *, seed: int, scale: str) -> xr.Dataset:
    """Take temporal spectra of the responses to natural sequences and to white noise."""
    level = first_level(model)
    assert level is not None
    role = signal_role(model, level)
    assert role is not None
    stimulus = sequences(model, seed=seed, scale=scale)
    responses = respond(model, stimulus, level=level, role=role, every=FRAME, seed=seed)
    near = np.maximum(np.abs(responses["x"].values), np.abs(responses["y"].values)) <= CENTRAL
    responses = responses.isel(unit=near, time=responses["time"].values > SETTLED)
    spectra = {
        name: power_spectrum(select(responses, condition=name), segment=1.0)
        for name in ("natural", "noise")
    }
    power = spectra["natural"].sel(frequency=slice(*BAND)).mean("frequency")
    included = power > 0.05 * float(np.percentile(power, 95))
    heard = spectra["natural"].where(included, 1.0)
    return xr.Dataset(
        {
            "variation": spectral_variation(spectra["natural"], band=BAND).fillna(0.0),
            "variation_noise": spectral_variation(spectra["noise"], band=BAND).fillna(0.0),
            "slope": spectral_slope(heard, band=BAND)["slope"],
            "spectrum": spectra["natural"],
            "spectrum_noise": spectra["noise"],
            "included": included,
        }
    )


def shuffled(model: Any, seed: int) -> Any:
    """Return the model fitted on frames in random order; as it is if it learns no sequences."""
    if not isinstance(model, Learner) or getattr(model, "curriculum", "") != "sequences":
        return model
    stimulus = training_stimulus(model, "natural", seed=seed)
    order = np.random.default_rng([seed, 44]).permutation(stimulus.sizes["time"])
    return model.fit(stimulus.copy(data=stimulus.to_numpy()[:, order]), seed=seed)


def variation(means: Means) -> Any:
    """Return the mean variation of the power between 3 and 15 Hz."""
    return means["variation"]


def uneven_noise(means: Means) -> Any:
    """Return by how much the variation of the response to white noise exceeds a flat one's."""
    return means["variation_noise"] - 0.25


def panel(evidence: Mapping[str, Sequence[xr.Dataset]], ax: Axes) -> None:
    """Draw the spectra of pixels, of the LGN and of the error units of level 0."""
    from pcsim.plots import plot_spectrum

    for label in ("LGN/pixels", "LGN", "RB", "RETINA"):
        curves = []
        for one in evidence.get(label, ()):
            spectrum = one["spectrum"].isel(unit=one["included"].values).mean("unit")
            spectrum = spectrum.sel(frequency=slice(1.0, 30.0))
            curves.append(spectrum / spectrum.sel(frequency=slice(*BAND)).mean("frequency"))
        if curves:
            plot_spectrum(xr.concat(curves, "replica"), label=label.split("/")[-1], ax=ax)
    ax.set_xlabel("Temporal frequency (Hz)")
    ax.set_xticks([1, 3, 10, 30], ["1", "3", "10", "30"])
    ax.set_xticks([], minor=True)
    ax.set_ylabel("Power (mean of 3-15 Hz = 1)")


HYPOTHESIS = Hypothesis(
    id="H04",
    version=2,
    name="The LGN whitens natural input in time",
    claim=(
        "Responses to natural movies have a flat temporal spectrum that linear filtering predicts "
        "(Dong & Atick 1995, Network 6:159; Dan, Atick & Reid 1996, J. Neurosci. 16:3351)."
    ),
    family="retina",
    protocol=(
        f"{by_scale(N_SEQUENCES, 'sequences')} of the drift and saccades of a simulated eye over "
        "natural photographs, 5 s at 125 frames per second, the first second left out; Gaussian "
        "white noise of the same mean and variance."
    ),
    statistic=(
        "V = standard deviation over mean of the power from 3 to 15 Hz (Welch, 1 s segments), "
        "for each "
        "unit, averaged over units."
    ),
    signal="error or output units of the lowest level that has them",
    falsified_if="V above 0.4, or the same filter leaves white noise flat as well.",
    units="share of mean power",
    missing=lambda model: "" if first_level(model) is not None else "it sees no images",
    observe=observe,
    variables=("variation", "variation_noise", "slope"),
    combine=variation,
    null=0.4,
    direction=-1,
    reference=Reference(
        value=0.103,
        interval=(0.0, 0.25),
        status="read",
        source=(
            "Dan, Atick & Reid 1996: average variation of 10.3 % between 3 and 15 Hz, cat LGN "
            "(abstract)."
        ),
    ),
    requirements=(
        Requirement(
            name="noise",
            statement="The filter that flattens natural input makes white noise uneven.",
            combine=uneven_noise,
        ),
    ),
    controls=(
        Control(
            name="pixels",
            statement="The luminance of the pixels themselves.",
            transform=lambda model, seed: Pixels(model),
        ),
        Control(
            name="shuffled",
            statement="The model fitted on frames in random order has no past to predict from.",
            transform=shuffled,
        ),
    ),
    departures=(
        "A simulated eye over photographs, not a movie: clips at hand have 25 to 30 frames/s.",
        "0.25 and 0.4 are the battery's limits; the source gives 10.3 % as a mean.",
    ),
    panel=panel,
)
