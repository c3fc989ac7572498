"""What a model is: anything that turns a stimulus into responses; a learner can also be fitted."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, Protocol, TypeVar, runtime_checkable

import xarray as xr

__all__ = ["Learner", "Model", "lesion"]

T = TypeVar("T")


@runtime_checkable
class Model(Protocol):
    """A model of neural tissue: a rate circuit, its deep twin or a recording's stand-in."""

    @property
    def field_shape(self) -> tuple[int, int] | None:
        """(rows, columns) of the images it sees, pixels; None if it takes features, not images."""

    @property
    def px_per_deg(self) -> float | None:
        """Pixels per degree of visual angle; None if it takes features."""

    def run(
        self, stimulus: xr.DataArray, *, seed: int = 0, record: Sequence[str] | None = None
    ) -> xr.Dataset:
        """Return the responses to `stimulus`; of the populations named in `record`, or of all."""


@runtime_checkable
class Learner(Model, Protocol):
    """A model that learns. Fitting returns a new model and leaves the old one as it was.

    Trained by `pcsim.roster`, a learner also has `curriculum` ("patches" or "sequences"),
    `n_training` (scale -> number of training trials) and ``untrained(*, seed)``.
    """

    def fit(self, stimulus: xr.DataArray, *, seed: int = 0) -> Any:
        """Return a model of the same kind with parameters learned from `stimulus`."""


def lesion(model: T, **fields: Any) -> T:
    """Return `model` with those of `fields` changed that it has; itself if it has none.

    A lesion that a model cannot suffer leaves it whole: a control without feedback has none to cut.

    Examples
    --------
    >>> from dataclasses import dataclass
    >>> @dataclass(frozen=True)
    ... class Toy:
    ...     feedback_gain: float = 4.0
    >>> lesion(Toy(), feedback_gain=0.0, pool_gain=0.7)
    Toy(feedback_gain=0.0)
    """
    if not dataclasses.is_dataclass(model) or isinstance(model, type):
        return model
    own = {field.name for field in dataclasses.fields(model) if field.init}
    changed = {name: value for name, value in fields.items() if name in own}
    return dataclasses.replace(model, **changed) if changed else model
