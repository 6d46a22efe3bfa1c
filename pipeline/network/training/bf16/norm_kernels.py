"""Compile, by numba, the passes over memory of batch norm, ReLU and the residual sum in bfloat16.

A map (N, C, H, W) in channels_last is a matrix of M = N * H * W rows and C channels. Each pass goes through the
matrix once, in float32 arithmetic. A bfloat16 number is the upper half of a float32 number, kept here as uint16.

Sums of 256 rows are float32 and are added as float64 in the order of the rows: the results do not depend on the number
of threads. NaN remains NaN, so that a training that diverges is noticed.

numba compiles when this module is imported, in about 3 s. It keeps nothing on disk (promises P3 and P5): its cache
would be pickles.
"""

import functools
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic

BLOCK = 256
"""Rows whose sum is float32; threads share the matrix by such blocks."""

Rows = np.ndarray
"""(M, C) uint16, bfloat16 numbers."""

Channels = np.ndarray
"""(P, C) float32: P numbers of each channel. In the order of their rows: a and b of y = a x + b, then others."""

Part = tuple[int, int]
"""First block and end of the blocks that a thread computes."""

_I16, _I32, _F32 = ir.IntType(16), ir.IntType(32), ir.FloatType()


def _widen_typed(_: Any, bits: Any) -> Any:
    """Convert bfloat16 to float32."""

    def emit(_context: Any, builder: Any, _signature: Any, arguments: Sequence[Any]) -> Any:
        return builder.bitcast(builder.shl(builder.zext(arguments[0], _I32), _I32(16)), _F32)

    return types.float32(types.uint16), emit


def _narrow_typed(_: Any, value: Any) -> Any:
    """Round float32 to bfloat16, to the nearest, ties to even; the NaNs of arithmetic remain NaN."""

    def emit(_context: Any, builder: Any, _signature: Any, arguments: Sequence[Any]) -> Any:
        bits = builder.bitcast(arguments[0], _I32)
        odd = builder.and_(builder.lshr(bits, _I32(16)), _I32(1))
        rounded = builder.add(bits, builder.add(odd, _I32(0x7FFF)))
        return builder.trunc(builder.lshr(rounded, _I32(16)), _I16)

    return types.uint16(types.float32), emit


_widen: Any = intrinsic(_widen_typed)
_narrow: Any = intrinsic(_narrow_typed)


def _sum_values(part: Part, x: Rows, shift: Channels, sums: np.ndarray) -> None:
    for block in range(part[0], part[1]):
        for row in range(block * BLOCK, min((block + 1) * BLOCK, x.shape[0])):
            for c in range(x.shape[1]):
                value = _widen(x[row, c]) - shift[0, c]
                sums[block, 0, c] += value
                sums[block, 1, c] += value * value


def _scale(part: Part, x: Rows, channels: Channels, low: float, y: Rows) -> None:
    for row in range(part[0] * BLOCK, min(part[1] * BLOCK, x.shape[0])):
        for c in range(x.shape[1]):
            value = channels[0, c] * _widen(x[row, c]) + channels[1, c]
            y[row, c] = _narrow(low if value <= low else value)


def _scale_and_add(part: Part, x: Rows, skip: Rows, channels: Channels, y: Rows) -> None:
    zero = np.float32(0)
    for row in range(part[0] * BLOCK, min(part[1] * BLOCK, x.shape[0])):
        for c in range(x.shape[1]):
            value = channels[0, c] * _widen(x[row, c]) + channels[1, c] + _widen(skip[row, c])
            y[row, c] = _narrow(zero if value <= zero else value)


def _sum_gradients(part: Part, dy: Rows, x: Rows, channels: Channels, low: float, sums: np.ndarray) -> None:
    zero = np.float32(0)
    for block in range(part[0], part[1]):
        for row in range(block * BLOCK, min((block + 1) * BLOCK, x.shape[0])):
            for c in range(x.shape[1]):
                value, gradient = _widen(x[row, c]), _widen(dy[row, c])
                dz = zero if channels[0, c] * value + channels[1, c] <= low else gradient
                sums[block, 0, c] += dz
                sums[block, 1, c] += dz * (value - channels[2, c])


def _sum_both_gradients(
    part: Part, dy: Rows, dskip: Rows, x: Rows, y: Rows, channels: Channels, dz: Rows, sums: np.ndarray
) -> None:
    zero = np.float32(0)
    for block in range(part[0], part[1]):
        for row in range(block * BLOCK, min((block + 1) * BLOCK, x.shape[0])):
            for c in range(x.shape[1]):
                both = _widen(dy[row, c]) + _widen(dskip[row, c])
                masked = zero if _widen(y[row, c]) <= zero else both
                dz[row, c] = _narrow(masked)
                sums[block, 0, c] += masked
                sums[block, 1, c] += masked * (_widen(x[row, c]) - channels[2, c])


def _input_gradient(part: Part, dy: Rows, x: Rows, channels: Channels, low: float, dx: Rows) -> None:
    zero = np.float32(0)
    for row in range(part[0] * BLOCK, min(part[1] * BLOCK, x.shape[0])):
        for c in range(x.shape[1]):
            value, gradient = _widen(x[row, c]), _widen(dy[row, c])
            dz = zero if channels[0, c] * value + channels[1, c] <= low else gradient
            dx[row, c] = _narrow(channels[0, c] * dz + (channels[2, c] * value + channels[3, c]))


def _compiled(kernel: Callable[..., None], arguments: str) -> Callable[..., None]:
    """Return a kernel compiled to run without Python's lock.

    Args:
        kernel: plain function.
        arguments: a letter for each after the part: matrix (m), channels (c), number (n), sums (s).
    """
    kinds = {"m": types.uint16[:, ::1], "c": types.float32[:, ::1], "n": types.float32, "s": types.float32[:, :, ::1]}
    part = types.UniTuple(types.intp, 2)
    return njit(types.void(part, *(kinds[letter] for letter in arguments)), nogil=True)(kernel)


_SUM_VALUES = _compiled(_sum_values, "mcs")
_SCALE = _compiled(_scale, "mcnm")
_SCALE_AND_ADD = _compiled(_scale_and_add, "mmcm")
_SUM_GRADIENTS = _compiled(_sum_gradients, "mmcns")
_SUM_BOTH_GRADIENTS = _compiled(_sum_both_gradients, "mmmmcms")
_INPUT_GRADIENT = _compiled(_input_gradient, "mmcnm")


@functools.cache
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads - 1, thread_name_prefix="norm")


def _run(kernel: Callable[..., None], n_rows: int, *arguments: Any) -> None:
    """Run a kernel over all rows, by as many threads as torch has; the caller is one of them."""
    blocks, threads = -(-n_rows // BLOCK), torch.get_num_threads()
    n = min(threads, blocks)
    own, *others = [(blocks * i // n, blocks * (i + 1) // n) for i in range(n)]
    pending = [_pool(threads).submit(kernel, part, *arguments) for part in others]
    kernel(own, *arguments)
    for part in pending:
        part.result()


def _sums(kernel: Callable[..., None], x: Rows, *arguments: Any) -> torch.Tensor:
    """Return two sums over the rows, (2, C) float64."""
    sums = np.zeros((-(-len(x) // BLOCK), 2, x.shape[1]), np.float32)
    _run(kernel, len(x), *arguments, sums)
    return torch.from_numpy(sums.sum(0, dtype=np.float64))


def mean_and_variance(x: Rows) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the mean and the biased variance of each channel, (C,) float64.

    The first row is subtracted from all others: a mean far from zero costs no digits of the variance.
    """
    first = (x[:1].astype(np.uint32) << 16).view(np.float32)
    mean, square = _sums(_SUM_VALUES, x, x, first) / len(x)
    return torch.from_numpy(first[0]) + mean, (square - mean**2).clamp_(min=0)


def scale(x: Rows, channels: Channels, low: float, y: Rows) -> None:
    """Set y to max(low, a x + b): `low` is 0 for ReLU, and minus infinity without."""
    _run(_SCALE, len(x), x, channels, np.float32(low), y)


def scale_and_add(x: Rows, skip: Rows, channels: Channels, y: Rows) -> None:
    """Set y to max(0, a x + b + skip)."""
    _run(_SCALE_AND_ADD, len(x), x, skip, channels, y)


def gradient_sums(dy: Rows, x: Rows, channels: Channels, low: float) -> torch.Tensor:
    """Return the sums of dz and of dz (x - mean), (2, C) float64; dz is dy where a x + b is above `low`, else 0.

    The rows of `channels` are a, b and the mean.
    """
    return _sums(_SUM_GRADIENTS, x, dy, x, channels, np.float32(low))


def both_gradient_sums(dy: Rows, dskip: Rows, x: Rows, y: Rows, channels: Channels, dz: Rows) -> torch.Tensor:
    """Set dz to dy + dskip where y is above 0, else 0; return the sums of dz and of dz (x - mean), (2, C) float64.

    The rows of `channels` are a, b and the mean.
    """
    return _sums(_SUM_BOTH_GRADIENTS, x, dy, dskip, x, y, channels, dz)


def input_gradient(dy: Rows, x: Rows, channels: Channels, low: float, dx: Rows) -> None:
    """Set dx to a dz + k x + l; dz is dy where a x + b is above `low`, else 0.

    The rows of `channels` are a, b, k and l.
    """
    _run(_INPUT_GRADIENT, len(x), dy, x, channels, np.float32(low), dx)
