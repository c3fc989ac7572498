"""Train pcx on MNIST with its published settings; run by the Python of pcx's own environment.

python pcx_mnist.py data.npz answer.json SEED EPOCHS
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pcx
from pcx_network import Network, start, update

SIZES, BATCH, LOOKS, T = (784, 128, 128, 128, 10), 128, 4, 8
RATE, DECAY = 2.968930522737348e-4, 3.550241114984682e-4
OF_NODES = optax.sgd(0.010534787245955935, momentum=0.65)


def accuracy(model: Network, image: Any, label: np.ndarray[Any, Any]) -> float:
    """Return the share that a feedforward pass gets right (nodes have the batch of training)."""
    rate = image
    for level, layer in enumerate(model.layers):
        rate = jax.nn.gelu(rate) if level else rate
        rate = rate @ layer.nn.weight.get().T + layer.nn.bias.get()
    return float((np.asarray(rate).argmax(1) == label).mean())


def main() -> None:
    """Train, and write accuracies with the time that learning took until then."""
    data, seed, epochs = np.load(sys.argv[1]), int(sys.argv[3]), int(sys.argv[4])
    image, target = data["image"], np.eye(10, dtype="float32")[data["label"]]
    test, label = jnp.asarray(data["test_image"]), data["test_label"]
    pcx.RKG.seed(seed)
    model = Network(SIZES, jax.nn.gelu, "after")
    per_epoch = len(image) // BATCH
    total = per_epoch * epochs
    rate = optax.warmup_cosine_decay_schedule(RATE, 1.1 * RATE, total // 10, total, 0.1 * RATE)
    nodes, weights = start(model, BATCH, 784, OF_NODES, optax.adamw(rate, weight_decay=DECAY))
    rng, curve, processor, wall = np.random.default_rng(seed), [], 0.0, 0.0
    for count in range(1, total + 1):
        if count % per_epoch == 1:
            order = rng.permutation(len(image))
        place = (count - 1) % per_epoch * BATCH
        index = order[place : place + BATCH]
        begun = time.process_time(), time.perf_counter()
        x, y = jnp.asarray(image[index]), jnp.asarray(target[index])
        update(T, x, y, model=model, weights=weights, nodes=nodes)
        model.layers[-1].nn.weight.get().block_until_ready()
        processor += time.process_time() - begun[0]
        wall += time.perf_counter() - begun[1]
        if count % (per_epoch // LOOKS) == 0 or count == total:
            curve.append({"batch": count, "accuracy": accuracy(model, test, label),
                          "processor_s": processor, "wall_s": wall})  # fmt: skip
    Path(sys.argv[2]).write_text(json.dumps(curve))


if __name__ == "__main__":
    main()
