"""Between torch and the compiled loop: flat arrays that hold one small chain."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pcsim.deep.pc_chain import CODES, Chain
from pcsim.deep.pc_network import States
from pcsim.messages import refusal

__all__ = ["ColumnBuffers", "column_buffers"]

Array = NDArray[Any]


@dataclass(frozen=True, eq=False)
class ColumnBuffers:
    """What the compiled loop works on, for one chain, batch size and number type."""

    states: Array
    weights: Array
    biases: Array
    precisions: Array
    steps: Array
    layout: Array
    ends: tuple[Array, Array]
    """Input and output, as views of `states`."""
    pieces: tuple[tuple[Array, Array], ...]
    """Parameters of the network (sharing its memory), and their places in the flat arrays."""
    pointers: tuple[int, ...]
    """Where those parameters lay; a module that was moved gets new buffers."""
    by_name: States

    def fits(self, chain: Chain, x: Tensor) -> bool:
        """Return whether these buffers serve this batch and these parameters."""
        known = self.by_name[chain.names[0]]
        same = known.shape == x.shape and known.dtype == x.dtype
        return same and pointers_of(chain) == self.pointers

    def run(self, x: Tensor, y: Tensor, settings: tuple[int, int, bool, bool, float]) -> None:
        """Copy everything in, run, and copy out what was learned; see `pc_kernel.run`."""
        from pcsim.deep.pc_kernel import run

        self.ends[0][...], self.ends[1][...] = x.detach().numpy(), y.detach().numpy()
        for what, end in zip(("x", "y"), self.ends, strict=True):
            if not np.isfinite(end).all():
                found = f"{what} with NaN or infinite entries"
                advice = "Remove or replace them."
                raise ValueError(refusal("PlainTrainer", found, "finite numbers", advice))
        # Layers without a bias have a place for one too, which must not gather anything.
        self.biases.fill(0.0)
        for own, place in self.pieces:
            place[...] = own
        run(
            self.states,
            self.weights,
            self.biases,
            self.precisions,
            self.steps,
            self.layout,
            settings,
        )
        for own, place in self.pieces:
            own[...] = place


def pointers_of(chain: Chain) -> tuple[int, ...]:
    """Return where the parameters of a chain lie in memory."""
    return tuple(parameter.data_ptr() for parameter in chain.parameters)


def column_buffers(chain: Chain, like: Tensor, steps: list[float]) -> ColumnBuffers:
    """Lay out the arrays."""
    kind, sizes = like.detach().numpy().dtype, chain.sizes
    offsets = np.concatenate([[0], np.cumsum(sizes)])
    starts = np.concatenate([[0], np.cumsum([k.layer.weight.numel() for k in chain.links])])
    codes = [(CODES[link.before], CODES[link.after]) for link in chain.links] + [(0, 0)]
    layout = [(size, offsets[i], starts[i], *codes[i]) for i, size in enumerate(sizes)]
    states = np.zeros((len(like), offsets[-1]), dtype=kind)
    weights, biases = np.zeros(starts[-1], dtype=kind), np.zeros(sum(sizes[1:]), dtype=kind)
    pieces = []
    for i, link in enumerate(chain.links):
        place = weights[starts[i] : starts[i + 1]].reshape(sizes[i + 1], sizes[i])
        pieces.append((link.layer.weight.detach().numpy(), place))
        if link.layer.bias is not None:
            first = offsets[i + 1] - sizes[0]
            place = biases[first : first + sizes[i + 1]]
            pieces.append((link.layer.bias.detach().numpy(), place))
    shared = torch.from_numpy(states)
    return ColumnBuffers(
        states=states,
        weights=weights,
        biases=biases,
        precisions=np.array(chain.precisions, dtype=kind),
        steps=np.asarray(steps, dtype=kind),
        layout=np.array(layout, dtype=np.int64),
        ends=(states[:, : sizes[0]], states[:, offsets[-2] :]),
        pieces=tuple(pieces),
        pointers=pointers_of(chain),
        by_name={
            name: shared[:, offsets[i] : offsets[i + 1]] for i, name in enumerate(chain.names)
        },
    )
