"""The workload in ngc-learn; run by the Python of ngc-learn's own environment.

    python ngclearn_network.py problem.npz answer.npz

Components as in its museum's predictive-coding network: rate cells, Gaussian error cells, Hebbian
synapses, and feedback synapses that hold the transposed weights. Start, scan over the steps and the
step of the weights are compiled into one call, which its documentation does not do and which is
faster. Convention: nodes before the activation, mu = W tanh(z) + b.
"""

from __future__ import annotations

import itertools
import sys
from importlib.metadata import version
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ngclearn import Context, MethodProcess
from ngclearn.components import GaussianErrorCell, HebbianSynapse, RateCell, StaticSynapse
from ngcsimlib.global_state import stateManager
from serving import Problem, serve


class Network:
    """Cells and synapses of every layer, and their processes."""

    def __init__(self, problem: Problem) -> None:
        shared = {"batch_size": len(problem.x)}
        pairs = list(itertools.pairwise(problem.sizes))
        with Context("network"):
            acts = ["identity"] + ["tanh"] * (len(pairs) - 1)
            self.cells = [
                RateCell(f"z{i}", below, 1.0 / problem.rate, act_fx=act, **shared)
                for i, ((below, _), act) in enumerate(zip(pairs, acts, strict=True))
            ]
            self.errors = [
                GaussianErrorCell(f"e{i}", above, **shared) for i, (_, above) in enumerate(pairs)
            ]
            eta = problem.learning_rate / len(problem.x)
            options = {"eta": eta, "sign_value": -1.0, "w_bound": 0.0, "is_nonnegative": False}
            self.forward = [
                HebbianSynapse(
                    f"w{i}", shape, weight_init=zeros, bias_init=zeros, optim_type="sgd",
                    **options, **shared,
                )
                for i, shape in enumerate(pairs)
            ]  # fmt: skip
            self.backward = [
                StaticSynapse(f"b{i}", (above, below), weight_init=zeros, **shared)
                for i, (below, above) in enumerate(pairs[1:], start=1)
            ]
            self._wire()
            self.step, self.learn = MethodProcess("step"), MethodProcess("learn")
            for part in (*self.forward, *self.errors, *self.backward, *self.cells[1:]):
                self.step.then(part.advance_state)
            for part in (*self.forward, *self.errors):
                self.learn.then(part.advance_state)
            for synapse in self.forward:
                self.learn.then(synapse.evolve)

    def _wire(self) -> None:
        for cell, error, synapse in zip(self.cells, self.errors, self.forward, strict=True):
            cell.zF >> synapse.inputs
            synapse.outputs >> error.mu
            cell.zF >> synapse.pre
            error.dmu >> synapse.post
        above = zip(self.cells[1:], self.errors[:-1], self.errors[1:], self.backward, strict=True)
        for cell, own, error, synapse in above:
            cell.z >> own.target
            own.dtarget >> cell.j_td
            error.dmu >> synapse.inputs
            synapse.outputs >> cell.j


def zeros(shape: tuple[int, ...], _: Any) -> Any:
    """Return zeros; all weights come from the problem."""
    return jnp.zeros(shape)


def compiled(network: Network, problem: Problem) -> Any:
    """Return one update, a pure function of the state of all components."""
    step, learn = network.step, network.learn
    rows = jnp.asarray(step.pack_rows(problem.n_steps, dt=1.0))
    last = learn.pack_keywords(dt=1.0, row_seed=0)

    def update(state: dict[str, Any]) -> dict[str, Any]:
        state = dict(state)
        for synapse, back in zip(network.forward[1:], network.backward, strict=True):
            state[back.weights.target] = state[synapse.weights.target].T
        rate = state[network.cells[0].zF.target]
        for cell, synapse in zip(network.cells[1:], network.forward[:-1], strict=True):
            z = rate @ state[synapse.weights.target] + state[synapse.biases.target]
            rate = jnp.tanh(z)
            state |= {cell.z.target: z, cell.zF.target: rate}
        state, _ = jax.lax.scan(step.run.compiled, state, rows)
        state, _ = learn.run.compiled(state, last)
        return state

    return jax.jit(update)


def main() -> None:
    """Build the network of the problem and serve."""
    problem = Problem(sys.argv[1])
    network = Network(problem)
    for synapse, weight, bias in zip(network.forward, problem.weights, problem.biases, strict=True):
        synapse.weights.set(jnp.asarray(weight.T))
        synapse.biases.set(jnp.asarray(bias[None]))
    network.cells[0].z.set(jnp.asarray(problem.x))
    network.cells[0].zF.set(jnp.asarray(problem.x))
    network.errors[-1].target.set(jnp.asarray(problem.y))
    once = compiled(network, problem)
    arrays = {key: jnp.asarray(value) for key, value in stateManager.state.items()}
    now = {"state": arrays}

    def update() -> None:
        now["state"] = once(now["state"])

    serve(
        {"name": "ngc-learn", "version": version("ngclearn"), "cut": "before_activation"},
        update,
        lambda: [np.asarray(now["state"][cell.z.target]) for cell in network.cells[1:]],
        lambda: [np.asarray(now["state"][one.weights.target]).T for one in network.forward],
        lambda: jax.block_until_ready(now["state"]),
    )


if __name__ == "__main__":
    main()
