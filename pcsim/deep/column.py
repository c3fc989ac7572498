"""What deep columns of the battery share: their networks, and weights as arrays."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
import xarray as xr
from numpy.typing import NDArray
from torch import nn

from pcsim.deep.encodings import ErrorEncoding
from pcsim.deep.inference_direct import Direct
from pcsim.deep.inference_iterative import Iterative
from pcsim.deep.latent_gaussian import LatentGaussian
from pcsim.deep.networks import FullyConnected
from pcsim.deep.outputs import Gaussian
from pcsim.deep.training_step import generator_for
from pcsim.messages import refusal

__all__ = ["arrays", "held", "natural_pair", "scaled_feedback", "with_arrays"]


def natural_pair(
    n_x: int,
    n_z: tuple[int, int],
    widths: Sequence[Sequence[int]],
    *,
    inference: str = "iterative",
    update: str = "gated",
    segregated: bool = False,
    n_iterations: int = 8,
    seed: int = 0,
) -> tuple[LatentGaussian, Iterative | Direct]:
    """Return a model of two levels, the lower decoded linearly, and an inference of it.

    The model of a seed is the same whatever infers it.

    Parameters
    ----------
    widths
        Hidden units of the inference networks, level 1 first; the last list's first number is also
        that of the decoder of level 2.
    inference
        "iterative", from errors alone, or "direct".
    update, segregated
        Of an iterative one; see `Iterative`.
    """
    generator = generator_for("cpu", seed, 10)
    decoders = [
        FullyConnected(n_z[0]),
        FullyConnected(n_z[1], widths[-1][:1], generator=generator),
    ]
    model = LatentGaussian(n_x, n_z, Gaussian("global"), decoders=decoders, generator=generator)
    network: dict[str, Any] = {"widths": widths, "generator": generator_for("cpu", seed, 11)}
    if inference == "direct":
        return model, Direct(model, **network)
    return model, Iterative(
        model, encoding=ErrorEncoding(with_x=False), update=update, segregated=segregated,
        n_iterations=n_iterations, **network,
    )  # fmt: skip


def arrays(modules: Mapping[str, nn.Module]) -> dict[str, NDArray[Any]]:
    """Return copies of all weights, "<module>.<name>" -> array.

    Examples
    --------
    >>> {name: one.shape for name, one in arrays({"map": nn.Linear(3, 2)}).items()}
    {'map.weight': (2, 3), 'map.bias': (2,)}
    """
    return {
        f"{part}.{name}": np.array(one.detach().cpu().numpy())
        for part, module in modules.items()
        for name, one in module.state_dict().items()
    }


def with_arrays(
    modules: Mapping[str, nn.Module], weights: Mapping[str, NDArray[Any]] | None
) -> None:
    """Put weights into modules, in place; None leaves them as they are.

    Raises
    ------
    ValueError
        If names or shapes are not those of the modules.
    """
    if weights is None:
        return
    for part, module in modules.items():
        prefix = f"{part}."
        own = {
            name.removeprefix(prefix): torch.as_tensor(np.array(one))
            for name, one in weights.items()
            if name.startswith(prefix)
        }
        try:
            module.load_state_dict(own)
        except RuntimeError as error:
            found = f"weights that do not fit the {part} ({str(error).splitlines()[-1].strip()})"
            advice = "Take those of the same settings, or train again."
            raise ValueError(refusal("with_arrays", found, "its own", advice)) from None


def scaled_feedback(model: LatentGaussian, gain: float) -> None:
    """Scale what level 2 predicts as the mean of level 1, in place; its precision stays."""
    head = model.heads[1]
    assert isinstance(head, nn.Linear)
    n = model.n_z[0]
    with torch.no_grad():
        head.weight[:n] *= gain
        head.bias[:n] *= gain


def held(
    responses: xr.Dataset,
    stimulus: xr.DataArray,
    *,
    iteration: float,
    every: float | None = None,
) -> xr.Dataset:
    """Return a deep model's responses in real time: each iteration lasts, the last one stays.

    Parameters
    ----------
    responses
        Of `DeepModel`: the same number of iterations for each frame.
    iteration
        Seconds of an iteration; shorter where a frame has not the time for one.
    every
        Seconds between the times that are returned; None returns the end of each iteration and of
        each frame.
    """
    onset = np.asarray(stimulus.coords["time"].values, float)
    duration = float(stimulus.coords["frame_duration"])
    n = responses.sizes["time"] // len(onset)
    step = min(iteration, duration / n)
    if every is None:
        ends = step * np.arange(1, n + 1)
        ends = ends if np.isclose(ends[-1], duration) else np.append(ends, duration)
        times = (onset[:, None] + ends).ravel()
    else:
        times = every * np.arange(1, round(len(onset) * duration / every) + 1)
    # A time belongs to the frame that is shown before it, to within rounding.
    frame = np.clip(np.ceil(times / duration - 1e-6).astype(int) - 1, 0, len(onset) - 1)
    place = np.ceil((times - onset[frame]) / step - 1e-6).astype(int)
    index = frame * n + np.clip(place, 1, n) - 1
    return responses.isel(time=index).assign_coords(time=times)
