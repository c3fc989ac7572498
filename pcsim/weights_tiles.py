"""Local weights on NumPy arrays: tile by tile, so that a tile stays in the cache of one core.

Rows of a tile are laid out with their padding, so that the neighbour at (a, b) of every unit lies
the same number of places further on: one kernel weight is then one `axpy` over the whole tile. A
kernel of few separable parts is applied along columns, then along rows; one between many channels
is a matrix product over a tile. All that is chosen once, by the number of multiplications.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy.linalg.blas import daxpy

from pcsim.weights import Local

__all__ = ["Tiles"]

Floats = NDArray[np.float64]
_TILE = 32_768
"""Numbers in a tile. Tiles of 16,000 to 65,000 are equally fast on a core with 1 MiB of cache."""


class Tiles:
    """A local projection without a stride, ready to multiply trials.

    Parameters
    ----------
    local
        The weights; without a stride their adjoint is a kernel, too, the flipped one.
    sign
        Factor on them.
    """

    def __init__(self, local: Local, sign: float) -> None:
        taps = sign * local.taps
        ky, kx = taps.shape[-2:]
        self._before = (ky // 2, kx // 2)
        if local.transposed:
            taps = np.ascontiguousarray(taps[:, :, ::-1, ::-1].swapaxes(0, 1))
            self._before = (ky - 1 - ky // 2, kx - 1 - kx // 2)
        self._taps, self._periodic = taps, local.boundary == "periodic"
        self._ny, self._nx = local.grid[-2:]
        n_out, n_in = taps.shape[:2]
        self._width = self._nx + kx - 1
        work = _TILE // max(1, n_out, n_in, 0 if n_in * n_out == 1 else n_in * ky * kx // 4)
        self._rows = min(self._ny, max(1, work // self._width - ky + 1))
        height = self._rows + ky - 1
        whole = self._rows == self._ny and n_in * n_out == 1
        self._planes = max(1, work // (self._width * height)) if whole else 1
        self._size = self._planes * height * self._width
        self._n = self._size - (ky - 1) * self._width - (kx - 1)
        self._padded = np.zeros((n_in, self._size))
        self._sums = np.zeros((n_out, self._size))
        self._multiply = self._choose()

    def _choose(self) -> Callable[[], None]:
        n_out, n_in, ky, kx = self._taps.shape
        if n_in * n_out > 1:
            return self._gather if n_out >= n_in else self._scatter
        left, values, right = np.linalg.svd(self._taps[0, 0])
        rank = int((values > 1e-14 * values[0]).sum()) if values[0] else 0
        padded, n = self._padded[0], self._n
        if rank * (ky + kx) + 1 >= np.count_nonzero(self._taps):
            weights = [(self._taps[0, 0, a, b], offset) for a, b, offset in self._offsets()]
            self._terms = [(padded[at : at + n], weight) for weight, at in weights if weight]
            return self._shift
        n += kx - 1
        self._columns = np.zeros(n)
        # Each part: what is added up along columns, then what of that along rows.
        self._parts = [
            (
                [(padded[a * self._width :][:n], values[r] * left[a, r]) for a in range(ky)],
                [(self._columns[b:][: self._n], right[r, b]) for b in range(kx)],
            )
            for r in range(rank)
        ]
        return self._separate

    def __call__(self, values: Floats, out: Floats) -> Floats:
        """Multiply `values` (..., n_source) into `out` (..., n_target), which is contiguous."""
        n_out, n_in = self._taps.shape[:2]
        ny, nx, step = self._ny, self._nx, self._planes
        source = values.reshape(-1, n_in, ny, nx)
        target = out.reshape(-1, n_out, ny, nx)
        height = self._size // (step * self._width)
        padded = self._padded.reshape(n_in, step, height, self._width)
        sums = self._sums.reshape(n_out, step, height, self._width)
        for first in range(0, len(source), step):
            n = min(step, len(source) - first)
            some = source[first : first + n].swapaxes(0, 1)
            for top in range(0, ny, self._rows):
                rows = min(self._rows, ny - top)
                self._fill(padded[:, :n], some, top, rows)
                self._multiply()
                found = sums[:, :n, :rows, :nx].swapaxes(0, 1)
                target[first : first + n, :, top : top + rows] = found
        return out

    def _fill(self, padded: Floats, planes: Floats, top: int, rows: int) -> None:
        """Copy rows of planes, and what surrounds them, between the margins."""
        ny, nx = self._ny, self._nx
        (up, before), ky = self._before, self._taps.shape[2]
        start, stop = top - up, top + rows + ky - 1 - up
        low, high = max(start, 0), min(stop, ny)
        inside = padded[..., before : before + nx]
        inside[:, :, low - start : high - start] = planes[:, :, low:high]
        above, below = slice(0, low - start), slice(high - start, stop - start)
        if not self._periodic:
            inside[:, :, above], inside[:, :, below] = 0.0, 0.0
            return
        inside[:, :, above] = planes[:, :, ny - (low - start) :][:, :, : low - start]
        inside[:, :, below] = planes[:, :, : stop - high]
        padded[..., :before] = padded[..., nx : nx + before]
        padded[..., before + nx :] = padded[..., before : self._width - nx]

    def _offsets(self) -> list[tuple[int, int, int]]:
        ky, kx = self._taps.shape[2:]
        return [(a, b, a * self._width + b) for a in range(ky) for b in range(kx)]

    def _shift(self) -> None:
        sums = self._sums[0, : self._n]
        sums.fill(0.0)
        for seen, weight in self._terms:
            daxpy(seen, sums, a=weight)

    def _separate(self) -> None:
        sums = self._sums[0, : self._n]
        sums.fill(0.0)
        for down, across in self._parts:
            self._columns.fill(0.0)
            for seen, weight in down:
                daxpy(seen, self._columns, a=weight)
            for seen, weight in across:
                daxpy(seen, sums, a=weight)

    def _gather(self) -> None:
        """Few channels to many: lay the neighbours side by side, then one product."""
        n_out, n_in, ky, kx = self._taps.shape
        beside = np.empty((ky * kx, n_in, self._n))
        for k, (_, _, offset) in enumerate(self._offsets()):
            beside[k] = self._padded[:, offset : offset + self._n]
        weights = self._taps.transpose(0, 2, 3, 1).reshape(n_out, -1)
        np.matmul(weights, beside.reshape(-1, self._n), out=self._sums[:, : self._n])

    def _scatter(self) -> None:
        """Many channels to few: one product, then add up what it gives for every neighbour."""
        n_out, n_in, ky, kx = self._taps.shape
        weights = self._taps.transpose(2, 3, 0, 1).reshape(-1, n_in)
        products = (weights @ self._padded).reshape(ky * kx, n_out, self._size)
        sums = self._sums[:, : self._n]
        sums[...] = 0.0
        for k, (_, _, offset) in enumerate(self._offsets()):
            sums += products[k, :, offset : offset + self._n]
