"""Models whose inference goes by iterations on torch, and the same with a network that is not
trained, or trained on the errors of others."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from pcsim.catalog import load
from pcsim.protocols.signals import visual_field
from pcsim.stimuli import natural_patches

if TYPE_CHECKING:
    from pcsim.deep.battery import DeepModel

__all__ = ["Mistaught", "Untaught", "films", "inferring", "lacks_inference"]

TWIN = "rao_ballard_1999_deep"
SHARE_MISLED = 3
"""One in so many of the images that a model learned from: a misled network has little to learn."""


@dataclass(frozen=True, kw_only=True)
class Untaught:
    """A model with an inference network as it was before training; all else stays."""

    original: Any
    seed: int

    @property
    def field_shape(self) -> tuple[int, int] | None:
        """Rows and columns of the images it sees."""
        shape: tuple[int, int] | None = self.original.field_shape
        return shape

    @property
    def px_per_deg(self) -> float | None:
        """Pixels per degree of visual angle."""
        scale: float | None = self.original.px_per_deg
        return scale

    def run(self, stimulus: xr.DataArray, **settings: Any) -> xr.Dataset:
        """Return the responses of the model it is made of."""
        responses: xr.Dataset = self.original.run(stimulus, **settings)
        return responses

    def prepare(self, stimulus: xr.DataArray) -> NDArray[Any]:
        """Return the features that the model infers from."""
        features: NDArray[Any] = self.original.prepare(stimulus)
        return features

    @property
    def fresh(self) -> Any:
        """The whole model before training, of no replica's seed: what starts alike may end so."""
        return self.original.untrained(seed=self.seed + 1000)

    def deep(self) -> DeepModel:
        """Return the trained model under the untrained inference."""
        deep: DeepModel = replace(self.original.deep(), inference=self.fresh.deep().inference)
        return deep


@dataclass(frozen=True, kw_only=True)
class Mistaught(Untaught):
    """A model with a new inference network, taught on it as it is by the errors of other images.

    What has no network to teach has that from before training, as in `Untaught`.
    """

    def taught(self, scale: str) -> DeepModel:
        """Return the trained model under the misled network, which saw a third of the images."""
        learn = getattr(self.original, "misled", None)
        if learn is None:
            return self.deep()
        seed, own = self.seed + 1000, self.original
        n = own.n_training[scale] // SHARE_MISLED
        shown = natural_patches(own.field_shape, n=n, px_per_deg=own.px_per_deg, seed=seed)
        deep: DeepModel = replace(own.deep(), inference=learn(shown, seed=seed))
        return deep


def inferring(model: Any) -> Any:
    """Return what answers `prepare` and `deep` for a model, or None if nothing does.

    The twin stands for `rao_ballard_1999`: its gradient is the circuit's, by a test. A model that
    was made of another, and has no inference of its own, has an untrained one.
    """
    if getattr(model, "deep", None) is not None:
        return model
    if getattr(model, "original", None) is not None:
        own = inferring(model.original)
        return None if own is None else Untaught(original=own, seed=getattr(model, "seed", 0))
    twin = load("circuits", TWIN)
    return replace(twin, circuit=model) if isinstance(model, type(twin.circuit)) else None


def lacks_inference(model: Any) -> str:
    """Return why a model's inference cannot be followed iteration by iteration, "" if it can."""
    return "" if inferring(model) is not None else "it has no inference by iterations on torch"


def films(model: Any, *, n: int, n_frames: int = 2, seed: int) -> NDArray[np.float64]:
    """Return films of natural patches that drift by a pixel a frame, as a model's features.

    Returns
    -------
    (n_frames, n, feature)
    """
    own = inferring(model)
    (rows, columns), px_per_deg = visual_field(model)
    wide = (rows, columns + n_frames - 1)
    shown = natural_patches(wide, n=n, px_per_deg=px_per_deg, seed=seed)
    frames = [shown.isel(x=slice(t, t + columns)) for t in range(n_frames)]
    return np.stack([own.prepare(one)[:, 0] for one in frames])
