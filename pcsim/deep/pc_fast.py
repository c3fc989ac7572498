"""Fixed plain steps on chains, fast: which path a network can take, and a trainer that takes it.

Three paths give the same numbers: ``"general"`` (automatic differentiation, any graph),
``"fused"`` (torch, in place, any chain) and ``"compiled"`` (numba, small chains on the processor).
"""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from typing import Any, final

import numpy as np
import torch
from torch import Tensor

from pcsim.deep.pc_chain import CODES, Chain, FusedLoop, chain_of
from pcsim.deep.pc_clamp import check_together, check_values
from pcsim.deep.pc_descent import GradientDescent, steps_of
from pcsim.deep.pc_errors import ErrorOptimisation
from pcsim.deep.pc_inference import infer
from pcsim.deep.pc_learning import energy_gradients, trainable
from pcsim.deep.pc_network import PCNetwork, States
from pcsim.messages import check_choice, check_number, refusal

__all__ = ["PlainTrainer", "path_for"]

PATHS = ("general", "fused", "compiled")
COMPILED_WORK = 100_000
"""Multiplications a step (batch times weights) up to which the compiled path is faster."""

Plain = GradientDescent | ErrorOptimisation


def path_for(network: PCNetwork, method: Plain, example: Tensor) -> str:
    """Return the fastest path for plain steps on a network whose two ends are held.

    Examples
    --------
    >>> from pcsim.deep.pc_trace import predictive_coding
    >>> net = torch.nn.Sequential(torch.nn.Linear(784, 256), torch.nn.Linear(256, 10))
    >>> path_for(predictive_coding(net), GradientDescent(), torch.zeros(256, 784))
    'fused'
    """
    chain = chain_of(network)
    if chain is None or not method.is_plain or example.ndim != 2:
        return "general"
    work = len(example) * sum(link.layer.weight.numel() for link in chain.links)
    known = example.dtype in (torch.float32, torch.float64)
    small = example.device.type == "cpu" and known and work <= COMPILED_WORK
    return "compiled" if small and importlib.util.find_spec("numba") else "fused"


@final
class PlainTrainer:
    """Inference in a fixed number of plain steps and one step of weights, as fast as they come.

    Every call holds the input and the output, starts at the feedforward pass, settles by `method`
    and moves weights and biases by `learning_rate` times weighted error times presynaptic rate,
    averaged over the batch.

    Parameters
    ----------
    network
        One input, one output; its parameters are changed in place.
    method
        `GradientDescent` or `ErrorOptimisation`, plain on the two faster paths.
    learning_rate
        Of plain gradient descent on the weights.
    path
        ``"general"``, ``"fused"``, ``"compiled"``, or ``"auto"``: by `path_for` at each call. The
        compiled path compiles for some seconds the first time that it is used on a machine.

    Examples
    --------
    >>> from pcsim.deep.pc_trace import predictive_coding
    >>> network = predictive_coding(torch.nn.Sequential(torch.nn.Linear(4, 2)))
    >>> trainer = PlainTrainer(network, GradientDescent(n_steps=5), learning_rate=0.1, path="fused")
    >>> trainer(torch.ones(3, 4), torch.zeros(3, 2))
    >>> sorted(trainer.states)
    ['input', 'output']
    """

    def __init__(
        self,
        network: PCNetwork,
        method: Plain,
        *,
        learning_rate: float,
        path: str = "auto",
    ) -> None:
        check_choice("PlainTrainer", "path", path, ("auto", *PATHS))
        check_number("PlainTrainer", "learning_rate", learning_rate, low=0.0)
        if len(network.inputs) != 1 or len(network.outputs) != 1:
            found = f"inputs {list(network.inputs)} and outputs {list(network.outputs)}"
            raise ValueError(refusal("PlainTrainer", found, "one input and one output"))
        self.network, self.method = network, method
        self.learning_rate, self.path = learning_rate, path
        self.chain = chain_of(network)
        if path in ("fused", "compiled") and (self.chain is None or not method.is_plain):
            advice = "Take path='general' or 'auto'."
            found = "a network or a method beyond plain steps on a chain"
            raise ValueError(refusal(f"PlainTrainer: {path}", found, "a plain chain", advice))
        self.states: States = {}
        """Where the last call settled; overwritten by the next."""
        self._loop: FusedLoop | None = None
        self._column: ColumnBuffers | None = None

    def __call__(self, x: Tensor, y: Tensor) -> None:
        """Settle on one batch, x (batch, ...) and y (batch, ...), and move the weights."""
        path = path_for(self.network, self.method, x) if self.path == "auto" else self.path
        if path == "general" or self.chain is None:
            self._general(x, y)
            return
        self._check(x, y)
        steps = list(steps_of("PlainTrainer", self.method.step, self.chain.names[1:-1]).values())
        if path == "fused":
            self._fused(self.chain, x, y, steps)
        else:
            self._compiled(self.chain, x, y, steps)

    def _check(self, x: Tensor, y: Tensor) -> None:
        sizes = self.chain.sizes if self.chain else ()
        for what, value, size in (("x", x, sizes[0]), ("y", y, sizes[-1])):
            check_values("PlainTrainer", what, value)
            if value.ndim != 2 or value.shape[1] != size:
                found = f"{what} of shape {tuple(value.shape)}"
                raise ValueError(refusal("PlainTrainer", found, f"(batch, {size})"))
        check_together("PlainTrainer", self.network, {"x": x, "y": y})

    def _general(self, x: Tensor, y: Tensor) -> None:
        clamp = {self.network.inputs[0]: x, self.network.outputs[0]: y}
        self.states = infer(self.network, clamp, self.method).states
        parameters = trainable(self.network)
        with torch.no_grad():
            for name, gradient in energy_gradients(self.network, self.states).items():
                parameters[name].sub_(gradient, alpha=self.learning_rate)

    def _fused(self, chain: Chain, x: Tensor, y: Tensor, steps: list[float]) -> None:
        loop = self._loop
        if loop is None or loop.batch != len(x) or loop.kind != (x.dtype, x.device):
            loop = self._loop = FusedLoop(chain, x)
        with torch.no_grad():
            loop.begin(x, y)
            loop.run(self.method.n_steps, steps, in_errors=isinstance(self.method, ErrorOptimisation))
            loop.learn(self.learning_rate)
        self.states = dict(zip(chain.names, loop.states, strict=True))

    def _compiled(self, chain: Chain, x: Tensor, y: Tensor, steps: list[float]) -> None:
        column = self._column
        if column is None or column.states.shape[0] != len(x) or column.kind != x.dtype:
            column = self._column = column_buffers(chain, x)
        column.run(chain, x, y, self.method, steps, self.learning_rate)
        self.states = column.by_name


@dataclass(frozen=True, eq=False)
class ColumnBuffers:
    """Flat arrays that the compiled loop works on, for one chain, batch size and number type."""

    kind: torch.dtype
    states: np.ndarray[Any, Any]
    weights: np.ndarray[Any, Any]
    biases: np.ndarray[Any, Any]
    precisions: np.ndarray[Any, Any]
    layout: np.ndarray[Any, Any]
    pieces: tuple[tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]], ...]
    """Weights and biases again, as views by link."""
    ends: tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]
    by_name: States

    def run(
        self,
        chain: Chain,
        x: Tensor,
        y: Tensor,
        method: Plain,
        steps: list[float],
        learning_rate: float,
    ) -> None:
        """Copy everything in, run, and copy what was learned out."""
        from pcsim.deep.pc_kernel import run

        self.ends[0][...], self.ends[1][...] = x.detach().numpy(), y.detach().numpy()
        arrays = []
        for link, (weight, bias) in zip(chain.links, self.pieces, strict=True):
            own = link.layer.weight.detach().numpy()
            own_bias = None if link.layer.bias is None else link.layer.bias.detach().numpy()
            weight[...] = own
            bias[...] = 0.0 if own_bias is None else own_bias
            arrays.append((own, own_bias))
        mode = int(isinstance(method, ErrorOptimisation))
        run(
            self.states,
            self.weights,
            self.biases,
            self.precisions,
            np.asarray(steps, dtype=self.states.dtype),
            self.layout,
            (mode, method.n_steps, chain.softmax, True, float(learning_rate)),
        )
        for (weight, bias), (own, own_bias) in zip(self.pieces, arrays, strict=True):
            own[...] = weight
            if own_bias is not None:
                own_bias[...] = bias


def column_buffers(chain: Chain, like: Tensor) -> ColumnBuffers:
    """Lay out the arrays."""
    kind = like.detach().numpy().dtype
    sizes = chain.sizes
    offsets = np.concatenate([[0], np.cumsum(sizes)])
    counts = [link.layer.weight.numel() for link in chain.links]
    starts = np.concatenate([[0], np.cumsum(counts)])
    codes = [(CODES[link.before], CODES[link.after]) for link in chain.links] + [(0, 0)]
    layout = np.array(
        [(size, offsets[i], starts[i], *codes[i]) for i, size in enumerate(sizes)], dtype=np.int64
    )
    states = np.zeros((len(like), offsets[-1]), dtype=kind)
    weights, biases = np.zeros(starts[-1], dtype=kind), np.zeros(sum(sizes[1:]), dtype=kind)
    pieces = tuple(
        (
            weights[starts[i] : starts[i + 1]].reshape(sizes[i + 1], sizes[i]),
            biases[offsets[i + 1] - sizes[0] : offsets[i + 2] - sizes[0]],
        )
        for i in range(len(chain.links))
    )
    by_name = {
        name: torch.from_numpy(states)[:, offsets[i] : offsets[i + 1]]
        for i, name in enumerate(chain.names)
    }
    ends = states[:, : sizes[0]], states[:, offsets[-2] :]
    precisions = np.array(chain.precisions, dtype=kind)
    return ColumnBuffers(
        like.dtype, states, weights, biases, precisions, layout, pieces, ends, by_name
    )
