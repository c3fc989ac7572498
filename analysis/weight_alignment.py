"""H37: what a learned update makes of errors is near the decoder's transposed Jacobian."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from pcsim.hypothesis import Control, Hypothesis, Means, Reference
from pcsim.model import Model
from pcsim.protocols import Mistaught, Untaught, by_scale, films, inferring, lacks_inference

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["HYPOTHESIS"]

FORMS = ("transpose", "pseudo-inverse", "preconditioned")
N_IMAGES = {"quick": 12, "full": 100}
FALSIFIED, PREDICTED = 80.0, 60.0
"""Degrees to the transpose: reached by the interval, refuted; below, as predicted."""
SHOWN = ("RB", "VAE-iter", "VAE-dir")


def observe(model: Model, *, seed: int, scale: str) -> xr.Dataset:
    """Compare the average response of level 1 to weighted errors with three maps of the decoder."""
    from pcsim.deep.inference import Evaluation
    from pcsim.deep.training_step import generator_for
    from pcsim.deep.transport import responses_and_forms

    own = inferring(model)
    deep = own.taught(scale) if isinstance(own, Mistaught) else own.deep()
    shown = films(own, n=N_IMAGES[scale], n_frames=1, seed=seed + 40_000)[0]
    x = examples_of(deep.model, shown)
    evaluation = Evaluation(generator=generator_for("cpu", seed, 40))
    response, found = responses_and_forms(deep.model, deep.inference, x, evaluation)
    if isinstance(own, Untaught) and getattr(deep.inference, "parameters", None) is None:
        # A gradient has no network to leave untrained: the feedback weights are those before.
        fresh = own.fresh.deep()
        response, _ = responses_and_forms(fresh.model, fresh.inference, x, evaluation)
    return evidence(response, found)


def examples_of(model: Any, values: Any) -> Any:
    """Return features as rows of the model's type."""
    from pcsim.deep.arms import examples

    return examples(values).to(next(model.parameters()))


def evidence(response: Any, found: Mapping[str, Any]) -> xr.Dataset:
    """Return each latent's inner products, from whose means the angles are made."""
    variables: dict[str, Any] = {"own": ("unit", (response**2).sum(1))}
    for name in FORMS:
        variables[f"{name} product"] = ("unit", (response * found[name]).sum(1))
        variables[f"{name} size"] = ("unit", (found[name] ** 2).sum(1))
    variables["included"] = ("unit", np.ones(len(response), dtype=bool))
    return xr.Dataset(variables)


def angle_to(form: str) -> Callable[[Means], Any]:
    """Return the angle, in degrees, between the average response and a map, over all latents."""

    def angle(means: Means) -> Any:
        sizes = np.sqrt(means["own"] * means[f"{form} size"])
        cosine = means[f"{form} product"] / np.maximum(sizes, 1e-300)
        return np.degrees(np.arccos(np.clip(cosine, -1.0, 1.0)))

    return angle


def panel(shown: Mapping[str, Sequence[xr.Dataset]], ax: Axes) -> None:
    """Draw each replica's angle to the three maps, columns beside their untrained controls."""
    from pcsim.plots import OKABE_ITO

    kinds = ("", "/shuffled training", "/untrained")
    labels = [label + kind for label in SHOWN for kind in kinds if shown.get(label + kind)]
    for form, shade, mark in zip(FORMS, ("blue", "orange", "black"), "os^", strict=True):
        for place, label in enumerate(labels):
            means = [
                {str(name): one[name].mean().to_numpy() for name in one.data_vars}
                for one in shown[label]
            ]
            angles = [float(angle_to(form)(one)) for one in means]
            x = np.full(len(angles), place) + 0.15 * (FORMS.index(form) - 1)
            text = form if place == 0 else None
            ax.plot(x, angles, mark, color=OKABE_ITO[shade], markersize=3.5, label=text)
    for limit, style in ((PREDICTED, ":"), (FALSIFIED, ":"), (90.0, "-")):
        ax.axhline(limit, color="0.6", linewidth=0.6, linestyle=style)
    names = [one.replace("/", "\n").replace(" training", "") for one in labels]
    ax.set_xticks(range(len(labels)), names)
    ax.set_ylim(0.0, 105.0)
    ax.set_ylabel("Angle of the average (degrees)")
    ax.legend(loc="lower left", bbox_to_anchor=(0.0, 1.0), ncols=3)


HYPOTHESIS = Hypothesis(
    id="H37",
    name="Learned inference weights align with the transposed Jacobian",
    claim=(
        "A network that learned to infer answers the errors of the data as the transposed Jacobian "
        "of the decoder would, or better, as its preconditioned form: no weights are transported."
    ),
    family="learning",
    protocol=(
        f"{by_scale(N_IMAGES, 'natural patches')}. B, the derivative of an update of level 1's "
        "mean by the weighted error of the data, averaged over patches and updates (direct: "
        "by the data), beside J', the pseudo-inverse of J and (J' Pi J + Lambda)^-1 J', J the "
        "decoder's Jacobian."
    ),
    statistic=(
        "Angle between B and J' as vectors, degrees; resampled over latents. Beside it, not "
        "judged: the angles to the two other forms; the last was predicted to be the smallest."
    ),
    signal="updates of the latents of level 1",
    falsified_if="The interval of the angle to the transpose reaches 80 degrees.",
    units="degrees",
    missing=lacks_inference,
    observe=observe,
    variables=("own", *(f"{form} {what}" for form in FORMS for what in ("product", "size"))),
    combine=angle_to("transpose"),
    null=FALSIFIED,
    direction=-1,
    reference=Reference(
        value=PREDICTED,
        interval=(0.0, PREDICTED),
        status="remembered",
        source=(
            "60 degrees is the battery's own prediction, no measured angle. Feedback helps "
            "learning within 90 degrees of the transpose and drifts towards a pseudo-inverse "
            "(Lillicrap et al. 2016, Nat. Commun. 7:13276); weight mirrors are near it (Akrout et "
            "al. 2019)."
        ),
    ),
    controls=(
        Control(
            name="untrained",
            statement="A network, or feedback weights, from before training know no decoder.",
            transform=lambda model, seed: Untaught(original=inferring(model), seed=seed),
        ),
        Control(
            name="shuffled training",
            statement=(
                "A new network, taught on the finished model by the errors of other images, has "
                "met no error and image that belong together. What has no network to teach has "
                "its feedback weights from before training."
            ),
            transform=lambda model, seed: Mistaught(original=inferring(model), seed=seed),
        ),
    ),
    departures=(
        "The network of shuffled training learns on the finished model, from a third of the "
        "images; the tested one learned together with its model, which by itself brings an update "
        "nearer to the transpose.",
        "Columns whose inference is a gradient have the transpose by construction: an angle of 0 "
        "says nothing of learning there.",
        "Direct inference has no update: its derivative by the data stands for that by the error.",
        "The preconditioned form has no precision at its end, as the update sees errors that are "
        "weighted already.",
        "That the preconditioned form is nearest is measured and not judged; of the 60 degrees "
        "that the battery predicts only the verdict's reference interval is made.",
        "The bootstrap is over latents, and images are averaged before.",
    ),
    expectations={"RB": "+"},
    version=2,
    panel=panel,
)
