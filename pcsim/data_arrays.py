"""Images of a data set as plain arrays for networks: rows of pixels, classes, one-hot targets."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pcsim.data import load
from pcsim.messages import refusal

__all__ = ["labelled_rows", "one_hot"]


def labelled_rows(
    name: str, *, split: str = "train", n: int | None = None
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Return images as rows of pixels from 0 to 1, and their classes.

    Parameters
    ----------
    name, split
        As in `pcsim.data.load`.
    n
        Take the first `n` only.

    Returns
    -------
    x : (n, pixel)
    label : (n,)

    Raises
    ------
    ValueError
        If the set has no classes, or fewer than `n` images.
    RuntimeError
        If the set is not here.
    """
    found = load(name, split=split)
    if "label" not in found or "image" not in found:
        raise ValueError(refusal("labelled_rows", f"'{name}'", "images with classes"))
    total = found.sizes["sample"]
    if n is not None and not 0 < n <= total:
        raise ValueError(refusal("labelled_rows", f"n {n}", f"1 to {total} for {name} {split}"))
    part = found.isel(sample=slice(n))
    image = part["image"].to_numpy()
    rows = image.reshape(len(image), -1).astype(np.float32) / np.float32(255)
    return rows, part["label"].to_numpy().astype(np.int64)


def one_hot(
    label: NDArray[np.int64], n: int, *, low: float = 0.0, high: float = 1.0
) -> NDArray[np.float32]:
    """Return (..., n) with `high` at the class and `low` elsewhere.

    Examples
    --------
    >>> one_hot(np.array([1, 0]), 2, low=0.25, high=0.75).tolist()
    [[0.25, 0.75], [0.75, 0.25]]
    """
    if label.size and not (label.min() >= 0 and label.max() < n):
        found = f"classes from {label.min()} to {label.max()}"
        raise ValueError(refusal("one_hot", found, f"0 to {n - 1}"))
    return np.where(np.arange(n) == label[..., None], high, low).astype(np.float32)
