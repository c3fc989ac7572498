"""H42: images that look alike to inferior temporal cortex look alike to a model's deepest units."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from pcsim.hypothesis import (
    Control,
    Hypothesis,
    Means,
    Reference,
    Requirement,
)
from pcsim.measures import (
    compare_rdms,
    correlation_rdm,
    noise_ceiling,
    pseudovalues,
    rdm_matrix,
    rdm_vector,
)
from pcsim.model import Learner, Model
from pcsim.neural import images_92, rdms_92_images, recording_folder
from pcsim.protocols import StandIn, blank, respond, visual_field, window_mean
from pcsim.responses import make_responses
from pcsim.stimuli.photographs import luminance_of
from pcsim.stimulus import stimulus_array

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["HYPOTHESIS"]

RECORDING = "rsa_92images"
ROLES = ("latent", "output", "error")
"""Read at the deepest level that has one of them."""
EXTENT = 3.0
"""Side of an image, degrees; 2.9 in the human experiment (remembered)."""
STRIDE = 16
"""Largest step between the centres of two windows, pixels."""
DURATION, FROM = 0.3, 0.2
"""Seconds an image stays, and from which on the response is averaged."""
HMAX, HUMAN, MONKEY = "HMAX", "hITvisStim_316vx", "mIT_674neurons"
SHOWN = ("LN", "DN", "LCA", "RB", "RB-cut", "RB-untr", "PATH", "COLUMN")


@dataclass(frozen=True)
class Pixels(StandIn):
    """A model's window on the image, pixel by pixel."""

    def run(
        self, stimulus: xr.DataArray, *, seed: int = 0, record: Sequence[str] | None = None
    ) -> xr.Dataset:
        """Return luminance relative to mid-grey as output units of level 0."""
        values = stimulus.to_numpy() - 0.5
        time = stimulus["time"].values + float(stimulus["frame_duration"])
        units = {"population": "output", "level": 0, "area": "retina"}
        rate = values.reshape(*values.shape[:2], -1)
        return make_responses(rate, time=time, units=units, trial=stimulus)


def deepest(model: Model) -> tuple[int, str] | None:
    """Return level and role of the deepest units that carry an estimate, or what is sent on."""
    if model.field_shape is None:
        return None
    units = model.run(blank(model), seed=0)
    pairs = list(zip(units["level"].values, units["population"].values, strict=True))
    found = [(int(level), str(role)) for level, role in pairs if role in ROLES]
    if not found:
        return None
    level = max(level for level, _ in found)
    return level, next(role for role in ROLES if (level, role) in found)


@cache
def published() -> dict[str, Any]:
    """Return dissimilarities (4186,) of IT and of HMAX, those of single sessions, their ceiling."""
    folder = recording_folder(RECORDING)
    found: dict[str, Any] = {}
    for which in ("figure1", "models"):
        stored = rdms_92_images(folder, which)
        found |= dict(zip(stored["rdm"].values.tolist(), vectors(stored), strict=True))
    subjects = vectors(rdms_92_images(folder, "human"))
    return {**found, "sessions": subjects, "ceiling": noise_ceiling(subjects)}


def vectors(matrices: xr.DataArray) -> Any:
    """Return the upper triangle of matrices that rounding has left slightly unlike themselves."""
    both = 0.5 * (matrices.values + matrices.transpose("rdm", "image_2", "image").values)
    return rdm_vector(both)


@cache
def shown_images(px_per_deg: float) -> Any:
    """Return the 92 images as luminance (image, y, x), 3 degrees a side, background at mid-grey.

    Contrast stays linear; its gain leaves 1 % of the pixels of all images above 1, and clips them.
    """
    coded = images_92(recording_folder(RECORDING)).values / 255.0
    light = np.stack([luminance_of(image) for image in coded])
    background = luminance_of(np.array([[128.0 / 255.0]])).item()
    gain = 0.5 / (np.quantile(light, 0.99) - background)
    rows = overlap(light.shape[-1], round(EXTENT * px_per_deg))
    small = rows @ light @ rows.T
    return np.clip(0.5 + gain * (small - background), 0.0, 1.0)


def overlap(n: int, m: int) -> Any:
    """Return (m, n) weights that average n pixels over m wider ones by the share they cover."""
    edges, new = np.arange(n + 1), np.linspace(0.0, n, m + 1)
    right = np.minimum(edges[1:], new[1:, None])
    return np.maximum(right - np.maximum(edges[:-1], new[:-1, None]), 0.0) * m / n


def windows(images: Any, field: tuple[int, int]) -> Any:
    """Cut (image, y, x) into windows (image, window, rows, columns) that cover it, on grey.

    Their centres form a grid in the middle of the image, `STRIDE` px apart or one side of a field
    that is smaller.
    """
    side = images.shape[-1]
    step = min(STRIDE, *field)
    n = -(-side // step)
    around = max(field) + step * n
    padded = np.pad(images, ((0, 0), (around, around), (around, around)), constant_values=0.5)
    centres = around + side / 2 + step * (np.arange(n) - (n - 1) / 2)
    tops, lefts = (np.round(centres - length / 2).astype(int) for length in field)
    cut = [
        padded[:, top : top + field[0], left : left + field[1]] for top in tops for left in lefts
    ]
    return np.stack(cut, axis=1)


def patterns(model: Model, *, seed: int) -> Any:
    """Return the responses (image, window and unit) of a model moved over every image."""
    found = deepest(model)
    assert found is not None
    field, px_per_deg = visual_field(model)
    cut = windows(shown_images(px_per_deg), field)
    n_images, n_windows = cut.shape[:2]
    stimulus = stimulus_array(
        cut.reshape(-1, 1, *field), frame_duration=DURATION, px_per_deg=px_per_deg,
        condition=np.repeat([f"image {i}" for i in range(n_images)], n_windows),
    )  # fmt: skip
    level, role = found
    responses = respond(model, stimulus, level=level, role=role, every=0.05, seed=seed)
    return window_mean(responses, FROM, DURATION + 0.01).reshape(n_images, -1)


def unvarying(rates: Any) -> Any:
    """Return for each image whether its pattern is the same rate everywhere."""
    return np.ptp(rates, axis=1) <= 1e-12 * max(float(np.abs(rates).max()), 1e-300)


def dissimilarities(rates: Any) -> Any:
    """Return one minus the correlation of every two patterns; 1 where a pattern does not vary."""
    flat = unvarying(rates)
    matrix = np.ones((len(rates), len(rates)))
    if (~flat).sum() > 1:
        matrix[np.ix_(~flat, ~flat)] = rdm_matrix(correlation_rdm(rates[~flat]))
    return rdm_vector(matrix)


def observe(model: Model, *, seed: int, scale: str) -> xr.Dataset:
    """Compare the dissimilarities of a model with those of human and monkey IT."""
    brain = published()
    rates = patterns(model, seed=seed)
    ours = dissimilarities(rates)
    n = rdm_matrix(ours).shape[0]
    still = np.ptp(ours) <= 1e-12
    targets = {"human": brain[HUMAN], "monkey": brain[MONKEY]}
    evidence: dict[str, Any] = {
        name: ("unit", np.zeros(n) if still else pseudovalues(ours, target))
        for name, target in targets.items()
    }
    for name, target in targets.items():
        tau = 0.0 if still else compare_rdms(ours, target, method="tau_a").item()
        evidence[f"tau_a_{name}"] = ((), tau)
    each = np.zeros(1) if still else compare_rdms(ours, brain["sessions"])
    evidence["sessions"] = ((), float(each.mean()))
    evidence["hmax"] = ("unit", pseudovalues(brain[HMAX], brain[HUMAN]))
    evidence["ceiling"] = ("bound", np.array(brain["ceiling"]))
    evidence["included"] = ("unit", np.full(n, not still))
    evidence |= {"dropped_patterns": int(unvarying(rates).sum()), "total_patterns": n}
    return xr.Dataset(evidence)


def similarity(means: Means) -> Any:
    """Return the correlation with human IT."""
    return means["human"]


def over_hmax(means: Means) -> Any:
    """Return by how much it exceeds that of HMAX."""
    return means["human"] - means["hmax"]


def missing(model: Model) -> str:
    """Return why a model cannot be tested."""
    if model.field_shape is None:
        return "it sees no images"
    return "" if deepest(model) else f"it has no {' or '.join(ROLES)} units"


def untrained(model: Any, seed: int) -> Any:
    """Return a learner as it was before it learned; what does not learn stays as it is."""
    draw = getattr(model, "untrained", None)
    return draw(seed=seed) if isinstance(model, Learner) and draw is not None else model


def panel(evidence: Mapping[str, Sequence[xr.Dataset]], ax: Axes) -> None:
    """Draw the correlation of each column with human and monkey IT, beside what is published."""
    from pcsim.plots import colour

    shown = [label for label in SHOWN if evidence.get(label)]
    shown += [f"{label}/pixels" for label in shown[:1] if evidence.get(f"{label}/pixels")]
    kinds = {"human": ("latent", "o", -0.12), "monkey": ("data", "s", 0.12)}
    for name, (paint, marker, shift) in kinds.items():
        for place, label in enumerate(shown):
            heard = [one for one in evidence[label] if one["included"].any()]
            values = [float(one[name].mean()) for one in heard]
            ax.plot(
                np.full(len(values), place + shift), values, marker=marker, linestyle="-",
                linewidth=0.6, color=colour(paint), label=None if place else f"{name} IT",
            )  # fmt: skip
    first = evidence[shown[0]][0]
    low, high = first["ceiling"].to_numpy()
    ax.axhspan(low, high, color="0.92", linewidth=0)
    ax.annotate(
        "noise ceiling, single sessions", (-0.4, 0.5 * (low + high)), va="center", fontsize=6
    )
    for level, text in (
        (0.491, "monkey and human IT"),
        (float(first["hmax"].mean()), "HMAX and human IT"),
    ):
        ax.axhline(level, color="black", linestyle="--", linewidth=0.6)
        ax.annotate(text, (len(shown) - 0.5, level), ha="right", va="bottom", fontsize=6)
    ax.axhline(0.0, color="0.6", linewidth=0.4)
    names = ["pixels" if label.endswith("/pixels") else label for label in shown]
    ax.set_xticks(range(len(shown)), names, rotation=30, ha="right")
    ax.set_xlim(-0.5, len(shown) - 0.5)
    ax.set_ylabel("Correlation of dissimilarities")
    ax.legend(loc="lower left", bbox_to_anchor=(0.0, 1.0), ncols=2)


HYPOTHESIS = Hypothesis(
    id="H42",
    name="Similarity of objects as in inferior temporal cortex",
    claim=(
        "The deepest units of the model find those images alike that inferior temporal cortex "
        "finds alike (Kriegeskorte et al. 2008, Neuron 60:1126)."
    ),
    family="geometry",
    protocol=(
        "92 photographs of objects on grey as luminance, 3 degrees a side (2.9 in the experiment, "
        "remembered), 0.3 s each. A field is smaller than an image, so it is put at the places of "
        "a square grid that covers it, 16 px or one field apart; the mean rates of the last 0.1 s "
        "at all places are one pattern. Dissimilarity = 1 - correlation of patterns, 1 where a "
        "pattern does not vary (counted as patterns left out). Images count if the patterns of any "
        "vary: a silent level has no geometry. Quick and full scale show the same."
    ),
    statistic=(
        "Pearson correlation of the model's 4186 dissimilarities with those of mean human IT "
        "(316 voxels), as jackknife pseudo-values of the images. Beside it, not judged: monkey IT "
        "(674 neurons), tau a, and the mean over eight sessions of single subjects, to which the "
        "noise ceiling belongs. The interval takes the images anew once for all replicas."
    ),
    signal="latent units of the deepest level (output or error units of models without them)",
    falsified_if="The correlation does not exceed that of HMAX (0.216).",
    units="correlation",
    missing=missing,
    recordings=(RECORDING,),
    observe=observe,
    shared=("unit",),
    variables=("human", "monkey", "hmax"),
    combine=similarity,
    null=0.0,
    direction=1,
    rope=(-0.033, 0.040),
    reference=Reference(
        value=0.491,
        interval=(0.393, 0.587),
        status="computed",
        source=(
            "Monkey against mean human IT, from the published matrices: r = 0.491, bootstrap over "
            "images 0.393 to 0.587, permutation -0.033 to 0.040. Against mean human IT: animacy "
            "0.577, categories 0.418, HMAX 0.216, silhouette 0.162, a model of V1 0.042."
        ),
    ),
    requirements=(
        Requirement(
            name="above HMAX",
            statement="The correlation exceeds that of HMAX on the same images.",
            combine=over_hmax,
        ),
    ),
    controls=(
        Control(
            name="pixels",
            statement="Luminance at the same places knows nothing of objects.",
            transform=lambda model, seed: Pixels(model),
        ),
        Control(
            name="untrained",
            statement="The same circuit before learning; itself, if it does not learn.",
            transform=untrained,
        ),
    ),
    expectations={
        **dict.fromkeys(("PATH", "PATH-cut", "COLUMN", "SS"), "?"),
        **dict.fromkeys(("PATH-untr", "RB-untr", "RB-noise", "RETINA", "LGN", "HOSOYA"), "-"),
    },
    departures=(
        "A model sees a part of an image at a time, each for itself; subjects saw the whole.",
        "Images are luminance, not colour; 1 % of their pixels are clipped as contrast is raised.",
        "Human dissimilarities come from 316 voxels of fMRI, monkey ones from 674 neurons, the "
        "model's from rates without noise.",
        "Tau a is reported and not judged; so is the noise ceiling.",
        "Two reference numbers are not reproduced from the same bytes: the interval of r = 0.491, "
        "0.393 to 0.587, is 0.40 to 0.58 in a bootstrap of images here; the noise ceiling, about "
        "0.29 to 0.56, is 0.35 to 0.54 here (lower end 0.32 if both sessions of a subject are left "
        "out). How they were computed is not written down.",
    ),
    remembered=("Images of 2.9 degrees.", "Images shown for 0.3 s."),
    panel=panel,
)
