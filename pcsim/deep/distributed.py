"""Data parallelism under torchrun: who am I, where do I compute, what do we all see."""

from __future__ import annotations

import atexit
import contextlib
import os
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch import distributed as dist

from pcsim.messages import refusal

__all__ = ["Workers", "share_of", "workers"]

SENT: deque[Tensor] = deque(maxlen=4)
"""The last tensors handed to the other processes, which threads of gloo may still hold."""
LONGEST = 5.0
"""Seconds that the end of the process waits for those threads."""


@dataclass(frozen=True)
class Workers:
    """The processes that train one model together; one where torchrun did not start us."""

    rank: int
    count: int
    device: torch.device

    @property
    def leads(self) -> bool:
        """Whether this process writes files and reports."""
        return self.rank == 0

    def shared(self, step: nn.Module) -> nn.Module:
        """Wrap a module so that its gradients are averaged over all processes."""
        if self.count == 1:
            return step
        ids = [self.device.index or 0] if self.device.type == "cuda" else None
        return nn.parallel.DistributedDataParallel(step, device_ids=ids)

    def mean(self, value: Tensor) -> Tensor:
        """Average over processes."""
        if self.count > 1:
            sent = value.clone()
            dist.all_reduce(sent)
            SENT.append(sent)
            value = sent / self.count
        return value

    def same(self, value: Tensor) -> None:
        """Give every process, in place, what the first one has."""
        if self.count > 1:
            sent = value.detach()
            dist.broadcast(sent, 0)
            SENT.append(sent)

    def wait(self) -> None:
        """Let every process come to here."""
        if self.count > 1:
            dist.barrier()


@contextlib.contextmanager
def workers(device: str) -> Iterator[Workers]:
    """Join the group that torchrun's environment describes, and stay in it until the exit.

    Parameters
    ----------
    device
        "cpu", "cuda" (under torchrun, the one of our local rank), "cuda:1" ... or "auto".

    Raises
    ------
    ValueError
        If there is no such device here.
    """
    count, rank = int(os.environ.get("WORLD_SIZE", "1")), int(os.environ.get("RANK", "0"))
    where = find_device(device)
    if count == 1:
        yield Workers(0, 1, where)
        return
    if where.type == "cuda":
        where = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
        torch.cuda.set_device(where)
    if not dist.is_initialized():
        # Left at exit only: a group formed anew in the same processes may wait for ever, because
        # torchrun's store still holds the addresses of the old one.
        dist.init_process_group("nccl" if where.type == "cuda" else "gloo")
        atexit.register(leave)
    yield Workers(rank, count, where)


def leave() -> None:
    """Leave the group, if it is still there.

    A thread of gloo that lets go of a tensor, and is the last to hold it, asks for the interpreter;
    where that is ending by then, the process aborts (pytorch/pytorch#179291). So it is waited for.
    """
    until = time.monotonic() + LONGEST
    while any(held_elsewhere(one) for one in SENT) and time.monotonic() < until:
        time.sleep(1e-3)
    if dist.is_initialized():
        dist.destroy_process_group()


def held_elsewhere(value: Tensor) -> bool:
    """Return whether more than its Python object holds a tensor."""
    count: int = value._use_count()  # type: ignore[attr-defined]
    return count > 1


def find_device(name: str) -> torch.device:
    """Return the device of that name, refusing one that is not here."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    here = ["auto", "cpu"] + [f"cuda:{i}" for i in range(torch.cuda.device_count())]
    try:
        device = torch.device(name)
    except RuntimeError:
        device = None
    bare = {one.split(":")[0] for one in here}
    if device is None or str(device) not in bare | set(here):
        advice = "Take device='auto'."
        raise ValueError(refusal("train", f"device {name!r}", f"one of {', '.join(here)}", advice))
    return device


def share_of(batch_size: int, group: Workers) -> int:
    """Return the examples of a batch that each process takes."""
    if batch_size % group.count:
        found = f"batches of {batch_size} for {group.count} processes"
        advice = "Choose a multiple of the number of processes."
        raise ValueError(refusal("train", found, "equal shares", advice))
    return batch_size // group.count
