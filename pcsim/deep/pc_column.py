"""Between torch and the compiled loop: flat arrays that hold one small chain."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from pcsim.deep.pc_chain import Chain
from pcsim.deep.pc_functions import CODES
from pcsim.deep.pc_network import States
from pcsim.messages import refusal

__all__ = ["ColumnBuffers", "column_buffers", "lie_plainly"]

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
    places: tuple[tuple[dict[str, nn.Parameter | None], str, nn.Parameter, int], ...]
    """Of each weight and bias: its layer's parameters, its name there, itself (held, so that its
    memory is not given away) and where it lies. A module that was moved gets new buffers."""
    by_name: States

    def fits(self, chain: Chain, x: Tensor) -> bool:
        """Return whether these buffers serve this batch and these parameters."""
        known = self.by_name[chain.names[0]]
        if known.shape != x.shape or known.dtype != x.dtype:
            return False
        for own, key, parameter, at in self.places:  # written out: it is asked at every call
            if own.get(key) is not parameter or parameter.data_ptr() != at:
                return False
            if not parameter.is_contiguous():
                return False
        return True

    def run(self, x: Tensor, y: Tensor, settings: tuple[int, int, bool, float, float]) -> bool:
        """Run where the tensors lie, frozen weights as they were; return whether it settled."""
        frozen = [place[2] for place in self.places if not place[2].requires_grad]
        kept = [parameter.detach().clone() for parameter in frozen]
        settled = self.run_all(x, y, settings)
        for parameter, value in zip(frozen, kept, strict=True):
            parameter.detach().copy_(value)
        return settled

    def run_all(self, x: Tensor, y: Tensor, settings: tuple[int, int, bool, float, float]) -> bool:
        """Run and move all weights (see `pc_kernel.run`)."""
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


def lie_plainly(chain: Chain, like: Tensor) -> bool:
    """Return whether the compiled loop can read and write a chain's weights where they lie.

    Each in its own memory without gaps, of the type and shape that the loop reads.
    """
    parameters = chain.parameters
    if parameters is None or len({p.data_ptr() for p in parameters}) < len(parameters):
        return False
    sizes = zip(chain.sizes[1:], chain.sizes, strict=False)
    shapes = [
        link.layer.weight.shape == pair for link, pair in zip(chain.links, sizes, strict=True)
    ]
    return all(shapes) and all(
        p.is_contiguous() and p.dtype == like.dtype and p.device.type == "cpu" for p in parameters
    )


def column_buffers(chain: Chain, like: Tensor, steps: list[float]) -> ColumnBuffers:
    """Lay out the arrays for a chain whose weights lie plainly."""
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
        places=tuple(
            (link.layer._parameters, key, parameter, parameter.data_ptr())
            for link in chain.links
            for key, parameter in link.layer._parameters.items()
            if parameter is not None
        ),
        by_name={
            name: shared[:, offsets[i] : offsets[i + 1]] for i, name in enumerate(chain.names)
        },
    )
