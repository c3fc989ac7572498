"""The data sets, each turned from its files into one labelled `xr.Dataset`.

Images are `image` (sample, y, x) uint8, ink or light bright, with coordinate `label`; colour images
(sample, channel, y, x). Texts are `count` (document, word) uint16 with coordinates `label` and
`word`.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import xarray as xr

from pcsim.data_formats import Array, counts_from_rows, read_npz
from pcsim.messages import refusal

__all__ = ["bbc_news_npz", "fashion_mnist_npz", "mnist_npz", "newsgroups_npz"]

CLOTHES = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)


def images(where: str, image: Array, label: Array) -> xr.Dataset:
    """Return images and labels as a data set, refusing them where they do not fit together."""
    if image.dtype != np.uint8 or image.ndim not in (3, 4) or label.shape != image.shape[:1]:
        found = f"images {image.dtype} {image.shape} with labels {label.shape}"
        expected = "uint8 images and one label each"
        raise ValueError(refusal(where, found, expected, "Delete the files and fetch them again."))
    dims = ("sample", "y", "x") if image.ndim == 3 else ("sample", "channel", "y", "x")
    return xr.Dataset({"image": (dims, image)}, {"label": ("sample", label.astype(np.int64))})


def texts(where: str, count: Array, label: Array, word: Array) -> xr.Dataset:
    """Return word counts as a data set, refusing them where they do not fit together."""
    if count.shape != (label.size, word.size):
        found = f"counts {count.shape} with {label.size} labels and {word.size} words"
        expected = "a row a document and a column a word"
        raise ValueError(refusal(where, found, expected, "Delete the files and fetch them again."))
    coords = {"label": ("document", label), "word": ("word", word.astype(str))}
    return xr.Dataset({"count": (("document", "word"), count)}, coords)


def mnist_npz(folder: Path, split: str) -> xr.Dataset:
    """Read ``mnist.npz``."""
    names = (f"x_{split}", f"y_{split}")
    parts = read_npz(folder / "mnist.npz", names)
    return images("mnist", *(parts[name] for name in names))


def fashion_mnist_npz(folder: Path, split: str) -> xr.Dataset:
    """Read ``fashion_mnist_test.npz``, or the two halves of the training images."""
    halves = ("train_1of2", "train_2of2") if split == "train" else (split,)
    parts = [read_npz(folder / f"fashion_mnist_{half}.npz", ("x", "y")) for half in halves]
    return images("fashion_mnist", *(np.concatenate([p[name] for p in parts]) for name in "xy"))


ROWS = ("data", "indices", "indptr", "shape", "labels", "vocab")


def newsgroups_npz(folder: Path, split: str) -> xr.Dataset:
    """Read ``20news_test_bow.npz``."""
    parts = read_npz(folder / f"20news_{split}_bow.npz", ROWS)
    count = counts_from_rows("newsgroups", parts)
    return texts("newsgroups", count, parts["labels"].astype(np.int64), parts["vocab"])


def bbc_news_npz(folder: Path, split: str) -> xr.Dataset:
    """Read the documents of one split of ``bbc_news_bow.npz``."""
    parts = read_npz(folder / "bbc_news_bow.npz", (*ROWS, "split"))
    count = counts_from_rows("bbc_news", parts)
    if parts["split"].shape != parts["labels"].shape:
        raise ValueError(refusal("bbc_news", "splits unlike labels", "one of each a document"))
    chosen = parts["split"] == {"valid": "val"}.get(split, split)
    return texts("bbc_news", count[chosen], parts["labels"][chosen], parts["vocab"])
