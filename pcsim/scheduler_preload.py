"""What a worker of a local cluster does first: leave Ctrl-C to the run, which ends it."""

from __future__ import annotations

import signal
from typing import Any

__all__ = ["dask_setup"]


def dask_setup(worker: Any) -> None:
    """Called by Dask when the worker starts, in its main thread."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
