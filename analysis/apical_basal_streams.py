"""H36: errors from below and from the own level can be kept apart in learned inference."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
from pcsim.model import Model
from pcsim.protocols import by_scale, films, inferring, lacks_inference

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["HYPOTHESIS"]

N_CROSSED = {"quick": 24, "full": 64}
N_IMAGES = {"quick": 400, "full": 2000}
N_SAMPLES = 5
"""Of the posterior for each free energy."""
SEPARATE = 0.1
"""Share of interaction in the variance of the update below which streams count as apart."""
COST = 2.0
"""Per cent of the bound that separation may cost."""
PARTS = {"below": "from below", "own": "own level", "interaction": "interaction"}
SHOWN = ("VAE-apical", "VAE-additive", "VAE-iter")


def lacks_streams(model: Any) -> str:
    """Return why a model has no learned update of errors of two kinds, "" if it has."""
    if reason := lacks_inference(model):
        return reason
    inference = inferring(model).deep().inference
    return "" if hasattr(inference, "encoding") else "no network of it updates on errors"


def observe(model: Model, *, seed: int, scale: str) -> xr.Dataset:
    """Cross errors from below with all of the own level; take the bound of other patches."""
    from pcsim.deep.arms import examples
    from pcsim.deep.inference import infer
    from pcsim.deep.training_step import generator_for

    own = inferring(model)
    deep = own.deep()
    shown = films(own, n=N_IMAGES[scale], n_frames=1, seed=seed + 40_000)[0]
    x = examples(shown).to(next(deep.model.parameters()))
    sums = crossed(deep, x[: N_CROSSED[scale]], seed=seed)
    found = infer(
        deep.inference, deep.model, x, n_samples=N_SAMPLES,
        generator=generator_for("cpu", seed, 42),
    )  # fmt: skip
    return evidence(sums, float(found.trace[-1].mean()))


def crossed(deep: Any, x: Any, *, seed: int) -> Any:
    """Return sums of squares of level 1's updates, (3, latent), over all updates but the first."""
    from pcsim.deep.inference import Evaluation
    from pcsim.deep.streams import crossed_updates, sums_of_squares
    from pcsim.deep.training_step import generator_for

    evaluation = Evaluation(generator=generator_for("cpu", seed, 41))
    # At the prior all examples share one estimate and one own error: nothing to cross.
    steps = list(deep.inference.steps(deep.model, x, evaluation))[1:-1]
    tables = [crossed_updates(deep.inference, deep.model, x, one, evaluation) for one in steps]
    return np.sum([sums_of_squares(table.numpy()) for table in tables], axis=0)


def evidence(sums: Any, free_energy: float) -> xr.Dataset:
    """Return each latent's sums of squares, and the free energy at the end of inference."""
    variables: dict[str, Any] = {name: ("unit", one) for name, one in zip(PARTS, sums, strict=True)}
    variables["free_energy"] = ("unit", np.full(sums.shape[1], free_energy))
    # Of a density's bound that is not above 0 nats nothing can be a share.
    variables["included"] = ("unit", (sums.sum(axis=0) > 0) & (free_energy > 0))
    return xr.Dataset(variables)


def interaction(means: Means) -> Any:
    """Return the share of interaction in the variance of the update."""
    return means["interaction"] / np.maximum(sum(means[name] for name in PARTS), 1e-300)


def logarithm(means: Means) -> Any:
    """Return 100 times the logarithm of the free energy: differences are per cent."""
    return 100.0 * np.log(np.maximum(means["free_energy"], 1e-9))


def panel(shown: Mapping[str, Sequence[xr.Dataset]], ax: Axes) -> None:
    """Draw the shares of variance of each column's update, and what it loses of the bound."""
    from pcsim.plots_style import OKABE_ITO

    labels = [label for label in SHOWN if shown.get(label)]
    shades = ("sky", "blue", "vermillion")
    for place, label in enumerate(labels):
        sums = np.array([[float(one[name].sum()) for name in PARTS] for one in shown[label]])
        shares = sums / sums.sum(axis=1, keepdims=True)
        start = 0.0
        for text, shade, value in zip(PARTS.values(), shades, shares.mean(axis=0), strict=True):
            ax.bar(
                place, value, 0.6, bottom=start, color=OKABE_ITO[shade],
                label=text if place == 0 else None,
            )  # fmt: skip
            start += value
        energy = np.mean([float(one["free_energy"].mean()) for one in shown[label]])
        ax.annotate(f"{energy:.1f} nats", (place, 1.02), ha="center", fontsize=6)
    ax.axhline(1 - SEPARATE, color="black", linewidth=0.6, linestyle=":")
    ax.set_xticks(range(len(labels)), labels)
    ax.set_ylim(0.0, 1.12)
    ax.set_yticks([0.0, 0.5, 1.0])
    ax.set_ylabel("Share of the variance of updates")
    ax.legend(loc="lower left", bbox_to_anchor=(0.0, 1.0), ncols=3)


HYPOTHESIS = Hypothesis(
    id="H36",
    version=3,
    name="Apical and basal errors can be kept apart",
    claim=(
        "Learned inference can keep the errors from below and those of its own level in separate "
        "streams, as basal and apical dendrites might, which meet in a sum, at no cost "
        "(Marino's thesis, fig. 8.6; Guerguiev, Lillicrap & Richards 2017, eLife 6:e22901)."
    ),
    family="learning",
    protocol=(
        "Natural patches. At each iteration but the first the error from below of each of "
        f"{by_scale(N_CROSSED, 'patches')} meets estimate and own error of each other, and the "
        "network is asked for its update of level 1's mean. Bound of "
        f"{by_scale(N_IMAGES, 'patches')} at the end of inference."
    ),
    statistic=(
        "Share of interaction in the variance of the update (two-way analysis of variance, "
        "resampled over latents). Cost: by how many per cent the free energy, "
        "in units of the pixels' standard deviation, is above that with an unconstrained network."
    ),
    signal="updates of the latents of level 1",
    falsified_if=(
        "A tenth or more of the variance is interaction.",
        "The bound is more than 2 % worse than with the unconstrained network.",
    ),
    units="share",
    missing=lacks_streams,
    observe=observe,
    variables=(*PARTS, "free_energy"),
    combine=interaction,
    null=SEPARATE,
    direction=-1,
    reference=Reference(
        status="remembered",
        source=(
            "Both limits are the battery's own. Segregated dendrites: Guerguiev et al. 2017; "
            "errors in both compartments: Gillon et al. 2024, J. Neurosci."
        ),
    ),
    requirements=(
        Requirement(
            name="cost",
            statement="Separation costs less than 2 % of the bound.",
            combine=logarithm,
            null=float(100.0 * np.log(1.0 + COST / 100.0)),
            direction=-1,
            against="unconstrained",
        ),
    ),
    controls=(
        Control(
            name="unconstrained",
            statement="One network of as many units sees both errors at once.",
            variant="VAE-additive",
        ),
    ),
    departures=(
        "The battery measures the share of interaction and sets no limit to it: a tenth is ours.",
        "The battery asks what is lost when streams are mixed; here networks that keep them apart "
        "are compared with others that mix them, each trained by itself.",
        "The unconstrained network has as many hidden units and so about twice the weights.",
        "A per cent of a density's bound depends on the unit of the data, here the standard "
        "deviation of pixels; models whose bound is not above 0 nats are left out.",
        "Updates of the mean of level 1 alone; the first, from the prior, is left out, as all "
        "images share it.",
        "No network has dendrites: streams are apart until they meet in a sum.",
    ),
    expectations={"VAE-apical": "?", "VAE-additive": "-"},
    panel=panel,
)
