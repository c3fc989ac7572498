"""H01: whitening natural images under locality gives centre-surround filters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from pcsim.hypothesis import Control, Hypothesis, Means, Reference, Requirement
from pcsim.measures import annulus_depth, locality, neighbour_asymmetry, radial_profile
from pcsim.model import Learner, Model, lesion
from pcsim.protocols import StandIn, blank, first_level, map_fields, signal_role
from pcsim.responses import select
from pcsim.roster import training_stimulus

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["HYPOTHESIS"]

SIDE = 13
REFERENCE = (-0.12, -0.03)
"""Depth of the surround of macaque ganglion cells, and the spread between cell types."""
CENTRAL = 1.01 / 16
"""Degrees: units within one pixel of the centre, around which annuli of 5 px fit the 13 px map."""


@dataclass(frozen=True)
class Rotated(StandIn):
    """A model whose outputs are turned by a random rotation: as white, but no longer local."""

    seed: int
    record_dt: float | None = None
    """Seconds between recorded times; None leaves it to the model."""

    def run(
        self, stimulus: xr.DataArray, *, seed: int = 0, record: Sequence[str] | None = None
    ) -> xr.Dataset:
        """Run the model and mix its units."""
        model = (
            self.model if self.record_dt is None else lesion(self.model, record_dt=self.record_dt)
        )
        responses = model.run(stimulus, seed=seed, record=record)
        groups = list(zip(responses["level"].values, responses["population"].values, strict=True))
        rate = responses["rate"].transpose("trial", "time", "unit").to_numpy().copy()
        for level, role in sorted(set(groups)):
            units = [index for index, group in enumerate(groups) if group == (level, role)]
            rng = np.random.default_rng([self.seed, len(units)])
            turn = np.linalg.qr(rng.standard_normal((len(units), len(units))))[0]
            rate[..., units] = rate[..., units] @ turn
        turned: xr.Dataset = responses.assign(rate=(("trial", "time", "unit"), rate))
        return turned


def missing(model: Model) -> str:
    """Return why a model's fields cannot be mapped, "" if they can."""
    level = first_level(model)
    if level is None:
        return "it sees no images"
    units = select(model.run(blank(model), seed=0), level=level)
    near = np.maximum(np.abs(units["x"].values), np.abs(units["y"].values)) <= CENTRAL
    ours = units["population"].values == signal_role(model, level)
    return "" if (near & ours).any() else "it has no units within a pixel of the middle"


def observe(model: Model, *, seed: int, scale: str) -> tuple[xr.Dataset, xr.Dataset]:
    """Map the receptive fields of the first stage around the middle of the field."""
    level = first_level(model)
    assert level is not None
    role = signal_role(model, level)
    assert role is not None
    fields, responses = map_fields(model, level=level, role=role, seed=seed)
    near = np.maximum(np.abs(responses["x"].values), np.abs(responses["y"].values)) <= CENTRAL
    fields = fields.isel(unit=near)
    around = crop(fields)
    peak = xr.apply_ufunc(np.abs, around).max(("y", "x"))
    evidence = xr.Dataset(
        {
            "depth": annulus_depth(around),
            "locality": locality(around),
            "asymmetry": neighbour_asymmetry(around),
            "field": around,
            "profile": radial_profile(around),
            "included": peak > 0.05 * float(np.percentile(peak, 95)),
        }
    )
    return evidence, responses.isel(unit=near)


def crop(fields: xr.DataArray) -> xr.DataArray:
    """Return the middle 13 by 13 pixels."""
    rows, columns = (fields.sizes[axis] - SIDE for axis in ("y", "x"))
    return fields.isel(
        y=slice(rows // 2, rows // 2 + SIDE), x=slice(columns // 2, columns // 2 + SIDE)
    )


def noise_trained(model: Any, seed: int) -> Any:
    """Return the model trained on white noise; as it is if it does not learn."""
    if not isinstance(model, Learner):
        return model
    return model.fit(training_stimulus(model, "white_noise", seed=seed), seed=seed)


def annulus(means: Means) -> Any:
    """Return the mean depth of the annulus."""
    return means["depth"]


def concentration(means: Means) -> Any:
    """Return the mean share of energy within 4 px of the peak."""
    return means["locality"]


def panel(evidence: Mapping[str, Sequence[xr.Dataset]], ax: Axes) -> None:
    """Draw mean radial profiles of the fields of the retina, its controls, LGN and error units."""
    from pcsim.plots import plot_tuning

    low, high = REFERENCE
    ax.axhspan(low, high, color="0.88", linewidth=0, label="macaque, depth")
    shown = {
        "RETINA": "retina",
        "RETINA/white noise": "retina, white noise",
        "LGN": "LGN",
        "RB": "RB, error of level 0",
    }
    for label, name in shown.items():
        profiles = [
            one["profile"].isel(unit=one["included"].values).mean("unit")
            for one in evidence.get(label, ())
        ]
        if profiles:
            plot_tuning(xr.concat(profiles, "replica"), x="radius", label=name, ax=ax)
    ax.set_xlabel("Distance from the peak (px)")
    ax.set_ylabel("Receptive field (share of peak)")
    ax.set_ylim(-0.3, 0.3)


HYPOTHESIS = Hypothesis(
    id="H01",
    name="Spatial whitening gives centre-surround filters",
    claim=(
        "Minimising the second-order redundancy of natural images under locality yields filters "
        "with "
        "an antagonistic surround, like those of retinal ganglion cells (Srinivasan, Laughlin & "
        "Dubs 1982; "
        "Atick & Redlich 1990, 1992)."
    ),
    family="retina",
    protocol=(
        "1,500 Gaussian noise images; receptive fields of the units within one pixel of the "
        "centre by least squares, 13 by 13 px; training on 40,000 log-luminance patches, ridge "
        "0.1 of the mean variance. The same at full scale."
    ),
    statistic=(
        "Depth A of the annulus: the least annular mean at radii of 1 to 5 px, relative to the "
        "peak. "
        "Locality K4: share of energy within 4 px of the peak."
    ),
    signal="error or output units of the lowest level that has them",
    falsified_if=(
        "A above -0.01, or K4 not above that of the same outputs turned by a random rotation, "
        "which are "
        "just as white (whitening alone does not make fields local)."
    ),
    units="share of peak",
    missing=missing,
    observe=observe,
    variables=("depth", "locality"),
    combine=annulus,
    null=-0.01,
    direction=-1,
    reference=Reference(
        value=-0.069,
        interval=REFERENCE,
        status="computed",
        source=(
            "Macaque ganglion cells (Chichilnisky laboratory): -0.069 (236 ON midget), -0.049 "
            "(282 OFF "
            "midget), -0.075 (94 ON parasol), -0.074 (79 OFF parasol)."
        ),
    ),
    requirements=(
        Requirement(
            name="locality",
            statement="Fields are more local than those of a random rotation of the outputs.",
            combine=concentration,
            against="rotation",
        ),
    ),
    controls=(
        Control(
            name="white noise",
            statement="Trained on white noise there is no redundancy to remove.",
            transform=noise_trained,
        ),
        Control(
            name="rotation",
            statement="Outputs turned by a random rotation stay white and lose their locality.",
            transform=lambda model, seed: Rotated(model, seed),
            for_effect=False,
        ),
    ),
    departures=(
        "Fields are mapped with noise, at both scales alike, and not read from weights; one ridge "
        "of the battery's four.",
        "The interval of A is the battery's and is wider than the four means it rests on.",
    ),
    panel=panel,
)
