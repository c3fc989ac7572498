"""The workload in pcx, as its tutorials write it; run by the Python of pcx's own environment.

    python pcx_network.py problem.npz answer.npz

Convention: nodes before the activation, mu = W tanh(z) + b; the energy is averaged over the batch,
so that the rate of the activities is multiplied by its size.
"""

from __future__ import annotations

import itertools
import sys
from importlib.metadata import version
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pcx
import pcx.functional as pxf
import pcx.nn as pxnn
import pcx.predictive_coding as pxc
import pcx.utils as pxu
from serving import Problem, serve


class Network(pxc.EnergyModule):
    """Linear layers with a node behind each; the last node is held."""

    def __init__(self, sizes: tuple[int, ...], activation: Any, cut: str = "before") -> None:
        super().__init__()
        self.activation, self.cut = pcx.static(activation), pcx.static(cut)
        pairs = itertools.pairwise(sizes)
        self.layers = [pxnn.Linear(below, above) for below, above in pairs]
        self.vodes = [pxc.Vode() for _ in self.layers]
        self.vodes[-1].h.frozen = True

    def __call__(self, x: Any, y: Any) -> Any:
        act, before = self.activation.get(), self.cut.get() == "before"
        top = len(self.layers) - 1
        for level, (layer, vode) in enumerate(zip(self.layers, self.vodes, strict=True)):
            if before:
                x = vode(layer(act(x) if level else x))
            else:
                x = vode(layer(x) if level == top else act(layer(x)))
        if y is not None:
            self.vodes[-1].set("h", y)
        return self.vodes[-1].get("u")


NODES = pxc.VodeParam | pxc.VodeParam.Cache


@pxf.vmap(pxu.M(NODES).to((None, 0)), in_axes=(0, 0), out_axes=0)
def forward(x: Any, y: Any, *, model: Network) -> Any:
    """Fill the nodes."""
    return model(x, y)


@pxf.vmap(pxu.M(NODES).to((None, 0)), in_axes=(0,), out_axes=(None, 0), axis_name="batch")
def energy(x: Any, *, model: Network) -> Any:
    """Return the energy, averaged over the batch."""
    output = model(x, None)
    return jax.lax.pmean(model.energy(), "batch"), output


@pxf.jit(static_argnums=0)
def update(n_steps: int, x: Any, y: Any, *, model: Network, weights: Any, nodes: Any) -> None:
    """Settle and take one step of the weights."""
    model.train()
    with pxu.step(model, pxc.STATUS.INIT, clear_params=pxc.VodeParam.Cache):
        forward(x, y, model=model)
    nodes.init(pxu.M_hasnot(pxc.VodeParam, frozen=True)(model))
    for _ in range(n_steps):
        with pxu.step(model, clear_params=pxc.VodeParam.Cache):
            _, slope = pxf.value_and_grad(
                pxu.M_hasnot(pxc.VodeParam, frozen=True).to([False, True]), has_aux=True
            )(energy)(x, model=model)
        nodes.step(model, slope["model"], scale_by=float(len(x)))
    with pxu.step(model, clear_params=pxc.VodeParam.Cache):
        _, slope = pxf.value_and_grad(pxu.M(pxnn.LayerParam).to([False, True]), has_aux=True)(
            energy
        )(x, model=model)
    weights.step(model, slope["model"])


def start(model: Network, batch: int, n_in: int, by_nodes: Any, by_weights: Any) -> tuple[Any, Any]:
    """Return the optimisers of nodes and weights."""
    with pxu.step(model, pxc.STATUS.INIT, clear_params=pxc.VodeParam.Cache):
        forward(jnp.zeros((batch, n_in)), None, model=model)
        nodes = pxu.Optim(lambda: by_nodes, pxu.M_hasnot(pxc.VodeParam, frozen=True)(model))
        weights = pxu.Optim(lambda: by_weights, pxu.M(pxnn.LayerParam)(model))
    return nodes, weights


def main() -> None:
    """Build the network of the problem and serve."""
    problem = Problem(sys.argv[1])
    model = Network(problem.sizes, jax.nn.tanh)
    for layer, weight, bias in zip(model.layers, problem.weights, problem.biases, strict=True):
        layer.nn.weight.set(jnp.asarray(weight))
        layer.nn.bias.set(jnp.asarray(bias))
    x, y = jnp.asarray(problem.x), jnp.asarray(problem.y)
    nodes, weights = start(model, len(x), x.shape[1], optax.sgd(problem.rate),
                           optax.sgd(problem.learning_rate))  # fmt: skip

    def last() -> Any:
        return [layer.nn.weight.get() for layer in model.layers]

    serve(
        {"name": "pcx", "version": version("pcx"), "cut": "before_activation"},
        lambda: update(problem.n_steps, x, y, model=model, weights=weights, nodes=nodes),
        lambda: [np.asarray(vode.h.get()) for vode in model.vodes[:-1]],
        last,
        lambda: [w.block_until_ready() for w in last()],
    )


if __name__ == "__main__":
    main()
