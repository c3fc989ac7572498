"""Settings for tests and doctests alike: one thread, no screen, floats that raise."""

from __future__ import annotations

import os

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_name, "1")
os.environ.setdefault("MPLBACKEND", "Agg")

import numpy as np  # noqa: E402
import pytest  # noqa: E402


@pytest.fixture(autouse=True)
def _floats_raise():
    # Underflow to zero is how exp and Gaussian windows end: no slip shows there.
    with np.errstate(all="raise", under="ignore"):
        yield


@pytest.fixture(autouse=True)
def _doctest_names(doctest_namespace):
    doctest_namespace["np"] = np
