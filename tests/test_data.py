"""Data sets by name: labels and shapes, published facts, and both layouts of their files.

The facts need a folder with the data: PCSIM_DATA.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from PIL import Image

from pcsim import data, data_readers
from pcsim.data_registry import DATA_SETS

MNIST_MD5 = {
    ("train", "image"): "6bbc9ace898e44ae57da46a324031adb",
    ("train", "label"): "a25bea736e30d166cdddb491f175f624",
    ("test", "image"): "2646ac647ad5339dbf082846283269ea",
    ("test", "label"): "27ae3e4e09519cfbb04c329615203637",
}
"""Of the idx files, as published."""
FASHION_SHA256 = {
    ("train", "image"): "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
    ("train", "label"): "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
    ("test", "image"): "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
    ("test", "label"): "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
}
"""Of the idx files inside the gzip files that have the published md5 sums."""
STATIC_MD5 = {
    "train": "db28b1a6ae0fe70cbd3da91acf46e477",
    "valid": "bf37822a04e94123630de6a7dfd9c9ef",
    "test": "14e41ae11040adba6ab8cb291eda0dd8",
}
"""Of the text files of the first publication, in public use."""
MNIST_COUNTS = {
    "train": [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949],
    "test": [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009],
}


def loaded(name, split):
    """Load a set from PCSIM_DATA, or skip."""
    if not os.environ.get("PCSIM_DATA"):
        pytest.skip("PCSIM_DATA is not set: no folder with data sets")
    if data.where(name)[split] is None:
        pytest.skip(f"{name} {split} is not in PCSIM_DATA")
    return data.load(name, split=split)


def idx_bytes(array):
    array = np.ascontiguousarray(array, np.uint8)
    head = struct.pack(">HBB", 0, 8, array.ndim) + struct.pack(f">{array.ndim}I", *array.shape)
    return head + array.tobytes()


@pytest.mark.parametrize("split", ["train", "test"])
def test_mnist_is_the_published_one(split):
    got = loaded("mnist", split)
    assert got["image"].dims == ("sample", "y", "x")
    assert got["image"].dtype == np.uint8
    assert np.bincount(got["label"].values).tolist() == MNIST_COUNTS[split]
    for name in ("image", "label"):
        raw = idx_bytes(got[name].values)
        assert hashlib.md5(raw).hexdigest() == MNIST_MD5[split, name]


def test_mnist_mean():
    # The mean and deviation that everyone normalises with.
    pixels = loaded("mnist", "train")["image"].values / 255.0
    assert pixels.mean() == pytest.approx(0.1307, abs=5e-5)
    assert pixels.std() == pytest.approx(0.3081, abs=5e-5)


@pytest.mark.parametrize("split", ["train", "test"])
def test_fashion_mnist_is_the_published_one(split):
    got = loaded("fashion_mnist", split)
    each = {"train": 6000, "test": 1000}[split]
    assert np.bincount(got["label"].values).tolist() == [each] * 10
    for name in ("image", "label"):
        raw = idx_bytes(got[name].values)
        assert hashlib.sha256(raw).hexdigest() == FASHION_SHA256[split, name]


@pytest.mark.parametrize(
    ("split", "mean"), [("train", 0.1306), ("valid", 0.1311), ("test", 0.1325)]
)
def test_static_mnist_is_the_published_one(split, mean):
    image = loaded("mnist_static", split)["image"].values
    assert image.mean() == pytest.approx(mean, abs=5e-5)
    text = np.full((len(image), 784, 2), ord(" "), np.uint8)
    text[:, :, 0] = image.reshape(-1, 784) + ord("0")
    text[:, -1, 1] = ord("\n")
    assert hashlib.md5(text.tobytes()).hexdigest() == STATIC_MD5[split]


def test_omniglot_is_shrunk_from_the_published_drawings():
    small = loaded("omniglot", "test")
    assert small["label"].values[[0, 19, 20, -1]].tolist() == [0, 0, 1, 658]
    assert small["drawer"].values[[0, 19, 20, -1]].tolist() == [0, 19, 0, 19]
    path = Path(os.environ["PCSIM_DATA"]) / "omniglot" / "images_evaluation.npz"
    if not path.is_file():
        pytest.skip("the large drawings are not in PCSIM_DATA")
    with np.load(path) as held:
        paper = held["images"][:20].reshape(-1, 105, 105)
    got = data_readers.omniglot_28(paper)
    np.testing.assert_array_equal(got, small["image"].values[:400])


def perplexity(train, test):
    """Of a unigram with one added: of the corpus, and the mean over documents."""
    counts = train["count"].values.sum(axis=0, dtype=np.float64) + 1
    log_p = np.log(counts / counts.sum())
    nats = -(test["count"].values @ log_p)
    words = test["count"].values.sum(axis=1)
    return np.exp(nats.sum() / words.sum()), np.exp((nats / words).mean())


def test_bbc_news_perplexity():
    corpus, document = perplexity(loaded("bbc_news", "train"), loaded("bbc_news", "test"))
    assert (round(corpus), round(document)) == (1580, 1568)


def test_newsgroups_perplexity():
    posts = loaded("newsgroups", "test")
    assert set(posts["label"].values) == set(range(1, 21))
    # Another division than the one of the reference: within 1 % of it.
    train, test = data.divided(posts, 6000, rng=np.random.default_rng(0))
    assert perplexity(train, test) == pytest.approx((1204, 1199), rel=0.01)


def test_bbc_news_words():
    parts = [loaded("bbc_news", split) for split in ("train", "valid", "test")]
    words = parts[0]["word"].values
    assert (np.sort(words) == words).all()
    labels = np.concatenate([part["label"].values for part in parts])
    names, counts = np.unique(labels, return_counts=True)
    assert dict(zip(names.tolist(), counts.tolist(), strict=True)) == {
        "business": 510,
        "entertainment": 386,
        "politics": 417,
        "sport": 511,
        "tech": 401,
    }


def test_published_idx_files_give_the_same_as_the_prepared(tmp_path, monkeypatch):
    prepared = loaded("mnist", "test")
    for name, size in (("image", "images-idx3"), ("label", "labels-idx1")):
        raw = gzip.compress(idx_bytes(prepared[name].values), 1)
        path = tmp_path / "mnist" / f"t10k-{size}-ubyte.gz"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(raw)
    monkeypatch.setenv("PCSIM_DATA", str(tmp_path))
    assert data.where("mnist")["test"] == tmp_path / "mnist"
    xr.testing.assert_identical(data.load("mnist", split="test"), prepared)


@pytest.mark.parametrize("split", ["train", "test"])
def test_idx_files_under_their_published_names(tmp_path, rng, split):
    image = rng.integers(256, size=(4, 28, 28), dtype=np.uint8)
    for name, array in zip(
        DATA_SETS["mnist"].published.files[split], (image, [3, 1, 4, 1]), strict=True
    ):
        (tmp_path / name).write_bytes(gzip.compress(idx_bytes(array)))
    got = data_readers.idx_pair(tmp_path, split)
    np.testing.assert_array_equal(got["image"].values, image)
    assert got["label"].values.tolist() == [3, 1, 4, 1]


def test_published_lines_give_the_same_as_the_prepared_counts(tmp_path, monkeypatch):
    prepared = loaded("newsgroups", "test")
    folder = tmp_path / "newsgroups"
    folder.mkdir()
    lines = []
    for row, label in zip(prepared["count"].values, prepared["label"].values, strict=True):
        pairs = [f"{word + 1}:{row[word]}" for word in np.flatnonzero(row)[::-1]]
        lines.append(" ".join([str(label), *pairs]))
    (folder / "test.feat").write_text("\n".join(lines) + "\n")
    words = prepared["word"].values
    (folder / "vocab.new").write_text("".join(f"{w} {i}\n" for i, w in enumerate(words)))
    monkeypatch.setenv("PCSIM_DATA", str(tmp_path))
    xr.testing.assert_identical(data.load("newsgroups", split="test"), prepared)


def test_published_corpus_gives_the_same_as_the_prepared_counts(tmp_path, monkeypatch):
    prepared = {split: loaded("bbc_news", split) for split in ("train", "valid", "test")}
    lines = []
    for split, part in prepared.items():
        words = part["word"].values
        for row, label in zip(part["count"].values, part["label"].values, strict=True):
            text = " ".join(np.repeat(words, row).tolist())
            lines.append(f"{text}\t{'val' if split == 'valid' else split}\t{label}\n")
    (tmp_path / "bbc_news").mkdir()
    (tmp_path / "bbc_news" / "corpus.tsv").write_text("".join(lines))
    monkeypatch.setenv("PCSIM_DATA", str(tmp_path))
    for split, part in prepared.items():
        got = data.load("bbc_news", split=split)
        np.testing.assert_array_equal(got["count"].values, part["count"].values)
        assert got["word"].values.tolist() == part["word"].values.tolist()
        assert got["label"].values.tolist() == part["label"].values.tolist()


def omniglot_archive(path, paper, first):
    with zipfile.ZipFile(path, "w") as archive:
        for character, drawings in enumerate(paper):
            for drawer, drawing in enumerate(drawings, 1):
                stream = io.BytesIO()
                Image.fromarray(drawing).save(stream, "png")
                name = f"images/Alphabet/character01/{first + character:04d}_{drawer:02d}.png"
                archive.writestr(name, stream.getvalue())


def test_omniglot_archive(tmp_path, rng, refused):
    paper = rng.random((2, 20, 105, 105)) < 0.8
    paper[0, 0] = True
    paper[1, 0, :15, :15] = False
    path = tmp_path / "images_evaluation.zip"
    omniglot_archive(path, paper, 965)
    got = data_readers.omniglot_zip(tmp_path, "test")
    assert got["image"].shape == (40, 28, 28)
    assert got["label"].values.tolist() == [0] * 20 + [1] * 20
    assert got["drawer"].values.tolist() == list(range(20)) * 2
    image = got["image"].values
    # Each pixel is the mean of those whose centres it covers, up to its far edge; Pillow rounds
    # twice.
    covers = np.arange(105) + 0.5
    box = (np.ceil(covers / 3.75) - 1 == np.arange(28)[:, None]).astype(float)
    box /= box.sum(axis=1, keepdims=True)
    expected = 255 * (box @ ~paper.reshape(40, 105, 105) @ box.T)
    np.testing.assert_allclose(image, expected, atol=1.0)
    assert image[0].max() == 0
    assert image[20, :4, :4].min() == 255
    raw = path.read_bytes()
    for broken in (raw[:-40], raw[: len(raw) // 2], b""):
        path.write_bytes(broken)
        assert "read images_evaluation.zip" in refused(data_readers.omniglot_zip, tmp_path, "test")
    omniglot_archive(path, paper[:, :19], 965)
    assert "20 drawings" in refused(data_readers.omniglot_zip, tmp_path, "test")


def test_static_mnist_as_text_and_as_matlab(tmp_path, rng):
    from scipy.io import savemat

    x = rng.integers(2, size=(3, 784), dtype=np.uint8)
    savemat(tmp_path / "a.mat", {"X": x})
    raw = (tmp_path / "a.mat").read_bytes()
    (tmp_path / "binarized_mnist_test.amat").write_bytes(raw)
    (tmp_path / "binarized_mnist_test.mat").write_bytes(raw)
    np.savetxt(tmp_path / "binarized_mnist_valid.amat", x, fmt="%d")
    expected = x.reshape(3, 28, 28)
    for read, split in (
        (data_readers.mnist_static_mat, "test"),
        (data_readers.mnist_static_amat, "test"),
        (data_readers.mnist_static_amat, "valid"),
    ):
        got = read(tmp_path, split)
        assert list(got.coords) == []
        np.testing.assert_array_equal(got["image"].values, expected)


def test_cifar_channels(tmp_path):
    import tarfile

    record = bytes([3]) + bytes([10]) * 1024 + bytes([20]) * 1024 + bytes([30]) * 1024
    with tarfile.open(tmp_path / "cifar-10-binary.tar.gz", "w:gz") as archive:
        entry = tarfile.TarInfo("cifar-10-batches-bin/test_batch.bin")
        entry.size = len(record)
        archive.addfile(entry, io.BytesIO(record))
    got = data_readers.cifar10_binary(tmp_path, "test")
    assert got["image"].dims == ("sample", "channel", "y", "x")
    assert got["label"].values.tolist() == [3]
    for name, value in (("red", 10), ("green", 20), ("blue", 30)):
        assert (got["image"].sel(channel=name).values == value).all()


@pytest.mark.parametrize("lines", ["", "a b\ttrain\n", "a b\tdev\ttech\n", "a\tb\ttrain\ttech\n"])
def test_broken_corpus_is_refused(tmp_path, lines, refused):
    (tmp_path / "corpus.tsv").write_text(lines)
    assert "read corpus.tsv" in refused(data_readers.bbc_news_tsv, tmp_path, "train")
    (tmp_path / "corpus.tsv").write_bytes(b"\xff\xfe\x00")
    assert "read corpus.tsv" in refused(data_readers.bbc_news_tsv, tmp_path, "train")


def test_binarized_is_bernoulli(rng):
    image = np.tile(np.array([0, 1, 64, 191, 254, 255], np.uint8), (200_000, 1))
    sample = data.binarized(image, rng=rng)
    assert sample.dtype == np.uint8
    assert set(np.unique(sample)) == {0, 1}
    p = image[0] / 255.0
    error = np.sqrt(p * (1 - p) / len(image))
    assert (np.abs(sample.mean(axis=0) - p) <= 4 * error).all()
    # Pixels are drawn independently of one another, and each time anew.
    both = np.corrcoef(sample[:, 2], sample[:, 3])[0, 1]
    assert abs(both) < 4 / np.sqrt(len(image))
    assert (data.binarized(image, rng=rng) != sample).any()


def test_binarized_repeats_with_the_seed_and_leaves_its_input(rng):
    image = rng.integers(256, size=(3, 5), dtype=np.uint8)
    before = image.copy()
    first, second = (data.binarized(image, rng=np.random.default_rng(4)) for _ in range(2))
    np.testing.assert_array_equal(first, second)
    np.testing.assert_array_equal(image, before)


def test_binarized_refuses_what_is_scaled_already(rng, refused):
    assert "from 0 to 255" in refused(data.binarized, np.array([0.5]), rng=rng)


def test_divided_keeps_every_document_once(rng, refused):
    count = xr.Dataset({"count": (("document", "word"), np.arange(14).reshape(7, 2))})
    first, rest = data.divided(count, 3, rng=rng)
    both = np.concatenate([first["count"].values, rest["count"].values])
    np.testing.assert_array_equal(both[np.argsort(both[:, 0])], count["count"].values)
    assert "fewer than the 7 documents" in refused(data.divided, count, 7, rng=rng)
    refused(data.divided, count, 0, rng=rng)


def test_unknown_names_are_refused(refused):
    assert "Did you mean 'fashion_mnist'?" in refused(data.load, "fashionmnist")
    assert "'test', 'train', 'valid'" in refused(data.load, "bbc_news", split="validation")
    refused(data.load, "mnist", split="valid")
    refused(data.fetch, "imagenet")


def test_a_wrong_folder_is_refused(tmp_path, monkeypatch, refused):
    monkeypatch.setenv("PCSIM_DATA", str(tmp_path / "none"))
    assert "expected a folder" in refused(data.load, "mnist")


def test_nothing_here_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setenv("PCSIM_DATA", str(tmp_path))
    monkeypatch.setenv("PCSIM_CACHE", str(tmp_path / "cache"))
    with pytest.raises(RuntimeError, match=r"Run 'pcsim data fetch mnist', or set PCSIM_DATA"):
        data.load("mnist")


def test_another_split_that_is_here_is_named(tmp_path, monkeypatch):
    (tmp_path / "text_bow").mkdir()
    (tmp_path / "text_bow" / "20news_test_bow.npz").touch()
    monkeypatch.setenv("PCSIM_DATA", str(tmp_path))
    monkeypatch.setenv("PCSIM_CACHE", str(tmp_path / "cache"))
    with pytest.raises(RuntimeError, match=r"Only test is here\."):
        data.load("newsgroups")


def test_a_file_of_another_size_is_refused(tmp_path, monkeypatch, refused):
    (tmp_path / "mnist").mkdir()
    few = {"x_test": np.zeros((5, 28, 28), np.uint8), "y_test": np.zeros(5, np.uint8)}
    np.savez(tmp_path / "mnist" / "mnist.npz", **few)
    monkeypatch.setenv("PCSIM_DATA", str(tmp_path))
    assert "found 5 samples" in refused(data.load, "mnist", split="test")
    assert "expected also x_train" in refused(data.load, "mnist")
    few["y_test"] = few["y_test"][1:]
    np.savez(tmp_path / "mnist" / "mnist.npz", **few)
    assert "one label each" in refused(data.load, "mnist", split="test")


@pytest.mark.parametrize("one", DATA_SETS.values(), ids=lambda one: one.name)
def test_every_set_is_described(one):
    assert one.licence
    assert "http" in one.citation
    assert "train" in one.splits
    needed = {name for files in one.published.files.values() for name in files}
    assert needed == {remote.name for remote in one.remotes}
    assert set(one.published.files) == set(one.splits)
    for remote in one.remotes:
        for source in remote.sources:
            assert source.vouched
            assert source.url.startswith("http")
            # Over a line that anyone may change, or from a branch that may move: never unchecked.
            fixed = any(len(part) == 40 for part in source.url.split("/"))
            assert source.checksum or (fixed and source.url.startswith("https://"))
            if source.checksum:
                algorithm, _, value = source.checksum.partition(":")
                assert len(value) == 2 * hashlib.new(algorithm).digest_size
                assert set(value) <= set("0123456789abcdef")


def test_page_and_list(tmp_path, monkeypatch):
    from pcsim.cli_show import listing

    monkeypatch.delenv("PCSIM_DATA", raising=False)
    monkeypatch.setenv("PCSIM_CACHE", str(tmp_path))
    page = data.describe("mnist")
    for words in ("licence", "LeCun", "sha256:440f", "not here"):
        assert words in page
    lines = listing("data").splitlines()
    assert [line.split()[0] for line in lines] == list(data.available())
    assert all("here: nothing" in line for line in lines)
