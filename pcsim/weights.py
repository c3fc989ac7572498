"""Weights that are not a dense matrix: local ones on a grid, and sparse ones.

A local projection applies one small kernel everywhere on a grid of units, as retinotopic wiring
and convolutions do. It acts as a matrix (n_target, n_source) in a `Projection`, but no matrix is
made. Local weights that differ from unit to unit are sparse: `untied`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import scipy.sparse
from numpy.typing import NDArray

from pcsim.messages import check_array, check_choice, check_integer, refusal

__all__ = ["Local", "PerReplica", "is_operator", "untied"]

BOUNDARIES = ("zero", "periodic")


@dataclass(frozen=True, eq=False)
class Local:
    r"""One kernel for all units of a grid: a convolutional projection.

    .. math:: y_{o,i,j} = \sum_{c,a,b} k_{o,c,a,b}\; x_{c,\;i s_y + a - \lfloor k_y/2\rfloor,\;
        j s_x + b - \lfloor k_x/2\rfloor}

    The kernel is the receptive field of a target unit as it lies on the source grid; it is not
    flipped. Units are numbered channel by channel, row by row, as images are. `T` is the adjoint,
    also of a stride.

    Parameters
    ----------
    grid
        (rows, columns) or (channels, rows, columns) of the source units.
    kernel : (ky, kx) or (n_channels_out, n_channels_in, ky, kx)
        A kernel of two axes acts on every channel by itself.
    stride
        Source units between the centres of neighbouring targets, one number or (rows, columns);
        the target grid has ceil(rows / stride) rows.
    boundary
        "zero", or "periodic" where the grid closes on itself.
    transposed
        Whether it is the adjoint; leave that to `T`.

    Raises
    ------
    TypeError, ValueError
        If grid, kernel, stride or boundary are not lawful or do not fit each other.

    Examples
    --------
    >>> blur = Local((3, 4), np.array([[0.25, 0.5, 0.25]]))
    >>> blur.shape, blur.toarray()[0, :3]
    ((12, 12), array([0.5 , 0.25, 0.  ]))
    >>> Local((4, 6), np.ones((3, 3)), stride=2).T.grid_out
    (4, 6)
    """

    grid: Sequence[int]
    kernel: Any
    stride: int | Sequence[int] = 1
    boundary: str = "zero"
    transposed: bool = False

    def __post_init__(self) -> None:
        grid = _integers("grid", self.grid, (2, 3))
        stride = (self.stride,) * 2 if np.ndim(self.stride) == 0 else self.stride
        kernel = check_array("Local", "kernel", self.kernel).astype(np.float64)
        if kernel.ndim not in (2, 4) or 0 in kernel.shape:
            found, expected = f"a kernel of shape {kernel.shape}", "(ky, kx) or (out, in, ky, kx)"
            raise ValueError(refusal("Local", found, expected))
        check_choice("Local", "boundary", self.boundary, BOUNDARIES)
        n_channels = grid[0] if len(grid) == 3 else 1
        if kernel.ndim == 4 and kernel.shape[1] != n_channels:
            found = f"a kernel for {kernel.shape[1]} channels on a grid of {n_channels}"
            advice = "A kernel is (n_channels_out, n_channels_in, ky, kx)."
            raise ValueError(refusal("Local", found, "as many channels as the grid has", advice))
        if self.boundary == "periodic" and any(
            k > n for k, n in zip(kernel.shape[-2:], grid[-2:], strict=True)
        ):
            found = f"a kernel of {kernel.shape[-2:]} on a periodic grid of {grid[-2:]}"
            raise ValueError(refusal("Local", found, "a kernel no larger than the grid"))
        kernel.flags.writeable = False
        checked = {
            "grid": grid,
            "kernel": kernel,
            "stride": _integers("stride", stride, (2,)),
        }
        for name, value in checked.items():
            object.__setattr__(self, name, value)

    @property
    def n_groups(self) -> int:
        """Channels that a kernel of two axes treats alike; 1 if it has four."""
        return int(self.grid[0]) if len(self.grid) == 3 and self.kernel.ndim == 2 else 1

    @property
    def taps(self) -> NDArray[np.float64]:
        """(n_channels_out, n_channels_in, ky, kx), also of a kernel of two axes."""
        kernel: NDArray[np.float64] = self.kernel
        return kernel if kernel.ndim == 4 else kernel[None, None]

    @property
    def coarse(self) -> tuple[int, int]:
        """Rows and columns of the grid at the strided end."""
        (ny, nx), (sy, sx) = self.grid[-2:], np.atleast_1d(self.stride)
        return int(-(-ny // sy)), int(-(-nx // sx))

    @property
    def grid_in(self) -> tuple[int, ...]:
        """Grid of the source units."""
        return self._coarse_grid if self.transposed else tuple(self.grid)

    @property
    def grid_out(self) -> tuple[int, ...]:
        """Grid of the target units."""
        return tuple(self.grid) if self.transposed else self._coarse_grid

    @property
    def _coarse_grid(self) -> tuple[int, ...]:
        if self.kernel.ndim == 4:
            return (self.kernel.shape[0], *self.coarse)
        return (*self.grid[:-2], *self.coarse)

    @property
    def shape(self) -> tuple[int, int]:
        """(n_target, n_source), as of a matrix."""
        return int(np.prod(self.grid_out)), int(np.prod(self.grid_in))

    @property
    def ndim(self) -> int:
        """2, as of a matrix."""
        return 2

    @property
    def T(self) -> Local:
        """The adjoint: errors travel up along it if predictions travel down along this."""
        return replace(self, transposed=not self.transposed)

    def to_sparse(self) -> scipy.sparse.coo_array:
        """Return the matrix (n_target, n_source) in sparse form."""
        (ny, nx), (my, mx) = self.grid[-2:], self.coarse
        n_out, n_in = self.taps.shape[:2]
        rows, columns, values = [], [], []
        for group in range(self.n_groups):
            for o, c, a, b in np.argwhere(self.taps):
                (i, y), (j, x) = self._pairs(0, int(a)), self._pairs(1, int(b))
                target = ((group * n_out + o) * my + i[:, None]) * mx + j
                source = ((group * n_in + c) * ny + y[:, None]) * nx + x
                rows.append(target.ravel())
                columns.append(source.ravel())
                values.append(np.full(target.size, self.taps[o, c, a, b]))
        shape = self.shape[::-1] if self.transposed else self.shape
        empty = [np.zeros(0, dtype=np.int64)]
        coordinates = np.concatenate(rows or empty), np.concatenate(columns or empty)
        matrix = scipy.sparse.coo_array(
            (np.concatenate(values or [np.zeros(0)]), coordinates), shape
        )
        return matrix.T if self.transposed else matrix

    def _pairs(self, axis: int, tap: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return the places along one axis, targets and sources, that a tap connects."""
        size, kernel = self.grid[axis - 2], self.kernel.shape[axis - 2]
        target = np.arange(self.coarse[axis])
        source = target * np.atleast_1d(self.stride)[axis] + tap - kernel // 2
        if self.boundary == "periodic":
            return target, source % size
        inside = (source >= 0) & (source < size)
        return target[inside], source[inside]

    def toarray(self) -> NDArray[np.float64]:
        """Return the dense matrix (n_target, n_source): for looking at small grids."""
        dense: NDArray[np.float64] = self.to_sparse().toarray()
        return dense


@dataclass(frozen=True, eq=False)
class PerReplica:
    """Local or sparse weights of several replicas; stacking circuits makes it."""

    each: tuple[Any, ...]

    @property
    def shape(self) -> tuple[int, int, int]:
        """(replica, n_target, n_source)."""
        n_target, n_source = self.each[0].shape
        return len(self.each), n_target, n_source

    @property
    def ndim(self) -> int:
        """3, as of a stack of matrices."""
        return 3

    def __getitem__(self, replica: int) -> Any:
        return self.each[replica]

    def __iter__(self) -> Iterator[Any]:
        return iter(self.each)


def is_operator(weights: Any) -> bool:
    """Tell whether weights are local or sparse, so that they multiply by other means than a matrix.

    Examples
    --------
    >>> is_operator(Local((2, 2), np.ones((1, 1)))), is_operator(np.eye(4)), is_operator(None)
    (True, False, False)
    """
    return isinstance(weights, Local | PerReplica) or scipy.sparse.issparse(weights)


def untied(grid: Sequence[int], kernels: Any, *, boundary: str = "zero") -> scipy.sparse.csr_array:
    """Return local weights with a kernel of its own for every unit of a grid, as a sparse matrix.

    Parameters
    ----------
    grid
        (rows, columns).
    kernels : (rows, columns, ky, kx)
        Receptive field of every unit.
    boundary
        "zero" or "periodic".

    Examples
    --------
    >>> untied((1, 3), np.array([[[[1.0, 0.5]], [[2.0, 0.5]], [[3.0, 0.5]]]])).toarray()
    array([[0.5, 0. , 0. ],
           [2. , 0.5, 0. ],
           [0. , 3. , 0.5]])
    """
    rows, columns = _integers("grid", grid, (2,))
    kernels = check_array("untied", "kernels", kernels, shape=(rows, columns, None, None))
    parts = []
    for a, b in np.ndindex(*kernels.shape[2:]):
        one = np.zeros(kernels.shape[2:])
        one[a, b] = 1.0
        place = Local((rows, columns), one, boundary=boundary).to_sparse().tocsr()
        parts.append(scipy.sparse.diags_array(kernels[:, :, a, b].ravel()) @ place)
    matrix = scipy.sparse.csr_array(sum(parts[1:], parts[0]))
    matrix.eliminate_zeros()
    return matrix


def _integers(name: str, values: Any, lengths: tuple[int, ...]) -> tuple[int, ...]:
    listed = list(values) if isinstance(values, Sequence | np.ndarray) else None
    if listed is None or isinstance(values, str) or len(listed) not in lengths:
        expected = " or ".join(map(str, lengths)) + " integers"
        raise TypeError(refusal("Local", f"{name} {values!r}", expected))
    return tuple(check_integer("Local", name, value, low=1) for value in listed)
