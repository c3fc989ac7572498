"""Data sets by name: from a local folder, from the cache, or downloaded when asked for.

A set is looked for in the folder that the environment variable ``PCSIM_DATA`` names, then in the
cache (``PCSIM_CACHE``, else ``pcsim`` in the user's cache folder). Nothing is downloaded unless
`fetch`, ``load(..., download=True)`` or ``pcsim data fetch NAME`` asks for it.

>>> from pcsim import data
>>> train = data.load("mnist")  # doctest: +SKIP
>>> train["image"].shape, train["label"].shape  # doctest: +SKIP
((60000, 28, 28), (60000,))
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike, NDArray

from pcsim.data_registry import DATA_SETS, DataSet, Layout
from pcsim.messages import check_choice, check_integer, refusal
from pcsim.storage import cache_folder

__all__ = ["available", "binarized", "describe", "divided", "fetch", "load", "record", "where"]


def available() -> tuple[str, ...]:
    """Return the names of all data sets.

    Examples
    --------
    >>> available()
    ('mnist', 'mnist_static', 'fashion_mnist', 'omniglot', 'cifar10', 'newsgroups', 'bbc_news')
    """
    return tuple(DATA_SETS)


def record(name: str) -> DataSet:
    """Return what is known of a data set: contents, sizes, licence, citation, sources.

    Examples
    --------
    >>> record("mnist").splits
    ('train', 'test')
    >>> record("mnits")
    Traceback (most recent call last):
    ValueError: data: found data set 'mnits', expected one of 'bbc_news', 'cifar10', ...
    """
    return DATA_SETS[check_choice("data", "data set", name, DATA_SETS)]


def load(name: str, *, split: str = "train", download: bool = False) -> xr.Dataset:
    """Return one split of a data set.

    Parameters
    ----------
    name
        One of `available`.
    split
        "train", "test", and for some "valid"; see ``record(name).splits``.
    download
        Whether to fetch the set if it is not here.

    Returns
    -------
    data
        Images: `image` (sample, y, x), CIFAR-10 (sample, channel, y, x), uint8 from 0 to 255,
        bright on black; `label` (sample), which `mnist_static` (zeros and ones) does not have.
        Texts: `count` (document, word) uint16, `label` (document), `word` (word).

    Raises
    ------
    ValueError
        If the name or split is unknown, or a file is truncated or corrupt.
    RuntimeError
        If the set is not here, or cannot be downloaded.
    """
    one = record(name)
    check_choice(f"load {name}", "split", split, one.splits)
    found = _found(one, split)
    if found is None and download:
        fetch(name)
        found = _found(one, split)
    if found is None:
        raise RuntimeError(_missing(one, split))
    layout, folder = found
    data = layout.read(folder, split)
    expected = one.sizes[split]
    size = next(iter(data.sizes.values()))
    if expected is not None and size != expected:
        found_ = f"{size} {next(iter(data.sizes))}s in {folder}"
        advice = "Delete the files and fetch them again."
        raise ValueError(refusal(f"load {name} {split}", found_, str(expected), advice))
    return data


def _missing(one: DataSet, split: str) -> str:
    places = " or ".join(map(str, dict.fromkeys(place for _, place in _places(one))))
    here = [other for other, place in where(one.name).items() if place is not None]
    advice = (
        f"Run 'pcsim data fetch {one.name}', or set PCSIM_DATA to a folder that holds it "
        "(docs/data.md)." + (f" Only {' and '.join(here)} is here." if here else "")
    )
    return refusal(f"load {one.name} {split}", "no files", f"them in {places}", advice)


def fetch(name: str, *, folder: str | os.PathLike[str] | None = None) -> Path:
    """Download the files of a data set that are not there yet; return the folder that holds them.

    Parameters
    ----------
    name
        One of `available`.
    folder
        Where to put the folder of the set, to take it to a machine without a network as its
        PCSIM_DATA. The cache if not given.

    Raises
    ------
    RuntimeError
        If a file cannot be had.
    ValueError
        If its checksum is not the known one.
    """
    from pcsim.data_download import download

    one = record(name)
    place = (Path(folder) if folder is not None else _cache()) / one.published.folder
    for remote in one.remotes:
        download(remote, place)
    return place


def where(name: str) -> dict[str, Path | None]:
    """Return the folder from which each split of a data set would be read, None if it is not here.

    Examples
    --------
    >>> sorted(where("bbc_news"))
    ['test', 'train', 'valid']
    """
    one = record(name)
    found = {split: _found(one, split) for split in one.splits}
    return {split: pair[1] if pair else None for split, pair in found.items()}


def _found(one: DataSet, split: str) -> tuple[Layout, Path] | None:
    for layout, place in _places(one):
        files = layout.files.get(split)
        if files and all((place / name).is_file() for name in files):
            return layout, place
    return None


def _places(one: DataSet) -> Iterator[tuple[Layout, Path]]:
    local = os.environ.get("PCSIM_DATA")
    if local:
        if not Path(local).is_dir():
            raise ValueError(refusal("PCSIM_DATA", local, "a folder", "Make it or unset it."))
        if one.prepared is not None:
            yield one.prepared, Path(local) / one.prepared.folder
        yield one.published, Path(local) / one.published.folder
    yield one.published, _cache() / one.published.folder


def _cache() -> Path:
    return cache_folder() / "data"


def describe(name: str) -> str:
    """Return a page about a data set: contents, licence, citation, sources and where it is."""
    one = record(name)
    here = [f"  {split}: {place or 'not here'}" for split, place in where(name).items()]
    sources = [
        f"  {source.url}\n    {source.checksum or 'no checksum'} ({source.vouched})"
        for remote in one.remotes
        for source in remote.sources
    ]
    lines = [f"{one.name}: {one.title}", f"  {one.contents}"]
    lines += [f"  {one.note}"] if one.note else []
    lines += ["licence", f"  {one.licence}", "cite", f"  {one.citation}"]
    return "\n".join([*lines, "sources", *sources, "on this machine", *here])


def binarized(image: ArrayLike, *, rng: np.random.Generator) -> NDArray[np.uint8]:
    r"""Draw zeros and ones with the probability of a one given by the pixel, image / 255.

    Dynamic binarisation is a new draw at each batch.

    Parameters
    ----------
    image : (...)
        Pixels, uint8.
    rng
        Source of the draws.

    Returns
    -------
    sample : (...)
        Zeros and ones, uint8.

    References
    ----------
    Salakhutdinov & Murray (2008), https://doi.org/10.1145/1390156.1390266

    Examples
    --------
    >>> binarized(np.array([0, 255], np.uint8), rng=np.random.default_rng(0))
    array([0, 1], dtype=uint8)
    """
    pixels = np.asarray(image)
    if pixels.dtype != np.uint8:
        found = f"image of {pixels.dtype}"
        advice = "Give the pixels as they are loaded, from 0 to 255."
        raise TypeError(refusal("binarized", found, "uint8", advice))
    # Of the 255 values of the draw, as many lie below a pixel as its number says.
    draw = rng.integers(255, size=pixels.shape, dtype=np.uint8)
    return (draw < pixels).astype(np.uint8)


def divided(data: xr.Dataset, n: int, *, rng: np.random.Generator) -> tuple[xr.Dataset, xr.Dataset]:
    """Divide samples or documents at random: `n` of them, and the others.

    Raises
    ------
    ValueError
        If either part would be empty.

    Examples
    --------
    >>> data = xr.Dataset({"image": (("sample", "y", "x"), np.zeros((5, 2, 2)))})
    >>> [part.sizes["sample"] for part in divided(data, 3, rng=np.random.default_rng(0))]
    [3, 2]
    """
    dim = "sample" if "sample" in data.sizes else "document"
    total = data.sizes[dim]
    check_integer("divided", "n", n, low=1)
    if n >= total:
        raise ValueError(refusal("divided", f"n {n}", f"fewer than the {total} {dim}s"))
    order = rng.permutation(total)
    return data.isel({dim: order[:n]}), data.isel({dim: order[n:]})
