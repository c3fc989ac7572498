"""Fixtures that every test may ask for."""

from __future__ import annotations

from zlib import crc32

import numpy as np
import pytest


@pytest.fixture
def rng(request: pytest.FixtureRequest) -> np.random.Generator:
    """A generator seeded by the name of the test, so that no test depends on another."""
    return np.random.default_rng(crc32(request.node.name.encode()))
