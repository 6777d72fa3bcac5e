"""Max pooling and the residual add, position by position. Arrays are float64 numpy arrays of one sample."""

import math

import numpy as np
from numpy.typing import NDArray
from torch import nn

from oracle.linear import Array


def _pair(value: int | tuple[int, ...]) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else (value[0], value[1])


def _places(size: int, kernel: int, stride: int, padding: int, dilation: int, *, ceil: bool) -> int:
    """How many windows fit along one side; with ``ceil`` the last may hang over, but must start on real input."""
    steps = (size + 2 * padding - dilation * (kernel - 1) - 1) / stride
    count = (math.ceil(steps) if ceil else math.floor(steps)) + 1
    return count - 1 if ceil and (count - 1) * stride >= size + padding else count


def max_pool(pool: nn.MaxPool2d, x: Array) -> tuple[Array, NDArray[np.int64]]:
    """The largest input of each window, and which one it was: the first (row-major) of equals. ``x`` is (C, H, W).

    Returns the values (C, H', W') and the winners' flat indices into ``x``, of the same shape.
    """
    (kh, kw), (sh, sw) = _pair(pool.kernel_size), _pair(pool.stride)
    (ph, pw), (dh, dw) = _pair(pool.padding), _pair(pool.dilation)
    channels, height, width = x.shape
    rows = _places(height, kh, sh, ph, dh, ceil=pool.ceil_mode)
    columns = _places(width, kw, sw, pw, dw, ceil=pool.ceil_mode)
    winners = np.full((channels, rows, columns), -1)
    for c, i, j in np.ndindex(*winners.shape):
        best = -math.inf
        for u, v in np.ndindex(kh, kw):
            row, column = i * sh - ph + u * dh, j * sw - pw + v * dw
            inside = 0 <= row < height and 0 <= column < width
            if inside and (winners[c, i, j] < 0 or x[c, row, column] > best):
                best, winners[c, i, j] = x[c, row, column], (c * height + row) * width + column
    return x.reshape(-1)[winners], winners


def winner_takes_all(winners: NDArray[np.int64], R: Array, shape: tuple[int, ...]) -> Array:
    """Every output's relevance to its winner: ``R`` of the outputs, ``shape`` of the inputs."""
    relevance = np.zeros(int(np.prod(shape)))
    for winner, r in zip(winners.reshape(-1), R.reshape(-1), strict=True):
        relevance[winner] += r
    return relevance.reshape(shape)


def add_ratio(a: Array, b: Array, R: Array) -> tuple[Array, Array]:
    """Each operand gets its share ``|a| / (|a| + |b|)``; where both are zero, half each. Flat arrays."""
    left, right = np.zeros_like(R), np.zeros_like(R)
    for i in range(R.size):
        total = abs(a[i]) + abs(b[i])
        share = 0.5 if total == 0.0 else abs(a[i]) / total
        left[i], right[i] = R[i] * share, R[i] * (1.0 - share)
    return left, right


def add_proportional(a: Array, b: Array, R: Array) -> tuple[Array, Array]:
    """Each operand gets its signed share ``a / (a + b)``; where the sum is exactly zero, nothing. Flat arrays."""
    left, right = np.zeros_like(R), np.zeros_like(R)
    for i in range(R.size):
        total = a[i] + b[i]
        if total != 0.0:
            left[i], right[i] = R[i] * a[i] / total, R[i] * b[i] / total
    return left, right
