"""Derivatives where the caller's mode of torch allows none: inference takes them by itself."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from torch import Tensor

__all__ = ["ordinary", "outside_inference_mode", "recording"]


@contextlib.contextmanager
def outside_inference_mode() -> Iterator[None]:
    """Leave `torch.inference_mode`, in which nothing can be differentiated; keep `no_grad`."""
    if not torch.is_inference_mode_enabled():
        yield
        return
    with torch.inference_mode(False):
        yield


@contextlib.contextmanager
def recording() -> Iterator[None]:
    """Leave `torch.inference_mode` and `torch.no_grad`."""
    with outside_inference_mode(), torch.enable_grad():
        yield


def ordinary(value: Tensor) -> Tensor:
    """Return a tensor that may take part in derivatives: a copy of one of inference mode."""
    return value.clone() if value.is_inference() else value
