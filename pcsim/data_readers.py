"""Turn the files of each data set into one labelled `xr.Dataset`, whichever files they are.

Images are `image` (sample, y, x) uint8, ink or light bright, colour images (sample, channel, y, x);
where there are classes, with coordinate `label` (sample). Texts are `count` (document, word) uint16
with coordinates `label` (document) and `word`.
"""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from pcsim.data_formats import (
    Array,
    counts_from_lines,
    counts_from_rows,
    damaged,
    read_cifar,
    read_idx,
    read_mat,
    read_npz,
    read_text_matrix,
)

__all__ = [
    "bbc_news_npz",
    "bbc_news_tsv",
    "cifar10_binary",
    "fashion_mnist_npz",
    "idx_pair",
    "mnist_npz",
    "mnist_static_amat",
    "mnist_static_mat",
    "newsgroups_lines",
    "newsgroups_npz",
    "omniglot_28",
    "omniglot_npz",
    "omniglot_zip",
]

ROWS = ("data", "indices", "indptr", "shape", "labels", "vocab")
DRAWERS = 20
OMNIGLOT = {"train": "background", "test": "evaluation"}
BBC = {"train": "train", "valid": "val", "test": "test"}
CIFAR = {
    "train": tuple(f"cifar-10-batches-bin/data_batch_{number}.bin" for number in range(1, 6)),
    "test": ("cifar-10-batches-bin/test_batch.bin",),
}


def images(where: str, image: Array, label: Array | None) -> xr.Dataset:
    """Return images and labels as a data set, refusing them where they do not fit together."""
    fits = label is None or label.shape == image.shape[:1]
    if image.dtype != np.uint8 or image.ndim not in (3, 4) or not fits:
        shape = None if label is None else label.shape
        found = f"images {image.dtype} {image.shape} with labels {shape}"
        raise damaged(where, found, "uint8 images and one label each")
    dims = ("sample", "y", "x") if image.ndim == 3 else ("sample", "channel", "y", "x")
    coords = {} if label is None else {"label": ("sample", label.astype(np.int64))}
    return xr.Dataset({"image": (dims, image)}, coords)


def texts(where: str, count: Array, label: Array, word: Array) -> xr.Dataset:
    """Return word counts as a data set, refusing them where they do not fit together."""
    if count.shape != (label.size, word.size):
        found = f"counts {count.shape} with {label.size} labels and {word.size} words"
        raise damaged(where, found, "a row a document and a column a word")
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


def idx_pair(folder: Path, split: str) -> xr.Dataset:
    """Read the images and labels of MNIST or Fashion-MNIST as published."""
    stem = {"train": "train", "test": "t10k"}[split]
    image = read_idx(folder / f"{stem}-images-idx3-ubyte.gz")
    return images(folder.name, image, read_idx(folder / f"{stem}-labels-idx1-ubyte.gz"))


def mnist_static_mat(folder: Path, split: str) -> xr.Dataset:
    """Read a part of the binarised digits from its MATLAB file."""
    return _binary(read_mat(folder / f"binarized_mnist_{split}.mat", "X"))


def mnist_static_amat(folder: Path, split: str) -> xr.Dataset:
    """Read a part of the binarised digits as downloaded: text, or MATLAB under the same name."""
    path = folder / f"binarized_mnist_{split}.amat"
    with path.open("rb") as file:
        is_matlab = file.read(6) == b"MATLAB"
    return _binary(read_mat(path, "X") if is_matlab else read_text_matrix(path, 28 * 28))


def _binary(rows: Array) -> xr.Dataset:
    shaped = rows.ndim == 2 and rows.shape[1] == 28 * 28 and rows.dtype == np.uint8
    if not shaped or not np.isin(rows, (0, 1)).all():
        found = f"an array {rows.dtype} {rows.shape}"
        raise damaged("mnist_static", found, "zeros and ones (sample, 784)")
    return images("mnist_static", rows.reshape(-1, 28, 28), None)


def omniglot_28(paper: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """Shrink drawings (n, 105, 105), True where there is paper, to (n, 28, 28) with bright ink.

    Each pixel becomes the mean ink of those, three or four each way, whose centres it covers.
    """
    from PIL import Image

    small = np.empty((len(paper), 28, 28), np.uint8)
    for index, drawing in enumerate(paper):
        ink = Image.fromarray(np.where(drawing, 0, 255).astype(np.uint8))
        small[index] = np.asarray(ink.resize((28, 28), Image.Resampling.BOX))
    return small


def omniglot(small: NDArray[np.uint8], label: Array, drawer: Array) -> xr.Dataset:
    """Label drawings with the character, counted within the split, and who drew it."""
    data = images("omniglot", small, label)
    return data.assign_coords(drawer=("sample", drawer.astype(np.int64)))


def omniglot_npz(folder: Path, split: str) -> xr.Dataset:
    """Read ``omniglot_28x28.npz``, (character, drawer, y, x)."""
    name = f"x_{OMNIGLOT[split]}"
    small = read_npz(folder / "omniglot_28x28.npz", (name,))[name]
    if small.dtype != np.uint8 or small.shape[1:] != (DRAWERS, 28, 28):
        found = f"{name} {small.dtype} {small.shape}"
        raise damaged("omniglot", found, "uint8 (character, 20, 28, 28)")
    order = np.arange(len(small) * DRAWERS)
    pixels = small.astype(np.uint8).reshape(-1, 28, 28)
    return omniglot(pixels, order // DRAWERS, order % DRAWERS)


def omniglot_zip(folder: Path, split: str) -> xr.Dataset:
    """Read the drawings as published, ``.../NUMBER_DRAWER.png``, and shrink them."""
    from PIL import Image, UnidentifiedImageError

    path = folder / f"images_{OMNIGLOT[split]}.zip"
    drawings: dict[tuple[int, int], NDArray[np.bool_]] = {}
    try:
        with zipfile.ZipFile(path) as archive:
            for name in archive.namelist():
                number, _, drawer = Path(name).stem.partition("_")
                if name.endswith(".png") and not Path(name).name.startswith("."):
                    with Image.open(io.BytesIO(archive.read(name))) as drawing:
                        drawings[int(number), int(drawer)] = np.asarray(drawing, dtype=bool)
    except (zipfile.BadZipFile, EOFError, UnidentifiedImageError, ValueError) as error:
        raise damaged(f"read {path.name}", f"a damaged file ({error})", "drawings") from None
    numbers = sorted({number for number, _ in drawings})
    keys = [(number, drawer) for number in numbers for drawer in range(1, DRAWERS + 1)]
    if set(keys) != set(drawings) or {d.shape for d in drawings.values()} != {(105, 105)}:
        expected = "20 drawings of 105 x 105 for each character"
        raise damaged(f"read {path.name}", f"{len(drawings)} other drawings", expected)
    small = omniglot_28(np.stack([drawings[key] for key in keys]))
    order = np.arange(len(keys))
    return omniglot(small, order // DRAWERS, order % DRAWERS)


def cifar10_binary(folder: Path, split: str) -> xr.Dataset:
    """Read ``cifar-10-binary.tar.gz``."""
    data = images("cifar10", *read_cifar(folder / "cifar-10-binary.tar.gz", CIFAR[split]))
    return data.assign_coords(channel=["red", "green", "blue"])


def newsgroups_npz(folder: Path, split: str) -> xr.Dataset:
    """Read ``20news_test_bow.npz``."""
    parts = read_npz(folder / f"20news_{split}_bow.npz", ROWS)
    count = counts_from_rows("newsgroups", parts)
    return texts("newsgroups", count, parts["labels"].astype(np.int64), parts["vocab"])


def newsgroups_lines(folder: Path, split: str) -> xr.Dataset:
    """Read ``train.feat`` or ``test.feat`` with ``vocab.new``."""
    word = [line.split()[0] for line in _lines(folder / "vocab.new") if line.split()]
    lines = _lines(folder / f"{split}.feat")
    count, label = counts_from_lines(f"read {split}.feat", lines, len(word))
    return texts("newsgroups", count, label, np.array(word))


def bbc_news_npz(folder: Path, split: str) -> xr.Dataset:
    """Read the documents of one split of ``bbc_news_bow.npz``; words in alphabetical order."""
    parts = read_npz(folder / "bbc_news_bow.npz", (*ROWS, "split"))
    count = counts_from_rows("bbc_news", parts)
    if parts["split"].shape != parts["labels"].shape or parts["vocab"].size != count.shape[1]:
        raise damaged("bbc_news", "parts of other sizes", "a split and a label a document")
    chosen, order = parts["split"] == BBC[split], np.argsort(parts["vocab"])
    return texts(
        "bbc_news", count[chosen][:, order], parts["labels"][chosen], parts["vocab"][order]
    )


def bbc_news_tsv(folder: Path, split: str) -> xr.Dataset:
    """Read ``corpus.tsv``: words, split and label of a document a line."""
    rows = [line.split("\t") for line in _lines(folder / "corpus.tsv")]
    known = set(BBC.values())
    if not rows or any(len(row) != 3 or row[1] not in known for row in rows):
        found = "lines of another form"
        raise damaged("read corpus.tsv", found, "words, split and label with tabs between")
    vocabulary = sorted({word for row in rows for word in row[0].split()})
    column = {word: index for index, word in enumerate(vocabulary)}
    chosen = [row for row in rows if row[1] == BBC[split]]
    count = np.zeros((len(chosen), len(vocabulary)), np.uint16)
    for counts, row in zip(count, chosen, strict=True):
        np.add.at(counts, [column[word] for word in row[0].split()], 1)
    return texts("bbc_news", count, np.array([row[2] for row in chosen]), np.array(vocabulary))


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise damaged(f"read {path.name}", f"a damaged file ({error})", "text") from None
