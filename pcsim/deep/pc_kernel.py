"""A compiled loop for networks of the size of a cortical column, where Python costs more than work.

The loop does what `pc_chain.FusedLoop` does, example by example, on numpy arrays. It compiles on
first use (some seconds for a number type, whatever the network) and is kept on disk afterwards.
Importing this file needs numba; `pc_fast` imports it when it is wanted.

Everything travels in a few flat arrays, so that one compiled loop serves every depth and width. The
units of all nodes lie side by side; `sizes` says how many each has, and weights are (out, in).
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar, cast

import numba
import numpy as np
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic
from numpy.typing import NDArray

__all__ = ["run_at"]

P = ParamSpec("P")
R = TypeVar("R")
Array = NDArray[Any]

TANH, RELU, SIGMOID = 1, 2, 3
ERRORS = 1


def compiled(function: Callable[P, R]) -> Callable[P, R]:
    """Compile a function; sums may be reordered, NaN and infinity keep their meaning.

    It is kept beside this file or, where that cannot be written, in the user's cache folder
    (``NUMBA_CACHE_DIR`` says otherwise); where neither can, only for this process.
    """
    flags = {"contract", "reassoc", "nsz", "arcp"}
    make = functools.partial(numba.njit, nogil=True, error_model="numpy", fastmath=flags)
    try:
        return cast("Callable[P, R]", make(cache=True)(function))
    except RuntimeError:  # numba's word for no folder to write to
        return cast("Callable[P, R]", make()(function))


def typed_pointer(context: Any, address: Any) -> Any:
    """Return an address as a pointer: its type, and how it is made."""

    def build(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.inttoptr(arguments[0], cgutils.voidptr_t)

    return types.voidptr(address), build


pointer_at = cast("Callable[[int], Any]", intrinsic(typed_pointer))
carray = cast(Any, numba).carray


@compiled
def activate(code: int, source: Array, out: Array, n: int) -> None:
    """Fill `out` with the function of `source`."""
    if code == TANH:
        for i in range(n):
            out[i] = math.tanh(source[i])
    elif code == RELU:
        for i in range(n):
            out[i] = max(source[i], 0.0)
    elif code == SIGMOID:
        for i in range(n):
            out[i] = 1.0 / (1.0 + math.exp(-source[i]))
    else:
        for i in range(n):
            out[i] = source[i]


@compiled
def times_slope(code: int, signal: Array, rate: Array, n: int) -> None:
    """Multiply the signal with the slope of the function whose value is `rate`."""
    if code == TANH:
        for i in range(n):
            signal[i] *= 1.0 - rate[i] * rate[i]
    elif code == RELU:
        for i in range(n):
            signal[i] = signal[i] if rate[i] > 0.0 else 0.0
    elif code == SIGMOID:
        for i in range(n):
            signal[i] *= rate[i] * (1.0 - rate[i])


@compiled
def forward(turned: Array, bias: Array, rate: Array, out: Array, n_in: int, n_out: int) -> None:
    """Fill `out` with bias + rate @ turned, (in, out) in one row."""
    for i in range(n_out):
        out[i] = bias[i]
    for j in range(n_in):
        value, row = rate[j], turned[j * n_out : (j + 1) * n_out]
        for i in range(n_out):
            out[i] += value * row[i]


@compiled
def backward(weight: Array, signal: Array, out: Array, n_in: int, n_out: int) -> None:
    """Fill `out` with signal @ weight, (out, in) in one row."""
    for j in range(n_in):
        out[j] = 0.0
    for i in range(n_out):
        value, row = signal[i], weight[i * n_in : (i + 1) * n_in]
        for j in range(n_in):
            out[j] += value * row[j]


@compiled
def softmax_error(target: Array, logits: Array, out: Array, n: int) -> None:
    """Fill `out` with target minus softmax times the sum of the target."""
    top, total, mass = logits[0], 0.0, 0.0
    for i in range(n):
        top = max(top, logits[i])
    for i in range(n):
        out[i] = math.exp(logits[i] - top)
        total += out[i]
        mass += target[i]
    for i in range(n):
        out[i] = target[i] - out[i] * mass / total


@compiled
def turn(weights: Array, sizes: Array, turned: Array) -> None:
    """Fill `turned` with every weight matrix transposed."""
    start = 0
    for level in range(len(sizes) - 1):
        n_in, n_out = sizes[level], sizes[level + 1]
        for i in range(n_out):
            for j in range(n_in):
                turned[start + j * n_out + i] = weights[start + i * n_in + j]
        start += n_in * n_out


@compiled
def predict(
    level: int, state: Array, turned: Array, biases: Array, layout: Array, scratch: Array
) -> None:
    """Refresh the rates of node `level` and the prediction of the node above it."""
    here, above = layout[level, 1], layout[level + 1, 1]
    n_in, n_out, start = layout[level, 0], layout[level + 1, 0], layout[level, 2]
    rate, out = scratch[0, here : here + n_in], scratch[1, above : above + n_out]
    activate(layout[level, 3], state[here : here + n_in], rate, n_in)
    bias = biases[above - layout[0, 0] : above - layout[0, 0] + n_out]
    forward(turned[start : start + n_in * n_out], bias, rate, out, n_in, n_out)
    if layout[level, 4]:
        activate(layout[level, 4], out, out, n_out)


@compiled
def correct(
    level: int, state: Array, precisions: Array, softmax: bool, layout: Array, scratch: Array
) -> None:
    """Refresh the weighted error of node `level`."""
    here, n = layout[level, 1], layout[level, 0]
    predicted, errors = scratch[1, here : here + n], scratch[2, here : here + n]
    target = state[here : here + n]
    if softmax and level == len(layout) - 1:
        softmax_error(target, predicted, errors, n)
    else:
        for i in range(n):
            errors[i] = target[i] - predicted[i]
    for i in range(n):
        errors[i] *= precisions[level - 1]


@compiled
def pull(level: int, source: int, weights: Array, layout: Array, scratch: Array) -> None:
    """Fill `pulled` with what the node above `level` asks of it, from its errors or pulled."""
    here, above = layout[level, 1], layout[level + 1, 1]
    n_in, n_out, start = layout[level, 0], layout[level + 1, 0], layout[level, 2]
    signal = scratch[4, above : above + n_out]
    for i in range(n_out):
        signal[i] = scratch[source, above + i]
    times_slope(layout[level, 4], signal, scratch[1, above : above + n_out], n_out)
    pulled = scratch[3, here : here + n_in]
    backward(weights[start : start + n_in * n_out], signal, pulled, n_in, n_out)
    times_slope(layout[level, 3], pulled, scratch[0, here : here + n_in], n_in)


@compiled
def settle_states(
    state: Array,
    weights: Array,
    turned: Array,
    biases: Array,
    precisions: Array,
    steps: Array,
    n_steps: int,
    softmax: bool,
    layout: Array,
    scratch: Array,
) -> None:
    """Take plain steps in the activities of one example from the feedforward pass.

    Below `lowest` nothing moves yet; see `FusedLoop.descend`.
    """
    top = len(layout) - 1
    for count in range(n_steps):
        lowest = max(1, top - 1 - count)
        for level in range(lowest, top):
            predict(level, state, turned, biases, layout, scratch)
        for level in range(lowest, top + 1):
            correct(level, state, precisions, softmax, layout, scratch)
        for level in range(lowest, top):
            pull(level, 2, weights, layout, scratch)
            for i in range(layout[level, 1], layout[level + 1, 1]):
                state[i] += steps[level - 1] * (scratch[3, i] - scratch[2, i])


@compiled
def settle_errors(
    state: Array,
    weights: Array,
    turned: Array,
    biases: Array,
    precisions: Array,
    steps: Array,
    n_steps: int,
    softmax: bool,
    layout: Array,
    scratch: Array,
) -> None:
    """Take plain steps in the errors of one example, each scaled by its precision."""
    top = len(layout) - 1
    free = state - scratch[1]
    for _ in range(n_steps):
        correct(top, state, precisions, softmax, layout, scratch)
        for level in range(top - 1, 0, -1):
            pull(level, 2 if level == top - 1 else 3, weights, layout, scratch)
            step, share = steps[level - 1], steps[level - 1] / precisions[level - 1]
            for i in range(layout[level, 1], layout[level + 1, 1]):
                free[i] += share * scratch[3, i] - step * free[i]
        for level in range(1, top):
            for i in range(layout[level, 1], layout[level + 1, 1]):
                state[i] = scratch[1, i] + free[i]
            predict(level, state, turned, biases, layout, scratch)


@compiled
def add_changes(
    state: Array,
    turned: Array,
    biases: Array,
    precisions: Array,
    softmax: bool,
    layout: Array,
    scratch: Array,
    changes: Array,
    shifts: Array,
) -> float:
    """Add one example's weighted errors times presynaptic rates; return its misfit.

    That is half its squared weighted errors over their precisions; see `pc_inference.misfit`.
    """
    misfit = 0.0
    for level in range(len(layout) - 1):
        if level:
            predict(level, state, turned, biases, layout, scratch)
        correct(level + 1, state, precisions, softmax, layout, scratch)
        here, above, start = layout[level, 1], layout[level + 1, 1], layout[level, 2]
        n_in, n_out = layout[level, 0], layout[level + 1, 0]
        errors = scratch[2, above : above + n_out]
        for i in range(n_out):
            misfit += 0.5 * errors[i] * errors[i] / precisions[level]
        times_slope(layout[level, 4], errors, scratch[1, above : above + n_out], n_out)
        rate = scratch[0, here : here + n_in]
        for i in range(n_out):
            shifts[above - layout[0, 0] + i] += errors[i]
            row = changes[start + i * n_in : start + (i + 1) * n_in]
            for j in range(n_in):
                row[j] += errors[i] * rate[j]
    return misfit


@compiled
def run(
    states: Array,
    weights: Array,
    biases: Array,
    precisions: Array,
    steps: Array,
    layout: Array,
    settings: tuple[int, int, bool, float, float],
) -> float:
    """Settle every example in place, change weights and biases, return the misfit of all.

    Parameters
    ----------
    states
        (batch, units of all nodes); the first and the last node are held, the others are filled.
    weights, biases
        Of all links, one after another: (out, in) and (out,).
    precisions, steps
        Of each predicted node, and of each hidden one.
    layout
        (nodes, 5): units, where they start, where the weights to the next node start, and the
        functions before and after that layer.
    settings
        Mode (0 activities, 1 errors), number of steps, softmax at the output, the learning rate,
        and (for `run_at`) the largest misfit to learn from.
    """
    mode, n_steps, softmax, learning_rate, _ = settings
    scratch = np.zeros((5, states.shape[1]), dtype=states.dtype)
    turned = np.empty_like(weights)
    turn(weights, layout[:, 0], turned)
    changes, shifts = np.zeros_like(weights), np.zeros_like(biases)
    top, misfit = len(layout) - 1, 0.0
    for k in range(len(states)):
        state = states[k]
        for level in range(top):
            predict(level, state, turned, biases, layout, scratch)
            if level < top - 1:
                for i in range(layout[level + 1, 1], layout[level + 2, 1]):
                    state[i] = scratch[1, i]
        if mode == ERRORS:
            settle_errors(
                state, weights, turned, biases, precisions, steps, n_steps, softmax, layout, scratch
            )
        else:
            settle_states(
                state, weights, turned, biases, precisions, steps, n_steps, softmax, layout, scratch
            )
        misfit += add_changes(
            state, turned, biases, precisions, softmax, layout, scratch, changes, shifts
        )
    scale = learning_rate / len(states)
    weights += scale * changes
    biases += scale * shifts
    return misfit


@compiled
def take(address: int, out: Array) -> bool:
    """Fill `out` from memory; return whether all of it is finite."""
    source = carray(pointer_at(address), len(out), out.dtype)
    fine = True
    for i in range(len(out)):
        out[i] = source[i]
        fine = fine and math.isfinite(source[i])
    return fine


@compiled
def give(address: int, values: Array) -> None:
    """Write values to memory."""
    target = carray(pointer_at(address), len(values), values.dtype)
    for i in range(len(values)):
        target[i] = values[i]


@compiled
def run_at(
    addresses: Array,
    states: Array,
    weights: Array,
    biases: Array,
    precisions: Array,
    steps: Array,
    layout: Array,
    settings: tuple[int, int, bool, float, float],
) -> int:
    """Run on tensors where they lie: input, output, then weight and bias (or 0) of each link.

    Return 0, or, with nothing changed, 1 if the ends are not finite and 2 if the misfit of what
    settled is not, or above the largest of `settings`.
    """
    top, size = len(layout) - 1, states.itemsize
    n_in, n_out, last = layout[0, 0], layout[top, 0], layout[top, 1]
    fine = True
    for k in range(len(states)):
        fine = take(addresses[0] + k * n_in * size, states[k, :n_in]) and fine
        fine = take(addresses[1] + k * n_out * size, states[k, last : last + n_out]) and fine
    if not fine:
        return 1
    # Layers without a bias have a place for one too, which must not gather anything.
    biases[:] = 0.0
    for level in range(top):
        start, above = layout[level, 2], layout[level + 1, 1] - n_in
        n = layout[level + 1, 0]
        take(addresses[2 + 2 * level], weights[start : start + layout[level, 0] * n])
        if addresses[3 + 2 * level]:
            take(addresses[3 + 2 * level], biases[above : above + n])
    misfit = run(states, weights, biases, precisions, steps, layout, settings)
    if not misfit <= settings[4]:
        return 2
    for level in range(top):
        start, above = layout[level, 2], layout[level + 1, 1] - n_in
        n = layout[level + 1, 0]
        give(addresses[2 + 2 * level], weights[start : start + layout[level, 0] * n])
        if addresses[3 + 2 * level]:
            give(addresses[3 + 2 * level], biases[above : above + n])
    return 0
