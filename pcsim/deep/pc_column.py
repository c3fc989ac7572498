"""Between torch and the compiled loop: flat arrays that hold one small chain."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pcsim.deep.pc_chain import Chain
from pcsim.deep.pc_functions import CODES
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
    addresses: Array
    """Where input, output, and weight and bias (or 0) of each link lie."""
    pointers: tuple[int, ...]
    """Where those parameters lay; a module that was moved gets new buffers."""
    by_name: States

    def fits(self, chain: Chain, x: Tensor) -> bool:
        """Return whether these buffers serve this batch and these parameters."""
        known = self.by_name[chain.names[0]]
        same = known.shape == x.shape and known.dtype == x.dtype
        return same and pointers_of(chain) == self.pointers

    def run(self, x: Tensor, y: Tensor, settings: tuple[int, int, bool, bool, float]) -> bool:
        """Run on the tensors where they lie (see `pc_kernel.run`); return whether it settled."""
        from pcsim.deep.pc_kernel import run_at

        x, y = x.contiguous(), y.contiguous()
        self.addresses[0], self.addresses[1] = x.data_ptr(), y.data_ptr()
        code = run_at(
            self.addresses,
            self.states,
            self.weights,
            self.biases,
            self.precisions,
            self.steps,
            self.layout,
            settings,
        )
        if code == 1:
            found = "x or y with NaN or infinite entries"
            advice = "Remove or replace them."
            raise ValueError(refusal("PlainTrainer", found, "finite numbers", advice))
        return code == 0


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
    biases_at = [0 if k.layer.bias is None else k.layer.bias.data_ptr() for k in chain.links]
    pairs = zip((k.layer.weight.data_ptr() for k in chain.links), biases_at, strict=True)
    addresses = [0, 0, *(address for pair in pairs for address in pair)]
    shared = torch.from_numpy(states)
    return ColumnBuffers(
        states=states,
        weights=weights,
        biases=biases,
        precisions=np.array(chain.precisions, dtype=kind),
        steps=np.asarray(steps, dtype=kind),
        layout=np.array(layout, dtype=np.int64),
        addresses=np.array(addresses, dtype=np.int64),
        pointers=pointers_of(chain),
        by_name={
            name: shared[:, offsets[i] : offsets[i + 1]] for i, name in enumerate(chain.names)
        },
    )
