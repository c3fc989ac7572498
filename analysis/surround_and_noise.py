"""H03: the surround of retinal filters weakens as the signal-to-noise ratio falls."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import scipy.stats
import xarray as xr

from pcsim.hypothesis import Control, Hypothesis, Means, Reference
from pcsim.measures import annulus_depth
from pcsim.model import Model, lesion
from pcsim.protocols import OUTPUTS, StandIn, blank, respond, visual_field
from pcsim.stimulus import stimulus_array

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["HYPOTHESIS"]

RATIOS = np.array([100.0, 30.0, 10.0, 3.0, 1.0, 0.3])
"""Signal variance over noise variance of a pixel."""
SIDE = 13
STEP = 0.02
"""Luminance by which one pixel at a time is raised over mid-grey."""
DURATION = 0.2
CENTRAL = 1.01 / 16
"""Degrees: units within one pixel of the centre, around which annuli of 5 px fit the map."""
SHOWN = ("RETINA", "PATH", "RETINA/fixed filter", "PATH-noise")


@dataclass(frozen=True)
class Fixed(StandIn):
    """A model whose filter does not follow the noise."""

    record_dt: float | None = None
    """Seconds between recorded times; None leaves it to the model."""

    def run(
        self, stimulus: xr.DataArray, *, seed: int = 0, record: Sequence[str] | None = None
    ) -> xr.Dataset:
        """Run the model as it is."""
        fields = {} if self.record_dt is None else {"record_dt": self.record_dt}
        return cast("Model", lesion(self.model, **fields)).run(stimulus, seed=seed, record=record)


def missing(model: Any) -> str:
    """Say why a model cannot be read: it needs a retina whose noise can be set."""
    if model.field_shape is None:
        return "it sees no images"
    adapts = dataclasses.is_dataclass(model) and {f.name for f in dataclasses.fields(model)}
    if not isinstance(model, Fixed) and not (adapts and adapts & {"snr", "ridge"}):
        return "the noise that its filter is made for cannot be set"
    return "" if retinal_role(model) else "it has no outputs in the retina"


def retinal_role(model: Model) -> str:
    """Return the role of the retina's signed outputs, "" if there are none."""
    units = model.run(blank(model), seed=0)
    retina = units["population"].values[units["area"].values == "retina"].tolist()
    return next((role for role in OUTPUTS if role in retina), "")


def flashes(model: Model) -> xr.DataArray:
    """Return one trial for each of the central 13 by 13 pixels, raised over grey, and grey."""
    (ny, nx), px_per_deg = visual_field(model)
    top, left = (ny - SIDE) // 2, (nx - SIDE) // 2
    images = np.full((SIDE**2 + 1, 1, ny, nx), 0.5)
    rows, columns = np.divmod(np.arange(SIDE**2), SIDE)
    images[np.arange(SIDE**2), 0, top + rows, left + columns] += STEP
    return stimulus_array(images, frame_duration=DURATION, px_per_deg=px_per_deg)


def observe(model: Model, *, seed: int, scale: str) -> xr.Dataset:
    """Map the retina's receptive fields with the filter made for each signal-to-noise ratio."""
    stimulus, role = flashes(model), retinal_role(model)
    fields = []
    for ratio in RATIOS:
        adapted = lesion(model, snr=float(ratio), ridge=float(1.0 / ratio))
        found = respond(adapted, stimulus, level=0, role=role, every=DURATION, seed=seed)
        near = np.maximum(np.abs(found["x"].values), np.abs(found["y"].values)) <= CENTRAL
        rate = found["rate"].isel(time=-1, unit=near).transpose("unit", "trial").to_numpy()
        fields.append((rate[:, :-1] - rate[:, -1:]).reshape(-1, SIDE, SIDE))
    maps = xr.DataArray(np.stack(fields, axis=1), dims=("unit", "ratio", "y", "x"))
    peak = np.abs(maps.to_numpy()).max(axis=(2, 3))
    depth = annulus_depth(maps)
    best = best_frequency(maps.to_numpy(), float(stimulus["px_per_deg"]))
    return xr.Dataset(
        {
            "depth_rank": ("unit", rank_correlation(depth.to_numpy())),
            "frequency_rank": ("unit", rank_correlation(best)),
            "depth": depth,
            "best_frequency": (("unit", "ratio"), best),
            "field": maps,
            "depth_theory": ("ratio", closed_form()),
            "included": ("unit", (peak > 0.05 * np.percentile(peak, 95, axis=0)).all(axis=1)),
        },
        coords={"ratio": RATIOS},
    )


def rank_correlation(values: Any) -> Any:
    """Return Spearman's correlation of each row with the ratios, 0 for a row of one number."""
    # What differs by rounding alone is one number.
    ranks = scipy.stats.rankdata(np.round(values, 9), axis=1) - (len(RATIOS) + 1) / 2
    order = scipy.stats.rankdata(RATIOS) - (len(RATIOS) + 1) / 2
    spread = np.sqrt((ranks**2).sum(axis=1) * (order**2).sum())
    return np.where(spread > 0, ranks @ order / np.where(spread > 0, spread, 1.0), 0.0)


def best_frequency(maps: Any, px_per_deg: float, n: int = 64) -> Any:
    """Return the spatial frequency of the largest amplitude, cycles per degree: (unit, ratio)."""
    amplitude = np.abs(np.fft.fft2(maps, (n, n)))
    radius = np.rint(n * np.hypot(*np.meshgrid(*[np.fft.fftfreq(n)] * 2))).astype(int)
    rings = np.stack([amplitude[..., radius == k].mean(axis=-1) for k in range(n // 2)], axis=-1)
    return rings.argmax(axis=-1) / n * px_per_deg


def closed_form(n: int = 64) -> Any:
    r"""Return the depth of the annulus of :math:`K = S / (S + N)^{3/2}`, S falling as 1/f^2."""
    f = np.hypot(*np.meshgrid(*[np.fft.fftfreq(n)] * 2, indexing="ij"))
    signal = 1.0 / np.maximum(f, 1.0 / n) ** 2
    signal = signal / signal.mean()
    noise = 1.0 / RATIOS[:, None, None]
    kernel = np.fft.fftshift(np.fft.ifft2(signal / (signal + noise) ** 1.5).real, axes=(1, 2))
    middle = slice(n // 2 - SIDE // 2, n // 2 + SIDE // 2 + 1)
    return annulus_depth(xr.DataArray(kernel[:, middle, middle], dims=("ratio", "y", "x"))).values


def rank(means: Means) -> Any:
    """Return the mean rank correlation of the annulus's depth with the signal-to-noise ratio."""
    return means["depth_rank"]


def panel(evidence: Mapping[str, Sequence[xr.Dataset]], ax: Axes) -> None:
    """Draw the annulus's depth against the signal-to-noise ratio, and the closed form."""
    from pcsim.plots import colour, plot_tuning

    theory = None
    for label in SHOWN:
        curves = [one["depth"][one["included"]].mean("unit") for one in evidence.get(label, ())]
        if curves:
            theory = evidence[label][0]["depth_theory"]
            name = label.replace("/", ", ")
            plot_tuning(xr.concat(curves, "replica"), x="ratio", label=name, marker="o", ax=ax)
    if theory is not None:
        ax.plot(theory["ratio"], theory, "--", color=colour("data"), label="closed form K(f)")
    ax.axhline(0.0, color=colour("data"), linewidth=0.6, linestyle=":")
    ax.set_xscale("log")
    ax.set_xticks(RATIOS, [f"{ratio:g}" for ratio in RATIOS])
    ax.set_xticks([], minor=True)
    ax.set_xlabel("Signal-to-noise ratio of a pixel (variances)")
    ax.set_ylabel("Surround (share of peak)")
    ax.legend(loc="lower left", bbox_to_anchor=(0.0, 1.0), ncols=2)


HYPOTHESIS = Hypothesis(
    id="H03",
    name="The surround weakens as signal-to-noise falls",
    claim=(
        "The optimal predictive filter turns from band-pass to low-pass in dim light (Srinivasan, "
        "Laughlin & Dubs 1982; Atick & Redlich 1992, Neural Comput. 4:196)."
    ),
    family="retina",
    protocol=(
        "Signal-to-noise ratios of 100, 30, 10, 3, 1 and 0.3 (variances of a pixel): the retina's "
        "noise is set, and its filter follows from the covariance it has learned. The central 13 "
        "by 13 pixels are raised one at a time by 0.02 over mid-grey, 0.2 s; receptive fields of "
        "the units within one pixel of the centre. The same at full scale."
    ),
    statistic=(
        "Rank correlation of the depth A of the annulus (least annular mean at 1 to 5 px, "
        "relative to the peak) with the logarithm of the signal-to-noise ratio; -1 if the surround "
        "weakens at each step. Beside it: the spatial frequency that the filter passes best."
    ),
    signal="signed outputs or errors of the retina",
    falsified_if="The rank correlation is above -0.5.",
    units="rank correlation",
    missing=missing,
    observe=observe,
    variables=("depth_rank", "frequency_rank"),
    combine=rank,
    null=-0.5,
    direction=-1,
    reference=Reference(
        value=-1.0,
        interval=(-1.0, -0.9),
        status="remembered",
        source="Sign and monotonicity of the closed form K = S / (S + N)^(3/2); no neural number.",
    ),
    controls=(
        Control(
            name="fixed filter",
            statement="A filter that does not follow the noise keeps its surround.",
            transform=lambda model, seed: Fixed(model),
        ),
    ),
    departures=(
        "The noise is told to the model, which recomputes its filter; nothing is learned again in "
        "dim light.",
        "The battery's two limits, -0.9 and -0.5, are kept.",
    ),
    expectations={
        "RETINA": "+",
        "PATH": "+",
        "PATH-cut": "+",
        "PATH-noise": "-",
        "PATH-untr": "-",
    },
    panel=panel,
)
