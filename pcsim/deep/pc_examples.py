"""Examples that a predictive-coding network learns from or is judged by."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import torch
from torch import Tensor

from pcsim.deep.pc_checks import check_together
from pcsim.deep.pc_clamp import Clamp, Masked, pose, split_clamp
from pcsim.deep.pc_network import PCNetwork, States
from pcsim.deep.run_identity import data_digest
from pcsim.messages import refusal

__all__ = ["Examples", "misclassified", "predicted_energy", "supervised"]

Start = Callable[[Clamp], States]


class Examples:
    """What nodes are held at in every example, checked once and taken by rows."""

    def __init__(
        self,
        where: str,
        network: PCNetwork,
        clamp: Clamp,
        device: torch.device,
        *,
        start: Start | None = None,
    ) -> None:
        if not isinstance(clamp, Mapping):
            found, advice = f"examples of type {type(clamp).__name__}", "Such as {'input': x}."
            raise TypeError(refusal(where, found, "node -> tensor", advice))
        moved = {name: moved_to(value, device) for name, value in clamp.items()}
        self.held, self.masked = split_clamp(where, network, moved)
        every = self.held | {name: value for name, (value, _) in self.masked.items()}
        if every:
            check_together(where, network, every)
        self.n = len(next(iter(every.values()))) if every else 0
        self.start = start
        """Clamp -> where free nodes start; None takes the prediction of their parents."""
        self.n_numbers = sum(value[0].numel() for value in every.values())
        self.check_first(where, network)

    def __len__(self) -> int:
        return self.n

    def check_first(self, where: str, network: PCNetwork) -> None:
        """Refuse examples that the network cannot take, or that tell it nothing."""
        first = self.rows(slice(1))
        try:
            begin = None if self.start is None else self.start(first)
            pose(network, first, begin, where=where)
        except RuntimeError as error:
            every = self.held | {name: value for name, (value, _) in self.masked.items()}
            shapes = ", ".join(f"{name!r} {tuple(one.shape[1:])}" for name, one in every.items())
            found, expected = f"examples of shapes {shapes}", "shapes that its layers take"
            advice = f"They say: {str(error).splitlines()[0].rstrip('.')}."
            raise ValueError(refusal(where, found, expected, advice)) from None
        seen = [name for name, (_, mask) in self.masked.items() if bool(mask.any())]
        if not any(name in network.nodes for name in (*self.held, *seen)):
            found = f"nothing held but {sorted([*self.held, *seen])}, which nothing predicts"
            advice = "Hold an output too."
            raise ValueError(refusal(where, found, "a node that others predict", advice))

    def rows(self, rows: Tensor | slice) -> dict[str, Tensor | Masked]:
        """Return the clamp of some examples."""
        parts = {name: Masked(v[rows], mask[rows]) for name, (v, mask) in self.masked.items()}
        return {name: value[rows] for name, value in self.held.items()} | parts

    def batches(self, size: int) -> Iterator[dict[str, Tensor | Masked]]:
        """Yield the clamps of all examples, in order."""
        for begin in range(0, self.n, size):
            yield self.rows(slice(begin, begin + size))

    def digests(self) -> Iterator[tuple[str, str]]:
        """Yield the name of a node and a digest of what it is held at."""
        for name, value in self.held.items():
            yield name, data_digest(value)
        for name, (value, mask) in self.masked.items():
            yield name, f"{data_digest(value)} where {data_digest(mask)}"


def moved_to(value: Tensor | Masked, device: torch.device) -> Tensor | Masked:
    """Return what a node is held at on a device."""
    if isinstance(value, Masked):
        return Masked(value.value.to(device), value.mask.to(device))
    return value.to(device) if isinstance(value, Tensor) else value


def supervised(network: PCNetwork, clamp: Clamp) -> bool:
    """Return whether there are inputs, and they and something they predict are held as a whole."""
    whole = all(isinstance(value, Tensor) for value in clamp.values())
    inputs = bool(network.inputs) and all(name in clamp for name in network.inputs)
    return whole and inputs and any(name in network.nodes for name in clamp)


def predicted_energy(network: PCNetwork, clamp: Clamp) -> Tensor:
    """Return the energy of what is held as the inputs predict it, without inference, (batch,)."""
    states: States = {name: v for name, v in clamp.items() if isinstance(v, Tensor)}
    with torch.no_grad():
        guess = network.feedforward({name: states[name] for name in network.inputs})
        terms = [
            network.nodes[name].energy(value, network.predict(name, guess))
            for name, value in states.items()
            if name in network.nodes
        ]
    return torch.stack(terms).sum(0)


def misclassified(network: PCNetwork, clamp: Clamp) -> Tensor:
    """Return where the largest output that the inputs predict is not the held one's, (batch,).

    Raises
    ------
    ValueError
        If inputs and output are not held as a whole, or the output is no vector of at least two.
    """
    last = network.outputs[0]
    target = clamp.get(last)
    if not supervised(network, clamp) or not isinstance(target, Tensor):
        found, expected = f"a clamp of {sorted(clamp)}", f"inputs and {last!r} held as a whole"
        raise ValueError(refusal("misclassified", found, expected, "Judge by 'energy'."))
    if target.ndim != 2 or target.shape[1] < 2:
        found, expected = f"{last!r} of shape {tuple(target.shape)}", "(batch, n), n at least 2"
        raise ValueError(refusal("misclassified", found, expected, "Judge by 'energy'."))
    with torch.no_grad():
        given = {name: value for name in network.inputs if isinstance(value := clamp[name], Tensor)}
        output = network.feedforward(given)[last]
    return output.argmax(1) != target.argmax(1)
