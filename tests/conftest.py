"""Fixtures that every test may ask for."""

from __future__ import annotations

import re
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np
import pytest
from hypothesis import settings

# The same examples on every machine, and no failure because a machine is busy.
settings.register_profile("pcsim", derandomize=True, deadline=None, database=None)
settings.load_profile("pcsim")

ROOT = Path(__file__).resolve().parent.parent
ROOMS = ("pcsim", "circuits", "analysis", "experiments")
MESSAGE = re.compile(r"^\S[^\n]*?: \S.*, expected \S.*\.(\s.+)?$", re.DOTALL)
"""``<where>: <what was found>, expected <what>. <What to do.>``"""


@pytest.fixture
def rng(request: pytest.FixtureRequest) -> np.random.Generator:
    """A generator seeded by the name of the test, so that no test depends on another."""
    return np.random.default_rng(crc32(request.node.name.encode()))


@pytest.fixture(scope="session")
def refused() -> Callable[..., str]:
    """Call what must refuse its input: ``refused(function, *args, **kwargs)`` returns the message.

    The error is ours, of the two kinds for bad input, raised by our code, in the one form.
    """

    def call(function: Callable[..., Any], *args: Any, **kwargs: Any) -> str:
        with pytest.raises((ValueError, TypeError)) as caught:
            function(*args, **kwargs)
        message = str(caught.value)
        frames = traceback.extract_tb(caught.value.__traceback__)
        assert type(caught.value) in (ValueError, TypeError), message
        last = Path(frames[-1].filename).resolve()
        assert any(last.is_relative_to(ROOT / room) for room in ROOMS), (
            f"{last.name}:{frames[-1].lineno} raised {message!r}"
        )
        assert MESSAGE.match(message), message
        return message

    return call
