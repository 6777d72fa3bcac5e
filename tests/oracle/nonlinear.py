"""Max pooling and the residual add, position by position. Arrays are float64 numpy arrays of one sample."""

import math

import numpy as np
from numpy.typing import NDArray
from torch import nn

from oracle.linear import Array


def _per_axis(value: int | tuple[int, ...], axes: int) -> tuple[int, ...]:
    return (value,) * axes if isinstance(value, int) else tuple(value)


def _places(size: int, kernel: int, stride: int, padding: int, dilation: int, *, ceil: bool) -> int:
    """How many windows fit along one side; with ``ceil`` the last may hang over, but must start on real input."""
    steps = (size + 2 * padding - dilation * (kernel - 1) - 1) / stride
    count = (math.ceil(steps) if ceil else math.floor(steps)) + 1
    return count - 1 if ceil and (count - 1) * stride >= size + padding else count


def max_pool(pool: nn.modules.pooling._MaxPoolNd, x: Array) -> tuple[Array, NDArray[np.int64]]:
    """The largest input of each window, and which one it was: the first (row-major) of equals. ``x`` is (C, H, W), (C, L), (C, D, H, W).

    Returns the values (C, H', W') and the winners' flat indices into ``x``, of the same shape.
    """
    axes = x.ndim - 1
    kernel, stride, padding, dilation = (
        _per_axis(value, axes) for value in (pool.kernel_size, pool.stride, pool.padding, pool.dilation)
    )
    sides = zip(x.shape[1:], kernel, stride, padding, dilation, strict=True)
    winners = np.full((x.shape[0], *(_places(*side, ceil=pool.ceil_mode) for side in sides)), -1)
    for c, *start in np.ndindex(*winners.shape):
        best = -math.inf
        for step in np.ndindex(*kernel):
            place = tuple(
                i * s - p + u * d
                for i, s, p, u, d in zip(start, stride, padding, step, dilation, strict=True)
            )
            inside = all(0 <= i < size for i, size in zip(place, x.shape[1:], strict=True))
            if inside and (winners[(c, *start)] < 0 or x[(c, *place)] > best):
                best = x[(c, *place)]
                winners[(c, *start)] = np.ravel_multi_index((c, *place), x.shape)
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


def add_gamma(a: Array, b: Array, R: Array, gamma: float = 0.5) -> tuple[Array, Array]:
    """Signed shares in which what agrees with the sum counts ``1 + gamma`` times; a sum of zero is positive. Flat arrays."""
    left, right = np.zeros_like(R), np.zeros_like(R)
    for i in range(R.size):
        sign = -1 if a[i] + b[i] < 0 else 1
        c, d = (v * (1 + gamma) if v * sign > 0 else v for v in (a[i], b[i]))
        if c + d != 0.0:
            left[i], right[i] = R[i] * c / (c + d), R[i] * d / (c + d)
    return left, right


def add_proportional(a: Array, b: Array, R: Array) -> tuple[Array, Array]:
    """Each operand gets its signed share ``a / (a + b)``; where the sum is exactly zero, nothing. Flat arrays."""
    left, right = np.zeros_like(R), np.zeros_like(R)
    for i in range(R.size):
        total = a[i] + b[i]
        if total != 0.0:
            left[i], right[i] = R[i] * a[i] / total, R[i] * b[i] / total
    return left, right
