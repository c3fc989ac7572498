"""Fixed plain steps on chains, fast: which path a network can take, and a trainer that takes it.

Three paths give the same numbers: ``"general"`` (automatic differentiation, any graph),
``"fused"`` (torch, in place, any chain) and ``"compiled"`` (numba, small chains on the processor).
"""

from __future__ import annotations

import functools
import importlib.util
from typing import final

import torch
from torch import Tensor

from pcsim.deep.grad_mode import recording
from pcsim.deep.pc_chain import Chain, chain_of
from pcsim.deep.pc_checks import check_target, check_together, check_values
from pcsim.deep.pc_column import ColumnBuffers, column_buffers, lie_plainly
from pcsim.deep.pc_descent import GradientDescent, steps_of
from pcsim.deep.pc_errors import ErrorOptimisation
from pcsim.deep.pc_fused import FusedLoop
from pcsim.deep.pc_gradients import energy_gradients, trainable
from pcsim.deep.pc_inference import (
    WORST,
    check_method,
    diverged,
    infer,
    largest_misfit,
    misfit,
    take_steps,
)
from pcsim.deep.pc_network import PCNetwork, States
from pcsim.messages import check_choice, check_number, refusal

__all__ = ["PlainTrainer", "path_for"]

PATHS = ("general", "fused", "compiled")
COMPILED_WORK = 100_000
"""Multiplications a step (batch times weights) up to which the compiled path is faster."""
COMPILED_TYPES = (torch.float32, torch.float64)
KEY = "log_precision"

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
    return choose(learning_chain(network, method), method, example)


def learning_chain(network: PCNetwork, method: Plain) -> Chain | None:
    """Return the chain that plain steps settle and teach in place, or None."""
    chain = chain_of(network) if getattr(method, "is_plain", False) else None
    if chain is None or chain.parameters is None or network.outputs != chain.names[-1:]:
        return None
    parts = {id(part) for part in network.modules()}
    return chain if all(id(link.layer) in parts for link in chain.links) else None


def choose(chain: Chain | None, method: Plain, example: Tensor) -> str:
    """Return the fastest path for a chain (None: no chain, or more than plain steps)."""
    if chain is None or chain.parameters is None or chain.rows(example).ndim != 2:
        return "general"
    example = chain.rows(example)
    known = example.dtype in COMPILED_TYPES
    compiles = chain.is_known and not method.momentum
    small = compiles and len(example) * chain.n_weights <= COMPILED_WORK
    if small and known and example.device.type == "cpu" and has_numba():
        return "compiled" if lie_plainly(chain, example) else "fused"
    return "fused"


def precisions_of(network: PCNetwork) -> list[tuple[dict[str, Tensor | None], Tensor, int]]:
    """Return where fixed precisions are kept, what lies there, and how often it was written."""
    kept = [own for part in network.energies if KEY in (own := network.energies[part]._buffers)]
    return [(own, p, p._version) for own in kept if (p := own[KEY]) is not None]


@functools.cache
def has_numba() -> bool:
    """Return whether numba is installed."""
    return importlib.util.find_spec("numba") is not None


@final
class PlainTrainer:
    """Inference in a fixed number of plain steps and one step of weights, as fast as they come.

    Layers, activations and hooks are looked at when the trainer is made, and what is written to a
    precision through `.data` is not seen: make another trainer then. Every call holds the input and
    the output, starts at the feedforward pass, settles by `method` and moves weights and biases by
    `learning_rate` times weighted error times presynaptic rate, averaged over the batch. Frozen
    parameters stay. Activities that run off (as in `infer`) end in a RuntimeError and leave the
    weights as they were.

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
        compiled path compiles for some seconds the first time that it is used on a machine. The two
        faster ones need weights and biases that are parameters of the network: those that are made
        of others (weight_norm) learn on the general path.

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
        check_method("PlainTrainer", method)
        check_number("PlainTrainer", "learning_rate", learning_rate, low=0.0)
        if len(network.inputs) != 1 or len(network.outputs) != 1:
            found = f"inputs {list(network.inputs)} and outputs {list(network.outputs)}"
            raise ValueError(refusal("PlainTrainer", found, "one input and one output"))
        self.network, self.method = network, method
        self.learning_rate, self.path = learning_rate, path
        self.chain, self._precisions = learning_chain(network, method), precisions_of(network)
        if path in ("fused", "compiled") and self.chain is None:
            advice = "Take path='general' or 'auto'."
            found = "a network or a method beyond plain steps on a chain with weights of its own"
            raise ValueError(refusal(f"PlainTrainer: {path}", found, "a plain chain", advice))
        if path == "compiled" and self.chain and (method.momentum or not self.chain.is_known):
            found, advice = "momentum or an activation that it has not", "Take path='fused'."
            raise ValueError(refusal("PlainTrainer: compiled", found, "plain steps", advice))
        if path == "compiled" and not has_numba():
            advice = "Install pcsim[deep], or take path='fused'."
            raise RuntimeError(refusal("PlainTrainer: compiled", "no numba", "numba", advice))
        self._check_memory()
        self.steps: list[float] = []
        if self.chain is not None:
            names = self.chain.names[1:-1]
            self.steps = list(steps_of("PlainTrainer", method.step, names).values())
        self.states: States = {}
        """Where the last call settled; overwritten by the next."""
        self._loop: FusedLoop | None = None
        self._column: ColumnBuffers | None = None

    def __call__(self, x: Tensor, y: Tensor) -> None:
        """Settle on one batch, x (batch, ...) and y (batch, ...), and move the weights."""
        # Precisions are read once; load_state_dict and .to() write them anew.
        if any([own.get(KEY) is not p or p._version != n for own, p, n in self._precisions]):
            self.chain = learning_chain(self.network, self.method)
            self._precisions, self._loop, self._column = precisions_of(self.network), None, None
        if self.chain is None or not self.chain.flattens or not isinstance(x, Tensor):
            self._learn(self.chain, x, y)
        else:
            self._learn(self.chain, self.chain.rows(x), y)
            self.states = {**self.states, self.chain.names[0]: x}

    def _learn(self, chain: Chain | None, x: Tensor, y: Tensor) -> None:
        """Do so by the fastest path, with what enters the first layer of a chain."""
        path, column = self.path, self._column
        if path in ("auto", "compiled") and chain and column and column.fits(chain, x):
            self._check(chain, x, y)
            self._compiled(chain, column, x, y)
            return
        self._check_memory()
        path = choose(chain, self.method, x) if path == "auto" else path
        if path == "general" or chain is None:
            self._general(x, y)
            return
        self._check(chain, x, y)
        if path == "fused":
            self._fused(chain, x, y)
        else:
            self._column = column_buffers(chain, x, self.steps)
            self._compiled(chain, self._column, x, y)

    def _check_memory(self) -> None:
        """Refuse a path that cannot write the weights where they lie."""
        if self.path not in ("fused", "compiled") or self.chain is None:
            return
        where, parameters = f"PlainTrainer: {self.path}", self.chain.parameters
        if parameters is None:
            found, advice = "weights made of other parameters", "Take path='general' or 'auto'."
            raise ValueError(refusal(where, found, "weights that are parameters", advice))
        if self.path == "compiled" and not lie_plainly(self.chain, parameters[0]):
            found = "weights with gaps in memory, used twice, or of several types or devices"
            expected = "dense weights of one type on the processor, each in its own memory"
            raise ValueError(refusal(where, found, expected, "Take path='fused'."))
        if self.path == "compiled" and parameters[0].dtype not in COMPILED_TYPES:
            found = f"weights of {parameters[0].dtype}"
            raise ValueError(refusal(where, found, "float32 or float64", "Take path='fused'."))

    def _check(self, chain: Chain, x: Tensor, y: Tensor) -> None:
        ends, weight = (chain.sizes[0], chain.sizes[-1]), chain.links[0].layer.weight
        same = all(v.dtype == weight.dtype and v.device == weight.device for v in (x, y))
        if same and x.shape == (len(x), ends[0]) and y.shape == (len(x), ends[1]) and len(x):
            if chain.softmax:
                last = chain.names[-1]
                check_target("PlainTrainer", last, self.network.nodes[last].energy, y)
            return
        for what, value, size in (("x", x, ends[0]), ("y", y, ends[1])):
            check_values("PlainTrainer", what, value)
            if value.ndim != 2 or value.shape[1] != size:
                found = f"{what} of shape {tuple(value.shape)}"
                raise ValueError(refusal("PlainTrainer", found, f"(batch, {size})"))
        check_together("PlainTrainer", self.network, {"x": x, "y": y})

    @recording()
    def _general(self, x: Tensor, y: Tensor) -> None:
        clamp = {self.network.inputs[0]: x, self.network.outputs[0]: y}
        settled = infer(self.network, clamp, self.method, record=True)
        self.states = settled.states
        parameters = trainable(self.network)
        gradients = energy_gradients(
            self.network, self.states, idle=settled.idle, unseen=settled.unseen
        )
        with torch.no_grad():
            for name, gradient in gradients.items():
                parameters[name].sub_(gradient, alpha=self.learning_rate)

    def _fused(self, chain: Chain, x: Tensor, y: Tensor) -> None:
        for what, value in (("x", x), ("y", y)):
            check_values("PlainTrainer", what, value)
        loop = self._loop
        if loop is None or loop.batch != len(x) or loop.kind != (x.dtype, x.device):
            loop = self._loop = FusedLoop(chain, x)
        with torch.no_grad():
            loop.begin(x, y)
            take_steps(loop, self.method, self.steps)
            loop.refresh()
            found, usual = misfit(loop), WORST * sum(state.numel() for state in loop.states)
            if not found <= usual and not found <= largest_misfit(chain, x, y):
                raise self._ran_off()
            loop.learn(self.learning_rate)
        self.states = dict(zip(chain.names, loop.states, strict=True))

    def _compiled(self, chain: Chain, column: ColumnBuffers, x: Tensor, y: Tensor) -> None:
        in_errors = isinstance(self.method, ErrorOptimisation)
        settings = (int(in_errors), self.method.n_steps, chain.softmax, self.learning_rate)
        settled = column.run(x, y, (*settings, WORST * column.states.size))
        # Rarely the misfit was as large at the start: that is looked at when it matters.
        if not settled and not column.run(x, y, (*settings, largest_misfit(chain, x, y))):
            raise self._ran_off()
        self.states = column.by_name

    def _ran_off(self) -> RuntimeError:
        found = "errors not finite, or out of all proportion to the first ones,"
        return diverged(self.method, self.method.n_steps, found)
