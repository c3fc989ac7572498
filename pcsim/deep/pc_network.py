"""A predictive-coding network: activities on a directed acyclic graph, predicted by their parents.

The direction of the graph is the direction of prediction. A classifier predicts the label from the
image, a generative network the image from the label; both are the same object.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, cast, final

from torch import Tensor, nn

from pcsim.deep.pc_energy import Energy, SquaredError
from pcsim.messages import check_integer, refusal, unknown_name

__all__ = ["Node", "PCNetwork", "Prior", "States", "for_all"]

IN_PLACE = ("iadd", "isub", "imul", "itruediv", "setitem")

States = dict[str, Tensor]
"""Name of a node -> its activity, (batch, ...)."""


@dataclass(frozen=True)
class Node:
    """An activity and how its parents predict it."""

    name: str
    parents: tuple[str, ...]
    """None for a root with a prior, whose `predict` is called without arguments (see `Prior`)."""
    predict: Callable[..., Tensor]
    """Parents' activities, in order, to the prediction: a module or any function of tensors."""
    energy: Energy = field(default_factory=SquaredError)


@final
class Prior(nn.Module):
    """The prediction of a root: a mean of the shape of one example, learned if asked.

    Examples
    --------
    >>> import torch
    >>> root = Node("z", (), Prior(torch.zeros(3)), SquaredError(0.7))
    """

    mean: Tensor

    def __init__(self, mean: Tensor, *, learnable: bool = False) -> None:
        super().__init__()
        if learnable:
            self.mean = nn.Parameter(mean.detach().clone())
        else:
            self.register_buffer("mean", mean.detach().clone())

    def forward(self) -> Tensor:
        """Return the mean."""
        return self.mean


@final
class PCNetwork(nn.Module):
    r"""Nodes whose activities :math:`z_i` their parents predict.

    .. math:: F = \sum_i F_i\left(z_i, p_i\right), \qquad
        p_i = f_i\left(z_j : j \in \mathrm{parents}(i)\right)

    Parameters
    ----------
    inputs
        Names of the roots that nothing predicts.
    nodes
        Every other node, parents before children.
    body
        The module that functions among the nodes read their parameters from, if any.
    outputs
        Names of the nodes that `forward` returns; the last one if not given.

    Raises
    ------
    ValueError
        If a name comes twice, is not known, or a node stands before its parent.

    Examples
    --------
    >>> network = PCNetwork(["x"], [Node("y", ("x",), nn.Linear(3, 2))])
    >>> network.names, network.children_of("x")
    (('x', 'y'), ('y',))
    """

    def __init__(
        self,
        inputs: Sequence[str],
        nodes: Sequence[Node],
        *,
        body: nn.Module | None = None,
        outputs: Sequence[str] | None = None,
    ) -> None:
        super().__init__()
        check_graph(inputs, nodes)
        self.inputs = tuple(inputs)
        self.nodes = {node.name: node for node in nodes}
        self.outputs = tuple(outputs) if outputs else (nodes[-1].name,)
        for name in self.outputs:
            self.check_name("PCNetwork", name)
        self.body = body
        self.overwriting = frozenset(n.name for n in nodes if writes_over(n.predict))
        """Nodes whose prediction is computed in place somewhere, from copies of their parents."""
        for node in nodes:
            if not isinstance(node.energy, nn.Module):
                found = f"an energy of type {type(node.energy).__name__} at {node.name!r}"
                expected = "a torch.nn.Module with the methods of Energy"
                raise TypeError(refusal("PCNetwork", found, expected))
        own = {n.name: n.predict for n in nodes if isinstance(n.predict, nn.Module)}
        self.predictors = named_parts(own)
        self.energies = named_parts({n.name: cast(nn.Module, n.energy) for n in nodes})

    @property
    def names(self) -> tuple[str, ...]:
        """All nodes, parents before children."""
        return (*self.inputs, *self.nodes)

    def children_of(self, name: str) -> tuple[str, ...]:
        """Return the nodes that `name` helps to predict."""
        return tuple(n.name for n in self.nodes.values() if name in n.parents)

    def check_name(self, where: str, name: str) -> None:
        """Refuse a name that is not a node."""
        if name not in self.nodes and name not in self.inputs:
            raise unknown_name(where, "node", name, self.names)

    def with_energy(self, name: str, energy: Energy) -> PCNetwork:
        """Return a network of the same nodes and modules, but for the energy of one node."""
        if name not in self.nodes:
            raise unknown_name("with_energy", "predicted node", name, tuple(self.nodes))
        nodes = [
            replace(node, energy=energy) if node.name == name else node
            for node in self.nodes.values()
        ]
        return PCNetwork(self.inputs, nodes, body=self.body, outputs=self.outputs)

    def predict(self, name: str, states: Mapping[str, Tensor]) -> Tensor:
        """Return the prediction of one node, (batch, ...); of a root with a prior, (1, ...)."""
        node = self.nodes[name]
        given = [states[parent] for parent in node.parents]
        if name in self.overwriting:
            given = [activity.clone() for activity in given]
        prediction = node.predict(*given)
        return prediction if node.parents else prediction.unsqueeze(0)

    def predictions(self, states: Mapping[str, Tensor]) -> States:
        """Return the prediction of every node."""
        return {name: self.predict(name, states) for name in self.nodes}

    def errors(self, states: Mapping[str, Tensor]) -> States:
        """Return activity minus expected activity of every node."""
        return {
            name: states[name] - node.energy.mean(self.predict(name, states))
            for name, node in self.nodes.items()
        }

    def weighted_errors(self, states: Mapping[str, Tensor]) -> States:
        """Return what every node sends to its parents: minus dF by its prediction."""
        return {
            name: node.energy.weighted_error(states[name], self.predict(name, states))
            for name, node in self.nodes.items()
        }

    def energy(self, states: Mapping[str, Tensor], *, idle: Collection[str] = ()) -> Tensor:
        """Return the energy of every example, (batch,); nodes named `idle` carry none."""
        terms = []
        for name, node in self.nodes.items():
            if name not in idle:
                terms.append(node.energy(states[name], self.predict(name, states)))
        if not terms:
            first = next(iter(states.values()))
            return first.new_zeros(len(first))
        total = terms[0]
        for term in terms[1:]:
            total = total + term
        return total

    def feedforward(self, given: Mapping[str, Tensor], n_examples: int | None = None) -> States:
        """Return all activities: given ones as they are, others as their parents predict them.

        Parameters
        ----------
        given
            At least all inputs.
        n_examples
            The batch; needed only where a root with a prior is not given and nothing else is.
        """
        missing = [name for name in self.inputs if name not in given]
        if missing:
            raise ValueError(
                refusal(
                    "feedforward",
                    f"no activity of the inputs {missing}",
                    "all of them",
                    "Clamp them, or pass a start in `initial`.",
                )
            )
        for name in given:
            self.check_name("feedforward", name)
        if n_examples is None and not given:
            found, advice = "no activities and no `n_examples`", "Say how many to return."
            raise ValueError(refusal("feedforward", found, "one of them", advice))
        if n_examples is not None:
            check_integer("feedforward", "n_examples", n_examples, low=1)
        n = n_examples if n_examples is not None else max(len(v) for v in given.values())
        states: States = {name: given[name] for name in self.inputs}
        for name, node in self.nodes.items():
            if name in given:
                states[name] = given[name]
                continue
            states[name] = for_all(node.energy.mean(self.predict(name, states)), n)
        return states

    def forward(self, *inputs: Tensor) -> Any:
        """Return the expected outputs for given inputs, as a plain network would."""
        if len(inputs) != len(self.inputs):
            found, expected = f"{len(inputs)} tensors", f"one for each of {list(self.inputs)}"
            raise TypeError(refusal("PCNetwork", found, expected))
        states = self.feedforward(dict(zip(self.inputs, inputs, strict=True)))
        found_outputs = tuple(states[name] for name in self.outputs)
        return found_outputs[0] if len(found_outputs) == 1 else found_outputs


def for_all(value: Tensor, n: int) -> Tensor:
    """Return a value of one example as that of n; of n as it is."""
    if len(value) not in (1, n):
        found, expected = f"{len(value)} rows for {n} examples", "examples along the first axis"
        advice = "Name other values in `cut`, such that each has a row an example."
        raise ValueError(refusal("PCNetwork", found, expected, advice))
    return value if len(value) == n else value.expand(n, *value.shape[1:])


def named_parts(parts: Mapping[str, nn.Module]) -> nn.ModuleDict:
    """Return modules under any names; `nn.ModuleDict` itself refuses "values", "type" and more."""
    found = nn.ModuleDict()
    found._modules.update(parts)
    return found


def writes_over(predict: Callable[..., Tensor]) -> bool:
    """Return whether parts of a prediction are asked to write over what enters them."""
    steps = getattr(predict, "operations", ())
    if any(is_in_place(step.kind, step.target, step.keywords) for step in steps):
        return True
    listed = getattr(predict, "layers", None)
    parts = [predict] if isinstance(predict, nn.Module) else listed() if steps and listed else []
    return any(getattr(m, "inplace", False) for part in parts for m in part.modules())


def is_in_place(kind: str, target: object, keywords: Mapping[str, object]) -> bool:
    """Return whether an operation that is no module writes over what it is given."""
    name = str(getattr(target, "__name__", target))
    written = name in IN_PLACE or (name.endswith("_") and not name.endswith("__"))
    return kind in ("call_function", "call_method") and (written or bool(keywords.get("inplace")))


def check_graph(inputs: Sequence[str], nodes: Sequence[Node]) -> None:
    """Refuse names that come twice, parents that come later, and an empty graph."""
    if not nodes:
        raise ValueError(refusal("PCNetwork", "no nodes", "at least one node with a prediction"))
    seen = set(inputs)
    if len(seen) < len(inputs):
        raise ValueError(refusal("PCNetwork", f"inputs {list(inputs)}", "each name once"))
    every = [*inputs, *(node.name for node in nodes)]
    for node in nodes:
        if isinstance(node.parents, str):
            found, advice = f"parents {node.parents!r}", f"Write ({node.parents!r},)."
            raise TypeError(refusal("PCNetwork", found, "a tuple of names", advice))
        if node.name in seen:
            found = f"node {node.name!r} twice"
            raise ValueError(refusal("PCNetwork", found, "each name once", "Rename one."))
        if "." in node.name or not node.name:
            raise ValueError(refusal("PCNetwork", f"name {node.name!r}", "a name without dots"))
        for parent in node.parents:
            if parent not in every:
                raise unknown_name("PCNetwork", "parent", parent, every)
            if parent not in seen:
                found = f"{node.name!r} before its parent {parent!r}"
                advice = "Order the nodes; a graph with cycles has no such order."
                raise ValueError(refusal("PCNetwork", found, "parents before children", advice))
        seen.add(node.name)
