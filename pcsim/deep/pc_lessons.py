"""Courses of lessons: one pool over and over, two tasks in turn, and labels that drift.

Every seed draws its own images, order and assignment of classes; numbers of images are per class.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pcsim.data_arrays import labelled_rows, one_hot
from pcsim.deep.pc_comparison import Lesson
from pcsim.messages import refusal

__all__ = ["Images", "alternating", "drifting", "load_images", "repeated"]

Rows = NDArray[np.float32]
Labels = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Images:
    """Images to learn from and to test on, as rows, with classes 0 ... n - 1."""

    x: Rows
    label: Labels
    test_x: Rows
    test_label: Labels

    @property
    def n_classes(self) -> int:
        """Number of classes."""
        return int(self.label.max()) + 1

    def drawn(self, rng: np.random.Generator, per_class: int, classes: Sequence[int]) -> Labels:
        """Return places of images, `per_class` of each class, drawn without replacement."""
        found = []
        for one in classes:
            (places,) = np.nonzero(self.label == one)
            if per_class > len(places):
                what = f"{per_class} images of class {one}"
                raise ValueError(refusal("lessons", what, f"at most {len(places)}"))
            found.append(rng.choice(places, per_class, replace=False))
        return np.concatenate(found)


def load_images(name: str, *, n_test: int) -> Images:
    """Return a set by name, with the first `n_test` test images, equally many of each class."""
    x, label = labelled_rows(name)
    test_x, test_label = labelled_rows(name, split="test")
    n_classes = int(label.max()) + 1
    each = [np.nonzero(test_label == one)[0][: n_test // n_classes] for one in range(n_classes)]
    kept = np.concatenate(each)
    return Images(x, label, test_x[kept], test_label[kept])


def generators(seeds: Sequence[int]) -> list[np.random.Generator]:
    """Return a generator for each seed."""
    return [np.random.default_rng(seed) for seed in seeds]


def batches(
    places: NDArray[np.int64], size: int, rngs: Sequence[np.random.Generator]
) -> Iterator[NDArray[np.int64]]:
    """Yield places (seed, n) in random order by batches; the last may be smaller."""
    order = np.stack([rng.permutation(row) for rng, row in zip(rngs, places, strict=True)])
    for begin in range(0, places.shape[1], size):
        yield order[:, begin : begin + size]


def repeated(
    images: Images,
    seeds: Sequence[int],
    *,
    batch: int,
    n_epochs: int,
    per_class: int | None = None,
    most: int | None = None,
) -> Iterator[Lesson]:
    """Yield batches from one pool, tested after every epoch.

    Parameters
    ----------
    per_class
        Images of each class in the pool; the whole set, batches drawn from it, if not given.
    most
        Number of batches in an epoch, if fewer than the pool gives.
    """
    rngs = generators(seeds)
    y = one_hot(images.label, images.n_classes)
    test = ((images.test_x, images.test_label),)
    pool = None
    if per_class is not None:
        every = range(images.n_classes)
        pool = np.stack([images.drawn(rng, per_class, every) for rng in rngs])
    total = len(images.x) if pool is None else pool.shape[1]
    n_batches = -(-total // batch) if most is None else min(most, -(-total // batch))
    for _ in range(n_epochs):
        if pool is None:
            size = min(n_batches * batch, total)
            picked = np.stack([rng.choice(total, size, replace=False) for rng in rngs])
        else:
            picked = pool
        for count, rows in enumerate(batches(picked, batch, rngs), 1):
            yield Lesson(images.x[rows], y[rows], test if count == n_batches else ())
            if count == n_batches:
                break


def alternating(
    images: Images,
    seeds: Sequence[int],
    *,
    per_class: int,
    batch: int,
    n_rounds: int,
    n_epochs: int,
) -> Iterator[Lesson]:
    """Yield two tasks in turn that share their outputs; after every epoch both are tested.

    The classes are divided at random into two tasks, and those of a task assigned to the outputs.
    Tests come in the order: task being learned, other task.
    """
    rngs = generators(seeds)
    half = images.n_classes // 2
    orders = [rng.permutation(images.n_classes) for rng in rngs]
    answers = np.stack([np.argsort(order) % half for order in orders])
    pools, tests = [], []
    for task in (0, 1):
        mine = [order[task * half : (task + 1) * half] for order in orders]
        pools.append(
            np.stack([images.drawn(r, per_class, list(m)) for r, m in zip(rngs, mine, strict=True)])
        )
        rows = np.stack([np.nonzero(np.isin(images.test_label, m))[0] for m in mine])
        tests.append((images.test_x[rows], mapped(answers, images.test_label[rows])))
    for _ in range(n_rounds):
        for task in (0, 1):
            for _ in range(n_epochs):
                parts = list(batches(pools[task], batch, rngs))
                for count, rows in enumerate(parts, 1):
                    y = one_hot(mapped(answers, images.label[rows]), half)
                    both = (tests[task], tests[1 - task])
                    yield Lesson(images.x[rows], y, both if count == len(parts) else ())


def drifting(
    images: Images,
    seeds: Sequence[int],
    *,
    per_class: int,
    batch: int,
    n_epochs: int,
    interval: int,
) -> Iterator[Lesson]:
    """Yield one pool over and over; every `interval` epochs half of the classes change outputs."""
    rngs = generators(seeds)
    n = images.n_classes
    pool = np.stack([images.drawn(rng, per_class, range(n)) for rng in rngs])
    for epoch in range(n_epochs):
        if epoch % interval == 0:
            still = np.arange(n // 2)
            answers = np.stack(
                [np.append(still, rng.permutation(n - n // 2) + n // 2) for rng in rngs]
            )
        test_label = np.stack([one[images.test_label] for one in answers])
        parts = list(batches(pool, batch, rngs))
        for count, rows in enumerate(parts, 1):
            y = one_hot(mapped(answers, images.label[rows]), n)
            test = ((images.test_x, test_label),)
            yield Lesson(images.x[rows], y, test if count == len(parts) else ())


def mapped(answers: NDArray[np.int64], label: Labels) -> Labels:
    """Return the output of each class, (seed, n), as each seed assigns them."""
    return np.take_along_axis(answers, label, axis=1)
