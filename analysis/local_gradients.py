"""H39: local changes of weights point where backpropagation points."""

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

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["HYPOTHESIS"]

N_BATCHES = {"quick": 24, "full": 100}
BATCH = 32
STEPS = (0, 1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128)
"""Of inference at which the panel looks, up to the model's own number."""
LAYERS = (1, 2, 3)
"""From the input on; the last one's change needs no error from elsewhere."""
EQUAL = 0.9
"""Cosine below which a direction is another one: 26 degrees."""


def lacks_local_learning(model: Any) -> str:
    """Return why a model's changes of weights cannot be compared, "" if they can."""
    if getattr(learner(model), "network", None) is not None:
        return ""
    return "it learns no map from an input to an output that backpropagation could learn as well"


def learner(model: Any) -> Any:
    """Return the model, or what it was made of."""
    return getattr(model, "original", model)


def observe(model: Model, *, seed: int, scale: str) -> xr.Dataset:
    """Compare the changes of each layer with backpropagation's during inference, for batches."""
    own, n = learner(model), N_BATCHES[scale]
    surround, centre = own.prepare(own.examples(n * BATCH, seed=seed + 40_000))
    x, y = (one.reshape(n, BATCH, one.shape[-1]) for one in (surround, centre))
    method = own.settling()
    steps = [*(one for one in STEPS if one < method.n_steps), method.n_steps]
    found = own.network().directions(x, y, steps=steps, step=method.step)
    return evidence(found.local, steps)


def evidence(cosines: Any, steps: Sequence[int]) -> xr.Dataset:
    """Return the last cosines (step, batch, layer) as variables, and all of them as curves."""
    last = cosines[-1]
    variables: dict[str, Any] = {
        f"layer {layer}": ("unit", last[:, place]) for place, layer in enumerate(LAYERS)
    }
    variables["included"] = ("unit", np.isfinite(last).all(axis=1))
    variables["cosine"] = (("step", "unit", "layer"), cosines)
    return xr.Dataset(variables, coords={"step": list(steps), "layer": list(LAYERS)})


def hidden(means: Means) -> Any:
    """Return the mean cosine of the layers below the output."""
    return np.mean([means[f"layer {layer}"] for layer in LAYERS[:-1]], axis=0)


def worst(means: Means) -> Any:
    """Return the cosine of the layer that has the lowest."""
    return np.min([means[f"layer {layer}"] for layer in LAYERS], axis=0)


def panel(shown: Mapping[str, Sequence[xr.Dataset]], ax: Axes) -> None:
    """Draw cosines against steps of inference, a line a layer, of the network and its control."""
    from pcsim.plots_style import COLOURS, DASHES

    for label, meaning in (("PCN", "error"), ("PCN-weak", "latent"), ("PCN-random", "data")):
        replicas = [one["cosine"].mean("unit", skipna=False) for one in shown.get(label, ())]
        if not replicas:
            continue
        mean = xr.concat(replicas, "replica").mean("replica", skipna=False)
        for layer, dashes in zip(LAYERS, DASHES, strict=False):
            ax.plot(
                mean["step"], mean.sel(layer=layer), color=COLOURS[meaning], linestyle=dashes,
                label=label if layer == LAYERS[0] else None,
            )  # fmt: skip
    for layer, dashes in zip(LAYERS, DASHES, strict=False):
        ax.plot([], [], color="0.5", linestyle=dashes, label=f"layer {layer}")
    ax.axhline(EQUAL, color="0.6", linewidth=0.6, linestyle=":")
    ax.axhline(0.0, color="black", linewidth=0.4)
    ax.set_xscale("symlog", linthresh=1)
    ax.set_xticks([0, 1, 4, 16, 64], ["0", "1", "4", "16", "64"])
    ax.set_xticks([], minor=True)
    ax.set_xlim(0, 70)
    ax.set_ylim(-0.3, 1.05)
    ax.set_xlabel("Steps of inference")
    ax.set_ylabel("Cosine with backpropagation")
    ax.legend(loc="lower left", bbox_to_anchor=(0.0, 1.0), ncols=2)


HYPOTHESIS = Hypothesis(
    id="H39",
    name="Local learning goes where backpropagation goes",
    claim=(
        "At the end of inference the local changes of a predictive-coding network, error times "
        "rate before the synapse, point along the gradient of backpropagation in every layer "
        "(Whittington & Bogacz 2017, Neural Comput. 29:1229). Of algorithms, not of a recording."
    ),
    family="learning",
    protocol=(
        f"{N_BATCHES['quick']} (full: {N_BATCHES['full']}) batches of {BATCH} natural "
        "patches that were not learned from. Input and output held; at "
        "steps 0, 1, 2 ... of inference the change that each layer would make, beside the slope "
        "of the squared error by its weights at the feedforward activities."
    ),
    statistic=(
        "Cosine of the two changes of a layer at the end of inference, mean over batches and over "
        "the layers below the output; the output's own is nearly right by any rule."
    ),
    signal="changes of the weights of each layer",
    falsified_if=(
        "The cosine below the output is not above 0.",
        "Some layer's cosine is below 0.9 (26 degrees).",
    ),
    units="cosine",
    missing=lacks_local_learning,
    observe=observe,
    variables=tuple(f"layer {layer}" for layer in LAYERS),
    combine=hidden,
    null=0.0,
    direction=1,
    reference=Reference(
        value=1.0,
        interval=(EQUAL, 1.0),
        status="remembered",
        source=(
            "Whittington & Bogacz 2017: 'for certain parameters' changes converge to those of "
            "backpropagation (abstract); 0.9 is the battery's own."
        ),
    ),
    requirements=(
        Requirement(
            name="every layer",
            statement="The lowest cosine of any layer is above 0.9.",
            combine=worst,
            null=EQUAL,
        ),
    ),
    controls=(
        Control(
            name="random feedback",
            statement="Errors that come down through fixed random matrices carry no gradient.",
            variant="PCN-random",
        ),
    ),
    departures=(
        "Photographs and a map from surround to centre, where the source has digits.",
        "Batches are the units; the battery names no protocol, and cosines by step are drawn, not "
        "judged.",
    ),
    remembered=("0.9 as the cosine from which a direction is the same.",),
    expectations={"PCN": "+", "PCN-weak": "+", "PCN-random": "-"},
    panel=panel,
)
