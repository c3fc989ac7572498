"""How local and sparse weights multiply the arrays of each library."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import array_api_compat
import numpy as np
import scipy.sparse

from pcsim.arrays import Array
from pcsim.weights import Local, PerReplica
from pcsim.weights_tiles import Tiles

__all__ = ["Operator", "operator"]

Operator = Callable[[Array], Array]
"""values (..., n_source) -> product (..., n_target), overwritten by the next call."""


def operator(weights: Any, sign: Any, like: Array) -> Operator:
    """Return what multiplies by local or sparse weights.

    Parameters
    ----------
    weights
        `Local`, scipy sparse, or `PerReplica` of them, (n_target, n_source).
    sign
        A number, or (replica, 1, 1).
    like : (..., n_target)
        Zeros of the library, shape and place of the product; they become its buffer.
    """
    if isinstance(weights, PerReplica) or not isinstance(sign, float | int):
        return _each_replica(weights, sign, like)
    is_numpy = array_api_compat.is_numpy_array(like)
    if scipy.sparse.issparse(weights):
        matrix = weights.tocsr() * sign
        return _sparse_numpy(matrix, like) if is_numpy else _sparse_torch(matrix, like)
    if is_numpy and like.size < _SMALL:
        return operator(weights.to_sparse(), sign, like)
    if is_numpy and set(weights.stride) == {1}:
        tiles = Tiles(weights, sign)
        return lambda values: tiles(values, like)
    if array_api_compat.is_torch_array(like):
        return _convolution(weights, sign, like)
    return _slices(weights, sign, like)


def _each_replica(weights: Any, sign: Any, like: Array) -> Operator:
    n = like.shape[0]
    signs = (
        [float(sign)] * n if isinstance(sign, float | int) else [float(s) for s in sign[:, 0, 0]]
    )
    own = weights if isinstance(weights, PerReplica) else [weights] * n
    operators = [
        operator(w, s, like[i, ...]) for i, (w, s) in enumerate(zip(own, signs, strict=True))
    ]

    def multiply(values: Array) -> Array:
        for i, one in enumerate(operators):
            like[i, ...] = one(values[i, ...])
        return like

    return multiply


# Sparse weights


def _sparse_numpy(matrix: Any, like: Array) -> Operator:
    rows = like.reshape(-1, like.shape[-1])

    def multiply(values: Array) -> Array:
        flat = values.reshape(-1, values.shape[-1])
        # Many trials at once pay for turning them over; few do not.
        if len(flat) > _FEW:
            rows[...] = (matrix @ flat.T).T
        else:
            for row, trial in zip(rows, flat, strict=True):
                row[...] = matrix @ trial
        return like

    return multiply


_FEW = 64
_SMALL = 4096
"""So few numbers are multiplied faster by a sparse matrix: it has one call, tiles have many."""


def _sparse_torch(matrix: Any, like: Array) -> Operator:
    xp = array_api_compat.array_namespace(like)
    if not array_api_compat.is_torch_array(like):
        dense = xp.asarray(matrix.toarray(), device=array_api_compat.device(like))
        return lambda values: xp.matmul(values, xp.matrix_transpose(dense))
    parts = (xp.asarray(a) for a in (matrix.indptr, matrix.indices, matrix.data))
    with warnings.catch_warnings():
        # Torch says once that its sparse tensors may change.
        warnings.simplefilter("ignore", UserWarning)
        moved = xp.sparse_csr_tensor(*parts, size=matrix.shape).to(like.device)

    def multiply(values: Array) -> Array:
        flat = values.reshape(-1, values.shape[-1])
        return xp.matmul(moved, flat.T).T.reshape(like.shape)

    return multiply


# Local weights


def _convolution(local: Local, sign: float, like: Array) -> Operator:
    xp = array_api_compat.array_namespace(like)
    functional = xp.nn.functional
    kernel = xp.asarray(sign * local.taps, dtype=like.dtype, device=like.device)
    (ny, nx), (my, mx), (sy, sx) = local.grid[-2:], local.coarse, np.atleast_1d(local.stride)
    n_out, n_in, ky, kx = local.taps.shape
    up, left = ky // 2, kx // 2
    down, right = ky - 1 - up, kx - 1 - left
    mode = "constant" if local.boundary == "zero" else "circular"
    stride = (int(sy), int(sx))
    missing = (ny - 1 - (my - 1) * stride[0], nx - 1 - (mx - 1) * stride[1])

    def forward(values: Array) -> Array:
        planes = values.reshape(-1, n_in, ny, nx)
        padded = functional.pad(planes, (left, right, up, down), mode=mode)
        return functional.conv2d(padded, kernel, stride=stride).reshape(like.shape)

    def backward(values: Array) -> Array:
        planes = values.reshape(-1, n_out, my, mx)
        padded = functional.conv_transpose2d(planes, kernel, stride=stride, output_padding=missing)
        return _folded(padded, local).reshape(like.shape)

    return backward if local.transposed else forward


def _slices(local: Local, sign: float, like: Array) -> Operator:
    """One shifted slice a kernel weight: any stride, any library of the Array API."""
    xp, device = array_api_compat.array_namespace(like), array_api_compat.device(like)
    taps = xp.asarray(sign * local.taps, dtype=like.dtype, device=device)
    (ny, nx), (my, mx), (sy, sx) = local.grid[-2:], local.coarse, np.atleast_1d(local.stride)
    n_out, n_in, ky, kx = local.taps.shape
    n = local.n_groups * int(np.prod(like.shape[:-1]))
    up, left = ky // 2, kx // 2
    windows = [
        (a, b, slice(a, a + (my - 1) * int(sy) + 1, sy), slice(b, b + (mx - 1) * int(sx) + 1, sx))
        for a in range(ky)
        for b in range(kx)
    ]

    def zeros(*shape: int) -> Array:
        return xp.zeros(shape, dtype=like.dtype, device=device)

    def forward(values: Array) -> Array:
        planes, padded = (
            xp.reshape(values, (n, n_in, ny, nx)),
            zeros(n, n_in, ny + ky - 1, nx + kx - 1),
        )
        if local.boundary == "periodic":
            rows = xp.asarray(np.arange(-up, ny + ky - 1 - up) % ny, device=device)
            columns = xp.asarray(np.arange(-left, nx + kx - 1 - left) % nx, device=device)
            padded = xp.take(xp.take(planes, rows, axis=2), columns, axis=3)
        else:
            padded[:, :, up : up + ny, left : left + nx] = planes
        total = zeros(n, n_out, my * mx)
        for a, b, y, x in windows:
            seen = xp.reshape(padded[:, :, y, x], (n, n_in, my * mx))
            total += xp.matmul(taps[:, :, a, b], seen)
        return xp.reshape(total, like.shape)

    def backward(values: Array) -> Array:
        planes = xp.reshape(values, (n, n_out, my * mx))
        padded = zeros(n, n_in, ny + ky - 1, nx + kx - 1)
        for a, b, y, x in windows:
            sent = xp.matmul(xp.matrix_transpose(taps[:, :, a, b]), planes)
            padded[:, :, y, x] += xp.reshape(sent, (n, n_in, my, mx))
        return xp.reshape(_folded(padded, local), like.shape)

    return backward if local.transposed else forward


def _folded(padded: Array, local: Local) -> Array:
    """Return the grid without its margins; periodic ones are added where they belong."""
    (ny, nx), (ky, kx) = local.grid[-2:], local.kernel.shape[-2:]
    up, left = ky // 2, kx // 2
    if local.boundary == "periodic":
        padded[:, :, ny : ny + up, :] += padded[:, :, :up, :]
        padded[:, :, up : ky - 1, :] += padded[:, :, ny + up :, :]
        padded[:, :, :, nx : nx + left] += padded[:, :, :, :left]
        padded[:, :, :, left : kx - 1] += padded[:, :, :, nx + left :]
    return padded[:, :, up : up + ny, left : left + nx]
