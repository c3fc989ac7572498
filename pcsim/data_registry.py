"""What is known of each data set: contents, source, licence, checksums, and how to read it.

A checksum is written as ``sha256:...`` or ``md5:...`` with who vouches for it. Those "computed
here" are of bytes that were rebuilt from an independent copy of the data; the others are as others
publish them. Where nobody publishes one, the address names a commit, and the numbers of documents
and words are checked on reading.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import xarray as xr

from pcsim import data_readers as readers

__all__ = ["DATA_SETS", "DataSet", "Layout", "Remote", "Source"]


@dataclass(frozen=True)
class Source:
    """One address of a file, with the checksum of what lies there."""

    url: str
    checksum: str | None
    vouched: str
    """Who publishes the checksum, or why there is none."""


@dataclass(frozen=True)
class Remote:
    """One file as it is published; the sources are tried in turn."""

    name: str
    sources: tuple[Source, ...]
    size: int | None = None
    """Bytes at the first source, where known."""


@dataclass(frozen=True)
class Layout:
    """A folder of files, those that each split needs, and the function that reads them."""

    folder: str
    files: Mapping[str, tuple[str, ...]]
    read: Callable[[Path, str], xr.Dataset]


@dataclass(frozen=True, kw_only=True)
class DataSet:
    """All there is to say about a data set.

    `sizes` holds the samples or documents of each split (None where it is not known beforehand);
    `prepared` is the layout of a local folder, `published` that of the downloaded files.
    """

    name: str
    title: str
    contents: str
    sizes: Mapping[str, int | None]
    licence: str
    citation: str
    note: str = ""
    remotes: tuple[Remote, ...]
    prepared: Layout | None
    published: Layout

    @property
    def splits(self) -> tuple[str, ...]:
        """Names of the splits, the training images or documents first."""
        return tuple(self.sizes)


GITHUB = "https://raw.githubusercontent.com"
LARGE, SMALL = "images-idx3-ubyte.gz", "labels-idx1-ubyte.gz"
IDX = {
    "train": (f"train-{LARGE}", f"train-{SMALL}"),
    "test": (f"t10k-{LARGE}", f"t10k-{SMALL}"),
}


def _mirrored(
    name: str, size: int, checksum: str, vouched: str, *folders: str, file: str = ""
) -> Remote:
    """Return a file that lies under the same name in several folders, with the same bytes."""
    at = file or name
    return Remote(name, tuple(Source(f"{f}/{at}", checksum, vouched) for f in folders), size)


_MNIST = (
    "https://ossci-datasets.s3.amazonaws.com/mnist",
    "https://storage.googleapis.com/cvdf-datasets/mnist",
)
_MNIST_VOUCHED = (
    "several public loaders; the arrays inside have the published md5 sums of the idx files"
)
MNIST = DataSet(
    name="mnist",
    title="MNIST, handwritten digits",
    contents="60,000 + 10,000 grey images 28 x 28, 10 classes, in the published order",
    sizes={"train": 60_000, "test": 10_000},
    licence="CC BY-SA 3.0, as usually quoted; none is stated at the source",
    citation="LeCun, Bottou, Bengio & Haffner (1998), https://doi.org/10.1109/5.726791",
    note="For dynamic binarisation call pcsim.data.binarized at each batch.",
    remotes=(
        _mirrored(
            f"train-{LARGE}",
            9_912_422,
            "sha256:440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
            _MNIST_VOUCHED,
            *_MNIST,
        ),
        _mirrored(
            f"train-{SMALL}",
            28_881,
            "sha256:3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
            _MNIST_VOUCHED,
            *_MNIST,
        ),
        _mirrored(
            f"t10k-{LARGE}",
            1_648_877,
            "sha256:8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
            _MNIST_VOUCHED,
            *_MNIST,
        ),
        _mirrored(
            f"t10k-{SMALL}",
            4_542,
            "sha256:f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
            _MNIST_VOUCHED,
            *_MNIST,
        ),
    ),
    prepared=Layout("mnist", {"train": ("mnist.npz",), "test": ("mnist.npz",)}, readers.mnist_npz),
    published=Layout("mnist", IDX, readers.idx_pair),
)

_FASHION = (
    "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com",
    f"{GITHUB}/zalandoresearch/fashion-mnist/b2617bb6d3ffa2e429640350f613e3291e10b141/data/fashion",
)
_FASHION_VOUCHED = "computed here, of bytes with the md5 sum that the authors publish"
FASHION_MNIST = DataSet(
    name="fashion_mnist",
    title="Fashion-MNIST, articles of clothing",
    contents="60,000 + 10,000 grey images 28 x 28, 10 classes, in the published order",
    sizes={"train": 60_000, "test": 10_000},
    licence="MIT",
    citation="Xiao, Rasul & Vollgraf (2017), https://arxiv.org/abs/1708.07747",
    remotes=(
        _mirrored(
            f"train-{LARGE}",
            26_421_880,
            "sha256:3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84",
            _FASHION_VOUCHED,
            *_FASHION,
        ),
        _mirrored(
            f"train-{SMALL}",
            29_515,
            "sha256:a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845",
            _FASHION_VOUCHED,
            *_FASHION,
        ),
        _mirrored(
            f"t10k-{LARGE}",
            4_422_102,
            "sha256:346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073",
            _FASHION_VOUCHED,
            *_FASHION,
        ),
        _mirrored(
            f"t10k-{SMALL}",
            5_148,
            "sha256:67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5",
            _FASHION_VOUCHED,
            *_FASHION,
        ),
    ),
    prepared=Layout(
        "fashion_mnist",
        {
            "train": ("fashion_mnist_train_1of2.npz", "fashion_mnist_train_2of2.npz"),
            "test": ("fashion_mnist_test.npz",),
        },
        readers.fashion_mnist_npz,
    ),
    published=Layout("fashion_mnist", IDX, readers.idx_pair),
)


def _static(split: str, size: int, matlab: str, text: str) -> Remote:
    name = f"binarized_mnist_{split}.amat"
    pinned = "mingzhang-yin/ARM-gradient/bac893cfcec486bbd00b755b12cf8402053b0e84"
    toronto = "http://www.cs.toronto.edu/~larocheh/public/datasets/binarized_mnist"
    computed = "computed here, of a copy"
    rebuilt = "computed here, of text rebuilt from that copy; its md5 sum is the one in public use"
    sources = (
        Source(f"{GITHUB}/{pinned}/{name}", f"sha256:{matlab}", computed),
        Source(f"{toronto}/{name}", f"sha256:{text}", rebuilt),
    )
    return Remote(name, sources, size)


MNIST_STATIC = DataSet(
    name="mnist_static",
    title="MNIST, binarised once and for all",
    contents="50,000 + 10,000 + 10,000 images 28 x 28 of zeros and ones, without labels",
    sizes={"train": 50_000, "valid": 10_000, "test": 10_000},
    licence="as MNIST",
    citation="Salakhutdinov & Murray (2008), https://doi.org/10.1145/1390156.1390266; "
    "split of Larochelle & Murray (2011)",
    note="The order is not that of MNIST, and the test images look sorted by class: shuffle them.",
    remotes=(
        _static(
            "train",
            2_852_060,
            "79a0312c7389d855cfc97e3812de3998417c5829d8a51543b56a90a91252ae7e",
            "ad693b29f94c14277b095f5238ddefbbdaaae0939789dd2f4f0205278cee3e4d",
        ),
        _static(
            "valid",
            571_883,
            "7436afc856959075c7787025bb8a4ba2b520b9230ee39667c66aa7dd2819dd68",
            "1de3d397c40fe8eeb33dafd4099a1f665ec01e96d9be234aaeeac8a34930e2e2",
        ),
        _static(
            "test",
            490_132,
            "5bc30222e1e7896cbccd1e1db6b28540cc1230f4d2d5473841a5f6cc54be8d38",
            "e6687bfea3f820c174f33b7865140b2a2dd2930ef786f35d45795fc193b5ab2c",
        ),
    ),
    prepared=Layout(
        "mnist_static_binarized",
        {split: (f"binarized_mnist_{split}.mat",) for split in ("train", "valid", "test")},
        readers.mnist_static_mat,
    ),
    published=Layout(
        "mnist_static",
        {split: (f"binarized_mnist_{split}.amat",) for split in ("train", "valid", "test")},
        readers.mnist_static_amat,
    ),
)

_OMNIGLOT = f"{GITHUB}/brendenlake/omniglot/master/python"
_OMNIGLOT_VOUCHED = "torchvision and other public loaders; the author publishes none"
OMNIGLOT = DataSet(
    name="omniglot",
    title="Omniglot, handwritten characters of 50 alphabets",
    contents="964 characters (train, the published 'background') + 659 (test, 'evaluation'), "
    "20 drawings each, 28 x 28, shrunk from 105 x 105 by averaging",
    sizes={"train": 19_280, "test": 13_180},
    licence="MIT",
    citation="Lake, Salakhutdinov & Tenenbaum (2015), https://doi.org/10.1126/science.aab3050",
    note="Not the split 24,345 / 8,070 and the shrinking of chardata.mat that papers on "
    "importance-weighted autoencoders use: nats do not compare with theirs.",
    remotes=(
        Remote(
            "images_background.zip",
            (
                Source(
                    f"{_OMNIGLOT}/images_background.zip",
                    "md5:68d2efa1b9178cc56df9314c21c6e718",
                    _OMNIGLOT_VOUCHED,
                ),
            ),
        ),
        Remote(
            "images_evaluation.zip",
            (
                Source(
                    f"{_OMNIGLOT}/images_evaluation.zip",
                    "md5:6b91aef0f799c5bb55b94e3f2daec811",
                    _OMNIGLOT_VOUCHED,
                ),
            ),
        ),
    ),
    prepared=Layout(
        "omniglot",
        {split: ("omniglot_28x28.npz",) for split in ("train", "test")},
        readers.omniglot_npz,
    ),
    published=Layout(
        "omniglot",
        {"train": ("images_background.zip",), "test": ("images_evaluation.zip",)},
        readers.omniglot_zip,
    ),
)

CIFAR10 = DataSet(
    name="cifar10",
    title="CIFAR-10, small photographs",
    contents="50,000 + 10,000 colour images 3 x 32 x 32, 10 classes",
    sizes={"train": 50_000, "test": 10_000},
    licence="none stated; cite the report",
    citation="Krizhevsky (2009), https://www.cs.toronto.edu/~kriz/learning-features-2009-TR.pdf",
    remotes=(
        _mirrored(
            "cifar-10-binary.tar.gz",
            170_052_171,
            "md5:c32a1d4ab5d03f1284b67883e8d87530",
            "the author's page",
            "https://www.cs.toronto.edu/~kriz",
            "https://cave.cs.toronto.edu/kriz",
        ),
    ),
    prepared=None,
    published=Layout(
        "cifar10",
        {split: ("cifar-10-binary.tar.gz",) for split in ("train", "test")},
        readers.cifar10_binary,
    ),
)


def _pinned(name: str, folder: str, size: int | None = None) -> Remote:
    source = Source(f"{GITHUB}/{folder}/{name}", None, "none published; the address names a commit")
    return Remote(name, (source,), size)


_NVDM = "ysmiao/nvdm/19bc3d630bc0bace13555e2515de082771827a76/data/20news"
NEWSGROUPS = DataSet(
    name="newsgroups",
    title="20 Newsgroups, word counts",
    contents="counts of 2,000 words in about 11,300 + 7,505 posts, 20 classes numbered from 1",
    sizes={"train": None, "test": 7_505},
    licence="none stated; the posts are public messages of 1993",
    citation="Lang (1995), https://doi.org/10.1016/B978-1-55860-377-6.50048-7; "
    "counts of Miao, Yu & Blunsom (2016), https://arxiv.org/abs/1511.06038",
    note="A stand-in for RCV1. The prepared folder holds the test posts alone: "
    "divide them with pcsim.data.divided.",
    remotes=tuple(_pinned(name, _NVDM) for name in ("train.feat", "test.feat", "vocab.new")),
    prepared=Layout("text_bow", {"test": ("20news_test_bow.npz",)}, readers.newsgroups_npz),
    published=Layout(
        "newsgroups",
        {split: (f"{split}.feat", "vocab.new") for split in ("train", "test")},
        readers.newsgroups_lines,
    ),
)

_OCTIS = "MIND-Lab/OCTIS/34b8036855bf04c6ac9fcbd48e51598e6cc5fdaf/preprocessed_datasets/BBC_news"
BBC_NEWS = DataSet(
    name="bbc_news",
    title="BBC news, word counts",
    contents="counts of 2,949 words in 1,556 + 334 + 335 articles, 5 classes by name",
    sizes={"train": 1_556, "valid": 334, "test": 335},
    licence="the texts for research only; the preparation MIT",
    citation="Greene & Cunningham (2006), https://doi.org/10.1145/1143844.1143892; prepared by "
    "Terragni et al. (2021), https://doi.org/10.18653/v1/2021.eacl-demos.31",
    note="A stand-in for RCV1.",
    remotes=(_pinned("corpus.tsv", _OCTIS, 1_881_385),),
    prepared=Layout(
        "text_bow",
        {split: ("bbc_news_bow.npz",) for split in ("train", "valid", "test")},
        readers.bbc_news_npz,
    ),
    published=Layout(
        "bbc_news",
        {split: ("corpus.tsv",) for split in ("train", "valid", "test")},
        readers.bbc_news_tsv,
    ),
)

DATA_SETS: Mapping[str, DataSet] = {
    one.name: one
    for one in (MNIST, MNIST_STATIC, FASHION_MNIST, OMNIGLOT, CIFAR10, NEWSGROUPS, BBC_NEWS)
}
"""Every data set by name."""
