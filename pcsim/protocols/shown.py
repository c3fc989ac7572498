"""What a protocol shows: the stimuli that reach a model, whatever the protocol does with them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from pcsim.stimuli.thumbnails import Thumbnails

__all__ = ["watched"]


@contextmanager
def watched(model: Any) -> Iterator[Thumbnails]:
    """Keep thumbnails of every stimulus that is run through models of this one's class.

    A protocol builds its stimuli inside, and runs copies of the model (lesioned, recorded more
    often), so the class is watched for the time of the block, not the one object. What the model
    is given and what it answers stay as they are.

    Examples
    --------
    >>> import numpy as np
    >>> from pcsim import catalog
    >>> from pcsim.stimulus import stimulus_array
    >>> model = catalog.load("circuits", "bogacz_2017")
    >>> with watched(model) as seen:
    ...     responses = model.run(stimulus_array(np.full((1, 5, 1), 0.7), frame_duration=0.02))
    >>> seen.dataset()["trace"].shape
    (1, 1, 5)
    """
    seen, kind = Thumbnails(), type(model)
    own = "run" in vars(kind)
    run = kind.run

    def run_and_show(self: Any, stimulus: Any, *args: Any, **kwargs: Any) -> Any:
        seen.add(stimulus)
        return run(self, stimulus, *args, **kwargs)

    kind.run = run_and_show
    try:
        yield seen
    finally:
        if own:
            kind.run = run
        else:
            del kind.run
