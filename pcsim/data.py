"""Data sets by name.

>>> load("mnist", split="test").sizes  # doctest: +SKIP
Frozen({'sample': 10000, 'y': 28, 'x': 28})
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import xarray as xr

from pcsim import data_sets
from pcsim.messages import check_choice, refusal

__all__ = ["load"]

Reader = Callable[[Path, str], xr.Dataset]

READERS: dict[str, tuple[Reader, str, tuple[str, ...]]] = {
    "mnist": (data_sets.mnist_npz, "mnist", ("train", "test")),
    "fashion_mnist": (data_sets.fashion_mnist_npz, "fashion_mnist", ("train", "test")),
    "newsgroups": (data_sets.newsgroups_npz, "text_bow", ("train", "test")),
    "bbc_news": (data_sets.bbc_news_npz, "text_bow", ("train", "valid", "test")),
}


def load(name: str, *, split: str = "train") -> xr.Dataset:
    """Return one split of a data set.

    Images are `image` (sample, y, x) uint8 with coordinate `label`; texts are `count` (document,
    word) uint16 with coordinates `label` and `word`.
    """
    check_choice("load", "data set", name, READERS)
    reader, folder, splits = READERS[name]
    check_choice(f"load {name}", "split", split, splits)
    root = os.environ.get("PCSIM_DATA")
    if root is None:
        found, expected = f"no files of {name}", "a folder of data sets"
        raise RuntimeError(refusal("load", found, expected, "Set PCSIM_DATA to it."))
    return reader(Path(root) / folder, split)
