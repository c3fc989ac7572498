"""Thumbnails of stimuli: small film strips and traces that show what a protocol presents."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import xarray as xr
from numpy.typing import NDArray

__all__ = ["Thumbnails"]

MOST = 8
"""Thumbnails of one protocol."""
HELD = 64
"""Candidates kept while a protocol runs."""
TRIALS = 4
"""Trials looked at of one condition."""
SIDE = 44
"""Pixels of a frame's longer side."""
FRAMES = 3
"""Frames of a strip."""
GAP = 2
"""White pixels between frames."""
SAMPLES = 160
"""Frames of features that are shown, from the first on: averages over long times show nothing."""
LINES = 4
"""Features up to which a stimulus is drawn as traces, not as an image."""
WHITE = 255


@dataclass(frozen=True)
class _Candidate:
    condition: str
    caption: str
    strip: NDArray[np.uint8]
    """(rows, columns), empty for a trace."""
    trace: NDArray[np.float32]
    """(line, sample), empty for a strip."""
    duration: float


@dataclass
class Thumbnails:
    """Collects what is shown, bounded in size, and gives it as a Dataset.

    Examples
    --------
    >>> from pcsim.stimulus import stimulus_array
    >>> seen = Thumbnails()
    >>> seen.add(stimulus_array(np.full((2, 1, 4, 6), [[[[0.5]]], [[[1.0]]]]), frame_duration=0.3,
    ...                         px_per_deg=16.0, condition=["grey", "white"], contrast=[0.0, 0.5]))
    >>> shown = seen.dataset()
    >>> shown["caption"].values.tolist()
    ['grey, contrast 0', 'white, contrast 0.5']
    >>> shown["strip"].shape, int(shown["strip"][0, 0, 0]), int(shown["strip"][1, 0, 0])
    ((2, 4, 6), 128, 255)
    """

    found: list[_Candidate] = field(default_factory=list)

    def add(self, stimulus: xr.DataArray) -> None:
        """Keep thumbnails of a few trials of each condition, unless the same are there already."""
        if len(self.found) >= HELD:
            return
        known = {(one.strip.tobytes(), one.trace.tobytes()) for one in self.found}
        for trial in _trials(stimulus):
            one = _candidate(stimulus, trial)
            look = (one.strip.tobytes(), one.trace.tobytes())
            if look not in known and len(self.found) < HELD:
                known.add(look)
                self.found.append(one)

    def dataset(self) -> xr.Dataset:
        """Return the thumbnails, at most eight.

        Returns
        -------
        xr.Dataset
            On `thumbnail`: `caption`, `condition`, `duration` (s), `rows` and `columns` of the
            strip (0 for a trace). `strip` (thumbnail, row, column), grey levels, frames from left
            to right, padded with white; `trace` (thumbnail, line, sample), NaN where there is none.
        """
        chosen = _spread(self.found)
        rows = [one.strip.shape for one in chosen]
        height, width = (max((shape[axis] for shape in rows), default=0) for axis in (0, 1))
        strip = np.full((len(chosen), height, width), WHITE, dtype=np.uint8)
        lines = max((one.trace.shape[0] for one in chosen), default=0)
        samples = max((one.trace.shape[1] for one in chosen), default=0)
        trace = np.full((len(chosen), lines, samples), np.nan, dtype=np.float32)
        for place, one in enumerate(chosen):
            strip[place, : one.strip.shape[0], : one.strip.shape[1]] = one.strip
            trace[place, : one.trace.shape[0], : one.trace.shape[1]] = one.trace
        return xr.Dataset(
            {
                "strip": (("thumbnail", "row", "column"), strip),
                "trace": (("thumbnail", "line", "sample"), trace),
                "rows": ("thumbnail", [shape[0] for shape in rows]),
                "columns": ("thumbnail", [shape[1] for shape in rows]),
                "caption": ("thumbnail", [one.caption for one in chosen]),
                "condition": ("thumbnail", [one.condition for one in chosen]),
                "duration": ("thumbnail", [one.duration for one in chosen]),
            }
        )


def _trials(stimulus: xr.DataArray) -> Iterator[int]:
    """Yield a few trials of every condition, from the first to the last."""
    names = _conditions(stimulus)
    for name in dict.fromkeys(names):
        mine = [place for place, one in enumerate(names) if one == name]
        yield from _evenly(mine, TRIALS)


def _conditions(stimulus: xr.DataArray) -> list[str]:
    if "condition" not in stimulus.coords:
        return [""] * stimulus.sizes["trial"]
    return [str(one) for one in stimulus["condition"].values]


def _evenly(items: Sequence[int], most: int) -> list[int]:
    """Return at most so many items, the first and the last among them."""
    if len(items) <= most:
        return list(items)
    places = np.linspace(0, len(items) - 1, most).round().astype(int)
    return [items[place] for place in places]


def _candidate(stimulus: xr.DataArray, trial: int) -> _Candidate:
    one = stimulus.isel(trial=trial)
    values = np.asarray(one.transpose("time", ...).values, dtype=np.float64)
    held = float(stimulus["frame_duration"]) if "frame_duration" in stimulus.coords else 0.0
    strip, trace = np.zeros((0, 0), np.uint8), np.zeros((0, 0), np.float32)
    if values.ndim == 3:
        strip = _strip(_moments(values))
    elif 0 < values.shape[1] <= LINES and len(values) > 1:
        trace = values[:SAMPLES].T.astype(np.float32)
    else:
        strip = _grey(_small(_scaled(values[:SAMPLES].T), axes=(0,)))
    caption = _caption(stimulus, trial)
    if values.ndim == 2 and len(values) > SAMPLES:
        caption += f", the first {held * SAMPLES:.3g} s"
    return _Candidate(_conditions(stimulus)[trial], caption, strip, trace, held * len(values))


def _moments(frames: NDArray[np.float64]) -> list[NDArray[np.float64]]:
    """Return a few frames, none the same as the one before it."""
    new = [0, *(t for t in range(1, len(frames)) if not np.array_equal(frames[t], frames[t - 1]))]
    return [frames[place] for place in _evenly(new, FRAMES)]


def _strip(frames: Sequence[NDArray[np.float64]]) -> NDArray[np.uint8]:
    # Luminance lies in [0, 1]; what does not is shown about mid-grey, by its own magnitude.
    whole = np.stack(frames)
    if whole.min() < -1e-9 or whole.max() > 1.0 + 1e-9:
        whole = _scaled(whole)
    small = [_grey(_small(one)) for one in whole]
    gap = np.full((small[0].shape[0], GAP), WHITE, dtype=np.uint8)
    parts = [part for one in small for part in (gap, one)][1:]
    return np.concatenate(parts, axis=1)


def _scaled(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return values with 0 at 0.5 and the largest magnitude at 0 or 1."""
    largest = float(np.abs(values).max())
    return 0.5 + 0.5 * values / largest if largest > 0 else np.full_like(values, 0.5)


def _small(image: NDArray[np.float64], axes: tuple[int, ...] = (0, 1)) -> NDArray[np.float64]:
    """Return an image of at most 44 pixels along these axes, by block averages."""
    for axis in axes:
        n = image.shape[axis]
        if n > SIDE:
            edges = np.linspace(0, n, SIDE + 1).round().astype(int)
            sums = np.add.reduceat(image, edges[:-1], axis=axis)
            image = sums / np.expand_dims(np.diff(edges), 1 - axis)
    return image


def _grey(image: NDArray[np.float64]) -> NDArray[np.uint8]:
    return np.asarray((np.clip(image, 0.0, 1.0) * 255.0).round(), dtype=np.uint8)


def _caption(stimulus: xr.DataArray, trial: int) -> str:
    """Return the condition and the parameters that differ between trials."""
    parts = [_conditions(stimulus)[trial]]
    for name, coord in stimulus.coords.items():
        if coord.dims != ("trial",) or name in ("trial", "condition", "repeat", "seed"):
            continue
        values = coord.values
        if len(set(values.tolist())) > 1:
            value = values[trial]
            shown = f"{value:.3g}" if isinstance(value, np.floating) else str(value)
            parts.append(f"{str(name).replace('_', ' ')} {shown}")
    return ", ".join(part for part in parts[:4] if part)


def _spread(found: Sequence[_Candidate]) -> list[_Candidate]:
    """Return at most eight: as many conditions as possible, then others between them.

    What is the same everywhere, a blank, is left out unless there is nothing else.
    """
    found = [one for one in found if not _blank(one)] or list(found)
    firsts: dict[str, int] = {}
    for place, one in enumerate(found):
        firsts.setdefault(one.condition, place)
    chosen = set(_evenly(list(firsts.values()), MOST))
    others = [place for place in range(len(found)) if place not in chosen]
    if len(chosen) < MOST:
        chosen |= set(_evenly(others, MOST - len(chosen))) if others else set()
    return [found[place] for place in sorted(chosen)]


def _blank(one: _Candidate) -> bool:
    look = one.strip if one.strip.size else one.trace
    inner = look[look != WHITE] if one.strip.size else look
    return inner.size == 0 or bool((inner == inner.flat[0]).all())
