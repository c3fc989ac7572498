"""The workload in FabricPC; run by the Python of FabricPC's own environment.

    python fabricpc_network.py problem.npz answer.npz

Convention: nodes behind the activation, mu = tanh(W z + b), the output linear. The weights' slope
is averaged over the batch.
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
from fabricpc.core.activations import IdentityActivation, TanhActivation
from fabricpc.core.inference import InferenceSGD
from fabricpc.core.topology import Edge
from fabricpc.core.types import GraphParams, NodeParams
from fabricpc.graph_assembly import TaskMap, graph
from fabricpc.graph_initialization import initialize_params
from fabricpc.nodes import Linear
from fabricpc.training.trainer import make_train_step
from serving import Problem, serve


def build(problem: Problem) -> tuple[Any, Any, list[str]]:
    """Return the structure, its parameters and the names of all nodes but the input."""
    names = [f"node_{i}" for i in range(len(problem.sizes))]
    top = len(names) - 1
    acts = [TanhActivation() if 0 < i < top else IdentityActivation() for i in range(top + 1)]
    parts = zip(problem.sizes, names, acts, strict=True)
    nodes = [Linear(shape=(n,), name=name, activation=act) for n, name, act in parts]
    pairs = itertools.pairwise(nodes)
    structure = graph(
        nodes=nodes,
        edges=[Edge(source=below, target=above.slot("in")) for below, above in pairs],
        task_map=TaskMap(x=nodes[0], y=nodes[-1]),
        inference=InferenceSGD(eta_infer=problem.rate, infer_steps=problem.n_steps),
    )
    parameters = initialize_params(structure, jax.random.PRNGKey(0))
    filled = dict(parameters.nodes)
    for name, weight, bias in zip(names[1:], problem.weights, problem.biases, strict=True):
        (edge,) = filled[name].weights
        filled[name] = NodeParams(
            weights={edge: jnp.asarray(weight.T)}, biases={"b": jnp.asarray(bias[None])}
        )
    return structure, GraphParams(nodes=filled), names[1:]


def main() -> None:
    """Build the network of the problem and serve."""
    problem = Problem(sys.argv[1])
    structure, parameters, names = build(problem)
    optimiser = optax.sgd(problem.learning_rate)
    step = make_train_step(structure, optimiser)
    batch = {"x": jnp.asarray(problem.x), "y": jnp.asarray(problem.y)}
    now: dict[str, Any] = {"p": parameters, "o": optimiser.init(parameters), "s": None}
    key = jax.random.PRNGKey(1)

    def update() -> None:
        now["p"], now["o"], _, now["s"] = step(now["p"], now["o"], batch, key)

    serve(
        {"name": "FabricPC", "version": version("fabricpc"), "cut": "after_activation"},
        update,
        lambda: [now["s"].nodes[name].z_latent for name in names[:-1]],
        lambda: [np.asarray(next(iter(now["p"].nodes[name].weights.values()))).T for name in names],
        lambda: jax.block_until_ready(now["p"]),
    )


if __name__ == "__main__":
    main()
