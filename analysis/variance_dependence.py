"""H16: normalization removes the dependence of neighbours' variances in natural images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import xarray as xr
from scipy.stats import rankdata

from pcsim.hypothesis import Control, Hypothesis, Means, Reference, Requirement
from pcsim.model import Model
from pcsim.protocols import StandIn, blank, by_scale, lacks, respond, signal_role, visual_field
from pcsim.stimuli import natural_patches
from pcsim.stimulus import stimulus_array
from pcsim.whitening import Whitening

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["HYPOTHESIS"]

LEVEL = 1
N_IMAGES = {"quick": 500, "full": 2000}
DURATION = 0.4
FAINT = 1e-3
"""Factor on contrast in whose limit every smooth model is a power of a linear filter."""
CENTRAL, NEAR = 0.35, 0.3
"""Degrees: largest distance of units from the field's centre on both axes, and of a pair."""
UNCORRELATED = 0.2
MOST_PAIRS = 200
RIDGE = 0.01
DROP = 0.2


@dataclass(frozen=True)
class Whitened(StandIn):
    """The control: the linear filters of a model, decorrelated over the same images (ZCA)."""

    def run(
        self, stimulus: xr.DataArray, *, seed: int = 0, record: Sequence[str] | None = None
    ) -> xr.Dataset:
        """Return the responses of the model itself; `observe` whitens its linear part."""
        return cast("Model", self.model).run(stimulus, seed=seed, record=record)


@dataclass(frozen=True)
class Reader:
    """Shows images and their negatives to one population, less its response to grey."""

    model: Any
    role: str
    seed: int

    def answer(self, values: Any) -> tuple[xr.Dataset, Any]:
        """Return labels and responses (trial, unit) after 0.4 s of images (trial, y, x)."""
        stimulus = stimulus_array(
            values[:, None], frame_duration=DURATION, px_per_deg=self.model.px_per_deg
        )
        responses = respond(
            self.model, stimulus, level=LEVEL, role=self.role, every=DURATION, seed=self.seed
        )
        rate = responses["rate"].isel(time=-1).transpose("trial", "unit").to_numpy()
        return responses, rate

    def halves(self, contrast: Any) -> tuple[xr.Dataset, Any, Any]:
        """Return labels and the responses to images of this contrast and to their negatives."""
        labels, positive = self.answer(0.5 + contrast)
        _, negative = self.answer(0.5 - contrast)
        _, grey = self.answer(blank(self.model).to_numpy()[:, 0])
        return labels, positive - grey, negative - grey


def gaussian_images(images: Any, rng: np.random.Generator) -> Any:
    """Return as many Gaussian images (n, y, x) of the same mean and covariance: random sums.

    Natural images whose phases are scrambled over the whole ensemble.
    """
    n = len(images)
    mean = images.mean(axis=0)
    mixture = rng.standard_normal((n, n)) / np.sqrt(n)
    return mean + np.tensordot(mixture, images - mean, axes=1)


def observe(model: Model, *, seed: int, scale: str) -> xr.Dataset:
    """Compare the dependence of pairs in the limit of low contrast with that at full contrast."""
    original = model.model if isinstance(model, Whitened) else model
    role = signal_role(original, LEVEL)
    assert role is not None
    reader = Reader(original, role, seed)
    field, px_per_deg = visual_field(original)
    images = natural_patches(
        field, n=N_IMAGES[scale], px_per_deg=px_per_deg, seed=seed + 10_000, frame_duration=DURATION
    ).to_numpy()[:, 0]
    rng = np.random.default_rng([seed, 16])
    faint = FAINT * (images - 0.5)
    labels, *before = reader.halves(faint)
    _, *scrambled = reader.halves(gaussian_images(faint, rng))
    if isinstance(model, Whitened):
        linear = signed_root(before, reader.halves(2.0 * faint)[1:])
        after = whitened_sizes(linear)
    else:
        _, *full = reader.halves(images - 0.5)
        after = size(full)
    first, second = pairs(labels, signed(scrambled), rng)
    found = {
        name: kappa(values, first, second)
        for name, values in (
            ("kappa_in", size(before)), ("kappa_out", after), ("kappa_scrambled", size(scrambled)),
        )
    }  # fmt: skip
    finite = np.all([np.isfinite(values) for values in found.values()], axis=0)
    table = {name: ("unit", np.where(finite, values, 0.0)) for name, values in found.items()}
    return xr.Dataset({**table, "included": ("unit", finite)})


def whitened_sizes(linear: Any) -> Any:
    """Return the sizes of whitened responses (image, unit); 0 for units that never respond."""
    varied = np.ptp(linear, axis=0) > 0
    out = np.zeros_like(linear)
    if varied.any():
        seen = linear[:, varied]
        out[:, varied] = np.abs(Whitening(kind="zca", ridge=RIDGE).fit(seen).forward(seen))
    return out


def size(halves: Sequence[Any]) -> Any:
    """Return the size of the response whatever the sign of the image."""
    return np.abs(halves[0]) + np.abs(halves[1])


def signed(halves: Sequence[Any]) -> Any:
    """Return the part of the response that changes sign with the image."""
    return 0.5 * (halves[0] - halves[1])


def signed_root(once: Sequence[Any], twice: Sequence[Any]) -> Any:
    """Return linear responses behind a power law whose exponent shows at two contrasts."""
    one, two = signed(once), signed(twice)
    large = np.abs(one) > np.percentile(np.abs(one), 50)
    large &= np.abs(two) > 0
    ratio = np.abs(two[large]) / np.abs(one[large]) if large.any() else np.array([2.0])
    exponent = max(float(np.log2(np.median(ratio))), 0.5)
    scale = np.maximum(np.abs(one).max(axis=0), np.finfo(float).tiny ** 0.5)
    return np.sign(one) * (np.abs(one) / scale) ** (1.0 / exponent)


def pairs(labels: xr.Dataset, filtered: Any, rng: np.random.Generator) -> tuple[Any, Any]:
    """Return units of neighbouring pairs, hardly correlated when images are Gaussian."""
    x, y = labels["x"].values, labels["y"].values
    central = np.maximum(np.abs(x), np.abs(y)) <= CENTRAL
    varies = filtered.std(axis=0) > 0
    # Values of a unit that is silent at low contrast cannot be correlated.
    standard = (filtered - filtered.mean(axis=0)) / np.where(varies, filtered.std(axis=0), 1.0)
    correlation = standard.T @ standard / len(standard)
    near = np.hypot(x[:, None] - x, y[:, None] - y) <= NEAR
    usable = central & varies
    chosen = near & (np.abs(correlation) < UNCORRELATED) & usable[:, None] & usable
    first, second = np.nonzero(np.triu(chosen, 1))
    if len(first) > MOST_PAIRS:
        some = np.sort(rng.choice(len(first), MOST_PAIRS, replace=False))
        first, second = first[some], second[some]
    if len(first) == 0:
        # One pair that will not be included, so that the evidence keeps its form.
        return np.array([0]), np.array([0])
    return first, second


def kappa(values: Any, first: Any, second: Any) -> Any:
    """Return Spearman's correlation of the sizes (trial, unit) of each pair; NaN if constant."""
    ranks = np.apply_along_axis(rankdata, 0, values)
    ranks = ranks - ranks.mean(axis=0)
    norm = np.linalg.norm(ranks, axis=0)
    ranks = np.where(norm > 0, ranks / np.where(norm > 0, norm, 1.0), np.nan)
    found = (ranks[:, first] * ranks[:, second]).sum(axis=0)
    return np.where(first == second, np.nan, found)


def drop(means: Means) -> Any:
    """Return 1 - out / in; 0 where there was no dependence to begin with."""
    before, after = means["kappa_in"], means["kappa_out"]
    there = before > 0.01
    return np.where(there, 1.0 - after / np.where(there, before, 1.0), 0.0)


def natural_excess(means: Means) -> Any:
    """Return by how much half the dependence in natural images exceeds that in scrambled ones."""
    return 0.5 * means["kappa_in"] - means["kappa_scrambled"]


def panel(evidence: Mapping[str, Sequence[xr.Dataset]], ax: Axes) -> None:
    """Draw the dependence before and after, for each column and for linear whitening."""
    from pcsim.plots import colour

    rows = []
    for label in ("SS", "SS/whitening", "DN", "RB", "LN"):
        tables = [one.isel(unit=one["included"].values) for one in evidence.get(label, ())]
        tables = [one for one in tables if one.sizes["unit"]]
        if tables:
            rows.append(("whitening" if label == "SS/whitening" else label, tables))
    marks = {
        "kappa_in": ("filters", colour("control"), "o", -0.15),
        "kappa_out": ("responses", colour("error"), "s", 0.15),
        "kappa_scrambled": ("scrambled images", colour("data"), "x", 0.0),
    }
    for place, (_, tables) in enumerate(rows):
        means = {name: np.array([float(one[name].mean()) for one in tables]) for name in marks}
        ends = [means["kappa_in"].mean(), means["kappa_out"].mean()]
        ax.plot([place - 0.15, place + 0.15], ends, "-", lw=0.8, color="0.6", zorder=0)
        for name, (text, shade, mark, offset) in marks.items():
            at = place + offset + np.linspace(-0.05, 0.05, len(tables))
            ax.plot(at, means[name], mark, ms=3.5, color=shade, label=text if place == 0 else None)
    ax.axhline(0.0, lw=0.6, color="0.5", zorder=0)
    ax.set_xticks(range(len(rows)), [name for name, _ in rows])
    ax.set_xlim(-0.5, max(len(rows), 1) - 0.5)
    ax.set_ylabel("Dependence of sizes (Spearman)")
    ax.legend(frameon=False)


HYPOTHESIS = Hypothesis(
    id="H16",
    version=2,
    name="Normalization removes variance dependence",
    claim=(
        "Responses of neighbouring filters to natural images have dependent variances, which no "
        "linear transform removes; divisive gain with learned weights does (Schwartz & "
        "Simoncelli 2001, Nat. Neurosci. 4:819)."
    ),
    family="V1",
    protocol=(
        f"{by_scale(N_IMAGES, 'natural patches')} and their negatives for 0.4 s, at full contrast "
        "and at a thousandth of it, where a smooth model is a power of a linear filter; Gaussian "
        "images of the same covariance (phases scrambled over the ensemble) at the low contrast. "
        "Pairs of units within 0.3 degrees whose filters correlate by less than 0.2 on the "
        "Gaussian images."
    ),
    statistic=(
        "1 - out / in, the mean over pairs of Spearman's correlation of the sizes of responses "
        "at full contrast over that at low contrast."
    ),
    signal="error units of level 1 (output or latent units of models without them)",
    falsified_if=(
        "A drop below 0.2, or linear whitening drops as much, or scrambled images leave half of "
        "the dependence."
    ),
    units="share of the dependence",
    missing=lambda model: lacks(model, LEVEL),
    observe=observe,
    variables=("kappa_in", "kappa_out", "kappa_scrambled"),
    combine=drop,
    null=DROP,
    direction=1,
    reference=Reference(
        interval=(0.5, 1.0),
        status="remembered",
        source=(
            "Schwartz & Simoncelli 2001: learned normalization all but removes the dependence "
            "(figures); that this is more than one half is the battery's reading."
        ),
    ),
    requirements=(
        Requirement(
            name="scrambled",
            statement="Images with scrambled phases have less than half of the dependence.",
            combine=natural_excess,
        ),
    ),
    controls=(
        Control(
            name="whitening",
            statement="The same model's linear filters, decorrelated (ZCA) instead of normalized.",
            transform=lambda model, seed: Whitened(model),
        ),
    ),
    departures=(
        "What goes in is taken from faint images, where a smooth model is a power of a linear "
        "filter; the phases are scrambled over the ensemble.",
    ),
    remembered=(
        "That learned normalization removes more than half of it; 0.2 as the falsifier is the "
        "battery's.",
    ),
    panel=panel,
)
